//! Carries out what makes a container once more from what it was: not from the file, and not from an image's defaults.

use super::run::{Runner, StepError};
use super::step::{Action, Step, TwinOf};
use crate::deploy::guard;
use crate::deploy::observed::{LABEL_DEPLOY, LABEL_PREDECESSOR, LABEL_RECORD, LABEL_TWIN};
use crate::deploy::twin::Twin;
use crate::engine::{EngineError, Status};

impl Runner<'_> {
    fn twin(&self, whose: &TwinOf, service: Option<&str>) -> Result<Twin, StepError> {
        let TwinOf::Kept(name) = whose;
        let (mut twins, _) =
            self.machine.folder.twins(&self.desired.deployment).map_err(StepError::Journal)?;
        let unplanned = || StepError::Unplanned { service: service.unwrap_or_default().to_owned() };
        twins.remove(name).ok_or_else(unplanned)
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
        let twin = self.twin(whose, step.service.as_deref())?;
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
        let mut body = twin.body(&[
            (LABEL_DEPLOY, Some(self.deploy.to_string())),
            (LABEL_RECORD, self.record.outline()),
            (LABEL_PREDECESSOR, predecessor.clone()),
        ]);
        body.0.insert("Image".to_owned(), called.into());
        guard::check_body(name, &body).map_err(Box::new)?;
        let made = match self.engine.create_container(name, &body).await {
            Ok(id) => self.engine.inspect_container(&id).await?,
            // An earlier create whose answer was lost has come to its end: that container is this one.
            Err(error @ EngineError::Conflict { .. }) => match self.engine.inspect_container(name).await? {
                Some(found)
                    if found.status == Status::Created
                        && found.labels.get(LABEL_DEPLOY).map(String::as_str)
                            == Some(self.deploy.as_str())
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

    /// Joins a container to a network as the one was that it is the twin of.
    pub(super) async fn join(
        &self,
        step: &Step,
        whose: &TwinOf,
        container: &str,
        network: &str,
    ) -> Result<(), StepError> {
        let twin = self.twin(whose, step.service.as_deref())?;
        let settings = twin.joins_later().iter().find(|(name, _)| name == network);
        let Some((_, settings)) = settings else {
            return Err(StepError::Unplanned { service: step.service.clone().unwrap_or_default() });
        };
        Ok(self.engine.connect_network(network, container, settings).await?)
    }
}
