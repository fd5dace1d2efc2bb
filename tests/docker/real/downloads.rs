//! What nodes install from: a node with upstream's own start, from a master of ours with the real web console.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;

use tarsup::tars::conf;

use super::stage::{PREFIX, RELEASE, UPSTREAM_NODE, WITH_WEB, stage_with};
use crate::e2e::deployment::{Deployment, wait_for};
use crate::e2e::stage::succeed;
use crate::turns::is_for_another_time;

const FILES: [&str; 12] = [
    "install.sh",
    "tarsAdminRegistry.tgz",
    "tarsconfig.tgz",
    "tarslog.tgz",
    "tarsnode.tgz",
    "tarsnotify.tgz",
    "tarspatch.tgz",
    "tarsproperty.tgz",
    "tarsqueryproperty.tgz",
    "tarsquerystat.tgz",
    "tarsregistry.tgz",
    "tarsstat.tgz",
];

/// A node beside the deployment, started as the documented line does: `docker run -e WEB_HOST=...`.
struct Node<'a> {
    deployment: &'a Deployment,
    name: String,
    host: u8,
}

impl Node<'_> {
    fn run(&self, image: &str) {
        let web = format!("WEB_HOST=http://{}:3000", self.deployment.address(3));
        let volume = format!("{}_node:/data/tars", self.deployment.name);
        succeed(
            Command::new("docker")
                .args(["run", "-d", "--name", &self.name, "--net", &self.deployment.network()])
                .args(["--ip", &self.deployment.address(self.host), "-e", "INET=eth0", "-e", &web])
                .args(["-v", &volume, image]),
        );
    }

    fn docker(&self, words: &[&str]) -> String {
        let output = succeed(Command::new("docker").args(words).arg(&self.name));
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    }

    fn inside(&self, words: &str) -> String {
        let output = Command::new("docker").args(["exec", &self.name, "sh", "-c", words]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// What the database has of it; another value after each registration: it replaces the row, which has another number
    /// then. The time alone counts in seconds, and one node may follow another within one.
    fn registered(&self) -> String {
        let address = self.deployment.address(self.host);
        let query = format!(
            "SELECT id, last_reg_time FROM db_tars.t_node_info WHERE node_name = '{address}' AND present_state = 'active'"
        );
        self.deployment.query(&query).trim().to_owned()
    }

    /// Waits until it has registered anew.
    fn comes_back(&self, before: &str) -> String {
        wait_for("the node to register", || !["", before].contains(&self.registered().as_str()));
        self.registered()
    }

    /// What there is to read of a node that does not register.
    fn evidence(&self) -> String {
        let web = format!("http://{}:3000", self.deployment.address(3));
        let (node, framework) = (self.name.clone(), self.deployment.container("framework"));
        let tail = |file: &str| {
            format!("echo; for file in {file}; do echo \"== $file\"; tail -n 40 \"$file\"; done")
        };
        let logs = "/usr/local/app/tars/app_log/tars/tarsnode/*.log /usr/local/app/tars/app_log/tars-init/tarsnode.log";
        let asked = format!(
            "cat /usr/local/app/tars/tarsnode/conf/*.conf; ps -eo pid,ppid,etime,stat,cmd; ls -l / /usr/local/app/tars/tarsnode/*; \
             curl -sm 5 -o /dev/null -w 'tarsnode.tgz %{{http_code}} %{{size_download}}\\n' {web}/files/tarsnode.tgz; \
             curl -sm 5 -w '\\nget_tarsnode %{{http_code}} %{{size_download}}\\n' '{web}/get_tarsnode?ip=192.0.2.1&runuser=root'"
        );
        let mut told = String::new();
        for (what, words) in [
            ("the node printed", vec!["logs", "--timestamps", "--tail", "150", &node]),
            ("the node has", vec!["exec", &node, "sh", "-c", &asked]),
            ("tarsnode logged", vec!["exec", &node, "sh", "-c", &tail(logs)]),
            ("the master printed", vec!["logs", "--timestamps", "--tail", "80", &framework]),
            (
                "the master logged",
                vec![
                    "exec",
                    &framework,
                    "sh",
                    "-c",
                    &tail(
                        "/data/tars/app_log/tars-init/web.log /data/tars/app_log/tars/tarsregistry/tars.tarsregistry.log",
                    ),
                ],
            ),
            (
                "the master runs",
                vec!["exec", &framework, "sh", "-c", "ps -eo pid,ppid,etime,stat,cmd; tars-init status"],
            ),
        ] {
            let output = Command::new("docker").args(words).output().unwrap();
            let (out, err) =
                (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            let _ = writeln!(told, "--- {what}\n{out}{err}");
        }
        let rows = "SELECT * FROM db_tars.t_node_info; SELECT * FROM db_tars.t_registry_info; SELECT NOW(), server, tgz, \
                    upload_user, posttime, update_text FROM db_tars.t_server_patchs";
        let _ = writeln!(told, "--- the database holds\n{}", self.deployment.query(rows));
        told
    }
}

impl Drop for Node<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.evidence());
        }
    }
}

