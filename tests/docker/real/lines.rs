//! The documented run lines, with only the image's name changed: from upstream's start to ours on the same database and
//! volume, and back.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use tarsup::tars::conf;

use super::stage::{PREFIX, RELEASE, UPSTREAM_FRAMEWORK, WITH_WEB, stage, stage_with};
use crate::e2e::deployment::wait_for;
use crate::e2e::stage::{init_program, succeed};
use crate::run_lines::HOST_PORTS;
use crate::turns::is_for_another_time;

const PASSWORD: &str = "lines-secret";
const NET: &str = "tarsup-lines";
const SUBNET: &str = "172.30.70";

/// Everything that the lines make, removed with it.
pub struct Lines {
    /// The network's name, and the prefix of all others.
    pub net: &'static str,
    subnet: &'static str,
    /// What the database is called after the prefix.
    database: &'static str,
    pub folder: tempfile::TempDir,
}

impl Lines {
    /// The network, and the database of its line.
    fn begin() -> Self {
        Self::begin_on(NET, SUBNET, "database")
    }

    /// The same on another network, whose name is the prefix of all others.
    pub fn begin_on(net: &'static str, subnet: &'static str, database: &'static str) -> Self {
        let lines = Self { net, subnet, database, folder: tempfile::tempdir().unwrap() };
        lines.remove();
        // What a host in China has there: its own file, one name of a zone eight hours ahead.
        let mut zone = b"TZif".to_vec();
        zone.extend([0; 32]);
        zone.extend([0, 0, 0, 1, 0, 0, 0, 4]);
        zone.extend(28_800_i32.to_be_bytes());
        zone.extend(*b"\0\0CST\0");
        std::fs::write(lines.folder.path().join("localtime"), zone).unwrap();
        let range = format!("--subnet={subnet}.0/24");
        let gateway = format!("--gateway={subnet}.1");
        succeed(Command::new("docker").args(["network", "create", "-d", "bridge", &range, &gateway, net]));
        let password = format!("MYSQL_ROOT_PASSWORD={PASSWORD}");
        lines.run(database, 2, "/var/lib/mysql", &[&password], &format!("{PREFIX}/database:10.11"));
        wait_for("the database", || lines.try_query("SELECT 1").is_some());
        lines
    }

    /// One line: `docker run -d --net --ip --name -e ... -v ... -v /etc/localtime IMAGE`.
    pub fn run(&self, service: &str, host: u8, data: &str, environment: &[&str], image: &str) {
        let (net, subnet) = (self.net, self.subnet);
        let mut command = Command::new("docker");
        command.args(["run", "-d", &format!("--net={net}"), &format!("--ip={subnet}.{host}")]);
        command.arg(format!("--name={net}-{service}"));
        for variable in environment {
            command.args(["-e", variable]);
        }
        command.args(["-v", &format!("{net}-{service}:{data}")]);
        command.args(["-v", &format!("{}:/etc/localtime", self.folder.path().join("localtime").display())]);
        succeed(command.arg(image));
    }

    pub fn framework(&self, service: &str, host: u8, slave: &str, image: &str) {
        self.framework_with(service, host, slave, "false", image);
    }

    /// The same with another `REBUILD`.
    pub fn framework_with(&self, service: &str, host: u8, slave: &str, rebuild: &str, image: &str) {
        let subnet = self.subnet;
        let environment = [
            format!("MYSQL_HOST={subnet}.2"),
            format!("MYSQL_ROOT_PASSWORD={PASSWORD}"),
            "MYSQL_USER=root".to_owned(),
            "MYSQL_PORT=3306".to_owned(),
            format!("REBUILD={rebuild}"),
            "INET=eth0".to_owned(),
            format!("SLAVE={slave}"),
        ];
        let environment: Vec<&str> = environment.iter().map(String::as_str).collect();
        self.run(service, host, "/data/tars", &environment, image);
    }

