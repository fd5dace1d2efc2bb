//! What a plan says: its text for many observed states, and every refusal.
//!
//! The texts lie in `plans/`. `TARSUP_BLESS=1` writes them anew; look at the difference before you commit it.

use super::deploys::rollback;
use super::*;
use crate::fake::Behaviour;
use crate::fake::{Call, Fault, Moment};
use std::collections::BTreeSet;
use tarsup::deploy::desired::Setting;
use tarsup::diagnose::{Diagnose as _, Exit};
use tarsup::engine::CreateBody;
use tarsup::engine::Engine as _;
use tarsup::upgrade::record::DeployRecord;
use tarsup::upgrade::{render, unwind};

/// Compares a text with the one in `plans/<name>.txt`.
pub fn golden(name: &str, text: &str) {
    let path =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/it/rollout/plans/{name}.txt"));
    if std::env::var_os("TARSUP_BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(text == expected, "{} says\n{expected}\nand the plan is\n{text}", path.display());
}

async fn golden_plan(name: &str, engine: &FakeEngine, desired: &Desired, intent: &Intent) {
    let plan = planned(engine, desired, 9, intent).await.unwrap();
    golden(name, &render::plan(&plan));
}

#[tokio::test(start_paused = true)]
async fn plan_of_the_first_up() {
    golden_plan("first_up", &engine(), &desired(), &Intent::Up).await;
}

#[tokio::test(start_paused = true)]
async fn plan_of_a_converged_deployment() {
    let desired = desired();
    golden_plan("converged", &running(&desired).await, &desired, &Intent::Up).await;
}

#[tokio::test(start_paused = true)]
async fn plan_of_an_upgrade() {
    let desired = desired();
    golden_plan("upgrade", &running(&desired).await, &desired, &to_2(&desired)).await;
}

#[tokio::test(start_paused = true)]
async fn plan_of_an_upgrade_of_nodes_in_batches() {
    let mut desired = desired();
    for last in [6, 7] {
        desired.services.push(service(&format!("node{last}"), Some(Role::Node), "tars/node:1", last));
    }
    desired.policy.batch = Some(2);
    let engine = running(&desired).await;
    let intent = Intent::upgrade_image(&desired, &"tars/node:2".parse().unwrap());
    golden_plan("upgrade_nodes_in_batches", &engine, &desired, &intent).await;
}

#[tokio::test(start_paused = true)]
async fn plan_of_an_upgrade_without_a_slave() {
    let mut desired = desired();
    desired.services.retain(|service| service.role != Some(Role::Slave));
    golden_plan("upgrade_without_slave", &running(&desired).await, &desired, &to_2(&desired)).await;
}

#[tokio::test(start_paused = true)]
async fn plan_of_a_changed_environment_names_variables_and_no_values() {
    let mut desired = desired();
    let engine = running(&desired).await;
    edit(&mut desired, "slave", |service| {
        let entries = ["MYSQL_ROOT_PASSWORD=0ther", "DOMAIN=fw.tars", "SLAVE=true"];
        edit_body(service, |body| drop(body.insert("Env".to_owned(), json!(entries))));
    });
    let plan = planned(&engine, &desired, 9, &Intent::Up).await.unwrap();
    let text = render::plan(&plan) + &plan.document().to_string();
    assert!(!text.contains("0ther") && !text.contains("s3cret"), "{text}");
    golden("environment_differs", &render::plan(&plan));
}

#[tokio::test(start_paused = true)]
async fn plan_of_other_changes_names_their_keys() {
    let mut desired = desired();
    let engine = running(&desired).await;
    edit(&mut desired, "node", |service| {
        edit_body(service, |body| {
            body.insert("Hostname".to_owned(), json!("node-1"));
            body["HostConfig"]["PortBindings"] = json!({"19386/tcp": [{"HostPort": "19386"}]});
        });
        join(service, "tars_default", json!({}));
    });
    golden_plan("keys_differ", &engine, &desired, &Intent::Up).await;
}

#[tokio::test(start_paused = true)]
async fn plan_of_a_moved_tag_shows_both_ids() {
    let desired = desired();
    let engine = running(&desired).await;
    engine.add_image("tars/node:1", "node 1, built again", &[]);
    golden_plan("tag_moved", &engine, &desired, &Intent::Up).await;
}

#[tokio::test(start_paused = true)]
async fn plan_of_an_added_slave_and_node() {
    let mut desired = desired();
    let engine = running(&desired).await;
    desired.services.push(service("slave2", Some(Role::Slave), "tars/framework:1", 6));
    desired.services.push(service("node2", Some(Role::Node), "tars/node:1", 7));
    golden_plan("added", &engine, &desired, &Intent::Up).await;
}

#[tokio::test(start_paused = true)]
async fn plan_of_up_after_down() {
    let desired = desired();
    let engine = running(&desired).await;
    roll(&engine, &Machine::new(), &desired, &id(2), &Intent::Down { all: true }).await.unwrap();
    golden_plan("up_after_down", &engine, &desired, &Intent::Up).await;
}

#[tokio::test(start_paused = true)]
async fn plan_of_up_with_a_master_that_is_down_begins_with_it() {
    let desired = desired();
    let engine = running(&desired).await;
    engine.stop_container("tars-framework", Duration::ZERO).await.unwrap();
    let mut both = desired.clone();
    for name in ["framework", "slave"] {
        edit(&mut both, name, |service| service.image = service.image.with_tag("2"));
    }
    golden_plan("master_down", &engine, &both, &Intent::Up).await;
}

#[tokio::test(start_paused = true)]
async fn plan_leaves_a_database_that_differs_and_an_orphan_alone() {
    let mut desired = desired();
    let engine = running(&desired).await;
    engine.add_image("mariadb:11", "mariadb 11", &[]);
    edit(&mut desired, "mysql", |service| service.image = "mariadb:11".parse().unwrap());
    desired.services.retain(|service| service.name != "node");
    golden_plan("left_alone", &engine, &desired, &Intent::Up).await;
}

#[tokio::test(start_paused = true)]
async fn plan_puts_what_the_framework_needs_first_and_other_services_last() {
    let mut desired = desired();
    let plain = |name: &str, last| service(name, None, "tars/node:1", last);
    desired.services.insert(0, plain("business", 8));
    desired.services.insert(1, plain("redis", 9));
    edit(&mut desired, "framework", |service| service.depends_on = vec!["redis".to_owned()]);
    edit(&mut desired, "business", |service| service.depends_on = vec!["framework".to_owned()]);
    golden_plan("with_other_services", &engine(), &desired, &Intent::Up).await;
}

#[tokio::test(start_paused = true)]
async fn plan_of_a_restart() {
    let desired = desired();
    let engine = running(&desired).await;
    golden_plan("restart_all", &engine, &desired, &Intent::Restart { services: Vec::new(), ask_with: None })
        .await;
    let one = Intent::Restart { services: vec!["node".to_owned()], ask_with: None };
    golden_plan("restart_node", &engine, &desired, &one).await;
}

#[tokio::test(start_paused = true)]
async fn plan_of_a_rollback() {
    let desired = desired();
    let engine = running(&desired).await;
    roll(&engine, &Machine::new(), &desired, &id(2), &to_2(&desired)).await.unwrap();
    let intent = rollback(&engine, &desired, None).await;
    golden_plan("rollback", &engine, &desired, &intent).await;
}

#[tokio::test(start_paused = true)]
async fn plan_of_down() {
    let desired = desired();
    let engine = running(&desired).await;
    golden_plan("down", &engine, &desired, &Intent::Down { all: false }).await;
    golden_plan("down_all", &engine, &desired, &Intent::Down { all: true }).await;
}

/// An upgrade that was killed while the master was being swapped, and its record.
async fn cut_off(desired: &Desired) -> (FakeEngine, DeployRecord) {
    let engine = running(desired).await;
    engine.fault(Call::First("rename tars-framework.new".to_owned()), Moment::Before, Fault::Crash);
    let machine = Machine::killed();
    let command = deploy(&engine, &machine, desired);
    let offer = command.offer(&request(&id(9), &to_2(desired))).await.unwrap();
    tokio::select! {
        _ = command.roll(&offer) => panic!("it was to hang"),
        () = engine.crashed() => {}
    }
    drop(command);
    let (plan, images) = (offer.plan, offer.edits);
    (engine, {
        let (what, effects) = ("upgrade".to_owned(), Vec::new());
        let (accept_data_move, accept_state_loss) = (Vec::new(), Vec::new());
        let backup = tarsup::upgrade::record::Backup::default();
        DeployRecord { version: 2, what, plan, images, accept_data_move, accept_state_loss, backup, effects }
    })
}

#[tokio::test(start_paused = true)]
async fn plan_of_the_way_back_and_of_the_rest() {
    let desired = desired();
    let (engine, record) = cut_off(&desired).await;
    let observed = observe(&engine, &desired).await.unwrap();
    let back = unwind::unwind(&observed, &record, &desired, &BTreeSet::new());
    golden("way_back", &render::titled(&back.plan, "undo upgrade"));
    golden_plan("rest", &engine, &desired, &to_2(&desired)).await;
}

#[tokio::test(start_paused = true)]
async fn rest_of_a_deploy_that_no_longer_fits_is_refused() {
    let desired = desired();
    let (engine, _) = cut_off(&desired).await;
    let mut edited = desired.clone();
    edit(&mut edited, "slave", |service| {
        edit_body(service, |body| drop(body.insert("Hostname".to_owned(), json!("other"))));
    });
    let refusal = planned(&engine, &edited, 9, &to_2(&edited)).await.unwrap_err();
    assert!(refusal.to_string().contains("has changed since the deploy began"), "{refusal}");
    // Undone halfway: the only way is back.
    engine.fault(
        Call::Every("rename tars-slave.old".to_owned()),
        Moment::Before,
        Fault::Answer(500, "no".into()),
    );
    resume(&engine, &Machine::killed(), &desired, false).await.unwrap_err();
    engine.clear_faults();
    let refusal = planned(&engine, &desired, 9, &to_2(&desired)).await.unwrap_err();
    assert!(refusal.to_string().contains("is being undone already"), "{refusal}");
    assert!(matches!(resume(&engine, &Machine::new(), &desired, false).await.unwrap(), Resumed::Undone(_)));
}

#[tokio::test(start_paused = true)]
async fn what_was_published_over_an_image_is_a_question_before_it_is_replaced() {
    let desired = desired();
    let engine = running(&desired).await;
    let published = vec![("tarsstat".to_owned(), "17".to_owned())];
    engine.behave_named("tars-framework", Behaviour { published, ..Behaviour::default() });
    let machine = Machine::new();
    let command = deploy(&engine, &machine, &desired);
    let offer = command.offer(&request(&id(2), &to_2(&desired))).await.unwrap();
    let [question] = offer.plan.questions.as_slice() else { panic!("{:?}", offer.plan.questions) };
    assert!(
        question.contains("`framework` runs tarsstat 17") && question.contains("tars/framework:2"),
        "{question}"
    );
    // A restart keeps the container, and what is in it.
    let restart = command
        .offer(&request(&id(2), &Intent::Restart { services: Vec::new(), ask_with: None }))
        .await
        .unwrap();
    assert!(restart.plan.questions.is_empty());
    // One that was made before this could be asked tells nothing.
    engine.behave_named("tars-framework", Behaviour { has_init: false, ..Behaviour::default() });
    let offer = command.offer(&request(&id(2), &to_2(&desired))).await.unwrap();
    assert!(offer.plan.questions.is_empty());
}

#[tokio::test(start_paused = true)]
async fn document_of_a_plan_has_the_keys_that_scripts_rely_on() {
    let desired = desired();
    let plan = planned(&running(&desired).await, &desired, 9, &to_2(&desired)).await.unwrap();
    let document = plan.document();
    assert_eq!(document["id"], id(9).as_str());
    let steps = document["steps"].as_array().unwrap();
    for step in steps {
        for key in ["kind", "service", "from", "to", "cause"] {
            assert!(step.as_object().unwrap().contains_key(key), "{step}");
        }
    }
    let create = steps.iter().find(|step| step["kind"] == "create" && step["service"] == "slave").unwrap();
    assert_eq!(
        (create["from"].as_str(), create["to"].as_str()),
        (Some("tars/framework:1"), Some("tars/framework:2"))
    );
}

/// What `up` says to an edited declaration.
async fn refused(edit_one: impl FnOnce(&mut Service)) -> Refusal {
    let mut desired = desired();
    let engine = running(&desired).await;
    edit(&mut desired, "slave", edit_one);
    planned(&engine, &desired, 9, &Intent::Up).await.unwrap_err()
}

#[tokio::test(start_paused = true)]
async fn refusal_of_what_tarsup_did_not_make_names_it_and_the_line() {
    let desired = desired();
    let engine = engine();
    let body = json!({"Image": "tars/framework:1"});
    engine.create_container("tars-slave", &CreateBody(body.as_object().unwrap().clone())).await.unwrap();
    let refusal = planned(&engine, &desired, 9, &Intent::Up).await.unwrap_err();
    assert!(refusal.to_string().contains("`tars-slave` is there already"), "{refusal}");
    assert_eq!((refusal.exit(), refusal.place()), (Exit::Refused, Some(Place::line("compose.yaml", 4))));
    assert!(refusal.hint().unwrap().contains("docker inspect tars-slave"));
}

#[tokio::test(start_paused = true)]
async fn refusal_of_a_container_of_another_deployment() {
    let mut other = desired();
    let engine = running(&other).await;
    other.deployment = "other".to_owned();
    let refusal = planned(&engine, &other, 9, &Intent::Up).await.unwrap_err();
    let Refusal::Several { all } = &refusal else { panic!("{refusal}") };
    assert!(all.iter().all(|one| matches!(one, Refusal::Other { .. })), "{refusal}");
    assert_eq!(all.len(), other.services.len(), "{refusal}");
    assert!(refusal.to_string().contains("of the deployment `tars`"), "{refusal}");
}

#[tokio::test(start_paused = true)]
async fn refusal_of_rebuild_in_file_image_and_container() {
    let place = Place::line("compose.yaml", 17);
    let setting = Setting { value: "true".into(), place: place.clone(), through: None };
    let refusal = refused(|service| service.rebuild = Some(setting)).await;
    assert_eq!((refusal.exit(), refusal.place()), (Exit::Refused, Some(place)));
    assert!(refusal.to_string().contains("db_tars"), "{refusal}");

    let desired = desired();
    let engine = running(&desired).await;
    engine.add_image("tars/framework:2", "baked", &["REBUILD=true"]);
    let refusal = planned(&engine, &desired, 9, &to_2(&desired)).await.unwrap_err();
    assert!(refusal.to_string().contains("tars/framework:2"), "{refusal}");

    // A container that got it past tarsup: never started again.
    let engine = running(&desired).await;
    let mut sneaked = desired.clone();
    edit(&mut sneaked, "slave", |service| {
        edit_body(service, |body| drop(body.insert("Env".to_owned(), json!(["REBUILD=true"]))));
    });
    engine.rename_container("tars-slave", "gone").await.unwrap();
    let mut body = sneaked.service("slave").unwrap().declaration.render();
    body.0.insert("Image".to_owned(), json!("tars/framework:1"));
    body.0.insert("Labels".to_owned(), json!({"io.tarsup.deployment": "tars", "io.tarsup.service": "slave"}));
    engine.stop_container("gone", Duration::ZERO).await.unwrap();
    engine.create_container("tars-slave", &body).await.unwrap();
    engine.start_container("tars-slave").await.unwrap();
    let all = Intent::Restart { services: Vec::new(), ask_with: None };
    let refusal = planned(&engine, &desired, 9, &all).await.unwrap_err();
    assert!(refusal.to_string().contains("tars-slave"), "{refusal}");
    assert_eq!(refusal.exit(), Exit::Refused);
    // To stop it is allowed.
    planned(&engine, &desired, 9, &Intent::Down { all: true }).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn refusal_of_an_image_that_is_nowhere_is_wrong_input() {
    let refusal = refused(|service| service.image = service.image.with_tag("9")).await;
    assert_eq!((refusal.exit(), refusal.place()), (Exit::Usage, Some(Place::line("compose.yaml", 5))));
    assert!(refusal.hint().unwrap().contains("tarsup copy"), "{refusal}");
}

#[tokio::test(start_paused = true)]
async fn refusal_of_an_address_that_is_taken_or_outside() {
    let at = |address: &'static str| {
        move |service: &mut Service| {
            edit_body(service, |body| {
                body["NetworkingConfig"]["EndpointsConfig"]["tars_default"] =
                    json!({"IPAMConfig": {"IPv4Address": address}});
            });
        }
    };
    let taken = refused(at("172.25.0.3")).await;
    assert!(
        taken.to_string().contains("172.25.0.3 on `tars_default` is in use by the container tars-framework"),
        "{taken}"
    );
    let outside = refused(at("172.26.0.3")).await;
    assert!(outside.to_string().contains("not in the network `tars_default` (172.25.0.0/16)"), "{outside}");
}

#[tokio::test(start_paused = true)]
async fn refusal_of_auto_remove() {
    let refusal =
        refused(|service| edit_body(service, |body| body["HostConfig"]["AutoRemove"] = json!(true))).await;
    assert!(matches!(refusal, Refusal::AutoRemove { .. }), "{refusal}");
}

#[tokio::test(start_paused = true)]
async fn refusal_of_an_external_network_that_is_not_there() {
    let mut desired = desired();
    desired.networks[0].external = true;
    let refusal = planned(&engine(), &desired, 9, &Intent::Up).await.unwrap_err();
    assert_eq!(refusal.to_string(), "the external network `tars_default` is not there");
    assert_eq!(refusal.exit(), Exit::Usage);
}

#[tokio::test(start_paused = true)]
async fn refusal_of_an_upgrade_without_a_database_or_a_deployment() {
    let desired = desired();
    let engine = running(&desired).await;
    engine.stop_container("tars-mysql", Duration::ZERO).await.unwrap();
    let refusal = planned(&engine, &desired, 9, &to_2(&desired)).await.unwrap_err();
    assert!(matches!(refusal, Refusal::DatabaseDown { .. }), "{refusal}");
    let mut without = desired.clone();
    without.services.retain(|service| service.role != Some(Role::Database));
    let refusal = planned(&super::engine(), &without, 9, &to_2(&without)).await.unwrap_err();
    assert!(matches!(refusal, Refusal::NothingThere { .. }), "{refusal}");
    let unknown = Intent::Restart { services: vec!["nobody".to_owned()], ask_with: None };
    let refusal = planned(&engine, &desired, 9, &unknown).await.unwrap_err();
    assert_eq!(refusal.exit(), Exit::Usage);
}

#[tokio::test(start_paused = true)]
async fn plan_that_no_longer_fits_is_refused_and_gives_the_deployment_free() {
    let desired = desired();
    let engine = running(&desired).await;
    let machine = Machine::new();
    let command = deploy(&engine, &machine, &desired);
    let offer = command.offer(&request(&id(2), &to_2(&desired))).await.unwrap();
    engine.stop_container("tars-slave", Duration::ZERO).await.unwrap();
    let failure = command.roll(&offer).await.unwrap_err();
    assert_eq!(failure.exit(), Exit::Refused, "{failure}");
    assert!(failure.to_string().contains("no longer fits"), "{failure}");
    command.is_free().await.unwrap();
}
