//! Columns that a web console drops: kept before, and put back by a start whose console knows them. With the real TarsWeb.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::beside;
use crate::container::Container;
use crate::server::{Server, free_port};
use crate::upstream::container_with_release;

const MODELS: &str = "usr/local/app/web/app/dao/db/db_tars_models";
const KNOWN_BY_THE_NEWER: &str =
    "tuned: { type: DataTypes.STRING(20), allowNull: false, defaultValue: 'none' },\n\t\t";
const FLOW_STATE: &str = "flow_state: {\n\t\t\ttype: DataTypes.ENUM('active', 'inactive'),\n\t\t\tallowNull: false,\n\t\t\tdefaultValue: \
                          'active'\n\t\t},\n\t\t";

/// What lies beside the project, and node.js to run it with.
fn real(test: &str) -> Option<(PathBuf, PathBuf)> {
    let (release, web) =
        (beside::folder("real/v3.0.17/deploy.tgz", test)?, beside::folder("real/web.tgz", test)?);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let has_node = std::env::split_paths(&path).any(|folder| folder.join("node").is_file());
    assert!(has_node, "{test} needs node.js (Debian: apt-get install nodejs)");
    Some((release, web))
}

/// The web console, unpacked once.
fn unpacked(web: &Path) -> &'static Path {
    static UNPACKED: OnceLock<TempDir> = OnceLock::new();
    UNPACKED
        .get_or_init(|| {
            let folder = tempfile::tempdir().unwrap();
            let mut tar = Command::new("tar");
            tar.arg("-xzf").arg(web).arg("-C").arg(folder.path()).arg("--exclude=web/client");
            assert!(tar.status().unwrap().success());
            folder
        })
        .path()
}

/// A container of 3.0.17 at an address, with the whole web console.
fn container_with_web(server: &Server, real: &(PathBuf, PathBuf), address: &str) -> Container {
    let mut container = container_with_release(server, &real.0, &real.1);
    let web = container.path("usr/local/app/web");
    fs::remove_dir_all(&web).unwrap();
    let copied = Command::new("cp").arg("-al").arg(unpacked(&real.1).join("web")).arg(&web).status().unwrap();
    assert!(copied.success());
    container.set("DOMAIN", address).set("PORT", free_port().to_string());
    container
}

/// Changes a model; the file is another one then, as the copies share theirs.
fn edit_model(container: &Container, table: &str, from: &str, to: &str) {
    let file = container.path(MODELS).join(format!("{table}.js"));
    let text = fs::read_to_string(&file).unwrap();
    assert_eq!(text.matches(from).count(), 1, "{from} in {}", file.display());
    fs::remove_file(&file).unwrap();
    fs::write(&file, text.replacen(from, to, 1)).unwrap();
}

fn knows_more(container: &Container) {
    edit_model(container, "t_server_conf", FLOW_STATE, &format!("{KNOWN_BY_THE_NEWER}{FLOW_STATE}"));
}

fn knows_less(container: &Container) {
    edit_model(container, "t_server_conf", FLOW_STATE, "");
}

fn await_that(container: &Container, what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        let web =
            fs::read_to_string(container.path("data/tars/app_log/tars-init/web.log")).unwrap_or_default();
        assert!(begun.elapsed() < Duration::from_mins(1), "never: {what}\n{}\n{web}", container.log());
        std::thread::sleep(Duration::from_millis(30));
    }
}

/// The columns of a table in their order, without the one that comes and goes by upstream's mistake.
fn columns(server: &Server, table: &str) -> Vec<String> {
    server.rows(&format!(
        "SELECT column_name FROM information_schema.columns WHERE table_schema = 'db_tars' AND table_name = '{table}' AND \
         column_name <> 'sha' ORDER BY ordinal_position"
    ))
}

fn has(server: &Server, column: &str) -> bool {
    columns(server, "t_server_conf").iter().any(|own| own == column)
}

/// Every table of TARS with its number of rows; without the packages that the console records by itself.
fn rows(server: &Server) -> Vec<(String, u64)> {
    let tables: Vec<String> = server.rows(
        "SELECT CONCAT(table_schema, '.', table_name) FROM information_schema.tables WHERE table_schema LIKE 'db\\_%' \
         AND table_name <> 't_server_patchs' ORDER BY 1",
    );
    let count = |table: &String| server.number(&format!("SELECT COUNT(*) FROM {table}"));
    tables.iter().map(|table| (table.clone(), count(table))).collect()
}

