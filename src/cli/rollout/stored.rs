//! The images that the local store has for a deployment, and how one is sent to the engine.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::super::image::receipt_text;
use super::super::{Failure, Ui, ui};
use super::operator::STATE;
use crate::deploy::Desired;
use crate::engine::{Engine, EngineImage, Environment, LayerSize};
use crate::oci::{Image, Layer, Reference};
use crate::store::{self, Layout, StoreError};
use crate::transport::daemon::Daemon;
use crate::transport::{Progress, Sink as _};
use crate::upgrade::parked;

/// What the local store has of what a deployment names.
#[derive(Debug, Default)]
pub struct StoredImages {
    images: BTreeMap<String, Image>,
    shown: BTreeMap<String, EngineImage>,
}

impl StoredImages {
    /// Looks the images of these services up, and those of the containers that a rollback may have to make once more. That there is
    /// no store, or no such image, is no error.
    pub fn find(wanted: &Desired, goes_back: bool) -> Result<Self, Failure> {
        let mut found = Self::default();
        let local = match store::local() {
            Ok(local) => local,
            Err(StoreError::NoHome { .. }) => return Ok(found),
            Err(error) => return Err(error.into()),
        };
        if !local.root().join("index.json").exists() {
            return Ok(found);
        }
        let mut references: Vec<Reference> =
            wanted.services.iter().map(|service| service.image.clone()).collect();
        if goes_back {
            // What cannot be read is said where it is needed.
            let (kept, _) =
                parked::read(&wanted.directory.join(STATE), &wanted.deployment).unwrap_or_default();
            references.extend(kept.values().filter_map(|twin| twin.image.parse().ok()));
        }
        for reference in references {
            let name = reference.to_string();
            if found.images.contains_key(&name) {
                continue;
            }
            match local.read(Some(&name)) {
                Ok(image) => {
                    found.shown.insert(name.clone(), as_loaded(&image, &reference, &local));
                    found.images.insert(name, image);
                }
                Err(StoreError::Absent { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(found)
    }

    /// The image of that name.
    pub fn image(&self, reference: &Reference) -> Option<&Image> {
        self.images.get(&reference.to_string())
    }

    /// Each as a classic engine will show it once it is loaded.
    pub fn shown(&self) -> &BTreeMap<String, EngineImage> {
        &self.shown
    }
}

/// Sends an image to the engine, with a bar.
pub async fn send(
    engine: Arc<dyn Engine>,
    reference: &Reference,
    image: &Image,
    ui: &Ui,
) -> Result<(), Failure> {
    let total = image.layers_size();
    let bar = Bar(ui.progress(&reference.to_string(), total));
    let receipt = Daemon::new(engine, reference.clone()).put(image, &bar).await;
    bar.0.finish();
    ui.note(&format!("loaded {reference}: {}", receipt_text(&receipt?)));
    Ok(())
}

/// What a bar shows of a transfer.
struct Bar(ui::Progress);

impl Progress for Bar {
    fn advance(&self, bytes: u64) {
        self.0.advance(bytes);
    }
}

/// What a classic engine will say of the image once it is loaded.
fn as_loaded(image: &Image, reference: &Reference, store: &Layout) -> EngineImage {
    let config: Value = serde_json::from_slice(&image.config).unwrap_or_default();
    let inner = &config["config"];
    let id = image.config_digest().to_string();
    EngineImage {
        tags: vec![reference.to_string()],
        diff_ids: image.diff_ids(),
        env: Environment::of(strings(&inner["Env"])),
        labels: inner["Labels"]
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect(),
        size: image.layers_size(),
        layer_sizes: image.layers.iter().map(|layer| size(store, layer)).collect(),
        created: config["created"].as_str().unwrap_or_default().to_owned(),
        architecture: config["architecture"].as_str().unwrap_or_default().to_owned(),
        raw: json!({"Id": id, "Config": inner}),
        id,
    }
}

fn size(store: &Layout, layer: &Layer) -> LayerSize {
    let descriptor = &layer.descriptor;
    LayerSize { stored: descriptor.size, unpacked: store::unpacked(store, descriptor) }
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}
