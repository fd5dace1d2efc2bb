//! Where a plan takes servers out of what registries hand out, and gives them back. Pure; `draining` does it.
//!
//! Before a container of the framework is stopped, what serves elsewhere too is drained, so that clients go there; after its gate
//! it is given back. Which servers that are is decided in the database at that moment, in one transaction.

use std::collections::BTreeSet;

use crate::deploy::Desired;
use crate::deploy::desired::{DrainPolicy, Policy, Service};
use crate::deploy::services::let_down;
use crate::diagnose::first_few;
use crate::tars::{Instance, Role};

use super::cluster_probe::has_account;
use super::finding::About;
use super::heard;
use super::intent::is_framework;
use super::plan::Planner;
use super::state::serving;
use super::step::{Action, Step};
use super::{Intent, Refusal};

/// Adds the drains of a plan.
pub(super) fn insert(planner: &mut Planner<'_>, intent: &Intent) {
    if planner.desired.policy.drain == DrainPolicy::Off {
        return;
    }
    if !has_account(planner.desired) {
        return heard::find_gaps(planner);
    }
    let steps = std::mem::take(&mut planner.plan.steps);
    let is_drained = |step: &Step| is_stop(step) && is_tars(planner.desired, step);
    if let (Intent::Down { .. }, Some(Err(why))) = (intent, &planner.observed.facts.cluster) {
        let note = format!("what else serves in the cluster is not known, and nothing is drained: {why}");
        planner.plan.notes.push(note);
    }
    // Where everything goes down that anybody calls, nobody is sent elsewhere.
    planner.plan.steps = if matches!(intent, Intent::Down { .. }) && !serves_elsewhere(planner, &steps) {
        steps
    } else {
        let steps = with_drains(&steps, is_drained, |gate| is_left(planner, gate), &planner.desired.policy);
        given_back_first(planner, ahead(planner, steps))
    };
    find_gaps(planner);
}

fn is_tars(desired: &Desired, step: &Step) -> bool {
    step.service.as_ref().and_then(|name| desired.service(name)).is_some_and(is_framework)
}

/// True where something that these steps stop is served by others of the cluster, too.
fn serves_elsewhere(planner: &Planner<'_>, steps: &[Step]) -> bool {
    let Some(known) = planner.what_serves() else { return false };
    let stopped = steps.iter().filter(|step| is_stop(step)).filter_map(|step| step.service.as_ref());
    let services = stopped.filter_map(|name| planner.desired.service(name));
    let nodes: BTreeSet<String> = services.flat_map(|service| planner.names_of(service)).collect();
    let all = known.without(&known.down);
    all.iter().any(|one| nodes.contains(&one.node) && !one.runs_beside() && one.has_another(&all, &nodes))
}

/// True for the gate of a container of which this deployment has drained something already: it was cut off.
fn is_left(planner: &Planner<'_>, gate: &Step) -> bool {
    let service = gate.service.as_ref().and_then(|name| planner.desired.service(name));
    service.is_some_and(|service| has_left(planner, service))
}

/// True where this deployment has drained something in this service's container.
fn has_left(planner: &Planner<'_>, service: &Service) -> bool {
    let Some(Ok(facts)) = &planner.observed.facts.cluster else { return false };
    let (deployment, host) = (&planner.desired.deployment, &planner.observed.engine.id);
    let mut own = facts.services.drains.iter().filter(|drain| drain.is_of(deployment, host));
    let names = planner.names_of(service);
    own.any(|drain| names.contains(&drain.node))
}

/// The next batch of nodes is drained while one is swapped, where all of it serves beside both. A registry that is stopped meanwhile
/// would leave clients with what they know: nothing is drained beside a master or slave.
fn ahead(planner: &Planner<'_>, steps: Vec<Step>) -> Vec<Step> {
    let Some(known) = planner.what_serves() else { return steps };
    let mut out = Vec::with_capacity(steps.len());
    let mut down = known.down.clone();
    for (at, step) in steps.iter().enumerate() {
        out.push(step.clone());
        match &step.action {
            Action::Gate { container, .. } => {
                let proven = names_in(planner, std::slice::from_ref(container)).unwrap_or_default();
                down.retain(|node| !proven.contains(node));
            }
            Action::Drain { containers: now, .. } => {
                let next = steps[at + 1..].iter().find_map(|step| match &step.action {
                    Action::Drain { containers, .. } => Some(containers),
                    _ => None,
                });
                let Some(next) = next else { continue };
                if serves_beside(planner, &known.without(&down), now, next) {
                    let action = Action::DrainAhead { containers: next.clone(), besides: now.clone() };
                    let cause = "its clients are sent elsewhere meanwhile".to_owned();
                    out.push(Step { service: step.service.clone(), cause, action });
                }
            }
            _ => {}
        }
    }
    out
}

