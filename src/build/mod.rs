//! Recipe → packages → trees → layers → image: the pipeline, in order. It knows no engine and no transport.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};

use crate::diagnose::{Diagnose, Exit, Place, shown};
use crate::oci::{Digest, Image, Layer, Platform, TarImage};
use crate::store::cache::LayerRecord;
use crate::store::{Cache, StoreError};
use crate::tars::Service;
use crate::tars::catalogue::{DEPLOY_PATH, TARS_PATH, WEB_PATH};

pub mod after;
pub mod base;
pub mod blob;
pub mod bundle;
pub mod check;
pub mod compress;
pub mod content;
mod gate;
pub mod glob;
pub mod hints;
pub mod host;
pub mod image;
mod inputs;
pub mod layer;
pub mod listing;
mod machine;
pub mod mixture;
mod modules;
mod offers;
pub mod ontop;
pub mod pack;
pub mod package;
pub mod patch;
mod pieces;
mod plain;
pub mod privileges;
pub mod recipe;
pub mod refusal;
pub mod same;
pub mod skeleton;
pub mod standing;
pub mod tree;
pub mod unpack;
pub mod version;
mod written;

use after::Predecessor;
use base::{BasePaths, Rootfs};
use check::CheckError;
pub use gate::GateError;
use hints::Hints;
pub use inputs::Begun;
use inputs::{Inputs, Manner, Reading};
use mixture::ListedError;
use package::{Package, PackageError, ServiceFiles};
use privileges::PrivilegeError;
use recipe::{Base, ImageRole, Recipe, RecipeError};
use standing::BaseImage;
use tree::Tree;
use unpack::UnpackError;

/// Everything that decides an image besides the recipe.
#[derive(Debug)]
pub struct Settings {
    /// What the image is for.
    pub platform: Platform,
    /// The date of config and history, in seconds since 1970: `SOURCE_DATE_EPOCH`.
    pub created: Option<i64>,
    /// How many threads compress. Does not show in any byte.
    pub threads: NonZeroUsize,
    /// Layers that were made before, and those that are made.
    pub cache: Cache,
    /// The build is a plan: what the gates refuse does not end it.
    pub rehearses: bool,
    /// The image whose order of layers is kept.
    pub predecessor: Option<Predecessor>,
    /// tars-init, where the recipe names none.
    pub init: Option<PathBuf>,
    /// The image that the recipe's base names, where it names one.
    pub base: Option<BaseImage>,
    /// What is warned about is refused.
    pub strict: bool,
    /// Findings of the gate that are no findings, beside those that the recipe names.
    pub waive: Vec<String>,
}

/// What would be built: the recipe and its inputs, read and checked; nothing is written.
pub struct PreparedBuild<'a> {
    recipe: &'a Recipe,
    settings: &'a Settings,
    base: Option<BaseInput<'a>>,
    /// In canonical order.
    layers: Vec<LayerInput>,
    /// What a person ought to read.
    pub warnings: Vec<String>,
    /// The packages that are files.
    pub packages: Vec<UsedPackage>,
    hints: Hints,
    /// What the gates refuse of the inputs; of a rehearsal alone.
    refused: Vec<GateError>,
    /// What the inputs were before they were read.
    key: Option<Digest>,
}

/// What the image stands on.
enum BaseInput<'a> {
    Rootfs { rootfs: Rootfs, cached: Option<Box<LayerRecord<BasePaths>>> },
    Image(&'a BaseImage),
}

impl BaseInput<'_> {
    /// The file, or the image's name.
    fn path(&self) -> &Path {
        match self {
            Self::Rootfs { rootfs, .. } => &rootfs.path,
            Self::Image(image) => Path::new(&image.name),
        }
    }

    /// What a person calls it.
    fn name(&self) -> String {
        match self {
            Self::Rootfs { rootfs, .. } => shown(rootfs.path.file_name().unwrap_or_default()).to_string(),
            Self::Image(image) => shown(&image.name).to_string(),
        }
    }

    fn image(&self) -> Option<&BaseImage> {
        match self {
            Self::Image(image) => Some(image),
            Self::Rootfs { .. } => None,
        }
    }
}

/// A layer that is known, but not made yet.
struct LayerInput {
    name: String,
    what: String,
    tree: Tree,
}

/// Where a layer's blob comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// Compressed: nothing had this content.
    Made,
    /// The cache had it.
    Cache,
    /// The predecessor has a layer of this content.
    Predecessor,
    /// A layer of the predecessor that stays in its place.
    Kept,
    /// A layer of the image that is the base.
    Base,
}

