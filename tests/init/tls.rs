//! TLS to a real server that has a certificate of a CA of the test's own.

use crate::certificates::Certificates;
use crate::container::Container;
use crate::server::Server;

/// A server with this certificate.
fn server(certificates: &Certificates) -> Server {
    Server::start_with(&[
        format!("--ssl-ca={}", certificates.path("ca.pem")),
        format!("--ssl-cert={}", certificates.path("server.pem")),
        format!("--ssl-key={}", certificates.path("key.pem")),
    ])
}

/// The administrator's account that is let in over TLS alone.
const DBA: &str = "CREATE USER dba@'127.0.0.1' IDENTIFIED BY 'pw-of-the-dba' REQUIRE SSL";
const RIGHTS: &str = "GRANT ALL ON *.* TO dba@'127.0.0.1' WITH GRANT OPTION";

fn container(server: &Server) -> Container {
    server.run(&[DBA, RIGHTS]);
    let mut container = Container::framework(server);
    container.set("MYSQL_USER", "dba").set("MYSQL_ROOT_PASSWORD", "pw-of-the-dba");
    container.set("TARSUP_DATABASE_TIMEOUT", "1");
    container
}

#[test]
fn account_that_must_come_over_tls_does_so_with_the_servers_ca() {
    let certificates = Certificates::of("127.0.0.1");
    let server = server(&certificates);
    let mut container = container(&server);
    assert_eq!(container.run_to_end().code(), Some(69));
    let log = container.log();
    assert!(log.contains("the server lets the account dba in over TLS alone: name its CA's"), "{log}");
    container.set("MYSQL_SSL_CA", certificates.path("ca.pem")).set("TARSUP_DATABASE_TIMEOUT", "30");
    container.start();
    container.await_words("healthy:");
    assert_eq!(container.call(&["health"]).status.code(), Some(0));
    assert_eq!(container.call(&["cluster", "--json"]).status.code(), Some(0));
    container.stop();
}

#[test]
fn encryption_alone_takes_any_certificate() {
    let certificates = Certificates::of("another.host");
    let server = server(&certificates);
    let mut container = container(&server);
    container.set("MYSQL_SSL", "required");
    container.run_once();
}

#[test]
fn certificate_of_another_ca_or_for_another_host_is_refused_in_one_sentence() {
    for (name, ca_of) in [("127.0.0.1", "127.0.0.1"), ("another.host", "")] {
        let certificates = Certificates::of(name);
        let other = Certificates::of(ca_of);
        let server = server(&certificates);
        let mut container = container(&server);
        let ca = if ca_of.is_empty() { certificates.path("ca.pem") } else { other.path("ca.pem") };
        container.set("MYSQL_SSL_CA", ca);
        assert_eq!(container.run_to_end().code(), Some(69), "{}", container.log());
        let log = container.log();
        assert!(log.contains("TLS with the server fails: invalid peer certificate"), "{log}");
        assert!(log.contains("signed by the CA of MYSQL_SSL_CA") && !log.contains("Error"), "{log}");
        assert_eq!(server.everything(), [], "{name}");
    }
}

#[test]
fn server_that_demands_tls_says_so_in_one_sentence_and_gets_it() {
    let certificates = Certificates::of("127.0.0.1");
    let server = server(&certificates);
    let mut container = container(&server);
    // With an account that is not bound to TLS itself.
    server.run(&["ALTER USER dba@'127.0.0.1' REQUIRE NONE", "SET GLOBAL require_secure_transport = ON"]);
    assert_eq!(container.run_to_end().code(), Some(69));
    let log = container.log();
    assert!(
        log.contains("the server lets the account dba in over TLS alone: name its CA's certificate"),
        "{log}"
    );
    container.set("MYSQL_SSL_CA", certificates.path("ca.pem"));
    let log = container.run_once();
    assert!(log.contains("TARS's services speak none"), "{log}");
}

#[test]
fn server_without_tls_and_a_demand_for_it_is_one_sentence() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    container.set("MYSQL_SSL", "required").set("TARSUP_DATABASE_TIMEOUT", "1");
    assert_eq!(container.run_to_end().code(), Some(69));
    assert!(container.log().contains("the server offers no TLS"), "{}", container.log());
    container.set("MYSQL_SSL", "").set("MYSQL_SSL_CA", "/nowhere/ca.pem");
    assert_eq!(container.run_to_end().code(), Some(64));
    assert!(container.log().contains("/nowhere/ca.pem"), "{}", container.log());
}
