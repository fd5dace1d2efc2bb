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

mod error;

use std::collections::{BTreeMap, BTreeSet};

use crate::diagnose::Place;
use crate::engine::{Container, CreateBody, EngineImage, Environment};
use crate::oci::Reference;
use crate::secretive::Secretive;
use crate::tars::Role;
use crate::tars::catalogue::{DATA_PATH, DEPLOY_PATH, IMAGE_ROLE_LABEL, INIT_PATH, TARS_PATH};
use crate::tars::rebuild::{REBUILD, UNQUOTED, is_allowed};

use super::container::{Endpoint, NetworkMode, PublishedPort};
use super::desired::{Desired, Service};
use super::mounts::{clean, is_within};
pub use error::{GuardError, switch};

/// Where MySQL and MariaDB keep their data unless `--datadir` says otherwise.
const MYSQL_DATA: &str = "/var/lib/mysql";

/// Makes a slave of a container of the framework's image: only exactly `true` does.
const SLAVE: &str = "SLAVE";

/// The result of a check.
pub type Result = std::result::Result<(), GuardError>;

/// Checks what the files declare, every service of it; the first thing that it refuses.
pub fn check(desired: &Desired) -> Result {
    find(desired).into_iter().next().map_or(Ok(()), Err)
}

/// All that it refuses of what the files declare.
pub fn find(desired: &Desired) -> Vec<GuardError> {
    let mut found = Vec::new();
    for service in &desired.services {
        found.extend(check_declared_environment(service).err());
        match service.role {
            Some(Role::Master | Role::Slave | Role::Node) => {
                found.extend(check_start(service).err());
                found.extend(check_slave(service, None).err());
            }
            Some(Role::Database) => found.extend(check_data(service).err()),
            None => {}
        }
    }
    found.extend(check_shared_network(desired).err());
    found
}

fn check_declared_environment(service: &Service) -> Result {
    if let Some(setting) = &service.rebuild
        && !is_allowed(Some(setting.value.expose()))
    {
        return Err(GuardError::Rebuild { service: service.name.clone(), setting: setting.clone() });
    }
    if let Some((variable, place)) = service.blanks.first() {
        let (variable, owner) = (variable.clone(), service.name.clone());
        return Err(GuardError::Blank { variable, owner, place: Some(place.clone()) });
    }
    check_environment(&service.container, &service.declaration.environment)
}

/// What only shows with the image at hand: whether its volumes hide the data, its environment the role.
pub fn check_with_image(service: &Service, image: &EngineImage) -> Result {
    match service.role {
        Some(Role::Database) => check_hidden(service, image, &data_directory(service)),
        Some(_) => {
            check_slave(service, Some(image))?;
            check_hidden(service, image, DATA_PATH)
        }
        None => Ok(()),
    }
}

/// True where it starts with tars-init. `config` is the engine's `Config` of an image or a container.
pub fn has_our_start(config: &serde_json::Value) -> bool {
    config["Entrypoint"].get(0).and_then(serde_json::Value::as_str) == Some(INIT_PATH)
}

/// The image is one for the service's role, and starts as it says; asked of what is to be started. `config` is the
/// engine's `Config` of the image, or of a container that was made from it.
pub fn check_image_role(
    service: &Service,
    labels: &BTreeMap<String, String>,
    config: &serde_json::Value,
) -> Result {
    let Some(role) = service.role else { return Ok(()) };
    // Labels go from an image to what is built on it, whatever that starts.
    let found = labels
        .get(IMAGE_ROLE_LABEL)
        .map(String::as_str)
        .filter(|_| has_our_start(config) || role == Role::Database);
    let (name, image) = (service.name.clone(), service.image.to_string());
    let place = Box::new(service.written.keys.get("image").unwrap_or(&service.place).clone());
    match (role.image_role(), found) {
        (Some(wanted), Some(found)) if wanted == found => Ok(()),
        (None, None | Some("plain")) => Ok(()),
        (Some(_), None | Some("plain")) => Err(GuardError::OtherStart { service: name, role, image, place }),
        (_, Some(found)) => {
            Err(GuardError::RoleAgainstImage { service: name, role, image, found: found.to_owned(), place })
        }
    }
}

/// Checks a create body as it will be sent; the last look before the call.
pub fn check_body(container: &str, body: &CreateBody) -> Result {
    let entries = body.0.get("Env").and_then(serde_json::Value::as_array);
    let entries = entries.into_iter().flatten().filter_map(serde_json::Value::as_str);
    check_environment(container, &Environment::of(entries))
}

