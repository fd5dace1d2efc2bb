//! The real packages against real bases: what runs passes the gate, and what would not is refused by name.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::beside;
use crate::e2e::stage::{bases, succeed};

/// A recipe of a release on this base, with a store of its own.
fn build(folder: &TempDir, release: &Path, base: &Path) -> Output {
    let path = |below: &str| folder.path().join(below);
    let deploy = path("deploy");
    if !deploy.exists() {
        fs::create_dir_all(&deploy).unwrap();
        succeed(Command::new("tar").arg("-xzf").arg(release.join("deploy.tgz")).arg("-C").arg(&deploy));
        fs::write(path("tars-init"), "#!/bin/sh\n").unwrap();
    }
    let all = fs::read_dir(release).unwrap().map(|entry| entry.unwrap().path());
    let packages: Vec<String> =
        all.filter(|path| !path.ends_with("deploy.tgz")).map(|path| path.display().to_string()).collect();
    let recipe = format!(
        "name: x/framework\nversion: 1\nrole: framework\nbase: rootfs:{}\npackages: [{}]\ndeploy: deploy/deploy/framework\n\
         init: tars-init\n",
        base.display(),
        packages.join(", ")
    );
    fs::write(path("framework.yaml"), recipe).unwrap();
    Command::new(env!("CARGO_BIN_EXE_tarsup"))
        .arg("build")
        .arg(path("framework.yaml"))
        .env("TARSUP_STORE", path("store"))
        .env("TARSUP_CACHE", path("cache"))
        .output()
        .unwrap()
}

/// The base without the files of these names, written anew.
fn without(base: &Path, gone: &[&str], folder: &TempDir) -> PathBuf {
    let path = folder.path().join("base.tar");
    let mut from = tar::Archive::new(fs::File::open(base).unwrap());
    let mut to = tar::Builder::new(fs::File::create(&path).unwrap());
    for entry in from.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().into_owned();
        let file = name.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if gone.contains(&file.as_str()) {
            continue;
        }
        let mut header = entry.header().clone();
        if let Some(target) = entry.link_name().unwrap().map(std::borrow::Cow::into_owned) {
            to.append_link(&mut header, &name, target).unwrap();
        } else {
            to.append_data(&mut header, &name, &mut entry).unwrap();
        }
    }
    to.into_inner().unwrap();
    path
}

#[test]
fn releases_pass_the_gate_on_every_base_and_not_where_a_library_is_gone() {
    let Some(real) =
        beside::folder("real", "releases_pass_the_gate_on_every_base_and_not_where_a_library_is_gone")
    else {
        return;
    };
    for release in ["v3.0.17", "v2.4.17"] {
        let folder = TempDir::new().unwrap();
        for base in ["real.tar", "upstream.tar"] {
            let output = build(&folder, &real.join(release), &bases().join(base));
            let words = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{release} on {base}: {words}");
            // They are as CMake made them.
            let stray = words.lines().filter(|line| line.contains("RUNPATH names /")).count();
            assert_eq!(stray, 1, "{words}");
        }
    }
    let folder = TempDir::new().unwrap();
    let release = real.join("v3.0.17");
    let refused = |gone: &[&str], said: &[&str]| {
        let base = without(&bases().join("framework.tar"), gone, &folder);
        let output = build(&folder, &release, &base);
        let words = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{words}");
        for said in said {
            assert!(words.contains(said), "{said}: {words}");
        }
    };
    refused(
        &["libz.so.1", "libz.so.1.2.13"],
        &[
            "tarsregistry",
            "need libz.so.1; no layer has it",
            "the Debian package zlib1g, and yet its file is gone",
        ],
    );
    refused(&["libstdc++.so.6.0.30"], &["need libstdc++.so.6; no layer has it", "libstdc++6"]);
    refused(&["ld-linux-x86-64.so.2"], &["need the loader /lib64/ld-linux-x86-64.so.2; no layer has it"]);
}
