//! Where a service's data lies before and after a plan: a move is shown as what it is, and refused for what has a role.

use std::fmt;

use super::Refusal;
use super::state::by_id;
use super::step::{Action, Plan, Purpose};
use crate::deploy::desired::Service;
use crate::deploy::mounts::{Lies, MountSource, Mounts};
use crate::deploy::{Desired, Observed, guard};

/// One service that would look for its data where it never was.
#[derive(Clone, Debug)]
pub(super) struct Move<'a> {
    service: &'a Service,
    path: String,
    from: Lies,
    to: Lies,
}

/// Every move of a plan: what the container that is replaced mounts, against what its successor would.
pub(super) fn moves<'a>(plan: &Plan, desired: &'a Desired, observed: &Observed) -> Vec<Move<'a>> {
    let mut found = Vec::new();
    for step in &plan.steps {
        let Action::Create { predecessor: Some(old), purpose: Purpose::Serve, twin: None, .. } = &step.action
        else {
            continue;
        };
        let service = step.service.as_deref().and_then(|name| desired.service(name));
        let (Some(service), Some(old)) = (service, by_id(observed, old)) else { continue };
        let before = Mounts::of_container(old);
        let mut after = service.declaration.mounts();
        if let Some(image) = observed.image(&service.image.to_string()) {
            after = after.with_image(image);
        }
        for path in data_paths(service, &before) {
            let (from, to) = (before.source_of(&path), after.source_of(&path));
            let is_handed_on = to == Lies::Container && matches!(&from, Lies::Anonymous(..));
            if !is_handed_on && !from.goes_on_in(&to) {
                found.push(Move { service, path, from, to });
            }
        }
    }
    found
}

/// Where the role keeps its data; without a role, wherever a volume was mounted.
fn data_paths(service: &Service, before: &Mounts) -> Vec<String> {
    if let Some(path) = guard::data_path(service) {
        return vec![path];
    }
    let volumes = before
        .iter()
        .filter(|mount| matches!(mount.source, MountSource::Volume { .. } | MountSource::Anonymous(_)));
    volumes.map(|mount| mount.target.clone()).collect()
}

impl Move<'_> {
    /// Why it is not made: it has a role, and nobody accepted the move.
    pub fn refusal(&self, accepted: &[String]) -> Option<Refusal> {
        if self.service.role.is_none() || accepted.contains(&self.service.name) {
            return None;
        }
        let keys = &self.service.written.keys;
        let place = keys.get(&format!("volumes {}", self.path)).or_else(|| keys.get("volumes"));
        Some(Refusal::DataMoves {
            service: self.service.name.clone(),
            path: self.path.clone(),
            from: self.from.to_string(),
            to: self.to.to_string(),
            place: Box::new(place.unwrap_or(&self.service.place).clone()),
        })
    }
}

impl fmt::Display for Move<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, path, from, to } = self;
        write!(
            f,
            "`{}` has its data at {path} in {from} and will look for it in {to}: what is there now stays behind",
            service.name
        )
    }
}
