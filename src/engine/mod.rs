//! The Docker API as one trait: one method per engine call, in the API's own words.
//!
//! Nothing here decides anything. `docker` speaks to a real engine; the tests have one in memory
//! (`tests/it/fake`). `upgrade` and `deploy` know only this file.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::io::AsyncWrite;

use crate::diagnose::{Diagnose, Exit};
use crate::oci::Digest;

mod address;
mod answers;
mod connection;
pub mod docker;
mod environment;
mod kind;
mod patience;
mod raw;
pub(crate) mod tls;

pub use address::ConnectOptions;
pub use docker::DockerEngine;
pub use environment::{Environment, Variable};
pub use kind::{EngineInfo, Greeting, ImageStore};
pub(crate) use raw::in_query as percent_encoded;

/// The body of `POST /containers/create`, in the API's own words and canonical (sorted) order.
///
/// It carries the environment, secrets included: never log, journal or label it. [`CreateBody::spec_hash`] may be.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct CreateBody(pub Map<String, Value>);

impl CreateBody {
    /// The digest of the canonical JSON: what the label `io.tarsup.spec` says.
    ///
    /// Labels of tarsup's own that differ from deploy to deploy are left out.
    pub fn spec_hash(&self) -> Digest {
        let mut body = self.0.clone();
        if let Some(Value::Object(labels)) = body.get_mut("Labels") {
            labels.retain(|key, _| !key.starts_with("io.tarsup."));
        }
        Digest::of(Value::Object(body).to_string())
    }

    /// The value of one environment variable; the last one wins, as in the engine.
    pub fn env(&self, name: &str) -> Option<&str> {
        let entries = self.0.get("Env")?.as_array()?;
        entries.iter().rev().filter_map(Value::as_str).find_map(|entry| match entry.split_once('=') {
            Some((key, value)) if key == name => Some(value),
            _ => None,
        })
    }
}

impl std::fmt::Debug for CreateBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CreateBody({})", self.spec_hash().short())
    }
}

/// The object at an entry of a body, made where there is none.
pub fn object(entry: serde_json::map::Entry<'_>) -> &mut Map<String, Value> {
    let value = entry.or_insert_with(|| Value::Object(Map::new()));
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("made an object above"),
    }
}

/// A restart policy, as `HostConfig.RestartPolicy` has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct RestartPolicy {
    /// `no`, `always`, `unless-stopped` or `on-failure`; the engine treats an empty name as `no`.
    pub name: String,
    /// With `on-failure`: how often.
    #[serde(default)]
    pub maximum_retry_count: u32,
}

impl RestartPolicy {
    /// Never restart: what a parked container has.
    pub fn no() -> Self {
        Self { name: "no".to_owned(), maximum_retry_count: 0 }
    }
}

/// `State.Status` of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are the API's own")]
pub enum Status {
    Created,
    Running,
    Paused,
    Restarting,
    Removing,
    Exited,
    Dead,
}

/// `State.Health.Status` of a container that has a health check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are the API's own")]
pub enum Health {
    Starting,
    Healthy,
    Unhealthy,
}

/// `GET /containers/{id}/json`, as far as it matters, and the whole answer beside it, which its `Debug` does not show.
#[derive(Clone)]
pub struct Container {
    /// The full id.
    pub id: String,
    /// The name, without the leading slash.
    pub name: String,
    /// Labels, the image's among them.
    pub labels: BTreeMap<String, String>,
    /// The image as the container was created from it (`Config.Image`).
    pub image: String,
    /// The id of the image (`Image`).
    pub image_id: String,
    /// `State.Status`.
    pub status: Status,
    /// `State.Health.Status`, where there is a health check.
    pub health: Option<Health>,
    /// `State.ExitCode`.
    pub exit_code: i64,
    /// `State.Error`: why a start failed.
    pub error: String,
    /// `RestartCount`.
    pub restart_count: u64,
    /// `State.StartedAt`, RFC 3339; empty or year 1 where it never started.
    pub started_at: String,
    /// `HostConfig.RestartPolicy`.
    pub restart: RestartPolicy,
    /// The environment; secrets included.
    pub env: Environment,
    /// Network name → address in use (empty while stopped).
    pub addresses: BTreeMap<String, String>,
    /// The answer of the engine, whole.
    pub raw: Value,
}

