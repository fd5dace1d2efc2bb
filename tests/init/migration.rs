//! Statements that take their time, servers that are silent, migrations that are cut off.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::ChildStdout;
use std::time::{Duration, Instant};

use mysql::Conn;
use mysql::prelude::Queryable;
use nix::sys::signal::{Signal, kill};

use crate::container::Container;
use crate::server::Server;

const ALTER: &str = "ALTER TABLE `t_server_conf` ADD `sha`";

/// An installed server that lacks a column, so that a migration has an `ALTER` to send.
fn server_that_lacks_a_column() -> (Server, Container) {
    let server = Server::start();
    let container = Container::framework(&server);
    assert_eq!(container.call(&["migrate"]).status.code(), Some(0));
    server.run(&["ALTER TABLE db_tars.t_server_conf DROP COLUMN sha"]);
    (server, container)
}

/// A transaction that has read the table: until it ends, an `ALTER` of it waits in the server.
fn reader(server: &Server) -> Conn {
    let mut session = server.session();
    session.query_drop("START TRANSACTION").unwrap();
    session.query_drop("SELECT * FROM db_tars.t_server_conf").unwrap();
    session
}

fn await_alter(server: &Server) {
    await_that("the ALTER waits in the server", || {
        server.running(ALTER).iter().any(|state| state.contains("metadata lock"))
    });
}

fn await_that(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(45), "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn has_column(server: &Server) -> bool {
    server.number(
        "SELECT COUNT(*) FROM information_schema.columns WHERE table_schema = 'db_tars' AND table_name = 't_server_conf' AND \
         column_name = 'sha'",
    ) == 1
}

#[test]
fn alter_may_take_longer_than_a_server_may_be_silent() {
    let (server, mut container) = server_that_lacks_a_column();
    make_slow(&server, 300);
    // Less than the ALTER takes, on a fast machine too: work is no waiting.
    container.set("TARSUP_DATABASE_TIMEOUT", "5");
    let altered = server.counter("Com_alter_table");
    container.start_with("migrate");
    container.await_words("sha: 10 s so far, the server says: copy");
    let ended = container.await_end_within(Duration::from_mins(6));
    assert_eq!(ended.code(), Some(0), "{}", container.log());
    assert!(has_column(&server));
    assert_eq!(server.counter("Com_alter_table"), altered + 1, "sent a second time");
}

#[test]
fn alter_of_a_table_that_somebody_holds_lets_others_pass_and_ends_with_75_and_names_who() {
    let (server, mut container) = server_that_lacks_a_column();
    container.set("TARSUP_DATABASE_TIMEOUT", "12");
    let mut reader = reader(&server);
    let connection: u64 = reader.query_first("SELECT CONNECTION_ID()").unwrap().unwrap();
    container.start_with("migrate");
    await_alter(&server);
    // Whoever asks now waits behind the ALTER, and not for a day.
    let begun = Instant::now();
    server.run(&["SELECT COUNT(*) FROM db_tars.t_server_conf"]);
    assert!(begun.elapsed() < Duration::from_secs(11), "{:?}", begun.elapsed());
    assert_eq!(container.await_end().code(), Some(75), "{}", container.log());
    let named = format!("the oldest open transaction is that of connection {connection} (root at 127.0.0.1:");
    let log = container.log();
    assert!(log.contains(&named) && log.contains("sha") && log.contains("was busy for 12 s"), "{log}");
    drop(reader);
    container.start_with("migrate");
    assert_eq!(container.await_end().code(), Some(0), "{}", container.log());
    assert!(has_column(&server));
}

#[test]
fn server_that_falls_silent_at_work_ends_the_waiting() {
    let (server, mut container) = server_that_lacks_a_column();
    container.set("TARSUP_DATABASE_TIMEOUT", "2");
    let reader = reader(&server);
    container.start_with("migrate");
    await_alter(&server);
    kill(server.pid(), Signal::SIGSTOP).unwrap();
    let begun = Instant::now();
    let ended = container.await_end();
    let took = begun.elapsed();
    kill(server.pid(), Signal::SIGCONT).unwrap();
    assert_eq!(ended.code(), Some(69), "{}", container.log());
    assert!(container.log().contains("no sign of life from the server"), "{}", container.log());
    assert!(took < Duration::from_secs(15), "{took:?}");
    drop(reader);
}

