//! Asks what a plan is judged by beyond the engine's lists: each container for its clock, the database for its own and for the
//! cluster, disks for room. It is asked once, before a plan is shown, and only where a part of the framework is touched.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use time::OffsetDateTime;
use tokio::time::Instant;

use super::cluster_probe::{self, ClusterProbe};
use super::drive::Deploy;
use super::gate::{Cluster, Database};
use super::inside::{Inside, probe};
use super::intent::is_framework;
use super::names::preview_name;
use super::offer::Offer;
use super::run::stopped;
use super::state::{is_up, serving};
use super::step::{Action, Plan, Step};
use super::{Intent, callers, heard, other_start, preflight};
use crate::deploy::desired::Service;
use crate::deploy::facts::{Clock, ClusterFacts, Facts, Room};
use crate::deploy::{Desired, Observed};
use crate::diagnose::first_few;
use crate::engine::{Container, Engine, EngineError};
use crate::tars::Role;

/// Every base has it, and it tells the zone that services see.
const CLOCK: [&str; 2] = ["date", "+%s %z"];
/// How long one clock may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Where nodes and clients ask a registry.
const REGISTRY_PORTS: [&str; 2] = ["17890", "17891"];
/// Between two looks at what is waited for.
const LOOK: Duration = Duration::from_secs(2);
/// How many containers are asked at a time.
const AT_ONCE: usize = 8;

/// What was told.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// What a plan is judged by.
    pub facts: Facts,
    /// All that the database said; nothing where nobody asked.
    pub cluster: Option<Result<Cluster, String>>,
    /// The container in which it was asked: whoever asks more asks there, and closes it.
    pub probe: Option<ClusterProbe>,
}

impl Asked {
    /// Removes the container, where there is one.
    pub async fn close(&mut self, engine: &dyn Engine, deployment: &str) -> Result<(), EngineError> {
        match self.probe.take() {
            Some(mut probe) => probe.close(engine, deployment).await,
            None => Ok(()),
        }
    }
}

/// Asks for a draft; nothing where it touches no part of the framework.
pub(super) async fn ask(deploy: &Deploy<'_>, draft: &Offer, observed: &Observed) -> Asked {
    let mut asked = Asked::default();
    let (plan, desired) = (&draft.plan, &draft.desired);
    let touches = plan.touched.iter().any(|touched| touched.role.is_some_and(|role| role != Role::Database));
    let starts_nothing = matches!(plan.intent, Intent::Prune { .. } | Intent::Finish);
    if plan.is_empty() || starts_nothing || !touches {
        return asked;
    }
    let runs = running(desired, observed);
    let goes_down = matches!(plan.intent, Intent::Down { .. });
    asked.facts.silences = deploy.machine.folder.silences(&desired.deployment);
    asked.facts.heard = heard::ask(deploy.engine, desired, &runs).await;
    if !goes_down {
        asked.facts.clocks = clocks(deploy, &runs).await;
        asked.facts.registries = registries(deploy, &runs).await;
        asked.facts.linked = linked(deploy, plan, &runs).await;
    }
    let may_answer = !runs.is_empty() && database_may_run(desired, observed);
    let is_asked = may_answer && cluster_probe::has_account(desired);
    if is_asked || other_start::is_there(plan, desired, observed) {
        let images = cluster_probe::images(desired, observed, &plan.intent);
        let mut probe = ClusterProbe::new(images).named(preview_name(&desired.deployment, &plan.id));
        let told = ask_until_free(&mut probe, deploy, draft, observed).await;
        asked.probe = Some(probe);
        asked.facts.cluster = Some(match &told {
            Ok(cluster) if cluster.database == Database::Unknown => Err(cluster.detail.clone()),
            Ok(cluster) => Ok(cluster.facts.clone().unwrap_or_default()),
            Err(why) => Err(why.clone()),
        });
        asked.cluster = Some(told);
    }
    // Of a stop only what else serves matters.
    if goes_down {
        let of_stops = |told: ClusterFacts| ClusterFacts {
            publishing: told.publishing,
            ..ClusterFacts::of(told.services)
        };
        asked.facts.cluster = asked.facts.cluster.map(|told| told.map(of_stops));
    } else {
        asked.facts.room = room(deploy, observed, asked.cluster.as_ref());
    }
    asked
}

