//! Services of the framework that end on their own: who brings back which, and who is left alone.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};

use crate::container::Container;
use crate::health::await_health;
use crate::server::Server;

const STAT: &str = "usr/local/app/tars/tarsstat/bin";

fn healthy(server: &Server) -> Container {
    let mut container = Container::framework(server);
    container.start();
    container.await_words("healthy:");
    container
}

#[test]
fn service_that_crashed_and_tarsnode_does_not_bring_back_is_started_with_its_configuration() {
    let server = Server::start();
    let mut container = healthy(&server);
    // What tarsnode made of the templates wins over the image's.
    let generated = container.path("usr/local/app/tars/tarsnode/data/tars.tarsstat/conf");
    fs::create_dir_all(&generated).unwrap();
    let name = "tars.tarsstat.config.conf";
    fs::copy(container.path("usr/local/app/tars/tarsstat/conf").join(name), generated.join(name)).unwrap();
    let before = container.processes("tarsstat");
    let begun = Instant::now();
    container.crash("tarsstat");
    container.await_words("was killed by SIGKILL; tarsnode restarts it, or tars-init in 2 s");
    let pid = container.await_successor("tarsstat", &before);
    assert!(begun.elapsed() >= Duration::from_secs(2), "tarsnode has its time");
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    let line = String::from_utf8_lossy(&line).replace('\0', " ");
    assert!(line.contains("tarsnode/data/tars.tarsstat/conf/tars.tarsstat.config.conf"), "{line}");
    assert!(
        container.log().contains("tarsnode has not brought tarsstat back: started"),
        "{}",
        container.log()
    );
    assert_eq!(container.processes("tarsstat"), [pid], "one of it");
}

#[test]
fn service_that_crashes_in_its_start_comes_with_growing_pauses_and_its_words_are_shown() {
    let server = Server::start();
    let mut container = healthy(&server);
    container.behave("tarsconfig", "fail");
    container.crash("tarsconfig");
    container.await_words("exited with 255; tarsnode restarts it, or tars-init in 3 s");
    container.await_words("tarsconfig: cannot assign requested address");
    container.behave("tarsconfig", "");
    await_health(&container, 0, "healthy: 12 servants answer");
}

#[test]
fn service_that_exits_with_0_or_that_an_administrator_stopped_is_left_alone() {
    let server = Server::start();
    let mut container = healthy(&server);
    server
        .run(&["UPDATE db_tars.t_server_conf SET setting_state = 'inactive' WHERE server_name = 'tarslog'"]);
    let witness = container.processes("tarsnotify");
    container.crash("tarslog");
    kill(container.processes("tarsstat")[0], Signal::SIGTERM).unwrap();
    container.await_words("exited with 0; tarsnode restarts it\n");
    container.await_words("tarslog was stopped by an administrator: left alone");
    // One that crashed later is back: by then they would be, too.
    container.crash("tarsnotify");
    container.await_successor("tarsnotify", &witness);
    assert!(container.processes("tarsstat").is_empty() && container.processes("tarslog").is_empty());
}

#[test]
fn service_that_somebody_brings_back_in_time_gets_no_second_copy() {
    let server = Server::start();
    let mut container = healthy(&server);
    let program = container.path(STAT).join("tarsstat");
    let conf = container.path("usr/local/app/tars/tarsstat/conf/tars.tarsstat.config.conf");
    // As tarsnode does: a process of its own, below the container's PID 1 in the end. It waits for the crash itself,
    // however long this test is kept from going on.
    let crashed = container.processes("tarsstat")[0];
    container.run_below_init(&format!(
        "(while kill -0 {crashed}; do sleep 0.01; done; exec {} --config={}) >/dev/null 2>&1 &",
        program.display(),
        conf.display()
    ));
    container.crash("tarsstat");
    let pid = container.await_successor("tarsstat", &[crashed]);
    let witness = container.processes("tarsnotify");
    container.crash("tarsnotify");
    container.await_successor("tarsnotify", &witness);
    assert_eq!(container.processes("tarsstat"), [pid], "{}", container.log());
    // Nobody here started it, and its end is known all the same.
    kill(pid, Signal::SIGKILL).unwrap();
    container.await_words(&format!("tarsstat (pid {pid}) was killed by SIGKILL"));
    container.await_successor("tarsstat", &[pid]);
}

#[test]
fn service_whose_files_have_just_changed_is_left_to_its_publisher() {
    let server = Server::start();
    let mut container = healthy(&server);
    let witness = container.processes("tarslog");
    fs::write(container.path(STAT).join("tarsstat.new"), "published").unwrap();
    // What tarsnode writes at each start is no publication.
    fs::write(container.path("usr/local/app/tars/tarslog/bin/tars_start.sh"), "").unwrap();
    fs::write(container.path("usr/local/app/tars/tarslog/bin/tars_start.sh.pid"), "").unwrap();
    container.crash("tarsstat");
    container.crash("tarslog");
    container.await_words("tarsstat is not started yet: its files have just been changed");
    container.await_successor("tarslog", &witness);
    assert!(container.processes("tarsstat").is_empty());
}

#[test]
fn service_that_crashes_while_the_database_is_away_waits_for_its_word() {
    let server = Server::start();
    let mut container = healthy(&server);
    drop(server);
    container.crash("tarsstat");
    container.await_words("tarsstat is not started yet: the database does not say whether it is to run");
    assert!(container.processes("tarsstat").is_empty());
    assert_eq!(container.stop().code(), Some(0));
}
