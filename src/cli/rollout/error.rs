//! Why a command that changes containers cannot be carried out, beyond what the plan refuses.

use std::io;

use crate::diagnose::{Diagnose, Exit};

/// Why a command cannot be carried out, beyond what the plan refuses.
#[derive(Debug, thiserror::Error)]
pub(super) enum RolloutError {
    #[error("no service of the deployment runs an image of the repository `{repository}`")]
    NoSuchRepository { repository: String },
    #[error("no service `{service}` is declared")]
    NoSuchService { service: String },
    #[error("`{service}` is the database, and an upgrade never replaces it")]
    IsDatabase { service: String },
    #[error("`{version}` is no tag")]
    NoTag { version: String },
    #[error("the runtime cannot be started")]
    Runtime(#[source] io::Error),
}

impl Diagnose for RolloutError {
    fn exit(&self) -> Exit {
        match self {
            Self::NoSuchRepository { .. }
            | Self::NoSuchService { .. }
            | Self::IsDatabase { .. }
            | Self::NoTag { .. } => Exit::Usage,
            Self::Runtime(_) => Exit::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NoSuchRepository { .. } => {
                Some("change `image:` in the file, then run `tarsup up`".to_owned())
            }
            Self::NoSuchService { .. } => {
                Some("write --image SERVICE=REF with a key under `services` of the file".to_owned())
            }
            Self::IsDatabase { .. } => {
                Some("move a database to another server by its own means, with a backup".to_owned())
            }
            Self::NoTag { .. } => {
                Some("a tag is letters, digits, `_`, `.` and `-`, such as 3.0.17".to_owned())
            }
            Self::Runtime(_) => None,
        }
    }
}
