//! What an inspect shows of two containers, compared field by field: the second was made to be what the first was.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// What may differ, by the beginning of its JSON pointer, and why.
const MAY_DIFFER: [(&str, &str); 22] = [
    ("/Id", "another container"),
    ("/Created", "another container"),
    ("/State/", "started anew"),
    ("/Image", "another image, which is what was asked for"),
    ("/Config/Image", "another image, which is what was asked for"),
    ("/Config/Labels/io.tarsup.", "labels of tarsup's"),
    ("/Config/AttachStdin", "of the client that made it"),
    ("/Config/AttachStdout", "of the client that made it"),
    ("/Config/AttachStderr", "of the client that made it"),
    ("/Config/Hostname", "the container's own id, where none was asked for: compared apart"),
    ("/HostConfig/Binds", "compared as mounts"),
    ("/HostConfig/Mounts", "compared as mounts"),
    ("/HostConfig/ConsoleSize", "of the client that made it"),
    ("/ResolvConfPath", "named after the id"),
    ("/HostnamePath", "named after the id"),
    ("/HostsPath", "named after the id"),
    ("/LogPath", "named after the id"),
    ("/GraphDriver/", "of another container"),
    ("/Storage", "of another container"),
    ("/NetworkSettings/Sandbox", "made at each start"),
    ("/ExecIDs", "a health check under way"),
    ("/RestartCount", "counted from the start"),
];

/// The fields that differ and may not.
pub fn differing(before: &Value, after: &Value) -> Vec<String> {
    let (before, after) = (comparable(before), comparable(after));
    let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    keys.into_iter()
        .filter(|key| before.get(*key) != after.get(*key))
        .map(|key| format!("{key}: {:?} → {:?}", before.get(key), after.get(key)))
        .collect()
}

/// Every scalar of a document by its JSON pointer; lists that have no order by their content.
fn flat(at: &str, value: &Value, all: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                flat(&format!("{at}/{key}"), value, all);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                let name = item["Destination"].as_str().map_or_else(|| item.to_string(), str::to_owned);
                flat(&format!("{at}/[{name}]"), item, all);
            }
        }
        // Not asked for, in any of the engine's ways to show it.
        Value::Null | Value::Array(_) | Value::Object(_) => {}
        Value::String(text) if text.is_empty() => {}
        _ => drop(all.insert(at.to_owned(), value.clone())),
    }
}

/// An inspect as it is compared.
fn comparable(inspect: &Value) -> BTreeMap<String, Value> {
    let mut inspect = inspect.clone();
    let own = inspect["Name"].as_str().unwrap_or_default().trim_start_matches('/').to_owned();
    let short: String = inspect["Id"].as_str().unwrap().chars().take(12).collect();
    let asked_mac = inspect["Config"]["MacAddress"].as_str().is_some_and(|address| !address.is_empty());
    for endpoint in inspect["NetworkSettings"]["Networks"].as_object_mut().into_iter().flatten() {
        let endpoint = endpoint.1;
        // Older engines add the id to the names, newer ones tell it apart; a file's service has its name for an alias, as compose has it.
        for key in ["Aliases", "DNSNames"] {
            if let Some(names) = endpoint[key].as_array_mut() {
                names.retain(|name| {
                    ![short.as_str(), own.as_str()].contains(&name.as_str().unwrap_or_default())
                });
            }
        }
        // What nobody asked for is the next one free, which somebody else may have taken meanwhile.
        if !asked_mac && endpoint["IPAMConfig"]["IPv4Address"].is_null() {
            endpoint["MacAddress"] = Value::Null;
        }
        for (asked, given) in [("IPv4Address", "IPAddress"), ("IPv6Address", "GlobalIPv6Address")] {
            if endpoint["IPAMConfig"][asked].is_null() {
                endpoint[given] = Value::Null;
            }
        }
    }
    // The default bridge's once more, which has no addresses to ask for.
    for key in ["IPAddress", "GlobalIPv6Address"] {
        inspect["NetworkSettings"][key] = Value::Null;
    }
    if !asked_mac {
        inspect["NetworkSettings"]["MacAddress"] = Value::Null;
    }
    // Two ways to say the same.
    if inspect["HostConfig"]["NetworkMode"] == "default" {
        inspect["HostConfig"]["NetworkMode"] = "bridge".into();
    }
    for key in ["CapAdd", "CapDrop"] {
        for name in inspect["HostConfig"][key].as_array_mut().into_iter().flatten() {
            if let Some(plain) = name.as_str().and_then(|name| name.strip_prefix("CAP_")) {
                *name = plain.into();
            }
        }
    }
    if inspect["HostConfig"]["RestartPolicy"]["Name"] == "no" {
        inspect["HostConfig"]["RestartPolicy"]["Name"] = "".into();
    }
    for mount in inspect["Mounts"].as_array_mut().into_iter().flatten() {
        // How it was written; `RW` and `Propagation` are what it means.
        mount["Mode"] = Value::Null;
    }
    if inspect["HostConfig"]["PublishAllPorts"] == true {
        // Any free port of the host, another one at each start.
        inspect["NetworkSettings"]["Ports"] = Value::Null;
    }
    let mut all = BTreeMap::new();
    flat("", &inspect, &mut all);
    all.retain(|key, _| {
        let made_anew = ["/EndpointID", "/NetworkID"].iter().any(|end| key.ends_with(end));
        !made_anew && !MAY_DIFFER.iter().any(|(may, _)| key.starts_with(may))
    });
    if inspect["Config"]["Hostname"].as_str() != Some(&short) {
        all.insert("/hostname".to_owned(), inspect["Config"]["Hostname"].clone());
    }
    all
}

/// What the engine says of a container.
pub fn inspect(name: &str) -> Value {
    let output = Command::new("docker").args(["container", "inspect", name]).output().unwrap();
    let all: Value = serde_json::from_slice(&output.stdout).unwrap();
    all[0].clone()
}
