//! The npm packages of a tree: each is read once, when its `package.json` comes to lie where npm installs it.

use std::io::Read as _;
use std::ops::Deref;
use std::sync::Arc;

use super::tree::TreeNode;
use crate::contents::npm::{self, LARGEST, MANIFEST, Module};
use crate::paths::{ImagePath, Share};
use crate::tars::catalogue::WEB_PATH;

/// The web console, which is a package itself.
const WEB: ImagePath<'static> = ImagePath::known(WEB_PATH);

/// What a package says of itself, with its share of what may be in memory.
#[derive(Debug)]
pub struct KnownModule {
    module: Module,
    /// Until it is dropped.
    _share: Share,
}

impl KnownModule {
    /// It counts twice: once in its tree, and once in the list while that is written.
    pub(super) fn of(module: Module) -> Arc<Self> {
        /// What it takes besides its texts and those of its path: three texts, a path, and their places.
        const BESIDE: usize = 224;
        let weight = 2 * (module.text_length() + BESIDE);
        Arc::new(Self { _share: Share::of(weight as u64), module })
    }
}

impl Deref for KnownModule {
    type Target = Module;

    fn deref(&self) -> &Module {
        &self.module
    }
}

/// The folder of a package, where a path is the `package.json` that counts.
pub(super) fn folder(path: ImagePath<'_>) -> Option<ImagePath<'_>> {
    let is_own = path.folder() == WEB && path.name().as_str() == MANIFEST;
    npm::installed(path).or_else(|| is_own.then(|| path.folder()))
}

/// Reads what a node says, where its path says that it is a package's. One that cannot be understood tells nothing, and one whose
/// bytes cannot be read fails where its layer is made.
pub(super) fn learn(path: ImagePath<'_>, node: &mut TreeNode) {
    let TreeNode::File { content, .. } = node else { return };
    if content.module.is_some() || content.size > LARGEST || folder(path).is_none() {
        return;
    }
    let mut bytes = Vec::new();
    let read = content.open().read_to_end(&mut bytes);
    content.module = read.ok().and_then(|_| Module::read(&bytes)).map(KnownModule::of);
}
