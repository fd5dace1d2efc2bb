//! The list of its files that an image carries: parts out of trees, and the layers that they lie in.

use std::collections::BTreeMap;

use super::base::BasePaths;
use super::layer::{Folder, Folders};
use super::offers::is_library;
use super::tree::{Content, Tree, TreeNode};
use crate::contents::{Entry, FOLDER, Kind, Offers, Part};
use crate::elf::Elf;
use crate::oci::Digest;

/// Layers whose parts lie above them, and not in the last layer: they are large, and change seldom.
pub const BELOW: [&str; 2] = ["base", "web"];

/// What is visible of a tree of ours in one layer.
pub fn part(tree: &Tree, folders: &Folders, diff_id: Digest) -> Part {
    let entry = |(path, node): (&str, &TreeNode)| {
        let entry = match node {
            TreeNode::Directory { mode } => {
                let known = folders.get(path).copied();
                folder(&known.unwrap_or(Folder { mode: *mode, uid: 0, gid: 0 }))
            }
            TreeNode::File { mode, content } => {
                Entry { mode: *mode, size: content.size, digest: Some(content.digest), ..Entry::default() }
            }
            TreeNode::Link { target } => link(target),
        };
        (path.to_owned(), entry)
    };
    let mut part = Part::new(vec![diff_id], tree.iter().map(entry).collect());
    let offers = Offers { libraries: libraries(tree), ..Offers::default() };
    part.offers = (!offers.is_empty()).then_some(offers);
    part
}

/// What of a tree a loader may find by its name.
fn libraries(tree: &Tree) -> BTreeMap<String, Elf> {
    let library = |(path, node): (&str, &TreeNode)| match node {
        TreeNode::File { content, .. } if is_library(path.rsplit('/').next().unwrap_or(path)) => {
            Some((path.to_owned(), content.elf.as_deref()?.clone()))
        }
        _ => None,
    };
    tree.iter().filter_map(library).collect()
}

fn folder(folder: &Folder) -> Entry {
    Entry { kind: Kind::Folder, mode: folder.mode, uid: folder.uid, gid: folder.gid, ..Entry::default() }
}

fn link(target: &str) -> Entry {
    Entry { kind: Kind::Link, target: target.to_owned(), ..Entry::default() }
}

/// What later builds have to know of a base: its folders, links and names, and what it offers to programs.
pub fn base_part(base: &BasePaths, layers: &[Digest]) -> Part {
    let folders = base.folders.iter().map(|(path, known)| (path.clone(), folder(known)));
    let links = base.links.iter().map(|(path, target)| (path.clone(), link(target)));
    let files = base.files.iter().map(|path| (path.clone(), Entry::default()));
    let mut part = Part::new(layers.to_vec(), folders.chain(links).chain(files).collect());
    part.offers.clone_from(&base.offers);
    part
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
pub fn purpose(parts: &BTreeMap<String, Part>) -> String {
    let names: Vec<&str> = parts.keys().map(String::as_str).collect();
    format!("the list of the files of {}", names.join(", "))
}

/// The files of a layer with these parts.
pub fn tree(parts: &BTreeMap<String, Part>) -> Tree {
    let mut tree = Tree::default();
    let file = |bytes: Vec<u8>| TreeNode::File { mode: 0o644, content: Content::bytes(bytes) };
    for (name, part) in parts {
        // Parts are named as layers, no two alike, and without a slash.
        let _ = tree.insert(&format!("{}/{name}.json", &FOLDER[1..]), file(part.to_bytes()));
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
