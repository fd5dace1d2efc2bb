//! `ports` and `expose`, short and long, with ranges, as the API's `ExposedPorts` and `PortBindings`.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use super::error::{ComposeError, Result};
use super::value::{Handling, Keys, check_keys, list, text};
use crate::limits;
use crate::yaml::{At, Node, Value};

/// One published port on the host: address, port or range, protocol.
pub(super) type Published = (String, String, String);

/// What the ports of a service come to.
#[derive(Default)]
pub(super) struct Ports {
    /// `ExposedPorts`.
    pub exposed: Map<String, Json>,
    /// `HostConfig.PortBindings`: container port → bindings.
    bindings: BTreeMap<String, Vec<(String, String)>>,
    /// What is taken on the host, and where that is written.
    pub published: Vec<(Published, At)>,
}

const LONG: &Keys = &[
    ("target", Handling::Done),
    ("published", Handling::Done),
    ("host_ip", Handling::Done),
    ("protocol", Handling::Done),
    // Words for people and for swarm; compose does nothing with them on one engine.
    ("mode", Handling::Done),
    ("name", Handling::Done),
    ("app_protocol", Handling::Done),
];

/// The engine starts a proxy for each port that is published.
fn few(ports: usize, at: &At) -> Result<()> {
    limits::PORTS
        .allow(ports as u64)
        .map_err(|beyond| ComposeError::invalid_but(at, beyond.to_string(), beyond.hint()))
}

impl Ports {
    /// Reads `ports` and `expose`.
    pub fn read(service: &Node) -> Result<Self> {
        let mut ports = Self::default();
        if let Some(node) = service.get("ports") {
            for item in list(node, "ports")? {
                ports.item(item)?;
            }
        }
        if let Some(node) = service.get("expose") {
            for item in list(node, "expose")? {
                let written = text(item, "expose")?;
                let (range, protocol) = protocol_of(&written, &item.at)?;
                let numbers = numbers(range, &item.at)?;
                few(ports.exposed.len() + numbers.len(), &item.at)?;
                for port in numbers {
                    ports.exposed.insert(format!("{port}/{protocol}"), json!({}));
                }
            }
        }
        Ok(ports)
    }

    /// `HostConfig.PortBindings`.
    pub fn bindings(&self) -> Json {
        let bindings = self.bindings.iter().map(|(port, bindings)| {
            let bindings: Vec<Json> =
                bindings.iter().map(|(ip, port)| json!({"HostIp": ip, "HostPort": port})).collect();
            (port.clone(), Json::Array(bindings))
        });
        Json::Object(bindings.collect())
    }

    /// True where nothing is published.
    pub fn is_empty(&self) -> bool {
        self.bindings.is_empty()
    }

    fn item(&mut self, item: &Node) -> Result<()> {
        if let Value::Map(_) = item.value {
            check_keys(item, "a port", LONG)?;
            let field = |key| match item.get(key).filter(|node| !node.is_null()) {
                Some(node) => text(node, key),
                None => Ok(String::new()),
            };
            if let mode = field("mode")?
                && !matches!(mode.as_str(), "" | "host" | "ingress")
            {
                return Err(ComposeError::invalid(&item.at, format!("the port's mode `{mode}` is unknown")));
            }
            let protocol = field("protocol")?;
            let protocol = if protocol.is_empty() { "tcp".to_owned() } else { protocol };
            let (_, protocol) = protocol_of(&format!("/{protocol}"), &item.at)?;
            return self.publish(
                &field("host_ip")?,
                &field("published")?,
                &field("target")?,
                &protocol,
                &item.at,
            );
        }
        let written = text(item, "ports")?;
        let (rest, protocol) = protocol_of(&written, &item.at)?;
        let (rest, target) = rest.rsplit_once(':').unwrap_or(("", rest));
        let (ip, published) = match rest.rsplit_once(':') {
            Some((ip, published)) => (ip, published),
            None => ("", rest),
        };
        let ip = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(ip);
        self.publish(ip, published, target, &protocol, &item.at)
    }

