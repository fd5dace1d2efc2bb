//! What a container was, whole, so that it can be made once more: from what the engine says of it.
//!
//! A twin has the same image by id, the same environment, mounts, networks and labels, and every field that this program has no
//! word for. What lay in the container's own layer is not in it, and its restart policy is `no` until it is proven.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::mounts::clean;
use super::observed::{LABEL_DEPLOY, LABEL_SERVICE, LABEL_TWIN};
use crate::engine::{Container, CreateBody, RestartPolicy};
use crate::oci::Digest;

/// The format that is written.
pub const VERSION: u32 = 1;

/// What says nothing of what was asked for, or is said by another key.
const NOT_ASKED: [&str; 2] = ["ContainerIDFile", "ConsoleSize"];

/// A container that can be made once more. It carries the environment, secrets included: it is kept in files that only their
/// owner reads, and never logged, journaled or made a label.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Twin {
    /// The format.
    pub version: u32,
    /// The id of the container.
    pub id: String,
    /// The id of the one that this one was the twin of already; else its own.
    pub of: String,
    /// Its image, as it was created from it.
    pub image: String,
    /// The id of that.
    pub image_id: String,
    /// The restart policy that it has once it is proven.
    pub restart: RestartPolicy,
    /// The body of the create, with the network that it begins on.
    body: Map<String, Value>,
    /// Networks that are joined after the create, with their settings.
    joins_later: Vec<(String, Value)>,
}

impl std::fmt::Debug for Twin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Twin({} of {})", self.digest().short(), self.id)
    }
}

impl Twin {
    /// The twin of a container that was inspected. `restart` is the policy that it was declared with.
    pub fn of(container: &Container, restart: RestartPolicy) -> Self {
        let object = |pointer: &str| container.raw.pointer(pointer).and_then(Value::as_object).cloned();
        let mut body = object("/Config").unwrap_or_default();
        let mut host = object("/HostConfig").unwrap_or_default();
        for key in NOT_ASKED {
            host.remove(key);
        }
        host.insert("RestartPolicy".to_owned(), json!({"Name": "no", "MaximumRetryCount": 0}));
        name_volumes(&mut host, &container.raw["Mounts"]);
        if let Some(Value::Array(links)) = host.get_mut("Links") {
            for link in links {
                *link = as_asked(link);
            }
        }
        if body.get("Hostname").and_then(Value::as_str) == container.id.get(..12) {
            // Nobody asked for it, and the twin has an id of its own.
            body.remove("Hostname");
        }
        let mode = host.get("NetworkMode").and_then(Value::as_str).unwrap_or_default().to_owned();
        if mode.starts_with("container:") {
            // The engine refuses what the other container decides.
            for key in ["Hostname", "Domainname", "MacAddress", "ExposedPorts"] {
                body.remove(key);
            }
        }
        let networks = object("/NetworkSettings/Networks").unwrap_or_default();
        let (first, joins_later) = endpoints(networks, &mode, &container.id);
        if let Some((name, settings)) = first {
            body.insert("NetworkingConfig".to_owned(), json!({"EndpointsConfig": {name: settings}}));
        }
        body.insert("Image".to_owned(), json!(container.image_id));
        body.insert("Labels".to_owned(), json!(container.labels));
        body.insert("HostConfig".to_owned(), Value::Object(host));
        Self {
            version: VERSION,
            id: container.id.clone(),
            of: container.labels.get(LABEL_TWIN).unwrap_or(&container.id).clone(),
            image: container.image.clone(),
            image_id: container.image_id.clone(),
            restart,
            body,
            joins_later,
        }
    }

    /// With a variable set to a value, wherever it is in the environment.
    pub fn set_variable(&mut self, name: &str, value: &str) {
        let entry = |text: &str| text.split_once('=').map_or(text, |(name, _)| name).to_owned();
        if let Some(Value::Array(entries)) = self.body.get_mut("Env") {
            for one in entries.iter_mut().filter(|one| one.as_str().map(entry).as_deref() == Some(name)) {
                *one = json!(format!("{name}={value}"));
            }
        }
    }

    /// Without the labels that begin with `prefix`.
    pub fn take_labels(&mut self, prefix: &str) {
        if let Some(Value::Object(labels)) = self.body.get_mut("Labels") {
            labels.retain(|key, _| !key.starts_with(prefix));
        }
    }

    /// What it is made from: all of it but the labels that differ from deploy to deploy.
    pub fn digest(&self) -> Digest {
        let body = CreateBody(self.body.clone()).spec_hash();
        Digest::of(format!("{body} {} {}", self.image_id, json!(self.joins_later)))
    }

