//! What the fake engine holds, and the real engine's rules about it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::time::Instant;

use tarsup::engine::{
    Container, CreateBody, EngineError, EngineImage, Environment, Health, Network, RestartPolicy, Result,
    Status,
};
use tarsup::oci::Digest;

use super::attach::Attachment;
use super::behaviour::Behaviour;
use super::disk::Volume;
use super::template::Template;

/// One container.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub id: String,
    pub name: String,
    pub body: CreateBody,
    /// Network name → endpoint configuration.
    pub endpoints: BTreeMap<String, Value>,
    /// Network name → address, while it runs.
    pub addresses: BTreeMap<String, String>,
    pub image_id: String,
    pub status: Status,
    pub exit_code: i64,
    pub error: String,
    pub restart: RestartPolicy,
    pub restart_count: u64,
    pub started: Option<Instant>,
    /// How often it was started.
    pub starts: u64,
    /// Which of all starts its last one was.
    begun: u64,
    /// When a stop that is under way ends, and with which exit code.
    pub stopping: Option<(Instant, i64)>,
    /// Files of its own: those below a volume's path lie in the volume.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Path → volume.
    pub mounts: BTreeMap<String, String>,
    pub log: Vec<String>,
    /// Who is attached to it.
    pub attachment: Option<Attachment>,
}

/// The keys of `HostConfig` by which a container may have a namespace of another one.
const SHARED: [&str; 3] = ["NetworkMode", "IpcMode", "PidMode"];

/// Everything the engine holds.
#[derive(Clone, Debug, Default)]
pub(super) struct World {
    pub containers: BTreeMap<String, Held>,
    pub images: BTreeMap<String, EngineImage>,
    /// What the local store has, by reference.
    pub shelf: BTreeMap<String, EngineImage>,
    /// Familiar reference → image id.
    pub tags: BTreeMap<String, String>,
    pub networks: BTreeMap<String, Network>,
    pub volumes: BTreeMap<String, Volume>,
    /// Image id → behaviour.
    pub behaviours: BTreeMap<String, Behaviour>,
    /// Container name → behaviour, before that of its image.
    pub named: BTreeMap<String, Behaviour>,
    pub counter: u64,
    /// True where containerd keeps its images.
    pub containerd: bool,
    /// What the database that the containers share knows: node → when it registered last, in seconds of its clock.
    pub nodes: BTreeMap<String, u64>,
    /// How often a heartbeat was asked for.
    pub heartbeats: u64,
    pub execs: Vec<(String, super::tools::Exec)>,
    /// Set where the database cannot be asked.
    pub database_is_away: bool,
    /// Set where it holds no TARS.
    pub database_is_empty: bool,
    /// What somebody stopped or drained, as `tars-init cluster` says it.
    pub stopped: Vec<Value>,
    /// For how many bytes its disk has room.
    pub room: Option<u64>,
    /// The only template of the database.
    pub template: Template,
    /// For how many bytes that of the local store has.
    pub store_room: Option<u64>,
    /// Whose clock differs: seconds ahead, and its zone.
    pub clocks: BTreeMap<String, (i64, String)>,
    /// More of what `tars-init cluster --facts` says.
    pub facts: Map<String, Value>,
    /// The nodes on which something is drained.
    pub drained: BTreeSet<String>,
    /// Container → who calls what serves in it, and until when.
    pub callers: BTreeMap<String, (String, Instant)>,
    /// Container → who is connected to the registry in it.
    pub linked: BTreeMap<String, Vec<String>>,
    /// The time that it has been brought up to.
    pub now: Option<Instant>,
}

pub(super) fn answered(call: &str, status: u16, message: impl Into<String>) -> EngineError {
    EngineError::Answered { call: call.to_owned(), status, message: message.into() }
}

pub(super) fn not_found(call: &str, message: impl Into<String>) -> EngineError {
    EngineError::NotFound { call: call.to_owned(), message: message.into() }
}

pub(super) fn conflict(call: &str, message: impl Into<String>) -> EngineError {
    EngineError::Conflict { call: call.to_owned(), message: message.into() }
}

fn object(value: Option<&Value>) -> Map<String, Value> {
    value.and_then(Value::as_object).cloned().unwrap_or_default()
}

