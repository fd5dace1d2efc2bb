//! Which package a layer was made of, as this machine saw it: a hint in the cache, for images that lie where nothing can be noted
//! beside them.

use std::collections::BTreeMap;

use crate::build::{Packed, UsedPackage};
use crate::contents::Contents;
use crate::oci::Digest;
use crate::store::{self, Cache};

fn key(layer: &Digest) -> Digest {
    Digest::of(format!("tarsup package of a layer 1\n{layer}\n"))
}

/// Notes the packages of the layers that are here now. That it cannot be written is no failure.
pub(super) fn note(packages: &[UsedPackage], layers: &[Packed]) {
    let Ok(folder) = store::cache_folder() else { return };
    let cache = Cache::at(folder);
    for package in packages {
        // Of a service that was patched again and again, the last layer is what the package made.
        let made = package.layers.iter().filter_map(|name| layers.iter().rfind(|layer| layer.name == *name));
        for layer in made {
            let key = key(&layer.diff_id);
            if cache.recall(&key) != Some(package.digest)
                && let Err(error) = cache.note(&key, &package.digest)
            {
                tracing::debug!(%error, "the package of a layer is not noted");
            }
        }
    }
}

/// Name of a part → the package that its last layer was made of, where this machine made it.
pub(super) fn of(contents: &Contents) -> BTreeMap<String, Digest> {
    let Ok(folder) = store::cache_folder() else { return BTreeMap::new() };
    let cache = Cache::at(folder);
    let known =
        |(name, layers): (&String, &Vec<Digest>)| Some((name.clone(), cache.recall(&key(layers.last()?))?));
    contents.parts.iter().map(|(name, part)| (name, &part.layers)).filter_map(known).collect()
}
