//! The next image from one that exists: one service is replaced, without a recipe and without the other packages.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::after::{Made, Predecessor};
use super::base::BasePaths;
use super::blob::Chance;
use super::compress::Compressors;
use super::mixture::{self, Patched};
use super::package;
use super::pieces::{Piece, Workshop};
use super::tree::Content;
use super::version::Version;
use super::{
    BuildError, Built, GateError, LayerInput, Settings, UsedPackage, Watch, check, gate, image, listing,
    machine, ontop, pack, privileges, standing,
};
use crate::contents::summary::{self, Summaries, Summary};
use crate::contents::{self, Part};
use crate::diagnose::{Diagnose, Exit, shown};
use crate::oci::image::{BASE, CREATED_BY, VERSION_LABEL};
use crate::oci::{Digest, Image, exact};
use crate::tars::Service;
use crate::tars::catalogue::TARS_PATH;

/// What the label of a patched service begins with; its name follows. The value is the package's digest, the digest of the image that
/// was patched, and after a comma what the program has compiled in, where it tells.
pub const PATCH_LABEL: &str = "io.tarsup.patch.";

/// What is to be replaced, in which image.
pub struct Patch<'a> {
    /// The image as it was named.
    pub name: String,
    /// The image.
    pub image: &'a Image,
    /// Its layers, and what is visible in them.
    pub before: &'a Predecessor,
    /// Service → package.
    pub services: BTreeMap<Service, PathBuf>,
    /// The version of the next image, and its tag.
    pub version: String,
    /// Hears what of the image is read in full, as its list does not say it.
    pub on_read: &'a dyn Fn(&str),
}

/// Why an image cannot be patched.
#[derive(Debug, thiserror::Error)]
pub enum PatchError {
    /// Its layers cannot be built upon.
    #[error("{image} cannot be patched: {why}")]
    Image {
        /// The image.
        image: String,
        /// Why not.
        why: String,
    },
    /// The service is not in the image.
    #[error("there is no {service} in {image}")]
    Absent {
        /// The image.
        image: String,
        /// The service.
        service: Service,
    },
    /// The service is not in the package.
    #[error("{}: it brings {present}, and not {service}", shown(package))]
    Package {
        /// The package.
        package: PathBuf,
        /// The service.
        service: Service,
        /// What it brings instead.
        present: String,
    },
    /// A file of the package wants the place of another one.
    #[error("{}: the place /{path} belongs to {owner} in {image}", shown(package))]
    Taken {
        /// The package.
        package: PathBuf,
        /// The path.
        path: String,
        /// Whose it is.
        owner: String,
        /// The image.
        image: String,
    },
}

impl Diagnose for PatchError {
    fn exit(&self) -> Exit {
        Exit::Usage
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Image { .. } => {
                "name it where `tarsup build` or `copy` wrote it: in the local store, a layout or a registry"
                    .to_owned()
            }
            Self::Absent { .. } => "`tarsup inspect` shows what is in it".to_owned(),
            Self::Package { .. } => "name the package of this service".to_owned(),
            Self::Taken { .. } => "leave the file out of the package, or build from the recipe".to_owned(),
        })
    }
}

/// The digests of the packages; none for a folder.
type Digests = BTreeMap<Service, Option<Digest>>;

