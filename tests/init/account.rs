//! Accounts: passwords from files, the services' own password, rights that are missing.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::container::Container;
use crate::server::{PASSWORD, Server};

/// What a master renders, installs and keeps: the files that hold this text.
fn files_with(container: &Container, text: &str) -> String {
    let found = std::process::Command::new("grep")
        .args(["-rl", "--exclude-dir=secrets", text])
        .arg(container.root.path())
        .output()
        .unwrap();
    String::from_utf8_lossy(&found.stdout).into_owned()
}

/// All accounts of the services, as the server keeps them.
fn accounts(server: &Server) -> Vec<(String, String)> {
    server.rows("SELECT host, CAST(priv AS CHAR) FROM mysql.global_priv WHERE user = 'tarsAdmin' ORDER BY 1")
}

fn secret(container: &Container, name: &str, text: &str) -> String {
    let path = container.path("secrets").join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    path.to_string_lossy().into_owned()
}

#[test]
fn password_may_lie_in_a_file_and_both_or_none_are_refused() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    let file = secret(&container, "root", &format!("{PASSWORD}\n"));
    container.set("MYSQL_ROOT_PASSWORD_FILE", &file);
    assert_eq!(container.run_to_end().code(), Some(64));
    let log = container.log();
    assert!(log.contains("MYSQL_ROOT_PASSWORD and MYSQL_ROOT_PASSWORD_FILE are both set"), "{log}");
    container.unset("MYSQL_ROOT_PASSWORD");
    container.start();
    container.await_words("healthy:");
    let environment = fs::read_to_string(container.path("behaviour/tarsnode.environment")).unwrap();
    assert!(!environment.contains("PASSWORD"), "{environment}");
    assert_eq!(container.call(&["health"]).status.code(), Some(0));
    container.stop();
    assert_eq!(files_with(&container, PASSWORD), "");

    container.set("MYSQL_ROOT_PASSWORD_FILE", format!("{file}.gone"));
    assert_eq!(container.run_to_end().code(), Some(64));
    let log = container.log();
    assert!(log.contains("root.gone") && log.contains("cannot be read"), "{log}");
}

#[test]
fn usual_password_of_the_services_is_warned_of_once_a_start() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    for _ in 0..2 {
        assert_eq!(container.run_once().matches("the password that everybody knows").count(), 1);
    }
}

#[test]
fn own_password_of_the_services_at_a_first_install_is_rendered_everywhere() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    // The web console's configuration, too.
    let web = container.path("usr/local/app/web/config/webConf.js");
    fs::create_dir_all(web.parent().unwrap()).unwrap();
    fs::write(&web, "user: 'tars', password: 'tars2015'").unwrap();
    crate::container::make_program(&container.path("usr/local/app/web/bin/www"), "");
    let file = secret(&container, "services", "Own=Pass!word-2026\n");
    container.set("TARS_ADMIN_PASSWORD_FILE", &file);
    let log = container.run_once();
    assert!(!log.contains("everybody knows") && !log.contains("Own=Pass"), "{log}");
    assert_eq!(files_with(&container, "Tars@2019"), "");
    let configuration =
        fs::read_to_string(container.path("usr/local/app/tars/tarsstat/conf/tars.tarsstat.config.conf"))
            .unwrap();
    assert!(configuration.contains("dbpass=Own\\=Pass!word-2026"), "{configuration}");
    let profiles =
        server.number("SELECT COUNT(*) FROM db_tars.t_profile_template WHERE profile LIKE '%Tars@2019%'");
    assert_eq!(profiles, 0);
    let profile: String = server
        .rows("SELECT profile FROM db_tars.t_profile_template WHERE template_name = 'tars.framework-db'")
        .remove(0);
    assert!(profile.contains("dbpass=Own\\=Pass!word-2026"), "{profile}");
    assert!(server.login("tarsAdmin", "Own=Pass!word-2026") && !server.login("tarsAdmin", "Tars@2019"));
}

