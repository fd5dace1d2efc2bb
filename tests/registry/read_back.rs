//! The recipes of `images/`, as they stand there: what tarsup builds of them, read by skopeo and umoci and held against the schemas.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use tarsup::oci::{Digest, Image};
use tarsup::store::Layout;
use tarsup::tars::Service;
use tarsup::transport::layout;
use tempfile::TempDir;

use crate::packages::{Entry, Packer, RECIPE, Workshop, entries, program};
use crate::programs::{debian, write_base};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const TARSUP: &str = env!("CARGO_BIN_EXE_tarsup");

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

    /// Builds it, and reads it back by the others; where a container's files would be.
    fn read_back(&self, recipe: &str) -> PathBuf {
        let (here, recipe_file) = (Place(self.folder.path()), format!("images/{recipe}.yaml"));
        here.read_back(&["build", &recipe_file, "--waive", "*:procps"], &format!("oci:{recipe}:1"))
    }
}

/// A folder with a store and a cache.
struct Place<'a>(&'a Path);

impl Place<'_> {
    fn run(&self, program: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.0).env("HOME", self.0);
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

    /// Builds into a layout, or into the store where it is named so, and reads the image back by the others; where a container's files would be.
    fn read_back(&self, build: &[&str], layout: &str) -> PathBuf {
        let image = layout.trim_start_matches("oci:");
        let output = image.strip_prefix("store:").unwrap_or(layout);
        let made = self.json(TARSUP, &[build, &["-o", output, "--json"]].concat());
        let told = self.json("skopeo", &["inspect", layout]);
        assert_eq!(told["Digest"], made["digest"], "{layout}");
        assert_eq!(told["Layers"].as_array().unwrap().len(), made["layers"].as_array().unwrap().len());
        // Byte for byte, and every digest proven on the way.
        let name = image.replace([':', '/'], "-");
        let copied = format!("{name}-by-skopeo");
        self.run("skopeo", &["copy", "--preserve-digests", layout, &format!("dir:{copied}")]);
        let manifest = fs::read(self.0.join(copied).join("manifest.json")).unwrap();
        assert_eq!(Digest::of(manifest).to_string(), made["digest"].as_str().unwrap());
        let bundle = format!("{name}-by-umoci");
        self.run("umoci", &["unpack", "--image", image, &bundle]);
        self.0.join(bundle).join("rootfs")
    }

    /// Every image of these layouts keeps to the schemas of the image specification.
    fn assert_schemas(&self, layouts: &[&str]) {
        let schemas = Path::new(ROOT).join("tests/oci.sh");
        let judged = self.run("sh", &[&[schemas.to_str().unwrap()], layouts].concat());
        let words = String::from_utf8_lossy(&judged.stdout);
        assert!(words.ends_with(" documents, 0 faults\n"), "{words}");
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

    Place(project.folder.path()).assert_schemas(&["framework", "node", "database"]);
}

/// What others put into a config, which tarsup does not know.
fn with_foreign_keys(image: &Image) -> Image {
    let mut config: Value = serde_json::from_slice(&image.config).unwrap();
    let layers = image.layers.len();
    let mut history =
        vec![json!({"created": "2001-01-01T00:00:00Z", "created_by": "CMD [\"sh\"]", "empty_layer": true})];
    history.extend(vec![json!({"created": "2001-01-01T00:00:00.5Z", "created_by": "COPY x", "comment": "buildkit.dockerfile.v0"}); layers]);
    for (key, value) in [
        ("os.version", json!("1.2")),
        ("variant", json!("v2")),
        ("author", json!("somebody")),
        ("x-unknown", json!({"b": [1, null]})),
        ("history", json!(history)),
        (
            "config",
            json!({"Env": ["PATH=/usr/bin:/bin", "A=base"], "Cmd": ["sh"], "User": "nobody", "Shell": ["/bin/sh", "-c"],
            "OnBuild": ["RUN x"], "ArgsEscaped": true, "Labels": {"team": "red"}, "ExposedPorts": {"1/tcp": {}}, "x-other": 1}),
        ),
    ] {
        config[key] = value;
    }
    let config = config.to_string().into_bytes();
    let mut manifest: Value = serde_json::from_slice(&image.manifest).unwrap();
    manifest["config"]["digest"] = json!(Digest::of(&config));
    manifest["config"]["size"] = json!(config.len());
    manifest.as_object_mut().unwrap().remove("annotations");
    Image { manifest: manifest.to_string().into_bytes(), config, layers: image.layers.clone() }
}

