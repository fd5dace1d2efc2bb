//! What the database knows of the nodes, asked in a container beside them.

use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::container::Container;
use crate::server::{Server, free_port};

fn cluster(container: &Container, more: &[&str]) -> (Option<i32>, serde_json::Value) {
    let output = container.call(&[&["cluster", "--json"], more].concat());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let document = serde_json::from_str(&text).unwrap_or_else(|error| {
        panic!("{error}: {text}\n{}", String::from_utf8_lossy(&output.stderr));
    });
    (output.status.code(), document)
}

/// What tarsnode's registration does to its row.
fn register(server: &Server, node: &str, time: &str) {
    server.run(&[&format!(
        "REPLACE INTO db_tars.t_node_info (node_name, last_reg_time, last_heartbeat, setting_state) VALUES ('{node}', \
         '{time}', '{time}', 'active')"
    )]);
}

#[test]
fn database_is_there_or_absent_or_unknown() {
    let server = Server::start();
    let mut asker = Container::framework(&server);
    let (code, document) = cluster(&asker, &[]);
    assert_eq!((code, &document["database"]), (Some(1), &"absent".into()), "{document}");
    assert_eq!(document["protocol"], 2);
    assert!(document["now"].as_str().unwrap().starts_with("20"), "{document}");
    assert_eq!(asker.call(&["migrate"]).status.code(), Some(0));
    let (code, document) = cluster(&asker, &[]);
    assert_eq!((code, &document["database"]), (Some(0), &"exists".into()), "{document}");
    assert_eq!(document["stopped"], serde_json::json!([]));
    asker.set("MYSQL_PORT", free_port().to_string());
    let (code, document) = cluster(&asker, &[]);
    assert_eq!((code, &document["database"]), (Some(1), &"unknown".into()), "{document}");
    assert!(document["detail"].as_str().unwrap().contains("Connection refused"), "{document}");
    assert_eq!(document["stopped"], serde_json::Value::Null, "nobody knows");
    asker.set("MYSQL_PORT", server.port.to_string()).set("MYSQL_ROOT_PASSWORD", "wrong-secret");
    let (_, document) = cluster(&asker, &[]);
    assert_eq!(document["database"], "unknown", "{document}");
    assert!(!document.to_string().contains("wrong-secret"), "{document}");
    asker.set("MYSQL_HOST", "");
    let (code, document) = cluster(&asker, &[]);
    assert_eq!((code, &document["database"]), (Some(0), &"not-asked".into()), "{document}");
}

#[test]
fn what_is_stopped_or_drained_is_told_whether_or_not_the_schema_knows_flows() {
    let server = Server::start();
    let asker = Container::framework(&server);
    assert_eq!(asker.call(&["migrate"]).status.code(), Some(0));
    let row = |server: &str, setting: &str| {
        format!(
            "REPLACE INTO db_tars.t_server_conf (application, server_name, node_name, setting_state) VALUES ('tars', '{server}', \
             'n', '{setting}')"
        )
    };
    server.run(&[&row("tarsstat", "inactive"), &row("tarslog", "active"), &row("tarsconfig", "active")]);
    let told = |server: &str, setting: bool, flow: bool| serde_json::json!({"server": server, "node": "n", "setting": setting, "flow": flow});
    // As in a release of some years ago.
    let (_, document) = cluster(&asker, &[]);
    assert_eq!(document["stopped"], serde_json::json!([told("tarsstat", true, false)]), "{document}");
    server.run(&[
        "ALTER TABLE db_tars.t_server_conf ADD flow_state VARCHAR(16) DEFAULT 'active'",
        "UPDATE db_tars.t_server_conf SET flow_state = 'inactive' WHERE node_name = 'n' AND server_name = 'tarsconfig'",
    ]);
    let (_, document) = cluster(&asker, &[]);
    let both = serde_json::json!([told("tarsconfig", false, true), told("tarsstat", true, false)]);
    assert_eq!(document["stopped"], both, "{document}");
}

