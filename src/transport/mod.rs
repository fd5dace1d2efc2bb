//! Where images come from and go to: `ImageName` says where, a `Source` yields an `oci::Image`, a `Sink` takes one.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;

use async_trait::async_trait;
use serde::Serialize;

use crate::diagnose::{Diagnose, Exit, Place, shown};
use crate::engine::EngineError;
use crate::limits::Beyond;
use crate::oci::{Digest, Image, Reference};
use crate::store::StoreError;

pub mod archive;
pub mod daemon;
pub mod held;
pub mod layout;
pub mod registry;
pub mod saved;
pub mod tars;

pub use registry::RegistryError;

/// An image with its transport, in the words that skopeo and podman made common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageName {
    /// `oci:DIR[:TAG]`: an OCI layout; without a tag, the only image in it.
    Oci {
        /// The folder of the layout.
        directory: PathBuf,
        /// The value of `org.opencontainers.image.ref.name`.
        tag: Option<String>,
    },
    /// `docker-archive:FILE[:REF]`: what `docker save` writes and `docker load` reads.
    Archive {
        /// The tar.
        file: PathBuf,
        /// The image in it.
        reference: Option<Reference>,
    },
    /// `docker-daemon:REF`: an image of the engine.
    Daemon(Reference),
    /// `docker://REF`: an image of a registry.
    Registry(Reference),
    /// `NAME:VERSION`: an image of the local store.
    Store(Reference),
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Oci { directory, tag: Some(tag) } => write!(f, "oci:{}:{tag}", shown(&directory)),
            Self::Oci { directory, tag: None } => write!(f, "oci:{}", shown(&directory)),
            Self::Archive { file, reference: Some(reference) } => {
                write!(f, "docker-archive:{}:{reference}", shown(&file))
            }
            Self::Archive { file, reference: None } => write!(f, "docker-archive:{}", shown(&file)),
            Self::Daemon(reference) => write!(f, "docker-daemon:{reference}"),
            Self::Registry(reference) => write!(f, "docker://{reference}"),
            Self::Store(reference) => write!(f, "{reference}"),
        }
    }
}

impl ImageName {
    /// The image's name in an engine, where that is where it lies.
    pub fn of_engine(&self) -> Option<&Reference> {
        if let Self::Daemon(reference) = self { Some(reference) } else { None }
    }

    /// The tag that the name ends with, where it has one.
    pub fn tag(&self) -> Option<&str> {
        match self {
            Self::Oci { tag, .. } => tag.as_deref(),
            Self::Archive { reference, .. } => reference.as_ref()?.tag.as_deref(),
            Self::Daemon(reference) | Self::Registry(reference) | Self::Store(reference) => {
                reference.tag.as_deref()
            }
        }
    }
}

impl FromStr for ImageName {
    type Err = TransportError;

    /// The path of `oci:` and `docker-archive:` ends at its first `:`, as with skopeo.
    fn from_str(text: &str) -> Result<Self> {
        let invalid = |why: String| TransportError::Name { text: text.to_owned(), why };
        let reference = |name: &str| name.parse::<Reference>().map_err(|error| invalid(error.to_string()));
        let path = |rest: &str| -> Result<(PathBuf, Option<String>)> {
            let (path, tag) = match rest.split_once(':') {
                Some((path, tag)) => (path, Some(tag.to_owned())),
                None => (rest, None),
            };
            match (path, tag.as_deref()) {
                ("", _) => Err(invalid("a path must follow the transport".to_owned())),
                (_, Some("")) => Err(invalid("nothing follows the last `:`".to_owned())),
                _ => Ok((PathBuf::from(path), tag)),
            }
        };
        if let Some(rest) = text.strip_prefix("oci:") {
            let (directory, tag) = path(rest)?;
            Ok(Self::Oci { directory, tag })
        } else if let Some(rest) = text.strip_prefix("docker-archive:") {
            let (file, tag) = path(rest)?;
            Ok(Self::Archive { file, reference: tag.as_deref().map(reference).transpose()? })
        } else if let Some(rest) = text.strip_prefix("docker-daemon:") {
            Ok(Self::Daemon(reference(rest)?))
        } else if let Some(rest) = text.strip_prefix("docker://") {
            Ok(Self::Registry(reference(rest)?))
        } else {
            Ok(Self::Store(reference(text)?))
        }
    }
}

