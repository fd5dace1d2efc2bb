//! Reads a gzipped tar, or a folder, into a tree, and refuses whatever has no business in one: nothing touches the disk.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use super::tree::{Node, Spool, Tree};
use crate::diagnose::{Diagnose, Exit, Place};
use crate::oci::{Digest, HashingReader};

/// What an archive may hold at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Uncompressed bytes.
    pub bytes: u64,
    /// Entries.
    pub entries: usize,
    /// Uncompressed bytes for each compressed one; counts only beyond [`Limits::ratio_from`].
    pub ratio: u64,
    /// Uncompressed bytes up to which any ratio is fine.
    pub ratio_from: u64,
}

/// Generous: the largest real input, the web with its modules, has 135 MB in 20,000 files.
pub const LIMITS: Limits = Limits { bytes: 4 << 30, entries: 500_000, ratio: 100, ratio_from: 256 << 20 };

/// What was read: names are relative, modes 0755 or 0644.
#[derive(Debug, Default)]
pub struct Unpacked {
    /// Files, folders and links.
    pub tree: Tree,
    /// When each regular file was last changed, seconds since 1970. Not a part of any layer.
    pub modified: BTreeMap<String, u64>,
    /// The digest of the archive's own bytes, exactly those that were read; `None` for a folder.
    pub digest: Option<Digest>,
}

/// Why an archive or a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The file or folder cannot be opened or read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's words.
        source: io::Error,
    },
    /// The whole of it is not what it should be.
    #[error("{}: {why}", path.display())]
    Archive {
        /// The archive.
        path: PathBuf,
        /// What is wrong.
        why: String,
        /// What to do.
        hint: String,
    },
    /// One entry has no business in it.
    #[error("{}: entry `{entry}` {why}", path.display())]
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
        Exit::Usage
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
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
            Self::Read { path, .. } | Self::Archive { path, .. } | Self::Entry { path, .. } => {
                Some(Place::file(path))
            }
        }
    }
}

type Result<T> = std::result::Result<T, UnpackError>;

/// Reads a gzipped tar.
pub fn read_tgz(path: &Path, limits: Limits) -> Result<Unpacked> {
    let open = |source| UnpackError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(open)?;
    let packed = file.metadata().map_err(open)?.len();
    let mut file = BufReader::with_capacity(256 * 1024, HashingReader::new(file));
    let magic = io::BufRead::fill_buf(&mut file).map_err(open)?;
    if !magic.starts_with(&[0x1f, 0x8b]) {
        return Err(UnpackError::Archive {
            path: path.to_owned(),
            why: if magic.is_empty() { "it is empty" } else { "it is not gzipped" }.to_owned(),
            hint: "make the package again: `make X-tar` writes a gzipped tar".to_owned(),
        });
    }
    let budget = limits.bytes.min((packed.saturating_mul(limits.ratio)).max(limits.ratio_from));
    let stream = Bounded { inner: MultiGzDecoder::new(file), rest: budget, zeros: 0 };
    let reader = Reader { path, unpacked: Unpacked::default(), spool: Spool::default(), entries: 0, limits };
    let (mut unpacked, stream) = reader.read(stream)?;
    let mut file = stream.inner.into_inner();
    io::copy(&mut file, &mut io::sink()).map_err(open)?;
    unpacked.digest = Some(file.into_inner().finish().0);
    Ok(unpacked)
}

/// Reads so much and no more, and counts the zero bytes at the end.
struct Bounded<R> {
    inner: R,
    rest: u64,
    zeros: u64,
}

/// What [`Bounded`] fails with; found again by its text, as it passes through the tar crate.
const TOO_MUCH: &str = "more than a package may hold";

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

struct Reader<'a> {
    path: &'a Path,
    unpacked: Unpacked,
    spool: Spool,
    entries: usize,
    limits: Limits,
}