/// Makes the next image: the layers of the old one, and the changed files of the patched services on top.
pub fn patch(patch: &Patch<'_>, settings: &Settings, watch: &dyn Watch) -> Result<Built, BuildError> {
    let unfit = |why: String| PatchError::Image { image: patch.name.clone(), why };
    let names = patch.image.layer_names();
    let on_base: Vec<Digest> = names
        .iter()
        .zip(&patch.image.layers)
        .take_while(|(name, _)| *name == BASE)
        .map(|(_, layer)| layer.diff_id)
        .collect();
    let made = patch.before.that_stays(&on_base).map_err(|why| unfit(why.to_string()))?;
    let mut base = made.contents.parts.get(BASE).map(listing::base_paths).unwrap_or_default();
    let (inputs, digests) = inputs(patch, made, &base)?;
    let learned = learn_offers(patch, &inputs, &on_base, &mut base)?;
    let (mut warnings, refused) = gate(patch, settings, made, &inputs, &base)?;
    let releases = releases(patch, made, &inputs);
    let mixed = releases.iter().filter(|(_, told)| told.is_mixture);
    warnings.extend(mixed.map(|(service, Patched { told, .. })| {
        format!("{service} has {told}: a mixture, which a patched service may be")
    }));
    let changes = ontop::replaced(&made.contents, &inputs, &base).map_err(|why| unfit(why.to_string()))?;
    let compressors = Compressors::new(settings.threads);
    let shop = Workshop::new(settings, &base, &compressors, watch);
    let (mut pieces, tops) = shop.on_top(made, &changes)?;
    let mut parts = pack::parts_on_top(made, &changes, &tops, &[], &base);
    // An image that was read in full has no list of its base.
    let unlisted = made.contents.parts.get(BASE).filter(|_| !made.contents.below.contains(BASE));
    parts.extend(unlisted.map(|part| (BASE.to_owned(), part.clone())));
    parts.extend(learned.map(|part| (BASE.to_owned(), part)));
    let files = parts.into_iter().map(|(name, part)| Ok((name, listing::rendered_part(&part)?)));
    let files = files.collect::<Result<_, _>>().map_err(pack::unlisted)?;
    let list = list(&files, patch, &base)?;
    pieces.push(shop.piece(&list, Chance::Slight)?);
    let on_base = (!on_base.is_empty()).then(|| (BASE.to_owned(), Summary::default()));
    let summaries = ontop::summaries(&changes).into_iter().chain(on_base).collect();
    let labels = labels(patch, &digests, &releases);
    let config = config(patch, settings, &pieces, (labels, &summaries))
        .map_err(|error| unfit(format!("its config cannot be read: {error}")))?;
    let after = patch.before.chain_id();
    let layers = shop.finish(&pieces, &config, after)?;
    let image = image::of_config(config, &layers, after, &settings.cache)
        .map_err(BuildError::compress("of the config"))?;
    watch.image(&image, &layers);
    settings.cache.settle()?;
    let note = ontop::beyond(ontop::Limits::default(), &changes)
        .map(|why| format!("{why}, and a patch cannot change that: build from the recipe when it suits"));
    let packages = patch.services.iter().filter_map(|(service, path)| {
        let (digest, layers) = ((*digests.get(service)?)?, vec![service.name().to_owned()]);
        Some(UsedPackage { path: path.clone(), digest, layers })
    });
    Ok(Built { image, layers, packages: packages.collect(), note, warnings, refused })
}

/// Reads the base where the list does not say what it offers to programs, and something of the patch asks for that. The
/// part of the base with what was found.
fn learn_offers(
    patch: &Patch<'_>,
    inputs: &[LayerInput],
    on_base: &[Digest],
    base: &mut BasePaths,
) -> Result<Option<Part>, BuildError> {
    let is_asked = inputs.iter().any(|input| gate::programs(&input.name, &input.tree).next().is_some());
    if on_base.is_empty() || !is_asked || base.offers.is_some() {
        return Ok(None);
    }
    (patch.on_read)("the libraries of its base");
    base.offers = standing::fold(&patch.name, &patch.image.layers[..on_base.len()])?.offers;
    Ok(Some(listing::base_part(base, on_base)))
}

