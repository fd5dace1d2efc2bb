//! What keeps every field: one HTTP request to the engine, its body and its answer untouched.
//!
//! bollard's typed models drop what they do not know. So a container's inspect and create go past them, and with them
//! what is a part of a create body (an endpoint, a network that older engines want checked for duplicates), an image's
//! inspect (kept whole as well), and logs, which bollard takes for frames where a terminal wrote them.

use std::future::Future;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll};
use std::time::Duration;

use bollard::errors::Error as BollardError;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::{Request as HttpRequest, Response, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio::time::timeout;
use tracing::Instrument as _;

use super::connection::Connection;
use super::patience::{self, patience};
use super::{ByteStream, EngineError, Result, tls};
use crate::limits;

/// One request.
pub(super) struct ApiRequest<'a> {
    /// What errors call it, such as `create tars-framework`; never with an environment in it.
    pub call: &'a str,
    pub method: &'static str,
    /// Path and query below the version, percent-encoded.
    pub path: String,
    /// A JSON body; empty for none.
    pub body: Vec<u8>,
    /// How long the engine may take to begin its answer, and to say it.
    pub limit: Duration,
}

impl<'a> ApiRequest<'a> {
    pub fn new(call: &'a str, method: &'static str, path: impl Into<String>) -> Self {
        Self { call, method, path: path.into(), body: Vec::new(), limit: patience() }
    }

    pub fn body(mut self, body: Vec<u8>) -> Self {
        self.body = body;
        self
    }

    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }
}

/// The connection, and the version that paths begin with.
#[derive(Clone, Debug)]
pub(super) struct Raw {
    pub connection: Connection,
    /// The API version in use, such as `1.41`; empty until it is known, and then in no path.
    pub api_version: String,
}

impl Raw {
    /// Sends a request; the whole body of the answer. An answer that is not success is an error here.
    pub async fn bytes(&self, request: ApiRequest<'_>) -> Result<Bytes> {
        let call = request.call;
        traced(call, self.ask(request)).await
    }

    /// `GET /_ping`: what an engine's headers say of it. One that has no such page says nothing.
    pub async fn ping(&self) -> Result<Pinged> {
        let call = "ping";
        let asked = async {
            let (head, body) = self.send(ApiRequest::new(call, "GET", "/_ping")).await?.into_parts();
            // To its end: the connection is wanted for what follows.
            patience::whole(call, patience(), body).await?;
            let said = |name: &str| head.headers.get(name)?.to_str().ok().map(str::to_owned);
            if !head.status.is_success() {
                return Ok(Pinged::default());
            }
            Ok(Pinged { api_version: said("api-version"), server: said("server") })
        };
        traced(call, asked).await
    }

    async fn ask(&self, request: ApiRequest<'_>) -> Result<Bytes> {
        let (call, limit) = (request.call, request.limit);
        let answered = self.send(request).await?;
        let status = answered.status();
        let body = patience::whole(call, limit, answered.into_body()).await?;
        if status.is_success() || status.as_u16() == 304 {
            return Ok(body);
        }
        Err(refused_by(call, status, &body))
    }

    /// Sends a request; the answer as it begins.
    async fn send(&self, request: ApiRequest<'_>) -> Result<Response<Incoming>> {
        let ApiRequest { call, method, path, body, limit } = request;
        let request = HttpRequest::builder()
            .method(method)
            .uri(self.address_of(&path))
            .header("content-type", "application/json")
            .body(bollard::body_full(Bytes::from(body)))
            .map_err(|error| unexpected(call, &error.to_string()))?;
        match timeout(limit, self.connection.send(request)).await {
            Err(_) => Err(lost(call, "it does not answer")),
            Ok(Err(error)) => Err(self.failed(call, &BollardError::from(error))),
            Ok(Ok(answered)) => Ok(answered),
        }
    }

    fn address_of(&self, path: &str) -> String {
        let version =
            if self.api_version.is_empty() { String::new() } else { format!("/v{}", self.api_version) };
        format!("{}{version}{path}", self.connection.origin)
    }

