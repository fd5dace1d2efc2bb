//! Batches, drains and gaps as plans show them, by what runs where: random clusters, and the way back.

use std::collections::BTreeSet;

use super::deploys::{rollback, without_failed};
use super::plans::golden;
use super::*;
use crate::fake::{Behaviour, Call, Fault, Moment};
use proptest::prelude::*;
use tarsup::deploy::facts::ClusterFacts;
use tarsup::deploy::observed::Observed;
use tarsup::deploy::services::Services;
use tarsup::diagnose::{Diagnose as _, Exit};
use tarsup::engine::Status;
use tarsup::tars::Instance;
use tarsup::upgrade::plan::plan;
use tarsup::upgrade::render;
use tarsup::upgrade::step::Action;

/// Hosts of the cluster beyond the deployment's.
const ELSEWHERE: u8 = 3;
const NODES: u8 = 6;

pub fn node(of: u8) -> String {
    format!("node{of}")
}

/// The address of the deployment's n-th node; those of other hosts follow.
pub fn address(of: u8) -> String {
    format!("172.25.0.{}", 10 + of)
}

/// Database, master, slave and six nodes.
pub fn with_nodes() -> Desired {
    let mut desired = desired();
    desired.services.retain(|service| service.role != Some(Role::Node));
    for of in 0..NODES {
        desired.services.push(service(&node(of), Some(Role::Node), "tars/node:1", 10 + of));
    }
    desired
}

