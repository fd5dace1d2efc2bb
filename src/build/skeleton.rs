//! What an image of TARS holds besides packages: folders, upstream's links into the volume, tars-init, deploy files.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::check::CheckError;
use super::host;
use super::privileges::BITS;
use super::recipe::{ImageRole, PlacedFile};
use super::tree::{Tree, TreeNode};
use super::unpack::UnpackError;
use crate::diagnose::shown;
use crate::limits;
use crate::paths::{ImagePath, ImagePathBuf, Unfit};
use crate::tars::Service;
use crate::tars::catalogue::{
    DATA_PATH, DEPLOY_PATH, INIT_PATH, INSTALL_SCRIPT, PATCHS_PATH, TARS_PATH, UTIL_FOLDER, WEB_PATH,
};

const INIT: ImagePath<'static> = ImagePath::known(INIT_PATH);
const DATA: ImagePath<'static> = ImagePath::known(DATA_PATH);
const TARS: ImagePath<'static> = ImagePath::known(TARS_PATH);
const PATCHS: ImagePath<'static> = ImagePath::known(PATCHS_PATH);
const WEB: ImagePath<'static> = ImagePath::known(WEB_PATH);
const TMP: ImagePath<'static> = ImagePath::known("/tmp");

/// tars-init, the volume's folder, and the links into it. Source: upstream's images.
pub fn skeleton(init: &Path, role: ImageRole, on_scratch: bool) -> Result<Tree, UnpackError> {
    let mut tree = Tree::default();
    let TreeNode::File { mode, content } = host::read_file(init)? else {
        return Err(host::no_file(init));
    };
    put(&mut tree, INIT, TreeNode::File { mode: 0o755 | mode & BITS, content });
    if role == ImageRole::Plain {
        return Ok(tree);
    }
    put(&mut tree, DATA, TreeNode::Directory { mode: 0o755 });
    for (folder, link, target) in [
        (TARS, ImagePath::known("app_log"), "app_log"),
        (TARS, ImagePath::known("remote_app_log"), "remote_app_log"),
        (TARS, ImagePath::known("tarsnode/data"), "tarsnode-data"),
        (PATCHS, ImagePath::ROOT, "patchs"),
    ] {
        put_link(&mut tree, folder, link, target);
    }
    if on_scratch {
        put(&mut tree, TMP, TreeNode::Directory { mode: 0o1777 });
    }
    Ok(tree)
}

/// The web's log folders are links into the volume too; they come with the web.
pub fn link_web_logs(tree: &mut Tree) {
    for (link, target) in [(ImagePath::known("log"), "web_log"), (ImagePath::known("demo/log"), "demo_log")] {
        let Ok(path) = WEB.join(link) else { continue };
        if tree.get(&path).is_none() && !tree.has_below(&path) {
            put_link(tree, WEB, link, target);
        }
    }
}

/// A link into the volume.
fn put_link(tree: &mut Tree, folder: ImagePath<'_>, link: ImagePath<'_>, target: &str) {
    // Two constants are never too long together.
    if let Ok(path) = folder.join(link) {
        put(tree, path.path(), TreeNode::Link { target: format!("{DATA_PATH}/{target}").into() });
    }
}

/// A path that only this module writes, or one that is taken already and then stays.
fn put(tree: &mut Tree, path: ImagePath<'_>, node: TreeNode) {
    // Two of our own paths never collide: a test holds it.
    let _ = tree.insert(path, node);
}

/// `conf/` and `sql/` of the recipe's `deploy` folder, at their place in the image; for a framework also what nodes made
/// the upstream way are installed from: `util-linux/`, and the script beside it.
pub fn deploy(folder: &Path, role: ImageRole) -> Result<Tree, super::BuildError> {
    let needed: Vec<String> = match role {
        ImageRole::Framework => {
            let conf = Service::ALL.iter().map(|service| format!("conf/{service}/conf"));
            conf.chain(["sql/db_tars.sql".to_owned()]).collect()
        }
        ImageRole::Node => vec!["conf/tarsnode/conf".to_owned()],
        ImageRole::Plain => Vec::new(),
    };
    if let Some(missing) = needed.iter().find(|below| !folder.join(below).exists()) {
        return Err(CheckError::Deploy { folder: folder.to_owned(), missing: missing.clone(), role }.into());
    }
    let mut tree = Tree::default();
    let parts: &[&str] =
        if role == ImageRole::Framework { &["conf", "sql", UTIL_FOLDER] } else { &["conf", "sql"] };
    for part in parts {
        let from = folder.join(part);
        if !from.is_dir() {
            continue;
        }
        for (path, node) in host::read_folder(&from)?.tree.into_entries() {
            let place = format!("{DEPLOY_PATH}/framework/{part}/{path}");
            put(&mut tree, placed(&from.join(&*path), &place)?.path(), node);
        }
    }
    let script = folder.parent().map(|above| above.join(INSTALL_SCRIPT)).filter(|script| script.is_file());
    if let Some(script) = script.filter(|_| role == ImageRole::Framework) {
        let place = format!("{DEPLOY_PATH}/{INSTALL_SCRIPT}");
        put(&mut tree, placed(&script, &place)?.path(), host::read_file(&script)?);
    }
    Ok(tree)
}

