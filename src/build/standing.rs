//! An image that another one stands on: its layers stay as they are, and what shows of them is found as an engine finds it.

use std::io::{self, BufReader};
use std::path::Path;

use super::base::{self, BasePaths, Look, Names, Tarball, Tee};
use super::blob::{self, gzipped};
use super::check::CheckError;
use super::compress::{Compressors, GzipWriter};
use super::unpack::{Bounded, UnpackError};
use super::{BuildError, Origin, Packed, Settings};
use crate::contents::Kind;
use crate::limits;
use crate::oci::image::BASE;
use crate::oci::{Digest, HashingReader, HashingWriter, Image, Layer};
use crate::store::Cache;
use crate::store::cache::{Draft, LayerRecord};
use crate::tarball::magic;

/// An image, and what it was called.
#[derive(Clone, Debug)]
pub struct BaseImage {
    /// As the recipe names it.
    pub name: String,
    /// The image.
    pub image: Image,
}

impl BaseImage {
    /// The key of what shows of it: its layers decide that.
    pub(super) fn key(&self) -> Digest {
        let layers: Vec<String> = self.image.diff_ids().iter().map(ToString::to_string).collect();
        Digest::of(format!("tarsup base image 2\n{}\n", layers.join("\n")))
    }

    /// Refuses one for another machine, and one that cannot be stood upon.
    pub(super) fn check(&self, architecture: &str, recipe: &Path) -> Result<(), CheckError> {
        let config: serde_json::Value = serde_json::from_slice(&self.image.config).unwrap_or_default();
        let of = |key: &str| config[key].as_str().unwrap_or_default().to_owned();
        let found = format!("{}/{}", of("os"), of("architecture"));
        if found != format!("linux/{architecture}") {
            return Err(CheckError::BaseMachine {
                base: self.name.clone(),
                found,
                architecture: architecture.to_owned(),
                recipe: recipe.to_owned(),
            });
        }
        let makes = |entry: &&serde_json::Value| entry["empty_layer"] != serde_json::json!(true);
        let told = config["history"].as_array().map_or(0, |history| history.iter().filter(makes).count());
        let layers = self.image.layers.len();
        let why = if layers == 0 {
            "it has no layer".to_owned()
        } else if told > layers {
            format!("its history tells of {told} layers, and it has {layers}")
        } else {
            return Ok(());
        };
        Err(CheckError::BaseImage { base: self.name.clone(), why, recipe: recipe.to_owned() })
    }
}

/// Every layer of the base as it goes into an image, and what shows of all of them.
///
/// Nothing is read where the cache or the predecessor's list knows what shows. A layer that is gzipped stays as it is,
/// whatever its name; any other one is gzipped once.
pub(super) fn pack(
    base: &BaseImage,
    settings: &Settings,
    compressors: &Compressors,
) -> Result<(Vec<Packed>, BasePaths), BuildError> {
    let cache = &settings.cache;
    let known = blob::known_blobs(settings);
    let listed = || known.and_then(|known| known.base_paths(&base.image.diff_ids()));
    let layers: Option<Vec<Packed>> =
        base.image.layers.iter().map(|layer| known_layer(layer, settings)).collect();
    let paths = cache.recall::<BasePaths>(&base.key()).or_else(listed);
    if let Some(found) = layers.zip(paths) {
        return Ok(found);
    }
    let mut folded = Names::default();
    for layer in &base.image.layers {
        let names = read(base, layer, Some((cache, compressors)))?;
        cover(&mut folded, names);
    }
    let paths = folded.finish();
    cache.note(&base.key(), &paths)?;
    let layers = base.image.layers.iter().filter_map(|layer| known_layer(layer, settings)).collect();
    Ok((layers, paths))
}

/// What shows of these layers of an image, all of which are read.
pub(super) fn fold(name: &str, layers: &[Layer]) -> Result<BasePaths, BuildError> {
    let image = Image { manifest: Vec::new(), config: Vec::new(), layers: layers.to_vec() };
    let base = BaseImage { name: name.to_owned(), image };
    let mut folded = Names::default();
    for layer in layers {
        cover(&mut folded, read(&base, layer, None)?);
    }
    Ok(folded.finish())
}

/// A layer as it goes into an image; `None` where it has to be gzipped.
fn known_layer(layer: &Layer, settings: &Settings) -> Option<Packed> {
    let packed = |digest, size, origin, known| Packed {
        name: BASE.to_owned(),
        what: "a layer of the base".to_owned(),
        diff_id: layer.diff_id,
        digest,
        size,
        content: None,
        origin,
        known,
    };
    let before = blob::known_blobs(settings).and_then(|known| known.layer(&layer.diff_id));
    let own = is_gzip(layer).then_some((layer, Origin::Base));
    if let Some((found, origin)) = before.map(|layer| (layer, Origin::Predecessor)).or(own) {
        let near = blob::near(settings, found);
        return Some(packed(near.descriptor.digest, near.descriptor.size, origin, Some(near)));
    }
    let record: LayerRecord<()> = settings.cache.find_proven(&gzipped(&layer.diff_id))?;
    Some(packed(record.digest, record.size, Origin::Cache, None))
}