impl Reader<'_> {
    /// The tree, and the stream at its end.
    fn read<R: Read>(mut self, stream: Bounded<R>) -> Result<(Unpacked, Bounded<R>)> {
        let mut archive = tar::Archive::new(stream);
        for entry in archive.entries().map_err(|error| self.broken(&error))? {
            let entry = entry.map_err(|error| self.broken(&error))?;
            self.entry(entry)?;
        }
        // To the very end: only there does gzip say whether the checksum holds.
        let mut stream = archive.into_inner();
        io::copy(&mut stream, &mut io::sink()).map_err(|error| self.broken(&error))?;
        if stream.zeros < 1024 {
            return Err(self.archive("it is cut off: the tar has no end"));
        }
        if self.unpacked.tree.is_empty() {
            return Err(self.archive("there is nothing in it"));
        }
        self.check_links()?;
        Ok((self.unpacked, stream))
    }

    fn entry<R: Read>(&mut self, mut entry: tar::Entry<'_, R>) -> Result<()> {
        use tar::EntryType as T;
        let kind = entry.header().entry_type();
        if kind == T::XGlobalHeader {
            return Ok(());
        }
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(self.archive(&format!("it has more than {} entries", self.limits.entries)));
        }
        let raw = entry.path_bytes().into_owned();
        let Some(name) = self.name(&raw)? else { return Ok(()) };
        let mode = entry.header().mode().map_err(|error| self.broken(&error))?;
        let node = match kind {
            T::Directory => Node::Directory { mode: 0o755 },
            T::Regular | T::Continuous => {
                let expected = entry.size();
                let modified = entry.header().mtime().unwrap_or(0);
                let content = self.spool.keep(&mut entry).map_err(|error| self.broken(&error))?;
                if content.size != expected {
                    return Err(self.archive(&format!("it is cut off in the middle of `{name}`")));
                }
                self.unpacked.modified.insert(name.clone(), modified);
                Node::File { mode: normal_mode(mode), content }
            }
            T::Symlink => Node::Link { target: self.target(&name, &entry)? },
            T::Link => self.hard_link(&name, &entry)?,
            other => return Err(self.refuse(&name, &format!("is {}", describe(other)))),
        };
        self.insert(&name, node)
    }

    /// The name without `./` and trailing `/`; `None` for the root itself.
    fn name(&self, raw: &[u8]) -> Result<Option<String>> {
        let shown = String::from_utf8_lossy(raw).into_owned();
        let Ok(text) = std::str::from_utf8(raw) else {
            return Err(self.refuse(&shown, "has a name that is not UTF-8"));
        };
        if text.starts_with('/') {
            return Err(self.refuse(text, "has an absolute name"));
        }
        if text.chars().any(char::is_control) {
            return Err(self.refuse(text, "has control characters in its name"));
        }
        let mut parts = Vec::new();
        for part in text.split('/') {
            match part {
                "" | "." => {}
                ".." => return Err(self.refuse(text, "climbs out of the package with `..`")),
                _ if part.starts_with(".wh.") => {
                    return Err(self.refuse(text, "has a name that deletes files in an image (`.wh.`)"));
                }
                _ => parts.push(part),
            }
        }
        Ok((!parts.is_empty()).then(|| parts.join("/")))
    }

    fn target<R: Read>(&self, name: &str, entry: &tar::Entry<'_, R>) -> Result<String> {
        let raw = entry.link_name_bytes().unwrap_or_default();
        let text =
            String::from_utf8(raw.into_owned()).ok().filter(|text| !text.chars().any(char::is_control));
        text.filter(|text| !text.is_empty())
            .ok_or_else(|| self.refuse(name, "is a link to a name that cannot be written"))
    }

    /// The same content under a second name.
    fn hard_link<R: Read>(&mut self, name: &str, entry: &tar::Entry<'_, R>) -> Result<Node> {
        let target = self.target(name, entry)?;
        if target.starts_with('/') || target.split('/').any(|part| part == "..") {
            return Err(self.refuse(name, &format!("is a hard link to `{target}`, which leaves the package")));
        }
        let key = self.name(target.as_bytes())?.unwrap_or_default();
        match self.unpacked.tree.get(&key) {
            Some(file @ Node::File { .. }) => Ok(file.clone()),
            _ => Err(self.refuse(name, &format!("is a hard link to `{target}`, which is no file before it"))),
        }
    }

    fn insert(&mut self, name: &str, node: Node) -> Result<()> {
        self.unpacked.tree.insert(name, node).map_err(|taken| {
            let why = if taken.path == name {
                "is there twice, with different contents".to_owned()
            } else {
                format!("lies below `{}`, which is no folder", taken.path)
            };
            self.refuse(name, &why)
        })
    }

    /// A symbolic link may point anywhere within the archive, and nowhere else.
    fn check_links(&self) -> Result<()> {
        for (path, node) in self.unpacked.tree.iter() {
            if let Node::Link { target } = node
                && leaves(path, target)
            {
                return Err(self.refuse(path, &format!("is a link to `{target}`, which leaves the package")));
            }
        }
        Ok(())
    }

    fn refuse(&self, entry: &str, why: &str) -> UnpackError {
        UnpackError::Entry {
            path: self.path.to_owned(),
            entry: entry.escape_debug().take(200).collect(),
            why: why.to_owned(),
        }
    }

    fn archive(&self, why: &str) -> UnpackError {
        UnpackError::Archive {
            path: self.path.to_owned(),
            why: why.to_owned(),
            hint: "make the package again: delete it first, as `make X-tar` leaves an old one alone"
                .to_owned(),
        }
    }

    /// What an error of the reader means: too much, cut off, or damaged.
    fn broken(&self, error: &io::Error) -> UnpackError {
        let text = error.to_string();
        if chain_says(error, TOO_MUCH) {
            let why = format!("it unpacks to {TOO_MUCH}: a decompression bomb?");
            return self.archive(&why);
        }
        if error.kind() == io::ErrorKind::UnexpectedEof || text.contains("unexpected end of file") {
            return self.archive("it is cut off");
        }
        self.archive(&format!("it is damaged: {text}"))
    }
}

