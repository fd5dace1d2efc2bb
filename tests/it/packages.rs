//! Packages, a deploy folder and recipes of the tests' own, with everything under control that may not show in an image.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use flate2::{Compression, GzBuilder};
use tarsup::tars::Service;
use tempfile::TempDir;

/// How a package is written: none of it may show in an image.
#[derive(Clone, Copy)]
pub struct Packer {
    /// Seconds since 1970, of every file.
    pub mtime: u64,
    /// User and group id.
    pub owner: u64,
    /// Write the entries backwards.
    pub backwards: bool,
    /// The time and the level in the gzip header.
    pub gzip: (u32, u32),
    /// The permission bits that the packer's umask took away.
    pub umask: u32,
}

impl Default for Packer {
    fn default() -> Self {
        Self { mtime: 1_700_000_000, owner: 0, backwards: false, gzip: (0, 6), umask: 0o022 }
    }
}

/// One entry of a package.
pub enum Entry {
    /// A folder.
    Folder(String),
    /// A file, executable or not.
    File(String, Vec<u8>, bool),
    /// A symbolic link.
    Link(String, String),
    /// Any other kind: name, target and what it is.
    Odd(String, String, tar::EntryType),
}

impl Packer {
    /// Writes a `.tgz`.
    pub fn write(self, path: &Path, mut entries: Vec<Entry>) {
        let (time, level) = self.gzip;
        let gzip = GzBuilder::new()
            .mtime(time)
            .filename("x.tar")
            .write(fs::File::create(path).unwrap(), Compression::new(level));
        if self.backwards {
            entries.reverse();
        }
        let mut tar = tar::Builder::new(gzip);
        for entry in entries {
            self.append(&mut tar, entry);
        }
        tar.into_inner().unwrap().finish().unwrap().flush().unwrap();
    }

    fn append(self, tar: &mut tar::Builder<impl std::io::Write>, entry: Entry) {
        use tar::EntryType as T;
        let (name, target, content, kind, mode) = match entry {
            Entry::Folder(name) => (name, String::new(), Vec::new(), T::Directory, 0o777),
            Entry::File(name, content, executable) => {
                (name, String::new(), content, T::Regular, if executable { 0o777 } else { 0o666 })
            }
            Entry::Link(name, target) => (name, target, Vec::new(), T::Symlink, 0o777),
            Entry::Odd(name, target, kind) => (name, target, Vec::new(), kind, 0o644),
        };
        let mut header = tar::Header::new_gnu();
        let raw = header.as_gnu_mut().unwrap();
        // By hand: the crate refuses to write the names that a hostile package has.
        raw.name[..name.len()].copy_from_slice(name.as_bytes());
        raw.linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode & !self.umask);
        header.set_uid(self.owner);
        header.set_gid(self.owner);
        header.set_mtime(self.mtime);
        header.set_size(content.len() as u64);
        header.set_cksum();
        tar.append(&header, content.as_slice()).unwrap();
    }
}

/// A service's program: the same text twice gives the same layer.
pub fn program(service: Service, version: &str) -> Vec<u8> {
    format!("#!/bin/sh\necho {service} {version}\n").repeat(200).into_bytes()
}

/// The entries of one service, in the layout that its `make` target writes.
pub fn entries(service: Service, version: &str) -> Vec<Entry> {
    let file = |name: String| Entry::File(name, program(service, version), true);
    if service.is_core() {
        vec![
            Entry::Folder(format!("{service}/")),
            Entry::Folder(format!("{service}/bin/")),
            file(format!("{service}/bin/{service}")),
        ]
    } else {
        vec![Entry::Folder(format!("{service}/")), file(format!("{service}/{service}"))]
    }
}

/// A folder with everything that a build needs, and a store and cache of its own.
pub struct Workshop {
    /// Removed with the workshop.
    pub folder: TempDir,
}

