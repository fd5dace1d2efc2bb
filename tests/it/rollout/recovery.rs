//! The way back needs only what it undoes, and proves what it left: stops under way, logs, disks, records, prunes, other people.

use super::crash::{killed_on, points};
use super::deploys::{until_it_hangs, without_failed};
use super::*;
use crate::fake::{Behaviour, Call, Fault, Moment};
use tarsup::deploy::pins::{Pin, Pins};
use tarsup::diagnose::{Diagnose as _, Exit};
use tarsup::engine::Engine as _;
use tarsup::upgrade::offer::offer;

/// The usual deployment, up.
async fn up() -> (FakeEngine, Desired) {
    let desired = desired();
    let engine = running(&desired).await;
    (engine, desired)
}

/// The parts of a version that never answers.
fn sick() -> Behaviour {
    Behaviour { healthy_after: None, ..Behaviour::default() }
}

/// Upgrades to 2 on `machine` until `call` strikes, then is killed.
async fn killed_at_call(engine: &FakeEngine, machine: &Machine, desired: &Desired, call: &str, fault: Fault) {
    engine.fault(Call::First(call.to_owned()), Moment::After, fault);
    until_it_hangs(engine, machine, desired).await;
    engine.clear_faults();
}

fn is_up(engine: &FakeEngine, name: &str, image: &str) -> bool {
    engine.dump().contains(&format!("container {name} running restart=always image={image}"))
}

#[tokio::test(start_paused = true)]
async fn deployment_that_is_down_after_an_upgrade_comes_up_from_another_machine() {
    let (engine, mut desired) = up().await;
    roll(&engine, &Machine::new(), &desired, &id(2), &to_2(&desired)).await.unwrap();
    for (name, image) in [("framework", "framework"), ("slave", "framework"), ("node", "node")] {
        edit(&mut desired, name, |service| service.image = format!("tars/{image}:2").parse().unwrap());
    }
    let before = engine.dump();
    // Neither has a journal of what was done before.
    roll(&engine, &Machine::new(), &desired, &id(3), &Intent::Down { all: false }).await.unwrap();
    roll(&engine, &Machine::new(), &desired, &id(4), &Intent::Up).await.unwrap();
    assert_eq!(engine.dump(), before);
}

// A kill while a call is under way.

#[tokio::test(start_paused = true)]
async fn stop_under_way_at_the_kill_is_seen_to_its_end_by_resume() {
    let (engine, desired) = up().await;
    let before = engine.dump();
    let machine = Machine::killed();
    // The engine goes on with the stop that its client asked for.
    let late = Fault::Late(Duration::from_secs(4));
    engine.fault(Call::First("stop tars-framework".to_owned()), Moment::Before, late);
    until_it_hangs(&engine, &machine, &desired).await;
    let resumed = resume(&engine, &machine.next(), &desired, false).await.unwrap();
    assert!(matches!(resumed, Resumed::Undone(_)), "{resumed:?}");
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(without_failed(&engine.dump()), before);
}

#[tokio::test(start_paused = true)]
async fn stop_under_way_at_the_kill_is_waited_for_where_no_journal_tells_of_it() {
    let (engine, desired) = up().await;
    let before = engine.dump();
    let late = Fault::Late(Duration::from_secs(8));
    engine.fault(Call::First("stop tars-slave".to_owned()), Moment::Before, late);
    until_it_hangs(&engine, &Machine::killed(), &desired).await;
    // Its journal is lost.
    resume(&engine, &Machine::new(), &desired, false).await.unwrap();
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(without_failed(&engine.dump()), before);
}

