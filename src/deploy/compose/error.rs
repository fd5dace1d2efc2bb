//! Why a deployment cannot be read: each a sentence with file and line, and what to do.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::deploy::interpolate::InterpolationError;
use crate::diagnose::{Diagnose, Exit, Place};
use crate::secretive::Secretive;
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
    #[error("{why}")]
    Interpolation {
        /// What is wrong.
        why: InterpolationError,
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

/// Shorter values would blot out half of every text, and keep no secret.
const SHORTEST: usize = 3;
/// From this length on a value is taken out wherever it stands, not only as a word of its own.
const TELLING: usize = 6;

/// The text with `${NAME}` in the place of each value: it came from the surroundings, where passwords are.
fn without(text: &str, values: &[(&String, &Secretive)]) -> String {
    let mut text = text.to_owned();
    for (name, value) in values {
        let mut found = 0;
        while let Some(at) = text[found..].find(value.expose()).map(|at| at + found) {
            let end = at + value.len();
            let inner =
                text[..at].ends_with(char::is_alphanumeric) || text[end..].starts_with(char::is_alphanumeric);
            // What has been put in is not looked at again.
            let named = text[..at].ends_with("${") && text[end..].starts_with('}');
            if named || (inner && value.len() < TELLING) {
                found = end;
            } else {
                let shown = format!("${{{name}}}");
                text.replace_range(at..end, &shown);
                found = at + shown.len();
            }
        }
    }
    text
}

impl ComposeError {
    /// The same without the values of variables: what was interpolated into the files is shown by its name.
    pub(super) fn without_values(mut self, values: &BTreeMap<String, Secretive>) -> Self {
        let mut values: Vec<(&String, &Secretive)> =
            values.iter().filter(|(_, value)| value.len() >= SHORTEST).collect();
        values.sort_by_key(|(_, value)| std::cmp::Reverse(value.len()));
        let hide = |text: &mut String| *text = without(text, &values);
        match &mut self {
            // An interpolation that fails quotes the file alone.
            Self::NoFile { .. } | Self::DotEnv { .. } | Self::Yaml(_) | Self::Interpolation { .. } => {}
            Self::Read { path, .. } => *path = without(&path.to_string_lossy(), &values).into(),
            Self::UnknownKey { key, within, .. } => [key, within].into_iter().for_each(hide),
            Self::NotCarriedOut { key, within, instead, .. } => {
                [key, within, instead].into_iter().for_each(hide);
            }
            Self::Invalid { what, hint, .. } => std::iter::once(what).chain(hint).for_each(hide),
        }
        self
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
            Self::Yaml(YamlError { hint: Some(hint), .. }) => Some(hint.clone()),
            Self::Yaml(_) => Some("correct the YAML; nothing was changed".to_owned()),
            Self::DotEnv { .. } => Some("write `NAME=value`, with quotes around what is special".to_owned()),
            Self::Interpolation { why, .. } => Some(match why {
                InterpolationError::Malformed => "write `$$` for a dollar sign, or `${NAME}`".to_owned(),
                InterpolationError::Required { variable, .. } => {
                    format!("set `{variable}` in .env or in the shell")
                }
                InterpolationError::Beyond(beyond) => beyond.hint(),
            }),
            Self::UnknownKey { meant: Some(meant), .. } => Some(format!("did you mean `{meant}`?")),
            Self::UnknownKey { .. } => {
                Some("remove it, or begin it with `x-` if it is for another tool".to_owned())
            }
            Self::NotCarriedOut { instead, .. } => Some(instead.clone()),
            Self::Invalid { hint, .. } => Some(
                hint.clone().unwrap_or_else(|| "correct it where it stands; nothing was changed".to_owned()),
            ),
        }
    }

    fn quotes_its_line(&self) -> bool {
        !matches!(self, Self::DotEnv { .. })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_by_the_names_of_their_variables() {
        let (name, value) = ("PW".to_owned(), Secretive::from("secret-1"));
        let (short, word) = ("TAG".to_owned(), Secretive::from("tars"));
        let values = [(&name, &value), (&short, &word)];
        for (text, shown) in [
            ("`secret-1` is no port", "`${PW}` is no port"),
            ("asecret-1b and secret-1secret-1", "a${PW}b and ${PW}${PW}"),
            ("tarsup and `tars`", "tarsup and `${TAG}`"),
            ("nothing", "nothing"),
        ] {
            assert_eq!(without(text, &values), shown);
        }
        let itself = Secretive::from("PW");
        assert_eq!(without("PWPWPW PW", &[(&name, &itself)]), "PWPWPW ${PW}");
    }
}
