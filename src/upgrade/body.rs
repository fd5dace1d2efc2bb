//! The create bodies that an executor sends: the declared one with tarsup's labels, and that of a migration run.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::DeployId;
use super::step::Purpose;
use crate::deploy::container::clean;
use crate::deploy::desired::Service;
use crate::deploy::observed::{
    LABEL_DEPLOY, LABEL_DEPLOYMENT, LABEL_PREDECESSOR, LABEL_RECORD, LABEL_RESTART, LABEL_ROLE,
    LABEL_SERVICE, LABEL_SPEC,
};
use crate::engine::CreateBody;

/// How the image's own start is replaced by one run of the migration.
const MIGRATE: [&str; 2] = ["/usr/local/bin/tars-init", "migrate"];

/// How it is replaced by the wait of the container in which the database is asked.
const SERVE: [&str; 3] = ["/usr/local/bin/tars-init", "cluster", "--serve"];

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
}

/// The body of `POST /containers/create`. `image_volumes` are the paths that the image declares as volumes.
pub fn create_body(service: &Service, making: &Making, image_volumes: &[String]) -> CreateBody {
    let mut body = service.body.clone();
    body.0.insert("Image".to_owned(), json!(service.image.to_string()));
    if making.purpose == Purpose::Migrate {
        as_one_off(&mut body.0, &MIGRATE, image_volumes);
    }
    let host = object(body.0.entry("HostConfig"));
    host.insert("RestartPolicy".to_owned(), json!({"Name": "no", "MaximumRetryCount": 0}));
    for volume in making.volumes {
        hand_on(host, volume);
    }
    let labels = object(body.0.entry("Labels"));
    for (key, value) in labels_of(service, making) {
        labels.insert(key.to_owned(), json!(value));
    }
    body
}

/// Mounts an anonymous volume of the predecessor, `volume:path`, where the declaration would have a new one made: the
/// engine refuses two mounts on one path.
fn hand_on(host: &mut Map<String, Value>, volume: &str) {
    let Some((name, target)) = volume.split_once(':') else { return };
    let mounts = host.get_mut("Mounts").and_then(Value::as_array_mut).into_iter().flatten();
    for mount in mounts {
        if mount["Target"].as_str().map(clean).as_deref() == Some(target) {
            mount["Source"] = json!(name);
            return;
        }
    }
    if let Value::Array(binds) = host.entry("Binds").or_insert_with(|| json!([])) {
        binds.retain(|bind| bind.as_str().map(clean).as_deref() != Some(target));
        binds.push(json!(volume));
    }
}

/// What the container in which the database is asked has of its own.
#[derive(Clone, Copy, Debug)]
pub struct ProbeSettings<'a> {
    /// Its image, by name or id.
    pub image: &'a str,
    /// The paths that the image declares as volumes.
    pub image_volumes: &'a [String],
    /// Its labels, and no other.
    pub labels: &'a [(&'a str, &'a str)],
    /// Variables beside those of the service, as `NAME=value`.
    pub variables: &'a [String],
}

/// The body of the container in which the database is asked: it serves nothing, and starts nothing again.
pub fn cluster_probe(service: &Service, making: &ProbeSettings<'_>) -> CreateBody {
    let mut body = service.body.clone();
    body.0.insert("Image".to_owned(), json!(making.image));
    as_one_off(&mut body.0, &SERVE, making.image_volumes);
    let restart = json!({"Name": "no", "MaximumRetryCount": 0});
    object(body.0.entry("HostConfig")).insert("RestartPolicy".to_owned(), restart);
    body.0.insert(
        "Labels".to_owned(),
        making.labels.iter().copied().collect::<BTreeMap<_, _>>().into_iter().collect(),
    );
    if let Value::Array(env) = body.0.entry("Env").or_insert_with(|| json!([])) {
        env.extend(making.variables.iter().map(|variable| json!(variable)));
    }
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
        if let Some(record) = making.record {
            labels.insert(LABEL_RECORD, record.to_owned());
        }
        if let Some(predecessor) = making.predecessor {
            labels.insert(LABEL_PREDECESSOR, predecessor.to_owned());
        }
    }
    labels
}

/// One run beside the service: its image, environment and network, but not its address, ports, names or volumes.
fn as_one_off(body: &mut Map<String, Value>, command: &[&str], image_volumes: &[String]) {
    for key in ["Hostname", "Domainname", "MacAddress", "ExposedPorts", "Volumes", "Cmd"] {
        body.remove(key);
    }
    body.insert("Entrypoint".to_owned(), json!(command));
    body.insert("Healthcheck".to_owned(), json!({"Test": ["NONE"]}));
    let host = object(body.entry("HostConfig"));
    for key in ["PortBindings", "PublishAllPorts", "Binds", "VolumesFrom", "Mounts"] {
        host.remove(key);
    }
    host.insert("Mounts".to_owned(), scratch_mounts(image_volumes));
    let config = object(body.entry("NetworkingConfig"));
    if let Some(endpoints) = config.get_mut("EndpointsConfig").and_then(Value::as_object_mut) {
        endpoints.values_mut().for_each(|endpoint| *endpoint = json!({}));
    }
}

/// Memory at the image's volume paths: the engine would otherwise make an anonymous volume for each, and leave it.
pub fn scratch_mounts(image_volumes: &[String]) -> Value {
    image_volumes.iter().map(|path| json!({"Type": "tmpfs", "Target": path})).collect()
}

/// The paths that an image declares as volumes, as it writes them.
pub fn image_volumes(image: &Value) -> Vec<String> {
    let volumes = image.pointer("/Config/Volumes").and_then(Value::as_object);
    volumes.into_iter().flat_map(Map::keys).cloned().collect()
}

/// The object at an entry, made where there is none.
fn object(entry: serde_json::map::Entry<'_>) -> &mut Map<String, Value> {
    let value = entry.or_insert_with(|| json!({}));
    if !value.is_object() {
        *value = json!({});
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("made an object above"),
    }
}
