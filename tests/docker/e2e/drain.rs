//! What clients notice while their service's nodes are rolled: nothing. Business services on two nodes, and three clients of each: one that
//! calls all the time, one that calls seldom, and one that connects anew for each call.

use std::process::Command;
use std::thread;
use std::time::Duration;

use super::deployment::{Deployment, wait_for};
use super::servers::{AS_BY_DEFAULT, CLIENTS, Clients, Server, deploy, wait_until_they_run};
use super::stage::{NEW, OLD, succeed};
use crate::turns::is_for_another_time;

const ALL: &[&str] = &["database", "framework", "slave", "node", "node2"];
const TWO: &[(&str, u8)] = &[("node", 5), ("node2", 7)];
const HELLO: &str = "Demo.HelloServer.Obj";

/// Whether all is tried, in tests/long.sh.
fn is_long() -> bool {
    std::env::var_os("TARSUP_EVERY").is_some()
}

/// With the true times, minutes of them; that below, and `real::drain` with TARS's own client, know shorter ones.
#[test]
fn no_call_is_lost_with_the_defaults() {
    if !is_long() {
        return;
    }
    let deployment = Deployment::new("e2e-default", 96, ALL);
    deployment.edit("compose.yaml", "drain: off, ", "");
    deployment.tarsup(&["up", "--yes"]).exits(0);
    deploy(&deployment, &[Server::new("HelloServer", "tcp -p 9001", TWO)]);
    let clients = Clients::start(&deployment, &[HELLO], &AS_BY_DEFAULT);
    let ran = deployment.tarsup(&["restart", "node", "node2", "--yes"]).exits(0);
    assert_eq!(ran.err.matches("clients ask anew within 65 s\n").count(), 2, "{}", ran.err);
    clients.lost_nothing(&ran.err);
}

#[test]
fn no_call_is_lost_while_the_nodes_of_a_service_are_rolled() {
    if is_for_another_time() {
        return;
    }
    let deployment = Deployment::new("e2e-drain", 15, ALL);
    deployment.edit("compose.yaml", "drain: off", "client_refresh: 5s, drain_timeout: 6s");
    deployment.tarsup(&["up", "--yes"]).exits(0);
    deploy(&deployment, &[Server::new("HelloServer", "tcp -p 9001", TWO)]);

    let clients = Clients::start(&deployment, &[HELLO], &CLIENTS);
    let ran = deployment.tarsup(&["restart", "node", "node2", "--yes"]).exits(0);
    assert_eq!(ran.err.matches("given back: Demo.HelloServer on").count(), 2, "{}", ran.err);
    clients.lost_nothing(&ran.err);
    if !is_long() {
        return;
    }

    // What is deployed on master and slave is drained like what is on nodes.
    let both = Server::new("BothServer", "tcp -p 9041", &[("framework", 3), ("slave", 4)]);
    deploy(&deployment, &[both]);
    for words in [&["upgrade", "--to", NEW, "--yes"][..], &["rollback", "--yes"]] {
        let clients = Clients::start(&deployment, &[HELLO, &both.object()], &CLIENTS);
        let ran = deployment.tarsup(words).exits(0);
        assert_eq!(ran.err.matches("given back: Demo.BothServer on").count(), 2, "{}", ran.err);
        clients.lost_nothing(&ran.err);
    }

    killed_and_resumed(&deployment);
    registry_down(&deployment);
    registry_in_another_zone(&deployment);
    administrators_hand(&deployment);
    sets_and_groups(&deployment);
    dies_while_it_is_drained(&deployment);
}

/// What a plan says of silence, drains and notes.
fn planned(deployment: &Deployment, service: &str) -> String {
    deployment.tarsup(&["restart", service, "--dry-run", "--json", "--yes"]).exits(0).json().to_string()
}

/// Who is in another set is in nobody's place; who is in another group is, and it is said.
fn sets_and_groups(deployment: &Deployment) {
    let set = |host: u8, row: &str| {
        deployment.query(&format!(
            "UPDATE db_tars.t_server_conf SET {row} WHERE server_name = 'HelloServer' AND node_name = '{}'",
            deployment.address(host)
        ));
    };
    let of_set =
        |group: &str| format!("enable_set = 'Y', set_name = 'x', set_area = 'y', set_group = '{group}'");
    let silent = format!("\"silent\":{{\"Demo.HelloServer\":[\"{}\"]}}", deployment.address(5));
    set(5, &of_set("1"));
    set(7, &of_set("2"));
    let plan = planned(deployment, "node");
    assert!(plan.contains(&silent), "{plan}");
    set(7, &of_set("1"));
    let clients = Clients::start(deployment, &[HELLO], &CLIENTS);
    let ran = deployment.tarsup(&["restart", "node", "--yes"]).exits(0);
    assert!(ran.err.contains("given back: Demo.HelloServer on"), "{}", ran.err);
    clients.lost_nothing(&ran.err);
    for (host, group) in [(5, "sz"), (7, "gz")] {
        set(host, &format!("enable_set = 'N', enable_group = 'Y', ip_group_name = '{group}'"));
    }
    let clients = Clients::start(deployment, &[HELLO], &CLIENTS);
    let ran = deployment.tarsup(&["restart", "node", "--yes"]).exits(0);
    let words =
        format!("to another group meanwhile: Demo.HelloServer on {} (group sz)", deployment.address(5));
    assert!(ran.err.contains(&words), "{}", ran.err);
    clients.lost_nothing(&ran.err);
    for host in [5, 7] {
        set(host, "enable_group = 'N'");
    }
}

