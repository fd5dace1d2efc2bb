//! Statements that take their time, servers that are silent, migrations that are cut off.

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
    // Less than the ALTER takes: work is no waiting.
    container.set("TARSUP_DATABASE_TIMEOUT", "5");
    let reader = reader(&server);
    let begun = Instant::now();
    container.start_with("migrate");
    await_alter(&server);
    await_that("it is told for the third time", || {
        container.log().contains("sha: 30 s so far, the server says: Waiting for table metadata lock")
    });
    assert!(begun.elapsed() > Duration::from_secs(30));
    let begun = server.counter("Com_alter_table");
    drop(reader);
    assert_eq!(container.await_end().code(), Some(0), "{}", container.log());
    assert!(has_column(&server));
    assert_eq!(server.counter("Com_alter_table"), begun, "sent a second time");
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

    container.set("TARSUP_DATABASE_TIMEOUT", "60").start_with("migrate");
    container.await_words("still at work on a statement of an earlier start");
    assert_eq!(server.running(ALTER).len(), 1);
    assert_eq!(container.await_end().code(), Some(0), "{}", container.log());
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
