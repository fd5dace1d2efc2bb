//! A service that shares memory with another one follows it: when it is replaced, restarted, brought back, and on every way back.

use super::crash::{killed_as, killed_on, points};
use super::deploys::{rollback, without_failed};
use super::*;
use crate::fake::{Behaviour, Moment};
use tarsup::deploy::observed::LABEL_LEANS;
use tarsup::diagnose::{Diagnose as _, Exit};
use tarsup::engine::{Container, CreateBody, Engine as _, Status};
use tarsup::upgrade::step::Action;

/// How `cache` leans on `base`: undeclared, as containers that were adopted by an older release, and as a file declares it.
const WAYS: [&str; 5] =
    ["IpcMode", "PidMode", "declared IpcMode", "declared PidMode", "declared NetworkMode"];

/// Declares that `cache` has something of `base`.
fn declare(desired: &mut Desired, mode: &str) {
    edit(desired, "cache", |service| {
        edit_body(service, |body| {
            body["HostConfig"][mode] = json!("container:tars-base");
            if mode == "NetworkMode" {
                body.remove("NetworkingConfig");
            }
        });
        service.depends_on.push("base".to_owned());
    });
}

/// `cache` stands before `base` in the file, and leans on it.
async fn leaning(way: &str) -> (FakeEngine, Desired) {
    let mut desired = desired();
    for (name, last) in [("cache", 8), ("base", 9)] {
        desired.services.push(service(name, None, "tars/node:1", last));
        let volume = format!("tars_{name}");
        let mut resource = desired.volumes[0].clone();
        (resource.key, resource.body) = (name.to_owned(), json!({"Name": volume}));
        resource.name = volume;
        desired.volumes.push(resource);
    }
    if let Some(mode) = way.strip_prefix("declared ") {
        declare(&mut desired, mode);
        let engine = running(&desired).await;
        is_joined(&engine, "at first").await;
        return (engine, desired);
    }
    let mode = way;
    let engine = running(&desired).await;
    let base = found(&engine, "tars-base").await;
    engine.edit_host("tars-cache", |host| host[mode] = json!(format!("container:{}", base.id)));
    engine.edit_labels("tars-cache", |labels| {
        labels.insert(LABEL_LEANS.to_owned(), json!("true"));
    });
    let again = Intent::Restart { services: vec!["cache".to_owned()], ask_with: None };
    roll(&engine, &Machine::new(), &desired, &id(1), &again).await.unwrap();
    is_joined(&engine, "at first").await;
    (engine, desired)
}

async fn found(engine: &FakeEngine, name: &str) -> Container {
    engine.inspect_container(name).await.unwrap().unwrap()
}

/// Both run, and `cache` has been started with the memory that `base` has now.
async fn is_joined(engine: &FakeEngine, context: &str) {
    let (base, cache) = (found(engine, "tars-base").await, found(engine, "tars-cache").await);
    let context = format!("{context}\n{}", engine.dump());
    let modes = ["NetworkMode", "IpcMode", "PidMode"]
        .map(|key| cache.raw["HostConfig"][key].as_str().unwrap_or_default().to_owned());
    assert!(modes.contains(&format!("container:{}", base.id)), "{modes:?} {context}");
    assert_eq!((base.status, cache.status), (Status::Running, Status::Running), "{context}");
    assert!(cache.started_at > base.started_at, "{} {} {context}", cache.started_at, base.started_at);
}

fn upgrade_of(name: &str) -> Intent {
    Intent::Upgrade { images: [(name.to_owned(), "tars/node:2".parse().unwrap())].into() }
}

#[tokio::test(start_paused = true)]
async fn what_shares_a_namespace_is_replaced_right_after_what_it_shares_it_with() {
    for (way, what) in
        WAYS.into_iter().zip(["shared memory", "processes", "shared memory", "processes", "network"])
    {
        Box::pin(replaced_with_a_follower(way, what)).await;
    }
}

