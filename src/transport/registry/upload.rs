//! One blob on its way into a registry: in chunks, gone on with where the registry says that it is.

use std::io::{self, Read};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, RANGE};
use hyper::{Method, StatusCode, Uri};
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::task::spawn_blocking;

use super::client::{Call, Renewals, Session};
use super::error::{RegistryError, Result, is_transient};
use super::location;
use super::patience::{Patience, retry_after};
use super::pull::content_digest;
use super::push::{Blob, has, scopes};
use crate::oci::{BlobSource, Digest, HashingReader};

/// What one request carries at most: where a connection breaks, no more is sent again.
const CHUNK: u64 = 64 << 20;
/// How much of it is read at once.
const PIECE: usize = 256 * 1024;
/// How many pieces may wait for the registry: what a blob of any size takes of memory.
const WAITING: usize = 4;

/// One blob on its way.
pub(super) struct Upload<'a> {
    session: &'a Arc<Session>,
    repository: &'a str,
    blob: Blob,
    counter: &'a UnboundedSender<u64>,
    patience: Patience,
    renewals: Renewals,
    sent: Arc<AtomicU64>,
    /// The least that the registry takes at once.
    least: u64,
}

/// How one request went.
enum Step {
    /// The registry has it up to here, and wants the rest there.
    On(Uri, u64),
    /// It is asked how far it is, after a moment.
    Again(RegistryError, Option<Duration>),
    /// The same, at once: its token was refused, and there is another one. True where the refused one was good before; and
    /// what to say where no token helps.
    Renewed(bool, RegistryError),
}

/// A blob that is read once from beginning to end, and hashed meanwhile.
struct Feed {
    reader: HashingReader<Box<dyn Read + Send>>,
    at: u64,
}

impl Feed {
    /// From the first byte, and on to this one.
    fn open(source: &dyn BlobSource, at: u64) -> io::Result<Self> {
        let mut feed = Self { reader: HashingReader::new(source.open()?), at: 0 };
        let skipped = io::copy(&mut (&mut feed.reader).take(at), &mut io::sink())?;
        if skipped != at {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        feed.at = at;
        Ok(feed)
    }

    /// Gives out so many bytes, or fewer where nobody takes them any more.
    fn give(&mut self, count: u64, to: &mpsc::Sender<Bytes>) -> io::Result<()> {
        let end = self.at + count;
        while self.at < end {
            let mut piece = vec![0; usize::try_from(end - self.at).unwrap_or(PIECE).min(PIECE)];
            self.reader.read_exact(&mut piece)?;
            self.at += piece.len() as u64;
            if to.blocking_send(piece.into()).is_err() {
                return Ok(());
            }
        }
        Ok(())
    }
}

impl<'a> Upload<'a> {
    pub fn new(
        session: &'a Arc<Session>,
        repository: &'a str,
        blob: Blob,
        counter: &'a UnboundedSender<u64>,
    ) -> Self {
        let (patience, renewals, sent) = (session.patience(), Renewals::default(), Arc::default());
        Self { session, repository, blob, counter, patience, renewals, sent, least: 0 }
    }

    /// Sends the blob; how many bytes went over the wire. `begun` is where an upload already waits.
    pub async fn run(mut self, mut begun: Option<Uri>) -> Result<u64> {
        loop {
            let mut uri = match begun.take() {
                Some(uri) => uri,
                None => self.begin().await?,
            };
            let (mut at, mut feed) = (0, None);
            loop {
                let step = if at < self.blob.size {
                    self.chunk(&uri, at, &mut feed).await?
                } else {
                    // Nothing is finished whose bytes were not proven here.
                    self.prove(feed.take()).await?;
                    match self.finish(&uri).await? {
                        None => return Ok(self.sent.load(Ordering::Relaxed)),
                        Some(step) => step,
                    }
                };
                match step {
                    Step::On(next, reached) => (uri, at) = (next, reached),
                    Step::Renewed(has_served, error)
                        if !self.renewals.may_go_on(has_served, self.session.accepted()) =>
                    {
                        return Err(error);
                    }
                    // Nothing of it was taken. To ask how far it is would use up the new token as well, where others share it.
                    Step::Renewed(..) => feed = None,
                    Step::Again(error, after) => {
                        self.patience.wait(after, error).await?;
                        feed = None;
                        match self.reached(&uri).await? {
                            Some((next, reached)) => (uri, at) = (next, reached),
                            None => break,
                        }
                    }
                }
            }
        }
    }

