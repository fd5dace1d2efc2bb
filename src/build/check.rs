//! What a role needs: refused before anything is written.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::base::BasePaths;
use super::listing;
use super::recipe::{ImageRole, Recipe};
use super::tree::{Content, Tree, TreeNode};
use crate::contents::meeting::{Meeting, Outcome, outcome};
use crate::contents::{Kind, LAYER};
use crate::diagnose::{Diagnose, Exit, Place, shown};
use crate::paths::{ImagePath, ImagePathBuf, Lost, Unfit};
use crate::tars::Service;
use crate::tars::catalogue::WEB_PATH;
use crate::tars::rebuild::{DROPPED_SCHEMAS, REBUILD, is_allowed};

/// Why an image of this role cannot be made of these inputs.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// Services that the role runs, and no package brings.
    #[error("role {} needs {}, and no package brings {}", role.name(), names(missing), if missing.len() == 1 { "it" } else { "them" })]
    Missing {
        /// The recipe.
        recipe: PathBuf,
        /// The role.
        role: ImageRole,
        /// The services.
        missing: Vec<Service>,
    },
    /// A key that the role needs.
    #[error("role {} needs `{key}`", role.name())]
    Key {
        /// The recipe.
        recipe: PathBuf,
        /// The role.
        role: ImageRole,
        /// The key.
        key: &'static str,
        /// What to do.
        hint: String,
    },
    /// A key that the role has no use for.
    #[error("role {} has no use for `{key}`", role.name())]
    Useless {
        /// The recipe.
        recipe: PathBuf,
        /// The role.
        role: ImageRole,
        /// The key.
        key: &'static str,
    },
    /// The image itself would carry a value of `REBUILD` that drops databases.
    #[error("`env: {{REBUILD: {value}}}` would make every start of the image drop the databases {}", DROPPED_SCHEMAS.join(", "))]
    Rebuild {
        /// The recipe.
        recipe: PathBuf,
        /// The value.
        value: String,
    },
    /// A label that tarsup itself sets.
    #[error("the label `{label}` is tarsup's own")]
    Label {
        /// The recipe.
        recipe: PathBuf,
        /// The label.
        label: String,
    },
    /// The `deploy` folder lacks something.
    #[error("{}: there is no `{missing}` in it, which role {} needs", shown(folder), role.name())]
    Deploy {
        /// The folder.
        folder: PathBuf,
        /// What is missing.
        missing: String,
        /// The role.
        role: ImageRole,
    },
    /// The web console's package lacks what it cannot start without.
    #[error(
        "{}: there is no `{missing}` in it, without which the web console does not start",
        shown(package)
    )]
    Web {
        /// The package.
        package: PathBuf,
        /// What is missing.
        missing: String,
    },
    /// Nothing that could run the web console.
    #[error("`web` needs node.js, and neither {} nor `files` has a program `node`", base.as_deref().map_or_else(|| "`base: scratch`".to_owned(), |base| shown(base).to_string()))]
    NoNode {
        /// The recipe.
        recipe: PathBuf,
        /// The base, if there is one.
        base: Option<PathBuf>,
    },
    /// tars-init is not there.
    #[error("there is no tars-init at {}", shown(path))]
    NoInit {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// tars-init needs a loader that the base does not have.
    #[error("{} is dynamically linked, and `base: scratch` has no loader for it", shown(path))]
    DynamicInit {
        /// The program.
        path: PathBuf,
    },
    /// Two files for one path.
    #[error("{}: the place {} is taken", shown(file), shown(path))]
    Taken {
        /// The path in the image.
        path: String,
        /// What wants it.
        file: PathBuf,
    },
    /// The way to a file leads through links of the base that lead in a circle.
    #[error("layer {layer} puts a file at /{}, and the links on its way lead in a circle", shown(path))]
    Circle {
        /// The layer.
        layer: String,
        /// The path.
        path: String,
        /// The base.
        base: PathBuf,
    },
    /// A folder would replace a file of the base.
    #[error("layer {layer} has a folder at /{}, which is a file in the base", shown(path))]
    OverFile {
        /// The layer.
        layer: String,
        /// The file.
        path: String,
        /// The base.
        base: PathBuf,
    },
    /// No image can hold a file of this name.
    #[error("layer {layer}: /{} {why}", shown(&path.chars().take(200).collect::<String>()))]
    Name {
        /// The layer.
        layer: String,
        /// The path in the image.
        path: String,
        /// What is wrong with it.
        why: Unfit,
        /// The recipe.
        recipe: PathBuf,
    },
    /// The same for one file of the host, or of a folder there.
    #[error("{} cannot lie at {}, which {why}", shown(&file.as_os_str().to_string_lossy().chars().take(200).collect::<String>()), shown(&path.chars().take(200).collect::<String>()))]
    Place {
        /// The file.
        file: PathBuf,
        /// The path in the image.
        path: String,
        /// What is wrong with it.
        why: Unfit,
    },
    /// Two layers put different things at one path: which one shows would depend on their order.
    #[error("layers {first} and {second} both have /{}, with different contents", shown(path))]
    TwoLayers {
        /// The layer below.
        first: String,
        /// The layer above.
        second: String,
        /// The path in the image.
        path: String,
        /// The recipe.
        recipe: PathBuf,
    },
    /// A program or library for another machine.
    #[error("layer {layer}: /{} is made for {machine}, and the image is for {architecture}", shown(path))]
    Machine {
        /// The layer.
        layer: String,
        /// The path in the image.
        path: String,
        /// What it is made for.
        machine: String,
        /// What the image is for.
        architecture: String,
        /// The recipe, or the package.
        origin: PathBuf,
    },
    /// The base is made for another platform.
    #[error("the base {} is for {}, and the image is for {wanted}", shown(base), shown(found))]
    BaseMachine {
        /// As the recipe names it.
        base: String,
        /// Its platform.
        found: String,
        /// What the image is for.
        wanted: String,
        /// The recipe.
        recipe: PathBuf,
    },
    /// The base is no image to stand on.
    #[error("the base {} cannot be stood upon: {}", shown(base), shown(why))]
    BaseImage {
        /// As the recipe names it.
        base: String,
        /// Why not.
        why: String,
        /// The recipe.
        recipe: PathBuf,
    },
    /// A file or link would replace a folder of the base, with all that is in it.
    #[error("layer {layer} puts a file at /{}, which is a folder in the base", shown(path))]
    OverFolder {
        /// The layer.
        layer: String,
        /// The folder.
        path: String,
        /// The base.
        base: PathBuf,
    },
}

