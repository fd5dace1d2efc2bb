//! What a service's container is to be: typed where tarsup decides by it, the rest in the API's own words.
//!
//! It is read once, from what a compose file was translated into, and rendered once, for the engine. Nothing in it is lost
//! on the way, whether tarsup knows a key or not.

use std::ops::RangeInclusive;

use serde_json::{Map, Value, json};

use super::mounts::{Lies, Mount, MountSource, Mounts, clean};
use crate::engine::{CreateBody, Environment};

/// Variables that name files without which a container of the framework cannot ask its database.
const FILES: [&str; 3] = ["MYSQL_ROOT_PASSWORD_FILE", "TARS_ADMIN_PASSWORD_FILE", "MYSQL_SSL_CA"];

/// How a namespace of another container is named in the API.
const CONTAINER: &str = "container:";

/// The declared container of a service, but for its image's id and the labels that a deploy adds. Its `Debug` shows neither
/// commands nor labels: variables may have been written into them.
#[derive(Clone, Default, PartialEq)]
pub struct Declaration {
    /// What it finds in its environment.
    pub environment: Environment,
    /// What replaces the image's entrypoint.
    pub entrypoint: Option<Vec<String>>,
    /// What replaces the image's command.
    pub command: Option<Vec<String>>,
    /// `HostConfig.NetworkMode`.
    pub network: Option<NetworkMode>,
    /// Its place on each network, in the order in which it joins them.
    pub endpoints: Vec<Endpoint>,
    /// The ports of the host that lead to it.
    pub ports: Vec<PublishedPort>,
    /// What it mounts, as it is written.
    pub mounts: DeclaredMounts,
    /// Every other key of the create body.
    pub rest: Map<String, Value>,
    /// Every other key of its `HostConfig`.
    pub host: Map<String, Value>,
}

/// Whose network a container is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkMode {
    /// The host's own: its ports are the host's.
    Host,
    /// None.
    None,
    /// Another container's, in the API's word: `container:NAME`.
    Container(String),
    /// This network, or the engine's `bridge`.
    Network(String),
}

/// A place on a network.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// The network, by its name on the engine.
    pub network: String,
    /// True for the one that the create body holds: the others are joined between create and start.
    pub at_create: bool,
    /// The fixed IPv4 address, as it is written.
    pub ipv4: Option<String>,
    /// The fixed IPv6 address, as it is written.
    pub ipv6: Option<String>,
    /// Every other key of the API's endpoint settings.
    rest: Map<String, Value>,
}

/// A port of the host that leads to one of the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedPort {
    /// The port of the container, as `80/tcp`.
    pub target: String,
    /// The address of the host; empty: each.
    pub host_ip: Option<String>,
    /// The port of the host, as it is written: empty where the engine chooses, `8000-8010` for one of these.
    pub host_port: String,
}

/// Mounts in the shapes of the API, which differ in what they can say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeclaredMounts {
    /// `HostConfig.Binds`
    pub binds: Vec<String>,
    /// `HostConfig.Mounts`
    pub mounts: Vec<Value>,
    /// `HostConfig.Tmpfs`
    pub tmpfs: Map<String, Value>,
    /// `Volumes`
    pub volumes: Map<String, Value>,
}

impl std::fmt::Debug for Declaration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Declaration");
        shown.field("environment", &self.environment).field("network", &self.network);
        shown.field("ports", &self.ports).finish_non_exhaustive()
    }
}

