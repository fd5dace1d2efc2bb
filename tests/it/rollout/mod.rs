//! Planning, carrying out, undoing and resuming, on the engine in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod adopted;
mod back;
mod backup;
mod batches;
mod callers;
mod columns;
mod crash;
mod declarations;
mod deploys;
mod gates;
mod glance;
mod heard;
mod leaning;
mod length;
mod lists;
mod locators;
mod losses;
mod migration;
mod plans;
mod preflight;
mod properties;
mod prune;
mod recovery;
mod runnable;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::fake::FakeEngine;
use serde_json::{Value, json};
use tarsup::deploy::Desired;
use tarsup::deploy::container::Declaration;
use tarsup::deploy::desired::{BackupWay, ImageOrigin, Policy, Resource, Service, Written};
use tarsup::deploy::observe::observe;
use tarsup::deploy::twin::Twin;
use tarsup::diagnose::Place;
use tarsup::engine::RestartPolicy;
use tarsup::oci::Reference;
use tarsup::tars::Role;
use tarsup::upgrade::backup::shelf::Header;
use tarsup::upgrade::journal::{Event, Journal, JournalHeader, Line};
use tarsup::upgrade::machine::{
    BackupFile, Clock, DeploymentFile, KeptFile, KeptTwins, Machine as Parts, Reporter, Shelved, StateFolder,
};
use tarsup::upgrade::owner::Owner;
use tarsup::upgrade::{
    Deploy, DeployFailure, DeployId, Intent, Plan, Refusal, Request, ResumeOptions, Resumed,
};
use time::OffsetDateTime;
use tokio::sync::watch;

/// The n-th deploy's name.
pub fn id(n: u8) -> DeployId {
    format!("202601{n:02}T000000Z-0000").parse().unwrap()
}

/// A service of the test deployment: `tars-<name>` on 172.25.0.<last>.
pub fn service(name: &str, role: Option<Role>, image: &str, last: u8) -> Service {
    let always = RestartPolicy { name: "always".to_owned(), maximum_retry_count: 0 };
    let data = if role == Some(Role::Database) { "/var/lib/mysql" } else { "/data/tars" };
    let body = json!({
        "Env": ["MYSQL_ROOT_PASSWORD=s3cret", format!("SLAVE={}", role == Some(Role::Slave))],
        "HostConfig": {
            "Binds": [format!("tars_{name}:{data}")],
            "NetworkMode": "tars_default",
            "RestartPolicy": {"Name": "always", "MaximumRetryCount": 0},
        },
        "NetworkingConfig": {"EndpointsConfig": {"tars_default": {
            "IPAMConfig": {"IPv4Address": format!("172.25.0.{last}")},
        }}},
    });
    Service {
        name: name.to_owned(),
        place: Place::line("compose.yaml", u64::from(last)),
        container: format!("tars-{name}"),
        role,
        image: image.parse().unwrap(),
        image_origin: ImageOrigin::File(Place::line("compose.yaml", u64::from(last) + 1)),
        declaration: Declaration::of(body.as_object().unwrap().clone(), Vec::new()),
        restart: always,
        stop_grace: Duration::from_secs(10),
        depends_on: Vec::new(),
        rebuild: None,
        blanks: Vec::new(),
        written: Written::default(),
    }
}

/// Database, master, slave and one node, in the order of a usual file.
pub fn desired() -> Desired {
    let framework = "tars/framework:1";
    let services = vec![
        service("mysql", Some(Role::Database), "mariadb:10.11", 2),
        service("framework", Some(Role::Master), framework, 3),
        service("slave", Some(Role::Slave), framework, 4),
        service("node", Some(Role::Node), "tars/node:1", 5),
    ];
    let resource = |key: &str, name: String, body: Value| Resource {
        key: key.to_owned(),
        name,
        external: false,
        body,
        place: Place::file("compose.yaml"),
    };
    let volumes = services.iter().map(|service| {
        let name = format!("tars_{}", service.name);
        resource(&service.name, name.clone(), json!({"Name": name}))
    });
    let range = json!([{"Subnet": "172.25.0.0/16", "IPRange": "172.25.128.0/17"}]);
    let subnet = json!({"Name": "tars_default", "IPAM": {"Config": range}});
    Desired {
        deployment: "tars".to_owned(),
        files: vec![PathBuf::from("compose.yaml")],
        directory: PathBuf::from("."),
        volumes: volumes.collect(),
        networks: vec![resource("default", "tars_default".to_owned(), subnet)],
        services,
        policy: Policy {
            gate_timeout: Duration::from_secs(20),
            dwell: Duration::from_secs(2),
            client_refresh: Duration::from_secs(3),
            ..Policy::default()
        },
        database: None,
        notes: Vec::new(),
    }
}

