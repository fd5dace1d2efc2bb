//! What the guard refuses, each with its line and the way out.

use crate::deploy::desired::Setting;
use crate::diagnose::{Diagnose, Exit, Place};
use crate::secretive::Secretive;
use crate::tars::Role;
use crate::tars::rebuild::{DROPPED_SCHEMAS, is_switch};

/// What the guard refuses.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// A forbidden `REBUILD` in the files.
    #[error("`REBUILD` is {} for the service `{service}`{}: {}", switch(&setting.value), through(setting), consequence(&setting.value))]
    Rebuild {
        /// The service.
        service: String,
        /// The value and its place.
        setting: Setting,
    },
    /// A forbidden `REBUILD` in an image's own environment.
    #[error(
        "the image {image} has `REBUILD` {} in its own environment: {}",
        switch(value),
        consequence(value)
    )]
    Image {
        /// The image.
        image: String,
        /// The value.
        value: Secretive,
    },
    /// A forbidden `REBUILD` in a container that would be started again, or in a create body.
    #[error("the container {container} has `REBUILD` {}: {}", switch(value), consequence(value))]
    Container {
        /// The container's name.
        container: String,
        /// The value.
        value: Secretive,
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
    /// Two parts of the framework on one network, the host's or that of a container.
    #[error("`{first}` and `{second}` are both on {network} and would claim the same ports: {ports}")]
    SamePorts {
        /// Whose network it is.
        network: String,
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

/// The value of a switch as a message may show it.
pub fn switch(value: &Secretive) -> String {
    if is_switch(value.expose()) { format!("{:?}", value.expose()) } else { value.to_string() }
}

/// What a value would do, in upstream's start.
fn consequence(value: &Secretive) -> String {
    let schemas = DROPPED_SCHEMAS.join(", ");
    // Upstream's shell reads it by an unquoted echo: blanks and echo's options fall off.
    let read = value
        .expose()
        .split_whitespace()
        .skip_while(|word| matches!(*word, "-n" | "-e" | "-ne" | "-en" | "-E"));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_upstream_reads_as_true_are_told_from_the_rest() {
        for value in ["true", " true", "true\n", "-n true", "-e true"] {
            assert!(consequence(&value.into()).contains("would drop db_tars,"), "{value:?}");
        }
        for value in ["TRUE", "1", "yes", "\"true\"", "False"] {
            assert!(consequence(&value.into()).contains("only unset"), "{value:?}");
        }
    }
}
