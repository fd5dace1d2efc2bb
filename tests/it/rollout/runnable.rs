//! What is deployed on a node must be able to run in its new image: refused before anything is stopped.

use super::*;
use tarsup::diagnose::{Diagnose as _, Exit};
use tarsup::engine::{Engine as _, Environment, Variable};
use tarsup::upgrade::body::{ProbeSettings, reader};

use crate::fake::Behaviour;

/// A server on the node, as the database has it.
fn hello(more: &Value) -> Value {
    let mut row = json!({
        "server": "Demo.Hello", "node": "172.25.0.5", "setting": true, "present": true, "flow": true, "lives": true,
        "type": "tars_java",
    });
    for (key, value) in more.as_object().unwrap() {
        row[key] = value.clone();
    }
    row
}

fn lacks_java() -> Behaviour {
    let cannot_run = vec![("Demo.Hello".to_owned(), "there is no program `java`".to_owned())];
    Behaviour { cannot_run, ..Behaviour::default() }
}

async fn with(desired: &Desired, row: Value) -> FakeEngine {
    let engine = running(desired).await;
    engine.tell("servers", json!([row]));
    engine.behave("tars/node:2", lacks_java());
    engine
}

#[tokio::test(start_paused = true)]
async fn what_the_new_image_cannot_run_refuses_before_anything_is_stopped() {
    let desired = desired();
    let engine = with(&desired, hello(&json!({}))).await;
    let before = engine.dump();
    let ended = roll(&engine, &Machine::new(), &desired, &id(2), &to_2(&desired)).await;
    let failure = ended.unwrap_err();
    assert_eq!(failure.exit(), Exit::Refused, "{failure}");
    let words = "service `node`: tars/node:2 cannot run Demo.Hello: there is no program `java`";
    assert_eq!(failure.to_string(), words);
    assert!(failure.place().is_some() && failure.hint().is_some(), "{failure:?}");
    assert_eq!(engine.dump(), before, "and nothing is left of the question");
}

