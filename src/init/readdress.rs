//! `tars-init readdress OLD NEW`: a node that came back with another address gets its rows back. All tables that hold the
//! name, in one transaction; rows are moved, not doubled.

use std::collections::BTreeSet;

use serde::Serialize;

use super::database::{DB_TARS, DatabaseError, Server, Session};
use super::displaced;
use super::drain;
use super::environment::{Environment, ImageRole};
use super::failure::{Code, Failure};
use super::lock::{self, InstallLock};
use super::probe;

/// A table whose rows belong to nodes.
struct Table {
    name: &'static str,
    /// The column with the node's name.
    node: &'static str,
    /// With the node, what makes a row the only one of its kind; none where a second row does no harm.
    unique: &'static [&'static str],
    /// Columns with endpoints, such as `tcp -h NODE -t 60000 -p 1000`.
    endpoints: &'static [&'static str],
}

/// Upstream's `db_tars.sql`. Histories (`t_task_item`, notifications) say where something was, and stay.
const TABLES: [Table; 5] = [
    Table { name: "t_node_info", node: "node_name", unique: &[], endpoints: &["node_obj"] },
    Table {
        name: "t_server_conf",
        node: "node_name",
        unique: &["application", "server_name"],
        endpoints: &[],
    },
    Table {
        name: "t_adapter_conf",
        node: "node_name",
        unique: &["application", "server_name", "adapter_name"],
        endpoints: &["endpoint"],
    },
    Table {
        name: "t_config_files",
        node: "host",
        unique: &["server_name", "filename", "level", "set_name", "set_area", "set_group"],
        endpoints: &[],
    },
    Table {
        name: "t_machine_tars_info",
        node: "node_name",
        unique: &["application", "server_name"],
        endpoints: &[],
    },
];

/// What was moved, or would be.
#[derive(Debug, Serialize)]
struct Readdressed {
    old: String,
    new: String,
    dry_run: bool,
    tables: Vec<Moved>,
}

/// The rows of one table.
#[derive(Debug, Serialize)]
struct Moved {
    table: &'static str,
    #[serde(rename = "moved")]
    rows: u64,
    /// Rows that the new address had got meanwhile, in whose place the old ones come.
    replaced: u64,
}

/// Moves the rows of `old` to `new`, or tells which it would move.
pub fn run(old: &str, new: &str, dry_run: bool) -> Result<(), Failure> {
    let is_name = |name: &str| {
        !name.is_empty()
            && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '-' | '_'))
    };
    if old == new || !is_name(old) || !is_name(new) {
        let what = format!("`{old}` and `{new}` are not two addresses or names of nodes.");
        return Err(Failure::new(Code::Environment, what, "usage: tars-init readdress OLD NEW [--dry-run]"));
    }
    let environment = Environment::read(ImageRole::Framework)?;
    let server = Server::of(environment.account()?);
    let _lock = InstallLock::take(&server)?;
    let tables = readdress(&server, old, new, dry_run)?;
    let (old, new) = (old.to_owned(), new.to_owned());
    probe::print(&Readdressed { old, new, dry_run, tables }, true)
}

fn readdress(server: &Server, old: &str, new: &str, dry_run: bool) -> Result<Vec<Moved>, DatabaseError> {
    let mut session = lock::connect_to_work(server, DB_TARS)?;
    let columns = columns(&mut session)?;
    session.run("beginning to move rows", "START TRANSACTION")?;
    let mut moved = Vec::new();
    for table in TABLES {
        let has = |column: &str| columns.contains(&(table.name.to_owned(), column.to_owned()));
        if has(table.node) && table.unique.iter().all(|column| has(column)) {
            moved.push(table.readdress(&mut session, old, new, has)?);
        }
    }
    moved.push(registries(&mut session, old, new)?);
    displaced::readdress(&mut session, old, new)?;
    drain::readdress(&mut session, old, new)?;
    if !dry_run && moved.iter().all(|table| table.rows == 0) {
        session.run("ending without a change", "ROLLBACK")?;
        return Err(DatabaseError::Unfit(format!("no row of {DB_TARS} belongs to a node {old}")));
    }
    session.run("moving rows", if dry_run { "ROLLBACK" } else { "COMMIT" })?;
    moved.retain(|table| table.rows > 0 || table.replaced > 0);
    Ok(moved)
}

