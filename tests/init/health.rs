//! Whether a container is to be left alone: its own processes, its web console, and no word of the database.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};

use crate::container::{Container, make_program};
use crate::server::{Server, free_port};

/// Exit code, and what Docker would keep of it.
fn health(container: &Container) -> (Option<i32>, String) {
    let output = container.call(&["health"]);
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), text)
}

pub fn await_health(container: &Container, code: i32, words: &str) -> String {
    let begun = Instant::now();
    loop {
        let (seen, text) = health(container);
        if seen == Some(code) && text.contains(words) {
            return text;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{seen:?}: {text}\n{}", container.log());
    }
}

fn master_whose_tarsstat_an_administrator_stopped() -> (Server, Container) {
    let server = Server::start();
    let mut container = Container::framework(&server);
    container.start();
    container.await_words("healthy:");
    let update = "UPDATE db_tars.t_server_conf SET setting_state = 'inactive' WHERE server_name = 'tarsstat'";
    server.run(&[update]);
    kill(container.processes("tarsstat")[0], Signal::SIGTERM).unwrap();
    container.await_words("tarsstat (pid");
    (server, container)
}

#[test]
fn node_whose_tarsnode_is_dead_is_not_healthy_by_the_answer_of_another_container() {
    let server = Server::start();
    let mut master = Container::framework(&server);
    master.start();
    master.await_words("healthy:");
    // As on a host network: both have the same address.
    let mut node = Container::node(&master.address);
    node.set("DOMAIN", &master.address);
    node.behave("tarsnode", "fail");
    node.start();
    node.await_words("tarsnode is gone");
    let text = await_health(&node, 1, "tars.tarsnode.ServerObj");
    assert!(text.contains("no process of this container"), "{text}");
    // Where the kernel does not tell who listens, /proc does.
    let refused = node.call_without_sock_diag(&["health"]);
    let text = String::from_utf8_lossy(&refused.stderr);
    assert!(text.contains("no process of this container") && refused.status.code() == Some(1), "{text}");
    let probe = node.call(&["probe", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&probe.stdout).unwrap();
    assert_eq!(
        (&report["healthy"], &report["servants"][0]["ok"]),
        (&false.into(), &false.into()),
        "{report}"
    );
    assert!(!node.log().contains("healthy:"), "{}", node.log());
    assert_eq!(health(&master).0, Some(0));
}

#[test]
fn processes_that_have_answered_stay_healthy_while_the_database_is_away() {
    let (server, container) = master_whose_tarsstat_an_administrator_stopped();
    await_health(&container, 0, "healthy: 11 servants answer");
    drop(server);
    // It is asked once in ten seconds.
    let text = await_health(&container, 0, "the database cannot be asked just now");
    assert!(text.starts_with("healthy: 11 servants answer"), "{text}");
    // What answered must go on answering: a failover excuses nobody.
    let silent = container.processes("tarsconfig")[0];
    kill(silent, Signal::SIGSTOP).unwrap();
    let text = await_health(&container, 1, "tars.tarsconfig.ConfigObj");
    assert!(text.contains("it has answered before") && !text.starts_with("tars-init: starting"), "{text}");
    kill(silent, Signal::SIGCONT).unwrap();
}

#[test]
fn database_is_asked_now_and_then_and_at_once_when_somebody_is_silent() {
    let server = Server::start();
    let mut master = Container::framework(&server);
    master.start();
    master.await_words("healthy:");
    await_health(&master, 0, "healthy: 12 servants answer");
    let begun = Instant::now();
    let before = server.counter("Connections");
    for _ in 0..5 {
        assert_eq!(health(&master).0, Some(0));
    }
    // The counter's own question is one.
    let asked = server.counter("Connections") - before - 1;
    assert!(asked <= 1 || begun.elapsed() > Duration::from_secs(8), "{asked} times");
    // Two servants: a stop that nobody has read yet is read before anything is said.
    server
        .run(&["UPDATE db_tars.t_server_conf SET setting_state = 'inactive' WHERE server_name = 'tarsstat'"]);
    kill(master.processes("tarsstat")[0], Signal::SIGSTOP).unwrap();
    let (code, text) = health(&master);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("healthy: 11 servants answer"), "{text}");
    // And a rollout's question is always asked.
    let before = server.counter("Connections");
    master.call(&["probe", "--json"]);
    assert_eq!(server.counter("Connections") - before, 2);
    kill(master.processes("tarsstat")[0], Signal::SIGCONT).unwrap();
}

#[test]
fn container_that_waits_for_its_database_is_starting_and_says_so() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    container.set("MYSQL_PORT", free_port().to_string()).start();
    container.await_words("waiting for the database");
    let text = await_health(&container, 1, "starting");
    assert!(text.contains("waits for the database"), "{text}");
}

