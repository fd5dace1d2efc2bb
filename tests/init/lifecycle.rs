//! Signals, reaping, restarts, health: with real processes.

use std::fs;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::container::{Container, make_program};
use crate::health::await_health;
use crate::server::{PASSWORD, Server, free_port};

#[test]
fn start_log_has_about_twenty_lines_without_secrets() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    let log = container.run_once();
    assert!((5..=25).contains(&log.lines().count()), "{log}");
    assert!(!log.contains(PASSWORD) && !log.contains("Tars@2019"), "{log}");
}

#[test]
fn administrators_password_reaches_no_file_argument_or_service() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    container.start();
    container.await_words("healthy:");
    for pid in container.processes("tarsnode").iter().chain(&container.processes("tarsregistry")) {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        assert!(!String::from_utf8_lossy(&line).contains(PASSWORD));
    }
    let environment = fs::read_to_string(container.path("behaviour/tarsnode.environment")).unwrap();
    assert!(environment.contains("LD_LIBRARY_PATH=") && !environment.contains(PASSWORD), "{environment}");
    let found = std::process::Command::new("grep")
        .args(["-rl", PASSWORD])
        .arg(container.root.path())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "", "the password is in a file");
}

#[test]
fn registry_and_tarsnode_that_die_are_started_again_at_once() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    container.start();
    container.await_words("healthy:");
    for service in ["tarsregistry", "tarsnode"] {
        let before = container.processes(service);
        container.crash(service);
        container.await_successor(service, &before);
        assert!(container.log().contains(&format!("{service} is gone: restarting\n")), "{}", container.log());
    }
}

#[test]
fn registry_that_dies_again_and_again_is_started_with_growing_pauses_and_its_words_are_shown() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    container.start();
    container.await_words("healthy:");
    container.behave("tarsregistry", "fail");
    container.crash("tarsregistry");
    container.await_words("exited with 255");
    container.await_words("tarsregistry: cannot assign requested address");
    container.await_words("tarsregistry is gone: restarting in 1 s");
    container.await_words("tarsregistry is gone: restarting in 2 s");
    container.behave("tarsregistry", "");
    await_health(&container, 0, "healthy: 12 servants answer");
}

#[test]
fn registry_of_a_slave_that_an_administrator_stopped_stays_stopped() {
    let server = Server::start();
    Container::framework(&server).run_once();
    let mut slave = Container::framework(&server);
    slave.set("SLAVE", "true").start();
    slave.await_words("healthy:");
    server.run(&[&format!(
        "UPDATE db_tars.t_server_conf SET setting_state = 'inactive' WHERE server_name = 'tarsregistry' AND \
         node_name = '{}'",
        slave.address
    )]);
    kill(slave.processes("tarsregistry")[0], Signal::SIGTERM).unwrap();
    slave.await_words("tarsregistry was stopped by an administrator: left alone");
    assert_eq!(slave.call(&["health"]).status.code(), Some(0));
}

#[test]
fn what_crashes_may_leave_a_core_file_as_far_as_the_container_lets_it() {
    let (_, most) = getrlimit(Resource::RLIMIT_CORE).unwrap();
    // As a shell or a daemon leaves it; what is started from here inherits it.
    setrlimit(Resource::RLIMIT_CORE, 0, most).unwrap();
    let server = Server::start();
    let mut container = Container::framework(&server);
    container.start();
    container.await_words("healthy:");
    for service in ["tarsstat", "tarsnode"] {
        let limits = fs::read_to_string(format!("/proc/{}/limits", container.processes(service)[0])).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        let (soft, hard) = (core.split_whitespace().nth(4), core.split_whitespace().nth(5));
        assert!(soft == hard && soft != Some("0"), "{service}: {core}");
    }
}

