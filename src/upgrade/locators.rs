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
    let others = others(planner, &registries);
    let (mut down, mut found, mut unknown) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for step in &planner.plan.steps {
        let Some((registry, _)) = registries.iter().find(|(one, _)| step.service.as_ref() == Some(&one.name))
        else {
            continue;
        };
        match step.action {
            Action::Stop { .. } => drop(down.insert(registry.name.as_str())),
            Action::Gate { .. } => drop(down.remove(registry.name.as_str())),
            _ => continue,
        }
        let is_down = |host: &String| {
            registries.iter().any(|(one, names)| down.contains(one.name.as_str()) && names.contains(host))
        };
        if down.is_empty() {
            continue;
        }
        let cut_off = others.iter().filter(|other| other.hosts.iter().all(is_down));
        if down.len() == registries.len() {
            unknown.extend(cut_off.map(|other| other.node.clone()));
            continue;
        }
        for other in cut_off {
            match other.words() {
                Some(words) => drop(found.insert(words)),
                None => drop(unknown.insert(other.node.clone())),
            }
        }
        for (node, hosts) in nodes.iter().filter(|(_, hosts)| hosts.iter().all(is_down)) {
            found.insert(format!("`{}` (knows {} alone)", node.name, hosts.join(", ")));
        }
    }
    if !unknown.is_empty() {
        let unknown: Vec<String> = unknown.into_iter().collect();
        let text = format!(
            "nodes of other hosts, of which nobody here can tell whether they know another registry than the one that is stopped: {}",
            first_few(&unknown)
        );
        planner.findings.note(About::Gaps, text);
    }
    if found.is_empty() {
        return;
    }
    let nodes = first_few(&found.into_iter().collect::<Vec<_>>());
    let text = format!(
        "nodes that know no other registry than one that is stopped, and ask nobody meanwhile: {nodes}. Go on?"
    );
    planner.ask_about_gaps(text, Refusal::Locators { nodes });
}

/// A node of another host.
struct Other {
    node: String,
    /// The services whose registries it is connected to.
    services: Vec<String>,
    /// A name of each of them.
    hosts: Vec<String>,
    /// It can be connected to no other one.
    is_whole: bool,
}

impl Other {
    /// That it is connected to these alone; nothing where it may know others.
    fn words(&self) -> Option<String> {
        let alone = self.is_whole && !self.services.is_empty();
        alone.then(|| format!("{} (connected to {} alone)", self.node, self.services.join(", ")))
    }
}

/// Which registries the nodes of other hosts know stands nowhere in the database: it shows in the connections that they keep. Where
/// there are registries elsewhere, or one here does not tell, what is not seen proves nothing.
fn others(planner: &Planner<'_>, registries: &[(&Service, BTreeSet<String>)]) -> Vec<Other> {
    let Some(Ok(facts)) = &planner.observed.facts.cluster else { return Vec::new() };
    let own: BTreeSet<String> =
        planner.desired.services.iter().flat_map(|service| planner.names_of(service)).collect();
    let of_others: Vec<_> =
        facts.services.instances.iter().filter(|one| one.lives && !own.contains(&one.node)).collect();
    let linked = &planner.observed.facts.linked;
    let is_whole = registries.iter().all(|(service, _)| linked.contains_key(&service.name))
        && !of_others.iter().any(|one| one.is_registry());
    let nodes: BTreeSet<&String> = of_others.iter().map(|one| &one.node).collect();
    let other = |node: &String| {
        let is_linked =
            |service: &Service| linked.get(&service.name).is_some_and(|peers| peers.contains(node));
        let to = registries.iter().filter(|(service, _)| is_linked(service));
        let (services, hosts) =
            to.filter_map(|(service, names)| Some((service.name.clone(), names.first()?.clone()))).unzip();
        Other { node: node.clone(), services, hosts, is_whole }
    };
    nodes.into_iter().map(other).collect()
}

/// The hosts of the registries that a node knows; nothing where nobody can tell.
fn known_to(planner: &Planner<'_>, node: &Service) -> Option<Vec<String>> {
    let now = serving(planner.observed, &planner.desired.deployment, node);
    // A list shows no environment: what was not inspected is as it is declared.
    let env = now.map(|now| &now.env).filter(|env| !env.0.is_empty());
    let named = env.unwrap_or(&node.declaration.environment).value(REGISTRIES);
    let hosts = named.map_or_else(
        || planner.observed.facts.registries.get(&node.name).cloned(),
        |text| Some(hosts(text.expose())),
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
