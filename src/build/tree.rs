//! A file tree in canonical (byte) order; contents lie in memory or in an anonymous temporary file.

use std::fs::File;
use std::io::{self, Read};
use std::iter::Peekable;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::machine;
use crate::elf::{self, Elf, ReadAt};
use crate::oci::{Digest, HashingReader, HashingWriter};

/// Files up to this size may stay in memory.
const IN_MEMORY: usize = 64 * 1024;
/// So many bytes of files stay in memory, of all inputs together; whatever comes later is spooled.
const ALL_IN_MEMORY: usize = 4 << 20;
/// What a content in memory takes besides its bytes.
const BESIDE: usize = 64;
/// How many bytes the files in memory take now.
static HELD: AtomicUsize = AtomicUsize::new(0);

/// What stands at a path.
#[derive(Clone, Debug)]
pub enum TreeNode {
    /// A folder with its permission bits.
    Directory {
        /// Permission bits.
        mode: u32,
    },
    /// A regular file.
    File {
        /// Permission bits.
        mode: u32,
        /// What is in it.
        content: Content,
    },
    /// A symbolic link.
    Link {
        /// Where it points, as written.
        target: Box<str>,
    },
}

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
    pub elf: Option<Arc<Elf>>,
    /// When the file was last changed, seconds since 1970, in 32 bits; 0 where nobody said. Not a part of any layer.
    pub modified: u32,
    place: Stored,
}

#[derive(Clone, Debug)]
enum Stored {
    Memory(Arc<Held>),
    Spooled {
        file: Arc<File>,
        offset: u64,
    },
    /// Known from before, not read this time.
    Elsewhere,
}

/// Bytes that count as long as they are in memory.
#[derive(Debug)]
struct Held(Box<[u8]>);

impl Held {
    fn new(bytes: Vec<u8>) -> Self {
        HELD.fetch_add(bytes.len() + BESIDE, Ordering::Relaxed);
        Self(bytes.into())
    }
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
        Self {
            digest: Digest::of(&bytes),
            size: bytes.len() as u64,
            machine: machine::of(&bytes),
            elf: elf::read(bytes.as_slice(), bytes.len() as u64).ok().flatten().map(Arc::new),
            modified: 0,
            place: Stored::Memory(Arc::new(Held::new(bytes))),
        }
    }

    /// Content of which only this is known. It cannot be opened.
    pub fn known(digest: Digest, size: u64, machine: Option<u16>, elf: Option<Elf>) -> Self {
        Self { digest, size, machine, elf: elf.map(Arc::new), modified: 0, place: Stored::Elsewhere }
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
        let room = ALL_IN_MEMORY.saturating_sub(HELD.load(Ordering::Relaxed));
        if head.len() <= IN_MEMORY.min(room) {
            let (digest, size) = reader.finish();
            let elf = elf::read(head.as_slice(), size)?.map(Arc::new);
            let place = Stored::Memory(Arc::new(Held::new(head)));
            return Ok(Content { digest, size, machine, elf, modified: 0, place });
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
        loop {
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
            Some(_) => elf::read(&Slice { file: &file, offset }, size)?.map(Arc::new),
            None => None,
        };
        Ok(Content { digest, size, machine, elf, modified: 0, place: Stored::Spooled { file, offset } })
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

/// Keeps what is written, in a file of its own that has no name.
pub fn written(write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>) -> io::Result<Content> {
    let file = tempfile::tempfile().map_err(unkept)?;
    let mut out = HashingWriter::new(io::BufWriter::with_capacity(64 * 1024, file));
    write(&mut out)?;
    let (file, digest, size) = out.finish();
    let file = Arc::new(file.into_inner().map_err(|error| unkept(error.into_error()))?);
    Ok(Content {
        digest,
        size,
        machine: None,
        elf: None,
        modified: 0,
        place: Stored::Spooled { file, offset: 0 },
    })
}

/// Paths without leading slash → what stands there. Parents come before children; every parent is a folder.
///
/// In rows of bounded length, each in order and after the one before: two hundred thousand paths may be in it, and a
/// B-tree would leave nearly half of its room empty. A copy shares all of its rows.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    rows: Vec<Arc<Row>>,
    size: Names,
}

/// How much a tree holds, without the bytes of its files.
#[derive(Clone, Copy, Debug, Default)]
pub struct Names {
    /// Paths.
    pub count: u64,
    /// Bytes of paths and of targets of links.
    pub bytes: u64,
}

/// A row of more than these is cut in two.
const ROW: usize = 64;
/// Rows grow by so many places, and by so many bytes: doubled, half of them might stay empty, and what is given back is
/// of few sizes, each of which is used again.
const PLACES: usize = 8;
const BYTES: usize = 512;

/// Some paths, in order. One text for all of them, and what they begin with alike only once: as many small texts would take
/// three times as much, and leave gaps.
#[derive(Clone, Debug, Default)]
struct Row {
    /// What every path here begins with.
    prefix: Box<str>,
    /// The rests of the paths.
    text: String,
    entries: Vec<Named>,
}

#[derive(Clone, Debug)]
struct Named {
    /// Where the rest of its path is in the text.
    from: u32,
    length: u32,
    node: TreeNode,
}

impl Named {
    /// The rest of its path, in its row's text.
    fn rest<'t>(&self, text: &'t str) -> &'t str {
        &text[self.from as usize..][..self.length as usize]
    }
}

