//! Puts a backup back: into schemas that hold no table, or over those that somebody has named, while nothing of the
//! framework runs. The file is proven whole before a statement is sent.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use serde_json::json;
use tokio::sync::watch;

use super::inside::{Inside, Source};
use super::shelf::{Header, Kept, Saved, checksum_of};
use super::take::{self, END, is_whole};
use super::{BackupError, Place};
use crate::deploy::observed::LABEL_ROLE;
use crate::deploy::{Desired, Observed};
use crate::diagnose::{Diagnose, Exit};
use crate::engine::{Engine, EngineError};
use crate::oci::digest::HashingReader;
use crate::upgrade::drive::Deploy;
use crate::upgrade::state::{is_up, ours};
use crate::upgrade::{DeployFailure, DeployId};

/// How much is sent at a time.
const PIECE: usize = 64 * 1024;
/// How the line begins with which newer dumps tell the client to run no command of the shell: older clients do not
/// understand it, and these lines are tarsup's own.
const SANDBOX: &str = "/*M!999999\\-";

/// Why a backup is not put back.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// It cannot be read as a backup.
    #[error("{}: {why}", path.display())]
    NoBackup {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// It is not what was written.
    #[error("{}: its bytes are not those of its checksum: it was changed or is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The framework runs on what would be replaced.
    #[error("{} of the deployment run on the database", names.join(", "))]
    Running {
        /// The containers.
        names: Vec<String>,
    },
    /// There is something in its place.
    #[error("{} would be replaced: {} not empty", names.join(", "), if names.len() == 1 { "it is" } else { "they are" })]
    Living {
        /// The schemas that nobody has named.
        names: Vec<String>,
    },
    /// A schema is named that it does not have.
    #[error("{name} is none of its schemas: {}", has.join(", "))]
    NoSchema {
        /// The name.
        name: String,
        /// Those that it has.
        has: Vec<String>,
    },
    /// It was sent, and is not there.
    #[error("after it was sent {schema} has {has} tables, and {wants} are in it")]
    NotThere {
        /// The schema.
        schema: String,
        /// How many tables it has.
        has: u64,
        /// How many are in the backup.
        wants: u64,
    },
    /// The tool, or the way to it.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// Somebody works on the deployment, or the engine failed.
    #[error(transparent)]
    Deploy(#[from] Box<DeployFailure>),
}

impl From<EngineError> for RestoreError {
    fn from(error: EngineError) -> Self {
        Self::Backup(error.into())
    }
}

impl Diagnose for RestoreError {
    fn exit(&self) -> Exit {
        match self {
            Self::NoBackup { .. } | Self::Damaged { .. } | Self::NoSchema { .. } => Exit::Usage,
            Self::Running { .. } | Self::Living { .. } => Exit::Refused,
            Self::NotThere { .. } => Exit::Failed,
            Self::Backup(error) => error.exit(),
            Self::Deploy(error) => error.exit(),
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoBackup { .. } => "`tarsup backup list` shows those that there are".to_owned(),
            Self::Damaged { .. } => "nothing was sent; take another one (`tarsup backup list`)".to_owned(),
            Self::Running { .. } => "stop them first: `tarsup down` leaves the database running".to_owned(),
            Self::Living { names } => format!(
                "what is in there would be lost; a backup of it is `tarsup backup`; then say{}",
                names.iter().fold(String::new(), |text, name| text + " --over " + name)
            ),
            Self::NoSchema { .. } => "name with --over what is in it".to_owned(),
            Self::NotThere { .. } => "something else writes to the database; restore it again".to_owned(),
            Self::Backup(error) => return error.hint(),
            Self::Deploy(error) => return error.hint(),
        })
    }
}

/// A backup that was read to its end.
#[derive(Debug)]
pub struct Opened {
    /// What it is of.
    pub header: Header,
    path: PathBuf,
    file: File,
}

