//! `tarsup store gc`: takes out of the store what no image of its index reaches, and out of the cache what was not used for long.
//!
//! Whoever builds, reads or writes holds the folder meanwhile ([`super::hold`]), and is waited for. Of the cache, documents go
//! before the blobs that they lead to, so that a kill at any moment leaves blobs that nothing leads to, never the reverse; and a
//! document that leads nowhere is trusted by nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::io::{self, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::cache::{LayerRecord, sync_all};
use super::hold::alone;
use super::layout::TEMPORARY;
use super::proven::open_regular;
use super::{Layout, StoreError};
use crate::oci::Digest;
use crate::oci::image::ANNOTATION_REF_NAME;

type Result<T> = std::result::Result<T, StoreError>;

/// What the cache's temporary files begin with: those of the crate `tempfile`.
const DRAFT: &str = ".tmp";

/// Why something goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// No image of the store's index needs the blob.
    Unreferenced,
    /// Nothing leads to the blob of the cache, or the layer was not used for that long.
    Unused,
    /// A run that was killed left it.
    Abandoned,
}

/// A blob or a temporary file that goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Removed {
    /// Where it lies.
    pub file: PathBuf,
    /// Its bytes; the disk has them back once its last name is gone.
    pub bytes: u64,
    /// Why it goes.
    pub why: Why,
}

/// What went, or would go.
#[derive(Debug, Default)]
pub struct Collected {
    /// Blobs and temporary files, the store's first.
    pub removed: Vec<Removed>,
    /// Records of layers and notes of the cache that went.
    pub documents: u64,
    /// Bytes that the disk has back: a layer that both store and cache have lies there once.
    pub freed: u64,
}

/// What is asked for.
pub struct Asked<'a> {
    /// What of the cache was used within so long stays.
    pub older_than: Duration,
    /// Nothing is removed.
    pub dry_run: bool,
    /// Hears of a folder that others use, before they are waited for.
    pub waits: &'a dyn Fn(&Path),
}

/// Clears out the store and the cache's folder, one after the other.
///
/// # Errors
/// A folder that is not what it should be, or an image of the store whose documents cannot be read: what it needs is not known, and
/// nothing is removed from the store.
pub fn gc(store: &Layout, cache: &Path, asked: &Asked<'_>) -> Result<Collected> {
    let mut sweep = Sweep { asked, names: BTreeMap::new(), collected: Collected::default() };
    sweep.store(store)?;
    sweep.cache(cache)?;
    let freed = sweep.names.values().filter(|file| file.going >= file.links).map(|file| file.bytes).sum();
    Ok(Collected { freed, ..sweep.collected })
}

struct Sweep<'a> {
    asked: &'a Asked<'a>,
    /// Device and inode → the file whose names go.
    names: BTreeMap<(u64, u64), Names>,
    collected: Collected,
}

/// A file with one or more names.
struct Names {
    /// All that it had.
    links: u64,
    /// Those that go.
    going: u64,
    bytes: u64,
}

/// One entry of a folder.
struct Found {
    path: PathBuf,
    name: String,
    metadata: Metadata,
}

