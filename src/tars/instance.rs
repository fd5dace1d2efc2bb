//! A server on one node, as the database has it, and the rule by which one stands in for another. Pure.
//!
//! `tars-init` reads it from the database and drains by it; `tarsup` is told of it by `tars-init cluster --json` and plans by it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::registry::Adapter;

/// A server on one node. What a document of an older tars-init does not name is as if nobody had set it.
#[expect(clippy::struct_excessive_bools, reason = "each is a state of its own in the database")]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Instance {
    /// Such as `Demo.HelloServer`.
    pub server: String,
    /// The node's name.
    pub node: String,
    /// An administrator wants it to run.
    pub setting: bool,
    /// Its tarsnode said last that it runs. Nothing resets that when a container stops.
    pub present: bool,
    /// Registries hand it out.
    pub flow: bool,
    /// Its node has been heard of lately.
    pub lives: bool,
    /// `name.area.group`, where it is in a set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set: Option<String>,
    /// The group of nodes that its clients prefer, where it is grouped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Never handed out (`bak_flag`).
    pub backup: bool,
    /// `tars_cpp`, `tars_java`, ...
    #[serde(rename = "type")]
    pub kind: String,
    /// `container`, where it runs beside its node.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub run_type: String,
    /// The version that was published last.
    pub version: String,
    /// Its folder, where it is not below tarsnode's own.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub base_path: String,
    /// Its file, where it is not named like the server.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub exe_path: String,
    /// It has a start script of its own.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub scripted: bool,
    /// Where it listens.
    pub adapters: Vec<Adapter>,
}

impl Instance {
    /// True for the framework's own.
    pub fn is_framework(&self) -> bool {
        self.server.starts_with("tars.")
    }

    /// True for a registry: its own rows lie in another table, without a state of the flow, so it stays handed out.
    pub fn is_registry(&self) -> bool {
        self.server == "tars.tarsregistry"
    }

    /// True where it runs in a container beside its node: a stop of the node does not touch it.
    pub fn runs_beside(&self) -> bool {
        self.run_type == "container"
    }

    /// True where clients are sent to it, and may be in another one's place.
    pub fn serves(&self) -> bool {
        self.setting && self.present && self.flow && self.lives && !self.backup
    }

    /// True for an instance of the same service that the same clients are given: in the very same set, or both in none. Groups
    /// fall back to all endpoints: they keep nobody apart.
    pub fn stands_in_for(&self, other: &Self) -> bool {
        self.server == other.server && self.node != other.node && self.set == other.set
    }

    /// True where one of `all` serves its clients while it and these nodes are down.
    pub fn has_another(&self, all: &[Self], down: &BTreeSet<String>) -> bool {
        all.iter().any(|other| other.serves() && other.stands_in_for(self) && !down.contains(&other.node))
    }
}

/// One that serves: what tests begin with.
#[cfg(test)]
pub(crate) fn instance(server: &str, node: &str) -> Instance {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the other instance of the service on `a` stands in for it, where it is as `change` makes it.
    fn stands_in(change: impl Fn(&mut Instance)) -> bool {
        let mut other = instance("Demo.A", "b");
        change(&mut other);
        let one = instance("Demo.A", "a");
        one.has_another(&[one.clone(), other], &BTreeSet::new())
    }

    #[test]
    fn only_an_instance_that_serves_the_same_clients_elsewhere_stands_in() {
        assert!(stands_in(|_| {}));
        assert!(!stands_in(|other| other.setting = false));
        assert!(!stands_in(|other| other.present = false));
        assert!(!stands_in(|other| other.flow = false));
        assert!(!stands_in(|other| other.lives = false), "its node is dead");
        assert!(!stands_in(|other| other.backup = true), "never handed out");
        assert!(!stands_in(|other| other.set = Some("x.y.1".to_owned())), "for other clients");
        assert!(!stands_in(|other| other.server = "Demo.B".to_owned()));
        assert!(stands_in(|other| other.group = Some("sz".to_owned())), "groups fall back to all");
    }

    #[test]
    fn what_is_down_with_it_stands_in_for_nobody() {
        let all = [instance("Demo.A", "a"), instance("Demo.A", "b"), instance("Demo.A", "c")];
        let down = |nodes: &[&str]| nodes.iter().map(|node| (*node).to_owned()).collect();
        assert!(all[0].has_another(&all, &down(&["a", "b"])));
        assert!(!all[0].has_another(&all, &down(&["a", "b", "c"])));
    }

    #[test]
    fn document_of_an_older_one_is_read() {
        let text = r#"{"server":"Demo.A","node":"a","setting":true,"present":true,"flow":true,"lives":true}"#;
        assert_eq!(serde_json::from_str::<Instance>(text).unwrap(), instance("Demo.A", "a"));
    }
}
