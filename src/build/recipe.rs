//! The recipe: what an image is made of, read from YAML with every key known and every path resolved.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::ontop::Limits;
use super::plain;
use super::privileges::{BITS, Kept};
pub use super::refusal::RecipeError;
use super::version::{self, Version};
use super::written::{FullPlacement, Placement, RecipeFile, WrittenPrivileges, misfit};
pub use super::written::{HealthcheckRecipe, StartCommand};
use crate::diagnose::{Place, shown};
use crate::limits;
use crate::oci::Reference;
use crate::oci::reference::is_tag;
use crate::paths::ImagePathBuf;
use crate::tarball::Capabilities;
use crate::tars::Service;
use crate::tars::catalogue::TARS_PATH;
use crate::yaml;

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
    /// An image, by its name with transport; paths in it are absolute.
    Image(String),
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
    /// How much may be covered by what lies on top of a predecessor.
    pub relayer: Limits,
    /// Findings of the gate that are none here: `tarsstat:libmariadb.so.3`.
    pub waive: Vec<String>,
    /// Services that are of another version than the others, on purpose; and the lines that say so.
    pub versions: BTreeMap<Service, (Version, u64)>,
    /// Path in the image → the setuid and setgid bits and capabilities that the file there keeps.
    pub privileges: BTreeMap<ImagePathBuf, Kept>,
    /// What a plain image's config holds.
    pub plain: PlainImage,
}

/// What a plain image's config holds, and the files that it gets.
#[derive(Clone, Debug, Default)]
pub struct PlainImage {
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
    /// In the image.
    pub to: ImagePathBuf,
    /// Permission bits; by default 0755 or 0644, as the file is executable or not.
    pub mode: Option<u32>,
    /// What they let their program do; by default what the host's file has, where `privileges` says so.
    pub capabilities: Option<Capabilities>,
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
        let text = limits::read_text(path, &limits::TEXT).map_err(failed)?;
        if text.starts_with('\u{feff}') {
            let message = "it begins with a byte order mark: save it as UTF-8 without one".to_owned();
            return Err(RecipeError::Syntax { place: Place::line(path, 1), message });
        }
        let folder = std::path::absolute(path).map_err(failed)?;
        let folder = folder.parent().unwrap_or(Path::new("/")).to_owned();
        // The tree knows where each value stands, and its limits end what is no recipe; serde makes typed values.
        let source = Arc::new(yaml::SourceFile { path: path.to_owned(), base: folder.clone() });
        let tree = yaml::parse(&text, &source)
            .map_err(|error| RecipeError::Syntax { place: error.place, message: error.what })?;
        let resolver = Resolver { path, tree, folder };
        let values = serde_yaml::Deserializer::from_str(&text);
        let written: RecipeFile =
            serde_path_to_error::deserialize(values).map_err(|error| resolver.mistyped(&error))?;
        resolver.resolve(written, overrides)
    }
}

/// The way from the top of a recipe to a value.
#[derive(Clone, Copy)]
enum PathStep<'a> {
    Key(&'a str),
    Item(usize),
}

/// What a folder of packages is searched for. What each file is, its first bytes tell.
const PACKAGES: [&str; 5] = ["*.tgz", "*.tar.gz", "*.tar.zst", "*.tzst", "*.tar"];

/// The parser puts the position into its text; we have a place for it.
fn without_position(message: &str) -> String {
    message.split(" at line ").next().unwrap_or(message).to_owned()
}

/// Turns what is written into what is meant.
struct Resolver<'a> {
    path: &'a Path,
    tree: yaml::Node,
    folder: PathBuf,
}

