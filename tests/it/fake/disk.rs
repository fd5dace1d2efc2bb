//! Volumes of the fake engine, the files in them and in containers, and what a prune takes.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tarsup::engine::{CreateBody, Result, Status};

use super::world::{Held, World, conflict, not_found};

/// One volume.
#[derive(Clone, Debug, Default)]
pub(super) struct Volume {
    pub labels: BTreeMap<String, String>,
    /// Path below its root → bytes.
    pub files: BTreeMap<String, Vec<u8>>,
    /// True where the engine made up its name.
    pub anonymous: bool,
}

impl Held {
    /// The volume that a path lies in, and the path in there; nothing where it lies in the container itself.
    fn in_volume(&self, path: &str) -> Option<(&str, String)> {
        // The longest target is the nearest mount.
        let nearest = self.mounts.iter().filter_map(|(target, volume)| {
            let below = path.strip_prefix(target.as_str())?;
            (below.is_empty() || below.starts_with('/')).then_some((target.len(), volume, below))
        });
        let (_, volume, below) = nearest.max_by_key(|(length, ..)| *length)?;
        Some((volume, below.trim_start_matches('/').to_owned()))
    }
}

impl World {
    /// The volumes of a container that is created, by path: those that are not there are made, with labels only where a mount describes them.
    pub fn mount(&mut self, body: &CreateBody, image: &Value) -> BTreeMap<String, String> {
        let host = body.0.get("HostConfig").cloned().unwrap_or_default();
        let texts = |value: &Value| -> Vec<String> {
            value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let mut described: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        // Path → volume's name, empty for one without; `None` for what is no volume.
        let mut wanted: BTreeMap<String, Option<String>> = BTreeMap::new();
        for volumes in [image.get("Volumes"), body.0.get("Volumes")] {
            for path in volumes.and_then(Value::as_object).into_iter().flat_map(|volumes| volumes.keys()) {
                wanted.insert(path.clone(), Some(String::new()));
            }
        }
        for bind in texts(&host["Binds"]) {
            let mut parts = bind.split(':');
            match (parts.next(), parts.next()) {
                (Some(source), Some(path)) => {
                    let volume = (!source.starts_with('/')).then(|| source.to_owned());
                    wanted.insert(path.to_owned(), volume);
                }
                (Some(path), None) => {
                    wanted.insert(path.to_owned(), Some(String::new()));
                }
                _ => {}
            }
        }
        for mount in host["Mounts"].as_array().into_iter().flatten() {
            let volume =
                (mount["Type"] == "volume").then(|| mount["Source"].as_str().unwrap_or_default().to_owned());
            let target = mount["Target"].as_str().unwrap_or_default().to_owned();
            let labels = mount.pointer("/VolumeOptions/Labels").and_then(Value::as_object);
            let labels = labels.into_iter().flatten();
            described.insert(
                target.clone(),
                labels.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect(),
            );
            wanted.insert(target, volume);
        }
        for path in host["Tmpfs"].as_object().into_iter().flat_map(|tmpfs| tmpfs.keys()) {
            wanted.insert(path.clone(), None);
        }
        let volumes = wanted.into_iter().filter_map(|(path, volume)| Some((path, volume?)));
        volumes
            .map(|(path, mut volume)| {
                let anonymous = volume.is_empty();
                if anonymous {
                    volume = self.next_id();
                }
                let labels = described.remove(&path).unwrap_or_default();
                let made = Volume { labels, anonymous, ..Volume::default() };
                self.volumes.entry(volume.clone()).or_insert(made);
                (path.trim_end_matches('/').to_owned(), volume)
            })
            .collect()
    }

    /// Writes a file at a path of a container.
    pub fn write(&mut self, call: &str, container: &str, path: &str, bytes: Vec<u8>) -> Result<()> {
        let held = self.get(call, container)?;
        match held.in_volume(path).map(|(volume, below)| (volume.to_owned(), below)) {
            Some((volume, below)) => {
                self.volumes.entry(volume).or_default().files.insert(below, bytes);
            }
            None => {
                held.files.insert(path.to_owned(), bytes);
            }
        }
        Ok(())
    }

    /// Every file that a container sees: path → bytes.
    pub fn files(&mut self, call: &str, container: &str) -> Result<BTreeMap<String, Vec<u8>>> {
        let held = self.get(call, container)?.clone();
        let mut seen = held.files.clone();
        for (target, volume) in &held.mounts {
            let files = self.volumes.get(volume).into_iter().flat_map(|volume| &volume.files);
            seen.extend(files.map(|(below, bytes)| (format!("{target}/{below}"), bytes.clone())));
        }
        Ok(seen)
    }

    /// Removes a volume that no container mounts.
    pub fn remove_volume(&mut self, call: &str, volume: &str) -> Result<()> {
        if !self.volumes.contains_key(volume) {
            return Err(not_found(call, format!("get {volume}: no such volume")));
        }
        let users = self.containers.values().filter(|held| held.mounts.values().any(|used| used == volume));
        let users: Vec<&str> = users.map(|held| held.id.as_str()).collect();
        if !users.is_empty() {
            let message = format!("remove {volume}: volume is in use - [{}]", users.join(", "));
            return Err(conflict(call, message));
        }
        self.volumes.remove(volume);
        Ok(())
    }

    /// Takes a name off an image, and the image where that was its last one.
    pub fn remove_image(&mut self, call: &str, name: &str) -> Result<()> {
        let Some(id) = self.tags.get(name).cloned() else { return Ok(()) };
        let held = self.images.get_mut(&id).expect("what has a name is there");
        let is_last = held.tags.len() < 2;
        if is_last && self.containers.values().any(|container| container.image_id == id) {
            let message = format!("unable to remove repository reference \"{name}\" (must force)");
            return Err(conflict(call, message));
        }
        held.tags.retain(|tag| tag != name);
        self.tags.remove(name);
        if is_last {
            self.images.remove(&id);
        }
        Ok(())
    }

    /// `docker system prune -f`, with `--volumes` or without.
    pub fn prune(&mut self, volumes: bool) {
        self.containers
            .retain(|_, held| !matches!(held.status, Status::Created | Status::Exited | Status::Dead));
        let joined: BTreeSet<&String> =
            self.containers.values().flat_map(|held| held.endpoints.keys()).collect();
        self.networks.retain(|id, network| joined.contains(&network.name) || joined.contains(id));
        let used: BTreeSet<&String> = self.containers.values().map(|held| &held.image_id).collect();
        self.images.retain(|id, image| !image.tags.is_empty() || used.contains(id));
        if volumes {
            let mounted: BTreeSet<&String> =
                self.containers.values().flat_map(|held| held.mounts.values()).collect();
            self.volumes.retain(|name, _| mounted.contains(name));
        }
    }
}
