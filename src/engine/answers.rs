//! The engine's JSON answers → the types of this module, with the whole answer kept beside them.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::raw::unexpected;
use super::{Container, EngineImage, EngineInfo, ImageStore, Network, RestartPolicy, Result};

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
        env: optional(call, &raw, "/Config/Env")?,
        addresses,
        raw,
    })
}

/// `none` is what an engine says of a health check that was switched off.
fn health(call: &str, raw: &Value) -> Result<Option<super::Health>> {
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
        env: optional(call, &raw, "/Config/Env")?,
        labels: optional(call, &raw, "/Config/Labels")?,
        size: optional(call, &raw, "/Size")?,
        created: text(&raw, "/Created"),
        architecture: text(&raw, "/Architecture"),
        raw,
    })
}

/// `GET /networks/{name}`.
pub(super) fn network(call: &str, raw: &Value) -> Result<Network> {
    let configs = raw.pointer("/IPAM/Config").and_then(Value::as_array);
    let members = raw.pointer("/Containers").and_then(Value::as_object);
    Ok(Network {
        id: required(call, raw, "/Id")?,
        name: required(call, raw, "/Name")?,
        driver: text(raw, "/Driver"),
        subnets: configs.into_iter().flatten().map(|config| text(config, "/Subnet")).collect(),
        labels: optional(call, raw, "/Labels")?,
        addresses: members
            .into_iter()
            .flatten()
            .map(|(id, member)| (id.clone(), text(member, "/IPv4Address")))
            .collect(),
    })
}

/// `GET /volumes/{name}`.
pub(super) fn volume(call: &str, raw: &Value) -> Result<BTreeMap<String, String>> {
    optional(call, raw, "/Labels")
}

/// `GET /volumes`: names and labels, by name. Where there is none, 20.10 answers `null`.
pub(super) fn volumes(call: &str, raw: &Value) -> Result<Vec<(String, BTreeMap<String, String>)>> {
    let listed = raw.get("Volumes").and_then(Value::as_array);
    let mut volumes = listed
        .into_iter()
        .flatten()
        .map(|one| Ok((required(call, one, "/Name")?, volume(call, one)?)))
        .collect::<Result<Vec<_>>>()?;
    volumes.sort();
    Ok(volumes)
}

/// `GET /version` and `GET /info`.
pub(super) fn info(call: &str, api_version: &str, version: &Value, info: &Value) -> Result<EngineInfo> {
    let driver = info.pointer("/DriverStatus").map(Value::to_string).unwrap_or_default();
    Ok(EngineInfo {
        id: text(info, "/ID"),
        version: required(call, version, "/Version")?,
        api_version: api_version.to_owned(),
        // `/info` has the kernel's word (x86_64), `/version` the one of image configs (amd64).
        architecture: required(call, version, "/Arch")?,
        image_store: if driver.contains(CONTAINERD_DRIVER) {
            ImageStore::Containerd
        } else {
            ImageStore::Classic
        },
        data_root: text(info, "/DockerRootDir"),
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

    use super::super::{Health, Status};
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
        let classic = json!({"DriverStatus": [["Backing Filesystem", "extfs"]]});
        let containerd = json!({"DriverStatus": [["driver-type", CONTAINERD_DRIVER]]});
        assert_eq!(info("info", "1.45", &version, &classic).unwrap().image_store, ImageStore::Classic);
        assert_eq!(info("info", "1.45", &version, &containerd).unwrap().image_store, ImageStore::Containerd);
    }
}
