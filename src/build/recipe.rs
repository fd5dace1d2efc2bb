//! The recipe: what an image is made of, read from YAML with every key known and every path resolved.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::diagnose::{Diagnose, Exit, Place, shown};
use crate::oci::Reference;
use crate::oci::reference::is_tag;

/// What an image is for: decides ports, health, volume, environment and start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageRole {
    /// All eleven services: master and slave.
    Framework,
    /// tarsnode alone.
    Node,
    /// Whatever the recipe says; not a part of TARS.
    Plain,
}

impl ImageRole {
    /// The word in a recipe.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Framework => "framework",
            Self::Node => "node",
            Self::Plain => "plain",
        }
    }
}

/// What the image stands on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Base {
    /// Nothing.
    Scratch,
    /// A root file system: a tar, gzipped or not.
    Rootfs(PathBuf),
}

/// A recipe with absolute paths.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The file it came from.
    pub file: PathBuf,
    /// Repository and tag of the image.
    pub reference: Reference,
    /// The version: also the tag.
    pub version: String,
    /// What the image is for.
    pub role: ImageRole,
    /// What it stands on.
    pub base: Base,
    /// Package files, sorted; globs are expanded.
    pub packages: Vec<PathBuf>,
    /// The folder with `conf/` and `sql/`.
    pub deploy: Option<PathBuf>,
    /// The web console's package.
    pub web: Option<PathBuf>,
    /// The tars-init binary, where the recipe names one.
    pub init: Option<PathBuf>,
    /// Labels of the image.
    pub labels: BTreeMap<String, String>,
    /// What a plain image's config holds.
    pub plain: Plain,
}

/// What a plain image's config holds, and the files that it gets.
#[derive(Clone, Debug, Default)]
pub struct Plain {
    /// The program, and arguments that stay.
    pub entrypoint: Vec<String>,
    /// Arguments that a `docker run` may replace.
    pub cmd: Vec<String>,
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// User.
    pub user: Option<String>,
    /// Working directory.
    pub workdir: Option<String>,
    /// `3306`, `53/udp`.
    pub ports: Vec<String>,
    /// Paths in the image.
    pub volumes: Vec<String>,
    /// Such as `SIGTERM`.
    pub stop_signal: Option<String>,
    /// How to ask for health.
    pub healthcheck: Option<HealthcheckRecipe>,
    /// Files and folders of the host, and where they go.
    pub files: Vec<PlacedFile>,
}

/// A file or folder of the host, and where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedFile {
    /// On the host.
    pub from: PathBuf,
    /// In the image, absolute.
    pub to: String,
    /// Permission bits; by default 0755 or 0644, as the file is executable or not.
    pub mode: Option<u32>,
}

/// How to ask for health, as compose writes it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthcheckRecipe {
    /// A program with arguments, or a line for the shell.
    pub test: Command,
    /// Between two checks.
    #[serde(default, deserialize_with = "duration")]
    pub interval: Option<Duration>,
    /// For one check.
    #[serde(default, deserialize_with = "duration")]
    pub timeout: Option<Duration>,
    /// Before failures count.
    #[serde(default, deserialize_with = "duration")]
    pub start_period: Option<Duration>,
    /// Failures in a row.
    pub retries: Option<u32>,
}

/// A program with its arguments, or a line for the shell.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Command {
    /// Program and arguments.
    Words(Vec<String>),
    /// A line for `/bin/sh -c`.
    Line(String),
}

/// The file as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    version: String,
    role: ImageRole,
    base: String,
    #[serde(default)]
    packages: Vec<String>,
    deploy: Option<PathBuf>,
    web: Option<PathBuf>,
    init: Option<PathBuf>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    waive: Vec<String>,
    entrypoint: Option<Command>,
    cmd: Option<Command>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    user: Option<String>,
    workdir: Option<String>,
    #[serde(default)]
    ports: Vec<String>,
    #[serde(default)]
    volumes: Vec<String>,
    stop_signal: Option<String>,
    healthcheck: Option<HealthcheckRecipe>,
    #[serde(default)]
    files: BTreeMap<String, Placement>,
}

