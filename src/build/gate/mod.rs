//! The gate: whether what is to lie on a base can run there, found as its loader would find it.
//!
//! ld.so's own order (ld.so(8)): `DT_RPATH`, `LD_LIBRARY_PATH`, `DT_RUNPATH`, its cache, its standard folders. The cache is
//! the base's: what a layer adds to a folder of `ld.so.conf` is not in it.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::base::BasePaths;
use super::listing;
use super::offers::standard_folders_of;
use super::tree::{Tree, TreeNode};
use crate::contents::{Kind, Part};
use crate::diagnose::first_few;
use crate::elf::Elf;
use crate::limits;
use crate::paths::ImagePathBuf;
use crate::paths::image::{follow, led};
use crate::tars::catalogue::TARS_PATH;

mod finding;

pub use finding::{Finding, GateError, SCRATCH};
use finding::{Lack, Owner, short};

/// What is visible of a layer: of one that stays, or of one that is to be made, which may be large.
#[derive(Clone, Copy)]
pub(super) enum Shown<'a> {
    /// As an image tells.
    Part(&'a Part),
    /// As it will be.
    Tree(&'a Tree),
}

impl<'a> Shown<'a> {
    /// What stands at a path, and where it leads.
    fn at(self, path: &str) -> Option<(Kind, Option<String>)> {
        match self {
            Self::Part(part) => {
                let entry = part.entries.get(path)?;
                Some((entry.kind, (entry.kind == Kind::Link).then_some(entry.target)))
            }
            Self::Tree(tree) => Some(match tree.get(path)? {
                TreeNode::Directory { .. } => (Kind::Folder, None),
                TreeNode::File { .. } => (Kind::File, None),
                TreeNode::Link { target } => (Kind::Link, Some(target.into_string())),
            }),
        }
    }

    /// What a library at a path asks and offers.
    fn library(self, path: &str) -> Option<&'a Elf> {
        match self {
            Self::Part(part) => part.offers.as_ref()?.libraries.get(path),
            Self::Tree(tree) => listing::library(path, tree),
        }
    }
}

/// What a program finds: the base, and the layers above it.
pub(super) struct World<'a> {
    /// The base.
    pub base: &'a BasePaths,
    /// What a person calls the base.
    pub base_name: String,
    /// Name → what is visible of it. Parts never have different things at one path.
    pub parts: Vec<(&'a str, Shown<'a>)>,
    /// The image's `LD_LIBRARY_PATH`, folder by folder.
    pub library_path: Vec<String>,
    /// Where folders lead that were asked for before: programs look for their libraries in the same few.
    pub led: RefCell<BTreeMap<String, Option<ImagePathBuf>>>,
}

/// A program or library that is to run.
#[derive(Clone)]
pub(super) struct Program<'a> {
    layer: &'a str,
    path: Cow<'a, str>,
    elf: &'a Elf,
}

/// What of a layer a loader is asked for.
pub(super) fn programs<'a>(layer: &'a str, tree: &'a Tree) -> impl Iterator<Item = Program<'a>> {
    let is_loaded = |elf: &Elf| elf.interpreter.is_some() || !elf.needed.is_empty();
    let loaded = tree.elves().filter(move |(_, elf)| is_loaded(elf));
    loaded.map(move |(path, elf)| Program { layer, path: String::from(path).into(), elf })
}

impl Program<'_> {
    /// The name of its file: findings are waived by it.
    fn file(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    /// What a person calls it: a service's program by the service.
    fn shown(&self) -> String {
        let is_service = self.path == format!("{}/{layer}/bin/{layer}", &TARS_PATH[1..], layer = self.layer);
        if is_service { self.layer.to_owned() } else { format!("/{}", self.path) }
    }
}

/// So many findings are said, and how many more there are.
const MOST_SAID: usize = 8;

/// What the gate found.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// What cannot run, and why.
    pub findings: Vec<Finding>,
    /// What a person ought to know: refused with `--strict`.
    pub warnings: Vec<String>,
    /// What was waived, and waivers of nothing.
    pub notes: Vec<String>,
}

