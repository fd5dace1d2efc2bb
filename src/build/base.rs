//! The base: a root file system whose tar becomes the first layer as it is, byte for byte.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::BuildError;
use super::compress::{Compressors, ENCODER};
use super::hints::{self, Hints};
use super::layer::{Folder, Folders};
use super::offers::Gathering;
use super::tree::Unkept;
use super::unpack::{Bounded, UnpackError, is_too_much, quoted};
use crate::contents::meeting::{self, Meeting, Outcome};
use crate::contents::{Kind, Offers};
use crate::diagnose::shown_bytes;
use crate::limits;
use crate::oci::{Digest, HashingReader, HashingWriter};
use crate::paths::image::{self, target_fits};
use crate::paths::{self, ImagePath, ImagePathBuf, LayerName, Lost, Paths, Unfit};
use crate::store::Cache;
use crate::store::cache::LayerRecord;
use crate::tarball::magic::{self, Follows, MagicError, is_cut};
use crate::tarball::{Entry, EntryKind, ReadError, TarReader};

/// What is remembered of a root file system beside its layer: where other layers may put something.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BasePaths {
    /// Its folders.
    pub folders: Folders,
    /// Its symbolic links, and where they point.
    pub links: Paths<String>,
    /// Whatever else it has: files, devices, pipes.
    pub files: Paths<()>,
    /// What programs find in it; none where that was not looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offers: Option<Offers>,
    /// Entries that not every engine takes, or that each takes in its own way: sentences for a person. Not known where a list tells of
    /// the base.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub doubts: Vec<String>,
}

/// A base as it was when it was hashed.
#[derive(Debug)]
pub struct Rootfs {
    /// The file.
    pub path: PathBuf,
    /// The digest of its bytes.
    digest: Digest,
    /// What [`hash`] found in the very bytes that have this digest, where it read them.
    hashed: Mutex<Option<Box<(Digest, BasePaths)>>>,
}

impl Rootfs {
    /// Hashes the file, or recalls its digest. Where the names in it will be `asked` for and it is a tar as it is, the same
    /// reading finds them: it is not read again.
    pub fn find(path: &Path, hints: &Hints, asked: bool) -> Result<Self, BuildError> {
        let failed = |source| UnpackError::Read { path: path.to_owned(), source };
        if std::fs::metadata(path).map_err(failed)?.len() == 0 {
            return Err(unusable(path, "it is empty").into());
        }
        let _span = tracing::debug_span!("hash", what = "the base's file").entered();
        let mut hashed = None;
        let made = hints.digest_by(path, |file| -> Result<Digest, BuildError> {
            if !asked || is_compressed(&file) {
                return hints::hash(file).map_err(|error| failed(error).into());
            }
            let (digest, whole) = read(path, file, io::sink(), Look::AtNames)?;
            hashed = Some(Box::new((whole.diff_id, whole.contents)));
            Ok(digest)
        });
        let digest = made.map_err(failed)??;
        Ok(Self { path: path.to_owned(), digest, hashed: Mutex::new(hashed) })
    }

    /// The key of its layer: the bytes of the file, and what they become.
    pub fn key(&self) -> Digest {
        Digest::of(format!("tarsup base 5\n{ENCODER}\n{}\n", self.digest))
    }
}

/// Compresses the root file system into the cache, reading its names on the way.
///
/// Some time has passed since it was hashed: what is kept under its key are the bytes that have that digest, or nothing.
pub fn pack(
    base: &Rootfs,
    cache: &Cache,
    compressors: &Compressors,
) -> Result<LayerRecord<BasePaths>, BuildError> {
    let _span = tracing::debug_span!("compress", what = "the base").entered();
    let blob = HashingWriter::new(cache.start()?);
    let gzip = compressors.writer(blob);
    let Whole { out: gzip, diff_id, tar_size, contents } = read_again(base, gzip, Look::IntoLibraries)?;
    let blob = gzip.finish().map_err(BuildError::compress("base"))?;
    let (file, digest, size) = blob.finish();
    let record = LayerRecord::new(diff_id, digest, size, tar_size, contents);
    cache.keep(&base.key(), file, &record)?;
    Ok(record)
}

