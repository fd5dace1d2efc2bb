//! Files whose bytes were read and found to be what their digest says: read once for each file as it is.
//!
//! A file is known again by device, inode, size and both its times: `ctime` moves with every change, and nobody can set
//! it. What is remembered is a hint in the cache's folder; without it everything is read again.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use crate::oci::{Digest, HashingReader};

/// The version of the file; another one is forgotten.
const VERSION: u32 = 1;
/// So many files are remembered: an image has fourteen.
const MOST: usize = 20_000;
/// So often a file is read whose bytes are right and whose times move meanwhile.
const TRIES: usize = 8;

/// What was proven, and where it is remembered.
#[derive(Debug, Default)]
pub struct Proven {
    folder: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    loaded: bool,
    files: BTreeMap<String, Seen>,
    /// The keys that are not yet on the disk.
    learned: Vec<String>,
}

/// A file as it was when its bytes had this digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    digest: Digest,
}

#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
    files: BTreeMap<String, Seen>,
}

/// Opens a regular file. A link, a pipe or a device is refused, and none of them is waited for.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path);
    let file = file.map_err(|error| match error.raw_os_error() {
        Some(code) if code == rustix::io::Errno::LOOP.raw_os_error() => irregular("a link"),
        _ => error,
    })?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(irregular("a folder, a pipe or a device")) }
}

/// Fills `end` with the last bytes of a regular file; false where it has fewer.
pub fn ends_with(path: &Path, end: &mut [u8]) -> io::Result<bool> {
    let file = open_regular(path)?;
    let Some(offset) = file.metadata()?.len().checked_sub(end.len() as u64) else { return Ok(false) };
    file.read_exact_at(end, offset)?;
    Ok(true)
}

/// True for what [`open_regular`] says of a link, a folder, a pipe or a device.
pub fn is_other_kind(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidInput
}

fn irregular(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("it is {what}, not a regular file"))
}

impl Proven {
    /// Remembered in this folder.
    pub fn in_folder(folder: impl Into<PathBuf>) -> Self {
        Self { folder: Some(folder.into()), state: Mutex::default() }
    }

