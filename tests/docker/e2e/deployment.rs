//! One deployment of a test's own: a compose file in a temporary folder, a network, names and volumes of its own.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::stage::{OLD, Stage, succeed};

/// Root's at the database. No blank in it: that is the guard's business.
pub const PASSWORD: &str = "e2e-secret";

/// A deployment, removed with everything in it when the test ends.
pub struct Deployment {
    /// Its name: the prefix of its containers, too.
    pub name: &'static str,
    stage: &'static Stage,
    folder: tempfile::TempDir,
    subnet: u8,
}

/// What a run of tarsup ended with.
pub struct Ran {
    /// The exit code.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Ran {
    /// Holds it to an exit code.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "\n--- stdout\n{}\n--- stderr\n{}", self.out, self.err);
        self
    }

    /// Standard output as one JSON document.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.out))
    }
}

/// The rows of every table of the framework's schemas.
pub type Tables = BTreeMap<String, u64>;

impl Deployment {
    /// A deployment on the network 172.30.`subnet`.0/24 with the services among `services`, not yet up.
    pub fn new(name: &'static str, subnet: u8, services: &[&str]) -> Self {
        Self::of(Stage::get(), OLD, name, subnet, services)
    }

    /// The same with the images of another stage.
    pub fn of(
        stage: &'static Stage,
        version: &str,
        name: &'static str,
        subnet: u8,
        services: &[&str],
    ) -> Self {
        // An engine gives no subnet to two networks: tests that run beside each other would fail by chance.
        static SUBNETS: Mutex<BTreeMap<u8, &str>> = Mutex::new(BTreeMap::new());
        let mut subnets = SUBNETS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let holder = *subnets.entry(subnet).or_insert(name);
        drop(subnets);
        assert_eq!(holder, name, "both have the subnet {subnet}");
        let deployment = Self { name, stage, folder: tempfile::tempdir().unwrap(), subnet };
        deployment.remove();
        deployment.write("compose.yaml", &deployment.compose(services));
        deployment.write(".env", &format!("TARS_VERSION={version}\nPASSWORD={PASSWORD}\n"));
        deployment
    }

    fn compose(&self, services: &[&str]) -> String {
        let (name, prefix, net) = (self.name, self.stage.prefix, format!("172.30.{}", self.subnet));
        let service = |service: &str| match service {
            "database" => format!(
                "  database:\n    image: {prefix}/database:10.11\n    container_name: {name}-database\n    environment:\n      \
                 MYSQL_ROOT_PASSWORD: ${{PASSWORD}}\n    volumes: [\"database:/var/lib/mysql\"]\n    networks:\n      \
                 default: {{ipv4_address: {net}.2}}\n    x-tars: {{role: database}}\n"
            ),
            "framework" => self.framework("framework", "master", 3),
            "slave" => self.framework("slave", "slave", 4),
            "slave2" => self.framework("slave2", "slave", 6),
            "node" => self.node("node", 5),
            "node2" => self.node("node2", 7),
            "node3" => self.node("node3", 8),
            other => panic!("no service {other}"),
        };
        let volumes = format!("  {}:\n", services.join(":\n  "));
        let services: String = services.iter().map(|name| service(name)).collect();
        format!(
            "name: {name}\nx-tars: {{drain: off, gate_timeout: 90s, dwell: 1s}}\nservices:\n{services}networks:\n  default:\n    ipam:\n      \
             config: [{{subnet: {net}.0/24, ip_range: {net}.128/25}}]\nvolumes:\n{volumes}"
        )
    }

    /// A node of the file, on a host of its network.
    pub fn node(&self, service: &str, host: u8) -> String {
        let (name, prefix, net) = (self.name, self.stage.prefix, format!("172.30.{}", self.subnet));
        format!(
            "  {service}:\n    image: {prefix}/node:${{TARS_VERSION}}\n    container_name: {name}-{service}\n    restart: always\n    environment:\n      \
             INET: eth0\n      TARS_REGISTRY_ADDRESS: tcp -h {net}.3 -p 17890:tcp -h {net}.4 -p 17890\n    \
             volumes: [\"{service}:/data/tars\"]\n    networks:\n      default: {{ipv4_address: {net}.{host}}}\n    \
             depends_on: [framework]\n    x-tars: {{role: node}}\n"
        )
    }

