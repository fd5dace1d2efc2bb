//! What is brought to the engine before a deploy begins: images that only the local store has; and what `--locked` asks.

use std::sync::Arc;

use serde_json::json;

use super::super::image::receipt_text;
use super::super::{Failure, Ui, ui};
use crate::deploy::desired::Service;
use crate::deploy::lock::{Lock, require};
use crate::deploy::{Desired, Observed};
use crate::engine::{Engine, EngineImage, ImageStore};
use crate::oci::{Image, Reference};
use crate::store::StoreError;
use crate::transport::daemon::Daemon;
use crate::transport::{Progress, Sink as _};
use crate::upgrade::{Action, Intent, Plan, Step};

/// The images that the engine lacks and the store has.
#[derive(Debug, Default)]
pub struct Prepared {
    images: Vec<(Reference, Image)>,
}

impl Prepared {
    /// Looks for the images that the intent needs, and tells the observed state of those that will be loaded.
    pub fn find(wanted: &Desired, observed: &mut Observed, intent: &Intent) -> Result<Self, Failure> {
        let mut prepared = Self::default();
        for service in wanted.services.iter().filter(|service| makes(intent, service)) {
            let name = service.image.to_string();
            if observed.images.get(&name).is_some_and(Option::is_some) {
                continue;
            }
            let Some(image) = in_store(&name)? else { continue };
            let store = observed.engine.image_store;
            observed.images.insert(name, Some(as_loaded(&image, &service.image, store)));
            prepared.images.push((service.image.clone(), image));
        }
        Ok(prepared)
    }

    /// True where the engine has all it needs.
    pub fn is_empty(&self) -> bool {
        self.images.is_empty()
    }

    /// Puts the loads before the plan's own steps.
    pub fn announce(&self, plan: &mut Plan) {
        if plan.is_empty() {
            return;
        }
        let cause = "the engine lacks it, the local store has it";
        let step = |image: &Reference| Step {
            service: None,
            cause: cause.to_owned(),
            action: Action::Load { image: image.clone() },
        };
        let loads: Vec<Step> = self.images.iter().map(|(reference, _)| step(reference)).collect();
        plan.steps.splice(0..0, loads);
    }

    /// Sends them.
    pub async fn load(&self, engine: Arc<dyn Engine>, ui: &Ui) -> Result<(), Failure> {
        for (reference, image) in &self.images {
            let total = image.layers.iter().map(|layer| layer.descriptor.size).sum();
            let bar = Bar(ui.progress(&reference.to_string(), total));
            let receipt = Daemon::new(engine.clone(), reference.clone()).put(image, &bar).await;
            bar.0.finish();
            let receipt = receipt?;
            ui.note(&format!("loaded {reference}: {}", receipt_text(&receipt)));
        }
        Ok(())
    }
}

/// What a bar shows of a transfer.
struct Bar(ui::Progress);

impl Progress for Bar {
    fn advance(&self, bytes: u64) {
        self.0.advance(bytes);
    }
}

/// True where the intent may make a container of this service.
fn makes(intent: &Intent, service: &Service) -> bool {
    match intent {
        Intent::Up => true,
        Intent::Upgrade { images } => images.contains_key(&service.name),
        Intent::Restart { .. } | Intent::Rollback { .. } | Intent::Down { .. } => false,
    }
}

/// The image of that name in the local store. That there is no store, or no such image, is no error here.
fn in_store(name: &str) -> Result<Option<Image>, Failure> {
    let store = match crate::store::local() {
        Ok(store) => store,
        Err(StoreError::NoHome { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if !store.root().join("index.json").exists() {
        return Ok(None);
    }
    match store.read(Some(name)) {
        Ok(image) => Ok(Some(image)),
        Err(StoreError::Absent { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What the engine will say of the image once it is loaded. The id is known beforehand on a classic store alone.
fn as_loaded(image: &Image, reference: &Reference, store: ImageStore) -> EngineImage {
    let config: serde_json::Value = serde_json::from_slice(&image.config).unwrap_or_default();
    let inner = &config["config"];
    let id = match store {
        ImageStore::Classic => image.config_digest().to_string(),
        ImageStore::Containerd => String::new(),
    };
    EngineImage {
        tags: vec![reference.to_string()],
        diff_ids: image.diff_ids(),
        env: strings(&inner["Env"]),
        labels: inner["Labels"]
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect(),
        size: image.layers.iter().map(|layer| layer.descriptor.size).sum(),
        created: config["created"].as_str().unwrap_or_default().to_owned(),
        architecture: config["architecture"].as_str().unwrap_or_default().to_owned(),
        raw: json!({"Id": id, "Config": inner}),
        id,
    }
}

fn strings(value: &serde_json::Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(serde_json::Value::as_str).map(str::to_owned).collect()
}

/// `--locked`: every image that may run is pinned, and is the pinned one wherever it is already.
pub fn require_locked(
    desired: &Desired,
    wanted: &Desired,
    observed: &Observed,
    intent: &Intent,
) -> Result<(), Failure> {
    let lock = Lock::read(desired)?;
    let services = wanted.services.iter().filter(|service| makes(intent, service));
    let images: Vec<&Reference> = services.map(|service| &service.image).collect();
    // An image that is yet to be loaded into a containerd store has no id to compare; it is looked at again then.
    let known = observed
        .images
        .iter()
        .map(|(name, image)| (name.clone(), image.clone().filter(|image| !image.id.is_empty())))
        .collect();
    Ok(require(&lock, images, &known, observed.engine.image_store)?)
}
