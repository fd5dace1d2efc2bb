//! In which batches nodes are rolled, by what runs on them: never all that serve of one service at once. Pure.
//!
//! First goes one node, alone: the one with least on it. Then as many at a time as the policy says, in the order of the file as far
//! as nobody goes silent for it; where it says nothing, those that share no service. What has one instance alone is silent with its
//! node, whatever the batches are.

use std::collections::BTreeSet;

use crate::deploy::desired::Service;
use crate::tars::{Instance, Role};

use super::follow;
use super::plan::Planner;
use super::preflight::names_in_database;
use super::state::{is_up, serving};
use super::step::Step;
use super::swap::Phases;
use super::watch::known_by;

/// Every node has it, and nobody is sent from one to another.
const NODE: &str = "tars.tarsnode";

/// How many nodes that share no service go side by side: each start takes processor and disk of the same machine.
const SIDE_BY_SIDE: usize = 4;

/// What the database says that serves, and what the engine says that does not.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// Instances that serve by the database, which notices only after minutes that a node is gone.
    all: Vec<Instance>,
    /// The names of this deployment's nodes that are down.
    pub down: BTreeSet<String>,
}

impl Known {
    /// Those that serve while these nodes are down.
    pub(super) fn without(&self, down: &BTreeSet<String>) -> Vec<Instance> {
        self.all.iter().filter(|one| !down.contains(&one.node)).cloned().collect()
    }
}

/// The nodes, as indices, in the order of their batches. Each is named as the database may know it; `all` are the instances that
/// serve, wherever. At most `most` go at a time, where it is not said those that share no service, and alone where nobody knows its
/// name.
fn batches(nodes: &[BTreeSet<String>], all: &[Instance], most: Option<usize>) -> Vec<Vec<usize>> {
    let may_share = most.is_some();
    let most = most.unwrap_or(SIDE_BY_SIDE).max(1);
    let serve: Vec<BTreeSet<(&str, Option<&str>)>> = nodes.iter().map(|node| served_on(node, all)).collect();
    let canary = (0..nodes.len()).min_by_key(|&at| (nodes[at].is_empty(), serve[at].len(), at));
    let mut batches: Vec<Vec<usize>> = canary.into_iter().map(|first| vec![first]).collect();
    let mut left: Vec<usize> = (0..nodes.len()).filter(|at| Some(*at) != canary).collect();
    while !left.is_empty() {
        let (mut batch, mut down, mut taken) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        left.retain(|&at| {
            let is_known = |at: usize| !nodes[at].is_empty();
            let together = &down | &nodes[at];
            let fits = batch.is_empty()
                || (batch.len() < most
                    && is_known(at)
                    && batch.iter().all(|&other| is_known(other))
                    // Where they share none, none of them takes the last one.
                    && if may_share { !takes_all_of_one(all, &together) } else { taken.is_disjoint(&serve[at]) });
            if fits {
                batch.push(at);
                taken.extend(&serve[at]);
                down = together;
            }
            !fits
        });
        batches.push(batch);
    }
    batches
}

/// What is served on a node: server and set.
fn served_on<'a>(node: &BTreeSet<String>, all: &'a [Instance]) -> BTreeSet<(&'a str, Option<&'a str>)> {
    let on_it = all.iter().filter(|one| node.contains(&one.node) && !one.runs_beside());
    on_it.map(|one| (one.server.as_str(), one.set.as_deref())).collect()
}

/// True where a service that has several instances has none that is elsewhere.
fn takes_all_of_one(all: &[Instance], down: &BTreeSet<String>) -> bool {
    let none = BTreeSet::new();
    let mut on_them = all.iter().filter(|one| down.contains(&one.node) && !one.runs_beside());
    on_them.any(|one| one.has_another(all, &none) && !one.has_another(all, down))
}