/// Judges every program; `waive` has findings by name, `tarsstat:libmariadb.so.3`.
pub(super) fn judge(
    world: &World<'_>,
    programs: &[Program<'_>],
    waive: &[String],
) -> Result<Verdict, GateError> {
    let mut verdict = Verdict::default();
    let mut used: BTreeSet<&str> = BTreeSet::new();
    let mut found: BTreeMap<Lack, Vec<(String, String)>> = BTreeMap::new();
    let (mut doubts, mut passed) = (BTreeMap::<String, Vec<String>>::new(), BTreeMap::new());
    let mut lookups = 0;
    for program in programs {
        let mut is_waived = |need: &str| {
            let names = [format!("{}:{need}", program.file()), format!("*:{need}")];
            let given = waive.iter().find(|given| names.contains(given));
            used.extend(given.map(String::as_str));
            given.is_some()
        };
        if let Some(doubt) = world.stray_folders(program) {
            let list = if is_waived(RUNPATH) { &mut passed } else { &mut doubts };
            list.entry(doubt).or_default().push(program.shown());
        }
        for (need, doubt) in world.lacks_of_scripts(program) {
            let list = if is_waived(need) { &mut passed } else { &mut doubts };
            list.entry(doubt).or_default().push(program.shown());
        }
        for lack in world.lacks(program, &mut lookups)? {
            if is_waived(lack.need()) {
                verdict.notes.push(format!("{} needs {lack}, as waived", short(program.shown())));
            } else {
                found.entry(lack).or_default().push((program.shown(), program.file().to_owned()));
            }
        }
    }
    let said = |(doubt, programs): (String, Vec<String>)| {
        format!("{}: {doubt}", first_few(&programs.iter().map(short).collect::<Vec<_>>()))
    };
    verdict.warnings.extend(doubts.into_iter().map(said));
    verdict.notes.extend(passed.into_iter().map(said).map(|doubt| doubt + "; as waived"));
    let unused = waive.iter().filter(|given| !used.contains(given.as_str()));
    verdict.notes.extend(unused.map(|given| format!("`waive: {given}` waives nothing")));
    let packages = world.base.offers.as_ref().map(|offers| &offers.packages);
    let more = found.len().saturating_sub(MOST_SAID);
    verdict.findings = found
        .into_iter()
        .take(MOST_SAID)
        .map(|(lack, programs)| Finding::new(lack, programs, &world.base_name, packages))
        .collect();
    if let Some(last) = verdict.findings.last_mut() {
        last.more = more;
    }
    for said in [&mut verdict.warnings, &mut verdict.notes] {
        let more = said.len().saturating_sub(MOST_SAID);
        said.truncate(MOST_SAID);
        said.extend((more > 0).then(|| format!("and {more} more of this kind")));
    }
    Ok(verdict)
}

/// Something that a loader has mapped, or could not.
struct Object<'a> {
    path: String,
    /// Unknown for a file that nobody has looked into.
    elf: Option<&'a Elf>,
    owner: Owner,
    /// The `DT_RPATH` of this object and of those that it was loaded for, for what has no `DT_RUNPATH`.
    chain: Vec<String>,
}

impl Object<'_> {
    fn file(&self) -> String {
        self.path.rsplit('/').next().unwrap_or(&self.path).to_owned()
    }
}

/// What becomes of a search.
enum Sought<'a> {
    /// A loader finds it.
    There(Found<'a>),
    /// It lies in this folder, which the loader's cache does not know.
    Unlisted(String),
    /// No layer has it where a loader looks.
    Nowhere,
}

/// A file, whichever layer has it.
struct Found<'a> {
    path: String,
    elf: Option<&'a Elf>,
    owner: Owner,
}

impl<'a> World<'a> {
    /// What stands at a path whose folder has been followed.
    fn kind(&self, path: &str) -> Option<(Kind, Option<String>, Owner)> {
        for (name, part) in &self.parts {
            if let Some((kind, target)) = part.at(path) {
                return Some((kind, target, Owner::Layer((*name).to_owned())));
            }
        }
        let target = self.base.links.get(path);
        let kind = if target.is_some() { Kind::Link } else { self.base.kind(path)? };
        Some((kind, target, Owner::Base))
    }

    /// Where a path leads, as a program names it.
    fn led(&self, path: &str) -> Option<ImagePathBuf> {
        /// So many are kept.
        const KEPT: usize = 1000;
        let link = |path: &str| self.kind(path)?.1;
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let known = self.led.borrow().get(folder).cloned();
        let folder_led = known.unwrap_or_else(|| {
            let led = led(link, folder);
            let mut kept = self.led.borrow_mut();
            if kept.len() < KEPT {
                kept.insert(folder.to_owned(), led.clone());
            }
            led
        });
        follow(link, folder_led?.path(), name).ok()
    }

