//! The supervisor: starts the services, reaps whatever dies, restarts tarsregistry, tarsnode and the web console.
//!
//! The other services are tarsnode's: it restarts them itself, and a second copy would be in its way. Only what has crashed
//! and is not back after two seconds is started here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::tars::{Role, Service};

use super::answers;
use super::backoff::{Backoff, Decision};
use super::boot::Prepared;
use super::columns;
use super::crashes::{Crashes, Obstacle};
use super::deployed::Node;
use super::downloads;
use super::environment::{Account, Endpoint, Environment};
use super::health;
use super::output_log;
use super::paths::Paths;
use super::processes::{self, Identity};
use super::programs;
use super::registries;
use super::room;
use super::services;
use super::signals::{Event, Stop};
use super::silence::{Answer, Circumstances, MOST_RESTARTS, Question, Silence, Supervised, Verdict};
use super::start_log::StartLog;
use super::stopping;
use super::web::{self, Web};

/// How often the programs' files are looked at: the web console fills one in days.
const LOGS: Duration = Duration::from_secs(30);
/// How often processes are looked at without a signal.
const TICK: Duration = Duration::from_millis(500);
/// How often a service that starts is asked whether it answers.
const ASK: Duration = Duration::from_millis(40);
/// When the start log first says that tarsnode waits for a registry; then with growing pauses.
const FIRST_WORD: Duration = Duration::from_secs(3);
/// After this time without an answer the start log names who is missing.
const LATE: Duration = Duration::from_secs(30);
/// A full volume is said again where something ends so much later.
const FULL_AGAIN: Duration = Duration::from_secs(5);

/// Everything that the supervisor acts on.
pub struct Supervisor<'a> {
    /// Where the lines go.
    pub log: &'a StartLog,
    /// Where everything lies.
    pub paths: &'a Paths,
    /// What we were told.
    pub environment: &'a Environment,
    /// This node's address.
    pub address: &'a str,
    /// What the preparation found.
    pub prepared: Prepared,
    /// The web console, if it runs here.
    pub web: Option<Web>,
    /// Set once we are to stop.
    pub stop: Stop,
    /// Where events come from, and where helper threads send them.
    pub events: (Sender<Event>, Receiver<Event>),
}

/// What changes while it runs.
struct State {
    children: BTreeMap<i32, Supervised>,
    backoffs: BTreeMap<Supervised, Backoff>,
    awaited: Vec<Service>,
    started: Instant,
    said_late: bool,
    /// Right after the container's own start, and only then.
    has_started_deployed: bool,
    looked_at_logs: Instant,
    silences: BTreeMap<Supervised, Silence>,
    is_asking: bool,
    database_since: Option<Instant>,
    begun: SystemTime,
    crashes: BTreeMap<Service, Crashes>,
    /// Killed here: their ends are no news.
    killed: BTreeSet<i32>,
    /// When the start log last said that the volume is full.
    said_full: Option<Instant>,
}