impl Row {
    fn path(&self, of: &Named) -> String {
        [&self.prefix, of.rest(&self.text)].concat()
    }

    /// How the path of an entry compares with this one.
    fn compare(&self, of: &Named, path: &str) -> std::cmp::Ordering {
        let (prefix, path) = (self.prefix.as_bytes(), path.as_bytes());
        let (begin, end) = path.split_at(prefix.len().min(path.len()));
        prefix.cmp(begin).then_with(|| of.rest(&self.text).as_bytes().cmp(end))
    }

    fn insert(&mut self, at: usize, path: &str, node: TreeNode) {
        if self.entries.is_empty() {
            self.prefix = path.into();
        }
        let alike = alike(&self.prefix, path);
        if alike < self.prefix.len() {
            self.shorten(alike);
        }
        self.push(at, &path[alike..], node);
    }

    fn push(&mut self, at: usize, rest: &str, node: TreeNode) {
        if self.entries.len() == self.entries.capacity() {
            self.entries.reserve_exact(PLACES);
        }
        if self.text.capacity() - self.text.len() < rest.len() {
            self.text.reserve_exact(rest.len().next_multiple_of(BYTES));
        }
        let (from, length) = (number(self.text.len()), number(rest.len()));
        self.text.push_str(rest);
        self.entries.insert(at, Named { from, length, node });
    }

    /// The same paths with less that they begin with alike.
    fn shorten(&mut self, length: usize) {
        let moved = self.prefix[length..].to_owned();
        let text = std::mem::take(&mut self.text);
        self.text.reserve_exact((text.len() + moved.len() * self.entries.len()).next_multiple_of(BYTES));
        for named in &mut self.entries {
            let from = self.text.len();
            self.text.push_str(&moved);
            self.text.push_str(named.rest(&text));
            (named.from, named.length) = (number(from), number(self.text.len() - from));
        }
        self.prefix = self.prefix[..length].into();
    }

    /// Its later half.
    fn cut(&mut self) -> Self {
        let row = std::mem::take(self);
        let (prefix, text) = (row.prefix, row.text);
        let mut rest = Self::default();
        let middle = row.entries.len().min(ROW / 2);
        for (half, entries) in [(&mut *self, &row.entries[..middle]), (&mut rest, &row.entries[middle..])] {
            // In order: what the first and the last begin with alike, all do.
            let (Some(first), Some(last)) = (entries.first(), entries.last()) else { continue };
            let (first, last) = (first.rest(&text), last.rest(&text));
            half.prefix = [&prefix, &first[..alike(first, last)]].concat().into();
        }
        for (at, named) in row.entries.into_iter().enumerate() {
            let half = if at < middle { &mut *self } else { &mut rest };
            let inner = half.prefix.len() - prefix.len();
            let rest = &named.rest(&text)[inner..];
            half.push(half.entries.len(), rest, named.node);
        }
        rest
    }

    fn into_entries(self) -> impl Iterator<Item = (Box<str>, TreeNode)> {
        let Self { prefix, text, entries } = self;
        entries.into_iter().map(move |named| ([&prefix, named.rest(&text)].concat().into(), named.node))
    }
}

fn number(length: usize) -> u32 {
    u32::try_from(length).expect("names have a limit far below 4 GiB")
}

/// How many bytes of whole characters both begin with.
fn alike(one: &str, other: &str) -> usize {
    let bytes = one.bytes().zip(other.bytes()).take_while(|(one, other)| one == other).count();
    (0..=bytes).rev().find(|at| one.is_char_boundary(*at)).unwrap_or_default()
}

/// Two things want the same path, or one wants to lie below something that is no folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collision {
    /// The path that is taken.
    pub path: String,
}

