//! The list of its files that an image carries: parts out of trees, and the layers that they lie in.

use std::collections::BTreeMap;
use std::io;
use std::iter::Peekable;

use super::LayerInput;
use super::base::BasePaths;
use super::layer::{Folder, Folders};
use super::offers::is_library;
use super::tree::{self, Content, Tree, TreeNode};
use crate::contents::meeting::{self, Meeting, Outcome};
use crate::contents::summary::Summary;
use crate::contents::{self, Entry, FOLDER, Kind, Offers, Part, Program};
use crate::elf::Elf;
use crate::oci::Digest;
use crate::paths::{ImagePath, ImagePathBuf, Unfit};

/// Layers whose parts lie above them, and not in the last layer: they are large, and change seldom.
pub const BELOW: [&str; 2] = ["base", "web"];

/// What is visible of a tree of ours in one layer.
pub fn part(tree: &Tree, folders: &Folders, diff_id: Digest) -> Part {
    let entries = entries(tree, folders);
    let mut part = Part::new(vec![diff_id], entries.collect());
    part.offers = offers(tree);
    part
}

pub(super) fn entries<'t>(
    tree: &'t Tree,
    folders: &'t Folders,
) -> impl Iterator<Item = (ImagePathBuf, Entry)> + 't {
    tree.iter().map(|(path, node)| {
        let entry = entry(&path, node, folders);
        (path, entry)
    })
}

/// What shows of one node.
pub(super) fn entry(path: &str, node: TreeNode, folders: &Folders) -> Entry {
    match node {
        TreeNode::Directory { mode } => folder(&folders.get(path).unwrap_or(Folder { mode, uid: 0, gid: 0 })),
        TreeNode::File { mode, content } => {
            let Content { size, digest, capabilities, .. } = content;
            Entry { mode, size, digest: Some(digest), capabilities, ..Entry::default() }
        }
        TreeNode::Link { target } => link(target.into_string()),
    }
}

/// True where a node may stand where an image has this entry: as two of ours do.
pub(super) fn goes_with(path: &str, node: &TreeNode, there: &Entry, base: &BasePaths) -> bool {
    match meeting::outcome(Meeting::AmongOurs, there.kind, node.kind()) {
        Outcome::Merges => true,
        Outcome::MustBeSame => entry(path, node.clone(), &base.folders).is_same(there),
        _ => false,
    }
}

/// What the image's history tells of a layer that is new.
pub(super) fn summary(layer: &LayerInput) -> (String, Summary) {
    let LayerInput { name, tree, .. } = layer;
    let mut summary = Summary::new(name, tree.size(), 0, offers(tree).as_ref());
    summary.privileges.extend(tree.privileged().filter_map(|(path, mode, capabilities)| {
        Some((format!("/{path}"), contents::privileges(mode, capabilities)?))
    }));
    (name.clone(), summary)
}

/// What programs find in a tree.
pub(super) fn offers(tree: &Tree) -> Option<Offers> {
    let modules = tree.modules().map(|(folder, module)| (folder, module.clone())).collect();
    let offers =
        Offers { libraries: libraries(tree), programs: programs(tree), modules, ..Offers::default() };
    (!offers.is_empty()).then_some(offers)
}

/// What of a tree a loader may find by its name.
fn libraries(tree: &Tree) -> BTreeMap<ImagePathBuf, Elf> {
    let found = tree.elves().filter(|(path, _)| is_library(file_name(path)));
    found.map(|(path, elf)| (path, elf.clone())).collect()
}

/// What else of a tree is machine code.
fn programs(tree: &Tree) -> BTreeMap<ImagePathBuf, Program> {
    let found = tree.elves().filter(|(path, _)| !is_library(file_name(path)));
    let told = |path: &str, elf: &Elf| Program {
        build_id: elf.build_id.clone(),
        needed: elf.needed.clone(),
        versions: tree.versions(path).iter().map(ToString::to_string).collect(),
    };
    let told = found.map(|(path, elf)| {
        let program = told(&path, elf);
        (path, program)
    });
    told.collect()
}

