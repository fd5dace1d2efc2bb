//! A real Docker engine: each method is one call of its HTTP API.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use bollard::errors::Error as BollardError;
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout_at};

use super::address::{self, Address, ConnectOptions, Surroundings, configuration};
use super::raw::{Body, PATIENCE, Raw, Request, UNLIMITED, absent, in_path, in_query, lost, unexpected};
use super::{
    ByteStream, Container, CreateBody, Engine, EngineError, EngineImage, EngineInfo, ExecOutput, Network,
    RestartPolicy, Result, answers,
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
}

impl DockerEngine {
    /// Finds the engine that flags, environment and docker's contexts name, asks for its version and agrees on an API.
    ///
    /// # Errors
    /// [`EngineError::Configuration`] for an address or a context that cannot be used, [`EngineError::Unreachable`]
    /// where no engine answers.
    pub async fn connect(options: &ConnectOptions) -> Result<Self> {
        let around = Surroundings { variable: &|name| std::env::var(name).ok() };
        let address = address::resolve(options, &around)?;
        let docker = open(&address)?;
        let mut raw = Raw { docker, address: address.to_string(), api_version: String::new() };
        let version = raw.json(Request::new("version", "GET", "/version")).await?;
        raw.api_version = negotiate(&version)?;
        Ok(Self { raw })
    }

    /// The address, as a person would write it.
    pub fn address(&self) -> &str {
        &self.raw.address
    }

    /// Whether the container has a terminal: its output is then one stream without frames.
    async fn has_terminal(&self, call: &str, container: &str) -> Result<bool> {
        let path = format!("/containers/{}/json", in_path(container));
        let raw = self.raw.json(Request::new(call, "GET", path)).await?;
        Ok(raw.pointer("/Config/Tty").and_then(Value::as_bool).unwrap_or_default())
    }

    /// Creates and starts an exec, reads what it prints, and asks for its exit code once it has ended.
    async fn exec_to_end(&self, call: &str, container: &str, command: &[&str]) -> Result<ExecOutput> {
        let body = json!({ "AttachStdout": true, "AttachStderr": true, "Cmd": command });
        let path = format!("/containers/{}/exec", in_path(container));
        let created = self.raw.json(Request::new(call, "POST", path).body(json_body(&body))).await?;
        let id: String = answers::required(call, &created, "/Id")?;
        let start = Request::new(call, "POST", format!("/exec/{id}/start"))
            .body(json_body(&json!({ "Detach": false, "Tty": false })));
        let (stdout, stderr) = demultiplex(&self.raw.bytes(start).await?);
        loop {
            // The streams end a moment before the engine knows the exit code.
            let state = self.raw.json(Request::new(call, "GET", format!("/exec/{id}/json"))).await?;
            if let Some(exit_code) = state["ExitCode"].as_i64().filter(|_| state["Running"] != true) {
                return Ok(ExecOutput { exit_code, stdout: text(&stdout), stderr: text(&stderr) });
            }
            sleep(Duration::from_millis(10)).await;
        }
    }
}

/// A connection that has not spoken yet.
fn open(address: &Address) -> Result<bollard::Docker> {
    let seconds = PATIENCE.as_secs();
    let version = bollard::API_DEFAULT_VERSION;
    let opened = match address {
        Address::Unix(path) => bollard::Docker::connect_with_unix(path, seconds, version),
        Address::Tcp(host) => bollard::Docker::connect_with_http(host, seconds, version),
        Address::Tls(host, folder) => open_tls(host, folder),
    };
    opened.map_err(|error| match error {
        BollardError::SocketNotFoundError(path) => EngineError::Unreachable {
            address: address.to_string(),
            why: format!("there is no socket {path}"),
        },
        other => configuration(
            format!("{address} cannot be used: {other}"),
            "see that ca.pem, cert.pem and key.pem are there and readable",
        ),
    })
}

