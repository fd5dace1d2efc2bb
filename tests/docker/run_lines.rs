//! `tarsup adopt` on containers made by the run lines that upstream documents and by upstream's compose files: a plan on what it
//! writes is empty, or says exactly what no file can say, and nothing of a container is touched.
//!
//! The images bear upstream's names and hold a program that sleeps: what is asked is what the engine shows of such containers.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::beside;
use crate::e2e::stage::succeed;
use crate::tiny;

/// What upstream's pages and files name.
const IMAGES: [&str; 6] = [
    "mysql:5.6",
    "mysql:8",
    "tarscloud/framework:latest",
    "tarscloud/framework:v2.4.0",
    "tarscloud/tars-node:cpp",
    "tarscloud/tars-node:latest",
];

/// Held by whoever takes a port of the host that upstream's run lines name: the engine has one network for all tests.
pub static HOST_PORTS: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Containers, networks and volumes of one test, removed with it.
struct Host {
    _ports: tokio::sync::MutexGuard<'static, ()>,
    folder: tempfile::TempDir,
    /// The deployment files, each in a folder of its own.
    containers: Vec<String>,
    networks: Vec<&'static str>,
}

impl Host {
    async fn new() -> Self {
        // Once for all tests: made again they would be others, under the names of those that run.
        static MADE: tokio::sync::OnceCell<()> = tokio::sync::OnceCell::const_new();
        MADE.get_or_init(Self::make_images).await;
        Self {
            _ports: HOST_PORTS.lock().await,
            folder: tempfile::tempdir().unwrap(),
            containers: Vec::new(),
            networks: Vec::new(),
        }
    }

    async fn make_images() {
        let engine = tiny::engine().await;
        let actor = tiny::actor_image(&engine, "run-lines").await.to_string();
        // One that sleeps by itself, as nothing may replace the start of an image.
        let made = succeed(Command::new("docker").args(["create", &actor]));
        let id = String::from_utf8(made.stdout).unwrap().trim().to_owned();
        let sleeps = ["commit", "--change", "ENTRYPOINT [\"/actor\", \"sleep\"]", &id, "run-lines:sleeps"];
        succeed(Command::new("docker").args(sleeps));
        succeed(Command::new("docker").args(["rm", &id]));
        for image in IMAGES {
            succeed(Command::new("docker").args(["tag", "run-lines:sleeps", image]));
        }
    }

    fn network(&mut self, name: &'static str, octet: u8) {
        let _ = Command::new("docker").args(["network", "rm", name]).output();
        let (subnet, gateway) =
            (format!("--subnet=172.{octet}.0.0/16"), format!("--gateway=172.{octet}.0.1"));
        succeed(Command::new("docker").args(["network", "create", "-d", "bridge", &subnet, &gateway, name]));
        self.networks.push(name);
    }

    /// `docker run WORDS`, with `PATH` for a folder of the host; the container's id.
    fn run(&mut self, words: &str) -> String {
        let folder = self.folder.path().display().to_string();
        if let Some(name) = words.split("--name=").nth(1).and_then(|rest| rest.split(' ').next()) {
            let _ = Command::new("docker").args(["rm", "-f", "-v", name]).output();
        }
        let words: Vec<String> = words.split_whitespace().map(|word| word.replace("PATH", &folder)).collect();
        let output = succeed(Command::new("docker").arg("run").args(&words));
        let id = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        self.containers.push(id.clone());
        id
    }

    /// Adopts them into `FOLDER/compose.yaml`; what `--json` prints, and the plan on it.
    fn adopted(&self, folder: &str, ids: &[&str]) -> (Value, Value) {
        let folder = self.folder.path().join(folder);
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join("compose.yaml");
        let before: Vec<Value> = ids.iter().map(|id| inspected(id)).collect();
        let mut words = vec!["adopt", "--json", "-o", file.to_str().unwrap()];
        words.extend(ids);
        let adoption = tarsup(&words);
        // Whoever rolls a deployment of the name that is taken where nothing else fits holds it meanwhile.
        let own = format!("lines-{}", folder.file_name().unwrap().to_str().unwrap());
        let plan = tarsup(&["plan", "--json", "-p", &own, "-f", file.to_str().unwrap()]);
        let text = fs::read_to_string(&file).unwrap();
        for written in fs::read_dir(&folder).unwrap().flatten().filter(|entry| entry.path().is_file()) {
            let mode = PermissionsExt::mode(&written.metadata().unwrap().permissions());
            assert_eq!(mode & 0o777, 0o600, "{}", written.path().display());
        }
        assert_eq!((&plan["steps"], &plan["questions"]), (&json!([]), &json!([])), "{plan:#}\n{text}");
        let after: Vec<Value> = ids.iter().map(|id| inspected(id)).collect();
        assert_eq!(before, after, "nothing of a container is touched");
        (adoption, plan)
    }

