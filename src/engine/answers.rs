//! The engine's JSON answers → the types of this module, with the whole answer kept beside them.

use bollard::models;
use serde::de::DeserializeOwned;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::raw::unexpected;
use super::{
    Container, ContainerSummary, EngineImage, EngineInfo, Environment, Health, HistoryItem, ImageStore,
    ImageSummary, Network, RestartPolicy, Result,
};

/// The driver status by which an engine says that containerd keeps its images.
const CONTAINERD_DRIVER: &str = "io.containerd.snapshotter.v1";

/// `GET /containers/{id}/json`.
pub(super) fn container(call: &str, raw: Value) -> Result<Container> {
    let networks = raw.pointer("/NetworkSettings/Networks").and_then(Value::as_object);
    let addresses = networks
        .into_iter()
        .flatten()
        .map(|(name, endpoint)| (name.clone(), text(endpoint, "/IPAddress")))
        .collect();
    Ok(Container {
        id: required(call, &raw, "/Id")?,
        name: text(&raw, "/Name").trim_start_matches('/').to_owned(),
        labels: optional(call, &raw, "/Config/Labels")?,
        image: text(&raw, "/Config/Image"),
        image_id: text(&raw, "/Image"),
        status: required(call, &raw, "/State/Status")?,
        health: health(call, &raw)?,
        exit_code: optional(call, &raw, "/State/ExitCode")?,
        error: text(&raw, "/State/Error"),
        restart_count: optional(call, &raw, "/RestartCount")?,
        started_at: text(&raw, "/State/StartedAt"),
        restart: RestartPolicy {
            name: Some(text(&raw, "/HostConfig/RestartPolicy/Name"))
                .filter(|name| !name.is_empty())
                .unwrap_or_else(|| "no".to_owned()),
            maximum_retry_count: optional(call, &raw, "/HostConfig/RestartPolicy/MaximumRetryCount")?,
        },
        env: Environment::of(optional::<Vec<String>>(call, &raw, "/Config/Env")?),
        addresses,
        raw,
    })
}

/// `none` is what an engine says of a health check that was switched off.
fn health(call: &str, raw: &Value) -> Result<Option<Health>> {
    match text(raw, "/State/Health/Status").as_str() {
        "" | "none" => Ok(None),
        _ => required(call, raw, "/State/Health/Status").map(Some),
    }
}

/// `GET /images/{name}/json`.
pub(super) fn image(call: &str, raw: Value) -> Result<EngineImage> {
    Ok(EngineImage {
        id: required(call, &raw, "/Id")?,
        tags: optional(call, &raw, "/RepoTags")?,
        diff_ids: optional(call, &raw, "/RootFS/Layers")?,
        env: Environment::of(optional::<Vec<String>>(call, &raw, "/Config/Env")?),
        labels: optional(call, &raw, "/Config/Labels")?,
        size: optional(call, &raw, "/Size")?,
        layer_sizes: Vec::new(),
        created: text(&raw, "/Created"),
        architecture: text(&raw, "/Architecture"),
        raw,
    })
}

/// One of `GET /containers/json`.
pub(super) fn container_summary(call: &str, one: models::ContainerSummary) -> Result<ContainerSummary> {
    let missing = |what: &str| unexpected(call, &format!("its answer has no usable `{what}`"));
    // Links show as further names, `/other/alias`.
    let names = one.names.unwrap_or_default();
    let name = names.iter().map(|name| name.trim_start_matches('/')).find(|name| !name.contains('/'));
    let state = one.state.map(|state| Value::String(state.to_string())).unwrap_or_default();
    let networks = one.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
    let mounts = one.mounts.unwrap_or_default();
    Ok(ContainerSummary {
        id: one.id.ok_or_else(|| missing("Id"))?,
        name: name.unwrap_or_default().to_owned(),
        labels: one.labels.unwrap_or_default().into_iter().collect(),
        image: one.image.unwrap_or_default(),
        image_id: one.image_id.unwrap_or_default(),
        status: serde_json::from_value(state).map_err(|_| missing("State"))?,
        health: health_in(&one.status.unwrap_or_default()),
        addresses: networks
            .into_iter()
            .map(|(name, endpoint)| (name, endpoint.ip_address.unwrap_or_default()))
            .collect(),
        mounts: serde_json::to_value(mounts).map_err(|_| missing("Mounts"))?,
    })
}

