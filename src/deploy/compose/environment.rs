//! A service's environment: `env_file`, then `environment`, each value with the line that it comes from.

use std::collections::BTreeMap;

use super::error::{ComposeError, Result};
use super::files::assignments;
use super::merge::assigned;
use super::paths::join;
use super::value::{boolean, entries, text};
use crate::deploy::desired::Setting;
use crate::deploy::interpolate::Variables;
use crate::diagnose::Place;
use crate::yaml::{Node, Origin, Value};

/// The environment: `None` as a value takes the variable away from what the image brings.
pub(super) type Environment = BTreeMap<String, Option<Setting>>;

/// The environment that a service declares.
pub(super) fn environment(service: &Node, variables: &Variables) -> Result<Environment> {
    let mut environment = Environment::new();
    if let Some(files) = service.get("env_file") {
        let files = match &files.value {
            Value::List(files) => files.iter().collect(),
            Value::Null => Vec::new(),
            _ => vec![files],
        };
        for file in files {
            read_env_file(file, variables, &mut environment)?;
        }
    }
    if let Some(node) = service.get("environment") {
        let node = assigned(node.clone())?;
        for entry in entries(&node, "environment")? {
            if entry.key.is_empty() {
                return Err(ComposeError::invalid(&entry.at, "a variable without a name"));
            }
            if matches!(entry.value.value, Value::List(_) | Value::Map(_)) {
                let what =
                    format!("`{}` in `environment` takes a scalar, not {}", entry.key, entry.value.kind());
                return Err(ComposeError::invalid(&entry.value.at, what));
            }
            environment.insert(entry.key.clone(), setting(&entry.key, &entry.value, variables));
        }
    }
    Ok(environment)
}

/// One entry of `environment`; without a value the shell's or `.env`'s, as compose passes it through.
fn setting(name: &str, node: &Node, variables: &Variables) -> Option<Setting> {
    let here = node.at.place();
    if let Some(value) = node.rendered().map(|value| value.named(name)) {
        let uses = match &node.value {
            Value::Text(text) => text.uses.as_slice(),
            _ => &[],
        };
        // Of several variables the first that is set: that one a person would look at.
        let source = uses.iter().find(|one| one.origin != Origin::Unset);
        return Some(match source.map(|one| (&one.variable, &one.origin)) {
            Some((variable, Origin::DotEnv(place))) => Setting {
                value,
                place: place.clone(),
                through: Some(format!("interpolated as `{variable}` at {here}")),
            },
            Some((variable, Origin::Shell)) => Setting {
                value,
                place: here,
                through: Some(format!("interpolated from `{variable}` of the shell")),
            },
            _ => Setting { value, place: here, through: None },
        });
    }
    match variables.lookup(name) {
        (Some(value), Origin::DotEnv(place)) => Some(Setting {
            value: value.clone().named(name),
            place,
            through: Some(format!("passed through at {here}")),
        }),
        (Some(value), _) => Some(Setting {
            value: value.clone().named(name),
            place: here,
            through: Some("passed through from the shell".to_owned()),
        }),
        (None, _) => None,
    }
}

/// One entry of `env_file`: a path, or a mapping of `path` and `required`.
fn read_env_file(node: &Node, variables: &Variables, environment: &mut Environment) -> Result<()> {
    let (mut path, mut required) = (None, true);
    if let Value::Map(_) = node.value {
        for entry in entries(node, "env_file")? {
            match entry.key.as_str() {
                "path" => path = Some(text(&entry.value, "env_file.path")?),
                "required" => required = boolean(&entry.value, "env_file.required")?,
                "format" => {
                    return Err(ComposeError::NotCarriedOut {
                        key: "format".to_owned(),
                        within: "`env_file`".to_owned(),
                        instead: "remove it, and put values with `$` in single quotes".to_owned(),
                        place: entry.at.place(),
                    });
                }
                other => {
                    return Err(ComposeError::UnknownKey {
                        key: other.to_owned(),
                        within: "`env_file`".to_owned(),
                        meant: None,
                        place: entry.at.place(),
                    });
                }
            }
        }
    } else {
        path = Some(text(node, "env_file")?);
    }
    let Some(path) = path else {
        return Err(ComposeError::invalid(&node.at, "an `env_file` without `path`"));
    };
    let path = join(node.at.base(), &path);
    if !required && !path.exists() {
        return Ok(());
    }
    let lookup = |name: &str| variables.lookup(name).0.cloned();
    for one in assignments(&path, Some(&node.at.place()), &lookup)? {
        if let Some(value) = one.value {
            let place = Place::line(&path, one.line);
            let through = Some(format!("through `env_file` at {}", node.at.place()));
            environment.insert(one.name, Some(Setting { value, place, through }));
        }
    }
    Ok(())
}
