//! Containers that somebody made by hand, adopted by the file: nothing to do at first, and from there to images of ours and back.

use super::crash::{killed_on, points};
use super::deploys::{rollback, without_failed};
use super::plans::golden;
use super::*;
use crate::fake::{Behaviour, Moment};
use tarsup::diagnose::{Diagnose as _, Exit};
use tarsup::engine::{CreateBody, Engine as _, Status};
use tarsup::upgrade::render;

/// Everything of [`desired`] made by `docker run`, master and slave from an image of upstream's; the node's is ours.
async fn by_hand(change: impl Fn(&str, &mut CreateBody)) -> (FakeEngine, Desired) {
    let engine = engine();
    engine.add_image("tarscloud/framework:v2.4", "upstream", &["PATH=/bin"]);
    engine.edit_image("tarscloud/framework:v2.4", |image| {
        image.labels.clear();
        image.raw["Config"]["Entrypoint"] = json!(["/usr/local/tars/cpp/deploy/docker-init.sh"]);
    });
    engine.behave("tarscloud/framework:v2.4", Behaviour { has_init: false, ..Behaviour::default() });
    let mut desired = desired();
    for resource in &desired.networks {
        engine.create_network(&resource.body).await.unwrap();
    }
    for resource in &desired.volumes {
        engine.create_volume(&resource.body).await.unwrap();
    }
    for service in &mut desired.services {
        if matches!(service.role, Some(Role::Master | Role::Slave)) {
            service.image = "tarscloud/framework:v2.4".parse().unwrap();
        }
        let node = json!({"test.node": service.name});
        edit_body(service, |body| drop(body.insert("Labels".to_owned(), node)));
        let mut body = service.declaration.render();
        body.0.insert("Image".to_owned(), json!(service.image.to_string()));
        change(&service.name, &mut body);
        let made = engine.create_container(&service.container, &body).await.unwrap();
        engine.start_container(&made).await.unwrap();
        tokio::time::sleep(Duration::from_secs(30)).await;
        service.written.adopted = Some(made);
    }
    (engine, desired)
}

/// `upgrade --image slave=... --image framework=...`
fn to_ours() -> Intent {
    let image: Reference = "tars/framework:2".parse().unwrap();
    let images = ["framework", "slave"].map(|service| (service.to_owned(), image.clone()));
    Intent::Upgrade { images: images.into() }
}

#[tokio::test(start_paused = true)]
async fn plan_of_adopted_containers_is_empty_and_touches_nothing() {
    let (engine, desired) = by_hand(|_, _| {}).await;
    let before = engine.dump();
    let plan = roll(&engine, &Machine::new(), &desired, &id(1), &Intent::Up).await.unwrap();
    assert!(plan.steps.is_empty() && plan.questions.is_empty(), "{}", render::plan(&plan));
    golden("adopted", &render::plan(&plan));
    assert_eq!(engine.dump(), before);
}

#[tokio::test(start_paused = true)]
async fn what_was_published_over_an_image_of_upstreams_is_a_question_before_its_start_or_ours_takes_it_away()
{
    let (engine, desired) = by_hand(|_, _| {}).await;
    let published = vec![("tarsstat".to_owned(), String::new())];
    engine.behave_named("tars-framework", Behaviour { has_init: false, published, ..Behaviour::default() });
    let machine = Machine::new();
    let command = deploy(&engine, &machine, &desired);
    let upgrade = command.offer(&request(&id(2), &to_ours())).await.unwrap().plan;
    let says = |plan: &Plan, begins: &str| plan.questions.iter().any(|it| it.starts_with(begins));
    let ours = "`framework` runs tarsstat, published over its image's own: those of tars/framework:2 take";
    assert!(says(&upgrade, ours), "{:?}", upgrade.questions);
    let ask_with = Some("tars/framework:2".parse().unwrap());
    let restart = Intent::Restart { services: vec!["framework".to_owned()], ask_with };
    let restart = command.offer(&request(&id(2), &restart)).await.unwrap().plan;
    let own = "`framework` runs tarsstat, published over its image's own: those of the image, which its start installs";
    assert!(says(&restart, own), "{:?}", restart.questions);
}

