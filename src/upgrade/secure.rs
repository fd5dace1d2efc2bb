//! What a deploy secures before its first step, so that there is a way back next week too: what each container is that will be
//! parked, on this machine's disk, and its image under a name of ours on the engine. A prune takes neither.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use super::drive::{Deploy, ended};
use super::journal::Way;
use super::names::{Part, held_by, held_name, held_prefix, old_name, part_of};
use super::retire::retire;
use super::run::Runner;
use super::state::declared_restart;
use super::step::{Action, After, Plan, Step};
use super::{DeployFailure, DeployId, Intent, adopted, retry};
use crate::deploy::observe::{adopt, find_images};
use crate::deploy::observed::Shelf;
use crate::deploy::pins::Pins;
use crate::deploy::twin::Twin;
use crate::deploy::{Desired, Observed};
use crate::engine::{EngineError, ImageSummary};
use crate::oci::Reference;
use crate::tars::catalogue::IMAGE_ROLE_LABEL;

impl Deploy<'_> {
    /// Keeps what will be parked. Without room for it nothing is begun; an image that cannot be held is only said.
    pub(super) async fn secure(&self, plan: &Plan) -> Result<(), DeployFailure> {
        let mut held = BTreeSet::new();
        for touched in &plan.touched {
            let is_parked = matches!(touched.after, After::Made | After::Parked { .. });
            let Some(before) = touched.before.as_ref().filter(|_| is_parked) else { continue };
            let found = retry::while_away(async || self.engine.inspect_container(&before.id).await).await?;
            let Some(mut found) = found else { continue };
            adopt(self.desired, &found.id, &mut found.labels);
            let service = self.desired.service(&touched.service);
            // As it may come back.
            let twin = service.and_then(|service| adopted::twin(self.desired, service, &found));
            let twin = twin.map_or_else(|| Twin::of(&found, declared_restart(&found)), |(twin, _)| twin);
            let name = old_name(&touched.container, &plan.id);
            let failed = |source| DeployFailure::NotKept { container: before.name.clone(), source };
            self.machine.folder.keep_twin(&name, &twin).map_err(failed)?;
            let (repository, tag) = held_name(&plan.deployment, &twin.image, &twin.image_id, &plan.id);
            if !held.insert((repository.clone(), tag.clone())) {
                continue;
            }
            match self.engine.tag_image(&twin.image_id, &repository, &tag).await {
                Ok(()) => {}
                Err(error @ (EngineError::Lost { .. } | EngineError::Unreachable { .. })) => {
                    return Err(error.into());
                }
                Err(error) => self.machine.reporter.say(&format!(
                    "warning: the image of {} cannot be held for a way back later: {error}",
                    before.name
                )),
            }
        }
        Ok(())
    }

    /// What follows a commit: what is parked, held and kept beyond what the policy says goes. The new version is proven and
    /// serves; what cannot be cleared away now is cleared by the next deploy.
    pub(super) async fn clear_away(&self, runner: &mut Runner<'_>) -> Result<(), DeployFailure> {
        let looked = retry::while_away(async || {
            let observed = self.observe(runner.desired).await?;
            let images = self.engine.list_images().await?;
            Ok::<_, EngineError>((observed, images))
        });
        let (observed, images) = match looked.await {
            Ok(found) => found,
            Err(error) => {
                let text = format!("warning: what is parked is not cleared away: {error}");
                self.machine.reporter.say(&text);
                return Ok(());
            }
        };
        let let_go = matches!(runner.record.plan.intent, Intent::Prune { foreign: true, .. });
        let mut steps = retire(runner.desired, &observed, &runner.deploy);
        let needed = observed.containers.iter().map(|container| container.image_id.clone()).collect();
        steps.extend(released(runner.desired, &needed, &images, let_go));
        if let Err(failed) = runner.run(Way::Finish, &steps, 1, steps.len()).await {
            if let Some(end) = ended(runner, failed.number, &failed.source) {
                return Err(end);
            }
            self.machine.reporter.say(&format!("warning: {failed}"));
        }
        let (twins, _) = self.machine.folder.twins(&runner.desired.deployment).unwrap_or_default();
        for name in outlived(runner.desired, &twins, let_go) {
            let _ = self.machine.folder.forget_twin(&name);
        }
        Ok(())
    }

    /// What a deploy that is undone has kept speaks of nothing that it parked.
    pub(super) fn forget(&self, deploy: &DeployId, deployment: &str) {
        let suffix = format!(".old.{deploy}");
        let (twins, _) = self.machine.folder.twins(deployment).unwrap_or_default();
        for name in twins.keys().filter(|name| name.ends_with(&suffix)) {
            let _ = self.machine.folder.forget_twin(name);
        }
    }

    /// The observed state with what the intent needs beyond it: a rollback what is kept here, a prune everything there is.
    pub(super) async fn observe_for(
        &self,
        desired: &Desired,
        intent: &Intent,
    ) -> Result<Observed, EngineError> {
        let mut observed = self.observe(desired).await?;
        match intent {
            Intent::Rollback { .. } => self.add_kept(&mut observed).await?,
            Intent::Prune { .. } => observed.shelf = Some(self.shelf(desired).await?),
            _ => {}
        }
        Ok(observed)
    }

    async fn shelf(&self, desired: &Desired) -> Result<Shelf, EngineError> {
        let pins = Pins::read_file(&Pins::path(desired)).ok();
        let names = |pins: Pins| pins.images.keys().map(ToString::to_string).collect();
        let containers = self.engine.list_containers(&[]).await?;
        Ok(Shelf {
            images: self.engine.list_images().await?,
            containers: containers.into_iter().map(|one| (one.name, one.image_id)).collect(),
            pinned: pins.map(|pins| pins.map(names).unwrap_or_default()),
        })
    }

    async fn add_kept(&self, observed: &mut Observed) -> Result<(), EngineError> {
        let (twins, trouble) = self.machine.folder.twins(&self.desired.deployment).unwrap_or_else(|error| {
            let trouble = format!("what parked containers were cannot be read: {error}");
            (BTreeMap::new(), vec![trouble])
        });
        for why in trouble {
            self.machine.reporter.say(&format!("warning: {why}"));
        }
        let names = twins.values().flat_map(|twin| [twin.image.clone(), twin.image_id.clone()]);
        find_images(self.engine, observed, self.stored, names).await?;
        for network in twins.values().flat_map(Twin::networks) {
            if let Entry::Vacant(vacant) = observed.networks.entry(network) {
                let found = self.engine.inspect_network(vacant.key()).await?;
                vacant.insert(found);
            }
        }
        for volume in twins.values().flat_map(Twin::volumes) {
            if let Entry::Vacant(vacant) = observed.volumes.entry(volume) {
                let found = self.engine.inspect_volume(vacant.key()).await?;
                vacant.insert(found);
            }
        }
        observed.kept = twins;
        Ok(())
    }
}