    /// The line of the host's network: `docker run -d --net=host -e INET=INTERFACE ...`, without an address or a restart policy.
    fn framework_on_host(&self, interface: &str, image: &str) {
        let (net, subnet) = (self.net, self.subnet);
        let mut command = Command::new("docker");
        command.args(["run", "-d", "--net=host", &format!("--name={net}-framework")]);
        for variable in [
            &format!("MYSQL_HOST={subnet}.2"),
            &format!("MYSQL_ROOT_PASSWORD={PASSWORD}"),
            "MYSQL_USER=root",
            "MYSQL_PORT=3306",
            "REBUILD=false",
            &format!("INET={interface}"),
            "SLAVE=false",
        ] {
            command.args(["-e", variable]);
        }
        command.args(["-v", &format!("{net}-framework:/data/tars")]);
        command.args(["-v", &format!("{}:/etc/localtime", self.folder.path().join("localtime").display())]);
        succeed(command.arg(image));
    }

    /// What a start rendered: each configuration of the framework's services key by key, the console's as they are.
    fn configuration(&self, service: &str) -> BTreeMap<String, String> {
        let words = "cd /usr/local/app && for file in tars/*/conf/*.config.conf web/config/*; do [ ! -f $file ] || \
                     { echo \"=== $file\"; cat $file; echo; }; done";
        let shown = self.inside(service, &["sh", "-c", words]).unwrap();
        let mut all = BTreeMap::new();
        for part in shown.split("=== ").skip(1) {
            let (file, text) = part.split_once('\n').unwrap();
            if file.starts_with("web/") {
                all.insert(file.to_owned(), text.trim().to_owned());
                continue;
            }
            for (key, value) in conf::pairs(text).unwrap() {
                all.insert(format!("{file} {}", key.join("/")), value.trim().to_owned());
            }
        }
        all
    }

    fn rm(&self, service: &str) {
        let net = self.net;
        succeed(Command::new("docker").args(["rm", "-f", &format!("{net}-{service}")]));
    }

    pub fn inside(&self, service: &str, words: &[&str]) -> Option<String> {
        let net = self.net;
        let output =
            Command::new("docker").args(["exec", &format!("{net}-{service}")]).args(words).output().unwrap();
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    pub fn is_well(&self, service: &str) -> bool {
        self.inside(service, &["tars-init", "health"]).is_some()
    }

    /// Every servant of the master's answers tars_ping, whatever image it is of.
    pub fn answers(&self) -> bool {
        answers_at(&format!("{}.3", self.subnet), "master").len() == 12
    }

    pub fn try_query(&self, sql: &str) -> Option<String> {
        self.asked(sql).ok()
    }

    #[track_caller]
    pub fn query(&self, sql: &str) -> String {
        self.asked(sql).unwrap_or_else(|why| panic!("{why}: {sql}"))
    }

    /// What the database answers, or why not.
    fn asked(&self, sql: &str) -> Result<String, String> {
        let net = self.net;
        let password = format!("MYSQL_PWD={PASSWORD}");
        let output = Command::new("docker")
            .args([
                "exec",
                "-e",
                &password,
                &format!("{net}-{}", self.database),
                "mariadb",
                "-uroot",
                "-h127.0.0.1",
            ])
            .args(["-N", "-e", sql])
            .output()
            .unwrap();
        let [said, why] =
            [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).trim().to_owned());
        if output.status.success() { Ok(said) } else { Err(why) }
    }

