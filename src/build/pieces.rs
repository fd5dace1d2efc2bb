//! The layers of an image on their way: hashed first where somebody wants the image before its blobs are made, then packed.

use std::io::{self, Write};
use std::sync::Arc;

use super::base::BasePaths;
use super::blob::{self, Hashed};
use super::compress::Compressors;
use super::layer::{self, Folders};
use super::tree::Tree;
use super::{BuildError, LayerInput, Packed, Settings, Watch, image, parallel};
use crate::oci::{Digest, TarImage, TarLayer, TarSource};

/// A layer whose content is known, and its blob perhaps.
pub(super) enum Piece<'a> {
    /// Its blob is there.
    Packed(Box<Packed>),
    /// It is still to be made, or found.
    Hashed(&'a LayerInput, Hashed),
}

impl From<Packed> for Piece<'_> {
    fn from(layer: Packed) -> Self {
        Self::Packed(Box::new(layer))
    }
}

impl Piece<'_> {
    pub(super) fn diff_id(&self) -> Digest {
        self.told().2
    }

    /// Its name, what it is, and its diff id.
    pub(super) fn told(&self) -> (&str, &str, Digest) {
        match self {
            Self::Packed(layer) => (&layer.name, &layer.what, layer.diff_id),
            Self::Hashed(input, hashed) => (&input.name, &input.what, hashed.diff_id),
        }
    }
}

/// What makes layers, and whom it tells.
pub(super) struct Workshop<'a> {
    pub(super) settings: &'a Settings,
    /// What of the base decides the bytes of a layer.
    pub(super) base: &'a BasePaths,
    pub(super) compressors: &'a Compressors,
    pub(super) watch: &'a dyn Watch,
    /// The image is wanted before its blobs.
    pub(super) early: bool,
}

impl Workshop<'_> {
    /// A layer that is there, or hashed where that is what is waited for.
    pub(super) fn piece<'i>(&self, input: &'i LayerInput) -> Result<Piece<'i>, BuildError> {
        if self.early && input.tree.is_read() {
            return Ok(Piece::Hashed(input, blob::hashed(self.settings, input, self.base)?));
        }
        self.pack(input).map(Piece::from)
    }

    /// The same of several, side by side.
    pub(super) fn pieces<'i>(&self, inputs: &[&'i LayerInput]) -> Result<Vec<Piece<'i>>, BuildError> {
        parallel(self.settings.threads, inputs, |input| self.piece(input))
    }

    /// Tells of layers that are there.
    pub(super) fn tell(&self, layers: &[Packed]) {
        for layer in layers {
            self.watch.layer(layer);
        }
    }

    fn pack(&self, input: &LayerInput) -> Result<Packed, BuildError> {
        let layer = blob::pack(self.settings, input, self.base, self.compressors)?;
        self.watch.layer(&layer);
        Ok(layer)
    }

    /// Tells of the image, and makes the blobs that it lacks.
    pub(super) fn finish(
        &self,
        pieces: &[Piece<'_>],
        config: &[u8],
        after: Option<Digest>,
    ) -> Result<Vec<Packed>, BuildError> {
        if self.early {
            let layers = pieces.iter().map(|piece| self.tar(piece)).collect();
            self.watch.tars(TarImage { config: config.to_vec(), layers, after });
        }
        parallel(self.settings.threads, pieces, |piece| match piece {
            Piece::Packed(layer) => Ok(Packed::clone(layer)),
            Piece::Hashed(input, _) => self.pack(input),
        })
    }

    fn tar(&self, piece: &Piece<'_>) -> TarLayer {
        match piece {
            Piece::Packed(layer) => TarLayer::Stored(image::as_layer(layer, &self.settings.cache)),
            Piece::Hashed(input, Hashed { diff_id, size }) => {
                let (tree, folders) = (input.tree.clone(), self.base.folders.clone());
                TarLayer::Tar { diff_id: *diff_id, size: *size, source: Arc::new(TreeTar { tree, folders }) }
            }
        }
    }
}

/// The tar of a tree, written as often as it is asked for.
struct TreeTar {
    tree: Tree,
    folders: Folders,
}

impl TarSource for TreeTar {
    fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        layer::write(&self.tree, &self.folders, out)
    }
}
