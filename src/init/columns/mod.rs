//! Columns that a web console drops. TarsWeb brings its tables to the shape of its models at each start, and a column that
//! these do not have is dropped with its values: an older console's start takes a newer version's columns. So what it does
//! not know is kept in `tarsup` first, and put back when a console starts that knows it, or none at all.

mod cut;
mod keep;
mod known;
mod put_back;
mod record;
mod table;
mod takes_back;

pub use keep::Outcome;
pub use known::{KnownColumns, LIMIT, ask};
pub use put_back::{Console, note_gone, put_back};
pub use takes_back::{Lacking, TakesBack};

use std::thread;
use std::time::Duration;

use serde::Serialize;

use super::database::{DatabaseError, Server};
use super::environment::{Account, Environment, ImageRole};
use super::failure::{Code, Failure};
use super::migrate;
use super::paths::Paths;
use super::probe;
use super::start_log::StartLog;
use super::templates::TakenBack;
use super::web;

/// Upstream's mistake: `tars_upgrade.conf` adds it, the web console drops it at each start, and what is meant is
/// `t_base_image.sha`, which the registry writes. It never holds anything.
const MISTAKE: (&str, &str, &str) = ("db_tars", "t_server_conf", "sha");

/// Where a console that cannot be asked may drop columns.
const SCHEMAS: [&str; 5] = ["db_tars", "db_tars_web", "db_user_system", "db_cache_web", "db_base"];

/// True for a column that comes and goes by upstream's mistake.
pub fn is_mistake(schema: &str, table: &str, column: &str) -> bool {
    (schema, table, column) == MISTAKE
}

/// Keeps what this web console does not know.
fn keep_unknown(
    server: &Server,
    known: &KnownColumns,
    version: Option<&str>,
) -> Result<Outcome, DatabaseError> {
    let stays = |table: &table::InstalledTable, column: &str| {
        is_mistake(&table.schema, &table.name, column)
            || known.of(&table.schema, &table.name).is_none_or(|known| known.has(column))
    };
    keep::keep(server, known.schemas(), &stays, version)
}

/// What is loaded before a web console whose start must leave columns as they are.
pub const LEAVE_SCRIPT: &str = include_str!("leave.js");
/// The variable that names these columns to it.
pub const LEAVE: &str = "TARSUP_LEAVE";

/// Keeps what this image's web console does not know, again and again until nothing would be lost; then `done`, with the
/// columns that it must leave as they are. In a thread: the services start meanwhile, and the web console does not.
pub fn keep_before_start(
    account: &Account,
    console: impl Fn() -> Result<KnownColumns, String> + Send + 'static,
    version: Option<&str>,
    log: &StartLog,
    done: impl FnOnce(Vec<String>) + Send + 'static,
) {
    let (server, version, log) = (Server::of(account), version.map(str::to_owned), log.clone());
    thread::spawn(move || {
        let (mut said, mut pause) = (String::new(), Duration::from_secs(1));
        loop {
            let kept = console()
                .map_err(|why| format!("it does not tell which columns it knows ({why})"))
                .and_then(|known| {
                    let kept = keep_unknown(&server, &known, version.as_deref());
                    let both = kept.and_then(|kept| Ok((kept, cut::find(&server, &known)?)));
                    both.map_err(|error| error.to_string())
                });
            let why = match kept {
                Ok((outcome, too_long)) if outcome.not_kept.is_empty() => {
                    say_what_was_kept(&outcome, &log);
                    if !too_long.is_empty() {
                        let words: Vec<&str> = too_long.iter().map(|one| one.words.as_str()).collect();
                        log.say(format!(
                            "the web console is kept from narrowing what holds longer values: {}",
                            words.join(", ")
                        ));
                    }
                    return done(too_long.into_iter().map(|one| one.column).collect());
                }
                Ok((outcome, _)) => {
                    format!("it would drop what cannot be kept: {}", outcome.not_kept.join("; "))
                }
                Err(why) => why,
            };
            if said != why {
                log.say(format!("the web console is held back: {why}"));
                said = why;
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_secs(30));
        }
    });
}

fn say_what_was_kept(outcome: &Outcome, log: &StartLog) {
    if !outcome.kept.is_empty() {
        let columns: Vec<_> =
            outcome.kept.iter().map(|kept| format!("{} ({} rows)", kept.column, kept.rows)).collect();
        log.say(format!(
            "the web console does not know, and drops, what is kept in tarsup: {}",
            columns.join(", ")
        ));
    }
}

/// What is kept by `tars-init keep-columns`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// What the web console of this image does not know.
    OwnConsole,
    /// Every column beside a table's key: for a console that nobody can ask, such as that of an upstream container.
    AnyConsole,
}

#[derive(Serialize)]
struct Document {
    version: u32,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    dry_run: bool,
    #[serde(flatten)]
    outcome: Outcome,
    /// What was brought into templates and is taken back: for a console that nobody can ask, as its master's start takes nothing
    /// back.
    #[serde(skip_serializing_if = "Option::is_none")]
    templates: Option<TakenBack>,
}

/// `tars-init keep-columns`: the same by hand, or before a container starts that has no tars-init. The document is the last
/// line of stdout.
pub fn run(paths: &Paths, scope: Scope, dry_run: bool) -> Result<(), Failure> {
    let environment = Environment::read(ImageRole::Framework)?;
    let server = Server::of(environment.account()?);
    let server = if dry_run { server.asking_only() } else { server };
    let version = environment.version.as_deref();
    let outcome = match scope {
        Scope::AnyConsole => {
            let stays = |table: &table::InstalledTable, column: &str| {
                // Without a key nothing stays, which is said.
                is_mistake(&table.schema, &table.name, column)
                    || table.row_keys.first().is_some_and(|key| key.iter().any(|own| own == column))
            };
            keep::keep(&server, SCHEMAS.into_iter(), &stays, version)?
        }
        Scope::OwnConsole => {
            let unknown = |why: String| {
                Failure::new(
                    Code::Configuration,
                    format!("which columns the web console knows cannot be told: {why}."),
                    "`tars-init keep-columns --all` keeps every column, whichever console comes.",
                )
            };
            let web = web::find(paths).map_err(unknown)?;
            let known = web.known_columns(paths).map_err(unknown)?;
            keep_unknown(&server, &known, version)?
        }
    };
    let is_whole = outcome.not_kept.is_empty();
    let templates =
        (scope == Scope::AnyConsole).then(|| migrate::take_back(&server, paths, version)).transpose()?;
    probe::print(&Document { version: 1, dry_run, outcome, templates }, true)?;
    if is_whole {
        return Ok(());
    }
    Err(Failure::new(
        Code::Configuration,
        "not every column is kept: the document names those that are not.",
        "A web console that does not know them drops them with their values: save these tables by hand.",
    ))
}
