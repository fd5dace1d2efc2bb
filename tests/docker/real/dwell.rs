//! A database that goes away while a step is being proven: nothing is proven then, and nothing more is touched.

use std::process::Command;

use super::stage::{PATCHED, RELEASE, stage};
use crate::e2e::deployment::{Deployment, wait_for};
use crate::e2e::stage::succeed;
use crate::turns::is_for_another_time;

const SERVICES: &[&str] = &["database", "framework", "slave"];

/// When the database that was stopped comes back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Back {
    /// As soon as the successor is given up: the way back can be proven, within a time that is long enough for that.
    ForTheWayBack,
    /// After the run: the way back cannot be proven either, and says so.
    AfterTheRun,
}

/// Stops the database in the dwell of `service` of an upgrade, brings it back, and looks at what is left.
fn database_stopped_in_the_dwell(
    name: &'static str,
    subnet: u8,
    service: &str,
    untouched: &[&str],
    back: Back,
) {
    let Some(stage) = stage(name) else { return };
    let deployment = Deployment::of(stage, RELEASE, name, subnet, SERVICES);
    deployment.tarsup(&["up", "--yes"]).exits(0);
    // A dwell that is broken begins anew until the gate's time is over, and the way back has the same time: long enough for
    // a server and a slave to come up, where it is to be proven.
    let timeout = if back == Back::ForTheWayBack { "60s" } else { "20s" };
    let policy = format!("gate_timeout: {timeout}, dwell: 12s");
    deployment.edit("compose.yaml", "gate_timeout: 90s, dwell: 1s", &policy);
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
    match back {
        Back::ForTheWayBack => wait_for("the successor to be given up", || {
            deployment.version(service) != PATCHED || upgrade.try_wait().unwrap().is_some()
        }),
        Back::AfterTheRun => wait_for("the run to end", || upgrade.try_wait().unwrap().is_some()),
    }
    let now: Vec<String> = untouched.iter().map(|service| started(service)).collect();
    succeed(Command::new("docker").args(["start", &database]));

    let code = upgrade.wait().unwrap().code();
    assert_eq!(now, were, "what had its turn later was not touched");
    match back {
        Back::ForTheWayBack => assert_eq!(code, Some(4), "the old version is proven"),
        Back::AfterTheRun => {
            assert_eq!(code, Some(5), "nothing can be proven without the database");
            // The server has only just been started.
            deployment.edit("compose.yaml", &policy, "gate_timeout: 180s, dwell: 1s");
            deployment.tarsup(&["resume", "--yes"]).exits(0);
        }
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
    if is_for_another_time() {
        return;
    }
    database_stopped_in_the_dwell("real-dwell-1", 68, "slave", &["framework"], Back::ForTheWayBack);
}

#[test]
fn real_database_stopped_in_the_masters_dwell_commits_nothing() {
    if is_for_another_time() {
        return;
    }
    database_stopped_in_the_dwell("real-dwell-2", 69, "framework", &[], Back::AfterTheRun);
}