/// Makes an `ALTER` of the table copy it, at some 0.1 s a row; a server goes on with that when its client is gone, which
/// it does not with one that only waits for a lock.
fn make_slow(server: &Server, rows: u32) {
    let values: Vec<_> = (0..rows).map(|row| format!("('x', 's{row}', 'n')")).collect();
    let mut session = server.session();
    for statement in [
        "SET GLOBAL alter_algorithm = COPY",
        "SET SESSION check_constraint_checks = 0",
        &format!(
            "INSERT INTO db_tars.t_server_conf (application, server_name, node_name) VALUES {}",
            values.join(", ")
        ),
        "ALTER TABLE db_tars.t_server_conf ADD CHECK (MD5(REPEAT('x', LENGTH(node_name) * 0 + 16000000)) <> '')",
    ] {
        session.query_drop(statement).unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
}

#[test]
fn alter_whose_client_was_killed_is_waited_for_and_not_repeated() {
    let (server, mut container) = server_that_lacks_a_column();
    make_slow(&server, 80);
    let altered = server.counter("Com_alter_table");
    container.start_with("migrate");
    await_that("the server copies the table", || {
        server.running(ALTER).iter().any(|state| state.contains("copy"))
    });
    container.kill();

    // Not for ever.
    container.set("TARSUP_DATABASE_TIMEOUT", "1").start_with("migrate");
    assert_eq!(container.await_end().code(), Some(69), "{}", container.log());
    let log = container.log();
    assert!(
        log.contains("still at work on a statement of an earlier start") && log.contains("`ALTER TABLE"),
        "{log}"
    );

    container.set("TARSUP_DATABASE_TIMEOUT", "120").start_with("migrate");
    container.await_words("still at work on a statement of an earlier start");
    assert_eq!(server.running(ALTER).len(), 1);
    assert_eq!(container.await_end_within(Duration::from_mins(3)).code(), Some(0), "{}", container.log());
    assert!(has_column(&server));
    assert_eq!(server.counter("Com_alter_table"), altered + 1, "sent a second time");
}

#[test]
fn migration_that_is_told_to_stop_ends_soon_with_75_and_the_next_one_is_done() {
    let (server, mut container) = server_that_lacks_a_column();
    make_slow(&server, 20);
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let altered = server.counter("Com_alter_table");
        container.start_with("migrate");
        await_that("the server is at the ALTER", || !server.running(ALTER).is_empty());
        kill(container.pid(), signal).unwrap();
        let begun = Instant::now();
        assert_eq!(container.await_end().code(), Some(75), "{}", container.log());
        assert!(begun.elapsed() < Duration::from_secs(1));
        assert!(container.log().contains("told to stop before it was done"), "{}", container.log());
        container.start_with("migrate");
        assert_eq!(container.await_end().code(), Some(0), "{}", container.log());
        assert!(has_column(&server));
        assert_eq!(server.counter("Com_alter_table"), altered + 1, "sent a second time");
        server.run(&["ALTER TABLE db_tars.t_server_conf DROP COLUMN sha"]);
    }
}

#[test]
fn migration_that_waits_for_its_database_hears_sigterm() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    container.set("MYSQL_PORT", crate::server::free_port().to_string()).start_with("migrate");
    container.await_words("waiting for the database");
    assert_eq!(container.stop().code(), Some(75));
}

/// What a database was asked while `work` ran, a statement each, as its general log has it.
fn asked_meanwhile(server: &Server, work: impl FnOnce()) -> Vec<String> {
    server.run(&[
        "SET GLOBAL log_output = 'TABLE'",
        "TRUNCATE mysql.general_log",
        "SET GLOBAL general_log = ON",
    ]);
    work();
    server.run(&["SET GLOBAL general_log = OFF"]);
    let query = "SELECT CONVERT(argument USING utf8) FROM mysql.general_log WHERE command_type IN ('Query', 'Execute', \
                 'Prepare') AND argument NOT LIKE '%general_log%'";
    server.rows(query)
}

fn document(output: &std::process::Output) -> serde_json::Value {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(said.lines().last().unwrap()).unwrap_or_else(|error| panic!("{error}: {said}"))
}

