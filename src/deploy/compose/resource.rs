//! The top-level `networks` and `volumes`: create bodies in the API's own words.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde_json::{Map, Value as Json, json};

use super::error::{ComposeError, Result};
use super::merge::assigned;
use super::paths::host_path;
use super::value::{Handling, Keys, boolean, check_keys, entries, list, text};
use crate::deploy::desired::{Resource, Service};
use crate::deploy::interpolate::Variables;
use crate::deploy::mounts::MountSource;
use crate::deploy::observed::LABEL_DEPLOYMENT;
use crate::deploy::subnet;
use crate::yaml::{At, Entry, Node, Value};

/// The key of the network that compose makes for services that name none.
pub(super) const DEFAULT: &str = "default";

/// A network as declared.
pub(super) struct DeclaredNetwork {
    /// What the engine is asked for.
    pub resource: Resource,
    /// `ipam.config[].subnet`.
    pub subnets: Vec<IpNet>,
    /// `ipam.config[].ip_range`: what the engine hands out by itself.
    pub ranges: Vec<IpNet>,
    /// Gateways and other addresses that are taken.
    pub reserved: Vec<IpAddr>,
    /// Where it is declared.
    pub at: At,
}

/// All networks and volumes.
pub(super) struct Resources {
    networks: BTreeMap<String, DeclaredNetwork>,
    volumes: BTreeMap<String, Resource>,
}

const NETWORK: &Keys = &[
    ("driver", Handling::Done),
    ("driver_opts", Handling::Done),
    ("ipam", Handling::Done),
    ("external", Handling::Done),
    ("internal", Handling::Done),
    ("attachable", Handling::Done),
    ("enable_ipv4", Handling::Done),
    ("enable_ipv6", Handling::Done),
    ("labels", Handling::Done),
    ("name", Handling::Done),
];

const VOLUME: &Keys = &[
    ("driver", Handling::Done),
    ("driver_opts", Handling::Done),
    ("external", Handling::Done),
    ("labels", Handling::Done),
    ("name", Handling::Done),
];

impl Resources {
    /// Reads both.
    pub fn read(deployment: &str, tree: &Node, variables: &Variables) -> Result<Self> {
        let declared = |key| tree.get(key).map_or(Ok(&[][..]), |node| entries(node, key));
        let mut networks = BTreeMap::new();
        for entry in declared("networks")? {
            networks.insert(entry.key.clone(), network(deployment, entry)?);
        }
        if !networks.contains_key(DEFAULT) {
            let at = At { source: Arc::clone(&tree.at.source), line: tree.at.line };
            let entry = Entry { key: DEFAULT.to_owned(), at: at.clone(), value: Node::null(at) };
            networks.insert(DEFAULT.to_owned(), network(deployment, &entry)?);
        }
        let mut volumes = BTreeMap::new();
        for entry in declared("volumes")? {
            volumes.insert(entry.key.clone(), volume(deployment, entry, variables)?);
        }
        Ok(Self { networks, volumes })
    }

    /// The network of that key; an error where a service names one that is not declared.
    pub fn network(&self, key: &str, at: &At) -> Result<&DeclaredNetwork> {
        self.networks.get(key).ok_or_else(|| {
            let hint = format!("declare it under the top-level `networks`: `{key}:`");
            ComposeError::invalid_but(at, format!("the network `{key}` is not declared"), hint)
        })
    }

    /// The volume of that key; an error where a service names one that is not declared.
    pub fn volume(&self, key: &str, at: &At) -> Result<&Resource> {
        self.volumes.get(key).ok_or_else(|| {
            let hint = format!(
                "declare it under the top-level `volumes`: `{key}:`, or write `./{key}` for a folder"
            );
            ComposeError::invalid_but(at, format!("the volume `{key}` is not declared"), hint)
        })
    }

    /// Every network, by key.
    pub fn networks(&self) -> &BTreeMap<String, DeclaredNetwork> {
        &self.networks
    }