impl Declaration {
    /// Reads a create body, and the endpoints that are joined after it.
    pub fn of(body: Map<String, Value>, later: Vec<(String, Value)>) -> Self {
        let mut rest = body;
        let mut host = taken_map(&mut rest, "HostConfig");
        let network = taken(&mut host, "NetworkMode", |value| Some(NetworkMode::of(value.as_str()?)));
        let mut endpoints = Vec::new();
        let first = taken(&mut rest, "NetworkingConfig", |config| {
            config["EndpointsConfig"].as_object().filter(|first| !first.is_empty()).cloned()
        });
        let first = first.unwrap_or_default().into_iter();
        endpoints.extend(first.map(|(network, settings)| Endpoint::of(network, true, settings)));
        endpoints.extend(later.into_iter().map(|(network, settings)| Endpoint::of(network, false, settings)));
        Self {
            environment: Environment::of(taken_list(&mut rest, "Env")),
            entrypoint: taken(&mut rest, "Entrypoint", texts),
            command: taken(&mut rest, "Cmd", texts),
            network,
            endpoints,
            ports: taken(&mut host, "PortBindings", PublishedPort::all).unwrap_or_default(),
            mounts: DeclaredMounts {
                binds: taken_list(&mut host, "Binds"),
                mounts: taken(&mut host, "Mounts", |value| {
                    value.as_array().filter(|mounts| !mounts.is_empty()).cloned()
                })
                .unwrap_or_default(),
                tmpfs: taken_map(&mut host, "Tmpfs"),
                volumes: taken_map(&mut rest, "Volumes"),
            },
            rest,
            host,
        }
    }

    /// The create body.
    pub fn render(&self) -> CreateBody {
        let (mut body, mut host) = (self.rest.clone(), self.host.clone());
        put(&mut body, "Env", self.environment.expose(), |entries| !entries.is_empty());
        put(&mut body, "Entrypoint", json!(self.entrypoint), |_| self.entrypoint.is_some());
        put(&mut body, "Cmd", json!(self.command), |_| self.command.is_some());
        put(&mut body, "Volumes", self.mounts.volumes.clone(), |volumes| !volumes.is_empty());
        if let Some(network) = &self.network {
            host.insert("NetworkMode".to_owned(), network.name().into());
        }
        put(&mut host, "PortBindings", PublishedPort::render(&self.ports), |ports| !ports.is_empty());
        put(&mut host, "Binds", self.mounts.binds.clone(), |binds| !binds.is_empty());
        put(&mut host, "Mounts", self.mounts.mounts.clone(), |mounts| !mounts.is_empty());
        put(&mut host, "Tmpfs", self.mounts.tmpfs.clone(), |tmpfs| !tmpfs.is_empty());
        let first = self.endpoints.iter().filter(|endpoint| endpoint.at_create);
        let first: Map<String, Value> =
            first.map(|endpoint| (endpoint.network.clone(), endpoint.settings())).collect();
        if !first.is_empty() {
            body.insert("NetworkingConfig".to_owned(), json!({"EndpointsConfig": first}));
        }
        put(&mut body, "HostConfig", host, |host| !host.is_empty());
        CreateBody(body)
    }

    /// The networks that are joined after create.
    pub fn joins_later(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.iter().filter(|endpoint| !endpoint.at_create)
    }

    /// Its place on that network.
    pub fn endpoint(&self, network: &str) -> Option<&Endpoint> {
        self.endpoints.iter().find(|endpoint| endpoint.network == network)
    }

    /// True where its ports are the host's.
    pub fn is_on_host_network(&self) -> bool {
        self.network == Some(NetworkMode::Host)
    }

    /// The containers whose namespaces it shares: the key of `HostConfig`, and the container's name.
    pub fn shares(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let network = self.network.as_ref().map(NetworkMode::name);
        let mode = |key: &str| self.host.get(key).and_then(Value::as_str);
        let all = [("NetworkMode", network), ("IpcMode", mode("IpcMode")), ("PidMode", mode("PidMode"))];
        all.into_iter().filter_map(|(key, mode)| Some((key, mode?.strip_prefix(CONTAINER)?)))
    }

    /// What it mounts.
    pub fn mounts(&self) -> Mounts {
        Mounts::declared(&self.mounts)
    }

