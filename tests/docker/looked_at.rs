//! `inspect docker-daemon:`: what the engine, the store and the cache tell, and the image itself only where nothing else does.

use std::fs;
use std::process::{Command, Output};

use serde_json::{Value, json};
use tarsup::engine::Engine as _;
use tempfile::TempDir;

use crate::tiny;

/// A folder with a recipe, a store and a cache of its own.
struct Bench(TempDir);

impl Bench {
    fn path(&self, below: &str) -> std::path::PathBuf {
        self.0.path().join(below)
    }

    fn run(&self, arguments: &[&str]) -> (Value, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tarsup"));
        command.args(arguments).arg("--json").current_dir(self.0.path());
        let places = [("TARSUP_STORE", "store"), ("TARSUP_CACHE", "cache")];
        let Output { status, stdout, stderr } =
            command.envs(places.map(|(name, below)| (name, self.path(below)))).output().unwrap();
        let words = String::from_utf8_lossy(&stderr).into_owned();
        assert!(status.success(), "{arguments:?}: {words}\n{}", String::from_utf8_lossy(&stdout));
        (serde_json::from_slice(&stdout).unwrap(), words)
    }

    /// What is shown of an image, without its name.
    fn inspect(&self, arguments: &[&str]) -> (Value, String) {
        let (mut shown, words) = self.run(&[&["inspect"], arguments].concat());
        shown["image"] = Value::Null;
        (shown, words)
    }

    /// What a person is shown of an image, from its parts on; without digests and what an engine does not tell.
    fn parts(&self, image: &str) -> Vec<Vec<String>> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tarsup"));
        let places = [("TARSUP_STORE", "store"), ("TARSUP_CACHE", "cache")];
        command.args(["inspect", image]).envs(places.map(|(name, below)| (name, self.path(below))));
        let output = command.current_dir(self.0.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let lines = text.lines().map(str::trim).skip_while(|line| *line != "parts").skip(2);
        let lines = lines.take_while(|line| *line != "layers");
        // Name, version, build id and size; the next column an engine does not tell.
        lines
            .map(|line| {
                line.split("  ")
                    .filter(|word| !word.is_empty())
                    .take(4)
                    .map(|word| word.trim().to_owned())
                    .collect()
            })
            .collect()
    }

    fn forget(&self) {
        for below in ["store", "cache"] {
            let _ = fs::remove_dir_all(self.path(below));
        }
    }
}

/// Without what an engine does not tell.
fn told(shown: &Value) -> Value {
    let mut shown = shown.clone();
    for key in ["digest", "config_digest"] {
        shown[key] = Value::Null;
    }
    for layer in shown["layers"].as_array_mut().unwrap() {
        *layer = json!({"name": layer["name"], "diff_id": layer["diff_id"]});
    }
    for part in shown["parts"].as_array_mut().unwrap() {
        part["compressed"] = Value::Null;
    }
    shown
}

const TAKEN_OUT: &str = "taken out of the engine";

