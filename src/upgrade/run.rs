//! The one loop that acts: carries out steps in order, each in the journal before and after. It decides nothing.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::watch;
use tokio::time::Instant;

use super::body::{Making, create_body, image_volumes};
use super::gate::{Gate, Probe, Sample, Verdict};
use super::journal::{Event, Header, Journal, Line, Way};
use super::owner::Owner;
use super::step::{Action, Purpose, Step};
use super::{DeployId, render};
use crate::deploy::Desired;
use crate::deploy::guard::{self, GuardError};
use crate::engine::{Engine, EngineError};
use crate::tars::Role;

/// How often a gate looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long the probe inside a container may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(15);
/// How many lines of a failed container's logs are shown, and how many are saved.
const SHOWN_LINES: u32 = 20;
const SAVED_LINES: u32 = 10_000;
/// The probe inside the images.
const PROBE: [&str; 3] = ["/usr/local/bin/tars-init", "probe", "--json"];

/// The machine that tarsup runs on: clock, identity, files, the person's ear. Wired in `cli`.
pub trait Local: Send + Sync {
    /// The time.
    fn now(&self) -> OffsetDateTime;
    /// This process.
    fn owner(&self) -> &Owner;
    /// Says what happens.
    fn say(&self, text: &str);
    /// Keeps a container's logs; where.
    fn save_log(&self, name: &str, text: &str) -> io::Result<PathBuf>;
    /// Opens a deploy's journal.
    fn journal(&self, header: &Header) -> io::Result<Box<dyn Journal>>;
    /// Writes the committed images into the deployment file: service → image. What could not be written, in words.
    fn rewrite(
        &self,
        images: &std::collections::BTreeMap<String, crate::oci::Reference>,
    ) -> Result<(), String>;
}

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
    /// The image's name leads elsewhere than when the plan was made.
    #[error("the image `{image}` has moved since the plan was made")]
    Moved {
        /// The image.
        image: String,
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
    /// The logs cannot be kept.
    #[error("the logs of `{container}` cannot be saved: {source}")]
    Logs {
        /// The container.
        container: String,
        /// Why.
        source: io::Error,
    },
    /// Told to stop.
    #[error("told to stop")]
    Interrupted,
}

fn indented(log: &str) -> String {
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
    pub local: &'a dyn Local,
    /// Where create bodies come from.
    pub desired: &'a Desired,
    /// The deploy.
    pub deploy: DeployId,
    /// Where it is written down.
    pub journal: Box<dyn Journal>,
    /// Becomes true when a person or the system says stop.
    pub stop: watch::Receiver<bool>,
}

