//! `tarsup build`: a recipe becomes an image, in the local store or wherever `-o` says.

mod base;
mod near;
mod patch;
mod plan;

use std::fmt::Write as _;
use std::mem::ManuallyDrop;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use super::image::{self, Receipts};
use super::options::{ImageOptions, PlatformOptions};
use super::places::Places;
use super::{Failure, Outcome, Ui, packed};
use crate::build::after::Predecessor;
use crate::build::recipe::{Base, Overrides, Recipe, is_waiver};
use crate::build::{self, Begun, Built, Origin, Packed, Settings, UsedPackage, Watch, skeleton};
use crate::deploy::pins::PACKAGE_ANNOTATION;
use crate::diagnose::{Diagnose, Exit};
use crate::limits::{self, Beyond};
use crate::oci::{Digest, Image, Platform, Reference, TarImage};
use crate::sbom::PACKED_ANNOTATION;
use crate::store::{self, Cache};
use crate::tars::catalogue::IMAGE_ROLE_LABEL;
use crate::transport::{ImageName, Receipt, TransportError};

/// Build an image from a recipe; no engine is needed
#[derive(Debug, Args)]
#[command(disable_version_flag = true)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct BuildArgs {
    /// The recipe; with --patch, the image that is patched
    #[arg(value_name = "RECIPE")]
    recipe: PathBuf,

    /// Replace this service in an image, which stands in the recipe's place; no other package is needed
    #[arg(
        long,
        value_name = "SERVICE=PACKAGE",
        requires = "version",
        conflicts_with_all = ["packages", "after", "relayer"]
    )]
    patch: Vec<String>,

    /// Take every package in this folder (.tgz, .tar.gz, .tar.zst, .tar) instead of the recipe's packages
    #[arg(long, value_name = "DIR")]
    packages: Vec<PathBuf>,

    /// The version, instead of the recipe's; also the image's tag
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,

    /// The platform of the image (default: linux/amd64), and what is taken of a base or predecessor for several; with --patch, that of the image
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Vec<String>,

    /// Keep the layers of this image and put what changed on top: a host that has it is sent that and nothing else
    #[arg(long, value_name = "IMAGE")]
    after: Option<String>,

    /// Put the layers into canonical order again, instead of what changed on top
    #[arg(long)]
    relayer: bool,

    /// Where the image goes (default: the local store): oci:DIR[:TAG], docker-archive:FILE, docker-daemon:REF, docker://REF
    #[arg(short, long = "output", value_name = "IMAGE")]
    output: Vec<String>,

    /// Refuse a base of a registry that tarsup.lock does not pin
    #[arg(long)]
    locked: bool,

    /// Refuse what is warned about: packages that seem stale, search paths of libraries that lead nowhere
    #[arg(long)]
    strict: bool,

    /// Let the gate pass this finding, beside those that the recipe waives, such as tarsstat:libmariadb.so.3
    #[arg(long, value_name = "PROGRAM:NEED")]
    waive: Vec<String>,

    /// Show what would be built or taken, why, what the gates say, and the bytes that each output would be sent; write nothing
    #[arg(long, alias = "dry-run")]
    plan: bool,

    /// Show at the end where the time went
    #[arg(long)]
    pub timings: bool,

    #[command(flatten)]
    places: ImageOptions,
}

/// A flag that cannot be what it is.
#[derive(Debug, thiserror::Error)]
enum UsageError {
    #[error("`--platform {0}`: not yet possible")]
    Platform(String),
    #[error("SOURCE_DATE_EPOCH is `{0}`, which is no number of seconds between 1970 and 9999")]
    Epoch(String),
    #[error("`--patch {0}` names no service of the framework and its package, or names the service twice")]
    Patch(String),
    #[error("a version is also the image's tag: up to 128 letters, digits, `_`, `.` and `-`")]
    PatchVersion,
    #[error("`--version {0}` is the image's own tag or version")]
    SameVersion(String),
    #[error("`-o {0}` would replace the image that is patched")]
    SamePlace(String),
    #[error("`--waive {0}` names no program and what it needs")]
    Waive(String),
    #[error("TARSUP_THREADS is `{0}`, which is no number above 0")]
    Threads(String),
    #[error(transparent)]
    Limit(#[from] Beyond),
}

impl Diagnose for UsageError {
    fn exit(&self) -> Exit {
        Exit::Usage
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Platform(_) => "name one: linux/amd64 or linux/arm64, as the packages are".to_owned(),
            Self::Epoch(_) => "set it to seconds since 1970, or unset it".to_owned(),
            Self::Patch(_) => "write it as tarsstat=tarsstat.tgz".to_owned(),
            Self::PatchVersion => "write one such as 3.0.17-1".to_owned(),
            Self::SameVersion(_) => "give the next image a tag of its own, such as 3.0.17-1".to_owned(),
            Self::SamePlace(_) => {
                "give the next image a place or tag of its own: the one before it is what a rollback goes back to"
                    .to_owned()
            }
            Self::Waive(_) => {
                "write it as the gate's hint has it, such as tarsstat:libmariadb.so.3".to_owned()
            }
            Self::Threads(_) => "set it to a number, or unset it".to_owned(),
            Self::Limit(beyond) => beyond.hint(),
        })
    }
}

