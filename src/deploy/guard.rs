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

use std::collections::{BTreeMap, BTreeSet};

use crate::diagnose::{Diagnose, Exit, Place};
use crate::engine::{Container, CreateBody, EngineImage};
use crate::oci::Reference;
use crate::tars::Role;
use crate::tars::catalogue::{DATA_PATH, DEPLOY_PATH, IMAGE_ROLE_LABEL, TARS_PATH};
use crate::tars::rebuild::{DROPPED_SCHEMAS, REBUILD, UNQUOTED, is_allowed};

use super::container::{Mounts, clean, is_within};
use super::desired::{Desired, Service, Setting};

/// The image's own start.
pub const INIT_PATH: &str = "/usr/local/bin/tars-init";
/// Where MySQL and MariaDB keep their data unless `--datadir` says otherwise.
const MYSQL_DATA: &str = "/var/lib/mysql";

/// Makes a slave of a container of the framework's image: only exactly `true` does.
const SLAVE: &str = "SLAVE";

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
    /// Data that looks mounted, and is not: the image declares a volume below what is mounted.
    #[error(
        "`{service}` mounts {target}, and its image {image} declares a volume at {directory} below it: the data would \
         lie in an anonymous volume, and what the mount holds there would be hidden"
    )]
    Hidden {
        /// The service.
        service: String,
        /// The target that is mounted.
        target: String,
        /// The image.
        image: String,
        /// Where the data is looked for.
        directory: String,
        /// The line.
        place: Box<Place>,
    },
    /// `x-tars` says one thing, `SLAVE` another.
    #[error("`{service}` has the role {role}, and `SLAVE` makes it a {other}: {found}")]
    RoleAgainstSlave {
        /// The service.
        service: String,
        /// The declared role.
        role: Role,
        /// What the container would be.
        other: Role,
        /// What `SLAVE` is.
        found: String,
        /// The line.
        place: Box<Place>,
    },
    /// `x-tars` says one thing, the image another.
    #[error("`{service}` has the role {role}, and its image {image} is made for the role {found}")]
    RoleAgainstImage {
        /// The service.
        service: String,
        /// The declared role.
        role: Role,
        /// The image.
        image: String,
        /// What the image says.
        found: String,
        /// The line.
        place: Box<Place>,
    },
    /// An image of the framework without our start.
    #[error(
        "`{service}` has the role {role}, and its image {image} does not start with tars-init: upstream's start asks \
         the database nothing before it installs, and no gate could prove it"
    )]
    OtherStart {
        /// The service.
        service: String,
        /// The declared role.
        role: Role,
        /// The image.
        image: String,
        /// The line.
        place: Box<Place>,
    },
    /// Two parts of the framework on the host's own network.
    #[error(
        "`{first}` and `{second}` are both on the host's network and would claim the same ports: {ports}"
    )]
    SamePorts {
        /// The service.
        first: String,
        /// The other.
        second: String,
        /// The ports.
        ports: String,
        /// The line of the second.
        place: Box<Place>,
    },
    /// A port that the engine would bind, and a part of the framework on the host's network too.
    #[error(
        "`{publisher}` publishes {ports} on the host, where `{on_host}`, which is on the host's network, listens itself"
    )]
    PublishedPorts {
        /// The service that publishes.
        publisher: String,
        /// The service on the host's network.
        on_host: String,
        /// The ports.
        ports: String,
        /// The line.
        place: Box<Place>,
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
            Self::Hidden { target, directory, .. } => {
                format!("mount it at {directory} itself under `volumes`, not at {target}")
            }
            Self::RoleAgainstSlave { role: Role::Slave, .. } => {
                "set `SLAVE: \"true\"`, exactly so, or declare `x-tars: {role: master}`".to_owned()
            }
            Self::RoleAgainstSlave { .. } => {
                "set `SLAVE: \"false\"` or remove it, or declare `x-tars: {role: slave}`".to_owned()
            }
            Self::RoleAgainstImage { .. } => {
                "name the image of that role under `image`, or declare the role that the image has".to_owned()
            }
            Self::OtherStart { .. } => {
                "build an image with `tarsup build` (`role: framework` or `role: node` in its recipe), or leave the role \
                 off `x-tars`: tarsup then runs the image as it is, and proves nothing of it"
                    .to_owned()
            }
            Self::PublishedPorts { publisher, .. } => {
                format!("publish another port of the host under `ports` of `{publisher}`, or none")
            }
            Self::SamePorts { .. } => {
                "give one of them a network of its own with a fixed address, or run it on another host".to_owned()
            }
        })
    }

    fn place(&self) -> Option<Place> {
        match self {
            Self::Rebuild { setting, .. } => Some(setting.place.clone()),
            Self::Image { .. } | Self::Container { .. } => None,
            Self::Blank { place, .. } => place.clone(),
            Self::Replaced { place, .. } | Self::Unmounted { place, .. } => Some(place.clone()),
            Self::Hidden { place, .. }
            | Self::RoleAgainstSlave { place, .. }
            | Self::RoleAgainstImage { place, .. }
            | Self::OtherStart { place, .. }
            | Self::SamePorts { place, .. }
            | Self::PublishedPorts { place, .. } => Some(Place::clone(place)),
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
            Some(Role::Master | Role::Slave | Role::Node) => {
                check_start(service)?;
                check_slave(service, None)?;
            }
            Some(Role::Database) => check_data(service)?,
            None => {}
        }
    }
    check_host_network(desired)
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

