//! What containers of the fake engine print to whoever is attached, and what they read: `tars-init migrate`, and the actor of
//! the contract's tests.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream;
use serde_json::json;
use tarsup::engine::{Attached, Printed};
use tarsup::oci::Digest;
use tokio::io::AsyncWrite;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::behaviour::Behaviour;
use super::world::Held;
use super::{LateEffects, Shared, locked, up_to_date};

/// How long a migration takes once it may.
const TAKES: Duration = Duration::from_millis(100);
/// `tars-init`: told to stop before it was done, or told that nothing is kept.
const INTERRUPTED: i64 = 75;

/// What a container reads.
#[derive(Debug, Default)]
pub(super) struct Input {
    pub bytes: Vec<u8>,
    pub is_closed: bool,
}

/// A container's end of its streams.
#[derive(Clone, Debug)]
pub(super) struct Attachment {
    out: mpsc::UnboundedSender<Printed>,
    input: Arc<Mutex<Input>>,
    /// True once it has printed what it prints at first.
    has_begun: bool,
    /// When it will end, and with which code.
    pub ends: Option<(Instant, i64)>,
}

/// The other end of what it reads.
pub(super) struct Writer(pub Arc<Mutex<Input>>);

impl AsyncWrite for Writer {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        locked(&self.0).bytes.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        locked(&self.0).is_closed = true;
        Poll::Ready(Ok(()))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        locked(&self.0).is_closed = true;
    }
}

/// Attaches to a container: its end is kept with it, and the other one handed out. What was closed stays closed while it runs.
pub(super) fn attach(held: &mut Held, is_up: bool, world: &Arc<Shared>, late: &Arc<LateEffects>) -> Attached {
    let (out, printed) = mpsc::unbounded_channel();
    let former = held.attachment.take().filter(|_| is_up);
    let input = former.as_ref().map(|former| former.input.clone()).unwrap_or_default();
    let (has_begun, ends) = former.map_or((false, None), |former| (former.has_begun, former.ends));
    held.attachment = Some(Attachment { out, input: input.clone(), has_begun, ends });
    let state = (printed, world.clone(), late.clone());
    let output = stream::unfold(state, |(mut printed, world, late)| async move {
        loop {
            drop(up_to_date(&world, &late));
            match printed.try_recv() {
                Ok(piece) => return Some((Ok(piece), (printed, world, late))),
                Err(mpsc::error::TryRecvError::Disconnected) => return None,
                Err(mpsc::error::TryRecvError::Empty) => tokio::time::sleep(TAKES / 5).await,
            }
        }
    });
    Attached { output: Box::pin(output), input: Box::pin(Writer(input)) }
}

impl Attachment {
    fn say(&self, line: &str) {
        let _ = self.out.send(Printed::Stdout(format!("{line}\n").into()));
    }

    /// The lines that it has read by now, taken away; whether that is the end.
    fn heard(&self) -> (Vec<String>, bool) {
        let mut input = locked(&self.input);
        let text = String::from_utf8_lossy(&std::mem::take(&mut input.bytes)).into_owned();
        (text.lines().map(str::to_owned).collect(), input.is_closed)
    }

    /// The actor of the contract's tests: says what it heard, and ends at the end.
    pub fn act(&mut self, now: Instant) {
        let (lines, is_end) = self.heard();
        for line in lines {
            self.say(&format!("heard {line}"));
        }
        if is_end && self.ends.is_none() {
            let _ = self.out.send(Printed::Stderr("the end\n".into()));
            self.ends = Some((now, 3));
        }
    }

    /// `tars-init migrate`: puts out what it saves, and does its work once it is told that this is kept.
    pub fn migrate(&mut self, behaviour: &Behaviour, now: Instant) {
        let Some(saves) = &behaviour.saves else {
            self.ends.get_or_insert((now + TAKES, behaviour.migrate_exit));
            return;
        };
        let lines: Vec<String> = saves.iter().map(|line| json!({"save": line}).to_string() + "\n").collect();
        let lines = lines.concat();
        let digest = Digest::of(&lines).hex();
        if !std::mem::replace(&mut self.has_begun, true) {
            self.say("[   0.001s] the database answers");
            // In pieces that are no lines.
            let (first, rest) = lines.split_at(lines.len() / 2);
            for piece in [first, rest].into_iter().filter(|piece| !piece.is_empty()) {
                let _ = self.out.send(Printed::Stdout(piece.to_owned().into()));
            }
            self.say(&json!({"saved": {"lines": saves.len(), "sha256": digest}}).to_string());
        }
        let (lines, is_end) = self.heard();
        if self.ends.is_none() && lines.contains(&format!("saved {digest}")) {
            self.ends = Some((now + TAKES, behaviour.migrate_exit));
        } else if self.ends.is_none() && is_end {
            self.ends = Some((now, INTERRUPTED));
        }
    }

    /// `tars-init keep-columns`: says what it did and ends.
    pub fn keep(&mut self, behaviour: &Behaviour, now: Instant) {
        if self.ends.is_none() {
            self.say(&behaviour.kept.1);
            self.ends = Some((now + TAKES, behaviour.kept.0));
        }
    }

    /// What a migration says when it is done.
    pub fn finish(&self, behaviour: &Behaviour) {
        self.say(&behaviour.migrated);
    }
}