pub fn instance(server: &str, node: &str) -> Instance {
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

/// One server of one service somewhere: which, where, in which set, and what is wrong with it.
fn instances() -> impl Strategy<Value = Vec<Instance>> {
    let one = (0u8..5, 0..NODES + ELSEWHERE, 0u8..8, 0u8..24).prop_map(|(server, at, set, wrong)| Instance {
        set: (set == 0).then(|| "x.y.1".to_owned()),
        setting: wrong != 1,
        present: wrong != 2,
        flow: wrong != 3,
        lives: wrong != 4,
        backup: wrong == 5,
        ..instance(&format!("Demo.{server}"), &address(at))
    });
    proptest::collection::vec(one, 1..16).prop_map(|mut all| {
        all.sort_by(|a, b| (&a.server, &a.node).cmp(&(&b.server, &b.node)));
        all.dedup_by(|a, b| (&a.server, &a.node) == (&b.server, &b.node));
        all
    })
}

/// A cluster: what runs where, how many nodes go at a time, which of the deployment's are declared and which of those are stopped.
#[derive(Clone, Debug)]
struct Cluster {
    instances: Vec<Instance>,
    batch: Option<usize>,
    declared: BTreeSet<u8>,
    stopped: BTreeSet<u8>,
    command: usize,
}

fn clusters() -> impl Strategy<Value = Cluster> {
    let some = |least: usize| proptest::collection::btree_set(0..NODES, least..=usize::from(NODES));
    let stopped = proptest::collection::btree_set(0..NODES, 0..2);
    (instances(), proptest::option::of(1usize..5), some(1), stopped, 0usize..4).prop_map(
        |(instances, batch, declared, stopped, command)| Cluster {
            instances,
            batch,
            declared,
            stopped,
            command,
        },
    )
}

/// What the engine shows before each command, and the command.
struct Shown {
    desired: Desired,
    observed: Observed,
    intent: Intent,
}

/// `upgrade`, `restart`, `rollback` and an `up` of edited files, on the whole deployment.
async fn shown() -> Vec<Shown> {
    let desired = with_nodes();
    let engine = running(&desired).await;
    let upgrade = to_2(&desired);
    let mut edited = desired.clone();
    for service in edited.services.iter_mut().filter(|service| service.role == Some(Role::Node)) {
        service.image = service.image.with_tag("2");
    }
    let upgraded = engine.fork();
    roll(&upgraded, &Machine::new(), &desired, &id(2), &upgrade).await.unwrap();
    let at_2 = upgrade.apply(&desired);
    let back = rollback(&upgraded, &at_2, None).await;
    let restart = Intent::Restart { services: Vec::new(), ask_with: None };
    let mut all = Vec::new();
    for (engine, desired, intent) in [
        (&engine, &desired, upgrade),
        (&engine, &desired, restart),
        (&upgraded, &at_2, back),
        (&engine, &edited, Intent::Up),
    ] {
        let desired = intent.apply(desired);
        all.push(Shown { observed: observe(engine, &desired).await.unwrap(), desired, intent });
    }
    all
}

/// Follows the finished plan step by step: who is down or drained when, and whether a service that has several instances ever has
/// none. What is drained is chosen as the database does it, which does not know who was stopped.
fn silenced(plan: &Plan, desired: &Desired, observed: &Observed, instances: &[Instance]) -> Option<String> {
    let address_of = |name: &str| -> Option<String> {
        let service = desired.service(name)?;
        service.declaration.endpoints.iter().find_map(|endpoint| endpoint.ipv4.clone())
    };
    let runs = |service: &&Service| {
        observed.container(&service.container).is_some_and(|container| container.status == Status::Running)
    };
    let mut down: BTreeSet<String> =
        desired.services.iter().filter(|one| !runs(one)).filter_map(|one| address_of(&one.name)).collect();
    let serves = |one: &&Instance| one.setting && one.present && one.flow && one.lives && !one.backup;
    let serving: Vec<&Instance> =
        instances.iter().filter(serves).filter(|one| !down.contains(&one.node)).collect();
    let addresses = |containers: &[String]| -> BTreeSet<String> {
        let names = containers.iter().filter_map(|name| name.strip_prefix("tars-"));
        names.filter_map(address_of).collect()
    };
    let same = |one: &Instance, other: &Instance| other.server == one.server && other.set == one.set;
    let mut drained: Vec<&Instance> = Vec::new();
    // What was stopped before, and is started on the way, serves from then on.
    let mut not_up = down.clone();
    for step in &plan.steps {
        let Some(at) = step.service.as_ref().and_then(|name| address_of(name)) else { continue };
        match &step.action {
            Action::Stop { .. } => drop(down.insert(at)),
            Action::Gate { .. } => {
                down.remove(&at);
                not_up.remove(&at);
            }
            Action::Undrain { containers } => {
                let back = addresses(containers);
                drained.retain(|one| !back.contains(&one.node));
            }
            Action::Drain { containers, .. } | Action::DrainAhead { containers, .. } => {
                let besides = match &step.action {
                    Action::DrainAhead { besides, .. } => addresses(besides),
                    _ => BTreeSet::new(),
                };
                let nodes = addresses(containers);
                let serving: Vec<&Instance> =
                    instances.iter().filter(serves).filter(|one| !not_up.contains(&one.node)).collect();
                let flows = |other: &&Instance| !drained.contains(other) && !besides.contains(&other.node);
                let chosen: Vec<&Instance> = serving
                    .iter()
                    .copied()
                    .filter(|one| nodes.contains(&one.node) && !drained.contains(one))
                    .filter(|one| {
                        let mut others = serving.iter().copied().filter(|other| !nodes.contains(&other.node));
                        others.any(|other| same(one, other) && flows(&other))
                    })
                    .collect();
                if matches!(step.action, Action::DrainAhead { .. }) {
                    let elsewhere = |one: &Instance| {
                        serving.iter().any(|other| same(one, other) && !nodes.contains(&other.node))
                    };
                    let all = serving.iter().filter(|one| nodes.contains(&one.node) && elsewhere(one));
                    if all.count() > chosen.len() {
                        return Some(format!("`{}` leaves some to wait for", render::line(&step.action)));
                    }
                }
                drained.extend(chosen);
            }
            _ => continue,
        }
        for one in &serving {
            let has_several = serving.iter().any(|other| same(one, other) && other.node != one.node);
            let up = instances.iter().filter(serves).filter(|other| !not_up.contains(&other.node));
            if has_several
                && up
                    .filter(|other| same(one, other))
                    .all(|other| down.contains(&other.node) || drained.contains(&other))
            {
                return Some(format!("{} is silent at `{}`", one.server, render::line(&step.action)));
            }
        }
    }
    None
}

#[test]
fn no_plan_has_all_instances_of_a_service_down_between_two_gates() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let shown = runtime.block_on(shown());
    let config = ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() };
    let (several, ahead) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    proptest!(config, |(cluster in clusters())| {
        let Shown { desired, observed, intent } = &shown[cluster.command];
        let (mut desired, mut observed) = (desired.clone(), observed.clone());
        let is_left_out = |service: &Service| (0..NODES).any(|of| service.name == node(of) && !cluster.declared.contains(&of));
        desired.services.retain(|service| !is_left_out(service));
        desired.policy.batch = cluster.batch;
        for container in &mut observed.containers {
            if cluster.stopped.iter().any(|of| container.name == format!("tars-{}", node(*of))) {
                container.status = Status::Exited;
            }
        }
        let services = Services { instances: cluster.instances.clone(), drains: Vec::new() };
        observed.facts.cluster = Some(Ok(ClusterFacts::of(services)));
        let plan = match plan(&id(9), &desired, &observed, intent, &[]) {
            Ok(plan) => plan,
            Err(refusal) => return Err(TestCaseError::fail(refusal.to_string())),
        };
        let silent = silenced(&plan, &desired, &observed, &cluster.instances);
        prop_assert!(silent.is_none(), "{}\n{}", silent.unwrap_or_default(), render::plan(&plan));
        let drains = plan.steps.iter().filter(|step| matches!(&step.action, Action::Drain { containers, .. } if containers.len() > 1));
        several.set(several.get() + drains.count());
        ahead.set(ahead.get() + plan.steps.iter().filter(|step| step.action.kind() == "drain-ahead").count());
    });
    assert!(several.get() > 1_000, "only {} batches of several nodes", several.get());
    assert!(ahead.get() > 1_000, "only {} drained ahead", ahead.get());
}