/// True for the start of a service's container, or of a task: those in which the database is asked serve nothing.
pub fn is_start(call: &str) -> bool {
    call.starts_with("start ") && !asks(call)
}

/// True for a call that concerns a container in which the database is asked.
pub fn asks(call: &str) -> bool {
    call.ends_with(".cluster") || call.contains(".preview.")
}

/// Changes one service of a desired state.
/// Changes what is declared of a container, in the API's words.
pub fn edit_body(service: &mut Service, change: impl FnOnce(&mut serde_json::Map<String, Value>)) {
    let later = service.declaration.joins_later().map(|it| (it.network.clone(), it.settings())).collect();
    let mut body = service.declaration.render().0;
    change(&mut body);
    service.declaration = Declaration::of(body, later);
}

/// Declares one more network, which is joined after create.
pub fn join(service: &mut Service, network: &str, settings: Value) {
    let mut later: Vec<_> =
        service.declaration.joins_later().map(|it| (it.network.clone(), it.settings())).collect();
    later.push((network.to_owned(), settings));
    service.declaration = Declaration::of(service.declaration.render().0, later);
}

pub fn edit(desired: &mut Desired, name: &str, change: impl FnOnce(&mut Service)) {
    change(desired.services.iter_mut().find(|service| service.name == name).unwrap());
}

/// An engine with the images of versions 1 and 2.
pub fn engine() -> FakeEngine {
    let engine = FakeEngine::new();
    engine.add_image("mariadb:10.11", "mariadb", &[]);
    for version in ["1", "2"] {
        engine.add_image(
            &format!("tars/framework:{version}"),
            &format!("framework {version}"),
            &["PATH=/bin"],
        );
        engine.add_image(&format!("tars/node:{version}"), &format!("node {version}"), &["PATH=/bin"]);
    }
    engine
}

/// The machine that a command runs on, what it heard, and what of it fails.
#[derive(Clone)]
pub struct Machine {
    pub owner: Owner,
    pub said: Arc<Mutex<Vec<String>>>,
    pub written: Arc<Mutex<Vec<BTreeMap<String, Reference>>>>,
    pub journals: Journals,
    pub now: OffsetDateTime,
    /// Nothing can be written to `.tarsup/` or the deployment file.
    pub disk_is_full: Arc<AtomicBool>,
    /// What migrations saved: file → text.
    pub kept: Arc<Mutex<BTreeMap<String, String>>>,
    /// There is no room for that.
    pub no_room: Arc<AtomicBool>,
    /// Backups of the database: file → text.
    pub backups: Arc<Mutex<BTreeMap<String, String>>>,
    /// The disk is full in the middle of one.
    pub no_room_for_backups: Arc<AtomicBool>,
    /// For how many bytes of them there is room.
    pub room: Arc<Mutex<u64>>,
    /// For how many bytes there is room beside the journals.
    pub state_room: Arc<Mutex<u64>>,
    /// There is no room for what containers were.
    pub no_twins: Arc<AtomicBool>,
    /// What containers were that deploys parked.
    pub twins: Arc<Mutex<BTreeMap<String, Twin>>>,
}

/// Deploy → its journal.
type Journals = Arc<Mutex<BTreeMap<DeployId, (JournalHeader, Vec<Line>)>>>;

struct Shared(Journals, DeployId, Arc<AtomicBool>);

fn full() -> io::Error {
    io::Error::new(io::ErrorKind::StorageFull, "no space left on device")
}

impl Journal for Shared {
    fn append(&mut self, line: &Line) -> io::Result<()> {
        if self.2.load(Ordering::Relaxed) {
            return Err(full());
        }
        self.0.lock().unwrap().get_mut(&self.1).unwrap().1.push(line.clone());
        Ok(())
    }
}

impl Machine {
    /// This process: alive.
    pub fn new() -> Self {
        Self {
            // The ids of a machine that has some, wherever the tests run.
            owner: Owner { who: "ann@here".to_owned(), machine: "here".to_owned(), ..Owner::current() },
            said: Arc::default(),
            written: Arc::default(),
            journals: Arc::default(),
            now: OffsetDateTime::from_unix_timestamp(1_767_323_045).unwrap(),
            disk_is_full: Arc::default(),
            kept: Arc::default(),
            no_room: Arc::default(),
            backups: Arc::default(),
            no_room_for_backups: Arc::default(),
            room: Arc::new(Mutex::new(1 << 40)),
            state_room: Arc::new(Mutex::new(1 << 40)),
            twins: Arc::default(),
            no_twins: Arc::default(),
        }
    }

    /// A process of this boot that is gone.
    pub fn killed() -> Self {
        let new = Self::new();
        Self { owner: Owner { started: "1".to_owned(), ..new.owner.clone() }, ..new }
    }

