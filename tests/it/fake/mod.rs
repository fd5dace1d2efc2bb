//! A Docker engine in memory, for tests of what calls an engine: the real one's rules, and faults at will.
//!
//! Names are unique and atomic; addresses and host ports are claimed at start, not at create; a start that fails
//! leaves the container as it was. Time is tokio's, so that a test can pause it. [`FakeEngine::fault`] makes any call,
//! reads among them, fail or never return, before or after its effect, or lets its effect land late;
//! [`FakeEngine::prune`] and [`FakeEngine::reboot`] are what others do to an engine; [`FakeEngine::dump`] is the state
//! as text.

mod attach;
mod behaviour;
mod calls;
mod disk;
mod template;
mod tools;
mod world;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::Instant;

pub use behaviour::Behaviour;
use tarsup::engine::{EngineError, EngineImage, EngineInfo, Environment, Result, Status};
use tarsup::oci::{Digest, Reference};
use tarsup::tars::catalogue::IMAGE_ROLE_LABEL;
use tarsup::upgrade::machine::ImageLoader;
pub use tools::Tools;
use world::World;
use world::not_found;

/// When a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Before the call has an effect.
    Before,
    /// After it had its effect, before its answer arrives. Of a stop that takes time: once it is under way.
    After,
}

/// What a fault does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The call never returns, and [`FakeEngine::crashed`] does: the caller is to be dropped, as `kill -9` would.
    Crash,
    /// As a crash, and the effect takes place only this much later: a real engine goes on with what a client asked for.
    Late(Duration),
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

/// An effect that its caller does not live to see.
type LateEffect = Box<dyn FnOnce(&mut World) + Send>;
type LateEffects = Mutex<Vec<(Instant, LateEffect)>>;
type Shared = Mutex<World>;

/// The engine.
#[derive(Default)]
pub struct FakeEngine {
    world: Arc<Shared>,
    late: Arc<LateEffects>,
    faults: Mutex<Vec<(Call, Moment, Fault)>>,
    calls: Mutex<Vec<String>>,
    /// Bytes of the archives that were loaded.
    received: Mutex<u64>,
    crashed: Notify,
}

impl std::fmt::Debug for FakeEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FakeEngine({} calls)", locked(&self.calls).len())
    }
}

/// What `tarsup build` would have labelled an image of that name with.
fn role_label(reference: &str) -> BTreeMap<String, String> {
    let role = ["framework", "node"].into_iter().find(|role| reference.starts_with(&format!("tars/{role}:")));
    role.map(|role| (IMAGE_ROLE_LABEL.to_owned(), role.to_owned())).into_iter().collect()
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The state as it is now: what was to happen by now has happened.
fn up_to_date<'a>(world: &'a Shared, late: &LateEffects) -> MutexGuard<'a, World> {
    let now = Instant::now();
    let mut world = locked(world);
    let mut late = locked(late);
    while let Some(next) = (0..late.len()).filter(|&at| late[at].0 <= now).min_by_key(|&at| late[at].0) {
        let (at, effect) = late.remove(next);
        world.settle(at);
        effect(&mut world);
    }
    world.settle(now);
    world
}

#[async_trait]
impl ImageLoader for FakeEngine {
    async fn load(&self, image: &Reference) -> std::result::Result<String, String> {
        let name = image.to_string();
        let loaded = self.call(format!("load {name}"), move |world, call| {
            let image = world.shelf.get(&name).cloned();
            let image = image.ok_or_else(|| not_found(call, "the local store has it no more"))?;
            let id = image.id.clone();
            world.tag(&name, image);
            Ok(id)
        });
        loaded.await.map_err(|error| error.to_string())
    }

    fn room(&self, _engine: &EngineInfo) -> Option<u64> {
        locked(&self.world).room
    }

    fn store_room(&self) -> Option<(String, u64)> {
        locked(&self.world).store_room.map(|bytes| ("/store".to_owned(), bytes))
    }
}

impl FakeEngine {
    /// An empty engine.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty engine whose images lie in containerd's store: a newer version, which joins several networks at create,
    /// and ids of images that are digests of manifests.
    pub fn containerd() -> Self {
        let engine = Self::default();
        locked(&engine.world).containerd = true;
        engine
    }

