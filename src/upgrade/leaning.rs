//! Containers that lean on one which a plan stops: on its network, its memory, its processes, or by a link. They are cut off then.
//! Services of the deployment follow it in the same plan; whatever else leans on it nobody here makes again, so it is asked about.
//!
//! The engine keeps the id of the other container, whatever was declared: a successor has another one, so that a restart of what
//! leans on it would not be enough. Only a link follows the name, and that goes with the container that is parked.

use std::collections::{BTreeMap, BTreeSet};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::names::{Part, part_of};
use super::state::{by_id, is_up, of_service, ours};
use super::step::{Action, Plan};
use super::{Intent, Refusal};
use crate::deploy::asked::shared;
use crate::deploy::desired::Service;
use crate::deploy::observed::{LABEL_DEPLOYMENT, LABEL_LEANS, LABEL_SERVICE};
use crate::deploy::{Desired, Observed};
use crate::engine::{Container, Engine, EngineError, Status};

/// The keys of `HostConfig` by which a container may have what is another one's.
const SHARED: [(&str, &str); 3] =
    [("NetworkMode", "its network"), ("IpcMode", "its shared memory"), ("PidMode", "its processes")];

/// The word for the other way.
pub(super) const LINK: &str = "a link";

/// A service of the deployment that a container leans on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Support<'a> {
    /// The service.
    pub service: &'a str,
    /// What is shared with it.
    pub what: &'static str,
    /// The container of it that is leaned on.
    pub container: &'a str,
    /// True where that one is parked, and another one in its place.
    pub is_parked: bool,
}

/// On which services of its own deployment a container leans.
pub(super) fn of<'a>(observed: &'a Observed, deployment: &'a str, container: &Container) -> Vec<Support<'a>> {
    let mut found = Vec::new();
    for (what, other) in supports(container) {
        let on = ours(observed, deployment).find(|on| is_it(other, on));
        let Some((on, service)) = on.and_then(|on| Some((on, on.labels.get(LABEL_SERVICE)?))) else {
            continue;
        };
        let is_parked = matches!(part_of(&on.name), Part::Old(_));
        found.push(Support { service, what, container: &on.name, is_parked });
    }
    found
}

/// What is shared, and with which service, by the declaration.
pub(super) fn declared<'a>(
    desired: &'a Desired,
    service: &'a Service,
) -> impl Iterator<Item = (&'static str, &'a Service)> {
    service.declaration.shares().filter_map(|(key, container)| {
        let on = desired.services.iter().find(|on| on.container == container)?;
        Some((word(key), on))
    })
}

/// The word for what a key of `HostConfig` shares.
pub(super) fn word(key: &str) -> &'static str {
    SHARED.iter().find(|(known, _)| *known == key).map_or("a namespace", |(_, what)| what)
}

/// Whether a container can be started again once it is stopped: what it leans on by the declaration is there, and not parked.
pub(super) fn check_restart(
    observed: &Observed,
    service: &Service,
    container: &Container,
) -> Result<(), Refusal> {
    for (key, _) in service.declaration.shares() {
        let Some(other) = shared(&container.raw, key) else { continue };
        let found = observed.containers.iter().find(|on| is_it(other, on));
        let stays = found.map_or(observed.leaders.values().any(|id| id == other), |on| {
            !matches!(part_of(&on.name), Part::Old(_))
        });
        if !stays {
            let place = Box::new(service.place.clone());
            return Err(Refusal::LeaderGone { service: service.name.clone(), what: word(key), place });
        }
    }
    Ok(())
}

/// The same services, none before one that its containers lean on; else in the order given.
pub(super) fn after_supports<'a>(
    observed: &Observed,
    deployment: &str,
    services: Vec<&'a Service>,
) -> Vec<&'a Service> {
    sorted(observed, deployment, services, |service| &service.name)
}

/// The same of anything that is about a service.
pub(super) fn sorted<T>(
    observed: &Observed,
    deployment: &str,
    mut left: Vec<T>,
    name: impl Fn(&T) -> &str,
) -> Vec<T> {
    let on = |one: &T| -> BTreeSet<String> {
        let containers = of_service(observed, deployment, name(one));
        let all = containers.flat_map(|container| of(observed, deployment, container));
        all.map(|support| support.service.to_owned()).filter(|service| service != name(one)).collect()
    };
    let mut waits: Vec<BTreeSet<String>> = left.iter().map(&on).collect();
    let mut sorted = Vec::new();
    while !left.is_empty() {
        let names: BTreeSet<String> = left.iter().map(|one| name(one).to_owned()).collect();
        // Where they lean on each other, whatever the engine made of that, the order is as it was.
        let next = waits.iter().position(|on| on.is_disjoint(&names)).unwrap_or(0);
        waits.remove(next);
        sorted.push(left.remove(next));
    }
    sorted
}

