//! Where backups lie on this machine: compressed, for nobody else's eyes, each with its checksum beside it. A file that
//! bears a backup's name is whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use rustix::fs::{FlockOperation, flock, statvfs};
use serde::{Deserialize, Serialize};
use time::format_description::well_known::Rfc3339;

use super::take::Told;
use super::{CONFIGURATION, STATISTICS};
use crate::deploy::Desired;
use crate::limits;
use crate::oci::digest::HashingWriter;
use crate::upgrade::DeployId;
use crate::upgrade::journal::private_folder;
use crate::upgrade::machine::{BackupFile, Machine, Shelved};

/// The format that is written.
pub const VERSION: u32 = 1;
/// How the first line begins: a comment of SQL.
const MARK: &str = "-- tarsup backup: ";
/// How the names of backups end.
const ENDING: &str = ".sql.gz";
/// No first line is longer.
const LONGEST_HEADER: u64 = 64 * 1024;

/// A schema that is saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// Its name.
    pub name: String,
    /// How many tables it has.
    pub tables: u64,
}

/// What the first line says: what the backup is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The format.
    pub version: u32,
    /// The deployment.
    pub deployment: String,
    /// The deploy that it precedes, or a name of its own.
    pub id: DeployId,
    /// When it was begun, RFC 3339.
    pub at: String,
    /// `user@host`.
    pub by: String,
    /// The command, in words.
    pub what: String,
    /// The server's version.
    pub server: String,
    /// What is in it.
    pub schemas: Vec<Saved>,
    /// The schemas of the framework that the policy leaves out.
    pub left_out: Vec<String>,
}

impl Header {
    /// Of a backup that is about to be made.
    pub(super) fn new(
        desired: &Desired,
        machine: Machine<'_>,
        id: &DeployId,
        what: &str,
        told: &Told,
    ) -> Self {
        let left_out = STATISTICS.iter().filter(|_| !desired.policy.backup.statistics);
        Self {
            version: VERSION,
            deployment: desired.deployment.clone(),
            id: id.clone(),
            at: machine.clock.now().format(&Rfc3339).unwrap_or_default(),
            by: machine.owner.who.clone(),
            what: what.to_owned(),
            server: told.server.clone(),
            schemas: told.schemas.clone(),
            left_out: left_out.map(|&name| name.to_owned()).collect(),
        }
    }

    /// The first line.
    pub fn line(&self) -> String {
        format!("{MARK}{}\n", serde_json::to_string(self).unwrap_or_default())
    }

    /// Reads the first line.
    pub fn read(line: &str) -> io::Result<Self> {
        let wrong = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
        let text =
            line.strip_prefix(MARK).ok_or_else(|| wrong("it is no backup that tarsup made".to_owned()))?;
        let value: serde_json::Value = serde_json::from_str(text)?;
        match value["version"].as_u64() {
            Some(version) if version > u64::from(VERSION) => {
                return Err(wrong(format!("a newer tarsup made it (format {version})")));
            }
            _ => {}
        }
        let header: Self = serde_json::from_value(value)?;
        // They become a part of statements.
        let known = |name: &str| CONFIGURATION.contains(&name) || STATISTICS.contains(&name);
        match header.schemas.iter().find(|schema| !known(&schema.name)) {
            Some(schema) => {
                Err(wrong(format!("it holds the schema {:?}, which is none of the framework's", schema.name)))
            }
            None => Ok(header),
        }
    }

    /// The name of its file.
    pub fn file_name(&self) -> String {
        format!("{}-{}{ENDING}", self.deployment, self.id)
    }
}

/// The folder.
#[derive(Clone, Debug)]
pub struct Shelf {
    folder: PathBuf,
    keep: usize,
}

/// A backup that is there.
#[derive(Clone, Debug, Serialize)]
pub struct Kept {
    /// Where.
    pub path: PathBuf,
    /// Its size on disk, in bytes.
    pub bytes: u64,
    /// What the file beside it says.
    pub sha256: String,
    /// What it is of.
    #[serde(flatten)]
    pub header: Header,
}

/// A file that bears a backup's name and cannot be read as one, and why.
pub type Unreadable = (PathBuf, io::Error);

