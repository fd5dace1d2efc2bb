//! `tarsup.t_drain`: who has taken which server out of what registries hand out. Two hosts that roll at once see each other's.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::init::database::{DatabaseError, Session};
use crate::init::history::{self, RecordTable};
use crate::init::start_log::StartLog;

const TABLE: &str = "t_drain";

/// A drain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Drain {
    /// Such as `Demo.HelloServer`.
    pub server: String,
    /// The node.
    pub node: String,
    /// Whose deployment it is, and on which host.
    pub deployment: String,
    /// The host that the deployment is rolled from.
    pub host: String,
    /// Since when, by the database's clock.
    pub since: String,
}

/// Makes the table; part of a migration, never of a drain.
pub fn make(session: &mut Session, log: &StartLog) -> Result<RecordTable, DatabaseError> {
    let definition = "(server VARCHAR(200) NOT NULL, node_name VARCHAR(128) NOT NULL, deployment VARCHAR(128) NOT NULL, \
                      host VARCHAR(128) NOT NULL, since DATETIME NOT NULL, PRIMARY KEY (server, node_name)) \
                      ENGINE=InnoDB DEFAULT CHARSET=utf8 COMMENT='what a rollout has taken out of what registries hand out'";
    if is_made(session)? {
        return Ok(RecordTable::Made);
    }
    history::make(session, TABLE, definition, "drains", Some(log))
}

/// True where a drain can be recorded.
pub fn is_made(session: &mut Session) -> Result<bool, DatabaseError> {
    history::has(session, TABLE)
}

/// All drains, whoever began them.
pub fn all(session: &mut Session) -> Result<Vec<Drain>, DatabaseError> {
    if !is_made(session)? {
        return Ok(Vec::new());
    }
    let query =
        "SELECT server, node_name, deployment, host, CAST(since AS CHAR) FROM tarsup.t_drain ORDER BY 1, 2";
    let rows: Vec<(String, String, String, String, String)> =
        session.rows("asking what is drained", query, ())?;
    let drain = |(server, node, deployment, host, since)| Drain { server, node, deployment, host, since };
    Ok(rows.into_iter().map(drain).collect())
}

/// Server and node of each.
pub fn places(drains: &[Drain]) -> BTreeSet<(String, String)> {
    drains.iter().map(|drain| (drain.server.clone(), drain.node.clone())).collect()
}

/// Writes one down.
pub fn write(
    session: &mut Session,
    server: &str,
    node: &str,
    deployment: &str,
    host: &str,
) -> Result<(), DatabaseError> {
    session.run_with(
        "recording a drain",
        "INSERT INTO tarsup.t_drain (server, node_name, deployment, host, since) VALUES (?, ?, ?, ?, NOW())",
        (server, node, deployment, host),
    )
}

/// Takes one away.
pub fn remove(session: &mut Session, drain: &Drain) -> Result<(), DatabaseError> {
    session.run_with(
        "ending a drain",
        "DELETE FROM tarsup.t_drain WHERE server = ? AND node_name = ?",
        (&drain.server, &drain.node),
    )
}

/// A node's drains go with it to its new name; the caller's transaction holds it.
pub fn readdress(session: &mut Session, old: &str, new: &str) -> Result<(), DatabaseError> {
    if !is_made(session)? {
        return Ok(());
    }
    let act = "moving the drains of the node";
    session.run_with(act, "DELETE FROM tarsup.t_drain WHERE node_name = ?", (new,))?;
    session.run_with(act, "UPDATE tarsup.t_drain SET node_name = ? WHERE node_name = ?", (new, old))
}