impl std::fmt::Debug for Container {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Container");
        shown.field("name", &self.name).field("id", &self.id).field("image", &self.image);
        shown.field("status", &self.status).field("health", &self.health).field("env", &self.env);
        shown.finish_non_exhaustive()
    }
}

/// One of `GET /containers/json`, as far as it matters: no restart policy, no environment, no exit code.
#[derive(Clone, Debug)]
pub struct ContainerSummary {
    /// The full id.
    pub id: String,
    /// The name, without the leading slash.
    pub name: String,
    /// Labels, the image's among them.
    pub labels: BTreeMap<String, String>,
    /// The image as the container was created from it; its id where that reference names another by now.
    pub image: String,
    /// The id of the image.
    pub image_id: String,
    /// `State`.
    pub status: Status,
    /// Health, where there is a check; read from `Status`, as older engines say it nowhere else.
    pub health: Option<Health>,
    /// Network name → address in use (empty while stopped).
    pub addresses: BTreeMap<String, String>,
    /// `Mounts`, in the API's own words.
    pub mounts: Value,
}

/// One of `GET /images/{name}/history`: a layer, or what added none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryItem {
    /// What made it, in its maker's words.
    pub created_by: String,
    /// What its maker has to say of it.
    pub comment: String,
    /// Bytes of its files, unpacked; 0 for what added no layer, or an empty one.
    pub size: u64,
}

/// One of `GET /images/json`, as far as it matters.
#[derive(Clone, Debug)]
pub struct ImageSummary {
    /// The image id.
    pub id: String,
    /// `RepoTags`.
    pub tags: Vec<String>,
    /// Labels of its config.
    pub labels: BTreeMap<String, String>,
    /// Size in bytes, as `docker images` counts it: with containerd more than inspect says.
    pub size: u64,
    /// `Created`, RFC 3339, to the second.
    pub created: String,
}

/// `GET /images/{name}/json`, as far as it matters, and the whole answer beside it, which its `Debug` does not show.
#[derive(Clone, Default)]
pub struct EngineImage {
    /// The image id; on a classic store the digest of the config.
    pub id: String,
    /// `RepoTags`.
    pub tags: Vec<String>,
    /// `RootFS.Layers`.
    pub diff_ids: Vec<Digest>,
    /// `Config.Env`.
    pub env: Environment,
    /// `Config.Labels`.
    pub labels: BTreeMap<String, String>,
    /// Size in bytes.
    pub size: u64,
    /// The size of each layer, where that is known: an engine does not tell.
    pub layer_sizes: Vec<LayerSize>,
    /// `Created`, RFC 3339.
    pub created: String,
    /// `Architecture`.
    pub architecture: String,
    /// The answer of the engine, whole.
    pub raw: Value,
}

impl std::fmt::Debug for EngineImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("EngineImage");
        shown.field("id", &self.id).field("tags", &self.tags).field("env", &self.env).finish_non_exhaustive()
    }
}

/// What a layer takes, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerSize {
    /// As it is stored.
    pub stored: u64,
    /// As a tar; nothing where that cannot be told without reading all of it.
    pub unpacked: Option<u64>,
}

/// `GET /networks/{name}`, as far as it matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// The full id.
    pub id: String,
    /// The name.
    pub name: String,
    /// `Driver`.
    pub driver: String,
    /// `IPAM.Config[].Subnet`.
    pub subnets: Vec<String>,
    /// `IPAM.Config[].IPRange`: what the engine hands out by itself, where that is less than the subnets.
    pub ranges: Vec<String>,
    /// `IPAM.Config[].Gateway`.
    pub gateways: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Container id → address with prefix length, of the containers that run on it.
    pub addresses: BTreeMap<String, String>,
}

