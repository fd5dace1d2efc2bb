//! What is being published right now: the items of the web console's tasks that have begun, or are to, and have not ended.
//!
//! Source: `TaskList` and `DbProxy::addTaskReq` of TarsFramework 3.0.17. An item has no status at first, then 1 (prepare), 2 (running)
//! or 6 (the flow is paused), and at its end 3, 4 or 5 with a time.

use serde::Serialize;

use super::database::{DB_TARS, DatabaseError, Session};
use super::instances;

/// A master that was stopped in the middle of it never ends its items: those that were asked for longer ago are no work any more.
const AT_MOST_MINUTES: u32 = 60;
/// How many are named.
const NAMED: usize = 100;

/// A server on one node that is being published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Publishing {
    /// Such as `Demo.HelloServer`.
    pub server: String,
    /// The node.
    pub node: String,
    /// When it was asked for, by the database's clock.
    pub since: String,
}

/// All of it; nothing where an older schema has no tasks.
pub fn all(session: &mut Session) -> Result<Vec<Publishing>, DatabaseError> {
    for table in ["t_task", "t_task_item"] {
        if instances::columns(session, table)?.is_empty() {
            return Ok(Vec::new());
        }
    }
    let query = format!(
        "SELECT CONCAT(i.application, '.', i.server_name), i.node_name, CAST(t.create_time AS CHAR) \
         FROM {DB_TARS}.t_task_item i JOIN {DB_TARS}.t_task t ON t.task_no = i.task_no \
         WHERE i.end_time IS NULL AND COALESCE(i.status, 0) NOT IN (3, 4, 5) AND t.create_time > NOW() - INTERVAL {AT_MOST_MINUTES} MINUTE \
         ORDER BY 1, 2 LIMIT {NAMED}"
    );
    let rows: Vec<(String, String, String)> = session.rows("asking what is being published", &query, ())?;
    Ok(rows.into_iter().map(|(server, node, since)| Publishing { server, node, since }).collect())
}
