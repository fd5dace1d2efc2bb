//! Config and manifest: everything in one order of keys, dates from `SOURCE_DATE_EPOCH` or a constant.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use serde_json::{Map, Value, json};

use super::Packed;
use super::check::services_of;
use super::recipe::{HealthcheckRecipe, ImageRole, Recipe, StartCommand};
use super::standing::BaseImage;
use crate::contents::{
    self,
    summary::{self, Summaries},
};
use crate::oci::config::{Healthcheck, History, RootFs, Run};
use crate::oci::image::{ANNOTATION_AFTER, ANNOTATION_LAYER, CREATED_BY};
use crate::oci::{Config, Descriptor, Digest, Image, Layer, Manifest, MediaType, Platform, exact};
use crate::store::Cache;
use crate::tarball::header::MODIFIED;
use crate::tars::catalogue::{DATA_PATH, INIT_PATH, WEB_PORT};

/// The label that says what the image is for.
pub const LABEL_IMAGE_ROLE: &str = crate::tars::catalogue::IMAGE_ROLE_LABEL;
/// The label with the services in it, joined by commas.
pub const LABEL_IMAGE_SERVICES: &str = "io.tarsup.image.services";

/// What the config of an image is made of.
pub struct Parts<'a> {
    /// The recipe.
    pub recipe: &'a Recipe,
    /// What the image is for.
    pub platform: &'a Platform,
    /// Seconds since 1970 for config and history.
    pub created: Option<i64>,
    /// The layers in their final order: what they are called, what they are, and their diff ids.
    pub layers: Vec<(&'a str, &'a str, Digest)>,
    /// What the history tells of its parts.
    pub summaries: Summaries,
    /// The image that it stands on, whose layers are the first ones.
    pub base: Option<&'a BaseImage>,
}

/// The config of an image.
pub fn config(parts: &Parts<'_>) -> serde_json::Result<Vec<u8>> {
    let created = rfc3339(parts.created);
    let comment = summary::to_comment(&parts.summaries)?;
    let history = |(name, what, _): &(&str, &str, Digest)| History {
        created: created.clone(),
        created_by: format!("{CREATED_BY}{name}: {what}"),
        comment: if *name == contents::LAYER { comment.clone() } else { String::new() },
        empty_layer: false,
    };
    let config = Config {
        created: created.clone(),
        architecture: parts.platform.architecture.clone(),
        os: "linux".to_owned(),
        variant: parts.platform.variant.clone(),
        config: run(parts.recipe),
        rootfs: RootFs {
            diff_ids: parts.layers.iter().map(|(_, _, diff_id)| *diff_id).collect(),
            ..RootFs::default()
        },
        history: parts.layers.iter().map(history).collect(),
    };
    match parts.base {
        Some(base) => inherit(&base.image, parts.recipe.role, &config),
        None => serde_json::to_vec(&config),
    }
}

/// The config of an image that stands on another one: every key of the base as it is, but for what its successor is.
fn inherit(base: &Image, role: ImageRole, ours: &Config) -> serde_json::Result<Vec<u8>> {
    let mut config = exact::read(&base.config)?;
    config["created"] = json!(ours.created);
    config["rootfs"] = json!(ours.rootfs);
    let mut history: Vec<Value> = config["history"].as_array().cloned().unwrap_or_default();
    // What is made here is told by how its history begins (`Image::layer_names`): a base of ours is a base all the same.
    for entry in &mut history {
        let made = entry["created_by"].as_str().and_then(|text| text.strip_prefix(CREATED_BY));
        if let Some(rest) = made {
            entry["created_by"] = json!(format!("tarsup built {rest}"));
        }
    }
    let told = history.iter().filter(|entry| entry["empty_layer"] != json!(true)).count();
    history.extend((told..base.layers.len()).map(|_| json!({ "created_by": "a layer of the base" })));
    history.extend(ours.history.iter().skip(base.layers.len()).map(|entry| json!(entry)));
    config["history"] = json!(history);
    if !config["config"].is_object() {
        config["config"] = json!({});
    }
    let run = &mut config["config"];
    if role != ImageRole::Plain {
        // tars-init is PID 1 as root; arguments of the base are none of its own.
        for key in ["User", "Cmd", "Entrypoint"] {
            run.as_object_mut().map(|run| run.remove(key));
        }
    }
    let ours: Map<String, Value> = json!(ours.config).as_object().cloned().unwrap_or_default();
    if ours.contains_key("Entrypoint") && !ours.contains_key("Cmd") {
        run.as_object_mut().map(|run| run.remove("Cmd"));
    }
    for (key, value) in ours {
        run[&key] = match key.as_str() {
            "Env" => environment(&run[&key], &value),
            "Labels" => labels(&run[&key], value),
            "ExposedPorts" | "Volumes" => joined(&run[&key], value),
            _ => value,
        };
    }
    exact::write(&config)
}