/// The health that a list's status text ends with, such as `Up 2 minutes (healthy)`.
fn health_in(status: &str) -> Option<Health> {
    let (_, last) = status.rsplit_once('(')?;
    match last.trim_end_matches(')') {
        "healthy" => Some(Health::Healthy),
        "unhealthy" => Some(Health::Unhealthy),
        "health: starting" => Some(Health::Starting),
        _ => None,
    }
}

/// One of `GET /images/json`.
pub(super) fn image_summary(one: models::ImageSummary) -> ImageSummary {
    ImageSummary {
        id: one.id,
        // What an older engine says of an image without a tag.
        tags: one.repo_tags.into_iter().filter(|tag| tag != "<none>:<none>").collect(),
        labels: one.labels.into_iter().collect(),
        size: u64::try_from(one.size).unwrap_or_default(),
        created: OffsetDateTime::from_unix_timestamp(one.created)
            .ok()
            .and_then(|time| time.format(&Rfc3339).ok())
            .unwrap_or_default(),
    }
}

/// One of `GET /images/{name}/history`.
pub(super) fn history_item(one: models::ImageHistoryResponseItem) -> HistoryItem {
    let size = u64::try_from(one.size).unwrap_or_default();
    HistoryItem { created_by: one.created_by, comment: one.comment, size }
}

/// `GET /networks/{name}`.
pub(super) fn network(call: &str, found: models::NetworkInspect) -> Result<Network> {
    let missing = |what: &str| unexpected(call, &format!("its answer has no usable `{what}`"));
    let configs = found.ipam.and_then(|ipam| ipam.config).unwrap_or_default();
    let members = found.containers.unwrap_or_default().into_iter();
    Ok(Network {
        id: found.id.ok_or_else(|| missing("Id"))?,
        name: found.name.ok_or_else(|| missing("Name"))?,
        driver: found.driver.unwrap_or_default(),
        ranges: given(&configs, |config| config.ip_range.as_ref()),
        gateways: given(&configs, |config| config.gateway.as_ref()),
        subnets: configs.into_iter().map(|config| config.subnet.unwrap_or_default()).collect(),
        labels: found.labels.unwrap_or_default().into_iter().collect(),
        addresses: members.map(|(id, member)| (id, member.ipv4_address.unwrap_or_default())).collect(),
    })
}

/// What the configurations of a network say of one thing, where they say it.
fn given(
    configs: &[models::IpamConfig],
    what: impl Fn(&models::IpamConfig) -> Option<&String>,
) -> Vec<String> {
    configs.iter().filter_map(what).filter(|text| !text.is_empty()).cloned().collect()
}

/// `GET /version` and `GET /info`.
pub(super) fn info(
    call: &str,
    (api_version, is_near): (&str, bool),
    version: &Value,
    info: models::SystemInfo,
) -> Result<EngineInfo> {
    let driver = info.driver_status.unwrap_or_default().into_iter().flatten();
    Ok(EngineInfo {
        id: info.id.unwrap_or_default(),
        version: required(call, version, "/Version")?,
        api_version: api_version.to_owned(),
        // `/info` has the kernel's word (x86_64), `/version` the one of image configs (amd64).
        architecture: required(call, version, "/Arch")?,
        image_store: if driver.into_iter().any(|said| said == CONTAINERD_DRIVER) {
            ImageStore::Containerd
        } else {
            ImageStore::Classic
        },
        data_root: info.docker_root_dir.unwrap_or_default(),
        is_near,
    })
}