    fn call(&self, method: Method, uri: Uri, act: &str) -> Call {
        Call {
            method,
            uri,
            headers: Vec::new(),
            body: Bytes::new(),
            scopes: scopes(self.repository, None),
            act: format!("{act} the blob {} into {}", self.blob.digest.short(), self.repository),
        }
    }

    async fn begin(&mut self) -> Result<Uri> {
        let uri = self.session.at(&format!("/v2/{}/blobs/uploads/", self.repository)).await?;
        let mut call = self.call(Method::POST, uri, "take");
        call.headers.push((CONTENT_LENGTH, "0".to_owned()));
        let answer = self.session.call(&call).await?;
        if answer.status() != StatusCode::ACCEPTED {
            return Err(self.session.refusal(answer, &call.act).await);
        }
        let least =
            answer.headers().get("oci-chunk-min-length").and_then(|value| value.to_str().ok()?.parse().ok());
        self.least = least.unwrap_or(0);
        self.session.location(&call.uri, answer.headers())
    }

    async fn chunk(&self, uri: &Uri, at: u64, feed: &mut Option<Feed>) -> Result<Step> {
        let count = (self.blob.size - at).min(CHUNK.max(self.least));
        let reader = match feed.take().filter(|feed| feed.at == at) {
            Some(feed) => feed,
            None => self.open(at).await?,
        };
        let (pieces, receiver) = mpsc::channel(WAITING);
        let reading = spawn_blocking(move || {
            let mut reader = reader;
            let given = reader.give(count, &pieces);
            (reader, given)
        });
        let body =
            Chunk { pieces: receiver, left: count, sent: self.sent.clone(), counter: self.counter.clone() };
        let mut call = self.call(Method::PATCH, uri.clone(), "take");
        call.headers = vec![
            (CONTENT_TYPE, "application/octet-stream".to_owned()),
            (CONTENT_LENGTH, count.to_string()),
            (CONTENT_RANGE, format!("{at}-{}", at + count - 1)),
        ];
        let answer = self.session.call_once(&call, body.boxed_unsync(), &self.sent).await;
        let (reader, given) = reading.await.map_err(|error| self.unsendable(&error.to_string()))?;
        given.map_err(|error| self.unreadable(error))?;
        let (answer, has_ended) = match answer {
            Ok(answer) => answer,
            Err(
                error @ (RegistryError::Lost { .. }
                | RegistryError::Silent { .. }
                | RegistryError::Unreachable { .. }),
            ) => {
                return Ok(Step::Again(error, None));
            }
            Err(error) => return Err(error),
        };
        match answer.status() {
            StatusCode::ACCEPTED | StatusCode::NO_CONTENT | StatusCode::CREATED => {
                let next = self.session.location(uri, answer.headers())?;
                let reached = reached(answer.headers()).unwrap_or(at + count);
                if reached > at + count || reached < at {
                    return Err(self
                        .session
                        .malformed("how far it is", "it has other bytes than it was sent"));
                }
                *feed = Some(reader);
                Ok(Step::On(next, reached))
            }
            // A token came to its end; there is a new one by now.
            StatusCode::UNAUTHORIZED => {
                Ok(Step::Renewed(has_ended, self.session.unauthorized(true, &call.act).await))
            }
            // It is elsewhere than was thought, or has forgotten all of it.
            StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::NOT_FOUND => {
                Ok(Step::Again(self.session.refusal(answer, &call.act).await, None))
            }
            status if is_transient(status) => {
                let after = retry_after(answer.headers());
                Ok(Step::Again(self.session.refusal(answer, &call.act).await, after))
            }
            _ => Err(self.session.refusal(answer, &call.act).await),
        }
    }

    /// How far the registry is, and where it is to be gone on; `None` where it is to be begun anew.
    async fn reached(&self, uri: &Uri) -> Result<Option<(Uri, u64)>> {
        let call = self.call(Method::GET, uri.clone(), "say how far it is with");
        let answer = self.session.call(&call).await?;
        if !matches!(answer.status(), StatusCode::NO_CONTENT | StatusCode::ACCEPTED | StatusCode::OK) {
            return Ok(None);
        }
        // `0-0` is one byte or none, depending on the registry.
        let reached = reached(answer.headers()).filter(|reached| (2..=self.blob.size).contains(reached));
        let next = self.session.location(uri, answer.headers()).unwrap_or_else(|_| uri.clone());
        Ok(reached.map(|reached| (next, reached)))
    }