async fn replaced_with_a_follower(way: &str, what: &str) {
    let (engine, desired) = leaning(way).await;
    let before = found(&engine, "tars-cache").await.id;
    let machine = Machine::new();
    let offer =
        deploy(&engine, &machine, &desired).offer(&request(&id(2), &upgrade_of("base"))).await.unwrap();
    assert!(
        offer.plan.questions.iter().all(|question| !question.contains("tars-cache")),
        "{:?}",
        offer.plan.questions
    );
    let of = |service: &str, kind: &str| {
        let fits = |step: &tarsup::upgrade::step::Step| {
            step.service.as_deref() == Some(service) && step.action.kind() == kind
        };
        offer.plan.steps.iter().position(fits).unwrap_or_else(|| panic!("{service} {kind}"))
    };
    assert!(of("base", "gate") < of("cache", "create"));
    let create = &offer.plan.steps[of("cache", "create")];
    assert_eq!(create.cause, format!("it has its {what} from `base`, which is replaced"));
    assert!(matches!(&create.action, Action::Create { image, .. } if image.to_string() == "tars/node:1"));
    deploy(&engine, &machine, &desired).roll(&offer).await.unwrap();
    is_joined(&engine, "after the upgrade").await;
    assert_ne!(found(&engine, "tars-cache").await.id, before);

    // It can go back: both, in an order in which the engine starts them.
    let at_2 = upgrade_of("base").apply(&desired);
    let back = rollback(&engine, &at_2, None).await;
    roll(&engine, &Machine::new(), &at_2, &id(3), &back).await.unwrap();
    assert_eq!(found(&engine, "tars-cache").await.id, before);
    is_joined(&engine, "after the rollback").await;
}

#[tokio::test(start_paused = true)]
async fn follower_that_fails_takes_both_back() {
    for way in WAYS {
        failing_with_a_follower(way).await;
    }
}

async fn failing_with_a_follower(way: &str) {
    let (engine, desired) = leaning(way).await;
    let before = engine.dump();
    engine.behave("tars/node:1", Behaviour { dies: Some((Duration::ZERO, 1)), ..Behaviour::default() });
    // What runs already goes on as it was, and comes back so.
    for name in ["tars-cache", "tars-base", "tars-node"] {
        let one = found(&engine, name).await;
        engine.behave_named(&one.id, Behaviour::default());
    }
    let failure = roll(&engine, &Machine::new(), &desired, &id(2), &upgrade_of("base")).await.unwrap_err();
    assert_eq!(failure.exit(), Exit::RolledBack, "{failure}");
    assert_eq!(without_failed(&engine.dump()), before);
    is_joined(&engine, "after the way back").await;
}

#[tokio::test(start_paused = true)]
async fn roll_with_a_follower_killed_at_any_call_ends_with_both_joined() {
    for way in WAYS {
        killed_with_a_follower(way).await;
    }
}

async fn killed_with_a_follower(way: &str) {
    let (running, desired) = leaning(way).await;
    let before = running.dump();
    let (mut undone, mut completed) = (0, 0);
    for forward in [false, true] {
        for moment in [Moment::Before, Moment::After] {
            for n in points() {
                let engine = running.fork();
                let machine = Machine::killed();
                if !killed_on(&machine, &engine, &desired, &upgrade_of("base"), n, moment).await {
                    break;
                }
                let context = format!(
                    "killed {moment:?} call {n}, {}, forward: {forward}",
                    engine.calls().last().unwrap()
                );
                let next = machine.next();
                while !matches!(
                    resume(&engine, &next, &desired, forward)
                        .await
                        .unwrap_or_else(|error| panic!("{context}: {error}")),
                    Resumed::Nothing(_)
                ) {}
                is_joined(&engine, &context).await;
                if without_failed(&engine.dump()) == before { undone += 1 } else { completed += 1 }
            }
        }
    }
    assert!(undone > 3 && completed > 3, "{undone} undone, {completed} completed");
}

#[tokio::test(start_paused = true)]
async fn restart_takes_along_what_shares_memory_and_so_does_its_way_back() {
    for way in WAYS {
        Box::pin(restarted_with_a_follower(way)).await;
    }
}

