//! What lies beside the project for its tests: upstream's own data, and the real framework, built.

use std::io::Write as _;
use std::path::{Path, PathBuf};

/// A folder of `../shared/tars` (`TARSUP_SHARED` names another place than `../shared`). Where it is not there, the test
/// is skipped: it says so in a line that `tests/all.sh` counts. In CI (`CI` is set) a test that cannot run has failed.
pub fn folder(of: &str, test: &str) -> Option<PathBuf> {
    let shared = std::env::var_os("TARSUP_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let folder = shared.join("tars").join(of);
    if let Ok(found) = folder.canonicalize() {
        return Some(found);
    }
    let why = format!("{} is not there; TARSUP_SHARED names another place", folder.display());
    assert!(std::env::var_os("CI").is_none(), "{test} cannot run: {why}");
    say(&format!("SKIPPED {test}: {why}"));
    None
}

/// A line for `tests/all.sh`: past the capture of the test harness, by itself, and in one piece.
pub fn say(line: &str) {
    let _ = std::io::stderr().write_all(format!("\n{line}\n").as_bytes());
}