    /// What must be the same whoever starts: who is deployed where, with which endpoint, and which templates there are.
    pub fn rows(&self) -> BTreeMap<&'static str, String> {
        let queries = [
            ("nodes", "SELECT node_name FROM db_tars.t_node_info ORDER BY 1"),
            (
                "servers",
                "SELECT application, server_name, node_name, exe_path, template_name, setting_state \
                 FROM db_tars.t_server_conf ORDER BY 1, 2, 3",
            ),
            (
                "adapters",
                "SELECT application, server_name, node_name, adapter_name, endpoint, servant \
                 FROM db_tars.t_adapter_conf ORDER BY 1, 2, 3, 4",
            ),
            (
                "templates",
                "SELECT template_name, parents_name, MD5(profile) FROM db_tars.t_profile_template ORDER BY 1",
            ),
            ("kept", "SELECT config FROM db_tars.t_config_files WHERE filename = 'lines.conf'"),
        ];
        queries.into_iter().map(|(name, query)| (name, self.query(query))).collect()
    }

    /// The containers' names, those of parked ones too.
    fn containers(&self) -> Vec<String> {
        let filter = format!("name=^/{}[-.]", self.net);
        let mut list = Command::new("docker");
        let listed = list.args(["ps", "-a", "--format", "{{.Names}}", "--filter", &filter]).output().unwrap();
        String::from_utf8_lossy(&listed.stdout).split_whitespace().map(str::to_owned).collect()
    }

    /// What a failure leaves: the last words of the containers, and of tarsnode and the services that it starts in each.
    fn tell(&self) {
        let of_database = format!("{}-{}", self.net, self.database);
        let last = "ps -eo pid,etime,cmd; for file in /data/tars/app_log/tars/*/*.log; do echo \"== $file\"; tail -n 12 \"$file\"; done";
        for name in self.containers().into_iter().filter(|name| *name != of_database) {
            let said = ["logs", "--tail", "25", &name];
            for words in [&said[..], &["exec", &name, "sh", "-c", last]] {
                let Ok(output) = Command::new("docker").args(words).output() else { continue };
                let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
                eprintln!("--- {name} {}\n{out}{err}", words[0]);
            }
        }
    }

    fn remove(&self) {
        for name in self.containers() {
            let _ = Command::new("docker").args(["rm", "-f", "-v", &name]).output();
        }
        for service in [self.database, "framework", "slave", "node"] {
            let volume = format!("{}-{service}", self.net);
            let _ = Command::new("docker").args(["volume", "rm", &volume]).output();
        }
        let _ = Command::new("docker").args(["network", "rm", self.net]).output();
    }
}

/// The servants of a role at this address; none where one of them does not answer. Asked from where the tests are: a container for
/// each try costs a second of processor.
fn answers_at(address: &str, role: &str) -> Vec<Value> {
    let mut command = Command::new(init_program());
    command.args(["cluster", "--json", "--ask", address, "--role", role]);
    let report: Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
    let servants = report["asked"]["servants"].as_array().unwrap();
    if servants.iter().all(|servant| servant["ok"] == true) { servants.clone() } else { Vec::new() }
}

impl Drop for Lines {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tell();
        }
        self.remove();
    }
}

/// The one difference that is meant: our tarsnode knows every registry that lives, and upstream's its own alone.
const LOCATOR: &str = "tars/tarsnode/conf/tars.tarsnode.config.conf tars/application/client/locator";

/// Ours, key by key, is what upstream's start renders.
#[track_caller]
fn is_rendered_as(upstreams: &BTreeMap<String, String>, mut ours: BTreeMap<String, String>, services: usize) {
    let files: BTreeSet<&str> = upstreams.keys().filter_map(|key| key.split(' ').next()).collect();
    assert_eq!(files.iter().filter(|file| file.starts_with("tars/")).count(), services, "{files:?}");
    let (one, more) = (&upstreams[LOCATOR], ours[LOCATOR].clone());
    assert!(more.starts_with(one.as_str()), "{more}");
    ours.insert(LOCATOR.to_owned(), one.clone());
    assert_eq!(&ours, upstreams);
}

