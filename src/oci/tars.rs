//! An image before its layers are compressed: all that a classic engine keeps of one.

use std::io::{self, Write};
use std::sync::Arc;

use super::{Digest, Layer};

/// Where a layer's tar comes from; each call makes the same bytes.
pub trait TarSource: Send + Sync {
    /// Writes all of it.
    ///
    /// # Errors
    /// `out`'s, and what the tar is made from cannot be read.
    fn write_to(&self, out: &mut dyn Write) -> io::Result<()>;
}

/// A layer on its way into an engine that unpacks it anyway.
#[derive(Clone)]
pub enum TarLayer {
    /// Its tar.
    Tar {
        /// The digest of the bytes.
        diff_id: Digest,
        /// How many bytes there are.
        size: u64,
        /// The bytes.
        source: Arc<dyn TarSource>,
    },
    /// As it is stored: how large its tar is can be told only by reading it.
    Stored(Layer),
}

impl TarLayer {
    /// The digest of the uncompressed tar.
    pub fn diff_id(&self) -> Digest {
        match self {
            Self::Tar { diff_id, .. } => *diff_id,
            Self::Stored(layer) => layer.diff_id,
        }
    }

    /// The digest and the number of the bytes that there are of it here.
    pub fn bytes(&self) -> (Digest, u64) {
        match self {
            Self::Tar { diff_id, size, .. } => (*diff_id, *size),
            Self::Stored(layer) => (layer.descriptor.digest, layer.descriptor.size),
        }
    }
}

/// The config, and the layers: an image that has no manifest yet, or needs none.
#[derive(Clone)]
pub struct TarImage {
    /// The config, as it will be stored.
    pub config: Vec<u8>,
    /// The layers, the base first.
    pub layers: Vec<TarLayer>,
    /// The chain id of the image whose order of layers it keeps.
    pub after: Option<Digest>,
}

impl TarImage {
    /// The digest of the config: the image id of a classic engine.
    pub fn config_digest(&self) -> Digest {
        Digest::of(&self.config)
    }

    /// The diff ids, the base first.
    pub fn diff_ids(&self) -> Vec<Digest> {
        self.layers.iter().map(TarLayer::diff_id).collect()
    }
}
