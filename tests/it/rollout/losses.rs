//! What goes with a container: shared memory is refused until somebody says so, files are told, and a held service is left.

use super::deploys::rollback;
use super::*;
use crate::contract::tar;
use crate::fake::Behaviour;
use tarsup::deploy::observed::LABEL_LEANS;
use tarsup::diagnose::{Diagnose as _, Exit};
use tarsup::engine::Engine as _;
use tarsup::upgrade::render;

/// What a look finds in a node with a cache server, and in a master with its statistics.
const CACHE: &str = "segment 1 4194304 40 40\nprocess 40 DCacheServer\nattached 40 1";
const STATISTICS: &str =
    "segment 1 67108864 17 17\nprocess 17 tarsstat\nprocess 18 tarsproperty\nsegment 2 1 18 18\nfile sem.x";

fn holding(shared: &str) -> Behaviour {
    Behaviour { shared: Some(shared.to_owned()), ..Behaviour::default() }
}

/// A deployment at 1, whose node holds a cache and whose master its statistics.
async fn with_a_cache(desired: &Desired) -> FakeEngine {
    let engine = running(desired).await;
    engine.behave("tars/node:1", holding(CACHE));
    engine.behave("tars/framework:1", holding(STATISTICS));
    engine
}

#[tokio::test(start_paused = true)]
async fn shared_memory_of_a_service_is_refused_for_each_command_that_stops_it_until_it_is_accepted() {
    let desired = desired();
    for intent in [
        to_2(&desired),
        Intent::Restart { services: Vec::new(), ask_with: None },
        Intent::Restart { services: vec!["node".to_owned()], ask_with: None },
        Intent::Down { all: false },
    ] {
        let engine = with_a_cache(&desired).await;
        let machine = Machine::new();
        let command = deploy(&engine, &machine, &desired);
        let before = engine.dump();
        let mut request = request(&id(2), &intent);
        request.accept_state_loss = vec!["framework".to_owned()];
        let failure = command.offer(&request).await.unwrap_err();
        assert_eq!(failure.exit(), Exit::Refused, "{failure}");
        assert_eq!(
            failure.to_string(),
            "service `node`: its container keeps a segment of 4096 KiB of DCacheServer, which is gone once it stops"
        );
        assert!(failure.hint().unwrap().contains("--accept-state-loss node"), "{failure:?}");
        assert_eq!(engine.dump(), before);

        request.accept_state_loss.push("node".to_owned());
        let offer = command.offer(&request).await.unwrap();
        let shown = render::offer(&offer);
        assert!(shown.contains("`node` loses a segment of 4096 KiB of DCacheServer"), "{shown}");
        assert!(!shown.contains("tarsstat"), "{shown}");
        command.roll(&offer).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn segment_that_appears_while_a_person_thinks_is_refused_under_the_lock() {
    let desired = desired();
    let engine = running(&desired).await;
    let machine = Machine::new();
    let command = deploy(&engine, &machine, &desired);
    let offer = command.offer(&request(&id(2), &to_2(&desired))).await.unwrap();
    let before = engine.dump();
    engine.behave("tars/node:1", holding(CACHE));
    let failure = command.roll(&offer).await.unwrap_err();
    assert_eq!(failure.exit(), Exit::Refused, "{failure}");
    assert_eq!(engine.dump(), before, "and the lock is free");
}

#[tokio::test(start_paused = true)]
async fn resume_forward_is_told_of_it_once() {
    let desired = desired();
    let engine = with_a_cache(&desired).await;
    let machine = Machine::killed();
    engine.fault(
        crate::fake::Call::First("stop tars-framework".to_owned()),
        crate::fake::Moment::Before,
        crate::fake::Fault::Crash,
    );
    let command = deploy(&engine, &machine, &desired);
    let mut request = request(&id(2), &to_2(&desired));
    request.accept_state_loss = vec!["node".to_owned()];
    let offer = command.offer(&request).await.unwrap();
    tokio::select! {
        done = command.roll(&offer) => panic!("{done:?}"),
        () = engine.crashed() => {}
    }
    engine.clear_faults();
    // Another one of its node's has appeared meanwhile, and what was said counts for the service.
    let resumed = resume(&engine, &machine.next(), &desired, true).await.unwrap();
    assert!(matches!(resumed, Resumed::Completed(_)), "{resumed:?}");
}

#[tokio::test(start_paused = true)]
async fn memory_that_is_the_hosts_or_another_containers_goes_nowhere() {
    for (mode, refused) in [("host", false), ("container:", false), ("private", true), ("shareable", true)] {
        let mut desired = desired();
        edit(&mut desired, "node", |service| {
            edit_body(service, |body| {
                // No file names a container.
                let declared = if mode == "container:" { "" } else { mode };
                body["HostConfig"].as_object_mut().unwrap().insert("IpcMode".to_owned(), json!(declared));
            });
        });
        let engine = with_a_cache(&desired).await;
        if mode == "container:" {
            let other = engine.inspect_container("tars-mysql").await.unwrap().unwrap().id;
            engine.edit_host("tars-node", |host| host["IpcMode"] = json!(format!("{mode}{other}")));
            engine.edit_labels("tars-node", |labels| {
                labels.insert(LABEL_LEANS.to_owned(), json!("true"));
            });
        }
        let machine = Machine::new();
        let answer = deploy(&engine, &machine, &desired).offer(&request(&id(2), &to_2(&desired))).await;
        assert_eq!(answer.is_err(), refused, "{mode}");
    }
}

#[tokio::test(start_paused = true)]
async fn plan_names_files_of_a_container_that_is_replaced_and_says_where_nobody_could_look() {
    let desired = desired();
    let engine = running(&desired).await;
    engine.put_archive("tars-node", "/etc/cron.d", tar("mine", b"x")).await.unwrap();
    engine.put_archive("tars-node", "/data/tars", tar("in-the-volume", b"x")).await.unwrap();
    let started = "/usr/local/app/tars/tarsnode/conf";
    engine.put_archive("tars-node", started, tar("tars.tarsnode.config.conf", b"x")).await.unwrap();
    engine.behave("tars/node:1", Behaviour { shared: None, ..Behaviour::default() });
    let machine = Machine::new();
    let command = deploy(&engine, &machine, &desired);
    let shown = render::offer(&command.offer(&request(&id(2), &to_2(&desired))).await.unwrap());
    let line = "`node` has files of its own that its successor is without: /etc/cron.d/mine (added)\n";
    assert!(shown.contains(line), "{shown}");
    assert!(!shown.contains("in-the-volume") && !shown.contains("config.conf"), "{shown}");
    assert!(shown.contains("`node` cannot be asked what it keeps in shared memory"), "{shown}");
    // The same container goes on with them.
    let restart = Intent::Restart { services: vec!["node".to_owned()], ask_with: None };
    let shown = render::offer(&command.offer(&request(&id(2), &restart)).await.unwrap());
    assert!(!shown.contains("/etc/cron.d"), "{shown}");
}

#[tokio::test(start_paused = true)]
async fn held_service_is_touched_by_a_command_that_names_it_alone() {
    let mut desired = desired();
    edit(&mut desired, "node", |service| service.written.hold = true);
    let engine = with_a_cache(&desired).await;
    let node = engine.inspect_container("tars-node").await.unwrap().unwrap().id;
    let machine = Machine::new();
    let touched = |plan: &Plan| plan.touched.iter().any(|touched| touched.service == "node");
    // Held, it is created where it is not there, and then left: also where its declaration changes.
    let plan = roll(&engine, &machine, &desired, &id(2), &to_2(&desired)).await.unwrap();
    assert!(!touched(&plan) && !plan.touched.is_empty());
    let mut changed = to_2(&desired).apply(&desired);
    edit(&mut changed, "node", |service| service.image = "tars/node:2".parse().unwrap());
    let plan = planned(&engine, &changed, 3, &Intent::Up).await.unwrap();
    assert!(!touched(&plan), "{plan:#?}");
    let notes = plan.notes.join("\n");
    assert!(notes.contains("`node` is held and left as it is (image differs: "), "{notes}");
    for intent in [Intent::Restart { services: Vec::new(), ask_with: None }, Intent::Down { all: false }] {
        let plan = planned(&engine, &changed, 3, &intent).await.unwrap();
        assert!(
            !touched(&plan) && plan.notes.join("\n").contains("`node` is held and goes on running"),
            "{plan:#?}"
        );
    }
    assert_eq!(engine.inspect_container("tars-node").await.unwrap().unwrap().id, node);
    // Named, it is as any other, and so is the way back of that.
    engine.behave("tars/node:1", Behaviour::default());
    let images = [("node".to_owned(), "tars/node:2".parse().unwrap())].into();
    let plan = roll(&engine, &Machine::new(), &changed, &id(4), &Intent::Upgrade { images }).await.unwrap();
    assert!(touched(&plan));
    let back = rollback(&engine, &changed, None).await;
    let plan = roll(&engine, &Machine::new(), &changed, &id(5), &back).await.unwrap();
    assert!(touched(&plan));
    assert_eq!(engine.inspect_container("tars-node").await.unwrap().unwrap().id, node);
    let restart = Intent::Restart { services: vec!["node".to_owned()], ask_with: None };
    assert!(touched(&planned(&engine, &changed, 6, &restart).await.unwrap()));
    // What was stopped by `down --all` comes back with the others; what somebody stopped stays.
    roll(&engine, &Machine::new(), &changed, &id(7), &Intent::Down { all: true }).await.unwrap();
    roll(&engine, &Machine::new(), &changed, &id(8), &Intent::Up).await.unwrap();
    engine.stop_container("tars-node", std::time::Duration::ZERO).await.unwrap();
    let plan = planned(&engine, &changed, 9, &Intent::Up).await.unwrap();
    assert!(
        !touched(&plan) && plan.notes.join("\n").contains("is held and left as it is (image differs"),
        "{plan:#?}"
    );
}
