//! Who still calls what is drained is waited for, then named; `--strict-drain` stops there.

use super::batches::{node, with_nodes};
use super::*;
use tarsup::diagnose::{Diagnose as _, Exit};

use crate::fake::Behaviour;

/// The address of a client.
const CLIENT: &str = "172.25.0.99";

async fn upgrade(
    desired: &Desired,
    prepare: impl FnOnce(&FakeEngine),
) -> (FakeEngine, Result<Plan, DeployFailure>, String) {
    let engine = running(desired).await;
    prepare(&engine);
    let machine = Machine::new();
    let ended = roll(&engine, &machine, desired, &id(2), &to_2(desired)).await;
    let said = machine.said.lock().unwrap().join("\n");
    (engine, ended, said)
}

/// Clients get 3 s in all of these.
fn patient(drain_timeout: u64) -> Desired {
    let mut desired = desired();
    desired.policy.drain_timeout = Duration::from_secs(drain_timeout);
    desired
}

#[tokio::test(start_paused = true)]
async fn who_still_calls_is_waited_for_and_goes() {
    let (_, ended, said) =
        upgrade(&patient(60), |engine| engine.call_from("tars-slave", CLIENT, Duration::from_secs(40))).await;
    ended.unwrap();
    let words = format!("still called, and waited for up to 57 s more: Demo.Hello on slave by {CLIENT}");
    assert_eq!(said.matches(&words).count(), 1, "{said}");
    assert!(!said.contains("all the same"), "{said}");
    assert_eq!(said.matches("nobody counts who calls Demo.Hello on slave over UDP").count(), 1, "{said}");
}

#[tokio::test(start_paused = true)]
async fn who_never_goes_is_named_and_the_roll_goes_on() {
    let begun = tokio::time::Instant::now();
    let (engine, ended, said) =
        upgrade(&patient(20), |engine| engine.call_from("tars-slave", CLIENT, Duration::from_hours(1))).await;
    ended.unwrap();
    let words = format!("20 s, and stopped all the same: Demo.Hello on slave by {CLIENT}");
    assert_eq!(said.matches(&words).count(), 1, "{said}");
    assert!(begun.elapsed() < Duration::from_mins(2), "counted from the same moment: {:?}", begun.elapsed());
    assert!(engine.calls().contains(&"stop tars-slave".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn strict_drain_stops_nothing_that_is_called_and_gives_everything_back() {
    let mut desired = patient(20);
    desired.policy.drains_strictly = true;
    let (engine, ended, said) =
        upgrade(&desired, |engine| engine.call_from("tars-slave", CLIENT, Duration::from_hours(1))).await;
    let failure = ended.unwrap_err();
    assert_eq!(failure.exit(), Exit::RolledBack, "{failure}");
    assert!(failure.to_string().contains(&format!("Demo.Hello on slave by {CLIENT}")), "{failure}");
    assert!(failure.hint().unwrap().contains("--strict-drain"), "{failure:?}");
    assert!(!engine.calls().contains(&"stop tars-slave".to_owned()), "{:?}", engine.calls());
    assert!(said.contains("given back: Demo.Hello on slave"), "{said}");

    // Nobody calls: nothing is in the way.
    let (_, ended, _) = upgrade(&desired, |_| {}).await;
    ended.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_nobody_can_tell_is_said_and_not_waited_for() {
    let mut desired = patient(60);
    desired.policy.drains_strictly = true;
    for (behaviour, why) in [
        (Behaviour { protocol: 1, ..Behaviour::default() }, "its tars-init does not tell"),
        (Behaviour { has_init: false, ..Behaviour::default() }, "it has no tars-init"),
    ] {
        let (_, ended, said) = upgrade(&desired, |engine| {
            engine.call_from("tars-slave", CLIENT, Duration::from_hours(1));
            engine.behave_named("tars-slave", behaviour);
        })
        .await;
        let words = format!("who still calls tars-slave is not known: {why}");
        assert_eq!(said.matches(&words).count(), 1, "{said}");
        assert!(!said.contains("still called"), "{said}\n{ended:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn drain_that_does_not_hold_is_a_gap_and_refused_where_nothing_may_go_silent() {
    let place = json!({"server": "Demo.Hello", "node": "slave", "registry": "tcp -h r -p 17890"});
    for (key, words) in [
        ("late", "not drained: Demo.Hello on slave: tcp -h r -p 17890 hands it out after 60 s"),
        ("again", "not drained: Demo.Hello on slave: somebody else gave it back twice"),
        ("alone", "not drained: Demo.Hello on slave: what served in its place serves no more"),
    ] {
        let tell = |engine: &FakeEngine| engine.tell(key, json!([place]));
        let (engine, ended, said) = upgrade(&patient(20), tell).await;
        ended.unwrap();
        assert_eq!(said.matches(words).count(), 1, "{key}: {said}");
        assert!(engine.calls().contains(&"stop tars-slave".to_owned()), "{key}");

        let mut strict = patient(20);
        strict.policy.refuses_gaps = true;
        let (engine, ended, said) = upgrade(&strict, tell).await;
        let failure = ended.unwrap_err();
        assert_eq!(failure.exit(), Exit::RolledBack, "{key}: {failure}");
        assert!(failure.to_string().contains(words), "{key}: {failure}");
        assert!(failure.hint().unwrap().contains("without --no-gaps"), "{key}");
        assert!(!engine.calls().contains(&"stop tars-slave".to_owned()), "{key}: {said}");
        assert!(!engine.dump().contains("drained "), "{key}: {}", engine.dump());
    }
}

/// In one batch for clients of two sets: what becomes of one is nothing that the other one's clients are hurried for.
#[tokio::test(start_paused = true)]
async fn what_is_drained_beside_what_does_not_hold_is_waited_for_all_the_same() {
    for (key, words) in [
        ("late", "tcp -h r -p 17890 hands it out after 60 s"),
        ("again", "somebody else gave it back twice"),
        ("alone", "what served in its place serves no more"),
    ] {
        let mut desired = with_nodes();
        desired.policy.batch = Some(2);
        desired.policy.client_refresh = Duration::from_secs(25);
        desired.policy.drain_timeout = Duration::from_secs(40);
        let engine = running(&desired).await;
        engine.tell(key, json!([{"server": "Demo.Hello", "node": "node1", "registry": "tcp -h r -p 17890"}]));
        for of in [1, 2] {
            engine.call_from(&format!("tars-{}", node(of)), CLIENT, Duration::from_hours(1));
        }
        let services = [0, 1, 2].map(node).to_vec();
        let machine = Machine::new();
        roll(&engine, &machine, &desired, &id(2), &Intent::Restart { services, ask_with: None })
            .await
            .unwrap();
        let said = machine.said.lock().unwrap().join("\n");
        assert_eq!(said.matches(&format!("not drained: Demo.Hello on node1: {words}")).count(), 1, "{said}");
        let still = "stopped all the same: Demo.Hello on node2 by";
        assert_eq!(said.matches(&format!("{still} {CLIENT}")).count(), 1, "{key}: {said}");
        assert!(said.ends_with("given back: Demo.Hello on node2"), "only the other one was drained: {said}");
    }
}
