//! PID 1 of the images: signals, children, database, configuration, health.
//!
//! [`main`] reads as its specification. This module knows TARS and one MySQL server; it knows nothing of images,
//! engines or deployments, and never drops a table or a schema.

mod account;
mod address;
mod answers;
mod backoff;
mod boot;
mod cluster;
mod columns;
mod crashes;
mod database;
mod deployed;
mod displaced;
mod downloads;
mod drain;
mod environment;
mod facts;
mod failure;
mod finish;
mod guard;
mod health;
mod history;
mod identity;
mod inside;
mod instances;
mod layout;
mod lean;
mod lock;
mod migrate;
mod output_log;
mod own_processes;
mod paths;
mod probe;
mod processes;
mod programs;
mod published;
mod publishing;
mod readdress;
mod registries;
mod render;
mod room;
mod rows;
mod run_state;
mod runnable;
mod save;
mod schema;
mod schema_report;
mod scripts;
mod secret;
mod server_words;
mod services;
mod shape;
mod shared_memory;
mod signals;
mod silence;
mod socket_diag;
mod sockets;
mod sql;
mod stamp;
mod start_log;
mod statement_watch;
mod stopping;
mod supervisor;
mod templates;
mod tls;
mod touched;
mod traffic;
mod upgrade_conf;
mod versions;
mod web;

use std::io::Write;
use std::process::ExitCode;
use std::sync::mpsc;

use nix::sys::prctl;

use crate::tars::Role;

use environment::{Environment, ImageRole, Naming};
use failure::{Code, Failure};
use finish::Finish;
use paths::Paths;
use render::Substitution;
use run_state::RunState;
use signals::Stop;
use start_log::StartLog;
use supervisor::Supervisor;

const USAGE: &str = "usage: tars-init framework | node | health [--verbose] | status | env | probe --json | published --json | shared-memory | cluster --json [--ask ADDRESS --role ROLE | --facts] | \
     cluster --serve | drain begin|look|end|back ORDER | traffic [--connected] PORT... | runnable ORDER | migrate [--finish] [--dry-run | --save FILE] | keep-columns [--all] [--dry-run] | templates --json | templates take|keep NAME | templates take-back | accept-database | accept-version | readdress OLD NEW [--dry-run] | version";

