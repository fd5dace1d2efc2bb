//! What the gate found, in words: what is needed, what there is instead, and what to do.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::path::PathBuf;

use crate::build::mixture::Mixture;
use crate::contents::debian;
use crate::diagnose::{Diagnose, Exit, Place, first_few, shown};
use crate::limits::Beyond;

/// A name as a sentence has it: it may be as long as its input.
pub(super) fn short(name: impl AsRef<str>) -> String {
    shown(&name.as_ref().chars().take(120).collect::<String>()).to_string()
}

/// Whose a file is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Owner {
    /// The base's.
    Base,
    /// That of the layer of this name.
    Layer(String),
}

/// What a loader would not find.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lack {
    /// The loader itself.
    Loader {
        /// As the program names it.
        path: String,
    },
    /// A library.
    Library {
        /// As it is asked for.
        name: String,
        /// The library that asks for it, where it is not the program itself.
        by: Option<String>,
        /// Where one of the name lies that the loader does not see.
        unlisted: Option<String>,
    },
    /// A version of symbols.
    Version {
        /// The newest that is asked for.
        version: String,
        /// Of which library.
        library: String,
        /// The file that was found for it.
        file: String,
        /// The newest that it has of the same family.
        best: Option<String>,
        /// Whose the file is.
        owner: Owner,
        /// The library that asks for it, where it is not the program itself.
        by: Option<String>,
    },
}

impl Lack {
    /// What it is waived by, after the program's name.
    pub(super) fn need(&self) -> &str {
        match self {
            Self::Loader { path } => path.rsplit('/').next().unwrap_or(path),
            Self::Library { name, .. } => name,
            Self::Version { version, .. } => version,
        }
    }

    fn by(&self) -> Option<&str> {
        match self {
            Self::Loader { .. } => None,
            Self::Library { by, .. } | Self::Version { by, .. } => by.as_deref(),
        }
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loader { path } => write!(f, "the loader {}", short(path))?,
            Self::Library { name, .. } => write!(f, "{}", short(name))?,
            Self::Version { version, .. } => write!(f, "{}", short(version))?,
        }
        match self.by() {
            Some(by) => write!(f, " (for {})", short(by)),
            None => Ok(()),
        }
    }
}

/// One thing that is needed and not there, and what needs it.
#[derive(Clone, Debug)]
pub struct Finding {
    lack: Lack,
    /// What needs it.
    programs: Vec<String>,
    /// How the first of them is waived.
    waiver: String,
    /// What a person calls the base.
    base: String,
    /// What to do.
    way_out: String,
    /// How many findings there are beyond those that are said.
    pub(super) more: usize,
}

impl Finding {
    /// `programs`: what they are called, and their files.
    pub(super) fn new(
        lack: Lack,
        programs: Vec<(String, String)>,
        base: &str,
        packages: Option<&BTreeMap<String, String>>,
    ) -> Self {
        let file = programs.first().map(|(_, file)| file.as_str()).unwrap_or_default();
        let waiver = format!("{file}:{}", lack.need());
        let none = BTreeMap::new();
        let packages = packages.unwrap_or(&none);
        let way_out = match &lack {
            Lack::Loader { .. } if base == SCRATCH => {
                "take a base with glibc, or link it statically".to_owned()
            }
            Lack::Loader { .. } => "take a base with the C library that it was linked with".to_owned(),
            Lack::Library { unlisted: Some(folder), .. } => format!(
                "the base's ld.so.cache does not know it: put it into /usr/lib instead of {folder}, or name the folder in \
                 `env: {{LD_LIBRARY_PATH: {folder}}}`",
                folder = short(folder)
            ),
            Lack::Library { name, .. } => library(name, base, packages),
            Lack::Version { library, owner, .. } => version(library, owner, base, packages),
        };
        let programs = programs.into_iter().map(|(program, _)| program).collect();
        Self { lack, programs, waiver, base: base.to_owned(), way_out, more: 0 }
    }
}

/// How `base: scratch` is called.
pub const SCRATCH: &str = "`base: scratch`";

/// Where a library comes from.
fn library(name: &str, base: &str, packages: &BTreeMap<String, String>) -> String {
    let package = debian::package_of(name).filter(|_| !packages.is_empty());
    match package {
        Some(package) if packages.contains_key(&package) => {
            format!(
                "{base} lists the Debian package {package}, and yet its file is gone: make the base again"
            )
        }
        Some(package) => format!("add the Debian package {package} to {base}"),
        None => "bring it with the base, or with `files` into /usr/lib".to_owned(),
    }
}

