//! From files to one tree: discovery, `.env`, interpolation, `extends`, and the merge of override files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::LoadOptions;
use super::error::{ComposeError, Result};
use super::merge::{merge_service, merge_top};
use super::value::{entries, text};
use crate::deploy::dotenv;
use crate::deploy::interpolate::{Gathered, Variables, interpolate_tree};
use crate::diagnose::Place;
use crate::limits;
use crate::secretive::Secretive;
use crate::yaml::{self, Directive, Node, SourceFile, Value};

/// What compose looks for, in its order.
const NAMES: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];
/// The override files that it takes beside one of them.
const OVERRIDES: [&str; 4] = [
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
];
/// The variable that names the project, and that holds its name afterwards.
const PROJECT_NAME: &str = "COMPOSE_PROJECT_NAME";

/// All files as one tree.
pub(super) struct Merged {
    /// The files, in the order in which they were merged.
    pub files: Vec<PathBuf>,
    /// The folder of the first.
    pub directory: PathBuf,
    /// The project's name.
    pub deployment: String,
    /// The variables that they were interpolated with.
    pub variables: Variables,
    /// The tree.
    pub tree: Node,
    /// What compose would warn of.
    pub notes: Vec<String>,
}

/// Reads and merges the files of a deployment.
///
/// `known` gets the values of the variables that are interpolated, also where this fails: no message may show one.
pub(super) fn read(options: &LoadOptions, known: &mut BTreeMap<String, Secretive>) -> Result<Merged> {
    let files = discover(options)?;
    let directory = folder_of(&files);
    refuse_other_env_files(options, &directory)?;
    let dotenv = if directory == Path::new(".") { ".env".into() } else { directory.join(".env") };
    let mut variables =
        Variables { shell: options.environment.clone(), dotenv: read_dotenv(&dotenv, &options.environment)? };
    let parsed: Vec<Node> = files.iter().map(|file| parse(file, &directory, None)).collect::<Result<_>>()?;
    let mut gathered = Gathered::default();
    let deployment = project_name(options, &variables, &parsed, &directory, &mut gathered);
    known.append(&mut gathered.values);
    let deployment = deployment?;
    // Compose names the project first: what is interpolated afterwards may ask for it.
    variables.shell.insert(PROJECT_NAME.to_owned(), Secretive::new(PROJECT_NAME, deployment.clone()));
    let mut reader = FileReader { variables, gathered: Gathered::default() };
    let tree = reader.files(parsed);
    known.append(&mut reader.gathered.values);
    let tree = tree?;
    let Some(mut tree) = tree else { return Err(ComposeError::NoFile { directory }) };
    drop_resets(&mut tree);
    let notes = reader
        .gathered
        .blank
        .iter()
        .map(|(name, place)| format!("{place}: the variable `{name}` is not set and counts as empty"))
        .collect();
    Ok(Merged { files, directory, deployment, variables: reader.variables, tree, notes })
}

/// Variables that would have compose read other files than the project folder's `.env`.
fn refuse_other_env_files(options: &LoadOptions, directory: &Path) -> Result<()> {
    for name in ["COMPOSE_ENV_FILES", "COMPOSE_DISABLE_ENV_FILE"] {
        let set = options.environment.get(name).filter(|value| !matches!(value.expose(), "" | "0" | "false"));
        if set.is_some() {
            return Err(ComposeError::Invalid {
                what: format!(
                    "`{name}` is set, and tarsup reads `.env` of the project's folder and no other"
                ),
                hint: Some(format!("unset {name}, and put what is needed into .env")),
                place: Place::file(directory.join(".env")),
            });
        }
    }
    Ok(())
}

