//! What is found before the first step: all of it at once, whatever refuses, asks or only tells.

use super::*;
use crate::fake::Behaviour;
use tarsup::deploy::desired::Setting;
use tarsup::diagnose::{Diagnose as _, Exit};
use tarsup::engine::{Engine as _, LayerSize};
use tarsup::upgrade::Offer;

/// The offer of an upgrade to 2.
async fn offered(engine: &FakeEngine, desired: &Desired) -> Result<Offer, DeployFailure> {
    deploy(engine, &Machine::new(), desired).offer(&request(&id(9), &to_2(desired))).await
}

fn texts(offer: &Offer, kind: &str) -> Vec<String> {
    let document = offer.document();
    let findings = document["findings"].as_array().unwrap().iter();
    findings.filter(|one| one["kind"] == kind).map(|one| one["text"].as_str().unwrap().to_owned()).collect()
}

fn at(service: &mut Service, address: &str) {
    edit_body(service, |body| {
        body["NetworkingConfig"]["EndpointsConfig"]["tars_default"] =
            json!({"IPAMConfig": {"IPv4Address": address}});
    });
}

/// The network as the documents of TARS have it: it hands out all of its addresses.
fn without_range(desired: &mut Desired) {
    let config = json!([{"Subnet": "172.25.0.0/16", "Gateway": "172.25.0.1"}]);
    desired.networks[0].body["IPAM"]["Config"] = config;
}

#[tokio::test(start_paused = true)]
async fn all_that_stands_in_the_way_is_said_at_once_with_places_and_hints() {
    let mut desired = desired();
    let engine = running(&desired).await;
    desired.services[1].image = desired.services[1].image.with_tag("9");
    desired.services[3].image = desired.services[3].image.with_tag("8");
    edit(&mut desired, "slave", |slave| at(slave, "172.26.0.4"));
    edit(&mut desired, "node", |node| {
        let place = Place::line("compose.yaml", 40);
        node.rebuild = Some(Setting { value: "true".into(), place, through: None });
    });
    let calls = engine.calls().len();
    let machine = Machine::new();
    let command = deploy(&engine, &machine, &desired);
    let failure = command.offer(&request(&id(9), &Intent::Up)).await.unwrap_err();
    let parts = failure.parts();
    let texts: Vec<String> = parts.iter().map(ToString::to_string).collect();
    assert_eq!(parts.len(), 3, "{texts:#?}");
    assert!(texts[0].contains("`REBUILD` is \"true\" for the service `node`"), "{texts:#?}");
    assert!(
        texts[1].contains("`tars/framework:9` (of `framework`), `tars/node:8` (of `node`)"),
        "{texts:#?}"
    );
    assert!(texts[2].contains("172.26.0.4 is not in the network"), "{texts:#?}");
    assert!(parts.iter().all(|part| part.place().is_some() && part.hint().is_some()), "{texts:#?}");
    assert_eq!(failure.exit(), Exit::Refused, "one of them is");
    let made: Vec<String> =
        engine.calls()[calls..].iter().filter(|call| call.starts_with("create")).cloned().collect();
    assert!(made.is_empty(), "nothing is made of what the guard refuses: {made:?}");
}

#[tokio::test(start_paused = true)]
async fn rollback_names_every_service_whose_way_back_is_gone() {
    let desired = desired();
    let engine = running(&desired).await;
    roll(&engine, &Machine::new(), &desired, &id(2), &to_2(&desired)).await.unwrap();
    for service in ["slave", "node"] {
        engine.remove_container(&format!("tars-{service}.old.{}", id(2))).await.unwrap();
    }
    let back = Intent::Rollback { to: Some(id(1)), targets: BTreeMap::new() };
    let machine = Machine::new();
    let failure = deploy(&engine, &machine, &desired).offer(&request(&id(3), &back)).await.unwrap_err();
    let texts: Vec<String> = failure.parts().iter().map(ToString::to_string).collect();
    assert_eq!(texts.len(), 2, "{failure}");
    assert!(texts[0].contains("`slave`") && texts[1].contains("`node`"), "{texts:#?}");
}

