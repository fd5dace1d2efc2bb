//! Where a plan takes servers out of what registries hand out, and gives them back. Pure; `draining` does it.
//!
//! Before a container of the framework is stopped, what serves elsewhere too is drained, so that clients go there; after its gate
//! it is given back. Which servers that are is decided in the database at that moment, in one transaction.

use crate::deploy::desired::{DrainPolicy, Policy};
use crate::diagnose::first_few;
use crate::tars::Role;

use super::finding::About;
use super::plan::Planner;
use super::preflight::names_in_database;
use super::step::{Action, Step};
use super::{Intent, Refusal};

/// Adds the drains of a plan; none where everything goes down anyway.
pub(super) fn insert(planner: &mut Planner<'_>, intent: &Intent) {
    if matches!(intent, Intent::Down { .. }) || planner.desired.policy.drain == DrainPolicy::Off {
        return;
    }
    let desired = planner.desired;
    let is_tars = |step: &Step| {
        let role =
            step.service.as_ref().and_then(|name| desired.service(name)).and_then(|service| service.role);
        matches!(role, Some(Role::Master | Role::Slave | Role::Node))
    };
    let steps = std::mem::take(&mut planner.plan.steps);
    planner.plan.steps = with_drains(&steps, is_tars, &desired.policy);
    find_gaps(planner);
}

/// What will be silent although it is drained where it can be: a question, by name.
fn find_gaps(planner: &mut Planner<'_>) {
    let Some(Ok(facts)) = &planner.observed.facts.cluster else { return };
    let mut gaps: Vec<String> = Vec::new();
    for step in &planner.plan.steps {
        let Action::Drain { containers, .. } = &step.action else { continue };
        let services =
            planner.desired.services.iter().filter(|service| containers.contains(&service.container));
        let nodes = services.flat_map(names_in_database).collect();
        gaps.extend(
            facts.services.let_down(&nodes).iter().map(|one| format!("{} on {}", one.server, one.node)),
        );
    }
    if gaps.is_empty() {
        return;
    }
    let gaps = first_few(&gaps);
    if planner.desired.policy.refuses_gaps {
        planner.findings.refuse(Refusal::Gaps { gaps });
    } else {
        let text = format!("served nowhere else, and silent while its container is stopped: {gaps}. Go on?");
        planner.findings.ask(About::Gaps, text);
    }
}

/// One drain for all that stop before the next gate, ended when all of them are proven.
fn with_drains(steps: &[Step], is_tars: impl Fn(&Step) -> bool, policy: &Policy) -> Vec<Step> {
    let mut out = Vec::with_capacity(steps.len());
    let mut open: Vec<Step> = Vec::new();
    let mut proven = 0;
    for (at, step) in steps.iter().enumerate() {
        if open.is_empty() && is_stop(step) && is_tars(step) {
            let until_gate = steps[at..].iter().take_while(|step| !is_gate(step));
            open = until_gate.filter(|step| is_stop(step) && is_tars(step)).cloned().collect();
            let containers =
                open.iter().filter_map(|stop| stop.action.container().map(str::to_owned)).collect();
            let action = Action::Drain {
                containers,
                client_refresh: policy.client_refresh,
                drain_timeout: policy.drain_timeout,
                is_strict: policy.drains_strictly,
            };
            // A host that goes down meanwhile brings the container back: its restart policy is still in place.
            let is_policy = |step: &&Step| matches!(step.action, Action::SetRestart { .. });
            let policies = out.iter().rev().take_while(is_policy).count();
            let before = out.len() - policies;
            out.insert(
                before,
                Step {
                    service: step.service.clone(),
                    cause: "clients are sent to what serves elsewhere".to_owned(),
                    action,
                },
            );
        }
        out.push(step.clone());
        if is_gate(step) && open.iter().any(|stop| stop.service == step.service) {
            proven += 1;
            if proven == open.len() {
                let containers =
                    open.iter().filter_map(|stop| stop.action.container().map(str::to_owned)).collect();
                out.push(Step {
                    service: step.service.clone(),
                    cause: "it serves again".to_owned(),
                    action: Action::Undrain { containers },
                });
                (open, proven) = (Vec::new(), 0);
            }
        }
    }
    out
}

fn is_stop(step: &Step) -> bool {
    matches!(step.action, Action::Stop { .. })
}

fn is_gate(step: &Step) -> bool {
    matches!(step.action, Action::Gate { .. })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::engine::RestartPolicy;

    fn step(service: &str, action: Action) -> Step {
        Step { service: Some(service.to_owned()), cause: String::new(), action }
    }

    fn stop(service: &str) -> Step {
        step(service, Action::Stop { container: format!("tars-{service}"), grace: Duration::ZERO })
    }

    fn gate(service: &str) -> Step {
        let (timeout, dwell) = (Duration::ZERO, Duration::ZERO);
        step(service, Action::Gate { container: format!("tars-{service}"), role: None, timeout, dwell })
    }

    fn kinds(steps: &[Step]) -> Vec<String> {
        let is_tars = |step: &Step| step.service.as_deref() != Some("cache");
        let of = |step: &Step| match &step.action {
            Action::Drain { containers, .. } | Action::Undrain { containers } => {
                format!("{} {}", step.action.kind(), containers.join(" "))
            }
            action => format!("{} {}", action.kind(), action.container().unwrap_or_default()),
        };
        with_drains(steps, is_tars, &Policy::default()).iter().map(of).collect()
    }

    #[test]
    fn each_batch_is_drained_before_its_first_stop_and_given_back_after_its_last_gate() {
        let all = [stop("a"), stop("b"), gate("a"), gate("b"), stop("c"), gate("c")];
        assert_eq!(
            kinds(&all),
            [
                "drain tars-a tars-b",
                "stop tars-a",
                "stop tars-b",
                "gate tars-a",
                "gate tars-b",
                "undrain tars-a tars-b",
                "drain tars-c",
                "stop tars-c",
                "gate tars-c",
                "undrain tars-c"
            ]
        );
    }

    #[test]
    fn what_is_none_of_the_framework_is_not_drained() {
        assert_eq!(kinds(&[stop("cache"), gate("cache")]), ["stop tars-cache", "gate tars-cache"]);
    }

    #[test]
    fn restart_policy_stays_until_clients_are_gone() {
        let policy = |name: &str| RestartPolicy { name: name.to_owned(), maximum_retry_count: 0 };
        let (from, to) = (policy("always"), policy("no"));
        let action = Action::SetRestart { container: "tars-a".to_owned(), from, to };
        let steps = [step("a", action), stop("a"), gate("a")];
        assert_eq!(
            kinds(&steps),
            ["drain tars-a", "set-restart tars-a", "stop tars-a", "gate tars-a", "undrain tars-a"]
        );
    }
}
