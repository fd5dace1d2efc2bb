//! How long a rollout of twenty nodes takes on an engine where nothing but waiting takes time, beside what its plan says.

use super::*;
use tarsup::deploy::desired::DrainPolicy;
use tarsup::tars::Instance;
use tokio::time::Instant;

const NODES: u8 = 20;

fn node(of: u8) -> String {
    format!("node{of}")
}

/// Database, master, slave and so many nodes, with the times of the defaults.
fn with_nodes(nodes: u8) -> Desired {
    let mut desired = desired();
    desired.services.retain(|service| service.role != Some(Role::Node));
    desired
        .services
        .extend((0..nodes).map(|of| service(&node(of), Some(Role::Node), "tars/node:1", 10 + of)));
    let defaults = Policy::default();
    desired.policy.client_refresh = defaults.client_refresh;
    desired.policy.drain_timeout = defaults.drain_timeout;
    desired.policy.dwell = defaults.dwell;
    desired
}

/// What runs where: servers and nodes.
type Runs = fn(u8) -> Vec<String>;

/// One service on all of them; and pairs of nodes, each with a service of its own.
const ON_ALL: Runs = |_| vec!["Demo.A".to_owned()];
const IN_PAIRS: Runs = |of| vec![format!("Demo.Pair{}", of / 2)];

/// Seconds of a restart of all nodes, and what its plan said.
async fn restart(nodes: u8, change: impl FnOnce(&mut Desired), runs: Runs) -> (u64, (u64, u64)) {
    let (took, told, _) = restarted(nodes, change, runs).await;
    (took, told)
}

/// The same, and the bytes of its journal.
async fn restarted(nodes: u8, change: impl FnOnce(&mut Desired), runs: Runs) -> (u64, (u64, u64), u64) {
    let mut desired = with_nodes(nodes);
    let engine = running(&desired).await;
    change(&mut desired);
    let of = |at: u8| {
        let instance = move |server: String| Instance {
            server,
            node: format!("172.25.0.{}", 10 + at),
            setting: true,
            present: true,
            flow: true,
            lives: true,
            ..Instance::default()
        };
        runs(at).into_iter().map(instance)
    };
    engine.tell("servers", json!((0..nodes).flat_map(of).collect::<Vec<_>>()));
    let intent = Intent::Restart { services: (0..nodes).map(node).collect(), ask_with: None };
    let machine = Machine::new();
    let command = deploy(&engine, &machine, &desired);
    let offer = command.offer(&request(&id(2), &intent)).await.unwrap();
    let begun = Instant::now();
    command.roll(&offer).await.unwrap();
    let time = offer.overview.time;
    let lines =
        machine.lines().iter().map(|line| serde_json::to_string(line).unwrap().len() as u64 + 1).sum();
    (begun.elapsed().as_secs(), (time.shortest.as_secs(), time.longest.as_secs()), lines)
}

#[tokio::test(start_paused = true)]
async fn rollout_of_twenty_nodes_lasts_as_its_plan_says_and_waits_overlap() {
    let one_by_one = |desired: &mut Desired| desired.policy.batch = Some(1);
    let undrained = |desired: &mut Desired| {
        one_by_one(desired);
        desired.policy.drain = DrainPolicy::Off;
    };
    let mut told = Vec::new();
    for (what, (took, (shortest, longest))) in [
        ("a service on all, one by one", restart(NODES, one_by_one, ON_ALL).await),
        (
            "a service on all, three at a time",
            restart(NODES, |desired| desired.policy.batch = Some(3), ON_ALL).await,
        ),
        ("a service on all, --no-drain", restart(NODES, undrained, ON_ALL).await),
        ("ten services on two each", restart(NODES, |_| (), IN_PAIRS).await),
        ("ten services on two each, one by one", restart(NODES, one_by_one, IN_PAIRS).await),
        ("ten services on two each, --no-drain", restart(NODES, undrained, IN_PAIRS).await),
        ("of two nodes: a service on both", restart(2, |_| (), ON_ALL).await),
        ("of two nodes: a service on both, --no-drain", restart(2, undrained, ON_ALL).await),
    ] {
        eprintln!("| {what} | {took} | {shortest} | {longest} |");
        assert!(shortest <= took && took <= longest, "{what}: {shortest} <= {took} <= {longest}");
        told.push(took);
    }
    let [all, batches, undrained, pairs, pairs_one_by_one, _, two, two_undrained] = told[..] else {
        panic!("{told:?}")
    };
    // Each after the other would be twenty times the wait of 65 s and the gate.
    assert!(undrained < batches && batches < all && all < 20 * (65 + undrained / 20), "{told:?}");
    assert!(pairs * 2 < pairs_one_by_one, "{told:?}");
    assert!(two >= 2 * 65 && two_undrained * 10 == undrained, "{told:?}");
}

/// Services of the largest deployment that a journal is made for, of which it is to need a tenth at most.
const LARGEST: u64 = 400;

#[tokio::test(start_paused = true)]
async fn journal_of_a_few_hundred_services_is_a_tenth_of_what_one_may_be() {
    let (few, many) = (20, 80);
    let (of_few, of_many) =
        (restarted(few, |_| (), IN_PAIRS).await.2, restarted(many, |_| (), IN_PAIRS).await.2);
    let (few, many) = (u64::from(few), u64::from(many));
    // What grows with the square of the services shows between the two, and is taken as what it will be.
    let square = (of_many / many).saturating_sub(of_few / few) / (many - few);
    let linear = (of_few / few).saturating_sub(square * few);
    let needs = linear * LARGEST + square * LARGEST * LARGEST;
    eprintln!("a journal of {few} nodes has {of_few} bytes, of {many} {of_many}, of {LARGEST} about {needs}");
    assert!(of_few > 1000 && needs * 10 <= tarsup::limits::RECORD.most, "{of_few}, {of_many}: {needs}");
}
