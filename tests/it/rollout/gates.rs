//! Gates that can fail: what the database knows, what is asked from outside, and who is asked.

use super::*;
use crate::fake::{Behaviour, Call, Fault, Moment};
use tarsup::deploy::observed::LABEL_CLUSTER;
use tarsup::diagnose::{Diagnose as _, Exit};
use tarsup::engine::{CreateBody, Engine as _};

async fn fails_with(behaviour: Behaviour) -> (FakeEngine, Desired, String) {
    let desired = desired();
    let engine = running(&desired).await;
    engine.behave("tars/framework:2", behaviour);
    let failure = roll(&engine, &Machine::killed(), &desired, &id(2), &to_2(&desired)).await.unwrap_err();
    (engine, desired, failure.to_string())
}

#[tokio::test(start_paused = true)]
async fn database_lost_during_the_dwell_of_the_slave_leaves_the_master_alone_and_resumes_later() {
    let takes_database = Some(Duration::from_millis(1500));
    let (engine, desired, failure) = fails_with(Behaviour { takes_database, ..Behaviour::default() }).await;
    assert!(failure.contains("it was healthy and is no more: the database cannot be asked"), "{failure}");
    let calls = engine.calls();
    assert!(!calls.iter().any(|call| call.starts_with("stop tars-framework")), "{calls:?}");
    // Without a database nothing is proven, the way back neither; with it, it is.
    engine.behave("tars/framework:2", Behaviour::default());
    engine.database(true);
    resume(&engine, &Machine::new(), &desired, false).await.unwrap();
    let dump = engine.dump();
    assert!(dump.contains("container tars-slave running restart=always image=tars/framework:1"), "{dump}");
    assert!(!dump.contains(".cluster"), "{dump}");
}

#[tokio::test(start_paused = true)]
async fn gate_does_not_pass_where_registration_did_not_change() {
    let (engine, _, failure) = fails_with(Behaviour { registers: false, ..Behaviour::default() }).await;
    assert!(failure.contains("the node slave has not registered since its stop"), "{failure}");
    let dump = engine.dump();
    assert!(dump.contains("container tars-slave running restart=always image=tars/framework:1"), "{dump}");
}

#[tokio::test(start_paused = true)]
async fn deploy_resumed_forward_is_proven_by_a_heartbeat_where_nothing_from_before_is_known() {
    let desired = desired();
    let engine = running(&desired).await;
    let machine = Machine::killed();
    engine.fault(
        crate::fake::Call::First("exec tars-slave".to_owned()),
        crate::fake::Moment::Before,
        crate::fake::Fault::Crash,
    );
    super::deploys::until_it_hangs(&engine, &machine, &desired).await;
    engine.clear_faults();
    resume(&engine, &Machine::new(), &desired, true).await.unwrap();
    let dump = engine.dump();
    assert!(dump.contains("container tars-slave running restart=always image=tars/framework:2"), "{dump}");
    assert!(!dump.contains(".cluster"), "{dump}");
}

#[tokio::test(start_paused = true)]
async fn image_of_the_newest_protocol_is_asked_on_the_way_back_to_one_that_knows_no_cluster() {
    let desired = desired();
    let engine = running(&desired).await;
    roll(&engine, &Machine::new(), &desired, &id(2), &to_2(&desired)).await.unwrap();
    engine.behave("tars/framework:1", Behaviour { protocol: 1, ..Behaviour::default() });
    let back = Intent::Rollback { to: None, targets: BTreeMap::new() };
    roll(&engine, &Machine::new(), &desired, &id(3), &back).await.unwrap();
    assert!(engine.dump().contains("container tars-framework running restart=always image=tars/framework:1"));
}

#[tokio::test(start_paused = true)]
async fn container_without_tars_init_is_asked_from_outside_on_the_way_back() {
    let desired = desired();
    let engine = running(&desired).await;
    engine.behave("tars/framework:1", Behaviour { has_init: false, ..Behaviour::default() });
    engine.behave("tars/framework:2", Behaviour { registers: false, ..Behaviour::default() });
    let failure = roll(&engine, &Machine::new(), &desired, &id(2), &to_2(&desired)).await.unwrap_err();
    assert!(failure.to_string().contains("rolled back"), "{failure}");
    let asked = "exec tars.cluster /usr/local/bin/tars-init cluster --json --ask 172.25.0.4 --role slave";
    assert!(engine.calls().iter().any(|call| call == asked), "{:?}", engine.calls());
    assert!(engine.dump().contains("container tars-slave running restart=always image=tars/framework:1"));
}

#[tokio::test(start_paused = true)]
async fn way_back_does_not_wait_for_heartbeats_of_what_was_not_touched() {
    let desired = desired();
    let engine = running(&desired).await;
    engine.behave("tars/framework:2", Behaviour { healthy_after: None, ..Behaviour::default() });
    for untouched in ["tars-framework", "tars-node"] {
        engine.behave_named(untouched, Behaviour { registers: false, ..Behaviour::default() });
    }
    let failure = roll(&engine, &Machine::new(), &desired, &id(2), &to_2(&desired)).await.unwrap_err();
    assert!(failure.to_string().contains("rolled back"), "{failure}");
}

