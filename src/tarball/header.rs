//! Headers made by hand, so that nothing but name, kind, mode, owner and size shows: ustar, with a PAX header before it
//! where ustar's fields are too short.

use std::io::{self, Write};

use super::capabilities::{ATTRIBUTE, Capabilities};
use super::{EntryKind, pax};

/// The modification time of every file that tarsup adds: 2020-01-01T00:00:00Z.
///
/// One constant for all builds: with `SOURCE_DATE_EPOCH` here, each version would have other layers, and a host that
/// has the last version would be sent all of them. That variable sets the dates of config and history alone.
pub const MODIFIED: u64 = 1_577_836_800;

/// What a header says.
#[derive(Clone, Copy, Debug)]
pub struct Header<'a> {
    /// The name; a folder's ends with `/`.
    pub name: &'a str,
    /// Where a link points.
    pub target: &'a str,
    /// A file, folder or symbolic link.
    pub kind: EntryKind,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Bytes of content.
    pub size: u64,
    /// What a file lets its program do.
    pub capabilities: Option<Capabilities>,
}

/// Room for a name, and for the target of a link.
const NAME: usize = 100;
/// Eleven octal digits.
const LARGEST_SIZE: u64 = 0o777_7777_7777;
/// Seven octal digits.
const LARGEST_OWNER: u64 = 0o777_7777;
/// Before the name of a PAX header.
const PAX_FOLDER: &str = "PaxHeaders/";

/// Writes one header.
pub fn write(out: &mut dyn Write, header: &Header<'_>) -> io::Result<()> {
    let mut records = Vec::new();
    for (key, value) in [("path", header.name), ("linkpath", header.target)] {
        if value.len() > NAME || !value.is_ascii() {
            records.extend(pax::record(key, value.as_bytes()));
        }
    }
    for (key, value, largest) in [
        ("size", header.size, LARGEST_SIZE),
        ("uid", header.uid, LARGEST_OWNER),
        ("gid", header.gid, LARGEST_OWNER),
    ] {
        if value > largest {
            records.extend(pax::record(key, value.to_string().as_bytes()));
        }
    }
    if let Some(capabilities) = header.capabilities {
        // As GNU tar and Docker write it: bytes as they are.
        records.extend(pax::record(&format!("SCHILY.xattr.{ATTRIBUTE}"), &capabilities.to_attribute()));
    }
    if !records.is_empty() {
        let last = header.name.rsplit('/').find(|part| !part.is_empty()).unwrap_or_default();
        let name = format!("{PAX_FOLDER}{}", shortened(last, NAME - PAX_FOLDER.len()));
        let size = records.len() as u64;
        raw(
            out,
            b'x',
            &Header {
                name: &name,
                target: "",
                kind: EntryKind::File,
                mode: 0o644,
                uid: 0,
                gid: 0,
                size,
                capabilities: None,
            },
        )?;
        out.write_all(&records)?;
        pad(out, size)?;
    }
    let flag = match header.kind {
        EntryKind::Directory => b'5',
        EntryKind::Symlink => b'2',
        _ => b'0',
    };
    raw(
        out,
        flag,
        &Header { name: shortened(header.name, NAME), target: shortened(header.target, NAME), ..*header },
    )
}

/// What is left out of the tar's rest of a block after a content of this size.
pub fn pad(out: &mut dyn Write, size: u64) -> io::Result<()> {
    let padding = usize::try_from(super::padding(size)).unwrap_or(0);
    out.write_all(&[0; super::BLOCK][..padding])
}

fn raw(out: &mut dyn Write, flag: u8, header: &Header<'_>) -> io::Result<()> {
    let mut fields = tar::Header::new_ustar();
    if let Some(ustar) = fields.as_ustar_mut() {
        // By hand: `set_path` would split long names into prefix and name, in a way that is the crate's own.
        ustar.name[..header.name.len()].copy_from_slice(header.name.as_bytes());
        ustar.linkname[..header.target.len()].copy_from_slice(header.target.as_bytes());
    }
    fields.set_entry_type(tar::EntryType::new(flag));
    fields.set_mode(header.mode);
    // What does not fit stands in the PAX header.
    fields.set_uid(header.uid.min(LARGEST_OWNER));
    fields.set_gid(header.gid.min(LARGEST_OWNER));
    fields.set_mtime(MODIFIED);
    fields.set_size(header.size.min(LARGEST_SIZE));
    fields.set_device_major(0)?;
    fields.set_device_minor(0)?;
    fields.set_cksum();
    out.write_all(fields.as_bytes())
}

