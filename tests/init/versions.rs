//! Which version was here, and whether an older one may come back.

use crate::container::Container;
use crate::server::Server;

const UPGRADE: &str = "usr/local/tars/cpp/deploy/framework/sql/tars_upgrade.conf";

/// A container of this version; a newer one than 3.0.17 brings a column.
fn version(server: &Server, version: &str) -> Container {
    let mut container = Container::framework(server);
    container.set("TARSUP_VERSION", version);
    if version > "3.0.17" {
        let path = container.path(UPGRADE);
        let text = std::fs::read_to_string(&path).unwrap();
        let block = "<upgrade2>\ndatabase = db_tars\ntable = t_server_conf\nfield = newest\nsql = ALTER TABLE `t_server_conf` \
                     ADD `newest` INT DEFAULT 0;\n</upgrade2>\n</upgrades>";
        std::fs::write(&path, text.replace("</upgrades>", block)).unwrap();
    }
    container
}

/// Exit code and what it said.
fn migrate(container: &Container, words: &[&str]) -> (i32, String) {
    let output = container.call(&[&["migrate"], words].concat());
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Version, act, image, whether it changed something.
fn history(server: &Server) -> Vec<(String, String, String, bool)> {
    server.rows("SELECT version, act, image, changed <> '' FROM tarsup.t_version ORDER BY id")
}

fn row(version: &str, act: &str, image: &str, changed: bool) -> (String, String, String, bool) {
    (version.to_owned(), act.to_owned(), image.to_owned(), changed)
}

#[test]
fn history_says_which_version_installed_and_changed_what_from_which_image() {
    let server = Server::start();
    let mut first = version(&server, "3.0.17");
    first.set("TARSUP_IMAGE", "tars/framework:3.0.17@sha256:00");
    first.run_once();
    first.run_once();
    let mut newer = version(&server, "3.0.18");
    newer.set("TARSUP_IMAGE", "tars/framework:3.0.18@sha256:11").set("TARSUP_WAY_BACK", "2.4.17,3.0.17");
    assert_eq!(migrate(&newer, &[]).0, 0);
    assert_eq!(migrate(&newer, &[]).0, 0, "what changes nothing writes nothing");
    assert_eq!(
        history(&server),
        [
            row("3.0.17", "install", "tars/framework:3.0.17@sha256:00", true),
            row("3.0.18", "migrate", "tars/framework:3.0.18@sha256:11", true),
        ]
    );
    let what: String = server.rows("SELECT changed FROM tarsup.t_version ORDER BY id DESC LIMIT 1").remove(0);
    assert!(what.contains("db_tars.t_server_conf: the column newest"), "{what}");

    // The word was left: the version before comes back, and is in the history. One that nobody named does not.
    first.run_once();
    assert_eq!(
        history(&server).last(),
        Some(&row("3.0.17", "start", "tars/framework:3.0.17@sha256:00", false))
    );
    assert_eq!(migrate(&version(&server, "2.4.17"), &[]).0, 0);
    let (code, said) = migrate(&version(&server, "2.1.0"), &[]);
    assert_eq!(code, 78, "{said}");
}

#[test]
fn older_version_is_refused_where_a_newer_one_changed_the_database_without_a_word() {
    let server = Server::start();
    let mut older = version(&server, "3.0.17");
    older.run_once();
    assert_eq!(migrate(&version(&server, "3.0.18"), &[]).0, 0);
    let before = server.everything();
    assert_eq!(older.run_to_end().code(), Some(78));
    let log = older.log();
    assert!(log.contains("3.0.18 has changed the database since") && log.contains("accept-version"), "{log}");
    for words in [&[][..], &["--dry-run"]] {
        assert_eq!(migrate(&older, words).0, 78);
    }
    assert_eq!(server.everything(), before);
    // A slave changes nothing, and goes on.
    let mut slave = version(&server, "3.0.17");
    slave.set("SLAVE", "true");
    let said = slave.run_once();
    assert!(said.contains("changed by 3.0.18, which is newer than 3.0.17"), "{said}");

    let accepted = older.call(&["accept-version"]);
    assert_eq!(accepted.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&accepted.stdout).contains("3.0.17 may run on what 3.0.18 changed"));
    older.run_once();
}

#[test]
fn newer_version_that_changed_nothing_and_a_database_without_history_refuse_nobody() {
    let server = Server::start();
    let mut older = version(&server, "3.0.16");
    older.run_once();
    assert_eq!(migrate(&version(&server, "3.0.17"), &[]).0, 0);
    assert_eq!(history(&server).last(), Some(&row("3.0.17", "migrate", "", false)));
    older.run_once();
    assert_eq!(migrate(&version(&server, "3.0.18"), &[]).0, 0);
    assert_eq!(migrate(&older, &[]).0, 78);
    // A DBA restored the schemas of TARS, and not ours.
    server.run(&["DROP DATABASE tarsup"]);
    assert_eq!(migrate(&older, &[]).0, 0);
}

#[test]
fn word_is_written_before_the_first_change() {
    let server = Server::start();
    version(&server, "3.0.17").run_once();
    // It is cut off at its first change: a reader holds the table.
    let mut session = server.session();
    mysql::prelude::Queryable::query_drop(&mut session, "START TRANSACTION").unwrap();
    mysql::prelude::Queryable::query_drop(&mut session, "SELECT * FROM db_tars.t_server_conf").unwrap();
    let mut newer = version(&server, "3.0.18");
    newer.set("TARSUP_WAY_BACK", "3.0.17");
    newer.start_with("migrate");
    let begun = std::time::Instant::now();
    while server.running("ALTER TABLE `t_server_conf` ADD").is_empty() {
        assert!(begun.elapsed().as_secs() < 30, "{}", newer.log());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    newer.kill();
    drop(session);
    let words: Vec<(String, String)> = server.rows("SELECT version, changed_by FROM tarsup.t_way_back");
    assert_eq!(words, [("3.0.17".to_owned(), "3.0.18".to_owned())]);
    // It may have changed something: a version that nobody named is refused, and the one that was named is not.
    assert_eq!(history(&server).last(), Some(&row("3.0.18", "migrate", "", true)));
    assert_eq!(migrate(&version(&server, "3.0.16"), &[]).0, 78);
    assert_eq!(migrate(&version(&server, "3.0.17"), &[]).0, 0);
}