/// A text; empty where there is none.
pub(super) fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// A value that every engine gives.
pub(super) fn required<T: DeserializeOwned>(call: &str, value: &Value, pointer: &str) -> Result<T> {
    let found = value.pointer(pointer).cloned().unwrap_or_default();
    // The value itself stays out of the message: it may be an environment.
    serde_json::from_value(found)
        .map_err(|_| unexpected(call, &format!("its answer has no usable `{}`", &pointer[1..])))
}

/// A value that may be missing or `null`, and is then the empty one.
fn optional<T: DeserializeOwned + Default>(call: &str, value: &Value, pointer: &str) -> Result<T> {
    match value.pointer(pointer) {
        None | Some(Value::Null) => Ok(T::default()),
        Some(_) => required(call, value, pointer),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Status;
    use super::*;

    #[test]
    fn container_keeps_what_is_not_known_here() {
        let raw = json!({
            "Id": "f00", "Name": "/tars", "Image": "sha256:1", "RestartCount": 2,
            "Config": {"Image": "tars:1", "Env": ["A=1"], "Labels": null, "New": {"x": 1}},
            "State": {"Status": "running", "ExitCode": 0, "Health": {"Status": "healthy"}},
            "HostConfig": {"RestartPolicy": {"Name": "", "MaximumRetryCount": 0}},
            "NetworkSettings": {"Networks": {"tars": {"IPAddress": "172.25.0.3"}}},
        });
        let container = container("inspect", raw).unwrap();
        assert_eq!((container.name.as_str(), container.status), ("tars", Status::Running));
        assert_eq!(container.health, Some(Health::Healthy));
        assert_eq!(container.restart, RestartPolicy::no());
        assert_eq!(container.addresses["tars"], "172.25.0.3");
        assert_eq!(container.raw["Config"]["New"]["x"], 1);
    }

    #[test]
    fn answer_of_another_shape_is_an_error_without_its_values() {
        let raw = json!({"Id": "f00", "State": {"Status": "running"}, "Config": {"Env": "SECRET=x"}});
        let error = container("inspect tars", raw).unwrap_err().to_string();
        assert!(error.contains("Config/Env") && !error.contains("SECRET"), "{error}");
    }

    #[test]
    fn image_store_is_told_by_the_driver_status() {
        let version = json!({"Version": "26.1.5", "Arch": "amd64"});
        let store = |key: &str, value: &str| {
            let driver = vec![vec![key.to_owned(), value.to_owned()]];
            let said = models::SystemInfo { driver_status: Some(driver), ..Default::default() };
            info("info", ("1.45", true), &version, said).unwrap().image_store
        };
        assert_eq!(store("Backing Filesystem", "extfs"), ImageStore::Classic);
        assert_eq!(store("driver-type", CONTAINERD_DRIVER), ImageStore::Containerd);
    }

    #[test]
    fn health_is_read_from_the_text_of_a_list() {
        for (text, health) in [
            ("Up 2 minutes (healthy)", Some(Health::Healthy)),
            ("Up 2 minutes (unhealthy)", Some(Health::Unhealthy)),
            ("Up Less than a second (health: starting)", Some(Health::Starting)),
            ("Up 2 minutes (Paused)", None),
            ("Exited (137) 3 days ago", None),
            ("Created", None),
        ] {
            assert_eq!(health_in(text), health, "{text}");
        }
    }

    #[test]
    fn link_is_not_taken_for_the_name() {
        let one = models::ContainerSummary {
            id: Some("f00".to_owned()),
            names: Some(vec!["/web/db".to_owned(), "/db".to_owned()]),
            state: Some(models::ContainerSummaryStateEnum::RUNNING),
            ..Default::default()
        };
        assert_eq!(container_summary("list", one).unwrap().name, "db");
    }
}
