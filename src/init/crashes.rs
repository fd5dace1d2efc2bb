//! What crashed and is tarsnode's to bring back: where tarsnode has not done so after a while, it is started here.
//!
//! tarsnode needs a second for it, but after several deaths in a row more than 45.

use std::fmt;
use std::time::{Duration, Instant};

use super::backoff;

/// How long a service is left to tarsnode.
pub const TARSNODE: Duration = Duration::from_secs(2);
/// When one that could not be judged, or whose files are being replaced, is looked at again.
const AGAIN: Duration = Duration::from_secs(3);

/// The crashes of one service. Pure: the clock comes from outside.
#[derive(Clone, Debug, Default)]
pub struct Crashes {
    last: Option<Instant>,
    in_a_row: u32,
    due: Option<Instant>,
    said: Option<Obstacle>,
}

/// Why a service that is due is not started yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// A file below its `bin` has just changed.
    Published,
    /// The database does not say whether it is wanted.
    Unknown,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Published => "its files have just been changed, as by a publication",
            Self::Unknown => "the database does not say whether it is to run",
        })
    }
}

impl Crashes {
    /// It has just crashed. Returns in how long it is started here, unless it lives again by then.
    pub fn note(&mut self, now: Instant) -> Duration {
        let pause = backoff::pause(self.in_a_row);
        let is_stable = self
            .last
            .is_none_or(|last| now.saturating_duration_since(last) >= TARSNODE + pause + backoff::STABLE);
        self.in_a_row = if is_stable { 1 } else { self.in_a_row + 1 };
        let after = TARSNODE + backoff::pause(self.in_a_row);
        (self.last, self.due, self.said) = (Some(now), Some(now + after), None);
        after
    }

    /// True once it is to be started here, if it does not live.
    pub fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| now >= due)
    }

    /// It lives, it is started, or it is left alone until it crashes again.
    pub fn settle(&mut self) {
        self.due = None;
    }

    /// Not now; true where that has not been said yet.
    pub fn put_off(&mut self, why: Obstacle, now: Instant) -> bool {
        self.due = Some(now + AGAIN);
        self.said.replace(why) != Some(why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_that_crashes_again_and_again_is_left_longer_each_time() {
        let mut now = Instant::now();
        let mut crashes = Crashes::default();
        let mut pauses = Vec::new();
        for _ in 0..5 {
            let after = crashes.note(now);
            pauses.push(after.as_secs());
            assert!(!crashes.is_due(now));
            now += after;
            assert!(crashes.is_due(now));
            crashes.settle();
            assert!(!crashes.is_due(now));
        }
        assert_eq!(pauses, [2, 3, 4, 6, 10]);
        now += backoff::STABLE + TARSNODE + Duration::from_secs(8);
        assert_eq!(crashes.note(now), TARSNODE, "it was stable");
    }

    #[test]
    fn obstacle_is_said_once_and_looked_at_again() {
        let now = Instant::now();
        let mut crashes = Crashes::default();
        crashes.note(now);
        let due = now + TARSNODE;
        assert!(crashes.put_off(Obstacle::Unknown, due));
        assert!(!crashes.is_due(due));
        assert!(crashes.is_due(due + AGAIN));
        assert!(!crashes.put_off(Obstacle::Unknown, due + AGAIN));
        assert!(crashes.put_off(Obstacle::Published, due + AGAIN));
    }
}
