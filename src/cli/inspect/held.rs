//! What an image of an engine is, without taking it out of there: from the engine's own words, the store, the cache, and at most the
//! list of its files.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Needed, Subject, SubjectLayer};
use crate::cli::image;
use crate::cli::places::Places;
use crate::cli::{Failure, Ui};
use crate::contents::{self, Contents, summary};
use crate::engine::{CreateBody, Engine, EngineError, EngineImage, HistoryItem};
use crate::oci::image::{BASE, CREATED_BY};
use crate::oci::{BlobSource, Config, Digest, Image, Layer, Manifest, Reference};
use crate::store::{self, Cache};
use crate::transport::{Source as _, TransportError, daemon::Daemon};

/// The version of the notes; others count as none.
const VERSION: u32 = 1;

/// What is noted of an image under what an engine calls it.
#[derive(Default, Serialize, Deserialize)]
struct Seen {
    version: u32,
    /// Manifest and config, byte for byte, where they were seen.
    image: Option<(String, String)>,
    list: List,
}

/// The list of an image's files.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum List {
    /// Nobody has looked.
    #[default]
    Unread,
    /// It has none.
    Absent,
    Read(Contents),
}

impl From<&Option<Contents>> for List {
    fn from(contents: &Option<Contents>) -> Self {
        contents.clone().map_or(Self::Absent, Self::Read)
    }
}

impl List {
    /// This, or the other where nobody has looked.
    fn or_else(self, other: impl FnOnce() -> Self) -> Self {
        if matches!(self, Self::Unread) { other() } else { self }
    }

    /// The list, where there is one.
    fn contents(self) -> Option<Contents> {
        match self {
            Self::Unread | Self::Absent => None,
            Self::Read(contents) => Some(contents),
        }
    }
}

/// Notes an image that an engine was sent, so that it is known there again. A hint: that it cannot be written is no failure.
pub fn note_sent(image: &Image) {
    note(image, List::Unread);
}

fn note(image: &Image, list: List) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    let Some(bytes) = text(&image.manifest).zip(text(&image.config)) else { return };
    let seen = Seen { version: VERSION, image: Some(bytes), list };
    for id in [image.config_digest(), image.digest()] {
        keep(&id, &seen);
    }
}

fn keep(id: &Digest, seen: &Seen) {
    if let Ok(folder) = store::cache_folder()
        && let Err(error) = Cache::at(folder).note(&key(id), seen)
    {
        tracing::debug!(%error, "what was seen of an image is not noted");
    }
}

fn key(id: &Digest) -> Digest {
    Digest::of(format!("tarsup image of an engine 1\n{id}\n"))
}

/// Shows an image of the engine. One whose bytes are needed is read whole where nothing near has it.
pub(super) fn subject(
    reference: &Reference,
    needed: Needed,
    places: &Places,
    ui: &Ui,
) -> Result<Subject, Failure> {
    let name = reference.to_string();
    let asked = image::transfer(ui, async {
        let engine = places.engine().await?;
        let (found, history) = tokio::join!(engine.inspect_image(&name), engine.image_history(&name));
        Ok::<_, EngineError>((engine, found?, history))
    })?;
    let (engine, found, history) = asked.map_err(TransportError::from)?;
    let found = found.ok_or_else(|| TransportError::Absent {
        name: format!("docker-daemon:{name}"),
        hint: "`tarsup images` lists what the engine holds".to_owned(),
    })?;
    let id: Option<Digest> = found.id.parse().ok();
    let is_it = |image: &Image| is_same(image, &found);
    if let Some(image) = in_store(is_it) {
        return Subject::of(&name, image);
    }
    let seen = id.and_then(|id| recall(&id)).unwrap_or_default();
    let known = seen.image.as_ref().and_then(rebuilt).filter(is_it);
    // What was sent from the cache may still be there.
    let of_cache = || {
        let read = known.as_ref().and_then(|image| Contents::of(image).ok());
        read.as_ref().map_or(List::Unread, List::from)
    };
    let mut listed = seen.list.or_else(of_cache);
    if known.is_none() && needed == Needed::Bytes {
        return whole(reference, places, ui);
    }
    let (mut layers, mut told) = (Vec::new(), None);
    if known.is_none() || matches!(listed, List::Unread) {
        let history = history.map_err(TransportError::from)?;
        let Some(named) = layers_of(&found, &history) else { return whole(reference, places, ui) };
        layers = named;
        told = history.first().and_then(|newest| summary::from_comment(&newest.comment));
    }
    let mut summaries = None;
    if matches!(listed, List::Unread) && layers.last().is_some_and(|layer| layer.name == contents::LAYER) {
        summaries = told.filter(|_| needed == Needed::Parts);
        if summaries.is_none() {
            listed = match image::transfer(ui, list(engine.as_ref(), &found))? {
                Ok(contents) => List::from(&contents),
                Err(error) => {
                    tracing::debug!(%error, "the list of its files cannot be read in the engine");
                    return whole(reference, places, ui);
                }
            };
            if let Some(id) = id {
                keep(&id, &Seen { version: VERSION, image: seen.image, list: listed.clone() });
            }
        }
    }
    let contents = listed.contents();
    if let Some(image) = known {
        return Ok(Subject { summaries, ..Subject::with(image, contents) });
    }
    let told = Told(found);
    let (digest, id, config) = (told.digest(), told.id(), told.config());
    Ok(Subject { digest, id, config, layers, contents, summaries, image: None })
}

