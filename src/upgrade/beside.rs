//! Servers that run beside their node: tarsnode starts each in a container of its own, named like the server, through the engine's socket.
//! A stop of the node does not touch them. What of them is down, and what a node would lack to start them again, is said in the plan.

use crate::deploy::desired::Service;
use crate::deploy::mounts::Lies;
use crate::deploy::{Desired, Observed};
use crate::diagnose::first_few;
use crate::engine::{ContainerSummary, Engine, Result, Status};
use crate::tars::Instance;

use super::preflight::names_in_database;
use super::step::{Action, Plan, Purpose};

/// Where tarsnode finds the engine: `/tars/container<socket>` of its configuration, as upstream ships it.
const SOCKETS: [&str; 2] = ["/var/run/docker.sock", "/run/docker.sock"];
/// Where the node's volume lies on the host: what it mounts into the containers beside it.
const HOST_PATH: &str = "TARS_HOSTPATH";

/// What is said of them in a plan; nothing where the database was not asked, or none runs so.
pub(super) async fn notes(
    engine: &dyn Engine,
    desired: &Desired,
    observed: &Observed,
    plan: &Plan,
) -> Result<Vec<String>> {
    let Some(Ok(facts)) = &observed.facts.cluster else { return Ok(Vec::new()) };
    let mut told = Vec::new();
    let mut all: Option<Vec<ContainerSummary>> = None;
    for service in &desired.services {
        let nodes = names_in_database(service);
        let beside: Vec<&Instance> = facts
            .services
            .instances
            .iter()
            .filter(|one| one.setting && one.runs_beside() && nodes.contains(&one.node))
            .collect();
        if beside.is_empty() {
            continue;
        }
        if all.is_none() {
            all = Some(engine.list_containers(&[]).await?);
        }
        told.extend(down(service, &beside, all.as_deref().unwrap_or_default()));
        let is_made = plan.steps.iter().any(|step| {
            step.service.as_ref() == Some(&service.name)
                && matches!(step.action, Action::Create { purpose: Purpose::Serve, twin: None, .. })
        });
        if is_made {
            told.extend(lacking(service, &beside));
        }
    }
    Ok(told)
}

/// Those whose container is not there or does not run.
fn down(service: &Service, beside: &[&Instance], all: &[ContainerSummary]) -> Option<String> {
    let runs = |one: &&&Instance| {
        all.iter().any(|container| container.name == one.server && container.status == Status::Running)
    };
    let down: Vec<&str> = beside.iter().filter(|one| !runs(one)).map(|one| one.server.as_str()).collect();
    (!down.is_empty()).then(|| {
        format!("`{}`: to run in containers beside it, and down already: {}", service.name, first_few(&down))
    })
}

/// What its new container lacks to start them again.
fn lacking(service: &Service, beside: &[&Instance]) -> Vec<String> {
    let servers: Vec<&str> = beside.iter().map(|one| one.server.as_str()).collect();
    let (name, servers) = (&service.name, first_few(&servers));
    let mounts = service.declaration.mounts();
    let mut notes = Vec::new();
    if !SOCKETS.iter().any(|path| matches!(mounts.source_of(path), Lies::Host(_))) {
        notes.push(format!(
            "`{name}`: no socket of the engine is mounted in it at {}: its tarsnode can neither start nor stop {servers} beside it",
            SOCKETS[0]
        ));
    }
    if service.declaration.environment.value(HOST_PATH).is_none() {
        notes.push(format!(
            "`{name}`: {HOST_PATH} is not set: the containers beside it ({servers}) would be given folders of the host that are not \
             the node's"
        ));
    }
    notes
}
