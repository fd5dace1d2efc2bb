//! Going back at any time: parked containers are gone, and what they were is made once more.

use super::crash::{killed_as, points};
use super::deploys::without_failed;
use super::*;
use crate::fake::{Behaviour, Moment};
use tarsup::deploy::observed::LABEL_TWIN;
use tarsup::diagnose::{Diagnose as _, Exit};
use tarsup::engine::{Container, Engine as _};
use tarsup::upgrade::render;

const BACK: Intent = Intent::Rollback { to: None, targets: BTreeMap::new() };

/// The large deployment with what no compose file says, upgraded to version 2 by deploy 2 on this machine.
async fn upgraded() -> (FakeEngine, Machine, Desired) {
    let mut desired = large();
    edit(&mut desired, "slave", |slave| {
        edit_body(slave, |body| {
            body["HostConfig"]["FutureKnob"] = json!({"Depth": 3});
            body.insert("Volumes".to_owned(), json!({"/var/spool": {}}));
        });
    });
    let engine = running(&desired).await;
    let machine = Machine::new();
    roll(&engine, &machine, &desired, &id(2), &to_2(&desired)).await.unwrap();
    (engine, machine, at(&desired, "2"))
}

/// What the file says after a commit.
fn at(desired: &Desired, version: &str) -> Desired {
    let mut desired = desired.clone();
    for service in &mut desired.services {
        if service.role != Some(Role::Database) {
            service.image = service.image.with_tag(version);
        }
    }
    desired
}

/// The shown container without what is another one's in any case.
async fn shown(engine: &FakeEngine, name: &str) -> Value {
    let mut found: Container = engine.inspect_container(name).await.unwrap().unwrap();
    for key in ["Id", "Name", "State", "Mounts"] {
        found.raw.as_object_mut().unwrap().remove(key);
    }
    let labels = found.raw["Config"]["Labels"].as_object_mut().unwrap();
    labels.retain(|key, _| {
        !["deploy", "record", "predecessor", "twin"].map(|key| format!("io.tarsup.{key}")).contains(key)
    });
    found.raw["HostConfig"]["RestartPolicy"] = json!(found.restart.name);
    found.raw
}

