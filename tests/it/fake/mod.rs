//! A Docker engine in memory, for tests of what calls an engine: the real one's rules, and faults at will.
//!
//! Names are unique and atomic; addresses and host ports are claimed at start, not at create; a start that fails
//! leaves the container as it was. Time is tokio's, so that a test can pause it. [`FakeEngine::fault`] makes a call
//! fail or never return, before or after its effect; [`FakeEngine::dump`] is the state as text.

mod world;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::Instant;

use tarsup::engine::{
    ByteStream, Container, CreateBody, Engine, EngineError, EngineImage, EngineInfo, ExecOutput, ImageStore,
    Network, RestartPolicy, Result, Status,
};
use tarsup::oci::Digest;
pub use world::Behaviour;
use world::{World, not_found};

/// When a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Before the call has an effect.
    Before,
    /// After it had its effect, before its answer arrives.
    After,
}

/// What a fault does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The call never returns, and [`FakeEngine::crashed`] does: the caller is to be dropped, as `kill -9` would.
    Crash,
    /// The connection breaks.
    Lost,
    /// The engine answers with this status and message.
    Answer(u16, String),
}

/// Which call a fault strikes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// The n-th call from now, counted from 0.
    Nth(usize),
    /// The first call that begins with this text, such as `start tars-slave`.
    First(String),
    /// Every call that begins with this text.
    Every(String),
}

/// The engine.
#[derive(Debug, Default)]
pub struct FakeEngine {
    world: Mutex<World>,
    faults: Mutex<Vec<(Call, Moment, Fault)>>,
    calls: Mutex<Vec<String>>,
    crashed: Notify,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FakeEngine {
    /// An empty engine.
    pub fn new() -> Self {
        Self::default()
    }

    /// Another engine in the same state, without its faults and calls.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self { world: Mutex::new(locked(&self.world).clone()), ..Self::default() }
    }

    /// Adds an image, or moves its tag; its id.
    ///
    /// Two images of the same reference and `content` are the same image.
    pub fn add_image(&self, reference: &str, content: &str, env: &[&str]) -> String {
        let id = Digest::of(format!("image {content}")).to_string();
        let env: Vec<String> = env.iter().map(|&entry| entry.to_owned()).collect();
        let image = EngineImage {
            id: id.clone(),
            tags: vec![reference.to_owned()],
            diff_ids: vec![Digest::of(format!("layer {content}"))],
            env: env.clone(),
            labels: BTreeMap::new(),
            size: 1_000_000,
            created: "1970-01-01T00:00:00Z".to_owned(),
            architecture: "amd64".to_owned(),
            raw: json!({"Id": id, "Config": {"Env": env, "Entrypoint": ["/usr/local/bin/tars-init"]}}),
        };
        self.insert_image(reference, image);
        id
    }

    fn insert_image(&self, reference: &str, image: EngineImage) {
        let mut world = locked(&self.world);
        for other in world.images.values_mut() {
            other.tags.retain(|tag| tag != reference);
        }
        world.tags.insert(reference.to_owned(), image.id.clone());
        let id = image.id.clone();
        let held = world.images.entry(id).or_insert(image);
        if !held.tags.iter().any(|tag| tag == reference) {
            held.tags.push(reference.to_owned());
        }
    }

    /// How containers of this image behave from now on.
    pub fn behave(&self, image: &str, behaviour: Behaviour) {
        let mut world = locked(&self.world);
        let id = world.image_id(image).unwrap_or_else(|| image.to_owned());
        world.behaviours.insert(id, behaviour);
    }

    /// How the container of this name behaves from now on, whatever its image.
    pub fn behave_named(&self, container: &str, behaviour: Behaviour) {
        locked(&self.world).named.insert(container.to_owned(), behaviour);
    }

    /// Makes a call fail. A fault on an n-th or first call strikes once.
    pub fn fault(&self, call: Call, moment: Moment, fault: Fault) {
        let call = match call {
            Call::Nth(n) => Call::Nth(locked(&self.calls).len() + n),
            other => other,
        };
        locked(&self.faults).push((call, moment, fault));
    }

    /// Forgets the faults that have not struck.
    pub fn clear_faults(&self) {
        locked(&self.faults).clear();
    }

