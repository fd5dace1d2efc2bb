//! Reads what `docker save` writes: a tar with `manifest.json`, a config and layers, of any engine's age.
//!
//! Config and layers keep their bytes. The manifest does too where the archive has one; engines before 25 have none to
//! give, and it is made from what they wrote: uncompressed layers.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::{Result, TransportError};
use crate::diagnose::shown;
use crate::limits;
use crate::oci::{
    BlobSource, Descriptor, Digest, HashingReader, HashingWriter, Image, Layer, Manifest, MediaType,
    Reference,
};
use crate::tarball::magic::{self, Follows, Gzip, MagicError, is_cut};
use crate::tarball::{BLOCK, padding};

/// A tar on disk, which lives as long as a layer that is read from it.
pub struct Archived {
    /// What errors call it.
    path: PathBuf,
    /// A temporary file, which has no name: it goes with this, however the process ends.
    spool: Option<File>,
}

impl Archived {
    /// An archive that stays where it is.
    pub fn file(path: &Path) -> Self {
        Self { path: path.to_owned(), spool: None }
    }

    /// The same; one that is gzipped or in zstd is unpacked into a temporary file without a name.
    ///
    /// # Errors
    /// A file that cannot be read or unpacked, or that unpacks to more than an image may have.
    pub fn plain(path: &Path) -> Result<Self> {
        let archived = Self::file(path);
        let unreadable = |error| archived.unreadable(error);
        let file = archived.open().map_err(unreadable)?;
        let packed = file.metadata().map_err(unreadable)?.len();
        let file = io::BufReader::with_capacity(256 * 1024, file);
        let mut stream = match magic::open(file) {
            Ok(stream) if stream.is_compressed() => stream,
            Ok(_) => return Ok(archived),
            Err(MagicError::Read(error)) => return Err(unreadable(error)),
            Err(other) => return Err(archived.malformed(other.to_string())),
        };
        let unkept = |source| TransportError::Unkept { image: path.to_owned(), source };
        let mut spool = tempfile::tempfile().map_err(unkept)?;
        let mut piece = vec![0; 256 * 1024];
        let mut rest = limits::IMAGE.unpacking(packed);
        loop {
            // Which of both failed decides whose fault it is.
            let read = match stream.read(&mut piece) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if is_cut(&error) => return Err(archived.malformed("it is cut off")),
                Err(error) if Follows::is(&error) => return Err(archived.malformed(error.to_string())),
                read => {
                    read.map_err(|error| archived.malformed(format!("it cannot be unpacked: {error}")))?
                }
            };
            if read == 0 {
                break;
            }
            rest = rest.checked_sub(read as u64).ok_or_else(|| archived.bomb("it", &limits::IMAGE))?;
            spool.write_all(&piece[..read]).map_err(unkept)?;
        }
        Ok(Self { path: archived.path, spool: Some(spool) })
    }

    /// A temporary file without a name, which goes with the last layer that is read from it.
    pub fn spool(from: &str, file: File) -> Self {
        Self { path: from.into(), spool: Some(file) }
    }

    /// From its beginning, with a position of its own.
    fn open(&self) -> io::Result<File> {
        match &self.spool {
            Some(file) => File::open(Path::new("/proc/self/fd").join(file.as_raw_fd().to_string())),
            None => limits::open(&self.path),
        }
    }

    fn malformed(&self, why: impl Into<String>) -> TransportError {
        TransportError::Malformed { file: self.path.clone(), why: why.into() }
    }

    fn bomb(&self, what: &str, limit: &'static limits::Limit) -> TransportError {
        let limit = limits::Beyond(limit);
        TransportError::Bomb { file: self.path.clone(), what: what.to_owned(), limit }
    }

    fn unreadable(&self, source: io::Error) -> TransportError {
        TransportError::Io { act: "read", path: self.path.clone(), source }
    }
}

/// An entry of `manifest.json` (docker's image spec v1.2).
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SavedImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Where a member's bytes lie in the tar.
#[derive(Clone, Copy)]
struct Span {
    offset: u64,
    size: u64,
}

