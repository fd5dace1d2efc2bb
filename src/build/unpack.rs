//! Reads a gzipped tar, or a folder, into a tree, and refuses whatever has no business in one: nothing touches the disk.

use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use super::privileges::BITS;
use super::tree::{Spool, Tree, TreeNode, Unkept};
use crate::diagnose::{Diagnose, Exit, Place, shown, shown_bytes};
use crate::limits;
use crate::oci::{Digest, HashingReader};
use crate::paths::image::target_fits;
use crate::paths::{self, ImagePath, ImagePathBuf, Unfit};
use crate::tarball::aside;
use crate::tarball::capabilities::ATTRIBUTE;
use crate::tarball::magic::{self, MagicError, is_cut};
use crate::tarball::{Capabilities, Entry, EntryKind, ReadError, TarReader};

/// What was read: names are relative, modes 0755 or 0644, with setuid and setgid bits where a file has them.
#[derive(Debug, Default)]
pub struct Unpacked {
    /// Files, folders and links.
    pub tree: Tree,
    /// The digest of the archive's own bytes, exactly those that were read; `None` for a folder.
    pub digest: Option<Digest>,
}

/// Why an archive or a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The file or folder cannot be opened or read.
    #[error("cannot read {}", shown(path))]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's words.
        source: io::Error,
    },
    /// What is read cannot be kept until it is compressed.
    #[error("the files of {} cannot be kept meanwhile", shown(path))]
    Unkept {
        /// The archive, folder or file.
        path: PathBuf,
        /// Where, and the operating system's words.
        source: io::Error,
    },
    /// The whole of it is not what it should be.
    #[error("{}: {why}", shown(path))]
    Archive {
        /// The archive.
        path: PathBuf,
        /// What is wrong.
        why: String,
        /// What to do.
        hint: String,
    },
    /// One entry has no business in it.
    #[error("{}: entry `{entry}` {why}", shown(path))]
    Entry {
        /// The archive.
        path: PathBuf,
        /// The entry's name, control characters escaped.
        entry: String,
        /// What is wrong.
        why: String,
    },
}

impl Diagnose for UnpackError {
    fn exit(&self) -> Exit {
        if matches!(self, Self::Unkept { .. }) { Exit::Failed } else { Exit::Usage }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Unkept { .. } => "make room there, or name another folder in TMPDIR".to_owned(),
            Self::Read { .. } => "see whether it exists and may be read".to_owned(),
            Self::Archive { hint, .. } => hint.clone(),
            Self::Entry { .. } => {
                "pack it again from a clean folder, with `make X-tar` or `tar -czf`, and leave that entry out"
                    .to_owned()
            }
        })
    }

    fn place(&self) -> Option<Place> {
        match self {
            Self::Read { path, .. }
            | Self::Unkept { path, .. }
            | Self::Archive { path, .. }
            | Self::Entry { path, .. } => Some(Place::file(path)),
        }
    }
}

type Result<T> = std::result::Result<T, UnpackError>;

/// Reads a tar, gzipped, in zstd, in xz or plain: its first bytes tell, not its name.
pub fn read_archive(path: &Path) -> Result<Unpacked> {
    let open = |source| UnpackError::Read { path: path.to_owned(), source };
    let file = limits::open_within(path, &limits::FILE).map_err(open)?;
    let packed = file.metadata().map_err(open)?.len();
    let file = BufReader::with_capacity(256 * 1024, HashingReader::new(file));
    let unpacking = Unpacking::new(path);
    let plain = magic::open(file).map_err(|error| match error {
        MagicError::Read(source) => open(source),
        other => unpacking.archive(&other.to_string()),
    })?;
    let most = limits::UNPACKED.unpacking(packed);
    // One thread unpacks it while what is in it is hashed and kept.
    let (unpacked, plain) = aside::reading(plain, |pieces| unpacking.read(Bounded::new(pieces, most)));
    let (mut unpacked, mut file) = (unpacked?, plain.into_inner());
    io::copy(&mut file, &mut io::sink()).map_err(open)?;
    unpacked.digest = Some(file.into_inner().finish().0);
    Ok(unpacked)
}