#[test]
fn images_upon_others_and_their_successors_are_read_back_by_others_out_of_the_store_too() {
    let workshop = Workshop::new();
    let here = Place(workshop.folder.path());
    // A base of somebody else, in a layout and in an archive.
    write_base(&workshop.path("base.tar"), &debian(Vec::new()));
    workshop.write("base.yaml", "name: base\nversion: 1\nrole: plain\nbase: rootfs:base.tar\n");
    here.json(TARSUP, &["build", "base.yaml", "-o", "oci:made:1", "--json"]);
    let foreign = with_foreign_keys(&layout::read(&workshop.path("made"), Some("1")).unwrap());
    Layout::at(workshop.path("base")).write(&foreign, "1", &|_| ()).unwrap();
    here.run(TARSUP, &["copy", "oci:base:1", "docker-archive:saved.tar:x/base:1"]);

    let file = |name: &str, content: &str| Entry::File(name.to_owned(), content.as_bytes().to_vec(), true);
    let web = vec![file("web/bin/www", "www"), file("web/node_modules/koa/package.json", "{}")];
    Packer::default().write(&workshop.path("web.tgz"), web);
    fs::create_dir(workshop.path("ours")).unwrap();
    workshop.write("ours/stays", "stays");
    workshop.write("ours/goes", "goes");
    let recipe = |base: &str| {
        let more = "web: web.tgz\nfiles: {ours: /srv/ours, tars-init: /usr/bin/node}\n";
        format!("{}{more}", RECIPE.replace("scratch", base))
    };
    workshop.write("framework.yaml", &recipe("oci:base:1"));
    workshop.write("saved.yaml", &recipe("docker-archive:saved.tar"));
    let shows = |root: &Path, stat: &str| {
        assert!(
            fs::read(root.join("usr/local/app/tars/tarsstat/bin/tarsstat")).unwrap()
                == program(Service::Stat, stat)
        );
        assert_eq!(fs::read_to_string(root.join("usr/local/app/web/bin/www")).unwrap(), "www");
        assert_eq!(fs::read_to_string(root.join("srv/ours/stays")).unwrap(), "stays");
        assert!(root.join("etc/ld.so.conf").is_file(), "the base");
        root.join("srv/ours/goes").exists()
    };
    let framework = ["build", "framework.yaml"];
    let first = "oci:store:tars/framework:3.0.17";
    assert!(shows(&here.read_back(&framework, first), "3.0.17"));
    assert!(shows(&here.read_back(&["build", "saved.yaml"], "oci:saved:1"), "3.0.17"));
    // Their bases are one, whatever they lay in, and so are they.
    let digest = |image: &str| here.json("skopeo", &["inspect", image])["Digest"].clone();
    assert_eq!(digest(first), digest("oci:saved:1"));
    let config = here.json("skopeo", &["inspect", "--config", "--raw", first]);
    assert_eq!(
        (&config["variant"], &config["x-unknown"]["b"]),
        (&json!("v2"), &json!([1, null])),
        "{config}"
    );

    // On top, with a whiteout; and of that a patch.
    workshop.pack(Packer::default(), Service::Stat, "3.0.18");
    fs::remove_file(workshop.path("ours/goes")).unwrap();
    let next = [&framework[..], &["--version", "3.0.17-2", "--after", "tars/framework:3.0.17"]].concat();
    assert!(!shows(&here.read_back(&next, "oci:store:tars/framework:3.0.17-2"), "3.0.18"));
    workshop.pack(Packer::default(), Service::Stat, "3.0.19");
    let patch = [
        "build",
        "--patch",
        "tarsstat=packages/tarsstat.tgz",
        "--version",
        "3.0.17-3",
        "tars/framework:3.0.17-2",
    ];
    assert!(!shows(&here.read_back(&patch, "oci:patched:3"), "3.0.19"));
    here.assert_schemas(&["store", "saved", "patched", "base"]);
}
