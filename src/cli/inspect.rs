//! `tarsup inspect`: what an image is made of, service by service, and its bill of materials.

mod held;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::image::{bytes, read_asked};
use super::options::{ImageOptions, PlatformOptions};
use super::places::Places;
use super::table::aligned;
use super::{Failure, Outcome, Ui, packed};
use crate::contents::summary::Summaries;
use crate::contents::{Contents, Part};
use crate::diagnose::{Diagnose, Exit, Place, shown};
use crate::oci::{Config, Digest, Image, platform};
use crate::sbom::{self, MadePart, PACKED_ANNOTATION};
use crate::store;
use crate::transport::{ImageName, TransportError};

/// Show what an image is made of
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The image: NAME:VERSION of the local store, oci:DIR[:TAG], docker-archive:FILE, docker-daemon:REF or docker://REF
    image: String,

    /// Write its bill of materials there (CycloneDX 1.5, JSON)
    #[arg(long, value_name = "FILE")]
    sbom: Option<PathBuf>,

    #[command(flatten)]
    platform: PlatformOptions,

    #[command(flatten)]
    places: ImageOptions,
}

/// Why there is no bill of materials.
#[derive(Debug, thiserror::Error)]
enum InspectError {
    /// Nothing says what is in the image.
    #[error("{image} has no list of its files, which a bill of materials is made of")]
    NoList {
        /// The image.
        image: String,
    },
    /// The file cannot be written.
    #[error("cannot write {}", crate::diagnose::shown(path))]
    Write {
        /// The file.
        path: PathBuf,
        /// The operating system's words.
        source: std::io::Error,
    },
}

impl Diagnose for InspectError {
    fn exit(&self) -> Exit {
        if matches!(self, Self::NoList { .. }) { Exit::Usage } else { Exit::Failed }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoList { .. } => {
                "build it with this tarsup; layers that something else puts on top hide the list".to_owned()
            }
            Self::Write { .. } => "see whether the disk is full and the permissions fit".to_owned(),
        })
    }

    fn place(&self) -> Option<Place> {
        match self {
            Self::NoList { .. } => None,
            Self::Write { path, .. } => Some(Place::file(path)),
        }
    }
}

pub use held::{in_store, is_same, known_as, note_sent};

/// What is asked of an image, beside its config: each is more than the one before, and takes longer to get out of an engine.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Needed {
    /// What its parts are.
    Parts,
    /// The list of its files.
    List,
    /// Its own bytes.
    Bytes,
}

/// What is shown of an image, wherever it lies.
struct Subject {
    /// Of its manifest; none where an engine does not tell it. The same with the config.
    digest: Option<Digest>,
    id: Option<Digest>,
    config: Config,
    /// The base first.
    layers: Vec<SubjectLayer>,
    contents: Option<Contents>,
    /// What the history tells, where nobody has read the list.
    summaries: Option<Summaries>,
    /// The image itself, where its bytes are at hand.
    image: Option<Image>,
}

struct SubjectLayer {
    name: String,
    diff_id: Digest,
    /// What is stored of it, and its bytes; none where an engine does not tell it.
    stored: Option<(Digest, u64)>,
    /// Bytes of its files, as an engine has them.
    unpacked: Option<u64>,
}

impl Subject {
    /// An image, and the list that it has.
    fn of(name: &str, image: Image) -> Result<Self, Failure> {
        image.parsed_config().map_err(|error| TransportError::Malformed {
            file: name.into(),
            why: format!("its config cannot be read: {error}"),
        })?;
        let unread = |source| TransportError::Read { name: name.to_owned(), source }.at_its_source();
        let contents = Contents::of(&image).map_err(unread)?;
        Ok(Self::with(image, contents))
    }

