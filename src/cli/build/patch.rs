//! `tarsup build --patch`: the next image from one that exists, without a recipe.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{BuildArgs, Telling, UsageError, Written, near, predecessor, settings};
use crate::build::patch::{self, Patch};
use crate::cli::image;
use crate::cli::options::PlatformOptions;
use crate::cli::places::Places;
use crate::cli::{Failure, Outcome, Ui};
use crate::oci::Image;
use crate::oci::image::VERSION_LABEL;
use crate::oci::reference::is_tag;
use crate::tars::Service;
use crate::transport::{ImageName, layout};

/// Patches the image that stands in the recipe's place.
pub(super) fn run(args: &BuildArgs, ui: &Ui) -> Outcome {
    let services = services(&args.patch)?;
    let version = args.version.clone().filter(|version| is_tag(version)).ok_or(UsageError::PatchVersion)?;
    let source: ImageName = args.recipe.to_string_lossy().parse()?;
    let places = Places::new(&args.places);
    let old = read(&source, &PlatformOptions::of(&args.platform), &places, ui)?;
    let labels = old.parsed_config().map(|config| config.config.labels).unwrap_or_default();
    if [source.tag(), labels.get(VERSION_LABEL).map(String::as_str)].contains(&Some(version.as_str())) {
        return Err(UsageError::SameVersion(version).into());
    }
    let reference = image::name_of(&source, &old).with_tag(&version);
    let outputs = super::outputs(args, &reference)?;
    if let Some(same) = outputs.iter().find(|output| replaces(output, &source, &version)) {
        return Err(UsageError::SamePlace(same.to_string()).into());
    }
    places.look_ahead(&outputs, source.tag(), ui);
    super::reach(&outputs, &places, ui)?;
    let mut settings = settings(args)?;
    let old = near::shared(near::gzipped(old, &settings.cache)?, &outputs, &settings.cache);
    let before = predecessor(&source, &old, ui)?;
    settings.predecessor = Some(before.clone());
    let on_read = |what: &str| ui.note(&format!("{source} has no list of {what}: it is read"));
    let name = source.to_string();
    let patch = Patch { name, image: &old, before: &before, services, version, on_read: &on_read };
    if args.plan {
        let built = patch::patch(&patch, &settings, &())?;
        return super::plan::show(built, (&[], None), &reference, &outputs, &places, ui);
    }
    let built = patch::patch(&patch, &settings, &Telling { outputs: &outputs, places: &places, ui })?;
    let written =
        Written { built: &built, reference: &reference, packages: &built.packages, cache: &settings.cache };
    super::write(&written, &outputs, &places, ui)
}

/// The image that is patched: one of an engine as the store or the cache have it, where they do.
fn read(source: &ImageName, platform: &PlatformOptions, places: &Places, ui: &Ui) -> Result<Image, Failure> {
    if let ImageName::Daemon(reference) = source {
        if let Some(known) = near::of_engine(&image::of_engine(reference, places, ui)?) {
            return Ok(known);
        }
        near::taking_out(source, ui);
    }
    image::read_asked(source, platform, places, ui)
}

/// True for an output that would take the place of the image that is patched.
fn replaces(output: &ImageName, source: &ImageName, version: &str) -> bool {
    let same = |one: &Path, other: &Path| {
        let known = one.canonicalize().ok().zip(other.canonicalize().ok());
        known.is_some_and(|(one, other)| one == other)
    };
    match (output, source) {
        (ImageName::Oci { directory, tag }, ImageName::Oci { directory: patched, tag: patched_tag }) => {
            let tag = tag.as_deref().unwrap_or(version);
            // A source without a tag is the only image of its layout, whatever its tag.
            let is_it = || match patched_tag {
                Some(patched) => patched == tag,
                None => layout::read(directory, Some(tag)).is_ok(),
            };
            same(directory, patched) && is_it()
        }
        (ImageName::Archive { file, .. }, ImageName::Archive { file: patched, .. }) => same(file, patched),
        (output, source) => output == source,
    }
}

/// `SERVICE=PACKAGE`, each service once.
fn services(texts: &[String]) -> Result<BTreeMap<Service, PathBuf>, UsageError> {
    let mut services = BTreeMap::new();
    for text in texts {
        let unknown = || UsageError::Patch(text.clone());
        let (service, package) = text.split_once('=').ok_or_else(unknown)?;
        let service: Service = service.parse().map_err(|_| unknown())?;
        if package.is_empty() || services.insert(service, PathBuf::from(package)).is_some() {
            return Err(unknown());
        }
    }
    Ok(services)
}
