//! What is unfinished where no lock says so: told by the journal beside the file, and by names and labels on the engine.
//!
//! A prune may have taken lock and record, a second machine has no journal. So both are asked, and neither alone is
//! believed: a journal may be behind what another machine did since; what the engine shows may be somebody's intention.

use std::collections::BTreeSet;
use std::io;

use super::DeployId;
use super::glance::has_ended;
use super::journal::{DeployState, JournalHeader, Line, recorded, summarise};
use super::names::{Part, old_name, part_of};
use super::record::DeployRecord;
use super::state::{by_id, declared_restart, is_fresh, is_up, made, of_service, ours, same_restart, serving};
use super::step::{After, Touched};
use super::unwind::{deploy_of, unwind};
use crate::deploy::observed::{LABEL_DEPLOY, LABEL_DEPLOYMENT, LABEL_RECORD};
use crate::deploy::{Desired, Observed};
use crate::engine::Container;

/// A deploy that was cut off, and whose lock is gone.
#[derive(Clone, Debug)]
pub struct Left {
    /// The deploy.
    pub id: DeployId,
    /// Its record, whole or in outline.
    pub record: DeployRecord,
    /// True where it had reached its end, or had been committed.
    pub committed: bool,
    /// What tells that it is unfinished, as a sentence without its full stop.
    pub sign: String,
}

/// The deploy that was cut off, if one was. `desired` is the declaration as the files have it.
pub fn left(
    desired: &Desired,
    observed: &Observed,
    journal: Option<&(JournalHeader, Vec<Line>)>,
) -> Option<Left> {
    let newest = newest_on_engine(desired, observed);
    let told = journal.and_then(|(header, lines)| from_journal(desired, observed, header, lines));
    match told {
        // A later deploy has gone over it, from another machine.
        Some((id, _)) if newest.as_ref().is_some_and(|newest| *newest > id) => from_engine(desired, observed),
        Some((_, left)) => left,
        None => from_engine(desired, observed),
    }
}

/// The same with the newest journal as it was read: one that cannot be is said, and the engine is asked alone.
pub fn left_by(
    desired: &Desired,
    observed: &Observed,
    journal: io::Result<Option<(JournalHeader, Vec<Line>)>>,
    warn: impl Fn(&str),
) -> Option<Left> {
    let journal = journal.unwrap_or_else(|error| {
        warn(&format!("the newest journal cannot be read: {error}"));
        None
    });
    left(desired, observed, journal.as_ref())
}

fn newest_on_engine(desired: &Desired, observed: &Observed) -> Option<DeployId> {
    ours(observed, &desired.deployment).filter_map(deploy_of).max()
}

/// The journal's last deploy, and what is left of it; `None` where the journal cannot tell.
fn from_journal(
    desired: &Desired,
    observed: &Observed,
    header: &JournalHeader,
    lines: &[Line],
) -> Option<(DeployId, Option<Left>)> {
    let id = header.deploy.clone();
    if has_ended(header, lines) {
        return Some((id, None));
    }
    let state = summarise(header.clone(), lines).state;
    let record = recorded(lines)?.clone();
    let committed = state == DeployState::Committed || is_complete(desired, observed, &record);
    let open = if committed {
        // Nothing but the file and what is parked can be left.
        !desired.images_to_rewrite(&record.images).is_empty()
    } else {
        let way_back = unwind(observed, &record, desired, &BTreeSet::new());
        way_back.changes_something() || !way_back.lost.is_empty()
    };
    let sign = format!("its journal does not say how it ended ({})", state.word());
    let left = open.then(|| Left { id: id.clone(), record, committed, sign });
    Some((id, left))
}

/// What names and labels tell.
fn from_engine(desired: &Desired, observed: &Observed) -> Option<Left> {
    let id = newest_on_engine(desired, observed)?;
    let label = outline(desired, observed, &id)?;
    let record = DeployRecord::from_outline(label, &id, &desired.deployment).there()?;
    if is_complete(desired, observed, &record) {
        return None;
    }
    let sign = sign(desired, observed, &record, &id)?;
    Some(Left { id, record, committed: false, sign })
}

