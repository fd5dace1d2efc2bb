//! The node's rows: registered where they are missing, otherwise left as the administrator has them.
//!
//! Upstream's SQL replaces the rows at every start, which undoes a stop and every tuning, and deletes rows of other
//! nodes. Here `REPLACE` becomes an insert that keeps what exists, and `DELETE` is confined to this node.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::tars::{Role, Service};

use super::database::{DB_TARS, DatabaseError, Server, Session};
use super::displaced::{self, Occupant};
use super::environment::Endpoint;
use super::lock;
use super::paths::{self, Paths};
use super::schema;
use super::scripts::{LOG_FILE, RowScript};
use super::sql::{Statement, StatementKind, quote};

/// The framework's version in upstream's SQL.
const VERSION_MARK: &str = "2.1.0";
/// This node's address in upstream's SQL.
const ADDRESS_MARK: &str = "localip.tars.com";
/// What a new row of `t_node_info` says of a registration and a heartbeat that never were: tarsnode writes both, and a
/// rollout takes a registration that changed for its proof. Upstream's SQL writes `now()`.
const NEVER: &str = "1971-01-01 00:00:00";
/// A node whose heartbeat is older than this many seconds is gone: tarsregistry's own `nodeTimeout`.
const NODE_GONE: u32 = 250;

/// Who registers.
#[derive(Clone, Copy, Debug)]
pub struct Registrant<'a> {
    /// Master or slave.
    pub role: Role,
    /// Its address, the key of its rows.
    pub address: &'a str,
    /// What tells this container from others at that address.
    pub container: &'a str,
    /// The version of the image.
    pub version: Option<&'a str>,
    /// True at the first start of a container: its programs are the image's, so the rows say the image's version.
    pub is_new: bool,
    /// The services whose program is the image's own (all, at the first start): a publish through the web console
    /// replaces it, and gives the row a version of its own.
    pub unchanged: &'a BTreeSet<Service>,
}

/// Writes the rows of this node, all or none; those of tarslog only in a database that is new, as upstream does.
pub fn register(
    server: &Server,
    session: &mut Session,
    scripts: &[RowScript],
    node: Registrant<'_>,
    is_fresh: bool,
) -> Result<(), DatabaseError> {
    let with_log = node.role == Role::Master && (is_fresh || schema::wants_log_rows(session)?);
    let mut own = lock::connect_to_work(server, DB_TARS)?;
    if let Some(version) = node.version.filter(|_| node.is_new) {
        displaced::keep(&mut own, node.occupant(), version)?;
    }
    own.run("beginning to register the node", "START TRANSACTION")?;
    let was_there = is_there(&mut own, node.address)?;
    for RowScript { file, statements } in scripts {
        if *file == LOG_FILE && !with_log {
            continue;
        }
        for statement in statements {
            let Some(text) = node.text_to_send(statement) else { continue };
            match (
                &statement.kind,
                own.run(&format!("registering the node by {file}, line {}", statement.line), &text),
            ) {
                (StatementKind::Setting(_), Err(error)) if error.number().is_some() => {}
                (_, done) => done?,
            }
        }
    }
    if !was_there {
        own.run_with(
            "registering the node",
            "UPDATE t_node_info SET last_reg_time = ?, last_heartbeat = ? WHERE node_name = ?",
            (NEVER, NEVER, node.address),
        )?;
    }
    node.name_own_version(&mut own)?;
    if !node.is_new {
        let published = node.role.services().iter().filter(|service| !node.unchanged.contains(service));
        displaced::give_back(&mut own, node.occupant(), published.copied())?;
    }
    own.run("registering the node", "COMMIT")?;
    if with_log { schema::log_rows_written(session) } else { Ok(()) }
}

