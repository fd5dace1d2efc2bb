//! One tar that is both a docker-archive and an OCI layout: classic engines read `manifest.json`, containerd's image
//! store reads `index.json`.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use serde::Serialize;
use serde_json::json;

use super::{Forecast, Progress, Receipt, RegistryError, Result, Sink, TransportError};
use crate::oci::image::{ANNOTATION_CONTAINERD_NAME, ANNOTATION_REF_NAME};
use crate::oci::{Descriptor, Digest, HashingReader, Image, Layer, MediaType, Reference};

/// The one line of the file `oci-layout`.
const OCI_LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// What an archive is to hold: the image, its name, and which of its layers.
pub struct Archive<'a> {
    /// The image.
    pub image: &'a Image,
    /// The name under which it is loaded.
    pub reference: &'a Reference,
    /// Whether the layer at this index goes in. An engine that has the others takes the archive all the same.
    pub includes: &'a (dyn Fn(usize) -> bool + Sync),
}

/// Where an image comes from has not what it says: nothing is wrong with where it goes.
#[derive(Debug, thiserror::Error)]
pub enum Unsound {
    /// Other bytes, or fewer.
    #[error("the bytes of the layer {wanted} are other ones: {found}")]
    Other {
        /// What the manifest names.
        wanted: Digest,
        /// What came.
        found: Digest,
    },
    /// None at all.
    #[error("the bytes of the layer {wanted} cannot be read")]
    Unreadable {
        /// What the manifest names.
        wanted: Digest,
        /// Why not.
        source: io::Error,
    },
}

/// What a registry says of itself stays as it is.
pub(super) fn unsound(wanted: Digest, source: io::Error) -> io::Error {
    if source.get_ref().is_some_and(|inner| inner.downcast_ref::<RegistryError>().is_some()) {
        return source;
    }
    io::Error::new(io::ErrorKind::InvalidData, Unsound::Unreadable { wanted, source })
}

/// A layer that is read: whether it is reading or writing that fails must be told apart.
struct Layered<R> {
    wanted: Digest,
    reader: R,
}

impl<R: Read> Read for Layered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer).map_err(|error| unsound(self.wanted, error))
    }
}

