//! Bytes that are not what their digest says: not into the store, not out of it, not out of the cache.

use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tarsup::diagnose::{Diagnose as _, Exit};
use tarsup::engine::Engine as _;
use tarsup::oci::Digest;
use tarsup::transport::daemon::Daemon;
use tarsup::transport::{Sink as _, layout};

use crate::fake::FakeEngine;
use crate::packages::Workshop;
use crate::registry::stub::Stub;

/// What goes wrong, and how it is done.
type Evil<'a> = (&'a str, Box<dyn Fn() + 'a>);
/// What is put where a blob belongs, and how.
type Make<'a> = (&'a str, Box<dyn Fn(&Path) + 'a>);

/// Where the blob of this layer lies in a layout or the cache.
fn blob(workshop: &Workshop, folder: &str, built: &Value, layer: usize) -> PathBuf {
    let digest = built["layers"][layer]["digest"].as_str().unwrap().trim_start_matches("sha256:");
    workshop.path(folder).join("blobs/sha256").join(digest)
}

/// Other bytes of the same length in the same file, with the same modification time.
fn poison(path: &Path) {
    let modified = fs::metadata(path).unwrap().modified().unwrap();
    let file = fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(b"evil", 20).unwrap();
    file.set_modified(modified).unwrap();
}

fn is_whole(path: &Path) -> bool {
    Digest::of(fs::read(path).unwrap()).hex() == path.file_name().unwrap().to_str().unwrap()
}

/// Every blob of a layout or the cache is what its name says.
fn all_whole(folder: &Path) -> bool {
    let blobs = fs::read_dir(folder.join("blobs/sha256")).unwrap();
    blobs.map(|entry| entry.unwrap().path()).all(|path| is_whole(&path))
}

#[test]
fn copy_of_a_layer_with_wrong_bytes_is_refused_and_the_store_stays_clean() {
    let workshop = Workshop::new();
    let stub = Stub::honest();
    let built = workshop.json(&["build", "framework.yaml", "-o", "oci:evil:1"]);
    poison(&blob(&workshop, "evil", &built, 0));
    // The cache had the very file as long as it was linked: what is tested is the way from a folder into the store.
    fs::remove_dir_all(workshop.path("cache")).unwrap();
    for destination in ["tars/framework:3.0.17", "oci:other:1"] {
        let message = workshop.refused(&["copy", "oci:evil:1", destination], 2);
        assert!(message.contains("the bytes of the layer sha256:"), "{message}");
    }
    // As well one that ends too soon, or cannot be read: it is the source that is wrong, and never a full disk.
    let torn = |path: &Path| fs::File::options().write(true).open(path).unwrap().set_len(30).unwrap();
    for (evil, why) in [
        (None, "are other ones: sha256:"),
        (Some(Box::new(torn) as Box<dyn Fn(&Path)>), "are other ones: sha256:"),
        (Some(Box::new(|path: &Path| drop(fs::remove_file(path)))), "cannot be read"),
    ] {
        if let Some(evil) = evil {
            evil(&blob(&workshop, "evil", &built, 0));
        }
        for destination in ["docker-archive:evil.tar", "oci:other:1", "tars/framework:3.0.17"] {
            let message = workshop.refused(&["copy", "oci:evil:1", destination], 2);
            assert!(message.contains("the bytes of the layer sha256:") && message.contains(why), "{message}");
            assert!(message.contains("whatever it is copied from is damaged"), "{message}");
        }
        assert!(!workshop.path("evil.tar").exists() && !workshop.path("other/index.json").exists());
        let message = workshop.refused(&["copy", "oci:evil:1", &stub.name("a:1")], 2);
        assert!(message.contains("cannot be sent: "), "{message}");
        assert_eq!(stub.count("PUT", "/manifests/"), 0);
        // An engine, as the command line has it.
        let image = layout::read(&workshop.path("evil"), None).unwrap();
        let engine = Arc::new(FakeEngine::new());
        let sent = Daemon::new(engine.clone(), "a:1".parse().unwrap());
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let error = runtime.block_on(sent.put(&image, &())).unwrap_err().at_its_source();
        assert_eq!(error.exit(), Exit::Usage, "{error}");
        // What it is sent is inflated on the way: what is cut off cannot be read.
        assert!(error.to_string().contains("the bytes of the layer sha256:"), "{error}");
        assert!(runtime.block_on(engine.list_images()).unwrap().is_empty());
    }
    let genuine = workshop.json(&["build", "framework.yaml"]);
    assert_eq!(genuine["digest"], built["digest"]);
    assert!(all_whole(&workshop.path("store")) && all_whole(&workshop.path("cache")));
}

