//! The cache of layers: the digest of what goes in → the blob that came out. What did not change is not compressed again.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tempfile::NamedTempFile;

use super::hold::{Held, hold};
use super::kept::Kept;
use super::proven::open_regular;
use super::unpacked::said;
use super::{Proven, StoreError};
use crate::oci::{BlobSource, Digest};

/// The version of the records; others are made anew.
const VERSION: u32 = 1;
/// A temporary file of this age belongs to a run that was killed.
const ABANDONED: Duration = Duration::from_hours(1);
/// That a document is used is taken down once in so long.
const USED: Duration = Duration::from_hours(1);

/// A folder with `records/<key>.json`, `notes/<key>.json` and `blobs/sha256/<digest>`. All of it may be deleted at any time.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
    proven: Arc<Proven>,
    /// Blobs that have their names, and may not be on the disk yet.
    unsettled: Arc<Mutex<Vec<PathBuf>>>,
    /// Nothing of it is cleared out before this and every source of a blob is dropped.
    held: Arc<Mutex<Option<Held>>>,
}

/// A blob that is being made.
#[derive(Debug)]
pub struct Draft(NamedTempFile);

impl Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// A blob of the cache: nobody but tarsup writes there, so that the store may have the very file.
struct CacheBlob {
    path: PathBuf,
    digest: Digest,
    size: u64,
    proven: Arc<Proven>,
    _held: Option<Held>,
}

impl BlobSource for CacheBlob {
    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(open_regular(&self.path)?))
    }

    fn link_to(&self, target: &Path) -> io::Result<bool> {
        if !self.proven.holds(&self.path, &self.digest, self.size)? {
            return Ok(false);
        }
        fs::hard_link(&self.path, target)?;
        Ok(true)
    }

    fn unpacked(&self) -> Option<u64> {
        said(&self.path).ok().flatten()
    }
}

/// What the cache knows of a layer. `extra` is what the maker wants to remember beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord<E> {
    version: u32,
    /// The digest of the uncompressed tar.
    pub diff_id: Digest,
    /// The digest of the blob.
    pub digest: Digest,
    /// The blob's size in bytes.
    pub size: u64,
    /// The tar's size in bytes.
    pub tar_size: u64,
    /// What the maker remembers.
    pub extra: E,
}

impl<E> LayerRecord<E> {
    /// A record of this version.
    pub fn new(diff_id: Digest, digest: Digest, size: u64, tar_size: u64, extra: E) -> Self {
        Self { version: VERSION, diff_id, digest, size, tar_size, extra }
    }

    /// False for what another release wrote: it is made anew.
    pub(super) fn is_of_this_version(&self) -> bool {
        self.version == VERSION
    }
}