impl Shelf {
    /// That of a deployment, by its policy.
    pub fn of(desired: &Desired, state: &Path) -> Self {
        let policy = &desired.policy.backup;
        let folder =
            policy.to.as_ref().map_or_else(|| state.join("backups"), |to| desired.directory.join(to));
        Self { folder, keep: policy.keep.max(1) }
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// How many bytes there is room for.
    pub fn room(&self) -> io::Result<u64> {
        private_folder(&self.folder)?;
        room(&self.folder)
    }

    /// Begins a backup. What a run that was killed has left of one is removed.
    pub fn begin(&self, header: &Header) -> io::Result<Box<dyn BackupFile>> {
        private_folder(&self.folder)?;
        self.remove_left();
        let name = header.file_name();
        let path = self.folder.join(&name);
        let part = self.folder.join(format!("{name}.part"));
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
        // Held for as long as the file is open: what nobody holds is left behind.
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        let mut file = OnDisk {
            out: Some(GzEncoder::new(HashingWriter::new(file), Compression::default())),
            part,
            path,
        };
        file.write(header.line().as_bytes())?;
        Ok(Box::new(file))
    }

    fn remove_left(&self) {
        for path in self.paths(".part").unwrap_or_default() {
            let Ok(file) = File::open(&path) else { continue };
            if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                let _ = fs::remove_file(&path);
            }
        }
    }

    /// The files whose names end so, sorted.
    fn paths(&self, ending: &str) -> io::Result<Vec<PathBuf>> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut paths = Vec::new();
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.strip_suffix(ending).is_some_and(|name| name.ends_with(ENDING) || ending == ENDING) {
                paths.push(path);
            }
        }
        paths.sort();
        Ok(paths)
    }

    /// The backups of a deployment, the oldest first; beside them what cannot be read, and why.
    pub fn list(&self, deployment: &str) -> io::Result<(Vec<Kept>, Vec<Unreadable>)> {
        let (mut kept, mut unreadable) = (Vec::new(), Vec::new());
        for path in self.paths(ENDING)? {
            match Kept::read(&path) {
                Ok(found) if found.header.deployment == deployment => kept.push(found),
                Ok(_) => {}
                Err(error) => unreadable.push((path, error)),
            }
        }
        kept.sort_by(|a, b| a.header.id.cmp(&b.header.id));
        Ok((kept, unreadable))
    }

    /// Removes the oldest of a deployment beyond the number to keep; their names.
    pub fn retire(&self, deployment: &str) -> io::Result<Vec<String>> {
        let (kept, _) = self.list(deployment)?;
        let mut gone = Vec::new();
        for one in &kept[..kept.len().saturating_sub(self.keep)] {
            fs::remove_file(&one.path)?;
            let _ = fs::remove_file(checksum_path(&one.path));
            gone.push(one.path.file_name().unwrap_or_default().to_string_lossy().into_owned());
        }
        Ok(gone)
    }
}

impl Kept {
    /// Reads the first line of a backup, and the checksum beside it.
    pub fn read(path: &Path) -> io::Result<Self> {
        let (file, sha256) = (File::open(path)?, checksum_of(path)?);
        let bytes = file.metadata()?.len();
        let mut line = String::new();
        BufReader::new(MultiGzDecoder::new(file).take(LONGEST_HEADER)).read_line(&mut line)?;
        Ok(Self { path: path.to_owned(), bytes, sha256, header: Header::read(&line)? })
    }
}

/// What `FILE.sha256` says of `FILE`.
pub(super) fn checksum_of(path: &Path) -> io::Result<String> {
    let beside = checksum_path(path);
    let text = limits::read_text(&beside, &limits::TEXT).map_err(|error| {
        io::Error::new(error.kind(), format!("its checksum {} cannot be read: {error}", beside.display()))
    })?;
    let word = text.split_whitespace().next().unwrap_or_default();
    let is_digest = word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_digest {
        return Ok(word.to_ascii_lowercase());
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, format!("{} holds no checksum", beside.display())))
}

fn checksum_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".sha256");
    PathBuf::from(name)
}

/// A backup that is being written. Dropped before it is whole, nothing of it stays.
struct OnDisk {
    out: Option<GzEncoder<HashingWriter<File>>>,
    part: PathBuf,
    path: PathBuf,
}

impl BackupFile for OnDisk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.out {
            Some(out) => out.write_all(bytes),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn finish(mut self: Box<Self>) -> io::Result<Shelved> {
        let out = self.out.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let (file, digest, bytes) = out.finish()?.finish();
        file.sync_all()?;
        let name = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let checksum = checksum_path(&self.path);
        let written = write_private(&checksum, &format!("{}  {name}\n", digest.hex()))
            .and_then(|()| fs::rename(&self.part, &self.path));
        if let Err(error) = written {
            let _ = fs::remove_file(&checksum);
            return Err(error);
        }
        if let Some(folder) = self.path.parent() {
            File::open(folder)?.sync_all()?;
        }
        Ok(Shelved { path: self.path.clone(), bytes, sha256: digest.hex() })
    }
}