/// What the rows of this test hold.
fn values(server: &Server) -> Vec<(String, String, String)> {
    server.rows(
        "SELECT server_name, flow_state, tuned FROM db_tars.t_server_conf ORDER BY server_name, node_name",
    )
}

/// Starts, waits for the services and for the console's work on its tables, stops.
fn run_with_web(server: &Server, container: &mut Container, dropped: &[&str], made: &[&str]) -> String {
    container.start();
    container.await_words("healthy:");
    // It is the last thing that it makes.
    await_that(container, "the web console has brought its tables to its shape", || {
        dropped.iter().all(|column| !has(server, column))
            && made.iter().all(|column| has(server, column))
            && server.number(
                "SELECT COUNT(*) FROM information_schema.columns WHERE table_schema = 'db_tars' AND table_name = \
                 't_server_conf' AND column_name = 'sha'",
            ) == 0
    });
    // It goes on with its other tables for a while; what it writes at its end says so.
    await_that(container, "the web console answers", || answers(container));
    assert_eq!(container.stop().code(), Some(0), "{}", container.log());
    container.log()
}

fn answers(container: &Container) -> bool {
    let port: u16 = container.get("PORT").parse().unwrap();
    std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
}

#[test]
fn columns_that_an_older_console_drops_come_back_with_their_values() {
    const NAME: &str = "columns_that_an_older_console_drops_come_back_with_their_values";
    let Some(real) = real(NAME) else { return };
    let server = Server::start();
    let mut newer = container_with_web(&server, &real, "127.201.0.1");
    knows_more(&newer);
    run_with_web(&server, &mut newer, &["grid_flag"], &["tuned"]);
    server.run(&[
        "UPDATE db_tars.t_server_conf SET tuned = 'a''\u{2603}' WHERE server_name = 'tarsstat'",
        "UPDATE db_tars.t_server_conf SET flow_state = 'inactive' WHERE server_name IN ('tarsstat', 'tarslog')",
    ]);
    let (counted, held, shape) = (rows(&server), values(&server), columns(&server, "t_server_conf"));
    assert!(held.iter().any(|row| row.1 == "inactive" && row.2 == "a'\u{2603}"), "{held:?}");

    let mut older = container_with_web(&server, &real, "127.201.0.1");
    knows_less(&older);
    for is_first in [true, false] {
        lay_the_sign(&server);
        let log = run_with_web(&server, &mut older, &["tuned", "flow_state"], &[]);
        // The second time `flow_state`, which this version ships, is not made again before it.
        assert_eq!(log.contains("does not know, and drops, what is kept in tarsup: "), is_first, "{log}");
        let words = format!("db_tars.t_server_conf.flow_state ({} rows)", held.len());
        assert_eq!(log.contains(&words), is_first, "{log}");
        assert!(!log.contains("sha") && !log.contains("adding"), "{log}");
        assert_eq!(rows(&server), counted);
    }
    lay_the_sign(&server);
    let log = run_with_web(&server, &mut newer, &[], &["tuned", "flow_state"]);
    assert!(log.contains("put back db_tars.t_server_conf.tuned: the column and 1 values"), "{log}");
    assert!(log.contains("put back db_tars.t_server_conf.flow_state: the column and 2 values"), "{log}");
    assert_eq!((rows(&server), values(&server)), (counted.clone(), held.clone()));
    assert_eq!(sorted(columns(&server, "t_server_conf")), sorted(shape));
    // Once: what is set from then on stays.
    server.run(&["UPDATE db_tars.t_server_conf SET flow_state = 'active', tuned = 'none'"]);
    assert_eq!(newer.call(&["migrate"]).status.code(), Some(0));
    assert!(values(&server).iter().all(|row| row.1 == "active" && row.2 == "none"));
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names
}