/// The whole program.
pub fn main() -> ExitCode {
    let arguments: Vec<String> =
        std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let paths = Paths::of_container();
    let done = match words.as_slice() {
        ["framework"] => run(ImageRole::Framework, &paths),
        ["node"] => run(ImageRole::Node, &paths),
        ["migrate"] => run_migrate(&paths, save::Keeper::of_environment().as_ref()),
        ["migrate", "--save", file] => run_migrate(&paths, Some(&save::Keeper::File(file.into()))),
        ["migrate", "--finish"] => run_finish(&paths, &Finish::Remove(save::Keeper::of_environment())),
        ["migrate", "--finish", "--save", file] => {
            run_finish(&paths, &Finish::Remove(Some(save::Keeper::File(file.into()))))
        }
        ["migrate", "--finish", "--dry-run"] => run_finish(&paths, &Finish::DryRun),
        ["migrate", "--dry-run"] => migrate::dry_run(&paths),
        ["keep-columns"] => columns::run(&paths, columns::Scope::OwnConsole, false),
        ["keep-columns", "--dry-run"] => columns::run(&paths, columns::Scope::OwnConsole, true),
        ["keep-columns", "--all"] => columns::run(&paths, columns::Scope::AnyConsole, false),
        ["keep-columns", "--all", "--dry-run"] => columns::run(&paths, columns::Scope::AnyConsole, true),
        ["templates", "--json"] => migrate::templates(&paths, templates::Wish::Show),
        ["templates", "take-back"] => migrate::take_templates_back(&paths),
        ["templates", "take", name] => migrate::templates(&paths, templates::Wish::Take(name)),
        ["templates", "keep", name] => migrate::templates(&paths, templates::Wish::Keep(name)),
        ["readdress", old, new] => readdress::run(old, new, false),
        ["readdress", old, new, "--dry-run"] => readdress::run(old, new, true),
        ["accept-version"] => migrate::accept_version(),
        ["accept-database"] => stamp::accept(&paths),
        ["health"] => health::run(&paths),
        ["health", "--verbose" | "-v"] => inside::verbose_health(&paths),
        ["status"] => inside::status(&paths),
        ["env"] => inside::env(&paths),
        ["probe"] | ["probe", "--json"] => probe::run(&paths),
        ["published", "--json"] => published::run(&paths),
        ["shared-memory"] => shared_memory::run(),
        ["cluster", "--serve"] => cluster::serve(),
        ["cluster", "--json"] => cluster::run(None),
        ["cluster", "--json", rest @ ..] if let Some(question) = cluster::Question::parse(rest) => {
            cluster::run(Some(&question))
        }
        ["drain", act, order] => drain::run(act, order),
        ["runnable", order] => runnable::run(&paths, order),
        ["traffic", ports @ ..] => traffic::run(ports),
        ["version" | "--version"] => print(&format!("tars-init {}", env!("CARGO_PKG_VERSION"))),
        ["help" | "--help" | "-h"] => print(USAGE),
        other => {
            Err(Failure::new(Code::Environment, format!("`{}` is not understood.", other.join(" ")), USAGE))
        }
    };
    match done {
        Ok(()) => ExitCode::from(Code::Done as u8),
        Err(failure) => {
            if !failure.message.is_empty() {
                let _ = writeln!(std::io::stderr(), "tars-init: {failure}");
            }
            ExitCode::from(failure.code as u8)
        }
    }
}

/// PID 1: from the environment to healthy services, until told to stop.
fn run(image: ImageRole, paths: &Paths) -> Result<(), Failure> {
    lean::begin_again();
    let log = StartLog::begin();
    guard::check()?;
    let environment = Environment::read(image)?;
    let events = mpsc::channel();
    let stop = signals::listen(&log, events.0.clone(), Code::Done)?;
    become_subreaper()?;
    services::allow_core_dumps();
    // Whatever is cut off before the first service is done again by the next start.
    let ready = stop.may_exit_during(|| prepare(environment, paths, &stop, &log))?;
    let Ready { environment, address, prepared, web } = &ready;
    let (prepared, web) = (prepared.clone(), web.clone());
    Supervisor { log: &log, paths, environment, address, prepared, web, stop, events }.run();
    Ok(())
}

/// What the supervisor gets.
struct Ready {
    environment: Environment,
    address: String,
    prepared: boot::Prepared,
    web: Option<web::Web>,
}

