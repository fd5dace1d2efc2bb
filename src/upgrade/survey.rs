//! The front half of a deploy: everything is asked that a plan depends on, before anything is shown or refused.

use std::collections::BTreeMap;

use super::cluster_probe::ClusterProbe;
use super::drive::Deploy;
use super::facts::{self, Asked};
use super::finding::{About, Findings};
use super::names::preview_name;
use super::offer::{Offer, Request, concluded, draft};
use super::overview::overview;
use super::preview::{preview, way_back};
use super::runnable::{self, Told};
use super::{DeployFailure, adopted, beside, keep, leaning, loss, other_start, published};
use crate::deploy::Observed;
use crate::engine::EngineError;

impl Deploy<'_> {
    /// What will be done for a request, or all that stands in its way. Nothing is changed.
    pub async fn offer(&self, request: &Request) -> Result<Offer, DeployFailure> {
        self.is_free().await?;
        let desired = request.intent.apply(self.desired);
        let observed = self.glance(&desired, &request.intent, false).await?;
        if let Some(left) = self.left(&observed) {
            let (deployment, deploy) = (self.desired.deployment.clone(), left.id.to_string());
            return Err(DeployFailure::Unfinished { deployment, deploy, sign: left.sign });
        }
        let asker = adopted::check_asker(self.engine, &request.intent).await?;
        let mut observed = loss::look(self.engine, self.desired, observed, request).await;
        let (first, found) = draft(self.desired, &observed, request);
        // No container is made of what the guard refuses, not even one that only asks.
        let mut told = match &first {
            Some(first) if !found.is_guarded() => facts::ask(self, first, &observed).await,
            _ => Asked::default(),
        };
        observed.facts = std::mem::take(&mut told.facts);
        let (mut offer, mut findings) = self.draft_with_backup(&observed, request).await;
        if let Some(offer) = &mut offer {
            offer.overview = overview(&offer.plan, &offer.desired, &observed);
        }
        findings.check(asker);
        if let Some(offer) = offer.as_mut().filter(|_| !findings.is_guarded()) {
            self.ask(offer, &observed, &mut told, &mut findings).await?;
        } else {
            told.close(self.engine, &desired.deployment).await?;
        }
        if findings.is_refused() {
            for finding in findings.told() {
                self.machine.reporter.say(&format!("note: {}", finding.text));
            }
        }
        Ok(concluded(offer, findings)?)
    }

    /// Asks what only running containers, and containers beside the deployment, can tell.
    async fn ask(
        &self,
        offer: &mut Offer,
        observed: &Observed,
        asked: &mut Asked,
        findings: &mut Findings,
    ) -> Result<(), EngineError> {
        let (plan, desired, none) = (&offer.plan, &offer.desired, BTreeMap::new());
        let published = published::ask(self.engine, plan, desired, observed).await;
        let beside = beside::notes(self.engine, desired, observed, plan).await;
        let leaning = leaning::questions(self.engine, plan, observed).await;
        let open = asked.probe.as_ref().and_then(ClusterProbe::made_of);
        let previewed = preview(self.engine, desired, &plan.id, &plan.steps, &none, open).await;
        let closed = asked.close(self.engine, &desired.deployment).await;
        let runnable = match &observed.facts.cluster {
            Some(Ok(facts)) => {
                runnable::ask(self.engine, desired, observed, &plan.id, &plan.steps, &none, &facts.services)
                    .await
            }
            _ => Told::default(),
        };
        let way_back = way_back(self.engine, offer, observed).await;
        let kept = keep::ask(self.engine, desired, &plan.id, &plan.steps).await;
        let other = asked.cluster.as_ref().map(|told| other_start::told(offer, observed, told));
        let preview = findings.check(previewed).unwrap_or_default();
        if let Some(question) = preview.question(&offer.plan.steps) {
            findings.ask(About::Schema, question);
        }
        offer.plan.notes.extend(beside?);
        runnable.refusals.into_iter().for_each(|refusal| findings.refuse(refusal));
        offer.plan.notes.extend(runnable.notes);
        offer.plan.questions.extend(published.questions);
        offer.plan.notes.extend(published.notes);
        offer.plan.questions.extend(leaning?);
        offer.plan.notes.extend(preview.notes);
        offer.migration = preview.document;
        offer.plan.notes.extend(way_back);
        offer.plan.notes.extend(other.unwrap_or_default());
        offer.plan.notes.extend(closed.err().map(|error| {
            format!("{} is not removed: {error}", preview_name(&offer.plan.deployment, &offer.plan.id))
        }));
        offer.plan.notes.extend(kept.notes);
        offer.plan.questions.extend(kept.questions);
        offer.columns = kept.document;
        Ok(())
    }
}
