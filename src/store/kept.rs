//! A blob that lies elsewhere, and in the cache from the first time on that it is read: several readers cost one transfer.

use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::incoming::{self, Broken};
use super::{Cache, StoreError};
use crate::oci::{BlobSource, Digest};

/// See [`Cache::keeping`].
pub(super) struct Kept {
    pub cache: Cache,
    pub there: Arc<dyn BlobSource>,
    pub digest: Digest,
    pub size: u64,
    /// Whoever comes second waits. In it: why it could not be read, until that was told.
    pub failed: Mutex<Option<io::Error>>,
}

/// Why a blob is not in the cache.
enum Unkept {
    /// It cannot be read, or has other bytes.
    Unread(io::Error),
    /// The cache does not take it.
    Full(StoreError),
}

impl Kept {
    /// Sees that the cache has the blob; false where it does not take it.
    fn bring(&self) -> io::Result<bool> {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = failed.take() {
            return Err(error);
        }
        if self.cache.holds(&self.digest, self.size) {
            return Ok(true);
        }
        match self.copy() {
            Ok(()) => Ok(true),
            Err(Unkept::Unread(error)) => Err(error),
            Err(Unkept::Full(error)) => {
                tracing::debug!(%error, blob = %self.digest, "the cache does not take it: each reader reads it anew");
                Ok(false)
            }
        }
    }

    fn copy(&self) -> Result<(), Unkept> {
        let _span = tracing::debug_span!("keep", what = self.digest.short()).entered();
        // A cache that takes nothing costs no transfer.
        let draft = self.cache.start().map_err(Unkept::Full)?;
        let reader = self.there.open().map_err(Unkept::Unread)?;
        let full = |source| StoreError::Io { act: "write in", path: self.cache.root().to_owned(), source };
        let (draft, digest, size) =
            incoming::copy(reader, self.size, draft).map_err(|broken| match broken {
                Broken::Read(error) => Unkept::Unread(error),
                Broken::Write(error) => Unkept::Full(full(error)),
            })?;
        if (digest, size) != (self.digest, self.size) {
            let why = format!("{} has other bytes, {digest}", self.digest);
            return Err(Unkept::Unread(io::Error::new(io::ErrorKind::InvalidData, why)));
        }
        self.cache.keep_as_it_came(draft, digest, size).map_err(Unkept::Full)
    }
}

impl BlobSource for Kept {
    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        if self.bring()? { self.cache.source(self.digest, self.size).open() } else { self.there.open() }
    }

    fn link_to(&self, target: &Path) -> io::Result<bool> {
        match self.bring() {
            Ok(true) => self.cache.source(self.digest, self.size).link_to(target),
            Ok(false) => self.there.link_to(target),
            Err(error) => {
                // Whoever cannot link reads, and is told then.
                *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                Ok(false)
            }
        }
    }

    fn registry(&self) -> Option<(&str, &str)> {
        self.there.registry()
    }

    fn unpacked(&self) -> Option<u64> {
        let is_here = self.cache.holds(&self.digest, self.size);
        is_here.then(|| self.cache.source(self.digest, self.size).unpacked()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Bytes, or none, and how often they were asked for.
    struct Asked(Option<&'static [u8]>, AtomicUsize);

    impl BlobSource for Asked {
        fn open(&self) -> io::Result<Box<dyn Read + Send>> {
            self.1.fetch_add(1, Ordering::Relaxed);
            let bytes = self.0.ok_or_else(|| io::Error::other("gone"))?;
            // The others come meanwhile.
            std::thread::yield_now();
            Ok(Box::new(bytes))
        }
    }

    fn asked(bytes: Option<&'static [u8]>) -> Arc<Asked> {
        Arc::new(Asked(bytes, AtomicUsize::new(0)))
    }

    fn read(source: &dyn BlobSource) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        source.open()?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    #[test]
    fn blob_is_read_once_whoever_reads_it_and_kept_where_it_is_the_one() {
        let folder = tempfile::tempdir().unwrap();
        let (digest, there) = (Digest::of("layer"), asked(Some(b"layer")));
        let kept = Cache::at(folder.path()).keeping(there.clone(), digest, 5);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| assert_eq!(read(kept.as_ref()).unwrap(), b"layer"));
            }
        });
        assert!(kept.link_to(&folder.path().join("link")).unwrap());
        assert_eq!(there.1.load(Ordering::Relaxed), 1);
        // What it leads to stays while its note does.
        let note = std::fs::read_dir(folder.path().join("notes")).unwrap().next().unwrap().unwrap();
        assert!(std::fs::read_to_string(note.path()).unwrap().contains(&digest.to_string()));

        for (bytes, size) in [(Some(&b"other"[..]), 5), (Some(b"layers"), 5), (Some(b"laye"), 5), (None, 5)] {
            let (folder, there) = (tempfile::tempdir().unwrap(), asked(bytes));
            let cache = Cache::at(folder.path());
            let kept = cache.keeping(there.clone(), digest, size);
            assert!(!kept.link_to(&folder.path().join("link")).unwrap());
            assert!(read(kept.as_ref()).is_err());
            assert_eq!(there.1.load(Ordering::Relaxed), 1, "what failed is told, not tried again");
            assert!(!cache.holds(&digest, size));
        }
    }

    #[test]
    fn cache_that_takes_nothing_keeps_nobody_from_reading() {
        let there = asked(Some(b"layer"));
        let kept = Cache::at("/dev/null/cache").keeping(there.clone(), Digest::of("layer"), 5);
        assert_eq!(
            (read(kept.as_ref()).unwrap(), read(kept.as_ref()).unwrap()),
            (b"layer".into(), b"layer".into())
        );
        assert!(!kept.link_to(Path::new("/nowhere")).unwrap());
        assert_eq!(there.1.load(Ordering::Relaxed), 2, "for the readers alone");
    }
}
