//! Images as bases: their layers and their config stay as they are, wherever they lie, and what shows of them is what counts.

use std::fs;
use std::io::Write as _;

use serde_json::{Value, json};
use tarsup::contents::Contents;
use tarsup::oci::{Digest, Image};
use tarsup::tars::Service;
use tarsup::transport::layout;

use crate::packages::{Entry, Packer, RECIPE, Workshop};
use crate::programs::{LIBRARY, Lies, PROGRAM, Program, debian, tar_of};
use crate::registry::stub::Stub;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

const OCI_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const DOCKER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// More than any type of Rust holds exactly.
const NUMBER: &str = "123456789012345678901234567890.10";

/// A layout in the workshop, made by hand.
struct Foreign<'w> {
    workshop: &'w Workshop,
    folder: &'static str,
}

impl Foreign<'_> {
    fn put(&self, bytes: &[u8]) -> Digest {
        let blobs = self.workshop.path(self.folder).join("blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        fs::write(blobs.join(Digest::of(bytes).hex()), bytes).unwrap();
        Digest::of(bytes)
    }

    /// An image of these tars, as stored; its descriptor.
    fn image(&self, architecture: &str, layers: &[(Vec<u8>, Vec<u8>, &str)]) -> Value {
        let diff_ids: Vec<Digest> = layers.iter().map(|(tar, _, _)| Digest::of(tar)).collect();
        let mut history = vec![
            json!({"created": "2001-01-01T00:00:00Z", "created_by": "/bin/sh -c #(nop)  CMD [\"sh\"]", "empty_layer": true}),
        ];
        history.extend(layers.iter().map(|_| json!({"created": "2001-01-01T00:00:00.5Z", "created_by": "COPY x", "comment": "buildkit.dockerfile.v0"})));
        let config = json!({
            "architecture": architecture, "variant": "v2", "os": "linux", "os.version": "1.2", "author": "somebody",
            "created": "2001-01-01T00:00:00Z", "x-unknown": {"b": [1, null], "n": "A NUMBER"},
            "config": {"Env": ["PATH=/opt/bin:/usr/bin", "A=base", "TARSUP_VERSION=old"], "Cmd": ["sh"], "User": "nobody", "Shell": ["/bin/bash", "-c"],
                "OnBuild": ["RUN x"], "Labels": {"team": "red", "io.tarsup.image.role": "plain"}, "ExposedPorts": {"1/tcp": {}}, "ArgsEscaped": true},
            "rootfs": {"type": "layers", "diff_ids": diff_ids}, "history": history,
        })
        .to_string()
        .replace("\"A NUMBER\"", NUMBER);
        let named: Vec<Value> = layers
            .iter()
            .map(|(_, blob, kind)| json!({"mediaType": kind, "digest": self.put(blob), "size": blob.len()}))
            .collect();
        let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": self.put(config.as_bytes()), "size": config.len()},
            "layers": named})
        .to_string();
        json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": self.put(manifest.as_bytes()), "size": manifest.len(),
            "platform": {"os": "linux", "architecture": architecture}})
    }

    /// Names what was made, as the index of the layout.
    fn name(&self, mut descriptor: Value) {
        descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": "1"});
        let folder = self.workshop.path(self.folder);
        fs::write(
            folder.join("index.json"),
            json!({"schemaVersion": 2, "manifests": [descriptor]}).to_string(),
        )
        .unwrap();
        fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    }

    /// An index of several.
    fn index(&self, manifests: &[Value]) -> Value {
        let index = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests}).to_string();
        json!({"mediaType": "application/vnd.oci.image.index.v1+json", "digest": self.put(index.as_bytes()), "size": index.len()})
    }
}

/// What lies over the small Debian: things deleted, replaced and moved.
fn above() -> Vec<(&'static str, Lies<'static>)> {
    vec![
        ("opt/.wh.lib", Lies::File(Vec::new())),
        ("srv/.wh..wh..opq", Lies::File(Vec::new())),
        ("srv/new", Lies::File(b"new".to_vec())),
        ("usr/lib/libz.so.1", Lies::File(LIBRARY.bytes())),
        ("was-folder", Lies::File(b"file".to_vec())),
        ("usr/local", Lies::Link("/data")),
        ("data", Lies::Folder),
    ]
}

