//! A service's networks: the first goes into the create body, the others are connected before the start.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use super::body::{Takes, put};
use super::error::{ComposeError, Result};
use super::merge::named;
use super::namespaces;
use super::resource::{DEFAULT, Resources};
use super::value::{Handling, Keys, REMOVE, check_keys, entries, integer, text, texts};
use crate::yaml::{At, Node};

/// Puts the first network into the body and answers the others, in compose's order: by priority, then by name.
pub(super) fn networks(
    resources: &Resources,
    service: &str,
    container: &str,
    node: &Node,
    at: &At,
    body: &mut Map<String, Json>,
    host: &mut Map<String, Json>,
) -> Result<Vec<(String, Json)>> {
    let declared = node.get("networks").map(|networks| named(networks.clone())).transpose()?;
    let declared = match &declared {
        Some(networks) => entries(networks, "networks")?,
        None => &[],
    };
    if let Some(mode) = node.get("network_mode").filter(|mode| !mode.is_null()) {
        if !declared.is_empty() {
            return Err(ComposeError::invalid_but(
                &mode.at,
                "`network_mode` and `networks` exclude each other",
                "remove one of both",
            ));
        }
        let written = text(mode, "network_mode")?;
        if namespaces::is_of_another(&written) {
            // Whose it is has been put there already.
            return Ok(Vec::new());
        }
        if !matches!(written.as_str(), "host" | "none" | "bridge") {
            let what = format!(
                "`network_mode: {written}` is none of host, none, bridge, service:NAME, container:NAME"
            );
            return Err(ComposeError::invalid_but(&mode.at, what, "name the network under `networks`"));
        }
        host.insert("NetworkMode".to_owned(), written.into());
        return Ok(Vec::new());
    }
    let mut endpoints: Vec<(i64, &str, Json)> = Vec::new();
    for entry in declared {
        let network = resources.network(&entry.key, &entry.at)?;
        let (priority, endpoint) = endpoint(&entry.value, container, service)?;
        endpoints.push((priority, &network.resource.name, endpoint));
    }
    if endpoints.is_empty() {
        let network = resources.network(DEFAULT, at)?;
        let (_, endpoint) = endpoint(&Node::null(at.clone()), container, service)?;
        endpoints.push((0, &network.resource.name, endpoint));
    }
    endpoints.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    let mut endpoints = endpoints.into_iter().map(|(_, name, endpoint)| (name.to_owned(), endpoint));
    if let Some((name, endpoint)) = endpoints.next() {
        host.insert("NetworkMode".to_owned(), name.clone().into());
        let config = BTreeMap::from([(name, endpoint)]);
        body.insert("NetworkingConfig".to_owned(), json!({"EndpointsConfig": config}));
    }
    Ok(endpoints.collect())
}

/// A service's place on one network: its priority and the API's endpoint settings.
fn endpoint(node: &Node, container: &str, service: &str) -> Result<(i64, Json)> {
    const ENDPOINT: &Keys = &[
        ("aliases", Handling::Done),
        ("ipv4_address", Handling::Done),
        ("ipv6_address", Handling::Done),
        ("link_local_ips", Handling::Done),
        ("mac_address", Handling::Done),
        ("driver_opts", Handling::Done),
        ("priority", Handling::Done),
        ("gw_priority", Handling::Not("use `priority`")),
        ("interface_name", Handling::Not(REMOVE)),
    ];
    check_keys(node, "a network of a service", ENDPOINT)?;
    let mut aliases = vec![container.to_owned()];
    let declared = node.get("aliases").map_or(Ok(Vec::new()), |aliases| texts(aliases, "aliases"))?;
    for alias in std::iter::once(service.to_owned()).chain(declared) {
        if !aliases.contains(&alias) {
            aliases.push(alias);
        }
    }
    let mut endpoint = Map::from_iter([("Aliases".to_owned(), Json::from(aliases))]);
    let mut ipam = Map::new();
    put(
        &mut ipam,
        node,
        &[
            ("ipv4_address", "IPv4Address", Takes::Text),
            ("ipv6_address", "IPv6Address", Takes::Text),
            ("link_local_ips", "LinkLocalIPs", Takes::Texts),
        ],
    )?;
    if !ipam.is_empty() {
        endpoint.insert("IPAMConfig".to_owned(), ipam.into());
    }
    put(
        &mut endpoint,
        node,
        &[("mac_address", "MacAddress", Takes::Text), ("driver_opts", "DriverOpts", Takes::Pairs)],
    )?;
    let priority = node.get("priority").map_or(Ok(0), |priority| integer(priority, "priority"))?;
    Ok((priority, endpoint.into()))
}
