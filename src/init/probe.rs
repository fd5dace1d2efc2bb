//! `tars-init probe --json`: what a container says of itself, in one document: its own processes, their sockets, the
//! web console. What the database knows is asked by `cluster`.

use std::io::Write;
use std::thread;

use serde::Serialize;
use serde_json::Value;

use crate::tars::PROTOCOL;

use super::address;
use super::deployed::{self, Node, Served};
use super::environment::{Endpoint, Environment};
use super::failure::{Code, Failure};
use super::health::{self, Asking, Database, ServantAnswer};
use super::paths::Paths;
use super::registries;
use super::run_state::RunState;

/// The document.
#[derive(Debug, Default, Serialize)]
struct ProbeReport {
    protocol: u32,
    /// Servants, sockets and web console are as they must be, and the database (or, on a node, a registry) answers.
    healthy: bool,
    role: String,
    address: String,
    version: String,
    servants: Vec<ServantAnswer>,
    /// Master with a web console only.
    web: Option<Reachability>,
    /// Nodes only: the hosts of the registries that it goes by.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    registries: Vec<String>,
    /// Nodes only: whether one of its registries answers.
    registry: Option<Reachability>,
    /// As this container sees it: `exists`, `absent`, `unknown` or `not-asked`.
    database: &'static str,
    /// What this start changed in the database, as `migrate` tells it.
    #[serde(skip_serializing_if = "Option::is_none")]
    changes: Option<Value>,
    /// What is deployed here and must run; null where no registry says.
    deployed: Option<Vec<Served>>,
    /// Why nobody knows what is deployed here; else empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    deployed_unknown: String,
    problems: Vec<String>,
}

/// Something that answers or does not.
#[derive(Debug, Serialize)]
struct Reachability {
    ok: bool,
    detail: String,
}

/// Prints the document; exit code 0 when healthy, else 1.
pub fn run(paths: &Paths) -> Result<(), Failure> {
    let report = look(paths);
    print(&report, report.healthy)
}

/// Prints a document in one line; exit code 0 or 1, without a word more: the document says why.
pub fn print(document: &impl Serialize, is_well: bool) -> Result<(), Failure> {
    let text = serde_json::to_string(document).map_err(|error| {
        Failure::new(Code::Internal, format!("the document cannot be written: {error}"), "")
    })?;
    let mut out = std::io::stdout().lock();
    let written = writeln!(out, "{text}").and_then(|()| out.flush());
    match written {
        Ok(()) if is_well => Ok(()),
        _ => Err(Failure::new(Code::Unhealthy, "", "")),
    }
}

fn look(paths: &Paths) -> ProbeReport {
    let changes = RunState::of(paths).changes();
    let mut report =
        ProbeReport { protocol: PROTOCOL, database: "not-asked", changes, ..ProbeReport::default() };
    let environment = match Environment::read(health::image_role(paths)) {
        Ok(environment) => environment,
        Err(failure) => {
            report.problems.push(failure.message);
            return report;
        }
    };
    environment.role.name().clone_into(&mut report.role);
    report.version = environment.version.clone().unwrap_or_default();
    match address::own(&environment.naming) {
        Ok(address) => report.address = address,
        Err(failure) => {
            report.problems.push(failure.message);
            return report;
        }
    }
    let registries = registries::known(&environment.locator, paths);
    let node = Node {
        paths: paths.clone(),
        address: report.address.clone(),
        role: environment.role,
        // A container that is none knows of itself.
        registries: if registries.is_empty() {
            vec![Endpoint::registry(&report.address)]
        } else {
            registries.clone()
        },
    };
    report.registries = registries.iter().map(|registry| registry.host.clone()).collect();
    let registry = thread::spawn(move || ask_registries(&registries));
    let init = RunState::of(paths).init();
    let deployed = thread::spawn(move || {
        init.ok_or_else(|| "tars-init is not there".to_owned()).and_then(|init| deployed::look(&node, init))
    });
    let look = health::look(paths, &environment, &report.address, Asking::Always);
    report.servants = look.servants;
    report.web =
        look.web.map(|answer| Reachability { ok: answer.is_ok(), detail: answer.err().unwrap_or_default() });
    report.problems = look.complaints;
    match look.database {
        Database::NotAsked => {}
        Database::Exists(_) => report.database = "exists",
        Database::Absent => {
            report.database = "absent";
            report.problems.push("the database holds no TARS".to_owned());
        }
        Database::Unknown(why) => {
            report.database = "unknown";
            report.problems.push(format!("the database cannot be asked: {why}"));
        }
    }
    report.registry = registry.join().unwrap_or_default();
    if let Some(Reachability { ok: false, detail }) = &report.registry {
        report.problems.push(format!("no registry answers: {detail}"));
    }
    match deployed.join().unwrap_or_else(|_| Err("it could not be asked".to_owned())) {
        Ok(deployed) => report.deployed = Some(deployed),
        Err(why) => report.deployed_unknown = why,
    }
    report.healthy = report.problems.is_empty();
    report
}

/// Nothing for a container that has its own.
fn ask_registries(registries: &[Endpoint]) -> Option<Reachability> {
    let mut complaints = Vec::new();
    for registry in registries {
        match registries::ask(registry) {
            Ok(()) => return Some(Reachability { ok: true, detail: registry.to_string() }),
            Err(why) => complaints.push(format!("{registry}: {why}")),
        }
    }
    (!complaints.is_empty()).then(|| Reachability { ok: false, detail: complaints.join(", ") })
}
