//! With upstream's own configuration, SQL and templates, where they lie beside the project.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::container::Container;
use crate::server::Server;

/// Upstream's data; `None`, said loudly, where it is not there. The fixture covers the same ground.
fn upstream() -> Option<PathBuf> {
    let shared = std::env::var_os("TARSUP_SHARED")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let folder = shared.join("tars/framework");
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!(
        "LEFT OUT: {} is not there; set TARSUP_SHARED to test with upstream's own data",
        folder.display()
    );
    None
}

fn container_with_upstreams_data(server: &Server, upstream: &std::path::Path) -> Container {
    let container = Container::framework(server);
    let deploy = container.path("usr/local/tars/cpp/deploy/framework");
    fs::remove_dir_all(&deploy).unwrap();
    fs::create_dir_all(&deploy).unwrap();
    for folder in ["conf", "sql"] {
        let copied = Command::new("cp").arg("-r").arg(upstream.join(folder)).arg(&deploy).status().unwrap();
        assert!(copied.success());
    }
    let opened = Command::new("chmod").args(["-R", "u+w"]).arg(&deploy).status().unwrap();
    assert!(opened.success());
    container
}

#[test]
fn upstreams_sql_and_templates_install_a_real_server() {
    let Some(upstream) = upstream() else { return };
    let server = Server::start();
    let mut container = container_with_upstreams_data(&server, &upstream);
    let log = container.run_once();
    assert!(log.lines().count() <= 25, "{log}");
    let tables: Vec<(String, u64)> = server.rows(
        "SELECT table_schema, COUNT(*) FROM information_schema.tables WHERE table_schema LIKE 'db\\_%' GROUP BY 1 \
         ORDER BY 1",
    );
    let tables: Vec<_> = tables.iter().map(|(schema, count)| (schema.as_str(), *count)).collect();
    assert_eq!(
        tables,
        [("db_base", 6), ("db_cache_web", 11), ("db_tars", 19), ("db_tars_web", 6), ("db_user_system", 5)]
    );
    let templates = fs::read_dir(upstream.join("sql/template")).unwrap().count() as u64;
    assert_eq!(server.number("SELECT COUNT(*) FROM db_tars.t_profile_template"), templates);
    let children: Vec<String> = server.rows(
        "SELECT template_name FROM db_tars.t_profile_template WHERE parents_name = 'tars.framework-db' ORDER BY 1",
    );
    assert_eq!(children.len(), 8, "{children:?}");
    let marks = "SELECT COUNT(*) FROM db_tars.t_profile_template WHERE profile LIKE '%TARS_PATH%' OR profile LIKE \
                 '%UPLOAD_PATH%' OR profile LIKE '%db.tars.com%' OR profile LIKE '%tars2015%'";
    assert_eq!(server.number(marks), 0);
    let comment: String = server
        .rows("SELECT table_comment FROM information_schema.tables WHERE table_name = 't_application'")
        .remove(0);
    assert_eq!(comment, "应用");
    for column in ["run_type", "base_image_id", "sha"] {
        let query = format!(
            "SELECT COUNT(*) FROM information_schema.columns WHERE table_name = 't_server_conf' AND column_name = '{column}'"
        );
        assert_eq!(server.number(&query), 1, "{column}");
    }
}

#[test]
fn upstreams_rows_and_configuration_carry_this_node_and_no_placeholder() {
    let Some(upstream) = upstream() else { return };
    let server = Server::start();
    let mut container = container_with_upstreams_data(&server, &upstream);
    container.run_once();
    let address = container.address.clone();
    let rows = format!("SELECT COUNT(*) FROM db_tars.t_server_conf WHERE node_name = '{address}'");
    assert_eq!(server.number(&rows), 10);
    let endpoints =
        format!("SELECT COUNT(*) FROM db_tars.t_adapter_conf WHERE endpoint LIKE 'tcp -h {address} %'");
    assert_eq!(server.number(&endpoints), 12, "tarsregistry has two, tarslog a second that is not pinged");
    let node: Vec<(String, String)> = server.rows("SELECT node_name, node_obj FROM db_tars.t_node_info");
    assert_eq!(
        node,
        [(address.clone(), format!("tars.tarsnode.NodeObj@tcp -h {address} -p 19385 -t 60000"))]
    );
    for service in tarsup::tars::Service::ALL {
        let path = container.path(&format!("usr/local/app/tars/{service}/conf/tars.{service}.config.conf"));
        let text = fs::read_to_string(&path).unwrap();
        for mark in ["tars.com", "registryAddress", "TARS_PATH", "UPLOAD_PATH", "tars2015", "dbuser=tars\n"] {
            assert!(!text.contains(mark), "{service} still has {mark}");
        }
    }
    let before = server.everything();
    container.run_once();
    assert_eq!(server.everything(), before, "a second start changed something");
}
