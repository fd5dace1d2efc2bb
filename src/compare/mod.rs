//! What differs between two images: layers by name, files within a changed layer, and what a host would be sent.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufReader, Read};

use serde::Serialize;
use serde_json::Value;

use crate::contents::{Contents, Entry, Kind, Part};
use crate::diagnose::shown_bytes;
use crate::limits::{self, Beyond};
use crate::oci::{Digest, HashingWriter, Image, Layer};
use crate::paths::{self, ImagePathBuf, LayerName, Packed, Paths, put_number, take_number};
use crate::tarball::{EntryKind, TarReader, magic};

/// The differences of two images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diff {
    /// Layers that both have.
    pub same: Vec<LayerSize>,
    /// Layers of one name with different content.
    pub changed: Vec<ChangedLayer>,
    /// Layers that only the second has.
    pub added: Vec<LayerSize>,
    /// Layers that only the first has.
    pub removed: Vec<LayerSize>,
    /// What differs in the config besides layers, history and dates.
    pub config: Vec<ConfigChange>,
    /// What a classic engine that has the first is sent: it needs everything after the first difference.
    pub classic: Sent,
    /// What an engine with containerd's store is sent: the blobs that it lacks.
    pub containerd: Sent,
}

/// A layer, or all layers of one name, and its size as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LayerSize {
    /// The layer's name.
    pub name: String,
    /// Bytes, as stored.
    pub size: u64,
}

/// A layer that has other content now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChangedLayer {
    /// The layer's name.
    pub name: String,
    /// Bytes before, as stored.
    pub from: u64,
    /// Bytes now, as stored.
    pub to: u64,
    /// The files that differ, by path.
    pub files: Vec<FileChange>,
}

/// A file, folder or link that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileChange {
    /// The path in the image.
    pub path: String,
    /// Bytes before; `None` where it was not there.
    pub from: Option<u64>,
    /// Bytes now; `None` where it is there no more.
    pub to: Option<u64>,
}

/// A value of the config that differs. Values of environment variables are not told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConfigChange {
    /// Such as `Labels.org.opencontainers.image.version`.
    pub key: String,
    /// Before.
    pub from: Option<String>,
    /// Now.
    pub to: Option<String>,
}

/// How much travels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sent {
    /// Layers.
    pub layers: usize,
    /// Their bytes, as stored.
    pub bytes: u64,
}

/// Compares two images.
///
/// # Errors
/// A layer that differs and cannot be read.
pub fn diff(from: &Image, to: &Image) -> io::Result<Diff> {
    let mut diff = Diff {
        same: Vec::new(),
        changed: Vec::new(),
        added: Vec::new(),
        removed: Vec::new(),
        config: config_changes(from, to),
        classic: after_common_chain(from, to),
        containerd: missing_blobs(from, to),
    };
    match (Contents::of(from)?, Contents::of(to)?) {
        (Some(old), Some(new)) => by_lists(from, &old, to, &new, &mut diff)?,
        _ => by_layers(from, to, &mut diff)?,
    }
    Ok(diff)
}

/// What is visible, by the lists that both images carry: no layer is opened but a base that differs.
fn by_lists(from: &Image, old: &Contents, to: &Image, new: &Contents, diff: &mut Diff) -> io::Result<()> {
    for (name, part) in in_order(to, new) {
        let now = LayerSize { name: name.to_owned(), size: size_of(to, part) };
        let Some(before) = old.parts.get(name).filter(|before| !before.entries.is_empty()) else {
            diff.added.push(now);
            continue;
        };
        if before.layers == part.layers {
            diff.same.push(now);
            continue;
        }
        let files = match (listed(before), listed(part)) {
            (Some(before), Some(part)) => file_changes(before, part),
            _ => file_changes(read(from, before)?.iter(), read(to, part)?.iter()),
        };
        if files.is_empty() {
            diff.same.push(now);
            continue;
        }
        diff.changed.push(ChangedLayer { name: now.name, from: size_of(from, before), to: now.size, files });
    }
    let is_gone = |name: &str| new.parts.get(name).is_none_or(|part| part.entries.is_empty());
    let gone = in_order(from, old).into_iter().filter(|(name, _)| is_gone(name));
    diff.removed =
        gone.map(|(name, part)| LayerSize { name: name.to_owned(), size: size_of(from, part) }).collect();
    Ok(())
}

/// The parts with something in them, as their lowest layers lie.
fn in_order<'c>(image: &Image, contents: &'c Contents) -> Vec<(&'c str, &'c Part)> {
    let ids = image.diff_ids();
    let place = |part: &Part| part.layers.first().and_then(|first| ids.iter().position(|id| id == first));
    let mut parts: Vec<(&str, &Part)> = contents
        .parts
        .iter()
        .filter(|(_, part)| !part.entries.is_empty())
        .map(|(name, part)| (name.as_str(), part))
        .collect();
    parts.sort_by_key(|(_, part)| place(part));
    parts
}

