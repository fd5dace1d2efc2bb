//! Each single statement of a first boot, a migration and an ordinary start meets a fault, and the outcome is the same: every
//! table, column and row, none twice.

use crate::container::Container;
use crate::proxy::{FAULTS, Fault, Proxy};
use crate::server::Server;

/// The statements that meet a fault, with the faults. `TARSUP_EVERY=1` (tests/long.sh) is each statement with each fault, else
/// it is every tenth from a place that differs from run to run, each with the next fault. `TARSUP_SEED` brings a run back.
/// `TARSUP_PART=2 TARSUP_PARTS=4`: of those the second of every four, so that machines can share them.
fn points(what: &str, statements: u32) -> Vec<(u32, Fault)> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    let stride = number("TARSUP_EVERY").unwrap_or(10).max(1);
    let drawn = || {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |now| now.subsec_micros())
    };
    let seed = number("TARSUP_SEED").unwrap_or_else(drawn) % 1000;
    eprintln!("{what}: {statements} statements (TARSUP_EVERY={stride} TARSUP_SEED={seed})");
    let chosen = (seed % stride..statements).step_by(stride as usize);
    let faults = |number: u32| -> Vec<Fault> {
        match stride {
            1 => FAULTS.to_vec(),
            _ => vec![FAULTS[((number / stride + seed) % 6) as usize]],
        }
    };
    let (part, parts) = (number("TARSUP_PART").unwrap_or(1), number("TARSUP_PARTS").unwrap_or(1).max(1));
    assert!((1..=parts).contains(&part), "there is no part {part} of {parts}");
    let chosen = chosen.filter(move |number| number % parts == part - 1);
    chosen.flat_map(|number| faults(number).into_iter().map(move |fault| (number, fault))).collect()
}

/// How many statements a start or migration sends, and what is there afterwards.
fn undisturbed(server: &Server, container: &mut Container, run: fn(&mut Container)) -> (u32, Vec<String>) {
    let proxy = Proxy::counting(server.port);
    container.set("MYSQL_PORT", proxy.port.to_string());
    run(container);
    (proxy.statements(), server.shape())
}

/// The same with a fault. A process that waits for ever is killed, and its successor does the work.
fn disturbed(
    server: &Server,
    container: &mut Container,
    (number, fault): (u32, Fault),
    run: fn(&mut Container),
) {
    let proxy = Proxy::at(server.port, number, fault);
    container.set("MYSQL_PORT", proxy.port.to_string());
    if fault == Fault::Held {
        container.begin();
        proxy.await_cut();
        container.kill();
        container.set("MYSQL_PORT", server.port.to_string());
    }
    run(container);
    assert_eq!(proxy.cuts(), 1, "statement {number}, {fault:?}");
}

/// Up to the first service: what comes after it is no longer the start.
fn boot(container: &mut Container) {
    container.start();
    container.await_words("] starting ");
    assert_eq!(container.stop().code(), Some(0), "{}", container.log());
}

fn migrate(container: &mut Container) {
    container.start_with("migrate");
    assert_eq!(container.await_end().code(), Some(0), "{}", container.log());
}

#[test]
fn first_boot_with_a_fault_at_any_statement_installs_everything_once() {
    let server = Server::start();
    let (statements, whole) = undisturbed(&server, &mut Container::framework(&server), boot);
    for point in points("a first boot", statements) {
        server.clear();
        disturbed(&server, &mut Container::framework(&server), point, boot);
        assert_eq!(server.shape(), whole, "{point:?}");
    }
}

#[test]
fn ordinary_start_with_a_fault_at_any_statement_changes_nothing() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    boot(&mut container);
    let before = server.everything();
    let (statements, whole) = undisturbed(&server, &mut container, boot);
    assert_eq!(server.everything(), before);
    for point in points("an ordinary start", statements) {
        disturbed(&server, &mut container, point, boot);
        assert_eq!(server.everything(), before, "{point:?}");
        assert_eq!(server.shape(), whole, "{point:?}");
    }
}

#[test]
fn migration_with_a_fault_at_any_statement_adds_everything_once() {
    let server = Server::start();
    let mut container = Container::framework(&server).migrating();
    let age = |container: &mut Container| {
        container.set("MYSQL_PORT", server.port.to_string()).set("TARSUP_VERSION", "3.0.17");
        migrate(container);
        container.set("TARSUP_VERSION", "3.0.18");
        server.run(&[
            "ALTER TABLE db_tars.t_server_conf DROP COLUMN run_type, DROP COLUMN sha",
            "DROP TABLE db_tars.t_registry_info",
            "DELETE FROM db_tars.t_profile_template WHERE template_name = 'tars.framework-db'",
            "DROP DATABASE db_base",
        ]);
    };
    age(&mut container);
    let (statements, whole) = undisturbed(&server, &mut container, migrate);
    for point in points("a migration", statements) {
        server.clear();
        age(&mut container);
        disturbed(&server, &mut container, point, migrate);
        assert_eq!(server.shape(), whole, "{point:?}");
        // An older version is told of it, wherever the run was cut.
        let told =
            server.number("SELECT COUNT(*) FROM tarsup.t_version WHERE version = '3.0.18' AND changed <> ''");
        assert_eq!(told, 1, "{point:?}");
    }
}