/// What a sink did with an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Receipt {
    /// The digest of the manifest, as the sink now holds it.
    pub digest: Digest,
    /// Bytes written or sent: blobs, and what wraps them.
    pub bytes_sent: u64,
    /// Layers that were written or sent.
    pub layers_sent: usize,
    /// Layers that were there already.
    pub layers_skipped: usize,
    /// Bytes of those layers, as the image has them compressed: what was spared.
    pub bytes_skipped: u64,
}

impl Receipt {
    /// One of an image that is there already, every layer of it.
    pub fn of_nothing(image: &Image) -> Self {
        Self {
            digest: image.digest(),
            bytes_sent: 0,
            layers_sent: 0,
            layers_skipped: image.layers.len(),
            bytes_skipped: image.layers_size(),
        }
    }
}

/// What a sink would do with an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forecast {
    /// What is said of it, as [`Sink::put`] would.
    pub receipt: Receipt,
    /// Why more may be sent after all; `None` where the bytes are exact.
    pub inexact: Option<String>,
}

impl From<Receipt> for Forecast {
    /// One that is exact.
    fn from(receipt: Receipt) -> Self {
        Self { receipt, inexact: None }
    }
}

/// Hears how far a transfer is, in bytes.
pub trait Progress: Send + Sync {
    /// `bytes` more are done.
    fn advance(&self, bytes: u64);
}

/// Hears nothing.
impl Progress for () {
    fn advance(&self, _: u64) {}
}

/// A place that one image can be read from.
#[async_trait]
pub trait Source: Send + Sync {
    /// The image. Its layers may still be read from the source when they are opened.
    async fn get(&self) -> Result<Image>;
}

/// A place that an image can be written to, name included. Nothing half-written shows, whatever happens.
#[async_trait]
pub trait Sink: Send + Sync {
    /// Writes the image, without what is there already.
    async fn put(&self, image: &Image, progress: &dyn Progress) -> Result<Receipt>;

    /// What `put` would do now, to the byte, or what nobody knows before it is tried. The place is asked what it has; nothing
    /// is sent or written, and no layer that is still to be made is opened.
    async fn forecast(&self, image: &Image) -> Result<Forecast>;
}

/// The result of a transfer.
pub type Result<T> = std::result::Result<T, TransportError>;

