//! `tarsup build --patch`: the next image from one that exists, without a recipe and without the other packages.

use std::fs;
use std::io::Read as _;

use serde_json::{Value, json};
use tarsup::oci::Digest;
use tarsup::tars::Service;
use tarsup::transport::layout;

use crate::packages::{Entry, Packer, RECIPE, Workshop, entries};

fn config(workshop: &Workshop, built: &Value) -> Value {
    let digest = built["config_digest"].as_str().unwrap().trim_start_matches("sha256:");
    serde_json::from_slice(&fs::read(workshop.path("store/blobs/sha256").join(digest)).unwrap()).unwrap()
}

/// A package of one service beside the workshop's.
fn pack(workshop: &Workshop, service: Service, version: &str) -> String {
    let path = workshop.path(&format!("patched-{service}.tgz"));
    Packer::default().write(&path, entries(service, version));
    path.display().to_string()
}

#[test]
fn patch_replaces_one_service_and_nothing_else() {
    let workshop = Workshop::new();
    workshop.write("framework.yaml", &format!("{RECIPE}labels: {{team: blue}}\nenv: {{A: b}}\n"));
    let old = workshop.json(&["build", "framework.yaml"]);
    let package = pack(&workshop, Service::Stat, "patched");
    // Neither recipe nor packages nor deploy folder are needed.
    for gone in ["packages", "deploy"] {
        fs::remove_dir_all(workshop.path(gone)).unwrap();
    }
    let patch = format!("tarsstat={package}");
    let command = ["build", "--patch", &patch, "--version", "3.0.17-1", "tars/framework:3.0.17"];
    let new = workshop.json(&command);
    assert_eq!(new["image"], "tars/framework:3.0.17-1");
    assert_eq!(workshop.json(&command)["digest"], new["digest"], "same inputs, same digest");
    let names = |built: &Value| -> Vec<String> {
        built["layers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|layer| layer["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let mut expected = names(&old);
    expected.pop();
    expected.extend(["tarsstat", "contents"].map(str::to_owned));
    assert_eq!(names(&new), expected);
    let diff = workshop.json(&["diff", "tars/framework:3.0.17", "tars/framework:3.0.17-1"]);
    assert_eq!(diff["changed"].as_array().unwrap().len(), 1, "{diff}");
    assert_eq!(diff["changed"][0]["files"][0]["path"], "/usr/local/app/tars/tarsstat/bin/tarsstat");

    // Every key is as it was, but for the version and what was patched.
    let (mut before, mut after) = (config(&workshop, &old), config(&workshop, &new));
    let label = after["config"]["Labels"]["io.tarsup.patch.tarsstat"].as_str().unwrap().to_owned();
    let digest = Digest::of(fs::read(&package).unwrap());
    assert_eq!(label, format!("{digest} on {}", old["digest"].as_str().unwrap()));
    assert_eq!(after["config"]["Labels"]["org.opencontainers.image.version"], "3.0.17-1");
    assert!(after["config"]["Env"].as_array().unwrap().contains(&"TARSUP_VERSION=3.0.17".into()));
    assert_eq!(
        after["history"].as_array().unwrap().len(),
        after["rootfs"]["diff_ids"].as_array().unwrap().len()
    );
    for config in [&mut before, &mut after] {
        let labels = config["config"]["Labels"].as_object_mut().unwrap();
        labels.remove("io.tarsup.patch.tarsstat");
        labels.remove("org.opencontainers.image.version");
        for key in ["history", "rootfs"] {
            config.as_object_mut().unwrap().remove(key);
        }
    }
    assert_eq!(before, after);

    // A patch of a patch: both are recorded.
    let package = pack(&workshop, Service::Log, "patched");
    let patch = format!("tarslog={package}");
    let next = workshop.json(&["build", "--patch", &patch, "--version", "2", "tars/framework:3.0.17-1"]);
    let labels = config(&workshop, &next)["config"]["Labels"].clone();
    assert_eq!(labels["io.tarsup.patch.tarsstat"], label);
    assert!(labels["io.tarsup.patch.tarslog"].as_str().unwrap().ends_with(new["digest"].as_str().unwrap()));
}

#[test]
fn patch_says_what_is_wrong_with_it() {
    let workshop = Workshop::new();
    let outputs = ["-o", "tars/framework:3.0.17", "-o", "oci:out:1", "-o", "docker-archive:image.tar"];
    workshop.json(&[&["build", "framework.yaml"][..], &outputs].concat());
    workshop.write(
        "node.yaml",
        &RECIPE.replace("role: framework", "role: node").replace("tars/framework", "tars/node"),
    );
    workshop.run(&["build", "node.yaml"]);
    let stat = pack(&workshop, Service::Stat, "patched");
    let place = Entry::File("tarsstat/../tarslog/bin/tarslog".to_owned(), b"x".to_vec(), true);
    Packer::default().write(&workshop.path("hostile.tgz"), vec![place]);
    let (good, wrong) = (format!("tarsstat={stat}"), format!("tarslog={stat}"));
    let image = "tars/framework:3.0.17";
    for (patch, version, image, said) in [
        (good.as_str(), "3.0.17", image, "is the image's own tag"),
        (&good, "a/b", image, "a version is also the image's tag"),
        ("tarsstat", "1", image, "names no service of the framework and its package"),
        ("nobody=x.tgz", "1", image, "names no service of the framework and its package"),
        (&wrong, "1", image, "it brings tarsstat, and not tarslog"),
        (&good, "1", "tars/node:3.0.17", "there is no tarsstat in tars/node:3.0.17"),
        (&good, "1", "tars/none:1", "tars/none:1"),
        ("tarsstat=hostile.tgz", "1", image, "hostile.tgz"),
        // By its tag, and by the version that it says of itself.
        (&good, "1", "oci:out:1", "`--version 1` is the image's own tag"),
        (&good, "3.0.17", "oci:out:1", "`--version 3.0.17` is the image's own tag"),
    ] {
        let message = workshop.refused(&["build", "--patch", patch, "--version", version, image], 2);
        assert!(message.contains(said), "{patch}: {message}");
    }
    let output = workshop.run(&["build", "--patch", &good, image]);
    assert_eq!(output.status.code(), Some(2), "a version is required");
    // Nothing replaces the image that is patched, however it is called.
    let before = workshop.json(&["inspect", "oci:out:1"]);
    for (image, version, output) in [
        (image, "2", "tars/framework:3.0.17"),
        ("oci:out:1", "2", "oci:out:1"),
        ("oci:out:1", "2", "oci:./out:1"),
        ("oci:out", "2", "oci:out:1"),
        ("docker-archive:image.tar", "2", "docker-archive:image.tar:x:2"),
    ] {
        let command = ["build", "--patch", &good, "--version", version, image, "-o", output];
        let message = workshop.refused(&command, 2);
        assert!(
            message.contains(&format!("`-o {output}` would replace the image that is patched")),
            "{message}"
        );
    }
    assert_eq!(workshop.json(&["inspect", "oci:out:1"]), before);
    workshop.json(&["build", "--patch", &good, "--version", "2", "oci:out:1", "-o", "oci:out:2"]);
}

#[test]
fn patch_may_bring_what_another_layer_has_where_it_is_the_same_to_the_byte() {
    let workshop = Workshop::new();
    let place = "/usr/local/app/tars/tarsstat/conf/shared.conf";
    workshop.write("shared.conf", "shared");
    workshop.write("framework.yaml", &format!("{RECIPE}files: {{shared.conf: {place}}}\n"));
    workshop.json(&["build", "framework.yaml"]);
    let pack = |text: &str| {
        let mut files = entries(Service::Stat, "patched");
        files.push(Entry::File("tarsstat/conf/shared.conf".to_owned(), text.into(), false));
        Packer::default().write(&workshop.path("patched.tgz"), files);
    };
    let patch = ["build", "--patch", "tarsstat=patched.tgz", "--version", "1", "tars/framework:3.0.17"];
    pack("another");
    let message = workshop.refused(&patch, 2);
    assert!(message.contains(&format!("the place {place} belongs to files")), "{message}");
    pack("shared");
    workshop.json(&patch);
    // A build from the recipe says the same.
    fs::rename(workshop.path("patched.tgz"), workshop.path("packages/tarsstat.tgz")).unwrap();
    workshop.json(&["build", "framework.yaml", "--version", "2"]);
}

/// What `docker save` writes of an image: layers as they are uncompressed.
fn save(workshop: &Workshop, layout: &str) -> String {
    let image = layout::read(&workshop.path(layout), None).unwrap();
    let mut tar = tar::Builder::new(fs::File::create(workshop.path("saved.tar")).unwrap());
    let mut append = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, bytes).unwrap();
    };
    let mut names = Vec::new();
    for (number, layer) in image.layers.iter().enumerate() {
        let mut bytes = Vec::new();
        let mut stream = flate2::read::MultiGzDecoder::new(layer.source.open().unwrap());
        stream.read_to_end(&mut bytes).unwrap();
        names.push(format!("{number}/layer.tar"));
        append(&names[number], &bytes);
    }
    append("config.json", &image.config);
    let manifest =
        json!([{ "Config": "config.json", "RepoTags": ["tars/framework:3.0.17"], "Layers": names }]);
    append("manifest.json", manifest.to_string().as_bytes());
    tar.finish().unwrap();
    "docker-archive:saved.tar".to_owned()
}