/// Where a file goes: a path, or a path with a mode.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Placement {
    Path(String),
    Full {
        path: String,
        #[serde(default)]
        mode: Option<String>,
    },
}

/// Why a recipe cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// The file cannot be read.
    #[error("cannot read the recipe {}", shown(path))]
    Read {
        /// The recipe.
        path: PathBuf,
        /// The operating system's words.
        source: std::io::Error,
    },
    /// It is no YAML, or a key is unknown, missing or of the wrong kind.
    #[error("{}: {message}", shown(&place.file))]
    Syntax {
        /// The recipe and the line.
        place: Place,
        /// The parser's words.
        message: String,
    },
    /// A value is not what it should be.
    #[error("{}: {why}", quoted(key, value))]
    Value {
        /// The recipe and the line of the key.
        place: Place,
        /// The key.
        key: &'static str,
        /// Its value; empty where the key alone is wrong.
        value: String,
        /// What is wrong.
        why: String,
        /// What to do.
        hint: &'static str,
    },
}

fn quoted(key: &str, value: &str) -> String {
    if value.is_empty() { format!("`{key}`") } else { format!("`{key}: {value}`") }
}

impl Diagnose for RecipeError {
    fn exit(&self) -> Exit {
        Exit::Usage
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Read { .. } => Some("name the recipe's file, such as images/framework.yaml".to_owned()),
            Self::Syntax { .. } => Some("docs/recipe.md lists every key of a recipe".to_owned()),
            Self::Value { hint, .. } => Some((*hint).to_owned()),
        }
    }

    fn place(&self) -> Option<Place> {
        match self {
            Self::Read { path, .. } => Some(Place::file(path)),
            Self::Syntax { place, .. } | Self::Value { place, .. } => Some(place.clone()),
        }
    }
}

/// What the command line says instead of the recipe.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--version`.
    pub version: Option<String>,
    /// `--packages`: every package in these folders, or a folder that `make install` made.
    pub packages: Vec<PathBuf>,
}

impl Recipe {
    /// Reads a recipe; paths in it are relative to its folder.
    pub fn read(path: &Path, overrides: &Overrides) -> Result<Self, RecipeError> {
        let failed = |source| RecipeError::Read { path: path.to_owned(), source };
        let text = fs::read_to_string(path).map_err(failed)?;
        let written: Written = serde_yaml::from_str(&text).map_err(|error| RecipeError::Syntax {
            place: Place {
                file: path.to_owned(),
                line: error.location().map(|location| location.line() as u64),
            },
            message: without_position(&error.to_string()),
        })?;
        let folder = std::path::absolute(path).map_err(failed)?;
        let folder = folder.parent().unwrap_or(Path::new("/")).to_owned();
        Reader { path, text: &text, folder }.resolve(written, overrides)
    }
}

/// What a folder of packages is searched for. What each file is, its first bytes tell.
const PACKAGES: [&str; 5] = ["*.tgz", "*.tar.gz", "*.tar.zst", "*.tzst", "*.tar"];

/// The parser puts the position into its text; we have a place for it.
fn without_position(message: &str) -> String {
    message.split(" at line ").next().unwrap_or(message).to_owned()
}

/// Turns what is written into what is meant.
struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    folder: PathBuf,
}

