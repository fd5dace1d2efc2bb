//! `tarsup build --patch`: the next image from one that exists, without a recipe.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{BuildArgs, Telling, UsageError, Written, near, predecessor, settings};
use crate::build::patch::{self, Patch};
use crate::cli::image;
use crate::cli::options::PlatformOptions;
use crate::cli::places::Places;
use crate::cli::{Outcome, Ui};
use crate::oci::reference::is_tag;
use crate::tars::Service;
use crate::transport::ImageName;

/// Patches the image that stands in the recipe's place.
pub(super) fn run(args: &BuildArgs, ui: &Ui) -> Outcome {
    let services = services(&args.patch)?;
    let version = args.version.clone().filter(|version| is_tag(version)).ok_or(UsageError::PatchVersion)?;
    let source: ImageName = args.recipe.to_string_lossy().parse()?;
    let places = Places::new(&args.places);
    let old = image::read_asked(&source, &PlatformOptions::of(&args.platform), &places, ui)?;
    let reference = image::name_of(&source, &old);
    if reference.tag.as_deref() == Some(version.as_str()) {
        return Err(UsageError::SameVersion(version).into());
    }
    let reference = reference.with_tag(&version);
    let outputs = super::outputs(args, &reference)?;
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
        return super::plan::show(built, &[], &reference, &outputs, &places, ui);
    }
    let built = patch::patch(&patch, &settings, &Telling { outputs: &outputs, places: &places, ui })?;
    let written =
        Written { built: &built, reference: &reference, packages: &built.packages, cache: &settings.cache };
    super::write(&written, &outputs, &places, ui)
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
