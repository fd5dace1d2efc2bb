//! In what a container differs from its declaration, in words: names of variables, never their values.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::deploy::asked::{Asked, says_nothing, shared};
use crate::deploy::desired::Service;
use crate::deploy::observed::{LABEL_SERVICE, LABEL_SPEC};
use crate::deploy::{Observed, carried};
use crate::engine::{Container, EngineImage, Variable};
use crate::secretive::Secretive;
use crate::tars::rebuild::{REBUILD, is_allowed};

/// Why the container has to be replaced; `None` where it is as declared.
pub fn difference(service: &Service, container: &Container, observed: &Observed) -> Option<String> {
    let wanted = observed.image(&service.image.to_string());
    let mut causes = Vec::new();
    if let Some(wanted) = wanted
        // Before it is loaded, containerd's store does not tell an id: it is another image then, as it is not there.
        && wanted.id != container.image_id
    {
        causes.push(image_difference(service, container, wanted));
    }
    if service.has_adopted(container) {
        causes.extend(adopted_difference(service, container, observed));
        return (!causes.is_empty()).then(|| causes.join("; "));
    }
    match container.labels.get(LABEL_SPEC).map_or(Some(false), |label| service.has_spec(label)) {
        Some(true) => {}
        Some(false) => {
            let parts = spec_difference(service, container, observed);
            causes.push(parts.unwrap_or_else(|| "declaration differs".to_owned()));
        }
        // A newer release wrote it, by a rule of its own: only what can be seen counts.
        None => causes.extend(spec_difference(service, container, observed)),
    }
    (!causes.is_empty()).then(|| causes.join("; "))
}

