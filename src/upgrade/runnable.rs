//! Whether the image that a container is replaced by, on the way back too, can run what is deployed in it: asked before anything is stopped, in a
//! container of that image beside it, which reads the volumes and cannot write them.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use serde::Deserialize;
use serde_json::{Value, json};

use super::body::{self, ProbeSettings};
use super::cluster_probe::{check, close, has_account, image_of};
use super::gate::Cluster;
use super::intent::is_framework;
use super::names::{Part, part_of, preview_name};
use super::preflight::names_in_database;
use super::run::Runner;
use super::state::{is_up, serving};
use super::step::{Action, Purpose, Step, TwinOf};
use super::{DeployId, Refusal, inside};
use crate::deploy::desired::Service;
use crate::deploy::mounts::{MountSource, Mounts};
use crate::deploy::observed::{Availability, LABEL_CLUSTER, LABEL_DEPLOYMENT};
use crate::deploy::services::Services;
use crate::deploy::{Desired, Observed};
use crate::engine::{Container, Engine, EngineError, Environment};
use crate::oci::Reference;
use crate::tars::Instance;

/// How long one answer may take: a loader reads each program.
const TIMEOUT: Duration = Duration::from_mins(1);
/// How many servers are asked about at a time: their names are an argument of a command.
const SERVERS: usize = 200;
/// How many containers are asked at a time.
const AT_ONCE: usize = 4;

/// What was told.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// What cannot run.
    pub refusals: Vec<Refusal>,
    /// What is not known.
    pub notes: Vec<String>,
}

/// A container that is to be replaced, and by what.
struct Replaced<'a> {
    service: &'a Service,
    container: &'a Container,
    successor: Successor<'a>,
    servers: Vec<&'a Instance>,
}

/// What takes a container's place.
#[derive(Clone)]
struct Successor<'a> {
    /// Its image, by name.
    image: String,
    /// Its image, by id.
    id: &'a str,
    /// The parked container that it is; `None`: it is made, as it is declared.
    parked: Option<&'a Container>,
}

/// What `tars-init runnable` prints.
#[derive(Debug, Deserialize)]
struct Report {
    findings: Vec<Finding>,
}

#[derive(Debug, Deserialize)]
struct Finding {
    server: String,
    why: String,
}

/// Asks for each container of the framework that these steps replace by an image that the engine has. `loaded` are the ids of those
/// that were loaded since the plan was made.
pub(super) async fn ask(
    engine: &dyn Engine,
    desired: &Desired,
    observed: &Observed,
    deploy: &DeployId,
    steps: &[Step],
    loaded: &BTreeMap<Reference, String>,
    services: &Services,
) -> Told {
    let replaced = replaced(desired, observed, steps, loaded, services);
    let asked = stream::iter(replaced).map(|one| async move {
        let name = format!("{}.{}", preview_name(&desired.deployment, deploy), one.service.name);
        let told = ask_one(engine, desired, &one, &name).await;
        let closed = close(engine, &desired.deployment, &name).await;
        (one, told, closed.err().map(|error| format!("{name} is not removed: {error}")))
    });
    let mut asked: Vec<_> = asked.buffer_unordered(AT_ONCE).collect().await;
    asked.sort_by(|(one, ..), (other, ..)| one.service.name.cmp(&other.service.name));
    let mut all = Told::default();
    for (one, told, left) in asked {
        all.notes.extend(left);
        match told {
            Ok(findings) => all.refusals.extend(findings.into_iter().map(|finding| Refusal::NotRunnable {
                service: one.service.name.clone(),
                image: one.successor.image.clone(),
                server: finding.server,
                why: finding.why,
                place: Box::new(one.service.place.clone()),
            })),
            Err(why) => all.notes.push(format!(
                "`{}`: whether {} can run what is deployed there is not known: {why}",
                one.service.name, one.successor.image
            )),
        }
    }
    all
}

/// The same for what was loaded after a person said yes, before the first step: the database is asked once more what is deployed.
pub(super) async fn of_loaded(runner: &mut Runner<'_>, observed: &Observed, steps: &[Step]) -> Told {
    let makes = |step: &Step| matches!(&step.action, Action::Create { image, .. } if runner.loaded.contains_key(image));
    if !steps.iter().any(makes) || !has_account(runner.desired) {
        return Told::default();
    }
    match runner.cluster_probe.ask_facts(runner.engine, runner.desired).await {
        Ok(Cluster { facts: Some(facts), .. }) => {
            let (deploy, loaded) = (runner.deploy.clone(), runner.loaded.clone());
            ask(runner.engine, runner.desired, observed, &deploy, steps, &loaded, &facts.services).await
        }
        // The plan has said already that nothing is known of the cluster.
        _ => Told::default(),
    }
}

impl Told {
    /// What is not known, where nothing stands in the way.
    pub fn or_refused(self) -> Result<Vec<String>, Refusal> {
        Refusal::together(self.refusals)?;
        Ok(self.notes)
    }
}