#[tokio::test(start_paused = true)]
async fn address_that_the_engine_hands_out_is_a_line_and_one_that_somebody_has_is_refused() {
    let mut desired = desired();
    without_range(&mut desired);
    let engine = running(&desired).await;
    let notes = texts(&offered(&engine, &desired).await.unwrap(), "note");
    let line = notes.iter().find(|note| note.contains("hands out addresses of 172.25.0.0/16"));
    assert!(line.is_some_and(|line| line.contains("`framework`, `slave`, `node`")), "{notes:#?}");
    assert!(!line.unwrap().contains("mysql"), "the database goes on running");

    // Nothing of it where the plan touches nobody.
    let plan = planned(&engine, &desired, 9, &Intent::Up).await.unwrap();
    assert!(plan.notes.is_empty(), "{:?}", plan.notes);

    let mut within = super::desired();
    edit(&mut within, "slave", |slave| at(slave, "172.25.200.4"));
    let engine = running(&within).await;
    let notes = texts(&offered(&engine, &within).await.unwrap(), "note");
    assert!(notes.iter().any(|note| note.contains("172.25.128.0/17, that of `slave`")), "{notes:#?}");

    for (address, by) in [("172.25.0.1", "the network's gateway"), ("172.25.0.5", "the container tars-node")]
    {
        edit(&mut desired, "slave", |slave| at(slave, address));
        let engine = running(&{
            let mut before = super::desired();
            without_range(&mut before);
            before
        })
        .await;
        let refusal = planned(&engine, &desired, 9, &Intent::Up).await.unwrap_err();
        assert!(refusal.to_string().contains(&format!("is in use by {by}")), "{refusal}");
    }
    let refusal = planned(&super::engine(), &desired, 9, &Intent::Up).await;
    assert!(refusal.is_ok(), "before its network is there, nobody knows");
}

#[tokio::test(start_paused = true)]
async fn everything_is_asked_in_one_container_which_is_gone_afterwards() {
    let desired = desired();
    let engine = running(&desired).await;
    let (before, calls) = (engine.dump(), engine.calls().len());
    offered(&engine, &desired).await.unwrap();
    let made: Vec<String> =
        engine.calls()[calls..].iter().filter(|call| call.starts_with("create ")).cloned().collect();
    assert_eq!(
        made,
        [format!("create tars.preview.{}", id(9))],
        "the new image answers for the migration, too"
    );
    assert_eq!(engine.dump(), before);
}

#[tokio::test(start_paused = true)]
async fn clocks_that_are_apart_and_other_zones_are_asked_about() {
    let desired = desired();
    let engine = running(&desired).await;
    let offer = offered(&engine, &desired).await.unwrap();
    assert!(offer.findings.is_empty(), "{:?}", offer.findings);

    engine.set_clock("database", 5, "+0000");
    assert!(offered(&engine, &desired).await.unwrap().findings.is_empty(), "5 s are as much as may be");
    engine.set_clock("database", -6, "+0000");
    let offer = offered(&engine, &desired).await.unwrap();
    let asked = texts(&offer, "question");
    assert!(
        asked[0].starts_with("the clock of the database is 6 s behind that of the containers"),
        "{asked:?}"
    );
    assert!(offer.plan.questions.contains(&asked[0]), "it is asked once: {:?}", offer.plan.questions);
    assert_eq!(offer.plan.questions.iter().filter(|one| **one == asked[0]).count(), 1);

    engine.set_clock("database", 0, "+0800");
    engine.set_clock("tars-node", 0, "+0800");
    engine.set_clock("tars-slave", 0, "-0330");
    let asked = texts(&offered(&engine, &desired).await.unwrap(), "question");
    assert!(
        asked[0]
            .contains("the time zone of `framework` (+0000), `slave` (-0330) is not the database's (+0800)"),
        "{asked:?}"
    );

    engine.set_clock("database", 0, "+0000");
    for part in ["tars-framework", "tars-slave", "tars-node"] {
        engine.set_clock(part, 90, "+0000");
    }
    let notes = texts(&offered(&engine, &desired).await.unwrap(), "note");
    assert!(notes[0].starts_with("the clock of the containers is 90 s ahead of this machine's"), "{notes:?}");
}

