//! `tarsup lock`, `verify`, `images` and `history`: which versions there are, where they run, what ran before.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::image::bytes;
use super::options::{DeploymentOptions, EngineOptions};
use super::{Failure, Outcome, Ui};
use crate::deploy::compose::{ComposeError, LoadOptions, load};
use crate::deploy::observe::observe;
use crate::deploy::observed::LABEL_DEPLOYMENT;
use crate::deploy::pins::{Pin, Pins, PinsError};
use crate::deploy::{Desired, verify};
use crate::diagnose::Exit;
use crate::engine::docker::DockerEngine;
use crate::engine::{ConnectOptions, ContainerSummary, Engine, EngineError, ImageSummary};
use crate::oci::{Digest, Reference};
use crate::store::{self, Layout, StoreError};
use crate::upgrade::names::HELD;

/// Pin the images of a deployment, and the packages in them, in tarsup.lock
#[derive(Debug, Args)]
pub struct LockArgs {
    /// Change nothing; exit 6 where the lock is not what it would be
    #[arg(long)]
    check: bool,

    /// Show what would be written, and write nothing
    #[arg(long, conflicts_with = "check")]
    dry_run: bool,

    #[command(flatten)]
    deployment: DeploymentOptions,
}

/// Compare the lock with the engine's images and the running containers; exit 6 where they differ
#[derive(Debug, Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    deployment: DeploymentOptions,
}

/// List the versions that the local store and the engine hold, and where each is used
#[derive(Debug, Args)]
pub struct ImagesArgs {
    #[command(flatten)]
    deployment: DeploymentOptions,
}

/// The deployment that the options name; what compose would warn of goes to standard error.
fn desired(options: &DeploymentOptions, ui: &Ui) -> Result<Desired, Failure> {
    let desired = load(&LoadOptions::from_process(options.files.clone(), options.project.clone()))?;
    for note in &desired.notes {
        ui.warn(note);
    }
    Ok(desired)
}

async fn connect(options: &EngineOptions) -> Result<DockerEngine, EngineError> {
    let options = ConnectOptions { host: options.host.clone(), context: options.context.clone() };
    DockerEngine::connect(&options).await
}

/// Runs engine calls to their end.
fn block_on<T>(ui: &Ui, work: impl Future<Output = T>) -> Result<T, Failure> {
    let failed =
        |source| StoreError::Io { act: "start the runtime for", path: "engine calls".into(), source };
    Ok(ui.block_on(work).map_err(failed)?)
}

/// Writes or checks the lock.
pub fn lock(args: &LockArgs, ui: &Ui) -> Outcome {
    let desired = desired(&args.deployment, ui)?;
    let path = Pins::path(&desired);
    let old = Pins::read_file(&path)?;
    if args.check && old.is_none() {
        return Err(PinsError::Missing { path }.into());
    }
    let mut now = pins(&desired, &args.deployment.engine, ui)?;
    if let Some(old) = &old {
        keep_what_is_known(&mut now, old);
    }
    let differences = match &old {
        Some(old) => old.differences(&now),
        None => now.images.keys().map(|image| format!("{image} is not pinned")).collect(),
    };
    ui.json(&json!({ "lock": path, "images": now.images, "differences": differences }));
    if args.check {
        if differences.is_empty() {
            ui.result(&format!("{} is up to date", path.display()));
            return Ok(Exit::Done);
        }
        ui.result(&differences.join("\n"));
        return Ok(Exit::Finding);
    }
    if args.dry_run {
        ui.result(now.text().trim_end());
        return Ok(Exit::Done);
    }
    if old.as_ref() == Some(&now) {
        ui.result(&format!("{} is up to date", path.display()));
        return Ok(Exit::Done);
    }
    now.write(&desired)?;
    if old.is_some() {
        for line in &differences {
            ui.note(&format!("changed: {line}"));
        }
    }
    let lines: Vec<String> = now
        .images
        .iter()
        .map(|(image, pin)| {
            let packages = if pin.packages.is_empty() {
                String::new()
            } else {
                format!(", {} packages", pin.packages.len())
            };
            format!("  {image}  {}  {} layers{packages}", pin.short(), pin.diff_ids.len())
        })
        .collect();
    ui.result(&format!("wrote {}\n{}", path.display(), lines.join("\n")));
    Ok(Exit::Done)
}

/// An engine knows one digest of an image and no packages: what the old lock says of the same image stays, and what a build
/// pinned.
fn keep_what_is_known(now: &mut Pins, old: &Pins) {
    now.bases.clone_from(&old.bases);
    for (image, pin) in &mut now.images {
        let Some(known) = old.images.get(image).filter(|known| known.mismatch(pin).is_none()) else {
            continue;
        };
        pin.config = pin.config.or(known.config);
        pin.manifest = pin.manifest.or(known.manifest);
        if pin.packages.is_empty() {
            pin.packages.clone_from(&known.packages);
        }
    }
}

