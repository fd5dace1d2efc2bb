//! `build --plan` and `copy --dry-run`: what they say is what happens, to the byte, and saying it changes nothing but the cache.

use std::fs;
use std::sync::Arc;

use serde_json::Value;
use tarsup::engine::{Engine as _, ImageStore};
use tarsup::oci::Reference;
use tarsup::tars::Service;
use tarsup::transport::daemon::Daemon;
use tarsup::transport::held::Ahead;
use tarsup::transport::{Forecast, Sink as _, layout};

use crate::fake::FakeEngine;
use crate::packages::{Entry, Packer, RECIPE, Workshop};
use crate::programs::{PROGRAM, Program, debian, write_base};
use crate::registry::image::Bench;
use crate::registry::stub::Stub;

/// The sum over those outputs that go to a registry.
fn to_registry(document: &Value) -> u64 {
    let outputs = document["outputs"].as_array().unwrap();
    let registry = outputs.iter().filter(|output| output["image"].as_str().unwrap().starts_with("docker://"));
    registry.map(|output| output["bytes_sent"].as_u64().unwrap()).sum()
}

/// What lies in a workshop, but for the cache.
fn beside_cache(workshop: &Workshop) -> Vec<String> {
    workshop.listing().into_iter().filter(|path| !path.starts_with("cache")).collect()
}

/// The blobs in the cache.
fn cached(workshop: &Workshop) -> Vec<String> {
    workshop.listing().into_iter().filter(|path| path.starts_with("cache/blobs/sha256/")).collect()
}

/// What is said of an output, and why that is not exact.
fn exact(output: &Value) -> (Value, Value) {
    let mut output = output.clone();
    let inexact = output.as_object_mut().unwrap().remove("inexact");
    (output, inexact.unwrap_or_default())
}

