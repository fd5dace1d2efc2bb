//! Which servers of a few nodes can be taken out of what registries hand out, and which cannot, and why. Pure.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::tars::Instance;

/// A server that goes silent, because it cannot be drained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// Such as `Demo.HelloServer`.
    pub server: String,
    /// The node.
    pub node: String,
    /// Why, in a few words.
    pub why: String,
    /// Another one would do, but for a drain that somebody else will end.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub held: bool,
}

/// What is to be done with the servers of these nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// To be drained, as indices of the instances.
    pub drained: Vec<usize>,
    /// Served nowhere else.
    pub gaps: Vec<Gap>,
}

/// Chooses. A server that an administrator has stopped, or taken out of what is handed out, is none of ours, and neither is a
/// backup; one that runs beside its node goes on. What is on the nodes `besides` is stopped meanwhile; `drained` names what is drained by anybody, as server and node.
pub fn choose(
    instances: &[Instance],
    nodes: &BTreeSet<String>,
    besides: &BTreeSet<String>,
    drained: &BTreeSet<(String, String)>,
) -> Choice {
    let mut choice = Choice::default();
    let is_drained = |one: &Instance| drained.contains(&(one.server.clone(), one.node.clone()));
    // Whoever gave one back meanwhile: it may go at any moment.
    let flows = |one: &Instance| one.flow && !is_drained(one) && !besides.contains(&one.node);
    let known: Vec<Instance> =
        instances.iter().map(|one| Instance { flow: flows(one), ..one.clone() }).collect();
    for (at, one) in known.iter().enumerate() {
        if !nodes.contains(&one.node) || !one.serves() || one.runs_beside() {
            continue;
        }
        let gap = |why: &str| {
            let would_do = |at: usize| Instance { flow: true, ..known[at].clone() }.serves();
            let mut others =
                (0..known.len()).filter(|&at| known[at].stands_in_for(one) && is_drained(&known[at]));
            let held = others.any(|at| !nodes.contains(&known[at].node) && would_do(at));
            Gap { server: one.server.clone(), node: one.node.clone(), why: why.to_owned(), held }
        };
        if one.is_registry() {
            choice.gaps.push(gap("registries stay handed out"));
        } else if one.has_another(&known, nodes) {
            choice.drained.push(at);
        } else if known.iter().any(|other| other.stands_in_for(one)) {
            choice.gaps.push(gap("no other instance serves"));
        } else {
            choice.gaps.push(gap("it is the only instance"));
        }
    }
    choice
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tars::instance::instance;

    fn nodes(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn batch_never_takes_the_last_one() {
        let all = [instance("Demo.A", "a"), instance("Demo.A", "b"), instance("Demo.A", "c")];
        let none = BTreeSet::new();
        let of = |names: &[&str]| choose(&all, &nodes(names), &none, &BTreeSet::new());
        assert_eq!(of(&["a", "b"]).drained, [0, 1]);
        let whole = of(&["a", "b", "c"]);
        assert!(whole.drained.is_empty());
        assert_eq!(whole.gaps[0].why, "no other instance serves");
        // Another host drains the third one right now.
        let drained = BTreeSet::from([("Demo.A".to_owned(), "c".to_owned())]);
        let held = choose(&all, &nodes(&["a", "b"]), &none, &drained);
        assert!(held.drained.is_empty());
        assert!(held.gaps.iter().all(|gap| gap.held) && !whole.gaps[0].held);
    }

    #[test]
    fn what_is_stopped_beside_it_is_in_nobodys_place() {
        let (two, none) = ([instance("Demo.A", "a"), instance("Demo.A", "b")], BTreeSet::new());
        let three = [two[0].clone(), two[1].clone(), instance("Demo.A", "c")];
        let of = |all: &[Instance]| choose(all, &nodes(&["b"]), &nodes(&["a"]), &none).drained;
        assert_eq!(of(&three), [1]);
        assert!(of(&two).is_empty());
        assert_eq!(choose(&two, &nodes(&["b"]), &BTreeSet::new(), &none).drained, [1]);
    }

    #[test]
    fn what_is_stopped_or_a_backup_or_a_registry_or_beside_its_node_is_not_drained() {
        let mut stopped = instance("Demo.A", "a");
        stopped.flow = false;
        let mut backup = instance("Demo.B", "a");
        backup.backup = true;
        let registry = |node| instance("tars.tarsregistry", node);
        // A stop of its node does not touch it.
        let beside = |node| Instance { run_type: "container".to_owned(), ..instance("Demo.C", node) };
        let all = [
            stopped,
            instance("Demo.A", "b"),
            backup,
            instance("Demo.B", "b"),
            registry("a"),
            registry("b"),
            beside("a"),
            beside("b"),
        ];
        let choice = choose(&all, &nodes(&["a"]), &BTreeSet::new(), &BTreeSet::new());
        assert!(choice.drained.is_empty());
        assert_eq!(choice.gaps.len(), 1);
        assert_eq!(choice.gaps[0].why, "registries stay handed out");
    }
}
