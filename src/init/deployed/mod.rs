//! What is deployed on this container besides the framework's own services, started at once.
//!
//! tarsnode starts its servers only 10 to 14 s after its own start. Right after that, and only then, whatever must run here is
//! started as tarsnode does it: by the script and with the configuration that it left. It then takes them for its own. What
//! crashes later is tarsnode's.

mod memory;
mod outside;
mod place;
mod serving;

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::Signal;

use crate::tars::Role;
use crate::tars::registry::{self, REGISTRY_PORT, Server};

use super::address;
use super::environment::Endpoint;
use super::paths::Paths;
use super::processes;
use super::programs;
use super::secret;
use super::services;
use super::signals::Stop;
use super::start_log::StartLog;
use super::stopping;
use memory::Memory;
pub use outside::{Seen, see};
pub use place::Place;
pub use serving::{Served, look};

/// For the answer of one registry.
const ANSWER: Duration = Duration::from_secs(2);
/// After this time without an answer, what a registry said last counts.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two rounds of questions.
const PAUSE: Duration = Duration::from_millis(250);
const SECOND: Duration = Duration::from_secs(1);
/// How often it is noted anew what a registry says.
const RENEW: Duration = Duration::from_mins(1);
/// How long a server that is not to run here has to end.
const GRACE: Duration = Duration::from_secs(10);

/// What is known of this container.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where everything lies.
    pub paths: Paths,
    /// Its name in the database.
    pub address: String,
    /// Its role.
    pub role: Role,
    /// Whom it asks, in this order.
    pub registries: Vec<Endpoint>,
}

/// Why a server is not started here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LeftAlone {
    /// Nobody wants it to run, or others start it: no word is said.
    NotOurs,
    /// tarsnode has never started it, or knows better.
    Tarsnode(&'static str),
}

impl Node {
    /// What must run here, as the first registry says that answers.
    pub fn ask(&self) -> Result<Vec<Server>, String> {
        let mut complaints = Vec::new();
        for registry in &self.registries {
            let told =
                address::socket(&registry.host, REGISTRY_PORT).map_err(|error| error.to_string()).and_then(
                    |at| registry::servers(at, &self.address, ANSWER).map_err(|error| error.to_string()),
                );
            match told {
                Ok(servers) => return Ok(servers),
                Err(why) => complaints.push(format!("{}:{REGISTRY_PORT}: {why}", registry.host)),
            }
        }
        Err(complaints.join(", "))
    }

    /// True for what is deployed here and no part of the framework that this container starts by itself.
    pub fn is_deployed(&self, server: &Server) -> bool {
        let own = self.role.services();
        server.application != "tars" || !own.iter().any(|service| service.name() == server.name)
    }

    /// In a thread: starts what must run here, and goes on noting what the registries say. To be called once, when tarsnode
    /// listens.
    pub fn start_in_background(self, stop: Stop, log: StartLog) {
        thread::spawn(move || self.start(PATIENCE, &stop, &log));
    }

    /// `patience`: after this time without an answer, what a registry said last counts.
    fn start(&self, patience: Duration, stop: &Stop, log: &StartLog) {
        let begun = Instant::now();
        let mut from_memory = None;
        let servers = loop {
            match self.ask() {
                Ok(servers) => break Some(servers),
                Err(_) if stop.is_requested() => return,
                Err(why) if begun.elapsed() >= patience => {
                    from_memory = Memory::read(&self.paths, &self.address, SystemTime::now());
                    let what = if from_memory.is_some() {
                        "what one said last counts"
                    } else {
                        "tarsnode starts what is deployed here"
                    };
                    log.say(format!("no registry says what is deployed here, {what}: {why}"));
                    break None;
                }
                Err(_) => thread::sleep(PAUSE),
            }
        };
        let mut remembered = BTreeSet::new();
        if let Some(servers) = servers {
            self.note(&servers, log);
            self.start_all(&servers, log);
        } else if let Some(memory) = from_memory {
            remembered = self.start_all(&memory.servers, log);
        }
        // Renewed while this runs: how old it is tells how long the node was down.
        let mut noted = Instant::now();
        while !stop.is_requested() {
            thread::sleep(SECOND);
            // What was started on an old word is asked about until a registry answers.
            if noted.elapsed() < RENEW && remembered.is_empty() {
                continue;
            }
            noted = Instant::now();
            if let Ok(servers) = self.ask() {
                self.note(&servers, log);
                self.stop_unwanted(&std::mem::take(&mut remembered), &servers, log);
            }
        }
    }

    fn note(&self, servers: &[Server], log: &StartLog) {
        let servers = servers.iter().filter(|server| self.is_deployed(server)).cloned().collect();
        let memory = Memory::new(&self.address, servers, SystemTime::now());
        if let Err(error) = memory.write(&self.paths) {
            log.say(format!("warning: the volume takes no note of what is deployed here: {error}"));
        }
    }

