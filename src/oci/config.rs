//! The image config (image-spec, config.md) with docker's health check, in one order of keys: same image, same bytes.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Digest;

/// The config of an image: what an engine calls the image is the digest of these bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// When it was made, RFC 3339.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub created: String,
    /// `amd64`, `arm64`, ... in Go's words.
    pub architecture: String,
    /// `linux`.
    pub os: String,
    /// The platform's variant, such as `v8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// What a container of it starts with.
    #[serde(default)]
    pub config: Run,
    /// The layers, uncompressed.
    pub rootfs: RootFs,
    /// One entry a layer, and further ones that are `empty_layer`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
}

/// What a container starts with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Run {
    /// User, or user and group; empty is root.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// `port/tcp` → `{}`.
    #[serde(skip_serializing_if = "nothing", with = "set")]
    pub exposed_ports: BTreeSet<String>,
    /// `NAME=value`.
    #[serde(skip_serializing_if = "nothing", deserialize_with = "null_is_default")]
    pub env: Vec<String>,
    /// The program, and arguments that stay.
    #[serde(skip_serializing_if = "nothing", deserialize_with = "null_is_default")]
    pub entrypoint: Vec<String>,
    /// Arguments that a `docker run` may replace.
    #[serde(skip_serializing_if = "nothing", deserialize_with = "null_is_default")]
    pub cmd: Vec<String>,
    /// Path → `{}`.
    #[serde(skip_serializing_if = "nothing", with = "set")]
    pub volumes: BTreeSet<String>,
    /// The working directory.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Labels.
    #[serde(skip_serializing_if = "nothing", deserialize_with = "null_is_default")]
    pub labels: BTreeMap<String, String>,
    /// The signal that stops it, such as `SIGTERM`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// Docker's extension; the OCI specification reserves its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
}

/// How an engine asks a container for its health. Durations are nanoseconds, as docker writes them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `["CMD", program, ...]`, `["CMD-SHELL", line]` or `["NONE"]`.
    pub test: Vec<String>,
    /// Between two checks, in nanoseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub interval: u64,
    /// For one check, in nanoseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: u64,
    /// Before failures count, in nanoseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_period: u64,
    /// Between two checks in that time, in nanoseconds (API 1.44, Docker 25).
    #[serde(skip_serializing_if = "is_zero")]
    pub start_interval: u64,
    /// How many failures in a row make it unhealthy.
    #[serde(skip_serializing_if = "is_zero_u32")]
    pub retries: u32,
}

/// The layers of an image, uncompressed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The diff ids, the base first.
    pub diff_ids: Vec<Digest>,
}

impl Default for RootFs {
    fn default() -> Self {
        Self { kind: "layers".to_owned(), diff_ids: Vec::new() }
    }
}

/// How a layer came to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// When, RFC 3339.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub created: String,
    /// By which command.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    /// What its maker has to say of it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// True where it made no layer.
    #[serde(skip_serializing_if = "is_false")]
    pub empty_layer: bool,
}

/// Collections that are left out where they hold nothing.
trait Holds {
    fn holds_nothing(&self) -> bool;
}

impl<T> Holds for Vec<T> {
    fn holds_nothing(&self) -> bool {
        self.is_empty()
    }
}

impl<K, V> Holds for BTreeMap<K, V> {
    fn holds_nothing(&self) -> bool {
        self.is_empty()
    }
}

impl<T> Holds for BTreeSet<T> {
    fn holds_nothing(&self) -> bool {
        self.is_empty()
    }
}

/// A set, as the specification writes it: an object whose values are `{}`.
mod set {
    use std::collections::BTreeSet;

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(set: &BTreeSet<String>, out: S) -> Result<S::Ok, S::Error> {
        out.collect_map(set.iter().map(|key| (key, serde_json::Map::new())))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<BTreeSet<String>, D::Error> {
        let map: Option<serde_json::Map<String, serde_json::Value>> = Option::deserialize(input)?;
        Ok(map.unwrap_or_default().into_iter().map(|(key, _)| key).collect())
    }
}

fn nothing(value: &impl Holds) -> bool {
    value.holds_nothing()
}

/// Docker writes `null` where a list is empty.
fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero_u32(value: &u32) -> bool {
    *value == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn config_keeps_the_health_check_and_reads_dockers_nulls() {
        let text = r#"{"architecture":"amd64","os":"linux","config":{"Env":null,"Cmd":["sh"],
            "Healthcheck":{"Test":["CMD","true"],"Interval":1000000000}},"rootfs":{"type":"layers","diff_ids":[]}}"#;
        let config: Config = serde_json::from_str(text).unwrap();
        assert_eq!(config.config.healthcheck.as_ref().map(|check| check.interval), Some(1_000_000_000));
        let written = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<Config>(&written).unwrap(), config);
        assert!(!written.contains("Env"), "{written}");
    }
}