/// True where these containers are nodes, all of `next` that can be drained at all can be drained while `now` are down, and there is
/// such.
fn serves_beside(planner: &Planner<'_>, up: &[Instance], now: &[String], next: &[String]) -> bool {
    let are_nodes = |containers: &[String]| {
        containers.iter().all(|name| {
            service_of(planner, name).is_some_and(|service| {
                service.role == Some(Role::Node) && !planner.names_of(service).is_empty()
            })
        })
    };
    let (Some(now_down), Some(then_down)) = (names_in(planner, now), names_in(planner, next)) else {
        return false;
    };
    let both = &now_down | &then_down;
    let mut drained = up
        .iter()
        .filter(|one| then_down.contains(&one.node) && !one.runs_beside() && one.has_another(up, &then_down));
    let is_any = drained.clone().next().is_some();
    is_any && are_nodes(now) && are_nodes(next) && drained.all(|one| one.has_another(up, &both))
}

/// What an earlier run of this deploy has drained ahead, and this one does not come to first, would be in nobody's place.
fn given_back_first(planner: &Planner<'_>, mut steps: Vec<Step>) -> Vec<Step> {
    let is_drain = |step: &Step| matches!(step.action, Action::Drain { .. });
    let Some(first) = steps.iter().position(is_drain) else { return steps };
    let Action::Drain { containers, .. } = &steps[first].action else { return steps };
    let is_gated = |service: &Service| {
        steps[..first].iter().any(|step| is_gate(step) && step.service.as_ref() == Some(&service.name))
    };
    let left = planner
        .desired
        .services
        .iter()
        .filter(|service| has_left(planner, service) && planner.runs(service) && !is_gated(service));
    let left: Vec<&Service> = left.filter(|service| !containers.contains(&service.container)).collect();
    if let Some(one) = left.first() {
        let service = Some(one.name.clone());
        let containers = left.iter().map(|service| service.container.clone()).collect();
        let cause = "it was drained for what is not done next".to_owned();
        steps.insert(first, Step { service, cause, action: Action::Undrain { containers } });
    }
    steps
}

/// The service that a container serves, or is about to.
fn service_of<'a>(planner: &Planner<'a>, container: &str) -> Option<&'a Service> {
    planner.desired.services.iter().find(|service| {
        service.container == container
            || serving(planner.observed, &planner.desired.deployment, service)
                .is_some_and(|now| now.name == container)
    })
}

/// The names by which the database may know these containers; nothing where one of them is none that is declared.
fn names_in(planner: &Planner<'_>, containers: &[String]) -> Option<BTreeSet<String>> {
    let services: Option<Vec<&Service>> =
        containers.iter().map(|container| service_of(planner, container)).collect();
    Some(services?.into_iter().flat_map(|service| planner.names_of(service)).collect())
}

/// What will be silent although it is drained where it can be: a question, by name.
fn find_gaps(planner: &mut Planner<'_>) {
    let Some(known) = planner.what_serves() else { return };
    let named = |containers: &[String]| -> BTreeSet<String> {
        let services = containers.iter().filter_map(|container| service_of(planner, container));
        services.flat_map(|service| planner.names_of(service)).collect()
    };
    let mut down = known.down.clone();
    let mut gaps: Vec<String> = Vec::new();
    let mut abroad: Vec<String> = Vec::new();
    for step in &planner.plan.steps {
        match &step.action {
            // What is started on the way serves again, too.
            Action::Gate { container, .. } => {
                let proven = named(std::slice::from_ref(container));
                down.retain(|node| !proven.contains(node));
            }
            Action::Drain { containers, .. } => {
                let up = known.without(&down);
                let silent = let_down(&up, &named(containers));
                gaps.extend(silent.iter().map(|one| format!("{} on {}", one.server, one.node)));
                let moved = leaves_its_group(&up, &named(containers));
                abroad.extend(moved.iter().map(|one| {
                    let group = one.group.as_deref().unwrap_or_default();
                    format!("{} on {} (group {group})", one.server, one.node)
                }));
            }
            _ => {}
        }
    }
    if !abroad.is_empty() {
        let text = format!("clients are sent to another group meanwhile: {}", first_few(&abroad));
        planner.findings.note(About::Gaps, text);
    }
    if gaps.is_empty() {
        return;
    }
    let gaps = first_few(&gaps);
    let text = format!("served nowhere else, and silent while its container is stopped: {gaps}. Go on?");
    planner.ask_about_gaps(text, Refusal::Gaps { gaps });
}

impl Planner<'_> {
    /// What clients notice: a question, or refused where nothing may be noticed.
    pub(super) fn ask_about_gaps(&mut self, question: String, refusal: Refusal) {
        if self.desired.policy.refuses_gaps {
            self.findings.refuse(refusal);
        } else {
            self.findings.ask(About::Gaps, question);
        }
    }
}

/// Those on these nodes that are drained and have nobody of their own group elsewhere: their clients go to another site.
fn leaves_its_group<'a>(up: &'a [Instance], nodes: &BTreeSet<String>) -> Vec<&'a Instance> {
    let on_them =
        up.iter().filter(|one| nodes.contains(&one.node) && one.group.is_some() && !one.runs_beside());
    let drained = on_them.filter(|one| one.has_another(up, nodes));
    let near = |one: &Instance| {
        up.iter()
            .any(|other| other.stands_in_for(one) && other.group == one.group && !nodes.contains(&other.node))
    };
    drained.filter(|one| !near(one)).collect()
}