/// Asks once; with `--wait` until nothing is published any more, and nobody else has drained the only other instance of what runs
/// on these nodes.
async fn ask_until_free(
    probe: &mut ClusterProbe,
    deploy: &Deploy<'_>,
    draft: &Offer,
    observed: &Observed,
) -> Result<Cluster, String> {
    let (begun, wait) = (Instant::now(), draft.desired.policy.wait);
    let mut stop = deploy.stop.clone();
    let mut has_said = false;
    loop {
        let told = probe.ask_facts(deploy.engine, &draft.desired).await;
        let facts = told.as_ref().ok().and_then(|cluster| cluster.facts.as_ref());
        let held = facts.map(|facts| in_the_way(facts, draft, observed)).unwrap_or_default();
        if held.is_empty() || begun.elapsed() >= wait {
            return told;
        }
        if !has_said {
            let text = format!("waiting, up to {} s: {}", wait.as_secs(), first_few(&held));
            deploy.machine.reporter.say(&text);
            has_said = true;
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = stopped(&mut stop) => return told,
        }
    }
}

/// What ends by itself, a line each.
fn in_the_way(facts: &ClusterFacts, draft: &Offer, observed: &Observed) -> Vec<String> {
    let is_over = |server: &String| draft.desired.policy.ended_publishes.contains(server);
    let published = facts.publishing.iter().filter(|one| !is_over(&one.server));
    let mut held: Vec<String> =
        published.map(|one| format!("{} is published on {}", one.server, one.node)).collect();
    let touched = draft.plan.touched.iter().filter_map(|touched| draft.desired.service(&touched.service));
    let nodes = touched.flat_map(preflight::names_in_database).collect();
    let drains = facts.services.held_by_others(&draft.desired.deployment, &observed.engine.id, &nodes);
    held.extend(
        drains.iter().map(|one| format!("{} on {} is drained by {}", one.server, one.node, one.deployment)),
    );
    held
}

/// The registries by which nodes go whose environment names none: they asked a web console at their start.
async fn registries(deploy: &Deploy<'_>, runs: &[(&Service, &Container)]) -> BTreeMap<String, Vec<String>> {
    let nodes = runs.iter().filter(|(service, _)| {
        let value = |name: &str| service.declaration.environment.value(name);
        let asks_web = value("TARS_REGISTRY_ADDRESS").is_none() && value("WEB_HOST").is_some();
        service.role == Some(Role::Node) && asks_web
    });
    let names: Vec<(String, String)> =
        nodes.map(|(service, container)| (service.name.clone(), container.id.clone())).collect();
    let asked = stream::iter(names).map(|(service, id)| async move {
        let Inside::Said(told) = probe(deploy.engine, &id).await else { return None };
        Some((service, told.registries))
    });
    let told: Vec<_> = asked.buffer_unordered(AT_ONCE).collect().await;
    told.into_iter().flatten().collect()
}

/// Who is connected to which registry, where one is to be stopped and another one stays.
async fn linked(
    deploy: &Deploy<'_>,
    plan: &Plan,
    runs: &[(&Service, &Container)],
) -> BTreeMap<String, BTreeSet<String>> {
    let is_registry = |service: &Service| matches!(service.role, Some(Role::Master | Role::Slave));
    let registries: Vec<_> = runs.iter().filter(|(service, _)| is_registry(service)).collect();
    let is_stopped = |service: &Service| {
        let of_it = |step: &&Step| step.service.as_ref() == Some(&service.name);
        plan.steps.iter().filter(of_it).any(|step| matches!(step.action, Action::Stop { .. }))
    };
    if registries.len() < 2 || !registries.iter().any(|(service, _)| is_stopped(service)) {
        return BTreeMap::new();
    }
    let asked = registries.into_iter().map(|(service, container)| async move {
        let told = callers::connected(deploy.engine, &container.id, &REGISTRY_PORTS).await.ok()?;
        Some((service.name.clone(), told))
    });
    join_all(asked).await.into_iter().flatten().collect()
}

