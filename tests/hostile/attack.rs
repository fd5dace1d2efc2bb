//! An input, the command that reads it, and what must hold whatever it is: limits of time, memory and words, nothing left.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// What an input holds where a password would stand: no output may hold it.
pub const SECRET: &str = "hunter2-MARK";
/// Address space of the command, in KiB: several times what any command here needs, far below what a bomb asks for.
const ADDRESS_SPACE: u64 = 1 << 20;
/// Most resident memory of the command, in KiB. A program without optimisation needs some more than the one that is shipped.
const RESIDENT: u64 = 96 << 10;
/// Against hanging: many times what any of them needs on a slow machine.
const PATIENCE: Duration = Duration::from_mins(1);
/// So many of a class run beside each other: many of them wait.
const AT_ONCE: usize = 4;
/// Most bytes of words on both outputs together.
const WORDS: usize = 16 << 10;

/// How it may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With a sentence: exit 1, 2 or 3.
    Refused,
    /// Well.
    Taken,
    /// With a sentence, or well: what is odd, but says something.
    Either,
    /// With any documented exit code.
    Documented,
}

/// One input.
pub struct Attack {
    /// What is wrong with it.
    pub name: String,
    /// Where it lies: whatever the command needs, and the input.
    pub folder: TempDir,
    /// The command's arguments.
    pub arguments: Vec<String>,
    /// Variables of its environment.
    pub environment: Vec<(String, String)>,
    /// How it may end.
    pub end: End,
    /// Words that a refusal must have.
    pub words: Vec<String>,
    /// Most resident memory, in KiB.
    pub resident: u64,
    /// What it may leave behind.
    pub leaves: Vec<String>,
    /// How long it may take.
    pub patience: Duration,
}

impl Attack {
    /// An input that must be refused, in a folder of its own.
    pub fn new(name: impl Into<String>, folder: TempDir, arguments: &[&str]) -> Self {
        Self {
            name: name.into(),
            folder,
            arguments: arguments.iter().map(ToString::to_string).collect(),
            environment: Vec::new(),
            end: End::Refused,
            words: Vec::new(),
            resident: RESIDENT,
            leaves: Vec::new(),
            patience: PATIENCE,
        }
    }

    /// It may be understood as well.
    pub fn or_taken(mut self) -> Self {
        self.end = End::Either;
        self
    }

    /// It must be understood.
    pub fn taken(mut self) -> Self {
        self.end = End::Taken;
        self
    }

    /// It must be refused, with this in the refusal.
    pub fn refused(mut self, words: &str) -> Self {
        self.end = End::Refused;
        self.saying(words)
    }

    /// The refusal must have this in it.
    pub fn saying(mut self, words: &str) -> Self {
        self.words.push(words.to_owned());
        self
    }

    /// What is kept grows with how many names there are, up to a limit on those: so many MiB.
    pub fn within(mut self, mebibytes: u64) -> Self {
        self.resident = mebibytes << 10;
        self
    }

    /// It has much to do.
    pub fn slowly(mut self) -> Self {
        self.patience = PATIENCE * 5;
        self
    }

    /// With a variable in its environment.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs it, however it ends.
    pub fn run(&self) {
        let _ = self.faults();
    }

    /// What is wrong with how it ended; empty where all holds.
    fn faults(&self) -> Vec<String> {
        let before = listing(self.folder.path());
        let kinds = kinds_of(self.folder.path(), &before);
        let (out, err) = (self.folder.path().join(".out"), self.folder.path().join(".err"));
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("ulimit -v {ADDRESS_SPACE}; exec \"$0\" \"$@\"")])
            .arg(program())
            .args(&self.arguments)
            .current_dir(self.folder.path())
            .env("TARSUP_STORE", self.folder.path().join("store"))
            .env("TARSUP_CACHE", self.folder.path().join("cache"))
            .env("HOME", self.folder.path())
            .env("MALLOC_ARENA_MAX", "2")
            .stdin(Stdio::null())
            .stdout(fs::File::create(&out).unwrap())
            .stderr(fs::File::create(&err).unwrap());
        for name in ["SOURCE_DATE_EPOCH", "TARSUP_THREADS", "DOCKER_HOST", "DOCKER_CONTEXT"] {
            command.env_remove(name);
        }
        for (name, value) in &self.environment {
            command.env(name, value);
        }
        let mut child = command.spawn().unwrap();
        let (began, process, mut most) = (Instant::now(), format!("/proc/{}", child.id()), 0);
        let ended = loop {
            most = most.max(resident(Path::new(&process)));
            match child.try_wait().unwrap() {
                Some(ended) => break Some(ended),
                None if began.elapsed() > self.patience => {
                    child.kill().unwrap();
                    child.wait().unwrap();
                    break None;
                }
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        };
        let said = [fs::read(&out).unwrap(), fs::read(&err).unwrap()].concat();
        for file in [out, err] {
            fs::remove_file(file).unwrap();
        }
        let text = String::from_utf8_lossy(&said);
        let shown: String = text.chars().take(600).collect();
        let mut faults = Vec::new();
        let Some(ended) = ended else { return vec![format!("hangs; it said {shown}")] };
        match (ended.code(), ended.signal()) {
            (Some(0), _) if self.end != End::Refused => {}
            (Some(4..=7), _) if self.end == End::Documented => {}
            (Some(1..=3), _) if self.end != End::Taken => {
                if !text.contains("hint: ") {
                    faults.push("no hint".to_owned());
                }
                for words in &self.words {
                    if !text.contains(words.as_str()) {
                        faults.push(format!("`{words}` is not said"));
                    }
                }
            }
            (code, signal) => faults.push(format!("exit {code:?}, signal {signal:?}")),
        }
        if std::env::var_os("TARSUP_TELL").is_some() {
            eprintln!("{}: {} KiB, {:?}", self.name, most, began.elapsed());
        }
        if most > self.resident {
            faults.push(format!("{most} KiB resident"));
        }
        // What is understood is shown whole; a refusal is a sentence.
        if ended.code() != Some(0) && said.len() > WORDS {
            faults.push(format!("{} bytes of words", said.len()));
        }
        if text.contains(SECRET) {
            faults.push("tells the secret".to_owned());
        }
        if text.contains("panicked") {
            faults.push("panics".to_owned());
        }
        if text.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
            faults.push("says what a terminal obeys".to_owned());
        }
        if kinds_of(self.folder.path(), &before) != kinds {
            faults.push("replaces something, or takes it away".to_owned());
        }
        if ended.code() != Some(0) {
            let mut left = listing(self.folder.path());
            left.retain(|path| {
                !before.contains(path) && !self.leaves.iter().any(|leaves| path.starts_with(leaves))
            });
            if !left.is_empty() {
                faults.push(format!("leaves {left:?}"));
            }
        }
        if !faults.is_empty() {
            faults.push(format!("it said: {shown}"));
        }
        faults
    }
}

