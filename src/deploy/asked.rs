//! What a container was asked for: what its inspect says, minus its image's defaults and the engine's.
//!
//! A declaration is brought into the same shape, so that a container which nobody here made can be compared with what a file
//! says of it, key by key and in both directions. What no compose file of ours has a word for is kept apart, never dropped.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::desired::Service;
use super::mounts::clean;
use crate::engine::Container;

/// What was asked for, by the API's keys; `Env`, `Mounts` and `Networks` by name, target and network. Its `Debug` shows
/// the keys.
#[derive(Clone, Default, PartialEq)]
pub struct Asked {
    /// What a compose file can say.
    pub said: BTreeMap<String, Value>,
    /// What it cannot.
    pub beyond: BTreeMap<String, Value>,
}

impl std::fmt::Debug for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.said.keys().chain(self.beyond.keys())).finish()
    }
}

/// Keys of `Config` that a compose file can set as they are.
const CONFIG: [&str; 7] =
    ["Domainname", "User", "WorkingDir", "StopSignal", "StopTimeout", "Tty", "OpenStdin"];

/// Keys of `Config` that are treated apart, say nothing of what was asked for, or are the image's alone.
const CONFIG_APART: [&str; 18] = [
    "Hostname",
    "Image",
    "Env",
    "Cmd",
    "Entrypoint",
    "Labels",
    "Volumes",
    "ExposedPorts",
    "Healthcheck",
    "AttachStdin",
    "AttachStdout",
    "AttachStderr",
    "StdinOnce",
    "OnBuild",
    "ArgsEscaped",
    "Shell",
    "MacAddress",
    "HostConfig",
];

/// Keys of `HostConfig` that a compose file can set as they are.
pub const HOST: [&str; 32] = [
    "CapAdd",
    "CapDrop",
    "CgroupnsMode",
    "CgroupParent",
    "CpuPeriod",
    "CpuQuota",
    "CpuShares",
    "NanoCpus",
    "CpusetCpus",
    "DeviceCgroupRules",
    "Dns",
    "DnsOptions",
    "DnsSearch",
    "GroupAdd",
    "Init",
    "IpcMode",
    "Memory",
    "MemoryReservation",
    "MemorySwappiness",
    "MemorySwap",
    "OomKillDisable",
    "OomScoreAdj",
    "PidMode",
    "PidsLimit",
    "Privileged",
    "ReadonlyRootfs",
    "Runtime",
    "SecurityOpt",
    "ShmSize",
    "StorageOpt",
    "Sysctls",
    "UsernsMode",
];

/// More of them, in a shape of their own in the file.
const HOST_SHAPED: [&str; 5] = ["UTSMode", "ExtraHosts", "Devices", "Ulimits", "LogConfig"];

/// Keys of `HostConfig` that are treated apart, or that say nothing of what was asked for.
const HOST_APART: [&str; 13] = [
    "NetworkMode",
    "RestartPolicy",
    "PortBindings",
    "Binds",
    "Mounts",
    "Tmpfs",
    "VolumesFrom",
    "ContainerIDFile",
    "ConsoleSize",
    "Isolation",
    "MaskedPaths",
    "ReadonlyPaths",
    "Cgroup",
];

/// Keys of `HostConfig` without an effect in a container that is on another one's network.
const OF_A_NETWORK: [&str; 4] = ["Dns", "DnsOptions", "DnsSearch", "ExtraHosts"];

/// Where the parts of a container are read from.
struct Source<'a> {
    /// `Config`.
    config: &'a Map<String, Value>,
    /// `HostConfig`.
    host: &'a Map<String, Value>,
    /// Network → endpoint settings.
    networks: Map<String, Value>,
    /// The `Mounts` of an inspect.
    shown: &'a [Value],
    /// The image's `Config`.
    image: &'a Value,
    /// Names that are no alias of a person's choice.
    own_names: BTreeSet<String>,
    /// The id; none of a declaration.
    id: Option<&'a str>,
}

impl Asked {
    /// What a container was asked for. `image` is the engine's `Config` of the image that it was made from.
    pub fn of_container(container: &Container, service: &str, image: &Value) -> Self {
        let empty = Map::new();
        let object = |pointer: &str| container.raw.pointer(pointer).and_then(Value::as_object);
        Source {
            config: object("/Config").unwrap_or(&empty),
            host: object("/HostConfig").unwrap_or(&empty),
            networks: object("/NetworkSettings/Networks").cloned().unwrap_or_default(),
            shown: container.raw["Mounts"].as_array().map(Vec::as_slice).unwrap_or_default(),
            image,
            own_names: own_names(&container.name, service, Some(&container.id)),
            id: Some(&container.id),
        }
        .read()
    }

