//! Up, upgrade, rollback, a version that cannot come up, and an older release: on the real framework.

use std::collections::BTreeMap;

use serde_json::Value;

use super::hello;
use super::rows::{Rows, difference, rows, wait_for_nodes};
use super::stage::{FORMER, PATCHED, RELEASE, WRONG, stage, stage_with};
use crate::e2e::deployment::{Deployment, wait_for};
use crate::e2e::stage::{Stage, succeed};
use crate::turns::is_for_another_time;

const ALL: &[&str] = &["database", "framework", "slave", "node", "node2"];
const TARS: &[&str] = &["framework", "slave", "node", "node2"];

fn identities(deployment: &Deployment) -> BTreeMap<&'static str, Value> {
    TARS.iter().map(|service| (*service, deployment.identity(service))).collect()
}

/// Every container runs this version under its own name and answers, asked from inside.
#[track_caller]
fn runs(deployment: &Deployment, version: &str) {
    for service in TARS {
        assert_eq!(deployment.version(service), version, "{service}");
        wait_for(&format!("{service} to answer"), || deployment.answers(service));
    }
    assert!(deployment.read(".env").starts_with(&format!("TARS_VERSION={version}\n")));
    let plan = deployment.tarsup(&["plan", "--json"]).exits(0).json();
    assert_eq!(plan["steps"], serde_json::json!([]), "a plan after it is empty");
}

#[track_caller]
fn same_rows(before: &Rows, after: &Rows) {
    assert!(before == after, "rows differ:\n{}", difference(before, after));
}

#[test]
fn real_upgrade_and_rollback_keep_addresses_mounts_policies_rows_and_what_is_deployed() {
    let Some(stage) = stage("real_upgrade_and_rollback_keep") else { return };
    let deployment = Deployment::of(stage, RELEASE, "real-roll", 51, ALL);
    deployment.tarsup(&["up", "--yes"]).exits(0);
    deployment.mark();
    hello::deploy(&deployment, &[("node", 5), ("node2", 7)]);
    wait_for_nodes(&deployment, 4);
    let (before, rows_before) = (identities(&deployment), rows(&deployment, false));
    let versions_before = rows(&deployment, true);
    let (database, tables) = (deployment.id("database"), deployment.tables());

    deployment.tarsup(&["upgrade", "--to", PATCHED, "--yes"]).exits(0);

    runs(&deployment, PATCHED);
    assert_eq!(identities(&deployment), before);
    assert_eq!(deployment.id("database"), database, "an upgrade never touches the database server");
    wait_for_nodes(&deployment, 4);
    same_rows(&rows_before, &rows(&deployment, false));
    for host in [5, 7] {
        wait_for("the deployed service on each node", || hello::call(&deployment, Some(host)).code == 0);
    }
    // Registries hand it out a moment after it answers.
    wait_for("the deployed service by its name", || hello::call(&deployment, None).code == 0);

    deployment.tarsup(&["rollback", "--yes"]).exits(0);

    runs(&deployment, RELEASE);
    assert_eq!(identities(&deployment), before);
    // The version that each row names is put back as well.
    same_rows(&versions_before, &rows(&deployment, true));
    for host in [5, 7] {
        wait_for("the deployed service on each node", || hello::call(&deployment, Some(host)).code == 0);
    }
    // Counters of statistics come and go; the framework's own tables do not.
    let framework = |tables: &BTreeMap<String, u64>| {
        let ours = tables
            .iter()
            .filter(|(name, _)| name.starts_with("db_tars.") && !name.ends_with("t_server_notifys"));
        ours.map(|(name, rows)| (name.clone(), *rows)).collect::<BTreeMap<_, _>>()
    };
    assert_eq!(framework(&deployment.tables()), framework(&tables));
    deployment.holds_no_secret();
}

#[test]
fn real_version_that_does_not_come_up_is_rolled_back_by_itself() {
    let Some(stage) = stage_with(WRONG, "real_version_that_does_not_come_up") else { return };
    let deployment = Deployment::of(stage, RELEASE, "real-wrong", 52, &["database", "framework", "slave"]);
    deployment.tarsup(&["up", "--yes"]).exits(0);
    deployment.edit("compose.yaml", "gate_timeout: 90s", "gate_timeout: 25s");
    let ids = || ["database", "framework", "slave"].map(|service| deployment.id(service));
    let (before, env) = (ids(), deployment.read(".env"));
    let rows_before = rows(&deployment, false);

    let ran = deployment.tarsup(&["upgrade", "--to", WRONG, "--yes"]).exits(4);

    assert!((ran.out + &ran.err).contains("tarsconfig"), "it says what did not answer");
    assert_eq!(ids(), before, "the old containers are back under their names");
    assert_eq!(deployment.read(".env"), env);
    for service in ["framework", "slave"] {
        wait_for("the old version to answer", || deployment.answers(service));
    }
    same_rows(&rows_before, &rows(&deployment, false));
}

