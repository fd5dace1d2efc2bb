//! Who uses a store or a cache, and who clears it out: users share a lock on a folder, and `gc` has it alone.
//!
//! The folder itself is locked, so that no file is left behind, and a process that is killed holds nothing any more.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};
use rustix::io::{Errno, retry_on_intr};

use super::StoreError;

/// What is in the folder stays there until every copy is dropped.
#[derive(Clone, Debug)]
pub(super) struct Held {
    _folder: Arc<File>,
}

/// Holds what is in a folder; waits where it is being cleared out. `None` where there is no folder yet, or one that cannot be
/// locked: nobody clears that out either.
pub(super) fn hold(folder: &Path) -> Option<Held> {
    let file = File::open(folder).ok()?;
    retry_on_intr(|| flock(&file, FlockOperation::LockShared)).ok()?;
    Some(Held { _folder: Arc::new(file) })
}

/// Waits until nobody holds what is in a folder, and lets nobody in; `waits` hears of it where it takes longer.
///
/// # Errors
/// The folder cannot be opened or locked.
pub(super) fn alone(folder: &Path, waits: &dyn Fn(&Path)) -> Result<File, StoreError> {
    let failed = |source| StoreError::Io { act: "lock", path: folder.to_owned(), source };
    let file = File::open(folder).map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => {
            waits(folder);
            retry_on_intr(|| flock(&file, FlockOperation::LockExclusive))
        }
        tried => tried,
    }
    .map_err(|error| failed(error.into()))?;
    Ok(file)
}