/// What the database says that serves.
pub fn tell(engine: &FakeEngine, instances: &[(&str, &[u8])]) {
    let all =
        instances.iter().flat_map(|(server, on)| on.iter().map(move |of| instance(server, &address(*of))));
    engine.tell("servers", json!(all.collect::<Vec<_>>()));
}

async fn offered(engine: &FakeEngine, desired: &Desired, intent: &Intent) -> String {
    let offer = deploy(engine, &Machine::new(), desired).offer(&request(&id(9), intent)).await.unwrap();
    render::offer(&offer)
}

#[tokio::test(start_paused = true)]
async fn plan_of_nodes_goes_by_what_runs_on_them() {
    let mut desired = with_nodes();
    desired.policy.batch = Some(3);
    desired.policy.backup.way = BackupWay::None;
    let engine = running(&desired).await;
    // Of a service on two nodes never both; of one that runs elsewhere too any; the fifth node has nothing.
    tell(&engine, &[("Demo.A", &[0, 1]), ("Demo.B", &[2, 3, 7]), ("Demo.C", &[5]), ("Demo.D", &[0, 2, 5])]);
    let nodes = Intent::upgrade_image(&desired, &"tars/node:2".parse().unwrap());
    golden("upgrade_by_what_runs", &offered(&engine, &desired, &nodes).await);
    let machine = Machine::new();
    roll(&engine, &machine, &desired, &id(2), &nodes).await.unwrap();
    assert!(!engine.dump().contains("tars-node0 running restart=always image=tars/node:1"));
    assert!(!engine.dump().contains("drained "));
    let restart = Intent::Restart { services: vec![node(0), node(4), node(1)], ask_with: None };
    let text = offered(&engine, &nodes.apply(&desired), &restart).await;
    assert!(text.contains("with least first: `node4`, `node0`, `node1`\n"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn next_node_is_drained_while_one_is_swapped_where_everything_serves_beside_both() {
    let mut desired = with_nodes();
    desired.policy.client_refresh = Duration::from_mins(1);
    let engine = running(&desired).await;
    // One on all three nodes, one on two of them alone.
    tell(&engine, &[("Demo.A", &[0, 1, 2, 7]), ("Demo.B", &[1, 2])]);
    let restart = Intent::Restart { services: vec![node(0), node(1), node(2)], ask_with: None };
    golden("restart_drained_ahead", &offered(&engine, &desired, &restart).await);
    let machine = Machine::new();
    roll(&engine, &machine, &desired, &id(2), &restart).await.unwrap();
    let said = machine.said.lock().unwrap().join("\n");
    assert!(said.contains("drained ahead: Demo.Hello on "), "{said}");
    // What it has waited for already is not waited for again.
    let over = "clients ask anew within 60 s, of which ";
    assert_eq!(said.matches(over).count(), 1, "{said}");
    assert!(!engine.dump().contains("drained "), "{}", engine.dump());
}

#[tokio::test(start_paused = true)]
async fn what_a_run_that_was_cut_off_has_drained_ahead_is_given_back_before_another_is_drained() {
    let desired = with_nodes();
    let engine = running(&desired).await;
    tell(&engine, &[("Demo.A", &[0, 1, 2, 7])]);
    let own =
        json!({"server": "Demo.A", "node": address(2), "deployment": "tars", "host": "FAKE", "since": ""});
    engine.tell("drains", json!([own]));
    let restart = Intent::Restart { services: vec![node(0), node(1), node(2)], ask_with: None };
    let text = offered(&engine, &desired, &restart).await;
    let of = |text: &str, words: &str| text.find(words).unwrap_or_else(|| panic!("no {words}: {text}"));
    assert!(
        of(&text, "give back what was drained in tars-node2\n")
            < of(&text, "drain what serves in tars-node0 ")
    );
}

#[tokio::test(start_paused = true)]
async fn what_serves_elsewhere_too_is_drained_before_it_goes_down_and_given_back_when_it_is_up() {
    let desired = with_nodes();
    let engine = running(&desired).await;
    tell(&engine, &[("Demo.A", &[0, 1]), ("tars.tarslog", &[2])]);
    let down = Intent::Down { all: false };
    assert!(!offered(&engine, &desired, &down).await.contains("drain"), "nobody else serves");
    tell(&engine, &[("Demo.A", &[0, 1, 7]), ("Demo.B", &[3])]);
    let text = offered(&engine, &desired, &down).await;
    assert!(text.contains("drain what serves in tars-node5, "), "{text}");
    assert!(text.contains("silent while its container is stopped: Demo.B on 172.25.0.13. Go on?"), "{text}");
    roll(&engine, &Machine::new(), &desired, &id(2), &down).await.unwrap();
    assert!(engine.dump().contains("drained node0\n"), "it is handed out no more: {}", engine.dump());
    roll(&engine, &Machine::new(), &desired, &id(3), &Intent::Up).await.unwrap();
    assert!(!engine.dump().contains("drained "), "{}", engine.dump());
}

#[tokio::test(start_paused = true)]
async fn what_was_proven_already_is_drained_on_the_way_back_and_what_was_not_is_not() {
    let desired = with_nodes();
    let engine = running(&desired).await;
    tell(&engine, &[("Demo.A", &[0, 1, 2, 3, 4, 5])]);
    let before = engine.dump();
    for healthy in [0, 1] {
        engine.behave_named(&format!("tars-{}", node(healthy)), Behaviour::default());
    }
    engine.behave("tars/node:2", Behaviour { healthy_after: None, ..Behaviour::default() });
    let nodes = Intent::upgrade_image(&desired, &"tars/node:2".parse().unwrap());
    let machine = Machine::new();
    let failed = roll(&engine, &machine, &desired, &id(2), &nodes).await.unwrap_err();
    assert!(matches!(failed, DeployFailure::RolledBack { .. }), "{failed}");
    let said = machine.said.lock().unwrap().clone();
    let way_back: Vec<&str> =
        said.iter().map(String::as_str).filter(|line| line.starts_with("undo")).collect();
    let of = |text: &str| way_back.iter().position(|line| line.contains(text));
    assert!(of("drain what serves in tars-node2 ").is_none(), "{way_back:#?}");
    let (given, drained, stopped) = (
        of("give back what was drained in tars-node2"),
        of("drain what serves in tars-node1 "),
        of("stop tars-node1 "),
    );
    assert!(given.is_some() && given < drained && drained < stopped, "{way_back:#?}");
    assert_eq!(without_failed(&engine.dump()), before);
}

#[tokio::test(start_paused = true)]
async fn rest_of_a_deploy_that_was_cut_off_goes_by_what_runs_there_too() {
    let mut desired = with_nodes();
    desired.policy.batch = Some(6);
    let engine = running(&desired).await;
    tell(&engine, &[("Demo.A", &[0, 1]), ("Demo.B", &[2, 3])]);
    let nodes = Intent::upgrade_image(&desired, &"tars/node:2".parse().unwrap());
    let machine = Machine::killed();
    let command = deploy(&engine, &machine, &desired);
    let offer = command.offer(&request(&id(2), &nodes)).await.unwrap();
    engine.fault(Call::First("stop tars-node4".to_owned()), Moment::After, Fault::Crash);
    tokio::select! {
        _ = command.roll(&offer) => panic!("it was not killed"),
        () = engine.crashed() => {}
    }
    engine.clear_faults();
    // What is drained stays so until its gate, and is given back before the next batch goes.
    let own =
        json!({"server": "Demo.A", "node": address(4), "deployment": "tars", "host": "FAKE", "since": ""});
    engine.tell("drains", json!([own]));
    let options = ResumeOptions { forward: true, ..ResumeOptions::default() };
    let next = machine.next();
    let rest = deploy(&engine, &next, &desired).preview(&options).await.unwrap().unwrap();
    golden("rest_by_what_runs", &render::plan(&rest));
    assert!(matches!(resume(&engine, &next, &desired, true).await.unwrap(), Resumed::Completed(_)));
}

#[tokio::test(start_paused = true)]
async fn clients_that_are_sent_to_another_group_and_nodes_of_other_hosts_are_named() {
    let desired = with_nodes();
    let engine = running(&desired).await;
    let of = |server: &str, at: u8, group: &str| Instance {
        group: Some(group.to_owned()),
        ..instance(server, &address(at))
    };
    engine.tell(
        "servers",
        json!([of("Demo.A", 0, "sz"), of("Demo.A", 7, "gz"), of("Demo.B", 0, "sz"), of("Demo.B", 8, "sz")]),
    );
    let restart = Intent::Restart { services: vec![node(0)], ask_with: None };
    let text = offered(&engine, &desired, &restart).await;
    assert!(text.contains("to another group meanwhile: Demo.A on 172.25.0.10 (group sz)\n"), "{text}");
    assert!(!text.contains("of other hosts"), "{text}");
    let restart = Intent::Restart { services: vec!["slave".to_owned()], ask_with: None };
    let text = offered(&engine, &desired, &restart).await;
    assert!(text.contains("than the one that is stopped: 172.25.0.17, 172.25.0.18\n"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn what_is_being_published_is_let_end_first() {
    let desired = with_nodes();
    let engine = running(&desired).await;
    tell(&engine, &[("Demo.A", &[0])]);
    engine.tell(
        "publishing",
        json!([{"server": "Demo.A", "node": address(0), "since": "2026-01-02 03:04:05"}]),
    );
    let upgrade = to_2(&desired);
    let machine = Machine::new();
    let refused = deploy(&engine, &machine, &desired).offer(&request(&id(2), &upgrade)).await.unwrap_err();
    assert_eq!(refused.exit(), Exit::Refused);
    let words = "being published right now: Demo.A on 172.25.0.10 since 2026-01-02 03:04:05";
    assert!(refused.to_string().contains(words), "{refused}");
    assert!(refused.hint().unwrap().contains("--accept-publish APP.SERVER"), "{refused:?}");
    // Whose publish is over, says the operator by its name.
    let mut over = desired.clone();
    over.policy.ended_publishes = vec!["Demo.B".to_owned()];
    assert!(deploy(&engine, &machine, &over).offer(&request(&id(2), &upgrade)).await.is_err());
    over.policy.ended_publishes.push("Demo.A".to_owned());
    let offer = deploy(&engine, &machine, &over).offer(&request(&id(2), &upgrade)).await.unwrap();
    let note = "its publish is over, by the operator's word: Demo.A".to_owned();
    assert!(offer.plan.notes.contains(&note), "{:?}", offer.plan.notes);
    // Who wants to stop all the same is asked.
    let down = offered(&engine, &desired, &Intent::Down { all: false }).await;
    assert!(down.contains("question: being published right now: Demo.A"), "{down}");
    // It ends while it is waited for, and what does not is refused then.
    let mut waits = desired.clone();
    waits.policy.wait = Duration::from_mins(1);
    let ends = async {
        tokio::time::sleep(Duration::from_secs(20)).await;
        engine.tell("publishing", json!([]));
    };
    let command = deploy(&engine, &machine, &waits);
    let request = request(&id(2), &upgrade);
    let (offer, ()) = tokio::join!(command.offer(&request), ends);
    assert!(offer.unwrap().plan.steps.len() > 20);
    let said = machine.said.lock().unwrap().join("\n");
    assert!(said.contains("waiting, up to 60 s: Demo.A is published on 172.25.0.10"), "{said}");
    engine.tell("publishing", json!([{"server": "Demo.A", "node": address(0)}]));
    assert!(command.offer(&request).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn what_another_host_has_drained_is_waited_for_or_a_gap() {
    let mut desired = with_nodes();
    let engine = running(&desired).await;
    let elsewhere = address(7);
    let flows = |flow: bool| {
        let other = Instance { flow, ..instance("Demo.A", &elsewhere) };
        engine.tell("servers", json!([instance("Demo.A", &address(0)), other]));
        let drain = json!({"server": "Demo.A", "node": elsewhere, "deployment": "other", "host": "there", "since": ""});
        engine.tell("drains", if flow { json!([]) } else { json!([drain]) });
    };
    flows(false);
    let upgrade = to_2(&desired);
    let text = offered(&engine, &desired, &upgrade).await;
    assert!(text.contains("silent while its container is stopped: Demo.A on 172.25.0.10. Go on?"), "{text}");
    desired.policy.wait = Duration::from_mins(10);
    let ends = async {
        tokio::time::sleep(Duration::from_secs(70)).await;
        flows(true);
    };
    let (text, ()) = tokio::join!(offered(&engine, &desired, &upgrade), ends);
    assert!(!text.contains("silent while"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn node_that_knows_no_registry_which_stays_is_a_gap() {
    let mut desired = with_nodes();
    let locator = |hosts: &[&str]| {
        let each: Vec<String> = hosts.iter().map(|host| format!("tcp -h {host} -p 17890")).collect();
        json!([format!("TARS_REGISTRY_ADDRESS={}", each.join(":"))])
    };
    let (master, slave) = ("172.25.0.3", "172.25.0.4");
    for (of, hosts) in
        [(0, vec![master]), (1, vec![master, slave]), (2, vec!["172.25.0.99"]), (3, vec![slave])]
    {
        edit(&mut desired, &node(of), |service| {
            edit_body(service, |body| drop(body.insert("Env".to_owned(), locator(&hosts))));
        });
    }
    let engine = running(&desired).await;
    let upgrade = to_2(&desired);
    let text = offered(&engine, &desired, &upgrade).await;
    let question = "nodes that know no other registry than one that is stopped, and ask nobody meanwhile: `node0` (knows 172.25.0.3 \
                    alone), `node3` (knows 172.25.0.4 alone). Go on?";
    assert!(text.contains(question), "{text}");
    let nodes = Intent::upgrade_image(&desired, &"tars/node:2".parse().unwrap());
    assert!(
        !offered(&engine, &desired, &nodes).await.contains("know no other registry"),
        "no registry is stopped"
    );
    desired.policy.refuses_gaps = true;
    let refused =
        deploy(&engine, &Machine::new(), &desired).offer(&request(&id(2), &upgrade)).await.unwrap_err();
    assert_eq!(refused.exit(), Exit::Refused);
    assert!(refused.to_string().contains("`node0` (knows 172.25.0.3 alone)"), "{refused}");
    // Where no slave is there, no registry answers anybody: that is said by itself.
    let mut alone = desired.clone();
    alone.services.retain(|service| service.role != Some(Role::Slave));
    let text = offered(&engine, &alone, &to_2(&alone)).await;
    assert!(!text.contains("know no other registry"), "{text}");
}
