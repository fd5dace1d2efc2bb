//! What is found before the first step on the real framework: all at once, by names, and nothing touched.

use std::process::Command;

use serde_json::Value;

use super::stage::{PATCHED, PREFIX, RELEASE, stage};
use crate::e2e::deployment::{Deployment, wait_for};
use crate::e2e::stage::succeed;
use crate::turns::is_for_another_time;

/// The findings of a plan: about what, which kind, the text.
fn findings(deployment: &Deployment) -> Vec<(String, String, String)> {
    let plan = deployment.tarsup(&["plan", "--to", PATCHED, "--json"]).exits(0).json();
    let text = |one: &Value, key: &str| one[key].as_str().unwrap().to_owned();
    let all = plan["findings"].as_array().unwrap().iter();
    all.map(|one| (text(one, "about"), text(one, "kind"), text(one, "text"))).collect()
}

#[track_caller]
fn has(deployment: &Deployment, about: &str, kind: &str, words: &str) {
    let found = findings(deployment);
    let is_it = |one: &(String, String, String)| one.0 == about && one.1 == kind && one.2.contains(words);
    assert!(found.iter().any(is_it), "{about}, {kind}, {words:?}: {found:#?}");
}

#[test]
fn real_preflight_tells_all_at_once_and_touches_nothing() {
    if is_for_another_time() {
        return;
    }
    let Some(stage) = stage("real_preflight_tells_all_at_once") else { return };
    let services = ["database", "framework", "slave", "node"];
    let deployment = Deployment::of(stage, RELEASE, "real-preflight", 93, &services);
    deployment.tarsup(&["up", "--yes"]).exits(0);
    wait_for("the master to be well", || deployment.answers("framework"));
    let down = "SELECT COUNT(*) FROM db_tars.t_server_conf WHERE setting_state = 'active' AND present_state = 'inactive'";
    wait_for("every service to be active", || deployment.query(down).trim() == "0");
    assert_eq!(findings(&deployment), [], "all is well");

    // The database lives in another time zone, which a registry never learns of.
    deployment.query("SET GLOBAL time_zone = '+08:00'");
    has(
        &deployment,
        "clocks",
        "question",
        "`framework` (+0000), `slave` (+0000) is not the database's (+0800)",
    );
    has(&deployment, "clocks", "note", "the time zone of `node` (+0000)");
    let asked = deployment.tarsup(&["upgrade", "--to", PATCHED]).exits(3);
    assert!(asked.err.contains("misses changes for up to an hour"), "{}", asked.err);
    deployment.query("SET GLOBAL time_zone = 'SYSTEM'");

    // Somebody's node and service, and a network that hands out everything.
    deployment.query(
        "INSERT INTO db_tars.t_node_info (node_name, last_heartbeat, tars_version) VALUES \
         ('10.9.9.9', NOW() - INTERVAL 251 SECOND, '3.0.15'); \
         INSERT INTO db_tars.t_server_conf (application, server_name, node_name, setting_state, present_state) \
         SELECT 'Shop', 'Cart', node_name, 'active', 'inactive' FROM db_tars.t_node_info WHERE node_name LIKE '%.5'",
    );
    has(&deployment, "cluster", "note", "not heard of for 250 s, or never: 10.9.9.9");
    let at = format!("services that are to run and do not: Shop.Cart at {}", deployment.address(5));
    has(&deployment, "cluster", "note", &at);

    // Three things at once, each with its line and its way out.
    let before: Vec<String> = services.iter().map(|service| deployment.id(service)).collect();
    let compose = deployment.read("compose.yaml");
    deployment.edit(
        "compose.yaml",
        "REBUILD: \"false\"\n      SLAVE: \"true\"",
        "REBUILD: \"true\"\n      SLAVE: \"true\"",
    );
    let (taken, node) = (deployment.address(9), deployment.address(5));
    deployment.edit("compose.yaml", &format!("ipv4_address: {node}"), &format!("ipv4_address: {taken}"));
    let stranger = deployment.container("stranger");
    let mut run = Command::new("docker");
    run.args(["run", "-d", "--name", &stranger, "--network", &deployment.network(), "--ip", &taken]);
    succeed(run.args(["--entrypoint", "sleep", &format!("{PREFIX}/framework:{RELEASE}"), "600"]));
    let refused = deployment.tarsup(&["up", "--yes"]).exits(3);
    for words in ["`REBUILD` is \"true\" for the service `slave`", &format!("{taken} on")] {
        assert!(refused.err.contains(words), "{words}: {}", refused.err);
    }
    assert!(
        refused.err.matches("error: ").count() == 2 && refused.err.matches("hint: ").count() == 2,
        "{}",
        refused.err
    );
    let document = deployment.tarsup(&["upgrade", "--to", "9.9.9", "--yes", "--json"]).exits(3).json();
    let errors = document["error"]["findings"].as_array().unwrap();
    assert_eq!(errors.len(), 3, "the image is nowhere, too: {document}");
    assert!(errors.iter().all(|error| error["line"].is_u64() && error["hint"].is_string()), "{document}");
    deployment.write("compose.yaml", &compose);
    succeed(Command::new("docker").args(["rm", "-f", &stranger]));
    let after: Vec<String> = services.iter().map(|service| deployment.id(service)).collect();
    assert_eq!(after, before);

    deployment.query(
        "DELETE FROM db_tars.t_server_conf WHERE application = 'Shop'; \
         DELETE FROM db_tars.t_node_info WHERE node_name = '10.9.9.9'",
    );

    // A newer version changed the database and left no word: its own start would refuse the older one in the middle of a rollback.
    deployment.tarsup(&["upgrade", "--to", PATCHED, "--yes"]).exits(0);
    deployment.query(
        "INSERT INTO tarsup.t_version (version, act, image, node, at, changed) VALUES ('9.9.9', 'migrate', '', '', NOW(), 'x')",
    );
    let refused = deployment.tarsup(&["rollback", "--yes"]).exits(3);
    let words = "`framework`: 3.0.17 does not start on this database: 9.9.9 has changed it";
    assert!(refused.err.contains(words), "{}", refused.err);
    deployment.query("DELETE FROM tarsup.t_version WHERE version = '9.9.9'");
    deployment.tarsup(&["rollback", "--yes"]).exits(0);
}
