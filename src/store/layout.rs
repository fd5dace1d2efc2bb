//! An OCI image layout on disk (image-spec, image-layout.md): blobs by digest, names in `index.json`.
//!
//! Whatever happens, a reader sees the old or the new `index.json` and only whole blobs. Writers exclude each other by
//! a lock on the folder itself, so that no file is left beside those that the specification names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use super::hold::{self, Held};
use super::incoming::{self, Broken};
use super::proven::open_regular;
use super::unpacked::said;
use super::{Proven, StoreError};
use crate::diagnose::shown;
use crate::limits::{self, Beyond};
use crate::oci::image::ANNOTATION_REF_NAME;
use crate::oci::{
    BlobSource, Config, Descriptor, Digest, Image, Layer, Manifest, MediaType, Platform, manifest,
};

type Result<T> = std::result::Result<T, StoreError>;

/// `oci-layout` has one line.
const LARGEST_MARKER: u64 = 4096;
/// What the name of a blob begins with while it is being written.
pub(super) const TEMPORARY: &str = ".tarsup-";

/// A folder that is, or will be, an OCI layout.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
    proven: Arc<Proven>,
}

/// A blob of a layout, whoever wrote it: read, never linked.
#[derive(Clone, Debug)]
struct LayoutBlob {
    path: PathBuf,
    /// Not cleared out before it is read.
    _held: Option<Held>,
}

impl BlobSource for LayoutBlob {
    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(open_regular(&self.path)?))
    }

    fn unpacked(&self) -> Option<u64> {
        said(&self.path).ok().flatten()
    }
}

/// What a write brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NewBlobs {
    /// Bytes of the blobs that were not there.
    pub bytes: u64,
    /// Layers that were not there.
    pub layers: usize,
    /// Bytes of the layers that were there already.
    pub skipped: u64,
}

