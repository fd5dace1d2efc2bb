//! Which servers of a few nodes can be taken out of what registries hand out, and which cannot, and why. Pure.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::init::instances::Instance;

/// A server that goes silent, because it cannot be drained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// Such as `Demo.HelloServer`.
    pub server: String,
    /// The node.
    pub node: String,
    /// Why, in a few words.
    pub why: String,
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
/// backup. `drained` names what is drained by anybody, as server and node.
pub fn choose(
    instances: &[Instance],
    nodes: &BTreeSet<String>,
    drained: &BTreeSet<(String, String)>,
) -> Choice {
    let mut choice = Choice::default();
    let is_drained = |one: &Instance| drained.contains(&(one.server.clone(), one.node.clone()));
    for (at, one) in instances.iter().enumerate() {
        if !nodes.contains(&one.node) || !one.serves() || is_drained(one) {
            continue;
        }
        let gap = |why: &str| Gap { server: one.server.clone(), node: one.node.clone(), why: why.to_owned() };
        // A registry's own rows lie in another table, without a state of the flow.
        if one.server == "tars.tarsregistry" {
            choice.gaps.push(gap("registries stay handed out"));
            continue;
        }
        let others: Vec<&Instance> = instances.iter().filter(|other| other.stands_in_for(one)).collect();
        let elsewhere = |other: &&&Instance| !nodes.contains(&other.node) && !is_drained(other);
        if others.iter().filter(elsewhere).any(|other| other.serves()) {
            choice.drained.push(at);
        } else if others.is_empty() {
            choice.gaps.push(gap("it is the only instance"));
        } else {
            choice.gaps.push(gap("no other instance serves"));
        }
    }
    choice
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(server: &str, node: &str) -> Instance {
        Instance {
            server: server.to_owned(),
            node: node.to_owned(),
            setting: true,
            present: true,
            flow: true,
            lives: true,
            ..Instance::default()
        }
    }

    fn nodes(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// What is drained on node `a`, where the other instance is as `change` makes it.
    fn drains(change: impl Fn(&mut Instance)) -> bool {
        let mut other = instance("Demo.A", "b");
        change(&mut other);
        let choice = choose(&[instance("Demo.A", "a"), other], &nodes(&["a"]), &BTreeSet::new());
        assert_eq!(choice.drained.len() + choice.gaps.len(), 1);
        choice.drained == [0]
    }

    #[test]
    fn only_an_instance_that_serves_the_same_clients_elsewhere_stands_in() {
        assert!(drains(|_| {}));
        assert!(!drains(|other| other.setting = false));
        assert!(!drains(|other| other.present = false));
        assert!(!drains(|other| other.flow = false));
        assert!(!drains(|other| other.lives = false), "its node is dead");
        assert!(!drains(|other| other.backup = true), "never handed out");
        assert!(!drains(|other| other.set = Some("x.y.1".to_owned())), "for other clients");
        assert!(!drains(|other| other.server = "Demo.B".to_owned()));
        assert!(drains(|other| other.group = Some("sz".to_owned())), "groups fall back to all");
    }

    #[test]
    fn batch_never_takes_the_last_one() {
        let all = [instance("Demo.A", "a"), instance("Demo.A", "b"), instance("Demo.A", "c")];
        let of = |names: &[&str]| choose(&all, &nodes(names), &BTreeSet::new());
        assert_eq!(of(&["a", "b"]).drained, [0, 1]);
        let whole = of(&["a", "b", "c"]);
        assert!(whole.drained.is_empty());
        assert_eq!(whole.gaps[0].why, "no other instance serves");
        // Another host drains the third one right now.
        let drained = BTreeSet::from([("Demo.A".to_owned(), "c".to_owned())]);
        assert!(choose(&all, &nodes(&["a", "b"]), &drained).drained.is_empty());
    }

    #[test]
    fn what_is_stopped_or_a_backup_or_a_registry_is_not_drained() {
        let mut stopped = instance("Demo.A", "a");
        stopped.flow = false;
        let mut backup = instance("Demo.B", "a");
        backup.backup = true;
        let registry = |node| instance("tars.tarsregistry", node);
        let all =
            [stopped, instance("Demo.A", "b"), backup, instance("Demo.B", "b"), registry("a"), registry("b")];
        let choice = choose(&all, &nodes(&["a"]), &BTreeSet::new());
        assert!(choice.drained.is_empty());
        assert_eq!(choice.gaps.len(), 1);
        assert_eq!(choice.gaps[0].why, "registries stay handed out");
    }
}