/// Asks what serves where, for the rest of a deploy that was cut off: its batches follow from it.
pub(super) async fn ask_again(
    probe: &mut ClusterProbe,
    deploy: &Deploy<'_>,
    desired: &Desired,
    observed: &Observed,
) -> Facts {
    let heard = heard::ask(deploy.engine, desired, &running(desired, observed)).await;
    let mut facts = Facts { heard, ..Facts::default() };
    if cluster_probe::has_account(desired) && database_may_run(desired, observed) {
        let told = probe.ask_facts(deploy.engine, desired).await;
        let of = |cluster: Cluster| ClusterFacts::of(cluster.facts.unwrap_or_default().services);
        facts.cluster = Some(told.map(of));
    }
    facts
}

/// The parts of the framework that run.
fn running<'a>(desired: &'a Desired, observed: &'a Observed) -> Vec<(&'a Service, &'a Container)> {
    let parts = desired.services.iter().filter(|service| is_framework(service));
    parts
        .filter_map(|service| Some((service, serving(observed, &desired.deployment, service)?)))
        .filter(|(_, container)| is_up(container))
        .collect()
}

/// False where a database of the deployment's own is down.
fn database_may_run(desired: &Desired, observed: &Observed) -> bool {
    let mut databases = desired.services.iter().filter(|service| service.role == Some(Role::Database));
    databases.all(|service| serving(observed, &desired.deployment, service).is_some_and(is_up))
}

async fn clocks(deploy: &Deploy<'_>, runs: &[(&Service, &Container)]) -> BTreeMap<String, Clock> {
    let names = runs.iter().map(|(service, container)| (service.name.clone(), container.id.clone()));
    let names: Vec<(String, String)> = names.collect();
    let asked = stream::iter(names).map(|(service, id)| async move { (service, clock(deploy, &id).await) });
    let told: Vec<(String, Option<Clock>)> = asked.buffer_unordered(AT_ONCE).collect().await;
    told.into_iter().filter_map(|(service, clock)| Some((service, clock?))).collect()
}

/// The clock of one container; nothing where it has no `date`.
async fn clock(deploy: &Deploy<'_>, container: &str) -> Option<Clock> {
    let before = deploy.machine.clock.now();
    let output = deploy.engine.exec(container, &CLOCK, TIMEOUT).await.ok()?;
    let after = deploy.machine.clock.now();
    let (seconds, zone) = output.stdout.trim().split_once(' ')?;
    Some(Clock { ahead: ahead(seconds.parse().ok()?, before, after), zone: zone_of(zone)? })
}

/// How far a clock that was read between two moments is ahead of them.
fn ahead(read: i64, before: OffsetDateTime, after: OffsetDateTime) -> i64 {
    let (before, after) = (before.unix_timestamp(), after.unix_timestamp());
    if read < before { read - before } else { (read - after).max(0) }
}

/// `+0800` in seconds.
fn zone_of(text: &str) -> Option<i64> {
    let (sign, digits) = text.split_at_checked(1)?;
    let (hours, minutes) = digits.split_at_checked(2)?;
    let seconds = hours.parse::<i64>().ok()? * 3600 + minutes.parse::<i64>().ok()? * 60;
    match sign {
        "+" => Some(seconds),
        "-" => Some(-seconds),
        _ => None,
    }
}

fn room(deploy: &Deploy<'_>, observed: &Observed, told: Option<&Result<Cluster, String>>) -> Room {
    let told = told.and_then(|told| told.as_ref().ok()?.facts.as_ref()?.room);
    Room {
        engine: told.or_else(|| deploy.machine.images.room(&observed.engine)),
        state: deploy.machine.folder.room().ok(),
        store: deploy.machine.images.store_room(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_is_ahead_or_behind_only_outside_of_the_time_that_the_question_took() {
        let at = |seconds: i64| OffsetDateTime::from_unix_timestamp(seconds).unwrap();
        for (read, expected) in [(100, 0), (102, 0), (101, 0), (99, -1), (40, -60), (103, 1), (3702, 3600)] {
            assert_eq!(ahead(read, at(100), at(102)), expected, "{read}");
        }
    }

    #[test]
    fn zone_is_read_as_date_writes_it() {
        for (text, expected) in [("+0000", Some(0)), ("+0800", Some(28_800)), ("-0330", Some(-12_600))] {
            assert_eq!(zone_of(text), expected, "{text}");
        }
        for wrong in ["", "UTC", "+", "+08", "0800x", "é0800"] {
            assert_eq!(zone_of(wrong), None, "{wrong}");
        }
    }
}
