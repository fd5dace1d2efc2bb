//! The schema of ours, `tarsup`: what was begun, what was shipped, what was overwritten. It is history; what is there and
//! what is missing is always asked of the tables themselves.

use super::database::{DatabaseError, Session};
use super::start_log::StartLog;

/// Where a record is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordTable {
    NotYetMade,
    Made,
    /// The account may not make a schema: an administrator made TARS's beforehand. Then there is no record.
    Denied,
}

/// True where a table of ours is there.
pub fn has(session: &mut Session, table: &str) -> Result<bool, DatabaseError> {
    Ok(session.tables("tarsup")?.contains(table))
}

/// Makes a table of ours; `what` it would hold, for the line that says that nothing is kept.
pub fn make(
    session: &mut Session,
    table: &str,
    definition: &str,
    what: &str,
    log: Option<&StartLog>,
) -> Result<RecordTable, DatabaseError> {
    let act = format!("making tarsup.{table}");
    let made = session
        .run(&act, "CREATE DATABASE IF NOT EXISTS tarsup")
        .and_then(|()| session.run(&act, &format!("CREATE TABLE IF NOT EXISTS tarsup.{table} {definition}")));
    match made {
        Err(error) if error.is_no_right() => {
            if let Some(log) = log {
                log.say(format!("no record of {what} is kept: {error}"));
            }
            Ok(RecordTable::Denied)
        }
        made => made.map(|()| RecordTable::Made),
    }
}
