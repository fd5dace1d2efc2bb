//! The image that the next one is built after: its order of layers, and the blobs that need not be made again.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use super::base::BasePaths;
use super::listing;
use super::ontop::Why;
use super::patch::PATCH_LABEL;
use crate::contents::{self, Contents};
use crate::oci::image::{BASE, chain_id};
use crate::oci::{BlobSource, Digest, Image, Layer};
use crate::tars::Service;

/// A predecessor. It decides where layers lie, and which blob stands for content that is known; never what is in a new layer.
#[derive(Clone, Debug, Default)]
pub struct Predecessor {
    /// Its layers, the base first.
    pub diff_ids: Vec<Digest>,
    blobs: BTreeMap<Digest, Layer>,
    /// Names, purposes and blobs of its layers, and what is visible in them.
    made: Option<Made>,
    /// Services of it that were replaced without a recipe.
    pub patched: BTreeSet<Service>,
    /// Its layers are not to stay.
    pub relayer: bool,
    /// Some of its layers are there, and not gzipped.
    is_raw: bool,
}

/// An image that was made of layers of ours.
#[derive(Clone, Debug)]
pub struct Made {
    /// Name, purpose and blob of each layer, the base first, without the list on top.
    pub layers: Vec<(String, String, Layer)>,
    /// What is visible.
    pub contents: Contents,
}

impl Made {
    /// The layers of its base.
    pub fn base(&self) -> Vec<Digest> {
        let base = self.layers.iter().take_while(|(name, _, _)| name == BASE);
        base.map(|(_, _, layer)| layer.diff_id).collect()
    }
}

impl Predecessor {
    /// An image whose blobs are known, and what is visible in it. `read_in_full` hears of one without a list.
    ///
    /// # Errors
    /// A list or a layer that cannot be read.
    pub fn of(image: &Image, read_in_full: impl FnOnce()) -> io::Result<Self> {
        let is_gzip = |layer: &&Layer| layer.descriptor.is_gzip();
        let is_raw = !image.layers.iter().all(|layer| is_gzip(&layer));
        let is_ours = image.layer_purposes().iter().all(|purpose| !purpose.is_empty());
        let made = if is_ours && !is_raw {
            let layers = image.layer_names().into_iter().zip(image.layer_purposes()).zip(&image.layers);
            let mut layers: Vec<(String, String, Layer)> =
                layers.map(|((name, purpose), layer)| (name, purpose, layer.clone())).collect();
            layers.pop_if(|(name, _, _)| name == contents::LAYER);
            let contents = if let Some(contents) = Contents::of(image)? {
                contents
            } else {
                read_in_full();
                // A list that counts as none does not stay either, where it is the last layer.
                let mut below = image.clone();
                below.layers.truncate(layers.len());
                contents::folded(&below)?
            };
            Some(Made { layers, contents })
        } else {
            None
        };
        let blobs = image.layers.iter().filter(is_gzip).map(|layer| (layer.diff_id, layer.clone())).collect();
        let labels = image.parsed_config().map(|config| config.config.labels).unwrap_or_default();
        let patched =
            labels.keys().filter_map(|label| label.strip_prefix(PATCH_LABEL)?.parse().ok()).collect();
        Ok(Self { diff_ids: image.diff_ids(), blobs, made, patched, relayer: false, is_raw })
    }

    /// An image of which only this is known: an engine does not tell what its layers were compressed to.
    pub fn of_diff_ids(diff_ids: Vec<Digest>) -> Self {
        Self { diff_ids, ..Self::default() }
    }

    /// Its layers that may stay as they are on this base; why not.
    pub fn that_stays(&self, base: &[Digest]) -> Result<&Made, Why> {
        if self.relayer {
            return Err(Why::Asked);
        }
        if self.is_raw {
            return Err(Why::Raw);
        }
        if self.blobs.is_empty() {
            return Err(Why::InEngine);
        }
        let made = self.made.as_ref().ok_or(Why::Foreign)?;
        if made.base() == base { Ok(made) } else { Err(Why::Base) }
    }

    /// True where it may spare the compression of a layer.
    pub fn has_blobs(&self) -> bool {
        !self.blobs.is_empty()
    }

    /// What is known of its base, with what that offers to programs, where it is this one.
    pub fn base_paths(&self, base: &[Digest]) -> Option<BasePaths> {
        let part = self.made.as_ref()?.contents.parts.get(BASE)?;
        (part.offers.is_some() && part.layers == base).then(|| listing::base_paths(part))
    }

    /// How many of its layers stay where changes go on top.
    pub fn stay(&self) -> usize {
        self.made.as_ref().map_or(0, |made| made.layers.len())
    }

    /// The layer with this content.
    pub fn layer(&self, diff_id: &Digest) -> Option<&Layer> {
        self.blobs.get(diff_id)
    }

    /// The chain id of its last layer (image-spec, config.md): the same wherever the image lies.
    pub fn chain_id(&self) -> Option<Digest> {
        chain_id(&self.diff_ids)
    }
}

/// A blob that lies in the cache as well: read from there, and mounted where the predecessor lies.
pub struct Near {
    /// In the cache.
    pub here: Arc<dyn BlobSource>,
    /// In the predecessor.
    pub there: Arc<dyn BlobSource>,
}

impl BlobSource for Near {
    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        self.here.open().or_else(|_| self.there.open())
    }

    fn link_to(&self, target: &Path) -> io::Result<bool> {
        self.here.link_to(target)
    }

    fn registry(&self) -> Option<(&str, &str)> {
        self.there.registry()
    }

    fn unpacked(&self) -> Option<u64> {
        self.here.unpacked().or_else(|| self.there.unpacked())
    }
}

/// Puts layers into the order in which they are built. `diff_ids` are in canonical order, the first `fixed` (the base)
/// stay where they are. The answer holds indices into `diff_ids`.
///
/// A classic engine looks a layer up by the chain below it, so everything after the first change is sent again: what
/// the predecessor has comes first, in its order; what changed comes last, where the next change of the same service
/// moves nothing else.
pub fn order(diff_ids: &[Digest], fixed: usize, predecessor: &[Digest]) -> Vec<usize> {
    let place = |index: usize| predecessor.iter().position(|diff_id| *diff_id == diff_ids[index]);
    let (mut kept, changed): (Vec<usize>, Vec<usize>) =
        (fixed..diff_ids.len()).partition(|index| place(*index).is_some());
    kept.sort_by_key(|index| place(*index));
    (0..fixed.min(diff_ids.len())).chain(kept).chain(changed).collect()
}
#[cfg(test)]
mod tests {
    use super::*;

    fn ids(names: &[&str]) -> Vec<Digest> {
        names.iter().map(Digest::of).collect()
    }

    #[test]
    fn order_without_predecessor_is_canonical() {
        assert_eq!(order(&ids(&["base", "a", "b"]), 1, &[]), [0, 1, 2]);
    }

    #[test]
    fn order_keeps_the_predecessors_and_moves_changes_to_the_end() {
        let predecessor = ids(&["base", "c", "a", "b"]);
        assert_eq!(order(&ids(&["base", "a", "b2", "c"]), 1, &predecessor), [0, 3, 1, 2]);
        assert_eq!(order(&ids(&["base2", "a", "b", "c", "d"]), 1, &predecessor), [0, 3, 1, 2, 4]);
        assert_eq!(order(&ids(&["a", "b"]), 0, &ids(&["b", "a"])), [1, 0]);
    }
}
