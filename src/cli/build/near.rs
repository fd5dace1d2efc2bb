//! An image whose layers are not compressed, as `docker save` writes them, with the blobs that store or cache have of the same
//! content: so that the next one is built upon it.

use std::collections::BTreeMap;

use crate::oci::{Descriptor, Digest, Image, Layer, MediaType};
use crate::store::{self, Cache};

/// The same image, gzipped where that is known: the store's where it is there, else layer by layer from the cache. What neither
/// knows is as it was.
pub(super) fn gzipped(image: Image) -> Image {
    let raw: Vec<Digest> =
        image.layers.iter().filter(|layer| is_raw(layer)).map(|layer| layer.diff_id).collect();
    if raw.is_empty() {
        return image;
    }
    match in_store(&image) {
        Some(stored) => stored,
        None => from_cache(image, &raw),
    }
}

fn is_raw(layer: &Layer) -> bool {
    match &layer.descriptor.media_type {
        MediaType::ImageLayer => true,
        MediaType::Other(other) => other == "application/vnd.docker.image.rootfs.diff.tar",
        _ => false,
    }
}

/// The image of the same config: its layers have the same content.
fn in_store(image: &Image) -> Option<Image> {
    let store = store::local().ok()?;
    let listed = store.list().ok()?;
    let mut stored = listed.iter().filter_map(|(_, descriptor)| store.image(descriptor).ok());
    stored
        .find(|stored| stored.config == image.config && !stored.layers.iter().any(is_raw) && is_there(stored))
}

fn is_there(stored: &Image) -> bool {
    stored.layers.iter().all(|layer| layer.source.open().is_ok())
}

fn from_cache(mut image: Image, raw: &[Digest]) -> Image {
    let Ok(folder) = store::cache_folder() else { return image };
    let cache = Cache::at(folder);
    let known = cache.blobs_of(raw);
    for layer in image.layers.iter_mut().filter(|layer| is_raw(layer)) {
        if let Some((digest, size)) = known.get(&layer.diff_id).copied() {
            let media_type = MediaType::ImageLayerGzip;
            layer.descriptor = Descriptor { media_type, digest, size, annotations: BTreeMap::new() };
            layer.source = cache.source(digest, size);
        }
    }
    image
}
