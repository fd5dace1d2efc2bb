//! A build on a machine that has nothing but the packages: the predecessor lies in a registry, and so does what comes of it.

use std::fs;

use serde_json::Value;

use super::image::noise;
use super::stub::Stub;
use crate::packages::{Entry, Packer, RECIPE, Workshop};

/// A workshop whose base and whose tarsstat nothing makes smaller.
pub fn workshop() -> Workshop {
    let workshop = Workshop::new();
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |name: &str, kind, content: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_path(name).unwrap();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_size(content.len() as u64);
        header.set_cksum();
        tar.append(&header, content).unwrap();
    };
    add("usr/", tar::EntryType::Directory, &[]);
    add("usr/lib/", tar::EntryType::Directory, &[]);
    add("usr/lib/noise", tar::EntryType::Regular, &noise(9, 3 << 20));
    fs::write(workshop.path("base.tar"), tar.into_inner().unwrap()).unwrap();
    workshop.write("framework.yaml", &RECIPE.replace("base: scratch", "base: rootfs:base.tar"));
    pack_stat(&workshop, 1);
    workshop
}

/// Another tarsstat.
pub fn pack_stat(workshop: &Workshop, seed: u64) {
    let program = Entry::File("tarsstat/tarsstat".to_owned(), noise(seed, 500_000), true);
    Packer::default().write(&workshop.path("packages/tarsstat.tgz"), vec![program]);
}

fn layer<'a>(document: &'a Value, name: &str) -> &'a Value {
    document["layers"].as_array().unwrap().iter().rfind(|layer| layer["name"] == name).unwrap()
}

fn size(document: &Value, name: &str) -> usize {
    usize::try_from(layer(document, name)["size"].as_u64().unwrap()).unwrap()
}

/// What `cache/blobs` holds.
fn made(workshop: &Workshop) -> Vec<String> {
    let made = fs::read_dir(workshop.path("cache/blobs/sha256")).unwrap();
    let mut made: Vec<String> =
        made.map(|entry| format!("sha256:{}", entry.unwrap().file_name().display())).collect();
    made.sort();
    made
}

#[test]
fn cold_machine_makes_and_sends_what_changed_and_nothing_else() {
    let (stub, workshop) = (Stub::honest(), workshop());
    let (one, two) = (stub.name("tars/framework:1"), stub.name("tars/framework:2"));
    workshop.json(&["build", "framework.yaml", "-o", &one]);
    pack_stat(&workshop, 2);
    // What a warm machine makes of it.
    let command = ["build", "framework.yaml", "--version", "2", "--after", &one, "-o", &two];
    let by_warm = workshop.json(&command[..6]);

    fs::remove_dir_all(workshop.path("cache")).unwrap();
    let before = {
        let mut kept = stub.kept.lock().unwrap();
        kept.asked.clear();
        (kept.taken, kept.given)
    };
    let built = workshop.json(&command);
    let output = &built["outputs"][0];
    assert_eq!(output["layers_sent"], 2, "{built}");
    assert_eq!(built["digest"], by_warm["digest"], "what a machine has does not show");
    let mut changed = vec![layer(&built, "tarsstat")["digest"].as_str().unwrap().to_owned()];
    changed.push(layer(&built, "contents")["digest"].as_str().unwrap().to_owned());
    changed.sort();
    assert_eq!(made(&workshop), changed, "nothing else was compressed");
    assert_eq!(layer(&built, "base")["cached"], true);

    let kept = stub.kept.lock().unwrap();
    let (taken, given) = (kept.taken - before.0, kept.given - before.1);
    let document = |tag: &str| kept.manifests[&("tars/framework".to_owned(), tag.to_owned())].1.len();
    let config = |digest: &Value| {
        kept.blobs[&("tars/framework".to_owned(), digest.as_str().unwrap().to_owned())].len()
    };
    let documents = document("1") + 3 * document("2") + 2 * config(&built["config_digest"]);
    let lists = 2 * size(&built, "contents") + size(&built, "contents-below");
    let most = size(&built, "tarsstat") * 105 / 100 + documents + lists;
    assert!(taken + given <= most, "{taken} to it and {given} from it, and {most} are the most");
    assert!(taken > size(&built, "tarsstat"), "it counts");
}

#[test]
fn patch_of_an_image_in_a_registry_reads_its_lists_alone() {
    let (stub, workshop) = (Stub::honest(), workshop());
    let (one, two) = (stub.name("tars/framework:1"), stub.name("tars/framework:2"));
    let first = workshop.json(&["build", "framework.yaml", "-o", &one]);
    pack_stat(&workshop, 2);
    let patch = "tarsstat=packages/tarsstat.tgz";
    for gone in ["cache", "deploy", "store"] {
        let _ = fs::remove_dir_all(workshop.path(gone));
    }
    let before = stub.kept.lock().unwrap().given;
    let built = workshop.json(&["build", "--patch", patch, "--version", "2", &one, "-o", &two]);
    assert_eq!(built["outputs"][0]["layers_sent"], 2, "{built}");
    let mut changed =
        ["tarsstat", "contents"].map(|name| layer(&built, name)["digest"].as_str().unwrap().to_owned());
    changed.sort();
    assert_eq!(made(&workshop), changed, "nothing else was compressed");
    let kept = stub.kept.lock().unwrap();
    let given = kept.given - before;
    let manifests = |tag: &str| kept.manifests[&("tars/framework".to_owned(), tag.to_owned())].1.len();
    let config =
        kept.blobs[&("tars/framework".to_owned(), first["config_digest"].as_str().unwrap().to_owned())].len();
    let lists = size(&first, "contents") + size(&first, "contents-below");
    let most = manifests("1") + 2 * manifests("2") + config + lists;
    assert!(given <= most && given > lists, "{given} from it, and {most} are the most");
}

#[test]
fn diff_of_two_images_in_a_registry_reads_their_lists_alone() {
    let (stub, workshop) = (Stub::honest(), workshop());
    let (one, two) = (stub.name("tars/framework:1"), stub.name("tars/framework:2"));
    workshop.json(&["build", "framework.yaml", "-o", &one]);
    pack_stat(&workshop, 2);
    let built = workshop.json(&["build", "framework.yaml", "--version", "2", "-o", &two]);
    let before = stub.kept.lock().unwrap().given;
    let diff = workshop.json(&["diff", &one, &two]);
    let given = stub.kept.lock().unwrap().given - before;
    assert!(given < size(&built, "tarsstat") / 4, "{given}");
    let changed = diff["changed"].as_array().unwrap();
    assert_eq!((changed.len(), &changed[0]["name"]), (1, &"tarsstat".into()), "{diff}");
    assert_eq!(changed[0]["files"][0]["path"], "/usr/local/app/tars/tarsstat/bin/tarsstat");
    assert_eq!(diff["same"].as_array().unwrap().len(), 13, "{diff}");
}
