//! The compose loader: files → one tree → the desired state, in the Docker API's own words.
//!
//! The rule of this module: what compose would do, or an error with file and line. Nothing is ignored in silence.
//! `files` and `merge` give one tree, `service` and `resource` read it, `check` looks across services.

mod body;
mod check;
mod endpoint;
mod environment;
mod error;
mod files;
mod merge;
mod mounts;
mod namespaces;
mod paths;
mod ports;
mod resource;
mod service;
mod value;

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use error::ComposeError;
use error::Result;
use value::{Handling, check_keys, entries, integer};

use super::desired::{BackupPolicy, DatabaseAccount, Desired, DrainPolicy, Policy};
use crate::engine::{Environment, Variable};
use crate::secretive::Secretive;
use crate::yaml::Node;

/// What to load, and from which surroundings.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// The files of `-f`, in order; empty: what compose would take.
    pub files: Vec<PathBuf>,
    /// The name of `-p`.
    pub project: Option<String>,
    /// The folder that the command runs in.
    pub directory: PathBuf,
    /// The environment of the command: it wins over `.env`.
    pub environment: BTreeMap<String, Secretive>,
}

impl LoadOptions {
    /// The process's own folder and environment. Variables that are no text are left out, as they cannot be interpolated.
    pub fn from_process(files: Vec<PathBuf>, project: Option<String>) -> Self {
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| {
                let name = name.into_string().ok()?;
                let value = Secretive::new(&name, value.into_string().ok()?);
                Some((name, value))
            })
            .collect();
        Self { files, project, directory: PathBuf::from("."), environment }
    }
}

const TOP: &value::Keys = &[
    ("version", Handling::Done),
    ("name", Handling::Done),
    ("services", Handling::Done),
    ("networks", Handling::Done),
    ("volumes", Handling::Done),
    ("x-tars", Handling::Done),
    ("include", Handling::Not("name the files with -f instead")),
    ("secrets", Handling::Not(service::NO_SECRETS)),
    ("configs", Handling::Not("bind-mount the file under `volumes` of the service instead")),
    ("models", Handling::Not("remove it")),
];

/// The folder of a deployment, found without reading its files: its history can be told when they are broken.
pub fn directory(options: &LoadOptions) -> Result<PathBuf> {
    files::discover(options).map(|files| files::folder_of(&files))
}

/// Loads a deployment. What it refuses it shows without the values of variables.
pub fn load(options: &LoadOptions) -> Result<Desired> {
    let mut known = BTreeMap::new();
    desired(options, &mut known).map_err(|error| error.without_values(&known))
}

fn desired(options: &LoadOptions, known: &mut BTreeMap<String, Secretive>) -> Result<Desired> {
    let files::Merged { files, directory, deployment, variables, tree, mut notes } =
        files::read(options, known)?;
    check_keys(&tree, "a compose file", TOP)?;
    let declared = tree.get("services").map_or(Ok(&[][..]), |node| entries(node, "services"))?;
    if declared.is_empty() {
        return Err(ComposeError::invalid_but(
            &tree.at,
            "no service is declared",
            "declare one under `services`",
        ));
    }
    let resources = resource::Resources::read(&deployment, &tree, &variables)?;
    let containers =
        declared.iter().map(|entry| Ok((entry.key.clone(), service::container(&deployment, entry)?)));
    let containers = containers.collect::<Result<BTreeMap<_, _>>>()?;
    let context = service::Context {
        deployment: &deployment,
        variables: &variables,
        resources: &resources,
        containers: &containers,
    };
    let services =
        declared.iter().map(|entry| service::service(&context, entry)).collect::<Result<Vec<_>>>()?;
    let policy = tree.get("x-tars").map_or(Ok(Policy::default()), policy)?;
    let database = tree.get("x-tars").map_or(Ok(None), |node| database(node, &variables))?;
    check::across(&services, &resources, &tree, &mut notes)?;
    let (networks, volumes) = resources.used(&services);
    Ok(Desired { deployment, files, directory, services, networks, volumes, policy, database, notes })
}

const POLICY: &value::Keys = &[
    ("batch", Handling::Done),
    ("gate_timeout", Handling::Done),
    ("dwell", Handling::Done),
    ("services_timeout", Handling::Done),
    ("drain", Handling::Done),
    ("client_refresh", Handling::Done),
    ("drain_timeout", Handling::Done),
    ("keep_parked", Handling::Done),
    ("keep_images", Handling::Done),
    ("backup", Handling::Done),
    ("database", Handling::Done),
];