/// True for the image that an engine calls by this name: by its config, or with containerd's store by its manifest.
pub fn is_same(image: &Image, found: &EngineImage) -> bool {
    let id = found.id.parse().ok();
    (id == Some(image.config_digest()) || id == Some(image.digest())) && image.diff_ids() == found.diff_ids
}

/// An image of an engine as it was seen before, by manifest and config. Its layers are read from the cache, if they are there.
pub fn known_as(found: &EngineImage) -> Option<Image> {
    let seen = recall(&found.id.parse().ok()?)?;
    rebuilt(seen.image.as_ref()?).filter(|image| is_same(image, found))
}

/// The image whole, out of the engine; noted, so that it is not taken out again.
fn whole(reference: &Reference, places: &Places, ui: &Ui) -> Result<Subject, Failure> {
    ui.note(&format!(
        "docker-daemon:{reference} is known to neither the store nor the cache: it is taken out of the engine, all of it, and known \
         from then on"
    ));
    let read = async { Daemon::new(places.engine().await?, reference.clone()).get().await };
    let image = image::transfer(ui, read)??;
    let subject = Subject::of(&reference.to_string(), image)?;
    if let Some(image) = &subject.image {
        note(image, List::from(&subject.contents));
    }
    Ok(subject)
}

/// The first image of the local store that is the one.
pub fn in_store(is_it: impl Fn(&Image) -> bool) -> Option<Image> {
    let store = store::local().ok()?;
    let listed = store.list().ok()?;
    listed.iter().filter_map(|(_, descriptor)| store.image(descriptor).ok()).find(is_it)
}

fn recall(id: &Digest) -> Option<Seen> {
    let seen: Seen = Cache::at(store::cache_folder().ok()?).recall(&key(id))?;
    (seen.version == VERSION).then_some(seen)
}

/// An image of which the bytes of manifest and config are known; its layers are read from the cache.
fn rebuilt((manifest, config): &(String, String)) -> Option<Image> {
    let parsed = Manifest::parse(manifest.as_bytes()).ok()?;
    let diff_ids = serde_json::from_str::<Config>(config).ok()?.rootfs.diff_ids;
    let cache = Cache::at(store::cache_folder().ok()?);
    let layers = parsed.layers.into_iter().zip(diff_ids).map(|(descriptor, diff_id)| {
        let source: Arc<dyn BlobSource> = cache.source(descriptor.digest, descriptor.size);
        Layer { diff_id, descriptor, source }
    });
    let layers = layers.collect();
    Some(Image { manifest: manifest.clone().into_bytes(), config: config.clone().into_bytes(), layers })
}

/// The layers by the engine's history, the base first. It does not tell which of its entries made none: all of ours did, and they lie
/// on top. `None` where something else lies on them.
fn layers_of(found: &EngineImage, history: &[HistoryItem]) -> Option<Vec<SubjectLayer>> {
    let ours = |item: &HistoryItem| {
        let text = item.created_by.strip_prefix(CREATED_BY)?;
        Some(text.split_once(':').map_or(text, |(name, _)| name).to_owned())
    };
    let on_top: Vec<(String, u64)> =
        history.iter().map_while(|item| Some((ours(item)?, item.size))).collect();
    let below = &history[on_top.len()..];
    let rest = found.diff_ids.len().checked_sub(on_top.len())?;
    if below.iter().any(|item| ours(item).is_some()) {
        return None;
    }
    // An empty layer and none at all look alike.
    let sizes: Vec<u64> = below.iter().map(|item| item.size).filter(|size| *size > 0).rev().collect();
    let size = |index: usize| sizes.get(index).copied().filter(|_| sizes.len() == rest);
    let is_foreign = on_top.is_empty();
    let of_base = (0..rest).map(|index| {
        let name = if is_foreign { format!("layer {}", index + 1) } else { BASE.to_owned() };
        (name, size(index))
    });
    let named = of_base.chain(on_top.into_iter().rev().map(|(name, size)| (name, Some(size))));
    let layer = |((name, unpacked), diff_id): ((String, Option<u64>), &Digest)| SubjectLayer {
        name,
        diff_id: *diff_id,
        stored: None,
        unpacked,
    };
    Some(named.zip(&found.diff_ids).map(layer).collect())
}

/// What the engine itself tells.
struct Told(EngineImage);

