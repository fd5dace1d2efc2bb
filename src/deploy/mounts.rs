//! What a container mounts, as types: read once from a create body, from what an engine shows, or from an image.
//!
//! Decisions about data (does it outlive the container, is it handed on, does it move) are made on these, never on JSON.

use std::fmt;

use serde_json::Value;

use super::container::DeclaredMounts;
use crate::engine::{Container, EngineImage};

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where: absolute and clean.
    pub target: String,
    /// What.
    pub source: MountSource,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountSource {
    /// A file or folder of the host.
    Bind(String),
    /// A volume with a name that a person chose, or a folder in it.
    Volume {
        /// Its name.
        name: String,
        /// The folder, without a slash at its beginning; empty for all of it.
        subpath: String,
    },
    /// A volume that only this container names. The name is known once the engine made it.
    Anonymous(Option<String>),
    /// Memory.
    Tmpfs,
}

/// Everything that a container mounts: at most one on each target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mounts(Vec<Mount>);

/// Where the bytes of one path lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lies {
    /// In the container's own layer: they go with it.
    Container,
    /// On the host.
    Host(String),
    /// In a named volume, at this path below its root (empty: the root itself).
    Volume(String, String),
    /// In an anonymous volume.
    Anonymous(Option<String>, String),
    /// In memory.
    Memory,
}

impl Mounts {
    /// What a declaration asks for, whatever the shape: `Binds`, `Mounts`, `Tmpfs`, `Volumes`.
    pub fn declared(declared: &DeclaredMounts) -> Self {
        let binds = declared.binds.iter().map(String::as_str);
        Self::of_parts(declared.volumes.keys(), binds, &declared.mounts, declared.tmpfs.keys())
    }

    /// What a container has: as it was asked for, with the names of the volumes that the engine made.
    pub fn of_container(container: &Container) -> Self {
        let mut mounts = Self::of_config(&container.raw["HostConfig"], &container.raw["Config"]["Volumes"]);
        for shown in container.raw["Mounts"].as_array().into_iter().flatten() {
            let text = |key: &str| shown[key].as_str().unwrap_or_default();
            let target = clean(text("Destination"));
            let asked = mounts.at(&target).map(|mount| &mount.source);
            let source = match (text("Type"), asked) {
                ("volume", None | Some(MountSource::Anonymous(_))) => volume(text("Name"), ""),
                ("bind", None) => MountSource::Bind(clean(text("Source"))),
                ("tmpfs", None) => MountSource::Tmpfs,
                _ => continue,
            };
            mounts.put(Mount { target, source });
        }
        mounts
    }

    /// With a new anonymous volume at each path that the image declares and that nothing else is mounted on, as the engine
    /// makes them. A mount on a folder above does not keep it from that.
    #[must_use]
    pub fn with_image(mut self, image: &EngineImage) -> Self {
        for target in volumes(&image.raw["Config"]["Volumes"]) {
            if self.at(&target).is_none() {
                self.put(Mount { target, source: MountSource::Anonymous(None) });
            }
        }
        self
    }

    fn of_config(host: &Value, volumes: &Value) -> Self {
        let keys = |value: &Value| -> Vec<String> {
            value.as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect()
        };
        let binds = host["Binds"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let mounts = host["Mounts"].as_array().map(Vec::as_slice).unwrap_or_default();
        Self::of_parts(&keys(volumes), binds, mounts, &keys(&host["Tmpfs"]))
    }

    fn of_parts<'a>(
        volumes: impl IntoIterator<Item = &'a String>,
        binds: impl IntoIterator<Item = &'a str>,
        bodies: &[Value],
        tmpfs: impl IntoIterator<Item = &'a String>,
    ) -> Self {
        let mut mounts = Self::default();
        for target in volumes {
            mounts.put(Mount { target: clean(target), source: MountSource::Anonymous(None) });
        }
        for bind in binds {
            let mut parts = bind.split(':');
            let (target, source) = match (parts.next(), parts.next()) {
                (Some(source), Some(target)) if source.starts_with('/') => {
                    (target, MountSource::Bind(clean(source)))
                }
                (Some(name), Some(target)) => (target, volume(name, "")),
                (Some(target), None) => (target, MountSource::Anonymous(None)),
                (None, _) => continue,
            };
            mounts.put(Mount { target: clean(target), source });
        }
        for mount in bodies {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let from = text(&mount["Source"]);
            let source = match mount["Type"].as_str().unwrap_or("volume") {
                "bind" => MountSource::Bind(clean(&from)),
                "tmpfs" => MountSource::Tmpfs,
                _ => volume(&from, &text(&mount["VolumeOptions"]["Subpath"])),
            };
            mounts.put(Mount { target: clean(&text(&mount["Target"])), source });
        }
        for target in tmpfs {
            mounts.put(Mount { target: clean(target), source: MountSource::Tmpfs });
        }
        mounts
    }

