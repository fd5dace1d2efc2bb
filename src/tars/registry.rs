//! What tarsregistry is asked: which servers must run on a node, and which endpoints of an object clients are given.
//!
//! Source: `RegistryObj.getServers` and `QueryObj.findObjectById4Any` of TarsFramework 3.0.17, and frames of the real ones.

use std::net::SocketAddr;
use std::time::Duration;

use super::wire::{self, CallError, Fields, Struct};

/// The object that nodes ask; it listens on another port than [`QUERY`].
pub const REGISTRY: &str = "tars.tarsregistry.RegistryObj";
/// Its port.
pub const REGISTRY_PORT: u16 = 17891;
/// The object that clients ask.
pub const QUERY: &str = "tars.tarsregistry.QueryObj";
/// Asks for the servers of a node.
pub const GET_SERVERS: &str = "getServers";
/// Asks for an object's endpoints, whoever asks: not filtered by the asker's group.
pub const FIND_ANY: &str = "findObjectById4Any";

/// A server that is deployed on a node: `ServerDescriptor`.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Server {
    /// Such as `Demo`.
    pub application: String,
    /// Such as `HelloServer`.
    pub name: String,
    /// Its folder, where it is not below tarsnode's own.
    pub base_path: String,
    /// Its file, absolute or relative to `bin/`; empty: named like the server.
    pub exe_path: String,
    /// `active` where an administrator wants it to run.
    pub setting_state: String,
    /// What tarsnode said of it last; nothing resets that when a container stops.
    pub present_state: String,
    /// `tars_cpp`, `tars_java`, `tars_nodejs`, `tars_php`, `tars_go`, `not_tars`.
    pub server_type: String,
    /// The script that starts it instead of tarsnode's own.
    pub start_script: String,
    /// `container`: it runs beside the node, not in it.
    pub run_type: String,
    /// Where it listens.
    pub adapters: Vec<Adapter>,
}

/// Where a server listens: `AdapterDescriptor`.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Adapter {
    /// Such as `tcp -h 172.25.0.5 -t 60000 -p 9001`.
    pub endpoint: String,
    /// The addresses that may connect; empty: all.
    pub allow_ip: String,
    /// The object that answers there.
    pub servant: String,
    /// `tars`, or anything else.
    pub protocol: String,
}

impl Server {
    /// `Demo.HelloServer`
    pub fn id(&self) -> String {
        format!("{}.{}", self.application, self.name)
    }

    /// True where an administrator wants it to run.
    pub fn is_wanted(&self) -> bool {
        self.setting_state == "active"
    }

    /// True where it runs in a container beside the node.
    pub fn runs_beside(&self) -> bool {
        self.run_type == "container"
    }

    fn of(fields: &Fields<'_>) -> Self {
        let text = |tag| fields.text(tag).unwrap_or_default().trim().to_owned();
        Self {
            application: text(0),
            name: text(1),
            base_path: text(3),
            exe_path: text(4),
            setting_state: text(5),
            present_state: text(6),
            server_type: text(12).to_lowercase(),
            start_script: text(13),
            run_type: text(20),
            adapters: fields.map_structs(11).map(Adapter::of).collect(),
        }
    }

    fn encoded(&self, node: &str) -> Struct {
        let mut out = Struct::default();
        for (tag, text) in [
            (0, self.application.as_str()),
            (1, &self.name),
            (2, node),
            (3, &self.base_path),
            (4, &self.exe_path),
            (5, &self.setting_state),
            (6, &self.present_state),
        ] {
            out.text(tag, text);
        }
        let adapters = self.adapters.iter().enumerate();
        out.named_structs(11, adapters.map(|(n, adapter)| (n.to_string(), adapter.encoded())).collect());
        for (tag, text) in [(12, &self.server_type), (13, &self.start_script), (20, &self.run_type)] {
            out.text(tag, text);
        }
        out
    }
}

impl Adapter {
    fn of(fields: &Fields<'_>) -> Self {
        let text = |tag| fields.text(tag).unwrap_or_default().trim().to_owned();
        Self { endpoint: text(2), allow_ip: text(4), servant: text(5), protocol: text(9) }
    }

    fn encoded(&self) -> Struct {
        let mut out = Struct::default();
        for (tag, text) in [(2, &self.endpoint), (4, &self.allow_ip), (5, &self.servant), (9, &self.protocol)]
        {
            out.text(tag, text);
        }
        out
    }