/// Reads so much and no more, and counts the zero bytes at the end.
pub(super) struct Bounded<R> {
    /// What is read.
    pub inner: R,
    rest: u64,
    zeros: u64,
}

impl<R> Bounded<R> {
    /// So many bytes of it.
    pub fn new(inner: R, most: u64) -> Self {
        Self { inner, rest: most, zeros: 0 }
    }
}

/// What [`Bounded`] fails with; found again by its text, as it passes through readers.
const TOO_MUCH: &str = "more than a package may hold";

/// True where [`Bounded`] ended a reading.
pub(super) fn is_too_much(error: &io::Error) -> bool {
    error.to_string() == TOO_MUCH
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.rest = self.rest.checked_sub(read as u64).ok_or_else(|| io::Error::other(TOO_MUCH))?;
        match buffer[..read].iter().rposition(|byte| *byte != 0) {
            Some(last) => self.zeros = (read - 1 - last) as u64,
            None => self.zeros += read as u64,
        }
        Ok(read)
    }
}

/// An archive or a folder on its way into a tree.
pub(super) struct Unpacking<'a> {
    path: &'a Path,
    pub(super) unpacked: Unpacked,
    pub(super) spool: Spool,
    entries: u64,
    /// Bytes of files so far, holes included: what a sparse file unpacks to is not in the tar.
    bytes: u64,
}

impl<'a> Unpacking<'a> {
    pub(super) fn new(path: &'a Path) -> Self {
        Self { path, unpacked: Unpacked::default(), spool: Spool::default(), entries: 0, bytes: 0 }
    }

    /// The tree, once the stream has come to its end.
    fn read<R: Read>(mut self, stream: Bounded<R>) -> Result<Unpacked> {
        let mut tar = TarReader::new(stream);
        while let Some(entry) = tar.next_entry().map_err(|error| self.broken(error))? {
            self.entry(&entry, &mut tar)?;
        }
        // To the very end: only there does gzip say whether the checksum holds.
        let mut stream = tar.into_inner();
        let mut end = io::BufReader::new(&mut stream);
        loop {
            let rest = io::BufRead::fill_buf(&mut end).map_err(|error| self.broken(error.into()))?;
            if rest.iter().any(|byte| *byte != 0) {
                return Err(self.archive("something follows the end of its tar, which no reader would see"));
            }
            let length = rest.len();
            if length == 0 {
                break;
            }
            io::BufRead::consume(&mut end, length);
        }
        if stream.zeros < 1024 {
            return Err(self.archive("it is cut off: the tar has no end"));
        }
        if self.unpacked.tree.is_empty() {
            return Err(self.archive("there is nothing in it"));
        }
        self.check_links()?;
        Ok(self.unpacked)
    }

    fn entry<R: Read>(&mut self, entry: &Entry, tar: &mut TarReader<R>) -> Result<()> {
        self.entries += 1;
        limits::ENTRIES.allow(self.entries).map_err(|beyond| self.beyond(beyond))?;
        let Some(name) = self.name(&entry.name)? else { return Ok(()) };
        let capabilities = entry.capabilities().map_err(|why| self.unkept(name.as_bytes(), why))?;
        if capabilities.is_some() && !matches!(entry.kind, EntryKind::File | EntryKind::HardLink) {
            return Err(self.unkept(name.as_bytes(), "and is no file"));
        }
        let node = match entry.kind {
            EntryKind::Directory => TreeNode::Directory { mode: 0o755 },
            EntryKind::File => {
                self.bytes = self.bytes.saturating_add(entry.size);
                if limits::UNPACKED.allow(self.bytes).is_err() {
                    return Err(self.broken(io::Error::other(TOO_MUCH).into()));
                }
                let mut content =
                    self.spool.keep(tar.content(entry)).map_err(|error| self.broken_in(&name, error))?;
                content.modified = u32::try_from(entry.modified).unwrap_or(0);
                content.capabilities = capabilities;
                TreeNode::File { mode: normal_mode(entry.mode), content }
            }
            EntryKind::Symlink => TreeNode::Link { target: self.target(&name, &entry.target)? },
            EntryKind::HardLink => self.hard_link(&name, entry, capabilities)?,
            other => return Err(self.refuse(name.as_bytes(), &format!("is {}", describe(other)))),
        };
        self.insert(name.path(), node)
    }

