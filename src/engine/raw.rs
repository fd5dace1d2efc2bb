//! One HTTP request to the engine, its body and its answer untouched.
//!
//! bollard's typed models drop what they do not know, and its public calls log bodies at debug level, environments
//! included. So bollard carries the request (sockets, TLS, errors) and nothing else: `export_image` is the one of its
//! calls whose answer comes as it is, and a request modifier says what is really asked.

use std::fmt::Write as _;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll};
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error as BollardError;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use serde_json::Value;

use super::{ByteStream, EngineError, Result};

/// How long the engine may take to begin an answer to a call that does not wait for anything.
pub(super) const PATIENCE: Duration = Duration::from_mins(2);
/// For calls that last as long as what they wait for: a transfer, the end of a container.
pub(super) const UNLIMITED: Duration = Duration::from_hours(30 * 24);

/// What is sent along.
pub(super) enum Body {
    Nothing,
    Json(Vec<u8>),
    Tar(ByteStream),
}

/// One request.
pub(super) struct Request<'a> {
    /// What errors call it, such as `create tars-framework`; never with an environment in it.
    pub call: &'a str,
    pub method: &'static str,
    /// Path and query below the version, percent-encoded.
    pub path: String,
    pub body: Body,
    /// How long the answer may take to begin.
    pub patience: Duration,
}

impl<'a> Request<'a> {
    pub fn new(call: &'a str, method: &'static str, path: impl Into<String>) -> Self {
        Self { call, method, path: path.into(), body: Body::Nothing, patience: PATIENCE }
    }

    pub fn body(mut self, body: Body) -> Self {
        self.body = body;
        self
    }

    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }
}

/// A connection, as bollard sees it, and what to call it in errors.
#[derive(Clone, Debug)]
pub(super) struct Raw {
    pub docker: Docker,
    /// The address, as a person would write it.
    pub address: String,
    /// The API version in use, such as `1.41`; empty until it is known, and then in no path.
    pub api_version: String,
}

impl Raw {
    /// Sends a request; the answer's body as it arrives. An answer that is not success is an error here.
    pub async fn stream(&self, request: Request<'_>) -> Result<ByteStream> {
        let Request { call, method, path, body, patience } = request;
        let prefix =
            if self.api_version.is_empty() { String::new() } else { format!("/v{}", self.api_version) };
        let (content_type, payload) = match body {
            Body::Nothing => ("application/json", bollard::body_full(Bytes::new())),
            // As a stream, because bollard logs a whole body at trace level, and this one may hold secrets.
            Body::Json(json) => {
                let once = stream::once(async move { Ok(Bytes::from(json)) });
                ("application/json", bollard::body_try_stream(once))
            }
            Body::Tar(tar) => ("application/x-tar", bollard::body_try_stream(tar)),
        };
        let payload = Mutex::new(Some(payload));
        let docker = self.docker.clone().with_timeout(patience).with_request_modifier(move |mut request| {
            let uri = request.uri();
            let host = uri.authority().map(ToString::to_string).unwrap_or_default();
            let target = format!("{}://{host}{prefix}{path}", uri.scheme_str().unwrap_or("http"));
            if let (Ok(target), Ok(method), Ok(content_type)) =
                (target.parse(), method.parse(), content_type.parse())
            {
                *request.uri_mut() = target;
                *request.method_mut() = method;
                request.headers_mut().insert("content-type", content_type);
            }
            if let Some(payload) = payload.lock().ok().and_then(|mut payload| payload.take()) {
                *request.body_mut() = payload;
            }
            request
        });
        // The name is replaced with the rest of the address.
        let mut answer = docker.export_image("replaced");
        // The first piece tells success from failure: bollard yields an answer's error in place of its body.
        let first = match answer.next().await {
            Some(Ok(first)) => Some(first),
            Some(Err(error)) => return Err(self.failed(call, &error)),
            None => None,
        };
        let rest = answer.map_err(|error| std::io::Error::other(words(&error)));
        let whole = stream::iter(first.map(Ok)).chain(rest);
        Ok(Box::pin(Guarded(Mutex::new(Box::pin(whole)))))
    }

    /// Sends a request; the whole body of the answer.
    pub async fn bytes(&self, request: Request<'_>) -> Result<Vec<u8>> {
        let call = request.call.to_owned();
        let mut answer = self.stream(request).await?;
        let mut whole = Vec::new();
        while let Some(piece) = answer.next().await {
            whole.extend_from_slice(&piece.map_err(|error| lost(&call, &error.to_string()))?);
        }
        Ok(whole)
    }

    /// Sends a request; the answer as JSON.
    pub async fn json(&self, request: Request<'_>) -> Result<Value> {
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

    /// Sends a request whose answer says no more than that it succeeded.
    pub async fn done(&self, request: Request<'_>) -> Result<()> {
        self.bytes(request).await.map(drop)
    }

    fn failed(&self, call: &str, error: &BollardError) -> EngineError {
        let call = call.to_owned();
        match error {
            BollardError::DockerResponseServerError { status_code, message } => {
                let message = message.trim().to_owned();
                match status_code {
                    404 => EngineError::NotFound { call, message },
                    409 => EngineError::Conflict { call, message },
                    status => EngineError::Answered { call, status: *status, message },
                }
            }
            BollardError::HyperLegacyError { err } if err.is_connect() => {
                EngineError::Unreachable { address: self.address.clone(), why: words(error) }
            }
            BollardError::RequestTimeoutError => lost(&call, "it does not answer"),
            BollardError::HyperLegacyError { .. }
            | BollardError::HyperResponseError { .. }
            | BollardError::IOError { .. } => lost(&call, &words(error)),
            other => unexpected(&call, &words(other)),
        }
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
fn words(error: &(dyn std::error::Error + 'static)) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

/// Percent-encodes what stands in a path (RFC 3986: unreserved characters, and those that image names need).
pub(super) fn in_path(text: &str) -> String {
    encode(text, b"/:@")
}

/// Percent-encodes what stands in a query.
pub(super) fn in_query(text: &str) -> String {
    encode(text, b"")
}

fn encode(text: &str, kept: &[u8]) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || kept.contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

/// A stream that may be shared between threads, because nobody can reach into it without owning it.
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
    fn names_are_encoded_for_where_they_stand() {
        assert_eq!(in_path("tars/framework:3.0.17"), "tars/framework:3.0.17");
        assert_eq!(in_path("a b?c#d"), "a%20b%3Fc%23d");
        assert_eq!(in_query(r#"{"label":["a=b"]}"#), "%7B%22label%22%3A%5B%22a%3Db%22%5D%7D");
    }
}
