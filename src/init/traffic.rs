//! `tars-init traffic`: who still sends bytes to servers of this container, as the kernel counts them.
//!
//! What is drained is served until nobody calls it any more. What the container itself says to its servers, its own questions to them
//! among it, is no call. UDP has no connections: the kernel counts nothing for each peer there.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::time::TimeVal;
use serde::Serialize;

use crate::tars::PROTOCOL;

use super::address;
use super::failure::{Code, Failure};
use super::probe;
use super::socket_diag::{self, Connection, Ended};

/// Bytes that came longer ago are none of now: a client that has been given another list has stopped to call for longer.
const LATELY: Duration = Duration::from_secs(3);
/// How long it is watched: who connects anew for each call is seen as it ends.
const WATCH: Duration = Duration::from_secs(1);
/// How long one wait for an end takes.
const WAIT: TimeVal = TimeVal::new(0, 50_000);

/// The document.
#[derive(Debug, Serialize)]
struct Report {
    protocol: u32,
    callers: Vec<Caller>,
}

/// Somebody who calls.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Caller {
    /// The port of the server.
    port: u16,
    /// From where.
    peer: IpAddr,
    /// How many connections of it were seen.
    connections: usize,
}

/// Prints who calls these ports; with `--connected` whoever has a connection, however long ago it said something.
pub fn run(words: &[&str]) -> Result<(), Failure> {
    let (words, is_connected_enough) = match words {
        ["--connected", ports @ ..] => (ports, true),
        ports => (ports, false),
    };
    let wrong = || {
        let what = format!("`{}` are no ports.", words.join(" "));
        Failure::new(Code::Environment, what, "usage: tars-init traffic [--connected] PORT...")
    };
    let ports: BTreeSet<u16> =
        words.iter().map(|word| word.parse().ok()).collect::<Option<_>>().ok_or_else(wrong)?;
    let own = address::all();
    let is_own = |peer: IpAddr| peer.is_loopback() || own.contains(&peer);
    let found = if is_connected_enough { connected(&ports, is_own) } else { watch(&ports, is_own, WATCH) };
    let callers = found.map_err(|error| {
        Failure::new(Code::Internal, format!("the kernel does not tell its connections: {error}."), "")
    })?;
    probe::print(&Report { protocol: PROTOCOL, callers }, true)
}

/// Looks at what is connected right now.
fn connected(ports: &BTreeSet<u16>, is_own: impl Fn(IpAddr) -> bool) -> io::Result<Vec<Caller>> {
    let mut found: BTreeMap<(u16, IpAddr), BTreeSet<u16>> = BTreeMap::new();
    for one in socket_diag::connections()? {
        let (port, peer) = (one.local.port(), one.peer.ip().to_canonical());
        if ports.contains(&port) && !is_own(peer) {
            found.entry((port, peer)).or_default().insert(one.peer.port());
        }
    }
    Ok(callers_of(found))
}

/// Looks at what is connected, listens for what ends meanwhile, and looks once more.
fn watch(
    ports: &BTreeSet<u16>,
    is_own: impl Fn(IpAddr) -> bool,
    length: Duration,
) -> io::Result<Vec<Caller>> {
    let begun = Instant::now();
    let ended = Ended::listen(WAIT).ok();
    let mut calling: BTreeMap<(u16, IpAddr), BTreeSet<u16>> = BTreeMap::new();
    let mut note = |seen: Vec<Connection>| {
        for one in seen {
            let (port, peer) = (one.local.port(), one.peer.ip().to_canonical());
            // One byte is but the end of a connection over which nothing came.
            if ports.contains(&port) && !is_own(peer) && one.bytes > 1 && one.ago < LATELY {
                calling.entry((port, peer)).or_default().insert(one.peer.port());
            }
        }
    };
    note(socket_diag::connections()?);
    while begun.elapsed() < length {
        match &ended {
            Some(ended) => note(ended.next()?),
            None => thread::sleep(length.saturating_sub(begun.elapsed())),
        }
    }
    if !length.is_zero() {
        note(socket_diag::connections()?);
    }
    Ok(callers_of(calling))
}