    /// One run beside the service: its image, environment and networks, but not its addresses, ports, names or volumes. Of
    /// its mounts it has the files that the environment names for the database, and cannot write them. `scratch` are the paths that the image declares as volumes: memory, or the engine would make an anonymous volume for
    /// each, and leave it.
    #[must_use]
    pub fn into_one_off(mut self, command: &[&str], scratch: &[String]) -> Self {
        for key in ["Hostname", "Domainname", "MacAddress", "ExposedPorts"] {
            self.rest.remove(key);
        }
        for key in ["PublishAllPorts", "VolumesFrom"] {
            self.host.remove(key);
        }
        // It needs nobody's memory or processes, and is not to fail because they are away.
        for (key, _) in self.clone().shares() {
            self.host.remove(key);
        }
        self.entrypoint = Some(command.iter().map(|&word| word.to_owned()).collect());
        self.command = None;
        self.rest.insert("Healthcheck".to_owned(), json!({"Test": ["NONE"]}));
        self.ports.clear();
        let tmpfs = std::mem::take(&mut self.mounts.tmpfs);
        let mut mounts = self.mounted_files();
        let is_free = |path: &&String| mounts.iter().all(|mount| mount["Target"] != clean(path));
        let scratch: Vec<Value> =
            scratch.iter().filter(is_free).map(|path| json!({"Type": "tmpfs", "Target": path})).collect();
        mounts.extend(scratch);
        self.mounts = DeclaredMounts { mounts, tmpfs, ..DeclaredMounts::default() };
        for endpoint in self.endpoints.iter_mut().filter(|endpoint| endpoint.at_create) {
            *endpoint = Endpoint::of(endpoint.network.clone(), true, json!({}));
        }
        self
    }

    /// Mounts for the files of [`FILES`] that lie on the host or in a named volume: read-only, and of a host nothing else.
    fn mounted_files(&self) -> Vec<Value> {
        let declared = self.mounts();
        let mut mounts: Vec<Value> = Vec::new();
        for path in
            FILES.iter().filter_map(|name| self.environment.value(name)).map(|path| clean(path.expose()))
        {
            let mount = match (declared.source_of(&path), declared.covering(&path)) {
                (Lies::Host(source), _) => {
                    json!({"Type": "bind", "Source": source, "Target": path, "ReadOnly": true})
                }
                (Lies::Volume(..), Some(Mount { target, source: MountSource::Volume { name, subpath } })) => {
                    let mut mount =
                        json!({"Type": "volume", "Source": name, "Target": target, "ReadOnly": true});
                    if !subpath.is_empty() {
                        mount["VolumeOptions"] = json!({"Subpath": subpath});
                    }
                    mount
                }
                _ => continue,
            };
            if mounts.iter().all(|known| known["Target"] != mount["Target"]) {
                mounts.push(mount);
            }
        }
        mounts
    }
}

impl NetworkMode {
    fn of(mode: &str) -> Self {
        match mode {
            "host" => Self::Host,
            "none" => Self::None,
            mode if mode.starts_with(CONTAINER) => Self::Container(mode.to_owned()),
            network => Self::Network(network.to_owned()),
        }
    }

    /// Its word in the API.
    pub fn name(&self) -> &str {
        match self {
            Self::Host => "host",
            Self::None => "none",
            Self::Container(name) | Self::Network(name) => name,
        }
    }
}

impl Endpoint {
    fn of(network: String, at_create: bool, settings: Value) -> Self {
        let mut rest = match settings {
            Value::Object(rest) => rest,
            _ => Map::new(),
        };
        let mut address = |key: &str| {
            let ipam = rest.get_mut("IPAMConfig")?.as_object_mut()?;
            taken(ipam, key, |value| value.as_str().map(str::to_owned))
        };
        let (ipv4, ipv6) = (address("IPv4Address"), address("IPv6Address"));
        if (ipv4.is_some() || ipv6.is_some()) && rest["IPAMConfig"].as_object().is_some_and(Map::is_empty) {
            rest.remove("IPAMConfig");
        }
        Self { network, at_create, ipv4, ipv6, rest }
    }

    /// The API's endpoint settings.
    pub fn settings(&self) -> Value {
        let mut settings = self.rest.clone();
        for (key, address) in [("IPv4Address", &self.ipv4), ("IPv6Address", &self.ipv6)] {
            let Some(address) = address else { continue };
            if let Value::Object(ipam) = settings.entry("IPAMConfig").or_insert_with(|| json!({})) {
                ipam.insert(key.to_owned(), address.clone().into());
            }
        }
        Value::Object(settings)
    }

