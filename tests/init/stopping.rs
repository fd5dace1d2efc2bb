//! SIGTERM: in each phase of a start, and in which order a running container ends.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::container::{Container, make_program};
use crate::proxy::Proxy;
use crate::server::{Server, free_port};

#[test]
fn sigterm_stops_every_process_and_ends_with_0() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    container.start();
    container.await_words("healthy:");
    assert!(!container.log().contains("is gone"), "{}", container.log());
    let begun = Instant::now();
    assert_eq!(container.stop().code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(5), "{}", container.log());
    assert!(container.processes("").is_empty());
}

#[test]
fn service_that_does_not_listen_is_killed_when_the_grace_is_over() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    container.behave("tarsconfig", "deaf");
    container.set("TARSUP_STOP_TIMEOUT", "1").start();
    container.await_words("healthy:");
    assert_eq!(container.stop().code(), Some(0));
    assert!(container.log().contains("still there, killed: tarsconfig"), "{}", container.log());
    assert!(container.processes("tarsconfig").is_empty());
}

#[test]
fn sigterm_while_the_database_is_awaited_ends_at_once() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    container.set("MYSQL_PORT", free_port().to_string()).start();
    container.await_words("waiting for the database");
    let begun = Instant::now();
    assert_eq!(container.stop().code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[test]
fn web_console_ends_first_then_tarsnode_and_the_others_have_time_to_write() {
    let server = Server::start();
    let mut master = Container::framework(&server);
    let root = master.root.path().to_owned();
    make_program(&root.join("usr/local/app/web/bin/www"), "");
    let node = root.join("nodejs/node");
    make_program(
        &node,
        &format!(
            "#!/bin/sh\ntrap 'echo web >>{0}/behaviour/told; sleep 0.3; echo web >>{0}/behaviour/ended; exit 0' TERM\n\
             touch {0}/nodejs/ready\nwhile :; do sleep 0.05; done\n",
            root.display()
        ),
    );
    for slow in ["tarsnode", "tarsstat", "tarsproperty"] {
        master.behave(slow, "slow");
    }
    master.set("PATH", format!("{}:/usr/bin:/bin", node.parent().unwrap().display())).start();
    master.await_words("healthy:");
    await_file(&root.join("nodejs/ready"));
    assert_eq!(master.stop().code(), Some(0), "{}", master.log());
    let lines = |name: &str| -> Vec<String> {
        let text = fs::read_to_string(root.join("behaviour").join(name)).unwrap();
        text.lines().map(str::to_owned).collect()
    };
    let (told, ended) = (lines("told"), lines("ended"));
    assert_eq!(told[..2], ["web", "tarsnode"], "{told:?}");
    assert_eq!(ended[..2], ["web", "tarsnode"], "each was awaited: {ended:?}");
    assert_eq!((told.len(), ended.len()), (12, 12), "everybody once: {told:?} {ended:?}");
    let mut last = ended[10..].to_vec();
    last.sort();
    assert_eq!(last, ["tarsproperty", "tarsstat"], "{ended:?}");
    assert!(!master.log().contains("killed"), "{}", master.log());
}

#[test]
fn tarsnode_that_does_not_end_leaves_the_others_half_of_the_time() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    container.behave("tarsnode", "deaf");
    container.behave("tarsstat", "slow");
    container.set("TARSUP_STOP_TIMEOUT", "4").start();
    container.await_words("healthy:");
    assert_eq!(container.stop().code(), Some(0));
    let log = container.log();
    assert!(log.contains("still there, killed: tarsnode ("), "{log}");
    assert_eq!(log.matches("killed").count(), 1, "{log}");
    let ended = fs::read_to_string(container.path("behaviour/ended")).unwrap();
    assert!(ended.contains("tarsstat"), "{ended}");
}

#[test]
fn sigterm_while_the_database_installs_ends_at_once_and_the_next_start_finishes() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    let holding = Proxy::holding(server.port, "CREATE TABLE `t_config_files`");
    container.set("MYSQL_PORT", holding.port.to_string()).start();
    holding.await_cut();
    let begun = Instant::now();
    assert_eq!(container.stop().code(), Some(0), "{}", container.log());
    assert!(begun.elapsed() < Duration::from_secs(2), "{}", container.log());
    assert!(container.log().contains("told to stop before anything was started"), "{}", container.log());
    container.set("MYSQL_PORT", server.port.to_string()).run_once();
}

#[test]
fn sigterm_while_a_configuration_is_rendered_ends_at_once() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    // A disk that does not answer: nobody ever reads the other end.
    let beside = container.path("usr/local/app/tars/tarsconfig/conf/.tars.tarsconfig.config.conf.tars-init");
    fs::create_dir_all(beside.parent().unwrap()).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&beside).status().unwrap().success());
    container.start();
    container.await_words("is registered");
    let begun = Instant::now();
    assert_eq!(container.stop().code(), Some(0), "{}", container.log());
    assert!(begun.elapsed() < Duration::from_secs(2), "{}", container.log());
    assert!(!container.log().contains("starting "), "{}", container.log());
    fs::remove_file(&beside).unwrap();
    container.run_once();
}

#[test]
fn sigterm_while_services_start_leaves_none_behind() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    container.run_once();
    // At several moments, tarsnode's two forks among them.
    for words in ["is registered", "starting ", "starting "] {
        container.start();
        container.await_words(words);
        assert_eq!(container.stop().code(), Some(0), "{}", container.log());
        assert!(container.processes("").is_empty(), "{}", container.log());
    }
    let mut node = Container::node(&container.address);
    node.start();
    node.await_words("tarsnode waits for a registry");
    let begun = Instant::now();
    assert_eq!(node.stop().code(), Some(0), "{}", node.log());
    assert!(begun.elapsed() < Duration::from_secs(2), "{}", node.log());
}

fn await_file(path: &Path) {
    let begun = Instant::now();
    while !path.exists() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{} never came", path.display());
        std::thread::sleep(Duration::from_millis(10));
    }
}