/// Versions as `tarsup build` labels them.
fn label(engine: &FakeEngine, image: &str, version: &str) {
    engine.edit_image(image, |image| {
        image.labels.insert("org.opencontainers.image.version".to_owned(), version.to_owned());
    });
}

/// A deployment that runs 3.0.16, with 3.0.17 at hand.
async fn running_versions(desired: &Desired) -> FakeEngine {
    let engine = engine();
    for part in ["framework", "node"] {
        label(&engine, &format!("tars/{part}:1"), "3.0.16");
        label(&engine, &format!("tars/{part}:2"), "3.0.17");
    }
    roll(&engine, &Machine::new(), desired, &id(1), &Intent::Up).await.unwrap();
    engine
}

#[tokio::test(start_paused = true)]
async fn who_is_down_silent_or_behind_is_named() {
    let desired = desired();
    let engine = running_versions(&desired).await;
    assert!(offered(&engine, &desired).await.unwrap().findings.is_empty());
    engine.tell(
        "nodes",
        json!([
            {"node": "172.25.0.5", "silent": 3, "version": "3.0.15"}, {"node": "10.1.0.7", "silent": 250, "version": "3.0.15"},
            {"node": "10.1.0.8", "silent": 251, "version": ""}, {"node": "10.1.0.9", "silent": null, "version": "3.0.16"},
        ]),
    );
    engine.tell(
        "down",
        json!([{"server": "Shop.Cart", "node": "10.1.0.7"}, {"server": "Shop.Till", "node": "10.1.0.8"}]),
    );
    let notes = texts(&offered(&engine, &desired).await.unwrap(), "note");
    assert_eq!(
        notes,
        [
            "nodes that were not heard of for 250 s, or never: 10.1.0.8, 10.1.0.9",
            "services that are to run and do not: Shop.Cart at 10.1.0.7",
            "two versions behind after this, as they run an older one than 3.0.16 already: 10.1.0.7 (3.0.15); new registries \
             serve nodes of the version before",
        ]
    );
    // A node of the deployment that is held back, and one whose health check fails.
    let only_framework = Intent::upgrade_image(&desired, &"tars/framework:2".parse().unwrap());
    let mut old = desired.clone();
    edit(&mut old, "node", |node| node.image = "tars/node:0".parse().unwrap());
    engine.add_image("tars/node:0", "node 0", &[]);
    label(&engine, "tars/node:0", "3.0.15");
    roll(&engine, &Machine::new(), &old, &id(2), &Intent::Up).await.unwrap();
    engine
        .behave("tars/node:0", Behaviour { health_check: true, healthy_after: None, ..Behaviour::default() });
    let machine = Machine::new();
    let offer = deploy(&engine, &machine, &old).offer(&request(&id(9), &only_framework)).await.unwrap();
    let notes = texts(&offer, "note");
    assert!(
        notes.iter().any(|note| note.contains("already: `node` (3.0.15), 10.1.0.7 (3.0.15);")),
        "{notes:#?}"
    );

    engine.database(false);
    let notes = texts(&offered(&engine, &desired).await.unwrap(), "note");
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].contains("clock, are not known: 172.25.0.2:3306: Connection refused"), "{notes:?}");
}