/// As it is where it fits into the room, else its beginning: the PAX record has the whole. The limit of 88 is older than
/// the room, and a part of every digest.
fn shortened(text: &str, room: usize) -> &str {
    if text.len() <= room {
        return text;
    }
    let end = (0..=room.min(88)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::process::{Command, Stdio};

    use proptest::prelude::*;

    use super::*;
    use crate::tarball::{Entry, TarReader};

    fn header<'a>(name: &'a str, target: &'a str, kind: EntryKind) -> Header<'a> {
        Header { name, target, kind, mode: 0o755, uid: 0, gid: 0, size: 0, capabilities: None }
    }

    fn archive(headers: &[Header<'_>]) -> Vec<u8> {
        let mut out = Vec::new();
        for header in headers {
            write(&mut out, header).unwrap();
        }
        out.extend([0; 1024]);
        out
    }

    /// Names, targets, owners, read by three readers: ours, the `tar` crate, and Debian's `tar`.
    fn check(headers: &[Header<'_>]) {
        let bytes = archive(headers);
        let mut reader = TarReader::new(bytes.as_slice());
        let mut ours: Vec<Entry> = Vec::new();
        while let Some(entry) = reader.next_entry().unwrap() {
            ours.push(entry);
        }
        let mut archive = tar::Archive::new(bytes.as_slice());
        let theirs: Vec<_> = archive.entries().unwrap().map(Result::unwrap).collect();
        assert_eq!((ours.len(), theirs.len()), (headers.len(), headers.len()));
        for ((header, ours), theirs) in headers.iter().zip(&ours).zip(&theirs) {
            assert_eq!(ours.name, header.name.as_bytes());
            assert_eq!(ours.target, header.target.as_bytes());
            assert_eq!(
                (ours.uid, ours.gid, ours.mode, ours.kind),
                (header.uid, header.gid, header.mode, header.kind)
            );
            assert_eq!(ours.modified, i64::try_from(MODIFIED).unwrap());
            // The crate gives the cut name of a folder, which may not end with `/`.
            assert_eq!(theirs.path_bytes().as_ref(), header.name.as_bytes());
            assert_eq!(theirs.link_name_bytes().unwrap_or_default().as_ref(), header.target.as_bytes());
            assert_eq!(
                (theirs.header().uid().unwrap(), theirs.header().gid().unwrap()),
                (header.uid, header.gid)
            );
        }
        let names: Vec<String> = headers.iter().map(|header| header.name.to_owned()).collect();
        assert_eq!(listed(&bytes), names);
    }

    fn listed(bytes: &[u8]) -> Vec<String> {
        let mut tar = Command::new("tar")
            .args(["--list", "--quoting-style=literal", "--file=-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Debian's tar is there");
        tar.stdin.take().unwrap().write_all(bytes).unwrap();
        let mut text = String::new();
        tar.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        assert!(tar.wait().unwrap().success());
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn names_of_every_length_are_written_and_read_back_by_three_readers() {
        let folder = "d".repeat(60);
        // The last part alone decides the name of the PAX header: from 90 bytes on it does not fit behind its folder.
        let lasts = (85..=105).chain([155, 156, 254, 255]);
        let long: Vec<String> = lasts.map(|length| format!("usr/{folder}/{}", "f".repeat(length))).collect();
        let whole: Vec<String> = [99, 100, 101, 155, 156, 255, 256, 257, 4095]
            .into_iter()
            .map(|length: usize| "a/".repeat(length / 2) + &"z".repeat(length % 2))
            .collect();
        let pax = format!("PaxHeaders/{}", "p".repeat(85));
        let mut headers: Vec<Header<'_>> =
            long.iter().map(|name| header(name, "", EntryKind::File)).collect();
        headers.extend(long.iter().map(|target| header("link", target, EntryKind::Symlink)));
        headers.push(header(&pax, "", EntryKind::File));
        check(&headers);
        for name in &whole {
            let kind = if name.ends_with('/') { EntryKind::Directory } else { EntryKind::File };
            check(&[header(name, "", kind), header("after", "", EntryKind::File)]);
        }
    }

    #[test]
    fn owners_beyond_seven_octal_digits_are_written_and_read_back() {
        for owner in [LARGEST_OWNER, LARGEST_OWNER + 1, u64::from(u32::MAX)] {
            check(&[Header { uid: owner, gid: owner, ..header("a/", "", EntryKind::Directory) }]);
        }
    }

    #[test]
    fn size_beyond_eleven_octal_digits_stands_in_a_pax_header() {
        let mut out = Vec::new();
        write(&mut out, &Header { size: LARGEST_SIZE + 1, ..header("big", "", EntryKind::File) }).unwrap();
        let entry = TarReader::new(out.as_slice()).next_entry().unwrap().unwrap();
        assert_eq!(entry.size, LARGEST_SIZE + 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_name_and_target_is_written_and_read_back(
            parts in prop::collection::vec("[a-zA-Z0-9 ._=中ü-]{1,120}", 1..6),
            target in "[a-z/中.]{1,300}",
            folder: bool,
            owner in 0..u64::from(u32::MAX),
        ) {
            let name = parts.join("/");
            let name = if folder { format!("{name}/") } else { name };
            let kind = if folder { EntryKind::Directory } else { EntryKind::File };
            check(&[
                Header { uid: owner, ..header(&name, "", kind) },
                header("link", &target, EntryKind::Symlink),
            ]);
        }
    }
}
