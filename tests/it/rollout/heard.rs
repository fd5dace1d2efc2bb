//! Nodes of a deployment that names no account at the database: what runs on them tells itself, and each of it is a gap.

use super::batches::{node, with_nodes};
use super::*;
use crate::fake::{Behaviour, Call, Fault, Moment};
use tarsup::deploy::desired::DrainPolicy;
use tarsup::diagnose::{Diagnose as _, Exit};
use tarsup::upgrade::overview::Silence;
use tarsup::upgrade::{Offer, render};

/// What a probe says that is deployed, and whether it serves; nothing where it does not tell.
type Deployed = Option<Vec<(&'static str, bool)>>;

/// Six nodes alone, and what their probes say.
async fn alone(tell: &[(u8, Deployed)]) -> (FakeEngine, Desired) {
    let mut desired = with_nodes();
    desired.services.retain(|service| service.role == Some(Role::Node));
    let engine = running(&desired).await;
    for of in 0..6 {
        let told = tell.iter().find(|(named, _)| *named == of).map(|(_, told)| told.clone());
        let deployed = told.unwrap_or_else(|| Some(Vec::new()));
        engine.behave_named(&format!("tars-{}", node(of)), Behaviour { deployed, ..Behaviour::default() });
    }
    (engine, desired)
}

async fn offered(engine: &FakeEngine, desired: &Desired, intent: &Intent) -> Offer {
    deploy(engine, &Machine::new(), desired).offer(&request(&id(9), intent)).await.unwrap()
}

fn restart(of: &[u8]) -> Intent {
    Intent::Restart { services: of.iter().map(|of| node(*of)).collect(), ask_with: None }
}

#[tokio::test(start_paused = true)]
async fn everything_that_would_be_drained_is_a_gap_with_the_reason() {
    let tell = [
        (0, Some(vec![("Demo.A", true), ("Demo.Down", false)])),
        (1, None),
        (2, Some(vec![("Demo.A", true)])),
    ];
    let (engine, mut desired) = alone(&tell).await;
    let nodes = to_2(&desired);
    for intent in [&nodes, &restart(&[0, 1, 2, 3]), &Intent::Down { all: false }] {
        let text = render::offer(&offered(&engine, &desired, intent).await);
        let question = "question: the deployment names no account at the database (`x-tars: {database: {env_file: FILE}}`), so that \
                        nothing is drained and clients notice: ";
        let at = text.find(question).unwrap_or_else(|| panic!("{text}"));
        let line = text[at + question.len()..].lines().next().unwrap();
        for words in
            ["Demo.A on node0", "Demo.A on node2", "whatever runs in `node1` (its tars-init does not tell)"]
        {
            assert!(line.contains(words), "{words}: {line}");
        }
        assert!(!line.contains("Demo.Down") && !line.contains("node3"), "{line}");
        assert!(!text.contains("drain what serves"), "nobody can: {text}");
    }
    let quiet = render::offer(&offered(&engine, &desired, &restart(&[3, 4])).await);
    assert!(!quiet.contains("is drained"), "nothing runs there: {quiet}");

    desired.policy.refuses_gaps = true;
    let refused =
        deploy(&engine, &Machine::new(), &desired).offer(&request(&id(9), &nodes)).await.unwrap_err();
    assert_eq!(refused.exit(), Exit::Refused);
    assert!(refused.to_string().contains("without an account at the database"), "{refused}");
    assert!(refused.to_string().contains("Demo.A on node0"), "{refused}");
    assert!(refused.hint().unwrap().contains("env_file"), "{refused:?}");

    // Who wants no drains, or names an account, is not asked.
    desired.policy.refuses_gaps = false;
    desired.policy.drain = DrainPolicy::Off;
    let text = render::offer(&offered(&engine, &desired, &nodes).await);
    assert!(!text.contains("is drained"), "{text}");
    desired.policy.drain = DrainPolicy::Auto;
    desired.database =
        Some(tarsup::deploy::desired::DatabaseAccount(tarsup::engine::Environment::of(["MYSQL_HOST=db"])));
    let text = render::offer(&offered(&engine, &desired, &nodes).await);
    assert!(!text.contains("no account") && text.contains("drain what serves"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn batches_go_by_what_the_nodes_tell_and_who_tells_nothing_goes_alone() {
    let both = Some(vec![("Demo.A", true)]);
    let tell = [(0, both.clone()), (1, both), (2, None), (3, Some(vec![("Demo.B", true)]))];
    let (engine, mut desired) = alone(&tell).await;
    desired.policy.batch = Some(3);
    let nodes = to_2(&desired);
    let offer = offered(&engine, &desired, &nodes).await;
    let words = "the one with least first: `node4`, `node0` with `node3` with `node5`, `node1`, `node2`";
    assert!(offer.plan.notes.iter().any(|note| note.ends_with(words)), "{:?}", offer.plan.notes);
    let rows: Vec<_> =
        offer.overview.containers.iter().map(|row| (row.service.as_str(), row.silence)).collect();
    assert!(rows.contains(&("node0", Silence::Services(1))), "{rows:?}");
    assert!(rows.contains(&("node2", Silence::Unknown)), "{rows:?}");
    assert!(rows.contains(&("node4", Silence::Covered)), "{rows:?}");
    assert_eq!(offer.overview.gaps["Demo.A"], ["node0", "node1"]);

    // What was shown is what is done.
    let machine = Machine::new();
    deploy(&engine, &machine, &desired).roll(&offer).await.unwrap();
    assert!(engine.dump().contains("tars-node2 running restart=always image=tars/node:2"));
    assert!(!engine.calls().iter().any(|call| call.contains(" drain ")));
}

#[tokio::test(start_paused = true)]
async fn way_back_of_nodes_without_an_account_drains_nothing_either() {
    let tell = [(0, Some(vec![("Demo.A", true)])), (1, Some(vec![("Demo.A", true)]))];
    let (engine, desired) = alone(&tell).await;
    engine.fault(
        Call::First("start tars-node5".to_owned()),
        Moment::Before,
        Fault::Answer(500, "no".to_owned()),
    );
    let machine = Machine::new();
    let failure = roll(&engine, &machine, &desired, &id(9), &to_2(&desired)).await.unwrap_err();
    assert_eq!(failure.exit(), Exit::RolledBack, "{failure}");
    let said = machine.said.lock().unwrap().join("\n");
    assert!(said.contains("undo"), "{said}");
    assert!(!said.contains("drain"), "nobody can: {said}");
}
