//! What a file is, by its first bytes; its name says nothing.

use std::io::{self, BufRead, Read};

use flate2::bufread::MultiGzDecoder;
use lzma_rust2::XzReader;

/// A stream whose compression was found out. Each variant yields the tar's bytes.
pub enum Decompressed<R: BufRead> {
    /// Not compressed.
    Tar(R),
    /// gzip, of one member or several.
    Gzip(Box<MultiGzDecoder<R>>),
    /// zstd, of one frame or several.
    Zstd(zstd::Decoder<'static, R>),
    /// xz, of one stream or several.
    Xz(Box<XzReader<R>>),
}

/// What a decoder of xz may take, in KiB: as much as one of zstd takes. `xz -9` asks for half of it.
const MOST_MEMORY: u32 = 128 * 1024;

/// Why a stream cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum MagicError {
    /// No byte.
    #[error("it is empty")]
    Empty,
    /// A compression, or another kind of archive, that is not read.
    #[error("it is {0}, which is not read")]
    Other(&'static str),
    /// The first bytes cannot be read.
    #[error(transparent)]
    Read(#[from] io::Error),
}

/// Kinds of file that people name where a tar belongs.
const OTHERS: [(&[u8], &str); 7] = [
    (b"BZh", "compressed by bzip2"),
    (b"\x04\x22\x4d\x18", "compressed by lz4"),
    (b"\x5d\x00\x00", "compressed by lzma"),
    (b"PK\x03\x04", "a zip archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"!<arch>\n", "an ar archive (a .deb or a library)"),
    (b"\xed\xab\xee\xdb", "an rpm"),
];

/// Opens a tar, gzipped, in zstd, in xz or plain.
pub fn open<R: BufRead>(mut stream: R) -> Result<Decompressed<R>, MagicError> {
    let magic = stream.fill_buf()?;
    if magic.is_empty() {
        return Err(MagicError::Empty);
    }
    if let Some((_, what)) = OTHERS.iter().find(|(start, _)| magic.starts_with(start)) {
        return Err(MagicError::Other(what));
    }
    Ok(match magic {
        [0x1f, 0x8b, ..] => Decompressed::Gzip(Box::new(MultiGzDecoder::new(stream))),
        // A frame, or one of the sixteen skippable ones that parallel compressors write first.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
            Decompressed::Zstd(zstd::Decoder::with_buffer(stream)?)
        }
        [0xfd, b'7', b'z', b'X', b'Z', ..] => {
            Decompressed::Xz(Box::new(XzReader::new_mem_limit(stream, true, MOST_MEMORY)))
        }
        _ => Decompressed::Tar(stream),
    })
}

impl<R: BufRead> Decompressed<R> {
    /// True where the bytes are compressed.
    pub fn is_compressed(&self) -> bool {
        !matches!(self, Self::Tar(_))
    }

    /// The stream below. What a decoder did not take is still in it.
    pub fn into_inner(self) -> R {
        match self {
            Self::Tar(stream) => stream,
            Self::Gzip(decoder) => decoder.into_inner(),
            Self::Zstd(decoder) => decoder.finish(),
            Self::Xz(decoder) => decoder.into_inner(),
        }
    }
}

impl<R: BufRead> Read for Decompressed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tar(stream) => stream.read(buffer),
            Self::Gzip(decoder) => decoder.read(buffer),
            Self::Zstd(decoder) => decoder.read(buffer),
            Self::Xz(decoder) => decoder.read(buffer).map_err(|error| match error.kind() {
                io::ErrorKind::OutOfMemory => {
                    let most = MOST_MEMORY / 1024;
                    let why =
                        format!("its xz asks for more than {most} MiB of memory, and `xz -9` would not");
                    io::Error::new(io::ErrorKind::FileTooLarge, why)
                }
                _ => error,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(content).unwrap();
        out.finish().unwrap()
    }

    #[test]
    fn stream_is_told_by_magic_also_in_several_members() {
        let zstd = |content: &[u8]| zstd::encode_all(content, 3).unwrap();
        let xz = |content: &[u8]| {
            let options = lzma_rust2::XzOptions::with_preset(1);
            let mut out = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
            out.write_all(content).unwrap();
            out.finish().unwrap()
        };
        let skippable = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd";
        for (packed, compressed) in [
            (b"one two".to_vec(), false),
            ([gzip(b"one "), gzip(b"two")].concat(), true),
            ([zstd(b"one "), zstd(b"two")].concat(), true),
            ([&skippable[..], &zstd(b"one two")].concat(), true),
            ([xz(b"one "), xz(b"two")].concat(), true),
            ([xz(b"one "), vec![0; 8], xz(b"two")].concat(), true),
        ] {
            let mut plain = open(packed.as_slice()).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(plain.is_compressed(), compressed);
            let mut content = Vec::new();
            plain.read_to_end(&mut content).unwrap();
            assert_eq!(content, b"one two");
        }
    }

    #[test]
    fn what_is_no_tar_is_named() {
        let why = |bytes: &[u8]| open(bytes).err().map(|error| error.to_string()).unwrap_or_default();
        assert_eq!(why(b""), "it is empty");
        assert_eq!(why(b"PK\x03\x04..."), "it is a zip archive, which is not read");
        assert_eq!(why(b"BZh91AY"), "it is compressed by bzip2, which is not read");
    }
}
