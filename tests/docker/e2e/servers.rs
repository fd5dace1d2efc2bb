//! Business services on the nodes of a deployment: stand-ins that their tarsnodes start, and clients that call them.

use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::deployment::{Deployment, wait_for};
use super::stage::{OLD, PREFIX, succeed};

/// A server of the application `Demo`.
#[derive(Clone, Copy)]
pub struct Server<'a> {
    /// Such as `HelloServer`.
    pub name: &'a str,
    /// Such as `tcp -p 9001`; empty: it has no adapter.
    pub listens: &'a str,
    /// The nodes: service of the file and host of the network.
    pub on: &'a [(&'a str, u8)],
    /// Who may connect; empty: everybody.
    pub allow_ip: &'a str,
    /// `base_path`; empty: where tarsnode has it by itself.
    pub folder: &'a str,
    /// More of its row, as `UPDATE` has it; empty: nothing.
    pub row: &'a str,
}

impl<'a> Server<'a> {
    /// One as they mostly are.
    pub fn new(name: &'a str, listens: &'a str, on: &'a [(&'a str, u8)]) -> Self {
        Self { name, listens, on, allow_ip: "", folder: "", row: "" }
    }

    /// The object that clients call.
    pub fn object(&self) -> String {
        format!("Demo.{}.Obj", self.name)
    }

    /// Its folder inside the nodes.
    pub fn home(&self) -> String {
        if self.folder.is_empty() {
            format!("/data/tars/tarsnode-data/Demo.{}", self.name)
        } else {
            self.folder.to_owned()
        }
    }

    /// Puts its files onto its nodes, and its rows into the database.
    pub fn deploy(&self, deployment: &Deployment) {
        for (service, host) in self.on {
            self.put(&container_of(deployment, service), &[]);
            self.register(deployment, &deployment.address(*host));
        }
    }

    /// Its program in a node; `environment` names another engine.
    pub fn put(&self, container: &str, environment: &[(&str, &str)]) {
        let (name, home) = (self.name, self.home());
        let docker = || {
            let mut command = Command::new("docker");
            command.envs(environment.iter().copied());
            command
        };
        succeed(docker().args(["exec", container, "mkdir", "-p", &format!("{home}/bin")]));
        succeed(docker().args(["cp", &standin(), &format!("{container}:{home}/bin/{name}")]));
    }

    /// Its rows for the node of this name.
    pub fn register(&self, deployment: &Deployment, node: &str) {
        let (name, object, allow_ip) = (self.name, self.object(), self.allow_ip);
        if let Some((protocol, port)) = self.listens.split_once(" -p ") {
            deployment.query(&format!(
                "INSERT INTO db_tars.t_adapter_conf (application, server_name, node_name, adapter_name, endpoint, servant, protocol, \
                 allow_ip) VALUES ('Demo', '{name}', '{node}', '{object}Adapter', '{protocol} -h {node} -t 60000 -p {port}', \
                 '{object}', 'tars', '{allow_ip}')"
            ));
        }
        let more = if self.row.is_empty() { String::new() } else { format!(", {}", self.row) };
        deployment.query(&format!(
            "INSERT INTO db_tars.t_server_conf SET application = 'Demo', server_name = '{name}', node_name = '{node}', \
             setting_state = 'active', present_state = 'inactive', base_path = '{}'{more}",
            self.folder
        ));
    }
}

/// The container of a node, also where it belongs to another deployment beside this one.
fn container_of(deployment: &Deployment, service: &str) -> String {
    if service.starts_with("e2e-") { service.to_owned() } else { deployment.container(service) }
}

/// The program that plays it, and its clients.
pub fn standin() -> String {
    std::env::var("TARSUP_TEST_STANDIN")
        .expect("TARSUP_TEST_STANDIN names the stand-ins, as tests/all.sh does")
}

