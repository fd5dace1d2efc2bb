//! An image that another one stands on: its layers stay as they are, and what shows of them is found as an engine finds it.

use std::collections::BTreeMap;
use std::io::{self, BufReader};
use std::path::Path;

use super::base::{self, BasePaths, Look, Names, Tarball, Tee};
use super::blob::{self, gzipped};
use super::check::CheckError;
use super::compress::{Compressors, GzipWriter};
use super::layer::Folder;
use super::unpack::{Bounded, UnpackError};
use super::{BuildError, Origin, Packed, Settings};
use crate::contents::Kind;
use crate::diagnose::shown;
use crate::limits;
use crate::oci::image::BASE;
use crate::oci::{Digest, HashingReader, HashingWriter, Image, Layer, Platform, platform};
use crate::paths::{ImagePath, ImagePathBuf};
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
        Digest::of(format!("tarsup base image 4\n{}\n", layers.join("\n")))
    }

    /// Refuses one for another machine, and one that cannot be stood upon.
    pub(super) fn check(&self, platform: &Platform, recipe: &Path) -> Result<(), CheckError> {
        let config: serde_json::Value = serde_json::from_slice(&self.image.config).unwrap_or_default();
        let of = |key: &str| config[key].as_str().unwrap_or_default();
        let (os, architecture, variant) = (of("os"), of("architecture"), of("variant"));
        if !platform.is_that_of(os, architecture, Some(variant)) {
            return Err(CheckError::BaseMachine {
                base: self.name.clone(),
                found: platform::shown(os, architecture, Some(variant)),
                wanted: platform.to_string(),
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
    // Where several outputs want it, it is there by now.
    let is_here = |cache: &Cache| cache.holds(&layer.descriptor.digest, layer.descriptor.size);
    let copy = kept.filter(|(cache, _)| !is_here(cache)).map(|(cache, _)| cache.start()).transpose()?;
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
    if let Some((cache, _)) = kept {
        let record = LayerRecord::new(diff_id, digest, size, tar_size, ());
        match blob.out.0 {
            Some(file) => cache.keep(&gzipped(&diff_id), file, &record)?,
            None => cache.keep_record(&gzipped(&diff_id), &record)?,
        }
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
    below.doubts.append(&mut above.doubts);
    replace_links(below, &above);
    doubt_whiteouts(below, &above);
    for path in &above.gone {
        // An engine's whiteout is a device; the layer's own folder takes its place, and lies over the one below.
        if !above.paths.folders.has(path) {
            below.paths.hide(path, true);
        }
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

/// A folder that a layer deletes and has itself: by the specification what was in it is gone, and engines show it.
fn doubt_whiteouts(below: &mut Names, above: &Names) {
    for path in &above.gone {
        let paths = &above.paths;
        let has_below =
            paths.files.has_below(path) || paths.links.has_below(path) || paths.folders.has_below(path);
        let is_folder_in_both = paths.folders.has(path) && below.paths.kind(path) == Some(Kind::Folder);
        let why = if is_folder_in_both {
            "deletes a folder that its own layer has too: engines show what both layers have in it, and umoci the upper one's alone"
        } else if has_below && !paths.is_named(path) {
            "deletes a folder that its own layer has something in: engines refuse that layer, and umoci takes it"
        } else {
            continue;
        };
        below.doubt(&path.path().whiteout(), why);
    }
}

/// A layer has something below what is a link or a file in the layers below, and no entry for the folder. Engines unpack a layer by
/// itself and lay it over the others: a folder is there then, whatever was before (`tests/docker/bases.rs`).
fn replace_links(below: &mut Names, above: &Names) {
    let mut implied: BTreeMap<ImagePathBuf, String> = BTreeMap::new();
    let mut imply = |folder: ImagePath<'_>, entry: &str| {
        if !folder.is_root() && below.paths.is_link_or_file(&folder) && !above.paths.is_named(&folder) {
            implied.entry(folder.to_buf()).or_insert_with(|| entry.to_owned());
        }
    };
    let named = above.paths.files.keys().chain(above.paths.links.keys()).chain(above.paths.folders.keys());
    for path in named {
        path.path().ancestors().for_each(|folder| imply(folder, &path));
    }
    for path in &above.gone {
        let whiteout = path.path().whiteout();
        path.path().ancestors().for_each(|folder| imply(folder, &whiteout));
    }
    for folder in &above.opaque {
        let entry = format!("{folder}/.wh..wh..opq");
        imply(folder.path(), &entry);
        folder.path().ancestors().for_each(|above| imply(above, &entry));
    }
    for (folder, entry) in implied {
        // What the same layer takes away by name, or with all that is around it, is gone before.
        let within = |taken: &ImagePathBuf| folder.path().ancestors().any(|around| *around == **taken);
        if above.gone.iter().any(|gone| *gone == folder || within(gone)) || above.opaque.iter().any(within) {
            continue;
        }
        let (what, others) = if below.paths.links.has(&folder) {
            ("link", "what unpacks one layer into another (umoci) puts the entry where the link leads")
        } else {
            ("file", "what unpacks one layer into another (umoci) fails")
        };
        let why = format!(
            "lies below the {what} `{}` of a lower layer: engines have a new folder in its place, and {others}",
            shown(&*folder)
        );
        below.doubt(&entry, &why);
        below.paths.hide(&folder, true);
        below.paths.folders.insert(folder.path(), &Folder { mode: 0o755, uid: 0, gid: 0 });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tarball::EntryKind;
    use crate::tarball::header::{self, Header};

    /// `path/`, `path -> target`, `path = file before it`, or a file.
    fn names(entries: &[&str]) -> Names {
        let mut tar = Vec::new();
        for entry in entries {
            let (name, target, kind) = match (entry.split_once(" -> "), entry.split_once(" = ")) {
                (Some((name, target)), _) => (name, target, EntryKind::Symlink),
                (_, Some((name, target))) => (name, target, EntryKind::HardLink),
                _ if entry.ends_with('/') => (*entry, "", EntryKind::Directory),
                _ => (*entry, "", EntryKind::File),
            };
            let mut one = Vec::new();
            let header =
                Header { name, target, kind, mode: 0o755, uid: 0, gid: 0, size: 0, capabilities: None };
            header::write(&mut one, &header).unwrap();
            if kind == EntryKind::HardLink {
                // tarsup writes none: the flag, and eight more in the sum of a header.
                one[156] = b'1';
                let sum = u32::from_str_radix(std::str::from_utf8(&one[148..155]).unwrap(), 8).unwrap() + 1;
                one[148..155].copy_from_slice(format!("{sum:07o}").as_bytes());
            }
            tar.extend(one);
        }
        tar.extend([0; 1024]);
        base::read_names(Path::new("base"), &mut tar.as_slice(), Tarball::Layer, Look::AtNames).unwrap()
    }

    /// What shows, folders that something lies in left out; and what is said.
    fn folded(layers: &[&[&str]]) -> (Vec<String>, Vec<String>) {
        let mut all = Names::default();
        for layer in layers {
            cover(&mut all, names(layer));
        }
        let paths = all.finish();
        let folders = paths.folders.keys().filter(|folder| paths.kind(folder).is_some());
        let empty = folders.filter(|folder| {
            !paths.files.has_below(folder)
                && !paths.links.has_below(folder)
                && !paths.folders.has_below(folder)
        });
        let mut shown: Vec<String> = empty.map(|folder| format!("{folder}/")).collect();
        shown.extend(paths.links.iter().map(|(path, target)| format!("{path} -> {target}")));
        shown.extend(paths.files.keys().map(String::from));
        shown.sort();
        (shown, paths.doubts)
    }

    /// What the three engines showed of the same layers, and umoci where that is something else (`tests/docker/bases.rs`).
    #[test]
    fn entries_below_links_lie_where_engines_put_them_and_are_told() {
        const LINK: &[&str] = &["usr/", "usr/lib/", "usr/lib/a", "lib -> usr/lib"];
        for (layers, shows, says) in [
            (&[LINK, &["lib/x"]][..], &["lib/x", "usr/lib/a"][..], "`lib/x` lies below the link `lib`"),
            (&[LINK, &["lib/d/", "lib/d/x"]], &["lib/d/x", "usr/lib/a"], "lies below the link `lib`"),
            (&[&["lib -> nowhere"], &["lib/x"]], &["lib/x"], "lies below the link `lib`"),
            (&[LINK, &["lib/.wh.a"]], &["lib/", "usr/lib/a"], "`lib/.wh.a` lies below the link `lib`"),
            (&[LINK, &["lib/.wh..wh..opq"]], &["lib/", "usr/lib/a"], "`lib/.wh..wh..opq` lies below"),
            (&[&["lib"], &["lib/x"]], &["lib/x"], "lies below the file `lib`"),
            (
                &[LINK, &["lib/x"], &["lib/y"]],
                &["lib/x", "lib/y", "usr/lib/a"],
                "`lib/x` lies below the link",
            ),
            (&[LINK, &["lib/x"], &["lib/.wh.x"]], &["lib/", "usr/lib/a"], "`lib/x` lies below the link"),
            // All of them agree.
            (&[LINK, &["lib/", "lib/x"]], &["lib/x", "usr/lib/a"], ""),
            (&[LINK, &[".wh.lib"]], &["usr/lib/a"], ""),
            (&[&["usr/", "usr/lib/", "lib -> usr/lib", "lib/x"]], &["lib -> usr/lib", "usr/lib/x"], ""),
            (&[&["p"], &[".wh.p", "p"]], &["p"], ""),
            (&[&["d/", "d/o"], &["d/", "d/n", "d/.wh..wh..opq"]], &["d/n"], ""),
            // What the classic store refuses, and containerd's and umoci take.
            (&[&["p", "p/", "p/x"]], &["p/x"], "`p` is there twice"),
            (&[&["p/", "p/x", "p"]], &["p"], "`p` is there twice"),
            (&[&["q/", "p/", "p/x", "p -> q"]], &["p -> q", "q/"], "`p` is there twice"),
            (&[&["q/", "p -> q", "p/", "p/x"]], &["p/x", "q/"], "`p` is there twice"),
            // What engines merge, and the specification does not.
            (
                &[&["q/", "q/old"], &[".wh.q", "q/", "q/new"]],
                &["q/new", "q/old"],
                "`.wh.q` deletes a folder that its own",
            ),
            // What no engine takes.
            (&[&["q/", "q/old"], &[".wh.q", "q/new"]], &["q/new"], "`.wh.q` deletes a folder that its own"),
            (&[&["p"], &["p", ".wh.p"]], &["p"], "`.wh.p` deletes what the same layer has before it"),
            (&[&["p"], &["h = p"]], &["h", "p"], "`h` is a hard link to a file of another layer"),
        ] {
            let (shown, said) = folded(layers);
            assert_eq!(shown, shows, "{layers:?}");
            assert_eq!(said.len(), usize::from(!says.is_empty()), "{layers:?}: {said:?}");
            assert!(said.iter().all(|said| said.contains(says)), "{layers:?}: {said:?}");
        }
    }
}