#[test]
fn facts_are_told_by_the_databases_clock_and_only_to_who_asks() {
    let server = Server::start();
    let mut asker = Container::framework(&server);
    let (_, document) = cluster(&asker, &["--facts"]);
    assert!(document["facts"]["room"].as_u64().unwrap() > 0, "known without a database: {document}");
    assert_eq!(document["facts"]["clock"], serde_json::Value::Null, "{document}");
    assert_eq!(asker.call(&["migrate"]).status.code(), Some(0));
    asker.set("TARSUP_VERSION", "3.0.18").set("TARSUP_WAY_BACK", "3.0.17");
    assert_eq!(asker.call(&["migrate"]).status.code(), Some(0));
    let server_conf = "REPLACE INTO db_tars.t_server_conf (application, server_name, node_name, setting_state, present_state)";
    let node = "REPLACE INTO db_tars.t_node_info (node_name, tars_version, last_heartbeat)";
    server.run(&[
        "SET GLOBAL time_zone = '-03:30'",
        "SET time_zone = '-03:30'",
        &format!("{server_conf} VALUES ('Shop', 'Cart', 'n', 'active', 'inactive')"),
        &format!("{server_conf} VALUES ('Shop', 'Old', 'n', 'inactive', 'inactive')"),
        &format!("{server_conf} VALUES ('Shop', 'Till', 'n', 'active', 'active')"),
        &format!("{node} VALUES ('n', '2.4.17', NOW() - INTERVAL 400 SECOND), ('never', '', NULL)"),
    ]);
    let (code, document) = cluster(&asker, &["--facts"]);
    assert_eq!(code, Some(0), "{document}");
    let facts = &document["facts"];
    let clock = |key: &str| facts["clock"][key].as_i64().unwrap();
    assert_eq!(clock("zone"), -12_600, "{facts}");
    assert!((clock("database") - clock("own")).abs() <= 1, "one machine, whatever its zone: {facts}");
    assert_eq!(facts["down"], serde_json::json!([{"server": "Shop.Cart", "node": "n"}]), "{facts}");
    let nodes = facts["nodes"].as_array().unwrap();
    let silent = nodes.iter().find(|row| row["node"] == "n").unwrap();
    assert!((400..410).contains(&silent["silent"].as_i64().unwrap()), "{facts}");
    assert_eq!(silent["version"], "2.4.17");
    assert_eq!(nodes.iter().find(|row| row["node"] == "never").unwrap()["silent"], serde_json::Value::Null);
    let changed: Vec<&serde_json::Value> = facts["versions"].as_array().unwrap().iter().collect();
    assert_eq!(changed[0]["version"], "3.0.17", "{facts}");
    let (_, document) = cluster(&asker, &[]);
    assert_eq!(document.get("facts"), None, "a gate asks every second");
}

#[test]
fn what_is_being_published_is_told_until_it_has_ended_or_nobody_can_carry_it_out_any_more() {
    let server = Server::start();
    let asker = Container::framework(&server);
    assert_eq!(asker.call(&["migrate"]).status.code(), Some(0));
    let publishing = |expected: &str| {
        let (code, document) = cluster(&asker, &["--facts"]);
        assert_eq!(code, Some(0), "{document}");
        let told = document["facts"]["publishing"].as_array().unwrap().iter();
        let places =
            told.map(|one| format!("{}@{}", one["server"].as_str().unwrap(), one["node"].as_str().unwrap()));
        assert_eq!(places.collect::<Vec<_>>().join(" "), expected, "{document}");
    };
    server.run(&["DROP TABLE IF EXISTS db_tars.t_task, db_tars.t_task_item"]);
    publishing("");
    // As upstream's `db_tars.sql` has them.
    server.run(&[
        "CREATE TABLE db_tars.t_task (id INT UNSIGNED AUTO_INCREMENT PRIMARY KEY, task_no VARCHAR(40), serial TINYINT, user_name VARCHAR(20), \
         create_time TIMESTAMP NULL)",
        "CREATE TABLE db_tars.t_task_item (id INT UNSIGNED AUTO_INCREMENT PRIMARY KEY, task_no VARCHAR(40), item_no VARCHAR(40), \
         application VARCHAR(30), server_name VARCHAR(50), node_name VARCHAR(50), command VARCHAR(20), start_time DATETIME, \
         end_time DATETIME, status INT)",
        "INSERT INTO db_tars.t_task (task_no, create_time) VALUES ('now', NOW()), ('old', NOW() - INTERVAL 2 HOUR)",
    ]);
    let item = |task: &str, name: &str, status: &str, end: &str| {
        let into = "INSERT INTO db_tars.t_task_item (task_no, application, server_name, node_name, command, status, end_time)";
        server.run(&[&format!(
            "{into} VALUES ('{task}', 'Demo', '{name}', 'n', 'patch_tars', {status}, {end})"
        )]);
    };
    item("now", "Waits", "NULL", "NULL");
    item("now", "Prepares", "1", "NULL");
    item("now", "Runs", "2", "NULL");
    item("now", "Paused", "6", "NULL");
    for (name, status) in [("Done", "3"), ("Failed", "4")] {
        item("now", name, status, "NOW()");
    }
    item("now", "Cancelled", "5", "NULL");
    item("old", "LeftBehind", "2", "NULL");
    publishing("Demo.Paused@n Demo.Prepares@n Demo.Runs@n Demo.Waits@n");
    server.run(&["UPDATE db_tars.t_task_item SET status = 3, end_time = NOW() WHERE task_no = 'now'"]);
    publishing("");
}