#[tokio::test]
async fn image_of_an_engine_is_shown_without_being_taken_out_and_taken_out_once_for_its_bill() {
    let engine = tiny::engine().await;
    let name = "looked-at:1";
    tiny::remove_image(name).await;
    let bench = Bench(TempDir::new().unwrap());
    fs::write(bench.path("ours"), "of ours\n").unwrap();
    let recipe = "name: looked-at\nversion: 1\nrole: plain\nbase: scratch\nfiles: {ours: /data/ours}\n\
                  entrypoint: [/data/ours]\nvolumes: [/data/volume]\nports: [80]\n";
    fs::write(bench.path("plain.yaml"), recipe).unwrap();
    let image = format!("docker-daemon:{name}");
    bench.run(&["build", "plain.yaml", "-o", &image, "-o", "oci:out:1"]);
    let (whole, _) = bench.inspect(&["oci:out:1"]);
    assert_eq!(whole["parts"][0]["name"], "files", "{whole:#}");
    assert_eq!(whole["parts"][0]["compressed"], whole["layers"][0]["size"], "{whole:#}");

    // What was sent from here is known, its bytes too.
    let (sent, words) = bench.inspect(&[&image]);
    assert_eq!((&sent, words.contains(TAKEN_OUT)), (&whole, false), "{words}");
    let (sent, words) = bench.inspect(&[&image, "--sbom", "near.json"]);
    assert_eq!((&sent, words.contains(TAKEN_OUT)), (&whole, false), "{words}");

    // What was sent from elsewhere is told by the engine. To a person at once, and nothing is read for it:
    let parts = bench.parts("oci:out:1");
    assert_eq!(parts.len(), 1, "{parts:?}");
    bench.forget();
    assert_eq!(bench.parts(&image), parts);
    assert!(!bench.path("cache").exists(), "the list was read");
    // to a program with all of its list, out of a container; the next time by the cache.
    let (shown, words) = bench.inspect(&[&image]);
    assert_eq!((told(&shown), words.contains(TAKEN_OUT)), (told(&whole), false), "{words}");
    let known = |key: &str| shown[key].is_null() || shown[key] == whole[key];
    assert!(
        known("digest") && known("config_digest") && shown["digest"] != shown["config_digest"],
        "{shown:#}"
    );
    assert!(shown["layers"][0]["size"].is_null() && shown["layers"][0]["unpacked"].is_u64(), "{shown:#}");
    assert_eq!(bench.inspect(&[&image]).0, shown);
    let containers = engine.list_containers(&[]).await.unwrap();
    assert!(containers.iter().all(|one| !one.name.starts_with("tarsup-look-")), "{containers:?}");

    // A bill tells digests that the engine does not.
    let (_, words) = bench.inspect(&[&image, "--sbom", "bill.json"]);
    assert!(words.contains(TAKEN_OUT), "{words}");
    let bill = fs::read(bench.path("bill.json")).unwrap();
    let (_, words) = bench.inspect(&[&image, "--sbom", "bill.json"]);
    assert!(!words.contains(TAKEN_OUT), "{words}");
    assert_eq!(fs::read(bench.path("bill.json")).unwrap(), bill);
    tiny::remove_image(name).await;
}

#[tokio::test]
async fn image_of_others_is_shown_by_its_layers_alone() {
    let engine = tiny::engine().await;
    let base = tiny::actor_image(&engine, "looked-at-actor").await.to_string();
    let bench = Bench(TempDir::new().unwrap());
    let image = format!("docker-daemon:{base}");
    // Nothing of ours is in it: its layers are known, and nobody has a list.
    let (shown, words) = bench.inspect(&[&image]);
    assert!(!words.contains(TAKEN_OUT) && shown["parts"] == json!([]), "{words}\n{shown:#}");
    let found = engine.inspect_image(&base).await.unwrap().unwrap();
    let layers: Vec<&str> =
        shown["layers"].as_array().unwrap().iter().map(|layer| layer["diff_id"].as_str().unwrap()).collect();
    assert_eq!(layers, found.diff_ids.iter().map(ToString::to_string).collect::<Vec<_>>());
}