fn below() -> Vec<(&'static str, Lies<'static>)> {
    debian(vec![
        ("opt/lib/libopt.so.1", Lies::File(LIBRARY.bytes())),
        ("srv", Lies::Folder),
        ("srv/old", Lies::File(b"old".to_vec())),
        ("was-folder", Lies::Folder),
        ("was-folder/x", Lies::File(b"x".to_vec())),
        ("usr/local", Lies::Folder),
    ])
}

/// Two layers, gzipped as docker and as OCI name it.
fn layers() -> Vec<(Vec<u8>, Vec<u8>, &'static str)> {
    let tars = [tar_of(&below()), tar_of(&above())];
    let [low, high] = tars.map(|tar| (gzip(&tar), tar)).map(|(blob, tar)| (tar, blob));
    vec![(low.0, low.1, DOCKER_GZIP), (high.0, high.1, OCI_GZIP)]
}

fn workshop(base: &str) -> Workshop {
    let workshop = Workshop::new();
    workshop.write("framework.yaml", &RECIPE.replace("scratch", base));
    let foreign = Foreign { workshop: &workshop, folder: "base" };
    foreign.name(foreign.image("amd64", &layers()));
    pack(&workshop, Program { needed: &["libz.so.1", "libstdc++.so.6"], ..PROGRAM });
    workshop
}

fn pack(workshop: &Workshop, program: Program<'_>) {
    let file = Entry::File("tarsstat/tarsstat".to_owned(), program.bytes(), true);
    Packer::default().write(&workshop.path("packages/tarsstat.tgz"), vec![file]);
}

fn built(workshop: &Workshop, tag: &str) -> (Image, Value) {
    let image = layout::read(&workshop.path("out"), Some(tag)).unwrap();
    let config = serde_json::from_slice(&image.config).unwrap();
    (image, config)
}

const BUILD: [&str; 4] = ["build", "framework.yaml", "-o", "oci:out:1"];

#[test]
fn date_is_that_of_what_is_added_and_never_of_the_base() {
    let workshop = workshop("oci:base:1");
    let output = workshop.command(&BUILD).env("SOURCE_DATE_EPOCH", "1700000000").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (image, config) = built(&workshop, "1");
    let ours = "2023-11-14T22:13:20Z";
    assert_eq!(config["created"], ours);
    let history = config["history"].as_array().unwrap();
    assert_eq!(history[0]["created"], "2001-01-01T00:00:00Z");
    let made =
        |entry: &&serde_json::Value| entry["created_by"].as_str().unwrap().starts_with("tarsup build ");
    assert!(history.iter().filter(made).all(|entry| entry["created"] == ours), "{history:#?}");
    assert!(history.iter().any(|entry| made(&entry)), "{history:#?}");
    for (layer, (_, blob, _)) in image.layers.iter().zip(&layers()) {
        assert_eq!(layer.descriptor.digest, Digest::of(blob));
    }
}

