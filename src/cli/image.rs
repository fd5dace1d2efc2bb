//! `tarsup copy`: images by name, wherever they lie.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use serde_json::{Value, json};

use super::options::{ImageOptions, PlatformOptions};
use super::places::Places;
use super::{Failure, Outcome, Ui, inspect, ui};
use crate::diagnose::{Exit, shown};
use crate::engine::{Engine as _, EngineImage};
use crate::oci::{Digest, Image, Platform, Reference};
use crate::store;
use crate::transport::archive::ArchiveFile;
use crate::transport::daemon::Daemon;
use crate::transport::layout::LayoutImage;
use crate::transport::{Forecast, ImageName, Progress, Receipt, Sink, Source as _, TransportError, saved};

/// Where each output went.
pub type Receipts = Vec<(String, Receipt)>;

/// What each output would be sent.
pub type Forecasts = Vec<(String, Forecast)>;

/// Copy an image; an engine or a registry is sent only the layers that it lacks
#[derive(Debug, Args)]
pub struct CopyArgs {
    /// The image: NAME:VERSION of the local store, oci:DIR[:TAG], docker-archive:FILE, docker-daemon:REF or docker://REF
    source: String,

    /// Where it goes: docker-daemon:REF, docker://REF, oci:DIR[:TAG], docker-archive:FILE[:REF], or NAME:VERSION of the local store
    destination: String,

    /// Say what would be sent, to the byte; nothing is sent or written
    #[arg(long)]
    dry_run: bool,

    /// Show at the end where the time went
    #[arg(long)]
    pub timings: bool,

    #[command(flatten)]
    platform: PlatformOptions,

    #[command(flatten)]
    places: ImageOptions,
}

/// Runs what is read or sent to its end.
pub fn transfer<T>(ui: &Ui, future: impl Future<Output = T>) -> Result<T, TransportError> {
    Ok(ui.transfers().map_err(TransportError::runtime)?.block_on(future))
}

/// Copies an image.
pub fn copy(args: &CopyArgs, ui: &Ui) -> Outcome {
    let source: ImageName = args.source.parse()?;
    let destination: ImageName = args.destination.parse()?;
    let places = Places::new(&args.places);
    let image = read_asked(&source, &args.platform, &places, ui)?;
    let reference = name_of(&source, &image);
    if args.dry_run {
        let forecasts = forecast(&image, std::slice::from_ref(&destination), &reference, &places, ui)?;
        for (name, forecast) in &forecasts {
            ui.result(&forecast_text(name, forecast));
            let mut document = json!(forecast.receipt);
            note_inexact(forecast, &mut document);
            tell(document, ui);
        }
        return Ok(Exit::Done);
    }
    let receipt = send(&image, &destination, &reference, &places, ui)?;
    ui.result(&format!("{destination}: {}", receipt_text(&receipt)));
    tell(json!(receipt), ui);
    Ok(Exit::Done)
}

fn tell(mut document: Value, ui: &Ui) {
    ui.tell_timings(&mut document);
    ui.json(&document);
}

/// Reads an image, wherever it lies; what there is for several platforms, for this machine's.
pub fn read(name: &ImageName, places: &Places, ui: &Ui) -> Result<Image, Failure> {
    read_for(name, &Platform::of_machine(), places, ui)
}

/// The same for the platform that is asked for, and for no other.
pub fn read_asked(
    name: &ImageName,
    platform: &PlatformOptions,
    places: &Places,
    ui: &Ui,
) -> Result<Image, Failure> {
    let asked = platform.asked()?.unwrap_or_else(Platform::of_machine);
    let image = read_for(name, &asked, places, ui)?;
    platform.check(name, &image.parsed_config().unwrap_or_default())?;
    Ok(image)
}

/// The same for this platform, where there is a choice.
pub fn read_for(name: &ImageName, platform: &Platform, places: &Places, ui: &Ui) -> Result<Image, Failure> {
    let _span = tracing::debug_span!("read", what = %name).entered();
    match name {
        ImageName::Oci { directory, tag } => {
            Ok(LayoutImage::new(directory, tag.as_deref()).read_for(platform)?)
        }
        ImageName::Store(reference) => Ok(LayoutImage::local(reference)?.read_for(platform)?),
        ImageName::Archive { file, reference } => {
            Ok(saved::read(saved::Archived::plain(file)?, reference.as_ref())?)
        }
        ImageName::Daemon(reference) => {
            Ok(transfer(ui, async { Daemon::new(places.engine().await?, reference.clone()).get().await })??)
        }
        ImageName::Registry(reference) => {
            Ok(transfer(ui, places.registries.image_for(reference, platform.clone()).get())??)
        }
    }
}

