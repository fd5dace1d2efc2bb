//! Nodes that know no registry but one that a plan stops: what they start, and who asks them, finds nobody meanwhile. Pure.

use std::collections::BTreeSet;

use crate::deploy::desired::Service;
use crate::diagnose::first_few;
use crate::tars::Role;

use super::Refusal;
use super::finding::About;
use super::plan::Planner;
use super::state::{is_up, serving};
use super::step::Action;

/// The variable that names a node's registries.
const REGISTRIES: &str = "TARS_REGISTRY_ADDRESS";

/// Follows the plan step by step, and asks about each. Where no registry survives at all, that is said by itself.
pub(super) fn find(planner: &mut Planner<'_>) {
    let of_role = |is_registry: bool| {
        let all = planner.desired.services.iter().filter(move |service| match service.role {
            Some(Role::Master | Role::Slave) => is_registry,
            Some(Role::Node) => !is_registry,
            _ => false,
        });
        all.filter(|service| {
            serving(planner.observed, &planner.desired.deployment, service).is_some_and(is_up)
        })
    };
    let registries: Vec<(&Service, BTreeSet<String>)> =
        of_role(true).map(|service| (service, planner.names_of(service))).collect();
    let nodes: Vec<(&Service, Vec<String>)> =
        of_role(false).filter_map(|node| Some((node, known_to(planner, node)?))).collect();
    let (mut down, mut found, mut stopped) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for step in &planner.plan.steps {
        let Some((registry, _)) = registries.iter().find(|(one, _)| step.service.as_ref() == Some(&one.name))
        else {
            continue;
        };
        match step.action {
            Action::Stop { .. } => {
                down.insert(registry.name.as_str());
                stopped.insert(registry.name.as_str());
            }
            Action::Gate { .. } => drop(down.remove(registry.name.as_str())),
            _ => continue,
        }
        let is_down = |host: &String| {
            registries.iter().any(|(one, names)| down.contains(one.name.as_str()) && names.contains(host))
        };
        if down.is_empty() || down.len() == registries.len() {
            continue;
        }
        for (node, hosts) in nodes.iter().filter(|(_, hosts)| hosts.iter().all(is_down)) {
            found.insert(format!("`{}` (knows {} alone)", node.name, hosts.join(", ")));
        }
    }
    note_others(planner, !stopped.is_empty());
    if found.is_empty() {
        return;
    }
    let nodes = first_few(&found.into_iter().collect::<Vec<_>>());
    if planner.desired.policy.refuses_gaps {
        planner.findings.refuse(Refusal::Locators { nodes });
    } else {
        let text = format!(
            "nodes that know no other registry than one that is stopped, and ask nobody meanwhile: {nodes}. Go on?"
        );
        planner.findings.ask(About::Gaps, text);
    }
}

/// Which registries the nodes of other hosts know stands nowhere in the database.
fn note_others(planner: &mut Planner<'_>, is_stopped: bool) {
    let Some(Ok(facts)) = &planner.observed.facts.cluster else { return };
    if !is_stopped {
        return;
    }
    let own: BTreeSet<String> =
        planner.desired.services.iter().flat_map(|service| planner.names_of(service)).collect();
    let others: BTreeSet<&str> =
        facts.services.instances.iter().filter(|one| one.lives).map(|one| one.node.as_str()).collect();
    let others: Vec<&str> = others.into_iter().filter(|node| !own.contains(*node)).collect();
    if !others.is_empty() {
        let text = format!(
            "nodes of other hosts, of which nobody here can tell whether they know another registry than the one that is stopped: {}",
            first_few(&others)
        );
        planner.findings.note(About::Gaps, text);
    }
}

/// The hosts of the registries that a node knows; nothing where nobody can tell.
fn known_to(planner: &Planner<'_>, node: &Service) -> Option<Vec<String>> {
    let now = serving(planner.observed, &planner.desired.deployment, node);
    let is = |entry: &&String| entry.split_once('=').is_some_and(|(name, _)| name == REGISTRIES);
    // A list shows no environment: what was not inspected is as it is declared.
    let named = match now.filter(|now| !now.env.is_empty()) {
        Some(now) => now.env.iter().find(is).and_then(|entry| Some(entry.split_once('=')?.1)),
        None => node.declaration.environment.value(REGISTRIES),
    };
    let hosts = named.map_or_else(
        || planner.observed.facts.registries.get(&node.name).cloned(),
        |text| Some(hosts(text)),
    )?;
    (!hosts.is_empty()).then_some(hosts)
}

/// `tcp -h A -p 17890:tcp -h B -p 17890`
fn hosts(text: &str) -> Vec<String> {
    let words: Vec<&str> = text.split([' ', ':', '\t']).filter(|word| !word.is_empty()).collect();
    words.windows(2).filter(|pair| pair[0] == "-h").map(|pair| pair[1].to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_those_of_a_locator() {
        assert_eq!(
            hosts("tcp -h 172.25.0.3 -p 17890:tcp -h fw2.tars -p 17890 -t 3000"),
            ["172.25.0.3", "fw2.tars"]
        );
        assert!(hosts("").is_empty() && hosts("tcp -p 17890 -h").is_empty());
    }
}
