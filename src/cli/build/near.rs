//! An image whose layers are not compressed, as an engine has them and `docker save` writes them, with the blobs that store or cache
//! have of the same content: so that the next one is built upon it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use super::workers;
use crate::build::compress::Compressors;
use crate::build::{BuildError, blob};
use crate::cli::inspect::{in_store, is_same, known_as};
use crate::cli::{Failure, Ui};
use crate::engine::EngineImage;
use crate::oci::{Descriptor, Digest, Image, Layer, MediaType};
use crate::store::Cache;
use crate::transport::ImageName;

/// The same image with gzipped layers: the store's where it is there, else layer by layer from the cache, which is given what it
/// lacks: what is built upon it is the same whatever they know.
pub(super) fn gzipped(image: Image, cache: &Cache) -> Result<Image, Failure> {
    let raw: Vec<Layer> = image.layers.iter().filter(|layer| is_raw(layer)).cloned().collect();
    if raw.is_empty() {
        return Ok(image);
    }
    // That of the same config: its layers have the same content.
    if let Some(stored) = stored(|stored| stored.config == image.config) {
        return Ok(stored);
    }
    let diff_ids: Vec<Digest> = raw.iter().map(|layer| layer.diff_id).collect();
    let mut known = cache.blobs_of(&diff_ids);
    let compressors = Compressors::new(workers()?);
    for layer in &raw {
        if let Entry::Vacant(place) = known.entry(layer.diff_id) {
            place.insert(blob::gzip(layer, cache, &compressors)?);
        }
    }
    cache.settle().map_err(BuildError::from)?;
    Ok(with(image, &known, cache))
}

/// The same image. Where several outputs may want its bytes, those that lie in a registry come once: to whoever reads them first, and
/// into the cache.
pub(super) fn shared(mut image: Image, outputs: &[ImageName], cache: &Cache) -> Image {
    if outputs.len() > 1 {
        let is_there = |layer: &&mut Layer| layer.descriptor.is_gzip() && layer.source.registry().is_some();
        for layer in image.layers.iter_mut().filter(is_there) {
            let Descriptor { digest, size, .. } = layer.descriptor;
            layer.source = cache.keeping(Arc::clone(&layer.source), digest, size);
        }
    }
    image
}

/// An image of an engine, where the store has it, or the cache has all that was sent of it from here.
pub(super) fn of_engine(found: &EngineImage) -> Option<Image> {
    stored(|stored| is_same(stored, found)).or_else(|| known_as(found).filter(is_there))
}

/// Says of an image that neither of them has how it is read.
pub(super) fn taking_out(name: &ImageName, ui: &Ui) {
    ui.note(&format!(
        "{name} is known to neither the store nor the cache: it is taken out of the engine, all of it"
    ));
}

fn is_raw(layer: &Layer) -> bool {
    layer.descriptor.is_raw()
}

/// The image of the store that is this one, and whole.
fn stored(is_it: impl Fn(&Image) -> bool) -> Option<Image> {
    in_store(|stored| is_it(stored) && !stored.layers.iter().any(is_raw) && is_there(stored))
}

fn is_there(stored: &Image) -> bool {
    stored.layers.iter().all(|layer| layer.source.open().is_ok())
}

/// The image with the gzipped layers that are known.
fn with(mut image: Image, known: &BTreeMap<Digest, (Digest, u64)>, cache: &Cache) -> Image {
    for layer in image.layers.iter_mut().filter(|layer| is_raw(layer)) {
        if let Some((digest, size)) = known.get(&layer.diff_id).copied() {
            let media_type = MediaType::ImageLayerGzip;
            layer.descriptor = Descriptor { media_type, digest, size, annotations: BTreeMap::new() };
            layer.source = cache.source(digest, size);
        }
    }
    image
}