/// Reads the image of this name, or the only one where no name is given. Every byte is read once, to prove its digest.
///
/// # Errors
/// [`TransportError::Malformed`] for what is no such archive, [`TransportError::Absent`] for a name that is not in it.
pub fn read(archived: Archived, name: Option<&Reference>) -> Result<Image> {
    let archived = Arc::new(archived);
    let members = Members::scan(&archived)?;
    let manifest = members.document("manifest.json")?;
    let entries: Vec<SavedImage> = serde_json::from_slice(&manifest)
        .map_err(|error| archived.malformed(format!("its manifest.json cannot be read: {error}")))?;
    let entry = choose(&archived, entries, name)?;
    let config = members.document(&entry.config)?;
    let diff_ids = diff_ids(&config).ok_or_else(|| archived.malformed("its config names no layers"))?;
    if diff_ids.len() != entry.layers.len() {
        let (layers, named) = (entry.layers.len(), diff_ids.len());
        return Err(archived.malformed(format!("it has {layers} layers, and its config names {named}")));
    }
    let layers = entry.layers.iter().zip(diff_ids).map(|(path, diff_id)| members.layer(path, diff_id));
    let layers = layers.collect::<Result<Vec<Layer>>>()?;
    let manifest = match members.manifest(&config, &layers) {
        Some(manifest) => manifest,
        None => made_manifest(&config, &layers).map_err(|error| archived.malformed(error.to_string()))?,
    };
    Ok(Image { manifest, config, layers })
}

/// The entry of this name, or the only one.
fn choose(archived: &Archived, mut entries: Vec<SavedImage>, name: Option<&Reference>) -> Result<SavedImage> {
    let tags = |entry: &SavedImage| entry.repo_tags.clone().unwrap_or_default();
    let has = |entry: &SavedImage, name: &Reference| {
        tags(entry).iter().any(|tag| tag.parse::<Reference>().is_ok_and(|tag| tag == *name))
    };
    let position = match name {
        Some(name) => entries.iter().position(|entry| has(entry, name)),
        None if entries.len() == 1 => Some(0),
        None => None,
    };
    position.map(|position| entries.swap_remove(position)).ok_or_else(|| {
        let file = shown(&archived.path);
        let there: Vec<String> = entries.iter().flat_map(tags).collect();
        TransportError::Absent {
            name: name.map_or_else(
                || format!("docker-archive:{file}"),
                |name| format!("docker-archive:{file}:{name}"),
            ),
            hint: format!("name one that is in the archive: {}", there.join(", ")),
        }
    })
}

fn diff_ids(config: &[u8]) -> Option<Vec<Digest>> {
    let config: Value = serde_json::from_slice(config).ok()?;
    serde_json::from_value(config.pointer("/rootfs/diff_ids")?.clone()).ok()
}

/// A manifest for an archive without one.
fn made_manifest(config: &[u8], layers: &[Layer]) -> serde_json::Result<Vec<u8>> {
    let config = Descriptor {
        media_type: MediaType::ImageConfig,
        digest: Digest::of(config),
        size: config.len() as u64,
        annotations: BTreeMap::new(),
    };
    let layers = layers.iter().map(|layer| layer.descriptor.clone()).collect();
    serde_json::to_vec(&Manifest::new(config, layers, BTreeMap::new()))
}

/// What the tar holds, and where.
struct Members {
    archived: Arc<Archived>,
    files: BTreeMap<String, Span>,
    links: BTreeMap<String, String>,
}

impl Members {
    fn scan(archived: &Arc<Archived>) -> Result<Self> {
        let unreadable = |error| archived.unreadable(error);
        let file = archived.open().map_err(unreadable)?;
        let length = file.metadata().map_err(unreadable)?.len();
        let not_tar = |error: io::Error| {
            let words = error.to_string();
            archived.malformed(match words.as_str() {
                _ if length < BLOCK as u64 => "it is no tar".to_owned(),
                // A header that is not all there.
                "failed to read entire block" => "it is cut off".to_owned(),
                _ if is_cut(&error) => "it is cut off".to_owned(),
                _ => format!("it is no tar, or damaged: {words}"),
            })
        };
        let mut end = 0;
        let mut tar = tar::Archive::new(file);
        let mut found = Self { archived: archived.clone(), files: BTreeMap::new(), links: BTreeMap::new() };
        for entry in tar.entries_with_seek().map_err(not_tar)? {
            let entry = entry.map_err(not_tar)?;
            let name = entry.path().map_err(not_tar)?.to_string_lossy().trim_start_matches("./").to_owned();
            let stored = if entry.header().entry_type().is_gnu_sparse() {
                entry.header().entry_size().map_err(not_tar)?
            } else {
                entry.size()
            };
            end = entry.raw_file_position().saturating_add(stored);
            if end > length {
                let name = shown(&name);
                return Err(archived.malformed(format!("it is cut off in the middle of `{name}`")));
            }
            end = end.saturating_add(padding(stored));
            match entry.header().entry_type() {
                tar::EntryType::Regular => {
                    found.files.insert(name, Span { offset: entry.raw_file_position(), size: entry.size() });
                }
                // Engines before 25 write a layer that they wrote before as a link to it.
                tar::EntryType::Symlink | tar::EntryType::Link => {
                    let target = entry.link_name().map_err(not_tar)?.unwrap_or_default();
                    found.links.insert(name, target.to_string_lossy().into_owned());
                }
                _ => {}
            }
        }
        // Every writer ends a tar with zeros: what stood behind the last entry that is there may be gone.
        if length < end.saturating_add(BLOCK as u64) {
            return Err(archived.malformed(match length {
                0 => "it is empty",
                _ => "it is cut off: the tar has no end",
            }));
        }
        Ok(found)
    }

