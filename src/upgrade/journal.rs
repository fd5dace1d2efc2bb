//! The journal of a deploy: `.tarsup/deploys/<deploy>.jsonl`, one event a line, on disk before the effect it announces.
//!
//! The first line is the header with the format's version. Status and history are folds over the events. A last line
//! that was torn by a crash is not read; nothing but reports depends on the journal.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::DeployId;
use super::record::DeployRecord;
use super::unwind::InFlight;
use crate::diagnose::shown;
use crate::limits;

/// The format that is written; older ones are read.
pub const VERSION: u32 = 1;
/// How many of the newest journals are read for what they tell of times.
const LOOKED_AT: usize = 20;

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalHeader {
    /// The format.
    pub tarsup_journal: u32,
    /// The deploy.
    pub deploy: DeployId,
    /// The deployment.
    pub deployment: String,
    /// The command, in words.
    pub what: String,
    /// `user@host`.
    pub by: String,
    /// When, RFC 3339.
    pub at: String,
}

/// Which way the steps lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// Forward.
    Do,
    /// Back.
    Undo,
    /// After the commit.
    Finish,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the fields are those of the steps, counted from 1")]
pub enum Event {
    /// A plan was made: [`super::Plan::document`].
    Planned { way: Way, plan: Value },
    /// What the way back needs, as it is left on the engine too.
    Recorded { record: Box<DeployRecord> },
    /// A step is about to begin.
    Started { way: Way, step: usize, kind: String, service: Option<String>, container: Option<String> },
    /// It succeeded.
    Succeeded { way: Way, step: usize },
    /// It failed.
    Failed { way: Way, step: usize, error: String },
    /// What a migration is about to change is kept: `lines` of JSON in `file`, beside the journal.
    Saved { file: String, lines: u64, sha256: String },
    /// A container was stopped and serves again, or what is in its place does: how long it gave no answer.
    Silent { service: String, container: String, milliseconds: u64 },
    /// Clients are sent away from these: `App.Server` and node.
    Drained { places: Vec<(String, String)> },
    /// They are sent there again.
    GivenBack { places: Vec<(String, String)> },
    /// The deploy is committed.
    Committed,
    /// The deploy is undone.
    RolledBack,
    /// It can go neither way.
    Stuck { error: String },
    /// Told to stop.
    Interrupted,
    /// Somebody goes on with it.
    Resumed { by: String, forward: bool },
    /// Nothing is left to do.
    Finished,
}

/// A line of a journal after the first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// When, RFC 3339.
    pub at: String,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

/// Where events go.
pub trait Journal: Send {
    /// Appends an event; it is kept when this returns.
    fn append(&mut self, line: &Line) -> io::Result<()>;
}

/// Keeps the events in memory: where no deployment file's folder is at hand.
impl Journal for Vec<Line> {
    fn append(&mut self, line: &Line) -> io::Result<()> {
        self.push(line.clone());
        Ok(())
    }
}

/// A journal on disk.
#[derive(Debug)]
pub struct FileJournal {
    file: File,
}

impl FileJournal {
    /// Opens the journal of a deploy below `state` (`.tarsup`), or begins it.
    pub fn open(state: &Path, header: &JournalHeader) -> io::Result<Self> {
        let folder = state.join("deploys");
        private_folder(&folder)?;
        let path = folder.join(format!("{}.jsonl", header.deploy));
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&path)?;
        if file.metadata()?.len() == 0 {
            write_line(&mut file, header)?;
            // The entry in the folder must survive a crash as well.
            File::open(&folder)?.sync_all()?;
        } else {
            let mut last = [0];
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                file.write_all(b"\n")?;
            }
        }
        Ok(Self { file })
    }
}

impl Journal for FileJournal {
    fn append(&mut self, line: &Line) -> io::Result<()> {
        write_line(&mut self.file, line)
    }
}

fn write_line(file: &mut File, line: &impl Serialize) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    file.write_all(&bytes)?;
    file.sync_data()
}

/// Makes a folder that only its owner reads: journals and logs tell what a deployment is made of.
///
/// Of what is ours, from `.tarsup` down, nothing may be a link or open to the hands of others: what is written there would
/// land elsewhere, or be read and put in by somebody else.
pub fn private_folder(folder: &Path) -> io::Result<()> {
    let of_ours = folder.ancestors().position(|part| part.ends_with(".tarsup"));
    for part in folder.ancestors().take(of_ours.map_or(0, |at| at + 1)) {
        let why = match fs::symlink_metadata(part) {
            Ok(there) if there.is_symlink() => "is a link: remove it",
            Ok(there) if !there.is_dir() => "is no folder: remove it",
            Ok(there) if there.mode() & 0o022 != 0 => "may be written by others: chmod 700 it",
            _ => continue,
        };
        let what = format!("{} {why}", shown(part));
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// How a deploy stands, or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeployState {
    /// It was begun, and nothing says how it ended.
    Open,
    /// It was told to stop.
    Interrupted,
    /// It reached its end.
    Committed,
    /// It was undone.
    RolledBack,
    /// It could go neither way.
    Stuck,
}

impl DeployState {
    /// The word for it, as in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Interrupted => "interrupted",
            Self::Committed => "committed",
            Self::RolledBack => "rolled-back",
            Self::Stuck => "stuck",
        }
    }
}