impl Supervisor<'_> {
    /// Runs until told to stop.
    pub fn run(self) {
        let mut state = State {
            children: BTreeMap::new(),
            backoffs: BTreeMap::new(),
            awaited: self.prepared.services.clone(),
            started: Instant::now(),
            said_late: false,
            has_started_deployed: false,
            looked_at_logs: Instant::now(),
            silences: BTreeMap::new(),
            is_asking: false,
            database_since: None,
            begun: SystemTime::now(),
            crashes: BTreeMap::new(),
            killed: BTreeSet::new(),
            said_full: None,
        };
        self.start_all(&mut state);
        while !self.stop.is_requested() {
            match self.events.1.recv_timeout(TICK) {
                Ok(Event::Answers(service)) => self.note_answer(&mut state, service),
                Ok(Event::RegistryAnswers) => self.start(&mut state, Supervised::Service(Service::Node)),
                Ok(Event::DownloadsMade) => self.start_again(&mut state, Supervised::Web),
                Ok(Event::ColumnsKept) => self.start(&mut state, Supervised::Web),
                Ok(Event::Asked(answer)) => self.judge_silences(&mut state, &answer),
                Ok(Event::Stop) => break,
                Ok(Event::ChildEnded) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
            self.reap(&mut state);
            self.watch(&mut state);
            self.start_what_crashed(&mut state);
            self.note_lateness(&mut state);
            self.ask_the_living(&mut state);
            if state.looked_at_logs.elapsed() >= LOGS {
                state.looked_at_logs = Instant::now();
                if let Err(error) = output_log::rotate(self.paths, output_log::LIMIT) {
                    self.log.say(format!("warning: what the programs print cannot be cut off: {error}"));
                }
            }
        }
        let web = self.own(&state, Supervised::Web);
        stopping::stop_all(self.log, self.paths, self.environment.grace, &web, &self.events.1);
    }

    fn start_all(&self, state: &mut State) {
        let names: Vec<_> = self.prepared.services.iter().map(|service| service.name()).collect();
        self.log.say(format!("starting {}", names.join(" ")));
        for service in self.prepared.services.iter().copied() {
            if service == Service::Node {
                // tarsnode gives up for ten minutes after five failures to reach a registry.
                self.await_registry();
            } else {
                self.start(state, Supervised::Service(service));
            }
            self.await_service(service);
        }
        if self.web.is_some() {
            self.make_downloads();
        }
    }

    /// In a thread: what nodes install from. The web console records it at its start, and waits for it.
    fn make_downloads(&self) {
        let (sender, paths, log) = (self.events.0.clone(), self.paths.clone(), self.log.clone());
        thread::spawn(move || {
            match downloads::make(&paths) {
                Ok(0) => {}
                Ok(made) => log.say(format!(
                    "{made} archives made for nodes that install from the web console, in {}",
                    paths.downloads().display()
                )),
                Err(error) => log.say(format!("warning: nodes cannot install from the web console: {error}")),
            }
            let _ = sender.send(Event::DownloadsMade);
        });
    }

    fn start(&self, state: &mut State, what: Supervised) {
        let started = match what {
            Supervised::Service(service) => services::start(self.paths, service, self.address),
            Supervised::Web => match &self.web {
                Some(web) => web.start(self.paths),
                None => return,
            },
        };
        let is_watched =
            matches!(what, Supervised::Service(Service::Registry | Service::Node) | Supervised::Web);
        if is_watched {
            state.backoffs.entry(what).or_default().begin(Instant::now());
        }
        match started {
            Ok(pid) => {
                state.children.insert(pid.as_raw(), what);
            }
            Err(error) => self.log.say(format!("{} cannot be started: {error}", name(what))),
        }
    }

    /// Asks in a thread until the service answers.
    fn await_service(&self, service: Service) {
        let (sender, host) = (self.events.0.clone(), self.address.to_owned());
        thread::spawn(move || {
            let begun = Instant::now();
            while !health::answers(service, &host, Duration::from_secs(1), Pid::this()) {
                pause_before_asking_again(begun);
            }
            let _ = sender.send(Event::Answers(service));
        });
    }

    /// Asks in a thread until one of the registries answers.
    fn await_registry(&self) {
        let (sender, registries) = (self.events.0.clone(), self.prepared.registries.clone());
        let log = self.log.clone();
        thread::spawn(move || {
            let begun = Instant::now();
            let mut next_word = FIRST_WORD;
            while !registries.iter().any(|registry| registries::ask(registry).is_ok()) {
                if begun.elapsed() >= next_word {
                    log.say(format!(
                        "tarsnode waits for a registry, none answers yet: {} ({} s)",
                        Endpoint::list(&registries),
                        begun.elapsed().as_secs()
                    ));
                    next_word = next_word * 2 + FIRST_WORD;
                }
                pause_before_asking_again(begun);
            }
            let _ = sender.send(Event::RegistryAnswers);
        });
    }

    /// Each of its starts may drop columns: what it does not know is kept before.
    fn await_kept_columns(&self) {
        let (Some(web), Some(account)) = (&self.web, &self.environment.database) else { return };
        let (web, paths, sender) = (web.clone(), self.paths.clone(), self.events.0.clone());
        let asked = web.clone();
        let console = move || asked.known_columns(&paths);
        columns::keep_before_start(
            account,
            console,
            self.environment.version.as_deref(),
            self.log,
            move |columns| {
                web.leave(columns);
                let _ = sender.send(Event::ColumnsKept);
            },
        );
    }

    fn note_answer(&self, state: &mut State, service: Service) {
        // It may fall silent before it is asked again.
        let now = Instant::now();
        if service.is_core()
            && let Some(silence) = self.silence(state, Supervised::Service(service), now)
        {
            silence.note_answer(now, self.environment.answer);
        }
        if service == Service::Node && !std::mem::replace(&mut state.has_started_deployed, true) {
            let node = Node {
                paths: self.paths.clone(),
                address: self.address.to_owned(),
                role: self.environment.role,
                registries: self.prepared.registries.clone(),
            };
            node.start_in_background(self.stop.clone(), self.log.clone());
        }
        let before = state.awaited.len();
        state.awaited.retain(|awaited| *awaited != service);
        if before > 0 && state.awaited.is_empty() {
            let count = self.prepared.services.len();
            let after = state.started.elapsed().as_secs_f32();
            self.log
                .say(format!("healthy: {count} services answer tars_ping, {after:.1} s after their start"));
        }
    }

    fn note_lateness(&self, state: &mut State) {
        if state.said_late || state.awaited.is_empty() || state.started.elapsed() < LATE {
            return;
        }
        state.said_late = true;
        let names: Vec<_> = state.awaited.iter().map(|service| service.name()).collect();
        self.log.say(format!("no answer yet from {}", names.join(", ")));
        for service in &state.awaited {
            self.say_log_tail(service.name());
        }
    }

    /// Takes every dead child, ours or adopted; PID 1 is the parent of all orphans.
    fn reap(&self, state: &mut State) {
        while let Some((pid, end)) = processes::next_dead() {
            let started_here = state.children.remove(&pid.as_raw());
            let known = started_here.or_else(|| {
                // tarsnode started it, and only its name is left of it.
                let own = self.environment.role.services().iter().copied();
                own.into_iter().find(|service| end.is_named(service.name())).map(Supervised::Service)
            });
            let (Some(what), false) = (known, state.killed.remove(&pid.as_raw())) else { continue };
            if (what == Supervised::Service(Service::Node) && end.is_clean()) || self.stop.is_requested() {
                continue; // it daemonized
            }
            let next = match what {
                Supervised::Service(Service::Registry | Service::Node) | Supervised::Web => String::new(),
                Supervised::Service(_) if end.is_clean() => "; tarsnode restarts it".to_owned(),
                Supervised::Service(service) => {
                    let after = state.crashes.entry(service).or_default().note(Instant::now());
                    format!("; tarsnode restarts it, or tars-init in {} s", after.as_secs())
                }
            };
            self.log.say(format!("{} (pid {pid}) {end}{next}", name(what)));
            // What tarsnode started prints elsewhere.
            if started_here.is_some() {
                self.say_log_tail(name(what));
            }
            self.say_if_full(state);
        }
    }

    /// Says that the volume is full; once where several services end of it together.
    fn say_if_full(&self, state: &mut State) {
        if state.said_full.is_some_and(|at| at.elapsed() < FULL_AGAIN) {
            return;
        }
        if let Some(shortage) = room::shortage(self.paths) {
            state.said_full = Some(Instant::now());
            self.log.say(shortage);
        }
    }

    fn say_log_tail(&self, name: &str) {
        let secrets = self.environment.database.as_ref().map(Account::secrets).unwrap_or_default();
        for line in output_log::tail(self.paths, name, &secrets) {
            self.log.say(format!("  {name}: {line}"));
        }
    }

    /// Restarts what is ours to restart.
    fn watch(&self, state: &mut State) {
        let watched: Vec<Supervised> = state.backoffs.keys().copied().collect();
        for what in watched {
            let alive = self.is_alive(state, what);
            let Some(backoff) = state.backoffs.get_mut(&what) else { continue };
            match backoff.look(alive, Instant::now()) {
                Decision::Leave => {}
                Decision::Died { restart_in } => {
                    let when = if restart_in.is_zero() {
                        "restarting".to_owned()
                    } else {
                        format!("restarting in {} s", restart_in.as_secs())
                    };
                    self.log.say(format!("{} is gone: {when}", name(what)));
                    self.say_if_full(state);
                    // What needs no pause gets none: within 50 ms tarsnode takes the new one for its own.
                    if restart_in.is_zero() {
                        self.restart(state, what);
                    }
                }
                Decision::Due => self.restart(state, what),
            }
        }
    }

    fn restart(&self, state: &mut State, what: Supervised) {
        if self.is_stopped_by_administrator(what) {
            self.log.say(format!("{} was stopped by an administrator: left alone", name(what)));
            if let Some(backoff) = state.backoffs.get_mut(&what) {
                backoff.leave_alone();
            }
            return;
        }
        self.start_again(state, what);
    }

    fn start_again(&self, state: &mut State, what: Supervised) {
        match what {
            Supervised::Service(Service::Node) => {
                if let Some(backoff) = state.backoffs.get_mut(&what) {
                    backoff.hold();
                }
                self.await_registry();
            }
            Supervised::Web => {
                state.backoffs.entry(what).or_default().hold();
                self.await_kept_columns();
            }
            Supervised::Service(_) => self.start(state, what),
        }
    }

    /// Starts what has crashed and tarsnode has not brought back, as tarsnode would: with the configuration that it left.
    fn start_what_crashed(&self, state: &mut State) {
        let now = Instant::now();
        let due = state.crashes.iter().filter(|(_, crashes)| crashes.is_due(now));
        let due: Vec<Service> = due.map(|(service, _)| *service).collect();
        let mut unwanted = None;
        for service in due {
            let what = Supervised::Service(service);
            let obstacle = if !stopping::own(self.paths, service).is_empty() {
                Err("")
            } else if programs::is_being_replaced(self.paths, service, state.begun) {
                Ok(Some(Obstacle::Published))
            } else {
                let ask = || answers::unwanted_soon(self.environment, self.paths, self.address);
                match unwanted.get_or_insert_with(ask) {
                    Err(()) => Ok(Some(Obstacle::Unknown)),
                    Ok(unwanted) if unwanted.contains(&service) => {
                        Err("was stopped by an administrator: left alone")
                    }
                    // The last look: tarsnode may have been faster.
                    Ok(_) if stopping::own(self.paths, service).is_empty() => Ok(None),
                    Ok(_) => Err(""),
                }
            };
            let Some(crashes) = state.crashes.get_mut(&service) else { continue };
            match obstacle {
                Err(why) => {
                    crashes.settle();
                    if !why.is_empty() {
                        self.log.say(format!("{service} {why}"));
                    }
                }
                Ok(Some(obstacle)) => {
                    if crashes.put_off(obstacle, now) {
                        self.log.say(format!("{service} is not started yet: {obstacle}"));
                    }
                }
                Ok(None) => {
                    crashes.settle();
                    self.log.say(format!("tarsnode has not brought {service} back: started"));
                    self.start(state, what);
                }
            }
        }
    }

    fn is_alive(&self, state: &State, what: Supervised) -> bool {
        let has_child = state.children.values().any(|child| *child == what);
        match what {
            Supervised::Service(service) => {
                has_child || !processes::running(&self.paths.program(service)).is_empty()
            }
            Supervised::Web => has_child,
        }
    }

    fn is_stopped_by_administrator(&self, what: Supervised) -> bool {
        let Supervised::Service(service) = what else { return false };
        answers::unwanted_soon(self.environment, self.paths, self.address)
            .is_ok_and(|unwanted| unwanted.contains(&service))
    }

    /// Asks the core services and the web console that live whether they answer, one round at a time.
    fn ask_the_living(&self, state: &mut State) {
        if state.is_asking {
            return;
        }
        let now = Instant::now();
        let core = self.prepared.services.iter().copied().filter(|service| service.is_core());
        let mut question = Question::default();
        for what in core.map(Supervised::Service).chain(self.web.is_some().then_some(Supervised::Web)) {
            let Some(silence) = self.silence(state, what, now) else { continue };
            // In each round, also for who is not due: a round without it would look like a database that is away.
            question.database |= silence.may_be_restarted();
            if silence.is_due(now) {
                question.lives.push((what, silence.life()));
            }
        }
        if !question.lives.is_empty() {
            state.is_asking = true;
            let sender = self.events.0.clone();
            answers::ask(question, self.environment, self.paths, self.address, move |answer| {
                let _ = sender.send(Event::Asked(answer));
            });
        }
    }

    /// What is known of the process that runs it now; nothing where none does.
    fn silence<'s>(&self, state: &'s mut State, what: Supervised, now: Instant) -> Option<&'s mut Silence> {
        if !state.silences.get(&what).is_some_and(|silence| silence.life().lives()) {
            let life = self.own(state, what).into_iter().find_map(Identity::of)?;
            state.silences.entry(what).or_insert_with(|| Silence::begin(life, now)).succeed(life, now);
        }
        state.silences.get_mut(&what)
    }

    fn judge_silences(&self, state: &mut State, answer: &Answer) {
        state.is_asking = false;
        let now = Instant::now();
        // Away, or not asked: from the next answer on it has been there for no time at all.
        state.database_since = answer.unwanted.as_ref().map(|_| state.database_since.unwrap_or(now));
        for (what, life, answers) in answer.lives.iter().copied() {
            let Some(silence) = state.silences.get_mut(&what).filter(|silence| silence.life() == life) else {
                continue;
            };
            let is_left_alone = what.service().is_some_and(|service| {
                let unwanted = answer.unwanted.as_ref().is_some_and(|unwanted| unwanted.contains(&service));
                unwanted || programs::is_being_replaced(self.paths, service, state.begun)
            });
            let with = Circumstances { database_since: state.database_since, is_left_alone };
            let who = name(what);
            match silence.judge(answers, with, self.environment.answer, now) {
                // A node cannot know whether the database answers.
                Verdict::DatabaseAway if self.environment.database.is_none() => {}
                Verdict::Leave => {}
                Verdict::DatabaseAway => self.log.say(format!(
                    "{who} has not answered since its start, nor does the database: left alone"
                )),
                Verdict::GivenUp => self.log.say(format!(
                    "{who} never answers, though it was started again {MOST_RESTARTS} times: left alone"
                )),
                Verdict::WentSilent => self.log.say(format!(
                    "{who} has answered before and is silent now: unhealthy, not started again"
                )),
                Verdict::Restart { after, number } => {
                    self.log.say(format!(
                        "{who} lives and has never answered in {} s, while the database does: started again \
                         ({number} of {MOST_RESTARTS})",
                        after.as_secs()
                    ));
                    self.replace(state, what, life);
                }
            }
        }
    }

    /// Kills what has never answered, which has nothing to lose, and starts it at once: tarsnode takes what is there
    /// within 50 ms for its own.
    fn replace(&self, state: &mut State, what: Supervised, life: Identity) {
        if !life.lives() {
            return;
        }
        let own = self.own(state, what);
        // Its end is no news.
        state.children.retain(|_, child| *child != what);
        state.killed.extend(own.iter().map(|pid| pid.as_raw()));
        stopping::signal_all(&own, Signal::SIGKILL);
        stopping::await_gone(&own);
        // Held by the kernel, or tarsnode was faster: no second copy.
        if self.is_alive(state, what) || own.iter().any(|pid| processes::is_running(*pid)) {
            return;
        }
        self.start_again(state, what);
    }

    /// The processes of this container that run it.
    fn own(&self, state: &State, what: Supervised) -> Vec<Pid> {
        match what {
            Supervised::Service(service) => stopping::own(self.paths, service),
            Supervised::Web => {
                let children = state.children.iter().filter(|(_, child)| **child == Supervised::Web);
                children.map(|(pid, _)| Pid::from_raw(*pid)).collect()
            }
        }
    }
}

const fn name(what: Supervised) -> &'static str {
    match what {
        Supervised::Service(service) => service.name(),
        Supervised::Web => web::NAME,
    }
}

/// Often at first, when a moment counts; seldom when something is wrong.
fn pause_before_asking_again(begun: Instant) {
    thread::sleep(if begun.elapsed() < LATE { ASK } else { ASK * 25 });
}

/// The role as the mark of a first start has it.
pub const fn mark(role: Role) -> &'static str {
    match role {
        Role::Node => "node",
        _ => "framework",
    }
}
