//! How long a registry is waited for: between two tries, and in the middle of one.

use std::time::Duration;

use hyper::header::{HeaderMap, RETRY_AFTER};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::error::{RegistryError, Result};

/// So often one thing is tried again.
const MOST: u32 = 6;
/// So many times as long as nothing may move, all waits for one thing may take together: five minutes, unless told otherwise.
const LONGEST: (u32, u32) = (5, 2);
/// The first wait where the registry names none; each further one is twice as long.
const FIRST: Duration = Duration::from_millis(250);
/// So many bytes a second are nothing, over the time that nothing may move: a layer of a megabyte would take hours.
const NOTHING: u64 = 128;
/// How long nothing may move where `TARSUP_REGISTRY_SILENCE` says nothing else.
const SILENCE: Duration = Duration::from_mins(2);

/// What is left of the tries for one thing.
pub(super) struct Patience {
    tries: u32,
    left: Duration,
}

impl Patience {
    pub fn new() -> Self {
        Self { tries: 0, left: silence() * LONGEST.0 / LONGEST.1 }
    }

    /// For what may be had elsewhere: one more try, and soon.
    pub fn brief() -> Self {
        Self { tries: MOST - 1, left: FIRST * 2_u32.pow(MOST) }
    }

    /// Waits, as long as the registry says where it does. The error where it was tried often enough, or it asks for too much.
    pub async fn wait(&mut self, after: Option<Duration>, error: RegistryError) -> Result<()> {
        let pause = after.unwrap_or(FIRST * 2_u32.pow(self.tries));
        if self.tries >= MOST || pause > self.left {
            return Err(error);
        }
        // What took long already is tried less often.
        self.tries += if matches!(error, RegistryError::Silent { .. }) { MOST / 2 } else { 1 };
        self.left -= pause;
        tracing::debug!(%error, ?pause, "trying again");
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// Whether what comes is more than nothing. Time that its reader takes does not count.
#[derive(Default)]
pub(super) struct Pace {
    waited: Duration,
    moved: u64,
}

impl Pace {
    /// So many bytes came after so long; false where that goes on for too long.
    pub fn holds(&mut self, waited: Duration, moved: usize) -> bool {
        self.waited += waited;
        self.moved += moved as u64;
        if self.waited < silence() {
            return true;
        }
        let enough = self.moved >= NOTHING.saturating_mul(silence().as_secs());
        *self = Self::default();
        enough
    }
}

/// How long nothing may move before it counts as lost.
pub(super) fn silence() -> Duration {
    let set = std::env::var("TARSUP_REGISTRY_SILENCE").ok().and_then(|text| text.trim().parse().ok());
    set.filter(|seconds| *seconds > 0).map_or(SILENCE, Duration::from_secs)
}

/// `Retry-After` (RFC 9110, 10.2.3): seconds, or a date.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = OffsetDateTime::parse(text, &Rfc2822).ok()?;
    Some((at - OffsetDateTime::now_utc()).try_into().unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drip_is_silence_and_a_slow_line_is_none() {
        let minutes = |bytes: usize| {
            let mut pace = Pace::default();
            (0..600).all(|_| pace.holds(Duration::from_secs(1), bytes))
        };
        assert!(!minutes(10) && !minutes(127) && minutes(128) && minutes(1 << 20));
        let mut pace = Pace::default();
        assert!((0..119).all(|_| pace.holds(Duration::from_secs(1), 0)), "a pause");
        assert!(pace.holds(Duration::from_secs(1), 1 << 20), "and then it comes");
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let of = |text: &str| retry_after(&HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]));
        assert_eq!(of("7"), Some(Duration::from_secs(7)));
        assert_eq!(of("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert!(of("Fri, 31 Dec 2999 23:59:59 GMT").unwrap() > Duration::from_hours(1));
        assert_eq!((of("soon"), of("-1")), (None, None));
    }
}
