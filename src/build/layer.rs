//! A tree as the tar of a layer: nothing but path, mode and content shows.

use std::io::{self, Read as _, Write};

use serde::{Deserialize, Serialize};

use super::compress::ENCODER;
use super::tree::{Tree, TreeNode};
use crate::oci::{Digest, HashingWriter};
use crate::paths::{Packed, Paths, put_number, take_number};
use crate::tarball::EntryKind;
use crate::tarball::header::{self, Header, MODIFIED};

/// The folders that the base has. Layers repeat them above their files, exactly as they are: an engine would otherwise
/// make them anew, with modes of its own.
pub type Folders = Paths<Folder>;

/// A folder of the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Folder {
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
}

impl Packed for Folder {
    fn pack(&self, out: &mut Vec<u8>) {
        for number in [self.mode.into(), self.uid, self.gid] {
            put_number(out, number);
        }
    }

    fn unpack(mut bytes: &[u8]) -> Self {
        let mode = u32::try_from(take_number(&mut bytes)).unwrap_or_default();
        Self { mode, uid: take_number(&mut bytes), gid: take_number(&mut bytes) }
    }
}

impl Folder {
    /// What a folder is that no base knows.
    fn new(mode: u32) -> Self {
        Self { mode, uid: 0, gid: 0 }
    }
}

/// The digest of everything that decides the bytes of a layer: the key of the cache.
pub fn key(tree: &Tree, base: &Folders) -> Digest {
    let mut text = HashingWriter::new(io::sink());
    let _ = write!(text, "tarsup layer 1\n{ENCODER}\nmodified {MODIFIED}\n");
    for (path, node) in tree.iter() {
        let path = path.as_str();
        // Lengths come first where a text could hold anything, so that no two trees read the same.
        let _ = match node {
            TreeNode::Directory { mode } => {
                let Folder { mode, uid, gid } = base.get(path).unwrap_or(Folder::new(mode));
                writeln!(text, "d {mode:o} {uid} {gid} {} {path}", path.len())
            }
            TreeNode::File { mode, content } => {
                if let Some(capabilities) = content.capabilities {
                    let _ = writeln!(text, "c {:?}", capabilities.to_numbers());
                }
                writeln!(text, "f {mode:o} {} {} {} {path}", content.size, content.digest, path.len())
            }
            TreeNode::Link { target } => writeln!(text, "l {} {target} {} {path}", target.len(), path.len()),
        };
    }
    text.finish().1
}

/// Writes the tree as a tar.
pub fn write(tree: &Tree, base: &Folders, out: &mut dyn Write) -> io::Result<()> {
    let mut buffer = vec![0; 256 * 1024];
    for (path, node) in tree.iter() {
        let path = path.as_str();
        match node {
            TreeNode::Directory { mode } => {
                let Folder { mode, uid, gid } = base.get(path).unwrap_or(Folder::new(mode));
                let name = format!("{path}/");
                let kind = EntryKind::Directory;
                header::write(out, &Header { uid, gid, ..ours(&name, "", kind, mode, 0) })?;
            }
            TreeNode::Link { target } => {
                header::write(out, &ours(path, &target, EntryKind::Symlink, 0o777, 0))?;
            }
            TreeNode::File { mode, content } => {
                let header = ours(path, "", EntryKind::File, mode, content.size);
                header::write(out, &Header { capabilities: content.capabilities, ..header })?;
                let mut reader = content.open();
                loop {
                    let read = reader.read(&mut buffer)?;
                    if read == 0 {
                        break;
                    }
                    out.write_all(&buffer[..read])?;
                }
                header::pad(out, content.size)?;
            }
        }
    }
    out.write_all(&[0; 1024])
}

/// What is no folder of the base belongs to root.
fn ours<'a>(name: &'a str, target: &'a str, kind: EntryKind, mode: u32, size: u64) -> Header<'a> {
    Header { name, target, kind, mode, uid: 0, gid: 0, size, capabilities: None }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::build::tree::Content;
    use crate::paths::ImagePathBuf;

    fn path(text: &str) -> ImagePathBuf {
        ImagePathBuf::parse(text).unwrap()
    }

    fn tar_of(tree: &Tree, base: &Folders) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(tree, base, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn layer_is_read_back_with_long_and_foreign_names() {
        let long = format!("usr/{}/{}", "d".repeat(90), "f".repeat(120));
        let mut tree = Tree::default();
        for name in [long.as_str(), "usr/ü/中文", "usr/bin/x"] {
            let file = TreeNode::File { mode: 0o755, content: Content::bytes(name.as_bytes()) };
            tree.insert(path(name).path(), file).unwrap();
        }
        let target = "t".repeat(150);
        tree.insert(path("usr/link").path(), TreeNode::Link { target: target.clone().into() }).unwrap();

        let bytes = tar_of(&tree, &Folders::default());
        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut files = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            assert_eq!((entry.header().uid().unwrap(), entry.header().mtime().unwrap()), (0, MODIFIED));
            let path = entry.path().unwrap().to_str().unwrap().to_owned();
            if path == "usr/link" {
                assert_eq!(entry.link_name().unwrap().unwrap().to_str(), Some(target.as_str()));
            }
            let mut content = String::new();
            entry.read_to_string(&mut content).unwrap();
            if !content.is_empty() {
                assert_eq!(content, path);
                files.push(path);
            }
        }
        assert_eq!(files, ["usr/bin/x", long.as_str(), "usr/ü/中文"]);
    }

    #[test]
    fn layer_repeats_the_folders_of_the_base_as_they_are() {
        let mut tree = Tree::default();
        tree.insert(path("usr/local/x").path(), TreeNode::Link { target: "y".into() }).unwrap();
        let base = Folders::from_iter([(path("usr/local"), Folder { mode: 0o2775, uid: 0, gid: 50 })]);
        let bytes = tar_of(&tree, &base);
        let mut archive = tar::Archive::new(bytes.as_slice());
        let modes: Vec<(u32, u64)> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().header().clone())
            .map(|header| (header.mode().unwrap(), header.gid().unwrap()))
            .collect();
        assert_eq!(modes, [(0o755, 0), (0o2775, 50), (0o777, 0)]);
        assert_ne!(key(&tree, &base), key(&tree, &Folders::default()));
    }
}
