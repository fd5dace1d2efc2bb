//! `tars-init migrate --finish`: the rows of old protocols go, at every node. It is for once all nodes have moved, and no
//! start does it: a start takes out those of its own node alone.

use std::io::Write;

use serde::Serialize;

use super::database::{self, DB_TARS, DatabaseError, Server, Session};
use super::environment::{Environment, ImageRole};
use super::failure::Failure;
use super::guard;
use super::lock::{self, InstallLock};
use super::paths::Paths;
use super::save::{self, Keeper};
use super::scripts;
use super::signals::Stop;
use super::start_log::StartLog;
use super::touched::Touched;
use super::versions;

/// The format of the document.
const DOCUMENT: u32 = 1;

/// What was done, as the last line of stdout.
#[derive(Debug, Serialize)]
struct Document<'a> {
    version: u32,
    framework: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    dry_run: bool,
    /// The rows that went, as `APPLICATION.SERVER.ADAPTER at NODE`.
    finished: Vec<String>,
}

/// What is done with the rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finish {
    /// Nothing: they are only told.
    DryRun,
    /// They are saved, where somebody keeps them, and go.
    Remove(Option<Keeper>),
}

/// Takes the rows out, all or none.
pub fn run(paths: &Paths, finish: &Finish, stop: &Stop, log: &StartLog) -> Result<(), Failure> {
    guard::check()?;
    let environment = Environment::read(ImageRole::Framework)?;
    let account = environment.account()?;
    let outdated = scripts::outdated(paths)?;
    let version = environment.version.as_deref();
    let server = Server::of(account).for_work(environment.patience, log);
    let finished = match finish {
        Finish::DryRun => {
            let server = server.clone().asking_only();
            let mut session = server.connect(None)?;
            may_finish(&mut session, version)?;
            rows(&mut session, &outdated)?
        }
        Finish::Remove(keeper) => {
            database::retry_until_ready(log, stop, environment.patience, &server, || {
                let mut session = server.connect(None)?;
                let _lock = InstallLock::take(&server)?;
                may_finish(&mut session, version)?;
                let found = rows(&mut session, &outdated)?;
                if let Some(keeper) = keeper {
                    save::save(&server, &touched(&outdated, &found), keeper)?;
                }
                remove(&server, &outdated)?;
                Ok(found)
            })?
        }
    };
    let dry_run = *finish == Finish::DryRun;
    let document = Document { version: DOCUMENT, framework: version, dry_run, finished };
    // A document of plain texts and lists is always JSON.
    let line = serde_json::to_string(&document).unwrap_or_default();
    let _ = writeln!(std::io::stdout().lock(), "{line}");
    Ok(())
}

/// Not while a node that lives runs an older version, nor where a newer one has changed the database.
fn may_finish(session: &mut Session, version: Option<&str>) -> Result<(), DatabaseError> {
    versions::judge(session, version)?;
    let Some(version) = version else { return Ok(()) };
    let query = "SELECT node_name, COALESCE(tars_version, '') FROM db_tars.t_node_info \
                 WHERE last_heartbeat > NOW() - INTERVAL 250 SECOND ORDER BY 1";
    let nodes: Vec<(String, String)> = session.rows("asking which versions the nodes run", query, ())?;
    let behind: Vec<String> = nodes
        .into_iter()
        .filter(|(_, own)| !own.is_empty() && versions::is_older(own, version))
        .map(|(node, own)| format!("{node} ({own})"))
        .collect();
    if behind.is_empty() {
        return Ok(());
    }
    Err(DatabaseError::Unfit(format!(
        "not every node has moved to {version}: {}. What they may still need stays",
        behind.join(", ")
    )))
}

/// The rows that are there.
fn rows(session: &mut Session, outdated: &[(String, String)]) -> Result<Vec<String>, DatabaseError> {
    let mut found = Vec::new();
    if session.tables(DB_TARS)?.is_empty() {
        return Ok(found);
    }
    for (table, condition) in outdated {
        let query = format!(
            "SELECT CONCAT(application, '.', server_name, '.', adapter_name, ' at ', node_name) FROM {DB_TARS}.{table} \
             WHERE {condition} ORDER BY 1"
        );
        found.extend(session.rows::<String>("asking for rows of old protocols", &query, ())?);
    }
    Ok(found)
}

fn touched(outdated: &[(String, String)], found: &[String]) -> Touched {
    let mut touched = Touched::default();
    if !found.is_empty() {
        touched.rows = outdated
            .iter()
            .map(|(table, condition)| (DB_TARS.to_owned(), table.clone(), condition.clone()))
            .collect();
    }
    touched
}

fn remove(server: &Server, outdated: &[(String, String)]) -> Result<(), DatabaseError> {
    let mut own = lock::connect_to_work(server, DB_TARS)?;
    let act = "taking out the rows of old protocols";
    own.run(act, "START TRANSACTION")?;
    for (table, condition) in outdated {
        own.run(act, &format!("DELETE FROM {table} WHERE {condition}"))?;
    }
    own.run(act, "COMMIT")
}