/// A node that dies while it is drained is started like one that was stopped.
fn dies_while_it_is_drained(deployment: &Deployment) {
    deployment.edit(
        "compose.yaml",
        "client_refresh: 5s, drain_timeout: 6s",
        "client_refresh: 20s, drain_timeout: 21s",
    );
    let clients = Clients::start(deployment, &[HELLO], &CLIENTS);
    let mut restart = deployment.spawn(&["restart", "node", "--yes"]);
    wait_for("the wait for clients", || {
        deployment.read("spawned.log").contains("clients ask anew within 20 s")
    });
    // Its clients ask anew within 4 s, and registries have said so already.
    thread::sleep(Duration::from_secs(6));
    succeed(Command::new("docker").args(["kill", &deployment.container("node")]));
    assert!(restart.wait().unwrap().success(), "{}", deployment.read("spawned.log"));
    clients.lost_nothing(&deployment.read("spawned.log"));
    wait_until_they_run(deployment);
    deployment.edit(
        "compose.yaml",
        "client_refresh: 20s, drain_timeout: 21s",
        "client_refresh: 5s, drain_timeout: 6s",
    );
}

/// A kill while the first node is replaced, and `resume` that takes it back.
fn killed_and_resumed(deployment: &Deployment) {
    let clients = Clients::start(deployment, &[HELLO], &CLIENTS);
    let mut upgrade = deployment.spawn(&["upgrade", "--to", NEW, "--yes"]);
    let is_parked = |name: &String| name.contains("-node") && name.contains(".old.");
    let parked = || deployment.containers().into_iter().filter(is_parked).count();
    let before = parked();
    wait_for("a node's predecessor to be parked", || parked() > before);
    upgrade.kill().unwrap();
    upgrade.wait().unwrap();
    let ran = deployment.tarsup(&["resume", "--yes"]);
    assert!(matches!(ran.code, 0 | 4), "{}\n{}", ran.code, ran.err);
    clients.lost_nothing(&ran.err);
    assert_eq!(deployment.version("node"), OLD);
}

/// One of two registries is down: the other one is asked, and clients are served.
fn registry_down(deployment: &Deployment) {
    let clients = Clients::start(deployment, &[HELLO], &CLIENTS);
    succeed(Command::new("docker").args(["stop", &deployment.container("slave")]));
    let ran = deployment.tarsup(&["restart", "node", "node2", "--yes"]).exits(0);
    clients.lost_nothing(&ran.err);
    succeed(Command::new("docker").args(["start", &deployment.container("slave")]));
    wait_for("the slave to answer", || deployment.answers("slave"));
}

/// A registry whose zone is ahead misses what is drained: those servers are a gap, and named.
fn registry_in_another_zone(deployment: &Deployment) {
    deployment.edit("compose.yaml", "SLAVE: \"true\"", "SLAVE: \"true\"\n      TZ: <+09>-9");
    deployment.tarsup(&["up", "--yes"]).exits(0);
    let ran = deployment.tarsup(&["restart", "node", "--yes"]).exits(0);
    let words = format!(
        "not drained: Demo.HelloServer on {}: tcp -h {} -p 17890 hands it out after",
        deployment.address(5),
        deployment.address(4)
    );
    assert!(ran.err.contains(&words), "{}", ran.err);
    deployment.edit("compose.yaml", "\n      TZ: <+09>-9", "");
    deployment.tarsup(&["up", "--yes"]).exits(0);
}

/// An administrator restarts the drained one (which sets its flow by itself), and stops the flow of the other one.
fn administrators_hand(deployment: &Deployment) {
    let clients = Clients::start(deployment, &[HELLO], &CLIENTS);
    let mut restart = deployment.spawn(&["restart", "node", "--yes"]);
    let address = deployment.address(5);
    let flow = format!(
        "SELECT flow_state FROM db_tars.t_server_conf WHERE server_name = 'HelloServer' AND node_name = '{address}'"
    );
    wait_for("the drain", || deployment.query(&flow).trim() == "inactive");
    thread::sleep(Duration::from_secs(3));
    deployment.query(&format!(
        "UPDATE db_tars.t_server_conf SET flow_state = 'active' WHERE server_name = 'HelloServer' AND node_name = '{address}'"
    ));
    assert!(restart.wait().unwrap().success());
    let told = deployment.read("spawned.log");
    assert!(
        told.contains(&format!("somebody else gave Demo.HelloServer on {address} back: drained again")),
        "{told}"
    );
    clients.lost_nothing(&told);

    let other = deployment.address(7);
    let stop = |flow: &str| {
        deployment.query(&format!(
            "UPDATE db_tars.t_server_conf SET flow_state = '{flow}' WHERE server_name = 'HelloServer' AND node_name = '{other}'"
        ));
    };
    // In the middle of a drain: what is drained is the only one then, and is given back at once.
    let mut restart = deployment.spawn(&["restart", "node", "--yes", "--no-gaps"]);
    wait_for("the drain", || deployment.query(&flow).trim() == "inactive");
    stop("inactive");
    assert!(!restart.wait().unwrap().success());
    let told = deployment.read("spawned.log");
    assert!(told.contains("what served in its place serves no more"), "{told}");
    assert_eq!(deployment.query(&flow).trim(), "active", "{told}");
    // The first one is the only one that serves now: a question, and refused where somebody says so.
    let refused = deployment.tarsup(&["restart", "node", "--yes", "--no-gaps"]).exits(3);
    assert!(refused.err.contains("Demo.HelloServer"), "{}", refused.err);
    stop("active");
}
