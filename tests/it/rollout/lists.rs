//! A plan is made from lists; a container is asked for itself only where the lists do not tell enough.

use serde_json::json;
use tarsup::deploy::observed::{LABEL_DEPLOY, LABEL_DEPLOYMENT, LABEL_RESTART, LABEL_SERVICE, LABEL_SPEC};
use tarsup::engine::Engine as _;

use super::*;

/// How many calls a plan may take, however many services there are.
const CALLS: usize = 15;

/// The plan of a command, and the calls that it took.
async fn offered(
    engine: &FakeEngine,
    machine: &Machine,
    desired: &Desired,
    intent: &Intent,
) -> (Result<String, String>, Vec<String>) {
    let before = engine.calls().len();
    let offer = deploy(engine, machine, desired).offer(&request(&id(9), intent)).await;
    let document = offer.map(|mut offer| {
        // What the database answered is no matter of lists.
        offer.plan.notes.retain(|note| !note.starts_with("the backup saves"));
        offer.plan.document()
    });
    let text = document.map(|document| document.to_string()).map_err(|error| error.to_string());
    (text, engine.calls()[before..].to_vec())
}

/// Containers that were asked for themselves.
fn inspected(calls: &[String]) -> usize {
    let all = calls.iter().filter(|call| call.starts_with("inspect "));
    all.filter(|call| !["image ", "network ", "volume "].iter().any(|kind| call[8..].starts_with(kind)))
        .count()
}

/// Adds services that run already, as deploy 1 would have made them.
async fn add_running(engine: &FakeEngine, desired: &mut Desired, services: usize) {
    for n in 0..services {
        let mut service = service(&format!("app{n}"), None, "tars/node:1", 200);
        let address = format!("172.25.{}.{}", 1 + n / 200, 2 + n % 200);
        edit_body(&mut service, |body| {
            body["NetworkingConfig"]["EndpointsConfig"]["tars_default"] =
                json!({"IPAMConfig": {"IPv4Address": address}});
        });
        let mut body = service.declaration.render();
        body.0.insert("Image".to_owned(), json!("tars/node:1"));
        body.0.insert("Entrypoint".to_owned(), json!(["/run"]));
        let labels = json!({
            LABEL_DEPLOYMENT: desired.deployment, LABEL_SERVICE: service.name, LABEL_DEPLOY: id(1),
            LABEL_SPEC: service.spec(), LABEL_RESTART: serde_json::to_string(&service.restart).unwrap(),
        });
        body.0.insert("Labels".to_owned(), labels);
        engine.create_container(&service.container, &body).await.unwrap();
        engine.start_container(&service.container).await.unwrap();
        let volume = format!("tars_app{n}");
        desired.volumes.push(Resource {
            key: service.name.clone(),
            body: json!({"Name": volume}),
            name: volume,
            external: false,
            place: Place::file("compose.yaml"),
        });
        desired.services.push(service);
    }
}

#[tokio::test(start_paused = true)]
async fn plan_of_a_thousand_services_takes_fifteen_calls_at_most() {
    let mut desired = desired();
    let (engine, machine) = (engine(), Machine::new());
    roll(&engine, &machine, &desired, &id(1), &Intent::Up).await.unwrap();
    let services = desired.services.len();
    add_running(&engine, &mut desired, 1000 - services).await;
    let (plan, calls) = offered(&engine, &machine, &desired, &Intent::Up).await;
    assert!(plan.unwrap().contains("\"steps\":[]"), "all is as declared");
    assert!(calls.len() <= CALLS, "{}: {:?}", calls.len(), &calls[..30]);
    assert_eq!(inspected(&calls), 0, "{calls:?}");

    // One that differs is asked for itself, and no other.
    edit(&mut desired, "app7", |app| edit_body(app, |body| body["Env"] = json!(["A=1"])));
    let (plan, calls) = offered(&engine, &machine, &desired, &Intent::Up).await;
    assert!(plan.unwrap().contains("environment differs: A, MYSQL_ROOT_PASSWORD, SLAVE"));
    assert_eq!(inspected(&calls), 1, "{calls:?}");
    assert!(calls.len() <= CALLS, "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn parked_predecessors_are_not_asked_for() {
    let desired = large();
    let (engine, machine) = (engine(), Machine::new());
    roll(&engine, &machine, &desired, &id(1), &Intent::Up).await.unwrap();
    roll(&engine, &machine, &desired, &id(2), &to_2(&desired)).await.unwrap();
    let upgraded = to_2(&desired).apply(&desired);
    let (plan, calls) = offered(&engine, &machine, &upgraded, &Intent::Up).await;
    assert!(plan.unwrap().contains("\"steps\":[]"));
    assert_eq!(inspected(&calls), 0, "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn plan_from_lists_is_the_plan_from_inspects() {
    let desired = large();
    let (engine, machine) = (engine(), Machine::new());
    roll(&engine, &machine, &desired, &id(1), &Intent::Up).await.unwrap();
    roll(&engine, &machine, &desired, &id(2), &to_2(&desired)).await.unwrap();
    let mut edited = to_2(&desired).apply(&desired);
    edit(&mut edited, "node", |node| {
        edit_body(node, |body| drop(body.insert("Hostname".to_owned(), json!("other"))));
    });
    engine.stop_container("tars-node2", Duration::ZERO).await.unwrap();
    for intent in [
        Intent::Up,
        to_2(&desired),
        Intent::upgrade(&desired, Some("1")),
        Intent::Restart { services: Vec::new(), ask_with: None },
        Intent::Restart { services: vec!["slave".to_owned()], ask_with: None },
        Intent::Down { all: true },
    ] {
        let (from_lists, few) = offered(&engine, &machine, &edited, &intent).await;
        let before = engine.calls().len();
        let whole = planned(&engine, &edited, 9, &intent).await.map(|plan| plan.document().to_string());
        let all = engine.calls()[before..].to_vec();
        assert_eq!(from_lists, whole.map_err(|error| error.to_string()), "{}", intent.word());
        assert!(inspected(&few) <= inspected(&all), "{}", intent.word());
        assert!(inspected(&all) > 5, "{}: {all:?}", intent.word());
    }
}

#[tokio::test(start_paused = true)]
async fn container_that_was_never_proven_is_seen_without_a_journal_and_under_a_cut_off_one() {
    let desired = desired();
    let (engine, machine) = (engine(), Machine::new());
    roll(&engine, &machine, &desired, &id(1), &Intent::Up).await.unwrap();
    // As a kill between start and proof leaves it, where a prune took the lock.
    engine.update_restart("tars-node", &RestartPolicy::no()).await.unwrap();
    let elsewhere = offered(&engine, &Machine::new(), &desired, &Intent::Up).await.0.unwrap_err();
    assert!(elsewhere.contains("never proven"), "{elsewhere}");
    let finished = tarsup::upgrade::journal::Event::Finished;
    machine.journals.lock().unwrap().get_mut(&id(1)).unwrap().1.retain(|line| line.event != finished);
    let cut_off = offered(&engine, &machine, &desired, &Intent::Up).await;
    assert!(inspected(&cut_off.1) >= 4, "{cut_off:?}");
    assert!(cut_off.0.unwrap().contains("it must prove itself"), "it is not taken for proven");
}