#[test]
fn image_as_base_stays_as_it_is_and_what_shows_of_it_counts() {
    let workshop = workshop("oci:base:1");
    workshop.json(&BUILD);
    let (image, config) = built(&workshop, "1");
    let stored = layers();
    for (layer, (tar, blob, _)) in image.layers.iter().zip(&stored) {
        assert_eq!((layer.diff_id, layer.descriptor.digest), (Digest::of(tar), Digest::of(blob)));
        assert_eq!(layer.descriptor.media_type.as_ref(), OCI_GZIP, "one manifest, one kind of media types");
    }
    assert_eq!(&image.layer_names()[..3], ["base", "base", "contents-below"]);

    // Every key of the base, and ours over them.
    let unknown = format!("{{\"b\":[1,null],\"n\":{NUMBER}}}");
    for (key, value) in [
        ("variant", json!("v2")),
        ("os.version", json!("1.2")),
        ("author", json!("somebody")),
        ("x-unknown", serde_json::from_str(&unknown).unwrap()),
    ] {
        assert_eq!(config[key], value, "{key}");
    }
    let text = String::from_utf8(image.config.clone()).unwrap();
    assert!(text.contains(&format!("\"x-unknown\":{unknown}")), "to the digit: {text}");
    let history = config["history"].as_array().unwrap();
    assert_eq!(
        history[0],
        json!({"created": "2001-01-01T00:00:00Z", "created_by": "/bin/sh -c #(nop)  CMD [\"sh\"]", "empty_layer": true})
    );
    assert_eq!(history[1]["comment"], "buildkit.dockerfile.v0");
    assert_eq!(history.iter().filter(|entry| entry["empty_layer"] != true).count(), image.layers.len());
    let run = &config["config"];
    assert_eq!(run["Env"], json!(["PATH=/opt/bin:/usr/bin", "A=base", "TARSUP_VERSION=3.0.17"]));
    assert_eq!(run["Entrypoint"], json!(["/usr/local/bin/tars-init", "framework"]));
    assert_eq!((&run["Cmd"], &run["User"]), (&Value::Null, &Value::Null), "tars-init is PID 1, as root");
    assert_eq!(
        (&run["Shell"], &run["OnBuild"], &run["ArgsEscaped"]),
        (&json!(["/bin/bash", "-c"]), &json!(["RUN x"]), &json!(true))
    );
    assert_eq!(
        (&run["Labels"]["team"], &run["Labels"]["io.tarsup.image.role"]),
        (&json!("red"), &json!("framework"))
    );
    assert!(run["ExposedPorts"]["1/tcp"].is_object() && run["ExposedPorts"]["17890/tcp"].is_object());

    // Whiteouts, an opaque folder, a file over a folder, a link over a folder.
    let contents = Contents::of(&image).unwrap().unwrap();
    let base = &contents.parts["base"];
    let has = |path: &str| base.entries.has(path);
    let gone =
        ["opt/lib", "opt/lib/libopt.so.1", "srv/old", "was-folder/x", "opt/.wh.lib", "srv/.wh..wh..opq"];
    assert!(gone.iter().all(|path| !has(path)), "{:?}", base.entries);
    assert!(
        ["opt", "srv", "srv/new", "was-folder", "usr/lib/libz.so.1", "etc/ld.so.conf"]
            .iter()
            .all(|path| has(path))
    );
    assert!(
        contents.parts["tars-init"].entries.has("data/bin/tars-init"),
        "the link of a layer above is followed"
    );
    let offers = base.offers.as_ref().unwrap();
    assert!(
        offers.libraries.contains_key("usr/lib/libz.so.1")
            && !offers.libraries.contains_key("opt/lib/libopt.so.1")
    );

    // The gate sees what shows, too.
    pack(&workshop, Program { needed: &["libopt.so.1"], ..PROGRAM });
    let words = workshop.refused(&BUILD, 3);
    assert!(words.contains("tarsstat needs libopt.so.1; no layer has it"), "{words}");
}