    /// Another engine in the same state, without its faults, calls and late effects.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self { world: Arc::new(Mutex::new(self.up_to_date().clone())), ..Self::default() }
    }

    /// The state as it is now: what was to happen by now has happened.
    fn up_to_date(&self) -> MutexGuard<'_, World> {
        up_to_date(&self.world, &self.late)
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
            env: Environment::of(&env),
            labels: role_label(reference),
            size: 1_000_000,
            layer_sizes: Vec::new(),
            created: "1970-01-01T00:00:00Z".to_owned(),
            architecture: "amd64".to_owned(),
            raw: json!({"Id": id, "Config": {"Env": env, "Entrypoint": ["/usr/local/bin/tars-init"]}}),
        };
        locked(&self.world).tag(reference, image);
        id
    }

    /// Takes an image out of the engine and into the local store, as it were: [`ImageLoader::load`] brings it back.
    pub fn shelve(&self, reference: &str) {
        let mut world = locked(&self.world);
        let id = world.tags.remove(reference).expect("it is there");
        let image = world.images.remove(&id).expect("it is there");
        world.shelf.insert(reference.to_owned(), image);
    }

    /// What the local store has.
    pub fn shelf(&self) -> BTreeMap<String, EngineImage> {
        locked(&self.world).shelf.clone()
    }

    /// Changes an image that is there: its labels, its volumes.
    pub fn edit_image(&self, reference: &str, change: impl FnOnce(&mut EngineImage)) {
        let mut world = locked(&self.world);
        let id = world.image_id(reference).unwrap_or_default();
        change(world.images.get_mut(&id).expect("the image is there"));
    }

    /// Changes the `HostConfig` that a container was created with.
    pub fn edit_host(&self, container: &str, change: impl FnOnce(&mut Value)) {
        let mut world = locked(&self.world);
        let held = world.get("edit", container).expect("the container is there");
        change(held.body.0.entry("HostConfig").or_insert_with(|| json!({})));
    }

    /// Changes the labels that a container was created with, as another release would have written them.
    pub fn edit_labels(&self, container: &str, change: impl FnOnce(&mut serde_json::Map<String, Value>)) {
        let mut world = locked(&self.world);
        let held = world.get("edit", container).expect("the container is there");
        change(held.body.0["Labels"].as_object_mut().expect("it has labels"));
    }

    /// The database that the containers share holds no TARS any more.
    pub fn empty_database(&self) {
        locked(&self.world).database_is_empty = true;
    }

    /// Somebody stopped or drained a service of the framework on a node.
    pub fn stop_service(&self, server: &str, node: &str, setting: bool) {
        let row = json!({"server": server, "node": node, "setting": setting, "flow": !setting});
        locked(&self.world).stopped.push(row);
    }

    /// The database that the containers share answers again, or is away.
    pub fn database(&self, answers: bool) {
        locked(&self.world).database_is_away = !answers;
    }

    /// The disk of the engine has room for so many bytes; nobody knows where that is nothing.
    pub fn room(&self, bytes: Option<u64>) {
        locked(&self.world).room = bytes;
    }

    /// The disk of the local store has room for so many bytes.
    pub fn store_room(&self, bytes: u64) {
        locked(&self.world).store_room = Some(bytes);
    }

    /// Changes an image of the local store.
    pub fn edit_shelved(&self, reference: &str, change: impl FnOnce(&mut EngineImage)) {
        change(locked(&self.world).shelf.get_mut(reference).expect("it is shelved"));
    }

    /// Somebody edits the only template.
    pub fn edit_template(&self, value: &str) {
        value.clone_into(&mut locked(&self.world).template.value);
    }

    /// Where a clock stands, by container or `database`: seconds ahead of everybody else's, and its zone as `date` writes it.
    pub fn set_clock(&self, of: &str, ahead: i64, zone: &str) {
        locked(&self.world).clocks.insert(of.to_owned(), (ahead, zone.to_owned()));
    }

    /// Lets somebody call what serves in a container for this time from now.
    pub fn call_from(&self, container: &str, peer: &str, length: Duration) {
        let until = Instant::now() + length;
        locked(&self.world).callers.insert(container.to_owned(), (peer.to_owned(), until));
    }

    /// Who is connected to the registry in a container.
    pub fn link(&self, container: &str, peers: &[String]) {
        locked(&self.world).linked.insert(container.to_owned(), peers.to_vec());
    }

    /// More of what `tars-init cluster --facts` says.
    pub fn tell(&self, key: &str, value: Value) {
        locked(&self.world).facts.insert(key.to_owned(), value);
    }

    /// How containers of this image behave from now on.
    pub fn behave(&self, image: &str, behaviour: Behaviour) {
        let mut world = locked(&self.world);
        let shelved = || world.shelf.get(image).map(|image| image.id.clone());
        let id = world.image_id(image).or_else(shelved).unwrap_or_else(|| image.to_owned());
        world.behaviours.insert(id, behaviour);
    }

    /// How the container of this name behaves from now on, whatever its image.
    pub fn behave_named(&self, container: &str, behaviour: Behaviour) {
        locked(&self.world).named.insert(container.to_owned(), behaviour);
    }

    /// Makes a call fail. A fault on an n-th or first call strikes once. A late effect has no moment.
    pub fn fault(&self, call: Call, moment: Moment, fault: Fault) {
        let moment = if matches!(fault, Fault::Late(_)) { Moment::Before } else { moment };
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

    /// Bytes of all archives that were loaded so far.
    pub fn received(&self) -> u64 {
        *locked(&self.received)
    }

    /// The calls so far, such as `create tars-slave.new.20260102T030405Z-0001`.
    pub fn calls(&self) -> Vec<String> {
        locked(&self.calls).clone()
    }

    /// What a reboot of the engine's host leaves: everything stopped, and what its restart policy brings back.
    pub fn reboot(&self) {
        let mut world = self.up_to_date();
        for held in world.containers.values_mut().filter(|held| held.status == Status::Running) {
            if matches!(held.restart.name.as_str(), "always" | "unless-stopped") {
                held.begin(Instant::now());
            } else {
                held.status = Status::Exited;
                held.exit_code = 137;
                held.addresses.clear();
            }
            held.stopping = None;
            held.attachment = None;
        }
        // `always` resurrects even what somebody had stopped.
        for held in world.containers.values_mut().filter(|held| held.status == Status::Exited) {
            if held.restart.name == "always" {
                held.status = Status::Running;
                held.begin(Instant::now());
            }
        }
    }

    /// What `docker system prune -f` takes, with `--volumes` or without: every container that is not up, networks that
    /// nobody is on, images that no tag and no container names, and, of 20.10, every volume that nobody mounts.
    pub fn prune(&self, volumes: bool) {
        self.up_to_date().prune(volumes);
    }

    /// How often the container of this id or name was started.
    pub fn starts(&self, container: &str) -> u64 {
        locked(&self.world).get("look at", container).map_or(0, |held| held.starts)
    }

    /// The files of a volume: path below its root → bytes; `None` where there is no such volume.
    pub fn volume_files(&self, volume: &str) -> Option<BTreeMap<String, Vec<u8>>> {
        self.up_to_date().volumes.get(volume).map(|volume| volume.files.clone())
    }

    /// What the database's tools were asked, and all that they were sent on their standard input.
    pub fn tools_heard(&self) -> Vec<(Vec<String>, String)> {
        let world = self.up_to_date();
        world.execs.iter().map(|(_, exec)| (exec.words.clone(), exec.heard())).collect()
    }

    /// Lets the container of this name print a line.
    pub fn print(&self, container: &str, line: &str) {
        let mut world = locked(&self.world);
        if let Ok(held) = world.get("print", container) {
            held.log.push(line.to_owned());
        }
    }

    /// Everything but ids, times and anonymous volumes, one line a thing, sorted by name.
    pub fn dump(&self) -> String {
        let world = self.up_to_date();
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
        let named = world.volumes.iter().filter(|(_, volume)| !volume.anonymous);
        lines.extend(named.map(|(name, _)| format!("volume {name}")));
        if !world.template.value.is_empty() {
            lines.push(format!("template {}", world.template.value));
        }
        lines.extend(world.drained.iter().map(|node| format!("drained {node}")));
        lines.sort();
        lines.join("\n") + "\n"
    }

    /// The fault that strikes this call at this moment.
    fn fault_of(&self, index: usize, what: &str, moment: Moment) -> Option<Fault> {
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
    }

    /// The caller is to be dropped: nothing comes back.
    async fn never<T>(&self) -> T {
        self.crashed.notify_one();
        std::future::pending().await
    }

    /// One call: it is counted, faults strike, and in between it has its effect.
    async fn call<T>(
        &self,
        what: String,
        effect: impl FnOnce(&mut World, &str) -> Result<T> + Send + 'static,
    ) -> Result<T>
    where
        T: Send,
    {
        let index = {
            let mut calls = locked(&self.calls);
            calls.push(what.clone());
            calls.len() - 1
        };
        match self.fault_of(index, &what, Moment::Before) {
            None => {}
            Some(Fault::Late(after)) => {
                let effect: LateEffect = Box::new(move |world| drop(effect(world, &what)));
                locked(&self.late).push((Instant::now() + after, effect));
                return self.never().await;
            }
            Some(fault) => return Err(self.failed(&what, fault).await),
        }
        let answer = effect(&mut self.up_to_date(), &what);
        match self.fault_of(index, &what, Moment::After) {
            None => answer,
            Some(fault) => Err(self.failed(&what, fault).await),
        }
    }

    async fn failed(&self, what: &str, fault: Fault) -> EngineError {
        let call = what.to_owned();
        match fault {
            Fault::Crash | Fault::Late(_) => self.never().await,
            Fault::Lost => EngineError::Lost { call, why: "connection reset by peer".to_owned() },
            Fault::Answer(404, message) => EngineError::NotFound { call, message },
            Fault::Answer(409, message) => EngineError::Conflict { call, message },
            Fault::Answer(status, message) => EngineError::Answered { call, status, message },
        }
    }
}
