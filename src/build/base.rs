//! The base: a root file system whose tar becomes the first layer as it is, byte for byte.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use serde::{Deserialize, Serialize};

use super::BuildError;
use super::compress::{Compressors, ENCODER};
use super::known::Known;
use super::layer::{Folder, Folders};
use super::unpack::UnpackError;
use crate::oci::{Digest, HashingWriter};
use crate::store::Cache;
use crate::store::cache::Record;

/// What is remembered of a root file system beside its layer: where other layers may put something.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// Its folders.
    pub folders: Folders,
    /// Its symbolic links: nothing may be put below one.
    pub links: BTreeSet<String>,
}

/// The key of the base's layer: the bytes of the file, and what they become.
pub fn key(path: &Path, known: &Known<'_>) -> Result<Digest, BuildError> {
    let failed = |source| UnpackError::Read { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(failed)?.len() == 0 {
        return Err(unusable(path, "it is empty").into());
    }
    let digest = known.digest(path).map_err(failed)?;
    Ok(Digest::of(format!("tarsup base 1\n{ENCODER}\n{digest}\n")))
}

/// Compresses the root file system into the cache, reading its names on the way.
pub fn pack(
    path: &Path,
    key: &Digest,
    cache: &Cache,
    compressors: &Compressors,
) -> Result<Record<Contents>, BuildError> {
    let failed = |source| UnpackError::Read { path: path.to_owned(), source };
    let mut file = BufReader::with_capacity(1024 * 1024, File::open(path).map_err(failed)?);
    let magic = io::BufRead::fill_buf(&mut file).map_err(failed)?;
    let tar: Box<dyn Read> = match magic {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(file)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => return Err(unusable(path, "zstd is not read").into()),
        [0xfd, b'7', b'z', ..] | [b'B', b'Z', b'h', ..] => {
            return Err(unusable(path, "xz and bzip2 are not read").into());
        }
        _ => Box::new(file),
    };
    let blob = HashingWriter::new(cache.start()?);
    let gzip = compressors.writer(blob).map_err(BuildError::compress("base"))?;
    let mut tee = Tee { inner: tar, out: HashingWriter::new(gzip), broken: None };
    let contents = read_names(path, &mut tee);
    if let Some(error) = tee.broken {
        return Err(BuildError::Compress { layer: "base".to_owned(), source: error });
    }
    let contents = contents?;
    let (gzip, diff_id, tar_size) = tee.out.finish();
    let blob = gzip.finish().map_err(BuildError::compress("base"))?;
    let (file, digest, size) = blob.finish();
    let record = Record::new(diff_id, digest, size, tar_size, contents);
    cache.keep(key, file, &record)?;
    Ok(record)
}

/// Passes on what it reads.
struct Tee<R, W> {
    inner: R,
    out: W,
    /// A failure to write, which must not look like a damaged tar.
    broken: Option<io::Error>,
}

impl<R: Read, W: Write> Read for Tee<R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        if let Err(error) = self.out.write_all(&buffer[..read]) {
            self.broken = Some(error);
            return Err(io::Error::other("the layer cannot be written"));
        }
        Ok(read)
    }
}

fn read_names(path: &Path, tar: &mut dyn Read) -> Result<Contents, UnpackError> {
    let broken = |error: io::Error| {
        let cut = error.kind() == io::ErrorKind::UnexpectedEof || error.to_string().contains("unexpected");
        if cut { unusable(path, "it is cut off") } else { unusable(path, &format!("it is no tar: {error}")) }
    };
    let mut contents = Contents::default();
    let mut archive = tar::Archive::new(tar);
    let mut images = 0;
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let size = entry.size();
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if name.starts_with('/') || name.split('/').any(|part| part == "..") {
            return Err(UnpackError::Entry {
                path: path.to_owned(),
                entry: name.escape_debug().take(200).collect(),
                why: "leaves the root file system".to_owned(),
            });
        }
        let clean = name.split('/').filter(|part| !matches!(*part, "" | ".")).collect::<Vec<_>>().join("/");
        images += usize::from(matches!(clean.as_str(), "manifest.json" | "oci-layout" | "repositories"));
        note(&mut contents, &clean, entry.header(), &broken)?;
        let read = io::copy(&mut entry, &mut io::sink()).map_err(broken)?;
        if read != size && entry.header().entry_type().is_file() {
            return Err(unusable(path, &format!("it is cut off in the middle of `{clean}`")));
        }
    }
    io::copy(archive.into_inner(), &mut io::sink()).map_err(broken)?;
    if images > 0 {
        return Err(unusable(path, "it is an image archive, not a root file system"));
    }
    if contents.folders.is_empty() {
        return Err(unusable(path, "there is no folder in it"));
    }
    Ok(contents)
}

fn note(
    contents: &mut Contents,
    name: &str,
    header: &tar::Header,
    broken: &dyn Fn(io::Error) -> UnpackError,
) -> Result<(), UnpackError> {
    if name.is_empty() {
        return Ok(());
    }
    match header.entry_type() {
        tar::EntryType::Directory => {
            let folder = Folder {
                mode: header.mode().map_err(broken)? & 0o7777,
                uid: header.uid().map_err(broken)?,
                gid: header.gid().map_err(broken)?,
            };
            contents.folders.insert(name.to_owned(), folder);
        }
        tar::EntryType::Symlink => {
            contents.links.insert(name.to_owned());
        }
        _ => {}
    }
    Ok(())
}

fn unusable(path: &Path, why: &str) -> UnpackError {
    UnpackError::Archive {
        path: path.to_owned(),
        why: why.to_owned(),
        hint: "a base is a tar of a root file system, gzipped or not, as mmdebstrap and `docker export` write it"
            .to_owned(),
    }
}
