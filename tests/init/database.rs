//! Installing, completing, and above all not emptying a database.

use std::fs;

use crate::container::Container;
use crate::proxy::Proxy;
use crate::server::{Server, free_port};

/// The fixture's tables of `db_tars`.
const TABLES: u64 = 6;

fn tables_of(server: &Server, schema: &str) -> u64 {
    server.number(&format!("SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = '{schema}'"))
}

fn columns(server: &Server, column: &str) -> u64 {
    server.number(&format!(
        "SELECT COUNT(*) FROM information_schema.columns WHERE table_name = 't_server_conf' AND column_name = '{column}'"
    ))
}

#[test]
fn empty_server_is_installed_with_schemas_accounts_templates_and_rows() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    container.run_once();
    for (schema, tables) in [("db_tars", TABLES), ("db_user_system", 2), ("db_base", 1), ("tars_stat", 0)] {
        assert_eq!(tables_of(&server, schema), tables, "{schema}");
    }
    let schemas = "SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name IN ('tars_stat', 'tars_property')";
    assert_eq!(server.number(schemas), 2);
    let parents: Vec<(String, String)> =
        server.rows("SELECT template_name, parents_name FROM db_tars.t_profile_template ORDER BY 1");
    let parents: Vec<_> = parents.iter().map(|(name, parent)| (name.as_str(), parent.as_str())).collect();
    assert_eq!(
        parents,
        [
            ("tars.default", "tars.default"),
            ("tars.framework-db", "tars.default"),
            ("tars.tarsregistry", "tars.framework-db")
        ]
    );
    let profile: String = server
        .rows("SELECT profile FROM db_tars.t_profile_template WHERE template_name = 'tars.framework-db'")
        .remove(0);
    assert!(profile.contains("dbuser=tarsAdmin") && profile.contains("dbhost=127.0.0.1"), "{profile}");
    let hosts: Vec<String> = server.rows("SELECT host FROM mysql.user WHERE user = 'tarsAdmin' ORDER BY 1");
    assert_eq!(hosts, ["%", container.address.as_str(), "localhost"]);
    let servers: Vec<(String, String)> = server.rows(&format!(
        "SELECT server_name, tars_version FROM db_tars.t_server_conf WHERE node_name = '{}' AND setting_state = 'active'",
        container.address
    ));
    assert_eq!(servers.len(), 10, "all but tarsnode: {servers:?}");
    assert!(servers.iter().all(|(_, version)| version == "3.0.17"), "{servers:?}");
    assert_eq!((columns(&server, "run_type"), columns(&server, "sha")), (1, 1));
    assert_eq!(server.number("SELECT COUNT(*) FROM tarsup.t_install WHERE finished_at IS NULL"), 0);
}

#[test]
fn second_start_leaves_what_an_administrator_has_set() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    container.run_once();
    server.run(&[
        "UPDATE db_tars.t_server_conf SET setting_state = 'inactive' WHERE server_name = 'tarsstat'",
        "UPDATE db_tars.t_adapter_conf SET thread_num = 77, endpoint = 'mine' WHERE server_name = 'tarsconfig'",
        "UPDATE db_tars.t_profile_template SET profile = 'mine' WHERE template_name = 'tars.default'",
        "INSERT INTO db_tars.t_adapter_conf (application, server_name, node_name, adapter_name) VALUES \
         ('tars', 'tarsstat', 'another.node', 'Old')",
        "INSERT INTO db_tars.t_config_files (config) VALUES ('marker')",
        "REVOKE RELOAD ON *.* FROM tarsAdmin@'%'",
    ]);
    let before = server.everything();
    let rights = || server.rows::<String>("SHOW GRANTS FOR tarsAdmin@'%'");
    let rights_before = rights();
    container.start();
    container.await_words("healthy: 10 services");
    assert_eq!(server.everything(), before);
    assert_eq!(rights(), rights_before);
    assert!(container.processes("tarsstat").is_empty(), "an administrator's stop is undone");
    assert!(
        container.log().contains("not started, as an administrator wants it: tarsstat"),
        "{}",
        container.log()
    );
    let health = container.call(&["health"]);
    assert_eq!(health.status.code(), Some(0), "{}", String::from_utf8_lossy(&health.stderr));
}