/// Where tars-init looks for a program: `PATH` of the images.
const SEARCH_PATH: [&str; 6] = ["usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin", "sbin", "bin"];

fn names(services: &[Service]) -> String {
    services.iter().map(|service| service.name()).collect::<Vec<_>>().join(", ")
}

impl Diagnose for CheckError {
    fn exit(&self) -> Exit {
        if matches!(self, Self::Rebuild { .. }) { Exit::Refused } else { Exit::Usage }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Missing { missing, .. } => {
                let core = missing.iter().any(|service| service.is_core());
                let target = missing.first().map_or("", |service| service.name());
                let bundle = if core { ", or `make framework-tar` for the core services" } else { "" };
                format!("run `make {target}-tar`{bundle}, and name the package in `packages`")
            }
            Self::Key { hint, .. } => hint.clone(),
            Self::Useless { key, .. } => format!("remove `{key}`, or use another role"),
            Self::Rebuild { .. } => {
                format!("remove `{REBUILD}` from `env`; unset, empty and `false` are what an image may have")
            }
            Self::Label { .. } => "remove it: labels that begin with io.tarsup. say what a container is".to_owned(),
            Self::Deploy { .. } => {
                "name the folder with conf/ and sql/ of the same version, such as deploy/framework of `make install`"
                    .to_owned()
            }
            Self::Web { missing, .. } if missing.contains("node_modules") => {
                "run `npm install --omit=dev` in TarsWeb's folder before it is packed".to_owned()
            }
            Self::Web { .. } => "name a package of TarsWeb's whole folder, with `bin/www` in it".to_owned(),
            Self::NoNode { .. } => {
                "use a base with node.js 18 or 20 (Debian: the package `nodejs`), or leave out `web`".to_owned()
            }
            Self::NoInit { .. } => {
                "install tars-init beside tarsup, or name it with `init:` in the recipe".to_owned()
            }
            Self::DynamicInit { .. } => {
                "name a statically linked one with `init:` in the recipe; docs/recipe.md says how it is built statically".to_owned()
            }
            Self::Taken { .. } => "give each file a place of its own".to_owned(),
            Self::Machine { machine, architecture, .. } => {
                format!("pack it for {architecture}, or build the image for its machine (--platform linux/{machine})")
            }
            Self::BaseMachine { .. } => {
                "take a base for this platform, or name another one with --platform".to_owned()
            }
            Self::BaseImage { .. } => "take another base".to_owned(),
            Self::Circle { .. } => "use a base whose links lead somewhere".to_owned(),
            Self::OverFile { .. } => "choose another path for it".to_owned(),
            Self::Name { .. } | Self::Place { .. } => "give it a name that fits".to_owned(),
            Self::TwoLayers { .. } => "leave one of them out: `files` cannot replace what packages and `deploy` bring".to_owned(),
            Self::OverFolder { .. } => "end the path with a file's name".to_owned(),
        })
    }

    fn place(&self) -> Option<Place> {
        match self {
            Self::Missing { recipe, .. }
            | Self::Key { recipe, .. }
            | Self::Useless { recipe, .. }
            | Self::Rebuild { recipe, .. }
            | Self::Label { recipe, .. }
            | Self::Name { recipe, .. }
            | Self::TwoLayers { recipe, .. }
            | Self::Machine { origin: recipe, .. }
            | Self::BaseMachine { recipe, .. }
            | Self::BaseImage { recipe, .. }
            | Self::NoNode { recipe, .. } => Some(Place::file(recipe)),
            Self::Deploy { folder: path, .. }
            | Self::Web { package: path, .. }
            | Self::NoInit { path }
            | Self::DynamicInit { path }
            | Self::Taken { file: path, .. }
            | Self::Place { file: path, .. }
            | Self::Circle { base: path, .. }
            | Self::OverFile { base: path, .. }
            | Self::OverFolder { base: path, .. } => Some(Place::file(path)),
        }
    }
}