fn version(library: &str, owner: &Owner, base: &str, packages: &BTreeMap<String, String>) -> String {
    if let Owner::Layer(name) = owner {
        return format!(
            "take a newer {} into layer {name}, or none, so that the base's counts",
            short(library)
        );
    }
    let package = debian::installed(library, packages);
    let known = package.map(|(name, version)| format!(" ({base} has {name} {version})")).unwrap_or_default();
    format!("take a newer base, or build the package where {} is no newer than there{known}", short(library))
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.sentence(f)?;
        if self.more > 0 { write!(f, " (and {} more findings)", self.more) } else { Ok(()) }
    }
}

impl Finding {
    fn sentence(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let programs = first_few(&self.programs.iter().map(short).collect::<Vec<_>>());
        let need = if self.programs.len() == 1 { "needs" } else { "need" };
        write!(f, "{programs} {need} {}; ", self.lack)?;
        match &self.lack {
            Lack::Library { unlisted: Some(folder), .. } => {
                write!(f, "it lies in {}, where its loader does not look", short(folder))
            }
            Lack::Loader { .. } | Lack::Library { .. } => f.write_str("no layer has it"),
            Lack::Version { file, best, owner, .. } => {
                let owner = match owner {
                    Owner::Base => self.base.clone(),
                    Owner::Layer(name) => format!("layer {name}"),
                };
                match best {
                    Some(best) => write!(f, "{owner} has up to {} ({})", short(best), short(file)),
                    None => write!(f, "{owner} has none of the kind ({})", short(file)),
                }
            }
        }
    }
}

impl Error for Finding {}

impl Diagnose for Finding {
    fn exit(&self) -> Exit {
        Exit::Refused
    }

    fn hint(&self) -> Option<String> {
        let each = if self.programs.len() == 1 { "" } else { " and its like" };
        Some(format!(
            "{}; what runs all the same is waived by name: `waive: [{}]`{each}",
            self.way_out,
            short(&self.waiver)
        ))
    }
}

/// Why an image is not built: something in it would not run, or is in doubt.
#[derive(Clone, Debug, thiserror::Error)]
pub enum GateError {
    /// Something that the base cannot run.
    #[error("{}", first_of(findings))]
    Lacks {
        /// Each thing that is lacking.
        findings: Vec<Finding>,
        /// The recipe, or the image that is patched.
        origin: PathBuf,
    },
    /// A warning where there may be none.
    #[error("{warning}{}", if *more > 0 { format!(" (and {more} more)") } else { String::new() })]
    Strict {
        /// The warning.
        warning: String,
        /// How many there are beside it.
        more: usize,
        /// The recipe, or the image that is patched.
        origin: PathBuf,
    },
    /// Parts of different releases.
    #[error("{}", first_of(mixtures))]
    Mixed {
        /// What does not go with what.
        mixtures: Vec<Mixture>,
    },
    /// Libraries that need each other without an end.
    #[error("its programs cannot be judged: {0}")]
    Beyond(Beyond),
}

fn first_of(all: &[impl fmt::Display]) -> String {
    let first = all.first().map(ToString::to_string).unwrap_or_default();
    match all.len().saturating_sub(1) {
        0 => first,
        more => format!("{first} (and {more} more findings)"),
    }
}

impl Diagnose for GateError {
    fn exit(&self) -> Exit {
        if matches!(self, Self::Beyond(_)) { Exit::Usage } else { Exit::Refused }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Lacks { findings, .. } => findings.first().and_then(Diagnose::hint),
            Self::Mixed { mixtures } => mixtures.first().and_then(Diagnose::hint),
            Self::Strict { .. } => Some("see to it, or build without --strict".to_owned()),
            Self::Beyond(beyond) => Some(beyond.hint()),
        }
    }

    fn place(&self) -> Option<Place> {
        match self {
            Self::Lacks { origin, .. } | Self::Strict { origin, .. } => Some(Place::file(origin)),
            Self::Mixed { mixtures } => mixtures.first().and_then(Diagnose::place),
            Self::Beyond(_) => None,
        }
    }

    fn parts(&self) -> Vec<&dyn Diagnose> {
        match self {
            Self::Lacks { findings, .. } if findings.len() > 1 => {
                findings.iter().map(|finding| finding as &dyn Diagnose).collect()
            }
            Self::Mixed { mixtures } if mixtures.len() > 1 => {
                mixtures.iter().map(|mixture| mixture as &dyn Diagnose).collect()
            }
            _ => Vec::new(),
        }
    }
}
