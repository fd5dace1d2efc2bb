//! Files and folders of the host, read into trees by the same rules as archives.

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::tree::{TreeNode, Unkept};
use super::unpack::{UnpackError, Unpacked, Unpacking, normal_mode};
use crate::limits;
use crate::tarball::Capabilities;
use crate::tarball::capabilities::ATTRIBUTE;

type Result<T> = std::result::Result<T, UnpackError>;

/// Reads a folder; what is no file, folder or link that stays within it is refused.
pub fn read_folder(root: &Path) -> Result<Unpacked> {
    let mut reading = Unpacking::new(root);
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let failed = |source| UnpackError::Read { path: folder.clone(), source };
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if let Some(below) = take(&mut reading, root, &path)? {
                folders.push(below);
            }
        }
    }
    reading.check_links()?;
    Ok(reading.unpacked)
}

/// Takes one entry of a folder in; a folder comes back, to be read in its turn.
fn take(reading: &mut Unpacking<'_>, root: &Path, path: &Path) -> Result<Option<PathBuf>> {
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
        let capabilities = capabilities(&file).map_err(|why| reading.unkept(relative, why))?;
        let mut content = reading.spool.keep(file).map_err(failed)?;
        content.modified = u32::try_from(metadata.mtime()).unwrap_or(0);
        content.capabilities = capabilities;
        TreeNode::File { mode: normal_mode(metadata.mode()), content }
    } else {
        return Err(reading.refuse(relative, "is no file, folder or link"));
    };
    reading.insert(name.path(), node)?;
    Ok(None)
}

/// Reads one file.
pub fn read_file(path: &Path) -> Result<TreeNode> {
    let failed = |source| unread(path, source);
    let file = limits::open_within(path, &limits::FILE).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let capabilities = capabilities(&file).map_err(|why| UnpackError::Archive {
        path: path.to_owned(),
        why: format!("it has file capabilities ({ATTRIBUTE}) {why}"),
        hint: "take them away (`setcap -r FILE`)".to_owned(),
    })?;
    let mut content = super::tree::Spool::default().keep(file).map_err(failed)?;
    content.capabilities = capabilities;
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

/// What the file lets its program do.
fn capabilities(file: &File) -> std::result::Result<Option<Capabilities>, &'static str> {
    let mut value = [0_u8; 64];
    match rustix::fs::fgetxattr(file, ATTRIBUTE, &mut value[..]) {
        Ok(size) => Capabilities::from_attribute(&value[..size]).map(Some),
        Err(Errno::RANGE) => Err("of a form that is not known"),
        // A file system without such attributes answers with an error, as one without this attribute does.
        Err(_) => Ok(None),
    }
}
