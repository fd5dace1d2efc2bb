//! What a migration saved first, on this machine's disk: compressed, beside the journal, for nobody else's eyes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::DeployId;
use super::journal::private_folder;
use super::machine::KeptFile;

/// A file that is written under another name until it is whole.
pub struct KeptOnDisk {
    out: GzEncoder<File>,
    part: PathBuf,
    path: PathBuf,
}

impl KeptOnDisk {
    /// Begins `<deploy>.<what>.jsonl.gz` below `state` (`.tarsup`), with a number where that is there already: what an earlier
    /// run kept is what was there before any of it.
    pub fn begin(state: &Path, deploy: &DeployId, what: &str) -> io::Result<Self> {
        let folder = state.join("deploys");
        private_folder(&folder)?;
        let named = |number: u32| match number {
            1 => folder.join(format!("{deploy}.{what}.jsonl.gz")),
            more => folder.join(format!("{deploy}.{what}.{more}.jsonl.gz")),
        };
        let path = (1..=u32::MAX).map(named).find(|path| !path.exists()).unwrap_or_else(|| named(1));
        let part = path.with_extension("part");
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
        Ok(Self { out: GzEncoder::new(file, Compression::default()), part, path })
    }
}

impl KeptFile for KeptOnDisk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }

    fn finish(self: Box<Self>) -> io::Result<PathBuf> {
        let Self { out, part, path } = *self;
        out.finish()?.sync_all()?;
        fs::rename(&part, &path)?;
        if let Some(folder) = path.parent() {
            File::open(folder)?.sync_all()?;
        }
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn kept(state: &Path, text: &str) -> PathBuf {
        let deploy = "20260102T030405Z-00ff".parse().unwrap();
        let mut file = Box::new(KeptOnDisk::begin(state, &deploy, "saved").unwrap());
        file.write(text.as_bytes()).unwrap();
        assert!(!file.path.exists(), "before it is whole");
        file.finish().unwrap()
    }

    #[test]
    fn what_is_kept_is_compressed_private_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join(".tarsup");
        let (first, second) = (kept(&state, "one\n"), kept(&state, "two\n"));
        assert_eq!(first.file_name().unwrap(), "20260102T030405Z-00ff.saved.jsonl.gz");
        assert_eq!(second.file_name().unwrap(), "20260102T030405Z-00ff.saved.2.jsonl.gz");
        let mut text = String::new();
        flate2::read::GzDecoder::new(File::open(&first).unwrap()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "one\n");
        assert_eq!(fs::metadata(&first).unwrap().permissions().mode() & 0o777, 0o600);
        // What is no journal is not taken for one.
        assert!(super::super::journal::history(&state).unwrap().is_empty());
        assert_eq!(fs::read_dir(state.join("deploys")).unwrap().count(), 2);
    }
}
