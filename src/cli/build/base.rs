//! The base of a recipe that is an image: read wherever it lies, and one of a registry pinned in `tarsup.lock`.

use std::path::PathBuf;

use super::{BuildArgs, near};
use crate::build::Settings;
use crate::build::recipe::{Base, Recipe};
use crate::build::standing::BaseImage;
use crate::cli::image;
use crate::cli::places::Places;
use crate::cli::{Failure, Ui};
use crate::deploy::pins::{self, Pins, PinsError};
use crate::diagnose::{Diagnose, Exit, Place};
use crate::oci::Digest;
use crate::transport::ImageName;

/// Why a base cannot be taken.
#[derive(Debug, thiserror::Error)]
enum BaseError {
    /// `--locked`, and nothing pins it.
    #[error("the base {base} is not in {}", lock.display())]
    NotPinned {
        /// As the recipe names it.
        base: String,
        /// The lock.
        lock: PathBuf,
    },
}

impl Diagnose for BaseError {
    fn exit(&self) -> Exit {
        Exit::Refused
    }

    fn hint(&self) -> Option<String> {
        Some("build it once without --locked, which pins what the name stands for now".to_owned())
    }

    fn place(&self) -> Option<Place> {
        let Self::NotPinned { lock, .. } = self;
        Some(Place::file(lock))
    }
}

/// A pin that is to be written once the image is built.
pub(super) struct NewPin(Option<(PathBuf, Pins, String)>);

impl NewPin {
    /// Writes it.
    pub(super) fn keep(&self, ui: &Ui) -> Result<(), PinsError> {
        let Some((path, pins, what)) = &self.0 else { return Ok(()) };
        pins.write_file(path)?;
        ui.note(&format!("{} pins {what}", path.display()));
        Ok(())
    }
}

/// Reads the base where it is an image.
///
/// What a registry has under a name moves, so the digest that it stood for the first time is what counts from then on: that of
/// the index where there is one, so that one lock serves every platform.
pub(super) fn read(
    args: &BuildArgs,
    recipe: &Recipe,
    settings: &mut Settings,
    outputs: &[ImageName],
    places: &Places,
    ui: &Ui,
) -> Result<NewPin, Failure> {
    let Base::Image(text) = &recipe.base else { return Ok(NewPin(None)) };
    let mut name: ImageName = text.parse()?;
    let mut new = NewPin(None);
    if let ImageName::Registry(reference) = &mut name
        && reference.digest.is_none()
    {
        let lock = recipe.file.with_file_name(pins::FILE);
        let mut pins = Pins::read_file(&lock)?.unwrap_or_else(|| Pins::new(""));
        let digest = match pins.bases.get(text) {
            Some(pinned) => *pinned,
            None if args.locked => return Err(BaseError::NotPinned { base: text.clone(), lock }.into()),
            None => {
                let digest: Digest = image::digest_of(reference, places, ui)?;
                pins.bases.insert(text.clone(), digest);
                new = NewPin(Some((lock, pins, format!("{text} to {}", digest.short()))));
                digest
            }
        };
        reference.digest = Some(digest);
    }
    let image = image::read_for(&name, &settings.platform, places, ui)?;
    let image = near::shared(image, outputs, &settings.cache);
    settings.base = Some(BaseImage { name: text.clone(), image });
    Ok(new)
}