#[test]
fn new_container_of_another_version_says_so_in_its_rows_and_keeps_the_rest() {
    let server = Server::start();
    let mut old = Container::framework(&server);
    old.run_once();
    server
        .run(&["UPDATE db_tars.t_server_conf SET setting_state = 'inactive' WHERE server_name = 'tarsstat'"]);
    let mut new = Container::framework(&server);
    new.set("DOMAIN", &old.address).set("TARSUP_VERSION", "3.0.18");
    new.start();
    new.await_words("healthy: 10 services");
    let rows: Vec<(String, String)> = server
        .rows("SELECT tars_version, setting_state FROM db_tars.t_server_conf WHERE server_name = 'tarsstat'");
    assert_eq!(rows, [("3.0.18".to_owned(), "inactive".to_owned())]);
    let others = "SELECT COUNT(*) FROM db_tars.t_server_conf WHERE patch_version <> '3.0.18'";
    assert_eq!(server.number(others), 0, "tarslog's rows, too, name the version that runs");
}

#[test]
fn schema_without_tables_is_installed_into_and_one_with_a_strangers_table_never() {
    let server = Server::start();
    server.run(&[
        "CREATE DATABASE db_tars",
        "CREATE DATABASE db_base",
        "CREATE TABLE db_base.t_of_somebody (x int)",
        "INSERT INTO db_base.t_of_somebody VALUES (42)",
    ]);
    let mut container = Container::framework(&server);
    let log = container.run_once();
    assert!(log.contains("db_tars is there and empty"), "{log}");
    assert_eq!(tables_of(&server, "db_tars"), TABLES);
    assert_eq!(tables_of(&server, "db_base"), 1);
    assert_eq!(server.number("SELECT x FROM db_base.t_of_somebody"), 42);
}

#[test]
fn sql_of_the_web_console_joins_that_of_deploy_and_wins_over_files_of_the_same_name() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    let folder = container.path("usr/local/app/web/sql");
    fs::create_dir_all(&folder).unwrap();
    for (file, text) in [
        (
            "db_tars_web.sql",
            "CREATE TABLE `t_login` (`id` int NOT NULL PRIMARY KEY);\nINSERT INTO `t_login` VALUES (7);\n",
        ),
        ("db_base.sql", "CREATE TABLE `t_of_the_web` (`id` int NOT NULL PRIMARY KEY);\n"),
    ] {
        fs::write(folder.join(file), text).unwrap();
    }
    container.run_once();
    let tables: Vec<(String, String)> = server.rows(
        "SELECT table_schema, table_name FROM information_schema.tables WHERE table_schema IN ('db_base', 'db_tars_web') \
         ORDER BY 1, 2",
    );
    let tables: Vec<_> = tables.iter().map(|(schema, table)| (schema.as_str(), table.as_str())).collect();
    // `deploy` has a `db_base.sql`, too, with the table `t_station`.
    assert_eq!(tables, [("db_base", "t_of_the_web"), ("db_tars_web", "t_login")]);
    assert_eq!(server.number("SELECT id FROM db_tars_web.t_login"), 7);
    assert_eq!(tables_of(&server, "db_user_system"), 2, "what `deploy` has alone");
}

#[test]
fn strangers_db_tars_is_refused_before_anything_is_made() {
    let server = Server::start();
    server.run(&["CREATE DATABASE db_tars", "CREATE TABLE db_tars.t_of_somebody (x int)"]);
    let before = server.everything();
    let mut container = Container::framework(&server);
    assert_eq!(container.run_to_end().code(), Some(78));
    assert!(container.log().contains("t_of_somebody"), "{}", container.log());
    assert_eq!(server.everything(), before);
    assert_eq!(server.number("SELECT COUNT(*) FROM mysql.user WHERE user = 'tarsAdmin'"), 0);
}

#[test]
fn what_upstreams_installer_imported_by_half_is_completed_with_tarslogs_rows() {
    for tables in ["t_adapter_conf", "t_node_info, db_tars.t_server_conf, db_tars.t_adapter_conf"] {
        let server = Server::start();
        let mut container = Container::framework(&server);
        container.run_once();
        // What was made by tarsup leaves with its record; what is left is as an import that was cut off leaves it.
        let kept: Vec<&str> = tables.split(", db_tars.").collect();
        for table in server
            .rows::<String>("SELECT table_name FROM information_schema.tables WHERE table_schema = 'db_tars'")
        {
            let gone = if kept.contains(&table.as_str()) { "DELETE FROM" } else { "DROP TABLE" };
            server.run(&[&format!("{gone} db_tars.{table}")]);
        }
        server.run(&["DROP DATABASE tarsup"]);
        Container::framework(&server).run_once();
        assert_eq!(tables_of(&server, "db_tars"), TABLES, "{tables}");
        let log = "SELECT COUNT(*) FROM db_tars.t_server_conf WHERE server_name = 'tarslog'";
        assert_eq!(server.number(log), 1, "{tables}");
    }
}