/// The diff id of the root file system and its names, without its blob.
pub fn hash(base: &Rootfs, look: Look) -> Result<(Digest, BasePaths), BuildError> {
    let known = base.hashed.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(known) = known.filter(|_| look == Look::AtNames) {
        return Ok(*known);
    }
    let _span = tracing::debug_span!("hash", what = "the base").entered();
    let read = read_again(base, io::sink(), look)?;
    Ok((read.diff_id, read.contents))
}

/// What is read of a base beside its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Nothing: who asks knows the rest.
    AtNames,
    /// What its libraries need and offer, and its list of packages.
    IntoLibraries,
}

/// A tar that was read to its end.
struct Whole<W> {
    out: W,
    diff_id: Digest,
    tar_size: u64,
    contents: BasePaths,
}

/// Writes the tar of a base that was hashed before to `out`, and reads its names.
fn read_again<W: Write>(base: &Rootfs, out: W, look: Look) -> Result<Whole<W>, BuildError> {
    let path = base.path.as_path();
    let failed = |source| UnpackError::Read { path: path.to_owned(), source };
    let file = limits::open_within(path, &limits::FILE).map_err(failed)?;
    let (digest, whole) = read(path, file, out, look)?;
    if digest == base.digest {
        Ok(whole)
    } else {
        Err(unusable(path, "it was changed while the image was being built").into())
    }
}

/// True for what has to be unpacked first; a stream that cannot be read is none.
fn is_compressed(mut file: &File) -> bool {
    let is_compressed =
        magic::open(BufReader::with_capacity(64, file)).is_ok_and(|stream| stream.is_compressed());
    file.rewind().is_err() || is_compressed
}

/// Writes the tar in a file to `out`, reads its names, and hashes the file.
fn read<W: Write>(path: &Path, file: File, out: W, look: Look) -> Result<(Digest, Whole<W>), BuildError> {
    let failed = |source| UnpackError::Read { path: path.to_owned(), source };
    let packed = file.metadata().map_err(failed)?.len();
    let file = HashingReader::new(file);
    let file = BufReader::with_capacity(1024 * 1024, file);
    let tar = magic::open(file).map_err(|error| match error {
        MagicError::Read(source) => failed(source),
        other => unusable(path, &other.to_string()),
    })?;
    // A file that is not compressed is its own tar: one hash says both.
    let out = if tar.is_compressed() { Tar::Unpacked(HashingWriter::new(out)) } else { Tar::File(out) };
    let mut tee = Tee { inner: Bounded::new(tar, limits::UNPACKED.unpacking(packed)), out, broken: None };
    let contents = read_names(path, &mut tee, Tarball::Rootfs, look);
    if let Some(error) = tee.broken {
        return Err(BuildError::Compress { layer: "base".to_owned(), source: error });
    }
    let contents = contents?.finish();
    let mut file = tee.inner.inner.into_inner();
    // What may follow the compressed stream is a part of the file all the same.
    io::copy(&mut file, &mut io::sink()).map_err(failed)?;
    let (digest, size) = file.into_inner().finish();
    let (out, diff_id, tar_size) = match tee.out {
        Tar::Unpacked(out) => out.finish(),
        Tar::File(out) => (out, digest, size),
    };
    Ok((digest, Whole { out, diff_id, tar_size, contents }))
}

/// Where a tar goes, hashed where its file's own hash does not say what it is.
enum Tar<W> {
    Unpacked(HashingWriter<W>),
    File(W),
}

impl<W: Write> Write for Tar<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unpacked(out) => out.write(bytes),
            Self::File(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Unpacked(out) => out.flush(),
            Self::File(out) => out.flush(),
        }
    }
}

