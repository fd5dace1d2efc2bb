//! The one loop that acts: carries out steps in order, each in the journal before and after. It decides nothing.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use time::format_description::well_known::Rfc3339;
use tokio::sync::watch;
use tokio::time::Instant;

use super::backup::BackupError;
use super::body::{Making, create_body, image_volumes};
use super::cluster_probe::{self, ClusterProbe};
use super::draining::{Drains, Patience};
use super::gate::{Gate, Proof, Registrations};
use super::journal::{Event, Journal, Line, Way};
use super::lock::{Hold, Lock};
use super::machine::Machine;
use super::mask::Mask;
use super::names::{Part, part_of};
use super::record::DeployRecord;
use super::remake::join_at_create;
use super::serving::Before;
use super::step::{Action, Purpose, Step};
use super::{DeployId, render, retry};
use crate::deploy::Desired;
use crate::deploy::guard::{self, GuardError};
use crate::deploy::observed::{LABEL_DEPLOY, LABEL_DEPLOYMENT, LABEL_SERVICE, LABEL_SPEC};
use crate::deploy::twin::Twin;
use crate::engine::{Container, CreateBody, Engine, EngineError, Status};
use crate::oci::Reference;
use crate::tars::Role;

/// How often a gate looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// How many lines of a failed container's logs are shown, and how many are saved.
pub(super) const SHOWN_LINES: u32 = 20;
const SAVED_LINES: u32 = 10_000;

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The engine's answer.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The gate's verdict, with the last lines of the logs.
    #[error("`{container}` is not proven: {why}{}", indented(log))]
    Gate {
        /// The container.
        container: String,
        /// The verdict.
        why: String,
        /// The last lines that it said.
        log: String,
    },
    /// The migration ended with an error.
    #[error("the migration `{container}` exited with {code}{}", indented(log))]
    Migration {
        /// The container.
        container: String,
        /// Its exit code.
        code: i64,
        /// The last lines that it said.
        log: String,
    },
    /// There is no backup: nothing that it was to precede is begun.
    #[error("the backup failed: {0}")]
    Backup(Box<BackupError>),
    /// What a web console may drop is not kept.
    #[error("what the web console may drop could not be kept: {0}")]
    Keep(String),
    /// What the migration would change is not kept: it was told so, and changed nothing.
    #[error("what the migration would change cannot be kept, so it was not begun: {why}")]
    Unsaved {
        /// Why.
        why: String,
    },
    /// The image's name leads elsewhere than when the plan was made.
    #[error("the image `{image}` was {shown} when the plan was made, and is now {now}")]
    Moved {
        /// The image.
        image: String,
        /// The id that the plan showed.
        shown: String,
        /// The id that it has now.
        now: String,
    },
    /// The image cannot be loaded.
    #[error("the image `{image}` cannot be loaded: {why}")]
    Load {
        /// The image.
        image: String,
        /// Why.
        why: String,
    },
    /// The lock is not this run's own any more: nothing more may be done under it.
    #[error("the deployment's lock is {}", lost(hold))]
    LockLost {
        /// What has become of it.
        hold: Hold,
    },
    /// The plan does not fit the declaration that the executor holds.
    #[error("the declaration of `{service}` is not the one that was planned")]
    Unplanned {
        /// The service.
        service: String,
    },
    /// The guard, over the final create body.
    #[error(transparent)]
    Guard(#[from] Box<GuardError>),
    /// The journal cannot be written: nothing is done that is not written down first.
    #[error("the journal cannot be written: {0}")]
    Journal(io::Error),
    /// The image's own start would install over a database that it cannot ask.
    #[error(
        "`{container}` is not started, because its image's own start installs anew where it gets no answer from the database: \
         {why}"
    )]
    UnsafeStart {
        /// The container.
        container: String,
        /// What is known of the database.
        why: String,
    },
    /// Somebody goes on calling what registries hand out no more.
    #[error("still called {after} s after registries hand it out no more: {callers}")]
    StillCalled {
        /// Who calls what.
        callers: String,
        /// How long it was waited for, in seconds.
        after: u64,
    },
    /// Something goes silent that was to be drained, and it was said that nothing may.
    #[error("{what}")]
    Gap {
        /// What, and why.
        what: String,
    },
    /// Told to stop.
    #[error("told to stop")]
    Interrupted,
}

