//! Where an archive ends: too soon, or with something behind it; and names that lead to another kind of thing.

use std::fs;
use std::io::Write as _;
use std::process::Command;

use serde_json::json;
use tarsup::oci::Digest;

use crate::packages::{RECIPE, Workshop};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

#[test]
fn zeros_behind_a_gzip_are_passed_over_as_gnu_tar_does_and_anything_else_is_said() {
    let workshop = Workshop::new();
    let built = workshop.json(&["build", "framework.yaml"]);
    workshop.json(&["copy", "tars/framework:3.0.17", "docker-archive:image.tar"]);
    let package = workshop.path("packages/tarsstat.tgz");
    let whole = fs::read(&package).unwrap();
    for zeros in [1, 512, 100_000] {
        fs::write(&package, [whole.clone(), vec![0; zeros]].concat()).unwrap();
        let listed = Command::new("tar").arg("-tzf").arg(&package).output().unwrap();
        assert!(listed.status.success(), "as GNU tar has it: {}", String::from_utf8_lossy(&listed.stderr));
        assert_eq!(workshop.json(&["build", "framework.yaml"])["digest"], built["digest"], "{zeros}");
    }
    let mut base = tar::Builder::new(Vec::new());
    let mut folder = tar::Header::new_ustar();
    folder.set_entry_type(tar::EntryType::Directory);
    folder.set_size(0);
    folder.set_mode(0o755);
    base.append_data(&mut folder, "./tmp/", &b""[..]).unwrap();
    let base = gzip(&base.into_inner().unwrap());
    let image = gzip(&fs::read(workshop.path("image.tar")).unwrap());
    fs::write(workshop.path("image.tgz"), [image.clone(), vec![0; 700]].concat()).unwrap();
    assert_eq!(workshop.json(&["inspect", "docker-archive:image.tgz"])["digest"], built["digest"]);
    for garbage in [&b"x"[..], b"\x1f", b"\x1fx", b"garbage that is longer than a header", b"\0\0\0\0x"] {
        let behind = |bytes: &[u8]| [bytes, garbage].concat();
        let cut = garbage == b"\x1f";
        let words = if cut { "it is cut off" } else { "something follows the end of its gzip" };
        fs::write(&package, behind(&whole)).unwrap();
        let message = workshop.refused(&["build", "framework.yaml"], 2);
        assert!(message.contains(&format!("tarsstat.tgz: {words}")), "{garbage:?}: {message}");
        fs::write(&package, &whole).unwrap();
        fs::write(workshop.path("base.tgz"), behind(&base)).unwrap();
        workshop.write("based.yaml", &RECIPE.replace("scratch", "rootfs:base.tgz"));
        let message = workshop.refused(&["build", "based.yaml"], 2);
        assert!(message.contains(&format!("base.tgz: {words}")), "{garbage:?}: {message}");
        fs::write(workshop.path("image.tgz"), behind(&image)).unwrap();
        let message = workshop.refused(&["copy", "docker-archive:image.tgz", "oci:out:1"], 2);
        assert!(message.contains(&format!("image.tgz: {words}")), "{garbage:?}: {message}");
    }
}

/// A layer of an image goes on as it is: what no engine takes is no layer, whatever GNU gzip makes of it.
#[test]
fn layer_of_a_base_with_zeros_behind_its_gzip_is_refused() {
    let workshop = Workshop::new();
    let tar = tar::Builder::new(Vec::new()).into_inner().unwrap();
    let blob = [gzip(&tar), vec![0; 512]].concat();
    fs::create_dir_all(workshop.path("base/blobs/sha256")).unwrap();
    let put = |bytes: &[u8]| {
        let digest = Digest::of(bytes);
        fs::write(workshop.path("base/blobs/sha256").join(digest.hex()), bytes).unwrap();
        json!({ "mediaType": "x", "digest": digest, "size": bytes.len() })
    };
    let of = |mut descriptor: serde_json::Value, kind: &str| {
        descriptor["mediaType"] = json!(format!("application/vnd.oci.image.{kind}"));
        descriptor
    };
    let config = json!({ "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": [Digest::of(&tar)] } });
    let config = of(put(config.to_string().as_bytes()), "config.v1+json");
    let layer = of(put(&blob), "layer.v1.tar+gzip");
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": [layer] });
    let manifest = of(put(manifest.to_string().as_bytes()), "manifest.v1+json");
    workshop.write("base/oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
    workshop.write("base/index.json", &json!({ "schemaVersion": 2, "manifests": [manifest] }).to_string());
    workshop.write("framework.yaml", &RECIPE.replace("scratch", "oci:base"));
    let message = workshop.refused(&["build", "framework.yaml"], 2);
    assert!(message.contains("zeros follow the end of its gzip, which no engine takes"), "{message}");
}