    /// Returns once a call has crashed.
    pub async fn crashed(&self) {
        self.crashed.notified().await;
    }

    /// The calls so far, such as `create tars-slave.new.20260102T030405Z-0001`.
    pub fn calls(&self) -> Vec<String> {
        locked(&self.calls).clone()
    }

    /// What a reboot of the engine's host leaves: everything stopped, and what its restart policy brings back.
    pub fn reboot(&self) {
        let mut world = locked(&self.world);
        for held in world.containers.values_mut().filter(|held| held.status == Status::Running) {
            if matches!(held.restart.name.as_str(), "always" | "unless-stopped") {
                held.started = Some(Instant::now());
            } else {
                held.status = Status::Exited;
                held.exit_code = 137;
                held.addresses.clear();
            }
        }
        // `always` resurrects even what somebody had stopped.
        for held in world.containers.values_mut().filter(|held| held.status == Status::Exited) {
            if held.restart.name == "always" {
                held.status = Status::Running;
                held.started = Some(Instant::now());
            }
        }
    }

    /// Everything but ids and times, one line a thing, sorted by name.
    pub fn dump(&self) -> String {
        let world = locked(&self.world);
        let mut lines: Vec<String> = Vec::new();
        for held in world.containers.values() {
            let image = world.images.get(&held.image_id).and_then(|image| image.tags.first());
            let mut line = format!(
                "container {} {} restart={} image={}",
                held.name,
                format!("{:?}", held.status).to_lowercase(),
                held.restart.name,
                image.map_or("?", String::as_str),
            );
            for (network, endpoint) in &held.endpoints {
                let fixed = endpoint.pointer("/IPAMConfig/IPv4Address").and_then(Value::as_str);
                let _ = write!(line, " {network}={}", fixed.unwrap_or("any"));
            }
            let binds = held.body.0.get("HostConfig").and_then(|host| host.get("Binds"));
            if let Some(binds) = binds {
                let _ = write!(line, " binds={binds}");
            }
            if let Some(env) = held.body.0.get("Env") {
                let _ = write!(line, " env={env}");
            }
            lines.push(line);
        }
        lines.extend(world.networks.values().map(|network| format!("network {}", network.name)));
        lines.extend(world.volumes.keys().map(|volume| format!("volume {volume}")));
        lines.sort();
        lines.join("\n") + "\n"
    }

    /// Counts the call, and lets a fault strike.
    async fn strike(&self, index: usize, what: &str, moment: Moment) -> Result<()> {
        let fault = {
            let mut faults = locked(&self.faults);
            let fits = |(call, at, _): &(Call, Moment, Fault)| {
                *at == moment
                    && match call {
                        Call::Nth(n) => *n == index,
                        Call::First(text) | Call::Every(text) => what.starts_with(text.as_str()),
                    }
            };
            match faults.iter().position(fits) {
                Some(at) if matches!(faults[at].0, Call::Every(_)) => Some(faults[at].2.clone()),
                Some(at) => Some(faults.remove(at).2),
                None => None,
            }
        };
        let call = what.to_owned();
        match fault {
            None => Ok(()),
            Some(Fault::Crash) => {
                self.crashed.notify_one();
                std::future::pending().await
            }
            Some(Fault::Lost) => Err(EngineError::Lost { call, why: "connection reset by peer".to_owned() }),
            Some(Fault::Answer(status, message)) => Err(match status {
                404 => EngineError::NotFound { call, message },
                409 => EngineError::Conflict { call, message },
                _ => EngineError::Answered { call, status, message },
            }),
        }
    }

    async fn call<T>(
        &self,
        what: String,
        effect: impl FnOnce(&mut World, &str) -> Result<T> + Send,
    ) -> Result<T>
    where
        T: Send,
    {
        let index = {
            let mut calls = locked(&self.calls);
            calls.push(what.clone());
            calls.len() - 1
        };
        self.strike(index, &what, Moment::Before).await?;
        let answer = {
            let mut world = locked(&self.world);
            world.settle(Instant::now());
            effect(&mut world, &what)
        };
        self.strike(index, &what, Moment::After).await?;
        answer
    }
}

