//! tarsnode: daemonizes by two forks, registers its node, and keeps the services that are assigned to it alive.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tarsup::tars::{Service, ping};

use crate::config::Config;
use crate::fault::Fault;
use crate::serve::{self, Stage};
use crate::{Failure, deployed, registry, wire};

/// Which of the three processes this is: unset, then 1, then 2. Removed again for what tarsnode starts.
const DAEMON: &str = "STANDIN_DAEMON";
/// Seen on the real one: what is missing after its own start is started from then on, one a second.
const SETTLE: Duration = Duration::from_secs(10);
/// How long a service is dead before it is started again.
const RESTART: Duration = Duration::from_secs(1);
/// After so many deaths in a row it waits longer.
const PATIENT_AFTER: u32 = 3;
const PATIENT: Duration = Duration::from_secs(6);

/// True in the daemon itself; in the two processes before it, starts the next one and says false.
pub fn is_daemon() -> Result<bool, Failure> {
    let next = match std::env::var(DAEMON).as_deref() {
        Ok("2") => return Ok(true),
        Ok(_) => {
            nix::unistd::setsid()?;
            "2"
        }
        Err(_) => "1",
    };
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    let child = Command::new("/proc/self/exe")
        .arg0(name)
        .args(arguments)
        .env(DAEMON, next)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    // The real one forks without exec: never is there a moment in which no process bears its command line.
    let line = format!("/proc/{}/cmdline", child.id());
    while fs::read(&line).is_ok_and(|line| line.is_empty()) {
        thread::yield_now();
    }
    Ok(false)
}

/// `tarsnode --monitor`: succeeds when the daemon answers.
pub fn monitor(config: &Config) -> Result<(), Failure> {
    let adapters = config.adapters()?;
    let server =
        adapters.iter().find(|adapter| adapter.servant == "tars.tarsnode.ServerObj").ok_or("no ServerObj")?;
    let address = format!("{}:{}", server.host, server.port).parse()?;
    Ok(ping::ping(address, &server.servant, Duration::from_secs(3))?)
}

/// Starts it: rewrites its configuration in place, listens, registers, supervises.
pub fn start(stage: &Arc<Stage>) -> Result<(), Failure> {
    let path = &stage.config.path;
    let text = fs::read_to_string(path)?;
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    serve::listen(stage, &serve::nothing_more())?;
    let node = stage.config.server("localip").ok_or("no localip in the configuration")?.to_owned();
    let (stage, registries) = (Arc::clone(stage), stage.config.registries(17891));
    let (heart, heart_node, heart_registries) = (Arc::clone(&stage), node.clone(), registries.clone());
    thread::spawn(move || beat(&heart, &heart_node, &heart_registries));
    let data = stage.config.server("basepath").map(|base| Path::new(base).with_file_name("data"));
    let (own, own_node, own_registries) = (Arc::clone(&stage), node.clone(), registries.clone());
    if let Some(data) = data {
        thread::spawn(move || deployed::supervise(&own, &own_node, &own_registries, &data));
    }
    thread::spawn(move || supervise(&stage, &node, &registries));
    Ok(())
}

/// Asks one registry after the other.
pub fn ask(registries: &[(String, u16)], function: &str) -> Option<String> {
    registries
        .iter()
        .filter_map(|(host, port)| wire::call(host, *port, "tars.tarsregistry.RegistryObj", function).ok())
        .find(|answer| answer != "!")
}

/// Registers the node and keeps its heartbeat moving. Five failures at the start, and it waits ten minutes.
fn beat(stage: &Stage, node: &str, registries: &[(String, u16)]) {
    const PERIOD: Duration = Duration::from_secs(10);
    const GIVEN_UP: Duration = Duration::from_mins(10);
    if stage.fault == Fault::NeverRegister {
        return;
    }
    let call =
        |function: &str| ask(registries, &format!("{function} {node} {}", stage.note.version)).is_some();
    let (mut failures, mut registered) = (0, false);
    loop {
        // A heartbeat that fails registers again.
        registered = registered && call(registry::ALIVE);
        let (pause, word) = if registered || call(registry::REGISTER) {
            (failures, registered) = (0, true);
            (PERIOD, "heartbeat")
        } else {
            failures += 1;
            (if failures % 5 == 0 { GIVEN_UP } else { Duration::from_secs(1) }, "no registry answers")
        };
        stage.say(word);
        thread::sleep(pause);
    }
}

