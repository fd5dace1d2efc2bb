//! Where the time goes: what tracing's spans of ours took, added up by what they are about.

use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tracing::Subscriber;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::table::aligned;

/// What was measured so far, in the order in which it began.
#[derive(Clone, Debug, Default)]
pub struct Timings(Arc<Mutex<Vec<Row>>>);

#[derive(Clone, Debug, Default)]
struct Row {
    name: String,
    /// How many are under way, and since when there is one.
    running: usize,
    since: Option<Instant>,
    /// While there was one.
    wall: Duration,
    /// All of them together: more than `wall` where several ran at once.
    busy: Duration,
    times: usize,
}

/// One line for scripts. Times are in seconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Timed {
    /// What was done, and to what.
    pub name: String,
    /// While it was being done.
    pub seconds: f64,
    /// The same, of each thread.
    pub busy_seconds: f64,
    /// How often it was begun.
    pub times: usize,
}

impl Timings {
    fn begin(&self, name: &str, now: Instant) -> usize {
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = rows.iter().position(|row| row.name == name).unwrap_or(rows.len());
        if at == rows.len() {
            rows.push(Row { name: name.to_owned(), ..Row::default() });
        }
        let row = &mut rows[at];
        row.running += 1;
        row.times += 1;
        row.since.get_or_insert(now);
        at
    }

    fn end(&self, at: usize, began: Instant, now: Instant) {
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(row) = rows.get_mut(at) else { return };
        row.busy += now - began;
        row.running = row.running.saturating_sub(1);
        if row.running == 0
            && let Some(since) = row.since.take()
        {
            row.wall += now - since;
        }
    }

    /// What has ended by now.
    pub fn all(&self) -> Vec<Timed> {
        let rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let timed = |row: &Row| Timed {
            name: row.name.clone(),
            seconds: row.wall.as_secs_f64(),
            busy_seconds: row.busy.as_secs_f64(),
            times: row.times,
        };
        rows.iter().map(timed).collect()
    }

    /// A table for a person; `total` is how long the command ran.
    pub fn table(&self, total: Duration) -> String {
        let seconds = |seconds: f64| format!("{seconds:.3} s");
        let mut rows = vec![["", "TIME", "THREADS' TIME", "TIMES"].map(str::to_owned).to_vec()];
        rows.extend(self.all().into_iter().map(|timed| {
            vec![timed.name, seconds(timed.seconds), seconds(timed.busy_seconds), timed.times.to_string()]
        }));
        rows.push(vec!["the whole command".to_owned(), seconds(total.as_secs_f64())]);
        aligned(&rows).join("\n")
    }
}

/// What a span is about: its name, and the field `what`; of an engine's `call` what is asked, not of which image or container.
struct What(String);

impl Visit for What {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let value = match field.name() {
            "what" => value,
            "call" => value.split(' ').next().unwrap_or_default(),
            _ => return,
        };
        let _ = write!(self.0, " {value}");
    }
}

/// When a span began, and its row.
struct Begun(usize, Instant);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Timings {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut what = What(attributes.metadata().name().to_owned());
        attributes.record(&mut what);
        let now = Instant::now();
        let at = self.begin(&what.0, now);
        span.extensions_mut().insert(Begun(at, now));
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let span = context.span(&id);
        if let Some(Begun(at, began)) = span.and_then(|span| span.extensions_mut().remove::<Begun>()) {
            self.end(at, began, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn spans_of_one_name_that_overlap_count_once_in_time_and_each_in_threads() {
        let timings = Timings::default();
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let first = timings.begin("compress x", at(0));
        let second = timings.begin("compress x", at(10));
        timings.end(first, at(0), at(20));
        timings.end(second, at(10), at(30));
        let third = timings.begin("compress x", at(100));
        timings.end(third, at(100), at(101));
        let expected = Timed { name: "compress x".to_owned(), seconds: 0.031, busy_seconds: 0.041, times: 3 };
        assert_eq!(timings.all(), [expected]);
        let table = timings.table(Duration::from_secs(2));
        assert!(table.contains("compress x         0.031 s  0.041 s        3"), "{table}");
        assert!(table.ends_with("the whole command  2.000 s"), "{table}");
    }

    #[test]
    fn span_is_named_by_what_it_is_about() {
        let timings = Timings::default();
        let subscriber = tracing_subscriber::registry().with(timings.clone());
        tracing::subscriber::with_default(subscriber, || {
            for what in ["base", "tarsstat", "base"] {
                let _span = tracing::debug_span!("hash", what, size = 3).entered();
            }
            let _span = tracing::debug_span!("read", what = %"a b").entered();
        });
        let named: Vec<(String, usize)> =
            timings.all().into_iter().map(|timed| (timed.name, timed.times)).collect();
        let expected = [("hash base", 2), ("hash tarsstat", 1), ("read a b", 1)];
        assert_eq!(named, expected.map(|(name, times)| (name.to_owned(), times)));
    }
}