    /// The same, where the list is known.
    fn with(image: Image, contents: Option<Contents>) -> Self {
        let layer = |(layer, name): (&crate::oci::Layer, String)| SubjectLayer {
            name,
            diff_id: layer.diff_id,
            stored: Some((layer.descriptor.digest, layer.descriptor.size)),
            unpacked: None,
        };
        Self {
            digest: Some(image.digest()),
            id: Some(image.config_digest()),
            config: image.parsed_config().unwrap_or_default(),
            layers: image.layers.iter().zip(image.layer_names()).map(layer).collect(),
            contents,
            summaries: None,
            image: Some(image),
        }
    }

    /// Its parts, as its list tells them, or else its history. `packages`: name of a part → its package.
    fn parts(&self, packages: &BTreeMap<String, Digest>) -> Vec<MadePart> {
        let size = |layer: &SubjectLayer| layer.stored.map(|(_, size)| size);
        if let Some(contents) = &self.contents {
            let sizes: Vec<_> = self.layers.iter().map(|layer| (layer.diff_id, size(layer))).collect();
            return sbom::parts(&self.config, &sizes, contents, packages);
        }
        let told = |summaries: &Summaries| {
            let layers = self.layers.iter();
            let layers: Vec<_> =
                layers.map(|layer| (layer.name.as_str(), layer.diff_id, size(layer))).collect();
            sbom::summarized(&self.config, &layers, summaries)
        };
        self.summaries.as_ref().map(told).unwrap_or_default()
    }
}

/// Shows an image.
pub fn inspect(args: &InspectArgs, ui: &Ui) -> Outcome {
    let name: ImageName = args.image.parse()?;
    let places = Places::new(&args.places);
    let needed = match &args.sbom {
        Some(_) => Needed::Bytes,
        None if ui.is_json() => Needed::List,
        None => Needed::Parts,
    };
    let _ = args.platform.asked()?;
    let subject = match &name {
        ImageName::Daemon(reference) => held::subject(reference, needed, &places, ui)?,
        name => Subject::of(&name.to_string(), read_asked(name, &args.platform, &places, ui)?)?,
    };
    args.platform.check(&name, &subject.config)?;
    let near = Near::of(subject.digest, subject.contents.as_ref());
    if let Some(file) = &args.sbom {
        let none = || InspectError::NoList { image: name.to_string() };
        let (image, contents) = subject.image.as_ref().zip(subject.contents.as_ref()).ok_or_else(none)?;
        write_bill(file, image, contents, &near.packages)?;
    }
    let parts = subject.parts(&near.packages);
    if args.sbom.is_some() {
        parts.iter().filter_map(unread).for_each(|words| ui.warn(&words));
    }
    let mut text = subject_text(&name, &subject, &parts, &near);
    if let Some(file) = &args.sbom {
        let _ = write!(text, "\nits bill of materials: {}", file.display());
    }
    ui.result(&text);
    ui.json(&document(&name, &subject, &parts, &near));
    Ok(Exit::Done)
}

/// The npm packages of a part that its bill cannot tell.
fn unread(part: &MadePart) -> Option<String> {
    let (name, first) = (&part.name, part.unread.first()?);
    let count = part.unread.len();
    Some(if part.modules.is_empty() {
        format!(
            "{name}: none of its {count} npm packages is in the bill: the image's list says nothing of them; an image that this tarsup \
             builds has them"
        )
    } else {
        format!(
            "{name}: {count} npm packages are in the bill as `npm-unread` alone: /{first}/package.json, for one, tells no name and version"
        )
    })
}

/// The services that the image says it has.
fn services(config: &Config) -> Vec<&str> {
    let named = config.config.labels.get(crate::build::image::LABEL_IMAGE_SERVICES);
    named.map(|text| text.split(',').collect()).unwrap_or_default()
}