/// Passes on what it reads.
pub(super) struct Tee<R, W> {
    pub inner: R,
    pub out: W,
    /// A failure to write, which must not look like a damaged tar.
    pub broken: Option<io::Error>,
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

/// What a tar of a base is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tarball {
    /// A whole root file system.
    Rootfs,
    /// A layer of an image, which may delete what lies below it.
    Layer,
}

/// The names in one tar.
#[derive(Default)]
pub(super) struct Names {
    pub paths: BasePaths,
    pub gathering: Option<Gathering>,
    /// What of the layers below is deleted, with all that is in it (image-spec, layer.md, "Whiteouts").
    pub gone: Vec<ImagePathBuf>,
    /// Folders of which nothing shows that lies below.
    pub opaque: Vec<ImagePathBuf>,
    /// See [`BasePaths::doubts`].
    pub doubts: Vec<String>,
}

/// So many doubts are told.
const MOST_DOUBTS: usize = 20;

impl Names {
    /// Says what engines make of an entry.
    pub(super) fn doubt(&mut self, entry: &str, why: &str) {
        if self.doubts.len() < MOST_DOUBTS {
            self.doubts.push(format!("its entry `{}` {why}", quoted(entry.as_bytes())));
        }
    }

    /// The names, with what programs find.
    pub(super) fn finish(mut self) -> BasePaths {
        self.paths.offers = self.gathering.map(|gathering| gathering.finish(&self.paths));
        self.paths.doubts = self.doubts;
        self.paths
    }

    /// The path of an entry; `None` for one that takes others away, which is noted.
    fn path(&mut self, name: &[u8], kind: Tarball) -> Result<Option<ImagePathBuf>, Unfit> {
        if kind == Tarball::Rootfs {
            return ImagePathBuf::parse(name).map(Some);
        }
        match LayerName::parse(name)? {
            LayerName::Here(path) => return Ok(Some(path)),
            LayerName::Gone(path) => {
                let path = self.paths.within_links(path);
                if self.paths.kind(&path).is_some() {
                    self.doubt(&path.path().whiteout(), TAKES_ITS_OWN);
                }
                self.gone.push(path);
            }
            LayerName::Opaque(folder) => self.opaque.push(folder),
            LayerName::Nothing => {}
        }
        Ok(None)
    }
}

