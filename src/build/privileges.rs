//! What lets a program do more than who starts it: setuid and setgid bits, and file capabilities. Kept where the recipe says so.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::LayerInput;
use super::recipe::{PlacedFile, Recipe};
use super::tree::{Tree, TreeNode};
use crate::contents::{self, Part};
use crate::diagnose::{Diagnose, Exit, Place, shown};
use crate::paths::ImagePathBuf;
use crate::tarball::Capabilities;

/// The bits of a mode that count.
pub const BITS: u32 = 0o6000;

/// What a recipe says of one file under `privileges`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its permission bits, setuid or setgid among them.
    pub mode: Option<u32>,
    /// Its capabilities.
    pub capabilities: Option<Capabilities>,
    /// The line that says so.
    pub line: u64,
}

impl Kept {
    /// In words, as [`contents::privileges`].
    fn told(&self) -> String {
        contents::privileges(self.mode.unwrap_or(0), self.capabilities).unwrap_or_default()
    }
}

/// Why the privileges of a file are not kept.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// Nobody said that they are meant.
    #[error("{}: /{} has {has}, which {says}", shown(origin), shown(&**path))]
    Unsaid {
        /// The package, folder or file that brings it.
        origin: PathBuf,
        /// Its path in the image.
        path: ImagePathBuf,
        /// What it has, in words.
        has: String,
        /// What is said of it, and where.
        says: String,
        /// What to write.
        hint: String,
    },
    /// An image that is patched has more than the package that comes.
    #[error("{}: /{} lacks what the file has in {image}: {had}", shown(origin), shown(&**path))]
    Lost {
        /// The package.
        origin: PathBuf,
        /// The path in the image.
        path: ImagePathBuf,
        /// The image.
        image: String,
        /// What the file has there, in words.
        had: String,
    },
    /// What a recipe says is not true.
    #[error("`privileges: {{/{}: {kept}}}`: {why}", shown(&**path))]
    Untrue {
        /// The recipe, and its line.
        place: Place,
        /// The path in the image.
        path: ImagePathBuf,
        /// What the recipe says, in words.
        kept: String,
        /// What is so instead.
        why: String,
    },
}

impl Diagnose for PrivilegeError {
    fn exit(&self) -> Exit {
        Exit::Usage
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Unsaid { hint, .. } => hint.clone(),
            Self::Lost { .. } => {
                "give it to the file of the package (`chmod`, `setcap`); or build from the recipe, without it under `privileges`"
                    .to_owned()
            }
            Self::Untrue { .. } => "correct the line, or take it away: what it says is no more so".to_owned(),
        })
    }

    fn place(&self) -> Option<Place> {
        match self {
            Self::Unsaid { origin, .. } | Self::Lost { origin, .. } => Some(Place::file(origin)),
            Self::Untrue { place, .. } => Some(place.clone()),
        }
    }
}

/// Puts the privileges into the layers that the recipe says are kept. `origins`: the name of a layer → the package or folder that it
/// is made of.
pub(super) fn judge(
    recipe: &Recipe,
    layers: &mut [LayerInput],
    origins: &BTreeMap<String, PathBuf>,
) -> Result<(), PrivilegeError> {
    let mut found = BTreeSet::new();
    for layer in &mut *layers {
        let given = |path: &str| if layer.name == "files" { placed(recipe, path) } else { None };
        let mut modes = Vec::new();
        for (path, mode, capabilities) in layer.tree.privileged() {
            let (file, origin) = match given(&path) {
                Some((file, origin)) => (Some(file), origin),
                None => (None, origins.get(&layer.name).unwrap_or(&recipe.file).clone()),
            };
            let kept = recipe.privileges.get(&path);
            found.extend(kept.map(|_| path.clone()));
            let has = (mode & BITS, capabilities);
            // What `files` itself gives is said there.
            let bits_given = file.is_some_and(|file| file.mode.is_some());
            let capabilities_given = file.is_some_and(|file| file.capabilities.is_some());
            let bits_kept = kept.and_then(|kept| kept.mode).is_some_and(|mode| mode & BITS == has.0);
            let capabilities_kept = kept.is_some_and(|kept| kept.capabilities == capabilities);
            let all_is_said = (has.0 == 0 || bits_given || bits_kept)
                && (capabilities.is_none() || capabilities_given || capabilities_kept);
            if !all_is_said {
                return Err(unsaid(recipe, origin, path, has, kept));
            }
            if let Some(kept) = kept {
                truth(recipe, &path, kept, has)?;
                modes.extend(kept.mode.filter(|kept| *kept != mode).map(|mode| (path, mode)));
            }
        }
        for (path, mode) in modes {
            set_mode(&mut layer.tree, &path, mode);
        }
    }
    match recipe.privileges.iter().find(|(path, _)| !found.contains(*path)) {
        None => Ok(()),
        Some((path, kept)) => {
            let is_there = layers.iter().any(|layer| layer.tree.get(path).is_some());
            let why = if is_there {
                "the file there has no such privilege"
            } else {
                "no package, and nothing of `files`, brings a file there"
            };
            Err(untrue(recipe, path, kept, why.to_owned()))
        }
    }
}