/// As `docker save` writes it (what matters comes last), and as other tools do (it comes first).
#[test]
fn docker_archive_that_is_cut_short_says_so_wherever_it_is_cut() {
    let workshop = Workshop::new();
    workshop.json(&["build", "framework.yaml"]);
    workshop.json(&["copy", "tars/framework:3.0.17", "docker-archive:last.tar"]);
    let layer = {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(3000);
        header.set_mode(0o644);
        tar.append_data(&mut header, "x", &[b'x'; 3000][..]).unwrap();
        tar.into_inner().unwrap()
    };
    let config = json!({ "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": [Digest::of(&layer)] } });
    let manifest = json!([{ "Config": "c.json", "RepoTags": ["x:1"], "Layers": ["l.tar"] }]);
    let mut first = tar::Builder::new(Vec::new());
    for (name, bytes) in [
        ("manifest.json", manifest.to_string().as_bytes()),
        ("c.json", config.to_string().as_bytes()),
        ("l.tar", &layer),
    ] {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        first.append_data(&mut header, name, bytes).unwrap();
    }
    fs::write(workshop.path("first.tar"), first.into_inner().unwrap()).unwrap();
    for name in ["last.tar", "first.tar"] {
        let path = workshop.path(name);
        let whole = fs::read(&path).unwrap();
        let image = format!("docker-archive:{name}");
        workshop.json(&["inspect", &image]);
        // Where the last entry ends: the zeros behind it are the mark of the end, and one block of them is enough.
        let end = whole.len() - 1024;
        let mut cuts: Vec<usize> = (1..=end / 512).map(|block| block * 512).collect();
        cuts.extend([513, 1000, end - 1, end + 1, end + 511]);
        // The larger archive is cut at a few places of each kind.
        let step = cuts.len() / 40 + 1;
        for cut in cuts.iter().rev().step_by(step).chain(&[513, 1000]) {
            fs::write(&path, &whole[..*cut]).unwrap();
            let message = workshop.refused(&["copy", &image, "oci:out:1"], 2);
            assert!(
                message.contains(&format!("{name}: it is cut off")),
                "{cut} of {}: {message}",
                whole.len()
            );
        }
        fs::write(workshop.path("cut.tgz"), &gzip(&whole)[..300]).unwrap();
        let message = workshop.refused(&["copy", "docker-archive:cut.tgz", "oci:out:1"], 2);
        assert!(message.contains("cut.tgz: it is cut off"), "{message}");
        for (bytes, words) in [
            (&b""[..], "it is empty"),
            (b"some text", "it is no tar"),
            (b"PK\x03\x04 and so on", "it is a zip archive, which is not read"),
        ] {
            fs::write(&path, bytes).unwrap();
            let message = workshop.refused(&["inspect", &image], 2);
            assert!(message.contains(words), "{message}");
        }
        fs::write(&path, &whole[..end + 512]).unwrap();
        workshop.json(&["inspect", &image]);
    }
    let message = workshop.refused(&["inspect", "oci:out:1"], 2);
    assert!(message.contains("there is no image 1"), "nothing was written: {message}");
}

#[test]
fn folder_where_an_archive_belongs_and_file_where_a_layout_does_are_wrong_usage() {
    let workshop = Workshop::new();
    workshop.json(&["build", "framework.yaml", "-o", "oci:layout:1"]);
    workshop.write("file", "x");
    for (name, words) in [
        ("docker-archive:layout", ["it is a folder, not a file", "`oci:DIR`"]),
        ("docker-archive:absent", ["absent: No such file", "see whether it exists"]),
        ("oci:file", ["file/oci-layout", "`docker-archive:FILE`"]),
    ] {
        workshop.write("based.yaml", &RECIPE.replace("scratch", name));
        for arguments in [&["build", "based.yaml"][..], &["inspect", name], &["copy", name, "oci:out:1"]] {
            let message = workshop.refused(arguments, 2);
            let output = workshop.run(arguments);
            let said = format!("{message} {}", String::from_utf8_lossy(&output.stderr));
            assert!(words.iter().all(|words| said.contains(words)), "{arguments:?}: {said}");
        }
    }
}