/// A finished layer.
#[derive(Clone, Debug)]
pub struct Packed {
    /// Its name: `base`, a service, `web`, `deploy`, `tars-init`, `files`, `contents`.
    pub name: String,
    /// Where it goes, or what it is.
    pub what: String,
    /// The digest of the uncompressed tar.
    pub diff_id: Digest,
    /// The digest of the blob.
    pub digest: Digest,
    /// The blob's size in bytes.
    pub size: u64,
    /// Bytes of the files in it, where it was put together here; of the tar for a base.
    pub content: Option<u64>,
    /// Where the blob comes from.
    pub origin: Origin,
    /// The blob, where the predecessor has it.
    pub known: Option<Layer>,
}

impl Packed {
    /// True where nothing had to be compressed.
    pub fn is_cached(&self) -> bool {
        self.origin != Origin::Made
    }
}

/// Hears of a build while it goes on.
pub trait Watch: Sync {
    /// A layer's blob is there.
    fn layer(&self, layer: &Packed) {
        let _ = layer;
    }

    /// Whether somebody wants the image before its layers are compressed.
    fn wants_tars(&self) -> bool {
        false
    }

    /// The image, whose layers are being compressed from now on. That may fail.
    fn tars(&self, image: TarImage) {
        let _ = image;
    }

    /// The image, whole, and its layers: their blobs have their names, and may not be on the disk yet.
    fn image(&self, image: &Image, layers: &[Packed]) {
        let _ = (image, layers);
    }
}

/// Nobody hears.
impl Watch for () {}

/// A package that is a file, as it was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsedPackage {
    /// The file.
    pub path: PathBuf,
    /// The digest of its bytes.
    pub digest: Digest,
    /// The layers that its files are in: services, or the web console.
    pub layers: Vec<String>,
}

/// A finished image.
pub struct Built {
    /// The image. Its layers lie in the cache.
    pub image: Image,
    /// Its layers, in order.
    pub layers: Vec<Packed>,
    /// The packages of a patch that are files.
    pub packages: Vec<UsedPackage>,
    /// What a person ought to know of the order of its layers.
    pub note: Option<String>,
    /// What a person ought to know of its programs.
    pub warnings: Vec<String>,
    /// What the gates refuse; of a rehearsal alone, as nothing is built otherwise.
    pub refused: Vec<GateError>,
}

