//! What an input may have at most: every limit in one place, each with a name by which an operator raises it.
//!
//! Each is at least ten times what the largest real input needs: a deployment of a few hundred services, a web console of
//! about 20,000 files and 135 MB, an image of some thirty layers. `docs/limits.md` lists them.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::OnceLock;

use rustix::fs::OFlags;

/// A limit: its name, what it counts, and how many there may be.
#[derive(Debug)]
pub struct Limit {
    /// The variable that raises it.
    pub variable: &'static str,
    /// What is counted, in the plural.
    pub of: &'static str,
    /// The number, unless the variable says another.
    pub most: u64,
    set: OnceLock<u64>,
}

impl Limit {
    const fn new(variable: &'static str, of: &'static str, most: u64) -> Self {
        Self { variable, of, most, set: OnceLock::new() }
    }

    /// The number that holds: the variable's, where it is a number.
    pub fn value(&self) -> u64 {
        let set = || std::env::var(self.variable).ok().and_then(|text| text.trim().parse().ok());
        *self.set.get_or_init(|| set().unwrap_or(self.most))
    }

    /// True where an operator has said a number.
    pub fn is_set(&self) -> bool {
        self.value() != self.most
    }

    /// The same for what is counted in memory.
    pub fn count(&self) -> usize {
        usize::try_from(self.value()).unwrap_or(usize::MAX)
    }

    /// What `packed` bytes may unpack to, in bytes: a hundred times as many, or 256 MiB where that is more, and never more than
    /// this. Whoever raises the limit says it for every archive.
    pub fn unpacking(&self, packed: u64) -> u64 {
        const RATIO: u64 = 100;
        const ANY_RATIO: u64 = 256 << 20;
        let most = self.value();
        if self.is_set() { most } else { most.min(packed.saturating_mul(RATIO).max(ANY_RATIO)) }
    }

    /// An error where there are more.
    pub fn allow(&'static self, found: u64) -> Result<(), Beyond> {
        if found > self.value() { Err(Beyond(self)) } else { Ok(()) }
    }
}

/// More than a limit allows.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("more than {} {}", .0.value(), .0.of)]
pub struct Beyond(pub &'static Limit);

impl Beyond {
    /// How to raise it.
    pub fn hint(&self) -> String {
        format!("if it is meant, raise the limit: {}={}", self.0.variable, self.0.value().saturating_mul(4))
    }
}

/// One limit is one variable.
impl PartialEq for Beyond {
    fn eq(&self, other: &Self) -> bool {
        self.0.variable == other.0.variable
    }
}

impl Eq for Beyond {}

impl From<Beyond> for io::Error {
    fn from(beyond: Beyond) -> Self {
        Self::new(io::ErrorKind::FileTooLarge, format!("{beyond} ({} raises that)", beyond.0.variable))
    }
}

/// Of a compose file, an override, an `env_file`, `.env`, a recipe, the lock, docker's `config.json`.
pub static TEXT: Limit = Limit::new("TARSUP_LIMIT_TEXT", "bytes of text", 8 << 20);
/// Of a manifest, an index or an image's config: what registries take (distribution-spec, "Pushing manifests").
pub static DOCUMENT: Limit =
    Limit::new("TARSUP_LIMIT_DOCUMENT", "bytes of a manifest, index or config", 4 << 20);
/// Of a journal or record of ours.
pub static RECORD: Limit = Limit::new("TARSUP_LIMIT_RECORD", "bytes of a journal or record", 64 << 20);
/// Of an engine's answer that is kept whole.
pub static ANSWER: Limit = Limit::new("TARSUP_LIMIT_ANSWER", "bytes of an engine's answer", 64 << 20);
/// Of an image that an engine saves.
pub static IMAGE: Limit = Limit::new("TARSUP_LIMIT_IMAGE", "bytes of a saved image", 64 << 30);
/// Of a YAML file, aliases expanded.
pub static NODES: Limit = Limit::new("TARSUP_LIMIT_NODES", "values, aliases expanded", 200_000);
/// Of the texts of a YAML file, aliases and variables expanded.
pub static EXPANDED: Limit =
    Limit::new("TARSUP_LIMIT_EXPANDED", "bytes, aliases and variables expanded", 16 << 20);
/// Of ports that one service publishes or exposes.
pub static PORTS: Limit = Limit::new("TARSUP_LIMIT_PORTS", "ports of a service", 4096);
/// Of services that `extends` goes through.
pub static EXTENDS: Limit = Limit::new("TARSUP_LIMIT_EXTENDS", "services in a chain of `extends`", 64);
/// Of a package, a base, or a file that goes into an image, as it lies on the disk.
pub static FILE: Limit = Limit::new("TARSUP_LIMIT_FILE", "bytes of a file or archive", 8 << 30);
/// Of a package, a base, or a layer. Where nobody raised it, a small archive may unpack to less ([`Limit::unpacking`]).
pub static UNPACKED: Limit = Limit::new("TARSUP_LIMIT_UNPACKED", "bytes of an archive, unpacked", 4 << 30);
/// Of an archive: a package, a base.
pub static ENTRIES: Limit = Limit::new("TARSUP_LIMIT_ENTRIES", "entries of an archive", 200_000);
/// Of the libraries and packages of a base: what they are called, need and offer.
pub static LIBRARIES: Limit =
    Limit::new("TARSUP_LIMIT_LIBRARIES", "bytes of names in a base's libraries and packages", 8 << 20);
/// Of one image's programs, where their loaders look.
pub static LOOKUPS: Limit =
    Limit::new("TARSUP_LIMIT_LOOKUPS", "places where a library is looked for", 200_000);
/// Of what is known of the files of all inputs together, close packed (`crate::paths`): names, link targets, digests, what
/// programs ask and offer. It is in memory for as long as a build lasts.
pub static NAMES: Limit =
    Limit::new("TARSUP_LIMIT_NAMES", "bytes of memory for the names of files", 32 << 20);
/// Of the layer with the list of an image's files, as stored; a larger one counts as none.
pub static LIST: Limit =
    Limit::new("TARSUP_LIMIT_LIST", "bytes of the layer with an image's list of files", 8 << 20);
/// Of the list of one part of an image, uncompressed.
pub static LISTED: Limit =
    Limit::new("TARSUP_LIMIT_LISTED", "bytes of the list of the files of a part", 64 << 20);
/// Of a layer out of which a diff reads settings, templates, SQL and libraries, as stored; what differs in a larger one is told by size.
pub static LOOKED: Limit =
    Limit::new("TARSUP_LIMIT_LOOKED", "bytes of a layer that a diff looks into", 32 << 20);
/// Of a tars-init or another program that is read whole.
pub static PROGRAM: Limit = Limit::new("TARSUP_LIMIT_PROGRAM", "bytes of a program", 256 << 20);
/// Of threads that compress.
pub static THREADS: Limit = Limit::new("TARSUP_LIMIT_THREADS", "threads", 256);

/// Every limit, for the documentation and its test.
pub fn all() -> [&'static Limit; 20] {
    [
        &TEXT, &DOCUMENT, &RECORD, &ANSWER, &IMAGE, &NODES, &EXPANDED, &PORTS, &EXTENDS, &FILE, &UNPACKED,
        &ENTRIES, &NAMES, &LIST, &LISTED, &LOOKED, &LIBRARIES, &LOOKUPS, &PROGRAM, &THREADS,
    ]
}

/// Opens a file to be read. What is no file is refused by kind, and none of it is waited for; a link may lead to one.
pub fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_file() {
        return Ok(file);
    }
    let what = if kind.is_dir() { "a folder" } else { "a pipe or a device" };
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is {what}, not a file")))
}

