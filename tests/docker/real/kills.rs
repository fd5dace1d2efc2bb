//! kill -9 of tarsup at random moments of an upgrade: whatever was done by then, a resume leaves one version, whole.
//!
//! `TARSUP_KILLS` kills (3 without it, which is what CI runs), at moments that follow from `TARSUP_SEED` (the clock
//! without it; it is printed). Half of them are resumed at once, half after a wait, every third after a prune.

use std::fmt::Write as _;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::rows::{Rows, difference, rows, wait_for_nodes};
use super::stage::{PATCHED, RELEASE, stage};
use crate::e2e::deployment::{Deployment, wait_for};
use crate::e2e::stage::succeed;
use crate::turns::is_for_another_time;

const ALL: &[&str] = &["database", "framework", "slave", "node", "node2"];
const TARS: &[&str] = &["framework", "slave", "node", "node2"];
/// As long as an operator needs to notice.
const WAIT: Duration = Duration::from_secs(15);
/// How long what a kill left may take until it is still.
const PATIENCE: Duration = Duration::from_secs(40);

/// splitmix64: the same seed gives the same moments anywhere.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit.max(1)
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|error| panic!("{variable}={text}: {error}")))
}

/// What each version's deployment looks like when nothing disturbs it.
struct Whole {
    version: &'static str,
    rows: Rows,
}

struct Round<'a> {
    deployment: &'a Deployment,
    whole: &'a [Whole; 2],
    identities: &'a [(&'static str, Value)],
    database: &'a str,
}

#[test]
fn real_upgrade_killed_at_random_moments_is_whole_after_a_resume() {
    if is_for_another_time() {
        return;
    }
    let Some(stage) = stage("real_upgrade_killed_at_random_moments") else { return };
    let kills = number("TARSUP_KILLS").unwrap_or(3);
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos().into();
    let seed = number("TARSUP_SEED").unwrap_or_else(clock);
    eprintln!("TARSUP_KILLS={kills} TARSUP_SEED={seed}");

    let deployment = Deployment::of(stage, RELEASE, "real-kills", 66, ALL);
    deployment.tarsup(&["up", "--yes"]).exits(0);
    wait_for_nodes(&deployment, 4);
    let first = Whole { version: RELEASE, rows: rows(&deployment, true) };
    let began = Instant::now();
    deployment.tarsup(&["upgrade", "--to", PATCHED, "--yes"]).exits(0);
    let length = began.elapsed();
    wait_for_nodes(&deployment, 4);
    let second = Whole { version: PATCHED, rows: rows(&deployment, true) };
    let identities: Vec<_> = TARS.iter().map(|service| (*service, deployment.identity(service))).collect();
    let database = deployment.id("database");
    let round = Round {
        deployment: &deployment,
        whole: &[first, second],
        identities: &identities,
        database: &database,
    };

    let mut dice = Dice(seed);
    let mut broken = String::new();
    for kill in 0..kills {
        let moment = Duration::from_millis(dice.below(length.as_millis().try_into().unwrap()));
        let told = round.kill(moment, kill % 2 == 1, kill % 3 == 2);
        eprintln!(
            "kill {}/{kills} after {:.1} s: {}",
            kill + 1,
            moment.as_secs_f64(),
            told.as_ref().unwrap_or_else(|why| why)
        );
        if let Err(why) = told {
            let _ = writeln!(broken, "kill {} after {:.1} s: {why}", kill + 1, moment.as_secs_f64());
            round.mend();
        }
    }
    assert!(broken.is_empty(), "TARSUP_SEED={seed} shows again:\n{broken}");
    deployment.holds_no_secret();
}

