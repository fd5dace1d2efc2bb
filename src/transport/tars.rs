//! A docker-archive of plain tars: what an engine that keeps layers unpacked need not inflate, which it does slowly.

use std::io::{self, Write};
use std::sync::Arc;

use super::Progress;
use super::archive::{DockerManifest, Tar, Unsound, blob_path, unsound};
use crate::oci::{BlobSource, HashingWriter, Image, Reference, TarImage, TarLayer, TarSource};
use crate::tarball::magic;

/// An image as tars.
pub fn of(image: &Image) -> TarImage {
    let layers = image.layers.iter().cloned().map(TarLayer::Stored).collect();
    inflated(TarImage { config: image.config.clone(), layers, after: image.after() })
}

/// What says how much it unpacks to is inflated on its way; everything else goes as it is stored.
pub fn inflated(mut image: TarImage) -> TarImage {
    for layer in &mut image.layers {
        if let TarLayer::Stored(stored) = layer
            && let Some(size) = stored.source.unpacked()
        {
            let source = Arc::new(Inflated(stored.source.clone()));
            *layer = TarLayer::Tar { diff_id: stored.diff_id, size, source };
        }
    }
    image
}

/// A blob that is inflated as it is read.
struct Inflated(Arc<dyn BlobSource>);

impl TarSource for Inflated {
    fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        let blob = io::BufReader::with_capacity(128 * 1024, self.0.open()?);
        let mut plain = magic::open(blob).map_err(io::Error::other)?;
        let mut buffer = vec![0; 128 * 1024];
        loop {
            let read = io::Read::read(&mut plain, &mut buffer)?;
            if read == 0 {
                return Ok(());
            }
            out.write_all(&buffer[..read])?;
        }
    }
}

/// What an archive of tars is to hold: the image, its name, and which of its layers.
pub struct TarArchive<'a> {
    /// The image.
    pub image: &'a TarImage,
    /// The name under which it is loaded.
    pub reference: &'a Reference,
    /// Whether the layer at this index goes in. An engine that has the others takes the archive all the same.
    pub includes: &'a (dyn Fn(usize) -> bool + Sync),
}

impl TarArchive<'_> {
    /// Writes the tar, and answers how many bytes it has.
    ///
    /// # Errors
    /// Whatever `out` or the layers' sources fail with; a layer whose bytes are not those that it names.
    pub fn write(&self, out: &mut dyn Write, progress: &dyn Progress) -> io::Result<u64> {
        self.put_together(&mut Tar { out, size: 0, progress }, &|layer, path, tar| {
            let (wanted, size) = layer.bytes();
            tar.entry(path, size, |out| {
                let mut bounded = Bounded { out, rest: size, failed: false };
                let mut hashed = HashingWriter::new(&mut bounded);
                let written = match layer {
                    TarLayer::Tar { source, .. } => source.write_to(&mut hashed),
                    TarLayer::Stored(layer) => {
                        layer.source.open().and_then(|mut blob| io::copy(&mut blob, &mut hashed)).map(drop)
                    }
                };
                let (bounded, found, _) = hashed.finish();
                match written {
                    Err(error) if bounded.failed => Err(error),
                    Err(source) => Err(unsound(wanted, source)),
                    Ok(()) if found == wanted && bounded.rest == 0 => Ok(()),
                    Ok(()) => {
                        Err(io::Error::new(io::ErrorKind::InvalidData, Unsound::Other { wanted, found }))
                    }
                }
            })
        })
    }

    /// How many bytes [`Self::write`] would write. No layer is opened.
    ///
    /// # Errors
    /// A manifest that cannot be written.
    pub fn size(&self) -> io::Result<u64> {
        let mut tar = Tar { out: &mut io::sink(), size: 0, progress: &() };
        self.put_together(&mut tar, &|layer, path, tar| tar.pass(path, layer.bytes().1))
    }

    /// Entry by entry; `put` sees to the bytes of a layer.
    fn put_together(
        &self,
        tar: &mut Tar<'_>,
        put: &dyn Fn(&TarLayer, &str, &mut Tar<'_>) -> io::Result<()>,
    ) -> io::Result<u64> {
        tar.directory("blobs/")?;
        tar.directory("blobs/sha256/")?;
        let config = blob_path(&self.image.config_digest());
        tar.bytes(&config, &self.image.config)?;
        let mut written = Vec::new();
        for (index, layer) in self.image.layers.iter().enumerate() {
            let (digest, _) = layer.bytes();
            if (self.includes)(index) && !written.contains(&digest) {
                put(layer, &blob_path(&digest), tar)?;
                written.push(digest);
            }
        }
        let layers = self.image.layers.iter().map(|layer| blob_path(&layer.bytes().0)).collect();
        tar.bytes("manifest.json", &DockerManifest::of(config, self.reference, layers)?)?;
        tar.end()
    }
}

/// So many bytes and no more; and whether it was the writing that failed.
struct Bounded<'a> {
    out: &'a mut dyn Write,
    rest: u64,
    failed: bool,
}

impl Write for Bounded<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.rest = self
            .rest
            .checked_sub(bytes.len() as u64)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it is larger than it says"))?;
        self.out.write_all(bytes).inspect_err(|_| self.failed = true)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::oci::Digest;

    /// What a source says that it has, and what it has.
    struct Lying(Vec<u8>);

    impl TarSource for Lying {
        fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
            out.write_all(&self.0)
        }
    }

    fn image(bytes: &[u8], said: &[u8], size: u64) -> TarImage {
        let source = Arc::new(Lying(bytes.to_vec()));
        let layer = TarLayer::Tar { diff_id: Digest::of(said), size, source };
        TarImage { config: b"{}".to_vec(), layers: vec![layer], after: None }
    }

    fn written(image: &TarImage) -> io::Result<Vec<u8>> {
        let reference = "x:1".parse().unwrap();
        let archive = TarArchive { image, reference: &reference, includes: &|_| true };
        let mut out = Vec::new();
        let size = archive.write(&mut out, &())?;
        assert_eq!((size, archive.size().unwrap()), (out.len() as u64, out.len() as u64));
        Ok(out)
    }

    #[test]
    fn archive_of_tars_has_the_bytes_and_the_docker_manifest() {
        let tar = written(&image(b"layer", b"layer", 5)).unwrap();
        let mut archive = tar::Archive::new(tar.as_slice());
        let mut entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut content = String::new();
            entry.read_to_string(&mut content).unwrap();
            (entry.path().unwrap().to_str().unwrap().to_owned(), content)
        });
        let path = blob_path(&Digest::of("layer"));
        assert!(entries.any(|entry| entry == (path.clone(), "layer".to_owned())));
        let (name, manifest) = entries.last().unwrap();
        assert_eq!(name, "manifest.json");
        assert!(manifest.contains(&path) && manifest.contains(r#""RepoTags":["x:1"]"#), "{manifest}");
    }

    #[test]
    fn tar_that_is_not_what_it_says_is_refused() {
        for (bytes, said, size) in
            [(&b"other"[..], &b"layer"[..], 5), (b"layer", b"layer", 6), (b"layer", b"layer", 4)]
        {
            let error = written(&image(bytes, said, size)).unwrap_err();
            assert!(error.get_ref().unwrap().is::<Unsound>(), "{error}");
        }
    }
}
