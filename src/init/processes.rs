//! What runs in the container, read from `/proc`: a service by its program, and everything below PID 1.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::Read;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

/// One life of a process: ids are used again, with another time of start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The process id.
    pub pid: Pid,
    /// When it started, in clock ticks since the host's boot.
    started: u64,
}

impl Identity {
    /// Of a process that is there.
    pub fn of(pid: Pid) -> Option<Self> {
        // Field 22 of `stat`; the fields begin after the name with the third.
        Some(Self { pid, started: fields_of(pid)?.split_whitespace().nth(19)?.parse().ok()? })
    }

    /// True while that very process is there.
    pub fn lives(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Reads what [`fmt::Display`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        let (pid, started) = text.trim().split_once(' ')?;
        Some(Self { pid: Pid::from_raw(pid.parse().ok()?), started: started.parse().ok()? })
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.pid, self.started)
    }
}

/// How a process ended.
#[derive(Clone, Debug)]
pub struct End {
    name: String,
    status: WaitStatus,
}

impl End {
    /// True for a program of this name. The kernel keeps 15 bytes of it.
    pub fn is_named(&self, name: &str) -> bool {
        !self.name.is_empty() && self.name.as_bytes() == &name.as_bytes()[..name.len().min(15)]
    }

    /// It ended by itself, with 0.
    pub const fn is_clean(&self) -> bool {
        matches!(self.status, WaitStatus::Exited(_, 0))
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            WaitStatus::Exited(_, code) => write!(f, "exited with {code}"),
            WaitStatus::Signaled(_, signal, _) => write!(f, "was killed by {signal}"),
            other => write!(f, "ended: {other:?}"),
        }
    }
}

/// Reaps one dead child, ours or adopted, if there is one. What it was called is read while it is still to be seen.
pub fn next_dead() -> Option<(Pid, End)> {
    loop {
        let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        let pid = match waitid(Id::All, look) {
            Err(Errno::EINTR) => continue,
            seen => seen.ok()?.pid()?,
        };
        let name = command_name(pid);
        match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
            Err(Errno::EINTR) => {}
            status => return Some((pid, End { name, status: status.ok()? })),
        }
    }
}

/// What the kernel calls a process.
pub fn command_name(pid: Pid) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

/// True where the process runs a tars-init.
pub fn is_tars_init(pid: Pid) -> bool {
    command_name(pid) == "tars-init"
}

/// True while it is there and not dead; one that waits to be reaped is dead.
pub fn is_running(pid: Pid) -> bool {
    parent_and_state(pid).is_some_and(|(_, state)| state != 'Z' && state != 'X')
}

/// The processes that run this program, directly or (a script) through its interpreter; dead ones do not count.
///
/// Looks again before it says "none": a daemon that forks and lets its parent end can slip through one look, its
/// parent being gone when we come to it and itself not yet born when we read the list. tarsnode forks twice.
pub fn running(program: &Path) -> Vec<Pid> {
    (0..3).map(|_| seen_running(program)).find(|seen| !seen.is_empty()).unwrap_or_default()
}

/// By the command line first: a publish replaces a program's file while it runs. By the file it runs otherwise.
fn seen_running(program: &Path) -> Vec<Pid> {
    let word = program.as_os_str().as_encoded_bytes();
    all()
        .into_iter()
        .filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).take(2).any(|argument| argument == word)
                || fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|file| file == program)
        })
        .collect()
}

/// All processes below `root`, without those that are dead and wait to be reaped.
pub fn descendants(root: Pid) -> Vec<Pid> {
    let parents: BTreeMap<i32, (i32, char)> =
        all().into_iter().filter_map(|pid| Some((pid.as_raw(), parent_and_state(pid)?))).collect();
    let is_below = |pid: i32| {
        let mut at = pid;
        // Deeper than this it is a circle, made by pids that were used again while we read.
        for _ in 0..64 {
            match parents.get(&at) {
                Some((parent, _)) if *parent == root.as_raw() => return true,
                Some((parent, _)) => at = *parent,
                None => return false,
            }
        }
        false
    };
    parents
        .iter()
        .filter(|(pid, (_, state))| *state != 'Z' && is_below(**pid))
        .map(|(pid, _)| Pid::from_raw(*pid))
        .collect()
}

/// True where a process that is not dead is below `root`.
pub fn is_below(pid: Pid, root: Pid) -> bool {
    let mut at = pid;
    // As above.
    for _ in 0..64 {
        match parent_and_state(at) {
            Some((_, 'Z')) if at == pid => return false,
            Some((parent, _)) if parent == root.as_raw() => return true,
            Some((parent, _)) => at = Pid::from_raw(parent),
            None => return false,
        }
    }
    false
}

/// Every process of this pid namespace.
pub fn all() -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).map(Pid::from_raw).collect()
}

fn parent_and_state(pid: Pid) -> Option<(i32, char)> {
    let fields = fields_of(pid)?;
    let mut fields = fields.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((fields.next()?.parse().ok()?, state))
}

/// What stands in `stat` after the name, which stands between parentheses and may hold anything. The fields that are asked for
/// are among the first, and fit into one read: a health check does this for each process.
fn fields_of(pid: Pid) -> Option<String> {
    let mut buffer = [0; 1024];
    let length = fs::File::open(format!("/proc/{pid}/stat")).ok()?.read(&mut buffer).ok()?;
    let stat = String::from_utf8_lossy(&buffer[..length]);
    Some(stat.rsplit_once(')')?.1.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn child_is_found_by_its_program_and_below_its_parent() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("sleeper");
        fs::copy("/bin/sleep", &program).unwrap();
        let mut child = std::process::Command::new(&program).arg("60").spawn().unwrap();
        let pid = Pid::from_raw(child.id().cast_signed());
        // The kernel shows the new command line a moment after exec has let the parent go on.
        while running(&program) != [pid] {
            std::thread::yield_now();
        }
        assert!(descendants(Pid::this()).contains(&pid) && is_below(pid, Pid::this()));
        assert!(!is_below(Pid::parent(), Pid::this()) && !is_below(Pid::this(), Pid::this()));
        child.kill().unwrap();
        // Dead, not yet reaped: it runs no more.
        while parent_and_state(pid).is_some_and(|(_, state)| state != 'Z') {
            std::thread::yield_now();
        }
        assert!(running(&program).is_empty());
        assert!(!descendants(Pid::this()).contains(&pid) && !is_below(pid, Pid::this()));
        child.wait().unwrap();
    }
}
