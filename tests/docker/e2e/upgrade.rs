//! Up, upgrade, rollback, restart, a kill in the middle: what runs, what answers, and what stays as it was.

use super::deployment::{Deployment, wait_for};
use super::stage::{BAD, NEW, OLD, PREFIX};
use crate::turns::is_for_another_time;

const ALL: &[&str] = &["database", "framework", "slave", "node"];
const TARS: &[&str] = &["framework", "slave", "node"];

#[test]
fn upgrade_replaces_every_role_and_keeps_what_was_declared() {
    let deployment = Deployment::new("e2e-upgrade", 11, ALL);
    deployment.tarsup(&["up", "--yes"]).exits(0);
    deployment.mark();
    let before: Vec<_> = TARS.iter().map(|service| deployment.identity(service)).collect();
    let (database, tables) = (deployment.id("database"), deployment.tables());

    deployment.tarsup(&["upgrade", "--to", NEW, "--yes"]).exits(0);

    for (service, before) in TARS.iter().zip(before) {
        assert_eq!(deployment.identity(service), before, "{service}");
        assert!(deployment.answers(service), "{service}");
        let image = &deployment.inspect(service)["Config"]["Labels"]["org.opencontainers.image.version"];
        assert_eq!(image, NEW, "{service}");
    }
    assert_eq!(deployment.id("database"), database, "an upgrade never touches the database server");
    assert_eq!(deployment.tables(), tables);
    assert!(
        deployment.read(".env").starts_with(&format!("TARS_VERSION={NEW}\n")),
        "{}",
        deployment.read(".env")
    );

    // The engine's own health check looks every ten seconds.
    wait_for("four healthy services in `tarsup status`", || {
        let status = deployment.tarsup(&["status", "--json"]).exits(0).json();
        let services = status["services"].as_array().unwrap();
        services.len() == 4 && services.iter().all(|service| service["health"] == "healthy")
    });
    assert!(
        deployment.tarsup(&["history"]).exits(0).out.lines().count() >= 2,
        "up and upgrade are in the history"
    );

    // Converged: nothing is left to do.
    let ids: Vec<String> = ALL.iter().map(|service| deployment.id(service)).collect();
    deployment.tarsup(&["up", "--yes"]).exits(0);
    assert_eq!(ids, ALL.iter().map(|service| deployment.id(service)).collect::<Vec<_>>());

    // What is pinned is what runs.
    deployment.tarsup(&["lock"]).exits(0);
    deployment.tarsup(&["verify"]).exits(0);
    deployment.holds_no_secret();
}

#[test]
fn restart_keeps_the_containers_and_a_second_slave_joins() {
    let deployment = Deployment::new("e2e-restart", 12, &["database", "framework", "slave"]);
    deployment.tarsup(&["up", "--yes"]).exits(0);
    let known = ["database", "framework", "slave"];
    let ids = || known.iter().map(|service| deployment.id(service)).collect::<Vec<_>>();
    let started = |service| deployment.inspect(service)["State"]["StartedAt"].to_string();
    let (before, database, slave) = (ids(), started("database"), started("slave"));

    let shown = deployment.on_a_terminal(&["restart", "--yes"]);
    // One line for each service, which is drawn anew again and again; none for each step.
    assert!(!shown.contains("\n[1/"), "{shown}");
    for service in ["slave", "framework"] {
        let drawn = shown.lines().flat_map(|line| line.split('\r'));
        let drawn = drawn.filter(|line| line.contains(service) && line.contains("gate: ")).count();
        assert!(drawn > 1, "{service}: {shown}");
        assert!(
            shown.contains(&format!("{}  silent for ", deployment.container(service)))
                || shown.contains(&format!("{}      silent for ", deployment.container(service))),
            "{shown}"
        );
    }
    let told = deployment.tarsup(&["history", "show", "--json"]).exits(0).json();
    let silent: Vec<&str> =
        told["containers"].as_array().unwrap().iter().map(|one| one["service"].as_str().unwrap()).collect();
    assert_eq!(silent, ["slave", "framework"], "{told}");
    let longest =
        told["containers"].as_array().unwrap().iter().map(|one| one["milliseconds"].as_u64().unwrap()).max();
    assert!(longest < Some(60_000) && longest > Some(0), "{told}");

    assert_eq!(ids(), before);
    assert_eq!(started("database"), database);
    assert_ne!(started("slave"), slave);
    assert!(deployment.answers("framework") && deployment.answers("slave"));

    deployment.declare(&["database", "framework", "slave", "slave2"]);
    deployment.tarsup(&["up", "--yes"]).exits(0);

    assert_eq!(ids(), before, "a new slave leaves the others alone");
    assert!(deployment.answers("slave2"));
    let nodes = deployment.query("SELECT node_name FROM db_tars.t_node_info ORDER BY 1");
    assert_eq!(nodes.lines().collect::<Vec<_>>(), ["172.30.12.3", "172.30.12.4", "172.30.12.6"]);
}