    /// The file that a path leads to.
    fn file(&self, path: &str) -> Option<Found<'a>> {
        let path = self.led(path)?;
        let (kind, _, owner) = self.kind(&path)?;
        let elf = match &owner {
            Owner::Base => self.base.offers.as_ref().and_then(|offers| offers.libraries.get(&*path)),
            Owner::Layer(name) => self.parts.iter().find(|(known, _)| known == name)?.1.library(&path),
        };
        (kind == Kind::File).then_some(Found { path: path.into(), elf, owner })
    }

    fn has_folder(&self, path: &str) -> bool {
        let kind = self.led(path).and_then(|path| Some(self.kind(&path)?.0));
        kind == Some(Kind::Folder)
    }

    /// What a program's loader would not find.
    fn lacks(&self, program: &Program<'_>, lookups: &mut u64) -> Result<Vec<Lack>, GateError> {
        let mut lacks = Vec::new();
        let mut loaded: BTreeMap<String, Option<usize>> = BTreeMap::new();
        let mut objects: Vec<Object<'_>> = Vec::new();
        let mut is_musl = false;
        let own = Object {
            chain: own_chain(program.elf, folder_of(&program.path)),
            path: program.path.clone().into_owned(),
            elf: Some(program.elf),
            owner: Owner::Layer(program.layer.to_owned()),
        };
        objects.push(own);
        if let Some(loader) = &program.elf.interpreter {
            let Some(found) = self.file(loader.trim_start_matches('/')) else {
                return Ok(vec![Lack::Loader { path: loader.clone() }]);
            };
            let name = loader.rsplit('/').next().unwrap_or(loader).to_owned();
            is_musl = name.starts_with("ld-musl");
            // What it is called is what libraries ask for, whatever file it leads to.
            loaded.insert(name, Some(objects.len()));
            let Found { path, elf, owner } = found;
            objects.push(Object { path, elf, owner, chain: Vec::new() });
        }
        let mut at = 0;
        while at < objects.len() {
            let needed = objects[at].elf.map(|elf| elf.needed.as_slice()).unwrap_or_default();
            for name in needed {
                if loaded.contains_key(name) || is_musl && name.starts_with("libc.") {
                    continue;
                }
                let asking = &objects[at];
                let by = (at > 0).then(|| asking.file());
                let unlisted = match self.library(name, asking, program, is_musl, lookups)? {
                    Sought::There(Found { path, elf, owner }) => {
                        let mut chain = elf.map(|elf| own_chain(elf, folder_of(&path))).unwrap_or_default();
                        chain.extend(asking.chain.iter().cloned());
                        loaded.insert(name.clone(), Some(objects.len()));
                        objects.push(Object { path, elf, owner, chain });
                        continue;
                    }
                    Sought::Unlisted(folder) => Some(folder),
                    Sought::Nowhere => None,
                };
                loaded.insert(name.clone(), None);
                lacks.push(Lack::Library { name: name.clone(), by, unlisted });
            }
            at += 1;
        }
        if !is_musl {
            lacks_of_versions(&objects, &loaded, &mut lacks);
        }
        Ok(lacks)
    }

    /// Where a library is found.
    fn library(
        &self,
        name: &str,
        asking: &Object<'_>,
        program: &Program<'_>,
        is_musl: bool,
        lookups: &mut u64,
    ) -> Result<Sought<'a>, GateError> {
        let mut look = |path: &str| {
            *lookups += 1;
            limits::LOOKUPS.allow(*lookups).map_err(GateError::Beyond)?;
            let found = self.file(path);
            // A library for another machine is passed over.
            let fits = |found: &Found<'_>| {
                found
                    .elf
                    .is_none_or(|elf| (elf.machine, elf.narrow) == (program.elf.machine, program.elf.narrow))
            };
            Ok::<_, GateError>(found.filter(fits))
        };
        if name.contains('/') {
            return Ok(look(name.trim_start_matches('/'))?.map_or(Sought::Nowhere, Sought::There));
        }
        let (origin, elf) = (folder_of(&asking.path), asking.elf);
        let runpath = elf.map(|elf| elf.runpath.as_slice()).unwrap_or_default();
        let chain = asking.chain.iter().filter(|_| runpath.is_empty()).cloned();
        let service = service_folder(program);
        let runpath = runpath.iter().filter_map(|folder| expanded(folder, origin, program.elf.machine));
        let named = chain.chain(self.library_path.iter().cloned()).chain(service).chain(runpath);
        for folder in named {
            if let Some(found) = look(&format!("{folder}/{name}"))? {
                return Ok(Sought::There(found));
            }
        }
        let mut unlisted = None;
        let listed = self.base.offers.iter().flat_map(|offers| &offers.folders).filter(|_| !is_musl);
        for folder in listed {
            let path = format!("{folder}/{name}");
            let Some(found) = look(&path)? else { continue };
            let is_standard = standard_folders_of(program.elf.machine).any(|standard| standard == folder);
            let in_base = self.base.led(&path).is_some_and(|path| self.base.files.has(&path));
            if in_base || is_standard {
                return Ok(Sought::There(found));
            }
            unlisted = Some(format!("/{folder}"));
        }
        let musl = is_musl.then_some("usr/local/lib");
        for folder in musl.into_iter().chain(standard_folders_of(program.elf.machine)) {
            if let Some(found) = look(&format!("{folder}/{name}"))? {
                return Ok(Sought::There(found));
            }
        }
        Ok(unlisted.map_or(Sought::Nowhere, Sought::Unlisted))
    }

    /// What tarsnode's scripts ask for and the image does not have: tarsnode starts and restarts every service, the framework's
    /// own too, through a script that it writes (TarsFramework, `NodeServer/CommandStart.h`).
    fn lacks_of_scripts(&self, program: &Program<'_>) -> Vec<(&'static str, String)> {
        let tarsnode = format!("{}/tarsnode/bin/tarsnode", &TARS_PATH[1..]);
        if program.path != tarsnode {
            return Vec::new();
        }
        let in_path = |name: &str| {
            let folders = ["usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin", "sbin", "bin"];
            folders.iter().any(|folder| self.file(&format!("{folder}/{name}")).is_some())
        };
        let needs = [
            ("/bin/sh", self.file("bin/sh").is_some(), "dash or bash"),
            ("/etc/profile", self.file("etc/profile").is_some(), "base-files"),
            ("procps", in_path("ps") && in_path("top"), "procps"),
        ];
        let lacks = needs.into_iter().filter(|(_, is_there, _)| !is_there);
        let said = |(need, _, package): (&'static str, bool, &str)| {
            let what = if need == "procps" { "`ps` and `top` (procps)" } else { need };
            let doubt = format!(
                "it starts and restarts services through scripts that need {what}, and {} has none: add the Debian package {package} \
                 (`waive: ['tarsnode:{need}']` lets it be)",
                self.base_name
            );
            (need, doubt)
        };
        lacks.map(said).collect()
    }

    /// What a program's search path names and the image does not have.
    fn stray_folders(&self, program: &Program<'_>) -> Option<String> {
        let all = program.elf.runpath.iter().chain(&program.elf.rpath);
        let is_there = |folder: &str| folder.starts_with('/') && self.has_folder(folder.trim_matches('/'));
        let is_stray = |folder: &&String| !folder.starts_with('$') && !is_there(folder);
        let stray: BTreeSet<&String> = all.filter(is_stray).collect();
        let absolute: Vec<String> =
            stray.iter().filter(|folder| folder.starts_with('/')).map(short).collect();
        if absolute.len() < stray.len() {
            return Some(format!(
                "{RUNPATH} names the folder that a program is started in, whichever that is"
            ));
        }
        let named = (!absolute.is_empty()).then(|| first_few(&absolute))?;
        Some(format!(
            "{RUNPATH} names {named}: no folder of the image, and left from where it was built (CMake's CMAKE_SKIP_RPATH=ON, or \
             `patchelf --remove-rpath`, takes it away; `waive: ['*:{RUNPATH}']` lets it be)"
        ))
    }
}