impl Sweep<'_> {
    fn store(&mut self, store: &Layout) -> Result<()> {
        store.check()?;
        let blobs = store.root().join("blobs");
        if !blobs.is_dir() {
            return Ok(());
        }
        // Users first, then other writers of the index: in the order in which these take them.
        let _alone = alone(&blobs, self.asked.waits)?;
        let _index = store.lock()?;
        let reached = reached(store)?;
        if !self.asked.dry_run {
            // On the disk before what an older index led to is gone.
            let index = store.root().join("index.json");
            sync_all(&if index.exists() { vec![index, store.root().to_owned()] } else { Vec::new() })?;
        }
        for found in entries(&blobs.join("sha256"))? {
            if found.name.starts_with(TEMPORARY) {
                self.remove(found, Why::Abandoned)?;
            } else if digest(&found.name).is_some_and(|digest| !reached.contains(&digest)) {
                self.remove(found, Why::Unreferenced)?;
            }
        }
        Ok(())
    }

    fn cache(&mut self, root: &Path) -> Result<()> {
        if !root.join("blobs/sha256").is_dir() {
            return Ok(());
        }
        for inside in ["blobs", "blobs/sha256", "records", "notes", "tmp"] {
            own_folder(&root.join(inside))?;
        }
        let _alone = alone(root, self.asked.waits)?;
        let blobs = entries(&root.join("blobs/sha256"))?;
        let sizes: BTreeMap<Digest, u64> =
            blobs.iter().filter_map(|found| Some((digest(&found.name)?, found.metadata.len()))).collect();
        let is_there = |blob: &Blob| sizes.get(&blob.digest) == Some(&blob.size);
        let now = SystemTime::now();
        let is_recent = |found: &Found| {
            // A time that cannot be told, or is still to come, is not long ago.
            let age = found.metadata.modified().ok().and_then(|used| now.duration_since(used).ok());
            age.is_none_or(|age| age < self.asked.older_than)
        };
        let mut reached = BTreeSet::new();
        let mut going = Vec::new();
        for note in documents(&root.join("notes"))? {
            let needs = needs(&note.path);
            if is_recent(&note) && needs.iter().all(is_there) {
                reached.extend(needs.into_iter().map(|blob| blob.digest));
            } else {
                going.push(note);
            }
        }
        let mut seldom = Vec::new();
        for record in documents(&root.join("records"))? {
            match layer(&record.path).filter(is_there) {
                Some(blob) if is_recent(&record) => drop(reached.insert(blob.digest)),
                Some(blob) => seldom.push((record, blob.digest)),
                None => going.push(record),
            }
        }
        // An image that stays keeps its layers, though nobody had to look for each.
        going.extend(
            seldom.into_iter().filter(|(_, digest)| !reached.contains(digest)).map(|(record, _)| record),
        );
        for document in going {
            self.collected.documents += 1;
            self.unlink(&document)?;
        }
        for found in blobs {
            if digest(&found.name).is_some_and(|digest| !reached.contains(&digest)) {
                self.remove(found, Why::Unused)?;
            }
        }
        for found in entries(&root.join("tmp"))?.into_iter().filter(|found| found.name.starts_with(DRAFT)) {
            self.remove(found, Why::Abandoned)?;
        }
        Ok(())
    }

    fn remove(&mut self, found: Found, why: Why) -> Result<()> {
        self.unlink(&found)?;
        self.collected.removed.push(Removed { bytes: found.metadata.len(), file: found.path, why });
        Ok(())
    }

    fn unlink(&mut self, found: &Found) -> Result<()> {
        let file = (found.metadata.dev(), found.metadata.ino());
        let (links, bytes) = (found.metadata.nlink(), found.metadata.len());
        self.names.entry(file).or_insert(Names { links, going: 0, bytes }).going += 1;
        if self.asked.dry_run {
            return Ok(());
        }
        match fs::remove_file(&found.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done.map_err(|source| StoreError::Io { act: "remove", path: found.path.clone(), source }),
        }
    }
}

/// Every blob that an entry of the index leads to. What no descriptor of ours knows (artifacts, signatures) is followed as well:
/// whatever names a digest needs it.
fn reached(store: &Layout) -> Result<BTreeSet<Digest>> {
    let mut reached = BTreeSet::new();
    let index = store.index()?;
    for entry in index.get("manifests").and_then(Value::as_array).into_iter().flatten() {
        let mut unread = named(entry);
        let digest = || unread.first().map(|named| named.digest.to_string());
        let name = entry["annotations"][ANNOTATION_REF_NAME].as_str().map(str::to_owned);
        let image = name.or_else(digest).unwrap_or_default();
        while let Some(named) = unread.pop() {
            if reached.insert(named.digest) && named.is_document {
                let document = store.document(&named.digest);
                let unknown = |source| StoreError::Unknown { image: image.clone(), source: Box::new(source) };
                unread.extend(self::named(&document.map_err(unknown)?));
            }
        }
    }
    Ok(reached)
}

/// What a document names.
struct Named {
    digest: Digest,
    /// True for what may name others: a manifest or an index.
    is_document: bool,
}

fn named(value: &Value) -> Vec<Named> {
    let mut found = Vec::new();
    let mut unread = vec![value];
    while let Some(value) = unread.pop() {
        match value {
            Value::Array(values) => unread.extend(values),
            Value::Object(members) => {
                let text = |key| members.get(key).and_then(Value::as_str);
                if let Some(digest) = text("digest").and_then(|digest| digest.parse().ok()) {
                    let kind = text("mediaType").unwrap_or_default();
                    let is_document = kind.contains("manifest") || kind.contains("index");
                    found.push(Named { digest, is_document });
                }
                unread.extend(members.values());
            }
            _ => {}
        }
    }
    found
}

/// A blob of the cache that a document names.
#[derive(Deserialize)]
struct Blob {
    digest: Digest,
    size: u64,
}

/// What a note needs: it names the blobs under `layers` (see [`super::Cache::note`]).
fn needs(path: &Path) -> Vec<Blob> {
    #[derive(Deserialize)]
    struct Leaning {
        layers: Vec<Blob>,
    }
    read::<Leaning>(path).map(|note| note.layers).unwrap_or_default()
}

