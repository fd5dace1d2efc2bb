//! A predecessor without a list of its files, one of an older tarsup; and with a list that is not true.

use std::fs;
use std::io::{Read as _, Write as _};

use serde_json::{Value, json};
use tarsup::contents::{Contents, Entry};
use tarsup::oci::Digest;
use tarsup::tars::Service;
use tarsup::transport::layout;

use crate::packages::{Entry as PackedEntry, Packer, RECIPE, Workshop, document};
use crate::programs::{Lies, PROGRAM, Program, debian, tar_of, write_base};
use crate::registry::cold;
use crate::registry::image::noise;

/// Writes a blob; its digest and size.
fn put(workshop: &Workshop, bytes: &[u8]) -> (Digest, usize) {
    let digest = Digest::of(bytes);
    fs::write(workshop.path("out/blobs/sha256").join(digest.hex()), bytes).unwrap();
    (digest, bytes.len())
}

fn blob(workshop: &Workshop, digest: &Value) -> Vec<u8> {
    let hex = digest.as_str().unwrap().trim_start_matches("sha256:");
    fs::read(workshop.path("out/blobs/sha256").join(hex)).unwrap()
}

/// Makes `oci:out:TAG` of `oci:out:1`, with what is done to manifest and config.
fn edited(workshop: &Workshop, tag: &str, edit: impl FnOnce(&mut Value, &mut Value)) {
    let read = |digest: &Value| -> Value { serde_json::from_slice(&blob(workshop, digest)).unwrap() };
    let index = workshop.path("out/index.json");
    let mut names: Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    let mut manifest = read(&names["manifests"][0]["digest"]);
    let mut config = read(&manifest["config"]["digest"]);
    edit(&mut manifest, &mut config);
    let (digest, size) = put(workshop, config.to_string().as_bytes());
    (manifest["config"]["digest"], manifest["config"]["size"]) = (json!(digest), json!(size));
    let (digest, size) = put(workshop, manifest.to_string().as_bytes());
    names["manifests"].as_array_mut().unwrap().push(json!({
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": size,
        "annotations": {"org.opencontainers.image.ref.name": tag},
    }));
    fs::write(index, names.to_string()).unwrap();
}

/// Takes the lists out of `oci:out:1`; what is left is `oci:out:old`.
pub fn take_lists_out(workshop: &Workshop) {
    edited(workshop, "old", |manifest, config| {
        let layers = manifest["layers"].as_array_mut().unwrap();
        let diff_ids = config["rootfs"]["diff_ids"].as_array().unwrap().clone();
        let history = config["history"].as_array().unwrap().clone();
        let is_list =
            |layer: &Value| layer["annotations"]["io.tarsup.layer"].as_str().unwrap().starts_with("contents");
        let kept: Vec<usize> = (0..layers.len()).filter(|index| !is_list(&layers[*index])).collect();
        assert!(kept.len() < layers.len());
        config["rootfs"]["diff_ids"] = kept.iter().map(|index| diff_ids[*index].clone()).collect();
        config["history"] = kept.iter().map(|index| history[*index].clone()).collect();
        manifest["layers"] = kept.iter().map(|index| manifest["layers"][*index].clone()).collect();
    });
}

/// Makes `oci:out:TAG` of `oci:out:1`, with another list in the layer of this name, and so many bytes beside it.
fn forged(workshop: &Workshop, tag: &str, layer: &str, beside: usize, change: impl Fn(&str, &mut Value)) {
    edited(workshop, tag, |manifest, config| {
        let layers = manifest["layers"].as_array_mut().unwrap();
        let at = layers.iter().rposition(|one| one["annotations"]["io.tarsup.layer"] == layer).unwrap();
        let plain = blob(workshop, &layers[at]["digest"]);
        let mut read = tar::Archive::new(flate2::read::MultiGzDecoder::new(plain.as_slice()));
        let mut written = tar::Builder::new(Vec::new());
        for entry in read.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().to_str().unwrap().to_owned();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            if let Some(name) = path.rsplit('/').next().and_then(|name| name.strip_suffix(".json")) {
                let mut part = serde_json::from_slice(&content).unwrap();
                change(name, &mut part);
                content = part.to_string().into_bytes();
            }
            let mut header = entry.header().clone();
            header.set_size(content.len() as u64);
            header.set_cksum();
            written.append(&header, content.as_slice()).unwrap();
        }
        let mut header = tar::Header::new_ustar();
        header.set_path("usr/share/tarsup/noise").unwrap();
        header.set_mode(0o644);
        header.set_size(beside as u64);
        header.set_cksum();
        written.append(&header, noise(5, beside).as_slice()).unwrap();
        let tar = written.into_inner().unwrap();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&tar).unwrap();
        let (digest, size) = put(workshop, &gzip.finish().unwrap());
        (layers[at]["digest"], layers[at]["size"]) = (json!(digest), json!(size));
        config["rootfs"]["diff_ids"][at] = json!(Digest::of(&tar));
    });
}