/// The image is one for the service's role, and starts as it says; asked of what is to be started. `config` is the
/// engine's `Config` of the image, or of a container that was made from it.
pub fn check_image_role(
    service: &Service,
    labels: &BTreeMap<String, String>,
    config: &serde_json::Value,
) -> Result {
    let Some(role) = service.role else { return Ok(()) };
    // Labels go from an image to what is built on it, whatever that starts.
    let starts_with = config["Entrypoint"].get(0).and_then(serde_json::Value::as_str);
    let has_our_start = starts_with == Some(INIT_PATH);
    let found =
        labels.get(IMAGE_ROLE_LABEL).map(String::as_str).filter(|_| has_our_start || role == Role::Database);
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
    for target in Mounts::declared(&service.body).iter().map(|mount| &mount.target) {
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
    let value = match variable(service, SLAVE) {
        Variable::Set(value) => Some(value),
        Variable::Removed => None,
        Variable::Absent => match image {
            Some(image) => image.env.iter().rev().find_map(|entry| entry.strip_prefix("SLAVE=")),
            None => return Ok(()),
        },
    };
    let other = match (role, value) {
        (Role::Slave, Some("true")) | (Role::Master, None | Some("" | "false")) => return Ok(()),
        (Role::Slave, _) => Role::Master,
        _ => Role::Slave,
    };
    let found = match value {
        Some(value) => format!("it is {value:?}, and only exactly `true` makes a slave"),
        None => "it is not set".to_owned(),
    };
    let keys = &service.written.keys;
    let place = ["environment SLAVE", "environment"].iter().find_map(|key| keys.get(*key));
    let place = Box::new(place.unwrap_or(&service.place).clone());
    Err(GuardError::RoleAgainstSlave { service: service.name.clone(), role, other, found, place })
}

/// What a declaration says of a variable.
enum Variable<'a> {
    Set(&'a str),
    /// Named without a value: taken away from what the image brings.
    Removed,
    Absent,
}

fn variable<'a>(service: &'a Service, name: &str) -> Variable<'a> {
    let entries = service.body.0.get("Env").and_then(serde_json::Value::as_array);
    let mut entries = entries.into_iter().flatten().rev().filter_map(serde_json::Value::as_str);
    let found = entries.find_map(|entry| match entry.split_once('=') {
        Some((key, value)) if key == name => Some(Variable::Set(value)),
        None if entry == name => Some(Variable::Removed),
        _ => None,
    });
    found.unwrap_or(Variable::Absent)
}