    /// Where and how it listens.
    pub fn listens(&self) -> Option<Listens> {
        let mut words = self.endpoint.split_whitespace();
        let transport = words.next()?;
        let (mut host, mut port, mut auth) = (None, None, "0");
        while let (Some(key), Some(value)) = (words.next(), words.next()) {
            match key {
                "-h" => host = Some(value.to_owned()),
                "-p" => port = value.parse().ok(),
                "-e" => auth = value,
                _ => {}
            }
        }
        let is_plain = transport == "tcp" && auth == "0" && self.allow_ip.is_empty();
        Some(Listens {
            host: host?,
            port: port?,
            is_udp: transport == "udp",
            // An empty protocol is `tars` to tarsnode.
            answers_ping: is_plain && matches!(self.protocol.as_str(), "" | "tars"),
        })
    }
}

/// An adapter's endpoint, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listens {
    /// The address or name.
    pub host: String,
    /// The port.
    pub port: u16,
    /// UDP, not TCP.
    pub is_udp: bool,
    /// It answers tars_ping to whoever asks: the protocol is TARS, over TCP without TLS, authentication or a list of clients.
    pub answers_ping: bool,
}

/// One of an object's endpoints: `EndpointF`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// The address or name.
    pub host: String,
    /// The port.
    pub port: u16,
    /// TCP, with or without TLS.
    pub is_tcp: bool,
}

/// What clients are given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// To be called.
    pub active: Vec<Endpoint>,
    /// Not to be called: stopped, drained, or dead.
    pub inactive: Vec<Endpoint>,
}

/// The servers that are deployed on `node`.
pub fn servers(registry: SocketAddr, node: &str, timeout: Duration) -> Result<Vec<Server>, CallError> {
    let mut arguments = Struct::default();
    // Of every application, and every server.
    arguments.text(1, "");
    arguments.text(2, "");
    arguments.text(3, node);
    let results = wire::call(registry, (REGISTRY, GET_SERVERS), arguments.into_bytes(), timeout)?;
    let fields = Fields::parse(&results)?;
    if fields.get(0).is_none() {
        return Err(CallError::Malformed("no list of servers"));
    }
    Ok(fields.structs(0).map(Server::of).collect())
}

/// The results of [`servers`], as a registry encodes them.
pub fn encode_servers(node: &str, servers: &[Server]) -> Vec<u8> {
    let mut results = Struct::default();
    results.structs(0, servers.iter().map(|server| server.encoded(node)).collect());
    results.into_bytes()
}

/// The endpoints of `object`, active or not.
pub fn endpoints(registry: SocketAddr, object: &str, timeout: Duration) -> Result<Endpoints, CallError> {
    let mut arguments = Struct::default();
    arguments.text(1, object);
    let results = wire::call(registry, (QUERY, FIND_ANY), arguments.into_bytes(), timeout)?;
    parse_endpoints(&results)
}

fn parse_endpoints(results: &[u8]) -> Result<Endpoints, CallError> {
    let fields = Fields::parse(results)?;
    match fields.int(0) {
        Some(0) => {}
        Some(ret) => return Err(CallError::Refused { ret }),
        None => return Err(CallError::Malformed("no return value")),
    }
    let of = |tag| {
        let mut all: Vec<Endpoint> = fields
            .structs(tag)
            .filter_map(|fields| {
                Some(Endpoint {
                    host: fields.text(0)?.into_owned(),
                    port: u16::try_from(fields.int(1)?).ok()?,
                    is_tcp: fields.int(3)? != 0,
                })
            })
            .collect();
        all.sort();
        all
    };
    Ok(Endpoints { active: of(2), inactive: of(3) })
}

