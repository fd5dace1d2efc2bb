//! What the database says of the cluster, without what moves by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::tables::Tables;
use crate::e2e::deployment::{Deployment, wait_for};

/// The tables that hold the cluster, each with what tells its rows apart.
const TABLES: [(&str, &[&str]); 3] = [
    ("t_server_conf", &["application", "server_name", "node_name"]),
    ("t_adapter_conf", &["application", "server_name", "node_name", "adapter_name"]),
    ("t_node_info", &["node_name"]),
];

/// Row → column → value.
pub type Rows = BTreeMap<String, BTreeMap<String, String>>;

/// The rows of servers, adapters and nodes; `patch_version` is left out where versions do not count.
pub fn rows(deployment: &Deployment, versions: bool) -> Rows {
    let is_one = |name: &str| TABLES.iter().any(|(table, _)| name == format!("db_tars.{table}"));
    let all = Tables::read_those(&|sql| deployment.query(sql), is_one);
    let mut rows = Rows::new();
    for (table, keys) in TABLES {
        for mut row in all.of(&format!("db_tars.{table}")) {
            let name: Vec<&str> = keys.iter().map(|key| row[*key].as_str()).collect();
            let name = format!("{table} {}", name.join("."));
            if !versions {
                row.remove("patch_version");
            }
            rows.insert(name, row);
        }
    }
    rows
}

/// What differs between two states of the rows, for people.
pub fn difference(before: &Rows, after: &Rows) -> String {
    let mut told = String::new();
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    for name in names {
        match (before.get(name), after.get(name)) {
            (Some(was), Some(is)) => {
                for (column, value) in was.iter().filter(|(column, value)| is.get(*column) != Some(value)) {
                    let _ = writeln!(told, "{name}: {column} was {value:?}, is {:?}", is.get(column));
                }
                for column in is.keys().filter(|column| !was.contains_key(*column)) {
                    let _ = writeln!(told, "{name}: {column} is new");
                }
            }
            (Some(_), None) => _ = writeln!(told, "{name}: is gone"),
            _ => _ = writeln!(told, "{name}: is new"),
        }
    }
    told
}

/// Waits until every node is registered and says that it lives.
#[track_caller]
pub fn wait_for_nodes(deployment: &Deployment, nodes: usize) {
    let query = "SELECT COUNT(*) FROM db_tars.t_node_info WHERE present_state = 'active'";
    wait_for("every node to be active in the database", || {
        deployment.query(query).trim() == nodes.to_string()
    });
}