/// All that comes before the first service.
fn prepare(environment: Environment, paths: &Paths, stop: &Stop, log: &StartLog) -> Result<Ready, Failure> {
    let run_state = RunState::of(paths);
    if let Err(error) = run_state.begin() {
        log.say(format!("warning: nothing can be remembered for health checks: {error}"));
    }

    let address = address::own(&environment.naming)?;
    log.say(introduction(&environment, &address));
    if let Some(doubt) = doubt(&environment.naming) {
        log.say(format!("warning: {doubt}"));
    }
    let is_new = !paths.started_mark().exists();
    services::check_programs(paths, environment.role.services())?;
    room::prove(paths)?;
    layout::prepare(paths, environment.role.services(), log)?;
    identity::judge(&environment, paths, &address, log)?;

    let services = environment.role.services();
    let unchanged =
        if is_new { services.iter().copied().collect() } else { programs::unchanged(paths, services) };
    if !is_new {
        let replaced = programs::replaced(paths, services);
        if !replaced.is_empty() {
            let names = replaced.iter().map(|service| service.name()).collect::<Vec<_>>().join(", ");
            log.say(format!("published over the image's own, and gone with this container: {names}"));
        }
    }
    let container = displaced::container_id(paths).map_err(|error| {
        Failure::new(Code::Configuration, format!("cannot note which container this is: {error}."), "")
    })?;
    let node = rows::Registrant {
        role: environment.role,
        address: &address,
        container: &container,
        version: environment.version.as_deref(),
        is_new,
        unchanged: &unchanged,
    };
    let web = find_web(&environment, paths, log);
    let prepared = boot::prepare(&environment, paths, node, web.as_ref(), stop, log)?;
    run_state.note_unwanted(&prepared.left_out(services));
    let substitution =
        Substitution::new(paths, &address, environment.database.as_ref(), prepared.registries.clone());
    render::render(paths, environment.role.services(), &substitution)?;
    if let (Some(_), Some(account)) = (&web, &environment.database) {
        web::Web::render(paths, &address, account).map_err(|error| {
            let why = format!("cannot write the web console's configuration: {error}.");
            Failure::new(Code::Configuration, why, "")
        })?;
    }
    if is_new && web.is_some() {
        downloads::discard(paths).map_err(|error| {
            Failure::new(
                Code::Configuration,
                format!("cannot take away what another version serves: {error}."),
                "",
            )
        })?;
    }
    note_start(paths, environment.role, &address, is_new).map_err(|error| {
        Failure::new(Code::Configuration, format!("cannot note the first start: {error}."), "")
    })?;

    Ok(Ready { environment, address, prepared, web })
}

fn note_start(paths: &Paths, role: Role, address: &str, is_new: bool) -> std::io::Result<()> {
    if role == Role::Node {
        identity::note(paths, address)?;
    }
    if is_new {
        programs::note(paths, role.services())?;
    }
    render::write(&paths.started_mark(), supervisor::mark(role))
}

fn run_migrate(paths: &Paths, keeper: Option<&save::Keeper>) -> Result<(), Failure> {
    let log = StartLog::begin();
    let stop = signals::listen(&log, mpsc::channel().0, Code::Interrupted)?;
    migrate::run(paths, keeper, &stop, &log)
}

fn run_finish(paths: &Paths, finish: &Finish) -> Result<(), Failure> {
    let log = StartLog::begin();
    let stop = signals::listen(&log, mpsc::channel().0, Code::Interrupted)?;
    finish::run(paths, finish, &stop, &log)
}

/// tarsnode daemonizes by a double fork: its grandchildren must become ours to be reaped and stopped.
fn become_subreaper() -> Result<(), Failure> {
    if std::process::id() == 1 {
        return Ok(());
    }
    prctl::set_child_subreaper(true).map_err(|error| {
        Failure::new(Code::Internal, format!("cannot become the parent of orphans: {error}."), "")
    })
}

fn introduction(environment: &Environment, address: &str) -> String {
    let version = environment.version.as_deref().unwrap_or("of unknown version");
    let place = match &environment.database {
        Some(account) => format!("database {account:?}"),
        None => environment.locator.to_string(),
    };
    format!("TARS {version}, {} at {address}, {place}", environment.role)
}

fn doubt(naming: &Naming) -> Option<String> {
    match naming {
        Naming::Domain(domain) => address::doubt(domain),
        Naming::Interfaces(_) => None,
    }
}

/// The web console of a master's image.
fn find_web(environment: &Environment, paths: &Paths, log: &StartLog) -> Option<web::Web> {
    if environment.role != Role::Master || environment.database.is_none() {
        return None;
    }
    match web::find(paths) {
        Ok(web) => {
            web.ask_ahead(paths);
            Some(web)
        }
        Err(why) => {
            log.say(format!("{why}: none is started"));
            None
        }
    }
}

fn print(text: &str) -> Result<(), Failure> {
    writeln!(std::io::stdout(), "{text}")
        .map_err(|error| Failure::new(Code::Internal, format!("cannot write: {error}."), ""))
}
