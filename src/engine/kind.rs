//! What an engine is: as it says itself, and as the answer about one of its images tells.

use serde_json::Value;

use super::EngineImage;

/// How an engine stores images: decides what an incremental load must contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageStore {
    /// Graph drivers: layers are looked up by chain id.
    Classic,
    /// containerd's store: blobs are looked up by compressed digest.
    Containerd,
}

/// `GET /version` and `GET /info`, as far as they matter.
#[derive(Clone, Debug)]
pub struct EngineInfo {
    /// The engine's id: the same on every connection to it.
    pub id: String,
    /// The engine's version, such as `20.10.24`.
    pub version: String,
    /// The API version in use, such as `1.41`.
    pub api_version: String,
    /// `amd64`, `arm64`, ... as in image configs.
    pub architecture: String,
    /// How it stores images.
    pub image_store: ImageStore,
    /// Its root directory on the engine's host.
    pub data_root: String,
    /// True where it is spoken to through a socket of this machine.
    pub is_near: bool,
}

/// What an engine says of itself as a connection to it is made: the headers of `GET /_ping`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Greeting {
    /// The engine's version, such as `20.10.24`, where it is Docker's and says so.
    pub version: Option<String>,
    /// True where it is spoken to through a socket of this machine.
    pub is_near: bool,
}

impl EngineImage {
    /// How the engine stores images, where its answer tells. containerd's store calls an image by its manifest's digest, which it has
    /// among `RepoDigests` too; a classic one by that of the config. `overlay2` is a graph driver of Docker's own: what containerd has in
    /// its place is called `overlayfs`.
    pub fn store(&self) -> Option<ImageStore> {
        let text = |pointer: &str| self.raw.pointer(pointer).and_then(Value::as_str);
        let digests = self.raw.pointer("/RepoDigests").and_then(Value::as_array);
        let is_manifest = |named: &Value| {
            named
                .as_str()
                .and_then(|named| named.rsplit_once('@'))
                .is_some_and(|(_, digest)| digest == self.id)
        };
        if digests.into_iter().flatten().any(is_manifest) {
            return Some(ImageStore::Containerd);
        }
        (text("/GraphDriver/Name") == Some("overlay2")).then_some(ImageStore::Classic)
    }
}
