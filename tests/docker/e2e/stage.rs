//! The images of the end-to-end tests: built by tarsup from packed stand-ins, once a process, and copied into the engine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// The repository prefix of these images.
pub const PREFIX: &str = "tarsup-e2e";
/// What is deployed first.
pub const OLD: &str = "3.0.17";
/// Another tarslog.
pub const NEW: &str = "3.0.18";
/// A tarsconfig that accepts connections and never answers.
pub const BAD: &str = "3.0.19";

/// The folder with packages, recipes and store; kept for the process, removed by the next run.
pub struct Stage {
    folder: PathBuf,
    /// The repository prefix of its images.
    pub prefix: &'static str,
}

impl Stage {
    /// Packs, builds and copies at the first call.
    pub fn get() -> &'static Self {
        static STAGE: OnceLock<Stage> = OnceLock::new();
        STAGE.get_or_init(|| {
            let stage = Self::empty("e2e", PREFIX);
            stage.version(OLD, &[], None);
            stage.version(NEW, &["--differ", "tarslog"], Some(OLD));
            stage.version(BAD, &["--fault", "tarsconfig=never-answer"], Some(OLD));
            stage.build("database", "10.11", None);
            stage
        })
    }

    /// A folder below cargo's for tests with the project's recipes under another prefix, and no package yet.
    pub fn empty(name: &str, prefix: &'static str) -> Self {
        let stage = Self { folder: Path::new(env!("CARGO_TARGET_TMPDIR")).join(of_engine(name)), prefix };
        let _ = fs::remove_dir_all(&stage.folder);
        fs::create_dir_all(stage.path("images")).unwrap();
        let project = Path::new(env!("CARGO_MANIFEST_DIR"));
        succeed(Command::new("cp").arg("-R").arg(project.join("images/database")).arg(stage.path("images")));
        for recipe in ["framework", "node", "database"] {
            let text = fs::read_to_string(project.join(format!("images/{recipe}.yaml"))).unwrap();
            let mut text = text.replace("name: tars/", &format!("name: {prefix}/"));
            if recipe != "database" {
                text = format!("{text}init: {}\n", init_program().display());
            }
            fs::write(stage.path(&format!("images/{recipe}.yaml")), text).unwrap();
        }
        stage
    }

    /// A file below its folder; recipes lie in `images/`, what they are made of in `build/`.
    pub fn path(&self, below: &str) -> PathBuf {
        self.folder.join(below)
    }

    /// tarsup with the store of these tests and the engine of `DOCKER_HOST`.
    pub fn tarsup(&self) -> Command {
        assert!(
            std::env::var_os("DOCKER_HOST").is_some(),
            "DOCKER_HOST must name an engine: sh tests/engine.sh run NAME -- cargo test ..."
        );
        let mut command = Command::new(env!("CARGO_BIN_EXE_tarsup"));
        command.env("TARSUP_STORE", self.folder.join("store")).env("TARSUP_CACHE", self.folder.join("cache"));
        command
    }

    /// Packs and builds one version, and copies its images into the engine.
    fn version(&self, version: &str, options: &[&str], from: Option<&str>) {
        let standin = program("TARSUP_TEST_STANDIN", &target().join("standin/standin"));
        let build = self.path("build");
        let _ = fs::remove_dir_all(&build);
        let mut pack = Command::new(standin);
        pack.args(["pack", "--small", "--version", version, "--out"]).arg(&build).args(options);
        if let Some(from) = from {
            pack.args(["--from", from]);
        }
        succeed(&mut pack);
        std::os::unix::fs::symlink(bases(), build.join("base")).unwrap();
        for image in ["framework", "node"] {
            self.build(image, version, from);
        }
    }

    /// Builds `images/IMAGE.yaml` as one version and copies it into the engine.
    pub fn build(&self, image: &str, version: &str, after: Option<&str>) {
        self.build_as(image, image, version, after);
    }

    /// Builds a recipe whose image's name is not its own.
    pub fn build_as(&self, recipe: &str, image: &str, version: &str, after: Option<&str>) {
        let reference = format!("{}/{image}:{version}", self.prefix);
        let mut build = self.tarsup();
        build.arg("build").arg(self.path(&format!("images/{recipe}.yaml"))).args(["--version", version]);
        if let Some(after) = after {
            build.args(["--after", &format!("{}/{image}:{after}", self.prefix)]);
        }
        succeed(&mut build);
        succeed(self.tarsup().args(["copy", &reference, &format!("docker-daemon:{reference}")]));
    }
}

/// Runs a command that must succeed.
pub fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}\n{err}", output.status);
    output
}

/// The folder of the root file systems, which `tests/bases.sh` makes.
pub fn bases() -> PathBuf {
    let folder = std::env::var_os("TARSUP_TEST_BASES")
        .map_or_else(|| PathBuf::from("/var/tmp/tarsup-cache/bases"), PathBuf::from);
    assert!(folder.join("database.tar").exists(), "{}: run `sh tests/bases.sh` first", folder.display());
    folder
}

/// Tests against several engines run beside each other: what they share is called by the engine as well.
fn of_engine(name: &str) -> String {
    let host = std::env::var("DOCKER_HOST").unwrap_or_default();
    let engine = Path::new(&host).parent().and_then(Path::file_name).unwrap_or_default();
    format!("{name}-{}", engine.to_string_lossy())
}

fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().to_owned()
}

fn static_init() -> PathBuf {
    target().join(format!("{}-unknown-linux-gnu/init/tars-init", std::env::consts::ARCH))
}

/// The static tars-init of these tests.
pub fn init_program() -> PathBuf {
    program("TARSUP_TEST_INIT", &static_init())
}

/// A program from a variable, else from where cargo puts it.
fn program(variable: &str, usual: &Path) -> PathBuf {
    let path = std::env::var_os(variable).map_or_else(|| usual.to_owned(), PathBuf::from);
    assert!(
        path.exists(),
        "{}: not there; `sh tests/all.sh` builds it, or name it by {variable}",
        path.display()
    );
    path
}
