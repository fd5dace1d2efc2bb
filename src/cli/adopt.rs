//! `tarsup adopt`: the deployment file of containers that `docker run` or compose made.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::options::{DeploymentOptions, EngineOptions};
use super::rollout::{connect, run};
use super::{Failure, Outcome, Ui};
use crate::adopt::{Adopted, Adoption, Found};
use crate::deploy::asked::shared;
use crate::diagnose::{Diagnose, Exit, shown};
use crate::engine::Engine;

/// Write a deployment file from containers that run; nothing of them is touched
#[derive(Debug, Args)]
pub struct AdoptArgs {
    /// Names or ids of the containers: the whole deployment
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,

    /// The file to write, with secrets in files of mode 0600 beside it (default: to standard output, without them)
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    #[command(flatten)]
    engine: EngineOptions,
}

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
enum AdoptError {
    #[error("there is no container `{0}`")]
    NoContainer(String),
    #[error("`{0}` is named twice")]
    Twice(String),
    #[error("{} is there already", shown(.0))]
    Exists(PathBuf),
    #[error("cannot write {}", shown(.file))]
    Write { file: PathBuf, source: io::Error },
}

impl Diagnose for AdoptError {
    fn exit(&self) -> Exit {
        match self {
            Self::NoContainer(_) | Self::Twice(_) => Exit::Usage,
            Self::Exists(_) => Exit::Refused,
            Self::Write { .. } => Exit::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoContainer(_) => "see `docker ps --all`: a name or an id names it".to_owned(),
            Self::Twice(_) => "name each container once".to_owned(),
            Self::Exists(_) => {
                "name another file with -o, or move this one away: nothing is overwritten".to_owned()
            }
            Self::Write { .. } => "name a file in a folder that is there and can be written".to_owned(),
        })
    }
}

/// Reads the containers, and writes the file.
pub fn adopt(args: &AdoptArgs, ui: &Ui) -> Outcome {
    if let Some(file) = &args.output {
        refuse_existing(file)?;
    }
    let adoption = run(ui, async {
        let options = DeploymentOptions { engine: args.engine.clone(), ..DeploymentOptions::default() };
        let engine = connect(&options).await?;
        read(&engine, &args.containers).await
    })?;
    if let Some(file) = &args.output {
        write(file, &adoption)?;
        ui.result(&report(&adoption));
    } else {
        ui.note(&report(&adoption));
        ui.result(adoption.file.trim_end());
        if !adoption.env_files.is_empty() {
            ui.warn("the secrets are not shown: with `-o FILE` they are written beside it, with mode 0600");
        }
    }
    ui.json(&document(args.output.as_deref(), &adoption));
    Ok(Exit::Done)
}

/// Everything that is asked of the engine; each question only reads.
async fn read(engine: &dyn Engine, names: &[String]) -> Result<Adoption, Failure> {
    let mut found: Vec<Found> = Vec::new();
    let mut networks = BTreeMap::new();
    for name in names {
        let container = engine.inspect_container(name).await?;
        let container = container.ok_or_else(|| AdoptError::NoContainer(name.clone()))?;
        if found.iter().any(|known| known.container.id == container.id) {
            return Err(AdoptError::Twice(name.clone()).into());
        }
        let image = engine.inspect_image(&container.image_id).await?;
        // An engine whose host has no `ps` cannot tell.
        let processes = engine.processes(&container.id).await.unwrap_or_default();
        for network in container.addresses.keys() {
            if let Some(network) = engine.inspect_network(network).await? {
                networks.insert(network.name.clone(), network);
            }
        }
        let mut leaders = BTreeMap::new();
        for other in
            ["NetworkMode", "IpcMode", "PidMode"].iter().filter_map(|key| shared(&container.raw, key))
        {
            if let Some(leader) = engine.inspect_container(other).await? {
                leaders.insert(other.to_owned(), leader.name);
            }
        }
        found.push(Found { container, image, processes, leaders });
    }
    Ok(crate::adopt::adopt(&found, &networks)?)
}

fn refuse_existing(file: &Path) -> Result<(), AdoptError> {
    // A link that leads nowhere is there as well.
    if file.symlink_metadata().is_ok() { Err(AdoptError::Exists(file.to_owned())) } else { Ok(()) }
}

/// All or nothing: what was made is removed where a later file cannot be written.
fn write(file: &Path, adoption: &Adoption) -> Result<(), AdoptError> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let secrets = adoption.env_files.iter().map(|env| (folder.join(&env.name), env.text.expose()));
    let files: Vec<_> = secrets.chain([(file.to_owned(), adoption.file.as_str())]).collect();
    for (at, (path, text)) in files.iter().enumerate() {
        if let Err(error) = write_new(path, text) {
            for (made, _) in &files[..at] {
                let _ = std::fs::remove_file(made);
            }
            return Err(match error.kind() {
                io::ErrorKind::AlreadyExists => AdoptError::Exists(path.clone()),
                _ => AdoptError::Write { file: path.clone(), source: error },
            });
        }
    }
    Ok(())
}

/// For its owner alone: an inspect is for whoever may use the engine, and no name tells every secret.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    if written.is_err() {
        let _ = std::fs::remove_file(path);
    }
    written
}

/// What a person is told: each service with its guessed role, and what is to be known.
fn report(adoption: &Adoption) -> String {
    let mut text = format!("deployment {}\n", adoption.deployment);
    for service in &adoption.services {
        let role = service.role.map_or("no role", crate::tars::Role::name);
        let (name, why, image) = (&service.service, &service.why, &service.image);
        let _ = writeln!(text, "  {name}: {role}, because {why}; image {image}");
        for remark in concerns(service) {
            let _ = writeln!(text, "    - {remark}");
        }
    }
    for note in &adoption.notes {
        let _ = writeln!(text, "- {note}");
    }
    text += "next: look at the roles, then `tarsup plan` shows that nothing is to be done";
    text
}

fn concerns(service: &Adopted) -> Vec<String> {
    let mut all = service.remarks.clone();
    let (lost, carried): (Vec<&str>, Vec<&str>) = service
        .unsaid
        .iter()
        .map(String::as_str)
        .partition(|key| service.lost.iter().any(|lost| lost == key));
    for (keys, becomes) in [(carried, "handed on"), (lost, "lost with the first roll")] {
        if !keys.is_empty() {
            all.push(format!("cannot be said in the file, and is {becomes}: {}", keys.join(", ")));
        }
    }
    all
}

fn document(file: Option<&Path>, adoption: &Adoption) -> Value {
    let services = adoption.services.iter().map(|service| {
        json!({
            "name": service.service, "container": service.container, "id": service.id, "image": service.image,
            "role": service.role.map(crate::tars::Role::name), "why": service.why, "restart": service.restart,
            "unsaid": service.unsaid, "secrets": service.secrets, "remarks": service.remarks,
        })
    });
    json!({
        "deployment": adoption.deployment,
        "file": file,
        "text": file.is_none().then_some(&adoption.file),
        "env_files": adoption.env_files.iter().map(|env| &env.name).collect::<Vec<_>>(),
        "services": services.collect::<Vec<_>>(),
        "notes": adoption.notes,
    })
}
