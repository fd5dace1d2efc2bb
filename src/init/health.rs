//! Health: is this container to be left alone? Its own processes answer, and the web console where one runs here.
//!
//! An open port is not health, and an answer at our address may be another container's: the socket must be held by a
//! process below our PID 1. A database that is away makes nothing unhealthy; whether a rollout's step is proven is
//! another question, which `cluster` answers.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use serde::Serialize;

use crate::tars::ping;
use crate::tars::wire::CallError;
use crate::tars::{Role, Service};

use super::address;
use super::database::{DB_TARS, DatabaseError, Presence, Server};
use super::environment::{Account, Environment, ImageRole};
use super::failure::{Code, Failure};
use super::own_processes::{OwnProcesses, SocketOwner};
use super::paths::Paths;
use super::rows;
use super::run_state::RunState;
use super::stamp;
use super::web;

/// For one ping; the health check of the image may take five seconds in all.
const PING: Duration = Duration::from_secs(2);
/// How soon a process of this container takes a connection, unless it is stuck with a full queue.
const AT_ONCE: Duration = Duration::from_millis(100);
/// For one answer of the database, and for all that is asked of it (a name look-up has no limit of its own).
const QUERY: Duration = Duration::from_millis(1500);
/// How long its answer counts for a health check in which nobody is silent.
const KNOWN_FOR: Duration = Duration::from_secs(10);
const DATABASE: Duration = Duration::from_secs(3);

/// One servant's answer.
#[derive(Clone, Debug, Serialize)]
pub struct ServantAnswer {
    /// Such as `tars.tarsregistry.QueryObj`.
    pub name: String,
    /// Its TCP port.
    pub port: u16,
    /// It answered, and it is alive.
    pub ok: bool,
    /// Why it is not, in a few words; else empty.
    pub detail: String,
    /// The service that it belongs to.
    #[serde(skip)]
    pub service: Service,
    #[serde(skip)]
    at: Option<SocketAddr>,
}

/// What the database says, as far as it can be asked.
#[derive(Clone, Debug)]
pub enum Database {
    /// A node has no account there.
    NotAsked,
    /// TARS is installed, and these services are not to run here.
    Exists(BTreeSet<Service>),
    /// It answers, and holds no TARS.
    Absent,
    /// It cannot be asked, and why.
    Unknown(String),
}

/// One look at this container.
pub struct Look {
    /// Every servant of the role.
    pub servants: Vec<ServantAnswer>,
    /// How the web console answers, where one must run.
    pub web: Option<Result<(), String>>,
    /// What the database says.
    pub database: Database,
    /// What an administrator has stopped.
    pub unwanted: BTreeSet<Service>,
    /// The servants that must answer and do not, and the web console, each with the reason.
    pub complaints: Vec<String>,
    /// Some of them have not answered yet since their start.
    pub is_starting: bool,
}

/// True when every servant of the service answers within `limit`, from a process below `init`.
pub fn answers(service: Service, host: &str, limit: Duration, init: Pid) -> bool {
    let asked: Option<Vec<SocketAddr>> = service
        .servants()
        .iter()
        .map(|servant| {
            let at = address::socket(host, servant.port).ok()?;
            ping::ping(at, &service.servant_name(*servant), limit).ok().map(|()| at)
        })
        .collect();
    asked.is_some_and(|asked| !OwnProcesses::below(init).holders(&asked).contains(&SocketOwner::Foreign))
}

/// Pings the servants of all these services at once, whoever answers.
pub fn ping_all(services: &[Service], host: &str) -> Vec<ServantAnswer> {
    // A name is looked up once.
    let at = address::socket(host, 0);
    let deadline = Instant::now() + PING;
    let asked: Vec<_> = services
        .iter()
        .flat_map(|service| service.servants().iter().map(move |servant| (*service, *servant)))
        .map(|(service, servant)| {
            let name = service.servant_name(servant);
            let at = at.as_ref().map(|at| SocketAddr::new(at.ip(), servant.port));
            let pending = match at {
                Ok(at) => Pending::ask(at, &name),
                Err(error) => Pending::Answered(Err(error.to_string())),
            };
            (
                ServantAnswer {
                    name,
                    port: servant.port,
                    ok: false,
                    detail: String::new(),
                    service,
                    at: at.ok(),
                },
                pending,
            )
        })
        .collect();
    let answered = asked.into_iter().map(|(mut servant, pending)| {
        let answer = pending.answer(deadline);
        servant.ok = answer.is_ok();
        servant.detail = answer.err().unwrap_or_default();
        servant
    });
    answered.collect()
}

