//! `tarsup.t_version`: which version installed or changed this database, when, from which image. `tarsup.t_way_back`: which
//! older ones may still run on it, written before it is changed.
//!
//! Both are history, and say nothing of what is there. A database that has none of it refuses nobody.

use std::cmp::Ordering;

use serde::Serialize;

use super::database::{DatabaseError, Session};
use super::history::{self, RecordTable};
use super::start_log::StartLog;
use crate::tars::version::compared;

/// What stands for the changes until a run has told them: it was begun, and may have been cut off.
const BEGUN: &str = "{\"begun\":true}";

/// Who brings a version.
#[derive(Clone, Copy, Debug)]
pub struct Bringer<'a> {
    /// The framework's version; an image without one is not recorded.
    pub version: Option<&'a str>,
    /// The image, where whoever runs it has said so.
    pub image: Option<&'a str>,
    /// The node; `migrate` has none.
    pub node: Option<&'a str>,
    /// The older versions that may run on what this one leaves.
    pub way_back: &'a [String],
}

/// What is written of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Install,
    Migrate,
    Start,
}

impl Act {
    fn name(self) -> &'static str {
        match self {
            Self::Install => "install",
            Self::Migrate => "migrate",
            Self::Start => "start",
        }
    }
}

/// Refuses a database that a newer version changed, unless somebody has said that this one may run on it.
pub fn judge(session: &mut Session, version: Option<&str>) -> Result<(), DatabaseError> {
    let Some(version) = version else { return Ok(()) };
    match newer_without_a_word(session, version)?.as_slice() {
        [] => Ok(()),
        newer => Err(DatabaseError::Unfit(format!(
            "this is TARS {version}, and {} has changed the database since, which is newer; nobody has said that {version} may \
             still run on it. Run the newer version again, or say it once: `tars-init accept-version` in a container of \
             this image",
            newer.join(", ")
        ))),
    }
}

/// The same for who changes nothing: it is said.
pub fn warn(session: &mut Session, version: Option<&str>, log: &StartLog) -> Result<(), DatabaseError> {
    let Some(version) = version else { return Ok(()) };
    let newer = newer_without_a_word(session, version)?;
    if !newer.is_empty() {
        log.say(format!(
            "warning: the database was changed by {}, which is newer than {version}",
            newer.join(", ")
        ));
    }
    Ok(())
}

fn newer_without_a_word(session: &mut Session, version: &str) -> Result<Vec<String>, DatabaseError> {
    if !history::has(session, "t_version")? {
        return Ok(Vec::new());
    }
    let act = "asking which versions changed the database";
    let changed: Vec<String> = session.rows(
        act,
        "SELECT DISTINCT version FROM tarsup.t_version WHERE changed <> '' ORDER BY 1",
        (),
    )?;
    let mut newer: Vec<String> =
        changed.into_iter().filter(|other| compared(other, version) == Ordering::Greater).collect();
    if !newer.is_empty() && history::has(session, "t_way_back")? {
        let query = "SELECT changed_by FROM tarsup.t_way_back WHERE version = ?";
        let allowed: Vec<String> = session.rows("asking for the ways back", query, (version,))?;
        newer.retain(|other| !allowed.contains(other));
    }
    Ok(newer)
}

/// A version that changed the database.
#[derive(Debug, Serialize)]
pub struct Changed {
    version: String,
    /// Older ones that may run on what it left.
    allows: Vec<String>,
}

/// All of them; none where nothing was recorded.
pub fn all(session: &mut Session) -> Result<Vec<Changed>, DatabaseError> {
    if !history::has(session, "t_version")? {
        return Ok(Vec::new());
    }
    let query = "SELECT DISTINCT version FROM tarsup.t_version WHERE changed <> '' ORDER BY 1";
    let versions: Vec<String> = session.rows("asking which versions changed the database", query, ())?;
    let ways: Vec<(String, String)> = if history::has(session, "t_way_back")? {
        let query = "SELECT changed_by, version FROM tarsup.t_way_back ORDER BY 1, 2";
        session.rows("asking for the ways back", query, ())?
    } else {
        Vec::new()
    };
    let allowed = |by: &str| {
        let of_it = ways.iter().filter(|(changed_by, _)| changed_by == by);
        of_it.map(|(_, version)| version.clone()).collect()
    };
    Ok(versions.into_iter().map(|version| Changed { allows: allowed(&version), version }).collect())
}

/// Writes down which older versions may run on what is about to be changed.
pub fn declare(session: &mut Session, bringer: Bringer<'_>, log: &StartLog) -> Result<(), DatabaseError> {
    let Some(version) = bringer.version else { return Ok(()) };
    for older in bringer.way_back.iter().filter(|older| *older != version) {
        // What is left holds what was changed before as well.
        let mut changed_by = newer_without_a_word(session, older)?;
        if !changed_by.iter().any(|other| other == version) {
            changed_by.push(version.to_owned());
        }
        for other in &changed_by {
            allow(session, older, other, log)?;
        }
    }
    Ok(())
}