/// True where what a running container leans on has been started after it, and by this deploy: it is left with what is not there
/// any more.
pub(super) fn is_cut_off(
    observed: &Observed,
    container: &Container,
    has_restarted: impl Fn(&Container) -> bool,
) -> bool {
    let Some(own) = since(container).filter(|_| is_up(container)) else { return false };
    supports(container).into_iter().any(|(_, other)| {
        let on = observed
            .containers
            .iter()
            .find(|on| is_it(other, on))
            .filter(|on| is_up(on) && has_restarted(on));
        on.and_then(since).is_some_and(|since| since > own)
    })
}

/// When a container was started, where that was asked.
pub(super) fn since(container: &Container) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(&container.started_at, &Rfc3339).ok()
}

/// Asks the engine for those that the plan does not take along; a question for each container that is stopped and has some, and for each that leans itself on what
/// is not there any more, unless that goes before it in the same plan. Of ours only those are asked for that are labelled so.
pub(super) async fn questions(
    engine: &dyn Engine,
    plan: &Plan,
    observed: &Observed,
) -> Result<Vec<String>, EngineError> {
    let stopped: Vec<&Container> = plan
        .steps
        .iter()
        .filter_map(|step| match &step.action {
            Action::Stop { container, .. } => observed.container(container).filter(|found| is_up(found)),
            _ => None,
        })
        .collect();
    if stopped.is_empty() {
        return Ok(Vec::new());
    }
    let mut leaning: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for one in engine.list_containers(&[]).await? {
        let is_plain = one.labels.contains_key(LABEL_DEPLOYMENT) && !one.labels.contains_key(LABEL_LEANS);
        if is_plain || !matches!(one.status, Status::Running | Status::Paused | Status::Restarting) {
            continue;
        }
        let known = by_id(observed, &one.id).filter(|found| !found.labels.contains_key(LABEL_LEANS));
        let found = match known {
            Some(found) => Some(found.clone()),
            None => engine.inspect_container(&one.id).await?,
        };
        let Some(found) = found else { continue };
        for (at, on) in stopped.iter().enumerate() {
            // What is stopped later in the plan begins anew with what is there then, and what is down leans on nobody.
            let own = stopped.iter().position(|other| other.id == found.id);
            let begins_anew = own.is_some_and(|own| own > at || matches!(plan.intent, Intent::Down { .. }));
            let how = how(&found, on);
            if !how.is_empty() && !begins_anew {
                leaning.entry(&on.name).or_default().push(format!("`{}` ({})", found.name, how.join(", ")));
            }
        }
    }
    let question = |(on, names): (&str, Vec<String>)| {
        format!(
            "{} {} on `{on}`, and {} cut off once that is stopped: whoever made it makes it again afterwards. Stop `{on}` all \
             the same?",
            names.join(", "),
            if names.len() == 1 { "leans" } else { "lean" },
            if names.len() == 1 { "is" } else { "are" },
        )
    };
    let mut questions: Vec<String> = leaning.into_iter().map(question).collect();
    for container in stopped {
        let leans = container.labels.contains_key(LABEL_LEANS);
        let asked = if leans { engine.inspect_container(&container.id).await? } else { None };
        for (what, other) in supports(asked.as_ref().unwrap_or(container)) {
            let found = engine.inspect_container(other).await?;
            if !found.as_ref().is_some_and(is_up) {
                let gone = match found {
                    Some(found) => format!("is of `{}`, which does not run", found.name),
                    None => "is of a container that is gone".to_owned(),
                };
                questions.push(format!(
                    "`{}` cannot be started again as it is, not even to go back: {what} {gone}. Stop it all \
                     the same?",
                    container.name
                ));
            }
        }
    }
    Ok(questions)
}

/// On what a container leans: how, and the id or name of the other one.
fn supports(container: &Container) -> Vec<(&'static str, &str)> {
    let shares = SHARED.iter().filter_map(|(key, what)| Some((*what, shared(&container.raw, key)?)));
    // `/db:/web/db`: on a network of its own a link is a name alone, which the successor has.
    let links = container.raw["HostConfig"]["Links"].as_array().into_iter().flatten();
    let links =
        links.filter_map(|link| Some((LINK, link.as_str()?.split(':').next()?.trim_start_matches('/'))));
    shares.chain(links).collect()
}

/// How a container leans on another one.
fn how(container: &Container, on: &Container) -> Vec<&'static str> {
    supports(container).into_iter().filter(|(_, other)| is_it(other, on)).map(|(what, _)| what).collect()
}

/// True where an id, a part of one or a name is a container's.
fn is_it(other: &str, on: &Container) -> bool {
    other == on.id || other == on.name || other.len() >= 12 && on.id.starts_with(other)
}
