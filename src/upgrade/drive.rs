//! One deploy from its offer to its end: carried out under the lock, then committed, or undone.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use serde_json::Value;
use time::format_description::well_known::Rfc3339;
use tokio::sync::watch;
use tokio::time::Instant;

use super::cluster_probe::{self, ClusterProbe};
use super::draining::Drains;
use super::glance::{Ends, is_parked};
use super::journal::{Event, Journal, JournalHeader, Line, VERSION, Way};
use super::lock::{HandImage, Hold, Holder, LEASE_SECONDS, Lock, Standing, Taking, holder};
use super::machine::Machine;
use super::mask::Mask;
use super::offer::{Offer, holds, offer};
use super::preview::preview;
use super::record::{self, DeployRecord};
use super::retire::retire_failed;
use super::run::{Runner, StepError, StepFailed};
use super::state::is_up;
use super::step::{Action, Step, Touched};
use super::unfinished::{Left, left_by};
use super::unwind::{InFlight, WayBack, settle, unwind};
use super::{DeployFailure, DeployId, Intent, Refusal, body, loss, names, preflight, retry, runnable};
use crate::deploy::facts::ClusterFacts;
use crate::deploy::observe::{Glance, observe_with};
use crate::deploy::pins::{Pins, require};
use crate::deploy::{Desired, Observed};
use crate::engine::{Engine, EngineError, EngineImage};

/// How often the lease is renewed; several may be missed.
const RENEWAL: Duration = Duration::from_secs(LEASE_SECONDS.unsigned_abs() / 4);
/// How often the way back is derived anew. Two are the rule: one that acts, one that finds nothing left to do.
const ROUNDS: usize = 8;
/// Between two rounds, where a step of the first one failed.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a call whose client is gone may wait its turn in the engine. A stop takes longer, and is settled by itself.
pub(super) const TURN: Duration = Duration::from_secs(3);

/// What a deploy is carried out with.
#[derive(Clone)]
pub struct Deploy<'a> {
    /// The engine.
    pub engine: &'a dyn Engine,
    /// The machine.
    pub machine: Machine<'a>,
    /// The declaration, as the files have it.
    pub desired: &'a Desired,
    /// The images of the local store, by reference: as a classic engine would show them.
    pub stored: &'a BTreeMap<String, EngineImage>,
    /// Becomes true when a person or the system says stop.
    pub stop: watch::Receiver<bool>,
}

