//! OCI layouts as sources and sinks: a folder of the user's, or the local store.

use std::path::Path;

use async_trait::async_trait;

use super::{Forecast, Progress, Receipt, Result, Sink, Source, TransportError};
use crate::diagnose::shown;
use crate::oci::{Image, Platform, Reference};
use crate::store::layout::NewBlobs;
use crate::store::{self, Layout, Proven, StoreError};

/// One name in an OCI layout.
#[derive(Clone, Debug)]
pub struct LayoutImage {
    layout: Layout,
    name: Option<String>,
}

impl LayoutImage {
    /// A name in the layout of this folder; without a name, the only image in it.
    pub fn new(directory: &Path, name: Option<&str>) -> Self {
        Self { layout: Layout::at(directory), name: name.map(ToOwned::to_owned) }
    }

    /// A name in the local store.
    pub fn local(reference: &Reference) -> Result<Self> {
        Ok(Self { layout: store::local()?, name: Some(reference.to_string()) })
    }

    /// Reads the image.
    pub fn read(&self) -> Result<Image> {
        Ok(self.layout.read(self.name.as_deref())?)
    }

    /// Reads the image for this platform, where there is one for several.
    pub fn read_for(&self, platform: &Platform) -> Result<Image> {
        Ok(self.layout.read_for(self.name.as_deref(), platform)?)
    }
}

/// The image of that name in an OCI layout; without a name, the only one in it. Its layers stay where they are.
pub fn read(directory: &Path, name: Option<&str>) -> Result<Image> {
    LayoutImage::new(directory, name).read()
}

/// The image of that reference in the local store; `None` where it holds none.
pub fn read_local(reference: &Reference) -> Result<Option<Image>> {
    match store::local()?.read(Some(&reference.to_string())) {
        Ok(image) => Ok(Some(image)),
        Err(StoreError::Absent { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[async_trait]
impl Source for LayoutImage {
    async fn get(&self) -> Result<Image> {
        self.read()
    }
}

#[async_trait]
impl Sink for LayoutImage {
    async fn put(&self, image: &Image, progress: &dyn Progress) -> Result<Receipt> {
        let (layout, name) = self.proven()?;
        let written = layout.write(image, name, &|bytes| progress.advance(bytes))?;
        Ok(receipt(image, &written))
    }

    async fn forecast(&self, image: &Image) -> Result<Forecast> {
        let (layout, _) = self.proven()?;
        Ok(receipt(image, &layout.lacks(image)?).into())
    }
}

impl LayoutImage {
    /// The layout, which knows again what was proven, and the name that is to be in it.
    fn proven(&self) -> Result<(Layout, &str)> {
        let name = self.name.as_deref().ok_or_else(|| TransportError::Name {
            text: format!("oci:{}", shown(&self.layout.root())),
            why: "an image that is written needs a tag".to_owned(),
        })?;
        let proven = store::cache_folder().map(Proven::in_folder).unwrap_or_default();
        Ok((self.layout.clone().remembering(proven), name))
    }
}

fn receipt(image: &Image, written: &NewBlobs) -> Receipt {
    Receipt {
        digest: image.digest(),
        bytes_sent: written.bytes,
        layers_sent: written.layers,
        layers_skipped: image.layers.len() - written.layers,
        bytes_skipped: written.skipped,
    }
}