#[tokio::test(start_paused = true)]
async fn rollback_makes_once_more_what_a_prune_took() {
    let (engine, machine, now) = upgraded().await;
    let names = ["tars-framework", "tars-slave", "tars-node", "tars-node2"];
    let mut before = Vec::new();
    for name in names {
        before.push(shown(&engine, &format!("{name}.old.{}", id(2))).await);
    }
    let volume =
        engine.inspect_container(&format!("tars-slave.old.{}", id(2))).await.unwrap().unwrap().raw["Mounts"]
            .clone();
    engine.prune(false);

    let plan = roll(&engine, &machine, &now, &id(3), &BACK).await.unwrap();

    let text = render::plan(&plan);
    assert!(text.contains(&format!("as tars-slave.old.{} was", id(2))), "{text}");
    for (name, before) in names.into_iter().zip(before) {
        let mut after = shown(&engine, name).await;
        if name == "tars-slave" {
            let binds = after["HostConfig"]["Binds"].as_array_mut().unwrap();
            let spool =
                binds.iter().position(|bind| bind.as_str().unwrap().ends_with(":/var/spool")).unwrap();
            let spool = binds.remove(spool);
            let its = spool.as_str().unwrap().split(':').next().unwrap().to_owned();
            assert!(volume.to_string().contains(&its), "{its} is not the volume that it had: {volume}");
        }
        // What was without a restart policy when it was parked has the declared one.
        let (mut before, mut after) = (before, after);
        assert_eq!(after["HostConfig"]["RestartPolicy"], "always", "{name}");
        for shown in [&mut before, &mut after] {
            shown["HostConfig"]["RestartPolicy"] = Value::Null;
            for endpoint in shown["NetworkSettings"]["Networks"].as_object_mut().unwrap().values_mut() {
                endpoint["IPAddress"] = Value::Null;
            }
        }
        assert_eq!(before, after, "{name}");
    }
    assert_eq!(machine.written.lock().unwrap().last().unwrap()["node"].to_string(), "tars/node:1");
    let old = at(&now, "1");
    let plan = planned(&engine, &old, 4, &Intent::Up).await.unwrap();
    assert!(plan.steps.is_empty(), "{}", render::plan(&plan));

    // And forth again, to what this rollback parked; then back to what was made once more, which is there now.
    roll(&engine, &machine, &old, &id(4), &BACK).await.unwrap();
    assert!(engine.dump().contains("container tars-slave running restart=always image=tars/framework:2"));
    let to = Intent::Rollback { to: Some(id(1)), targets: BTreeMap::new() };
    let plan = roll(&engine, &machine, &now, &id(5), &to).await.unwrap();
    assert!(!render::plan(&plan).contains("create "), "{}", render::plan(&plan));
    assert!(engine.dump().contains("container tars-slave running restart=always image=tars/framework:1"));
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_of_containers_has_their_secrets_and_nothing_else_has() {
    let (engine, machine, now) = upgraded().await;
    engine.prune(false);
    let kept = serde_json::to_string(&*machine.twins.lock().unwrap()).unwrap();
    assert!(kept.contains("s3cret"), "or a rollback would have nothing to make them from");
    let plan = roll(&engine, &machine, &now, &id(3), &BACK).await.unwrap();
    let journals = serde_json::to_string(&machine.lines()).unwrap();
    let twins = format!("{:?}", machine.twins.lock().unwrap());
    for text in [
        render::plan(&plan),
        plan.document().to_string(),
        journals,
        machine.said.lock().unwrap().join("\n"),
        twins,
    ] {
        assert!(!text.contains("s3cret"), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn image_of_a_way_back_survives_what_takes_its_name() {
    // Somebody builds another one under the same tag.
    let (engine, machine, now) = upgraded().await;
    let had = engine.inspect_image("tars/framework:1").await.unwrap().unwrap().id;
    engine.add_image("tars/framework:1", "built again", &["PATH=/bin"]);
    engine.prune(false);
    roll(&engine, &machine, &now, &id(3), &BACK).await.unwrap();
    assert_eq!(engine.inspect_container("tars-slave").await.unwrap().unwrap().image_id, had);

    // Somebody removes the tag: it comes back.
    let (engine, machine, now) = upgraded().await;
    engine.prune(false);
    engine.remove_image("tars/framework:1").await.unwrap();
    let plan = roll(&engine, &machine, &now, &id(3), &BACK).await.unwrap();
    assert!(render::plan(&plan).contains("tars/framework:1 again"), "{}", render::plan(&plan));
    let slave = engine.inspect_container("tars-slave").await.unwrap().unwrap();
    assert_eq!((slave.image.as_str(), &slave.image_id), ("tars/framework:1", &had));
}

/// Removes every name of an image.
async fn remove_all(engine: &FakeEngine, image: &str) {
    let found = engine.inspect_image(image).await.unwrap().unwrap();
    for tag in found.tags {
        engine.remove_image(&tag).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn image_that_only_the_local_store_has_is_loaded_for_the_way_back() {
    let (engine, machine, now) = upgraded().await;
    engine.prune(false);
    for image in ["tars/framework:1", "tars/node:1"] {
        let held: Vec<String> = engine.inspect_image(image).await.unwrap().unwrap().tags;
        for tag in held.iter().filter(|tag| *tag != image) {
            engine.remove_image(tag).await.unwrap();
        }
        engine.shelve(image);
    }
    let plan = roll(&engine, &machine, &now, &id(3), &BACK).await.unwrap();
    assert!(
        render::plan(&plan).contains("load tars/framework:1 from the local store"),
        "{}",
        render::plan(&plan)
    );
    assert!(engine.dump().contains("container tars-node2 running restart=always image=tars/node:1"));
}

#[tokio::test(start_paused = true)]
async fn way_back_without_image_or_without_what_was_kept_is_refused() {
    let (engine, machine, now) = upgraded().await;
    engine.prune(false);
    let before = engine.dump();
    // Another machine, which has seen nothing of it.
    let failure = roll(&engine, &Machine::new(), &now, &id(3), &BACK).await.unwrap_err();
    assert!(
        matches!(&failure, DeployFailure::Refused(refusal) if matches!(*refusal, Refusal::ParkedGone { .. })),
        "{failure}"
    );

    remove_all(&engine, "tars/node:1").await;
    let failure = roll(&engine, &machine, &now, &id(3), &BACK).await.unwrap_err();
    assert_eq!(failure.exit(), Exit::Refused);
    assert!(
        failure.to_string().contains("neither the engine nor the local store has its image `tars/node:1`"),
        "{failure}"
    );
    assert_eq!(engine.dump(), before);
}

#[tokio::test(start_paused = true)]
async fn what_a_failed_deploy_kept_is_no_way_back() {
    let (engine, machine, now) = upgraded().await;
    engine.prune(false);
    engine.add_image("tars/framework:3", "framework 3", &["PATH=/bin"]);
    engine.add_image("tars/node:3", "node 3", &["PATH=/bin"]);
    engine.behave("tars/framework:3", Behaviour { healthy_after: None, ..Behaviour::default() });
    let failure = roll(&engine, &machine, &now, &id(3), &Intent::upgrade(&now, Some("3"))).await.unwrap_err();
    assert_eq!(failure.exit(), Exit::RolledBack, "{failure}");
    assert!(!machine.twins.lock().unwrap().keys().any(|name| name.ends_with(id(3).as_str())));
    roll(&engine, &machine, &now, &id(4), &BACK).await.unwrap();
    assert!(engine.dump().contains("container tars-slave running restart=always image=tars/framework:1"));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_begun_where_there_is_no_room_for_what_is_to_be_kept() {
    let desired = large();
    let engine = running(&desired).await;
    let (machine, before) = (Machine::new(), engine.dump());
    let command = deploy(&engine, &machine, &desired);
    let offer = command.offer(&request(&id(2), &to_2(&desired))).await.unwrap();
    machine.no_twins.store(true, Ordering::Relaxed);
    let failure = command.roll(&offer).await.unwrap_err();
    assert!(failure.to_string().contains("no space left"), "{failure}");
    assert_eq!(engine.dump(), before);
    command.is_free().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn rollback_from_what_was_kept_is_undone_where_it_fails_and_survives_kills() {
    let (begun, machine, now) = upgraded().await;
    begun.prune(false);
    let before = begun.dump();
    let engine = begun.fork();
    engine.behave("tars/framework:1", Behaviour { healthy_after: None, ..Behaviour::default() });
    let failure = roll(&engine, &machine, &now, &id(3), &BACK).await.unwrap_err();
    assert_eq!(failure.exit(), Exit::RolledBack, "{failure}");
    assert_eq!(without_failed(&engine.dump()), before);

    let mut ways = [0, 0];
    for n in points() {
        let mut any = false;
        for moment in [Moment::Before, Moment::After] {
            for forward in [false, true] {
                let (engine, killed) = (begun.fork(), machine.next_killed());
                if !killed_as(&killed, &engine, &now, &request(&id(3), &BACK), n, moment).await {
                    continue;
                }
                any = true;
                let resumed = resume(&engine, &killed.next(), &now, forward).await;
                match resumed.unwrap_or_else(|failure| panic!("{n} {moment:?} {forward}: {failure}")) {
                    Resumed::Undone(_) | Resumed::Untouched(_) | Resumed::Nothing(_) => {
                        ways[0] += 1;
                        assert!(!engine.dump().contains(".new."), "{n} {moment:?}: {}", engine.dump());
                    }
                    Resumed::Completed(_) | Resumed::Finished(_) => {
                        ways[1] += 1;
                        let dump = engine.dump();
                        for name in ["tars-slave", "tars-framework"] {
                            let line =
                                format!("container {name} running restart=always image=tars/framework:1");
                            assert!(dump.contains(&line), "{n} {moment:?}: {dump}");
                        }
                        let node = engine.inspect_container("tars-node2").await.unwrap().unwrap();
                        assert!(node.labels.contains_key(LABEL_TWIN), "{n} {moment:?}");
                    }
                }
            }
        }
        if !any {
            break;
        }
    }
    assert!(ways.iter().all(|&way| way > 3), "{ways:?}");
}

/// The names of ours on images, without deploys and ids.
async fn held(engine: &FakeEngine) -> BTreeMap<String, Vec<String>> {
    let mut held: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for image in engine.list_images().await.unwrap() {
        let own: Vec<String> =
            image.tags.iter().filter(|tag| !tag.starts_with("tarsup-kept/")).cloned().collect();
        let of_ours = image.tags.iter().filter(|tag| tag.starts_with("tarsup-kept/"));
        held.entry(own.join(" ")).or_default().extend(of_ours.map(|tag| tag[..tag.len() - 9].to_owned()));
    }
    held.retain(|_, names| !names.is_empty());
    held
}

#[tokio::test(start_paused = true)]
async fn as_many_versions_are_held_as_the_policy_says_and_what_is_needed_always() {
    let mut desired = large();
    desired.policy.keep_images = 2;
    desired.policy.keep_parked = 1;
    let engine = running(&desired).await;
    let machine = Machine::new();
    for version in 2..=6 {
        for image in ["framework", "node"] {
            engine.add_image(
                &format!("tars/{image}:{version}"),
                &format!("{image} {version}"),
                &["PATH=/bin"],
            );
        }
        let now = at(&desired, &(version - 1).to_string());
        let intent = Intent::upgrade(&now, Some(&version.to_string()));
        roll(&engine, &machine, &now, &id(version), &intent).await.unwrap();
    }
    let name = |image: &str, deploy: u8| format!("tarsup-kept/tars/tars/{image}:{}", id(deploy));
    let expected = ["framework", "node"].map(|image| {
        [5, 4].map(|version| (format!("tars/{image}:{version}"), vec![name(image, version + 1)]))
    });
    assert_eq!(held(&engine).await, expected.into_iter().flatten().collect());
    // Nobody's own name was taken.
    assert!(engine.inspect_image("tars/framework:1").await.unwrap().is_some());
    // And no more is kept of what containers were.
    let kept: Vec<String> = machine.twins.lock().unwrap().keys().cloned().collect();
    assert_eq!(kept.len(), 4 * 2, "{kept:?}");

    // What runs is never let go of, however old.
    let all = engine.calls().len();
    let now = at(&desired, "6");
    let intent = Intent::Upgrade { images: [("node2".to_owned(), "tars/node:1".parse().unwrap())].into() };
    roll(&engine, &machine, &now, &id(7), &intent).await.unwrap();
    assert!(!engine.calls()[all..].iter().any(|call| call == "remove image tars/node:6"));
}
