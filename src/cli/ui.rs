//! What a person sees: results on standard output, progress and remarks on standard error.

use std::collections::BTreeMap;
use std::future::Future;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde::Serialize;
use tokio::runtime::Runtime;

use super::timings::Timings;
use crate::diagnose::{Diagnose, Exit, harmless};

/// How often the lines of a terminal count on.
const TICK: Duration = Duration::from_millis(500);

/// The two streams, and whether a person or a script reads them.
#[derive(Debug)]
pub struct Ui {
    json: bool,
    terminal: bool,
    started: Instant,
    lines: Mutex<Lines>,
    /// Why a result could not be written.
    unwritten: OnceLock<io::Error>,
    timings: Option<Timings>,
    /// What images are read and sent on.
    transfers: OnceLock<Runtime>,
}

/// The lines of a terminal that go on changing, one for each subject.
#[derive(Debug, Default)]
struct Lines {
    all: MultiProgress,
    bars: BTreeMap<String, ProgressBar>,
}

impl Lines {
    fn show(&mut self, subject: &str, text: &str) {
        let bar = self.bars.entry(subject.to_owned()).or_insert_with(|| {
            let style = ProgressStyle::with_template("{prefix:<20} {elapsed:>4}  {wide_msg}");
            let bar = ProgressBar::no_length()
                .with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
                .with_prefix(subject.to_owned());
            let bar = self.all.add(bar);
            bar.enable_steady_tick(TICK);
            bar
        });
        bar.set_message(text.to_owned());
    }
}

impl Ui {
    /// With `json`, standard output carries one JSON document and nothing else.
    pub fn new(json: bool) -> Self {
        let terminal = io::stderr().is_terminal();
        let unwritten = OnceLock::new();
        if tarsup_standard_output::was_closed() {
            let _ = unwritten.set(io::Error::other("it is closed"));
        }
        Self {
            json,
            terminal,
            started: Instant::now(),
            lines: Mutex::default(),
            unwritten,
            timings: None,
            transfers: OnceLock::new(),
        }
    }

    /// The same, where it is asked where the time goes.
    #[must_use]
    pub fn timed(self, timings: Option<Timings>) -> Self {
        Self { timings, ..self }
    }

    /// Where the time went, as a table on standard error and under `timings` of the document, where that was asked.
    pub fn tell_timings(&self, document: &mut serde_json::Value) {
        let Some(timings) = &self.timings else { return };
        document["timings"] = serde_json::json!(timings.all());
        self.note(&timings.table(self.elapsed()));
    }

    /// True where the result is to be a JSON document.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// How long the command has been running.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// A result, on standard output; nothing with `--json`.
    pub fn result(&self, text: &str) {
        self.end_lines();
        if !self.json {
            self.print(&harmless(text));
        }
    }

    /// The one JSON document, on standard output; nothing without `--json`.
    pub fn json(&self, document: &impl Serialize) {
        if self.json
            && let Ok(text) = serde_json::to_string_pretty(document)
        {
            self.print(&text);
        }
    }

    /// Standard output. A reader that has seen enough (`tarsup images | head -1`) is no error; a script that gets a part of
    /// its document is one.
    fn print(&self, text: &str) {
        let mut out = io::stdout();
        match writeln!(out, "{text}").and_then(|()| out.flush()) {
            Err(error) if self.json || error.kind() != io::ErrorKind::BrokenPipe => {
                let _ = self.unwritten.set(error);
            }
            _ => {}
        }
    }

    /// Why the result did not reach its reader, where it did not.
    pub fn unwritten(&self) -> Option<&io::Error> {
        self.unwritten.get()
    }

    /// Progress in words, on standard error.
    pub fn note(&self, text: &str) {
        self.say(&harmless(text));
    }

    /// Something that is not an error but ought to be read, on standard error.
    pub fn warn(&self, text: &str) {
        self.say(&format!("warning: {}", harmless(text)));
    }

    /// Why the command failed, on standard error.
    pub fn error(&self, text: &str) {
        self.end_lines();
        self.say(&format!("error: {}", harmless(text)));
    }

