//! `tars-init migrate`: one run of a new image before the first swap brings schemas and templates forward, adding only.

use std::io::Write;

use serde::Serialize;

use super::boot;
use super::database::{self, Server};
use super::environment::{Environment, ImageRole};
use super::failure::{Code, Failure};
use super::guard;
use super::lock::InstallLock;
use super::paths::Paths;
use super::probe;
use super::render::Substitution;
use super::scripts::SchemaScripts;
use super::signals::Stop;
use super::start_log::StartLog;
use super::templates::{self, Wish};

/// The format of the document.
const DOCUMENT: u32 = 1;

/// What was done, as the last line of stdout.
#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    framework: Option<&'a str>,
    /// Nothing of it was done.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    dry_run: bool,
    #[serde(flatten)]
    report: boot::MigrationReport,
}

/// Installs an empty server, else adds what this version adds. Starts nothing, and registers no node: the container
/// that runs this has an address of its own for the moment.
pub fn run(paths: &Paths, stop: &Stop, log: &StartLog) -> Result<(), Failure> {
    guard::check()?;
    let environment = Environment::read(ImageRole::Framework)?;
    let Some(account) = &environment.database else {
        return Err(Failure::new(Code::Environment, "a node has no database to migrate.", ""));
    };
    let scripts = SchemaScripts::read(paths)?;
    let server = Server::of(account).for_work(environment.patience, log);
    let version = environment.version.as_deref();
    let mut first = boot::FirstConnection::default();
    let report = database::retry_until_ready(log, stop, environment.patience, &server, || {
        let mut session = first.connect(&server, log)?;
        let _lock = InstallLock::take(&server)?;
        boot::migrate(&server, account, &mut session, &scripts, paths, version, None, log)
    })?;
    log.say(format!("the database is at version {}", version.unwrap_or("of this image")));
    print(&Document { version: DOCUMENT, framework: version, dry_run: false, report });
    Ok(())
}

/// What [`run`] would do just now, as the same document: nothing but questions is sent. It waits for no database.
pub fn dry_run(paths: &Paths) -> Result<(), Failure> {
    guard::check()?;
    let environment = Environment::read(ImageRole::Framework)?;
    let Some(account) = &environment.database else {
        return Err(Failure::new(Code::Environment, "a node has no database to migrate.", ""));
    };
    let scripts = SchemaScripts::read(paths)?;
    let server = Server::of(account).asking_only();
    let mut session = server.connect(None)?;
    let version = environment.version.as_deref();
    let quiet = StartLog::quiet();
    let report = boot::migrate(&server, account, &mut session, &scripts, paths, version, None, &quiet)?;
    print(&Document { version: DOCUMENT, framework: version, dry_run: true, report });
    Ok(())
}

/// The document as the last line of stdout.
fn print(document: &Document<'_>) {
    // Plain texts and lists are always JSON.
    let line = serde_json::to_string(document).unwrap_or_default();
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// `tars-init templates`: shows, takes or keeps, in a container of the framework; the report is the last line of stdout.
pub fn templates(paths: &Paths, wish: Wish<'_>) -> Result<(), Failure> {
    let log = StartLog::begin();
    let environment = Environment::read(ImageRole::Framework)?;
    let Some(account) = &environment.database else {
        return Err(Failure::new(Code::Environment, "a node has no templates.", ""));
    };
    let server = Server::of(account);
    let mut session = server.connect(None)?;
    let _lock = (wish != Wish::Show).then(|| InstallLock::take(&server)).transpose()?;
    // No template names a node: what it holds of addresses and accounts is filled in for whoever reads it.
    let substitution = Substitution::new(paths, "", Some(account), Vec::new());
    let version = environment.version.as_deref();
    let report = templates::migrate(&mut session, paths, &substitution, version, wish, &log)?;
    probe::print(&report, true)
}
