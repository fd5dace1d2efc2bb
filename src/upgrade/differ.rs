//! In what a container differs from its declaration, in words: names of variables, never their values.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::deploy::Observed;
use crate::deploy::desired::Service;
use crate::deploy::observed::LABEL_SPEC;
use crate::engine::{Container, EngineImage};

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
    let entries = service.declaration.environment.entries();
    let wanted: BTreeSet<&str> = entries.iter().map(String::as_str).collect();
    let has: BTreeSet<&str> = container.env.iter().map(String::as_str).collect();
    let image = observed.image(&container.image_id);
    let baked: BTreeSet<&str> =
        image.map(|image| image.env.iter().map(String::as_str).collect()).unwrap_or_default();
    let name = |entry: &&str| entry.split_once('=').map_or(*entry, |(name, _)| name).to_owned();
    let added = wanted.difference(&has).map(name);
    let gone = has.difference(&wanted).filter(|entry| !baked.contains(**entry)).map(name);
    added.chain(gone).collect()
}

/// The engine shows what was not asked for as `null`, `""`, `0`, `false`, `[]` or `{}`.
fn means_the_same(has: Option<&Value>, wanted: &Value) -> bool {
    let is_empty = |value: &Value| match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(value) => value.as_i64() == Some(0),
        Value::String(value) => value.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(values) => values.is_empty(),
    };
    has == Some(wanted) || (is_empty(wanted) && has.is_none_or(is_empty))
}
