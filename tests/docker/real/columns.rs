//! Back to a master with upstream's own start, whose web console nobody can hold back, and forth again.

use std::process::Command;

use super::stage::{PREFIX, RELEASE, UPSTREAM_FRAMEWORK, stage, stage_with};
use crate::e2e::deployment::{Deployment, wait_for};
use crate::e2e::stage::succeed;
use crate::turns::is_for_another_time;

const FLOWS: &str =
    "SELECT server_name, flow_state FROM db_tars.t_server_conf WHERE flow_state = 'inactive' ORDER BY 1";

/// The declared master with upstream's start, as one that was taken over: its labels say whose it is.
fn run_upstream(deployment: &Deployment) {
    let label = |key: &str, value: &str| format!("--label=io.tarsup.{key}={value}");
    let mut command = Command::new("docker");
    command.args(["run", "-d", "--restart=always", "--name", &deployment.container("framework")]);
    command.args(["--net", &deployment.network(), "--ip", &deployment.address(3)]);
    command.arg(label("deployment", deployment.name)).arg(label("service", "framework"));
    command.arg(label("role", "master")).arg(label("deploy", "20260101T000000Z-0000"));
    command.args(["-v", &format!("{}_framework:/data/tars", deployment.name)]);
    for variable in [
        format!("MYSQL_HOST={}", deployment.address(2)),
        "MYSQL_USER=root".to_owned(),
        "MYSQL_ROOT_PASSWORD=e2e-secret".to_owned(),
        "MYSQL_PORT=3306".to_owned(),
        "INET=eth0".to_owned(),
        "REBUILD=false".to_owned(),
        "SLAVE=false".to_owned(),
    ] {
        command.args(["-e", &variable]);
    }
    // A tag of the repository that the file names: of another one it would have to be changed by hand.
    let (image, tag) =
        (format!("{PREFIX}/{UPSTREAM_FRAMEWORK}:1"), format!("{PREFIX}/framework:{UPSTREAM_FRAMEWORK}"));
    succeed(Command::new("docker").args(["tag", &image, &tag]));
    succeed(command.arg(tag));
}

#[test]
fn real_rollback_to_upstream_keeps_columns_first_and_the_way_forth_puts_them_back() {
    if is_for_another_time() {
        return;
    }
    let test = "real_rollback_to_upstream";
    let Some(stage) = stage(test) else { return };
    stage_with(UPSTREAM_FRAMEWORK, test);
    let deployment = Deployment::of(stage, RELEASE, "real-columns", 72, &["database"]);
    deployment.tarsup(&["up", "--yes"]).exits(0);
    run_upstream(&deployment);
    wait_for("upstream's first boot", || {
        let tables = "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = 'db_tars' AND table_name IN \
                      ('t_server_conf', 't_node_info')";
        let nodes = "SELECT COUNT(*) FROM db_tars.t_node_info WHERE present_state = 'active'";
        deployment.query(tables).trim() == "2" && deployment.query(nodes).trim() == "1"
    });
    deployment.declare(&["database", "framework"]);
    // Upstream's console takes a minute and more to listen where others work beside it.
    deployment.edit("compose.yaml", "gate_timeout: 90s", "gate_timeout: 4m");
    deployment.tarsup(&["up", "--yes"]).exits(0);
    assert!(deployment.answers("framework"));
    // Of the framework's own services upstream's start replaces the rows. Without a time its console would not come up: it makes
    // that column NOT NULL.
    deployment.query(
        "INSERT INTO db_tars.t_server_conf (application, server_name, node_name, flow_state, patch_time) VALUES ('E2e', \
         'Idle', '192.0.2.9', 'inactive', NOW())",
    );
    let flows = deployment.query(FLOWS);
    assert_eq!(flows, "Idle\tinactive\n");

    let shown = deployment.tarsup(&["rollback", "--dry-run", "--json"]).exits(0).json();
    let kinds: Vec<&str> =
        shown["steps"].as_array().unwrap().iter().map(|step| step["kind"].as_str().unwrap()).collect();
    let at = |kind: &str| kinds.iter().position(|own| *own == kind).unwrap();
    assert!(at("keep-columns") < at("stop"), "{kinds:?}");
    let kept = shown["columns"]["kept"].as_array().unwrap();
    let flow = kept.iter().find(|one| one["column"] == "db_tars.t_server_conf.flow_state").unwrap();
    assert!(flow["rows"].as_u64().unwrap() >= 10, "{flow}");

    let ran = deployment.tarsup(&["rollback", "--yes"]).exits(0);
    assert!(ran.err.contains("keeps db_tars.t_server_conf ("), "{}", ran.err);
    assert!(
        ran.err.contains("may drop, and is kept in `tarsup` before: db_tars.t_server_conf ("),
        "{}",
        ran.err
    );
    // What an older console's start does.
    deployment.query("ALTER TABLE db_tars.t_server_conf DROP COLUMN flow_state");

    let ran = deployment.tarsup(&["rollback", "--yes"]).exits(0);
    assert!(!ran.err.contains("keep-columns"), "ours holds its console back itself: {}", ran.err);
    assert_eq!(deployment.query(FLOWS), flows);
}
