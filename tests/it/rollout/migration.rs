//! What a migration would change is asked before anything is done, and saved before it is changed.

use super::*;
use crate::fake::{Behaviour, Call, Fault, Moment};
use std::sync::atomic::Ordering;
use tarsup::diagnose::{Diagnose as _, Exit};
use tarsup::engine::{Engine as _, Status};
use tarsup::upgrade::journal::Event;

fn answering(exit: i64, text: &str) -> Behaviour {
    Behaviour { dry_run: (exit, text.to_owned()), ..Behaviour::default() }
}

#[tokio::test(start_paused = true)]
async fn plan_of_an_upgrade_shows_what_the_migration_would_change() {
    let desired = desired();
    let engine = running(&desired).await;
    let answer = r#"{"version":1,"dry_run":true,"schema":{"added":["db_tars.t: the column a"],"kept":[]},"templates":{
        "keys":["tars.tarsnode tars/new"],"taken_out":["tars.tarslog tars/x"]}}"#;
    engine.behave("tars/framework:2", answering(0, &answer.replace('\n', "")));
    let machine = Machine::new();
    let before = engine.dump();
    let offer = deploy(&engine, &machine, &desired).offer(&request(&id(2), &to_2(&desired))).await.unwrap();
    for note in [
        "the migration: adds to the schema db_tars.t: the column a",
        "the migration: adds the key tars.tarsnode tars/new",
        "the migration: leaves out, as somebody took it out: tars.tarslog tars/x",
    ] {
        assert!(offer.plan.notes.iter().any(|it| it == note), "{note} is not in {:#?}", offer.plan.notes);
    }
    assert_eq!(offer.document()["migration"]["schema"]["added"][0], "db_tars.t: the column a");
    assert_eq!(engine.dump(), before, "nothing of the question is left");
    // What a person has seen is what the record says.
    deploy(&engine, &machine, &desired).roll(&offer).await.unwrap();
    let recorded = machine.lines().into_iter().find_map(|line| match line.event {
        Event::Recorded { record } => Some(record.plan.notes),
        _ => None,
    });
    assert_eq!(recorded.unwrap(), offer.plan.notes);
}

#[tokio::test(start_paused = true)]
async fn plan_of_a_rollback_shows_what_the_older_master_takes_back_and_what_was_edited_since() {
    let desired = desired();
    let engine = running(&desired).await;
    let machine = Machine::new();
    roll(&engine, &machine, &desired, &id(2), &to_2(&desired)).await.unwrap();
    let answer = r#"{"version":1,"columns":["db_tars.t.a"],"templates":{
        "changed":[{"template":"tars.default","key":"tars/x","own":"2","shipped":"1"}],
        "conflicts":[{"template":"tars.default","key":"tars/y","own":"7","shipped":"1"}]}}"#;
    engine.behave("tars/framework:1", answering(0, &answer.replace('\n', "")));
    let at_2 = to_2(&desired).apply(&desired);
    let back = super::deploys::rollback(&engine, &at_2, None).await;
    let before = engine.dump();
    let offered =
        async || deploy(&engine, &machine, &at_2).offer(&request(&id(3), &back)).await.unwrap().plan.notes;
    let notes = offered().await;
    for note in [
        "the start of tars/framework:1 as `framework`: puts back db_tars.t.a",
        "the start of tars/framework:1 as `framework`: tars.default tars/x: 2 → 1, follows this version",
        "the start of tars/framework:1 as `framework`: tars.default tars/y: 7 → 1, was edited and stays, though this version changes it",
        "`framework`: its rows name the version of tars/framework:1 again, but for services whose program somebody published over its image's",
        "`slave`: its rows name the version of tars/framework:1 again, but for services whose program somebody published over its image's",
    ] {
        assert!(notes.iter().any(|it| it == note), "{note} is not in {notes:#?}");
    }
    assert_eq!(engine.dump(), before, "nothing of the question is left");
    engine.behave("tars/framework:1", answering(69, "tars-init: the database does not answer."));
    let notes = offered().await;
    let unknown = "what the start of tars/framework:1 as `framework` takes back is not known before it does: the database does not answer.";
    assert!(notes.iter().any(|it| it == unknown), "{notes:#?}");
}