/// A deploy, as its journal tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// The header.
    #[serde(flatten)]
    pub header: JournalHeader,
    /// How it stands.
    pub state: DeployState,
    /// When its last event was, RFC 3339.
    pub last: String,
    /// The services that it touched.
    pub services: Vec<String>,
    /// Why it failed, where it did.
    pub error: Option<String>,
    /// The files beside the journal in which its migration kept what it was about to change.
    pub saved: Vec<String>,
    /// The backup that it made first: folder and file.
    pub backup: Option<String>,
}

/// The fold over the events of one journal.
pub fn summarise(header: JournalHeader, lines: &[Line]) -> Summary {
    let last = lines.last().map_or_else(|| header.at.clone(), |line| line.at.clone());
    let (services, saved) = (Vec::new(), Vec::new());
    let mut summary =
        Summary { header, state: DeployState::Open, last, services, error: None, saved, backup: None };
    for line in lines {
        match &line.event {
            Event::Started { service: Some(service), .. } if !summary.services.contains(service) => {
                summary.services.push(service.clone());
            }
            Event::Failed { error, .. } | Event::Stuck { error } => {
                summary.error.get_or_insert_with(|| error.clone());
            }
            Event::Saved { file, .. } => summary.saved.push(file.clone()),
            Event::Recorded { record } => {
                let text = |key: &str| record.backup.taken.as_ref()?[key].as_str().map(str::to_owned);
                summary.backup = text("path").or(summary.backup.take());
            }
            _ => {}
        }
        summary.state = match &line.event {
            Event::Committed => DeployState::Committed,
            Event::RolledBack => DeployState::RolledBack,
            Event::Stuck { .. } => DeployState::Stuck,
            Event::Interrupted => DeployState::Interrupted,
            Event::Resumed { .. } => DeployState::Open,
            _ => summary.state,
        };
    }
    summary
}

/// The record of the deploy as it was written down last.
pub fn recorded(lines: &[Line]) -> Option<&DeployRecord> {
    lines.iter().rev().find_map(|line| match &line.event {
        Event::Recorded { record } => Some(record.as_ref()),
        _ => None,
    })
}

/// The step that was begun last, if nothing says that it succeeded: its effect may still be under way.
pub fn in_flight(lines: &[Line]) -> InFlight {
    let mut last = InFlight::Nothing;
    for line in lines {
        match &line.event {
            Event::Started { kind, service, container: Some(container), .. } => {
                let (kind, container, service) = (kind.clone(), container.clone(), service.clone());
                last = InFlight::Step { kind, container, service };
            }
            Event::Started { container: None, .. } | Event::Succeeded { .. } => last = InFlight::Nothing,
            _ => {}
        }
    }
    last
}