/// Deploys them, and waits until the tarsnodes have started them.
pub fn deploy(deployment: &Deployment, servers: &[Server<'_>]) {
    for server in servers {
        server.deploy(deployment);
    }
    wait_until_they_run(deployment);
}

/// Until everything that is to run does.
pub fn wait_until_they_run(deployment: &Deployment) {
    let missing = "SELECT CONCAT(server_name, ' on ', node_name) FROM db_tars.t_server_conf WHERE application = 'Demo' AND \
                   setting_state = 'active' AND present_state <> 'active'";
    let begun = Instant::now();
    wait_for("the tarsnodes to start everything", || {
        let missing = deployment.query(missing);
        if begun.elapsed() > Duration::from_mins(1) {
            eprintln!("not started: {}", missing.trim().replace('\n', ", "));
        }
        missing.trim().is_empty()
    });
}

/// A kind of client: its name, and how it calls.
pub type Kind = (&'static str, &'static [&'static str]);

/// Every client asks again within 4 s: one that calls all the time, one that calls seldom, and one that connects anew for each call.
pub const CLIENTS: [Kind; 3] = [
    ("fast", &["--every", "10", "--refresh", "4"]),
    ("seldom", &["--every", "2500", "--refresh", "4"]),
    ("anew", &["--every", "10", "--refresh", "4", "--anew"]),
];
/// The same as configuration from the templates has them: they ask again after a minute, and one calls every 25 s.
pub const AS_BY_DEFAULT: [Kind; 3] = [
    ("fast", &["--every", "10", "--refresh", "60"]),
    ("seldom", &["--every", "25000", "--refresh", "60"]),
    ("anew", &["--every", "10", "--refresh", "60", "--anew"]),
];

/// The clients, each in a container of its own.
pub struct Clients<'a>(&'a Deployment, Vec<(String, Child)>);

impl<'a> Clients<'a> {
    /// One of each kind for each object.
    pub fn start(deployment: &'a Deployment, objects: &[&str], kinds: &[Kind]) -> Self {
        let locator =
            format!("tcp -h {} -p 17890 tcp -h {} -p 17890", deployment.address(3), deployment.address(4));
        let start = |object: &str, (kind, options): &Kind| {
            let of = object.split('.').nth(1).unwrap().to_lowercase();
            let name = deployment.container(&format!("{of}-{kind}"));
            let _ = Command::new("docker").args(["rm", "-f", &name]).output();
            let mut command = Command::new("docker");
            command.args(["run", "--rm", "--name", &name, "--network", &deployment.network()]);
            command.args(["-v", &format!("{}:/standin:ro", standin()), "--entrypoint", "/standin"]);
            command.args([&format!("{PREFIX}/node:{OLD}"), "calls", object, &locator]).args(*options);
            (name, command.stdout(Stdio::piped()).spawn().unwrap())
        };
        let all = objects.iter().flat_map(|object| kinds.iter().map(|kind| start(object, kind)));
        let clients = Self(deployment, all.collect());
        thread::sleep(Duration::from_secs(2));
        clients
    }

    /// Ends them: name and what each counted.
    #[track_caller]
    pub fn end(self) -> Vec<(String, Value)> {
        let end = |(name, child): (String, Child)| {
            succeed(Command::new("docker").args(["kill", "-s", "TERM", &name]));
            let out = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
            eprintln!("{name}: {out}");
            let counted = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{name}: {error}: {out}"));
            (name, counted)
        };
        self.1.into_iter().map(end).collect()
    }

    /// Ends them; nothing may be lost, and everything must be given back.
    #[track_caller]
    pub fn lost_nothing(self, told: &str) {
        let deployment = self.0;
        for (name, counted) in self.end() {
            assert!(counted["calls"].as_u64() > Some(3), "{name}: {counted}");
            assert_eq!(counted["failed"], 0, "{name}: {counted}\n{told}");
        }
        is_given_back(deployment);
    }
}

/// No flow is stopped, and no drain is left.
#[track_caller]
pub fn is_given_back(deployment: &Deployment) {
    let flows = "SELECT GROUP_CONCAT(DISTINCT flow_state) FROM db_tars.t_server_conf";
    assert_eq!(deployment.query(flows).trim(), "active", "everything is given back");
    assert_eq!(deployment.query("SELECT COUNT(*) FROM tarsup.t_drain").trim(), "0");
}