fn subject_text(name: &ImageName, subject: &Subject, parts: &[MadePart], near: &Near) -> String {
    let config = &subject.config;
    let mut text = name.to_string();
    for (what, digest) in [("digest", subject.digest), ("id    ", subject.id)] {
        if let Some(digest) = digest {
            let _ = write!(text, "\n  {what}    {digest}");
        }
    }
    let platform = platform::shown(&config.os, &config.architecture, config.variant.as_deref());
    let _ = write!(text, "\n  platform  {platform}\n  created   {}", config.created);
    let services = services(config);
    if !services.is_empty() {
        let _ = write!(text, "\n  services  {}", services.join(" "));
    }
    text += &parts_text(parts, near);
    text += "\n  layers";
    for layer in &subject.layers {
        let size = match (layer.stored, layer.unpacked) {
            (Some((_, size)), _) => bytes(size),
            (None, Some(size)) => format!("{} unpacked", bytes(size)),
            (None, None) => "-".to_owned(),
        };
        let _ = write!(text, "\n    {:<18} {size:>10}  {}", layer.name, layer.diff_id.short());
    }
    text += "\n  labels";
    for (key, value) in &config.config.labels {
        let _ = write!(text, "\n    {key}={value}");
    }
    text
}

fn document(name: &ImageName, subject: &Subject, parts: &[MadePart], near: &Near) -> Value {
    let config = &subject.config;
    let layers = subject.layers.iter().map(|layer| {
        let (digest, size) = layer.stored.unzip();
        let mut document =
            json!({ "name": layer.name, "diff_id": layer.diff_id, "digest": digest, "size": size });
        if let Some(unpacked) = layer.unpacked {
            document["unpacked"] = json!(unpacked);
        }
        document
    });
    json!({
        "image": name.to_string(), "digest": subject.digest, "config_digest": subject.id,
        "os": config.os, "architecture": config.architecture, "created": config.created,
        "services": services(config), "entrypoint": config.config.entrypoint,
        "ports": config.config.exposed_ports, "volumes": config.config.volumes, "labels": config.config.labels,
        "layers": layers.collect::<Vec<_>>(),
        "parts": parts.iter().map(|part| part_document(part, near)).collect::<Vec<_>>(),
    })
}

/// What the local store and the cache know of an image.
#[derive(Default)]
struct Near {
    /// Name of a layer → the package that it was made of.
    packages: BTreeMap<String, Digest>,
    /// The other images in the store, and the content of their layers.
    others: Vec<(String, BTreeSet<Digest>)>,
}

/// What the annotations of an image say of its packages.
pub fn annotated(annotations: &BTreeMap<String, String>) -> impl Iterator<Item = (String, Digest)> {
    annotations.iter().filter_map(|(key, value)| {
        Some((key.strip_prefix(PACKED_ANNOTATION)?.to_owned(), value.parse().ok()?))
    })
}

impl Near {
    /// A store that cannot be read knows nothing.
    fn of(digest: Option<Digest>, contents: Option<&Contents>) -> Self {
        let mut near = Self::in_store(digest, contents);
        for (name, package) in contents.map(packed::of).unwrap_or_default() {
            near.packages.entry(name).or_insert(package);
        }
        near
    }

    fn in_store(digest: Option<Digest>, contents: Option<&Contents>) -> Self {
        let mut near = Self::default();
        let Ok(store) = store::local() else { return near };
        for (name, descriptor) in store.list().unwrap_or_default() {
            if Some(descriptor.digest) == digest {
                near.packages.extend(annotated(&descriptor.annotations));
            } else if let (Some(name), Ok(other)) = (name, store.image(&descriptor)) {
                let layers: BTreeSet<Digest> = other.diff_ids().into_iter().collect();
                // What has the very same layers was made of the same package.
                let is_same = |part: &Part| part.layers.iter().all(|layer| layers.contains(layer));
                for (name, package) in annotated(&descriptor.annotations) {
                    let part = contents.and_then(|contents| contents.parts.get(&name));
                    if part.is_some_and(is_same) {
                        near.packages.entry(name).or_insert(package);
                    }
                }
                near.others.push((name, layers));
            }
        }
        near
    }

