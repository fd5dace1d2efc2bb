//! Services of the real framework that crash: tarsnode brings them back, or tars-init where tarsnode does not.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::silence::inside;
use super::stage::{RELEASE, stage};
use crate::e2e::deployment::{Deployment, wait_for};
use crate::turns::is_for_another_time;

const ALL: [&str; 11] = [
    "tarsAdminRegistry",
    "tarsregistry",
    "tarsconfig",
    "tarsnode",
    "tarsnotify",
    "tarsproperty",
    "tarsqueryproperty",
    "tarsquerystat",
    "tarsstat",
    "tarslog",
    "tarspatch",
];

#[test]
fn real_service_that_crashes_again_and_again_is_back_within_seconds_and_once() {
    if is_for_another_time() {
        return;
    }
    let Some(stage) = stage("real_service_that_crashes") else { return };
    let deployment = Deployment::of(stage, RELEASE, "real-crash", 58, &["database", "framework"]);
    deployment.tarsup(&["up", "--yes"]).exits(0);
    let container = deployment.container("framework");
    // What is left of a dead process is its name, which the kernel cuts.
    for service in ALL {
        let name = &service[..service.len().min(15)];
        assert!(!inside(&deployment, &format!("pgrep -x {name} || true")).is_empty(), "{service} is {name}");
    }
    let mut longest = Duration::ZERO;
    for _ in 0..6 {
        let before = inside(&deployment, "pgrep -x tarsstat");
        inside(&deployment, &format!("kill -KILL {before}"));
        let begun = Instant::now();
        wait_for("another tarsstat", || {
            let now = inside(&deployment, "pgrep -x tarsstat || true");
            !now.is_empty() && now != before
        });
        longest = longest.max(begun.elapsed());
    }
    let logs = Command::new("docker").args(["logs", &container]).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&logs.stderr).into_owned() + &String::from_utf8_lossy(&logs.stdout);
    eprintln!(
        "tarsstat: back after {longest:?} at most, {} of 6 times by tars-init",
        said.matches("tarsnode has not brought tarsstat back").count()
    );
    assert!(longest < Duration::from_secs(40), "{said}");
    assert!(said.contains("tarsstat (pid ") && said.contains("was killed by SIGKILL"), "{said}");
    // tarsnode looks after what it does not know from the tenth second on.
    let successor = inside(&deployment, "pgrep -x tarsstat");
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(20) {
        assert_eq!(inside(&deployment, "pgrep -x tarsstat"), successor, "one process, and the same:\n{said}");
        std::thread::sleep(Duration::from_secs(1));
    }
    wait_for("the master to be well", || deployment.answers("framework"));
}
