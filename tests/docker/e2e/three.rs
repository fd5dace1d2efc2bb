//! A service on three nodes, one on two, one on a single one: through a restart, an upgrade and a rollback of all of them no call is lost but
//! of the one that is alone, and its silence is that of a restart. In tests/long.sh.

use std::process::Command;
use std::thread;
use std::time::Duration;

use super::deployment::{Deployment, wait_for};
use super::servers::{CLIENTS, Clients, Server, deploy, is_given_back};
use super::stage::{NEW, succeed};

const ALL: &[&str] = &["database", "framework", "slave", "node", "node2", "node3"];
const ALONE: &str = "AloneServer";

/// Calls that failed: of the services that serve elsewhere too, and the most that a client of the single one counted.
fn lost(clients: Clients<'_>) -> (u64, u64) {
    let failed = |counted: &serde_json::Value| counted["failed"].as_u64().unwrap();
    let of_alone = |name: &str| name.contains(&ALONE.to_lowercase());
    let (single, others): (Vec<_>, Vec<_>) = clients.end().into_iter().partition(|(name, _)| of_alone(name));
    let lost = others.iter().map(|(_, counted)| failed(counted)).sum();
    (lost, single.iter().map(|(_, counted)| failed(counted)).max().unwrap_or_default())
}

#[test]
fn no_call_is_lost_on_three_nodes_but_of_what_is_alone() {
    if std::env::var_os("TARSUP_EVERY").is_none() {
        return;
    }
    let deployment = &Deployment::new("e2e-three", 99, ALL);
    deployment.edit("compose.yaml", "drain: off", "client_refresh: 5s, drain_timeout: 6s");
    deployment.tarsup(&["up", "--yes"]).exits(0);
    let two = Server::new("HelloServer", "tcp -p 9001", &[("node", 5), ("node2", 7)]);
    let three = Server::new("ThreeServer", "tcp -p 9021", &[("node", 5), ("node2", 7), ("node3", 8)]);
    let alone = Server::new(ALONE, "tcp -p 9022", &[("node3", 8)]);
    deploy(deployment, &[two, three, alone]);
    let objects = [three.object(), two.object(), alone.object()];
    let objects = objects.each_ref().map(String::as_str);
    // What was published less than a minute ago is tarsnode's to start.
    thread::sleep(Duration::from_secs(61));
    // What a stop and a start by hand cost the single one, a call every 10 ms: the process has a container that is there already.
    let clients = Clients::start(deployment, &objects[2..], &CLIENTS);
    for word in ["stop", "start"] {
        succeed(Command::new("docker").args([word, &deployment.container("node3")]));
    }
    // The database says nothing of it: a container that stops tells nobody.
    let serves = |name: &str| {
        let found =
            Command::new("docker").args(["exec", &deployment.container("node3"), "pidof", name]).output();
        found.unwrap().status.success()
    };
    wait_for("what runs on the node to be back", || serves(ALONE) && serves("ThreeServer"));
    thread::sleep(Duration::from_secs(3));
    let (_, by_hand) = lost(clients);
    assert!(by_hand > 0, "a client that notices nothing proves nothing");

    for words in [
        &["restart", "node", "node2", "node3", "--yes"][..],
        &["upgrade", "--to", NEW, "--yes"],
        &["rollback", "--yes"],
    ] {
        let clients = Clients::start(deployment, &objects, &CLIENTS);
        let ran = deployment.tarsup(words).exits(0);
        let (lost, single) = lost(clients);
        eprintln!("{words:?}: {single} calls of the single one lost, {by_hand} by hand");
        assert_eq!(lost, 0, "{words:?}\n{}", ran.err);
        assert!(single * 2 <= by_hand * 3, "{words:?}: {single} against {by_hand}\n{}", ran.err);
        is_given_back(deployment);
    }
}