/// A dry run tells what the run does then, and asks only.
fn assert_dry_run_tells(server: &Server, container: &Container) -> serde_json::Value {
    let before = server.everything();
    let mut told = serde_json::Value::Null;
    let asked = asked_meanwhile(server, || told = document(&container.call(&["migrate", "--dry-run"])));
    let changing: Vec<_> = asked
        .iter()
        .filter(|text| {
            !["SELECT", "SET NAMES", "SET SESSION lock_wait_timeout", "SHOW"]
                .iter()
                .any(|word| text.starts_with(word))
        })
        .collect();
    assert!(changing.is_empty() && asked.len() > 10, "{changing:#?} of {}", asked.len());
    assert_eq!(server.everything(), before);
    assert_eq!(told.as_object_mut().unwrap().remove("dry_run"), Some(true.into()));
    assert_eq!(document(&container.call(&["migrate"])), told);
    told
}

#[test]
fn dry_run_tells_what_an_installation_would_make_and_makes_nothing() {
    let server = Server::start();
    let container = Container::framework(&server);
    let told = assert_dry_run_tells(&server, &container);
    assert_eq!(told["schema"]["added"][0], "db_tars: the schema");
    assert_eq!(told["templates"]["added"].as_array().unwrap().len(), 3);
    assert_eq!(told["accounts"], serde_json::json!(["%", "localhost"]));
}

#[test]
fn dry_run_tells_what_programs_of_before_would_fail_at() {
    let server = Server::start();
    let container = Container::framework(&server);
    document(&container.call(&["migrate"]));
    let sql = container.path("usr/local/tars/cpp/deploy/framework/sql/db_tars.sql");
    let text = std::fs::read_to_string(&sql).unwrap();
    let newer = "`endpoint` varchar(128), `must` int NOT NULL, `may` int NOT NULL DEFAULT 0, `can` int,";
    let (before, after) = text.split_at(text.find("CREATE TABLE `t_registry_info`").unwrap());
    let after = after.replacen("`endpoint` varchar(128),", newer, 1);
    let after = after.replacen(
        "`locator_id` varchar(128),",
        "`locator_id` varchar(128), UNIQUE KEY `alone` (`servant`),",
        1,
    );
    std::fs::write(&sql, format!("{before}{after}")).unwrap();
    let told = assert_dry_run_tells(&server, &container);
    assert_eq!(
        told["schema"]["binds"],
        serde_json::json!([
            "db_tars.t_registry_info: the column must is NOT NULL and has no default",
            "db_tars.t_registry_info: the key alone (servant) is unique",
        ]),
        "{told}"
    );
    let again = document(&container.call(&["migrate", "--dry-run"]));
    assert_eq!(again["schema"]["binds"], serde_json::json!([]), "what is there binds nobody anew");
}

#[test]
fn dry_run_tells_what_a_newer_version_would_change_and_changes_nothing() {
    let server = Server::start();
    let container = Container::framework(&server);
    document(&container.call(&["migrate"]));
    let template = container.path("usr/local/tars/cpp/deploy/framework/sql/template/tars.tarsregistry");
    std::fs::write(&template, "<tars>\nfollows=1\nedited=1\nout=1\nneeded=1\n</tars>\n").unwrap();
    document(&container.call(&["migrate"]));
    server.run(&[
        "ALTER TABLE db_tars.t_server_conf DROP COLUMN sha, MODIFY exe_path varchar(20) NOT NULL DEFAULT ''",
        "ALTER TABLE db_tars.t_node_info DROP KEY node_name, ALTER COLUMN group_id SET DEFAULT 7",
        "DROP TABLE db_tars.t_config_files",
        "DROP TABLE db_user_system.t_setting",
        "DELETE FROM db_tars.t_profile_template WHERE template_name = 'tars.framework-db'",
        "UPDATE db_tars.t_profile_template SET profile = '<tars>\nfollows=1\nedited=7\n</tars>\n' \
         WHERE template_name = 'tars.tarsregistry'",
        "INSERT INTO db_tars.t_server_conf (application, server_name, node_name, template_name) VALUES \
         ('tars', 'tarsregistry', 'a', 'tars.tarsregistry')",
    ]);
    std::fs::write(&template, "<tars>\nfollows=2\nedited=2\nout=1\nneeded=2\nnew=1\n</tars>\n").unwrap();
    let told = assert_dry_run_tells(&server, &container);
    let added = &told["schema"]["added"];
    for what in [
        "db_tars.t_config_files: the table",
        "db_user_system.t_setting: the table",
        "db_tars.t_server_conf: the column sha",
        "db_tars.t_server_conf: the column exe_path from varchar(20) to varchar(128)",
    ] {
        assert!(added.as_array().unwrap().iter().any(|it| it == what), "{what} is not in {added:#}");
    }
    let templates = &told["templates"];
    let key = |list: &str| templates[list][0]["key"].clone();
    assert_eq!((key("changed"), key("conflicts")), ("tars/follows".into(), "tars/edited".into()));
    assert_eq!(templates["keys"], serde_json::json!(["tars.tarsregistry tars/new"]));
    assert_eq!(templates["taken_out"], serde_json::json!(["tars.tarsregistry tars/out"]));
    assert_eq!(templates["needed"], serde_json::json!(["tars.tarsregistry tars/needed"]));
    assert_eq!(templates["added"], serde_json::json!(["tars.framework-db"]));

    // It is asked for until somebody answers: the key comes back, or is not needed.
    let dry = || document(&container.call(&["migrate", "--dry-run"]))["templates"]["needed"].clone();
    assert_eq!(dry(), serde_json::json!(["tars.tarsregistry tars/needed"]));
    document(&container.call(&["templates", "keep", "tars.tarsregistry"]));
    assert_eq!(dry(), serde_json::Value::Null);
    std::fs::write(&template, "<tars>\nfollows=3\nedited=2\nout=1\nneeded=3\nnew=1\n</tars>\n").unwrap();
    assert_eq!(dry(), serde_json::Value::Null, "whatever is shipped");
    document(&container.call(&["templates", "take", "tars.tarsregistry"]));
    assert_eq!(
        server
            .number("SELECT COUNT(*) FROM db_tars.t_profile_template WHERE profile LIKE '%needed=3%out=1%'"),
        1
    );
}