fn lost(hold: &Hold) -> String {
    match hold {
        Hold::Own => "held".to_owned(),
        Hold::Gone => "gone".to_owned(),
        Hold::Taken(by) => format!("held by {by} now"),
    }
}

pub(super) fn indented(log: &str) -> String {
    let lines = log.lines().fold(String::new(), |text, line| text + "\n    | " + line);
    if lines.is_empty() { String::new() } else { format!("\n  its last lines:{lines}") }
}

/// A step that failed.
#[derive(Debug, thiserror::Error)]
#[error("step {number} failed: {what}: {source}")]
pub struct StepFailed {
    /// Its number, counted from 1.
    pub number: usize,
    /// What it was to do.
    pub what: String,
    /// Why it failed.
    pub source: StepError,
}

/// What the loop needs.
pub struct Runner<'a> {
    /// The engine.
    pub engine: &'a dyn Engine,
    /// The machine.
    pub machine: Machine<'a>,
    /// Where create bodies come from.
    pub desired: &'a Desired,
    /// The deploy.
    pub deploy: DeployId,
    /// The lock that it is done under.
    pub lock: &'a Lock,
    /// What is left on the engine of it; effects are added as they happen.
    pub record: DeployRecord,
    /// What is not said of what containers print.
    pub mask: Mask,
    /// Where it is written down.
    pub journal: Box<dyn Journal>,
    /// Becomes true when a person or the system says stop.
    pub stop: watch::Receiver<bool>,
    /// The container in which the database is asked.
    pub cluster_probe: ClusterProbe,
    /// When the nodes had registered before a service was stopped: service → node → time.
    pub registered: BTreeMap<String, Option<Registrations>>,
    /// The engine's id: two deployments of one name may share a database.
    pub host: String,
    /// Whether its create takes more than one network: from API 1.44 on, and then a hardware address there alone.
    pub joins_at_create: bool,
    /// What this run has taken out of what registries hand out.
    pub drains: Drains,
    /// What served in a service's container before it was first stopped; nothing where nobody could tell.
    pub served: BTreeMap<String, Option<Before>>,
    /// Since when services give no answer, because their container was stopped.
    pub silent: BTreeMap<String, Instant>,
    /// When the container that was proven last was found well for the first time.
    pub well_since: Option<Instant>,
    /// The ids of images that this run has loaded.
    pub loaded: BTreeMap<Reference, String>,
    /// What containers were that the plan makes once more, by the name that they were parked under.
    pub kept: BTreeMap<String, Twin>,
    /// True once a run that changes the database may have begun.
    pub may_have_migrated: bool,
    /// What the way back put back in the database, or could not, a line each.
    pub put_back: Vec<String>,
}

