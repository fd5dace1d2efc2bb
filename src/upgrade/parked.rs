//! What containers were that a deploy is about to park, on this machine's disk: `.tarsup/parked/<name>.old.<deploy>.json`, for
//! nobody else's eyes. So a rollback can make them once more where a prune has taken the parked ones.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::journal::private_folder;
use super::machine::KeptTwins;
use crate::deploy::observed::LABEL_DEPLOYMENT;
use crate::deploy::twin::{self, Twin};
use crate::limits;

fn folder(state: &Path) -> PathBuf {
    state.join("parked")
}

fn file(state: &Path, name: &str) -> PathBuf {
    folder(state).join(format!("{name}.json"))
}

/// Keeps a twin below `state` (`.tarsup`), under the name of the parked container. What is there is replaced as a whole.
pub fn keep(state: &Path, name: &str, twin: &Twin) -> io::Result<()> {
    let folder = folder(state);
    private_folder(&folder)?;
    let path = file(state, name);
    let part = path.with_extension("part");
    let written = || {
        let mut out = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
        out.write_all(&serde_json::to_vec(twin)?)?;
        out.sync_all()
    };
    written().inspect_err(|_| drop(fs::remove_file(&part)))?;
    fs::rename(&part, &path)?;
    File::open(&folder)?.sync_all()
}

/// All that is kept of a deployment.
pub fn read(state: &Path, deployment: &str) -> io::Result<KeptTwins> {
    let entries = match fs::read_dir(folder(state)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(KeptTwins::default()),
        Err(error) => return Err(error),
    };
    let (mut twins, mut trouble) = (BTreeMap::new(), Vec::new());
    for entry in entries {
        let path = entry?.path();
        let name = path.file_stem().and_then(|name| name.to_str()).map(str::to_owned);
        let (Some(name), Some("json")) = (name, path.extension().and_then(|end| end.to_str())) else {
            continue;
        };
        match limits::read(&path, &limits::RECORD)
            .map_err(|error| error.to_string())
            .and_then(|bytes| parsed(&bytes))
        {
            Ok(twin) if twin.label(LABEL_DEPLOYMENT) == Some(deployment) => drop(twins.insert(name, twin)),
            Ok(_) => {}
            Err(why) => trouble.push(format!("{}: {why}", path.display())),
        }
    }
    Ok((twins, trouble))
}

fn parsed(bytes: &[u8]) -> Result<Twin, String> {
    // The parser's own words may quote what it read.
    let unreadable = |_| "it is not what tarsup wrote there".to_owned();
    let value: serde_json::Value = serde_json::from_slice(bytes).map_err(unreadable)?;
    match value["version"].as_u64() {
        Some(version) if version > u64::from(twin::VERSION) => {
            Err(format!("a newer tarsup wrote it (format {version})"))
        }
        _ => serde_json::from_value(value).map_err(unreadable),
    }
}

/// Takes it away; one that is not there is no error.
pub fn forget(state: &Path, name: &str) -> io::Result<()> {
    match fs::remove_file(file(state, name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
