//! What clients notice of an upgrade of the real framework: a service on two nodes is called all the time.

use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use super::rows::wait_for_nodes;
use super::stage::{PATCHED, RELEASE, stage};
use super::{deployed, hello};
use crate::e2e::deployment::{Deployment, wait_for};
use crate::e2e::stage::succeed;

const ALL: &[&str] = &["database", "framework", "slave", "node", "node2"];

/// A client that calls 200 times a second until it is told to stop.
struct Client(Child);

impl Client {
    fn start(deployment: &Deployment) -> Self {
        // One that a test which failed has left.
        let _ =
            Command::new("docker").args(["rm", "-f", &format!("{}-client", deployment.network())]).output();
        let mut command =
            hello::client(&deployment.network(), [&deployment.address(3), &deployment.address(4)]);
        command.args(["-r", "200", "-c", "64", "-p", "refresh-endpoint-interval=5000"]);
        let client = Self(command.stdout(Stdio::piped()).spawn().unwrap());
        thread::sleep(Duration::from_secs(5));
        client
    }

    /// What it counted: its `result` line, and what went wrong when.
    fn stop(self, deployment: &Deployment) -> String {
        let name = format!("{}-client", deployment.network());
        succeed(Command::new("docker").args(["kill", "-s", "TERM", &name]));
        String::from_utf8(self.0.wait_with_output().unwrap().stdout).unwrap()
    }
}

fn figure(result: &str, key: &str) -> f64 {
    let line = result.lines().find(|line| line.starts_with("result ")).unwrap_or_else(|| panic!("{result}"));
    let word = line.split_whitespace().find_map(|word| word.strip_prefix(&format!("{key}=")));
    word.unwrap().parse().unwrap()
}

#[test]
fn real_upgrade_loses_no_call_of_a_service_on_two_nodes() {
    let Some(stage) = stage("real_upgrade_loses_no_call") else { return };
    let deployment = Deployment::of(stage, RELEASE, "real-drain", 87, ALL);
    deployment.edit("compose.yaml", "drain: off", "client_refresh: 8s, drain_timeout: 9s");
    deployment.tarsup(&["up", "--yes"]).exits(0);
    let nodes = [("node", 5), ("node2", 7)];
    hello::deploy(&deployment, &nodes);
    wait_for_nodes(&deployment, 4);
    for (node, host) in nodes {
        succeed(Command::new("docker").args(["restart", &deployment.container(node)]));
        wait_for("tarsnode to start it", || hello::call(&deployment, Some(host)).code == 0);
    }
    // A minute after the last change of its files it is started with the node.
    thread::sleep(Duration::from_secs(61));
    let flows = "SELECT GROUP_CONCAT(DISTINCT flow_state) FROM db_tars.t_server_conf";
    assert_eq!(deployment.query(flows).trim(), "active");

    let client = Client::start(&deployment);
    let said = |words: &[&str]| {
        String::from_utf8(succeed(Command::new("docker").args(words)).stdout).unwrap().trim().to_owned()
    };
    let address = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let from = said(&["inspect", "-f", address, &format!("{}-client", deployment.network())]);
    let traffic = said(&["exec", &deployment.container("node"), "tars-init", "traffic", "9001"]);
    assert!(traffic.contains(&format!(r#"[{{"port":9001,"peer":"{from}","#)), "{from}: {traffic}");
    let ran = deployment.tarsup(&["upgrade", "--to", PATCHED, "--yes"]).exits(0);
    let result = client.stop(&deployment);

    eprintln!("{}\n{result}", ran.err);
    assert!(ran.err.contains("drained: Demo.HelloServer on"), "{}", ran.err);
    let still = ran.err.lines().find(|line| line.contains("still called") && line.contains("HelloServer"));
    assert_eq!(still, None, "its client has asked anew: {}", ran.err);
    assert!(figure(&result, "calls") > 5000.0, "{result}");
    assert_eq!(
        (figure(&result, "failed"), figure(&result, "dropped_slots")),
        (0.0, 0.0),
        "{result}\n{}",
        ran.err
    );
    assert_eq!(deployment.query(flows).trim(), "active", "everything is given back");
    for (node, _) in nodes {
        let log = deployed::log_of(&deployment, node);
        assert!(log.contains(deployed::AT_ONCE), "{node}: {log}");
    }
    assert_eq!(deployment.query("SELECT COUNT(*) FROM tarsup.t_drain").trim(), "0");

    // Both instances at once, in tests/long.sh: what is lost then would be seen.
    if std::env::var_os("TARSUP_EVERY").is_none() {
        return;
    }
    deployed::services_of_a_node_start_with_it_and_are_waited_for();
    deployment.edit("compose.yaml", "client_refresh: 8s, drain_timeout: 9s", "drain: off, batch: 2");
    let client = Client::start(&deployment);
    let ran = deployment.tarsup(&["upgrade", "--to", RELEASE, "--yes"]).exits(0);
    let result = client.stop(&deployment);
    eprintln!("{result}");
    assert!(!ran.err.contains("drained: "), "{}", ran.err);
    assert!(figure(&result, "failed") + figure(&result, "dropped_slots") > 0.0, "{result}");
}