/// The folder of the first file: state and lock of a deployment lie there.
pub(super) fn folder_of(files: &[PathBuf]) -> PathBuf {
    match files.first().and_then(|file| file.parent()) {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// The files named, or those that compose would take; at least one.
pub(super) fn discover(options: &LoadOptions) -> Result<Vec<PathBuf>> {
    let within = |file: &Path| {
        if options.directory.as_os_str().is_empty() || options.directory == Path::new(".") {
            file.to_owned()
        } else {
            options.directory.join(file)
        }
    };
    if !options.files.is_empty() {
        return Ok(options.files.iter().map(|file| within(file)).collect());
    }
    // Compose reads these from `.env` as well: a deployment may be put together there.
    let dotenv = read_dotenv(&within(Path::new(".env")), &options.environment)?;
    let variable = |name: &str| {
        let value = options.environment.get(name).or_else(|| dotenv.get(name).map(|(value, _)| value));
        value.filter(|value| !value.is_empty())
    };
    if let Some(list) = variable("COMPOSE_FILE") {
        let separator = variable("COMPOSE_PATH_SEPARATOR").map_or(":", Secretive::expose);
        return Ok(list.expose().split(separator).map(|file| within(Path::new(file))).collect());
    }
    // Compose looks in the folders above, too. What lies in the folder itself keeps its short name.
    let start = within(Path::new(""));
    let above = std::path::absolute(if start.as_os_str().is_empty() { Path::new(".") } else { &start });
    let above = above.unwrap_or_default();
    for folder in std::iter::once(start.as_path()).chain(above.ancestors().skip(1)) {
        if let Some(file) = NAMES.iter().map(|name| folder.join(name)).find(|file| file.is_file()) {
            let beside = OVERRIDES.iter().map(|name| folder.join(name)).find(|file| file.is_file());
            return Ok(std::iter::once(file).chain(beside).collect());
        }
    }
    Err(ComposeError::NoFile { directory: options.directory.clone() })
}

fn read_file(path: &Path, named: Option<&Place>) -> Result<String> {
    let read = |source| ComposeError::Read { path: path.to_owned(), named: named.cloned(), source };
    limits::read_text(path, &limits::TEXT).map_err(read)
}

/// The `.env` file, where there is one.
fn read_dotenv(
    path: &Path,
    shell: &BTreeMap<String, Secretive>,
) -> Result<BTreeMap<String, (Secretive, Place)>> {
    // A link to nothing is no `.env` that is not there.
    if std::fs::symlink_metadata(path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        return Ok(BTreeMap::new());
    }
    let assignments = assignments(path, None, &|name| shell.get(name).cloned())?;
    Ok(assignments
        .into_iter()
        .filter_map(|one| one.value.map(|value| (one.name, (value, Place::line(path, one.line)))))
        .collect())
}

/// The assignments of a `.env` or `env_file`.
pub(super) fn assignments(
    path: &Path,
    named: Option<&Place>,
    lookup: &dyn Fn(&str) -> Option<Secretive>,
) -> Result<Vec<dotenv::Assignment>> {
    let text = read_file(path, named)?;
    dotenv::parse(&text, lookup)
        .map_err(|error| ComposeError::DotEnv { what: error.what, place: Place::line(path, error.line) })
}

/// One file as it is written.
fn parse(path: &Path, base: &Path, named: Option<&Place>) -> Result<Node> {
    let text = read_file(path, named)?;
    let source = Arc::new(SourceFile { path: path.to_owned(), base: base.to_owned() });
    let tree = yaml::parse(&text, &source)?;
    if matches!(tree.value, Value::Map(_)) {
        return Ok(tree);
    }
    Err(ComposeError::invalid_but(
        &tree.at,
        format!("{} holds {}, not a mapping with `services`", path.display(), tree.kind()),
        "see the compose specification for what it takes",
    ))
}

/// `-p`, `COMPOSE_PROJECT_NAME`, `name:` of the last file that has one, the folder's name: the first that is there.
fn project_name(
    options: &LoadOptions,
    variables: &Variables,
    files: &[Node],
    directory: &Path,
    gathered: &mut Gathered,
) -> Result<String> {
    let valid = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-'))
    };
    let top = files.first().map(|tree| &tree.at);
    let mut declared =
        files.iter().rev().filter_map(|tree| tree.get("name")).find(|node| !node.is_null()).cloned();
    if let Some(node) = &mut declared {
        // What it lacks is told when the whole file is interpolated.
        interpolate_tree(node, variables, gathered)
            .map_err(|(why, place)| ComposeError::Interpolation { why, place })?;
    }
    let given = options
        .project
        .clone()
        .or_else(|| variables.lookup(PROJECT_NAME).0.map(|name| name.expose().to_owned()))
        .filter(|name| !name.is_empty());
    let (name, at) = match (given, &declared) {
        (Some(name), _) => (name, top),
        (None, Some(node)) => (text(node, "name")?, Some(&node.at)),
        (None, None) => {
            let folder = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
            let folder =
                folder.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
            let kept: String = folder
                .chars()
                .filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-'))
                .collect();
            (kept.trim_start_matches(['_', '-']).to_owned(), top)
        }
    };
    match at {
        Some(at) if !valid(&name) => Err(ComposeError::invalid_but(
            at,
            format!("`{name}` cannot be a project's name"),
            "name it with -p or `name:`, in lower-case letters, digits, `-` and `_`, a letter or digit first",
        )),
        _ => Ok(name),
    }
}

struct FileReader {
    variables: Variables,
    gathered: Gathered,
}

impl FileReader {
    /// All files, merged.
    fn files(&mut self, parsed: Vec<Node>) -> Result<Option<Node>> {
        let mut tree: Option<Node> = None;
        for next in parsed {
            let next = self.file(next)?;
            tree = Some(match tree {
                None => next,
                Some(base) => merge_top(base, next)?,
            });
        }
        Ok(tree)
    }

    /// One parsed file: interpolated, its `extends` carried out.
    fn file(&mut self, mut tree: Node) -> Result<Node> {
        self.interpolate(&mut tree)?;
        let original = tree.clone();
        let Value::Map(top) = &mut tree.value else { return Ok(tree) };
        if let Some(services) = top.iter_mut().find(|entry| entry.key == "services")
            && let Value::Map(services) = &mut services.value.value
        {
            for service in services {
                let name = service.key.clone();
                let node = std::mem::replace(&mut service.value, Node::null(service.at.clone()));
                service.value = self.extend(&name, node, &original, &mut Vec::new())?;
            }
        }
        Ok(tree)
    }

    fn interpolate(&mut self, tree: &mut Node) -> Result<()> {
        let Value::Map(top) = &mut tree.value else { return Ok(()) };
        for entry in top {
            if entry.key == "x-tars" || !entry.key.starts_with("x-") {
                interpolate_tree(&mut entry.value, &self.variables, &mut self.gathered)
                    .map_err(|(why, place)| ComposeError::Interpolation { why, place })?;
            }
        }
        Ok(())
    }

    /// Carries out `extends` of one service; `chain` holds the services on the way, to find a circle.
    fn extend(
        &mut self,
        name: &str,
        mut service: Node,
        tree: &Node,
        chain: &mut Vec<(PathBuf, String)>,
    ) -> Result<Node> {
        let Value::Map(keys) = &mut service.value else { return Ok(service) };
        let Some(at) = keys.iter().position(|entry| entry.key == "extends") else { return Ok(service) };
        let extends = keys.remove(at).value;
        let here = extends.at.source.path.clone();
        if chain.contains(&(here.clone(), name.to_owned())) {
            return Err(ComposeError::invalid_but(
                &extends.at,
                format!("`extends` of `{name}` goes in a circle"),
                "let one of them stand by itself",
            ));
        }
        limits::EXTENDS
            .allow(chain.len() as u64 + 1)
            .map_err(|beyond| ComposeError::invalid_but(&extends.at, beyond.to_string(), beyond.hint()))?;
        chain.push((here, name.to_owned()));
        let (file, wanted) = extends_target(&extends)?;
        let other = match &file {
            Some(file) => {
                let path = super::paths::join(extends.at.base(), file);
                let base = path.parent().map(Path::to_owned).unwrap_or_default();
                let mut other = parse(&path, &base, Some(&extends.at.place()))?;
                self.interpolate(&mut other)?;
                Some(other)
            }
            None => None,
        };
        let tree = other.as_ref().unwrap_or(tree);
        let base =
            tree.get("services").and_then(|services| services.get(&wanted)).cloned().ok_or_else(|| {
                let file = tree.at.source.path.display();
                ComposeError::invalid(
                    &extends.at,
                    format!("`extends`: there is no service `{wanted}` in {file}"),
                )
            })?;
        let base = self.extend(&wanted, base, tree, chain)?;
        merge_service(base, service)
    }
}

/// The file and the service that `extends` names.
fn extends_target(extends: &Node) -> Result<(Option<String>, String)> {
    let Value::Map(_) = &extends.value else { return Ok((None, text(extends, "extends")?)) };
    let (mut file, mut service) = (None, None);
    for entry in entries(extends, "extends")? {
        match entry.key.as_str() {
            "file" => file = Some(text(&entry.value, "extends.file")?),
            "service" => service = Some(text(&entry.value, "extends.service")?),
            other => {
                return Err(ComposeError::UnknownKey {
                    key: other.to_owned(),
                    within: "`extends`".to_owned(),
                    meant: None,
                    place: entry.at.place(),
                });
            }
        }
    }
    let service =
        service.ok_or_else(|| ComposeError::invalid(&extends.at, "`extends` names no `service`"))?;
    Ok((file, service))
}

/// Takes out what a `!reset` removed.
fn drop_resets(node: &mut Node) {
    match &mut node.value {
        Value::Map(entries) => {
            entries.retain(|entry| entry.value.directive != Directive::Reset);
            for entry in entries {
                drop_resets(&mut entry.value);
            }
        }
        Value::List(items) => {
            items.retain(|item| item.directive != Directive::Reset);
            items.iter_mut().for_each(drop_resets);
        }
        _ => {}
    }
}
