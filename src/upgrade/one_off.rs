//! The steps of one run beside a service, in a container of its own: made, brought onto each network, run to its end.

use super::step::{Action, Purpose, Step, Task};
use crate::deploy::container::Endpoint;
use crate::deploy::desired::Service;
use crate::engine::Container;
use crate::oci::Reference;

/// One run that is to be planned.
pub(super) struct OneOff<'a> {
    /// The service whose declaration it has.
    pub service: &'a Service,
    /// Its container's name.
    pub name: String,
    /// Why it is run.
    pub cause: String,
    /// The image that it runs.
    pub image: Reference,
    /// The id that the image has on the engine, where that is known.
    pub image_id: Option<String>,
    /// The image that it leads away from, where it leads away from one.
    pub from: Option<String>,
    /// What it is for.
    pub purpose: Purpose,
}

impl OneOff<'_> {
    /// The steps that `found`, the container as an earlier try left it, still lacks; without a `task` it has been run.
    pub fn steps(self, found: Option<&Container>, task: Option<Task>) -> Vec<Step> {
        let Self { service, name, cause, image, image_id, from, purpose } = self;
        let step = |action| Step { service: Some(service.name.clone()), cause: cause.clone(), action };
        let mut steps = Vec::new();
        if found.is_none() {
            steps.push(step(Action::Create {
                name: name.clone(),
                image,
                image_id,
                spec: service.spec(),
                purpose,
                predecessor: None,
                from,
                volumes: Vec::new(),
                twin: None,
            }));
        }
        for Endpoint { network, .. } in service.declaration.joins_later() {
            if !found.is_some_and(|found| found.addresses.contains_key(network)) {
                steps.push(step(Action::Connect {
                    container: name.clone(),
                    network: network.clone(),
                    twin: None,
                }));
            }
        }
        steps.extend(task.map(|task| step(Action::Task { container: name, task })));
        steps
    }
}