#[async_trait]
impl Engine for FakeEngine {
    async fn info(&self) -> Result<EngineInfo> {
        self.call("info".to_owned(), |_, _| {
            Ok(EngineInfo {
                id: "FAKE".to_owned(),
                version: "20.10.24".to_owned(),
                api_version: "1.41".to_owned(),
                architecture: "amd64".to_owned(),
                image_store: ImageStore::Classic,
                data_root: "/var/lib/docker".to_owned(),
            })
        })
        .await
    }

    async fn list_containers(&self, labels: &[String]) -> Result<Vec<Container>> {
        let labels = labels.to_vec();
        self.call("list containers".to_owned(), move |world, _| {
            let now = Instant::now();
            let fits = |container: &Container| {
                labels.iter().all(|label| match label.split_once('=') {
                    Some((key, value)) => {
                        container.labels.get(key).is_some_and(|found| found.as_str() == value)
                    }
                    None => container.labels.contains_key(label),
                })
            };
            Ok(world.containers.values().map(|held| world.shown(held, now)).filter(fits).collect())
        })
        .await
    }

    async fn inspect_container(&self, container: &str) -> Result<Option<Container>> {
        self.call(format!("inspect {container}"), |world, call| {
            let Ok(id) = world.find(call, container) else { return Ok(None) };
            Ok(world.containers.get(&id).map(|held| world.shown(held, Instant::now())))
        })
        .await
    }

    async fn create_container(&self, name: &str, body: &CreateBody) -> Result<String> {
        self.call(format!("create {name}"), |world, call| world.create(call, name, body)).await
    }

    async fn start_container(&self, container: &str) -> Result<()> {
        self.call(format!("start {container}"), |world, call| world.start(call, container, Instant::now()))
            .await
    }

    async fn stop_container(&self, container: &str, _grace: Duration) -> Result<()> {
        self.call(format!("stop {container}"), |world, call| world.stop(call, container)).await
    }

    async fn rename_container(&self, container: &str, name: &str) -> Result<()> {
        self.call(format!("rename {container} {name}"), |world, call| world.rename(call, container, name))
            .await
    }

    async fn update_restart(&self, container: &str, policy: &RestartPolicy) -> Result<()> {
        self.call(format!("update {container} restart={}", policy.name), |world, call| {
            world.get(call, container)?.restart = policy.clone();
            Ok(())
        })
        .await
    }

    async fn remove_container(&self, container: &str) -> Result<()> {
        self.call(format!("remove {container}"), |world, call| world.remove(call, container)).await
    }

