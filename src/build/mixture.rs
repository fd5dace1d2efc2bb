//! Whether the services of an image are of one release: the framework's version against what the recipe or a tree says, and
//! the RPC library's among the services.
//!
//! No program says which of its versions is which, and other libraries have some too. The framework's is therefore looked for
//! by what it should be, and the RPC library is what each program has exactly one version of.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;

use super::package::{self, ServiceFiles};
use super::recipe::Recipe;
use super::tree::TreeNode;
use super::version::{self, Version};
use crate::diagnose::{Diagnose, Exit, Place, shown};
use crate::tars::Service;

/// Service → the versions that are compiled into its program, where there are some.
type Compiled = BTreeMap<Service, BTreeSet<Version>>;

/// The framework's version, and who says so.
type Said = (Version, String);

/// Why the parts of an image are not of one release.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Mixture {
    /// A program is of another release of the framework.
    #[error("{service} has {} compiled in, and {what} is {said}", listed(found))]
    Framework {
        /// The program.
        service: Service,
        /// What may be the framework's version in it.
        found: Vec<Version>,
        /// What it should be.
        said: Version,
        /// Who says so.
        what: String,
        /// The recipe.
        recipe: PathBuf,
    },
    /// A tree is of another release than the recipe.
    #[error("{} is of {found}, and {what} is {said}", shown(file))]
    File {
        /// The file that says so.
        file: PathBuf,
        /// What it says.
        found: Version,
        /// What it should say.
        said: Version,
        /// Who says so.
        what: String,
    },
    /// Services are linked with different versions of the RPC library.
    #[error("{}", sentence(odd, *rest))]
    Library {
        /// The services that differ: those of one version each, that version, and all that tells them from the rest.
        odd: Vec<(Vec<Service>, Version, Vec<Version>)>,
        /// The version of the others.
        rest: Version,
        /// The recipe.
        recipe: PathBuf,
    },
}

/// Why what a recipe lists under `versions` cannot be.
#[derive(Debug, thiserror::Error)]
pub enum ListedError {
    /// A service that is not in the image.
    #[error("`versions: {{{service}: {version}}}`: the image has no such service")]
    Absent {
        /// The service.
        service: Service,
        /// What the recipe says.
        version: Version,
        /// Where it does.
        place: Place,
    },
    /// A program of another version.
    #[error("`versions: {{{service}: {version}}}`: its program has {} compiled in", if found.is_empty() { "no version".to_owned() } else { listed(found) })]
    Other {
        /// The service.
        service: Service,
        /// What the recipe says.
        version: Version,
        /// What it has.
        found: Vec<Version>,
        /// Where the recipe says so.
        place: Place,
    },
    /// A file that should name a version.
    #[error("cannot tell the version of {}: {why}", shown(file))]
    File {
        /// The file.
        file: PathBuf,
        /// Why not.
        why: String,
    },
}

impl Diagnose for Mixture {
    fn exit(&self) -> Exit {
        Exit::Refused
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Framework { service, found, .. } => {
                let lists = lists(found.iter().take(1).map(|version| (*service, *version)));
                format!(
                    "correct `version`, or make the packages of that version; a release on purpose of another one is listed in the recipe: {lists}"
                )
            }
            Self::File { .. } => {
                "take packages and `deploy` of one release, and correct `version` where it is not of that one"
                    .to_owned()
            }
            Self::Library { odd, .. } => {
                let each = odd
                    .iter()
                    .flat_map(|(services, version, _)| services.iter().map(|service| (*service, *version)));
                format!(
                    "make their packages again, from the source of the others; a mixture on purpose is listed in the recipe: {}",
                    lists(each)
                )
            }
        })
    }

    fn place(&self) -> Option<Place> {
        Some(Place::file(match self {
            Self::Framework { recipe, .. } | Self::Library { recipe, .. } => recipe,
            Self::File { file, .. } => file,
        }))
    }
}

impl Diagnose for ListedError {
    fn exit(&self) -> Exit {
        Exit::Usage
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Absent { .. } => "take it out of `versions`".to_owned(),
            Self::Other { .. } => "correct it: what is listed must be what is there".to_owned(),
            Self::File { .. } => {
                "it is what `make install` writes: one version such as 3.0.17; take it away otherwise"
                    .to_owned()
            }
        })
    }

    fn place(&self) -> Option<Place> {
        Some(match self {
            Self::Absent { place, .. } | Self::Other { place, .. } => place.clone(),
            Self::File { file, .. } => Place::file(file),
        })
    }
}