impl Cache {
    /// The cache in this folder; nothing is made yet.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        let proven = Arc::new(Proven::in_folder(&root));
        Self { root, proven, unsettled: Arc::default(), held: Arc::default() }
    }

    /// The bytes of a blob.
    pub fn source(&self, digest: Digest, size: u64) -> Arc<dyn BlobSource> {
        let (path, proven) = (self.blob(&digest), Arc::clone(&self.proven));
        Arc::new(CacheBlob { path, digest, size, proven, _held: self.hold() })
    }

    /// A blob that lies elsewhere. The first who reads it brings it here, once its bytes are proven, and everybody reads it here.
    pub fn keeping(&self, there: Arc<dyn BlobSource>, digest: Digest, size: u64) -> Arc<dyn BlobSource> {
        Arc::new(Kept { cache: self.clone(), there, digest, size, failed: Mutex::default() })
    }

    /// The folder.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// True where a blob is there, and its bytes are proven.
    pub fn holds(&self, digest: &Digest, size: u64) -> bool {
        self.proven.holds(&self.blob(digest), digest, size).unwrap_or(false)
    }

    /// Where a blob lies.
    fn blob(&self, digest: &Digest) -> PathBuf {
        self.hold();
        self.root.join("blobs/sha256").join(digest.hex())
    }

    /// What is there stays from the first look on. `gc` waits, and so does this where it is at work.
    fn hold(&self) -> Option<Held> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.is_none() {
            *held = hold(&self.root);
        }
        held.clone()
    }

    /// The record of that key, where the blob is still there and its bytes are what they were. They are read where that
    /// is not known.
    pub fn find_proven<E: DeserializeOwned>(&self, key: &Digest) -> Option<LayerRecord<E>> {
        self.proven(self.find(key)?)
    }

    /// A record that was found before, where the blob is still there and its bytes are what they were.
    pub fn proven<E>(&self, record: LayerRecord<E>) -> Option<LayerRecord<E>> {
        let holds = self.proven.holds(&self.blob(&record.digest), &record.digest, record.size);
        match holds {
            Ok(true) => Some(record),
            Ok(false) => {
                tracing::warn!(blob = %record.digest, "a blob of the cache is not what it was, and is made again");
                None
            }
            Err(_) => None,
        }
    }

    /// Sees that the blobs are on the disk, then writes down which of them are proven.
    ///
    /// All at once, at the end: a disk takes many together in about the time of one. What a loss of power takes before is a
    /// blob that nobody has proven, or a record that cannot be read: both are made again.
    ///
    /// # Errors
    /// The disk does not take them.
    pub fn settle(&self) -> Result<(), StoreError> {
        let mut blobs = std::mem::take(&mut *self.unsettled.lock().unwrap_or_else(PoisonError::into_inner));
        if !blobs.is_empty() {
            blobs.push(self.root.join("blobs/sha256"));
            sync_all(&blobs)?;
        }
        self.proven.remember();
        Ok(())
    }

    /// The record of that key, where a blob of its size is there.
    pub fn find<E: DeserializeOwned>(&self, key: &Digest) -> Option<LayerRecord<E>> {
        let record: LayerRecord<E> = Self::read(&self.record(key))?;
        let whole =
            fs::metadata(self.blob(&record.digest)).is_ok_and(|metadata| metadata.len() == record.size);
        (record.is_of_this_version() && whole).then_some(record)
    }

    /// The gzipped blobs of these contents: diff id → digest and size. Every record is read, as they are found by what goes in
    /// otherwise.
    pub fn blobs_of(&self, diff_ids: &[Digest]) -> BTreeMap<Digest, (Digest, u64)> {
        self.hold();
        let records = fs::read_dir(self.root.join("records")).into_iter().flatten().flatten();
        let mut records: Vec<PathBuf> = records.map(|entry| entry.path()).collect();
        // Whichever has a content first is the one, each time.
        records.sort();
        let mut found = BTreeMap::new();
        for path in records {
            // To look is not to use.
            let Ok((record, _)) = read_json::<LayerRecord<IgnoredAny>>(&path) else { continue };
            let is_wanted = record.is_of_this_version() && diff_ids.contains(&record.diff_id);
            if is_wanted && !found.contains_key(&record.diff_id) && self.holds(&record.digest, record.size) {
                found.insert(record.diff_id, (record.digest, record.size));
            }
        }
        found
    }

    /// A place for a blob that is being made.
    pub fn start(&self) -> Result<Draft, StoreError> {
        self.temporary().map(Draft)
    }

    fn temporary(&self) -> Result<NamedTempFile, StoreError> {
        let folder = self.root.join("tmp");
        let others = ["records", "notes", "blobs/sha256"].map(|below| self.root.join(below));
        for folder in others.iter().chain([&folder]) {
            fs::create_dir_all(folder).map_err(|source| StoreError::Io {
                act: "create",
                path: folder.clone(),
                source,
            })?;
        }
        // Before anything lies in a folder that was just made.
        self.hold();
        sweep(&folder, "");
        NamedTempFile::new_in(&folder).map_err(|source| StoreError::Io {
            act: "write in",
            path: folder,
            source,
        })
    }

    /// Keeps a finished blob under its digest, then its record under the key.
    pub fn keep<E: Serialize>(
        &self,
        key: &Digest,
        blob: Draft,
        record: &LayerRecord<E>,
    ) -> Result<(), StoreError> {
        self.put(blob, &record.digest)?;
        self.keep_record(key, record)
    }

    /// The same of a blob that is there.
    pub fn keep_record<E: Serialize>(&self, key: &Digest, record: &LayerRecord<E>) -> Result<(), StoreError> {
        let path = self.record(key);
        let failed = |source| StoreError::Io { act: "write", path: path.clone(), source };
        let mut file = self.temporary()?;
        write_json(&mut file, record).map_err(failed)?;
        persist(file, &path)
    }

    /// Keeps a blob of which no more is known than that it has this digest. A note leads to it.
    pub(super) fn keep_as_it_came(&self, blob: Draft, digest: Digest, size: u64) -> Result<(), StoreError> {
        self.put(blob, &digest)?;
        let key = Digest::of(format!("tarsup blob as it came 1\n{digest}\n"));
        self.note(&key, &json!({ "layers": [{ "digest": digest, "size": size }] }))
    }

    /// Gives a finished blob its name. It was hashed as it was written.
    fn put(&self, blob: Draft, digest: &Digest) -> Result<(), StoreError> {
        let path = self.blob(digest);
        persist(blob.0, &path)?;
        self.unsettled.lock().unwrap_or_else(PoisonError::into_inner).push(path.clone());
        let _ = self.proven.note(&path, digest);
        Ok(())
    }

    /// What was noted under this key.
    pub fn recall<T: DeserializeOwned>(&self, key: &Digest) -> Option<T> {
        Self::read(&self.noted(key))
    }

    /// A document, which is used from now on: `gc` leaves it for a while.
    fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
        let (value, file) = read_json(path).ok()?;
        let modified = file.metadata().and_then(|metadata| metadata.modified()).ok()?;
        if modified.elapsed().is_ok_and(|age| age > USED) {
            // Another user's, or on a disk that is only read: it goes a little early.
            let _ = file.set_modified(SystemTime::now());
        }
        Some(value)
    }

    /// Notes something that can be found out again. What needs blobs of the cache lists them, with `digest` and `size`, under
    /// `layers`: `gc` leaves those while it leaves the note.
    pub fn note<T: Serialize>(&self, key: &Digest, value: &T) -> Result<(), StoreError> {
        let path = self.noted(key);
        let failed = |source| StoreError::Io { act: "write", path: path.clone(), source };
        let mut file = self.temporary()?;
        write_json(&mut file, value).map_err(failed)?;
        persist(file, &path)
    }

    fn noted(&self, key: &Digest) -> PathBuf {
        self.hold();
        self.root.join("notes").join(format!("{}.json", key.hex()))
    }

    fn record(&self, key: &Digest) -> PathBuf {
        self.hold();
        self.root.join("records").join(format!("{}.json", key.hex()))
    }
}

