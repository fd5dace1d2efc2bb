//! What the database says of the cluster, without what moves by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::e2e::deployment::{Deployment, wait_for};

/// The tables that hold the cluster, each with what tells its rows apart and the columns that a registration, a
/// heartbeat, a web console or the clock moves.
const TABLES: [(&str, &[&str], &[&str]); 3] = [
    (
        "t_server_conf",
        &["application", "server_name", "node_name"],
        &[
            "id",
            "registry_timestamp",
            "present_state",
            "process_id",
            "posttime",
            "patch_time",
            // What tarsnode reports of a program once it runs: the library's version.
            "tars_version",
            "sha",
        ],
    ),
    (
        "t_adapter_conf",
        &["application", "server_name", "node_name", "adapter_name"],
        &["id", "registry_timestamp", "posttime"],
    ),
    (
        "t_node_info",
        &["node_name"],
        &[
            "id",
            "last_reg_time",
            "last_heartbeat",
            "modify_time",
            "present_state",
            "load_avg1",
            "load_avg5",
            "load_avg15",
            "tars_version",
            // What a registration of tarsnode resets.
            "group_id",
            "label",
            "endpoint_ip",
            "endpoint_port",
        ],
    ),
];

/// Row → column → value.
pub type Rows = BTreeMap<String, BTreeMap<String, String>>;

/// The rows of servers, adapters and nodes; `patch_version` is left out where versions do not count.
pub fn rows(deployment: &Deployment, versions: bool) -> Rows {
    let mut rows = Rows::new();
    for (table, keys, moving) in TABLES {
        let columns = deployment.query(&format!(
            "SELECT column_name FROM information_schema.columns WHERE table_schema = 'db_tars' AND table_name = '{table}' \
             ORDER BY ordinal_position"
        ));
        let columns: Vec<&str> = columns
            .lines()
            .filter(|column| !moving.contains(column) && (versions || *column != "patch_version"))
            .collect();
        let key = format!("CONCAT_WS('.', {})", keys.join(", "));
        let found =
            deployment.query(&format!("SELECT {key}, `{}` FROM db_tars.{table}", columns.join("`, `")));
        for line in found.lines() {
            let mut values = line.split('\t').map(str::to_owned);
            let name = format!("{table} {}", values.next().unwrap_or_default());
            rows.insert(name, columns.iter().map(|&column| column.to_owned()).zip(values).collect());
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