pub(super) fn read_names(
    path: &Path,
    stream: &mut dyn Read,
    kind: Tarball,
    look: Look,
) -> Result<Names, UnpackError> {
    let unusable = |why: &str| match kind {
        Tarball::Rootfs => unusable(path, why),
        Tarball::Layer => UnpackError::Archive {
            path: path.to_owned(),
            why: format!("a layer of the base: {why}"),
            hint: "get the image again, or take another base".to_owned(),
        },
    };
    let broken = |error: ReadError| match error {
        ReadError::Io(source) if Unkept::is(&source) => UnpackError::Unkept { path: path.to_owned(), source },
        ReadError::Io(error) if is_too_much(&error) => UnpackError::Archive {
            path: path.to_owned(),
            why: "it unpacks to more than a base may hold: a decompression bomb?".to_owned(),
            hint: limits::Beyond(&limits::UNPACKED).hint(),
        },
        ReadError::Io(error) if error.kind() == io::ErrorKind::FileTooLarge => unusable(&error.to_string()),
        ReadError::CutIn { name } => {
            unusable(&format!("it is cut off in the middle of `{}`", shown_bytes(&name)))
        }
        ReadError::CutOff => unusable("it is cut off"),
        ReadError::Io(error) if Follows::is(&error) => unusable(&error.to_string()),
        ReadError::Io(error) if is_cut(&error) => unusable("it is cut off"),
        ReadError::Entry { name, why } => refused(path, &name, &why),
        ReadError::Damaged("it is no tar") => unusable("it is no tar"),
        // What a registry says of itself.
        ReadError::Io(source) if source.get_ref().is_some() && kind == Tarball::Layer => {
            UnpackError::Read { path: path.to_owned(), source }
        }
        other => unusable(&format!("it is damaged: {other}")),
    };
    let gathering = (look == Look::IntoLibraries).then(Gathering::default);
    let mut read = Names { gathering, ..Names::default() };
    let mut tar = TarReader::new(stream);
    let (mut images, mut entries) = (0, 0);
    while let Some(entry) = tar.next_entry().map_err(broken)? {
        let name = entry.name.as_slice();
        entries += 1;
        let within = limits::ENTRIES.allow(entries).and_then(|()| paths::within());
        within.map_err(|beyond| UnpackError::Archive {
            path: path.to_owned(),
            why: format!("it has {beyond}"),
            hint: beyond.hint(),
        })?;
        // In a layer the first slash is that of the image, for every engine.
        if name.starts_with(b"/") && kind == Tarball::Rootfs {
            return Err(refused(path, name, LEAVES));
        }
        let clean = match read.path(name, kind) {
            Ok(Some(clean)) => clean,
            Ok(None) => continue,
            Err(Unfit::Climbs) => return Err(refused(path, name, LEAVES)),
            Err(why) => return Err(refused(path, name, &why.to_string())),
        };
        if read.paths.is_named(&clean) && !clean.contains(char::REPLACEMENT_CHARACTER) {
            read.doubt(&clean, TWICE);
        }
        let clean = read.paths.within_links(clean);
        images += usize::from(matches!(&*clean, "manifest.json" | "oci-layout" | "repositories"));
        // A hard link of a layer may lead to what lies below.
        let is_link_down = kind == Tarball::Layer && entry.kind == EntryKind::HardLink;
        match read.paths.misfit(&entry) {
            Some(_) if is_link_down => read.doubt(&clean, LINKS_DOWN),
            Some(why) => return Err(refused(path, name, &why)),
            None => {}
        }
        if let Some(file) = read.paths.file_above(clean.path()) {
            let why = format!("lies below `{}`, which is no folder", quoted(file.as_bytes()));
            return Err(refused(path, name, &why));
        }
        if read.paths.note(clean.path(), &entry) {
            // Where the file was unpacked, a folder of the layers below went.
            read.gone.push(clean.clone());
        }
        let Some(gathering) = &mut read.gathering else { continue };
        gathering.forget(clean.path());
        match entry.kind {
            // A sparse file may say that it is of any size, and is no library.
            EntryKind::File if !entry.is_sparse() => {
                gathering
                    .take(clean.path(), entry.size, tar.content(&entry))
                    .map_err(|error| broken(error.into()))?;
            }
            EntryKind::HardLink => {
                if let Ok(target) = ImagePathBuf::parse(&entry.target) {
                    gathering.link(clean.path(), target.path());
                }
            }
            _ => {}
        }
    }
    if !only_zeros(tar.into_inner()).map_err(|error| broken(error.into()))? {
        return Err(unusable("something follows the end of its tar, which no reader would see"));
    }
    if images > 0 && kind == Tarball::Rootfs {
        return Err(unusable("it is an image archive, not a root file system"));
    }
    if read.paths.folders.is_empty() && kind == Tarball::Rootfs {
        return Err(unusable("there is no folder in it"));
    }
    Ok(read)
}

/// Reads to the end; false at the first byte that is none.
fn only_zeros(stream: impl Read) -> io::Result<bool> {
    let mut rest = io::BufReader::new(stream);
    loop {
        let bytes = io::BufRead::fill_buf(&mut rest)?;
        if bytes.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        match bytes.len() {
            0 => return Ok(true),
            length => io::BufRead::consume(&mut rest, length),
        }
    }
}

/// Tried on Docker 20.10 and 26.1 with overlay2, and on 26.1 with containerd's store: `tests/docker/bases.rs`.
const TWICE: &str = "is there twice in one layer: an engine with a classic store refuses it, and any other takes the last one";
const TAKES_ITS_OWN: &str = "deletes what the same layer has before it: engines refuse that layer, and what unpacks it otherwise keeps the file";
const LINKS_DOWN: &str =
    "is a hard link to a file of another layer: engines refuse that layer, and umoci links the file";

