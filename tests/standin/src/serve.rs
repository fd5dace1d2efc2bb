//! Plays one service: reads its configuration, opens its ports, answers tars_ping, stops when told.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use signal_hook::consts::{SIGINT, SIGTERM};
use tarsup::tars::Service;
use tarsup::tars::ping;
use tarsup::tars::wire::{self, Request};

use crate::config::{Adapter, Config};
use crate::fault::{self, Fault, Note};
use crate::{Failure, database, node, registry};

/// The version of the RPC library that every service says.
const LIBRARY: &str = "3.0.20";
/// How long a real service needs until it listens, on a database that is ready.
const START: Duration = Duration::from_millis(400);
/// How long a real service needs until it has stopped.
const STOP: Duration = Duration::from_millis(150);
/// How long tarsAdminRegistry waits for a database that does not answer before it listens all the same.
const ADMIN_PATIENCE: Duration = Duration::from_secs(6);
/// What a service that cannot start exits with.
const EXIT_NO_START: u8 = 255;

/// A service that runs: its name, its configuration, its log, and whether it was told to stop.
pub struct Stage {
    pub service: Service,
    pub config: Config,
    pub note: Note,
    pub fault: Fault,
    log: Mutex<Option<File>>,
    stop: Arc<AtomicBool>,
}

/// What a service answers a request of its own with, beyond tars_ping; `None`: it knows no such function.
pub type Answer = Arc<dyn Fn(&Request, IpAddr) -> Option<Vec<u8>> + Send + Sync>;

/// Plays `service`, from its arguments to its exit code.
pub fn play(service: Service, arguments: &[String]) -> ExitCode {
    let note = Note::own();
    if arguments.iter().any(|argument| argument == "--version") {
        println!("TARS:{LIBRARY}");
        if service == Service::Node {
            println!("Node:{}", note.version);
        }
        return ExitCode::SUCCESS;
    }
    let fault = fault::of(service, &note);
    if let Fault::Exit(code) = fault {
        return ExitCode::from(code);
    }
    let config = arguments.iter().find_map(|argument| argument.strip_prefix("--config="));
    let outcome =
        config.ok_or_else(|| "no --config=FILE".into()).and_then(|path| Config::read(Path::new(path)));
    let outcome = outcome.and_then(|config| {
        if service == Service::Node && arguments.iter().any(|argument| argument == "--monitor") {
            return node::monitor(&config);
        }
        if service == Service::Node && !node::is_daemon()? {
            return Ok(()); // the parent, and then the first fork: both exit 0 whatever happens
        }
        run(service, config, note, fault)
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{service}: {failure}");
            // Seen on the real ones: these two say 0 when their start fails.
            let lies = matches!(service, Service::Stat | Service::Property);
            ExitCode::from(if lies { 0 } else { EXIT_NO_START })
        }
    }
}

fn run(service: Service, config: Config, note: Note, fault: Fault) -> Result<(), Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let began = Instant::now();
    let log = Mutex::new(open_log(service, &config));
    let stage = Arc::new(Stage { service, config, note, fault, log, stop });
    stage.say(&format!("starting, version {}, fault {fault:?}", stage.note.version));
    let delay = if let Fault::Slow(delay) = fault { delay } else { START };
    stage.pause(delay);
    if service == Service::Node {
        stage.stop.store(false, Ordering::SeqCst); // tarsnode ignores what comes before its own handlers are in
    }
    start(&stage)?;
    println!("tars.{service} [Done]");
    while !stage.is_told_to_stop() {
        if let Fault::CrashAfter(delay) = fault
            && began.elapsed() >= delay
        {
            stage.say("crashing as told");
            std::process::exit(134);
        }
        thread::sleep(Duration::from_millis(20));
    }
    stage.say("stopping");
    thread::sleep(if let Fault::SlowStop(delay) = fault { delay } else { STOP });
    stage.say("stopped");
    Ok(())
}