    /// The path that a name in a package means; `None` for the root itself. What a layer of ours writes is text.
    pub(super) fn name(&self, raw: &[u8]) -> Result<Option<ImagePathBuf>> {
        let Ok(text) = std::str::from_utf8(raw) else {
            return Err(self.refuse(raw, "has a name that is not UTF-8"));
        };
        if text.starts_with('/') {
            return Err(self.refuse(raw, "has an absolute name"));
        }
        if text.chars().any(char::is_control) {
            return Err(self.refuse(raw, "has control characters in its name"));
        }
        match ImagePathBuf::parse(text) {
            Ok(path) => Ok(Some(path).filter(|path| !path.path().is_root())),
            Err(Unfit::Climbs) => Err(self.refuse(raw, "climbs out of the package with `..`")),
            Err(why) => Err(self.refuse(raw, &why.to_string())),
        }
    }

    pub(super) fn target(&self, name: &str, raw: &[u8]) -> Result<Box<str>> {
        let text = std::str::from_utf8(raw).ok().filter(|text| !text.chars().any(char::is_control));
        let text = text.filter(|text| !text.is_empty());
        let text = text.ok_or_else(|| {
            let why = format!("is a link to `{}`, a name that cannot be written", shown_bytes(raw));
            self.refuse(name.as_bytes(), &why)
        })?;
        match target_fits(raw) {
            Err(why) => Err(self.refuse(name.as_bytes(), &format!("is a link to a file that {why}"))),
            Ok(()) => Ok(text.into()),
        }
    }

    /// The same content under a second name.
    fn hard_link(
        &mut self,
        name: &str,
        entry: &Entry,
        capabilities: Option<Capabilities>,
    ) -> Result<TreeNode> {
        let target = self.target(name, &entry.target)?;
        let refuse =
            |why: &str| self.refuse(name.as_bytes(), &format!("is a hard link to `{target}`, which {why}"));
        let key = match ImagePathBuf::parse(&*target) {
            Ok(key) if !target.starts_with('/') => key,
            Ok(_) | Err(Unfit::Climbs) => return Err(refuse("leaves the package")),
            Err(why) => return Err(refuse(&why.to_string())),
        };
        match self.unpacked.tree.get(&key) {
            Some(TreeNode::File { mode, content }) => {
                // One file has one mode; a record that is not repeated for its second name takes nothing away.
                let is_more = entry.mode & BITS & !mode != 0
                    || capabilities.is_some_and(|some| content.capabilities != Some(some));
                if is_more {
                    return Err(refuse("has other setuid or setgid bits or capabilities"));
                }
                Ok(TreeNode::File { mode, content })
            }
            _ => Err(refuse("is no file before it")),
        }
    }

    pub(super) fn insert(&mut self, name: ImagePath<'_>, node: TreeNode) -> Result<()> {
        self.unpacked.tree.insert(name, node).map_err(|taken| {
            let why = if taken.path.path() == name {
                "is there twice, with different contents".to_owned()
            } else {
                format!("lies below `{}`, which is no folder", shown(&*taken.path))
            };
            self.refuse(name.as_bytes(), &why)
        })?;
        let within = limits::ENTRIES.allow(self.unpacked.tree.names().count).and_then(|()| paths::within());
        within.map_err(|beyond| self.beyond(beyond))
    }