#[tokio::test(start_paused = true)]
async fn what_does_not_run_now_or_runs_beside_the_node_is_not_looked_at() {
    let desired = desired();
    for row in [
        hello(&json!({"present": false})),
        hello(&json!({"setting": false})),
        hello(&json!({"run_type": "container"})),
        hello(&json!({"node": "172.25.0.77"})),
    ] {
        let engine = with(&desired, row).await;
        roll(&engine, &Machine::new(), &desired, &id(2), &to_2(&desired)).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_image_of_before_cannot_run_refuses_a_rollback_whether_it_is_parked_or_made_again() {
    let desired = desired();
    for is_parked in [true, false] {
        let engine = running(&desired).await;
        engine.tell("servers", json!([hello(&json!({}))]));
        let machine = Machine::new();
        roll(&engine, &machine, &desired, &id(2), &to_2(&desired)).await.unwrap();
        engine.behave("tars/node:1", lacks_java());
        if !is_parked {
            engine.remove_container(&format!("tars-node.old.{}", id(2))).await.unwrap();
        }
        let before = engine.dump();
        let at_2 = to_2(&desired).apply(&desired);
        let back = Intent::Rollback { to: None, targets: BTreeMap::new() };
        let failure = roll(&engine, &machine.next(), &at_2, &id(3), &back).await.unwrap_err();
        assert_eq!(failure.exit(), Exit::Refused, "{failure}");
        assert!(failure.to_string().contains("tars/node:1 cannot run Demo.Hello: there is no"), "{failure}");
        assert_eq!(engine.dump(), before);
    }
}

#[tokio::test(start_paused = true)]
async fn image_that_is_loaded_first_is_asked_before_the_first_step() {
    let desired = desired();
    let engine = with(&desired, hello(&json!({}))).await;
    engine.shelve("tars/node:2");
    let machine = Machine::new();
    let command = deploy(&engine, &machine, &desired);
    let offer = command.offer(&request(&id(2), &to_2(&desired))).await.unwrap();
    let failure = command.roll(&offer).await.unwrap_err();
    assert_eq!(failure.exit(), Exit::Refused, "{failure}");
    assert!(failure.to_string().contains("cannot run Demo.Hello"), "{failure}");
    assert!(!engine.calls().iter().any(|call| call.starts_with("stop tars-") && !asks(call)));
    assert!(engine.inspect_container("tars.lock").await.unwrap().is_none(), "the deployment is free");
}

#[tokio::test(start_paused = true)]
async fn image_that_cannot_tell_is_said_and_hinders_nothing() {
    let desired = desired();
    let engine = with(&desired, hello(&json!({}))).await;
    engine.behave("tars/node:2", Behaviour { runnable_exit: 64, ..lacks_java() });
    let plan = roll(&engine, &Machine::new(), &desired, &id(2), &to_2(&desired)).await.unwrap();
    let words = "`node`: whether tars/node:2 can run what is deployed there is not known: its tars-init does not tell";
    assert!(plan.notes.contains(&words.to_owned()), "{:?}", plan.notes);
}

#[test]
fn who_is_asked_reads_the_nodes_volumes_and_is_on_no_network() {
    let desired = desired();
    let node = desired.service("node").unwrap();
    let volumes = ["/data/tars".to_owned(), "/other".to_owned()];
    let making = ProbeSettings {
        image: "sha256:2",
        command: &["/usr/local/bin/tars-init", "cluster", "--serve"],
        image_volumes: &volumes,
        labels: &[],
        variables: &Environment::default(),
    };
    let mount = json!({"Type": "volume", "Source": "tars_node", "Target": "/data/tars", "ReadOnly": true});
    let body = Value::from(reader(node, &making, vec![mount.clone()]).0);
    assert_eq!(body["HostConfig"]["NetworkMode"], "none");
    assert_eq!(body["NetworkingConfig"], Value::Null);
    assert_eq!(body["HostConfig"]["Binds"], Value::Null);
    let scratch = json!({"Type": "tmpfs", "Target": "/other"});
    assert_eq!(body["HostConfig"]["Mounts"], json!([scratch, mount]));
}

/// A server that runs in a container of its own.
fn beside() -> Value {
    hello(&json!({"run_type": "container"}))
}

#[tokio::test(start_paused = true)]
async fn what_runs_beside_a_node_is_left_alone_and_what_a_node_lacks_for_it_is_said() {
    let mut desired = desired();
    let engine = running(&desired).await;
    engine.tell("servers", json!([beside()]));
    // A tarsnode that has just started says so, whatever runs.
    engine.tell(
        "down",
        json!([{"server": "Demo.Hello", "node": beside()["node"]}, {"server": "Demo.Other", "node": "x"}]),
    );
    let offered = async |engine: &FakeEngine, desired: &Desired| {
        let machine = Machine::new();
        deploy(engine, &machine, desired).offer(&request(&id(2), &to_2(desired))).await.unwrap().plan.notes
    };
    let notes = offered(&engine, &desired).await;
    let says = |notes: &[String], words: &str| notes.iter().any(|note| note.contains(words));
    assert!(
        says(&notes, "`node`: to run in containers beside it, and down already: Demo.Hello"),
        "{notes:?}"
    );
    assert!(says(&notes, "`node`: no socket of the engine"), "{notes:?}");
    assert!(says(&notes, "`node`: TARS_HOSTPATH is not set"), "{notes:?}");

    // As tarsnode makes it: nobody's label, whatever image.
    let body = json!({"Image": "tars/node:1", "Entrypoint": ["/x"], "HostConfig": {"NetworkMode": "host"}});
    let body = tarsup::engine::CreateBody(body.as_object().unwrap().clone());
    engine.create_container("Demo.Hello", &body).await.unwrap();
    engine.start_container("Demo.Hello").await.unwrap();
    edit(&mut desired, "node", |node| {
        edit_body(node, |body| {
            let binds = body["HostConfig"]["Binds"].as_array_mut().unwrap();
            binds.push(json!("/var/run/docker.sock:/var/run/docker.sock"));
            body["Env"].as_array_mut().unwrap().push(json!("TARS_HOSTPATH=/data/tars"));
        });
    });
    let notes = offered(&engine, &desired).await;
    assert!(!notes.iter().any(|note| note.contains("beside it") || note.contains("Demo.Hello")), "{notes:?}");
    assert!(says(&notes, "services that are to run and do not: Demo.Other at x"), "{notes:?}");
    // It goes on while its node is stopped: neither silent nor drained, though it is the only one.
    let machine = Machine::new();
    let request = request(&id(2), &to_2(&desired));
    let offer = deploy(&engine, &machine, &desired).offer(&request).await.unwrap();
    assert!(!offer.plan.questions.iter().any(|one| one.contains("Demo.Hello")), "{:?}", offer.plan.questions);
    let glance = &offer.overview;
    assert!(glance.silent.is_empty() && glance.drained.is_empty(), "{glance:?}");

    roll(&engine, &Machine::new(), &desired, &id(2), &to_2(&desired)).await.unwrap();
    let prune = Intent::Prune { keep: Some(0), foreign: false };
    let _ = roll(&engine, &Machine::new(), &desired, &id(3), &prune).await;
    let found = engine.inspect_container("Demo.Hello").await.unwrap().unwrap();
    assert_eq!(found.status, tarsup::engine::Status::Running);
    let node = engine.inspect_container("tars-node").await.unwrap().unwrap();
    let binds = node.raw["HostConfig"]["Binds"].to_string();
    assert!(binds.contains("/var/run/docker.sock:/var/run/docker.sock"), "{binds}");
    assert!(node.env.0.contains(&Variable::of("TARS_HOSTPATH=/data/tars")), "{:?}", node.env);

    // Upgraded once more, its container of before gone: made again, it has both.
    let machine = Machine::new();
    let at_2 = to_2(&desired).apply(&desired);
    let other = Intent::upgrade_image(&at_2, &"tars/node:1".parse().unwrap());
    roll(&engine, &machine, &at_2, &id(4), &other).await.unwrap();
    engine.remove_container(&format!("tars-node.old.{}", id(4))).await.unwrap();
    let back = Intent::Rollback { to: None, targets: BTreeMap::new() };
    roll(&engine, &machine.next(), &other.apply(&at_2), &id(5), &back).await.unwrap();
    let again = engine.inspect_container("tars-node").await.unwrap().unwrap();
    assert_ne!(again.id, node.id);
    assert_eq!(again.raw["HostConfig"]["Binds"], node.raw["HostConfig"]["Binds"]);
    assert!(again.env.0.contains(&Variable::of("TARS_HOSTPATH=/data/tars")), "{:?}", again.env);
    let still = engine.inspect_container("Demo.Hello").await.unwrap().unwrap();
    assert_eq!((still.id, still.started_at), (found.id, found.started_at));
}