    fn publish(&mut self, ip: &str, published: &str, target: &str, protocol: &str, at: &At) -> Result<()> {
        if !ip.is_empty() && ip.parse::<std::net::IpAddr>().is_err() {
            return Err(ComposeError::invalid(at, format!("`{ip}` is no address to publish a port on")));
        }
        let targets = numbers(target, at)?;
        few(self.published.len() + targets.len(), at)?;
        let host: Vec<String> = if published.is_empty() {
            vec![String::new(); targets.len()]
        } else {
            let ports = numbers(published, at)?;
            if ports.len() == targets.len() {
                ports.iter().map(ToString::to_string).collect()
            } else if targets.len() == 1 {
                vec![published.to_owned()] // the engine picks a free one of the range
            } else {
                return Err(ComposeError::invalid(
                    at,
                    format!("the ranges {published} and {target} are of different length"),
                ));
            }
        };
        for (target, host) in targets.into_iter().zip(host) {
            let key = format!("{target}/{protocol}");
            self.exposed.insert(key.clone(), json!({}));
            let bindings = self.bindings.entry(key).or_default();
            let binding = (ip.to_owned(), host.clone());
            if !bindings.contains(&binding) {
                bindings.push(binding);
                if !host.is_empty() && !host.contains('-') {
                    self.published.push(((ip.to_owned(), host, protocol.to_owned()), at.clone()));
                }
            }
        }
        Ok(())
    }
}

/// The text before `/`, and the protocol after it.
fn protocol_of<'t>(written: &'t str, at: &At) -> Result<(&'t str, String)> {
    let (rest, protocol) = written.split_once('/').unwrap_or((written, "tcp"));
    let protocol = protocol.to_lowercase();
    if matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        Ok((rest, protocol))
    } else {
        Err(ComposeError::invalid(at, format!("the protocol `{protocol}` is none of tcp, udp, sctp")))
    }
}

/// A port or a range of ports.
fn numbers(written: &str, at: &At) -> Result<Vec<u16>> {
    let wrong = || {
        ComposeError::invalid_but(
            at,
            format!("`{written}` is no port"),
            "write [[address:]host port:]container port[/protocol], each port 1 to 65535 or a range a-b",
        )
    };
    let (first, last) = written.split_once('-').unwrap_or((written, written));
    let first: u16 = first.parse().map_err(|_| wrong())?;
    let last: u16 = last.parse().map_err(|_| wrong())?;
    if first == 0 || first > last {
        return Err(wrong());
    }
    Ok((first..=last).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::{self, SourceFile};
    use std::sync::Arc;

    fn ports(written: &str) -> Result<Ports> {
        let source = Arc::new(SourceFile { path: "compose.yaml".into(), base: ".".into() });
        Ports::read(&yaml::parse(&format!("ports:\n{written}\n"), &source).unwrap())
    }

    #[test]
    fn every_short_form_is_bound_as_compose_binds_it() {
        for (written, expected) in [
            ("- 3000", r#"{"3000/tcp":[{"HostIp":"","HostPort":""}]}"#),
            ("- 3000:3001", r#"{"3001/tcp":[{"HostIp":"","HostPort":"3000"}]}"#),
            ("- '127.0.0.1:1:2/udp'", r#"{"2/udp":[{"HostIp":"127.0.0.1","HostPort":"1"}]}"#),
            ("- '127.0.0.1::2'", r#"{"2/tcp":[{"HostIp":"127.0.0.1","HostPort":""}]}"#),
            ("- '[::1]:1:2'", r#"{"2/tcp":[{"HostIp":"::1","HostPort":"1"}]}"#),
            (
                "- 9000-9001:8000-8001",
                r#"{"8000/tcp":[{"HostIp":"","HostPort":"9000"}],"8001/tcp":[{"HostIp":"","HostPort":"9001"}]}"#,
            ),
            ("- 9000-9010:80", r#"{"80/tcp":[{"HostIp":"","HostPort":"9000-9010"}]}"#),
            (
                "- {target: 80, published: '8080', host_ip: 10.0.0.1, protocol: udp, mode: host}",
                r#"{"80/udp":[{"HostIp":"10.0.0.1","HostPort":"8080"}]}"#,
            ),
            ("- {target: 80}", r#"{"80/tcp":[{"HostIp":"","HostPort":""}]}"#),
        ] {
            assert_eq!(ports(written).unwrap().bindings().to_string(), expected, "{written}");
        }
    }

    #[test]
    fn what_is_no_port_is_refused() {
        for written in [
            "- 0",
            "- 70000",
            "- a:b",
            "- 1-2:3-5",
            "- 5-1",
            "- 'x:1:2'",
            "- 1/icmp",
            "- {published: 1}",
            "- [1]",
        ] {
            assert!(ports(written).is_err(), "{written}");
        }
    }
}