/// A library at one path.
pub fn library<'t>(path: &str, tree: &'t Tree) -> Option<&'t Elf> {
    is_library(file_name(path)).then(|| tree.elf(path)).flatten()
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The file of the part that [`part`] makes, without the part: there may be many entries.
pub fn rendered(tree: &Tree, folders: &Folders, diff_id: Digest) -> io::Result<Content> {
    let offers = offers(tree);
    tree::written(|out| contents::write_part(out, &[diff_id], 0, entries(tree, folders), offers.as_ref()))
}

/// The same for [`base_part`].
pub fn rendered_base(base: &BasePaths, layers: &[Digest]) -> io::Result<Content> {
    let offers = base.offers.as_ref();
    tree::written(|out| contents::write_part(out, layers, 0, base_entries(base), offers))
}

/// The same for a part that is at hand.
pub fn rendered_part(part: &Part) -> io::Result<Content> {
    tree::written(|out| {
        contents::write_part(out, &part.layers, part.covered, part.entries.iter(), part.offers.as_ref())
    })
}

fn folder(folder: &Folder) -> Entry {
    Entry { kind: Kind::Folder, mode: folder.mode, uid: folder.uid, gid: folder.gid, ..Entry::default() }
}

fn link(target: String) -> Entry {
    Entry { kind: Kind::Link, target, ..Entry::default() }
}

/// What later builds have to know of a base: its folders, links and names, and what it offers to programs.
pub fn base_part(base: &BasePaths, layers: &[Digest]) -> Part {
    let mut part = Part::new(layers.to_vec(), base_entries(base).collect());
    part.offers.clone_from(&base.offers);
    part
}

/// In byte order of the paths.
fn base_entries(base: &BasePaths) -> impl Iterator<Item = (ImagePathBuf, Entry)> {
    let folders = base.folders.iter().map(|(path, known)| (path, folder(&known)));
    let links = base.links.iter().map(|(path, target)| (path, link(target)));
    let files = base.files.keys().map(|path| (path, Entry::default()));
    merged(folders, merged(links, files))
}

/// The base that a part tells of.
pub fn base_paths(part: &Part) -> BasePaths {
    let mut base = BasePaths { offers: part.offers.clone(), ..BasePaths::default() };
    for (path, entry) in part.entries.iter() {
        match entry.kind {
            Kind::Folder => {
                let folder = Folder { mode: entry.mode, uid: entry.uid, gid: entry.gid };
                base.folders.insert(path.path(), &folder);
            }
            Kind::Link => {
                base.links.insert(path.path(), &entry.target);
            }
            Kind::File => {
                base.files.insert(path.path(), &());
            }
        }
    }
    base
}

/// What a layer with these parts is.
pub fn purpose(parts: &BTreeMap<String, Content>) -> String {
    let names: Vec<&str> = parts.keys().map(String::as_str).collect();
    format!("the list of the files of {}", names.join(", "))
}

/// The place of the lists in an image.
const PLACE: ImagePath<'static> = ImagePath::known(FOLDER);

/// The files of a layer with these parts.
///
/// # Errors
/// A part whose name, with `.json`, no file can have.
pub fn tree(parts: &BTreeMap<String, Content>) -> Result<Tree, (String, Unfit)> {
    let mut tree = Tree::default();
    for (name, content) in parts {
        // Parts are named as layers, no two alike.
        let file = TreeNode::File { mode: 0o644, content: content.clone() };
        let written = format!("{PLACE}/{name}.json");
        let path = ImagePathBuf::parse(&written).map_err(|why| (written, why))?;
        let _ = tree.insert(path.path(), file);
    }
    Ok(tree)
}

/// The place of the lists, to be kept free by every other layer.
pub fn place() -> Tree {
    let mut tree = Tree::default();
    let _ = tree.insert(PLACE, TreeNode::Directory { mode: 0o755 });
    tree
}

/// Two sorted rows without a common path as one.
fn merged<K: Ord, V>(
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

    #[test]
    fn base_comes_back_out_of_its_part() {
        let mut base = BasePaths::default();
        base.folders.insert(ImagePath::known("usr"), &Folder { mode: 0o2775, uid: 1, gid: 50 });
        base.links.insert(ImagePath::known("bin"), &"usr/bin".to_owned());
        base.files.insert(ImagePath::known("usr/x"), &());
        assert_eq!(base_paths(&base_part(&base, &[Digest::of("base")])), base);
    }
}
