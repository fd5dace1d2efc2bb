//! Which parked containers a rollback brings back, and the plan that does it.

use std::collections::BTreeMap;

use super::names::{Part, old_name, part_of};
use super::plan::Planner;
use super::preflight::guard_container;
use super::state::{by_id, is_up, of_service, serving};
use super::step::After;
use super::{DeployId, Refusal, keep};
use crate::deploy::observed::{LABEL_DEPLOY, LABEL_PREDECESSOR};
use crate::deploy::{Desired, Observed};
use crate::engine::Container;
use crate::tars::Role;

/// Older than any deploy.
const BEFORE_ALL: &str = "00000000T000000Z-0000";

/// A container and the time in which it served: from the deploy that made it until the one that parked it.
struct Served<'a> {
    container: &'a Container,
    from: DeployId,
    until: Option<DeployId>,
}

/// Service → id of the container that comes back.
///
/// With `to`, for each service the container that served after that deploy; without, what the last deploy that parked
/// anything has parked. A service that was not touched since is not in the answer.
pub fn targets(
    desired: &Desired,
    observed: &Observed,
    to: Option<&DeployId>,
) -> Result<BTreeMap<String, String>, Refusal> {
    let mut targets = BTreeMap::new();
    let last = last_parking(desired, observed);
    for service in desired.services.iter().filter(|service| service.role != Some(Role::Database)) {
        let history = history(desired, observed, &service.name);
        let found = match (to, &last) {
            (Some(to), _) => {
                let served =
                    |one: &&Served| one.from <= *to && one.until.as_ref().is_none_or(|until| to < until);
                let found = history.iter().filter(served).max_by(|a, b| a.from.cmp(&b.from));
                if found.is_none() && had_a_predecessor(&history) {
                    let before = format!(" from the time of {to}");
                    return Err(Refusal::ParkedGone { service: service.name.clone(), before });
                }
                found
            }
            (None, Some(last)) => history.iter().find(|one| one.until.as_ref() == Some(last)),
            (None, None) => None,
        };
        if let Some(found) = found.filter(|one| one.until.is_some()) {
            targets.insert(service.name.clone(), found.container.id.clone());
        }
    }
    if targets.is_empty() && to.is_none() {
        let service = desired.services.iter().find(|service| service.role != Some(Role::Database));
        let service = service.map(|service| service.name.clone()).unwrap_or_default();
        return Err(Refusal::ParkedGone { service, before: String::new() });
    }
    Ok(targets)
}

/// The last deploy that parked a container that is still there.
fn last_parking(desired: &Desired, observed: &Observed) -> Option<DeployId> {
    let services = desired.services.iter().filter(|service| service.role != Some(Role::Database));
    let all = services.flat_map(|service| history(desired, observed, &service.name));
    all.filter_map(|one| one.until).max()
}

fn history<'a>(desired: &'a Desired, observed: &'a Observed, service: &'a str) -> Vec<Served<'a>> {
    let mut history = Vec::new();
    for container in of_service(observed, &desired.deployment, service) {
        let made = container.labels.get(LABEL_DEPLOY).and_then(|label| label.parse().ok());
        // What somebody else made was there before any deploy.
        let adopted = || desired.service(service).filter(|it| it.has_adopted(container));
        let Some(from) = made.or_else(|| adopted().and_then(|_| BEFORE_ALL.parse().ok())) else {
            continue;
        };
        match part_of(&container.name) {
            Part::Serving => history.push(Served { container, from, until: None }),
            Part::Old(until) => history.push(Served { container, from, until: Some(until) }),
            Part::New(_) | Part::Failed(_) | Part::Migrate(_) => {}
        }
    }
    history
}

/// Tells a service whose parked containers are gone from one that was declared later.
fn had_a_predecessor(history: &[Served]) -> bool {
    let oldest = history.iter().min_by(|a, b| a.from.cmp(&b.from));
    oldest.is_some_and(|one| one.container.labels.contains_key(LABEL_PREDECESSOR))
}

/// The same swap as an upgrade's, with a parked container in the place of a new one, and without a migration.
pub(super) fn plan(planner: &mut Planner<'_>, targets: &BTreeMap<String, String>) -> Result<(), Refusal> {
    planner.database_runs("rollback")?;
    let order = if goes_forward(planner, targets) { planner.ordered() } else { planner.ordered_back() };
    for service in order {
        let Some(id) = targets.get(&service.name) else { continue };
        let gone = || Refusal::ParkedGone { service: service.name.clone(), before: String::new() };
        let parked = by_id(planner.observed, id).ok_or_else(gone)?;
        guard_container(service, parked)?;
        let deployment = &planner.desired.deployment;
        let own = old_name(&service.container, planner.id);
        let all = || of_service(planner.observed, deployment, &service.name);
        let old = all()
            .find(|container| container.name == own)
            .or_else(|| serving(planner.observed, deployment, service).filter(|old| old.id != *id));
        if let Some(old) = old {
            guard_container(service, old)?;
            if !is_up(old) && old.name != own {
                planner.note(&service.name, "is stopped; the container that comes back is started");
            }
        }
        let from = old.map_or("nothing", |old| old.image.as_str());
        let cause = format!("back from {from} to {}", parked.image);
        let swap = planner.swap(service, &cause);
        let after = After::Parked { id: parked.id.clone(), name: parked.name.clone() };
        let (touched, phases) = (swap.touched(old, after), swap.bring_back(parked, old));
        let kept = keep::steps(planner, service, parked, old);
        planner.plan.touched.push(touched);
        planner.plan.steps.extend(kept.into_iter().chain(phases.flatten()));
    }
    if !planner.plan.is_empty() {
        planner
            .plan
            .notes
            .push("the schema of the database is not rolled back; migrations only add".to_owned());
    }
    Ok(())
}

/// True where every container that comes back was made later than the one in its place: `rollback --to` a newer deploy.
fn goes_forward(planner: &Planner<'_>, targets: &BTreeMap<String, String>) -> bool {
    let made_by = |container: &Container| container.labels.get(LABEL_DEPLOY).cloned();
    let deployment = &planner.desired.deployment;
    let mut services = planner.desired.services.iter().filter_map(|service| {
        let target = by_id(planner.observed, targets.get(&service.name)?)?;
        let now = serving(planner.observed, deployment, service).filter(|now| now.id != target.id)?;
        Some((made_by(target), made_by(now)))
    });
    let mut any = false;
    services.all(|(target, now)| {
        any = true;
        target > now
    }) && any
}