/// The pin of each image of a deployment: from the local store, where it was built, else from the engine.
fn pins(desired: &Desired, engine: &EngineOptions, ui: &Ui) -> Result<Pins, Failure> {
    let mut pins = Pins::new(&desired.deployment);
    let stored = stored()?;
    let mut elsewhere = Vec::new();
    for service in &desired.services {
        match stored.iter().find(|stored| stored.reference == service.image) {
            Some(stored) => drop(pins.images.insert(service.image.clone(), stored.pin.clone())),
            None => elsewhere.push(service),
        }
    }
    if elsewhere.is_empty() {
        return Ok(pins);
    }
    let wanted: BTreeSet<String> = elsewhere.iter().map(|service| service.image.to_string()).collect();
    let found = block_on(ui, async {
        let engine = connect(engine).await?;
        let store = engine.info().await?.image_store;
        let mut found = BTreeMap::new();
        for image in wanted {
            if let Some(seen) = engine.inspect_image(&image).await? {
                found.insert(image, Pin::of_engine(&seen, store));
            }
        }
        Ok::<_, EngineError>(found)
    })??;
    for service in elsewhere {
        let image = service.image.to_string();
        let Some(pin) = found.get(&image) else {
            let place = service.written.keys.get("image").unwrap_or(&service.place).clone();
            return Err(PinsError::Nowhere { image, service: service.name.clone(), place }.into());
        };
        pins.images.insert(service.image.clone(), pin.clone());
    }
    Ok(pins)
}

/// An image of the local store.
struct StoredImage {
    reference: Reference,
    pin: Pin,
    size: u64,
    created: String,
}

/// The images of the local store that have a name.
fn stored() -> Result<Vec<StoredImage>, Failure> {
    let layout = store::local()?;
    if !layout.root().join("index.json").exists() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for (name, descriptor) in layout.list()? {
        let Some(Ok(reference)) = name.map(|name| name.parse::<Reference>()) else { continue };
        found.push(one_stored(&layout, reference, &descriptor)?);
    }
    Ok(found)
}

fn one_stored(
    layout: &Layout,
    reference: Reference,
    descriptor: &crate::oci::Descriptor,
) -> Result<StoredImage, StoreError> {
    let image = layout.image(descriptor)?;
    Ok(StoredImage {
        reference,
        pin: Pin::of_image(&image, &descriptor.annotations),
        size: image.layers_size(),
        created: image.parsed_config().map(|config| config.created).unwrap_or_default(),
    })
}

/// Compares lock, engine and containers.
pub fn verify(args: &VerifyArgs, ui: &Ui) -> Outcome {
    let desired = desired(&args.deployment, ui)?;
    let pins = Pins::read(&desired)?;
    let observed = block_on(ui, async {
        let engine = connect(&args.deployment.engine).await?;
        observe(&engine, &desired).await
    })??;
    let differences = verify::differences(&pins, &desired, &observed);
    ui.json(&json!({ "lock": Pins::path(&desired), "differences": differences }));
    if differences.is_empty() {
        let services = desired.services.len();
        ui.result(&format!(
            "{}: {services} services run exactly what {} pins",
            desired.deployment,
            crate::deploy::pins::FILE
        ));
        return Ok(Exit::Done);
    }
    let lines: Vec<&str> = differences.iter().map(|difference| difference.what.as_str()).collect();
    ui.result(&lines.join("\n"));
    Ok(Exit::Finding)
}

/// One line of `tarsup images`.
#[derive(Debug, Serialize)]
struct Version {
    image: String,
    id: Option<Digest>,
    /// The digest of the manifest, where it is known: what containerd's store calls it.
    digest: Option<Digest>,
    store: bool,
    engine: bool,
    size: u64,
    created: String,
    /// Services that declare it, containers that were made from it, the lock.
    used: BTreeSet<String>,
}

/// Lists versions.
pub fn images(args: &ImagesArgs, ui: &Ui) -> Outcome {
    let desired = match load(&LoadOptions::from_process(
        args.deployment.files.clone(),
        args.deployment.project.clone(),
    )) {
        Ok(desired) => Some(desired),
        // Without a deployment at hand the versions are still there to be listed.
        Err(ComposeError::NoFile { .. }) if args.deployment.files.is_empty() => None,
        Err(error) => return Err(error.into()),
    };
    let pins = desired.as_ref().map(|desired| Pins::read_file(&Pins::path(desired))).transpose()?.flatten();
    let mut versions: Vec<Version> = Vec::new();
    for StoredImage { reference, pin, size, created } in stored()? {
        let image = reference.to_string();
        versions.push(Version {
            image,
            id: pin.config,
            digest: pin.manifest,
            store: true,
            engine: false,
            size,
            created,
            used: BTreeSet::new(),
        });
    }
    let adopted = adopted(desired.as_ref());
    let held = block_on(ui, held(&args.deployment.engine, &adopted))?;
    match held {
        Ok((images, containers)) => {
            let wanted = |reference: &Reference| {
                let declared = desired.iter().flat_map(|desired| &desired.services);
                versions
                    .iter()
                    .filter_map(|known| known.image.parse().ok())
                    .any(|known: Reference| known.same_repository(reference))
                    || declared.map(|service| &service.image).any(|image| image.same_repository(reference))
            };
            // A parked container of somebody's may be the last to use an image that no file names any more.
            let uses = |image: &str| {
                containers.iter().any(|it| it.image_id == image && adopted.contains(&it.id.as_str()))
            };
            let more: Vec<EngineTag> = held_versions(&images)
                .filter(|held| held.labelled || wanted(&held.reference) || uses(&held.raw_id))
                .collect();
            for held in more {
                add_held(&mut versions, &held, &containers);
            }
        }
        Err(error) => ui.warn(&format!("{error}: only the local store is listed")),
    }
    for version in &mut versions {
        let services = desired.iter().flat_map(|desired| &desired.services);
        version.used.extend(
            services
                .filter(|service| service.image.to_string() == version.image)
                .map(|service| format!("service {}", service.name)),
        );
        let pinned = pins.iter().flat_map(|pins| &pins.images).any(|(image, pin)| {
            image.to_string() == version.image
                && (version.id.is_none() || pin.config == version.id || pin.manifest == version.id)
        });
        if pinned {
            version.used.insert("lock".to_owned());
        }
    }
    versions.sort_by(|a, b| (&a.image, b.engine, a.id).cmp(&(&b.image, a.engine, b.id)));
    ui.result(&table(&versions));
    ui.json(&json!({ "images": versions }));
    Ok(Exit::Done)
}

