//! How long a plan takes, at the shortest and at the longest: the times that its steps wait, and those after which they end anyway. What
//! moves bytes (loads, a backup, a migration) is in neither. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::draining::REGISTRIES;
use super::step::{Action, Step};
use crate::deploy::desired::Policy;

/// From the first step to the last, without what moves bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Length {
    /// Where nothing is waited for longer than it must be, in seconds.
    #[serde(serialize_with = "seconds")]
    pub shortest: Duration,
    /// Where every wait lasts until it is given up, in seconds.
    #[serde(serialize_with = "seconds")]
    pub longest: Duration,
}

fn seconds<S: serde::Serializer>(length: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(length.as_secs())
}

/// Of these steps. `is_drained` tells of which containers anything is taken out of what registries hand out.
pub fn length(steps: &[Step], policy: &Policy, is_drained: impl Fn(&str) -> bool) -> Length {
    let mut all = Length::default();
    // Since when the clients of a container have had time, of the shortest.
    let mut ahead: BTreeMap<&str, Duration> = BTreeMap::new();
    for step in steps {
        let (shortest, longest) = match &step.action {
            Action::DrainAhead { containers, .. } => {
                ahead.extend(containers.iter().map(|name| (name.as_str(), all.shortest)));
                (Duration::ZERO, REGISTRIES)
            }
            Action::Drain { containers, client_refresh, drain_timeout, .. } => {
                let passed = |name: &String| {
                    all.shortest.saturating_sub(*ahead.get(name.as_str()).unwrap_or(&all.shortest))
                };
                let least = containers.iter().filter(|name| is_drained(name)).map(passed).min();
                let refresh = least.map_or(Duration::ZERO, |passed| client_refresh.saturating_sub(passed));
                (refresh, policy.wait + REGISTRIES + *client_refresh.max(drain_timeout))
            }
            Action::Undrain { .. } => (Duration::ZERO, REGISTRIES),
            Action::Stop { grace, .. } => (Duration::ZERO, *grace),
            Action::Gate { timeout, dwell, role, .. } => {
                let services = if role.is_some() { policy.services_timeout } else { Duration::ZERO };
                (*dwell, *timeout + services + *dwell)
            }
            Action::Look { timeout, .. } => (Duration::ZERO, *timeout),
            Action::Settle { within, .. } => (Duration::ZERO, *within),
            _ => (Duration::ZERO, Duration::ZERO),
        };
        all.shortest += shortest;
        all.longest += longest;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tars::Role;

    fn node(name: &str, policy: &Policy) -> Vec<Step> {
        let container = || name.to_owned();
        let (timeout, dwell) = (policy.gate_timeout, policy.dwell);
        let actions = [
            Action::Drain {
                containers: vec![container()],
                client_refresh: policy.client_refresh,
                drain_timeout: policy.drain_timeout,
                is_strict: false,
            },
            Action::Stop { container: container(), grace: Duration::from_secs(10) },
            Action::Gate { container: container(), role: Some(Role::Node), timeout, dwell },
            Action::Undrain { containers: vec![container()] },
        ];
        actions.map(|action| Step { service: None, cause: String::new(), action }).to_vec()
    }

    #[test]
    fn what_is_drained_ahead_is_waited_for_less() {
        let policy = Policy::default();
        let mut steps = [node("a", &policy), node("b", &policy)].concat();
        let told = |steps: &[Step]| {
            let Length { shortest, longest } = length(steps, &policy, |_| true);
            (shortest.as_secs(), longest.as_secs())
        };
        // Each 60 + 95 for the drain, 10 for the stop, 120 + 60 + 5 for the gate, and 60 until it is handed out again.
        assert_eq!(told(&steps), (2 * (65 + 5), 2 * (155 + 10 + 185 + 60)));
        let ahead = Action::DrainAhead { containers: vec!["b".to_owned()], besides: vec!["a".to_owned()] };
        steps.insert(1, Step { service: None, cause: String::new(), action: ahead });
        assert_eq!(told(&steps), (65 + 5 + 60 + 5, 2 * (155 + 10 + 185 + 60) + 60));
    }

    #[test]
    fn what_nobody_is_sent_away_from_is_not_waited_for() {
        let steps = node("a", &Policy::default());
        assert_eq!(length(&steps, &Policy::default(), |_| false).shortest, Policy::default().dwell);
    }
}