#[test]
fn base_is_the_same_in_a_layout_an_archive_and_a_compressed_archive() {
    let workshop = workshop("oci:base:1");
    let expected = workshop.json(&BUILD)["digest"].clone();
    workshop.json(&["copy", "oci:base:1", "docker-archive:base.tar:x/base:1"]);
    fs::write(workshop.path("base.tgz"), gzip(&fs::read(workshop.path("base.tar")).unwrap())).unwrap();
    fs::write(workshop.path("base.zst"), zstd(&fs::read(workshop.path("base.tar")).unwrap())).unwrap();
    for base in [
        "docker-archive:base.tar",
        "docker-archive:base.tar:x/base:1",
        "docker-archive:base.tgz",
        "docker-archive:base.zst",
    ] {
        fs::remove_dir_all(workshop.path("cache")).unwrap();
        workshop.write("framework.yaml", &RECIPE.replace("scratch", base));
        assert_eq!(workshop.json(&BUILD)["digest"], expected, "{base}");
    }
    for archive in ["docker-archive:base.tgz", "docker-archive:base.zst"] {
        let shown = workshop.json(&["inspect", archive]);
        assert_eq!(shown["architecture"], "amd64", "{archive}");
        let copied = workshop.json(&["copy", archive, "oci:copied:1"]);
        assert_eq!(copied["layers_sent"].as_u64().unwrap() + copied["layers_skipped"].as_u64().unwrap(), 2);
        fs::remove_dir_all(workshop.path("copied")).unwrap();
    }
    // A layer that is not gzipped is, once.
    let [low, high]: [_; 2] = layers().try_into().unwrap();
    let zstd = zstd(&high.0);
    let foreign = Foreign { workshop: &workshop, folder: "plain" };
    let plain = (low.0.clone(), low.0, "application/vnd.oci.image.layer.v1.tar");
    foreign.name(
        foreign.image("amd64", &[plain, (high.0, zstd, "application/vnd.oci.image.layer.v1.tar+zstd")]),
    );
    workshop.write("framework.yaml", &RECIPE.replace("scratch", "oci:plain:1"));
    let first = workshop.json(&BUILD);
    let (image, _) = built(&workshop, "1");
    for layer in &image.layers {
        assert_eq!(layer.descriptor.media_type.as_ref(), OCI_GZIP);
        let mut plain = flate2::read::MultiGzDecoder::new(layer.source.open().unwrap());
        let mut tar = Vec::new();
        std::io::Read::read_to_end(&mut plain, &mut tar).unwrap();
        assert_eq!(Digest::of(&tar), layer.diff_id);
    }
    assert_eq!(workshop.json(&BUILD)["digest"], first["digest"]);
}

/// A frame with one raw block (RFC 8878, 3.1).
fn zstd(content: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0b1000_0000, 0x58];
    frame.extend(u32::try_from(content.len()).unwrap().to_le_bytes());
    let mut blocks = content.chunks(100_000).peekable();
    while let Some(block) = blocks.next() {
        let header = (u32::try_from(block.len()).unwrap() << 3) | u32::from(blocks.peek().is_none());
        frame.extend(&header.to_le_bytes()[..3]);
        frame.extend(block);
    }
    frame
}

#[test]
fn base_for_several_platforms_is_chosen_by_platform_and_another_one_refused() {
    let workshop = workshop("oci:base:1");
    let foreign = Foreign { workshop: &workshop, folder: "base" };
    let other = |name| {
        let tar = tar_of(&[("usr", Lies::Folder), (name, Lies::File(b"x".to_vec()))]);
        (tar.clone(), gzip(&tar), OCI_GZIP)
    };
    let arm = foreign.image("arm64", &[other("usr/arm")]);
    let amd = foreign.image("amd64", &[other("usr/amd")]);
    let riscv = foreign.image("riscv64", &[other("usr/riscv")]);
    fs::remove_file(workshop.path("packages/tarsstat.tgz")).unwrap();
    workshop.pack(Packer::default(), Service::Stat, "1");
    foreign.name(foreign.index(&[arm.clone(), riscv.clone(), amd]));
    for (platform, file) in [("linux/amd64", "usr/amd"), ("linux/arm64", "usr/arm")] {
        workshop.json(&["build", "framework.yaml", "-o", "oci:out:1", "--platform", platform]);
        let (image, config) = built(&workshop, "1");
        assert!(Contents::of(&image).unwrap().unwrap().parts["base"].entries.has(file), "{platform}");
        assert_eq!(format!("linux/{}", config["architecture"].as_str().unwrap()), platform);
    }
    foreign.name(foreign.index(&[arm.clone(), riscv]));
    let words = workshop.refused(&BUILD, 2);
    assert!(words.contains("no image for linux/amd64") && words.contains("linux/arm64"), "{words}");
    // The same for a copy, which says what there is.
    let copy = ["copy", "--platform", "linux/amd64", "oci:base:1", "oci:none:1"];
    let words = workshop.refused(&copy, 2);
    assert!(
        words.contains("base: there is no image for linux/amd64 | there is linux/arm64 (sha256:"),
        "{words}"
    );
    assert!(words.contains(", linux/riscv64 (sha256:"), "{words}");
    assert!(!workshop.path("none").exists());
    workshop.json(&["copy", "--platform", "linux/riscv64", "oci:base:1", "oci:none:1"]);
    let copied = layout::read(&workshop.path("none"), None).unwrap();
    assert_eq!(copied.parsed_config().unwrap().architecture, "riscv64");
    foreign.name(arm);
    let words = workshop.refused(&BUILD, 2);
    assert!(words.contains("is for linux/arm64/v2, and the image is for linux/amd64"), "{words}");
    assert!(words.contains("framework.yaml"), "{words}");
}

