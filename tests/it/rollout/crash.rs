//! An upgrade that is killed before and after every engine call, and then resumed, either way.

use super::batches::{tell, with_nodes};
use super::deploys::{rollback, without_failed};
use super::*;
use crate::fake::{Behaviour, Call, Fault, Moment};

/// Master, slave and two nodes with their database, and the next version's images not loaded yet.
async fn begun() -> (FakeEngine, Desired) {
    let desired = large();
    let engine = running(&desired).await;
    for image in ["tars/framework:2", "tars/node:2"] {
        engine.shelve(image);
    }
    // Its start has brought what its version ships, and the next one's migration changes that.
    engine.behave("tars/framework:1", shipping("one"));
    engine.behave("tars/framework:2", shipping("two"));
    let again = Intent::Restart { services: Vec::new(), ask_with: None };
    roll(&engine, &Machine::new(), &desired, &id(1), &again).await.unwrap();
    assert!(engine.dump().contains("template one"), "{}", engine.dump());
    (engine, desired)
}

fn shipping(value: &'static str) -> Behaviour {
    Behaviour { ships: Some(value), ..Behaviour::default() }
}

/// The calls at which a matrix kills: every one with `TARSUP_EVERY=1` (tests/long.sh), else each eighth from a place that differs
/// from run to run. The place is printed, and `TARSUP_SEED` brings it back.
pub fn points() -> impl Iterator<Item = usize> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<usize>().ok());
    let stride = number("TARSUP_EVERY").unwrap_or(8).max(1);
    let drawn = || {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |now| now.subsec_nanos())
    };
    let seed = number("TARSUP_SEED").unwrap_or_else(|| drawn() as usize / 1000) % stride;
    eprintln!("killed at each call number {seed} + {stride} n (TARSUP_EVERY={stride} TARSUP_SEED={seed})");
    (seed..).step_by(stride)
}

/// Carries `intent` out until it is killed at call `n`; false where it ended before.
async fn killed_at(
    engine: &FakeEngine,
    desired: &Desired,
    intent: &Intent,
    n: usize,
    moment: Moment,
) -> bool {
    killed_on(&Machine::killed(), engine, desired, intent, n, moment).await
}

/// The same on a machine whose journals are looked at afterwards.
pub async fn killed_on(
    machine: &Machine,
    engine: &FakeEngine,
    desired: &Desired,
    intent: &Intent,
    n: usize,
    moment: Moment,
) -> bool {
    killed_as(machine, engine, desired, &request(&id(2), intent), n, moment).await
}

/// The same for a deploy of any name.
pub async fn killed_as(
    machine: &Machine,
    engine: &FakeEngine,
    desired: &Desired,
    request: &Request,
    n: usize,
    moment: Moment,
) -> bool {
    let command = deploy(engine, machine, desired);
    let offer = command.offer(request).await.unwrap();
    engine.fault(Call::Nth(n), moment, Fault::Crash);
    let killed = tokio::select! {
        _ = command.roll(&offer) => false,
        () = engine.crashed() => true,
    };
    engine.clear_faults();
    killed
}

/// Resumes until nothing is left to resume; how often that was.
async fn resumed(engine: &FakeEngine, desired: &Desired, forward: bool) -> Vec<Resumed> {
    resumed_on(&Machine::new(), engine, desired, forward).await
}

