//! Who lives and does not answer: one that never has is started again a few times, one that has is only spoken of.
//!
//! One refused connection in its start leaves a tarsregistry that lives for ever and never answers; only a restart helps.
//! One that has answered and falls silent is most likely overloaded, and a restart would make that worse.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::tars::Service;

use super::processes::Identity;

/// What is started and watched: a service, or the web console.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Supervised {
    /// One of the framework's own.
    Service(Service),
    /// The web console.
    Web,
}

impl Supervised {
    /// The service, where it is one.
    pub const fn service(self) -> Option<Service> {
        match self {
            Self::Service(service) => Some(service),
            Self::Web => None,
        }
    }
}

/// One that never answers is started again so often.
pub const MOST_RESTARTS: u32 = 3;
/// So many times within the patience who has not answered yet is asked, and who has: the web console writes a line for each.
const OFTEN: u32 = 10;
const SELDOM: u32 = 3;

/// What is known of one that is watched. Pure: the clock and the answers come from outside.
#[derive(Clone, Debug)]
pub struct Silence {
    life: Identity,
    /// When this life was first seen.
    since: Instant,
    has_answered: bool,
    silent_since: Option<Instant>,
    has_spoken: bool,
    /// How often it was started again since it answered last.
    restarts: u32,
    ask_next: Instant,
}

/// What is to be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Leave,
    /// It has never answered for so long: it is to be started again, for this time of [`MOST_RESTARTS`].
    Restart {
        /// How long it was waited for.
        after: Duration,
        /// Counted from one.
        number: u32,
    },
    /// It has never answered, and the database does not answer either. Said once.
    DatabaseAway,
    /// It was started again as often as may be. Said once.
    GivenUp,
    /// It has answered before and is silent now. Said once.
    WentSilent,
}

/// What counts besides its own answer.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances {
    /// Since when the database answers without a break.
    pub database_since: Option<Instant>,
    /// An administrator stopped it, or its files were just changed.
    pub is_left_alone: bool,
}

impl Silence {
    /// Of one that was just seen for the first time.
    pub fn begin(life: Identity, now: Instant) -> Self {
        Self {
            life,
            since: now,
            has_answered: false,
            silent_since: None,
            has_spoken: false,
            restarts: 0,
            ask_next: now,
        }
    }

    /// Another process has taken its place, whoever started it: it has all its time before it.
    pub fn succeed(&mut self, life: Identity, now: Instant) {
        *self = Self { restarts: self.restarts, ..Self::begin(life, now) };
    }

    /// The process that this is about.
    pub const fn life(&self) -> Identity {
        self.life
    }

    /// True when it is to be asked.
    pub fn is_due(&self, now: Instant) -> bool {
        now >= self.ask_next
    }

    /// True where a restart may follow, so that the database is worth asking.
    pub const fn may_be_restarted(&self) -> bool {
        !self.has_answered && self.restarts < MOST_RESTARTS
    }

    /// It answers.
    pub fn note_answer(&mut self, now: Instant, patience: Duration) {
        let ask_next = now + patience / SELDOM;
        *self = Self {
            has_answered: true,
            restarts: 0,
            silent_since: None,
            has_spoken: false,
            ask_next,
            ..*self
        };
    }

    /// Judges an answer, or that there was none.
    pub fn judge(&mut self, answers: bool, with: Circumstances, patience: Duration, now: Instant) -> Verdict {
        if answers {
            self.note_answer(now, patience);
            return Verdict::Leave;
        }
        self.ask_next = now + patience / if self.has_answered { SELDOM } else { OFTEN };
        if self.has_answered {
            let silent_since = *self.silent_since.get_or_insert(now);
            let is_long = now.saturating_duration_since(silent_since) >= patience;
            return if is_long { self.once(Verdict::WentSilent) } else { Verdict::Leave };
        }
        let pause = pause(patience, self.restarts);
        if now.saturating_duration_since(self.since) < pause || with.is_left_alone {
            return Verdict::Leave;
        }
        if self.restarts == MOST_RESTARTS {
            return self.once(Verdict::GivenUp);
        }
        match with.database_since {
            None => self.once(Verdict::DatabaseAway),
            // Most come to themselves once the database is back: they have all their time from then on.
            Some(since) if now.saturating_duration_since(since) < pause => Verdict::Leave,
            Some(_) => {
                self.restarts += 1;
                Verdict::Restart { after: pause, number: self.restarts }
            }
        }
    }

