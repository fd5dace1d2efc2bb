//! What the way back needs: the image of each container that is parked, what a container that is made once more joins and mounts,
//! and a database that lets its version start.

use std::cmp::Ordering;

use crate::deploy::Observed;
use crate::deploy::observed::Availability;
use crate::deploy::twin::Twin;
use crate::tars::version::compared;
use crate::upgrade::Refusal;
use crate::upgrade::finding::{About, Findings};
use crate::upgrade::state::by_id;
use crate::upgrade::step::{After, Plan};

/// Names the containers that could not be made once more, because somebody removed their images by force.
pub(in crate::upgrade) fn judge(plan: &Plan, observed: &Observed, findings: &mut Findings) {
    for touched in &plan.touched {
        let is_parked = matches!(touched.after, After::Made | After::Parked { .. });
        let before = touched.before.as_ref().filter(|_| is_parked);
        let Some(container) = before.and_then(|before| by_id(observed, &before.id)) else { continue };
        if matches!(observed.images.get(&container.image_id), Some(Availability::Absent)) {
            findings.note(
                About::WayBack,
                format!(
                    "the image of `{}` ({}) is not on the engine any more: once its container is gone, there is no way back to it",
                    container.name, container.image
                ),
            );
        }
    }
}

/// A network or volume that a container is made with once more, and that is not there: the engine would make an empty volume.
pub(in crate::upgrade) fn lacks(service: &str, twin: &Twin, observed: &Observed) -> Vec<Refusal> {
    let gone =
        |kind: &'static str, name: String| Refusal::KeptGone { service: service.to_owned(), kind, name };
    let networks = twin.networks().into_iter();
    let networks = networks.filter(|name| matches!(observed.networks.get(name), Some(None)));
    let volumes = twin.volumes().into_iter();
    let volumes = volumes.filter(|name| matches!(observed.volumes.get(name), Some(None)));
    networks.map(|name| gone("network", name)).chain(volumes.map(|name| gone("volume", name))).collect()
}

/// A master whose own start would refuse the database: a newer version changed it, and nobody said that this one may run on it.
pub(in crate::upgrade) fn may_start(
    service: &str,
    version: Option<&str>,
    observed: &Observed,
) -> Result<(), Refusal> {
    let facts = observed.facts.cluster.as_ref().and_then(|told| told.as_ref().ok());
    let changed = facts.and_then(|facts| facts.versions.as_deref()).unwrap_or_default();
    let Some(version) = version else { return Ok(()) };
    let newer: Vec<String> = changed
        .iter()
        .filter(|changed| compared(&changed.version, version) == Ordering::Greater)
        .filter(|changed| !changed.allows.iter().any(|allowed| allowed == version))
        .map(|changed| changed.version.clone())
        .collect();
    if newer.is_empty() {
        return Ok(());
    }
    let (service, version) = (service.to_owned(), version.to_owned());
    Err(Refusal::NoStart { service, version, newer: newer.join(", ") })
}