impl Registrant<'_> {
    fn occupant(&self) -> Occupant<'_> {
        Occupant { address: self.address, container: self.container }
    }

    /// A file of upstream's with this node's address, paths and version in place of its marks.
    pub fn substituted(&self, dump: &str, paths: &Paths) -> String {
        let dump = dump.replace(ADDRESS_MARK, self.address);
        let dump = dump.replace(crate::tars::catalogue::TARS_PATH, &paths::text(&paths.tars()));
        match self.version {
            Some(version) => dump.replace(VERSION_MARK, version),
            None => dump,
        }
    }

    /// What of a statement registers this node; `None` for what is left out.
    fn text_to_send(&self, statement: &Statement) -> Option<String> {
        match &statement.kind {
            StatementKind::Replace(rows) => Some(rows.kept(self.follows(&rows.table))),
            StatementKind::Delete(text) => Some(format!("{text} AND node_name = {}", quote(self.address))),
            StatementKind::Setting(text) | StatementKind::Insert(text) => Some(text.clone()),
            // The last three are refused in these files, and never come here.
            StatementKind::LeftOut
            | StatementKind::Transaction(_)
            | StatementKind::CreateTable { .. }
            | StatementKind::Add { .. } => None,
        }
    }

    /// After a rollback the rows still name the version that failed: a container that starts again says its own. And
    /// tarslog's rows, written once for a new database, follow no other statement.
    fn name_own_version(&self, session: &mut Session) -> Result<(), DatabaseError> {
        let Some(version) = self.version else { return Ok(()) };
        let act = "naming the version that runs";
        for service in self.unchanged {
            session.run_with(
                act,
                "UPDATE t_server_conf SET tars_version = ?, patch_version = ? WHERE application = 'tars' AND \
                 server_name = ? AND node_name = ? AND patch_version <> ?",
                (version, version, service.name(), self.address, version),
            )?;
        }
        if self.unchanged.contains(&Service::Node) {
            let query = "UPDATE t_node_info SET tars_version = ? WHERE node_name = ?";
            session.run_with(act, query, (version, self.address))?;
        }
        Ok(())
    }

    /// What of an existing row follows the image: nothing but its version, and that only in a new container.
    fn follows(&self, table: &str) -> Option<&'static str> {
        match (table, self.is_new) {
            ("t_server_conf", true) => Some(
                "tars_version = VALUES(tars_version), patch_version = VALUES(patch_version), \
                 exe_path = VALUES(exe_path)",
            ),
            ("t_node_info", true) => Some("tars_version = VALUES(tars_version)"),
            _ => None,
        }
    }
}

/// True where the node has its row in `t_node_info`.
fn is_there(session: &mut Session, address: &str) -> Result<bool, DatabaseError> {
    let query = "SELECT COUNT(*) FROM db_tars.t_node_info WHERE node_name = ?";
    Ok(session.number("asking for the node's row", query, (address,))? > 0)
}

/// A node's row in `t_node_info`, by the database's clock.
#[derive(Debug, Serialize)]
pub struct Registration {
    node: String,
    /// When its tarsnode registered last; nothing where none ever did.
    last_reg_time: Option<String>,
    /// When it was heard of last.
    last_heartbeat: Option<String>,
}

/// All nodes that the database knows.
pub fn registrations(session: &mut Session) -> Result<Vec<Registration>, DatabaseError> {
    let query = "SELECT node_name, CAST(last_reg_time AS CHAR), CAST(last_heartbeat AS CHAR) \
                 FROM db_tars.t_node_info ORDER BY node_name";
    let rows: Vec<(String, Option<String>, Option<String>)> =
        session.rows("asking for the nodes", query, ())?;
    // Zero dates and our own mark sort before any time at which TARS existed.
    let real = |time: Option<String>| time.filter(|time| time.as_str() >= "1980");
    let named = |(node, registered, heard)| Registration {
        node,
        last_reg_time: real(registered),
        last_heartbeat: real(heard),
    };
    Ok(rows.into_iter().map(named).collect())
}

/// A service of the framework that somebody stopped, or took out of what registries hand out, on one node.
#[derive(Debug, Serialize)]
pub struct Stopped {
    server: String,
    node: String,
    /// `setting_state` is `inactive`.
    setting: bool,
    /// `flow_state` is `inactive`; an older schema has no such column.
    flow: bool,
}