impl Deploy<'_> {
    /// Fails where somebody works on the deployment, or was cut off and left a lock.
    pub async fn is_free(&self) -> Result<(), DeployFailure> {
        match holder(self.engine, &self.desired.deployment).await? {
            Some(holder) => Err(self.taken(&holder)),
            None => Ok(()),
        }
    }

    pub(super) fn taken(&self, holder: &Holder) -> DeployFailure {
        let deployment = self.desired.deployment.clone();
        let (who, what) = (holder.named(), holder.what.clone());
        match holder.standing(self.machine.owner, self.machine.clock.now()) {
            Standing::Held => DeployFailure::Held { deployment, who, since: holder.since.clone(), what },
            Standing::Dead | Standing::RunOut => {
                let sign = format!("{what}, by {who}");
                DeployFailure::Unfinished { deployment, deploy: holder.deploy.clone(), sign }
            }
        }
    }

    pub(super) async fn observe(&self, desired: &Desired) -> Result<Observed, EngineError> {
        observe_with(self.engine, desired, self.stored, None).await
    }

    /// The same from lists, where nothing is unfinished as far as the journals here tell, and nobody but this deploy
    /// holds the lock. A rollback looks at what it brings back.
    pub(super) async fn glance(
        &self,
        desired: &Desired,
        intent: &Intent,
        holds_lock: bool,
    ) -> Result<Observed, EngineError> {
        if matches!(intent, Intent::Rollback { .. } | Intent::Prune { .. }) {
            return self.observe_for(desired, intent).await;
        }
        let read =
            |deploy: Option<&DeployId>| self.machine.folder.read_journal(&self.desired.deployment, deploy);
        let ends = Ends::new(&read);
        let glance = Glance { ended: &|deploy| ends.has_ended(deploy), is_parked: &is_parked, holds_lock };
        observe_with(self.engine, desired, self.stored, Some(glance)).await
    }

    /// The deploy that was cut off and whose lock is gone.
    pub fn left(&self, observed: &Observed) -> Option<Left> {
        let journal = self.machine.folder.read_journal(&self.desired.deployment, None);
        let warn = |text: &str| self.machine.reporter.say(&format!("warning: {text}"));
        left_by(self.desired, observed, journal, warn)
    }

    /// Carries out an offer that was shown: takes the lock, makes the offer again, and refuses if that is another one.
    pub async fn roll(&self, shown: &Offer) -> Result<(), DeployFailure> {
        self.is_free().await?;
        let observed = self.glance(&shown.desired, &shown.request.intent, false).await?;
        let taking = self.taking(&shown.request.id, &shown.request.what, &observed);
        let Some(lock) = Lock::take(self.engine, &taking).await? else {
            self.is_free().await?;
            let why = "somebody else took the deployment and gave it free again".to_owned();
            return Err(Refusal::NoLongerFits { why }.into());
        };
        self.remove_probes().await;
        let begun = async {
            let mut observed = self.glance(&shown.desired, &shown.request.intent, true).await?;
            observed.facts.cluster = Some(Ok(ClusterFacts::of(shown.served.clone())));
            observed.facts.heard.clone_from(&shown.heard);
            let observed = loss::look(self.engine, self.desired, observed, &shown.request).await;
            let mut now = offer(self.desired, &observed, &shown.request)?;
            holds(shown, &now)?;
            now.plan.notes.clone_from(&shown.plan.notes);
            now.plan.questions.clone_from(&shown.plan.questions);
            let record = DeployRecord {
                version: record::VERSION,
                what: shown.request.what.clone(),
                images: now.edits,
                plan: now.plan,
                accept_data_move: shown.request.accept_data_move.clone(),
                backup: record::Backup::by(shown.request.backup),
                accept_state_loss: shown.request.accept_state_loss.clone(),
                effects: Vec::new(),
            };
            let journal = self.journal(&record)?;
            self.secure(&record.plan).await?;
            let mut runner = self.runner(&lock, record, &shown.desired, &observed, journal);
            let document = runner.record.plan.document();
            announce(&mut runner, document)?;
            lock.put_record(self.engine, &runner.record).await?;
            Ok::<_, DeployFailure>(runner)
        };
        match begun.await {
            Ok(runner) => {
                let (loads, steps) = shown.parts();
                self.leased(
                    &lock,
                    Box::pin(self.carry_out(&lock, runner, shown.request.pins.as_ref(), loads, steps)),
                )
                .await
            }
            Err(failure) => {
                // Nothing has been changed: the deployment is given free.
                let _ = lock.release(self.engine).await;
                Err(failure)
            }
        }
    }

    pub(super) async fn carry_out(
        &self,
        lock: &Lock,
        mut runner: Runner<'_>,
        pins: Option<&Pins>,
        loads: &[Step],
        steps: &[Step],
    ) -> Result<(), DeployFailure> {
        let total = loads.len() + steps.len();
        if let Err(failed) = runner.run(Way::Do, loads, 1, total).await {
            return Err(self.not_begun(lock, &mut runner, failed).await);
        }
        if !loads.is_empty() {
            self.after_loads(lock, &mut runner, pins, steps).await?;
        }
        match runner.run(Way::Do, steps, loads.len() + 1, total).await {
            Ok(()) => {}
            Err(failed) => {
                let (at, way) = (failed.number, &failed.source);
                if let Some(end) = ended(&mut runner, at, way) {
                    return Err(end);
                }
                if self.only_the_backup_failed(&failed, at - loads.len(), &runner.deploy).await {
                    return Err(self.not_begun(lock, &mut runner, failed).await);
                }
                return Err(self.go_back(lock, &mut runner, steps.get(at - loads.len() - 1), failed).await);
            }
        }
        // One file in the lock decides whether this deploy is finished or undone from now on.
        if let Err(error) = retry::while_away(async || lock.commit(self.engine).await).await {
            let hold = retry::while_away(async || lock.hold(self.engine).await).await;
            let source = match hold {
                Ok(hold) if hold != Hold::Own => StepError::LockLost { hold },
                _ => error.into(),
            };
            let failed = StepFailed { number: total, what: "commit".to_owned(), source };
            return Err(ended(&mut runner, total, &failed.source)
                .unwrap_or_else(|| DeployFailure::Stuck { failed: None, undo: failed.to_string() }));
        }
        self.finish(lock, &mut runner).await
    }

    /// A load or a backup that failed has changed nothing: the deployment is given free, unless somebody may want to go on.
    async fn not_begun(&self, lock: &Lock, runner: &mut Runner<'_>, failed: StepFailed) -> DeployFailure {
        if let Some(end) = ended(runner, failed.number, &failed.source) {
            return end;
        }
        let _ = runner.write(Event::RolledBack);
        let _ = lock.release(self.engine).await;
        DeployFailure::Failed { failed: Box::new(failed) }
    }

    /// An engine that had no image has one now; and what was loaded is held to its pin.
    async fn after_loads(
        &self,
        lock: &Lock,
        runner: &mut Runner<'_>,
        pins: Option<&Pins>,
        steps: &[Step],
    ) -> Result<(), DeployFailure> {
        let observed = self.observe(runner.desired).await?;
        let pinned = pins.map_or(Ok(()), |pins| require(pins, runner.loaded.keys(), &observed));
        let checked = match pinned {
            Err(error) => Err(Refusal::Pins(Box::new(error))),
            Ok(()) => preview(self.engine, runner.desired, &runner.deploy, steps, &runner.loaded, None)
                .await
                .and_then(|preview| preview.or_refused(steps)),
        };
        let checked = match checked {
            Ok(preview) => {
                let runs = runnable::of_loaded(runner, &observed, steps).await;
                runs.or_refused().map(|notes| [preview.notes, notes].concat())
            }
            Err(refusal) => Err(refusal),
        };
        match checked {
            Ok(notes) => notes.iter().for_each(|note| self.machine.reporter.say(note)),
            Err(refusal) => {
                let _ = runner.write(Event::RolledBack);
                let _ = lock.release(self.engine).await;
                return Err(refusal.into());
            }
        }
        if let Some(image) = any_image(&observed) {
            lock.use_image(image);
        }
        Ok(lock.put_record(self.engine, &runner.record).await?)
    }

    /// Undoes what a step that failed leaves; how the deploy ended.
    async fn go_back(
        &self,
        lock: &Lock,
        runner: &mut Runner<'_>,
        step: Option<&Step>,
        failed: StepFailed,
    ) -> DeployFailure {
        // The error at the end shows the logs as well; here the first line is enough.
        let first = failed.to_string();
        self.machine.reporter.say(&format!("{}\nrolling back", first.lines().next().unwrap_or_default()));
        let in_flight = match (&failed.source, step) {
            (StepError::Engine(EngineError::Lost { .. } | EngineError::TimedOut { .. }), Some(step)) => {
                InFlight::of(step)
            }
            _ => InFlight::Nothing,
        };
        let mut proven = BTreeSet::new();
        let restarts = matches!(runner.record.plan.intent, Intent::Restart { .. });
        if restarts && matches!(failed.source, StepError::Gate { .. }) {
            // It has nothing to go back to: what runs again is left to its watchers.
            proven.extend(step.and_then(|step| before(&runner.record, step.action.container())));
        }
        match self.undo(lock, runner, &in_flight, proven).await {
            Ok(note) if goes_back(&runner.record.plan.intent) => {
                DeployFailure::RolledBack { failed: Box::new(failed), note }
            }
            Ok(_) => DeployFailure::Failed { failed: Box::new(failed) },
            Err(DeployFailure::Stuck { failed: None, undo }) => {
                DeployFailure::Stuck { failed: Some(Box::new(failed)), undo }
            }
            Err(other) => other,
        }
    }

    /// What follows the commit: the tag in the file, the parked containers beyond the number to keep, the lock.
    pub(super) async fn finish(&self, lock: &Lock, runner: &mut Runner<'_>) -> Result<(), DeployFailure> {
        let _ = runner.write(Event::Committed);
        let images = runner.record.images.clone();
        if !images.is_empty()
            && let Err(why) = self.machine.file.set_images(&images)
        {
            self.machine.reporter.say(&format!("warning: {why}"));
        }
        // What is down is handed out no more until it is up again: the database notices only after minutes that a node is gone.
        if !matches!(runner.record.plan.intent, Intent::Down { .. }) {
            runner.end_drains().await;
        }
        self.clear_away(runner).await?;
        self.release(lock, runner).await?;
        let _ = runner.write(Event::Finished);
        Ok(())
    }

    /// Undoes a deploy, round by round, until every touched service that ran before is up, proven and under its own name.
    /// What stays, in words.
    pub(super) async fn undo(
        &self,
        lock: &Lock,
        runner: &mut Runner<'_>,
        in_flight: &InFlight,
        proven: BTreeSet<String>,
    ) -> Result<Vec<String>, DeployFailure> {
        let undone = self.undo_in_rounds(lock, runner, in_flight, proven).await;
        if matches!(undone, Err(DeployFailure::Stuck { .. })) {
            runner.end_drains().await;
        }
        undone
    }

    async fn undo_in_rounds(
        &self,
        lock: &Lock,
        runner: &mut Runner<'_>,
        in_flight: &InFlight,
        mut proven: BTreeSet<String>,
    ) -> Result<Vec<String>, DeployFailure> {
        let mut failed_before = String::new();
        let landed = Instant::now() + TURN;
        let observed = self.look(runner).await?;
        let steps = settle(&observed, &runner.record, in_flight);
        if let Err(failed) = runner.run(Way::Undo, &steps, 1, steps.len()).await {
            if let Some(end) = ended(runner, failed.number, &failed.source) {
                return Err(end);
            }
            self.machine.reporter.say(&format!("warning: {failed}"));
        }
        for _ in 0..ROUNDS {
            let observed = self.look(runner).await?;
            let way_back = unwind(&observed, &runner.record, self.desired, &proven);
            if way_back.plan.is_empty() {
                // Only a look after a call could still take effect proves that nothing is left.
                if *in_flight != InFlight::Nothing && Instant::now() < landed {
                    tokio::time::sleep_until(landed).await;
                    continue;
                }
                return self.undone(lock, runner, way_back).await;
            }
            let _ = runner.write(Event::Planned { way: Way::Undo, plan: way_back.plan.document() });
            let steps = &way_back.plan.steps;
            let ran = runner.run(Way::Undo, steps, 1, steps.len()).await;
            let done = ran.as_ref().map_or_else(|failed| failed.number - 1, |()| steps.len());
            for step in &steps[..done] {
                if let Action::Gate { container, .. } | Action::Look { container, .. } = &step.action {
                    proven.extend(before(&runner.record, Some(container)));
                }
            }
            let Err(failed) = ran else { continue };
            if let Some(end) = ended(runner, failed.number, &failed.source) {
                return Err(end);
            }
            let words = failed.to_string();
            // A service that answers wrongly is not helped by another look; one that was stopped meanwhile, by what came
            // late, is started again.
            let is_there = match &failed.source {
                StepError::Gate { container, .. } => {
                    self.look(runner).await?.container(container).is_some_and(is_up)
                }
                _ => false,
            };
            if is_there || failed.what == failed_before {
                return Err(stuck(runner, words));
            }
            // What stood in the way may be gone, or the step may have been done already: look again.
            self.machine.reporter.say(&format!("warning: {words}; looking again"));
            failed_before = failed.what;
            tokio::time::sleep(PAUSE).await;
        }
        Err(stuck(runner, format!("after {ROUNDS} rounds something is still to be undone")))
    }

    pub(super) async fn look(&self, runner: &mut Runner<'_>) -> Result<Observed, DeployFailure> {
        let looked = retry::while_away(async || self.observe(self.desired).await).await;
        looked.map_err(|error| stuck(runner, error.to_string()))
    }

    /// Everything that could be undone is: free again, or held for the way on where something is lost.
    async fn undone(
        &self,
        lock: &Lock,
        runner: &mut Runner<'_>,
        way_back: WayBack,
    ) -> Result<Vec<String>, DeployFailure> {
        runner.end_drains().await;
        if !way_back.lost.is_empty() {
            // It may be long until somebody goes on.
            self.warn_of_probe(runner.cluster_probe.close(self.engine, &self.desired.deployment).await);
            let (deploy, lost) = (runner.deploy.clone(), way_back.lost);
            let failure = DeployFailure::Lost { deploy, lost };
            let _ = runner.write(Event::Stuck { error: failure.to_string() });
            return Err(failure);
        }
        self.take_back(runner).await?;
        let _ = runner.write(Event::RolledBack);
        self.forget(&runner.deploy, &runner.desired.deployment);
        // A night of failures must not leave a row of containers: best effort, the next deploy tries again.
        if let Ok(observed) = self.observe(self.desired).await {
            let steps = retire_failed(self.desired, &observed);
            if let Err(failed) = runner.run(Way::Finish, &steps, 1, steps.len()).await {
                self.machine.reporter.say(&format!("warning: {failed}"));
            }
        }
        self.release(lock, runner).await?;
        Ok([way_back.plan.notes, std::mem::take(&mut runner.put_back)].concat())
    }

    /// Removes the container in which an earlier run asked the database, and which it left: for a command that has nothing
    /// else to do. Where somebody works on the deployment it is theirs.
    pub async fn remove_left_probe(&self) {
        let deployment = &self.desired.deployment;
        // Looked for first: whoever begins meanwhile makes another one, which has another id.
        let left = cluster_probe::left(self.engine, deployment).await.unwrap_or_default();
        if left.is_empty() || !matches!(holder(self.engine, deployment).await, Ok(None)) {
            return;
        }
        self.warn_of_probe(cluster_probe::remove_left(self.engine, &left).await);
    }

    /// The same under the lock: whatever is there was left.
    pub(super) async fn remove_probes(&self) {
        let removed = async {
            let left = cluster_probe::left(self.engine, &self.desired.deployment).await?;
            cluster_probe::remove_left(self.engine, &left).await
        };
        self.warn_of_probe(removed.await);
    }

    /// It serves nobody: what stays of it is removed by the next run.
    fn warn_of_probe(&self, removed: Result<(), EngineError>) {
        if let Err(error) = removed {
            let name = names::cluster_name(&self.desired.deployment);
            self.machine.reporter.say(&format!("warning: {name} is not removed: {error}"));
        }
    }

    async fn release(&self, lock: &Lock, runner: &mut Runner<'_>) -> Result<(), DeployFailure> {
        self.warn_of_probe(runner.cluster_probe.close(self.engine, &self.desired.deployment).await);
        self.give_free(lock, &runner.deploy).await
    }

    pub(super) async fn give_free(&self, lock: &Lock, deploy: &DeployId) -> Result<(), DeployFailure> {
        let released = retry::while_away(async || lock.release(self.engine).await).await;
        released.map_err(|source| DeployFailure::Unreleased { deploy: deploy.clone(), source })
    }

    pub(super) fn taking<'a>(
        &'a self,
        deploy: &'a DeployId,
        what: &'a str,
        observed: &Observed,
    ) -> Taking<'a> {
        let (deployment, owner) = (self.desired.deployment.as_str(), self.machine.owner);
        Taking { deployment, deploy, what, owner, now: self.machine.clock.now(), image: any_image(observed) }
    }

    /// Opens the journal of a deploy.
    pub(super) fn journal(&self, record: &DeployRecord) -> Result<Box<dyn Journal>, DeployFailure> {
        let header = JournalHeader {
            tarsup_journal: VERSION,
            deploy: record.plan.id.clone(),
            deployment: record.plan.deployment.clone(),
            what: record.what.clone(),
            by: self.machine.owner.who.clone(),
            at: self.machine.clock.now().format(&Rfc3339).unwrap_or_default(),
        };
        let failed = |source| DeployFailure::Journal { deploy: record.plan.id.to_string(), source };
        self.machine.folder.journal(&header).map_err(failed)
    }

    /// The same for the way back, which needs none: a disk that is full must not keep a service down.
    pub(super) fn journal_if_possible(&self, record: &DeployRecord) -> Box<dyn Journal> {
        self.journal(record).unwrap_or_else(|failure| {
            self.machine.reporter.say(&format!("warning: {failure}; going on without it"));
            Box::new(Vec::<Line>::new())
        })
    }

    pub(super) fn runner<'a>(
        &'a self,
        lock: &'a Lock,
        record: DeployRecord,
        desired: &'a Desired,
        observed: &Observed,
        journal: Box<dyn Journal>,
    ) -> Runner<'a> {
        let intent = record.plan.intent.clone();
        let drains = Drains::of(may_be_drained(desired, &record));
        Runner {
            engine: self.engine,
            machine: self.machine,
            desired,
            deploy: record.plan.id.clone(),
            lock,
            mask: Mask::of(desired, observed),
            record,
            journal,
            stop: self.stop.clone(),
            cluster_probe: ClusterProbe::new(cluster_probe::images(desired, observed, &intent)),
            registered: BTreeMap::new(),
            served: BTreeMap::new(),
            silent: BTreeMap::new(),
            well_since: None,
            host: observed.engine.id.clone(),
            joins_at_create: preflight::speaks(&observed.engine.api_version, "1.44"),
            drains,
            loaded: BTreeMap::new(),
            kept: observed.kept.clone(),
            may_have_migrated: false,
            put_back: Vec::new(),
        }
    }

    /// Runs `work` while the lock's lease is renewed.
    pub(super) async fn leased<T>(&self, lock: &Lock, work: impl Future<Output = T>) -> T {
        let renewals = async {
            loop {
                tokio::time::sleep(RENEWAL).await;
                // A renewal that fails is no reason to stop within a step: before the next one the lock is proven.
                let _ = lock.renew(self.engine, self.machine.clock.now()).await;
            }
        };
        tokio::select! {
            done = work => done,
            never = never(renewals) => match never {},
        }
    }
}