/// What a command inside a container printed, and its exit code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecOutput {
    /// The exit code.
    pub exit_code: i64,
    /// Standard output, as text.
    pub stdout: String,
    /// Standard error, as text.
    pub stderr: String,
}

/// How a path differs from the image's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are the API's own")]
pub enum ChangeKind {
    Modified,
    Added,
    Deleted,
}

/// One of `GET /containers/{id}/changes`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Change {
    /// The path in the container.
    pub path: String,
    /// How it differs.
    pub kind: ChangeKind,
}

/// A piece of what a container prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Printed {
    /// On standard output.
    Stdout(Bytes),
    /// On standard error.
    Stderr(Bytes),
}

/// A container's streams, as whoever is attached has them.
pub struct Attached {
    /// What it prints from now on, until it ends; in pieces of any length.
    pub output: Pin<Box<dyn Stream<Item = Result<Printed>> + Send>>,
    /// What it reads. Shut down (dropping it is not enough: the connection is one with the output's), a container that was
    /// created with `StdinOnce` reads the end.
    pub input: Pin<Box<dyn AsyncWrite + Send>>,
}

/// A command that runs inside a container.
pub struct Executing {
    /// By which [`Engine::exec_code`] asks how it ended.
    pub id: String,
    /// Its streams: what it reads ends where its input is shut down.
    pub streams: Attached,
}

/// A body that is sent in pieces.
pub type ByteStream = Pin<Box<dyn Stream<Item = std::io::Result<Bytes>> + Send + Sync>>;

/// Why an engine call failed.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// No engine answers at this address.
    #[error("no Docker engine answers at {address}: {why}")]
    Unreachable {
        /// Where it was looked for.
        address: String,
        /// The operating system's or the TLS library's words.
        why: String,
    },
    /// Somebody answers there over TLS, and one side does not believe the other.
    #[error("the engine at {address} is not spoken to: {why}")]
    Untrusted {
        /// Its address.
        address: String,
        /// Whose certificate is not what it must be, and why.
        why: String,
        /// What to do.
        hint: String,
    },
    /// It answered before, and does so no more. What the call did is not known.
    #[error("the Docker engine went away during `{call}`: {why}")]
    Lost {
        /// The call, such as `create tars-framework`.
        call: String,
        /// The transport's words.
        why: String,
    },
    /// 404.
    #[error("{call}: {}", first_of(message))]
    NotFound {
        /// The call.
        call: String,
        /// The engine's words.
        message: String,
    },
    /// 409: a name or a state is in the way.
    #[error("{call}: {}", first_of(message))]
    Conflict {
        /// The call.
        call: String,
        /// The engine's words.
        message: String,
    },
    /// Any other answer that is not success.
    #[error("{call}: {}{}", answered(*status), first_of(message))]
    Answered {
        /// The call.
        call: String,
        /// The HTTP status; 0 for an error inside a stream that began well.
        status: u16,
        /// The engine's words.
        message: String,
    },
    /// A command inside a container took longer than it was given; it may still run.
    #[error("{call}: not done within {} s", after.as_secs_f32())]
    TimedOut {
        /// The call.
        call: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// The engine's address or context cannot be used as configured.
    #[error("{what}")]
    Configuration {
        /// What is wrong.
        what: String,
        /// What to do.
        hint: String,
    },
}

/// The beginning of what an engine says: no person reads megabytes, and no record keeps them.
fn first_of(message: &str) -> &str {
    const MOST: usize = 1000;
    message.char_indices().nth(MOST).map_or(message, |(at, _)| &message[..at])
}

/// How an error says a status; there is none for an error inside a stream.
fn answered(status: u16) -> String {
    if status == 0 { String::new() } else { format!("the engine answered {status}: ") }
}

