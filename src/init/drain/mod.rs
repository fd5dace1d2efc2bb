//! `tars-init drain`: takes servers out of what registries hand out to clients without stopping them, and gives them back.
//!
//! Upstream's own means: `flow_state` of `t_server_conf`. What is drained is recorded in the same transaction as it is done, so
//! that nothing which an administrator had stopped is ever turned on by us.

mod choice;
mod handed_out;
mod record;

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::tars::registry::Adapter;
use crate::tars::{Instance, PROTOCOL};

use super::database::{DB_TARS, DatabaseError, Server, Session};
use super::environment::Account;
use super::failure::{Code, Failure};
use super::instances;
use super::probe;
use choice::Gap;
use handed_out::Late;
pub use record::{Drain, all, make, readdress};

/// For one answer of the database.
const QUERY: Duration = Duration::from_secs(15);
/// One drain is chosen at a time: two hosts that roll at once must see each other's.
const LOCK: &str = "tarsup.drain";
/// How long another one's choice is waited for, in seconds.
const WAIT: u32 = 10;

/// Which servers are meant.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    /// The deployment.
    deployment: String,
    /// The host that it is rolled from.
    host: String,
    /// The nodes; for `end` none means all that this deployment has drained.
    #[serde(default)]
    nodes: BTreeSet<String>,
    /// Nodes that are stopped meanwhile: nothing on them is in anybody's place.
    #[serde(default)]
    besides: BTreeSet<String>,
    /// The servers; none for all of these nodes.
    #[serde(default)]
    servers: BTreeSet<String>,
}

/// The document of all of them.
#[derive(Debug, Default, Serialize)]
struct Report {
    protocol: u32,
    /// What is drained now by this order.
    drained: Vec<Place>,
    /// What goes silent, and why.
    gaps: Vec<Gap>,
    /// What registries have not taken notice of yet.
    late: Vec<Late>,
    /// What somebody else had given back meanwhile, and is drained once more.
    again: Vec<Place>,
    /// What is drained and has nobody in its place any more: an administrator stopped the other one, or it died.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    alone: Vec<Place>,
    /// What was given back.
    ended: Vec<Place>,
    /// Where what is drained listens.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    listens: Vec<Listening>,
    /// Why nothing can be drained here; else empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    unable: String,
}

/// A server on a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Place {
    server: String,
    node: String,
}

/// A port of a server on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Listening {
    #[serde(flatten)]
    place: Place,
    port: u16,
    /// UDP, not TCP.
    is_udp: bool,
}

impl Place {
    fn of(instance: &Instance) -> Self {
        Self { server: instance.server.clone(), node: instance.node.clone() }
    }
}

/// `drain begin|look|end|back ORDER`; prints a document.
pub fn run(act: &str, order: &str) -> Result<(), Failure> {
    let wrong =
        |why: String| Failure::new(Code::Environment, format!("the order is not understood: {why}."), "");
    let order: Order = serde_json::from_str(order).map_err(|error| wrong(error.to_string()))?;
    let account = Account::read()?
        .ok_or_else(|| Failure::new(Code::Environment, "no account at the database is named.", ""))?;
    let server = Server::of(&account).answering_within(QUERY);
    let mut session = server.connect(None)?;
    let mut report = Report { protocol: PROTOCOL, ..Report::default() };
    match act {
        "begin" => begin(&mut session, &order, &mut report)?,
        "look" => look(&mut session, &order, &mut report)?,
        "end" => end(&mut session, &order, &mut report)?,
        "back" => back(&mut session, &order, &mut report)?,
        other => return Err(wrong(format!("`{other}` is none of begin, look, end, back"))),
    }
    probe::print(&report, true)
}

fn begin(session: &mut Session, order: &Order, report: &mut Report) -> Result<(), DatabaseError> {
    if !instances::have_flows(session)? || !record::is_made(session)? {
        "this database has no drains yet; an upgrade brings them".clone_into(&mut report.unable);
        return Ok(());
    }
    lock(session)?;
    session.run("beginning to drain", "START TRANSACTION")?;
    let drains = record::all(session)?;
    let instances = instances::all(session)?;
    let choice = choice::choose(&instances, &order.nodes, &order.besides, &record::places(&drains));
    for one in choice.drained.iter().map(|at| &instances[*at]) {
        set_flow(session, &one.server, &one.node, "inactive")?;
        record::write(session, &one.server, &one.node, &order.deployment, &order.host)?;
    }
    session.run("draining", "COMMIT")?;
    // What this order had drained before it was cut off still is.
    let own = drains.iter().filter(|drain| order.is_own(drain));
    report.drained =
        own.map(|drain| Place { server: drain.server.clone(), node: drain.node.clone() }).collect();
    report.drained.extend(choice.drained.iter().map(|at| Place::of(&instances[*at])));
    report.gaps = choice.gaps;
    Ok(())
}