/// The base's variables, and ours over them; a `PATH` of the base stays, as it leads to what is in it.
fn environment(base: &Value, ours: &Value) -> Value {
    let list = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    let mut all = list(base);
    for variable in list(ours) {
        match all.iter_mut().find(|known| name(known) == name(&variable)) {
            Some(_) if variable == PATH => {}
            Some(known) => *known = variable,
            None => all.push(variable),
        }
    }
    json!(all)
}

/// Both, ours over the base's; what tarsup itself said of the base is not true of what stands on it.
fn labels(base: &Value, ours: Value) -> Value {
    let mut base = base.clone();
    if let Some(labels) = base.as_object_mut() {
        labels.retain(|label, _| !label.starts_with("io.tarsup."));
    }
    joined(&base, ours)
}

fn joined(base: &Value, ours: Value) -> Value {
    let mut all = base.as_object().cloned().unwrap_or_default();
    if let Value::Object(ours) = ours {
        all.extend(ours);
    }
    Value::Object(all)
}

/// An image with this config, which names these layers.
pub fn of_config(
    config: Vec<u8>,
    layers: &[Packed],
    after: Option<Digest>,
    cache: &Cache,
) -> io::Result<Image> {
    let layers: Vec<Layer> = layers.iter().map(|layer| as_layer(layer, cache)).collect();
    let descriptor = Descriptor {
        media_type: MediaType::ImageConfig,
        digest: Digest::of(&config),
        size: config.len() as u64,
        annotations: BTreeMap::new(),
    };
    let after = after.map(|digest| (ANNOTATION_AFTER.to_owned(), digest.to_string()));
    let manifest = Manifest::new(
        descriptor,
        layers.iter().map(|layer| layer.descriptor.clone()).collect(),
        after.into_iter().collect(),
    );
    Ok(Image { manifest: serde_json::to_vec(&manifest)?, config, layers })
}

pub(super) fn as_layer(layer: &Packed, cache: &Cache) -> Layer {
    Layer {
        diff_id: layer.diff_id,
        descriptor: Descriptor {
            media_type: MediaType::ImageLayerGzip,
            digest: layer.digest,
            size: layer.size,
            annotations: BTreeMap::from([(ANNOTATION_LAYER.to_owned(), layer.name.clone())]),
        },
        source: match &layer.known {
            Some(known) => known.source.clone(),
            None => cache.source(layer.digest, layer.size),
        },
    }
}

/// The date of config and history: `SOURCE_DATE_EPOCH`, else that of the files.
pub(super) fn rfc3339(seconds: Option<i64>) -> String {
    let seconds = seconds.unwrap_or(i64::try_from(MODIFIED).unwrap_or(0));
    time::OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .and_then(|date| date.format(&time::format_description::well_known::Rfc3339).ok())
        .unwrap_or_else(|| "1970-01-01T00:00:00Z".to_owned())
}