#[test]
fn image_without_a_console_puts_columns_back_where_the_row_still_is() {
    const NAME: &str = "image_without_a_console_puts_columns_back_where_the_row_still_is";
    let Some(real) = real(NAME) else { return };
    let server = Server::start();
    let mut with_web = container_with_web(&server, &real, "127.201.0.2");
    assert_eq!(with_web.call(&["migrate"]).status.code(), Some(0));
    server.run(&[
        "ALTER TABLE db_tars.t_profile_template ADD owner varchar(20) NULL AFTER id, ADD KEY of_owner (owner)",
        "UPDATE db_tars.t_profile_template SET owner = CONCAT('o', id)",
    ]);
    let before =
        server.rows::<(u64, Option<String>)>("SELECT id, owner FROM db_tars.t_profile_template ORDER BY 1");
    let shape = columns(&server, "t_profile_template");
    with_web.start();
    await_that(&with_web, "the column is dropped", || {
        !columns(&server, "t_profile_template").contains(&"owner".to_owned())
    });
    assert_eq!(with_web.stop().code(), Some(0));
    // One row goes, one comes, meanwhile.
    server.run(&[
        "DELETE FROM db_tars.t_profile_template WHERE template_name = 'tars.tarsphp.default'",
        "INSERT INTO db_tars.t_profile_template (template_name, profile) VALUES ('Mine', '')",
    ]);
    let mut without = container_with_release(&server, &real.0, &real.1);
    without.set("DOMAIN", "127.201.0.2");
    let log = without.run_once();
    assert!(log.contains("put back db_tars.t_profile_template.owner"), "{log}");
    assert_eq!(columns(&server, "t_profile_template"), shape, "at its place");
    let after =
        server.rows::<(u64, Option<String>)>("SELECT id, owner FROM db_tars.t_profile_template ORDER BY 1");
    let still: Vec<_> =
        before.iter().filter(|row| after.iter().any(|(id, _)| *id == row.0)).cloned().collect();
    assert!(after.starts_with(&still) || still.iter().all(|row| after.contains(row)), "{after:?}");
    assert_eq!(
        after.iter().filter(|(_, owner)| owner.is_none()).count(),
        2,
        "the new row, and the template that came again"
    );
    let keys = "SELECT COUNT(*) FROM information_schema.statistics WHERE index_name = 'of_owner'";
    assert_eq!(server.number(keys), 1);
}

#[test]
fn console_that_does_not_tell_what_it_knows_is_held_back_until_it_does() {
    const NAME: &str = "console_that_does_not_tell_what_it_knows_is_held_back_until_it_does";
    let Some(real) = real(NAME) else { return };
    let server = Server::start();
    let mut container = container_with_web(&server, &real, "127.201.0.3");
    knows_less(&container);
    edit_model(&container, "t_node_info", "sequelize.define", "require('./missing').define");
    container.start();
    container.await_words(
        "the web console is held back: it does not tell which columns it knows (Error: Cannot find module",
    );
    container.await_words("healthy:");
    assert!(has(&server, "flow_state") && !answers(&container));
    assert!(!container.log().contains("web is gone"), "{}", container.log());
    edit_model(&container, "t_node_info", "require('./missing').define", "sequelize.define");
    await_that(&container, "it is started", || !has(&server, "flow_state"));
    assert_eq!(container.stop().code(), Some(0));
    assert!(container.log().contains("flow_state ("), "{}", container.log());
}