impl Round<'_> {
    /// One kill, one resume; what happened, or what is wrong afterwards.
    fn kill(&self, moment: Duration, late: bool, prune: bool) -> Result<String, String> {
        let from = self.deployment.version("framework");
        let to = if from == RELEASE { PATCHED } else { RELEASE };
        let mut upgrade = self.deployment.spawn(&["upgrade", "--to", to, "--yes"]);
        std::thread::sleep(moment);
        let done = upgrade.try_wait().unwrap().is_some();
        upgrade.kill().unwrap(); // SIGKILL
        upgrade.wait().unwrap();
        let at = if done { "it was through".to_owned() } else { self.last_line() };
        if late {
            std::thread::sleep(WAIT);
        }
        if prune {
            self.deployment.prune();
        }
        let mut told = format!(
            "{from} to {to}, {at}, {}{}",
            if late { "later" } else { "at once" },
            if prune { ", pruned" } else { "" }
        );
        let mut resumed = self.deployment.tarsup(&["resume", "--yes"]);
        let _ = write!(told, ": resume exits {} ({})", resumed.code, last(&resumed.out, &resumed.err));
        if resumed.code != 0 && prune && (resumed.out.clone() + &resumed.err).contains("--forward") {
            // What would have come back is gone with the prune: the way that was named is gone instead.
            resumed = self.deployment.tarsup(&["resume", "--forward", "--yes"]);
            let _ = write!(told, "; forward exits {} ({})", resumed.code, last(&resumed.out, &resumed.err));
        }
        let wrong = self.wrong_until_still(resumed.code);
        if wrong.is_empty() { Ok(told) } else { Err(format!("{told}\n  {}", wrong.join("\n  "))) }
    }

    /// What the journal of the last deploy said last.
    fn last_line(&self) -> String {
        let folder = self.deployment.path(".tarsup/deploys");
        let mut journals: Vec<_> =
            std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        journals.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
        journals.sort();
        let text =
            journals.last().map(|path| std::fs::read_to_string(path).unwrap_or_default()).unwrap_or_default();
        let line: Value =
            text.lines().last().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default();
        let word = |key: &str| line[key].as_str().map(str::to_owned);
        format!(
            "{} {} {} {}",
            word("event").unwrap_or_default(),
            line["step"],
            word("kind").unwrap_or_default(),
            word("container").unwrap_or_default()
        )
    }

    fn wrong_until_still(&self, code: i32) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let wrong = self.wrong(code);
            if wrong.is_empty() || Instant::now() > deadline {
                return wrong;
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// All that is not as it must be after a resume.
    fn wrong(&self, code: i32) -> Vec<String> {
        let deployment = self.deployment;
        let mut wrong = Vec::new();
        if code != 0 {
            wrong.push(format!("exit code {code}"));
        }
        let version = deployment.version("framework");
        for (service, identity) in self.identities {
            let raw = deployment.inspect(service);
            if raw["State"]["Status"] != "running" {
                wrong.push(format!("{service} is {}", raw["State"]["Status"]));
                continue;
            }
            if deployment.version(service) != version {
                wrong.push(format!("{service} runs {}, the master {version}", deployment.version(service)));
            }
            let is = deployment.identity(service);
            if is != *identity {
                wrong.push(format!("{service} is another one:\n    was {identity}\n    is  {is}"));
            }
            if !deployment.answers(service) {
                wrong.push(format!("{service} does not answer"));
            }
        }
        if deployment.inspect("database")["Id"] != self.database {
            wrong.push("the database was touched".to_owned());
        }
        if !wrong.is_empty() {
            // The rest would only repeat it.
            return wrong;
        }
        if !deployment.read(".env").starts_with(&format!("TARS_VERSION={version}\n")) {
            wrong.push(format!(
                "{version} runs, and .env says {}",
                deployment.read(".env").lines().next().unwrap_or("")
            ));
        }
        let plan = deployment.tarsup(&["plan", "--json"]);
        let steps = serde_json::from_str::<Value>(&plan.out).unwrap_or_default()["steps"].clone();
        if steps != serde_json::json!([]) {
            wrong.push(format!("the plan is not empty: exit {}, {steps} {}", plan.code, plan.err));
        }
        match self.whole.iter().find(|whole| whole.version == version) {
            None => wrong.push(format!("{version} runs, which nobody asked for")),
            Some(whole) => {
                let now = rows(deployment, true);
                if now != whole.rows {
                    wrong.push(format!("rows differ:\n{}", difference(&whole.rows, &now)));
                }
            }
        }
        wrong.extend(self.left_over());
        wrong
    }

    /// Locks and half-made containers.
    fn left_over(&self) -> Vec<String> {
        let name = self.deployment.name;
        let mut left: Vec<String> = Vec::new();
        for container in self.deployment.containers() {
            let half = [".new.", ".migrate.", ".cluster."].iter().any(|part| container.contains(part));
            if half || container.contains("lock") {
                left.push(format!("{container} is left over"));
            }
        }
        let volumes = succeed(Command::new("docker").args(["volume", "ls", "-q"]));
        let volumes = String::from_utf8_lossy(&volumes.stdout).into_owned();
        if volumes.lines().any(|volume| volume == format!("{name}.lock")) {
            left.push("the lock's volume is left over".to_owned());
        }
        left
    }

    /// After a finding: a deployment that the next kill can begin with.
    fn mend(&self) {
        let name = self.deployment.name;
        for part in ["resume", "resume --forward"] {
            let words: Vec<&str> = part.split(' ').chain(["--yes"]).collect();
            let _ = self.deployment.tarsup(&words);
        }
        let _ = Command::new("docker").args(["rm", "-f", &format!("tarsup-lock-{name}")]).output();
        let _ = Command::new("docker").args(["volume", "rm", &format!("{name}.lock")]).output();
        for container in self.deployment.containers() {
            if [".new.", ".migrate.", ".cluster."].iter().any(|part| container.contains(part)) {
                let _ = Command::new("docker").args(["rm", "-f", &container]).output();
            }
        }
        let up = self.deployment.tarsup(&["up", "--yes"]);
        eprintln!("  mended by hand: up exits {} ({})", up.code, last(&up.out, &up.err));
    }
}

