//! Which of a node's servers answer from outside, where the node cannot tell: whoever answers tars_ping to everybody is asked. Of all
//! others nobody out here knows more than what their tarsnode has reported.

use std::time::Instant;

use crate::init::address;
use crate::init::health::Pending;
use crate::tars::Instance;

use super::serving::{PING, Served};

/// What is seen of a node's servers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Those that were asked.
    pub deployed: Vec<Served>,
    /// Those that answer nobody out here, and that run as their tarsnode reported last.
    pub untold: Vec<String>,
}

/// Asks these servers, all at once.
pub fn see(servers: &[Instance]) -> Seen {
    let deadline = Instant::now() + PING;
    let asked: Vec<Vec<(u16, Pending)>> = servers.iter().map(pings).collect();
    let mut seen = Seen::default();
    for (server, pings) in servers.iter().zip(asked) {
        if pings.is_empty() {
            seen.untold.extend(server.present.then(|| server.server.clone()));
            continue;
        }
        let mut answers = pings.into_iter().map(|(port, ping)| (port, ping.answer(deadline)));
        let why = answers.find_map(|(port, answer)| Some(format!("port {port}: {}", answer.err()?)));
        seen.deployed.push(Served {
            server: server.server.clone(),
            serves: why.is_none(),
            detail: why.unwrap_or_default(),
            log: Vec::new(),
        });
    }
    seen
}

/// The pings under way at its ports that answer one.
fn pings(server: &Instance) -> Vec<(u16, Pending)> {
    let listening = server.adapters.iter().filter_map(|adapter| {
        let listens = adapter.listens().filter(|listens| listens.answers_ping)?;
        let ping = match address::socket(&listens.host, listens.port) {
            Ok(at) => Pending::ask(at, &adapter.servant),
            Err(error) => Pending::Answered(Err(error.to_string())),
        };
        Some((listens.port, ping))
    });
    listening.collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::TcpListener;
    use std::thread;

    use super::*;
    use crate::tars::instance::instance;
    use crate::tars::registry::Adapter;
    use crate::tars::wire::{self, Request};

    fn server(name: &str, adapters: &[(&str, u16, &str)]) -> Instance {
        let adapter = |(transport, port, allow_ip): &(&str, u16, &str)| Adapter {
            endpoint: format!("{transport} -h 127.0.0.1 -t 60000 -p {port}"),
            protocol: "tars".to_owned(),
            servant: "Demo.HelloServer.HelloObj".to_owned(),
            allow_ip: (*allow_ip).to_owned(),
        };
        Instance { adapters: adapters.iter().map(adapter).collect(), ..instance(name, "127.0.0.1") }
    }

    #[test]
    fn who_answers_is_told_from_who_does_not_and_from_who_cannot_be_asked() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let answers = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let body = wire::read_frame(&mut stream, wire::LARGEST_FRAME).unwrap();
            let request = Request::parse(&body).unwrap();
            stream.write_all(&wire::response(request.id, 0, &[])).unwrap();
        });
        let down = Instance { present: false, ..server("Demo.Down", &[("udp", port, "")]) };
        let seen = see(&[
            server("Demo.Serves", &[("tcp", port, ""), ("udp", nobody, "")]),
            server("Demo.Silent", &[("tcp", nobody, "")]),
            server("Demo.Udp", &[("udp", port, "")]),
            server("Demo.Closed", &[("tcp", port, "10.0.0.1")]),
            server("Demo.Bare", &[]),
            down,
        ]);
        answers.join().unwrap();
        let asked: Vec<(&str, bool)> =
            seen.deployed.iter().map(|one| (one.server.as_str(), one.serves)).collect();
        assert_eq!(asked, [("Demo.Serves", true), ("Demo.Silent", false)], "{seen:?}");
        assert!(seen.deployed[1].detail.starts_with(&format!("port {nobody}: ")), "{seen:?}");
        assert_eq!(seen.untold, ["Demo.Udp", "Demo.Closed", "Demo.Bare"]);
    }
}