impl Told {
    /// containerd's store calls an image by the digest of its manifest, the classic one by that of its config.
    fn is_by_manifest(&self) -> bool {
        let named = |digests: &Vec<Value>| {
            let end = format!("@{}", self.0.id);
            digests.iter().any(|digest| digest.as_str().is_some_and(|digest| digest.ends_with(&end)))
        };
        let raw = &self.0.raw;
        let driver = raw.pointer("/GraphDriver/Name").and_then(Value::as_str);
        raw["RepoDigests"].as_array().is_some_and(named) || matches!(driver, Some("overlayfs" | "native"))
    }

    fn digest(&self) -> Option<Digest> {
        self.is_by_manifest().then(|| self.0.id.parse().ok()).flatten()
    }

    fn id(&self) -> Option<Digest> {
        (!self.is_by_manifest()).then(|| self.0.id.parse().ok()).flatten()
    }

    /// The config, as far as the engine tells it.
    fn config(&self) -> Config {
        let raw = &self.0.raw;
        let mut run = raw["Config"].clone();
        if let Value::Object(run) = &mut run {
            run.retain(|_, value| !value.is_null());
        }
        let mut config = Config {
            created: self.0.created.clone(),
            architecture: self.0.architecture.clone(),
            os: raw["Os"].as_str().unwrap_or_default().to_owned(),
            variant: raw["Variant"].as_str().filter(|variant| !variant.is_empty()).map(str::to_owned),
            config: serde_json::from_value(run).unwrap_or_default(),
            ..Config::default()
        };
        config.rootfs.diff_ids.clone_from(&self.0.diff_ids);
        config
    }
}

/// The list of the image's files, read through a container that is never started, and is removed at once.
async fn list(engine: &dyn Engine, found: &EngineImage) -> io::Result<Option<Contents>> {
    let volumes = found.raw.pointer("/Config/Volumes").and_then(Value::as_object);
    // Otherwise the image's volumes would be made, and stay.
    let tmpfs: BTreeMap<&String, &str> = volumes.into_iter().flatten().map(|(path, _)| (path, "")).collect();
    let body = json!({
        "Image": found.id, "Cmd": ["none"],
        "HostConfig": {"NetworkMode": "none", "Tmpfs": tmpfs},
    });
    let body = CreateBody(body.as_object().cloned().unwrap_or_default());
    // Another one may look at the same image right now.
    let name = format!("tarsup-look-{}", std::process::id());
    let id = engine.create_container(&name, &body).await.map_err(io::Error::other)?;
    let folder = PathBuf::from(contents::FOLDER);
    let above = folder.parent().map(|above| above.display().to_string()).unwrap_or_default();
    let tar = engine.get_archive(&id, &above).await;
    engine.remove_container(&id).await.map_err(io::Error::other)?;
    match tar.map_err(io::Error::other)? {
        Some(tar) => Contents::of_folder(&mut tar.as_slice() as &mut dyn Read, &found.diff_ids),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(layers: usize) -> EngineImage {
        let diff_ids = (0..layers).map(|index| Digest::of(index.to_string())).collect();
        EngineImage { diff_ids, ..EngineImage::default() }
    }

    /// Newest first, as an engine tells it.
    fn named(count: usize, history: &[(&str, u64)]) -> Option<Vec<(String, Option<u64>)>> {
        let item = |(by, size): &(&str, u64)| HistoryItem {
            created_by: (*by).to_owned(),
            comment: String::new(),
            size: *size,
        };
        let history: Vec<HistoryItem> = history.iter().map(item).collect();
        let layers = layers_of(&image(count), &history)?;
        Some(layers.into_iter().map(|layer| (layer.name, layer.unpacked)).collect())
    }

    #[test]
    fn layers_of_ours_are_named_by_the_history_and_those_below_are_the_base() {
        let ours = [("tarsup build contents: a list", 3), ("tarsup build tarsstat: x", 2)];
        let name = |text: &str, size| (text.to_owned(), size);
        let top = [name("tarsstat", Some(2)), name("contents", Some(3))];
        let with = |below: &[(&str, u64)], layers: usize| named(layers, &[&ours[..], below].concat());
        assert_eq!(with(&[("ADD base", 7)], 3).unwrap(), [&[name(BASE, Some(7))][..], &top].concat());
        // An entry without a layer, as CMD is; and one whose size nobody can tell apart from none.
        assert_eq!(with(&[("CMD", 0), ("ADD base", 7)], 3).unwrap()[0], name(BASE, Some(7)));
        assert_eq!(
            with(&[("RUN true", 0), ("ADD base", 7)], 4).unwrap()[..2],
            [name(BASE, None), name(BASE, None)]
        );
        assert_eq!(with(&[], 2).unwrap(), top);
    }

    #[test]
    fn what_lies_on_layers_of_ours_is_not_told_by_a_history() {
        let ours = ("tarsup build tarsstat: x", 2);
        assert_eq!(named(2, &[("RUN true", 1), ours]), None);
        assert_eq!(named(0, &[ours]), None);
        let foreign = named(2, &[("RUN b", 1), ("CMD", 0), ("ADD a", 5)]).unwrap();
        assert_eq!(foreign, [("layer 1".to_owned(), Some(5)), ("layer 2".to_owned(), Some(1))]);
    }
}