/// The stage with the former release, where it is the test's turn.
fn in_turn(test: &str) -> Option<&'static Stage> {
    if is_for_another_time() { None } else { stage_with(FORMER, test) }
}

#[test]
fn real_upgrade_that_fails_between_migration_and_swap_puts_back_what_the_migration_changed() {
    let Some(stage) = in_turn("real_upgrade_that_fails_between") else { return };
    stage_with(WRONG, "real_upgrade_that_fails_between");
    let deployment = Deployment::of(stage, FORMER, "real-between", 97, &["database", "framework", "slave"]);
    deployment.edit("compose.yaml", "gate_timeout: 90s", "gate_timeout: 4m");
    deployment.tarsup(&["up", "--yes"]).exits(0);
    deployment.edit("compose.yaml", "gate_timeout: 4m", "gate_timeout: 90s");
    let timeout = || {
        let query = "SELECT REGEXP_SUBSTR(REPLACE(profile, ' ', ''), 'activating-timeout=[0-9]0000') FROM \
                     db_tars.t_profile_template WHERE template_name = 'tars.default'";
        deployment.query(query).trim().to_owned()
    };
    let framework = deployment.id("framework");
    assert_eq!(timeout(), "activating-timeout=10000");
    let began = deployment.inspect("framework")["State"]["StartedAt"].clone();

    let ran = deployment.tarsup(&["upgrade", "--to", WRONG, "--yes"]).exits(4);

    // The canary did not come up: the master was never stopped, and would have taken nothing back.
    assert_eq!(deployment.id("framework"), framework);
    assert_eq!(deployment.inspect("framework")["State"]["StartedAt"], began);
    let changed =
        "tars.default tars/application/server/activating-timeout: 10000 → 60000, follows this version";
    assert!(ran.err.contains(&format!("the migration: {changed}")), "{}", ran.err);
    let back = "tars.default tars/application/server/activating-timeout: 60000 → 10000, follows this version";
    assert!(ran.err.contains(&format!("note: templates: {back}")), "{}", ran.err);
    // What was added stays, as after a rollback.
    assert_eq!(timeout(), "activating-timeout=10000");
}

/// What the one migration of a deployment saved first.
fn saved(deployment: &Deployment) -> Vec<Value> {
    let files = std::fs::read_dir(deployment.path(".tarsup/deploys")).unwrap();
    let files: Vec<_> = files
        .map(|file| file.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(".saved.jsonl.gz"))
        .collect();
    let [file] = files.as_slice() else { panic!("{files:?}") };
    let output = std::process::Command::new("gzip").arg("-dc").arg(file).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["save"].clone()).collect()
}

