//! What is secret stays so: what is said, printed and started shows no password, and nothing of what a password's file holds.

use std::fs;

use crate::container::{Container, make_program};
use crate::server::{PASSWORD, Server};

const SERVICES: &str = "Services-Secret-2026";

/// A master of which both passwords lie in files; gives back where.
fn master_with_files(server: &Server) -> (Container, Vec<String>) {
    let mut container = Container::framework(server);
    let folder = container.path("secrets");
    fs::create_dir(&folder).unwrap();
    let files: Vec<String> = [("root", PASSWORD), ("services", SERVICES)]
        .map(|(name, text)| {
            let path = folder.join(name);
            fs::write(&path, format!("{text}\n")).unwrap();
            path.to_string_lossy().into_owned()
        })
        .into();
    container.unset("MYSQL_ROOT_PASSWORD");
    container.set("MYSQL_ROOT_PASSWORD_FILE", &files[0]).set("TARS_ADMIN_PASSWORD_FILE", &files[1]);
    (container, files)
}

fn assert_hides(what: &str, text: &str) {
    for secret in [PASSWORD, SERVICES] {
        assert!(!text.contains(secret), "{what}: {text}");
    }
}

/// Of every process below tars-init, itself included, its command line and environment.
fn started(container: &Container) -> Vec<(String, String)> {
    let mut pids = vec![container.pid().as_raw()];
    let mut at = 0;
    while at < pids.len() {
        let children =
            fs::read_to_string(format!("/proc/{0}/task/{0}/children", pids[at])).unwrap_or_default();
        pids.extend(children.split_whitespace().map(|pid| pid.parse::<i32>().unwrap()));
        at += 1;
    }
    let read = |pid: i32, name: &str| {
        let bytes = fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\0', "\n")
    };
    pids.into_iter().map(|pid| (read(pid, "cmdline"), read(pid, "environ"))).collect()
}

#[test]
fn passwords_from_files_are_in_nothing_that_is_said_or_started() {
    let server = Server::start();
    let (mut container, files) = master_with_files(&server);
    // A web console, and what it may need.
    make_program(&container.path("usr/local/app/web/bin/www"), "");
    make_program(&container.path("bin/node"), "#!/bin/sh\nexec sleep 1000\n");
    let path = format!("{}:{}", container.path("bin").display(), std::env::var("PATH").unwrap());
    container.set("PATH", path);
    container.start();
    container.await_words("healthy:");

    let processes = started(&container);
    assert!(processes.len() > 11, "{processes:?}");
    for (line, environment) in &processes {
        assert_hides("a command line", line);
        assert_hides("an environment", environment);
    }
    for (line, environment) in &processes[1..] {
        assert!(!environment.contains("PASSWORD"), "{line}: {environment}");
        // How tars-init handles its own memory is no business of theirs.
        assert!(!environment.contains("GLIBC_TUNABLES"), "{line}: {environment}");
    }
    for words in [
        &["env"][..],
        &["status"],
        &["health", "--verbose"],
        &["probe", "--json"],
        &["cluster", "--json"],
        &["published", "--json"],
        &["templates", "--json"],
        &["migrate", "--dry-run"],
        &["keep-columns", "--dry-run"],
        &["readdress", "10.9.9.9", "10.9.9.8", "--dry-run"],
    ] {
        let output = container.call(words);
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        assert_hides(&words.join(" "), &text.concat());
    }
    let env = String::from_utf8_lossy(&container.call(&["env"]).stdout).into_owned();
    for (name, file) in ["MYSQL_ROOT_PASSWORD_FILE", "TARS_ADMIN_PASSWORD_FILE"].into_iter().zip(&files) {
        assert!(env.contains(&format!("{name}={file}\n")), "{env}");
    }
    container.stop();
    assert_hides("the log", &container.log());
}

#[test]
fn program_that_dies_with_a_password_in_its_last_words_is_shown_without_it() {
    let server = Server::start();
    let (mut container, _) = master_with_files(&server);
    // Further to the right than what is shown of a line.
    let far = "x".repeat(290);
    make_program(
        &container.path("usr/local/app/tars/tarsconfig/bin/tarsconfig"),
        &format!(
            "#!/bin/sh\necho 'mysql://tarsAdmin:{SERVICES}@db and {PASSWORD}'\necho '{far}{SERVICES}'\nexit 3\n"
        ),
    );
    container.start();
    container.await_words("tarsconfig: mysql://tarsAdmin:***@db and ***");
    container.await_words(&format!("{far}***"));
    assert_hides("the log", &container.log());
    assert!(!container.log().contains("Services-S"), "{}", container.log());
}

#[test]
fn failures_show_no_password() {
    let server = Server::start();
    let (mut container, _) = master_with_files(&server);
    container.set("TARSUP_DATABASE_TIMEOUT", "1");
    let refused = |container: &mut Container, code: i32| {
        assert_eq!(container.run_to_end().code(), Some(code), "{}", container.log());
        assert_hides("a failure", &container.log());
    };
    // Given twice; by a server that lets nobody in; with an account that is another's.
    container.set("MYSQL_ROOT_PASSWORD", PASSWORD);
    refused(&mut container, 64);
    container.unset("MYSQL_ROOT_PASSWORD").set("MYSQL_USER", "nobody");
    refused(&mut container, 69);
    container.unset("MYSQL_USER");
    server.run(&["CREATE USER tarsAdmin@'%' IDENTIFIED BY 'another'"]);
    refused(&mut container, 78);
}

#[test]
fn migration_shows_no_password() {
    let server = Server::start();
    let (mut container, _) = master_with_files(&server);
    container.start_with("migrate");
    assert_eq!(container.await_end().code(), Some(0), "{}", container.log());
    assert_hides("a migration", &container.log());
    // As one that nobody keeps anything for.
    let output = container.converse(&["migrate"]).wait_with_output().unwrap();
    assert!(output.status.success());
    assert_hides("a migration", &String::from_utf8_lossy(&output.stdout));
}