/// What a stray search path is called, in what is said and in what is waived.
const RUNPATH: &str = "RUNPATH";

/// Versions of symbols that what was found does not define.
fn lacks_of_versions(
    objects: &[Object<'_>],
    loaded: &BTreeMap<String, Option<usize>>,
    lacks: &mut Vec<Lack>,
) {
    for (at, object) in objects.iter().enumerate() {
        let wanted = object.elf.into_iter().flat_map(|elf| &elf.versions);
        for (library, versions) in wanted {
            let Some(Some(found)) = loaded.get(library).map(|found| found.map(|at| &objects[at])) else {
                continue;
            };
            // A library without any version is taken as it is, with a word on standard error.
            let Some(exports) = found.elf.map(|elf| &elf.exports).filter(|exports| !exports.is_empty())
            else {
                continue;
            };
            for (family, version) in newest(versions.difference(exports)) {
                let best = newest(exports.iter()).remove(family).cloned();
                lacks.push(Lack::Version {
                    version: version.clone(),
                    library: library.clone(),
                    file: found.file(),
                    best,
                    owner: found.owner.clone(),
                    by: (at > 0).then(|| object.file()),
                });
            }
        }
    }
}

/// The folders that a service's start adds to `LD_LIBRARY_PATH`: that of its program.
fn service_folder(program: &Program<'_>) -> Option<String> {
    let inner = program.path.strip_prefix(&TARS_PATH[1..])?.strip_prefix('/')?;
    let service = inner.split_once("/bin/")?.0;
    (!service.contains('/')).then(|| format!("{}/{service}/bin", &TARS_PATH[1..]))
}

fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// The folders of an object's `DT_RPATH`, which count for what it loads; not where it has a `DT_RUNPATH`.
fn own_chain(elf: &Elf, origin: &str) -> Vec<String> {
    let rpath = elf.rpath.iter().filter(|_| elf.runpath.is_empty());
    rpath.filter_map(|folder| expanded(folder, origin, elf.machine)).collect()
}

/// A folder of a search path, its tokens replaced (ld.so(8)); `None` for one that depends on where a program is started.
fn expanded(folder: &str, origin: &str, machine: u16) -> Option<String> {
    let libraries = standard_folders_of(machine).next().unwrap_or("lib64");
    let mut folder = folder.to_owned();
    for (token, value) in [("ORIGIN", format!("/{origin}")), ("LIB", libraries.to_owned())] {
        for written in [format!("${{{token}}}"), format!("${token}")] {
            folder = folder.replace(&written, &value);
        }
    }
    folder.starts_with('/').then(|| folder.trim_matches('/').to_owned())
}

/// Of each family (`GLIBCXX_`) the newest version.
fn newest<'v>(versions: impl Iterator<Item = &'v String>) -> BTreeMap<&'v str, &'v String> {
    let mut newest: BTreeMap<&str, &String> = BTreeMap::new();
    for version in versions {
        let Some((family, number)) = version.rsplit_once('_') else {
            newest.insert(version, version);
            continue;
        };
        // `GLIBC_PRIVATE` is a family of its own: it is not older or newer.
        let family = if number.starts_with(|c: char| c.is_ascii_digit()) { family } else { version.as_str() };
        let known = newest.entry(family).or_insert(version);
        if numbers(version) > numbers(known) {
            *known = version;
        }
    }
    newest
}