impl Diagnose for EngineError {
    fn exit(&self) -> Exit {
        match self {
            Self::Configuration { .. } => Exit::Usage,
            _ => Exit::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Unreachable { why, .. } if why.contains("Permission denied") => {
                Some("run this as root, or as a member of the group `docker`".to_owned())
            }
            Self::Unreachable { .. } => {
                Some("start the engine, or name another one with -H, --context or DOCKER_HOST".to_owned())
            }
            Self::Lost { .. } => Some("when the engine is back, run `tarsup status`".to_owned()),
            Self::Configuration { hint, .. } | Self::Untrusted { hint, .. } => Some(hint.clone()),
            Self::Answered { status: 0, .. } => {
                Some("see whether what answers there is a Docker engine: `docker version`".to_owned())
            }
            Self::Answered { .. } | Self::TimedOut { .. } => {
                Some("see what the engine's own log says of it, such as `journalctl -u docker`".to_owned())
            }
            Self::NotFound { .. } => Some("see what is there: `docker ps -a`, `docker images`".to_owned()),
            Self::Conflict { .. } => {
                Some("see who else works there: `tarsup status`, `docker ps -a`".to_owned())
            }
        }
    }
}

/// The result of an engine call.
pub type Result<T> = std::result::Result<T, EngineError>;

/// A Docker engine. Containers are named by id or name, as the API takes both.
#[async_trait]
pub trait Engine: Send + Sync {
    /// What it said of itself as it was connected to. No call.
    fn greeting(&self) -> Greeting;

    /// `GET /version` and `GET /info`. Docker runs runc and its init for either, to ask them for their versions: some 10 ms, and
    /// nearly twice that of processor time.
    async fn info(&self) -> Result<EngineInfo>;

    /// `GET /containers/json?all=1`, filtered by labels (`key` or `key=value`).
    ///
    /// It may lag behind by a moment: an engine answers it from a copy (seen on 26.1: `running` right after a stop had
    /// been answered). What was just changed is to be inspected.
    async fn list_containers(&self, labels: &[String]) -> Result<Vec<ContainerSummary>>;
    /// `GET /containers/{id}/json`; `None` where there is none.
    async fn inspect_container(&self, container: &str) -> Result<Option<Container>>;
    /// `POST /containers/create`; the new container's id.
    async fn create_container(&self, name: &str, body: &CreateBody) -> Result<String>;
    /// `POST /containers/{id}/start`; starting one that runs is no error.
    async fn start_container(&self, container: &str) -> Result<()>;
    /// `POST /containers/{id}/stop` with a grace period; stopping one that is stopped is no error.
    async fn stop_container(&self, container: &str, grace: Duration) -> Result<()>;
    /// `POST /containers/{id}/rename`.
    async fn rename_container(&self, container: &str, name: &str) -> Result<()>;
    /// `POST /containers/{id}/update` of the restart policy alone.
    async fn update_restart(&self, container: &str, policy: &RestartPolicy) -> Result<()>;
    /// `DELETE /containers/{id}`: never forced, never with its volumes.
    async fn remove_container(&self, container: &str) -> Result<()>;
    /// `POST /containers/{id}/wait`: the exit code of a container that ends by itself.
    async fn wait_container(&self, container: &str) -> Result<i64>;
    /// `POST /containers/{id}/attach` with all streams, from now on; before the start, so that nothing is missed. It works
    /// whatever becomes of what the container logs. The container has no terminal.
    async fn attach_container(&self, container: &str) -> Result<Attached>;
    /// `GET /containers/{id}/top`: the command line of each process; none where it does not run.
    async fn processes(&self, container: &str) -> Result<Vec<String>>;
    /// `GET /containers/{id}/changes`: what a container's own layer holds, folders on the way to it included; nothing of volumes.
    async fn changes(&self, container: &str) -> Result<Vec<Change>>;
    /// `GET /containers/{id}/logs`: the last `tail` lines of both streams, as text.
    async fn logs(&self, container: &str, tail: u32) -> Result<String>;
    /// `POST /containers/{id}/exec`, started and waited for; an error after `timeout`.
    async fn exec(&self, container: &str, command: &[&str], timeout: Duration) -> Result<ExecOutput>;
    /// `POST /containers/{id}/exec` with all streams, and its start: whoever asked reads and writes as it goes on.
    async fn exec_attached(&self, container: &str, command: &[&str]) -> Result<Executing>;
    /// `GET /exec/{id}/json`: the exit code of such a command; `None` while it runs.
    async fn exec_code(&self, exec: &str) -> Result<Option<i64>>;
    /// `PUT /containers/{id}/archive`: unpacks a tar at `path`; works on a created container too.
    async fn put_archive(&self, container: &str, path: &str, tar: Vec<u8>) -> Result<()>;
    /// `GET /containers/{id}/archive`: the tar of `path`; `None` where there is no such path.
    async fn get_archive(&self, container: &str, path: &str) -> Result<Option<Vec<u8>>>;
    /// `POST /networks/{id}/connect` with an endpoint configuration in the API's own words.
    ///
    /// A container that does not run is joined to a network that is not there without an error; its start then fails
    /// (seen on 20.10).
    async fn connect_network(&self, network: &str, container: &str, endpoint: &Value) -> Result<()>;

