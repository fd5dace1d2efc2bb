//! What a deploy was for those who called: which containers gave no answer for how long, what was drained meanwhile. A fold over
//! its journal.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::journal::{Event, JournalHeader, Line, Way};

/// What a deploy was.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Seen {
    /// From its first event to its last, in seconds.
    pub seconds: f64,
    /// The containers that were stopped and came back, in that order.
    pub containers: Vec<Silent>,
    /// The services that were drained.
    pub services: Vec<Drained>,
    /// What was done, step by step.
    pub steps: Vec<Done>,
}

/// A container that was stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Silent {
    /// The service of the file.
    pub service: String,
    /// The container that answers now.
    pub container: String,
    /// From the beginning of the stop until the container, or the one in its place, was found well.
    pub milliseconds: u64,
}

/// An instance of a service that clients were sent away from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Drained {
    /// Such as `Demo.HelloServer`.
    pub server: String,
    /// The node.
    pub node: String,
    /// For how long, in seconds; up to the end of the journal where nothing says that it was given back.
    pub seconds: f64,
    /// False where nothing says so.
    pub given_back: bool,
}

/// A step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Done {
    /// When it began, RFC 3339.
    pub at: String,
    /// Which way.
    pub way: Way,
    /// Its number.
    pub step: usize,
    /// Its kind.
    pub kind: String,
    /// The container that it is about.
    pub container: Option<String>,
    /// How long it took, in seconds; nothing where it did not end.
    pub seconds: Option<f64>,
    /// Why it failed, where it did.
    pub error: Option<String>,
}

/// Reads it from a journal.
pub fn seen(header: &JournalHeader, lines: &[Line]) -> Seen {
    let begun = lines.first().map_or(header.at.as_str(), |line| line.at.as_str());
    let ended = lines.last().map_or(begun, |line| line.at.as_str());
    let mut seen = Seen { seconds: between(begun, ended), ..Seen::default() };
    let mut open: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut since: Vec<&str> = Vec::new();
    for line in lines {
        match &line.event {
            Event::Started { way, step, kind, container, .. } => seen.steps.push(Done {
                at: line.at.clone(),
                way: *way,
                step: *step,
                kind: kind.clone(),
                container: container.clone(),
                seconds: None,
                error: None,
            }),
            Event::Succeeded { .. } | Event::Failed { .. } => {
                if let Some(done) = seen.steps.last_mut() {
                    done.seconds = Some(between(&done.at, &line.at));
                    done.error = match &line.event {
                        Event::Failed { error, .. } => Some(error.clone()),
                        _ => None,
                    };
                }
            }
            Event::Silent { service, container, milliseconds } => {
                let (service, container) = (service.clone(), container.clone());
                seen.containers.push(Silent { service, container, milliseconds: *milliseconds });
            }
            Event::Drained { places } => {
                for place in places {
                    if open.contains_key(place) {
                        continue;
                    }
                    open.insert(place.clone(), seen.services.len());
                    since.push(&line.at);
                    let (server, node) = place.clone();
                    let (seconds, given_back) = (between(&line.at, ended), false);
                    seen.services.push(Drained { server, node, seconds, given_back });
                }
            }
            Event::GivenBack { places } => {
                for at in places.iter().filter_map(|place| open.remove(place)) {
                    let drained = &mut seen.services[at];
                    drained.seconds = between(since[at], &line.at);
                    drained.given_back = true;
                }
            }
            _ => {}
        }
    }
    seen
}

impl Seen {
    /// True where nobody can have noticed anything.
    pub fn is_quiet(&self) -> bool {
        self.containers.is_empty() && self.services.is_empty()
    }

    /// For a person: a line for each container and each service.
    pub fn text(&self) -> String {
        let mut text = String::new();
        if !self.containers.is_empty() {
            let width = self.containers.iter().map(|one| one.container.chars().count()).max().unwrap_or(0);
            for one in &self.containers {
                #[expect(clippy::cast_precision_loss, reason = "one digit is shown")]
                let seconds = one.milliseconds as f64 / 1000.0;
                let _ = writeln!(text, "  {:width$}  silent for {seconds:.1} s", one.container);
            }
        }
        let mut by_server: BTreeMap<&str, Vec<&Drained>> = BTreeMap::new();
        for one in &self.services {
            by_server.entry(&one.server).or_default().push(one);
        }
        for (server, instances) in by_server {
            let each = |one: &&Drained| {
                let left = if one.given_back { "" } else { " and not given back yet" };
                format!("{} for {:.0} s{left}", one.node, one.seconds)
            };
            let each: Vec<String> = instances.iter().map(each).collect();
            let _ = writeln!(text, "  {server}  drained on {}", each.join(", "));
        }
        text
    }
}

fn between(from: &str, to: &str) -> f64 {
    let at = |text: &str| OffsetDateTime::parse(text, &Rfc3339).ok();
    match (at(from), at(to)) {
        (Some(from), Some(to)) => (to - from).as_seconds_f64().max(0.0),
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(second: u8, event: Event) -> Line {
        Line { at: format!("2026-01-02T03:04:{second:02}Z"), event }
    }

    fn place(node: &str) -> (String, String) {
        ("Demo.A".to_owned(), node.to_owned())
    }

    fn header() -> JournalHeader {
        JournalHeader {
            tarsup_journal: 1,
            deploy: "20260102T030405Z-00ff".parse().unwrap(),
            deployment: "tars".to_owned(),
            what: "up".to_owned(),
            by: "ann@host".to_owned(),
            at: "2026-01-02T03:04:00Z".to_owned(),
        }
    }

    #[test]
    fn what_was_silent_and_drained_is_told_with_its_time() {
        let started = Event::Started {
            way: Way::Do,
            step: 1,
            kind: "stop".to_owned(),
            service: None,
            container: Some("tars-a".to_owned()),
        };
        let silent =
            Event::Silent { service: "a".to_owned(), container: "tars-a".to_owned(), milliseconds: 3_140 };
        let lines = [
            line(1, Event::Drained { places: vec![place("n1"), place("n2")] }),
            // Said again after somebody else had given it back: it counts from the first time.
            line(2, Event::Drained { places: vec![place("n1")] }),
            line(5, started),
            line(7, Event::Failed { way: Way::Do, step: 1, error: "gone".to_owned() }),
            line(8, silent),
            line(9, Event::GivenBack { places: vec![place("n1"), place("n3")] }),
            line(11, Event::Committed),
        ];
        let seen = seen(&header(), &lines);
        assert!((seen.seconds - 10.0).abs() < 1e-9);
        let times: Vec<_> =
            seen.services.iter().map(|one| (one.node.as_str(), one.seconds, one.given_back)).collect();
        assert_eq!(times, [("n1", 8.0, true), ("n2", 10.0, false)]);
        assert_eq!(seen.steps.len(), 1);
        assert_eq!((seen.steps[0].seconds, seen.steps[0].error.as_deref()), (Some(2.0), Some("gone")));
        assert_eq!(
            seen.text(),
            "  tars-a  silent for 3.1 s\n  Demo.A  drained on n1 for 8 s, n2 for 10 s and not given back yet\n"
        );
    }

    #[test]
    fn journal_without_times_that_can_be_read_tells_no_time() {
        let mut broken = line(1, Event::Committed);
        "yesterday".clone_into(&mut broken.at);
        let seen = seen(&header(), &[broken]);
        assert!(seen.is_quiet() && seen.seconds == 0.0);
    }
}
