//! This container's own processes and their sockets: an answer from anybody else's proves nothing.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use nix::unistd::Pid;

use super::processes::{self, Identity};
use super::sockets::{self, Held, Listener};

/// The processes below PID 1, at the moment of the first question.
#[derive(Clone, Debug)]
pub struct OwnProcesses {
    init: Pid,
    /// All of them, once they were needed.
    pids: OnceCell<Vec<Pid>>,
    /// Where sockets were seen earlier: looked at first.
    before: Vec<Held>,
    /// Where those are that were asked for.
    pub seen: BTreeSet<Held>,
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
        Self::seen_before(init, Vec::new())
    }

    /// The same, with where sockets were seen earlier.
    pub fn seen_before(init: Pid, before: Vec<Held>) -> Self {
        Self { init, pids: OnceCell::new(), before, seen: BTreeSet::new() }
    }

    /// True where one of them runs this program.
    pub fn runs(&self, program: &std::path::Path) -> bool {
        processes::running(program).iter().any(|pid| self.pids().contains(pid))
    }

    fn pids(&self) -> &[Pid] {
        self.pids.get_or_init(|| processes::descendants(self.init))
    }

    /// Who listens at each of these addresses.
    pub fn holders(&mut self, addresses: &[SocketAddr]) -> Vec<SocketOwner> {
        let Ok(listeners) = sockets::listeners() else { return vec![SocketOwner::Unknown; addresses.len()] };
        let reached: Vec<Option<Listener>> =
            addresses.iter().map(|address| sockets::reached_by(*address, &listeners)).collect();
        let wanted: BTreeSet<u64> = reached.iter().flatten().map(|listener| listener.inode).collect();
        let holders = self.find(&wanted);
        reached
            .iter()
            .map(|listener| {
                let pid = listener.and_then(|listener| holders.get(&listener.inode)).map(|held| held.pid);
                pid.and_then(Identity::of).map_or(SocketOwner::Foreign, SocketOwner::Own)
            })
            .collect()
    }

    /// Where one of them listens on this port.
    pub fn listens_on(&mut self, port: u16) -> Option<SocketAddr> {
        let listeners: Vec<Listener> =
            sockets::listeners().ok()?.into_iter().filter(|listener| listener.at.port() == port).collect();
        let wanted = listeners.iter().map(|listener| listener.inode).collect();
        let holders = self.find(&wanted);
        listeners.iter().find(|listener| holders.contains_key(&listener.inode)).map(|listener| listener.at)
    }

    /// Who has a UDP socket on this port.
    pub fn holds_udp(&mut self, port: u16) -> SocketOwner {
        let Ok(all) = sockets::udp() else { return SocketOwner::Unknown };
        let wanted =
            all.iter().filter(|socket| socket.at.port() == port).map(|socket| socket.inode).collect();
        let holder = self.find(&wanted).into_values().next();
        holder.and_then(|held| Identity::of(held.pid)).map_or(SocketOwner::Foreign, SocketOwner::Own)
    }

    fn find(&mut self, wanted: &BTreeSet<u64>) -> BTreeMap<u64, Held> {
        let mut found = sockets::still_held(&self.before, wanted);
        found.retain(|_, held| processes::is_below(held.pid, self.init));
        if found.len() < wanted.len() {
            sockets::find_holders(self.pids(), wanted, &mut found);
        }
        self.seen.extend(found.values());
        found
    }
}