/// The same on a machine that may have the journal.
async fn resumed_on(
    machine: &Machine,
    engine: &FakeEngine,
    desired: &Desired,
    forward: bool,
) -> Vec<Resumed> {
    let mut done = Vec::new();
    loop {
        match resume(engine, machine, desired, forward).await.unwrap() {
            Resumed::Nothing(_) => return done,
            other => done.push(other),
        }
        assert!(done.len() < 3, "it never ends: {done:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn upgrade_killed_at_any_call_is_undone_or_finished_by_resume() {
    let (running, desired) = begun().await;
    let (engine, before) = (running.fork(), running.dump());
    assert!(!killed_at(&engine, &desired, &to_2(&desired), usize::MAX / 2, Moment::Before).await);
    let after = engine.dump();
    let (mut undone, mut finished) = (0, 0);
    for moment in [Moment::Before, Moment::After] {
        for n in points() {
            let engine = running.fork();
            if !killed_at(&engine, &desired, &to_2(&desired), n, moment).await {
                assert!(n > 100, "only {n} calls were made");
                break;
            }
            let calls = engine.calls();
            let context = format!("killed {moment:?} call {n}, {}", calls.last().unwrap());
            let done = resumed(&engine, &desired, false).await;
            let dump = without_failed(&engine.dump());
            match done.as_slice() {
                [] | [Resumed::Untouched(_)] if dump == before => undone += 1,
                // Killed after the lock was given back: the deploy was complete.
                [] | [Resumed::Finished(_)] => {
                    assert_eq!(dump, after, "{context}");
                    finished += 1;
                }
                [Resumed::Undone(_)] => {
                    assert_eq!(dump, before, "{context}");
                    undone += 1;
                }
                other => panic!("{context}: {other:?}"),
            }
            let still = engine.dump();
            assert!(resumed(&engine, &desired, false).await.is_empty());
            assert_eq!(engine.dump(), still, "{context}: a second resume changed something");
            let up = planned(&engine, &desired, 3, &Intent::Up).await;
            assert!(up.is_ok(), "{context}: {up:?}");
        }
    }
    assert!(undone > 20 && finished > 2, "{undone} undone, {finished} finished");
}

#[tokio::test(start_paused = true)]
async fn upgrade_killed_at_any_call_goes_on_with_resume_forward() {
    let (running, desired) = begun().await;
    let (engine, before) = (running.fork(), running.dump());
    assert!(!killed_at(&engine, &desired, &to_2(&desired), usize::MAX / 2, Moment::Before).await);
    let after = engine.dump();
    // With the journal, which tells what was under way, and without it.
    let cases =
        [(Moment::Before, true), (Moment::After, true), (Moment::Before, false), (Moment::After, false)];
    for (moment, has_journal) in cases {
        for n in points() {
            let (engine, machine) = (running.fork(), Machine::killed());
            if !killed_on(&machine, &engine, &desired, &to_2(&desired), n, moment).await {
                break;
            }
            let calls = engine.calls();
            let context =
                format!("killed {moment:?} call {n}, {}, journal: {has_journal}", calls.last().unwrap());
            let resumer = if has_journal { machine.next() } else { Machine::new() };
            let done = resumed_on(&resumer, &engine, &desired, true).await;
            let dump = engine.dump();
            match done.as_slice() {
                // Killed before the record was in the lock, when nothing had been changed.
                [] | [Resumed::Untouched(_)] if dump == before => {}
                [] | [Resumed::Finished(_) | Resumed::Completed(_)] => assert_eq!(dump, after, "{context}"),
                other => panic!("{context}: {other:?}\n{dump}"),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nodes_that_are_drained_ahead_and_killed_at_any_call_are_undone_or_go_on_and_all_is_given_back() {
    let mut desired = with_nodes();
    desired.services.retain(|service| !["node3", "node4", "node5"].contains(&service.name.as_str()));
    let running = running(&desired).await;
    tell(&running, &[("Demo.A", &[0, 1, 2, 7])]);
    let nodes = Intent::upgrade_image(&desired, &"tars/node:2".parse().unwrap());
    let (engine, before) = (running.fork(), running.dump());
    let machine = Machine::new();
    let offer = roll(&engine, &machine, &desired, &id(2), &nodes).await.unwrap();
    assert_eq!(offer.steps.iter().filter(|step| step.action.kind() == "drain-ahead").count(), 2);
    let after = engine.dump();
    for forward in [false, true] {
        for n in points() {
            let engine = running.fork();
            if !killed_at(&engine, &desired, &nodes, n, Moment::After).await {
                break;
            }
            let context = format!("killed after call {n}, {}", engine.calls().last().unwrap());
            let done = resumed(&engine, &desired, forward).await;
            let dump = without_failed(&engine.dump());
            match done.as_slice() {
                [] => assert!(dump == before || dump == after, "{context}\n{dump}"),
                [Resumed::Undone(_) | Resumed::Untouched(_)] => assert_eq!(dump, before, "{context}"),
                [Resumed::Completed(_) | Resumed::Finished(_)] => assert_eq!(dump, after, "{context}"),
                other => panic!("{context}: {other:?}"),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn way_back_killed_at_any_call_is_completed_by_resume() {
    let (running, desired) = begun().await;
    let before = running.dump();
    let sick = Behaviour { healthy_after: None, ..shipping("two") };
    for moment in [Moment::Before, Moment::After] {
        for n in points() {
            let engine = running.fork();
            // The slave passes, the master does not.
            engine.behave_named("tars-slave", shipping("two"));
            engine.behave("tars/framework:2", sick.clone());
            if !killed_at(&engine, &desired, &to_2(&desired), n, moment).await {
                break;
            }
            let calls = engine.calls();
            let context = format!("killed {moment:?} call {n}, {}", calls.last().unwrap());
            resumed(&engine, &desired, false).await;
            assert_eq!(without_failed(&engine.dump()), before, "{context}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn first_up_killed_at_any_call_can_be_resumed_forward_or_begun_again() {
    let desired = desired();
    let after = running(&desired).await.dump();
    for forward in [true, false] {
        for n in points() {
            let engine = engine();
            if !killed_at(&engine, &desired, &Intent::Up, n, Moment::After).await {
                break;
            }
            let calls = engine.calls();
            let context = format!("killed after call {n}, {}", calls.last().unwrap());
            resumed(&engine, &desired, forward).await;
            roll(&engine, &Machine::new(), &desired, &id(3), &Intent::Up).await.unwrap();
            assert_eq!(without_failed(&engine.dump()), after, "{context}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rollback_killed_at_any_call_ends_on_one_side() {
    let (running, desired) = begun().await;
    let mut at_2 = desired.clone();
    for name in ["framework", "slave", "node", "node2"] {
        edit(&mut at_2, name, |service| service.image = service.image.with_tag("2"));
    }
    let ended = {
        let engine = running.fork();
        let two: DeployId = "20260101T000001Z-0000".parse().unwrap();
        roll(&engine, &Machine::new(), &desired, &two, &to_2(&desired)).await.unwrap();
        let back = rollback(&engine, &at_2, None).await;
        roll(&engine, &Machine::new(), &at_2, &id(2), &back).await.unwrap();
        engine.dump()
    };
    for forward in [true, false] {
        for n in points() {
            let engine = running.fork();
            roll(
                &engine,
                &Machine::new(),
                &desired,
                &"20260101T000001Z-0000".parse().unwrap(),
                &to_2(&desired),
            )
            .await
            .unwrap();
            let began = engine.dump();
            let back = rollback(&engine, &at_2, None).await;
            if !killed_at(&engine, &at_2, &back, n, Moment::After).await {
                break;
            }
            let calls = engine.calls();
            let context = format!("killed after call {n}, {}", calls.last().unwrap());
            let done = resumed(&engine, &at_2, forward).await;
            let dump = engine.dump();
            match done.as_slice() {
                [Resumed::Undone(_) | Resumed::Untouched(_)] => assert_eq!(dump, began, "{context}"),
                [Resumed::Completed(_) | Resumed::Finished(_)] => {
                    let back = "container tars-slave running restart=always image=tars/framework:1";
                    assert!(dump.contains(back), "{context}\n{dump}");
                }
                // Killed before the lock was taken, or after it was given back.
                [] => assert!(dump == began || dump == ended, "{context}\n{dump}"),
                other => panic!("{context}: {other:?}"),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn reboot_in_the_middle_of_a_swap_is_resumed() {
    let (running, desired) = begun().await;
    let before = running.dump();
    for n in (0..80).step_by(7) {
        let engine = running.fork();
        if !killed_at(&engine, &desired, &to_2(&desired), n, Moment::After).await {
            break;
        }
        engine.reboot();
        if resumed(&engine, &desired, false).await.iter().any(|done| matches!(done, Resumed::Undone(_))) {
            assert_eq!(without_failed(&engine.dump()), before, "rebooted after call {n}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn answer_lost_after_any_call_ends_where_it_began_or_where_it_wanted() {
    let (running, desired) = begun().await;
    let (engine, before) = (running.fork(), running.dump());
    assert!(!killed_at(&engine, &desired, &to_2(&desired), usize::MAX / 2, Moment::Before).await);
    let after = engine.dump();
    for n in points().take_while(|n| *n < 160) {
        let engine = running.fork();
        let machine = Machine::killed();
        let command = deploy(&engine, &machine, &desired);
        let offer = command.offer(&request(&id(2), &to_2(&desired))).await.unwrap();
        engine.fault(Call::Nth(n), Moment::After, Fault::Lost);
        let calls = engine.calls().len();
        let done = command.roll(&offer).await;
        let call = engine.calls().get(calls + n).cloned().unwrap_or_default();
        engine.clear_faults();
        resumed(&engine, &desired, false).await;
        let dump = without_failed(&engine.dump());
        assert!(dump == before || dump == after, "lost the answer of call {n}, {call}: {done:?}\n{dump}");
    }
}