#[tokio::test(start_paused = true)]
async fn adopted_containers_move_to_our_image_and_back() {
    let (engine, desired) = by_hand(|_, _| {}).await;
    let machine = Machine::new();
    let plan = planned(&engine, &desired, 2, &to_ours()).await.unwrap();
    golden("adopted_upgrade", &render::plan(&plan));

    roll(&engine, &machine, &desired, &id(2), &to_ours()).await.unwrap();

    let moved = to_ours().apply(&desired);
    let plan = planned(&engine, &moved, 3, &Intent::Up).await.unwrap();
    assert!(plan.steps.is_empty(), "{}", render::plan(&plan));
    for service in ["framework", "slave"] {
        let old = desired.service(service).unwrap().written.adopted.clone().unwrap();
        let parked = engine.inspect_container(&old).await.unwrap().unwrap();
        assert_eq!(parked.name, format!("tars-{service}.old.{}", id(2)));
        assert_eq!((parked.status, parked.restart.name.as_str()), (Status::Exited, "no"));
        assert!(!parked.labels.contains_key("io.tarsup.deployment"), "it is as it was made");
        let serving = engine.inspect_container(&format!("tars-{service}")).await.unwrap().unwrap();
        assert_eq!((serving.image.as_str(), serving.restart.name.as_str()), ("tars/framework:2", "always"));
    }

    let back = rollback(&engine, &moved, None).await;
    roll(&engine, &machine, &moved, &id(4), &back).await.unwrap();

    for service in ["framework", "slave"] {
        let old = desired.service(service).unwrap().written.adopted.clone().unwrap();
        let serving = engine.inspect_container(&format!("tars-{service}")).await.unwrap().unwrap();
        assert_eq!((serving.id, serving.status), (old, Status::Running));
        assert_eq!(serving.restart.name, "always", "the policy that it had");
    }
    let plan = planned(&engine, &desired, 5, &Intent::Up).await.unwrap();
    assert!(plan.steps.is_empty(), "{}", render::plan(&plan));
}

#[tokio::test(start_paused = true)]
async fn adopted_container_is_kept_however_many_are_parked_after_it() {
    let (engine, mut desired) = by_hand(|_, _| {}).await;
    desired.policy.keep_parked = 1;
    let machine = Machine::new();
    roll(&engine, &machine, &desired, &id(2), &to_ours()).await.unwrap();
    let mut desired = to_ours().apply(&desired);
    for n in 3..6 {
        edit(&mut desired, "framework", |service| {
            edit_body(service, |body| drop(body.insert("Hostname".to_owned(), json!(format!("h{n}")))));
        });
        roll(&engine, &machine, &desired, &id(n), &Intent::Up).await.unwrap();
    }
    let dump = engine.dump();
    assert!(dump.contains(&format!("container tars-framework.old.{}", id(2))), "{dump}");
    assert_eq!(dump.matches("container tars-framework.old.").count(), 2, "{dump}");
    // Nor does a prune take it, or its image: it is the only way back to upstream.
    roll(&engine, &machine, &desired, &id(6), &Intent::Prune { keep: Some(0), foreign: false })
        .await
        .unwrap();
    let dump = engine.dump();
    assert_eq!(dump.matches("container tars-framework.old.").count(), 1, "{dump}");
    let parked = engine.inspect_container(&format!("tars-framework.old.{}", id(2))).await.unwrap().unwrap();
    assert!(engine.inspect_image(&parked.image_id).await.unwrap().is_some(), "{dump}");
    let (told, kept) = (engine.fork(), machine.twins.lock().unwrap().clone());
    let back = rollback(&engine, &desired, Some("20000101T000000Z-0000".parse().unwrap())).await;
    roll(&engine, &machine, &desired, &id(7), &back).await.unwrap();
    let serving = engine.inspect_container("tars-framework").await.unwrap().unwrap();
    assert_eq!((&serving.id, serving.status), (&parked.id, Status::Running));

    // Where it serves, it is no longer parked, and stays.
    let all = Intent::Prune { keep: Some(9), foreign: true };
    roll(&engine, &machine, &desired, &id(8), &all).await.unwrap();
    assert!(engine.inspect_container(&parked.id).await.unwrap().is_some(), "{}", engine.dump());
    assert!(engine.inspect_image(&parked.image_id).await.unwrap().is_some());

    // It goes, with its image's name of ours, once somebody says so.
    assert!(kept.values().any(|twin| twin.made_by().is_none()));
    let (engine, machine) = (told, Machine { twins: Arc::new(Mutex::new(kept)), ..machine.next() });
    let holds = async || {
        let images = engine.list_images().await.unwrap();
        let held = images.into_iter().filter(|image| image.id == parked.image_id);
        held.flat_map(|image| image.tags).filter(|tag| tag.starts_with("tarsup-kept/")).count()
    };
    assert_eq!(holds().await, 1);
    let plan = roll(&engine, &machine, &desired, &id(7), &all).await.unwrap();
    let says =
        "`framework`, `slave`: the last container of upstream's goes; nothing leads back to it afterwards";
    assert!(plan.notes.iter().any(|note| note == says), "{:?}", plan.notes);
    assert!(engine.inspect_container(&parked.id).await.unwrap().is_none(), "{}", engine.dump());
    assert_eq!(holds().await, 0);
    let twins = machine.twins.lock().unwrap().clone();
    assert!(twins.values().all(|twin| twin.made_by().is_some()), "nothing is kept of it, nor its secrets");
    let plan = roll(&engine, &machine, &desired, &id(8), &all).await.unwrap();
    assert!(plan.steps.is_empty(), "{}", render::plan(&plan));
}