/// What a container of the image starts with, by its role.
fn run(recipe: &Recipe) -> Run {
    let mut run = match recipe.role {
        ImageRole::Plain => plain(recipe),
        role => tars(recipe, role),
    };
    let mut labels = BTreeMap::from([
        ("org.opencontainers.image.title".to_owned(), recipe.reference.familiar_name()),
        (crate::oci::image::VERSION_LABEL.to_owned(), recipe.version.clone()),
        (LABEL_IMAGE_ROLE.to_owned(), recipe.role.name().to_owned()),
    ]);
    let services =
        services_of(recipe.role).iter().map(|service| service.name()).collect::<Vec<_>>().join(",");
    if !services.is_empty() {
        labels.insert(LABEL_IMAGE_SERVICES.to_owned(), services);
    }
    labels.extend(recipe.labels.clone());
    run.labels = labels;
    run
}

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const SECOND: u64 = 1_000_000_000;

/// An image of the framework or of a node: tars-init is its PID 1.
fn tars(recipe: &Recipe, role: ImageRole) -> Run {
    let mut ports: Vec<u16> = services_of(role).iter().flat_map(|service| service.exposed_ports()).collect();
    if recipe.web.is_some() {
        ports.extend([WEB_PORT, WEB_PORT + 1]);
    }
    let mut env = vec![PATH.to_owned(), format!("TARSUP_VERSION={}", recipe.version)];
    env.extend(recipe.plain.env.iter().map(|(name, value)| format!("{name}={value}")));
    Run {
        exposed_ports: ports.into_iter().map(|port| format!("{port}/tcp")).collect(),
        env,
        entrypoint: vec![INIT_PATH.to_owned(), role.name().to_owned()],
        volumes: BTreeSet::from([DATA_PATH.to_owned()]),
        stop_signal: "SIGTERM".to_owned(),
        healthcheck: Some(Healthcheck {
            test: vec!["CMD".to_owned(), INIT_PATH.to_owned(), "health".to_owned()],
            interval: 10 * SECOND,
            timeout: 5 * SECOND,
            // The bounded wait for a database (two minutes), and then the services' start: nobody is to restart it before.
            start_period: 150 * SECOND,
            retries: 3,
            ..Healthcheck::default()
        }),
        ..Run::default()
    }
}

/// Any other image: what the recipe says.
fn plain(recipe: &Recipe) -> Run {
    let plain = &recipe.plain;
    let mut env: BTreeMap<String, String> = plain.env.clone();
    let (name, value) = PATH.split_once('=').unwrap_or(("PATH", ""));
    env.entry(name.to_owned()).or_insert_with(|| value.to_owned());
    Run {
        user: plain.user.clone().unwrap_or_default(),
        exposed_ports: plain.ports.iter().cloned().collect(),
        env: env.into_iter().map(|(name, value)| format!("{name}={value}")).collect(),
        entrypoint: plain.entrypoint.clone(),
        cmd: plain.cmd.clone(),
        volumes: plain.volumes.iter().cloned().collect(),
        working_dir: plain.workdir.clone().unwrap_or_default(),
        stop_signal: plain.stop_signal.clone().unwrap_or_default(),
        healthcheck: plain.healthcheck.as_ref().map(healthcheck),
        ..Run::default()
    }
}

fn healthcheck(recipe: &HealthcheckRecipe) -> Healthcheck {
    let nanoseconds = |duration: Option<std::time::Duration>| {
        duration.map_or(0, |duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
    };
    let test = match &recipe.test {
        StartCommand::Line(line) => vec!["CMD-SHELL".to_owned(), line.clone()],
        StartCommand::Words(words) => words.clone(),
    };
    Healthcheck {
        test,
        interval: nanoseconds(recipe.interval),
        timeout: nanoseconds(recipe.timeout),
        start_period: nanoseconds(recipe.start_period),
        start_interval: nanoseconds(recipe.start_interval),
        retries: recipe.retries.unwrap_or(0),
    }
}