/// What registries still hand out, what somebody else has given back, and what has nobody in its place any more.
fn look(session: &mut Session, order: &Order, report: &mut Report) -> Result<(), DatabaseError> {
    let instances = instances::all(session)?;
    // One that crashes is back in a moment, by its tarsnode; what somebody stopped, or whose node is dead, is not.
    let soon: Vec<Instance> = instances.iter().map(|one| Instance { present: true, ..one.clone() }).collect();
    for drain in record::all(session)?.iter().filter(|drain| order.is_own(drain)) {
        let place = Place { server: drain.server.clone(), node: drain.node.clone() };
        let Some(one) = instances.iter().find(|one| one.server == drain.server && one.node == drain.node)
        else {
            continue;
        };
        if one.flow {
            set_flow(session, &drain.server, &drain.node, "inactive")?;
            report.again.push(place.clone());
        }
        if !one.has_another(&soon, &order.nodes) {
            report.alone.push(place.clone());
        }
        let ports = one.adapters.iter().filter_map(Adapter::listens);
        report.listens.extend(ports.map(|listens| Listening {
            place: place.clone(),
            port: listens.port,
            is_udp: listens.is_udp,
        }));
        report.drained.push(place);
    }
    let registries = handed_out::registries(session)?;
    report.late = handed_out::late(&registries, &of(&instances, &report.drained), false);
    Ok(())
}

fn end(session: &mut Session, order: &Order, report: &mut Report) -> Result<(), DatabaseError> {
    if !record::is_made(session)? {
        return Ok(());
    }
    lock(session)?;
    session.run("beginning to end drains", "START TRANSACTION")?;
    for drain in record::all(session)?.iter().filter(|drain| order.is_own(drain)) {
        set_flow(session, &drain.server, &drain.node, "active")?;
        record::remove(session, drain)?;
        report.ended.push(Place { server: drain.server.clone(), node: drain.node.clone() });
    }
    session.run("ending drains", "COMMIT")
}

/// What registries do not hand out again yet.
fn back(session: &mut Session, order: &Order, report: &mut Report) -> Result<(), DatabaseError> {
    let instances = instances::all(session)?;
    let meant = instances.iter().filter(|one| {
        order.nodes.contains(&one.node) && order.servers.contains(&one.server) && one.flow && one.setting
    });
    let places: Vec<Place> = meant.map(Place::of).collect();
    let registries = handed_out::registries(session)?;
    report.late = handed_out::late(&registries, &of(&instances, &places), true);
    Ok(())
}

fn of<'a>(instances: &'a [Instance], places: &[Place]) -> Vec<&'a Instance> {
    instances.iter().filter(|one| places.contains(&Place::of(one))).collect()
}

impl Order {
    fn is_own(&self, drain: &Drain) -> bool {
        drain.deployment == self.deployment
            && drain.host == self.host
            && (self.nodes.is_empty() || self.nodes.contains(&drain.node))
            && (self.servers.is_empty() || self.servers.contains(&drain.server))
    }
}

fn lock(session: &mut Session) -> Result<(), DatabaseError> {
    let rows: Vec<Option<u64>> =
        session.rows("taking the lock of drains", "SELECT GET_LOCK(?, ?)", (LOCK, WAIT))?;
    if rows.first() == Some(&Some(1)) { Ok(()) } else { Err(DatabaseError::Locked) }
}

fn set_flow(session: &mut Session, server: &str, node: &str, to: &str) -> Result<(), DatabaseError> {
    // `registry_timestamp` moves by itself: registries reload what has changed.
    session.run_with(
        "setting the state of a flow",
        &format!(
            "UPDATE {DB_TARS}.t_server_conf SET flow_state = ?, registry_timestamp = NOW() \
             WHERE CONCAT(application, '.', server_name) = ? AND node_name = ?"
        ),
        (to, server, node),
    )
}
