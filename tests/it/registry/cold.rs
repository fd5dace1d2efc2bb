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

/// What changes goes on top, however much of it.
pub fn wide(workshop: &Workshop) {
    let recipe = fs::read_to_string(workshop.path("framework.yaml")).unwrap();
    workshop.write("framework.yaml", &format!("{recipe}relayer: {{share: 99}}\n"));
}

/// The digests of these layers.
fn digests(document: &Value) -> Vec<String> {
    let layers = document["layers"].as_array().unwrap();
    layers.iter().map(|layer| layer["digest"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn layer_of_a_registry_comes_once_however_many_outputs_want_it_and_never_where_none_does() {
    let (stub, elsewhere, workshop) = (Stub::honest(), Stub::honest(), workshop());
    wide(&workshop);
    let one = stub.name("tars/framework:1");
    let before = digests(&workshop.json(&["build", "framework.yaml", "-o", &one]));
    pack_stat(&workshop, 2);
    let (other, third) = (elsewhere.name("a/b:2"), elsewhere.name("a/c:2"));
    let from_recipe = ["build", "framework.yaml", "--version", "2", "--after", &one];
    let patch = ["build", "--patch", "tarsstat=packages/tarsstat.tgz", "--version", "2", &one];
    let (two, three) = (["oci:a:2", "docker-archive:b.tar"], ["oci:a:2", "docker-archive:b.tar", &other]);
    for (command, outputs) in [
        (&from_recipe, &two[..]),
        (&from_recipe, &three),
        (&from_recipe, &[&other, &third, "oci:a:2"]),
        (&patch, &two),
    ] {
        for gone in ["cache", "store", "a"] {
            let _ = fs::remove_dir_all(workshop.path(gone));
        }
        let _ = fs::remove_file(workshop.path("b.tar"));
        for stub in [&stub, &elsewhere] {
            stub.kept.lock().unwrap().asked.clear();
        }
        elsewhere.kept.lock().unwrap().blobs.clear();
        let named: Vec<&str> = outputs.iter().flat_map(|output| ["-o", *output]).collect();
        let built = workshop.json(&[&command[..], &named].concat());
        for layer in &before {
            let asked = stub.asked("GET", &format!("/blobs/{layer}"));
            assert_eq!(asked.len(), 1, "{outputs:?}: {asked:?}");
        }
        for output in outputs {
            let copied = workshop.json(&["copy", output, "oci:proof:1"]);
            assert_eq!(
                (&copied["digest"], built["layers"].as_array().unwrap().len()),
                (&built["digest"], before.len() + 1)
            );
        }
        // What came is proven, and stays for the next build.
        stub.kept.lock().unwrap().asked.clear();
        workshop.json(&[&command[..], &named].concat());
        assert_eq!(stub.count("GET", "/blobs/"), 1, "the config");
        workshop.json(&["store", "verify"]);
    }

    // The registry mounts what it has: nobody reads anything but the lists.
    fs::remove_dir_all(workshop.path("cache")).unwrap();
    stub.kept.lock().unwrap().asked.clear();
    let (two, three) = (stub.name("tars/framework:2"), stub.name("b/c:2"));
    workshop.json(&[&from_recipe[..], &["-o", &two, "-o", &three]].concat());
    let read: Vec<&String> =
        before.iter().filter(|layer| stub.count("GET", &format!("/blobs/{layer}")) > 0).collect();
    assert_eq!(read.len(), 2, "{read:?}");
}

#[test]
fn layer_of_a_registry_that_lies_fails_every_output_and_is_not_kept() {
    let (stub, workshop) = (Stub::honest(), workshop());
    wide(&workshop);
    let one = stub.name("tars/framework:1");
    let before = digests(&workshop.json(&["build", "framework.yaml", "-o", &one]));
    pack_stat(&workshop, 2);
    for gone in ["cache", "store"] {
        let _ = fs::remove_dir_all(workshop.path(gone));
    }
    for ((_, name), blob) in &mut stub.kept.lock().unwrap().blobs {
        if *name == before[0] {
            *blob = noise(3, blob.len());
        }
    }
    let command = ["build", "framework.yaml", "--version", "2", "--after", &one];
    let outputs = ["-o", "oci:a:2", "-o", "docker-archive:b.tar"];
    let words = workshop.refused(&[&command[..], &outputs].concat(), 2);
    assert!(words.contains("other bytes") && words.contains(&before[0]), "{words}");
    assert!(!made(&workshop).contains(&before[0]));
    assert!(!workshop.path("a/index.json").exists() && !workshop.path("b.tar").exists());
}