#[test]
fn template_of_the_framework_that_is_no_configuration_is_named() {
    let server = Server::start();
    let container = Container::framework(&server);
    document(&container.call(&["migrate"]));
    server.run(&[
        "UPDATE db_tars.t_profile_template SET profile = '<tars>' WHERE template_name = 'tars.default'",
        "INSERT INTO db_tars.t_server_conf (application, server_name, node_name) VALUES ('tars', 'tarslog', 'a')",
    ]);
    let told = document(&container.call(&["migrate", "--dry-run"]));
    assert_eq!(told["templates"]["unreadable"], serde_json::json!(["tars.default"]));
}

#[test]
fn dry_run_waits_for_no_database() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    container.set("MYSQL_PORT", crate::server::free_port().to_string());
    let begun = Instant::now();
    assert_eq!(container.call(&["migrate", "--dry-run"]).status.code(), Some(69));
    assert!(begun.elapsed() < Duration::from_secs(5));
}

/// A server of a version before, with something of each kind to be changed.
fn server_of_before() -> (Server, Container) {
    let server = Server::start();
    let mut container = Container::framework(&server);
    let template = container.path("usr/local/tars/cpp/deploy/framework/sql/template/tars.tarsregistry");
    std::fs::write(&template, "<tars>\nkey=1\n</tars>\n").unwrap();
    document(&container.call(&["migrate"]));
    std::fs::write(&template, "<tars>\nkey=2\n</tars>\n").unwrap();
    server.run(&[
        "ALTER TABLE db_tars.t_server_conf DROP COLUMN sha, MODIFY exe_path varchar(20) NOT NULL DEFAULT ''",
        "INSERT INTO db_tars.t_server_conf (application, server_name, node_name, exe_path) VALUES \
         ('Shop', 'Cart', 'a', 'bin/Cart')",
    ]);
    container.set("TARSUP_SAVE", "stdin");
    (server, container)
}

/// Reads what is saved until it is said that this is all: the lines, and the word that is waited for.
fn saved(out: &mut BufReader<ChildStdout>) -> (Vec<serde_json::Value>, String) {
    let mut saved = Vec::new();
    loop {
        let mut line = String::new();
        assert!(out.read_line(&mut line).unwrap() > 0, "it ended: {saved:#?}");
        let Ok(document) = serde_json::from_str::<serde_json::Value>(&line) else { continue };
        if let Some(end) = document.get("saved") {
            assert_eq!(end["lines"], saved.len());
            return (saved, format!("saved {}\n", end["sha256"].as_str().unwrap()));
        }
        saved.push(document["save"].clone());
    }
}

