//! When a watched service that died is started again: at once the first time, then with growing pauses.

use std::time::{Duration, Instant};

/// A service that lived this long starts again at once.
pub const STABLE: Duration = Duration::from_mins(1);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(30);

/// One watched service. Pure: the clock comes from outside.
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    begun: Option<Instant>,
    deaths: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Running,
    /// Dead; due at this moment.
    Pausing(Instant),
    /// Waits for something else (a registry), or is left to an administrator.
    Held,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing.
    Leave,
    /// It has just died. With a pause of zero the restart is due now.
    Died {
        /// The pause before the restart.
        restart_in: Duration,
    },
    /// The pause is over.
    Due,
}

impl Backoff {
    /// It was started.
    pub fn begin(&mut self, now: Instant) {
        self.begun = Some(now);
        self.state = State::Running;
    }

    /// It is to be started by something else than time.
    pub fn hold(&mut self) {
        self.state = State::Held;
    }

    /// An administrator stopped it: nothing until it is seen alive again.
    pub fn leave_alone(&mut self) {
        self.deaths = 0;
        self.state = State::Held;
    }

    /// Judges what is seen.
    pub fn look(&mut self, alive: bool, now: Instant) -> Decision {
        if alive {
            if self.state != State::Running {
                // Somebody else started it, tarsnode or an administrator.
                self.begin(now);
            }
            return Decision::Leave;
        }
        match self.state {
            State::Held => Decision::Leave,
            State::Pausing(due) if now < due => Decision::Leave,
            State::Pausing(_) => Decision::Due,
            State::Running => {
                let lived = self.begun.map_or(Duration::ZERO, |begun| now.saturating_duration_since(begun));
                self.deaths = if lived >= STABLE { 1 } else { self.deaths + 1 };
                let restart_in = pause(self.deaths);
                self.state = State::Pausing(now + restart_in);
                Decision::Died { restart_in }
            }
        }
    }
}

/// 0, 1, 2, 4, 8, 16, 30, 30... seconds.
pub fn pause(deaths: u32) -> Duration {
    match deaths {
        0 | 1 => Duration::ZERO,
        more => Duration::from_secs(1 << (more - 2).min(5)).min(LONGEST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end_at_the_longest() {
        let seconds: Vec<u64> = (1..=9).map(|deaths| pause(deaths).as_secs()).collect();
        assert_eq!(seconds, [0, 1, 2, 4, 8, 16, 30, 30, 30]);
    }

    #[test]
    fn service_that_dies_again_and_again_is_started_with_pauses() {
        let mut now = Instant::now();
        let mut backoff = Backoff::default();
        backoff.begin(now);
        assert_eq!(backoff.look(true, now), Decision::Leave);
        assert_eq!(backoff.look(false, now), Decision::Died { restart_in: Duration::ZERO });
        backoff.begin(now);
        assert_eq!(backoff.look(false, now), Decision::Died { restart_in: Duration::from_secs(1) });
        assert_eq!(backoff.look(false, now), Decision::Leave);
        now += Duration::from_secs(1);
        assert_eq!(backoff.look(false, now), Decision::Due);
        backoff.begin(now);
        now += STABLE;
        assert_eq!(backoff.look(false, now), Decision::Died { restart_in: Duration::ZERO }, "it was stable");
    }

    #[test]
    fn service_that_somebody_else_started_is_not_started_twice() {
        let now = Instant::now();
        let mut backoff = Backoff::default();
        backoff.begin(now);
        assert!(matches!(backoff.look(false, now), Decision::Died { .. }));
        assert_eq!(backoff.look(true, now), Decision::Leave);
        assert_eq!(backoff.state, State::Running);
    }

    #[test]
    fn service_left_alone_is_watched_again_once_it_lives() {
        let now = Instant::now();
        let mut backoff = Backoff::default();
        backoff.begin(now);
        backoff.leave_alone();
        assert_eq!(backoff.look(false, now), Decision::Leave);
        assert_eq!(backoff.look(true, now), Decision::Leave);
        assert!(matches!(backoff.look(false, now), Decision::Died { .. }));
    }
}
