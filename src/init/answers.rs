//! Asks who lives whether it answers, and the database whom an administrator wants to be left alone.

use std::collections::BTreeSet;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::unistd::Pid;

use crate::tars::Service;
use crate::tars::catalogue::WEB_PORT;

use super::database::{DatabaseError, Server};
use super::environment::Environment;
use super::health;
use super::own_processes::OwnProcesses;
use super::paths::Paths;
use super::rows;
use super::silence::{Answer, Question, Supervised};
use super::stamp;
use super::web;

/// For the database: who it cannot tell to leave alone is left alone.
const DATABASE: Duration = Duration::from_secs(1);

/// Asks in a thread, as any of it may hang, and tells the answer there.
pub fn ask(
    question: Question,
    environment: &Environment,
    paths: &Paths,
    address: &str,
    tell: impl FnOnce(Answer) + Send + 'static,
) {
    let (environment, paths, address) = (environment.clone(), paths.clone(), address.to_owned());
    let init = Pid::this();
    thread::spawn(move || {
        let answering = answering(&question, &address, init);
        let unwanted =
            question.database.then(|| unwanted(&environment, &paths, &address).ok().flatten()).flatten();
        let lives = question.lives.into_iter().map(|(what, life)| (what, life, answering.contains(&what)));
        tell(Answer { lives: lives.collect(), unwanted });
    });
}

/// Whoever answers at its address: for a restart there must be silence.
fn answering(question: &Question, address: &str, init: Pid) -> BTreeSet<Supervised> {
    let asked = question.lives.iter().map(|(what, _)| *what);
    let services: Vec<Service> = asked.clone().filter_map(Supervised::service).collect();
    let servants = health::ping_all(&services, address);
    asked
        .filter(|what| match what.service() {
            Some(service) => {
                servants.iter().filter(|servant| servant.service == service).all(|servant| servant.ok)
            }
            None => OwnProcesses::below(init).listens_on(WEB_PORT).is_some_and(|at| web::ask(at).is_ok()),
        })
        .collect()
}

/// The same within a moment, whatever hangs: PID 1 itself waits for it. `Err` where the database does not say.
pub fn unwanted_soon(
    environment: &Environment,
    paths: &Paths,
    address: &str,
) -> Result<BTreeSet<Service>, ()> {
    let (sender, receiver) = mpsc::channel();
    let (environment, paths, address) = (environment.clone(), paths.clone(), address.to_owned());
    thread::spawn(move || sender.send(unwanted(&environment, &paths, &address).map_err(|_| ())));
    // A node has no account: nobody can stop its tarsnode there.
    receiver.recv_timeout(DATABASE + DATABASE / 2).map_err(|_| ())?.map(Option::unwrap_or_default)
}

/// What the database says that an administrator does not want here; `None` where there is no account to ask it with.
pub fn unwanted(
    environment: &Environment,
    paths: &Paths,
    address: &str,
) -> Result<Option<BTreeSet<Service>>, DatabaseError> {
    let Some(account) = &environment.database else { return Ok(None) };
    let mut session = Server::of(account).answering_within(DATABASE).connect(None)?;
    rows::unwanted(&mut session, environment.role, address, &stamp::former(paths)).map(Some)
}