/// The results of [`endpoints`], as a registry encodes them.
pub fn encode_endpoints(endpoints: &Endpoints) -> Vec<u8> {
    let encoded = |endpoints: &[Endpoint]| {
        let of = |endpoint: &Endpoint| {
            let mut out = Struct::default();
            out.text(0, &endpoint.host);
            out.int(1, i64::from(endpoint.port));
            out.int(2, 60_000);
            out.int(3, i64::from(endpoint.is_tcp));
            out
        };
        endpoints.iter().map(of).collect()
    };
    let mut results = Struct::default();
    results.int(0, 0);
    results.structs(2, encoded(&endpoints.active));
    results.structs(3, encoded(&endpoints.inactive));
    results.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tars::wire::tests::bytes;
    use crate::tars::wire::{Request, results};

    // Seen on the real ones, byte for byte.
    const GET_SERVERS_REQUEST: &str = "0000005010012c3c4003561d746172732e7461727372656769737472792e52656769737472794f626a660a676574536572766572737d00001016002600360a3137322e32352e302e35810bb8980ca80c";
    const UNKNOWN_NODE: &str = "0000001310012c30014c5c6d000002090c780c";
    const ANY: &str = "0000006e10012c30014c5c6d00005d0c2900010a060a3137322e32352e302e33114711220000ea6030014c50ff60ffb0ffe60a3137322e32352e302e330b3900010a060a3137322e32352e302e34114711220000ea6030014c50ff60ffb0ffe60a3137322e32352e302e340b780c";

    #[test]
    fn request_is_the_frame_of_a_real_tarsnode() {
        let mut arguments = Struct::default();
        arguments.text(1, "");
        arguments.text(2, "");
        arguments.text(3, "172.25.0.5");
        let request = Request {
            id: 3,
            servant: REGISTRY.to_owned(),
            function: GET_SERVERS.to_owned(),
            arguments: arguments.into_bytes(),
        };
        assert_eq!(request.frame(Duration::from_secs(3)), bytes(GET_SERVERS_REQUEST));
    }

    #[test]
    fn real_answers_are_understood() {
        let none = results(&bytes(UNKNOWN_NODE)[4..], 1).unwrap();
        assert!(Fields::parse(&none).unwrap().structs(0).next().is_none());
        let any = parse_endpoints(&results(&bytes(ANY)[4..], 1).unwrap()).unwrap();
        let at = |host: &str| Endpoint { host: host.to_owned(), port: 18193, is_tcp: true };
        assert_eq!(any, Endpoints { active: vec![at("172.25.0.3")], inactive: vec![at("172.25.0.4")] });
    }

    #[test]
    fn what_a_registry_encodes_is_read_back() {
        let server = Server {
            application: "Demo".to_owned(),
            name: "HelloServer".to_owned(),
            setting_state: "active".to_owned(),
            server_type: "tars_cpp".to_owned(),
            adapters: vec![Adapter {
                endpoint: "tcp -h 172.25.0.5 -t 60000 -p 9001".to_owned(),
                servant: "Demo.HelloServer.HelloObj".to_owned(),
                protocol: "tars".to_owned(),
                ..Adapter::default()
            }],
            ..Server::default()
        };
        let encoded = encode_servers("172.25.0.5", std::slice::from_ref(&server));
        let read: Vec<Server> = Fields::parse(&encoded).unwrap().structs(0).map(Server::of).collect();
        assert_eq!(read, [server]);
        let at = Endpoint { host: "a".to_owned(), port: 1, is_tcp: false };
        let endpoints = Endpoints { active: vec![at.clone()], inactive: vec![at] };
        assert_eq!(parse_endpoints(&encode_endpoints(&endpoints)).unwrap(), endpoints);
    }

    #[test]
    fn only_plain_tcp_that_speaks_tars_answers_a_ping() {
        let of = |endpoint: &str, allow: &str, protocol: &str| {
            let adapter = Adapter {
                endpoint: endpoint.to_owned(),
                allow_ip: allow.to_owned(),
                protocol: protocol.to_owned(),
                ..Adapter::default()
            };
            adapter.listens().map(|listens| (listens.port, listens.is_udp, listens.answers_ping))
        };
        assert_eq!(of("tcp -h 1.2.3.4 -t 60000 -p 9001", "", "tars"), Some((9001, false, true)));
        assert_eq!(of("tcp -h 1.2.3.4 -p 9001 -e 0", "", ""), Some((9001, false, true)));
        assert_eq!(of("tcp -h 1.2.3.4 -p 9001 -e 1", "", "tars"), Some((9001, false, false)));
        assert_eq!(of("tcp -h 1.2.3.4 -p 9001", "1.2.3.5", "tars"), Some((9001, false, false)));
        assert_eq!(of("ssl -h 1.2.3.4 -p 9001", "", "tars"), Some((9001, false, false)));
        assert_eq!(of("udp -h 1.2.3.4 -p 9001", "", "tars"), Some((9001, true, false)));
        assert_eq!(of("tcp -h 1.2.3.4 -p 80", "", "http"), Some((80, false, false)));
        assert_eq!(of("tcp -h 1.2.3.4 -p 65536", "", "tars"), None);
        assert_eq!(of("", "", "tars"), None);
    }
}
