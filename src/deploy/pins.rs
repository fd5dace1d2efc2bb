//! `tarsup.lock`: the images of a deployment, pinned by what holds without a registry, and the packages in them.
//!
//! JSON, one value a line, in one order: a change of one package is a change of a few lines in review. It holds digests
//! and names, never an environment, an address or a secret. A tag says nothing about bytes; the digest of the config
//! does, and stays the same in the store, in an archive and in a classic engine. Diff ids name the layers uncompressed,
//! so that another compression is no difference. An engine with containerd's store calls an image by the digest of its
//! manifest instead, which is pinned beside it where it is known.
//!
//! Which packages are in an image is no part of its bytes (the same content from a package made anew is the same
//! image). `tarsup build` notes it in the store's index, as annotations [`PACKAGE_ANNOTATION`] of the image's entry.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::desired::Desired;
use super::observed::Observed;
use crate::diagnose::{Diagnose, Exit, Place};
use crate::engine::{EngineImage, ImageStore};
use crate::limits;
use crate::oci::{Digest, Image, Reference};

/// The file's name, beside the deployment file.
pub const FILE: &str = "tarsup.lock";
/// The format that is written.
pub const VERSION: u32 = 1;
/// The prefix of annotations in the store's index: `io.tarsup.package.<file>` = sha256 of the package.
pub const PACKAGE_ANNOTATION: &str = "io.tarsup.package.";

/// The pins of a deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pins {
    /// The format, [`VERSION`].
    pub version: u32,
    /// The deployment.
    pub deployment: String,
    /// Reference → pin.
    pub images: BTreeMap<Reference, Pin>,
    /// The base of a recipe in a registry, as it is named → the digest of what that name stood for: a manifest or an index.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub bases: BTreeMap<String, Digest>,
}

/// What an image is, wherever it lies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    /// The digest of the config: the image id of a classic engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Digest>,
    /// The digest of the manifest: the image id of containerd's store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Digest>,
    /// The digests of the layers, uncompressed, the base first.
    pub diff_ids: Vec<Digest>,
    /// The packages in it, by file name, with the sha256 of the whole file.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub packages: BTreeMap<String, Digest>,
}

impl Pin {
    /// The pin of an image whose bytes are at hand; `annotations` are those of its entry in the store's index.
    pub fn of_image(image: &Image, annotations: &BTreeMap<String, String>) -> Self {
        let packages = annotations.iter().filter_map(|(key, value)| {
            Some((key.strip_prefix(PACKAGE_ANNOTATION)?.to_owned(), value.parse().ok()?))
        });
        Self {
            config: Some(image.config_digest()),
            manifest: Some(image.digest()),
            diff_ids: image.diff_ids(),
            packages: packages.collect(),
        }
    }

    /// The pin of an image that an engine has. Only one of both digests is known there.
    pub fn of_engine(image: &EngineImage, store: ImageStore) -> Self {
        let id = image.id.parse().ok();
        let (config, manifest) = match store {
            ImageStore::Classic => (id, None),
            ImageStore::Containerd => (None, id),
        };
        Self { config, manifest, diff_ids: image.diff_ids.clone(), packages: BTreeMap::new() }
    }

    /// Why `seen` is not the pinned image; `None` where it is proven to be.
    ///
    /// The layers must be the same and the config or the manifest too: another config on the same layers is another
    /// environment and another start.
    pub fn mismatch(&self, seen: &Self) -> Option<String> {
        if self.diff_ids != seen.diff_ids {
            let same =
                self.diff_ids.iter().zip(&seen.diff_ids).take_while(|(ours, theirs)| ours == theirs).count();
            let (pinned, there) = (self.diff_ids.len(), seen.diff_ids.len());
            return Some(format!("only {same} of {pinned} pinned layers are in it, and it has {there}"));
        }
        let pairs = [("config", self.config, seen.config), ("manifest", self.manifest, seen.manifest)];
        let known = pairs.iter().filter_map(|(name, ours, theirs)| Some((name, (*ours)?, (*theirs)?)));
        let mut known = known.peekable();
        if known.peek().is_none() {
            return Some("its layers are the pinned ones, but nothing proves its configuration".to_owned());
        }
        known.find(|(_, ours, theirs)| ours != theirs).map(|(name, ours, theirs)| {
            format!("its {name} is {}, pinned is {}", theirs.short(), ours.short())
        })
    }