fn open_tls(host: &str, folder: &Path) -> std::result::Result<bollard::Docker, BollardError> {
    let [key, cert, ca] = ["key.pem", "cert.pem", "ca.pem"].map(|name| folder.join(name));
    // Otherwise a missing key shows as a failed handshake.
    if let Some(path) = [&key, &cert, &ca].into_iter().find(|path| !path.exists()) {
        return Err(BollardError::CertPathError { path: path.clone() });
    }
    bollard::Docker::connect_with_ssl(
        host,
        &key,
        &cert,
        &ca,
        PATIENCE.as_secs(),
        bollard::API_DEFAULT_VERSION,
    )
}

/// The API version to speak: the engine's, or the newest known here.
fn negotiate(version: &Value) -> Result<String> {
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
    let ApiVersion(major, minor) = newest.min(NEWEST_API);
    Ok(format!("{major}.{minor}"))
}

/// The ids of a list.
fn ids(call: &str, list: &Value) -> Result<Vec<String>> {
    list.as_array().into_iter().flatten().map(|entry| answers::required(call, entry, "/Id")).collect()
}

fn json_body(body: &Value) -> Body {
    Body::Json(body.to_string().into_bytes())
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

fn demultiplex(bytes: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    for (stream, payload) in frames(bytes) {
        if stream == 2 { &mut stderr } else { &mut stdout }.extend_from_slice(payload);
    }
    (stdout, stderr)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[async_trait]
impl Engine for DockerEngine {
    async fn info(&self) -> Result<EngineInfo> {
        let version = self.raw.json(Request::new("version", "GET", "/version")).await?;
        let info = self.raw.json(Request::new("info", "GET", "/info")).await?;
        answers::info("info", &self.raw.api_version, &version, &info)
    }

    async fn list_containers(&self, labels: &[String]) -> Result<Vec<Container>> {
        let filters = json!({ "label": labels }).to_string();
        let path = format!("/containers/json?all=1&filters={}", in_query(&filters));
        let list = self.raw.json(Request::new("list containers", "GET", path)).await?;
        let mut found = Vec::new();
        for id in ids("list containers", &list)? {
            // What went away in between is left out.
            found.extend(self.inspect_container(&id).await?);
        }
        Ok(found)
    }

    async fn inspect_container(&self, container: &str) -> Result<Option<Container>> {
        let call = format!("inspect {container}");
        let path = format!("/containers/{}/json", in_path(container));
        let found = absent(self.raw.json(Request::new(&call, "GET", path)).await)?;
        found.map(|raw| answers::container(&call, raw)).transpose()
    }

    async fn create_container(&self, name: &str, body: &CreateBody) -> Result<String> {
        let call = format!("create {name}");
        let json = Body::Json(Value::Object(body.0.clone()).to_string().into_bytes());
        let path = format!("/containers/create?name={}", in_query(name));
        let created = self.raw.json(Request::new(&call, "POST", path).body(json)).await;
        let created = created.map_err(|error| without_environment(error, body))?;
        answers::required(&call, &created, "/Id")
    }

    async fn start_container(&self, container: &str) -> Result<()> {
        let path = format!("/containers/{}/start", in_path(container));
        self.raw.done(Request::new(&format!("start {container}"), "POST", path)).await
    }

    async fn stop_container(&self, container: &str, grace: Duration) -> Result<()> {
        // The API counts whole seconds: rounded up, so that nothing is killed before its time.
        let seconds = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
        let path = format!("/containers/{}/stop?t={seconds}", in_path(container));
        let call = format!("stop {container}");
        self.raw.done(Request::new(&call, "POST", path).patience(grace + PATIENCE)).await
    }

    async fn rename_container(&self, container: &str, name: &str) -> Result<()> {
        let path = format!("/containers/{}/rename?name={}", in_path(container), in_query(name));
        self.raw.done(Request::new(&format!("rename {container} to {name}"), "POST", path)).await
    }

    async fn update_restart(&self, container: &str, policy: &RestartPolicy) -> Result<()> {
        let body = json!({
            "RestartPolicy": { "Name": policy.name, "MaximumRetryCount": policy.maximum_retry_count }
        });
        let path = format!("/containers/{}/update", in_path(container));
        let call = format!("update {container} to restart={}", policy.name);
        self.raw.done(Request::new(&call, "POST", path).body(json_body(&body))).await
    }

    async fn remove_container(&self, container: &str) -> Result<()> {
        let path = format!("/containers/{}?v=0&force=0", in_path(container));
        self.raw.done(Request::new(&format!("remove {container}"), "DELETE", path)).await
    }

    async fn wait_container(&self, container: &str) -> Result<i64> {
        let call = format!("wait {container}");
        let path = format!("/containers/{}/wait", in_path(container));
        let ended = self.raw.json(Request::new(&call, "POST", path).patience(UNLIMITED)).await?;
        answers::required(&call, &ended, "/StatusCode")
    }

    async fn logs(&self, container: &str, tail: u32) -> Result<String> {
        let call = format!("logs {container}");
        let terminal = self.has_terminal(&call, container).await?;
        let path = format!("/containers/{}/logs?stdout=1&stderr=1&tail={tail}", in_path(container));
        let bytes = self.raw.bytes(Request::new(&call, "GET", path)).await?;
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

    async fn put_archive(&self, container: &str, path: &str, tar: Vec<u8>) -> Result<()> {
        let call = format!("write {path} in {container}");
        let target = format!("/containers/{}/archive?path={}", in_path(container), in_query(path));
        let tar: ByteStream = Box::pin(stream::iter([Ok(tar.into())]));
        self.raw.done(Request::new(&call, "PUT", target).body(Body::Tar(tar))).await
    }

    async fn get_archive(&self, container: &str, path: &str) -> Result<Option<Vec<u8>>> {
        let call = format!("read {path} of {container}");
        let target = format!("/containers/{}/archive?path={}", in_path(container), in_query(path));
        match self.raw.bytes(Request::new(&call, "GET", target)).await {
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
        self.raw.done(Request::new(&call, "POST", path).body(json_body(&body))).await
    }

    async fn list_images(&self) -> Result<Vec<EngineImage>> {
        let list = self.raw.json(Request::new("list images", "GET", "/images/json")).await?;
        let mut found = Vec::new();
        for id in ids("list images", &list)? {
            found.extend(self.inspect_image(&id).await?);
        }
        Ok(found)
    }

    async fn inspect_image(&self, image: &str) -> Result<Option<EngineImage>> {
        let call = format!("inspect {image}");
        let path = format!("/images/{}/json", in_path(image));
        let found = absent(self.raw.json(Request::new(&call, "GET", path)).await)?;
        found.map(|raw| answers::image(&call, raw)).transpose()
    }

    async fn load_image(&self, tar: ByteStream) -> Result<Vec<String>> {
        let request =
            Request::new("load", "POST", "/images/load?quiet=1").body(Body::Tar(tar)).patience(UNLIMITED);
        let answer = self.raw.bytes(request).await?;
        let mut said = Vec::new();
        for message in serde_json::Deserializer::from_slice(&answer).into_iter::<Value>() {
            let message = message.map_err(|_| lost("load", "its answer is cut off"))?;
            if let Some(error) = message.pointer("/errorDetail/message").or(message.get("error")) {
                return Err(unexpected("load", error.as_str().unwrap_or("it failed without a word").trim()));
            }
            said.extend(message["stream"].as_str().map(|line| line.trim_end().to_owned()));
        }
        Ok(said)
    }

    async fn save_image(&self, image: &str) -> Result<ByteStream> {
        let call = format!("save {image}");
        let path = format!("/images/{}/get", in_path(image));
        let tar = self.raw.stream(Request::new(&call, "GET", path).patience(UNLIMITED)).await?;
        Ok(Box::pin(
            tar.map(move |piece| {
                piece.map_err(|error| std::io::Error::other(lost(&call, &error.to_string())))
            }),
        ))
    }

    async fn tag_image(&self, image: &str, repository: &str, tag: &str) -> Result<()> {
        let call = format!("tag {image} {repository}:{tag}");
        let path =
            format!("/images/{}/tag?repo={}&tag={}", in_path(image), in_query(repository), in_query(tag));
        self.raw.done(Request::new(&call, "POST", path)).await
    }

    async fn inspect_network(&self, network: &str) -> Result<Option<Network>> {
        let call = format!("inspect network {network}");
        let path = format!("/networks/{}", in_path(network));
        let found = absent(self.raw.json(Request::new(&call, "GET", path)).await)?;
        found.map(|raw| answers::network(&call, &raw)).transpose()
    }

    async fn create_network(&self, body: &Value) -> Result<String> {
        let call = format!("create network {}", body["Name"].as_str().unwrap_or_default());
        // Two networks of one name are possible otherwise (API below 1.44).
        let mut body = body.clone();
        if let Some(body) = body.as_object_mut() {
            body.entry("CheckDuplicate").or_insert(Value::Bool(true));
        }
        let request = Request::new(&call, "POST", "/networks/create").body(json_body(&body));
        answers::required(&call, &self.raw.json(request).await?, "/Id")
    }

    async fn inspect_volume(&self, volume: &str) -> Result<Option<BTreeMap<String, String>>> {
        let call = format!("inspect volume {volume}");
        let path = format!("/volumes/{}", in_path(volume));
        let found = absent(self.raw.json(Request::new(&call, "GET", path)).await)?;
        found.map(|raw| answers::volume(&call, &raw)).transpose()
    }

    async fn list_volumes(&self, labels: &[String]) -> Result<Vec<(String, BTreeMap<String, String>)>> {
        let filters = json!({ "label": labels }).to_string();
        let path = format!("/volumes?filters={}", in_query(&filters));
        let listed = self.raw.json(Request::new("list volumes", "GET", path)).await?;
        answers::volumes("list volumes", &listed)
    }

    async fn create_volume(&self, body: &Value) -> Result<BTreeMap<String, String>> {
        let call = format!("create volume {}", body["Name"].as_str().unwrap_or_default());
        let request = Request::new(&call, "POST", "/volumes/create").body(json_body(body));
        answers::volume(&call, &self.raw.json(request).await?)
    }

    async fn remove_volume(&self, volume: &str) -> Result<()> {
        let path = format!("/volumes/{}?force=0", in_path(volume));
        self.raw.done(Request::new(&format!("remove volume {volume}"), "DELETE", path)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn api_version_is_the_older_of_both() {
        let version = |newest: &str, oldest: &str| json!({"ApiVersion": newest, "MinAPIVersion": oldest});
        assert_eq!(negotiate(&version("1.41", "1.12")).unwrap(), "1.41");
        assert_eq!(negotiate(&version("1.9", "")).unwrap(), "1.9");
        assert_eq!(negotiate(&version("1.99", "1.44")).unwrap(), "1.51");
        assert!(matches!(negotiate(&version("2.0", "1.60")), Err(EngineError::Configuration { .. })));
        assert!(negotiate(&json!({"answer": 42})).is_err());
    }

    #[test]
    fn output_is_taken_apart_and_a_cut_frame_keeps_what_there_is() {
        let mut bytes = vec![1, 0, 0, 0, 0, 0, 0, 2, b'o', b'k', 2, 0, 0, 0, 0, 0, 0, 1, b'!'];
        bytes.extend([1, 0, 0, 0, 0, 0, 0, 9, b'c', b'u', b't']);
        assert_eq!(demultiplex(&bytes), (b"okcut".to_vec(), b"!".to_vec()));
        assert_eq!(demultiplex(&[1, 0, 0]), (Vec::new(), Vec::new()));
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
