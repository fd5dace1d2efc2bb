//! A predecessor without a list of its files: one of an older tarsup.

use std::fs;

use serde_json::{Value, json};
use tarsup::oci::Digest;
use tarsup::tars::Service;

use crate::packages::{Packer, Workshop, document};
use crate::registry::cold;

/// Takes the lists out of `oci:out:1`; what is left is `oci:out:old`.
pub fn take_lists_out(workshop: &Workshop) {
    let blobs = workshop.path("out/blobs/sha256");
    let read = |digest: &Value| -> Value {
        let hex = digest.as_str().unwrap().trim_start_matches("sha256:");
        serde_json::from_slice(&fs::read(blobs.join(hex)).unwrap()).unwrap()
    };
    let write = |document: &Value| {
        let text = document.to_string();
        let digest = Digest::of(&text);
        fs::write(blobs.join(digest.hex()), &text).unwrap();
        (digest.to_string(), text.len())
    };
    let index = workshop.path("out/index.json");
    let mut names: Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    let mut manifest = read(&names["manifests"][0]["digest"]);
    let mut config = read(&manifest["config"]["digest"]);
    let layers = manifest["layers"].as_array_mut().unwrap();
    let diff_ids = config["rootfs"]["diff_ids"].as_array().unwrap().clone();
    let history = config["history"].as_array().unwrap().clone();
    let is_list =
        |layer: &Value| layer["annotations"]["io.tarsup.layer"].as_str().unwrap().starts_with("contents");
    let kept: Vec<usize> = (0..layers.len()).filter(|index| !is_list(&layers[*index])).collect();
    assert_eq!(kept.len() + 2, layers.len());
    config["rootfs"]["diff_ids"] = kept.iter().map(|index| diff_ids[*index].clone()).collect();
    config["history"] = kept.iter().map(|index| history[*index].clone()).collect();
    manifest["layers"] = kept.iter().map(|index| manifest["layers"][*index].clone()).collect();
    let (digest, size) = write(&config);
    (manifest["config"]["digest"], manifest["config"]["size"]) = (json!(digest), json!(size));
    let (digest, size) = write(&manifest);
    names["manifests"].as_array_mut().unwrap().push(json!({
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": size,
        "annotations": {"org.opencontainers.image.ref.name": "old"},
    }));
    fs::write(index, names.to_string()).unwrap();
}

#[test]
fn predecessor_without_a_list_is_read_in_full_and_built_upon_all_the_same() {
    let workshop = cold::workshop();
    // One service is nearly all of it.
    let recipe = fs::read_to_string(workshop.path("framework.yaml")).unwrap();
    workshop.write("framework.yaml", &format!("{recipe}relayer: {{share: 90}}\n"));
    let old = workshop.json(&["build", "framework.yaml", "-o", "oci:out:1"]);
    take_lists_out(&workshop);
    cold::pack_stat(&workshop, 2);
    let command = ["build", "framework.yaml", "--version", "2", "--json", "--after"];
    let output = workshop.run(&[&command[..], &["oci:out:old"]].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("oci:out:old has no list of its files: all of its layers are read"), "{said}");
    let names = |built: &Value| -> Vec<String> {
        let layers = built["layers"].as_array().unwrap();
        layers.iter().map(|layer| layer["name"].as_str().unwrap().to_owned()).collect()
    };
    let mut expected = names(&old);
    expected.retain(|name| !name.starts_with("contents"));
    expected.extend(["tarsstat", "contents"].map(str::to_owned));
    assert_eq!(names(&document(&output)), expected, "nothing but the one service is another one");

    // The next one has a list, of the base too.
    workshop.pack(Packer::default(), Service::Log, "3");
    let command = ["build", "framework.yaml", "--version", "3", "--json", "--after", "tars/framework:2"];
    let output = workshop.run(&command);
    assert!(!String::from_utf8_lossy(&output.stderr).contains("are read"));
    expected.pop();
    expected.extend(["tarslog", "contents"].map(str::to_owned));
    assert_eq!(names(&document(&output)), expected);
}
