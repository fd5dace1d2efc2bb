//! `tars-init cluster --json`: what the database knows of the nodes, and what a container answers from outside, in one
//! document. It runs by exec in one container beside the deployment (`cluster --serve` keeps that one up), because a
//! container whose database is away, or that has no tars-init, cannot prove itself.

use std::collections::BTreeSet;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use serde::Serialize;

use crate::tars::catalogue::WEB_PORT;
use crate::tars::{Instance, PROTOCOL, Role, Service};

use super::address;
use super::database::{DB_TARS, DatabaseError, Presence, Server};
use super::deployed::{self, Seen, Served};
use super::environment::Account;
use super::facts::Facts;
use super::failure::{Code, Failure};
use super::health::{self, ServantAnswer};
use super::instances;
use super::probe;
use super::rows;
use super::signals;
use super::start_log::StartLog;
use super::web;

/// For one answer of the database, and for all of them together.
const QUERY: Duration = Duration::from_secs(2);
const DATABASE: Duration = Duration::from_secs(6);

/// The document.
#[derive(Debug, Default, Serialize)]
struct ClusterReport {
    protocol: u32,
    /// `exists`, `absent`, `unknown`, or `not-asked` where no account is named.
    database: &'static str,
    /// Why it is unknown; else empty.
    detail: String,
    /// The database's clock.
    now: Option<String>,
    /// `t_node_info`
    nodes: Vec<rows::Registration>,
    /// The container that was asked from outside.
    asked: Option<Asked>,
    /// The framework's services that somebody stopped or drained; null where nobody knows.
    stopped: Option<Vec<rows::Stopped>>,
    /// What is asked before an upgrade; left out where nobody asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    facts: Option<Facts>,
}

/// A container as it answers from outside.
#[derive(Debug, Serialize)]
struct Asked {
    address: String,
    role: &'static str,
    healthy: bool,
    servants: Vec<ServantAnswer>,
    problems: Vec<String>,
    /// Whatever else is deployed there and must run, as far as it answers out here.
    deployed: Vec<Served>,
    /// The same of those that answer nobody out here: they run, as their tarsnode reported last.
    untold: Vec<String>,
}

/// What is asked beside the nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// `--ask ADDRESS --role ROLE`
    Outside(Outside),
    /// `--facts`
    Facts,
}

/// What `--ask ADDRESS --role ROLE` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outside {
    /// Where the container's servants are.
    pub address: String,
    /// Which servants it must have.
    pub role: Role,
}

impl Outside {
    /// True for what must run there and is no part of the framework that the container starts by itself.
    fn has_deployed(&self, one: &Instance) -> bool {
        let own = |service: &Service| one.server.strip_prefix("tars.") == Some(service.name());
        one.node == self.address && one.setting && !one.runs_beside() && !self.role.services().iter().any(own)
    }
}

impl Question {
    /// From the words after `cluster --json`.
    pub fn parse(words: &[&str]) -> Option<Self> {
        let (address, role) = match words {
            ["--facts"] => return Some(Self::Facts),
            ["--ask", address, "--role", role] | ["--role", role, "--ask", address] => (*address, *role),
            _ => return None,
        };
        let role = [Role::Master, Role::Slave, Role::Node].into_iter().find(|known| known.name() == role)?;
        Some(Self::Outside(Outside { address: address.to_owned(), role }))
    }
}

/// Prints the document; exit code 0 when the database (where one is named) and the container that is asked answer.
pub fn run(question: Option<&Question>) -> Result<(), Failure> {
    let mut report = ClusterReport { protocol: PROTOCOL, database: "not-asked", ..ClusterReport::default() };
    report.facts = (question == Some(&Question::Facts)).then(Facts::of_this_container);
    let there = match Account::read() {
        Ok(None) => There::default(),
        Ok(Some(account)) => ask_database(account, question.cloned(), &mut report),
        Err(failure) => {
            (report.database, report.detail) = ("unknown", failure.message);
            There::default()
        }
    };
    report.asked = match question {
        Some(Question::Outside(outside)) => Some(ask(outside, &there)),
        Some(Question::Facts) | None => None,
    };
    let is_well = matches!(report.database, "exists" | "not-asked")
        && report.asked.as_ref().is_none_or(|asked| asked.healthy);
    probe::print(&report, is_well)
}

/// What the database knows.
struct DatabaseAnswer {
    presence: Presence,
    now: String,
    nodes: Vec<rows::Registration>,
    stopped: Vec<rows::Stopped>,
    there: There,
    facts: Option<Facts>,
}

/// What is known of the container that is asked.
#[derive(Debug, Default)]
struct There {
    /// The services that an administrator stopped.
    unwanted: BTreeSet<Service>,
    /// What else must run there.
    deployed: Vec<Instance>,
}