/// The program that is attacked: the tests' own, or the one that is shipped (tests/long.sh).
fn program() -> PathBuf {
    std::env::var_os("TARSUP_HOSTILE").map_or_else(|| env!("CARGO_BIN_EXE_tarsup").into(), PathBuf::from)
}

/// The high-water mark of a living process, in KiB. Until it is tarsup it is a copy of whoever began it.
fn resident(process: &Path) -> u64 {
    let status = fs::read_to_string(process.join("status")).unwrap_or_default();
    if fs::read_link(process.join("exe")).ok() != fs::canonicalize(program()).ok() {
        return 0;
    }
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

/// What lies below a folder, but for the store and the cache, which a build may fill with what is whole.
fn listing(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap().map(|entry| entry.unwrap().path()) {
            let name = entry.strip_prefix(folder).unwrap().display().to_string();
            if matches!(name.as_str(), "store" | "cache" | ".out" | ".err") {
                continue;
            }
            found.push(name);
            if entry.is_dir() && !entry.is_symlink() {
                folders.push(entry);
            }
        }
    }
    found.sort();
    found
}

/// What each of these is: file, folder, link, pipe, device; and which.
fn kinds_of(folder: &Path, paths: &[String]) -> Vec<Option<(u32, u64)>> {
    use std::os::unix::fs::MetadataExt as _;
    let kind = |path: &String| {
        fs::symlink_metadata(folder.join(path)).ok().map(|of| (of.mode() & 0o170_000, of.rdev()))
    };
    paths.iter().map(kind).collect()
}

/// Classes of more inputs than this are sampled, unless `TARSUP_EVERY` is set (tests/long.sh).
const SAMPLED: usize = 100;

/// Of a class that is sampled, one input in so many.
const ONE_IN: usize = 6;

/// Below [`ONE_IN`]: another one in each run, or what `TARSUP_SEED` says.
pub fn seed() -> usize {
    static SEED: OnceLock<usize> = OnceLock::new();
    let drawn = || {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(0, |now| now.subsec_micros() as usize)
    };
    let said = || std::env::var("TARSUP_SEED").ok().and_then(|text| text.parse().ok());
    *SEED.get_or_init(|| said().unwrap_or_else(drawn) % ONE_IN)
}

/// Of a large class one in six, from a place that differs from run to run; `TARSUP_SEED` brings a run back.
fn sample(class: &str, attacks: Vec<Attack>) -> Vec<Attack> {
    if attacks.len() <= SAMPLED { attacks } else { sample_of(class, attacks, ONE_IN) }
}

/// One in so many, from a place that differs from run to run; all of them with `TARSUP_EVERY`.
fn sample_of<A>(class: &str, all: Vec<A>, one_in: usize) -> Vec<A> {
    if std::env::var_os("TARSUP_EVERY").is_some() {
        return all;
    }
    let seed = seed();
    eprintln!("{class}: one in {one_in} of {} (TARSUP_SEED={seed})", all.len());
    all.into_iter().skip(seed % one_in).step_by(one_in).collect()
}

/// What makes an input, where that alone takes seconds.
pub type Making = Box<dyn FnOnce() -> Attack>;

/// The same as [`all_hold`] of a third of them; `least` is of all of them.
pub fn third_holds(class: &str, least: usize, makings: Vec<Making>) {
    assert!(makings.len() >= least, "{class}: {} inputs of at least {least}", makings.len());
    let made = sample_of(class, makings, 3).into_iter().map(|make| make()).collect();
    all_hold(class, 1, made);
}

/// Every input of a class; at least so many, so that a generator that has lost its inputs is noticed.
pub fn all_hold(class: &str, least: usize, attacks: Vec<Attack>) {
    assert!(attacks.len() >= least, "{class}: {} inputs of at least {least}", attacks.len());
    let attacks = sample(class, attacks);
    let count = attacks.len();
    let (queue, wrong) = (Mutex::new(attacks), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(attack) = queue.lock().unwrap().pop() else { return };
                    let faults = attack.faults();
                    if !faults.is_empty() {
                        let mut wrong = wrong.lock().unwrap();
                        wrong.push(format!("{}: {}", attack.name, faults.join("; ")));
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    eprintln!("{class}: {count} inputs, {} with faults", wrong.len());
    assert!(wrong.is_empty(), "{class}: {} of {count} inputs:\n{}", wrong.len(), wrong.join("\n\n"));
}