/// Why an image cannot be named, read or written.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// A text that names no image.
    #[error("`{text}` names no image: {why}")]
    Name {
        /// The text.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// Nothing of that name is there.
    #[error("there is no image {name}")]
    Absent {
        /// The image's name, with transport.
        name: String,
        /// What there is instead, or how to get it.
        hint: String,
    },
    /// A layout or an archive that is not what it should be.
    #[error("{}: {why}", shown(file))]
    Malformed {
        /// The file or folder.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// What unpacks to more than it may.
    #[error("{}: {what} unpacks to more than it may: a decompression bomb?", shown(file))]
    Bomb {
        /// The archive.
        file: PathBuf,
        /// It, or what of it.
        what: String,
        /// The limit.
        limit: Beyond,
    },
    /// What is read cannot be kept until it has been read to its end.
    #[error("{} cannot be kept meanwhile: {} takes no more", shown(image), std::env::temp_dir().display())]
    Unkept {
        /// The image or archive.
        image: PathBuf,
        /// The operating system's words.
        source: io::Error,
    },
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
    /// The bytes of an image cannot be read while they are being sent.
    #[error("cannot read the image {name}")]
    Read {
        /// The image's name.
        name: String,
        /// What failed.
        source: io::Error,
    },
    /// The engine did not take it, although it said it did, or took something else.
    #[error("the engine did not load {name}: {why}")]
    NotLoaded {
        /// The image's name.
        name: String,
        /// What was seen.
        why: String,
    },
    /// What an image is read from is damaged.
    #[error(transparent)]
    Unsound(#[from] archive::Unsound),
    /// A layout or the local store cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An engine call failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A registry did not give or take it.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl TransportError {
    /// What cannot be read fails where it is written: what its source says of itself is more.
    #[must_use]
    pub fn at_its_source(self) -> Self {
        let is_unsound = |source: &io::Error| {
            source.get_ref().is_some_and(|inner| inner.downcast_ref::<archive::Unsound>().is_some())
        };
        let is_registry = |source: &io::Error| {
            source.get_ref().is_some_and(|inner| inner.downcast_ref::<RegistryError>().is_some())
        };
        match self {
            Self::Read { source, .. } | Self::Io { source, .. } if is_unsound(&source) => {
                match source.downcast() {
                    Ok(error) => Self::Unsound(error),
                    Err(source) => Self::Read { name: "from its source".to_owned(), source },
                }
            }
            Self::Read { source, .. }
            | Self::Io { source, .. }
            | Self::Store(StoreError::Io { source, .. } | StoreError::Unreadable { source, .. })
                if is_registry(&source) =>
            {
                match source.downcast() {
                    Ok(error) => Self::Registry(error),
                    Err(source) => Self::Read { name: "from a registry".to_owned(), source },
                }
            }
            other => other,
        }
    }
}

impl Diagnose for TransportError {
    fn exit(&self) -> Exit {
        match self {
            Self::Name { .. }
            | Self::Absent { .. }
            | Self::Malformed { .. }
            | Self::Bomb { .. }
            | Self::Unsound(_)
            | Self::Io { act: "read", .. } => Exit::Usage,
            Self::Store(error) => error.exit(),
            Self::Engine(error) => error.exit(),
            Self::Registry(error) => error.exit(),
            Self::Io { .. } | Self::Unkept { .. } | Self::Read { .. } | Self::NotLoaded { .. } => {
                Exit::Failed
            }
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Name { .. } => Some(
                "write oci:DIR[:TAG], docker-archive:FILE[:REF], docker-daemon:REF, docker://REF, or NAME:VERSION of the local store"
                    .to_owned(),
            ),
            Self::Absent { hint, .. } => Some(hint.clone()),
            Self::Bomb { limit, .. } => Some(limit.hint()),
            Self::Unkept { .. } => Some("make room there, or name another folder in TMPDIR".to_owned()),
            Self::Malformed { .. } => Some("make it again, or name another one".to_owned()),
            Self::Io { act: "read", path, .. } if path.is_dir() => {
                Some("name a file; an OCI layout, which is a folder, is `oci:DIR`".to_owned())
            }
            Self::Io { act: "read", .. } => Some("see whether it exists and may be read".to_owned()),
            Self::Io { .. } => Some("see whether the disk is full and the permissions fit".to_owned()),
            Self::Unsound(_) => Some(
                "whatever it is copied from is damaged, or was tampered with: get the image again".to_owned(),
            ),
            Self::Read { .. } => Some("build the image again: the cache keeps what did not change".to_owned()),
            Self::NotLoaded { .. } => Some("look at the engine's log, then copy it again".to_owned()),
            Self::Store(error) => error.hint(),
            Self::Engine(error) => error.hint(),
            Self::Registry(error) => error.hint(),
        }
    }

    fn place(&self) -> Option<Place> {
        match self {
            Self::Malformed { file, .. } | Self::Bomb { file, .. } => Some(Place::file(file)),
            Self::Io { path, .. } => Some(Place::file(path)),
            Self::Store(error) => error.place(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_name_round_trips_for_each_transport() {
        for text in [
            "oci:out",
            "oci:out/images:3.0.17",
            "oci:/tmp/x:tars/framework:3.0.17",
            "docker-archive:framework.tar",
            "docker-archive:framework.tar:tars/framework:3.0.17",
            "docker-daemon:tars/framework:3.0.17",
            "docker://localhost:5000/tars/node:1",
            "tars/framework:3.0.17",
        ] {
            assert_eq!(text.parse::<ImageName>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn image_name_without_path_or_reference_is_refused() {
        for text in [
            "",
            "oci:",
            "oci::tag",
            "oci:dir:",
            "docker-archive:",
            "docker-daemon:",
            "docker://",
            "docker-archive:f:A",
        ] {
            let error = text.parse::<ImageName>().unwrap_err();
            assert_eq!(error.exit(), Exit::Usage, "{text}");
        }
    }
}
