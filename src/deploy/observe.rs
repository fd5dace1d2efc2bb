//! Reads the observed state from an engine, once per command: from lists, and from an inspect of what lists do not tell.
//!
//! A list has neither restart policy nor environment nor exit code. Of a container that is plainly as declared (its name,
//! its spec label, its image's id, and it runs) they follow from the declaration: the engine keeps what a container was
//! created with, and the label holds the hash of that. The restart policy alone does not follow: it is `no` from the
//! start until the container is proven. That it is proven is what a deploy's end means, and the journal tells that end;
//! where it does not (another machine's deploy, a lock, a container that is not in its place), each container is asked.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::contents;
use super::desired::{Desired, Service};
use super::facts::Facts;
use super::observed::{
    Availability, LABEL_DEPLOY, LABEL_DEPLOYMENT, LABEL_LEANS, LABEL_LOCK, LABEL_RESTART, LABEL_ROLE,
    LABEL_SERVICE, LABEL_SPEC, Observed,
};
use crate::engine::{
    Container, ContainerSummary, Engine, EngineError, EngineImage, Environment, ImageStore, ImageSummary,
    RestartPolicy, Result, Status,
};
use crate::oci::Reference;
use crate::tars::catalogue::IMAGE_ROLE_LABEL;

/// How many images of a framework are tried where none that the deployment names can ask.
const ASKERS: usize = 3;

/// What makes lists enough.
#[derive(Clone, Copy)]
pub struct Glance<'a> {
    /// Whether a deploy came to its end, as far as is known here: nothing that it did is unproven.
    pub ended: &'a (dyn Fn(&str) -> bool + Sync),
    /// Whether a name is that of a container that is kept, and not to be started without another look.
    pub is_parked: &'a (dyn Fn(&str) -> bool + Sync),
    /// True where the deployment's lock is the asker's own: it was looked at before the lock was taken.
    pub holds_lock: bool,
}

/// What the engine holds of this deployment: containers by label and by wanted name, and the images, networks and
/// volumes that the files name. Each container is inspected.
pub async fn observe(engine: &dyn Engine, desired: &Desired) -> Result<Observed> {
    observe_with(engine, desired, &BTreeMap::new(), None).await
}

/// The same with what the local store has, by reference: each as a classic engine would show it.
///
/// With a glance, only those containers are inspected of which the lists do not tell enough; a parked one has then no
/// environment in the answer, and neither has it been looked at whether it would be removed when it stops.
pub async fn observe_with(
    engine: &dyn Engine,
    desired: &Desired,
    stored: &BTreeMap<String, EngineImage>,
    glance: Option<Glance<'_>>,
) -> Result<Observed> {
    let info = engine.info().await?;
    // Of all, not only of those with the label: a wanted name may be somebody else's.
    let mut listed = engine.list_containers(&[]).await?;
    for one in &mut listed {
        adopt(desired, &one.id, &mut one.labels);
    }
    let leaders = strange_leaders(desired, &listed);
    listed.retain(|one| {
        is_ours(one, desired) || desired.services.iter().any(|service| service.container == one.name)
    });
    let mut volumes: BTreeMap<String, BTreeMap<String, String>> =
        engine.list_volumes(&[]).await?.into_iter().collect();
    let mut images = ImageList::list(engine).await?;
    let glance = glance.filter(|glance| {
        let locked = volumes.values().any(|labels| {
            labels.contains_key(LABEL_LOCK) && labels.get(LABEL_DEPLOYMENT) == Some(&desired.deployment)
        });
        (glance.holds_lock || !locked) && is_settled(&listed, desired, *glance)
    });

    let mut containers = Vec::new();
    for one in listed {
        let told = match glance {
            Some(glance) => as_told(&one, desired, glance, &mut images).await?,
            None => None,
        };
        match told {
            Some(container) => containers.push(container),
            // What went away in between is left out.
            None => containers.extend(engine.inspect_container(&one.id).await?.map(|mut container| {
                adopt(desired, &container.id, &mut container.labels);
                container
            })),
        }
    }
    containers.sort_by(|a, b| a.name.cmp(&b.name));

    let mut found = BTreeMap::new();
    for service in &desired.services {
        if let Entry::Vacant(vacant) = found.entry(service.image.to_string()) {
            let image = images.of(&service.image).await?.map(Availability::Engine);
            let kept = stored.get(vacant.key()).map(|image| as_loaded(image, info.image_store));
            vacant.insert(image.or_else(|| kept.map(Availability::Store)).unwrap_or(Availability::Absent));
        }
    }
    for container in &containers {
        if let Entry::Vacant(vacant) = found.entry(container.image_id.clone()) {
            let image = images.by_id(&container.image_id).await?;
            vacant.insert(image.map_or(Availability::Absent, Availability::Engine));
        }
    }
    let mut networks = BTreeMap::new();
    for network in &desired.networks {
        // A list of networks does not say which addresses are taken.
        networks.insert(network.name.clone(), engine.inspect_network(&network.name).await?);
    }
    let wanted = desired.volumes.iter().map(|volume| volume.name.clone());
    let volumes = wanted.map(|name| (name.clone(), volumes.remove(&name))).collect();
    Ok(Observed {
        engine: info,
        containers,
        images: found,
        networks,
        volumes,
        kept: BTreeMap::new(),
        askers: images.askers,
        shelf: None,
        contents: BTreeMap::new(),
        leaders,
        facts: Facts::default(),
    })
}