/// Builds, and writes the image to every output.
pub fn run(args: &BuildArgs, ui: &Ui) -> Outcome {
    if !args.patch.is_empty() {
        return patch::run(args, ui);
    }
    let overrides = Overrides { version: args.version.clone(), packages: args.packages.clone() };
    let recipe = Recipe::read(&args.recipe, &overrides).map_err(build::BuildError::from)?;
    let reference = &recipe.reference;
    let outputs = outputs(args, reference)?;
    let places = Places::new(&args.places);
    let before = args.after.as_ref().and_then(|text| text.parse().ok());
    places.look_ahead(&outputs, before.as_ref().and_then(ImageName::tag), ui);
    // The process ends with it: what is known of thousands of files need not be given back one by one.
    let mut settings = ManuallyDrop::new(settings(args)?);
    // Without a predecessor or a base elsewhere there is nothing to wait for, and perhaps nothing to read.
    let waits = args.after.is_some() || matches!(recipe.base, Base::Image(_));
    let begun = waits.then(|| Begun::reading(&recipe, &settings, args.after.is_some())).flatten();
    let (after, inexact) = after(args, &settings, &outputs, &places, ui)?;
    let inexact = inexact.as_deref();
    settings.predecessor = after;
    let pinned = base::read(args, &recipe, &mut settings, &outputs, &places, ui)?;
    let key = build::same::key(&recipe, &settings);
    if let Some((warnings, built)) = key.and_then(|key| build::same::recall(key, &settings)) {
        for warning in &warnings {
            ui.warn(warning);
        }
        reach(&outputs, &places, ui)?;
        if args.plan {
            return plan::show(built, (&warnings, inexact), reference, &outputs, &places, ui);
        }
        for layer in &built.layers {
            say(layer, ui);
        }
        let written = Written { built: &built, reference, packages: &built.packages, cache: &settings.cache };
        return write(&written, &outputs, &places, ui);
    }
    let prepared = ManuallyDrop::new(build::prepare_begun(&recipe, &settings, key, begun)?);
    for warning in &prepared.warnings {
        ui.warn(warning);
    }
    reach(&outputs, &places, ui)?;
    if args.plan {
        let told = (prepared.warnings.as_slice(), inexact);
        return plan::show(prepared.build(&())?, told, reference, &outputs, &places, ui);
    }
    let built = prepared.build(&Telling { outputs: &outputs, places: &places, ui })?;
    pinned.keep(ui)?;
    let written = Written { built: &built, reference, packages: &prepared.packages, cache: &settings.cache };
    write(&written, &outputs, &places, ui)
}

/// An engine that is not there ends the build before its work, not after.
fn reach(outputs: &[ImageName], places: &Places, ui: &Ui) -> Result<(), Failure> {
    if outputs.iter().any(|output| output.of_engine().is_some()) {
        image::reach(places, ui)?;
    }
    Ok(())
}

/// Tells a person of each layer, and an engine of the image.
struct Telling<'a> {
    outputs: &'a [ImageName],
    places: &'a Places,
    ui: &'a Ui,
}

impl Watch for Telling<'_> {
    fn layer(&self, layer: &Packed) {
        say(layer, self.ui);
    }

    fn wants_tars(&self) -> bool {
        self.places.may_take_tars(self.outputs)
    }

    fn tars(&self, image: TarImage) {
        self.places.send_early(image, self.outputs, self.ui);
    }

    fn image(&self, image: &Image, layers: &[Packed]) {
        let is_new = layers.iter().any(|layer| layer.origin == Origin::Made);
        self.places.send_whole(image, is_new, self.outputs, self.ui);
    }
}