#[test]
fn real_upstream_start_and_ours_take_turns_on_one_database_and_volume_by_the_documented_lines() {
    if is_for_another_time() {
        return;
    }
    let test = "real_upstream_start_and_ours";
    if stage(test).is_none() {
        return;
    }
    stage_with(UPSTREAM_FRAMEWORK, test);
    stage_with(WITH_WEB, test);
    let (upstream, ours) =
        (format!("{PREFIX}/{UPSTREAM_FRAMEWORK}:1"), format!("{PREFIX}/framework:{WITH_WEB}"));
    let lines = Lines::begin();
    lines.framework("framework", 3, "false", &upstream);
    wait_for("upstream's first boot", || lines.answers());
    lines.query(
        "INSERT INTO db_tars.t_config_files (server_name, filename, config) VALUES ('E2e.Server', 'lines.conf', 'keep')",
    );
    let made_by_upstream = lines.rows();
    let rendered_by_upstream = lines.configuration("framework");
    assert!(rendered_by_upstream.keys().any(|file| file.starts_with("web/")), "{rendered_by_upstream:?}");

    lines.rm("framework");
    lines.framework("framework", 3, "false", &ours);
    wait_for("our start on upstream's database", || lines.is_well("framework"));

    assert!(lines.answers());
    assert_eq!(lines.rows(), made_by_upstream);
    is_rendered_as(&rendered_by_upstream, lines.configuration("framework"), 11);
    assert_eq!(lines.inside("framework", &["date", "+%z"]).unwrap(), "+0800", "the host's time");
    lines.framework("slave", 4, "true", &ours);
    wait_for("the slave", || lines.is_well("slave"));
    let rendered_by_our_slave = lines.configuration("slave");
    let web = format!("WEB_HOST=http://{SUBNET}.3:3000");
    lines.run("node", 5, "/data/tars", &["INET=eth0", &web], &format!("{PREFIX}/node:{RELEASE}"));
    wait_for("the node", || lines.is_well("node"));
    let with_ours = lines.rows();

    lines.rm("framework");
    lines.framework("framework", 3, "false", &upstream);
    wait_for("upstream's start on our database", || lines.answers());

    assert_eq!(lines.rows(), with_ours);
    assert_eq!(with_ours["kept"], "keep");
    assert_eq!(with_ours["nodes"].lines().count(), 3, "{}", with_ours["nodes"]);

    lines.rm("slave");
    lines.framework("slave", 4, "true", &upstream);
    let slave = format!("{SUBNET}.4");
    wait_for("upstream's slave", || !answers_at(&slave, "slave").is_empty());
    is_rendered_as(&lines.configuration("slave"), rendered_by_our_slave, 6);
    assert_eq!(lines.rows(), with_ours);
}

/// The engine's own bridge: every host has it, and it has an address of its own.
const HOSTS_INTERFACE: &str = "docker0";

#[test]
fn real_line_of_the_hosts_network_goes_from_upstreams_start_to_ours_and_back() {
    if is_for_another_time() {
        return;
    }
    let test = "real_line_of_the_hosts_network";
    if stage(test).is_none() {
        return;
    }
    stage_with(UPSTREAM_FRAMEWORK, test);
    let (upstream, ours) =
        (format!("{PREFIX}/{UPSTREAM_FRAMEWORK}:1"), format!("{PREFIX}/framework:{RELEASE}"));
    let _ports = HOST_PORTS.blocking_lock();
    let lines = Lines::begin_on("tarsup-hostline", "172.30.96", "database");
    // The tests are on the engine's host.
    let shown = succeed(Command::new("ip").args(["-json", "-4", "addr", "show", HOSTS_INTERFACE]));
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    let own = shown[0]["addr_info"][0]["local"].as_str().unwrap().to_owned();
    let turn = |image: &str| {
        lines.framework_on_host(HOSTS_INTERFACE, image);
        wait_for("the master on the host's network", || answers_at(&own, "master").len() == 12);
        let rows = lines.rows();
        lines.rm("framework");
        rows
    };

    let made_by_upstream = turn(&upstream);
    let with_ours = turn(&ours);
    let by_upstream_again = turn(&upstream);

    assert_eq!(made_by_upstream["nodes"], own);
    assert_eq!(with_ours, made_by_upstream);
    assert_eq!(by_upstream_again, made_by_upstream);
}
