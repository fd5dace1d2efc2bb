//! Every server that is deployed anywhere, as the database has it, by the database's clock.

use std::collections::{BTreeMap, BTreeSet};

use crate::tars::Instance;
use crate::tars::registry::Adapter;

use super::database::{DB_TARS, DatabaseError, Session};

/// A node whose heartbeat is older than this many seconds is gone: tarsregistry's own `nodeTimeout`.
const NODE_GONE: u32 = 250;

/// True where flows can be stopped: an older schema has no such column.
pub fn have_flows(session: &mut Session) -> Result<bool, DatabaseError> {
    Ok(columns(session, "t_server_conf")?.contains("flow_state"))
}

type Row = (String, String, bool, bool, bool, bool, String, String, bool, String, String, String);

/// All instances, ordered by server and node. What an older schema does not know is as if nobody had set it.
pub fn all(session: &mut Session) -> Result<Vec<Instance>, DatabaseError> {
    let columns = columns(session, "t_server_conf")?;
    let or = |column: &str, expression: &str, otherwise: &str| {
        if columns.contains(column) { expression.to_owned() } else { otherwise.to_owned() }
    };
    let flow = or("flow_state", "COALESCE(c.flow_state <> 'inactive', 1)", "1");
    let set = or(
        "enable_set",
        "IF(c.enable_set = 'Y', CONCAT_WS('.', COALESCE(c.set_name, ''), COALESCE(c.set_area, ''), COALESCE(c.set_group, '')), '')",
        "''",
    );
    let group = or("enable_group", "IF(c.enable_group = 'Y', COALESCE(c.ip_group_name, ''), '')", "''");
    let backup = or("bak_flag", "c.bak_flag <> 0", "0");
    let kind = or("server_type", "CAST(c.server_type AS CHAR)", "''");
    let run_type = or("run_type", "COALESCE(c.run_type, '')", "''");
    let scripted = or("start_script_path", "IF(COALESCE(c.start_script_path, '') = '', 0, 1)", "0");
    let [base, exe] =
        ["base_path", "exe_path"].map(|column| or(column, &format!("COALESCE(c.{column}, '')"), "''"));
    let query = format!(
        "SELECT CONCAT(c.application, '.', c.server_name), c.node_name, c.setting_state = 'active', c.present_state = 'active', {flow}, \
         COALESCE(n.last_heartbeat > NOW() - INTERVAL {NODE_GONE} SECOND, 0), {set}, {group}, {backup}, {kind}, {run_type}, \
         CONCAT_WS(CHAR(10), {scripted}, COALESCE(c.patch_version, ''), TRIM({base}), TRIM({exe})) \
         FROM {DB_TARS}.t_server_conf c LEFT JOIN {DB_TARS}.t_node_info n ON n.node_name = c.node_name ORDER BY 1, 2"
    );
    let rows: Vec<Row> = session.rows("asking what is deployed", &query, ())?;
    let mut adapters = adapters(session)?;
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    let instance = |row: Row| {
        let (server, node, setting, present, flow, lives, set, group, backup, kind, run_type, more) = row;
        let adapters = adapters.remove(&(server.clone(), node.clone())).unwrap_or_default();
        let mut more = more.split('\n').map(str::to_owned);
        let scripted = more.next().is_some_and(|scripted| scripted == "1");
        let [version, base_path, exe_path] = [(); 3].map(|()| more.next().unwrap_or_default());
        let (set, group) = (some(set), some(group));
        Instance {
            server,
            node,
            setting,
            present,
            flow,
            lives,
            set,
            group,
            backup,
            kind,
            run_type,
            version,
            base_path,
            exe_path,
            scripted,
            adapters,
        }
    };
    Ok(rows.into_iter().map(instance).collect())
}

fn adapters(session: &mut Session) -> Result<BTreeMap<(String, String), Vec<Adapter>>, DatabaseError> {
    let columns = columns(session, "t_adapter_conf")?;
    let [servant, protocol, allow_ip] = ["servant", "protocol", "allow_ip"].map(|column| {
        if columns.contains(column) { format!("COALESCE({column}, '')") } else { "''".to_owned() }
    });
    let query = format!(
        "SELECT CONCAT(application, '.', server_name), node_name, COALESCE(endpoint, ''), {servant}, {protocol}, {allow_ip} \
         FROM {DB_TARS}.t_adapter_conf ORDER BY adapter_name"
    );
    let rows: Vec<(String, String, String, String, String, String)> =
        session.rows("asking where servers listen", &query, ())?;
    let mut found: BTreeMap<_, Vec<Adapter>> = BTreeMap::new();
    for (server, node, endpoint, servant, protocol, allow_ip) in rows {
        found.entry((server, node)).or_default().push(Adapter { endpoint, allow_ip, servant, protocol });
    }
    Ok(found)
}

/// The columns of a table, in lower case; none where it is not there.
pub fn columns(session: &mut Session, table: &str) -> Result<BTreeSet<String>, DatabaseError> {
    let query =
        "SELECT column_name FROM information_schema.columns WHERE table_schema = ? AND table_name = ?";
    let names: Vec<String> =
        session.rows(&format!("asking for the columns of {table}"), query, (DB_TARS, table))?;
    Ok(names.into_iter().map(|name| name.to_lowercase()).collect())
}
