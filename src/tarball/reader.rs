//! Reads a tar entry by entry: ustar, GNU and PAX headers (POSIX.1-2017, pax; GNU tar manual, "Tar Internals").

use std::io::{self, Read};

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::entry::{Entry, EntryKind};
use super::pax::{self, PaxRecord};
use super::sparse::{self, Segment, Told, decimal};
use super::{BLOCK, padding};

/// Long names and PAX headers beyond this are an attack: no path is a hundredth of it.
const LARGEST_EXTENSION: u64 = 1 << 20;
/// The map of a sparse file beyond this is one too.
const LARGEST_MAP: usize = 8 << 20;

/// Why a tar cannot be read further. Names are as they were written.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The stream ends in the middle of an entry's content.
    #[error("cut off in an entry")]
    CutIn {
        /// The entry.
        name: Vec<u8>,
    },
    /// The stream ends where a header or the end mark belongs.
    #[error("cut off")]
    CutOff,
    /// No header where one belongs.
    #[error("{0}")]
    Damaged(&'static str),
    /// An entry that is not read rather than read wrongly.
    #[error("{why}")]
    Entry {
        /// The entry.
        name: Vec<u8>,
        /// Why not.
        why: String,
    },
    /// The stream fails.
    #[error(transparent)]
    Io(#[from] io::Error),
}

type Result<T> = std::result::Result<T, ReadError>;

/// A tar, read once from its beginning.
pub struct TarReader<R> {
    stream: R,
    /// What is left of the current entry's content in the tar.
    rest: u64,
    /// What follows it up to the next header.
    padding: u64,
    /// The name of the current entry, for what is said of a content that ends too soon.
    name: Vec<u8>,
    started: bool,
}

/// base64, whether it is filled up with `=` or not: libarchive does not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What extension headers said of the entry that follows.
#[derive(Default)]
struct Extensions {
    name: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    records: Vec<PaxRecord>,
}

impl Extensions {
    fn value(&self, key: &str) -> Option<&[u8]> {
        // The last one counts, and an empty one takes back those before it.
        let record = self.records.iter().rev().find(|record| record.key == key)?;
        (!record.value.is_empty()).then_some(record.value.as_slice())
    }
}

impl<R: Read> TarReader<R> {
    /// Reads from here.
    pub fn new(stream: R) -> Self {
        Self { stream, rest: 0, padding: 0, name: Vec::new(), started: false }
    }

    /// The stream below.
    pub fn stream(&mut self) -> &mut R {
        &mut self.stream
    }

    /// The stream, wherever it is.
    pub fn into_inner(self) -> R {
        self.stream
    }

    /// The next entry, whatever was read of the one before; `None` at the end mark.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        self.skip()?;
        let mut extensions = Extensions::default();
        loop {
            let Some(header) = self.header()? else {
                let complete =
                    extensions.name.is_none() && extensions.target.is_none() && extensions.records.is_empty();
                return if complete {
                    Ok(None)
                } else {
                    Err(ReadError::Damaged("an extension header has no entry"))
                };
            };
            match header.0[156] {
                b'L' => extensions.name = Some(until_zero(&self.extension(&header)?).to_vec()),
                b'K' => extensions.target = Some(until_zero(&self.extension(&header)?).to_vec()),
                b'x' | b'X' => {
                    let records = pax::parse(&self.extension(&header)?);
                    extensions
                        .records
                        .extend(records.ok_or(ReadError::Damaged("a PAX header cannot be read"))?);
                }
                b'g' => {
                    let records = pax::parse(&self.extension(&header)?);
                    global(&records.ok_or(ReadError::Damaged("a PAX header cannot be read"))?)?;
                }
                flag => return self.entry(&header, flag, &extensions).map(Some),
            }
        }
    }

    /// The content of the entry that [`TarReader::next_entry`] gave last, holes as zeros. What is not read is skipped.
    pub fn content<'r>(&'r mut self, entry: &'r Entry) -> EntryContent<'r, R> {
        EntryContent { reader: self, size: entry.size, segments: entry.segments.as_deref(), position: 0 }
    }

    fn entry(&mut self, header: &RawHeader, flag: u8, extensions: &Extensions) -> Result<Entry> {
        let given_name = extensions.value("path").or(extensions.name.as_deref());
        let mut name = given_name.map_or_else(|| header.name(), <[u8]>::to_vec);
        let kind = kind(flag, &name);
        let target = extensions.value("linkpath").or(extensions.target.as_deref());
        let target = target.map_or_else(|| until_zero(&header.0[157..257]).to_vec(), <[u8]>::to_vec);
        let told =
            sparse::told(&extensions.records).map_err(|why| ReadError::Entry { name: name.clone(), why })?;
        if told != Told::No
            && let Some(real) = extensions.value("GNU.sparse.name")
        {
            name = real.to_vec();
        }
        let refused = |why: &str| ReadError::Entry { name: name.clone(), why: why.to_owned() };
        let number = |key: &str, at: std::ops::Range<usize>, what: &str| match extensions.value(key) {
            Some(text) => decimal(text).ok_or_else(|| refused(what)),
            None => {
                header.number(at).and_then(|value| u64::try_from(value).ok()).ok_or_else(|| refused(what))
            }
        };
        // Links, folders and devices have no content, whatever their size says: every engine reads them so.
        let mut stored = match kind {
            EntryKind::File | EntryKind::Other(_) => {
                number("size", 124..136, "has a size that cannot be read")?
            }
            _ => 0,
        };
        let (uid, gid) = (
            number("uid", 108..116, "has an owner that cannot be read")?,
            number("gid", 116..124, "has a group that cannot be read")?,
        );
        let mode = header.number(100..108).and_then(|mode| u32::try_from(mode).ok());
        let mode = mode.ok_or_else(|| refused("has a mode that cannot be read"))? & 0o7777;
        let modified = match extensions.value("mtime") {
            Some(text) => seconds(text),
            None => header.number(136..148),
        };
        let modified = modified.ok_or_else(|| refused("has a time that cannot be read"))?;
        (self.rest, self.padding) = (stored, padding(stored));
        self.name.clone_from(&name);
        let (kind, segments, size) = match (told, flag) {
            (Told::No, b'S') => {
                let (segments, size) = self.old_sparse(header).map_err(|why| named(why, &name))?;
                (EntryKind::File, Some(segments), size)
            }
            (Told::No, _) => (kind, None, stored),
            _ if kind != EntryKind::File => return Err(refused("is no regular file, and yet sparse")),
            (Told::Map { segments, size }, _) => (kind, Some(segments), size),
            (Told::InContent { size }, _) => {
                let segments = self.map_in_content().map_err(|why| named(why, &name))?;
                stored = self.rest;
                (kind, Some(segments), size)
            }
        };
        if segments.as_ref().is_some_and(|segments| !sparse::fits(segments, size, stored)) {
            return Err(refused("is a sparse file whose map does not fit it"));
        }
        Ok(Entry {
            attributes: attributes(&extensions.records),
            name,
            target,
            kind,
            mode,
            uid,
            gid,
            modified,
            size,
            segments,
        })
    }

    /// A header; `None` at the end mark.
    fn header(&mut self) -> Result<Option<RawHeader>> {
        let mut bytes = [0; BLOCK];
        let read = fill(&mut self.stream, &mut bytes)?;
        if read < BLOCK {
            let text = !self.started && !bytes[..read].contains(&0);
            return Err(if text { ReadError::Damaged("it is no tar") } else { ReadError::CutOff });
        }
        let header = RawHeader(bytes);
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        if !header.checksum_holds() {
            let why = if self.started { "a header is damaged" } else { "it is no tar" };
            return Err(ReadError::Damaged(why));
        }
        self.started = true;
        Ok(Some(header))
    }

    /// The content of an extension header.
    fn extension(&mut self, header: &RawHeader) -> Result<Vec<u8>> {
        let size = header.number(124..136).and_then(|size| u64::try_from(size).ok());
        let size = size.filter(|size| *size <= LARGEST_EXTENSION);
        let size = size.ok_or(ReadError::Damaged("an extension header has a size that cannot be"))?;
        (self.rest, self.padding) = (size, padding(size));
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
        if fill(&mut self.stream, &mut bytes)? < bytes.len() {
            return Err(ReadError::CutOff);
        }
        self.rest = 0;
        self.skip()?;
        Ok(bytes)
    }

    /// Old GNU format: four segments in the header, further ones in blocks after it.
    fn old_sparse(&mut self, header: &RawHeader) -> std::result::Result<(Vec<Segment>, u64), Problem> {
        let size = header.number(483..495).and_then(|size| u64::try_from(size).ok()).ok_or(Problem::Map)?;
        let mut segments = Vec::new();
        let mut take = |bytes: &[u8], count: usize| -> Option<()> {
            for at in (0..count).map(|index| index * 24) {
                if bytes[at] == 0 {
                    break;
                }
                let offset = u64::try_from(number(&bytes[at..at + 12])?).ok()?;
                let length = u64::try_from(number(&bytes[at + 12..at + 24])?).ok()?;
                segments.push(Segment { offset, length });
            }
            Some(())
        };
        take(&header.0[386..482], 4).ok_or(Problem::Map)?;
        let mut more = header.0[482] != 0;
        let mut blocks = 0;
        while more {
            let mut bytes = [0; BLOCK];
            if fill(&mut self.stream, &mut bytes)? < BLOCK {
                return Err(Problem::Cut);
            }
            blocks += 1;
            if blocks * BLOCK > LARGEST_MAP {
                return Err(Problem::Map);
            }
            take(&bytes, 21).ok_or(Problem::Map)?;
            more = bytes[504] != 0;
        }
        Ok((segments, size))
    }

    /// PAX 1.0: decimal lines at the beginning of the content, padded to whole blocks: how many, then offset and length.
    fn map_in_content(&mut self) -> std::result::Result<Vec<Segment>, Problem> {
        let mut lines: Vec<u8> = Vec::new();
        let mut wanted: Option<usize> = None;
        let mut found = 0;
        while wanted.is_none_or(|wanted| found < wanted) {
            if self.rest < BLOCK as u64 || lines.len() > LARGEST_MAP {
                return Err(Problem::Map);
            }
            let mut bytes = [0; BLOCK];
            if fill(&mut self.stream, &mut bytes)? < BLOCK {
                return Err(Problem::Cut);
            }
            self.rest -= BLOCK as u64;
            lines.extend_from_slice(&bytes);
            found += bytes.split(|byte| *byte == b'\n').count() - 1;
            if wanted.is_none() && found > 0 {
                let first =
                    lines.split(|byte| *byte == b'\n').next().and_then(decimal).ok_or(Problem::Map)?;
                wanted = usize::try_from(first).ok().and_then(|count| count.checked_mul(2)?.checked_add(1));
                wanted.ok_or(Problem::Map)?;
            }
        }
        let numbers = lines.split(|byte| *byte == b'\n').take(wanted.unwrap_or(0)).skip(1);
        let numbers: Vec<u64> =
            numbers.map(|line| decimal(line).ok_or(Problem::Map)).collect::<std::result::Result<_, _>>()?;
        Ok(numbers.chunks(2).map(|pair| Segment { offset: pair[0], length: pair[1] }).collect())
    }

    /// Leaves what was not read of the current entry behind.
    fn skip(&mut self) -> Result<()> {
        let mut rest = self.rest;
        let mut buffer = [0; 16 * 1024];
        while rest > 0 {
            let want = buffer.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
            let read = self.stream.read(&mut buffer[..want])?;
            if read == 0 {
                return Err(ReadError::CutIn { name: self.name.clone() });
            }
            rest -= read as u64;
        }
        let padding = usize::try_from(self.padding).unwrap_or(0);
        if fill(&mut self.stream, &mut buffer[..padding])? < padding {
            return Err(ReadError::CutOff);
        }
        (self.rest, self.padding) = (0, 0);
        Ok(())
    }
}