/// The digest of what a name of a registry stands for: a manifest, or an index of several.
pub fn digest_of(reference: &Reference, places: &Places, ui: &Ui) -> Result<Digest, Failure> {
    Ok(transfer(ui, places.registries.image(reference).digest())??)
}

/// What an engine tells of an image, which is not read.
pub fn of_engine(reference: &Reference, places: &Places, ui: &Ui) -> Result<EngineImage, Failure> {
    let asked = async { places.engine().await?.inspect_image(&reference.to_string()).await };
    let found = transfer(ui, asked)?.map_err(TransportError::from)?;
    let found = found.ok_or_else(|| TransportError::Absent {
        name: format!("docker-daemon:{reference}"),
        hint: "`docker images` lists what the engine has".to_owned(),
    })?;
    Ok(found)
}

/// Sees whether the engine is there.
pub fn reach(places: &Places, ui: &Ui) -> Result<(), Failure> {
    transfer(ui, places.engine())?.map_err(TransportError::from)?;
    Ok(())
}

/// Writes an image to where a name says. `reference` names it where the destination does not.
pub fn send(
    image: &Image,
    destination: &ImageName,
    reference: &Reference,
    places: &Places,
    ui: &Ui,
) -> Result<Receipt, Failure> {
    let _span = tracing::debug_span!("write", what = %destination).entered();
    if let Some(reference) = destination.of_engine()
        && let Some(receipt) = places.sent_early(image, reference, ui)
    {
        let receipt = receipt.map_err(TransportError::at_its_source)?;
        inspect::note_sent(image);
        return Ok(receipt);
    }
    let total = image.layers_size();
    let bar = Bar(ui.progress(&destination.to_string(), total));
    let receipt = transfer(ui, async {
        let sink = sink(destination, reference, places).await?;
        sink.put(image, &bar).await
    })?;
    bar.0.finish();
    let receipt = receipt.map_err(TransportError::at_its_source)?;
    if destination.of_engine().is_some() {
        inspect::note_sent(image);
    }
    Ok(receipt)
}