async fn never(renewals: impl Future<Output = Infallible>) -> Infallible {
    renewals.await
}

/// True where a container comes back of which a `down` may have drained something.
fn may_be_drained(desired: &Desired, record: &DeployRecord) -> bool {
    let mut touched = record.plan.touched.iter();
    let was_down = |touched: &Touched| touched.before.as_ref().is_some_and(|before| !before.running);
    matches!(record.plan.intent, Intent::Up) && cluster_probe::has_account(desired) && touched.any(was_down)
}

/// How a deploy ends that is neither committed nor undone: told to stop, or without its lock.
pub(super) fn ended(runner: &mut Runner<'_>, step: usize, source: &StepError) -> Option<DeployFailure> {
    let deploy = runner.deploy.clone();
    let failure = match source {
        StepError::Interrupted => DeployFailure::Interrupted { deploy, step },
        StepError::LockLost { hold } => DeployFailure::LockLost { deploy, step, hold: hold.clone() },
        _ => return None,
    };
    let _ = runner.write(Event::Interrupted);
    Some(failure)
}

/// Writes down what is about to be done, before anything is.
pub(super) fn announce(runner: &mut Runner<'_>, plan: Value) -> Result<(), DeployFailure> {
    let deploy = runner.deploy.to_string();
    let failed = |source| DeployFailure::Journal { deploy: deploy.clone(), source };
    runner.write(Event::Planned { way: Way::Do, plan }).map_err(failed)?;
    let record = Box::new(runner.record.clone());
    runner.write(Event::Recorded { record }).map_err(failed)
}

pub(super) fn stuck(runner: &mut Runner<'_>, undo: String) -> DeployFailure {
    let _ = runner.write(Event::Stuck { error: undo.clone() });
    DeployFailure::Stuck { failed: None, undo }
}

/// The id of the container of before that bears this name.
fn before(record: &DeployRecord, container: Option<&str>) -> Option<String> {
    let mut touched = record.plan.touched.iter().filter_map(|touched| touched.before.as_ref());
    touched.find(|before| Some(before.name.as_str()) == container).map(|before| before.id.clone())
}

/// True where a failure leads back to something else than what failed.
fn goes_back(intent: &Intent) -> bool {
    !matches!(intent, Intent::Restart { .. } | Intent::Down { .. } | Intent::Prune { .. } | Intent::Finish)
}

/// Any image that is there: the lock's hand needs one, and it never starts.
pub(super) fn any_image(observed: &Observed) -> Option<HandImage> {
    let image = observed.engine_images().find(|image| !image.id.is_empty())?;
    Some(HandImage { id: image.id.clone(), volumes: body::image_volumes(&image.raw) })
}