#[tokio::test]
async fn image_of_an_engine_is_built_upon_whoever_else_has_it() {
    tiny::engine().await;
    let (name, bench) = ("built-upon:1", Bench(TempDir::new().unwrap()));
    tiny::remove_image(name).await;
    // What is covered stays below the limit.
    fs::write(bench.path("one"), "what stays\n".repeat(100)).unwrap();
    fs::write(bench.path("two"), "of the first\n").unwrap();
    let recipe =
        "name: built-upon\nversion: 1\nrole: plain\nbase: scratch\nfiles: {one: /data/one, two: /data/two}\n";
    fs::write(bench.path("plain.yaml"), recipe).unwrap();
    let image = format!("docker-daemon:{name}");
    bench.run(&["build", "plain.yaml", "-o", &image, "-o", name]);
    fs::write(bench.path("two"), "of the second\n").unwrap();
    let next = |after: &str| {
        bench.run(&["build", "plain.yaml", "--version", "2", "--after", after, "-o", "oci:out:2"]).0
    };
    let names = |built: &Value| -> Vec<String> {
        built["layers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|layer| layer["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let on_top = next(name);
    assert_eq!(names(&on_top), ["files", "files", "contents"]);
    let plan = ["build", "plain.yaml", "--version", "2", "--after", &image, "-o", "oci:out:2", "--plan"];
    let (planned, _) = bench.run(&plan);
    assert_eq!((&planned["digest"], &planned["inexact"]), (&on_top["digest"], &Value::Null), "{planned:#}");
    assert_eq!(next(&image)["digest"], on_top["digest"], "the store has it");
    fs::remove_dir_all(bench.path("store")).unwrap();
    assert_eq!(next(&image)["digest"], on_top["digest"], "the cache has what was sent from here");
    bench.forget();
    // A plan takes nothing out of the engine, and says what it does not know therefore.
    let (planned, words) = bench.run(&plan);
    let why = planned["inexact"].as_str().unwrap_or_else(|| panic!("{planned:#}"));
    assert!(why.contains(&format!("{image} is known to neither the store nor the cache")), "{why}");
    assert_eq!(
        (&planned["outputs"][0]["inexact"], words.contains(TAKEN_OUT)),
        (&why.into(), false),
        "{words}"
    );
    assert_ne!(planned["digest"], on_top["digest"]);
    assert_eq!(next(&image)["digest"], on_top["digest"], "the engine itself has it");
    tiny::remove_image(name).await;
}

#[tokio::test]
async fn image_of_an_engine_is_patched_and_taken_out_only_where_nobody_else_has_it() {
    tiny::engine().await;
    let (name, bench) = ("patched-in-place:1", Bench(TempDir::new().unwrap()));
    let next = "patched-in-place:2";
    for name in [name, next] {
        tiny::remove_image(name).await;
    }
    for (file, text) in [
        ("deploy/conf/tarsnode/conf/tars.tarsnode.config.conf", "<tars></tars>\n"),
        ("deploy/sql/db_tars.sql", "CREATE TABLE t (a INT);\n"),
        ("deploy/sql/template/tars.default", "<tars></tars>\n"),
        ("init", "#!/bin/sh\n"),
    ] {
        fs::create_dir_all(bench.path(file).parent().unwrap()).unwrap();
        fs::write(bench.path(file), text).unwrap();
    }
    let pack = |text: &str| {
        fs::create_dir_all(bench.path("made/tarsnode/bin")).unwrap();
        fs::write(bench.path("made/tarsnode/bin/tarsnode"), format!("#!/bin/sh\n# {text}\n")).unwrap();
        let (archive, folder) = (bench.path("tarsnode.tgz"), bench.path("made"));
        let mut packing = Command::new("tar");
        packing.arg("-czf").arg(archive).arg("-C").arg(folder).arg("tarsnode");
        assert!(packing.status().unwrap().success());
    };
    let recipe = "name: patched-in-place\nversion: 1\nrole: node\nbase: scratch\npackages: [tarsnode.tgz]\ndeploy: deploy\ninit: init\n";
    fs::write(bench.path("node.yaml"), recipe).unwrap();
    pack("the first");
    let image = format!("docker-daemon:{name}");
    bench.run(&["build", "node.yaml", "-o", &image, "-o", name]);
    pack("the second");
    let patch = |from: &str, output: &str| {
        let command = ["build", "--patch", "tarsnode=tarsnode.tgz", "--version", "2", from, "-o", output];
        let (built, words) = bench.run(&command);
        (built, words.contains(TAKEN_OUT))
    };
    let (patched, _) = patch(name, "oci:out:2");
    let (of_engine, is_taken_out) = patch(&image, "oci:out:3");
    assert_eq!((&of_engine["digest"], is_taken_out), (&patched["digest"], false), "the store has it");
    fs::remove_dir_all(bench.path("store")).unwrap();
    let (of_engine, is_taken_out) = patch(&image, "oci:out:4");
    assert_eq!((&of_engine["digest"], is_taken_out), (&patched["digest"], false), "the cache has it");
    bench.forget();
    let (of_engine, is_taken_out) = patch(&image, &format!("docker-daemon:{next}"));
    assert!(is_taken_out);
    let diff_ids = |built: &Value| -> Vec<Value> {
        let layers = built["layers"].as_array().unwrap();
        layers.iter().map(|layer| layer["diff_id"].clone()).collect()
    };
    assert_eq!(diff_ids(&of_engine), diff_ids(&patched));
    let shown = bench.inspect(&[&format!("docker-daemon:{next}")]).0;
    assert!(shown["parts"][0]["patched"].as_str().unwrap().contains(" on sha256:"), "{shown:#}");
    for name in [name, next] {
        tiny::remove_image(name).await;
    }
}
