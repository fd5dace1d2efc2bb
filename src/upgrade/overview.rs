//! A plan at a glance: a row for each container, and what becomes of the services that run in them. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use serde::Serialize;

use super::length::{Length, length};
use super::names::{Part, part_of};
use super::preflight::names_in_database;
use super::state::by_id;
use super::step::{Action, After, Plan, Purpose, Step, Touched};
use crate::deploy::services::Services;
use crate::deploy::{Desired, Observed};
use crate::tars::{Instance, Role};

/// What a plan does, as a person asks for it first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Overview {
    /// A row for each container, in the order of the plan.
    pub containers: Vec<Row>,
    /// What clients are sent away from, to where it is served too: server → nodes.
    pub drained: BTreeMap<String, Vec<String>>,
    /// What its clients find nowhere while its container is stopped: server → nodes.
    pub silent: BTreeMap<String, Vec<String>>,
    /// What is served elsewhere too, while nobody sends its clients there: they notice until they ask anew. Server → nodes.
    pub not_drained: BTreeMap<String, Vec<String>>,
    /// What serves on nodes of a deployment that names no account at the database: nothing of it can be drained, and whether others
    /// serve it is not known. Server → nodes.
    pub gaps: BTreeMap<String, Vec<String>>,
    /// How long it takes.
    pub time: Length,
    /// What is stopped with its container and called by nobody: down already, not handed out, a backup.
    pub along: BTreeMap<String, Vec<String>>,
}

/// What happens to one container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The service of the file.
    pub service: String,
    /// The name that it serves under.
    pub container: String,
    /// `create`, `replace`, `start`, `restart`, `stop`, `bring back` or `settle`.
    pub change: &'static str,
    /// The image before.
    pub from: Option<String>,
    /// The image after.
    pub to: Option<String>,
    /// Why.
    pub cause: String,
    /// Who gets no answer meanwhile.
    pub silence: Silence,
    /// How long it was silent in the deploy before, in milliseconds.
    pub last_silence: Option<u64>,
    /// Bytes of the image that the engine must load first.
    pub load: Option<u64>,
}

/// Who gets no answer while a container is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Silence {
    /// It is not stopped.
    No,
    /// Everything in it is served elsewhere.
    Covered,
    /// A part of the deployment that is none of the framework's: its own.
    Own,
    /// The registry in it, which cannot be drained, and so many services as below.
    Registry(usize),
    /// So many services that are served nowhere else, or whose clients are not sent there.
    Services(usize),
    /// Nobody could tell what runs there.
    Unknown,
    /// It stays down.
    Down,
}

/// Looks at a plan.
pub fn overview(plan: &Plan, desired: &Desired, observed: &Observed) -> Overview {
    let facts = observed.facts.cluster.as_ref().and_then(|told| told.as_ref().ok());
    let services = facts.map(|facts| &facts.services);
    let nodes: BTreeMap<&str, Vec<String>> =
        desired.services.iter().map(|service| (service.name.as_str(), names_in_database(service))).collect();
    let together = stopped_together(&plan.steps, &nodes);
    let drained = drained(&plan.steps);
    let mut by_service: BTreeMap<&str, Vec<&Step>> = BTreeMap::new();
    for step in &plan.steps {
        by_service.entry(step.service.as_deref().unwrap_or_default()).or_default().push(step);
    }
    let mut loads = loads(plan, observed);
    let mut overview = Overview::default();
    for touched in &plan.touched {
        let steps = by_service.get(touched.service.as_str()).map_or(&[][..], Vec::as_slice);
        let (change, from, to) = images(touched, steps, observed);
        // An image is loaded once.
        let load = to.as_ref().and_then(|to| loads.remove(to));
        let silent = match (services, together.get(touched.service.as_str())) {
            (Some(services), Some(down)) => {
                let own = nodes.get(touched.service.as_str()).map_or(&[][..], Vec::as_slice);
                overview.add_services(services, own, down, drained.contains(touched.container.as_str()))
            }
            (None, Some(_)) => overview.add_heard(observed.facts.heard.get(&touched.service)),
            _ => 0,
        };
        let is_known =
            services.is_some() || matches!(observed.facts.heard.get(&touched.service), Some(Ok(_)));
        overview.containers.push(Row {
            service: touched.service.clone(),
            container: touched.container.clone(),
            change,
            from,
            to,
            cause: cause(steps),
            silence: silence(
                touched,
                change,
                together.contains_key(touched.service.as_str()),
                is_known,
                silent,
            ),
            last_silence: observed.facts.silences.get(&touched.service).map(milliseconds),
            load,
        });
    }
    let places: BTreeSet<&String> = overview.drained.values().flatten().collect();
    let serves = |container: &str| {
        let touched = plan.touched.iter().find(|touched| touched.container == container);
        let own = touched.and_then(|touched| nodes.get(touched.service.as_str()));
        own.is_some_and(|own| own.iter().any(|node| places.contains(node)))
    };
    overview.time = length(&plan.steps, &desired.policy, |container| services.is_none() || serves(container));
    overview
}