fn static_address(endpoint: &Value) -> Option<String> {
    endpoint.pointer("/IPAMConfig/IPv4Address")?.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

/// How many starts there have been, of all engines: what begins later is told to have begun later.
static BEGUN: AtomicU64 = AtomicU64::new(1);

impl Held {
    pub fn begin(&mut self, at: Instant) {
        self.started = Some(at);
        self.starts += 1;
        self.begun = BEGUN.fetch_add(1, Ordering::Relaxed);
    }

    /// `State.StartedAt`: a later one after each start, of whichever container.
    fn started_at(&self) -> String {
        self.started.map(|_| format!("2026-01-02T03:04:05.{:09}Z", self.begun)).unwrap_or_default()
    }

    /// Host ports that it claims at start, as `port/protocol`.
    fn host_ports(&self) -> BTreeSet<String> {
        let bindings = object(self.body.0.get("HostConfig").and_then(|host| host.get("PortBindings")));
        let mut ports = BTreeSet::new();
        for (container_port, hosts) in &bindings {
            let protocol = container_port.split_once('/').map_or("tcp", |(_, protocol)| protocol);
            for host in hosts.as_array().into_iter().flatten() {
                if let Some(port) = host.get("HostPort").and_then(Value::as_str) {
                    ports.insert(format!("{port}/{protocol}"));
                }
            }
        }
        ports
    }

    pub fn is_up(&self) -> bool {
        matches!(self.status, Status::Running | Status::Paused | Status::Restarting)
    }

    /// The name by which the database knows it: that of its service.
    pub fn node(&self) -> Option<String> {
        let labels = self.body.0.get("Labels")?;
        // One that nobody of ours made.
        if let Some(node) = labels.get("test.node").filter(|_| labels.get("io.tarsup.role").is_none()) {
            return node.as_str().map(str::to_owned);
        }
        labels.get("io.tarsup.role")?;
        labels.get("io.tarsup.service").and_then(Value::as_str).map(str::to_owned)
    }

    /// True where it only waits, for the database to be asked in it.
    fn only_answers(&self) -> bool {
        self.body.0.get("Labels").is_some_and(|labels| labels.get("io.tarsup.cluster").is_some())
    }

    /// True where it is the actor that says what it hears.
    fn hears(&self) -> bool {
        self.body.0.get("Cmd").and_then(|words| words.get(0)).is_some_and(|word| word == "hear")
    }

    /// True where it was created to run `tars-init migrate`.
    fn migrates(&self) -> bool {
        self.is_to_run("migrate")
    }

    /// True where it was created to run `tars-init keep-columns`.
    fn keeps(&self) -> bool {
        self.is_to_run("keep-columns")
    }

    fn is_to_run(&self, what: &str) -> bool {
        let entrypoint = self.body.0.get("Entrypoint").and_then(Value::as_array);
        entrypoint.is_some_and(|words| words.iter().any(|word| word == what))
    }
}

impl World {
    pub fn next_id(&mut self) -> String {
        self.counter += 1;
        Digest::of(format!("container {}", self.counter)).hex()
    }

    /// The container of that id, id prefix (twelve digits and more) or name.
    pub fn find(&self, call: &str, container: &str) -> Result<String> {
        let by_name = self.containers.values().find(|held| held.name == container);
        let by_id = || {
            let fits = |held: &&Held| container.len() >= 12 && held.id.starts_with(container);
            self.containers.values().find(fits)
        };
        match by_name.or_else(by_id) {
            Some(held) => Ok(held.id.clone()),
            None => Err(not_found(call, format!("No such container: {container}"))),
        }
    }

    pub fn get(&mut self, call: &str, container: &str) -> Result<&mut Held> {
        let id = self.find(call, container)?;
        self.containers.get_mut(&id).ok_or_else(|| not_found(call, format!("No such container: {container}")))
    }

    pub fn image_id(&self, image: &str) -> Option<String> {
        if self.images.contains_key(image) {
            return Some(image.to_owned());
        }
        let familiar = image.parse::<tarsup::oci::Reference>().map(|reference| reference.to_string());
        familiar.ok().and_then(|familiar| self.tags.get(&familiar).cloned())
    }

    pub fn behaviour(&self, held: &Held) -> Behaviour {
        let named = self.named.get(&held.id).or_else(|| self.named.get(&held.name));
        named.or_else(|| self.behaviours.get(&held.image_id)).cloned().unwrap_or_default()
    }

    /// The time of this state.
    pub fn now(&self) -> Instant {
        self.now.unwrap_or_else(Instant::now)
    }

    /// Gives an image a tag, and takes it from any other.
    pub fn tag(&mut self, reference: &str, image: EngineImage) {
        for other in self.images.values_mut() {
            other.tags.retain(|tag| tag != reference);
        }
        self.tags.insert(reference.to_owned(), image.id.clone());
        let held = self.images.entry(image.id.clone()).or_insert(image);
        if !held.tags.iter().any(|tag| tag == reference) {
            held.tags.push(reference.to_owned());
        }
    }

    /// Ends the stops that should have ended by now, lets the containers die that should have died, and their restart
    /// policies act.
    pub fn settle(&mut self, now: Instant) {
        self.now = Some(now);
        for held in self.containers.values_mut() {
            if let Some((_, code)) = held.stopping.filter(|(until, _)| now >= *until) {
                held.stopping = None;
                held.status = Status::Exited;
                held.exit_code = code;
                held.addresses.clear();
                held.log.push("stopped".to_owned());
                held.attachment = None;
            }
        }
        let ids: Vec<String> = self.containers.keys().cloned().collect();
        for id in ids {
            let Some(held) = self.containers.get(&id) else { continue };
            let behaviour = self.behaviour(held);
            let runs = held.status == Status::Running && held.stopping.is_none();
            let Some(started) = held.started.filter(|_| runs) else { continue };
            let (migrates, keeps, hears) = (held.migrates(), held.keeps(), held.hears());
            let Some(held) = self.containers.get_mut(&id) else { continue };
            let ends = held.attachment.as_mut().and_then(|attachment| {
                if migrates {
                    attachment.migrate(&behaviour, now);
                } else if keeps {
                    attachment.keep(&behaviour, now);
                } else if hears {
                    attachment.act(now);
                }
                attachment.ends
            });
            let death = if migrates || keeps || hears {
                ends.map(|(at, code)| (at.saturating_duration_since(started), code))
            } else if held.only_answers() {
                None
            } else {
                behaviour.dies
            };
            let takes = behaviour.takes_database.is_some_and(|after| now >= started + after);
            self.database_is_away |= takes && held.node().is_some();
            let Some((after, code)) = death.filter(|(after, _)| now >= started + *after) else { continue };
            let Some(held) = self.containers.get_mut(&id) else { continue };
            held.exit_code = code;
            let is_done = migrates && code == 0;
            if is_done {
                self.template.bring(&behaviour);
            }
            if let Some(attachment) = held.attachment.take().filter(|_| is_done) {
                attachment.finish(&behaviour);
            }
            held.log.push(format!("exited with {code}"));
            let again = match held.restart.name.as_str() {
                "always" | "unless-stopped" => true,
                "on-failure" => code != 0,
                _ => false,
            };
            if again {
                held.restart_count += 1;
                held.begin(started + after);
            } else {
                held.status = Status::Exited;
                held.addresses.clear();
            }
        }
        self.end_with_their_processes();
    }

    /// Whose processes are in another container ends with those of that one.
    fn end_with_their_processes(&mut self) {
        let up: BTreeSet<String> =
            self.containers.values().filter(|held| held.is_up()).map(|held| held.id.clone()).collect();
        for held in self.containers.values_mut().filter(|held| held.is_up()) {
            let mode =
                held.body.0.get("HostConfig").and_then(|host| host.get("PidMode")).and_then(Value::as_str);
            let on = mode.and_then(|mode| mode.strip_prefix("container:"));
            if on.is_some_and(|on| !up.contains(on)) {
                held.status = Status::Exited;
                held.exit_code = 137;
                held.addresses.clear();
            }
        }
    }

    pub fn create(&mut self, call: &str, name: &str, body: &CreateBody) -> Result<String> {
        let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if name.len() < 2
            || !name.starts_with(|c: char| c.is_ascii_alphanumeric())
            || !name.chars().all(valid)
        {
            return Err(answered(call, 400, format!("Invalid container name ({name})")));
        }
        let image = body.0.get("Image").and_then(Value::as_str).unwrap_or_default();
        let Some(image_id) = self.image_id(image) else {
            return Err(not_found(call, format!("No such image: {image}")));
        };
        if let Some(held) = self.containers.values().find(|held| held.name == name) {
            let message = format!(
                "Conflict. The container name \"/{name}\" is already in use by container \"{}\".",
                held.id
            );
            return Err(conflict(call, message));
        }
        let config = self.images[&image_id].raw.get("Config").cloned().unwrap_or_default();
        let given = |key: &str| {
            let filled = |value: Option<&Value>| {
                value.and_then(Value::as_array).is_some_and(|words| !words.is_empty())
            };
            filled(body.0.get(key)) || filled(config.get(key))
        };
        if !given("Entrypoint") && !given("Cmd") {
            return Err(answered(call, 400, "No command specified"));
        }
        let mut endpoints: BTreeMap<String, Value> =
            object(body.0.get("NetworkingConfig").and_then(|config| config.get("EndpointsConfig")))
                .into_iter()
                .collect();
        if endpoints.len() > 1 && !self.containerd {
            return Err(answered(call, 400, "Container cannot be connected to network endpoints"));
        }
        let mode = body.0.get("HostConfig").and_then(|host| host.get("NetworkMode")).and_then(Value::as_str);
        if endpoints.is_empty() {
            match mode {
                None | Some("default") => endpoints.insert("bridge".to_owned(), json!({})),
                Some("none" | "host") => None,
                Some(other) if other.starts_with("container:") => None,
                Some(network) => endpoints.insert(network.to_owned(), json!({})),
            };
        }
        let restart = body.0.get("HostConfig").and_then(|host| host.get("RestartPolicy"));
        let restart = RestartPolicy {
            name: restart
                .and_then(|policy| policy.get("Name"))
                .and_then(Value::as_str)
                .filter(|name| !name.is_empty())
                .unwrap_or("no")
                .to_owned(),
            maximum_retry_count: restart
                .and_then(|policy| policy.get("MaximumRetryCount"))
                .and_then(Value::as_u64)
                .and_then(|count| u32::try_from(count).ok())
                .unwrap_or(0),
        };
        // Another container is kept by its id, however it was named.
        let mut body = body.clone();
        for key in SHARED {
            let host = body.0.get_mut("HostConfig").and_then(Value::as_object_mut);
            let Some(mode) = host.and_then(|host| host.get_mut(key)) else { continue };
            if let Some(other) = mode.as_str().and_then(|mode| mode.strip_prefix("container:")) {
                *mode = format!("container:{}", self.find(call, other)?).into();
            }
        }
        let body = &body;
        let mounts = self.mount(body, &config);
        let id = self.next_id();
        let held = Held {
            id: id.clone(),
            name: name.to_owned(),
            body: body.clone(),
            endpoints,
            addresses: BTreeMap::new(),
            image_id,
            status: Status::Created,
            exit_code: 0,
            error: String::new(),
            restart,
            restart_count: 0,
            started: None,
            starts: 0,
            begun: 0,
            stopping: None,
            files: BTreeMap::new(),
            mounts,
            log: Vec::new(),
            attachment: None,
        };
        self.containers.insert(id.clone(), held);
        Ok(id)
    }

    pub fn start(&mut self, call: &str, container: &str, now: Instant) -> Result<()> {
        let id = self.find(call, container)?;
        let held = self.containers[&id].clone();
        if held.is_up() {
            return Ok(());
        }
        let claimed = self.joins(call, &held).and_then(|()| self.claim(call, &held));
        let name = held.name;
        let Some(held) = self.containers.get_mut(&id) else {
            return Err(not_found(call, format!("No such container: {name}")));
        };
        match claimed {
            Ok(addresses) => {
                held.addresses = addresses;
                held.status = Status::Running;
                held.error.clear();
                held.exit_code = 0;
                held.restart_count = 0;
                held.begin(now);
                held.log.push("started".to_owned());
                self.register(&id);
                self.bring(&id);
                Ok(())
            }
            // The container stays as it was: `created`, or `exited`.
            Err(error) => {
                held.error = error.to_string();
                Err(error)
            }
        }
    }

    /// A container whose network, memory or processes are another one's starts only while that runs.
    fn joins(&self, call: &str, held: &Held) -> Result<()> {
        let host = object(held.body.0.get("HostConfig"));
        for key in SHARED {
            let Some(other) = host.get(key).and_then(Value::as_str) else { continue };
            let Some(other) = other.strip_prefix("container:") else { continue };
            if !self.containers.get(other).is_some_and(Held::is_up) {
                let message =
                    format!("can't join {key} of container {other}: container {other} is not running");
                return Err(conflict(call, message));
            }
        }
        Ok(())
    }

    /// What the start of a master brings into the template.
    fn bring(&mut self, id: &str) {
        let held = &self.containers[id];
        let behaviour = self.behaviour(held);
        let env = held.body.0.get("Env").and_then(Value::as_array).into_iter().flatten();
        let is_master = env.filter_map(Value::as_str).any(|word| word == "SLAVE=false");
        let serves = !held.only_answers() && !held.migrates() && !held.keeps();
        if is_master && serves && behaviour.has_init && !self.database_is_away {
            self.template.bring(&behaviour);
        }
    }

    /// What a container's tarsnode writes into the database: each registration has a time of its own.
    fn register(&mut self, id: &str) {
        let held = &self.containers[id];
        let registers = self.behaviour(held).registers && !self.database_is_away;
        let Some(node) = held.node().filter(|_| registers) else { return };
        // A container of ours says its name itself; one of upstream's is known by its address.
        let names: Vec<String> = held.addresses.values().cloned().chain([node]).collect();
        let newest = self.nodes.values().max().copied().unwrap_or_default();
        self.nodes.extend(names.into_iter().map(|name| (name, newest + 1)));
    }

    /// The addresses that a start of `held` gets, if nobody has its addresses and host ports.
    fn claim(&self, call: &str, held: &Held) -> Result<BTreeMap<String, String>> {
        let others = || self.containers.values().filter(|other| other.id != held.id && other.is_up());
        let mut addresses = BTreeMap::new();
        for (name, endpoint) in &held.endpoints {
            let network = self.network(name);
            if network.is_none() && name != "bridge" {
                return Err(not_found(call, format!("network {name} not found")));
            }
            let taken: BTreeSet<&String> = others().filter_map(|other| other.addresses.get(name)).collect();
            let address = match static_address(endpoint) {
                Some(address) if taken.contains(&address) => {
                    return Err(answered(call, 403, "Address already in use"));
                }
                Some(address) => address,
                None => free_address(network.and_then(|network| network.subnets.first()), &taken),
            };
            addresses.insert(name.clone(), address);
        }
        let ports = held.host_ports();
        for other in others() {
            if let Some(port) = other.host_ports().intersection(&ports).next() {
                let port = port.split('/').next().unwrap_or_default();
                let message = format!(
                    "driver failed programming external connectivity on endpoint {}: Bind for 0.0.0.0:{port} \
                     failed: port is already allocated",
                    held.name
                );
                return Err(answered(call, 500, message));
            }
        }
        Ok(addresses)
    }

    /// How far a clock is ahead, and its zone.
    pub fn clock(&self, of: &str) -> (i64, String) {
        self.clocks.get(of).cloned().unwrap_or_else(|| (0, "+0000".to_owned()))
    }

    pub fn network(&self, name: &str) -> Option<&Network> {
        self.networks.values().find(|network| network.name == name || network.id == name)
    }

    /// Begins to stop it, or joins the stop that is under way; when it will have stopped.
    pub fn stop(&mut self, call: &str, container: &str, grace: Duration) -> Result<Option<Instant>> {
        let now = self.now();
        let id = self.find(call, container)?;
        let takes = self.behaviour(&self.containers[&id]).stops_after;
        let held = self.get(call, &id)?;
        if held.is_up() && held.stopping.is_none() {
            let code = if takes > grace { 137 } else { 0 };
            held.stopping = Some((now + takes.min(grace), code));
        }
        let until = held.stopping.map(|(until, _)| until);
        self.settle(now);
        Ok(until.filter(|until| *until > now))
    }

    pub fn rename(&mut self, call: &str, container: &str, name: &str) -> Result<()> {
        let id = self.find(call, container)?;
        if self.containers[&id].name == name {
            return Err(answered(call, 400, "Renaming a container with the same name as its current name"));
        }
        if self.containers.values().any(|held| held.name == name) {
            return Err(conflict(
                call,
                format!("Conflict. The container name \"/{name}\" is already in use"),
            ));
        }
        name.clone_into(&mut self.get(call, &id)?.name);
        Ok(())
    }

    pub fn remove(&mut self, call: &str, container: &str) -> Result<()> {
        let id = self.find(call, container)?;
        if self.containers[&id].is_up() {
            return Err(conflict(call, format!("You cannot remove a running container {id}.")));
        }
        self.containers.remove(&id);
        Ok(())
    }

    pub fn connect(&mut self, call: &str, network: &str, container: &str, endpoint: &Value) -> Result<()> {
        let Some(name) = self.network(network).map(|network| network.name.clone()) else {
            return Err(not_found(call, format!("network {network} not found")));
        };
        let held = self.get(call, container)?;
        if held.endpoints.contains_key(&name) {
            let message = format!("endpoint with name {} already exists in network {name}", held.name);
            return Err(answered(call, 403, message));
        }
        held.endpoints.insert(name, endpoint.clone());
        Ok(())
    }

    /// The health of the container's own check, where its image has one.
    pub fn health(&self, held: &Held, now: Instant) -> Option<Health> {
        let behaviour = self.behaviour(held);
        if !behaviour.health_check || held.started.is_none() {
            return None;
        }
        Some(if self.is_healthy(held, now) { Health::Healthy } else { Health::Starting })
    }

    pub fn is_healthy(&self, held: &Held, now: Instant) -> bool {
        let after = self.behaviour(held).healthy_after;
        held.is_up() && held.started.zip(after).is_some_and(|(started, after)| now >= started + after)
    }

    /// The container as `GET /containers/{id}/json` shows it.
    pub fn shown(&self, held: &Held, now: Instant) -> Container {
        let image = self.images.get(&held.image_id);
        let own = |key: &str| held.body.0.get(key).cloned().unwrap_or_default();
        let strings = |value: &Value| -> Vec<String> {
            value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let mut env = strings(&own("Env"));
        let names: BTreeSet<String> = env.iter().map(|entry| env_name(entry).to_owned()).collect();
        env.extend(
            image
                .into_iter()
                .flat_map(|image| image.env.expose())
                .filter(|entry| !names.contains(env_name(entry))),
        );
        let mut labels = image.map(|image| image.labels.clone()).unwrap_or_default();
        labels.extend(
            object(held.body.0.get("Labels"))
                .into_iter()
                .filter_map(|(key, value)| Some((key, value.as_str()?.to_owned()))),
        );
        let networks: Map<String, Value> = held
            .endpoints
            .iter()
            .map(|(name, endpoint)| {
                let mut endpoint = object(Some(endpoint));
                let address = held.addresses.get(name).cloned().unwrap_or_default();
                endpoint.insert("IPAddress".to_owned(), address.into());
                (name.clone(), Value::Object(endpoint))
            })
            .collect();
        let mut config = held.body.0.clone();
        let host = config.remove("HostConfig").unwrap_or_else(|| json!({}));
        config.remove("NetworkingConfig");
        if let Some(start) = image.and_then(|image| image.raw.pointer("/Config/Entrypoint")) {
            config.entry("Entrypoint").or_insert_with(|| start.clone());
        }
        config.insert("Env".to_owned(), json!(env));
        config.insert("Labels".to_owned(), json!(labels));
        let health = self.health(held, now);
        Container {
            id: held.id.clone(),
            name: held.name.clone(),
            labels,
            image: own("Image").as_str().unwrap_or_default().to_owned(),
            image_id: held.image_id.clone(),
            status: held.status,
            health,
            exit_code: held.exit_code,
            error: held.error.clone(),
            restart_count: held.restart_count,
            started_at: held.started_at(),
            restart: held.restart.clone(),
            env: Environment::of(&env),
            addresses: held
                .endpoints
                .keys()
                .map(|name| (name.clone(), held.addresses.get(name).cloned().unwrap_or_default()))
                .collect(),
            raw: json!({
                "Mounts": held.mounts.iter().map(|(path, volume)| json!({
                    "Type": "volume", "Name": volume, "Destination": path, "RW": true,
                })).collect::<Vec<_>>(),
                "Id": held.id,
                "Name": format!("/{}", held.name),
                "Image": held.image_id,
                "Config": config,
                "HostConfig": host,
                "NetworkSettings": {"Networks": networks},
                "State": {"Status": held.status, "ExitCode": held.exit_code, "Error": held.error},
            }),
        }
    }
}

/// The name in `NAME=value`.
fn env_name(entry: &str) -> &str {
    entry.split_once('=').map_or(entry, |(name, _)| name)
}

/// The lowest free address of a subnet, from `.2` on, as the engine's own IPAM gives them.
fn free_address(subnet: Option<&String>, taken: &BTreeSet<&String>) -> String {
    let subnet = subnet.map_or("172.17.0.0/16", String::as_str);
    let prefix = subnet.rsplit_once('.').map_or("172.17.0", |(prefix, _)| prefix);
    (2..=254)
        .map(|last| format!("{prefix}.{last}"))
        .find(|address| !taken.contains(address))
        .unwrap_or_else(|| format!("{prefix}.254"))
}