/// In a thread: a name that does not resolve has no time-out of its own, and whoever asks waits for this document.
fn ask_database(account: Account, question: Option<Question>, report: &mut ClusterReport) -> There {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let _ = sender.send(
            query_database(&account, question.as_ref())
                .map_err(|error| format!("{}: {error}", Server::of(&account).place())),
        );
    });
    let known = receiver
        .recv_timeout(DATABASE)
        .unwrap_or_else(|_| Err(format!("no answer within {} s", DATABASE.as_secs())));
    match known {
        Ok(known) => {
            let is_there = matches!(known.presence, Presence::Exists { tables } if tables > 0);
            report.database = if is_there { "exists" } else { "absent" };
            report.now = Some(known.now);
            report.nodes = known.nodes;
            report.stopped = is_there.then_some(known.stopped);
            report.facts = known.facts.or(report.facts.take());
            known.there
        }
        Err(why) => {
            (report.database, report.detail) = ("unknown", why);
            There::default()
        }
    }
}

fn query_database(account: &Account, question: Option<&Question>) -> Result<DatabaseAnswer, DatabaseError> {
    let mut session = Server::of(account).answering_within(QUERY).connect(None)?;
    let presence = session.presence(DB_TARS)?;
    let now: Vec<String> = session.rows("asking for the time", "SELECT CAST(NOW() AS CHAR)", ())?;
    let now = now.into_iter().next().unwrap_or_default();
    let (nodes, stopped, there) = (Vec::new(), Vec::new(), There::default());
    let mut known = DatabaseAnswer { presence, now, nodes, stopped, there, facts: None };
    if matches!(presence, Presence::Exists { tables } if tables > 0) {
        known.nodes = rows::registrations(&mut session)?;
        known.stopped = rows::stopped(&mut session)?;
        match question {
            Some(Question::Outside(outside)) => {
                known.there.unwanted = rows::unwanted(&mut session, outside.role, &outside.address, &[])?;
                known.there.deployed = instances::all(&mut session)?;
                known.there.deployed.retain(|one| outside.has_deployed(one));
            }
            Some(Question::Facts) => {
                let mut facts = Facts::of_this_container();
                facts.ask(&mut session)?;
                known.facts = Some(facts);
            }
            None => {}
        }
    }
    Ok(known)
}

/// From outside nobody can tell whose process answers: the address must be the container's own.
fn ask(question: &Outside, there: &There) -> Asked {
    let host = question.address.clone();
    // Upstream's framework image has a web console always, and a slave starts none.
    let web = (question.role == Role::Master).then(|| {
        thread::spawn(move || web::ask(address::socket(&host, WEB_PORT).map_err(|error| error.to_string())?))
    });
    let servants = health::ping_all(question.role.services(), &question.address);
    let mut problems: Vec<String> = servants
        .iter()
        .filter(|servant| !servant.ok && !there.unwanted.contains(&servant.service))
        .map(|servant| format!("{} ({})", servant.name, servant.detail))
        .collect();
    if let Some(Ok(Err(why))) = web.map(thread::JoinHandle::join) {
        problems.push(format!("the web console on {WEB_PORT} ({why})"));
    }
    let Seen { deployed, untold } = deployed::see(&there.deployed);
    Asked {
        address: question.address.clone(),
        role: question.role.name(),
        healthy: problems.is_empty(),
        servants,
        problems,
        deployed,
        untold,
    }
}

/// Waits until told to stop, and buries what ends meanwhile: the container in which `cluster --json` is run.
pub fn serve() -> Result<(), Failure> {
    let (sender, events) = mpsc::channel();
    let _stop = signals::listen(&StartLog::begin(), sender, Code::Done)?;
    for event in events {
        match event {
            signals::Event::Stop => return Ok(()),
            _ => {
                while matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(status) if status != WaitStatus::StillAlive)
                {
                }
            }
        }
    }
    Err(Failure::new(Code::Internal, "no signal can reach it any more.", ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn question_names_an_address_and_a_role() {
        let question = Question::Outside(Outside { address: "172.25.0.3".to_owned(), role: Role::Master });
        assert_eq!(Question::parse(&["--facts"]), Some(Question::Facts));
        assert_eq!(Question::parse(&["--ask", "172.25.0.3", "--role", "master"]), Some(question.clone()));
        assert_eq!(Question::parse(&["--role", "master", "--ask", "172.25.0.3"]), Some(question));
        for wrong in [&[][..], &["--ask", "x"], &["--ask", "x", "--role", "database"], &["--all"]] {
            assert_eq!(Question::parse(wrong), None, "{wrong:?}");
        }
    }
}
