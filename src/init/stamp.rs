//! The stamp in the volume: which database this container was on. A database whose own data is not mounted comes up empty,
//! and an empty one is installed anew: the volume of the framework is then the only thing that remembers.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::database::{DB_TARS, DatabaseError, Session};
use super::failure::{Code, Failure};
use super::paths::Paths;
use super::render;
use super::start_log::StartLog;

/// The format.
const VERSION: u32 = 1;
/// The schemas of which one that is gone cannot be right. The statistics are left out: administrators drop those for
/// their size, and the services make them anew.
const KEPT: [&str; 5] = [DB_TARS, "db_tars_web", "db_user_system", "db_cache_web", "db_base"];

/// What a database was like when this container was prepared last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    version: u32,
    /// The server's own id, where it has one.
    server: Option<String>,
    /// The framework's version.
    framework: Option<String>,
    /// This node's name.
    pub address: String,
    /// The names that it had before.
    #[serde(default)]
    pub former: Vec<String>,
    schemas: Vec<String>,
    nodes: u64,
    servers: u64,
}

fn path(paths: &Paths) -> PathBuf {
    paths.data().join(".tarsup-database.json")
}

impl Stamp {
    /// What the database is like now.
    pub fn of(session: &mut Session, address: &str, framework: Option<&str>) -> Result<Self, DatabaseError> {
        let mut stamp = Self {
            version: VERSION,
            server: server(session)?,
            framework: framework.map(str::to_owned),
            address: address.to_owned(),
            ..Self::default()
        };
        let query = "SELECT DISTINCT table_schema FROM information_schema.tables WHERE table_schema IN (?, ?, ?, ?, ?)";
        let filled: Vec<String> = session.rows("asking which schemas hold tables", query, KEPT.to_vec())?;
        let is_filled = |schema: &&str| filled.iter().any(|name| name == schema);
        stamp.schemas = KEPT.into_iter().filter(is_filled).map(str::to_owned).collect();
        let tables = session.tables(DB_TARS)?;
        for (table, count) in [("t_node_info", &mut stamp.nodes), ("t_server_conf", &mut stamp.servers)] {
            if tables.contains(table) {
                let query = format!("SELECT COUNT(*) FROM {DB_TARS}.{table}");
                *count = session.number(&format!("counting the rows of {table}"), &query, ())?;
            }
        }
        Ok(stamp)
    }

    /// The one that lies in the volume; `None` where there is none, or one that cannot be read.
    pub fn read(paths: &Paths) -> Option<Self> {
        let stamp: Self = serde_json::from_str(&fs::read_to_string(path(paths)).ok()?).ok()?;
        (stamp.version == VERSION).then_some(stamp)
    }

    /// Goes on with the names that this node had.
    pub fn remember(&mut self, names: BTreeSet<String>) {
        self.former = names.into_iter().filter(|name| *name != self.address).collect();
    }

    /// Writes it, where it is another one than before.
    pub fn write(&self, paths: &Paths) -> std::io::Result<()> {
        if Self::read(paths).as_ref() == Some(self) {
            return Ok(());
        }
        render::write(&path(paths), &serde_json::to_string(self).unwrap_or_default())
    }

    /// What is missing now that was there, as a sentence without its full stop; `None` where all is as it may be.
    fn missing_in(&self, now: &Self) -> Option<String> {
        let gone: Vec<&str> =
            self.schemas.iter().filter(|schema| !now.schemas.contains(schema)).map(String::as_str).collect();
        if !gone.is_empty() {
            let verb = if gone.len() == 1 { "is" } else { "are" };
            return Some(format!("{} {verb} gone", gone.join(", ")));
        }
        let was_filled = self.nodes > 0 && self.servers > 0;
        let is_empty = now.nodes == 0 && now.servers == 0;
        (was_filled && is_empty).then(|| "its nodes and services are gone".to_owned())
    }

    fn words(&self) -> String {
        let framework = self.framework.as_deref().unwrap_or("of unknown version");
        format!("TARS {framework} (rows of nodes: {}, of services: {})", self.nodes, self.servers)
    }
}

/// Holds the database to the stamp of the last start. What cannot be right is refused before anything is made; what may
/// be is said.
pub fn judge(session: &mut Session, paths: &Paths, log: &StartLog) -> Result<(), DatabaseError> {
    let Some(then) = Stamp::read(paths) else { return Ok(()) };
    let now = Stamp::of(session, &then.address, None)?;
    if let Some(missing) = then.missing_in(&now) {
        return Err(DatabaseError::Unfit(format!(
            "this volume was on a database that held {}, and now {missing}. Most likely the database's own data is not \
             mounted, or this is another database. Nothing was made. If it is meant to be so, say it once with \
             `tarsup accept-database`, or `tars-init accept-database` in a container with this volume",
            then.words()
        )));
    }
    if let (Some(was), Some(is)) = (&then.server, &now.server)
        && was != is
    {
        log.say(format!("warning: another database server than at the last start (id {is}, was {was})"));
    }
    Ok(())
}

/// The names that this node had before, as the stamp in the volume says.
pub fn former(paths: &Paths) -> Vec<String> {
    Stamp::read(paths).map(|stamp| stamp.former).unwrap_or_default()
}

/// `tars-init accept-database`: the next start takes the database as it finds it.
pub fn accept(paths: &Paths) -> Result<(), Failure> {
    match fs::remove_file(path(paths)) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Failure::new(
            Code::Configuration,
            format!("cannot remove {}: {error}.", path(paths).display()),
            "Run this with the volume mounted at /data/tars.",
        )),
    }
}

/// MySQL calls it a UUID, MariaDB a UID, and older servers have none.
fn server(session: &mut Session) -> Result<Option<String>, DatabaseError> {
    let query = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('server_uuid', 'server_uid')";
    let rows: Vec<(String, String)> = session.rows("asking for the server's id", query, ())?;
    Ok(rows.into_iter().map(|(_, id)| id).find(|id| !id.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(schemas: &[&str], nodes: u64, servers: u64) -> Stamp {
        let schemas = schemas.iter().map(|&schema| schema.to_owned()).collect();
        Stamp { version: VERSION, schemas, nodes, servers, ..Stamp::default() }
    }

    #[test]
    fn only_what_cannot_be_right_is_missing() {
        let then = stamp(&[DB_TARS, "db_base"], 3, 20);
        for (now, missing) in [
            (stamp(&[DB_TARS, "db_base", "db_tars_web"], 1, 1), false),
            (stamp(&[DB_TARS, "db_base"], 0, 5), false),
            (stamp(&[DB_TARS, "db_base"], 0, 0), true),
            (stamp(&[DB_TARS], 3, 20), true),
            (stamp(&[], 0, 0), true),
        ] {
            assert_eq!(then.missing_in(&now).is_some(), missing, "{now:?}");
        }
        assert_eq!(stamp(&[], 0, 0).missing_in(&stamp(&[], 0, 0)), None);
    }
}