/// On the host's network the ports are the host's: two parts of the framework would fight for them, and the first to
/// come would answer for both.
fn check_host_network(desired: &Desired) -> Result {
    let on_host = desired.services.iter().filter_map(|service| Some((service, service.role?)));
    let on_host: Vec<_> = on_host.filter(|(service, _)| is_on_host_network(service)).collect();
    for (at, (second, role)) in on_host.iter().enumerate() {
        for (first, other) in &on_host[..at] {
            let shared: Vec<String> =
                role.ports().intersection(&other.ports()).map(ToString::to_string).collect();
            if !shared.is_empty() {
                return Err(GuardError::SamePorts {
                    first: first.name.clone(),
                    second: second.name.clone(),
                    ports: shared.join(", "),
                    place: Box::new(second.written.keys.get("network_mode").unwrap_or(&second.place).clone()),
                });
            }
        }
        // The engine's proxy would be there first, or the framework would: either way one of them does not come up.
        for publisher in desired.services.iter().filter(|publisher| publisher.name != second.name) {
            let ports: Vec<String> =
                role.ports().intersection(&published(publisher)).map(ToString::to_string).collect();
            if !is_on_host_network(publisher) && !ports.is_empty() {
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

/// The TCP ports of the host that the engine binds for a service.
fn published(service: &Service) -> BTreeSet<u16> {
    let host = service.body.0.get("HostConfig");
    let bindings = host.and_then(|host| host["PortBindings"].as_object()).into_iter().flatten();
    let tcp = bindings.filter(|(port, _)| !port.ends_with("/udp") && !port.ends_with("/sctp"));
    tcp.flat_map(|(_, hosts)| hosts.as_array().into_iter().flatten())
        .filter_map(|host| host["HostPort"].as_str()?.parse().ok())
        .collect()
}

fn is_on_host_network(service: &Service) -> bool {
    service.body.0.get("HostConfig").is_some_and(|host| host["NetworkMode"] == "host")
}

/// The data directory of a database is on something that outlives the container.
fn check_data(service: &Service) -> Result {
    let directory = data_directory(service);
    if Mounts::declared(&service.body).source_of(&directory).is_lasting() {
        return Ok(());
    }
    let place = mount_place(service, &directory);
    Err(GuardError::Unmounted { service: service.name.clone(), directory, place })
}

/// The engine makes an anonymous volume at each path that an image declares, also below what is mounted.
fn check_hidden(service: &Service, image: &EngineImage, directory: &str) -> Result {
    let declared = Mounts::declared(&service.body);
    let Some(mount) = declared.covering(directory) else { return Ok(()) };
    let real = declared.clone().with_image(image).source_of(directory);
    if !declared.source_of(directory).is_lasting() || real.is_lasting() {
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
            && !Mounts::declared(&service.body).source_of(DATA_PATH).is_lasting()
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
pub fn may_change_its_name(service: &Service) -> bool {
    let fixed = |endpoint: &serde_json::Value| {
        endpoint["IPAMConfig"]["IPv4Address"].as_str().is_some_and(|address| !address.is_empty())
    };
    let first = service.body.0.get("NetworkingConfig").map(|config| &config["EndpointsConfig"]);
    let first = first.and_then(serde_json::Value::as_object).into_iter().flatten();
    let named = ["DOMAIN", "TARS_DOMAIN"]
        .iter()
        .any(|name| matches!(variable(service, name), Variable::Set(value) if !value.is_empty()));
    matches!(service.role, Some(Role::Master | Role::Slave | Role::Node))
        && !named
        && !is_on_host_network(service)
        && !first.map(|(_, endpoint)| endpoint).any(fixed)
        && !service.connect.iter().any(|(_, endpoint)| fixed(endpoint))
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
}
