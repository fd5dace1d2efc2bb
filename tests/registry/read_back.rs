//! The recipes of `images/`, as they stand there: what tarsup builds of them, read by skopeo and umoci and held against the schemas.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tarsup::tars::Service;
use tempfile::TempDir;

use crate::packages::{Packer, Workshop, entries, program};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A project as the README has it: `images/`, and `build/` beside it.
struct Project {
    folder: TempDir,
    /// Keeps the packages.
    _workshop: Workshop,
}

impl Project {
    fn new() -> Self {
        let bases = std::env::var_os("TARSUP_TEST_BASES").expect("TARSUP_TEST_BASES: run it by tests/all.sh");
        let (folder, workshop) = (TempDir::new().unwrap(), Workshop::new());
        let at = |below: &str| folder.path().join(below);
        let copied =
            Command::new("cp").arg("-R").arg(Path::new(ROOT).join("images")).arg(at("images")).status();
        assert!(copied.unwrap().success());
        fs::create_dir_all(at("build/deploy")).unwrap();
        fs::create_dir(at("build/core")).unwrap();
        symlink(bases, at("build/base")).unwrap();
        symlink(workshop.path("packages"), at("build/packages")).unwrap();
        symlink(workshop.path("deploy"), at("build/deploy/framework")).unwrap();
        Packer::default().write(&at("build/core/tarsnode.tgz"), entries(Service::Node, "3.0.17"));
        Self { folder, _workshop: workshop }
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.folder.path()).env("HOME", self.folder.path());
        command.envs([("TARSUP_STORE", "store"), ("TARSUP_CACHE", "cache")]);
        let output = command.output().unwrap();
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{program} {arguments:?}: {words}\n{}",
            String::from_utf8_lossy(&output.stdout)
        );
        output
    }

    fn json(&self, program: &str, arguments: &[&str]) -> Value {
        serde_json::from_slice(&self.run(program, arguments).stdout).unwrap()
    }

    /// Builds it, and reads it back by the others; where a container's files would be.
    fn read_back(&self, recipe: &str) -> PathBuf {
        let (output, image) = (format!("oci:{recipe}:1"), format!("{recipe}:1"));
        let recipe_file = format!("images/{recipe}.yaml");
        let built = self.json(
            env!("CARGO_BIN_EXE_tarsup"),
            &["build", &recipe_file, "--waive", "*:procps", "-o", &output, "--json"],
        );
        let told = self.json("skopeo", &["inspect", &output]);
        assert_eq!(told["Digest"], built["digest"], "{recipe}");
        assert_eq!(told["Layers"].as_array().unwrap().len(), built["layers"].as_array().unwrap().len());
        // Byte for byte, and every digest proven on the way.
        let copied = format!("dir:{recipe}-by-skopeo");
        self.run("skopeo", &["copy", "--preserve-digests", &output, &copied]);
        let manifest =
            fs::read(self.folder.path().join(format!("{recipe}-by-skopeo/manifest.json"))).unwrap();
        assert_eq!(tarsup::oci::Digest::of(manifest).to_string(), built["digest"].as_str().unwrap());
        let bundle = format!("{recipe}-by-umoci");
        self.run("umoci", &["unpack", "--image", &image, &bundle]);
        self.folder.path().join(bundle).join("rootfs")
    }
}

#[test]
fn every_recipe_is_read_back_by_others_and_keeps_to_the_schemas() {
    let project = Project::new();
    let of = |service: Service| format!("usr/local/app/tars/{service}/bin/{service}");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    for (recipe, services) in [("framework", &Service::ALL[..]), ("node", &[Service::Node])] {
        let root = project.read_back(recipe);
        for service in Service::ALL {
            let path = root.join(of(service));
            if services.contains(&service) {
                assert!(fs::read(&path).unwrap() == program(service, "3.0.17"), "{recipe}: {service}");
                assert_eq!(mode(&path), 0o755, "{recipe}: {service}");
            } else {
                assert!(!path.exists(), "{recipe}: {service}");
            }
        }
        assert_eq!(mode(&root.join("usr/local/bin/tars-init")), 0o755, "{recipe}");
        assert!(root.join("bin/sh").exists(), "{recipe}: the base");
    }
    let root = project.read_back("database");
    let entrypoint = root.join("usr/local/bin/database-entrypoint");
    assert!(
        fs::read(&entrypoint).unwrap()
            == fs::read(Path::new(ROOT).join("images/database/entrypoint.sh")).unwrap()
    );
    assert_eq!(mode(&entrypoint), 0o755);

    let schemas = Path::new(ROOT).join("tests/oci.sh");
    let judged = project.run("sh", &[schemas.to_str().unwrap(), "framework", "node", "database"]);
    let words = String::from_utf8_lossy(&judged.stdout);
    assert!(words.ends_with(" documents, 0 faults\n"), "{words}");
}
