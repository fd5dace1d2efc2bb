//! The second half of a node's gate: whatever served there before serves again. Pure; `watch` takes the samples.
//!
//! A node that answers is not yet a node that serves: tarsnode answers at once, and starts what is deployed there later.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Deserialize;

use super::gate::{Asked, Probe};

/// A server that must run in a container, as its probe sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Served {
    /// Such as `Demo.HelloServer`.
    pub server: String,
    /// It serves, from a process of the container.
    pub serves: bool,
    /// Why it does not, in a few words.
    #[serde(default)]
    pub detail: String,
    /// The last lines that it wrote, where it does not.
    #[serde(default)]
    pub log: Vec<String>,
}

/// What served in a container before it was stopped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Before {
    /// The servers that served.
    pub served: BTreeSet<String>,
    /// The servers that were to run and did not: nobody waits for them.
    pub silent: BTreeSet<String>,
}

impl Before {
    /// What a probe of the container says; nothing where it cannot tell.
    pub fn of(probe: &Probe) -> Option<Self> {
        let mut before = Self::default();
        for one in probe.deployed.as_ref()? {
            let names = if one.serves { &mut before.served } else { &mut before.silent };
            names.insert(one.server.clone());
        }
        Some(before)
    }

    /// What is seen from outside of a container that cannot tell; of what answers nobody there its tarsnode's word counts.
    pub fn seen(asked: &Asked) -> Self {
        let mut before = Self { served: asked.untold.iter().cloned().collect(), silent: BTreeSet::new() };
        for one in &asked.deployed {
            let names = if one.serves { &mut before.served } else { &mut before.silent };
            names.insert(one.server.clone());
        }
        before
    }
}

/// Judges whether what served before serves again.
#[derive(Clone, Debug)]
pub struct Again {
    before: BTreeSet<String>,
    timeout: Duration,
    /// When the container itself was first found well.
    since: Option<Duration>,
}

/// What is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// It may still come.
    Yet(String),
    /// It has not come in time.
    ForGood(String),
}

impl Again {
    /// What served before, and how long it may take once the container answers.
    pub const fn new(before: BTreeSet<String>, timeout: Duration) -> Self {
        Self { before, timeout, since: None }
    }

    /// Judges a probe of a container that is well otherwise.
    pub fn judge(&mut self, at: Duration, probe: Option<&Probe>) -> Option<Missing> {
        let why = self.complaint(probe);
        self.within(at, why)
    }

    /// The same of a container without a probe: whoever answers nobody outside is not waited for.
    pub fn judge_from_outside(&mut self, at: Duration, asked: Option<&Asked>) -> Option<Missing> {
        let why = asked.and_then(|asked| self.silent(&asked.deployed));
        self.within(at, why)
    }

    fn within(&mut self, at: Duration, why: Option<String>) -> Option<Missing> {
        let since = *self.since.get_or_insert(at);
        let why = why?;
        Some(if at.saturating_sub(since) < self.timeout {
            Missing::Yet(why)
        } else {
            Missing::ForGood(format!("{why} (within {} s of its own answer)", self.timeout.as_secs()))
        })
    }

    fn complaint(&self, probe: Option<&Probe>) -> Option<String> {
        if self.before.is_empty() {
            return None;
        }
        let probe = probe?;
        let Some(deployed) = &probe.deployed else {
            let why = &probe.deployed_unknown;
            // An older tars-init, such as that of a version that comes back, does not know the question.
            return (!why.is_empty()).then(|| format!("nobody says what is deployed there: {why}"));
        };
        self.silent(deployed)
    }

    /// What served before and does not. What an administrator has stopped or taken away since is not in it, and not waited for.
    fn silent(&self, deployed: &[Served]) -> Option<String> {
        let silent: Vec<&Served> =
            deployed.iter().filter(|one| !one.serves && self.before.contains(&one.server)).collect();
        let first = silent.first()?;
        let others = match silent.len() {
            1 => String::new(),
            many => format!(" and {} more", many - 1),
        };
        let log = first.log.iter().fold(String::new(), |text, line| text + "\n    | " + line);
        Some(format!("{}{others} served before and does not yet: {}{log}", first.server, first.detail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(servers: &[(&str, bool)]) -> Probe {
        let of = |(server, serves): &(&str, bool)| Served {
            server: (*server).to_owned(),
            serves: *serves,
            detail: "port 9001: nothing listens".to_owned(),
            ..Served::default()
        };
        Probe { deployed: Some(servers.iter().map(of).collect()), ..Probe::default() }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn what_served_must_serve_again_and_what_was_down_need_not() {
        let before = Before::of(&probe(&[("Demo.A", true), ("Demo.B", false)])).unwrap();
        assert!(before.silent.contains("Demo.B"));
        let mut again = Again::new(before.served, at(60));
        let down = probe(&[("Demo.A", false), ("Demo.B", false)]);
        assert!(
            matches!(again.judge(at(3), Some(&down)), Some(Missing::Yet(why)) if why.starts_with("Demo.A served"))
        );
        assert!(
            matches!(again.judge(at(62), Some(&down)), Some(Missing::Yet(_))),
            "counted from its own answer"
        );
        assert!(matches!(again.judge(at(63), Some(&down)), Some(Missing::ForGood(_))));
        assert_eq!(again.judge(at(64), Some(&probe(&[("Demo.A", true), ("Demo.B", false)]))), None);
        assert_eq!(again.judge(at(64), Some(&probe(&[]))), None, "stopped by an administrator since");
    }

    #[test]
    fn nobody_knows_is_no_proof() {
        let mut again = Again::new(BTreeSet::from(["Demo.A".to_owned()]), at(10));
        let unknown = Probe { deployed_unknown: "no registry answers".to_owned(), ..Probe::default() };
        assert!(matches!(again.judge(at(0), Some(&unknown)), Some(Missing::Yet(_))));
        assert!(matches!(again.judge(at(10), Some(&unknown)), Some(Missing::ForGood(_))));
        assert_eq!(again.judge(at(20), Some(&Probe::default())), None, "an older tars-init never tells");
        assert_eq!(Again::new(BTreeSet::new(), at(10)).judge(at(20), None), None, "nothing served there");
        assert_eq!(Before::of(&Probe::default()), None);
    }
}
