//! The blob of a layer: the predecessor's or the cache's where the content is known, else made.

use std::io::{self, Write as _};
use std::sync::Arc;

use super::after::{Near, Predecessor};
use super::base::BasePaths;
use super::compress::Compressors;
use super::layer::{self, Folders};
use super::tree::Tree;
use super::{BuildError, LayerInput, Origin, Packed, Settings};
use crate::oci::{Digest, HashingWriter, Layer};
use crate::store::cache::LayerRecord;

/// The predecessor, where it may spare the making of a layer.
pub(super) fn known_blobs(settings: &Settings) -> Option<&Predecessor> {
    settings.predecessor.as_ref().filter(|predecessor| predecessor.has_blobs())
}

/// A layer of the predecessor that stays where it is.
pub(super) fn kept(settings: &Settings, (name, purpose, layer): &(String, String, Layer)) -> Packed {
    Packed {
        name: name.clone(),
        what: purpose.clone(),
        diff_id: layer.diff_id,
        digest: layer.descriptor.digest,
        size: layer.descriptor.size,
        content: None,
        origin: Origin::Kept,
        known: Some(near(settings, layer)),
    }
}

/// The predecessor's blob, read from the cache where that has it.
pub(super) fn near(settings: &Settings, found: &Layer) -> Layer {
    let mut layer = found.clone();
    let (digest, size) = (found.descriptor.digest, found.descriptor.size);
    if settings.cache.holds(&digest, size) {
        let here = settings.cache.source(digest, size);
        layer.source = Arc::new(Near { here, there: found.source.clone() });
    }
    layer
}

/// A layer: the predecessor's or the cache's where the content is known, else made.
pub(super) fn pack(
    settings: &Settings,
    input: &LayerInput,
    contents: &BasePaths,
    compressors: &Compressors,
) -> Result<Packed, BuildError> {
    let cache = &settings.cache;
    let key = layer::key(&input.tree, &contents.folders);
    let packed = |diff_id, digest, size, origin, known| Packed {
        name: input.name.clone(),
        what: input.what.clone(),
        diff_id,
        digest,
        size,
        content: Some(input.tree.size()),
        origin,
        known,
    };
    let failed = BuildError::compress(&input.name);
    let cached = cache.find_proven::<()>(&key);
    if let Some(known) = known_blobs(settings) {
        let diff_id = match (&cached, cache.recall::<Digest>(&hashed(&key))) {
            (Some(record), _) => record.diff_id,
            (None, Some(noted)) => noted,
            (None, None) => {
                let _span = tracing::debug_span!("hash", what = input.name).entered();
                let diff_id = hash(&input.tree, &contents.folders).map_err(&failed)?;
                cache.note(&hashed(&key), &diff_id)?;
                diff_id
            }
        };
        if let Some(found) = known.layer(&diff_id) {
            let near = near(settings, found);
            let (digest, size) = (found.descriptor.digest, found.descriptor.size);
            return Ok(packed(diff_id, digest, size, Origin::Predecessor, Some(near)));
        }
    }
    if let Some(record) = cached {
        return Ok(packed(record.diff_id, record.digest, record.size, Origin::Cache, None));
    }
    let _span = tracing::debug_span!("compress", what = input.name).entered();
    let blob = HashingWriter::new(cache.start()?);
    let mut tar = HashingWriter::new(compressors.writer(blob));
    layer::write(&input.tree, &contents.folders, &mut tar).map_err(&failed)?;
    tar.flush().map_err(&failed)?;
    let (gzip, diff_id, tar_size) = tar.finish();
    let (file, digest, size) = gzip.finish().map_err(&failed)?.finish();
    let record = LayerRecord::new(diff_id, digest, size, tar_size, ());
    cache.keep(&key, file, &record)?;
    Ok(packed(diff_id, digest, size, Origin::Made, None))
}

/// The key of what a layer is uncompressed, where no blob of it was made.
pub(super) fn hashed(key: &Digest) -> Digest {
    Digest::of(format!("tarsup hashed 1\n{key}\n"))
}

/// The diff id of a tree, without its blob.
fn hash(tree: &Tree, folders: &Folders) -> io::Result<Digest> {
    let mut tar = HashingWriter::new(io::sink());
    layer::write(tree, folders, &mut tar)?;
    Ok(tar.finish().1)
}