fn is_gzip(layer: &Layer) -> bool {
    layer.descriptor.is_gzip()
}

/// Reads one layer, and proves that it is what manifest and config say. A blob of a registry is kept in the cache on the way, so
/// that it is not asked for twice; one that is not gzipped comes to lie there as it goes into an image.
fn read(base: &BaseImage, layer: &Layer, keep: Option<(&Cache, &Compressors)>) -> Result<Names, BuildError> {
    let path = Path::new(&base.name);
    let failed = |source| UnpackError::Read { path: path.to_owned(), source };
    let blob = HashingReader::new(layer.source.open().map_err(failed)?);
    let kept = keep.filter(|_| is_gzip(layer) && layer.source.registry().is_some());
    let copy = kept.map(|(cache, _)| cache.start()).transpose()?;
    let blob = Tee { inner: blob, out: Copy(copy), broken: None };
    let stream = BufReader::with_capacity(256 * 1024, blob);
    let tar = magic::open(stream).map_err(|error| unfit(base, &error.to_string()))?;
    let made = match keep.filter(|_| !is_gzip(layer)) {
        Some((cache, compressors)) => {
            let file = HashingWriter::new(cache.start()?);
            Made::Gzip(Box::new(compressors.writer(file)))
        }
        None => Made::Nothing,
    };
    let tar = Bounded::new(tar, limits::UNPACKED.unpacking(layer.descriptor.size));
    let mut tee = Tee { inner: tar, out: HashingWriter::new(made), broken: None };
    let names = base::read_names(path, &mut tee, Tarball::Layer, Look::IntoLibraries);
    if let Some(source) = tee.broken {
        return Err(BuildError::Compress { layer: BASE.to_owned(), source });
    }
    let names = names?;
    let (made, diff_id, tar_size) = tee.out.finish();
    if tee.inner.inner.is_filled() {
        return Err(unfit(base, "zeros follow the end of its gzip, which no engine takes").into());
    }
    let mut blob = tee.inner.inner.into_inner();
    // What may follow the compressed stream is a part of the blob all the same.
    io::copy(&mut blob, &mut io::sink()).map_err(failed)?;
    let blob = blob.into_inner();
    if let Some(source) = blob.broken {
        return Err(BuildError::Compress { layer: BASE.to_owned(), source });
    }
    let (digest, size) = blob.inner.finish();
    if (digest, size) != (layer.descriptor.digest, layer.descriptor.size) {
        return Err(unfit(base, &format!("the bytes of {} are other ones", layer.descriptor.digest)).into());
    }
    if diff_id != layer.diff_id {
        let why = format!("{digest} unpacks to {diff_id}, and its config names {}", layer.diff_id);
        return Err(unfit(base, &why).into());
    }
    if let (Some((cache, _)), Copy(Some(file))) = (kept, blob.out) {
        let record = LayerRecord::new(diff_id, digest, size, tar_size, ());
        cache.keep(&gzipped(&diff_id), file, &record)?;
    }
    if let (Some((cache, _)), Made::Gzip(gzip)) = (keep, made) {
        let (file, digest, size) = gzip.finish().map_err(BuildError::compress(BASE))?.finish();
        cache.keep(&gzipped(&diff_id), file, &LayerRecord::new(diff_id, digest, size, tar_size, ()))?;
    }
    Ok(names)
}

/// A file that is written, or none.
struct Copy(Option<Draft>);

impl io::Write for Copy {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Some(file) => file.write(bytes),
            None => Ok(bytes.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.as_mut().map_or(Ok(()), io::Write::flush)
    }
}

/// What becomes of a layer's tar on its way.
enum Made<'c> {
    Nothing,
    Gzip(Box<GzipWriter<'c, HashingWriter<Draft>>>),
}

impl io::Write for Made<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Gzip(gzip) => gzip.write(bytes),
            Self::Nothing => Ok(bytes.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn unfit(base: &BaseImage, why: &str) -> UnpackError {
    UnpackError::Archive {
        path: base.name.clone().into(),
        why: format!("a layer of the base: {why}"),
        hint: "get the image again, or take another base".to_owned(),
    }
}

/// Puts a layer over what lies below it, as an engine does (image-spec, layer.md).
fn cover(below: &mut Names, mut above: Names) {
    for path in &above.gone {
        below.paths.hide(path, true);
    }
    for folder in &above.opaque {
        below.paths.hide(folder, false);
    }
    for path in above.paths.files.keys() {
        below.paths.make_room(&path, Kind::File);
    }
    for path in above.paths.links.keys() {
        below.paths.make_room(&path, Kind::Link);
    }
    for path in above.paths.folders.keys() {
        below.paths.make_room(&path, Kind::Folder);
    }
    let new = above.gathering.take().unwrap_or_default();
    let shows = |path: &str| below.paths.files.has(path);
    below.gathering.get_or_insert_default().cover(new, shows);
    below.paths.folders.extend(&above.paths.folders);
    below.paths.links.extend(&above.paths.links);
    below.paths.files.extend(&above.paths.files);
}