#[test]
fn everything_is_kept_for_a_console_that_nobody_can_ask() {
    let server = Server::start();
    let container = Container::framework(&server);
    let migrate = || {
        let migrated = container.call(&["migrate"]);
        assert_eq!(migrated.status.code(), Some(0), "{}", String::from_utf8_lossy(&migrated.stderr));
        String::from_utf8_lossy(&migrated.stdout).into_owned()
    };
    migrate();
    server.run(&[
        "ALTER TABLE db_tars.t_server_conf ADD flow enum('on','off') NOT NULL DEFAULT 'on' AFTER node_name",
        "CREATE TABLE db_tars.t_counting (id int NOT NULL AUTO_INCREMENT, name varchar(9) NOT NULL PRIMARY KEY, KEY of_id (id))",
        "INSERT INTO db_tars.t_counting VALUES (7, 'seven'), (9, 'nine')",
        "INSERT INTO db_tars.t_server_conf (application, server_name, node_name, flow) VALUES ('S', 'a', 'n', 'off'), \
         ('S', 'b', 'n', 'off'), ('S', 'c', 'n', 'on')",
    ]);
    let before = server.everything();
    let keep = |words: &[&str]| {
        let kept = container.call(&[&["keep-columns"], words].concat());
        let said = String::from_utf8_lossy(&kept.stdout).into_owned();
        let document: serde_json::Value =
            serde_json::from_str(said.lines().last().unwrap_or_default()).unwrap_or_default();
        (kept.status.code(), document, String::from_utf8_lossy(&kept.stderr).into_owned())
    };
    let (code, document, _) = keep(&["--all", "--dry-run"]);
    // A table of the fixture has no key at all.
    assert_eq!(code, Some(78), "{document}");
    assert_eq!(server.everything(), before);
    let whole = |document: &serde_json::Value| document["kept"].as_array().unwrap().len();
    let (code, kept, stderr) = keep(&["--all"]);
    assert_eq!((code, whole(&kept)), (Some(78), whole(&document)), "{stderr}");
    let words =
        serde_json::json!(["db_base.t_station.id: its table has no key that tells rows apart and stays"]);
    assert_eq!(kept["not_kept"], words);
    let counting = serde_json::json!({"column": "db_tars.t_counting.id", "rows": 2});
    assert!(kept["kept"].as_array().unwrap().contains(&counting), "{kept}");
    let flow = serde_json::json!({"column": "db_tars.t_server_conf.flow", "rows": 3});
    assert!(kept["kept"].as_array().unwrap().contains(&flow), "{kept}");
    // This image has no console to ask.
    assert_eq!(keep(&[]).0, Some(78));

    // Nothing is gone: nothing is put back, though an administrator sets what is the default.
    server.run(&["UPDATE db_tars.t_server_conf SET flow = 'on' WHERE server_name = 'b'"]);
    assert!(migrate().contains("\"columns\":[]"));
    assert_eq!(flows(&server), ["off", "on", "on"]);

    // The console of that container drops it, a registry makes it again at its end, somebody sets one.
    server.run(&[
        "UPDATE db_tars.t_server_conf SET flow = 'off' WHERE server_name = 'b'",
        "ALTER TABLE db_tars.t_server_conf DROP flow",
        "ALTER TABLE db_tars.t_server_conf ADD flow enum('on','off') NOT NULL DEFAULT 'on'",
        "UPDATE db_tars.t_server_conf SET flow = 'off' WHERE server_name = 'c'",
    ]);
    let document = migrate();
    assert!(document.contains("db_tars.t_server_conf.flow: the column and 2 values"), "{document}");
    assert_eq!(flows(&server), ["off", "off", "off"]);
    server.run(&["UPDATE db_tars.t_server_conf SET flow = 'on'"]);
    assert!(migrate().contains("\"columns\":[]"));
    assert_eq!(flows(&server), ["on", "on", "on"], "put back once");

    server.run(&["ALTER TABLE db_tars.t_counting DROP id"]);
    migrate();
    assert_eq!(server.rows::<(u64, String)>("SELECT id, name FROM db_tars.t_counting ORDER BY 1").len(), 2);
    assert_eq!(server.rows::<u64>("SELECT id FROM db_tars.t_counting ORDER BY 1"), [7, 9]);

    // This version ships that column, without a default: it makes it again itself, before the values come back.
    let profiles = || {
        server.rows::<(String, String)>(
            "SELECT template_name, profile FROM db_tars.t_profile_template ORDER BY 1",
        )
    };
    let before = profiles();
    server.run(&["ALTER TABLE db_tars.t_profile_template DROP profile"]);
    migrate();
    assert!(before.iter().all(|(_, profile)| !profile.is_empty()));
    assert_eq!(profiles(), before);
}

fn flows(server: &Server) -> Vec<String> {
    server.rows("SELECT flow FROM db_tars.t_server_conf WHERE application = 'S' ORDER BY server_name")
}

/// An address for which the console's model has no room.
const LONG: &str = "a.node.whose.name.is.long";

/// What `tars_upgrade.conf` adds and the console drops at last: that it is gone says that the console has looked at all.
fn lay_the_sign(server: &Server) {
    server.run(&["ALTER TABLE db_tars.t_server_conf ADD sha varchar(255) DEFAULT ''"]);
}

/// The statements that change a definition, of whoever sent them but the console.
fn alters(server: &Server) -> Vec<String> {
    server.rows(
        "SELECT CONVERT(argument USING utf8mb4) FROM mysql.general_log WHERE command_type IN ('Query', 'Execute') AND \
         argument LIKE 'ALTER%' AND user_host NOT LIKE 'tarsAdmin%'",
    )
}

fn kind(server: &Server, table: &str, column: &str) -> String {
    let query = format!(
        "SELECT CONCAT(column_type, ' ', COALESCE(column_default, '-')) FROM information_schema.columns WHERE \
         table_schema = 'db_tars' AND table_name = '{table}' AND column_name = '{column}'"
    );
    server.rows::<String>(&query).join("; ")
}