    /// A label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.body.get("Labels")?.get(key)?.as_str()
    }

    /// The service that it was.
    pub fn service(&self) -> Option<&str> {
        self.label(LABEL_SERVICE)
    }

    /// The deploy that made it; none of what somebody else made.
    pub fn made_by(&self) -> Option<&str> {
        self.label(LABEL_DEPLOY)
    }

    /// `Config` of it, in the engine's words, as far as a start is concerned.
    pub fn config(&self) -> Value {
        json!({"Entrypoint": self.body.get("Entrypoint")})
    }

    /// The networks that are joined after the create.
    pub fn joins_later(&self) -> &[(String, Value)] {
        &self.joins_later
    }

    /// The networks that it is joined to, by name or id.
    pub fn networks(&self) -> Vec<String> {
        let first =
            self.body.get("NetworkingConfig").and_then(|config| config["EndpointsConfig"].as_object());
        let first = first.into_iter().flat_map(|endpoints| endpoints.keys().cloned());
        first.chain(self.joins_later.iter().map(|(name, _)| name.clone())).collect()
    }

    /// The volumes that it mounts, by name.
    pub fn volumes(&self) -> Vec<String> {
        let host = &self.body.get("HostConfig").cloned().unwrap_or_default();
        let list = |key: &str| host[key].as_array().cloned().unwrap_or_default();
        let binds = list("Binds").into_iter().filter_map(|bind| {
            let (source, _) = bind.as_str()?.split_once(':')?;
            (!source.starts_with(['/', '.', '~'])).then(|| source.to_owned())
        });
        let mounts = list("Mounts").into_iter().filter_map(|mount| {
            let source = mount["Source"].as_str().filter(|source| !source.is_empty())?;
            (mount["Type"] == "volume").then(|| source.to_owned())
        });
        binds.chain(mounts).collect()
    }

    /// The body of the create, with these labels beside its own; one without a value is taken away.
    pub fn body(&self, labels: &[(&str, Option<String>)]) -> CreateBody {
        let mut body = self.body.clone();
        if let Some(Value::Object(own)) = body.get_mut("Labels") {
            own.insert(LABEL_TWIN.to_owned(), json!(self.of));
            for (key, value) in labels {
                match value {
                    Some(value) => own.insert((*key).to_owned(), json!(value)),
                    None => own.remove(*key),
                };
            }
        }
        CreateBody(body)
    }
}

/// Gives the volumes that the engine named by itself their names: the twin would begin with empty ones.
fn name_volumes(host: &mut Map<String, Value>, shown: &Value) {
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let mut named: BTreeSet<String> = BTreeSet::new();
    for bind in host.get("Binds").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        named.extend(bind.split(':').nth(1).map(clean));
    }
    let shown = shown.as_array().map(Vec::as_slice).unwrap_or_default();
    let volumes = || shown.iter().filter(|mount| text(mount, "Type") == "volume");
    if let Some(Value::Array(mounts)) = host.get_mut("Mounts") {
        for mount in mounts {
            let target = clean(&text(mount, "Target"));
            let name = volumes().find(|one| clean(&text(one, "Destination")) == target);
            if let Some(one) =
                name.filter(|_| text(mount, "Type") == "volume" && text(mount, "Source").is_empty())
            {
                mount["Source"] = one["Name"].clone();
            }
            named.insert(target);
        }
    }
    let mut binds: Vec<String> = volumes()
        .filter(|one| !named.contains(&clean(&text(one, "Destination"))))
        .map(|one| {
            let mode = if one["RW"] == Value::Bool(false) { ":ro" } else { "" };
            format!("{}:{}{mode}", text(one, "Name"), text(one, "Destination"))
        })
        .collect();
    if binds.is_empty() {
        return;
    }
    // The engine shows them in any order.
    binds.sort();
    let own = host.entry("Binds").or_insert(Value::Null);
    let mut all = own.as_array().cloned().unwrap_or_default();
    all.extend(binds.into_iter().map(Value::from));
    *own = Value::Array(all);
}

/// `/db:/web/database`, as the engine shows a link, as `db:database`.
pub(super) fn as_asked(link: &Value) -> Value {
    let Some((from, to)) = link.as_str().and_then(|text| text.split_once(':')) else { return link.clone() };
    let last = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
    json!(format!("{}:{}", last(from), last(to)))
}

type Endpoint = (String, Value);

/// The network that the container begins on, and the others: an engine below API 1.44 takes one at create.
fn endpoints(networks: Map<String, Value>, mode: &str, id: &str) -> (Option<Endpoint>, Vec<Endpoint>) {
    if matches!(mode, "host" | "none") || mode.starts_with("container:") {
        return (None, Vec::new());
    }
    let is_first = |name: &str, shown: &Value| match mode {
        "" | "default" => name == "bridge",
        mode => name == mode || shown["NetworkID"].as_str() == Some(mode),
    };
    let (mut first, mut later) = (None, Vec::new());
    for (name, shown) in networks {
        let settings = settings(&shown, id);
        if first.is_none() && is_first(&name, &shown) {
            // Mode and key must both be names or both be ids.
            let called = if shown["NetworkID"].as_str() == Some(mode) { mode.to_owned() } else { name };
            first = Some((called, settings));
        } else {
            later.push((name, settings));
        }
    }
    (first, later)
}

/// What was asked for of an endpoint: not what the engine chose.
fn settings(shown: &Value, id: &str) -> Value {
    let mut settings = Map::new();
    for key in ["IPAMConfig", "Links", "Aliases", "DriverOpts", "GwPriority"] {
        let value = match (key, &shown[key]) {
            (_, Value::Null) => continue,
            // Older engines add it by themselves.
            ("Aliases", Value::Array(aliases)) => {
                let own = |alias: &&Value| alias.as_str().is_none_or(|alias| Some(alias) != id.get(..12));
                Value::Array(aliases.iter().filter(own).cloned().collect())
            }
            ("Links", Value::Array(links)) => Value::Array(links.iter().map(as_asked).collect()),
            (_, value) => value.clone(),
        };
        settings.insert(key.to_owned(), value);
    }
    if let Some(address) = shown["MacAddress"].as_str().filter(|address| !is_derived(address, shown)) {
        settings.insert("MacAddress".to_owned(), json!(address));
    }
    Value::Object(settings)
}

/// True for the address that a bridge makes of the container's IPv4 address, `02:42:` and its four bytes; and where there is none.
pub(super) fn is_derived(mac: &str, shown: &Value) -> bool {
    let address = shown["IPAddress"].as_str().and_then(|text| text.parse::<std::net::Ipv4Addr>().ok());
    let of = |address: std::net::Ipv4Addr| {
        let [a, b, c, d] = address.octets();
        format!("02:42:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
    };
    mac.is_empty() || address.is_some_and(|address| of(address) == mac.to_lowercase())
}
