//! The create bodies that an executor sends: the declared one with tarsup's labels, and that of a migration run.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::DeployId;
use super::step::Purpose;
use crate::deploy::container::{Declaration, NetworkMode};
use crate::deploy::desired::Service;
use crate::deploy::observed::{
    LABEL_DEPLOY, LABEL_DEPLOYMENT, LABEL_LEANS, LABEL_PREDECESSOR, LABEL_RECORD, LABEL_RESTART, LABEL_ROLE,
    LABEL_SERVICE, LABEL_SPEC,
};
use crate::engine::{CreateBody, Environment, object};
use crate::tars::catalogue::INIT_PATH;

/// How the image's own start is replaced by one run of the migration.
const MIGRATE: [&str; 2] = [INIT_PATH, "migrate"];

/// The same for what concerns all nodes.
const FINISH: [&str; 3] = [INIT_PATH, "migrate", "--finish"];

/// The same for what a web console that nobody can hold back may drop.
const KEEP: [&str; 3] = [INIT_PATH, "keep-columns", "--all"];

/// How it is told to put out first what it is about to change, and to wait for the word that it is kept.
const SAVE: &str = "TARSUP_SAVE=stdin";

/// How it is replaced by the wait of the container in which the database is asked.
pub(super) const SERVE: [&str; 3] = [INIT_PATH, "cluster", "--serve"];

/// What a create step says beside the service.
#[derive(Clone, Copy, Debug)]
pub struct Making<'a> {
    /// The deployment.
    pub deployment: &'a str,
    /// The deploy.
    pub deploy: &'a DeployId,
    /// What it runs.
    pub purpose: Purpose,
    /// The id of the container that it replaces.
    pub predecessor: Option<&'a str>,
    /// Anonymous volumes that it goes on with, as `volume:path`.
    pub volumes: &'a [String],
    /// The outline of the deploy's record, where it fits into a label.
    pub record: Option<&'a str>,
    /// Of a migration: what its record says of the image.
    pub image: Option<&'a str>,
    /// Of a migration: the older versions that may run on what it leaves.
    pub way_back: &'a [String],
}

/// The body of `POST /containers/create`. `image_volumes` are the paths that the image declares as volumes.
pub fn create_body(service: &Service, making: &Making, image_volumes: &[String]) -> CreateBody {
    let mut declaration = service.declaration.clone();
    if making.purpose.is_one_off() {
        let command = match making.purpose {
            Purpose::Finish => &FINISH[..],
            Purpose::Keep => &KEEP,
            Purpose::Migrate | Purpose::Serve => &MIGRATE,
        };
        declaration = declaration.into_one_off(command, image_volumes);
        let mut variables = Vec::new();
        if making.purpose != Purpose::Keep {
            variables.push(SAVE.to_owned());
        }
        variables.extend(making.image.map(|image| format!("TARSUP_IMAGE={image}")));
        if !making.way_back.is_empty() {
            variables.push(format!("TARSUP_WAY_BACK={}", making.way_back.join(",")));
        }
        declaration.environment.0.extend(Environment::of(variables).0);
    }
    for volume in making.volumes {
        declaration.mounts.hand_on(volume);
    }
    let mut body = rendered(&declaration, &service.image.to_string());
    if making.purpose.is_one_off() {
        // What it saves comes over its output, and belongs into no log of the engine's.
        for key in ["OpenStdin", "StdinOnce", "AttachStdin"] {
            body.0.insert(key.to_owned(), json!(true));
        }
        body.0.insert("Tty".to_owned(), json!(false));
        object(body.0.entry("HostConfig")).insert("LogConfig".to_owned(), json!({"Type": "none"}));
    }
    let labels = object(body.0.entry("Labels"));
    for (key, value) in labels_of(service, making) {
        labels.insert(key.to_owned(), json!(value));
    }
    body
}

/// The body of a container that is not started again by the engine: none is before it is proven.
fn rendered(declaration: &Declaration, image: &str) -> CreateBody {
    let mut body = declaration.render();
    body.0.insert("Image".to_owned(), json!(image));
    let restart = json!({"Name": "no", "MaximumRetryCount": 0});
    object(body.0.entry("HostConfig")).insert("RestartPolicy".to_owned(), restart);
    body
}

/// What the container in which the database is asked has of its own.
#[derive(Clone, Copy, Debug)]
pub struct ProbeSettings<'a> {
    /// Its image, by name or id.
    pub image: &'a str,
    /// What it runs: it waits.
    pub command: &'a [&'a str],
    /// The paths that the image declares as volumes.
    pub image_volumes: &'a [String],
    /// Its labels, and no other.
    pub labels: &'a [(&'a str, &'a str)],
    /// Variables beside those of the service.
    pub variables: &'a Environment,
}

/// The body of the container in which the database is asked: it serves nothing, and starts nothing again.
pub fn cluster_probe(service: &Service, making: &ProbeSettings<'_>) -> CreateBody {
    let mut declaration = service.declaration.clone().into_one_off(making.command, making.image_volumes);
    declaration.environment.0.extend(making.variables.0.clone());
    let mut body = rendered(&declaration, making.image);
    let labels = making.labels.iter().copied().collect::<BTreeMap<_, _>>().into_iter().collect();
    body.0.insert("Labels".to_owned(), labels);
    body
}

/// The body of a container that looks at what a service has: like the one above, on no network, with these mounts and no other.
pub fn reader(service: &Service, making: &ProbeSettings<'_>, mounts: Vec<Value>) -> CreateBody {
    let mut declaration = service.declaration.clone().into_one_off(making.command, making.image_volumes);
    let is_free = |mount: &Value| {
        mount["Type"] == "tmpfs" && !mounts.iter().any(|other| other["Target"] == mount["Target"])
    };
    declaration.mounts.mounts.retain(is_free);
    declaration.mounts.mounts.extend(mounts);
    declaration.network = Some(NetworkMode::None);
    declaration.endpoints.clear();
    let mut body = rendered(&declaration, making.image);
    let labels = making.labels.iter().copied().collect::<BTreeMap<_, _>>().into_iter().collect();
    body.0.insert("Labels".to_owned(), labels);
    body
}

fn labels_of(service: &Service, making: &Making) -> BTreeMap<&'static str, String> {
    let mut labels = BTreeMap::from([
        (LABEL_DEPLOYMENT, making.deployment.to_owned()),
        (LABEL_DEPLOY, making.deploy.to_string()),
    ]);
    // A migration run is no container of the service: nothing may take it for one.
    if making.purpose == Purpose::Serve {
        labels.insert(LABEL_SERVICE, service.name.clone());
        labels.insert(LABEL_SPEC, service.spec_label());
        labels.insert(LABEL_RESTART, serde_json::to_string(&service.restart).unwrap_or_default());
        if let Some(role) = service.role {
            labels.insert(LABEL_ROLE, role.name().to_owned());
        }
        if service.declaration.shares().next().is_some() {
            labels.insert(LABEL_LEANS, "true".to_owned());
        }
        if let Some(record) = making.record {
            labels.insert(LABEL_RECORD, record.to_owned());
        }
        if let Some(predecessor) = making.predecessor {
            labels.insert(LABEL_PREDECESSOR, predecessor.to_owned());
        }
    }
    labels
}

/// The paths that an image declares as volumes, as it writes them.
pub fn image_volumes(image: &Value) -> Vec<String> {
    let volumes = image.pointer("/Config/Volumes").and_then(Value::as_object);
    volumes.into_iter().flat_map(Map::keys).cloned().collect()
}
