//! The recipe as it is written: its keys, and the values that YAML may have for them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::ontop::Limits;
use super::plain::{self, Misfit};
use super::recipe::ImageRole;
use crate::yaml;

/// The file as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RecipeFile {
    pub name: String,
    pub version: Option<String>,
    pub role: ImageRole,
    pub base: String,
    #[serde(default)]
    pub packages: Vec<String>,
    pub deploy: Option<PathBuf>,
    pub web: Option<PathBuf>,
    pub init: Option<PathBuf>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub relayer: Limits,
    #[serde(default)]
    pub waive: Vec<String>,
    #[serde(default)]
    pub versions: BTreeMap<String, String>,
    pub entrypoint: Option<StartCommand>,
    pub cmd: Option<StartCommand>,
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    pub user: Option<String>,
    pub workdir: Option<String>,
    #[serde(default)]
    pub ports: Vec<String>,
    #[serde(default)]
    pub volumes: Vec<String>,
    pub stop_signal: Option<String>,
    pub healthcheck: Option<HealthcheckRecipe>,
    #[serde(default)]
    pub files: BTreeMap<String, Placement>,
    #[serde(default)]
    pub privileges: BTreeMap<String, WrittenPrivileges>,
}

/// What a file keeps.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenPrivileges {
    #[serde(default)]
    pub mode: Option<String>,
    #[serde(default)]
    pub capabilities: Option<String>,
}

/// Where a file goes: a path, or a path with a mode and capabilities.
#[derive(Debug)]
pub(super) enum Placement {
    Path(String),
    Full(FullPlacement),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FullPlacement {
    pub path: String,
    #[serde(default)]
    pub mode: Option<String>,
    #[serde(default)]
    pub capabilities: Option<String>,
}

/// By hand: a choice that serde derives forgets where a wrong key stands, and takes unknown ones.
impl<'de> Deserialize<'de> for Placement {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reading;
        impl<'de> Visitor<'de> for Reading {
            type Value = Placement;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "neither a path in the image nor a mapping with `path`, `mode` and `capabilities`",
                )
            }

            fn visit_str<E: de::Error>(self, path: &str) -> Result<Placement, E> {
                Ok(Placement::Path(path.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Placement, A::Error> {
                FullPlacement::deserialize(MapAccessDeserializer::new(map)).map(Placement::Full)
            }
        }
        deserializer.deserialize_any(Reading)
    }
}

/// How to ask for health, as compose writes it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthcheckRecipe {
    /// A program with arguments, or a line for the shell.
    pub test: StartCommand,
    /// Between two checks.
    #[serde(default, deserialize_with = "duration")]
    pub interval: Option<Duration>,
    /// For one check.
    #[serde(default, deserialize_with = "duration")]
    pub timeout: Option<Duration>,
    /// Before failures count.
    #[serde(default, deserialize_with = "duration")]
    pub start_period: Option<Duration>,
    /// Between two checks before the first success or the end of `start_period`; engines before Docker 25 do not know it.
    #[serde(default, deserialize_with = "duration")]
    pub start_interval: Option<Duration>,
    /// Failures in a row.
    pub retries: Option<u32>,
}

/// A program with its arguments, or a line for the shell.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "neither a list of words nor a line for the shell")]
pub enum StartCommand {
    /// Program and arguments.
    Words(Vec<String>),
    /// A line for `/bin/sh -c`.
    Line(String),
}

/// The first value that no engine takes.
pub(super) fn misfit(written: &RecipeFile) -> Option<Misfit> {
    let words = |key, command: &Option<StartCommand>| {
        let words = command.clone().map(StartCommand::into_words).unwrap_or_default();
        words.iter().find_map(|word| plain::text(key, word))
    };
    let volume = |(index, path): (usize, &String)| {
        plain::path("volumes", path).map(|misfit| Misfit { index: Some(index), ..misfit })
    };
    let test = written.healthcheck.as_ref().map(|check| &check.test);
    let mut found = written.env.iter().find_map(|(name, value)| plain::variable(name, value));
    found = found.or_else(|| written.labels.iter().find_map(|(name, value)| plain::label(name, value)));
    found = found.or_else(|| written.volumes.iter().enumerate().find_map(volume));
    found = found.or_else(|| written.workdir.as_ref().and_then(|path| plain::path("workdir", path)));
    found = found.or_else(|| written.user.as_ref().and_then(|user| plain::text("user", user)));
    found = found.or_else(|| words("entrypoint", &written.entrypoint));
    found = found.or_else(|| words("cmd", &written.cmd));
    found = found.or_else(|| written.stop_signal.as_ref().and_then(|signal| plain::signal(signal)));
    found.or_else(|| test.and_then(plain::test))
}

impl StartCommand {
    /// As an entrypoint or command of an image: a line becomes `/bin/sh -c LINE`.
    pub fn into_words(self) -> Vec<String> {
        match self {
            Self::Words(words) => words,
            Self::Line(line) => vec!["/bin/sh".to_owned(), "-c".to_owned(), line],
        }
    }
}

/// `10s`, `1m30s`, `500ms`: of what compose takes, whole hours, minutes, seconds and milliseconds, with their unit.
fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let is_plain = text != "0" && text.bytes().all(|byte| byte.is_ascii_digit() || b"hms".contains(&byte));
    match yaml::duration::parse(&text).filter(|_| is_plain) {
        Some(read) => Ok(Some(read)),
        None => Err(serde::de::Error::custom(format!("`{text}` is not a duration such as 10s or 1m30s"))),
    }
}
