//! What a file is, by its first bytes; its name says nothing.

use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;
use lzma_rust2::XzReader;

/// A stream whose compression was found out. Each variant yields the tar's bytes.
pub enum Decompressed<R: BufRead> {
    /// Not compressed.
    Tar(R),
    /// gzip, of one member or several.
    Gzip(Box<Gzip<R>>),
    /// zstd, of one frame or several.
    Zstd(zstd::Decoder<'static, R>),
    /// xz, of one stream or several.
    Xz(Box<XzReader<R>>),
}

/// gzip, of one member or several (RFC 1952). Zeros behind the last one, which fill up a tape or a block, are passed over, as GNU
/// gzip does.
pub struct Gzip<R> {
    /// Always there, but while one member follows another.
    member: Option<GzDecoder<R>>,
    /// True between the end of a member and whatever follows it.
    has_ended: bool,
    /// True in a member behind the first one.
    is_behind: bool,
    is_filled: bool,
}

/// Why there is a decoder.
const KEPT: &str = "a decoder takes the place of the one before at once";

impl<R: BufRead> Gzip<R> {
    /// Reads from the first member.
    pub fn new(stream: R) -> Self {
        Self { member: Some(GzDecoder::new(stream)), has_ended: false, is_behind: false, is_filled: false }
    }

    /// True where zeros follow the last member, as far as was read: an engine takes no layer that ends so.
    pub fn is_filled(&self) -> bool {
        self.is_filled
    }

    /// The stream below.
    fn into_inner(self) -> R {
        self.member.expect(KEPT).into_inner()
    }

    /// Looks at what is behind a member: false at the end of all.
    fn goes_on(&mut self) -> io::Result<bool> {
        loop {
            let stream = self.member.as_mut().expect(KEPT).get_mut();
            let rest = stream.fill_buf()?;
            let zeros = rest.iter().take_while(|byte| **byte == 0).count();
            match rest.get(zeros) {
                None if zeros == 0 => return Ok(false),
                // The second byte may not be there yet.
                Some(0x1f)
                    if zeros == 0 && !self.is_filled && rest.get(1).is_none_or(|byte| *byte == 0x8b) =>
                {
                    let stream = self.member.take().expect(KEPT).into_inner();
                    self.member = Some(GzDecoder::new(stream));
                    (self.has_ended, self.is_behind) = (false, true);
                    return Ok(true);
                }
                Some(_) => return Err(Follows::error("gzip")),
                None => {
                    stream.consume(zeros);
                    self.is_filled = true;
                }
            }
        }
    }
}

impl<R: BufRead> Read for Gzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if self.has_ended && !self.goes_on()? {
                return Ok(0);
            }
            let member = self.member.as_mut().expect(KEPT);
            let begins = self.is_behind && member.header().is_none();
            match member.read(buffer) {
                Ok(0) => self.has_ended = true,
                // Its first byte was that of a member, and the second was not.
                Err(error) if begins && error.kind() == io::ErrorKind::InvalidInput => {
                    return Err(Follows::error("gzip"));
                }
                read => return read,
            }
        }
    }
}

/// What a decoder fails with where something stands behind the end of what it decodes.
#[derive(Debug, thiserror::Error)]
#[error("something follows the end of its {0}")]
pub struct Follows(&'static str);

impl Follows {
    fn error(of: &'static str) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, Self(of))
    }

    /// True for this error, whatever passed it on.
    pub fn is(error: &io::Error) -> bool {
        error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<Self>)
    }
}

/// True where a stream ends too soon, whichever decoder says so.
pub fn is_cut(error: &io::Error) -> bool {
    let text = error.to_string();
    // libzstd says it in words alone.
    error.kind() == io::ErrorKind::UnexpectedEof
        || text.contains("unexpected end")
        || text.contains("incomplete frame")
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
        [0x1f, 0x8b, ..] => Decompressed::Gzip(Box::new(Gzip::new(stream))),
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

    /// True where zeros follow the end of its gzip.
    pub fn is_filled(&self) -> bool {
        matches!(self, Self::Gzip(decoder) if decoder.is_filled())
    }
}

impl<R: BufRead> Read for Decompressed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tar(stream) => stream.read(buffer),
            Self::Gzip(decoder) => decoder.read(buffer),
            // The first frame was told by its magic.
            Self::Zstd(decoder) => decoder.read(buffer).map_err(|error| {
                if error.to_string().contains("Unknown frame descriptor") {
                    Follows::error("zstd")
                } else {
                    error
                }
            }),
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
    fn what_follows_a_stream_is_said_and_zeros_behind_gzip_are_passed_over_as_gnu_gzip_does() {
        let read = |bytes: &[u8], room: usize| -> io::Result<Vec<u8>> {
            let mut content = Vec::new();
            let stream = io::BufReader::with_capacity(room, bytes);
            open(stream).map_err(io::Error::other)?.read_to_end(&mut content).map(|_| content)
        };
        let packed = [gzip(b"one "), gzip(b"two")].concat();
        for room in [13, 1 << 16] {
            for zeros in [0, 1, 511, 70_000] {
                let filled = [packed.clone(), vec![0; zeros]].concat();
                assert_eq!(read(&filled, room).unwrap(), b"one two", "{room} {zeros}");
            }
            let garbage: [&[u8]; 6] = [
                b"x",
                b"\x1fx",
                b"\x1f\x1f\x1f",
                b"garbage, more than a header has",
                b"\0\0x",
                b"\0\x1f\x8b",
            ];
            for garbage in garbage {
                let error = read(&[&packed, garbage].concat(), room).unwrap_err();
                assert_eq!(error.to_string(), "something follows the end of its gzip", "{room} {garbage:?}");
                assert!(Follows::is(&error));
            }
            for cut in [packed.len() - 1, packed.len() - 9, gzip(b"one ").len() + 3] {
                assert!(is_cut(&read(&packed[..cut], room).unwrap_err()), "{room} {cut}");
            }
        }
        let zstd = [zstd::encode_all(&b"one"[..], 3).unwrap(), b"garbage".to_vec()].concat();
        let error = read(&zstd, 1 << 16).unwrap_err();
        assert!(
            Follows::is(&error) && error.to_string() == "something follows the end of its zstd",
            "{error}"
        );
    }

    #[test]
    fn what_is_no_tar_is_named() {
        let why = |bytes: &[u8]| open(bytes).err().map(|error| error.to_string()).unwrap_or_default();
        assert_eq!(why(b""), "it is empty");
        assert_eq!(why(b"PK\x03\x04..."), "it is a zip archive, which is not read");
        assert_eq!(why(b"BZh91AY"), "it is compressed by bzip2, which is not read");
    }
}