    /// Those that the services use.
    pub fn used(&self, services: &[Service]) -> (Vec<Resource>, Vec<Resource>) {
        let on_network = |name: &str| {
            let mut declarations = services.iter().map(|service| &service.declaration);
            declarations.any(|declaration| declaration.endpoint(name).is_some())
        };
        let mounted: BTreeSet<String> = services
            .iter()
            .flat_map(|service| service.declaration.mounts().iter().cloned().collect::<Vec<_>>())
            .filter_map(|mount| match mount.source {
                MountSource::Volume { name, .. } | MountSource::Anonymous(Some(name)) => Some(name),
                _ => None,
            })
            .collect();
        let networks = self.networks.values().map(|network| &network.resource);
        (
            networks.filter(|network| on_network(&network.name)).cloned().collect(),
            self.volumes.values().filter(|volume| mounted.contains(&volume.name)).cloned().collect(),
        )
    }
}

/// `NAME: value` pairs, written as a list or a mapping.
pub(super) fn pairs(node: &Node, what: &str) -> Result<Map<String, Json>> {
    let node = assigned(node.clone())?;
    entries(&node, what)?
        .iter()
        .map(|entry| {
            let value = if entry.value.is_null() { String::new() } else { text(&entry.value, &entry.key)? };
            Ok((entry.key.clone(), value.into()))
        })
        .collect()
}

/// `external`, also in its old form with a name, and the name on the engine.
fn name_of(deployment: &str, entry: &Entry) -> Result<(bool, String)> {
    let node = &entry.value;
    let mut name = match node.get("name").filter(|name| !name.is_null()) {
        Some(name) => Some(text(name, "name")?),
        None => None,
    };
    let external = match node.get("external") {
        None => false,
        Some(external) => match &external.value {
            Value::Null => false,
            Value::Map(_) => {
                check_keys(external, "`external`", &[("name", Handling::Done)])?;
                if let Some(old) = external.get("name") {
                    name = Some(text(old, "external.name")?);
                }
                true
            }
            _ => boolean(external, "external")?,
        },
    };
    let name = name
        .unwrap_or_else(|| if external { entry.key.clone() } else { format!("{deployment}_{}", entry.key) });
    if external {
        let others = entries(node, &entry.key)?;
        if let Some(other) = others
            .iter()
            .find(|other| !matches!(other.key.as_str(), "name" | "external") && !other.key.starts_with("x-"))
        {
            let what = format!("`{}` is external, so `{}` has no effect on it", entry.key, other.key);
            return Err(ComposeError::invalid_but(&other.at, what, "remove one of both"));
        }
    }
    Ok((external, name))
}

/// The labels of a resource: the file's, and whose it is.
fn labels(deployment: &str, node: &Node) -> Result<Map<String, Json>> {
    let mut labels = node.get("labels").map_or(Ok(Map::new()), |labels| pairs(labels, "labels"))?;
    labels.insert(LABEL_DEPLOYMENT.to_owned(), deployment.into());
    Ok(labels)
}

fn driver(node: &Node, default: &str) -> Result<(String, Map<String, Json>)> {
    let driver = match node.get("driver").filter(|driver| !driver.is_null()) {
        Some(driver) => text(driver, "driver")?,
        None => default.to_owned(),
    };
    let options = node.get("driver_opts").map_or(Ok(Map::new()), |options| pairs(options, "driver_opts"))?;
    Ok((driver, options))
}

fn volume(deployment: &str, entry: &Entry, variables: &Variables) -> Result<Resource> {
    check_keys(&entry.value, &format!("the volume `{}`", entry.key), VOLUME)?;
    let (external, name) = name_of(deployment, entry)?;
    let (driver, mut options) = driver(&entry.value, "local")?;
    if driver == "local" && is_bind(&options) {
        let device = entry.value.get("driver_opts").and_then(|options| options.get("device"));
        if let Some(written) = options.get("device").and_then(Json::as_str).filter(|path| !path.is_empty()) {
            // The engine would read a relative one from its own working directory, on its own host.
            let at = device.map_or(&entry.at, |device| &device.at);
            let path = host_path(written, at, variables)?;
            options.insert("device".to_owned(), path.into());
        }
    }
    let labels = labels(deployment, &entry.value)?;
    let body = json!({"Name": name, "Driver": driver, "DriverOpts": options, "Labels": labels});
    Ok(Resource { key: entry.key.clone(), name, external, body, place: entry.at.place() })
}

