//! Columns that the web console of an image without tars-init may drop are kept before it comes back.

use super::deploys::rollback;
use super::*;
use crate::fake::{Behaviour, Call, Fault, Moment};
use tarsup::diagnose::{Diagnose as _, Exit};
use tarsup::engine::Engine as _;
use tarsup::upgrade::journal::Event;
use tarsup::upgrade::render;

const KEPT: &str = r#"{"version":1,"kept":[{"column":"db_tars.t_server_conf.flow_state","rows":12},
    {"column":"db_tars.t_server_conf.source","rows":12},{"column":"db_tars.t_config_files.level","rows":0}],"not_kept":[]}"#;

/// A deployment at 2, whose parked master is of an image without tars-init.
pub async fn after_upstream() -> (FakeEngine, Desired) {
    let desired = desired();
    let engine = running(&desired).await;
    roll(&engine, &Machine::new(), &desired, &id(2), &to_2(&desired)).await.unwrap();
    engine.edit_image("tars/framework:1", |image| {
        image.raw["Config"]["Entrypoint"] = json!(["/usr/local/tars/cpp/deploy/docker-init.sh"]);
    });
    engine.behave("tars/framework:1", Behaviour { has_init: false, ..Behaviour::default() });
    engine.behave("tars/framework:2", keeping(0, KEPT));
    (engine, to_2(&desired).apply(&desired))
}

fn keeping(exit: i64, document: &str) -> Behaviour {
    Behaviour { kept: (exit, document.replace('\n', "")), ..Behaviour::default() }
}

#[tokio::test(start_paused = true)]
async fn plan_of_a_rollback_to_upstream_names_what_is_kept_and_when() {
    let (engine, desired) = after_upstream().await;
    let back = rollback(&engine, &desired, None).await;
    let machine = Machine::new();
    let before = engine.dump();
    let offer = deploy(&engine, &machine, &desired).offer(&request(&id(9), &back)).await.unwrap();
    super::plans::golden("rollback_to_upstream", &render::offer(&offer));
    assert_eq!(offer.document()["columns"]["kept"][0]["rows"], 12);
    assert_eq!(engine.dump(), before, "nothing of the question is left");
}

