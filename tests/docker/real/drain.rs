//! What clients notice of an upgrade of the real framework: a service on two nodes is called all the time.

use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::rows::wait_for_nodes;
use super::stage::{PATCHED, RELEASE, stage};
use super::{deployed, hello};
use crate::e2e::deployment::{Deployment, wait_for};
use crate::e2e::stage::succeed;
use crate::turns::is_for_another_time;

const ALL: &[&str] = &["database", "framework", "slave", "node", "node2"];

/// A client that calls 200 times a second until it is told to stop.
struct Client {
    process: Child,
    container: String,
}

impl Client {
    /// One that asks the registries anew so often, in seconds.
    fn start(deployment: &Deployment, refresh: u32) -> Self {
        let container = format!("{}-client-{refresh}", deployment.network());
        // One that a test which failed has left.
        let _ = Command::new("docker").args(["rm", "-f", &container]).output();
        let registries = [&*deployment.address(3), &*deployment.address(4)];
        let mut command = hello::client(&deployment.network(), registries, &container);
        command.args([
            "-r",
            "200",
            "-c",
            "64",
            "-p",
            &format!("refresh-endpoint-interval={}", refresh * 1000),
        ]);
        let process = command.stdout(Stdio::piped()).spawn().unwrap();
        thread::sleep(Duration::from_secs(5));
        Self { process, container }
    }

    /// What it counted: its `result` line, and what went wrong when.
    fn stop(self) -> String {
        succeed(Command::new("docker").args(["kill", "-s", "TERM", &self.container]));
        String::from_utf8(self.process.wait_with_output().unwrap().stdout).unwrap()
    }
}

/// Nothing failed, and nothing was not even tried.
#[track_caller]
fn lost_nothing(result: &str, told: &str) {
    assert_eq!((figure(result, "failed"), figure(result, "dropped_slots")), (0.0, 0.0), "{result}\n{told}");
}

fn figure(result: &str, key: &str) -> f64 {
    let line = result.lines().find(|line| line.starts_with("result ")).unwrap_or_else(|| panic!("{result}"));
    let word = line.split_whitespace().find_map(|word| word.strip_prefix(&format!("{key}=")));
    word.unwrap().parse().unwrap()
}

