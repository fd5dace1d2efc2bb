//! `volumes` and `tmpfs` of a service as the API's `Binds`, `Mounts` and `Tmpfs`, chosen as compose chooses.
//!
//! Source: docker compose v2, pkg/compose/create.go: `Binds` where they suffice (the engine then makes a missing host
//! folder), `Mounts` for what they cannot say.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use super::error::{ComposeError, Result};
use super::paths::host_path;
use super::resource::Resources;
use super::value::{Handling, Keys, boolean, bytes, check_keys, entries, integer, list, text};
use crate::deploy::interpolate::Variables;
use crate::deploy::mounts::clean;
use crate::diagnose::Place;
use crate::yaml::{At, Node, Value};

/// What a service mounts.
#[derive(Default)]
pub(super) struct ServiceMounts {
    /// `HostConfig.Binds`.
    pub binds: Vec<String>,
    /// `HostConfig.Mounts`.
    pub bodies: Vec<Json>,
    /// `HostConfig.Tmpfs`.
    pub tmpfs: Map<String, Json>,
    /// Target → where it is written.
    pub places: BTreeMap<String, Place>,
    /// The keys of the named volumes.
    pub named: Vec<String>,
}

/// One entry of `volumes`, short or long.
#[derive(Default)]
struct VolumeEntry {
    kind: String,
    source: String,
    target: String,
    read_only: bool,
    no_copy: bool,
    propagation: String,
    selinux: String,
    create_host_path: bool,
    recursive: String,
    subpath: String,
    tmpfs_size: Option<i64>,
    tmpfs_mode: Option<i64>,
}

const LONG: &Keys = &[
    ("type", Handling::Done),
    ("source", Handling::Done),
    ("target", Handling::Done),
    ("read_only", Handling::Done),
    ("bind", Handling::Done),
    ("volume", Handling::Done),
    ("tmpfs", Handling::Done),
    // Of effect on macOS only, and deprecated there.
    ("consistency", Handling::Done),
    ("image", Handling::Not("build what it holds into the image")),
];

impl ServiceMounts {
    /// Reads `volumes` and `tmpfs`. Of two mounts on one target the later counts, as in compose.
    pub fn read(service: &Node, resources: &Resources, variables: &Variables) -> Result<Self> {
        let mut wanted: Vec<(VolumeEntry, At)> = Vec::new();
        if let Some(node) = service.get("volumes") {
            for item in list(node, "volumes")? {
                let mount = match item.value {
                    Value::Map(_) => long(item, variables)?,
                    _ => short(&text(item, "volumes")?, &item.at, variables)?,
                };
                let one = (mount, item.at.clone());
                match wanted.iter_mut().find(|(known, _)| known.target == one.0.target) {
                    Some(known) => *known = one,
                    None => wanted.push(one),
                }
            }
        }
        let mut mounts = Self::default();
        for (mount, at) in &wanted {
            mounts.places.insert(mount.target.clone(), at.place());
            mounts.add(mount, at, resources)?;
        }
        if let Some(node) = service.get("tmpfs") {
            let items = match &node.value {
                Value::List(items) => items.iter().collect(),
                Value::Null => Vec::new(),
                _ => vec![node],
            };
            for item in items {
                let written = text(item, "tmpfs")?;
                let (target, options) = written.split_once(':').unwrap_or((&written, ""));
                let target = clean_target(target, &item.at)?;
                mounts.places.insert(target.clone(), item.at.place());
                mounts.tmpfs.insert(target, options.into());
            }
        }
        Ok(mounts)
    }

    fn add(&mut self, mount: &VolumeEntry, at: &At, resources: &Resources) -> Result<()> {
        let source = match mount.kind.as_str() {
            "volume" if mount.source.is_empty() => {
                self.bodies
                    .push(json!({"Type": "volume", "Target": mount.target, "ReadOnly": mount.read_only}));
                return Ok(());
            }
            "volume" => {
                self.named.push(mount.source.clone());
                resources.volume(&mount.source, at)?.name.clone()
            }
            "tmpfs" => {
                let mut options = Map::new();
                options.extend(mount.tmpfs_size.map(|size| ("SizeBytes".to_owned(), size.into())));
                options.extend(mount.tmpfs_mode.map(|mode| ("Mode".to_owned(), mode.into())));
                self.bodies.push(json!({"Type": "tmpfs", "Target": mount.target, "TmpfsOptions": options}));
                return Ok(());
            }
            _ => mount.source.clone(),
        };
        let colon = source.contains(':') || mount.target.contains(':'); // `Binds` separates with it
        let needs_mount = colon
            || if mount.kind == "bind" {
                !mount.create_host_path || !mount.recursive.is_empty()
            } else {
                !mount.subpath.is_empty()
            };
        if needs_mount {
            let mut body = json!({
                "Type": mount.kind, "Source": source, "Target": mount.target, "ReadOnly": mount.read_only,
            });
            if mount.kind == "bind" {
                let mut options = Map::new();
                if !mount.propagation.is_empty() {
                    options.insert("Propagation".to_owned(), mount.propagation.clone().into());
                }
                match mount.recursive.as_str() {
                    "" | "enabled" => {}
                    "disabled" => drop(options.insert("NonRecursive".to_owned(), true.into())),
                    "writable" => drop(options.insert("ReadOnlyNonRecursive".to_owned(), true.into())),
                    "readonly" => drop(options.insert("ReadOnlyForceRecursive".to_owned(), true.into())),
                    other => {
                        return Err(ComposeError::invalid(at, format!("`recursive: {other}` is unknown")));
                    }
                }
                body["BindOptions"] = options.into();
            } else {
                body["VolumeOptions"] = json!({"NoCopy": mount.no_copy, "Subpath": mount.subpath});
            }
            self.bodies.push(body);
            return Ok(());
        }
        let mut options = if mount.read_only { "ro" } else { "rw" }.to_owned();
        for option in [&mount.selinux, &mount.propagation] {
            if !option.is_empty() {
                options = options + "," + option;
            }
        }
        if mount.no_copy {
            options += ",nocopy";
        }
        self.binds.push(format!("{source}:{}:{options}", mount.target));
        Ok(())
    }
}

