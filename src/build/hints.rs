//! What need not be read again: the digest of a file that has not changed, and what is in a package of that digest.
//!
//! All of it is hints in the cache. A layer that has to be made is made from the file itself.

use std::borrow::Cow;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::package::ServiceFiles;
use super::same;
use super::tree::{Content, Tree, TreeNode};
use super::version::Version;
use crate::contents::npm::Module;
use crate::elf::Elf;
use crate::limits;
use crate::oci::{Digest, HashingReader};
use crate::paths::ImagePathBuf;
use crate::store::{Cache, StoreError};
use crate::tarball::Capabilities;
use crate::tars::Service;

/// Hints to be read from the cache at once, and to be written only when something is built.
#[derive(Debug)]
pub struct Hints {
    cache: Cache,
    learned: Mutex<Vec<(Digest, Learned)>>,
}

/// What is written once something is built.
#[derive(Debug)]
enum Learned {
    /// Of a file.
    Digest(Digest),
    /// Of a package. Trees are shared.
    Services(Vec<(Service, u64, Option<Version>, Tree)>),
    /// Of the web console, or of files and folders.
    Tree(Tree),
}

impl Hints {
    /// The hints of this cache.
    pub fn new(cache: &Cache) -> Self {
        Self { cache: cache.clone(), learned: Mutex::default() }
    }

    /// The digest of a file, without reading it where device, inode, size and both times are as they were.
    pub fn digest(&self, path: &Path) -> io::Result<Digest> {
        self.digest_by(path, hash)?
    }

    /// The same, where who asks hashes the file, as it has something else to do with its bytes.
    pub fn digest_by<E>(
        &self,
        path: &Path,
        make: impl FnOnce(File) -> Result<Digest, E>,
    ) -> io::Result<Result<Digest, E>> {
        let file = limits::open_within(path, &limits::FILE)?;
        let key = identity(&file.metadata()?, SystemTime::now());
        if let Some(digest) = key.and_then(|key| self.cache.recall(&key)) {
            return Ok(Ok(digest));
        }
        let digest = make(file);
        let is_as_it_was = |key: &Digest| {
            fs::metadata(path).is_ok_and(|now| identity(&now, SystemTime::now()) == Some(*key))
        };
        if let (Ok(digest), Some(key)) = (&digest, key.filter(is_as_it_was)) {
            self.learn(key, Learned::Digest(*digest));
        }
        Ok(digest)
    }

    /// What a package of this digest holds, without the bytes.
    pub fn services(&self, package: &Digest) -> Option<Vec<(Service, ServiceFiles)>> {
        let listing: Vec<Recalled> = self.cache.recall(&listing_key(package))?;
        let files = |listed: Recalled| {
            let tree = listed.entries.0?;
            let files = ServiceFiles { tree, built: listed.built, release: listed.release };
            Some((listed.service.parse().ok()?, files))
        };
        listing.into_iter().map(files).collect()
    }

    /// Remembers what a package holds.
    pub fn learn_services<'s>(
        &self,
        package: &Digest,
        services: impl Iterator<Item = (&'s Service, &'s ServiceFiles)>,
    ) {
        let listing =
            services.map(|(service, files)| (*service, files.built, files.release, files.tree.clone()));
        self.learn(listing_key(package), Learned::Services(listing.collect()));
    }

    /// What a web console's package of this digest holds, without the bytes.
    pub fn web(&self, package: &Digest) -> Option<Tree> {
        self.cache.recall::<RecalledTree>(&web_key(package))?.0
    }

    /// Remembers what a web console's package holds.
    pub fn learn_web(&self, package: &Digest, tree: &Tree) {
        self.learn(web_key(package), Learned::Tree(tree.clone()));
    }

    /// What was made of files and folders: without reading them where all that `stat` says of them is as it was.
    pub fn tree<E>(
        &self,
        what: &str,
        paths: &[PathBuf],
        make: impl FnOnce() -> Result<Tree, E>,
    ) -> Result<Tree, E> {
        let before = tree_key(what, paths);
        if let Some(tree) = before.and_then(|key| self.cache.recall::<RecalledTree>(&key)?.0) {
            return Ok(tree);
        }
        let tree = make()?;
        if let Some(key) = before.filter(|before| tree_key(what, paths) == Some(*before)) {
            self.learn(key, Learned::Tree(tree.clone()));
        }
        Ok(tree)
    }

    fn learn(&self, key: Digest, value: Learned) {
        if let Ok(mut learned) = self.learned.lock() {
            learned.push((key, value));
        }
    }

    /// Writes what was learned.
    pub fn keep(&self) -> Result<(), StoreError> {
        let learned =
            self.learned.lock().map(|mut learned| std::mem::take(&mut *learned)).unwrap_or_default();
        learned.iter().try_for_each(|(key, value)| match value {
            Learned::Digest(digest) => self.cache.note(key, digest),
            Learned::Services(services) => {
                let listed: Vec<Listed<'_>> = services.iter().map(Listed::of).collect();
                self.cache.note(key, &listed)
            }
            Learned::Tree(tree) => self.cache.note(key, &Entries(tree)),
        })
    }
}

