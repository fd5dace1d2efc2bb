//! Waiting for an answer of the database: as long as the server lives, and no longer.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// What takes longer is told, and again each time.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// After this time without a greeting the start log says what is waited for.
const NO_GREETING: Duration = Duration::from_secs(4);

/// A server as a watch needs it.
pub trait WatchedServer {
    /// An error where it gives no sign of life; else what it does for a connection just now, as far as it tells.
    fn doing(&self, connection: u32) -> Result<Option<String>, String>;
    /// Notes that it was at work for us meanwhile.
    fn was_at_work(&self, meanwhile: Duration);
    /// Tells what takes long.
    fn say(&self, text: &str);
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitPurpose {
    /// A statement that changes something: the time that the server is at it is no waiting for the server.
    Work,
    /// A question, a lock: patience goes on running out.
    Question,
}

/// A statement under way, watched by a second connection.
pub struct StatementWatch<'a> {
    server: &'a dyn WatchedServer,
    connection: u32,
    act: &'a str,
    kind: WaitPurpose,
    silence: Duration,
    begun: Instant,
    last_sign: Instant,
    told: Instant,
    said_silent: bool,
}

impl<'a> StatementWatch<'a> {
    /// Begins with a statement; `silence` without a sign of life is the end of it.
    pub fn begin(
        server: &'a dyn WatchedServer,
        connection: u32,
        act: &'a str,
        kind: WaitPurpose,
        silence: Duration,
    ) -> Self {
        let now = Instant::now();
        Self {
            server,
            connection,
            act,
            kind,
            silence,
            begun: now,
            last_sign: now,
            told: now,
            said_silent: false,
        }
    }

    /// Waits until `work` is done, which goes on in a thread; left to itself once the server is silent.
    pub fn until_done<T: Send + 'static>(
        mut self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, String> {
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || sender.send(work()));
        // Six looks fit into a silence; most statements end before the first.
        let interval = self.silence / 6;
        loop {
            match receiver.recv_timeout(interval) {
                Ok(done) => return Ok(done),
                Err(RecvTimeoutError::Timeout) => self.look()?,
                Err(RecvTimeoutError::Disconnected) => {
                    return Err("the answer was lost".to_owned());
                }
            }
        }
    }

    fn look(&mut self) -> Result<(), String> {
        match self.server.doing(self.connection) {
            Ok(state) => {
                // What waits for another connection is no work: patience runs out over it.
                let waits = state.as_deref().is_some_and(|state| state.starts_with("Waiting for"));
                if self.kind == WaitPurpose::Work && !waits {
                    self.server.was_at_work(self.last_sign.elapsed());
                }
                self.last_sign = Instant::now();
                self.said_silent = false;
                if self.told.elapsed() >= TOLD_EVERY {
                    self.tell(state.as_deref().unwrap_or_default());
                }
                Ok(())
            }
            Err(_) if self.last_sign.elapsed() < self.silence => {
                if !std::mem::replace(&mut self.said_silent, true) {
                    self.server.say(&format!(
                        "{}: no sign of life from the server since {} s; given up after {} s",
                        self.act,
                        self.last_sign.elapsed().as_secs(),
                        self.silence.as_secs()
                    ));
                }
                Ok(())
            }
            Err(error) => Err(format!(
                "no sign of life from the server for {} s ({error})",
                self.last_sign.elapsed().as_secs()
            )),
        }
    }

    fn tell(&mut self, state: &str) {
        let state = if state.is_empty() { "at work" } else { state };
        self.server.say(&format!(
            "{}: {} s so far, the server says: {state}",
            self.act,
            self.begun.elapsed().as_secs()
        ));
        self.told = Instant::now();
    }
}

/// Waits for the greeting of a server, which may hang, for at most `limit`.
pub fn greeting<T: Send + 'static>(
    server: &dyn WatchedServer,
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(work()));
    let first = NO_GREETING.min(limit);
    if let Ok(done) = receiver.recv_timeout(first) {
        return Ok(done);
    }
    if limit > first {
        server.say(&format!(
            "waiting for the database's greeting: nothing came within {} s; tried anew after {} s",
            first.as_secs(),
            limit.as_secs()
        ));
    }
    receiver
        .recv_timeout(limit.saturating_sub(first))
        .map_err(|_| format!("no greeting from the server within {} s", limit.as_secs()))
}
