//! A backup precedes what changes the database as a whole, and nothing else.

use super::*;
use crate::fake::{Behaviour, Call, Fault, Moment, Tools};
use std::sync::atomic::Ordering;
use tarsup::diagnose::{Diagnose as _, Exit};
use tarsup::upgrade::backup::Place;
use tarsup::upgrade::backup::restore::{Opened, RestoreError};
use tarsup::upgrade::backup::shelf::Saved;
use tarsup::upgrade::journal::{DeployState, Event, summarise};
use tarsup::upgrade::step::Action;

const DATABASE: &str = "mariadb:10.11";

fn with(tools: Tools) -> Behaviour {
    Behaviour { tools, ..Behaviour::default() }
}

/// The calls that stop or make something of the deployment.
fn acts(engine: &FakeEngine) -> Vec<String> {
    let acts = ["stop tars-", "rename ", "create tars-", "create tars.migrate", "start tars-"];
    engine.calls().into_iter().filter(|call| acts.iter().any(|act| call.starts_with(act))).collect()
}

async fn offered(
    engine: &FakeEngine,
    desired: &Desired,
    intent: &Intent,
) -> Result<tarsup::upgrade::Offer, DeployFailure> {
    deploy(engine, &Machine::new(), desired).offer(&request(&id(2), intent)).await
}

#[tokio::test(start_paused = true)]
async fn upgrade_saves_the_database_before_it_migrates_and_before_anything_is_stopped() {
    let desired = desired();
    let engine = running(&desired).await;
    let machine = Machine::new();
    let begun = engine.calls().len();
    let plan = roll(&engine, &machine, &desired, &id(2), &to_2(&desired)).await.unwrap();
    assert!(
        matches!(&plan.steps[0].action, Action::Backup { container: Some(name), .. } if name == "tars-mysql")
    );
    assert!(
        plan.notes
            .iter()
            .any(|note| note.starts_with("the backup saves db_tars, tarsup (3 tables, about 6 kB)")),
        "{:#?}",
        plan.notes
    );
    let calls = &engine.calls()[begun..];
    let at = |begins: &str| calls.iter().position(|call| call.starts_with(begins)).expect(begins);
    assert!(at("exec tars-mysql tools dump") < at("create tars.migrate"));
    assert!(at("exec tars-mysql tools dump") < at("stop tars-"));
    // It is on the record, with what is needed to find and check it.
    let backups = machine.backups.lock().unwrap().clone();
    let (name, text) = backups.first_key_value().unwrap();
    assert_eq!(name, &format!("tars-{}.sql.gz", id(2)));
    assert!(
        text.starts_with("-- tarsup backup: {")
            && text.ends_with("-- Dump completed on 2026-01-02  3:04:05\n")
    );
    let lines = machine.lines();
    let taken = lines.iter().find_map(|line| match &line.event {
        Event::Recorded { record } => record.backup.taken.clone(),
        _ => None,
    });
    assert_eq!(taken.unwrap()["file"], name.as_str());
    let header = machine.journals.lock().unwrap()[&id(2)].0.clone();
    assert_eq!(summarise(header, &lines).backup.unwrap(), format!(".tarsup/backups/{name}"));
}

#[tokio::test(start_paused = true)]
async fn password_goes_over_standard_input_and_nowhere_else() {
    let desired = desired();
    let engine = running(&desired).await;
    let machine = Machine::new();
    roll(&engine, &machine, &desired, &id(2), &to_2(&desired)).await.unwrap();
    let heard = engine.tools_heard();
    assert!(heard.iter().any(|(words, _)| words[0] == "dump"));
    for (words, input) in heard {
        assert!(input.starts_with("[client]\nuser=\"root\"\npassword=\"s3cret\"\n#end\n"), "{input}");
        assert!(!words.join(" ").contains("s3cret"), "{words:?}");
    }
    assert!(!engine.calls().join("\n").contains("s3cret"));
    assert!(!serde_json::to_string(&machine.lines()).unwrap().contains("s3cret"));
    assert!(!machine.said.lock().unwrap().join("\n").contains("s3cret"));
    assert!(machine.backups.lock().unwrap().values().all(|text| !text.contains("s3cret")));
}