    /// The same of what is declared.
    pub fn of_declared(service: &Service, image: &Value) -> Self {
        let body = service.declaration.render().0;
        let empty = Map::new();
        let endpoints = service.declaration.endpoints.iter();
        Source {
            config: &body,
            host: body.get("HostConfig").and_then(Value::as_object).unwrap_or(&empty),
            networks: endpoints.map(|endpoint| (endpoint.network.clone(), endpoint.settings())).collect(),
            shown: &[],
            image,
            own_names: own_names(&service.container, &service.name, None),
            id: None,
        }
        .read()
    }

    /// The keys in which both differ: the name of a variable as `Env NAME`.
    pub fn differences(&self, other: &Self) -> BTreeSet<String> {
        let keys: BTreeSet<&String> = self.said.keys().chain(other.said.keys()).collect();
        let mut differing = BTreeSet::new();
        for key in keys {
            let (a, b) = (self.said.get(key), other.said.get(key));
            if a == b {
                continue;
            }
            let by_name =
                |value: Option<&Value>| value.and_then(Value::as_object).cloned().unwrap_or_default();
            if key == "Env" {
                let (a, b) = (by_name(a), by_name(b));
                let names = a.keys().chain(b.keys()).filter(|name| a.get(*name) != b.get(*name));
                differing.extend(names.map(|name| format!("Env {name}")));
            } else {
                differing.insert(key.clone());
            }
        }
        differing
    }
}