#[test]
fn image_that_an_engine_saved_is_built_upon_whatever_is_known_of_its_layers() {
    let workshop = Workshop::new();
    workshop.json(&["build", "framework.yaml", "-o", "tars/framework:3.0.17", "-o", "oci:out:1"]);
    let saved = save(&workshop, "out");
    workshop.pack(Packer::default(), Service::Log, "3.0.18");
    let package = format!("tarsstat={}", pack(&workshop, Service::Stat, "patched"));
    let after = |image: &str| {
        workshop.json(&["build", "framework.yaml", "--version=2", "--after", image, "-ooci:next:2"])
    };
    let patch =
        |image: &str| workshop.json(&["build", "--patch", &package, "--version=3", image, "-ooci:next:3"]);
    let (next, patched) = (after("tars/framework:3.0.17"), patch("tars/framework:3.0.17"));
    let kept =
        |built: &Value| built["layers"].as_array().unwrap()[..13].iter().all(|layer| layer["cached"] == true);
    assert!(kept(&next) && next["layers"].as_array().unwrap().len() == 15, "{next}");
    // The store has the image.
    assert_eq!(after(&saved)["digest"], next["digest"]);
    assert_eq!(patch(&saved)["digest"], patched["digest"]);
    // The cache alone has its layers.
    fs::remove_dir_all(workshop.path("store")).unwrap();
    assert_eq!(after(&saved)["digest"], next["digest"]);
    assert_eq!(patch(&saved)["layers"][12], patched["layers"][12]);
    // Nobody has: they are compressed as they were.
    fs::remove_dir_all(workshop.path("cache")).unwrap();
    assert_eq!(after(&saved)["digest"], next["digest"], "whatever is known");
    fs::remove_dir_all(workshop.path("cache")).unwrap();
    assert_eq!(patch(&saved)["layers"][12], patched["layers"][12]);
    // And so they are for a plan, which is the build to the byte.
    fs::remove_dir_all(workshop.path("cache")).unwrap();
    let command = ["build", "framework.yaml", "--version=2", "--after", &saved, "-ooci:next:4"];
    assert_eq!(workshop.json(&[&command[..], &["--plan"]].concat())["digest"], next["digest"]);
}
