//! What a successor goes on with although no file says it: settings of the container that it replaces for which compose has no
//! word, those that this program does not know among them.

use serde_json::{Map, Value, json};

use super::asked::Asked;
use super::mounts::clean;
use super::twin::{as_asked, is_derived};
use crate::engine::{Container, CreateBody, object};

/// True for a key of what no file can say (`Asked::beyond`) that the successor goes on with all the same.
pub fn is_carried(container: &Container, key: &str) -> bool {
    place_of(container, key).is_some()
}

/// What of the container's settings no file can say, in two lists of the API's keys: what its successor goes on with, and what it
/// goes without. `image` is the engine's `Config` of the container's image.
pub fn beyond(container: &Container, service: &str, image: &Value) -> (Vec<String>, Vec<String>) {
    Asked::of_container(container, service, image)
        .beyond
        .into_keys()
        .partition(|key| is_carried(container, key))
}

/// Where a key's value goes in the body of a create.
enum Place {
    Host(Value),
    Config(Value),
    Mount(Value),
    Endpoint { network: String, key: String, value: Value },
}

fn place_of(container: &Container, key: &str) -> Option<Place> {
    let host = &container.raw["HostConfig"];
    if let Some(target) = key.strip_prefix("Mounts ") {
        let mounts = host["Mounts"].as_array().into_iter().flatten();
        let mut found = mounts.filter(|mount| mount["Target"].as_str().map(clean).as_deref() == Some(target));
        return found.next().cloned().map(Place::Mount);
    }
    if let Some((key, network)) = key.split_once(" on ") {
        let shown = &container.raw["NetworkSettings"]["Networks"][network][key];
        let value = match shown {
            Value::Array(links) if key == "Links" => Value::Array(links.iter().map(as_asked).collect()),
            other => other.clone(),
        };
        return Some(Place::Endpoint { network: network.to_owned(), key: key.to_owned(), value });
    }
    match key {
        // What decides about the network itself, or about an image's start, is declared or it is not.
        "Networks" | "NetworkMode" | "Entrypoint" => None,
        "Links" => {
            let links = host["Links"].as_array().into_iter().flatten();
            Some(Place::Host(Value::Array(links.map(as_asked).collect())))
        }
        key => match (host.get(key), container.raw["Config"].get(key)) {
            (Some(value), _) => Some(Place::Host(value.clone())),
            (None, Some(value)) => Some(Place::Config(value.clone())),
            (None, None) => None,
        },
    }
}

/// Puts it into the body of the successor's create. What is declared is never changed by it.
pub fn carry(body: &mut CreateBody, predecessor: &Container, service: &str, image: &Value) {
    let (keys, _) = beyond(predecessor, service, image);
    for key in keys {
        match place_of(predecessor, &key) {
            Some(Place::Host(value)) => put(object(body.0.entry("HostConfig")), &key, value),
            Some(Place::Config(value)) => put(&mut body.0, &key, value),
            Some(Place::Mount(mount)) => {
                let mounts = object(body.0.entry("HostConfig")).entry("Mounts").or_insert_with(|| json!([]));
                if let Some(mounts) = mounts.as_array_mut() {
                    mounts.push(mount);
                }
            }
            Some(Place::Endpoint { network, key, value }) => {
                if let Some(Value::Object(settings)) = endpoint(body, &network) {
                    put(settings, &key, value);
                }
            }
            None => {}
        }
    }
    let networks = predecessor.raw["NetworkSettings"]["Networks"].as_object();
    for (network, shown) in networks.into_iter().flatten() {
        let settings = endpoint(body, network);
        if let (Some(address), Some(Value::Object(settings))) = (own_address(shown), settings) {
            put(settings, "MacAddress", json!(address));
        }
    }
}

/// The same for a network that the successor joins after its create.
pub fn carry_endpoint(settings: &mut Value, predecessor: &Container, network: &str) {
    let shown = &predecessor.raw["NetworkSettings"]["Networks"][network];
    let Value::Object(settings) = settings else { return };
    for key in ["Links", "GwPriority"] {
        let value = match &shown[key] {
            Value::Null => continue,
            Value::Array(links) => Value::Array(links.iter().map(as_asked).collect()),
            other => other.clone(),
        };
        put(settings, key, value);
    }
    if let Some(address) = own_address(shown) {
        put(settings, "MacAddress", json!(address));
    }
}

/// The hardware address of an endpoint, where it is not the one that a bridge would make.
fn own_address(shown: &Value) -> Option<&str> {
    shown["MacAddress"].as_str().filter(|address| !is_derived(address, shown))
}

fn endpoint<'a>(body: &'a mut CreateBody, network: &str) -> Option<&'a mut Value> {
    body.0.get_mut("NetworkingConfig")?.get_mut("EndpointsConfig")?.get_mut(network)
}

fn put(map: &mut Map<String, Value>, key: &str, value: Value) {
    map.entry(key).or_insert(value);
}
