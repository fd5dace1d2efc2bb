//! The stand-ins' database: what tarsregistry reads and writes.

use mysql::prelude::Queryable;
use mysql::{Conn, OptsBuilder, params};
use std::time::Duration;

use crate::Failure;
use crate::config::Account;

/// The column that tarsregistry adds at its start, as the real one adds one.
const OWN_COLUMN: &str = "standin_note";

/// Connects with the account of the configuration; an error where the schema or its tables are missing.
pub fn open(account: &Account) -> Result<Conn, Failure> {
    const PATIENCE: Duration = Duration::from_secs(2);
    let options = OptsBuilder::new()
        .ip_or_hostname(Some(account.host.clone()))
        .tcp_port(account.port)
        .user(Some(account.user.clone()))
        .pass(Some(account.password.clone()))
        .db_name(Some(account.schema.clone()))
        .prefer_socket(false)
        .tcp_connect_timeout(Some(PATIENCE))
        .read_timeout(Some(PATIENCE));
    let mut connection = Conn::new(options)?;
    connection.query_drop("SELECT 1 FROM t_server_conf LIMIT 1")?;
    Ok(connection)
}

/// Adds a column to t_server_conf where it is missing, and says that the registry at `host` is there.
pub fn announce_registry(connection: &mut Conn, host: &str) -> Result<(), Failure> {
    let there: Option<u8> = connection.exec_first(
        "SELECT 1 FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = 't_server_conf' AND column_name = ?",
        (OWN_COLUMN,),
    )?;
    if there.is_none() {
        connection
            .query_drop(format!("ALTER TABLE t_server_conf ADD {OWN_COLUMN} VARCHAR(64) DEFAULT ''"))?;
    }
    for (object, port) in [("QueryObj", 17890), ("RegistryObj", 17891)] {
        connection.exec_drop(
            "REPLACE INTO t_registry_info (locator_id, servant, endpoint, last_heartbeat, present_state, tars_version) \
             VALUES (?, ?, ?, now(), 'active', '')",
            (format!("{host}:{port}"), format!("tars.tarsregistry.{object}"), format!("tcp -h {host} -p {port} -t 60000")),
        )?;
    }
    Ok(())
}

/// A node's registration, as the real one writes it: its row anew with both times, and defaults in the columns that it
/// does not name.
pub fn register_node(connection: &mut Conn, node: &str, version: &str) -> Result<(), Failure> {
    connection.exec_drop(
        "REPLACE INTO t_node_info (node_name, node_obj, endpoint_ip, endpoint_port, data_dir, last_reg_time, last_heartbeat, \
           setting_state, present_state, tars_version, template_name) \
         VALUES (:node, CONCAT('tars.tarsnode.NodeObj@tcp -h ', :node, ' -p 19385 -t 60000'), :node, 19385, \
           '/usr/local/app/tars/tarsnode/data', now(), now(), 'active', 'active', :version, '')",
        params! { "node" => node, "version" => version },
    )?;
    Ok(())
}

/// The heartbeat of a node that is registered; an error where its row is gone: then it registers again.
pub fn keep_node_alive(connection: &mut Conn, node: &str, version: &str) -> Result<(), Failure> {
    connection.exec_drop(
        "UPDATE t_node_info SET last_heartbeat = now(), present_state = 'active', tars_version = :version \
         WHERE node_name = :node",
        params! { "node" => node, "version" => version },
    )?;
    let there: Option<u8> =
        connection.exec_first("SELECT 1 FROM t_node_info WHERE node_name = ?", (node,))?;
    there.map(|_| ()).ok_or_else(|| format!("{node} has no row").into())
}

/// The framework's services that the database assigns to a node and wants to run.
pub fn servers_of(connection: &mut Conn, node: &str) -> Result<Vec<String>, Failure> {
    Ok(connection.exec(
        "SELECT server_name FROM t_server_conf WHERE application = 'tars' AND node_name = ? AND setting_state = 'active' ORDER BY 1",
        (node,),
    )?)
}

/// The state of a server, as its tarsnode sees it.
pub fn note_state(
    connection: &mut Conn,
    node: &str,
    server: &str,
    state: &str,
    pid: &str,
) -> Result<(), Failure> {
    Ok(connection.exec_drop(
        "UPDATE t_server_conf SET present_state = ?, process_id = ? \
         WHERE CONCAT(application, '.', server_name) = ? AND node_name = ?",
        (state, pid, server, node),
    )?)
}
