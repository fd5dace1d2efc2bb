//! Whole deploys: up, upgrade, a failing gate, restart, rollback, down, and who may work when.

use super::*;
use crate::fake::{Behaviour, Call, Fault, Moment};
use tarsup::diagnose::{Diagnose as _, Exit};
use tarsup::engine::Engine as _;

#[tokio::test(start_paused = true)]
async fn up_on_an_empty_engine_creates_everything_and_then_nothing() {
    let desired = desired();
    let engine = running(&desired).await;
    insta_like(
        &engine.dump(),
        "container tars-framework running restart=always image=tars/framework:1 tars_default=172.25.0.3 binds=[\"tars_framework:/data/tars\"] env=[\"MYSQL_ROOT_PASSWORD=s3cret\",\"SLAVE=false\"]
container tars-mysql running restart=always image=mariadb:10.11 tars_default=172.25.0.2 binds=[\"tars_mysql:/var/lib/mysql\"] env=[\"MYSQL_ROOT_PASSWORD=s3cret\",\"SLAVE=false\"]
container tars-node running restart=always image=tars/node:1 tars_default=172.25.0.5 binds=[\"tars_node:/data/tars\"] env=[\"MYSQL_ROOT_PASSWORD=s3cret\",\"SLAVE=false\"]
container tars-slave running restart=always image=tars/framework:1 tars_default=172.25.0.4 binds=[\"tars_slave:/data/tars\"] env=[\"MYSQL_ROOT_PASSWORD=s3cret\",\"SLAVE=true\"]
network tars_default
volume tars_framework
volume tars_mysql
volume tars_node
volume tars_slave
",
    );
    let again = planned(&engine, &desired, 2, &Intent::Up).await.unwrap();
    assert!(again.is_empty(), "{}", tarsup::upgrade::render::plan(&again));
}

fn insta_like(found: &str, expected: &str) {
    assert!(found == expected, "found:\n{found}\nexpected:\n{expected}");
}

#[tokio::test(start_paused = true)]
async fn upgrade_swaps_slave_master_node_and_parks_what_was() {
    let desired = desired();
    let engine = running(&desired).await;
    let machine = Machine::new();
    let before = engine.calls().len();
    roll(&engine, &machine, &desired, &id(2), &to_2(&desired)).await.unwrap();
    let starts: Vec<String> =
        engine.calls()[before..].iter().filter(|call| is_start(call)).cloned().collect();
    let migrate = format!("start tars.migrate.{}", id(2));
    assert_eq!(starts, [migrate.as_str(), "start tars-slave", "start tars-framework", "start tars-node"]);
    let dump = engine.dump();
    for name in ["framework", "slave", "node"] {
        let old = format!("container tars-{name}.old.{} exited restart=no", id(2));
        assert!(dump.contains(&old), "{dump}");
        let image = if name == "node" { "node" } else { "framework" };
        let new = format!("container tars-{name} running restart=always image=tars/{image}:2");
        assert!(dump.contains(&new), "{dump}");
    }
    assert!(!dump.contains(".lock") && !dump.contains(".migrate."), "{dump}");
    // The file gets the new tags, and nothing else.
    let written = machine.written.lock().unwrap().clone();
    assert_eq!(written.len(), 1);
    assert_eq!(written[0]["slave"].to_string(), "tars/framework:2");
    assert_eq!(written[0].keys().collect::<Vec<_>>(), ["framework", "node", "slave"]);
}

#[tokio::test(start_paused = true)]
async fn failed_gate_rolls_back_to_where_it_began_and_shows_the_logs() {
    let desired = desired();
    let engine = running(&desired).await;
    let machine = Machine::new();
    let before = engine.dump();
    engine.behave("tars/framework:2", Behaviour { healthy_after: None, ..Behaviour::default() });
    let failure = roll(&engine, &machine, &desired, &id(2), &to_2(&desired)).await.unwrap_err();
    assert_eq!(failure.exit(), Exit::RolledBack);
    let text = failure.to_string();
    assert!(text.contains("`tars-slave` is not proven: it was not healthy within 20 s"), "{text}");
    assert!(text.contains("\n    | started"), "{text}");
    assert!(text.contains("note: the schema of the database is not rolled back"), "{text}");
    assert_eq!(without_failed(&engine.dump()), before);
    assert!(engine.dump().contains(&format!("container tars-slave.failed.{} exited restart=no", id(2))));
    assert!(machine.written.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn death_in_the_dwell_of_the_master_takes_the_slave_back_too() {
    let desired = desired();
    let engine = running(&desired).await;
    let before = engine.dump();
    let machine = Machine::new();
    // The name decides: the old master must not die when it is back.
    let dying = Behaviour { dies: Some((Duration::from_millis(1500), 139)), ..Behaviour::default() };
    engine.behave("tars/framework:2", Behaviour::default());
    let deploy = deploy(&engine, &machine, &desired);
    let offer = deploy.offer(&request(&id(2), &to_2(&desired))).await.unwrap();
    let rolled = async {
        engine.behave_named("tars-slave", Behaviour::default());
        engine.behave("tars/framework:2", dying);
        deploy.roll(&offer).await
    };
    let failure = rolled.await.unwrap_err();
    assert!(failure.to_string().contains("`tars-framework` is not proven: it exited with 139"), "{failure}");
    assert_eq!(without_failed(&engine.dump()), before);
}

#[tokio::test(start_paused = true)]
async fn way_back_that_fails_too_is_stuck_and_resumes_later() {
    let desired = desired();
    let engine = running(&desired).await;
    let before = engine.dump();
    let machine = Machine::killed();
    engine.behave("tars/framework:2", Behaviour { healthy_after: None, ..Behaviour::default() });
    let busy = Fault::Answer(500, "port is already allocated".to_owned());
    engine.fault(Call::Every("rename tars-slave tars-slave.failed".to_owned()), Moment::Before, busy);
    let failure = roll(&engine, &machine, &desired, &id(2), &to_2(&desired)).await.unwrap_err();
    assert_eq!(failure.exit(), Exit::Interrupted);
    assert!(failure.to_string().contains("stuck"), "{failure}");
    engine.clear_faults();
    let refused = roll(&engine, &Machine::new(), &desired, &id(3), &Intent::Up).await.unwrap_err();
    assert_eq!(refused.exit(), Exit::Interrupted, "{refused}");
    let resumed = resume(&engine, &Machine::new(), &desired, false).await.unwrap();
    assert!(matches!(resumed, Resumed::Undone(_)), "{resumed:?}");
    assert_eq!(without_failed(&engine.dump()), before);
}

#[tokio::test(start_paused = true)]
async fn failed_migration_touches_no_service() {
    let desired = desired();
    let engine = running(&desired).await;
    let before = engine.dump();
    engine.behave("tars/framework:2", Behaviour { migrate_exit: 70, ..Behaviour::default() });
    let failure = roll(&engine, &Machine::new(), &desired, &id(2), &to_2(&desired)).await.unwrap_err();
    assert!(failure.to_string().contains("exited with 70"), "{failure}");
    assert_eq!(engine.dump(), before);
}

#[tokio::test(start_paused = true)]
async fn first_up_that_fails_leaves_nothing_running() {
    let desired = desired();
    let engine = engine();
    engine.behave("tars/framework:1", Behaviour { dies: Some((Duration::ZERO, 69)), ..Behaviour::default() });
    let failure = roll(&engine, &Machine::new(), &desired, &id(1), &Intent::Up).await.unwrap_err();
    assert_eq!(failure.exit(), Exit::RolledBack);
    let dump = engine.dump();
    assert!(!dump.contains(" running "), "{dump}");
    assert!(dump.contains("volume tars_mysql"), "{dump}");
    engine.behave("tars/framework:1", Behaviour::default());
    roll(&engine, &Machine::new(), &desired, &id(2), &Intent::Up).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn rollback_brings_the_parked_ones_back_and_forth() {
    let desired = desired();
    let engine = running(&desired).await;
    let machine = Machine::new();
    roll(&engine, &machine, &desired, &id(2), &to_2(&desired)).await.unwrap();
    let mut at_2 = desired.clone();
    for name in ["framework", "slave", "node"] {
        edit(&mut at_2, name, |service| service.image = service.image.with_tag("2"));
    }
    let back = rollback(&engine, &at_2, None).await;
    roll(&engine, &machine, &at_2, &id(3), &back).await.unwrap();
    let dump = engine.dump();
    assert!(dump.contains("container tars-slave running restart=always image=tars/framework:1"), "{dump}");
    assert!(dump.contains(&format!("container tars-slave.old.{} exited restart=no", id(3))), "{dump}");
    assert_eq!(machine.written.lock().unwrap()[1]["node"].to_string(), "tars/node:1");
    let forth = rollback(&engine, &desired, Some(id(2))).await;
    roll(&engine, &machine, &desired, &id(4), &forth).await.unwrap();
    assert!(engine.dump().contains("container tars-slave running restart=always image=tars/framework:2"));
    // A rollback that fails ends where it began, too.
    let before = engine.dump();
    engine.behave("tars/framework:1", Behaviour { healthy_after: None, ..Behaviour::default() });
    let back = rollback(&engine, &at_2, Some(id(1))).await;
    let failure = roll(&engine, &machine, &at_2, &id(5), &back).await.unwrap_err();
    assert_eq!(failure.exit(), Exit::RolledBack, "{failure}");
    assert_eq!(engine.dump(), before);
}

pub async fn rollback(engine: &FakeEngine, desired: &Desired, to: Option<DeployId>) -> Intent {
    let observed = observe(engine, desired).await.unwrap();
    let targets = tarsup::upgrade::rollback::targets(desired, &observed, to.as_ref()).unwrap();
    Intent::Rollback { to, targets }
}

#[tokio::test(start_paused = true)]
async fn rollback_without_parked_containers_is_refused() {
    let desired = desired();
    let engine = running(&desired).await;
    let observed = observe(&engine, &desired).await.unwrap();
    let refusal = tarsup::upgrade::rollback::targets(&desired, &observed, None).unwrap_err();
    assert!(matches!(refusal, Refusal::ParkedGone { .. }), "{refusal}");
}

#[tokio::test(start_paused = true)]
async fn down_parks_all_but_the_database_and_up_brings_it_back() {
    let desired = desired();
    let engine = running(&desired).await;
    let before = engine.dump();
    roll(&engine, &Machine::new(), &desired, &id(2), &Intent::Down { all: false }).await.unwrap();
    let dump = engine.dump();
    assert!(dump.contains("tars-mysql running") && dump.contains("tars-slave exited restart=no"), "{dump}");
    engine.reboot();
    assert!(engine.dump().contains("tars-slave exited"));
    roll(&engine, &Machine::new(), &desired, &id(3), &Intent::Up).await.unwrap();
    assert_eq!(engine.dump(), before);
}

#[tokio::test(start_paused = true)]
async fn restart_keeps_the_containers_and_goes_slave_master_node() {
    let desired = desired();
    let engine = running(&desired).await;
    let before = engine.dump();
    let calls = engine.calls().len();
    let all = Intent::Restart { services: Vec::new(), ask_with: None };
    roll(&engine, &Machine::new(), &desired, &id(2), &all).await.unwrap();
    assert_eq!(engine.dump(), before);
    let moved: Vec<String> = engine.calls()[calls..]
        .iter()
        .filter(|call| call.starts_with("start ") || call.starts_with("stop "))
        .filter(|call| !asks(call))
        .cloned()
        .collect();
    assert_eq!(
        moved,
        [
            "stop tars-slave",
            "start tars-slave",
            "stop tars-framework",
            "start tars-framework",
            "stop tars-node",
            "start tars-node",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn live_owner_keeps_everybody_else_out_and_is_named() {
    let desired = desired();
    let engine = running(&desired).await;
    let (first, second) = (Machine::new(), Machine::new());
    engine.fault(Call::First("stop tars-slave".to_owned()), Moment::Before, Fault::Crash);
    until_it_hangs(&engine, &first, &desired).await;
    let failure =
        roll(&engine, &second, &desired, &id(3), &Intent::Restart { services: vec![], ask_with: None }).await;
    let failure = failure.unwrap_err();
    assert_eq!(failure.exit(), Exit::Held);
    assert!(failure.to_string().contains("ann@here (pid"), "{failure}");
    let failure = resume(&engine, &second, &desired, false).await.unwrap_err();
    assert_eq!(failure.exit(), Exit::Held);
}

#[tokio::test(start_paused = true)]
async fn owner_on_another_host_is_taken_over_only_after_its_lease_and_a_word() {
    let desired = desired();
    let engine = running(&desired).await;
    let elsewhere = Owner { boot: "other".to_owned(), machine: "other".to_owned(), ..Owner::current() };
    let far = Machine { owner: elsewhere, ..Machine::new() };
    engine.fault(Call::First("stop tars-slave".to_owned()), Moment::Before, Fault::Crash);
    until_it_hangs(&engine, &far, &desired).await;
    let here = Machine::new();
    assert_eq!(resume(&engine, &here, &desired, false).await.unwrap_err().exit(), Exit::Held);
    let later = Machine { now: here.now + Duration::from_mins(2), ..here };
    assert_eq!(resume(&engine, &later, &desired, false).await.unwrap_err().exit(), Exit::Refused);
    let resumed = deploy(&engine, &later, &desired).resume(&taking_over(true)).await.unwrap();
    assert!(matches!(resumed, Resumed::Undone(_)), "{resumed:?}");
}

#[tokio::test(start_paused = true)]
async fn told_to_stop_leaves_the_lock_and_resumes() {
    let desired = desired();
    let engine = running(&desired).await;
    let before = engine.dump();
    let machine = Machine::killed();
    let (tell, stop) = watch::channel(false);
    let deploy = Deploy { stop, ..deploy(&engine, &machine, &desired) };
    let offer = deploy.offer(&request(&id(2), &to_2(&desired))).await.unwrap();
    engine.behave("tars/framework:2", Behaviour { healthy_after: None, ..Behaviour::default() });
    let told = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        tell.send(true).unwrap();
        std::future::pending::<()>().await;
    };
    let failure = tokio::select! {
        done = deploy.roll(&offer) => done.unwrap_err(),
        () = told => panic!("it did not stop"),
    };
    assert_eq!(failure.exit(), Exit::Interrupted);
    assert!(engine.inspect_container("tars.lock").await.unwrap().is_some());
    resume(&engine, &Machine::new(), &desired, false).await.unwrap();
    assert_eq!(without_failed(&engine.dump()), before);
}

#[tokio::test(start_paused = true)]
async fn nothing_that_tarsup_leaves_behind_tells_a_secret() {
    let desired = desired();
    let engine = running(&desired).await;
    let machine = Machine::killed();
    engine.fault(Call::First("start tars-framework".to_owned()), Moment::After, Fault::Crash);
    until_it_hangs(&engine, &machine, &desired).await;
    let lock = engine.inspect_container("tars.lock").await.unwrap().unwrap();
    let record = engine.get_archive(&lock.id, "/tarsup").await.unwrap().unwrap();
    let record = String::from_utf8_lossy(&record).into_owned();
    assert!(record.contains("tars-slave"), "the record is there");
    let journal = serde_json::to_string(&machine.lines()).unwrap();
    let said = machine.said.lock().unwrap().join("\n");
    for text in [record, journal, said, serde_json::to_string(&lock.labels).unwrap()] {
        assert!(!text.contains("s3cret"), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn parked_containers_beyond_the_number_to_keep_are_removed_and_no_volume() {
    let desired = desired();
    let engine = running(&desired).await;
    let mut now = desired.clone();
    for n in 2..=5u8 {
        let tag = if n % 2 == 0 { "2" } else { "1" };
        roll(&engine, &Machine::new(), &now, &id(n), &Intent::upgrade(&now, Some(tag))).await.unwrap();
        for name in ["framework", "slave", "node"] {
            edit(&mut now, name, |service| service.image = service.image.with_tag(tag));
        }
    }
    let dump = engine.dump();
    let parked: Vec<&str> =
        dump.lines().filter(|line| line.starts_with("container tars-slave.old.")).collect();
    assert_eq!(parked.len(), 2, "{dump}");
    assert!(parked[0].contains(id(4).as_str()) && parked[1].contains(id(5).as_str()), "{dump}");
    assert_eq!(dump.matches("volume ").count(), 4);
}

/// The engine's state without what a deploy gave up.
pub fn without_failed(dump: &str) -> String {
    dump.lines()
        .filter(|line| !line.contains(".failed."))
        .fold(String::new(), |text, line| text + line + "\n")
}

/// Upgrades until the engine crashes.
pub async fn until_it_hangs(engine: &FakeEngine, machine: &Machine, desired: &Desired) {
    let (id, intent) = (id(2), to_2(desired));
    tokio::select! {
        done = roll(engine, machine, desired, &id, &intent) => panic!("it was to hang: {done:?}"),
        () = engine.crashed() => {}
    }
}

#[tokio::test(start_paused = true)]
async fn lock_whose_volume_is_in_use_for_a_moment_is_given_free_all_the_same() {
    let desired = desired();
    let engine = engine();
    // Such as a hand that a renewal of the lease has made once more.
    let in_use = Fault::Answer(409, "volume is in use".to_owned());
    engine.fault(Call::First("remove volume tars.lock".to_owned()), Moment::Before, in_use);
    roll(&engine, &Machine::new(), &desired, &id(1), &Intent::Up).await.unwrap();
    assert!(engine.inspect_volume("tars.lock").await.unwrap().is_none());
    assert!(engine.inspect_container("tars.lock").await.unwrap().is_none());

    // Where it stays in use, nobody is told that all is well.
    let in_use = Fault::Answer(409, "volume is in use".to_owned());
    engine.fault(Call::Every("remove volume tars.lock".to_owned()), Moment::Before, in_use);
    let failure = roll(&engine, &Machine::new(), &desired, &id(2), &to_2(&desired)).await.unwrap_err();
    assert!(failure.to_string().contains("its lock cannot be removed"), "{failure}");
}