/// Checks an image's own environment (`Config.Env`).
pub fn check_image(env: &Environment, image: &Reference) -> Result {
    match env.values().find(|(name, value)| is_forbidden(name, value)) {
        Some((_, value)) => Err(GuardError::Image { image: image.to_string(), value: value.clone() }),
        None => Ok(()),
    }
}

fn is_forbidden(name: &str, value: &Secretive) -> bool {
    name == REBUILD && !is_allowed(Some(value.expose()))
}

/// Checks a container that is about to be started or restarted.
pub fn check_container(container: &Container) -> Result {
    check_environment(&container.name, &container.env)
}

/// Every entry counts, not only the last of a name: which one wins is the engine's affair.
fn check_environment(container: &str, environment: &Environment) -> Result {
    for (name, value) in environment.values() {
        if is_forbidden(name, value) {
            return Err(GuardError::Container { container: container.to_owned(), value: value.clone() });
        }
        if UNQUOTED.contains(&name) && value.has_white_space() {
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
    let declaration = &service.declaration;
    if declaration.entrypoint.is_some() {
        return Err(replaced("an `entrypoint`".to_owned(), "entrypoint"));
    }
    if declaration.command.as_ref().is_some_and(|words| !words.is_empty()) {
        return Err(replaced("a `command`".to_owned(), "command"));
    }
    for target in declaration.mounts().iter().map(|mount| &mount.target) {
        // A mount over a folder hides all that is in it; inside the SQL tree it replaces what a database is made from.
        let hides = [INIT_PATH, TARS_PATH, DEPLOY_PATH].iter().any(|path| is_within(path, target));
        if hides || is_within(target, DEPLOY_PATH) {
            return Err(replaced(format!("a mount over {target}"), &format!("volumes {target}")));
        }
    }
    Ok(())
}

/// `SLAVE` makes what `x-tars` says. Without the image only what the file itself sets is judged.
fn check_slave(service: &Service, image: Option<&EngineImage>) -> Result {
    let Some(role @ (Role::Master | Role::Slave)) = service.role else { return Ok(()) };
    let value = match (service.declaration.environment.get(SLAVE), image) {
        (Some(variable), _) => variable.value.as_ref(),
        (None, Some(image)) => image.env.value(SLAVE),
        (None, None) => return Ok(()),
    };
    let other = match (role, value.map(Secretive::expose)) {
        (Role::Slave, Some("true")) | (Role::Master, None | Some("" | "false")) => return Ok(()),
        (Role::Slave, _) => Role::Master,
        _ => Role::Slave,
    };
    let found = match value {
        Some(value) => format!("it is {}, and only exactly `true` makes a slave", switch(value)),
        None => "it is not set".to_owned(),
    };
    let keys = &service.written.keys;
    let place = ["environment SLAVE", "environment"].iter().find_map(|key| keys.get(*key));
    let place = Box::new(place.unwrap_or(&service.place).clone());
    Err(GuardError::RoleAgainstSlave { service: service.name.clone(), role, other, found, place })
}

/// Whose network a service is on: the host's, or that of the container at the end of `container:`.
fn network_of<'a>(desired: &'a Desired, service: &'a Service) -> &'a str {
    let (mut service, mut left) = (service, desired.services.len());
    loop {
        let on = match &service.declaration.network {
            Some(NetworkMode::Host) => return "host",
            Some(NetworkMode::Container(_)) if left > 0 => {
                service.declaration.shares().find_map(|(key, name)| (key == "NetworkMode").then_some(name))
            }
            _ => None,
        };
        let Some(name) = on else { return &service.container };
        match desired.services.iter().find(|other| other.container == name) {
            Some(other) => (service, left) = (other, left - 1),
            None => return name,
        }
    }
}

/// On one network, the host's or another container's, the ports are one: two parts of the framework would fight for them, and the
/// first to come would answer for both.
fn check_shared_network(desired: &Desired) -> Result {
    let with_role = desired.services.iter().filter_map(|service| Some((service, service.role?)));
    let with_role: Vec<_> = with_role.collect();
    for (at, (second, role)) in with_role.iter().enumerate() {
        for (first, other) in &with_role[..at] {
            let shared: Vec<String> =
                role.ports().intersection(&other.ports()).map(ToString::to_string).collect();
            if !shared.is_empty() && network_of(desired, first) == network_of(desired, second) {
                return Err(GuardError::SamePorts {
                    network: match network_of(desired, second) {
                        "host" => "the host's network".to_owned(),
                        other => format!("the network of `{other}`"),
                    },
                    first: first.name.clone(),
                    second: second.name.clone(),
                    ports: shared.join(", "),
                    place: Box::new(second.written.keys.get("network_mode").unwrap_or(&second.place).clone()),
                });
            }
        }
        // The engine's proxy would be there first, or the framework would: either way one of them does not come up.
        if !second.declaration.is_on_host_network() {
            continue;
        }
        for publisher in desired.services.iter().filter(|publisher| publisher.name != second.name) {
            let ports: Vec<String> =
                role.ports().intersection(&published(publisher)).map(ToString::to_string).collect();
            if !publisher.declaration.is_on_host_network() && !ports.is_empty() {
                return Err(GuardError::PublishedPorts {
                    publisher: publisher.name.clone(),
                    on_host: second.name.clone(),
                    ports: ports.join(", "),
                    place: Box::new(publisher.written.keys.get("ports").unwrap_or(&publisher.place).clone()),
                });
            }
        }
    }
    Ok(())
}

/// The TCP ports of the host that the engine binds for a service, or may bind.
fn published(service: &Service) -> BTreeSet<u16> {
    let tcp = service.declaration.ports.iter().filter(|port| port.protocol() == "tcp");
    tcp.filter_map(PublishedPort::candidates).flatten().collect()
}

/// The data directory of a database is on something that outlives the container.
fn check_data(service: &Service) -> Result {
    let directory = data_directory(service);
    if service.declaration.mounts().source_of(&directory).is_kept() {
        return Ok(());
    }
    let place = mount_place(service, &directory);
    Err(GuardError::Unmounted { service: service.name.clone(), directory, place })
}

/// The engine makes an anonymous volume at each path that an image declares, also below what is mounted.
fn check_hidden(service: &Service, image: &EngineImage, directory: &str) -> Result {
    let declared = service.declaration.mounts();
    let Some(mount) = declared.covering(directory) else { return Ok(()) };
    let real = declared.clone().with_image(image).source_of(directory);
    if !declared.source_of(directory).is_kept() || real.is_kept() {
        return Ok(());
    }
    Err(GuardError::Hidden {
        service: service.name.clone(),
        target: mount.target.clone(),
        image: service.image.to_string(),
        directory: directory.to_owned(),
        place: Box::new(mount_place(service, &mount.target)),
    })
}

fn mount_place(service: &Service, target: &str) -> Place {
    let keys = &service.written.keys;
    let place = keys.get(&format!("volumes {target}")).or_else(|| keys.get("volumes"));
    place.unwrap_or(&service.place).clone()
}

/// What is allowed, but may surprise: a sentence each.
pub fn concerns(services: &[Service]) -> Vec<String> {
    let framework = services.iter().filter(|service| {
        matches!(service.role, Some(Role::Master | Role::Slave | Role::Node))
            && !service.declaration.mounts().source_of(DATA_PATH).is_kept()
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
    let words: Vec<&str> = service.declaration.command.iter().flatten().map(String::as_str).collect();
    let named = words.iter().enumerate().find_map(|(at, word)| match word.strip_prefix("--datadir") {
        Some("") => words.get(at + 1).copied(),
        Some(rest) => rest.strip_prefix('='),
        None => None,
    });
    clean(named.unwrap_or(MYSQL_DATA))
}

/// The path that the data of a service lies under, where its role says.
pub fn data_path(service: &Service) -> Option<String> {
    match service.role? {
        Role::Database => Some(data_directory(service)),
        Role::Master | Role::Slave | Role::Node => Some(DATA_PATH.to_owned()),
    }
}

/// True where nothing keeps the name of a part of the framework the same: no fixed address, no `DOMAIN`.
///
/// Its address is its name in the database: with another one it is another node there, and what was deployed to it is
/// looked for at the old one.
pub fn may_change_its_name(desired: &Desired, service: &Service) -> bool {
    let declaration = &service.declaration;
    let is_named =
        ["DOMAIN", "TARS_DOMAIN"].iter().any(|name| declaration.environment.filled(name).is_some());
    let network = network_of(desired, service);
    let owner = desired.services.iter().find(|other| other.container == network).unwrap_or(service);
    matches!(service.role, Some(Role::Master | Role::Slave | Role::Node))
        && !is_named
        && network != "host"
        && !owner.declaration.endpoints.iter().any(Endpoint::has_fixed_address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::{Diagnose as _, Exit};

    #[test]
    fn image_with_rebuild_is_refused_and_one_without_passes() {
        let image: Reference = "tars/framework:1".parse().unwrap();
        let env = |entry: &str| Environment::of(["PATH=/bin", entry]);
        for allowed in ["REBUILD=", "REBUILD=false", "REBUILDX=true", "REBUILD"] {
            assert!(check_image(&env(allowed), &image).is_ok(), "{allowed}");
        }
        let error = check_image(&env("REBUILD=true"), &image).unwrap_err();
        assert_eq!(error.exit(), Exit::Refused);
        assert!(error.to_string().contains("tars/framework:1"));
    }
}
