//! What a person does to the database beside a deploy, under the lock and in the history: a restore, a readdress.

use std::fmt::Display;
use std::future::Future;

use serde_json::Value;
use time::format_description::well_known::Rfc3339;

use crate::upgrade::drive::Deploy;
use crate::upgrade::journal::{self, Event, JournalHeader, Line, Way};
use crate::upgrade::lock::Lock;
use crate::upgrade::{DeployFailure, DeployId, Refusal};

impl Deploy<'_> {
    /// Does `act` while nobody else works on the deployment. `what` is the command in words, `plan` what it will do, for the
    /// journal. The outer error: it was not begun.
    pub async fn by_hand<T, E: Display>(
        &self,
        id: &DeployId,
        what: &str,
        plan: Value,
        act: impl Future<Output = Result<T, E>>,
    ) -> Result<Result<T, E>, DeployFailure> {
        self.is_free().await?;
        let observed = self.observe(self.desired).await?;
        let Some(lock) = Lock::take(self.engine, &self.taking(id, what, &observed)).await? else {
            self.is_free().await?;
            let why = "somebody else took the deployment and gave it free again".to_owned();
            return Err(Refusal::NoLongerFits { why }.into());
        };
        self.remove_probes().await;
        let written = async {
            let failed = |source| DeployFailure::Journal { deploy: id.to_string(), source };
            let mut journal = self
                .machine
                .folder
                .journal(&JournalHeader {
                    tarsup_journal: journal::VERSION,
                    deploy: id.clone(),
                    deployment: self.desired.deployment.clone(),
                    what: what.to_owned(),
                    by: self.machine.owner.who.clone(),
                    at: self.now(),
                })
                .map_err(failed)?;
            journal
                .append(&Line { at: self.now(), event: Event::Planned { way: Way::Do, plan } })
                .map_err(failed)?;
            let done = act.await;
            let events = match &done {
                Ok(_) => vec![Event::Committed, Event::Finished],
                Err(error) => vec![Event::Failed { way: Way::Do, step: 1, error: error.to_string() }],
            };
            for event in events {
                // It is done, or not, whether or not that can be written down.
                if let Err(error) = journal.append(&Line { at: self.now(), event }) {
                    self.machine.reporter.say(&format!("warning: the journal cannot be written: {error}"));
                }
            }
            Ok(done)
        };
        let done = self.leased(&lock, Box::pin(written)).await;
        self.give_free(&lock, id).await?;
        done
    }

    fn now(&self) -> String {
        self.machine.clock.now().format(&Rfc3339).unwrap_or_default()
    }
}