#[tokio::test(start_paused = true)]
async fn what_does_not_migrate_saves_nothing() {
    let desired = desired();
    let engine = running(&desired).await;
    let mut nodes = desired.clone();
    edit(&mut nodes, "node", |node| node.image = "tars/node:2".parse().unwrap());
    let machine = Machine::new();
    for (n, desired, intent) in [
        (3, &desired, Intent::Restart { services: Vec::new(), ask_with: None }),
        (4, &nodes, Intent::Up),
        (5, &nodes, Intent::Down { all: true }),
        (6, &nodes, Intent::Up),
    ] {
        let plan = planned(&engine, desired, n, &intent).await.unwrap();
        assert!(!plan.steps.iter().any(|step| matches!(step.action, Action::Backup { .. })), "{intent:?}");
        roll(&engine, &machine, desired, &id(n), &intent).await.unwrap();
    }
    assert!(engine.tools_heard().is_empty());
}

#[tokio::test(start_paused = true)]
async fn rollback_restores_no_backup_and_says_what_stays() {
    let desired = desired();
    let engine = running(&desired).await;
    let machine = Machine::new();
    roll(&engine, &machine, &desired, &id(2), &to_2(&desired)).await.unwrap();
    assert_eq!(machine.backups.lock().unwrap().len(), 1);
    let back = Intent::Rollback { to: None, targets: BTreeMap::new() };
    let plan = roll(&engine, &machine, &to_2(&desired).apply(&desired), &id(3), &back).await.unwrap();
    let stays = "the schema of the database is not rolled back; migrations only add";
    assert!(plan.notes.iter().any(|note| note == stays), "{:#?}", plan.notes);
    assert!(engine.tools_heard().iter().all(|(words, _)| words[0] != "restore"));
}

