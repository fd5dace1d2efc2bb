//! An image of an engine as base: whatever the engine keeps of it, it is stood upon and runs.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use tarsup::engine::{CreateBody, Engine as _};
use tempfile::TempDir;

use crate::tiny;

#[tokio::test]
async fn image_of_an_engine_is_a_base_and_what_stands_on_it_runs() {
    let engine = tiny::engine().await;
    let base = tiny::actor_image(&engine, "bases-actor").await;
    let (name, container) = ("bases-above:1", "bases-above");
    tiny::remove_container(container).await;
    tiny::remove_image(name).await;
    let folder = TempDir::new().unwrap();
    let path = |below: &str| folder.path().join(below);
    fs::write(path("ours"), "of ours\n").unwrap();
    let recipe = format!(
        "name: bases-above\nversion: 1\nrole: plain\nbase: docker-daemon:{}\nfiles: {{ours: /data/ours}}\nenv: {{ABOVE: yes}}\n",
        base.familiar_name() + ":1"
    );
    fs::write(path("above.yaml"), recipe).unwrap();
    let build = |arguments: &[&str]| -> Value {
        let output = Command::new(env!("CARGO_BIN_EXE_tarsup"))
            .arg("build")
            .arg(path("above.yaml"))
            .args(arguments)
            .arg("--json")
            .env("TARSUP_STORE", path("store"))
            .env("TARSUP_CACHE", path("cache"))
            .output()
            .unwrap();
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words}\n{}", String::from_utf8_lossy(&output.stdout));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let output = format!("docker-daemon:{name}");
    let planned = build(&["-o", &output, "--plan"]);
    let made = build(&["-o", &output]);
    assert_eq!(made["layers"][0]["name"], "base", "{made}");
    // One that keeps tars is sent them before they are compressed.
    assert_eq!(made["outputs"], planned["outputs"]);
    // An engine has the layers of the base as it has them; which file they came from does not show.
    fs::remove_dir_all(path("cache")).unwrap();
    assert_eq!(build(&["-o", &format!("docker-daemon:{name}")])["digest"], made["digest"]);

    // The start of the base: the actor reads what it is told, in its layer and in ours.
    let body = json!({"Image": name, "Cmd": ["cat", "/data/ours"]});
    let body = CreateBody(body.as_object().unwrap().clone());
    let id = engine.create_container(container, &body).await.unwrap();
    engine.start_container(&id).await.unwrap();
    let code = engine.wait_container(&id).await.unwrap();
    let said = engine.logs(&id, 10).await.unwrap();
    assert_eq!((code, said.trim()), (0, "of ours"));
    engine.remove_container(&id).await.unwrap();
    tiny::remove_image(name).await;
}
