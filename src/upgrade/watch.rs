//! Looks at containers while a deploy runs: from the inside, from beside, and by what the engine says, until a gate is content.

use std::time::Duration;

use tokio::time::Instant;

use super::cluster_probe::Outside;
use super::gate::{Cluster, Database, Gate, Proof, Sample, Verdict};
use super::inside::{Inside, probe};
use super::journal::Event;
use super::record::lines_of;
use super::run::{Runner, StepError};
use super::serving::{Again, Before};
use super::step::Step;
use crate::engine::{Container, EngineError, Status};
use crate::tars::Role;

impl Runner<'_> {
    /// What a registration is compared with is read while the old tarsnode is still there; where nothing was stopped, before
    /// the new one is.
    pub(super) async fn note_registrations(&mut self, step: &Step, anew: bool) {
        let Some(name) = &step.service else { return };
        let role = self.desired.service(name).and_then(|service| service.role);
        let is_proven_so = matches!(role, Some(Role::Master | Role::Slave | Role::Node));
        if !is_proven_so || (!anew && self.registered.contains_key(name)) {
            return;
        }
        let known = self.ask_cluster(None).await;
        self.registered.insert(name.clone(), known.ok().and_then(|cluster| cluster.registrations()));
    }

    /// What serves in a container is asked of itself right before it is stopped for the first time.
    pub(super) async fn note_served(&mut self, step: &Step, container: &str) {
        let Some(name) = &step.service else { return };
        let role = self.desired.service(name).and_then(|service| service.role);
        let has_servers = matches!(role, Some(Role::Master | Role::Slave | Role::Node));
        if !has_servers || self.served.contains_key(name) {
            return;
        }
        let told = match probe(self.engine, container).await {
            Inside::Said(probe) => Before::of(&probe),
            Inside::Silent(_) | Inside::NoInit => None,
        };
        let before = match (told, role) {
            (None, Some(role)) => self.seen_from_outside(container, role).await,
            (told, _) => told,
        };
        if before.is_none() {
            let words = "nobody can tell what else serves on";
            self.machine.reporter.say(&format!("       {words} {container}: its gate waits for none of it"));
        }
        let silent = before.iter().flat_map(|before| &before.silent).map(String::as_str).collect::<Vec<_>>();
        if !silent.is_empty() {
            self.machine.reporter.say(&format!(
                "       down on {container} before, and not waited for: {}",
                silent.join(", ")
            ));
        }
        self.served.insert(name.clone(), before);
    }

    /// What serves in a container that cannot tell by itself, such as upstream's: it is asked from outside, by its address.
    async fn seen_from_outside(&mut self, container: &str, role: Role) -> Option<Before> {
        let found = self.engine.inspect_container(container).await.ok()??;
        let address = known_by(&found)?;
        let told = self.ask_cluster(Some(Outside { address: &address, role })).await.ok()?;
        let asked = told.asked.filter(|_| told.database == Database::Exists)?;
        if !asked.untold.is_empty() {
            let (words, names) = ("serve by the word of its tarsnode alone", asked.untold.join(", "));
            self.machine.reporter.say(&format!("       on {container} these {words}: {names}"));
        }
        Some(Before::seen(&asked))
    }

    /// From now on a service's container gives no answer; one that was silent already still is.
    pub(super) fn falls_silent(&mut self, step: &Step) {
        if let Some(service) = &step.service {
            self.silent.entry(service.clone()).or_insert_with(Instant::now);
        }
    }

    /// It answers again, since it was found well first: how long it did not is written down, as far as that can be.
    pub(super) fn speaks_again(&mut self, step: &Step, container: &str) {
        let Some(service) = &step.service else { return };
        let Some(since) = self.silent.remove(service) else { return };
        let well = self.well_since.unwrap_or_else(Instant::now);
        let milliseconds =
            u64::try_from(well.saturating_duration_since(since).as_millis()).unwrap_or(u64::MAX);
        let (service, container) = (service.clone(), container.to_owned());
        let _ = self.write(Event::Silent { service, container, milliseconds });
    }

    /// A gate that waits for what served there before, too.
    pub(super) fn with_services(&self, gate: Gate, step: &Step) -> Gate {
        let before = step.service.as_ref().and_then(|name| self.served.get(name)).and_then(Option::as_ref);
        match before {
            Some(before) => {
                gate.with_services(Again::new(before.served.clone(), self.desired.policy.services_timeout))
            }
            None => gate,
        }
    }

    /// Looks until the container is proven; what its start changed in the database, a line each.
    pub(super) async fn gate(
        &mut self,
        container: &str,
        role: Option<Role>,
        mut gate: Gate,
    ) -> Result<Vec<String>, StepError> {
        let begun = Instant::now();
        let mut said = String::new();
        let mut changes = Vec::new();
        self.well_since = None;
        loop {
            let at = begun.elapsed();
            let verdict = match self.sample(container, role, &mut gate, at).await {
                Ok(sample) => {
                    if let Some(Ok(probe)) = &sample.probe {
                        changes = lines_of(&probe.changes);
                    }
                    gate.judge(&sample)
                }
                Err(error @ (EngineError::Lost { .. } | EngineError::Unreachable { .. })) => {
                    gate.judge_silence(at, &error.to_string())
                }
                Err(error) => return Err(error.into()),
            };
            match verdict {
                Verdict::Pass => {
                    self.well_since.get_or_insert_with(Instant::now);
                    return Ok(changes);
                }
                Verdict::Dwell => drop(self.well_since.get_or_insert_with(Instant::now)),
                Verdict::Wait(why) => {
                    self.well_since = None;
                    if why != said {
                        self.machine.reporter.say(&format!("       waiting for {container}: {why}"));
                        said = why;
                    }
                }
                Verdict::Fail(why) => {
                    let log = self.last_lines(container).await;
                    let why = self.mask.hide(&why);
                    return Err(StepError::Gate { container: container.to_owned(), why, log });
                }
            }
            self.pause().await?;
        }
    }

    async fn sample(
        &mut self,
        container: &str,
        role: Option<Role>,
        gate: &mut Gate,
        at: Duration,
    ) -> Result<Sample, EngineError> {
        let Some(found) = self.engine.inspect_container(container).await? else {
            return Err(EngineError::NotFound {
                call: format!("inspect {container}"),
                message: "it is gone".to_owned(),
            });
        };
        let running = found.status == Status::Running;
        let probe = match (gate.asks_inside() && running).then_some(()) {
            None => None,
            Some(()) => match probe(self.engine, container).await {
                Inside::Said(probe) => Some(Ok(probe)),
                Inside::Silent(why) => Some(Err(why)),
                Inside::NoInit => {
                    gate.ask_from_outside(known_by(&found));
                    None
                }
            },
        };
        let cluster =
            if gate.asks_cluster() && running { Some(self.ask_beside(gate, role).await) } else { None };
        Ok(Sample {
            at,
            status: found.status,
            exit_code: found.exit_code,
            restart_count: found.restart_count,
            health: found.health,
            probe,
            cluster,
        })
    }

    async fn ask_beside(&mut self, gate: &Gate, role: Option<Role>) -> Result<Cluster, String> {
        let outside = match (gate.proof(), role) {
            (Proof::Outside { node: Some(address) }, Some(role)) => Some(Outside { address, role }),
            _ => None,
        };
        self.ask_cluster(outside).await
    }

    /// Asks beside the deployment; twice, because a prune may have taken the container in between.
    pub(super) async fn ask_cluster(&mut self, outside: Option<Outside<'_>>) -> Result<Cluster, String> {
        let mut asked = Err(String::new());
        for _ in 0..2 {
            if !self.cluster_probe.is_open() {
                // Making it is an effect: whoever has lost the lock has none.
                self.own_the_lock().await.map_err(|error| error.to_string())?;
            }
            asked = self.cluster_probe.ask(self.engine, self.desired, outside).await;
            if asked.is_ok() {
                break;
            }
        }
        asked
    }
}

/// The name by which the database knows a container of upstream's: `DOMAIN`, else its address.
pub(super) fn known_by(container: &Container) -> Option<String> {
    let domain = container.env.filled("DOMAIN").map(|name| name.expose().to_owned());
    domain.or_else(|| container.addresses.values().find(|address| !address.is_empty()).cloned())
}
