//! What tars-init costs on the real framework: the CPU of a health check, the memory of PID 1.

use std::process::Command;

use super::stage::{WITH_WEB, stage_with};
use crate::e2e::deployment::{Deployment, wait_for};
use crate::e2e::stage::succeed;
use crate::turns::is_for_another_time;

/// Docker asks every two seconds.
const CALLS: u32 = 100;

/// Runs a shell's words in a service's container.
fn inside(deployment: &Deployment, service: &str, words: &str) -> String {
    let container = deployment.container(service);
    let output = succeed(Command::new("docker").args(["exec", &container, "sh", "-c", words]));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Milliseconds of CPU of one health check, user and system.
fn health_costs(deployment: &Deployment, service: &str) -> f64 {
    // The last line of `times` is that of the children: `0m0.120s 0m0.340s`.
    let words =
        format!("i=0; while [ $i -lt {CALLS} ]; do tars-init health >&2 || exit; i=$((i+1)); done; times");
    let told = inside(deployment, service, &words);
    let seconds = |time: &str| -> f64 {
        let (minutes, seconds) = time.trim_end_matches('s').split_once('m').unwrap();
        minutes.parse::<f64>().unwrap() * 60.0 + seconds.parse::<f64>().unwrap()
    };
    let children = told.lines().last().unwrap().split_whitespace().map(seconds).sum::<f64>();
    children * 1000.0 / f64::from(CALLS)
}

/// KiB of a line of PID 1's status.
fn memory(deployment: &Deployment, service: &str, line: &str) -> u32 {
    let told = inside(deployment, service, &format!("grep {line}: /proc/1/status"));
    told.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn real_health_check_and_an_idle_tars_init_are_cheap() {
    if is_for_another_time() {
        return;
    }
    let Some(stage) = stage_with(WITH_WEB, "real_health_check_and_an_idle") else { return };
    let deployment = Deployment::of(stage, WITH_WEB, "real-costs", 61, &["database", "framework", "node"]);
    deployment.tarsup(&["up", "--yes"]).exits(0);
    wait_for("the master to be well", || deployment.answers("framework"));
    for service in ["framework", "node"] {
        let costs = health_costs(&deployment, service);
        let resident = memory(&deployment, service, "VmRSS");
        let (own, file) = (memory(&deployment, service, "RssAnon"), memory(&deployment, service, "RssFile"));
        eprintln!(
            "{service}: a health check takes {costs:.1} ms of CPU; tars-init is {resident} KiB resident ({own} of its own, \
             {file} of its file)"
        );
        assert!(costs < 7.0, "{service}: {costs} ms");
        assert!(resident < 8 * 1024, "{service}: {resident} KiB");
    }
}
