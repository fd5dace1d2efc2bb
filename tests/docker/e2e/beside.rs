//! A server of run type `container`: tarsnode starts it in a container beside its node, through the engine's socket. Whatever is done to
//! the node, it goes on, and the next tarsnode finds it. In tests/long.sh; `real::beside` does the same with the real tarsnode.

use std::process::Command;

use serde_json::Value;

use super::deployment::{Deployment, wait_for};
use super::servers::Server;
use super::stage::{NEW, succeed};

/// A server's container. Its node is gone with the test: nobody else removes what belongs to no deployment.
pub struct Beside(pub &'static str);

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rm", "-f", self.0]).output();
    }
}

impl Beside {
    /// What the engine says of it; null where there is none.
    pub fn inspect(&self) -> Value {
        let output = Command::new("docker").args(["container", "inspect", self.0]).output().unwrap();
        serde_json::from_slice::<Value>(&output.stdout).map_or(Value::Null, |all| all[0].clone())
    }

    /// Waits until its tarsnode has started it.
    pub fn wait(&self) {
        wait_for("tarsnode to start it", || self.inspect()["State"]["Running"] == true);
        assert_eq!(self.inspect()["HostConfig"]["NetworkMode"], "host");
    }

    /// It goes on, the same process of the same container, whatever is done to its node.
    pub fn goes_on(&self, deployment: &Deployment, new: &str) {
        let (before, node) = (self.inspect(), deployment.identity("node"));
        for words in [
            &["restart", "node", "--yes"][..],
            &["upgrade", "--to", new, "--yes"],
            &["rollback", "--yes"],
            &["upgrade", "--to", new, "--yes"],
            &["prune", "--keep", "0", "--yes"],
        ] {
            let plan = deployment.tarsup(&[words, &["--dry-run", "--json"]].concat()).exits(0).json();
            assert!(!plan.to_string().contains(self.0), "{words:?}: nothing is to be said: {plan}");
            let ran = deployment.tarsup(words).exits(0);
            assert_eq!(life(&self.inspect()), life(&before), "{words:?}\n{}", ran.err);
            assert!(!ran.err.contains(self.0), "{words:?}: no gate waits for it\n{}", ran.err);
            assert_eq!(deployment.identity("node"), node, "{words:?}: socket and variable survive");
        }
        // Its image is that of a node that is gone, and stays.
        let image = before["Image"].as_str().unwrap();
        assert_ne!(deployment.inspect("node")["Image"], before["Image"]);
        succeed(Command::new("docker").args(["image", "inspect", image]));
    }
}

/// Which container it is, which process, and since when.
pub fn life(of: &Value) -> [Value; 3] {
    [of["Id"].clone(), of["State"]["Pid"].clone(), of["State"]["StartedAt"].clone()]
}

/// The engine's socket.
pub fn socket() -> String {
    let host = std::env::var("DOCKER_HOST").unwrap();
    host.strip_prefix("unix://").expect("the engine of these tests has a socket").to_owned()
}

/// The plan that makes the node says what is missing for it; both are there from now on.
pub fn mount_socket(deployment: &Deployment, socket: &str, server: &str, new: &str) {
    let plan = deployment.tarsup(&["upgrade", "--to", new, "--dry-run", "--yes"]).exits(0);
    for words in [
        &*format!("`node`: to run in containers beside it, and down already: {server}"),
        "`node`: no socket of the engine is mounted in it at /var/run/docker.sock",
        "`node`: TARS_HOSTPATH is not set",
    ] {
        assert!(plan.out.contains(words), "{words}: {}\n{}", plan.out, plan.err);
    }
    let info = succeed(Command::new("docker").args(["info", "--format", "{{.DockerRootDir}}"]));
    let root = String::from_utf8(info.stdout).unwrap().trim().to_owned();
    let volumes = "volumes: [\"node:/data/tars\"]";
    deployment.edit(
        "compose.yaml",
        volumes,
        &format!("volumes: [\"node:/data/tars\", \"{socket}:/var/run/docker.sock\"]"),
    );
    let registries = "      TARS_REGISTRY_ADDRESS";
    let volume = deployment.network().replace("_default", "_node");
    let host_path = format!("      TARS_HOSTPATH: {root}/volumes/{volume}/_data\n{registries}");
    deployment.edit("compose.yaml", registries, &host_path);
    deployment.tarsup(&["up", "--yes"]).exits(0);
}

#[test]
fn server_that_runs_beside_its_node_goes_on_whatever_is_done_to_the_node() {
    if std::env::var_os("TARSUP_EVERY").is_none() {
        return;
    }
    let beside = Beside("Demo.BesideServer");
    let deployment = &Deployment::new("e2e-beside", 106, &["database", "framework", "node"]);
    deployment.edit("compose.yaml", "drain: off", "client_refresh: 2s, drain_timeout: 3s, keep_images: 1");
    deployment.tarsup(&["up", "--yes"]).exits(0);
    Server { row: "run_type = 'container'", ..Server::new("BesideServer", "", &[("node", 5)]) }
        .deploy(deployment);
    mount_socket(deployment, &socket(), beside.0, NEW);
    beside.wait();
    beside.goes_on(deployment, NEW);

    // The new node can start it again: socket and folder of the host are what they were.
    succeed(Command::new("docker").args(["rm", "-f", beside.0]));
    beside.wait();
    assert_eq!(beside.inspect()["Image"], deployment.inspect("node")["Image"]);

    // And `down` is no stop of it, either.
    let again = life(&beside.inspect());
    deployment.tarsup(&["down", "--yes"]).exits(0);
    assert_eq!(life(&beside.inspect()), again);
}
