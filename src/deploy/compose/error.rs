//! Why a deployment cannot be read: each a sentence with file and line, and what to do.

use std::path::PathBuf;

use crate::deploy::interpolate::InterpolationError;
use crate::diagnose::{Diagnose, Exit, Place};
use crate::yaml::{At, YamlError};

/// Why compose files do not give a desired state.
#[derive(Debug, thiserror::Error)]
pub enum ComposeError {
    /// None was named and none of the usual names is there.
    #[error("no compose file in {}", directory.display())]
    NoFile {
        /// Where it was looked for, and above.
        directory: PathBuf,
    },
    /// A file that cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Where it is named, if another file names it.
        named: Option<Place>,
        /// The operating system's words.
        source: std::io::Error,
    },
    /// A file that is not YAML.
    #[error(transparent)]
    Yaml(#[from] YamlError),
    /// A `.env` or `env_file` that cannot be understood.
    #[error("{what}")]
    DotEnv {
        /// What is wrong.
        what: String,
        /// The line.
        place: Place,
    },
    /// A text that cannot be interpolated.
    #[error("{source}")]
    Interpolation {
        /// What is wrong.
        source: InterpolationError,
        /// The line.
        place: Place,
    },
    /// A key that compose does not know.
    #[error("compose knows no key `{key}` in {within}")]
    UnknownKey {
        /// The key.
        key: String,
        /// What it stands in.
        within: String,
        /// A known key that looks like it.
        meant: Option<String>,
        /// The line.
        place: Place,
    },
    /// A key that compose knows and tarsup does not carry out.
    #[error("tarsup does not carry out `{key}` in {within}")]
    NotCarriedOut {
        /// The key.
        key: String,
        /// What it stands in.
        within: String,
        /// What to do instead.
        instead: String,
        /// The line.
        place: Place,
    },
    /// A value that is not what the key takes, or that contradicts another.
    #[error("{what}")]
    Invalid {
        /// What is wrong.
        what: String,
        /// What to do.
        hint: Option<String>,
        /// The line.
        place: Place,
    },
}

impl ComposeError {
    /// A value that is not what the key takes.
    pub(crate) fn invalid(at: &At, what: impl Into<String>) -> Self {
        Self::Invalid { what: what.into(), hint: None, place: at.place() }
    }

    /// The same, with what to do about it.
    pub(crate) fn invalid_but(at: &At, what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Invalid { what: what.into(), hint: Some(hint.into()), place: at.place() }
    }
}

impl Diagnose for ComposeError {
    fn exit(&self) -> Exit {
        Exit::Usage
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NoFile { .. } => {
                Some("name it with -f, or go to the folder that holds compose.yaml".to_owned())
            }
            Self::Read { source, .. } => Some(match source.kind() {
                std::io::ErrorKind::NotFound => "write it, or correct the name".to_owned(),
                _ => format!("make it readable: {source}"),
            }),
            Self::Yaml(_) => Some("correct the YAML; nothing was changed".to_owned()),
            Self::DotEnv { .. } => Some("write `NAME=value`, with quotes around what is special".to_owned()),
            Self::Interpolation { source, .. } => Some(match source {
                InterpolationError::Malformed(_) => "write `$$` for a dollar sign, or `${NAME}`".to_owned(),
                InterpolationError::Required { variable, .. } => {
                    format!("set `{variable}` in .env or in the shell")
                }
            }),
            Self::UnknownKey { meant: Some(meant), .. } => Some(format!("did you mean `{meant}`?")),
            Self::UnknownKey { .. } => {
                Some("remove it, or begin it with `x-` if it is for another tool".to_owned())
            }
            Self::NotCarriedOut { instead, .. } => Some(instead.clone()),
            Self::Invalid { hint, .. } => hint.clone(),
        }
    }

    fn place(&self) -> Option<Place> {
        match self {
            Self::NoFile { .. } => None,
            Self::Read { path, named, .. } => Some(named.clone().unwrap_or_else(|| Place::file(path))),
            Self::Yaml(error) => Some(error.place.clone()),
            Self::DotEnv { place, .. }
            | Self::Interpolation { place, .. }
            | Self::UnknownKey { place, .. }
            | Self::NotCarriedOut { place, .. }
            | Self::Invalid { place, .. } => Some(place.clone()),
        }
    }
}

/// The result of reading a part of a compose file.
pub type Result<T> = std::result::Result<T, ComposeError>;