#[tokio::test(start_paused = true)]
async fn any_effect_that_comes_late_is_undone_too() {
    let (running, desired) = up().await;
    let before = running.dump();
    let (mut undone, mut struck) = (0, 0);
    for n in points().take_while(|n| *n < 140) {
        let engine = running.fork();
        let machine = Machine::killed();
        let command = deploy(&engine, &machine, &desired);
        let offer = command.offer(&request(&id(2), &to_2(&desired))).await.unwrap();
        engine.fault(Call::Nth(n), Moment::Before, Fault::Late(Duration::from_millis(300)));
        let killed = tokio::select! {
            _ = command.roll(&offer) => false,
            () = engine.crashed() => true,
        };
        drop(command);
        if !killed {
            break;
        }
        struck += 1;
        let call = engine.calls().last().cloned().unwrap_or_default();
        let done = resume(&engine, &machine.next(), &desired, false).await;
        tokio::time::sleep(Duration::from_mins(1)).await;
        if call.contains("tars.lock") {
            // The lock itself came late: it is found by the next command.
            resume(&engine, &machine.next(), &desired, false).await.unwrap();
        }
        let dump = without_failed(&engine.dump());
        match done.unwrap() {
            Resumed::Undone(_) | Resumed::Untouched(_) | Resumed::Nothing(_) => {
                assert_eq!(dump, before, "killed at {call}, which came late");
                undone += 1;
            }
            other => assert!(matches!(other, Resumed::Finished(_)), "{other:?}"),
        }
    }
    assert!(struck > 12 && undone > 10, "{struck} struck, {undone} undone");
}

// Logs, disks, records.

#[tokio::test(start_paused = true)]
async fn logs_that_cannot_be_read_are_a_warning_on_the_way_back() {
    let (engine, desired) = up().await;
    let before = engine.dump();
    engine.behave("tars/framework:2", sick());
    let none = Fault::Answer(501, "configured logging driver does not support reading".to_owned());
    engine.fault(Call::Every("logs ".to_owned()), Moment::Before, none);
    let machine = Machine::new();
    let failure = roll(&engine, &machine, &desired, &id(2), &to_2(&desired)).await.unwrap_err();
    assert_eq!(failure.exit(), Exit::RolledBack, "{failure}");
    assert_eq!(without_failed(&engine.dump()), before);
    assert!(machine.said.lock().unwrap().iter().any(|line| line.contains("cannot be saved")));
}

#[tokio::test(start_paused = true)]
async fn full_disk_does_not_keep_a_service_down() {
    let (engine, desired) = up().await;
    let before = engine.dump();
    engine.behave("tars/framework:2", sick());
    let machine = Machine::new();
    let fills_up = async {
        while !engine.dump().contains(".new.") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        machine.disk_is_full.store(true, Ordering::Relaxed);
        std::future::pending::<()>().await;
    };
    let (two, intent) = (id(2), to_2(&desired));
    let failure = tokio::select! {
        done = roll(&engine, &machine, &desired, &two, &intent) => done.unwrap_err(),
        () = fills_up => panic!("it never ends"),
    };
    assert_eq!(failure.exit(), Exit::RolledBack, "{failure}");
    assert_eq!(without_failed(&engine.dump()), before);
}