    /// `GET /images/json`.
    async fn list_images(&self) -> Result<Vec<ImageSummary>>;
    /// `GET /images/json`, filtered by `reference`: those of a repository, by its familiar name. containerd's store works long on
    /// each image that it lists.
    async fn list_images_of(&self, repository: &str) -> Result<Vec<ImageSummary>>;
    /// `GET /images/{name}/json`; `None` where there is none.
    async fn inspect_image(&self, image: &str) -> Result<Option<EngineImage>>;
    /// `GET /images/{name}/history`: the newest entry first.
    async fn image_history(&self, image: &str) -> Result<Vec<HistoryItem>>;
    /// `POST /images/load`: the engine's progress messages; an error in the stream is an error here.
    async fn load_image(&self, tar: ByteStream) -> Result<Vec<String>>;
    /// `GET /images/{name}/get`: a docker-archive.
    async fn save_image(&self, image: &str) -> Result<ByteStream>;
    /// `DELETE /images/{name}`: takes a name off an image, and the image itself where that was its last one; never forced. A
    /// conflict where a container needs it; one that is not there is no error.
    async fn remove_image(&self, image: &str) -> Result<()>;
    /// `POST /images/{name}/tag`.
    async fn tag_image(&self, image: &str, repository: &str, tag: &str) -> Result<()>;

    /// `GET /networks/{name}`; `None` where there is none.
    async fn inspect_network(&self, network: &str) -> Result<Option<Network>>;
    /// `POST /networks/create` with a body in the API's own words; the new network's id.
    async fn create_network(&self, body: &Value) -> Result<String>;
    /// `GET /volumes/{name}`: its labels; `None` where there is none.
    async fn inspect_volume(&self, volume: &str) -> Result<Option<BTreeMap<String, String>>>;
    /// `GET /volumes`, filtered by labels (`key` or `key=value`): names and labels, by name.
    async fn list_volumes(&self, labels: &[String]) -> Result<Vec<(String, BTreeMap<String, String>)>>;
    /// `POST /volumes/create` with a body in the API's own words; the volume's labels.
    ///
    /// Creating one that is there is no error and changes nothing: the answer has the labels that it was first made
    /// with. So whoever reads a label back that nobody else could have written has made it.
    async fn create_volume(&self, body: &Value) -> Result<BTreeMap<String, String>>;
    /// `DELETE /volumes/{name}`: never forced; a conflict while a container mounts it, stopped ones among them.
    async fn remove_volume(&self, volume: &str) -> Result<()>;
}