#[test]
fn one_lock_pins_the_index_of_a_registrys_base_and_serves_every_platform() {
    let (stub, workshop) = (Stub::honest(), workshop("oci:base:1"));
    fs::remove_file(workshop.path("packages/tarsstat.tgz")).unwrap();
    workshop.pack(Packer::default(), Service::Stat, "1");
    let foreign = Foreign { workshop: &workshop, folder: "base" };
    let image = |architecture, name| {
        let tar = tar_of(&[("usr", Lies::Folder), (name, Lies::File(b"x".to_vec()))]);
        let blob = gzip(&tar);
        (Digest::of(&blob), foreign.image(architecture, &[(tar, blob, OCI_GZIP)]))
    };
    let [arm, amd] = [("arm64", "usr/arm"), ("amd64", "usr/amd")].map(|(machine, name)| image(machine, name));
    let index = foreign.index(&[arm.1.clone(), amd.1.clone()]);
    let pinned = index["digest"].as_str().unwrap();
    let kind = |name: &str| {
        let kind = if name == pinned { "index" } else { "manifest" };
        format!("application/vnd.oci.image.{kind}.v1+json")
    };
    for entry in fs::read_dir(workshop.path("base/blobs/sha256")).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        let name = Digest::of(&bytes).to_string();
        let mut kept = stub.kept.lock().unwrap();
        kept.blobs.insert(("debian".to_owned(), name.clone()), bytes.clone());
        let names = if name == pinned { vec![name.clone(), "12".to_owned()] } else { vec![name.clone()] };
        for one in names {
            kept.manifests.insert(("debian".to_owned(), one), (kind(&name), bytes.clone()));
        }
    }
    let name = stub.name("debian:12");
    workshop.write("framework.yaml", &RECIPE.replace("scratch", &name));
    let outputs = ["-o", "oci:out:1", "-o", "docker-archive:out.tar"];
    let builds = [("linux/amd64", &amd, "usr/amd"), ("linux/arm64", &arm, "usr/arm")];
    for (round, (platform, (layer, _), file)) in builds.into_iter().enumerate() {
        let locked = if round == 0 { &[][..] } else { &["--locked"] };
        workshop.json(&[&["build", "framework.yaml", "--platform", platform][..], &outputs, locked].concat());
        let lock: Value = serde_json::from_slice(&fs::read(workshop.path("tarsup.lock")).unwrap()).unwrap();
        assert_eq!(lock["bases"][&name], *pinned, "{platform}");
        let (image, config) = built(&workshop, "1");
        assert!(Contents::of(&image).unwrap().unwrap().parts["base"].entries.has(file), "{platform}");
        assert_eq!(format!("linux/{}", config["architecture"].as_str().unwrap()), platform);
        assert_eq!(stub.count("GET", &format!("/blobs/{layer}")), 1, "both outputs, and what is read of it");
        // The name moves on, to what is no index; the lock does not.
        let moved = stub.kept.lock().unwrap().manifests
            [&("debian".to_owned(), amd.1["digest"].as_str().unwrap().to_owned())]
            .clone();
        stub.kept.lock().unwrap().manifests.insert(("debian".to_owned(), "12".to_owned()), moved);
    }
}