fn listed(versions: &[Version]) -> String {
    versions.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn named(services: &[Service]) -> String {
    services.iter().map(|service| service.name()).collect::<Vec<_>>().join(", ")
}

/// As a recipe lists a mixture.
fn lists(each: impl Iterator<Item = (Service, Version)>) -> String {
    let each: Vec<String> = each.map(|(service, version)| format!("{service}: {version}")).collect();
    format!("`versions: {{{}}}`", each.join(", "))
}

fn sentence(odd: &[(Vec<Service>, Version, Vec<Version>)], rest: Version) -> String {
    let mut text = String::new();
    for (services, _, told) in odd {
        let have = if services.len() == 1 { "has" } else { "have" };
        let _ = write!(text, "{} {have} {} compiled in, ", named(services), listed(told));
    }
    let _ = write!(text, "and the other services {rest}: they are not of one release");
    text
}

/// Judges what goes into an image: what is refused, and what there is to say of mixtures that may be. `services` are all that
/// packages bring, `wanted` those that go in, `patched` those that a predecessor has as patches.
///
/// # Errors
/// What the recipe lists and is not so.
pub fn judge(
    recipe: &Recipe,
    services: &BTreeMap<Service, (PathBuf, ServiceFiles)>,
    wanted: &[Service],
    patched: &BTreeSet<Service>,
) -> Result<(Vec<Mixture>, Vec<String>), ListedError> {
    if wanted.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let versions = |(service, (_, files)): (&Service, &(PathBuf, ServiceFiles))| {
        let Some(TreeNode::File { content, .. }) = files.tree.get(&package::binary_path(*service)) else {
            return None;
        };
        let versions: BTreeSet<Version> = content.elf?.versions().iter().copied().collect();
        (!versions.is_empty()).then_some((*service, versions))
    };
    let compiled: Compiled = services.iter().filter_map(versions).collect();
    check_listed(recipe, &compiled, wanted)?;
    let packed: BTreeMap<&PathBuf, Version> =
        services.values().filter_map(|(package, files)| Some((package, files.release?))).collect();
    let (said, mut mixtures) = said(recipe, &packed)?;
    let is_exempt = |service: &Service| recipe.versions.contains_key(service) || patched.contains(service);
    let mut notes = Vec::new();
    if let Some((said, what)) = &said {
        // A bundle of another release is one, also where its tarsnode alone goes into the image.
        let comes_along = |service: &Service| {
            let package = |of: &Service| services.get(of).map(|(package, _)| package);
            wanted.contains(service) || wanted.iter().any(|wanted| package(wanted) == package(service))
        };
        let is_alone =
            !services.contains_key(&Service::AdminRegistry) || !comes_along(&Service::AdminRegistry);
        if is_alone && wanted.contains(&Service::Node) && !is_exempt(&Service::Node) {
            notes.extend(untold(&compiled, *said));
        }
        let judged = [Service::AdminRegistry, Service::Node].into_iter();
        mixtures.extend(judged.filter(|service| comes_along(service) && !is_exempt(service)).filter_map(
            |service| {
                let found = of_another_release(service, &compiled, *said, is_alone)?;
                let (said, what, recipe) = (*said, what.clone(), recipe.file.clone());
                Some(Mixture::Framework { service, found, said, what, recipe })
            },
        ));
    }
    let own = compiled.iter().filter(|(service, _)| wanted.contains(service));
    let (exempt, judged): (Vec<_>, Vec<_>) = own.partition(|(service, _)| is_exempt(service));
    let groups = groups(&judged, said.map(|(said, _)| said));
    if let Some(((rest, common), odd)) = groups.split_first() {
        let differs = exempt.iter().filter(|(_, versions)| !versions.contains(common));
        notes.extend(differs.map(|(service, _)| {
            let is_listed = recipe.versions.contains_key(service);
            let why = if is_listed { "the recipe lists" } else { "the predecessor was patched" };
            let told = listed(&telling(&[**service], rest, &compiled));
            format!("{service} has {told} compiled in, and the other services {common}: a mixture, as {why}")
        }));
        let told = |(services, version): &(Vec<Service>, Version)| {
            (services.clone(), *version, telling(services, rest, &compiled))
        };
        let odd: Vec<_> = odd.iter().map(told).collect();
        if !odd.is_empty() {
            mixtures.push(Mixture::Library { odd, rest: *common, recipe: recipe.file.clone() });
        }
    }
    Ok((mixtures, notes))
}

/// What there is to say of a service that takes the place of another one without a recipe.
pub struct Patched {
    /// What it has compiled in, beside what the other services have.
    pub told: String,
    /// True where that is not of one release.
    pub is_mixture: bool,
}

/// Holds a patched service against those that stay in the image (`others`), as the image's list tells them, and against the image's
/// version of the framework. `None` for a program without versions: a script, say.
pub fn patched(
    service: Service,
    own: &BTreeSet<Version>,
    others: &BTreeMap<Service, BTreeSet<Version>>,
    framework: Option<Version>,
) -> Option<Patched> {
    if own.is_empty() {
        return None;
    }
    let mut compiled = others.clone();
    compiled.insert(service, own.clone());
    let judged: Vec<_> = others.iter().collect();
    let groups = groups(&judged, framework);
    let rest = groups.first();
    let (mut told, mut against) = (BTreeSet::new(), Vec::new());
    if let Some((rest, common)) = rest.filter(|(_, common)| !own.contains(common)) {
        told.extend(telling(&[service], rest, &compiled));
        against.push(format!("the other services {common}"));
    }
    let tells = [Service::AdminRegistry, Service::Node].contains(&service);
    if let Some(said) = framework.filter(|_| tells)
        && let Some(found) = of_another_release(service, &compiled, said, others.is_empty())
    {
        told.extend(found);
        against.push(format!("the framework of the image is {said}"));
    }
    let is_mixture = !against.is_empty();
    let told = match rest {
        _ if is_mixture => {
            let told: Vec<Version> = told.into_iter().collect();
            format!("{} compiled in, and {}", listed(&told), against.join(", and "))
        }
        Some((_, common)) => format!("{common} compiled in, as the other services"),
        None => {
            let own: Vec<Version> = own.iter().copied().collect();
            format!(
                "{} compiled in; what the other services have, the image's list does not tell",
                listed(&own)
            )
        }
    };
    Some(Patched { told, is_mixture })
}

/// What is listed must be there: a list that is out of date hides the next mixture.
fn check_listed(recipe: &Recipe, compiled: &Compiled, wanted: &[Service]) -> Result<(), ListedError> {
    for (service, (version, line)) in &recipe.versions {
        let (service, version, place) = (*service, *version, Place::line(&recipe.file, *line));
        if !wanted.contains(&service) {
            return Err(ListedError::Absent { service, version, place });
        }
        let found = compiled.get(&service).cloned().unwrap_or_default();
        if !found.contains(&version) {
            let found = found.into_iter().collect();
            return Err(ListedError::Other { service, version, found, place });
        }
    }
    Ok(())
}

/// Which version of the framework the image is to have, and who says so; and trees that say another one.
fn said(
    recipe: &Recipe,
    packed: &BTreeMap<&PathBuf, Version>,
) -> Result<(Option<Said>, Vec<Mixture>), ListedError> {
    let mut said =
        Version::leading(&recipe.version).map(|version| (version, "the image's version".to_owned()));
    let mut mixtures = Vec::new();
    let mut files = Vec::new();
    for file in version::files_of(recipe) {
        let failed = |error: std::io::Error| ListedError::File { file: file.clone(), why: error.to_string() };
        let found = version::read(&file).map_err(failed)?;
        files.extend(found.map(|found| (file, found)));
    }
    files.extend(packed.iter().map(|(package, version)| ((*package).clone(), *version)));
    for (file, found) in files {
        match &said {
            _ if recipe.versions.values().any(|(listed, _)| *listed == found) => {}
            None => said = Some((found, format!("that of {}", shown(&file)))),
            Some((version, _)) if *version == found => {}
            Some((version, what)) => {
                mixtures.push(Mixture::File { file, found, said: *version, what: what.clone() });
            }
        }
    }
    Ok((said, mixtures))
}

/// What may be the framework's version in a program that is of another release than that; `None` for one that is of this
/// release, or does not tell. The admin registry always has its version, tarsnode since 3.0.
/// One that is alone (`is_alone`: no admin registry comes with it) is asked for more, as nothing else tells.
fn of_another_release(
    service: Service,
    compiled: &Compiled,
    said: Version,
    is_alone: bool,
) -> Option<Vec<Version>> {
    let versions = compiled.get(&service).filter(|versions| !versions.contains(&said))?;
    let tells = [Service::AdminRegistry, Service::Node];
    let others =
        compiled.iter().filter(|(other, _)| !tells.contains(other)).flat_map(|(_, versions)| versions);
    let others: BTreeSet<Version> = others.copied().collect();
    let own: Vec<Version> = versions.difference(&others).copied().collect();
    if service == Service::AdminRegistry {
        return Some(if own.is_empty() { versions.iter().copied().collect() } else { own });
    }
    // The library of before 3.0 is of the framework's first number; a tarsnode of 3.0 and later would have that release itself.
    if let Some(one) = single(versions).filter(|_| is_alone) {
        return (said.is_in_node() || !one.is_of_major(said)).then(|| vec![one]);
    }
    // Beside the framework's version there is the RPC library's, which is near it: one alone may be either.
    let is_one_of_two = |one: &Version| versions.iter().any(|other| other != one && one.is_akin(*other));
    Some(own.into_iter().filter(is_one_of_two).collect::<Vec<_>>()).filter(|own| !own.is_empty())
}

fn single(versions: &BTreeSet<Version>) -> Option<Version> {
    versions.first().copied().filter(|_| versions.len() == 1)
}

/// What there is to say of a tarsnode that came alone and has no version but its RPC library's, as before 3.0.
fn untold(compiled: &Compiled, said: Version) -> Option<String> {
    let one = single(compiled.get(&Service::Node)?)?;
    (one != said && !said.is_in_node() && one.is_of_major(said)).then(|| {
        format!(
            "tarsnode has {one} compiled in, that of its RPC library: a tarsnode of before 3.0 does not tell its release, and whether \
             it is of {said} is not proven"
        )
    })
}

/// The services by their version of the RPC library, the most of them first: the fewest versions of which each program has
/// exactly one. Where the framework's version is known, one that is near it is preferred: what all programs have may be
/// another library's.
fn groups(
    judged: &[(&Service, &BTreeSet<Version>)],
    framework: Option<Version>,
) -> Vec<(Vec<Service>, Version)> {
    let sets: Vec<&BTreeSet<Version>> = judged.iter().map(|(_, versions)| *versions).collect();
    let near = |chosen: &[Version]| framework.is_some_and(|near| chosen.iter().any(|one| one.is_akin(near)));
    let chosen = Cover::least(&sets, &near).or_else(|| Cover::least(&sets, &|_| true)).unwrap_or_else(|| {
        // Programs that have two of them: what most have counts, and each that lacks it differs by what it has.
        let most = sets
            .iter()
            .copied()
            .flatten()
            .max_by_key(|one| sets.iter().filter(|set| set.contains(one)).count());
        let lack = sets.iter().filter(|set| most.is_some_and(|most| !set.contains(most)));
        most.copied().into_iter().chain(lack.filter_map(|set| set.last().copied())).collect()
    });
    let mut taken = BTreeSet::new();
    let mut groups: Vec<(Vec<Service>, Version)> = Vec::new();
    for version in chosen {
        let of = judged
            .iter()
            .filter(|(service, versions)| versions.contains(&version) && taken.insert(**service));
        let of: Vec<Service> = of.map(|(service, _)| **service).collect();
        if !of.is_empty() {
            groups.push((of, version));
        }
    }
    let weight = |(services, _): &(Vec<Service>, Version)| {
        (services.len(), services.contains(&Service::AdminRegistry))
    };
    groups.sort_by_key(|group| std::cmp::Reverse(weight(group)));
    groups
}

/// All that tells these services from the rest: what each of them has, and none of those.
fn telling(services: &[Service], rest: &[Service], compiled: &Compiled) -> Vec<Version> {
    let of = |services: &[Service]| -> Vec<&BTreeSet<Version>> {
        services.iter().filter_map(|service| compiled.get(service)).collect()
    };
    let (own, others) = (of(services), of(rest));
    let first = own.first().into_iter().flat_map(|versions| versions.iter());
    let all_have = first.filter(|one| own.iter().all(|versions| versions.contains(one)));
    all_have.filter(|one| !others.iter().any(|versions| versions.contains(one))).copied().collect()
}

/// Looks for the fewest versions of which each set has exactly one.
struct Cover<'a> {
    sets: &'a [&'a BTreeSet<Version>],
    fits: &'a dyn Fn(&[Version]) -> bool,
    chosen: Vec<Version>,
    least: Option<Vec<Version>>,
    tries: usize,
}

impl<'a> Cover<'a> {
    /// So many choices are tried: eleven programs with a few versions each take some dozens.
    const TRIES: usize = 20_000;

    fn least(
        sets: &'a [&'a BTreeSet<Version>],
        fits: &'a dyn Fn(&[Version]) -> bool,
    ) -> Option<Vec<Version>> {
        let mut search = Self { sets, fits, chosen: Vec::new(), least: None, tries: 0 };
        search.choose();
        search.least
    }

    fn choose(&mut self) {
        self.tries += 1;
        if self.tries > Self::TRIES {
            return;
        }
        let chosen = self.chosen.clone();
        let Some(open) = self.sets.iter().find(|set| !chosen.iter().any(|one| set.contains(one))) else {
            if (self.fits)(&chosen) {
                self.least = Some(chosen);
            }
            return;
        };
        for version in *open {
            let is_better = self.least.as_ref().is_none_or(|least| chosen.len() + 1 < least.len());
            let is_apart = |set: &&&BTreeSet<Version>| {
                set.contains(version) && chosen.iter().any(|one| set.contains(one))
            };
            if is_better && !self.sets.iter().any(|set| is_apart(&set)) {
                self.chosen.push(*version);
                self.choose();
                self.chosen.pop();
            }
        }
    }
}
