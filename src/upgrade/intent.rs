//! What a command asks for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::DeployId;
use crate::deploy::Desired;
use crate::deploy::desired::Service;
use crate::oci::Reference;
use crate::tars::Role;

/// What a command asks for, with everything that the planner needs to know beside the two states.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "intent", rename_all = "kebab-case")]
pub enum Intent {
    /// Make the engine match the files.
    Up,
    /// Run these services with these images; the others are left alone.
    Upgrade {
        /// Service → image.
        images: BTreeMap<String, Reference>,
    },
    /// Stop and start the same containers, one after the other.
    Restart {
        /// The services; none: all but the database.
        services: Vec<String>,
        /// An image of ours in which a container without tars-init, which has nobody inside to ask, is asked from outside.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ask_with: Option<Reference>,
    },
    /// Bring parked containers back.
    Rollback {
        /// The state as this deploy left it; `None`: as it was before the last deploy that parked something.
        to: Option<DeployId>,
        /// Service → id of the parked container that comes back: [`super::rollback::targets`].
        targets: BTreeMap<String, String>,
    },
    /// Stop and park.
    Down {
        /// The database too.
        all: bool,
    },
    /// Remove what nobody needs any more.
    Prune {
        /// How many parked containers and versions stay; `None`: as many as the file says.
        keep: Option<usize>,
        /// The last containers and images of somebody else's making too.
        #[serde(default)]
        foreign: bool,
    },
    /// `migrate --finish`: take out what concerns all nodes, once all have moved.
    Finish,
}

/// True for the services whose image tarsup manages.
pub fn is_framework(service: &Service) -> bool {
    matches!(service.role, Some(Role::Master | Role::Slave | Role::Node))
}

impl Intent {
    /// `upgrade`: the framework's services as declared, or with the tag `version`; not those that are held.
    pub fn upgrade(desired: &Desired, version: Option<&str>) -> Self {
        let services =
            desired.services.iter().filter(|service| is_framework(service) && !service.written.hold);
        let image = |service: &Service| {
            version.map_or_else(|| service.image.clone(), |version| service.image.with_tag(version))
        };
        Self::Upgrade { images: services.map(|service| (service.name.clone(), image(service))).collect() }
    }

    /// `upgrade --image`: the services of the same repository that are not held. Empty where no service has it.
    pub fn upgrade_image(desired: &Desired, image: &Reference) -> Self {
        let services = desired
            .services
            .iter()
            .filter(|service| service.role != Some(Role::Database) && !service.written.hold)
            .filter(|service| service.image.same_repository(image));
        Self::Upgrade { images: services.map(|service| (service.name.clone(), image.clone())).collect() }
    }

    /// The desired state with the images that this intent names. Applying it twice changes nothing.
    #[must_use]
    pub fn apply(&self, desired: &Desired) -> Desired {
        let mut desired = desired.clone();
        if let Self::Upgrade { images } = self {
            for service in &mut desired.services {
                if let Some(image) = images.get(&service.name) {
                    service.image = image.clone();
                }
            }
        }
        desired
    }

    /// The image that a command names to ask with.
    pub fn ask_with(&self) -> Option<&Reference> {
        match self {
            Self::Restart { ask_with, .. } => ask_with.as_ref(),
            _ => None,
        }
    }

    /// True where a container of this service may be made.
    pub fn makes(&self, service: &Service) -> bool {
        match self {
            Self::Up => true,
            Self::Upgrade { images } => images.contains_key(&service.name),
            Self::Restart { .. }
            | Self::Rollback { .. }
            | Self::Down { .. }
            | Self::Prune { .. }
            | Self::Finish => false,
        }
    }

    /// The command's word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Upgrade { .. } => "upgrade",
            Self::Restart { .. } => "restart",
            Self::Rollback { .. } => "rollback",
            Self::Down { .. } => "down",
            Self::Prune { .. } => "prune",
            Self::Finish => "migrate --finish",
        }
    }
}