/// The journal of `deploy` below `state` (`.tarsup`), or the newest one of the deployment; `None` where there is none.
pub fn find(
    state: &Path,
    deployment: &str,
    deploy: Option<&DeployId>,
) -> io::Result<Option<(JournalHeader, Vec<Line>)>> {
    if let Some(deploy) = deploy {
        return match read(&state.join("deploys").join(format!("{deploy}.jsonl"))) {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        };
    }
    for path in paths(state)?.into_iter().rev() {
        let found = read(&path)?;
        if found.0.deployment == deployment {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// How long each service of the deployment gave no answer when it was stopped last; of a journal that cannot be read nothing is
/// known.
pub fn silences(state: &Path, deployment: &str) -> BTreeMap<String, Duration> {
    let mut silences = BTreeMap::new();
    let paths = paths(state).unwrap_or_default();
    let last = paths.len().saturating_sub(LOOKED_AT);
    for (header, lines) in paths[last..].iter().filter_map(|path| read(path).ok()) {
        let lines = lines.iter().filter(|_| header.deployment == deployment);
        silences.extend(lines.filter_map(|line| match &line.event {
            Event::Silent { service, milliseconds, .. } => {
                Some((service.clone(), Duration::from_millis(*milliseconds)))
            }
            _ => None,
        }));
    }
    silences
}

/// The newest journal below `state`; `None` where there is none.
pub fn newest(state: &Path) -> io::Result<Option<PathBuf>> {
    Ok(paths(state)?.pop())
}

/// The journals below `state`, the oldest first.
fn paths(state: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(state.join("deploys")) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut paths: Vec<PathBuf> =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    paths.sort();
    Ok(paths)
}

/// Reads one journal. A line that cannot be read ends it: a crash tore it.
pub fn read(path: &Path) -> io::Result<(JournalHeader, Vec<Line>)> {
    let text = limits::read_text(path, &limits::RECORD)?;
    let mut lines = text.lines();
    let header: JournalHeader = serde_json::from_str(lines.next().unwrap_or_default())?;
    if header.tarsup_journal > VERSION {
        let version = header.tarsup_journal;
        return Err(io::Error::other(format!("its format is {version}, this tarsup reads up to {VERSION}")));
    }
    Ok((header, lines.filter_map(|line| serde_json::from_str(line).ok()).collect()))
}

/// The deploys below `state` (`.tarsup`), the oldest first; those whose journal cannot be read come with the error.
pub fn history(state: &Path) -> io::Result<Vec<Result<Summary, (PathBuf, io::Error)>>> {
    Ok(paths(state)?
        .into_iter()
        .map(|path| match read(&path) {
            Ok((header, lines)) => Ok(summarise(header, &lines)),
            Err(error) => Err((path, error)),
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> JournalHeader {
        JournalHeader {
            tarsup_journal: VERSION,
            deploy: "20260102T030405Z-00ff".parse().unwrap(),
            deployment: "tars".to_owned(),
            what: "upgrade --to 3.0.17".to_owned(),
            by: "ann@host".to_owned(),
            at: "2026-01-02T03:04:05Z".to_owned(),
        }
    }

    fn line(event: Event) -> Line {
        Line { at: "2026-01-02T03:04:06Z".to_owned(), event }
    }

    fn started(step: usize) -> Event {
        let service = Some("slave".to_owned());
        Event::Started { way: Way::Do, step, kind: "stop".to_owned(), service, container: None }
    }

    #[test]
    fn folder_of_ours_that_is_a_link_or_open_to_others_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (state, elsewhere) = (folder.path().join(".tarsup"), folder.path().join("elsewhere"));
        fs::create_dir(&elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &state).unwrap();
        let refused = |part: &str| private_folder(&state.join(part)).unwrap_err().to_string();
        assert!(refused("deploys").ends_with(".tarsup is a link: remove it"), "{}", refused("deploys"));
        assert!(fs::read_dir(&elsewhere).unwrap().next().is_none());
        fs::remove_file(&state).unwrap();
        private_folder(&state.join("deploys")).unwrap();
        fs::set_permissions(&state, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        assert!(refused("logs").ends_with("may be written by others: chmod 700 it"));
        // A folder that the operator names is the operator's.
        private_folder(&elsewhere.join("backups")).unwrap();
    }

    #[test]
    fn journal_with_a_torn_last_line_is_read_and_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = FileJournal::open(folder.path(), &header()).unwrap();
        journal.append(&line(started(1))).unwrap();
        let path = folder.path().join("deploys/20260102T030405Z-00ff.jsonl");
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"at\":\"20").unwrap();
        assert_eq!(read(&path).unwrap().1, [line(started(1))]);

        let mut journal = FileJournal::open(folder.path(), &header()).unwrap();
        journal.append(&line(Event::RolledBack)).unwrap();
        let history = history(folder.path()).unwrap();
        let summary = history[0].as_ref().unwrap();
        assert_eq!(
            (summary.state, summary.services.as_slice()),
            (DeployState::RolledBack, &["slave".to_owned()][..])
        );
    }

    #[test]
    fn journal_of_format_1_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("deploys")).unwrap();
        let text = concat!(
            "{\"tarsup_journal\":1,\"deploy\":\"20260102T030405Z-00ff\",\"deployment\":\"tars\",",
            "\"what\":\"up\",\"by\":\"ann@host\",\"at\":\"2026-01-02T03:04:05Z\"}\n",
            "{\"at\":\"2026-01-02T03:04:06Z\",\"event\":\"started\",\"way\":\"do\",\"step\":1,\"kind\":\"stop\",",
            "\"service\":\"slave\",\"container\":\"tars-slave\"}\n",
            "{\"at\":\"2026-01-02T03:04:07Z\",\"event\":\"failed\",\"way\":\"do\",\"step\":1,\"error\":\"gone\"}\n",
            "{\"at\":\"2026-01-02T03:04:08Z\",\"event\":\"stuck\",\"error\":\"gone too\"}\n",
        );
        fs::write(folder.path().join("deploys/a.jsonl"), text).unwrap();
        let history = history(folder.path()).unwrap();
        let summary = history[0].as_ref().unwrap();
        assert_eq!(summary.state, DeployState::Stuck);
        assert_eq!(summary.error.as_deref(), Some("gone"));
    }

    #[test]
    fn journal_is_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join(".tarsup");
        FileJournal::open(&state, &header()).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&state), 0o700);
        assert_eq!(mode(&state.join("deploys/20260102T030405Z-00ff.jsonl")), 0o600);
    }
}