fn layers_of<'i>(image: &'i Image, part: &'i Part) -> impl Iterator<Item = &'i Layer> {
    image.layers.iter().filter(|layer| part.layers.contains(&layer.diff_id))
}

fn size_of(image: &Image, part: &Part) -> u64 {
    layers_of(image, part).map(|layer| layer.descriptor.size).sum()
}

/// What a list says of a part, in order; `None` where it does not know the bytes of its files: of a base.
fn listed(part: &Part) -> Option<impl Iterator<Item = (ImagePathBuf, File)>> {
    let is_known = |entry: Entry| entry.kind != Kind::File || entry.digest.is_some();
    part.entries.values().all(is_known).then(|| {
        part.entries.iter().map(|(path, entry)| {
            let kind = match entry.kind {
                Kind::File => EntryKind::File,
                Kind::Folder => EntryKind::Directory,
                Kind::Link => EntryKind::Symlink,
            };
            let file = LayerFile {
                kind,
                mode: entry.mode,
                owner: (entry.uid, entry.gid),
                target: entry.target.into_bytes(),
                attributes: Vec::new(),
                content: entry.digest.filter(|_| entry.kind == Kind::File),
            };
            (path, File { size: entry.size, print: file.print() })
        })
    })
}

fn read(image: &Image, part: &Part) -> io::Result<Paths<File>> {
    let mut found = Paths::default();
    for layer in layers_of(image, part) {
        files(layer, &mut found)?;
    }
    Ok(found)
}

/// Layers by name: images without lists.
fn by_layers(from: &Image, to: &Image, diff: &mut Diff) -> io::Result<()> {
    let (old, new) = (named(from), named(to));
    let old_ids: BTreeSet<Digest> = from.diff_ids().into_iter().collect();
    let new_ids: BTreeSet<Digest> = to.diff_ids().into_iter().collect();
    let gone: BTreeMap<&str, &Layer> = old
        .iter()
        .filter(|(_, layer)| !new_ids.contains(&layer.diff_id))
        .map(|(name, layer)| (name.as_str(), *layer))
        .collect();
    let mut replaced = BTreeSet::new();
    for (name, layer) in &new {
        if old_ids.contains(&layer.diff_id) {
            diff.same.push(size(name, layer));
        } else if let Some(before) = gone.get(name.as_str()) {
            replaced.insert(name.as_str());
            let (mut old, mut new) = (Paths::default(), Paths::default());
            files(before, &mut old)?;
            files(layer, &mut new)?;
            diff.changed.push(ChangedLayer {
                name: name.clone(),
                from: before.descriptor.size,
                to: layer.descriptor.size,
                files: file_changes(old.iter(), new.iter()),
            });
        } else {
            diff.added.push(size(name, layer));
        }
    }
    diff.removed = old
        .iter()
        .filter(|(name, layer)| !new_ids.contains(&layer.diff_id) && !replaced.contains(name.as_str()))
        .map(|(name, layer)| size(name, layer))
        .collect();
    Ok(())
}

fn named(image: &Image) -> Vec<(String, &Layer)> {
    image.layer_names().into_iter().zip(&image.layers).collect()
}

fn size(name: &str, layer: &Layer) -> LayerSize {
    LayerSize { name: name.to_owned(), size: layer.descriptor.size }
}

/// A classic engine finds a layer by the chain below it.
fn after_common_chain(from: &Image, to: &Image) -> Sent {
    let common =
        from.layers.iter().zip(&to.layers).take_while(|(old, new)| old.diff_id == new.diff_id).count();
    sum(to.layers.iter().skip(common))
}

fn missing_blobs(from: &Image, to: &Image) -> Sent {
    // By diff id, not by blob: an image that was read out of an engine may have its layers uncompressed.
    let present: BTreeSet<Digest> = from.diff_ids().into_iter().collect();
    sum(to.layers.iter().filter(|layer| !present.contains(&layer.diff_id)))
}

fn sum<'a>(layers: impl Iterator<Item = &'a Layer>) -> Sent {
    layers.fold(Sent::default(), |sent, layer| Sent {
        layers: sent.layers + 1,
        bytes: sent.bytes + layer.descriptor.size,
    })
}

/// What is at a path: two that are equal need not be told.
struct LayerFile {
    kind: EntryKind,
    mode: u32,
    owner: (u64, u64),
    target: Vec<u8>,
    attributes: Vec<(String, Vec<u8>)>,
    content: Option<Digest>,
}

/// What is kept of it: two images may have hundreds of thousands.
#[derive(PartialEq, Eq)]
struct File {
    size: u64,
    /// The digest of all else.
    print: Digest,
}

