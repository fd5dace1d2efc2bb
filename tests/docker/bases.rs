//! An image of an engine as base: whatever the engine keeps of it, it is stood upon and runs.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use serde_json::{Value, json};
use tarsup::engine::{CreateBody, DockerEngine, Engine as _};
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

/// The start of a container, and what the kernel says of its process.
async fn status_of(engine: &DockerEngine, container: &str, image: &str, program: &str) -> String {
    tiny::remove_container(container).await;
    let body = json!({"Image": image, "Entrypoint": [program], "Cmd": ["cat", "/proc/self/status"], "User": "1000:1000"});
    let id =
        engine.create_container(container, &CreateBody(body.as_object().unwrap().clone())).await.unwrap();
    engine.start_container(&id).await.unwrap();
    let code = engine.wait_container(&id).await.unwrap();
    let said = engine.logs(&id, 100).await.unwrap();
    assert_eq!(code, 0, "{said}");
    engine.remove_container(&id).await.unwrap();
    said
}

#[tokio::test]
async fn privileges_that_a_recipe_keeps_work_in_a_container_and_come_out_of_the_engine_as_they_went_in() {
    let engine = tiny::engine().await;
    let (name, container) = ("bases-rights:1", "bases-rights");
    tiny::remove_image(name).await;
    let folder = TempDir::new().unwrap();
    let path = |below: &str| folder.path().join(below);
    let (_, actor) = tiny::actor_layer().swap_remove(0);
    for file in ["raw", "root"] {
        fs::write(path(file), [&actor[..], file.as_bytes()].concat()).unwrap();
        fs::set_permissions(path(file), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let recipe = "name: bases-rights\nversion: 1\nrole: plain\nbase: scratch\nfiles:\n  raw: {path: /bin/raw, capabilities: \
        'cap_net_raw,cap_kill=ep'}\n  root: {path: /bin/root, mode: '04755'}\n";
    fs::write(path("rights.yaml"), recipe).unwrap();
    let run = |arguments: &[&str]| -> Value {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tarsup"));
        command.args(arguments).arg("--json").current_dir(folder.path());
        let output =
            command.env("TARSUP_STORE", path("store")).env("TARSUP_CACHE", path("cache")).output().unwrap();
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words}\n{}", String::from_utf8_lossy(&output.stdout));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let daemon = format!("docker-daemon:{name}");
    let built = run(&["build", "rights.yaml", "-o", &daemon]);

    let said = status_of(&engine, container, name, "/bin/raw").await;
    assert!(said.contains("\nUid:\t1000\t1000\t1000\t1000\n"), "{said}");
    assert!(said.contains("\nCapEff:\t0000000000002020\n"), "{said}");
    let said = status_of(&engine, container, name, "/bin/root").await;
    assert!(said.contains("\nUid:\t1000\t0\t0\t0\n"), "{said}");

    // Nothing near knows it: it is told by its history alone, and then taken out of the engine.
    for known in ["store", "cache"] {
        let _ = fs::remove_dir_all(path(known));
    }
    let told = run(&["inspect", &daemon]);
    assert_eq!(
        told["parts"][0]["privileges"],
        json!({"/bin/raw": "cap_kill,cap_net_raw=ep", "/bin/root": "setuid"}),
        "{told}"
    );
    run(&["copy", &daemon, "oci:out:1"]);
    let again = run(&["inspect", "oci:out:1"]);
    let content = |of: &Value| -> Vec<Value> {
        of["layers"].as_array().unwrap().iter().map(|layer| layer["diff_id"].clone()).collect()
    };
    assert_eq!(content(&again), content(&built));
    assert_eq!(again["parts"][0]["privileges"], told["parts"][0]["privileges"]);
    tiny::remove_image(name).await;
}
