//! Two hosts: a private engine each, a cable between them, and over one database a deployment on each that roll at once. In
//! tests/long.sh.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::deployment::{Deployment, PASSWORD};
use super::servers::{CLIENTS, Clients, Server, deploy, wait_until_they_run};
use super::stage::{NEW, OLD, PREFIX, Stage, succeed};

/// Another private engine, which is gone with the test.
struct Engine {
    name: String,
    folder: PathBuf,
}

impl Engine {
    /// One beside the engine of these tests.
    fn start() -> Self {
        let host = std::env::var("DOCKER_HOST").unwrap();
        let first = Path::new(host.strip_prefix("unix://").expect("it has a socket")).parent().unwrap();
        let name = format!("{}-two", first.file_name().unwrap().to_str().unwrap());
        let engine = Self { folder: first.with_file_name(&name), name };
        engine.script("stop");
        engine.script("start");
        engine
    }

    fn script(&self, act: &str) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/engine.sh");
        succeed(Command::new("sh").arg(script).args([act, &self.name]));
    }

    /// What commands find it by.
    fn host(&self) -> String {
        format!("unix://{}", self.folder.join("docker.sock").display())
    }

    /// A cable from here to it: the network behind each end is found through the other one.
    fn cable(&self, here: &str, there: &str) {
        let namespace = self.folder.join("net");
        let namespace = namespace.display();
        // What an engine forwards is what it knows, and it knows nothing of cables.
        let open = "t=iptables; $t -t nat -nL >/dev/null 2>&1 || t=iptables-legacy; $t -I FORWARD -j ACCEPT";
        let end = |device: &str, host: u8, peer: u8, network: &str| {
            format!(
                "ip address add 172.30.109.{host}/30 dev {device} && ip link set {device} up && \
                 ip route add {network} via 172.30.109.{peer} && {open}"
            )
        };
        let made = format!("ip link add tarsup-one type veth peer name tarsup-two netns {namespace}");
        succeed(Command::new("sh").args(["-c", &made]));
        let across = end("tarsup-two", 2, 1, here);
        succeed(Command::new("nsenter").arg(format!("--net={namespace}")).args(["sh", "-c", &across]));
        succeed(Command::new("sh").args(["-c", &end("tarsup-one", 1, 2, there)]));
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/engine.sh");
        let _ = Command::new("sh").arg(script).args(["stop", &self.name]).output();
    }
}

/// The deployment of the second host: a node alone, which names an account at the first one's database.
fn of_second_host(first: &Deployment) -> Deployment {
    let other = Deployment::new("e2e-engines-two", 108, &[]);
    let node = other.node("node", 5).replace("    depends_on: [framework]\n", "");
    // The registries are the first one's.
    let node = node
        .replace(&format!("-h {}", other.address(3)), &format!("-h {}", first.address(3)))
        .replace(&format!("-h {}", other.address(4)), &format!("-h {}", first.address(4)));
    let account = format!("MYSQL_HOST={}\nMYSQL_ROOT_PASSWORD={PASSWORD}\n", first.address(2));
    other.write("db.env", &account);
    other.write(
        "compose.yaml",
        &format!(
            "name: e2e-engines-two\nx-tars: {{client_refresh: 5s, drain_timeout: 6s, gate_timeout: 90s, dwell: 1s, \
             database: {{env_file: db.env}}}}\nservices:\n{node}networks:\n  default:\n    ipam:\n      \
             config: [{{subnet: 172.30.108.0/24, ip_range: 172.30.108.128/25}}]\nvolumes:\n  node:\n"
        ),
    );
    other
}

#[test]
fn two_engines_that_roll_at_once_over_one_database_lose_no_call() {
    if std::env::var_os("TARSUP_EVERY").is_none() {
        return;
    }
    let first = &Deployment::new("e2e-engines", 107, &["database", "framework", "slave", "node"]);
    first.edit("compose.yaml", "drain: off", "client_refresh: 5s, drain_timeout: 6s");
    // The node moves alone: its image has a line of its own.
    first.edit("compose.yaml", &format!("{PREFIX}/node:${{TARS_VERSION}}"), &format!("{PREFIX}/node:{OLD}"));
    first.tarsup(&["up", "--yes"]).exits(0);
    let engine = Engine::start();
    engine.cable("172.30.107.0/24", "172.30.108.0/24");
    let host = engine.host();
    for version in [OLD, NEW] {
        let image = format!("{PREFIX}/node:{version}");
        let to = format!("docker-daemon:{image}");
        succeed(Stage::get().tarsup().args(["copy", &image, &to]).env("DOCKER_HOST", &host));
    }
    let second = &of_second_host(first);
    let there = |words: &[&str]| second.tarsup_with(words, &[("DOCKER_HOST", host.as_str())]);
    there(&["up", "--yes"]).exits(0);

    // A service on a node of each, and one on the second host alone.
    let pair = Server::new("PairServer", "tcp -p 9031", &[("node", 5)]);
    pair.put("e2e-engines-two-node", &[("DOCKER_HOST", &host)]);
    pair.register(first, "172.30.108.5");
    deploy(first, &[pair]);
    wait_until_they_run(first);

    for words in [
        ["restart", "node", "--yes", "--wait"].map(str::to_owned),
        [
            "upgrade".to_owned(),
            format!("--image=node={PREFIX}/node:{NEW}"),
            "--yes".to_owned(),
            "--wait".to_owned(),
        ],
    ] {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let clients = Clients::start(first, &[&pair.object()], &CLIENTS);
        let here = first.spawn(&words);
        let mut command = second.command(&words);
        let log = std::fs::File::create(second.path("spawned.log")).unwrap();
        command.env("DOCKER_HOST", &host).stdout(log.try_clone().unwrap()).stderr(log);
        let mut told = String::new();
        for (deployment, mut child) in [(first, here), (second, command.spawn().unwrap())] {
            let done = child.wait().unwrap();
            told += &deployment.read("spawned.log");
            assert!(done.success(), "{told}");
        }
        eprintln!("{told}");
        assert!(told.contains("waiting"), "{words:?}: one waits for the other: {told}");
        assert_eq!(told.matches("given back: Demo.PairServer on").count(), 2, "{words:?}: {told}");
        clients.lost_nothing(&told);
    }
}