/// A node's configuration, key by key.
fn configuration(node: &Node<'_>) -> BTreeMap<Vec<String>, String> {
    let text = node.inside("cat /usr/local/app/tars/tarsnode/conf/tars.tarsnode.config.conf");
    conf::pairs(&text).unwrap().into_iter().map(|(key, value)| (key, value.trim().to_owned())).collect()
}

fn sum(deployment: &Deployment, service: &str) -> String {
    let program = "/usr/local/app/tars/tarsnode/bin/tarsnode";
    let container = deployment.container(service);
    let output = succeed(Command::new("docker").args(["exec", &container, "md5sum", program]));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn real_node_made_the_upstream_way_comes_back_after_a_restart_and_after_a_recreate() {
    if is_for_another_time() {
        return;
    }
    let test = "real_node_made_the_upstream_way";
    let Some(stage) = stage_with(WITH_WEB, test) else { return };
    stage_with(UPSTREAM_NODE, test);
    let deployment = Deployment::of(stage, WITH_WEB, "real-install", 56, &["database", "framework"]);
    deployment.tarsup(&["up", "--yes"]).exits(0);
    let node = Node { deployment: &deployment, name: deployment.container("node"), host: 9 };
    let image = format!("{PREFIX}/{UPSTREAM_NODE}:1");

    node.run(&image);
    let first = node.comes_back("");
    let program = "md5sum /usr/local/app/tars/tarsnode/bin/tarsnode";
    assert_eq!(
        node.inside(program),
        sum(&deployment, "framework").trim(),
        "the program of the master's image"
    );
    for file in FILES {
        let url = format!("http://{}:3000/files/{file}", deployment.address(3));
        assert_eq!(node.inside(&format!("curl -so /dev/null -w '%{{http_code}}' {url}")), "200", "{file}");
    }
    node.docker(&["restart", "-t", "1"]);
    let second = node.comes_back(&first);
    node.docker(&["rm", "-f"]);
    node.run(&image);
    let third = node.comes_back(&second);

    // The console records each archive that it has not seen; the master that comes back serves the same bytes.
    let recorded = || {
        let query = "SELECT COUNT(*) FROM db_tars.t_server_patchs WHERE update_text = 'system install'";
        deployment.query(query).trim().to_owned()
    };
    wait_for("the console to record what is served", || recorded() == "11");
    deployment.tarsup(&["restart", "--yes"]).exits(0);
    node.docker(&["restart", "-t", "1"]);
    let fourth = node.comes_back(&third);
    assert_eq!(recorded(), "11");
    let by_upstream = configuration(&node);
    assert!(by_upstream.len() > 20, "{by_upstream:?}");

    // Ours in its place asks the same console, and remembers its answer in the volume.
    node.docker(&["rm", "-f"]);
    node.run(&format!("{PREFIX}/node:{RELEASE}"));
    node.comes_back(&fourth);
    let known = format!("registries as the web console at http://{}:3000 knows them", deployment.address(3));
    assert!(node.docker(&["logs"]).contains(&known), "{}", node.docker(&["logs"]));
    assert_eq!(configuration(&node), by_upstream);
}