impl LayerFile {
    fn print(&self) -> Digest {
        let Self { kind, mode, owner, target, attributes, content } = self;
        Digest::of(format!("{kind:?} {mode} {owner:?} {target:?} {attributes:?} {content:?}"))
    }
}

impl Packed for File {
    fn pack(&self, out: &mut Vec<u8>) {
        put_number(out, self.size);
        out.extend_from_slice(self.print.as_bytes());
    }

    fn unpack(mut bytes: &[u8]) -> Self {
        let size = take_number(&mut bytes);
        Self { size, print: Digest::take(&mut bytes) }
    }
}

/// A layer's tar, no more of it than one may unpack to.
struct Within<R> {
    inner: R,
    rest: u64,
}

impl<R: Read> Read for Within<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.rest = self.rest.checked_sub(read as u64).ok_or(Beyond(&limits::UNPACKED))?;
        Ok(read)
    }
}

/// Path → what is there, and what takes something away. What lies in a lower layer is replaced.
fn files(layer: &Layer, found: &mut Paths<File>) -> io::Result<()> {
    let stream = BufReader::with_capacity(256 * 1024, layer.source.open()?);
    let inner = magic::open(stream).map_err(io::Error::other)?;
    let mut tar = TarReader::new(Within { inner, rest: limits::UNPACKED.unpacking(layer.descriptor.size) });
    let mut entries = 0;
    while let Some(entry) = tar.next_entry().map_err(io::Error::other)? {
        entries += 1;
        limits::ENTRIES.allow(entries)?;
        let Some(path) = LayerName::read(&entry.name)?.in_layer() else { continue };
        let mut out = HashingWriter::new(io::sink());
        io::copy(&mut tar.content(&entry), &mut out)?;
        let (_, content, size) = out.finish();
        let owner = (entry.uid, entry.gid);
        let content = (entry.kind == EntryKind::File).then_some(content);
        let (kind, mode) = (entry.kind, entry.mode);
        let (target, attributes) = (entry.target, entry.attributes);
        let file = LayerFile { kind, mode, owner, target, attributes, content };
        found.insert(path.path(), &File { size, print: file.print() });
        paths::within()?;
    }
    Ok(())
}

/// Both in byte order of their paths.
fn file_changes(
    old: impl Iterator<Item = (ImagePathBuf, File)>,
    new: impl Iterator<Item = (ImagePathBuf, File)>,
) -> Vec<FileChange> {
    let (mut old, mut new) = (old.peekable(), new.peekable());
    let mut changes = Vec::new();
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return changes,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((before, _)), Some((now, _))) => before.cmp(now),
        };
        let before = old.next_if(|_| order.is_le());
        let now = new.next_if(|_| order.is_ge());
        if let (Some((_, before)), Some((_, now))) = (&before, &now)
            && before == now
        {
            continue;
        }
        let size = |side: &Option<(ImagePathBuf, File)>| side.as_ref().map(|(_, file)| file.size);
        let (from, to) = (size(&before), size(&now));
        if let Some((path, _)) = before.or(now) {
            changes.push(FileChange { path: format!("/{}", shown_bytes(path.as_bytes())), from, to });
        }
    }
}

fn config_changes(from: &Image, to: &Image) -> Vec<ConfigChange> {
    let (old, new) = (flattened(from), flattened(to));
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let told = |key: &str, value: Option<&String>| {
        value.map(|value| if key.starts_with("Env.") { "(not shown)".to_owned() } else { value.clone() })
    };
    keys.into_iter()
        .filter(|key| old.get(*key) != new.get(*key))
        .map(|key| ConfigChange {
            key: key.clone(),
            from: told(key, old.get(key)),
            to: told(key, new.get(key)),
        })
        .collect()
}

/// `config` of an image config as one level of keys; environment variables by name.
fn flattened(image: &Image) -> BTreeMap<String, String> {
    let mut flat = BTreeMap::new();
    let config: Value = serde_json::from_slice(&image.config).unwrap_or_default();
    for key in ["architecture", "os"] {
        flat.insert(key.to_owned(), config.get(key).map(shown).unwrap_or_default());
    }
    let Some(run) = config.get("config").and_then(Value::as_object) else { return flat };
    for (key, value) in run {
        match (key.as_str(), value) {
            (_, Value::Object(inner)) => {
                flat.extend(inner.iter().map(|(name, value)| (format!("{key}.{name}"), shown(value))));
            }
            ("Env", Value::Array(variables)) => {
                for variable in variables.iter().filter_map(Value::as_str) {
                    let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
                    flat.insert(format!("Env.{name}"), value.to_owned());
                }
            }
            (_, Value::Null) => {}
            _ => {
                flat.insert(key.clone(), shown(value));
            }
        }
    }
    flat
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)
}
