//! What is deployed on a node starts with it: at once, once, and as tarsnode's own.

use std::process::Command;
use std::thread;
use std::time::Duration;

use super::hello;
use super::stage::{PATCHED, RELEASE, stage};
use crate::e2e::deployment::{Deployment, wait_for};
use crate::e2e::stage::succeed;

pub const SERVER: &str = "/data/tars/tarsnode-data/Demo.HelloServer/bin/HelloServer";
pub const AT_ONCE: &str = "started at once, as tarsnode would: Demo.HelloServer";

fn inside(deployment: &Deployment, command: &[&str]) {
    succeed(Command::new("docker").args(["exec", &deployment.container("node")]).args(command));
}

/// The processes that run it.
fn processes(deployment: &Deployment) -> Vec<String> {
    let look = format!(
        "for p in /proc/[0-9]*; do [ \"$(readlink $p/exe)\" = {SERVER} ] && echo ${{p#/proc/}}; done; true"
    );
    let output = Command::new("docker")
        .args(["exec", &deployment.container("node"), "sh", "-c", &look])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

fn log(deployment: &Deployment) -> String {
    log_of(deployment, "node")
}

/// What a service's container has printed.
pub fn log_of(deployment: &Deployment, service: &str) -> String {
    let output = Command::new("docker").args(["logs", &deployment.container(service)]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn probe(deployment: &Deployment) -> serde_json::Value {
    let container = deployment.container("node");
    let output = Command::new("docker")
        .args(["exec", &container, "/usr/local/bin/tars-init", "probe", "--json"])
        .output();
    serde_json::from_slice(&output.unwrap().stdout).unwrap()
}

/// The database knows the process that runs, as tarsnode reports it.
#[track_caller]
fn is_tarsnodes_own(deployment: &Deployment) {
    let [pid] = processes(deployment).try_into().unwrap_or_else(|all| panic!("one process, not {all:?}"));
    let row = "SELECT CONCAT(present_state, ' ', process_id) FROM db_tars.t_server_conf WHERE server_name = 'HelloServer'";
    wait_for("tarsnode to take it for its own", || deployment.query(row).trim() == format!("active {pid}"));
    // tarsnode starts what it misses up to 14 s after its own start.
    thread::sleep(Duration::from_secs(16));
    assert_eq!(processes(deployment), [pid], "the same process, and no other");
}

/// The whole way of a node's service; `real::drain` does it with `TARSUP_EVERY` (tests/long.sh).
pub fn services_of_a_node_start_with_it_and_are_waited_for() {
    let Some(stage) = stage("real_services_of_a_node_start_with_it") else { return };
    let deployment = Deployment::of(stage, RELEASE, "real-deployed", 86, &["database", "framework", "node"]);
    deployment.tarsup(&["up", "--yes"]).exits(0);
    hello::deploy(&deployment, &[("node", 5)]);
    let restart = || succeed(Command::new("docker").args(["restart", &deployment.container("node")]));
    restart();
    // Nobody has ever started it here: tarsnode does, and what is put there right now is left to it.
    wait_for("tarsnode to start it", || hello::call(&deployment, Some(5)).code == 0);
    assert!(!log(&deployment).contains(AT_ONCE), "{}", log(&deployment));
    // A minute after the last change of its files, it is ours to start.
    thread::sleep(Duration::from_secs(61));

    restart();

    wait_for("it to be started", || log(&deployment).contains(AT_ONCE));
    wait_for("it to answer", || hello::call(&deployment, Some(5)).code == 0);
    is_tarsnodes_own(&deployment);
    let served = &probe(&deployment)["deployed"];
    assert_eq!(*served, serde_json::json!([{"server": "Demo.HelloServer", "serves": true, "detail": ""}]));

    // What crashes is tarsnode's.
    let pid = processes(&deployment).remove(0);
    succeed(Command::new("docker").args(["exec", &deployment.container("node"), "kill", "-9", &pid]));
    wait_for(
        "tarsnode to bring it back",
        || matches!(processes(&deployment).as_slice(), [now] if *now != pid),
    );

    // A node that is replaced serves again before the deploy goes on.
    deployment.tarsup(&["upgrade", "--to", PATCHED, "--yes"]).exits(0);
    assert!(log(&deployment).contains(AT_ONCE), "{}", log(&deployment));
    assert_eq!(probe(&deployment)["deployed"][0]["serves"], true);
    is_tarsnodes_own(&deployment);

    // What does not come up on the new image fails the node, and is there again on the old one.
    let wrapped = format!(
        "mv {SERVER} {SERVER}.real && touch /only-here && \
         printf '#!/bin/sh\\n[ -e /only-here ] || {{ echo no such luck; exit 1; }}\\nexec {SERVER}.real \"$@\"\\n' > {SERVER} && \
         chmod 755 {SERVER} && kill -9 {}",
        processes(&deployment).remove(0)
    );
    inside(&deployment, &["sh", "-c", &wrapped]);
    wait_for("tarsnode to start it again", || probe(&deployment)["deployed"][0]["serves"] == true);
    deployment.edit("compose.yaml", "dwell: 1s", "dwell: 1s, services_timeout: 20s");
    let failed = deployment.tarsup(&["upgrade", "--to", RELEASE, "--yes"]).exits(4);
    assert!(failed.err.contains("Demo.HelloServer served before and does not yet"), "{}", failed.err);
    assert!(failed.err.contains("no such luck"), "its own words: {}", failed.err);
    assert_eq!(deployment.version("node"), PATCHED);
    assert_eq!(probe(&deployment)["deployed"][0]["serves"], true);
}
