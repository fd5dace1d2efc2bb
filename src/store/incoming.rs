//! Bytes on their way in: hashed, never more than one beyond what there should be, and told apart whether reading or writing failed.

use std::io::{self, BufReader, Read, Write};

use crate::oci::{Digest, HashingWriter};

/// Why bytes did not come in.
pub(super) enum Broken {
    /// They cannot be read where they come from.
    Read(io::Error),
    /// They cannot be written.
    Write(io::Error),
}

/// Writes what is read, which should be `size` bytes; the writer, the digest of what came and how many bytes came.
pub(super) fn copy<W: Write>(reader: impl Read, size: u64, out: W) -> Result<(W, Digest, u64), Broken> {
    let mut out = HashingWriter::new(out);
    // One byte more than there should be, and no endless stream.
    let reader = Reading { reader: reader.take(size.saturating_add(1)), has_failed: false };
    let mut reader = BufReader::with_capacity(128 * 1024, reader);
    match io::copy(&mut reader, &mut out) {
        Ok(_) => Ok(out.finish()),
        Err(error) if reader.get_ref().has_failed => Err(Broken::Read(error)),
        Err(error) => Err(Broken::Write(error)),
    }
}

/// Tells a failure to read from one to write.
struct Reading<R> {
    reader: R,
    has_failed: bool,
}

impl<R: Read> Read for Reading<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer).inspect_err(|error| {
            self.has_failed |= error.kind() != io::ErrorKind::Interrupted;
        })
    }
}