/// Where a file of the host lies in the image.
fn placed(file: &Path, place: &str) -> Result<ImagePathBuf, CheckError> {
    ImagePathBuf::parse(place).map_err(|why| CheckError::Place {
        file: file.to_owned(),
        path: place.to_owned(),
        why,
    })
}

/// Whatever [`deploy`] may read of the folder and beside it.
pub fn inputs_of_deploy(folder: &Path) -> Vec<PathBuf> {
    let parts = ["conf", "sql", UTIL_FOLDER].map(|part| folder.join(part));
    parts.into_iter().chain(folder.parent().map(|above| above.join(INSTALL_SCRIPT))).collect()
}

/// What a person ought to know of a console from which no node can be installed.
pub fn lacks_node_scripts(folder: &Path) -> Option<String> {
    let scripts = folder.join(UTIL_FOLDER).join("tarsnode/util");
    (!scripts.is_dir()).then(|| {
        format!(
            "{} is not there: the tarsnode.tgz that the web console serves will have no scripts, and nodes made the upstream \
             way cannot install from it",
            shown(&scripts)
        )
    })
}

/// The files and folders that a plain recipe names.
pub fn files(placed: &[PlacedFile]) -> Result<Tree, super::BuildError> {
    let mut tree = Tree::default();
    for PlacedFile { from, to, mode, capabilities } in placed {
        let mut put = |path: ImagePath<'_>, mut node: TreeNode| {
            if let TreeNode::File { mode: bits, content } = &mut node {
                *bits = mode.unwrap_or(*bits);
                content.capabilities = capabilities.or(content.capabilities);
            }
            tree.insert(path, node)
                .map_err(|taken| CheckError::Taken { path: format!("/{}", taken.path), file: from.clone() })
        };
        if fs::metadata(from).is_ok_and(|metadata| metadata.is_dir()) {
            // One by one: a folder may have many.
            for (path, node) in host::read_folder(from)?.tree.into_entries() {
                let unfit = |why: Unfit| CheckError::Place {
                    file: from.join(&*path),
                    path: format!("/{to}/{path}"),
                    why,
                };
                put(to.path().join(path.path()).map_err(unfit)?.path(), node)?;
            }
            put(to.path(), TreeNode::Directory { mode: 0o755 })?;
        } else {
            put(to.path(), host::read_file(from)?)?;
        }
    }
    Ok(tree)
}

/// True for an ELF program that needs a loader from the base (it has a `PT_INTERP` segment).
pub fn needs_loader(program: &Path) -> Result<bool, UnpackError> {
    let failed = |source| UnpackError::Read { path: program.to_owned(), source };
    // A linker puts the table right behind the header.
    let mut head = Vec::new();
    limits::open(program).map_err(failed)?.take(4096).read_to_end(&mut head).map_err(failed)?;
    let told = has_interpreter(&head);
    if told.is_some() || !head.starts_with(ELF) {
        return Ok(told.unwrap_or(false));
    }
    let bytes = limits::read(program, &limits::PROGRAM).map_err(failed)?;
    Ok(has_interpreter(&bytes).unwrap_or(false))
}

/// 64-bit, little-endian.
const ELF: &[u8] = b"\x7fELF\x02\x01";

/// Of such an ELF alone, which tars-init is built as; `None` where the table of segments is not in these bytes.
fn has_interpreter(elf: &[u8]) -> Option<bool> {
    const PT_INTERP: u32 = 3;
    let number = |at: usize, size: usize| -> Option<usize> {
        let bytes = elf.get(at..at + size)?;
        bytes.iter().rev().try_fold(0_usize, |value, byte| Some(value.checked_mul(256)? + usize::from(*byte)))
    };
    if !elf.starts_with(ELF) {
        return None;
    }
    let (table, entry, count) = (number(0x20, 8)?, number(0x36, 2)?, number(0x38, 2)?);
    for index in 0..count {
        if number(table.checked_add(index * entry)?, 4)? == PT_INTERP as usize {
            return Some(true);
        }
    }
    Some(false)
}

/// The tars-init beside the running program.
pub fn default_init() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    Some(program.parent()?.join("tars-init"))
}