    /// Another process on the same machine: it lives, and reads the same journals.
    pub fn next(&self) -> Self {
        Self { journals: self.journals.clone(), twins: self.twins.clone(), ..Self::new() }
    }

    /// One more that is gone as soon as its command has ended.
    pub fn next_killed(&self) -> Self {
        Self { journals: self.journals.clone(), twins: self.twins.clone(), ..Self::killed() }
    }

    /// Every line of every journal.
    pub fn lines(&self) -> Vec<Line> {
        self.journals.lock().unwrap().values().flat_map(|(_, lines)| lines.clone()).collect()
    }

    fn writable(&self) -> io::Result<()> {
        if self.disk_is_full.load(Ordering::Relaxed) { Err(full()) } else { Ok(()) }
    }
}

impl Clock for Machine {
    fn now(&self) -> OffsetDateTime {
        self.now
    }
}

impl Reporter for Machine {
    fn say(&self, text: &str) {
        self.said.lock().unwrap().push(text.to_owned());
    }
}

impl StateFolder for Machine {
    fn journal(&self, header: &JournalHeader) -> io::Result<Box<dyn Journal>> {
        self.writable()?;
        let begun = (header.clone(), Vec::new());
        self.journals.lock().unwrap().entry(header.deploy.clone()).or_insert(begun);
        Ok(Box::new(Shared(self.journals.clone(), header.deploy.clone(), self.disk_is_full.clone())))
    }
    fn read_journal(
        &self,
        _deployment: &str,
        deploy: Option<&DeployId>,
    ) -> io::Result<Option<(JournalHeader, Vec<Line>)>> {
        let journals = self.journals.lock().unwrap();
        Ok(match deploy {
            Some(deploy) => journals.get(deploy).cloned(),
            None => journals.last_key_value().map(|(_, journal)| journal.clone()),
        })
    }
    fn silences(&self, _deployment: &str) -> BTreeMap<String, Duration> {
        let lines = self.lines();
        let silent = lines.into_iter().filter_map(|line| match line.event {
            Event::Silent { service, milliseconds, .. } => {
                Some((service, Duration::from_millis(milliseconds)))
            }
            _ => None,
        });
        silent.collect()
    }

    fn save_log(&self, name: &str, _text: &str) -> io::Result<PathBuf> {
        self.writable()?;
        Ok(PathBuf::from(format!(".tarsup/logs/{name}.log")))
    }
    fn backup(&self, header: &Header) -> io::Result<Box<dyn BackupFile>> {
        self.writable()?;
        let (name, text) = (header.file_name(), header.line().into_bytes());
        Ok(Box::new(Backup(Kept {
            name,
            text,
            shelf: self.backups.clone(),
            is_full: self.no_room_for_backups.clone(),
        })))
    }
    fn backup_place(&self) -> String {
        ".tarsup/backups".to_owned()
    }
    fn backup_room(&self) -> io::Result<u64> {
        Ok(*self.room.lock().unwrap())
    }
    fn retire_backups(&self, _deployment: &str) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }
    fn keep(&self, deploy: &DeployId, what: &str) -> io::Result<Box<dyn KeptFile>> {
        self.writable()?;
        let name = format!("{deploy}.{what}.jsonl.gz");
        Ok(Box::new(Kept { name, text: Vec::new(), shelf: self.kept.clone(), is_full: self.no_room.clone() }))
    }
    fn keep_twin(&self, name: &str, twin: &Twin) -> io::Result<()> {
        self.writable()?;
        if self.no_twins.load(Ordering::Relaxed) {
            return Err(full());
        }
        self.twins.lock().unwrap().insert(name.to_owned(), twin.clone());
        Ok(())
    }
    fn twins(&self, _deployment: &str) -> io::Result<KeptTwins> {
        Ok((self.twins.lock().unwrap().clone(), Vec::new()))
    }
    fn room(&self) -> io::Result<u64> {
        Ok(*self.state_room.lock().unwrap())
    }
    fn forget_twin(&self, name: &str) -> io::Result<()> {
        self.writable()?;
        self.twins.lock().unwrap().remove(name);
        Ok(())
    }
}

/// A file of a deploy, in memory.
struct Kept {
    name: String,
    text: Vec<u8>,
    shelf: Arc<Mutex<BTreeMap<String, String>>>,
    is_full: Arc<AtomicBool>,
}

struct Backup(Kept);

impl BackupFile for Backup {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write(bytes)
    }
    fn finish(self: Box<Self>) -> io::Result<Shelved> {
        let (bytes, sha256) = (self.0.text.len() as u64, tarsup::oci::Digest::of(&self.0.text).hex());
        let name = self.0.name.clone();
        Box::new(self.0).finish()?;
        Ok(Shelved { path: PathBuf::from(format!(".tarsup/backups/{name}")), bytes, sha256 })
    }
}