#[test]
fn upgrade_to_a_version_that_never_answers_rolls_back_by_itself() {
    let deployment = Deployment::new("e2e-bad", 13, &["database", "framework", "slave"]);
    deployment.tarsup(&["up", "--yes"]).exits(0);
    deployment.mark();
    deployment.edit("compose.yaml", "gate_timeout: 90s", "gate_timeout: 10s");
    let ids = || ["database", "framework", "slave"].map(|service| deployment.id(service));
    let (before, tables, env) = (ids(), deployment.tables(), deployment.read(".env"));

    let ran = deployment.tarsup(&["upgrade", "--to", BAD, "--yes"]).exits(4);

    assert!((ran.out + &ran.err).contains("tarsconfig"), "it says what did not answer");
    assert_eq!(ids(), before, "the old containers are back under their names");
    assert!(deployment.answers("framework") && deployment.answers("slave"));
    assert_eq!(deployment.tables(), tables);
    assert_eq!(deployment.read(".env"), env);
    assert!(
        deployment.containers().iter().any(|name| name.contains(".failed.")),
        "{:?}",
        deployment.containers()
    );
    deployment.holds_no_secret();
}

#[test]
fn killed_upgrade_is_resumed() {
    if is_for_another_time() {
        return;
    }
    let deployment = Deployment::new("e2e-killed", 14, &["database", "framework", "slave"]);
    deployment.tarsup(&["up", "--yes"]).exits(0);
    deployment.mark();
    let before = ["framework", "slave"].map(|service| deployment.identity(service));
    let tables = deployment.tables();

    let mut upgrade = deployment.spawn(&["upgrade", "--to", NEW, "--yes"]);
    wait_for("the slave's predecessor to be parked", || {
        deployment.containers().iter().any(|name| name.starts_with("e2e-killed-slave.old."))
    });
    upgrade.kill().unwrap(); // SIGKILL
    upgrade.wait().unwrap();

    let status = deployment.tarsup(&["status", "--json"]).exits(0).json();
    assert!(!status["interrupted"].is_null() && status["interrupted"] != false, "{status}");
    deployment.tarsup(&["upgrade", "--to", NEW, "--yes"]).exits(5);

    let resumed = deployment.tarsup(&["resume", "--yes"]);
    assert!(matches!(resumed.code, 0 | 4), "{}\n{}\n{}", resumed.code, resumed.out, resumed.err);

    let version = |service: &str| {
        deployment.inspect(service)["Config"]["Labels"]["org.opencontainers.image.version"].clone()
    };
    assert_eq!(version("slave"), version("framework"), "one version, not two");
    assert_eq!(version("slave"), OLD, "what was not committed is undone");
    assert_eq!(["framework", "slave"].map(|service| deployment.identity(service)), before);
    assert!(deployment.answers("framework") && deployment.answers("slave"));
    assert_eq!(deployment.tables(), tables);

    // And the same upgrade goes through afterwards.
    deployment.tarsup(&["upgrade", "--to", NEW, "--yes"]).exits(0);
    assert_eq!(version("slave"), NEW);
    assert_eq!(
        deployment.inspect("slave")["Config"]["Image"].as_str().map(|image| image.contains(PREFIX)),
        Some(true)
    );
}