fn say(layer: &Packed, ui: &Ui) {
    let how = match layer.origin {
        Origin::Base => "as it is",
        Origin::Predecessor | Origin::Kept => "as in the predecessor",
        Origin::Cache => "unchanged",
        Origin::Made => "compressed",
    };
    ui.note(&format!("  {:<18} {how}, {}", layer.name, image::bytes(layer.size)));
}

/// What goes to the outputs.
struct Written<'a> {
    built: &'a Built,
    reference: &'a Reference,
    packages: &'a [UsedPackage],
    /// What the outputs read of a registry may have come into it.
    cache: &'a Cache,
}

fn write(written: &Written<'_>, outputs: &[ImageName], places: &Places, ui: &Ui) -> Outcome {
    let Written { built, reference, packages, cache } = written;
    for warning in &built.warnings {
        ui.warn(warning);
    }
    if let Some(note) = &built.note {
        ui.note(note);
    }
    let noted = |output: &ImageName| note_packages(packages, output);
    // An engine that is being sent the image already has it no later for that.
    packed::note(packages, &built.layers);
    let receipts = image::send_all(&built.image, outputs, reference, places, ui, &noted)?;
    if let Err(error) = cache.settle() {
        tracing::debug!(%error, "what the outputs read may be read again");
    }
    report(reference, built, &receipts, ui);
    Ok(Exit::Done)
}

/// Notes beside the image in the store which packages it was made from: `tarsup lock` pins them. It is no part of the
/// image, whose bytes depend on the packages' content alone.
fn note_packages(packages: &[UsedPackage], output: &ImageName) -> Result<(), Failure> {
    let ImageName::Store(reference) = output else { return Ok(()) };
    let notes = packages.iter().flat_map(|package| {
        let name = package.path.file_name().unwrap_or_default().to_string_lossy();
        let layers = package.layers.iter().map(|layer| format!("{PACKED_ANNOTATION}{layer}"));
        let keys = std::iter::once(format!("{PACKAGE_ANNOTATION}{name}")).chain(layers);
        keys.map(|key| (key, package.digest.to_string()))
    });
    let notes = notes.collect();
    store::local()?.annotate(&reference.to_string(), &notes)?;
    Ok(())
}

/// The outputs are understood before anything is built.
fn outputs(args: &BuildArgs, reference: &Reference) -> Result<Vec<ImageName>, Failure> {
    if args.output.is_empty() {
        return Ok(vec![ImageName::Store(reference.clone())]);
    }
    let mut outputs = Vec::new();
    for text in &args.output {
        outputs.push(text.parse()?);
    }
    Ok(outputs)
}

/// What `--after` names; and why a plan does not know of it what the build will.
fn after(
    args: &BuildArgs,
    Settings { platform, cache, .. }: &Settings,
    outputs: &[ImageName],
    places: &Places,
    ui: &Ui,
) -> Result<(Option<Predecessor>, Option<String>), Failure> {
    let Some(text) = &args.after else { return Ok((None, None)) };
    let read = |name: &ImageName| -> Result<Image, Failure> {
        let image = near::gzipped(image::read_for(name, platform, places, ui)?, cache)?;
        Ok(near::shared(image, outputs, cache))
    };
    let mut inexact = None;
    let mut before = match text.parse()? {
        ImageName::Daemon(reference) => {
            let found = image::of_engine(&reference, places, ui)?;
            // What is not ours is not built upon, and a plan takes no image out of an engine.
            let is_ours = found.labels.contains_key(IMAGE_ROLE_LABEL) && !args.relayer;
            let name = ImageName::Daemon(reference);
            let image = match near::of_engine(&found) {
                None if is_ours && args.plan => {
                    inexact = Some(format!(
                        "{name} is known to neither the store nor the cache: a build takes it out of the engine, and leaves its layers as they are"
                    ));
                    None
                }
                None if is_ours => {
                    near::taking_out(&name, ui);
                    Some(read(&name)?)
                }
                known => known,
            };
            match image {
                Some(image) => predecessor(&name, &image, ui)?,
                None => Predecessor::of_diff_ids(found.diff_ids),
            }
        }
        name => predecessor(&name, &read(&name)?, ui)?,
    };
    before.relayer = args.relayer;
    Ok((Some(before), inexact))
}

