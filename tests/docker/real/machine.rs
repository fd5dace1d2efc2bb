//! A node on a machine without Docker: a root file system with a network of its own, against a framework in containers.

use std::process::{Command, Output};

use super::stage::{FORMER, PREFIX, RELEASE, UPSTREAM_NODE, stage, stage_with};
use crate::e2e::deployment::{Deployment, wait_for};
use crate::e2e::stage::{Stage, succeed};
use crate::turns::is_for_another_time;

/// The machine: nothing of TARS is on it.
struct Machine<'a> {
    deployment: &'a Deployment,
    name: String,
}

impl<'a> Machine<'a> {
    const HOST: u8 = 9;

    /// Its first process only waits; whatever runs there, the script has started.
    fn boot(deployment: &'a Deployment) -> Self {
        Self::boot_with(deployment, &["--init", "--entrypoint", "sleep"], "infinity")
    }

    /// Its first process is systemd.
    fn boot_systemd(deployment: &'a Deployment) -> Self {
        let groups = "/sys/fs/cgroup:/sys/fs/cgroup:rw";
        let options = [
            ["--cap-add", "SYS_ADMIN"],
            ["--security-opt", "seccomp=unconfined"],
            ["--cgroupns", "host"],
            ["-v", groups],
            ["--tmpfs", "/run"],
            ["--tmpfs", "/run/lock"],
            ["--stop-signal", "SIGRTMIN+3"],
            ["--entrypoint", "/sbin/init"],
        ];
        let machine = Self::boot_with(deployment, options.as_flattened(), "--unit=multi-user.target");
        machine.await_systemd();
        machine
    }

    fn boot_with(deployment: &'a Deployment, options: &[&str], word: &str) -> Self {
        let machine = Self { deployment, name: deployment.container("machine") };
        let image = format!("{PREFIX}/{UPSTREAM_NODE}:1");
        succeed(
            Command::new("docker")
                .args(["run", "-d", "--name", &machine.name, "--net", &deployment.network()])
                .args(["--ip", &deployment.address(Self::HOST)])
                .args(options)
                .args([&image, word]),
        );
        machine
    }

    fn await_systemd(&self) {
        wait_for("systemd to have started", || {
            let state = self.run("systemctl is-system-running");
            matches!(String::from_utf8_lossy(&state.stdout).trim(), "running" | "degraded")
        });
    }

    fn run(&self, words: &str) -> Output {
        Command::new("docker").args(["exec", &self.name, "sh", "-c", words]).output().unwrap()
    }

    #[track_caller]
    fn sh(&self, words: &str) -> String {
        let output = self.run(words);
        let said =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words}: {}\n{said}", output.status);
        said
    }

    /// Brings the archive of a version onto the machine and unpacks it.
    fn unpack(&self, stage: &Stage, version: &str, more: &[&str]) {
        let file = self.deployment.path(&format!("node-{version}.tgz"));
        let image = format!("{PREFIX}/node:{version}");
        succeed(stage.tarsup().args(["node", "bundle", &image, "-o"]).arg(&file).args(more));
        succeed(Command::new("docker").arg("cp").arg(&file).arg(format!("{}:/root/node.tgz", self.name)));
        self.sh("cd /root && rm -rf tars-node && tar -xzf node.tgz");
    }

    fn program(&self) -> String {
        self.sh("md5sum < /usr/local/app/tars/tarsnode/bin/tarsnode")
    }

    /// What the database has of it; another value after each registration.
    fn registered(&self) -> String {
        let address = self.deployment.address(Self::HOST);
        let query = format!("SELECT last_reg_time FROM db_tars.t_node_info WHERE node_name = '{address}'");
        self.deployment.query(&query).trim().to_owned()
    }

    fn registers_anew(&self, before: &str) -> String {
        wait_for("the machine's node to register", || !["", before].contains(&self.registered().as_str()));
        self.registered()
    }
}

