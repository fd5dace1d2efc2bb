//! A server of run type `container`: tarsnode starts it in a container beside its node, through the engine's socket. Whatever is done to
//! the node, it goes on, and the next tarsnode finds it. In tests/long.sh.

use std::process::Command;

use serde_json::Value;

use super::deployment::{Deployment, wait_for};
use super::servers::Server;
use super::stage::{NEW, succeed};

const BESIDE: &str = "Demo.BesideServer";

/// What the engine says of its container; null where there is none.
fn container() -> Value {
    let output = Command::new("docker").args(["container", "inspect", BESIDE]).output().unwrap();
    serde_json::from_slice::<Value>(&output.stdout).map_or(Value::Null, |all| all[0].clone())
}

/// Which container it is, which process, and since when.
fn life(of: &Value) -> [Value; 3] {
    [of["Id"].clone(), of["State"]["Pid"].clone(), of["State"]["StartedAt"].clone()]
}

/// Its node is gone with the test: nobody else removes what belongs to no deployment.
struct Removed;

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rm", "-f", BESIDE]).output();
    }
}

#[test]
fn server_that_runs_beside_its_node_goes_on_whatever_is_done_to_the_node() {
    if std::env::var_os("TARSUP_EVERY").is_none() {
        return;
    }
    let _removed = Removed;
    let deployment = &Deployment::new("e2e-beside", 106, &["database", "framework", "node"]);
    deployment.edit("compose.yaml", "drain: off", "client_refresh: 2s, drain_timeout: 3s, keep_images: 1");
    deployment.tarsup(&["up", "--yes"]).exits(0);
    Server { row: "run_type = 'container'", ..Server::new("BesideServer", "", &[("node", 5)]) }
        .deploy(deployment);

    // Without the socket nobody can start it, and a plan that makes the node says what is missing.
    let plan = deployment.tarsup(&["upgrade", "--to", NEW, "--dry-run", "--yes"]).exits(0);
    for words in [
        "`node`: to run in containers beside it, and down already: Demo.BesideServer",
        "`node`: no socket of the engine is mounted in it at /var/run/docker.sock",
        "`node`: TARS_HOSTPATH is not set",
    ] {
        assert!(plan.out.contains(words), "{words}: {}\n{}", plan.out, plan.err);
    }

    // Both are there from now on: its tarsnode starts it.
    let host = std::env::var("DOCKER_HOST").unwrap();
    let socket = host.strip_prefix("unix://").expect("the engine of these tests has a socket");
    let info = succeed(Command::new("docker").args(["info", "--format", "{{.DockerRootDir}}"]));
    let root = String::from_utf8(info.stdout).unwrap().trim().to_owned();
    let volumes = "volumes: [\"node:/data/tars\"]";
    deployment.edit(
        "compose.yaml",
        volumes,
        &format!("volumes: [\"node:/data/tars\", \"{socket}:/var/run/docker.sock\"]"),
    );
    let registries = "      TARS_REGISTRY_ADDRESS";
    let host_path = format!("      TARS_HOSTPATH: {root}/volumes/e2e-beside_node/_data\n{registries}");
    deployment.edit("compose.yaml", registries, &host_path);
    deployment.tarsup(&["up", "--yes"]).exits(0);
    let runs = || container()["State"]["Running"] == true;
    wait_for("tarsnode to start it", runs);
    let before = container();
    assert_eq!(before["HostConfig"]["NetworkMode"], "host");

    let node = deployment.identity("node");
    for words in [
        &["restart", "node", "--yes"][..],
        &["upgrade", "--to", NEW, "--yes"],
        &["rollback", "--yes"],
        &["upgrade", "--to", NEW, "--yes"],
        &["prune", "--keep", "0", "--yes"],
    ] {
        let plan = deployment.tarsup(&[words, &["--dry-run", "--json"]].concat()).exits(0).json();
        assert!(!plan.to_string().contains("BesideServer"), "{words:?}: nothing is to be said: {plan}");
        let ran = deployment.tarsup(words).exits(0);
        assert_eq!(life(&container()), life(&before), "{words:?}\n{}", ran.err);
        assert!(!ran.err.contains("BesideServer"), "{words:?}: no gate waits for it\n{}", ran.err);
        assert_eq!(deployment.identity("node"), node, "{words:?}: socket and variable survive");
    }
    // Its image is that of a node that is gone, and stays.
    let image = before["Image"].as_str().unwrap();
    assert_ne!(deployment.inspect("node")["Image"], before["Image"]);
    succeed(Command::new("docker").args(["image", "inspect", image]));

    // The new node can start it again: socket and folder of the host are what they were.
    succeed(Command::new("docker").args(["rm", "-f", BESIDE]));
    wait_for("the new node's tarsnode to start it again", runs);
    assert_eq!(container()["Image"], deployment.inspect("node")["Image"]);

    // And `down` is no stop of it, either.
    let again = life(&container());
    deployment.tarsup(&["down", "--yes"]).exits(0);
    assert_eq!(life(&container()), again);
}
