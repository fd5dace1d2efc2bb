//! What a build would make, told before anything is written.

use std::collections::BTreeMap;

use super::base::{self, BasePaths, Look};
use super::blob::{hashed, known_blobs};
use super::pack::{self, Stack};
use super::tree::Content;
use super::{BaseInput, LayerInput, PlannedLayer, PreparedBuild, layer, standing};
use crate::contents;
use crate::oci::Digest;
use crate::oci::image::BASE;
use crate::store::cache::LayerRecord;

impl PreparedBuild<'_> {
    /// What would be built: in the order of the image where that is known, else in canonical order.
    pub fn plan(&self) -> Vec<PlannedLayer> {
        let base = self.planned_base();
        let planned_base = self.planned_layers_of_base(base.as_ref()).into_iter();
        let list = |name: &str| PlannedLayer {
            name: name.to_owned(),
            what: "the list of its files that the image carries".to_owned(),
            content: 0,
            cached: None,
            diff_id: None,
        };
        let none = BasePaths::default();
        let known = match (&self.base, &base) {
            (Some(_), Some((diff_ids, contents))) => Some((diff_ids.as_slice(), contents)),
            (Some(_), None) => None,
            (None, _) => Some((&[][..], &none)),
        };
        // Without the base's folders the keys of the layers above it are not known; what cannot be placed is no layer yet:
        // building says why.
        let placed = known.and_then(|(base, contents)| Some((base, contents, self.placed(contents).ok()?)));
        let Some((on_base, contents, layers)) = placed else {
            let above = self.layers.iter().map(|input| PlannedLayer {
                name: input.name.clone(),
                what: input.what.clone(),
                content: input.tree.size(),
                cached: None,
                diff_id: None,
            });
            return planned_base.chain(above).chain([list(contents::LAYER)]).collect();
        };
        let planned_list = |name: &str, parts: &BTreeMap<String, Content>| {
            let input = self.list(name, parts, contents).ok()?;
            Some(self.planned(&input, contents))
        };
        let stack = self.stack(on_base, layers, contents);
        let inputs: Vec<PlannedLayer> = stack.inputs().map(|input| self.planned(input, contents)).collect();
        let diff_ids: Option<Vec<Digest>> = inputs.iter().map(|layer| layer.diff_id).collect();
        match &stack {
            Stack::OnTop(made, changes) => {
                let kept = made.layers.iter().map(|(name, purpose, layer)| PlannedLayer {
                    name: name.clone(),
                    what: purpose.clone(),
                    content: 0,
                    cached: Some(layer.descriptor.size),
                    diff_id: Some(layer.diff_id),
                });
                let on_top = diff_ids.and_then(|diff_ids| {
                    let parts = pack::files_on_top(made, changes, &diff_ids, on_base, contents).ok()?;
                    planned_list(contents::LAYER, &parts)
                });
                let top = on_top.unwrap_or_else(|| list(contents::LAYER));
                kept.chain(inputs).chain([top]).collect()
            }
            Stack::Canonical(layers, _) => {
                let lists = diff_ids
                    .and_then(|diff_ids| pack::parts(on_base, layers.iter().zip(diff_ids), contents).ok());
                let (low, high): (Vec<PlannedLayer>, Vec<PlannedLayer>) =
                    inputs.into_iter().partition(|layer| layer.name == "web");
                let mut planned: Vec<PlannedLayer> = planned_base.chain(low).collect();
                if !planned.is_empty() {
                    let below =
                        lists.as_ref().and_then(|(below, _)| planned_list(contents::LAYER_BELOW, below));
                    planned.push(below.unwrap_or_else(|| list(contents::LAYER_BELOW)));
                }
                planned.extend(high);
                let top = lists.as_ref().and_then(|(_, above)| planned_list(contents::LAYER, above));
                planned.push(top.unwrap_or_else(|| list(contents::LAYER)));
                planned
            }
        }
    }

    /// One layer, and what is known of its blob.
    fn planned(&self, input: &LayerInput, contents: &BasePaths) -> PlannedLayer {
        let key = layer::key(&input.tree, &contents.folders);
        let record: Option<LayerRecord<()>> = self.settings.cache.find(&key);
        PlannedLayer {
            name: input.name.clone(),
            what: input.what.clone(),
            content: input.tree.size(),
            cached: record.as_ref().map(|record| record.size),
            diff_id: record.map(|record| record.diff_id),
        }
    }

    /// The layers of the base, and what is known of their blobs.
    fn planned_layers_of_base(&self, known: Option<&(Vec<Digest>, BasePaths)>) -> Vec<PlannedLayer> {
        let layer = |content, cached, diff_id| PlannedLayer {
            name: BASE.to_owned(),
            what: self.base.as_ref().map(BaseInput::name).unwrap_or_default(),
            content,
            cached,
            diff_id,
        };
        match &self.base {
            None => Vec::new(),
            Some(BaseInput::Rootfs { rootfs, cached }) => {
                let diff_id = known.and_then(|(diff_ids, _)| diff_ids.first().copied());
                let found = diff_id.and_then(|diff_id| known_blobs(self.settings)?.layer(&diff_id));
                let size = found.map(|layer| layer.descriptor.size);
                let size = size.or_else(|| cached.as_ref().map(|record| record.size));
                let content = std::fs::metadata(&rootfs.path).map_or(0, |metadata| metadata.len());
                vec![layer(content, size, diff_id)]
            }
            Some(BaseInput::Image(base)) => {
                let each = base.image.layers.iter();
                each.map(|known| layer(0, Some(known.descriptor.size), Some(known.diff_id))).collect()
            }
        }
    }

    /// Diff ids and names of the base: from the cache, and where a predecessor may have it, hashed.
    fn planned_base(&self) -> Option<(Vec<Digest>, BasePaths)> {
        let (rootfs, cached) = match self.base.as_ref()? {
            BaseInput::Rootfs { rootfs, cached } => (rootfs, cached),
            BaseInput::Image(base) => {
                return Some((base.image.diff_ids(), standing::known_paths(base, self.settings)?));
            }
        };
        let record = cached.as_ref().map(|record| (record.diff_id, record.extra.clone()));
        let noted = || self.settings.cache.recall(&hashed(&rootfs.key()));
        let known = known_blobs(self.settings);
        let hashed = || known.and_then(|_| base::hash(rootfs, Look::AtNames).ok());
        let (diff_id, mut contents) = record.or_else(noted).or_else(hashed)?;
        if contents.offers.is_none() {
            contents.offers = known.and_then(|known| known.base_paths(&[diff_id])?.offers);
        }
        if contents.offers.is_none() {
            contents = base::hash(rootfs, Look::IntoLibraries).ok()?.1;
        }
        Some((vec![diff_id], contents))
    }
}