/// The entry of `manifest.json` (docker's image spec v1.2).
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DockerManifest {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

impl DockerManifest {
    /// `manifest.json` of an image with this name: every layer, whether it is in the archive or not.
    pub(super) fn of(config: String, reference: &Reference, layers: Vec<String>) -> io::Result<Vec<u8>> {
        let tag = reference.tag.as_deref().unwrap_or("latest");
        let repo_tags = vec![format!("{}:{tag}", reference.familiar_name())];
        Ok(serde_json::to_vec(&[Self { config, repo_tags, layers }])?)
    }
}

impl Archive<'_> {
    /// Writes the tar, and answers how many bytes it has. Same image, name and layers: same bytes.
    ///
    /// # Errors
    /// Whatever `out` or the layers' readers fail with; a layer whose bytes are not those that its descriptor names.
    pub fn write(&self, out: &mut dyn Write, progress: &dyn Progress) -> io::Result<u64> {
        self.put_together(&mut Tar { out, size: 0, progress }, &|layer, path, tar| {
            let wanted = layer.descriptor.digest;
            let opened = layer.source.open().map_err(|error| unsound(wanted, error))?;
            let mut reader = HashingReader::new(Layered { wanted, reader: opened });
            let written = tar.stream(path, layer.descriptor.size, &mut reader);
            let (found, _) = reader.finish();
            match written {
                // Where the bytes end too soon, they are other ones as well.
                Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(error),
                Ok(()) if found == wanted => Ok(()),
                _ => Err(io::Error::new(io::ErrorKind::InvalidData, Unsound::Other { wanted, found })),
            }
        })
    }

    /// How many bytes [`Self::write`] would write. No layer is opened.
    ///
    /// # Errors
    /// A manifest that cannot be written.
    pub fn size(&self) -> io::Result<u64> {
        let mut tar = Tar { out: &mut io::sink(), size: 0, progress: &() };
        self.put_together(&mut tar, &|layer, path, tar| tar.pass(path, layer.descriptor.size))
    }

    /// Entry by entry; `put` sees to the bytes of a layer.
    fn put_together(
        &self,
        tar: &mut Tar<'_>,
        put: &dyn Fn(&Layer, &str, &mut Tar<'_>) -> io::Result<()>,
    ) -> io::Result<u64> {
        tar.bytes("oci-layout", OCI_LAYOUT)?;
        tar.directory("blobs/")?;
        tar.directory("blobs/sha256/")?;
        tar.bytes(&blob_path(&self.image.config_digest()), &self.image.config)?;
        tar.bytes(&blob_path(&self.image.digest()), &self.image.manifest)?;
        let mut written = Vec::new();
        for (index, layer) in self.image.layers.iter().enumerate() {
            let digest = layer.descriptor.digest;
            if (self.includes)(index) && !written.contains(&digest) {
                put(layer, &blob_path(&digest), tar)?;
                written.push(digest);
            }
        }
        tar.bytes("index.json", &self.index()?)?;
        tar.bytes("manifest.json", &self.manifest()?)?;
        tar.end()
    }

    /// `index.json`: the manifest under the names that the OCI specification and containerd give it.
    fn index(&self) -> io::Result<Vec<u8>> {
        let annotations = BTreeMap::from([
            (
                ANNOTATION_REF_NAME.to_owned(),
                self.reference.tag.clone().unwrap_or_else(|| "latest".to_owned()),
            ),
            (ANNOTATION_CONTAINERD_NAME.to_owned(), self.reference.canonical()),
        ]);
        let manifest = Descriptor {
            media_type: MediaType::ImageManifest,
            digest: self.image.digest(),
            size: self.image.manifest.len() as u64,
            annotations,
        };
        let index =
            json!({ "schemaVersion": 2, "mediaType": MediaType::ImageIndex, "manifests": [manifest] });
        Ok(serde_json::to_vec(&index)?)
    }

    fn manifest(&self) -> io::Result<Vec<u8>> {
        let layers = self.image.layers.iter().map(|layer| blob_path(&layer.descriptor.digest)).collect();
        DockerManifest::of(blob_path(&self.image.config_digest()), self.reference, layers)
    }
}

/// A file that `docker load` and every reader of OCI layouts take.
#[derive(Clone, Debug)]
pub struct ArchiveFile {
    /// The tar.
    pub file: PathBuf,
    /// The name of the image in it.
    pub reference: Reference,
}

#[async_trait]
impl Sink for ArchiveFile {
    async fn put(&self, image: &Image, progress: &dyn Progress) -> Result<Receipt> {
        let io = |source| TransportError::Io { act: "write", path: self.file.clone(), source };
        self.check()?;
        let folder = self.file.parent().filter(|folder| !folder.as_os_str().is_empty());
        let temporary = tempfile::Builder::new()
            .prefix(".tarsup-")
            .permissions(Permissions::from_mode(0o644))
            .tempfile_in(folder.unwrap_or(Path::new(".")))
            .map_err(io)?;
        let mut out = BufWriter::with_capacity(256 * 1024, temporary);
        let bytes_sent = self.archive(image).write(&mut out, progress).map_err(io)?;
        let temporary = out.into_inner().map_err(|error| io(error.into_error()))?;
        temporary.as_file().sync_all().map_err(io)?;
        temporary.persist(&self.file).map_err(|error| io(error.error))?;
        Ok(whole(image, bytes_sent))
    }

    async fn forecast(&self, image: &Image) -> Result<Forecast> {
        self.check()?;
        let io = |source| TransportError::Io { act: "write", path: self.file.clone(), source };
        Ok(whole(image, self.archive(image).size().map_err(io)?).into())
    }
}

impl ArchiveFile {
    fn archive<'a>(&'a self, image: &'a Image) -> Archive<'a> {
        Archive { image, reference: &self.reference, includes: &|_| true }
    }

    /// What is renamed over it would be gone: a device, a pipe, whatever a link leads to.
    fn check(&self) -> Result<()> {
        match std::fs::symlink_metadata(&self.file) {
            Ok(there) if !there.is_file() => {
                let why =
                    "there is something that is no file (a folder, a link, a pipe or a device), and it stays";
                Err(TransportError::Malformed { file: self.file.clone(), why: why.to_owned() })
            }
            _ => Ok(()),
        }
    }
}

/// A file holds every layer, whatever was there before.
fn whole(image: &Image, bytes_sent: u64) -> Receipt {
    Receipt {
        digest: image.digest(),
        bytes_sent,
        layers_sent: image.layers.len(),
        layers_skipped: 0,
        bytes_skipped: 0,
    }
}

/// Where a blob lies in an OCI layout.
pub(super) fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// What fills the last record of an entry of this size.
fn padding(size: u64) -> u64 {
    (512 - size % 512) % 512
}

/// A tar that is written entry by entry, with nothing in its headers that could differ from run to run.
pub(super) struct Tar<'a> {
    /// Where it goes.
    pub(super) out: &'a mut dyn Write,
    /// How many bytes it has so far.
    pub(super) size: u64,
    /// Hears of them.
    pub(super) progress: &'a dyn Progress,
}

impl Tar<'_> {
    pub(super) fn directory(&mut self, name: &str) -> io::Result<()> {
        self.header(name, 0, tar::EntryType::Directory, 0o755)
    }

    pub(super) fn bytes(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.stream(name, bytes.len() as u64, &mut &*bytes)
    }

    fn stream(&mut self, name: &str, size: u64, reader: &mut dyn Read) -> io::Result<()> {
        self.entry(name, size, |out| {
            let mut buffer = vec![0; 128 * 1024];
            let mut rest = size;
            while rest > 0 {
                let want = buffer.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
                let read = reader.read(&mut buffer[..want])?;
                if read == 0 {
                    let short = format!("{name} is {rest} bytes short");
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, short));
                }
                out.write_all(&buffer[..read])?;
                rest -= read as u64;
            }
            Ok(())
        })
    }

    /// An entry of this size, whose bytes `put` writes.
    pub(super) fn entry(
        &mut self,
        name: &str,
        size: u64,
        put: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        self.header(name, size, tar::EntryType::Regular, 0o644)?;
        put(self)?;
        let padding = usize::try_from(padding(size)).unwrap_or(0);
        self.write_all(&[0; 512][..padding])
    }

    /// Counts an entry whose content is not at hand.
    pub(super) fn pass(&mut self, name: &str, size: u64) -> io::Result<()> {
        self.header(name, size, tar::EntryType::Regular, 0o644)?;
        self.size += size + padding(size);
        Ok(())
    }

    fn header(&mut self, name: &str, size: u64, kind: tar::EntryType, mode: u32) -> io::Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_path(name)?;
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        header.set_cksum();
        self.write_all(header.as_bytes())
    }

    pub(super) fn end(&mut self) -> io::Result<u64> {
        self.write_all(&[0; 1024])?;
        self.out.flush()?;
        Ok(self.size)
    }
}

impl Write for Tar<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write_all(bytes)?;
        self.size += bytes.len() as u64;
        self.progress.advance(bytes.len() as u64);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