    /// True where a container's image id is this image.
    pub fn has_id(&self, id: &str) -> bool {
        id.parse().is_ok_and(|id| Some(id) == self.config || Some(id) == self.manifest)
    }

    /// Twelve digits of what the image is called, to show.
    pub fn short(&self) -> String {
        self.config.or(self.manifest).map_or_else(|| "unknown".to_owned(), |digest| digest.short())
    }
}

/// Why a lock cannot be used, or what it refuses.
#[derive(Debug, thiserror::Error)]
pub enum PinsError {
    /// The file is there and cannot be read, or cannot be written.
    #[error("cannot {act} {}: {source}", path.display())]
    Io {
        /// `read` or `write`.
        act: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's words.
        source: io::Error,
    },
    /// The file is no lock.
    #[error("{} is no lock file: {why}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
        /// The line, where the reader knows one.
        line: Option<u64>,
    },
    /// The file is of a newer tarsup.
    #[error("{} has the format {found}, this tarsup reads up to {VERSION}", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u64,
    },
    /// There is no lock.
    #[error("there is no {}", path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// An image to be pinned is nowhere.
    #[error("the image {image} of `{service}` is neither in the local store nor in the engine")]
    Nowhere {
        /// The image.
        image: String,
        /// A service that names it.
        service: String,
        /// The line.
        place: Place,
    },
    /// An image would run that the lock does not have.
    #[error("the image {image} is not in the lock")]
    NotPinned {
        /// The image.
        image: String,
    },
    /// An image would run that is not the pinned one.
    #[error("the image {image} is not the pinned one: {why}")]
    Differs {
        /// The image.
        image: String,
        /// How it differs.
        why: String,
    },
}

impl Diagnose for PinsError {
    fn exit(&self) -> Exit {
        match self {
            Self::Io { act: "write", .. } => Exit::Failed,
            Self::NotPinned { .. } | Self::Differs { .. } => Exit::Refused,
            _ => Exit::Usage,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Io { .. } => "see whether its owner and permissions fit".to_owned(),
            Self::Malformed { .. } => {
                "restore it from version control, or write it anew with `tarsup lock`".to_owned()
            }
            Self::Newer { .. } => "use the tarsup that wrote it".to_owned(),
            Self::Missing { .. } | Self::NotPinned { .. } => {
                "pin what is there with `tarsup lock`".to_owned()
            }
            Self::Nowhere { .. } => "build it with `tarsup build`, or bring it into the engine".to_owned(),
            Self::Differs { .. } => {
                "bring the pinned image with `tarsup copy`, or accept this one with `tarsup lock`".to_owned()
            }
        })
    }

    fn place(&self) -> Option<Place> {
        match self {
            Self::Malformed { path, line, .. } => Some(Place { file: path.clone(), line: *line }),
            Self::Io { path, .. } | Self::Newer { path, .. } | Self::Missing { path } => {
                Some(Place::file(path))
            }
            Self::Nowhere { place, .. } => Some(place.clone()),
            Self::NotPinned { .. } | Self::Differs { .. } => None,
        }
    }
}

impl Pins {
    /// A lock of this deployment, with nothing pinned yet.
    pub fn new(deployment: &str) -> Self {
        Self {
            version: VERSION,
            deployment: deployment.to_owned(),
            images: BTreeMap::new(),
            bases: BTreeMap::new(),
        }
    }

    /// Where the lock of a deployment lies.
    pub fn path(desired: &Desired) -> PathBuf {
        if desired.directory == Path::new(".") { FILE.into() } else { desired.directory.join(FILE) }
    }

    /// The lock of a deployment; an error where there is none.
    pub fn read(desired: &Desired) -> Result<Self, PinsError> {
        let path = Self::path(desired);
        Self::read_file(&path)?.ok_or(PinsError::Missing { path })
    }

