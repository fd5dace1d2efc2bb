//! A container's worth of tars-init: a root of its own, an address of its own on loopback, and what it said.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::fixture;
use crate::server::{PASSWORD, Server};

/// Nothing here takes that long; a test that waits longer has failed.
const LONGEST: Duration = Duration::from_secs(30);

/// Refuses `socket(_, _, NETLINK_SOCK_DIAG)` with EPERM from here on, proves it, and runs the rest of its arguments.
const REFUSE_SOCK_DIAG: &str = r#"
my ($socket, $prctl) = `uname -m` =~ /aarch64/ ? (198, 167) : (41, 157);
my $filter = pack "(S C C L)*", 0x20, 0, 0, 0,  0x15, 0, 3, $socket,  0x20, 0, 0, 32,  0x15, 0, 1, 4,
    0x06, 0, 0, 0x00050001,  0x06, 0, 0, 0x7fff0000;
my $program = pack "S x6 P", 6, $filter;
syscall($prctl, 38, 1, 0, 0, 0) == 0 && syscall($prctl, 22, 2, $program) == 0 or die "no seccomp: $!";
die "not refused" if socket(my $asked, 16, 2, 4) || !$!{EPERM};
exec { $ARGV[0] } @ARGV or die $!;
"#;

pub struct Container {
    pub root: TempDir,
    pub address: String,
    env: BTreeMap<String, String>,
    command: &'static str,
    running: Option<Child>,
    starts: u32,
}

impl Container {
    /// A framework container with the fixture's data and stand-ins for all eleven services.
    pub fn framework(server: &Server) -> Self {
        let mut container = Self::bare("framework");
        fixture::lay_out(container.root.path());
        container.set("MYSQL_HOST", "127.0.0.1").set("MYSQL_PORT", server.port.to_string());
        container.set("MYSQL_ROOT_PASSWORD", PASSWORD);
        container
    }

    /// A node container whose registry is at `registry`.
    pub fn node(registry: &str) -> Self {
        let mut container = Self::bare("node");
        fixture::lay_out(container.root.path());
        container.set("TARS_REGISTRY_ADDRESS", format!("tcp -h {registry} -p 17890"));
        container
    }

