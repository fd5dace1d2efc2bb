//! The local content store: an OCI layout that any tool can read, and the cache of layers beside it.

use std::io;
use std::path::{Path, PathBuf};

use crate::diagnose::{Diagnose, Exit, Place, shown};
use crate::oci::Digest;

pub mod cache;
pub mod gc;
mod hold;
mod incoming;
mod kept;
pub mod layout;
mod origin;
pub mod proven;
mod unpacked;
mod verify;

pub use cache::Cache;
pub use layout::Layout;
pub use proven::Proven;
pub use unpacked::{size_member, unpacked};
pub use verify::{Damaged, Verified, verify};

/// Why the store, the cache or a layout cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file that cannot be read or written.
    #[error("cannot {act} {}", shown(path))]
    Io {
        /// What failed, such as `read`.
        act: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's words.
        source: io::Error,
    },
    /// A layout that is not what it should be.
    #[error("{}: {why}", shown(path))]
    Malformed {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Bytes that are not what their digest says, on their way in.
    #[error("the bytes of the layer {wanted} are other ones: {found}")]
    WrongBytes {
        /// What the manifest names.
        wanted: Digest,
        /// What came.
        found: Digest,
    },
    /// Bytes that cannot be read where they come from.
    #[error("the bytes of the layer {wanted} cannot be read")]
    Unreadable {
        /// What the manifest names.
        wanted: Digest,
        /// Why not.
        source: io::Error,
    },
    /// No image of that name.
    #[error("there is no image {name} in {}", shown(layout))]
    Absent {
        /// The layout's folder.
        layout: PathBuf,
        /// The name.
        name: String,
        /// The names that there are, joined by commas.
        present: String,
    },
    /// An index without what fits.
    #[error("{}: there is no image for {wanted}", shown(layout))]
    Platform {
        /// The layout's folder.
        layout: PathBuf,
        /// The platform.
        wanted: String,
        /// What there is.
        present: String,
    },
    /// An image of which nobody can say what it needs.
    #[error("what the image {} needs is not known, so nothing is removed", shown(image))]
    Unknown {
        /// Its name, or its digest.
        image: String,
        /// Its document that cannot be read.
        source: Box<StoreError>,
    },
    /// Neither a variable nor a home says where the store is.
    #[error("there is no home folder to keep {what} in")]
    NoHome {
        /// The store or the cache.
        what: &'static str,
        /// The variable that names it.
        variable: &'static str,
    },
}

impl Diagnose for StoreError {
    fn exit(&self) -> Exit {
        match self {
            Self::Io { source, .. } if proven::is_other_kind(source) => Exit::Usage,
            Self::Io { act: "read", source, .. } if source.kind() == io::ErrorKind::NotADirectory => {
                Exit::Usage
            }
            Self::Io { .. } => Exit::Failed,
            Self::Malformed { .. }
            | Self::WrongBytes { .. }
            | Self::Unreadable { .. }
            | Self::Absent { .. }
            | Self::Platform { .. }
            | Self::Unknown { .. }
            | Self::NoHome { .. } => Exit::Usage,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Io { source, .. } if proven::is_other_kind(source) => {
                "put a file in its place, or name another layout: no link is followed".to_owned()
            }
            Self::Io { act: "read", source, .. } if source.kind() == io::ErrorKind::NotADirectory => {
                "name the folder of an OCI layout; a file that `docker save` wrote is `docker-archive:FILE`"
                    .to_owned()
            }
            Self::Io { act: "read", .. } => "see whether it exists and may be read".to_owned(),
            Self::Io { .. } => "see whether the disk is full and the permissions fit".to_owned(),
            Self::Malformed { .. } => {
                "name an OCI layout, or a folder that is empty or does not exist".to_owned()
            }
            Self::WrongBytes { .. } | Self::Unreadable { .. } => {
                "whatever it is copied from is damaged, or was tampered with: get the image again".to_owned()
            }
            Self::Absent { present, .. } if present.is_empty() => {
                "there is none in it yet: `tarsup build` makes one".to_owned()
            }
            Self::Absent { present, .. } => format!("there are: {present}"),
            Self::Platform { present, .. } => format!("there is {present}"),
            Self::Unknown { .. } => {
                "build or copy the image again; `tarsup store verify` names all that is damaged".to_owned()
            }
            Self::NoHome { variable, .. } => format!("set {variable}"),
        })
    }

    fn place(&self) -> Option<Place> {
        match self {
            Self::Io { path, .. } | Self::Malformed { path, .. } => Some(Place::file(path)),
            Self::Absent { layout, .. } | Self::Platform { layout, .. } => Some(Place::file(layout)),
            Self::Unknown { source, .. } => source.place(),
            Self::WrongBytes { .. } | Self::Unreadable { .. } | Self::NoHome { .. } => None,
        }
    }
}

/// The local store: `$TARSUP_STORE`, else `$XDG_DATA_HOME/tarsup/store`, else `~/.local/share/tarsup/store`.
pub fn local() -> Result<Layout, StoreError> {
    place("TARSUP_STORE", "XDG_DATA_HOME", ".local/share", "tarsup/store", "the store").map(Layout::at)
}

/// The cache's folder: `$TARSUP_CACHE`, else `$XDG_CACHE_HOME/tarsup`, else `~/.cache/tarsup`.
pub fn cache_folder() -> Result<PathBuf, StoreError> {
    place("TARSUP_CACHE", "XDG_CACHE_HOME", ".cache", "tarsup", "the cache")
}

fn place(
    variable: &'static str,
    xdg: &str,
    below_home: &str,
    name: &str,
    what: &'static str,
) -> Result<PathBuf, StoreError> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(path) = set(variable) {
        return std::path::absolute(&path).map_err(|source| StoreError::Io { act: "find", path, source });
    }
    // The XDG specification ignores relative paths.
    if let Some(path) = set(xdg).filter(|path| path.is_absolute()) {
        return Ok(path.join(name));
    }
    let home = std::env::home_dir().filter(|home| home != Path::new("/") && !home.as_os_str().is_empty());
    home.map(|home| home.join(below_home).join(name)).ok_or(StoreError::NoHome { what, variable })
}
