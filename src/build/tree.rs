//! A file tree in canonical (byte) order.

use std::fs::File;
use std::sync::Arc;

pub use super::content::{Content, Spool, Unkept, written};
use super::content::{Held, Known, Stored};
pub(super) use super::content::{Slice, unkept};
use super::modules::{self, KnownModule};
use super::version::Version;
use crate::contents::Kind;
use crate::contents::meeting::{self, Meeting, Outcome};
use crate::contents::npm::Module;
use crate::elf::Elf;
use crate::oci::Digest;
use crate::paths::{ImagePath, ImagePathBuf, Rows, Size, Unfit, put_number, take_number};
use crate::tarball::Capabilities;

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

/// Path → what stands there. Parents come before children; every parent is a folder.
///
/// A copy shares what is in it.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    rows: Rows,
    places: Arc<Places>,
    /// Bytes of targets of links.
    targets: u64,
}

/// Where the bytes of files lie, and what their programs say: nodes name them by number.
#[derive(Clone, Debug, Default)]
struct Places {
    files: Vec<Arc<File>>,
    held: Vec<Arc<Held>>,
    elves: Vec<Arc<Known>>,
    modules: Vec<Arc<KnownModule>>,
}

/// Two things want the same path, or one wants to lie below something that is no folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collision {
    /// The path that is taken.
    pub path: ImagePathBuf,
}

const FOLDER: u64 = 0;
const FILE: u64 = 1;
const LINK: u64 = 2;
/// Where a file's bytes lie: nowhere, in memory, in a temporary file.
const ELSEWHERE: u64 = 0;
const IN_PLACE: u64 = 1;
const SPOOLED: u64 = 2;

impl Places {
    fn pack(this: &mut Arc<Self>, node: &TreeNode) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        match node {
            TreeNode::Directory { mode } => {
                put_number(&mut out, FOLDER);
                put_number(&mut out, (*mode).into());
            }
            TreeNode::Link { target } => {
                put_number(&mut out, LINK);
                out.extend_from_slice(target.as_bytes());
            }
            TreeNode::File { mode, content } => {
                put_number(&mut out, FILE);
                put_number(&mut out, u64::from(*mode) << 1 | u64::from(content.capabilities.is_some()));
                let capabilities = content.capabilities.map(Capabilities::to_numbers);
                capabilities.into_iter().flatten().for_each(|number| put_number(&mut out, number));
                out.extend_from_slice(content.digest.as_bytes());
                put_number(&mut out, content.size);
                put_number(&mut out, content.machine.map_or(0, |machine| u64::from(machine) + 1));
                put_number(&mut out, content.modified.into());
                let elf = content.elf.as_ref().map_or(0, |elf| {
                    Arc::make_mut(this).elves.push(elf.clone());
                    this.elves.len() as u64
                });
                put_number(&mut out, elf);
                let module = content.module.as_ref().map_or(0, |module| {
                    Arc::make_mut(this).modules.push(module.clone());
                    this.modules.len() as u64
                });
                put_number(&mut out, module);
                match &content.place {
                    Stored::Elsewhere => put_number(&mut out, ELSEWHERE),
                    Stored::Memory(held) => {
                        put_number(&mut out, IN_PLACE);
                        put_number(&mut out, this.held.len() as u64);
                        Arc::make_mut(this).held.push(held.clone());
                    }
                    Stored::Spooled { file, offset } => {
                        put_number(&mut out, SPOOLED);
                        let known = this.files.iter().rposition(|known| Arc::ptr_eq(known, file));
                        let number = known.unwrap_or_else(|| {
                            Arc::make_mut(this).files.push(file.clone());
                            this.files.len() - 1
                        });
                        put_number(&mut out, number as u64);
                        put_number(&mut out, *offset);
                    }
                }
            }
        }
        out
    }

    fn unpack(&self, mut bytes: &[u8]) -> TreeNode {
        let bits = |number: u64| u32::try_from(number).unwrap_or_default();
        let bytes = &mut bytes;
        match take_number(bytes) {
            FOLDER => TreeNode::Directory { mode: bits(take_number(bytes)) },
            LINK => TreeNode::Link { target: String::from_utf8_lossy(bytes).into() },
            _ => {
                let (mode, capabilities) = take_rights(bytes);
                let digest = Digest::take(bytes);
                let size = take_number(bytes);
                let machine =
                    take_number(bytes).checked_sub(1).and_then(|machine| u16::try_from(machine).ok());
                let modified = bits(take_number(bytes));
                let elf =
                    number_of(take_number(bytes)).checked_sub(1).and_then(|at| self.elves.get(at).cloned());
                let module =
                    number_of(take_number(bytes)).checked_sub(1).and_then(|at| self.modules.get(at).cloned());
                let place = match take_number(bytes) {
                    IN_PLACE => self.held.get(number_of(take_number(bytes))).cloned().map(Stored::Memory),
                    SPOOLED => self
                        .files
                        .get(number_of(take_number(bytes)))
                        .map(|file| Stored::Spooled { file: file.clone(), offset: take_number(bytes) }),
                    _ => None,
                };
                let place = place.unwrap_or(Stored::Elsewhere);
                let content = Content { digest, size, machine, elf, modified, capabilities, module, place };
                TreeNode::File { mode, content }
            }
        }
    }

    /// What the program or library of a node says, without the node.
    fn elf(&self, bytes: &[u8]) -> Option<&Known> {
        let (elf, _) = Self::numbers(bytes)?;
        self.elves.get(elf.checked_sub(1)?).map(|known| &**known)
    }

    /// The same of an npm package.
    fn module(&self, bytes: &[u8]) -> Option<&Module> {
        let (_, module) = Self::numbers(bytes)?;
        self.modules.get(module.checked_sub(1)?).map(|known| &***known)
    }

    /// Of a file: where its program and its package are, counted from 1.
    fn numbers(mut bytes: &[u8]) -> Option<(usize, usize)> {
        let bytes = &mut bytes;
        if take_number(bytes) != FILE {
            return None;
        }
        take_rights(bytes);
        let _digest = Digest::take(bytes);
        let (_size, _machine, _modified) = (take_number(bytes), take_number(bytes), take_number(bytes));
        Some((number_of(take_number(bytes)), number_of(take_number(bytes))))
    }
}