impl Drop for OnDisk {
    fn drop(&mut self) {
        // Where it was finished there is no such file any more.
        let _ = fs::remove_file(&self.part);
    }
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// How many bytes there is room for on the disk of a folder.
pub fn room(folder: &Path) -> io::Result<u64> {
    let found = statvfs(folder)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn header(n: u8, deployment: &str) -> Header {
        Header {
            version: VERSION,
            deployment: deployment.to_owned(),
            id: format!("202601{n:02}T000000Z-0000").parse().unwrap(),
            at: "2026-01-02T03:04:05Z".to_owned(),
            by: "ann@here".to_owned(),
            what: "backup".to_owned(),
            server: "10.11".to_owned(),
            schemas: vec![Saved { name: "db_tars".to_owned(), tables: 2 }],
            left_out: Vec::new(),
        }
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    fn save(shelf: &Shelf, header: &Header) -> Shelved {
        let mut file = shelf.begin(header).unwrap();
        file.write(b"SELECT 1;\n").unwrap();
        file.finish().unwrap()
    }

    #[test]
    fn backup_is_private_there_only_when_whole_and_bears_its_checksum() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = Shelf { folder: folder.path().join("backups"), keep: 2 };
        let mut file = shelf.begin(&header(1, "tars")).unwrap();
        file.write(b"half").unwrap();
        assert_eq!(names(&shelf.folder), ["tars-20260101T000000Z-0000.sql.gz.part"]);
        drop(file);
        assert!(names(&shelf.folder).is_empty(), "what is not whole leaves nothing");
        let shelved = save(&shelf, &header(1, "tars"));
        assert_eq!(
            names(&shelf.folder),
            ["tars-20260101T000000Z-0000.sql.gz", "tars-20260101T000000Z-0000.sql.gz.sha256"]
        );
        for name in names(&shelf.folder) {
            let mode = fs::metadata(shelf.folder.join(&name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        let bytes = fs::read(&shelved.path).unwrap();
        assert_eq!(crate::oci::Digest::of(&bytes).hex(), shelved.sha256);
        assert_eq!(checksum_of(&shelved.path).unwrap(), shelved.sha256);
        let mut text = String::new();
        MultiGzDecoder::new(bytes.as_slice()).read_to_string(&mut text).unwrap();
        assert_eq!(text, format!("{}SELECT 1;\n", header(1, "tars").line()));
    }

    #[test]
    fn oldest_go_and_another_deployments_stay() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = Shelf { folder: folder.path().to_owned(), keep: 2 };
        save(&shelf, &header(1, "other"));
        for n in [3, 1, 2] {
            save(&shelf, &header(n, "tars"));
        }
        fs::write(folder.path().join("mine.sql.gz"), "by hand").unwrap();
        assert_eq!(shelf.retire("tars").unwrap(), ["tars-20260101T000000Z-0000.sql.gz"]);
        let (kept, unreadable) = shelf.list("tars").unwrap();
        let days: Vec<&str> = kept.iter().map(|kept| &kept.header.id.as_str()[6..8]).collect();
        assert_eq!(days, ["02", "03"]);
        assert_eq!((unreadable.len(), shelf.list("other").unwrap().0.len()), (1, 1));
        assert!(folder.path().join("mine.sql.gz").exists());
    }

    #[test]
    fn what_a_killed_run_left_goes_and_what_another_writes_stays() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = Shelf { folder: folder.path().to_owned(), keep: 2 };
        fs::write(folder.path().join("tars-20260101T000000Z-0000.sql.gz.part"), "left").unwrap();
        let _other = shelf.begin(&header(2, "tars")).unwrap();
        save(&shelf, &header(3, "tars"));
        assert_eq!(
            names(folder.path()),
            [
                "tars-20260102T000000Z-0000.sql.gz.part",
                "tars-20260103T000000Z-0000.sql.gz",
                "tars-20260103T000000Z-0000.sql.gz.sha256"
            ]
        );
    }

    #[test]
    fn header_of_a_newer_format_or_of_other_schemas_is_not_read() {
        let good = header(1, "tars").line();
        assert_eq!(Header::read(&good).unwrap(), header(1, "tars"));
        for (line, why) in [
            ("-- MySQL dump 10.19".to_owned(), "no backup that tarsup made"),
            (good.replace("\"version\":1", "\"version\":2"), "newer tarsup"),
            (good.replace("db_tars", "mysql"), "none of the framework's"),
        ] {
            let error = Header::read(&line).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