    /// A symbolic link may point anywhere within the archive, and nowhere else.
    pub(super) fn check_links(&self) -> Result<()> {
        for (path, node) in self.unpacked.tree.iter() {
            if let TreeNode::Link { target } = node
                && leaves(&path, &target)
            {
                let why = format!("is a link to `{}`, which leaves the package", shown(&*target));
                return Err(self.refuse(path.as_bytes(), &why));
            }
        }
        Ok(())
    }

    pub(super) fn refuse(&self, entry: &[u8], why: &str) -> UnpackError {
        UnpackError::Entry { path: self.path.to_owned(), entry: quoted(entry), why: why.to_owned() }
    }

    /// File capabilities that no layer can have.
    pub(super) fn unkept(&self, entry: &[u8], why: &str) -> UnpackError {
        self.refuse(entry, &format!("has file capabilities ({ATTRIBUTE}) {why}"))
    }

    fn archive(&self, why: &str) -> UnpackError {
        UnpackError::Archive {
            path: self.path.to_owned(),
            why: why.to_owned(),
            hint: "make the package again: delete it first, as `make X-tar` leaves an old one alone"
                .to_owned(),
        }
    }

    fn beyond(&self, beyond: limits::Beyond) -> UnpackError {
        let (why, hint) = (format!("it has {beyond}"), beyond.hint());
        UnpackError::Archive { path: self.path.to_owned(), why, hint }
    }

    /// What an error in the middle of a file means.
    fn broken_in(&self, name: &str, error: io::Error) -> UnpackError {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return self.broken(ReadError::CutIn { name: name.as_bytes().to_vec() });
        }
        self.broken(error.into())
    }

    /// What an error of the reader means: too much, cut off, or damaged.
    fn broken(&self, error: ReadError) -> UnpackError {
        match error {
            ReadError::CutIn { name } => {
                self.archive(&format!("it is cut off in the middle of `{}`", shown_bytes(&name)))
            }
            ReadError::CutOff => self.archive("it is cut off"),
            ReadError::Entry { name, why } => self.refuse(&name, &why),
            ReadError::Damaged(why) => self.archive(&format!("it is damaged: {why}")),
            ReadError::Io(error) if is_too_much(&error) => UnpackError::Archive {
                path: self.path.to_owned(),
                why: format!("it unpacks to {TOO_MUCH}: a decompression bomb?"),
                hint: limits::Beyond(&limits::UNPACKED).hint(),
            },
            ReadError::Io(source) if Unkept::is(&source) => {
                UnpackError::Unkept { path: self.path.to_owned(), source }
            }
            ReadError::Io(error) if magic::Follows::is(&error) => self.archive(&error.to_string()),
            ReadError::Io(error) if is_cut(&error) => self.archive("it is cut off"),
            ReadError::Io(error) => self.archive(&format!("it is damaged: {error}")),
        }
    }
}

/// A name as a message quotes it, and no more than fits on a few lines.
pub(super) fn quoted(entry: &[u8]) -> String {
    shown_bytes(entry).to_string().chars().take(200).collect()
}

/// Executable for its owner, or not: nothing else of a mode survives but setuid and setgid bits, which the recipe has to know of.
pub(super) fn normal_mode(mode: u32) -> u32 {
    mode & BITS | if mode & 0o100 == 0 { 0o644 } else { 0o755 }
}

/// True where a link at `path` points out of the tree that `path` is relative to.
fn leaves(path: &str, target: &str) -> bool {
    let mut depth = path.matches('/').count();
    if target.starts_with('/') {
        return true;
    }
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." if depth == 0 => return true,
            ".." => depth -= 1,
            _ => depth += 1,
        }
    }
    false
}

fn describe(kind: EntryKind) -> String {
    match kind {
        EntryKind::BlockDevice => "a block device".to_owned(),
        EntryKind::CharacterDevice => "a character device".to_owned(),
        EntryKind::Fifo => "a named pipe".to_owned(),
        EntryKind::Other(flag) => format!("of a kind that no package has ({:?})", char::from(flag)),
        EntryKind::File | EntryKind::Directory | EntryKind::Symlink | EntryKind::HardLink => {
            "not what it seems".to_owned()
        }
    }
}
