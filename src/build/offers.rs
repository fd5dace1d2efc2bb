//! What a base offers to programs: its libraries, the folders that they are searched in, its Debian packages.
//!
//! It is gathered while the base is read, and kept with what else is known of the base: a rebuild does not look again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt as _;

use super::base::BasePaths;
use super::glob;
use super::tree::{Slice, unkept};
use crate::contents::Offers;
use crate::elf::{self, Elf};
use crate::limits;
use crate::paths::{ImagePath, ImagePathBuf};

/// The most of one file of a loader's configuration; of such files, of folders that they name, and of their `include`.
const LARGEST_CONF: u64 = 16 * 1024;
const MOST_CONFS: usize = 200;
/// The most of a list of packages, and of one of its lines.
const LARGEST_STATUS: u64 = 64 << 20;
const LONGEST_LINE: u64 = 64 * 1024;
/// How much of a library is read at once; a smaller one is never written anywhere.
const PIECE: usize = 64 * 1024;

/// What is known of a base while it is being read.
#[derive(Default)]
pub(super) struct Gathering {
    libraries: BTreeMap<ImagePathBuf, Elf>,
    confs: BTreeMap<ImagePathBuf, Vec<String>>,
    packages: BTreeMap<String, String>,
    /// True where dpkg's own list was read, which is whole.
    has_status: bool,
    /// Where a library lies while it is looked at: a file without a name.
    scratch: Option<File>,
    /// Bytes of names so far.
    names: u64,
}

impl Gathering {
    /// Reads a file of the base, where it is one that counts.
    pub(super) fn take(&mut self, path: ImagePath<'_>, size: u64, content: impl Read) -> io::Result<()> {
        let (name, folder, file) = (path.as_str(), path.folder().as_str(), path.name().as_str());
        if is_conf(folder, file) {
            if self.confs.len() < MOST_CONFS {
                let mut text = Vec::new();
                content.take(LARGEST_CONF).read_to_end(&mut text)?;
                let lines = String::from_utf8_lossy(&text).lines().map(str::to_owned).collect();
                self.confs.insert(path.to_buf(), lines);
            }
        } else if is_library(file) {
            if let Some(found) = self.library(content, size)? {
                self.names += found.weight();
                limits::LIBRARIES.allow(self.names)?;
                self.libraries.insert(path.to_buf(), found);
            }
        } else if name == "var/lib/dpkg/status" || folder == "var/lib/dpkg/status.d" {
            if name == "var/lib/dpkg/status" {
                self.packages.clear();
                self.has_status = true;
            }
            self.packages(content.take(LARGEST_STATUS))?;
        }
        Ok(())
    }

    /// Another name of a file.
    pub(super) fn link(&mut self, path: ImagePath<'_>, target: ImagePath<'_>) {
        if let Some(found) = self.libraries.get(target.as_str()).cloned() {
            self.libraries.insert(path.to_buf(), found);
        }
    }

    /// Of several entries with one name the last one counts.
    pub(super) fn forget(&mut self, path: ImagePath<'_>) {
        self.libraries.remove(path.as_str());
        self.confs.remove(path.as_str());
    }

    /// What a layer above has; `shows` is what of this one is not hidden by it.
    pub(super) fn cover(&mut self, above: Self, shows: impl Fn(&str) -> bool) {
        self.libraries.retain(|path, _| shows(path));
        self.confs.retain(|path, _| shows(path));
        if above.has_status {
            self.packages.clear();
        }
        self.has_status |= above.has_status;
        self.packages.extend(above.packages);
        self.libraries.extend(above.libraries);
        self.confs.extend(above.confs);
    }

    fn library(&mut self, mut content: impl Read, size: u64) -> io::Result<Option<Elf>> {
        let mut piece = Vec::new();
        (&mut content).take(PIECE as u64).read_to_end(&mut piece)?;
        if !piece.starts_with(b"\x7fELF") {
            return Ok(None);
        }
        if piece.len() as u64 >= size {
            return Ok(elf::read(piece.as_slice(), size)?.map(of_a_base));
        }
        if self.scratch.is_none() {
            self.scratch = Some(tempfile::tempfile().map_err(unkept)?);
        }
        let Some(file) = &self.scratch else { return Ok(None) };
        let mut end = 0;
        while !piece.is_empty() {
            file.write_all_at(&piece, end).map_err(unkept)?;
            end += piece.len() as u64;
            piece.resize(PIECE, 0);
            let read = content.read(&mut piece)?;
            piece.truncate(read);
        }
        Ok(elf::read(&Slice { file, offset: 0 }, end)?.map(of_a_base))
    }

    /// dpkg's list: `Package`, `Status` and `Version` of each paragraph (deb-control(5)).
    fn packages(&mut self, content: impl Read) -> io::Result<()> {
        let mut content = BufReader::new(content);
        let (mut name, mut version, mut installed) = (String::new(), String::new(), true);
        loop {
            let mut line = Vec::new();
            let read = (&mut content).take(LONGEST_LINE).read_until(b'\n', &mut line)?;
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end();
            if line.is_empty() {
                let (name, version) = (std::mem::take(&mut name), std::mem::take(&mut version));
                if installed && !name.is_empty() {
                    self.names += (name.len() + version.len()) as u64;
                    limits::LIBRARIES.allow(self.names)?;
                    self.packages.insert(name, version);
                }
                installed = true;
            }
            if read == 0 {
                return Ok(());
            }
            match line.split_once(": ") {
                Some(("Package", value)) => value.clone_into(&mut name),
                Some(("Version", value)) => value.clone_into(&mut version),
                Some(("Status", value)) => installed = value.ends_with(" installed"),
                _ => {}
            }
        }
    }

