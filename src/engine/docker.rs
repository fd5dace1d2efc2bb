//! A real Docker engine: each method is one call of its HTTP API.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use bollard::errors::Error as BollardError;
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use bollard::models::{
    ContainerUpdateBody, RestartPolicy as PolicyModel, Volume, VolumeCreateRequest, VolumeListResponse,
};
use bollard::query_parameters as query;
use bollard::{Docker, container::LogOutput};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{Stream, StreamExt as _, TryFutureExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::address::{self, ConnectOptions, Surroundings, configuration};
use super::connection::Connection;
use super::patience::{Moved, UNLIMITED, flowing, grow, patience, patience_of_images, within};
use super::raw::{ApiRequest, Raw, absent, in_path, in_query, shareable, traced, unexpected, words};
use super::{
    Attached, ByteStream, Change, ChangeKind, Container, ContainerSummary, CreateBody, Engine, EngineError,
    EngineImage, EngineInfo, ExecOutput, Executing, Greeting, HistoryItem, ImageSummary, Network, Printed,
    RestartPolicy, Result, Status, answers,
};

/// The newest API version that is asked for: later ones leave fields out of `inspect` that are read here.
const NEWEST_API: ApiVersion = ApiVersion(1, 51);

/// An API version, such as `1.41`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ApiVersion(u32, u32);

impl ApiVersion {
    fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        Some(Self(major.parse().ok()?, minor.parse().ok()?))
    }
}

/// A Docker engine, reached through a socket or TCP.
#[derive(Clone, Debug)]
pub struct DockerEngine {
    raw: Raw,
    docker: Docker,
    greeting: Greeting,
    /// What `GET /version` answered, where it was asked.
    version: OnceCell<Value>,
}

impl DockerEngine {
    /// Finds the engine that flags, environment and docker's contexts name, and agrees on an API, as docker's client does.
    ///
    /// # Errors
    /// [`EngineError::Configuration`] for an address or a context that cannot be used, [`EngineError::Unreachable`]
    /// where no engine answers.
    pub async fn connect(options: &ConnectOptions) -> Result<Self> {
        let connection = {
            let around = Surroundings { variable: &|name| std::env::var(name).ok() };
            Connection::open(&address::resolve(options, &around)?)?
        };
        let mut raw = Raw { connection, api_version: String::new() };
        let said = raw.ping().await?;
        let version = OnceCell::new();
        let offered = said.api_version.as_deref().and_then(ApiVersion::parse);
        let ApiVersion(major, minor) = match offered.filter(|offered| *offered <= NEWEST_API) {
            Some(offered) => offered,
            // It has left older versions behind, perhaps, or is none of Docker's.
            None => negotiate(version.get_or_try_init(|| ask_version(&raw)).await?)?,
        };
        raw.api_version = format!("{major}.{minor}");
        let docker = raw.connection.bollard(major as usize, minor as usize)?;
        let greeting = Greeting { version: said.docker_version(), is_near: raw.connection.is_near };
        Ok(Self { raw, docker, greeting, version })
    }

    /// The address, as a person would write it.
    pub fn address(&self) -> &str {
        &self.raw.connection.address
    }