impl Opened {
    /// Opens a backup and proves it: its checksum, its first line and its end.
    pub fn open(path: &Path) -> Result<Self, RestoreError> {
        let unread =
            |error: io::Error| RestoreError::NoBackup { path: path.to_owned(), why: error.to_string() };
        let file = File::open(path).map_err(unread)?;
        let wanted = checksum_of(path).map_err(unread)?;
        let mut hashing = HashingReader::new(&file);
        io::copy(&mut hashing, &mut io::sink()).map_err(unread)?;
        if hashing.finish().0.hex() != wanted {
            return Err(RestoreError::Damaged { path: path.to_owned() });
        }
        let header = Kept::read(path).map_err(unread)?.header;
        let opened = Self { header, path: path.to_owned(), file };
        let mut last = Vec::new();
        let mut source = opened.source().map_err(unread)?;
        while let Some(piece) = source().map_err(unread)? {
            last.extend_from_slice(&piece);
            let before = last.len().saturating_sub(PIECE);
            last.drain(..before);
        }
        drop(source);
        if is_whole(&last) {
            return Ok(opened);
        }
        let why = format!("it has no end: its last line is not {:?}", String::from_utf8_lossy(END));
        Err(RestoreError::NoBackup { path: path.to_owned(), why })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Fails where one of these is none of its schemas.
    pub fn has(&self, names: &[String]) -> Result<(), RestoreError> {
        let has: Vec<String> = self.header.schemas.iter().map(|schema| schema.name.clone()).collect();
        match names.iter().find(|name| !has.contains(name)) {
            Some(name) => Err(RestoreError::NoSchema { name: name.clone(), has }),
            None => Ok(()),
        }
    }

    /// The SQL, piece by piece, from the beginning.
    fn source(&self) -> io::Result<Source<'_>> {
        (&self.file).seek(io::SeekFrom::Start(0))?;
        let mut reader = BufReader::with_capacity(PIECE, MultiGzDecoder::new(&self.file));
        // Its own first line is for people and for tarsup.
        let mut line = Vec::new();
        reader.read_until(b'\n', &mut line)?;
        line.clear();
        reader.read_until(b'\n', &mut line)?;
        let mut first = Some(line).filter(|line| !line.starts_with(SANDBOX.as_bytes()));
        Ok(Box::new(move || {
            if let Some(line) = first.take().filter(|line| !line.is_empty()) {
                return Ok(Some(Bytes::from(line)));
            }
            let mut piece = vec![0; PIECE];
            let read = reader.read(&mut piece)?;
            piece.truncate(read);
            Ok((read > 0).then(|| Bytes::from(piece)))
        }))
    }
}

impl Deploy<'_> {
    /// Puts a backup back, under the lock and in the history. `what` is the command, in words; `over` as in
    /// [`Target::restore`], whose result it has.
    pub async fn restore(
        &self,
        id: &DeployId,
        what: &str,
        opened: &Opened,
        place: &Place,
        over: &[String],
    ) -> Result<Vec<String>, RestoreError> {
        let plan = json!({"kind": "restore", "file": opened.path, "over": over});
        let act = async {
            // Nobody starts anything from now on.
            nothing_runs(self.desired, &self.observe(self.desired).await?)?;
            let stop = self.stop.clone();
            let target = Target { engine: self.engine, desired: self.desired, id, place, stop };
            target.restore(opened, over).await
        };
        self.by_hand(id, what, plan, act).await.map_err(Box::new)?
    }
}

/// Fails where a container of the framework runs.
pub fn nothing_runs(desired: &Desired, observed: &Observed) -> Result<(), RestoreError> {
    let has_role = |role: &str| matches!(role, "master" | "slave" | "node");
    let running = ours(observed, &desired.deployment).filter(|container| {
        is_up(container) && container.labels.get(LABEL_ROLE).is_some_and(|role| has_role(role))
    });
    let names: Vec<String> = running.map(|container| format!("`{}`", container.name)).collect();
    if names.is_empty() { Ok(()) } else { Err(RestoreError::Running { names }) }
}

/// Where a backup is put back.
pub struct Target<'a> {
    /// The engine.
    pub engine: &'a dyn Engine,
    /// The deployment.
    pub desired: &'a Desired,
    /// A name for this run.
    pub id: &'a DeployId,
    /// Where the tools are.
    pub place: &'a Place,
    /// Becomes true when a person or the system says stop.
    pub stop: watch::Receiver<bool>,
}

impl Target<'_> {
    /// Of the schemas of a backup those that hold tables now.
    pub async fn living(&self, header: &Header) -> Result<Vec<Saved>, RestoreError> {
        let inside = self.open().await?;
        let told = self.tables(&inside, header).await;
        let _ = inside.close().await;
        Ok(told?)
    }

    /// Sends a backup. `over` are the schemas that somebody has named: others that hold a table are not touched, and
    /// stop it before anything is sent. The names of schemas that keep tables which it does not hold.
    pub async fn restore(&self, opened: &Opened, over: &[String]) -> Result<Vec<String>, RestoreError> {
        let inside = self.open().await?;
        let sent = self.send(&inside, opened, over).await;
        let _ = inside.close().await;
        sent
    }

    async fn open(&self) -> Result<Inside<'_>, BackupError> {
        Inside::open(self.engine, self.desired, self.id, self.place, self.stop.clone()).await
    }

    async fn tables(&self, inside: &Inside<'_>, header: &Header) -> Result<Vec<Saved>, BackupError> {
        let names: Vec<&str> = header.schemas.iter().map(|schema| schema.name.as_str()).collect();
        Ok(take::told(inside, &names).await?.schemas)
    }

    async fn send(
        &self,
        inside: &Inside<'_>,
        opened: &Opened,
        over: &[String],
    ) -> Result<Vec<String>, RestoreError> {
        let living = self.tables(inside, &opened.header).await?;
        refuse_living(&living, over)?;
        let source = opened.source().map_err(BackupError::Source)?;
        let words = ["restore", "--default-character-set=utf8mb4", "--max-allowed-packet=1G"];
        inside.run(&words, Box::new(|_| Ok(())), Some(source)).await?;
        let now = self.tables(inside, &opened.header).await?;
        let mut more = Vec::new();
        for Saved { name, tables: wants } in &opened.header.schemas {
            let has = now.iter().find(|schema| schema.name == *name).map_or(0, |schema| schema.tables);
            if has < *wants {
                return Err(RestoreError::NotThere { schema: name.clone(), has, wants: *wants });
            }
            if has > *wants {
                more.push(name.clone());
            }
        }
        Ok(more)
    }
}