/// The services that an image of this role holds.
pub fn services_of(role: ImageRole) -> &'static [Service] {
    match role {
        ImageRole::Framework => &Service::ALL,
        ImageRole::Node => &[Service::Node],
        ImageRole::Plain => &[],
    }
}

/// Refuses a recipe whose keys do not fit its role.
pub fn keys(recipe: &Recipe) -> Result<(), CheckError> {
    let Recipe { role, file, .. } = recipe;
    let rebuild = recipe.plain.env.get(REBUILD);
    if let Some(value) = rebuild.filter(|value| !is_allowed(Some(value))) {
        return Err(CheckError::Rebuild { recipe: file.clone(), value: value.clone() });
    }
    if let Some(label) = recipe.labels.keys().find(|label| label.starts_with("io.tarsup.")) {
        return Err(CheckError::Label { recipe: file.clone(), label: label.clone() });
    }
    let useless = match role {
        ImageRole::Plain => [
            ("packages", !recipe.packages.is_empty()),
            ("deploy", recipe.deploy.is_some()),
            ("web", recipe.web.is_some()),
        ]
        .into_iter()
        .find(|(_, present)| *present),
        ImageRole::Node => Some(("web", recipe.web.is_some())).filter(|(_, present)| *present),
        ImageRole::Framework => None,
    };
    if let Some((key, _)) = useless {
        return Err(CheckError::Useless { recipe: file.clone(), role: *role, key });
    }
    if *role != ImageRole::Plain && recipe.deploy.is_none() {
        return Err(CheckError::Key {
            recipe: file.clone(),
            role: *role,
            key: "deploy",
            hint:
                "name the folder with conf/ and sql/ of the same version: tars-init renders its configuration"
                    .to_owned(),
        });
    }
    Ok(())
}

