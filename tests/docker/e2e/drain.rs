//! What clients notice while their service's nodes are rolled: nothing. A business service on two nodes, and three clients: one that
//! calls all the time, one that calls seldom, and one that connects anew for each call.

use std::fmt::Write as _;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::deployment::{Deployment, wait_for};
use super::stage::{NEW, OLD, PREFIX, succeed};

const ALL: &[&str] = &["database", "framework", "slave", "node", "node2"];
const OBJECT: &str = "Demo.HelloServer.HelloObj";
const FOLDER: &str = "/data/tars/tarsnode-data/Demo.HelloServer/bin";
/// Every client asks again within 4 s.
const CLIENTS: [(&str, &[&str]); 3] = [
    ("fast", &["--every", "10", "--refresh", "4"]),
    ("seldom", &["--every", "2500", "--refresh", "4"]),
    ("anew", &["--every", "10", "--refresh", "4", "--anew"]),
];

fn standin() -> String {
    std::env::var("TARSUP_TEST_STANDIN")
        .expect("TARSUP_TEST_STANDIN names the stand-ins, as tests/all.sh does")
}

/// A service on both nodes, started by their tarsnodes.
fn deploy(deployment: &Deployment) {
    for (service, host) in [("node", 5), ("node2", 7)] {
        let (container, address) = (deployment.container(service), deployment.address(host));
        succeed(Command::new("docker").args(["exec", &container, "mkdir", "-p", FOLDER]));
        succeed(Command::new("docker").args([
            "cp",
            &standin(),
            &format!("{container}:{FOLDER}/HelloServer"),
        ]));
        deployment.query(&format!(
            "INSERT INTO db_tars.t_adapter_conf (application, server_name, node_name, adapter_name, endpoint, servant, protocol) \
             VALUES ('Demo', 'HelloServer', '{address}', '{OBJECT}Adapter', 'tcp -h {address} -t 60000 -p 9001', '{OBJECT}', 'tars')"
        ));
        deployment.query(&format!(
            "INSERT INTO db_tars.t_server_conf (application, server_name, node_name, setting_state, present_state) \
             VALUES ('Demo', 'HelloServer', '{address}', 'active', 'inactive')"
        ));
    }
    let running = "SELECT COUNT(*) FROM db_tars.t_server_conf WHERE server_name = 'HelloServer' AND present_state = 'active'";
    wait_for("both tarsnodes to start it", || deployment.query(running).trim() == "2");
    // A minute after the last change of its files it is started with the node: a test has no minute.
    for service in ["node", "node2"] {
        let old = ["find", FOLDER, "-exec", "touch", "-d", "2 minutes ago", "{}", "+"];
        succeed(Command::new("docker").args(["exec", &deployment.container(service)]).args(old));
    }
}

/// The clients, each in a container of its own.
struct Clients<'a>(&'a Deployment, Vec<(String, Child)>);

impl<'a> Clients<'a> {
    fn start(deployment: &'a Deployment) -> Self {
        let locator =
            format!("tcp -h {} -p 17890 tcp -h {} -p 17890", deployment.address(3), deployment.address(4));
        let start = |(kind, options): &(&str, &[&str])| {
            let name = deployment.container(kind);
            let _ = Command::new("docker").args(["rm", "-f", &name]).output();
            let mut command = Command::new("docker");
            command.args(["run", "--rm", "--name", &name, "--network", &deployment.network()]);
            command.args(["-v", &format!("{}:/standin:ro", standin()), "--entrypoint", "/standin"]);
            command.args([&format!("{PREFIX}/node:{OLD}"), "calls", OBJECT, &locator]).args(*options);
            (name, command.stdout(Stdio::piped()).spawn().unwrap())
        };
        let clients = Self(deployment, CLIENTS.iter().map(start).collect());
        thread::sleep(Duration::from_secs(2));
        clients
    }

    /// Ends them; nothing may be lost.
    #[track_caller]
    fn lost_nothing(self, told: &str) {
        let mut lost = String::new();
        for (name, child) in self.1 {
            succeed(Command::new("docker").args(["kill", "-s", "TERM", &name]));
            let out = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
            let counted: Value =
                serde_json::from_str(&out).unwrap_or_else(|error| panic!("{name}: {error}: {out}"));
            eprintln!("{name}: {out}");
            assert!(counted["calls"].as_u64() > Some(3), "{name}: {out}");
            if counted["failed"] != 0 {
                let _ = write!(lost, "{name}: {out}");
            }
        }
        assert!(lost.is_empty(), "{lost}\n{told}");
        let flows = "SELECT GROUP_CONCAT(DISTINCT flow_state) FROM db_tars.t_server_conf";
        assert_eq!(self.0.query(flows).trim(), "active", "everything is given back");
        assert_eq!(self.0.query("SELECT COUNT(*) FROM tarsup.t_drain").trim(), "0");
    }
}

/// Whether all is tried, in tests/long.sh.
fn is_long() -> bool {
    std::env::var_os("TARSUP_EVERY").is_some()
}

#[test]
fn no_call_is_lost_while_the_nodes_of_a_service_are_rolled() {
    let deployment = Deployment::new("e2e-drain", 15, ALL);
    deployment.edit("compose.yaml", "drain: off", "client_refresh: 5s, drain_timeout: 6s");
    deployment.tarsup(&["up", "--yes"]).exits(0);
    deploy(&deployment);

    let clients = Clients::start(&deployment);
    let ran = deployment.tarsup(&["restart", "node", "node2", "--yes"]).exits(0);
    assert_eq!(ran.err.matches("given back: Demo.HelloServer on").count(), 2, "{}", ran.err);
    clients.lost_nothing(&ran.err);
    if !is_long() {
        return;
    }

    let clients = Clients::start(&deployment);
    let ran = deployment.tarsup(&["upgrade", "--to", NEW, "--yes"]).exits(0);
    clients.lost_nothing(&ran.err);

    let clients = Clients::start(&deployment);
    let ran = deployment.tarsup(&["rollback", "--yes"]).exits(0);
    clients.lost_nothing(&ran.err);

    killed_and_resumed(&deployment);
    registry_down(&deployment);
    registry_in_another_zone(&deployment);
    administrators_hand(&deployment);
}

/// A kill while the first node is replaced, and `resume` that takes it back.
fn killed_and_resumed(deployment: &Deployment) {
    let clients = Clients::start(deployment);
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
    let clients = Clients::start(deployment);
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
        "not drained: Demo.HelloServer: tcp -h {} -p 17890 hands it out after",
        deployment.address(4)
    );
    assert!(ran.err.contains(&words), "{}", ran.err);
    deployment.edit("compose.yaml", "\n      TZ: <+09>-9", "");
    deployment.tarsup(&["up", "--yes"]).exits(0);
}

/// An administrator restarts the drained one (which sets its flow by itself), and stops the flow of the other one.
fn administrators_hand(deployment: &Deployment) {
    let clients = Clients::start(deployment);
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
    stop("inactive");
    // The first one is the only one that serves now: a question, and refused where somebody says so.
    let refused = deployment.tarsup(&["restart", "node", "--yes", "--no-gaps"]).exits(3);
    assert!(refused.err.contains("Demo.HelloServer"), "{}", refused.err);
    stop("active");
}
