//! `tars-init migrate`: one run of a new image before the first swap brings schemas and templates forward, adding only.

use std::io::Write;

use serde::Serialize;

use super::boot::{self, Migration};
use super::database::{self, DatabaseError, Server};
use super::environment::{Environment, ImageRole};
use super::failure::{Code, Failure};
use super::guard;
use super::lock::InstallLock;
use super::paths::Paths;
use super::probe;
use super::render::Substitution;
use super::save::{self, Keeper};
use super::scripts::SchemaScripts;
use super::signals::Stop;
use super::start_log::StartLog;
use super::templates::{self, TakenBack, Wish};
use super::versions::{self, Bringer};
use super::web::{self, Web};

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

/// What a migration needs, read before the database is asked.
struct Needed {
    environment: Environment,
    scripts: SchemaScripts,
    web: Option<Web>,
}

impl Needed {
    fn read(paths: &Paths) -> Result<Self, Failure> {
        guard::check()?;
        let environment = Environment::read(ImageRole::Framework)?;
        environment.account()?;
        Ok(Self { environment, scripts: SchemaScripts::read(paths)?, web: web::find(paths).ok() })
    }

    fn version(&self) -> Option<&str> {
        self.environment.version.as_deref()
    }

    fn migration<'a>(&'a self, paths: &'a Paths) -> Result<Migration<'a>, Failure> {
        let environment = &self.environment;
        let bringer = Bringer {
            version: self.version(),
            image: environment.image.as_deref(),
            node: None,
            way_back: &environment.way_back,
        };
        let (account, web) = (environment.account()?, self.web.as_ref());
        Ok(Migration { account, scripts: &self.scripts, paths, bringer, address: None, web, saved: None })
    }
}

/// Installs an empty server, else adds what this version adds; where somebody keeps what is touched, that is saved first.
/// Starts nothing, and registers no node: the container that runs this has an address of its own for the moment.
pub fn run(paths: &Paths, keeper: Option<&Keeper>, stop: &Stop, log: &StartLog) -> Result<(), Failure> {
    let needed = Needed::read(paths)?;
    let migration = needed.migration(paths)?;
    let patience = needed.environment.patience;
    let server = Server::of(migration.account).for_work(patience, log);
    let mut first = boot::FirstConnection::default();
    let mut saved = None;
    let report = database::retry_until_ready(log, stop, patience, &server, || {
        let mut session = first.connect(&server, log)?;
        let _lock = InstallLock::take(&server)?;
        // Once: what was begun after it is only finished.
        if let (Some(keeper), None) = (keeper, &saved) {
            let touched = told(&server, &migration)?.touched();
            save::save(&server, &touched, keeper)?;
            saved = Some(touched);
        }
        Migration { saved: saved.as_ref(), ..migration }.run(&server, &mut session, log)
    })?;
    log.say(format!("the database is at version {}", needed.version().unwrap_or("of this image")));
    print(&Document { version: DOCUMENT, framework: needed.version(), dry_run: false, report });
    Ok(())
}

/// What [`run`] would do just now, as the same document: nothing but questions is sent. It waits for no database.
pub fn dry_run(paths: &Paths) -> Result<(), Failure> {
    let needed = Needed::read(paths)?;
    let migration = needed.migration(paths)?;
    let report = told(&Server::of(migration.account), &migration)?;
    print(&Document { version: DOCUMENT, framework: needed.version(), dry_run: true, report });
    Ok(())
}

/// What a migration would do: the same run with nothing but its questions sent.
fn told(server: &Server, migration: &Migration<'_>) -> Result<boot::MigrationReport, DatabaseError> {
    let server = server.clone().asking_only();
    let mut session = server.connect(None)?;
    migration.run(&server, &mut session, &StartLog::quiet())
}

/// `tars-init accept-version`: the version of this image may run on a database that a newer one changed.
pub fn accept_version() -> Result<(), Failure> {
    let environment = Environment::read(ImageRole::Framework)?;
    let account = environment.account()?;
    let Some(version) = environment.version.as_deref() else {
        return Err(Failure::new(Code::Environment, "TARSUP_VERSION names no version.", ""));
    };
    let server = Server::of(account);
    let mut session = server.connect(None)?;
    let _lock = InstallLock::take(&server)?;
    let newer = versions::accept(&mut session, version, &StartLog::begin())?;
    let said = match newer.as_slice() {
        [] => format!("no newer version than {version} has changed the database: nothing was to be said"),
        newer => format!("{version} may run on what {} changed", newer.join(", ")),
    };
    let _ = writeln!(std::io::stdout().lock(), "{said}");
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
    let account = environment.account()?;
    let server = Server::of(account);
    let mut session = server.connect(None)?;
    let _lock = (wish != Wish::Show).then(|| InstallLock::take(&server)).transpose()?;
    // No template names a node: what it holds of addresses and accounts is filled in for whoever reads it.
    let substitution = Substitution::new(paths, "", Some(account), Vec::new());
    let version = environment.version.as_deref();
    let report = templates::migrate(&mut session, paths, &substitution, version, wish, None, &log)?;
    probe::print(&report, true)
}

/// What versions of ours brought into templates, taken back where nobody has edited it since.
pub fn take_back(server: &Server, paths: &Paths, version: Option<&str>) -> Result<TakenBack, DatabaseError> {
    let _lock = (!server.only_asks()).then(|| InstallLock::take(server)).transpose()?;
    let mut session = server.connect(None)?;
    templates::take_back(&mut session, paths, version, &StartLog::begin())
}

/// `tars-init templates take-back`: the same by itself, where a deploy is undone and its master has no tars-init.
pub fn take_templates_back(paths: &Paths) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Document {
        version: u32,
        templates: TakenBack,
    }
    let environment = Environment::read(ImageRole::Framework)?;
    let server = Server::of(environment.account()?);
    let templates = take_back(&server, paths, environment.version.as_deref())?;
    probe::print(&Document { version: DOCUMENT, templates }, true)
}
