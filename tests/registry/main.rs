//! `docker://` with a real registry, Debian's `docker-registry`: open, with a password, with TLS; skopeo reads and writes beside us.
#![allow(missing_docs, reason = "tests are named by what they hold")]
#![allow(clippy::unwrap_used, reason = "a test ends where something unexpected happens")]

#[path = "../certificates/mod.rs"]
mod certificates;
#[path = "../it/registry/image.rs"]
#[allow(dead_code, reason = "what the tests without a registry use as well")]
mod image;
#[path = "../it/packages.rs"]
#[allow(dead_code, reason = "what the tests without a registry use as well")]
mod packages;
#[path = "../it/programs.rs"]
#[allow(dead_code, reason = "what the tests without a registry use as well")]
mod programs;
mod read_back;
mod recipes;
mod server;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use serde_json::json;

use certificates::Certificates;
use image::Bench;
use server::{Registry, With};

const MIB: usize = 1 << 20;

/// skopeo, with nobody's logins and no check of certificates.
fn skopeo(bench: &Bench, arguments: &[&str]) -> String {
    let mut command = Command::new("skopeo");
    command.args(arguments).current_dir(bench.folder.path()).env("HOME", bench.path("home"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The layout has every byte of the image.
fn assert_back(bench: &Bench, layout: &str) {
    for digest in bench.layers.iter().chain([&bench.config, &bench.manifest]) {
        let back = fs::read(bench.path(layout).join("blobs/sha256").join(digest.hex())).unwrap();
        assert!(back == bench.blob(digest), "{digest}");
    }
}

#[test]
fn image_goes_into_a_registry_and_out_of_it_beside_skopeo() {
    let (registry, bench) = (Registry::start(&With::Nothing), Bench::new(&[80 * MIB, 3 * MIB, 10]));
    let receipt = bench.json(&["copy", "oci:image:1", &registry.name("tars/framework:1")]);
    assert_eq!((&receipt["layers_sent"], &receipt["layers_skipped"]), (&3.into(), &0.into()));
    skopeo(
        &bench,
        &[
            "copy",
            "--preserve-digests",
            "--src-tls-verify=false",
            &registry.name("tars/framework:1"),
            "oci:read-by-skopeo:1",
        ],
    );
    assert_back(&bench, "read-by-skopeo");
    skopeo(
        &bench,
        &[
            "copy",
            "--preserve-digests",
            "--dest-tls-verify=false",
            "oci:image:1",
            &registry.name("by/skopeo:1"),
        ],
    );
    bench.json(&["copy", &registry.name("by/skopeo:1"), "oci:written-by-skopeo:1"]);
    assert_back(&bench, "written-by-skopeo");

    // Mounted, in fact: nothing is sent but a manifest, twice.
    let receipt = bench.json(&["copy", &registry.name("tars/framework:1"), &registry.name("another:1")]);
    assert_eq!(receipt["layers_sent"], 0);
    assert!(receipt["bytes_sent"].as_u64().unwrap() < 2000, "{receipt}");
    bench.json(&["copy", &registry.name("another:1"), "oci:another:1"]);
    assert_back(&bench, "another");
    let message = bench.refused(&["inspect", &registry.name("another:2")], 2);
    assert!(message.contains("has no image another:2"), "{message}");

    // Docker's own kind of manifest keeps its bytes.
    skopeo(
        &bench,
        &["copy", "--dest-tls-verify=false", "--format", "v2s2", "oci:image:1", &registry.name("v2s2:1")],
    );
    let inspected = bench.json(&["inspect", &registry.name("v2s2:1")]);
    bench.json(&["copy", &registry.name("v2s2:1"), "oci:docker:1"]);
    bench.json(&["copy", "oci:docker:1", &registry.name("v2s2:2")]);
    let raw = skopeo(&bench, &["inspect", "--tls-verify=false", "--raw", &registry.name("v2s2:2")]);
    assert_eq!(inspected["digest"], tarsup::oci::Digest::of(raw).to_string());
}

#[test]
fn registry_with_a_password_is_shown_it() {
    let (registry, bench) = (Registry::start(&With::Password), Bench::new(&[MIB]));
    let message = bench.refused(&["copy", "oci:image:1", &registry.name("a:1")], 1);
    assert!(message.contains("wants a login"), "{message}");
    let login = |password: &str| {
        bench.logins(&json!({"auths": {registry.host.clone(): {"username": "user", "password": password}}}));
    };
    login("other");
    let message = bench.refused(&["copy", "oci:image:1", &registry.name("a:1")], 1);
    assert!(message.contains("does not accept the password of user"), "{message}");
    login(server::PASSWORD);
    bench.json(&["copy", "oci:image:1", &registry.name("a:1")]);
    bench.json(&["copy", &registry.name("a:1"), "oci:back:1"]);
    assert_back(&bench, "back");
}

#[test]
fn registry_with_tls_is_believed_by_the_authority_that_was_laid_out_for_it() {
    let certificates = Certificates::of("127.0.0.1");
    let (registry, bench) = (Registry::start(&With::Tls(&certificates)), Bench::new(&[MIB]));
    for arguments in [vec![], vec!["--insecure-registry", "127.0.0.1"]] {
        let (name, mut all) = (registry.name("a:1"), vec!["copy", "oci:image:1"]);
        all.push(&name);
        all.extend(arguments);
        let message = bench.refused(&all, 1);
        assert!(message.contains("signed by an authority that is not known here"), "{message}");
        assert!(message.contains(&format!("certs.d/{}/ca.crt", registry.host)), "{message}");
    }
    let folder = bench.path("home/.config/docker/certs.d").join(&registry.host);
    fs::create_dir_all(&folder).unwrap();
    fs::copy(certificates.path("ca.pem"), folder.join("ca.crt")).unwrap();
    bench.json(&["copy", "oci:image:1", &registry.name("a:1")]);
    bench.json(&["copy", &registry.name("a:1"), "oci:back:1"]);
    assert_back(&bench, "back");
    fs::write(folder.join("ca.crt"), "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n").unwrap();
    let message = bench.refused(&["inspect", &registry.name("a:1")], 2);
    assert!(message.contains("ca.crt cannot be used"), "{message}");
}

#[test]
fn list_of_files_survives_what_copies_images() {
    let (registry, bench, workshop) =
        (Registry::start(&With::Nothing), Bench::new(&[10]), packages::Workshop::new());
    let (own, theirs) = (registry.name("tars/framework:1"), registry.name("by/skopeo:1"));
    let rights = "files: {tars-init: {path: /opt/raw, mode: '04755', capabilities: cap_net_raw=ep}}\n";
    workshop.write("framework.yaml", &format!("{}{rights}", packages::RECIPE));
    workshop.json(&["build", "framework.yaml", "-o", &own]);
    let tls = ["--src-tls-verify=false", "--dest-tls-verify=false"];
    skopeo(&bench, &[&["copy", "--format", "v2s2"], &tls[..], &[&own, &theirs]].concat());
    workshop.pack(packages::Packer::default(), tarsup::tars::Service::Stat, "3.0.18");
    workshop.json(&["build", "framework.yaml", "--version", "2", "--after", &theirs]);
    let diff = workshop.json(&["diff", &theirs, "tars/framework:2"]);
    assert_eq!(diff["changed"][0]["name"], "tarsstat", "{diff}");
    // Compared by layers, there would be one more, with the list itself.
    assert_eq!((diff["changed"].as_array().unwrap().len(), diff["same"].as_array().unwrap().len()), (1, 13));

    // Another tool sees a folder with files.
    skopeo(&bench, &["copy", "--src-tls-verify=false", &own, "oci:read:1"]);
    let unpacked = bench.path("unpacked");
    let mut umoci = Command::new("umoci");
    umoci.args(["unpack", "--image", "read:1"]).arg(&unpacked).current_dir(bench.folder.path());
    let output = umoci.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let part = unpacked.join("rootfs/usr/share/tarsup/contents/tarsstat.json");
    let part: serde_json::Value = serde_json::from_slice(&fs::read(part).unwrap()).unwrap();
    let size = packages::program(tarsup::tars::Service::Stat, "3.0.17").len();
    let binary = &part["entries"]["usr/local/app/tars/tarsstat/bin/tarsstat"];
    assert_eq!((&binary["mode"], &binary["size"]), (&0o755.into(), &size.into()), "{part}");
    // And what the recipe says a file may do.
    let raw = unpacked.join("rootfs/opt/raw");
    let mut value = [0; 64];
    let size = rustix::fs::getxattr(&raw, "security.capability", &mut value[..]).unwrap();
    assert_eq!(value[..size], [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(fs::metadata(&raw).unwrap().permissions().mode() & 0o7777, 0o4755);
}

/// What a container of the image would see, as umoci has it.
fn unpacked(workshop: &packages::Workshop, image: &str) -> std::path::PathBuf {
    let (layout, tag) = image.split_once(':').unwrap();
    let folder = workshop.path(&format!("{layout}-{tag}"));
    let mut umoci = Command::new("umoci");
    umoci.args(["unpack", "--image", image]).arg(&folder).current_dir(workshop.folder.path());
    let output = umoci.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    folder.join("rootfs")
}

#[test]
fn changes_on_top_show_what_a_fresh_image_shows() {
    use packages::{Entry, Packer, Workshop};
    use tarsup::tars::Service;

    let workshop = Workshop::new();
    let pack = |names: &[&str], version: &str| {
        let file = |name: &&str| Entry::File(format!("tarsstat/{name}"), version.as_bytes().to_vec(), false);
        let program = Entry::File("tarsstat/bin/tarsstat".to_owned(), b"program".to_vec(), true);
        Packer::default().write(
            &workshop.path("packages/tarsstat.tgz"),
            names.iter().map(file).chain([program]).collect(),
        );
    };
    pack(&["conf/stays", "conf/goes", "util/all/of/it", "util/turns/into", "conf/file"], "1");
    workshop.json(&["build", "framework.yaml", "-o", "oci:out:1"]);
    pack(&["conf/stays", "conf/comes", "util/turns", "conf/file/folder"], "1");
    workshop.pack(Packer::default(), Service::Log, "2");
    workshop.json(&["build", "framework.yaml", "--after", "oci:out:1", "-o", "oci:out:2"]);
    fs::remove_file(workshop.path("deploy/conf/tarslog/conf/tars.tarslog.config.conf")).unwrap();
    workshop.write("deploy/sql/more.sql", "x");
    let built = workshop.json(&["build", "framework.yaml", "--after", "oci:out:2", "-o", "oci:out:3"]);
    let names: Vec<&str> =
        built["layers"].as_array().unwrap().iter().map(|layer| layer["name"].as_str().unwrap()).collect();
    assert_eq!(names[13..], ["tarsstat", "tarslog", "deploy", "contents"]);
    workshop.json(&["build", "framework.yaml", "-o", "oci:out:fresh"]);
    let (on_top, fresh) = (unpacked(&workshop, "out:3"), unpacked(&workshop, "out:fresh"));
    assert!(on_top.join("usr/local/app/tars/tarsstat/util/turns").is_file());
    let compared = Command::new("diff")
        .args(["--recursive", "--no-dereference", "--exclude=contents"])
        .args([&on_top, &fresh])
        .output()
        .unwrap();
    assert!(compared.status.success(), "{}", String::from_utf8_lossy(&compared.stdout));
    let diff = workshop.json(&["diff", "oci:out:3", "oci:out:fresh"]);
    assert_eq!(diff["changed"], json!([]), "{diff}");
}
