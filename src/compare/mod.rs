//! What differs between two images: layers by name, files within a changed layer and what of them, and what a host would be sent.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use serde::Serialize;

use crate::contents::{Contents, Entry, Offers, Part};
use crate::diagnose::shown_bytes;
use crate::oci::{Digest, Image, Layer};
use crate::paths::{ImagePathBuf, Paths};

mod config;
mod details;
mod inside;
mod kind;
mod layers;
mod settings;
mod statements;
mod told;

pub use config::ValueChange;
pub use details::{Change, Details, Names, TableChange, TableState};
use inside::Wanted;
pub use kind::FileKind;
use layers::File;

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
    /// Parts whose files are the same, and that are packed otherwise.
    pub packing: Vec<Packing>,
    /// Of layers that only one of them has: the files with setuid or setgid bits or capabilities, by path.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub privileges: Vec<ValueChange>,
    /// What differs in the config besides layers, history and dates.
    pub config: Vec<ValueChange>,
    /// What a classic engine that has the first is sent over a network: everything after the first difference, as stored.
    pub classic: Sent,
    /// The same where the engine is reached through a Unix socket: it is sent tars.
    pub classic_near: Sent,
    /// What an engine with containerd's store is sent: the blobs that it lacks.
    pub containerd: Sent,
}

/// A part with the same files, which somebody packed anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Packing {
    /// The name of its layers.
    pub name: String,
    /// The digests of the packages that it was made of, where both are known and differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package: Option<Change>,
    /// The diff ids of its layers, the lowest first, where these differ: in times or order, or in what lies in which.
    #[serde(skip_serializing_if = "Names::is_empty")]
    pub layers: Names,
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
    /// Of a base: the Debian packages that differ, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<ValueChange>,
}

/// A file, folder or link that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileChange {
    /// The path in the image.
    pub path: String,
    /// What it is, or was where it is gone.
    pub kind: FileKind,
    /// Bytes before; `None` where it was not there.
    pub from: Option<u64>,
    /// Bytes now; `None` where it is there no more.
    pub to: Option<u64>,
    /// What differs besides.
    #[serde(flatten)]
    pub details: Option<Box<Details>>,
}

/// How much travels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sent {
    /// Layers.
    pub layers: usize,
    /// Their bytes in the form in which they are sent, without what wraps them.
    pub bytes: u64,
}

/// Name of a layer → the package that it was made of, where that is known.
pub type Packages = BTreeMap<String, Digest>;

/// Compares two images. `packages`: what is known of each beside its bytes.
///
/// # Errors
/// A layer that differs and cannot be read.
pub fn diff(from: &Image, to: &Image, packages: [&Packages; 2]) -> io::Result<Diff> {
    let mut diff = Diff {
        same: Vec::new(),
        changed: Vec::new(),
        added: Vec::new(),
        removed: Vec::new(),
        packing: Vec::new(),
        privileges: Vec::new(),
        config: config::changes(from, to),
        classic: sum(after_common_chain(from, to), stored),
        classic_near: sum(after_common_chain(from, to), Layer::sent_as_tar),
        containerd: missing_blobs(from, to),
    };
    match (Contents::of(from)?, Contents::of(to)?) {
        (Some(old), Some(new)) => by_lists(from, &old, to, &new, &mut diff)?,
        _ => by_layers(from, to, &mut diff)?,
    }
    for LayerSize { name, .. } in &diff.same {
        let [old, new] = packages.map(|packages| packages.get(name).map(Digest::to_string));
        if old.is_none() || new.is_none() || old == new {
            continue;
        }
        let package = Some(Change { from: old, to: new });
        match diff.packing.iter_mut().find(|packing| packing.name == *name) {
            Some(packing) => packing.package = package,
            None => diff.packing.push(Packing { name: name.clone(), package, layers: Names::default() }),
        }
    }
    Ok(diff)
}