fn allow(
    session: &mut Session,
    version: &str,
    changed_by: &str,
    log: &StartLog,
) -> Result<(), DatabaseError> {
    if !history::has(session, "t_way_back")? {
        let definition = "(version VARCHAR(64) NOT NULL, changed_by VARCHAR(64) NOT NULL, written_at DATETIME NOT NULL, \
                          PRIMARY KEY (version, changed_by)) ENGINE=InnoDB DEFAULT CHARSET=utf8 \
                          COMMENT='which version may run on what a newer one changed'";
        if history::make(session, "t_way_back", definition, "ways back", Some(log))? != RecordTable::Made {
            return Ok(());
        }
    }
    session.run_with(
        "recording a way back",
        "INSERT IGNORE INTO tarsup.t_way_back (version, changed_by, written_at) VALUES (?, ?, NOW())",
        (version, changed_by),
    )
}

/// `tars-init accept-version`: this version may run on the database as it is. The newer ones that had changed it.
pub fn accept(session: &mut Session, version: &str, log: &StartLog) -> Result<Vec<String>, DatabaseError> {
    let newer = newer_without_a_word(session, version)?;
    for other in &newer {
        allow(session, version, other, log)?;
    }
    Ok(newer)
}

/// Writes down, before anything is changed, that another version than the last is at work: whoever is cut off from here on may
/// have changed something, and the row says so until [`record`] tells it to its end. True where this call wrote it.
pub fn begin(session: &mut Session, bringer: Bringer<'_>, act: Act) -> Result<bool, DatabaseError> {
    let Some(version) = bringer.version else { return Ok(false) };
    if last(session)?.is_some_and(|last| last.version == version)
        || table(session, None)? != RecordTable::Made
    {
        return Ok(false);
    }
    insert(session, bringer, version, act, BEGUN).map(|()| true)
}

/// Writes down that a version was here: where it changed something, or where it is another one than the last. `has_begun` is
/// what [`begin`] said.
pub fn record(
    session: &mut Session,
    bringer: Bringer<'_>,
    act: Act,
    changed: &str,
    has_begun: bool,
    log: &StartLog,
) -> Result<(), DatabaseError> {
    let Some(version) = bringer.version else { return Ok(()) };
    let last = last(session)?.filter(|last| last.version == version);
    match last {
        // An earlier run, cut off, may have changed what this one did not have to.
        Some(last) if last.changed == BEGUN && (has_begun || !changed.is_empty()) => session.run_with(
            "recording the version",
            "UPDATE tarsup.t_version SET act = ?, at = NOW(), changed = ? WHERE id = ?",
            (act.name(), changed, last.id),
        ),
        Some(_) if changed.is_empty() => Ok(()),
        _ if table(session, Some(log))? != RecordTable::Made => Ok(()),
        _ => insert(session, bringer, version, act, changed),
    }
}

/// What was written last.
struct Last {
    id: u64,
    version: String,
    changed: String,
}

fn last(session: &mut Session) -> Result<Option<Last>, DatabaseError> {
    if !history::has(session, "t_version")? {
        return Ok(None);
    }
    let query = "SELECT id, version, changed FROM tarsup.t_version ORDER BY id DESC LIMIT 1";
    let rows: Vec<(u64, String, String)> = session.rows("asking for the last version", query, ())?;
    Ok(rows.into_iter().next().map(|(id, version, changed)| Last { id, version, changed }))
}

/// The table, made where it is missing.
fn table(session: &mut Session, log: Option<&StartLog>) -> Result<RecordTable, DatabaseError> {
    if history::has(session, "t_version")? {
        return Ok(RecordTable::Made);
    }
    let definition = "(id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, version VARCHAR(64) NOT NULL, act VARCHAR(16) NOT NULL, \
                      image VARCHAR(512) NOT NULL, node VARCHAR(128) NOT NULL, at DATETIME NOT NULL, changed MEDIUMTEXT NOT \
                      NULL) ENGINE=InnoDB DEFAULT CHARSET=utf8 COMMENT='which version was here, and what it changed'";
    history::make(session, "t_version", definition, "versions", log)
}

fn insert(
    session: &mut Session,
    bringer: Bringer<'_>,
    version: &str,
    act: Act,
    changed: &str,
) -> Result<(), DatabaseError> {
    session.run_with(
        "recording the version",
        "INSERT INTO tarsup.t_version (version, act, image, node, at, changed) VALUES (?, ?, ?, ?, NOW(), ?)",
        (version, act.name(), bringer.image.unwrap_or_default(), bringer.node.unwrap_or_default(), changed),
    )
}

/// True where one is older than the other, as far as their numbers tell.
pub fn is_older(one: &str, other: &str) -> bool {
    compared(one, other) == Ordering::Less
}