#[test]
fn real_upgrade_from_2_4_17_to_3_0_17_and_back() {
    let Some(stage) = in_turn("real_upgrade_from_2_4_17") else { return };
    let deployment = Deployment::of(stage, FORMER, "real-former", 53, ALL);
    // On the way back each node is proven by a heartbeat, and those come every 48 s.
    deployment.edit("compose.yaml", "gate_timeout: 90s", "gate_timeout: 4m");
    deployment.tarsup(&["up", "--yes"]).exits(0);
    deployment.mark();
    let before = identities(&deployment);

    let timeout = || {
        let query = "SELECT REGEXP_SUBSTR(REPLACE(profile, ' ', ''), 'activating-timeout=[0-9]0000') FROM \
                     db_tars.t_profile_template WHERE template_name = 'tars.default'";
        deployment.query(query).trim().to_owned()
    };
    assert_eq!(timeout(), "activating-timeout=10000");

    // The plan shows what the migration would do, and nothing is done for it.
    let plan = deployment.tarsup(&["plan", "--to", RELEASE, "--json"]).exits(0).json();
    let would = &plan["migration"];
    let column = "db_tars.t_server_conf: the column source";
    assert!(would["schema"]["added"].as_array().unwrap().iter().any(|it| it == column), "{would:#}");
    let has_source = "SELECT COUNT(*) FROM information_schema.columns WHERE table_name = 't_server_conf' AND column_name = 'source'";
    assert_eq!((deployment.query(has_source).trim(), timeout().as_str()), ("0", "activating-timeout=10000"));
    assert!(deployment.containers().iter().all(|name| !name.contains(".preview.")));

    let upgraded = deployment.tarsup(&["upgrade", "--to", RELEASE, "--yes"]).exits(0);

    runs(&deployment, RELEASE);
    assert_eq!(identities(&deployment), before);
    assert!(
        upgraded.err.contains(&format!("the migration: adds to the schema {column}")),
        "{}",
        upgraded.err
    );
    let saved = saved(&deployment);
    let of = |table: &str, key: &str| {
        saved.iter().filter(|line| line["table"] == table && !line[key].is_null()).count()
    };
    assert_eq!(of("db_tars.t_server_conf", "definition"), 1, "{saved:#?}");
    let default = saved.iter().find(|line| line["row"]["template_name"] == "tars.default").unwrap();
    assert!(
        default["row"]["profile"].as_str().unwrap().replace(' ', "").contains("activating-timeout=10000")
    );
    let history = "SELECT CONCAT_WS(' ', version, act, SUBSTRING_INDEX(image, '@', 1), changed <> '') FROM tarsup.t_version ORDER BY id";
    let history = || deployment.query(history).lines().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(history()[0], format!("{FORMER} install  1"));
    assert_eq!(history()[1], format!("{RELEASE} migrate tarsup-real/framework:{RELEASE} 1"));
    let ways = deployment.query("SELECT CONCAT(version, ' ', changed_by) FROM tarsup.t_way_back");
    assert_eq!(ways.trim(), format!("{FORMER} {RELEASE}"));
    // What a fresh installation has and upstream's own upgrade never brings, told to the operator.
    let column = "SELECT COUNT(*) FROM information_schema.columns WHERE table_name = 't_server_conf' AND column_name = 'source'";
    assert_eq!(deployment.query(column).trim(), "1");
    assert!(
        upgraded.err.contains("adds to the schema db_tars.t_server_conf: the column source"),
        "{}",
        upgraded.err
    );
    assert_eq!(timeout(), "activating-timeout=60000");
    let templates = deployment.tarsup(&["templates"]).exits(0);
    assert_eq!(templates.out.trim(), "every template is as this version ships it");
    deployment.tarsup(&["templates", "diff", "tars.nothing"]).exits(2);
    deployment.tarsup(&["accept-database"]).exits(0);
    assert!(deployment.containers().iter().all(|name| !name.ends_with(".accept")));

    // While the older version is parked, what it may need stays.
    let early = deployment.tarsup(&["migrate", "--finish", "--yes"]).exits(3);
    assert!(early.err.contains("is a way back"), "{}", early.err);

    let history_lines = deployment.tarsup(&["history"]).exits(0).out;
    assert!(history_lines.contains("as it was: .tarsup/deploys/"), "{history_lines}");

    // What the older master takes back stands in the plan.
    let plan = deployment.tarsup(&["rollback", "--dry-run"]).exits(0).out;
    let start = format!("the start of tarsup-real/framework:{FORMER} as `framework`: ");
    let told = format!(
        "{start}tars.default tars/application/server/activating-timeout: 60000 → 10000, follows this version"
    );
    assert!(plan.contains(&told), "{plan}");
    let versions = format!("`slave`: its rows name the version of tarsup-real/framework:{FORMER} again");
    assert!(plan.contains(&versions), "{plan}");
    assert_eq!(timeout(), "activating-timeout=60000", "nothing is done for it");

    let back = deployment.tarsup(&["rollback", "--yes"]).exits(0);

    runs(&deployment, FORMER);
    let named = "SELECT DISTINCT patch_version FROM db_tars.t_server_conf WHERE application = 'tars'";
    assert_eq!(deployment.query(named).trim(), FORMER);
    assert_eq!(identities(&deployment), before);
    // What the older master puts back is told, and who may run with the newer values until then.
    let key = "tars.default tars/application/server/activating-timeout: 60000 → 10000, follows this version";
    assert!(back.err.contains(key), "{}", back.err);
    let readers = back.err.lines().find(|line| line.contains("reaches those that run with tars.default"));
    // The slave's services ran meanwhile; the master's own are started with it.
    let (slave, own) = (deployment.address(4), deployment.address(3));
    let names_them =
        |line: &str| line.contains(&format!("tars.tarsconfig at {slave}")) && !line.contains(&own);
    assert!(readers.is_some_and(names_them), "{}", back.err);
    assert_eq!(
        timeout(),
        "activating-timeout=10000",
        "the master of the older version takes back what nobody edited"
    );
    assert_eq!(deployment.query(column).trim(), "1", "what was added stays");
    for parked in deployment.containers().iter().filter(|name| name.contains(".old.")) {
        succeed(std::process::Command::new("docker").args(["rm", parked]));
    }
    let ids: Vec<String> = TARS.iter().map(|service| deployment.id(service)).collect();
    let outdated = "SELECT COUNT(*) FROM db_tars.t_adapter_conf WHERE adapter_name LIKE '%NoTarsObjAdapter'";
    deployment.query("INSERT INTO db_tars.t_adapter_conf (application, server_name, node_name, adapter_name, endpoint, servant, \
                      posttime) VALUES ('tars', 'tarsquerystat', 'gone', 'tars.tarsquerystat.NoTarsObjAdapter', '', '', NOW())");
    assert_eq!(deployment.query(outdated).trim(), "1");
    deployment.tarsup(&["migrate", "--finish", "--yes"]).exits(0);
    assert_eq!(deployment.query(outdated).trim(), "0");
    let after: Vec<String> = TARS.iter().map(|service| deployment.id(service)).collect();
    assert_eq!(after, ids, "no service is touched");
    let kept = "SELECT COUNT(*) FROM db_tars.t_config_files WHERE filename = 'e2e.conf'";
    assert_eq!(deployment.query(kept).trim(), "1");
}