type Holding = (Vec<ImageSummary>, Vec<ContainerSummary>);

/// The ids of the containers that a deployment adopts.
fn adopted(desired: Option<&Desired>) -> Vec<&str> {
    let services = desired.into_iter().flat_map(|desired| &desired.services);
    services.filter_map(|service| service.written.adopted.as_deref()).collect()
}

/// What an engine holds: its images, and the containers that tarsup made or that are adopted.
async fn held(options: &EngineOptions, adopted: &[&str]) -> Result<Holding, EngineError> {
    let engine = connect(options).await?;
    let images = engine.list_images().await?;
    let mut containers = engine.list_containers(&[]).await?;
    containers.retain(|one| one.labels.contains_key(LABEL_DEPLOYMENT) || adopted.contains(&one.id.as_str()));
    Ok((images, containers))
}

/// One name of an image of the engine.
struct EngineTag {
    reference: Reference,
    raw_id: String,
    id: Option<Digest>,
    size: u64,
    created: String,
    /// True where tarsup built it.
    labelled: bool,
    /// True where a deploy holds it for a way back.
    held: bool,
}

fn held_versions(images: &[ImageSummary]) -> impl Iterator<Item = EngineTag> {
    images.iter().flat_map(|image| {
        let (ours, tags): (Vec<&String>, Vec<&String>) =
            image.tags.iter().partition(|tag| tag.starts_with(&format!("{HELD}/")));
        tags.into_iter().filter_map(move |tag| {
            Some(EngineTag {
                reference: tag.parse().ok()?,
                held: !ours.is_empty(),
                raw_id: image.id.clone(),
                id: image.id.parse().ok(),
                size: image.size,
                created: image.created.clone(),
                labelled: image.labels.contains_key(crate::build::image::LABEL_IMAGE_ROLE),
            })
        })
    })
}

/// Adds an image of the engine: to the line of the store's where both are the same, else as a line of its own.
fn add_held(versions: &mut Vec<Version>, held: &EngineTag, containers: &[ContainerSummary]) {
    let image = held.reference.to_string();
    let mut used: BTreeSet<String> = containers
        .iter()
        .filter(|container| container.image_id == held.raw_id)
        .map(|container| format!("container {}", container.name))
        .collect();
    used.extend(held.held.then(|| "rollback".to_owned()));
    let same = versions.iter_mut().find(|known| {
        known.image == image && known.store && (known.id == held.id || known.digest == held.id)
    });
    match same {
        Some(known) => {
            known.engine = true;
            known.used.extend(used);
        }
        None => versions.push(Version {
            image,
            id: held.id,
            digest: None,
            store: false,
            engine: true,
            size: held.size,
            created: held.created.clone(),
            used,
        }),
    }
}

/// The versions as a table for people.
fn table(versions: &[Version]) -> String {
    if versions.is_empty() {
        return "no images; `tarsup build` makes one".to_owned();
    }
    let width = versions.iter().map(|version| version.image.len()).max().unwrap_or(0).max(5);
    let mut text = format!("{:<width$}  {:<12}  {:<12}  {:>9}  USED BY", "IMAGE", "ID", "HELD BY", "SIZE");
    for version in versions {
        let id = version.id.map_or_else(|| "-".to_owned(), |id| id.short());
        let held = match (version.store, version.engine) {
            (true, true) => "store engine",
            (true, false) => "store",
            _ => "engine",
        };
        let used = if version.used.is_empty() {
            "-".to_owned()
        } else {
            version.used.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
        };
        let _ = write!(
            text,
            "\n{:<width$}  {id:<12}  {held:<12}  {:>9}  {used}",
            version.image,
            bytes(version.size)
        );
    }
    text
}