#[test]
fn base_whose_layer_lies_is_refused_and_nothing_is_kept() {
    let workshop = workshop("oci:base:1");
    let [low, high]: [_; 2] = layers().try_into().unwrap();
    let foreign = Foreign { workshop: &workshop, folder: "base" };
    // The config names another content than the blob has.
    foreign.name(foreign.image("amd64", &[(high.0.clone(), low.1.clone(), OCI_GZIP)]));
    let words = workshop.refused(&BUILD, 2);
    assert!(words.contains("a layer of the base") && words.contains("and its config names"), "{words}");
    foreign.name(foreign.image("amd64", &[(low.0.clone(), low.1.clone(), OCI_GZIP)]));
    let blob = workshop.path("base/blobs/sha256").join(Digest::of(&low.1).hex());
    let other = gzip(&[&low.0[..], &[0; 512]].concat());
    fs::write(blob, &other).unwrap();
    let words = workshop.refused(&BUILD, 2);
    assert!(words.contains("are other ones"), "{words}");
    assert!(!workshop.path("out/index.json").exists());
    foreign.name(foreign.image("amd64", &[(b"no tar".repeat(100), gzip(&b"no tar".repeat(100)), OCI_GZIP)]));
    assert!(workshop.refused(&BUILD, 2).contains("it is no tar"));
    foreign.name(foreign.image("amd64", &[]));
    assert!(workshop.refused(&BUILD, 2).contains("it has no layer"));
}

#[test]
fn base_of_a_registry_is_pinned_once_and_read_once_and_a_cold_build_after_it_reads_nothing_of_it() {
    let (stub, workshop) = (Stub::honest(), workshop("oci:base:1"));
    let (name, one, two) =
        (stub.name("debian:12"), stub.name("tars/framework:1"), stub.name("tars/framework:2"));
    workshop.json(&["copy", "oci:base:1", &name]);
    workshop.write("framework.yaml", &RECIPE.replace("scratch", &name));
    let asked = || stub.count("GET", "/blobs/");
    let words = workshop.refused(&["build", "framework.yaml", "--locked"], 3);
    assert!(words.contains("is not in tarsup.lock") || words.contains("tarsup.lock"), "{words}");
    assert!(!workshop.path("tarsup.lock").exists());
    workshop.json(&["build", "framework.yaml", "-o", &one]);
    let lock: Value = serde_json::from_slice(&fs::read(workshop.path("tarsup.lock")).unwrap()).unwrap();
    let pinned = layout::read(&workshop.path("base"), None).unwrap().digest();
    assert_eq!(lock["bases"][&name], pinned.to_string());
    // Two layers once each, and the config; they are mounted, not sent.
    assert_eq!(
        asked(),
        3,
        "{:?}",
        stub.kept.lock().unwrap().asked.iter().map(|asked| (&asked.method, &asked.path)).collect::<Vec<_>>()
    );

    // The name moves, the base does not.
    let foreign = Foreign { workshop: &workshop, folder: "base" };
    let tar = tar_of(&[("usr", Lies::Folder), ("usr/other", Lies::File(b"x".to_vec()))]);
    foreign.name(foreign.image("amd64", &[(tar.clone(), gzip(&tar), OCI_GZIP)]));
    workshop.json(&["copy", "oci:base:1", &name]);
    let same = workshop.json(&["build", "framework.yaml", "--locked", "-o", "oci:out:1"]);
    let (image, _) = built(&workshop, "1");
    assert_eq!(image.layers[0].diff_id, Digest::of(tar_of(&below())), "{same}");

    // Cold, after the image: nothing of the base is read but manifest and config.
    fs::remove_dir_all(workshop.path("cache")).unwrap();
    pack(&workshop, Program { needed: &["libstdc++.so.6"], ..PROGRAM });
    let before = asked();
    let built = workshop.json(&["build", "framework.yaml", "--version", "2", "--after", &one, "-o", &two]);
    assert_eq!(built["outputs"][0]["layers_sent"], 2, "{built}");
    // Two configs and two lists.
    assert_eq!(asked() - before, 4);
    let names: Vec<&str> =
        built["layers"].as_array().unwrap().iter().map(|layer| layer["name"].as_str().unwrap()).collect();
    assert_eq!(
        (&names[..3], &names[names.len() - 2..]),
        (&["base", "base", "contents-below"][..], &["tarsstat", "contents"][..])
    );
    pack(&workshop, Program { needed: &["libgone.so.1"], ..PROGRAM });
    fs::remove_dir_all(workshop.path("cache")).unwrap();
    let words = workshop.refused(&["build", "framework.yaml", "--version", "3", "--after", &two], 3);
    assert!(words.contains("tarsstat needs libgone.so.1"), "{words}");
    // A patch stands on the same layers.
    pack(&workshop, Program { needed: &["libz.so.1"], ..PROGRAM });
    let patched = workshop.json(&[
        "build",
        "--patch",
        "tarsstat=packages/tarsstat.tgz",
        "--version",
        "2-1",
        &two,
        "-o",
        "oci:out:2-1",
    ]);
    assert_eq!(patched["layers"][0]["name"], "base");
}