fn numbers(version: &str) -> Vec<u64> {
    let number = version.rsplit('_').next().unwrap_or(version);
    number.split('.').map(|part| part.parse().unwrap_or(0)).collect()
}

/// What there is to say, and the refusal of what cannot run.
pub(super) fn refuse(
    verdict: Verdict,
    origin: &Path,
    is_strict: bool,
) -> (Vec<String>, Result<(), GateError>) {
    let refused = if verdict.findings.is_empty() {
        strict(&verdict.warnings, is_strict, origin)
    } else {
        Err(GateError::Lacks { findings: verdict.findings, origin: origin.to_owned() })
    };
    (verdict.warnings.into_iter().chain(verdict.notes).collect(), refused)
}

/// With `--strict`, refuses what is warned about.
pub(super) fn strict(warnings: &[String], is_strict: bool, origin: &Path) -> Result<(), GateError> {
    match warnings.split_first() {
        Some((first, more)) if is_strict => {
            Err(GateError::Strict { warning: first.clone(), more: more.len(), origin: origin.to_owned() })
        }
        _ => Ok(()),
    }
}

/// The folders of an `LD_LIBRARY_PATH`; one that depends on where a program is started counts for nothing.
pub(super) fn library_path(value: &str) -> Vec<String> {
    let folders = value.split([':', ';']).filter(|folder| folder.starts_with('/'));
    folders.map(|folder| folder.trim_matches('/').to_owned()).collect()
}
