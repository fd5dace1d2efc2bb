//! Which parked containers a rollback brings back, or makes once more where they are gone, and the plan that does it.

use std::collections::BTreeMap;

use super::batches::together;
use super::finding::Findings;
use super::keep::{self, Leads};
use super::names::{Part, old_name, part_of};
use super::plan::Planner;
use super::preflight::{guard_container, way_back};
use super::state::{by_id, is_up, made, of_service, serving};
use super::step::After;
use super::swap::{Again, Phases};
use super::{DeployId, Refusal, other_start};
use crate::deploy::desired::Service;
use crate::deploy::observed::{Availability, LABEL_DEPLOY, LABEL_PREDECESSOR, LABEL_TWIN};
use crate::deploy::twin::Twin;
use crate::deploy::{Desired, Observed, guard};
use crate::engine::{Container, EngineImage};
use crate::oci::Reference;
use crate::oci::image::VERSION_LABEL;
use crate::tars::Role;

/// Older than any deploy.
const BEFORE_ALL: &str = "00000000T000000Z-0000";

/// A container and the time in which it served: from the deploy that made it until the one that parked it.
struct Served<'a> {
    what: Back<'a>,
    from: DeployId,
    until: Option<DeployId>,
}

/// What may come back.
#[derive(Clone, Copy)]
enum Back<'a> {
    /// A container that is there.
    There(&'a Container),
    /// One that is gone, and can be made once more: the name that it was parked under, and what it was.
    Kept(&'a String, &'a Twin),
}

impl<'a> Back<'a> {
    fn id(self) -> &'a str {
        match self {
            Self::There(container) => &container.id,
            Self::Kept(_, twin) => &twin.id,
        }
    }

    fn made_by(self) -> Option<&'a str> {
        match self {
            Self::There(container) => container.labels.get(LABEL_DEPLOY).map(String::as_str),
            Self::Kept(_, twin) => twin.made_by(),
        }
    }

    fn has_predecessor(self) -> bool {
        match self {
            Self::There(container) => container.labels.contains_key(LABEL_PREDECESSOR),
            Self::Kept(_, twin) => twin.label(LABEL_PREDECESSOR).is_some(),
        }
    }

    /// What comes back under this id: the container itself, else what is kept of it last.
    fn of(observed: &'a Observed, id: &str) -> Option<Self> {
        let there = by_id(observed, id).map(Self::There);
        let kept = || {
            let of_it = observed.kept.iter().filter(|(_, twin)| twin.id == id);
            of_it.max_by_key(|(name, _)| parked_by(name)).map(|(name, twin)| Self::Kept(name, twin))
        };
        there.or_else(kept)
    }

    fn version(self) -> Option<&'a str> {
        match self {
            Self::There(container) => container.labels.get(VERSION_LABEL).map(String::as_str),
            Self::Kept(_, twin) => twin.label(VERSION_LABEL),
        }
    }

    fn has_our_start(self) -> bool {
        match self {
            Self::There(container) => guard::has_our_start(&container.raw["Config"]),
            Self::Kept(_, twin) => guard::has_our_start(&twin.config()),
        }
    }

    /// How its image was named.
    fn image(self) -> &'a str {
        match self {
            Self::There(container) => &container.image,
            Self::Kept(_, twin) => &twin.image,
        }
    }
}

/// The image of what comes back under this id.
pub(super) fn image_of<'a>(observed: &'a Observed, id: &str) -> Option<&'a str> {
    Back::of(observed, id).map(Back::image)
}

fn parked_by(name: &str) -> Option<DeployId> {
    match part_of(name) {
        Part::Old(deploy) => Some(deploy),
        _ => None,
    }
}