async fn restarted_with_a_follower(way: &str) {
    let (running, desired) = leaning(way).await;
    let restart = Intent::Restart { services: vec!["base".to_owned()], ask_with: None };
    let engine = running.fork();
    let machine = Machine::new();
    let offer = deploy(&engine, &machine, &desired).offer(&request(&id(2), &restart)).await.unwrap();
    let is_cause =
        |cause: &str| cause.starts_with("it has its ") && cause.ends_with(" from `base`, which is restarted");
    assert!(offer.plan.steps.iter().any(|step| is_cause(&step.cause)), "{:#?}", offer.plan.steps);
    deploy(&engine, &machine, &desired).roll(&offer).await.unwrap();
    is_joined(&engine, "after the restart").await;

    let mut restarted = 0;
    for n in points() {
        let engine = running.fork();
        if !killed_as(&Machine::killed(), &engine, &desired, &request(&id(2), &restart), n, Moment::After)
            .await
        {
            break;
        }
        let context = format!("killed after call {n}, {}", engine.calls().last().unwrap());
        resume(&engine, &Machine::new(), &desired, false)
            .await
            .unwrap_or_else(|error| panic!("{context}: {error}"));
        is_joined(&engine, &context).await;
        restarted += 1;
    }
    assert!(restarted > 2, "{restarted}");
}

#[tokio::test(start_paused = true)]
async fn held_follower_and_one_that_differs_are_asked_about() {
    let (running, desired) = leaning("IpcMode").await;
    for change in [(|service: &mut Service| service.written.hold = true) as fn(&mut Service), |service| {
        edit_body(service, |body| body["HostConfig"]["ShmSize"] = json!(1));
    }] {
        let mut desired = desired.clone();
        edit(&mut desired, "cache", change);
        let engine = running.fork();
        let machine = Machine::new();
        let offer =
            deploy(&engine, &machine, &desired).offer(&request(&id(2), &upgrade_of("base"))).await.unwrap();
        let asked = "`tars-cache` (its shared memory) leans on `tars-base`, and is cut off";
        assert!(
            offer.plan.questions.iter().any(|question| question.contains(asked)),
            "{:?}",
            offer.plan.questions
        );
        assert!(offer.plan.touched.iter().all(|touched| touched.service != "cache"));
    }
}

#[tokio::test(start_paused = true)]
async fn up_mends_what_leans_on_a_container_that_was_replaced_without_it() {
    for way in WAYS {
        Box::pin(mended(way)).await;
    }
}

async fn mended(way: &str) {
    let (engine, desired) = leaning(way).await;
    let mut held = desired.clone();
    edit(&mut held, "cache", |service| service.written.hold = true);
    let machine = Machine::new();
    roll(&engine, &machine, &held, &id(2), &upgrade_of("base")).await.unwrap();
    if way.starts_with("declared") {
        let restart = Intent::Restart { services: vec!["cache".to_owned()], ask_with: None };
        let refused = planned(&engine, &upgrade_of("base").apply(&held), 3, &restart).await.unwrap_err();
        assert!(refused.to_string().contains("would not start again"), "{refused}");
    }
    let at_2 = upgrade_of("base").apply(&desired);
    roll(&engine, &machine.next(), &at_2, &id(3), &Intent::Up).await.unwrap();
    is_joined(&engine, "after up").await;
    let machine = machine.next();
    assert!(deploy(&engine, &machine, &at_2).offer(&request(&id(4), &Intent::Up)).await.unwrap().is_empty());

    // And what was down comes up in an order in which the engine starts it.
    roll(&engine, &machine.next(), &at_2, &id(5), &Intent::Down { all: false }).await.unwrap();
    roll(&engine, &machine.next(), &at_2, &id(6), &Intent::Up).await.unwrap();
    is_joined(&engine, "after down and up").await;
}