impl Runner<'_> {
    /// Writes an event down.
    pub fn write(&mut self, event: Event) -> io::Result<()> {
        let at = self.machine.clock.now().format(&Rfc3339).unwrap_or_default();
        self.journal.append(&Line { at, event })
    }

    /// Carries the steps out, one by one, until one fails. `first` is the number of the first one, counted from 1, `of` that
    /// of the last.
    pub async fn run(&mut self, way: Way, steps: &[Step], first: usize, of: usize) -> Result<(), StepFailed> {
        for (at, step) in steps.iter().enumerate() {
            let number = first + at;
            let what = render::line(&step.action);
            let failed = |source| StepFailed { number, what: what.clone(), source };
            if *self.stop.borrow() {
                return Err(failed(StepError::Interrupted));
            }
            self.own_the_lock().await.map_err(&failed)?;
            let started = Event::Started {
                way,
                step: number,
                kind: step.action.kind().to_owned(),
                service: step.service.clone(),
                container: step.action.container().map(str::to_owned),
            };
            self.note(way, started).map_err(&failed)?;
            let mark = match way {
                Way::Do => "",
                Way::Undo => "undo ",
                Way::Finish => "clear away ",
            };
            let subject = step.service.as_deref().or_else(|| step.action.container()).unwrap_or_default();
            self.machine.reporter.step(subject, &format!("{mark}[{number}/{of}] {what}"));
            match self.carry_out(way, step).await {
                Ok(()) => self.note(way, Event::Succeeded { way, step: number }).map_err(&failed)?,
                Err(error) => {
                    let words = error.to_string();
                    // The failure itself matters more than a journal that cannot take it.
                    let _ = self.write(Event::Failed { way, step: number, error: words });
                    return Err(failed(error));
                }
            }
        }
        Ok(())
    }

    /// Proves that nobody else works on the deployment, before anything is done to it.
    pub async fn own_the_lock(&self) -> Result<(), StepError> {
        match retry::while_away(async || self.lock.hold(self.engine).await).await? {
            Hold::Own => Ok(()),
            hold => Err(StepError::LockLost { hold }),
        }
    }

    /// On the way back a full disk must not keep a service down: there, the journal is best effort.
    fn note(&mut self, way: Way, event: Event) -> Result<(), StepError> {
        match self.write(event) {
            Err(error) if way == Way::Do => Err(StepError::Journal(error)),
            Err(error) => {
                self.machine.reporter.say(&format!("warning: the journal cannot be written: {error}"));
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    async fn carry_out(&mut self, way: Way, step: &Step) -> Result<(), StepError> {
        let engine = self.engine;
        match &step.action {
            Action::Load { image, image_id } => self.load(image, image_id.as_deref()).await?,
            Action::Network { name } => {
                if let Some(network) = self.desired.networks.iter().find(|network| network.name == *name) {
                    engine.create_network(&network.body).await?;
                }
            }
            Action::Volume { name } => {
                if let Some(volume) = self.desired.volumes.iter().find(|volume| volume.name == *name) {
                    engine.create_volume(&volume.body).await?;
                }
            }
            Action::Create { twin: Some(_), .. } => self.remake(step).await?,
            Action::Create { .. } => self.create(step).await?,
            Action::Tag { image_id, image } => {
                engine
                    .tag_image(image_id, &image.familiar_name(), image.tag.as_deref().unwrap_or_default())
                    .await?;
            }
            Action::Release { image } => engine.remove_image(image).await?,
            Action::Connect { container, network, twin: Some(twin) } => {
                self.join(step, twin, container, network).await?;
            }
            Action::Connect { container, network, .. } => self.connect(step, container, network).await?,
            Action::SetRestart { container, to, .. } => engine.update_restart(container, to).await?,
            Action::Stop { container, grace } => {
                self.note_registrations(step, true).await;
                self.note_served(step, container).await;
                self.falls_silent(step);
                engine.stop_container(container, *grace).await?;
            }
            Action::Rename { container, to } => engine.rename_container(container, to).await?,
            Action::Start { container } => {
                self.before_start(step, container).await?;
                self.note_registrations(step, false).await;
                engine.start_container(container).await?;
            }
            Action::Gate { container, role, timeout, dwell } => {
                let before = step.service.as_ref().and_then(|name| self.registered.remove(name)).flatten();
                let proof = Proof::of(*role, before, cluster_probe::has_account(self.desired));
                let gate = self.with_services(Gate::new(proof, *timeout, *dwell), step);
                let changes = self.gate(container, *role, gate).await?;
                self.speaks_again(step, container);
                for line in changes {
                    let line = self.mask.hide(&line);
                    self.machine.reporter.say(&format!("       the start of {container}: {line}"));
                }
            }
            Action::Drain { containers, client_refresh, drain_timeout, is_strict } => {
                let (client_refresh, drain_timeout, is_strict) =
                    (*client_refresh, *drain_timeout, *is_strict);
                // The way back must come to its end.
                let refuses_gaps = self.desired.policy.refuses_gaps && way == Way::Do;
                let patience = Patience { client_refresh, drain_timeout, is_strict, refuses_gaps };
                self.drain(containers, patience).await?;
            }
            Action::DrainAhead { containers, besides } => self.drain_ahead(containers, besides).await?,
            Action::Undrain { containers } => self.undrain(containers).await?,
            Action::Look { container, role, timeout } => {
                let proof = Proof::of(*role, None, cluster_probe::has_account(self.desired));
                self.gate(container, *role, Gate::untouched(proof, *timeout)).await?;
            }
            Action::Backup { .. } => self.backup(&step.action).await?,
            Action::Task { container, task } => self.task(container, task).await?,
            Action::KeepColumns { container, .. } => self.keep_columns(container).await,
            Action::TakeBack { .. } => self.take_back(step).await,
            Action::Settle { container, within } => self.settle(container, *within).await?,
            Action::Claim { name } => self.claim(step, name).await?,
            Action::SaveLogs { container } => self.save_logs(container).await,
            Action::Remove { container } => engine.remove_container(container).await?,
        }
        Ok(())
    }

    async fn load(&mut self, image: &Reference, planned: Option<&str>) -> Result<(), StepError> {
        let loaded = self.machine.images.load(image).await;
        let id = loaded.map_err(|why| StepError::Load { image: image.to_string(), why })?;
        if let Some(planned) = planned.filter(|planned| *planned != id) {
            return Err(StepError::Moved { image: image.to_string(), shown: planned.to_owned(), now: id });
        }
        self.loaded.insert(image.clone(), id);
        Ok(())
    }

    async fn create(&self, step: &Step) -> Result<(), StepError> {
        let Action::Create { name, image, image_id, spec, purpose, predecessor, volumes, .. } = &step.action
        else {
            return Ok(());
        };
        let service_name = step.service.clone().unwrap_or_default();
        let unplanned = || StepError::Unplanned { service: service_name.clone() };
        let service = self.desired.service(&service_name).ok_or_else(unplanned)?;
        // That one is of the image that leaves, whatever the file names by now, and whatever has its name.
        let keeps = *purpose == Purpose::Keep;
        if service.spec() != *spec || (service.image != *image && !keeps) {
            return Err(unplanned());
        }
        let moved = |now: Option<&str>| StepError::Moved {
            image: image.to_string(),
            shown: image_id.clone().unwrap_or_else(|| "not there".to_owned()),
            now: now.map_or_else(|| "gone".to_owned(), str::to_owned),
        };
        let called = image_id.clone().filter(|_| keeps).unwrap_or_else(|| image.to_string());
        let found = self.engine.inspect_image(&called).await?.ok_or_else(|| moved(None))?;
        let wanted = image_id.as_ref().or_else(|| self.loaded.get(image)).unwrap_or(&found.id).clone();
        if found.id != wanted {
            return Err(moved(Some(&found.id)));
        }
        let outline = self.record.outline();
        let named = format!("{image}@{wanted}");
        let making = Making {
            deployment: &self.desired.deployment,
            deploy: &self.deploy,
            purpose: *purpose,
            predecessor: predecessor.as_deref(),
            volumes,
            record: outline.as_deref(),
            image: Some(&named),
            way_back: self.record.plan.way_back(),
        };
        let paths = if purpose.is_one_off() { image_volumes(&found.raw) } else { Vec::new() };
        let mut body = create_body(service, &making, &paths);
        if let Some(predecessor) = predecessor {
            self.carry(predecessor, &service.name, &mut body).await?;
        }
        if *purpose == Purpose::Serve && self.joins_at_create {
            for endpoint in service.declaration.joins_later() {
                let mut settings = endpoint.settings();
                self.carry_endpoint(name, &endpoint.network, &mut settings).await?;
                join_at_create(&mut body, &endpoint.network, settings);
            }
        }
        if keeps {
            body.0.insert("Image".to_owned(), serde_json::json!(called));
        }
        if service.role != Some(Role::Database) {
            guard::check_body(name, &body).map_err(Box::new)?;
        }
        let made = match self.engine.create_container(name, &body).await {
            Ok(id) => self.engine.inspect_container(&id).await?,
            // An earlier create whose answer was lost has come to its end: that container is this one.
            Err(error @ EngineError::Conflict { .. }) => match self.engine.inspect_container(name).await? {
                Some(found) if self.is_of_this_deploy(&found, &service.spec_label()) => Some(found),
                _ => return Err(error.into()),
            },
            Err(error) => return Err(error.into()),
        };
        // The name could have moved between the question and the create: what was made tells.
        match made {
            Some(made) if made.image_id == wanted => Ok(()),
            made => Err(moved(made.as_ref().map(|made| made.image_id.as_str()))),
        }
    }

    fn is_of_this_deploy(&self, found: &Container, spec: &str) -> bool {
        let label = |key: &str| found.labels.get(key).map_or("", String::as_str);
        found.status == Status::Created
            && label(LABEL_DEPLOY) == self.deploy.as_str()
            && (label(LABEL_SPEC) == spec || matches!(part_of(&found.name), Part::Migrate(_)))
    }

    /// A container of nothing, under a name that a create may be about to take.
    async fn claim(&self, step: &Step, name: &str) -> Result<(), StepError> {
        let image = match step.service.as_deref().and_then(|name| self.desired.service(name)) {
            Some(service) => service.image.to_string(),
            None => return Ok(()),
        };
        let labels = BTreeMap::from([
            (LABEL_DEPLOYMENT, self.desired.deployment.clone()),
            (LABEL_DEPLOY, self.deploy.to_string()),
            (LABEL_SERVICE, step.service.clone().unwrap_or_default()),
        ]);
        let body = serde_json::json!({"Image": image, "Entrypoint": ["/tarsup-claim"], "Labels": labels});
        let body = CreateBody(body.as_object().cloned().unwrap_or_default());
        match self.engine.create_container(name, &body).await {
            // Without the image the other create cannot succeed either.
            Ok(_) | Err(EngineError::Conflict { .. } | EngineError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until the container has stopped, or has gone on running for longer than any stop takes.
    async fn settle(&mut self, container: &str, within: Duration) -> Result<(), StepError> {
        let until = Instant::now() + within;
        while Instant::now() < until {
            match self.engine.inspect_container(container).await {
                Ok(Some(found)) if super::state::is_up(&found) => {}
                Ok(_) => return Ok(()),
                Err(EngineError::Lost { .. } | EngineError::Unreachable { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            self.pause().await?;
        }
        Ok(())
    }

    pub(super) async fn pause(&mut self) -> Result<(), StepError> {
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => Ok(()),
            () = stopped(&mut self.stop) => Err(StepError::Interrupted),
        }
    }

    async fn connect(&self, step: &Step, container: &str, network: &str) -> Result<(), StepError> {
        let service = step.service.as_deref().and_then(|name| self.desired.service(name));
        let Some(endpoint) = service.and_then(|service| service.declaration.endpoint(network)) else {
            return Err(StepError::Unplanned { service: step.service.clone().unwrap_or_default() });
        };
        // A migration runs beside the service, whose fixed address is taken.
        let migrates = matches!(part_of(container), Part::Migrate(_));
        let mut endpoint = if migrates { serde_json::json!({}) } else { endpoint.settings() };
        if self.is_joined(container, network).await? {
            return Ok(());
        }
        self.carry_endpoint(container, network, &mut endpoint).await?;
        Ok(self.engine.connect_network(network, container, &endpoint).await?)
    }

    /// The last lines that a container printed, masked; nothing where they cannot be read.
    pub(super) async fn last_lines(&self, container: &str) -> String {
        let log = self.engine.logs(container, SHOWN_LINES).await;
        self.mask.hide(&log.unwrap_or_default())
    }

    /// Best effort: the way back does not depend on it, and the container itself is kept too.
    async fn save_logs(&self, container: &str) {
        let warn = |why: &str| {
            self.machine.reporter.say(&format!("warning: the logs of {container} cannot be saved: {why}"));
        };
        let text = match self.engine.logs(container, SAVED_LINES).await {
            Ok(text) => self.mask.hide(&text),
            Err(error) => return warn(&error.to_string()),
        };
        match self.machine.folder.save_log(&format!("{}-{container}", self.deploy), &text) {
            Ok(path) => self.machine.reporter.say(&format!("its logs are in {}", path.display())),
            Err(error) => warn(&error.to_string()),
        }
    }
}

/// Returns when told to stop; never, where nobody can tell any more.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}