/// One image's side of a part that both have.
struct Side<'i> {
    /// Its layers, the lowest first.
    layers: Vec<&'i Layer>,
    /// What its list knows of machine code.
    offers: Option<&'i Offers>,
    /// What its list says of each path.
    entries: Option<&'i Paths<Entry>>,
}

/// What is visible, by the lists that both images carry: no layer is opened but a base that differs, and those with settings or
/// statements that differ.
fn by_lists(from: &Image, old: &Contents, to: &Image, new: &Contents, diff: &mut Diff) -> io::Result<()> {
    for (name, part) in in_order(to, new) {
        let now = LayerSize { name: name.to_owned(), size: size_of(to, part) };
        let Some(before) = old.parts.get(name).filter(|before| !before.entries.is_empty()) else {
            diff.added.push(now);
            diff.privileges.extend(privileged(part, true));
            continue;
        };
        if before.layers == part.layers {
            diff.same.push(now);
            continue;
        }
        let sides = [(from, before), (to, part)].map(|(image, part)| Side {
            layers: layers_of(image, part),
            offers: part.offers.as_ref(),
            entries: Some(&part.entries),
        });
        let files = match (layers::listed(before), layers::listed(part)) {
            (Some(before), Some(part)) => file_changes(name, &sides, before, part),
            _ => file_changes(name, &sides, read(&sides[0])?.iter(), read(&sides[1])?.iter()),
        };
        if files.is_empty() {
            diff.packing.push(packed_anew(name, &before.layers, &part.layers));
            diff.same.push(now);
            continue;
        }
        let (from, packages) = (size_of(from, before), packages(before, part));
        diff.changed.push(ChangedLayer { name: now.name, from, to: now.size, files, packages });
    }
    let is_gone = |name: &str| new.parts.get(name).is_none_or(|part| part.entries.is_empty());
    let gone: Vec<(&str, &Part)> =
        in_order(from, old).into_iter().filter(|(name, _)| is_gone(name)).collect();
    diff.privileges.extend(gone.iter().flat_map(|(_, part)| privileged(part, false)));
    diff.removed = gone
        .into_iter()
        .map(|(name, part)| LayerSize { name: name.to_owned(), size: size_of(from, part) })
        .collect();
    Ok(())
}

/// What of a part that came or went lets programs do more than who starts them.
fn privileged(part: &Part, came: bool) -> impl Iterator<Item = ValueChange> {
    part.entries.iter().filter_map(move |(path, entry)| {
        let [from, to] = [!came, came].map(|there| entry.privileges().filter(|_| there));
        (from != to).then(|| ValueChange { key: format!("/{}", shown_bytes(path.as_bytes())), from, to })
    })
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

/// The layers of a part, as its entries count them.
fn layers_of<'i>(image: &'i Image, part: &Part) -> Vec<&'i Layer> {
    let named = |id: &Digest| image.layers.iter().find(|layer| layer.diff_id == *id);
    part.layers.iter().filter_map(named).collect()
}

fn size_of(image: &Image, part: &Part) -> u64 {
    layers_of(image, part).into_iter().map(|layer| layer.descriptor.size).sum()
}

fn read(side: &Side<'_>) -> io::Result<Paths<File>> {
    let mut found = Paths::default();
    for (index, layer) in side.layers.iter().enumerate() {
        layers::read(layer, index, &mut found)?;
    }
    Ok(found)
}