/// What `up` does about `cache`: why, and that it is joined after it and there is nothing more to do.
async fn up_joins(engine: &FakeEngine, desired: &Desired, cause: &str) {
    let machine = Machine::new();
    let offer = deploy(engine, &machine, desired).offer(&request(&id(7), &Intent::Up)).await.unwrap();
    let of_cache = offer.plan.steps.iter().filter(|step| step.service.as_deref() == Some("cache"));
    let causes: Vec<&str> = of_cache.map(|step| step.cause.as_str()).collect();
    assert!(causes.contains(&cause), "{cause}: {causes:?}\n{}", engine.dump());
    deploy(engine, &machine, desired).roll(&offer).await.unwrap();
    is_joined(engine, cause).await;
    let machine = machine.next();
    assert!(deploy(engine, &machine, desired).offer(&request(&id(8), &Intent::Up)).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn up_joins_again_what_was_cut_off_by_whoever_touched_what_it_leans_on() {
    for (way, what) in [("IpcMode", "its shared memory"), ("NetworkMode", "its network")] {
        let (running, desired) = leaning(&format!("declared {way}")).await;
        let says = |becomes: &str| format!("it has {what} from `base`, which {becomes}");

        let engine = running.fork();
        engine.stop_container("tars-base", Duration::ZERO).await.unwrap();
        up_joins(&engine, &desired, &says("is started")).await;

        let engine = running.fork();
        engine.stop_container("tars-base", Duration::ZERO).await.unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
        engine.start_container("tars-base").await.unwrap();
        up_joins(&engine, &desired, &says("was started after it")).await;

        // It is gone, and what leaned on it runs, or has been stopped, too.
        for is_stopped in [false, true] {
            let engine = running.fork();
            engine.stop_container("tars-base", Duration::ZERO).await.unwrap();
            engine.remove_container("tars-base").await.unwrap();
            if is_stopped {
                engine.stop_container("tars-cache", Duration::ZERO).await.unwrap();
            }
            up_joins(&engine, &desired, &says("is made anew")).await;
        }
    }
}

/// Runs a container that no deployment knows; its id.
async fn run_stranger(engine: &FakeEngine, name: &str) -> String {
    let body = json!({"Image": "tars/node:1", "Cmd": ["x"]});
    let made = engine.create_container(name, &CreateBody(body.as_object().unwrap().clone())).await.unwrap();
    engine.start_container(&made).await.unwrap();
    made
}

#[tokio::test(start_paused = true)]
async fn container_of_somebody_else_is_leaned_on_by_its_name_and_missed_where_it_is_not_there() {
    let mut desired = desired();
    edit(&mut desired, "node", |service| {
        edit_body(service, |body| {
            body["HostConfig"]["NetworkMode"] = json!("container:vpn");
            body.remove("NetworkingConfig");
        });
    });
    let engine = engine();
    let machine = Machine::new();
    let refused = planned(&engine, &desired, 1, &Intent::Up).await.unwrap_err();
    let why = "service `node`: the container `vpn`, of which it has its network, is not there";
    assert!(refused.to_string().contains(why), "{refused}");

    let vpn = run_stranger(&engine, "vpn").await;
    roll(&engine, &machine, &desired, &id(1), &Intent::Up).await.unwrap();
    let network = |container: &Container| container.raw["HostConfig"]["NetworkMode"].clone();
    assert_eq!(network(&found(&engine, "tars-node").await), format!("container:{vpn}"));
    assert!(planned(&engine, &desired, 2, &Intent::Up).await.unwrap().steps.is_empty());

    // Whoever it belongs to makes it anew: nobody stops then what would not start again, and the next `up` follows.
    engine.stop_container("vpn", Duration::ZERO).await.unwrap();
    engine.remove_container("vpn").await.unwrap();
    let restart = Intent::Restart { services: vec!["node".to_owned()], ask_with: None };
    let refused = planned(&engine, &desired, 2, &restart).await.unwrap_err();
    let why = "service `node`: its container has its network from one that does not come back";
    assert!(refused.to_string().contains(why) && refused.exit() == Exit::Refused, "{refused}");
    let vpn = run_stranger(&engine, "vpn").await;
    assert!(planned(&engine, &desired, 2, &restart).await.is_err(), "it is another one");
    let plan = planned(&engine, &desired, 2, &Intent::Up).await.unwrap();
    let cause = "it has its network from `vpn`, which was made anew";
    assert!(plan.steps.iter().any(|step| step.cause == cause), "{:#?}", plan.steps);
    roll(&engine, &machine.next(), &desired, &id(2), &Intent::Up).await.unwrap();
    assert_eq!(network(&found(&engine, "tars-node").await), format!("container:{vpn}"));
}

#[tokio::test(start_paused = true)]
async fn rollback_joins_both_again_where_a_prune_has_taken_both_parked_ones() {
    for way in WAYS {
        let (engine, desired) = leaning(way).await;
        let machine = Machine::new();
        roll(&engine, &machine, &desired, &id(2), &upgrade_of("base")).await.unwrap();
        engine.prune(false);
        let back = Intent::Rollback { to: None, targets: BTreeMap::new() };
        roll(&engine, &machine, &upgrade_of("base").apply(&desired), &id(3), &back).await.unwrap();
        assert_eq!(found(&engine, "tars-base").await.image, "tars/node:1");
        is_joined(&engine, way).await;
    }
}
