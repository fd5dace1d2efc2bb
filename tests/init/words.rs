//! What a start says of a database that is not as it should be.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use crate::container::Container;
use crate::server::Server;

/// Something that takes connections and answers each with these bytes; then it closes them, or says nothing more.
fn listener(greeting: &'static [u8], closes: bool) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            let _ = client.write_all(greeting);
            if !closes {
                thread::spawn(move || {
                    let _ = client.read(&mut [0; 1]);
                });
            }
        }
    });
    port
}

#[test]
fn refused_account_is_said_at_once() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    container.set("MYSQL_ROOT_PASSWORD", "wrong-secret").set("TARSUP_DATABASE_TIMEOUT", "5");
    let begun = Instant::now();
    container.start();
    container.await_words("the server refuses the account root: Access denied for user 'root'@'127.0.0.1'");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(container.await_end().code(), Some(69));
    let log = container.log();
    assert_eq!(log.matches("the server refuses the account root").count(), 2, "at first and at last: {log}");
    assert!(!log.contains("wrong-secret") && !log.contains("ERROR"), "{log}");
    // Servers lock accounts after so many attempts: some three in five seconds, and one over TLS.
    let attempts = server.counter("Access_denied_errors");
    assert!((3..=5).contains(&attempts), "{attempts}");
}

#[test]
fn server_that_never_greets_is_said_after_a_few_seconds() {
    let mut container = Container::framework(&Server::start());
    container.set("MYSQL_PORT", listener(b"", false).to_string());
    let begun = Instant::now();
    container.start();
    container.await_words("waiting for the database's greeting: nothing came within 4 s");
    assert!(begun.elapsed() < Duration::from_secs(7), "{:?}", begun.elapsed());
}

#[test]
fn what_is_no_server_is_said_in_words() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    container.set("TARSUP_DATABASE_TIMEOUT", "1");
    for (greeting, words) in [
        (&b""[..], "the connection was closed by its other end"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak as a MySQL server does"),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", "does not speak as a MySQL server does"),
        (b"\x02\x00\x00\x00\x09x", "does not speak as a MySQL server does"),
    ] {
        container.set("MYSQL_PORT", listener(greeting, true).to_string());
        assert_eq!(container.run_to_end().code(), Some(69));
        let log = container.log();
        assert!(log.contains(words), "{words}: {log}");
        assert!(!log.contains("Codec") && !log.contains("Error") && !log.contains("IO error"), "{log}");
    }
}

#[test]
fn second_living_master_is_warned_of_and_a_slave_is_not() {
    let server = Server::start();
    let (mut first, mut slave) = (Container::framework(&server), Container::framework(&server));
    first.run_once();
    slave.set("SLAVE", "true").run_once();
    let lives = |host: &str, age: u32| {
        server.run(&[&format!(
            "INSERT INTO db_tars.t_registry_info (servant, endpoint, last_heartbeat, present_state) VALUES \
             ('tars.tarsregistry.QueryObj', 'tcp -h {host} -t 60000 -p 17890', NOW() - INTERVAL {age} SECOND, 'active')"
        )]);
    };
    let warned = |log: &str| log.matches("another master lives at").count();
    lives(&first.address, 900);
    lives(&slave.address, 5);
    let mut second = Container::framework(&server);
    assert_eq!(warned(&second.run_once()), 0, "one master is gone, and a slave is none");
    lives(&first.address, 5);
    let log = second.run_once();
    assert_eq!(warned(&log), 1, "{log}");
    assert!(log.contains(&format!("another master lives at {}", first.address)), "{log}");
    assert_eq!(warned(&first.run_once()), 0, "it is no other than itself");
    assert_eq!(warned(&slave.run_once()), 0, "a slave says nothing of it");
}