impl Table {
    fn readdress(
        &self,
        session: &mut Session,
        old: &str,
        new: &str,
        has: impl Fn(&str) -> bool,
    ) -> Result<Moved, DatabaseError> {
        let Self { name, node, .. } = self;
        let act = format!("moving the rows of {name}");
        // What a start under the new address made is younger than what an administrator set under the old one.
        let same: Vec<String> =
            self.unique.iter().map(|column| format!(" AND there.{column} <=> here.{column}")).collect();
        let same = same.concat();
        session.run_with(
            &act,
            &format!(
                "DELETE here FROM {name} here JOIN {name} there ON there.{node} = ?{same} WHERE here.{node} = ?"
            ),
            (old, new),
        )?;
        let replaced = changed(session)?;
        let endpoints: Vec<String> = self
            .endpoints
            .iter()
            .filter(|column| has(column))
            .map(|column| format!(", {column} = {}", readdressed(column)))
            .collect();
        let endpoints = endpoints.concat();
        let ip = if has("endpoint_ip") { ", endpoint_ip = IF(endpoint_ip = ?, ?, endpoint_ip)" } else { "" };
        let mut values: Vec<&str> = vec![new];
        let (from, to) = (format!("-h {old} "), format!("-h {new} "));
        for _ in self.endpoints.iter().filter(|column| has(column)) {
            values.extend([from.as_str(), to.as_str()]);
        }
        if !ip.is_empty() {
            values.extend([old, new]);
        }
        values.push(old);
        session.run_with(
            &act,
            &format!("UPDATE {name} SET {node} = ?{endpoints}{ip} WHERE {node} = ?"),
            values,
        )?;
        Ok(Moved { table: self.name, rows: changed(session)?, replaced })
    }
}

/// Registries bear the address in an id, `ADDRESS:PORT`, and write their row anew at each start.
fn registries(session: &mut Session, old: &str, new: &str) -> Result<Moved, DatabaseError> {
    let act = "moving the rows of t_registry_info";
    let mine = "locator_id LIKE CONCAT(?, ':%')";
    session.run_with(
        act,
        &format!(
            "DELETE here FROM t_registry_info here JOIN t_registry_info there ON there.{mine} AND there.servant = here.servant \
             WHERE here.{mine}"
        ),
        (old, new),
    )?;
    let replaced = changed(session)?;
    let set = format!("locator_id = REPLACE(locator_id, ?, ?), endpoint = {}", readdressed("endpoint"));
    session.run_with(
        act,
        &format!("UPDATE t_registry_info SET {set} WHERE {mine}"),
        (format!("{old}:"), format!("{new}:"), format!("-h {old} "), format!("-h {new} "), old),
    )?;
    Ok(Moved { table: "t_registry_info", rows: changed(session)?, replaced })
}

/// An address ends where a blank or the endpoint does: `172.25.0.3` is no part of `172.25.0.33`.
fn readdressed(column: &str) -> String {
    format!("TRIM(TRAILING ' ' FROM REPLACE(CONCAT({column}, ' '), ?, ?))")
}

fn changed(session: &mut Session) -> Result<u64, DatabaseError> {
    let rows: Vec<i64> = session.rows("counting what was changed", "SELECT ROW_COUNT()", ())?;
    Ok(rows.first().copied().and_then(|count| u64::try_from(count).ok()).unwrap_or_default())
}

fn columns(session: &mut Session) -> Result<BTreeSet<(String, String)>, DatabaseError> {
    let query = "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = ?";
    let rows: Vec<(String, String)> = session.rows("asking for the columns", query, (DB_TARS,))?;
    Ok(rows.into_iter().collect())
}
