//! What may fail beside the engine: logs that nobody can read, a disk that takes nothing, a prune, a second operator.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::deployment::{Deployment, wait_for};
use super::stage::{BAD, NEW, OLD, PREFIX, succeed};
use crate::turns::is_for_another_time;

const SERVICES: &[&str] = &["database", "framework", "slave"];

/// Up with the old version, and a gate that gives up soon.
fn deployment(name: &'static str, subnet: u8) -> Deployment {
    let deployment = Deployment::new(name, subnet, SERVICES);
    deployment.tarsup(&["up", "--yes"]).exits(0);
    deployment.edit("compose.yaml", "gate_timeout: 90s", "gate_timeout: 20s");
    deployment
}

/// The old version, in the old containers, answering.
#[track_caller]
fn is_as_before(deployment: &Deployment, before: &[String]) {
    let now: Vec<String> = SERVICES.iter().map(|service| deployment.id(service)).collect();
    assert_eq!(now, before, "the old containers are back under their names");
    for service in ["framework", "slave"] {
        assert_eq!(deployment.inspect(service)["State"]["Status"], "running", "{service}");
        wait_for("the old version to answer", || deployment.answers(service));
    }
}

fn ids(deployment: &Deployment) -> Vec<String> {
    SERVICES.iter().map(|service| deployment.id(service)).collect()
}

/// A file system of its own for `.tarsup`, taken down with the test.
struct State(PathBuf);

impl State {
    fn on(deployment: &Deployment) -> Self {
        let path = deployment.path(".tarsup");
        let kept = deployment.path("kept");
        if path.exists() {
            fs::rename(&path, &kept).unwrap();
        }
        fs::create_dir(&path).unwrap();
        // With room for a backup, as far as anybody knows before it is made.
        succeed(
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=24m,mode=700", "tarsup-test"]).arg(&path),
        );
        if kept.exists() {
            succeed(Command::new("cp").arg("-a").arg(kept.join(".")).arg(&path));
        }
        Self(path)
    }

