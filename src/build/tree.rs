//! A file tree in canonical (byte) order; contents lie in memory or in an anonymous temporary file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, PoisonError};

use super::machine;
use crate::elf::{self, Elf, ReadAt};
use crate::oci::{Digest, HashingReader};

/// Files up to this size stay in memory.
const IN_MEMORY: usize = 64 * 1024;

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
        target: String,
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
    place: Stored,
}

#[derive(Clone, Debug)]
enum Stored {
    Memory(Arc<[u8]>),
    Spooled {
        file: Arc<File>,
        offset: u64,
    },
    /// Known from before, not read this time.
    Elsewhere,
}

impl Content {
    /// Content that is at hand.
    pub fn bytes(bytes: impl Into<Arc<[u8]>>) -> Self {
        let bytes = bytes.into();
        Self {
            digest: Digest::of(&bytes),
            size: bytes.len() as u64,
            machine: machine::of(&bytes),
            elf: elf::read(&*bytes, bytes.len() as u64).ok().flatten().map(Arc::new),
            place: Stored::Memory(bytes),
        }
    }

    /// Content of which only this is known. It cannot be opened.
    pub fn known(digest: Digest, size: u64, machine: Option<u16>, elf: Option<Elf>) -> Self {
        Self { digest, size, machine, elf: elf.map(Arc::new), place: Stored::Elsewhere }
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
                buffer[..want].copy_from_slice(&bytes[start..start + want]);
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

/// Keeps contents: small ones in memory, others in a temporary file that has no name and goes away by itself.
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
        if head.len() <= IN_MEMORY {
            let (digest, size) = reader.finish();
            let elf = elf::read(head.as_slice(), size)?.map(Arc::new);
            return Ok(Content { digest, size, machine, elf, place: Stored::Memory(head.into()) });
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
        let mut buffer = head;
        loop {
            file.write_all_at(&buffer, *end).map_err(unkept)?;
            *end += buffer.len() as u64;
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
        Ok(Content { digest, size, machine, elf, place: Stored::Spooled { file, offset } })
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

/// Paths without leading slash → what stands there. Parents come before children; every parent is a folder.
#[derive(Clone, Debug, Default)]
pub struct Tree(BTreeMap<String, TreeNode>);

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
            match self.0.get(&path[..at]) {
                Some(TreeNode::Directory { .. }) => break,
                Some(_) => return Err(Collision { path: path[..at].to_owned() }),
                None => missing.push(&path[..at]),
            }
        }
        let folders =
            missing.into_iter().map(|folder| (folder.to_owned(), TreeNode::Directory { mode: 0o755 }));
        self.0.extend(folders);
        let taken = match (self.0.get(path), &node) {
            (
                Some(TreeNode::File { content: old, mode: one }),
                TreeNode::File { content: new, mode: other },
            ) => old.digest != new.digest || one != other,
            (Some(TreeNode::Link { target: old }), TreeNode::Link { target: new }) => old != new,
            (None, _) | (Some(TreeNode::Directory { .. }), TreeNode::Directory { .. }) => false,
            (Some(_), _) => true,
        };
        if taken {
            return Err(Collision { path: path.to_owned() });
        }
        self.0.insert(path.to_owned(), node);
        Ok(())
    }

    /// What stands at a path.
    pub fn get(&self, path: &str) -> Option<&TreeNode> {
        self.0.get(path)
    }

    /// All of it, in byte order of the paths.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &TreeNode)> {
        self.0.iter().map(|(path, node)| (path.as_str(), node))
    }

    /// True where something lies below this folder.
    pub fn has_below(&self, folder: &str) -> bool {
        let prefix = format!("{folder}/");
        self.0.range(prefix.clone()..).next().is_some_and(|(path, _)| path.starts_with(&prefix))
    }

    /// True where the bytes of every file are at hand.
    pub fn is_read(&self) -> bool {
        let known = |node: &TreeNode| matches!(node, TreeNode::File { content, .. } if matches!(content.place, Stored::Elsewhere));
        !self.0.values().any(known)
    }

    /// How many bytes the files hold.
    pub fn size(&self) -> u64 {
        self.0
            .values()
            .map(|node| if let TreeNode::File { content, .. } = node { content.size } else { 0 })
            .sum()
    }

    /// True where there is nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
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
        let paths: Vec<&str> = tree.iter().map(|(path, _)| path).collect();
        assert_eq!(paths, ["a", "a-b", "a.b", "a.b/c", "a/a", "a/b", "a/b/c"]);
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
