//! Files and folders of the host, read into trees by the same rules as archives.

use std::fs::{self, File, Metadata};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::tree::{TreeNode, Unkept};
use super::unpack::{UnpackError, Unpacked, Unpacking, normal_mode};
use crate::limits;

type Result<T> = std::result::Result<T, UnpackError>;

/// Who decides the modes of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Modes {
    /// 0755 or 0644, as the owner may execute the file or not. A setuid bit is refused, as it would be lost.
    Normal,
    /// The recipe, which says so: what the host's file has is not asked for.
    Given,
}

/// Reads a folder; what is no file, folder or link that stays within it is refused.
pub fn read_folder(root: &Path, modes: Modes) -> Result<Unpacked> {
    let mut reading = Unpacking::new(root);
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let failed = |source| UnpackError::Read { path: folder.clone(), source };
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if let Some(below) = take(&mut reading, root, &path, modes)? {
                folders.push(below);
            }
        }
    }
    reading.check_links()?;
    Ok(reading.unpacked)
}

/// Takes one entry of a folder in; a folder comes back, to be read in its turn.
fn take(reading: &mut Unpacking<'_>, root: &Path, path: &Path, modes: Modes) -> Result<Option<PathBuf>> {
    let failed = |source| unread(path, source);
    let relative = path.strip_prefix(root).unwrap_or(path).as_os_str().as_bytes();
    let Some(name) = reading.name(relative)? else { return Ok(None) };
    let metadata = fs::symlink_metadata(path).map_err(failed)?;
    if metadata.is_dir() {
        reading.insert(name.path(), TreeNode::Directory { mode: 0o755 })?;
        return Ok(Some(path.to_owned()));
    }
    let node = if metadata.is_symlink() {
        let target = fs::read_link(path).map_err(failed)?;
        TreeNode::Link { target: reading.target(&name, target.as_os_str().as_bytes())? }
    } else if metadata.is_file() {
        let file = limits::open_within(path, &limits::FILE).map_err(failed)?;
        if let Some(privilege) = privilege(&file, &metadata, modes) {
            return Err(reading.privileged(relative, privilege));
        }
        let mut content = reading.spool.keep(file).map_err(failed)?;
        content.modified = u32::try_from(metadata.mtime()).unwrap_or(0);
        TreeNode::File { mode: normal_mode(metadata.mode()), content }
    } else {
        return Err(reading.refuse(relative, "is no file, folder or link"));
    };
    reading.insert(name.path(), node)?;
    Ok(None)
}

/// Reads one file.
pub fn read_file(path: &Path, modes: Modes) -> Result<TreeNode> {
    let failed = |source| unread(path, source);
    let file = limits::open_within(path, &limits::FILE).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if let Some(privilege) = privilege(&file, &metadata, modes) {
        return Err(UnpackError::Privilege { path: path.to_owned(), entry: String::new(), privilege });
    }
    let content = super::tree::Spool::default().keep(file).map_err(failed)?;
    Ok(TreeNode::File { mode: normal_mode(metadata.mode()), content })
}

/// Why a file of the host was not read, or not kept.
fn unread(path: &Path, source: std::io::Error) -> UnpackError {
    let path = path.to_owned();
    if Unkept::is(&source) {
        UnpackError::Unkept { path, source }
    } else {
        UnpackError::Read { path, source }
    }
}

pub(super) fn no_file(path: &Path) -> UnpackError {
    UnpackError::Archive {
        path: path.to_owned(),
        why: "it is no regular file".to_owned(),
        hint: "name a file".to_owned(),
    }
}

/// What the file would lose in a layer of ours.
fn privilege(file: &File, metadata: &Metadata, modes: Modes) -> Option<&'static str> {
    match metadata.mode() & 0o6000 {
        0 => {}
        _ if modes == Modes::Given => {}
        bits if bits & 0o4000 != 0 => return Some("is setuid"),
        _ => return Some("is setgid"),
    }
    let mut value = [0_u8; 64];
    // A file system without such attributes answers with an error, as one without this attribute does.
    let has = rustix::fs::fgetxattr(file, "security.capability", &mut value[..]).is_ok_and(|size| size > 0);
    has.then_some("has file capabilities (security.capability)")
}
