//! Compares what is pinned, what is declared, what the engine holds and what runs: pure, one sentence a difference.

use super::desired::Desired;
use super::observed::{LABEL_SERVICE, Observed};
use super::pins::{Pin, Pins};
use crate::engine::{Container, Status};

/// Where a difference shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Within {
    /// Between the lock and the deployment files.
    Lock,
    /// Between the lock and the engine's images.
    Engine,
    /// Between the lock and a container.
    Container,
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Difference {
    /// Where it shows.
    pub within: Within,
    /// The service that it concerns, where it is one.
    pub service: Option<String>,
    /// A sentence for people.
    pub what: String,
}

/// Every difference between the lock, the files, the engine and the containers, in the order of the services.
pub fn differences(pins: &Pins, desired: &Desired, observed: &Observed) -> Vec<Difference> {
    let mut found = Vec::new();
    // A build that pinned a base knows of no deployment.
    if !pins.deployment.is_empty() && pins.deployment != desired.deployment {
        let what =
            format!("the lock is of the deployment {}, this is {}", pins.deployment, desired.deployment);
        found.push(Difference { within: Within::Lock, service: None, what });
    }
    let unused = pins.images.keys().filter(|image| !desired.services.iter().any(|one| one.image == **image));
    found.extend(unused.map(|image| Difference {
        within: Within::Lock,
        service: None,
        what: format!("{image} is pinned, and no service uses it"),
    }));
    for service in &desired.services {
        let mut add =
            |within, what| found.push(Difference { within, service: Some(service.name.clone()), what });
        let image = &service.image;
        let Some(pin) = pins.images.get(image) else {
            add(Within::Lock, format!("{}: {image} is not pinned", service.name));
            continue;
        };
        match observed.image(&image.to_string()) {
            None => add(Within::Engine, format!("{}: the engine lacks {image}", service.name)),
            Some(seen) => {
                if let Some(why) = pin.mismatch(&Pin::of_engine(seen, observed.engine.image_store)) {
                    add(
                        Within::Engine,
                        format!("{}: {image} of the engine is not the pinned one: {why}", service.name),
                    );
                }
            }
        }
        match observed.container(&service.container) {
            None => add(
                Within::Container,
                format!("{}: there is no container {}", service.name, service.container),
            ),
            Some(container) => {
                if let Some(what) = container_differs(container, pin, &service.name) {
                    add(Within::Container, format!("{}: {what}", service.name));
                }
            }
        }
    }
    found
}

/// How a container differs from what is pinned for it.
fn container_differs(container: &Container, pin: &Pin, service: &str) -> Option<String> {
    let name = &container.name;
    if let Some(other) = container.labels.get(LABEL_SERVICE)
        && other != service
    {
        return Some(format!("the container {name} is that of the service {other}"));
    }
    if !pin.has_id(&container.image_id) {
        let id = container.image_id.trim_start_matches("sha256:");
        let id: String = id.chars().take(12).collect();
        return Some(format!("the container {name} was made from {id}, pinned is {}", pin.short()));
    }
    (container.status != Status::Running).then(|| format!("the container {name} does not run"))
}
