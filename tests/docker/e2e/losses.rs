//! What a container would lose, on a real engine: a stand-in for a DCache server keeps a segment, and somebody a file.

use std::process::Command;

use super::deployment::Deployment;
use super::stage::{PREFIX, succeed};

/// Makes a segment with something in it and waits, as a cache server does.
const CACHE: &str = "my $$i = shmget(0x1234, 8192, 01600); shmwrite($$i, 'kept', 0, 4) or die; $$SIG{TERM} = sub { exit }; \
                     sleep 1 while 1";

/// The framework, with a cache server beside it.
fn with_a_cache(name: &'static str, subnet: u8, more: &str) -> Deployment {
    let deployment = Deployment::new(name, subnet, &["database", "framework"]);
    let cache = format!(
        "services:\n  cache:\n    image: {PREFIX}/database:10.11\n    container_name: {name}-cache\n    entrypoint: [perl, -e, \
         \"{CACHE}\"]\n    healthcheck: {{disable: true}}\n    environment: {{TRY: \"1\"}}\n{more}"
    );
    let file = deployment.read("compose.yaml");
    deployment.write("compose.yaml", &file.replacen("services:\n", &cache, 1));
    deployment.tarsup(&["up", "--yes"]).exits(0);
    deployment
}

fn inside(container: &str, words: &str) -> String {
    let output = succeed(Command::new("docker").args(["exec", container, "sh", "-c", words]));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn segment_of_a_cache_server_is_lost_only_where_somebody_said_so() {
    let deployment = with_a_cache("e2e-losses", 62, "");
    let id = deployment.id("cache");
    let started = deployment.inspect("cache")["State"]["StartedAt"].clone();
    deployment.edit("compose.yaml", "TRY: \"1\"", "TRY: \"2\"");
    for words in [
        &["restart", "cache", "--yes"][..],
        &["restart", "--yes"],
        &["down", "--yes"],
        &["up", "--yes"],
        &["plan"],
        &["up", "--yes", "--accept-state-loss", "framework"],
    ] {
        let refused = deployment.tarsup(words).exits(3);
        let what =
            "service `cache`: its container keeps a segment of 8 KiB of perl, which is gone once it stops";
        assert!(refused.err.contains(what), "{words:?}: {}", refused.err);
        assert!(refused.err.contains("--accept-state-loss cache"), "{words:?}: {}", refused.err);
    }
    assert_eq!(deployment.id("cache"), id);
    assert_eq!(deployment.inspect("cache")["State"]["StartedAt"], started);

    inside(&deployment.container("cache"), "echo x >/etc/mine.conf; echo x >/tmp/not-mine");
    let shown = deployment.tarsup(&["up", "--yes", "--accept-state-loss", "cache"]).exits(0);
    let text = shown.out + &shown.err;
    assert!(text.contains("`cache` loses a segment of 8 KiB of perl"), "{text}");
    let files = "`cache` has files of its own that its successor is without: /etc/mine.conf (added)\n";
    assert!(text.contains(files), "{text}");
    assert_ne!(deployment.id("cache"), id);
}

#[test]
fn framework_and_memory_of_the_host_are_no_loss_and_a_held_service_is_left() {
    let deployment = with_a_cache("e2e-held", 63, "    ipc: host\n    x-tars: {hold: true}\n");
    let told = inside(&deployment.container("framework"), "tars-init shared-memory");
    assert!(told.lines().any(|line| line.ends_with(" tarsregistry")) && told.ends_with("end\n"), "{told}");
    // A segment in the master's container, of who is none of the framework's; and one that nobody has any more.
    let words = "tars-init shared-memory | grep -c ^segment || true";
    let before = inside(&deployment.container("framework"), words);
    assert_eq!(before, "0\n", "the stand-ins make none");
    let plan = deployment.tarsup(&["restart", "framework", "--dry-run"]).exits(0);
    assert!(!plan.out.contains("shared memory") && !plan.out.contains("loses"), "{}", plan.out);

    let (id, started) = (deployment.id("cache"), deployment.inspect("cache")["State"]["StartedAt"].clone());
    deployment.edit("compose.yaml", "TRY: \"1\"", "TRY: \"2\"");
    let up = deployment.tarsup(&["up", "--yes"]).exits(0);
    let text = up.out + &up.err;
    assert!(text.contains("`cache` is held and left as it is"), "{text}");
    deployment.tarsup(&["restart", "--yes"]).exits(0);
    deployment.tarsup(&["down", "--yes"]).exits(0);
    assert_eq!((deployment.id("cache"), &deployment.inspect("cache")["State"]["StartedAt"]), (id, &started));
    deployment.tarsup(&["restart", "cache", "--yes"]).exits(0);
    assert_ne!(deployment.inspect("cache")["State"]["StartedAt"], started);

    // Its own leftover is in nobody's way.
    deployment.tarsup(&["up", "--yes"]).exits(0);
    let image = deployment.inspect("framework")["Image"].as_str().unwrap().to_owned();
    let (label, name) = ("io.tarsup.deployment=e2e-held", "e2e-held.accept");
    succeed(Command::new("docker").args(["create", "--name", name, "--label", label, &image]));
    deployment.tarsup(&["accept-database"]).exits(0);
    let output = Command::new("docker").args(["container", "inspect", name]).output().unwrap();
    assert!(!output.status.success(), "nothing is left");
    // One of somebody else's is.
    succeed(Command::new("docker").args(["create", "--name", name, &image]));
    let refused = deployment.tarsup(&["accept-database"]).exits(1);
    assert!(refused.err.contains("already in use"), "{}", refused.err);
    succeed(Command::new("docker").args(["rm", name]));
}