    fn fill(&self) {
        let mut file = fs::File::create(self.0.join("ballast")).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    fn make_read_only(&self) {
        succeed(Command::new("mount").args(["-o", "remount,ro"]).arg(&self.0));
    }
}

impl Drop for State {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

/// Waits until the slave's successor stands in its place and is being proven.
fn wait_for_the_slaves_gate(deployment: &Deployment) {
    let parked = format!("{}.old.", deployment.container("slave"));
    wait_for("the slave's predecessor to be parked and its successor to run", || {
        deployment.containers().iter().any(|name| name.starts_with(&parked))
            && deployment.inspect("slave")["State"]["Status"] == "running"
    });
}

#[test]
fn upgrade_of_a_service_that_logs_nowhere_is_rolled_back() {
    if is_for_another_time() {
        return;
    }
    let deployment = Deployment::new("e2e-no-logs", 31, SERVICES);
    let marker = format!("    container_name: {}\n", deployment.container("slave"));
    deployment.edit("compose.yaml", &marker, &format!("{marker}    logging: {{driver: none}}\n"));
    deployment.edit("compose.yaml", "gate_timeout: 90s", "gate_timeout: 20s");
    deployment.tarsup(&["up", "--yes"]).exits(0);
    let before = ids(&deployment);

    let ran = deployment.tarsup(&["upgrade", "--to", BAD, "--yes"]).exits(4);

    assert!((ran.out + &ran.err).contains("logs"), "it says that the logs could not be kept");
    is_as_before(&deployment, &before);
    deployment.tarsup(&["resume", "--yes"]).exits(0);
}

#[test]
fn undo_on_a_full_disk_ends_as_it_would_on_another() {
    if is_for_another_time() {
        return;
    }
    let deployment = deployment("e2e-full", 32);
    let (before, env) = (ids(&deployment), deployment.read(".env"));
    let state = State::on(&deployment);

    let mut upgrade = deployment.spawn(&["upgrade", "--to", BAD, "--yes"]);
    wait_for_the_slaves_gate(&deployment);
    state.fill();

    assert_eq!(upgrade.wait().unwrap().code(), Some(4));
    is_as_before(&deployment, &before);
    assert_eq!(deployment.read(".env"), env);
    drop(state);
    let plan = deployment.tarsup(&["plan", "--json"]).exits(0).json();
    assert_eq!(plan["steps"], serde_json::json!([]), "nothing is left to do, and nothing is locked");
}

#[test]
fn resume_on_a_read_only_disk_undoes_and_frees_the_deployment() {
    if is_for_another_time() {
        return;
    }
    let deployment = deployment("e2e-read-only", 33);
    let before = ids(&deployment);
    let state = State::on(&deployment);
    let mut upgrade = deployment.spawn(&["upgrade", "--to", NEW, "--yes"]);
    wait_for_the_slaves_gate(&deployment);
    upgrade.kill().unwrap();
    upgrade.wait().unwrap();
    state.make_read_only();

    deployment.tarsup(&["resume", "--yes"]).exits(0);

    is_as_before(&deployment, &before);
    drop(state);
    deployment.tarsup(&["upgrade", "--to", NEW, "--yes"]).exits(0);
}

#[test]
fn prune_in_the_middle_of_a_living_run_costs_no_more_than_the_way_back() {
    if is_for_another_time() {
        return;
    }
    let deployment = Deployment::new("e2e-pruned", 34, SERVICES);
    deployment.tarsup(&["up", "--yes"]).exits(0);
    let mut upgrade = deployment.spawn(&["upgrade", "--to", NEW, "--yes"]);
    wait_for_the_slaves_gate(&deployment);

    assert!(deployment.prune().contains("Deleted Containers"), "the parked slave was there to be taken");

    assert_eq!(upgrade.wait().unwrap().code(), Some(0));
    for service in ["framework", "slave"] {
        assert_eq!(deployment.version(service), NEW);
    }
    assert!(deployment.read(".env").starts_with(&format!("TARS_VERSION={NEW}\n")));
    let plan = deployment.tarsup(&["plan", "--json"]).exits(0).json();
    assert_eq!(plan["steps"], serde_json::json!([]));
    let status = deployment.tarsup(&["status", "--json"]).exits(0).json();
    assert!(status["interrupted"].is_null() || status["interrupted"] == false, "{status}");
}

#[test]
fn prune_after_a_kill_is_neither_nothing_to_resume_nor_a_dead_end() {
    if is_for_another_time() {
        return;
    }
    let deployment = deployment("e2e-gone", 35);
    let mut upgrade = deployment.spawn(&["upgrade", "--to", NEW, "--yes"]);
    wait_for_the_slaves_gate(&deployment);
    upgrade.kill().unwrap();
    upgrade.wait().unwrap();
    deployment.prune();

    let status = deployment.tarsup(&["status", "--json"]);
    let told = &serde_json::from_str::<serde_json::Value>(&status.out).unwrap()["interrupted"];
    assert!(!told.is_null() && *told != false, "`status` tells: {}", status.out);
    let resumed = deployment.tarsup(&["resume", "--yes"]);
    assert_ne!(resumed.code, 0, "what was parked is gone\n{}{}", resumed.out, resumed.err);
    assert!((resumed.out + &resumed.err).contains("slave"), "what is lost is named");

    deployment.tarsup(&["resume", "--forward", "--yes"]).exits(0);

    for service in ["framework", "slave"] {
        assert_eq!(deployment.version(service), NEW);
        wait_for("the new version to answer", || deployment.answers(service));
    }
    let plan = deployment.tarsup(&["plan", "--json"]).exits(0).json();
    assert_eq!(plan["steps"], serde_json::json!([]));
}

/// A process of its own pid namespace: from here it looks like one on another host.
struct Elsewhere {
    around: std::process::Child,
    inside: u32,
}

impl Elsewhere {
    fn spawn(deployment: &Deployment, words: &[&str]) -> Self {
        let tarsup = deployment.command(words);
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--mount-proc"]).arg(tarsup.get_program()).args(tarsup.get_args());
        command.envs(tarsup.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let around =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let children = format!("/proc/{0}/task/{0}/children", around.id());
        let mut inside = None;
        wait_for("the process in its namespace", || {
            inside = fs::read_to_string(&children).ok().and_then(|text| text.trim().parse().ok());
            inside.is_some()
        });
        Self { around, inside: inside.unwrap() }
    }

    fn signal(&self, signal: &str) {
        succeed(Command::new("kill").args([&format!("-{signal}"), &self.inside.to_string()]));
    }
}

#[test]
fn living_owner_whose_lock_was_taken_over_ends_and_touches_nothing_more() {
    if is_for_another_time() {
        return;
    }
    let deployment = deployment("e2e-taken", 36);
    let before = ids(&deployment);
    let mut first = Elsewhere::spawn(&deployment, &["upgrade", "--to", NEW, "--yes"]);
    wait_for_the_slaves_gate(&deployment);
    first.signal("STOP");
    deployment.tarsup(&["resume", "--yes", "--take-over"]).exits(7);

    // Its lease runs out after a minute. `--yes` alone is not the word that nobody works there.
    std::thread::sleep(Duration::from_secs(61));
    let refused = deployment.tarsup(&["resume", "--yes"]);
    assert_ne!(refused.code, 0);
    assert!((refused.out + &refused.err).contains("--take-over"));
    deployment.tarsup(&["resume", "--yes", "--take-over"]).exits(0);
    is_as_before(&deployment, &before);

    first.signal("CONT");
    assert_eq!(first.around.wait().unwrap().code(), Some(5), "it is not its deployment any more");
    is_as_before(&deployment, &before);
    let names = deployment.containers();
    assert!(!names.iter().any(|name| name.contains(".new.")), "{names:?}");
    let plan = deployment.tarsup(&["plan", "--json"]).exits(0).json();
    assert_eq!(plan["steps"], serde_json::json!([]));
}

/// Runs a command on a terminal, moves a tag while the question stands there, and answers yes.
fn move_a_tag_at_the_prompt(deployment: &Deployment, words: &[&str], from: &str, to: &str) -> (i32, String) {
    let tarsup = deployment.command(words);
    let line: Vec<String> = std::iter::once(tarsup.get_program())
        .chain(tarsup.get_args())
        .map(|word| format!("'{}'", word.to_string_lossy()))
        .collect();
    let mut command = Command::new("script");
    command.args(["--quiet", "--return", "--echo", "never", "--command", &line.join(" "), "/dev/null"]);
    command.envs(tarsup.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut asked = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut out, mut said) = (asked.stdout.take().unwrap(), String::new());
    let mut bytes = [0; 1024];
    while !said.contains("[y/N]") {
        let read = out.read(&mut bytes).unwrap();
        assert_ne!(read, 0, "it ended without a question: {said}");
        said.push_str(&String::from_utf8_lossy(&bytes[..read]));
    }
    succeed(Command::new("docker").args(["tag", to, from]));
    asked.stdin.take().unwrap().write_all(b"y\n").unwrap();
    let mut rest = Vec::new();
    let _ = out.read_to_end(&mut rest);
    said.push_str(&String::from_utf8_lossy(&rest));
    (asked.wait().unwrap().code().unwrap_or(-1), said)
}

fn image_id(reference: &str) -> String {
    let output = succeed(Command::new("docker").args(["image", "inspect", "--format", "{{.Id}}", reference]));
    String::from_utf8_lossy(&output.stdout).trim().trim_start_matches("sha256:").to_owned()
}

#[test]
fn tag_that_moves_between_prompt_and_roll_is_refused_with_both_ids() {
    let deployment = Deployment::new("e2e-moved", 37, &["database", "framework"]);
    deployment.tarsup(&["up", "--yes"]).exits(0);
    let before = deployment.id("framework");
    let name = |tag: &str| format!("{PREFIX}/framework:{tag}");
    let ids = [OLD, NEW, BAD].map(|version| image_id(&name(version)));

    succeed(Command::new("docker").args(["tag", &name(NEW), &name("moving")]));
    let (code, said) =
        move_a_tag_at_the_prompt(&deployment, &["upgrade", "--to", "moving"], &name("moving"), &name(BAD));
    assert_eq!(code, 3, "{said}");
    for id in &ids[1..] {
        assert!(said.contains(&id[..12]), "{id} is not named: {said}");
    }
    assert_eq!(deployment.id("framework"), before);

    // Pinned: the file names the tag, the lock file what it was.
    succeed(Command::new("docker").args(["tag", &name(NEW), &name("moving")]));
    deployment.edit(".env", &format!("TARS_VERSION={OLD}"), "TARS_VERSION=moving");
    deployment.tarsup(&["lock"]).exits(0);
    let (code, said) =
        move_a_tag_at_the_prompt(&deployment, &["up", "--locked"], &name("moving"), &name(BAD));
    assert_eq!(code, 3, "{said}");
    assert_eq!(deployment.id("framework"), before);
    succeed(Command::new("docker").args(["rmi", &name("moving")]));
}