impl Workshop {
    /// The bundle, a package for each common service, a deploy folder, and the recipe `framework.yaml`.
    pub fn new() -> Self {
        let workshop = Self { folder: TempDir::new().unwrap() };
        fs::create_dir(workshop.path("packages")).unwrap();
        workshop.pack_all(Packer::default(), "3.0.17");
        for service in Service::ALL {
            let conf = workshop.path(&format!("deploy/conf/{service}/conf"));
            fs::create_dir_all(&conf).unwrap();
            fs::write(conf.join(format!("tars.{service}.config.conf")), format!("<tars>{service}</tars>\n"))
                .unwrap();
        }
        fs::create_dir_all(workshop.path("deploy/sql/template")).unwrap();
        fs::write(workshop.path("deploy/sql/db_tars.sql"), "CREATE TABLE t (a INT);\n").unwrap();
        fs::write(workshop.path("deploy/sql/template/tars.default"), "<tars></tars>\n").unwrap();
        fs::write(workshop.path("tars-init"), "#!/bin/sh\nexit 0\n").unwrap();
        workshop.write("framework.yaml", RECIPE);
        workshop
    }

    /// A path in the workshop.
    pub fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    /// Writes a text file.
    pub fn write(&self, below: &str, text: &str) {
        fs::write(self.path(below), text).unwrap();
    }

    /// Packs all services anew.
    pub fn pack_all(&self, packer: Packer, version: &str) {
        let core = Service::ALL.into_iter().filter(|service| service.is_core());
        packer.write(
            &self.path("packages/framework.tgz"),
            core.flat_map(|service| entries(service, version)).collect(),
        );
        for service in Service::ALL.into_iter().filter(|service| !service.is_core()) {
            self.pack(packer, service, version);
        }
    }

    /// Packs one service anew.
    pub fn pack(&self, packer: Packer, service: Service, version: &str) {
        packer.write(&self.path(&format!("packages/{service}.tgz")), entries(service, version));
    }

    /// `tarsup` in the workshop, with its own store and cache.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tarsup"));
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env("TARSUP_STORE", self.path("store"))
            .env("TARSUP_CACHE", self.path("cache"))
            .env_remove("SOURCE_DATE_EPOCH")
            .env_remove("TARSUP_THREADS")
            .env_remove("DOCKER_HOST");
        command
    }

    /// Runs `tarsup`.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs `tarsup --json`, which must succeed, and reads its document.
    pub fn json(&self, arguments: &[&str]) -> serde_json::Value {
        document(&self.command(arguments).arg("--json").output().unwrap())
    }

    /// Runs `tarsup --json`, which must end with this code; message and hint of its error.
    pub fn refused(&self, arguments: &[&str], exit: i32) -> String {
        let output = self.command(arguments).arg("--json").output().unwrap();
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(exit), "{stdout}\n{}", String::from_utf8_lossy(&output.stderr));
        let document: serde_json::Value = serde_json::from_str(&stdout).unwrap();
        let error = &document["error"];
        assert_eq!(error["exit"], exit, "{error}");
        let hint = error["hint"].as_str().unwrap_or_default();
        assert!(!hint.is_empty(), "no hint: {error}");
        format!("{} | {hint} | {}:{}", error["message"].as_str().unwrap(), error["file"], error["line"])
    }

    /// Every path below the workshop, sorted: what a command left behind.
    pub fn listing(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut folders = vec![self.folder.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                found.push(entry.strip_prefix(self.folder.path()).unwrap().display().to_string());
                if entry.is_dir() {
                    folders.push(entry);
                }
            }
        }
        found.sort();
        found
    }
}

/// The document that a successful command printed.
pub fn document(output: &Output) -> serde_json::Value {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{stderr}", String::from_utf8_lossy(&output.stdout));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The recipe of the workshop.
pub const RECIPE: &str = "\
name: tars/framework
version: 3.0.17
role: framework
base: scratch
packages: [packages/*.tgz]
deploy: deploy
init: tars-init
";