    /// Starts what must run and does not; who was started.
    fn start_all(&self, servers: &[Server], log: &StartLog) -> BTreeSet<String> {
        let (mut started, mut left) = (BTreeSet::new(), Vec::new());
        for server in servers.iter().filter(|server| self.is_deployed(server)) {
            let place = Place::of(server, &self.paths);
            match hindrance(server, &place) {
                None => match self.start_one(server, &place) {
                    Ok(()) => drop(started.insert(server.id())),
                    Err(error) => left.push(format!("{} ({error})", server.id())),
                },
                Some(LeftAlone::NotOurs) => {}
                Some(LeftAlone::Tarsnode(why)) => left.push(format!("{} ({why})", server.id())),
            }
        }
        if !started.is_empty() {
            let names: Vec<&str> = started.iter().map(String::as_str).collect();
            log.say(format!("started at once, as tarsnode would: {}", names.join(", ")));
        }
        if !left.is_empty() {
            log.say(format!("left to tarsnode: {}", left.join(", ")));
        }
        started
    }

    fn start_one(&self, server: &Server, place: &Place) -> io::Result<()> {
        let _ = fs::remove_file(place.script_pid());
        let output = place.output(server);
        if let Some(folder) = output.parent() {
            fs::create_dir_all(folder)?;
        }
        let words = OpenOptions::new().append(true).create(true).open(&output)?;
        let mut command = Command::new(place.script());
        // tarsnode hands its own on.
        command.env("LD_LIBRARY_PATH", services::library_path_of_node(&self.paths));
        secret::keep_from(&mut command);
        command
            .current_dir(place.working_folder())
            .stdin(Stdio::null())
            .stdout(words.try_clone()?)
            .stderr(words)
            .spawn()
            .map(drop)
    }

    /// What was started because a registry had said so before, and is not to run here after all.
    fn stop_unwanted(&self, started: &BTreeSet<String>, servers: &[Server], log: &StartLog) {
        let wanted: BTreeSet<String> =
            servers.iter().filter(|server| server.is_wanted()).map(Server::id).collect();
        for id in started.difference(&wanted) {
            log.say(format!("{id} is not to run here, as a registry says now: stopped"));
            let (application, name) = id.split_once('.').unwrap_or((id, ""));
            let known = servers.iter().find(|server| server.id() == *id).cloned();
            let server = known.unwrap_or_else(|| Server {
                application: application.to_owned(),
                name: name.to_owned(),
                ..Server::default()
            });
            let processes = Place::of(&server, &self.paths).processes();
            stopping::signal_all(&processes, Signal::SIGTERM);
            let until = Instant::now() + GRACE;
            while processes.iter().any(|pid| processes::is_running(*pid)) && Instant::now() < until {
                thread::sleep(PAUSE);
            }
            stopping::signal_all(&processes, Signal::SIGKILL);
        }
    }
}

