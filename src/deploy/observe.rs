//! Reads the observed state from an engine, once per command.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::Desired;
use super::observed::{LABEL_DEPLOYMENT, Observed};
use crate::engine::{Engine, Result};

/// What the engine holds of this deployment: containers by label and by wanted name, and the images, networks and
/// volumes that the files name.
pub async fn observe(engine: &dyn Engine, desired: &Desired) -> Result<Observed> {
    let info = engine.info().await?;
    let mut containers =
        engine.list_containers(&[format!("{LABEL_DEPLOYMENT}={}", desired.deployment)]).await?;
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
            vacant.insert(found);
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