#[test]
fn node_is_registered_by_its_tarsnode_alone_and_a_start_changes_no_time() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    container.start();
    container.await_words("healthy:");
    let node = |container: &Container| {
        let (_, document) = cluster(container, &[]);
        document["nodes"].as_array().unwrap()[0].clone()
    };
    // The stand-in's tarsnode registers nothing: the row is what the start wrote.
    let seen = node(&container);
    assert_eq!(seen["node"], container.address.as_str());
    assert_eq!((&seen["last_reg_time"], &seen["last_heartbeat"]), (&().into(), &().into()), "{seen}");
    register(&server, &container.address, "2026-01-02 03:04:05");
    assert_eq!(node(&container)["last_reg_time"], "2026-01-02 03:04:05");
    assert_eq!(container.stop().code(), Some(0));
    container.run_once();
    assert_eq!(node(&container)["last_reg_time"], "2026-01-02 03:04:05", "a start is no registration");
    let mut new = Container::framework(&server);
    new.set("DOMAIN", &container.address).set("TARSUP_VERSION", "3.0.18");
    new.run_once();
    assert_eq!(node(&new)["last_reg_time"], "2026-01-02 03:04:05", "nor is that of a new container");
}

#[test]
fn container_is_asked_from_outside_and_an_administrators_stop_is_no_complaint() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    container.set("SLAVE", "true").set("TARSUP_DATABASE_TIMEOUT", "30");
    assert_eq!(Container::framework(&server).call(&["migrate"]).status.code(), Some(0));
    container.start();
    container.await_words("healthy:");
    let asker = Container::framework(&server);
    let address = container.address.clone();
    let question = ["--ask", address.as_str(), "--role", "slave"];
    let (code, document) = cluster(&asker, &question);
    assert_eq!((code, &document["asked"]["healthy"]), (Some(0), &true.into()), "{document}");
    container.behave("tarsnotify", "fail");
    container.crash("tarsnotify");
    container.await_words("tarsnotify (pid");
    let (code, document) = cluster(&asker, &question);
    assert_eq!(code, Some(1), "{document}");
    assert!(
        document["asked"]["problems"][0].as_str().unwrap().contains("tars.tarsnotify.NotifyObj"),
        "{document}"
    );
    server.run(&[
        "UPDATE db_tars.t_server_conf SET setting_state = 'inactive' WHERE server_name = 'tarsnotify'",
    ]);
    assert_eq!(cluster(&asker, &question).0, Some(0));
    // What else must run there, as far as it answers: nobody listens where the one is to be, and the other one has no adapter.
    let row = |server_name: &str, setting: &str, more: &str| {
        format!(
            "INSERT INTO db_tars.t_server_conf SET application = 'Demo', server_name = '{server_name}', node_name = '{address}', \
             setting_state = '{setting}', present_state = 'active'{more}"
        )
    };
    server.run(&[
        &row("Pinged", "active", ""),
        &row("Bare", "active", ""),
        &row("Off", "inactive", ""),
        &row("Beside", "active", ", run_type = 'container'"),
        &format!(
            "INSERT INTO db_tars.t_adapter_conf SET application = 'Demo', server_name = 'Pinged', node_name = '{address}', \
             adapter_name = 'Demo.Pinged.ObjAdapter', endpoint = 'tcp -h {address} -t 60000 -p 9'"
        ),
    ]);
    let (_, document) = cluster(&asker, &question);
    let seen = &document["asked"];
    assert_eq!(seen["deployed"].as_array().unwrap().len(), 1, "{document}");
    assert_eq!(
        (&seen["deployed"][0]["server"], &seen["deployed"][0]["serves"]),
        (&"Demo.Pinged".into(), &false.into())
    );
    assert_eq!(seen["untold"], serde_json::json!(["Demo.Bare"]), "{document}");
    // A master has a web console, and this container has none.
    let (_, document) = cluster(&asker, &["--ask", &container.address, "--role", "master"]);
    assert!(document["asked"]["problems"].to_string().contains("the web console on 3000"), "{document}");
}