/// What is kept of parked containers and speaks of nothing that anybody would go back to: of each container the newest stay, and
/// what somebody else had made, unless that was let go.
fn outlived(desired: &Desired, twins: &BTreeMap<String, Twin>, let_go: bool) -> Vec<String> {
    let policy = &desired.policy;
    let most = policy.keep_images.max(policy.keep_parked);
    let mut of_services: BTreeMap<&str, Vec<(DeployId, &String)>> = BTreeMap::new();
    for (name, twin) in twins.iter().filter(|(_, twin)| twin.made_by().is_some()) {
        if let (Some(service), Part::Old(deploy)) = (twin.service(), part_of(name)) {
            of_services.entry(service).or_default().push((deploy, name));
        }
    }
    let mut outlived = Vec::new();
    if let_go {
        outlived
            .extend(twins.iter().filter(|(_, twin)| twin.made_by().is_none()).map(|(name, _)| name.clone()));
    }
    for (_, mut of_one) in of_services {
        of_one.sort();
        outlived.extend(of_one.into_iter().rev().skip(most).map(|(_, name)| name.clone()));
    }
    outlived
}

/// The names of ours that go after a commit: of each image's versions the newest stay, and whatever a container needs, and what
/// is not of tarsup's making, as it is the way back to upstream; that only until it is `let_go`.
pub(super) fn released(
    desired: &Desired,
    needed: &BTreeSet<String>,
    images: &[ImageSummary],
    let_go: bool,
) -> Vec<Step> {
    let prefix = held_prefix(&desired.deployment);
    let mut held: Vec<(Reference, DeployId, &ImageSummary)> = Vec::new();
    for image in images {
        for tag in &image.tags {
            let Ok(name) = tag.parse::<Reference>() else { continue };
            let deploy = name.tag.as_deref().and_then(held_by);
            if let Some(deploy) = deploy.filter(|_| name.familiar_path().starts_with(&prefix)) {
                held.push((name, deploy, image));
            }
        }
    }
    held.sort_by(|a, b| (&a.0.repository, &b.1).cmp(&(&b.0.repository, &a.1)));
    let mut steps = Vec::new();
    for of_one in held.chunk_by(|a, b| a.0.repository == b.0.repository) {
        let mut kept: BTreeSet<&str> = BTreeSet::new();
        for (name, _, image) in of_one {
            if kept.contains(image.id.as_str()) {
                let cause = "a later deploy holds it too";
                steps.push(release(name, cause.to_owned()));
                continue;
            }
            let is_foreign = !image.labels.contains_key(IMAGE_ROLE_LABEL);
            let stays = if is_foreign { !let_go } else { kept.len() < desired.policy.keep_images };
            if stays || needed.contains(&image.id) {
                kept.insert(&image.id);
            } else {
                let cause = if is_foreign {
                    "nothing is left that was made from it".to_owned()
                } else {
                    format!("{} older versions of an image are kept", desired.policy.keep_images)
                };
                steps.push(release(name, cause));
            }
        }
    }
    steps
}

fn release(name: &Reference, cause: String) -> Step {
    Step { service: None, cause, action: Action::Release { image: name.to_string() } }
}
