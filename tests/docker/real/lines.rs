//! The documented run lines, with only the image's name changed: from upstream's start to ours on the same database and
//! volume, and back.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

use super::stage::{PREFIX, RELEASE, UPSTREAM_FRAMEWORK, stage, stage_with};
use crate::e2e::deployment::wait_for;
use crate::e2e::stage::succeed;

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
        let (net, subnet) = (self.net, self.subnet);
        let image = format!("{PREFIX}/framework:{RELEASE}");
        let mut command = Command::new("docker");
        command.args(["run", "--rm", &format!("--net={net}"), "--entrypoint", "tars-init", &image]);
        command.args(["cluster", "--json", "--ask", &format!("{subnet}.3"), "--role", "master"]);
        let report: Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
        let servants = report["asked"]["servants"].as_array().unwrap();
        servants.len() == 12 && servants.iter().all(|servant| servant["ok"] == true)
    }

    pub fn try_query(&self, sql: &str) -> Option<String> {
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
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    #[track_caller]
    pub fn query(&self, sql: &str) -> String {
        self.try_query(sql).unwrap_or_else(|| panic!("{sql}"))
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

    fn remove(&self) {
        let net = self.net;
        // Parked ones too.
        let filter = format!("name=^/{net}[-.]");
        let listed = Command::new("docker").args(["ps", "-aq", "--filter", &filter]).output().unwrap();
        for id in String::from_utf8_lossy(&listed.stdout).split_whitespace() {
            let _ = Command::new("docker").args(["rm", "-f", "-v", id]).output();
        }
        for service in [self.database, "framework", "slave", "node"] {
            let _ = Command::new("docker").args(["volume", "rm", &format!("{net}-{service}")]).output();
        }
        let _ = Command::new("docker").args(["network", "rm", self.net]).output();
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for service in ["framework", "slave", "node"] {
                let output = Command::new("docker")
                    .args(["logs", "--tail", "25", &format!("{}-{service}", self.net)])
                    .output();
                let said = output.map(|output| String::from_utf8_lossy(&output.stderr).into_owned());
                eprintln!("--- {service}\n{}", said.unwrap_or_default());
            }
        }
        self.remove();
    }
}

#[test]
fn real_upstream_start_and_ours_take_turns_on_one_database_and_volume_by_the_documented_lines() {
    let test = "real_upstream_start_and_ours";
    if stage(test).is_none() {
        return;
    }
    stage_with(UPSTREAM_FRAMEWORK, test);
    let (upstream, ours) =
        (format!("{PREFIX}/{UPSTREAM_FRAMEWORK}:1"), format!("{PREFIX}/framework:{RELEASE}"));
    let lines = Lines::begin();
    lines.framework("framework", 3, "false", &upstream);
    wait_for("upstream's first boot", || lines.answers());
    lines.query(
        "INSERT INTO db_tars.t_config_files (server_name, filename, config) VALUES ('E2e.Server', 'lines.conf', 'keep')",
    );
    let made_by_upstream = lines.rows();

    lines.rm("framework");
    lines.framework("framework", 3, "false", &ours);
    wait_for("our start on upstream's database", || lines.is_well("framework"));

    assert!(lines.answers());
    assert_eq!(lines.rows(), made_by_upstream);
    assert_eq!(lines.inside("framework", &["date", "+%z"]).unwrap(), "+0800", "the host's time");
    lines.framework("slave", 4, "true", &ours);
    wait_for("the slave", || lines.is_well("slave"));
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
}
