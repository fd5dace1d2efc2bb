//! Services that live and do not answer: who is started again, and who is left alone.

use std::fs;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};

use crate::container::{Container, make_program};
use crate::server::Server;

/// The stand-in has read how it shall behave once it listens.
fn await_port(container: &Container, port: u16) {
    let begun = Instant::now();
    while TcpStream::connect((container.address.as_str(), port)).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{port} never opened:\n{}", container.log());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn service_that_hangs_with_its_port_open_from_its_start_is_started_again_and_then_healthy() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    for service in ["tarsregistry", "tarsconfig"] {
        container.behave(service, "mute");
    }
    container.set("TARSUP_ANSWER_TIMEOUT", "2").start();
    await_port(&container, 17890);
    await_port(&container, 18193);
    let before = ["tarsregistry", "tarsconfig"].map(|service| container.processes(service)[0]);
    for service in ["tarsregistry", "tarsconfig"] {
        container.behave(service, "");
    }
    container.await_words("healthy: 11 services");
    for (service, before) in ["tarsregistry", "tarsconfig"].into_iter().zip(before) {
        let words = format!(
            "{service} lives and has never answered in 2 s, while the database does: started again (1 of 3)"
        );
        assert_eq!(container.log().matches(&words).count(), 1, "{}", container.log());
        let now = container.processes(service);
        assert!(now.len() == 1 && now[0] != before, "{service}: {before} before, {now:?} now");
    }
    assert!(!container.log().contains("is gone"), "{}", container.log());
    assert_eq!(container.call(&["health"]).status.code(), Some(0));
}

#[test]
fn service_that_has_answered_and_hangs_is_said_to_be_silent_and_not_killed() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    container.set("TARSUP_ANSWER_TIMEOUT", "1").start();
    container.await_words("healthy:");
    let silent = container.processes("tarsconfig");
    kill(silent[0], Signal::SIGSTOP).unwrap();
    let words = "tarsconfig has answered before and is silent now: unhealthy, not started again";
    container.await_words(words);
    assert_eq!(container.call(&["health"]).status.code(), Some(1));
    // Another one, silent for long enough after it: the first has been looked at again and again meanwhile.
    let second = container.processes("tarspatch");
    kill(second[0], Signal::SIGSTOP).unwrap();
    container.await_words("tarspatch has answered before and is silent now");
    assert_eq!(container.log().matches(words).count(), 1, "{}", container.log());
    assert_eq!((container.processes("tarsconfig"), container.processes("tarspatch")), (silent, second));
    for service in ["tarsconfig", "tarspatch"] {
        kill(container.processes(service)[0], Signal::SIGCONT).unwrap();
    }
}

#[test]
fn nothing_that_hangs_is_started_again_while_the_database_is_away() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    container.behave("tarsconfig", "mute");
    container.set("TARSUP_ANSWER_TIMEOUT", "4").start();
    await_port(&container, 18193);
    drop(server);
    let before = container.processes("tarsconfig");
    container.await_words("tarsconfig has not answered since its start, nor does the database: left alone");
    assert_eq!(container.processes("tarsconfig"), before);
    assert!(!container.log().contains("started again"), "{}", container.log());
}

#[test]
fn service_that_hangs_is_left_alone_where_an_administrator_stopped_it_or_its_files_just_changed() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    for service in ["tarsAdminRegistry", "tarsconfig", "tarspatch"] {
        container.behave(service, "mute");
    }
    container.set("TARSUP_ANSWER_TIMEOUT", "2").start();
    for port in [12000, 18193, 18793] {
        await_port(&container, port);
    }
    let update =
        "UPDATE db_tars.t_server_conf SET setting_state = 'inactive' WHERE server_name = 'tarsconfig'";
    server.run(&[update]);
    fs::write(container.path("usr/local/app/tars/tarspatch/bin/published"), "").unwrap();
    // What tarsnode writes at each start is no publication.
    fs::write(container.path("usr/local/app/tars/tarsAdminRegistry/bin/tars_start.sh"), "").unwrap();
    let before = [container.processes("tarsconfig"), container.processes("tarspatch")];
    container.await_words("tarsAdminRegistry lives and has never answered in 4 s");
    assert_eq!([container.processes("tarsconfig"), container.processes("tarspatch")], before);
    assert_eq!(container.log().matches("started again (").count(), 2, "{}", container.log());
}

#[test]
fn web_console_that_lives_and_never_answers_is_started_again() {
    let server = Server::start();
    let mut master = Container::framework(&server);
    make_program(&master.path("usr/local/app/web/bin/www"), "");
    let node = master.path("nodejs/node");
    // The first one hangs.
    let program = "#!/usr/bin/perl\nuse IO::Socket::INET;\nmy $mark = \"$0.hung\";\nmy $first = !-e $mark;\n\
                   open my $m, '>', $mark;\nmy $s = IO::Socket::INET->new(LocalAddr => $ENV{DOMAIN}, LocalPort => 3000, \
                   Listen => 8, ReuseAddr => 1) or die;\nsleep 1000 if $first;\nwhile (my $c = $s->accept) { sysread $c, \
                   my $r, 4096; syswrite $c, \"HTTP/1.1 302 Found\\r\\n\\r\\n\"; close $c }\n";
    make_program(&node, program);
    master.set("PATH", format!("{}:/usr/bin:/bin", node.parent().unwrap().display()));
    master.set("TARSUP_ANSWER_TIMEOUT", "1").start();
    master.await_words("web lives and has never answered in 1 s");
    let begun = Instant::now();
    while master.call(&["health"]).status.code() != Some(0) {
        assert!(begun.elapsed() < Duration::from_secs(30), "{}", master.log());
    }
    assert!(!master.log().contains("(2 of 3)"), "{}", master.log());
}