    /// True where it keeps its address.
    pub fn has_fixed_address(&self) -> bool {
        self.ipv4.as_ref().is_some_and(|address| !address.is_empty())
    }
}

impl PublishedPort {
    fn all(bindings: &Value) -> Option<Vec<Self>> {
        let mut ports = Vec::new();
        for (target, hosts) in bindings.as_object().filter(|bindings| !bindings.is_empty())? {
            for host in hosts.as_array()? {
                let text = |key: &str| host[key].as_str().map(str::to_owned);
                let (host_ip, host_port) = (text("HostIp"), text("HostPort").unwrap_or_default());
                ports.push(Self { target: target.clone(), host_ip, host_port });
            }
        }
        Some(ports)
    }

    fn render(ports: &[Self]) -> Map<String, Value> {
        let mut bindings: Map<String, Value> = Map::new();
        for port in ports {
            let mut host = Map::from_iter([("HostPort".to_owned(), Value::from(port.host_port.clone()))]);
            host.extend(port.host_ip.clone().map(|address| ("HostIp".to_owned(), address.into())));
            if let Value::Array(hosts) = bindings.entry(port.target.clone()).or_insert_with(|| json!([])) {
                hosts.push(host.into());
            }
        }
        bindings
    }

    /// `tcp`, `udp` or `sctp`.
    pub fn protocol(&self) -> &str {
        self.target.rsplit_once('/').map_or("tcp", |(_, protocol)| protocol)
    }

    /// The ports of the host that it may be: one, each of a range of which the engine takes one that is free, or none where
    /// the engine chooses among all.
    pub fn candidates(&self) -> Option<RangeInclusive<u16>> {
        let (first, last) = self.host_port.split_once('-').unwrap_or((&self.host_port, &self.host_port));
        Some(first.parse().ok()?..=last.parse().ok()?)
    }
}

impl DeclaredMounts {
    /// Mounts an anonymous volume of the predecessor, `volume:path`, where the declaration would have a new one made: the
    /// engine refuses two mounts on one path.
    pub fn hand_on(&mut self, volume: &str) {
        let Some((name, target)) = volume.split_once(':') else { return };
        for mount in &mut self.mounts {
            if mount["Target"].as_str().map(clean).as_deref() == Some(target) {
                mount["Source"] = json!(name);
                return;
            }
        }
        self.binds.retain(|bind| clean(bind) != target);
        self.binds.push(volume.to_owned());
    }
}

/// A key that is read by `read`; what that does not understand stays where it is.
fn taken<T>(map: &mut Map<String, Value>, key: &str, read: impl FnOnce(&Value) -> Option<T>) -> Option<T> {
    let value = read(map.get(key)?)?;
    map.remove(key);
    Some(value)
}

fn taken_map(map: &mut Map<String, Value>, key: &str) -> Map<String, Value> {
    taken(map, key, |value| value.as_object().filter(|map| !map.is_empty()).cloned()).unwrap_or_default()
}

fn taken_list(map: &mut Map<String, Value>, key: &str) -> Vec<String> {
    taken(map, key, |value| texts(value).filter(|list| !list.is_empty())).unwrap_or_default()
}

fn texts(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|word| word.as_str().map(str::to_owned)).collect()
}

