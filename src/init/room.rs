//! Whether the volume has room: without any, services die of it one after the other, and none of them says why.

use std::fs;
use std::io::{self, Write};

use nix::errno::Errno;
use nix::sys::statvfs::statvfs;

use super::failure::{Code, Failure};
use super::paths::Paths;

/// What a start writes at least: the stamp, the services' first log lines.
const NEEDED: usize = 64 << 10;

/// Writes and removes a small file; exit code 78 where the volume takes none.
pub fn prove(paths: &Paths) -> Result<(), Failure> {
    let place = paths.data();
    let trial = place.join(".tars-init-room");
    let written = || -> io::Result<()> {
        fs::create_dir_all(&place)?;
        let mut file = fs::File::create(&trial)?;
        file.write_all(&vec![0; NEEDED])?;
        file.sync_all()
    };
    let outcome = written();
    let _ = fs::remove_file(&trial);
    outcome.map_err(|error| {
        let what = match errno(&error) {
            Some(Errno::ENOSPC) => "is full: it has no room for 64 KiB".to_owned(),
            Some(Errno::EDQUOT) => "has used up its quota: it takes no 64 KiB more".to_owned(),
            Some(Errno::EROFS) => "is read-only".to_owned(),
            _ => format!("cannot be written to ({error})"),
        };
        Failure::new(
            Code::Configuration,
            format!("the volume at {} {what}. The services cannot run there, and none was started.", place.display()),
            "Make room on the host's disk (old logs lie in app_log and remote_app_log), and start the container again.",
        )
    })
}

/// A sentence where the volume has no room left; services that die just now most likely die of it.
pub fn shortage(paths: &Paths) -> Option<String> {
    let place = paths.data();
    let room = statvfs(&place).ok()?;
    let left = room.blocks_available().saturating_mul(room.fragment_size());
    let place = place.display();
    if left < NEEDED as u64 {
        return Some(format!(
            "the volume at {place} is full, with {left} bytes left: services that must write end of it"
        ));
    }
    // File systems without a limit of files say zero of zero.
    (room.files() > 0 && room.files_available() == 0)
        .then(|| format!("the volume at {place} is full: it takes no file more, and services end of it"))
}

fn errno(error: &io::Error) -> Option<Errno> {
    error.raw_os_error().map(Errno::from_raw)
}
