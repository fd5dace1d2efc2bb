//! A tree as the tar of a layer: every header made by hand, so that nothing but path, mode and content shows.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Read as _, Write};

use serde::{Deserialize, Serialize};

use super::compress::ENCODER;
use super::tree::{Node, Tree};
use crate::oci::Digest;

/// The modification time of every file that tarsup adds: 2020-01-01T00:00:00Z.
///
/// One constant for all builds: with `SOURCE_DATE_EPOCH` here, each version would have other layers, and a host that
/// has the last version would be sent all of them. That variable sets the dates of config and history alone.
pub const MODIFIED: u64 = 1_577_836_800;

/// The folders that the base has. Layers repeat them above their files, exactly as they are: an engine would otherwise
/// make them anew, with modes of its own.
pub type Folders = BTreeMap<String, Folder>;

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

impl Folder {
    /// What a folder is that no base knows.
    fn new(mode: u32) -> Self {
        Self { mode, uid: 0, gid: 0 }
    }
}

/// The digest of everything that decides the bytes of a layer: the key of the cache.
pub fn key(tree: &Tree, base: &Folders) -> Digest {
    let mut text = format!("tarsup layer 1\n{ENCODER}\nmodified {MODIFIED}\n");
    for (path, node) in tree.iter() {
        // Lengths come first where a text could hold anything, so that no two trees read the same.
        let _ = match node {
            Node::Directory { mode } => {
                let Folder { mode, uid, gid } = base.get(path).copied().unwrap_or(Folder::new(*mode));
                writeln!(text, "d {mode:o} {uid} {gid} {} {path}", path.len())
            }
            Node::File { mode, content } => {
                writeln!(text, "f {mode:o} {} {} {} {path}", content.size, content.digest, path.len())
            }
            Node::Link { target } => writeln!(text, "l {} {target} {} {path}", target.len(), path.len()),
        };
    }
    Digest::of(text)
}

/// Writes the tree as a tar.
pub fn write(tree: &Tree, base: &Folders, out: &mut dyn Write) -> io::Result<()> {
    let mut buffer = vec![0; 256 * 1024];
    for (path, node) in tree.iter() {
        match node {
            Node::Directory { mode } => {
                let folder = base.get(path).copied().unwrap_or(Folder::new(*mode));
                header(out, &format!("{path}/"), "", tar::EntryType::Directory, folder, 0)?;
            }
            Node::Link { target } => {
                header(out, path, target, tar::EntryType::Symlink, Folder::new(0o777), 0)?;
            }
            Node::File { mode, content } => {
                header(out, path, "", tar::EntryType::Regular, Folder::new(*mode), content.size)?;
                let mut reader = content.open();
                loop {
                    let read = reader.read(&mut buffer)?;
                    if read == 0 {
                        break;
                    }
                    out.write_all(&buffer[..read])?;
                }
                pad(out, content.size)?;
            }
        }
    }
    out.write_all(&[0; 1024])
}

/// One header, after a PAX header where ustar's fields are too short or only ASCII.
fn header(
    out: &mut dyn Write,
    path: &str,
    target: &str,
    kind: tar::EntryType,
    attributes: Folder,
    size: u64,
) -> io::Result<()> {
    let mut records = Vec::new();
    for (key, value, room) in [("path", path, 100), ("linkpath", target, 100)] {
        if value.len() > room || !value.is_ascii() {
            records.extend(record(key, value));
        }
    }
    if size > MAX_USTAR_SIZE {
        records.extend(record("size", &size.to_string()));
    }
    if !records.is_empty() {
        let name = format!("PaxHeaders/{}", shortened(path.rsplit('/').find(|part| !part.is_empty())));
        raw_header(out, &name, "", tar::EntryType::XHeader, Folder::new(0o644), records.len() as u64)?;
        out.write_all(&records)?;
        pad(out, records.len() as u64)?;
    }
    raw_header(out, &shortened(Some(path)), &shortened(Some(target)), kind, attributes, size)
}

/// Eleven octal digits.
const MAX_USTAR_SIZE: u64 = 0o777_7777_7777;

fn raw_header(
    out: &mut dyn Write,
    path: &str,
    target: &str,
    kind: tar::EntryType,
    attributes: Folder,
    size: u64,
) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    if let Some(fields) = header.as_ustar_mut() {
        // By hand: `set_path` would split long names into prefix and name, in a way that is the crate's own.
        fields.name[..path.len()].copy_from_slice(path.as_bytes());
        fields.linkname[..target.len()].copy_from_slice(target.as_bytes());
    }
    header.set_entry_type(kind);
    header.set_mode(attributes.mode);
    header.set_uid(attributes.uid);
    header.set_gid(attributes.gid);
    header.set_mtime(MODIFIED);
    header.set_size(size.min(MAX_USTAR_SIZE));
    header.set_device_major(0)?;
    header.set_device_minor(0)?;
    header.set_cksum();
    out.write_all(header.as_bytes())
}

/// At most 100 bytes, cut at a character's end; the PAX record has the whole.
fn shortened(text: Option<&str>) -> String {
    let text = text.unwrap_or_default();
    let mut end = text.len().min(88);
    if text.len() <= 100 && !text.starts_with("PaxHeaders/") {
        end = text.len();
    }
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// A PAX record: `length key=value\n`, where the length counts itself.
fn record(key: &str, value: &str) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length.to_string().len() + rest != length {
        length = length.to_string().len() + rest;
    }
    format!("{length} {key}={value}\n").into_bytes()
}

fn pad(out: &mut dyn Write, size: u64) -> io::Result<()> {
    let padding = usize::try_from((512 - size % 512) % 512).unwrap_or(0);
    out.write_all(&[0; 512][..padding])
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::build::tree::Content;

    fn tar_of(tree: &Tree, base: &Folders) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(tree, base, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn layer_is_read_back_with_long_and_foreign_names() {
        let long = format!("usr/{}/{}", "d".repeat(90), "f".repeat(120));
        let mut tree = Tree::default();
        for path in [long.as_str(), "usr/ü/中文", "usr/bin/x"] {
            tree.insert(path, Node::File { mode: 0o755, content: Content::bytes(path.as_bytes()) }).unwrap();
        }
        let target = "t".repeat(150);
        tree.insert("usr/link", Node::Link { target: target.clone() }).unwrap();

        let bytes = tar_of(&tree, &Folders::new());
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
        tree.insert("usr/local/x", Node::Link { target: "y".to_owned() }).unwrap();
        let base = Folders::from([("usr/local".to_owned(), Folder { mode: 0o2775, uid: 0, gid: 50 })]);
        let bytes = tar_of(&tree, &base);
        let mut archive = tar::Archive::new(bytes.as_slice());
        let modes: Vec<(u32, u64)> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().header().clone())
            .map(|header| (header.mode().unwrap(), header.gid().unwrap()))
            .collect();
        assert_eq!(modes, [(0o755, 0), (0o2775, 50), (0o777, 0)]);
        assert_ne!(key(&tree, &base), key(&tree, &Folders::new()));
    }

    #[test]
    fn pax_record_counts_its_own_length() {
        for size in [1, 85, 90, 91, 92, 93, 989, 990, 991] {
            let record = String::from_utf8(record("path", &"x".repeat(size))).unwrap();
            let length: usize = record.split(' ').next().unwrap().parse().unwrap();
            assert_eq!(length, record.len());
        }
    }
}
