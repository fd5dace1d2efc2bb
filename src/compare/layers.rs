//! What lies at each path of a part: as its list has it, or as its layers are read.

use std::cmp::Ordering;
use std::io::{self, BufReader, Read};

use crate::contents::{Entry, Kind, Part};
use crate::limits::{self, Beyond};
use crate::oci::{Digest, HashingWriter, Layer};
use crate::paths::{self, ImagePathBuf, LayerName, Packed, Paths, put_number, take_number};
use crate::tarball::capabilities::ATTRIBUTE;
use crate::tarball::{Capabilities, EntryKind, TarReader, magic};

/// What is kept of what lies at a path: two images may have hundreds of thousands.
#[derive(Clone, Debug)]
pub(super) struct File {
    pub kind: Kind,
    pub size: u64,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    /// What a file lets its program do.
    pub capabilities: Option<Capabilities>,
    /// Which of the part's layers it lies in.
    pub layer: usize,
    /// The digest of content, target and attributes.
    pub print: Digest,
}

impl File {
    /// True for the same thing, whichever layer it lies in.
    pub fn is_same(&self, other: &Self) -> bool {
        self.print == other.print
            && (self.kind, self.size, self.mode) == (other.kind, other.size, other.mode)
            && (self.uid, self.gid, self.capabilities) == (other.uid, other.gid, other.capabilities)
    }
}

/// What makes one file another, besides what [`File`] has.
fn print(
    kind: EntryKind,
    target: &[u8],
    attributes: &[(String, Vec<u8>)],
    content: Option<Digest>,
) -> Digest {
    // Capabilities count for themselves, where they are some.
    let is_other = |(name, value): &&(String, Vec<u8>)| {
        name != ATTRIBUTE || Capabilities::from_attribute(value).is_err()
    };
    let others: Vec<&(String, Vec<u8>)> = attributes.iter().filter(is_other).collect();
    Digest::of(format!("{kind:?} {target:?} {others:?} {content:?}"))
}

impl Packed for File {
    fn pack(&self, out: &mut Vec<u8>) {
        let kind = match self.kind {
            Kind::File => 0,
            Kind::Folder => 1,
            Kind::Link => 2,
        };
        for number in [kind, self.size, self.mode.into(), self.uid, self.gid, self.layer as u64] {
            put_number(out, number);
        }
        put_number(out, self.capabilities.is_some().into());
        let capabilities = self.capabilities.map(Capabilities::to_numbers);
        capabilities.into_iter().flatten().for_each(|number| put_number(out, number));
        out.extend_from_slice(self.print.as_bytes());
    }

    fn unpack(mut bytes: &[u8]) -> Self {
        let bytes = &mut bytes;
        Self {
            kind: match take_number(bytes) {
                1 => Kind::Folder,
                2 => Kind::Link,
                _ => Kind::File,
            },
            size: take_number(bytes),
            mode: u32::try_from(take_number(bytes)).unwrap_or_default(),
            uid: take_number(bytes),
            gid: take_number(bytes),
            layer: usize::try_from(take_number(bytes)).unwrap_or_default(),
            capabilities: (take_number(bytes) != 0)
                .then(|| Capabilities::from_numbers([(); 3].map(|()| take_number(bytes)))),
            print: Digest::take(bytes),
        }
    }
}

/// What a list says of a part, in order; `None` where it does not know the bytes of its files: of a base.
pub(super) fn listed(part: &Part) -> Option<impl Iterator<Item = (ImagePathBuf, File)>> {
    let is_known = |entry: Entry| entry.kind != Kind::File || entry.digest.is_some();
    part.entries.values().all(is_known).then(|| {
        part.entries.iter().map(|(path, entry)| {
            let kind = match entry.kind {
                Kind::File => EntryKind::File,
                Kind::Folder => EntryKind::Directory,
                Kind::Link => EntryKind::Symlink,
            };
            let content = entry.digest.filter(|_| entry.kind == Kind::File);
            let file = File {
                kind: entry.kind,
                size: entry.size,
                mode: entry.mode,
                uid: entry.uid,
                gid: entry.gid,
                capabilities: entry.capabilities,
                layer: entry.layer,
                print: print(kind, entry.target.as_bytes(), &[], content),
            };
            (path, file)
        })
    })
}

/// A layer's tar, no more of it than one may unpack to.
pub(super) struct Within<R> {
    inner: R,
    rest: u64,
}

impl<R: Read> Read for Within<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.rest = self.rest.checked_sub(read as u64).ok_or(Beyond(&limits::UNPACKED))?;
        Ok(read)
    }
}

/// Opens a layer, no more of it than it may unpack to.
pub(super) fn open(layer: &Layer) -> io::Result<TarReader<impl Read>> {
    let stream = BufReader::with_capacity(256 * 1024, layer.source.open()?);
    let inner = magic::open(stream).map_err(io::Error::other)?;
    Ok(TarReader::new(Within { inner, rest: limits::UNPACKED.unpacking(layer.descriptor.size) }))
}

/// Path → what is there, and what takes something away. What lies in a lower layer is replaced. `index`: which of the part's layers
/// it is.
pub(super) fn read(layer: &Layer, index: usize, found: &mut Paths<File>) -> io::Result<()> {
    let mut tar = open(layer)?;
    let mut entries = 0;
    while let Some(entry) = tar.next_entry().map_err(io::Error::other)? {
        entries += 1;
        limits::ENTRIES.allow(entries)?;
        let Some(path) = LayerName::read(&entry.name)?.in_layer() else { continue };
        let mut out = HashingWriter::new(io::sink());
        io::copy(&mut tar.content(&entry), &mut out)?;
        let (_, content, size) = out.finish();
        let content = (entry.kind == EntryKind::File).then_some(content);
        let file = File {
            kind: Kind::of(entry.kind),
            size,
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            capabilities: entry.capabilities().unwrap_or_default(),
            layer: index,
            print: print(entry.kind, &entry.target, &entry.attributes, content),
        };
        found.insert(path.path(), &file);
        paths::within()?;
    }
    Ok(())
}

/// What differs, in byte order of the paths, as both come in it: what was there and what is.
pub(super) fn changes(
    old: impl Iterator<Item = (ImagePathBuf, File)>,
    new: impl Iterator<Item = (ImagePathBuf, File)>,
    tell: &mut dyn FnMut(ImagePathBuf, Option<File>, Option<File>),
) {
    let (mut old, mut new) = (old.peekable(), new.peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((before, _)), Some((now, _))) => before.cmp(now),
        };
        let before = old.next_if(|_| order.is_le());
        let now = new.next_if(|_| order.is_ge());
        match (before, now) {
            (Some((path, before)), Some((_, now))) => {
                if !before.is_same(&now) {
                    tell(path, Some(before), Some(now));
                }
            }
            (Some((path, before)), None) => tell(path, Some(before), None),
            (None, Some((path, now))) => tell(path, None, Some(now)),
            (None, None) => return,
        }
    }
}
