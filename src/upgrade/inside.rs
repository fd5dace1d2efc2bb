//! What a container says of itself: its probe, run by exec, or that it has none.

use std::time::Duration;

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

/// Asks the probe inside.
pub(super) async fn probe(engine: &dyn Engine, container: &str) -> Inside {
    let output = match engine.exec(container, &PROBE, PROBE_TIMEOUT).await {
        Ok(output) => output,
        Err(error) if is_missing(&error.to_string()) => return Inside::NoInit,
        Err(error) => return Inside::Silent(error.to_string()),
    };
    if let Ok(probe) = serde_json::from_str(&output.stdout) {
        return Inside::Said(probe);
    }
    let said = output.stderr.lines().chain(output.stdout.lines()).next().unwrap_or("nothing");
    // The engine's own codes for a program that cannot be run.
    if matches!(output.exit_code, 126 | 127) && is_missing(said) {
        return Inside::NoInit;
    }
    Inside::Silent(format!("its probe exited with {} and said: {said}", output.exit_code))
}