impl Runner<'_> {
    /// Writes an event down.
    pub fn write(&mut self, event: Event) -> io::Result<()> {
        let at = self.local.now().format(&Rfc3339).unwrap_or_default();
        self.journal.append(&Line { at, event })
    }

    /// Carries the steps out, one by one, until one fails.
    pub async fn run(&mut self, way: Way, steps: &[Step]) -> Result<(), StepFailed> {
        for (at, step) in steps.iter().enumerate() {
            let number = at + 1;
            let what = render::line(&step.action);
            let failed = |source| StepFailed { number, what: what.clone(), source };
            if *self.stop.borrow() {
                return Err(failed(StepError::Interrupted));
            }
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
            self.local.say(&format!("{mark}[{number}/{}] {what}", steps.len()));
            match self.carry_out(step).await {
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

    /// On the way back a full disk must not keep a service down: there, the journal is best effort.
    fn note(&mut self, way: Way, event: Event) -> Result<(), StepError> {
        match self.write(event) {
            Err(error) if way == Way::Do => Err(StepError::Journal(error)),
            Err(error) => {
                self.local.say(&format!("warning: the journal cannot be written: {error}"));
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    async fn carry_out(&mut self, step: &Step) -> Result<(), StepError> {
        let engine = self.engine;
        match &step.action {
            // Images are loaded before the lock is taken: it needs one.
            Action::Load { .. } => {}
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
            Action::Create { .. } => self.create(step).await?,
            Action::Connect { container, network } => self.connect(step, container, network).await?,
            Action::SetRestart { container, to, .. } => engine.update_restart(container, to).await?,
            Action::Stop { container, grace } => engine.stop_container(container, *grace).await?,
            Action::Rename { container, to } => engine.rename_container(container, to).await?,
            Action::Start { container } => engine.start_container(container).await?,
            Action::Gate { container, role, timeout, dwell } => {
                let gate = Gate::new(*role, *timeout, *dwell);
                self.gate(container, gate).await?;
            }
            Action::Migrate { container, .. } => self.migrate(container).await?,
            Action::SaveLogs { container } => self.save_logs(container).await?,
            Action::Remove { container } => engine.remove_container(container).await?,
        }
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
        if service.spec() != *spec || service.image != *image {
            return Err(unplanned());
        }
        let moved = || StepError::Moved { image: image.to_string() };
        let found = self.engine.inspect_image(&image.to_string()).await?.ok_or_else(moved)?;
        let making = Making {
            deployment: &self.desired.deployment,
            deploy: &self.deploy,
            purpose: *purpose,
            predecessor: predecessor.as_deref(),
            volumes,
        };
        let paths = if *purpose == Purpose::Migrate { image_volumes(&found.raw) } else { Vec::new() };
        let body = create_body(service, &making, &paths);
        if service.role != Some(Role::Database) {
            guard::check_body(name, &body).map_err(Box::new)?;
        }
        let id = self.engine.create_container(name, &body).await?;
        // The name could have moved between the question and the create: what was made tells.
        let made = self.engine.inspect_container(&id).await?;
        let wanted = image_id.as_ref().unwrap_or(&found.id);
        if made.is_none_or(|made| made.image_id != *wanted) {
            return Err(moved());
        }
        Ok(())
    }

    async fn connect(&self, step: &Step, container: &str, network: &str) -> Result<(), StepError> {
        let service = step.service.as_deref().and_then(|name| self.desired.service(name));
        let endpoint = service.and_then(|service| service.connect.iter().find(|(name, _)| name == network));
        let Some((_, endpoint)) = endpoint else {
            return Err(StepError::Unplanned { service: step.service.clone().unwrap_or_default() });
        };
        // A migration runs beside the service, whose fixed address is taken.
        let migrates = container.contains(".migrate.");
        let endpoint = if migrates { serde_json::json!({}) } else { endpoint.clone() };
        Ok(self.engine.connect_network(network, container, &endpoint).await?)
    }

    async fn migrate(&self, container: &str) -> Result<(), StepError> {
        self.engine.start_container(container).await?;
        let code = self.engine.wait_container(container).await?;
        if code == 0 {
            return Ok(());
        }
        let log = self.engine.logs(container, SHOWN_LINES).await.unwrap_or_default();
        Err(StepError::Migration { container: container.to_owned(), code, log })
    }

    async fn save_logs(&self, container: &str) -> Result<(), StepError> {
        let text = self.engine.logs(container, SAVED_LINES).await?;
        let name = format!("{}-{container}", self.deploy);
        match self.local.save_log(&name, &text) {
            Ok(path) => self.local.say(&format!("its logs are in {}", path.display())),
            // The way back does not depend on it: the container itself is kept too.
            Err(error) => {
                self.local.say(&format!("warning: the logs of {container} cannot be saved: {error}"));
            }
        }
        Ok(())
    }

    async fn gate(&mut self, container: &str, mut gate: Gate) -> Result<(), StepError> {
        let begun = Instant::now();
        let mut said = String::new();
        loop {
            let at = begun.elapsed();
            let verdict = match self.sample(container, &gate, at).await {
                Ok(sample) => gate.judge(&sample),
                Err(error @ (EngineError::Lost { .. } | EngineError::Unreachable { .. })) => {
                    gate.judge_silence(at, &error.to_string())
                }
                Err(error) => return Err(error.into()),
            };
            match verdict {
                Verdict::Pass => return Ok(()),
                Verdict::Dwell => {}
                Verdict::Wait(why) => {
                    if why != said {
                        self.local.say(&format!("       waiting for {container}: {why}"));
                        said = why;
                    }
                }
                Verdict::Fail(why) => {
                    let log = self.engine.logs(container, SHOWN_LINES).await.unwrap_or_default();
                    return Err(StepError::Gate { container: container.to_owned(), why, log });
                }
            }
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => {}
                () = stopped(&mut self.stop) => return Err(StepError::Interrupted),
            }
        }
    }

    async fn sample(&self, container: &str, gate: &Gate, at: Duration) -> Result<Sample, EngineError> {
        let Some(found) = self.engine.inspect_container(container).await? else {
            return Err(EngineError::NotFound {
                call: format!("inspect {container}"),
                message: "it is gone".to_owned(),
            });
        };
        let running = found.status == crate::engine::Status::Running;
        let probe = if gate.asks_inside() && running { Some(self.probe(container).await) } else { None };
        Ok(Sample {
            at,
            status: found.status,
            exit_code: found.exit_code,
            restart_count: found.restart_count,
            health: found.health,
            probe,
        })
    }

    async fn probe(&self, container: &str) -> Result<Probe, String> {
        let output =
            self.engine.exec(container, &PROBE, PROBE_TIMEOUT).await.map_err(|error| error.to_string())?;
        serde_json::from_str(&output.stdout).map_err(|_| {
            let said = output.stderr.lines().chain(output.stdout.lines()).next().unwrap_or("nothing");
            format!("its probe exited with {} and said: {said}", output.exit_code)
        })
    }
}

/// Returns when told to stop; never, where nobody can tell any more.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}
