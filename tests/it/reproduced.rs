//! The same content gives the same digests, whoever builds it, wherever and how: with all that an image can be made of.

use std::fs;
use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use flate2::Compression;
use serde_json::Value;
use tarsup::tars::Service;

use crate::packages::{Packer, RECIPE, Workshop, document};
use crate::programs::{Lies, debian, tar_of};

/// How who makes a project does that: none of it may show.
struct Maker {
    packer: Packer,
    /// Files are made in this order, or backwards.
    backwards: bool,
    /// Of folders and files; executable or not is content.
    umask: u32,
    /// Owner and group, where the test may give files away.
    owner: u32,
    time: Option<SystemTime>,
    /// The base is gzipped.
    zips: bool,
}

/// Letters that languages sort, and turn into small ones, each in its own way.
const FILES: [(&str, &str, u32); 14] = [
    ("web/bin/www", "#!/usr/bin/node\n", 0o755),
    ("web/package.json", "{\"name\":\"web\",\"version\":\"1\"}", 0o644),
    ("web/sql/db_base.sql", "CREATE TABLE t (a INT);\n", 0o644),
    ("web/node_modules/I/index.js", "I", 0o644),
    ("web/node_modules/i/index.js", "i", 0o644),
    ("web/node_modules/ı/index.js", "ı", 0o644),
    ("web/node_modules/İ/index.js", "İ", 0o644),
    ("web/node_modules/ä/index.js", "ä", 0o644),
    ("web/node_modules/z/index.js", "z", 0o644),
    ("web/node_modules/Z_/index.js", "Z", 0o644),
    ("ours/b", "b", 0o644),
    ("ours/A/run", "run", 0o755),
    ("ours/a", "a", 0o644),
    ("node", "#!/bin/sh\n", 0o755),
];

impl Maker {
    fn workshop(&self) -> Workshop {
        let workshop = Workshop::new();
        workshop.pack_all(self.packer, "3.0.17");
        // The deploy folder, too, is made by this one.
        let mut files: Vec<(String, Vec<u8>, u32)> = Vec::new();
        for path in workshop.listing().into_iter().filter(|path| path.starts_with("deploy/")) {
            if workshop.path(&path).is_file() {
                files.push((path.clone(), fs::read(workshop.path(&path)).unwrap(), 0o644));
            }
        }
        fs::remove_dir_all(workshop.path("deploy")).unwrap();
        files.extend(FILES.map(|(path, text, mode)| (path.to_owned(), text.as_bytes().to_vec(), mode)));
        if self.backwards {
            files.reverse();
        }
        for (path, content, mode) in &files {
            let path = workshop.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode & !self.umask)).unwrap();
        }
        symlink("../package.json", workshop.path("web/bin/link")).unwrap();
        for top in ["deploy", "web", "ours", "node", "tars-init"] {
            self.hand_over(&workshop.path(top));
        }
        let base = tar_of(&debian(vec![
            ("usr/bin", Lies::Folder),
            ("bin", Lies::Link("usr/bin")),
            ("srv", Lies::Folder),
        ]));
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), Compression::new(1));
        std::io::Write::write_all(&mut gzip, &base).unwrap();
        fs::write(workshop.path("base.tar"), if self.zips { gzip.finish().unwrap() } else { base }).unwrap();
        let recipe = RECIPE.replace("scratch", "rootfs:base.tar");
        workshop.write(
            "framework.yaml",
            &format!("{recipe}web: web\nfiles: {{ours: /srv/ours, node: /bin/node}}\n"),
        );
        workshop
    }

    /// Owners, modes and times of a folder and of all that is in it.
    fn hand_over(&self, path: &Path) {
        let found = fs::symlink_metadata(path).unwrap();
        if found.is_dir() {
            for entry in fs::read_dir(path).unwrap() {
                self.hand_over(&entry.unwrap().path());
            }
            fs::set_permissions(path, Permissions::from_mode(0o777 & !self.umask)).unwrap();
        }
        if rustix::process::geteuid().is_root() && !found.is_symlink() {
            chown(path, Some(self.owner), Some(self.owner)).unwrap();
        }
        if let Some(time) = self.time.filter(|_| !found.is_symlink()) {
            fs::File::open(path).unwrap().set_modified(time).unwrap();
        }
    }
}

/// Version 1, and on top of it version 2 with another tarsstat and one file of `ours` gone.
fn both(maker: &Maker, run: impl Fn(&Workshop, &[&str]) -> Value) -> [Value; 2] {
    let workshop = maker.workshop();
    let file = workshop.path("framework.yaml");
    let build = ["build", file.to_str().unwrap(), "--version"];
    let layout = |tag: &str| format!("oci:{}:{tag}", workshop.path("out").display());
    let one = run(&workshop, &[&build[..], &["3.0.17", "-o", &layout("1")]].concat());
    workshop.pack(maker.packer, Service::Stat, "3.0.18");
    fs::remove_file(workshop.path("ours/a")).unwrap();
    let after = ["3.0.17-2", "--after", &layout("1"), "-o", &layout("2")];
    [one, run(&workshop, &[&build[..], &after].concat())]
}

#[test]
fn image_of_all_kinds_of_inputs_is_the_same_whoever_makes_them_and_builds_it() {
    let maker = Maker {
        packer: Packer::default(),
        backwards: false,
        umask: 0o022,
        owner: 0,
        time: None,
        zips: false,
    };
    let expected = both(&maker, |workshop, words| {
        let mut command = workshop.command(words);
        command.arg("--json").env("TARSUP_THREADS", "1").env("LC_ALL", "C").env("TZ", "UTC");
        document(&command.output().unwrap())
    });
    let names = |built: &Value| -> Vec<String> {
        let layers = built["layers"].as_array().unwrap().iter();
        layers.map(|layer| layer["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&expected[0])[..3], ["base", "web", "contents-below"]);
    let on_top = names(&expected[1]).split_off(names(&expected[0]).len() - 1);
    assert_eq!(on_top, ["tarsstat", "files", "contents"], "a change, and a whiteout");

    let packer =
        Packer { mtime: 1_600_000_001, owner: 1234, backwards: true, gzip: (1_700_000_099, 1), umask: 0o077 };
    let time = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000));
    let other = Maker { packer, backwards: true, umask: 0o077, owner: 1234, time, zips: true };
    let found = both(&other, |workshop, words| {
        let mut command = Command::new("sh");
        command
            .args(["-c", "umask 077; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_tarsup")])
            .args(words)
            .arg("--json");
        command.current_dir("/").env_clear().env("PATH", "/usr/bin:/bin").env("HOME", "/nonexistent");
        command.env("TARSUP_STORE", workshop.path("store")).env("TARSUP_CACHE", workshop.path("cache"));
        command.env("LC_ALL", "tr_TR.UTF-8").env("LANG", "tr_TR.UTF-8").env("TZ", "Asia/Shanghai");
        let built = document(&command.env("TARSUP_THREADS", "7").output().unwrap());
        let mode = fs::metadata(workshop.path("out")).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "the umask was that of the process");
        built
    });
    for (expected, found) in expected.iter().zip(&found) {
        for key in ["digest", "config_digest"] {
            assert_eq!(found[key], expected[key], "{}: {expected:#}\n{found:#}", expected["image"]);
        }
    }
}
