//! `tarsup store gc`: what nobody needs goes, and nothing that an image or a running build needs.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tarsup::oci::Digest;
use tarsup::tars::Service;

use crate::packages::{Packer, Workshop, document};

/// Names in a folder.
fn names(folder: &Path) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(folder) else { return BTreeSet::new() };
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn blobs(workshop: &Workshop, folder: &str) -> BTreeSet<String> {
    names(&workshop.path(folder).join("blobs/sha256"))
}

/// Puts a blob into the store, as anybody might.
fn put(workshop: &Workshop, bytes: &[u8]) -> Digest {
    let digest = Digest::of(bytes);
    fs::write(workshop.path("store/blobs/sha256").join(digest.hex()), bytes).unwrap();
    digest
}

/// All that the cache knows was last used so long ago.
fn age(workshop: &Workshop, folder: &str, days: u64) {
    let then = SystemTime::now() - Duration::from_hours(24 * days);
    for name in names(&workshop.path(folder)) {
        fs::File::open(workshop.path(folder).join(name)).unwrap().set_modified(then).unwrap();
    }
}

#[test]
fn gc_takes_what_no_image_of_the_store_needs_and_leaves_every_image() {
    let workshop = Workshop::new();
    workshop.json(&["build", "framework.yaml", "--version", "1"]);
    let kept = blobs(&workshop, "store");
    workshop.pack(Packer::default(), Service::Log, "3.0.18");
    workshop.json(&["build", "framework.yaml"]);
    workshop.pack(Packer::default(), Service::Log, "3.0.19");
    // The name moves: the manifest, the config, one layer and the list of before are named by nothing.
    let built = workshop.json(&["build", "framework.yaml"]);
    let before = blobs(&workshop, "store");
    let shown = workshop.json(&["store", "gc", "--dry-run"]);
    assert_eq!(blobs(&workshop, "store"), before, "nothing goes in a rehearsal");
    assert_eq!(shown["dry_run"], true);
    let output = workshop.run(&["store", "gc", "--dry-run"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(", no image needs it\n") && text.contains("would be free"), "{text}");

    let gone = workshop.json(&["store", "gc"]);
    assert_eq!((&gone["removed"], &gone["bytes"]), (&shown["removed"], &shown["bytes"]), "as was shown");
    let removed = gone["removed"].as_array().unwrap();
    assert!(removed.iter().all(|file| file["why"] == "unreferenced"), "{gone}");
    let after = blobs(&workshop, "store");
    assert_eq!(removed.len(), before.len() - after.len());
    assert!(!removed.is_empty() && after.is_superset(&kept), "the other image needs all that it had");
    // Manifest and config lie there alone: a layer is the cache's as well, and stays on the disk.
    let bytes = |file: &Value| file["bytes"].as_u64().unwrap();
    let all: u64 = removed.iter().map(bytes).sum();
    let freed = gone["bytes"].as_u64().unwrap();
    assert!(freed > 0 && freed < all, "{gone}");
    assert_eq!(workshop.json(&["inspect", "tars/framework:3.0.17"])["digest"], built["digest"]);
    workshop.json(&["copy", "tars/framework:1", "oci:out:1"]);
    workshop.json(&["store", "verify"]);
    assert_eq!(workshop.json(&["store", "gc"])["removed"], json!([]), "nothing is left to do");
}

#[test]
fn gc_leaves_what_any_entry_of_the_index_leads_to() {
    let workshop = Workshop::new();
    workshop.json(&["build", "framework.yaml"]);
    // As other tools write it: an index for several machines, without a name, and an artifact with a layer of its own kind.
    let layer = put(&workshop, b"somebody's signature");
    let artifact = json!({ "schemaVersion": 2, "artifactType": "x/y",
        "blobs": [{ "mediaType": "x/z", "digest": layer, "size": 20 }] });
    let artifact = put(&workshop, artifact.to_string().as_bytes());
    let (config, data) = (put(&workshop, b"{}"), put(&workshop, b"data"));
    let of_arm = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2 },
        "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": data, "size": 4 }] });
    let of_arm = put(&workshop, of_arm.to_string().as_bytes());
    let several = json!({ "schemaVersion": 2, "manifests": [
        { "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": of_arm, "size": 1 },
        { "mediaType": "application/vnd.oci.artifact.manifest.v1+json", "digest": artifact, "size": 1 }] });
    let several = put(&workshop, several.to_string().as_bytes());
    let nobodys = put(&workshop, b"nobody's");
    let index = workshop.path("store/index.json");
    let mut document: Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    document["manifests"].as_array_mut().unwrap().push(
        json!({ "mediaType": "application/vnd.oci.image.index.v1+json", "digest": several, "size": 1 }),
    );
    fs::write(&index, document.to_string()).unwrap();
    // Neither blobs nor a killed run's.
    fs::write(workshop.path("store/blobs/sha256/README"), "x").unwrap();
    fs::write(workshop.path("store/blobs/sha256/.tarsup-killed"), "x").unwrap();

    let gone = workshop.json(&["store", "gc"]);
    let removed: BTreeSet<&str> = gone["removed"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| file["file"].as_str().unwrap().rsplit('/').next().unwrap())
        .collect();
    assert_eq!(removed, BTreeSet::from([nobodys.hex().as_str(), ".tarsup-killed"]));
    let left = blobs(&workshop, "store");
    for digest in [layer, artifact, config, data, of_arm, several] {
        assert!(left.contains(&digest.hex()), "{digest}");
    }
    assert!(left.contains("README"));
}

