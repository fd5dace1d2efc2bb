//! Containers beside the plan that lean on one which it stops: on its network, its memory, its processes, or by a link. They
//! are cut off then, and nobody here makes them again, so each is asked about.

use std::collections::BTreeMap;

use super::Intent;
use super::state::{by_id, is_up};
use super::step::{Action, Plan};
use crate::deploy::Observed;
use crate::deploy::asked::shared;
use crate::deploy::observed::{LABEL_DEPLOYMENT, LABEL_LEANS};
use crate::engine::{Container, Engine, EngineError, Status};

/// The keys of `HostConfig` by which a container may have what is another one's.
const SHARED: [(&str, &str); 3] =
    [("NetworkMode", "its network"), ("IpcMode", "its shared memory"), ("PidMode", "its processes")];

/// Asks the engine for them; a question for each container that is stopped and has some, and for each that leans itself on what
/// is not there any more. Of ours only those are asked for that are labelled so: no file can say such a thing.
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
        links.filter_map(|link| Some(("a link", link.as_str()?.split(':').next()?.trim_start_matches('/'))));
    shares.chain(links).collect()
}

/// How a container leans on another one.
fn how(container: &Container, on: &Container) -> Vec<&'static str> {
    let is_it =
        |other: &str| other == on.id || other == on.name || other.len() >= 12 && on.id.starts_with(other);
    supports(container).into_iter().filter(|(_, other)| is_it(other)).map(|(what, _)| what).collect()
}
