//! The bytes of the files of a tree: in memory, or in an anonymous temporary file.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Deref;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::machine;
use super::modules::KnownModule;
use super::version::{Search, Version};
use crate::contents::npm::Module;
use crate::elf::{self, Elf, ReadAt};
use crate::oci::{Digest, HashingReader, HashingWriter};
use crate::paths::Share;
use crate::tarball::Capabilities;

/// Files up to this size may stay in memory.
const IN_MEMORY: usize = 64 * 1024;
/// So many bytes of files stay in memory, of all inputs together; whatever comes later is spooled.
const ALL_IN_MEMORY: usize = 4 << 20;
/// What a content in memory takes besides its bytes.
const BESIDE: usize = 64;
/// How many bytes the files in memory take now.
static HELD: AtomicUsize = AtomicUsize::new(0);

/// The bytes of a file: known by digest and size, read when needed.
#[derive(Clone, Debug)]
pub struct Content {
    /// The digest of the bytes.
    pub digest: Digest,
    /// How many there are.
    pub size: u64,
    /// For an ELF file, the machine that it is made for.
    pub machine: Option<u16>,
    /// What a program or library asks and offers.
    pub elf: Option<Arc<Known>>,
    /// When the file was last changed, seconds since 1970, in 32 bits; 0 where nobody said. Not a part of any layer.
    pub modified: u32,
    /// What a file system keeps with the bytes: what the program may do that its starter may not.
    pub capabilities: Option<Capabilities>,
    /// What a `package.json` says of the package that it lies in, once it has a path.
    pub(super) module: Option<Arc<KnownModule>>,
    pub(super) place: Stored,
}

#[derive(Clone, Debug)]
pub(super) enum Stored {
    Memory(Arc<Held>),
    Spooled {
        file: Arc<File>,
        offset: u64,
    },
    /// Known from before, not read this time.
    Elsewhere,
}

/// What an ELF file says, with its share of what may be in memory.
#[derive(Debug)]
pub struct Known {
    pub(super) elf: Elf,
    versions: Box<[Version]>,
    /// Until it is dropped.
    _share: Share,
}

impl Known {
    fn of(elf: Elf, versions: Box<[Version]>) -> Arc<Self> {
        Arc::new(Self { _share: Share::of(elf.weight() + size_of_val(&*versions) as u64), elf, versions })
    }

    /// The versions that are compiled into it.
    pub fn versions(&self) -> &[Version] {
        &self.versions
    }
}

impl Deref for Known {
    type Target = Elf;

    fn deref(&self) -> &Elf {
        &self.elf
    }
}

/// Bytes that count as long as they are in memory.
#[derive(Debug)]
pub(super) struct Held(Box<[u8]>);

impl Held {
    fn new(bytes: Vec<u8>) -> Self {
        HELD.fetch_add(bytes.len() + BESIDE, Ordering::Relaxed);
        Self(bytes.into())
    }
}

/// How large a file may be now that stays in memory.
fn room() -> usize {
    IN_MEMORY.min(ALL_IN_MEMORY.saturating_sub(HELD.load(Ordering::Relaxed)))
}

impl Drop for Held {
    fn drop(&mut self) {
        HELD.fetch_sub(self.0.len() + BESIDE, Ordering::Relaxed);
    }
}

impl Content {
    /// Content that is at hand.
    pub fn bytes(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        let (digest, size, machine) = (Digest::of(&bytes), bytes.len() as u64, machine::of(&bytes));
        let elf = elf::read(bytes.as_slice(), size).ok().flatten();
        let elf = elf.map(|elf| Known::of(elf, Search::of(&bytes)));
        Self::at(Stored::Memory(Arc::new(Held::new(bytes))), digest, size, machine, elf)
    }

    /// Content of which only this is known. It cannot be opened.
    pub fn known(
        digest: Digest,
        size: u64,
        machine: Option<u16>,
        elf: Option<(Elf, Box<[Version]>)>,
        module: Option<Module>,
    ) -> Self {
        let elf = elf.map(|(elf, versions)| Known::of(elf, versions));
        let module = module.map(KnownModule::of);
        Self { module, ..Self::at(Stored::Elsewhere, digest, size, machine, elf) }
    }

    fn at(place: Stored, digest: Digest, size: u64, machine: Option<u16>, elf: Option<Arc<Known>>) -> Self {
        Self { digest, size, machine, elf, modified: 0, capabilities: None, module: None, place }
    }

    /// A reader from the first byte.
    pub fn open(&self) -> ContentReader<'_> {
        ContentReader { content: self, position: 0 }
    }
}

/// Reads a content without moving anybody else's position.
pub struct ContentReader<'a> {
    content: &'a Content,
    position: u64,
}

impl Read for ContentReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(self.content.size - self.position).unwrap_or(usize::MAX);
        let want = rest.min(buffer.len());
        let read = match &self.content.place {
            Stored::Memory(bytes) => {
                let start = usize::try_from(self.position).unwrap_or(usize::MAX);
                buffer[..want].copy_from_slice(&bytes.0[start..start + want]);
                want
            }
            Stored::Spooled { file, offset } => file.read_at(&mut buffer[..want], offset + self.position)?,
            Stored::Elsewhere => return Err(io::Error::other("the content was not read")),
        };
        if read == 0 && want > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.position += read as u64;
        Ok(read)
    }
}