/// All of them.
pub fn stopped(session: &mut Session) -> Result<Vec<Stopped>, DatabaseError> {
    let column = "SELECT COUNT(*) FROM information_schema.columns WHERE table_schema = 'db_tars' \
                  AND table_name = 't_server_conf' AND column_name = 'flow_state'";
    let flow = match session.number("asking for the column of flows", column, ())? {
        0 => "0",
        _ => "COALESCE(flow_state = 'inactive', 0)",
    };
    let query = format!(
        "SELECT server_name, node_name, COALESCE(setting_state = 'inactive', 0) AS stops, {flow} AS drains \
         FROM db_tars.t_server_conf WHERE application = 'tars' HAVING stops OR drains ORDER BY 1, 2"
    );
    let rows: Vec<(String, String, bool, bool)> =
        session.rows("asking for what is stopped or drained", &query, ())?;
    let named = |(server, node, setting, flow)| Stopped { server, node, setting, flow };
    Ok(rows.into_iter().map(named).collect())
}

/// What runs whatever the database says: without a master's registry nobody could ever be started again.
const fn indispensable(role: Role) -> &'static [Service] {
    match role {
        Role::Master => &[Service::Registry, Service::Node],
        Role::Slave | Role::Node | Role::Database => &[Service::Node],
    }
}

/// The services of a role that are not to run here: stopped by an administrator, or moved to another node that lives.
///
/// `former` are names that this node had before: for a while they look as if they lived, and nobody moved anything there.
pub fn unwanted(
    session: &mut Session,
    role: Role,
    address: &str,
    former: &[String],
) -> Result<BTreeSet<Service>, DatabaseError> {
    let query = format!(
        "SELECT c.node_name, c.server_name, c.setting_state = 'inactive', \
         COALESCE(n.last_heartbeat > NOW() - INTERVAL {NODE_GONE} SECOND, 0) \
         FROM db_tars.t_server_conf c LEFT JOIN db_tars.t_node_info n ON n.node_name = c.node_name \
         WHERE c.application = 'tars'"
    );
    let rows: Vec<(String, String, bool, bool)> =
        session.rows("asking which services are to run", &query, ())?;
    let rows: Vec<(String, bool, bool, bool)> = rows
        .into_iter()
        .map(|(node, service, stopped, lives)| {
            (service, node == address, stopped, lives && !former.contains(&node))
        })
        .collect();
    let must_run = indispensable(role);
    let may_rest = role.services().iter().copied().filter(|service| !must_run.contains(service));
    Ok(may_rest.filter(|service| is_unwanted(*service, &rows)).collect())
}

/// Rows: service, is it on this node, is it stopped by an administrator, does the node live.
fn is_unwanted(service: Service, rows: &[(String, bool, bool, bool)]) -> bool {
    let mut rows = rows.iter().filter(|(name, ..)| name == service.name()).peekable();
    // tarsnode has no row, and a service that the database does not know is started as upstream does.
    if rows.peek().is_none() {
        return false;
    }
    let rows: Vec<_> = rows.collect();
    match rows.iter().find(|(_, here, ..)| *here) {
        Some((_, _, stopped, _)) => *stopped,
        // Only tarslog's rows are written once: an administrator may have moved it.
        None => service == Service::Log && rows.iter().any(|(_, _, stopped, lives)| *lives && !*stopped),
    }
}

/// The registries of other nodes that are alive by the database's clock.
pub fn other_registries(session: &mut Session, address: &str) -> Result<Vec<Endpoint>, DatabaseError> {
    let query = "SELECT endpoint FROM db_tars.t_registry_info WHERE servant = 'tars.tarsregistry.QueryObj' \
                 AND present_state = 'active' AND last_heartbeat > NOW() - INTERVAL 150 SECOND ORDER BY endpoint";
    let endpoints: Vec<String> = session.rows("asking for other registries", query, ())?;
    let mut found: Vec<Endpoint> = Vec::new();
    for endpoint in endpoints.iter().filter_map(|text| Endpoint::parse(text)) {
        if endpoint.host != address && !found.contains(&endpoint) {
            found.push(endpoint);
        }
    }
    Ok(found)
}