/// Why an image cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The recipe.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// A package.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// An archive or folder that is no package: base, deploy, tars-init, files.
    #[error(transparent)]
    Input(#[from] UnpackError),
    /// The parts do not fit together.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// The recipe lists versions that are not there.
    #[error(transparent)]
    Listed(#[from] ListedError),
    /// A file with privileges that nobody said are meant.
    #[error(transparent)]
    Privilege(#[from] PrivilegeError),
    /// Something of it would not run.
    #[error(transparent)]
    Gate(#[from] GateError),
    /// An image is not fit to be patched.
    #[error(transparent)]
    Patch(#[from] patch::PatchError),
    /// The cache.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A layer cannot be written.
    #[error("cannot make the layer {layer}")]
    Compress {
        /// The layer.
        layer: String,
        /// What failed.
        source: io::Error,
    },
}

impl Settings {
    /// What the gates refuse ends a build; a rehearsal hears of it and goes on.
    fn allow(&self, refused: Result<(), GateError>) -> Result<Option<GateError>, GateError> {
        match refused {
            Ok(()) => Ok(None),
            Err(error) if self.rehearses => Ok(Some(error)),
            Err(error) => Err(error),
        }
    }
}

impl BuildError {
    fn compress(layer: &str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Compress { layer: layer.to_owned(), source }
    }

    fn inner(&self) -> Option<&dyn Diagnose> {
        match self {
            Self::Recipe(error) => Some(error),
            Self::Package(error) => Some(error),
            Self::Input(error) => Some(error),
            Self::Check(error) => Some(error),
            Self::Listed(error) => Some(error),
            Self::Privilege(error) => Some(error),
            Self::Gate(error) => Some(error),
            Self::Patch(error) => Some(error),
            Self::Store(error) => Some(error),
            Self::Compress { .. } => None,
        }
    }
}

impl Diagnose for BuildError {
    fn exit(&self) -> Exit {
        self.inner().map_or(Exit::Failed, Diagnose::exit)
    }

    fn hint(&self) -> Option<String> {
        match self.inner() {
            Some(error) => error.hint(),
            None => Some("see whether the disk is full".to_owned()),
        }
    }

    fn place(&self) -> Option<Place> {
        self.inner().and_then(Diagnose::place)
    }

    fn parts(&self) -> Vec<&dyn Diagnose> {
        self.inner().map(Diagnose::parts).unwrap_or_default()
    }
}

/// Reads and checks all inputs. Writes nothing that has a name.
pub fn prepare<'a>(recipe: &'a Recipe, settings: &'a Settings) -> Result<PreparedBuild<'a>, BuildError> {
    prepare_begun(recipe, settings, same::key(recipe, settings), None)
}

/// The same with the [`same::key`] that the inputs had a moment ago, where their reading may have begun.
pub fn prepare_begun<'a>(
    recipe: &'a Recipe,
    settings: &'a Settings,
    key: Option<Digest>,
    begun: Option<Begun>,
) -> Result<PreparedBuild<'a>, BuildError> {
    prepare_with(recipe, settings, key, (begun, Reading::Recalling))
}

fn prepare_with<'a>(
    recipe: &'a Recipe,
    settings: &'a Settings,
    key: Option<Digest>,
    (begun, reading): (Option<Begun>, Reading),
) -> Result<PreparedBuild<'a>, BuildError> {
    check::keys(recipe)?;
    let init = init_of(recipe, settings)?;
    let (inputs, hints) = if let Some(begun) = begun {
        begun.end()
    } else {
        let asks_names = blob::known_blobs(settings).is_some();
        let (manner, hints) =
            (Manner { threads: settings.threads, reading, asks_names }, Hints::new(&settings.cache));
        (inputs::read((recipe, init.as_deref()), manner, &hints), hints)
    };
    let Inputs { packages, base: rootfs, web, deploy, init: skeleton } = inputs;
    let packages = packages.into_iter().collect::<Result<Vec<Package>, PackageError>>()?;
    let wanted = check::services_of(recipe.role);
    let used = |package: &Package| {
        let layers = package.services.keys().filter(|service| wanted.contains(service));
        let layers = layers.map(|service| service.name().to_owned()).collect();
        Some(UsedPackage { path: package.path.clone(), digest: package.digest?, layers })
    };
    let mut used: Vec<UsedPackage> = packages.iter().filter_map(used).collect();
    let mut services = package::by_service(packages)?;
    let mut warnings: Vec<String> = package::stale(&services).into_iter().collect();
    let strict = settings.allow(gate::strict(&warnings, settings.strict, &recipe.file))?;
    let mut refused: Vec<GateError> = strict.into_iter().collect();
    if let Some(path) = init.as_deref().filter(|_| recipe.base != Base::Scratch)
        && skeleton::needs_loader(path)?
    {
        warnings.push(format!(
            "{} is dynamically linked: it starts only where the base's glibc is at least as new as the one that it was \
             linked with; docs/recipe.md says how it is built statically",
            shown(&path)
        ));
    }
    if recipe.web.is_some()
        && let Some(doubt) = recipe.deploy.as_deref().and_then(skeleton::lacks_node_scripts)
    {
        warnings.push(doubt);
    }
    check::complete(recipe, &services.keys().copied().collect::<BTreeSet<_>>())?;
    let patched = settings.predecessor.as_ref().map(|before| before.patched.clone()).unwrap_or_default();
    let (mixtures, notes) = mixture::judge(recipe, &services, wanted, &patched)?;
    let of_one_release = if mixtures.is_empty() { Ok(()) } else { Err(GateError::Mixed { mixtures }) };
    refused.extend(settings.allow(of_one_release)?);
    warnings.extend(notes);
    leave_out(recipe.role, &mut services, &mut warnings);
    let base = match &recipe.base {
        Base::Scratch => None,
        Base::Rootfs(_) => {
            let rootfs = rootfs.expect("a base that is a file was asked for with the packages")?;
            let cached = settings.cache.find(&rootfs.key()).map(Box::new);
            Some(BaseInput::Rootfs { rootfs, cached })
        }
        Base::Image(name) => {
            let found = settings.base.as_ref().filter(|base| base.name == *name);
            let base = found.ok_or_else(|| CheckError::BaseImage {
                base: name.clone(),
                why: "it was not read".to_owned(),
                recipe: recipe.file.clone(),
            })?;
            base.check(&settings.platform, &recipe.file)?;
            Some(BaseInput::Image(base))
        }
    };
    let console = web.transpose()?;
    let layers = layers(recipe, services, console, (deploy.transpose()?, skeleton.transpose()?), &mut used)?;
    Ok(PreparedBuild { recipe, settings, base, layers, warnings, packages: used, hints, refused, key })
}

