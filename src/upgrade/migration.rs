//! A migration's run: what it is about to change comes over its output and is kept in `.tarsup/`; only then is it told to go on.

use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::pin::Pin;

use futures_util::StreamExt as _;
use serde_json::Value;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use super::journal::Event;
use super::keep;
use super::machine::KeptFile;
use super::record::Effect;
use super::run::{Runner, SHOWN_LINES, StepError, indented, stopped};
use super::step::Task;
use crate::engine::{Attached, Printed};
use crate::oci::digest::HashingWriter;

/// How a line of what is to be kept begins.
const SAVE: &[u8] = b"{\"save\":";
/// How the line begins that says that this is all.
const SAVED: &[u8] = b"{\"saved\":";

/// What a run left.
struct Ended {
    /// The last lines that it printed.
    log: String,
    /// The last line that was a document.
    document: Value,
    /// What was kept; nothing where it does not know how to be asked for it.
    saved: Saved,
}

#[derive(Debug, PartialEq, Eq)]
enum Saved {
    NotAsked,
    Kept,
    Failed(String),
}

impl Runner<'_> {
    /// Runs a task to its end and puts its effect on the record.
    pub(super) async fn task(&mut self, container: &str, task: &Task) -> Result<(), StepError> {
        let engine = self.engine;
        let attached = engine.attach_container(container).await?;
        self.may_have_migrated = true;
        engine.start_container(container).await?;
        let mut stop = self.stop.clone();
        let ended = tokio::select! {
            ended = self.follow(attached) => ended?,
            () = stopped(&mut stop) => return Err(StepError::Interrupted),
        };
        let code = tokio::select! {
            code = engine.wait_container(container) => code?,
            () = stopped(&mut stop) => return Err(StepError::Interrupted),
        };
        let log = self.mask.hide(&ended.log);
        let keeps = matches!(task, Task::Keep { .. });
        let is_well =
            code == 0 || keeps && keep::is_accepted(code, &ended.document, &self.record.plan.questions);
        if !is_well {
            self.keep_log(container, &log);
        }
        match ended.saved {
            Saved::Failed(why) => return Err(StepError::Unsaved { why }),
            _ if !is_well && keeps => {
                return Err(StepError::Keep(format!("`{container}` exited with {code}{}", indented(&log))));
            }
            _ if !is_well => {
                return Err(StepError::Migration { container: container.to_owned(), code, log });
            }
            Saved::NotAsked if keeps => {}
            Saved::NotAsked => {
                self.machine.reporter.say(
                    "warning: what the migration changed was not saved first: the image was built by an older tarsup",
                );
            }
            Saved::Kept => {}
        }
        let effect = Effect::of(task, ended.document);
        for line in effect.lines() {
            self.machine.reporter.say(&format!("       {line}"));
        }
        self.record.effects.push(effect);
        self.note_record().await
    }

    /// Writes the record down as it is now: in the journal, and on the engine.
    pub(super) async fn note_record(&mut self) -> Result<(), StepError> {
        let record = Box::new(self.record.clone());
        // The effect is there whether or not it can be written down.
        if let Err(error) = self.write(Event::Recorded { record }) {
            self.machine.reporter.say(&format!("warning: the journal cannot be written: {error}"));
        }
        Ok(self.lock.put_record(self.engine, &self.record).await?)
    }

    /// Reads what a run prints until it ends, keeps what is to be kept, and says so.
    async fn follow(&mut self, attached: Attached) -> Result<Ended, StepError> {
        let Attached { mut output, input } = attached;
        let mut input = Some(input);
        let (mut stdout, mut stderr) = (Lines::default(), Lines::default());
        let mut log = VecDeque::new();
        let mut keeping = Keeping::default();
        let mut ended = Ended { log: String::new(), document: Value::Null, saved: Saved::NotAsked };
        loop {
            let (lines, is_end) = match output.next().await {
                Some(Ok(Printed::Stdout(bytes))) => (stdout.add(&bytes), false),
                Some(Ok(Printed::Stderr(bytes))) => (stderr.add(&bytes), false),
                Some(Err(error)) => return Err(error.into()),
                None => ([stdout.end(), stderr.end()].concat(), true),
            };
            for line in lines {
                let asked = if line.starts_with(SAVE) {
                    self.keep(&mut keeping, &line).map(|()| None)
                } else if line.starts_with(SAVED) {
                    self.kept(&mut keeping, &line).map(Some)
                } else {
                    let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                    if let Ok(document @ Value::Object(_)) = serde_json::from_str(&text) {
                        ended.document = document;
                    }
                    log.push_back(text);
                    if log.len() > SHOWN_LINES as usize {
                        log.pop_front();
                    }
                    Ok(None)
                };
                match asked {
                    Ok(None) => {}
                    Ok(Some(word)) => {
                        ended.saved = Saved::Kept;
                        say(&mut input, &word).await;
                    }
                    Err(error) => {
                        // The end tells the run that nothing is kept.
                        if let Some(mut input) = input.take() {
                            let _ = input.shutdown().await;
                        }
                        // What came first tells why.
                        if !matches!(ended.saved, Saved::Failed(_)) {
                            ended.saved = Saved::Failed(error.to_string());
                        }
                    }
                }
            }
            if is_end {
                ended.log = log.make_contiguous().join("\n");
                return Ok(ended);
            }
        }
    }

    fn keep(&self, keeping: &mut Keeping, line: &[u8]) -> io::Result<()> {
        if keeping.has_failed {
            return Ok(());
        }
        let written = (|| {
            let file = match &mut keeping.file {
                Some(file) => file,
                none => none.insert(self.machine.folder.keep(&self.deploy, "saved")?),
            };
            file.write(line)
        })();
        keeping.has_failed = written.is_err();
        keeping.lines += 1;
        written.and_then(|()| keeping.hasher.write_all(line))
    }

    /// Puts the file in place and into the journal; the word that says so.
    fn kept(&mut self, keeping: &mut Keeping, line: &[u8]) -> io::Result<String> {
        let Keeping { file, hasher, lines, has_failed } = std::mem::take(keeping);
        if has_failed {
            return Err(io::Error::other("it could not be written"));
        }
        let said: Value = serde_json::from_slice(line).unwrap_or_default();
        let (_, digest, _) = hasher.finish();
        let digest = digest.hex();
        let (count, sha256) = (said["saved"]["lines"].as_u64(), said["saved"]["sha256"].as_str());
        if count != Some(lines) || sha256 != Some(&digest) {
            return Err(io::Error::other(format!("of {} lines {lines} came", count.unwrap_or_default())));
        }
        if let Some(file) = file {
            let path = file.finish()?;
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            self.write(Event::Saved { file: name, lines, sha256: digest.clone() })?;
            self.machine.reporter.say(&format!("       what it changes is kept in {}", path.display()));
        }
        Ok(format!("saved {digest}\n"))
    }

    fn keep_log(&self, container: &str, log: &str) {
        let kept = self.machine.folder.save_log(&format!("{}-{container}", self.deploy), log);
        match kept {
            Ok(path) => self.machine.reporter.say(&format!("its last lines are in {}", path.display())),
            Err(error) => {
                self.machine.reporter.say(&format!("warning: its last lines cannot be saved: {error}"));
            }
        }
    }
}

/// A run that has ended meanwhile hears nothing: its exit code tells.
async fn say(input: &mut Option<Pin<Box<dyn AsyncWrite + Send>>>, word: &str) {
    if let Some(input) = input {
        let _ = input.write_all(word.as_bytes()).await;
        let _ = input.flush().await;
    }
}

/// What is being kept.
struct Keeping {
    file: Option<Box<dyn KeptFile>>,
    hasher: HashingWriter<io::Sink>,
    lines: u64,
    has_failed: bool,
}

impl Default for Keeping {
    fn default() -> Self {
        Self { file: None, hasher: HashingWriter::new(io::sink()), lines: 0, has_failed: false }
    }
}

/// Bytes cut into lines, each with its end.
#[derive(Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn add(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.0.extend_from_slice(bytes);
        let Some(end) = self.0.iter().rposition(|byte| *byte == b'\n') else { return Vec::new() };
        let rest = self.0.split_off(end + 1);
        let whole = std::mem::replace(&mut self.0, rest);
        whole.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
    }

    fn end(&mut self) -> Vec<Vec<u8>> {
        let last = std::mem::take(&mut self.0);
        if last.is_empty() { Vec::new() } else { vec![last] }
    }
}
