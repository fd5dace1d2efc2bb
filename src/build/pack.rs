//! Trees become layers: taken from the cache or the predecessor where the content is known, made where it is not.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;

use super::after::{self, Near, Predecessor};
use super::base::{self, BasePaths};
use super::compress::Compressors;
use super::layer::{self, Folders};
use super::tree::Tree;
use super::{
    BaseInput, BuildError, Built, LayerInput, Packed, PlannedLayer, PreparedBuild, check, image, listing,
    package, parallel, prepare_with,
};
use crate::contents::{self, Part};
use crate::oci::{Digest, HashingWriter, Layer};
use crate::store::cache::LayerRecord;

impl PreparedBuild<'_> {
    /// Makes what is not known, and puts the image together.
    pub fn build(&self, on_layer: &(dyn Fn(&Packed) + Sync)) -> Result<Built, BuildError> {
        self.hints.keep()?;
        let compressors = Compressors::new(self.settings.threads);
        let base = self.base.as_ref().map(|base| self.pack_base(base, &compressors)).transpose()?;
        let none = BasePaths::default();
        let contents = base.as_ref().map_or(&none, |(_, contents)| contents);
        let layers = self.placed(contents)?;
        if layers.iter().any(|input| self.must_be_read(input, contents)) {
            // The cache knew the package, but has lost the layer: read everything, and once only.
            let read = prepare_with(self.recipe, self.settings, &|path, _| package::read(path))?;
            return read.build(on_layer);
        }
        let mut packed: Vec<Packed> = base.iter().map(|(layer, _)| layer.clone()).collect();
        packed.iter().for_each(on_layer);
        let pack = |input: &LayerInput| {
            let layer = self.pack(input, contents, &compressors)?;
            on_layer(&layer);
            Ok::<_, BuildError>(layer)
        };
        let made = parallel(self.settings.threads, &layers, pack)?;
        let base = base.as_ref().map(|(layer, _)| layer.diff_id);
        let above = layers.iter().zip(made.iter().map(|layer| layer.diff_id));
        let (below, above) = parts(base, above, contents);
        let (low, high): (Vec<Packed>, Vec<Packed>) =
            made.into_iter().partition(|layer| below.contains_key(&layer.name));
        packed.extend(low);
        if !below.is_empty() {
            packed.push(pack(&self.list(contents::LAYER_BELOW, &below, contents)?)?);
        }
        packed.extend(high);
        let list = pack(&self.list(contents::LAYER, &above, contents)?)?;
        self.settings.cache.remember();
        self.assemble(&packed, list)
    }

    /// Adds the layers with the list to a plan, which has them in canonical order.
    pub(super) fn plan_lists(&self, planned: &mut Vec<PlannedLayer>, contents: Option<&BasePaths>) {
        let list = |name: &str| PlannedLayer {
            name: name.to_owned(),
            what: "the list of its files that the image carries".to_owned(),
            content: 0,
            cached: None,
            diff_id: None,
        };
        let (mut below, mut above) = (list(contents::LAYER_BELOW), list(contents::LAYER));
        // What is in the list is known once every layer is.
        let known: Option<Vec<Digest>> = planned.iter().map(|layer| layer.diff_id).collect();
        if let Some((contents, known)) = contents.zip(known)
            && let Ok(layers) = self.placed(contents)
        {
            let (base, rest) = known.split_at(usize::from(self.base.is_some()));
            let lists = parts(base.first().copied(), layers.iter().zip(rest.iter().copied()), contents);
            for (planned, parts) in [(&mut below, &lists.0), (&mut above, &lists.1)] {
                let Ok(input) = self.list(&planned.name, parts, contents) else { continue };
                let key = layer::key(&input.tree, &contents.folders);
                let record: Option<LayerRecord<()>> = self.settings.cache.find(&key);
                planned.content = input.tree.size();
                planned.cached = record.as_ref().map(|record| record.size);
                planned.diff_id = record.map(|record| record.diff_id);
            }
        }
        let low = planned.iter().take_while(|layer| listing::BELOW.contains(&layer.name.as_str())).count();
        if low > 0 {
            planned.insert(low, below);
        }
        planned.push(above);
    }

    /// The layers as they come to lie on this base, proven to fit each other.
    pub(super) fn placed(&self, contents: &BasePaths) -> Result<Vec<LayerInput>, BuildError> {
        let mut layers = Vec::new();
        for input in &self.layers {
            let tree = self.place(input, contents)?;
            layers.push(LayerInput { name: input.name.clone(), what: input.what.clone(), tree });
        }
        let trees: Vec<&Tree> = layers.iter().map(|layer| &layer.tree).collect();
        check::node(
            self.recipe,
            self.base.as_ref().map(|base| base.rootfs.path.as_path()),
            contents,
            &trees,
        )?;
        let lists = self.list(contents::LAYER, &BTreeMap::new(), contents)?;
        let all = layers.iter().chain([&lists]).map(|layer| (layer.name.as_str(), &layer.tree));
        check::apart(all, &self.recipe.file)?;
        Ok(layers)
    }

    /// Where the files of a layer lie on this base.
    pub(super) fn place(&self, input: &LayerInput, contents: &BasePaths) -> Result<Tree, check::CheckError> {
        let base = self.base.as_ref().map_or(Path::new(""), |base| &base.rootfs.path);
        check::on_base(&input.name, &input.tree, contents, base, &self.recipe.file)
    }

    /// A layer with these parts of the list; the place alone where there are none.
    pub(super) fn list(
        &self,
        name: &str,
        parts: &BTreeMap<String, Part>,
        contents: &BasePaths,
    ) -> Result<LayerInput, BuildError> {
        let tree = if parts.is_empty() { listing::place() } else { listing::tree(parts) };
        let names: Vec<&str> = parts.keys().map(String::as_str).collect();
        let mut input = LayerInput {
            name: name.to_owned(),
            what: format!("the list of the files of {}", names.join(", ")),
            tree,
        };
        input.tree = self.place(&input, contents)?;
        Ok(input)
    }

    /// True for a layer that must be made, of files that were not read.
    fn must_be_read(&self, input: &LayerInput, contents: &BasePaths) -> bool {
        let missing = || {
            let key = layer::key(&input.tree, &contents.folders);
            let cache = &self.settings.cache;
            let known = self.known_blobs().and_then(|known| known.layer(&cache.recall(&hashed(&key))?));
            known.is_none() && cache.find_proven::<()>(&key).is_none()
        };
        !input.tree.is_read() && missing()
    }

    fn known_blobs(&self) -> Option<&Predecessor> {
        self.settings.predecessor.as_ref().filter(|predecessor| predecessor.has_blobs())
    }

    fn pack_base(
        &self,
        base: &BaseInput,
        compressors: &Compressors,
    ) -> Result<(Packed, BasePaths), BuildError> {
        let cache = &self.settings.cache;
        let key = base.rootfs.key();
        let packed = |diff_id, digest, size, cached, known| Packed {
            name: "base".to_owned(),
            what: "root file system".to_owned(),
            diff_id,
            digest,
            size,
            cached,
            known,
        };
        let cached: Option<LayerRecord<BasePaths>> =
            base.cached.as_ref().and_then(|_| cache.find_proven(&key));
        if let Some(known) = self.known_blobs() {
            let noted = || cache.recall(&hashed(&key));
            let known_names = cached.as_ref().map(|record| (record.diff_id, record.extra.clone()));
            let (diff_id, contents) = if let Some(names) = known_names.or_else(noted) {
                names
            } else {
                let read = base::hash(&base.rootfs)?;
                cache.note(&hashed(&key), &read)?;
                read
            };
            if let Some(found) = known.layer(&diff_id) {
                let near = self.near(found, cached.as_ref().map(|record| (record.digest, record.size)));
                let (digest, size) = (found.descriptor.digest, found.descriptor.size);
                return Ok((packed(diff_id, digest, size, true, Some(near)), contents));
            }
        }
        let is_cached = cached.is_some();
        let record = match cached {
            Some(record) => record,
            None => base::pack(&base.rootfs, cache, compressors)?,
        };
        let packed = packed(record.diff_id, record.digest, record.size, is_cached, None);
        Ok((packed, record.extra))
    }

    /// The predecessor's blob, read from the cache where that has it.
    fn near(&self, found: &Layer, cached: Option<(Digest, u64)>) -> Layer {
        let mut layer = found.clone();
        let (digest, size) = (found.descriptor.digest, found.descriptor.size);
        if cached == Some((digest, size)) {
            let here = self.settings.cache.source(digest, size);
            layer.source = Arc::new(Near { here, there: found.source.clone() });
        }
        layer
    }

    fn pack(
        &self,
        input: &LayerInput,
        contents: &BasePaths,
        compressors: &Compressors,
    ) -> Result<Packed, BuildError> {
        let cache = &self.settings.cache;
        let key = layer::key(&input.tree, &contents.folders);
        let packed = |diff_id, digest, size, cached, known| Packed {
            name: input.name.clone(),
            what: input.what.clone(),
            diff_id,
            digest,
            size,
            cached,
            known,
        };
        let failed = BuildError::compress(&input.name);
        let cached = cache.find_proven::<()>(&key);
        if let Some(known) = self.known_blobs() {
            let diff_id = match (&cached, cache.recall::<Digest>(&hashed(&key))) {
                (Some(record), _) => record.diff_id,
                (None, Some(noted)) => noted,
                (None, None) => {
                    let diff_id = hash(&input.tree, &contents.folders).map_err(&failed)?;
                    cache.note(&hashed(&key), &diff_id)?;
                    diff_id
                }
            };
            if let Some(found) = known.layer(&diff_id) {
                let near = self.near(found, cached.map(|record| (record.digest, record.size)));
                let (digest, size) = (found.descriptor.digest, found.descriptor.size);
                return Ok(packed(diff_id, digest, size, true, Some(near)));
            }
        }
        if let Some(record) = cached {
            return Ok(packed(record.diff_id, record.digest, record.size, true, None));
        }
        let blob = HashingWriter::new(cache.start()?);
        let mut tar = HashingWriter::new(compressors.writer(blob).map_err(&failed)?);
        layer::write(&input.tree, &contents.folders, &mut tar).map_err(&failed)?;
        tar.flush().map_err(&failed)?;
        let (gzip, diff_id, tar_size) = tar.finish();
        let (file, digest, size) = gzip.finish().map_err(&failed)?.finish();
        let record = LayerRecord::new(diff_id, digest, size, tar_size, ());
        cache.keep(&key, file, &record)?;
        Ok(packed(diff_id, digest, size, false, None))
    }

    /// `packed` is in canonical order; the list is always the last layer.
    fn assemble(&self, packed: &[Packed], list: Packed) -> Result<Built, BuildError> {
        let diff_ids: Vec<Digest> = packed.iter().map(|layer| layer.diff_id).collect();
        let predecessor = self.settings.predecessor.as_ref();
        let before = predecessor.map(|image| image.diff_ids.clone()).unwrap_or_default();
        let order = after::order(&diff_ids, usize::from(self.base.is_some()), &before);
        let layers: Vec<Packed> =
            order.into_iter().map(|index| packed[index].clone()).chain([list]).collect();
        let parts = image::Parts {
            recipe: self.recipe,
            architecture: &self.settings.architecture,
            created: self.settings.created,
            layers: &layers,
            after: predecessor.and_then(Predecessor::chain_id),
        };
        let image =
            image::assemble(&parts, &self.settings.cache).map_err(BuildError::compress("of the config"))?;
        Ok(Built { image, layers })
    }
}

/// The parts of the list: those of what lies low, and the others.
fn parts<'l>(
    base: Option<Digest>,
    layers: impl Iterator<Item = (&'l LayerInput, Digest)>,
    contents: &BasePaths,
) -> (BTreeMap<String, Part>, BTreeMap<String, Part>) {
    let base = base.map(|diff_id| ("base".to_owned(), listing::base_part(contents, diff_id)));
    let above = layers
        .map(|(input, diff_id)| (input.name.clone(), listing::part(&input.tree, &contents.folders, diff_id)));
    base.into_iter().chain(above).partition(|(name, _)| listing::BELOW.contains(&name.as_str()))
}

/// The key of what a layer is uncompressed, where no blob of it was made.
fn hashed(key: &Digest) -> Digest {
    Digest::of(format!("tarsup hashed 1\n{key}\n"))
}

/// The diff id of a tree, without its blob.
fn hash(tree: &Tree, folders: &Folders) -> io::Result<Digest> {
    let mut tar = HashingWriter::new(io::sink());
    layer::write(tree, folders, &mut tar)?;
    Ok(tar.finish().1)
}