/// The digest of a file from where it is open on.
pub(super) fn hash(file: File) -> io::Result<Digest> {
    let mut reader = HashingReader::new(file);
    // What the processor's cache holds: a megabyte is mapped anew for each file.
    let mut buffer = vec![0; 128 * 1024];
    while reader.read(&mut buffer)? > 0 {}
    Ok(reader.finish().0)
}

/// What a release makes of a package may differ from what the one before made of it.
fn listing_key(package: &Digest) -> Digest {
    Digest::of(format!("tarsup package 8 of {}\n{package}\n", env!("CARGO_PKG_VERSION")))
}

/// `None` for what is too young to be told by its times.
fn tree_key(what: &str, paths: &[PathBuf]) -> Option<Digest> {
    let mut text = same::Text::new(io::sink());
    writeln!(text, "tarsup tree 3 of {}\n{what}", env!("CARGO_PKG_VERSION")).ok()?;
    let now = SystemTime::now();
    paths.iter().try_for_each(|path| same::told(path, &mut text, now).ok().flatten())?;
    Some(text.finish().1)
}

fn web_key(package: &Digest) -> Digest {
    Digest::of(format!("tarsup web 3 of {}\n{package}\n", env!("CARGO_PKG_VERSION")))
}

/// `None` for a file that changed a moment ago: it might change again within the clock's grain.
pub(super) fn identity(metadata: &fs::Metadata, now: SystemTime) -> Option<Digest> {
    let changed = UNIX_EPOCH + Duration::from_secs(u64::try_from(metadata.ctime()).ok()?);
    let age = now.duration_since(changed).ok()?;
    let text = format!(
        "tarsup file 1\n{} {} {} {}.{} {}.{}\n",
        metadata.dev(),
        metadata.ino(),
        metadata.len(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ctime(),
        metadata.ctime_nsec()
    );
    (age > Duration::from_secs(3)).then(|| Digest::of(text))
}

#[derive(Serialize)]
struct Listed<'t> {
    service: &'static str,
    built: u64,
    release: Option<Version>,
    entries: Entries<'t>,
}

/// Written one by one.
struct Entries<'t>(&'t Tree);

#[derive(Deserialize)]
struct Recalled {
    service: String,
    built: u64,
    release: Option<Version>,
    entries: RecalledTree,
}

/// `None` for a record that makes no sense, as if there were none.
struct RecalledTree(Option<Tree>);

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ListedEntry<'t> {
    Directory {
        path: ImagePathBuf,
        mode: u32,
    },
    File {
        path: ImagePathBuf,
        mode: u32,
        size: u64,
        digest: Digest,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        machine: Option<u16>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        elf: Option<Box<Elf>>,
        #[serde(default, skip_serializing_if = "<[Version]>::is_empty")]
        versions: Box<[Version]>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        capabilities: Option<Capabilities>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        module: Option<Box<Module>>,
    },
    Link {
        path: ImagePathBuf,
        target: Cow<'t, str>,
    },
}

impl<'t> Listed<'t> {
    fn of((service, built, release, tree): &'t (Service, u64, Option<Version>, Tree)) -> Self {
        Self { service: service.name(), built: *built, release: *release, entries: Entries(tree) }
    }
}