/// tars-init: in every image of TARS, in a plain one where the recipe names it.
fn init_of(recipe: &Recipe, settings: &Settings) -> Result<Option<PathBuf>, BuildError> {
    let path = match (&recipe.init, recipe.role) {
        (Some(path), _) => path.clone(),
        (None, ImageRole::Plain) => return Ok(None),
        (None, _) => settings.init.clone().unwrap_or_else(|| PathBuf::from("tars-init")),
    };
    if !path.is_file() {
        return Err(CheckError::NoInit { path }.into());
    }
    if recipe.base == Base::Scratch && skeleton::needs_loader(&path)? {
        return Err(CheckError::DynamicInit { path }.into());
    }
    Ok(Some(path))
}

/// A node's image takes tarsnode alone, also from the bundle, and says so.
fn leave_out(
    role: ImageRole,
    services: &mut BTreeMap<Service, (PathBuf, ServiceFiles)>,
    warnings: &mut Vec<String>,
) {
    let wanted = check::services_of(role);
    let unused: Vec<&str> =
        services.keys().filter(|service| !wanted.contains(service)).map(|service| service.name()).collect();
    if !unused.is_empty() {
        warnings.push(format!("role {} leaves out {}", role.name(), unused.join(", ")));
    }
    services.retain(|service, _| wanted.contains(service));
}

/// In canonical order: what is large and changes seldom first, so that a change sends little again.
fn layers(
    recipe: &Recipe,
    services: BTreeMap<Service, (PathBuf, ServiceFiles)>,
    console: Option<(Tree, Option<Digest>)>,
    (deploy, init): (Option<Tree>, Option<Tree>),
    used: &mut Vec<UsedPackage>,
) -> Result<Vec<LayerInput>, BuildError> {
    let mut layers = Vec::new();
    let origin = |name: &str, path: &Option<PathBuf>| Some((name.to_owned(), path.clone()?));
    let of_folders =
        [origin("web", &recipe.web), origin("deploy", &recipe.deploy), origin("tars-init", &recipe.init)];
    let mut origins: BTreeMap<String, PathBuf> = of_folders.into_iter().flatten().collect();
    let mut add = |name: &str, what: String, tree: Tree| {
        if !tree.is_empty() {
            layers.push(LayerInput { name: name.to_owned(), what, tree });
        }
    };
    if let Some((web, (mut tree, digest))) = recipe.web.as_ref().zip(console) {
        let layers = vec!["web".to_owned()];
        used.extend(digest.map(|digest| UsedPackage { path: web.clone(), digest, layers }));
        check::web(web, &tree)?;
        skeleton::link_web_logs(&mut tree);
        add("web", format!("the web console at {WEB_PATH}"), tree);
    }
    for (service, (package, files)) in services {
        origins.insert(service.name().to_owned(), package);
        add(service.name(), format!("{TARS_PATH}/{service}"), files.tree);
    }
    add("files", "files that the recipe names".to_owned(), skeleton::files(&recipe.plain.files)?);
    if let Some(tree) = deploy {
        add("deploy", format!("configuration templates and SQL at {DEPLOY_PATH}/framework"), tree);
    }
    if let Some(tree) = init {
        add("tars-init", "PID 1, and the links into the volume".to_owned(), tree);
    }
    privileges::judge(recipe, &mut layers, &origins)?;
    Ok(layers)
}

/// Does the same with each item on several threads; the answers are in the items' order, and so is the first error.
fn parallel<T: Sync, R: Send, E: Send>(
    threads: NonZeroUsize,
    items: &[T],
    work: impl Fn(&T) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    let next = AtomicUsize::new(0);
    let answers: Vec<Mutex<Option<Result<R, E>>>> = items.iter().map(|_| Mutex::new(None)).collect();
    std::thread::scope(|scope| {
        for _ in 0..threads.get().min(items.len()) {
            scope.spawn(|| {
                while let Some(index) =
                    Some(next.fetch_add(1, Ordering::Relaxed)).filter(|i| *i < items.len())
                {
                    let answer = work(&items[index]);
                    if let Ok(mut place) = answers[index].lock() {
                        *place = Some(answer);
                    }
                }
            });
        }
    });
    answers
        .into_iter()
        .map(|place| {
            let answer = place.into_inner().ok().flatten();
            answer.expect("every item was taken by a thread, and a thread that panics ends the scope")
        })
        .collect()
}
