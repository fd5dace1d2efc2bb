//! A service that its declaration holds: nothing but a command that names it touches its container.

use super::differ;
use super::plan::Planner;
use super::state::{is_parked_in_place, is_up, serving};
use crate::deploy::desired::Service;

/// True where the container of a service is left as it is; what would be done is said. What `tarsup down --all` stopped comes
/// back as everything else.
pub(super) fn is_left(planner: &mut Planner<'_>, service: &Service) -> bool {
    let (observed, deployment) = (planner.observed, &planner.desired.deployment);
    let Some(container) =
        serving(observed, deployment, service).filter(|it| service.written.hold && !planner.is_own(it))
    else {
        return false;
    };
    let why = match differ::difference(service, container, observed) {
        Some(cause) => cause,
        None if is_up(container) => return true,
        None if is_parked_in_place(container) => return false,
        None => "it is stopped".to_owned(),
    };
    let text = format!(
        "is held and left as it is ({why}); `tarsup restart {0}` and `tarsup upgrade --image {0}=REF` touch it",
        service.name
    );
    planner.note(&service.name, &text);
    true
}