    /// Above the lines that go on changing.
    fn say(&self, text: &str) {
        let write = || drop(writeln!(io::stderr(), "{text}"));
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.bars.is_empty() { write() } else { lines.all.suspend(write) }
    }

    /// What is done with a subject now: its line of a terminal changes and counts on; elsewhere it is a line of its own.
    pub fn line(&self, subject: &str, text: &str) {
        if !self.terminal {
            return self.note(text);
        }
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).show(subject, &harmless(text));
    }

    /// Those lines stay as they are now, and change no more.
    pub fn end_lines(&self) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        for bar in std::mem::take(&mut lines.bars).into_values() {
            bar.abandon();
        }
    }

    /// Progress in bytes: a bar on a terminal, one line at the end elsewhere.
    pub fn progress(&self, label: &str, total: u64) -> Progress {
        let bar = self.terminal.then(|| {
            let style =
                ProgressStyle::with_template("{prefix:<28} {bar:24} {bytes:>10} of {total_bytes} {eta}");
            ProgressBar::new(total)
                .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
                .with_prefix(label.to_owned())
        });
        Progress { bar }
    }

    /// Asks a person. `yes` answers for them; without a terminal and without `yes` it refuses rather than guesses.
    pub fn confirm(&self, question: &str, yes: bool) -> Result<(), Unconfirmed> {
        if yes {
            return Ok(());
        }
        if !self.can_ask() {
            return Err(Unconfirmed::NoTerminal { question: question.to_owned() });
        }
        let _ = write!(io::stderr(), "{question} [y/N] ");
        let mut answer = String::new();
        match io::stdin().read_line(&mut answer) {
            Ok(_) if matches!(answer.trim(), "y" | "Y" | "yes") => Ok(()),
            _ => Err(Unconfirmed::Declined),
        }
    }

    /// Asks one question after the other; where nobody can be asked, all of them are named.
    pub fn confirm_all(&self, questions: &[String], yes: bool) -> Result<(), Unconfirmed> {
        if !yes && !self.can_ask() && !questions.is_empty() {
            return Err(Unconfirmed::NoTerminal { question: questions.join(" ") });
        }
        questions.iter().try_for_each(|question| self.confirm(question, yes))
    }

    fn can_ask(&self) -> bool {
        !self.json && self.terminal && io::stdin().is_terminal()
    }

    /// Asks a person to type a word; nothing where nobody can be asked.
    pub fn typed(&self, question: &str) -> Option<String> {
        if !self.can_ask() {
            return None;
        }
        let _ = write!(io::stderr(), "{question} ");
        let mut answer = String::new();
        io::stdin().read_line(&mut answer).ok()?;
        Some(answer.trim().to_owned())
    }

    /// Runs a future to its end on a runtime of its own.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> io::Result<T> {
        Ok(runtime()?.block_on(future))
    }

    /// The runtime that all transfers of a command share, and with it the connections that they keep open.
    pub fn transfers(&self) -> io::Result<&Runtime> {
        if let Some(made) = self.transfers.get() {
            return Ok(made);
        }
        // Two threads may make one each; the other one goes unused.
        let made = runtime()?;
        Ok(self.transfers.get_or_init(|| made))
    }
}

fn runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
}

/// A bar that may not be there.
#[derive(Debug, Clone)]
pub struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    /// `bytes` more are done.
    pub fn advance(&self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(bytes);
        }
    }

    /// Done: the bar goes away, what it measured is said by the result.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum Unconfirmed {
    /// Nobody can be asked.
    #[error("not confirmed: {question}")]
    NoTerminal {
        /// What would have been asked.
        question: String,
    },
    /// A person said no.
    #[error("not confirmed; nothing was changed")]
    Declined,
}

impl Diagnose for Unconfirmed {
    fn exit(&self) -> Exit {
        Exit::Refused
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NoTerminal { .. } => {
                Some("this is not a terminal: pass --yes, or --dry-run to look first".to_owned())
            }
            Self::Declined => None,
        }
    }
}
