//! A TARS package: which services it holds, and where their files lie in an image.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::hints::Hints;
use super::host;
use super::privileges::BITS;
use super::tree::{Tree, TreeNode};
use super::unpack::{self, UnpackError};
use super::version::{self, Version};
use crate::diagnose::{Diagnose, Exit, Place, shown};
use crate::limits;
use crate::oci::Digest;
use crate::paths::{ImagePath, ImagePathBuf, Unfit};
use crate::tars::Service;
use crate::tars::catalogue::{DEPLOY_PATH, TARS_PATH, WEB_PATH};

/// What one package brings.
#[derive(Debug)]
pub struct Package {
    /// The file, or the folder that `make install` made.
    pub path: PathBuf,
    /// The digest of the file; `None` for a folder.
    pub digest: Option<Digest>,
    /// Service → its files.
    pub services: BTreeMap<Service, ServiceFiles>,
}

/// The files of one service, at their places in the image.
#[derive(Debug, Default)]
pub struct ServiceFiles {
    /// Paths in the image, without leading slash.
    pub tree: Tree,
    /// When the binary was made, seconds since 1970.
    pub built: u64,
    /// What the packed install tree that it comes from says of its release.
    pub release: Option<Version>,
}

/// Why a package cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// Its archive or folder cannot be read, or holds what it must not.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// It is of no layout that `make *-tar` writes.
    #[error("{}: entry `{entry}` {why}", shown(path))]
    Layout {
        /// The package.
        path: PathBuf,
        /// The entry.
        entry: String,
        /// What is wrong.
        why: String,
        /// What to do.
        hint: String,
    },
    /// The service's program is not in it.
    #[error("{}: there is no program `{binary}` in it", shown(path))]
    NoBinary {
        /// The package.
        path: PathBuf,
        /// Where it should be.
        binary: String,
    },
    /// Two packages bring the same service.
    #[error("{} and {} both bring {service}", shown(first), shown(second))]
    Twice {
        /// One package.
        first: PathBuf,
        /// The other.
        second: PathBuf,
        /// The service.
        service: Service,
    },
}

impl Diagnose for PackageError {
    fn exit(&self) -> Exit {
        if let Self::Unpack(error) = self { error.exit() } else { Exit::Usage }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Unpack(error) => error.hint(),
            Self::Layout { hint, .. } => Some(hint.clone()),
            Self::NoBinary { .. } => {
                Some("build the service, delete the package, and make it again".to_owned())
            }
            Self::Twice { .. } => Some("leave one of them out of `packages`".to_owned()),
        }
    }

    fn place(&self) -> Option<Place> {
        match self {
            Self::Unpack(error) => error.place(),
            Self::Layout { path, .. } | Self::NoBinary { path, .. } => Some(Place::file(path)),
            Self::Twice { second, .. } => Some(Place::file(second)),
        }
    }
}

/// `framework/servers` of a tree that `make install` made, where `folder` is one.
pub fn install_tree(folder: &Path) -> Option<PathBuf> {
    ["framework/servers", "deploy/framework/servers", "servers"]
        .into_iter()
        .map(|below| folder.join(below))
        .find(|servers| servers.is_dir())
}

/// Reads a package: a `.tgz`, or a folder that `make install` made.
pub fn read(path: &Path) -> Result<Package, PackageError> {
    let unpacked = match install_tree(path) {
        Some(servers) => host::read_folder(&servers)?,
        None => unpack::read_archive(path)?,
    };
    let prefix = install_prefix(&unpacked.tree);
    let release = version::place_in_tree(prefix).and_then(|file| unpacked.tree.get(&file));
    let mut services: BTreeMap<Service, ServiceFiles> = BTreeMap::new();
    for (entry, node) in unpacked.tree.into_entries() {
        let Some(inner) = entry.path().below(prefix) else { continue };
        place(path, entry.path(), inner, node, &mut services)?;
    }
    let release = release.map(|text| told(path, &text)).transpose()?;
    for (service, files) in &mut services {
        files.release = release;
        let binary = binary_path(*service);
        match files.tree.get(&binary) {
            Some(TreeNode::File { content, .. }) if content.size > 0 => {}
            _ => {
                let binary = binary.trim_start_matches(&TARS_PATH[1..]).trim_start_matches('/').to_owned();
                return Err(PackageError::NoBinary { path: path.to_owned(), binary });
            }
        }
    }
    Ok(Package { path: path.to_owned(), digest: unpacked.digest, services })
}