/// Why this server is not started here; nothing where it is. Its processes are looked at last: tarsnode may have been faster.
fn hindrance(server: &Server, place: &Place) -> Option<LeftAlone> {
    if !server.is_wanted() || server.runs_beside() {
        return Some(LeftAlone::NotOurs);
    }
    let script = place.script();
    if !server.start_script.is_empty() || server.server_type.starts_with("not_tars") {
        Some(LeftAlone::Tarsnode("it has a script of its own"))
    } else if !script.is_file() || !place.conf.is_file() {
        Some(LeftAlone::Tarsnode("never started here yet"))
    } else if programs::has_changed_lately(&place.bin) {
        Some(LeftAlone::Tarsnode("its files have just changed"))
    } else if !place.processes().is_empty() {
        Some(LeftAlone::NotOurs)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::TcpListener;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::init::render;
    use crate::tars::wire::{self, Request};

    fn node(root: &std::path::Path) -> Node {
        Node {
            paths: Paths::below(root),
            address: "172.25.0.5".to_owned(),
            role: Role::Node,
            registries: Vec::new(),
        }
    }

    fn server(name: &str) -> Server {
        Server {
            application: "Demo".to_owned(),
            name: name.to_owned(),
            setting_state: "active".to_owned(),
            server_type: "tars_cpp".to_owned(),
            ..Server::default()
        }
    }

    /// A server as tarsnode left it, whose files are old enough.
    fn left_by_tarsnode(node: &Node, server: &Server) -> Place {
        let place = Place::of(server, &node.paths);
        render::write(&place.conf, "<tars></tars>").unwrap();
        let script = format!(
            "#!/bin/sh\nsh -c 'while sleep 0.1; do :; done' --config={} & pid=$!\necho $pid > {}\n",
            place.conf.display(),
            place.script_pid().display()
        );
        render::write(&place.script(), &script).unwrap();
        fs::set_permissions(place.script(), fs::Permissions::from_mode(0o755)).unwrap();
        place
    }

    #[test]
    fn what_must_run_is_started_once_and_stopped_when_it_is_not_wanted() {
        let root = tempfile::tempdir().unwrap();
        let node = node(root.path());
        let (hello, new) = (server("HelloServer"), server("NewServer"));
        let place = left_by_tarsnode(&node, &hello);
        let log = StartLog::begin();
        let servers = [hello.clone(), new];
        let only = BTreeSet::from([hello.id()]);
        assert_eq!(node.start_all(&servers, &log), only);
        while place.processes().is_empty() {
            thread::yield_now();
        }
        assert!(node.start_all(&servers, &log).is_empty(), "it runs");
        let unwanted = Server { setting_state: "inactive".to_owned(), ..hello };
        node.stop_unwanted(&only, &[unwanted], &log);
        assert!(place.processes().is_empty());
    }

    /// Waits for what a thread brings about.
    fn until(what: &str, is_so: impl Fn() -> bool) {
        let begun = Instant::now();
        while !is_so() {
            assert!(begun.elapsed() < Duration::from_secs(30), "waited in vain until {what}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn what_a_registry_said_last_counts_where_none_answers_and_until_one_does() {
        let host = "127.77.9.1";
        for (age, is_young) in [(Duration::from_mins(9), true), (Duration::from_mins(11), false)] {
            let root = tempfile::tempdir().unwrap();
            // The first one of two never answers.
            let registries = vec![Endpoint::registry("127.77.9.2"), Endpoint::registry(host)];
            let node = Node { registries, ..node(root.path()) };
            let hello = server("HelloServer");
            let place = left_by_tarsnode(&node, &hello);
            let said = SystemTime::now() - age;
            Memory::new(&node.address, vec![hello.clone()], said).write(&node.paths).unwrap();
            let (stop, told) = Stop::of_a_test();
            let (starts, begun) = (node.clone(), Instant::now());
            let patience = Duration::from_millis(500);
            let runs = thread::spawn(move || starts.start(patience, &stop, &StartLog::begin()));
            if is_young {
                until("it is started from memory", || !place.processes().is_empty());
                assert!(begun.elapsed() >= patience, "a registry may still answer");
                // One is back, and says that it is not here.
                let listener = TcpListener::bind((host, REGISTRY_PORT)).unwrap();
                let answers = thread::spawn(move || {
                    let (mut stream, _) = listener.accept().unwrap();
                    let body = wire::read_frame(&mut stream, wire::LARGEST_FRAME).unwrap();
                    let request = Request::parse(&body).unwrap();
                    let results = registry::encode_servers("172.25.0.5", &[]);
                    stream.write_all(&wire::response(request.id, 0, &results)).unwrap();
                });
                until("it is stopped again", || place.processes().is_empty());
                answers.join().unwrap();
            } else {
                until("the patience is over", || begun.elapsed() > patience * 3);
                assert!(place.processes().is_empty(), "what is older says nothing any more");
            }
            told.store(true, Ordering::SeqCst);
            runs.join().unwrap();
        }
    }

    #[test]
    fn hands_are_off_what_others_start() {
        let root = tempfile::tempdir().unwrap();
        let node = node(root.path());
        let wanted = server("HelloServer");
        let place = left_by_tarsnode(&node, &wanted);
        let of = |change: &dyn Fn(&mut Server)| {
            let mut server = wanted.clone();
            change(&mut server);
            hindrance(&server, &place)
        };
        let script = LeftAlone::Tarsnode("it has a script of its own");
        assert_eq!(of(&|_| {}), None);
        assert_eq!(of(&|server| server.setting_state = "inactive".to_owned()), Some(LeftAlone::NotOurs));
        assert_eq!(of(&|server| server.run_type = "container".to_owned()), Some(LeftAlone::NotOurs));
        assert_eq!(of(&|server| server.start_script = "start.sh".to_owned()), Some(script));
        assert_eq!(of(&|server| server.server_type = "not_tars".to_owned()), Some(script));
        render::write(&place.bin.join("HelloServer"), "published").unwrap();
        assert_eq!(of(&|_| {}), Some(LeftAlone::Tarsnode("its files have just changed")));
        fs::remove_file(&place.conf).unwrap();
        assert_eq!(of(&|_| {}), Some(LeftAlone::Tarsnode("never started here yet")));
    }

    #[test]
    fn the_framework_is_not_what_is_deployed() {
        let root = tempfile::tempdir().unwrap();
        let node = node(root.path());
        let of = |name: &str| Server { application: "tars".to_owned(), ..server(name) };
        assert!(node.is_deployed(&server("tarsnode")) && node.is_deployed(&of("tarslog")));
        assert!(!node.is_deployed(&of("tarsnode")));
    }
}