/// How often a service died in a row, and since when it is seen dead.
#[derive(Default)]
struct Life {
    was_alive: bool,
    dead_since: Option<Instant>,
    deaths: u32,
}

/// Starts what is assigned to this node and does not run; adopts what somebody else started.
fn supervise(stage: &Stage, node: &str, registries: &[(String, u16)]) {
    let began = Instant::now();
    let root = PathBuf::from(stage.config.server("basepath").unwrap_or_default());
    let Some(root) = root.parent().and_then(Path::parent).map(Path::to_owned) else { return };
    let mut lives: BTreeMap<Service, Life> = BTreeMap::new();
    let mut assigned: Vec<Service> = Vec::new();
    let mut asked: Option<Instant> = None;
    loop {
        thread::sleep(Duration::from_millis(250));
        if asked.is_none_or(|asked| asked.elapsed() > Duration::from_secs(2)) {
            asked = Some(Instant::now());
            if let Some(answer) = ask(registries, &format!("{} {node}", registry::SERVERS)) {
                assigned = answer.split(' ').filter_map(|name| name.parse().ok()).collect();
            }
        }
        let running = running(&root);
        let mut started = false;
        for service in assigned.iter().copied() {
            if matches!(service, Service::Registry | Service::Node) {
                continue; // an outside watcher's
            }
            let life = lives.entry(service).or_default();
            if running.contains(&service) {
                if life.dead_since.take().is_some_and(|since| since.elapsed() > Duration::from_secs(30)) {
                    life.deaths = 0;
                }
                life.was_alive = true;
                continue;
            }
            let dead = life.dead_since.get_or_insert_with(Instant::now).elapsed();
            let patience = if life.deaths >= PATIENT_AFTER { PATIENT } else { RESTART };
            let due = if life.was_alive { dead >= patience } else { began.elapsed() >= SETTLE };
            if due && !started {
                life.deaths += 1;
                life.dead_since = None;
                started = true;
                let outcome = revive(&root, service);
                stage.say(&format!("starts {service}, which is not running: {outcome:?}"));
            }
        }
        if started && began.elapsed() < SETTLE * 3 {
            thread::sleep(Duration::from_secs(1)); // one a second after its own start
        }
    }
}

/// The services of `root` that run now, told by their programs.
fn running(root: &Path) -> Vec<Service> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let programs: Vec<String> = processes
        .flatten()
        .filter_map(|process| fs::read(process.path().join("cmdline")).ok())
        .filter_map(|line| {
            line.split(|byte| *byte == 0).next().map(|word| String::from_utf8_lossy(word).into_owned())
        })
        .collect();
    Service::ALL
        .into_iter()
        .filter(|service| {
            let program = program(root, *service);
            programs
                .iter()
                .any(|started| *started == program.to_string_lossy() || *started == format!("bin/{service}"))
        })
        .collect()
}

fn program(root: &Path, service: Service) -> PathBuf {
    root.join(service.name()).join("bin").join(service.name())
}

/// Starts a service with the configuration in tarsnode's data, which is made anew first.
fn revive(root: &Path, service: Service) -> Result<(), Failure> {
    let file = format!("tars.{service}.config.conf");
    let folder = root.join(format!("tarsnode/data/tars.{service}/conf"));
    fs::create_dir_all(&folder)?;
    let own = folder.join(&file);
    let shipped = root.join(service.name()).join("conf").join(&file);
    if shipped.exists() {
        fs::copy(shipped, &own)?;
    }
    let mut child = Command::new(program(root, service))
        .arg(format!("--config={}", own.display()))
        .env_remove(DAEMON)
        .current_dir(root.join(service.name()).join("bin"))
        .stdin(Stdio::null())
        .spawn()?;
    thread::spawn(move || child.wait());
    Ok(())
}
