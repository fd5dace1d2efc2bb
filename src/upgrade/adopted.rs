//! Containers that somebody else made and a file adopts: what a plan says of them until each has a successor of ours.

use super::plan::Planner;
use super::preflight::{guard_container, guard_start, refuse_auto_remove};
use super::state::{by_id, declared_restart, serving};
use super::step::After;
use super::{Intent, Refusal, cluster_probe, differ};
use crate::deploy::desired::Service;
use crate::deploy::observe::adopt;
use crate::deploy::observed::LABEL_COMPOSE_PROJECT;
use crate::deploy::twin::Twin;
use crate::deploy::{Desired, guard};
use crate::engine::{Container, Engine, EngineError};
use crate::tars::rebuild::REBUILD;

/// Why a container that is replaced has a twin made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TwinBecause {
    /// Its start would drop the database.
    Rebuild,
    /// Compose would start it beside its successor, or remove it.
    Compose,
}

impl TwinBecause {
    /// As a sentence without its full stop.
    pub fn cause(self) -> &'static str {
        match self {
            Self::Rebuild => {
                "its start would drop the database: the way back is a twin of it with REBUILD=false, it is never started again"
            }
            Self::Compose => {
                "compose would start it beside its successor, or remove it: a twin without compose's labels is parked"
            }
        }
    }

    /// True where the container itself must not be started, not even to undo a deploy.
    pub fn is_never_again(self) -> bool {
        self == Self::Rebuild
    }
}

/// The twin that goes on for an adopted container which must not come back as it is, and why.
pub(super) fn twin(
    desired: &Desired,
    service: &Service,
    container: &Container,
) -> Option<(Twin, TwinBecause)> {
    if !service.has_adopted(container) {
        return None;
    }
    let rebuild = differ::forbidden_rebuild(container).is_some();
    let because = match (rebuild, container.labels.contains_key(LABEL_COMPOSE_PROJECT)) {
        (true, _) => TwinBecause::Rebuild,
        (false, true) => TwinBecause::Compose,
        (false, false) => return None,
    };
    let mut container = container.clone();
    adopt(desired, &container.id, &mut container.labels);
    let mut twin = Twin::of(&container, declared_restart(&container));
    if rebuild {
        twin.set_variable(REBUILD, "false");
    }
    twin.take_labels("com.docker.compose.");
    Some((twin, because))
}

/// What a container must bear that has a twin: the twin is what would be started.
pub(super) fn guard_twin(service: &Service, container: &Container, twin: &Twin) -> Result<(), Refusal> {
    guard::check_body(&container.name, &twin.body(&[])).map_err(Box::new)?;
    refuse_auto_remove(service, container)
}

/// What a container that has stopped must bear to be started: its own tars-init, or one of an image of ours that asks it from
/// outside.
pub(super) fn check_start(
    planner: &Planner<'_>,
    service: &Service,
    container: &Container,
) -> Result<(), Refusal> {
    if !has_nobody(service, container) {
        return guard_start(service, container);
    }
    proves_from_outside(planner.desired)?;
    let images = cluster_probe::images(planner.desired, planner.observed, &planner.plan.intent);
    if images.is_empty() {
        let why = format!(
            "service `{}`: its container does not start with tars-init, and no image of ours is on the engine that could say \
             whether it came up well",
            service.name
        );
        let hint = "bring a framework's image there with `tarsup copy IMAGE docker-daemon:REF`: it asks from outside";
        return Err(Refusal::NoAsker { why, hint });
    }
    guard_container(service, container)
}

/// True for a part of TARS that somebody else made and that has no tars-init.
fn has_nobody(service: &Service, container: &Container) -> bool {
    let is_part = service.role.is_some_and(|role| role.image_role().is_some());
    service.has_adopted(container) && is_part && !guard::has_our_start(&container.raw["Config"])
}

fn proves_from_outside(desired: &Desired) -> Result<(), Refusal> {
    if cluster_probe::has_account(desired) {
        return Ok(());
    }
    let why = "no account at the database is known, so that nobody can be asked";
    Err(Refusal::NoAsker {
        why: why.to_owned(),
        hint: "name one with `database: {env_file: FILE}` under `x-tars`",
    })
}

/// What a container that is to be restarted must bear: somebody who answers for it, inside or, in a container of the image
/// that the command names, outside.
pub(super) fn check_restart(
    desired: &Desired,
    service: &Service,
    container: &Container,
    can_ask: bool,
) -> Result<(), Refusal> {
    if !has_nobody(service, container) {
        return guard_start(service, container);
    }
    if !can_ask {
        let place = Box::new(service.place.clone());
        return Err(Refusal::AdoptedRestart { service: service.name.clone(), place });
    }
    proves_from_outside(desired)?;
    guard_container(service, container)
}

/// Holds the image that a command names to ask with to what it must be: there, and one of ours.
pub(super) async fn check_asker(
    engine: &dyn Engine,
    intent: &Intent,
) -> Result<Result<(), Refusal>, EngineError> {
    let Some(image) = intent.ask_with() else { return Ok(Ok(())) };
    let refusal = |why: &str, hint| Refusal::NoAsker { why: format!("the image `{image}` {why}"), hint };
    let Some(found) = engine.inspect_image(&image.to_string()).await? else {
        return Ok(Err(refusal(
            "is not in the engine",
            "bring it there with `tarsup copy IMAGE docker-daemon:REF`",
        )));
    };
    if !guard::has_our_start(&found.raw["Config"]) {
        return Ok(Err(refusal("does not start with tars-init", "name one that `tarsup build` made")));
    }
    Ok(Ok(()))
}

/// What an adopted container has that no file can say, as long as it serves.
pub(super) fn note(planner: &mut Planner<'_>) {
    note_twins(planner);
    for service in &planner.desired.services {
        let serving = serving(planner.observed, &planner.desired.deployment, service);
        let Some(container) = serving.filter(|container| service.has_adopted(container)) else { continue };
        let (carried, lost) = differ::unsaid(service, container, planner.observed);
        for (what, becomes) in [(carried, "goes on with it"), (lost, "goes without it")] {
            if !what.is_empty() {
                let what = what.join(", ");
                let text =
                    format!("was made with what the file cannot say, and its successor {becomes}: {what}");
                planner.note(&service.name, &text);
            }
        }
        if let Some(value) = differ::forbidden_rebuild(container) {
            let value = guard::switch(value);
            let text = format!(
                "runs with `REBUILD` {value}: whoever starts this container again has its database dropped"
            );
            planner.note(&service.name, &text);
        }
    }
}

/// What becomes of a container that has a twin.
fn note_twins(planner: &mut Planner<'_>) {
    let mut notes = Vec::new();
    for touched in planner.plan.touched.iter().filter(|touched| touched.after == After::Made) {
        let old = touched.before.as_ref().and_then(|before| by_id(planner.observed, &before.id));
        let service = planner.desired.service(&touched.service);
        let (Some(old), Some(service)) = (old, service) else { continue };
        let Some((_, because)) = twin(planner.desired, service, old) else { continue };
        let gone = "once its successor is proven, the container itself is removed and its twin parked in its place: what was changed \
                    inside it, outside of volumes, is not in the twin";
        notes.push(match because {
            TwinBecause::Rebuild => format!("`{}` is never started again, not even to go back: a twin of it with `REBUILD=false` is; {gone}", service.name),
            TwinBecause::Compose => {
                let project = &old.labels[LABEL_COMPOSE_PROJECT];
                format!(
                    "compose made `{}` (project `{project}`): {gone}. `docker compose up` there would make another one",
                    service.name
                )
            }
        });
    }
    planner.plan.notes.extend(notes);
}
