//! What differs in two configs: environment, labels, ports and what else an engine starts a container with.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use super::told;
use crate::oci::Image;

/// A value that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ValueChange {
    /// Of a config such as `Env.TZ`, `Labels.org.opencontainers.image.version`, `ExposedPorts.80/tcp`; of a file such as
    /// `/tars/application/server/app`.
    pub key: String,
    /// Before; `None` where it was not there. `***` for what is taken for a secret ([`crate::secretive::is_secret`]).
    pub from: Option<String>,
    /// Now.
    pub to: Option<String>,
}

/// What differs besides layers, history and dates.
pub(super) fn changes(from: &Image, to: &Image) -> Vec<ValueChange> {
    let (old, new) = (flattened(from), flattened(to));
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    keys.into_iter()
        .filter(|key| old.get(*key) != new.get(*key))
        .map(|key| ValueChange {
            key: told::text(key),
            from: old.get(key).map(|value| told::value(key, value)),
            to: new.get(key).map(|value| told::value(key, value)),
        })
        .collect()
}

/// `config` of an image config as one level of keys; environment variables by name.
fn flattened(image: &Image) -> BTreeMap<String, String> {
    let mut flat = BTreeMap::new();
    let config: Value = serde_json::from_slice(&image.config).unwrap_or_default();
    for key in ["architecture", "os"] {
        flat.insert(key.to_owned(), config.get(key).map(shown).unwrap_or_default());
    }
    let Some(run) = config.get("config").and_then(Value::as_object) else { return flat };
    for (key, value) in run {
        match (key.as_str(), value) {
            (_, Value::Object(inner)) => {
                flat.extend(inner.iter().map(|(name, value)| (format!("{key}.{name}"), shown(value))));
            }
            ("Env", Value::Array(variables)) => {
                for variable in variables.iter().filter_map(Value::as_str) {
                    let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
                    flat.insert(format!("Env.{name}"), value.to_owned());
                }
            }
            (_, Value::Null) => {}
            _ => {
                flat.insert(key.clone(), shown(value));
            }
        }
    }
    flat
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)
}