    /// One of bollard's calls that waits for nothing, with its error in our words.
    fn typed<'a, T: Send + 'a>(
        &'a self,
        call: &'a str,
        asked: impl Future<Output = std::result::Result<T, BollardError>> + Send + 'a,
    ) -> BoxFuture<'a, Result<T>> {
        self.lasting(call, patience() * 2, asked)
    }

    /// One that may last this long. On the heap: bollard's futures are large, and go through several hands.
    fn lasting<'a, T: Send + 'a>(
        &'a self,
        call: &'a str,
        limit: Duration,
        asked: impl Future<Output = std::result::Result<T, BollardError>> + Send + 'a,
    ) -> BoxFuture<'a, Result<T>> {
        let asked = asked.map_err(|error| self.raw.failed(call, &error));
        Box::pin(traced(call, within(call, limit, asked)))
    }

    /// The client for a call whose answer may take this long to begin.
    fn patient(&self, patience: Duration) -> Docker {
        self.docker.clone().with_timeout(patience)
    }

    /// Whether the container has a terminal: its output is then one stream without frames.
    async fn has_terminal(&self, call: &str, container: &str) -> Result<bool> {
        let path = format!("/containers/{}/json", in_path(container));
        let raw = self.raw.json(ApiRequest::new(call, "GET", path)).await?;
        Ok(raw.pointer("/Config/Tty").and_then(Value::as_bool).unwrap_or_default())
    }

    /// A whole stream.
    async fn whole(
        &self,
        call: &str,
        mut pieces: impl Stream<Item = std::result::Result<Bytes, BollardError>> + Unpin,
    ) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while let Some(piece) = pieces.try_next().await.map_err(|error| self.raw.failed(call, &error))? {
            grow(call, &mut bytes, &piece)?;
        }
        Ok(bytes)
    }

    /// What is printed, in our words.
    fn printed(
        &self,
        call: String,
        output: impl Stream<Item = std::result::Result<LogOutput, BollardError>> + Send + 'static,
    ) -> Pin<Box<dyn Stream<Item = Result<Printed>> + Send>> {
        let raw = self.raw.clone();
        Box::pin(output.map(move |piece| match piece {
            Ok(LogOutput::StdErr { message }) => Ok(Printed::Stderr(message)),
            Ok(printed) => Ok(Printed::Stdout(printed.into_bytes())),
            Err(error) => Err(raw.failed(&call, &error)),
        }))
    }

    /// Creates and starts an exec, reads what it prints, and asks for its exit code once it has ended.
    async fn exec_to_end(&self, call: &str, container: &str, command: &[&str]) -> Result<ExecOutput> {
        let options = CreateExecOptions {
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(command.to_vec()),
            ..CreateExecOptions::default()
        };
        let container = in_path(container);
        let exec = self.typed(call, self.docker.create_exec(&container, options)).await?.id;
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let start = async {
            let failed = |error| self.raw.failed(call, &error);
            let started = self.docker.start_exec(&exec, None::<StartExecOptions>).await.map_err(failed)?;
            if let StartExecResults::Attached { mut output, .. } = started {
                while let Some(piece) = output.try_next().await.map_err(failed)? {
                    match piece {
                        LogOutput::StdErr { message } => grow(call, &mut stderr, &message)?,
                        piece => grow(call, &mut stdout, &piece.into_bytes())?,
                    }
                }
            }
            Ok(())
        };
        traced(call, within(call, UNLIMITED, start)).await?;
        loop {
            // The streams end a moment before the engine knows the exit code.
            let state = self.typed(call, self.docker.inspect_exec(&exec)).await?;
            if let Some(exit_code) = state.exit_code.filter(|_| state.running != Some(true)) {
                return Ok(ExecOutput { exit_code, stdout: text(&stdout), stderr: text(&stderr) });
            }
            sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn ask_version(raw: &Raw) -> Result<Value> {
    raw.json(ApiRequest::new("version", "GET", "/version")).await
}

/// The API version to speak: the engine's, or the newest known here.
fn negotiate(version: &Value) -> Result<ApiVersion> {
    let offered = answers::text(version, "/ApiVersion");
    let oldest = answers::text(version, "/MinAPIVersion");
    let newest = ApiVersion::parse(&offered)
        .ok_or_else(|| unexpected("version", "it names no API version: is this a Docker engine?"))?;
    if ApiVersion::parse(&oldest).is_some_and(|oldest| oldest > NEWEST_API) {
        return Err(configuration(
            format!(
                "the engine speaks API {oldest} and later; {}.{} is the newest known here",
                NEWEST_API.0, NEWEST_API.1
            ),
            "use a newer tarsup",
        ));
    }
    Ok(newest.min(NEWEST_API))
}

fn json_body(body: &Value) -> Vec<u8> {
    body.to_string().into_bytes()
}

/// A filter by labels, as the queries of lists take it.
fn by_labels(labels: &[String]) -> String {
    in_query(&json!({ "label": labels }).to_string())
}

/// Takes the environment out of what an engine says of a create: it quotes entries that it does not like.
fn without_environment(error: EngineError, body: &CreateBody) -> EngineError {
    let entries: Vec<&str> =
        body.0.get("Env").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let hide = |message: String| {
        entries.iter().filter(|entry| !entry.is_empty()).fold(message, |message, entry| {
            let name = entry.split_once('=').map_or("", |(name, _)| name);
            message.replace(entry, &format!("{name}=…"))
        })
    };
    match error {
        EngineError::Answered { call, status, message } => {
            EngineError::Answered { call, status, message: hide(message) }
        }
        EngineError::NotFound { call, message } => EngineError::NotFound { call, message: hide(message) },
        EngineError::Conflict { call, message } => EngineError::Conflict { call, message: hide(message) },
        other => other,
    }
}

/// Standard output and standard error of frames: one byte of stream, three of nothing, four of length, the bytes.
fn frames(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (header, rest) = bytes.split_first_chunk::<8>()?;
        let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
        // A stream that was cut off keeps what there is.
        let (payload, rest) = rest.split_at(length.min(rest.len()));
        bytes = rest;
        Some((header[0], payload))
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[async_trait]
impl Engine for DockerEngine {
    fn greeting(&self) -> Greeting {
        self.greeting.clone()
    }

    async fn info(&self) -> Result<EngineInfo> {
        let version = self.version.get_or_try_init(|| ask_version(&self.raw));
        let info = self.raw.model(ApiRequest::new("info", "GET", "/info"));
        let (version, info) = futures_util::try_join!(version, info)?;
        answers::info("info", (&self.raw.api_version, self.greeting.is_near), version, info)
    }

    async fn list_containers(&self, labels: &[String]) -> Result<Vec<ContainerSummary>> {
        let path = format!("/containers/json?all=true&filters={}", by_labels(labels));
        let listed: Vec<_> = self.raw.model(ApiRequest::new("list containers", "GET", path)).await?;
        listed.into_iter().map(|one| answers::container_summary("list containers", one)).collect()
    }

    async fn inspect_container(&self, container: &str) -> Result<Option<Container>> {
        let call = format!("inspect {container}");
        let path = format!("/containers/{}/json", in_path(container));
        let found = absent(self.raw.json(ApiRequest::new(&call, "GET", path)).await)?;
        found.map(|raw| answers::container(&call, raw)).transpose()
    }

    async fn create_container(&self, name: &str, body: &CreateBody) -> Result<String> {
        let call = format!("create {name}");
        let json = json_body(&Value::Object(body.0.clone()));
        let path = format!("/containers/create?name={}", in_query(name));
        let created = self.raw.json(ApiRequest::new(&call, "POST", path).body(json)).await;
        let created = created.map_err(|error| without_environment(error, body))?;
        answers::required(&call, &created, "/Id")
    }

    async fn start_container(&self, container: &str) -> Result<()> {
        let target = in_path(container);
        let start = self.docker.start_container(&target, None::<query::StartContainerOptions>);
        self.typed(&format!("start {container}"), start).await
    }

    async fn stop_container(&self, container: &str, grace: Duration) -> Result<()> {
        // The API counts whole seconds: rounded up, so that nothing is killed before its time.
        let seconds = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
        let options =
            query::StopContainerOptions { signal: None, t: Some(i32::try_from(seconds).unwrap_or(i32::MAX)) };
        let (target, limit) = (in_path(container), grace + patience());
        let docker = self.patient(limit);
        let stop = docker.stop_container(&target, Some(options));
        self.lasting(&format!("stop {container}"), limit + patience(), stop).await
    }

    async fn rename_container(&self, container: &str, name: &str) -> Result<()> {
        let target = in_path(container);
        let options = query::RenameContainerOptions { name: name.to_owned() };
        let rename = self.docker.rename_container(&target, options);
        self.typed(&format!("rename {container} to {name}"), rename).await
    }

    async fn update_restart(&self, container: &str, policy: &RestartPolicy) -> Result<()> {
        let call = format!("update {container} to restart={}", policy.name);
        let name = policy.name.parse().map_err(|_| unexpected(&call, "there is no such restart policy"))?;
        let count = i64::from(policy.maximum_retry_count);
        let body = ContainerUpdateBody {
            restart_policy: Some(PolicyModel { name: Some(name), maximum_retry_count: Some(count) }),
            ..ContainerUpdateBody::default()
        };
        self.typed(&call, self.docker.update_container(&in_path(container), body)).await.map(drop)
    }

    async fn remove_container(&self, container: &str) -> Result<()> {
        let target = in_path(container);
        let options = query::RemoveContainerOptions { v: false, force: false, link: false };
        let remove = self.docker.remove_container(&target, Some(options));
        self.typed(&format!("remove {container}"), remove).await
    }

    async fn wait_container(&self, container: &str) -> Result<i64> {
        let call = format!("wait {container}");
        let path = format!("/containers/{}/wait", in_path(container));
        loop {
            let asked = ApiRequest::new(&call, "POST", path.as_str()).within(UNLIMITED);
            if let Ok(ended) = timeout(patience(), self.raw.json(asked)).await {
                let code = ended?["StatusCode"].as_i64();
                return code.ok_or_else(|| unexpected(&call, "it names no exit code"));
            }
            // It runs on, or the engine says nothing any more: that shows with a question that is answered at once.
            let found = self.inspect_container(container).await?;
            let found = found.ok_or_else(|| super::raw::lost(&call, "the container is gone"))?;
            if !matches!(found.status, Status::Running | Status::Paused | Status::Restarting) {
                return Ok(found.exit_code);
            }
        }
    }

    async fn attach_container(&self, container: &str) -> Result<Attached> {
        let call = format!("attach {container}");
        let options = query::AttachContainerOptions {
            stream: true,
            stdin: true,
            stdout: true,
            stderr: true,
            ..Default::default()
        };
        let container = in_path(container);
        let attached = self.typed(&call, self.docker.attach_container(&container, Some(options))).await?;
        Ok(Attached { output: self.printed(call, attached.output), input: attached.input })
    }

    async fn processes(&self, container: &str) -> Result<Vec<String>> {
        let call = format!("top {container}");
        let path = format!("/containers/{}/top?ps_args={}", in_path(container), in_query("-eo pid,args"));
        let listed = match self.raw.json(ApiRequest::new(&call, "GET", path)).await {
            // It does not run.
            Err(EngineError::Conflict { .. }) => return Ok(Vec::new()),
            listed => listed?,
        };
        let rows = listed["Processes"].as_array().into_iter().flatten();
        Ok(rows.filter_map(|row| row.as_array()?.last()?.as_str().map(str::to_owned)).collect())
    }

    async fn changes(&self, container: &str) -> Result<Vec<Change>> {
        let call = format!("changes of {container}");
        let path = format!("/containers/{}/changes", in_path(container));
        // An engine says `null` where nothing changed.
        let listed = self.raw.json(ApiRequest::new(&call, "GET", path)).await?;
        let kind = |number: &Value| match number.as_u64() {
            Some(1) => ChangeKind::Added,
            Some(2) => ChangeKind::Deleted,
            _ => ChangeKind::Modified,
        };
        let change =
            |one: &Value| Some(Change { path: one["Path"].as_str()?.to_owned(), kind: kind(&one["Kind"]) });
        Ok(listed.as_array().into_iter().flatten().filter_map(change).collect())
    }

    async fn logs(&self, container: &str, tail: u32) -> Result<String> {
        let call = format!("logs {container}");
        let terminal = self.has_terminal(&call, container).await?;
        let path = format!("/containers/{}/logs?stdout=1&stderr=1&tail={tail}", in_path(container));
        let bytes = self.raw.bytes(ApiRequest::new(&call, "GET", path)).await?;
        if terminal {
            return Ok(text(&bytes));
        }
        Ok(text(&frames(&bytes).flat_map(|(_, payload)| payload).copied().collect::<Vec<u8>>()))
    }

    async fn exec(&self, container: &str, command: &[&str], timeout: Duration) -> Result<ExecOutput> {
        // The command's name alone: its arguments may hold what nobody else should read.
        let call = format!("exec {} in {container}", command.first().unwrap_or(&""));
        match timeout_at(Instant::now() + timeout, self.exec_to_end(&call, container, command)).await {
            Ok(ended) => ended,
            Err(_) => Err(EngineError::TimedOut { call, after: timeout }),
        }
    }

    async fn exec_attached(&self, container: &str, command: &[&str]) -> Result<Executing> {
        let call = format!("exec {} in {container}", command.first().unwrap_or(&""));
        let options = CreateExecOptions {
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(command.to_vec()),
            ..CreateExecOptions::default()
        };
        let id = self.typed(&call, self.docker.create_exec(&in_path(container), options)).await?.id;
        match self.typed(&call, self.docker.start_exec(&id, None::<StartExecOptions>)).await? {
            StartExecResults::Attached { output, input } => {
                let streams = Attached { output: self.printed(call, output), input };
                Ok(Executing { id, streams })
            }
            StartExecResults::Detached => Err(unexpected(&call, "it was started without its streams")),
        }
    }

    async fn exec_code(&self, exec: &str) -> Result<Option<i64>> {
        let state = self.typed("inspect exec", self.docker.inspect_exec(exec)).await?;
        Ok(state.exit_code.filter(|_| state.running != Some(true)))
    }

    async fn put_archive(&self, container: &str, path: &str, tar: Vec<u8>) -> Result<()> {
        let call = format!("write {path} in {container}");
        let options = query::UploadToContainerOptions { path: path.to_owned(), ..Default::default() };
        let tar = bollard::body_full(Bytes::from(tar));
        self.typed(&call, self.docker.upload_to_container(&in_path(container), Some(options), tar)).await
    }

    async fn get_archive(&self, container: &str, path: &str) -> Result<Option<Vec<u8>>> {
        let call = format!("read {path} of {container}");
        let options = query::DownloadFromContainerOptions { path: path.to_owned() };
        let read = self.whole(&call, self.docker.download_from_container(&in_path(container), Some(options)));
        match traced(&call, within(&call, patience() * 2, read)).await {
            Ok(tar) => Ok(Some(tar)),
            // 404 is either's: the path's or the container's.
            Err(error @ EngineError::NotFound { .. }) => match self.inspect_container(container).await? {
                Some(_) => Ok(None),
                None => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    async fn connect_network(&self, network: &str, container: &str, endpoint: &Value) -> Result<()> {
        let body = json!({ "Container": container, "EndpointConfig": endpoint });
        let path = format!("/networks/{}/connect", in_path(network));
        let call = format!("connect {container} to {network}");
        self.raw.bytes(ApiRequest::new(&call, "POST", path).body(json_body(&body))).await.map(drop)
    }

    async fn list_images(&self) -> Result<Vec<ImageSummary>> {
        let listed: Vec<_> = self.raw.model(ApiRequest::new("list images", "GET", "/images/json")).await?;
        Ok(listed.into_iter().map(answers::image_summary).collect())
    }

    async fn list_images_of(&self, repository: &str) -> Result<Vec<ImageSummary>> {
        let filter = in_query(&json!({ "reference": [repository] }).to_string());
        let path = format!("/images/json?filters={filter}");
        let call = format!("list images of {repository}");
        let listed: Vec<_> = self.raw.model(ApiRequest::new(&call, "GET", path)).await?;
        Ok(listed.into_iter().map(answers::image_summary).collect())
    }

    async fn inspect_image(&self, image: &str) -> Result<Option<EngineImage>> {
        let call = format!("inspect {image}");
        let path = format!("/images/{}/json", in_path(image));
        let found = absent(self.raw.json(ApiRequest::new(&call, "GET", path)).await)?;
        found.map(|raw| answers::image(&call, raw)).transpose()
    }

    async fn image_history(&self, image: &str) -> Result<Vec<HistoryItem>> {
        let call = format!("history {image}");
        let path = format!("/images/{}/history", in_path(image));
        // Go writes an empty list as nothing.
        let told: Option<Vec<_>> = self.raw.model(ApiRequest::new(&call, "GET", path)).await?;
        Ok(told.into_iter().flatten().map(answers::history_item).collect())
    }

    async fn load_image(&self, tar: ByteStream) -> Result<Vec<String>> {
        let moved = Moved::now();
        let marked = moved.clone();
        let tar: ByteStream = shareable(tar.inspect(move |_| marked.mark()));
        let load = self.raw.tar("load", "/images/load?quiet=true", tar);
        traced("load", moved.watch("load", patience_of_images(), load)).await
    }

    async fn save_image(&self, image: &str) -> Result<ByteStream> {
        let call = format!("save {image}");
        let mut answer = Box::pin(self.patient(UNLIMITED).export_image(&in_path(image)));
        // The first piece tells success from failure: bollard yields an answer's error in place of its body.
        let first = self.lasting(&call, patience_of_images(), answer.try_next()).await?;
        let of_rest = call.clone();
        let rest = answer.map_err(move |error| super::raw::lost(&of_rest, &words(&error)));
        let rest = flowing(call, rest).map_err(std::io::Error::other);
        Ok(shareable(stream::iter(first.map(Ok)).chain(rest)))
    }

    async fn remove_image(&self, image: &str) -> Result<()> {
        let call = format!("remove image {image}");
        let target = in_path(image);
        let removed = self.docker.remove_image(&target, None::<query::RemoveImageOptions>, None);
        absent(self.typed(&call, removed).await).map(drop)
    }

    async fn tag_image(&self, image: &str, repository: &str, tag: &str) -> Result<()> {
        let call = format!("tag {image} {repository}:{tag}");
        let options = query::TagImageOptions { repo: Some(repository.to_owned()), tag: Some(tag.to_owned()) };
        self.typed(&call, self.docker.tag_image(&in_path(image), Some(options))).await
    }

    async fn inspect_network(&self, network: &str) -> Result<Option<Network>> {
        let target = in_path(network);
        let call = format!("inspect network {network}");
        let path = format!("/networks/{target}");
        let found = absent(self.raw.model(ApiRequest::new(&call, "GET", path)).await)?;
        found.map(|found| answers::network(&call, found)).transpose()
    }

    async fn create_network(&self, body: &Value) -> Result<String> {
        let call = format!("create network {}", body["Name"].as_str().unwrap_or_default());
        // Two networks of one name are possible otherwise (API below 1.44).
        let mut body = body.clone();
        if let Some(body) = body.as_object_mut() {
            body.entry("CheckDuplicate").or_insert(Value::Bool(true));
        }
        let request = ApiRequest::new(&call, "POST", "/networks/create").body(json_body(&body));
        answers::required(&call, &self.raw.json(request).await?, "/Id")
    }

    async fn inspect_volume(&self, volume: &str) -> Result<Option<BTreeMap<String, String>>> {
        let call = format!("inspect volume {volume}");
        let path = format!("/volumes/{}", in_path(volume));
        let found: Option<Volume> = absent(self.raw.model(ApiRequest::new(&call, "GET", path)).await)?;
        Ok(found.map(|found| found.labels.into_iter().collect()))
    }

    async fn list_volumes(&self, labels: &[String]) -> Result<Vec<(String, BTreeMap<String, String>)>> {
        let path = format!("/volumes?filters={}", by_labels(labels));
        let listed: VolumeListResponse = self.raw.model(ApiRequest::new("list volumes", "GET", path)).await?;
        let volumes = listed.volumes.unwrap_or_default().into_iter();
        let mut volumes: Vec<_> =
            volumes.map(|volume| (volume.name, volume.labels.into_iter().collect())).collect();
        volumes.sort();
        Ok(volumes)
    }

    async fn create_volume(&self, body: &Value) -> Result<BTreeMap<String, String>> {
        let call = format!("create volume {}", body["Name"].as_str().unwrap_or_default());
        let body: VolumeCreateRequest =
            serde_json::from_value(body.clone()).map_err(|error| unexpected(&call, &error.to_string()))?;
        let made = self.typed(&call, self.docker.create_volume(body)).await?;
        Ok(made.labels.into_iter().collect())
    }

    async fn remove_volume(&self, volume: &str) -> Result<()> {
        let target = in_path(volume);
        let options = query::RemoveVolumeOptions { force: false };
        let remove = self.docker.remove_volume(&target, Some(options));
        self.typed(&format!("remove volume {volume}"), remove).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn api_version_is_the_older_of_both() {
        let version = |newest: &str, oldest: &str| json!({"ApiVersion": newest, "MinAPIVersion": oldest});
        assert_eq!(negotiate(&version("1.41", "1.12")).unwrap(), ApiVersion(1, 41));
        assert_eq!(negotiate(&version("1.9", "")).unwrap(), ApiVersion(1, 9));
        assert_eq!(negotiate(&version("1.99", "1.44")).unwrap(), NEWEST_API);
        assert!(matches!(negotiate(&version("2.0", "1.60")), Err(EngineError::Configuration { .. })));
        assert!(negotiate(&json!({"answer": 42})).is_err());
    }

    #[test]
    fn output_is_taken_apart_and_a_cut_frame_keeps_what_there_is() {
        let mut bytes = vec![1, 0, 0, 0, 0, 0, 0, 2, b'o', b'k', 2, 0, 0, 0, 0, 0, 0, 1, b'!'];
        bytes.extend([1, 0, 0, 0, 0, 0, 0, 9, b'c', b'u', b't']);
        let pieces: Vec<(u8, &[u8])> = frames(&bytes).collect();
        assert_eq!(pieces, [(1, b"ok".as_slice()), (2, b"!".as_slice()), (1, b"cut".as_slice())]);
        assert_eq!(frames(&[1, 0, 0]).count(), 0);
    }

    #[test]
    fn environment_is_taken_out_of_what_the_engine_says() {
        let body = json!({"Env": ["MYSQL_ROOT_PASSWORD=s3cret", "=odd"]});
        let body = CreateBody(body.as_object().unwrap().clone());
        let said = unexpected("create x", "invalid environment variable: MYSQL_ROOT_PASSWORD=s3cret, =odd");
        let text = without_environment(said, &body).to_string();
        assert!(
            text.contains("MYSQL_ROOT_PASSWORD=…") && !text.contains("s3cret") && !text.contains("odd"),
            "{text}"
        );
    }
}
