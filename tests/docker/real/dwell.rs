//! A database that goes away while a step is being proven: nothing is proven then, and nothing more is touched.

use std::process::Command;

use super::stage::{PATCHED, RELEASE, stage};
use crate::e2e::deployment::{Deployment, wait_for};
use crate::e2e::stage::succeed;

const SERVICES: &[&str] = &["database", "framework", "slave"];

/// Stops the database in the dwell of `service` of an upgrade, brings it back, and looks at what is left.
fn database_stopped_in_the_dwell(name: &'static str, subnet: u8, service: &str, untouched: &[&str]) {
    let Some(stage) = stage(name) else { return };
    let deployment = Deployment::of(stage, RELEASE, name, subnet, SERVICES);
    deployment.tarsup(&["up", "--yes"]).exits(0);
    deployment.edit("compose.yaml", "gate_timeout: 90s, dwell: 1s", "gate_timeout: 20s, dwell: 12s");
    let ids = || ["database", "framework", "slave"].map(|service| deployment.id(service));
    let (before, env) = (ids(), deployment.read(".env"));
    let database = deployment.container("database");
    let started = |service: &str| deployment.inspect(service)["State"]["StartedAt"].to_string();
    let were: Vec<String> = untouched.iter().map(|service| started(service)).collect();

    let mut upgrade = deployment.spawn(&["upgrade", "--to", PATCHED, "--yes"]);
    wait_for("the successor to answer", || {
        deployment.version(service) == PATCHED && deployment.answers(service)
    });
    // Past the first good answers, within the dwell.
    std::thread::sleep(std::time::Duration::from_secs(3));
    succeed(Command::new("docker").args(["stop", &database]));
    wait_for("the successor to be given up, or the run to end", || {
        deployment.version(service) != PATCHED || upgrade.try_wait().unwrap().is_some()
    });
    let now: Vec<String> = untouched.iter().map(|service| started(service)).collect();
    succeed(Command::new("docker").args(["start", &database]));

    let code = upgrade.wait().unwrap().code();
    assert_eq!(now, were, "what had its turn later was not touched");
    if code != Some(4) {
        // The way back was not proven in time without the database: it is now.
        assert_eq!(code, Some(5));
        deployment.tarsup(&["resume", "--yes"]).exits(0);
    }
    assert_eq!(ids(), before, "the old containers are back under their names");
    assert_eq!(deployment.read(".env"), env);
    for service in ["framework", "slave"] {
        wait_for("the old version to answer", || deployment.answers(service));
    }
    let plan = deployment.tarsup(&["plan", "--json"]).exits(0).json();
    assert_eq!(plan["steps"], serde_json::json!([]));
}

#[test]
fn real_database_stopped_in_the_slaves_dwell_proves_nothing_and_leaves_the_master_alone() {
    database_stopped_in_the_dwell("real-dwell-1", 57, "slave", &["framework"]);
}

#[test]
fn real_database_stopped_in_the_masters_dwell_commits_nothing() {
    database_stopped_in_the_dwell("real-dwell-2", 58, "framework", &[]);
}