impl Overview {
    /// Adds the services in a container that is stopped, which bears these names, while `down` are stopped too; how many of them go
    /// silent.
    fn add_services(
        &mut self,
        services: &Services,
        own: &[String],
        down: &BTreeSet<String>,
        is_drained: bool,
    ) -> usize {
        let mut silent = 0;
        for one in services.instances.iter().filter(|one| own.contains(&one.node) && !one.runs_beside()) {
            let list = if !one.serves() {
                &mut self.along
            } else if !one.has_another(&services.instances, down) {
                // The framework's own come back with it.
                if one.is_framework() {
                    continue;
                }
                silent += 1;
                &mut self.silent
            } else if one.is_registry() {
                continue;
            } else if is_drained {
                &mut self.drained
            } else {
                silent += 1;
                &mut self.not_drained
            };
            // The framework's own that nobody is sent to are of no interest.
            if !one.is_framework() || one.serves() {
                list.entry(one.server.clone()).or_default().push(one.node.clone());
            }
        }
        silent
    }

    /// Adds what serves in a node that is stopped, as itself told; how much that is.
    fn add_heard(&mut self, heard: Option<&Result<Vec<Instance>, String>>) -> usize {
        let all = heard.and_then(|heard| heard.as_ref().ok()).map_or(&[][..], Vec::as_slice);
        for one in all {
            self.gaps.entry(one.server.clone()).or_default().push(one.node.clone());
        }
        all.len()
    }
}

/// The containers that clients are sent away from.
fn drained(steps: &[Step]) -> BTreeSet<&str> {
    let containers = steps.iter().filter_map(|step| match &step.action {
        Action::Drain { containers, .. } => Some(containers),
        _ => None,
    });
    containers.flatten().map(String::as_str).collect()
}

/// The nodes that are stopped from the first stop until the last gate of a batch, by service.
fn stopped_together<'a>(
    steps: &'a [Step],
    nodes: &BTreeMap<&str, Vec<String>>,
) -> BTreeMap<&'a str, Rc<BTreeSet<String>>> {
    let mut together = BTreeMap::new();
    let (mut down, mut batch): (BTreeSet<&str>, BTreeSet<&str>) = (BTreeSet::new(), BTreeSet::new());
    let mut close = |batch: &mut BTreeSet<&'a str>| {
        let of_batch = batch.iter().filter_map(|service| nodes.get(service)).flatten();
        let of_batch: Rc<BTreeSet<String>> = Rc::new(of_batch.cloned().collect());
        together.extend(std::mem::take(batch).into_iter().map(|service| (service, of_batch.clone())));
    };
    for step in steps {
        let Some(service) = step.service.as_deref() else { continue };
        match step.action {
            Action::Stop { .. } => {
                down.insert(service);
                batch.insert(service);
            }
            Action::Gate { .. } => drop(down.remove(service)),
            _ => continue,
        }
        if down.is_empty() {
            close(&mut batch);
        }
    }
    // What stays down.
    close(&mut batch);
    together
}

fn silence(touched: &Touched, change: &str, stops: bool, is_known: bool, silent: usize) -> Silence {
    match touched.role {
        _ if !stops => Silence::No,
        _ if change == "stop" => Silence::Down,
        None | Some(Role::Database) => Silence::Own,
        Some(Role::Master | Role::Slave) => Silence::Registry(silent),
        Some(Role::Node) if !is_known => Silence::Unknown,
        Some(Role::Node) if silent == 0 => Silence::Covered,
        Some(Role::Node) => Silence::Services(silent),
    }
}

type Change = (&'static str, Option<String>, Option<String>);

/// What is done with a container, and the images before and after.
fn images(touched: &Touched, steps: &[&Step], observed: &Observed) -> Change {
    let before = touched.before.as_ref().and_then(|before| Some(by_id(observed, &before.id)?.image.clone()));
    let made = steps.iter().find_map(|step| match &step.action {
        Action::Create { image, purpose: Purpose::Serve, .. } => Some(image.to_string()),
        _ => None,
    });
    let has = |kind: &str| steps.iter().any(|step| step.action.kind() == kind);
    match (&touched.after, &before) {
        (After::Parked { id, .. }, _) => {
            let to = by_id(observed, id).map(|parked| parked.image.clone()).or(made);
            ("bring back", before, to)
        }
        (After::Made, Some(_)) => ("replace", before, made),
        (After::Made, None) => ("create", None, made),
        (After::Same, _) => {
            let word = match (has("stop"), has("start")) {
                (true, true) => "restart",
                (true, false) => "stop",
                (false, true) => "start",
                (false, false) => "settle",
            };
            (word, before.clone(), before)
        }
    }
}

/// Why something is created, else why it is started, or stopped; without what the row says anyway.
fn cause(steps: &[&Step]) -> String {
    let is_one_off = |step: &Step| matches!(step.action.container().map(part_of), Some(Part::Migrate(_)));
    let own = || steps.iter().filter(|step| !is_one_off(step));
    let of = |kind: &&str| own().find(|step| step.action.kind() == *kind);
    let step = ["create", "start", "stop"].iter().find_map(of).or_else(|| own().next());
    let cause = step.map(|step| step.cause.as_str()).unwrap_or_default();
    // The row itself has both images.
    match cause.split_once(' ') {
        Some(("image", rest)) if rest.starts_with("differs: ") => "image differs".to_owned(),
        Some(("back", rest)) if rest.starts_with("from ") => "as it was before".to_owned(),
        _ => cause.to_owned(),
    }
}

/// How much the engine must load, by image.
fn loads(plan: &Plan, observed: &Observed) -> BTreeMap<String, u64> {
    let size = |image: &str| observed.image(image).map_or(0, |image| image.size);
    let loads = plan.steps.iter().filter_map(|step| match &step.action {
        Action::Load { image, .. } => Some(image.to_string()),
        _ => None,
    });
    loads.map(|image| (image.clone(), size(&image))).collect()
}

fn milliseconds(length: &Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}
