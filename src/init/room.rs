//! Whether the volume has room: a full one makes every service fail in a way of its own, and none says why.

use std::fs;
use std::io;

use nix::sys::statvfs::statvfs;

use super::paths::Paths;

/// What a start writes at least: configuration, stamp, a few lines of each program.
const LEAST: usize = 64 << 10;

/// Proves that the volume takes what a start writes. The error is the file system's own.
pub fn prove(paths: &Paths) -> io::Result<()> {
    let probe = paths.data().join(".tars-init-room");
    let written = fs::write(&probe, vec![0; LEAST]);
    let removed = fs::remove_file(&probe);
    written
        .and(removed)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", paths.data().display())))
}

/// A sentence for a person where the volume is as good as full.
pub fn complaint(paths: &Paths) -> Option<String> {
    let found = statvfs(&paths.data()).ok()?;
    let left = found.blocks_available() * found.fragment_size();
    let is_full = left < LEAST as u64 || (found.files() > 0 && found.files_available() == 0);
    is_full.then(|| format!("{} is full ({} KiB left)", paths.data().display(), left >> 10))
}
