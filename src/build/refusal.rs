//! Why a recipe cannot be used: the file, the line and what to do.

use std::path::PathBuf;

use crate::diagnose::{Diagnose, Exit, Place, shown};

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
    let value: String = value.chars().take(200).collect();
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