/// The same, where it is no larger than this.
pub fn open_within(path: &Path, limit: &'static Limit) -> io::Result<File> {
    let file = open(path)?;
    limit.allow(file.metadata()?.len())?;
    Ok(file)
}

/// The whole file, where it is one and no larger than this.
pub fn read(path: &Path, limit: &'static Limit) -> io::Result<Vec<u8>> {
    let file = open_within(path, limit)?;
    let mut bytes = Vec::new();
    // It may grow meanwhile, and files of the kernel say that they are empty.
    file.take(limit.value().saturating_add(1)).read_to_end(&mut bytes)?;
    limit.allow(bytes.len() as u64)?;
    Ok(bytes)
}

/// The same for text.
pub fn read_text(path: &Path, limit: &'static Limit) -> io::Result<String> {
    String::from_utf8(read(path, limit)?).map_err(|error| {
        io::Error::new(io::ErrorKind::InvalidData, format!("it is no UTF-8 text: {}", error.utf8_error()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_or_too_large_is_refused_and_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("text"), "text").unwrap();
        std::os::unix::fs::symlink("text", path("link")).unwrap();
        for name in ["text", "link"] {
            assert_eq!(read_text(&path(name), &TEXT).unwrap(), "text");
        }
        rustix::fs::mknodat(rustix::fs::CWD, path("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0)
            .unwrap();
        let refused = |name: &str| read(&path(name), &TEXT).unwrap_err().to_string();
        assert_eq!(refused("pipe"), "it is a pipe or a device, not a file");
        assert_eq!(refused("."), "it is a folder, not a file");
        assert_eq!(read(Path::new("/dev/zero"), &TEXT).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        File::create(path("large")).unwrap().set_len(TEXT.most + 1).unwrap();
        assert_eq!(refused("large"), "more than 8388608 bytes of text (TARSUP_LIMIT_TEXT raises that)");
        File::create(path("largest")).unwrap().set_len(TEXT.most).unwrap();
        assert!(read(&path("largest"), &TEXT).is_ok());
    }

    #[test]
    fn limits_are_documented() {
        let page = include_str!("../docs/limits.md");
        for limit in all() {
            let row = format!("| `{}` | {} | {} |", limit.variable, limit.of, limit.most);
            assert!(page.contains(&row), "{row}");
        }
    }
}
