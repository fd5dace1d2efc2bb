//! What a build reads whole, side by side: the web console, the base's bytes, the packages, the deploy folder and tars-init; or
//! what is known of them.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroUsize;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::SystemTime;

use super::base::Rootfs;
use super::hints::Hints;
use super::package::{self, Package, PackageError};
use super::recipe::{Base, Recipe};
use super::tree::Tree;
use super::unpack::UnpackError;
use super::{BuildError, Settings, check, init_of, parallel, skeleton};
use crate::oci::Digest;

/// Whether what is known of an input spares its reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// What was read before is recalled, without its bytes.
    Recalling,
    /// Everything is read.
    Everything,
}

/// How inputs are read.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// So many at once.
    pub threads: NonZeroUsize,
    /// Whether what is known is enough.
    pub reading: Reading,
    /// The base's blob is not made here, as far as is known: its names are asked for, and found by the reading that hashes it.
    pub asks_names: bool,
}

/// Inputs that are being read while a predecessor is, or a base that lies elsewhere.
pub struct Begun(JoinHandle<(Inputs, Hints)>);

impl Begun {
    /// Begins to read what the recipe names; `None` where [`super::prepare`] will say what is wrong with it. `after` says whether there
    /// will be a predecessor.
    pub fn reading(recipe: &Recipe, settings: &Settings, after: bool) -> Option<Self> {
        check::keys(recipe).ok()?;
        let init = init_of(recipe, settings).ok()?;
        let manner = Manner { threads: settings.threads, reading: Reading::Recalling, asks_names: after };
        let (recipe, hints) = (recipe.clone(), Hints::new(&settings.cache));
        Some(Self(thread::spawn(move || (read((&recipe, init.as_deref()), manner, &hints), hints))))
    }

    /// What was read, and learned on the way.
    pub(super) fn end(self) -> (Inputs, Hints) {
        self.0.join().unwrap_or_else(|panic| resume_unwind(panic))
    }
}

/// What was read, each to be taken when its turn has come: a person hears of a package before the base.
pub struct Inputs {
    /// The packages, in the recipe's order.
    pub packages: Vec<Result<Package, PackageError>>,
    /// A base that is a root file system.
    pub base: Option<Result<Rootfs, BuildError>>,
    /// The web console, and the digest of its package.
    pub web: Option<Result<(Tree, Option<Digest>), PackageError>>,
    /// Of the folder with configuration templates and SQL.
    pub deploy: Option<Result<Tree, BuildError>>,
    /// tars-init, and what comes with it.
    pub init: Option<Result<Tree, UnpackError>>,
}

enum Input<'r> {
    Web(&'r Path),
    Base(&'r Path),
    /// And its place in the recipe.
    Package(usize, &'r Path),
    Deploy(&'r Path),
    Init(&'r Path),
}

enum Output {
    Web(Result<(Tree, Option<Digest>), PackageError>),
    Base(Result<Rootfs, BuildError>),
    Package(usize, Result<Package, PackageError>),
    Deploy(Result<Tree, BuildError>),
    Init(Result<Tree, UnpackError>),
}

/// Reads them, the largest first, and of the packages the newest: what was made last is what has to be read whole, if anything,
/// while the others are merely hashed.
pub fn read(
    (recipe, init): (&Recipe, Option<&Path>),
    Manner { threads, reading, asks_names }: Manner,
    hints: &Hints,
) -> Inputs {
    let _span = tracing::debug_span!("read", what = "the packages").entered();
    let mut wanted: Vec<Input<'_>> = recipe.web.iter().map(|path| Input::Web(path)).collect();
    if let Base::Rootfs(path) = &recipe.base {
        wanted.push(Input::Base(path));
    }
    let mut packages: Vec<(usize, &PathBuf)> = recipe.packages.iter().enumerate().collect();
    packages.sort_by_key(|(_, path)| Reverse(modified(path)));
    wanted.extend(packages.into_iter().map(|(place, path)| Input::Package(place, path)));
    wanted.extend(recipe.deploy.iter().map(|path| Input::Deploy(path)));
    wanted.extend(init.map(Input::Init));
    let known = (reading == Reading::Recalling).then_some(hints);
    let read = |input: &Input<'_>| -> Result<Output, std::convert::Infallible> {
        Ok(match input {
            Input::Web(path) => Output::Web(package::read_web(path, known)),
            Input::Base(path) => Output::Base(Rootfs::find(path, hints, asks_names)),
            Input::Package(place, path) => {
                let read = match known {
                    Some(hints) => package::read_or_recall(path, hints),
                    None => package::read(path),
                };
                Output::Package(*place, read)
            }
            Input::Deploy(path) => {
                let make = || skeleton::deploy(path, recipe.role);
                let (what, paths) =
                    (format!("deploy {}", recipe.role.name()), skeleton::inputs_of_deploy(path));
                Output::Deploy(known.map_or_else(make, |hints| hints.tree(&what, &paths, make)))
            }
            Input::Init(path) => {
                let on_scratch = recipe.base == Base::Scratch;
                let make = || skeleton::skeleton(path, recipe.role, on_scratch);
                let what = format!("init {} {on_scratch}", recipe.role.name());
                let paths = [path.to_path_buf()];
                Output::Init(known.map_or_else(make, |hints| hints.tree(&what, &paths, make)))
            }
        })
    };
    let mut inputs = Inputs { packages: Vec::new(), base: None, web: None, deploy: None, init: None };
    let Ok(outputs) = parallel(threads, &wanted, read);
    let mut packages = BTreeMap::new();
    for output in outputs {
        match output {
            Output::Web(web) => inputs.web = Some(web),
            Output::Base(base) => inputs.base = Some(base),
            Output::Package(place, package) => {
                packages.insert(place, package);
            }
            Output::Deploy(tree) => inputs.deploy = Some(tree),
            Output::Init(tree) => inputs.init = Some(tree),
        }
    }
    inputs.packages = packages.into_values().collect();
    inputs
}

/// When a file or folder was last changed, as far as that is known.
fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::recipe::Overrides;
    use super::*;
    use crate::diagnose::Diagnose as _;
    use crate::store::Cache;

    #[test]
    fn packages_come_in_the_recipes_order_whichever_is_the_newest() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let names = ["a.tgz", "b.tgz", "c.tgz"];
        let recipe =
            "name: x/f\nversion: 1\nrole: framework\nbase: scratch\npackages: [a.tgz, b.tgz, c.tgz]\n";
        fs::write(path("recipe.yaml"), recipe).unwrap();
        let cache = Cache::at(path("cache"));
        for newest in names {
            for name in names {
                fs::write(path(name), "no package").unwrap();
                let age = Duration::from_secs(if name == newest { 10 } else { 100 });
                let file = fs::File::options().write(true).open(path(name)).unwrap();
                file.set_modified(SystemTime::now() - age).unwrap();
            }
            let recipe = Recipe::read(&path("recipe.yaml"), &Overrides::default()).unwrap();
            let hints = Hints::new(&cache);
            let manner =
                Manner { threads: NonZeroUsize::MIN, reading: Reading::Recalling, asks_names: false };
            let read = read((&recipe, None), manner, &hints);
            let places = read.packages.into_iter().map(|package| package.unwrap_err().place().unwrap().file);
            let expected = names.map(path);
            assert_eq!(places.collect::<Vec<_>>(), expected, "{newest}");
        }
    }
}
