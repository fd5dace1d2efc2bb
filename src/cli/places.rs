//! Where images of one command lie: an engine that is asked, and may be sent an image, while that is still being made; and registries.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::OnceCell;
use tokio::task::JoinHandle;

use super::Ui;
use super::image::{Bar, transfer};
use super::options::{EngineOptions, ImageOptions};
use crate::engine::ConnectOptions;
use crate::engine::docker::DockerEngine;
use crate::oci::{Digest, Image, Reference, TarImage};
use crate::transport::daemon::{Daemon, Loaded, takes_tars};
use crate::transport::held::Ahead;
use crate::transport::registry::Registries;
use crate::transport::{ImageName, Receipt, Sink as _, TransportError};

/// Where images are read from and written to: an engine, and the registries of one command.
pub struct Places {
    engine: EngineOptions,
    /// The engine, once it has said what it is: it is asked that once for a command.
    connected: Arc<OnceCell<Arc<DockerEngine>>>,
    /// Repository → what the engine has of it, where that is being asked.
    ahead: Mutex<BTreeMap<String, JoinHandle<Option<Ahead>>>>,
    /// Whether the engine takes tars, once it has told.
    takes_tars: Arc<OnceLock<bool>>,
    /// An image that the engine is being sent before the build has ended.
    early: Mutex<Option<Early>>,
    pub(super) registries: Registries,
}

/// A load that was begun while the image was still being made.
struct Early {
    /// Its name in the engine.
    reference: Reference,
    /// The digest of its config.
    id: Digest,
    loading: Loading,
}

/// What of an image is being sent.
enum Loading {
    /// Tars, before they are compressed: what became of that, or what the engine told where it takes none.
    Tars(JoinHandle<Result<Result<Loaded, Ahead>, TransportError>>),
    /// All of it.
    Whole(JoinHandle<Result<Receipt, TransportError>>),
}

impl Places {
    /// As the options say.
    pub fn new(options: &ImageOptions) -> Self {
        let registries = Registries::new(&options.insecure_registries, &options.registry_mirrors);
        Self { registries, ..Self::of_engine(&options.engine) }
    }

    /// This engine, and registries as they are spoken to where nothing is said.
    pub fn of_engine(engine: &EngineOptions) -> Self {
        Self {
            engine: engine.clone(),
            connected: Arc::default(),
            ahead: Mutex::default(),
            takes_tars: Arc::default(),
            early: Mutex::default(),
            registries: Registries::default(),
        }
    }

    /// The engine, connected once.
    ///
    /// # Errors
    /// The engine's.
    pub async fn engine(&self) -> crate::engine::Result<Arc<DockerEngine>> {
        connect(&self.connected, &self.engine).await
    }

    /// Begins to ask the engine what it has of these outputs' repositories, which a transfer then need not wait for. What fails is
    /// asked again by whoever needs it. What lies there under the tag of the predecessor is `likely` that one.
    pub fn look_ahead(&self, outputs: &[ImageName], likely: Option<&str>, ui: &Ui) {
        let Ok(transfers) = ui.transfers() else { return };
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        for reference in outputs.iter().filter_map(ImageName::of_engine) {
            let (connected, options) = (Arc::clone(&self.connected), self.engine.clone());
            let told = Arc::clone(&self.takes_tars);
            let (of, likely) = (reference.clone(), likely.map(str::to_owned));
            ahead.entry(reference.familiar_name()).or_insert_with(|| {
                transfers.spawn(async move {
                    let engine = connect(&connected, &options).await.ok()?;
                    let ahead = Ahead::of(engine.as_ref(), &of, likely.as_deref()).await.ok()?;
                    let _ = told.set(takes_tars(&ahead.kind));
                    Some(ahead)
                })
            });
        }
    }

    /// True where an engine is among the outputs that takes tars, as far as it has told.
    pub fn may_take_tars(&self, outputs: &[ImageName]) -> bool {
        outputs.iter().any(|output| output.of_engine().is_some()) && self.takes_tars.get() != Some(&false)
    }

    /// Begins to send an image to the first engine among the outputs, where that takes one whose layers are not compressed yet.
    pub fn send_early(&self, image: TarImage, outputs: &[ImageName], ui: &Ui) {
        let Ok(transfers) = ui.transfers() else { return };
        let Some(reference) = outputs.iter().find_map(ImageName::of_engine).cloned() else { return };
        let total = image.layers.iter().map(|layer| layer.bytes().1).sum();
        let bar = Bar(ui.progress(&ImageName::Daemon(reference.clone()).to_string(), total));
        let (id, begun) = (image.config_digest(), self.begun(&reference));
        let (connected, options, name) =
            (Arc::clone(&self.connected), self.engine.clone(), reference.clone());
        let loading = transfers.spawn(async move {
            let engine = connect(&connected, &options).await?;
            let ahead = match known(begun).await {
                Some(ahead) => ahead,
                None => Ahead::of(engine.as_ref(), &name, None).await?,
            };
            if !takes_tars(&ahead.kind) {
                return Ok(Err(ahead));
            }
            let loaded = Daemon::new(engine, name).knowing(Some(ahead)).put_tars(image, &bar).await;
            bar.0.finish();
            loaded.map(Ok)
        });
        let mut early = self.early.lock().unwrap_or_else(PoisonError::into_inner);
        *early = Some(Early { reference, id, loading: Loading::Tars(loading) });
    }