/// What is said of a name that is no name within a root file system.
const LEAVES: &str = "leaves the root file system";

impl BasePaths {
    /// Takes out what lies below a folder, and what lies at it; empty is the root.
    pub(super) fn hide(&mut self, folder: &str, itself: bool) {
        if itself {
            self.folders.remove(folder);
            self.links.remove(folder);
            self.files.remove(folder);
        }
        for path in self.folders.below(folder) {
            self.folders.remove(&path);
        }
        for path in self.links.below(folder) {
            self.links.remove(&path);
        }
        for path in self.files.below(folder) {
            self.files.remove(&path);
        }
    }

    /// True for what is no folder.
    pub(super) fn is_link_or_file(&self, path: &str) -> bool {
        self.links.has(path) || self.files.has(path)
    }

    /// True for what an entry names.
    pub(super) fn is_named(&self, path: &str) -> bool {
        self.folders.has(path) || self.links.has(path) || self.files.has(path)
    }

    /// Where an entry lands that comes after links on its way.
    fn within_links(&self, path: ImagePathBuf) -> ImagePathBuf {
        image::within_links(|path| self.links.get(path), path)
    }

    /// What stands at a path. A folder that no entry names, and has something in it, is one all the same.
    pub(super) fn kind(&self, path: &str) -> Option<Kind> {
        if self.folders.has(path) {
            return Some(Kind::Folder);
        }
        if self.files.has(path) {
            return Some(Kind::File);
        }
        if self.links.has(path) {
            return Some(Kind::Link);
        }
        let implied =
            self.files.has_below(path) || self.links.has_below(path) || self.folders.has_below(path);
        implied.then_some(Kind::Folder)
    }

    /// Takes out what an engine takes away where it unpacks something of this kind.
    pub(super) fn make_room(&mut self, path: &str, new: Kind) -> Option<Outcome> {
        let outcome = meeting::outcome(Meeting::Unpacked, self.kind(path)?, new);
        match outcome {
            Outcome::Merges => {}
            Outcome::Empties => self.hide(path, true),
            _ => {
                self.links.remove(path);
                self.files.remove(path);
            }
        }
        Some(outcome)
    }

    /// What is no folder, and yet has this path below it: no engine unpacks that. A link may lead to a folder.
    fn file_above<'p>(&self, path: ImagePath<'p>) -> Option<ImagePath<'p>> {
        let above = path.ancestors().find(|above| self.files.has(above) || self.folders.has(above));
        above.filter(|above| self.files.has(above))
    }

    /// Why no engine unpacks this entry, or each in its own way.
    fn misfit(&self, entry: &Entry) -> Option<String> {
        let is_file = |path: ImagePathBuf| self.files.has(&path) || self.links.has(&path);
        match entry.kind {
            EntryKind::HardLink if !ImagePathBuf::parse(&entry.target).is_ok_and(is_file) => {
                Some(format!("is a hard link to `{}`, which is no file before it", quoted(&entry.target)))
            }
            EntryKind::Symlink if entry.target.is_empty() => Some("is a link to nothing".to_owned()),
            EntryKind::Symlink => {
                target_fits(&entry.target).err().map(|why| format!("is a link to a file that {why}"))
            }
            EntryKind::Other(flag) => {
                Some(format!("is of the kind `{}`, which no engine knows", quoted(&[flag])))
            }
            _ => None,
        }
    }

    /// Of several entries with one name the last one counts, as for whoever unpacks them. True for a folder in the place of
    /// something else.
    fn note(&mut self, path: ImagePath<'_>, entry: &Entry) -> bool {
        let kind = Kind::of(entry.kind);
        if path.is_root() {
            return false;
        }
        let outcome = self.make_room(path.as_str(), kind);
        match kind {
            Kind::Folder => {
                let folder = Folder { mode: entry.mode, uid: entry.uid, gid: entry.gid };
                self.folders.insert(path, &folder);
            }
            Kind::Link => {
                self.links.insert(path, &String::from_utf8_lossy(&entry.target).into_owned());
            }
            Kind::File => self.files.insert(path, &()),
        }
        kind == Kind::Folder && outcome == Some(Outcome::Replaces)
    }

    /// Where a name in a folder of this base leads, every link followed, as within the image's root. The folder itself
    /// has been followed already.
    pub fn follow(&self, folder: ImagePath<'_>, name: &str) -> Result<ImagePathBuf, Lost> {
        image::follow(|path| self.links.get(path), folder, name)
    }

    /// Where a whole path leads.
    pub fn led(&self, path: &str) -> Option<ImagePathBuf> {
        image::led(|path| self.links.get(path), path)
    }
}

