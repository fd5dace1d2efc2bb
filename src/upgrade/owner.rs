//! Who works on a deployment, and whether that process still lives: by boot id, pid and the pid's start time.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The labels of the lock container that say who holds it.
const OWNER: &str = "io.tarsup.lock.owner";
const MACHINE: &str = "io.tarsup.lock.machine";
const BOOT: &str = "io.tarsup.lock.boot";
const NAMESPACE: &str = "io.tarsup.lock.namespace";
const PID: &str = "io.tarsup.lock.pid";
const STARTED: &str = "io.tarsup.lock.started";

/// One process, named so that nobody else is taken for it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Owner {
    /// `user@host`, for people.
    pub who: String,
    /// `/etc/machine-id`; empty where there is none.
    pub machine: String,
    /// The kernel's boot id; empty where there is none.
    pub boot: String,
    /// The pid namespace: pids mean nothing outside of it.
    pub namespace: String,
    /// The pid.
    pub pid: u32,
    /// When the pid was started, in clock ticks since boot: pids are used again.
    pub started: String,
}

/// What can be said of an owner from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// It is proven to run.
    Alive,
    /// It is proven to be gone.
    Dead,
    /// It ran on a machine, or in a namespace, that cannot be looked into from here.
    Unknown,
}

impl Owner {
    /// This process.
    pub fn current() -> Self {
        let pid = std::process::id();
        let user = ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok());
        let user = user.or_else(account).unwrap_or_else(|| "unknown".to_owned());
        let host = read("/proc/sys/kernel/hostname");
        let host = if host.is_empty() { "unknown".to_owned() } else { host };
        Self {
            who: format!("{user}@{host}"),
            machine: read("/etc/machine-id"),
            boot: read("/proc/sys/kernel/random/boot_id"),
            namespace: namespace(),
            pid,
            started: started(pid).unwrap_or_default(),
        }
    }

    /// As labels of the lock container.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let pid = self.pid.to_string();
        let pairs = [
            (OWNER, &self.who),
            (MACHINE, &self.machine),
            (BOOT, &self.boot),
            (NAMESPACE, &self.namespace),
            (PID, &pid),
            (STARTED, &self.started),
        ];
        pairs.into_iter().map(|(key, value)| (key.to_owned(), value.clone())).collect()
    }

    /// From the labels of a lock container; what is missing is empty.
    pub fn from_labels(labels: &BTreeMap<String, String>) -> Self {
        let text = |key: &str| labels.get(key).cloned().unwrap_or_default();
        Self {
            who: text(OWNER),
            machine: text(MACHINE),
            boot: text(BOOT),
            namespace: text(NAMESPACE),
            pid: text(PID).parse().unwrap_or(0),
            started: text(STARTED),
        }
    }

    /// Whether `other` still lives, as far as `self` can tell.
    pub fn liveness_of(&self, other: &Self) -> Liveness {
        if other.boot.is_empty() || self.boot.is_empty() {
            return Liveness::Unknown;
        }
        if self.boot != other.boot {
            // The same machine, booted since: no process has outlived that.
            let rebooted = !self.machine.is_empty() && self.machine == other.machine;
            return if rebooted { Liveness::Dead } else { Liveness::Unknown };
        }
        if self.namespace != other.namespace || other.namespace.is_empty() {
            return Liveness::Unknown;
        }
        if started(other.pid).is_some_and(|started| started == other.started) {
            Liveness::Alive
        } else {
            Liveness::Dead
        }
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// The account's name, where the environment does not say (services and cron jobs).
fn account() -> Option<String> {
    use std::os::unix::fs::MetadataExt as _;
    let uid = fs::metadata("/proc/self").ok()?.uid().to_string();
    let accounts = fs::read_to_string("/etc/passwd").ok()?;
    let line = accounts.lines().find(|line| line.split(':').nth(2) == Some(uid.as_str()))?;
    line.split(':').next().map(str::to_owned)
}

fn namespace() -> String {
    let link = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    link.to_string_lossy().into_owned()
}

/// Field 22 of `/proc/<pid>/stat`, counted behind the command's closing parenthesis (proc(5)).
fn started(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owner_survives_its_labels() {
        let owner = Owner::current();
        assert_eq!(Owner::from_labels(&owner.labels()), owner);
    }

    #[test]
    fn liveness_is_claimed_only_where_it_is_proven() {
        let me = Owner::current();
        assert_eq!(me.liveness_of(&me), Liveness::Alive);
        let reused = Owner { started: "1".to_owned(), ..me.clone() };
        assert_eq!(me.liveness_of(&reused), Liveness::Dead);
        let machine = Owner { machine: "m".to_owned(), ..me.clone() };
        let before_boot = Owner { boot: "earlier".to_owned(), ..machine.clone() };
        assert_eq!(machine.liveness_of(&before_boot), Liveness::Dead);
        let elsewhere = Owner { machine: "n".to_owned(), boot: "b".to_owned(), ..me.clone() };
        assert_eq!(machine.liveness_of(&elsewhere), Liveness::Unknown);
        let contained = Owner { namespace: "pid:[1]".to_owned(), ..me.clone() };
        assert_eq!(me.liveness_of(&contained), Liveness::Unknown);
        assert_eq!(me.liveness_of(&Owner::default()), Liveness::Unknown);
    }
}