#[test]
fn nothing_is_changed_before_the_word_that_what_is_changed_is_kept() {
    let (server, container) = server_of_before();
    // Every character of it, though four bytes long: the column has them since somebody gave it another character set.
    server.run(&[
        "ALTER TABLE db_tars.t_server_conf MODIFY exe_path varchar(20) CHARACTER SET utf8mb4 NOT NULL DEFAULT ''",
    ]);
    let mut session = server.session();
    session.query_drop("SET NAMES utf8mb4").unwrap();
    session.query_drop("UPDATE db_tars.t_server_conf SET exe_path = 'bin/\u{1f6d2}'").unwrap();
    let before = server.everything();
    let mut child = container.converse(&["migrate"]);
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let (mut lines, mut word) = (Vec::new(), String::new());
    let asked = asked_meanwhile(&server, || {
        (lines, word) = saved(&mut out);
        // What does not come cannot be waited for: it has time enough to begin.
        std::thread::sleep(Duration::from_millis(500));
    });
    let changing = |text: &&String| {
        ["ALTER", "INSERT", "UPDATE", "REPLACE", "CREATE", "DELETE"].iter().any(|word| text.starts_with(word))
    };
    assert_eq!(asked.iter().filter(changing).count(), 0, "{asked:#?}");
    assert_eq!(server.everything(), before);

    let of = |table: &str, what: &str| -> Vec<serde_json::Value> {
        let lines = lines.iter().filter(|line| line["table"] == table);
        lines.filter_map(|line| line.get(what).cloned()).collect()
    };
    let definition = of("db_tars.t_server_conf", "definition");
    assert!(definition[0].as_str().unwrap().contains("`exe_path` varchar(20)"), "{definition:?}");
    let rows = of("db_tars.t_server_conf", "row");
    assert_eq!(rows, [serde_json::json!({"id": rows[0]["id"], "exe_path": "bin/\u{1f6d2}"})]);
    let templates = of("db_tars.t_profile_template", "row");
    assert_eq!(templates.len(), 1);
    assert_eq!(templates[0]["template_name"], "tars.tarsregistry");
    assert!(templates[0]["profile"].as_str().unwrap().contains("key=1"));
    assert_eq!(of("tarsup.t_template", "row").len(), 3, "small tables are saved whole");

    child.stdin.take().unwrap().write_all(word.as_bytes()).unwrap();
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut out, &mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{rest}");
    let done: serde_json::Value = serde_json::from_str(rest.lines().last().unwrap()).unwrap();
    assert_eq!(done["templates"]["changed"][0]["shipped"], "2");
    assert!(has_column(&server));
}

#[test]
fn table_in_which_a_kept_column_is_put_back_is_saved_and_the_copies_are_not() {
    let (server, container) = server_of_before();
    server.run(&["ALTER TABLE db_tars.t_registry_info ADD COLUMN extra INT DEFAULT 0"]);
    // 78: a table of the fixture has no key, so that nothing of it can be kept.
    container.call(&["keep-columns", "--all"]);
    server.run(&["ALTER TABLE db_tars.t_registry_info DROP COLUMN extra"]);
    let mut child = container.converse(&["migrate"]);
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let (lines, word) = saved(&mut out);
    let of = |table: &str| lines.iter().filter(|line| line["table"] == table).count();
    assert_eq!(of("db_tars.t_registry_info"), 1, "its definition");
    assert!(of("tarsup.t_kept_column") > 0, "the record of what is kept");
    let is_copy = |table: &str| table.starts_with("tarsup.t_kept_") && table != "tarsup.t_kept_column";
    assert!(!lines.iter().any(|line| is_copy(line["table"].as_str().unwrap())));
    child.stdin.take().unwrap().write_all(word.as_bytes()).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let there = "SELECT COUNT(*) FROM information_schema.columns WHERE table_name = 't_registry_info' AND column_name = 'extra'";
    assert_eq!(server.number(there), 1);
}

#[test]
fn migration_without_the_word_changes_nothing_and_ends_with_75() {
    let (server, container) = server_of_before();
    let before = server.everything();
    for said in ["", "saved 00\n", "no\n"] {
        let mut child = container.converse(&["migrate"]);
        let mut out = BufReader::new(child.stdout.take().unwrap());
        saved(&mut out);
        child.stdin.take().unwrap().write_all(said.as_bytes()).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(75), "{said:?}");
        assert_eq!(server.everything(), before);
    }
    // Told to stop while it waits.
    let mut child = container.converse(&["migrate"]);
    let mut out = BufReader::new(child.stdout.take().unwrap());
    saved(&mut out);
    kill(nix::unistd::Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(75));
    assert_eq!(server.everything(), before);
}