/// Refuses a role without all of its services.
pub fn complete(recipe: &Recipe, present: &BTreeSet<Service>) -> Result<(), CheckError> {
    let missing: Vec<Service> =
        services_of(recipe.role).iter().copied().filter(|service| !present.contains(service)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(CheckError::Missing { recipe: recipe.file.clone(), role: recipe.role, missing })
}

/// Refuses a web console that could not start: without its program, or without what `npm install` brings.
pub fn web(package: &Path, tree: &Tree) -> Result<(), CheckError> {
    let below = |path: &str| format!("{}/{path}", &WEB_PATH[1..]);
    let missing = |what: String| Err(CheckError::Web { package: package.to_owned(), missing: what });
    if !matches!(tree.get(&below("bin/www")), Some(TreeNode::File { .. } | TreeNode::Link { .. })) {
        return missing("bin/www".to_owned());
    }
    if !tree.has_below(&below("node_modules")) {
        return missing("node_modules".to_owned());
    }
    Ok(())
}

/// Refuses a web console on a base without node.js, where nothing above it brings one.
pub fn node(
    recipe: &Recipe,
    base: Option<&Path>,
    contents: &BasePaths,
    layers: &[&Tree],
) -> Result<(), CheckError> {
    let has_node = SEARCH_PATH.iter().any(|folder| {
        let Some(led) = contents.led(&format!("{folder}/node")) else { return false };
        let is_file =
            |tree: &&Tree| matches!(tree.get(&led), Some(TreeNode::File { .. } | TreeNode::Link { .. }));
        contents.files.has(&led) || layers.iter().any(is_file)
    });
    if recipe.web.is_none() || has_node {
        return Ok(());
    }
    Err(CheckError::NoNode { recipe: recipe.file.clone(), base: base.map(Path::to_owned) })
}

/// A layer's tree as it comes to lie on the base: every path follows the links that are there, as `cp` would. `/bin/x` on
/// a merged-usr system is `/usr/bin/x`; a layer with a folder `/bin` would replace the link, and with it every program.
///
/// What may replace what, [`outcome`] says.
pub fn on_base(
    layer: &str,
    tree: &Tree,
    base: &BasePaths,
    file: &Path,
    recipe: &Path,
) -> Result<Tree, CheckError> {
    let mut placed: Option<Tree> = None;
    let mut way = Way { base, led_to: BTreeMap::new(), clear: None };
    for (path, node) in tree.iter() {
        let path = path.path();
        let target = way.place(path, node.kind()).map_err(|stray| stray.error(layer, path, file, recipe))?;
        // As long as nothing is led elsewhere, the tree as it is will do: it may be large.
        if target.path() == path && placed.is_none() {
            continue;
        }
        let before = || tree.iter().take_while(|(before, _)| before.path() != path);
        let placed = placed.get_or_insert_with(|| {
            let mut same = Tree::default();
            // What went together in one tree goes together in another.
            let _ = before().try_for_each(|(path, node)| same.insert(path.path(), node));
            same
        });
        if target.path().is_root() {
            continue;
        }
        placed.insert(target.path(), node).map_err(|taken| CheckError::Taken {
            path: format!("/{}", taken.path),
            file: recipe.to_owned(),
        })?;
    }
    Ok(placed.unwrap_or_else(|| tree.clone()))
}

/// The way of a tree's paths through a base. Every folder is a node of the tree, and comes before what is in it.
struct Way<'b> {
    base: &'b BasePaths,
    /// The folders that are led elsewhere: most are not.
    led_to: BTreeMap<ImagePathBuf, ImagePathBuf>,
    /// A folder of the tree where the base has nothing: there is nothing to ask of what lies below it.
    clear: Option<ImagePathBuf>,
}

