//! Gates that can fail: what the database knows, what is asked from outside, and who is asked.

use super::*;
use crate::fake::Behaviour;

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
    desired.database = Some(tarsup::deploy::desired::DatabaseAccount(vec!["MYSQL_HOST=db".to_owned()]));
    let engine = engine();
    engine.behave("tars/node:1", Behaviour { registers: false, ..Behaviour::default() });
    let failure = roll(&engine, &Machine::new(), &desired, &id(1), &Intent::Up).await.unwrap_err();
    assert!(failure.to_string().contains("the node node is not registered yet"), "{failure}");
}
