//! Which of the servers that must run here serve: an answer to tars_ping where one is given, else a socket and the process behind it.
//! What the database says of a server (`present_state`, `process_id`) proves nothing: nobody resets it when a container stops.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use serde::Serialize;

use crate::tars::registry::{Listens, Server};

use super::{Node, Place};
use crate::init::address;
use crate::init::health::Pending;
use crate::init::output_log;
use crate::init::own_processes::{OwnProcesses, SocketOwner};

/// For all answers together.
pub(super) const PING: Duration = Duration::from_secs(2);

/// A server that must run here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Served {
    /// Such as `Demo.HelloServer`.
    pub server: String,
    /// It serves, from a process of this container.
    pub serves: bool,
    /// Why it does not, in a few words; else empty.
    pub detail: String,
    /// The last lines that it wrote, where it does not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
}

/// Whether each server that must run here serves; why nobody knows, where no registry answers.
pub fn look(node: &Node, init: Pid) -> Result<Vec<Served>, String> {
    let mut servers = node.ask()?;
    servers.retain(|server| node.is_deployed(server) && server.is_wanted() && !server.runs_beside());
    let deadline = Instant::now() + PING;
    let asked: Vec<Vec<Port>> = servers.iter().map(Port::all).collect();
    let mut own = OwnProcesses::below(init);
    let serving = servers.iter().zip(asked).map(|(server, ports)| {
        let place = Place::of(server, &node.paths);
        let processes: BTreeSet<Pid> = place.processes().into_iter().collect();
        let why = complaint(ports, &processes, &mut own, deadline);
        let log = if why.is_some() { output_log::last_lines(&place.output(server), &[]) } else { Vec::new() };
        Served { server: server.id(), serves: why.is_none(), detail: why.unwrap_or_default(), log }
    });
    Ok(serving.collect())
}

/// Where a server listens, and the ping under way there.
struct Port {
    listens: Listens,
    at: Option<SocketAddr>,
    ping: Option<Pending>,
}

impl Port {
    fn all(server: &Server) -> Vec<Self> {
        let of = |listens: Listens, servant: &str| {
            let at = address::socket(&listens.host, listens.port).ok();
            let ping = at.filter(|_| listens.answers_ping).map(|at| Pending::ask(at, servant));
            Self { listens, at, ping }
        };
        let adapters = server.adapters.iter();
        adapters.filter_map(|adapter| Some(of(adapter.listens()?, &adapter.servant))).collect()
    }
}

fn complaint(
    ports: Vec<Port>,
    processes: &BTreeSet<Pid>,
    own: &mut OwnProcesses,
    deadline: Instant,
) -> Option<String> {
    if ports.is_empty() {
        return processes.is_empty().then(|| "no process of it".to_owned());
    }
    for Port { listens, at, ping } in ports {
        let port = listens.port;
        if let Some(ping) = ping
            && let Err(why) = ping.answer(deadline)
        {
            return Some(format!("port {port}: {why}"));
        }
        let holder = if listens.is_udp {
            own.holds_udp(port)
        } else {
            at.map_or(SocketOwner::Foreign, |at| own.holders(&[at])[0])
        };
        match holder {
            SocketOwner::Foreign if listens.answers_ping => {
                return Some(format!("port {port}: it is no process of this container that answers"));
            }
            SocketOwner::Foreign => return Some(format!("port {port}: nothing of this container listens")),
            SocketOwner::Own(process) if !processes.is_empty() && !processes.contains(&process.pid) => {
                return Some(format!("port {port}: another server listens (pid {})", process.pid));
            }
            SocketOwner::Own(_) | SocketOwner::Unknown => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;
    use crate::tars::registry::Adapter;

    fn server(adapters: &[(&str, u16, &str)]) -> Server {
        let adapter = |(transport, port, protocol): &(&str, u16, &str)| Adapter {
            endpoint: format!("{transport} -h 127.0.0.1 -t 60000 -p {port}"),
            protocol: (*protocol).to_owned(),
            servant: "Demo.HelloServer.HelloObj".to_owned(),
            ..Adapter::default()
        };
        Server { adapters: adapters.iter().map(adapter).collect(), ..Server::default() }
    }

    fn judged(adapters: &[(&str, u16, &str)], processes: &[Pid]) -> Option<String> {
        let deadline = Instant::now() + Duration::from_millis(300);
        // The test itself holds the sockets: it is below its parent.
        let mut own = OwnProcesses::below(Pid::parent());
        complaint(Port::all(&server(adapters)), &processes.iter().copied().collect(), &mut own, deadline)
    }

    #[test]
    fn what_does_not_speak_tars_must_listen_and_be_the_server() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (port, of_udp) = (tcp.local_addr().unwrap().port(), udp.local_addr().unwrap().port());
        assert_eq!(judged(&[("tcp", port, "http"), ("udp", of_udp, "tars")], &[]), None);
        assert_eq!(judged(&[("tcp", port, "http")], &[Pid::this()]), None);
        let other = judged(&[("tcp", port, "http")], &[Pid::from_raw(1)]);
        assert!(other.unwrap().contains("another server listens"));
        // Nothing answers there.
        assert!(judged(&[("tcp", port, "tars")], &[]).unwrap().contains("no answer in time"));
        drop((tcp, udp));
        assert!(judged(&[("tcp", port, "http")], &[]).unwrap().contains("nothing of this container"));
        assert!(judged(&[("udp", of_udp, "tars")], &[]).unwrap().contains("nothing of this container"));
    }

    #[test]
    fn a_server_without_adapters_is_its_process() {
        assert_eq!(judged(&[], &[Pid::this()]), None);
        assert_eq!(judged(&[], &[]), Some("no process of it".to_owned()));
    }
}
