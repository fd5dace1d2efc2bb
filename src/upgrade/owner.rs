//! Who works on a deployment, and whether that process still lives. Death is claimed only where it is proven.
//!
//! A pid means something only on its own machine, in its own boot and its own pid namespace. Clones of a virtual machine
//! share `/etc/machine-id`, and those restored from one snapshot share the boot id too: so a machine is told by more than
//! an id that is copied with its disk, and what cannot be looked at proves nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::oci::Digest;

/// The labels of the lock that say who holds it.
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
    /// A digest of what tells this machine from its clones; empty where there is nothing to tell it by.
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
    /// The machine is the owner's, as far as its ids say, and was booted since. Clones say the same of each other: only an
    /// owner who has not been heard of since that boot is gone.
    Rebooted,
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
            machine: machine(&host),
            who: format!("{user}@{host}"),
            boot: read("/proc/sys/kernel/random/boot_id"),
            namespace: namespace(),
            pid,
            started: started(pid).unwrap_or_default(),
        }
    }

    /// As labels of the lock.
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

    /// From the labels of a lock; what is missing is empty.
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

    /// True where `other` ran on this machine, as far as its ids tell.
    pub fn is_on_the_machine_of(&self, other: &Self) -> bool {
        !self.machine.is_empty() && self.machine == other.machine
    }

    /// Whether `other` still lives, as far as `self` can tell.
    pub fn liveness_of(&self, other: &Self) -> Liveness {
        if other.boot.is_empty() || self.boot.is_empty() || !self.is_on_the_machine_of(other) {
            return Liveness::Unknown;
        }
        if self.boot != other.boot {
            return Liveness::Rebooted;
        }
        if self.namespace != other.namespace || other.namespace.is_empty() {
            return Liveness::Unknown;
        }
        match (exists(other.pid), started(other.pid)) {
            (Some(false), _) => Liveness::Dead,
            (_, Some(started)) if started == other.started => Liveness::Alive,
            (_, Some(_)) => Liveness::Dead,
            // `/proc` mounted with hidepid shows nothing of other people's processes: that is no death.
            (_, None) => Liveness::Unknown,
        }
    }
}

/// When this machine was booted, in seconds since the epoch.
pub fn booted_at() -> Option<i64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// Machine id, firmware's id, host name and the addresses of real network cards: a clone differs in one of them at least.
fn machine(host: &str) -> String {
    let id = read("/etc/machine-id");
    let product = read("/sys/class/dmi/id/product_uuid");
    let mut cards: Vec<String> = fs::read_dir("/sys/class/net")
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|card| card.join("device").exists())
        .map(|card| read(&card.join("address").to_string_lossy()))
        .collect();
    cards.sort();
    if id.is_empty() && product.is_empty() && cards.is_empty() {
        return String::new();
    }
    Digest::of(format!("{id}\n{product}\n{host}\n{}", cards.join(" "))).hex()
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

/// Whether a process of that pid is there, by kill(2) with no signal: it says so of other people's processes too.
fn exists(pid: u32) -> Option<bool> {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).ok()?)?;
    match rustix::process::test_kill_process(pid) {
        Ok(()) | Err(rustix::io::Errno::PERM) => Some(true),
        Err(rustix::io::Errno::SRCH) => Some(false),
        Err(_) => None,
    }
}

/// Field 22 of `/proc/<pid>/stat`, counted behind the command's closing parenthesis (proc(5)); `None` where it is not shown.
fn started(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> Owner {
        Owner { machine: "m".to_owned(), ..Owner::current() }
    }

    #[test]
    fn owner_survives_its_labels() {
        let owner = Owner::current();
        assert_eq!(Owner::from_labels(&owner.labels()), owner);
    }

    #[test]
    fn liveness_is_claimed_only_where_it_is_proven() {
        let me = here();
        assert_eq!(me.liveness_of(&me), Liveness::Alive);
        let reused = Owner { started: "1".to_owned(), ..me.clone() };
        assert_eq!(me.liveness_of(&reused), Liveness::Dead);
        // No process has the greatest pid that a kernel gives out, and more.
        let gone = Owner { pid: 4_194_305, ..me.clone() };
        assert_eq!(me.liveness_of(&gone), Liveness::Dead);
        let contained = Owner { namespace: "pid:[1]".to_owned(), ..me.clone() };
        assert_eq!(me.liveness_of(&contained), Liveness::Unknown);
        assert_eq!(me.liveness_of(&Owner::default()), Liveness::Unknown);
    }

    #[test]
    fn clone_of_a_machine_proves_nothing_about_the_other() {
        let me = here();
        // Restored from one snapshot: boot id, namespace and pids are the same, the cards' addresses are not.
        let restored = Owner { machine: "n".to_owned(), pid: 4_194_305, ..me.clone() };
        assert_eq!(me.liveness_of(&restored), Liveness::Unknown);
        // The same in everything but the boot: booted since, or a clone; the lease must tell.
        let booted = Owner { boot: "earlier".to_owned(), ..me.clone() };
        assert_eq!(me.liveness_of(&booted), Liveness::Rebooted);
        let nameless = Owner { machine: String::new(), ..me };
        assert_eq!(nameless.liveness_of(&nameless), Liveness::Unknown);
    }
}