fn last(out: &str, err: &str) -> String {
    let lines: Vec<&str> = err.lines().chain(out.lines()).filter(|line| !line.trim().is_empty()).collect();
    let told = lines.iter().find(|line| line.starts_with("error")).or(lines.last());
    told.map_or_else(String::new, |line| line.trim().to_owned())
}

#[test]
fn real_master_killed_in_its_stop_and_resumed_at_once_is_up_again() {
    let Some(stage) = stage("real_master_killed_in_its_stop") else { return };
    let deployment = Deployment::of(stage, RELEASE, "real-stop", 67, &["database", "framework", "slave"]);
    let marker = "    container_name: real-stop-framework\n";
    deployment.edit("compose.yaml", marker, &format!("{marker}    stop_grace_period: 6s\n"));
    deployment.tarsup(&["up", "--yes"]).exits(0);
    // Its PID 1 hears nothing: the engine waits for the whole grace time.
    succeed(Command::new("docker").args(["kill", "--signal", "STOP", "real-stop-framework"]));
    let before = ["framework", "slave"].map(|service| deployment.identity(service));

    let mut upgrade = deployment.spawn(&["upgrade", "--to", PATCHED, "--yes"]);
    wait_for("the master's stop to be under way", || stops(&deployment, "real-stop-framework"));
    upgrade.kill().unwrap(); // SIGKILL: the engine goes on with what it was told
    upgrade.wait().unwrap();
    deployment.tarsup(&["resume", "--yes"]).exits(0);

    // The engine has finished by then, whatever it was told.
    std::thread::sleep(Duration::from_secs(8));
    for service in ["framework", "slave"] {
        assert_eq!(deployment.inspect(service)["State"]["Status"], "running", "{service}");
        assert_eq!(deployment.version(service), RELEASE);
        wait_for("the old version to answer", || deployment.answers(service));
    }
    assert_eq!(["framework", "slave"].map(|service| deployment.identity(service)), before);
}

/// True where a journal's last word is that this container's stop has begun.
fn stops(deployment: &Deployment, container: &str) -> bool {
    let Ok(journals) = std::fs::read_dir(deployment.path(".tarsup/deploys")) else { return false };
    journals.flatten().any(|journal| {
        let text = std::fs::read_to_string(journal.path()).unwrap_or_default();
        text.lines().last().is_some_and(|line| line.contains("\"stop\"") && line.contains(container))
    })
}