/// Adds where these images are, by reference or id, where that is not known yet.
pub async fn find_images(
    engine: &dyn Engine,
    observed: &mut Observed,
    stored: &BTreeMap<String, EngineImage>,
    names: impl IntoIterator<Item = String>,
) -> Result<()> {
    for name in names {
        if observed.images.contains_key(&name) {
            continue;
        }
        let found = engine.inspect_image(&name).await?.map(Availability::Engine);
        let kept = stored.get(&name).map(|image| as_loaded(image, observed.engine.image_store));
        let found = found.or_else(|| kept.map(Availability::Store)).unwrap_or(Availability::Absent);
        observed.images.insert(name, found);
    }
    Ok(())
}

/// Looks into containers for what goes with them: whoever asks names those that would be stopped, as each is asked itself.
pub async fn look_into(
    engine: &dyn Engine,
    desired: &Desired,
    observed: &mut Observed,
    names: &BTreeSet<String>,
) {
    for container in observed.containers.iter().filter(|container| names.contains(&container.name)) {
        let service = container.labels.get(LABEL_SERVICE).and_then(|name| desired.service(name));
        let seen = contents::look(engine, container, service.and_then(|service| service.role)).await;
        observed.contents.insert(container.id.clone(), seen);
    }
}

/// Shows a container that a file adopts with the labels that it would have, had it been made here: its own cannot be
/// changed. Whoever has made it here has said so himself.
pub fn adopt(desired: &Desired, id: &str, labels: &mut BTreeMap<String, String>) {
    let Some(service) =
        desired.services.iter().find(|service| service.written.adopted.as_deref() == Some(id))
    else {
        return;
    };
    if labels.contains_key(LABEL_DEPLOYMENT) {
        return;
    }
    labels.insert(LABEL_DEPLOYMENT.to_owned(), desired.deployment.clone());
    labels.insert(LABEL_SERVICE.to_owned(), service.name.clone());
    labels.insert(LABEL_RESTART.to_owned(), serde_json::to_string(&service.restart).unwrap_or_default());
    if let Some(role) = service.role {
        labels.insert(LABEL_ROLE.to_owned(), role.name().to_owned());
    }
}

/// See [`Observed::leaders`].
fn strange_leaders(desired: &Desired, listed: &[ContainerSummary]) -> BTreeMap<String, String> {
    let shared = desired.services.iter().flat_map(|service| service.declaration.shares());
    let is_strange = |name: &&str| desired.services.iter().all(|service| service.container != *name);
    let names = shared.map(|(_, name)| name).filter(is_strange);
    let find = |name: &str| {
        listed.iter().find(|one| one.name == name || name.len() >= 12 && one.id.starts_with(name))
    };
    names.filter_map(|name| Some((name.to_owned(), find(name)?.id.clone()))).collect()
}

/// True where a service shares a namespace of the container of that name.
fn leads(desired: &Desired, name: &str) -> bool {
    desired.services.iter().any(|service| service.declaration.shares().any(|(_, other)| other == name))
}

fn is_ours(one: &ContainerSummary, desired: &Desired) -> bool {
    one.labels.get(LABEL_DEPLOYMENT) == Some(&desired.deployment)
}

/// True where nothing looks like a deploy that was cut off: each container of ours is parked, or in the place of its
/// service and made by a deploy that came to its end.
fn is_settled(listed: &[ContainerSummary], desired: &Desired, glance: Glance<'_>) -> bool {
    listed.iter().filter(|one| is_ours(one, desired)).all(|one| {
        let serves = one.labels.contains_key(LABEL_SERVICE);
        let ended = || one.labels.get(LABEL_DEPLOY).is_some_and(|deploy| (glance.ended)(deploy));
        (glance.is_parked)(&one.name)
            || glance.holds_lock && one.labels.contains_key(LABEL_LOCK)
            || serves && desired.services.iter().any(|service| service.container == one.name) && ended()
    })
}