impl Reader<'_> {
    fn resolve(&self, written: Written, overrides: &Overrides) -> Result<Recipe, RecipeError> {
        if let Some(gate) = written.waive.first() {
            return Err(self.bad("waive", gate, "there is no gate of that name", "remove it"));
        }
        let version = overrides.version.clone().unwrap_or_else(|| written.version.clone());
        let reference = self.reference(&written.name, &version)?;
        if written.role != ImageRole::Plain {
            self.refuse_plain_keys(&written)?;
        }
        let packages = if overrides.packages.is_empty() {
            self.expand(&written.packages)?
        } else {
            Self::packages_in(&overrides.packages)?
        };
        Ok(Recipe {
            file: self.path.to_owned(),
            reference,
            version,
            role: written.role,
            base: self.base(&written.base)?,
            packages,
            deploy: written.deploy.as_ref().map(|path| self.folder.join(path)),
            web: written.web.as_ref().map(|path| self.folder.join(path)),
            init: written.init.as_ref().map(|path| self.folder.join(path)),
            labels: written.labels.clone(),
            plain: self.plain(written)?,
        })
    }

    fn reference(&self, name: &str, version: &str) -> Result<Reference, RecipeError> {
        if !is_tag(version) {
            let why = "a version is also the image's tag: up to 128 letters, digits, `_`, `.` and `-`";
            return Err(self.bad("version", version, why, "write a version such as 3.0.17"));
        }
        let hint = "write a repository such as tars/framework; the tag is the version";
        let reference: Reference =
            name.parse().map_err(|error| self.bad("name", name, &format!("{error}"), hint))?;
        let tagged = name.rsplit('/').next().is_some_and(|last| last.contains(':')) || name.contains('@');
        if tagged {
            return Err(self.bad("name", name, "a name has no tag", hint));
        }
        Ok(reference.with_tag(version))
    }

    fn base(&self, text: &str) -> Result<Base, RecipeError> {
        if text == "scratch" {
            return Ok(Base::Scratch);
        }
        match text.strip_prefix("rootfs:") {
            Some(path) if !path.is_empty() => Ok(Base::Rootfs(self.folder.join(path))),
            _ => Err(self.bad(
                "base",
                text,
                "not a base that this version knows",
                "write scratch, or rootfs:FILE with a tar of a root file system",
            )),
        }
    }

    /// Keys that the role decides must not be contradicted in silence.
    fn refuse_plain_keys(&self, written: &Written) -> Result<(), RecipeError> {
        let present = [
            ("entrypoint", written.entrypoint.is_some()),
            ("cmd", written.cmd.is_some()),
            ("user", written.user.is_some()),
            ("workdir", written.workdir.is_some()),
            ("ports", !written.ports.is_empty()),
            ("volumes", !written.volumes.is_empty()),
            ("stop_signal", written.stop_signal.is_some()),
            ("healthcheck", written.healthcheck.is_some()),
        ];
        match present.iter().find(|(_, present)| *present) {
            Some((key, _)) => Err(self.bad(
                key,
                "",
                &format!("role {} decides that", written.role.name()),
                "remove the key, or use `role: plain`",
            )),
            None => Ok(()),
        }
    }

    /// Sorted, each once. A pattern that matches nothing is a mistake.
    fn expand(&self, patterns: &[String]) -> Result<Vec<PathBuf>, RecipeError> {
        let mut found = Vec::new();
        for pattern in patterns {
            let matches = super::glob::expand(&self.folder, pattern);
            if matches.is_empty() {
                return Err(self.bad(
                    "packages",
                    pattern,
                    "no such file",
                    "run `make framework-tar` and `make X-tar` for each common service, or correct the path",
                ));
            }
            found.extend(matches);
        }
        found.sort();
        found.dedup();
        Ok(found)
    }

    fn packages_in(folders: &[PathBuf]) -> Result<Vec<PathBuf>, RecipeError> {
        let mut found = Vec::new();
        for folder in folders {
            let named = shown(folder).to_string();
            let bad = |why: &str| RecipeError::Value {
                place: Place::file(folder),
                key: "--packages",
                value: named.clone(),
                why: why.to_owned(),
                hint: "name the folder that holds the packages",
            };
            let absolute = std::path::absolute(folder).map_err(|error| bad(&error.to_string()))?;
            if super::package::install_tree(&absolute).is_some() {
                found.push(absolute);
                continue;
            }
            if !absolute.is_dir() {
                return Err(bad("not a folder"));
            }
            let matches: Vec<PathBuf> =
                PACKAGES.iter().flat_map(|pattern| super::glob::expand(&absolute, pattern)).collect();
            if matches.is_empty() {
                return Err(bad("there is no package in it (.tgz, .tar.gz, .tar.zst or .tar)"));
            }
            found.extend(matches);
        }
        found.sort();
        found.dedup();
        Ok(found)
    }

    fn plain(&self, written: Written) -> Result<Plain, RecipeError> {
        for path in written.volumes.iter().chain(&written.workdir) {
            if !path.starts_with('/') {
                return Err(self.bad(
                    "volumes",
                    path,
                    "a path in the image is absolute",
                    "begin it with `/`",
                ));
            }
        }
        let ports =
            written.ports.iter().map(|port| self.port(port)).collect::<Result<Vec<_>, RecipeError>>()?;
        let files = written
            .files
            .into_iter()
            .map(|(from, placement)| self.placed(&from, placement))
            .collect::<Result<Vec<_>, RecipeError>>()?;
        Ok(Plain {
            entrypoint: written.entrypoint.map(Command::into_words).unwrap_or_default(),
            cmd: written.cmd.map(Command::into_words).unwrap_or_default(),
            env: written.env,
            user: written.user,
            workdir: written.workdir,
            ports,
            volumes: written.volumes,
            stop_signal: written.stop_signal,
            healthcheck: written.healthcheck,
            files,
        })
    }

    /// `3306` and `53/udp`, as the config writes them.
    fn port(&self, text: &str) -> Result<String, RecipeError> {
        let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let valid = number.parse::<u16>().is_ok_and(|number| number > 0);
        if !valid || !matches!(protocol, "tcp" | "udp" | "sctp") {
            return Err(self.bad("ports", text, "not a port", "write a port such as 3306 or 53/udp"));
        }
        Ok(format!("{number}/{protocol}"))
    }

    fn placed(&self, from: &str, placement: Placement) -> Result<PlacedFile, RecipeError> {
        let (to, mode) = match placement {
            Placement::Path(path) => (path, None),
            Placement::Full { path, mode } => (path, mode),
        };
        let climbs = to.split('/').any(|part| part == "..");
        if !to.starts_with('/') || climbs || to.trim_matches('/').is_empty() {
            let why = "where a file goes is an absolute path in the image, without `..`";
            return Err(self.bad("files", &to, why, "begin it with `/`"));
        }
        let octal = |text: String| match u32::from_str_radix(text.trim_start_matches("0o"), 8) {
            Ok(mode) if mode <= 0o7777 => Ok(mode),
            _ => Err(self.bad("mode", &text, "not a mode", "write it in octal digits, such as 0755")),
        };
        Ok(PlacedFile { from: self.folder.join(from), to, mode: mode.map(octal).transpose()? })
    }

    /// A bad value, with the line where its key or the value itself is written.
    fn bad(&self, key: &'static str, value: &str, why: &str, hint: &'static str) -> RecipeError {
        let has = |needle: &str| self.text.lines().position(|line| line.trim_start().starts_with(needle));
        let line = self
            .text
            .lines()
            .position(|line| !value.is_empty() && line.contains(key) && line.contains(value))
            .or_else(|| self.text.lines().position(|line| !value.is_empty() && line.contains(value)))
            .or_else(|| has(&format!("{key}:")));
        RecipeError::Value {
            place: Place { file: self.path.to_owned(), line: line.map(|line| line as u64 + 1) },
            key,
            value: value.to_owned(),
            why: why.to_owned(),
            hint,
        }
    }
}

impl Command {
    /// As an entrypoint or command of an image: a line becomes `/bin/sh -c LINE`.
    pub fn into_words(self) -> Vec<String> {
        match self {
            Self::Words(words) => words,
            Self::Line(line) => vec!["/bin/sh".to_owned(), "-c".to_owned(), line],
        }
    }
}

/// `10s`, `1m30s`, `500ms`.
fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let invalid = || serde::de::Error::custom(format!("`{text}` is not a duration such as 10s or 1m30s"));
    let mut total = Duration::ZERO;
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let units = &rest[digits..];
        let letters = units.len() - units.trim_start_matches(char::is_alphabetic).len();
        let number: u64 = rest[..digits].parse().map_err(|_| invalid())?;
        total += match &units[..letters] {
            "ms" => Duration::from_millis(number),
            "s" => Duration::from_secs(number),
            "m" => Duration::from_secs(number.saturating_mul(60)),
            "h" => Duration::from_secs(number.saturating_mul(3600)),
            _ => return Err(invalid()),
        };
        rest = &units[letters..];
    }
    if text.is_empty() { Err(invalid()) } else { Ok(Some(total)) }
}
