//! The guard: refuses what has cost TARS operators their databases, before anything is planned.
//!
//! An allow list and no question to the database: `REBUILD` is unset, empty or `false`, wherever it is written. Values
//! that upstream's shell splits hold no white space; nothing replaces the image's own start, which is the second guard.
//!
//! A database whose data directory is on no named volume and no bind is refused, not warned of: the data would lie in
//! the container (or in an anonymous volume that only this container names), the next recreate would bring up an empty
//! server, and every framework that finds an empty server installs itself anew. The way out is one line, and nobody
//! reads warnings before that day. An unmounted `/data/tars` is only a concern ([`concerns`]): a master or slave can
//! live without it, and the parked predecessor still holds it.

use crate::diagnose::{Diagnose, Exit, Place};
use crate::engine::{Container, CreateBody};
use crate::oci::Reference;
use crate::tars::Role;
use crate::tars::catalogue::{DATA_PATH, DEPLOY_PATH, TARS_PATH};
use crate::tars::rebuild::{DROPPED_SCHEMAS, REBUILD, is_allowed};

use super::compose::clean_path;
use super::desired::{Desired, Service, Setting};

/// The image's own start.
pub const INIT_PATH: &str = "/usr/local/bin/tars-init";
/// Where MySQL and MariaDB keep their data unless `--datadir` says otherwise.
const MYSQL_DATA: &str = "/var/lib/mysql";

/// Variables that upstream's scripts hand on unquoted: white space shifts the arguments, and the next word becomes
/// `REBUILD`. `SLAVE` is among them because `true ` makes a master.
pub const UNQUOTED: [&str; 7] =
    ["DOMAIN", "TARS_DOMAIN", "MYSQL_HOST", "MYSQL_PORT", "MYSQL_USER", "MYSQL_ROOT_PASSWORD", "SLAVE"];

/// What the guard refuses.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// A forbidden `REBUILD` in the files.
    #[error("`REBUILD` is {:?} for the service `{service}`{}: {}", setting.value, through(setting), consequence(&setting.value))]
    Rebuild {
        /// The service.
        service: String,
        /// The value and its place.
        setting: Setting,
    },
    /// A forbidden `REBUILD` in an image's own environment.
    #[error("the image {image} has `REBUILD` {value:?} in its own environment: {}", consequence(value))]
    Image {
        /// The image.
        image: String,
        /// The value.
        value: String,
    },
    /// A forbidden `REBUILD` in a container that would be started again, or in a create body.
    #[error("the container {container} has `REBUILD` {value:?}: {}", consequence(value))]
    Container {
        /// The container's name.
        container: String,
        /// The value.
        value: String,
    },
    /// White space where upstream's scripts cannot bear it. The value is not shown: it may be the password.
    #[error(
        "`{variable}` of `{owner}` holds white space: upstream's scripts would split it, and the word after it may be \
         taken for `REBUILD`"
    )]
    Blank {
        /// The variable.
        variable: String,
        /// The service or container.
        owner: String,
        /// The line, where there is one.
        place: Option<Place>,
    },
    /// Something replaces the image's own start.
    #[error(
        "`{service}` replaces the image's own start by {what}: without it nothing keeps a start from emptying the database"
    )]
    Replaced {
        /// The service.
        service: String,
        /// What replaces it.
        what: String,
        /// The line.
        place: Place,
    },
    /// A database whose data dies with its container.
    #[error(
        "the database `{service}` keeps {directory} on no named volume and no bind: with the next container its data \
         is gone, and the framework installs itself anew on the empty server"
    )]
    Unmounted {
        /// The service.
        service: String,
        /// Its data directory.
        directory: String,
        /// The line.
        place: Place,
    },
}

fn through(setting: &Setting) -> String {
    setting.through.as_ref().map(|through| format!(" ({through})")).unwrap_or_default()
}

/// What a value would do, in upstream's start.
fn consequence(value: &str) -> String {
    let schemas = DROPPED_SCHEMAS.join(", ");
    // Upstream's shell reads it by an unquoted echo: blanks and echo's options fall off.
    let read =
        value.split_whitespace().skip_while(|word| matches!(*word, "-n" | "-e" | "-ne" | "-en" | "-E"));
    if read.collect::<Vec<_>>() == ["true"] {
        format!("upstream's start would drop {schemas} now and at every restart")
    } else {
        format!(
            "only unset, empty and `false` pass, because what upstream's shell makes `true` of cannot be listed, and \
             `true` drops {schemas} at every start"
        )
    }
}

