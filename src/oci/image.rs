//! An image and its layers: immutable, with exact bytes for manifest and config and a reader for each layer.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Digest;

/// `application/vnd.oci.image.manifest.v1+json`
pub const MEDIA_TYPE_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// `application/vnd.oci.image.config.v1+json`
pub const MEDIA_TYPE_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// `application/vnd.oci.image.layer.v1.tar+gzip`
pub const MEDIA_TYPE_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// `application/vnd.oci.image.index.v1+json`
pub const MEDIA_TYPE_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// The annotation that names an image in an index.
pub const ANNOTATION_REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The annotation by which containerd names an image: the canonical reference.
pub const ANNOTATION_CONTAINERD_NAME: &str = "io.containerd.image.name";

/// A content descriptor (image-spec, descriptor.md).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The media type of the blob.
    pub media_type: String,
    /// The digest of the blob as stored.
    pub digest: Digest,
    /// Its size in bytes, as stored.
    pub size: u64,
    /// Annotations, such as the layer's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Where the bytes of a blob come from; each call opens them anew.
pub trait BlobSource: Send + Sync {
    /// A reader from the blob's first byte.
    fn open(&self) -> io::Result<Box<dyn Read + Send>>;
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

    /// The diff ids, the base first.
    pub fn diff_ids(&self) -> Vec<Digest> {
        self.layers.iter().map(|layer| layer.diff_id).collect()
    }
}
