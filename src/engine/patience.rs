//! How long the engine may take, and how much it may say: no wait is without an end, no answer without a size.

use std::future::Future;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout};

use super::Result;
use super::raw::{lost, unexpected, words};
use crate::limits;

/// For calls that last as long as what they wait for: a transfer, the end of a container.
pub(super) const UNLIMITED: Duration = Duration::from_hours(30 * 24);

/// How long the engine may take to begin an answer to a call that does not wait for anything, and to say it.
/// `TARSUP_ENGINE_PATIENCE` says another number of seconds, with a fraction if need be.
pub(super) fn patience() -> Duration {
    static SET: OnceLock<Duration> = OnceLock::new();
    *SET.get_or_init(|| {
        let set = std::env::var("TARSUP_ENGINE_PATIENCE").ok().and_then(|text| text.trim().parse().ok());
        set.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .filter(|set| !set.is_zero())
            .unwrap_or(Duration::from_mins(2))
    })
}

/// What is asked, with an end.
pub(super) async fn within<T>(
    call: &str,
    limit: Duration,
    asked: impl Future<Output = Result<T>>,
) -> Result<T> {
    timeout(limit, asked).await.unwrap_or_else(|_| Err(lost(call, "it does not answer to the end")))
}

/// A whole body, in time, and no more of it than is kept of an answer.
pub(super) async fn whole(call: &str, limit: Duration, mut body: Incoming) -> Result<Bytes> {
    let read = async {
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| lost(call, &words(&error)))?;
            if let Ok(data) = frame.into_data() {
                grow(call, &mut bytes, &data)?;
            }
        }
        Ok(Bytes::from(bytes))
    };
    within(call, limit, read).await
}

/// Appends a piece of an answer, within the limit of what is kept.
pub(super) fn grow(call: &str, bytes: &mut Vec<u8>, piece: &[u8]) -> Result<()> {
    let found = (bytes.len() + piece.len()) as u64;
    limits::ANSWER
        .allow(found)
        .map_err(|beyond| unexpected(call, &format!("{beyond}; {}", beyond.hint())))?;
    bytes.extend_from_slice(piece);
    Ok(())
}

/// How long an engine may work on an image without a sign of it: it unpacks or gathers gigabytes before it says a word.
pub(super) fn patience_of_images() -> Duration {
    patience() * 30
}

/// Fewer bytes than this in all of the patience are no transfer.
const LEAST: u64 = 4096;

/// An image as the engine saves it: no piece lets itself be waited for without an end, and it has an end itself.
pub(super) fn flowing(
    call: String,
    pieces: impl Stream<Item = Result<Bytes>> + Send + Unpin + 'static,
) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
    let window = (Instant::now(), 0u64);
    stream::unfold(Some((pieces, window, 0u64)), move |flow| {
        let call = call.clone();
        async move {
            let (mut pieces, mut window, mut all) = flow?;
            let slow = |found: u64| found < LEAST;
            let piece = match timeout(patience(), pieces.next()).await {
                Ok(None) => return None,
                Ok(Some(Err(error))) => return Some((Err(error), None)),
                Ok(Some(Ok(piece))) => piece,
                Err(_) => return Some((Err(lost(&call, "it does not go on with its answer")), None)),
            };
            window.1 += piece.len() as u64;
            all += piece.len() as u64;
            if window.0.elapsed() >= patience() {
                if slow(window.1) {
                    return Some((Err(lost(&call, "it hardly goes on with its answer")), None));
                }
                window = (Instant::now(), 0);
            }
            if let Err(beyond) = limits::IMAGE.allow(all) {
                let said = format!("{beyond}; {}", beyond.hint());
                return Some((Err(unexpected(&call, &said)), None));
            }
            Some((Ok(piece), Some((pieces, window, all))))
        }
    })
}

/// When a transfer last moved.
#[derive(Clone)]
pub(super) struct Moved(Arc<Mutex<Instant>>);

impl Moved {
    /// Just now.
    pub fn now() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    /// Takes down that it moves.
    pub fn mark(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// What is asked, as long as the transfer moves, and so long after it stands still.
    pub async fn watch<T>(
        &self,
        call: &str,
        limit: Duration,
        asked: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let stands = async {
            loop {
                let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
                let rest = limit.saturating_sub(last.elapsed());
                if rest.is_zero() {
                    return;
                }
                tokio::time::sleep(rest).await;
            }
        };
        tokio::select! {
            done = asked => done,
            () = stands => Err(lost(call, "it does not answer to the end")),
        }
    }
}