fn put<T: Into<Value>>(map: &mut Map<String, Value>, key: &str, value: T, is_said: impl FnOnce(&T) -> bool) {
    if is_said(&value) {
        map.insert(key.to_owned(), value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secretive::Secretive;

    fn body() -> Value {
        json!({
            "Image": "tars/node:1", "Env": ["A=1", "B", "A=2=3"], "Cmd": ["x"], "Labels": {"l": "1"},
            "Volumes": {"/v": {}}, "Unknown": {"kept": [1]},
            "HostConfig": {
                "NetworkMode": "tars", "Binds": ["/srv:/b:ro,z"], "Tmpfs": {"/t": "size=1m"},
                "Mounts": [{"Type": "volume", "Target": "/m", "VolumeOptions": {"NoCopy": true}}],
                "PortBindings": {
                    "80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}, {"HostPort": ""}],
                    "81/udp": [{"HostIp": "", "HostPort": "9000-9010"}],
                },
                "Ulimits": [{"Name": "nofile"}],
            },
            "NetworkingConfig": {"EndpointsConfig": {"tars": {
                "Aliases": ["n"], "IPAMConfig": {"IPv4Address": "172.25.0.5", "LinkLocalIPs": ["169.254.1.1"]},
            }}},
        })
    }

    fn read(body: &Value, later: Vec<(String, Value)>) -> Declaration {
        Declaration::of(body.as_object().unwrap().clone(), later)
    }

    #[test]
    fn whatever_is_read_is_rendered_again() {
        let later =
            json!({"Aliases": ["n"], "IPAMConfig": {"IPv4Address": "172.26.0.5", "IPv6Address": "fd00::5"}});
        for body in [
            body(),
            json!({}),
            json!({"Entrypoint": null, "Env": "odd", "HostConfig": {"Binds": null}}),
            json!({"Env": [], "Volumes": {}, "HostConfig": {"PortBindings": {"1/tcp": null}}, "NetworkingConfig": {}}),
            json!({"Entrypoint": [], "NetworkingConfig": {"EndpointsConfig": {"a": {}}}, "HostConfig": {"NetworkMode": "host"}}),
            json!({"HostConfig": {"NetworkMode": "container:a", "IpcMode": "container:b", "PidMode": "host"}}),
        ] {
            let declaration = read(&body, vec![("back".to_owned(), later.clone())]);
            assert_eq!(Value::Object(declaration.render().0), body);
            let joined: Vec<_> =
                declaration.joins_later().map(|it| (it.network.as_str(), it.settings())).collect();
            assert_eq!(joined, [("back", later.clone())]);
        }
    }

    #[test]
    fn what_is_decided_by_is_typed() {
        let declaration = read(&body(), Vec::new());
        assert_eq!(declaration.environment.value("A").map(Secretive::expose), Some("2=3"));
        assert_eq!(declaration.environment.get("B").map(|variable| variable.value.is_none()), Some(true));
        assert_eq!(declaration.network, Some(NetworkMode::Network("tars".to_owned())));
        let endpoint = declaration.endpoint("tars").unwrap();
        assert!(endpoint.has_fixed_address() && endpoint.at_create);
        let ports: Vec<_> =
            declaration.ports.iter().map(|port| (port.protocol(), port.candidates())).collect();
        assert_eq!(ports, [("tcp", Some(8080..=8080)), ("tcp", None), ("udp", Some(9000..=9010))]);
        assert_eq!(declaration.mounts().iter().count(), 4);
        assert!(!format!("{declaration:?}").contains("2=3"), "values are nobody's business");
    }

    #[test]
    fn one_off_has_the_files_that_its_environment_names_and_nothing_else_of_the_mounts() {
        let body = json!({
            "Env": ["MYSQL_ROOT_PASSWORD_FILE=/run/secrets/root", "MYSQL_SSL_CA=/certs/db/ca.pem",
                    "TARS_ADMIN_PASSWORD_FILE=/data/tars/secret"],
            "HostConfig": {
                "Binds": ["/srv/root.txt:/run/secrets/root:ro", "certs:/certs:ro", "/srv/data:/data/tars", "/srv/x:/x"],
            },
        });
        let one_off =
            read(&body, Vec::new()).into_one_off(&["x"], &["/data/tars".to_owned(), "/certs".to_owned()]);
        assert_eq!(one_off.mounts.binds, Vec::<String>::new());
        assert_eq!(
            Value::from(one_off.mounts.mounts),
            json!([
                {"Type": "bind", "Source": "/srv/root.txt", "Target": "/run/secrets/root", "ReadOnly": true},
                {"Type": "bind", "Source": "/srv/data/secret", "Target": "/data/tars/secret", "ReadOnly": true},
                {"Type": "volume", "Source": "certs", "Target": "/certs", "ReadOnly": true},
                {"Type": "tmpfs", "Target": "/data/tars"},
            ])
        );
    }
}
