//! A service on three nodes, one on two, one on a single one: through a restart, an upgrade and a rollback of all of them no call is lost but
//! of the one that is alone, and its silence is that of a restart. In tests/long.sh.

use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::deployment::{Deployment, wait_for};
use super::servers::{CLIENTS, Clients, Server, deploy, is_given_back, standin};
use super::stage::{NEW, OLD, PREFIX, succeed};

const ALL: &[&str] = &["database", "framework", "slave", "node", "node2", "node3"];
const ALONE: &str = "AloneServer";

/// Calls that failed of the services that serve elsewhere too.
fn lost(clients: Clients<'_>) -> u64 {
    let others = clients.end().into_iter().filter(|(name, _)| !name.contains(&ALONE.to_lowercase()));
    others.map(|(_, counted)| counted["failed"].as_u64().unwrap()).sum()
}

/// The longest time without an answer of the single one, in milliseconds, while something is done. A client's count would not tell: calls
/// to a container that is away hang for as long as it is patient, and are few.
fn silence(deployment: &Deployment, act: impl FnOnce()) -> u64 {
    let name = deployment.container("watch");
    let _ = Command::new("docker").args(["rm", "-f", &name]).output();
    let mut watch = Command::new("docker");
    watch.args(["run", "--rm", "--name", &name, "--network", &deployment.network()]);
    watch.args(["-v", &format!("{}:/standin:ro", standin()), "--entrypoint", "/standin"]);
    watch.args([&format!("{PREFIX}/node:{OLD}"), "gap", &format!("{}:9022", deployment.address(8))]);
    watch.args([&format!("Demo.{ALONE}.Obj"), "--pause", "10", "--until", "/stop"]);
    let watch = watch.stdout(Stdio::piped()).spawn().unwrap();
    thread::sleep(Duration::from_secs(2));
    act();
    thread::sleep(Duration::from_secs(2));
    succeed(Command::new("docker").args(["exec", &name, "touch", "/stop"]));
    let out = String::from_utf8(watch.wait_with_output().unwrap().stdout).unwrap();
    let told: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"));
    assert!(told["answers"].as_u64() > Some(50) && told["down_ms"] == 0, "{told}");
    told["longest_ms"].as_u64().unwrap()
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
    // The database says nothing of it: a container that stops tells nobody.
    let serves = |name: &str| {
        let found =
            Command::new("docker").args(["exec", &deployment.container("node3"), "pidof", name]).output();
        found.unwrap().status.success()
    };
    // What a stop and a start by hand cost the single one: the process has a container that is there already. A machine that is busy makes
    // either longer: the longest of three.
    let by_hand = (0..3).map(|_| {
        silence(deployment, || {
            for word in ["stop", "start"] {
                succeed(Command::new("docker").args([word, &deployment.container("node3")]));
            }
            wait_for("what runs on the node to be back", || serves(ALONE) && serves("ThreeServer"));
        })
    });
    let by_hand: Vec<u64> = by_hand.collect();
    eprintln!("stopped and started by hand: silent for {by_hand:?} ms");
    let by_hand = by_hand.into_iter().max().unwrap_or_default();
    assert!(by_hand > 0, "who notices nothing proves nothing");

    for words in [
        &["restart", "node", "node2", "node3", "--yes"][..],
        &["upgrade", "--to", NEW, "--yes"],
        &["rollback", "--yes"],
    ] {
        let clients = Clients::start(deployment, &objects, &CLIENTS);
        let mut told = String::new();
        let single = silence(deployment, || told = deployment.tarsup(words).exits(0).err);
        let lost = lost(clients);
        eprintln!("{words:?}: the single one silent for {single} ms, {by_hand} by hand");
        assert_eq!(lost, 0, "{words:?}\n{told}");
        assert!(single * 2 <= by_hand * 3, "{words:?}: {single} against {by_hand}\n{told}");
        is_given_back(deployment);
    }
}