impl Serialize for Entries<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let entry = |(path, node): (ImagePathBuf, TreeNode)| match node {
            TreeNode::Directory { mode } => ListedEntry::Directory { path, mode },
            TreeNode::File { mode, content } => {
                let (size, digest, machine) = (content.size, content.digest, content.machine);
                let elf = content.elf.as_ref().map(|known| Box::new(Elf::clone(known)));
                let versions =
                    content.elf.as_ref().map_or_else(Box::default, |known| known.versions().into());
                let module = content.module.as_ref().map(|known| Box::new(Module::clone(known)));
                let capabilities = content.capabilities;
                ListedEntry::File { path, mode, size, digest, machine, elf, versions, capabilities, module }
            }
            TreeNode::Link { target } => ListedEntry::Link { path, target: target.into_string().into() },
        };
        serializer.collect_seq(self.0.iter().map(entry))
    }
}

impl<'de> Deserialize<'de> for RecalledTree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reading;
        impl<'de> Visitor<'de> for Reading {
            type Value = RecalledTree;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of files")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<RecalledTree, A::Error> {
                let mut tree = Some(Tree::default());
                while let Some(entry) = entries.next_element::<ListedEntry<'static>>()? {
                    let (path, node) = match entry {
                        ListedEntry::Directory { path, mode } => (path, TreeNode::Directory { mode }),
                        ListedEntry::File {
                            path,
                            mode,
                            size,
                            digest,
                            machine,
                            elf,
                            versions,
                            capabilities,
                            module,
                        } => {
                            let elf = elf.map(|elf| (*elf, versions));
                            let module = module.map(|module| *module);
                            let mut content = Content::known(digest, size, machine, elf, module);
                            content.capabilities = capabilities;
                            (path, TreeNode::File { mode, content })
                        }
                        ListedEntry::Link { path, target } => {
                            (path, TreeNode::Link { target: target.into_owned().into() })
                        }
                    };
                    tree = tree.and_then(|mut tree| tree.insert(path.path(), node).ok().map(|()| tree));
                }
                Ok(RecalledTree(tree))
            }
        }
        deserializer.deserialize_seq(Reading)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paths::ImagePath;

    #[test]
    fn identity_of_a_file_moves_with_any_change_and_is_none_while_it_is_young() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let later = SystemTime::now() + Duration::from_mins(1);
        let identity_at = |now| identity(&fs::metadata(&path).unwrap(), now);
        fs::write(&path, "one").unwrap();
        assert_eq!(identity_at(SystemTime::now()), None);
        let one = identity_at(later);
        assert!(one.is_some() && one == identity_at(later));
        // Another file of the same size, with the same modification time, under the same name.
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        let other = folder.path().join("y");
        fs::write(&other, "two").unwrap();
        std::fs::File::options().write(true).open(&other).unwrap().set_modified(modified).unwrap();
        fs::rename(&other, &path).unwrap();
        assert_ne!(identity_at(later), one);
    }

    #[test]
    fn package_is_known_again_without_its_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path());
        let mut files = ServiceFiles { built: 7, ..ServiceFiles::default() };
        let content = Content::bytes(&b"x"[..]);
        files.tree.insert(ImagePath::known("usr/bin/x"), TreeNode::File { mode: 0o755, content }).unwrap();
        files.tree.insert(ImagePath::known("usr/bin/y"), TreeNode::Link { target: "x".into() }).unwrap();
        let hints = Hints::new(&cache);
        let package = Digest::of("package");
        hints.learn_services(&package, [(&Service::Log, &files)].into_iter());
        assert!(hints.services(&package).is_none(), "nothing is written before a build");
        hints.keep().unwrap();
        let (service, again) = hints.services(&package).unwrap().remove(0);
        assert_eq!((service, again.built), (Service::Log, 7));
        assert!(!again.tree.is_read() && files.tree.is_read());
        let none = crate::build::layer::Folders::default();
        assert_eq!(
            crate::build::layer::key(&again.tree, &none),
            crate::build::layer::key(&files.tree, &none)
        );
    }
}