/// Read whole, which is several times as fast as piece by piece, but where it is long.
fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<(T, File)> {
    const LONG: u64 = 1 << 20;
    let mut file = File::open(path)?;
    if file.metadata()?.len() > LONG {
        return Ok((serde_json::from_reader(BufReader::new(&file))?, file));
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok((serde_json::from_slice(&bytes)?, file))
}

/// Written as it is made: it may be long.
fn write_json<T: Serialize>(file: &mut NamedTempFile, value: &T) -> io::Result<()> {
    let mut out = BufWriter::new(file);
    serde_json::to_writer(&mut out, value)?;
    out.flush()
}

/// Removes what runs that were killed left behind: temporary files of this prefix that nobody writes to any more.
pub(super) fn sweep(folder: &Path, prefix: &str) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let old = |path: &Path| {
        let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
        modified
            .is_ok_and(|modified| SystemTime::now().duration_since(modified).is_ok_and(|age| age > ABANDONED))
    };
    let ours = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(prefix);
    for path in entries.flatten().filter(ours).map(|entry| entry.path()).filter(|path| old(path)) {
        // Somebody else may sweep at the same time.
        let _ = fs::remove_file(path);
    }
}

/// Gives a finished file its name.
fn persist(file: NamedTempFile, path: &Path) -> Result<(), StoreError> {
    let failed = |source| StoreError::Io { act: "write", path: path.to_owned(), source };
    file.as_file().set_permissions(fs::Permissions::from_mode(0o644)).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

/// Sees that these files and folders are on the disk, side by side.
pub(super) fn sync_all(paths: &[PathBuf]) -> Result<(), StoreError> {
    /// So many wait for the disk at once.
    const TOGETHER: usize = 16;
    let sync = |path: &PathBuf| {
        let synced = File::open(path).and_then(|file| file.sync_all());
        synced.map_err(|source| StoreError::Io { act: "write", path: path.clone(), source })
    };
    for some in paths.chunks(TOGETHER) {
        thread::scope(|scope| {
            let waiting: Vec<_> = some.iter().map(|path| scope.spawn(move || sync(path))).collect();
            waiting.into_iter().try_for_each(|one| one.join().unwrap_or_else(|panic| resume_unwind(panic)))
        })?;
    }
    Ok(())
}