    /// The images that have every layer of a part, and so the part at no cost.
    fn sharing(&self, part: &MadePart) -> Vec<&str> {
        let has = |layers: &BTreeSet<Digest>| part.layers.iter().all(|layer| layers.contains(layer));
        self.others.iter().filter(|(_, layers)| has(layers)).map(|(name, _)| name.as_str()).collect()
    }
}

fn parts_text(parts: &[MadePart], near: &Near) -> String {
    /// So many images are named.
    const MOST: usize = 3;
    if parts.is_empty() {
        return String::new();
    }
    let header = ["PART", "VERSION", "BUILD ID", "SIZE", "COMPRESSED", "COVERED", "SHARED WITH"];
    let row = |part: &MadePart| {
        let sharing = near.sharing(part);
        let mut shared = sharing.iter().take(MOST).copied().collect::<Vec<_>>().join(" ");
        if sharing.len() > MOST {
            let _ = write!(shared, " and {} more", sharing.len() - MOST);
        }
        let build_id = part.program.as_ref().and_then(|program| program.build_id.as_deref());
        let mut version = part.version.clone().unwrap_or_else(|| "-".to_owned());
        if part.patched.is_some() {
            version += " (patched)";
        }
        vec![
            part.name.clone(),
            version,
            build_id.map_or("-".to_owned(), |id| id.chars().take(12).collect()),
            part.size.map_or("-".to_owned(), bytes),
            part.compressed.map_or("-".to_owned(), bytes),
            if part.covered == 0 { "-".to_owned() } else { bytes(part.covered) },
            shared,
        ]
    };
    let rows: Vec<Vec<String>> =
        std::iter::once(header.map(str::to_owned).to_vec()).chain(parts.iter().map(row)).collect();
    let mut text = "\n  parts".to_owned();
    for line in aligned(&rows) {
        let _ = write!(text, "\n    {line}");
    }
    for sentence in parts.iter().filter_map(MadePart::release) {
        let _ = write!(text, "\n    {sentence}");
    }
    let covered: u64 = parts.iter().map(|part| part.covered).sum();
    if covered > 0 {
        let _ = write!(
            text,
            "\n    {} lie in layers and are covered by later ones: nobody sees them, and every host holds them",
            bytes(covered)
        );
    }
    let privileged = parts.iter().flat_map(|part| &part.privileges);
    let rows: Vec<Vec<String>> =
        privileged.map(|(path, has)| vec![shown(path).to_string(), has.clone()]).collect();
    if !rows.is_empty() {
        text += "\n  privileges";
        for line in aligned(&rows) {
            let _ = write!(text, "\n    {line}");
        }
    }
    text
}

fn part_document(part: &MadePart, near: &Near) -> Value {
    let program = part.program.as_ref();
    json!({
        "name": part.name, "version": part.version, "patched": part.patched, "release": part.release(), "package": part.package,
        "build_id": program.and_then(|program| program.build_id.clone()),
        "needed": program.map(|program| program.needed.clone()),
        "size": part.size, "compressed": part.compressed, "covered": part.covered,
        "privileges": part.privileges,
        "shared_with": near.sharing(part),
    })
}

/// Writes the bill beside, then renames it.
fn write_bill(
    file: &Path,
    image: &Image,
    contents: &Contents,
    packages: &BTreeMap<String, Digest>,
) -> Result<(), Failure> {
    let failed = |source| InspectError::Write { path: file.to_owned(), source };
    let mut bill = Vec::new();
    sbom::write(&mut bill, image, contents, packages).map_err(failed)?;
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let temporary = tempfile::Builder::new()
        .prefix(".tarsup-")
        .permissions(Permissions::from_mode(0o644))
        .tempfile_in(folder.unwrap_or(Path::new(".")));
    let mut temporary = temporary.map_err(failed)?;
    temporary.write_all(&bill).map_err(failed)?;
    temporary.persist(file).map_err(|error| failed(error.error))?;
    Ok(())
}