    /// The lock in a file; `None` where there is no file.
    pub fn read_file(path: &Path) -> Result<Option<Self>, PinsError> {
        let text = match limits::read_text(path, &limits::TEXT) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(PinsError::Io { act: "read", path: path.to_owned(), source }),
        };
        Self::parse(&text, path).map(Some)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, PinsError> {
        /// What every format has.
        #[derive(Deserialize)]
        struct Header {
            version: u64,
        }
        let malformed = |error: serde_json::Error| PinsError::Malformed {
            path: path.to_owned(),
            line: (error.line() > 0).then_some(error.line() as u64),
            why: error.to_string(),
        };
        let header: Header = serde_json::from_str(text).map_err(malformed)?;
        if header.version != u64::from(VERSION) {
            return Err(PinsError::Newer { path: path.to_owned(), found: header.version });
        }
        serde_json::from_str(text).map_err(malformed)
    }

    /// The file's text: the same pins, the same bytes.
    pub fn text(&self) -> String {
        // Strings, numbers and ordered maps with string keys always serialize.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// Writes it in one step: a reader sees the old one or the new one.
    pub fn write(&self, desired: &Desired) -> Result<PathBuf, PinsError> {
        let path = Self::path(desired);
        self.write_file(&path)?;
        Ok(path)
    }

    /// The same, to this file.
    pub fn write_file(&self, path: &Path) -> Result<(), PinsError> {
        let failed = |source| PinsError::Io { act: "write", path: path.to_owned(), source };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let mut file = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new("."))).map_err(failed)?;
        file.write_all(self.text().as_bytes()).map_err(failed)?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        file.as_file().set_permissions(mode).map_err(failed)?;
        file.as_file().sync_all().map_err(failed)?;
        file.persist(path).map_err(|error| failed(error.error))?;
        Ok(())
    }

    /// How another lock differs, a sentence a difference; `self` is what the file says.
    pub fn differences(&self, now: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        for (image, pin) in &self.images {
            match now.images.get(image) {
                None => lines.push(format!("{image} is pinned, and no service uses it")),
                Some(seen) => {
                    lines.extend(pin.mismatch(seen).map(|why| format!("{image}: {why}")));
                    lines.extend(packages(pin, seen).into_iter().map(|line| format!("{image}: {line}")));
                }
            }
        }
        let new = now.images.keys().filter(|image| !self.images.contains_key(image));
        lines.extend(new.map(|image| format!("{image} is not pinned")));
        lines
    }
}

/// How the packages differ; where nothing is known of them now, nothing is said.
fn packages(pinned: &Pin, seen: &Pin) -> Vec<String> {
    if seen.packages.is_empty() {
        return Vec::new();
    }
    let names = pinned
        .packages
        .keys()
        .chain(seen.packages.keys().filter(|name| !pinned.packages.contains_key(*name)));
    names
        .filter_map(|name| match (pinned.packages.get(name), seen.packages.get(name)) {
            (Some(ours), Some(theirs)) if ours == theirs => None,
            (Some(ours), Some(theirs)) => {
                Some(format!("package {name} is {}, pinned is {}", theirs.short(), ours.short()))
            }
            (Some(_), None) => Some(format!("package {name} is pinned and no longer in it")),
            (None, _) => Some(format!("package {name} is new")),
        })
        .collect()
}

