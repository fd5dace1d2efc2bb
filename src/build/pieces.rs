//! The layers of an image on their way: hashed first where somebody wants the image before its blobs are made, then packed.

use std::io::{self, Write};
use std::sync::Arc;

use super::after::Made;
use super::base::BasePaths;
use super::blob::{self, Chance, Hashed};
use super::compress::Compressors;
use super::layer::{self, Folders};
use super::ontop::Change;
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
    settings: &'a Settings,
    /// What of the base decides the bytes of a layer.
    base: &'a BasePaths,
    compressors: &'a Compressors,
    watch: &'a dyn Watch,
    /// The image is wanted before its blobs.
    early: bool,
}

impl<'a> Workshop<'a> {
    pub(super) fn new(
        settings: &'a Settings,
        base: &'a BasePaths,
        compressors: &'a Compressors,
        watch: &'a dyn Watch,
    ) -> Self {
        Self { settings, base, compressors, watch, early: watch.wants_tars() }
    }

    /// A layer that is there, or hashed where that is what is waited for.
    pub(super) fn piece<'i>(&self, input: &'i LayerInput, chance: Chance) -> Result<Piece<'i>, BuildError> {
        if self.early && input.tree.is_read() {
            return Ok(Piece::Hashed(input, blob::hashed(self.settings, input, self.base)?));
        }
        self.pack(input, chance).map(Piece::from)
    }

    /// The same of several, side by side.
    pub(super) fn pieces<'i>(
        &self,
        inputs: &[&'i LayerInput],
        chance: Chance,
    ) -> Result<Vec<Piece<'i>>, BuildError> {
        parallel(self.settings.threads, inputs, |input| self.piece(input, chance))
    }

    /// The layers that stay, what the changes put on top of them, and the diff ids of that.
    pub(super) fn on_top<'i>(
        &self,
        made: &Made,
        changes: &'i [Change],
    ) -> Result<(Vec<Piece<'i>>, Vec<Digest>), BuildError> {
        let kept: Vec<Packed> = made.layers.iter().map(|layer| blob::kept(self.settings, layer)).collect();
        self.tell(&kept);
        let inputs: Vec<&LayerInput> = changes.iter().filter_map(|change| change.layer.as_ref()).collect();
        let tops = self.pieces(&inputs, Chance::Slight)?;
        let diff_ids = tops.iter().map(Piece::diff_id).collect();
        Ok((kept.into_iter().map(Piece::from).chain(tops).collect(), diff_ids))
    }

    /// Tells of layers that are there.
    pub(super) fn tell(&self, layers: &[Packed]) {
        for layer in layers {
            self.watch.layer(layer);
        }
    }

    fn pack(&self, input: &LayerInput, chance: Chance) -> Result<Packed, BuildError> {
        let layer = blob::pack(self.settings, input, self.base, self.compressors, chance)?;
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
            Piece::Hashed(input, hashed) => self.pack(input, Chance::Told(*hashed)),
        })
    }

    fn tar(&self, piece: &Piece<'_>) -> TarLayer {
        match piece {
            Piece::Packed(layer) => TarLayer::Stored(image::as_layer(layer, &self.settings.cache)),
            Piece::Hashed(input, Hashed { diff_id, size, .. }) => {
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
