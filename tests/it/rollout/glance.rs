//! A plan at a glance, and what callers saw of a deploy.

use super::plans::golden;
use super::*;
use tarsup::cli::rollout::glance::glance;
use tarsup::engine::Engine as _;
use tarsup::upgrade::Offer;
use tarsup::upgrade::overview::Silence;
use tarsup::upgrade::seen::seen;

fn server(server: &str, node: &str) -> Value {
    json!({"server": server, "node": node, "setting": true, "present": true, "flow": true, "lives": true})
}

/// A service on the node and elsewhere, one on the node alone, one that is stopped, and the framework's own.
fn cluster() -> Value {
    let mut down = server("Demo.Down", "172.25.0.5");
    down["present"] = false.into();
    let own = ["172.25.0.3", "172.25.0.4"];
    let mut all = vec![
        server("Demo.Alone", "172.25.0.5"),
        down,
        server("Demo.Pair", "172.25.0.5"),
        server("Demo.Pair", "10.1.0.9"),
    ];
    all.extend(
        own.iter().flat_map(|node| [server("tars.tarsconfig", node), server("tars.tarsregistry", node)]),
    );
    json!(all)
}

async fn offered(engine: &FakeEngine, machine: &Machine, desired: &Desired, intent: &Intent) -> Offer {
    deploy(engine, machine, desired).offer(&request(&id(9), intent)).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn upgrade_is_a_row_for_each_container_and_a_line_for_each_fate() {
    let desired = desired();
    let engine = running(&desired).await;
    engine.tell("servers", cluster());
    engine.shelve("tars/node:2");
    let machine = Machine::new();
    let offer = offered(&engine, &machine, &desired, &to_2(&desired)).await;
    golden("glance_upgrade", &glance(&offer, false));
    let whole = glance(&offer, true);
    assert!(whole.contains("\n   1  ") && whole.contains("CONTAINER"), "{whole}");
    let mut undrained = desired.clone();
    undrained.policy.drain = tarsup::deploy::desired::DrainPolicy::Off;
    let node = Intent::upgrade_image(&desired, &"tars/node:2".parse().unwrap());
    let risky = offered(&engine, &machine, &undrained, &node).await;
    assert_eq!(risky.overview.containers[0].silence, Silence::Services(2));
    let shown = glance(&risky, false);
    assert!(
        shown.contains("not drained: Demo.Pair on 172.25.0.5 (") && !shown.contains("\ndrained: "),
        "{shown}"
    );
    let document = offer.document();
    assert_eq!(document["overview"]["silent"], json!({"Demo.Alone": ["172.25.0.5"]}), "{document}");
}

#[tokio::test(start_paused = true)]
async fn nobody_who_can_tell_is_said_and_is_not_nobody_who_calls() {
    let desired = desired();
    let engine = running(&desired).await;
    engine.database(false);
    let node = Intent::upgrade_image(&desired, &"tars/node:2".parse().unwrap());
    let offer = offered(&engine, &Machine::new(), &desired, &node).await;
    assert_eq!(offer.overview.containers[0].silence, Silence::Unknown);
    assert!(glance(&offer, false).contains("not known"), "{}", glance(&offer, false));
}

#[tokio::test(start_paused = true)]
async fn other_commands_have_their_own_words() {
    let desired = desired();
    let engine = super::engine();
    let first = offered(&engine, &Machine::new(), &desired, &Intent::Up).await;
    golden("glance_first_up", &glance(&first, false));

    let engine = running(&desired).await;
    let restart = Intent::Restart { services: vec!["node".to_owned()], ask_with: None };
    let restart = offered(&engine, &Machine::new(), &desired, &restart).await;
    golden("glance_restart", &glance(&restart, false));

    let machine = Machine::new();
    roll(&engine, &machine, &desired, &id(2), &to_2(&desired)).await.unwrap();
    let back = Intent::Rollback { to: None, targets: BTreeMap::new() };
    let back = offered(&engine, &machine.next(), &desired, &back).await;
    golden("glance_rollback", &glance(&back, false));

    let down = offered(&engine, &machine.next(), &desired, &Intent::Down { all: true }).await;
    golden("glance_down", &glance(&down, false));
}

#[tokio::test(start_paused = true)]
async fn what_callers_saw_is_told_from_the_journal_and_expected_the_next_time() {
    let desired = desired();
    let engine = running(&desired).await;
    engine.tell("servers", cluster());
    let machine = Machine::new();
    let node = Intent::upgrade_image(&desired, &"tars/node:2".parse().unwrap());
    roll(&engine, &machine, &desired, &id(2), &node).await.unwrap();
    let journals = machine.journals.lock().unwrap().clone();
    let (header, lines) = &journals[&id(2)];
    let seen = seen(header, lines);
    assert_eq!(seen.containers.len(), 1, "{seen:?}");
    assert_eq!(
        (seen.containers[0].service.as_str(), seen.containers[0].container.as_str()),
        ("node", "tars-node")
    );
    // The stop and the start of the engine in memory take no time: what is left is the gate's first looks, without its dwell.
    assert!(seen.containers[0].milliseconds < 2_000, "{seen:?}");

    // A version that never answers: silent from its stop until the one before is back.
    engine.behave("tars/node:1", crate::fake::Behaviour::default());
    engine.behave(
        "tars/node:2",
        crate::fake::Behaviour { healthy_after: None, ..crate::fake::Behaviour::default() },
    );
    let other = Intent::Restart { services: vec!["node".to_owned()], ask_with: None };
    let offer = offered(&engine, &machine.next(), &desired, &other).await;
    assert!(offer.overview.containers[0].last_silence.is_some(), "{:?}", offer.overview);
    assert!(glance(&offer, false).contains(" s the last time)"), "{}", glance(&offer, false));
}

#[tokio::test(start_paused = true)]
async fn version_that_never_answers_is_silence_until_the_one_before_is_back() {
    let desired = desired();
    let engine = running(&desired).await;
    engine.behave(
        "tars/node:2",
        crate::fake::Behaviour { healthy_after: None, ..crate::fake::Behaviour::default() },
    );
    let machine = Machine::new();
    let node = Intent::upgrade_image(&desired, &"tars/node:2".parse().unwrap());
    roll(&engine, &machine, &desired, &id(2), &node).await.unwrap_err();
    let journals = machine.journals.lock().unwrap().clone();
    let (header, lines) = &journals[&id(2)];
    let seen = seen(header, lines);
    let [one] = seen.containers.as_slice() else { panic!("{seen:?}") };
    let timeout = u64::try_from(desired.policy.gate_timeout.as_millis()).unwrap();
    assert!(one.milliseconds >= timeout, "{one:?}");
    assert!(engine.inspect_container("tars-node").await.unwrap().is_some());
}