#[test]
fn password_that_the_services_account_has_not_is_one_sentence_and_alters_nothing() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    container.set("TARS_ADMIN_PASSWORD", "Own-2026").run_once();
    let (before, everything) = (accounts(&server), server.everything());
    assert_eq!(before.len(), 3);
    // Another address is another account: it must not be made with a password of its own.
    for (password, words) in [("Other-2026", "with TARS_ADMIN_PASSWORD"), ("", "with the usual password")] {
        let mut next = Container::framework(&server);
        next.set("TARS_ADMIN_PASSWORD", password);
        assert_eq!(next.run_to_end().code(), Some(78), "{}", next.log());
        let log = next.log();
        let sentence = format!("the account tarsAdmin of the services cannot log in {words}");
        assert_eq!(log.matches(&sentence).count(), 1, "{log}");
        assert!(!log.contains("Other-2026"), "{log}");
        assert_eq!((accounts(&server), server.everything()), (before.clone(), everything.clone()));
    }
    let mut slave = Container::framework(&server);
    slave.set("SLAVE", "true").set("TARSUP_DATABASE_TIMEOUT", "1");
    assert_eq!(slave.run_to_end().code(), Some(69));
    assert!(slave.log().contains("cannot log in with the usual password"), "{}", slave.log());
    assert_eq!(accounts(&server), before);
    slave.set("TARS_ADMIN_PASSWORD", "Own-2026").run_once();
}

#[test]
fn password_that_was_changed_is_followed_and_templates_that_have_another_are_named() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    container.run_once();
    for host in ["%", "localhost", &container.address] {
        server.run(&[&format!("ALTER USER tarsAdmin@'{host}' IDENTIFIED BY 'New=2026'")]);
    }
    let (before, everything) = (accounts(&server), server.everything());
    container.set("TARS_ADMIN_PASSWORD", "New=2026");
    let log = container.run_once();
    let words = "another password of tarsAdmin stands in the templates tars.framework-db:";
    assert_eq!(log.matches(words).count(), 1, "{log}");
    assert!(!log.contains("New=") && !log.contains("Tars@2019"), "{log}");
    assert_eq!(files_with(&container, "Tars@2019"), "");
    assert_eq!((accounts(&server), server.everything()), (before, everything));
    server.run(&[
        "UPDATE db_tars.t_profile_template SET profile = REPLACE(profile, 'Tars@2019', 'New\\\\=2026')",
    ]);
    let log = container.run_once();
    assert!(!log.contains("another password"), "{log}");
}

#[test]
fn right_that_is_missing_is_one_sentence_with_the_account_as_the_server_saw_it() {
    let server = Server::start();
    server.run(&[
        "CREATE USER dba@'127.0.0.1' IDENTIFIED BY 'pw-of-the-dba'",
        "GRANT SELECT ON *.* TO dba@'127.0.0.1'",
        "CREATE USER tarsAdmin@'%' IDENTIFIED BY 'Tars@2019'",
    ]);
    let mut container = Container::framework(&server);
    container.set("MYSQL_USER", "dba").set("MYSQL_ROOT_PASSWORD", "pw-of-the-dba");
    assert_eq!(container.run_to_end().code(), Some(78), "{}", container.log());
    let log = container.log();
    assert!(log.contains("the account may not do this: ") && log.contains("'dba'@'127.0.0.1'"), "{log}");
    assert!(log.contains("Grant MYSQL_USER this right") && !log.contains("ERROR"), "{log}");
    assert_eq!(server.everything(), []);
}

#[test]
fn administrator_without_all_rights_grants_what_the_services_need() {
    let server = Server::start();
    server.run(&[
        "CREATE USER dba@'127.0.0.1' IDENTIFIED BY 'pw-of-the-dba'",
        "GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, REFERENCES, INDEX, ALTER, CREATE TEMPORARY TABLES, LOCK TABLES, \
         EXECUTE, CREATE VIEW, SHOW VIEW, CREATE USER, CREATE ROUTINE, ALTER ROUTINE, EVENT, TRIGGER, DELETE HISTORY \
         ON *.* TO dba@'127.0.0.1' WITH GRANT OPTION",
    ]);
    let mut container = Container::framework(&server);
    container.set("MYSQL_USER", "dba").set("MYSQL_ROOT_PASSWORD", "pw-of-the-dba");
    let log = container.run_once();
    assert!(!log.contains("left as it is"), "{log}");
    let grants: Vec<String> = server.rows("SHOW GRANTS FOR tarsAdmin@'%'");
    assert!(grants.iter().any(|grant| grant.contains("ALL PRIVILEGES ON `db_tars`.*")), "{grants:?}");
    assert!(grants.iter().all(|grant| !grant.contains("RELOAD")), "{grants:?}");
    let before = accounts(&server);
    container.run_once();
    assert_eq!(accounts(&server), before);
}

#[test]
fn secret_of_a_start_is_for_its_owner_alone() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    container.set("TARS_ADMIN_PASSWORD", "Own-2026").run_once();
    let files = files_with(&container, "Own-2026");
    assert!(files.lines().count() > 3, "{files}");
    for file in files.lines() {
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o007, 0, "{file}");
    }
}
