//! An image of an engine as base: whatever the engine keeps of it, it is stood upon and runs.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::sync::Arc;

use serde_json::{Value, json};
use tarsup::contents::{self, Contents, Kind};
use tarsup::engine::{CreateBody, DockerEngine, Engine as _};
use tarsup::transport::Sink as _;
use tarsup::transport::daemon::Daemon;
use tarsup::transport::layout;
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
    // One that keeps tars is sent them before they are compressed; containerd's store may have had the base compressed otherwise.
    let mut outputs = planned["outputs"].clone();
    outputs[0].as_object_mut().unwrap().remove("inexact");
    assert_eq!(made["outputs"], outputs);
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

/// `path/`, `path -> target` or a file.
fn tar_of(entries: &[&str]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for entry in entries {
        let (name, target) = entry.split_once(" -> ").unwrap_or((entry, ""));
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o755);
        header.set_size(0);
        header.set_entry_type(match (name.ends_with('/'), target) {
            (true, _) => tar::EntryType::Directory,
            (_, "") => tar::EntryType::Regular,
            _ => tar::EntryType::Symlink,
        });
        if target.is_empty() {
            builder.append_data(&mut header, name, &[][..]).unwrap();
        } else {
            builder.append_link(&mut header, name, target).unwrap();
        }
    }
    builder.into_inner().unwrap()
}

/// What lies in the root of a container that is never started, but what engines put there themselves.
async fn shown(engine: &DockerEngine, container: &str, image: &str) -> BTreeMap<String, Kind> {
    tiny::remove_container(container).await;
    let body = json!({"Image": image, "Entrypoint": ["none"]});
    let id =
        engine.create_container(container, &CreateBody(body.as_object().unwrap().clone())).await.unwrap();
    let tar = engine.get_archive(&id, "/").await.unwrap().unwrap();
    engine.remove_container(&id).await.unwrap();
    let mut archive = tar::Archive::new(tar.as_slice());
    let entries = archive.entries().unwrap().map(Result::unwrap);
    let told = entries.map(|entry| {
        let kind = match entry.header().entry_type() {
            tar::EntryType::Directory => Kind::Folder,
            tar::EntryType::Symlink => Kind::Link,
            _ => Kind::File,
        };
        let path =
            entry.path().unwrap().to_string_lossy().trim_start_matches('.').trim_matches('/').to_owned();
        (path, kind)
    });
    let own = |path: &str| {
        ["", "dev", "etc", "proc", "sys", ".dockerenv", "dockerenv"]
            .contains(&path.split('/').next().unwrap())
    };
    told.filter(|(path, _)| !own(path)).collect()
}

/// What a list says of base and layers, but for what we add.
fn kinds(contents: &Contents) -> BTreeMap<String, Kind> {
    let parts = contents.parts.iter().filter(|(name, _)| *name != "files").map(|(_, part)| part);
    parts.flat_map(|part| part.entries.iter()).map(|(path, entry)| (String::from(path), entry.kind)).collect()
}

/// Two layers, in the second of which entries lie below links and files of the first, and what else of a base's own whiteouts engines
/// unpack.
const LAYERS: [&[&str]; 2] = [
    &[
        "usr/",
        "usr/lib/",
        "usr/lib/a",
        "one -> usr/lib",
        "two -> usr/lib",
        "three -> usr/lib",
        "four -> nowhere",
        "five",
        "six -> /usr/lib",
        "up/",
        "up/b/",
        "b -> up/b",
        "up/b/c -> ../..",
        "same -> usr/lib",
        "same/z",
        "folder -> usr/lib",
        "gone -> usr/lib",
        "d/",
        "d/old",
        "e/",
        "e/old",
        "p",
        "was/",
        "was/x",
        "file",
        "q/",
        "q/old",
    ],
    &[
        "one/x",
        "two/.wh.a",
        "three/.wh..wh..opq",
        "three/y",
        "four/x",
        "five/x",
        "six/x",
        "b/c/x",
        "folder/",
        "folder/x",
        ".wh.gone",
        "d/",
        "d/new",
        "d/.wh..wh..opq",
        "e/.wh..wh..opq",
        ".wh.p",
        "p",
        "was",
        "file/",
        "file/x",
        ".wh.q",
        "q/",
        "q/new",
    ],
];

#[tokio::test]
async fn base_with_entries_below_its_links_is_listed_as_the_engine_shows_it_and_told() {
    let engine = tiny::engine().await;
    let name = "bases-links:1";
    tiny::remove_image(name).await;
    let image = tiny::image_of_tars(&LAYERS.map(tar_of));
    let daemon = Daemon::new(Arc::new(engine.clone()), name.parse().unwrap());
    daemon.put(&image, &()).await.unwrap();
    let shown = shown(&engine, "bases-links", name).await;

    let folder = TempDir::new().unwrap();
    let path = |below: &str| folder.path().join(below);
    fs::write(path("ours"), "ours").unwrap();
    let recipe =
        format!("name: x\nversion: 1\nrole: plain\nbase: docker-daemon:{name}\nfiles: {{ours: /ours}}\n");
    fs::write(path("on.yaml"), recipe).unwrap();
    let build = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tarsup"));
        command.args(["build", "on.yaml", "-o", "oci:out:1"]).args(more).current_dir(folder.path());
        command.env("TARSUP_STORE", path("store")).env("TARSUP_CACHE", path("cache")).output().unwrap()
    };
    let output = build(&[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    for told in [
        "`one/x` lies below the link `one`",
        "`two/.wh.a` lies below the link `two`",
        "`five/x` lies below the file",
    ] {
        assert!(said.contains(told), "{said}");
    }
    // An image without a list, read by its layers.
    let mut read = kinds(&contents::folded(&image).unwrap());
    assert_eq!(read.insert("b/c".to_owned(), Kind::Folder), None);
    assert_eq!(read, shown);

    let contents = Contents::of(&layout::read(&path("out"), None).unwrap()).unwrap().unwrap();
    // The specification has it empty, and engines do not.
    assert!(shown.contains_key("q/old"), "{shown:?}");
    assert!(said.contains("`.wh.q` deletes a folder that its own layer has too"), "{said}");
    let mut listed = kinds(&contents);
    // A folder that no entry names is one all the same.
    assert_eq!(listed.insert("b/c".to_owned(), Kind::Folder), None);
    assert_eq!(listed, shown);
    assert_eq!(build(&["--strict"]).status.code(), Some(3));
    tiny::remove_image(name).await;
}
