//! Which of the observed containers is what: the serving one of a service, the one that a deploy made, the parked ones.

use std::collections::BTreeSet;

use crate::deploy::Observed;
use crate::deploy::desired::Service;
use crate::deploy::observed::{
    LABEL_CLUSTER, LABEL_DEPLOY, LABEL_DEPLOYMENT, LABEL_LOCK, LABEL_RESTART, LABEL_ROLE, LABEL_SERVICE,
};
use crate::engine::{Container, EngineImage, RestartPolicy, Status};
use crate::oci::image::VERSION_LABEL;

use super::DeployId;
use super::names::{Part, part_of};

/// The containers of a deployment, without its lock and the one in which the database is asked.
pub fn ours<'a>(observed: &'a Observed, deployment: &'a str) -> impl Iterator<Item = &'a Container> {
    observed.containers.iter().filter(move |container| {
        container.labels.get(LABEL_DEPLOYMENT).is_some_and(|label| label == deployment)
            && !container.labels.contains_key(LABEL_LOCK)
            && !container.labels.contains_key(LABEL_CLUSTER)
    })
}

/// The containers of one service, parked ones among them.
pub fn of_service<'a>(
    observed: &'a Observed,
    deployment: &'a str,
    service: &'a str,
) -> impl Iterator<Item = &'a Container> {
    let fits = move |container: &&Container| {
        container.labels.get(LABEL_SERVICE).is_some_and(|label| label == service)
    };
    ours(observed, deployment).filter(fits)
}

/// The container that serves: the one of the wanted name, else one under a name that the file had before.
pub fn serving<'a>(
    observed: &'a Observed,
    deployment: &'a str,
    service: &'a Service,
) -> Option<&'a Container> {
    let all = || of_service(observed, deployment, &service.name);
    all()
        .find(|container| container.name == service.container)
        .or_else(|| all().find(|container| part_of(&container.name) == Part::Serving))
}

/// The container that a deploy made for a service, unless it has been given up as failed.
pub fn made<'a>(
    observed: &'a Observed,
    deployment: &'a str,
    service: &'a str,
    deploy: &DeployId,
) -> Option<&'a Container> {
    of_service(observed, deployment, service).find(|container| {
        container.labels.get(LABEL_DEPLOY).is_some_and(|label| label == deploy.as_str())
            && matches!(part_of(&container.name), Part::Serving | Part::New(_))
    })
}

/// The container of that id.
pub fn by_id<'a>(observed: &'a Observed, id: &str) -> Option<&'a Container> {
    observed.containers.iter().find(|container| container.id == id)
}

/// True where its processes are there.
pub fn is_up(container: &Container) -> bool {
    matches!(container.status, Status::Running | Status::Paused | Status::Restarting)
}

/// True where it was never started.
pub fn is_fresh(container: &Container) -> bool {
    container.status == Status::Created
}

/// True where both mean the same to the engine, which reads an empty name as `no`.
pub fn same_restart(a: &RestartPolicy, b: &RestartPolicy) -> bool {
    normal(a) == normal(b)
}

fn normal(policy: &RestartPolicy) -> (&str, u32) {
    match policy.name.as_str() {
        "" | "no" => ("no", 0),
        "on-failure" => ("on-failure", policy.maximum_retry_count),
        other => (other, 0),
    }
}

/// The policy that was declared when the container was made; what it has now, where nothing says.
pub fn declared_restart(container: &Container) -> RestartPolicy {
    let label = container.labels.get(LABEL_RESTART);
    label.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_else(|| container.restart.clone())
}

/// True where `down` stopped it: stopped, without the restart policy that it was declared with.
pub fn is_parked_in_place(container: &Container) -> bool {
    !is_up(container)
        && !is_fresh(container)
        && !same_restart(&container.restart, &declared_restart(container))
}

/// The versions of the framework's containers that serve or are parked, other than that of `image`: what a way back, or a
/// rollback to an older deploy, would start again.
pub fn ways_back(observed: &Observed, deployment: &str, image: &EngineImage) -> Vec<String> {
    let is_framework = |container: &&Container| {
        matches!(part_of(&container.name), Part::Serving | Part::Old(_))
            && container.labels.get(LABEL_ROLE).is_some_and(|role| role == "master" || role == "slave")
    };
    let versions =
        ours(observed, deployment).filter(is_framework).filter_map(|it| it.labels.get(VERSION_LABEL));
    let others: BTreeSet<&String> =
        versions.filter(|version| image.labels.get(VERSION_LABEL) != Some(version)).collect();
    others.into_iter().cloned().collect()
}