#[test]
fn real_machine_without_docker_gets_a_node_the_next_version_of_it_and_loses_it_again() {
    if is_for_another_time() {
        return;
    }
    let test = "real_machine_without_docker";
    let Some(stage) = stage(test) else { return };
    stage_with(FORMER, test);
    stage_with(UPSTREAM_NODE, test);
    let deployment = Deployment::of(stage, RELEASE, "real-machine", 57, &["database", "framework"]);
    deployment.tarsup(&["up", "--yes"]).exits(0);
    let machine = Machine::boot(&deployment);
    let registry = deployment.address(3);

    machine.unpack(stage, FORMER, &["--registry", &registry]);
    let said = machine.sh("sh /root/tars-node/install.sh install");
    let address = deployment.address(Machine::HOST);
    assert!(
        said.contains(&format!("TARS {FORMER} as {address}, registries tcp -h {registry} -p 17890")),
        "{said}"
    );
    assert!(said.contains("it is well"), "{said}");
    let first = machine.registers_anew("");
    let former = machine.program();
    machine.sh("sh /root/tars-node/install.sh status");
    machine
        .sh("echo kept > /data/tars/tarsnode-data/kept; echo 'TARSUP_STOP_TIMEOUT=9' >> /etc/tars-node.env");

    // tars-init looks after it, where upstream has a line for cron.
    machine.sh("kill -KILL $(pgrep -x tarsnode)");
    let second = machine.registers_anew(&first);

    // The next archive is the upgrade; the machine stays the node that it was.
    machine.unpack(stage, RELEASE, &["--registry", &registry]);
    let said = machine.sh("sh /root/tars-node/install.sh install");
    assert!(said.contains(&format!("TARS {RELEASE} as {address} (before: {FORMER})")), "{said}");
    machine.registers_anew(&second);
    assert_ne!(machine.program(), former);
    assert_eq!(machine.sh("cat /data/tars/tarsnode-data/kept").trim(), "kept");
    assert!(machine.sh("cat /etc/tars-node.env").ends_with("TARSUP_STOP_TIMEOUT=9\n"));
    let nodes = "SELECT COUNT(*) FROM db_tars.t_node_info WHERE present_state = 'active'";
    assert_eq!(deployment.query(nodes).trim(), "2", "the master and the machine, each once");

    // Stopped it stays stopped, and comes back.
    machine.sh("sh /root/tars-node/install.sh stop");
    assert!(!machine.run("sh /root/tars-node/install.sh status").status.success());
    assert!(!machine.run("pgrep -x 'tarsnode|tars-init'").status.success(), "something still runs");
    machine.sh("sh /root/tars-node/install.sh start");
    wait_for("the node to answer", || machine.run("sh /root/tars-node/install.sh status").status.success());

    let said = machine.sh("sh /root/tars-node/install.sh remove");
    assert!(said.contains("its data stays: /data/tars"), "{said}");
    assert!(!machine.run("pgrep -x 'tarsnode|tars-init'").status.success(), "something still runs");
    assert_eq!(machine.sh("find /usr/local/bin/tars-init /usr/local/app/tars/tarsnode /etc/tars-node.env 2>/dev/null || true"), "");
    assert_eq!(machine.sh("cat /data/tars/tarsnode-data/kept").trim(), "kept");
}

#[test]
fn real_machine_with_systemd_brings_its_node_back_after_a_kill_and_a_reboot() {
    if is_for_another_time() {
        return;
    }
    let test = "real_machine_with_systemd";
    let Some(stage) = stage(test) else { return };
    stage_with(UPSTREAM_NODE, test);
    let deployment = Deployment::of(stage, RELEASE, "real-systemd", 78, &["database", "framework"]);
    deployment.tarsup(&["up", "--yes"]).exits(0);
    let machine = Machine::boot_systemd(&deployment);

    machine.unpack(stage, RELEASE, &["--registry", &deployment.address(3)]);
    let said = machine.sh("sh /root/tars-node/install.sh install");
    assert!(said.contains("starting tars-node.service") && said.contains("it is well"), "{said}");
    let first = machine.registers_anew("");
    assert_eq!(machine.sh("systemctl is-enabled tars-node.service").trim(), "enabled");

    // tars-init looks after tarsnode, and systemd after tars-init.
    let init = machine.sh("pgrep -x tars-init");
    machine.sh("kill -KILL $(pgrep -x tars-init)");
    let second = machine.registers_anew(&first);
    assert_ne!(machine.sh("pgrep -x tars-init"), init);
    assert_eq!(
        machine.sh("pgrep -xc tarsnode").trim(),
        "1",
        "one tarsnode, and not a second beside the first"
    );

    succeed(Command::new("docker").args(["restart", &machine.name]));
    machine.await_systemd();
    machine.registers_anew(&second);
    wait_for("the node to answer", || machine.run("sh /root/tars-node/install.sh status").status.success());

    // What an administrator stops stays stopped, and leaves nothing behind.
    machine.sh("sh /root/tars-node/install.sh stop");
    assert_eq!(machine.run("systemctl is-active tars-node.service").stdout.trim_ascii(), b"inactive");
    assert!(!machine.run("pgrep -x 'tarsnode|tars-init'").status.success(), "something still runs");
    machine.sh("sh /root/tars-node/install.sh start");
    let said = machine.sh("sh /root/tars-node/install.sh remove");
    assert!(said.contains("removing tars-node.service"), "{said}");
    assert!(!machine.run("systemctl cat tars-node.service").status.success());
    assert!(!machine.run("pgrep -x 'tarsnode|tars-init'").status.success(), "something still runs");
}