#[tokio::test(start_paused = true)]
async fn first_roll_killed_at_any_call_is_undone_or_finished_by_resume() {
    let (running, desired) = by_hand(|_, _| {}).await;
    let before = running.dump();
    let (mut undone, mut finished) = (0, 0);
    for moment in [Moment::Before, Moment::After] {
        for n in points() {
            let engine = running.fork();
            if !killed_on(&Machine::killed(), &engine, &desired, &to_ours(), n, moment).await {
                break;
            }
            while !matches!(
                resume(&engine, &Machine::new(), &desired, false).await.unwrap(),
                Resumed::Nothing(_)
            ) {}
            let context = format!("killed {moment:?} call {n}, {}", engine.calls().last().unwrap());
            if without_failed(&engine.dump()) == before {
                undone += 1;
                continue;
            }
            finished += 1;
            let serving = engine.inspect_container("tars-framework").await.unwrap().unwrap();
            assert_eq!(
                (serving.image.as_str(), serving.status),
                ("tars/framework:2", Status::Running),
                "{context}"
            );
        }
    }
    assert!(undone > 5 && finished > 0, "{undone} undone, {finished} finished");
}

#[tokio::test(start_paused = true)]
async fn restart_of_what_nobody_answers_for_is_refused() {
    let (engine, desired) = by_hand(|_, _| {}).await;
    let restart = |service: &str| restart(service, None);
    let refusal = planned(&engine, &desired, 2, &restart("framework")).await.unwrap_err();
    assert!(matches!(refusal, Refusal::AdoptedRestart { .. }), "{refusal}");
    assert_eq!(refusal.exit(), Exit::Refused);
    assert!(refusal.hint().unwrap().contains("restart framework --image REF"));
    assert!(refusal.hint().unwrap().contains("upgrade --image framework=REF"));
    // This one has a tars-init, whoever made it.
    planned(&engine, &desired, 2, &restart("node")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn stopped_container_with_upstreams_start_is_started_by_up_once_the_database_answers() {
    let stopped = async |change: &str| {
        let rebuild = change == "rebuild";
        let made = by_hand(|service, body| {
            if rebuild && service == "framework" {
                body.0["Env"].as_array_mut().unwrap().push(json!("REBUILD=true"));
            }
        });
        let (engine, desired) = made.await;
        engine.stop_container("tars-framework", Duration::from_secs(10)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(30)).await;
        (engine, desired)
    };
    let (engine, desired) = stopped("").await;
    let before = engine.inspect_container("tars-framework").await.unwrap().unwrap();
    let plan = roll(&engine, &Machine::new(), &desired, &id(2), &Intent::Up).await.unwrap();
    let told = "installs anew where it gets no answer from the database: that is asked right before";
    assert!(plan.notes.iter().any(|note| note.contains(told)), "{:?}", plan.notes);
    let after = engine.inspect_container("tars-framework").await.unwrap().unwrap();
    assert_eq!((&after.id, after.status), (&before.id, Status::Running));
    let calls = engine.calls();
    let at = |words: &str| {
        calls.iter().rposition(|call| call.contains(words)).unwrap_or_else(|| panic!("{words}"))
    };
    assert!(at("create tars.cluster") > 0);
    assert!(at("cluster --json --ask 172.25.0.3 --role master") > at("start tars-framework"), "{calls:#?}");

    let (engine, desired) = stopped("").await;
    engine.database(false);
    let failure = roll(&engine, &Machine::new(), &desired, &id(2), &Intent::Up).await.unwrap_err();
    assert!(failure.to_string().contains("it cannot be asked"), "{failure}");
    let after = engine.inspect_container("tars-framework").await.unwrap().unwrap();
    assert_eq!(after.status, Status::Exited);

    // Nobody could say whether it came up well.
    let (engine, desired) = stopped("").await;
    for version in ["1", "2"] {
        engine.edit_image(&format!("tars/framework:{version}"), |image| image.labels.clear());
    }
    engine.edit_image("tars/node:1", |image| image.raw["Config"]["Entrypoint"] = json!(["/root/entry.sh"]));
    let refusal = planned(&engine, &desired, 2, &Intent::Up).await.unwrap_err();
    assert!(matches!(refusal, Refusal::NoAsker { .. }), "{refusal}");
    assert_eq!(refusal.exit(), Exit::Refused, "{refusal}");

    let (engine, desired) = stopped("rebuild").await;
    let refusal = planned(&engine, &desired, 2, &Intent::Up).await.unwrap_err();
    assert!(matches!(refusal, Refusal::Guard(_)), "{refusal}");
}

fn restart(service: &str, ask_with: Option<&str>) -> Intent {
    let ask_with = ask_with.map(|image| image.parse().unwrap());
    Intent::Restart { services: vec![service.to_owned()], ask_with }
}

#[tokio::test(start_paused = true)]
async fn restart_with_an_image_of_ours_is_proven_from_outside_by_that_image() {
    let (engine, desired) = by_hand(|_, _| {}).await;
    let before = engine.inspect_container("tars-framework").await.unwrap().unwrap();
    let machine = Machine::new();

    let intent = restart("framework", Some("tars/framework:2"));
    roll(&engine, &machine, &desired, &id(2), &intent).await.unwrap();

    let after = engine.inspect_container("tars-framework").await.unwrap().unwrap();
    assert_eq!((&after.id, after.status), (&before.id, Status::Running));
    assert!(after.started_at > before.started_at);
    let calls = engine.calls();
    let asks = |call: &&String| call.contains("cluster --json --ask 172.25.0.3 --role master");
    assert!(calls.iter().any(|call| asks(&call)), "{calls:#?}");
    assert!(!engine.dump().contains(".cluster"), "{}", engine.dump());
    for (image, why) in
        [("tars/framework:9", "is not in the engine"), ("tarscloud/framework:v2.4", "tars-init")]
    {
        let refused = roll(&engine, &machine, &desired, &id(3), &restart("framework", Some(image))).await;
        let failure = refused.unwrap_err();
        assert!(failure.to_string().contains(why), "{failure}");
        assert_eq!(failure.exit(), Exit::Refused);
    }
}

#[tokio::test(start_paused = true)]
async fn slave_moves_alone_though_nothing_else_has_a_tars_init() {
    let (engine, desired) = by_hand(|_, _| {}).await;
    engine.edit_image("tars/node:1", |image| {
        image.labels.clear();
        image.raw["Config"]["Entrypoint"] = json!(["/root/entry.sh"]);
    });
    engine.behave("tars/node:1", Behaviour { has_init: false, ..Behaviour::default() });
    let image = "tars/framework:2".parse().unwrap();
    let intent = Intent::Upgrade { images: [("slave".to_owned(), image)].into() };
    roll(&engine, &Machine::new(), &desired, &id(2), &intent).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn container_with_upstreams_start_is_not_started_unless_the_database_answers_and_holds_tars() {
    for (absent, why) in [(false, "it cannot be asked"), (true, "it holds no TARS")] {
        let (engine, desired) = by_hand(|_, _| {}).await;
        let machine = Machine::killed();
        roll(&engine, &machine, &desired, &id(2), &to_ours()).await.unwrap();
        let moved = to_ours().apply(&desired);
        let back = rollback(&engine, &moved, None).await;
        let started = || async {
            let mut all = Vec::new();
            for service in ["framework", "slave"] {
                let old = desired.service(service).unwrap().written.adopted.clone().unwrap();
                all.push(engine.inspect_container(&old).await.unwrap().unwrap().started_at);
            }
            all
        };
        let before = started().await;
        if absent {
            engine.empty_database();
        } else {
            engine.database(false);
        }

        let failure = roll(&engine, &machine, &moved, &id(3), &back).await.unwrap_err();

        assert!(failure.to_string().contains(why), "{failure}");
        assert_eq!(started().await, before, "neither was started");
        if !absent {
            engine.database(true);
            resume(&engine, &machine.next_killed(), &moved, false).await.unwrap();
            let serving = engine.inspect_container("tars-framework").await.unwrap().unwrap();
            assert_eq!((serving.image.as_str(), serving.status), ("tars/framework:2", Status::Running));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_upstreams_start_sets_anew_is_named_in_both_directions() {
    let (engine, desired) = by_hand(|_, _| {}).await;
    engine.stop_service("tarsstat", "172.25.0.3", true);
    engine.stop_service("tarsconfig", "172.25.0.4", false);
    engine.stop_service("tarslog", "172.25.0.3", true);
    let machine = Machine::new();
    let there = roll(&engine, &machine, &desired, &id(2), &to_ours()).await.unwrap();
    let says = |plan: &Plan, words: &str| {
        assert!(plan.notes.iter().any(|note| note == words), "{words}\n{:#?}", plan.notes);
    };
    says(&there, "`framework`: tars.tarsstat (stopped) stays so");
    says(&there, "`slave`: tars.tarsconfig (drained) stays so");

    let moved = to_ours().apply(&desired);
    let back = rollback(&engine, &moved, None).await;
    let back = roll(&engine, &machine, &moved, &id(3), &back).await.unwrap();
    let again = "is started and gets traffic again, whoever stopped or drained it";
    says(&back, &format!("`framework`: tars.tarsstat (stopped) {again}"));
    says(&back, &format!("`slave`: tars.tarsconfig (drained) {again}"));
}

/// The master was made with a forbidden `REBUILD`, the slave by compose.
async fn by_hand_and_by_compose() -> (FakeEngine, Desired) {
    by_hand(|service, body| match service {
        "framework" => body.0["Env"].as_array_mut().unwrap().push(json!("REBUILD=true")),
        "slave" => {
            body.0["Labels"]["com.docker.compose.project"] = json!("shop");
            body.0["Labels"]["com.docker.compose.service"] = json!("slave");
        }
        _ => {}
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn predecessor_that_must_not_come_back_has_a_twin_that_may() {
    let (engine, desired) = by_hand_and_by_compose().await;
    let plan = planned(&engine, &desired, 2, &Intent::Up).await.unwrap();
    assert!(plan.steps.is_empty(), "it runs, and is left alone: {}", render::plan(&plan));
    assert!(plan.notes.iter().any(|note| note.contains("runs with `REBUILD` \"true\"")), "{:?}", plan.notes);
    let original = |service: &str| desired.service(service).unwrap().written.adopted.clone().unwrap();
    let before = engine.inspect_container("tars-framework").await.unwrap().unwrap();
    let plan = planned(&engine, &desired, 2, &to_ours()).await.unwrap();
    golden("adopted_twins", &render::plan(&plan));
    let machine = Machine::new();

    roll(&engine, &machine, &desired, &id(2), &to_ours()).await.unwrap();

    for service in ["framework", "slave"] {
        assert!(engine.inspect_container(&original(service)).await.unwrap().is_none(), "{service}");
        let twin = engine.inspect_container(&format!("tars-{service}.old.{}", id(2))).await.unwrap().unwrap();
        assert_eq!((twin.status, twin.restart.name.as_str()), (Status::Created, "no"));
        assert!(
            !twin.labels.keys().any(|label| label.starts_with("com.docker.compose.")),
            "{:?}",
            twin.labels
        );
        assert_eq!(twin.image_id, before.image_id);
    }
    let moved = to_ours().apply(&desired);
    let plan = planned(&engine, &moved, 3, &Intent::Up).await.unwrap();
    assert!(plan.steps.is_empty(), "{}", render::plan(&plan));

    let back = Intent::Rollback { to: None, targets: BTreeMap::new() };
    roll(&engine, &machine, &moved, &id(3), &back).await.unwrap();

    let twin = engine.inspect_container("tars-framework").await.unwrap().unwrap();
    assert_eq!((twin.status, twin.restart.name.as_str()), (Status::Running, "always"));
    let environment = twin.env.expose();
    let environment: Vec<&String> = environment.iter().filter(|entry| entry.starts_with("REBUILD")).collect();
    assert_eq!(environment, ["REBUILD=false"]);
    assert_eq!(
        (twin.raw["HostConfig"]["Binds"].clone(), twin.raw["NetworkSettings"]["Networks"].clone()),
        (before.raw["HostConfig"]["Binds"].clone(), before.raw["NetworkSettings"]["Networks"].clone())
    );
    // The file adopts it still.
    let plan = planned(&engine, &desired, 4, &Intent::Up).await.unwrap();
    assert!(plan.steps.is_empty(), "{}", render::plan(&plan));
}

#[tokio::test(start_paused = true)]
async fn predecessor_with_a_forbidden_rebuild_is_never_started_again_wherever_it_fails() {
    let (running, desired) = by_hand_and_by_compose().await;
    let master = desired.service("framework").unwrap().written.adopted.clone().unwrap();
    let slave = desired.service("slave").unwrap().written.adopted.clone().unwrap();
    // The new master fails: the slave is itself again, the master is its twin.
    let engine = running.fork();
    engine.behave_named("tars-framework", Behaviour { healthy_after: None, ..Behaviour::default() });
    engine.behave("tarscloud/framework:v2.4", Behaviour { has_init: false, ..Behaviour::default() });
    let failure = roll(&engine, &Machine::new(), &desired, &id(2), &to_ours()).await.unwrap_err();
    // Whatever has the name is not healthy here, the twin with it.
    assert!(matches!(failure.exit(), Exit::RolledBack | Exit::Interrupted), "{failure}");
    assert_eq!(engine.starts(&master), 1);
    let serving = engine.inspect_container("tars-framework").await.unwrap().unwrap();
    assert_eq!(serving.labels.get("io.tarsup.twin"), Some(&master));

    let (mut itself, mut twin, mut ours) = (0, 0, 0);
    for moment in [Moment::Before, Moment::After] {
        for n in points() {
            let engine = running.fork();
            if !killed_on(&Machine::killed(), &engine, &desired, &to_ours(), n, moment).await {
                break;
            }
            let context = format!("killed {moment:?} call {n}, {}", engine.calls().last().unwrap());
            while !matches!(
                resume(&engine, &Machine::new(), &desired, false)
                    .await
                    .unwrap_or_else(|error| panic!("{context}: {error}")),
                Resumed::Nothing(_)
            ) {}
            assert!(engine.starts(&master) < 2, "{context}: it was started again");
            let serving = engine.inspect_container("tars-framework").await.unwrap().unwrap();
            assert_eq!(serving.status, Status::Running, "{context}");
            assert_eq!(serving.restart.name, "always", "{context}");
            if serving.id == master {
                itself += 1;
                let found = engine.inspect_container("tars-slave").await.unwrap().unwrap();
                assert_eq!(found.id, slave, "{context}");
                assert!(!engine.dump().contains(".twin."), "{context}: {}", engine.dump());
            } else if serving.labels.contains_key("io.tarsup.twin") {
                twin += 1;
                assert!(serving.env.value("REBUILD").is_some_and(|value| *value == "false"), "{context}");
            } else {
                ours += 1;
                assert!(!engine.dump().contains(".twin."), "{context}: {}", engine.dump());
            }
        }
    }
    assert!(itself > 3 && twin > 0 && ours > 0, "{itself} {twin} {ours}");
}

#[tokio::test(start_paused = true)]
async fn adopted_container_that_was_made_anew_is_foreign_again() {
    let (engine, desired) = by_hand(|_, _| {}).await;
    let node = desired.service("node").unwrap();
    engine.stop_container("tars-node", Duration::from_secs(10)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(30)).await;
    engine.remove_container("tars-node").await.unwrap();
    let mut body = node.declaration.render();
    body.0.insert("Image".to_owned(), json!(node.image.to_string()));
    engine.create_container("tars-node", &body).await.unwrap();
    let refusal = planned(&engine, &desired, 2, &Intent::Up).await.unwrap_err();
    assert!(matches!(refusal, Refusal::Foreign { .. }), "{refusal}");
}