/// What is wrong with the map of a sparse file.
enum Problem {
    Map,
    Cut,
    Io(io::Error),
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn named(problem: Problem, name: &[u8]) -> ReadError {
    match problem {
        Problem::Map => ReadError::Entry {
            name: name.to_vec(),
            why: "is a sparse file whose map cannot be read".to_owned(),
        },
        Problem::Cut => ReadError::CutIn { name: name.to_vec() },
        Problem::Io(error) => ReadError::Io(error),
    }
}

/// A global header may say how the archive came about (`git archive` does), but nothing that changes its files: readers
/// do not agree on that.
fn global(records: &[PaxRecord]) -> Result<()> {
    const HARMLESS: [&str; 9] =
        ["comment", "atime", "ctime", "mtime", "uname", "gname", "charset", "hdrcharset", "VENDOR"];
    match records
        .iter()
        .find(|record| !HARMLESS.contains(&record.key.as_str()) && !record.key.contains("release"))
    {
        None => Ok(()),
        Some(_) => Err(ReadError::Damaged("a global PAX header changes what all files are")),
    }
}

fn attributes(records: &[PaxRecord]) -> Vec<(String, Vec<u8>)> {
    // bsdtar writes both, the second one in base64. What is none stays as it is, and is no value that anybody knows.
    let decoded = |value: &[u8]| BASE64.decode(value).unwrap_or_else(|_| value.to_vec());
    let attribute = |PaxRecord { key, value }: &PaxRecord| {
        let plain = key.strip_prefix("SCHILY.xattr.").map(|name| (name, value.clone()));
        let (name, value) =
            plain.or_else(|| Some((key.strip_prefix("LIBARCHIVE.xattr.")?, decoded(value))))?;
        Some((name.to_owned(), value))
    };
    records.iter().filter_map(attribute).collect()
}

fn kind(flag: u8, name: &[u8]) -> EntryKind {
    match flag {
        // Before POSIX a folder was a file whose name ends so.
        0 if name.ends_with(b"/") => EntryKind::Directory,
        b'0' | 0 | b'7' | b'S' => EntryKind::File,
        b'1' => EntryKind::HardLink,
        b'2' => EntryKind::Symlink,
        b'3' => EntryKind::CharacterDevice,
        b'4' => EntryKind::BlockDevice,
        b'5' => EntryKind::Directory,
        b'6' => EntryKind::Fifo,
        other => EntryKind::Other(other),
    }
}

/// PAX time: decimal, with a sign and a fraction where there is one.
fn seconds(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = fraction.bytes().all(|byte| byte.is_ascii_digit());
    let seconds: i64 = whole.parse().ok().filter(|_| digits)?;
    // What is before 1970 by half a second belongs to the second before.
    let before = whole.starts_with('-') && fraction.bytes().any(|byte| byte != b'0');
    Some(if before { seconds.saturating_sub(1) } else { seconds })
}

fn until_zero(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len())]
}