/// `[source:]target[:options]`
fn short(written: &str, at: &At, variables: &Variables) -> Result<VolumeEntry> {
    let parts: Vec<&str> = written.split(':').collect();
    let (source, target, options) = match parts.as_slice() {
        [target] => ("", *target, ""),
        [source, target] => (*source, *target, ""),
        [source, target, options] => (*source, *target, *options),
        _ => {
            let what = format!("`{written}` is no `source:target[:options]`");
            return Err(ComposeError::invalid(at, what));
        }
    };
    let mut mount =
        VolumeEntry { target: clean_target(target, at)?, create_host_path: true, ..VolumeEntry::default() };
    if parts.len() > 1 && source.is_empty() {
        return Err(ComposeError::invalid(at, format!("`{written}` has no source before the colon")));
    }
    let is_path = source.starts_with(['.', '/', '~']);
    if is_path { "bind" } else { "volume" }.clone_into(&mut mount.kind);
    mount.source = if is_path { host_path(source, at, variables)? } else { source.to_owned() };
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => mount.read_only = true,
            "rw" | "consistent" | "cached" | "delegated" => {}
            "z" | "Z" => option.clone_into(&mut mount.selinux),
            "nocopy" => mount.no_copy = true,
            "shared" | "rshared" | "slave" | "rslave" | "private" | "rprivate" => {
                option.clone_into(&mut mount.propagation);
            }
            _ => return Err(ComposeError::invalid(at, format!("the mount option `{option}` is unknown"))),
        }
    }
    Ok(mount)
}

fn long(node: &Node, variables: &Variables) -> Result<VolumeEntry> {
    check_keys(node, "a mount", LONG)?;
    let field = |key| match node.get(key).filter(|node| !node.is_null()) {
        Some(node) => text(node, key),
        None => Ok(String::new()),
    };
    let mut mount = VolumeEntry {
        kind: field("type")?,
        source: field("source")?,
        target: clean_target(&field("target")?, &node.at)?,
        create_host_path: true,
        ..VolumeEntry::default()
    };
    match mount.kind.as_str() {
        "volume" | "tmpfs" => {}
        "bind" if mount.source.is_empty() => {
            return Err(ComposeError::invalid(&node.at, "a bind without `source`"));
        }
        "bind" => mount.source = host_path(&mount.source, &node.at, variables)?,
        kind => {
            let what = format!("a mount's `type` is volume, bind or tmpfs, not `{kind}`");
            return Err(ComposeError::invalid(&node.at, what));
        }
    }
    if let Some(node) = node.get("read_only") {
        mount.read_only = boolean(node, "read_only")?;
    }
    for part in ["bind", "volume", "tmpfs"] {
        let Some(options) = node.get(part) else { continue };
        for entry in entries(options, part)? {
            let value = &entry.value;
            match (part, entry.key.as_str()) {
                ("bind", "propagation") => mount.propagation = text(value, "propagation")?,
                ("bind", "create_host_path") => mount.create_host_path = boolean(value, "create_host_path")?,
                ("bind", "selinux") => mount.selinux = text(value, "selinux")?,
                ("bind", "recursive") => mount.recursive = text(value, "recursive")?,
                ("volume", "nocopy") => mount.no_copy = boolean(value, "nocopy")?,
                ("volume", "subpath") => mount.subpath = text(value, "subpath")?,
                ("tmpfs", "size") => mount.tmpfs_size = Some(bytes(value, "size")?),
                ("tmpfs", "mode") => mount.tmpfs_mode = Some(integer(value, "mode")?),
                (_, key) => {
                    return Err(ComposeError::UnknownKey {
                        key: key.to_owned(),
                        within: format!("`{part}` of a mount"),
                        meant: None,
                        place: entry.at.place(),
                    });
                }
            }
        }
    }
    Ok(mount)
}

/// The target of a mount, absolute and without `.`, `..` and double slashes.
fn clean_target(written: &str, at: &At) -> Result<String> {
    if written.starts_with('/') {
        Ok(clean(written))
    } else {
        let what = format!("the mount target `{written}` is no absolute path");
        Err(ComposeError::invalid(at, what))
    }
}
