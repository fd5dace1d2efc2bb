//! The local store, layouts and archives: whole or not there, one name one image, readable by others.

use std::fs;

use tarsup::tars::Service;

use crate::packages::{Packer, RECIPE, Workshop, document};

#[test]
fn store_keeps_versions_by_name_and_a_name_moves_to_its_newest_image() {
    let workshop = Workshop::new();
    workshop.json(&["build", "framework.yaml"]);
    workshop.json(&["build", "framework.yaml", "--version", "3.0.18"]);
    workshop.pack(Packer::default(), Service::Log, "3.0.18");
    let newest = workshop.json(&["build", "framework.yaml", "--version", "3.0.18"]);
    let shown = workshop.json(&["inspect", "tars/framework:3.0.18"]);
    assert_eq!(shown["digest"], newest["digest"]);
    assert_eq!(shown["layers"].as_array().unwrap().len(), 14);
    let index: serde_json::Value =
        serde_json::from_slice(&fs::read(workshop.path("store/index.json")).unwrap()).unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2, "{index}");
    let message = workshop.refused(&["inspect", "tars/framework:3.0.99"], 2);
    assert!(message.contains("tars/framework:3.0.17, tars/framework:3.0.18"), "{message}");
}

#[test]
fn store_is_written_by_several_builds_at_once() {
    let workshop = Workshop::new();
    let versions = ["1", "2", "3", "4", "5", "6"];
    let running: Vec<_> = versions
        .iter()
        .map(|version| {
            let mut command = workshop.command(&["build", "framework.yaml", "--json", "--version", version]);
            command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
            command.spawn().unwrap()
        })
        .collect();
    for child in running {
        document(&child.wait_with_output().unwrap());
    }
    for version in versions {
        workshop.json(&["inspect", &format!("tars/framework:{version}")]);
    }
    let temporary: Vec<String> = workshop
        .listing()
        .into_iter()
        .filter(|path| path.contains(".tarsup-") || path.contains("/tmp/"))
        .collect();
    assert!(temporary.is_empty(), "{temporary:?}");
}

#[test]
fn copy_goes_to_a_layout_and_an_archive_and_back() {
    let workshop = Workshop::new();
    let built = workshop.json(&["build", "framework.yaml"]);
    let receipt = workshop.json(&["copy", "tars/framework:3.0.17", "oci:out"]);
    assert_eq!((&receipt["layers_sent"], &receipt["layers_skipped"]), (&14.into(), &0.into()));
    let receipt = workshop.json(&["copy", "oci:out:3.0.17", "oci:out:again"]);
    assert_eq!((&receipt["layers_sent"], &receipt["bytes_sent"]), (&0.into(), &0.into()));
    workshop.json(&["copy", "oci:out:again", "docker-archive:framework.tar"]);
    let shown = workshop.json(&["inspect", "docker-archive:framework.tar"]);
    assert_eq!(shown["digest"], built["digest"]);
    workshop.json(&["copy", "docker-archive:framework.tar", "tars/other:1"]);
    assert_eq!(workshop.json(&["inspect", "tars/other:1"])["digest"], built["digest"]);
}

#[test]
fn layout_that_is_something_else_is_refused_and_left_alone() {
    let workshop = Workshop::new();
    fs::create_dir(workshop.path("precious")).unwrap();
    workshop.write("precious/thesis.txt", "x");
    let message = workshop.refused(&["build", "framework.yaml", "-o", "oci:precious:1"], 2);
    assert!(message.contains("not empty"), "{message}");
    assert_eq!(fs::read_dir(workshop.path("precious")).unwrap().count(), 1);
}

#[test]
fn damaged_blob_is_named() {
    let workshop = Workshop::new();
    let built = workshop.json(&["build", "framework.yaml", "-o", "oci:out:1"]);
    let hex = built["config_digest"].as_str().unwrap().trim_start_matches("sha256:").to_owned();
    workshop.write(&format!("out/blobs/sha256/{hex}"), "{}");
    let message = workshop.refused(&["inspect", "oci:out:1"], 2);
    assert!(message.contains(&hex), "{message}");
}

#[test]
fn cache_that_lost_a_blob_makes_it_again() {
    let workshop = Workshop::new();
    let built = workshop.json(&["build", "framework.yaml"]);
    fs::remove_dir_all(workshop.path("cache/blobs")).unwrap();
    fs::remove_dir_all(workshop.path("store")).unwrap();
    let again = workshop.json(&["build", "framework.yaml"]);
    assert_eq!(again["digest"], built["digest"]);
    assert_eq!(again["layers"][0]["cached"], false);
}

#[test]
fn layer_of_the_base_is_not_lost_when_another_recipe_uses_it() {
    let workshop = Workshop::new();
    workshop.write("other.yaml", &RECIPE.replace("tars/framework", "tars/other"));
    workshop.json(&["build", "framework.yaml"]);
    let other = workshop.json(&["build", "other.yaml"]);
    assert!(other["layers"].as_array().unwrap().iter().all(|layer| layer["cached"] == true), "{other}");
}

#[test]
fn store_is_whole_after_a_kill_at_any_moment() {
    let workshop = Workshop::new();
    let expected = Workshop::new().json(&["build", "framework.yaml"])["digest"].clone();
    for finished in 0..6 {
        for folder in ["cache", "store"] {
            let _ = fs::remove_dir_all(workshop.path(folder));
        }
        let mut command = workshop.command(&["build", "framework.yaml", "--json"]);
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let mut child = command.spawn().unwrap();
        let blobs = || fs::read_dir(workshop.path("cache/blobs/sha256")).map_or(0, Iterator::count);
        while blobs() < finished && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        let _ = child.kill();
        child.wait().unwrap();
        // Whatever has its final name is whole.
        for folder in ["cache/blobs/sha256", "store/blobs/sha256"] {
            let Ok(entries) = fs::read_dir(workshop.path(folder)) else { continue };
            for entry in entries.map(Result::unwrap).filter(|entry| entry.file_name().len() == 64) {
                let digest = tarsup::oci::Digest::of(fs::read(entry.path()).unwrap());
                assert_eq!(digest.hex(), entry.file_name().into_string().unwrap());
            }
        }
        assert_eq!(workshop.json(&["build", "framework.yaml"])["digest"], expected);
    }
}

#[test]
fn temporary_files_of_killed_runs_are_removed_by_later_ones() {
    let workshop = Workshop::new();
    workshop.json(&["build", "framework.yaml"]);
    let long_ago = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_hours(24 * 365);
    for path in ["cache/tmp/abandoned", "store/blobs/sha256/.tarsup-abandoned"] {
        let file = fs::File::create(workshop.path(path)).unwrap();
        file.set_modified(long_ago).unwrap();
    }
    workshop.pack(Packer::default(), Service::Log, "3.0.18");
    workshop.json(&["build", "framework.yaml"]);
    let left: Vec<String> =
        workshop.listing().into_iter().filter(|path| path.contains("abandoned")).collect();
    assert!(left.is_empty(), "{left:?}");
}
