//! Services that lean on one which a plan replaces or restarts: they follow it in the same plan, right after it is proven.
//!
//! A held one, a database and one that differs from its declaration do not: those are asked about ([`super::leaning`]).

use std::collections::{BTreeMap, BTreeSet};

use super::plan::{Decision, Planner};
use super::preflight::guard_container;
use super::state::{by_id, is_up, made, of_service, serving};
use super::{adopted, differ, leaning};
use crate::deploy::asked::shared;
use crate::deploy::desired::Service;
use crate::deploy::observed::LABEL_PREDECESSOR;
use crate::engine::Container;
use crate::tars::Role;

type Planned<'a> = Vec<(&'a Service, Decision<'a>)>;

/// The same with what leans on a container that is replaced, or was by an earlier deploy: it is replaced, too.
pub(super) fn with_followers<'a>(planner: &Planner<'a>, mut all: Planned<'a>) -> Planned<'a> {
    let mut goes: Goes = all
        .iter()
        .filter_map(|(service, decision)| Some((service.name.clone(), becomes(decision)?)))
        .collect();
    let is_up_intent = matches!(planner.plan.intent, super::Intent::Up);
    // What leans on a follower follows, too.
    loop {
        let mut found = None;
        for service in planner.ordered() {
            let decided = all.iter().find(|(planned, _)| planned.name == service.name);
            let is_to_start = match decided {
                None | Some((_, Decision::Keep)) => false,
                Some((_, Decision::Start { container, .. })) if !is_up(container) => true,
                Some(_) => continue,
            };
            let mends = Mends { goes: &goes, is_up_intent, is_to_start };
            if let Some(decision) = follows(planner, service, &mends) {
                found = Some((service, decision));
                break;
            }
        }
        let Some((service, decision)) = found else { return all };
        goes.insert(service.name.clone(), REPLACED);
        all.retain(|(planned, _)| planned.name != service.name);
        all.push((service, decision));
    }
}

/// Services that others may lean on → what becomes of them.
type Goes = BTreeMap<String, &'static str>;

const REPLACED: &str = "is replaced";
const STARTED: &str = "is started";

/// What decides whether a service follows.
#[derive(Clone, Copy)]
struct Mends<'a> {
    goes: &'a Goes,
    /// True where the plan is to make whole what it finds.
    is_up_intent: bool,
    /// True where its container is down and is to be started.
    is_to_start: bool,
}

/// What becomes of what a container may lean on.
fn becomes(decision: &Decision<'_>) -> Option<&'static str> {
    match decision {
        Decision::Replace { .. } => Some(REPLACED),
        Decision::Create { .. } => Some("is made anew"),
        Decision::Start { container, .. } => (!is_up(container)).then_some(STARTED),
        Decision::Keep => None,
    }
}

/// How one service follows, where it does.
fn follows<'a>(planner: &Planner<'a>, service: &'a Service, why: &Mends<'_>) -> Option<Decision<'a>> {
    if service.role == Some(Role::Database) || service.written.hold {
        return None;
    }
    let deployment = &planner.desired.deployment;
    if let Some(made) = made(planner.observed, deployment, &service.name, planner.id) {
        // An interrupted run of this deploy made it.
        let old = by_id(planner.observed, made.labels.get(LABEL_PREDECESSOR)?)?;
        let cause = cause(planner, service, old, &Mends { is_up_intent: true, ..*why })?;
        return Some(Decision::Replace { old, made: Some(made), cause });
    }
    let old = serving(planner.observed, deployment, service).or_else(|| planner.parked(service))?;
    // Its processes may have ended with those that it shares, when this deploy stopped them.
    let supports = leaning::of(planner.observed, deployment, old);
    let was_cut_off = supports.iter().any(|on| {
        made(planner.observed, deployment, on.service, planner.id).is_some()
            && planner.observed.container(on.container).is_some_and(|on| !is_up(on))
    });
    let is_there = is_up(old) || planner.is_own(old) || was_cut_off || why.is_to_start;
    let cause = cause(planner, service, old, why).filter(|_| is_there)?;
    if differ::difference(service, old, planner.observed).is_some() || planner.image(service).is_none() {
        return None;
    }
    let may = match adopted::twin(planner.desired, service, old) {
        Some((twin, _)) => adopted::guard_twin(service, old, &twin),
        None => guard_container(service, old),
    };
    may.is_ok().then_some(Decision::Replace { old, made: None, cause })
}

