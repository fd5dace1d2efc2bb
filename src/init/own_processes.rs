//! This container's own processes and their sockets: an answer from anybody else's proves nothing.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use nix::unistd::Pid;

use super::processes::{self, Identity};
use super::sockets::{self, Listener};

/// The processes below PID 1, at one moment.
#[derive(Clone, Debug)]
pub struct OwnProcesses {
    pids: Vec<Pid>,
}

/// Whose socket is reached at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketOwner {
    /// A process of this container.
    Own(Identity),
    /// Somebody else's, or none is to be seen: the address is another container's, or behind a translation.
    Foreign,
    /// The kernel does not tell who listens: then an answer must do.
    Unknown,
}

impl OwnProcesses {
    /// What runs below this container's PID 1.
    pub fn below(init: Pid) -> Self {
        Self { pids: processes::descendants(init) }
    }

    /// True where one of them runs this program.
    pub fn runs(&self, program: &std::path::Path) -> bool {
        processes::running(program).iter().any(|pid| self.pids.contains(pid))
    }

    /// Who listens at each of these addresses.
    pub fn holders(&self, addresses: &[SocketAddr]) -> Vec<SocketOwner> {
        let Ok(listeners) = sockets::listeners() else { return vec![SocketOwner::Unknown; addresses.len()] };
        let reached: Vec<Option<Listener>> =
            addresses.iter().map(|address| sockets::reached_by(*address, &listeners)).collect();
        let wanted: BTreeSet<u64> = reached.iter().flatten().map(|listener| listener.inode).collect();
        let holders = sockets::holders(&self.pids, &wanted);
        reached
            .iter()
            .map(|listener| {
                let pid = listener.and_then(|listener| holders.get(&listener.inode).copied());
                pid.and_then(Identity::of).map_or(SocketOwner::Foreign, SocketOwner::Own)
            })
            .collect()
    }

    /// Where one of them listens on this port.
    pub fn listens_on(&self, port: u16) -> Option<SocketAddr> {
        let listeners: Vec<Listener> =
            sockets::listeners().ok()?.into_iter().filter(|listener| listener.at.port() == port).collect();
        let wanted = listeners.iter().map(|listener| listener.inode).collect();
        let holders = sockets::holders(&self.pids, &wanted);
        listeners.iter().find(|listener| holders.contains_key(&listener.inode)).map(|listener| listener.at)
    }
}