/// The release that the file of a packed install tree names.
fn told(path: &Path, file: &TreeNode) -> Result<Version, PackageError> {
    let mut text = Vec::new();
    let read = match file {
        TreeNode::File { content, .. } => content.open().take(limits::TEXT.value()).read_to_end(&mut text),
        _ => Ok(0),
    };
    let version = read.and_then(|_| version::of_text(&text));
    version.map_err(|error| PackageError::Layout {
        path: path.to_owned(),
        entry: version::FILE.to_owned(),
        why: format!("does not tell a release: {error}"),
        hint: "it is what `make install` writes: one version such as 3.0.17; leave it out otherwise"
            .to_owned(),
    })
}

/// What a package that is a file says of its release.
///
/// # Errors
/// A package that cannot be used.
pub fn release(path: &Path) -> Result<Option<Version>, PackageError> {
    Ok(read(path)?.services.values().find_map(|files| files.release))
}

/// Reads a package, or takes what is known of it where its bytes were read before.
pub fn read_or_recall(path: &Path, hints: &Hints) -> Result<Package, PackageError> {
    if path.is_file() {
        let failed = |source| UnpackError::Read { path: path.to_owned(), source };
        let digest = hints.digest(path).map_err(failed)?;
        if let Some(services) = hints.services(&digest) {
            let services = services.into_iter().collect();
            return Ok(Package { path: path.to_owned(), digest: Some(digest), services });
        }
    }
    let package = read(path)?;
    if let Some(digest) = &package.digest {
        hints.learn_services(digest, package.services.iter());
    }
    Ok(package)
}

/// Where the program of a service lies in the image, without leading slash.
pub(super) fn binary_path(service: Service) -> String {
    format!("{}/{service}/bin/{service}", &TARS_PATH[1..])
}

/// What stands before the services in a packed install tree; the root in every other layout.
fn install_prefix(tree: &Tree) -> ImagePath<'static> {
    const PREFIXES: [ImagePath<'static>; 2] =
        [ImagePath::known("framework/servers"), ImagePath::known("deploy/framework/servers")];
    PREFIXES.into_iter().find(|prefix| tree.has_below(prefix)).unwrap_or(ImagePath::ROOT)
}

/// Puts one entry to its place in the image.
fn place(
    path: &Path,
    entry: ImagePath<'_>,
    inner: ImagePath<'_>,
    mut node: TreeNode,
    services: &mut BTreeMap<Service, ServiceFiles>,
) -> Result<(), PackageError> {
    let layout = |why: String, hint: &str| PackageError::Layout {
        path: path.to_owned(),
        entry: unpack::quoted(entry.as_bytes()),
        why,
        hint: hint.to_owned(),
    };
    let (name, rest) = inner.as_str().split_once('/').unwrap_or((inner.as_str(), ""));
    let service: Service = name.parse().map_err(|_| {
        layout(
            format!("belongs to `{name}`, which is not a TARS framework service"),
            "leave the package out; services of your own are published through the web",
        )
    })?;
    let files = services.entry(service).or_default();
    if rest.is_empty() {
        return match node {
            TreeNode::Directory { .. } => Ok(()),
            _ => Err(layout("is no folder".to_owned(), "make the package again with `make X-tar`")),
        };
    }
    let target = image_path(service, rest, &node)
        .map_err(|why| layout(format!("{why}, where it lies in the image"), "give it a shorter name"))?;
    if *target == *binary_path(service)
        && let TreeNode::File { mode, content } = &mut node
    {
        // A program is a program, whatever the umask of whoever packed it.
        *mode = 0o755 | *mode & BITS;
        files.built = content.modified.into();
    }
    files.tree.insert(target.path(), node).map_err(|taken| {
        layout(
            format!("wants the place of another one, /{}", taken.path),
            "the package mixes two layouts: make it again from a clean folder",
        )
    })
}

/// `X/X` and whatever stands beside it goes to `bin`; `data` to the installer's tree, as `tarsnode/data` is a link
/// into the volume; everything else keeps its name.
fn image_path(service: Service, rest: &str, node: &TreeNode) -> Result<ImagePathBuf, Unfit> {
    let first = rest.split('/').next().unwrap_or(rest);
    let app = TARS_PATH;
    if first == "data" {
        return ImagePathBuf::parse(format!("{DEPLOY_PATH}/framework/servers/{service}/{rest}"));
    }
    let beside_the_program = !rest.contains('/') && !matches!(node, TreeNode::Directory { .. });
    let folder = if beside_the_program { "/bin" } else { "" };
    ImagePathBuf::parse(format!("{app}/{service}{folder}/{rest}"))
}

