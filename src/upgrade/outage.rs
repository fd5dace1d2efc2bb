//! Whether a plan leaves a moment in which no registry answers: followed step by step, and asked about.

use std::collections::BTreeSet;

use super::state::{is_up, serving};
use super::step::{Action, Plan};
use crate::deploy::{Desired, Observed};
use crate::tars::Role;

/// What is said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outage {
    /// A deployment that declares no slave has it with every upgrade: a line of the plan.
    Note(String),
    /// Slaves are declared to be there for this moment, and are not: somebody must say yes.
    Question(String),
}

/// The first moment of the plan at which the last registry that runs is stopped.
pub(super) fn of(plan: &Plan, desired: &Desired, observed: &Observed) -> Option<Outage> {
    let registries: Vec<_> = desired
        .services
        .iter()
        .filter(|service| matches!(service.role, Some(Role::Master | Role::Slave)))
        .collect();
    let mut running: BTreeSet<&str> = registries
        .iter()
        .filter(|service| serving(observed, &desired.deployment, service).is_some_and(is_up))
        .map(|service| service.name.as_str())
        .collect();
    for step in &plan.steps {
        let Some(service) = registries.iter().find(|service| step.service.as_ref() == Some(&service.name))
        else {
            continue;
        };
        let name = service.name.as_str();
        if matches!(step.action, Action::Start { .. }) {
            running.insert(name);
        }
        let stops = matches!(step.action, Action::Stop { .. }) && running.remove(name);
        if stops && running.is_empty() {
            return Some(if registries.iter().any(|one| one.role == Some(Role::Slave)) {
                Outage::Question(question(name, service.role == Some(Role::Master)))
            } else {
                Outage::Note("no slave runs: while the master is replaced no registry answers".to_owned())
            });
        }
    }
    None
}

fn question(service: &str, is_master: bool) -> String {
    let others = if is_master { "no slave runs" } else { "the master does not run, nor does another slave" };
    format!("{others}: while `{service}` is down no registry answers. Stop the last one all the same?")
}