impl Tree {
    /// Puts a node at a path, with folders (0755) above it where there are none.
    ///
    /// The same content or link again, or a folder again, is no collision.
    pub fn insert(&mut self, path: &str, node: TreeNode) -> Result<(), Collision> {
        // From the nearest one up: above a folder that is there, all is well already.
        let mut missing = Vec::new();
        for (at, _) in path.rmatch_indices('/') {
            match self.get(&path[..at]) {
                Some(TreeNode::Directory { .. }) => break,
                Some(_) => return Err(Collision { path: path[..at].to_owned() }),
                None => missing.push(&path[..at]),
            }
        }
        for folder in missing.into_iter().rev() {
            self.put(folder, TreeNode::Directory { mode: 0o755 });
        }
        let taken = match (self.get(path), &node) {
            (Some(old), new) => !old.goes_with(new),
            (None, _) => false,
        };
        if taken {
            return Err(Collision { path: path.to_owned() });
        }
        self.put(path, node);
        Ok(())
    }

    fn put(&mut self, path: &str, node: TreeNode) {
        let (row, at) = match self.position(path) {
            Ok((row, at)) => {
                Arc::make_mut(&mut self.rows[row]).entries[at].node = node;
                return;
            }
            Err(place) => place,
        };
        let target = if let TreeNode::Link { target } = &node { target.len() } else { 0 };
        self.size.count += 1;
        self.size.bytes += (path.len() + target) as u64;
        // What comes in order fills its rows.
        if self.rows.len() <= row || at == ROW && row + 1 == self.rows.len() {
            let mut entries = Row::default();
            entries.insert(0, path, node);
            self.rows.push(Arc::new(entries));
            return;
        }
        let entries = Arc::make_mut(&mut self.rows[row]);
        entries.insert(at, path, node);
        if entries.entries.len() > ROW {
            let rest = entries.cut();
            self.rows.insert(row + 1, Arc::new(rest));
        }
    }

    /// Row and place within: of a path, or where it would stand.
    fn position(&self, path: &str) -> Result<(usize, usize), (usize, usize)> {
        let begins =
            |row: &Arc<Row>| row.entries.first().is_some_and(|first| row.compare(first, path).is_le());
        let row = self.rows.partition_point(begins).saturating_sub(1);
        let Some(entries) = self.rows.get(row) else { return Err((0, 0)) };
        let at = entries.entries.binary_search_by(|named| entries.compare(named, path));
        at.map(|at| (row, at)).map_err(|at| (row, at))
    }

    /// What stands at a path.
    pub fn get(&self, path: &str) -> Option<&TreeNode> {
        self.position(path).ok().map(|(row, at)| &self.rows[row].entries[at].node)
    }

    /// All of it, in byte order of the paths.
    pub fn iter(&self) -> impl Iterator<Item = (String, &TreeNode)> {
        self.from((0, 0))
    }

    fn from(&self, (row, at): (usize, usize)) -> impl Iterator<Item = (String, &TreeNode)> {
        let rows = self.rows.iter().skip(row);
        rows.flat_map(|row| row.entries.iter().map(|named| (row.path(named), &named.node))).skip(at)
    }

    /// The same, taken out of it: what was taken takes no room any more.
    pub fn into_entries(self) -> impl Iterator<Item = (Box<str>, TreeNode)> {
        self.rows.into_iter().map(Arc::unwrap_or_clone).flat_map(Row::into_entries)
    }

    /// What lies below one folder, or all of it, in another folder: in the same order.
    #[must_use]
    pub fn moved(self, from: &str, to: &str) -> Self {
        let mut tree = Self::default();
        for (path, node) in self.into_entries() {
            let inner = match from {
                "" => Some(&*path),
                _ => path.strip_prefix(from).and_then(|rest| rest.strip_prefix('/')),
            };
            if let Some(inner) = inner {
                // Two paths of one tree stay two.
                let _ = tree.insert(&format!("{to}/{inner}"), node);
            }
        }
        tree
    }

    /// True where something lies below this folder.
    pub fn has_below(&self, folder: &str) -> bool {
        let prefix = format!("{folder}/");
        let place = self.position(&prefix).unwrap_or_else(|place| place);
        self.from(place).next().is_some_and(|(path, _)| path.starts_with(&prefix))
    }

    /// How many paths there are, and how long. Folders that nobody named count as well.
    pub fn names(&self) -> Names {
        self.size
    }

    /// True where the bytes of every file are at hand.
    pub fn is_read(&self) -> bool {
        let known = |node: &TreeNode| matches!(node, TreeNode::File { content, .. } if matches!(content.place, Stored::Elsewhere));
        !self.iter().any(|(_, node)| known(node))
    }

    /// How many bytes the files hold.
    pub fn size(&self) -> u64 {
        let size = |node: &TreeNode| if let TreeNode::File { content, .. } = node { content.size } else { 0 };
        self.iter().map(|(_, node)| size(node)).sum()
    }

    /// True where there is nothing.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

impl TreeNode {
    /// True where both may stand at one path: the same thing, or two folders.
    pub fn goes_with(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File { content: old, mode: one }, Self::File { content: new, mode: other }) => {
                old.digest == new.digest && one == other
            }
            (Self::Link { target: old }, Self::Link { target: new }) => old == new,
            (one, other) => matches!((one, other), (Self::Directory { .. }, Self::Directory { .. })),
        }
    }
}

