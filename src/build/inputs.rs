//! What a build reads whole, side by side: the web console, the base's bytes, the packages, the deploy folder and tars-init; or
//! what is known of them.

use std::path::Path;

use super::base::Rootfs;
use super::hints::Hints;
use super::package::{self, Package, PackageError};
use super::recipe::{Base, Recipe};
use super::tree::Tree;
use super::unpack::UnpackError;
use super::{BuildError, Settings, parallel, skeleton};
use crate::oci::Digest;

/// Whether what is known of an input spares its reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// What was read before is recalled, without its bytes.
    Recalling,
    /// Everything is read.
    Everything,
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
    Package(&'r Path),
    Deploy(&'r Path),
    Init(&'r Path),
}

enum Output {
    Web(Result<(Tree, Option<Digest>), PackageError>),
    Base(Result<Rootfs, BuildError>),
    Package(Result<Package, PackageError>),
    Deploy(Result<Tree, BuildError>),
    Init(Result<Tree, UnpackError>),
}

/// Reads them, the largest first.
pub fn read(
    (recipe, init): (&Recipe, Option<&Path>),
    settings: &Settings,
    hints: &Hints<'_>,
    reading: Reading,
) -> Inputs {
    let mut wanted: Vec<Input<'_>> = recipe.web.iter().map(|path| Input::Web(path)).collect();
    if let Base::Rootfs(path) = &recipe.base {
        wanted.push(Input::Base(path));
    }
    wanted.extend(recipe.packages.iter().map(|path| Input::Package(path)));
    wanted.extend(recipe.deploy.iter().map(|path| Input::Deploy(path)));
    wanted.extend(init.map(Input::Init));
    let known = (reading == Reading::Recalling).then_some(hints);
    let read = |input: &Input<'_>| -> Result<Output, std::convert::Infallible> {
        Ok(match input {
            Input::Web(path) => Output::Web(package::read_web(path, known)),
            Input::Base(path) => Output::Base(Rootfs::find(path, hints)),
            Input::Package(path) => Output::Package(match known {
                Some(hints) => package::read_or_recall(path, hints),
                None => package::read(path),
            }),
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
    let Ok(outputs) = parallel(settings.threads, &wanted, read);
    for output in outputs {
        match output {
            Output::Web(web) => inputs.web = Some(web),
            Output::Base(base) => inputs.base = Some(base),
            Output::Package(package) => inputs.packages.push(package),
            Output::Deploy(tree) => inputs.deploy = Some(tree),
            Output::Init(tree) => inputs.init = Some(tree),
        }
    }
    inputs
}
