//! Carries out what makes a container once more from what it was: not from the file, and not from an image's defaults.

use serde_json::Value;

use super::adopted;
use super::names::{Part, part_of};
use super::run::{Runner, StepError};
use super::step::{Action, Step, TwinOf};
use super::unwind::deploy_of;
use crate::deploy::asked::shared;
use crate::deploy::observed::{LABEL_DEPLOY, LABEL_LEANS, LABEL_PREDECESSOR, LABEL_RECORD, LABEL_TWIN};
use crate::deploy::twin::Twin;
use crate::deploy::{carried, guard};
use crate::engine::{Container, CreateBody, EngineError, Status, object};

/// The keys of `HostConfig` by which a container may have a namespace of another one.
const SHARED: [&str; 3] = ["NetworkMode", "IpcMode", "PidMode"];

impl Runner<'_> {
    async fn twin(&self, whose: &TwinOf, service: Option<&str>) -> Result<Twin, StepError> {
        let unplanned = || StepError::Unplanned { service: service.unwrap_or_default().to_owned() };
        let id = match whose {
            TwinOf::Kept(name) => return self.kept.get(name).cloned().ok_or_else(unplanned),
            TwinOf::Container(id) => id,
        };
        let found = self.engine.inspect_container(id).await?.ok_or_else(unplanned)?;
        let service = service.and_then(|name| self.desired.service(name)).ok_or_else(unplanned)?;
        let twin = adopted::twin(self.desired, service, &found);
        twin.map(|(twin, _)| twin).ok_or_else(unplanned)
    }

    /// Creates a container as another one was.
    pub(super) async fn remake(&self, step: &Step) -> Result<(), StepError> {
        let Action::Create {
            name,
            image,
            image_id: Some(image_id),
            spec,
            predecessor,
            twin: Some(whose),
            ..
        } = &step.action
        else {
            return Ok(());
        };
        let twin = self.twin(whose, step.service.as_deref()).await?;
        if twin.digest() != *spec || twin.image_id != *image_id {
            return Err(StepError::Unplanned { service: step.service.clone().unwrap_or_default() });
        }
        let moved = |now: Option<&str>| StepError::Moved {
            image: image.to_string(),
            shown: image_id.clone(),
            now: now.map_or_else(|| "gone".to_owned(), str::to_owned),
        };
        // By its name where that leads to it, so that the name is what an inspect shows.
        let named = self.engine.inspect_image(&image.to_string()).await?;
        let by_name = named.is_some_and(|found| found.id == *image_id);
        let called = if by_name { image.to_string() } else { image_id.clone() };
        if !by_name && self.engine.inspect_image(image_id).await?.is_none() {
            return Err(moved(None));
        }
        // A twin that is only kept is nobody's successor: no deploy made what it stands for.
        let is_kept = matches!(whose, TwinOf::Container(_));
        let mut body = twin.body(&[
            (LABEL_DEPLOY, Some(self.deploy.to_string()).filter(|_| !is_kept)),
            (LABEL_RECORD, self.record.outline().filter(|_| !is_kept)),
            (LABEL_PREDECESSOR, predecessor.clone()),
        ]);
        body.0.insert("Image".to_owned(), called.into());
        self.lean_on_twins(&mut body).await?;
        if self.joins_at_create {
            for (network, settings) in twin.joins_later() {
                join_at_create(&mut body, network, settings.clone());
            }
        }
        guard::check_body(name, &body).map_err(Box::new)?;
        let made = match self.engine.create_container(name, &body).await {
            Ok(id) => self.engine.inspect_container(&id).await?,
            // An earlier create whose answer was lost has come to its end: that container is this one.
            Err(error @ EngineError::Conflict { .. }) => match self.engine.inspect_container(name).await? {
                Some(found)
                    if found.status == Status::Created
                        && deploy_of(&found).as_ref() == Some(&self.deploy)
                        && found.labels.get(LABEL_TWIN) == Some(&twin.of) =>
                {
                    Some(found)
                }
                _ => return Err(error.into()),
            },
            Err(error) => return Err(error.into()),
        };
        match made {
            Some(made) if made.image_id == *image_id => Ok(()),
            made => Err(moved(made.as_ref().map(|made| made.image_id.as_str()))),
        }
    }

    /// Puts into a create body what its predecessor has and no file can say.
    pub(super) async fn carry(
        &self,
        predecessor: &str,
        service: &str,
        body: &mut CreateBody,
    ) -> Result<(), StepError> {
        let Some(found) = self.engine.inspect_container(predecessor).await? else { return Ok(()) };
        let image = self.engine.inspect_image(&found.image_id).await?;
        let image = image.map_or(Value::Null, |image| image.raw["Config"].clone());
        carried::carry(body, &found, service, &image);
        self.lean_on_successors(body, &found).await
    }

    /// What it leans on may have been replaced since it was made: then its successor leans on the one that is there now.
    async fn lean_on_successors(&self, body: &mut CreateBody, of: &Container) -> Result<(), StepError> {
        let host = object(body.0.entry("HostConfig"));
        for key in ["IpcMode", "PidMode"] {
            let Some(other) = shared(&of.raw, key) else { continue };
            // What is declared goes by the name, and the engine finds who has that now.
            if host.get(key) != Some(&of.raw["HostConfig"][key]) {
                continue;
            }
            if let Some(successor) = self.successor_of(other).await? {
                host.insert(key.to_owned(), format!("container:{}", successor.id).into());
            }
        }
        for link in host.get_mut("Links").and_then(Value::as_array_mut).into_iter().flatten() {
            let Some((other, alias)) = link.as_str().and_then(|link| link.split_once(':')) else { continue };
            if let Some(successor) = self.successor_of(other).await? {
                *link = format!("{}:{alias}", successor.name).into();
            }
        }
        let leans = SHARED.iter().any(|key| {
            host.get(*key).and_then(Value::as_str).is_some_and(|mode| mode.starts_with("container:"))
        });
        if leans || host.get("Links").is_some() {
            object(body.0.entry("Labels")).insert(LABEL_LEANS.to_owned(), "true".into());
        }
        Ok(())
    }

    /// What a twin leans on may have a twin itself, which is what comes back: then it leans on that one.
    async fn lean_on_twins(&self, body: &mut CreateBody) -> Result<(), StepError> {
        let host = object(body.0.entry("HostConfig"));
        for key in SHARED {
            let mode = host.get(key).and_then(Value::as_str).and_then(|mode| mode.strip_prefix("container:"));
            let Some(other) = mode.map(str::to_owned) else { continue };
            let original = self.kept.values().find(|twin| twin.id == other).map_or(&other, |twin| &twin.of);
            let twins = self.engine.list_containers(&[format!("{LABEL_TWIN}={original}")]).await?;
            // Of several, the one that stands or is to stand in the place of it.
            let is_in_place =
                |name: &str| matches!(part_of(name), Part::Serving | Part::New(_) | Part::Twin(_));
            if let Some(found) = twins.iter().find(|one| is_in_place(&one.name)).or(twins.first()) {
                host.insert(key.to_owned(), format!("container:{}", found.id).into());
            }
        }
        Ok(())
    }

    /// The container in the place of one that is parked.
    async fn successor_of(&self, other: &str) -> Result<Option<Container>, StepError> {
        let Some(found) = self.engine.inspect_container(other).await? else { return Ok(None) };
        let name = found.name.rsplit_once(".old.").filter(|_| matches!(part_of(&found.name), Part::Old(_)));
        match name {
            Some((name, _)) => Ok(self.engine.inspect_container(name).await?),
            None => Ok(None),
        }
    }

    /// The same for the settings of a network that the container joins after its create.
    pub(super) async fn carry_endpoint(
        &self,
        container: &str,
        network: &str,
        settings: &mut Value,
    ) -> Result<(), StepError> {
        let predecessor = self.record.plan.steps.iter().find_map(|step| match &step.action {
            Action::Create { name, predecessor, .. } if name == container => predecessor.as_deref(),
            _ => None,
        });
        let Some(predecessor) = predecessor else { return Ok(()) };
        if let Some(found) = self.engine.inspect_container(predecessor).await? {
            carried::carry_endpoint(settings, &found, network);
        }
        Ok(())
    }

    /// Joins a container to a network as the one was that it is the twin of.
    pub(super) async fn join(
        &self,
        step: &Step,
        whose: &TwinOf,
        container: &str,
        network: &str,
    ) -> Result<(), StepError> {
        let twin = self.twin(whose, step.service.as_deref()).await?;
        let settings = twin.joins_later().iter().find(|(name, _)| name == network);
        let Some((_, settings)) = settings else {
            return Err(StepError::Unplanned { service: step.service.clone().unwrap_or_default() });
        };
        if self.is_joined(container, network).await? {
            return Ok(());
        }
        Ok(self.engine.connect_network(network, container, settings).await?)
    }

    /// True where a container was joined to the network by its create.
    pub(super) async fn is_joined(&self, container: &str, network: &str) -> Result<bool, StepError> {
        if !self.joins_at_create {
            return Ok(false);
        }
        let found = self.engine.inspect_container(container).await?;
        Ok(found.is_some_and(|found| found.addresses.contains_key(network)))
    }
}

/// Puts a further network into a create body, where its settings name a hardware address: later ones are ignored.
pub(super) fn join_at_create(body: &mut CreateBody, network: &str, settings: Value) {
    let names_one = settings["MacAddress"].as_str().is_some_and(|address| !address.is_empty());
    if names_one {
        let config = object(body.0.entry("NetworkingConfig"));
        object(config.entry("EndpointsConfig")).insert(network.to_owned(), settings);
    }
}