    /// A member by name, through at most one link (`../<id>/layer.tar`).
    fn span(&self, name: &str) -> Result<Span> {
        let target = self.links.get(name).map(|target| target.trim_start_matches("../").to_owned());
        let found = self.files.get(target.as_deref().unwrap_or(name)).copied();
        found.ok_or_else(|| self.archived.malformed(format!("it has no {name}")))
    }

    fn blob(&self, span: Span) -> Slice {
        Slice { archived: self.archived.clone(), span }
    }

    fn document(&self, name: &str) -> Result<Vec<u8>> {
        let span = self.span(name)?;
        if span.size > limits::DOCUMENT.value() {
            return Err(self.archived.malformed(format!("its {name} has {} bytes", span.size)));
        }
        let mut bytes = Vec::new();
        let read = self.blob(span).open().and_then(|mut blob| blob.read_to_end(&mut bytes));
        read.map_err(|error| self.archived.unreadable(error))?;
        Ok(bytes)
    }

    fn layer(&self, name: &str, diff_id: Digest) -> Result<Layer> {
        let blob = self.blob(self.span(name)?);
        let measured = measure(&blob).map_err(|error| {
            let name = shown(name);
            self.archived.malformed(match error {
                error if is_cut(&error) => format!("its layer {name} is cut off"),
                error => format!("its layer {name} cannot be unpacked: {error}"),
            })
        })?;
        let bomb = || self.archived.bomb(&format!("its layer {}", shown(name)), &limits::UNPACKED);
        let measured = measured.ok_or_else(bomb)?;
        if measured.diff_id != diff_id {
            return Err(self
                .archived
                .malformed(format!("its layer {name} is not the one that its config names")));
        }
        let descriptor = Descriptor {
            media_type: measured.media_type,
            digest: measured.digest,
            size: blob.span.size,
            annotations: BTreeMap::new(),
        };
        Ok(Layer { diff_id, descriptor, source: Arc::new(blob) })
    }

    /// The archive's own manifest of these very bytes.
    fn manifest(&self, config: &[u8], layers: &[Layer]) -> Option<Vec<u8>> {
        let index: Value = serde_json::from_slice(&self.document("index.json").ok()?).ok()?;
        index["manifests"].as_array()?.iter().find_map(|entry| {
            let digest: Digest = entry["digest"].as_str()?.parse().ok()?;
            let bytes = self.document(&format!("blobs/sha256/{}", digest.hex())).ok()?;
            let manifest = Manifest::parse(&bytes).ok()?;
            let named = manifest.layers.iter().map(|layer| layer.digest);
            let fits = Digest::of(&bytes) == digest
                && manifest.media_type == MediaType::ImageManifest
                && manifest.config.digest == Digest::of(config)
                && named.eq(layers.iter().map(|layer| layer.descriptor.digest));
            fits.then_some(bytes)
        })
    }
}

/// What a layer's bytes are.
struct Measured {
    diff_id: Digest,
    digest: Digest,
    media_type: MediaType,
}

/// Reads all of it; nothing where it unpacks to more than a layer may.
fn measure(blob: &Slice) -> io::Result<Option<Measured>> {
    let mut magic = [0; 2];
    let is_gzip = blob.open()?.read_exact(&mut magic).is_ok() && magic == [0x1f, 0x8b];
    let mut stored = HashingReader::new(blob.open()?);
    let mut plain = HashingWriter::new(io::sink());
    if is_gzip {
        let most = limits::UNPACKED.unpacking(blob.span.size);
        let unpacked = Gzip::new(io::BufReader::with_capacity(128 * 1024, &mut stored));
        let mut unpacked = unpacked.take(most.saturating_add(1));
        if io::copy(&mut unpacked, &mut plain)? > most {
            return Ok(None);
        }
        // What may follow the last member belongs to the blob all the same.
        io::copy(&mut stored, &mut io::sink())?;
    } else {
        io::copy(&mut stored, &mut plain)?;
    }
    plain.flush()?;
    let (_, diff_id, _) = plain.finish();
    let media_type = if is_gzip { MediaType::ImageLayerGzip } else { MediaType::ImageLayer };
    Ok(Some(Measured { diff_id, digest: stored.finish().0, media_type }))
}

/// A member of the tar, read from where it lies.
struct Slice {
    archived: Arc<Archived>,
    span: Span,
}

impl BlobSource for Slice {
    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        let mut file = self.archived.open()?;
        file.seek(SeekFrom::Start(self.span.offset))?;
        Ok(Box::new(io::BufReader::with_capacity(128 * 1024, file.take(self.span.size))))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::archive::Archive;
    use super::*;

