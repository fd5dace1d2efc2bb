//! What tarsnode does about the business services of its node: it starts each late after its own start, one a second, by a script that it
//! writes, takes for its own what runs already, and says which state each has.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tarsup::tars::registry::{self, Adapter, Server};

use crate::serve::Stage;
use crate::{Failure, beside, registry as played};

/// Seen on the real one: what is missing after its own start is started from then on.
const SETTLE: Duration = Duration::from_secs(10);
/// How long a server is dead before it is started again.
const RESTART: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(2);

/// What is known of one server.
#[derive(Default)]
struct Life {
    dead_since: Option<Instant>,
    has_run: bool,
    /// The process that a registry was told of last.
    told: Option<u32>,
}

/// Supervises without end.
pub fn supervise(stage: &Stage, node: &str, registries: &[(String, u16)], data: &Path) {
    let begun = Instant::now();
    let mut lives: BTreeMap<String, Life> = BTreeMap::new();
    loop {
        thread::sleep(PAUSE);
        let Some(servers) = ask(registries, node) else { continue };
        for server in servers.iter().filter(|server| server.application != "tars" && server.is_wanted()) {
            let life = lives.entry(server.id()).or_default();
            let folder = match server.base_path.as_str() {
                "" => data.join(server.id()),
                elsewhere => PathBuf::from(elsewhere),
            };
            let running = if server.runs_beside() {
                beside::process(&server.id())
            } else {
                process(&conf(&folder, server))
            };
            if running.is_some() {
                (life.has_run, life.dead_since) = (true, None);
            }
            if life.told != running || (running.is_some() && server.present_state != "active") {
                let word = if running.is_some() { "active" } else { "inactive" };
                let pid = running.unwrap_or_default();
                let words = format!("{} {node} {} {word} {pid}", played::STATE, server.id());
                if crate::node::ask(registries, &words).is_some() {
                    life.told = running;
                }
            }
            if running.is_some() {
                continue;
            }
            let dead = life.dead_since.get_or_insert_with(Instant::now).elapsed();
            let due = if life.has_run { dead >= RESTART } else { begun.elapsed() >= SETTLE };
            if due {
                let outcome = start(&folder, server);
                stage.say(&format!("starts {}, which is not running: {outcome:?}", server.id()));
                life.dead_since = None;
                thread::sleep(Duration::from_secs(1));
            }
        }
    }
}

/// The servers of this node, as the first registry says that answers.
fn ask(registries: &[(String, u16)], node: &str) -> Option<Vec<Server>> {
    let addresses = registries.iter().filter_map(|(host, port)| address(host, *port));
    addresses.into_iter().find_map(|at| registry::servers(at, node, PATIENCE).ok())
}

fn address(host: &str, port: u16) -> Option<SocketAddr> {
    (host, port).to_socket_addrs().ok()?.next()
}

fn conf(folder: &Path, server: &Server) -> PathBuf {
    folder.join("conf").join(format!("{}.config.conf", server.id()))
}

/// The process whose command line names this configuration.
fn process(conf: &Path) -> Option<u32> {
    let conf = conf.to_string_lossy().into_owned();
    let pids =
        fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.into_iter().find(|pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|word| word.ends_with(conf.as_bytes()))
    })
}

/// Writes configuration and script, and runs the script, as the real one does it at each start; beside the node in a container of
/// its own.
fn start(folder: &Path, server: &Server) -> Result<(), Failure> {
    let (bin, conf) = (folder.join("bin"), conf(folder, server));
    let program = bin.join(&server.name);
    if !program.is_file() {
        return Err(format!("there is no {}", program.display()).into());
    }
    fs::create_dir_all(folder.join("conf"))?;
    let adapter = |adapter: &Adapter| {
        let name = format!("{}Adapter", adapter.servant);
        let Adapter { endpoint, servant, allow_ip, .. } = adapter;
        format!("<{name}>\nendpoint={endpoint}\nservant={servant}\nallow={allow_ip}\n</{name}>\n")
    };
    let adapters = server.adapters.iter().map(adapter).collect::<Vec<_>>().concat();
    fs::write(
        &conf,
        format!(
            "<tars>\n<application>\n<server>\nlogpath=/usr/local/app/tars/app_log\n{adapters}</server>\n</application>\n</tars>\n"
        ),
    )?;
    let script = bin.join("tars_start.sh");
    let text = format!(
        "#!/bin/sh\n. /etc/profile\nexport LD_LIBRARY_PATH=$LD_LIBRARY_PATH:{}\ntrap 'exit' TERM INT\npid=0\n\n\
         {} --config={} & pid=$!\necho $pid > {}.pid\n{}\n",
        bin.display(),
        program.display(),
        conf.display(),
        script.display(),
        // A container ends with its first process.
        if server.runs_beside() { "wait $pid" } else { "" },
    );
    fs::write(&script, text)?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    if server.runs_beside() {
        return beside::start(&server.id(), folder, &script);
    }
    let script = if server.start_script.is_empty() { script } else { PathBuf::from(&server.start_script) };
    let mut child = Command::new(&script)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    thread::spawn(move || child.wait());
    Ok(())
}
