//! Tests that take minutes each: of two that prove much the same, CI runs one.

use std::sync::OnceLock;
use std::time::SystemTime;

use crate::beside;

/// Which of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    First,
    Second,
}

/// True where this one of two tests is to run: which one differs from run to run, and `TARSUP_SEED` brings a run back. Both run with
/// `TARSUP_EVERY` (tests/long.sh), and outside of CI. One that does not run says so in a line that tests/all.sh counts.
pub fn has_turn(test: &str, turn: Turn) -> bool {
    static SEED: OnceLock<u64> = OnceLock::new();
    let set = |name| std::env::var_os(name).is_some();
    if set("TARSUP_EVERY") || !set("CI") {
        return true;
    }
    let clock = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let said = || std::env::var("TARSUP_SEED").ok()?.parse().ok();
    let seed = *SEED.get_or_init(|| said().unwrap_or_else(clock) % 2);
    let is_its = (seed == 0) == (turn == Turn::First);
    if !is_its {
        beside::say(&format!("ANOTHER TIME {test}: TARSUP_SEED={seed} runs its twin"));
    }
    is_its
}
