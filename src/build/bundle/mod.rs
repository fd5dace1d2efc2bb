//! A node for a machine without Docker: what an image of the role node holds, without its base, as one archive with a
//! script that installs it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufReader, Write};
use std::num::NonZeroUsize;
use std::ops::Bound;

use super::compress::Compressors;
use super::layer::{self, Folders};
use super::tree::{Content, Spool, Tree, TreeNode};
use super::unpack::normal_mode;
use crate::contents::Kind;
use crate::contents::meeting::{Meeting, Outcome, outcome};
use crate::diagnose::{Diagnose, Exit};
use crate::oci::{Image, Layer};
use crate::paths::{ImagePath, ImagePathBuf, LayerName};
use crate::tarball::{Capabilities, EntryKind, TarReader, magic};
use crate::tars::Role;
use crate::tars::catalogue::{DEPLOY_PATH, IMAGE_ROLE_LABEL, INIT_PATH, TARS_PATH};

/// The script that installs, starts, stops and removes it, and says what it does.
const INSTALL: &str = include_str!("install.sh");
/// In the place of upstream's line for cron.
const UNIT: &str = include_str!("tars-node.service");
/// The folder that everything in the archive lies in.
const FOLDER: &str = "tars-node";

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
    /// A file whose capabilities an archive loses where it is unpacked.
    #[error("/{path} of {image} has {capabilities}, and would lose that where the archive is unpacked")]
    Capabilities {
        /// The image.
        image: String,
        /// The file.
        path: String,
        /// What it has.
        capabilities: Capabilities,
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
            Self::Capabilities { .. } => {
                "make it of an image whose recipe says nothing of them, and give them on the machine itself (`setcap`)".to_owned()
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
        for (number, layer) in image.layers.iter().enumerate() {
            take(layer, number, &spool, &mut found).map_err(failed)?;
        }
        for needed in [format!("{TARS_PATH}/tarsnode/bin/tarsnode"), INIT_PATH.to_owned()] {
            if !found.contains_key(&needed[1..]) {
                return Err(BundleError::Missing { image: name.to_owned(), path: needed });
            }
        }
        let lost = found.iter().find_map(|(path, (node, _))| match node {
            TreeNode::File { content, .. } => Some((path.to_string(), content.capabilities?)),
            _ => None,
        });
        if let Some((path, capabilities)) = lost {
            return Err(BundleError::Capabilities { image: name.to_owned(), path, capabilities });
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
        let files = found.into_iter().map(|(path, (node, _))| (format!("{FOLDER}/root/{path}"), node));
        for (path, node) in own.chain(files) {
            let unfit = |why| failed(io::Error::other(format!("{path} {why}")));
            let taken = |_| failed(io::Error::other(format!("{path} is there twice")));
            tree.insert(ImagePathBuf::parse(&path).map_err(unfit)?.path(), node).map_err(taken)?;
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

/// What is known of an image so far, and the number of the layer that has it.
type Found = BTreeMap<ImagePathBuf, (TreeNode, usize)>;

/// What a layer adds, replaces and takes away.
fn take(layer: &Layer, number: usize, spool: &Spool, found: &mut Found) -> io::Result<()> {
    let stream = BufReader::with_capacity(256 * 1024, layer.source.open()?);
    let mut tar = TarReader::new(magic::open(stream).map_err(io::Error::other)?);
    let (mut gone, mut folders) = (Vec::new(), BTreeSet::new());
    while let Some(entry) = tar.next_entry().map_err(io::Error::other)? {
        let path = match LayerName::read(&entry.name)? {
            LayerName::Here(path) => path,
            LayerName::Gone(path) => {
                gone.push(path);
                continue;
            }
            LayerName::Opaque(folder) => {
                hide(found, folder.path(), false, number);
                continue;
            }
            LayerName::Nothing => continue,
        };
        let kind = Kind::of(entry.kind);
        if kind == Kind::Folder {
            folders.insert(path.clone());
        }
        make_room(found, path.path(), kind);
        // Folders come by themselves.
        if !is_wanted(&path) || kind == Kind::Folder {
            continue;
        }
        let node = match entry.kind {
            EntryKind::File => {
                let mode = normal_mode(entry.mode);
                let mut content = spool.keep(tar.content(&entry))?;
                content.capabilities = entry.capabilities().map_err(io::Error::other)?;
                TreeNode::File { mode, content }
            }
            EntryKind::Symlink => {
                TreeNode::Link { target: String::from_utf8_lossy(&entry.target).into_owned().into() }
            }
            EntryKind::HardLink => {
                let target = ImagePathBuf::parse(&entry.target).ok();
                match target.and_then(|target| found.get(&target).cloned()) {
                    Some((node, _)) => node,
                    None => return Err(io::Error::other(format!("{path} is a link to what is not taken"))),
                }
            }
            // Nothing else has any business there.
            _ => continue,
        };
        found.insert(path, (node, number));
    }
    // A folder that a layer deletes and has itself lies over the one below, as engines have it.
    for path in gone.iter().filter(|path| !folders.contains(*path)) {
        hide(found, path.path(), true, number);
    }
    Ok(())
}

/// Takes out what the layers before this one have below a path, and at it.
fn hide(found: &mut Found, path: ImagePath<'_>, itself: bool, layer: usize) {
    let mut gone = below(found, path);
    gone.extend(itself.then(|| path.to_buf()));
    for path in gone {
        if found.get(&path).is_some_and(|(_, of)| *of < layer) {
            found.remove(&path);
        }
    }
}

/// What lies below a path.
fn below(found: &Found, path: ImagePath<'_>) -> Vec<ImagePathBuf> {
    let inside = if path.is_root() { String::new() } else { format!("{path}/") };
    let from = found.range::<str, _>((Bound::Included(inside.as_str()), Bound::Unbounded));
    from.map(|(path, _)| path.clone()).take_while(|path| path.starts_with(&inside)).collect()
}

/// Takes out what an engine takes away where it unpacks something of this kind.
fn make_room(found: &mut Found, path: ImagePath<'_>, new: Kind) {
    let old = match found.get(path.as_str()) {
        Some((node, _)) => node.kind(),
        // Folders are known by what is in them.
        None if new != Kind::Folder && !below(found, path).is_empty() => Kind::Folder,
        None => return,
    };
    match outcome(Meeting::Unpacked, old, new) {
        Outcome::Merges => {}
        Outcome::Empties => hide(found, path, true, usize::MAX),
        _ => drop(found.remove(path.as_str())),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::{Cursor, Read};
    use std::sync::Arc;

    use super::*;
    use crate::build::standing;
    use crate::contents;
    use crate::oci::{BlobSource, Descriptor, Digest, MediaType};

    struct InMemory(Vec<u8>);

    impl BlobSource for InMemory {
        fn open(&self) -> io::Result<Box<dyn Read + Send>> {
            Ok(Box::new(Cursor::new(self.0.clone())))
        }
    }

    /// What an entry of a layer is, and what it does.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Does {
        Put(Kind),
        Delete,
        Clear,
    }

    fn layer(entries: &[(String, Does)]) -> Layer {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, does) in entries {
            let path = ImagePathBuf::parse(path).unwrap();
            let (name, kind) = match does {
                Does::Put(Kind::Folder) => (format!("./{path}/"), tar::EntryType::Directory),
                Does::Put(Kind::Link) => (path.to_string(), tar::EntryType::Symlink),
                Does::Put(Kind::File) => (path.to_string(), tar::EntryType::Regular),
                Does::Delete => (path.path().whiteout().into(), tar::EntryType::Regular),
                Does::Clear => (format!("{path}/.wh..wh..opq"), tar::EntryType::Regular),
            };
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(0o755);
            header.set_size(0);
            if kind == tar::EntryType::Symlink {
                tar.append_link(&mut header, name, "target").unwrap();
            } else {
                tar.append_data(&mut header, name, &[][..]).unwrap();
            }
        }
        let tar = tar.into_inner().unwrap();
        let (digest, size) = (Digest::of(&tar), tar.len() as u64);
        let descriptor =
            Descriptor { media_type: MediaType::ImageLayer, digest, size, annotations: BTreeMap::new() };
        Layer { diff_id: digest, descriptor, source: Arc::new(InMemory(tar)) }
    }

    /// The specification in the plainest words (image-spec, layer.md, "Applying Changesets"): a map of what is there. But for a folder
    /// that a layer deletes and has itself, which engines lay over the one below.
    fn applied(there: &mut BTreeMap<String, Kind>, entries: &[(String, Does)]) {
        let is_below = |path: &str, folder: &str| path.starts_with(&format!("{folder}/"));
        let is_own = |path: &String| entries.contains(&(path.clone(), Does::Put(Kind::Folder)));
        for (gone, does) in entries {
            match does {
                Does::Delete if is_own(gone) => {}
                Does::Delete => there.retain(|path, _| path != gone && !is_below(path, gone)),
                Does::Clear => there.retain(|path, _| !is_below(path, gone)),
                Does::Put(_) => {}
            }
        }
        for (path, does) in entries {
            let Does::Put(kind) = does else { continue };
            if *kind != Kind::Folder {
                there.retain(|known, _| !is_below(known, path));
            }
            there.insert(path.clone(), *kind);
        }
    }

    #[test]
    fn every_reader_of_layers_puts_them_over_each_other_as_engines_do() {
        let names = ["a", "a/x", "a/x/1", "a/x/2", "a/y", "b", "b/x"];
        let mut state = 11_u64;
        let mut random = move |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(state >> 33).unwrap() % below
        };
        let (mut kinds_changed, mut deleted) = (0, 0);
        for round in 0..1500 {
            let mut there = BTreeMap::new();
            let mut layers: Vec<Layer> = Vec::new();
            let mut said = Vec::new();
            for _ in 0..=random(3) {
                let mut entries: Vec<(String, Does)> = Vec::new();
                for _ in 0..=random(5) {
                    let path = format!("{}/tarsnode/bin/{}", &TARS_PATH[1..], names[random(names.len())]);
                    let does = match random(8) {
                        0 => Does::Delete,
                        1 => Does::Clear,
                        2 => Does::Put(Kind::Link),
                        3..5 => Does::Put(Kind::Folder),
                        _ => Does::Put(Kind::File),
                    };
                    let mut next = there.clone();
                    entries.push((path.clone(), does));
                    applied(&mut next, &entries);
                    // No engine unpacks what lies below a file, and what lies below a link lies where it leads.
                    let stray = |path: &String| {
                        let path = ImagePathBuf::parse(path).unwrap();
                        path.path()
                            .ancestors()
                            .any(|above| next.get(&*above).is_some_and(|kind| *kind != Kind::Folder))
                    };
                    let clears_no_folder = entries.iter().any(|(path, does)| {
                        *does == Does::Clear && next.get(path).is_some_and(|kind| *kind != Kind::Folder)
                    });
                    // A folder and something else of one name in one layer: no classic store takes it, which is said.
                    let has = |does| entries.contains(&(path.clone(), does));
                    let is_odd = has(Does::Put(Kind::Folder))
                        && (has(Does::Put(Kind::File)) || has(Does::Put(Kind::Link)));
                    let strays = next.keys().any(stray) || entries.iter().any(|(path, _)| stray(path));
                    if strays || clears_no_folder || is_odd {
                        entries.pop();
                        continue;
                    }
                    kinds_changed +=
                        usize::from(there.get(&path).is_some_and(|kind| Does::Put(*kind) != does));
                    deleted +=
                        usize::from(matches!(does, Does::Delete | Does::Clear) && next.len() < there.len());
                }
                applied(&mut there, &entries);
                layers.push(layer(&entries));
                said.push(entries);
            }
            let base = standing::fold("x", &layers).unwrap();
            let found =
                |paths: Vec<ImagePathBuf>, kind| paths.into_iter().map(move |path| (path.into(), kind));
            let of_base: BTreeMap<String, Kind> = found(base.folders.keys().collect(), Kind::Folder)
                .chain(found(base.files.keys().collect(), Kind::File))
                .chain(found(base.links.keys().collect(), Kind::Link))
                .collect();
            assert_eq!(of_base, there, "{round}: a base of {said:#?}");

            let image = Image { manifest: Vec::new(), config: b"{}".to_vec(), layers: layers.clone() };
            let contents = contents::folded(&image).unwrap();
            let entries = contents.parts.values().flat_map(|part| part.entries.iter());
            let listed: BTreeMap<String, Kind> =
                entries.map(|(path, entry)| (path.into(), entry.kind)).collect();
            assert_eq!(listed, there, "{round}: a list of {said:#?}");

            let mut taken = Found::new();
            for (number, layer) in layers.iter().enumerate() {
                take(layer, number, &Spool::default(), &mut taken).unwrap();
            }
            let taken: BTreeMap<String, Kind> =
                taken.into_iter().map(|(path, (node, _))| (path.into(), node.kind())).collect();
            there.retain(|_, kind| *kind != Kind::Folder);
            assert_eq!(taken, there, "{round}: a bundle of {said:#?}");
        }
        assert!(kinds_changed > 100 && deleted > 50, "{kinds_changed} {deleted}");
    }
}