fn replaced<'a>(
    desired: &'a Desired,
    observed: &'a Observed,
    steps: &'a [Step],
    loaded: &'a BTreeMap<Reference, String>,
    services: &'a Services,
) -> Vec<Replaced<'a>> {
    let of = |step: &'a Step| {
        let service = desired.service(step.service.as_deref()?).filter(|service| is_framework(service))?;
        let successor = successor(observed, service, &step.action, loaded)?;
        let container = serving(observed, &desired.deployment, service).filter(|found| is_up(found))?;
        let nodes = names_in_database(service);
        let servers: Vec<&Instance> = services
            .instances
            .iter()
            .filter(|one| nodes.contains(&one.node) && !one.is_framework())
            .filter(|one| one.setting && one.present && one.run_type != "container")
            .collect();
        (!servers.is_empty()).then_some(Replaced { service, container, successor, servers })
    };
    steps.iter().filter_map(of).collect()
}

/// What a step puts in the place of a service's container: one that is made, or made once more, or one that was parked and comes back.
fn successor<'a>(
    observed: &'a Observed,
    service: &Service,
    action: &'a Action,
    loaded: &'a BTreeMap<Reference, String>,
) -> Option<Successor<'a>> {
    match action {
        Action::Create { image, image_id, purpose: Purpose::Serve, twin, .. }
            if !matches!(twin, Some(TwinOf::Container(_))) =>
        {
            let is_there = |_: &&String| {
                twin.is_some()
                    || matches!(observed.images.get(&image.to_string()), Some(Availability::Engine(_)))
            };
            let id = loaded.get(image).or(image_id.as_ref().filter(is_there))?;
            Some(Successor { image: image.to_string(), id, parked: None })
        }
        Action::Rename { container, to } if *to == service.container => {
            let parked = observed.container(container).filter(|found| is_kept(&found.name))?;
            Some(Successor { image: parked.image.clone(), id: &parked.image_id, parked: Some(parked) })
        }
        _ => None,
    }
}

/// True for the name of a container that was parked.
fn is_kept(name: &str) -> bool {
    matches!(part_of(name), Part::Old(_))
}

async fn ask_one(
    engine: &dyn Engine,
    desired: &Desired,
    one: &Replaced<'_>,
    name: &str,
) -> Result<Vec<Finding>, String> {
    close(engine, &desired.deployment, name).await.map_err(|error| error.to_string())?;
    make(engine, desired, one, name).await.map_err(|error| error.to_string())?;
    let mut findings = Vec::new();
    for servers in one.servers.chunks(SERVERS) {
        let servers: Vec<Value> = servers.iter().map(|server| order(server)).collect();
        let order = json!({"servers": servers}).to_string();
        let report: Report = inside::ask(engine, name, &["runnable", &order], TIMEOUT).await?;
        findings.extend(report.findings);
    }
    Ok(findings)
}

fn order(server: &Instance) -> Value {
    json!({
        "server": server.server, "base_path": server.base_path, "exe_path": server.exe_path, "type": server.kind,
        "scripted": server.scripted,
    })
}

/// A container of the new image that waits: on no network, with what the one of before mounts, read-only.
async fn make(
    engine: &dyn Engine,
    desired: &Desired,
    one: &Replaced<'_>,
    name: &str,
) -> Result<(), EngineError> {
    let id = one.successor.id;
    let image = image_of(engine, id).await?;
    let making = ProbeSettings {
        image: id,
        command: &body::SERVE,
        image_volumes: &body::image_volumes(&image.raw),
        labels: &[
            (LABEL_CLUSTER, desired.deployment.as_str()),
            (LABEL_DEPLOYMENT, desired.deployment.as_str()),
        ],
        variables: &Environment::default(),
    };
    let mounts = match one.successor.parked {
        Some(parked) => Mounts::of_container(parked),
        None => one.service.declaration.mounts().with_image(&image),
    };
    let body = body::reader(one.service, &making, readable(&mounts, &Mounts::of_container(one.container)));
    check(name, &body)?;
    engine.create_container(name, &body).await?;
    engine.start_container(name).await
}

/// What the successor will have of what the container mounts now: that lies there already, so nothing is made by mounting it.
fn readable(declared: &Mounts, mounted: &Mounts) -> Vec<Value> {
    let stays = mounted.iter().filter(|mount| declared.iter().any(|other| other.target == mount.target));
    stays
        .filter_map(|mount| {
            let mut body = match &mount.source {
                // Who only reads needs no engine.
                MountSource::Bind(source)
                    if Path::new(source).extension().is_some_and(|kind| kind == "sock") =>
                {
                    return None;
                }
                MountSource::Bind(source) => json!({"Type": "bind", "Source": source}),
                MountSource::Volume { name, subpath } if subpath.is_empty() => {
                    json!({"Type": "volume", "Source": name})
                }
                MountSource::Volume { name, subpath } => {
                    json!({"Type": "volume", "Source": name, "VolumeOptions": {"Subpath": subpath}})
                }
                MountSource::Anonymous(Some(name)) => json!({"Type": "volume", "Source": name}),
                MountSource::Anonymous(None) | MountSource::Tmpfs => return None,
            };
            body["Target"] = json!(mount.target);
            body["ReadOnly"] = json!(true);
            Some(body)
        })
        .collect()
}