impl Layout {
    /// The layout in this folder; nothing is made or read yet.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), proven: Arc::default() }
    }

    /// The same layout. Blobs that were proven to be what their names say are known again.
    #[must_use]
    pub fn remembering(self, proven: Proven) -> Self {
        Self { proven: Arc::new(proven), ..self }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where a blob lies.
    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    /// The images in it, with their names, in the order of the index.
    pub fn list(&self) -> Result<Vec<(Option<String>, Descriptor)>> {
        let index = self.index()?;
        let manifests = index.get("manifests").and_then(Value::as_array).cloned().unwrap_or_default();
        manifests
            .into_iter()
            .map(|value| {
                let descriptor: Descriptor = serde_json::from_value(value)
                    .map_err(|error| malformed(&self.root.join("index.json"), &error.to_string()))?;
                Ok((descriptor.annotations.get(ANNOTATION_REF_NAME).cloned(), descriptor))
            })
            .collect()
    }

    /// `oci-layout` says that this is a layout, and of which version (image-spec, image-layout.md).
    fn check_version(&self) -> Result<()> {
        let path = self.root.join("oci-layout");
        let bytes = match read_regular(&path, LARGEST_MARKER) {
            Ok(bytes) => bytes,
            // A store that nothing was put into yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(StoreError::Io { act: "read", path, source }),
        };
        let marker: Option<Value> = serde_json::from_slice(&bytes).ok();
        let version = marker.as_ref().and_then(|marker| marker["imageLayoutVersion"].as_str());
        match version {
            Some(version) if version.starts_with("1.") => Ok(()),
            Some(other) => Err(malformed(&path, &format!("a layout of version {}, not 1.x", shown(other)))),
            None => Err(malformed(&path, "it names no `imageLayoutVersion`")),
        }
    }

    /// The image of that name; without a name, the only one there is.
    pub fn read(&self, name: Option<&str>) -> Result<Image> {
        self.read_for(name, &Platform::of_machine())
    }

    /// The same for this platform, where there is one for several.
    pub fn read_for(&self, name: Option<&str>, platform: &Platform) -> Result<Image> {
        self.check_version()?;
        // From before the name is looked up until the image is dropped.
        let _held = self.hold();
        let images = self.list()?;
        let names = || images.iter().filter_map(|(name, _)| name.clone()).collect::<Vec<_>>().join(", ");
        let absent = || StoreError::Absent {
            layout: self.root.clone(),
            name: name.unwrap_or("(no name)").to_owned(),
            present: names(),
        };
        let descriptor = match name {
            Some(name) => images.iter().find(|(have, _)| have.as_deref() == Some(name)),
            None if images.len() == 1 => images.first(),
            None => None,
        };
        let (_, descriptor) = descriptor.ok_or_else(absent)?;
        self.image_for(descriptor, platform, 0)
    }

    /// The image that this descriptor names: its manifest, or what an index has for this machine.
    pub fn image(&self, descriptor: &Descriptor) -> Result<Image> {
        self.image_for(descriptor, &Platform::of_machine(), 0)
    }

    fn image_for(&self, descriptor: &Descriptor, platform: &Platform, depth: usize) -> Result<Image> {
        /// So many indexes may lie in each other.
        const DEEPEST: usize = 3;
        let bytes = self.read_blob(descriptor)?;
        let unreadable = |why: String| malformed(&self.blob(&descriptor.digest), &why);
        if descriptor.media_type == MediaType::ImageIndex {
            let chosen = manifest::for_platform(&bytes, platform)
                .map_err(|error| unreadable(format!("no OCI index: {error}")))?;
            let chosen = chosen.map_err(|present| StoreError::Platform {
                layout: self.root.clone(),
                wanted: platform.to_string(),
                present,
            })?;
            if depth == DEEPEST {
                return Err(unreadable("its indexes lead on and on".to_owned()));
            }
            return self.image_for(&chosen, platform, depth + 1);
        }
        let or_what_it_is = |why: String| {
            unreadable(manifest::instead(&bytes).map_or(why, |instead| format!("no image: {}", instead.what)))
        };
        let manifest =
            Manifest::parse(&bytes).map_err(|error| or_what_it_is(format!("no OCI manifest: {error}")))?;
        let config_bytes = self.read_blob(&manifest.config)?;
        let config: Config = serde_json::from_slice(&config_bytes)
            .map_err(|error| or_what_it_is(format!("its config cannot be read: {error}")))?;
        if config.rootfs.diff_ids.len() != manifest.layers.len() {
            return Err(malformed(
                &self.blob(&descriptor.digest),
                &format!(
                    "{} layers in the manifest, {} in the config",
                    manifest.layers.len(),
                    config.rootfs.diff_ids.len()
                ),
            ));
        }
        let held = self.hold();
        let layers = manifest
            .layers
            .into_iter()
            .zip(config.rootfs.diff_ids)
            .map(|(descriptor, diff_id)| {
                let source =
                    Arc::new(LayoutBlob { path: self.blob(&descriptor.digest), _held: held.clone() });
                Layer { diff_id, descriptor, source }
            })
            .collect();
        Ok(Image { manifest: bytes, config: config_bytes, layers })
    }

    /// A small blob, whole, and known to be what its digest says.
    fn read_blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let path = self.blob(&descriptor.digest);
        limits::DOCUMENT.allow(descriptor.size).map_err(|beyond| too_much(&path, beyond))?;
        let failed = |source| StoreError::Io { act: "read", path: path.clone(), source };
        let bytes = read_regular(&path, limits::DOCUMENT.value()).map_err(failed)?;
        if bytes.len() as u64 != descriptor.size {
            let why = format!("it has {} bytes, and who names it says {}", bytes.len(), descriptor.size);
            return Err(malformed(&path, &why));
        }
        if Digest::of(&bytes) != descriptor.digest {
            return Err(malformed(&path, "the bytes are not those that its name says"));
        }
        Ok(bytes)
    }

    /// A manifest or an index, whoever wrote it and for whatever.
    pub(super) fn document(&self, digest: &Digest) -> Result<Value> {
        let path = self.blob(digest);
        let most = limits::DOCUMENT.value();
        let failed = |source| StoreError::Io { act: "read", path: path.clone(), source };
        let bytes = read_regular(&path, most.saturating_add(1)).map_err(failed)?;
        if bytes.len() as u64 > most {
            return Err(too_much(&path, Beyond(&limits::DOCUMENT)));
        }
        if Digest::of(&bytes) != *digest {
            return Err(malformed(&path, "the bytes are not those that its name says"));
        }
        serde_json::from_slice(&bytes).map_err(|error| malformed(&path, &error.to_string()))
    }

    /// Writes an image under a name, which it takes away from another. Blobs that are there already stay.
    ///
    /// Layers come side by side: one of a registry has the speed of its connection.
    pub fn write(&self, image: &Image, name: &str, progress: &(dyn Fn(u64) + Sync)) -> Result<NewBlobs> {
        let _held = self.create()?;
        let mut written = NewBlobs::default();
        let mut new = Vec::new();
        for (layer, is_new) in image.layers.iter().zip(self.put_layers(&image.layers, progress)?) {
            if is_new {
                new.push(self.blob(&layer.descriptor.digest));
                written.bytes += layer.descriptor.size;
                written.layers += 1;
            } else {
                written.skipped += layer.descriptor.size;
            }
        }
        for bytes in [&image.config, &image.manifest] {
            if self.put_bytes(bytes)? {
                new.push(self.blob(&Digest::of(bytes)));
                written.bytes += bytes.len() as u64;
            }
        }
        // On the disk before a name leads to them.
        new.push(self.root.join("blobs/sha256"));
        super::cache::sync_all(&new)?;
        self.proven.remember();
        // A registry's image may have docker's.
        let media_type = Manifest::parse(&image.manifest).map(|manifest| manifest.media_type);
        let manifest = Descriptor {
            media_type: media_type.unwrap_or(MediaType::ImageManifest),
            digest: image.digest(),
            size: image.manifest.len() as u64,
            annotations: BTreeMap::from([(ANNOTATION_REF_NAME.to_owned(), name.to_owned())]),
        };
        self.publish(name, &manifest)?;
        Ok(written)
    }

    /// What [`Self::write`] would bring. Nothing is written.
    pub fn lacks(&self, image: &Image) -> Result<NewBlobs> {
        self.check()?;
        let (mut lacks, mut coming) = (NewBlobs::default(), BTreeSet::new());
        let mut is_lacking = |digest: Digest, size| {
            let path = self.blob(&digest);
            let holds = self.proven.holds(&path, &digest, size);
            let holds = holds.map_err(|source| StoreError::Io { act: "read", path, source })?;
            Ok(!holds && coming.insert(digest))
        };
        for Descriptor { digest, size, .. } in image.layers.iter().map(|layer| &layer.descriptor) {
            if is_lacking(*digest, *size)? {
                lacks.bytes += size;
                lacks.layers += 1;
            } else {
                lacks.skipped += size;
            }
        }
        for bytes in [&image.config, &image.manifest] {
            let size = bytes.len() as u64;
            lacks.bytes += if is_lacking(Digest::of(bytes), size)? { size } else { 0 };
        }
        Ok(lacks)
    }

    /// An existing folder with something else in it is refused, and so is one whose own folders lead elsewhere.
    pub(super) fn check(&self) -> Result<()> {
        self.check_version()?;
        for inside in ["blobs", "blobs/sha256"] {
            let path = self.root.join(inside);
            let is_folder = fs::symlink_metadata(&path).map(|found| found.is_dir());
            if matches!(is_folder, Ok(false)) {
                return Err(malformed(&path, "it is no folder of the layout's own, and no link is followed"));
            }
        }
        // What cannot be named in the end is not brought.
        self.index()?;
        let marker = self.root.join("oci-layout");
        if !marker.exists() {
            let occupied = fs::read_dir(&self.root).is_ok_and(|mut entries| {
                entries.any(|entry| entry.is_ok_and(|entry| entry.file_name() != "blobs"))
            });
            // Another writer may be here at the same moment: what it makes first is `blobs`, then the marker.
            if occupied && !marker.exists() {
                return Err(malformed(&self.root, "the folder is not empty, and no OCI layout"));
            }
        }
        Ok(())
    }

    /// The folders and `oci-layout`; nothing of it is cleared out until what comes back is dropped.
    fn create(&self) -> Result<Option<Held>> {
        self.check()?;
        let io = |act, path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::Io { act, path, source }
        };
        let marker = self.root.join("oci-layout");
        let blobs = self.root.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(io("create", &blobs))?;
        let held = self.hold();
        super::cache::sweep(&blobs, TEMPORARY);
        if !marker.exists() {
            self.replace(&marker, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        }
        Ok(held)
    }

    /// What is there stays, until what comes back is dropped.
    fn hold(&self) -> Option<Held> {
        hold::hold(&self.root.join("blobs"))
    }

    /// Which of the layers were not there; the first failure by their order ends it.
    fn put_layers(&self, layers: &[Layer], progress: &(dyn Fn(u64) + Sync)) -> Result<Vec<bool>> {
        /// So many at once, as to a registry.
        const AT_ONCE: usize = 4;
        let mut seen = BTreeSet::new();
        // What comes twice in an image is brought once.
        let is_first: Vec<bool> = layers.iter().map(|layer| seen.insert(layer.descriptor.digest)).collect();
        let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        let work = || {
            let mut done = Vec::new();
            while !failed.load(Ordering::Relaxed) {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(layer) = layers.get(index) else { break };
                let put = if is_first[index] { self.put_layer(layer) } else { Ok(false) };
                failed.fetch_or(put.is_err(), Ordering::Relaxed);
                progress(layer.descriptor.size);
                done.push((index, put));
            }
            done
        };
        let mut done: Vec<(usize, Result<bool>)> = thread::scope(|scope| {
            let running: Vec<_> = (0..AT_ONCE.min(layers.len())).map(|_| scope.spawn(work)).collect();
            running
                .into_iter()
                .flat_map(|one| one.join().unwrap_or_else(|panic| resume_unwind(panic)))
                .collect()
        });
        done.sort_by_key(|(index, _)| *index);
        done.into_iter().map(|(_, put)| put).collect()
    }

    /// True where the layer was not there. A blob that is there under its name, with other bytes, is replaced.
    fn put_layer(&self, layer: &Layer) -> Result<bool> {
        let Descriptor { digest, size, .. } = layer.descriptor;
        let target = self.blob(&digest);
        let io = |act| {
            let path = target.clone();
            move |source| StoreError::Io { act, path, source }
        };
        if self.proven.holds(&target, &digest, size).map_err(io("read"))? {
            return Ok(false);
        }
        if fs::symlink_metadata(&target).is_ok() {
            tracing::warn!(blob = %digest, "a blob of the layout is not what its name says, and is replaced");
        }
        if !self.link(layer, &target) {
            let out = self.temporary()?;
            let unreadable = |source| StoreError::Unreadable { wanted: digest, source };
            let reader = layer.source.open().map_err(unreadable)?;
            let (file, found, length) = incoming::copy(reader, size, out).map_err(|broken| match broken {
                Broken::Read(error) => unreadable(error),
                Broken::Write(error) => io("write")(error),
            })?;
            if found != digest {
                return Err(StoreError::WrongBytes { wanted: digest, found });
            }
            if length != size {
                let why = format!("the layer has {length} bytes, and the manifest says {size}");
                return Err(malformed(&target, &why));
            }
            Self::persist(file, &target)?;
        }
        self.proven.note(&target, &digest).map_err(io("read"))?;
        Ok(true)
    }

    /// A second name for the cache's file costs nothing; blobs are never written to. False where it must be copied.
    fn link(&self, layer: &Layer, target: &Path) -> bool {
        let folder = self.root.join("blobs/sha256");
        let linked = tempfile::Builder::new().prefix(TEMPORARY).make_in(&folder, |path| {
            if layer.source.link_to(path)? { Ok(()) } else { Err(io::ErrorKind::Unsupported.into()) }
        });
        // Where another run was faster, both are names of one file, and renaming does nothing: dropping takes ours away.
        linked.is_ok_and(|linked| fs::rename(linked.path(), target).is_ok())
    }

    /// True where the blob was not there.
    fn put_bytes(&self, bytes: &[u8]) -> Result<bool> {
        let digest = Digest::of(bytes);
        let target = self.blob(&digest);
        let failed = |act| {
            let path = target.clone();
            move |source| StoreError::Io { act, path, source }
        };
        if self.proven.holds(&target, &digest, bytes.len() as u64).map_err(failed("read"))? {
            return Ok(false);
        }
        let mut file = self.temporary()?;
        file.write_all(bytes).map_err(failed("write"))?;
        Self::persist(file, &target)?;
        Ok(true)
    }

    /// Puts the name into the index.
    fn publish(&self, name: &str, manifest: &Descriptor) -> Result<()> {
        let path = self.root.join("index.json");
        let entry = serde_json::to_value(manifest).map_err(|error| malformed(&path, &error.to_string()))?;
        let named = |value: &Value| {
            value.get("annotations").and_then(|all| all.get(ANNOTATION_REF_NAME)).and_then(Value::as_str)
                == Some(name)
        };
        self.edit_index(|manifests| match manifests.iter_mut().find(|value| named(value)) {
            Some(old) => *old = entry,
            None => manifests.push(entry),
        })
    }

    /// Changes the index's `manifests`, under the folder's lock.
    pub(super) fn edit_index(&self, edit: impl FnOnce(&mut Vec<Value>)) -> Result<()> {
        let _lock = self.lock()?;
        let mut index = self.index()?;
        let path = self.root.join("index.json");
        let manifests = index.get_mut("manifests").and_then(Value::as_array_mut);
        edit(manifests.ok_or_else(|| malformed(&path, "`manifests` is no list"))?);
        let bytes = serde_json::to_vec(&index).map_err(|error| malformed(&path, &error.to_string()))?;
        self.replace(&path, &bytes)
    }

    pub(super) fn index(&self) -> Result<Value> {
        let path = self.root.join("index.json");
        let most = limits::DOCUMENT.value();
        match read_regular(&path, most.saturating_add(1)) {
            Ok(bytes) if bytes.len() as u64 > most => Err(too_much(&path, Beyond(&limits::DOCUMENT))),
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| malformed(&path, &error.to_string())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(json!({ "schemaVersion": 2, "mediaType": MediaType::ImageIndex, "manifests": [] }))
            }
            Err(source) => Err(StoreError::Io { act: "read", path, source }),
        }
    }

    /// Held until it is dropped. The folder itself is locked: no file is left behind.
    pub(super) fn lock(&self) -> Result<File> {
        let failed = |source| StoreError::Io { act: "lock", path: self.root.clone(), source };
        let folder = File::open(&self.root).map_err(failed)?;
        flock(&folder, FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
        Ok(folder)
    }

    fn temporary(&self) -> Result<NamedTempFile> {
        let folder = self.root.join("blobs/sha256");
        tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(&folder).map_err(|source| StoreError::Io {
            act: "write in",
            path: folder,
            source,
        })
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let mut file = self.temporary()?;
        let failed = |source| StoreError::Io { act: "write", path: path.to_owned(), source };
        file.write_all(bytes).map_err(failed)?;
        file.as_file().sync_all().map_err(failed)?;
        Self::persist(file, path)
    }

    /// Gives a finished file its name.
    fn persist(file: NamedTempFile, path: &Path) -> Result<()> {
        let failed = |source| StoreError::Io { act: "write", path: path.to_owned(), source };
        file.as_file().set_permissions(fs::Permissions::from_mode(0o644)).map_err(failed)?;
        file.persist(path).map_err(|error| failed(error.error))?;
        Ok(())
    }
}

/// A regular file, and so many bytes of it at most.
fn read_regular(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_regular(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn too_much(path: &Path, beyond: Beyond) -> StoreError {
    malformed(path, &format!("{beyond} ({} raises that)", beyond.0.variable))
}

fn malformed(path: &Path, why: &str) -> StoreError {
    StoreError::Malformed { path: path.to_owned(), why: why.to_owned() }
}