#[test]
fn installation_that_is_cut_off_between_its_first_words_has_tarslogs_rows_in_the_end() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    let proxy = Proxy::cutting(server.port, "CREATE DATABASE `db_tars`", u32::MAX);
    container.set("MYSQL_PORT", proxy.port.to_string()).set("TARSUP_DATABASE_TIMEOUT", "1");
    assert_eq!(container.run_to_end().code(), Some(69), "{}", container.log());
    let begun = "SELECT COUNT(*) FROM tarsup.t_install WHERE finished_at IS NULL AND name IN ('db_tars', 'tars_servers_logs')";
    assert_eq!(server.number(begun), 2, "both are known as begun, or neither");
    container.set("MYSQL_PORT", server.port.to_string()).set("TARSUP_DATABASE_TIMEOUT", "30");
    container.run_once();
    assert_eq!(server.number("SELECT COUNT(*) FROM db_tars.t_server_conf WHERE server_name = 'tarslog'"), 1);
}

#[test]
fn unreachable_database_ends_with_69_after_the_patience() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    container.set("MYSQL_PORT", free_port().to_string()).set("TARSUP_DATABASE_TIMEOUT", "1");
    assert_eq!(container.run_to_end().code(), Some(69));
    let log = container.log();
    assert!(log.contains("waiting for the database") && log.contains("Connection refused"), "{log}");
    assert_eq!(container.call(&["migrate"]).status.code(), Some(69));
}

#[test]
fn wrong_password_is_waited_for_and_shown_nowhere() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    container.set("MYSQL_ROOT_PASSWORD", "wrong-secret").set("TARSUP_DATABASE_TIMEOUT", "1");
    assert_eq!(container.run_to_end().code(), Some(69));
    assert!(container.log().contains("Access denied") && !container.log().contains("wrong-secret"));
    assert_eq!(server.everything(), []);
}

#[test]
fn database_that_cannot_be_asked_is_never_read_as_empty() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    container.run_once();
    server.run(&["INSERT INTO db_tars.t_config_files (config) VALUES ('marker')"]);
    let before = server.everything();
    for word in ["information_schema.schemata", "information_schema.tables", "GET_LOCK", "t_install"] {
        let proxy = Proxy::cutting(server.port, word, u32::MAX);
        container.set("MYSQL_PORT", proxy.port.to_string()).set("TARSUP_DATABASE_TIMEOUT", "1");
        assert_eq!(container.run_to_end().code(), Some(69), "{word}: {}", container.log());
        assert!(proxy.cuts() > 1, "{word} never passed");
        assert_eq!(server.everything(), before, "{word}");
    }
}

#[test]
fn start_goes_on_once_the_probe_is_answered() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    container.run_once();
    server.run(&["INSERT INTO db_tars.t_config_files (config) VALUES ('marker')"]);
    let before = server.everything();
    let proxy = Proxy::cutting(server.port, "information_schema.schemata", 3);
    container.set("MYSQL_PORT", proxy.port.to_string());
    container.run_once();
    assert_eq!(proxy.cuts(), 3);
    assert_eq!(server.everything(), before);
}

#[test]
fn import_that_was_cut_off_is_known_as_such_and_finished_by_the_next_start() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    let proxy = Proxy::cutting(server.port, "CREATE TABLE `t_node_info`", u32::MAX);
    container.set("MYSQL_PORT", proxy.port.to_string()).set("TARSUP_DATABASE_TIMEOUT", "1");
    assert_eq!(container.run_to_end().code(), Some(69), "{}", container.log());
    let half = tables_of(&server, "db_tars");
    assert!(half > 0 && half < TABLES, "{half} tables");

    let mut slave = Container::framework(&server);
    slave.set("SLAVE", "true").set("TARSUP_DATABASE_TIMEOUT", "1");
    assert_eq!(slave.run_to_end().code(), Some(69));
    assert!(slave.log().contains("half-installed"), "{}", slave.log());

    container.set("MYSQL_PORT", server.port.to_string()).set("TARSUP_DATABASE_TIMEOUT", "30");
    let log = container.run_once();
    assert!(log.contains("db_tars was left half-installed"), "{log}");
    assert_eq!(tables_of(&server, "db_tars"), TABLES);
    assert_eq!(server.number("SELECT COUNT(*) FROM db_tars.t_server_conf WHERE server_name = 'tarslog'"), 1);
}