    /// A later mount on a target takes the place of an earlier one.
    fn put(&mut self, mount: Mount) {
        self.0.retain(|known| known.target != mount.target);
        self.0.push(mount);
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Mount> {
        self.0.iter()
    }

    /// The mount on exactly this target.
    pub fn at(&self, target: &str) -> Option<&Mount> {
        self.0.iter().find(|mount| mount.target == target)
    }

    /// The mount that `path` lies on: the innermost decides.
    pub fn covering(&self, path: &str) -> Option<&Mount> {
        self.0.iter().filter(|mount| is_within(path, &mount.target)).max_by_key(|mount| mount.target.len())
    }

    /// Where the bytes of `path` lie.
    pub fn source_of(&self, path: &str) -> Lies {
        let Some(mount) = self.covering(path) else { return Lies::Container };
        let rest = path.strip_prefix(mount.target.trim_end_matches('/')).unwrap_or_default();
        let rest = rest.trim_matches('/');
        match &mount.source {
            MountSource::Bind(folder) => Lies::Host(clean(&format!("{folder}/{rest}"))),
            MountSource::Volume { name, subpath } => {
                let below = clean(&format!("{subpath}/{rest}"));
                Lies::Volume(name.clone(), below.trim_start_matches('/').to_owned())
            }
            MountSource::Anonymous(name) => Lies::Anonymous(name.clone(), rest.to_owned()),
            MountSource::Tmpfs => Lies::Memory,
        }
    }

    /// The anonymous volumes of `self`, a predecessor, that a successor goes on with, as `volume:path`: where it would
    /// otherwise begin with an empty one, or with none.
    pub fn handed_on(&self, successor: &Self) -> Vec<String> {
        let is_free = |target: &str| {
            successor.at(target).is_none_or(|mount| mount.source == MountSource::Anonymous(None))
        };
        let mut carried: Vec<String> = self
            .0
            .iter()
            .filter(|mount| is_free(&mount.target))
            .filter_map(|mount| match &mount.source {
                MountSource::Anonymous(Some(name)) => Some(format!("{name}:{}", mount.target)),
                _ => None,
            })
            .collect();
        carried.sort();
        carried
    }
}

impl Lies {
    /// True where the bytes outlive the container without anybody's help.
    pub fn is_lasting(&self) -> bool {
        matches!(self, Self::Host(_) | Self::Volume(..))
    }

    /// The same of a declaration, which may name an anonymous volume that a container left: whoever names it keeps it.
    pub fn is_kept(&self) -> bool {
        self.is_lasting() || matches!(self, Self::Anonymous(Some(_), _))
    }

    /// True where a successor with `next` finds what a predecessor with `self` left.
    pub fn goes_on_in(&self, next: &Self) -> bool {
        match (self, next) {
            // The predecessor's volume is handed on.
            (Self::Anonymous(_, a), Self::Anonymous(_, b)) => a == b,
            // What is in memory ends with a stop, whatever comes then; and where nothing was kept and nothing is, that is a
            // concern of its own.
            (Self::Memory, _)
            | (Self::Container, Self::Container | Self::Memory | Self::Anonymous(None, _)) => true,
            (a, b) => a == b,
        }
    }
}

impl fmt::Display for Lies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let below = |path: &str| if path.is_empty() { String::new() } else { format!(", in {path}") };
        match self {
            Self::Container => f.write_str("the container itself"),
            Self::Host(path) => write!(f, "the host's {path}"),
            Self::Volume(name, path) => write!(f, "the volume `{name}`{}", below(path)),
            Self::Anonymous(None, _) => f.write_str("a new anonymous volume"),
            Self::Anonymous(Some(name), _) => {
                write!(f, "the anonymous volume {}", name.get(..12).unwrap_or(name))
            }
            Self::Memory => f.write_str("memory"),
        }
    }
}

/// The engine names an anonymous volume by 64 hexadecimal digits.
fn volume(name: &str, subpath: &str) -> MountSource {
    if name.is_empty() {
        MountSource::Anonymous(None)
    } else if name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        MountSource::Anonymous(Some(name.to_owned()))
    } else {
        MountSource::Volume { name: name.to_owned(), subpath: subpath.trim_matches('/').to_owned() }
    }
}

fn volumes(volumes: &Value) -> impl Iterator<Item = String> + '_ {
    volumes.as_object().into_iter().flatten().map(|(target, _)| clean(target))
}

/// True where `path` is `folder` or lies in it. Both are clean and absolute.
pub fn is_within(path: &str, folder: &str) -> bool {
    match path.strip_prefix(folder.trim_end_matches('/')) {
        Some(rest) => rest.is_empty() || rest.starts_with('/'),
        None => false,
    }
}

/// A path without `.`, `..` and double slashes, by its text alone; absolute.
pub fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn declared(body: &Value) -> Mounts {
        crate::deploy::container::Declaration::of(body.as_object().unwrap().clone(), Vec::new()).mounts()
    }

    #[test]
    fn every_shape_of_a_mount_is_read() {
        let mounts = declared(&json!({
            "Volumes": {"/a": {}},
            "HostConfig": {
                "Binds": ["/srv/x:/b:ro", "data:/c:rw", "/d"],
                "Mounts": [
                    {"Type": "volume", "Target": "/e"},
                    {"Type": "volume", "Source": "data", "Target": "/f/", "VolumeOptions": {"Subpath": "sub"}},
                    {"Type": "tmpfs", "Target": "/g"},
                ],
                "Tmpfs": {"/h": "size=1m"},
            },
        }));
        for (path, lies) in [
            ("/a", Lies::Anonymous(None, String::new())),
            ("/b/y", Lies::Host("/srv/x/y".to_owned())),
            ("/c", Lies::Volume("data".to_owned(), String::new())),
            ("/d", Lies::Anonymous(None, String::new())),
            ("/e", Lies::Anonymous(None, String::new())),
            ("/f/y", Lies::Volume("data".to_owned(), "sub/y".to_owned())),
            ("/g", Lies::Memory),
            ("/h", Lies::Memory),
            ("/bb", Lies::Container),
        ] {
            assert_eq!(mounts.source_of(path), lies, "{path}");
        }
    }

    #[test]
    fn paths_are_within_folders_by_their_parts() {
        for (path, folder, within) in [
            ("/usr/local/bin/tars-init", "/usr/local", true),
            ("/usr/local", "/usr/local", true),
            ("/usr/local/bin", "/", true),
            ("/usr/localx", "/usr/local", false),
            ("/usr", "/usr/local", false),
        ] {
            assert_eq!(is_within(path, folder), within, "{path} {folder}");
        }
    }
}
