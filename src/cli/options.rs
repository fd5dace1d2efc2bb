//! Options that several command families share: which engine, which deployment.

use std::path::PathBuf;

use clap::Args;

use crate::diagnose::{Diagnose, Exit};
use crate::oci::{Config, Platform, platform};
use crate::transport::ImageName;
use crate::transport::registry::Mirror;

/// Which engine: `-H`, `--context`, and the environment as docker reads it.
#[derive(Clone, Debug, Default, Args)]
pub struct EngineOptions {
    /// The engine's address, such as unix:///var/run/docker.sock (default: `DOCKER_HOST`, then the docker context)
    #[arg(short = 'H', long = "host", value_name = "ADDRESS")]
    pub host: Option<String>,

    /// The docker context to use (default: `DOCKER_CONTEXT`, then the current one)
    #[arg(long, value_name = "NAME", conflicts_with = "host")]
    pub context: Option<String>,
}

/// Where images are: which engine, and how registries are spoken to.
#[derive(Clone, Debug, Default, Args)]
pub struct ImageOptions {
    /// The engine
    #[command(flatten)]
    pub engine: EngineOptions,

    /// A registry that need not speak TLS, HOST or HOST:PORT; one of this machine never needs to
    #[arg(
        long = "insecure-registry",
        value_name = "HOST",
        env = "TARSUP_INSECURE_REGISTRIES",
        value_delimiter = ','
    )]
    pub insecure_registries: Vec<String>,

    /// What is read of a registry is asked for at its mirror first, REGISTRY=MIRROR[/PREFIX]; nothing is written there
    #[arg(
        long = "registry-mirror",
        value_name = "REGISTRY=MIRROR",
        env = "TARSUP_REGISTRY_MIRRORS",
        value_delimiter = ','
    )]
    pub registry_mirrors: Vec<Mirror>,
}

/// Which platform, of an image that there is for several.
#[derive(Clone, Debug, Default, Args)]
pub struct PlatformOptions {
    /// Of an image for several platforms that one; whatever the image, it must be for this platform (default: this machine's, where there is a choice)
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Vec<String>,
}

/// Why `--platform` cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
    /// What is asked for is not one platform that tarsup knows.
    #[error("`--platform {0}`: not yet possible")]
    Asked(String),
    /// The image is made for another one.
    #[error("{name} is for {found}, and `--platform` asks for {wanted}")]
    Other {
        /// The image.
        name: String,
        /// Its platform.
        found: String,
        /// What was asked for.
        wanted: String,
    },
}

impl Diagnose for PlatformError {
    fn exit(&self) -> Exit {
        Exit::Usage
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Asked(_) => {
                "name one: linux/ARCH[/VARIANT], such as linux/amd64, linux/arm64 or linux/arm/v7".to_owned()
            }
            Self::Other { found, .. } => format!("there is {found} alone: name that, or another image"),
        })
    }
}

impl PlatformOptions {
    /// What these texts ask for.
    pub fn of(platform: &[String]) -> Self {
        Self { platform: platform.to_vec() }
    }

    /// The platform that is asked for, where one is.
    ///
    /// # Errors
    /// Several, or another system than linux.
    pub fn asked(&self) -> Result<Option<Platform>, PlatformError> {
        match self.platform.as_slice() {
            [] => Ok(None),
            [one] => one.parse().map(Some).map_err(|_| PlatformError::Asked(one.clone())),
            several => Err(PlatformError::Asked(several.join(","))),
        }
    }

    /// Sees whether an image is for the platform that is asked for.
    ///
    /// # Errors
    /// It is for another one.
    pub fn check(&self, name: &ImageName, config: &Config) -> Result<(), PlatformError> {
        let Some(wanted) = self.asked()? else { return Ok(()) };
        let variant = config.variant.as_deref();
        if wanted.is_that_of(&config.os, &config.architecture, variant) {
            return Ok(());
        }
        let found = platform::shown(&config.os, &config.architecture, variant);
        Err(PlatformError::Other { name: name.to_string(), found, wanted: wanted.to_string() })
    }
}

/// Which deployment: `-f`, `-p`, and which engine it runs on.
#[derive(Clone, Debug, Default, Args)]
pub struct DeploymentOptions {
    /// A compose file; several are merged in order (default: what docker compose would take)
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    pub files: Vec<PathBuf>,

    /// The deployment's name (default: compose's project name)
    #[arg(short = 'p', long = "project-name", value_name = "NAME")]
    pub project: Option<String>,

    /// The engine it runs on
    #[command(flatten)]
    pub engine: EngineOptions,
}

/// Which deployment is changed, and whether somebody is asked before.
#[derive(Clone, Debug, Default, Args)]
pub struct ConfirmOptions {
    /// The deployment
    #[command(flatten)]
    pub deployment: DeploymentOptions,

    /// Show what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

/// What may not happen unless it is said.
#[derive(Clone, Debug, Default, Args)]
pub struct AcceptOptions {
    /// Let this service look for its data elsewhere from now on; what is where it lies now stays behind
    #[arg(long, value_name = "SERVICE")]
    pub accept_data_move: Vec<String>,

    /// Migrate the database without a backup: there is another one
    #[arg(long)]
    pub no_backup: bool,
}