impl Diagnose for GuardError {
    fn exit(&self) -> Exit {
        Exit::Refused
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Rebuild { setting, .. } => match &setting.through {
                Some(through) if through.contains("shell") => {
                    "unset the variable in the shell, or write `REBUILD: \"false\"` in the compose file"
                        .to_owned()
                }
                _ => format!(
                    "remove it at {} or set it to `false`; whoever wants these schemas gone drops them in MySQL",
                    setting.place
                ),
            },
            Self::Image { .. } => {
                "build the image anew without it; setting it to false in the compose file is not enough"
                    .to_owned()
            }
            Self::Container { .. } => {
                "do not start it again: replace it by `tarsup upgrade` with `REBUILD` removed or `false`"
                    .to_owned()
            }
            Self::Blank { variable, .. } => format!("choose a value of `{variable}` without white space"),
            Self::Replaced { .. } => {
                "remove it; what the image starts is told by environment variables".to_owned()
            }
            Self::Unmounted { directory, .. } => {
                format!("mount a named volume or a host folder at {directory} under `volumes`")
            }
        })
    }

    fn place(&self) -> Option<Place> {
        match self {
            Self::Rebuild { setting, .. } => Some(setting.place.clone()),
            Self::Image { .. } | Self::Container { .. } => None,
            Self::Blank { place, .. } => place.clone(),
            Self::Replaced { place, .. } | Self::Unmounted { place, .. } => Some(place.clone()),
        }
    }
}

/// The result of a check.
pub type Result = std::result::Result<(), GuardError>;

/// Checks what the files declare, every service of it.
pub fn check(desired: &Desired) -> Result {
    for service in &desired.services {
        if let Some(setting) = &service.rebuild
            && !is_allowed(Some(&setting.value))
        {
            return Err(GuardError::Rebuild { service: service.name.clone(), setting: setting.clone() });
        }
        if let Some((variable, place)) = service.blanks.first() {
            let (variable, owner) = (variable.clone(), service.name.clone());
            return Err(GuardError::Blank { variable, owner, place: Some(place.clone()) });
        }
        check_body(&service.container, &service.body)?;
        match service.role {
            Some(Role::Master | Role::Slave | Role::Node) => check_start(service)?,
            Some(Role::Database) => check_data(service)?,
            None => {}
        }
    }
    Ok(())
}

/// Checks a create body as it will be sent; the last look before the call.
pub fn check_body(container: &str, body: &CreateBody) -> Result {
    let entries = body.0.get("Env").and_then(serde_json::Value::as_array);
    let entries: Vec<&str> = entries.into_iter().flatten().filter_map(serde_json::Value::as_str).collect();
    check_environment(container, &entries)
}

/// Checks an image's own environment (`Config.Env`).
pub fn check_image(env: &[String], image: &Reference) -> Result {
    for entry in env {
        if let Some((REBUILD, value)) = entry.split_once('=')
            && !is_allowed(Some(value))
        {
            return Err(GuardError::Image { image: image.to_string(), value: value.to_owned() });
        }
    }
    Ok(())
}

/// Checks a container that is about to be started or restarted.
pub fn check_container(container: &Container) -> Result {
    let entries: Vec<&str> = container.env.iter().map(String::as_str).collect();
    check_environment(&container.name, &entries)
}

/// Every entry counts, not only the last of a name: which one wins is the engine's affair.
fn check_environment(container: &str, entries: &[&str]) -> Result {
    for (name, value) in entries.iter().filter_map(|entry| entry.split_once('=')) {
        if name == REBUILD && !is_allowed(Some(value)) {
            return Err(GuardError::Container { container: container.to_owned(), value: value.to_owned() });
        }
        if UNQUOTED.contains(&name) && value.contains(char::is_whitespace) {
            let (variable, owner) = (name.to_owned(), container.to_owned());
            return Err(GuardError::Blank { variable, owner, place: None });
        }
    }
    Ok(())
}

/// Nothing may replace what the image starts, nor the files that it makes a database from.
fn check_start(service: &Service) -> Result {
    let replaced = |what: String, key: &str| GuardError::Replaced {
        service: service.name.clone(),
        what,
        place: service.written.keys.get(key).unwrap_or(&service.place).clone(),
    };
    if service.body.0.contains_key("Entrypoint") {
        return Err(replaced("an `entrypoint`".to_owned(), "entrypoint"));
    }
    let has_command = |cmd: &serde_json::Value| cmd.as_array().is_some_and(|words| !words.is_empty());
    if service.body.0.get("Cmd").is_some_and(has_command) {
        return Err(replaced("a `command`".to_owned(), "command"));
    }
    for (target, _) in mounts(service) {
        // A mount over a folder hides all that is in it; inside the SQL tree it replaces what a database is made from.
        let hides = [INIT_PATH, TARS_PATH, DEPLOY_PATH].iter().any(|path| is_within(path, &target));
        if hides || is_within(&target, DEPLOY_PATH) {
            return Err(replaced(format!("a mount over {target}"), &format!("volumes {target}")));
        }
    }
    Ok(())
}