#[test]
fn gc_takes_of_the_cache_what_was_not_used_for_long() {
    let workshop = Workshop::new();
    let built = workshop.json(&["build", "framework.yaml"]);
    let cached = blobs(&workshop, "cache");
    let gc = |time: &str| workshop.json(&["store", "gc", "--older-than", time]);
    age(&workshop, "cache/records", 29);
    age(&workshop, "cache/notes", 29);
    assert_eq!(workshop.json(&["store", "gc"])["documents"], 0, "30 days are the default");
    // What is looked at is used: each layer is found, and only so much.
    workshop.pack(Packer::default(), Service::Stat, "3.0.18");
    workshop.json(&["build", "framework.yaml", "--version=2"]);
    let gone = gc("28d");
    let of_stat = |built: &Value| {
        built["layers"].as_array().unwrap().iter().find(|l| l["name"] == "tarsstat").unwrap()["digest"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let removed = gone["removed"].to_string();
    assert!(removed.contains(of_stat(&built).trim_start_matches("sha256:")), "{gone}");
    let left = blobs(&workshop, "cache");
    assert!(left.intersection(&cached).count() > 10, "{left:?}");
    let again = workshop.json(&["build", "framework.yaml", "--version=3"]);
    assert!(
        again["layers"]
            .as_array()
            .unwrap()
            .iter()
            .all(|layer| layer["name"] == "contents" || layer["cached"] == true),
        "{again}"
    );
    // All of it may go, with what a killed build was at; store and images are as they were.
    fs::write(workshop.path("cache/tmp/.tmpkilled"), "x").unwrap();
    let gone = gc("0");
    assert!(gone["removed"].to_string().contains("abandoned"), "{gone}");
    for folder in ["records", "notes", "blobs/sha256", "tmp"] {
        assert_eq!(names(&workshop.path("cache").join(folder)), BTreeSet::new(), "{folder}");
    }
    assert_eq!(workshop.json(&["inspect", "tars/framework:3.0.17"])["digest"], built["digest"]);
    workshop.json(&["store", "verify"]);
    let again = workshop.json(&["build", "framework.yaml", "--version=2"]);
    assert!(again["layers"].as_array().unwrap().iter().all(|layer| layer["cached"] == false), "{again}");
}

#[test]
fn image_that_is_built_again_and_again_keeps_the_layers_that_nobody_has_to_look_for() {
    let workshop = Workshop::new();
    workshop.json(&["build", "framework.yaml"]);
    // The files are old enough to be told by their times from a moment on: the image is noted.
    let noted = || {
        let built = workshop.json(&["build", "framework.yaml"]);
        let note = |name: &String| {
            let text = fs::read_to_string(workshop.path("cache/notes").join(name)).unwrap();
            text.contains("\"warnings\"") && text.contains("\"layers\"")
        };
        names(&workshop.path("cache/notes")).iter().any(note).then_some(built)
    };
    let built = std::iter::repeat_with(noted).flatten().next().unwrap();
    age(&workshop, "cache/records", 40);
    let before = (blobs(&workshop, "cache"), names(&workshop.path("cache/records")));
    workshop.json(&["store", "gc"]);
    assert_eq!((blobs(&workshop, "cache"), names(&workshop.path("cache/records"))), before);
    // A note of what is not there is trusted by nobody, and goes.
    let layer = built["layers"][0]["digest"].as_str().unwrap().trim_start_matches("sha256:").to_owned();
    fs::remove_file(workshop.path("cache/blobs/sha256").join(&layer)).unwrap();
    let again = workshop.json(&["build", "framework.yaml"]);
    assert_eq!((&again["digest"], &again["layers"][0]["cached"]), (&built["digest"], &json!(false)));
    fs::remove_file(workshop.path("cache/blobs/sha256").join(&layer)).unwrap();
    assert!(
        workshop.json(&["store", "gc"])["documents"].as_u64().unwrap() >= 2,
        "the note of the image, and the layer's"
    );
    assert_eq!(workshop.json(&["build", "framework.yaml"])["digest"], built["digest"]);
}

#[test]
fn gc_refuses_a_store_of_which_it_does_not_know_what_is_needed() {
    let workshop = Workshop::new();
    let built = workshop.json(&["build", "framework.yaml"]);
    let nobodys = put(&workshop, b"nobody's");
    let manifest = workshop
        .path("store/blobs/sha256")
        .join(built["digest"].as_str().unwrap().trim_start_matches("sha256:"));
    let is_left = |why: &str| assert!(blobs(&workshop, "store").contains(&nobodys.hex()), "{why}");
    fs::write(&manifest, "{}").unwrap();
    let message = workshop.refused(&["store", "gc"], 2);
    for part in ["the image tars/framework:3.0.17 needs is not known", "nothing is removed", "store verify"] {
        assert!(message.contains(part), "{message}");
    }
    is_left(&message);
    fs::remove_file(&manifest).unwrap();
    let message = workshop.refused(&["store", "gc"], 2);
    assert!(message.contains("the image tars/framework:3.0.17 needs is not known"), "{message}");
    is_left(&message);
    workshop.json(&["build", "framework.yaml"]);
    // No link is followed, in the store and in the cache.
    for folder in ["store/blobs/sha256", "cache/blobs/sha256", "cache/notes"] {
        let (path, moved) = (workshop.path(folder), workshop.path("moved"));
        fs::rename(&path, &moved).unwrap();
        std::os::unix::fs::symlink(&moved, &path).unwrap();
        let message = workshop.refused(&["store", "gc", "--older-than=0"], 2);
        assert!(message.contains("no link is followed"), "{folder}: {message}");
        assert!(!names(&moved).is_empty());
        fs::remove_file(&path).unwrap();
        fs::rename(&moved, &path).unwrap();
    }
    let message = String::from_utf8(workshop.run(&["store", "gc", "--older-than", "soon"]).stderr).unwrap();
    assert!(message.contains("write it as 12h, 30d or 4w"), "{message}");
    workshop.write("other", "x");
    let mut elsewhere = workshop.command(&["store", "gc", "--json"]);
    let output = elsewhere.env("TARSUP_STORE", workshop.folder.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "a folder that is no store");
}

#[test]
fn builds_go_on_unharmed_while_the_store_is_cleared_out_over_and_over() {
    const ROUNDS: usize = 12;
    let workshop = Workshop::new();
    let expected = Workshop::new().json(&["build", "framework.yaml", "--version=1"])["digest"].clone();
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clearing = scope.spawn(|| {
            let mut rounds = 0;
            while !ended.load(Ordering::Relaxed) {
                document(&workshop.run(&["store", "gc", "--older-than=0", "--json"]));
                rounds += 1;
            }
            rounds
        });
        let building: Vec<_> = ["1", "2"]
            .map(|version| {
                let (workshop, expected) = (&workshop, &expected);
                scope.spawn(move || {
                    for _ in 0..ROUNDS {
                        let tag = format!("--version={version}");
                        let built = workshop.json(&["build", "framework.yaml", &tag]);
                        assert!(version != "1" || built["digest"] == *expected);
                        // What an image needs is all there, and can be read.
                        let name = format!("tars/framework:{version}");
                        let archive = format!("docker-archive:{version}.tar");
                        workshop.json(&["copy", &name, &archive]);
                    }
                })
            })
            .into_iter()
            .collect();
        let all: Vec<_> = building.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        ended.store(true, Ordering::Relaxed);
        let rounds = clearing.join().unwrap();
        assert!(all.iter().all(Result::is_ok) && rounds > 3, "{rounds} rounds");
    });
    workshop.json(&["store", "verify"]);
}

