//! A node for a machine without Docker: what an image of the role node holds, without its base, as one archive with a
//! script that installs it.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Write};
use std::num::NonZeroUsize;

use super::compress::Compressors;
use super::layer::{self, Folders};
use super::tree::{Content, Spool, Tree, TreeNode};
use super::unpack::normal_mode;
use crate::diagnose::{Diagnose, Exit};
use crate::oci::{Image, Layer};
use crate::tarball::{EntryKind, TarReader, magic};
use crate::tars::Role;
use crate::tars::catalogue::{DEPLOY_PATH, IMAGE_ROLE_LABEL, INIT_PATH, TARS_PATH};

/// The script that installs, starts, stops and removes it, and says what it does.
const INSTALL: &str = include_str!("install.sh");
/// In the place of upstream's line for cron.
const UNIT: &str = include_str!("tars-node.service");
/// The folder that everything in the archive lies in.
const FOLDER: &str = "tars-node";
/// A whiteout of a layer.
const WHITEOUT: &str = ".wh.";

/// Why no archive can be made of an image.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// It is an image of something else.
    #[error("{image} is no image of a node: its label {IMAGE_ROLE_LABEL} says {role:?}")]
    Role {
        /// The image.
        image: String,
        /// What its label says.
        role: String,
    },
    /// Something is missing in it.
    #[error("{image} has no {path}")]
    Missing {
        /// The image.
        image: String,
        /// What is missing.
        path: String,
    },
    /// A layer cannot be read, or the archive cannot be written.
    #[error("cannot make the archive of {image}")]
    Io {
        /// The image.
        image: String,
        /// What failed.
        source: io::Error,
    },
}

impl Diagnose for BundleError {
    fn exit(&self) -> Exit {
        if matches!(self, Self::Io { .. }) { Exit::Failed } else { Exit::Usage }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Role { .. } | Self::Missing { .. } => {
                "name an image that `tarsup build` made of a recipe with `role: node`".to_owned()
            }
            Self::Io { .. } => "see whether the image is whole and the disk is full".to_owned(),
        })
    }
}

/// What the archive holds.
pub struct Bundle {
    tree: Tree,
    /// The framework's version.
    pub version: String,
}

impl Bundle {
    /// Reads the node out of `image`, whose name is `name`; `registries` is what `TARS_REGISTRY_ADDRESS` will be.
    pub fn of(image: &Image, name: &str, registries: &str) -> Result<Self, BundleError> {
        let failed = |source| BundleError::Io { image: name.to_owned(), source };
        let config = image.parsed_config().map_err(|error| failed(io::Error::other(error)))?.config;
        let role = config.labels.get(IMAGE_ROLE_LABEL).map(String::as_str).unwrap_or_default();
        if Some(role) != Role::Node.image_role() {
            return Err(BundleError::Role { image: name.to_owned(), role: role.to_owned() });
        }
        let variable = |wanted: &str| {
            let prefix = format!("{wanted}=");
            config.env.iter().find_map(|variable| variable.strip_prefix(&prefix).map(str::to_owned))
        };
        let version = variable("TARSUP_VERSION").unwrap_or_default();
        let mut found = BTreeMap::new();
        let spool = Spool::default();
        for layer in &image.layers {
            take(layer, &spool, &mut found).map_err(failed)?;
        }
        for needed in [format!("{TARS_PATH}/tarsnode/bin/tarsnode"), INIT_PATH.to_owned()] {
            if !found.contains_key(&needed[1..]) {
                return Err(BundleError::Missing { image: name.to_owned(), path: needed });
            }
        }
        let mut tree = Tree::default();
        let env = format!("TARSUP_VERSION={version}\nTARS_REGISTRY_ADDRESS={registries}\n");
        let own = [
            ("install.sh", INSTALL, 0o755),
            ("tars-node.service", UNIT, 0o644),
            ("tars-node.env", &env, 0o644),
        ];
        let own = own.into_iter().map(|(name, text, mode)| {
            (format!("{FOLDER}/{name}"), TreeNode::File { mode, content: Content::bytes(text.as_bytes()) })
        });
        let files = found.into_iter().map(|(path, node)| (format!("{FOLDER}/root/{path}"), node));
        for (path, node) in own.chain(files) {
            let taken = |_| failed(io::Error::other(format!("{path} is there twice")));
            tree.insert(&path, node).map_err(taken)?;
        }
        Ok(Self { tree, version })
    }

    /// Writes it as a gzipped tar: the same image and registries give the same bytes.
    pub fn write(&self, out: impl Write, threads: NonZeroUsize) -> io::Result<()> {
        let compressors = Compressors::new(threads);
        let mut gzip = compressors.writer(out);
        layer::write(&self.tree, &Folders::default(), &mut gzip)?;
        gzip.finish().map(|_| ())
    }
}

/// True for what a machine without Docker needs of the image: not its base, nor the links into a volume.
fn is_wanted(path: &str) -> bool {
    let below = |folder: String| path.strip_prefix(&folder[1..]).is_some_and(|rest| rest.starts_with('/'));
    path == &INIT_PATH[1..]
        || ["bin", "conf", "util"].iter().any(|part| below(format!("{TARS_PATH}/tarsnode/{part}")))
        || ["conf", "servers"].iter().any(|part| below(format!("{DEPLOY_PATH}/framework/{part}/tarsnode")))
}

/// What a layer adds, replaces and takes away.
fn take(layer: &Layer, spool: &Spool, found: &mut BTreeMap<String, TreeNode>) -> io::Result<()> {
    let stream = BufReader::with_capacity(256 * 1024, layer.source.open()?);
    let mut tar = TarReader::new(magic::open(stream).map_err(io::Error::other)?);
    while let Some(entry) = tar.next_entry().map_err(io::Error::other)? {
        let Ok(name) = std::str::from_utf8(&entry.name) else { continue };
        let path = name.trim_start_matches("./").trim_matches('/').to_owned();
        let (folder, last) = path.rsplit_once('/').unwrap_or(("", &path));
        if let Some(gone) = last.strip_prefix(WHITEOUT) {
            let gone = format!("{folder}/{gone}");
            found.retain(|path, _| *path != gone && !path.starts_with(&format!("{gone}/")));
            continue;
        }
        if !is_wanted(&path) {
            continue;
        }
        let target = || String::from_utf8_lossy(&entry.target).into_owned();
        let node = match entry.kind {
            EntryKind::File => {
                let mode = normal_mode(entry.mode);
                TreeNode::File { mode, content: spool.keep(tar.content(&entry))? }
            }
            EntryKind::Symlink => TreeNode::Link { target: target().into() },
            EntryKind::HardLink => match found.get(target().trim_matches('/')) {
                Some(node) => node.clone(),
                None => return Err(io::Error::other(format!("{path} is a link to what is not taken"))),
            },
            // Folders come by themselves; nothing else has any business there.
            _ => continue,
        };
        found.insert(path, node);
    }
    Ok(())
}