    fn once(&mut self, verdict: Verdict) -> Verdict {
        if std::mem::replace(&mut self.has_spoken, true) { Verdict::Leave } else { verdict }
    }
}

/// 30, 60, 120 s with the default patience.
fn pause(patience: Duration, restarts: u32) -> Duration {
    patience * (1 << restarts.min(MOST_RESTARTS - 1))
}

/// What is to be asked.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// Who, each as which process.
    pub lives: Vec<(Supervised, Identity)>,
    /// Whether the database is to be asked, too.
    pub database: bool,
}

/// What was answered.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Who was asked, and whether it answered.
    pub lives: Vec<(Supervised, Identity, bool)>,
    /// Which services an administrator does not want here; nothing where the database was not asked or did not answer.
    pub unwanted: Option<BTreeSet<Service>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn life(number: u32) -> Identity {
        Identity::parse(&format!("{number} {number}")).unwrap()
    }

    fn since(database: Instant) -> Circumstances {
        Circumstances { database_since: Some(database), is_left_alone: false }
    }

    #[test]
    fn one_that_never_answers_is_started_again_three_times_with_growing_pauses() {
        let begun = Instant::now();
        let mut silence = Silence::begin(life(1), begun);
        let mut now = begun;
        let mut restarts = Vec::new();
        let mut given_up = 0;
        for number in 2..700 {
            now += Duration::from_secs(1);
            match silence.judge(false, since(begun), PATIENCE, now) {
                Verdict::Restart { after, number: nth } => {
                    restarts.push((nth, after.as_secs()));
                    silence.succeed(life(number), now);
                }
                Verdict::GivenUp => given_up += 1,
                other => assert_eq!(other, Verdict::Leave),
            }
        }
        assert_eq!((restarts, given_up), (vec![(1, 30), (2, 60), (3, 120)], 1));
    }

    #[test]
    fn one_that_has_answered_is_spoken_of_once_and_not_started_again() {
        let begun = Instant::now();
        let mut silence = Silence::begin(life(1), begun);
        assert_eq!(silence.judge(true, since(begun), PATIENCE, begun), Verdict::Leave);
        let verdicts: Vec<Verdict> = (1..600)
            .map(|second| silence.judge(false, since(begun), PATIENCE, begun + Duration::from_secs(second)))
            .filter(|verdict| *verdict != Verdict::Leave)
            .collect();
        assert_eq!(verdicts, [Verdict::WentSilent]);
    }

    #[test]
    fn time_without_the_database_does_not_count() {
        let begun = Instant::now();
        let mut silence = Silence::begin(life(1), begun);
        let away = Circumstances { database_since: None, is_left_alone: false };
        let at = |seconds| begun + Duration::from_secs(seconds);
        assert_eq!(silence.judge(false, away, PATIENCE, at(31)), Verdict::DatabaseAway);
        assert_eq!(silence.judge(false, away, PATIENCE, at(300)), Verdict::Leave, "said once");
        assert_eq!(silence.judge(false, since(at(301)), PATIENCE, at(330)), Verdict::Leave);
        let verdict = silence.judge(false, since(at(301)), PATIENCE, at(331));
        assert_eq!(verdict, Verdict::Restart { after: PATIENCE, number: 1 });
    }

    #[test]
    fn one_that_is_left_alone_is_not_started_again() {
        let begun = Instant::now();
        let mut silence = Silence::begin(life(1), begun);
        let alone = Circumstances { database_since: Some(begun), is_left_alone: true };
        assert_eq!(silence.judge(false, alone, PATIENCE, begun + PATIENCE * 9), Verdict::Leave);
    }
}