    async fn wait_container(&self, container: &str) -> Result<i64> {
        loop {
            let ended = self
                .call(format!("wait {container}"), |world, call| {
                    let held = world.get(call, container)?;
                    Ok((held.status != Status::Running).then_some(held.exit_code))
                })
                .await?;
            match ended {
                Some(code) => return Ok(code),
                None => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    async fn logs(&self, container: &str, tail: u32) -> Result<String> {
        self.call(format!("logs {container}"), |world, call| {
            let log = &world.get(call, container)?.log;
            let skipped = log.len().saturating_sub(tail as usize);
            Ok(log[skipped..].iter().fold(String::new(), |text, line| text + line + "\n"))
        })
        .await
    }

    async fn exec(&self, container: &str, command: &[&str], _timeout: Duration) -> Result<ExecOutput> {
        let command: Vec<String> = command.iter().map(|&word| word.to_owned()).collect();
        self.call(format!("exec {container} {}", command.join(" ")), |world, call| {
            let id = world.find(call, container)?;
            let held = world.containers[&id].clone();
            if held.status != Status::Running {
                return Err(EngineError::Conflict {
                    call: call.to_owned(),
                    message: format!("Container {id} is not running"),
                });
            }
            Ok(match command.iter().map(String::as_str).collect::<Vec<_>>()[..] {
                ["/usr/local/bin/tars-init" | "tars-init", "probe", "--json"] => {
                    probed(world.is_healthy(&held, Instant::now()), &world.behaviour(&held))
                }
                _ => ExecOutput { exit_code: 127, stdout: String::new(), stderr: "not found\n".to_owned() },
            })
        })
        .await
    }

    async fn put_archive(&self, container: &str, path: &str, tar: Vec<u8>) -> Result<()> {
        self.call(format!("put {container} {path}"), |world, call| {
            let files = &mut world.get(call, container)?.files;
            for (name, bytes) in entries(call, &tar)? {
                files.insert(format!("{}/{name}", path.trim_end_matches('/')), bytes);
            }
            Ok(())
        })
        .await
    }

    async fn get_archive(&self, container: &str, path: &str) -> Result<Option<Vec<u8>>> {
        self.call(format!("get {container} {path}"), |world, call| {
            let files = &world.get(call, container)?.files;
            let path = path.trim_end_matches('/');
            let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
            let inside = |name: &str| name == path || name.starts_with(&format!("{path}/"));
            let found: Vec<_> = files.iter().filter(|(name, _)| inside(name)).collect();
            if found.is_empty() {
                return Ok(None);
            }
            let mut tar = tar::Builder::new(Vec::new());
            for (name, bytes) in found {
                let mut header = tar::Header::new_gnu();
                header.set_size(bytes.len() as u64);
                header.set_mode(0o644);
                let relative = name.strip_prefix(parent).unwrap_or(name).trim_start_matches('/');
                tar.append_data(&mut header, relative, bytes.as_slice())
                    .map_err(|error| broken(call, &error))?;
            }
            tar.into_inner().map(Some).map_err(|error| broken(call, &error))
        })
        .await
    }

    async fn connect_network(&self, network: &str, container: &str, endpoint: &Value) -> Result<()> {
        self.call(format!("connect {network} {container}"), |world, call| {
            world.connect(call, network, container, endpoint)
        })
        .await
    }

    async fn list_images(&self) -> Result<Vec<EngineImage>> {
        self.call("list images".to_owned(), |world, _| Ok(world.images.values().cloned().collect())).await
    }

    async fn inspect_image(&self, image: &str) -> Result<Option<EngineImage>> {
        self.call(format!("inspect image {image}"), |world, _| {
            Ok(world.image_id(image).and_then(|id| world.images.get(&id).cloned()))
        })
        .await
    }

    async fn load_image(&self, mut tar: ByteStream) -> Result<Vec<String>> {
        let mut bytes = Vec::new();
        while let Some(piece) = tar.next().await {
            bytes.extend_from_slice(&piece.map_err(|error| broken("load", &error))?);
        }
        self.call("load".to_owned(), |_, _| Ok(())).await?;
        let files: BTreeMap<String, Vec<u8>> = entries("load", &bytes)?.into_iter().collect();
        let file = |name: &str| files.get(name).map(Vec::as_slice).unwrap_or_default();
        let json = |bytes: &[u8]| -> Value { serde_json::from_slice(bytes).unwrap_or_default() };
        let manifest = json(file("manifest.json"));
        let mut messages = Vec::new();
        for one in manifest.as_array().into_iter().flatten() {
            let config = file(one["Config"].as_str().unwrap_or_default());
            let parsed = json(config);
            for tag in one["RepoTags"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                self.insert_image(tag, loaded(config, &parsed));
                messages.push(format!("Loaded image: {tag}"));
            }
        }
        Ok(messages)
    }

    /// Not imitated: nothing that this engine is for reads images from it.
    async fn save_image(&self, image: &str) -> Result<ByteStream> {
        Err(not_found(&format!("save {image}"), "the engine in memory keeps no layers"))
    }

    async fn tag_image(&self, image: &str, repository: &str, tag: &str) -> Result<()> {
        let found = self
            .call(format!("tag {image} {repository}:{tag}"), |world, call| {
                let id = world.image_id(image);
                let found = id.and_then(|id| world.images.get(&id).cloned());
                found.ok_or_else(|| not_found(call, format!("No such image: {image}")))
            })
            .await?;
        self.insert_image(&format!("{repository}:{tag}"), found);
        Ok(())
    }

    async fn inspect_network(&self, network: &str) -> Result<Option<Network>> {
        self.call(format!("inspect network {network}"), |world, _| {
            let Some(mut found) = world.network(network).cloned() else { return Ok(None) };
            let length =
                found.subnets.first().and_then(|subnet| subnet.split('/').nth(1)).unwrap_or("16").to_owned();
            for held in world.containers.values() {
                if let Some(address) = held.addresses.get(&found.name) {
                    found.addresses.insert(held.id.clone(), format!("{address}/{length}"));
                }
            }
            Ok(Some(found))
        })
        .await
    }

    async fn create_network(&self, body: &Value) -> Result<String> {
        let name = body["Name"].as_str().unwrap_or_default().to_owned();
        self.call(format!("create network {name}"), |world, call| {
            if world.network(&name).is_some() {
                let message = format!("network with name {name} already exists");
                return Err(EngineError::Conflict { call: call.to_owned(), message });
            }
            let id = world.next_id();
            let subnets = body.pointer("/IPAM/Config").and_then(Value::as_array).into_iter().flatten();
            let network = Network {
                id: id.clone(),
                name: name.clone(),
                driver: body["Driver"].as_str().unwrap_or("bridge").to_owned(),
                subnets: subnets.filter_map(|config| config["Subnet"].as_str()).map(str::to_owned).collect(),
                labels: labels(&body["Labels"]),
                addresses: BTreeMap::new(),
            };
            world.networks.insert(id.clone(), network);
            Ok(id)
        })
        .await
    }

    async fn inspect_volume(&self, volume: &str) -> Result<Option<BTreeMap<String, String>>> {
        self.call(format!("inspect volume {volume}"), |world, _| Ok(world.volumes.get(volume).cloned())).await
    }

    async fn create_volume(&self, body: &Value) -> Result<()> {
        let name = body["Name"].as_str().unwrap_or_default().to_owned();
        self.call(format!("create volume {name}"), |world, _| {
            world.volumes.entry(name.clone()).or_insert_with(|| labels(&body["Labels"]));
            Ok(())
        })
        .await
    }
}

/// What `tars-init probe --json` prints.
fn probed(healthy: bool, behaviour: &Behaviour) -> ExecOutput {
    let problems: &[&str] = if healthy { &[] } else { &["tars.tarsregistry.QueryObj does not answer"] };
    let document = json!({
        "healthy": healthy, "role": "slave", "address": "172.25.0.4", "version": "3.0.17", "servants": [],
        "database": "exists", "registered": if healthy { behaviour.registered } else { None },
        "problems": problems,
    });
    ExecOutput { exit_code: i64::from(!healthy), stdout: format!("{document}\n"), stderr: String::new() }
}

fn labels(value: &Value) -> BTreeMap<String, String> {
    let pairs = value.as_object().into_iter().flatten();
    pairs.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

fn broken(call: &str, error: &std::io::Error) -> EngineError {
    EngineError::Answered { call: call.to_owned(), status: 400, message: error.to_string() }
}

/// The regular files of a tar.
fn entries(call: &str, tar: &[u8]) -> Result<Vec<(String, Vec<u8>)>> {
    let mut archive = tar::Archive::new(tar);
    let mut files = Vec::new();
    for entry in archive.entries().map_err(|error| broken(call, &error))? {
        let mut entry = entry.map_err(|error| broken(call, &error))?;
        if entry.header().entry_type().is_file() {
            let name = entry.path().map_err(|error| broken(call, &error))?.to_string_lossy().into_owned();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).map_err(|error| broken(call, &error))?;
            files.push((name, bytes));
        }
    }
    Ok(files)
}

/// The image of a docker-archive's config.
fn loaded(config: &[u8], parsed: &Value) -> EngineImage {
    let strings = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let id = Digest::of(config).to_string();
    EngineImage {
        tags: Vec::new(),
        diff_ids: strings(&parsed["rootfs"]["diff_ids"])
            .iter()
            .filter_map(|text| text.parse().ok())
            .collect(),
        env: strings(&parsed["config"]["Env"]),
        labels: labels(&parsed["config"]["Labels"]),
        size: 0,
        created: parsed["created"].as_str().unwrap_or_default().to_owned(),
        architecture: parsed["architecture"].as_str().unwrap_or_default().to_owned(),
        raw: json!({"Id": id, "Config": parsed["config"]}),
        id,
    }
}