#[test]
fn copied_layers_share_no_file_with_the_folder_that_they_came_from() {
    let workshop = Workshop::new();
    let built = workshop.json(&["build", "framework.yaml", "-o", "oci:foreign:1"]);
    workshop.json(&["copy", "oci:foreign:1", "tars/framework:3.0.17"]);
    let (foreign, ours) = (blob(&workshop, "foreign", &built, 0), blob(&workshop, "store", &built, 0));
    assert_ne!(fs::metadata(&foreign).unwrap().ino(), fs::metadata(&ours).unwrap().ino());
    poison(&foreign);
    assert!(is_whole(&ours));
}

/// A layout that somebody has prepared leads nobody out of itself, and one of another version is no place for an image of this one.
#[test]
fn layout_that_leads_elsewhere_or_is_of_another_version_is_left_alone() {
    use std::os::unix::fs::symlink;
    let workshop = Workshop::new();
    workshop.json(&["build", "framework.yaml"]);
    let away = |part: &'static str| {
        move |at: &Path| {
            let moved = at.with_file_name("elsewhere").join("moved");
            fs::rename(at.join(part), &moved).unwrap();
            symlink(moved, at.join(part)).unwrap();
        }
    };
    let no_link = "no link is followed";
    let kinds: [(Make<'_>, &str); 5] = [
        (("blobs", Box::new(away("blobs"))), no_link),
        (("blobs/sha256", Box::new(away("blobs/sha256"))), no_link),
        (("index.json", Box::new(away("index.json"))), no_link),
        (("oci-layout", Box::new(away("oci-layout"))), no_link),
        (
            (
                "another version",
                Box::new(|at: &Path| {
                    fs::write(at.join("oci-layout"), br#"{"imageLayoutVersion":"2.0.0"}"#).unwrap();
                }),
            ),
            "a layout of version 2.0.0, not 1.x",
        ),
    ];
    for ((what, change), words) in kinds {
        for part in ["at", "elsewhere"] {
            let _ = fs::remove_dir_all(workshop.path(part));
        }
        fs::create_dir(workshop.path("elsewhere")).unwrap();
        workshop.json(&["copy", "tars/framework:3.0.17", "oci:at:1"]);
        // Something is to be brought.
        let blobs = workshop.path("at/blobs/sha256");
        let one = fs::read_dir(&blobs).unwrap().next().unwrap().unwrap().path();
        fs::remove_file(&one).unwrap();
        change(&workshop.path("at"));
        let listed = || {
            let mut find = Command::new("find");
            find.args(["at", "elsewhere", "-printf", "%p %l %s\n"]).current_dir(workshop.path("."));
            String::from_utf8(find.output().unwrap().stdout).unwrap()
        };
        let before = listed();
        let message = workshop.refused(&["copy", "tars/framework:3.0.17", "oci:at:2"], 2);
        assert!(message.contains(words), "{what}: {message}");
        assert_eq!(listed(), before, "{what}");
    }
}

#[test]
fn poisoned_blob_of_store_or_cache_is_made_again_by_a_build() {
    let workshop = Workshop::new();
    let built = workshop.json(&["build", "framework.yaml"]);
    let (stored, cached) = (blob(&workshop, "store", &built, 0), blob(&workshop, "cache", &built, 0));
    // Twice, so that what was proven is remembered.
    workshop.json(&["build", "framework.yaml"]);
    let replace = |path: &Path| {
        let bytes = fs::read(path).unwrap();
        fs::remove_file(path).unwrap();
        fs::write(path, bytes).unwrap();
        poison(path);
    };
    let evils: [Evil<'_>; 3] = [
        ("both names of the one file", Box::new(|| poison(&stored))),
        ("the store's own", Box::new(|| replace(&stored))),
        ("the cache's own", Box::new(|| replace(&cached))),
    ];
    for (what, evil) in evils {
        evil();
        let again = workshop.json(&["build", "framework.yaml"]);
        assert_eq!(again["digest"], built["digest"], "{what}");
        assert!(is_whole(&stored) && is_whole(&cached), "{what}");
    }
    let config = built["config_digest"].as_str().unwrap().trim_start_matches("sha256:");
    let config = workshop.path("store/blobs/sha256").join(config);
    poison(&config);
    workshop.json(&["build", "framework.yaml"]);
    assert!(is_whole(&config));
}

#[test]
fn poisoned_blob_is_replaced_by_a_copy_of_the_genuine_image() {
    let workshop = Workshop::new();
    let built = workshop.json(&["build", "framework.yaml", "-o", "docker-archive:genuine.tar"]);
    workshop.json(&["copy", "docker-archive:genuine.tar", "oci:out:1"]);
    let evil = blob(&workshop, "out", &built, 3);
    poison(&evil);
    let receipt = workshop.json(&["copy", "docker-archive:genuine.tar", "oci:out:1"]);
    assert_eq!((&receipt["layers_sent"], &receipt["layers_skipped"]), (&1.into(), &13.into()));
    assert!(is_whole(&evil));
}

#[test]
fn store_verify_names_whatever_is_not_what_its_name_says_and_a_build_makes_it_again() {
    let workshop = Workshop::new();
    let verified = |exit: i32| -> Value {
        let output = workshop.run(&["store", "verify", "--json"]);
        assert_eq!(output.status.code(), Some(exit), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    assert_eq!(verified(0)["blobs"], 0, "there is nothing yet");
    let built = workshop.json(&["build", "framework.yaml"]);
    // Twice, so that what was proven is remembered: it is read all the same.
    workshop.json(&["build", "framework.yaml"]);
    let whole = verified(0);
    assert_eq!((&whole["blobs"], &whole["damaged"]), (&30.into(), &Value::Array(Vec::new())), "{whole}");
    let (poisoned, short, gone) = (
        blob(&workshop, "store", &built, 0),
        blob(&workshop, "store", &built, 1),
        blob(&workshop, "store", &built, 2),
    );
    let linked = blob(&workshop, "cache", &built, 3);
    poison(&poisoned);
    fs::remove_file(&short).unwrap();
    fs::write(&short, "short").unwrap();
    fs::remove_file(&gone).unwrap();
    fs::remove_file(&linked).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &linked).unwrap();
    let found = verified(6);
    let of = |path: &Path| {
        let damaged = found["damaged"].as_array().unwrap();
        let of = damaged.iter().find(|damaged| damaged["file"] == path.to_str().unwrap());
        of.unwrap_or_else(|| panic!("{} is not named: {found}", path.display())).clone()
    };
    // Store and cache have one file for each layer: what is poisoned is so in both.
    assert_eq!(found["damaged"].as_array().unwrap().len(), 5, "{found}");
    for (path, why) in
        [(&poisoned, "its bytes are sha256:"), (&short, "its bytes are"), (&gone, "it is not there")]
    {
        assert!(of(path)["why"].as_str().unwrap().contains(why), "{found}");
        assert_eq!(of(path)["images"][0], "tars/framework:3.0.17", "{found}");
    }
    assert!(of(&linked)["why"].as_str().unwrap().contains("it is a link"), "{found}");
    let output = workshop.run(&["store", "verify"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("(of tars/framework:3.0.17): its bytes are"));
    assert!(String::from_utf8_lossy(&output.stderr).contains("makes it again"));
    workshop.json(&["build", "framework.yaml"]);
    assert_eq!(verified(0)["damaged"], Value::Array(Vec::new()));
    // Documents count as well, and an image whose own cannot be read.
    let manifest = built["digest"].as_str().unwrap().trim_start_matches("sha256:");
    fs::write(workshop.path("store/blobs/sha256").join(manifest), "{}").unwrap();
    let found = verified(6);
    assert!(
        found["damaged"]
            .as_array()
            .unwrap()
            .iter()
            .any(|damaged| damaged["images"][0] == "tars/framework:3.0.17")
    );
    let path = workshop.json(&["store", "path"])["store"].as_str().unwrap().to_owned();
    assert_eq!(path, workshop.path("store").to_str().unwrap());
}

#[test]
fn blob_that_is_no_regular_file_is_refused_and_not_waited_for() {
    let workshop = Workshop::new();
    let built = workshop.json(&["build", "framework.yaml", "-o", "oci:odd:1"]);
    let path = blob(&workshop, "odd", &built, 0);
    let genuine = workshop.path("genuine");
    fs::rename(&path, &genuine).unwrap();
    let mkfifo = |path: &Path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    let makes: [Make<'_>; 4] = [
        ("it is a link", Box::new(|path| std::os::unix::fs::symlink(&genuine, path).unwrap())),
        ("it is a link", Box::new(|path| std::os::unix::fs::symlink("/dev/zero", path).unwrap())),
        ("a pipe", Box::new(mkfifo)),
        ("a folder", Box::new(|path| fs::create_dir(path).unwrap())),
    ];
    for (why, make) in &makes {
        let _ = fs::remove_file(&path);
        make(&path);
        let said = refused_soon(&workshop, &["copy", "oci:odd:1", "tars/framework:3.0.17"]);
        assert!(said.contains(why), "{said}");
    }
    fs::remove_dir(&path).unwrap();
    fs::rename(&genuine, &path).unwrap();
    // The same for what is read whole: manifest and index.
    let manifest = built["digest"].as_str().unwrap().trim_start_matches("sha256:");
    for path in [workshop.path("odd/blobs/sha256").join(manifest), workshop.path("odd/index.json")] {
        fs::remove_file(&path).unwrap();
        mkfifo(&path);
        let said = refused_soon(&workshop, &["inspect", "oci:odd:1"]);
        assert!(said.contains("not a regular file"), "{said}");
    }
}

/// Must fail, and within seconds: opening a pipe would wait for somebody to write.
fn refused_soon(workshop: &Workshop, arguments: &[&str]) -> String {
    let mut child = workshop.command(arguments).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("{arguments:?} waits");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = child.wait_with_output().unwrap();
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}