#[test]
fn gc_that_is_killed_at_any_moment_leaves_a_sound_store_and_cache() {
    const MANY: usize = 3000;
    let workshop = Workshop::new();
    let built = workshop.json(&["build", "framework.yaml"]);
    let needed = blobs(&workshop, "store").len();
    for left in [MANY - 1, MANY / 2, 10, 0] {
        for number in 0..MANY {
            put(&workshop, format!("nobody's {number}").as_bytes());
        }
        let mut gc = workshop.command(&["store", "gc", "--older-than=0"]);
        let mut gc = gc.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while blobs(&workshop, "store").len() > needed + left && gc.try_wait().unwrap().is_none() {}
        let _ = gc.kill();
        gc.wait().unwrap();
        workshop.json(&["store", "verify"]);
        assert_eq!(workshop.json(&["inspect", "tars/framework:3.0.17"])["digest"], built["digest"]);
        assert_eq!(workshop.json(&["build", "framework.yaml"])["digest"], built["digest"]);
        workshop.json(&["store", "verify"]);
    }
    workshop.json(&["store", "gc"]);
    assert_eq!(blobs(&workshop, "store").len(), needed);
}

/// What holds a store is a lock of the system's on the folder: any program may take it.
#[test]
fn gc_says_whom_it_waits_for_and_takes_nothing_meanwhile() {
    let workshop = Workshop::new();
    workshop.json(&["build", "framework.yaml"]);
    let nobodys = put(&workshop, b"nobody's");
    let folder = workshop.path("store/blobs");
    let mut holding = std::process::Command::new("flock")
        .args(["--shared", folder.to_str().unwrap(), "sh", "-c", "echo held; read end"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    BufReader::new(holding.stdout.as_mut().unwrap()).read_line(&mut String::new()).unwrap();
    let mut gc =
        workshop.command(&["store", "gc"]).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    BufReader::new(gc.stderr.as_mut().unwrap()).read_line(&mut said).unwrap();
    assert!(said.contains("is in use: what runs is waited for"), "{said}");
    assert!(blobs(&workshop, "store").contains(&nobodys.hex()));
    drop(holding.stdin.take());
    holding.wait().unwrap();
    let mut text = String::new();
    gc.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(gc.wait().unwrap().success() && text.contains(&nobodys.hex()), "{text}");
}
