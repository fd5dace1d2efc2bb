//! What is refused before anything is touched.

use crate::container::Container;
use crate::server::Server;

#[test]
fn rebuild_is_refused_and_not_one_table_changes() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    container.run_once();
    server.run(&["INSERT INTO db_tars.t_config_files (config) VALUES ('marker')"]);
    let before = server.everything();
    assert!(before.len() > 6, "{before:?}");
    for value in ["true", " true", "true\n", "-n true", "TRUE", "1", "yes", "False", "\"true\""] {
        container.set("REBUILD", value);
        let status = container.run_to_end();
        assert_eq!(status.code(), Some(77), "{value:?}: {}", container.log());
        let log = container.log();
        assert!(log.contains("REBUILD") && log.contains("db_tars_web") && log.contains("compose"), "{log}");
        assert_eq!(server.everything(), before, "{value:?}");
    }
    for value in ["", "false"] {
        container.set("REBUILD", value);
        container.run_once();
    }
    assert_eq!(server.number("SELECT COUNT(*) FROM db_tars.t_config_files WHERE config = 'marker'"), 1);
}

#[test]
fn rebuild_is_refused_on_an_empty_server_by_every_entrypoint() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    container.set("REBUILD", "true");
    assert_eq!(container.run_to_end().code(), Some(77));
    assert_eq!(container.call(&["migrate"]).status.code(), Some(77));
    assert_eq!(server.everything(), []);
    assert!(!container.path("data").exists(), "the volume was touched");

    let mut node = Container::node("127.0.0.1");
    node.set("REBUILD", "true");
    assert_eq!(node.run_to_end().code(), Some(77));
}

#[test]
fn environment_that_is_not_understood_ends_with_64_before_anything_is_touched() {
    let server = Server::start();
    for (name, value) in
        [("SLAVE", "true "), ("DOMAIN", "fw tars"), ("MYSQL_PORT", "mysql"), ("MYSQL_HOST", "")]
    {
        let mut container = Container::framework(&server);
        container.set(name, value);
        let status = container.run_to_end();
        assert_eq!(status.code(), Some(64), "{name}: {}", container.log());
        assert!(container.log().contains(name), "{}", container.log());
        assert!(!container.path("data").exists());
    }
    assert_eq!(server.everything(), []);
    let container = Container::framework(&server);
    assert_eq!(container.call(&["restart"]).status.code(), Some(64));
}

#[test]
fn image_without_a_program_of_its_role_ends_with_78_and_names_it() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    std::fs::remove_file(container.path("usr/local/app/tars/tarsquerystat/bin/tarsquerystat")).unwrap();
    assert_eq!(container.run_to_end().code(), Some(78));
    assert!(container.log().contains("no program for tarsquerystat"), "{}", container.log());
    assert_eq!(server.everything(), []);
}
