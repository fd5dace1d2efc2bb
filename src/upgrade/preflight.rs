//! What must hold before a plan is made: names, images, addresses, the guard. Pure, and the first thing of every plan. All that is
//! found is gathered; nothing ends with the first thing that stands in the way.

mod addresses;
mod clocks;
mod cluster;
pub(super) mod room;
pub(super) mod way_back;

use serde_json::Value;

pub(super) use cluster::names as names_in_database;

use super::finding::Findings;
use super::intent::is_framework;
use super::refusal::Missing;
use super::state::{is_up, serving};
use super::{Intent, Refusal, differ, leaning};
use crate::deploy::desired::{ImageOrigin, Resource, Service};
use crate::deploy::mounts::{MountSource, Mounts};
use crate::deploy::observed::{LABEL_DEPLOYMENT, LABEL_SERVICE};
use crate::deploy::{Desired, Observed, guard};
use crate::diagnose::Place;
use crate::engine::Container;
use crate::tars::Role;

/// Docker 19.03's; older engines lack what a swap relies on.
const LEAST_API: &str = "1.40";

/// Checks what every command that starts or makes containers relies on.
pub fn check(desired: &Desired, observed: &Observed, intent: &Intent) -> Findings {
    let mut findings = Findings::default();
    findings.check(engine(observed));
    // Stopping is allowed whatever is declared.
    if !matches!(intent, Intent::Down { .. }) {
        for error in guard::find(desired) {
            findings.refuse(Box::new(error).into());
        }
    }
    findings.check(images_are_there(desired, observed, intent));
    for service in &desired.services {
        findings.check(name(desired, observed, service));
        if service.declaration.host.get("AutoRemove") == Some(&Value::Bool(true)) {
            findings.refuse(auto_remove(service));
        }
        if intent.makes(service) {
            image(desired, observed, service, &mut findings);
        }
    }
    addresses::check(desired, observed, intent, &mut findings);
    clocks::check(desired, observed, &mut findings);
    cluster::check(desired, observed, intent, &mut findings);
    cluster::publishing(desired, observed, intent, &mut findings);
    if matches!(intent, Intent::Up) {
        external(&desired.networks, "network", &mut findings, |name| {
            observed.networks.get(name).is_some_and(Option::is_some)
        });
        external(&desired.volumes, "volume", &mut findings, |name| {
            observed.volumes.get(name).is_some_and(Option::is_some)
        });
    }
    findings
}

fn engine(observed: &Observed) -> Result<(), Refusal> {
    let has = &observed.engine.api_version;
    match api_number(has) {
        Some(_) if !speaks(has, LEAST_API) => {
            Err(Refusal::EngineTooOld { has: has.clone(), wants: LEAST_API })
        }
        _ => Ok(()),
    }
}

/// True where an API version is that one or a later one; what is no version is none.
pub(super) fn speaks(has: &str, wanted: &str) -> bool {
    api_number(has).is_some_and(|has| Some(has) >= api_number(wanted))
}

