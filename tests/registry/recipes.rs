//! The recipes of docs/ci.md, as they stand there, each in a bare Debian: a root file system, tarsup, and the packages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tarsup::tars::Service;
use tempfile::TempDir;

use crate::packages::{Packer, RECIPE, Workshop};
use crate::programs::{debian, write_base};
use crate::server::{PASSWORD, Registry, With};

/// The YAML of a section.
fn recipe(section: &str) -> Value {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ci.md");
    let page = fs::read_to_string(page).unwrap();
    let section = page.split("\n## ").find(|text| text.starts_with(section)).unwrap();
    let (_, rest) = section.split_once("```yaml\n").unwrap();
    serde_yaml::from_str(rest.split_once("```").unwrap().0).unwrap()
}

/// A bare Debian with tarsup and a project in it.
struct Runner {
    root: TempDir,
    workshop: Workshop,
}

impl Runner {
    fn new() -> Self {
        let bases = std::env::var_os("TARSUP_TEST_BASES").expect("TARSUP_TEST_BASES: run it by tests/all.sh");
        let root = TempDir::new().unwrap();
        let mut unpack = Command::new("tar");
        unpack.arg("-xf").arg(PathBuf::from(bases).join("framework.tar")).arg("-C").arg(root.path());
        assert!(unpack.status().unwrap().success());
        fs::copy(env!("CARGO_BIN_EXE_tarsup"), root.path().join("usr/local/bin/tarsup")).unwrap();
        let workshop = Workshop::new();
        write_base(&workshop.path("base.tar"), &debian(Vec::new()));
        workshop.write("framework.yaml", &RECIPE.replace("scratch", "rootfs:base.tar"));
        Self { root, workshop }
    }

    /// A cold machine's run of the script: the project as it is, and nothing of the run before.
    fn run(&self, script: &str, variables: &[(&str, &str)]) {
        let project = self.root.path().join("builds/images");
        let _ = fs::remove_dir_all(self.root.path().join("builds"));
        let _ = fs::remove_dir_all(self.root.path().join("root"));
        fs::create_dir_all(&project).unwrap();
        fs::create_dir(self.root.path().join("root")).unwrap();
        let mut copy = Command::new("cp");
        copy.arg("-R").arg(self.workshop.path(".")).arg(&project);
        assert!(copy.status().unwrap().success());
        let mut run = Command::new("unshare");
        run.args(["--mount", "--pid", "--fork", "--kill-child", "chroot"]).arg(self.root.path());
        run.args(["sh", "-euc", &format!("cd /builds\n{script}")]).env_clear();
        run.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", "/root");
        let output = run.envs(variables.iter().copied()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}\n{text}");
        assert!(!text.contains(PASSWORD), "{text}");
    }

    fn bill(&self) -> String {
        fs::read_to_string(self.root.path().join("builds/framework.cdx.json")).unwrap()
    }
}

/// Builds a version, and the next one with one service changed on top of it.
fn releases(script: &str, registry: &Registry, variables: &[(&str, &str)], version: &str) {
    let runner = Runner::new();
    let image = format!("docker://{}/group/tars/framework", registry.host);
    let of = |now: &'static str, previous: &'static str| {
        let own = [(version, now), ("PREVIOUS", previous)];
        runner.run(script, &[variables, &own].concat());
        let bill = runner.bill();
        assert!(bill.contains("CycloneDX") && bill.contains("tarsstat"), "{bill}");
        let inspect = ["inspect", "--json", &format!("{image}:{now}")].map(str::to_owned);
        let mut inspect_it = Command::new(env!("CARGO_BIN_EXE_tarsup"));
        let logins = runner.root.path().join("root/.docker");
        let output = inspect_it.args(inspect).env("DOCKER_CONFIG", logins).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        // The same as on this machine, with another umask, home, environment and root file system.
        let own = ["build", "framework.yaml", "--version", now];
        let predecessor = format!("tars/framework:{previous}");
        let after = ["--after", &predecessor];
        let own = [&own[..], if previous.is_empty() { &[] } else { &after }].concat();
        assert_eq!(runner.workshop.json(&own)["digest"], document["digest"], "{now}");
        let layers = document["layers"].as_array().unwrap().iter();
        layers.map(|layer| layer["digest"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let first = of("3.0.17", "");
    runner.workshop.pack(Packer::default(), Service::Stat, "3.0.18");
    let next = of("3.0.18", "3.0.17");
    let kept = first.iter().filter(|layer| next.contains(layer)).count();
    assert!(kept + 1 >= first.len() && next.len() > first.len(), "on top: {first:#?} {next:#?}");
}

#[test]
fn recipe_for_gitlab_builds_a_release_and_the_next_one_on_top() {
    let registry = Registry::start(&With::Password);
    let recipe = recipe("GitLab");
    let lines = recipe["images"]["script"].as_array().unwrap().iter();
    let script = lines.map(|line| line.as_str().unwrap()).collect::<Vec<_>>().join("\n");
    let image = format!("{}/group/tars", registry.host);
    let variables = [
        ("CI_REGISTRY", registry.host.as_str()),
        ("CI_REGISTRY_USER", "user"),
        ("CI_REGISTRY_PASSWORD", PASSWORD),
        ("CI_REGISTRY_IMAGE", &image),
    ];
    releases(&script, &registry, &variables, "CI_COMMIT_TAG");
}

#[test]
fn recipe_for_github_builds_a_release_and_the_next_one_on_top() {
    let registry = Registry::start(&With::Password);
    let recipe = recipe("GitHub");
    let steps = recipe["jobs"]["images"]["steps"].as_array().unwrap().iter();
    let step = steps.clone().find(|step| step["run"].is_string()).unwrap();
    let image = format!("docker://{}/group/tars/framework", registry.host);
    let known = [
        ("REGISTRY", registry.host.as_str()),
        ("REGISTRY_USER", "user"),
        ("REGISTRY_PASSWORD", PASSWORD),
        ("IMAGE", &image),
    ];
    // What the step sets is what it uses.
    let mut names: Vec<&str> = step["env"].as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["IMAGE", "PREVIOUS", "REGISTRY", "REGISTRY_PASSWORD", "REGISTRY_USER", "VERSION"]);
    releases(step["run"].as_str().unwrap(), &registry, &known, "VERSION");
}
