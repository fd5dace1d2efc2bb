//! Layouts and archives of images: descriptors, documents and blobs that are not what they say.

use std::fs;

use serde_json::{Value, json};
use tarsup::oci::Digest;
use tempfile::TempDir;

use crate::attack::{Attack, all_hold};
use crate::builds;
use crate::kinds;
use crate::tarballs::{Member, gzip, tar};

/// A layout that is put together by hand.
struct Layout {
    folder: TempDir,
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

impl Layout {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        fs::create_dir_all(folder.path().join("evil/blobs/sha256")).unwrap();
        fs::write(folder.path().join("evil/oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Self { folder }
    }

    fn blob(&self, bytes: &[u8]) -> Value {
        let digest = Digest::of(bytes);
        fs::write(self.path(&digest.hex()), bytes).unwrap();
        json!({"digest": digest.to_string(), "size": bytes.len()})
    }

    fn path(&self, hex: &str) -> std::path::PathBuf {
        self.folder.path().join("evil/blobs/sha256").join(hex)
    }

    fn document(&self, kind: &str, document: &Value) -> Value {
        let mut of = self.blob(document.to_string().as_bytes());
        of["mediaType"] = kind.into();
        of
    }

    fn index(&self, manifests: &Value) {
        let mut index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
        if let Some(first) = index["manifests"].as_array_mut().and_then(|all| all.first_mut()) {
            first["annotations"] = json!({"org.opencontainers.image.ref.name": "1"});
        }
        fs::write(self.folder.path().join("evil/index.json"), index.to_string()).unwrap();
    }

    /// A sound image: the descriptors of config and layer, the config and the manifest.
    fn sound(&self) -> (Value, Value, Value) {
        let content = tar(&[Member::file("etc/x", b"x")]);
        let mut layer = self.blob(&gzip(&content));
        layer["mediaType"] = LAYER.into();
        let config = json!({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": [Digest::of(&content).to_string()]}});
        let described = self.document(CONFIG, &config);
        (
            layer.clone(),
            config,
            json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": [layer]}),
        )
    }
}

/// Each with all commands that read an image, and with some of those that build upon it.
fn attacks(name: &str, place: usize, make: &dyn Fn(&Layout)) -> Vec<Attack> {
    let commands: [&[&str]; 3] = [
        &["inspect", "oci:evil:1"],
        &["copy", "oci:evil:1", "tars/framework:1"],
        &["copy", "oci:evil:1", "docker-archive:out.tar"],
    ];
    commands
        .into_iter()
        .chain(builds::drawn(place, 2))
        .map(|command| {
            let layout = Layout::new();
            make(&layout);
            builds::write(layout.folder.path(), "oci:evil:1");
            let words: Vec<&str> =
                command.iter().map(|word| if *word == "IMAGE" { "oci:evil:1" } else { word }).collect();
            Attack::new(format!("{name}, {}", words.join(" ")), layout.folder, &words)
        })
        .collect()
}

/// What need not read a layer: an inspection, and a build after an image that is none of ours.
fn reads_no_layer(attack: &Attack) -> bool {
    attack.arguments[0] == "inspect" || attack.arguments.iter().any(|word| word == "--after")
}

#[test]
fn layouts_that_lie_are_refused_by_all_that_read_them() {
    let mut all = Vec::new();
    let mut place = 0;
    let mut add = |name: &str, make: &dyn Fn(&Layout)| {
        place += 1;
        all.extend(attacks(name, place, make));
    };
    let with = |layout: &Layout, change: &dyn Fn(&mut Value)| {
        let (_, _, mut manifest) = layout.sound();
        change(&mut manifest);
        let of = layout.document(MANIFEST, &manifest);
        layout.index(&json!([of]));
    };
    for (name, value) in [
        ("text", json!("x")),
        ("a list", json!([])),
        ("nothing", json!(null)),
        ("a number", json!(7)),
        ("an empty mapping", json!({})),
    ] {
        add(&format!("the config is {name}"), &|layout| {
            with(layout, &|manifest| manifest["config"] = value.clone());
        });
        add(&format!("a layer is {name}"), &|layout| {
            with(layout, &|manifest| manifest["layers"][0] = value.clone());
        });
        add(&format!("the manifest is {name}"), &|layout| {
            with(layout, &|manifest| *manifest = value.clone());
        });
        add(&format!("the index is {name}"), &|layout| {
            fs::write(layout.folder.path().join("evil/index.json"), value.to_string()).unwrap();
        });
    }
    for (name, digest) in [
        ("not there", format!("sha256:{}", "0".repeat(64))),
        ("a path", "sha256:../../../etc/passwd".to_owned()),
        ("short", "sha256:ab".to_owned()),
        ("of another kind", format!("md5:{}", "0".repeat(32))),
        ("upper case", format!("sha256:{}", "A".repeat(64))),
        ("long", format!("sha256:{}", "a".repeat(1 << 20))),
        ("of escapes", "sha256:\u{1b}[2J".to_owned()),
    ] {
        for place in ["/config/digest", "/layers/0/digest"] {
            add(&format!("{place} is {name}"), &|layout| {
                with(layout, &|manifest| *manifest.pointer_mut(place).unwrap() = digest.clone().into());
            });
        }
        add(&format!("the manifest's digest is {name}"), &|layout| {
            layout.index(&json!([{"mediaType": MANIFEST, "digest": digest, "size": 5}]));
        });
    }
    for (name, size) in [
        ("-1", json!(-1)),
        ("0", json!(0)),
        ("one too many", json!(1_000_000)),
        ("2^63", json!(9_223_372_036_854_775_808u64)),
        ("text", json!("x")),
        ("1e300", json!(1e300)),
    ] {
        for place in ["/config/size", "/layers/0/size"] {
            add(&format!("{place} is {name}"), &|layout| {
                with(layout, &|manifest| *manifest.pointer_mut(place).unwrap() = size.clone());
            });
        }
    }
    add("10,000 layers that are one", &|layout| {
        with(layout, &|manifest| {
            let layer = manifest["layers"][0].clone();
            manifest["layers"] = vec![layer; 10_000].into();
        });
    });
    add("no layers for its diff ids", &|layout| with(layout, &|manifest| manifest["layers"] = json!([])));
    add("a manifest of 64 MB", &|layout| {
        with(layout, &|manifest| manifest["x"] = "y".repeat(64 << 20).into());
    });
    add("a manifest of braces", &|layout| {
        let mut of = layout.blob("[".repeat(100_000).as_bytes());
        of["mediaType"] = MANIFEST.into();
        layout.index(&json!([of]));
    });
    add("an index that holds itself", &|layout| {
        let mut of = layout.blob(b"x");
        of["mediaType"] = INDEX.into();
        let hex = of["digest"].as_str().unwrap().trim_start_matches("sha256:").to_owned();
        let text = json!({"schemaVersion": 2, "manifests": [of.clone()]}).to_string();
        of["size"] = text.len().into();
        fs::write(layout.path(&hex), text).unwrap();
        layout.index(&json!([of]));
    });
    add("a chain of indexes", &|layout| {
        let (_, _, manifest) = layout.sound();
        let mut of = layout.document(MANIFEST, &manifest);
        for _ in 0..200 {
            of = layout.document(INDEX, &json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [of]}));
        }
        layout.index(&json!([of]));
    });
    add("an index of 100,000", &|layout| {
        let (_, _, manifest) = layout.sound();
        let of = layout.document(MANIFEST, &manifest);
        layout.index(&vec![of; 100_000].into());
    });
    add("another layout's version", &|layout| {
        with(layout, &|_| {});
        fs::write(layout.folder.path().join("evil/oci-layout"), r#"{"imageLayoutVersion":"9.0.0"}"#).unwrap();
    });
    add("a layer that is no gzip", &|layout| {
        let (_, config, mut manifest) = layout.sound();
        let mut layer = layout.blob(b"no gzip at all");
        layer["mediaType"] = LAYER.into();
        manifest["layers"] = json!([layer]);
        manifest["config"] = layout.document(CONFIG, &config);
        layout.index(&json!([layout.document(MANIFEST, &manifest)]));
    });
    for kind in kinds::KINDS {
        for what in ["index.json", "oci-layout", "the manifest", "the config", "the layer"] {
            add(&format!("{what} is {kind}"), &|layout| {
                let (layer, _, manifest) = layout.sound();
                let of = layout.document(MANIFEST, &manifest);
                layout.index(&json!([of]));
                let hex =
                    |of: &Value| of["digest"].as_str().unwrap().trim_start_matches("sha256:").to_owned();
                let at = match what {
                    "index.json" | "oci-layout" => layout.folder.path().join("evil").join(what),
                    "the manifest" => layout.path(&hex(&of)),
                    "the config" => layout.path(&hex(&manifest["config"])),
                    _ => layout.path(&hex(&layer)),
                };
                fs::remove_file(&at).unwrap();
                kinds::make(kind, &at);
            });
        }
    }
    // What an inspection does not read, it need not refuse.
    for attack in &mut all {
        let of_layer = attack.name.contains("layer") && !attack.name.contains("layers that are one");
        // What is compressed is copied as it is: its digest is what it says, whatever the engine makes of it.
        if attack.name.contains("no gzip") && attack.arguments[0] != "build" {
            attack.end = crate::attack::End::Either;
        }
        if of_layer && reads_no_layer(attack) {
            attack.end = crate::attack::End::Either;
        }
    }
    all_hold("layouts", 150, all);
}

/// An archive as `docker save` writes it, changed.
fn saved(name: &str, members: &[Member]) -> Vec<Attack> {
    const IMAGE: &str = "docker-archive:evil.tar";
    let bytes = tar(members);
    [&["inspect", IMAGE][..], &["copy", IMAGE, "oci:out:1"]]
        .into_iter()
        .chain(builds::drawn(name.len(), 2))
        .flat_map(|command| {
            [bytes.clone(), gzip(&bytes)].into_iter().map(move |bytes| {
                let folder = TempDir::new().unwrap();
                fs::write(folder.path().join("evil.tar"), bytes).unwrap();
                builds::write(folder.path(), IMAGE);
                let words: Vec<&str> =
                    command.iter().map(|word| if *word == "IMAGE" { IMAGE } else { word }).collect();
                Attack::new(format!("{name}, {}", words.join(" ")), folder, &words)
            })
        })
        .collect()
}

#[test]
fn archives_that_lie_are_refused_by_all_that_read_them() {
    let content = tar(&[Member::file("etc/x", b"x")]);
    let diff_id = Digest::of(&content).to_string();
    let config = |diff_ids: &Value| {
        json!({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}).to_string()
    };
    let manifest = |config: &str, layers: &Value| {
        json!([{"Config": config, "RepoTags": ["a/b:1"], "Layers": layers}]).to_string()
    };
    let file = |name: &str, text: &str| Member::file(name, text.as_bytes());
    let sound_config = config(&json!([diff_id]));
    let sound_manifest = manifest("c.json", &json!(["l.tar"]));
    let layer = Member::file("l.tar", &content);
    let mut all = Vec::new();
    all.extend(saved("no manifest", &[file("c.json", &sound_config), layer.clone()]));
    for (name, text) in [
        ("text", "hello".to_owned()),
        ("an empty list", "[]".to_owned()),
        ("a number", "7".to_owned()),
        ("braces", "[".repeat(100_000)),
        ("of a config above", manifest("../c.json", &json!(["l.tar"]))),
        ("of an absolute config", manifest("/etc/passwd", &json!(["l.tar"]))),
        ("of a config that is not there", manifest("d.json", &json!(["l.tar"]))),
        ("of a layer that is not there", manifest("c.json", &json!(["m.tar"]))),
        ("of a layer above", manifest("c.json", &json!(["../l.tar"]))),
        ("of too many layers", manifest("c.json", &json!(vec!["l.tar"; 5000]))),
        ("of no layers", manifest("c.json", &json!([]))),
        ("of numbers", manifest("c.json", &json!([1]))),
        (
            "of two images",
            json!([{"Config": "c.json", "Layers": ["l.tar"]}, {"Config": "c.json", "Layers": ["l.tar"]}])
                .to_string(),
        ),
        ("of 64 MB", format!("{}{sound_manifest}", " ".repeat(64 << 20))),
    ] {
        all.extend(saved(
            &format!("a manifest {name}"),
            &[file("manifest.json", &text), file("c.json", &sound_config), layer.clone()],
        ));
    }
    for (name, text) in [
        ("text", "hello".to_owned()),
        ("of another layer", config(&json!([format!("sha256:{}", "0".repeat(64))]))),
        ("of no layers", config(&json!([]))),
        ("of odd digests", config(&json!(["sha256:../x"]))),
        ("of numbers", config(&json!([7]))),
        ("of 64 MB", format!("{}{sound_config}", " ".repeat(64 << 20))),
        ("braces", "{\"a\":".repeat(50_000)),
    ] {
        all.extend(saved(
            &format!("a config {name}"),
            &[file("manifest.json", &sound_manifest), file("c.json", &text), layer.clone()],
        ));
    }
    for (name, member) in [
        ("a link to itself", Member::odd(b'2', "l.tar", "l.tar")),
        ("a link out of it", Member::odd(b'2', "l.tar", "/etc/passwd")),
        ("a link above", Member::odd(b'2', "l.tar", "../../l.tar")),
        ("a hard link to nothing", Member::odd(b'1', "l.tar", "nothing")),
        ("a pipe", Member::odd(b'6', "l.tar", "")),
        ("a folder", Member::odd(b'5', "l.tar", "")),
        ("longer than the archive", layer.clone().sized(b"77777777777\0")),
        ("other content", Member::file("l.tar", &tar(&[Member::file("etc/y", b"y")]))),
    ] {
        all.extend(saved(
            &format!("a layer that is {name}"),
            &[file("manifest.json", &sound_manifest), file("c.json", &sound_config), member],
        ));
    }
    for attack in &mut all {
        let of_layer = attack.name.contains("layer") && !attack.name.contains("of a layer")
            || attack.name.contains("of two images");
        if of_layer && reads_no_layer(attack) {
            attack.end = crate::attack::End::Either;
        }
    }
    for kind in kinds::KINDS {
        for command in
            [&["inspect", "docker-archive:evil.tar"][..], &["copy", "docker-archive:evil.tar", "oci:out:1"]]
        {
            let folder = TempDir::new().unwrap();
            kinds::make(kind, &folder.path().join("evil.tar"));
            all.push(Attack::new(format!("the archive is {kind}, {}", command.join(" ")), folder, command));
        }
    }
    all_hold("archives", 100, all);
}

#[test]
fn destinations_of_another_kind_are_left_alone() {
    let mut all = Vec::new();
    // Never the machine's own devices: what is not left alone would be gone.
    for kind in ["a pipe", "a link to /dev/zero", "a link to itself", "a folder", "a device"] {
        for place in ["docker-archive:at", "oci:at:1", "oci:at/index.json:1"] {
            let layout = Layout::new();
            let (_, _, manifest) = layout.sound();
            layout.index(&json!([layout.document(MANIFEST, &manifest)]));
            kinds::make(kind, &layout.folder.path().join("at"));
            let attack =
                Attack::new(format!("{place} is {kind}"), layout.folder, &["copy", "oci:evil:1", place]);
            // An empty folder becomes a layout.
            let folder = kind == "a folder" && place.starts_with("oci:");
            all.push(if folder { attack.or_taken() } else { attack });
        }
    }
    all_hold("destinations", 15, all);
}
