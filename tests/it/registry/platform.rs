//! `--platform`: of an index that image and no other, its variant too.

use serde_json::{Value, json};
use tarsup::oci::Digest;

use super::image::Bench;
use super::stub::Stub;

/// Puts images into the stub that differ in their platform alone, and the index of them as `a:both`; digests of their manifests.
fn platforms(stub: &Stub, bench: &Bench, names: &[&str]) -> Vec<Digest> {
    bench.json(&["copy", "oci:image:1", &stub.name("a:1")]);
    let put = |name: &str, bytes: &str| {
        let digest = Digest::of(bytes);
        let mut kept = stub.kept.lock().unwrap();
        for tag in [name.to_owned(), digest.to_string()] {
            kept.manifests.insert(("a".to_owned(), tag), ("x/y".to_owned(), bytes.as_bytes().to_vec()));
        }
        digest
    };
    let manifest: Value = serde_json::from_slice(&bench.blob(&bench.manifest)).unwrap();
    let config: Value = serde_json::from_slice(&bench.blob(&bench.config)).unwrap();
    let (mut entries, mut digests) = (Vec::new(), Vec::new());
    for name in names {
        let [os, architecture, variant @ ..] = &*name.split('/').collect::<Vec<_>>() else {
            panic!("{name}")
        };
        let mut platform = json!({"os": os, "architecture": architecture});
        if let Some(variant) = variant.first() {
            platform["variant"] = json!(variant);
        }
        let (mut manifest, mut config) = (manifest.clone(), config.clone());
        config.as_object_mut().unwrap().extend(platform.as_object().unwrap().clone());
        let text = config.to_string();
        let digest = Digest::of(&text);
        stub.kept
            .lock()
            .unwrap()
            .blobs
            .insert(("a".to_owned(), digest.to_string()), text.clone().into_bytes());
        (manifest["config"]["digest"], manifest["config"]["size"]) = (json!(digest), text.len().into());
        let text = manifest.to_string();
        digests.push(put(&name.replace('/', "-"), &text));
        entries.push(
            json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digests.last(),
            "size": text.len(), "platform": platform}),
        );
    }
    put("both", &json!({"schemaVersion": 2, "manifests": entries}).to_string());
    digests
}

#[test]
fn platform_that_is_asked_for_is_what_is_copied_and_shown_and_no_other() {
    let (stub, bench) = (Stub::honest(), Bench::new(&[10]));
    let both = stub.name("a:both");
    let digests = platforms(&stub, &bench, &["linux/amd64", "linux/arm64", "windows/arm64"]);
    for (architecture, digest) in ["amd64", "arm64"].iter().zip(&digests) {
        let platform = format!("linux/{architecture}");
        let copied = bench.json(&["copy", "--platform", &platform, &both, "oci:back:1"]);
        assert_eq!(copied["digest"], digest.to_string());
        for image in [both.as_str(), "oci:back:1"] {
            let shown = bench.json(&["inspect", "--platform", &platform, image]);
            assert_eq!((&shown["digest"], &shown["architecture"]), (&json!(digest), &json!(architecture)));
        }
    }
    // What it has not is refused with what it has, in a registry and in a layout.
    let refused = |arguments: &[&str], words: &[&str]| {
        let message = bench.refused(arguments, 2);
        for word in words {
            assert!(message.contains(word), "{word}: {message}");
        }
        assert!(!bench.path("none").exists());
    };
    let riscv = ["--platform", "linux/riscv64"];
    let copy = |image: &str| -> Vec<String> {
        ["copy", riscv[0], riscv[1], image, "oci:none:1"].map(str::to_owned).to_vec()
    };
    let copy_of = |image: &str, words: &[&str]| {
        let arguments = copy(image);
        refused(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), words);
    };
    let (amd, arm) = (format!("linux/amd64 ({})", digests[0]), format!("linux/arm64 ({})", digests[1]));
    copy_of(&both, &["has no image for linux/riscv64", &amd, &arm]);
    // An image for one platform, and an index of one, are not taken for another.
    copy_of("oci:back:1", &["is for linux/arm64, and `--platform` asks for linux/riscv64"]);
    platforms(&stub, &bench, &["linux/amd64"]);
    copy_of(&both, &["is for linux/amd64, and `--platform` asks for linux/riscv64"]);
    refused(&["inspect", riscv[0], riscv[1], &both], &["is for linux/amd64"]);
    for wrong in ["windows/amd64", "linux/arm/v7/x", "amd64", "linux/"] {
        refused(&["copy", "--platform", wrong, &both, "oci:none:1"], &["not yet possible", "linux/amd64"]);
    }
    refused(
        &["inspect", "--platform", "linux/amd64", "--platform", "linux/arm64", &both],
        &["not yet possible"],
    );
}

#[test]
fn variant_is_what_is_asked_for_else_the_usual_one() {
    let (stub, bench) = (Stub::honest(), Bench::new(&[10]));
    let both = stub.name("a:both");
    let names = ["linux/amd64/v3", "linux/amd64", "linux/arm/v6", "linux/arm/v7"];
    let digests = platforms(&stub, &bench, &names);
    for (wanted, expected) in
        [("amd64", 1), ("amd64/v1", 1), ("amd64/v3", 0), ("arm/v6", 2), ("arm/v7", 3), ("arm", 3)]
    {
        let platform = format!("linux/{wanted}");
        let copied = bench.json(&["copy", "--platform", &platform, &both, "oci:back:1"]);
        assert_eq!(copied["digest"], digests[expected].to_string(), "{wanted}");
        bench.json(&["inspect", "--platform", &platform, "oci:back:1"]);
    }
    let refused = |platform: &str, image: &str, words: &[String]| {
        let message = bench.refused(&["copy", "--platform", platform, image, "oci:none:1"], 2);
        assert!(words.iter().all(|word| message.contains(word)), "{words:?}: {message}");
    };
    let shown = |index: usize| format!("{} ({})", names[index], digests[index]);
    refused("linux/amd64/v2", &both, &["has no image for linux/amd64/v2".to_owned(), shown(0), shown(1)]);
    refused("linux/arm/v5", &both, &[shown(2), shown(3)]);
    refused(
        "linux/arm/v6",
        "oci:back:1",
        &["is for linux/arm/v7, and `--platform` asks for linux/arm/v6".to_owned()],
    );
    let output = bench.command(&["inspect", "oci:back:1"]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("platform  linux/arm/v7"), "{output:?}");

    // Of several odd ones none is the first.
    let names = ["linux/amd64/v3", "linux/amd64/v2"];
    let digests = platforms(&stub, &bench, &names);
    let words = [0, 1].map(|index| format!("{} ({})", names[index], digests[index]));
    refused("linux/amd64", &both, &words);
}