/// Plans a build, then carries it out: both say the same, the registry got so many bytes, and the plan changed nothing.
fn planned_then_built(workshop: &Workshop, stub: &Stub, command: &[&str]) -> (Value, Value) {
    let (files, before) = (beside_cache(workshop), stub.kept.lock().unwrap().taken as u64);
    let changes = || ["POST", "PUT", "PATCH"].map(|method| stub.count(method, "")).iter().sum::<usize>();
    let earlier = changes();
    let plan = workshop.json(&[command, &["--plan"]].concat());
    assert_eq!(beside_cache(workshop), files, "a plan writes to its cache alone");
    let blobs = cached(workshop);
    assert_eq!(changes(), earlier, "a plan only asks");
    let built = workshop.json(command);
    let made = built["layers"].as_array().unwrap().iter().filter(|layer| layer["cached"] != true);
    assert_eq!(
        (made.count(), cached(workshop)),
        (0, blobs),
        "what a plan compressed is not compressed again"
    );
    for key in ["image", "digest", "config_digest"] {
        assert_eq!(plan[key], built[key], "{key}");
    }
    let outputs: Vec<Value> =
        plan["outputs"].as_array().unwrap().iter().map(|output| exact(output).0).collect();
    assert_eq!(outputs, *built["outputs"].as_array().unwrap());
    let layers = |document: &Value| {
        let layers = document["layers"].as_array().unwrap().clone();
        layers
            .iter()
            .map(|layer| ["name", "diff_id", "digest", "size"].map(|key| layer[key].clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(layers(&plan), layers(&built));
    assert_eq!(stub.kept.lock().unwrap().taken as u64 - before, to_registry(&plan));
    (plan, built)
}

fn origins(plan: &Value) -> Vec<(&str, &str)> {
    let layers = plan["layers"].as_array().unwrap().iter();
    layers.map(|layer| (layer["name"].as_str().unwrap(), layer["origin"].as_str().unwrap())).collect()
}

#[test]
fn plan_of_a_build_says_what_each_output_gets_to_the_byte() {
    let (stub, workshop) = (Stub::honest(), crate::registry::cold::workshop());
    let (one, again, other) = (stub.name("tars/a:1"), stub.name("tars/a:2"), stub.name("tars/b:1"));
    let outputs = ["-o", &one, "-o", &again, "-o", &other, "-o", "oci:out:1", "-o", "oci:out:2"];
    let outputs = [&outputs[..], &["-o", "docker-archive:image.tar", "-o", "tars/framework:1"]].concat();
    let command = [&["build", "framework.yaml"][..], &outputs].concat();
    let (plan, _) = planned_then_built(&workshop, &stub, &command);
    assert!(origins(&plan).iter().all(|(_, origin)| *origin == "made"), "{plan}");
    let size = |file: &str| fs::metadata(workshop.path(file)).unwrap().len();
    assert_eq!(plan["outputs"][5]["bytes_sent"], size("image.tar"));
    let blobs = fs::read_dir(workshop.path("out/blobs/sha256")).unwrap();
    let blobs: u64 = blobs.map(|blob| blob.unwrap().metadata().unwrap().len()).sum();
    assert_eq!(plan["outputs"][3]["bytes_sent"], blobs);
    assert_eq!(plan["outputs"][4]["bytes_sent"], 0, "a second name is no bytes");
    assert_eq!(plan["outputs"][2]["layers_sent"], 0, "another repository of the registry has it by then");
    let is_exact = |output: &Value| exact(output).1.is_null();
    let others = plan["outputs"].as_array().unwrap().iter().enumerate().filter(|(index, _)| *index != 2);
    assert!(others.map(|(_, output)| output).all(is_exact) && plan["inexact"].is_null(), "{plan:#}");
    assert!(!is_exact(&plan["outputs"][2]), "{plan:#}");

    // Once more: the cache has all of it, and so has the registry.
    let (plan, _) = planned_then_built(&workshop, &stub, &command);
    assert!(origins(&plan).iter().all(|(_, origin)| *origin == "cache"), "{plan}");
    assert_eq!(plan["outputs"][0]["layers_sent"], 0);

    // On top of the predecessor, on a machine without a cache.
    crate::registry::cold::pack_stat(&workshop, 2);
    fs::remove_dir_all(workshop.path("cache")).unwrap();
    let next = stub.name("tars/a:3");
    let command = ["build", "framework.yaml", "--version", "3", "--after", &one, "-o", &next];
    let (plan, _) = planned_then_built(&workshop, &stub, &command);
    let made = origins(&plan).into_iter().filter(|(_, origin)| *origin == "made").collect::<Vec<_>>();
    assert_eq!(made, [("tarsstat", "made"), ("contents", "made")]);
    assert_eq!(plan["outputs"][0]["layers_sent"], 2);
}

#[test]
fn plan_of_a_patch_says_what_the_registry_gets_to_the_byte() {
    let (stub, workshop) = (Stub::honest(), crate::registry::cold::workshop());
    let (one, two) = (stub.name("tars/a:1"), stub.name("tars/a:1-1"));
    workshop.json(&["build", "framework.yaml", "-o", &one]);
    crate::registry::cold::pack_stat(&workshop, 2);
    let command =
        ["build", "--patch", "tarsstat=packages/tarsstat.tgz", "--version", "1-1", &one, "-o", &two];
    let (plan, _) = planned_then_built(&workshop, &stub, &command);
    assert_eq!(plan["outputs"][0]["layers_sent"], 2);
}

#[test]
fn plan_shows_what_the_gates_refuse_beside_everything_else() {
    let workshop = Workshop::new();
    write_base(&workshop.path("base.tar"), &debian(vec![]));
    workshop.write("framework.yaml", &RECIPE.replace("scratch", "rootfs:base.tar"));
    let stray = Program { needed: &["libmariadb.so.3"], runpath: "/home/me/build/lib", ..PROGRAM };
    let file = crate::packages::Entry::File("tarsstat/tarsstat".to_owned(), stray.bytes(), true);
    Packer { mtime: 1_500_000_000, ..Packer::default() }
        .write(&workshop.path("packages/tarsstat.tgz"), vec![file]);
    let files = beside_cache(&workshop);
    let output = workshop.run(&["build", "framework.yaml", "--plan", "--strict", "--json"]);
    assert_eq!(output.status.code(), Some(3));
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(beside_cache(&workshop), files);
    assert!(plan["outputs"][0]["bytes_sent"].as_u64().unwrap() > 1000, "{plan}");
    let refused = plan["refused"].as_array().unwrap();
    let message = |index: usize| refused[index]["message"].as_str().unwrap();
    assert!(message(0).contains("tarsstat was built") && message(0).contains("days before"), "{plan}");
    assert!(message(1).contains("tarsstat needs libmariadb.so.3; no layer has it"), "{plan}");
    assert!(refused[1]["hint"].as_str().unwrap().contains("libmariadb3"), "{plan}");
    let warned = plan["warnings"].as_array().unwrap().iter().filter_map(Value::as_str).collect::<Vec<_>>();
    assert!(warned.iter().any(|warning| warning.contains("/home/me/build/lib")), "{plan}");

    let output = workshop.run(&["build", "framework.yaml", "--plan"]);
    assert_eq!(output.status.code(), Some(3));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(out.contains("would build tars/framework:3.0.17") && out.contains("in the cache"), "{out}");
    assert!(err.contains("error: tarsstat needs libmariadb.so.3; no layer has it\n"), "{err}");
    assert!(err.contains("warning: "), "{err}");
}

#[test]
fn dry_run_of_a_copy_says_what_is_sent_to_the_byte() {
    let (stub, bench) = (Stub::honest(), Bench::new(&[1 << 20, 10, 1000]));
    let copied = |from: &str, to: &str| {
        let taken = || stub.kept.lock().unwrap().taken as u64;
        let before = taken();
        let said = bench.json(&["copy", from, to, "--dry-run"]);
        assert_eq!(taken(), before, "it sends nothing");
        assert_eq!(bench.json(&["copy", from, to]), exact(&said).0);
        if to.starts_with("docker://") {
            assert_eq!(taken() - before, said["bytes_sent"].as_u64().unwrap());
        }
        said
    };
    assert_eq!(copied("oci:image:1", &stub.name("a:1"))["layers_sent"], 3);
    assert_eq!(copied("oci:image:1", &stub.name("a:2"))["layers_sent"], 0);
    let mounted = copied(&stub.name("a:1"), &stub.name("b:1"));
    assert_eq!((&mounted["layers_skipped"], exact(&mounted).1.is_null()), (&3.into(), false), "{mounted}");
    copied("oci:image:1", "docker-archive:x.tar");
    assert_eq!(copied("oci:image:1", "oci:copy:1")["layers_sent"], 3);
    assert_eq!(copied("oci:image:1", "oci:copy:2")["bytes_sent"], 0);
    fs::create_dir(bench.path("other")).unwrap();
    fs::write(bench.path("other/file"), "x").unwrap();
    assert!(bench.refused(&["copy", "oci:image:1", "oci:other:1", "--dry-run"], 2).contains("no OCI layout"));
}

#[test]
fn dry_run_says_what_comes_on_top_where_a_registry_mounts_nothing() {
    let (stub, bench) = (Stub::honest(), Bench::new(&[1 << 20, 10, 1000]));
    stub.kept.lock().unwrap().mounts_nothing = true;
    let (one, other) = (stub.name("a:1"), stub.name("b:1"));
    assert!(exact(&bench.json(&["copy", "oci:image:1", &one, "--dry-run"])).1.is_null());
    bench.json(&["copy", "oci:image:1", &one]);
    let said = bench.json(&["copy", &one, &other, "--dry-run"]);
    let output = bench.command(&["copy", &one, &other, "--dry-run"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let sent = bench.json(&["copy", &one, &other])["bytes_sent"].as_u64().unwrap();
    let blobs = bench.layers.iter().chain([&bench.config]).map(|digest| bench.blob(digest).len() as u64);
    let blobs: u64 = blobs.sum();
    assert_eq!(said["bytes_sent"].as_u64().unwrap() + blobs, sent);
    let inexact = exact(&said).1;
    let inexact = inexact.as_str().unwrap();
    assert!(inexact.contains(&format!("count as mounted: 4, with {blobs} bytes;")), "{inexact}");
    assert!(text.contains(&format!("\n  not exact: {inexact}\n")), "{text}");
}

#[tokio::test]
async fn forecast_for_an_engine_is_what_it_is_sent() {
    let workshop = Workshop::new();
    workshop.json(&["build", "framework.yaml", "-o", "oci:out:1"]);
    workshop.pack(Packer::default(), Service::Property, "3.0.18");
    workshop.json(&["build", "framework.yaml", "--version", "2", "--after", "oci:out:1", "-o", "oci:out:2"]);
    let engine = Arc::new(FakeEngine::new());
    for (tag, name, layers) in [("1", "x:1", 14), ("2", "x:2", 2), ("2", "x:2", 0)] {
        let image = layout::read(&workshop.path("out"), Some(tag)).unwrap();
        let daemon = Daemon::new(engine.clone(), name.parse().unwrap());
        let (calls, before) = (engine.calls().len(), engine.received());
        let Forecast { receipt: said, inexact } = daemon.forecast(&image).await.unwrap();
        assert_eq!(inexact, None, "a classic store tells its layers");
        let asked = engine.calls().split_off(calls);
        let changes = |call: &String| ["load", "tag", "create"].iter().any(|word| call.starts_with(word));
        assert!(!asked.iter().any(changes), "{asked:?}");
        assert_eq!(daemon.put(&image, &()).await.unwrap(), said);
        assert_eq!(engine.received() - before, said.bytes_sent);
        assert_eq!(said.layers_sent, layers, "{name}");
    }
}

/// The images of the repository are asked for, and of hundreds of others none.
#[tokio::test]
async fn engine_with_many_other_images_is_asked_for_a_handful_at_each_copy() {
    let workshop = Workshop::new();
    workshop.json(&["build", "framework.yaml", "-o", "oci:out:1"]);
    workshop.pack(Packer::default(), Service::Property, "3.0.18");
    workshop.json(&["build", "framework.yaml", "--version", "2", "--after", "oci:out:1", "-o", "oci:out:2"]);
    let engine = Arc::new(FakeEngine::new());
    let put = async |tag: &str| {
        let image = layout::read(&workshop.path("out"), Some(tag)).unwrap();
        let name = format!("tars/framework:{tag}").parse().unwrap();
        let before = engine.calls().len();
        let receipt = Daemon::new(engine.clone(), name).put(&image, &()).await.unwrap();
        let asked = engine.calls().split_off(before);
        let count = |of: &str| asked.iter().filter(|call| call.starts_with(of)).count();
        assert!(count("inspect image") <= 6 && count("list images") <= 2, "{tag}: {asked:?}");
        receipt.layers_sent
    };
    put("1").await;
    for number in 0..300 {
        engine.add_image(&format!("other/app-{number}:1"), &format!("app {number}"), &[]);
    }
    assert_eq!((put("2").await, put("2").await, put("1").await), (2, 0, 0));
}

/// What was asked ahead is not asked again, and of what was just made nobody asks whether it is there under another name; what
/// containerd says of a load is its proof.
#[tokio::test]
async fn image_that_was_just_made_is_sent_without_a_question() {
    let workshop = Workshop::new();
    workshop.json(&["build", "framework.yaml", "-o", "oci:out:1"]);
    workshop.pack(Packer::default(), Service::Property, "3.0.18");
    workshop.json(&["build", "framework.yaml", "--version", "2", "--after", "oci:out:1", "-o", "oci:out:2"]);
    let [first, second] = ["1", "2"].map(|tag| layout::read(&workshop.path("out"), Some(tag)).unwrap());
    let [one, two]: [Reference; 2] =
        ["tars/framework:1", "tars/framework:2"].map(|name| name.parse().unwrap());
    for engine in [FakeEngine::containerd(), FakeEngine::new()] {
        let engine = Arc::new(engine);
        let asked = async |daemon: Daemon| {
            let before = engine.calls().len();
            let receipt = daemon.put(&second, &()).await.unwrap();
            (receipt.layers_sent, engine.calls().split_off(before))
        };
        Daemon::new(engine.clone(), one.clone()).put(&first, &()).await.unwrap();
        let ahead = Ahead::of(engine.as_ref(), &two, Some("1")).await.unwrap();
        assert!(ahead.is_free);
        let (sent, calls) =
            asked(Daemon::new(engine.clone(), two.clone()).knowing(Some(ahead)).of_new()).await;
        let is_classic = engine.info().await.unwrap().image_store == ImageStore::Classic;
        // A classic store is asked for the image afterwards.
        let proof = if is_classic { &["load", "inspect image tars/framework:2"][..] } else { &["load"] };
        assert_eq!((sent, calls.iter().map(String::as_str).collect::<Vec<_>>().as_slice()), (2, proof));

        // A name that leads somewhere is looked at, and what is not new is asked for by its id as well.
        let ahead = Ahead::of(engine.as_ref(), &two, Some("1")).await.unwrap();
        assert!(!ahead.is_free);
        let (_, calls) = asked(Daemon::new(engine.clone(), two.clone()).knowing(Some(ahead))).await;
        assert!(
            calls.len() >= 2 && calls[..2].iter().all(|call| call.starts_with("inspect image")),
            "{calls:?}"
        );
    }
}

/// The bytes of a forecast without what wraps the layers: a few headers, config, manifests, and the ends of blocks.
fn is_wrapped(sent: u64, layers: u64) -> bool {
    (layers + 1..layers + 24 * 1024).contains(&sent)
}

#[tokio::test]
async fn bytes_of_a_diff_are_those_that_each_kind_of_engine_is_sent() {
    let workshop = Workshop::new();
    workshop.json(&["build", "framework.yaml", "-o", "tars/framework:1", "-o", "oci:out:1"]);
    // Half of it makes a gzip smaller, so that tars and blobs differ by far more than what wraps them.
    let half = crate::registry::image::noise(7, 150_000);
    let file = Entry::File("tarsproperty/tarsproperty".to_owned(), [half, vec![0; 150_000]].concat(), true);
    Packer::default().write(&workshop.path("packages/tarsproperty.tgz"), vec![file]);
    let build = ["build", "framework.yaml", "--version", "2", "--after", "tars/framework:1"];
    let relayered = workshop.json(&[&build[..], &["--relayer", "--plan"]].concat());
    for (name, layers) in [("relayered", &["--relayer"][..]), ("on top", &[])] {
        let outputs = ["-o", "tars/framework:2", "-o", "oci:out:2"];
        let made = workshop.json(&[&build[..], layers, &outputs].concat());
        let diff = workshop.json(&["diff", "tars/framework:1", "tars/framework:2"]);
        let bytes = |key: &str| diff[key]["bytes"].as_u64().unwrap();
        let image = |tag: &str| layout::read(&workshop.path("out"), Some(tag)).unwrap();
        let engines = [("classic_near", FakeEngine::new()), ("containerd", FakeEngine::containerd())];
        for (key, engine) in engines {
            engine.add_image("x:1", "one", &[]);
            engine.edit_image("x:1", |held| held.diff_ids = image("1").diff_ids());
            let daemon = Daemon::new(Arc::new(engine), "x:2".parse().unwrap());
            let Forecast { receipt: said, inexact } = daemon.forecast(&image("2")).await.unwrap();
            // containerd's store does not tell how what it has is compressed.
            assert_eq!(inexact.is_some(), key == "containerd", "{inexact:?}");
            assert_eq!(diff[key]["layers"], said.layers_sent, "{name}, {key}: {diff}");
            assert!(is_wrapped(said.bytes_sent, bytes(key)), "{name}, {key}: {said:?}, {diff}");
        }
        // Over a network a classic engine is sent the same layers as they are stored.
        let sizes =
            made["layers"].as_array().unwrap().iter().rev().map(|layer| layer["size"].as_u64().unwrap());
        let sent = usize::try_from(diff["classic"]["layers"].as_u64().unwrap()).unwrap();
        assert_eq!(
            (sent, bytes("classic")),
            (
                usize::try_from(diff["classic_near"]["layers"].as_u64().unwrap()).unwrap(),
                sizes.take(sent).sum()
            )
        );
        assert!(bytes("classic_near") > bytes("classic") + 140_000, "{name}: {diff}");
        let output = workshop.run(&["diff", "tars/framework:1", "tars/framework:2"]);
        let text = String::from_utf8_lossy(&output.stdout);
        let told = |bytes: u64| {
            let line = text.lines().last().unwrap();
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            let kilobytes = bytes as f64 / 1000.0;
            assert!(line.contains(&format!("{kilobytes:.1} kB")), "{kilobytes}: {line}");
        };
        told(bytes("classic_near"));
        told(bytes("classic"));
        if name == "relayered" {
            let note = relayered["note"].as_str().unwrap();
            let (near, far) = (bytes("classic_near"), bytes("classic"));
            let words =
                format!("of them, {near} bytes as tars through its socket, {far} bytes over a network");
            assert!(note.ends_with(&words), "{note}");
        }
    }
}

#[test]
fn timings_say_where_the_time_went() {
    let workshop = Workshop::new();
    let output = workshop.run(&["build", "framework.yaml", "--timings", "--json", "-o", "oci:out:1"]);
    assert!(output.status.success());
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = document["timings"].as_array().unwrap();
    let times =
        |name: &str| rows.iter().find(|row| row["name"] == name).map(|row| row["times"].as_u64().unwrap());
    assert_eq!(times("read the packages"), Some(1), "{document}");
    assert_eq!(times("compress tarsstat"), Some(1), "{document}");
    assert_eq!(times("write oci:out:1"), Some(1), "{document}");
    assert!(rows.iter().all(|row| row["busy_seconds"].as_f64().unwrap() >= row["seconds"].as_f64().unwrap()));
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(words.contains("compress tarsstat") && words.contains("the whole command"), "{words}");

    let again = workshop.json(&["build", "framework.yaml", "--timings", "-o", "oci:out:1"]);
    assert!(!again["timings"].to_string().contains("compress"), "nothing is compressed any more: {again}");
    let copied = workshop.json(&["copy", "oci:out:1", "oci:copy:1", "--timings"]);
    assert!(copied["timings"].to_string().contains("write oci:copy:1"), "{copied}");
    assert!(workshop.json(&["copy", "oci:out:1", "oci:copy:1"]).get("timings").is_none());
}
