//! Whether every blob of the store and the cache is what its name says: all of them are read, whatever is remembered of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::proven::open_regular;
use super::{Layout, StoreError};
use crate::oci::{Digest, HashingReader};

/// A blob that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// Where it lies, or should lie.
    pub path: PathBuf,
    /// What is wrong with it.
    pub why: String,
    /// The names of the store's images that need it.
    pub images: Vec<String>,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Blobs that were read.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those that are wrong, or not there.
    pub damaged: Vec<Damaged>,
}

/// Reads all blobs of the store and of the cache's folder.
///
/// # Errors
/// A folder that cannot be listed, or an index that cannot be read. A blob that cannot be read is a finding.
pub fn verify(store: &Layout, cache: &Path) -> Result<Verified, StoreError> {
    let mut verified = Verified::default();
    let needed = needed(store, &mut verified)?;
    let mut present = BTreeSet::new();
    for root in [store.root(), cache] {
        let folder = root.join("blobs/sha256");
        let failed = |source| StoreError::Io { act: "list", path: folder.clone(), source };
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries.map_err(failed)?,
        };
        let mut paths =
            entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>().map_err(failed)?;
        paths.sort();
        for path in paths {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            // What is being written has another name.
            let Ok(digest) = format!("sha256:{name}").parse::<Digest>() else { continue };
            let is_of_store = root == store.root();
            if is_of_store {
                present.insert(digest);
            }
            if let Some(why) = wrong(&path, &digest, &mut verified) {
                let images = needed.get(&digest).filter(|_| is_of_store).cloned().unwrap_or_default();
                verified.damaged.push(Damaged { path, why, images });
            }
        }
    }
    for (digest, images) in needed.into_iter().filter(|(digest, _)| !present.contains(digest)) {
        let (path, why) = (store.blob(&digest), "it is not there".to_owned());
        verified.damaged.push(Damaged { path, why, images });
    }
    Ok(verified)
}

/// Blob → the images of the store that need it. An image whose documents cannot be read is a finding of its own.
fn needed(store: &Layout, verified: &mut Verified) -> Result<BTreeMap<Digest, Vec<String>>, StoreError> {
    let mut needed: BTreeMap<Digest, Vec<String>> = BTreeMap::new();
    let listed = match store.list() {
        Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Vec::new(),
        listed => listed?,
    };
    for (name, descriptor) in listed {
        let name = name.unwrap_or_else(|| descriptor.digest.short());
        match store.image(&descriptor) {
            Ok(image) => {
                let layers = image.layers.iter().map(|layer| layer.descriptor.digest);
                let documents = [descriptor.digest, image.digest(), image.config_digest()];
                for digest in layers.chain(documents).collect::<BTreeSet<_>>() {
                    needed.entry(digest).or_default().push(name.clone());
                }
            }
            Err(error) => {
                let path = store.blob(&descriptor.digest);
                verified.damaged.push(Damaged { path, why: error.to_string(), images: vec![name] });
            }
        }
    }
    Ok(needed)
}

/// What is wrong with a blob; `None` where its bytes are those of its name.
fn wrong(path: &Path, digest: &Digest, verified: &mut Verified) -> Option<String> {
    let read = || {
        let mut reader = HashingReader::new(open_regular(path)?);
        let mut buffer = vec![0; 1024 * 1024];
        while reader.read(&mut buffer)? > 0 {}
        Ok::<_, io::Error>(reader.finish())
    };
    match read() {
        Ok((found, bytes)) => {
            verified.blobs += 1;
            verified.bytes += bytes;
            (found != *digest).then(|| format!("its bytes are {found}"))
        }
        Err(error) => Some(error.to_string()),
    }
}
