//! `tarsup lock`, `verify`, `images` and `history`: what they find, say and end with.

use std::fs;

use crate::fake::FakeEngine;
use serde_json::{Value, json};
use tarsup::deploy::compose::{LoadOptions, load};
use tarsup::deploy::pins::{self, Pin, Pins, PinsError};
use tarsup::deploy::{Observed, observe::observe, verify};
use tarsup::engine::{CreateBody, Engine as _, ImageStore};
use tarsup::oci::Digest;
use tarsup::tars::Service;

use crate::packages::{Packer, Workshop, document};

const COMPOSE: &str = "name: p
services:
  framework:
    image: tars/framework:3.0.17
    environment: {MYSQL_ROOT_PASSWORD: hunter2, REBUILD: \"false\"}
    volumes: [\"data:/data/tars\"]
    x-tars: {role: master}
volumes: {data: {}}
";

fn workshop() -> Workshop {
    let workshop = Workshop::new();
    workshop.write("compose.yaml", COMPOSE);
    workshop.json(&["build", "framework.yaml"]);
    workshop
}

fn exit(workshop: &Workshop, arguments: &[&str]) -> (Option<i32>, String) {
    let output = workshop.run(arguments);
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn lock_pins_image_and_packages_and_finds_what_changed() {
    let workshop = workshop();
    let (code, _) = exit(&workshop, &["lock"]);
    assert_eq!(code, Some(0));
    let text = fs::read_to_string(workshop.path("tarsup.lock")).unwrap();
    assert!(!text.contains("hunter2"));
    let written: Value = serde_json::from_str(&text).unwrap();
    let pin = &written["images"]["tars/framework:3.0.17"];
    let package = fs::read(workshop.path("packages/tarsstat.tgz")).unwrap();
    assert_eq!(pin["packages"]["tarsstat.tgz"], json!(Digest::of(&package)));
    assert_eq!(pin["packages"].as_object().unwrap().len(), 7);
    assert_eq!(exit(&workshop, &["lock", "--check"]), (Some(0), "tarsup.lock is up to date\n".to_owned()));

    // The same content from a package made anew: the same image, another package.
    workshop.pack(Packer { mtime: 1, ..Packer::default() }, Service::Stat, "3.0.17");
    workshop.json(&["build", "framework.yaml"]);
    let (code, found) = exit(&workshop, &["lock", "--check"]);
    assert_eq!(code, Some(6));
    assert!(found.contains("package tarsstat.tgz is") && !found.contains("layers"), "{found}");

    // Another content under the same name.
    workshop.pack(Packer::default(), Service::Stat, "3.0.18");
    workshop.json(&["build", "framework.yaml"]);
    let (code, found) = exit(&workshop, &["lock", "--check"]);
    assert_eq!(code, Some(6));
    assert!(found.contains("pinned layers"), "{found}");
    assert_eq!(fs::read_to_string(workshop.path("tarsup.lock")).unwrap(), text, "a check changes nothing");

    assert_eq!(exit(&workshop, &["lock"]).0, Some(0));
    let again = fs::read_to_string(workshop.path("tarsup.lock")).unwrap();
    assert_ne!(again, text);
    assert_eq!(exit(&workshop, &["lock"]).0, Some(0));
    assert_eq!(fs::read_to_string(workshop.path("tarsup.lock")).unwrap(), again);
}

#[test]
fn lock_that_is_missing_or_broken_is_wrong_input() {
    let workshop = workshop();
    assert!(workshop.refused(&["lock", "--check"], 2).contains("there is no tarsup.lock"));
    assert!(workshop.refused(&["verify"], 2).contains("tarsup lock"));
    workshop.write("tarsup.lock", "{\n\"version\": 1,\n\"x\"\n}");
    assert!(workshop.refused(&["lock"], 2).contains("\"tarsup.lock\":"));
    workshop.write("tarsup.lock", "{\"version\": 99}");
    assert!(workshop.refused(&["lock"], 2).contains("format 99"));
}

#[test]
fn images_lists_the_store_without_an_engine_and_says_so() {
    let workshop = workshop();
    exit(&workshop, &["lock"]);
    let output = workshop.run(&["images", "-H", "unix:///nowhere.sock"]);
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(shown.contains("tars/framework:3.0.17") && shown.contains("lock, service framework"), "{shown}");
    assert!(String::from_utf8(output.stderr).unwrap().contains("only the local store"));
    let listed = workshop.json(&["images", "-H", "unix:///nowhere.sock"]);
    assert_eq!(listed["images"][0]["used"], json!(["lock", "service framework"]));
}

#[test]
fn history_tells_deploys_even_where_the_deployment_file_is_broken() {
    let workshop = workshop();
    assert_eq!(exit(&workshop, &["history"]), (Some(0), "no deploys yet\n".to_owned()));
    fs::create_dir_all(workshop.path(".tarsup/deploys")).unwrap();
    for (name, end) in [("20260102T030405Z-00ff", "committed"), ("20260103T030405Z-00ff", "rolled-back")] {
        let lines = [
            json!({"tarsup_journal": 1, "deploy": name, "deployment": "p", "what": "up", "by": "ann@host",
                   "at": "2026-01-02T03:04:05Z"}),
            json!({"at": "2026-01-02T03:04:06Z", "event": end}),
        ];
        let text: Vec<String> = lines.iter().map(ToString::to_string).collect();
        workshop.write(&format!(".tarsup/deploys/{name}.jsonl"), &(text.join("\n") + "\n"));
    }
    workshop.write(".tarsup/deploys/z.jsonl", "nonsense");
    workshop.write("compose.yaml", "services: [");
    let (code, shown) = exit(&workshop, &["history"]);
    assert_eq!(code, Some(0));
    let lines: Vec<&str> = shown.lines().collect();
    assert!(lines[0].starts_with("20260103T030405Z-00ff  rolled back   up  by ann@host"), "{shown}");
    assert!(lines[1].starts_with("20260102T030405Z-00ff  committed"), "{shown}");
    let listed = document(&workshop.command(&["history", "-n", "1", "--json"]).output().unwrap());
    assert_eq!(listed["deploys"].as_array().unwrap().len(), 1);
}

/// An engine that runs what the file declares, and the lock of it.
async fn running() -> (FakeEngine, Pins, tarsup::deploy::Desired, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("compose.yaml"), COMPOSE).unwrap();
    let options = LoadOptions { directory: folder.path().to_owned(), ..LoadOptions::default() };
    let desired = load(&options).unwrap();
    let engine = FakeEngine::new();
    engine.add_image("tars/framework:3.0.17", "content", &["PATH=/"]);
    let service = &desired.services[0];
    let mut body = service.declaration.render();
    drop(body.0.remove("NetworkingConfig"));
    body.0["HostConfig"]["NetworkMode"] = "bridge".into();
    engine.create_container(&service.container, &CreateBody(body.0)).await.unwrap();
    engine.start_container(&service.container).await.unwrap();
    let image = engine.inspect_image("tars/framework:3.0.17").await.unwrap().unwrap();
    let mut pins = Pins::new("p");
    pins.images.insert(service.image.clone(), Pin::of_engine(&image, ImageStore::Classic));
    (engine, pins, desired, folder)
}

#[tokio::test]
async fn verify_finds_nothing_where_the_pinned_bytes_run_and_each_difference_where_not() {
    let (engine, pins, desired, _folder) = running().await;
    let found = |observed: &Observed, pins: &Pins| -> Vec<String> {
        verify::differences(pins, &desired, observed).into_iter().map(|one| one.what).collect()
    };
    let observed = observe(&engine, &desired).await.unwrap();
    assert_eq!(found(&observed, &pins), Vec::<String>::new());

    let empty = Pins::new("other");
    assert_eq!(
        found(&observed, &empty),
        ["the lock is of the deployment other, this is p", "framework: tars/framework:3.0.17 is not pinned",]
    );
    let mut more = pins.clone();
    more.images.insert("mysql:8".parse().unwrap(), Pin::default());
    assert_eq!(found(&observed, &more), ["mysql:8 is pinned, and no service uses it"]);

    engine.stop_container("p-framework-1", std::time::Duration::ZERO).await.unwrap();
    let observed = observe(&engine, &desired).await.unwrap();
    assert_eq!(found(&observed, &pins), ["framework: the container p-framework-1 does not run"]);

    // The tag moves; what runs is still what is pinned.
    engine.add_image("tars/framework:3.0.17", "other content", &["PATH=/"]);
    engine.start_container("p-framework-1").await.unwrap();
    let observed = observe(&engine, &desired).await.unwrap();
    let lines = found(&observed, &pins);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with("framework: tars/framework:3.0.17 of the engine is not the pinned one"));

    engine.stop_container("p-framework-1", std::time::Duration::ZERO).await.unwrap();
    engine.remove_container("p-framework-1").await.unwrap();
    let observed = observe(&engine, &desired).await.unwrap();
    assert!(found(&observed, &pins)[1].contains("there is no container p-framework-1"));
}

#[tokio::test]
async fn locked_run_is_refused_where_the_bytes_are_not_the_pinned_ones() {
    let (engine, pins, desired, _folder) = running().await;
    let wanted = [&desired.services[0].image];
    let observed = observe(&engine, &desired).await.unwrap();
    assert!(pins::require(&pins, wanted, &observed).is_ok());
    assert!(matches!(pins::require(&Pins::new("p"), wanted, &observed), Err(PinsError::NotPinned { .. })));
    engine.add_image("tars/framework:3.0.17", "other content", &["PATH=/"]);
    let observed = observe(&engine, &desired).await.unwrap();
    let error = pins::require(&pins, wanted, &observed).unwrap_err();
    assert!(matches!(error, PinsError::Differs { .. }), "{error}");
}