#[tokio::test(start_paused = true)]
async fn what_died_by_itself_during_a_deploy_proves_itself_whole_on_the_way_back() {
    let desired = desired();
    let engine = running(&desired).await;
    engine.behave("tars/framework:2", Behaviour { healthy_after: None, ..Behaviour::default() });
    // It came up again behind the deploy's back, and its heart has not beaten since.
    let dies = Some((Duration::from_secs(5), 139));
    engine.behave_named("tars-node", Behaviour { registers: false, dies, ..Behaviour::default() });
    let failure = roll(&engine, &Machine::new(), &desired, &id(2), &to_2(&desired)).await.unwrap_err();
    let text = failure.to_string();
    assert!(text.contains("gate: tars-node") && !text.contains("rolled back:"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn nodes_alone_without_an_account_are_proven_by_their_registry_and_the_plan_says_so() {
    let mut desired = desired();
    desired.services.retain(|service| service.name == "node");
    let engine = engine();
    let plan = planned(&engine, &desired, 1, &Intent::Up).await.unwrap();
    let text = tarsup::upgrade::render::plan(&plan);
    assert!(text.contains("nodes are proven by what a registry says"), "{text}");
    roll(&engine, &Machine::new(), &desired, &id(1), &Intent::Up).await.unwrap();
    assert!(!engine.calls().iter().any(|call| call.contains("tars.cluster /usr")), "nobody can be asked");
}

#[tokio::test(start_paused = true)]
async fn nodes_alone_with_an_account_of_their_own_are_proven_by_the_database() {
    let mut desired = desired();
    desired.services.retain(|service| service.name == "node");
    desired.database =
        Some(tarsup::deploy::desired::DatabaseAccount(tarsup::engine::Environment::of(["MYSQL_HOST=db"])));
    let engine = engine();
    engine.behave("tars/node:1", Behaviour { registers: false, ..Behaviour::default() });
    let failure = roll(&engine, &Machine::new(), &desired, &id(1), &Intent::Up).await.unwrap_err();
    assert!(failure.to_string().contains("the node node is not registered yet"), "{failure}");
}

/// The ids of the containers in which the database of a deployment is asked.
async fn probes(engine: &FakeEngine, deployment: &str) -> Vec<String> {
    let label = format!("{LABEL_CLUSTER}={deployment}");
    let found = engine.list_containers(&[label]).await.unwrap();
    found.into_iter().map(|container| container.id).collect()
}

/// An engine on which the deployment runs, and a run could not remove the container in which it had asked the database.
async fn with_a_probe_left(desired: &Desired) -> FakeEngine {
    let engine = running(desired).await;
    let busy = Fault::Answer(500, "device or resource busy".to_owned());
    engine.fault(Call::Every("remove tars.cluster".to_owned()), Moment::Before, busy.clone());
    let machine = Machine::new();
    // Its first act is to remove what an earlier run left.
    roll(&engine, &machine, desired, &id(2), &to_2(desired)).await.unwrap();
    engine.clear_faults();
    let said = machine.said.lock().unwrap().join("\n");
    assert!(said.contains("tars.cluster is not removed"), "{said}");
    assert_eq!(probes(&engine, "tars").await.len(), 1);
    // One of another deployment is nobody's business here.
    let body = json!({"Image": "tars/framework:1", "Labels": {LABEL_CLUSTER: "tars2"}});
    let body = CreateBody(body.as_object().unwrap().clone());
    engine.create_container("tars2.cluster", &body).await.unwrap();
    engine
}

#[tokio::test(start_paused = true)]
async fn container_in_which_the_database_was_asked_is_removed_by_whatever_runs_next() {
    let files = desired();
    let engine = with_a_probe_left(&files).await;
    let mut desired = files.clone();
    for name in ["framework", "slave", "node"] {
        edit(&mut desired, name, |service| service.image = service.image.with_tag("2"));
    }
    let nothing_left = |engine: FakeEngine, what: &'static str| async move {
        assert_eq!(probes(&engine, "tars").await, Vec::<String>::new(), "after {what}");
        assert_eq!(probes(&engine, "tars2").await.len(), 1, "after {what}");
    };
    // Nothing is to be resumed.
    let fork = engine.fork();
    let resumed = resume(&fork, &Machine::new(), &desired, false).await.unwrap();
    assert!(matches!(resumed, Resumed::Nothing(_)), "{resumed:?}");
    nothing_left(fork, "a resume").await;
    // Nothing is to be done.
    let fork = engine.fork();
    assert!(roll(&fork, &Machine::new(), &desired, &id(3), &Intent::Up).await.unwrap().is_empty());
    nothing_left(fork, "an up that finds everything as it should be").await;
    // A deploy that stops the deployment, whatever name somebody gave the container meanwhile.
    let fork = engine.fork();
    fork.rename_container("tars.cluster", "kept-to-look-at").await.unwrap();
    roll(&fork, &Machine::new(), &desired, &id(3), &Intent::Down { all: false }).await.unwrap();
    nothing_left(fork, "a down").await;
    // A deploy that begins, and comes no further than its journal.
    let (fork, machine) = (engine.fork(), Machine::new());
    machine.disk_is_full.store(true, Ordering::Relaxed);
    roll(&fork, &machine, &desired, &id(3), &to_1(&desired)).await.unwrap_err();
    nothing_left(fork, "a deploy that cannot begin").await;
}

/// `upgrade --to 1`.
fn to_1(desired: &Desired) -> Intent {
    Intent::upgrade(desired, Some("1"))
}

#[tokio::test(start_paused = true)]
async fn container_in_which_the_database_was_asked_is_removed_after_a_kill_though_a_way_back_is_lost() {
    let desired = desired();
    let engine = running(&desired).await;
    let machine = Machine::killed();
    engine.fault(Call::First("start tars-slave".to_owned()), Moment::After, Fault::Crash);
    super::deploys::until_it_hangs(&engine, &machine, &desired).await;
    engine.clear_faults();
    let left = probes(&engine, "tars").await;
    assert_eq!(left.len(), 1);
    // While there is a lock, whoever has nothing to do touches nothing of its run.
    let other = Machine { owner: Machine::new().owner, ..machine.next() };
    roll(&engine, &other, &desired, &id(3), &Intent::Up).await.unwrap_err();
    deploy(&engine, &other, &desired).remove_left_probe().await;
    assert_eq!(probes(&engine, "tars").await, left);
    engine.remove_container(&format!("tars-slave.old.{}", id(2))).await.unwrap();
    let failure = resume(&engine, &Machine::new(), &desired, false).await.unwrap_err();
    assert!(matches!(failure, DeployFailure::Lost { .. }), "{failure}");
    assert_eq!(probes(&engine, "tars").await, Vec::<String>::new());
}

/// A node as upstream's image makes it: what serves there is seen from outside, before it is stopped and afterwards.
#[tokio::test(start_paused = true)]
async fn what_served_on_a_node_without_tars_init_serves_again_before_its_gate_passes() {
    let mut desired = desired();
    desired.policy.services_timeout = Duration::from_secs(30);
    let engine = running(&desired).await;
    let upstreams = |after: u64| Behaviour {
        has_init: false,
        deployed: Some(vec![("Demo.Udp", true)]),
        outside: vec![("Demo.Hello", Duration::from_secs(after)), ("Demo.Down", Duration::from_hours(9))],
        ..Behaviour::default()
    };
    let restart = Intent::Restart { services: vec!["node".to_owned()], ask_with: None };

    // tarsnode answers at once, and starts its servers later.
    engine.behave("tars/node:1", upstreams(12));
    let (machine, begun) = (Machine::new(), tokio::time::Instant::now());
    tokio::time::advance(Duration::from_secs(15)).await;
    roll(&engine, &machine, &desired, &id(2), &restart).await.unwrap();
    let said = machine.said.lock().unwrap().join("\n");
    for words in [
        "on tars-node these serve by the word of its tarsnode alone: Demo.Udp",
        "down on tars-node before, and not waited for: Demo.Down",
        "waiting for tars-node: Demo.Hello served before and does not yet: port 9001: nothing listens",
    ] {
        assert_eq!(said.matches(words).count(), 1, "{words}: {said}");
    }
    assert!(begun.elapsed() >= Duration::from_secs(15 + 12), "{:?}", begun.elapsed());

    // What does not come fails the gate by its name.
    engine.behave("tars/node:1", upstreams(45));
    tokio::time::advance(Duration::from_secs(40)).await;
    let failure = roll(&engine, &Machine::new(), &desired, &id(3), &restart).await.unwrap_err();
    let words = "Demo.Hello served before and does not yet: port 9001: nothing listens (within 30 s of its own answer)";
    assert!(failure.to_string().contains(words), "{failure}");
}

/// From upstream's image to ours: the new container tells by itself what was seen from outside of the old one.
#[tokio::test(start_paused = true)]
async fn what_was_seen_on_a_node_of_upstreams_is_asked_of_the_one_of_ours() {
    let mut desired = desired();
    desired.policy.services_timeout = Duration::from_secs(30);
    for (served, told) in [("Demo.Hello", "Demo.Udp"), ("Demo.Udp", "Demo.Hello")] {
        let engine = running(&desired).await;
        engine.behave(
            "tars/node:1",
            Behaviour {
                has_init: false,
                deployed: Some(vec![("Demo.Udp", true)]),
                outside: vec![("Demo.Hello", Duration::ZERO)],
                ..Behaviour::default()
            },
        );
        engine.behave(
            "tars/node:2",
            Behaviour { deployed: Some(vec![(told, true), (served, false)]), ..Behaviour::default() },
        );
        let machine = Machine::new();
        let failure = roll(&engine, &machine, &desired, &id(2), &to_2(&desired)).await.unwrap_err();
        let words = format!("{served} served before and does not yet");
        assert!(failure.to_string().contains(&words), "{failure}");
        assert_eq!(failure.exit(), Exit::RolledBack);
    }
}