fn names(built: &Value) -> Vec<String> {
    let layers = built["layers"].as_array().unwrap();
    layers.iter().map(|layer| layer["name"].as_str().unwrap().to_owned()).collect()
}

/// What a list says of a service, whoever made it.
fn listed(workshop: &Workshop, tag: &str, service: Service) -> Vec<(String, Entry)> {
    let image = layout::read(&workshop.path("out"), Some(tag)).unwrap();
    let part = Contents::of(&image).unwrap().unwrap().parts.remove(service.name()).unwrap();
    part.entries.iter().map(|(path, entry)| (path.to_string(), Entry { layer: 0, ..entry })).collect()
}

#[test]
fn list_that_lies_counts_as_none_and_the_layers_are_read() {
    let workshop = cold::workshop();
    cold::wide(&workshop);
    let mut expected = names(&workshop.json(&["build", "framework.yaml", "-o", "oci:out:1"]));
    let of_log = |change: fn(&mut Value)| {
        move |name: &str, part: &mut Value| {
            if name == "tarslog" {
                change(part);
            }
        }
    };
    let absent = |part: &mut Value| part["layers"] = json!([Digest::of("no layer")]);
    let first = |part: &mut Value, key: &str, value: Value| {
        part["entries"].as_object_mut().unwrap().values_mut().next().unwrap()[key] = value;
    };
    forged(&workshop, "large", "contents", 9 << 20, |_, _| ());
    forged(&workshop, "later", "contents", 0, of_log(|part| part["version"] = json!(2)));
    forged(&workshop, "absent", "contents", 0, of_log(absent));
    forged(
        &workshop,
        "beyond",
        "contents",
        0,
        of_log(|part| {
            part["entries"].as_object_mut().unwrap().values_mut().for_each(|entry| entry["layer"] = json!(7));
        }),
    );
    forged(&workshop, "endless", "contents", 0, |_, part| first(part, "size", json!(u64::MAX)));
    forged(&workshop, "below", "contents-below", 0, |_, part| absent(part));
    forged(&workshop, "later-below", "contents-below", 0, |_, part| part["version"] = json!(2));
    cold::pack_stat(&workshop, 2);
    // What the lower list has that counts as none is gone as well.
    expected.splice(expected.len() - 1.., ["tarsstat", "contents-below", "contents"].map(str::to_owned));
    let build = |after: &str, output: &str| {
        let output = format!("oci:out:{output}");
        let command =
            ["build", "framework.yaml", "--version", "2", "--json", "--after", after, "-o", &output];
        let output = workshop.run(&command);
        (crate::packages::document(&output), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (_, said) = build("oci:out:1", "honest");
    assert!(!said.contains("are read"), "{said}");
    for lie in ["large", "later", "later-below", "absent", "beyond", "endless", "below"] {
        let (after, made) = (format!("oci:out:{lie}"), format!("made-{lie}"));
        let (document, said) = build(&after, &made);
        let words = format!("{after} has no list of its files: all of its layers are read");
        assert!(said.contains(&words), "{lie}: {said}");
        assert_eq!(names(&document), expected, "{lie}: {said}");
        for service in [Service::Log, Service::Stat] {
            let [found, honest] = [&made, "honest"].map(|tag| listed(&workshop, tag, service));
            assert_eq!(found, honest, "{lie}: {service}");
        }
        // What comes of it has a list that counts.
        let (next, said) = build(&format!("oci:out:{made}"), "next");
        assert!(!said.contains("are read"), "{lie}: {said}");
        assert_eq!(names(&next), expected, "{lie}: {said}");
    }
}

/// What somebody's `FROM` has put on top is not what the list below it says.
#[test]
fn list_below_somebody_elses_layer_counts_as_none() {
    let workshop = cold::workshop();
    workshop.json(&["build", "framework.yaml", "-o", "oci:out:1"]);
    let log = "usr/local/app/tars/tarslog/bin/tarslog";
    let tar = tar_of(&[(log, Lies::File(b"#!/bin/sh\necho evil\n".to_vec()))]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar).unwrap();
    let (digest, size) = put(&workshop, &gzip.finish().unwrap());
    let from = |manifest: &mut Value, config: &mut Value| {
        let kind = "application/vnd.oci.image.layer.v1.tar+gzip";
        manifest["layers"]
            .as_array_mut()
            .unwrap()
            .push(json!({"mediaType": kind, "digest": digest, "size": size}));
        config["rootfs"]["diff_ids"].as_array_mut().unwrap().push(json!(Digest::of(&tar)));
        config["history"].as_array_mut().unwrap().push(json!({"created_by": "COPY tarslog"}));
    };
    edited(&workshop, "from", from);
    let diff = workshop.json(&["diff", "oci:out:1", "oci:out:from"]);
    // Layer by layer: no list says what lies in them.
    assert_eq!(diff["added"], json!([{"name": "layer 17", "size": size}]), "{diff}");
    // It is built upon as an image of somebody else: nothing of that layer stays.
    cold::pack_stat(&workshop, 2);
    let command = ["build", "framework.yaml", "--version", "2", "--json", "-o", "oci:out:2"];
    let output = workshop.run(&[&command[..], &["--after", "oci:out:from"]].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("the predecessor's layers are not such as tarsup makes"), "{said}");
    let built = document(&output);
    assert!(!built["layers"].to_string().contains(&digest.to_string()), "{built}");
    workshop.json(&["build", "framework.yaml", "--version", "2", "-o", "oci:out:fresh"]);
    assert_eq!(listed(&workshop, "2", Service::Log), listed(&workshop, "fresh", Service::Log));
}

/// What a predecessor's list says of the base is as true as the digest that was asked for, for that build: nobody else hears of it.
#[test]
fn what_a_list_says_of_a_base_is_never_kept() {
    for base in ["rootfs:base.tar", "oci:base:1"] {
        let workshop = Workshop::new();
        write_base(&workshop.path("base.tar"), &debian(vec![]));
        workshop.write(
            "base.yaml",
            "name: x/base\nversion: 1\nrole: plain\nbase: rootfs:base.tar\nfiles: {tars-init: /opt/file}\nentrypoint: [/opt/file]\n",
        );
        workshop.json(&["build", "base.yaml", "-o", "oci:base:1"]);
        workshop.write("framework.yaml", &RECIPE.replace("scratch", base));
        workshop.json(&["build", "framework.yaml", "-o", "oci:out:1"]);
        forged(&workshop, "forged", "contents-below", 0, |name, part| {
            if name == "base" {
                let libraries = part["offers"]["libraries"].as_object_mut().unwrap();
                let (_, libc) = libraries.iter_mut().find(|(path, _)| path.ends_with("/libc.so.6")).unwrap();
                libc["exports"].as_array_mut().unwrap().push(json!("GLIBC_2.99"));
            }
        });
        let versions: &[(&str, &[&str])] = &[("libc.so.6", &["GLIBC_2.99"])];
        let program = Program { needed: &["libc.so.6"], versions, ..PROGRAM }.bytes();
        let file = PackedEntry::File("tarsstat/tarsstat".to_owned(), program, true);
        Packer::default().write(&workshop.path("packages/tarsstat.tgz"), vec![file]);
        fs::remove_dir_all(workshop.path("cache")).unwrap();
        let built = workshop.json(&[
            "build",
            "framework.yaml",
            "--version",
            "2",
            "--after",
            "oci:out:forged",
            "-o",
            "oci:out:2",
        ]);
        assert_eq!(names(&built).iter().filter(|name| *name == "tarsstat").count(), 2, "{base}: {built}");
        let words = workshop.refused(&["build", "framework.yaml", "--version", "3", "-o", "oci:out:3"], 3);
        assert!(words.contains("tarsstat needs GLIBC_2.99"), "{base}: {words}");
    }
}

#[test]
fn predecessor_without_a_list_is_read_in_full_and_built_upon_all_the_same() {
    let workshop = cold::workshop();
    cold::wide(&workshop);
    let old = workshop.json(&["build", "framework.yaml", "-o", "oci:out:1"]);
    take_lists_out(&workshop);
    cold::pack_stat(&workshop, 2);
    let command = ["build", "framework.yaml", "--version", "2", "--json", "--after"];
    let output = workshop.run(&[&command[..], &["oci:out:old"]].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("oci:out:old has no list of its files: all of its layers are read"), "{said}");
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