#[test]
fn import_with_rows_is_finished_without_doubling_them() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    let proxy = Proxy::cutting(server.port, "CREATE TABLE `t_setting`", 1);
    container.set("MYSQL_PORT", proxy.port.to_string());
    let log = container.run_once();
    assert!(log.contains("db_user_system was left half-installed"), "{log}");
    assert_eq!((tables_of(&server, "db_user_system"), proxy.cuts()), (2, 1));
    assert_eq!(server.number("SELECT COUNT(*) FROM db_user_system.t_user"), 1);
}

#[test]
fn two_masters_that_start_at_once_install_once() {
    let server = Server::start();
    let mut containers = [Container::framework(&server), Container::framework(&server)];
    for container in &mut containers {
        container.start();
    }
    for container in &mut containers {
        container.await_words("healthy:");
    }
    let said: usize =
        containers.iter().map(|container| container.log().matches("db_tars is not there").count()).sum();
    assert_eq!(said, 1);
    assert_eq!(server.number("SELECT COUNT(*) FROM db_tars.t_node_info"), 2);
    assert_eq!(server.number("SELECT COUNT(*) FROM db_tars.t_server_conf WHERE server_name = 'tarslog'"), 1);
}

#[test]
fn slave_waits_for_its_master_and_changes_no_other_nodes_rows() {
    let server = Server::start();
    let mut slave = Container::framework(&server);
    slave.set("SLAVE", "true").set("TARSUP_DATABASE_TIMEOUT", "1");
    assert_eq!(slave.run_to_end().code(), Some(69));
    assert!(slave.log().contains("a slave needs a master"), "{}", slave.log());
    assert_eq!(server.everything(), []);

    slave.set("TARSUP_DATABASE_TIMEOUT", "30").start();
    slave.await_words("a slave needs a master");
    let mut master = Container::framework(&server);
    master.start();
    master.await_words("healthy: 11 services");
    slave.await_words("healthy: 6 services");
    let others = format!("SELECT COUNT(*) FROM db_tars.t_server_conf WHERE node_name = '{}'", master.address);
    assert_eq!(server.number(&others), 10);
    let own = format!("SELECT COUNT(*) FROM db_tars.t_server_conf WHERE node_name = '{}'", slave.address);
    assert_eq!(server.number(&own), 5);
    assert!(slave.processes("tarsstat").is_empty());
}

#[test]
fn tarsnode_of_a_slave_knows_the_registries_that_live() {
    let server = Server::start();
    let mut master = Container::framework(&server);
    master.run_once();
    let row = |host: &str, age: u32| {
        format!(
            "INSERT INTO db_tars.t_registry_info (servant, endpoint, last_heartbeat, present_state) VALUES \
             ('tars.tarsregistry.QueryObj', 'tcp -h {host} -t 60000 -p 17890', NOW() - INTERVAL {age} SECOND, 'active')"
        )
    };
    server.run(&[&row("172.25.0.3", 5), &row("172.25.0.9", 900)]);
    let mut slave = Container::framework(&server);
    slave.set("SLAVE", "true").run_once();
    let text =
        std::fs::read_to_string(slave.path("usr/local/app/tars/tarsnode/conf/tars.tarsnode.config.conf"))
            .unwrap();
    let expected = format!("@tcp -h {} -p 17890:tcp -h 172.25.0.3 -p 17890\n", slave.address);
    assert!(text.contains(&expected), "{text}");
}

#[test]
fn migrate_installs_an_empty_server_and_registers_no_node() {
    let server = Server::start();
    let container = Container::framework(&server);
    let migrated = container.call(&["migrate"]);
    assert_eq!(migrated.status.code(), Some(0), "{}", String::from_utf8_lossy(&migrated.stderr));
    assert_eq!(tables_of(&server, "db_tars"), TABLES);
    assert_eq!(server.number("SELECT COUNT(*) FROM db_tars.t_node_info"), 0);

    // The master of the first `up` comes afterwards, and tarslog's rows with it.
    let mut master = Container::framework(&server);
    master.run_once();
    assert_eq!(server.number("SELECT COUNT(*) FROM db_tars.t_server_conf WHERE server_name = 'tarslog'"), 1);
}

