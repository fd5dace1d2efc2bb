//! What goes with the containers that a plan stops: shared memory is refused until somebody accepts it, files are told.

use std::collections::BTreeSet;

use super::Refusal;
use super::finding::Findings;
use super::offer::{Request, draft};
use super::state::is_up;
use super::step::{Action, After, Plan};
use crate::deploy::contents::Shared;
use crate::deploy::desired::Service;
use crate::deploy::observe::look_into;
use crate::deploy::{Desired, Observed};
use crate::engine::{Change, ChangeKind, Container, Engine};
use crate::tars::Role;

/// How many changed files of a service a plan shows.
const SHOWN: usize = 10;

/// The observed state with what the containers hold that the request would stop.
pub(super) async fn look(
    engine: &dyn Engine,
    declared: &Desired,
    mut observed: Observed,
    request: &Request,
) -> Observed {
    if let (Some(first), _) = draft(declared, &observed, request) {
        let names = to_look_into(&first.plan, &first.desired, &observed);
        look_into(engine, &first.desired, &mut observed, &names).await;
    }
    observed
}

/// The names of the containers that a plan stops while they run, and that hold what may be somebody's: a database keeps
/// nothing in memory that its files have not.
pub(super) fn to_look_into(plan: &Plan, desired: &Desired, observed: &Observed) -> BTreeSet<String> {
    stopped(plan, desired, observed).map(|(_, container)| container.name.clone()).collect()
}

fn stopped<'a>(
    plan: &'a Plan,
    desired: &'a Desired,
    observed: &'a Observed,
) -> impl Iterator<Item = (&'a Service, &'a Container)> {
    plan.steps.iter().filter_map(|step| {
        let Action::Stop { container, .. } = &step.action else { return None };
        let service = desired.service(step.service.as_deref()?)?;
        let container = observed.container(container).filter(|container| is_up(container))?;
        (service.role != Some(Role::Database)).then_some((service, container))
    })
}

/// Every loss is a line of the plan; shared memory that nobody accepted to lose is refused.
pub(super) fn judge(
    plan: &mut Plan,
    desired: &Desired,
    observed: &Observed,
    accepted: &[String],
    findings: &mut Findings,
) {
    let mut notes = Vec::new();
    for (service, container) in stopped(plan, desired, observed) {
        let Some(contents) = observed.contents.get(&container.id) else { continue };
        let name = &service.name;
        match &contents.shared {
            Err(why) => notes.push(format!(
                "`{name}` cannot be asked what it keeps in shared memory, which goes when it stops: {why}"
            )),
            Ok(shared) => notes.extend(findings.check(lost(service, shared, accepted)).flatten()),
        }
        let is_replaced =
            |touched: &super::step::Touched| touched.service == *name && touched.after != After::Same;
        if plan.touched.iter().any(is_replaced) {
            match &contents.changed {
                Err(why) => {
                    notes.push(format!("`{name}` cannot be asked which files it has of its own: {why}"));
                }
                Ok(changes) => notes.extend(files(name, container, changes)),
            }
        }
    }
    plan.notes.extend(notes);
}

fn lost(service: &Service, shared: &[Shared], accepted: &[String]) -> Result<Option<String>, Refusal> {
    // What a stopped tarsstat left in a framework's container is nobody's any more.
    let is_framework = matches!(service.role, Some(Role::Master | Role::Slave));
    let (left, held): (Vec<_>, Vec<_>) = shared.iter().partition(|it| is_framework && it.is_left_over());
    let words = |all: &[&Shared]| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if !held.is_empty() && !accepted.contains(&service.name) {
        return Err(Refusal::StateLoss {
            service: service.name.clone(),
            what: words(&held),
            place: Box::new(service.place.clone()),
        });
    }
    let all = [held, left].concat();
    Ok((!all.is_empty()).then(|| format!("`{}` loses {}: it goes when it stops", service.name, words(&all))))
}

fn files(name: &str, container: &Container, changes: &[Change]) -> Option<String> {
    let word = |change: &Change| {
        let mark = match change.kind {
            ChangeKind::Modified => "changed",
            ChangeKind::Added => "added",
            ChangeKind::Deleted => "deleted",
        };
        format!("{} ({mark})", change.path)
    };
    let shown: Vec<String> = changes.iter().take(SHOWN).map(word).collect();
    let more = changes.len().saturating_sub(SHOWN);
    let more = if more == 0 {
        String::new()
    } else {
        format!(" and {more} more, which `docker diff {}` shows", container.name)
    };
    let text =
        format!("`{name}` has files of its own that its successor is without: {}{more}", shown.join(", "));
    (!changes.is_empty()).then_some(text)
}