#[tokio::test(start_paused = true)]
async fn columns_are_kept_by_the_image_that_leaves_while_its_container_runs() {
    let (engine, desired) = after_upstream().await;
    // The file names another image by now: what leaves does it all the same.
    let mut now = desired.clone();
    edit(&mut now, "framework", |service| service.image = "tars/framework:3".parse().unwrap());
    let back = rollback(&engine, &now, None).await;
    let leaving = engine.inspect_container("tars-framework").await.unwrap().unwrap();
    let machine = Machine::new();
    let calls = engine.calls().len();
    roll(&engine, &machine, &now, &id(3), &back).await.unwrap();
    let calls = engine.calls()[calls..].to_vec();
    let at = |words: &str| {
        calls.iter().position(|call| call.starts_with(words)).unwrap_or_else(|| panic!("{words}"))
    };
    let keep = format!("tars.keep.{}", id(3));
    assert!(at(&format!("create {keep}")) < at(&format!("start {keep}")));
    assert!(at(&format!("wait {keep}")) < at("stop tars-framework"), "{calls:#?}");
    let effects = machine.lines().into_iter().rev().find_map(|line| match line.event {
        Event::Recorded { record } => Some(record.effects),
        _ => None,
    });
    let effects = effects.unwrap();
    assert_eq!(effects[0].result["kept"][0]["column"], "db_tars.t_server_conf.flow_state");
    assert!(engine.inspect_container(&keep).await.unwrap().is_none(), "it is cleared away");
    let parked = engine.inspect_container(&leaving.id).await.unwrap().unwrap();
    assert_eq!(parked.name, format!("tars-framework.old.{}", id(3)));
    let said = machine.said.lock().unwrap().join("\n");
    assert!(said.contains("keeps db_tars.t_server_conf (12 rows): flow_state, source"), "{said}");
    assert!(!said.contains("was not saved first"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_kept_is_a_question_and_nothing_that_was_not_asked_is_lost() {
    let (engine, desired) = after_upstream().await;
    let back = rollback(&engine, &desired, None).await;
    let lost = r#"{"version":1,"kept":[],"not_kept":["db_base.t_station.id: its table has no key"]}"#;
    engine.behave("tars/framework:2", keeping(78, lost));
    let (machine, running) = (Machine::new(), engine.fork());
    let command = deploy(&engine, &machine, &desired);
    let offer = command.offer(&request(&id(3), &back)).await.unwrap();
    assert_eq!(offer.plan.questions.len(), 1, "{:?}", offer.plan.questions);
    assert!(offer.plan.questions[0].starts_with("Not kept is db_base.t_station.id:"));
    command.roll(&offer).await.unwrap();

    // One more cannot be kept than was asked about.
    let machine = Machine::new();
    let command = deploy(&running, &machine, &desired);
    let before = running.dump();
    let offer = command.offer(&request(&id(3), &back)).await.unwrap();
    let more =
        r#"{"version":1,"kept":[],"not_kept":["db_base.t_station.id: no key","db_tars.t_new.a: no key"]}"#;
    running.behave("tars/framework:2", keeping(78, more));
    let failure = command.roll(&offer).await.unwrap_err();
    assert_eq!(failure.exit(), Exit::RolledBack);
    assert!(failure.to_string().contains("what the web console may drop could not be kept"), "{failure}");
    assert_eq!(super::deploys::without_failed(&running.dump()), before);
}

#[tokio::test(start_paused = true)]
async fn image_of_an_older_tarsup_is_a_question_and_an_unknown_database_a_note() {
    let (engine, desired) = after_upstream().await;
    let back = rollback(&engine, &desired, None).await;
    let machine = Machine::new();
    engine.behave("tars/framework:2", keeping(69, ""));
    let offer = deploy(&engine, &machine, &desired).offer(&request(&id(3), &back)).await.unwrap();
    assert!(offer.plan.questions.is_empty());
    assert!(offer.plan.notes.iter().any(|note| note.contains("is not known before it is kept")));
    engine.behave("tars/framework:2", keeping(64, ""));
    let offer = deploy(&engine, &machine, &desired).offer(&request(&id(3), &back)).await.unwrap();
    assert!(offer.plan.questions[0].starts_with("Nothing is kept"), "{:?}", offer.plan.questions);
    deploy(&engine, &machine, &desired).roll(&offer).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn rollback_to_upstream_killed_at_any_call_ends_on_one_side() {
    let (running, desired) = after_upstream().await;
    let began = running.dump();
    let mut kept = 0;
    for forward in [true, false] {
        for moment in [Moment::Before, Moment::After] {
            for n in super::crash::points() {
                let engine = running.fork();
                let back = rollback(&engine, &desired, None).await;
                let machine = Machine::killed();
                let command = deploy(&engine, &machine, &desired);
                let offer = command.offer(&request(&id(3), &back)).await.unwrap();
                engine.fault(Call::Nth(n), moment, Fault::Crash);
                let killed = tokio::select! {
                    _ = command.roll(&offer) => false,
                    () = engine.crashed() => true,
                };
                engine.clear_faults();
                if !killed {
                    break;
                }
                let calls = engine.calls();
                let last = calls.last().unwrap();
                let context = format!("killed {moment:?} call {n}, {last}, forward: {forward}");
                kept += usize::from(last.contains("tars.keep."));
                let next = machine.next();
                while !matches!(resume(&engine, &next, &desired, forward).await.unwrap(), Resumed::Nothing(_))
                {
                }
                let dump = super::deploys::without_failed(&engine.dump());
                let at_1 = "container tars-framework running restart=always image=tars/framework:1";
                assert!(dump == began || dump.contains(at_1), "{context}\n{dump}");
                assert!(!dump.contains("tars.keep."), "{context}\n{dump}");
                let stop = engine.calls().iter().rposition(|call| call == "stop tars-framework");
                let start = engine.calls().iter().rposition(|call| call.starts_with("start tars.keep."));
                assert!(dump == began || start < stop, "{context}: it was stopped before anything was kept");
            }
        }
    }
    if std::env::var_os("TARSUP_EVERY").is_some() {
        assert!(kept >= 8, "the kills fell on {kept} calls of the new step");
    }
}

#[tokio::test(start_paused = true)]
async fn failed_upgrade_from_upstream_keeps_columns_before_its_console_comes_back() {
    let never = |kept: (i64, String)| Behaviour { healthy_after: None, kept, ..Behaviour::default() };
    let lost = r#"{"version":1,"kept":[],"not_kept":["db_base.t_station.id: its table has no key"]}"#;
    for (behaviour, is_asked, warned) in [
        (never((0, KEPT.replace('\n', ""))), true, None),
        (never((78, lost.to_owned())), true, Some("is not kept: db_base.t_station.id")),
        // One that has ended cannot do it, and nothing waits for it.
        (Behaviour { dies: Some((std::time::Duration::ZERO, 78)), ..Behaviour::default() }, false, None),
    ] {
        let desired = desired();
        let engine = running(&desired).await;
        engine.edit_image("tars/framework:1", |image| {
            image.raw["Config"]["Entrypoint"] = json!(["/usr/local/tars/cpp/deploy/docker-init.sh"]);
        });
        engine.behave("tars/framework:1", Behaviour { has_init: false, ..Behaviour::default() });
        engine.behave("tars/framework:2", behaviour);
        let before = engine.dump();
        // The slave has gone before: this is of the master alone.
        let images = [("framework".to_owned(), "tars/framework:2".parse().unwrap())].into();
        let machine = Machine::new();
        let (calls, intent) = (engine.calls().len(), Intent::Upgrade { images });
        let failure = roll(&engine, &machine, &desired, &id(2), &intent).await.unwrap_err();
        assert_eq!(failure.exit(), Exit::RolledBack, "{failure}");
        assert_eq!(super::deploys::without_failed(&engine.dump()), before);
        let calls = engine.calls()[calls..].to_vec();
        let place_of = |words: &str| calls.iter().rposition(|call| call.starts_with(words));
        let kept = place_of("exec tars-framework /usr/local/bin/tars-init keep-columns --all");
        assert_eq!(kept.is_some(), is_asked, "{calls:#?}");
        if is_asked {
            assert!(
                kept < place_of("stop tars-framework") && kept < place_of("start tars-framework"),
                "{calls:#?}"
            );
        }
        let said = machine.said.lock().unwrap().join("\n");
        assert_eq!(said.contains("is not kept"), warned.is_some(), "{said}");
        assert!(warned.is_none_or(|words| said.contains(words)), "{said}");
    }
}
