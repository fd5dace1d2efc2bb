//! The gate: whether a container is proven, decided from samples of it. Pure; `run` takes the samples.

use std::time::Duration;

use serde::Deserialize;

use crate::engine::{Health, Status};
use crate::tars::Role;

/// One look at a container.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Since the gate began.
    pub at: Duration,
    /// `State.Status`.
    pub status: Status,
    /// `State.ExitCode`.
    pub exit_code: i64,
    /// `RestartCount`.
    pub restart_count: u64,
    /// `State.Health.Status`, where there is a health check.
    pub health: Option<Health>,
    /// What the probe inside said; an error in words where it said nothing.
    pub probe: Option<Result<Probe, String>>,
}

/// What `tars-init probe --json` says, as far as the gate asks.
#[derive(Clone, Debug, Deserialize)]
pub struct Probe {
    /// Every servant of the role answers.
    pub healthy: bool,
    /// The node is registered with a registry; `None` where it was not asked.
    #[serde(default)]
    pub registered: Option<bool>,
    /// What is wrong, in words.
    #[serde(default)]
    pub problems: Vec<String>,
}

/// What the samples so far mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not yet, and why.
    Wait(String),
    /// Healthy, but not yet for long enough.
    Dwell,
    /// Proven.
    Pass,
    /// It will not be proven, and why.
    Fail(String),
}

/// Judges one container.
#[derive(Clone, Debug)]
pub struct Gate {
    role: Option<Role>,
    timeout: Duration,
    dwell: Duration,
    restarts: Option<u64>,
    healthy_since: Option<Duration>,
}

/// How many of a probe's problems a person is shown.
const SHOWN: usize = 2;

impl Gate {
    /// A gate for a container of that role, that may take `timeout` to be healthy and must stay so for `dwell`.
    pub fn new(role: Option<Role>, timeout: Duration, dwell: Duration) -> Self {
        Self { role, timeout, dwell, restarts: None, healthy_since: None }
    }

    /// True where the container can be asked from the inside.
    pub fn asks_inside(&self) -> bool {
        matches!(self.role, Some(Role::Master | Role::Slave | Role::Node))
    }

    /// Judges by one more sample.
    pub fn judge(&mut self, sample: &Sample) -> Verdict {
        let restarts = *self.restarts.get_or_insert(sample.restart_count);
        match sample.status {
            Status::Exited | Status::Dead | Status::Removing => {
                return Verdict::Fail(format!("it exited with {}", sample.exit_code));
            }
            _ if sample.restart_count > restarts => {
                return Verdict::Fail(format!(
                    "it died and was started again, exit code {}",
                    sample.exit_code
                ));
            }
            _ => {}
        }
        match self.complaint(sample) {
            None => {
                let since = *self.healthy_since.get_or_insert(sample.at);
                if sample.at.saturating_sub(since) >= self.dwell { Verdict::Pass } else { Verdict::Dwell }
            }
            Some(complaint) => {
                // A dwell that is broken begins anew, within the same time.
                let was_healthy = self.healthy_since.take().is_some();
                if sample.at < self.timeout {
                    return Verdict::Wait(complaint);
                }
                let seconds = self.timeout.as_secs();
                Verdict::Fail(if was_healthy {
                    format!("it was healthy and is no more: {complaint}")
                } else {
                    format!("it was not healthy within {seconds} s: {complaint}")
                })
            }
        }
    }

    /// Judges a look that failed, because the engine did not answer.
    pub fn judge_silence(&mut self, at: Duration, why: &str) -> Verdict {
        self.healthy_since = None;
        if at < self.timeout { Verdict::Wait(why.to_owned()) } else { Verdict::Fail(why.to_owned()) }
    }

    /// What speaks against this sample being healthy.
    fn complaint(&self, sample: &Sample) -> Option<String> {
        if sample.status != Status::Running {
            return Some(format!("it is {}", format!("{:?}", sample.status).to_lowercase()));
        }
        if self.asks_inside() {
            return match &sample.probe {
                None => Some("it was not asked".to_owned()),
                Some(Err(why)) => Some(why.clone()),
                Some(Ok(probe)) => complaint_of(probe),
            };
        }
        match sample.health {
            None | Some(Health::Healthy) => None,
            Some(Health::Starting) => Some("its health check has not passed yet".to_owned()),
            Some(Health::Unhealthy) => Some("its health check fails".to_owned()),
        }
    }
}