/// Refuses programs that the image cannot run; what else there is to say of them comes back.
fn gate(
    patch: &Patch<'_>,
    settings: &Settings,
    made: &Made,
    inputs: &[LayerInput],
    base: &BasePaths,
) -> Result<(Vec<String>, Vec<GateError>), BuildError> {
    let stays = |name: &str| name != BASE && !inputs.iter().any(|input| input.name == name);
    let others = made.contents.parts.iter().filter(|(name, _)| stays(name));
    let config: Value = serde_json::from_slice(&patch.image.config).unwrap_or_default();
    let environment = config["config"]["Env"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let world = gate::World {
        base,
        led: RefCell::default(),
        base_name: if made.contents.parts.contains_key(BASE) {
            format!("the base of {}", patch.name)
        } else {
            gate::SCRATCH.to_owned()
        },
        parts: others
            .map(|(name, part)| (name.as_str(), gate::Shown::Part(part)))
            .chain(inputs.iter().map(|input| (input.name.as_str(), gate::Shown::Tree(&input.tree))))
            .collect(),
        library_path: environment
            .filter_map(|variable| variable.strip_prefix("LD_LIBRARY_PATH="))
            .flat_map(gate::library_path)
            .collect(),
    };
    let programs: Vec<gate::Program<'_>> =
        inputs.iter().flat_map(|input| gate::programs(&input.name, &input.tree)).collect();
    let verdict = gate::judge(&world, &programs, &settings.waive)?;
    let (words, refused) = gate::refuse(verdict, Path::new(&patch.name), settings.strict);
    Ok((words, settings.allow(refused)?.into_iter().collect()))
}

/// The new files of each service at their places, and the digests of the packages.
fn inputs(
    patch: &Patch<'_>,
    made: &Made,
    base: &BasePaths,
) -> Result<(Vec<LayerInput>, Digests), BuildError> {
    let (mut inputs, mut digests) = (Vec::new(), BTreeMap::new());
    let config: Value = serde_json::from_slice(&patch.image.config).unwrap_or_default();
    let architecture = config["architecture"].as_str().unwrap_or("amd64").to_owned();
    for (service, path) in &patch.services {
        let is_there = made.contents.parts.get(service.name()).is_some_and(|part| !part.entries.is_empty());
        if !is_there {
            return Err(PatchError::Absent { image: patch.name.clone(), service: *service }.into());
        }
        let mut read = package::read(path)?;
        digests.insert(*service, read.digest);
        let Some(files) = read.services.remove(service) else {
            let present: Vec<&str> = read.services.keys().map(|service| service.name()).collect();
            let (package, present) = (path.clone(), present.join(", "));
            return Err(PatchError::Package { package, service: *service, present }.into());
        };
        let image = Path::new(&patch.name);
        let tree = check::on_base(service.name(), &files.tree, base, image, path)?;
        machine::check(service.name(), &tree, &architecture, path)?;
        let what = format!("{TARS_PATH}/{service}");
        if let Some(before) = made.contents.parts.get(service.name()) {
            privileges::as_before(&tree, before, path, &patch.name)?;
        }
        inputs.push(LayerInput { name: service.name().to_owned(), what, tree });
    }
    for input in &inputs {
        apart(patch, made, input, base)?;
    }
    Ok((inputs, digests))
}

/// Refuses what another part of the image has at the same place.
fn apart(patch: &Patch<'_>, made: &Made, input: &LayerInput, base: &BasePaths) -> Result<(), PatchError> {
    let patched = |name: &str| patch.services.keys().any(|service| service.name() == name);
    let others = made.contents.parts.iter().filter(|(name, _)| *name != BASE && !patched(name));
    for (owner, part) in others {
        let clash = input.tree.iter().find(|(path, node)| {
            part.entries.get(path).is_some_and(|entry| !listing::goes_with(path, node, &entry, base))
        });
        if let Some((path, _)) = clash {
            let service = patch.services.iter().find(|(service, _)| service.name() == input.name);
            return Err(PatchError::Taken {
                package: service.map(|(_, package)| package.clone()).unwrap_or_default(),
                path: path.into(),
                owner: owner.clone(),
                image: patch.name.clone(),
            });
        }
    }
    Ok(())
}

fn list(
    parts: &BTreeMap<String, Content>,
    patch: &Patch<'_>,
    base: &BasePaths,
) -> Result<LayerInput, BuildError> {
    let image = Path::new(&patch.name);
    let tree = check::on_base(contents::LAYER, &check::listed(parts, image)?, base, image, image)?;
    Ok(LayerInput { name: contents::LAYER.to_owned(), what: listing::purpose(parts), tree })
}

/// Of which release the new programs are, beside those that stay.
fn releases(patch: &Patch<'_>, made: &Made, inputs: &[LayerInput]) -> BTreeMap<Service, Patched> {
    let config = patch.image.parsed_config().unwrap_or_default().config;
    let framework = config.env.iter().find_map(|variable| variable.strip_prefix("TARSUP_VERSION="));
    let framework = framework.and_then(Version::leading);
    let is_patched =
        |service: &Service| patch.services.contains_key(service) || patch.before.patched.contains(service);
    let others = Service::ALL.into_iter().filter(|service| !is_patched(service)).filter_map(|service| {
        let offers = made.contents.parts.get(service.name())?.offers.as_ref()?;
        let program = offers.programs.get(package::binary_path(service).as_str())?;
        let versions: BTreeSet<Version> =
            program.versions.iter().filter_map(|version| version.parse().ok()).collect();
        (!versions.is_empty()).then_some((service, versions))
    });
    let others: BTreeMap<Service, BTreeSet<Version>> = others.collect();
    let told = inputs.iter().filter_map(|input| {
        let service: Service = input.name.parse().ok()?;
        let own = input.tree.versions(&package::binary_path(service)).iter().copied().collect();
        Some((service, mixture::patched(service, &own, &others, framework)?))
    });
    told.collect()
}

/// What the image says of the patched services: the package's digest, the image that was patched, and what the program has compiled in.
fn labels(
    patch: &Patch<'_>,
    digests: &Digests,
    releases: &BTreeMap<Service, Patched>,
) -> BTreeMap<String, String> {
    let label = |(service, digest): (&Service, &Option<Digest>)| {
        let package = digest.map_or_else(|| "a folder".to_owned(), |digest| digest.to_string());
        let release =
            releases.get(service).map(|Patched { told, .. }| format!(", {told}")).unwrap_or_default();
        (format!("{PATCH_LABEL}{service}"), format!("{package} on {}{release}", patch.image.digest()))
    };
    digests.iter().map(label).collect()
}

/// The config of the old image, every key of it, but for what a patch is.
fn config(
    patch: &Patch<'_>,
    settings: &Settings,
    layers: &[Piece<'_>],
    (patched, summaries): (BTreeMap<String, String>, &Summaries),
) -> serde_json::Result<Vec<u8>> {
    let mut config = exact::read(&patch.image.config)?;
    let created = image::rfc3339(settings.created);
    config["created"] = json!(created);
    config["rootfs"]["diff_ids"] = json!(layers.iter().map(Piece::diff_id).collect::<Vec<_>>());
    // The layers that stay keep their history; that of the list is the last, and goes with it.
    let stay = patch.before.stay();
    let mut history: Vec<Value> = config["history"].as_array().cloned().unwrap_or_default();
    let makes = |entry: &Value| entry["empty_layer"] != json!(true);
    while history.iter().filter(|entry| makes(entry)).count() > stay {
        history.pop();
    }
    history.extend(layers.iter().skip(stay).map(|layer| {
        let (name, what, _) = layer.told();
        json!({ "created": created, "created_by": format!("{CREATED_BY}{name}: {what}") })
    }));
    // The last one is the list's.
    if let Some(list) = history.last_mut() {
        list["comment"] = json!(summary::to_comment(summaries)?);
    }
    config["history"] = json!(history);
    let labels = &mut config["config"]["Labels"];
    labels[VERSION_LABEL] = json!(patch.version);
    for (label, said) in patched {
        labels[label] = json!(said);
    }
    exact::write(&config)
}