#[test]
fn web_console_that_does_not_answer_makes_a_master_unhealthy() {
    let server = Server::start();
    let mut master = Container::framework(&server);
    make_program(&master.path("usr/local/app/web/bin/www"), "");
    let node = master.path("nodejs/node");
    make_program(&node, "#!/bin/sh\nexec sleep 1000\n");
    master.set("PATH", format!("{}:/usr/bin:/bin", node.parent().unwrap().display()));
    master.start();
    master.await_words("healthy:");
    let text = await_health(&master, 1, "the web console on 3000");
    assert!(text.contains("nothing of this container listens"), "{text}");
    let probe = master.call(&["probe", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&probe.stdout).unwrap();
    assert_eq!((&report["healthy"], &report["web"]["ok"]), (&false.into(), &false.into()), "{report}");

    let serve = "#!/usr/bin/perl\nuse IO::Socket::INET;\nmy $s = IO::Socket::INET->new(LocalAddr => $ENV{DOMAIN}, \
                 LocalPort => 3000, Listen => 8, ReuseAddr => 1) or die;\nwhile (my $c = $s->accept) { sysread $c, my \
                 $r, 4096; syswrite $c, \"HTTP/1.1 302 Found\\r\\n\\r\\n\"; close $c }\n";
    fs::remove_file(&node).unwrap();
    make_program(&node, serve);
    let sleeper =
        std::process::Command::new("pgrep").args(["-P", &master.pid().to_string(), "sleep"]).output();
    let pid: i32 = String::from_utf8_lossy(&sleeper.unwrap().stdout).trim().parse().unwrap();
    kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    await_health(&master, 0, "healthy: 12 servants answer");
}

#[test]
fn person_inside_sees_every_part_and_no_secret() {
    let (_server, container) = master_whose_tarsstat_an_administrator_stopped();
    await_health(&container, 0, "servants answer");
    let silent = container.processes("tarsconfig")[0];
    kill(silent, Signal::SIGSTOP).unwrap();

    let status = container.call(&["status"]);

    let text = String::from_utf8_lossy(&status.stdout).into_owned();
    let line = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap_or("").to_owned();
    assert!(text.starts_with(&format!("TARS 3.0.17, master at {}\n", container.address)), "{text}");
    assert!(line("tars.tarslog.LogObj").ends_with("answers"), "{text}");
    let pid = container.processes("tarslog")[0].to_string();
    assert!(line("tars.tarslog.LogObj").contains(&pid), "{text}");
    assert!(line("tars.tarsstat.StatObj").ends_with("stopped by an administrator"), "{text}");
    assert!(line("tars.tarsconfig.ConfigObj").contains("it has answered before"), "{text}");
    assert!(line("database root@").ends_with("holds TARS"), "{text}");
    assert_eq!(status.status.code(), Some(1), "as `health` says");
    let verbose = container.call(&["health", "--verbose"]);
    let verbose = String::from_utf8_lossy(&verbose.stdout).into_owned();
    assert!(verbose.starts_with("1 of 12 servants do not answer: tars.tarsconfig.ConfigObj"), "{verbose}");
    assert!(verbose.contains("tars.tarslog.LogObj"), "{verbose}");
    kill(silent, Signal::SIGCONT).unwrap();
    await_health(&container, 0, "servants answer");
    assert_eq!(container.call(&["status"]).status.code(), Some(0));

    let env = container.call(&["env"]);
    let env = String::from_utf8_lossy(&env.stdout).into_owned();
    assert!(env.contains("MYSQL_ROOT_PASSWORD=***\n") && !env.contains(crate::server::PASSWORD), "{env}");
    assert!(env.contains("REBUILD=false  # default\n"), "{env}");
    assert!(env.contains(&format!("# master at {}\n", container.address)), "{env}");
    assert!(env.ends_with(", without TLS\n"), "{env}");
}
