//! What a role needs: refused before anything is written.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::base::Contents;
use super::recipe::{ImageRole, Recipe};
use super::tree::{Node, Tree};
use crate::diagnose::{Diagnose, Exit, Place};
use crate::tars::Service;
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
    #[error("{}: there is no `{missing}` in it, which role {} needs", folder.display(), role.name())]
    Deploy {
        /// The folder.
        folder: PathBuf,
        /// What is missing.
        missing: String,
        /// The role.
        role: ImageRole,
    },
    /// tars-init is not there.
    #[error("there is no tars-init at {}", path.display())]
    NoInit {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// tars-init needs a loader that the base does not have.
    #[error("{} is dynamically linked, and `base: scratch` has no loader for it", path.display())]
    DynamicInit {
        /// The program.
        path: PathBuf,
    },
    /// Two files for one path.
    #[error("{}: the place {path} is taken", file.display())]
    Taken {
        /// The path in the image.
        path: String,
        /// What wants it.
        file: PathBuf,
    },
    /// A layer would put files below a link of the base.
    #[error("layer {layer} puts files below /{link}, which is a link in the base")]
    BelowLink {
        /// The layer.
        layer: String,
        /// The base's link.
        link: String,
        /// The base.
        base: PathBuf,
    },
    /// A file or link would replace a folder of the base, with all that is in it.
    #[error("layer {layer} puts a file at /{path}, which is a folder in the base")]
    OverFolder {
        /// The layer.
        layer: String,
        /// The folder.
        path: String,
        /// The base.
        base: PathBuf,
    },
}

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
            Self::NoInit { .. } => {
                "install tars-init beside tarsup, or name it with `init:` in the recipe".to_owned()
            }
            Self::DynamicInit { .. } => {
                "name a statically linked one with `init:` in the recipe; docs/recipe.md says how it is built statically".to_owned()
            }
            Self::Taken { .. } => "give each file a place of its own".to_owned(),
            Self::BelowLink { link, .. } => format!("write the path that /{link} leads to, or use a base where it is a folder"),
            Self::OverFolder { .. } => "end the path with a file's name".to_owned(),
        })
    }

    fn place(&self) -> Option<Place> {
        match self {
            Self::Missing { recipe, .. }
            | Self::Key { recipe, .. }
            | Self::Useless { recipe, .. }
            | Self::Rebuild { recipe, .. }
            | Self::Label { recipe, .. } => Some(Place::file(recipe)),
            Self::Deploy { folder: path, .. }
            | Self::NoInit { path }
            | Self::DynamicInit { path }
            | Self::Taken { file: path, .. }
            | Self::BelowLink { base: path, .. }
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

/// Refuses a layer that would replace a link of the base by a folder, such as `/lib` on merged-usr systems, or a folder
/// by a file.
pub fn on_base(layer: &str, tree: &Tree, base: &Contents, file: &std::path::Path) -> Result<(), CheckError> {
    for (path, node) in tree.iter() {
        let (layer, base_file) = (layer.to_owned(), file.to_owned());
        match node {
            Node::Directory { .. } if base.links.contains(path) => {
                return Err(CheckError::BelowLink { layer, link: path.to_owned(), base: base_file });
            }
            Node::File { .. } | Node::Link { .. } if base.folders.contains_key(path) => {
                return Err(CheckError::OverFolder { layer, path: path.to_owned(), base: base_file });
            }
            _ => {}
        }
    }
    Ok(())
}
