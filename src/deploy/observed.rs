//! The observed state: what the engine holds of a deployment, read once per command.

use std::collections::{BTreeMap, BTreeSet};

use super::contents::Contents;
use super::facts::Facts;
use super::twin::Twin;
use crate::engine::{Container, EngineImage, EngineInfo, ImageSummary, Network};

/// The label that names the deployment; on every container made here, the lock among them.
pub const LABEL_DEPLOYMENT: &str = "io.tarsup.deployment";
/// The label that names the compose service.
pub const LABEL_SERVICE: &str = "io.tarsup.service";
/// The label that names the role.
pub const LABEL_ROLE: &str = "io.tarsup.role";
/// The label that names the deploy that made the container.
pub const LABEL_DEPLOY: &str = "io.tarsup.deploy";
/// The label that holds the hash of the create body.
pub const LABEL_SPEC: &str = "io.tarsup.spec";
/// The label that holds the id of the container it replaces.
pub const LABEL_PREDECESSOR: &str = "io.tarsup.predecessor";

/// The label that holds the declared restart policy as JSON: a parked container has `no`, and gets this one back.
pub const LABEL_RESTART: &str = "io.tarsup.restart";
/// The label that holds the outline of the record of the deploy that made the container.
pub const LABEL_RECORD: &str = "io.tarsup.record";
/// On the container in which the database is asked: the deployment.
pub const LABEL_CLUSTER: &str = "io.tarsup.cluster";
/// On a container that goes on with what it has of another one (a namespace, a link), which no list tells.
pub const LABEL_LEANS: &str = "io.tarsup.leans";
/// On a container that was made once more from what another one was: the id of that one.
pub const LABEL_TWIN: &str = "io.tarsup.twin";
/// The label by which compose knows the containers and networks of a project: nothing takes it from a container.
pub const LABEL_COMPOSE_PROJECT: &str = "com.docker.compose.project";
/// The label of a deployment's lock (and of no other): the deploy that holds it.
pub const LABEL_LOCK: &str = "io.tarsup.lock";

/// What is there. Plain data: the planner reads nothing else.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The engine.
    pub engine: EngineInfo,
    /// Every container that bears the deployment's label, and every one that bears a name the deployment wants.
    pub containers: Vec<Container>,
    /// Where the images are that the desired state names, by reference, and those that the containers were made from, by id.
    pub images: BTreeMap<String, Availability>,
    /// The networks that the desired state names.
    pub networks: BTreeMap<String, Option<Network>>,
    /// The volumes that the desired state names: their labels.
    pub volumes: BTreeMap<String, Option<BTreeMap<String, String>>>,
    /// What containers were that earlier deploys parked, by the name that they had then: read for a rollback alone. Their
    /// images are among `images`, by id.
    pub kept: BTreeMap<String, Twin>,
    /// The engine's images of a framework with tars-init, by id, newest first, whosever they are: one of them can ask from outside
    /// how a container is that has nobody inside.
    pub askers: Vec<String>,
    /// What the engine holds beyond the deployment: read for a prune alone.
    pub shelf: Option<Shelf>,
    /// What the containers hold that were looked into, by id: those that a plan would stop ([`super::observe::look_into`]).
    pub contents: BTreeMap<String, Contents>,
    /// Containers whose namespaces services share by the files, and that are no service's: how the file names each → id.
    pub leaders: BTreeMap<String, String>,
    /// What was asked beyond the engine's lists, where a plan is made for a person.
    pub facts: Facts,
}

/// Everything that an engine holds, as far as a prune is concerned.
#[derive(Clone, Debug, Default)]
pub struct Shelf {
    /// All images.
    pub images: Vec<ImageSummary>,
    /// All containers, whoever made them: name → id of the image.
    pub containers: BTreeMap<String, String>,
    /// The images that `tarsup.lock` names; `None` where it cannot be read.
    pub pinned: Option<BTreeSet<String>>,
}

/// Where an image is.
#[derive(Clone, Debug)]
pub enum Availability {
    /// The engine has it.
    Engine(EngineImage),
    /// The engine lacks it, the local store has it: what the engine will say of it once it is loaded. Its id is empty
    /// where only the engine can tell it.
    Store(EngineImage),
    /// A registry has it, under its pinned digest.
    Registry,
    /// Nobody has it.
    Absent,
}

impl Availability {
    /// The image as the engine shows it, or will.
    pub fn image(&self) -> Option<&EngineImage> {
        match self {
            Self::Engine(image) | Self::Store(image) => Some(image),
            Self::Registry | Self::Absent => None,
        }
    }
}

impl Observed {
    /// The image of that reference or id, as the engine shows it or will once it is loaded.
    pub fn image(&self, name: &str) -> Option<&EngineImage> {
        self.images.get(name)?.image()
    }

    /// The images that the engine has.
    pub fn engine_images(&self) -> impl Iterator<Item = &EngineImage> {
        self.images.values().filter_map(|availability| match availability {
            Availability::Engine(image) => Some(image),
            _ => None,
        })
    }

    /// The container of that name.
    pub fn container(&self, name: &str) -> Option<&Container> {
        self.containers.iter().find(|container| container.name == name)
    }
}