fn chain_says(error: &io::Error, text: &str) -> bool {
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = source {
        if error.to_string().contains(text) {
            return true;
        }
        source = error.source();
    }
    false
}

/// Executable for its owner, or not: nothing else of a mode survives.
fn normal_mode(mode: u32) -> u32 {
    if mode & 0o100 == 0 { 0o644 } else { 0o755 }
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

fn describe(kind: tar::EntryType) -> String {
    match kind {
        tar::EntryType::Block => "a block device".to_owned(),
        tar::EntryType::Char => "a character device".to_owned(),
        tar::EntryType::Fifo => "a named pipe".to_owned(),
        tar::EntryType::GNUSparse => "a sparse file, which is not read".to_owned(),
        other => format!("of a kind that no package has ({:?})", char::from(other.as_byte())),
    }
}

/// Reads a folder of the host; what is no file, folder or link that stays within it is refused.
pub fn read_folder(root: &Path) -> Result<Unpacked> {
    let spool = Spool::default();
    let mut reader = Reader {
        path: root,
        unpacked: Unpacked::default(),
        spool: Spool::default(),
        entries: 0,
        limits: LIMITS,
    };
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let failed = |source| UnpackError::Read { path: folder.clone(), source };
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if let Some(below) = reader.host_entry(root, &path, &spool)? {
                folders.push(below);
            }
        }
    }
    reader.check_links()?;
    Ok(reader.unpacked)
}

/// Reads one file of the host.
pub fn read_file(path: &Path) -> Result<Node> {
    let failed = |source| UnpackError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(UnpackError::Archive {
            path: path.to_owned(),
            why: "it is no regular file".to_owned(),
            hint: "name a file".to_owned(),
        });
    }
    let content = Spool::default().keep(file).map_err(failed)?;
    Ok(Node::File { mode: normal_mode(std::os::unix::fs::MetadataExt::mode(&metadata)), content })
}

impl Reader<'_> {
    /// Takes one entry of a folder in; a folder comes back, to be read in its turn.
    fn host_entry(&mut self, root: &Path, path: &Path, spool: &Spool) -> Result<Option<PathBuf>> {
        use std::os::unix::ffi::OsStrExt as _;
        use std::os::unix::fs::MetadataExt as _;
        let failed = |source| UnpackError::Read { path: path.to_owned(), source };
        let relative = path.strip_prefix(root).unwrap_or(path);
        let Some(name) = self.name(relative.as_os_str().as_bytes())? else { return Ok(None) };
        let metadata = fs::symlink_metadata(path).map_err(failed)?;
        if metadata.is_dir() {
            self.insert(&name, Node::Directory { mode: 0o755 })?;
            return Ok(Some(path.to_owned()));
        }
        let node = if metadata.is_symlink() {
            let target = fs::read_link(path).map_err(failed)?;
            let target =
                target.to_str().ok_or_else(|| self.refuse(&name, "is a link to a name that is not UTF-8"))?;
            Node::Link { target: target.to_owned() }
        } else if metadata.is_file() {
            let content = spool.keep(File::open(path).map_err(failed)?).map_err(failed)?;
            self.unpacked.modified.insert(name.clone(), u64::try_from(metadata.mtime()).unwrap_or(0));
            Node::File { mode: normal_mode(metadata.mode()), content }
        } else {
            return Err(self.refuse(&name, "is no file, folder or link"));
        };
        self.insert(&name, node)?;
        Ok(None)
    }
}