#[test]
fn container_that_serves_questions_waits_until_it_is_told_to_stop() {
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_tars-init"))
        .args(["cluster", "--serve"])
        .env("REBUILD", "true")
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let pid = Pid::from_raw(child.id().cast_signed());
    // Its handlers are in once it has a thread that takes signals.
    let begun = Instant::now();
    while std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().count() < 2 {
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
    kill(pid, Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn container_that_starts_again_names_the_version_that_runs() {
    let server = Server::start();
    let mut old = Container::framework(&server);
    old.run_once();
    let mut failed = Container::framework(&server);
    failed.set("DOMAIN", &old.address).set("TARSUP_VERSION", "3.0.18");
    failed.run_once();
    let versions = || -> Vec<(String, String)> {
        server.rows("SELECT server_name, patch_version FROM db_tars.t_server_conf ORDER BY 1")
    };
    assert!(versions().iter().all(|(_, version)| version == "3.0.18"));
    // What a publish through the web console does, and what an administrator sets.
    let program = old.path("usr/local/app/tars/tarsstat/bin/tarsstat");
    let text = std::fs::read_to_string(&program).unwrap();
    std::fs::write(&program, format!("{text}\n# published\n")).unwrap();
    server.run(&[
        "UPDATE db_tars.t_server_conf SET patch_version = '77' WHERE server_name = 'tarsstat'",
        "UPDATE db_tars.t_server_conf SET setting_state = 'inactive' WHERE server_name = 'tarslog'",
    ]);
    let log = old.run_once();
    assert!(log.contains("published over the image's own, and gone with this container: tarsstat"), "{log}");
    let told = old.call(&["published", "--json"]);
    let told: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!(told["services"], serde_json::json!([{"service": "tarsstat", "version": "77"}]));
    let nothing: serde_json::Value =
        serde_json::from_slice(&failed.call(&["published", "--json"]).stdout).unwrap();
    assert_eq!(nothing["services"], serde_json::json!([]));
    for (service, version) in versions() {
        assert_eq!(version, if service == "tarsstat" { "77" } else { "3.0.17" }, "{service}");
    }
    let query = "SELECT setting_state FROM db_tars.t_server_conf WHERE server_name = 'tarslog'";
    assert_eq!(server.rows::<String>(query), ["inactive"]);
    assert_eq!(server.rows::<String>("SELECT tars_version FROM db_tars.t_node_info"), ["3.0.17"]);
}

#[test]
fn service_that_was_published_gets_its_number_back_when_a_container_that_failed_is_gone() {
    let server = Server::start();
    let published = |container: &Container, number: &str| {
        let program = container.path("usr/local/app/tars/tarsstat/bin/tarsstat");
        let text = std::fs::read_to_string(&program).unwrap();
        std::fs::write(&program, format!("{text}\n# published as {number}\n")).unwrap();
        server.run(&[&format!(
            "UPDATE db_tars.t_server_conf SET patch_version = '{number}', tars_version = '2.4.0' WHERE server_name = \
             'tarsstat'"
        )]);
    };
    let number = || -> (String, String) {
        let query =
            "SELECT patch_version, tars_version FROM db_tars.t_server_conf WHERE server_name = 'tarsstat'";
        server.rows(query).remove(0)
    };
    let is = |patch: &str, tars: &str| (patch.to_owned(), tars.to_owned());
    let mut old = Container::framework(&server);
    old.run_once();
    published(&old, "77");
    // A newer image, and a container of the same image with another declaration.
    for version in ["3.0.18", "3.0.17"] {
        let mut failed = Container::framework(&server);
        failed.set("DOMAIN", &old.address).set("TARSUP_VERSION", version);
        failed.run_once();
        assert_eq!(number(), is(version, version), "the image's own program runs");
        old.run_once();
        assert_eq!(number(), is("77", "2.4.0"), "what was published runs again, after {version}");
        old.run_once();
        assert_eq!(number(), is("77", "2.4.0"));
    }
    // What is published in the successor, or copied into it by hand, is no return of what it took the place of.
    let mut new = Container::framework(&server);
    new.set("DOMAIN", &old.address).set("TARSUP_VERSION", "3.0.18");
    new.run_once();
    let program = new.path("usr/local/app/tars/tarsstat/bin/tarsstat");
    let text = std::fs::read_to_string(&program).unwrap();
    std::fs::write(&program, format!("{text}\n# by hand\n")).unwrap();
    new.run_once();
    assert_eq!(number(), is("3.0.18", "3.0.18"));
    published(&new, "78");
    new.run_once();
    assert_eq!(number(), is("78", "2.4.0"));
    // Rows of other nodes and services are as they were.
    let others = "SELECT DISTINCT patch_version FROM db_tars.t_server_conf WHERE server_name <> 'tarsstat'";
    assert_eq!(server.rows::<String>(others), ["3.0.18"]);
}