fn own_names(container: &str, service: &str, id: Option<&str>) -> BTreeSet<String> {
    let mut names = BTreeSet::from([container.to_owned(), service.to_owned()]);
    names.extend(id.map(|id| short(id).to_owned()));
    names
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

impl Source<'_> {
    fn read(&self) -> Asked {
        let mut asked = Asked::default();
        self.environment(&mut asked);
        self.start(&mut asked);
        self.config(&mut asked);
        self.host(&mut asked);
        self.ports(&mut asked);
        self.mounts(&mut asked);
        self.networks(&mut asked);
        asked
    }

    fn mode(&self) -> &str {
        match self.host.get("NetworkMode").and_then(Value::as_str).unwrap_or_default() {
            "" | "default" => "bridge",
            mode => mode,
        }
    }

    fn is_on_host(&self) -> bool {
        self.mode() == "host"
    }

    fn is_on_anothers(&self) -> bool {
        self.mode().starts_with("container:")
    }

    fn environment(&self, asked: &mut Asked) {
        let entries = |value: Option<&Value>| -> Vec<String> {
            value
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect()
        };
        let (own, baked) = (entries(self.config.get("Env")), entries(self.image.get("Env")));
        let mut env = Map::new();
        for entry in own.iter().filter(|entry| !baked.contains(entry)) {
            let (name, value) = match entry.split_once('=') {
                Some((name, value)) => (name, Value::from(value)),
                None => (entry.as_str(), Value::Null),
            };
            env.insert(name.to_owned(), value);
        }
        if self.id.is_some() {
            let name = |entry: &str| entry.split_once('=').map_or(entry, |(name, _)| name).to_owned();
            let names: BTreeSet<String> = own.iter().map(|entry| name(entry)).collect();
            let gone = baked.iter().map(|entry| name(entry)).filter(|name| !names.contains(name));
            env.extend(gone.map(|name| (name, Value::Null)));
        }
        put(&mut asked.said, "Env", env.into());
    }

    /// Entrypoint and command go together: whoever sets the first drops the image's second.
    fn start(&self, asked: &mut Asked) {
        let own = |key: &str| self.config.get(key).filter(|value| !says_nothing(value));
        let baked = |key: &str| self.image.get(key).filter(|value| !says_nothing(value));
        let (mut entrypoint, mut command) = (own("Entrypoint"), own("Cmd"));
        let dropped = self.id.is_some() && command.is_none() && baked("Cmd").is_some();
        if entrypoint == baked("Entrypoint") && !dropped {
            entrypoint = None;
        }
        if entrypoint.is_none() && command == baked("Cmd") {
            command = None;
        }
        for (key, words) in [("Entrypoint", entrypoint), ("Cmd", command)] {
            if let Some(words) = words {
                asked.said.insert(key.to_owned(), words.clone());
            }
        }
        // An image's entrypoint that was taken away has no word.
        if self.id.is_some() && own("Entrypoint").is_none() && baked("Entrypoint").is_some() {
            asked.beyond.insert("Entrypoint".to_owned(), json!([]));
        }
    }

    fn config(&self, asked: &mut Asked) {
        let hostname = self.config.get("Hostname").filter(|name| !says_nothing(name));
        // On the host's network, and on another container's, the engine writes their own name there.
        let is_given = |name: &&Value| {
            !self.is_on_host() && !self.is_on_anothers() && name.as_str() != self.id.map(short)
        };
        if let Some(hostname) = hostname.filter(is_given) {
            asked.said.insert("Hostname".to_owned(), hostname.clone());
        }
        if let Some(mac) =
            self.config.get("MacAddress").filter(|mac| !says_nothing(mac) && !self.is_on_anothers())
        {
            asked.said.insert("MacAddress".to_owned(), mac.clone());
        }
        for (key, value) in self.config {
            let is_default = says_nothing(value)
                || self.image.get(key) == Some(value)
                || key == "StopSignal" && value == "SIGTERM" && self.image.get(key).is_none_or(says_nothing);
            let is_anothers = key == "Domainname" && self.is_on_anothers();
            if is_default || is_anothers || CONFIG_APART.contains(&key.as_str()) || key == "NetworkingConfig"
            {
                continue;
            }
            let place = if CONFIG.contains(&key.as_str()) { &mut asked.said } else { &mut asked.beyond };
            place.insert(key.clone(), value.clone());
        }
        let own = |key: &str| self.config.get(key).and_then(Value::as_object).cloned().unwrap_or_default();
        let differs = |key: &str, name: &str, value: &Value| self.image[key].get(name) != Some(value);
        let mut labels = own("Labels");
        labels.retain(|name, value| {
            !name.starts_with("com.docker.compose.")
                && !name.starts_with("io.tarsup.")
                && differs("Labels", name, value)
        });
        put(&mut asked.said, "Labels", labels.into());
        let mut check = own("Healthcheck");
        check.retain(|field, value| !says_nothing(value) && differs("Healthcheck", field, value));
        put(&mut asked.said, "Healthcheck", check.into());
    }

    fn host(&self, asked: &mut Asked) {
        let is_privileged = self.host.get("Privileged") == Some(&Value::Bool(true));
        for (key, value) in self.host {
            let key = key.as_str();
            let is_anothers = OF_A_NETWORK.contains(&key) && self.is_on_anothers();
            if HOST_APART.contains(&key) || is_anothers || says_nothing(value) {
                continue;
            }
            let mut value = value.clone();
            match (key, &mut value) {
                ("CapAdd" | "CapDrop", Value::Array(names)) => {
                    for name in names.iter_mut() {
                        if let Some(plain) = name.as_str().and_then(|name| name.strip_prefix("CAP_")) {
                            *name = plain.into();
                        }
                    }
                }
                ("SecurityOpt", Value::Array(options)) if is_privileged => {
                    options.retain(|option| option != "label=disable");
                }
                _ => {}
            }
            let is_default = match key {
                "IpcMode" | "CgroupnsMode" => value == "private",
                "Runtime" => value == "runc",
                "ShmSize" => value == 67_108_864,
                "MemorySwappiness" | "PidsLimit" => value == -1,
                "MemorySwap" => {
                    let twice = self.host.get("Memory").and_then(Value::as_i64).map(|memory| memory * 2);
                    value.as_i64() == twice
                }
                "LogConfig" => {
                    value["Type"] == "json-file" && value["Config"].as_object().is_none_or(Map::is_empty)
                }
                // What is mounted is told by the mounts themselves.
                "VolumeDriver" => value == "local",
                _ => says_nothing(&value),
            };
            if is_default {
                continue;
            }
            let of_another = value.as_str().is_some_and(|mode| mode.starts_with("container:"));
            let has_word = HOST.contains(&key) || HOST_SHAPED.contains(&key);
            let place = if has_word && !of_another { &mut asked.said } else { &mut asked.beyond };
            place.insert(key.to_owned(), value);
        }
        for key in ["MaskedPaths", "ReadonlyPaths"] {
            if self.host.get(key).and_then(Value::as_array).is_some_and(Vec::is_empty) && !is_privileged {
                asked.beyond.insert(key.to_owned(), json!([]));
            }
        }
    }

    fn ports(&self, asked: &mut Asked) {
        if self.is_on_anothers() {
            // What is exposed there is the image's: the engine takes no other.
            return;
        }
        let mut bindings =
            self.host.get("PortBindings").and_then(Value::as_object).cloned().unwrap_or_default();
        bindings.retain(|_, hosts| !says_nothing(hosts));
        let mut exposed =
            self.config.get("ExposedPorts").and_then(Value::as_object).cloned().unwrap_or_default();
        exposed
            .retain(|port, _| !bindings.contains_key(port) && self.image["ExposedPorts"].get(port).is_none());
        put(&mut asked.said, "ExposedPorts", exposed.into());
        // Docker publishes nothing of a container that has no network of its own.
        if matches!(self.mode(), "host" | "none") {
            return;
        }
        for host in bindings.values_mut().filter_map(Value::as_array_mut).flatten() {
            let text = |key: &str| host[key].as_str().unwrap_or_default().to_owned();
            let port = text("HostPort");
            *host =
                json!({"HostIp": text("HostIp"), "HostPort": if port == "0" { String::new() } else { port }});
        }
        put(&mut asked.said, "PortBindings", bindings.into());
    }

    /// Target → mount, whatever the shape in which it was asked for. Anonymous volumes have their names.
    fn mounts(&self, asked: &mut Asked) {
        let mut mounts: BTreeMap<String, Value> = BTreeMap::new();
        let named = |target: &str| {
            let at = self
                .shown
                .iter()
                .find(|shown| shown["Destination"].as_str().map(clean).as_deref() == Some(target));
            at.and_then(|shown| shown["Name"].as_str()).unwrap_or_default().to_owned()
        };
        for bind in self.host.get("Binds").and_then(Value::as_array).into_iter().flatten() {
            let parts: Vec<&str> = bind.as_str().unwrap_or_default().split(':').collect();
            let (source, target, options) = match parts.as_slice() {
                [target] => ("", *target, ""),
                [source, target] => (*source, *target, ""),
                [source, target, options, ..] => (*source, *target, *options),
                [] => continue,
            };
            let target = clean(target);
            let source = if source.is_empty() { named(&target) } else { source.to_owned() };
            mounts.insert(target, bound(&source, options));
        }
        for mount in self.host.get("Mounts").and_then(Value::as_array).into_iter().flatten() {
            let target = clean(mount["Target"].as_str().unwrap_or_default());
            match described(mount, &named(&target)) {
                Some(described) => drop(mounts.insert(target, described)),
                None => drop(asked.beyond.insert(format!("Mounts {target}"), mount.clone())),
            }
        }
        for (target, options) in self.host.get("Tmpfs").and_then(Value::as_object).into_iter().flatten() {
            let mut mount = Map::from_iter([("Type".to_owned(), json!("tmpfs"))]);
            put_map(&mut mount, "Options", options.clone());
            mounts.insert(clean(target), mount.into());
        }
        // The volumes of the image and of `volumes_from`, and those without a name.
        for shown in self.shown {
            let target = clean(shown["Destination"].as_str().unwrap_or_default());
            let source = if shown["Type"] == "volume" { &shown["Name"] } else { &shown["Source"] };
            let options = if shown["RW"] == false { "ro" } else { "" };
            if shown["Type"] != "tmpfs" {
                mounts.entry(target).or_insert_with(|| bound(source.as_str().unwrap_or_default(), options));
            }
        }
        put(&mut asked.said, "Mounts", json!(mounts));
    }

    fn networks(&self, asked: &mut Asked) {
        let mode = self.mode();
        if let "host" | "none" | "bridge" = mode {
            asked.said.insert("NetworkMode".to_owned(), mode.into());
            let others: Vec<&String> = self.networks.keys().filter(|name| *name != mode).collect();
            if !others.is_empty() {
                asked.beyond.insert("Networks".to_owned(), json!(others));
            }
            return;
        }
        if mode.starts_with("container:") {
            asked.beyond.insert("NetworkMode".to_owned(), mode.into());
            return;
        }
        let by_id = self.networks.iter().find(|(_, endpoint)| {
            mode.len() >= 12 && endpoint["NetworkID"].as_str().is_some_and(|id| id.starts_with(mode))
        });
        let first = by_id.map_or(mode, |(name, _)| name.as_str());
        asked.said.insert("NetworkMode".to_owned(), first.into());
        let mut endpoints = Map::new();
        for (name, endpoint) in &self.networks {
            let mut settings = Map::new();
            for key in ["IPv4Address", "IPv6Address", "LinkLocalIPs"] {
                put_map(&mut settings, key, endpoint["IPAMConfig"][key].clone());
            }
            let aliases = endpoint["Aliases"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let aliases: BTreeSet<&str> = aliases.filter(|alias| !self.own_names.contains(*alias)).collect();
            put_map(&mut settings, "Aliases", json!(aliases));
            put_map(&mut settings, "DriverOpts", endpoint["DriverOpts"].clone());
            endpoints.insert(name.clone(), settings.into());
            for key in ["Links", "GwPriority"] {
                if !says_nothing(&endpoint[key]) {
                    asked.beyond.insert(format!("{key} on {name}"), endpoint[key].clone());
                }
            }
        }
        asked.said.insert("Networks".to_owned(), endpoints.into());
    }
}

/// A mount as `source:target:options` has it.
fn bound(source: &str, options: &str) -> Value {
    let is_path = source.starts_with('/');
    let mut mount = Map::from_iter([("Type".to_owned(), json!(if is_path { "bind" } else { "volume" }))]);
    put_map(&mut mount, "Source", if is_path { clean(source).into() } else { source.into() });
    for option in options.split(',') {
        match option {
            "" | "rw" | "rprivate" | "consistent" | "cached" | "delegated" => {}
            "ro" => put_map(&mut mount, "ReadOnly", true.into()),
            "nocopy" => put_map(&mut mount, "NoCopy", true.into()),
            "z" | "Z" => put_map(&mut mount, "Selinux", option.into()),
            other => put_map(&mut mount, "Propagation", other.into()),
        }
    }
    mount.into()
}

/// One of `HostConfig.Mounts`; `None` for what no file can say.
fn described(body: &Value, anonymous: &str) -> Option<Value> {
    let kind = body["Type"].as_str().unwrap_or("volume");
    let mut mount = Map::from_iter([("Type".to_owned(), json!(kind))]);
    let source = body["Source"].as_str().unwrap_or_default();
    match kind {
        "bind" => {
            put_map(&mut mount, "Source", clean(source).into());
            let options = &body["BindOptions"];
            put_map(&mut mount, "Propagation", options["Propagation"].clone());
            if mount.get("Propagation").is_some_and(|propagation| propagation == "rprivate") {
                mount.remove("Propagation");
            }
            if options["CreateMountpoint"] != true {
                mount.insert("CreateHostPath".to_owned(), false.into());
            }
            let words = [
                ("NonRecursive", "disabled"),
                ("ReadOnlyNonRecursive", "writable"),
                ("ReadOnlyForceRecursive", "readonly"),
            ];
            let recursive = words.iter().find(|(key, _)| options[*key] == true);
            put_map(&mut mount, "Recursive", recursive.map(|(_, word)| *word).into());
        }
        "volume" => {
            put_map(&mut mount, "Source", if source.is_empty() { anonymous } else { source }.into());
            let options = &body["VolumeOptions"];
            put_map(&mut mount, "NoCopy", options["NoCopy"].clone());
            put_map(&mut mount, "Subpath", options["Subpath"].clone());
        }
        "tmpfs" => {
            for key in ["SizeBytes", "Mode"] {
                put_map(&mut mount, key, body["TmpfsOptions"][key].clone());
            }
        }
        _ => return None,
    }
    put_map(&mut mount, "ReadOnly", body["ReadOnly"].clone());
    Some(mount.into())
}

fn put(map: &mut BTreeMap<String, Value>, key: &str, value: Value) {
    if !says_nothing(&value) {
        map.insert(key.to_owned(), value);
    }
}

fn put_map(map: &mut Map<String, Value>, key: &str, value: Value) {
    if !says_nothing(&value) {
        map.insert(key.to_owned(), value);
    }
}

/// The id or name of the container that another one shares a namespace with, by a key of its `HostConfig`.
pub fn shared<'a>(raw: &'a Value, key: &str) -> Option<&'a str> {
    raw["HostConfig"][key].as_str()?.strip_prefix("container:")
}

/// The engine shows what was not asked for as `null`, `""`, `0`, `false`, `[]` or `{}`.
pub fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(value) => value.as_i64() == Some(0),
        Value::String(value) => value.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(values) => values.is_empty(),
    }
}
