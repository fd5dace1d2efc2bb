//! A service of the real framework that lives and never answers.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::stage::{RELEASE, stage};
use crate::e2e::deployment::{Deployment, wait_for};
use crate::e2e::stage::succeed;
use crate::turns::is_for_another_time;

/// Runs a shell's words in the master's container.
pub fn inside(deployment: &Deployment, words: &str) -> String {
    let container = deployment.container("framework");
    let output = succeed(Command::new("docker").args(["exec", &container, "sh", "-c", words]));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn real_registry_that_never_answers_is_started_again_and_tarsnode_takes_it_for_its_own() {
    if is_for_another_time() {
        return;
    }
    let Some(stage) = stage("real_registry_that_never_answers") else { return };
    let deployment = Deployment::of(stage, RELEASE, "real-silent", 55, &["database", "framework"]);
    deployment.edit(
        "compose.yaml",
        "      REBUILD: \"false\"\n",
        "      REBUILD: \"false\"\n      TARSUP_ANSWER_TIMEOUT: \"5\"\n",
    );
    deployment.tarsup(&["up", "--yes"]).exits(0);
    let container = deployment.container("framework");
    // It is started again at once, and held in its first moments: it lives and has never answered.
    let words = "old=$(pgrep -x tarsregistry); kill -KILL $old; while :; do new=$(pgrep -x tarsregistry); \
                [ -z \"$new\" ] || [ \"$new\" = \"$old\" ] || ! kill -STOP $new || break; done; echo $new";
    let held = inside(&deployment, words);
    assert!(!deployment.answers("framework"), "it was held before it could answer");

    wait_for("another tarsregistry", || {
        let now = inside(&deployment, "pgrep -x tarsregistry || true");
        !now.is_empty() && now != held
    });

    wait_for("the master to be well", || deployment.answers("framework"));
    let logs = Command::new("docker").args(["logs", &container]).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&logs.stderr).into_owned() + &String::from_utf8_lossy(&logs.stdout);
    assert!(said.contains("tarsregistry lives and has never answered in 5 s"), "{said}");
    // tarsnode looks after what it does not know from the tenth second on.
    let successor = inside(&deployment, "pgrep -x tarsregistry");
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(20) {
        assert_eq!(inside(&deployment, "pgrep -x tarsregistry"), successor, "one process, and the same");
        std::thread::sleep(Duration::from_secs(1));
    }
    assert!(deployment.answers("framework"));
}