impl KeptFile for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.text.extend_from_slice(bytes);
        if self.is_full.load(Ordering::Relaxed) { Err(full()) } else { Ok(()) }
    }
    fn finish(self: Box<Self>) -> io::Result<PathBuf> {
        if self.is_full.load(Ordering::Relaxed) {
            return Err(full());
        }
        self.shelf.lock().unwrap().insert(self.name.clone(), String::from_utf8(self.text.clone()).unwrap());
        Ok(PathBuf::from(format!(".tarsup/deploys/{}", self.name)))
    }
}

impl DeploymentFile for Machine {
    fn set_images(&self, images: &BTreeMap<String, Reference>) -> Result<(), String> {
        self.writable().map_err(|error| error.to_string())?;
        self.written.lock().unwrap().push(images.clone());
        Ok(())
    }
}

/// One command of a machine.
pub fn deploy<'a>(engine: &'a FakeEngine, machine: &'a Machine, desired: &'a Desired) -> Deploy<'a> {
    let (keep, stop) = watch::channel(false);
    // Nobody says stop in these tests but the one that does.
    std::mem::forget(keep);
    let parts = Parts {
        owner: &machine.owner,
        clock: machine,
        reporter: machine,
        folder: machine,
        file: machine,
        images: engine,
    };
    // As long as the test.
    let stored = Box::leak(Box::new(engine.shelf()));
    Deploy { engine, machine: parts, desired, stored, stop }
}

/// What a command asks for.
pub fn request(id: &DeployId, intent: &Intent) -> Request {
    Request {
        id: id.clone(),
        what: intent.word().to_owned(),
        intent: intent.clone(),
        pins: None,
        accept_data_move: Vec::new(),
        backup: BackupWay::default(),
        accept_state_loss: Vec::new(),
    }
}

/// Offers and carries out.
pub async fn roll(
    engine: &FakeEngine,
    machine: &Machine,
    desired: &Desired,
    id: &DeployId,
    intent: &Intent,
) -> Result<Plan, DeployFailure> {
    let deploy = deploy(engine, machine, desired);
    let offer = deploy.offer(&request(id, intent)).await?;
    if offer.is_empty() {
        deploy.remove_left_probe().await;
    } else {
        deploy.roll(&offer).await?;
    }
    Ok(offer.plan)
}

/// A larger deployment: two nodes in one batch, a slave on two networks, and version 2 in the local store alone.
pub fn large() -> Desired {
    let mut desired = desired();
    desired.services.push(service("node2", Some(Role::Node), "tars/node:1", 6));
    let resource = |key: &str, name: &str, body: Value| Resource {
        key: key.to_owned(),
        name: name.to_owned(),
        external: false,
        body,
        place: Place::file("compose.yaml"),
    };
    desired.volumes.push(resource("node2", "tars_node2", json!({"Name": "tars_node2"})));
    let range = json!([{"Subnet": "172.26.0.0/16", "IPRange": "172.26.128.0/17"}]);
    let subnet = json!({"Name": "tars_back", "IPAM": {"Config": range}});
    desired.networks.push(resource("back", "tars_back", subnet));
    edit(&mut desired, "slave", |slave| {
        let endpoint = json!({"IPAMConfig": {"IPv4Address": "172.26.0.4"}});
        join(slave, "tars_back", endpoint);
    });
    desired.policy.batch = Some(2);
    desired
}

/// An engine on which the deployment runs, made by deploy 1.
pub async fn running(desired: &Desired) -> FakeEngine {
    let engine = engine();
    roll(&engine, &Machine::new(), desired, &id(1), &Intent::Up).await.unwrap();
    engine
}

pub async fn resume(
    engine: &FakeEngine,
    machine: &Machine,
    desired: &Desired,
    forward: bool,
) -> Result<Resumed, DeployFailure> {
    let options = ResumeOptions { forward, ..ResumeOptions::default() };
    deploy(engine, machine, desired).resume(&options).await
}

/// `resume --take-over`.
pub fn taking_over(take_over: bool) -> ResumeOptions {
    ResumeOptions { take_over, ..ResumeOptions::default() }
}

/// `upgrade --to 2`.
pub fn to_2(desired: &Desired) -> Intent {
    Intent::upgrade(desired, Some("2"))
}

/// What the planner says to an engine's state.
pub async fn planned(
    engine: &FakeEngine,
    desired: &Desired,
    n: u8,
    intent: &Intent,
) -> Result<Plan, Refusal> {
    let desired = intent.apply(desired);
    let observed = observe(engine, &desired).await.unwrap();
    tarsup::upgrade::plan::plan(&id(n), &desired, &observed, intent, &[])
}
