//! An image and its layers: immutable, with exact bytes for manifest and config and a reader for each layer.

use std::fmt;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use super::{Descriptor, Digest};

/// The label of an image config with its version, as the image specification names the annotation.
pub const VERSION_LABEL: &str = "org.opencontainers.image.version";
/// The annotation that names an image in an index.
pub const ANNOTATION_REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The annotation by which containerd names an image: the canonical reference.
pub const ANNOTATION_CONTAINERD_NAME: &str = "io.containerd.image.name";

/// The annotation of a layer's descriptor that names it, such as `tarsstat`.
pub const ANNOTATION_LAYER: &str = "io.tarsup.layer";
/// What `created_by` of a layer's history entry begins with; the layer's name and `: ` follow.
pub const CREATED_BY: &str = "tarsup build ";
/// What every layer of a base is called.
pub const BASE: &str = "base";
/// The annotation of a manifest that holds the chain id of the image whose order of layers it keeps.
pub const ANNOTATION_AFTER: &str = "io.tarsup.after";

/// What a classic engine calls a layer with all that lies below it (image-spec, config.md, "Layer ChainID"); `None` for no layers.
pub fn chain_id(diff_ids: &[Digest]) -> Option<Digest> {
    let (first, rest) = diff_ids.split_first()?;
    Some(rest.iter().fold(*first, |below, diff_id| Digest::of(format!("{below} {diff_id}"))))
}

/// Where the bytes of a blob come from; each call opens them anew.
pub trait BlobSource: Send + Sync {
    /// A reader from the blob's first byte.
    fn open(&self) -> io::Result<Box<dyn Read + Send>>;

    /// Gives a file of our own a second name instead of a copy, once its bytes are proven. False where they must be
    /// copied: a file that somebody else may write to is never linked.
    ///
    /// # Errors
    /// What linking fails with; copying may do all the same.
    fn link_to(&self, target: &Path) -> io::Result<bool> {
        let _ = target;
        Ok(false)
    }

    /// The registry and the repository that the blob lies in, where it lies in one: another repository there may have it
    /// without its bytes.
    fn registry(&self) -> Option<(&str, &str)> {
        None
    }

    /// How many bytes the blob unpacks to, where whoever made it said so; only reading it tells for others.
    fn unpacked(&self) -> Option<u64> {
        None
    }
}

/// One layer: what it is uncompressed (`diff_id`), what is stored (`descriptor`), and its bytes.
#[derive(Clone)]
pub struct Layer {
    /// The digest of the uncompressed tar.
    pub diff_id: Digest,
    /// The blob as stored.
    pub descriptor: Descriptor,
    /// The bytes as stored.
    pub source: Arc<dyn BlobSource>,
}

impl Layer {
    /// How many bytes an engine that takes layers as tars is sent of it: those of the tar, where it is known how many these are,
    /// else those of the blob, which goes as it is stored.
    pub fn sent_as_tar(&self) -> u64 {
        self.source.unpacked().unwrap_or(self.descriptor.size)
    }
}

impl fmt::Debug for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layer")
            .field("diff_id", &self.diff_id)
            .field("descriptor", &self.descriptor)
            .finish_non_exhaustive()
    }
}

/// One image for one platform, with the exact bytes of its manifest and config.
#[derive(Clone, Debug)]
pub struct Image {
    /// The manifest, as stored.
    pub manifest: Vec<u8>,
    /// The config, as stored. Its digest is what engines call the image id.
    pub config: Vec<u8>,
    /// The layers, the base first.
    pub layers: Vec<Layer>,
}

impl Image {
    /// The digest of the manifest.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }

    /// The digest of the config: the image id of a classic engine.
    pub fn config_digest(&self) -> Digest {
        Digest::of(&self.config)
    }

    /// The config, parsed.
    pub fn parsed_config(&self) -> serde_json::Result<super::Config> {
        serde_json::from_slice(&self.config)
    }

    /// What the layers are called, the base first: their annotation, else `layer 1`, `layer 2`, ...
    ///
    /// An engine keeps no annotations, but history: what tarsup wrote there names the layer as well.
    pub fn layer_names(&self) -> Vec<String> {
        let history: Vec<String> = self
            .parsed_config()
            .map(|config| config.history.into_iter().filter(|entry| !entry.empty_layer))
            .map(|entries| entries.map(|entry| entry.created_by).collect())
            .unwrap_or_default();
        // What lies below the first layer of ours is what it stands on.
        let first = history.iter().position(|text| text.starts_with(CREATED_BY)).unwrap_or(0);
        let below = |index: usize| (index < first).then(|| BASE.to_owned());
        let from_history = |index: usize| {
            let text = history.get(index)?.strip_prefix(CREATED_BY)?;
            Some(text.split_once(':').map_or(text, |(name, _)| name).to_owned())
        };
        let name = |(index, layer): (usize, &Layer)| {
            let annotation = layer.descriptor.annotations.get(ANNOTATION_LAYER).cloned();
            let known = annotation.or_else(|| from_history(index)).or_else(|| below(index));
            known.unwrap_or_else(|| format!("layer {}", index + 1))
        };
        self.layers.iter().enumerate().map(name).collect()
    }

    /// What tarsup wrote of each layer when it made it, the base first: empty where it did not.
    pub fn layer_purposes(&self) -> Vec<String> {
        let history = self.parsed_config().map(|config| config.history).unwrap_or_default();
        let purpose = |text: &str| Some(text.strip_prefix(CREATED_BY)?.split_once(": ")?.1.to_owned());
        let made: Vec<&str> = history
            .iter()
            .filter(|entry| !entry.empty_layer)
            .map(|entry| entry.created_by.as_str())
            .collect();
        let first = made.iter().position(|text| text.starts_with(CREATED_BY)).unwrap_or(0);
        let below = |index: usize| (index < first).then(|| "a layer of the base".to_owned());
        made.iter()
            .enumerate()
            .map(|(index, text)| purpose(text).or_else(|| below(index)).unwrap_or_default())
            .chain(std::iter::repeat_with(String::new))
            .take(self.layers.len())
            .collect()
    }

    /// What the layers take together, in bytes, as stored.
    pub fn layers_size(&self) -> u64 {
        self.layers.iter().map(|layer| layer.descriptor.size).sum()
    }

    /// The chain id of the image whose order of layers this one keeps.
    pub fn after(&self) -> Option<Digest> {
        super::Manifest::parse(&self.manifest).ok()?.annotations.get(ANNOTATION_AFTER)?.parse().ok()
    }

    /// The diff ids, the base first.
    pub fn diff_ids(&self) -> Vec<Digest> {
        self.layers.iter().map(|layer| layer.diff_id).collect()
    }
}