    /// Ends the upload by the blob's digest. `None` where the registry has the blob.
    async fn finish(&self, uri: &Uri) -> Result<Option<Step>> {
        let (digest, size) = (self.blob.digest, self.blob.size);
        let whole = location::with_query(uri, &[("digest", &digest.to_string())]);
        let whole = whole.ok_or_else(|| self.session.malformed("the place to go on at", "no address"))?;
        let mut call = self.call(Method::PUT, whole, "keep");
        call.headers =
            vec![(CONTENT_TYPE, "application/octet-stream".to_owned()), (CONTENT_LENGTH, "0".to_owned())];
        let answer = match self.session.call(&call).await {
            Ok(answer) => answer,
            // It may have kept it, and the answer was lost.
            Err(error) if has(self.session, self.repository, &digest, size).await? => {
                tracing::debug!(%error, "the registry has it all the same");
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        match answer.status() {
            StatusCode::CREATED | StatusCode::NO_CONTENT | StatusCode::ACCEPTED => {
                kept_as_sent(self.session, answer.headers(), &digest, "a blob")?;
                Ok(None)
            }
            StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND | StatusCode::RANGE_NOT_SATISFIABLE => {
                let error = self.session.refusal(answer, &call.act).await;
                if has(self.session, self.repository, &digest, size).await? {
                    return Ok(None);
                }
                Ok(Some(Step::Again(error, None)))
            }
            _ => Err(self.session.refusal(answer, &call.act).await),
        }
    }

    /// Proves that what was sent are the bytes of the digest.
    async fn prove(&self, feed: Option<Feed>) -> Result<()> {
        let feed = match feed.filter(|feed| feed.at == self.blob.size) {
            Some(feed) => feed,
            None => self.open(self.blob.size).await?,
        };
        let (found, _) = feed.reader.finish();
        if found == self.blob.digest {
            return Ok(());
        }
        Err(self.unsendable(&format!("its bytes are other ones, {found}")))
    }

    async fn open(&self, at: u64) -> Result<Feed> {
        let source = self.blob.source.clone();
        let opened = spawn_blocking(move || Feed::open(source.as_ref(), at)).await;
        opened.map_err(|error| self.unsendable(&error.to_string()))?.map_err(|error| self.unreadable(error))
    }

    /// What is read may come out of a registry itself, whose error says more.
    fn unreadable(&self, error: io::Error) -> RegistryError {
        match error.downcast::<RegistryError>() {
            Ok(error) => error,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => self.unsendable("it is cut off"),
            Err(error) => self.unsendable(&error.to_string()),
        }
    }

    fn unsendable(&self, why: &str) -> RegistryError {
        RegistryError::Unsendable { digest: self.blob.digest, why: why.to_owned() }
    }
}

/// What the registry says of the digest of what it took must be what was sent.
pub(super) fn kept_as_sent(
    session: &Session,
    headers: &HeaderMap,
    digest: &Digest,
    what: &str,
) -> Result<()> {
    match content_digest(headers) {
        Some(kept) if kept != *digest => Err(RegistryError::NotKept {
            host: session.host.clone(),
            what: what.to_owned(),
            why: format!("it says {kept}, not {digest}"),
        }),
        _ => Ok(()),
    }
}

/// `Range: 0-41` or `bytes=0-41` → 42.
fn reached(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(RANGE)?.to_str().ok()?;
    let (begin, end) = range.trim().trim_start_matches("bytes=").split_once('-')?;
    let end: u64 = end.trim().parse().ok()?;
    (begin.trim() == "0").then_some(())?;
    end.checked_add(1)
}

/// The body of one request, of a length that is known.
struct Chunk {
    pieces: mpsc::Receiver<Bytes>,
    left: u64,
    sent: Arc<AtomicU64>,
    counter: UnboundedSender<u64>,
}

impl HttpBody for Chunk {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let piece = std::task::ready!(self.pieces.poll_recv(context));
        let Some(piece) = piece else {
            return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())));
        };
        let length = piece.len() as u64;
        self.left = self.left.saturating_sub(length);
        self.sent.fetch_add(length, Ordering::Relaxed);
        let _ = self.counter.send(length);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
