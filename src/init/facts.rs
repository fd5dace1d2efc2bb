//! What is asked once, before an upgrade: the database's clock beside one's own, who has fallen silent, and which versions may
//! start on what is there. `cluster --json --facts` says it.

use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::statvfs::statvfs;
use serde::Serialize;

use crate::tars::Instance;

use super::database::{DatabaseError, Session};
use super::drain::{self, Drain};
use super::instances;
use super::publishing::{self, Publishing};
use super::versions::{self, Changed};

/// How many services that are down are named.
const DOWN: usize = 100;

/// All of it.
#[derive(Debug, Default, Serialize)]
pub struct Facts {
    /// Nothing where the database could not be asked.
    clock: Option<Clock>,
    /// How many bytes this container could write to its own layer.
    room: Option<u64>,
    /// `t_node_info`
    nodes: Vec<Node>,
    /// Services that are to run and do not.
    down: Vec<Down>,
    /// Nothing where the database could not be asked.
    versions: Option<Vec<Changed>>,
    /// Every server that is deployed anywhere.
    servers: Vec<Instance>,
    /// What is being published right now.
    publishing: Vec<Publishing>,
    /// What a rollout has taken out of what registries hand out, whichever.
    drains: Vec<Drain>,
}

/// Two clocks at one moment, in seconds since 1970.
#[derive(Debug, Serialize)]
struct Clock {
    own: u64,
    database: i64,
    /// The zone of the database's local times: seconds east of Greenwich.
    zone: i64,
}

#[derive(Debug, Serialize)]
struct Node {
    #[serde(rename = "node")]
    name: String,
    /// How many seconds ago it was heard of; nothing where it never was.
    silent: Option<i64>,
    version: String,
}

#[derive(Debug, Serialize)]
struct Down {
    server: String,
    node: String,
}

impl Facts {
    /// What is known without the database.
    pub fn of_this_container() -> Self {
        let room = statvfs("/").ok();
        let room = room.map(|found| found.blocks_available().saturating_mul(found.fragment_size()));
        Self { room, ..Self::default() }
    }

    /// Asks a database that holds TARS for the rest.
    pub fn ask(&mut self, session: &mut Session) -> Result<(), DatabaseError> {
        self.clock = clock(session)?;
        self.nodes = nodes(session)?;
        self.down = down(session)?;
        self.versions = Some(versions::all(session)?);
        self.servers = instances::all(session)?;
        self.drains = drain::all(session)?;
        self.publishing = publishing::all(session)?;
        Ok(())
    }
}

fn clock(session: &mut Session) -> Result<Option<Clock>, DatabaseError> {
    let query = "SELECT UNIX_TIMESTAMP(), TIMESTAMPDIFF(SECOND, UTC_TIMESTAMP(), NOW())";
    let rows: Vec<(i64, i64)> = session.rows("asking for the clock", query, ())?;
    let own = SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_secs()).unwrap_or_default();
    // The difference of two readings of one clock may be a second short.
    let whole = |zone: i64| (zone + 30).div_euclid(60) * 60;
    Ok(rows.into_iter().next().map(|(database, zone)| Clock { own, database, zone: whole(zone) }))
}

/// A time before 1980 is a zero date or a mark of ours: it was never heard of.
fn nodes(session: &mut Session) -> Result<Vec<Node>, DatabaseError> {
    let query = "SELECT node_name, IF(last_heartbeat >= '1980-01-01', TIMESTAMPDIFF(SECOND, last_heartbeat, NOW()), NULL), \
                 tars_version FROM db_tars.t_node_info ORDER BY node_name";
    let rows: Vec<(String, Option<i64>, String)> = session.rows("asking for the nodes", query, ())?;
    Ok(rows.into_iter().map(|(name, silent, version)| Node { name, silent, version }).collect())
}

fn down(session: &mut Session) -> Result<Vec<Down>, DatabaseError> {
    let query = format!(
        "SELECT CONCAT(application, '.', server_name), node_name FROM db_tars.t_server_conf \
         WHERE setting_state = 'active' AND present_state = 'inactive' ORDER BY 1, 2 LIMIT {DOWN}"
    );
    let rows: Vec<(String, String)> = session.rows("asking for what is down", &query, ())?;
    Ok(rows.into_iter().map(|(server, node)| Down { server, node }).collect())
}