impl Resolver<'_> {
    fn resolve(&self, written: RecipeFile, overrides: &Overrides) -> Result<Recipe, RecipeError> {
        let unnamed = |given: &String| !is_waiver(given);
        if let Some(index) = written.waive.iter().position(unnamed) {
            return Err(self.bad(
                &[PathStep::Key("waive"), PathStep::Item(index)],
                "waive",
                &written.waive[index],
                "it names no program and what it needs",
                "write it as the gate's hint has it, such as tarsstat:libmariadb.so.3",
            ));
        }
        if written.role != ImageRole::Plain {
            self.refuse_plain_keys(&written)?;
        }
        let packages = if overrides.packages.is_empty() {
            self.expand(&written.packages)?
        } else {
            Self::packages_in(&overrides.packages)?
        };
        let deploy = written.deploy.as_ref().map(|path| self.folder.join(path));
        let version = match overrides.version.as_ref().or(written.version.as_ref()) {
            Some(version) => version.clone(),
            None => self.version_of(&packages, deploy.as_deref())?,
        };
        let reference = self.reference(&written.name, &version)?;
        Ok(Recipe {
            file: self.path.to_owned(),
            reference,
            version,
            role: written.role,
            base: self.base(&written.base)?,
            packages,
            deploy,
            web: written.web.as_ref().map(|path| self.folder.join(path)),
            init: written.init.as_ref().map(|path| self.folder.join(path)),
            labels: written.labels.clone(),
            relayer: written.relayer,
            waive: written.waive.clone(),
            versions: self.versions(&written.versions)?,
            privileges: self.privileges(&written.privileges)?,
            plain: self.plain(written)?,
        })
    }

    /// What the tree says that packages or `deploy` are of, where the recipe says nothing.
    fn version_of(&self, packages: &[PathBuf], deploy: Option<&Path>) -> Result<String, RecipeError> {
        let mut found: Option<(PathBuf, Version)> = None;
        for file in version::files_beside(packages, deploy) {
            let place = Place::file(&file);
            let bad = |message: String| RecipeError::Syntax { place: place.clone(), message };
            let Some(read) = version::read(&file).map_err(|error| bad(error.to_string()))? else { continue };
            match &found {
                Some((first, version)) if *version != read => {
                    let why = format!(
                        "it says {read}, and {} {version}: which it is, `version` says",
                        shown(first)
                    );
                    return Err(bad(why));
                }
                _ => found = Some((file, read)),
            }
        }
        if found.is_none() {
            // A packed tree has the file in it, and is read for it where nothing else tells.
            for package in packages.iter().filter(|package| package.is_file()) {
                let bad = |error: &dyn std::fmt::Display| RecipeError::Syntax {
                    place: Place::file(package),
                    message: error.to_string(),
                };
                found = super::package::release(package)
                    .map_err(|error| bad(&error))?
                    .map(|version| (package.clone(), version));
                if found.is_some() {
                    break;
                }
            }
        }
        let message =
            || "missing field `version`, and no tree with a FRAMEWORK_VERSION.txt says it".to_owned();
        let missing = || RecipeError::Syntax { place: Place::line(self.path, 1), message: message() };
        found.map(|(_, version)| version.to_string()).ok_or_else(missing)
    }

    fn versions(
        &self,
        written: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<Service, (Version, u64)>, RecipeError> {
        let listed = |(name, value): (&String, &String)| {
            let way = [PathStep::Key("versions"), PathStep::Key(name)];
            let hint = "list a service that is of another version on purpose, such as tarsstat: 2.4.23";
            let service: Service = name
                .parse()
                .map_err(|_| self.bad(&way, "versions", name, "not a service of the framework", hint))?;
            let version = value.parse();
            let version =
                version.map_err(|()| self.bad(&way, "versions", value, "not three numbers", hint))?;
            Ok((service, (version, self.line(&way))))
        };
        written.iter().map(listed).collect()
    }

    fn reference(&self, name: &str, version: &str) -> Result<Reference, RecipeError> {
        if !is_tag(version) {
            let why = "a version is also the image's tag: up to 128 letters, digits, `_`, `.` and `-`";
            return Err(self.bad(
                &[PathStep::Key("version")],
                "version",
                version,
                why,
                "write a version such as 3.0.17",
            ));
        }
        let hint = "write a repository such as tars/framework; the tag is the version";
        let reference: Reference = name
            .parse()
            .map_err(|error| self.bad(&[PathStep::Key("name")], "name", name, &format!("{error}"), hint))?;
        let tagged = name.rsplit('/').next().is_some_and(|last| last.contains(':')) || name.contains('@');
        if tagged {
            return Err(self.bad(&[PathStep::Key("name")], "name", name, "a name has no tag", hint));
        }
        Ok(reference.with_tag(version))
    }

    fn base(&self, text: &str) -> Result<Base, RecipeError> {
        if text == "scratch" {
            return Ok(Base::Scratch);
        }
        let rest = |transport| text.strip_prefix(transport).filter(|rest| !rest.is_empty());
        if let Some(path) = rest("rootfs:") {
            return Ok(Base::Rootfs(self.folder.join(path)));
        }
        for transport in ["oci:", "docker-archive:"] {
            if let Some(path) = rest(transport) {
                return Ok(Base::Image(format!("{transport}{}", shown(&self.folder.join(path)))));
            }
        }
        if rest("docker-daemon:").or_else(|| rest("docker://")).is_some() {
            return Ok(Base::Image(text.to_owned()));
        }
        Err(self.bad(
            &[PathStep::Key("base")],
            "base",
            text,
            "not a base that this version knows",
            "write scratch, rootfs:FILE with a tar of a root file system, or an image: oci:DIR[:TAG], docker-archive:FILE[:REF], \
             docker-daemon:REF, docker://REF",
        ))
    }

    /// Keys that the role decides must not be contradicted in silence.
    fn refuse_plain_keys(&self, written: &RecipeFile) -> Result<(), RecipeError> {
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
                &[PathStep::Key(key)],
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
        for (index, pattern) in patterns.iter().enumerate() {
            let matches = super::glob::expand(&self.folder, pattern);
            if matches.is_empty() {
                return Err(self.bad(
                    &[PathStep::Key("packages"), PathStep::Item(index)],
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

    fn plain(&self, written: RecipeFile) -> Result<PlainImage, RecipeError> {
        if let Some(misfit) = misfit(&written) {
            let item = misfit.index.map_or(PathStep::Key(&misfit.value), PathStep::Item);
            let way = [PathStep::Key(misfit.key), item];
            return Err(self.bad(&way, misfit.key, &misfit.value, misfit.why, misfit.hint));
        }
        let ports = written
            .ports
            .iter()
            .enumerate()
            .map(|(index, port)| self.port(index, port))
            .collect::<Result<Vec<_>, RecipeError>>()?;
        let files = written
            .files
            .into_iter()
            .map(|(from, placement)| self.placed(&from, placement))
            .collect::<Result<Vec<_>, RecipeError>>()?;
        Ok(PlainImage {
            entrypoint: written.entrypoint.map(StartCommand::into_words).unwrap_or_default(),
            cmd: written.cmd.map(StartCommand::into_words).unwrap_or_default(),
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
    fn port(&self, index: usize, text: &str) -> Result<String, RecipeError> {
        let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let valid = number.parse::<u16>().is_ok_and(|number| number > 0);
        if !valid || !matches!(protocol, "tcp" | "udp" | "sctp") {
            return Err(self.bad(
                &[PathStep::Key("ports"), PathStep::Item(index)],
                "ports",
                text,
                "not a port",
                "write a port such as 3306 or 53/udp",
            ));
        }
        Ok(format!("{number}/{protocol}"))
    }

    fn placed(&self, from: &str, placement: Placement) -> Result<PlacedFile, RecipeError> {
        let entry = [PathStep::Key("files"), PathStep::Key(from)];
        let [files, key] = entry;
        let (to, mode, capabilities, way) = match placement {
            Placement::Path(path) => (path, None, None, entry.to_vec()),
            Placement::Full(FullPlacement { path, mode, capabilities }) => {
                (path, mode, capabilities, vec![files, key, PathStep::Key("path")])
            }
        };
        let to = plain::place(&to).map_err(|(why, hint)| self.bad(&way, "files", &to, &why, hint))?;
        let mode = mode.map(|text| self.mode(&entry, &text)).transpose()?;
        let capabilities = capabilities.map(|text| self.capabilities(&entry, &text)).transpose()?;
        Ok(PlacedFile { from: self.folder.join(from), to, mode, capabilities })
    }

    fn mode(&self, entry: &[PathStep<'_>], text: &str) -> Result<u32, RecipeError> {
        match u32::from_str_radix(text.trim_start_matches("0o"), 8) {
            Ok(mode) if mode <= 0o7777 => Ok(mode),
            _ => {
                let way = [entry, &[PathStep::Key("mode")]].concat();
                let hint = "write it in octal digits, such as 0755";
                Err(self.bad(&way, "mode", text, "not a mode", hint))
            }
        }
    }

    fn capabilities(&self, entry: &[PathStep<'_>], text: &str) -> Result<Capabilities, RecipeError> {
        text.parse().map_err(|why| {
            let way = [entry, &[PathStep::Key("capabilities")]].concat();
            let hint = "write them as getcap shows them, such as cap_net_raw=ep";
            self.bad(&way, "capabilities", text, why, hint)
        })
    }

    /// What files keep: by their path, or a service and the path in its folder.
    fn privileges(
        &self,
        written: &BTreeMap<String, WrittenPrivileges>,
    ) -> Result<BTreeMap<ImagePathBuf, Kept>, RecipeError> {
        let mut kept = BTreeMap::new();
        for (name, WrittenPrivileges { mode, capabilities }) in written {
            let way = [PathStep::Key("privileges"), PathStep::Key(name)];
            let of_service = name.split_once(':').and_then(|(service, path)| {
                Some(format!("{TARS_PATH}/{}/{path}", service.parse::<Service>().ok()?))
            });
            let path = plain::place(of_service.as_ref().unwrap_or(name)).map_err(|(why, _)| {
                let hint = "name a file in the image, such as /usr/bin/ping, or of a service, such as tarsnode:bin/tarsnode";
                self.bad(&way, "privileges", name, &why, hint)
            })?;
            let mode = mode.as_ref().map(|text| self.mode(&way, text)).transpose()?;
            let capabilities = capabilities.as_ref().map(|text| self.capabilities(&way, text)).transpose()?;
            let says = mode.map_or(capabilities.is_some(), |mode| mode & BITS != 0);
            let entry = Kept { mode, capabilities, line: self.line(&way) };
            if !says || kept.insert(path, entry).is_some() {
                let why = if says { "the same file is there twice" } else { "it says nothing that is kept" };
                let hint =
                    "write `mode` with a setuid or setgid bit, such as 04755, or `capabilities`, or both";
                return Err(self.bad(&way, "privileges", name, why, hint));
            }
        }
        Ok(kept)
    }

    /// A bad value, with the line where it stands.
    fn bad(
        &self,
        way: &[PathStep<'_>],
        key: &'static str,
        value: &str,
        why: &str,
        hint: &'static str,
    ) -> RecipeError {
        RecipeError::Value {
            place: Place { file: self.path.to_owned(), line: Some(self.line(way)) },
            key,
            value: value.to_owned(),
            why: why.to_owned(),
            hint,
        }
    }

    /// The line of a value, or of the last thing on the way to it that there is. A list or mapping is where its key is.
    fn line(&self, way: &[PathStep<'_>]) -> u64 {
        let mut node = &self.tree;
        let mut line = node.at.line;
        for step in way {
            let next = match (step, &node.value) {
                (PathStep::Key(key), yaml::Value::Map(entries)) => {
                    let entry = entries.iter().find(|entry| entry.key == *key);
                    entry.map(|entry| (&entry.value, entry.at.line))
                }
                (PathStep::Item(index), yaml::Value::List(items)) => {
                    items.get(*index).map(|item| (item, item.at.line))
                }
                _ => None,
            };
            let Some(found) = next else { break };
            (node, line) = found;
        }
        match node.value {
            yaml::Value::List(_) | yaml::Value::Map(_) => line,
            // A text of several lines begins behind its key.
            _ => line.max(node.at.line),
        }
    }

    /// What serde says of a value of the wrong kind, or of a key that is unknown, at its line.
    fn mistyped(&self, error: &serde_path_to_error::Error<serde_yaml::Error>) -> RecipeError {
        use serde_path_to_error::Segment;
        let message = without_position(&error.inner().to_string());
        let segment = |segment| match segment {
            &Segment::Seq { index } => Some(PathStep::Item(index)),
            Segment::Map { key } => Some(PathStep::Key(key.as_str())),
            _ => None,
        };
        let mut way: Vec<PathStep<'_>> = error.path().iter().map_while(segment).collect();
        let unknown = message.split_once("unknown field `").and_then(|(_, rest)| rest.split_once('`'));
        if let Some((key, _)) = unknown {
            way.push(PathStep::Key(key));
        }
        let place = Place::line(self.path, self.line(&way));
        // Most say which key it is; those of a choice say only what it may be.
        let key = error.path().to_string();
        let message = match message.split_once("neither ") {
            Some((_, rest)) => format!("`{key}` is neither {rest}"),
            None => message,
        };
        RecipeError::Syntax { place, message }
    }
}

/// True for the name of a finding: a program's file, and what it needs.
pub fn is_waiver(text: &str) -> bool {
    text.split_once(':').is_some_and(|(program, need)| !program.is_empty() && !need.is_empty())
}