/// Why something has no place on a base.
enum Stray {
    Lost(Lost),
    /// What is there, where, and stays.
    Refused(Kind, ImagePathBuf),
}

impl From<Lost> for Stray {
    fn from(lost: Lost) -> Self {
        Self::Lost(lost)
    }
}

impl Way<'_> {
    /// Where something of this kind comes to lie.
    fn place(&mut self, path: ImagePath<'_>, kind: Kind) -> Result<ImagePathBuf, Stray> {
        if self.clear.as_ref().is_some_and(|clear| path.below(clear.path()).is_some()) {
            return Ok(path.to_buf());
        }
        let folder = path.folder();
        let folder = self.led_to.get(folder.as_str()).map_or(folder, ImagePathBuf::path).to_buf();
        let led = match self.base.follow(folder.path(), &path.name()) {
            // A link to what no image can hold is no way to a folder.
            Err(Lost::Unfit(_)) if kind != Kind::Folder => None,
            led => Some(led?),
        };
        let there = led.as_ref().and_then(|led| self.base.kind(led));
        // A link at the very place is replaced by a file, unless it is the way to a folder.
        let place = match led {
            Some(led) if kind == Kind::Folder => led,
            _ => folder.path().join(path.name()).map_err(Lost::Unfit)?,
        };
        if let Some(old) = there.filter(|old| outcome(Meeting::OnBase, *old, kind) == Outcome::Refused) {
            return Err(Stray::Refused(old, place));
        }
        if kind == Kind::Folder {
            if place.path() != path {
                self.led_to.insert(path.to_buf(), place.clone());
            } else if there.is_none() {
                self.clear = Some(place.clone());
            }
        }
        Ok(place)
    }
}

impl Stray {
    fn error(self, layer: &str, path: ImagePath<'_>, base: &Path, recipe: &Path) -> CheckError {
        let (layer, base) = (layer.to_owned(), base.to_owned());
        match self {
            Self::Lost(Lost::Circle) => CheckError::Circle { layer, path: path.to_string(), base },
            Self::Lost(Lost::Unfit(why)) => {
                CheckError::Name { layer, path: path.to_string(), why, recipe: recipe.to_owned() }
            }
            Self::Refused(Kind::Folder, _) => CheckError::OverFolder { layer, path: path.to_string(), base },
            Self::Refused(_, place) => CheckError::OverFile { layer, path: place.into(), base },
        }
    }
}

/// The files of a layer with these parts of the list.
pub fn listed(parts: &BTreeMap<String, Content>, recipe: &Path) -> Result<Tree, CheckError> {
    listing::tree(parts).map_err(|(path, why)| CheckError::Name {
        layer: LAYER.to_owned(),
        path,
        why,
        recipe: recipe.to_owned(),
    })
}

/// Refuses two layers that have different things at one path: `--after` changes the order of layers, and may not change
/// what is in the image.
pub fn apart<'t>(layers: impl Iterator<Item = (&'t str, &'t Tree)>, recipe: &Path) -> Result<(), CheckError> {
    let layers: Vec<(&str, &Tree)> = layers.collect();
    for (index, (second, tree)) in layers.iter().enumerate() {
        // Every folder above a file is in its tree as well, so that paths alone need be compared.
        for (path, node) in tree.iter() {
            let other =
                |(_, tree): &&(&str, &Tree)| tree.get(&path).is_some_and(|other| !other.goes_with(&node));
            if let Some((first, _)) = layers[..index].iter().find(other) {
                return Err(CheckError::TwoLayers {
                    first: (*first).to_owned(),
                    second: (*second).to_owned(),
                    path: path.into(),
                    recipe: recipe.to_owned(),
                });
            }
        }
    }
    Ok(())
}