/// The other masters that are alive by the database's clock: nodes with a registry that lives and with a row of the service
/// that no slave has. `former` are names that this node had before, whose heartbeats are its own.
pub fn other_masters(
    session: &mut Session,
    address: &str,
    former: &[String],
) -> Result<Vec<String>, DatabaseError> {
    let mut masters = Vec::new();
    for Endpoint { host, .. } in other_registries(session, address)? {
        let query = "SELECT COUNT(*) FROM db_tars.t_server_conf WHERE application = 'tars' AND server_name = ? AND node_name = ?";
        let values = (Service::AdminRegistry.name(), &host);
        if !former.contains(&host) && session.number("asking for other masters", query, values)? > 0 {
            masters.push(host);
        }
    }
    Ok(masters)
}

#[cfg(test)]
mod tests {
    use super::super::sql::{self, FilePurpose};
    use super::*;

    const NODE: Registrant<'_> = Registrant {
        role: Role::Master,
        address: "172.25.0.3",
        container: "c",
        version: Some("3.0.17"),
        is_new: false,
        unchanged: &BTreeSet::new(),
    };

    fn confined(node: Registrant<'_>, sql: &str) -> String {
        let dump = node.substituted(sql, &Paths::below("/"));
        node.text_to_send(&sql::judge(&dump, FilePurpose::Registration).unwrap()[0]).unwrap()
    }

    #[test]
    fn replace_keeps_the_row_that_is_there() {
        let sql =
            "replace into `t_server_conf` (`node_name`, `tars_version`) VALUES ('localip.tars.com','2.1.0');";
        assert_eq!(
            confined(NODE, sql),
            "INSERT INTO `t_server_conf` (`node_name`,`tars_version`) VALUES ('172.25.0.3','3.0.17') \
             ON DUPLICATE KEY UPDATE `node_name` = `node_name`"
        );
        let new = confined(Registrant { is_new: true, ..NODE }, sql);
        assert!(
            new.contains("tars_version = VALUES(tars_version)") && !new.contains("setting_state"),
            "{new}"
        );
        let adapter =
            confined(Registrant { is_new: true, ..NODE }, "replace into `t_adapter_conf` (a) VALUES (1)");
        assert!(adapter.ends_with("`a` = `a`"), "{adapter}");
    }

    #[test]
    fn delete_touches_this_node_alone() {
        let sql = "delete from t_adapter_conf where application = 'tars' and server_name = 's' and adapter_name = 'x'";
        assert_eq!(
            confined(NODE, sql),
            "DELETE FROM t_adapter_conf WHERE adapter_name = 'x' AND application = 'tars' AND server_name = 's' AND \
             node_name = '172.25.0.3'"
        );
    }

    #[test]
    fn services_stopped_or_moved_away_are_unwanted() {
        let row = |name: &str, here, stopped, lives| (name.to_owned(), here, stopped, lives);
        let rows = [
            row("tarsstat", true, true, true),
            row("tarsconfig", true, false, true),
            row("tarsconfig", false, true, true),
            row("tarslog", false, false, true),
            row("tarsnotify", false, false, true),
        ];
        assert!(is_unwanted(Service::Stat, &rows), "stopped here");
        assert!(!is_unwanted(Service::Config, &rows), "stopped elsewhere only");
        assert!(is_unwanted(Service::Log, &rows), "moved to a node that lives");
        assert!(!is_unwanted(Service::Notify, &rows), "not moved: every node has its own");
        assert!(!is_unwanted(Service::Node, &rows), "the database does not know it");
        let gone = [row("tarslog", false, false, false)];
        assert!(!is_unwanted(Service::Log, &gone), "the other node is gone");
    }
}
