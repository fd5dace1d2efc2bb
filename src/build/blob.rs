//! The blob of a layer: the predecessor's or the cache's where the content is known, else made.

use std::io;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::after::{Near, Predecessor};
use super::base::BasePaths;
use super::compress::{Compressors, ENCODER};
use super::layer;
use super::{BuildError, LayerInput, Origin, Packed, Settings};
use crate::oci::{Digest, HashingReader, HashingWriter, Layer};
use crate::store::Cache;
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

/// Whether a layer may be one that the predecessor has.
#[derive(Clone, Copy, Debug)]
pub(super) enum Chance {
    /// It may well be: it is hashed first.
    Even,
    /// It is hashed.
    Told(Hashed),
    /// It holds what changed since: it is compressed and hashed in one, and let go where the predecessor has it after all.
    Slight,
}

/// A layer: the predecessor's or the cache's where the content is known, else made.
pub(super) fn pack(
    settings: &Settings,
    input: &LayerInput,
    contents: &BasePaths,
    compressors: &Compressors,
    chance: Chance,
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
    let of_predecessor = |diff_id: Digest| {
        let found = known_blobs(settings)?.layer(&diff_id)?;
        let near = near(settings, found);
        let (digest, size) = (found.descriptor.digest, found.descriptor.size);
        Some(packed(diff_id, digest, size, Origin::Predecessor, Some(near)))
    };
    let cached = cache.find_proven::<()>(&key);
    if known_blobs(settings).is_some() {
        let diff_id = match (&cached, chance) {
            (Some(record), _) => Some(record.diff_id),
            (None, Chance::Told(hashed)) => Some(hashed.diff_id),
            (None, Chance::Even) => Some(hashed_as(settings, input, contents, &key)?.diff_id),
            (None, Chance::Slight) => cache.recall::<Hashed>(&hashed_key(&key)).map(|hashed| hashed.diff_id),
        };
        if let Some(found) = diff_id.and_then(of_predecessor) {
            return Ok(found);
        }
    }
    if let Some(record) = cached {
        return Ok(packed(record.diff_id, record.digest, record.size, Origin::Cache, None));
    }
    let _span = tracing::debug_span!("compress", what = input.name).entered();
    let mut gzip = compressors.writer(HashingWriter::new(cache.start()?));
    let Hashed { diff_id, size: tar_size, .. } = match chance {
        // The bytes of a tree are this process's own, and stay what they were.
        Chance::Told(hashed) if hashed.is_of_this_run => {
            layer::write(&input.tree, &contents.folders, &mut gzip).map_err(&failed)?;
            hashed
        }
        _ => hashed_into(input, contents, &mut gzip)?,
    };
    let (file, digest, size) = gzip.finish().map_err(&failed)?.finish();
    if let Some(found) = of_predecessor(diff_id) {
        return Ok(found);
    }
    let record = LayerRecord::new(diff_id, digest, size, tar_size, ());
    cache.keep(&key, file, &record)?;
    Ok(packed(diff_id, digest, size, Origin::Made, None))
}

/// Gzips a layer of another image that is not, as it would have been made here, and keeps that.
///
/// # Errors
/// A layer that cannot be read or is not what the image says, and a cache that takes no more.
pub fn gzip(layer: &Layer, cache: &Cache, compressors: &Compressors) -> Result<(Digest, u64), BuildError> {
    let name = layer.diff_id.short();
    let failed = BuildError::compress(&name);
    let mut tar = HashingReader::new(layer.source.open().map_err(&failed)?);
    let mut gzip = compressors.writer(HashingWriter::new(cache.start()?));
    io::copy(&mut tar, &mut gzip).map_err(&failed)?;
    let (diff_id, tar_size) = tar.finish();
    if diff_id != layer.diff_id {
        let why = format!("its bytes are other ones, {diff_id}");
        return Err(failed(io::Error::new(io::ErrorKind::InvalidData, why)));
    }
    let (file, digest, size) = gzip.finish().map_err(&failed)?.finish();
    cache.keep(&gzipped(&diff_id), file, &LayerRecord::new(diff_id, digest, size, tar_size, ()))?;
    Ok((digest, size))
}

/// The key of a layer that was not gzipped, and is in the cache as one that is.
pub(super) fn gzipped(diff_id: &Digest) -> Digest {
    Digest::of(format!("tarsup base layer 1\n{ENCODER}\n{diff_id}\n"))
}

/// What a layer is uncompressed.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Hashed {
    /// The digest of the tar.
    pub(super) diff_id: Digest,
    /// Its size in bytes.
    pub(super) size: u64,
    /// True where this process hashed it, false where the cache knew.
    #[serde(skip)]
    pub(super) is_of_this_run: bool,
}

/// What a layer is uncompressed: as the cache knows it, else made, and thrown away.
pub(super) fn hashed(
    settings: &Settings,
    input: &LayerInput,
    contents: &BasePaths,
) -> Result<Hashed, BuildError> {
    let key = layer::key(&input.tree, &contents.folders);
    match settings.cache.find::<()>(&key) {
        Some(LayerRecord { diff_id, tar_size: size, .. }) => {
            Ok(Hashed { diff_id, size, is_of_this_run: false })
        }
        None => hashed_as(settings, input, contents, &key),
    }
}

fn hashed_as(
    settings: &Settings,
    input: &LayerInput,
    contents: &BasePaths,
    key: &Digest,
) -> Result<Hashed, BuildError> {
    if let Some(noted) = settings.cache.recall(&hashed_key(key)) {
        return Ok(noted);
    }
    let _span = tracing::debug_span!("hash", what = input.name).entered();
    let hashed = hashed_into(input, contents, &mut io::sink())?;
    settings.cache.note(&hashed_key(key), &hashed)?;
    Ok(hashed)
}

/// Hashes a layer's tar on its way out.
fn hashed_into(
    input: &LayerInput,
    contents: &BasePaths,
    out: &mut dyn io::Write,
) -> Result<Hashed, BuildError> {
    let mut tar = HashingWriter::new(out);
    layer::write(&input.tree, &contents.folders, &mut tar).map_err(BuildError::compress(&input.name))?;
    let (_, diff_id, size) = tar.finish();
    Ok(Hashed { diff_id, size, is_of_this_run: true })
}

/// The key of what a layer is uncompressed, where no blob of it was made.
pub(super) fn hashed_key(key: &Digest) -> Digest {
    Digest::of(format!("tarsup hashed 2\n{key}\n"))
}