#[test]
fn real_upgrade_loses_no_call_of_a_service_on_two_nodes() {
    if is_for_another_time() {
        return;
    }
    let Some(stage) = stage("real_upgrade_loses_no_call") else { return };
    let deployment = Deployment::of(stage, RELEASE, "real-drain", 87, ALL);
    // Both at a time, says the file; what runs there says that they must not.
    deployment.edit("compose.yaml", "drain: off", "client_refresh: 15s, drain_timeout: 16s, batch: 2");
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

    let client = Client::start(&deployment, 5);
    let said = |words: &[&str]| {
        String::from_utf8(succeed(Command::new("docker").args(words)).stdout).unwrap().trim().to_owned()
    };
    let address = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let from = said(&["inspect", "-f", address, &client.container]);
    let traffic = said(&["exec", &deployment.container("node"), "tars-init", "traffic", "9001"]);
    assert!(traffic.contains(&format!(r#"[{{"port":9001,"peer":"{from}","#)), "{from}: {traffic}");
    // A tarsnode keeps a connection to each registry of its locator: by that those of other hosts are judged.
    for registry in ["framework", "slave"] {
        for (_, host) in nodes {
            let peer = format!(r#""peer":"{}""#, deployment.address(host));
            let asked = [
                "exec",
                &deployment.container(registry),
                "tars-init",
                "traffic",
                "--connected",
                "17890",
                "17891",
            ];
            wait_for("the node to be connected to each registry", || said(&asked).contains(&peer));
        }
    }
    let begun = Instant::now();
    let ran = deployment.tarsup(&["upgrade", "--to", PATCHED, "--yes"]).exits(0);
    // Three minutes of calls, however fast that was.
    thread::sleep(Duration::from_mins(3).saturating_sub(begun.elapsed()));
    let result = client.stop();

    eprintln!("{}\n{result}", ran.err);
    assert!(ran.err.contains("drained: Demo.HelloServer on"), "{}", ran.err);
    let batches = "nodes go by what runs on them, the one with least first: `node`, `node2`";
    assert!(ran.err.contains(batches), "{}", ran.err);
    let still = ran.err.lines().find(|line| line.contains("still called") && line.contains("HelloServer"));
    assert_eq!(still, None, "its client has asked anew: {}", ran.err);
    assert!(figure(&result, "calls") > 30_000.0, "{result}");
    lost_nothing(&result, &ran.err);
    assert_eq!(deployment.query(flows).trim(), "active", "everything is given back");
    for (node, _) in nodes {
        let log = deployed::log_of(&deployment, node);
        assert!(log.contains(deployed::AT_ONCE), "{node}: {log}");
    }
    assert_eq!(deployment.query("SELECT COUNT(*) FROM tarsup.t_drain").trim(), "0");

    is_refused_where_the_new_image_cannot_run_it(&deployment);
    if std::env::var_os("TARSUP_EVERY").is_none() {
        return;
    }
    is_silent_no_longer_than_a_restart(&deployment);
    deployed::services_of_a_node_start_with_it_and_are_waited_for();
    loses_both_by_hand(&deployment);
    loses_nothing_with_the_defaults(&deployment);
}

/// What only the container's own layer can run, and the new image cannot, is refused before anything is stopped.
fn is_refused_where_the_new_image_cannot_run_it(deployment: &Deployment) {
    let (node, server) = (deployment.container("node"), deployed::SERVER);
    let only_here = format!(
        "mkdir /only-here && cp /bin/sh /only-here/sh && mv {server} {server}.real && \
         printf '#!/only-here/sh\\nexec {server}.real \"$@\"\\n' > {server} && chmod 755 {server}"
    );
    succeed(Command::new("docker").args(["exec", &node, "sh", "-c", &only_here]));
    let before = deployment.containers();
    let refused = deployment.tarsup(&["upgrade", "--to", RELEASE, "--yes"]).exits(3);
    let words = ["`node`", "cannot run Demo.HelloServer", "needs /only-here/sh, which is not there"];
    assert!(words.iter().all(|words| refused.err.contains(words)), "{}", refused.err);
    assert_eq!(deployment.containers(), before);
    assert!(deployment.answers("node") && deployment.version("node") == PATCHED);
    succeed(Command::new("docker").args(["exec", &node, "mv", &format!("{server}.real"), server]));
}

/// What is lost would be seen above: both at once, by hand. (One after the other without drains may lose nothing: each is up again
/// within a second, and the client goes to the other one.)
fn loses_both_by_hand(deployment: &Deployment) {
    let client = Client::start(deployment, 5);
    let nodes = ["node", "node2"].map(|node| deployment.container(node));
    succeed(Command::new("docker").arg("kill").args(&nodes));
    succeed(Command::new("docker").arg("start").args(&nodes));
    for host in [5, 7] {
        wait_for("it to answer again", || hello::call(deployment, Some(host)).code == 0);
    }
    let result = client.stop();
    eprintln!("{result}");
    assert!(figure(&result, "failed") + figure(&result, "dropped_slots") > 0.0, "{result}");
}

/// Clients that ask anew every 5 and every 60 s, through a whole upgrade and back: some ten minutes.
fn loses_nothing_with_the_defaults(deployment: &Deployment) {
    deployment.edit("compose.yaml", "client_refresh: 15s, drain_timeout: 16s, batch: 2", "drain: auto");
    for words in [&["upgrade", "--to", PATCHED, "--yes"][..], &["rollback", "--yes"]] {
        let clients = [5, 60].map(|refresh| Client::start(deployment, refresh));
        let ran = deployment.tarsup(words).exits(0);
        let results = clients.map(Client::stop);
        eprintln!("{words:?}\n{}\n{}", ran.err, results.join("\n"));
        for result in &results {
            lost_nothing(result, &ran.err);
        }
    }
}

/// A service with one instance is silent while its node is swapped: not much longer than for a plain restart of the container.
fn is_silent_no_longer_than_a_restart(deployment: &Deployment) {
    let set = |state: &str| {
        deployment.query(&format!(
            "UPDATE db_tars.t_server_conf SET setting_state = '{state}' WHERE server_name = 'HelloServer' AND node_name = '{}'",
            deployment.address(7)
        ));
    };
    set("inactive");
    succeed(Command::new("docker").args([
        "exec",
        &deployment.container("node2"),
        "pkill",
        "-x",
        "HelloServer",
    ]));
    // Until no registry hands it out any more, and a minute after the last change of the other one's files.
    thread::sleep(Duration::from_secs(61));
    let silence = |act: &dyn Fn()| {
        let client = Client::start(deployment, 5);
        act();
        thread::sleep(Duration::from_secs(20));
        let result = client.stop();
        eprintln!("{result}");
        figure(&result, "longest_gap_s")
    };
    let plain = silence(&|| {
        succeed(Command::new("docker").args(["restart", &deployment.container("node")]));
    });
    let swapped = silence(&|| {
        deployment.tarsup(&["upgrade", "--to", RELEASE, "--yes"]).exits(0);
    });
    let told = deployment.tarsup(&["history", "show"]).exits(0).out;
    eprintln!("silent for {plain} s at a plain restart, for {swapped} s in an upgrade\n{told}");
    assert!(swapped <= plain * 1.5, "{swapped} s against {plain} s");
    // As it was.
    set("active");
    succeed(Command::new("docker").args(["restart", &deployment.container("node2")]));
    wait_for("tarsnode to start it", || hello::call(deployment, Some(7)).code == 0);
}
