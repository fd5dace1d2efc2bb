//! What happens between the first line and the first service: the database, the rows, the configuration.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::tars::{Role, Service};

use super::account;
use super::columns::{self, Console, TakesBack};
use super::database::{self, DB_TARS, DatabaseError, Presence, Server, Session};
use super::drain;
use super::environment::{Account, Endpoint, Environment};
use super::failure::Failure;
use super::identity;
use super::lock::InstallLock;
use super::paths::Paths;
use super::registries;
use super::render::Substitution;
use super::rows::{self, Registrant};
use super::run_state::RunState;
use super::schema;
use super::schema_report;
use super::scripts::{self, SchemaScripts};
use super::signals::Stop;
use super::stamp::{self, Stamp};
use super::start_log::StartLog;
use super::templates::{self, Wish};
use super::touched::Touched;
use super::upgrade_conf;
use super::versions::{self, Act, Bringer};
use super::web::Web;

/// What the supervisor must know of the preparation.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The services to start, in upstream's order.
    pub services: Vec<Service>,
    /// Where tarsnode finds a registry; the first is this node's own, if it has one.
    pub registries: Vec<Endpoint>,
}

impl Prepared {
    /// The services of the role that are not started, as an administrator wants it.
    pub fn left_out(&self, of: &[Service]) -> BTreeSet<Service> {
        of.iter().copied().filter(|service| !self.services.contains(service)).collect()
    }
}

/// Asks and prepares the database for a master or slave; a node has none, and needs only its registries.
pub fn prepare(
    environment: &Environment,
    paths: &Paths,
    node: Registrant<'_>,
    web: Option<&Web>,
    stop: &Stop,
    log: &StartLog,
) -> Result<Prepared, Failure> {
    let Some(account) = &environment.database else {
        return Ok(Prepared {
            services: environment.role.services().to_vec(),
            registries: registries::find(&environment.locator, paths, node.address, stop, log),
        });
    };
    let server = Server::of(account).for_work(environment.patience, log);
    let address = node.address;
    let rows = scripts::of_node(paths, node.role, |text| node.substituted(text, paths))?;
    let schemas = (node.role == Role::Master).then(|| SchemaScripts::read(paths)).transpose()?;
    let (mut first, mut is_fresh) = (FirstConnection::default(), false);
    let mut said = false;
    database::retry_until_ready(log, stop, environment.patience, &server, || {
        let mut session = first.connect(&server, log)?;
        let _lock = InstallLock::take(&server)?;
        if let Some(schemas) = &schemas {
            stamp::judge(&mut session, paths, log)?;
            let bringer = Bringer {
                version: node.version,
                image: environment.image.as_deref(),
                node: Some(address),
                way_back: &environment.way_back,
            };
            let address = Some(address);
            let migration =
                Migration { account, scripts: schemas, paths, bringer, address, web, saved: None };
            let report = migration.run(&server, &mut session, log)?;
            is_fresh |= report.schema.installed_tars;
            if !is_fresh {
                RunState::of(paths).note_changes(&report.changed);
            }
        } else {
            join(account, &mut session)?;
            versions::warn(&mut session, node.version, log)?;
        }
        rows::register(&server, &mut session, &rows, node, is_fresh)?;
        log.say(format!("node {address} is registered"));
        let mut stamp = Stamp::of(&mut session, address, node.version)?;
        stamp.remember(identity::names(paths));
        if node.role == Role::Master && !said {
            for doubt in doubts(account, &mut session, address, &stamp.former)? {
                log.say(format!("warning: {doubt}"));
            }
            said = true;
        }
        let services = wanted(&mut session, node.role, address, &stamp.former, log)?;
        let mut registries = vec![Endpoint::registry(address)];
        registries.extend(rows::other_registries(&mut session, address)?);
        if let Err(error) = stamp.write(paths) {
            log.say(format!("warning: the volume takes no note of this database: {error}"));
        }
        Ok(Prepared { services, registries })
    })
}

/// What was done to a database.
#[derive(Debug, Serialize)]
pub struct MigrationReport {
    /// The hosts at which the services' account was missing.
    pub accounts: Vec<String>,
    /// Its schemas.
    pub schema: schema_report::Report,
    /// Columns that a web console had dropped, and that are put back.
    pub columns: Vec<String>,
    /// Its templates.
    pub templates: templates::Report,
    /// What of it was changed, as a document for the record; empty where nothing was.
    #[serde(skip)]
    changed: String,
}

impl MigrationReport {
    fn what_changed(&self) -> String {
        let templates = &self.templates;
        let is_none = self.schema.added.is_empty()
            && self.columns.is_empty()
            && templates.added.is_empty()
            && templates.keys.is_empty()
            && templates.changed.is_empty();
        // A document of plain texts and lists is always JSON.
        if is_none { String::new() } else { serde_json::to_string(self).unwrap_or_default() }
    }

    /// What was, or would be, changed of what was there.
    pub fn touched(&self) -> Touched {
        let (tables, templates) = (self.schema.touched.tables.clone(), self.templates.touched.clone());
        Touched { tables, templates, ..Touched::default() }
    }
}