    /// Begins to send an image that is whole to the first engine among the outputs, where that does not take it as tars: meanwhile
    /// the disk takes what was made. `is_new` where a layer of it was made just now.
    pub fn send_whole(&self, image: &Image, is_new: bool, outputs: &[ImageName], ui: &Ui) {
        let Ok(transfers) = ui.transfers() else { return };
        let Some(reference) = outputs.iter().find_map(ImageName::of_engine).cloned() else { return };
        if self.takes_tars.get() == Some(&true) {
            return;
        }
        let bar = Bar(ui.progress(&ImageName::Daemon(reference.clone()).to_string(), image.layers_size()));
        let mut early = self.early.lock().unwrap_or_else(PoisonError::into_inner);
        let (refused, begun) = (early.take(), self.begun(&reference));
        let (connected, options, name) =
            (Arc::clone(&self.connected), self.engine.clone(), reference.clone());
        let (id, image) = (image.config_digest(), image.clone());
        let loading = transfers.spawn(async move {
            let ahead = match refused.map(|early| early.loading) {
                // It may not have told before it was sent to.
                Some(Loading::Tars(loading)) => match taken(loading).await {
                    Ok(loaded) => return Ok(loaded.receipt(&image)),
                    Err(told) => told,
                },
                Some(Loading::Whole(_)) | None => known(begun).await,
            };
            let engine = connect(&connected, &options).await?;
            let daemon = Daemon::new(engine, name).knowing(ahead);
            let daemon = if is_new { daemon.of_new() } else { daemon };
            let receipt = daemon.put(&image, &bar).await;
            bar.0.finish();
            receipt
        });
        *early = Some(Early { reference, id, loading: Loading::Whole(loading) });
    }

    /// What became of an image that was begun to be sent. One that the engine did not take as tars is sent as any other.
    pub(super) fn sent_early(
        &self,
        image: &Image,
        reference: &Reference,
        ui: &Ui,
    ) -> Option<Result<Receipt, TransportError>> {
        let is_it = |early: &mut Early| early.reference == *reference && early.id == image.config_digest();
        let early = self.early.lock().unwrap_or_else(PoisonError::into_inner).take_if(is_it)?;
        match early.loading {
            Loading::Whole(loading) => transfer(ui, loading).ok()?.ok(),
            Loading::Tars(loading) => Some(Ok(transfer(ui, taken(loading)).ok()?.ok()?.receipt(image))),
        }
    }

    /// What is being asked of a repository.
    fn begun(&self, reference: &Reference) -> Option<JoinHandle<Option<Ahead>>> {
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        ahead.remove(&reference.familiar_name())
    }

    /// An image of the engine.
    pub(super) async fn daemon(&self, reference: &Reference) -> Result<Daemon, TransportError> {
        let known = known(self.begun(reference)).await;
        Ok(Daemon::new(self.engine().await?, reference.clone()).knowing(known))
    }
}

/// What became of tars that were begun to be sent; else what the engine told, where it takes none.
async fn taken(
    loading: JoinHandle<Result<Result<Loaded, Ahead>, TransportError>>,
) -> Result<Loaded, Option<Ahead>> {
    match loading.await {
        Ok(Ok(taken)) => taken.map_err(Some),
        Ok(Err(error)) => {
            tracing::debug!(%error, "the engine did not take the image before it was compressed");
            Err(None)
        }
        Err(_) => Err(None),
    }
}

/// What an engine told, where it was asked.
async fn known(begun: Option<JoinHandle<Option<Ahead>>>) -> Option<Ahead> {
    begun?.await.ok().flatten()
}

async fn connect(
    connected: &OnceCell<Arc<DockerEngine>>,
    EngineOptions { host, context }: &EngineOptions,
) -> crate::engine::Result<Arc<DockerEngine>> {
    let options = ConnectOptions { host: host.clone(), context: context.clone() };
    let asked = async { Ok(Arc::new(DockerEngine::connect(&options).await?)) };
    connected.get_or_try_init(|| asked).await.map(Arc::clone)
}