impl<'a> Planner<'a> {
    /// What goes together, in order: the nodes for which something is to be done in the policy's batches, all others one by one, and
    /// what leans on one of them alone, right behind that.
    pub(super) fn in_batches<T>(
        &mut self,
        planned: Vec<(&'a Service, T)>,
        is_touched: impl Fn(&Service, &T) -> bool,
    ) -> Vec<Vec<(&'a Service, T)>> {
        let (planned, followers) = follow::apart(self, planned, &is_touched);
        let batches = self.batches_without_followers(planned, &is_touched);
        follow::between(batches, followers)
    }

    fn batches_without_followers<T>(
        &mut self,
        planned: Vec<(&'a Service, T)>,
        is_touched: &impl Fn(&Service, &T) -> bool,
    ) -> Vec<Vec<(&'a Service, T)>> {
        let mut planned: Vec<Option<(&'a Service, T)>> = planned.into_iter().map(Some).collect();
        let is_node = |one: &Option<(&'a Service, T)>| {
            one.as_ref()
                .is_some_and(|(service, what)| service.role == Some(Role::Node) && is_touched(service, what))
        };
        let nodes: Vec<usize> = (0..planned.len()).filter(|&at| is_node(&planned[at])).collect();
        let services: Vec<&Service> =
            nodes.iter().filter_map(|&at| planned[at].as_ref().map(|(service, _)| *service)).collect();
        let batches = self.batches_of(&services);
        let mut groups = Vec::new();
        for at in 0..planned.len() {
            if nodes.first() == Some(&at) {
                for batch in &batches {
                    groups.push(batch.iter().filter_map(|&of| planned[nodes[of]].take()).collect());
                }
            }
            groups.extend(planned[at].take().map(|one| vec![one]));
        }
        groups
    }

    /// The same for services of which nothing more is known yet.
    pub(super) fn batches_for(
        &mut self,
        services: Vec<&'a Service>,
        is_touched: impl Fn(&Service) -> bool,
    ) -> Vec<Vec<&'a Service>> {
        let planned = services.into_iter().map(|service| (service, ())).collect();
        let groups = self.in_batches(planned, |service, ()| is_touched(service));
        groups.into_iter().map(|group| group.into_iter().map(|(service, ())| service).collect()).collect()
    }

    fn batches_of(&mut self, nodes: &[&Service]) -> Vec<Vec<usize>> {
        let most = self.desired.policy.batch;
        let Some(known) = self.what_serves().or_else(|| self.what_nodes_tell()) else {
            let runs = nodes.iter().filter(|node| self.runs(node)).count();
            let most = most.unwrap_or(1).max(1);
            if runs > 1 && most > 1 {
                let text = format!(
                    "what runs on which node is not known: the first goes alone, and then {most} at a time, as declared"
                );
                self.plan.notes.push(text);
            }
            let (first, others): (Vec<usize>, Vec<usize>) = (0..nodes.len()).partition(|&at| at == 0);
            return std::iter::once(first).chain(others.chunks(most).map(<[usize]>::to_vec)).collect();
        };
        let all = known.without(&known.down);
        // Whoever does not tell what runs on it goes alone, like one that has no name.
        let is_silent = |node: &Service| matches!(self.observed.facts.heard.get(&node.name), Some(Err(_)));
        let names =
            nodes.iter().map(|node| if is_silent(node) { BTreeSet::new() } else { self.names_of(node) });
        let names: Vec<BTreeSet<String>> = names.collect();
        let batches = batches(&names, &all, most);
        if nodes.len() > 1 {
            let words = |batch: &Vec<usize>| {
                let each: Vec<String> = batch.iter().map(|&at| format!("`{}`", nodes[at].name)).collect();
                each.join(" with ")
            };
            let each: Vec<String> = batches.iter().map(words).collect();
            let text =
                format!("nodes go by what runs on them, the one with least first: {}", each.join(", "));
            self.plan.notes.push(text);
        }
        batches
    }

    /// What serves anywhere in the cluster, or will as soon as this deployment gives back what it has drained; nothing where nobody
    /// knows.
    pub(super) fn what_serves(&self) -> Option<Known> {
        let Some(Ok(facts)) = &self.observed.facts.cluster else { return None };
        // A database of TARS is never without servers: an older tars-init does not name them.
        if facts.services.instances.is_empty() {
            return None;
        }
        let mut all = facts.services.serving(&self.desired.deployment, &self.observed.engine.id);
        all.retain(|one| one.server != NODE);
        let down = self.desired.services.iter().filter(|service| !self.runs(service));
        Some(Known { all, down: down.flat_map(|service| self.names_of(service)).collect() })
    }

    /// What serves on this deployment's own nodes, where no database can be asked and they tell it themselves. Who else serves it is
    /// not known.
    fn what_nodes_tell(&self) -> Option<Known> {
        let heard = &self.observed.facts.heard;
        let all: Vec<Instance> = heard.values().flatten().flatten().cloned().collect();
        (!heard.is_empty()).then(|| Known { all, down: BTreeSet::new() })
    }

    pub(super) fn runs(&self, service: &Service) -> bool {
        serving(self.observed, &self.desired.deployment, service).is_some_and(is_up)
    }

    /// The names by which the database may know a service's node.
    pub(super) fn names_of(&self, service: &Service) -> BTreeSet<String> {
        let now = serving(self.observed, &self.desired.deployment, service).and_then(known_by);
        let told = self.observed.facts.heard.get(&service.name).and_then(|heard| heard.as_ref().ok());
        let told = told.into_iter().flatten().map(|one| one.node.clone());
        names_in_database(service).into_iter().chain(now).chain(told).collect()
    }
}

/// The batch's phases side by side: all created, all swapped, then all proven.
pub(super) fn together(batch: Vec<Phases>) -> Vec<Step> {
    let mut phases: [Vec<Step>; 4] = Default::default();
    for one in batch {
        for (all, own) in phases.iter_mut().zip([one.prepare, one.swap, one.prove, one.settle]) {
            all.extend(own);
        }
    }
    phases.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tars::instance::instance;

    /// Nodes named `a`, `b`, ... as indices.
    fn of(nodes: &str, all: &[(&str, &str)], most: impl Into<Option<usize>>) -> Vec<Vec<usize>> {
        let nodes: Vec<BTreeSet<String>> = nodes
            .chars()
            .map(|name| if name == '?' { BTreeSet::new() } else { BTreeSet::from([name.to_string()]) })
            .collect();
        let all =
            all.iter().flat_map(|(server, on)| on.chars().map(|node| instance(server, &node.to_string())));
        batches(&nodes, &all.collect::<Vec<_>>(), most.into())
    }

    #[test]
    fn first_goes_the_one_with_least_on_it_alone() {
        let all = [("Demo.A", "abx"), ("Demo.B", "bcx"), ("Demo.C", "ax")];
        assert_eq!(of("abc", &all, 2), [vec![2], vec![0, 1]]);
        assert_eq!(of("abc", &[], 3), [vec![0], vec![1, 2]]);
        assert_eq!(of("a", &all, 3), [[0]]);
        assert!(of("", &all, 3).is_empty());
    }

    #[test]
    fn all_of_one_service_never_go_together() {
        // A node of another host has it too.
        assert_eq!(of("abc", &[("Demo.A", "abcx")], 3), [vec![0], vec![1, 2]]);
        // Whichever is first, the other two may go together: the first one serves again.
        assert_eq!(of("abc", &[("Demo.A", "abc")], 3), [vec![0], vec![1, 2]]);
        assert_eq!(of("abc", &[("Demo.A", "bc")], 3), [vec![0], vec![1], vec![2]]);
        // What may go with it goes with it, the order of the file is kept else.
        let pairs = [("Demo.A", "bc"), ("Demo.B", "de")];
        assert_eq!(of("abcde", &pairs, 4), [vec![0], vec![1, 3], vec![2, 4]]);
    }

    #[test]
    fn nodes_that_share_no_service_go_side_by_side_where_nothing_is_said() {
        let shared = [("Demo.A", "abx"), ("Demo.B", "bcx"), ("Demo.C", "dx"), ("Demo.D", "adx")];
        assert_eq!(of("abcd", &shared, None), [vec![2], vec![0], vec![1, 3]]);
        assert_eq!(of("abcd", &shared, 1), [[2], [0], [1], [3]]);
        // Not all that a machine has at once.
        assert_eq!(of("abcdef", &[], None), [vec![0], vec![1, 2, 3, 4], vec![5]]);
    }

    #[test]
    fn what_has_one_instance_alone_binds_nobody() {
        assert_eq!(of("abc", &[("Demo.A", "b"), ("Demo.B", "c")], 2), [vec![0], vec![1, 2]]);
    }

    #[test]
    fn node_that_nobody_can_name_goes_alone_and_not_first() {
        assert_eq!(of("?ab", &[], 3), [vec![1], vec![0], vec![2]]);
        assert_eq!(of("??", &[], 3), [[0], [1]]);
    }

    #[test]
    fn sets_are_services_of_their_own() {
        let in_set =
            |node: &str, set: &str| Instance { set: Some(set.to_owned()), ..instance("Demo.A", node) };
        let nodes = ["a", "b", "c"].map(|node| BTreeSet::from([node.to_owned()]));
        let all = [in_set("b", "x.y.1"), in_set("c", "x.y.1"), in_set("d", "x.y.2")];
        assert_eq!(batches(&nodes, &all, Some(2)), [[0], [1], [2]]);
        let all = [in_set("b", "x.y.1"), in_set("c", "x.y.2"), in_set("d", "x.y.1"), in_set("e", "x.y.2")];
        assert_eq!(batches(&nodes, &all, Some(2)), [vec![0], vec![1, 2]]);
    }
}