/// Service → id of the container that comes back.
///
/// With `to`, for each service the container that served after that deploy; without, what the last deploy that parked
/// anything has parked. A service that was not touched since is not in the answer.
pub fn targets(
    desired: &Desired,
    observed: &Observed,
    to: Option<&DeployId>,
) -> Result<BTreeMap<String, String>, Refusal> {
    let (mut targets, mut findings) = (BTreeMap::new(), Findings::default());
    let last = last_parking(desired, observed);
    for service in desired.services.iter().filter(|service| service.role != Some(Role::Database)) {
        let history = history(desired, observed, &service.name);
        let found = match (to, &last) {
            (Some(to), _) => {
                let served =
                    |one: &&Served| one.from <= *to && one.until.as_ref().is_none_or(|until| to < until);
                let found = history.iter().filter(served).max_by(|a, b| a.from.cmp(&b.from));
                if found.is_none() && had_a_predecessor(&history) {
                    let before = format!(" from the time of {to}");
                    findings.refuse(Refusal::ParkedGone { service: service.name.clone(), before });
                }
                found
            }
            (None, Some(last)) => history.iter().find(|one| one.until.as_ref() == Some(last)),
            (None, None) => None,
        };
        let serves = |one: &Served| {
            serving(observed, &desired.deployment, service).is_some_and(|now| now.id == one.what.id())
        };
        if let Some(found) = found.filter(|one| one.until.is_some() && !serves(one)) {
            targets.insert(service.name.clone(), found.what.id().to_owned());
        }
    }
    findings.judged()?;
    if targets.is_empty() && to.is_none() {
        let service = desired.services.iter().find(|service| service.role != Some(Role::Database));
        let service = service.map(|service| service.name.clone()).unwrap_or_default();
        return Err(Refusal::ParkedGone { service, before: String::new() });
    }
    Ok(targets)
}

/// The last deploy that parked a container that is still there.
fn last_parking(desired: &Desired, observed: &Observed) -> Option<DeployId> {
    let services = desired.services.iter().filter(|service| service.role != Some(Role::Database));
    let all = services.flat_map(|service| history(desired, observed, &service.name));
    all.filter_map(|one| one.until).max()
}

fn history<'a>(desired: &'a Desired, observed: &'a Observed, service: &'a str) -> Vec<Served<'a>> {
    let mut history = Vec::new();
    // What somebody else made was there before any deploy.
    let from = |what: Back, adopted: bool| {
        let before = || BEFORE_ALL.parse().ok().filter(|_| adopted);
        what.made_by().map_or_else(before, |label| label.parse().ok())
    };
    for container in of_service(observed, &desired.deployment, service) {
        let what = Back::There(container);
        let adopted = desired.service(service).is_some_and(|it| it.has_adopted(container));
        let Some(from) = from(what, adopted) else { continue };
        // Its twin comes back in its place.
        let is_twin = |one: &Container| one.labels.get(LABEL_TWIN) == Some(&container.id);
        if of_service(observed, &desired.deployment, service).any(is_twin) {
            continue;
        }
        match part_of(&container.name) {
            Part::Serving => history.push(Served { what, from, until: None }),
            Part::Old(until) | Part::Twin(until) => history.push(Served { what, from, until: Some(until) }),
            Part::New(_) | Part::Failed(_) | Part::Migrate(_) => {}
        }
    }
    let kept = observed.kept.iter().filter(|(_, twin)| twin.service() == Some(service));
    for (name, twin) in kept {
        let what = Back::of(observed, &twin.id);
        let is_last = matches!(what, Some(Back::Kept(last, _)) if last == name);
        let (true, Some(until)) = (is_last, parked_by(name)) else { continue };
        let Some(from) = from(Back::Kept(name, twin), true) else { continue };
        // Made once more already: then that one comes back.
        let again = of_service(observed, &desired.deployment, service)
            .find(|one| one.labels.get(LABEL_TWIN) == Some(&twin.of) && parked_or_serving(one));
        let what = again.map_or(Back::Kept(name, twin), Back::There);
        history.push(Served { what, from, until: Some(until) });
    }
    history
}

fn parked_or_serving(container: &Container) -> bool {
    matches!(part_of(&container.name), Part::Serving | Part::Old(_) | Part::Twin(_))
}

/// Tells a service whose parked containers are gone from one that was declared later.
fn had_a_predecessor(history: &[Served]) -> bool {
    let oldest = history.iter().min_by(|a, b| a.from.cmp(&b.from));
    oldest.is_some_and(|one| one.what.has_predecessor())
}

/// The same swap as an upgrade's, with a parked container in the place of a new one, and without a migration.
pub(super) fn plan(planner: &mut Planner<'_>, targets: &BTreeMap<String, String>) {
    planner.database_runs("rollback");
    let order = if goes_forward(planner, targets) { planner.ordered() } else { planner.ordered_back() };
    for batch in planner.batches_for(order, |service| targets.contains_key(&service.name)) {
        let mut phases = Vec::new();
        for service in batch {
            let Some(id) = targets.get(&service.name) else { continue };
            let done = plan_service(planner, service, id);
            phases.extend(planner.findings.check(done));
        }
        planner.plan.steps.extend(together(phases));
    }
    if !planner.plan.is_empty() {
        planner
            .plan
            .notes
            .push("the schema of the database is not rolled back; migrations only add".to_owned());
    }
}