#[tokio::test(start_paused = true)]
async fn resume_on_a_full_disk_undoes_and_its_way_on_keeps_the_lock() {
    let (engine, desired) = up().await;
    let before = engine.dump();
    let machine = Machine::killed();
    killed_at_call(&engine, &machine, &desired, "start tars-slave", Fault::Crash).await;
    let next = machine.next_killed();
    next.disk_is_full.store(true, Ordering::Relaxed);
    let failure = resume(&engine, &next, &desired, true).await.unwrap_err();
    assert_eq!(failure.exit(), Exit::Failed, "{failure}");
    assert!(
        deploy(&engine, &next, &desired).is_free().await.is_err(),
        "a line that cannot be written frees nothing"
    );
    // The process that could not write has ended.
    let other = Machine { disk_is_full: next.disk_is_full.clone(), ..machine.next() };
    let resumed = resume(&engine, &other, &desired, false).await.unwrap();
    assert!(matches!(resumed, Resumed::Undone(_)), "{resumed:?}");
    assert_eq!(without_failed(&engine.dump()), before);
    assert!(deploy(&engine, &other, &desired).is_free().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn record_that_cannot_be_read_is_no_record_of_nothing() {
    for (record, word) in [("{\"version\":2,\"wh", "EOF"), ("{\"version\":9}", "newer tarsup")] {
        let (engine, desired) = up().await;
        let machine = Machine::killed();
        let all = Intent::Restart { services: Vec::new(), ask_with: None };
        engine.fault(Call::First("stop tars-framework".to_owned()), Moment::After, Fault::Crash);
        let two = id(2);
        tokio::select! {
            _ = roll(&engine, &machine, &desired, &two, &all) => panic!("it was to hang"),
            () = engine.crashed() => {}
        }
        engine.clear_faults();
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(record.len() as u64);
        tar.append_data(&mut header, "record.json", record.as_bytes()).unwrap();
        engine.put_archive("tars.lock", "/tarsup", tar.into_inner().unwrap()).await.unwrap();
        // Another machine has no journal, and a restart leaves no label.
        let failure = resume(&engine, &Machine::new(), &desired, false).await.unwrap_err();
        assert_eq!(failure.exit(), Exit::Interrupted, "{failure}");
        assert!(failure.to_string().contains(word), "{failure}");
        assert!(
            deploy(&engine, &Machine::new(), &desired).is_free().await.is_err(),
            "the lock is still there"
        );
        if word == "EOF" {
            // The journal beside the file tells what the lock cannot.
            let resumed = resume(&engine, &machine.next(), &desired, false).await.unwrap();
            assert!(matches!(resumed, Resumed::Undone(_)), "{resumed:?}");
            assert!(is_up(&engine, "tars-framework", "tars/framework:1"), "{}", engine.dump());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn predecessor_that_is_gone_is_named_and_the_way_on_works() {
    let (engine, desired) = up().await;
    let machine = Machine::killed();
    // The slave is swapped, the master is being swapped; somebody prunes what is stopped.
    killed_at_call(&engine, &machine, &desired, "start tars-framework", Fault::Crash).await;
    engine.start_container("tars-framework").await.unwrap();
    let old = format!("tars-slave.old.{}", id(2));
    engine.remove_container(&old).await.unwrap();

    let failure = resume(&engine, &machine.next_killed(), &desired, false).await.unwrap_err();
    assert_eq!(failure.exit(), Exit::Interrupted, "{failure}");
    let text = failure.to_string();
    assert!(
        text.contains("`slave` has no predecessor") && failure.hint().unwrap().contains("--forward"),
        "{text}"
    );
    assert!(is_up(&engine, "tars-framework", "tars/framework:1"), "the others are undone: {}", engine.dump());

    let resumed = resume(&engine, &machine.next(), &desired, true).await.unwrap();
    assert!(matches!(resumed, Resumed::Completed(_)), "{resumed:?}");
    for (name, image) in [("framework", "framework"), ("slave", "framework"), ("node", "node")] {
        assert!(is_up(&engine, &format!("tars-{name}"), &format!("tars/{image}:2")), "{}", engine.dump());
    }
}

// A prune in between.

#[tokio::test(start_paused = true)]
async fn prune_in_the_middle_of_a_run_takes_nothing_that_matters() {
    let (running, desired) = up().await;
    for struck in ["stop tars-slave", "start tars-slave", "start tars-framework", "update tars-node"] {
        let engine = running.fork();
        let machine = Machine::new();
        // Only what is created or stopped goes: the hand of the lock, and what is parked.
        let pruned = async {
            while !engine.calls().iter().any(|call| call.starts_with(struck)) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            engine.remove_container("tars.lock").await.unwrap();
            std::future::pending::<()>().await;
        };
        let (two, intent) = (id(2), to_2(&desired));
        tokio::select! {
            done = roll(&engine, &machine, &desired, &two, &intent) => drop(done.unwrap()),
            () = pruned => panic!("it never ends"),
        }
        assert!(is_up(&engine, "tars-node", "tars/node:2"), "{struck}: {}", engine.dump());
        assert_eq!(machine.written.lock().unwrap().len(), 1, "{struck}: the file is in line");
        assert!(deploy(&engine, &machine, &desired).is_free().await.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn lock_whose_volume_is_pruned_ends_the_run_and_is_resumed_from_anywhere() {
    let (running, desired) = up().await;
    for same_machine in [true, false] {
        let engine = running.fork();
        let before = engine.dump();
        let machine = Machine::new();
        let pruned = async {
            while !engine.calls().iter().any(|call| call.starts_with("start tars-slave")) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            engine.remove_container("tars.lock").await.unwrap();
            engine.remove_volume("tars.lock").await.unwrap();
            std::future::pending::<()>().await;
        };
        let (two, intent) = (id(2), to_2(&desired));
        let failure = tokio::select! {
            done = roll(&engine, &machine, &desired, &two, &intent) => done.unwrap_err(),
            () = pruned => panic!("it never ends"),
        };
        assert_eq!(failure.exit(), Exit::Interrupted, "{failure}");
        assert!(failure.to_string().contains("lock is gone"), "{failure}");

        let next = if same_machine { machine.next() } else { Machine::new() };
        let refused = roll(&engine, &next, &desired, &id(3), &Intent::Up).await.unwrap_err();
        assert_eq!(refused.exit(), Exit::Interrupted, "no command goes over it: {refused}");
        let resumed = resume(&engine, &next, &desired, false).await.unwrap();
        assert!(matches!(resumed, Resumed::Undone(_)), "{resumed:?}");
        assert_eq!(without_failed(&engine.dump()), before);
        assert!(
            matches!(resume(&engine, &next, &desired, false).await.unwrap(), Resumed::Nothing(left) if left.is_empty())
        );
    }
}

#[tokio::test(start_paused = true)]
async fn kill_and_prune_are_never_answered_with_nothing_to_resume() {
    let (running, desired) = up().await;
    for volumes in [false, true] {
        for n in points() {
            let engine = running.fork();
            let machine = Machine::killed();
            if !killed_on(&machine, &engine, &desired, &to_2(&desired), n, Moment::After).await {
                break;
            }
            let call = engine.calls().last().cloned().unwrap_or_default();
            engine.prune(volumes);
            let context = format!("killed after {call}, then pruned (volumes: {volumes})");
            match resume(&engine, &machine.next_killed(), &desired, false).await {
                Ok(Resumed::Nothing(left)) => {
                    let all = ["framework", "slave", "node", "mysql"];
                    let up = all.iter().filter(|name| {
                        engine.dump().contains(&format!("container tars-{name} running restart=always"))
                    });
                    assert!(
                        left.is_empty() && up.count() == 4 || !left.is_empty(),
                        "{context}\n{}",
                        engine.dump()
                    );
                }
                Ok(_) => {}
                Err(failure) => {
                    assert!(matches!(failure, DeployFailure::Lost { .. }), "{context}: {failure}");
                    let on = resume(&engine, &machine.next(), &desired, true).await;
                    assert!(matches!(on, Ok(Resumed::Completed(_))), "{context}: {on:?}\n{}", engine.dump());
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn upgrade_to_what_runs_already_brings_the_file_in_line() {
    let (engine, desired) = up().await;
    roll(&engine, &Machine::new(), &desired, &id(2), &to_2(&desired)).await.unwrap();
    let now = engine.dump();
    // The commit could not write the file: it still names 1.
    let machine = Machine::new();
    let plan = roll(&engine, &machine, &desired, &id(3), &to_2(&desired)).await.unwrap();
    assert!(plan.is_empty(), "{}", tarsup::upgrade::render::plan(&plan));
    assert_eq!(machine.written.lock().unwrap()[0]["slave"].to_string(), "tars/framework:2");
    assert_eq!(engine.dump(), now);
    let nothing = resume(&engine, &Machine::new(), &desired, false).await.unwrap();
    let Resumed::Nothing(left) = nothing else { panic!("{nothing:?}") };
    assert!(left.iter().any(|one| one.contains("`slave` runs tars/framework:2")), "{left:?}");
}

// One operator at a time.

#[tokio::test(start_paused = true)]
async fn owner_whose_lock_is_taken_over_does_nothing_more() {
    let (running, desired) = up().await;
    let engine = running.fork();
    let elsewhere = Owner { boot: "other".to_owned(), machine: "other".to_owned(), ..Owner::current() };
    let far = Machine { owner: elsewhere, ..Machine::new() };
    engine.behave(
        "tars/framework:2",
        Behaviour { healthy_after: Some(Duration::from_secs(10)), ..Behaviour::default() },
    );
    let here = Machine { now: far.now + Duration::from_mins(10), ..Machine::new() };
    let (two, intent) = (id(2), to_2(&desired));
    let takes_over = async {
        while !engine.calls().iter().any(|call| call.starts_with("start tars-slave")) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let done = deploy(&engine, &here, &desired).resume(&taking_over(true)).await;
        (engine.dump(), done)
    };
    let (first, (dump, second)) = tokio::join!(roll(&engine, &far, &desired, &two, &intent), takes_over);
    assert!(matches!(second, Ok(Resumed::Undone(_))), "{second:?}");
    let first = first.unwrap_err();
    assert_eq!(first.exit(), Exit::Interrupted, "{first}");
    assert!(is_up(&engine, "tars-slave", "tars/framework:1"), "{}", engine.dump());
    assert_eq!(engine.dump(), dump, "what the second one left is as it left it");
}

#[tokio::test(start_paused = true)]
async fn takeover_is_won_by_one_of_several() {
    let (engine, desired) = up().await;
    let before = engine.dump();
    let machine = Machine::killed();
    killed_at_call(&engine, &machine, &desired, "start tars-slave", Fault::Crash).await;
    let (one, other) = (machine.next(), machine.next());
    let (first, second) =
        tokio::join!(resume(&engine, &one, &desired, false), resume(&engine, &other, &desired, false));
    let won = [&first, &second].iter().filter(|done| matches!(done, Ok(Resumed::Undone(_)))).count();
    assert!(won >= 1, "{first:?} {second:?}");
    for done in [first, second] {
        match done {
            Ok(Resumed::Undone(_) | Resumed::Nothing(_)) => {}
            Err(failure) => {
                assert!(
                    matches!(failure.exit(), Exit::Held | Exit::Refused | Exit::Interrupted),
                    "{failure}"
                );
            }
            Ok(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(without_failed(&engine.dump()), before);
}

#[tokio::test(start_paused = true)]
async fn takeover_killed_at_any_call_can_be_taken_over_again() {
    let (running, desired) = up().await;
    let before = running.dump();
    let machine = Machine::killed();
    killed_at_call(&running, &machine, &desired, "start tars-slave", Fault::Crash).await;
    for moment in [Moment::Before, Moment::After] {
        for n in 0.. {
            let engine = running.fork();
            let second = machine.next_killed();
            engine.fault(Call::Nth(n), moment, Fault::Crash);
            let killed = tokio::select! {
                _ = resume(&engine, &second, &desired, false) => false,
                () = engine.crashed() => true,
            };
            engine.clear_faults();
            let call = engine.calls().last().cloned().unwrap_or_default();
            if !killed {
                assert!(n > 20);
                break;
            }
            // No journal here: the record must have come through.
            let done = resume(&engine, &Machine::new(), &desired, false).await;
            assert!(done.is_ok(), "killed {moment:?} {call}: {done:?}\n{}", engine.dump());
            let dump = without_failed(&engine.dump());
            assert_eq!(dump, before, "killed {moment:?} {call}: {done:?}");
            assert!(deploy(&engine, &Machine::new(), &desired).is_free().await.is_ok(), "{call}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn volume_of_somebody_elses_under_the_locks_name_is_never_removed() {
    let (engine, desired) = up().await;
    engine.create_volume(&json!({"Name": "tars.lock"})).await.unwrap();
    let machine = Machine::new();
    let refused = roll(&engine, &machine, &desired, &id(2), &to_2(&desired)).await.unwrap_err();
    assert_eq!(refused.exit(), Exit::Interrupted, "{refused}");
    for take_over in [false, true] {
        deploy(&engine, &machine, &desired).resume(&taking_over(take_over)).await.unwrap_err();
    }
    assert!(engine.inspect_volume("tars.lock").await.unwrap().is_some());
}

// What was shown is what runs.

#[tokio::test(start_paused = true)]
async fn tag_that_moves_after_the_plan_was_shown_is_refused_with_both_ids() {
    let (engine, desired) = up().await;
    let before = engine.dump();
    let machine = Machine::new();
    let command = deploy(&engine, &machine, &desired);
    let shown = command.offer(&request(&id(2), &to_2(&desired))).await.unwrap();
    let old = engine.inspect_image("tars/framework:2").await.unwrap().unwrap().id;
    let new = engine.add_image("tars/framework:2", "framework 2, built again", &["PATH=/bin"]);
    let failure = command.roll(&shown).await.unwrap_err();
    assert_eq!(failure.exit(), Exit::Refused, "{failure}");
    let text = failure.to_string();
    assert!(text.contains(&old) && text.contains(&new), "{text}");
    assert_eq!(engine.dump(), before);
    command.is_free().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn tag_that_moves_is_refused_under_the_pins_too() {
    let (engine, desired) = up().await;
    let before = engine.dump();
    let (machine, intent) = (Machine::new(), to_2(&desired));
    let observed = observe(&engine, &intent.apply(&desired)).await.unwrap();
    let mut pins = Pins::new("tars");
    for service in &intent.apply(&desired).services {
        let image = observed.image(&service.image.to_string()).unwrap();
        pins.images.insert(service.image.clone(), Pin::of_engine(image, observed.engine.image_store));
    }
    let request = Request { pins: Some(pins), ..request(&id(2), &intent) };
    let command = deploy(&engine, &machine, &desired);
    let shown = command.offer(&request).await.unwrap();
    engine.add_image("tars/framework:2", "framework 2, built again", &["PATH=/bin"]);
    let failure = command.roll(&shown).await.unwrap_err();
    assert_eq!(failure.exit(), Exit::Refused, "{failure}");
    let failure = command.offer(&request).await.unwrap_err();
    assert_eq!(failure.exit(), Exit::Refused, "{failure}");
    assert!(failure.to_string().contains("tars/framework:2"), "{failure}");
    assert_eq!(engine.dump(), before);
    command.is_free().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn offer_is_the_same_for_the_same_state() {
    let (engine, desired) = up().await;
    let request = request(&id(2), &to_2(&desired));
    let observed = observe(&engine, &request.intent.apply(&desired)).await.unwrap();
    let (one, two) =
        (offer(&desired, &observed, &request).unwrap(), offer(&desired, &observed, &request).unwrap());
    assert_eq!((&one.plan, &one.edits), (&two.plan, &two.edits));
    assert_eq!(one.edits.len(), 3);
}

// The order back.

#[tokio::test(start_paused = true)]
async fn way_back_goes_node_master_slave() {
    let (engine, desired) = up().await;
    roll(&engine, &Machine::new(), &desired, &id(2), &to_2(&desired)).await.unwrap();
    let starts = |from: usize| -> Vec<String> {
        // Whoever is asked beside the deployment before the plan is shown is no part of it.
        let is_part = |call: &&String| is_start(call) && !call.contains(".preview.");
        engine.calls()[from..].iter().filter(is_part).cloned().collect()
    };
    let calls = engine.calls().len();
    let back = Intent::Rollback { to: None, targets: BTreeMap::new() };
    roll(&engine, &Machine::new(), &desired, &id(3), &back).await.unwrap();
    assert_eq!(starts(calls), ["start tars-node", "start tars-framework", "start tars-slave"]);
    // What comes back is newer than what is there: that is the way forward.
    let calls = engine.calls().len();
    let forth = Intent::Rollback { to: Some(id(2)), targets: BTreeMap::new() };
    roll(&engine, &Machine::new(), &desired, &id(4), &forth).await.unwrap();
    assert_eq!(starts(calls), ["start tars-slave", "start tars-framework", "start tars-node"]);
    // A deploy that fails at its last step is undone in the same order.
    let calls = engine.calls().len();
    engine.behave("tars/node:1", sick());
    let back = Intent::upgrade(&desired, Some("1"));
    roll(&engine, &Machine::new(), &desired, &id(5), &back).await.unwrap_err();
    let undone = starts(calls);
    assert_eq!(undone[undone.len() - 3..], ["start tars-node", "start tars-framework", "start tars-slave"]);
}

#[tokio::test(start_paused = true)]
async fn what_a_dying_container_printed_is_masked() {
    let (engine, desired) = up().await;
    engine.behave("tars/framework:2", sick());
    engine.print("tars-slave", "Access denied for root using s3cret");
    let machine = Machine::new();
    let prints = async {
        while !is_started(&engine) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        engine.print("tars-slave", "Access denied for root using s3cret");
        std::future::pending::<()>().await;
    };
    let (two, intent) = (id(2), to_2(&desired));
    let failure = tokio::select! {
        done = roll(&engine, &machine, &desired, &two, &intent) => done.unwrap_err(),
        () = prints => panic!("it never ends"),
    };
    let text = failure.to_string() + &serde_json::to_string(&machine.lines()).unwrap();
    assert!(text.contains("Access denied") && !text.contains("s3cret"), "{text}");
}

fn is_started(engine: &FakeEngine) -> bool {
    engine.dump().contains("container tars-slave running restart=no image=tars/framework:2")
}