/// The data directory of a database is on something that outlives the container.
fn check_data(service: &Service) -> Result {
    let directory = data_directory(service);
    if lasting(service, &directory) {
        return Ok(());
    }
    let keys = &service.written.keys;
    let place = keys.get(&format!("volumes {directory}")).or_else(|| keys.get("volumes"));
    let place = place.unwrap_or(&service.place).clone();
    Err(GuardError::Unmounted { service: service.name.clone(), directory, place })
}

/// What is allowed, but may surprise: a sentence each.
pub fn concerns(services: &[Service]) -> Vec<String> {
    let framework = services.iter().filter(|service| {
        matches!(service.role, Some(Role::Master | Role::Slave | Role::Node)) && !lasting(service, DATA_PATH)
    });
    framework
        .map(|service| {
            format!(
                "{}: `{}` keeps {DATA_PATH} on no named volume and no bind: what is deployed and logged there stays \
                 behind with each replaced container",
                service.place, service.name
            )
        })
        .collect()
}

/// `--datadir` of the command, or the default of the official images.
fn data_directory(service: &Service) -> String {
    let words = service.body.0.get("Cmd").and_then(serde_json::Value::as_array);
    let words: Vec<&str> = words.into_iter().flatten().filter_map(serde_json::Value::as_str).collect();
    let named = words.iter().enumerate().find_map(|(at, word)| match word.strip_prefix("--datadir") {
        Some("") => words.get(at + 1).copied(),
        Some(rest) => rest.strip_prefix('='),
        None => None,
    });
    clean_path(named.unwrap_or(MYSQL_DATA))
}

/// True where `directory` lies on a named volume or a bind. The innermost mount decides.
fn lasting(service: &Service, directory: &str) -> bool {
    mounts(service)
        .into_iter()
        .filter(|(target, _)| is_within(directory, target))
        .max_by_key(|(target, _)| target.len())
        .is_some_and(|(_, lasts)| lasts)
}

/// True where `path` is `folder` or lies in it. Both are clean and absolute.
fn is_within(path: &str, folder: &str) -> bool {
    match path.strip_prefix(folder.trim_end_matches('/')) {
        Some(rest) => rest.is_empty() || rest.starts_with('/'),
        None => false,
    }
}

/// Every mount of a create body: its target, and whether what is mounted outlives the container.
fn mounts(service: &Service) -> Vec<(String, bool)> {
    let Some(host) = service.body.0.get("HostConfig") else { return Vec::new() };
    let binds = host["Binds"].as_array().into_iter().flatten().filter_map(|bind| {
        let target = bind.as_str()?.split(':').nth(1)?;
        Some((clean_path(target), true))
    });
    let mounts = host["Mounts"].as_array().into_iter().flatten().filter_map(|mount| {
        let lasts =
            mount["Type"] != "tmpfs" && mount["Source"].as_str().is_some_and(|source| !source.is_empty());
        Some((clean_path(mount["Target"].as_str()?), lasts))
    });
    let tmpfs = host["Tmpfs"].as_object().into_iter().flatten();
    let tmpfs = tmpfs.map(|(target, _)| (clean_path(target), false));
    binds.chain(mounts).chain(tmpfs).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_upstream_reads_as_true_are_told_from_the_rest() {
        for value in ["true", " true", "true\n", "-n true", "-e true"] {
            assert!(consequence(value).contains("would drop db_tars,"), "{value:?}");
        }
        for value in ["TRUE", "1", "yes", "\"true\"", "False"] {
            assert!(consequence(value).contains("only unset"), "{value:?}");
        }
    }

    #[test]
    fn image_with_rebuild_is_refused_and_one_without_passes() {
        let image: Reference = "tars/framework:1".parse().unwrap();
        let env = |entry: &str| vec!["PATH=/bin".to_owned(), entry.to_owned()];
        for allowed in ["REBUILD=", "REBUILD=false", "REBUILDX=true", "REBUILD"] {
            assert!(check_image(&env(allowed), &image).is_ok(), "{allowed}");
        }
        let error = check_image(&env("REBUILD=true"), &image).unwrap_err();
        assert_eq!(error.exit(), Exit::Refused);
        assert!(error.to_string().contains("tars/framework:1"));
    }

    #[test]
    fn paths_are_within_folders_by_their_parts() {
        for (path, folder, within) in [
            ("/usr/local/bin/tars-init", "/usr/local", true),
            ("/usr/local", "/usr/local", true),
            ("/usr/local/bin", "/", true),
            ("/usr/localx", "/usr/local", false),
            ("/usr", "/usr/local", false),
        ] {
            assert_eq!(is_within(path, folder), within, "{path} {folder}");
        }
    }
}
