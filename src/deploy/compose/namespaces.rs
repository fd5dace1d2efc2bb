//! Namespaces that a service has from another container: `network_mode`, `ipc` and `pid` as `service:NAME` and `container:NAME`.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::error::{ComposeError, Result};
use super::value::{REMOVE, nearest, text};
use crate::yaml::{Node, Value};

/// compose's key, and the one of the API's `HostConfig`.
const KEYS: [(&str, &str); 3] = [("network_mode", "NetworkMode"), ("ipc", "IpcMode"), ("pid", "PidMode")];

/// What belongs to a network, and is then the other container's to say. The engine refuses most of it together with
/// `container:`, and leaves the rest without an effect.
const OF_A_NETWORK: [&str; 9] = [
    "ports",
    "expose",
    "hostname",
    "domainname",
    "mac_address",
    "dns",
    "dns_opt",
    "dns_search",
    "extra_hosts",
];

/// What a service shares with others.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// `HostConfig`'s keys with the API's own word, `container:NAME`.
    pub modes: Vec<(String, Json)>,
    /// The services of the same file that it is shared with.
    pub services: Vec<String>,
}

/// True for a mode that names another service or container.
pub(super) fn is_of_another(mode: &str) -> bool {
    mode.starts_with("service:") || mode.starts_with("container:")
}

/// Reads what `service` shares. `containers` are those of all services, by service.
pub(super) fn shared(containers: &BTreeMap<String, String>, service: &str, node: &Node) -> Result<Shared> {
    let mut shared = Shared::default();
    for (key, api) in KEYS {
        let Some(mode) = node.get(key).filter(|mode| !mode.is_null()) else { continue };
        let written = text(mode, key)?;
        let Some((kind, name)) = written.split_once(':').filter(|_| is_of_another(&written)) else {
            continue;
        };
        let invalid = |what: String, hint: &str| ComposeError::invalid_but(&mode.at, what, hint);
        if name.is_empty() {
            return Err(invalid(
                format!("`{key}: {written}` names nobody"),
                "write the name behind the colon",
            ));
        }
        let (container, of) = if kind == "service" {
            let Some(container) = containers.get(name) else {
                let hint = match nearest(name, containers.keys().map(String::as_str)) {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None => "declare it, or name a container of somebody else's as container:NAME".to_owned(),
                };
                return Err(invalid(format!("`{key}: {written}`: no such service is declared"), &hint));
            };
            (container.as_str(), Some(name))
        } else {
            let of = containers.iter().find(|(_, container)| *container == name);
            (name, of.map(|(service, _)| service.as_str()))
        };
        if of == Some(service) {
            return Err(invalid(format!("`{key}: {written}` of `{service}` is the service itself"), REMOVE));
        }
        if key == "network_mode" {
            refuse_a_network_of_its_own(node, &written)?;
        }
        shared.modes.push((api.to_owned(), format!("container:{container}").into()));
        shared.services.extend(of.filter(|of| !shared.services.iter().any(|it| it == of)).map(str::to_owned));
    }
    Ok(shared)
}

fn refuse_a_network_of_its_own(service: &Node, mode: &str) -> Result<()> {
    let says = |value: &Node| match &value.value {
        Value::List(items) => !items.is_empty(),
        Value::Map(entries) => !entries.is_empty(),
        _ => !value.is_null(),
    };
    for key in OF_A_NETWORK {
        if let Some(value) = service.get(key).filter(|value| says(value)) {
            let what =
                format!("`{key}` and `network_mode: {mode}` exclude each other: the network is the other's");
            let hint = "write it there, or give this service a network of its own";
            return Err(ComposeError::invalid_but(&value.at, what, hint));
        }
    }
    Ok(())
}