/// Why a container has to be made anew; nothing where what it leans on stays. By `up` also where that is parked already, is gone, or
/// was started after it.
fn cause(planner: &Planner<'_>, service: &Service, container: &Container, why: &Mends<'_>) -> Option<String> {
    let mends = why.is_up_intent;
    let goes = |name: &str| {
        let becomes = why.goes.get(name).copied();
        // Both are started then, one after the other.
        becomes.filter(|becomes| !(why.is_to_start && *becomes == STARTED))
    };
    let own = format!(".old.{}", planner.id);
    let supports = leaning::of(planner.observed, &planner.desired.deployment, container);
    let has_successor = |name: &str| {
        let service = planner.desired.service(name);
        service.is_some_and(|service| {
            serving(planner.observed, &planner.desired.deployment, service).is_some_and(is_up)
        })
    };
    let is_link = |what: &str| what == leaning::LINK;
    for on in &supports {
        let becomes = goes(on.service);
        // By a link it finds what was started again.
        if let Some(becomes) = becomes.filter(|becomes| *becomes == REPLACED || !is_link(on.what)) {
            return Some(said(on.what, on.service, becomes));
        }
        if on.container.ends_with(&own) || mends && on.is_parked && has_successor(on.service) {
            return Some(said(on.what, on.service, REPLACED));
        }
        let started =
            planner.observed.container(on.container).filter(|on| is_up(on)).and_then(leaning::since);
        let own_start = leaning::since(container).filter(|_| is_up(container));
        let is_later = started.zip(own_start).is_some_and(|(started, own)| started > own);
        if mends && !is_link(on.what) && is_later {
            return Some(said(on.what, on.service, "was started after it"));
        }
    }
    // Somebody else's may have been made anew by whoever it is.
    let strange = service.declaration.shares().find(|(key, name)| {
        let has = shared(&container.raw, key);
        let now = planner.observed.leaders.get(*name);
        mends && now.is_some_and(|now| has.is_some_and(|has| has != now && has != *name))
    });
    if let Some((key, name)) = strange {
        return Some(said(leaning::word(key), name, "was made anew"));
    }
    // What it leans on may be gone: then only the declaration says whose it was.
    leaning::declared(planner.desired, service).find_map(|(what, on)| {
        let is_seen = supports.iter().any(|support| support.service == on.name && support.what == what);
        let becomes = goes(&on.name);
        let serves = || mends && has_successor(&on.name);
        let becomes = becomes.or_else(|| serves().then_some("was made anew"));
        becomes.filter(|_| !is_seen).map(|becomes| said(what, &on.name, becomes))
    })
}

fn said(what: &str, service: &str, becomes: &str) -> String {
    format!("it has {what} from `{service}`, which {becomes}")
}

/// The services that a restart takes along, with why: they run, and lean on one that is restarted.
pub(super) fn restarted<'a>(
    planner: &Planner<'a>,
    ordered: &[&'a Service],
    is_wanted: &dyn Fn(&Service) -> bool,
    can_ask: bool,
) -> BTreeMap<String, String> {
    let deployment = &planner.desired.deployment;
    let mut along = BTreeMap::new();
    let mut goes: BTreeSet<&str> = BTreeSet::new();
    // None comes before what it leans on then.
    for service in leaning::after_supports(planner.observed, deployment, ordered.to_vec()) {
        let Some(container) = serving(planner.observed, deployment, service).filter(|found| is_up(found))
        else {
            continue;
        };
        if is_wanted(service) {
            goes.insert(&service.name);
            continue;
        }
        let may = service.role != Some(Role::Database)
            && !service.written.hold
            && adopted::check_restart(planner.desired, service, container, can_ask).is_ok();
        let on = leaning::of(planner.observed, deployment, container)
            .into_iter()
            .find(|on| goes.contains(on.service));
        if let Some(on) = on.filter(|_| may) {
            along.insert(
                service.name.clone(),
                format!("it has {} from `{}`, which is restarted", on.what, on.service),
            );
            goes.insert(&service.name);
        }
    }
    along
}

/// What leans on nothing that is touched, and what does, each with what it leans on.
#[allow(clippy::type_complexity, reason = "two lists of the one kind that is divided")]
pub(super) fn apart<'a, T>(
    planner: &Planner<'a>,
    all: Vec<(&'a Service, T)>,
    is_touched: &impl Fn(&Service, &T) -> bool,
) -> (Vec<(&'a Service, T)>, Vec<(BTreeSet<String>, (&'a Service, T))>) {
    let touched = all.iter().filter(|(service, what)| is_touched(service, what));
    let touched: BTreeSet<String> = touched.map(|(service, _)| service.name.clone()).collect();
    let (mut plain, mut followers) = (Vec::new(), Vec::new());
    for (service, what) in all {
        let on = supports(planner, service, &touched);
        if on.is_empty() || !is_touched(service, &what) {
            plain.push((service, what));
        } else {
            followers.push((on, (service, what)));
        }
    }
    (plain, followers)
}

/// Each follower in a batch of its own, right behind the last that it leans on.
pub(super) fn between<'a, T>(
    batches: Vec<Vec<(&'a Service, T)>>,
    mut followers: Vec<(BTreeSet<String>, (&'a Service, T))>,
) -> Vec<Vec<(&'a Service, T)>> {
    let mut done = BTreeSet::new();
    let mut ordered = Vec::new();
    for batch in batches {
        done.extend(batch.iter().map(|(service, _)| service.name.clone()));
        ordered.push(batch);
        while let Some(at) = followers.iter().position(|(on, _)| on.is_subset(&done)) {
            let (_, next) = followers.remove(at);
            done.insert(next.0.name.clone());
            ordered.push(vec![next]);
        }
    }
    // Where they lean on each other, whatever the engine made of that.
    ordered.extend(followers.into_iter().map(|(_, one)| vec![one]));
    ordered
}

/// Those of these services on which the containers of another one lean.
fn supports(planner: &Planner<'_>, service: &Service, among: &BTreeSet<String>) -> BTreeSet<String> {
    let deployment = &planner.desired.deployment;
    let containers = of_service(planner.observed, deployment, &service.name);
    let all = containers.flat_map(|container| leaning::of(planner.observed, deployment, container));
    let seen = all.map(|on| on.service.to_owned());
    let declared = leaning::declared(planner.desired, service).map(|(_, on)| on.name.clone());
    let names = seen.chain(declared).filter(|name| *name != service.name);
    names.filter(|name| among.contains(name)).collect()
}
