//! Going back where a prune has taken the parked containers: what comes back is, field by field, what was there.

use std::process::Command;

use super::deployment::Deployment;
use super::stage::{NEW, OLD, succeed};
use crate::inspected::differing;
use crate::turns::is_for_another_time;

#[test]
fn rollback_after_a_prune_makes_once_more_what_was_there() {
    if is_for_another_time() {
        return;
    }
    let services = ["framework", "slave", "node"];
    let deployment = Deployment::new("e2e-back", 38, &["database", "framework", "slave", "node"]);
    deployment.tarsup(&["up", "--yes"]).exits(0);
    deployment.mark();
    let before = services.map(|service| deployment.inspect(service));
    let tables = deployment.tables();
    deployment.tarsup(&["upgrade", "--to", NEW, "--yes"]).exits(0);
    deployment.prune();
    assert!(
        !deployment.containers().iter().any(|name| name.contains(".old.")),
        "{:?}",
        deployment.containers()
    );

    let plan = deployment.tarsup(&["rollback", "--dry-run"]).exits(0);
    assert!(plan.out.contains("e2e-back-slave.old."), "{}", plan.out);
    deployment.tarsup(&["rollback", "--yes"]).exits(0);

    for (service, before) in services.iter().zip(before) {
        let after = deployment.inspect(service);
        let differing = differing(&before, &after);
        assert!(differing.is_empty(), "{service}: {differing:#?}");
        assert_eq!(after["Image"], before["Image"], "{service}");
        assert_eq!(deployment.version(service), OLD);
        assert!(deployment.answers(service), "{service}");
    }
    assert_eq!(deployment.tables(), tables);
    assert!(
        deployment.read(".env").starts_with(&format!("TARS_VERSION={OLD}\n")),
        "{}",
        deployment.read(".env")
    );
    deployment.tarsup(&["up", "--yes"]).exits(0);
    deployment.holds_no_secret();
}

#[test]
fn image_of_a_way_back_is_held_where_its_tag_is_removed() {
    if is_for_another_time() {
        return;
    }
    let deployment = Deployment::new("e2e-held", 39, &["database", "framework"]);
    deployment.tarsup(&["up", "--yes"]).exits(0);
    let image = deployment.inspect("framework")["Image"].as_str().unwrap().to_owned();
    deployment.tarsup(&["upgrade", "--to", NEW, "--yes"]).exits(0);
    deployment.prune();
    let held = Command::new("docker")
        .args(["image", "inspect", "--format", "{{json .RepoTags}}", &image])
        .output()
        .unwrap();
    let held: Vec<String> = serde_json::from_slice(&held.stdout).unwrap();
    assert!(held.iter().any(|tag| tag.starts_with("tarsup-kept/e2e-held/")), "{held:?}");
    deployment.tarsup(&["rollback", "--yes"]).exits(0);
    assert_eq!(deployment.inspect("framework")["Image"], *image);
}

#[test]
fn locked_up_on_an_engine_without_containers_and_networks_brings_the_whole_deployment_back() {
    if is_for_another_time() {
        return;
    }
    let services = ["database", "framework", "slave", "node"];
    let deployment = Deployment::new("e2e-empty", 41, &services);
    deployment.tarsup(&["up", "--yes"]).exits(0);
    deployment.mark();
    deployment.tarsup(&["upgrade", "--to", NEW, "--yes"]).exits(0);
    deployment.tarsup(&["lock"]).exits(0);
    let (before, tables) = (services.map(|service| deployment.identity(service)), deployment.tables());
    let images = services.map(|service| deployment.inspect(service)["Image"].clone());

    // What is left of a machine whose containers and networks somebody cleared away: images and volumes.
    for container in deployment.containers() {
        succeed(Command::new("docker").args(["rm", "-f", &container]));
    }
    succeed(Command::new("docker").args(["network", "rm", &deployment.network()]));
    let status = deployment.tarsup(&["status"]);
    assert!(!deployment.answers("framework"), "{}", status.out);

    let brought = deployment.tarsup(&["up", "--locked", "--yes"]).exits(0);

    assert!(brought.err.contains(&format!("network {}", deployment.network())), "{}", brought.err);
    assert_eq!(services.map(|service| deployment.identity(service)), before);
    assert_eq!(services.map(|service| deployment.inspect(service)["Image"].clone()), images);
    assert_eq!(deployment.tables(), tables);
    for service in &services[1..] {
        assert!(deployment.answers(service), "{service}");
        assert_eq!(deployment.version(service), NEW, "{service}");
    }
    deployment.tarsup(&["verify"]).exits(0);
    assert_eq!(deployment.tarsup(&["plan", "--json"]).exits(0).json()["steps"], serde_json::json!([]));
}