/// Fails where a schema holds tables that nobody has named.
pub fn refuse_living(living: &[Saved], over: &[String]) -> Result<(), RestoreError> {
    let unnamed = living.iter().filter(|schema| !over.contains(&schema.name));
    let names: Vec<String> = unnamed.map(|schema| schema.name.clone()).collect();
    if names.is_empty() { Ok(()) } else { Err(RestoreError::Living { names }) }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;
    use crate::oci::Digest;

    fn file(folder: &Path, text: &str) -> PathBuf {
        let header = Header {
            version: 1,
            deployment: "tars".to_owned(),
            id: "20260102T030405Z-00ff".parse().unwrap(),
            at: String::new(),
            by: String::new(),
            what: "backup".to_owned(),
            server: "10.11".to_owned(),
            schemas: vec![Saved { name: "db_tars".to_owned(), tables: 1 }],
            left_out: Vec::new(),
        };
        let mut out = GzEncoder::new(Vec::new(), Compression::fast());
        out.write_all(format!("{}{text}", header.line()).as_bytes()).unwrap();
        let (path, bytes) = (folder.join("b.sql.gz"), out.finish().unwrap());
        fs::write(&path, &bytes).unwrap();
        fs::write(folder.join("b.sql.gz.sha256"), format!("{}  b.sql.gz\n", Digest::of(&bytes).hex()))
            .unwrap();
        path
    }

    fn sent(opened: &Opened) -> String {
        let mut source = opened.source().unwrap();
        let mut text = Vec::new();
        while let Some(piece) = source().unwrap() {
            text.extend_from_slice(&piece);
        }
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn statements_are_sent_as_they_are_without_what_older_clients_do_not_understand() {
        let folder = tempfile::tempdir().unwrap();
        let sql =
            format!("-- MariaDB dump\n{}\n-- Dump completed\n", "INSERT INTO t VALUES (1);\n".repeat(9000));
        for (begins, is_left_out) in [("", false), ("/*M!999999\\- enable the sandbox mode */ \n", true)] {
            let path = file(folder.path(), &format!("{begins}{sql}"));
            let opened = Opened::open(&path).unwrap();
            assert_eq!(sent(&opened), sql, "{is_left_out}");
            assert_eq!(sent(&opened), sql, "once more from the beginning");
        }
    }

    #[test]
    fn file_that_is_changed_cut_off_or_without_its_checksum_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(folder.path(), "INSERT INTO t VALUES (1);\n-- Dump completed\n");
        let opened = Opened::open(&path).unwrap();
        opened.has(&["db_tars".to_owned()]).unwrap();
        let error = opened.has(&["db_tras".to_owned()]).unwrap_err();
        assert_eq!(error.to_string(), "db_tras is none of its schemas: db_tars");
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
        let error = Opened::open(&path).unwrap_err();
        assert!(error.to_string().contains("not those of its checksum"), "{error}");
        assert_eq!(error.exit(), Exit::Usage);
        let path = file(folder.path(), "INSERT INTO t VALUES (1);\n");
        assert!(Opened::open(&path).unwrap_err().to_string().contains("it has no end"));
        fs::remove_file(folder.path().join("b.sql.gz.sha256")).unwrap();
        assert!(Opened::open(&path).unwrap_err().to_string().contains("its checksum"));
        assert!(Opened::open(&folder.path().join("none")).is_err());
    }

    #[test]
    fn each_living_schema_must_be_named() {
        let living = ["db_tars", "tarsup"].map(|name| Saved { name: name.to_owned(), tables: 3 });
        let error = refuse_living(&living, &["db_tars".to_owned()]).unwrap_err();
        assert_eq!(error.to_string(), "tarsup would be replaced: it is not empty");
        assert!(error.hint().unwrap().ends_with("--over tarsup"));
        refuse_living(&living, &["db_tars".to_owned(), "tarsup".to_owned()]).unwrap();
        refuse_living(&[], &[]).unwrap();
    }
}