#[tokio::test(start_paused = true)]
async fn backup_precedes_the_end_of_a_migration_too() {
    let mut desired = desired();
    let engine = running(&desired).await;
    desired.policy.keep_parked = 1;
    let plan = planned(&engine, &desired, 3, &Intent::Finish).await.unwrap();
    assert!(matches!(plan.steps[0].action, Action::Backup { .. }), "{:#?}", plan.steps);
    assert_eq!(plan.steps[0].cause, "a backup precedes the end of the migration");
    let machine = Machine::new();
    roll(&engine, &machine, &desired, &id(3), &Intent::Finish).await.unwrap();
    assert_eq!(machine.backups.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn deploy_without_a_way_to_save_the_database_is_refused_until_the_operator_says_otherwise() {
    // The database is somewhere else.
    let mut desired = desired();
    desired.services.remove(0);
    let engine = engine();
    roll(&engine, &Machine::new(), &desired, &id(1), &Intent::Up).await.unwrap();
    let begun = engine.calls().len();
    let failure = offered(&engine, &desired, &to_2(&desired)).await.unwrap_err();
    assert_eq!(failure.exit(), Exit::Refused);
    assert!(failure.to_string().contains("no image with them is named"), "{failure}");
    let hint = failure.hint().unwrap();
    assert!(hint.contains("backup: {image:") && hint.contains("--no-backup"), "{hint}");
    // An image that is named must be there.
    let mut named = desired.clone();
    named.policy.backup.image = Some("mariadb:11".parse().unwrap());
    edit(&mut named, "framework", |master| {
        edit_body(master, |body| {
            body["Env"].as_array_mut().unwrap().push(json!("MYSQL_HOST=10.9.9.9"));
        });
    });
    edit(&mut desired, "framework", |master| {
        edit_body(master, |body| {
            body["Env"].as_array_mut().unwrap().push(json!("MYSQL_HOST=10.9.9.9"));
        });
    });
    let failure = offered(&engine, &named, &to_2(&named)).await.unwrap_err();
    assert!(failure.to_string().contains("mariadb:11 for it is not on the engine"), "{failure}");
    assert_eq!(failure.exit(), Exit::Refused);
    assert!(acts(&engine).len() == acts(&engine).len() && engine.calls().len() > begun);
    // Once it is, a container of it is made, asked and removed.
    engine.add_image("mariadb:11", "mariadb 11", &[]);
    let machine = Machine::new();
    let plan = roll(&engine, &machine, &named, &id(2), &to_2(&named)).await.unwrap();
    assert!(
        matches!(&plan.steps[0].action, Action::Backup { image: Some(image), .. } if image.to_string() == "mariadb:11")
    );
    assert_eq!(machine.backups.lock().unwrap().len(), 1);
    let helper = format!("create tars.backup.{}", id(2));
    assert!(engine.calls().contains(&helper), "{:#?}", engine.calls());
    assert!(!engine.dump().contains("tars.backup"), "nothing of it stays");
    let (_, input) = engine.tools_heard().pop().unwrap();
    assert!(input.contains("host=\"10.9.9.9\"\n"), "{input}");
}

#[tokio::test(start_paused = true)]
async fn word_of_the_operator_is_on_the_record_and_survives_a_resume() {
    let mut desired = desired();
    desired.services.remove(0);
    let engine = engine();
    roll(&engine, &Machine::new(), &desired, &id(1), &Intent::Up).await.unwrap();
    let asked = Request { backup: BackupWay::None, ..request(&id(2), &to_2(&desired)) };
    let machine = Machine::killed();
    let command = deploy(&engine, &machine, &desired);
    let offer = command.offer(&asked).await.unwrap();
    assert!(offer.plan.notes.contains(&"no backup precedes the migration: --no-backup".to_owned()));
    engine.fault(Call::First("create tars.migrate".to_owned()), Moment::Before, Fault::Crash);
    tokio::select! {
        _ = command.roll(&offer) => panic!("it was to be killed"),
        () = engine.crashed() => {}
    }
    engine.clear_faults();
    let recorded = machine.lines().into_iter().find_map(|line| match line.event {
        Event::Recorded { record } => Some(record.backup.way),
        _ => None,
    });
    assert_eq!(recorded, Some(BackupWay::None));
    assert!(matches!(resume(&engine, &machine.next(), &desired, true).await.unwrap(), Resumed::Completed(_)));
    assert!(engine.tools_heard().is_empty());
}

#[tokio::test(start_paused = true)]
async fn word_of_the_operator_may_come_with_the_resume_and_is_on_the_record_from_then_on() {
    let desired = desired();
    let engine = running(&desired).await;
    let machine = Machine::killed();
    let command = deploy(&engine, &machine, &desired);
    let offer = command.offer(&request(&id(2), &to_2(&desired))).await.unwrap();
    engine.fault(Call::First("exec tars-mysql tools dump".to_owned()), Moment::Before, Fault::Crash);
    tokio::select! {
        _ = command.roll(&offer) => panic!("it was to be killed"),
        () = engine.crashed() => {}
    }
    engine.clear_faults();
    engine.behave(DATABASE, with(Tools { are_there: false, ..Tools::default() }));
    let next = machine.next();
    let options = ResumeOptions { forward: true, no_backup: true, ..ResumeOptions::default() };
    let rest = deploy(&engine, &next, &desired).preview(&options).await.unwrap().unwrap();
    assert!(rest.notes.contains(&"no backup precedes the migration: --no-backup".to_owned()), "{rest:?}");
    assert!(!rest.steps.iter().any(|step| matches!(step.action, Action::Backup { .. })), "{rest:?}");
    // Cut off once more: whoever goes on then need not say it again.
    engine.fault(Call::First("create tars.migrate".to_owned()), Moment::Before, Fault::Crash);
    let again = machine.next_killed();
    let command = deploy(&engine, &again, &desired);
    tokio::select! {
        _ = command.resume(&options) => panic!("it was to be killed"),
        () = engine.crashed() => {}
    }
    engine.clear_faults();
    let last = again.next();
    assert!(matches!(resume(&engine, &last, &desired, true).await.unwrap(), Resumed::Completed(_)));
    assert!(last.backups.lock().unwrap().is_empty());
    let mut recorded = last.lines().into_iter().filter_map(|line| match line.event {
        Event::Recorded { record } => Some((record.backup.way, record.what)),
        _ => None,
    });
    let (way, what) = recorded.next_back().unwrap();
    assert_eq!(way, BackupWay::None);
    assert!(what.ends_with(" --no-backup"), "{what}");
}

#[tokio::test(start_paused = true)]
async fn database_whose_container_has_no_tools_is_saved_from_the_image_that_is_named() {
    let mut desired = desired();
    let engine = running(&desired).await;
    engine.behave(DATABASE, with(Tools { are_there: false, ..Tools::default() }));
    let failure = offered(&engine, &desired, &to_2(&desired)).await.unwrap_err();
    assert_eq!(failure.exit(), Exit::Refused);
    assert!(
        failure.to_string().contains("`tars-mysql` has no tool of the database's: there is no mariadb"),
        "{failure}"
    );
    engine.add_image("mariadb:11", "mariadb 11", &[]);
    desired.policy.backup.image = Some("mariadb:11".parse().unwrap());
    edit(&mut desired, "framework", |master| {
        edit_body(master, |body| {
            body["Env"].as_array_mut().unwrap().push(json!("MYSQL_HOST=172.25.0.2"));
        });
    });
    let machine = Machine::new();
    let plan = roll(&engine, &machine, &desired, &id(2), &to_2(&desired)).await.unwrap();
    assert!(matches!(plan.steps[0].action, Action::Backup { container: None, .. }));
    assert_eq!(machine.backups.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn backup_that_cannot_be_made_is_refused_before_anything_begins() {
    let desired = desired();
    let engine = running(&desired).await;
    let denied = "ERROR 1045 (28000): Access denied for user 'root'@'localhost' (using password: YES)\n";
    let machine = Machine::new();
    let before = engine.dump();
    engine.behave(DATABASE, with(Tools { asked: (denied.to_owned(), 1), ..Tools::default() }));
    let failure =
        deploy(&engine, &machine, &desired).offer(&request(&id(2), &to_2(&desired))).await.unwrap_err();
    assert_eq!(failure.exit(), Exit::Refused);
    assert!(failure.to_string().contains("Access denied for user 'root'@'localhost'"), "{failure}");
    assert!(failure.hint().unwrap().contains("the password that the deployment declares"));
    // No room for it.
    engine.behave(DATABASE, Behaviour::default());
    *machine.room.lock().unwrap() = 1_000_000;
    let failure =
        deploy(&engine, &machine, &desired).offer(&request(&id(2), &to_2(&desired))).await.unwrap_err();
    assert_eq!(failure.exit(), Exit::Refused);
    assert!(
        failure.to_string().contains(".tarsup/backups has room for 1 MB, and it may take 16 MB"),
        "{failure}"
    );
    assert!(failure.hint().unwrap().starts_with("make room"));
    assert_eq!(engine.dump(), before);
    // Without a table there is nothing to save, and no room is needed.
    let answer = "server\t10.11\t0\t0\t0\nschema\tdb_tars\t0\t0\t0\n".to_owned();
    engine.behave(DATABASE, with(Tools { answer, ..Tools::default() }));
    let plan = roll(&engine, &machine, &desired, &id(2), &to_2(&desired)).await.unwrap();
    assert!(plan.notes.contains(&"the database holds no table: there is nothing to back up".to_owned()));
    assert!(machine.backups.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn statistics_are_saved_where_the_policy_says_so_and_else_left_out() {
    for statistics in [false, true] {
        let mut desired = desired();
        desired.policy.backup.statistics = statistics;
        let engine = running(&desired).await;
        let answer = "server\t10.11\t0\t0\t0\nschema\tdb_tars\t2\t4096\t0\nschema\ttars_stat\t9\t9000\t0\n";
        engine.behave(DATABASE, with(Tools { answer: answer.to_owned(), ..Tools::default() }));
        let machine = Machine::new();
        let plan = roll(&engine, &machine, &desired, &id(2), &to_2(&desired)).await.unwrap();
        let saves =
            if statistics { "saves db_tars, tars_stat (11 tables" } else { "saves db_tars (2 tables" };
        assert!(plan.notes.iter().any(|note| note.contains(saves)), "{:#?}", plan.notes);
        // What is left out stands in the file, for whoever restores it.
        let text = machine.backups.lock().unwrap().first_key_value().unwrap().1.clone();
        let header = text.lines().next().unwrap();
        let left_out = json!(if statistics { vec![] } else { vec!["tars_property", "tars_stat"] });
        let header: Value = serde_json::from_str(header.strip_prefix("-- tarsup backup: ").unwrap()).unwrap();
        assert_eq!(header["left_out"], left_out, "{header}");
    }
}

#[tokio::test(start_paused = true)]
async fn backup_that_fails_ends_the_deploy_before_anything_is_stopped() {
    let desired = desired();
    let lost = "mariadb-dump: Error 2013: Lost connection to server during query when dumping table `t`";
    let cases: [(Tools, bool, &str); 5] = [
        (
            Tools { end: (lost.to_owned(), 3), ..Tools::default() },
            false,
            "ended with 3: mariadb-dump: Error 2013",
        ),
        (Tools { breaks: true, ..Tools::default() }, false, "connection reset by peer"),
        (Tools { dump: "CREATE TABLE t (a int);\n".to_owned(), ..Tools::default() }, false, "it is cut off"),
        (Tools::default(), true, "cannot be written to .tarsup/backups: no space left on device"),
        (
            Tools { end: ("mariadb-dump: Got error: 1045: Access denied".to_owned(), 2), ..Tools::default() },
            false,
            "ended with 2: mariadb-dump: Got error: 1045: Access denied",
        ),
    ];
    for (tools, is_full, words) in cases {
        let engine = running(&desired).await;
        engine.behave(DATABASE, with(tools));
        let (machine, before) = (Machine::new(), engine.dump());
        let acts_before = acts(&engine).len();
        machine.no_room_for_backups.store(is_full, Ordering::Relaxed);
        let failure = roll(&engine, &machine, &desired, &id(2), &to_2(&desired)).await.unwrap_err();
        assert_eq!(failure.exit(), Exit::Failed, "{failure}");
        assert!(
            failure.to_string().contains("the backup failed: ") && failure.to_string().contains(words),
            "{failure}"
        );
        assert!(failure.hint().is_some(), "{failure}");
        assert_eq!(engine.dump(), before, "{words}");
        assert_eq!(acts(&engine).len(), acts_before, "{words}: something was stopped or made");
        assert!(machine.backups.lock().unwrap().is_empty(), "{words}: half a file");
        let (header, lines) = machine.journals.lock().unwrap()[&id(2)].clone();
        let summary = summarise(header, &lines);
        assert_eq!(summary.state, DeployState::RolledBack);
        assert!(summary.error.unwrap().contains("the backup failed"));
        // The deployment is free again.
        engine.behave(DATABASE, Behaviour::default());
        machine.no_room_for_backups.store(false, Ordering::Relaxed);
        roll(&engine, &machine, &desired, &id(3), &to_2(&desired)).await.unwrap();
        assert_eq!(machine.backups.lock().unwrap().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn table_that_somebody_changes_meanwhile_is_saved_by_another_try() {
    let desired = desired();
    for (disturbed, saves) in [(1, true), (2, true), (3, false)] {
        let engine = running(&desired).await;
        engine.behave(DATABASE, with(Tools { disturbed: Arc::new(disturbed.into()), ..Tools::default() }));
        let machine = Machine::new();
        let rolled = roll(&engine, &machine, &desired, &id(2), &to_2(&desired)).await;
        assert_eq!(rolled.is_ok(), saves, "{disturbed}: {rolled:?}");
        assert_eq!(machine.backups.lock().unwrap().len(), usize::from(saves), "{disturbed}");
        let again = machine.said.lock().unwrap().iter().filter(|line| line.contains("once more")).count();
        assert_eq!(again, disturbed.min(2), "{disturbed}");
    }
}

#[tokio::test(start_paused = true)]
async fn backup_that_fails_on_the_way_on_leads_back() {
    let desired = desired();
    let engine = running(&desired).await;
    let (machine, before) = (Machine::killed(), engine.dump());
    let command = deploy(&engine, &machine, &desired);
    let offer = command.offer(&request(&id(2), &to_2(&desired))).await.unwrap();
    engine.fault(Call::First("start tars.migrate".to_owned()), Moment::Before, Fault::Crash);
    tokio::select! {
        _ = command.roll(&offer) => panic!("it was to be killed"),
        () = engine.crashed() => {}
    }
    engine.clear_faults();
    engine.behave(DATABASE, with(Tools { end: (String::new(), 1), ..Tools::default() }));
    let failure = resume(&engine, &machine.next(), &desired, true).await.unwrap_err();
    assert_eq!(failure.exit(), Exit::RolledBack, "{failure}");
    assert_eq!(engine.dump(), before, "the container of the migration is gone");
}

#[tokio::test(start_paused = true)]
async fn backup_of_a_run_that_is_told_to_stop_is_no_file_and_is_resumed() {
    let desired = desired();
    let engine = running(&desired).await;
    engine.behave(DATABASE, with(Tools { hangs: true, ..Tools::default() }));
    let (machine, before) = (Machine::killed(), engine.dump());
    let (tell, stop) = watch::channel(false);
    let command = Deploy { stop, ..deploy(&engine, &machine, &desired) };
    let offer = command.offer(&request(&id(2), &to_2(&desired))).await.unwrap();
    let told = async {
        while !engine.calls().iter().any(|call| call == "exec tars-mysql tools dump") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tell.send(true).unwrap();
        std::future::pending::<()>().await;
    };
    let failure = tokio::select! {
        rolled = command.roll(&offer) => rolled.unwrap_err(),
        () = told => unreachable!(),
    };
    assert_eq!(failure.exit(), Exit::Interrupted, "{failure}");
    assert!(machine.backups.lock().unwrap().is_empty());
    engine.behave(DATABASE, Behaviour::default());
    let after = machine.next();
    assert!(matches!(resume(&engine, &after, &desired, false).await.unwrap(), Resumed::Undone(_)));
    assert_eq!(engine.dump(), before);
}

/// A backup on disk of what the fake's tools dump, as `tarsup backup` would leave it.
fn saved(folder: &std::path::Path, text: &str) -> std::path::PathBuf {
    use std::io::Write as _;
    let header = Header {
        version: 1,
        deployment: "tars".to_owned(),
        id: id(1),
        at: "2026-01-02T03:04:05Z".to_owned(),
        by: "ann@here".to_owned(),
        what: "backup".to_owned(),
        server: "10.11".to_owned(),
        schemas: vec![Saved { name: "db_tars".to_owned(), tables: 2 }],
        left_out: Vec::new(),
    };
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(format!("{}{text}", header.line()).as_bytes()).unwrap();
    let (path, bytes) = (folder.join(header.file_name()), out.finish().unwrap());
    std::fs::write(&path, &bytes).unwrap();
    let digest = tarsup::oci::Digest::of(&bytes).hex();
    std::fs::write(format!("{}.sha256", path.display()), format!("{digest}  x\n")).unwrap();
    path
}

const SQL: &str = "CREATE TABLE t (a int);\nINSERT INTO t VALUES (1);\n-- Dump completed\n";

async fn restored(
    engine: &FakeEngine,
    machine: &Machine,
    desired: &Desired,
    path: &std::path::Path,
    over: &[&str],
) -> Result<Vec<String>, RestoreError> {
    let opened = Opened::open(path)?;
    let over: Vec<String> = over.iter().map(|&name| name.to_owned()).collect();
    let place = Place::of(desired).unwrap();
    deploy(engine, machine, desired).restore(&id(9), "restore x", &opened, &place, &over).await
}

#[tokio::test(start_paused = true)]
async fn restore_waits_for_a_framework_that_is_down_and_for_each_name_of_what_it_replaces() {
    let folder = tempfile::tempdir().unwrap();
    let path = saved(folder.path(), SQL);
    let desired = desired();
    let engine = running(&desired).await;
    let machine = Machine::new();
    let sent = |engine: &FakeEngine| {
        engine.tools_heard().into_iter().filter(|(words, _)| words[0] == "restore").collect::<Vec<_>>()
    };
    let refused = restored(&engine, &machine, &desired, &path, &["db_tars"]).await.unwrap_err();
    assert_eq!(refused.exit(), Exit::Refused);
    assert_eq!(
        refused.to_string(),
        "`tars-framework`, `tars-node`, `tars-slave` of the deployment run on the database"
    );
    roll(&engine, &machine, &desired, &id(2), &Intent::Down { all: false }).await.unwrap();
    let refused = restored(&engine, &machine, &desired, &path, &[]).await.unwrap_err();
    assert_eq!((refused.exit(), sent(&engine).len()), (Exit::Refused, 0));
    assert!(refused.hint().unwrap().contains("--over db_tars"), "{refused}");
    let more = restored(&engine, &machine, &desired, &path, &["db_tars"]).await.unwrap();
    assert!(more.is_empty(), "{more:?}");
    let heard = sent(&engine);
    assert_eq!(heard.len(), 1);
    assert!(heard[0].1.ends_with(&format!("#end\n{SQL}")), "{}", heard[0].1);
    // It is in the history, and the deployment is free.
    let (header, lines) = machine.journals.lock().unwrap()[&id(9)].clone();
    assert_eq!(
        (header.what.as_str(), summarise(header.clone(), &lines).state),
        ("restore x", DeployState::Committed)
    );
    roll(&engine, &machine, &desired, &id(10), &Intent::Up).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn restore_that_fails_says_so_and_gives_the_deployment_free() {
    let folder = tempfile::tempdir().unwrap();
    let path = saved(folder.path(), SQL);
    let desired = desired();
    let engine = running(&desired).await;
    let machine = Machine::new();
    roll(&engine, &machine, &desired, &id(2), &Intent::Down { all: false }).await.unwrap();
    let said = "ERROR 1064 (42000) at line 7: You have an error in your SQL syntax".to_owned();
    engine.behave(DATABASE, with(Tools { end: (said, 1), ..Tools::default() }));
    let failed = restored(&engine, &machine, &desired, &path, &["db_tars"]).await.unwrap_err();
    assert_eq!(failed.exit(), Exit::Failed);
    assert!(failed.to_string().contains("ended with 1: ERROR 1064"), "{failed}");
    let (header, lines) = machine.journals.lock().unwrap()[&id(9)].clone();
    let summary = summarise(header, &lines);
    assert_eq!((summary.state, summary.error.is_some()), (DeployState::Open, true));
    // Fewer tables than were sent are no success.
    let answer = "server\t10.11\t0\t0\t0\nschema\tdb_tars\t1\t4096\t0\n".to_owned();
    engine.behave(DATABASE, with(Tools { answer, ..Tools::default() }));
    let failed = restored(&engine, &machine, &desired, &path, &["db_tars"]).await.unwrap_err();
    assert_eq!(failed.to_string(), "after it was sent db_tars has 1 tables, and 2 are in it");
    engine.behave(DATABASE, Behaviour::default());
    let plan = roll(&engine, &machine, &desired, &id(10), &Intent::Up).await.unwrap();
    assert!(!plan.is_empty());
}

#[tokio::test(start_paused = true)]
async fn restore_excludes_a_deploy_and_one_that_was_killed_is_given_free_by_a_resume() {
    let folder = tempfile::tempdir().unwrap();
    let path = saved(folder.path(), SQL);
    let desired = desired();
    let engine = running(&desired).await;
    let machine = Machine::new();
    roll(&engine, &machine, &desired, &id(2), &Intent::Down { all: false }).await.unwrap();
    let killed = machine.next_killed();
    engine.fault(Call::First("exec tars-mysql tools restore".to_owned()), Moment::After, Fault::Crash);
    tokio::select! {
        _ = restored(&engine, &killed, &desired, &path, &["db_tars"]) => panic!("it was to be killed"),
        () = engine.crashed() => {}
    }
    engine.clear_faults();
    let next = killed.next();
    let refused = restored(&engine, &next, &desired, &path, &["db_tars"]).await.unwrap_err();
    assert_eq!(refused.exit(), Exit::Interrupted, "{refused}");
    assert!(matches!(resume(&engine, &next, &desired, false).await.unwrap(), Resumed::Untouched(_)));
    restored(&engine, &next, &desired, &path, &["db_tars"]).await.unwrap();
}