fn api_number(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The wanted name is free, or its container is this service's.
fn name(desired: &Desired, observed: &Observed, service: &Service) -> Result<(), Refusal> {
    let Some(found) = observed.container(&service.container) else { return Ok(()) };
    let (service_name, container) = (service.name.clone(), found.name.clone());
    let place = Box::new(service.place.clone());
    let Some(deployment) = found.labels.get(LABEL_DEPLOYMENT) else {
        let mounts = Mounts::of_container(found);
        let mut data: Vec<String> = mounts
            .iter()
            .filter(|mount| mount.source != MountSource::Tmpfs)
            .map(|mount| format!("{} in {}", mount.target, mounts.source_of(&mount.target)))
            .collect();
        data.sort();
        return Err(Refusal::Foreign { service: service_name, container, data, place });
    };
    let of = found.labels.get(LABEL_SERVICE);
    if *deployment == desired.deployment && of == Some(&service.name) {
        return Ok(());
    }
    let of = of.map_or_else(String::new, |of| format!("the service `{of}` of "));
    let owner = format!("{of}the deployment `{deployment}`");
    Err(Refusal::Other { service: service_name, container, owner, place })
}

/// Every image that a container may be made from is somewhere; all that are missing are named at once.
fn images_are_there(desired: &Desired, observed: &Observed, intent: &Intent) -> Result<(), Refusal> {
    let mut missing: Vec<Missing> = Vec::new();
    for service in desired.services.iter().filter(|service| intent.makes(service)) {
        let image = service.image.to_string();
        if observed.image(&image).is_some() {
            continue;
        }
        match missing.iter_mut().find(|known| known.image == image) {
            Some(known) => known.services.push(service.name.clone()),
            None => missing.push(Missing {
                image,
                services: vec![service.name.clone()],
                is_built: is_framework(service),
                place: image_place(service),
            }),
        }
    }
    if missing.is_empty() { Ok(()) } else { Err(Refusal::NoImages { missing }) }
}

fn image(desired: &Desired, observed: &Observed, service: &Service, findings: &mut Findings) {
    let name = service.image.to_string();
    let Some(image) = observed.image(&name) else { return };
    if image.architecture != observed.engine.architecture && !image.architecture.is_empty() {
        findings.refuse(Refusal::Architecture {
            service: service.name.clone(),
            image: name,
            has: image.architecture.clone(),
            wants: observed.engine.architecture.clone(),
        });
    }
    if service.role != Some(Role::Database) {
        findings.check(guard::check_image(&image.env, &service.image).map_err(Box::new));
    }
    // What runs as it is declared is left alone, whatever it was made from.
    let is_left_alone = serving(observed, &desired.deployment, service).is_some_and(|container| {
        (is_up(container) || service.has_adopted(container))
            && container.image_id == image.id
            && differ::difference(service, container, observed).is_none()
    });
    if !is_left_alone {
        leaders(desired, observed, service, findings);
        let role = guard::check_image_role(service, &image.labels, &image.raw["Config"]);
        findings.check(role.map_err(Box::new));
        findings.check(guard::check_with_image(service, image).map_err(Box::new));
    }
}

/// Whose namespaces it shares is there, or is made before it.
fn leaders(desired: &Desired, observed: &Observed, service: &Service, findings: &mut Findings) {
    for (key, name) in service.declaration.shares() {
        let is_ours = desired.services.iter().any(|other| other.container == name);
        if !is_ours && !observed.leaders.contains_key(name) {
            let of_compose = match key {
                "IpcMode" => "ipc",
                "PidMode" => "pid",
                _ => "network_mode",
            };
            findings.refuse(Refusal::NoLeader {
                service: service.name.clone(),
                what: leaning::word(key),
                name: name.to_owned(),
                place: Box::new(service.written.keys.get(of_compose).unwrap_or(&service.place).clone()),
            });
        }
    }
}

/// The line that names the image's tag.
fn image_place(service: &Service) -> Place {
    match &service.image_origin {
        ImageOrigin::File(place)
        | ImageOrigin::DotEnv { place, .. }
        | ImageOrigin::Elsewhere { place, .. } => place.clone(),
    }
}

fn external(
    resources: &[Resource],
    kind: &'static str,
    findings: &mut Findings,
    is_there: impl Fn(&str) -> bool,
) {
    for resource in resources.iter().filter(|resource| resource.external && !is_there(&resource.name)) {
        findings.refuse(Refusal::NoExternal {
            kind,
            name: resource.name.clone(),
            place: Box::new(resource.place.clone()),
        });
    }
}

/// What a container that is about to be started again, or that a way back would have to start, must bear.
pub fn guard_container(service: &Service, container: &Container) -> Result<(), Refusal> {
    if service.role != Some(Role::Database) {
        guard::check_container(container).map_err(Box::new)?;
    }
    refuse_auto_remove(service, container)
}

/// One that is gone once it stops is no way back.
pub fn refuse_auto_remove(service: &Service, container: &Container) -> Result<(), Refusal> {
    if container.raw.pointer("/HostConfig/AutoRemove") == Some(&Value::Bool(true)) {
        return Err(auto_remove(service));
    }
    Ok(())
}

/// What a container that is about to be started again starts with; what replaces it is asked in [`check`].
pub fn guard_start(service: &Service, container: &Container) -> Result<(), Refusal> {
    guard_container(service, container)?;
    Ok(guard::check_image_role(service, &container.labels, &container.raw["Config"]).map_err(Box::new)?)
}

fn auto_remove(service: &Service) -> Refusal {
    Refusal::AutoRemove { service: service.name.clone(), place: Box::new(service.place.clone()) }
}