#[test]
fn starts_beside_the_real_console_change_no_table_and_what_it_would_cut_off_stays() {
    const NAME: &str = "starts_beside_the_real_console_change_no_table_and_what_it_would_cut_off_stays";
    let Some(real) = real(NAME) else { return };
    let server = Server::start();
    let mut container = container_with_web(&server, &real, "127.201.0.4");
    run_with_web(&server, &mut container, &["grid_flag"], &[]);
    for _ in 0..2 {
        lay_the_sign(&server);
        server.run(&["SET GLOBAL log_output = 'TABLE', GLOBAL general_log = 1"]);
        let log = run_with_web(&server, &mut container, &["grid_flag"], &[]);
        server.run(&["SET GLOBAL general_log = 0"]);
        assert!(!log.contains("added") && !log.contains("adding"), "{log}");
        assert_eq!(alters(&server), [""; 0], "{log}");
        assert!(!log.contains("keeps") && !log.contains("is kept"), "{log}");
    }
    assert_eq!(kind(&server, "t_node_info", "endpoint_ip"), "varchar(16) ''");

    for mode in ["STRICT_TRANS_TABLES", ""] {
        // A migration makes it all the same what a fresh installation is, and says what becomes of that.
        let migrated = container.call(&["migrate"]);
        assert_eq!(migrated.status.code(), Some(0));
        let said = String::from_utf8_lossy(&migrated.stdout).into_owned();
        let words = "endpoint_ip from varchar(16) to varchar(50), until the web console starts";
        assert!(said.contains(words) || mode.is_empty(), "{said}");
        assert_eq!(kind(&server, "t_node_info", "endpoint_ip"), "varchar(50) ''");
        assert_eq!(kind(&server, "t_server_patchs", "tgz"), "text NULL");
        assert_eq!(kind(&server, "t_docker_registry", "remark"), "varchar(255) ''");
        assert!(has(&server, "grid_flag"));

        server.run(&[
            &format!("SET GLOBAL sql_mode = '{mode}'"),
            &format!("UPDATE db_tars.t_node_info SET endpoint_ip = '{LONG}'"),
        ]);
        let log = run_with_web(&server, &mut container, &["grid_flag"], &[]);
        let words = "is kept from narrowing what holds longer values: db_tars.t_node_info.endpoint_ip \
                     (varchar(50) to varchar(16), 1 rows)";
        assert!(log.contains(words), "{log}");
        assert!(!log.contains("web is gone"), "{log}");
        assert_eq!(server.rows::<String>("SELECT endpoint_ip FROM db_tars.t_node_info"), [LONG]);
        assert_eq!(kind(&server, "t_node_info", "endpoint_ip"), "varchar(50) ''");
        assert_eq!(
            kind(&server, "t_server_patchs", "tgz"),
            "varchar(255) NULL",
            "what holds none is narrowed"
        );
    }
}

#[test]
fn columns_of_a_table_that_only_the_models_make_are_kept_as_well() {
    const NAME: &str = "columns_of_a_table_that_only_the_models_make_are_kept_as_well";
    let Some(real) = real(NAME) else { return };
    let server = Server::start();
    let mut with_web = container_with_web(&server, &real, "127.201.0.5");
    with_web.start();
    let made = "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = 'db_tars_web' AND table_name = 't_business'";
    // No SQL that is shipped names it.
    await_that(&with_web, "the web console has made its own table", || server.number(made) == 1);
    assert_eq!(with_web.stop().code(), Some(0));
    server.run(&[
        "ALTER TABLE db_tars_web.t_business ADD cost_center varchar(20) NOT NULL",
        "INSERT INTO db_tars_web.t_business (f_name, cost_center) VALUES ('shop', 'K-7')",
    ]);
    let has = || {
        let count = "SELECT COUNT(*) FROM information_schema.columns WHERE table_schema = 'db_tars_web' AND table_name = \
                     't_business' AND column_name = 'cost_center'";
        server.number(count) == 1
    };
    with_web.start();
    await_that(&with_web, "the column is dropped", || !has());
    assert_eq!(with_web.stop().code(), Some(0));
    let log = with_web.log();
    assert!(log.contains("db_tars_web.t_business.cost_center (1 rows)"), "{log}");

    let mut without = container_with_release(&server, &real.0, &real.1);
    without.set("DOMAIN", "127.201.0.5");
    let log = without.run_once();
    assert!(log.contains("put back db_tars_web.t_business.cost_center: the column and 1 values"), "{log}");
    let rows = server.rows::<(String, String)>("SELECT f_name, cost_center FROM db_tars_web.t_business");
    assert_eq!(rows, [("shop".to_owned(), "K-7".to_owned())]);
}