/// The permission bits of a packed file, and its capabilities.
fn take_rights(bytes: &mut &[u8]) -> (u32, Option<Capabilities>) {
    let mode = take_number(bytes);
    let capabilities =
        (mode & 1 != 0).then(|| Capabilities::from_numbers([(); 3].map(|()| take_number(bytes))));
    (u32::try_from(mode >> 1).unwrap_or_default(), capabilities)
}

fn number_of(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

impl Tree {
    /// Puts a node at a path, with folders (0755) above it where there are none.
    ///
    /// The same content or link again, or a folder again, is no collision.
    pub fn insert(&mut self, path: ImagePath<'_>, mut node: TreeNode) -> Result<(), Collision> {
        self.room_above(path)?;
        if self.get(&path).is_some_and(|old| !old.goes_with(&node)) {
            return Err(Collision { path: path.to_buf() });
        }
        modules::learn(path, &mut node);
        self.put(path, &node);
        Ok(())
    }

    /// Puts the file there that takes a path away from the layers below.
    pub fn delete(&mut self, path: ImagePath<'_>) -> Result<(), Collision> {
        self.room_above(path)?;
        let content = Content::bytes(Vec::new());
        self.put(path.whiteout().path(), &TreeNode::File { mode: 0o644, content });
        Ok(())
    }

    /// Folders above a path.
    fn room_above(&mut self, path: ImagePath<'_>) -> Result<(), Collision> {
        // From the nearest one up: above a folder that is there, all is well already.
        let mut missing = Vec::new();
        for folder in path.ancestors() {
            match self.kind(&folder) {
                Some(FOLDER) => break,
                Some(_) => return Err(Collision { path: folder.to_buf() }),
                None => missing.push(folder),
            }
        }
        for folder in missing.into_iter().rev() {
            self.put(folder, &TreeNode::Directory { mode: 0o755 });
        }
        Ok(())
    }

    fn put(&mut self, path: ImagePath<'_>, node: &TreeNode) {
        if let TreeNode::Link { target } = node {
            self.targets += target.len() as u64;
        }
        let bytes = Places::pack(&mut self.places, node);
        self.rows.insert(path, &bytes);
    }

    /// Puts another node in the place of one that is there.
    pub(super) fn replace(&mut self, path: ImagePath<'_>, node: &TreeNode) {
        self.put(path, node);
    }

    fn kind(&self, path: &str) -> Option<u64> {
        self.rows.get(path).map(|mut bytes| take_number(&mut bytes))
    }

    /// What stands at a path.
    pub fn get(&self, path: &str) -> Option<TreeNode> {
        self.rows.get(path).map(|bytes| self.places.unpack(bytes))
    }

    /// What the program or library at a path says of itself.
    pub fn elf(&self, path: &str) -> Option<&Elf> {
        self.places.elf(self.rows.get(path)?).map(|known| &known.elf)
    }

    /// The versions that are compiled into the program at this path.
    pub fn versions(&self, path: &str) -> &[Version] {
        self.rows.get(path).and_then(|bytes| self.places.elf(bytes)).map_or(&[], Known::versions)
    }

    /// The programs and libraries in it, in byte order of the paths.
    pub fn elves(&self) -> impl Iterator<Item = (ImagePathBuf, &Elf)> {
        self.rows.iter().filter_map(|(path, bytes)| Some((path, &self.places.elf(bytes)?.elf)))
    }

    /// The npm packages in it by their folders, in byte order of the paths of their `package.json`.
    pub fn modules(&self) -> impl Iterator<Item = (ImagePathBuf, &Module)> {
        self.rows.iter().filter_map(|(path, bytes)| {
            let module = self.places.module(bytes)?;
            Some((modules::folder(path.path())?.to_buf(), module))
        })
    }

    /// The files that let a program do more than who starts it, with their permission bits, in byte order of the paths.
    pub fn privileged(&self) -> impl Iterator<Item = (ImagePathBuf, u32, Option<Capabilities>)> {
        self.rows.iter().filter_map(|(path, mut bytes)| {
            let is_file = take_number(&mut bytes) == FILE;
            let (mode, capabilities) = is_file.then(|| take_rights(&mut bytes))?;
            (mode & 0o6000 != 0 || capabilities.is_some()).then_some((path, mode, capabilities))
        })
    }

    /// All of it, in byte order of the paths.
    pub fn iter(&self) -> impl Iterator<Item = (ImagePathBuf, TreeNode)> {
        self.rows.iter().map(|(path, bytes)| (path, self.places.unpack(bytes)))
    }

    /// The same, taken out of it: what was taken takes no room any more.
    pub fn into_entries(self) -> impl Iterator<Item = (ImagePathBuf, TreeNode)> {
        let places = self.places;
        self.rows.into_entries().map(move |(path, bytes)| (path, places.unpack(&bytes)))
    }

    /// What lies below one folder, or all of it, in another folder: in the same order.
    ///
    /// # Errors
    /// A path that does not fit there, as it was.
    pub fn moved(self, from: ImagePath<'_>, to: ImagePath<'_>) -> Result<Self, (ImagePathBuf, Unfit)> {
        let mut tree = Self::default();
        for (path, node) in self.into_entries() {
            let Some(inner) = path.path().below(from) else { continue };
            let target = to.join(inner).map_err(|why| (path.clone(), why))?;
            // Two paths of one tree stay two.
            let _ = tree.insert(target.path(), node);
        }
        Ok(tree)
    }

    /// True where something lies below this folder.
    pub fn has_below(&self, folder: &str) -> bool {
        self.rows.has_below(folder)
    }

    /// How many paths there are, and how long with the targets of links. Folders that nobody named count as well.
    pub fn names(&self) -> Size {
        let Size { count, bytes } = self.rows.size();
        Size { count, bytes: bytes + self.targets }
    }

    /// True where the bytes of every file are at hand.
    pub fn is_read(&self) -> bool {
        let known = |node: &TreeNode| matches!(node, TreeNode::File { content, .. } if matches!(content.place, Stored::Elsewhere));
        !self.iter().any(|(_, node)| known(&node))
    }

    /// How many bytes the files hold.
    pub fn size(&self) -> u64 {
        let size = |node: TreeNode| if let TreeNode::File { content, .. } = node { content.size } else { 0 };
        self.iter().map(|(_, node)| size(node)).sum()
    }

    /// True where there is nothing.
    pub fn is_empty(&self) -> bool {
        self.rows.size().count == 0
    }
}

impl TreeNode {
    /// What it is.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Directory { .. } => Kind::Folder,
            Self::File { .. } => Kind::File,
            Self::Link { .. } => Kind::Link,
        }
    }

    /// True where both may stand at one path: the same thing, or two folders.
    pub fn goes_with(&self, other: &Self) -> bool {
        match meeting::outcome(Meeting::AmongOurs, self.kind(), other.kind()) {
            Outcome::Merges => true,
            Outcome::MustBeSame => self.is_same(other),
            _ => false,
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File { content: old, mode: one }, Self::File { content: new, mode: other }) => {
                (old.digest, old.capabilities) == (new.digest, new.capabilities) && one == other
            }
            (Self::Link { target: old }, Self::Link { target: new }) => old == new,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> TreeNode {
        TreeNode::File { mode: 0o644, content: Content::bytes(text.as_bytes()) }
    }

    fn path(text: &str) -> ImagePathBuf {
        ImagePathBuf::parse(text).unwrap()
    }

    #[test]
    fn tree_keeps_parents_before_children_whatever_the_order() {
        let mut tree = Tree::default();
        for name in ["a/b/c", "a-b", "a/a", "a.b/c"] {
            tree.insert(path(name).path(), file(name)).unwrap();
        }
        let paths: Vec<String> = tree.iter().map(|(path, _)| path.into()).collect();
        assert_eq!(paths, ["a", "a-b", "a.b", "a.b/c", "a/a", "a/b", "a/b/c"]);
    }

    #[test]
    fn tree_is_in_order_however_many_come_in_whatever_order() {
        let name = |number: usize| format!("d{}/f{number}", number % 7);
        for step in [1, 7_919, 19_999] {
            let mut tree = Tree::default();
            for number in (0..20_000).map(|number| number * step % 20_000) {
                tree.insert(path(&name(number)).path(), file("x")).unwrap();
            }
            let copy = tree.clone();
            tree.insert(path("d0/f0/x").path(), file("y")).unwrap_err();
            tree.insert(path("e").path(), file("y")).unwrap();
            let mut expected: Vec<String> = (0..20_000).map(name).collect();
            expected.extend((0..7).map(|number| format!("d{number}")));
            expected.sort();
            assert!(copy.iter().map(|(path, _)| String::from(path)).eq(expected.iter().cloned()), "{step}");
            assert!((0..20_000).all(|number| copy.get(&name(number)).is_some()), "{step}");
            assert!(copy.get("e").is_none() && tree.get("e").is_some() && copy.get("d3/f").is_none());
            assert!(copy.has_below("d6") && !copy.has_below("d7") && !copy.has_below("d"));
            let moved = copy.moved(path("d3").path(), path("a/b").path()).unwrap();
            let moved: Vec<String> = moved.into_entries().map(|(path, _)| path.into()).collect();
            assert_eq!(
                (moved.len(), moved[0].as_str(), moved[2].as_str()),
                (2 + 2857, "a", "a/b/f10"),
                "{step}"
            );
        }
    }

    #[test]
    fn names_that_begin_alike_in_the_middle_of_a_character_stay_as_they_are() {
        // Each begins with the byte 0xC3, and the rests are longer and shorter than what is alike.
        let mut paths = ["ä", "ä/b", "ää", "ö", "ö/ü/x", "ö/ü/xy", "ü"].map(str::to_owned).to_vec();
        paths.extend((0..200).map(|number| format!("ö/ü/{}", "é".repeat(number % 9) + &number.to_string())));
        let mut tree = Tree::default();
        for name in paths.iter().rev() {
            tree.put(path(name).path(), &file(name));
        }
        paths.push("ö/ü".to_owned());
        tree.put(path("ö/ü").path(), &TreeNode::Directory { mode: 0o755 });
        paths.sort();
        assert!(tree.iter().map(|(path, _)| String::from(path)).eq(paths.iter().cloned()));
        assert!(paths.iter().all(|path| tree.get(path).is_some()));
        for absent in ["", "ö/ü/", "ö/", "a", "ö/üx", "ä/bc"] {
            assert!(tree.get(absent).is_none(), "{absent:?}");
        }
        assert!(tree.into_entries().map(|(path, _)| String::from(path)).eq(paths));
    }

    #[test]
    fn tree_refuses_two_things_at_one_path_and_anything_below_a_file() {
        let mut tree = Tree::default();
        let mut insert = |name: &str, text| tree.insert(path(name).path(), file(text));
        insert("a/b", "1").unwrap();
        insert("a/b", "1").unwrap();
        assert_eq!(insert("a/b", "2"), Err(Collision { path: path("a/b") }));
        assert_eq!(insert("a/b/c", "2"), Err(Collision { path: path("a/b") }));
        assert_eq!(insert("a", "2"), Err(Collision { path: path("a") }));
    }
}