/// The Debian packages that differ.
fn packages(old: &Part, new: &Part) -> Vec<ValueChange> {
    let none = BTreeMap::new();
    let [old, new] = [old, new].map(|part| part.offers.as_ref().map_or(&none, |offers| &offers.packages));
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let version =
        |of: &BTreeMap<String, String>, name: &String| of.get(name).map(|version| told::text(version));
    names
        .into_iter()
        .filter(|name| old.get(*name) != new.get(*name))
        .map(|name| ValueChange { key: told::text(name), from: version(old, name), to: version(new, name) })
        .collect()
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
            let sides =
                [*before, *layer].map(|layer| Side { layers: vec![layer], offers: None, entries: None });
            let files = file_changes(name, &sides, read(&sides[0])?.iter(), read(&sides[1])?.iter());
            if files.is_empty() {
                diff.packing.push(packed_anew(name, &[before.diff_id], &[layer.diff_id]));
                diff.same.push(size(name, layer));
                continue;
            }
            diff.changed.push(ChangedLayer {
                name: name.clone(),
                from: before.descriptor.size,
                to: layer.descriptor.size,
                files,
                packages: Vec::new(),
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

/// Both in byte order of their paths.
fn file_changes(
    part: &str,
    sides: &[Side<'_>; 2],
    old: impl Iterator<Item = (ImagePathBuf, File)>,
    new: impl Iterator<Item = (ImagePathBuf, File)>,
) -> Vec<FileChange> {
    let mut changes: Vec<FileChange> = Vec::new();
    let mut wanted = Vec::new();
    let offers = [0, 1].map(|side: usize| sides[side].offers);
    layers::changes(old, new, &mut |path, before, now| {
        let [was, is] = [(&before, &sides[0]), (&now, &sides[1])]
            .map(|(file, side)| file.as_ref().map(|file| kind::of(part, &path, file, side.offers)));
        let Some(kind) = is.or(was) else { return };
        let mut details = Details::of_entries(before.as_ref(), now.as_ref());
        details.was = was.filter(|was| is.is_some() && *was != kind);
        if kind == FileKind::Link && was == is {
            details.link([0, 1].map(|side: usize| Some(sides[side].entries?.get(&path)?.target)));
        }
        details.code(&path, [&before, &now].map(Option::is_some), offers);
        wanted.extend(Wanted::of(
            part,
            &path,
            kind,
            [before.as_ref(), now.as_ref()],
            (changes.len(), sides[1].entries.is_some()),
        ));
        changes.push(FileChange {
            path: format!("/{}", shown_bytes(path.as_bytes())),
            kind,
            from: before.map(|file| file.size),
            to: now.map(|file| file.size),
            details: details.boxed(),
        });
    });
    inside::look(wanted, [&sides[0].layers, &sides[1].layers], &mut changes);
    changes
}

fn packed_anew(name: &str, old: &[Digest], new: &[Digest]) -> Packing {
    let told = |layers: &[Digest], others: &[Digest]| {
        layers.iter().filter(|layer| !others.contains(layer)).map(Digest::to_string).collect()
    };
    let layers = Names { added: told(new, old), removed: told(old, new) };
    Packing { name: name.to_owned(), package: None, layers }
}

fn named(image: &Image) -> Vec<(String, &Layer)> {
    image.layer_names().into_iter().zip(&image.layers).collect()
}

fn size(name: &str, layer: &Layer) -> LayerSize {
    LayerSize { name: name.to_owned(), size: layer.descriptor.size }
}

/// A classic engine finds a layer by the chain below it.
fn after_common_chain<'i>(from: &Image, to: &'i Image) -> &'i [Layer] {
    let common =
        from.layers.iter().zip(&to.layers).take_while(|(old, new)| old.diff_id == new.diff_id).count();
    &to.layers[common..]
}

fn missing_blobs(from: &Image, to: &Image) -> Sent {
    // By diff id, not by blob: an image that was read out of an engine may have its layers uncompressed.
    let present: BTreeSet<Digest> = from.diff_ids().into_iter().collect();
    sum(to.layers.iter().filter(|layer| !present.contains(&layer.diff_id)), stored)
}

fn stored(layer: &Layer) -> u64 {
    layer.descriptor.size
}

/// What travels of these layers; two of one content are sent once.
fn sum<'i>(layers: impl IntoIterator<Item = &'i Layer>, bytes: impl Fn(&Layer) -> u64) -> Sent {
    let (mut sent, mut seen) = (Sent::default(), BTreeSet::new());
    for layer in layers {
        sent.layers += 1;
        if seen.insert(layer.diff_id) {
            sent.bytes += bytes(layer);
        }
    }
    sent
}