#[test]
fn orphans_are_reaped() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    container.start();
    container.await_words("healthy:");
    let orphan = container.processes("tarsnode")[0];
    kill(orphan, Signal::SIGKILL).unwrap();
    let begun = Instant::now();
    while std::path::Path::new(&format!("/proc/{orphan}")).exists() {
        assert!(begun.elapsed() < Duration::from_secs(10), "the dead tarsnode was never reaped");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn health_is_an_answer_and_not_an_open_port() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    assert_eq!(container.call(&["health"]).status.code(), Some(1), "nothing runs yet");
    container.behave("tarsconfig", "mute");
    container.start();
    container.await_words("starting ");
    let begun = Instant::now();
    loop {
        let health = container.call(&["health"]);
        assert_eq!(health.status.code(), Some(1));
        let said = String::from_utf8_lossy(&health.stderr).into_owned();
        if said.contains("1 of 12 servants do not answer: tars.tarsconfig.ConfigObj") {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{said}");
    }
    assert!(TcpStream::connect((container.address.as_str(), 18193)).is_ok(), "its port is open");
}

#[test]
fn probe_is_one_document_that_says_what_is_known() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    container.start();
    container.await_words("healthy:");
    let probe = |container: &Container| -> (Option<i32>, serde_json::Value) {
        let output = container.call(&["probe", "--json"]);
        (output.status.code(), serde_json::from_slice(&output.stdout).unwrap())
    };
    let (code, report) = probe(&container);
    assert_eq!(code, Some(0), "{report}");
    assert_eq!(report["healthy"], true);
    assert_eq!(report["role"], "master");
    assert_eq!(report["address"], container.address.as_str());
    assert_eq!(report["version"], "3.0.17");
    assert_eq!(report["database"], "exists");
    assert_eq!(report["protocol"], 2);
    assert_eq!(report["web"], serde_json::Value::Null);
    assert_eq!(report["servants"].as_array().unwrap().len(), 12);
    assert_eq!(report["servants"][1]["name"], "tars.tarsregistry.QueryObj");
    assert_eq!(report["problems"].as_array().unwrap().len(), 0);
    container.set("MYSQL_PORT", free_port().to_string());
    let (code, report) = probe(&container);
    assert_eq!((code, &report["database"]), (Some(1), &"unknown".into()), "{report}");
    assert!(report["problems"][0].as_str().unwrap().contains("the database cannot be asked"), "{report}");
    container.set("MYSQL_PORT", server.port.to_string());
    container.behave("tarsstat", "fail");
    container.crash("tarsstat");
    container.await_words("tarsstat (pid");
    let (code, report) = probe(&container);
    assert_eq!((code, &report["healthy"]), (Some(1), &false.into()), "{report}");
}

#[test]
fn node_starts_tarsnode_once_its_registry_answers() {
    let server = Server::start();
    let mut master = Container::framework(&server);
    let mut node = Container::node(&master.address);
    node.start();
    node.await_words("starting tarsnode");
    assert!(node.processes("tarsnode").is_empty(), "tarsnode runs without a registry");
    master.start();
    node.await_words("healthy: 1 services");
    let line = fs::read(format!("/proc/{}/cmdline", node.processes("tarsnode")[0])).unwrap();
    let line = String::from_utf8_lossy(&line).replace('\0', " ");
    assert!(line.contains(&format!("--nodeid={}", node.address)), "{line}");
    assert_eq!(node.call(&["health"]).status.code(), Some(0));
    let probe = node.call(&["probe", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&probe.stdout).unwrap();
    assert_eq!((&report["role"], &report["database"]), (&"node".into(), &"not-asked".into()), "{report}");
    assert_eq!(report["registry"]["ok"], true);
    drop(master);
    let probe = node.call(&["probe", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&probe.stdout).unwrap();
    assert_eq!((&report["healthy"], &report["registry"]["ok"]), (&false.into(), &false.into()), "{report}");
    assert_eq!(node.call(&["health"]).status.code(), Some(0), "its own process answers");
}

#[test]
fn web_console_of_a_master_is_configured_started_and_started_again() {
    let server = Server::start();
    let mut master = Container::framework(&server);
    let web = master.path("usr/local/app/web");
    make_program(&web.join("bin/www"), "");
    fs::create_dir_all(web.join("config")).unwrap();
    fs::write(web.join("config/webConf.js"), "host: 'db.tars.com', user: 'tars', enableLogin: false")
        .unwrap();
    let node = master.path("nodejs/node");
    make_program(
        &node,
        "#!/bin/sh\necho $1 >\"${0%/*}/limit\"\necho $$ >>\"${0%/*}/starts\"\nexec sleep 1000\n",
    );
    master.set("PATH", format!("{}:/usr/bin:/bin", node.parent().unwrap().display()));
    master.start();
    master.await_words("healthy:");
    let configuration = fs::read_to_string(web.join("config/webConf.js")).unwrap();
    assert_eq!(configuration, "host: '127.0.0.1', user: 'tarsAdmin', enableLogin: true");
    let starts = || fs::read_to_string(master.path("nodejs/starts")).unwrap_or_default();
    let begun = Instant::now();
    while !starts().ends_with('\n') {
        assert!(begun.elapsed() < Duration::from_secs(30), "never started");
        std::thread::sleep(Duration::from_millis(10));
    }
    let limit = fs::read_to_string(master.path("nodejs/limit")).unwrap();
    assert_eq!(limit, "--max-old-space-size=1024\n");
    kill(Pid::from_raw(starts().trim().parse().unwrap()), Signal::SIGKILL).unwrap();
    master.await_words("web is gone: restarting");
    assert_eq!(master.stop().code(), Some(0), "{}", master.log());
}