/// The container as its list entry and its declaration tell it; `None` where that is not all.
async fn as_told(
    one: &ContainerSummary,
    desired: &Desired,
    glance: Glance<'_>,
    images: &mut ImageList<'_>,
) -> Result<Option<Container>> {
    // On what a container leans no list tells, nor since when that runs.
    if !is_ours(one, desired) || one.labels.contains_key(LABEL_LEANS) || leads(desired, &one.name) {
        return Ok(None);
    }
    if (glance.is_parked)(&one.name) {
        // Its policy was taken from it before it was stopped, so that no reboot starts it.
        let stopped = matches!(one.status, Status::Exited | Status::Created);
        return Ok(stopped
            .then(|| told(one, one.image.clone(), RestartPolicy::no(), Environment::default(), json!({}))));
    }
    let service = one.labels.get(LABEL_SERVICE).and_then(|name| desired.service(name));
    let Some(service) = service.filter(|service| service.container == one.name) else { return Ok(None) };
    let has_spec = one.labels.get(LABEL_SPEC).is_some_and(|label| service.has_spec(label) == Some(true));
    let as_declared = one.status == Status::Running && has_spec;
    if !as_declared {
        return Ok(None);
    }
    let image = images.of(&service.image).await?.filter(|image| image.id == one.image_id);
    Ok(image.map(|image| {
        let mut body = service.declaration.render().0;
        let start = body.remove("Entrypoint").or_else(|| image.raw.pointer("/Config/Entrypoint").cloned());
        let raw = json!({"HostConfig": body.remove("HostConfig"), "Config": {"Entrypoint": start}});
        told(one, service.image.to_string(), service.restart.clone(), environment(service, &image), raw)
    }))
}

fn told(
    one: &ContainerSummary,
    image: String,
    restart: RestartPolicy,
    env: Environment,
    mut raw: Value,
) -> Container {
    let one = one.clone();
    raw["Mounts"] = one.mounts;
    Container {
        image,
        restart,
        env,
        raw,
        exit_code: 0,
        error: String::new(),
        restart_count: 0,
        started_at: String::new(),
        id: one.id,
        name: one.name,
        labels: one.labels,
        image_id: one.image_id,
        status: one.status,
        health: one.health,
        addresses: one.addresses,
    }
}

/// The environment that the engine gave the container: the declared one, and what the image sets beside it.
fn environment(service: &Service, image: &EngineImage) -> Environment {
    let declared = &service.declaration.environment;
    let names = declared.names();
    let baked = image.env.0.iter().filter(|variable| !names.contains(variable.name.as_str()));
    Environment(declared.0.iter().chain(baked).cloned().collect())
}

/// The engine's images: listed once, each inspected once where it is asked for.
struct ImageList<'a> {
    engine: &'a dyn Engine,
    /// Reference → id.
    ids: BTreeMap<String, String>,
    inspected: BTreeMap<String, Option<EngineImage>>,
    /// See [`Observed::askers`].
    askers: Vec<String>,
}

impl<'a> ImageList<'a> {
    async fn list(engine: &'a dyn Engine) -> Result<Self> {
        let listed = match engine.list_images().await {
            // containerd's store lists none while it has one whose blobs are missing: each is then asked for by name.
            Err(EngineError::NotFound { .. }) => Vec::new(),
            listed => listed?,
        };
        let is_framework = |image: &&ImageSummary| {
            image.labels.get(IMAGE_ROLE_LABEL).is_some_and(|role| role == "framework")
        };
        let mut of_framework: Vec<&ImageSummary> = listed.iter().filter(is_framework).collect();
        of_framework.sort_by(|a, b| b.created.cmp(&a.created));
        let askers = of_framework.iter().take(ASKERS).map(|image| image.id.clone()).collect();
        let ids = listed.iter().flat_map(names).collect();
        Ok(Self { engine, ids, inspected: BTreeMap::new(), askers })
    }

    /// The image that a reference names.
    async fn of(&mut self, reference: &Reference) -> Result<Option<EngineImage>> {
        let name = reference.to_string();
        // One that is not in the list may be named by its digest.
        let id = self.ids.get(&name).cloned().unwrap_or(name);
        self.by_id(&id).await
    }

    async fn by_id(&mut self, id: &str) -> Result<Option<EngineImage>> {
        if let Some(known) = self.inspected.get(id) {
            return Ok(known.clone());
        }
        let found = self.engine.inspect_image(id).await?;
        self.inspected.insert(id.to_owned(), found.clone());
        Ok(found)
    }
}

/// The names of an image, as references are written here.
fn names(image: &ImageSummary) -> Vec<(String, String)> {
    let parsed = image.tags.iter().filter_map(|tag| tag.parse::<Reference>().ok());
    parsed.map(|reference| (reference.to_string(), image.id.clone())).collect()
}

/// The id is known beforehand on a classic store alone.
fn as_loaded(image: &EngineImage, store: ImageStore) -> EngineImage {
    let mut image = image.clone();
    if store == ImageStore::Containerd {
        image.id.clear();
    }
    image
}