    fn framework(&self, service: &str, role: &str, host: u8) -> String {
        let (name, prefix, net) = (self.name, self.stage.prefix, format!("172.30.{}", self.subnet));
        format!(
            "  {service}:\n    image: {prefix}/framework:${{TARS_VERSION}}\n    container_name: {name}-{service}\n    \
             restart: always\n    environment:\n      MYSQL_HOST: {net}.2\n      MYSQL_USER: root\n      MYSQL_ROOT_PASSWORD: ${{PASSWORD}}\n      \
             INET: eth0\n      REBUILD: \"false\"\n      SLAVE: \"{}\"\n    volumes: [\"{service}:/data/tars\"]\n    \
             networks:\n      default: {{ipv4_address: {net}.{host}}}\n    depends_on: [database]\n    x-tars: {{role: {role}}}\n",
            role == "slave"
        )
    }

    /// Replaces the services that are declared.
    pub fn declare(&self, services: &[&str]) {
        self.write("compose.yaml", &self.compose(services));
    }

    /// A file of the deployment's folder.
    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// Writes a file of the deployment's folder.
    pub fn write(&self, file: &str, text: &str) {
        fs::write(self.path(file), text).unwrap();
    }

    /// Reads a file of the deployment's folder.
    pub fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path(file)).unwrap()
    }

    /// Replaces text in a file of the deployment's folder; it must be there.
    pub fn edit(&self, file: &str, from: &str, to: &str) {
        let text = self.read(file);
        assert!(text.contains(from), "{file} has no {from:?}");
        self.write(file, &text.replace(from, to));
    }

    /// `tarsup`, of whatever deployment.
    pub fn program(&self) -> Command {
        self.stage.tarsup()
    }

    /// `tarsup WORDS -f compose.yaml`, not started.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = self.program();
        command.args(words).arg("-f").arg(self.path("compose.yaml")).stdin(Stdio::null());
        command
    }

    /// `tarsup WORDS -f compose.yaml`.
    pub fn tarsup(&self, words: &[&str]) -> Ran {
        self.tarsup_with(words, &[])
    }

    /// The same with variables in the shell's environment.
    pub fn tarsup_with(&self, words: &[&str], variables: &[(&str, &str)]) -> Ran {
        let output = self.command(words).envs(variables.iter().copied()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let ran = Ran {
            code: output.status.code().unwrap_or(-1),
            out: text(&output.stdout),
            err: text(&output.stderr),
        };
        assert!(!ran.out.contains(PASSWORD) && !ran.err.contains(PASSWORD), "{words:?} shows the password");
        ran
    }

    /// The same on a terminal; what it shows there, as the terminal gets it.
    pub fn on_a_terminal(&self, words: &[&str]) -> String {
        let command = self.command(words);
        let parts = std::iter::once(command.get_program()).chain(command.get_args());
        let quoted = parts.map(|part| format!("'{}'", part.to_str().unwrap())).collect::<Vec<_>>().join(" ");
        let mut terminal = Command::new("script");
        terminal.args(["--quiet", "--return", "--command", &quoted, "/dev/null"]).stdin(Stdio::null());
        terminal
            .envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .env("TERM", "xterm");
        let output = terminal.output().unwrap();
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{words:?}: {shown}");
        shown
    }

    /// The same, not waited for.
    pub fn spawn(&self, words: &[&str]) -> Child {
        let told = fs::File::create(self.path("spawned.log")).unwrap();
        self.command(words).stdout(told.try_clone().unwrap()).stderr(told).spawn().unwrap()
    }

    /// One service's container.
    pub fn container(&self, service: &str) -> String {
        format!("{}-{service}", self.name)
    }

    /// What the engine says of a service's container; null where there is none.
    pub fn inspect(&self, service: &str) -> Value {
        let output =
            Command::new("docker").args(["container", "inspect", &self.container(service)]).output().unwrap();
        let all: Value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        all.get(0).cloned().unwrap_or(Value::Null)
    }

    /// The id of a service's container.
    #[track_caller]
    pub fn id(&self, service: &str) -> String {
        self.inspect(service)["Id"]
            .as_str()
            .unwrap_or_else(|| panic!("{service} has no container"))
            .to_owned()
    }

    /// What a replaced container keeps: its addresses, mounts and environment, without what comes from its image.
    pub fn identity(&self, service: &str) -> Value {
        let raw = self.inspect(service);
        let mut mounts: Vec<Value> = raw["Mounts"].as_array().cloned().unwrap_or_default();
        mounts.sort_by_key(|mount| mount["Destination"].to_string());
        let env = raw["Config"]["Env"].as_array().cloned().unwrap_or_default();
        let env: Vec<Value> =
            env.into_iter().filter(|entry| !entry.to_string().contains("TARSUP_VERSION=")).collect();
        let addresses: BTreeMap<String, Value> = raw["NetworkSettings"]["Networks"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(network, endpoint)| (network.clone(), endpoint["IPAddress"].clone()))
            .collect();
        serde_json::json!({"addresses": addresses, "mounts": mounts, "env": env, "restart": raw["HostConfig"]["RestartPolicy"]})
    }

    /// Names of this deployment's containers, stopped ones too.
    pub fn containers(&self) -> Vec<String> {
        let filter = format!("label=io.tarsup.deployment={}", self.name);
        let output =
            succeed(Command::new("docker").args(["ps", "-a", "--filter", &filter, "--format", "{{.Names}}"]));
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
    }

    /// Runs SQL as root; rows as lines, columns parted by tabs.
    #[track_caller]
    pub fn query(&self, sql: &str) -> String {
        let output = succeed(
            Command::new("docker")
                .args(["exec", "-e", &format!("MYSQL_PWD={PASSWORD}"), &self.container("database")])
                .args(["mariadb", "-uroot", "-h127.0.0.1", "-N", "-e", sql]),
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Every table of the framework's schemas with the number of its rows.
    pub fn tables(&self) -> Tables {
        let names = self.query(
            "SELECT CONCAT(table_schema, '.', table_name) FROM information_schema.tables \
             WHERE table_schema LIKE 'db\\_%' OR table_schema LIKE 'tars\\_%'",
        );
        let counts: Vec<String> =
            names.lines().map(|name| format!("SELECT '{name}', COUNT(*) FROM {name}")).collect();
        let rows = self.query(&counts.join(" UNION ALL "));
        rows.lines()
            .filter_map(|row| row.split_once('\t'))
            .map(|(name, rows)| (name.to_owned(), rows.parse().unwrap()))
            .collect()
    }

    /// The address of a host of its network.
    pub fn address(&self, host: u8) -> String {
        format!("172.30.{}.{host}", self.subnet)
    }

    /// Its network's name on the engine.
    pub fn network(&self) -> String {
        format!("{}_default", self.name)
    }

    /// The version that a service's container was made from.
    pub fn version(&self, service: &str) -> String {
        let version = &self.inspect(service)["Config"]["Labels"]["org.opencontainers.image.version"];
        version.as_str().unwrap_or("none").to_owned()
    }

    /// What a nightly job runs, kept to this deployment: other tests have parked containers on this engine.
    pub fn prune(&self) -> String {
        let only = format!("label=io.tarsup.deployment={}", self.name);
        let mut told = String::new();
        wait_for("the engine to prune", || {
            let output =
                Command::new("docker").args(["system", "prune", "-f", "--filter", &only]).output().unwrap();
            told = String::from_utf8_lossy(&output.stdout).into_owned();
            // An engine prunes for one client at a time.
            output.status.success()
        });
        told
    }

    /// Puts a row into t_config_files that any import of `db_tars.sql` would take away.
    pub fn mark(&self) {
        self.query("INSERT INTO db_tars.t_config_files (server_name, filename, config) VALUES ('E2e.Server', 'e2e.conf', 'keep')");
    }

    /// `docker run` of the framework image by hand, without tarsup; the exit code and what it said.
    pub fn run_by_hand(&self, variables: &[(&str, &str)]) -> Ran {
        let mut command = Command::new("docker");
        command.args(["run", "--rm", "--network", &format!("{}_default", self.name)]);
        let host = format!("172.30.{}.2", self.subnet);
        for (name, value) in
            [("MYSQL_HOST", host.as_str()), ("MYSQL_ROOT_PASSWORD", PASSWORD)].iter().chain(variables)
        {
            command.args(["-e", &format!("{name}={value}")]);
        }
        let output = command.arg(format!("{}/framework:{OLD}", self.stage.prefix)).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ran { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// True when every servant of a service's container answers tars_ping, asked inside it.
    pub fn answers(&self, service: &str) -> bool {
        let output = Command::new("docker")
            .args(["exec", &self.container(service), "tars-init", "health"])
            .output()
            .unwrap();
        output.status.success()
    }

    /// Holds everything that tarsup left (journals, saved logs, lock file, labels) to the password not being in it.
    #[track_caller]
    pub fn holds_no_secret(&self) {
        let mut folders = vec![self.folder.path().to_owned()];
        let mut looked_at = 0;
        while let Some(folder) = folders.pop() {
            for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                if path.ends_with(".tarsup/parked") {
                    // What a container is made from once more: for the owner alone.
                    for kept in fs::read_dir(path).unwrap().map(|entry| entry.unwrap()) {
                        assert_eq!(kept.metadata().unwrap().permissions().mode() & 0o777, 0o600);
                    }
                } else if path.is_dir() {
                    folders.push(path);
                } else if !path.ends_with(".env") {
                    let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
                    assert!(!text.contains(PASSWORD), "the password stands in {}", path.display());
                    looked_at += 1;
                }
            }
        }
        assert!(looked_at > 1, "there is a journal beside the compose file");
        for container in self.containers() {
            let output = succeed(Command::new("docker").args([
                "inspect",
                "--format",
                "{{json .Config.Labels}} {{json .Args}} {{json .Path}}",
                &container,
            ]));
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(!text.contains(PASSWORD), "the password is shown by {container}: {text}");
        }
    }

    fn remove(&self) {
        // By name, too: a test may have made containers of its own.
        let filter = format!("name=^{}-", self.name);
        let others =
            succeed(Command::new("docker").args(["ps", "-a", "--filter", &filter, "--format", "{{.Names}}"]));
        let others = String::from_utf8_lossy(&others.stdout).lines().map(str::to_owned).collect::<Vec<_>>();
        for container in self.containers().into_iter().chain(others) {
            let _ = Command::new("docker").args(["rm", "-f", "-v", &container]).output();
        }
        let _ = Command::new("docker").args(["network", "rm", &format!("{}_default", self.name)]).output();
        let volumes = ["database", "framework", "slave", "slave2", "node", "node2", "node3", "node4"];
        let volumes = volumes.map(|volume| format!("{}_{volume}", self.name));
        for volume in volumes.into_iter().chain([format!("{}.lock", self.name)]) {
            let _ = Command::new("docker").args(["volume", "rm", &volume]).output();
        }
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "--- what was not waited for\n{}",
                fs::read_to_string(self.path("spawned.log")).unwrap_or_default()
            );
            for container in self.containers() {
                let output = Command::new("docker").args(["logs", "--tail", "25", &container]).output();
                if let Ok(output) = output {
                    let (out, err) =
                        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
                    eprintln!("--- logs of {container}\n{out}{err}");
                }
            }
        }
        self.remove();
    }
}

/// Waits until a condition holds; fails after two minutes with what was waited for.
#[track_caller]
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_mins(2);
    // Most of them start a process to look: what takes long is looked at less often.
    let mut pause = Duration::from_millis(20);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for: {what}");
        std::thread::sleep(pause);
        pause = (pause * 3 / 2).min(Duration::from_millis(200));
    }
}