/// What is brought into a database.
#[derive(Clone, Copy)]
pub struct Migration<'a> {
    /// The administrator's account.
    pub account: &'a Account,
    /// The image's SQL.
    pub scripts: &'a SchemaScripts,
    /// Where its templates lie.
    pub paths: &'a Paths,
    /// Its version, and what else is recorded of it.
    pub bringer: Bringer<'a>,
    /// The node's address; a run that starts nothing has none.
    pub address: Option<&'a str>,
    /// The image's web console.
    pub web: Option<&'a Web>,
    /// What was saved before: no other text of a template is changed.
    pub saved: Option<&'a Touched>,
}

impl Migration<'_> {
    /// Schemas, columns, templates and the services' account, all by adding only. The caller holds the lock.
    pub fn run(
        &self,
        server: &Server,
        session: &mut Session,
        log: &StartLog,
    ) -> Result<MigrationReport, DatabaseError> {
        let Self { account, scripts, paths, bringer, address, web, saved } = *self;
        let version = bringer.version;
        schema::refuse_foreign(session, scripts)?;
        versions::judge(session, version)?;
        // Whoever is cut off from here on has left the word.
        versions::declare(session, bringer, log)?;
        drain::make(session, log)?;
        let act = if address.is_some() { Act::Start } else { Act::Migrate };
        let has_begun = versions::begin(session, bringer, act)?;
        let accounts = account::ensure(account, session, address, log)?;
        let gone = columns::note_gone(session)?;
        let ask = || web?.known_columns(paths).ok();
        let takes_back = TakesBack::new(&ask, address.is_some());
        let mut report = schema::migrate(server, session, scripts, paths, version, &takes_back, log)?;
        upgrade_conf::apply(server, session, &scripts.upgrades, &mut report, &takes_back, log)?;
        let touched = &mut report.touched;
        let columns = columns::put_back(server, session, &gone, || console(web, paths), touched, log)?;
        let registries = address.map(Endpoint::registry).into_iter().collect();
        let substitution = Substitution::new(paths, address.unwrap_or_default(), Some(account), registries);
        let mut templates =
            templates::migrate(session, paths, &substitution, version, Wish::Merge, saved, log)?;
        templates.forget_readers_at(address.unwrap_or_default());
        let is_new = report.installed_tars;
        let mut report =
            MigrationReport { accounts, schema: report, columns, templates, changed: String::new() };
        report.changed = report.what_changed();
        let act = if is_new { Act::Install } else { act };
        versions::record(session, bringer, act, &report.changed, has_begun, log)?;
        Ok(report)
    }
}

/// What this image's web console would drop again.
fn console(web: Option<&Web>, paths: &Paths) -> Console {
    match web.map(|web| web.known_columns(paths)) {
        Some(Ok(known)) => Console::Of(known),
        Some(Err(why)) => Console::Unknown(why),
        None => Console::None,
    }
}

/// Says once that the database answered, however often it is asked.
#[derive(Debug, Default)]
pub struct FirstConnection {
    said: bool,
}

impl FirstConnection {
    /// A session; the first one is told of.
    pub fn connect(&mut self, server: &Server, log: &StartLog) -> Result<Session, DatabaseError> {
        let mut session = server.connect(None)?;
        let version = session.version()?;
        if !std::mem::replace(&mut self.said, true) {
            log.say(format!("database {version} at {} answers", server.place()));
        }
        Ok(session)
    }
}

/// A slave adds nothing: it waits for a master that has installed the database.
fn join(account: &Account, session: &mut Session) -> Result<(), DatabaseError> {
    match session.presence(DB_TARS)? {
        Presence::Exists { tables } if tables > 0 => {}
        _ => {
            return Err(DatabaseError::Unreachable(format!(
                "{DB_TARS} is not there; a slave needs a master that has installed it"
            )));
        }
    }
    if schema::is_half_installed(session)? {
        return Err(DatabaseError::Unreachable(format!(
            "{DB_TARS} is half-installed; the next start of the master finishes it"
        )));
    }
    match account::prove(account) {
        // Its master may be about to make the account.
        Err(DatabaseError::Unfit(reason)) => Err(DatabaseError::Denied(reason)),
        proven => proven,
    }
}

/// What a start goes on with, and an administrator should know.
fn doubts(
    account: &Account,
    session: &mut Session,
    address: &str,
    former: &[String],
) -> Result<Vec<String>, DatabaseError> {
    let mut doubts = account::doubts(account, session)?;
    let stale = templates::with_another_password(session, account::USER, &account.services_password)?;
    if !stale.is_empty() {
        doubts.push(format!(
            "another password of {} stands in the templates {}: services that tarsnode starts again use it. \
             Correct `dbpass` there in the web console",
            account::USER,
            stale.join(", ")
        ));
    }
    for other in rows::other_masters(session, address, former)? {
        doubts.push(format!(
            "another master lives at {other}, as its registry's heartbeat says: one database has one master. Set \
             SLAVE=true on one of the two"
        ));
    }
    Ok(doubts)
}

fn wanted(
    session: &mut Session,
    role: Role,
    address: &str,
    former: &[String],
    log: &StartLog,
) -> Result<Vec<Service>, DatabaseError> {
    let unwanted = rows::unwanted(session, role, address, former)?;
    if !unwanted.is_empty() {
        let names: Vec<_> = unwanted.iter().map(|service| service.name()).collect();
        log.say(format!("not started, as an administrator wants it: {}", names.join(", ")));
    }
    Ok(role.services().iter().copied().filter(|service| !unwanted.contains(service)).collect())
}