/// True for the options of a volume that is a folder of the host: `type: none, o: bind`.
fn is_bind(options: &Map<String, Json>) -> bool {
    let text = |key: &str| options.get(key).and_then(Json::as_str).unwrap_or_default();
    text("o").split(',').any(|option| matches!(option.trim(), "bind" | "rbind"))
}

fn network(deployment: &str, entry: &Entry) -> Result<DeclaredNetwork> {
    check_keys(&entry.value, &format!("the network `{}`", entry.key), NETWORK)?;
    let node = &entry.value;
    let (external, name) = name_of(deployment, entry)?;
    let (driver, options) = driver(node, "bridge")?;
    let flag =
        |key: &str| node.get(key).filter(|node| !node.is_null()).map(|node| boolean(node, key)).transpose();
    let mut body = json!({
        "Name": name,
        "CheckDuplicate": true,
        "Driver": driver,
        "Options": options,
        "Internal": flag("internal")?.unwrap_or(false),
        "Attachable": flag("attachable")?.unwrap_or(false),
        "EnableIPv6": flag("enable_ipv6")?.unwrap_or(false),
        "Labels": labels(deployment, node)?,
    });
    if flag("enable_ipv4")? == Some(false) {
        body["EnableIPv4"] = false.into();
    }
    let mut network = DeclaredNetwork {
        resource: Resource { key: entry.key.clone(), name, external, body, place: entry.at.place() },
        subnets: Vec::new(),
        ranges: Vec::new(),
        reserved: Vec::new(),
        at: entry.at.clone(),
    };
    if let Some(ipam) = node.get("ipam").filter(|ipam| !ipam.is_null()) {
        let ipam = read_ipam(ipam, &mut network)?;
        network.resource.body["IPAM"] = ipam;
    }
    Ok(network)
}

fn read_ipam(ipam: &Node, network: &mut DeclaredNetwork) -> Result<Json> {
    const IPAM: &Keys =
        &[("driver", Handling::Done), ("config", Handling::Done), ("options", Handling::Done)];
    const CONFIG: &Keys = &[
        ("subnet", Handling::Done),
        ("gateway", Handling::Done),
        ("ip_range", Handling::Done),
        ("aux_addresses", Handling::Done),
    ];
    check_keys(ipam, "`ipam`", IPAM)?;
    let mut configs = Vec::new();
    for config in ipam.get("config").map_or(Ok(&[][..]), |node| list(node, "ipam.config"))? {
        check_keys(config, "`ipam.config`", CONFIG)?;
        let mut body = Map::new();
        for entry in entries(config, "ipam.config")? {
            let (key, node) = (entry.key.as_str(), &entry.value);
            let wrong = |what| ComposeError::invalid(&node.at, format!("`{key}` takes {what}"));
            let block =
                |text: &str| subnet::parse(text).ok_or_else(|| wrong("a block such as 172.25.0.0/16"));
            let address =
                |text: &str| text.parse::<IpAddr>().map_err(|_| wrong("an address such as 172.25.0.1"));
            match key {
                "subnet" | "ip_range" => {
                    let written = text(node, key)?;
                    let blocks = if key == "subnet" { &mut network.subnets } else { &mut network.ranges };
                    blocks.push(block(&written)?);
                    body.insert(
                        if key == "subnet" { "Subnet" } else { "IPRange" }.to_owned(),
                        written.into(),
                    );
                }
                "gateway" => {
                    let written = text(node, key)?;
                    network.reserved.push(address(&written)?);
                    body.insert("Gateway".to_owned(), written.into());
                }
                "aux_addresses" => {
                    let pairs = pairs(node, key)?;
                    for text in pairs.values().filter_map(Json::as_str) {
                        network.reserved.push(address(text)?);
                    }
                    body.insert("AuxiliaryAddresses".to_owned(), pairs.into());
                }
                _ => {}
            }
        }
        configs.push(Json::Object(body));
    }
    let driver = ipam.get("driver").map_or(Ok("default".to_owned()), |driver| text(driver, "ipam.driver"))?;
    let options = ipam.get("options").map_or(Ok(Map::new()), |options| pairs(options, "ipam.options"))?;
    Ok(json!({"Driver": driver, "Config": configs, "Options": options}))
}
