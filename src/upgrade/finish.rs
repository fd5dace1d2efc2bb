//! The plan of `migrate --finish`: what concerns all nodes goes, once every container has moved and no older one is a way back.

use std::collections::BTreeMap;

use super::drive::Deploy;
use super::names::{Part, migrate_name, part_of};
use super::one_off::OneOff;
use super::plan::{Planner, plan as planned};
use super::preview::preview;
use super::state::{is_up, ours, serving};
use super::step::{Purpose, Task};
use super::{DeployId, Intent, Refusal};
use crate::deploy::Desired;
use crate::deploy::observed::LABEL_ROLE;
use crate::engine::Container;
use crate::oci::image::VERSION_LABEL;
use crate::tars::Role;

impl Deploy<'_> {
    /// How many rows of old protocols are left that nothing needs any more, as `desired` runs now; `None` where some container
    /// still has to move, an older one is a way back, or nobody knows.
    pub async fn left_to_finish(&self, desired: &Desired) -> Option<usize> {
        let observed = self.observe(desired).await.ok()?;
        let id = DeployId::new(self.machine.clock.now(), u16::MAX);
        let plan = planned(&id, desired, &observed, &Intent::Finish, &[]).ok()?;
        let preview = preview(self.engine, desired, &id, &plan.steps, &BTreeMap::new(), None).await.ok()?;
        let left = preview.document?["finished"].as_array()?.len();
        Some(left).filter(|left| *left > 0)
    }
}

/// One run of the master's image, where nothing stands in its way.
pub(super) fn plan(planner: &mut Planner<'_>) -> Result<(), Refusal> {
    let (desired, observed, id) = (planner.desired, planner.observed, planner.id);
    let nothing =
        || Refusal::NothingThere { deployment: desired.deployment.clone(), word: "finish the migration of" };
    let master =
        desired.services.iter().find(|service| service.role == Some(Role::Master)).ok_or_else(nothing)?;
    let running =
        serving(observed, &desired.deployment, master).filter(|it| is_up(it)).ok_or_else(nothing)?;
    let version = running.labels.get(VERSION_LABEL);
    for service in &desired.services {
        if !matches!(service.role, Some(Role::Master | Role::Slave | Role::Node)) {
            continue;
        }
        let Some(container) = serving(observed, &desired.deployment, service) else { continue };
        let is_declared =
            observed.image(&service.image.to_string()).is_some_and(|image| image.id == container.image_id);
        if !is_declared || container.labels.get(VERSION_LABEL) != version {
            planner.findings.refuse(Refusal::NotMoved {
                service: service.name.clone(),
                runs: container.image.clone(),
                wants: if is_declared { master.image.to_string() } else { service.image.to_string() },
            });
        }
    }
    let is_another = |parked: &Container| match version {
        Some(version) => parked.labels.get(VERSION_LABEL) != Some(version),
        None => parked.image_id != running.image_id,
    };
    let parked = ours(observed, &desired.deployment).filter(|container| {
        let role = container.labels.get(LABEL_ROLE).map(String::as_str);
        matches!(part_of(&container.name), Part::Old(_))
            && matches!(role, Some("master" | "slave" | "node"))
            && is_another(container)
    });
    for parked in parked {
        let (container, image) = (parked.name.clone(), parked.image.clone());
        planner.findings.refuse(Refusal::WayBack { container, image });
    }
    let name = migrate_name(&desired.deployment, id);
    let cause = "every node has moved, and no older version is a way back";
    let one_off = OneOff {
        service: master,
        name: name.clone(),
        cause: cause.to_owned(),
        image: master.image.clone(),
        image_id: Some(running.image_id.clone()),
        from: None,
        purpose: Purpose::Finish,
    };
    let task = Task::Finish { image: master.image.to_string() };
    let steps = one_off.steps(observed.container(&name), Some(task));
    planner.plan.steps.extend(steps);
    Ok(())
}