fn fill(stream: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match stream.read(&mut buffer[read..]) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

struct RawHeader([u8; BLOCK]);

impl RawHeader {
    fn number(&self, at: std::ops::Range<usize>) -> Option<i64> {
        number(&self.0[at])
    }

    /// The sum of all bytes, the sum's own as spaces. Old programs added signed bytes.
    fn checksum_holds(&self) -> bool {
        let said = number(&self.0[148..156]);
        let others = || self.0[..148].iter().chain(&self.0[156..]);
        let unsigned = others().map(|byte| i64::from(*byte)).sum::<i64>() + 8 * 32;
        let signed = others().map(|byte| i64::from(byte.cast_signed())).sum::<i64>() + 8 * 32;
        said == Some(unsigned) || said == Some(signed)
    }

    /// The name, its prefix before it where this format has one.
    fn name(&self) -> Vec<u8> {
        let name = until_zero(&self.0[..100]);
        let prefix = match (&self.0[257..263], &self.0[508..512]) {
            // star keeps two times where POSIX has the rest of the prefix.
            (b"ustar\0", b"tar\0") => until_zero(&self.0[345..476]),
            (b"ustar\0", _) => until_zero(&self.0[345..500]),
            // GNU has times and segments there.
            _ => &[],
        };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }
}

/// Octal digits between spaces and zeros, or with the highest bit set a binary number in two's complement.
fn number(field: &[u8]) -> Option<i64> {
    let first = *field.first()?;
    if first & 0x80 != 0 {
        let negative = first & 0x40 != 0;
        let start = if negative { -1_i128 } else { 0 };
        let first = if negative { first } else { first & 0x7f };
        let value = field[1..].iter().try_fold((start << 8) | i128::from(first), |value, byte| {
            value.checked_mul(256).map(|value| value | i128::from(*byte))
        })?;
        return i64::try_from(value).ok();
    }
    let digits: Vec<u8> = until_zero(field).iter().copied().filter(|byte| *byte != b' ').collect();
    digits.iter().try_fold(0_i64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

/// Reads an entry's content.
pub struct EntryContent<'r, R> {
    reader: &'r mut TarReader<R>,
    size: u64,
    segments: Option<&'r [Segment]>,
    position: u64,
}

impl<R: Read> Read for EntryContent<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = |until: u64, position: u64| usize::try_from(until - position).unwrap_or(usize::MAX);
        let Some(segments) = &mut self.segments else {
            let want = buffer.len().min(usize::try_from(self.reader.rest).unwrap_or(usize::MAX));
            return self.stored(&mut buffer[..want]);
        };
        while segments.first().is_some_and(|segment| segment.offset + segment.length <= self.position) {
            *segments = &segments[1..];
        }
        let (until, hole) = match segments.first() {
            Some(segment) if segment.offset <= self.position => (segment.offset + segment.length, false),
            Some(segment) => (segment.offset, true),
            None => (self.size, true),
        };
        let want = buffer.len().min(left(until, self.position));
        let buffer = &mut buffer[..want];
        let read = if hole {
            buffer.fill(0);
            want
        } else {
            self.stored(buffer)?
        };
        self.position += read as u64;
        Ok(read)
    }
}

impl<R: Read> EntryContent<'_, R> {
    fn stored(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let read = self.reader.stream.read(buffer)?;
        if read == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "cut off in an entry"));
        }
        self.reader.rest -= read as u64;
        Ok(read)
    }
}
