//! What is deployed on the nodes of a cluster, as its database has it: which services serve where, and which of them go silent when a
//! node restarts. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::diagnose::first_few;
use crate::tars::Instance;

/// A drain, as `tars-init cluster --json` names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Drain {
    /// Such as `Demo.HelloServer`.
    pub server: String,
    /// The node.
    pub node: String,
    /// Whose deployment it is.
    pub deployment: String,
    /// The id of the engine that it is rolled on; empty where an older tars-init does not name it.
    pub host: String,
    /// Since when, by the database's clock.
    pub since: String,
}

/// The services of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Services {
    /// Every instance, ordered by server and node.
    #[serde(rename = "servers")]
    pub instances: Vec<Instance>,
    /// What a rollout has taken out of what registries hand out.
    pub drains: Vec<Drain>,
}

impl Drain {
    /// True where this deployment on this engine has begun it.
    pub fn is_of(&self, deployment: &str, host: &str) -> bool {
        self.deployment == deployment && self.host == host
    }
}

/// Those on these nodes that serve and have nobody elsewhere among `all` to stand in for them: their clients are let down while
/// the nodes are stopped together. The framework's own are not among them, nor what runs beside its node.
pub fn let_down<'a>(all: &'a [Instance], nodes: &BTreeSet<String>) -> Vec<&'a Instance> {
    let goes_with_it = |one: &&Instance| !one.is_framework() && !one.runs_beside();
    let on_them = all.iter().filter(|one| nodes.contains(&one.node) && one.serves()).filter(goes_with_it);
    on_them.filter(|one| !one.has_another(all, nodes)).collect()
}

impl Services {
    /// What it does, in a few words.
    pub fn state(&self, instance: &Instance) -> String {
        let drain =
            self.drains.iter().find(|drain| drain.server == instance.server && drain.node == instance.node);
        match drain {
            _ if !instance.setting => "stopped".to_owned(),
            _ if !instance.lives => "its node is dead".to_owned(),
            _ if !instance.present => "down".to_owned(),
            Some(drain) => format!("drained by {} since {}", drain.deployment, drain.since),
            None if !instance.flow => "not handed out".to_owned(),
            None if instance.backup => "backup".to_owned(),
            None => "serves".to_owned(),
        }
    }

    /// What clients are kept away from right now, a line for each deployment that has drained something; `deployment` is the one that
    /// is spoken of.
    pub fn drained(&self, deployment: &str) -> Vec<String> {
        let mut by_deployment: BTreeMap<&str, Vec<&Drain>> = BTreeMap::new();
        for drain in &self.drains {
            by_deployment.entry(&drain.deployment).or_default().push(drain);
        }
        let line = |(name, drains): (&str, Vec<&Drain>)| {
            let places: Vec<String> = drains
                .iter()
                .map(|drain| format!("{} on {} since {}", drain.server, drain.node, drain.since))
                .collect();
            let how = if name == deployment {
                "`tarsup up` after a `down`, the next deploy that drains, or `tarsup resume`, gives it back"
                    .to_owned()
            } else {
                format!(
                    "by the deployment `{name}`, which rolls right now or was cut off: `tarsup resume` there gives it back"
                )
            };
            format!("drained, so that no client is sent there: {} ({how})", first_few(&places))
        };
        by_deployment.into_iter().map(line).collect()
    }

    /// True where its clients have nobody else: no other instance in the very same set serves.
    pub fn is_only(&self, instance: &Instance) -> bool {
        instance.serves() && !instance.has_another(&self.instances, &BTreeSet::new())
    }

    /// Those that serve now, or as soon as this deployment, rolled from this host, gives back what it has drained. What anybody
    /// else has drained may go at any moment.
    pub fn serving(&self, deployment: &str, host: &str) -> Vec<Instance> {
        let mut all = self.instances.clone();
        for one in &mut all {
            let drained =
                self.drains.iter().find(|drain| drain.server == one.server && drain.node == one.node);
            if let Some(drain) = drained {
                one.flow = drain.is_of(deployment, host);
            }
        }
        all.retain(Instance::serves);
        all
    }

    /// The drains of others that hold the only other instance of something on these nodes: while they last, it cannot be drained.
    pub fn held_by_others(&self, deployment: &str, host: &str, nodes: &BTreeSet<String>) -> Vec<&Drain> {
        let (serving, none) = (self.serving(deployment, host), BTreeSet::new());
        let of = |drain: &Drain| {
            self.instances.iter().find(|one| one.server == drain.server && one.node == drain.node)
        };
        let alone = |one: &&Instance| nodes.contains(&one.node) && !one.has_another(&serving, &none);
        let holds = |drain: &&Drain| {
            of(drain).is_some_and(|held| serving.iter().filter(alone).any(|one| held.stands_in_for(one)))
        };
        self.drains.iter().filter(|drain| !drain.is_of(deployment, host)).filter(holds).collect()
    }

