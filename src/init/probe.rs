//! `tars-init probe --json`: what tarsup asks a container, in one document. The host needs no MySQL client.

use std::io::Write;
use std::time::Duration;

use serde::Serialize;

use super::address;
use super::database::{DB_TARS, DatabaseError, Presence, Server};
use super::environment::Environment;
use super::failure::{Code, Failure};
use super::health::{self, Servant};
use super::paths::Paths;
use super::rows;

/// For one answer of the database.
const QUERY: Duration = Duration::from_secs(2);

/// The document.
#[derive(Debug, Default, Serialize)]
struct Report {
    healthy: bool,
    role: String,
    address: String,
    version: String,
    servants: Vec<Servant>,
    /// `exists`, `absent`, `unknown` or `not-asked`.
    database: &'static str,
    /// Whether the node's row is in the database; `null` where it could not be asked.
    registered: Option<bool>,
    problems: Vec<String>,
}

/// Prints the document; exit code 0 when healthy, else 1.
pub fn run(paths: &Paths) -> Result<(), Failure> {
    let report = look(paths);
    let text = serde_json::to_string(&report).map_err(|error| {
        Failure::new(Code::Internal, format!("the report cannot be written: {error}"), "")
    })?;
    let mut out = std::io::stdout().lock();
    let written = writeln!(out, "{text}").and_then(|()| out.flush());
    match written {
        Ok(()) if report.healthy => Ok(()),
        // The document says why.
        _ => Err(Failure::new(Code::Unhealthy, "", "")),
    }
}

fn look(paths: &Paths) -> Report {
    let mut report = Report { database: "not-asked", ..Report::default() };
    let environment = match Environment::read(health::image_role(paths)) {
        Ok(environment) => environment,
        Err(failure) => {
            report.problems.push(failure.message);
            return report;
        }
    };
    environment.role.name().clone_into(&mut report.role);
    report.version = environment.version.clone().unwrap_or_default();
    match address::own(&environment.naming) {
        Ok(address) => report.address = address,
        Err(failure) => {
            report.problems.push(failure.message);
            return report;
        }
    }
    ask_database(&environment, &mut report);
    report.servants = health::ping_all(environment.role.services(), &report.address);
    let sick = health::sick(&environment, &report.address, &report.servants);
    report.healthy = sick.is_empty();
    let silent: Vec<_> = sick.iter().map(|servant| format!("{}: {}", servant.name, servant.detail)).collect();
    report.problems.extend(silent);
    report
}

fn ask_database(environment: &Environment, report: &mut Report) {
    let Some(account) = &environment.database else { return };
    let address = report.address.clone();
    let ask = || -> Result<(Presence, Option<bool>), DatabaseError> {
        let mut session = Server::of(account).answering_within(QUERY).connect(None)?;
        match session.presence(DB_TARS)? {
            presence @ Presence::Exists { tables } if tables > 0 => {
                Ok((presence, Some(rows::is_registered(&mut session, &address)?)))
            }
            presence => Ok((presence, Some(false))),
        }
    };
    match ask() {
        Ok((Presence::Absent, registered)) => (report.database, report.registered) = ("absent", registered),
        Ok((Presence::Exists { .. }, registered)) => {
            (report.database, report.registered) = ("exists", registered);
        }
        Err(error) => {
            report.database = "unknown";
            report.problems.push(format!("the database: {error}"));
        }
    }
}
