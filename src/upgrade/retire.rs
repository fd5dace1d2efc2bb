//! What is cleared away after a commit: parked containers beyond the number to keep, and a deploy's own scaffolding.
//!
//! Only containers with the deployment's labels that do not run; never a volume, never one that serves. One that somebody else made
//! goes only where its twin is kept in its place.

use std::cmp::Reverse;

use super::DeployId;
use super::names::{Part, old_name, part_of};
use super::state::{by_id, is_fresh, is_up, of_service, ours};
use super::step::{Action, Step};
use crate::deploy::observed::LABEL_TWIN;
use crate::deploy::{Desired, Observed};
use crate::engine::Container;

/// The removals that follow a way back: what failed, beyond the number to keep. What is parked may be gone back to yet.
pub fn retire_failed(desired: &Desired, observed: &Observed) -> Vec<Step> {
    let mut steps = Vec::new();
    for service in &desired.services {
        let mut failed: Vec<(Reverse<DeployId>, &str)> =
            of_service(observed, &desired.deployment, &service.name)
                .filter(|container| !is_up(container) && !service.has_adopted(container))
                .filter_map(|container| match part_of(&container.name) {
                    Part::Failed(by) => Some((Reverse(by), container.name.as_str())),
                    _ => None,
                })
                .collect();
        failed.sort();
        for (_, container) in failed.iter().skip(desired.policy.keep_parked) {
            let cause = format!("{} failed containers are kept", desired.policy.keep_parked);
            steps.push(remove(&service.name, container, &cause));
        }
    }
    steps
}

/// The removals that follow the commit of `deploy`.
pub fn retire(desired: &Desired, observed: &Observed, deploy: &DeployId) -> Vec<Step> {
    let mut steps = retire_failed(desired, observed);
    for service in &desired.services {
        let mut old = Vec::new();
        for container in of_service(observed, &desired.deployment, &service.name).filter(|c| !is_up(c)) {
            match part_of(&container.name) {
                Part::Twin(by) => steps.extend(settle_twin(desired, observed, &service.name, container, &by)),
                // The last upstream container is the only way back to upstream.
                Part::Old(_) if service.has_adopted(container) => {}
                Part::Old(by) => old.push((Reverse(by), container)),
                // Left by a deploy that nobody resumed.
                Part::New(by) if by != *deploy && is_fresh(container) => {
                    steps.push(remove(&service.name, &container.name, "an interrupted deploy left it"));
                }
                Part::New(_) | Part::Failed(_) | Part::Migrate(_) | Part::Serving => {}
            }
        }
        old.sort_by(|a, b| a.0.cmp(&b.0));
        for (_, container) in old.iter().skip(desired.policy.keep_parked) {
            let cause = format!("{} parked containers are kept", desired.policy.keep_parked);
            steps.push(remove(&service.name, &container.name, &cause));
        }
    }
    for container in ours(observed, &desired.deployment).filter(|container| !is_up(container)) {
        if matches!(part_of(&container.name), Part::Migrate(_)) {
            let action = Action::Remove { container: container.name.clone() };
            steps.push(Step { service: None, cause: "its run is done".to_owned(), action });
        }
    }
    steps
}

/// The removals of what somebody else made and is parked: the last way back to it.
pub(super) fn retire_adopted(desired: &Desired, observed: &Observed) -> Vec<Step> {
    let mut steps = Vec::new();
    for service in &desired.services {
        let parked = of_service(observed, &desired.deployment, &service.name)
            .filter(|container| !is_up(container) && service.has_adopted(container))
            .filter(|container| matches!(part_of(&container.name), Part::Old(_)));
        steps.extend(parked.map(|container| {
            remove(&service.name, &container.name, "it was adopted, and is not to be gone back to any more")
        }));
    }
    steps
}

/// A twin takes the name under which its original was parked, and the original goes: nothing must start that one again.
fn settle_twin(
    desired: &Desired,
    observed: &Observed,
    service: &str,
    twin: &Container,
    by: &DeployId,
) -> Vec<Step> {
    let Some(declared) = desired.service(service) else { return Vec::new() };
    let parked = old_name(&declared.container, by);
    let original = twin.labels.get(LABEL_TWIN).and_then(|id| by_id(observed, id));
    let step =
        |cause: &str, action| Step { service: Some(service.to_owned()), cause: cause.to_owned(), action };
    let rename = || {
        let action = Action::Rename { container: twin.name.clone(), to: parked.clone() };
        step("it is the way back from now on", action)
    };
    match original {
        None => vec![rename()],
        Some(original) if original.name == parked && !is_up(original) => {
            let container = original.name.clone();
            let cause = "its twin is the way back from now on";
            let saved = step(cause, Action::SaveLogs { container: container.clone() });
            vec![saved, remove(service, &container, cause), rename()]
        }
        // It serves: the deploy was undone.
        Some(_) if is_fresh(twin) => vec![remove(service, &twin.name, "what it is the twin of serves")],
        Some(_) => Vec::new(),
    }
}

fn remove(service: &str, container: &str, cause: &str) -> Step {
    Step {
        service: Some(service.to_owned()),
        cause: cause.to_owned(),
        action: Action::Remove { container: container.to_owned() },
    }
}