#[tokio::test(start_paused = true)]
async fn room_that_is_too_little_is_refused_and_little_room_is_a_line() {
    let desired = desired();
    let engine = running(&desired).await;
    engine.shelve("tars/framework:2");
    engine.shelve("tars/node:2");
    for (room, expected) in [
        (None, "is not known"),
        (Some(7_900_000), "the engine has room for 7 MB; the images to load are 2 MB compressed, and"),
    ] {
        engine.room(room);
        let notes = texts(&offered(&engine, &desired).await.unwrap(), "note");
        assert!(notes.iter().any(|note| note.contains(expected)), "{room:?}: {notes:?}");
    }
    engine.room(Some(8_800_000));
    assert!(offered(&engine, &desired).await.unwrap().findings.is_empty());
    engine.room(Some(1_999_999));
    let failure = offered(&engine, &desired).await.unwrap_err();
    assert_eq!(failure.exit(), Exit::Refused, "{failure}");
    assert!(failure.to_string().contains("the engine (/var/lib/docker) has room for"), "{failure}");
    assert!(failure.hint().unwrap().contains("tarsup prune"), "{failure}");

    // What is known of its layers counts, beside what is put aside while they are unpacked.
    let unpacked = engine.fork();
    for name in ["tars/framework:2", "tars/node:2"] {
        unpacked.edit_shelved(name, |image| {
            image.layer_sizes = vec![LayerSize { stored: 1_000_000, unpacked: Some(9_000_000) }];
        });
    }
    unpacked.room(Some(19_999_999));
    let failure = offered(&unpacked, &desired).await.unwrap_err();
    assert!(failure.to_string().contains("with what they are unpacked, need 20 MB"), "{failure}");
    unpacked.room(Some(20_000_000));
    let notes = texts(&offered(&unpacked, &desired).await.unwrap(), "note");
    assert!(notes.iter().any(|note| note.contains("may take 22 MB")), "{notes:?}");

    // Layers that the engine has are not sent.
    let image = engine.shelf()["tars/framework:2"].clone();
    engine.edit_image("tars/framework:1", |one| one.diff_ids = image.diff_ids.clone());
    engine.room(Some(1_000_000));
    assert!(offered(&engine, &desired).await.is_ok());

    // Nor does a journal begin that has no room.
    engine.room(Some(1 << 40));
    engine.store_room((64 << 20) - 1);
    let notes = texts(&offered(&engine, &desired).await.unwrap(), "note");
    assert!(notes.iter().any(|note| note.contains("the local store /store has room for 67 MB")), "{notes:?}");
    engine.store_room(64 << 20);
    assert!(offered(&engine, &desired).await.unwrap().findings.is_empty());
    let machine = Machine::new();
    *machine.state_room.lock().unwrap() = (1 << 20) - 1;
    let up = deploy(&engine, &machine, &desired).offer(&request(&id(9), &Intent::Up)).await;
    assert!(up.unwrap().is_empty(), "nothing is written where nothing is done");
    let failure =
        deploy(&engine, &machine, &desired).offer(&request(&id(9), &to_2(&desired))).await.unwrap_err();
    assert!(failure.to_string().contains("`.tarsup` beside the deployment file has room for"), "{failure}");
}

#[tokio::test(start_paused = true)]
async fn rollback_names_what_its_containers_lack_before_the_first_step() {
    let desired = desired();
    let engine = running_versions(&desired).await;
    let machine = Machine::new();
    roll(&engine, &machine, &desired, &id(2), &to_2(&desired)).await.unwrap();
    let back = Intent::Rollback { to: None, targets: BTreeMap::new() };
    let offer = |engine: &FakeEngine| {
        let (engine, machine, desired, back) = (engine.fork(), machine.next(), desired.clone(), back.clone());
        async move { deploy(&engine, &machine, &desired).offer(&request(&id(3), &back)).await }
    };
    assert!(offer(&engine).await.is_ok());

    // A newer version changed the database since, and did not say that the older one may run on it.
    engine.tell(
        "versions",
        json!([{"version": "3.0.17", "allows": ["3.0.16"]}, {"version": "3.0.18", "allows": []}]),
    );
    let failure = offer(&engine).await.unwrap_err();
    assert!(
        failure
            .to_string()
            .contains("`framework`: 3.0.16 does not start on this database: 3.0.18 has changed it"),
        "{failure}"
    );
    assert!(failure.hint().unwrap().contains("tars-init accept-version"), "{failure}");
    engine.tell("versions", json!([{"version": "3.0.17", "allows": ["3.0.16"]}]));
    assert!(offer(&engine).await.is_ok());

    // A prune took what was parked, and somebody the volumes.
    engine.prune(false);
    assert!(offer(&engine).await.is_ok(), "all is made once more");
    for name in ["framework", "slave"] {
        let container = format!("tars-{name}");
        engine.stop_container(&container, Duration::ZERO).await.unwrap();
        engine.remove_container(&container).await.unwrap();
        engine.remove_volume(&format!("tars_{name}")).await.unwrap();
    }
    engine.stop_container("tars-node", Duration::ZERO).await.unwrap();
    engine.remove_container("tars-node").await.unwrap();
    let failure = offer(&engine).await.unwrap_err();
    let texts: Vec<String> = failure.parts().iter().map(ToString::to_string).collect();
    assert!(
        texts.iter().any(|text| text.contains("`framework`") && text.contains("volume `tars_framework`")),
        "{texts:#?}"
    );
    assert!(texts.iter().any(|text| text.contains("volume `tars_slave`")), "{texts:#?}");
}

