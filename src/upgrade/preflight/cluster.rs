//! Who is down, silent or behind before the first step, by name: services of the deployment, nodes and services of the cluster.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use crate::deploy::desired::Service;
use crate::deploy::facts::ClusterFacts;
use crate::deploy::{Desired, Observed};
use crate::diagnose::first_few;
use crate::engine::{Container, Health};
use crate::oci::image::VERSION_LABEL;
use crate::tars::Role;
use crate::tars::version::compared;
use crate::upgrade::finding::{About, Findings};
use crate::upgrade::intent::is_framework;
use crate::upgrade::state::{is_up, serving};
use crate::upgrade::{Intent, Refusal};

/// A node that was not heard of for longer is gone: tarsregistry's own `nodeTimeout`.
const SILENT: i64 = 250;

/// What is being published is let end first; who wants to stop all the same is asked.
pub(super) fn publishing(desired: &Desired, observed: &Observed, intent: &Intent, findings: &mut Findings) {
    let Some(Ok(facts)) = &observed.facts.cluster else { return };
    let is_over = |server: &str| desired.policy.ended_publishes.iter().any(|named| named == server);
    let over: BTreeSet<&str> =
        facts.publishing.iter().map(|one| one.server.as_str()).filter(|server| is_over(server)).collect();
    if !over.is_empty() {
        let servers: Vec<&str> = over.into_iter().collect();
        let text = format!("its publish is over, by the operator's word: {}", first_few(&servers));
        findings.note(About::Publishing, text);
    }
    let each: Vec<String> = facts
        .publishing
        .iter()
        .filter(|one| !is_over(&one.server))
        .map(|one| format!("{} on {} since {}", one.server, one.node, one.since))
        .collect();
    if each.is_empty() || matches!(intent, Intent::Prune { .. } | Intent::Finish) {
        return;
    }
    let servers = first_few(&each);
    if matches!(intent, Intent::Down { .. }) {
        findings.ask(About::Publishing, format!("being published right now: {servers}. Stop all the same?"));
    } else {
        findings.refuse(Refusal::Publishing { servers });
    }
}

/// Names them; what the database says, where it was asked.
pub(super) fn check(desired: &Desired, observed: &Observed, intent: &Intent, findings: &mut Findings) {
    if matches!(intent, Intent::Down { .. } | Intent::Prune { .. }) {
        return;
    }
    let parts = || {
        let all = desired.services.iter();
        all.filter_map(|service| Some((service, serving(observed, &desired.deployment, service)?)))
    };
    let unhealthy: Vec<String> = parts()
        .filter(|(_, container)| is_up(container) && container.health == Some(Health::Unhealthy))
        .map(|(service, _)| format!("`{}`", service.name))
        .collect();
    if !unhealthy.is_empty() {
        findings.note(About::Cluster, format!("unhealthy already: {}", first_few(&unhealthy)));
    }
    match &observed.facts.cluster {
        Some(Ok(facts)) => {
            told(desired, facts, findings);
            for drained in facts.services.drained(&desired.deployment) {
                findings.note(About::Gaps, drained);
            }
        }
        Some(Err(why)) => {
            let text = format!(
                "what is down or behind in the cluster, and the database's clock, are not known: {why}"
            );
            findings.note(About::Cluster, text);
        }
        None => {}
    }
    behind(desired, observed, intent, &parts().collect::<Vec<_>>(), findings);
}

fn told(desired: &Desired, facts: &ClusterFacts, findings: &mut Findings) {
    let is_silent = |silent: Option<i64>| silent.is_none_or(|seconds| seconds > SILENT);
    let nodes = facts.nodes.iter().filter(|node| is_silent(node.silent));
    let silent: BTreeSet<&str> = nodes.map(|node| node.node.as_str()).collect();
    if !silent.is_empty() {
        let names: Vec<&str> = silent.iter().copied().collect();
        let text = format!("nodes that were not heard of for {SILENT} s, or never: {}", first_few(&names));
        findings.note(About::Cluster, text);
    }
    // Whatever is on a silent node is set inactive with it.
    // What runs beside a node of this deployment is the engine's to tell (`beside`): a tarsnode that has just started says at first
    // that it does not run.
    let own: BTreeSet<String> = desired.services.iter().flat_map(names).collect();
    let beside = facts.services.instances.iter().filter(|one| one.runs_beside() && own.contains(&one.node));
    let beside: BTreeSet<(&str, &str)> = beside.map(|one| (one.server.as_str(), one.node.as_str())).collect();
    let down = facts.down.iter().filter(|down| {
        !silent.contains(down.node.as_str()) && !beside.contains(&(&*down.server, &*down.node))
    });
    let down: Vec<String> = down.map(|down| format!("{} at {}", down.server, down.node)).collect();
    if !down.is_empty() {
        let text = format!("services that are to run and do not: {}", first_few(&down));
        findings.note(About::Cluster, text);
    }
}

/// What runs an older version than the framework does now, and stays behind while that becomes a newer one.
fn behind(
    desired: &Desired,
    observed: &Observed,
    intent: &Intent,
    parts: &[(&Service, &Container)],
    findings: &mut Findings,
) {
    let master =
        parts.iter().find(|(service, _)| service.role == Some(Role::Master) && intent.makes(service));
    let Some((service, now)) = master else { return };
    let next = observed.image(&service.image.to_string()).and_then(|image| image.labels.get(VERSION_LABEL));
    let (Some(now), Some(next)) = (now.labels.get(VERSION_LABEL), next) else { return };
    if compared(now, next) != Ordering::Less {
        return;
    }
    let is_older = |version: &str| !version.is_empty() && compared(version, now) == Ordering::Less;
    let stays = |service: &Service| is_framework(service) && !intent.makes(service);
    let mut behind: Vec<String> = parts
        .iter()
        .filter(|(service, _)| stays(service))
        .filter_map(|(service, container)| Some((service, container.labels.get(VERSION_LABEL)?)))
        .filter(|(_, version)| is_older(version))
        .map(|(service, version)| format!("`{}` ({version})", service.name))
        .collect();
    // Those of the deployment are told by their containers.
    let own: BTreeSet<String> = desired.services.iter().flat_map(names).collect();
    let nodes = observed.facts.cluster.as_ref().and_then(|told| told.as_ref().ok());
    let nodes = nodes.map(|facts| facts.nodes.as_slice()).unwrap_or_default().iter();
    behind.extend(
        nodes
            .filter(|node| is_older(&node.version) && !own.contains(&node.node))
            .map(|node| format!("{} ({})", node.node, node.version)),
    );
    if !behind.is_empty() {
        let text = format!(
            "two versions behind after this, as they run an older one than {now} already: {}; new registries serve nodes of the \
             version before",
            first_few(&behind)
        );
        findings.note(About::Cluster, text);
    }
}

/// The names by which the database may know a service's node.
pub fn names(service: &Service) -> Vec<String> {
    let declaration = &service.declaration;
    let domains =
        ["DOMAIN", "TARS_DOMAIN"].into_iter().filter_map(|name| declaration.environment.value(name));
    let addresses = declaration.endpoints.iter().filter_map(|endpoint| endpoint.ipv4.clone());
    domains.map(|name| name.expose().to_owned()).chain(addresses).collect()
}