    /// What counts of it, once everything of the base is known.
    pub(super) fn finish(self, base: &BasePaths) -> Offers {
        let mut search =
            Search { confs: &self.confs, base, folders: Vec::new(), seen: BTreeSet::new(), includes: 0 };
        search.conf(ImagePath::known("etc/ld.so.conf"));
        let folders = search.folders;
        let named = folders.iter().filter_map(|folder| base.led(folder));
        let searched: BTreeSet<ImagePathBuf> =
            named.chain(standard_folders().filter_map(|folder| base.led(folder))).collect();
        // Elsewhere a search path may lead to what is called as libraries are; what is not is a module of some program.
        let is_found =
            |path: ImagePath<'_>| path.name().starts_with("lib") || searched.contains(path.folder().as_str());
        let mut libraries = self.libraries;
        // What lay in a folder that is none any more is no file of the base.
        libraries.retain(|path, _| is_found(path.path()) && base.files.has(path));
        Offers { libraries, folders, packages: self.packages, ..Offers::default() }
    }
}

/// A loader's configuration (ld.so.conf(5)), each file of it read once.
struct Search<'a> {
    confs: &'a BTreeMap<ImagePathBuf, Vec<String>>,
    base: &'a BasePaths,
    /// The folders that it names, in order.
    folders: Vec<String>,
    seen: BTreeSet<ImagePathBuf>,
    includes: usize,
}

impl Search<'_> {
    fn conf(&mut self, path: ImagePath<'_>) {
        if !self.seen.insert(path.to_buf()) {
            return;
        }
        let conf = self.base.led(&path).unwrap_or_default();
        let is_new = conf.path() == path || self.seen.insert(conf.clone());
        let confs = self.confs;
        let Some(lines) = confs.get(&conf).filter(|_| is_new) else { return };
        for line in lines.iter().map(|line| line.split('#').next().unwrap_or_default().trim()) {
            if let Some(patterns) = line.strip_prefix("include ").or_else(|| line.strip_prefix("include\t")) {
                for pattern in patterns.split_whitespace() {
                    self.include(conf.path(), pattern);
                }
            } else if line.starts_with('/') && self.folders.len() < MOST_CONFS {
                // The kind that may follow (`=libc6`) is of the past.
                let folder = line.split([' ', '\t', '=']).next().unwrap_or(line).trim_matches('/').to_owned();
                if !self.folders.contains(&folder) {
                    self.folders.push(folder);
                }
            }
        }
    }

    fn include(&mut self, conf: ImagePath<'_>, pattern: &str) {
        self.includes += 1;
        if self.includes > MOST_CONFS {
            return;
        }
        let beside = conf.folder();
        let pattern = match pattern.strip_prefix('/') {
            Some(absolute) => absolute.to_owned(),
            None => format!("{beside}/{pattern}"),
        };
        let Some((folder, names)) = pattern.rsplit_once('/') else { return };
        let Some(folder) = self.base.led(folder) else { return };
        let within = |path: &ImagePathBuf| {
            let path = path.path();
            path.folder() == folder.path() && glob::matches(names.as_bytes(), path.name().as_bytes())
        };
        let linked = self.base.links.below(&folder);
        let found: BTreeSet<ImagePathBuf> = self.confs.keys().cloned().chain(linked).filter(within).collect();
        for path in found {
            self.conf(path.path());
        }
    }
}

/// Every library that a loader finds by its name has this in it.
pub(super) fn is_library(file: &str) -> bool {
    file.contains(".so")
}

fn is_conf(folder: &str, file: &str) -> bool {
    folder == "etc" && file.starts_with("ld.so.conf") || folder.starts_with("etc/ld.so.conf.d")
}

/// Of a library of a base, whose build its package tells.
fn of_a_base(elf: Elf) -> Elf {
    Elf { build_id: None, ..elf }
}

/// What ld.so searches whatever its configuration says, on Debian and elsewhere, for every machine.
fn standard_folders() -> impl Iterator<Item = &'static str> {
    MACHINES.iter().flat_map(|(_, folders)| *folders).chain(&ANY_MACHINE).copied()
}

/// The same for one machine (`e_machine`).
pub(super) fn standard_folders_of(machine: u16) -> impl Iterator<Item = &'static str> {
    let own = MACHINES.iter().find(|(known, _)| *known == machine).map_or(&[][..], |(_, folders)| *folders);
    own.iter().chain(&ANY_MACHINE).copied()
}

const ANY_MACHINE: [&str; 4] = ["lib64", "usr/lib64", "lib", "usr/lib"];
/// Debian's folders of libraries, by `e_machine`.
const MACHINES: [(u16, &[&str]); 6] = [
    (3, &["lib/i386-linux-gnu", "usr/lib/i386-linux-gnu"]),
    (40, &["lib/arm-linux-gnueabihf", "usr/lib/arm-linux-gnueabihf"]),
    (62, &["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"]),
    (183, &["lib/aarch64-linux-gnu", "usr/lib/aarch64-linux-gnu"]),
    (243, &["lib/riscv64-linux-gnu", "usr/lib/riscv64-linux-gnu"]),
    (258, &["lib/loongarch64-linux-gnu", "usr/lib/loongarch64-linux-gnu"]),
];