fn complaint_of(probe: &Probe) -> Option<String> {
    if probe.healthy && probe.registered != Some(false) {
        return None;
    }
    if probe.problems.is_empty() {
        let what = if probe.healthy { "it is not registered yet" } else { "its servants do not answer yet" };
        return Some(what.to_owned());
    }
    // A container that just starts has a dozen: the first ones tell enough.
    let (shown, rest) = probe.problems.split_at(probe.problems.len().min(SHOWN));
    let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
    Some(shown.join("; ") + &more)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at: u64) -> Sample {
        let probe = Probe { healthy: true, registered: Some(true), problems: Vec::new() };
        Sample {
            at: Duration::from_secs(at),
            status: Status::Running,
            exit_code: 0,
            restart_count: 0,
            health: None,
            probe: Some(Ok(probe)),
        }
    }

    fn sick(at: u64) -> Sample {
        let problems = vec!["tars.tarsregistry.QueryObj does not answer".to_owned()];
        Sample { probe: Some(Ok(Probe { healthy: false, registered: None, problems })), ..sample(at) }
    }

    fn gate() -> Gate {
        Gate::new(Some(Role::Slave), Duration::from_secs(10), Duration::from_secs(3))
    }

    #[test]
    fn gate_passes_only_after_the_dwell() {
        let mut gate = gate();
        assert!(matches!(gate.judge(&sick(0)), Verdict::Wait(_)));
        assert_eq!(gate.judge(&sample(1)), Verdict::Dwell);
        assert_eq!(gate.judge(&sample(3)), Verdict::Dwell);
        assert_eq!(gate.judge(&sample(4)), Verdict::Pass);
    }

    #[test]
    fn dwell_that_is_broken_begins_anew() {
        let mut gate = gate();
        assert_eq!(gate.judge(&sample(0)), Verdict::Dwell);
        assert!(matches!(gate.judge(&sick(2)), Verdict::Wait(_)));
        assert_eq!(gate.judge(&sample(3)), Verdict::Dwell);
        assert_eq!(gate.judge(&sample(6)), Verdict::Pass);
    }

    #[test]
    fn container_that_is_never_healthy_fails_at_the_timeout_and_says_why() {
        let mut gate = gate();
        assert!(matches!(gate.judge(&sick(9)), Verdict::Wait(_)));
        let expected = "it was not healthy within 10 s: tars.tarsregistry.QueryObj does not answer";
        assert_eq!(gate.judge(&sick(10)), Verdict::Fail(expected.to_owned()));
    }

    #[test]
    fn container_that_exits_fails_at_once_even_in_the_dwell() {
        let mut gate = gate();
        gate.judge(&sample(0));
        let dead = Sample { status: Status::Exited, exit_code: 77, ..sample(1) };
        assert_eq!(gate.judge(&dead), Verdict::Fail("it exited with 77".to_owned()));
    }

    #[test]
    fn container_that_was_restarted_fails_though_it_runs() {
        let mut gate = gate();
        gate.judge(&sample(0));
        assert!(matches!(gate.judge(&Sample { restart_count: 1, ..sample(1) }), Verdict::Fail(_)));
    }

    #[test]
    fn node_that_is_not_registered_waits() {
        let mut gate = gate();
        let probe = Probe { healthy: true, registered: Some(false), problems: Vec::new() };
        let verdict = gate.judge(&Sample { probe: Some(Ok(probe)), ..sample(0) });
        assert_eq!(verdict, Verdict::Wait("it is not registered yet".to_owned()));
    }

    #[test]
    fn database_is_asked_by_its_own_health_check_where_it_has_one() {
        let mut gate = Gate::new(Some(Role::Database), Duration::from_secs(10), Duration::ZERO);
        assert!(!gate.asks_inside());
        let starting = Sample { probe: None, health: Some(Health::Starting), ..sample(0) };
        assert!(matches!(gate.judge(&starting), Verdict::Wait(_)));
        assert_eq!(gate.judge(&Sample { health: None, ..starting }), Verdict::Pass);
    }
}
