//! What a container says of itself: its probe, run by exec, or that it has none.

use std::time::Duration;

use serde::de::DeserializeOwned;

use super::gate::Probe;
use crate::engine::Engine;
use crate::tars::catalogue::INIT_PATH;

/// How long the probe inside a container may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(15);
/// The probe inside the images.
const PROBE: [&str; 3] = [INIT_PATH, "probe", "--json"];

/// What a container says from the inside.
pub(super) enum Inside {
    Said(Probe),
    Silent(String),
    /// It has no tars-init.
    NoInit,
}

/// How the engines say that there is no such program.
pub(super) fn is_missing(words: &str) -> bool {
    ["no such file or directory", "executable file not found"].iter().any(|sign| words.contains(sign))
}

/// Why a tars-init gave no document.
enum Unanswered {
    /// There is none.
    NoInit,
    /// The engine's words.
    Engine(String),
    /// How it ended, and the first line that it said.
    Said(i64, String),
}

/// Runs a command of tars-init that prints a document.
async fn document<T: DeserializeOwned>(
    engine: &dyn Engine,
    container: &str,
    command: &[&str],
    timeout: Duration,
) -> Result<T, Unanswered> {
    let output = match engine.exec(container, command, timeout).await {
        Ok(output) => output,
        Err(error) if is_missing(&error.to_string()) => return Err(Unanswered::NoInit),
        Err(error) => return Err(Unanswered::Engine(error.to_string())),
    };
    if let Ok(document) = serde_json::from_str(&output.stdout) {
        return Ok(document);
    }
    let said = output.stderr.lines().chain(output.stdout.lines()).next().unwrap_or("nothing");
    // The engine's own codes for a program that cannot be run.
    if matches!(output.exit_code, 126 | 127) && is_missing(said) {
        return Err(Unanswered::NoInit);
    }
    Err(Unanswered::Said(output.exit_code, said.to_owned()))
}

/// Asks the probe inside.
pub(super) async fn probe(engine: &dyn Engine, container: &str) -> Inside {
    match document(engine, container, &PROBE, PROBE_TIMEOUT).await {
        Ok(probe) => Inside::Said(probe),
        Err(Unanswered::NoInit) => Inside::NoInit,
        Err(Unanswered::Engine(why)) => Inside::Silent(why),
        Err(Unanswered::Said(code, said)) => {
            Inside::Silent(format!("its probe exited with {code} and said: {said}"))
        }
    }
}

/// Asks the tars-init of a container something that an older one does not know; in words why it gives no answer.
pub(super) async fn ask<T: DeserializeOwned>(
    engine: &dyn Engine,
    container: &str,
    words: &[&str],
    timeout: Duration,
) -> Result<T, String> {
    let command = [&[INIT_PATH], words].concat();
    document(engine, container, &command, timeout).await.map_err(|unanswered| match unanswered {
        Unanswered::NoInit => "it has no tars-init".to_owned(),
        Unanswered::Engine(why) => why,
        Unanswered::Said(64, _) => "its tars-init does not tell".to_owned(),
        Unanswered::Said(code, said) => {
            format!("`tars-init {}` exited with {code} and said: {said}", words.first().unwrap_or(&""))
        }
    })
}