#[tokio::test(start_paused = true)]
async fn what_the_new_version_needs_and_the_database_lacks_stops_an_upgrade_before_anything_is_done() {
    let desired = desired();
    let engine = running(&desired).await;
    let machine = Machine::new();
    for (exit, text, words) in [
        (0, r#"{"templates":{"needed":["tars.tarsnode tars/node/x"]}}"#, "lacks tars.tarsnode tars/node/x"),
        (
            0,
            r#"{"templates":{"unreadable":["tars.tarslog"]}}"#,
            "tars.tarslog of the database are no TARS configuration",
        ),
        (
            78,
            "tars-init: the database: db_tars is there and is not TARS's.",
            "db_tars is there and is not TARS's",
        ),
    ] {
        engine.behave("tars/framework:2", answering(exit, text));
        let before = engine.dump();
        let failure = roll(&engine, &machine, &desired, &id(2), &to_2(&desired)).await.unwrap_err();
        assert!(failure.to_string().contains(words), "{failure}");
        assert_eq!(failure.exit(), Exit::Refused);
        assert!(failure.hint().is_some());
        assert_eq!(engine.dump(), before);
        // What migrates nothing asks nothing.
        let restart = Intent::Restart { services: Vec::new(), ask_with: None };
        deploy(&engine, &machine, &desired).offer(&request(&id(3), &restart)).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn image_that_cannot_say_what_it_would_change_is_said_and_stops_nothing() {
    let desired = desired();
    let engine = running(&desired).await;
    let machine = Machine::new();
    for (exit, text, words) in [
        (64, "tars-init: `migrate --dry-run` is not understood.", "is not understood"),
        (69, "tars-init: the database: Connection refused.", "Connection refused"),
        (0, "no document", "it said nothing"),
    ] {
        engine.behave("tars/framework:2", answering(exit, text));
        let offer =
            deploy(&engine, &machine, &desired).offer(&request(&id(2), &to_2(&desired))).await.unwrap();
        let note = offer.plan.notes.iter().find(|note| note.contains("not known before it runs")).unwrap();
        assert!(note.contains(words), "{note}");
        assert!(offer.migration.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn image_that_had_to_be_loaded_is_asked_before_the_first_step() {
    let desired = desired();
    let engine = running(&desired).await;
    for image in ["tars/framework:2", "tars/node:2"] {
        engine.shelve(image);
    }
    engine.behave("tars/framework:2", answering(0, r#"{"templates":{"needed":["tars.tarsnode tars/x"]}}"#));
    let before = engine.dump();
    let failure = roll(&engine, &Machine::new(), &desired, &id(2), &to_2(&desired)).await.unwrap_err();
    assert!(failure.to_string().contains("lacks tars.tarsnode tars/x"), "{failure}");
    assert!(engine.inspect_image("tars/framework:2").await.unwrap().is_some(), "it was loaded");
    let containers = |dump: &str| -> Vec<String> {
        dump.lines().filter(|line| !line.starts_with("image")).map(str::to_owned).collect()
    };
    assert_eq!(containers(&engine.dump()), containers(&before));
    // The deployment is free again.
    engine.behave("tars/framework:2", answering(0, "{}"));
    roll(&engine, &Machine::new(), &desired, &id(3), &to_2(&desired)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_a_migration_changes_is_kept_and_listed_before_it_is_told_to_go_on() {
    let desired = desired();
    let engine = running(&desired).await;
    let machine = Machine::new();
    roll(&engine, &machine, &desired, &id(2), &to_2(&desired)).await.unwrap();
    let name = format!("{}.saved.jsonl.gz", id(2));
    assert_eq!(machine.kept.lock().unwrap()[&name], "{\"save\":\"a row\"}\n{\"save\":\"another\"}\n");
    let events: Vec<Event> = machine.lines().into_iter().map(|line| line.event).collect();
    let saved = events
        .iter()
        .position(|event| matches!(event, Event::Saved { file, lines: 2, .. } if *file == name))
        .expect("the journal lists it");
    let migrated = |event: &Event| matches!(event, Event::Recorded { record } if !record.effects.is_empty());
    assert!(saved < events.iter().position(migrated).unwrap());
    let body = engine.calls().iter().filter(|call| call.starts_with("logs ")).count();
    assert_eq!(body, 0, "nothing of it is looked for in a log");
}

#[tokio::test(start_paused = true)]
async fn migration_does_not_begin_without_room_for_what_it_changes() {
    let desired = desired();
    let engine = running(&desired).await;
    let machine = Machine::new();
    machine.no_room.store(true, Ordering::Relaxed);
    let before = engine.dump();
    let failure = roll(&engine, &machine, &desired, &id(2), &to_2(&desired)).await.unwrap_err();
    assert_eq!(failure.exit(), Exit::RolledBack);
    assert!(failure.to_string().contains("was not begun: no space left on device"), "{failure}");
    assert_eq!(engine.dump(), before);
    assert!(machine.kept.lock().unwrap().is_empty());
    let events: Vec<Event> = machine.lines().into_iter().map(|line| line.event).collect();
    assert!(!events.iter().any(|event| matches!(event, Event::Saved { .. })));
}

#[tokio::test(start_paused = true)]
async fn migration_whose_tarsup_is_gone_before_the_word_changes_nothing() {
    let desired = desired();
    let engine = running(&desired).await;
    let machine = Machine::killed();
    let command = deploy(&engine, &machine, &desired);
    let offer = command.offer(&request(&id(2), &to_2(&desired))).await.unwrap();
    let migrate = format!("tars.migrate.{}", id(2));
    engine.fault(Call::First(format!("start {migrate}")), Moment::After, Fault::Crash);
    tokio::select! {
        _ = command.roll(&offer) => panic!("it was killed"),
        () = engine.crashed() => {}
    }
    let left = engine.inspect_container(&migrate).await.unwrap().unwrap();
    assert_eq!((left.status, left.exit_code), (Status::Exited, 75));
    // Whoever goes on lets it run anew, and keeps what it changes.
    let next = machine.next();
    assert!(matches!(resume(&engine, &next, &desired, true).await.unwrap(), Resumed::Completed(_)));
    assert_eq!(next.kept.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn image_of_an_older_tarsup_migrates_and_that_nothing_was_saved_is_said() {
    let desired = desired();
    let engine = running(&desired).await;
    engine.behave("tars/framework:2", Behaviour { saves: None, ..Behaviour::default() });
    let machine = Machine::new();
    roll(&engine, &machine, &desired, &id(2), &to_2(&desired)).await.unwrap();
    let said = machine.said.lock().unwrap().join("\n");
    assert!(said.contains("was not saved first"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn migration_is_told_its_image_and_what_an_older_one_may_still_run_on() {
    let mut desired = desired();
    desired.policy.keep_parked = 5;
    let engine = engine();
    engine.add_image("tars/framework:3", "framework 3", &["PATH=/bin"]);
    engine.add_image("tars/node:3", "node 3", &["PATH=/bin"]);
    for (tag, version) in [("1", "2.4.17"), ("2", "3.0.17"), ("3", "3.0.18")] {
        let label = |image: &mut tarsup::engine::EngineImage| {
            image.labels.insert("org.opencontainers.image.version".to_owned(), version.to_owned());
        };
        engine.edit_image(&format!("tars/framework:{tag}"), label);
    }
    roll(&engine, &Machine::new(), &desired, &id(1), &Intent::Up).await.unwrap();
    let told = async |n: u8, tag: &str, desired: &Desired| -> Vec<String> {
        let machine = Machine::killed();
        let intent = Intent::upgrade(desired, Some(tag));
        let command = deploy(&engine, &machine, desired);
        let offer = command.offer(&request(&id(n), &intent)).await.unwrap();
        engine.fault(Call::First(format!("attach tars.migrate.{}", id(n))), Moment::Before, Fault::Crash);
        tokio::select! {
            _ = command.roll(&offer) => panic!("it was killed"),
            () = engine.crashed() => {}
        }
        let made = engine.inspect_container(&format!("tars.migrate.{}", id(n))).await.unwrap().unwrap();
        resume(&engine, &machine.next(), desired, true).await.unwrap();
        made.env.expose().into_iter().filter(|entry| entry.starts_with("TARSUP_")).collect()
    };
    let image = async |tag: &str| {
        let found = engine.inspect_image(&format!("tars/framework:{tag}")).await.unwrap().unwrap();
        format!("TARSUP_IMAGE=tars/framework:{tag}@{}", found.id)
    };
    let first = told(2, "2", &desired).await;
    assert_eq!(
        first,
        ["TARSUP_SAVE=stdin".to_owned(), image("2").await, "TARSUP_WAY_BACK=2.4.17".to_owned()]
    );
    // What is parked may come back as well.
    let mut second = to_2(&desired).apply(&desired);
    second.policy.keep_parked = 5;
    let ways = told(3, "3", &second).await;
    assert_eq!(ways[2], "TARSUP_WAY_BACK=2.4.17,3.0.17");
}

/// A deployment of version 3 after 2, whose images say so; and what is wanted of it now.
async fn moved(keep_parked: usize) -> (FakeEngine, Desired) {
    let mut desired = desired();
    desired.policy.keep_parked = keep_parked;
    let engine = engine();
    for image in ["framework", "node"] {
        for (tag, version) in [("1", "2.4.17"), ("2", "3.0.17")] {
            let label = |image: &mut tarsup::engine::EngineImage| {
                image.labels.insert("org.opencontainers.image.version".to_owned(), version.to_owned());
            };
            engine.edit_image(&format!("tars/{image}:{tag}"), label);
        }
    }
    roll(&engine, &Machine::new(), &desired, &id(1), &Intent::Up).await.unwrap();
    roll(&engine, &Machine::new(), &desired, &id(2), &to_2(&desired)).await.unwrap();
    let mut now = to_2(&desired).apply(&desired);
    now.policy.keep_parked = keep_parked;
    (engine, now)
}

#[tokio::test(start_paused = true)]
async fn finish_saves_the_rows_and_touches_no_service() {
    let (engine, desired) = moved(0).await;
    let answer = r#"{"version":1,"dry_run":true,"finished":["tars.tarsstat.Old at 172.25.0.3"]}"#;
    let migrated = r#"{"version":1,"finished":["tars.tarsstat.Old at 172.25.0.3"]}"#.to_owned();
    engine.behave("tars/framework:2", Behaviour { migrated, ..answering(0, answer) });
    let machine = Machine::new();
    let before = engine.dump();
    let calls = engine.calls().len();
    let plan = roll(&engine, &machine, &desired, &id(3), &Intent::Finish).await.unwrap();
    assert!(
        plan.notes.iter().any(|note| note.contains("takes out the row") && note.contains("Old")),
        "{plan:?}"
    );
    assert_eq!(engine.dump(), before, "nothing of it is left, and nothing else is touched");
    let starts: Vec<String> = engine.calls()[calls..].iter().filter(|call| is_start(call)).cloned().collect();
    assert_eq!(starts, [format!("start tars.migrate.{}", id(3))]);
    assert_eq!(machine.kept.lock().unwrap().len(), 1);
    let said = machine.said.lock().unwrap().join("\n");
    assert!(said.contains("takes out the row of an old protocol tars.tarsstat.Old at 172.25.0.3"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn finish_is_offered_once_every_node_has_moved_and_something_is_left() {
    let rows = r#"{"version":1,"dry_run":true,"finished":["tars.tarsstat.Old at 172.25.0.3"]}"#;
    let offered = async |keep_parked: usize, answer: &str| {
        let (engine, desired) = moved(keep_parked).await;
        engine.behave("tars/framework:2", answering(0, answer));
        let before = engine.dump();
        let left = deploy(&engine, &Machine::new(), &desired).left_to_finish(&desired).await;
        assert_eq!(engine.dump(), before, "nothing of the question is left");
        left
    };
    assert_eq!(offered(0, rows).await, Some(1));
    assert_eq!(offered(0, r#"{"version":1,"dry_run":true,"finished":[]}"#).await, None);
    assert_eq!(offered(2, rows).await, None, "an older version is a way back");
}

#[tokio::test(start_paused = true)]
async fn what_a_start_puts_back_is_told_with_who_read_it_meanwhile() {
    let desired = desired();
    let engine = running(&desired).await;
    let readers: Vec<String> = (1..=10).map(|n| format!("Shop.S{n} at 172.25.0.5")).collect();
    let changes = serde_json::json!({"templates": {
        "changed": [{"template": "tars.default", "key": "tars/x", "own": "60", "shipped": "10"}],
        "readers": {"tars.default": readers},
    }});
    engine.behave("tars/framework:2", Behaviour { changes, ..Behaviour::default() });
    let machine = Machine::new();
    roll(&engine, &machine, &desired, &id(2), &to_2(&desired)).await.unwrap();
    let said = machine.said.lock().unwrap().join("\n");
    for words in [
        "the start of tars-framework: tars.default tars/x: 60 → 10, follows this version",
        "the start of tars-framework: reaches those that run with tars.default at their next start: Shop.S1 at 172.25.0.5,",
        "Shop.S8 at 172.25.0.5 and 2 more",
    ] {
        assert!(said.contains(words), "{words} is not in {said}");
    }
    // What was looked at and not started tells nothing of a start.
    let machine = Machine::new();
    roll(&engine, &machine, &to_2(&desired).apply(&desired), &id(3), &Intent::Up).await.unwrap();
    assert!(!machine.said.lock().unwrap().join("\n").contains("the start of"));
}

#[tokio::test(start_paused = true)]
async fn finish_is_refused_while_an_older_version_runs_or_may_come_back() {
    let (engine, desired) = moved(2).await;
    let refused = async |engine: &FakeEngine, desired: &Desired| {
        let failure = roll(engine, &Machine::new(), desired, &id(3), &Intent::Finish).await.unwrap_err();
        assert_eq!(failure.exit(), Exit::Refused);
        failure.to_string()
    };
    let way_back = refused(&engine, &desired).await;
    assert!(
        way_back.contains(&format!(".old.{}", id(2))) && way_back.contains("is a way back"),
        "{way_back}"
    );
    // A node that was left behind.
    let (engine, desired) = moved(0).await;
    let mut behind = desired.clone();
    edit(&mut behind, "node", |node| node.image = "tars/node:1".parse().unwrap());
    roll(&engine, &Machine::new(), &behind, &id(4), &Intent::Up).await.unwrap();
    let not_moved = refused(&engine, &behind).await;
    assert!(not_moved.contains("`node` runs tars/node:1"), "{not_moved}");
    assert!(
        refused(&engine, &desired).await.contains("`node` runs tars/node:1"),
        "the file names another one"
    );
}

#[tokio::test(start_paused = true)]
async fn finish_without_room_for_the_rows_takes_none_out() {
    let (engine, desired) = moved(0).await;
    let machine = Machine::new();
    machine.no_room.store(true, Ordering::Relaxed);
    let before = engine.dump();
    let failure = roll(&engine, &machine, &desired, &id(3), &Intent::Finish).await.unwrap_err();
    assert_eq!(failure.exit(), Exit::Failed);
    assert!(failure.to_string().contains("no space left on device"), "{failure}");
    assert_eq!(engine.dump(), before);
}

/// A deployment whose template has what version 1 ships; version 2 ships something else.
async fn with_templates(desired: &Desired) -> FakeEngine {
    let engine = running(desired).await;
    engine.behave("tars/framework:1", shipping("one"));
    engine.behave("tars/framework:2", shipping("two"));
    let again = Intent::Restart { services: Vec::new(), ask_with: None };
    roll(&engine, &Machine::new(), desired, &id(1), &again).await.unwrap();
    assert!(engine.dump().contains("template one"), "{}", engine.dump());
    engine
}

fn shipping(value: &'static str) -> Behaviour {
    Behaviour { ships: Some(value), ..Behaviour::default() }
}

/// The canary does not pass: the master of before was never stopped.
fn sick_canary(engine: &FakeEngine) {
    engine.behave("tars/framework:2", Behaviour { healthy_after: None, ..shipping("two") });
}

#[tokio::test(start_paused = true)]
async fn upgrade_that_fails_between_migration_and_swap_puts_back_what_the_migration_changed_and_says_so() {
    let desired = desired();
    let engine = with_templates(&desired).await;
    sick_canary(&engine);
    let before = engine.dump();
    let machine = Machine::new();
    let failure = roll(&engine, &machine, &desired, &id(2), &to_2(&desired)).await.unwrap_err();
    assert_eq!(failure.exit(), Exit::RolledBack, "{failure}");
    assert_eq!(super::deploys::without_failed(&engine.dump()), before);
    let note = "note: templates: tars.default tars/x: two → one, follows this version";
    assert!(failure.to_string().contains(note), "{failure}");
    let stopped = |call: &&String| call.starts_with("stop tars-framework");
    assert_eq!(engine.calls().iter().filter(stopped).count(), 1, "by the restart before alone");
}

#[tokio::test(start_paused = true)]
async fn what_somebody_edited_since_the_migration_stays_when_it_is_undone() {
    let desired = desired();
    let engine = with_templates(&desired).await;
    sick_canary(&engine);
    let machine = Machine::killed();
    let command = deploy(&engine, &machine, &desired);
    let offer = command.offer(&request(&id(2), &to_2(&desired))).await.unwrap();
    engine.fault(Call::First("stop tars-slave".to_owned()), Moment::After, Fault::Crash);
    tokio::select! {
        _ = command.roll(&offer) => panic!("it was killed"),
        () = engine.crashed() => {}
    }
    engine.clear_faults();
    assert!(engine.dump().contains("template two"), "{}", engine.dump());
    engine.edit_template("mine");
    let next = machine.next();
    assert!(matches!(resume(&engine, &next, &desired, false).await.unwrap(), Resumed::Undone(_)));
    assert!(engine.dump().contains("template mine"), "{}", engine.dump());
    let said = next.said.lock().unwrap().join("\n");
    assert!(said.contains("tars/x: mine → one, was edited and stays"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn way_back_does_not_hang_on_a_database_that_is_away_and_says_what_stays() {
    let desired = desired();
    let engine = with_templates(&desired).await;
    sick_canary(&engine);
    let machine = Machine::new();
    let command = deploy(&engine, &machine, &desired);
    let offer = command.offer(&request(&id(2), &to_2(&desired))).await.unwrap();
    engine.fault(
        Call::Every("exec tars-framework /usr/local/bin/tars-init migrate".to_owned()),
        Moment::Before,
        Fault::Lost,
    );
    let failure = command.roll(&offer).await.unwrap_err();
    assert_eq!(failure.exit(), Exit::RolledBack, "{failure}");
    assert!(
        failure.to_string().contains("what the migration changed in templates is not put back"),
        "{failure}"
    );
    assert!(failure.to_string().contains("the next start of the master puts it back"), "{failure}");
}

#[tokio::test(start_paused = true)]
async fn master_without_tars_init_has_it_taken_back_by_the_image_that_migrated() {
    let desired = desired();
    let engine = with_templates(&desired).await;
    engine.behave("tars/framework:1", Behaviour { has_init: false, ..Behaviour::default() });
    engine.edit_image("tars/framework:1", |image| {
        image.raw["Config"]["Entrypoint"] = json!(["/usr/local/tars/cpp/deploy/docker-init.sh"]);
    });
    sick_canary(&engine);
    let failure = roll(&engine, &Machine::new(), &desired, &id(2), &to_2(&desired)).await.unwrap_err();
    assert_eq!(failure.exit(), Exit::RolledBack, "{failure}");
    assert!(failure.to_string().contains("templates: takes back tars.default tars/x"), "{failure}");
    assert!(!engine.dump().contains("template"), "{}", engine.dump());
    assert!(!engine.dump().contains(".preview"), "{}", engine.dump());
}