/// A tar of these files, as `docker save` would write it.
fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, *bytes).unwrap();
    }
    tar.into_inner().unwrap()
}

#[test]
fn layer_that_unpacks_to_more_than_it_may_is_refused_by_name_wherever_it_lies() {
    const LIMIT: u64 = 8 << 20;
    let workshop = Workshop::new();
    let bomb = archive(&[("zeros", &vec![0; 2 * usize::try_from(LIMIT).unwrap()])]);
    let foreign = Foreign { workshop: &workshop, folder: "base" };
    let layer = (bomb.clone(), gzip(&bomb), OCI_GZIP);
    foreign.name(foreign.image("amd64", std::slice::from_ref(&layer)));
    let zstd = Foreign { workshop: &workshop, folder: "zstd" };
    let other = (bomb.clone(), self::zstd(&bomb), "application/vnd.oci.image.layer.v1.tar+zstd");
    zstd.name(zstd.image("amd64", &[other]));
    let config = json!({"architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(&bomb)]}})
    .to_string();
    let named =
        json!([{"Config": "config.json", "RepoTags": ["x/base:1"], "Layers": ["layer.tar"]}]).to_string();
    let saved = |layer: &[u8]| {
        let files =
            [("manifest.json", named.as_bytes()), ("config.json", config.as_bytes()), ("layer.tar", layer)];
        archive(&files)
    };
    fs::write(workshop.path("layer.tar"), saved(&layer.1)).unwrap();
    fs::write(workshop.path("whole.tgz"), gzip(&saved(&bomb))).unwrap();
    pack(&workshop, PROGRAM);
    fs::create_dir(workshop.path("tmp")).unwrap();
    // What is known of a package may stay.
    let listing = || {
        let mut found = workshop.listing();
        let folders = ["cache", "cache/blobs", "cache/blobs/sha256", "cache/records", "cache/tmp"];
        found.retain(|path| !path.starts_with("cache/notes") && !folders.contains(&path.as_str()));
        found
    };
    let before = listing();
    for (base, said, variable) in [
        ("oci:base:1", "more than a base may hold: a decompression bomb?", "UNPACKED"),
        ("oci:zstd:1", "more than a base may hold: a decompression bomb?", "UNPACKED"),
        ("docker-archive:layer.tar", "its layer layer.tar unpacks to more than it may", "UNPACKED"),
        ("docker-archive:whole.tgz", "it unpacks to more than it may", "IMAGE"),
    ] {
        workshop.write("framework.yaml", &RECIPE.replace("scratch", base));
        let variable = format!("TARSUP_LIMIT_{variable}");
        let build = |limit: u64| {
            let mut build = workshop.command(&["build", "framework.yaml", "-o", "oci:out:1", "--json"]);
            build.env(&variable, limit.to_string()).env("TMPDIR", workshop.path("tmp")).output().unwrap()
        };
        let output = build(LIMIT);
        let words = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(2), "{base}: {words}");
        for part in [said, &format!("{variable}={}", 4 * LIMIT), base.split(':').nth(1).unwrap()] {
            assert!(words.contains(part), "{base}: {words}");
        }
        assert_eq!(listing(), before, "{base}: nothing is left");
        // Whoever means it says so.
        let words = build(4 * LIMIT).stdout;
        let words = String::from_utf8_lossy(&words);
        assert!(!words.contains("unpacks to more"), "{base}: {words}");
        fs::remove_dir_all(workshop.path("cache")).unwrap();
        fs::remove_dir_all(workshop.path("out")).ok();
    }
}