/// One service, one package.
pub fn by_service(
    packages: Vec<Package>,
) -> Result<BTreeMap<Service, (PathBuf, ServiceFiles)>, PackageError> {
    let mut services: BTreeMap<Service, (PathBuf, ServiceFiles)> = BTreeMap::new();
    for package in packages {
        for (service, files) in package.services {
            if let Some((first, _)) = services.get(&service) {
                return Err(PackageError::Twice { first: first.clone(), second: package.path, service });
            }
            services.insert(service, (package.path.clone(), files));
        }
    }
    Ok(services)
}

/// Services whose program is older than the newest one by more than a build takes: `make X-tar` leaves an existing package
/// alone, so it may be of the version before.
pub fn stale(services: &BTreeMap<Service, (PathBuf, ServiceFiles)>) -> Option<String> {
    // All of them are made in minutes; an hour is for a slow machine.
    const HOUR: u64 = 3600;
    let newest = services.values().map(|(_, files)| files.built).max()?;
    let age = |built: u64| newest - built;
    let old = services.iter().filter(|(_, (_, files))| files.built > 0 && age(files.built) > HOUR);
    let old: Vec<(&Service, &PathBuf, u64)> =
        old.map(|(service, (path, files))| (service, path, age(files.built))).collect();
    match old.as_slice() {
        [] => None,
        [(service, path, age)] => Some(format!(
            "{}: {service} was built {} before the newest of the services; if it ought to be of the same build, delete the \
             package and run `make {service}-tar`",
            shown(path),
            span(*age)
        )),
        several => {
            let names: Vec<&str> = several.iter().map(|(service, _, _)| service.name()).collect();
            let ages = || several.iter().map(|(_, _, age)| *age);
            let (least, most) = (span(ages().min().unwrap_or(0)), span(ages().max().unwrap_or(0)));
            let ages = if least == most { least } else { format!("{least} to {most}") };
            Some(format!(
                "{} were built {ages} before the newest of the services; if they ought to be of the same build, delete \
                 their packages and run `make SERVICE-tar` for each",
                names.join(", ")
            ))
        }
    }
}

/// A time in seconds, as a person says it.
fn span(seconds: u64) -> String {
    match seconds / 3600 {
        1 => "1 hour".to_owned(),
        hours @ ..48 => format!("{hours} hours"),
        hours => format!("{} days", hours / 24),
    }
}

const WEB: ImagePath<'static> = ImagePath::known(WEB_PATH);

/// The web console's package, and the digest of its bytes, or a folder: its files lie at the root, or below one folder. With
/// hints, what is known of bytes that were read before is enough.
pub fn read_web(path: &Path, hints: Option<&Hints>) -> Result<(Tree, Option<Digest>), PackageError> {
    let failed = |source| UnpackError::Read { path: path.to_owned(), source };
    if let Some(hints) = hints.filter(|_| path.is_file()) {
        let digest = hints.digest(path).map_err(failed)?;
        if let Some(tree) = hints.web(&digest) {
            return Ok((tree, Some(digest)));
        }
    }
    if path.is_dir() {
        let make = || console(path, host::read_folder(path)?.tree);
        let tree = match hints {
            Some(hints) => hints.tree("web", &[path.to_owned()], make),
            None => make(),
        };
        return Ok((tree?, None));
    }
    let unpacked = unpack::read_archive(path)?;
    let tree = console(path, unpacked.tree)?;
    if let Some((hints, digest)) = hints.zip(unpacked.digest) {
        hints.learn_web(&digest, &tree);
    }
    Ok((tree, unpacked.digest))
}

/// The files of a console at their place in the image.
fn console(path: &Path, tree: Tree) -> Result<Tree, PackageError> {
    let tops = tree.iter().filter(|(entry, _)| !entry.contains('/')).take(2);
    let prefix = match tops.collect::<Vec<_>>().as_slice() {
        [(only, TreeNode::Directory { .. })] => only.clone(),
        _ => ImagePathBuf::default(),
    };
    tree.moved(prefix.path(), WEB).map_err(|(entry, why)| PackageError::Layout {
        path: path.to_owned(),
        entry: unpack::quoted(entry.as_bytes()),
        why: format!("{why}, where it lies in the image"),
        hint: "give it a shorter name".to_owned(),
    })
}
