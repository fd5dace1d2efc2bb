//! Nodes of a deployment without an account at the database: what runs on them, as each tells by itself, and that none of it can be
//! drained.

use std::collections::BTreeMap;

use futures_util::{StreamExt as _, stream};

use super::Refusal;
use super::cluster_probe::has_account;
use super::gate::Probe;
use super::inside::{Inside, probe};
use super::plan::Planner;
use super::step::Action;
use crate::deploy::Desired;
use crate::deploy::desired::Service;
use crate::diagnose::first_few;
use crate::engine::{Container, Engine};
use crate::tars::{Instance, Role};

/// How many nodes are asked at a time.
const AT_ONCE: usize = 8;

/// What serves on a node, or why nobody knows.
type Heard = Result<Vec<Instance>, String>;

/// Asks each node that runs, by service; nobody where the database can be asked.
pub(super) async fn ask(
    engine: &dyn Engine,
    desired: &Desired,
    runs: &[(&Service, &Container)],
) -> BTreeMap<String, Heard> {
    if has_account(desired) {
        return BTreeMap::new();
    }
    let nodes = runs.iter().filter(|(service, _)| service.role == Some(Role::Node));
    let nodes: Vec<(String, String)> =
        nodes.map(|(service, container)| (service.name.clone(), container.id.clone())).collect();
    let asked = stream::iter(nodes).map(|(service, id)| async move {
        let heard = match probe(engine, &id).await {
            Inside::Said(told) => of(told),
            Inside::Silent(why) => Err(why),
            Inside::NoInit => Err("it has no tars-init".to_owned()),
        };
        (service, heard)
    });
    asked.buffer_unordered(AT_ONCE).collect().await
}

/// What a probe says that serves. Sets, groups and backups it does not know.
fn of(told: Probe) -> Heard {
    let Some(deployed) = told.deployed else {
        let older = told.deployed_unknown.is_empty();
        return Err(if older { "its tars-init does not tell".to_owned() } else { told.deployed_unknown });
    };
    let instance = |server: String| Instance {
        server,
        node: told.address.clone(),
        setting: true,
        present: true,
        flow: true,
        lives: true,
        ..Instance::default()
    };
    Ok(deployed.into_iter().filter(|one| one.serves).map(|one| instance(one.server)).collect())
}

/// Whatever is stopped with its node, by server: a question, as nobody can send its clients elsewhere first.
pub(super) fn find_gaps(planner: &mut Planner<'_>) {
    let mut gaps: Vec<String> = Vec::new();
    for step in planner.plan.steps.iter().filter(|step| matches!(step.action, Action::Stop { .. })) {
        let Some(service) = &step.service else { continue };
        match planner.observed.facts.heard.get(service) {
            Some(Ok(all)) => gaps.extend(all.iter().map(|one| format!("{} on {}", one.server, one.node))),
            Some(Err(why)) => gaps.push(format!("whatever runs in `{service}` ({why})")),
            None => {}
        }
    }
    if gaps.is_empty() {
        return;
    }
    let gaps = first_few(&gaps);
    let text = format!(
        "the deployment names no account at the database (`x-tars: {{database: {{env_file: FILE}}}}`), so that nothing is drained \
         and clients notice: {gaps}. Go on?"
    );
    planner.ask_about_gaps(text, Refusal::Undrained { gaps });
}