/// The entry of `files` that a path comes from, and the file of the host.
fn placed<'r>(recipe: &'r Recipe, path: &str) -> Option<(&'r PlacedFile, PathBuf)> {
    let mut longest: Option<(&PlacedFile, PathBuf)> = None;
    for file in &recipe.plain.files {
        let from = match path.strip_prefix(file.to.as_str()) {
            Some("") => file.from.clone(),
            Some(rest) if rest.starts_with('/') => file.from.join(&rest[1..]),
            _ => continue,
        };
        // Of a folder and a file in it that are both named, the file was read where it is.
        if from.symlink_metadata().is_ok()
            && longest.as_ref().is_none_or(|(known, _)| known.to.len() < file.to.len())
        {
            longest = Some((file, from));
        }
    }
    longest
}

fn set_mode(tree: &mut Tree, path: &ImagePathBuf, mode: u32) {
    if let Some(TreeNode::File { content, .. }) = tree.get(path) {
        tree.replace(path.path(), &TreeNode::File { mode, content });
    }
}

/// What the line says beside what there is.
fn truth(
    recipe: &Recipe,
    path: &ImagePathBuf,
    kept: &Kept,
    (bits, capabilities): (u32, Option<Capabilities>),
) -> Result<(), PrivilegeError> {
    let is_true = kept.mode.is_none_or(|mode| mode & BITS == bits)
        && kept.capabilities.is_none_or(|kept| Some(kept) == capabilities);
    if is_true {
        return Ok(());
    }
    let has = contents::privileges(bits, capabilities).unwrap_or_default();
    Err(untrue(recipe, path, kept, format!("the file there has {has}")))
}

fn untrue(recipe: &Recipe, path: &ImagePathBuf, kept: &Kept, why: String) -> PrivilegeError {
    let place = Place::line(&recipe.file, kept.line);
    PrivilegeError::Untrue { place, path: path.clone(), kept: kept.told(), why }
}

fn unsaid(
    recipe: &Recipe,
    origin: PathBuf,
    path: ImagePathBuf,
    (bits, capabilities): (u32, Option<Capabilities>),
    kept: Option<&Kept>,
) -> PrivilegeError {
    let recipe = shown(recipe.file.file_name().unwrap_or_default()).to_string();
    let says = match kept {
        None => format!("would be lost: {recipe} does not say that it is kept"),
        Some(kept) => format!("is not what {recipe} says in line {}: {}", kept.line, kept.told()),
    };
    let mut line = Vec::new();
    if bits != 0 {
        line.push(format!("mode: '0{:o}'", 0o755 | bits));
    }
    line.extend(capabilities.map(|some| format!("capabilities: '{some}'")));
    let hint = format!(
        "where it is meant, the recipe says so: `privileges: {{/{path}: {{{}}}}}`; else take it away (`chmod u-s,g-s FILE`, \
         `setcap -r FILE`)",
        line.join(", ")
    );
    PrivilegeError::Unsaid {
        origin,
        path,
        has: contents::privileges(bits, capabilities).unwrap_or_default(),
        says,
        hint,
    }
}

/// Refuses privileges other than those that an image which is patched has: it stands in the recipe's place.
pub(super) fn as_before(
    tree: &Tree,
    before: &Part,
    package: &Path,
    image: &str,
) -> Result<(), PrivilegeError> {
    for (path, mode, capabilities) in tree.privileged() {
        let told = contents::privileges(mode, capabilities);
        let old = before.entries.get(&path).and_then(|entry| entry.privileges());
        if old != told {
            return Err(PrivilegeError::Unsaid {
                origin: package.to_owned(),
                path,
                has: told.unwrap_or_default(),
                says: match old {
                    None => format!("the file has not in {image}"),
                    Some(old) => format!("is not what the file has in {image}: {old}"),
                },
                hint: "build from the recipe, which says under `privileges` that it is meant; or take it away (`chmod u-s,g-s \
                       FILE`, `setcap -r FILE`)"
                    .to_owned(),
            });
        }
    }
    let lost = before.entries.iter().find_map(|(path, entry)| {
        let had = entry.privileges()?;
        let is_bare = match tree.get(&path)? {
            TreeNode::File { mode, content } => contents::privileges(mode, content.capabilities).is_none(),
            TreeNode::Directory { .. } | TreeNode::Link { .. } => true,
        };
        is_bare.then_some((path, had))
    });
    match lost {
        None => Ok(()),
        Some((path, had)) => {
            let (origin, image) = (package.to_owned(), image.to_owned());
            Err(PrivilegeError::Lost { origin, path, image, had })
        }
    }
}
