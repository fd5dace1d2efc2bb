//! Containers that somebody else made and a file adopts: what a plan says of them until each has a successor of ours.

use super::plan::Planner;
use super::preflight::{guard_container, guard_start};
use super::state::{by_id, serving};
use super::step::After;
use super::{DeployFailure, Intent, Refusal, cluster_probe, differ};
use crate::deploy::desired::Service;
use crate::deploy::{Desired, guard};
use crate::engine::{Container, Engine};

/// The label by which compose knows its own: nothing takes it from a container.
const COMPOSE: &str = "com.docker.compose.project";

/// What a container that is to be replaced must bear beyond others: a way back would start it again.
pub(super) fn check_replace(service: &Service, container: &Container) -> Result<(), Refusal> {
    match differ::forbidden_rebuild(container).filter(|_| service.has_adopted(container)) {
        Some(value) => Err(Refusal::AdoptedRebuild {
            service: service.name.clone(),
            value: value.to_owned(),
            place: Box::new(service.place.clone()),
        }),
        None => Ok(()),
    }
}

/// What a container that is to be restarted must bear: somebody who answers for it, inside or, in a container of the image
/// that the command names, outside.
pub(super) fn check_restart(
    desired: &Desired,
    service: &Service,
    container: &Container,
    can_ask: bool,
) -> Result<(), Refusal> {
    let is_part = service.role.is_some_and(|role| role.image_role().is_some());
    let has_nobody =
        service.has_adopted(container) && is_part && !guard::has_our_start(&container.raw["Config"]);
    if !has_nobody {
        return guard_start(service, container);
    }
    if !can_ask {
        let place = Box::new(service.place.clone());
        return Err(Refusal::AdoptedRestart { service: service.name.clone(), place });
    }
    if !cluster_probe::has_account(desired) {
        let why = "no account at the database is known, so that nobody can be asked";
        return Err(Refusal::NoAsker {
            why: why.to_owned(),
            hint: "name one with `database: {env_file: FILE}` under `x-tars`",
        });
    }
    guard_container(service, container)
}

/// Holds the image that a command names to ask with to what it must be: there, and one of ours.
pub(super) async fn check_asker(engine: &dyn Engine, intent: &Intent) -> Result<(), DeployFailure> {
    let Some(image) = intent.ask_with() else { return Ok(()) };
    let refusal = |why: &str, hint| Refusal::NoAsker { why: format!("the image `{image}` {why}"), hint };
    let Some(found) = engine.inspect_image(&image.to_string()).await? else {
        return Err(refusal(
            "is not in the engine",
            "bring it there with `tarsup copy IMAGE docker-daemon:REF`",
        )
        .into());
    };
    if !guard::has_our_start(&found.raw["Config"]) {
        return Err(refusal("does not start with tars-init", "name one that `tarsup build` made").into());
    }
    Ok(())
}

/// What compose would do to a predecessor that it made, once that is parked: a person must know it before.
pub(super) fn ask(planner: &mut Planner<'_>) {
    let is_of_compose = |container: &&Container| container.labels.contains_key(COMPOSE);
    let mut projects = std::collections::BTreeMap::<String, Vec<String>>::new();
    for touched in planner.plan.touched.iter().filter(|touched| touched.after == After::Made) {
        let before = touched.before.as_ref().and_then(|before| by_id(planner.observed, &before.id));
        if let Some(container) = before.filter(is_of_compose) {
            projects.entry(container.labels[COMPOSE].clone()).or_default().push(touched.service.clone());
        }
    }
    for (project, services) in projects {
        planner.plan.questions.push(format!(
            "compose made {} (project `{project}`): from now on `docker compose up` there would start what is parked beside \
             its successor, and `docker compose down` would remove it. Is compose used there no more?",
            services.iter().map(|service| format!("`{service}`")).collect::<Vec<_>>().join(", ")
        ));
    }
}

/// What an adopted container has that no file can say, as long as it serves.
pub(super) fn note(planner: &mut Planner<'_>) {
    for service in &planner.desired.services {
        let serving = serving(planner.observed, &planner.desired.deployment, service);
        let Some(container) = serving.filter(|container| service.has_adopted(container)) else { continue };
        let unsaid = differ::unsaid(service, container, planner.observed);
        if !unsaid.is_empty() {
            let what = unsaid.join(", ");
            planner.note(
                &service.name,
                &format!("was made with what the file cannot say, and its successor goes without: {what}"),
            );
        }
        if let Some(value) = differ::forbidden_rebuild(container) {
            let text = format!(
                "runs with `REBUILD` {value:?}: whoever starts this container again has its database dropped"
            );
            planner.note(&service.name, &text);
        }
    }
}