/// A ping under way.
pub enum Pending {
    /// Nothing is waited for any more.
    Answered(Result<(), String>),
    /// The question is sent.
    Asked(ping::Asked),
    /// Whoever does not take the connection at once gets a thread: nobody waits for it.
    InThread(thread::JoinHandle<Result<(), String>>),
}

impl Pending {
    /// Asks for this object.
    pub fn ask(at: SocketAddr, servant: &str) -> Self {
        match ping::ask(at, servant, AT_ONCE, PING) {
            Ok(asked) => Self::Asked(asked),
            Err(CallError::TimedOut) => {
                let servant = servant.to_owned();
                Self::InThread(thread::spawn(move || {
                    ping::ping(at, &servant, PING).map_err(|error| error.to_string())
                }))
            }
            Err(error) => Self::Answered(Err(error.to_string())),
        }
    }

    /// Waits until then; why there is no good answer, in words.
    pub fn answer(self, deadline: Instant) -> Result<(), String> {
        match self {
            Self::Answered(answer) => answer,
            Self::Asked(asked) => asked.answer(deadline).map_err(|error| error.to_string()),
            Self::InThread(thread) => {
                thread.join().unwrap_or_else(|_| Err("it could not be asked".to_owned()))
            }
        }
    }
}

/// Which of the entrypoints this container was started with; health checks are not told.
pub fn image_role(paths: &Paths) -> ImageRole {
    match fs::read_to_string(paths.started_mark()).as_deref().map(str::trim) {
        Ok("node") => ImageRole::Node,
        Ok("framework") => ImageRole::Framework,
        _ if paths.program(Service::Registry).is_file() => ImageRole::Framework,
        _ => ImageRole::Node,
    }
}

/// Whether the database must be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asking {
    /// It is.
    Always,
    /// Where nobody is silent but whom it named a few seconds ago, that counts: this is asked every two seconds.
    NowAndThen,
}

/// Asks everything at once: servants, sockets, web console and database.
pub fn look(paths: &Paths, environment: &Environment, host: &str, asking: Asking) -> Look {
    let run_state = RunState::of(paths);
    let mut own = run_state.init().map(|init| OwnProcesses::seen_before(init, run_state.held()));
    let is_known = asking == Asking::NowAndThen && run_state.has_asked_within(KNOWN_FOR);
    let asked = (!is_known).then(|| ask_database(environment, paths, host));
    let web = must_run_web(paths, environment).then(|| {
        let mut own = own.clone();
        thread::spawn(move || {
            let at = own.as_mut().and_then(|own| own.listens_on(crate::tars::catalogue::WEB_PORT));
            (at.map(web::ask), own.map(|own| own.seen).unwrap_or_default())
        })
    });
    let mut servants = ping_all(environment.role.services(), host);
    note_owners(&mut servants, own.as_mut(), &run_state);
    let mut held = own.as_ref().map(|own| own.seen.clone()).unwrap_or_default();
    let web = web.map(|web| {
        let (answer, of_web) = web.join().unwrap_or_default();
        held.extend(of_web);
        answer.unwrap_or_else(|| Err("nothing of this container listens".to_owned()))
    });
    run_state.note_held(&held);
    let known = run_state.unwanted();
    let is_as_known = || servants.iter().all(|servant| servant.ok || known.contains(&servant.service));
    let database = match asked {
        None if is_as_known() => Database::Exists(known),
        // Somebody has fallen silent since: there is less time left for the question.
        None => answer_of(&ask_database(environment, paths, host), QUERY),
        Some(asked) => answer_of(&asked, DATABASE),
    };
    let unwanted = match &database {
        Database::Exists(unwanted) => {
            if !is_known {
                run_state.note_asked();
            }
            run_state.note_unwanted(unwanted);
            unwanted.clone()
        }
        // An administrator's stop is not undone by a database that is away.
        _ => run_state.unwanted(),
    };
    let sick: Vec<&mut ServantAnswer> =
        servants.iter_mut().filter(|servant| !servant.ok && !unwanted.contains(&servant.service)).collect();
    let (mut complaints, mut is_starting) = (Vec::new(), own.is_none());
    for servant in sick {
        let runs = own.as_ref().is_some_and(|own| own.runs(&paths.program(servant.service)));
        match run_state.answered(servant.service) {
            Some(process) if process.lives() => servant.detail.push_str(", and it has answered before"),
            Some(_) if !runs => servant.detail.push_str(": its process has ended"),
            _ => is_starting = true,
        }
        complaints.push(format!("{} ({})", servant.name, servant.detail));
    }
    if let Some(Err(why)) = &web {
        complaints.push(format!("the web console on {} ({why})", crate::tars::catalogue::WEB_PORT));
    }
    Look { servants, web, database, unwanted, complaints, is_starting }
}

