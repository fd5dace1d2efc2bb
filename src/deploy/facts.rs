//! What was asked before a plan is made, beyond what the engine's lists tell: clocks, room on disks, what the database says of
//! itself and of the cluster. Only what serves where changes a step: batches and drains follow from it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Deserialize;

use super::services::Services;
use crate::tars::Instance;

/// What is known. Where nobody asked, nothing is.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The clocks of containers, by service: as they themselves tell.
    pub clocks: BTreeMap<String, Clock>,
    /// What the database says; an error in words where it could not be asked, nothing where nobody did.
    pub cluster: Option<Result<ClusterFacts, String>>,
    /// How many bytes there is room for.
    pub room: Room,
    /// How long a service's container gave no answer when it was stopped last, as this machine's journals tell.
    pub silences: BTreeMap<String, Duration>,
    /// The hosts of the registries that a node goes by, by service: of nodes whose environment names none.
    pub registries: BTreeMap<String, Vec<String>>,
    /// The addresses that have a connection to a registry, by service: of those that could tell.
    pub linked: BTreeMap<String, BTreeSet<String>>,
    /// What serves on a node, as itself tells, or why nobody knows; by service. Only where the deployment has no account at the
    /// database: whether others serve it too is not known then.
    pub heard: BTreeMap<String, Result<Vec<Instance>, String>>,
}

/// A clock that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// How many seconds it is ahead of this machine's; 0 where it may be the same time.
    pub ahead: i64,
    /// Its time zone: seconds east of Greenwich.
    pub zone: i64,
}

/// Room on disks; nothing where it is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Where the engine keeps images and containers.
    pub engine: Option<u64>,
    /// `.tarsup/`: journals, and what migrations save.
    pub state: Option<u64>,
    /// The local store, where there is one: its folder, and the room there.
    pub store: Option<(String, u64)>,
}

/// What `tars-init cluster --json --facts` says beyond what a gate asks. Each is missing where its tars-init is older.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ClusterFacts {
    /// The database's clock, beside that of the container in which it was asked.
    #[serde(default)]
    pub clock: Option<DatabaseClock>,
    /// How many bytes that container could write to its own layer: what the engine has room for.
    #[serde(default)]
    pub room: Option<u64>,
    /// The nodes.
    #[serde(default)]
    pub nodes: Vec<Node>,
    /// Services that are to run and do not: `App.Server` and node.
    #[serde(default)]
    pub down: Vec<Down>,
    /// What is deployed on the nodes.
    #[serde(flatten)]
    pub services: Services,
    /// What is being published on the nodes.
    #[serde(default)]
    pub publishing: Vec<Publishing>,
    /// The versions that changed the database, and which older ones may start on what each left.
    #[serde(default)]
    pub versions: Option<Vec<Changed>>,
}

impl ClusterFacts {
    /// What serves where, and nothing else.
    pub fn of(services: Services) -> Self {
        Self { services, ..Self::default() }
    }
}

/// Two clocks at one moment, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct DatabaseClock {
    /// Of the container in which the database was asked.
    pub own: i64,
    /// The database's.
    pub database: i64,
    /// The zone in which it tells local times: seconds east of Greenwich.
    pub zone: i64,
}

/// A node's row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Node {
    /// Its name: its address, or `DOMAIN`.
    pub node: String,
    /// How many seconds ago it was heard of, by the database's clock; nothing where it never was.
    #[serde(default)]
    pub silent: Option<i64>,
    /// The version of its tarsnode, as it says it; empty where it says none.
    #[serde(default)]
    pub version: String,
}

/// A service that is to run on a node, and does not.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Down {
    /// `App.Server`
    pub server: String,
    /// The node's name.
    pub node: String,
}

/// A server that is being published on a node.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Publishing {
    /// `App.Server`
    pub server: String,
    /// The node's name.
    pub node: String,
    /// When it was asked for, by the database's clock.
    #[serde(default)]
    pub since: String,
}

/// A version that changed the database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Changed {
    /// It.
    pub version: String,
    /// Older ones that may start on what it left.
    #[serde(default)]
    pub allows: Vec<String>,
}
