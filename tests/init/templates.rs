//! Templates that an administrator edited, deleted or renamed, and a key that he and the next version both changed.

use std::fs;

use crate::container::Container;
use crate::server::Server;

const REGISTRY: &str = "usr/local/tars/cpp/deploy/framework/sql/template/tars.tarsregistry";

fn ship(container: &Container, timeout: u32, patience: u32) {
    let text = format!("<tars>\ntimeout={timeout}\npatience={patience}\n</tars>\n");
    fs::write(container.path(REGISTRY), text).unwrap();
}

fn held(server: &Server) -> Vec<(String, String)> {
    server.rows("SELECT template_name, profile FROM db_tars.t_profile_template ORDER BY template_name")
}

#[test]
fn template_edited_stays_deleted_comes_back_and_renamed_stays_beside_its_original() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    ship(&container, 10, 1);
    container.run_once();
    let before = held(&server);
    server.run(&[
        "UPDATE db_tars.t_profile_template SET profile = REPLACE(profile, 'timeout=10', 'timeout=99') WHERE \
         template_name = 'tars.tarsregistry'",
        "DELETE FROM db_tars.t_profile_template WHERE template_name = 'tars.framework-db'",
        "UPDATE db_tars.t_profile_template SET template_name = 'shop.default' WHERE template_name = 'tars.default'",
    ]);
    let log = container.run_once();
    assert!(log.contains("2 templates added: tars.default, tars.framework-db"), "{log}");
    let after = held(&server);
    let of = |rows: &[(String, String)], name: &str| {
        rows.iter().find(|(template, _)| template == name).map(|(_, profile)| profile.clone())
    };
    assert!(of(&after, "tars.tarsregistry").unwrap().contains("timeout=99"), "{after:?}");
    assert_eq!(of(&after, "shop.default"), of(&before, "tars.default"));
    for name in ["tars.default", "tars.framework-db"] {
        assert_eq!(of(&after, name), of(&before, name), "{name}");
    }
    assert_eq!(after.len(), before.len() + 1);
    let again = container.run_once();
    assert!(!again.contains("template"), "{again}");
    assert_eq!(held(&server), after);
}

#[test]
fn key_that_an_administrator_and_the_next_version_changed_stays_and_is_named() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    ship(&container, 10, 1);
    container.run_once();
    server.run(&[
        "UPDATE db_tars.t_profile_template SET profile = REPLACE(profile, 'timeout=10', 'timeout=99') WHERE \
         template_name = 'tars.tarsregistry'",
    ]);
    ship(&container, 20, 2);
    let log = container.run_once();
    assert!(log.contains("tars.tarsregistry tars/timeout"), "{log}");
    let (_, profile) = held(&server).into_iter().find(|(name, _)| name == "tars.tarsregistry").unwrap();
    assert!(profile.contains("timeout=99") && profile.contains("patience=2"), "{profile}");
}

#[test]
fn start_that_changes_a_template_names_who_runs_with_the_former_one() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    ship(&container, 10, 1);
    container.run_once();
    let other = "CREATE TEMPORARY TABLE db_tars.other SELECT * FROM db_tars.t_server_conf WHERE server_name = 'tarsregistry' LIMIT 1";
    for (node, state) in [("10.9.9.8", "inactive"), ("10.9.9.9", "active")] {
        server.run(&[
            other,
            &format!("UPDATE db_tars.other SET id = 0, node_name = '{node}', present_state = '{state}', template_name = 'tars.tarsregistry'"),
            "INSERT INTO db_tars.t_server_conf SELECT * FROM db_tars.other",
            "DROP TEMPORARY TABLE db_tars.other",
        ]);
    }
    ship(&container, 20, 1);
    container.start();
    container.await_words("healthy:");
    let log = container.log();
    // What runs on this node is started now, and what does not run reads nothing.
    let words = "tars.tarsregistry is read at their next start by tars.tarsregistry at 10.9.9.9\n";
    assert!(log.contains(words), "{log}");
    let output = container.call(&["probe", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let told = &report["changes"];
    assert_eq!(told["templates"]["changed"][0]["shipped"], "20", "{told}");
    assert_eq!(
        told["templates"]["readers"]["tars.tarsregistry"],
        serde_json::json!(["tars.tarsregistry at 10.9.9.9"])
    );
    // The next start changes nothing, and says so.
    container.stop();
    container.start();
    container.await_words("healthy:");
    let output = container.call(&["probe", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["changes"], serde_json::Value::Null, "{report}");
}

#[test]
fn values_that_versions_of_ours_brought_are_taken_back_before_a_master_that_takes_none_back() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    ship(&container, 10, 1);
    container.run_once();
    for timeout in [20, 30] {
        ship(&container, timeout, 2);
        container.run_once();
    }
    server.run(&[
        "UPDATE db_tars.t_profile_template SET profile = REPLACE(profile, 'patience=2', 'patience=7') WHERE \
         template_name = 'tars.tarsregistry'",
    ]);
    let profile = || {
        let (_, profile) = held(&server).into_iter().find(|(name, _)| name == "tars.tarsregistry").unwrap();
        profile
    };
    let told = |words: &[&str]| -> serde_json::Value {
        // 78: a table of the fixture has no key, so that nothing of it can be kept.
        let output = container.call(words);
        let text = String::from_utf8(output.stdout).unwrap();
        serde_json::from_str(text.lines().last().unwrap()).unwrap()
    };
    let key = |name: &str, own: &str, shipped: &str| serde_json::json!({"template": "tars.tarsregistry", "key": name, "own": own, "shipped": shipped});
    let expected = serde_json::json!({"back": [key("tars/timeout", "30", "10")], "stays": [key("tars/patience", "7", "1")]});
    assert_eq!(told(&["keep-columns", "--all", "--dry-run"])["templates"], expected);
    assert!(profile().contains("timeout=30"), "{}", profile());
    // The same alone, as where a deploy is undone.
    assert_eq!(told(&["templates", "take-back"])["templates"], expected);
    assert!(profile().contains("timeout=10") && profile().contains("patience=7"), "{}", profile());
    let again = told(&["keep-columns", "--all"]);
    assert_eq!(again["templates"]["back"], serde_json::json!([]), "{again}");

    // The newer version that comes once more finds what nobody has touched.
    let log = container.run_once();
    assert!(log.contains("tars.tarsregistry tars/timeout: 10 → 30"), "{log}");
    assert!(profile().contains("timeout=30") && profile().contains("patience=7"), "{}", profile());
}