    /// Sends a tar, piece by piece, however long that takes; what the engine says meanwhile, message by message. It is the caller
    /// who ends what stands still.
    pub async fn tar(&self, call: &str, path: &str, tar: ByteStream) -> Result<Vec<String>> {
        let request = HttpRequest::builder()
            .method("POST")
            .uri(self.address_of(path))
            .header("content-type", "application/x-tar")
            .body(bollard::body_try_stream(tar))
            .map_err(|error| unexpected(call, &error.to_string()))?;
        let answered = self.connection.send(request).await;
        let answered = answered.map_err(|error| self.failed(call, &BollardError::from(error)))?;
        let status = answered.status();
        let mut body = answered.into_body();
        if !status.is_success() {
            return Err(refused_by(call, status, &patience::whole(call, patience(), body).await?));
        }
        let mut messages = Messages::default();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| lost(call, &words(&error)))?;
            if let Ok(piece) = frame.into_data() {
                messages.add(call, &piece)?;
            }
        }
        messages.end(call)
    }

    /// Sends a request; the answer as one of bollard's models.
    pub async fn model<T: DeserializeOwned>(&self, request: ApiRequest<'_>) -> Result<T> {
        let call = request.call.to_owned();
        serde_json::from_value(self.json(request).await?)
            .map_err(|error| unexpected(&call, &error.to_string()))
    }

    /// Sends a request; the answer as JSON.
    pub async fn json(&self, request: ApiRequest<'_>) -> Result<Value> {
        let call = request.call.to_owned();
        let bytes = self.bytes(request).await?;
        serde_json::from_slice(&bytes).map_err(|error| {
            // An answer that is cut off is the engine's end, one that is no JSON is not an engine's.
            if error.is_eof() {
                lost(&call, "its answer is cut off")
            } else {
                unexpected(&call, &error.to_string())
            }
        })
    }

    /// bollard's error in our words.
    pub fn failed(&self, call: &str, error: &BollardError) -> EngineError {
        let is_first = self.api_version.is_empty();
        if let Some(folder) = self.connection.certificates.as_ref().filter(|_| is_first) {
            let connected = matches!(error, BollardError::HyperLegacyError { err } if !err.is_connect());
            if let Some(refusal) = tls::refusal(&self.connection.address, folder, error, connected) {
                return refusal;
            }
        }
        match error {
            BollardError::DockerResponseServerError { status_code, message } => {
                refused(call, *status_code, message)
            }
            BollardError::HyperLegacyError { err } if err.is_connect() => {
                EngineError::Unreachable { address: self.connection.address.clone(), why: words(error) }
            }
            BollardError::RequestTimeoutError => lost(call, "it does not answer"),
            BollardError::DockerStreamError { error } => unexpected(call, error.trim()),
            BollardError::HyperLegacyError { .. }
            | BollardError::HyperResponseError { .. }
            | BollardError::IOError { .. } => lost(call, &words(error)),
            BollardError::JsonSerdeError { err } if err.is_eof() => lost(call, "its answer is cut off"),
            other => unexpected(call, &words(other)),
        }
    }
}

/// What the headers of a ping said, as they said it.
#[derive(Debug, Default)]
pub(super) struct Pinged {
    /// `Api-Version`, the newest that it speaks.
    pub api_version: Option<String>,
    /// `Server`, such as `Docker/20.10.24 (linux)`.
    pub server: Option<String>,
}

impl Pinged {
    /// The version of an engine that is Docker's.
    pub fn docker_version(&self) -> Option<String> {
        let words = self.server.as_deref()?.strip_prefix("Docker/")?;
        words.split_whitespace().next().map(str::to_owned)
    }
}

/// Asks under a span that names the call, and nothing else of it: bodies hold environments.
pub(super) async fn traced<T>(call: &str, asked: impl Future<Output = Result<T>>) -> Result<T> {
    let span = tracing::info_span!("engine", call);
    async {
        let began = tokio::time::Instant::now();
        let result = asked.await;
        let milliseconds = began.elapsed().as_millis();
        // Without the error's text: an engine quotes what it does not like of an environment.
        tracing::debug!(milliseconds, done = result.is_ok(), "answered");
        result
    }
    .instrument(span)
    .await
}

/// An answer that is no success.
fn refused_by(call: &str, status: StatusCode, body: &[u8]) -> EngineError {
    let said = serde_json::from_slice::<Value>(body).ok();
    let message = said.as_ref().and_then(|said| said["message"].as_str());
    refused(call, status.as_u16(), message.unwrap_or(&String::from_utf8_lossy(body)))
}

/// An answer of messages, each a JSON object on a line of its own.
#[derive(Default)]
struct Messages {
    /// The line that is not whole yet.
    line: Vec<u8>,
    /// Bytes so far.
    bytes: u64,
    said: Vec<String>,
}

impl Messages {
    /// A piece of it; an error as soon as a message is one, or where there are more than are kept of an answer.
    fn add(&mut self, call: &str, piece: &[u8]) -> Result<()> {
        self.bytes += piece.len() as u64;
        let within = limits::ANSWER.allow(self.bytes);
        within.map_err(|beyond| unexpected(call, &format!("{beyond}; {}", beyond.hint())))?;
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                self.message(call, &line)?;
            }
        }
        Ok(())
    }

    fn end(mut self, call: &str) -> Result<Vec<String>> {
        let line = std::mem::take(&mut self.line);
        self.message(call, &line)?;
        Ok(self.said)
    }

    fn message(&mut self, call: &str, line: &[u8]) -> Result<()> {
        for message in serde_json::Deserializer::from_slice(line).into_iter::<Map<String, Value>>() {
            let message = message.map_err(|error| {
                if error.is_eof() {
                    lost(call, "its answer is cut off")
                } else {
                    unexpected(call, &error.to_string())
                }
            })?;
            let detail = message.get("errorDetail").and_then(|detail| detail["message"].as_str());
            if let Some(error) = detail.or_else(|| message.get("error")?.as_str()) {
                return Err(unexpected(call, error.trim()));
            }
            let stream = message.get("stream").and_then(Value::as_str);
            self.said.extend(stream.map(|stream| stream.trim_end().to_owned()));
        }
        Ok(())
    }
}