/// Two sorted rows without a common path as one.
pub(super) fn merged<K: Ord, V>(
    one: impl Iterator<Item = (K, V)>,
    other: impl Iterator<Item = (K, V)>,
) -> impl Iterator<Item = (K, V)> {
    Merged { one: one.peekable(), other: other.peekable() }
}

struct Merged<A: Iterator, B: Iterator> {
    one: Peekable<A>,
    other: Peekable<B>,
}

impl<K: Ord, V, A: Iterator<Item = (K, V)>, B: Iterator<Item = (K, V)>> Iterator for Merged<A, B> {
    type Item = (K, V);

    fn next(&mut self) -> Option<(K, V)> {
        match (self.one.peek(), self.other.peek()) {
            (Some((one, _)), Some((other, _))) if one > other => self.other.next(),
            (None, _) => self.other.next(),
            _ => self.one.next(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> TreeNode {
        TreeNode::File { mode: 0o644, content: Content::bytes(text.as_bytes()) }
    }

    #[test]
    fn tree_keeps_parents_before_children_whatever_the_order() {
        let mut tree = Tree::default();
        for path in ["a/b/c", "a-b", "a/a", "a.b/c"] {
            tree.insert(path, file(path)).unwrap();
        }
        let paths: Vec<String> = tree.iter().map(|(path, _)| path).collect();
        assert_eq!(paths, ["a", "a-b", "a.b", "a.b/c", "a/a", "a/b", "a/b/c"]);
    }

    #[test]
    fn tree_is_in_order_however_many_come_in_whatever_order() {
        let path = |number: usize| format!("d{}/f{number}", number % 7);
        for step in [1, 7_919, 19_999] {
            let mut tree = Tree::default();
            for number in (0..20_000).map(|number| number * step % 20_000) {
                tree.insert(&path(number), file("x")).unwrap();
            }
            let copy = tree.clone();
            tree.insert("d0/f0/../x", file("y")).unwrap_err();
            tree.insert("e", file("y")).unwrap();
            let mut expected: Vec<String> = (0..20_000).map(path).collect();
            expected.extend((0..7).map(|number| format!("d{number}")));
            expected.sort();
            assert!(copy.iter().map(|(path, _)| path).eq(expected.iter().cloned()), "{step}");
            assert!((0..20_000).all(|number| copy.get(&path(number)).is_some()), "{step}");
            assert!(copy.get("e").is_none() && tree.get("e").is_some() && copy.get("d3/f").is_none());
            assert!(copy.has_below("d6") && !copy.has_below("d7") && !copy.has_below("d"));
            let moved: Vec<Box<str>> = copy.moved("d3", "a/b").into_entries().map(|(path, _)| path).collect();
            assert_eq!((moved.len(), &*moved[0], &*moved[2]), (2 + 2857, "a", "a/b/f10"), "{step}");
        }
    }

    #[test]
    fn names_that_begin_alike_in_the_middle_of_a_character_stay_as_they_are() {
        // Each begins with the byte 0xC3, and the rests are longer and shorter than what is alike.
        let mut paths = ["ä", "ä/b", "ää", "ö", "ö/ü/x", "ö/ü/xy", "ü"].map(str::to_owned).to_vec();
        paths.extend((0..200).map(|number| format!("ö/ü/{}", "é".repeat(number % 9) + &number.to_string())));
        let mut tree = Tree::default();
        for path in paths.iter().rev() {
            tree.put(path, file(path));
        }
        paths.push("ö/ü".to_owned());
        tree.put("ö/ü", TreeNode::Directory { mode: 0o755 });
        paths.sort();
        assert!(tree.iter().map(|(path, _)| path).eq(paths.iter().cloned()));
        assert!(paths.iter().all(|path| tree.get(path).is_some()));
        for absent in ["", "ö/ü/", "ö/", "a", "ö/üx", "ä/bc"] {
            assert!(tree.get(absent).is_none(), "{absent:?}");
        }
        assert!(tree.into_entries().map(|(path, _)| path.into_string()).eq(paths));
    }

    #[test]
    fn tree_refuses_two_things_at_one_path_and_anything_below_a_file() {
        let mut tree = Tree::default();
        tree.insert("a/b", file("1")).unwrap();
        tree.insert("a/b", file("1")).unwrap();
        assert_eq!(tree.insert("a/b", file("2")), Err(Collision { path: "a/b".to_owned() }));
        assert_eq!(tree.insert("a/b/c", file("2")), Err(Collision { path: "a/b".to_owned() }));
        assert_eq!(tree.insert("a", file("2")), Err(Collision { path: "a".to_owned() }));
    }

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
}
