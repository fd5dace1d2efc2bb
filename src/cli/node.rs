//! `tarsup node bundle`: a node for a machine without Docker.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use super::image;
use super::options::DeploymentOptions;
use super::places::Places;
use super::rollout::desired;
use super::{Outcome, Ui};
use crate::build::bundle::Bundle;
use crate::deploy::Desired;
use crate::diagnose::{Diagnose, Exit, shown};
use crate::oci::{Digest, HashingWriter};
use crate::tars::Role;
use crate::transport::ImageName;

/// Nodes outside of Docker
#[derive(Debug, Args)]
pub struct NodeArgs {
    #[command(subcommand)]
    command: NodeCommand,
}

#[derive(Debug, Subcommand)]
enum NodeCommand {
    Bundle(BundleArgs),
}

/// Write an archive that installs a node on a machine without Docker: `tar -xzf node.tgz && sh tars-node/install.sh install`
#[derive(Debug, Args)]
struct BundleArgs {
    /// The image of the node: NAME:VERSION of the local store, oci:DIR[:TAG], docker-archive:FILE or docker-daemon:REF
    /// (default: what the nodes of the deployment run, from its engine)
    image: Option<String>,

    /// A registry that the node is to know: HOST[:PORT] (default: the masters and slaves of the deployment)
    #[arg(long, value_name = "HOST[:PORT]")]
    registry: Vec<String>,

    /// The archive
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    #[command(flatten)]
    deployment: DeploymentOptions,
}

/// Why no archive was written.
#[derive(Debug, thiserror::Error)]
enum NodeError {
    #[error("the deployment `{0}` declares no node, or several with different images")]
    NoImage(String),
    #[error("the deployment `{0}` declares no registry whose address is written in it")]
    NoRegistry(String),
    #[error("{0:?} is no HOST[:PORT]")]
    Registry(String),
    #[error("cannot write {}", shown(.file))]
    Write { file: PathBuf, source: io::Error },
}

impl Diagnose for NodeError {
    fn exit(&self) -> Exit {
        if matches!(self, Self::Write { .. }) { Exit::Failed } else { Exit::Usage }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoImage(_) => "name the image: tarsup node bundle IMAGE -o FILE".to_owned(),
            Self::NoRegistry(_) => {
                "name one that the machine reaches: --registry HOST, for each master and slave".to_owned()
            }
            Self::Registry(_) => "write --registry 172.25.0.3, or 172.25.0.3:17890".to_owned(),
            Self::Write { .. } => "name a file in a folder that is there and can be written".to_owned(),
        })
    }
}

/// Dispatches.
pub fn node(args: &NodeArgs, ui: &Ui) -> Outcome {
    let NodeCommand::Bundle(args) = &args.command;
    bundle(args, ui)
}

fn bundle(args: &BundleArgs, ui: &Ui) -> Outcome {
    let is_declared = args.image.is_none() || args.registry.is_empty();
    let declared = is_declared.then(|| desired(&args.deployment, ui)).transpose()?;
    let name: ImageName = match (&args.image, &declared) {
        (None, Some(declared)) => image_of(declared)?,
        (image, _) => image.as_deref().unwrap_or_default().parse()?,
    };
    let registries = match &declared {
        Some(declared) if args.registry.is_empty() => registries_of(declared)?,
        _ => args.registry.iter().map(|registry| endpoint(registry)).collect::<Result<Vec<_>, _>>()?,
    };
    let registries = registries.join(":");
    let image = image::read(&name, &Places::of_engine(&args.deployment.engine), ui)?;
    let bundle = Bundle::of(&image, &name.to_string(), &registries)?;
    let (digest, size) = write(&bundle, &args.output)
        .map_err(|source| NodeError::Write { file: args.output.clone(), source })?;
    ui.result(&format!(
        "{}: TARS {}, {}, registries {registries}\non the machine: tar -xzf {} && sh tars-node/install.sh install",
        shown(&args.output),
        bundle.version,
        image::bytes(size),
        shown(&args.output.file_name().map_or(Path::new("node.tgz"), Path::new)),
    ));
    ui.json(&json!({
        "file": args.output, "digest": digest, "size": size, "version": bundle.version, "registries": registries,
    }));
    Ok(Exit::Done)
}

/// What the nodes run, where all run the same.
fn image_of(desired: &Desired) -> Result<ImageName, NodeError> {
    let nodes = desired.services.iter().filter(|service| service.role == Some(Role::Node));
    let images: BTreeSet<String> = nodes.map(|service| service.image.to_string()).collect();
    match Vec::from_iter(images).as_slice() {
        [image] => format!("docker-daemon:{image}")
            .parse()
            .map_err(|_| NodeError::NoImage(desired.deployment.clone())),
        _ => Err(NodeError::NoImage(desired.deployment.clone())),
    }
}

/// Masters first: by the name that they bear in the database.
fn registries_of(desired: &Desired) -> Result<Vec<String>, NodeError> {
    let of = |role| desired.services.iter().filter(move |service| service.role == Some(role));
    let registries: Vec<String> = of(Role::Master)
        .chain(of(Role::Slave))
        .filter_map(|service| {
            let domain = service.declaration.environment.filled("DOMAIN");
            let domain = domain.map(|domain| domain.expose().to_owned());
            let fixed = service.declaration.endpoints.iter().find_map(|endpoint| endpoint.ipv4.clone());
            domain.or(fixed)
        })
        .map(|host| format!("tcp -h {host} -p 17890"))
        .collect();
    if registries.is_empty() {
        Err(NodeError::NoRegistry(desired.deployment.clone()))
    } else {
        Ok(registries)
    }
}

fn endpoint(registry: &str) -> Result<String, NodeError> {
    let bad = || NodeError::Registry(registry.to_owned());
    let (host, port) = registry.split_once(':').unwrap_or((registry, "17890"));
    let is_host = |host: &str| {
        !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
    };
    let port: u16 = port.parse().map_err(|_| bad())?;
    if !is_host(host) || port == 0 {
        return Err(bad());
    }
    Ok(format!("tcp -h {host} -p {port}"))
}

/// Beside its place, then into it: the file shows the old archive or the whole new one.
fn write(bundle: &Bundle, file: &Path) -> io::Result<(Digest, u64)> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let beside = tempfile::Builder::new().prefix(".tarsup").permissions(readable()).tempfile_in(folder)?;
    let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let mut out = HashingWriter::new(io::BufWriter::new(beside.as_file()));
    bundle.write(&mut out, threads)?;
    let (mut buffer, digest, size) = out.finish();
    buffer.flush()?;
    drop(buffer);
    beside.as_file().sync_all()?;
    beside.persist(file).map_err(|error| error.error)?;
    Ok((digest, size))
}

fn readable() -> std::fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o644)
}