    /// True where this is a regular file of exactly these bytes. It is read where that is not known.
    pub fn holds(&self, path: &Path, digest: &Digest, size: u64) -> io::Result<bool> {
        let file = match open_regular(path) {
            Ok(file) => file,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput) => {
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        // A link that somebody else makes meanwhile, another output say, moves its time: it is read once more.
        for _ in 0..TRIES {
            let before = file.metadata()?;
            if before.len() != size {
                return Ok(false);
            }
            let known = self.state().files.get(&key(&before)).cloned();
            if known.is_some_and(|seen| seen == Seen::of(&before, *digest)) {
                return Ok(true);
            }
            (&file).rewind()?;
            let mut reader = HashingReader::new(&file);
            let mut buffer = vec![0; 1024 * 1024];
            while reader.read(&mut buffer)? > 0 {}
            if reader.finish() != (*digest, size) {
                return Ok(false);
            }
            if Seen::of(&file.metadata()?, *digest) == Seen::of(&before, *digest) {
                self.learn(&before, digest);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes down that a file holds these bytes: whoever says so has hashed them on their way into it.
    pub fn note(&self, path: &Path, digest: &Digest) -> io::Result<()> {
        self.learn(&open_regular(path)?.metadata()?, digest);
        Ok(())
    }

    fn learn(&self, metadata: &Metadata, digest: &Digest) {
        let key = key(metadata);
        let mut state = self.state();
        state.files.insert(key.clone(), Seen::of(metadata, *digest));
        state.learned.push(key);
    }

    /// Writes down what was learned. It is a hint: that it cannot be written is no failure.
    pub fn remember(&self) {
        let mut state = self.state();
        let learned = std::mem::take(&mut state.learned);
        let (Some(folder), false) = (&self.folder, learned.is_empty()) else { return };
        // Others may have written meanwhile.
        let mut files = load(&folder.join(FILE));
        let now = SystemTime::now();
        let settled = |seen: &&Seen| seen.is_settled(now);
        for key in learned {
            if let Some(seen) = state.files.get(&key).filter(settled) {
                files.insert(key, seen.clone());
            }
        }
        while files.len() > MOST {
            files.pop_first();
        }
        drop(state);
        if let Err(error) = save(folder, files) {
            tracing::debug!(%error, "what was proven is not remembered");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.loaded {
            state.loaded = true;
            state.files = self.folder.as_ref().map(|folder| load(&folder.join(FILE))).unwrap_or_default();
        }
        state
    }
}

const FILE: &str = "proven.json";

fn load(path: &Path) -> BTreeMap<String, Seen> {
    let document: Option<Document> = fs::read(path).ok().and_then(|text| serde_json::from_slice(&text).ok());
    document.filter(|document| document.version == VERSION).map(|document| document.files).unwrap_or_default()
}

fn save(folder: &Path, files: BTreeMap<String, Seen>) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut file = tempfile::Builder::new().prefix(".proven-").tempfile_in(folder)?;
    file.write_all(&serde_json::to_vec(&Document { version: VERSION, files })?)?;
    file.persist(folder.join(FILE)).map_err(|error| error.error)?;
    Ok(())
}

fn key(metadata: &Metadata) -> String {
    format!("{}:{}", metadata.dev(), metadata.ino())
}

impl Seen {
    fn of(metadata: &Metadata, digest: Digest) -> Self {
        Self {
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            digest,
        }
    }

    /// False for a file that changed a moment ago: within the clock's grain it might change again, and show the same
    /// times. A file system without nanoseconds has a grain of up to two seconds.
    fn is_settled(&self, now: SystemTime) -> bool {
        let (seconds, nanoseconds) = self.changed;
        let grain = if nanoseconds == 0 { Duration::from_secs(3) } else { Duration::from_millis(50) };
        let changed = u64::try_from(seconds).ok().zip(u32::try_from(nanoseconds).ok());
        let changed = changed.map(|(seconds, nanoseconds)| UNIX_EPOCH + Duration::new(seconds, nanoseconds));
        changed.is_some_and(|changed| now.duration_since(changed).is_ok_and(|age| age > grain))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_is_read_once_and_again_when_it_changes_whatever_its_modification_time_says() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("blob");
        fs::write(&path, "genuine").unwrap();
        let (digest, wrong) = (Digest::of("genuine"), Digest::of("another"));
        let proven = Proven::in_folder(folder.path().join("cache"));
        assert!(proven.holds(&path, &digest, 7).unwrap());
        assert!(!proven.holds(&path, &wrong, 7).unwrap() && !proven.holds(&path, &digest, 8).unwrap());
        // What was taken down is believed: nothing is read.
        proven.note(&path, &wrong).unwrap();
        assert!(proven.holds(&path, &wrong, 7).unwrap());

        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        let before = fs::metadata(&path).unwrap();
        while fs::metadata(&path).unwrap().ctime_nsec() == before.ctime_nsec() {
            let mut file = OpenOptions::new().write(true).open(&path).unwrap();
            file.write_all(b"GENUINE").unwrap();
            file.set_modified(modified).unwrap();
        }
        assert!(!proven.holds(&path, &wrong, 7).unwrap(), "size and modification time are those of before");
    }

    #[test]
    fn link_that_is_made_meanwhile_is_no_other_content() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = vec![7; 512 * 1024];
        let digest = Digest::of(&bytes);
        for round in 0..20 {
            let path = folder.path().join(format!("blob-{round}"));
            fs::write(&path, &bytes).unwrap();
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    for number in 0..3 {
                        fs::hard_link(&path, folder.path().join(format!("link-{round}-{number}"))).unwrap();
                        std::thread::sleep(Duration::from_millis(1));
                    }
                });
                assert!(Proven::default().holds(&path, &digest, bytes.len() as u64).unwrap(), "{round}");
            });
        }
    }

    #[test]
    fn what_was_proven_is_remembered_once_the_clock_has_moved_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("blob");
        fs::write(&path, "genuine").unwrap();
        let wrong = Digest::of("another");
        let cache = folder.path().join("cache");
        let remembered = || Proven::in_folder(&cache).holds(&path, &wrong, 7).unwrap();
        let proven = Proven::in_folder(&cache);
        while !remembered() {
            proven.note(&path, &wrong).unwrap();
            proven.remember();
        }
        let seen = Seen::of(&fs::metadata(&path).unwrap(), wrong);
        assert!(seen.is_settled(SystemTime::now()));
        fs::write(cache.join(FILE), "{\"version\": 99, \"files\": {}}").unwrap();
        assert!(!remembered(), "another version is forgotten");
    }

    #[test]
    fn links_pipes_and_devices_hold_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link, pipe) = ("file", "link", "pipe");
        let path = |name: &str| folder.path().join(name);
        fs::write(path(file), "genuine").unwrap();
        std::os::unix::fs::symlink(path(file), path(link)).unwrap();
        let made = std::process::Command::new("mkfifo").arg(path(pipe)).status().unwrap();
        assert!(made.success());
        let digest = Digest::of("genuine");
        let proven = Proven::default();
        assert!(proven.holds(&path(file), &digest, 7).unwrap());
        for name in [link, pipe, "."] {
            assert!(!proven.holds(&path(name), &digest, 7).unwrap(), "{name}");
            assert!(open_regular(&path(name)).is_err(), "{name}");
        }
        assert!(open_regular(Path::new("/dev/zero")).is_err());
    }
}