fn layer(path: &Path) -> Option<Blob> {
    let record: LayerRecord<IgnoredAny> = read(path)?;
    record.is_of_this_version().then_some(Blob { digest: record.digest, size: record.size })
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> Option<T> {
    serde_json::from_reader(BufReader::new(open_regular(path).ok()?)).ok()
}

/// Those of a cache: `<key>.json`.
fn documents(folder: &Path) -> Result<Vec<Found>> {
    let is_one = |found: &Found| found.name.strip_suffix(".json").is_some_and(|key| digest(key).is_some());
    Ok(entries(folder)?.into_iter().filter(is_one).collect())
}

fn digest(hex: &str) -> Option<Digest> {
    format!("sha256:{hex}").parse().ok()
}

/// What is in a folder, by name, without folders; nothing where it is not there.
fn entries(folder: &Path) -> Result<Vec<Found>> {
    let failed = |source| StoreError::Io { act: "list", path: folder.to_owned(), source };
    let listed = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed.map_err(failed)?,
    };
    let mut found = Vec::new();
    for entry in listed {
        let entry = entry.map_err(failed)?;
        let metadata = match entry.metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            metadata => metadata.map_err(failed)?,
        };
        if !metadata.is_dir() {
            let name = entry.file_name().to_string_lossy().into_owned();
            found.push(Found { path: entry.path(), name, metadata });
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(found)
}

/// A link would lead the removal somewhere else.
fn own_folder(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.is_dir() => Err(StoreError::Malformed {
            path: path.to_owned(),
            why: "it is no folder of the cache's own, and no link is followed".to_owned(),
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread;

    use super::super::Cache;
    use super::*;
    use crate::oci::{Descriptor, Image, Layer, Manifest, MediaType};

    /// Clears all out in a thread of its own; `held` must be waited for, and is dropped then.
    fn waits_for(held: impl Send, store: &Layout, cache: &Path) {
        let (told, hears) = channel();
        thread::scope(|scope| {
            let clearing = scope.spawn(move || {
                let waits = |folder: &Path| told.send(folder.to_owned()).unwrap();
                gc(store, cache, &Asked { older_than: Duration::ZERO, dry_run: false, waits: &waits })
                    .unwrap()
            });
            let Ok(folder) = hears.recv() else { panic!("nobody was waited for") };
            assert!(folder == cache || folder == store.root().join("blobs"), "{}", folder.display());
            drop(held);
            clearing.join().unwrap();
        });
    }

    #[test]
    fn whoever_uses_store_or_cache_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let (store, root) = (Layout::at(folder.path().join("store")), folder.path().join("cache"));
        let cache = Cache::at(&root);
        let digest = Digest::of("blob");
        let keep = |cache: &Cache| {
            let mut draft = cache.start().unwrap();
            io::Write::write_all(&mut draft, b"blob").unwrap();
            cache.keep(&digest, draft, &LayerRecord::new(digest, digest, 4, 4, ())).unwrap();
        };
        keep(&cache);
        let descriptor =
            Descriptor { media_type: MediaType::ImageLayer, digest, size: 4, annotations: BTreeMap::new() };
        let config = format!(
            "{{\"architecture\":\"amd64\",\"os\":\"linux\",\"rootfs\":{{\"type\":\"layers\",\"diff_ids\":[\"{digest}\"]}}}}"
        );
        let source = cache.source(digest, 4);
        let of_config = Descriptor {
            media_type: MediaType::ImageConfig,
            digest: Digest::of(&config),
            size: config.len() as u64,
            annotations: BTreeMap::new(),
        };
        let manifest = Manifest::new(of_config, vec![descriptor.clone()], BTreeMap::new());
        let image = Image {
            manifest: serde_json::to_vec(&manifest).unwrap(),
            config: config.into_bytes(),
            layers: vec![Layer { diff_id: digest, descriptor, source }],
        };
        store.write(&image, "x", &|_| ()).unwrap();
        // A source outlives the cache that it is of.
        drop(cache);
        waits_for(image, &store, &root);
        assert!(entries(&root.join("blobs/sha256")).unwrap().is_empty(), "nobody uses it any more");

        waits_for(store.read(Some("x")).unwrap(), &store, &root);
        assert!(store.blob(&digest).exists(), "an image needs it");
        // One that looks only, and one that begins.
        let cache = Cache::at(&root);
        assert!(cache.find::<()>(&digest).is_none());
        waits_for(cache, &store, &root);
        let cache = Cache::at(&root);
        keep(&cache);
        waits_for(cache, &store, &root);
    }
}