/// The outline that the containers which a deploy made bear. One that it only parked bears that of another deploy.
pub fn outline<'a>(desired: &Desired, observed: &'a Observed, id: &DeployId) -> Option<&'a String> {
    observed
        .containers
        .iter()
        .filter(|container| container.labels.get(LABEL_DEPLOYMENT) == Some(&desired.deployment))
        .filter(|container| container.labels.get(LABEL_DEPLOY).is_some_and(|deploy| deploy == id.as_str()))
        .find_map(|container| container.labels.get(LABEL_RECORD))
}

/// Why a deploy that is not complete was cut off, rather than ended long ago and changed by hand since.
fn sign(desired: &Desired, observed: &Observed, record: &DeployRecord, id: &DeployId) -> Option<String> {
    for container in ours(observed, &desired.deployment) {
        match part_of(&container.name) {
            Part::New(by) | Part::Migrate(by) if by == *id => {
                return Some(format!("the container `{}` is there", container.name));
            }
            Part::Serving if is_unproven(container, id) => {
                return Some(format!("the container `{}` was started and never proven", container.name));
            }
            _ => {}
        }
    }
    let touched = &record.plan.touched;
    let of = |touched: &Touched| made(observed, &desired.deployment, &touched.service, id).is_some_and(is_up);
    // Everything was swapped and ran, and nothing does: it was stopped since, by a `down` or with its machine. Cut off in
    // the gate of its last container it would look the same; whatever starts it again asks the gates anew.
    let ran = |touched: &Touched| {
        made(observed, &desired.deployment, &touched.service, id)
            .is_some_and(|made| made.name == touched.container && !is_up(made) && !is_fresh(made))
    };
    if touched.iter().all(ran) {
        return None;
    }
    for one in touched {
        let Some(before) = &one.before else { continue };
        let place = of_service(observed, &desired.deployment, &one.service)
            .find(|container| container.name == one.container);
        if place.is_some_and(|place| place.id == before.id) && touched.iter().any(&of) {
            return Some(format!("`{}` is as it was before it, others are not", one.service));
        }
        let parked = by_id(observed, &before.id).is_some_and(|old| old.name == old_name(&one.container, id));
        if parked && before.running && !place.is_some_and(is_up) {
            return Some(format!("nothing serves for `{}`", one.service));
        }
    }
    None
}

fn is_unproven(container: &Container, id: &DeployId) -> bool {
    deploy_of(container).as_ref() == Some(id)
        && is_up(container)
        && !same_restart(&container.restart, &declared_restart(container))
}

/// True where every touched service is what the deploy was to make of it.
pub fn is_complete(desired: &Desired, observed: &Observed, record: &DeployRecord) -> bool {
    let plan = &record.plan;
    !plan.touched.is_empty()
        && plan.touched.iter().all(|touched| {
            let in_place = |container: &Container| container.name == touched.container && is_up(container);
            match &touched.after {
                After::Made => {
                    made(observed, &desired.deployment, &touched.service, &plan.id).is_some_and(|made| {
                        in_place(made) && same_restart(&made.restart, &declared_restart(made))
                    })
                }
                After::Parked { id, .. } => by_id(observed, id).is_some_and(in_place),
                // That a container was started or stopped again leaves no trace: the way back decides.
                After::Same => false,
            }
        })
}

/// Where engine and file disagree though no deploy was cut off, one sentence each: no command may say that all is well.
pub fn disagreements(desired: &Desired, observed: &Observed) -> Vec<String> {
    let mut found = Vec::new();
    let any = ours(observed, &desired.deployment).next().is_some();
    for service in &desired.services {
        match serving(observed, &desired.deployment, service) {
            None if any => found.push(format!("`{}` is declared and not there", service.name)),
            Some(container) if container.image != service.image.to_string() => found.push(format!(
                "`{}` runs {}, and the file names {}",
                service.name, container.image, service.image
            )),
            _ => {}
        }
    }
    found
}
