//! The list of its files that an image carries: parts out of trees, and the layers that they lie in.

use std::collections::BTreeMap;
use std::io;

use super::base::BasePaths;
use super::layer::{Folder, Folders};
use super::offers::is_library;
use super::tree::{self, Content, Tree, TreeNode};
use crate::contents::{self, Entry, FOLDER, Kind, Offers, Part, Program};
use crate::elf::Elf;
use crate::oci::Digest;

/// Layers whose parts lie above them, and not in the last layer: they are large, and change seldom.
pub const BELOW: [&str; 2] = ["base", "web"];

/// What is visible of a tree of ours in one layer.
pub fn part(tree: &Tree, folders: &Folders, diff_id: Digest) -> Part {
    let entries = entries(tree, folders);
    let mut part = Part::new(vec![diff_id], entries.collect());
    part.offers = offers(tree);
    part
}

fn entries<'t>(tree: &'t Tree, folders: &'t Folders) -> impl Iterator<Item = (String, Entry)> + 't {
    tree.iter().map(|(path, node)| {
        let entry = match node {
            TreeNode::Directory { mode } => {
                let known = folders.get(&path).copied();
                folder(&known.unwrap_or(Folder { mode: *mode, uid: 0, gid: 0 }))
            }
            TreeNode::File { mode, content } => {
                Entry { mode: *mode, size: content.size, digest: Some(content.digest), ..Entry::default() }
            }
            TreeNode::Link { target } => link(target),
        };
        (path, entry)
    })
}

/// What programs find in a tree.
fn offers(tree: &Tree) -> Option<Offers> {
    let offers = Offers { libraries: libraries(tree), programs: programs(tree), ..Offers::default() };
    (!offers.is_empty()).then_some(offers)
}

/// What of a tree a loader may find by its name.
fn libraries(tree: &Tree) -> BTreeMap<String, Elf> {
    let found = |(path, node): (String, &TreeNode)| {
        let elf = library(&path, node)?.clone();
        Some((path, elf))
    };
    tree.iter().filter_map(found).collect()
}

/// What else of a tree is machine code.
fn programs(tree: &Tree) -> BTreeMap<String, Program> {
    let found = |(path, node): (String, &TreeNode)| match node {
        TreeNode::File { content, .. } if library(&path, node).is_none() => {
            let elf = content.elf.as_deref()?;
            Some((path, Program { build_id: elf.build_id.clone(), needed: elf.needed.clone() }))
        }
        _ => None,
    };
    tree.iter().filter_map(found).collect()
}

/// A library of one node.
pub fn library<'n>(path: &str, node: &'n TreeNode) -> Option<&'n Elf> {
    match node {
        TreeNode::File { content, .. } if is_library(path.rsplit('/').next().unwrap_or(path)) => {
            content.elf.as_deref()
        }
        _ => None,
    }
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
        let entries = part.entries.iter().map(|(path, entry)| (path.as_str(), entry));
        contents::write_part(out, &part.layers, part.covered, entries, part.offers.as_ref())
    })
}

fn folder(folder: &Folder) -> Entry {
    Entry { kind: Kind::Folder, mode: folder.mode, uid: folder.uid, gid: folder.gid, ..Entry::default() }
}

fn link(target: &str) -> Entry {
    Entry { kind: Kind::Link, target: target.to_owned(), ..Entry::default() }
}

/// What later builds have to know of a base: its folders, links and names, and what it offers to programs.
pub fn base_part(base: &BasePaths, layers: &[Digest]) -> Part {
    let entries = base_entries(base).map(|(path, entry)| (path.to_owned(), entry));
    let mut part = Part::new(layers.to_vec(), entries.collect());
    part.offers.clone_from(&base.offers);
    part
}

/// In byte order of the paths.
fn base_entries(base: &BasePaths) -> impl Iterator<Item = (&str, Entry)> {
    let folders = base.folders.iter().map(|(path, known)| (path.as_str(), folder(known)));
    let links = base.links.iter().map(|(path, target)| (path.as_str(), link(target)));
    let files = base.files.iter().map(|path| (path.as_str(), Entry::default()));
    tree::merged(folders, tree::merged(links, files))
}

/// The base that a part tells of.
pub fn base_paths(part: &Part) -> BasePaths {
    let mut base = BasePaths { offers: part.offers.clone(), ..BasePaths::default() };
    for (path, entry) in &part.entries {
        match entry.kind {
            Kind::Folder => {
                let folder = Folder { mode: entry.mode, uid: entry.uid, gid: entry.gid };
                base.folders.insert(path.clone(), folder);
            }
            Kind::Link => {
                base.links.insert(path.clone(), entry.target.clone());
            }
            Kind::File => {
                base.files.insert(path.clone());
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

/// The files of a layer with these parts.
pub fn tree(parts: &BTreeMap<String, Content>) -> Tree {
    let mut tree = Tree::default();
    for (name, content) in parts {
        // Parts are named as layers, no two alike, and without a slash.
        let file = TreeNode::File { mode: 0o644, content: content.clone() };
        let _ = tree.insert(&format!("{}/{name}.json", &FOLDER[1..]), file);
    }
    tree
}

/// The place of the lists, to be kept free by every other layer.
pub fn place() -> Tree {
    let mut tree = Tree::default();
    let _ = tree.insert(&FOLDER[1..], TreeNode::Directory { mode: 0o755 });
    tree
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_comes_back_out_of_its_part() {
        let mut base = BasePaths::default();
        base.folders.insert("usr".to_owned(), Folder { mode: 0o2775, uid: 1, gid: 50 });
        base.links.insert("bin".to_owned(), "usr/bin".to_owned());
        base.files.insert("usr/x".to_owned());
        assert_eq!(base_paths(&base_part(&base, &[Digest::of("base")])), base);
    }
}