/// One service's way back.
fn plan_service<'a>(planner: &mut Planner<'a>, service: &'a Service, id: &str) -> Result<Phases, Refusal> {
    let gone = || Refusal::ParkedGone { service: service.name.clone(), before: String::new() };
    let back = Back::of(planner.observed, id).ok_or_else(gone)?;
    if service.role == Some(Role::Master) && back.has_our_start() {
        let may = way_back::may_start(&service.name, back.version(), planner.observed);
        planner.findings.check(may);
    }
    if let Back::Kept(_, twin) = back {
        let lacks = way_back::lacks(&service.name, twin, planner.observed);
        for refusal in lacks {
            planner.findings.refuse(refusal);
        }
    }
    match back {
        Back::There(parked) => guard_container(service, parked)?,
        Back::Kept(_, twin) if is_foreign_start(service, twin) => {
            planner.note(&service.name, &other_start::unsafe_start(&twin.image));
        }
        Back::Kept(..) => {}
    }
    let deployment = &planner.desired.deployment;
    let own = old_name(&service.container, planner.id);
    let all = || of_service(planner.observed, deployment, &service.name);
    let made = made(planner.observed, deployment, &service.name, planner.id);
    let in_its_place = |now: &Container| now.id != id && made.is_none_or(|made| made.id != now.id);
    let old = all()
        .find(|container| container.name == own)
        .or_else(|| serving(planner.observed, deployment, service).filter(|now| in_its_place(now)));
    if let Some(old) = old {
        guard_container(service, old)?;
        if !is_up(old) && old.name != own {
            planner.note(&service.name, "is stopped; the container that comes back is started");
        }
    }
    let from = old.map_or("nothing", |old| old.image.as_str());
    let cause = format!("back from {from} to {}", back.image());
    let swap = planner.swap(service, &cause);
    let (touched, mut phases) = match back {
        Back::There(parked) => {
            let after = After::Parked { id: parked.id.clone(), name: parked.name.clone() };
            (swap.touched(old, after), swap.bring_back(parked, old))
        }
        Back::Kept(name, twin) => {
            let image = kept_image(planner, service, twin)?;
            let again = Again { name, twin, image: &image.0, lacks_its_name: image.1 };
            (swap.touched(old, After::Made), swap.make_again(&again, old, made))
        }
    };
    let leads_to = match back {
        Back::There(parked) => {
            Leads { image: &parked.image, config: &parked.raw["Config"], is_up: is_up(parked) }
        }
        Back::Kept(_, twin) => {
            Leads { image: &twin.image, config: &twin.config(), is_up: made.is_some_and(is_up) }
        }
    };
    let kept = keep::steps(planner, service, &leads_to, old);
    planner.plan.touched.push(touched);
    phases.prepare.splice(0..0, kept);
    Ok(phases)
}

fn is_foreign_start(service: &Service, twin: &Twin) -> bool {
    matches!(service.role, Some(Role::Master | Role::Slave)) && !guard::has_our_start(&twin.config())
}

/// The image of what is made once more, and whether it has to be given its name again.
fn kept_image(planner: &Planner<'_>, service: &Service, twin: &Twin) -> Result<(Reference, bool), Refusal> {
    let gone = || Refusal::KeptImageGone { service: service.name.clone(), image: twin.image.clone() };
    let image: Reference = twin.image.parse().map_err(|_| gone())?;
    let observed = planner.observed;
    let named = observed.images.get(&image.to_string());
    let is_it = |found: &EngineImage| found.id == twin.image_id;
    match named {
        Some(Availability::Engine(found)) if is_it(found) => return Ok((image, false)),
        // Before it is loaded, containerd's store does not tell an id.
        Some(Availability::Store(found)) if is_it(found) || found.id.is_empty() => return Ok((image, false)),
        _ => {}
    }
    let held = matches!(observed.images.get(&twin.image_id), Some(Availability::Engine(_)));
    let is_free = !matches!(named, Some(Availability::Engine(_)));
    if held { Ok((image, is_free)) } else { Err(gone()) }
}

/// True where every container that comes back was made later than the one in its place: `rollback --to` a newer deploy.
fn goes_forward(planner: &Planner<'_>, targets: &BTreeMap<String, String>) -> bool {
    let deployment = &planner.desired.deployment;
    let mut services = planner.desired.services.iter().filter_map(|service| {
        let target = Back::of(planner.observed, targets.get(&service.name)?)?;
        let now = serving(planner.observed, deployment, service).filter(|now| now.id != target.id())?;
        Some((target.made_by(), Back::There(now).made_by()))
    });
    let mut any = false;
    services.all(|(target, now)| {
        any = true;
        target > now
    }) && any
}