/// Writes an image to several places side by side: files, engine and registries do not wait for each other; of one kind the first
/// that is named comes first. `done` hears of each.
pub fn send_all(
    image: &Image,
    destinations: &[ImageName],
    reference: &Reference,
    places: &Places,
    ui: &Ui,
    done: &(dyn Fn(&ImageName) -> Result<(), Failure> + Sync),
) -> Result<Receipts, Failure> {
    let lane = |destination: &ImageName| match destination {
        ImageName::Oci { .. } | ImageName::Store(_) | ImageName::Archive { .. } => 0,
        ImageName::Daemon(_) => 1,
        ImageName::Registry(_) => 2,
    };
    let write = |of: usize| -> Vec<(usize, Result<Receipt, Failure>)> {
        let mut written = Vec::new();
        for (index, destination) in destinations.iter().enumerate().filter(|(_, one)| lane(one) == of) {
            let receipt = send(image, destination, reference, places, ui);
            let receipt = receipt.and_then(|receipt| done(destination).map(|()| receipt));
            let failed = receipt.is_err();
            written.push((index, receipt));
            if failed {
                break;
            }
        }
        written
    };
    let lanes: BTreeSet<usize> = destinations.iter().map(lane).collect();
    let mut written: BTreeMap<usize, Result<Receipt, Failure>> = std::thread::scope(|scope| {
        let write = &write;
        let running: Vec<_> = lanes.into_iter().map(|of| scope.spawn(move || write(of))).collect();
        running
            .into_iter()
            .flat_map(|one| one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    let mut receipts = Receipts::new();
    for (index, destination) in destinations.iter().enumerate() {
        // A lane ends with its first failure, which comes before what it left out.
        let Some(receipt) = written.remove(&index) else { continue };
        receipts.push((destination.to_string(), receipt?));
    }
    Ok(receipts)
}

/// What each destination would be sent, one after another. `reference` names the image where a destination does not.
pub fn forecast(
    image: &Image,
    destinations: &[ImageName],
    reference: &Reference,
    places: &Places,
    ui: &Ui,
) -> Result<Forecasts, Failure> {
    let mut before = BTreeSet::new();
    let mut forecasts = Forecasts::new();
    for destination in destinations {
        // A second name in one place is a name and no bytes. A registry knows by itself, and a file holds everything.
        let place = match destination {
            ImageName::Daemon(_) => Some("an engine".to_owned()),
            ImageName::Store(_) => Some(shown(&store::local()?.root()).to_string()),
            ImageName::Oci { directory, .. } => {
                Some(shown(&std::path::absolute(directory).unwrap_or_default()).to_string())
            }
            ImageName::Archive { .. } | ImageName::Registry(_) => None,
        };
        let forecast = if place.is_some_and(|place| !before.insert(place)) {
            Receipt::of_nothing(image).into()
        } else {
            transfer(ui, async { sink(destination, reference, places).await?.forecast(image).await })?
                .map_err(TransportError::at_its_source)?
        };
        forecasts.push((destination.to_string(), forecast));
    }
    Ok(forecasts)
}

async fn sink(
    destination: &ImageName,
    reference: &Reference,
    places: &Places,
) -> Result<Box<dyn Sink>, TransportError> {
    let tag = || reference.tag.clone().unwrap_or_else(|| "latest".to_owned());
    Ok(match destination {
        ImageName::Oci { directory, tag: name } => {
            let name = name.clone().unwrap_or_else(tag);
            Box::new(LayoutImage::new(directory, Some(&name)))
        }
        ImageName::Store(reference) => Box::new(LayoutImage::local(reference)?),
        ImageName::Archive { file, reference: name } => {
            let reference = name.clone().unwrap_or_else(|| reference.clone());
            Box::new(ArchiveFile { file: file.clone(), reference })
        }
        ImageName::Daemon(reference) => Box::new(places.daemon(reference).await?),
        ImageName::Registry(reference) => Box::new(places.registries.image(reference)),
    })
}

/// What a bar shows of a transfer.
pub(super) struct Bar(pub(super) ui::Progress);

impl Progress for Bar {
    fn advance(&self, bytes: u64) {
        self.0.advance(bytes);
    }
}

/// The image's own name: that of its source, else what its labels say.
pub fn name_of(source: &ImageName, image: &Image) -> Reference {
    let labels = image.parsed_config().map(|config| config.config.labels).unwrap_or_default();
    let title = labels.get("org.opencontainers.image.title");
    let version = labels.get(crate::oci::image::VERSION_LABEL);
    let labelled = title.zip(version).and_then(|(title, version)| format!("{title}:{version}").parse().ok());
    match source {
        ImageName::Store(reference) | ImageName::Daemon(reference) | ImageName::Registry(reference) => {
            reference.clone()
        }
        ImageName::Archive { reference: Some(reference), .. } => reference.clone(),
        ImageName::Oci { .. } | ImageName::Archive { reference: None, .. } => labelled.unwrap_or(Reference {
            registry: "docker.io".to_owned(),
            repository: "library/image".to_owned(),
            tag: Some("latest".to_owned()),
            digest: None,
        }),
    }
}

/// What an output would be sent, and why that may be more.
pub fn forecast_text(output: &str, Forecast { receipt, inexact }: &Forecast) -> String {
    let mut text = format!("would write {output}: {} bytes ({})", receipt.bytes_sent, receipt_text(receipt));
    if let Some(why) = inexact {
        text += "\n  not exact: ";
        text += why;
    }
    text
}

/// Adds why the bytes of a forecast are not exact, where they are not.
pub fn note_inexact(forecast: &Forecast, document: &mut Value) {
    if let Some(why) = &forecast.inexact {
        document["inexact"] = json!(why);
    }
}

/// `1 layer sent, 1.3 MB; 13 skipped, 74.7 MB`.
pub fn receipt_text(receipt: &Receipt) -> String {
    format!(
        "{} {} sent, {}; {} skipped, {}",
        receipt.layers_sent,
        if receipt.layers_sent == 1 { "layer" } else { "layers" },
        bytes(receipt.bytes_sent),
        receipt.layers_skipped,
        bytes(receipt.bytes_skipped)
    )
}

/// Bytes as a person reads them: `512 B`, `4.2 MB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if count < 1000 {
        return format!("{count} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = count as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

impl TransportError {
    /// The runtime for asynchronous calls cannot be made.
    fn runtime(source: std::io::Error) -> Self {
        Self::Io { act: "start the runtime for", path: "engine calls".into(), source }
    }
}