    struct Bytes(Vec<u8>);

    impl BlobSource for Bytes {
        fn open(&self) -> io::Result<Box<dyn Read + Send>> {
            Ok(Box::new(io::Cursor::new(self.0.clone())))
        }
    }

    /// An image of two gzipped layers; what is in them is no tar, and need not be.
    fn image() -> Image {
        let layer = |content: &str| {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(content.as_bytes()).unwrap();
            let blob = gzip.finish().unwrap();
            let descriptor = Descriptor {
                media_type: MediaType::ImageLayerGzip,
                digest: Digest::of(&blob),
                size: blob.len() as u64,
                annotations: BTreeMap::from([("name".to_owned(), content.to_owned())]),
            };
            Layer { diff_id: Digest::of(content), descriptor, source: Arc::new(Bytes(blob)) }
        };
        let layers = vec![layer("one"), layer("two")];
        let diff_ids: Vec<Digest> = layers.iter().map(|layer| layer.diff_id).collect();
        let config = json!({"rootfs": {"type": "layers", "diff_ids": diff_ids}}).to_string().into_bytes();
        Image { manifest: made_manifest(&config, &layers).unwrap(), config, layers }
    }

    fn read_back(tar: &[u8], name: Option<&str>) -> Result<Image> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(tar).unwrap();
        let name = name.map(|name| name.parse().unwrap());
        read(Archived::spool("an archive", file), name.as_ref())
    }

    fn written(image: &Image, includes: &(dyn Fn(usize) -> bool + Sync)) -> Vec<u8> {
        let mut tar = Vec::new();
        let reference = "tars/framework:1".parse().unwrap();
        Archive { image, reference: &reference, includes }.write(&mut tar, &()).unwrap();
        tar
    }

    fn old_archive(image: &Image) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut add = |name: &str, bytes: &[u8]| {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, name, bytes).unwrap();
        };
        add("a/layer.tar", b"one");
        add("c.json", &image.config);
        let manifest =
            json!([{"Config": "c.json", "RepoTags": null, "Layers": ["a/layer.tar", "b/layer.tar"]}]);
        add("manifest.json", manifest.to_string().as_bytes());
        add("x/layer.tar", b"two");
        let mut link = tar::Header::new_ustar();
        link.set_entry_type(tar::EntryType::Symlink);
        link.set_size(0);
        tar.append_link(&mut link, "b/layer.tar", "../x/layer.tar").unwrap();
        tar.into_inner().unwrap()
    }

    #[test]
    fn archive_that_has_a_manifest_keeps_it() {
        let image = image();
        let tar = written(&image, &|_| true);
        for name in [None, Some("tars/framework:1")] {
            let read = read_back(&tar, name).unwrap();
            assert_eq!((&read.manifest, &read.config), (&image.manifest, &image.config));
            let mut blob = Vec::new();
            read.layers[1].source.open().unwrap().read_to_end(&mut blob).unwrap();
            assert_eq!(Digest::of(&blob), image.layers[1].descriptor.digest);
        }
    }

    #[test]
    fn archive_of_an_old_engine_gets_a_manifest_of_plain_layers() {
        let image = image();
        let read = read_back(&old_archive(&image), None).unwrap();
        assert_eq!((&read.config, read.diff_ids()), (&image.config, image.diff_ids()));
        for layer in &read.layers {
            assert_eq!(layer.descriptor.media_type, MediaType::ImageLayer);
            assert_eq!(layer.descriptor.digest, layer.diff_id);
        }
    }

    #[test]
    fn archive_that_is_not_whole_says_what_is_wrong() {
        let image = image();
        let whole = written(&image, &|_| true);
        let mut swapped = image.clone();
        swapped.layers[0].diff_id = image.layers[1].diff_id;
        swapped.config = json!({"rootfs": {"diff_ids": swapped.diff_ids()}}).to_string().into_bytes();
        for (tar, why) in [
            (b"no tar at all".repeat(100), "it is no tar"),
            (written(&image, &|index| index == 0), "it has no blobs/sha256/"),
            (written(&swapped, &|_| true), "is not the one that its config names"),
            (whole[..1024].to_vec(), "it is cut off: the tar has no end"),
            (vec![0; 1024], "it has no manifest.json"),
        ] {
            match read_back(&tar, None).unwrap_err() {
                TransportError::Malformed { why: said, .. } => assert!(said.contains(why), "{said}"),
                other => panic!("{why}: {other:?}"),
            }
        }
        let absent = read_back(&whole, Some("tars/framework:2")).unwrap_err();
        assert!(
            matches!(absent, TransportError::Absent { ref hint, .. } if hint.contains("tars/framework:1"))
        );
    }
}