/// An image that the next one is built upon, and what is visible in it.
fn predecessor(name: &ImageName, image: &Image, ui: &Ui) -> Result<Predecessor, Failure> {
    let read_in_full = || ui.note(&format!("{name} has no list of its files: all of its layers are read"));
    let failed = |source| TransportError::Read { name: name.to_string(), source }.at_its_source();
    Ok(Predecessor::of(image, read_in_full).map_err(failed)?)
}

/// As the arguments say, without predecessor and base.
fn settings(args: &BuildArgs) -> Result<Settings, Failure> {
    if let Some(unnamed) = args.waive.iter().find(|given| !is_waiver(given)) {
        return Err(UsageError::Waive(unnamed.clone()).into());
    }
    let platform = PlatformOptions::of(&args.platform).asked()?.unwrap_or_else(|| Platform::linux("amd64"));
    if !matches!(platform.architecture.as_str(), "amd64" | "arm64") {
        return Err(UsageError::Platform(platform.to_string()).into());
    }
    Ok(Settings {
        platform,
        created: epoch()?,
        threads: workers()?,
        cache: Cache::at(store::cache_folder()?),
        rehearses: args.plan,
        predecessor: None,
        init: skeleton::default_init(),
        base: None,
        strict: args.strict,
        waive: args.waive.clone(),
    })
}

/// `SOURCE_DATE_EPOCH`: seconds that a date of four digits can say.
fn epoch() -> Result<Option<i64>, UsageError> {
    const LAST: i64 = 253_402_300_799;
    match variable("SOURCE_DATE_EPOCH", UsageError::Epoch)? {
        Some(seconds) if !(0..=LAST).contains(&seconds) => Err(UsageError::Epoch(seconds.to_string())),
        seconds => Ok(seconds),
    }
}

/// As many as `TARSUP_THREADS` says, or as there are processors.
fn workers() -> Result<NonZeroUsize, UsageError> {
    Ok(threads()?.or_else(|| std::thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN))
}

/// `TARSUP_THREADS`.
fn threads() -> Result<Option<NonZeroUsize>, UsageError> {
    let threads: Option<NonZeroUsize> = variable("TARSUP_THREADS", UsageError::Threads)?;
    limits::THREADS.allow(threads.map_or(0, |threads| threads.get() as u64))?;
    Ok(threads)
}

/// A number in the environment; unset and empty are none.
fn variable<T: std::str::FromStr>(
    name: &str,
    error: impl Fn(String) -> UsageError,
) -> Result<Option<T>, UsageError> {
    match std::env::var(name) {
        Ok(text) if !text.is_empty() => text.trim().parse().map(Some).map_err(|_| error(text)),
        _ => Ok(None),
    }
}

#[derive(Serialize)]
struct LayerReport<'a> {
    name: &'a str,
    diff_id: Digest,
    digest: Digest,
    size: u64,
    cached: bool,
}

fn report(reference: &Reference, built: &Built, receipts: &Receipts, ui: &Ui) {
    let layers: Vec<LayerReport<'_>> = built
        .layers
        .iter()
        .map(|layer| LayerReport {
            name: &layer.name,
            diff_id: layer.diff_id,
            digest: layer.digest,
            size: layer.size,
            cached: layer.is_cached(),
        })
        .collect();
    let cached = layers.iter().filter(|layer| layer.cached).count();
    let total: u64 = layers.iter().map(|layer| layer.size).sum();
    let mut text = format!(
        "{}\n  digest  {}\n  id      {}\n  layers  {} ({cached} not compressed), {} in all, {:.1} s",
        reference,
        built.image.digest(),
        built.image.config_digest(),
        layers.len(),
        image::bytes(total),
        ui.elapsed().as_secs_f64(),
    );
    for (output, receipt) in receipts {
        let _ = write!(text, "\n  written to {output}: {}", image::receipt_text(receipt));
    }
    ui.result(&text);
    let outputs: Vec<_> = receipts.iter().map(output_report).collect();
    let mut document = json!({
        "image": reference.to_string(),
        "digest": built.image.digest(),
        "config_digest": built.image.config_digest(),
        "layers": layers,
        "outputs": outputs,
    });
    ui.tell_timings(&mut document);
    ui.json(&document);
}

/// What became, or would become, of one output.
fn output_report((output, receipt): &(String, Receipt)) -> Value {
    json!({ "image": output, "digest": receipt.digest, "bytes_sent": receipt.bytes_sent,
        "layers_sent": receipt.layers_sent, "layers_skipped": receipt.layers_skipped,
        "bytes_skipped": receipt.bytes_skipped })
}
