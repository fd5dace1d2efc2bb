//! `tarsup prune`: what goes, and what never does.

use super::*;
use tarsup::deploy::pins::{Pin, Pins};
use tarsup::engine::{CreateBody, Engine as _};
use tarsup::upgrade::render;

/// Versions 1 to 5, each upgraded to in its turn; what the file says in the end.
async fn five_versions() -> (FakeEngine, Machine, Desired) {
    let mut desired = desired();
    desired.policy.keep_parked = 9;
    desired.policy.keep_images = 9;
    let engine = running(&desired).await;
    let machine = Machine::new();
    for version in 2..=5 {
        for image in ["framework", "node"] {
            engine.add_image(
                &format!("tars/{image}:{version}"),
                &format!("{image} {version}"),
                &["PATH=/bin"],
            );
        }
        let intent = Intent::upgrade(&desired, Some(&version.to_string()));
        roll(&engine, &machine, &desired, &id(version), &intent).await.unwrap();
        desired = intent.apply(&desired);
    }
    (engine, machine, desired)
}

async fn tags(engine: &FakeEngine) -> Vec<String> {
    let images = engine.list_images().await.unwrap();
    let mut tags: Vec<String> = images.into_iter().flat_map(|image| image.tags).collect();
    tags.retain(|tag| !tag.starts_with("tarsup-kept/"));
    tags.sort();
    tags
}

#[tokio::test(start_paused = true)]
async fn prune_keeps_the_newest_and_whatever_is_needed() {
    let (engine, machine, desired) = five_versions().await;
    // Somebody's own container runs an old version; that image stays.
    let body = json!({"Image": "tars/node:2"});
    engine.create_container("somebodys", &CreateBody(body.as_object().unwrap().clone())).await.unwrap();
    let volumes: Vec<String> =
        engine.dump().lines().filter(|line| line.starts_with("volume ")).map(str::to_owned).collect();
    let prune = Intent::Prune { keep: Some(1), foreign: false };
    let plan = planned_with_all(&engine, &machine, &desired, 6, &prune).await;
    let text = render::plan(&plan);
    assert!(text.contains("no rollback leads to them afterwards"), "{text}");
    assert!(!text.contains("MARIADB") && !text.contains("mariadb"), "{text}");

    roll(&engine, &machine, &desired, &id(6), &prune).await.unwrap();

    let dump = engine.dump();
    assert_eq!(dump.matches(".old.").count(), 3, "one of each service: {dump}");
    assert!(dump.contains("container somebodys "), "as one that a tarsnode started: {dump}");
    assert_eq!(
        tags(&engine).await,
        [
            "mariadb:10.11",
            "tars/framework:4",
            "tars/framework:5",
            "tars/node:2",
            "tars/node:4",
            "tars/node:5"
        ]
    );
    let left: Vec<String> =
        engine.dump().lines().filter(|line| line.starts_with("volume ")).map(str::to_owned).collect();
    assert_eq!(left, volumes);
    // Converged.
    let plan = roll(&engine, &machine, &desired, &id(7), &prune).await.unwrap();
    assert!(plan.steps.is_empty(), "{}", render::plan(&plan));
    // What is parked is a way back still.
    let back = Intent::Rollback { to: None, targets: BTreeMap::new() };
    roll(&engine, &machine, &desired, &id(8), &back).await.unwrap();
    assert!(engine.dump().contains("container tars-slave running restart=always image=tars/framework:4"));
}

#[tokio::test(start_paused = true)]
async fn prune_without_a_number_does_what_the_file_says() {
    let (engine, machine, mut desired) = five_versions().await;
    desired.policy.keep_parked = 2;
    desired.policy.keep_images = 4;
    roll(&engine, &machine, &desired, &id(6), &Intent::Prune { keep: None, foreign: false }).await.unwrap();
    assert_eq!(engine.dump().matches(".old.").count(), 6, "{}", engine.dump());
    // Version 1 is held by the first upgrade's name: of the four that are held it is the oldest, and stays.
    assert!(tags(&engine).await.contains(&"tars/framework:2".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn prune_leaves_what_is_pinned_and_every_image_where_the_lock_cannot_be_read() {
    let (running, machine, mut desired) = five_versions().await;
    let folder = tempfile::tempdir().unwrap();
    desired.directory = folder.path().to_owned();
    let lock = Pins::path(&desired);
    let prune = Intent::Prune { keep: Some(1), foreign: false };
    let left = |engine: FakeEngine, desired: Desired| {
        let machine = machine.next();
        async move {
            roll(&engine, &machine, &desired, &id(6), &Intent::Prune { keep: Some(1), foreign: false })
                .await
                .unwrap();
            tags(&engine).await
        }
    };
    let without = left(running.fork(), desired.clone()).await;
    assert!(!without.contains(&"tars/framework:2".to_owned()), "{without:?}");

    let observed = observe(&running, &to_2(&desired).apply(&desired)).await.unwrap();
    let image = observed.image("tars/framework:2").unwrap();
    let mut pins = Pins::new("tars");
    pins.images
        .insert("tars/framework:2".parse().unwrap(), Pin::of_engine(image, observed.engine.image_store));
    std::fs::write(&lock, pins.text()).unwrap();
    let mut expected = without.clone();
    expected.push("tars/framework:2".to_owned());
    expected.sort();
    assert_eq!(left(running.fork(), desired.clone()).await, expected);

    std::fs::write(&lock, "no lock").unwrap();
    let before = tags(&running).await;
    let plan = planned_with_all(&running, &machine, &desired, 6, &prune).await;
    assert!(plan.notes.iter().any(|note| note.contains("tarsup.lock")), "{:#?}", plan.notes);
    assert_eq!(left(running.fork(), desired.clone()).await, before);
}

/// What is offered, with all that a command reads for it.
async fn planned_with_all(
    engine: &FakeEngine,
    machine: &Machine,
    desired: &Desired,
    n: u8,
    intent: &Intent,
) -> Plan {
    deploy(engine, machine, desired).offer(&request(&id(n), intent)).await.unwrap().plan
}