/// A content that cannot be kept: nothing is wrong with where it came from.
#[derive(Debug, thiserror::Error)]
#[error("{} takes no more", std::env::temp_dir().display())]
pub struct Unkept {
    /// The operating system's words.
    source: io::Error,
}

pub(super) fn unkept(error: io::Error) -> io::Error {
    io::Error::other(Unkept { source: error })
}

impl Unkept {
    /// True where this is why a reading failed.
    pub fn is(error: &io::Error) -> bool {
        error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<Self>)
    }
}

/// Keeps contents: small ones in memory while there is room, others in a temporary file that has no name and goes away by
/// itself.
///
/// One spool serves one reader of files; several readers have a spool each.
#[derive(Debug, Default)]
pub struct Spool(Mutex<Option<(Arc<File>, u64)>>);

impl Spool {
    /// Reads `reader` to its end.
    pub fn keep(&self, reader: impl Read) -> io::Result<Content> {
        let mut reader = HashingReader::new(reader);
        let mut head = Vec::new();
        (&mut reader).take(IN_MEMORY as u64 + 1).read_to_end(&mut head)?;
        let machine = machine::of(&head);
        if head.len() <= room() {
            let (digest, size) = reader.finish();
            let elf = elf::read(head.as_slice(), size)?.map(|elf| Known::of(elf, Search::of(&head)));
            let place = Stored::Memory(Arc::new(Held::new(head)));
            return Ok(Content::at(place, digest, size, machine, elf));
        }
        let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, end) = match &mut *guard {
            Some((file, end)) => (Arc::clone(file), end),
            empty => {
                let file = Arc::new(tempfile::tempfile().map_err(unkept)?);
                (Arc::clone(&file), &mut empty.insert((file, 0)).1)
            }
        };
        let offset = *end;
        let is_whole = head.len() <= IN_MEMORY;
        let mut buffer = head;
        let mut search = Search::default();
        loop {
            if machine.is_some() {
                search.feed(&buffer);
            }
            file.write_all_at(&buffer, *end).map_err(unkept)?;
            *end += buffer.len() as u64;
            if is_whole {
                break;
            }
            buffer.resize(256 * 1024, 0);
            let read = reader.read(&mut buffer)?;
            buffer.truncate(read);
            if read == 0 {
                break;
            }
        }
        let (digest, size) = reader.finish();
        let elf = match machine {
            Some(_) => {
                elf::read(&Slice { file: &file, offset }, size)?.map(|elf| Known::of(elf, search.finish()))
            }
            None => None,
        };
        Ok(Content::at(Stored::Spooled { file, offset }, digest, size, machine, elf))
    }
}

/// A piece of a file, read at places counted from its beginning.
pub(super) struct Slice<'f> {
    pub file: &'f File,
    pub offset: u64,
}

impl ReadAt for Slice<'_> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(buffer, self.offset + offset)
    }
}

/// Keeps what is written: in memory where it is small, else in a file of its own that has no name.
pub fn written(write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>) -> io::Result<Content> {
    let mut out = HashingWriter::new(Kept::Memory(Vec::new()));
    write(&mut out)?;
    let (kept, digest, size) = out.finish();
    let place = match kept {
        Kept::Memory(bytes) => Stored::Memory(Arc::new(Held::new(bytes))),
        Kept::File(file) => {
            let file = file.into_inner().map_err(|error| unkept(error.into_error()))?;
            Stored::Spooled { file: Arc::new(file), offset: 0 }
        }
    };
    Ok(Content::at(place, digest, size, None, None))
}

/// Where what is written goes.
enum Kept {
    Memory(Vec<u8>),
    File(io::BufWriter<File>),
}

impl io::Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => return file.write(bytes),
            Self::Memory(head) if head.len() + bytes.len() <= room() => {
                head.extend_from_slice(bytes);
                return Ok(bytes.len());
            }
            Self::Memory(head) => {
                let mut file = io::BufWriter::with_capacity(IN_MEMORY, tempfile::tempfile().map_err(unkept)?);
                file.write_all(head)?;
                *self = Self::File(file);
            }
        }
        self.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::File(file) => file.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spooled_content_reads_back_and_leaves_others_alone() {
        let spool = Spool::default();
        let big = vec![7; 3 * IN_MEMORY];
        let contents = [
            spool.keep(&b"small"[..]).unwrap(),
            spool.keep(&big[..]).unwrap(),
            spool.keep(&big[1..]).unwrap(),
        ];
        for (content, bytes) in contents.iter().zip([&b"small"[..], &big, &big[1..]]) {
            let mut read = Vec::new();
            content.open().read_to_end(&mut read).unwrap();
            assert!(read == bytes && content.digest == Digest::of(bytes));
        }
    }

    #[test]
    fn what_is_written_is_in_memory_while_it_is_small_and_whole_either_way() {
        let piece = [7_u8; 1000];
        for (pieces, in_memory) in
            [(0, true), (1, true), (IN_MEMORY / 1000, true), (IN_MEMORY / 1000 + 1, false), (200, false)]
        {
            let content = written(|out| (0..pieces).try_for_each(|_| out.write_all(&piece))).unwrap();
            let mut read = Vec::new();
            content.open().read_to_end(&mut read).unwrap();
            assert!(read == piece.repeat(pieces) && content.digest == Digest::of(&read), "{pieces}");
            assert_eq!(matches!(content.place, Stored::Memory(_)), in_memory, "{pieces}");
        }
    }
}