fn refused(path: &Path, entry: &[u8], why: &str) -> UnpackError {
    UnpackError::Entry { path: path.to_owned(), entry: quoted(entry), why: why.to_owned() }
}

fn unusable(path: &Path, why: &str) -> UnpackError {
    UnpackError::Archive {
        path: path.to_owned(),
        why: why.to_owned(),
        hint: "a base is a tar of a root file system, plain, gzipped, in zstd or in xz, as mmdebstrap and `docker export` write it"
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_tar_whose_names_are_asked_for_is_read_once_and_what_is_compressed_is_not_unpacked_for_that() {
        let folder = tempfile::tempdir().unwrap();
        let mut tar = tar::Builder::new(Vec::new());
        tar.append_dir("etc", folder.path()).unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_size(1);
        header.set_mode(0o644);
        tar.append_data(&mut header, "etc/x", &b"x"[..]).unwrap();
        let plain = tar.into_inner().unwrap();
        let zipped = zstd::encode_all(&plain[..], 1).unwrap();
        let cache = Cache::at(folder.path().join("cache"));
        let file = folder.path().join("base.tar");
        for (bytes, asked, is_known) in [(&plain, true, true), (&plain, false, false), (&zipped, true, false)]
        {
            std::fs::write(&file, bytes).unwrap();
            let found = Rootfs::find(&file, &Hints::new(&cache), asked).unwrap();
            assert_eq!(found.digest, Digest::of(bytes));
            let again = Rootfs::find(&file, &Hints::new(&cache), false).unwrap();
            let (diff_id, names) = hash(&again, Look::AtNames).unwrap();
            assert!(diff_id == Digest::of(&plain) && names.files.has("etc/x"));
            std::fs::remove_file(&file).unwrap();
            let known = hash(&found, Look::AtNames).ok();
            assert_eq!(known, is_known.then_some((diff_id, names)), "{asked}");
        }
    }

    #[test]
    fn path_is_followed_through_the_links_of_the_base() {
        let links = [
            ("bin", "usr/bin"),
            ("var/run", "/run"),
            ("usr/lib64", "../lib"),
            ("up", "../../../etc"),
            ("a", "b"),
            ("b", "a"),
            ("chain", "bin/../bin"),
        ];
        let path = |text: &str| ImagePathBuf::parse(text).unwrap();
        let links = links.into_iter().map(|(link, target)| (path(link), target.to_owned())).collect();
        let base = BasePaths { links, ..BasePaths::default() };
        for (path, expected) in [
            ("bin/x", Some("usr/bin/x")),
            ("bin", Some("usr/bin")),
            ("var/run/x/y", Some("run/x/y")),
            ("usr/lib64/x", Some("lib/x")),
            ("up/x", Some("etc/x")),
            ("chain/x", Some("usr/bin/x")),
            ("etc/x", Some("etc/x")),
            ("a/x", None),
        ] {
            assert_eq!(base.led(path).as_deref(), expected, "{path}");
        }
    }
}