/// Opens the ports as the real service does: the registry when its database answers, the others at once.
fn start(stage: &Arc<Stage>) -> Result<(), Failure> {
    match stage.service {
        Service::Registry => registry::start(stage),
        Service::Node => node::start(stage),
        Service::AdminRegistry => {
            let account = stage.config.account().ok_or("no <db> in the configuration")?;
            let deadline = Instant::now() + ADMIN_PATIENCE;
            while !stage.is_told_to_stop() && Instant::now() < deadline && database::open(&account).is_err() {
                stage.pause(Duration::from_millis(250));
            }
            listen(stage, &nothing_more())
        }
        _ => listen(stage, &nothing_more()),
    }
}

/// The answers of a service that knows nothing but tars_ping.
pub fn nothing_more() -> Answer {
    Arc::new(|_, _| None)
}

/// Opens every adapter of the configuration, and the loopback one for administration.
pub fn listen(stage: &Arc<Stage>, answer: &Answer) -> Result<(), Failure> {
    let mut adapters = stage.config.adapters()?;
    // What the database advertises and 3.0.17 never listens on.
    adapters.retain(|adapter| adapter.servant != "tars.tarsnode.NodeObj");
    if let Some(local) = stage.config.server("local") {
        let (host, port) = crate::config::endpoint(local)?;
        adapters.push(Adapter {
            host,
            port,
            servant: "AdminObj".to_owned(),
            is_udp: false,
            allow_ip: Vec::new(),
        });
    }
    for adapter in adapters {
        let place = format!("{}:{}", adapter.host, adapter.port);
        let addresses = (adapter.host.as_str(), adapter.port).to_socket_addrs();
        let listener = addresses
            .and_then(|addresses| TcpListener::bind(&addresses.collect::<Vec<_>>()[..]))
            .map_err(|error| format!("{place}: {error}"))?;
        stage.say(&format!("{} listens on {place}", adapter.servant));
        let (stage, answer) = (Arc::clone(stage), Arc::clone(answer));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (stage, answer, servant) =
                    (Arc::clone(&stage), Arc::clone(&answer), adapter.servant.clone());
                thread::spawn(move || converse(&stage, stream, &servant, &answer));
            }
        });
    }
    Ok(())
}

/// Answers the requests of one connection until it is closed or makes no sense.
fn converse(stage: &Stage, mut stream: TcpStream, servant: &str, answer: &Answer) {
    let peer = stream.peer_addr().map_or(Ipv4Addr::UNSPECIFIED.into(), |peer| peer.ip());
    while let Ok(body) = wire::read_frame(&mut stream, wire::LARGEST_FRAME) {
        if stage.fault == Fault::NeverAnswer {
            continue;
        }
        let Ok(request) = Request::parse(&body) else { return };
        let frame = if request.servant != servant {
            wire::response(request.id, -4, &[])
        } else if request.function == ping::FUNCTION {
            wire::response(request.id, 0, &[])
        } else {
            answer(&request, peer).unwrap_or_else(|| wire::response(request.id, -3, &[])) // no such function
        };
        if stream.write_all(&frame).is_err() {
            return;
        }
    }
}

impl Stage {
    /// True once SIGTERM or SIGINT came.
    pub fn is_told_to_stop(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Sleeps, but not beyond a signal to stop; tarsnode before its handlers are in sleeps on.
    pub fn pause(&self, length: Duration) {
        let until = Instant::now() + length;
        while Instant::now() < until && (!self.is_told_to_stop() || self.service == Service::Node) {
            thread::sleep(Duration::from_millis(20).min(until.saturating_duration_since(Instant::now())));
        }
    }

    /// One line in the service's log.
    pub fn say(&self, line: &str) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        if let Ok(mut log) = self.log.lock()
            && let Some(file) = log.as_mut()
        {
            // A full disk must not stop a service from serving.
            let _ =
                writeln!(file, "{}.{:03}|{}|{line}", now.as_secs(), now.subsec_millis(), std::process::id());
        }
    }
}

/// `<logpath>/tars/<service>/tars.<service>.log`, where the real ones write; none where that cannot be.
fn open_log(service: Service, config: &Config) -> Option<File> {
    let folder = Path::new(config.server("logpath")?).join("tars").join(service.name());
    fs::create_dir_all(&folder).ok()?;
    OpenOptions::new().create(true).append(true).open(folder.join(format!("tars.{service}.log"))).ok()
}
