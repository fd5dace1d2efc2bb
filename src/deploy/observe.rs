//! Reads the observed state from an engine, once per command.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::Desired;
use super::observed::{Availability, LABEL_DEPLOYMENT, Observed};
use crate::engine::{Engine, EngineImage, ImageStore, Result};

/// What the engine holds of this deployment: containers by label and by wanted name, and the images, networks and
/// volumes that the files name.
pub async fn observe(engine: &dyn Engine, desired: &Desired) -> Result<Observed> {
    observe_with(engine, desired, &BTreeMap::new()).await
}

/// The same with what the local store has, by reference: each as a classic engine would show it.
pub async fn observe_with(
    engine: &dyn Engine,
    desired: &Desired,
    stored: &BTreeMap<String, EngineImage>,
) -> Result<Observed> {
    let info = engine.info().await?;
    let mut containers = Vec::new();
    for listed in engine.list_containers(&[format!("{LABEL_DEPLOYMENT}={}", desired.deployment)]).await? {
        // What went away in between is left out.
        containers.extend(engine.inspect_container(&listed.id).await?);
    }
    for service in &desired.services {
        if !containers.iter().any(|container| container.name == service.container)
            && let Some(container) = engine.inspect_container(&service.container).await?
            // A name is also looked up among ids: `abc` finds the container whose id begins with it.
            && container.name == service.container
        {
            containers.push(container);
        }
    }
    containers.sort_by(|a, b| a.name.cmp(&b.name));

    let mut images = BTreeMap::new();
    let wanted = desired.services.iter().map(|service| service.image.to_string());
    for image in wanted.chain(containers.iter().map(|container| container.image_id.clone())) {
        if let Entry::Vacant(vacant) = images.entry(image) {
            let found = engine.inspect_image(vacant.key()).await?;
            let found = found.map(Availability::Engine);
            let kept = stored.get(vacant.key()).map(|image| as_loaded(image, info.image_store));
            vacant.insert(found.or_else(|| kept.map(Availability::Store)).unwrap_or(Availability::Absent));
        }
    }
    let mut networks = BTreeMap::new();
    for network in &desired.networks {
        networks.insert(network.name.clone(), engine.inspect_network(&network.name).await?);
    }
    let mut volumes = BTreeMap::new();
    for volume in &desired.volumes {
        volumes.insert(volume.name.clone(), engine.inspect_volume(&volume.name).await?);
    }
    Ok(Observed { engine: info, containers, images, networks, volumes })
}

/// The id is known beforehand on a classic store alone.
fn as_loaded(image: &EngineImage, store: ImageStore) -> EngineImage {
    let mut image = image.clone();
    if store == ImageStore::Containerd {
        image.id.clear();
    }
    image
}
