//! What a container holds that goes with it: shared memory with its stop, files of its own layer with its removal.
//!
//! Looked at in the container while it runs, by its tars-init or its shell: nothing of it can be seen from the engine's side.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use super::guard;
use crate::engine::{Change, ChangeKind, Container, Engine};
use crate::tars::Role;
use crate::tars::catalogue::INIT_PATH;

/// How long a look may take: a node may run hundreds of processes.
const TIMEOUT: Duration = Duration::from_secs(20);

/// What tars-init prints as well, of a container without one: a line for each segment, process, attachment and file.
const SCRIPT: &str = "[ -r /proc/sysvipc/shm ] || exit 3
while read -r key id perms size creator last rest; do echo \"segment $id $size $creator $last\"; done </proc/sysvipc/shm
for p in /proc/[0-9]*; do { read -r name <\"$p/comm\" && echo \"process ${p#/proc/} $name\"; } 2>/dev/null; done
grep -s /SYSV /proc/[0-9]*/maps | while read -r at perms offset device inode rest; do
    at=${at#/proc/}; echo \"attached ${at%%/*} $inode\"; done
for f in /dev/shm/* /dev/shm/.[!.]*; do [ ! -f \"$f\" ] || echo \"file ${f#/dev/shm/}\"; done
echo end";

/// The services whose segments are statistics, which they make anew.
const STATISTICS: [&str; 2] = ["tarsstat", "tarsproperty"];

/// What a container holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// Shared memory that ends with its last process, without that of the statistics.
    pub shared: Looked<Shared>,
    /// What differs from its image, without what a start writes.
    pub changed: Looked<Change>,
}

/// What was seen, or why nobody could look.
pub type Looked<T> = std::result::Result<Vec<T>, String>;

/// A piece of shared memory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shared {
    /// A segment of System V.
    Segment {
        /// Its id.
        id: u64,
        /// Its size in bytes.
        size: u64,
        /// The names of the processes that have it, or of those that made it and had it last; none where all are gone.
        owners: BTreeSet<String>,
    },
    /// A file in `/dev/shm`.
    File(String),
}

impl Shared {
    /// True where nobody who has it is alive.
    pub fn is_left_over(&self) -> bool {
        matches!(self, Self::Segment { owners, .. } if owners.is_empty())
    }
}

impl std::fmt::Display for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(name) => write!(f, "/dev/shm/{name}"),
            Self::Segment { size, owners, .. } => {
                let owners: Vec<&str> = owners.iter().map(String::as_str).collect();
                let owners =
                    if owners.is_empty() { "nobody that lives".to_owned() } else { owners.join(", ") };
                write!(f, "a segment of {} KiB of {owners}", size.div_ceil(1024))
            }
        }
    }
}

/// Looks into a container that runs.
pub async fn look(engine: &dyn Engine, container: &Container, role: Option<Role>) -> Contents {
    let changed = match engine.changes(&container.id).await {
        Ok(changes) => Ok(unexplained(&changes, container, role)),
        Err(error) => Err(error.to_string()),
    };
    Contents { shared: shared(engine, container).await, changed }
}

async fn shared(engine: &dyn Engine, container: &Container) -> Looked<Shared> {
    let mode = container.raw.pointer("/HostConfig/IpcMode").and_then(Value::as_str).unwrap_or_default();
    if mode == "host" || mode.starts_with("container:") {
        // It is somebody else's, and outlives this container.
        return Ok(Vec::new());
    }
    let mut why = "it has no tars-init and no shell to look with".to_owned();
    let own: &[&str] = &[INIT_PATH, "shared-memory"];
    let shell: &[&str] = &["/bin/sh", "-c", SCRIPT];
    let has_init = guard::has_our_start(&container.raw["Config"]);
    for command in if has_init { vec![own, shell] } else { vec![shell] } {
        match engine.exec(&container.id, command, TIMEOUT).await {
            Ok(output) if output.exit_code == 0 => {
                if let Some(seen) = read(&output.stdout) {
                    let lasts = destinations(container).iter().any(|path| path == "/dev/shm");
                    let goes = |it: &Shared| !(lasts && matches!(it, Shared::File(_)));
                    return Ok(seen.into_iter().filter(goes).collect());
                }
                "it was looked at, and told nothing that is understood".clone_into(&mut why);
            }
            Ok(_) => {}
            Err(error) => why = error.to_string(),
        }
    }
    Err(why)
}

/// Reads what a look printed; `None` where it was cut off.
fn read(text: &str) -> Option<Vec<Shared>> {
    let (mut segments, mut names, mut files) = (Vec::new(), BTreeMap::new(), Vec::new());
    let mut attached: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
    let mut is_whole = false;
    for line in text.lines() {
        let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
        let numbers: Vec<u64> = rest.split_whitespace().map_while(|word| word.parse().ok()).collect();
        match (kind, numbers.as_slice()) {
            ("segment", &[id, size, creator, last]) => segments.push((id, size, [creator, last])),
            ("attached", &[pid, id]) => drop(attached.entry(id).or_default().insert(pid)),
            ("process", &[pid, ..]) => {
                let name = rest.split_once(' ').map_or("", |(_, name)| name);
                names.insert(pid, name.to_owned());
            }
            // A semaphore holds no data.
            ("file", _) if !rest.starts_with("sem.") => files.push(rest.to_owned()),
            ("end", _) => is_whole = true,
            _ => {}
        }
    }
    let owners_of = |pids: &mut dyn Iterator<Item = u64>| -> BTreeSet<String> {
        pids.filter_map(|pid| names.get(&pid).cloned()).collect()
    };
    let segments = segments.into_iter().map(|(id, size, made)| {
        let mut owners = owners_of(&mut attached.get(&id).into_iter().flatten().copied());
        if owners.is_empty() {
            owners = owners_of(&mut made.into_iter());
        }
        Shared::Segment { id, size, owners }
    });
    let is_statistics = |it: &Shared| match it {
        Shared::Segment { owners, .. } => {
            !owners.is_empty() && owners.iter().all(|owner| STATISTICS.contains(&owner.as_str()))
        }
        Shared::File(name) => STATISTICS.iter().any(|service| name.contains(service)),
    };
    let all = segments.chain(files.into_iter().map(Shared::File));
    is_whole.then(|| all.filter(|it| !is_statistics(it)).collect())
}

/// Where something is mounted.
fn destinations(container: &Container) -> Vec<String> {
    let mounts = container.raw["Mounts"].as_array().into_iter().flatten();
    let mounts = mounts.filter_map(|mount| mount["Destination"].as_str());
    let tmpfs = container.raw.pointer("/HostConfig/Tmpfs").and_then(Value::as_object);
    mounts
        .chain(tmpfs.into_iter().flat_map(|tmpfs| tmpfs.keys().map(String::as_str)))
        .map(str::to_owned)
        .collect()
}

/// What the engine, the system and its tools write.
const EVERYWHERE: [&str; 13] = [
    "/.dockerenv",
    "/dev",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/mtab",
    "/etc/resolv.conf",
    "/proc",
    "/run",
    "/sys",
    "/tmp",
    "/var/log",
    "/var/run",
    "/var/tmp",
];
/// What a start of upstream's installs anew.
const OF_UPSTREAM: [&str; 4] = ["/root", "/tars", "/usr/local/app", "/usr/local/tars"];
/// What a start of tars-init, and the services, write: `*` is one name.
const OF_TARS_INIT: [&str; 16] = [
    "/tars/*",
    "/usr/local/app/patchs",
    "/usr/local/app/tars/*/bin/tars_start.sh",
    "/usr/local/app/tars/*/bin/tars_start.sh.pid",
    "/usr/local/app/tars/*/conf",
    "/usr/local/app/tars/*/data",
    "/usr/local/app/tars/*/util",
    "/usr/local/app/tars/.tars-init-container",
    "/usr/local/app/tars/.tars-init-programs",
    "/usr/local/app/tars/.tars-init-started",
    "/usr/local/app/tars/app_log",
    "/usr/local/app/tars/remote_app_log",
    "/usr/local/app/tars/tarsnode/tmp",
    "/usr/local/app/web/config",
    "/usr/local/app/web/files",
    "/usr/local/app/web/log",
];

/// The changes that neither a mount nor a start explains, without the folders on the way to them.
fn unexplained(changes: &[Change], container: &Container, role: Option<Role>) -> Vec<Change> {
    let mounts = destinations(container);
    let written: &[&str] = match role {
        Some(Role::Master | Role::Slave | Role::Node) if guard::has_our_start(&container.raw["Config"]) => {
            &OF_TARS_INIT
        }
        Some(Role::Master | Role::Slave | Role::Node) => &OF_UPSTREAM,
        Some(Role::Database) | None => &[],
    };
    let written = || EVERYWHERE.iter().chain(written);
    let is_way_to = |path: &str, other: &str| {
        other.len() > path.len() && other.starts_with(path) && other.as_bytes()[path.len()] == b'/'
    };
    let is_left = |change: &&Change| {
        let path = change.path.as_str();
        let mut others =
            changes.iter().map(|other| other.path.as_str()).chain(mounts.iter().map(String::as_str));
        let explained = written().any(|pattern| lies_in(path, pattern))
            || mounts.iter().any(|mount| lies_in(path, mount));
        !explained && (change.kind == ChangeKind::Deleted || !others.any(|other| is_way_to(path, other)))
    };
    changes.iter().filter(is_left).cloned().collect()
}

/// True where the path is the pattern, or below it.
fn lies_in(path: &str, pattern: &str) -> bool {
    let mut names = path.split('/');
    pattern.split('/').all(|wanted| names.next().is_some_and(|name| wanted == "*" || wanted == name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEEN: &str = "segment shmid size cpid lpid\nsegment 0 67108864 17 17\nsegment 1 4096 40 40\nsegment 2 1 98 99\n\
                        process 17 tarsstat\nprocess 30 cache server\nattached 30 1\nattached 17 0\nfile sem.x\nfile a b\nend\n";

    #[test]
    fn segments_are_those_of_who_is_attached_else_of_who_made_them() {
        let segment = |id, size, owners: &[&str]| Shared::Segment {
            id,
            size,
            owners: owners.iter().map(|&owner| owner.to_owned()).collect(),
        };
        let expected =
            [segment(1, 4096, &["cache server"]), segment(2, 1, &[]), Shared::File("a b".to_owned())];
        assert_eq!(read(SEEN).unwrap(), expected);
        assert!(expected[1].is_left_over() && !expected[0].is_left_over());
        assert_eq!(read(SEEN.trim_end().trim_end_matches("end")), None, "cut off");
        assert_eq!(expected[0].to_string(), "a segment of 4 KiB of cache server");
    }

    #[test]
    fn names_of_a_pattern_are_whole() {
        assert!(lies_in("/usr/local/app/tars/tarslog/conf/x", "/usr/local/app/tars/*/conf"));
        assert!(lies_in("/run", "/run") && !lies_in("/running", "/run"));
        assert!(!lies_in("/usr/local/app/tars/tarslog/bin/tarslog", "/usr/local/app/tars/*/conf"));
    }
}
