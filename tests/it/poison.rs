//! Bytes that are not what their digest says: not into the store, not out of it, not out of the cache.

use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tarsup::oci::Digest;

use crate::packages::Workshop;

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
    let built = workshop.json(&["build", "framework.yaml", "-o", "oci:evil:1"]);
    poison(&blob(&workshop, "evil", &built, 0));
    // The cache had the very file as long as it was linked: what is tested is the way from a folder into the store.
    fs::remove_dir_all(workshop.path("cache")).unwrap();
    for destination in ["tars/framework:3.0.17", "oci:other:1"] {
        let message = workshop.refused(&["copy", "oci:evil:1", destination], 2);
        assert!(message.contains("the bytes of the layer sha256:"), "{message}");
    }
    let message = workshop.refused(&["copy", "oci:evil:1", "docker-archive:evil.tar"], 1);
    assert!(
        message.contains("the bytes of the layer sha256:") && !workshop.path("evil.tar").exists(),
        "{message}"
    );
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