    fn bare(command: &'static str) -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(1);
        let number = COUNTER.fetch_add(1, Ordering::SeqCst);
        let address =
            format!("127.{}.{}.{number}", 1 + std::process::id() / 250 % 250, 1 + std::process::id() % 250);
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("behaviour")).unwrap();
        let mut container =
            Self { root, address: address.clone(), env: BTreeMap::new(), command, running: None, starts: 0 };
        container.set("DOMAIN", address).set("TARSUP_VERSION", "3.0.17").set("TARSUP_DATABASE_TIMEOUT", "30");
        container
    }

    pub fn set(&mut self, name: &str, value: impl Into<String>) -> &mut Self {
        self.env.insert(name.to_owned(), value.into());
        self
    }

    pub fn unset(&mut self, name: &str) -> &mut Self {
        self.env.remove(name);
        self
    }

    /// What was set.
    pub fn get(&self, name: &str) -> &str {
        self.env.get(name).map_or("", String::as_str)
    }

    pub fn behave(&self, service: &str, how: &str) {
        fs::write(self.root.path().join("behaviour").join(service), how).unwrap();
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.root.path().join(below)
    }

    pub fn prepare(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tars-init"));
        let path = std::env::var_os("PATH").unwrap_or_default();
        command
            .args(words)
            .env_clear()
            .env("PATH", path)
            .env("TARSUP_ROOT", self.root.path())
            .envs(&self.env);
        command.stdin(Stdio::null());
        command
    }

    /// One that is spoken with over its streams.
    pub fn converse(&self, words: &[&str]) -> Child {
        self.prepare(words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
    }

    /// One of the short commands, to its end.
    pub fn call(&self, words: &[&str]) -> Output {
        self.prepare(words).output().unwrap()
    }

    /// The same, where the kernel refuses who asks it for sockets (`sock_diag`), as a strict seccomp profile has it.
    pub fn call_without_sock_diag(&self, words: &[&str]) -> Output {
        let call = self.prepare(words);
        let mut command = Command::new("perl");
        command.args(["-e", REFUSE_SOCK_DIAG]).arg(call.get_program()).args(call.get_args()).env_clear();
        command.envs(call.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.stdin(Stdio::null()).output().unwrap()
    }

    /// The entrypoint, to its end, with a limit.
    pub fn run_to_end(&mut self) -> ExitStatus {
        self.start();
        self.await_end()
    }

    pub fn start(&mut self) {
        self.start_with(self.command);
    }

    /// From now on [`Self::begin`] migrates.
    pub fn migrating(mut self) -> Self {
        self.command = "migrate";
        self
    }

    /// Starts what it is for.
    pub fn begin(&mut self) {
        self.start_with(self.command);
    }

    /// The same with another word: `migrate` takes as long as a start may.
    pub fn start_with(&mut self, command: &str) {
        self.starts += 1;
        let log = fs::File::create(self.log_file()).unwrap();
        let child = self.prepare(&[command]).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        self.running = Some(child);
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.running.as_ref().expect("it runs").id().cast_signed())
    }

    fn log_file(&self) -> PathBuf {
        self.root.path().join(format!("log.{}", self.starts))
    }

    /// What the last start said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Waits until the start log has these words.
    pub fn await_words(&mut self, words: &str) {
        let begun = Instant::now();
        while !self.log().contains(words) {
            let ended = self.running.as_mut().and_then(|child| child.try_wait().unwrap());
            assert!(ended.is_none(), "ended with {ended:?} before it said `{words}`:\n{}", self.log());
            assert!(begun.elapsed() < LONGEST, "never said `{words}`:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn await_end(&mut self) -> ExitStatus {
        self.await_end_within(LONGEST)
    }

    /// The same for what is slow on purpose.
    pub fn await_end_within(&mut self, limit: Duration) -> ExitStatus {
        let mut child = self.running.take().expect("it runs");
        let begun = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            if begun.elapsed() > limit {
                let _ = child.kill();
                panic!("did not end:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// As a machine that loses power does.
    pub fn kill(&mut self) {
        let mut child = self.running.take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub fn stop(&mut self) -> ExitStatus {
        kill(self.pid(), Signal::SIGTERM).unwrap();
        self.await_end()
    }

    /// Starts, waits until healthy, stops.
    pub fn run_once(&mut self) -> String {
        self.start();
        self.await_words("healthy:");
        assert_eq!(self.stop().code(), Some(0), "{}", self.log());
        self.log()
    }

    /// The processes of a service's stand-in; a shell that is about to start one is none.
    pub fn processes(&self, service: &str) -> Vec<Pid> {
        let program = self.path(&format!("usr/local/app/tars/{service}/bin/{service}"));
        let program = program.to_string_lossy();
        processes_where(|line| line.split('\0').take(2).any(|word| word == program))
    }

    /// Kills a service, as a crash does, and waits until it is gone: a dying process shows its command line for a while.
    pub fn crash(&self, service: &str) {
        let pid = self.processes(service)[0];
        kill(pid, Signal::SIGKILL).unwrap();
        let begun = Instant::now();
        while self.processes(service).contains(&pid) {
            assert!(begun.elapsed() < LONGEST, "{service} ({pid}) does not die:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Has the tarsnode of the container run a shell's words: what they leave running is below PID 1, like all it starts.
    pub fn run_below_init(&self, words: &str) {
        self.behave("run", words);
        kill(self.processes("tarsnode")[0], Signal::SIGUSR1).unwrap();
    }

    /// Waits until a service runs under another process id than this.
    pub fn await_successor(&self, service: &str, of: &[Pid]) -> Pid {
        let begun = Instant::now();
        loop {
            if let Some(pid) = self.processes(service).into_iter().find(|pid| !of.contains(pid)) {
                return pid;
            }
            assert!(begun.elapsed() < LONGEST, "no new {service}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if let Some(mut child) = self.running.take() {
            let _ = kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM);
            let begun = Instant::now();
            while child.try_wait().is_ok_and(|ended| ended.is_none()) && begun.elapsed() < LONGEST {
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        // Only what a failed test has left: the folder's name is nobody else's.
        let root = self.root.path().to_string_lossy();
        for pid in processes_where(|line| line.contains(&*root)) {
            let _ = kill(pid, Signal::SIGKILL);
        }
    }
}

/// The living processes whose command line, its words ended by NUL, is such a one.
fn processes_where(wanted: impl Fn(&str) -> bool) -> Vec<Pid> {
    let entries = fs::read_dir("/proc").unwrap();
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            wanted(&String::from_utf8_lossy(&line))
        })
        .map(Pid::from_raw)
        .collect()
}

pub fn make_program(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}