const BACKUP: &value::Keys = &[
    ("to", Handling::Done),
    ("image", Handling::Done),
    ("keep", Handling::Done),
    ("statistics", Handling::Done),
];

const DATABASE: &value::Keys = &[("env_file", Handling::Done)];

/// `database` of the top-level `x-tars`.
fn database(x_tars: &Node, variables: &super::interpolate::Variables) -> Result<Option<DatabaseAccount>> {
    let Some(node) = x_tars.get("database") else { return Ok(None) };
    check_own_keys(node, "`database` of `x-tars`", DATABASE)?;
    let environment = environment::environment(node, variables)?;
    let given = environment
        .into_iter()
        .filter_map(|(name, setting)| Some(Variable { name, value: Some(setting?.value) }));
    let account = DatabaseAccount(Environment(given.collect()));
    if account.0.value("MYSQL_HOST").is_none() {
        let what = "`database` names no account: its `env_file` must set MYSQL_HOST and MYSQL_ROOT_PASSWORD";
        return Err(ComposeError::invalid(&node.at, what));
    }
    Ok(Some(account))
}

/// The top-level `x-tars`.
fn policy(node: &Node) -> Result<Policy> {
    check_own_keys(node, "the top-level `x-tars`", POLICY)?;
    let mut policy = Policy::default();
    for entry in entries(node, "x-tars")? {
        let (key, value) = (entry.key.as_str(), &entry.value);
        let at_least = |least: i64| at_least(value, key, least);
        match key {
            "batch" => policy.batch = Some(at_least(1)?),
            "gate_timeout" => policy.gate_timeout = value::duration(value, key)?,
            "dwell" => policy.dwell = value::duration(value, key)?,
            "services_timeout" => policy.services_timeout = value::duration(value, key)?,
            "client_refresh" => policy.client_refresh = value::duration(value, key)?,
            "drain_timeout" => policy.drain_timeout = value::duration(value, key)?,
            "drain" => {
                policy.drain = match value.rendered().as_ref().map(Secretive::expose) {
                    Some("auto") => DrainPolicy::Auto,
                    Some("off") => DrainPolicy::Off,
                    _ => return Err(ComposeError::invalid(&value.at, "`drain` is `auto` or `off`")),
                }
            }
            "keep_parked" => policy.keep_parked = at_least(1)?,
            "keep_images" => policy.keep_images = at_least(1)?,
            "backup" => policy.backup = backup(value)?,
            _ => {}
        }
    }
    if policy.gate_timeout.is_zero() {
        return Err(ComposeError::invalid(
            &node.at,
            "`gate_timeout` of zero lets no container become healthy",
        ));
    }
    Ok(policy)
}

fn at_least(value: &Node, key: &str, least: i64) -> Result<usize> {
    let number = integer(value, key)?;
    let wrong = || ComposeError::invalid(&value.at, format!("`{key}` is at least {least}"));
    usize::try_from(number).ok().filter(|_| number >= least).ok_or_else(wrong)
}

/// `backup` of the top-level `x-tars`.
fn backup(node: &Node) -> Result<BackupPolicy> {
    check_own_keys(node, "`backup` of `x-tars`", BACKUP)?;
    let mut policy = BackupPolicy::default();
    for entry in entries(node, "backup")? {
        let (key, value) = (entry.key.as_str(), &entry.value);
        match key {
            "to" => policy.to = Some(value::text(value, key)?).filter(|to| !to.is_empty()).map(PathBuf::from),
            "image" => {
                let image = value::text(value, key)?.parse();
                policy.image = Some(image.map_err(|error: crate::oci::reference::InvalidReference| {
                    ComposeError::invalid(&value.at, error.to_string())
                })?);
            }
            "keep" => policy.keep = at_least(value, key, 1)?,
            "statistics" => policy.statistics = value::boolean(value, key)?,
            _ => {}
        }
    }
    Ok(policy)
}

/// As `check_keys`, where even `x-` keys are ours and must be known.
fn check_own_keys(node: &Node, within: &str, keys: &value::Keys) -> Result<()> {
    check_keys(node, within, keys)?;
    match entries(node, within)?.iter().find(|entry| entry.key.starts_with("x-")) {
        Some(entry) => Err(ComposeError::UnknownKey {
            key: entry.key.clone(),
            within: within.to_owned(),
            meant: None,
            place: entry.at.place(),
        }),
        None => Ok(()),
    }
}