/// Port and address → the ports that it came from.
fn callers_of(found: BTreeMap<(u16, IpAddr), BTreeSet<u16>>) -> Vec<Caller> {
    found.into_iter().map(|((port, peer), from)| Caller { port, peer, connections: from.len() }).collect()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::mpsc;

    use super::*;

    /// Whoever connects here does so from this address.
    const PEER: &str = "127.0.0.1";

    fn callers(port: u16, length: Duration) -> Vec<(String, usize)> {
        let found = watch(&BTreeSet::from([port]), |_| false, length).unwrap();
        found.into_iter().map(|caller| (caller.peer.to_string(), caller.connections)).collect()
    }

    fn connect(server: &TcpListener) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(server.local_addr().unwrap()).unwrap();
        (client, server.accept().unwrap().0)
    }

    #[test]
    fn who_sent_bytes_lately_calls_and_who_is_connected_only_does_not() {
        let server = TcpListener::bind("127.0.0.9:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let (mut client, mut theirs) = connect(&server);
        let _silent = connect(&server);
        // What the server says is no call.
        theirs.write_all(b"hello").unwrap();
        client.read_exact(&mut [0; 5]).unwrap();
        assert_eq!(callers(port, Duration::ZERO), []);
        client.write_all(b"call").unwrap();
        theirs.read_exact(&mut [0; 4]).unwrap();
        assert_eq!(callers(port, Duration::ZERO), [(PEER.to_owned(), 1)]);
        assert_eq!(callers(server_of_nobody(), Duration::ZERO), []);
        let is_own = |peer: IpAddr| peer.to_string() == PEER;
        assert_eq!(watch(&BTreeSet::from([port]), is_own, Duration::ZERO).unwrap(), []);
    }

    fn server_of_nobody() -> u16 {
        TcpListener::bind("127.0.0.9:0").unwrap().local_addr().unwrap().port()
    }

    #[test]
    fn who_is_connected_is_told_also_where_it_says_nothing() {
        let server = TcpListener::bind("127.0.0.9:0").unwrap();
        let ports = BTreeSet::from([server.local_addr().unwrap().port()]);
        assert_eq!(connected(&ports, |_| false).unwrap(), []);
        let _held = (connect(&server), connect(&server));
        let found = connected(&ports, |_| false).unwrap();
        assert_eq!(
            found.iter().map(|one| (one.peer.to_string(), one.connections)).collect::<Vec<_>>(),
            [(PEER.to_owned(), 2)]
        );
        assert_eq!(connected(&ports, |_| true).unwrap(), []);
    }

    #[test]
    fn bytes_of_long_ago_are_no_call() {
        let server = TcpListener::bind("127.0.0.9:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let (mut client, mut theirs) = connect(&server);
        client.write_all(b"call").unwrap();
        theirs.read_exact(&mut [0; 4]).unwrap();
        let begun = Instant::now();
        while !callers(port, Duration::ZERO).is_empty() {
            assert!(begun.elapsed() < LATELY * 3, "it calls no more");
            thread::sleep(Duration::from_millis(50));
        }
        let took = begun.elapsed();
        assert!(took + Duration::from_millis(100) >= LATELY, "{took:?}");
    }

    #[test]
    fn who_connects_and_says_nothing_does_not_call() {
        let server = TcpListener::bind("127.0.0.9:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let looks = thread::spawn(move || callers(port, WATCH));
        while !looks.is_finished() {
            drop(connect(&server));
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(looks.join().unwrap(), []);
    }

    #[test]
    fn who_connects_anew_for_each_call_is_seen_whoever_closes_first() {
        for server_closes in [false, true] {
            let server = TcpListener::bind("127.0.0.9:0").unwrap();
            let port = server.local_addr().unwrap().port();
            let at = server.local_addr().unwrap();
            let (stop, told) = mpsc::channel::<()>();
            let calls = thread::spawn(move || {
                while told.try_recv().is_err() {
                    let mut client = TcpStream::connect(at).unwrap();
                    let (mut theirs, _) = server.accept().unwrap();
                    client.write_all(b"call").unwrap();
                    theirs.read_exact(&mut [0; 4]).unwrap();
                    if server_closes {
                        drop(theirs);
                        drop(client);
                    } else {
                        drop(client);
                        drop(theirs);
                    }
                    thread::sleep(Duration::from_millis(10));
                }
            });
            let found = callers(port, WATCH);
            stop.send(()).unwrap();
            calls.join().unwrap();
            assert_eq!(found.len(), 1, "server closes first: {server_closes}");
        }
    }
}