fn refused(call: &str, status: u16, message: &str) -> EngineError {
    let (call, message) = (call.to_owned(), message.trim().to_owned());
    match status {
        404 => EngineError::NotFound { call, message },
        409 => EngineError::Conflict { call, message },
        status => EngineError::Answered { call, status, message },
    }
}

pub(super) fn lost(call: &str, why: &str) -> EngineError {
    EngineError::Lost { call: call.to_owned(), why: why.to_owned() }
}

pub(super) fn unexpected(call: &str, message: &str) -> EngineError {
    EngineError::Answered { call: call.to_owned(), status: 0, message: message.to_owned() }
}

/// `None` in place of a 404.
pub(super) fn absent<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(EngineError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The innermost words of an error: the operating system's or the TLS library's, not those of five wrappers.
pub(super) fn words(error: &(dyn std::error::Error + 'static)) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

/// RFC 3986: all but the unreserved characters, which is what a query takes.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// In a path those stay that image names need.
const RESERVED_IN_PATH: &AsciiSet = &RESERVED.remove(b'/').remove(b':').remove(b'@');

/// Percent-encodes what stands in a path; for bollard's calls as well, which put names into addresses as they are.
pub(super) fn in_path(text: &str) -> String {
    utf8_percent_encode(text, RESERVED_IN_PATH).to_string()
}

/// Percent-encodes what stands in a query.
pub(crate) fn in_query(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// A stream as one that may be shared between threads: nobody can reach into it without owning it.
pub(super) fn shareable(stream: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static) -> ByteStream {
    Box::pin(Guarded(Mutex::new(Box::pin(stream))))
}

struct Guarded<S>(Mutex<S>);

impl<S: Stream + Unpin> Stream for Guarded<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.0.get_mut() {
            Ok(stream) => stream.poll_next_unpin(context),
            Err(poisoned) => poisoned.into_inner().poll_next_unpin(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_line_by_line_and_an_error_is_told_at_once() {
        let read = |pieces: &[&str]| {
            let mut messages = Messages::default();
            pieces.iter().try_for_each(|piece| messages.add("load", piece.as_bytes()))?;
            messages.end("load")
        };
        let said = read(&[
            "{\"stream\":\"a\\n\"}\r",
            "\n{\"status\":\"x\"}\n{\"stre",
            "am\":\"b\"}{\"stream\":\"c\"}",
        ]);
        assert_eq!(said.unwrap(), ["a", "b", "c"]);
        for (pieces, part) in [
            (
                &["{\"errorDetail\":{\"message\":\"no space\\n\"},\"error\":\"x\"}\n", "{\"cut"][..],
                "no space",
            ),
            (&["{\"error\":\"old words\"}\n"], "old words"),
            (&["{\"stream\":\"a"], "cut off"),
            (&["7\n"], "invalid type"),
        ] {
            let error = read(pieces).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        let mut messages = Messages { bytes: limits::ANSWER.most, ..Messages::default() };
        assert!(messages.add("load", b"[").unwrap_err().to_string().contains("TARSUP_LIMIT_ANSWER"));
    }

    #[test]
    fn engine_of_another_maker_has_no_version_of_dockers() {
        let version =
            |server: &str| Pinged { server: Some(server.to_owned()), ..Pinged::default() }.docker_version();
        assert_eq!(version("Docker/26.1.5+dfsg1 (linux)").as_deref(), Some("26.1.5+dfsg1"));
        assert_eq!(version("Docker/20.10.24").as_deref(), Some("20.10.24"));
        for other in ["Libpod/4.9.3 (linux)", "nginx", "Docker/", "", "docker"] {
            assert_eq!(version(other), None, "{other}");
        }
    }

    #[test]
    fn names_are_encoded_for_where_they_stand() {
        assert_eq!(in_path("tars/framework:3.0.17"), "tars/framework:3.0.17");
        assert_eq!(in_path("a b?c#d"), "a%20b%3Fc%23d");
        assert_eq!(in_query(r#"{"label":["a=b"]}"#), "%7B%22label%22%3A%5B%22a%3Db%22%5D%7D");
        assert_eq!(in_query("-._~/:@+é\n"), "-._~%2F%3A%40%2B%C3%A9%0A");
        assert_eq!(in_path("-._~/:@+é"), "-._~/:@%2B%C3%A9");
    }
}