#[test]
fn template_that_is_edited_after_it_was_saved_is_left_to_the_next_run() {
    let (server, container) = server_of_before();
    let mut child = container.converse(&["migrate"]);
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let (_, word) = saved(&mut out);
    server.run(&[
        "UPDATE db_tars.t_profile_template SET profile = CONCAT(profile, '# edited\n') WHERE template_name = \
                  'tars.tarsregistry'",
    ]);
    child.stdin.take().unwrap().write_all(word.as_bytes()).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let with = |text: &str| {
        server
            .number(&format!("SELECT COUNT(*) FROM db_tars.t_profile_template WHERE profile LIKE '%{text}%'"))
    };
    assert_eq!((with("key=1"), with("key=2"), with("# edited")), (1, 0, 1));
}

#[test]
fn person_who_migrates_names_the_file_that_keeps_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let (server, container) = server_of_before();
    let before = server.everything();
    let file = container.path("kept.jsonl");
    std::fs::write(&file, "somebody's").unwrap();
    let words = ["migrate", "--save", file.to_str().unwrap()];
    assert_eq!(container.call(&words).status.code(), Some(75), "what is there is not overwritten");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "somebody's");
    assert_eq!(server.everything(), before);
    std::fs::remove_file(&file).unwrap();
    document(&container.call(&words));
    assert!(std::fs::read_to_string(&file).unwrap().contains("key=1"));
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(has_column(&server));
}

/// A server with two nodes that have moved to 3.0.17, an outdated adapter at each of them, and one that is not.
fn moved_server() -> (Server, Container) {
    let server = Server::start();
    let mut container = Container::framework(&server);
    document(&container.call(&["migrate"]));
    server.run(&[
        "INSERT INTO db_tars.t_node_info (node_name, last_heartbeat, tars_version) VALUES ('a', NOW(), '3.0.17'), ('b', NOW(), \
         '3.0.17'), ('gone', '2020-01-01', '2.0.0')",
        "INSERT INTO db_tars.t_adapter_conf (application, server_name, node_name, adapter_name) VALUES \
         ('tars', 'tarsstat', 'a', 'Old'), ('tars', 'tarsstat', 'b', 'Old'), ('tars', 'tarsstat', 'b', 'New'), \
         ('Shop', 'tarsstat', 'b', 'Old')",
    ]);
    container.set("TARSUP_SAVE", "stdin");
    (server, container)
}

fn adapters(server: &Server) -> Vec<String> {
    server.rows(
        "SELECT CONCAT_WS(' ', application, node_name, adapter_name) FROM db_tars.t_adapter_conf ORDER BY 1",
    )
}

#[test]
fn finish_takes_the_rows_of_old_protocols_out_at_every_node_once_they_are_saved() {
    let (server, container) = moved_server();
    let before = server.everything();
    let mut told = serde_json::Value::Null;
    let words = ["migrate", "--finish", "--dry-run"];
    let asked = asked_meanwhile(&server, || told = document(&container.call(&words)));
    assert_eq!(told["finished"], serde_json::json!(["tars.tarsstat.Old at a", "tars.tarsstat.Old at b"]));
    assert!(asked.iter().all(|text| text.starts_with("SELECT") || text.starts_with("SET ")), "{asked:#?}");

    let mut child = container.converse(&["migrate", "--finish"]);
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let (lines, word) = saved(&mut out);
    assert_eq!(server.everything(), before, "before the word");
    let rows: Vec<&serde_json::Value> = lines.iter().map(|line| &line["row"]["node_name"]).collect();
    assert_eq!(rows, ["a", "b"]);
    child.stdin.take().unwrap().write_all(word.as_bytes()).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(adapters(&server), ["Shop b Old", "tars b New"]);
    // Again: nothing is left to be done.
    assert_eq!(document(&container.call(&words))["finished"], serde_json::json!([]));
}

#[test]
fn finish_waits_for_every_node_that_lives() {
    let (server, container) = moved_server();
    server.run(&["UPDATE db_tars.t_node_info SET tars_version = '2.4.17' WHERE node_name = 'b'"]);
    let before = server.everything();
    for words in [&["migrate", "--finish"][..], &["migrate", "--finish", "--dry-run"]] {
        let refused = container.call(words);
        assert_eq!(refused.status.code(), Some(78));
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(said.contains("not every node has moved to 3.0.17: b (2.4.17)"), "{said}");
    }
    assert_eq!(server.everything(), before);
    // And no migration without the word does it.
    document(&container.call(&["migrate", "--dry-run"]));
    assert_eq!(adapters(&server).len(), 4);
}