/// Whose answers these are; what our own answered is remembered.
fn note_owners(servants: &mut [ServantAnswer], own: Option<&mut OwnProcesses>, run_state: &RunState) {
    let asked: Vec<SocketAddr> = servants.iter().filter_map(|servant| servant.at).collect();
    let holders = own.map_or_else(|| vec![SocketOwner::Foreign; asked.len()], |own| own.holders(&asked));
    for (servant, holder) in servants.iter_mut().filter(|servant| servant.at.is_some()).zip(holders) {
        match holder {
            SocketOwner::Own(process) if servant.ok => run_state.note_answer(servant.service, process),
            SocketOwner::Foreign if servant.ok => {
                servant.ok = false;
                "it is no process of this container that answers".clone_into(&mut servant.detail);
            }
            _ => {}
        }
    }
}

fn answer_of(asked: &mpsc::Receiver<Database>, limit: Duration) -> Database {
    let unknown = || Database::Unknown(format!("no answer within {} s", limit.as_secs_f32()));
    asked.recv_timeout(limit).unwrap_or_else(|_| unknown())
}

/// In a thread: nothing may wait for it longer than it can afford.
fn ask_database(environment: &Environment, paths: &Paths, host: &str) -> mpsc::Receiver<Database> {
    let (sender, receiver) = mpsc::channel();
    let (account, role, host) = (environment.database.clone(), environment.role, host.to_owned());
    let former = stamp::former(paths);
    thread::spawn(move || {
        let said = match account {
            None => Database::NotAsked,
            Some(account) => query(&account, role, &host, &former).unwrap_or_else(|error| {
                Database::Unknown(format!("{}: {error}", Server::of(&account).place()))
            }),
        };
        let _ = sender.send(said);
    });
    receiver
}

fn query(account: &Account, role: Role, host: &str, former: &[String]) -> Result<Database, DatabaseError> {
    let mut session = Server::of(account).answering_within(QUERY).connect(None)?;
    match rows::unwanted(&mut session, role, host, former) {
        Ok(unwanted) => Ok(Database::Exists(unwanted)),
        // Refused: which of its tables is not there?
        Err(error) if error.number().is_some() => match session.presence(DB_TARS)? {
            Presence::Exists { tables } if tables > 0 => Err(error),
            _ => Ok(Database::Absent),
        },
        Err(error) => Err(error),
    }
}

fn must_run_web(paths: &Paths, environment: &Environment) -> bool {
    environment.role == Role::Master && web::find(paths).is_ok()
}

/// `tars-init health`: exit code 0 or 1, and one line that says why.
pub fn run(paths: &Paths) -> Result<(), Failure> {
    let unhealthy = |message: String| Failure::new(Code::Unhealthy, message, "");
    let environment = Environment::read(image_role(paths)).map_err(|failure| unhealthy(failure.message))?;
    let host = address::own(&environment.naming).map_err(|failure| unhealthy(failure.message))?;
    let look = look(paths, &environment, &host, Asking::NowAndThen);
    let text = look.in_words();
    if !look.complaints.is_empty() {
        return Err(unhealthy(text));
    }
    // Docker keeps what a health check says.
    let _ = writeln!(std::io::stdout(), "{text}");
    Ok(())
}

impl Look {
    /// One line.
    pub fn in_words(&self) -> String {
        let mut text = if self.complaints.is_empty() {
            format!("healthy: {} servants answer", self.servants.iter().filter(|servant| servant.ok).count())
        } else {
            let word = if self.is_starting { "starting: " } else { "" };
            format!(
                "{word}{} of {} servants do not answer: {}",
                self.complaints.len(),
                self.servants.len(),
                self.complaints.join(", ")
            )
        };
        match &self.database {
            Database::Unknown(why) if self.is_starting => {
                text = format!("{text}; waits for the database at {why}");
            }
            Database::Unknown(why) => text = format!("{text}; the database cannot be asked just now: {why}"),
            Database::Absent => text.push_str("; the database holds no TARS"),
            Database::NotAsked | Database::Exists(_) => {}
        }
        text
    }
}