/// `--locked`: every one of `wanted` is pinned, and what the engine has under its name is the pinned image.
///
/// An image that the engine lacks passes here: it is copied first, and looked at again then.
pub fn require<'r>(
    pins: &Pins,
    wanted: impl IntoIterator<Item = &'r Reference>,
    observed: &Observed,
) -> Result<(), PinsError> {
    for reference in wanted {
        let image = reference.to_string();
        let Some(pin) = pins.images.get(reference) else { return Err(PinsError::NotPinned { image }) };
        let Some(seen) = observed.image(&image) else { continue };
        // What only the engine can tell the id of is looked at again once it is loaded.
        if seen.id.is_empty() {
            continue;
        }
        if let Some(why) = pin.mismatch(&Pin::of_engine(seen, observed.engine.image_store)) {
            return Err(PinsError::Differs { image, why });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(text: &str) -> Digest {
        Digest::of(text)
    }

    fn pin(config: &str, layers: &[&str]) -> Pin {
        Pin {
            config: Some(digest(config)),
            manifest: Some(digest("manifest")),
            diff_ids: layers.iter().map(|layer| digest(layer)).collect(),
            packages: BTreeMap::from([("tarslog.tgz".to_owned(), digest("package"))]),
        }
    }

    fn pins() -> Pins {
        let image = "tars/framework:3.0.17".parse().unwrap();
        Pins { images: BTreeMap::from([(image, pin("c", &["a", "b"]))]), ..Pins::new("p") }
    }

    #[test]
    fn lock_text_round_trips_in_one_order() {
        let text = pins().text();
        assert_eq!(Pins::parse(&text, Path::new("tarsup.lock")).unwrap(), pins());
        assert!(
            text.starts_with("{\n  \"version\": 1,\n  \"deployment\": \"p\",\n  \"images\": {\n"),
            "{text}"
        );
    }

    #[test]
    fn lock_of_the_first_format_is_read() {
        let text = include_str!("../../tests/fixtures/lock/version-1.lock");
        let read = Pins::parse(text, Path::new("tarsup.lock")).unwrap();
        assert_eq!((read.deployment.as_str(), read.images.len()), ("tars", 2));
        assert_eq!(read.text(), text);
    }

    #[test]
    fn what_is_no_lock_is_an_error_with_its_line() {
        for (text, wanted) in [
            ("", "no lock file"),
            ("{}", "no lock file"),
            ("{\"version\": 2}", "reads up to 1"),
            ("{\"version\": 1,\n\"deployment\": \"p\",\n\"images\": {\"A B\": {}}}", "no lock file"),
            ("{\"version\": 1, \"deployment\": \"p\", \"images\": {}, \"x\": 1}", "unknown field"),
        ] {
            let error = Pins::parse(text, Path::new("tarsup.lock")).unwrap_err();
            assert!(error.to_string().contains(wanted), "{text}: {error}");
            assert_eq!(error.exit(), Exit::Usage);
        }
    }

    #[test]
    fn image_is_proven_by_layers_and_config_or_manifest() {
        let pinned = pin("c", &["a", "b"]);
        let seen = |config: Option<&str>, manifest: Option<&str>, layers: &[&str]| Pin {
            config: config.map(digest),
            manifest: manifest.map(digest),
            ..pin("", layers)
        };
        for (seen, wanted) in [
            (seen(Some("c"), None, &["a", "b"]), None),
            (seen(None, Some("manifest"), &["a", "b"]), None),
            (seen(Some("d"), None, &["a", "b"]), Some("config")),
            (seen(Some("c"), None, &["a", "x"]), Some("1 of 2 pinned layers")),
            (seen(Some("c"), None, &["a"]), Some("layers")),
            (seen(None, None, &["a", "b"]), Some("nothing proves")),
        ] {
            let why = pinned.mismatch(&seen);
            assert_eq!(why.is_some(), wanted.is_some(), "{why:?}");
            assert!(why.unwrap_or_default().contains(wanted.unwrap_or_default()));
        }
    }

    #[test]
    fn differences_name_images_and_packages() {
        let mut now = pins();
        assert!(pins().differences(&now).is_empty());
        for pin in now.images.values_mut() {
            pin.packages = BTreeMap::from([("tarsstat.tgz".to_owned(), digest("p"))]);
        }
        now.images.insert("mysql:8".parse().unwrap(), pin("m", &["m"]));
        assert_eq!(
            pins().differences(&now),
            [
                "tars/framework:3.0.17: package tarslog.tgz is pinned and no longer in it",
                "tars/framework:3.0.17: package tarsstat.tgz is new",
                "mysql:8 is not pinned",
            ]
        );
    }
}