    /// The servers that go silent while a node restarts, by node.
    pub fn interrupted(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut by_node: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for instance in self.instances.iter().filter(|instance| !instance.is_framework()) {
            let silent = by_node.entry(&instance.node).or_default();
            if self.is_only(instance) && !instance.runs_beside() {
                silent.insert(&instance.server);
            }
        }
        by_node
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tars::instance::instance;

    #[test]
    fn only_instance_of_a_set_goes_silent_with_its_node() {
        let of_set =
            |node: &str, set: &str| Instance { set: Some(set.to_owned()), ..instance("Demo.Set", node) };
        let instances = vec![
            instance("Demo.A", "a"),
            instance("Demo.A", "b"),
            instance("Demo.Alone", "a"),
            of_set("a", "x.y.1"),
            of_set("b", "x.y.2"),
            instance("tars.tarslog", "a"),
        ];
        let services = Services { instances, drains: Vec::new() };
        let silent = services.interrupted();
        assert_eq!(silent["a"], BTreeSet::from(["Demo.Alone", "Demo.Set"]));
        assert_eq!(silent["b"], BTreeSet::from(["Demo.Set"]));
    }

    #[test]
    fn batch_of_all_nodes_lets_down_what_each_of_them_alone_would_not() {
        let instances = vec![instance("Demo.A", "a"), instance("Demo.A", "b"), instance("tars.tarslog", "a")];
        let of = |nodes: &[&str]| {
            let nodes = nodes.iter().map(|node| (*node).to_owned()).collect();
            let_down(&instances, &nodes).iter().map(|one| one.node.clone()).collect::<Vec<_>>()
        };
        assert!(of(&["a"]).is_empty() && of(&["b"]).is_empty());
        assert_eq!(of(&["a", "b"]), ["a", "b"]);
    }

    #[test]
    fn what_runs_beside_its_node_goes_on_without_it() {
        let beside = Instance { run_type: "container".to_owned(), ..instance("Demo.Beside", "a") };
        let services = Services { instances: vec![instance("Demo.Alone", "a"), beside], drains: Vec::new() };
        assert_eq!(services.interrupted()["a"], BTreeSet::from(["Demo.Alone"]));
        let nodes = BTreeSet::from(["a".to_owned()]);
        let down: Vec<_> = let_down(&services.instances, &nodes).iter().map(|one| &*one.server).collect();
        assert_eq!(down, ["Demo.Alone"]);
    }

    #[test]
    fn drain_that_was_left_is_told_with_whose_it_is() {
        let drain = |node: &str, deployment: &str| Drain {
            server: "Demo.A".to_owned(),
            node: node.to_owned(),
            deployment: deployment.to_owned(),
            since: "2026-01-02 03:04:05".to_owned(),
            ..Drain::default()
        };
        let drains = vec![drain("a", "tars"), drain("b", "east"), drain("c", "tars")];
        let told = Services { instances: Vec::new(), drains }.drained("tars");
        assert_eq!(told.len(), 2, "{told:#?}");
        assert!(
            told[0].contains("Demo.A on b since 2026-01-02 03:04:05 (by the deployment `east`"),
            "{told:#?}"
        );
        assert!(told[1].contains("Demo.A on a") && told[1].contains("Demo.A on c"), "{told:#?}");
        assert!(told[1].contains("`tarsup resume`, gives it back") && !told[1].contains("east"), "{told:#?}");
        assert!(Services::default().drained("tars").is_empty());
    }

    #[test]
    fn state_is_told_by_what_counts_most() {
        let mut services = Services { instances: vec![instance("Demo.A", "a")], drains: Vec::new() };
        let state = |services: &Services, change: &dyn Fn(&mut Instance)| {
            let mut one = instance("Demo.A", "a");
            change(&mut one);
            services.state(&one)
        };
        assert_eq!(state(&services, &|_| {}), "serves");
        assert_eq!(state(&services, &|one| one.flow = false), "not handed out");
        assert_eq!(state(&services, &|one| one.present = false), "down");
        assert_eq!(state(&services, &|one| (one.setting, one.present) = (false, false)), "stopped");
        assert_eq!(state(&services, &|one| one.lives = false), "its node is dead");
        services.drains.push(Drain {
            server: "Demo.A".to_owned(),
            node: "a".to_owned(),
            deployment: "tars".to_owned(),
            since: "2026-01-02 03:04:05".to_owned(),
            ..Drain::default()
        });
        assert_eq!(state(&services, &|one| one.flow = false), "drained by tars since 2026-01-02 03:04:05");
    }

    #[test]
    fn what_this_deployment_has_drained_will_serve_again_and_what_another_has_may_not() {
        let drained = |node: &str| Instance { flow: false, ..instance("Demo.A", node) };
        let by = |node: &str, deployment: &str, host: &str| Drain {
            server: "Demo.A".to_owned(),
            node: node.to_owned(),
            deployment: deployment.to_owned(),
            host: host.to_owned(),
            ..Drain::default()
        };
        let instances =
            vec![instance("Demo.A", "a"), drained("b"), drained("c"), instance("Demo.A", "d"), drained("e")];
        // Somebody gave `d` back, and whoever drained it is about to stop it.
        let drains = vec![by("b", "tars", "here"), by("c", "tars", "there"), by("d", "other", "here")];
        let services = Services { instances, drains };
        let serving = services.serving("tars", "here");
        assert_eq!(serving.iter().map(|one| one.node.as_str()).collect::<Vec<_>>(), ["a", "b"]);

        let two = Services {
            instances: vec![instance("Demo.A", "a"), drained("c"), instance("Demo.B", "d")],
            drains: vec![by("c", "tars", "there")],
        };
        let held = |node: &str| two.held_by_others("tars", "here", &BTreeSet::from([node.to_owned()])).len();
        assert_eq!((held("a"), held("d")), (1, 0));
    }
}