#[test]
fn migrate_adds_tables_columns_and_templates_and_a_second_run_nothing() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    container.run_once();
    server.run(&[
        "ALTER TABLE db_tars.t_server_conf DROP COLUMN sha",
        "DROP TABLE db_tars.t_config_files",
        "DELETE FROM db_tars.t_profile_template WHERE template_name = 'tars.tarsregistry'",
        "UPDATE db_tars.t_profile_template SET profile = 'mine' WHERE template_name = 'tars.default'",
        "DELETE FROM db_tars.t_server_conf WHERE server_name = 'tarslog'",
    ]);
    assert_eq!(container.call(&["migrate"]).status.code(), Some(0));
    assert_eq!((tables_of(&server, "db_tars"), columns(&server, "sha")), (TABLES, 1));
    assert_eq!(server.number("SELECT COUNT(*) FROM db_tars.t_profile_template"), 3);
    assert_eq!(server.number("SELECT COUNT(*) FROM db_tars.t_profile_template WHERE profile = 'mine'"), 1);
    let after = server.everything();
    assert_eq!(container.call(&["migrate"]).status.code(), Some(0));
    assert_eq!(server.everything(), after);
}

#[test]
fn account_that_may_only_fill_schemas_made_beforehand_is_enough() {
    let server = Server::start();
    server.run(&[
        "CREATE USER dba@'127.0.0.1' IDENTIFIED BY 'pw-of-the-dba'",
        "CREATE USER tarsAdmin@'%' IDENTIFIED BY 'Tars@2019'",
    ]);
    for schema in
        ["db_tars", "tars_stat", "tars_property", "db_tars_web", "db_user_system", "db_cache_web", "db_base"]
    {
        server.run(&[
            &format!("CREATE DATABASE {schema}"),
            &format!("GRANT ALL ON {schema}.* TO dba@'127.0.0.1'"),
            &format!("GRANT ALL ON {schema}.* TO tarsAdmin@'%'"),
        ]);
    }
    let mut container = Container::framework(&server);
    container.set("MYSQL_USER", "dba").set("MYSQL_ROOT_PASSWORD", "pw-of-the-dba");
    let log = container.run_once();
    assert!(log.contains("no record of the installation is kept"), "{log}");
    assert!(log.lines().count() <= 25, "{log}");
    assert_eq!(tables_of(&server, "db_tars"), TABLES);
    assert_eq!(server.number("SELECT COUNT(*) FROM db_tars.t_server_conf WHERE server_name = 'tarslog'"), 1);
    let before = server.everything();
    container.run_once();
    assert_eq!(server.everything(), before);
}

#[test]
fn volume_that_knows_another_database_is_never_installed_beside_an_empty_one() {
    let (server, empty) = (Server::start(), Server::start());
    let mut container = Container::framework(&server);
    container.run_once();
    container.run_once();
    // The database's own volume is not mounted: an empty server answers at its place.
    container.set("MYSQL_PORT", empty.port.to_string());
    assert_eq!(container.run_to_end().code(), Some(78), "{}", container.log());
    let log = container.log();
    assert!(
        log.contains("db_tars, db_user_system, db_base are gone") && log.contains("rows of nodes: 1"),
        "{log}"
    );
    assert_eq!(empty.everything(), []);
    assert_eq!(empty.number("SELECT COUNT(*) FROM mysql.user WHERE user = 'tarsAdmin'"), 0);
    // Rows that are all gone are as telling as schemas.
    container.set("MYSQL_PORT", server.port.to_string());
    server.run(&["DELETE FROM db_tars.t_server_conf", "DELETE FROM db_tars.t_node_info"]);
    assert_eq!(container.run_to_end().code(), Some(78), "{}", container.log());
    assert!(container.log().contains("its nodes and services are gone"), "{}", container.log());
    // The word of a person, once.
    container.set("MYSQL_PORT", empty.port.to_string());
    assert_eq!(container.call(&["accept-database"]).status.code(), Some(0));
    container.run_once();
    assert_eq!(tables_of(&empty, "db_tars"), TABLES);
    container.run_once();
}

#[test]
fn another_server_and_another_address_are_said_and_no_reason_to_refuse() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    container.run_once();
    let old = container.address.clone();
    let stamp = container.path("data/tars/.tarsup-database.json");
    let text = std::fs::read_to_string(&stamp).unwrap();
    let mut stamped: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(stamped["server"].is_string(), "{text}");
    stamped["server"] = "another".into();
    stamped["address"] = "127.9.9.9".into();
    std::fs::write(&stamp, stamped.to_string()).unwrap();
    let log = container.run_once();
    assert!(log.contains("another database server than at the last start"), "{log}");
    assert!(log.contains(&format!("this node was 127.9.9.9 at the last start and is {old} now")), "{log}");
    assert!(!container.run_once().contains("at the last start"), "said once");
}

#[test]
fn empty_server_under_a_volume_with_deployed_services_is_warned_of() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    std::fs::create_dir_all(container.path("data/tars/tarsnode-data/Demo.HelloServer/bin")).unwrap();
    let log = container.run_once();
    assert!(log.contains("warning: this container's volume holds services"), "{log}");
}