/// In what a container that somebody else made differs from its declaration, both ways.
///
/// A forbidden `REBUILD` that the file no longer has is no difference: the container must not be replaced for it on a day
/// that nobody chose. [`unsaid`] tells it.
fn adopted_difference(service: &Service, container: &Container, observed: &Observed) -> Option<String> {
    let (has, wanted) = both(service, container, observed);
    let mut keys = has.differences(&wanted);
    keys.extend(namespaces_that_differ(service, container, observed));
    // All that is allowed means the same: no.
    if is_allowed(service.declaration.environment.value(REBUILD).map(Secretive::expose)) {
        keys.remove("Env REBUILD");
    }
    let (variables, keys): (Vec<&str>, Vec<&str>) =
        keys.iter().map(String::as_str).partition(|key| key.starts_with("Env "));
    let variables: Vec<&str> = variables.iter().filter_map(|key| key.strip_prefix("Env ")).collect();
    let mut parts = Vec::new();
    if !variables.is_empty() {
        parts.push(format!("environment differs: {}", variables.join(", ")));
    }
    if !keys.is_empty() {
        parts.push(format!("{} {}", keys.join(", "), if keys.len() == 1 { "differs" } else { "differ" }));
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// The declared namespaces of others that the container does not have. Whose they are is told by its service: one that was replaced
/// since has a successor, and what leans on it follows.
fn namespaces_that_differ(service: &Service, container: &Container, observed: &Observed) -> Vec<String> {
    let is_it = |has: &str, name: &str| {
        let by_id = observed.containers.iter().find(|found| found.id == has);
        let named = observed.container(name).and_then(|found| found.labels.get(LABEL_SERVICE));
        let is_of_one_service = |found: &Container| found.labels.get(LABEL_SERVICE) == named;
        has == name
            || observed.leaders.get(name).is_some_and(|id| id == has)
            || by_id.is_some_and(|found| found.name == name || named.is_some() && is_of_one_service(found))
    };
    let has_it = |key: &str, name: &str| shared(&container.raw, key).is_some_and(|has| is_it(has, name));
    let lacks = |(key, name): &(&'static str, &str)| !has_it(key, name);
    service.declaration.shares().filter(lacks).map(|(key, _)| key.to_owned()).collect()
}

fn both(service: &Service, container: &Container, observed: &Observed) -> (Asked, Asked) {
    let image = observed.image(&container.image_id).map_or(&Value::Null, |image| &image.raw["Config"]);
    (Asked::of_container(container, &service.name, image), Asked::of_declared(service, image))
}

/// What an adopted container has that no file can say, by the API's keys: what its successor goes on with all the same, and what it
/// goes without.
pub fn unsaid(service: &Service, container: &Container, observed: &Observed) -> (Vec<String>, Vec<String>) {
    let image = observed.image(&container.image_id).map_or(&Value::Null, |image| &image.raw["Config"]);
    let (mut carried, mut lost) = carried::beyond(container, &service.name, image);
    for (declared, _) in service.declaration.shares() {
        carried.retain(|key| key != declared);
        lost.retain(|key| key != declared);
    }
    (carried, lost)
}

/// The value of a `REBUILD` that would empty the database, or might.
pub fn forbidden_rebuild(container: &Container) -> Option<&Secretive> {
    let values = container.env.values().filter(|(name, _)| *name == REBUILD);
    values.map(|(_, value)| value).find(|value| !is_allowed(Some(value.expose())))
}

fn image_difference(service: &Service, container: &Container, wanted: &EngineImage) -> String {
    let to = service.image.to_string();
    if container.image == to {
        let (old, new) = (short(&container.image_id), short(&wanted.id));
        format!("image differs: {to} was {old}, is {new}")
    } else {
        format!("image differs: {} → {to}", container.image)
    }
}

fn short(id: &str) -> &str {
    let hex = id.strip_prefix("sha256:").unwrap_or(id);
    hex.get(..12).unwrap_or(hex)
}

/// Which parts of the declaration are not what the container has. The hash decides; this only explains.
fn spec_difference(service: &Service, container: &Container, observed: &Observed) -> Option<String> {
    let mut parts = Vec::new();
    let names = changed_variables(service, container, observed);
    if !names.is_empty() {
        parts.push(format!("environment differs: {}", names.into_iter().collect::<Vec<_>>().join(", ")));
    }
    let mut keys = BTreeSet::new();
    for (key, value) in &service.declaration.render().0 {
        match key.as_str() {
            "Env" | "Image" | "Labels" | "NetworkingConfig" => {}
            "HostConfig" => {
                for (key, value) in value.as_object().into_iter().flatten() {
                    // The policy is `no` while a container is not proven, and the label says what it will be.
                    let has = container.raw.pointer(&format!("/HostConfig/{key}"));
                    if key != "RestartPolicy" && !means_the_same(has, value) {
                        keys.insert(key.clone());
                    }
                }
            }
            _ => {
                let has = container.raw.pointer(&format!("/Config/{key}"));
                if !means_the_same(has, value) {
                    keys.insert(key.clone());
                }
            }
        }
    }
    if !keys.is_empty() {
        let verb = if keys.len() == 1 { "differs" } else { "differ" };
        parts.push(format!("{} {verb}", keys.into_iter().collect::<Vec<_>>().join(", ")));
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// The names of variables that were added, changed or taken away; what an image sets does not count.
fn changed_variables(service: &Service, container: &Container, observed: &Observed) -> BTreeSet<String> {
    let wanted: BTreeSet<&Variable> = service.declaration.environment.0.iter().collect();
    let has: BTreeSet<&Variable> = container.env.0.iter().collect();
    let image = observed.image(&container.image_id);
    let baked: BTreeSet<&Variable> = image.map(|image| image.env.0.iter().collect()).unwrap_or_default();
    let name = |variable: &&Variable| variable.name.clone();
    let added = wanted.difference(&has).map(name);
    let gone = has.difference(&wanted).filter(|variable| !baked.contains(**variable)).map(name);
    added.chain(gone).collect()
}

/// What was not asked for may be shown or be left out.
fn means_the_same(has: Option<&Value>, wanted: &Value) -> bool {
    has == Some(wanted) || (says_nothing(wanted) && has.is_none_or(says_nothing))
}