#[tokio::test(start_paused = true)]
async fn migration_that_binds_what_was_before_is_a_question_and_after_a_load_a_refusal() {
    let desired = desired();
    let engine = running(&desired).await;
    let binds = json!({"version": 1, "dry_run": true, "schema": {"added": ["a"], "binds": ["db_tars.t_x: the column y is NOT NULL and has no default"]}});
    let told = |text: String, code: i64| Behaviour { dry_run: (code, text), ..Behaviour::default() };
    engine.behave("tars/framework:2", told(binds.to_string(), 0));
    let asked = texts(&offered(&engine, &desired).await.unwrap(), "question");
    assert!(
        asked[0].contains(
            "no way back: it is not proven that tars/framework:1 can run on what the migration leaves"
        ),
        "{asked:?}"
    );
    assert!(asked[0].contains("the column y is NOT NULL"), "{asked:?}");

    engine.behave("tars/framework:2", told("it does not know this".to_owned(), 64));
    let asked = texts(&offered(&engine, &desired).await.unwrap(), "question");
    assert!(asked[0].contains("(it does not know this)"), "what is not known is not proven: {asked:?}");

    engine.behave("tars/framework:2", told(binds.to_string(), 0));
    engine.shelve("tars/framework:2");
    let machine = Machine::new();
    let command = deploy(&engine, &machine, &desired);
    let offer = command.offer(&request(&id(9), &to_2(&desired))).await.unwrap();
    let before = engine.calls().len();
    let failure = command.roll(&offer).await.unwrap_err();
    assert_eq!(failure.exit(), Exit::Refused, "{failure}");
    assert!(failure.hint().unwrap().contains("run the command again"), "{failure}");
    assert!(
        !engine.calls()[before..].iter().any(|call| call.starts_with("stop tars-slave")),
        "nothing was stopped"
    );
    command.is_free().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_served_nowhere_else_is_a_question_and_without_gaps_a_refusal() {
    let mut desired = desired();
    let engine = running(&desired).await;
    let instance = |server: &str, node: &str| json!({"server": server, "node": node, "setting": true, "present": true, "flow": true, "lives": true});
    let (own, other) = ("172.25.0.5", "172.25.0.99");
    engine.tell(
        "servers",
        json!([
            instance("Demo.Alone", own),
            instance("Demo.Both", own),
            instance("Demo.Both", other),
            instance("Demo.Elsewhere", other),
            instance("tars.tarslog", own)
        ]),
    );
    let gaps = |offer: &Offer| {
        texts(offer, "question")
            .into_iter()
            .filter(|text| text.starts_with("served nowhere"))
            .collect::<Vec<_>>()
    };
    let asked = gaps(&offered(&engine, &desired).await.unwrap());
    let question =
        "served nowhere else, and silent while its container is stopped: Demo.Alone on 172.25.0.5. Go on?";
    assert_eq!(asked, [question]);
    desired.policy.refuses_gaps = true;
    let refused = offered(&engine, &desired).await.unwrap_err();
    assert_eq!(refused.exit(), Exit::Refused);
    assert!(refused.to_string().contains("Demo.Alone on 172.25.0.5"), "{refused}");
    // An administrator has stopped it: nobody calls it.
    engine.tell("servers", json!([]));
    assert!(gaps(&offered(&engine, &desired).await.unwrap()).is_empty());
}