    fn file(&self, folder: &str) -> String {
        fs::read_to_string(self.folder.path().join(folder).join("compose.yaml")).unwrap()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for container in &self.containers {
            let _ = Command::new("docker").args(["rm", "-f", "-v", container]).output();
        }
        for network in &self.networks {
            let _ = Command::new("docker").args(["network", "rm", network]).output();
        }
    }
}

fn inspected(id: &str) -> Value {
    let output = succeed(Command::new("docker").args(["container", "inspect", id]));
    let mut all: Value = serde_json::from_slice(&output.stdout).unwrap();
    // The engine shows mounts in no order.
    if let Some(mounts) = all[0]["Mounts"].as_array_mut() {
        mounts.sort_by_key(|mount| mount["Destination"].to_string());
    }
    all[0].take()
}

#[track_caller]
fn tarsup(words: &[&str]) -> Value {
    let output = succeed(Command::new(env!("CARGO_BIN_EXE_tarsup")).args(words).stdin(Stdio::null()));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Each service's name, guessed role and what the file cannot say of it.
fn told(adoption: &Value) -> Vec<(String, String, Value)> {
    let services = adoption["services"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap_or("none").to_owned();
    services.map(|one| (text(&one["name"]), text(&one["role"]), one["unsaid"].clone())).collect()
}

fn of(name: &str, role: &str) -> (String, String, Value) {
    (name.to_owned(), role.to_owned(), json!([]))
}

const ZONE: &str = "-v /etc/localtime:/etc/localtime";

fn framework(net: &str, name: &str, net_octet: u8, host: u8, slave: bool, more: &str) -> String {
    format!(
        "-d --name={name} --net={net} --ip=172.{net_octet}.0.{host} -e MYSQL_HOST=172.{net_octet}.0.2 \
         -e MYSQL_ROOT_PASSWORD=r00t$p -e MYSQL_USER=root -e MYSQL_PORT=3306 -e REBUILD=false -e INET=eth0 -e SLAVE={slave} \
         -v PATH/{name}:/data/tars {ZONE} {more} tarscloud/framework:v2.4.0"
    )
}

#[tokio::test]
async fn run_lines_of_a_network_are_adopted_with_an_empty_plan_beside_another_deployment() {
    let mut host = Host::new().await;
    host.network("docs", 27);
    host.network("docs2", 26);
    let database = host.run(&format!(
        "-d --net=docs --ip=172.27.0.2 --name=docs-mysql -e MYSQL_ROOT_PASSWORD=r00t -v PATH/mysql:/var/lib/mysql {ZONE} mysql:5.6"
    ));
    let master = host.run(&framework("docs", "docs-framework", 27, 3, false, "-p 3000:3000 -p 3001:3001"));
    let slave = host.run(&framework("docs", "docs-framework-slave", 27, 4, true, ""));
    let node = host.run(&format!(
        "-d --net=docs --ip=172.27.0.5 --name=docs-node -e INET=eth0 -e WEB_HOST=http://172.27.0.3:3000 -v PATH/node:/data/tars {ZONE} \
         -p 9000-9010:9000-9010 tarscloud/tars-node:latest"
    ));
    // Another kind of node, with its volume without a name and without a fixed address, and both of the registries.
    let unnamed = host.run(
        "-d --net=docs -e DOMAIN=node.tars -e WEB_HOST=http://172.27.0.3:3000 --network-alias=node.tars -v /data/tars \
         -v /etc/localtime:/etc/localtime tarscloud/tars-node:cpp",
    );
    let second = host.run(&framework("docs2", "docs2-framework", 26, 3, false, "-p 4000:3000"));

    let (adoption, plan) =
        host.adopted("first", &[&database[..12], "docs-framework", "docs-framework-slave", &node, &unnamed]);

    let random = inspected(&unnamed)["Name"].as_str().unwrap().trim_start_matches('/').to_owned();
    assert_eq!(
        told(&adoption),
        [
            of("docs-mysql", "database"),
            of("docs-framework", "master"),
            of("docs-framework-slave", "slave"),
            of("docs-node", "node"),
            of(&random, "node"),
        ]
    );
    assert_eq!(adoption["deployment"], "docs");
    let file = host.file("first");
    assert!(!file.contains("r00t") && !plan.to_string().contains("r00t"), "{file}");
    for line in [
        "restart: \"no\"",
        "docs: {ipv4_address: \"172.27.0.4\"}",
        "- \"9010:9010\"",
        "- \"3001:3001\"",
        &format!("container_name: {random}"),
        &format!("adopted: {master}"),
        &format!("adopted: {slave}"),
    ] {
        assert!(file.contains(line), "{line}\n{file}");
    }
    let volume = inspected(&unnamed)["Mounts"]
        .as_array()
        .unwrap()
        .iter()
        .find_map(|mount| mount["Name"].as_str().map(str::to_owned))
        .unwrap();
    assert!(file.contains(&format!("{volume}:/data/tars")), "{file}");

    let (adoption, _) = host.adopted("second", &[&second]);

    assert_eq!(adoption["deployment"], "docs2");
    assert_eq!(told(&adoption), [of("docs2-framework", "master")]);
    // Both are there still, and neither is the other's.
    host.adopted("again", &[&database, &master, &slave, &node]);
}

#[tokio::test]
async fn run_lines_of_the_hosts_network_are_adopted_with_an_empty_plan_and_without_ports() {
    let mut host = Host::new().await;
    let database = host.run(
        "-d --restart=always --net=host -p 3306:3306 -e MYSQL_ROOT_PASSWORD=r00t -v PATH/mysql8:/var/lib/mysql \
         -v /etc/localtime:/etc/localtime mysql:8 --default-authentication-plugin=mysql_native_password",
    );
    let master = host.run(
        "-d --net=host -e MYSQL_HOST=127.0.0.1 -e MYSQL_ROOT_PASSWORD=r00t -e MYSQL_USER=root -e MYSQL_PORT=3306 \
         -e REBUILD=false -e INET=enp3s0 -e SLAVE=false -v PATH/host:/data/tars -v /etc/localtime:/etc/localtime \
         tarscloud/framework:v2.4.0",
    );

    let (adoption, _) = host.adopted("host", &[&database, &master]);

    let roles: Vec<String> = told(&adoption).into_iter().map(|(_, role, _)| role).collect();
    assert_eq!(roles, ["database", "master"], "{adoption:#}");
    let remarks = |at: usize| adoption["services"][at]["remarks"].to_string();
    assert!(remarks(0).contains("3306/tcp had no effect"), "{}", remarks(0));
    assert!(remarks(1).contains("nothing brings it back after a reboot"), "{}", remarks(1));
    let file = host.file("host");
    assert!(file.contains("network_mode: host") && !file.contains("ports:"), "{file}");
    assert!(file.contains("restart: always"), "{file}");
}

/// Compose itself, as the plugin or as the program; none where there is none.
pub fn compose() -> Option<Command> {
    let works = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
    let plugin = || {
        let mut command = Command::new("docker");
        command.arg("compose");
        command
    };
    let program = || Command::new("docker-compose");
    let is_plugin = works(plugin().arg("version"));
    (is_plugin || works(program().arg("version"))).then(|| if is_plugin { plugin() } else { program() })
}

/// False where this machine lets no container be privileged.
fn has_privileges() -> bool {
    let mut command = Command::new("docker");
    command.args(["run", "--rm", "--privileged", "--entrypoint", "/actor", "run-lines:sleeps", "exit", "0"]);
    command.output().unwrap().status.success()
}

/// Upstream's file in a folder of its own, up; the id of its one container.
fn up(host: &mut Host, project: &str, upstream: &Path, service: &str, container: &str) -> String {
    let folder = host.folder.path().join(project);
    fs::create_dir_all(folder.join("conf")).unwrap();
    fs::write(folder.join("conf/my.cnf"), "").unwrap();
    let _ = Command::new("docker").args(["rm", "-f", "-v", container]).output();
    let mut text = fs::read_to_string(upstream).unwrap();
    if !has_privileges() {
        text = text.replace("    privileged: true\n", "");
    }
    fs::write(folder.join("docker-compose.yml"), text).unwrap();
    if let Some(mut compose) = compose() {
        succeed(compose.args(["-p", project, "up", "-d"]).current_dir(&folder));
    } else {
        assert!(std::env::var_os("CI").is_none(), "docker-compose is missing");
        as_compose_would(&folder, project, service, container);
    }
    let id = inspected(container)["Id"].as_str().unwrap().to_owned();
    host.containers.push(id.clone());
    id
}

/// The same by hand, with the labels that compose puts on what it makes.
fn as_compose_would(folder: &Path, project: &str, service: &str, container: &str) {
    let here = folder.display().to_string();
    let label = |key: &str, value: &str| format!("--label=com.docker.compose.{key}={value}");
    let mut command = Command::new("docker");
    command.args(["run", "-d", "--name", container]);
    for (key, value) in [
        ("project", project),
        ("service", service),
        ("container-number", "1"),
        ("oneoff", "False"),
        ("version", "2.26.1"),
        ("project.working_dir", &here),
        ("config-hash", "0123"),
    ] {
        command.arg(label(key, value));
    }
    if service == "mysql" {
        let network = format!("{project}_default");
        let of = label("project", project);
        let _ = Command::new("docker").args(["network", "create", &of, &network]).output();
        command.args(["--net", &network, "--network-alias", service, "-p", "3306:3306"]);
        command.args([
            "-e",
            "MYSQL_ROOT_PASSWORD=root@123456",
            "-e",
            "MYSQL_USER=root",
            "-e",
            "MYSQL_PASS=root@123456",
        ]);
        command.args([
            "-v",
            &format!("{here}/db:/var/lib/mysql"),
            "-v",
            &format!("{here}/conf/my.cnf:/etc/my.cnf"),
        ]);
        if has_privileges() {
            command.arg("--privileged");
        }
        succeed(command.arg("mysql:5.6"));
    } else {
        for variable in
            ["MYSQL_HOST=127.0.0.1", "MYSQL_ROOT_PASSWORD=root@123456", "REBUILD=false", "SLAVE=false"]
        {
            command.args(["-e", variable]);
        }
        command.args(["--net", "host", "-v", &format!("{here}/data/tars:/data/tars")]);
        succeed(command.arg("tarscloud/framework:latest"));
    }
}

#[tokio::test]
async fn compose_files_of_upstream_are_adopted_with_an_empty_plan_and_said_to_be_of_compose() {
    let Some(real) = beside::folder("real", "compose_files_of_upstream") else { return };
    let mut host = Host::new().await;
    host.networks.push("upstreamdb_default");
    let database = up(&mut host, "upstreamdb", &real.join("upstream/mysql-compose.yaml"), "mysql", "mysql");
    let master =
        up(&mut host, "upstreamfw", &real.join("upstream/framework-compose.yaml"), "tars", "framework");

    let (adoption, _) = host.adopted("compose", &[&database, &master]);

    assert_eq!(told(&adoption), [of("mysql", "database"), of("tars", "master")], "{adoption:#}");
    let notes = adoption["notes"].to_string();
    let removes = "would still remove its containers and its network upstreamdb_default";
    assert_eq!(notes.matches(removes).count(), 1, "{notes}");
    assert_eq!(notes.matches("upstreamfw").count(), 1, "{notes}");
    let file = host.file("compose");
    assert!(!file.contains("com.docker.compose") && !file.contains("root@123456"), "{file}");
    for line in ["container_name: framework", "- \"3306:3306\"", "upstreamdb_default: {external: true}"] {
        assert!(file.contains(line), "{line}\n{file}");
    }
}
