//! What a registry said last of this node, kept in the volume with its time: after a power loss the registries take longer
//! than the nodes.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::tars::registry::Server;

use crate::init::paths::Paths;
use crate::init::render;

/// The format.
const VERSION: u32 = 1;
/// What is older says nothing any more.
const LASTS: Duration = Duration::from_mins(10);

/// The servers of a node at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    version: u32,
    /// The node's name.
    node: String,
    /// When a registry said so, in seconds since 1970.
    at: u64,
    /// What it said.
    pub servers: Vec<Server>,
}

fn path(paths: &Paths) -> PathBuf {
    paths.data().join(".tarsup-servers.json")
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl Memory {
    /// What a registry says now.
    pub fn new(node: &str, servers: Vec<Server>, now: SystemTime) -> Self {
        Self { version: VERSION, node: node.to_owned(), at: seconds(now), servers }
    }

    /// Writes it.
    pub fn write(&self, paths: &Paths) -> std::io::Result<()> {
        render::write(&path(paths), &serde_json::to_string(self).unwrap_or_default())
    }

    /// The one that lies in the volume, where it is of this node and young enough. A time to come is that of another clock.
    pub fn read(paths: &Paths, node: &str, now: SystemTime) -> Option<Self> {
        let memory: Self = serde_json::from_str(&fs::read_to_string(path(paths)).ok()?).ok()?;
        let age = seconds(now).checked_sub(memory.at)?;
        (memory.version == VERSION && memory.node == node && age <= LASTS.as_secs()).then_some(memory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_of_one_node_and_lasts_ten_minutes() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        let now = SystemTime::now();
        assert_eq!(Memory::read(&paths, "a", now), None);
        let memory = Memory::new("a", vec![Server { name: "Hello".to_owned(), ..Server::default() }], now);
        memory.write(&paths).unwrap();
        let read = |node: &str, later: u64| Memory::read(&paths, node, now + Duration::from_secs(later));
        assert_eq!(read("a", 0), Some(memory.clone()));
        assert_eq!(read("a", 600), Some(memory));
        assert_eq!(read("a", 601), None);
        assert_eq!(read("b", 0), None);
        assert_eq!(Memory::read(&paths, "a", now - Duration::from_mins(1)), None);
        fs::write(path(&paths), "{").unwrap();
        assert_eq!(read("a", 0), None);
    }
}
