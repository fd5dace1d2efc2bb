//! The backup that precedes a migration: a dump of the database by the server's own tool, inside a container that has it,
//! streamed to this machine. [`restore`] is the way back, by hand alone.

mod account;
mod by_hand;
mod inside;
pub mod restore;
pub mod shelf;
mod step;
mod take;

use std::io;

use super::Refusal;
use super::names::backup_name;
use crate::deploy::Desired;
use crate::deploy::desired::BackupWay;
use crate::diagnose::{Diagnose, Exit};
use crate::engine::EngineError;
use crate::oci::Reference;
use crate::tars::Role;

pub(super) use step::insert;
pub use take::{Told, look, make, size};

/// The schemas of the framework's configuration, and tarsup's own.
const CONFIGURATION: [&str; 6] =
    ["db_base", "db_cache_web", "db_tars", "db_tars_web", "db_user_system", "tarsup"];
/// What it counts: huge, and made anew.
const STATISTICS: [&str; 2] = ["tars_property", "tars_stat"];

/// Where the tools are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In this container.
    Container(String),
    /// In this image: a container is made of it.
    Image(Reference),
}

impl Place {
    /// Where they are for a deployment.
    pub fn of(desired: &Desired) -> Result<Self, Refusal> {
        let policy = &desired.policy.backup;
        let database = desired.services.iter().find(|service| service.role == Some(Role::Database));
        match (policy.way, database, &policy.image) {
            (BackupWay::Container | BackupWay::None, Some(database), _) => {
                Ok(Self::Container(database.container.clone()))
            }
            (_, _, Some(image)) => Ok(Self::Image(image.clone())),
            (_, _, None) => Err(Refusal::NoBackup {
                why:
                    "no container of the deployment has the database's tools, and no image with them is named"
                        .to_owned(),
            }),
        }
    }
}

/// The schemas that are saved, by the policy.
fn schemas(desired: &Desired) -> Vec<&'static str> {
    let statistics = STATISTICS.into_iter().filter(|_| desired.policy.backup.statistics);
    CONFIGURATION.into_iter().chain(statistics).collect()
}

/// Why there is no backup, or why it is not restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The engine's answer.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Nobody knows how to log in.
    #[error("{why}")]
    Account {
        /// Why.
        why: String,
    },
    /// The container has no such tools.
    #[error("`{container}` has no tool of the database's: {said}")]
    NoTool {
        /// The container.
        container: String,
        /// Its words.
        said: String,
    },
    /// A tool failed.
    #[error("the database's tool in `{container}` ended with {code}: {}", or_nothing(said))]
    Tool {
        /// The container.
        container: String,
        /// Its exit code.
        code: i64,
        /// Its last words.
        said: String,
    },
    /// What it answered is not understood.
    #[error("the database's tool said {0:?}, which is not understood")]
    Answer(String),
    /// It ended well, and its output has no end.
    #[error("it is cut off: its last line is not the tool's own end")]
    CutOff,
    /// It cannot be written here.
    #[error("it cannot be written to {place}: {source}")]
    Write {
        /// The folder.
        place: String,
        /// Why.
        source: io::Error,
    },
    /// What is to be sent cannot be read or sent.
    #[error("it cannot be sent: {0}")]
    Source(io::Error),
    /// Told to stop.
    #[error("told to stop")]
    Interrupted,
}

impl BackupError {
    /// True where somebody changed the definition of a table while it was saved: the snapshot of a transaction does not have it then
    /// (ER_TABLE_DEF_CHANGED of MySQL and MariaDB).
    fn is_of_a_changed_table(&self) -> bool {
        matches!(self, Self::Tool { said, .. } if said.contains("1412"))
    }
}

fn or_nothing(said: &str) -> &str {
    if said.is_empty() { "it said nothing" } else { said }
}

impl Diagnose for BackupError {
    fn exit(&self) -> Exit {
        match self {
            Self::Engine(error) => error.exit(),
            Self::NoTool { .. } => Exit::Refused,
            Self::Interrupted => Exit::Interrupted,
            _ => Exit::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Engine(error) => return error.hint(),
            Self::Account { .. } => {
                "a master or slave of the file has the account, or `database: {env_file: FILE}` under `x-tars` names one"
            }
            Self::NoTool { .. } => "name an image that has it: `x-tars: {backup: {image: mariadb:10.11}}`",
            Self::Tool { said, .. } if said.contains("Access denied") => {
                "the password that the deployment declares is not the one that the database has"
            }
            Self::Write { .. } => "make room, or name another folder: `x-tars: {backup: {to: DIR}}`",
            _ => return None,
        };
        Some(hint.to_owned())
    }
}
