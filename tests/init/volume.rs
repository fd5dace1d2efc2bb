//! Volumes that are full, or belong to another deployment, and a database with another time.

use std::fs;
use std::process::Command;

use crate::container::Container;
use crate::server::Server;

/// A small file system in the volume's place, as long as this lives.
struct Small {
    at: std::path::PathBuf,
}

impl Small {
    fn below(container: &Container, size: &str) -> Self {
        let at = container.path("data/tars");
        fs::create_dir_all(&at).unwrap();
        let options = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&at).status();
        assert!(mounted.unwrap().success(), "a file system needs root");
        Self { at }
    }

    fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        let done = Command::new("mount").args(["-o", &options]).arg(&self.at).status();
        assert!(done.unwrap().success(), "{options}");
    }

    /// Writes until nothing more fits.
    fn fill(&self) {
        let mut file = fs::File::create(self.at.join("filler")).unwrap();
        while std::io::Write::write_all(&mut file, &[0; 4096]).is_ok() {}
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}

#[test]
fn volume_without_room_ends_with_78_and_nothing_is_asked_of_the_database() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    let small = Small::below(&container, "256k");
    small.fill();
    assert_eq!(container.run_to_end().code(), Some(78), "{}", container.log());
    let log = container.log();
    assert!(
        log.contains("data/tars is full: it has no room for 64 KiB") && log.contains("Make room"),
        "{log}"
    );
    assert_eq!(server.everything(), []);
    // With room it goes on.
    fs::remove_file(container.path("data/tars/filler")).unwrap();
    container.run_once();
    assert!(!small.at.join(".tars-init-room").exists());
}

#[test]
fn volume_that_takes_no_change_ends_with_78_and_nothing_is_asked_of_the_database() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    let small = Small::below(&container, "1m");
    small.remount("ro");
    assert_eq!(container.run_to_end().code(), Some(78), "{}", container.log());
    assert!(container.log().contains("data/tars is read-only"), "{}", container.log());
    assert_eq!(server.everything(), []);
    small.remount("rw");
    container.run_once();
}

#[test]
fn volume_that_fills_while_services_run_is_named_once_where_one_dies() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    let small = Small::below(&container, "1m");
    container.start();
    container.await_words("healthy:");
    assert!(!container.log().contains("is full"), "{}", container.log());
    small.fill();
    container.crash("tarsregistry");
    container.await_words("data/tars is full, with 0 bytes left");
    container.await_words("tarsregistry is gone");
    fs::remove_file(container.path("data/tars/filler")).unwrap();
    container.await_successor("tarsregistry", &[]);
    assert_eq!(container.log().matches("is full").count(), 1, "{}", container.log());
    assert_eq!(container.stop().code(), Some(0));
}

#[test]
fn volume_without_a_file_left_is_named_where_a_service_dies() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    let small = Small::below(&container, "1m");
    container.start();
    container.await_words("healthy:");
    // As many as there are.
    let found = nix::sys::statvfs::statvfs(&small.at).unwrap();
    small.remount(&format!("nr_inodes={}", found.files() - found.files_free()));
    container.crash("tarsregistry");
    container.await_words("data/tars is full: it takes no file more");
    assert_eq!(container.stop().code(), Some(0));
}

#[test]
fn volume_of_another_deployment_is_said_and_no_row_of_others_changes() {
    let (first, second) = (Server::start(), Server::start());
    let mut container = Container::framework(&first);
    container.run_once();
    container.run_once();
    let mut other = Container::framework(&second);
    other.run_once();
    let of_other = format!(
        "SELECT CONCAT_WS(' ', c.*) FROM db_tars.t_server_conf c WHERE node_name = '{}'",
        other.address
    )
    .replace("c.*", "id, server_name, setting_state, tars_version, patch_version");
    let before: Vec<String> = second.rows(&of_other);
    container.set("MYSQL_PORT", second.port.to_string());
    let log = container.run_once();
    assert!(log.contains("another database server than at the last start"), "{log}");
    assert_eq!(second.rows::<String>(&of_other), before);
    assert_eq!(second.number("SELECT COUNT(*) FROM db_tars.t_node_info"), 2);
}

#[test]
fn empty_volume_with_a_full_database_goes_on_with_its_rows() {
    let server = Server::start();
    let mut container = Container::framework(&server);
    container.set("TARS_ADMIN_PASSWORD", "Own-2026").run_once();
    server.run(&["UPDATE db_tars.t_adapter_conf SET thread_num = 77"]);
    let before = server.shape();
    let mut anew = Container::framework(&server);
    anew.set("DOMAIN", &container.address).set("TARS_ADMIN_PASSWORD", "Own-2026");
    anew.address.clone_from(&container.address);
    let log = anew.run_once();
    assert!(!log.contains("creating it") && !log.contains("warning"), "{log}");
    assert_eq!(server.shape(), before);
    assert_eq!(server.number("SELECT COUNT(*) FROM db_tars.t_adapter_conf WHERE thread_num <> 77"), 0);
}

#[test]
fn database_with_another_time_is_no_obstacle_and_times_are_its_own() {
    for zone in ["+13:00", "-12:00"] {
        let server = Server::start_with(&[&format!("--default-time-zone={zone}")]);
        let mut master = Container::framework(&server);
        master.run_once();
        let before = server.everything();
        // tarslog lives elsewhere, by the time of the database alone.
        server.run(&[
            "INSERT INTO db_tars.t_node_info (node_name, last_reg_time, last_heartbeat) VALUES ('10.9.9.9', now(), now())",
            "UPDATE db_tars.t_server_conf SET node_name = '10.9.9.9' WHERE server_name = 'tarslog'",
            "INSERT INTO db_tars.t_registry_info (servant, endpoint, last_heartbeat, present_state) VALUES \
             ('tars.tarsregistry.QueryObj', 'tcp -h 10.9.9.9 -p 17890', now(), 'active')",
        ]);
        master.start();
        master.await_words("healthy: 10 services");
        let conf =
            fs::read_to_string(master.path("usr/local/app/tars/tarsnode/conf/tars.tarsnode.config.conf"));
        assert!(conf.unwrap().contains("10.9.9.9"), "a registry that lives by the database's time");
        assert_eq!(master.stop().code(), Some(0));
        server.run(&[
            "DELETE FROM db_tars.t_node_info WHERE node_name = '10.9.9.9'",
            "DELETE FROM db_tars.t_registry_info",
        ]);
        let back = format!(
            "UPDATE db_tars.t_server_conf SET node_name = '{}' WHERE server_name = 'tarslog'",
            master.address
        );
        server.run(&[&back]);
        master.run_once();
        assert_eq!(server.everything(), before, "{zone}");
    }
}