/// One drain for all that stop before the next gate, ended when all of them are proven. `is_drained` tells which stops it
/// precedes, `is_left` after which gates something is given back that an earlier run has drained.
pub(super) fn with_drains(
    steps: &[Step],
    is_drained: impl Fn(&Step) -> bool,
    is_left: impl Fn(&Step) -> bool,
    policy: &Policy,
) -> Vec<Step> {
    let mut out = Vec::with_capacity(steps.len());
    // The stops whose gates are still to come, and the stops or gates of what is proven and not given back yet.
    let (mut open, mut proven): (Vec<Step>, Vec<Step>) = (Vec::new(), Vec::new());
    for (at, step) in steps.iter().enumerate() {
        // Its restart policy first: that is how a run which takes this one's place knows it as proven.
        let belongs_to_it = is_gate(step) || (is_policy(step) && is_of(&proven, step));
        if !belongs_to_it && open.iter().all(|stop| is_of(&proven, stop)) {
            out.extend(given_back(&mut proven));
            open.clear();
        }
        if open.is_empty() && is_drained(step) {
            let until_gate = steps[at..].iter().take_while(|step| !is_gate(step));
            open = until_gate.filter(|step| is_drained(step)).cloned().collect();
            // A host that goes down meanwhile brings the container back: its restart policy is still in place.
            let policies = out.iter().rev().take_while(|step| is_policy(step) && is_of(&open, step)).count();
            let action = Action::Drain {
                containers: containers(&open),
                client_refresh: policy.client_refresh,
                drain_timeout: policy.drain_timeout,
                is_strict: policy.drains_strictly,
            };
            let cause = "clients are sent to what serves elsewhere".to_owned();
            out.insert(out.len() - policies, Step { service: step.service.clone(), cause, action });
        }
        out.push(step.clone());
        if is_gate(step) {
            let stop = open.iter().find(|stop| stop.service == step.service).cloned();
            proven.extend(stop.or_else(|| is_left(step).then(|| step.clone())));
        }
    }
    out.extend(given_back(&mut proven));
    out
}

fn given_back(proven: &mut Vec<Step>) -> Option<Step> {
    let service = proven.last()?.service.clone();
    let action = Action::Undrain { containers: containers(proven) };
    proven.clear();
    Some(Step { service, cause: "it serves again".to_owned(), action })
}

fn containers(steps: &[Step]) -> Vec<String> {
    steps.iter().filter_map(|step| step.action.container().map(str::to_owned)).collect()
}

/// True where one of these steps is about the same service.
fn is_of(steps: &[Step], one: &Step) -> bool {
    steps.iter().any(|step| step.service == one.service)
}

fn is_stop(step: &Step) -> bool {
    matches!(step.action, Action::Stop { .. })
}

fn is_gate(step: &Step) -> bool {
    matches!(step.action, Action::Gate { .. })
}

fn is_policy(step: &Step) -> bool {
    matches!(step.action, Action::SetRestart { .. })
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
        with_drains(steps, |step| is_stop(step) && is_tars(step), |_| false, &Policy::default())
            .iter()
            .map(of)
            .collect()
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

    #[test]
    fn what_is_proven_gets_its_restart_policy_before_it_is_given_back() {
        let policy = |service: &str, from: &str, to: &str| {
            let of = |name: &str| RestartPolicy { name: name.to_owned(), maximum_retry_count: 0 };
            let container = format!("tars-{service}");
            step(service, Action::SetRestart { container, from: of(from), to: of(to) })
        };
        let steps = [
            policy("a", "always", "no"),
            stop("a"),
            gate("a"),
            policy("a", "no", "always"),
            policy("b", "always", "no"),
            stop("b"),
            gate("b"),
            policy("b", "no", "always"),
        ];
        let one = |name: &str| {
            [
                format!("drain tars-{name}"),
                format!("set-restart tars-{name}"),
                format!("stop tars-{name}"),
                format!("gate tars-{name}"),
                format!("set-restart tars-{name}"),
                format!("undrain tars-{name}"),
            ]
        };
        assert_eq!(kinds(&steps), [one("a"), one("b")].concat());
    }

    #[test]
    fn what_an_earlier_run_has_drained_is_given_back_before_the_next_is_drained() {
        let steps = [gate("a"), stop("b"), gate("b")];
        let all =
            with_drains(&steps, is_stop, |gate| gate.service.as_deref() == Some("a"), &Policy::default());
        let kinds: Vec<&str> = all.iter().map(|step| step.action.kind()).collect();
        assert_eq!(kinds, ["gate", "undrain", "drain", "stop", "gate", "undrain"]);
    }

    #[test]
    fn what_is_not_started_again_is_not_given_back() {
        assert_eq!(kinds(&[stop("a"), stop("b")]), ["drain tars-a tars-b", "stop tars-a", "stop tars-b"]);
    }
}
