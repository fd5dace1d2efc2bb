//! One deploy from its lock to its end: carried out, then committed, or unwound; and the same for one that was cut off.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use time::format_description::well_known::Rfc3339;
use tokio::sync::watch;

use super::journal::{Event, Header, VERSION, Way};
use super::lock::{Holder, LEASE_SECONDS, Lock, Record, Standing, Taking, holders, left_behind};
use super::plan::plan as make_plan;
use super::retire::retire;
use super::run::{Local, Runner, StepError, StepFailed};
use super::step::{Action, Plan, Step};
use super::unwind::unwind;
use super::{DeployId, Failure, Intent, Refusal};
use crate::deploy::observe::observe;
use crate::deploy::{Desired, Observed};
use crate::engine::{Engine, EngineError, EngineImage};
use crate::oci::Reference;

/// How long the way back waits for an engine that went away, and how often it asks.
const PATIENCE: u32 = 60;
const PAUSE: Duration = Duration::from_secs(2);
/// How often the lease is renewed; several may be missed.
const RENEWAL: Duration = Duration::from_secs(LEASE_SECONDS.unsigned_abs() / 4);

/// What a resume did.
#[derive(Debug)]
pub enum Resumed {
    /// No deploy was cut off.
    Nothing,
    /// One was, before it did anything.
    Untouched(String),
    /// It was committed; the rest is done.
    Finished(DeployId),
    /// It is undone.
    Undone(DeployId),
    /// It went on and is committed.
    Completed(DeployId),
}

/// What a deploy is carried out with.
#[derive(Clone)]
pub struct Deploy<'a> {
    /// The engine.
    pub engine: &'a dyn Engine,
    /// The machine.
    pub local: &'a dyn Local,
    /// The declaration, as the files have it.
    pub desired: &'a Desired,
    /// Becomes true when a person or the system says stop.
    pub stop: watch::Receiver<bool>,
}

impl Deploy<'_> {
    /// Fails where somebody works on the deployment, or was cut off.
    pub async fn is_free(&self) -> Result<(), Failure> {
        match holders(self.engine, &self.desired.deployment).await?.first() {
            Some(holder) => Err(self.taken(holder)),
            None => Ok(()),
        }
    }

    fn taken(&self, holder: &Holder) -> Failure {
        let deployment = self.desired.deployment.clone();
        let (who, what) = (named(holder), holder.what.clone());
        match holder.standing(self.local.owner(), self.local.now()) {
            Standing::Held => Failure::Held { deployment, who, since: holder.since.clone(), what },
            Standing::Dead | Standing::RunOut => {
                Failure::Unfinished { deployment, deploy: holder.deploy.clone(), who, what }
            }
        }
    }

    /// Observes the declaration that an intent leads to, and plans.
    pub async fn plan(&self, id: &DeployId, intent: &Intent) -> Result<Plan, Failure> {
        let desired = intent.apply(self.desired);
        let observed = observe(self.engine, &desired).await?;
        Ok(make_plan(id, &desired, &observed, intent)?)
    }

    /// Carries out a plan that was shown: takes the lock, plans again, and refuses if that is another plan.
    pub async fn roll(&self, shown: &Plan, what: &str) -> Result<(), Failure> {
        self.is_free().await?;
        let desired = shown.intent.apply(self.desired);
        let observed = observe(self.engine, &desired).await?;
        let Some(image) = any_image(&observed) else {
            let deployment = desired.deployment.clone();
            return Err(Refusal::NothingThere { deployment, word: shown.intent.word() }.into());
        };
        let taking = self.taking(&shown.id, what, image);
        let Some(lock) = Lock::take(self.engine, &taking).await? else {
            self.is_free().await?;
            let why = "somebody else took the deployment and gave it free again".to_owned();
            return Err(Refusal::NoLongerFits { why }.into());
        };
        let begun = async {
            let plan = self.plan(&shown.id, &shown.intent).await?;
            fits(shown, &plan)?;
            let record = Record {
                version: 1,
                what: what.to_owned(),
                images: self.images(&plan.intent, &observed),
                plan,
            };
            let runner = self.runner(&record, &desired)?;
            lock.put_record(self.engine, &record).await?;
            Ok::<_, Failure>((record, runner))
        };
        match begun.await {
            Ok((record, runner)) => {
                let steps = record.plan.steps.clone();
                self.leased(&lock, self.carry_out(&lock, &record, &desired, runner, &steps)).await
            }
            Err(failure) => {
                // Nothing has been changed: the deployment is given free.
                let _ = lock.release(self.engine).await;
                Err(failure)
            }
        }
    }

    /// What [`Self::resume`] would do, without doing it; `None` where nothing is left to do.
    pub async fn preview(&self, forward: bool) -> Result<Option<Plan>, Failure> {
        let found = holders(self.engine, &self.desired.deployment).await?;
        let Some(holder) = found.first() else { return Ok(None) };
        if holder.standing(self.local.owner(), self.local.now()) == Standing::Held {
            return Err(self.taken(holder));
        }
        let (Some(record), committed) = left_behind(self.engine, &found).await? else { return Ok(None) };
        let desired = record.plan.intent.apply(self.desired);
        if committed {
            let observed = observe(self.engine, &desired).await?;
            let steps = retire(&desired, &observed, &record.plan.id);
            return Ok(Some(Plan { steps, notes: Vec::new(), ..record.plan }));
        }
        if forward {
            return self.plan(&record.plan.id, &record.plan.intent).await.map(Some);
        }
        let observed = observe(self.engine, self.desired).await?;
        Ok(Some(unwind(&observed, &record.plan, &self.desired.policy)?))
    }

    /// Goes on with a deploy that was cut off: finishes it if it was committed, else undoes it, or with `forward`
    /// carries out the rest. `confirmed`: the operator says that nobody works on it any more.
    pub async fn resume(&self, forward: bool, confirmed: bool) -> Result<Resumed, Failure> {
        let found = holders(self.engine, &self.desired.deployment).await?;
        let Some(holder) = found.first() else { return Ok(Resumed::Nothing) };
        match holder.standing(self.local.owner(), self.local.now()) {
            Standing::Held => return Err(self.taken(holder)),
            Standing::RunOut if !confirmed => {
                return Err(Failure::LeaseRunOut {
                    deployment: self.desired.deployment.clone(),
                    deploy: holder.deploy.clone(),
                    who: named(holder),
                });
            }
            Standing::RunOut | Standing::Dead => {}
        }
        let observed = observe(self.engine, self.desired).await?;
        let id: DeployId = holder.deploy.parse().map_err(|_| Refusal::NoLongerFits {
            why: format!("the lock `{}` names no deploy", holder.name),
        })?;
        let image = any_image(&observed).ok_or_else(|| Refusal::NothingThere {
            deployment: self.desired.deployment.clone(),
            word: "resume",
        })?;
        let taking = self.taking(&id, &holder.what, image);
        let Some((lock, record, committed)) = Lock::take_over(self.engine, &found, &taking).await? else {
            self.is_free().await?;
            return Ok(Resumed::Nothing);
        };
        let Some(record) = record else {
            lock.release(self.engine).await?;
            return Ok(Resumed::Untouched(holder.deploy.clone()));
        };
        self.leased(&lock, self.go_on(&lock, &record, forward, committed)).await
    }

    async fn go_on(
        &self,
        lock: &Lock,
        record: &Record,
        forward: bool,
        committed: bool,
    ) -> Result<Resumed, Failure> {
        let desired = record.plan.intent.apply(self.desired);
        let mut runner = self.runner(record, &desired)?;
        let by = self.local.owner().who.clone();
        let _ = runner.write(Event::Resumed { by, forward });
        let id = record.plan.id.clone();
        if committed {
            self.finish(lock, record, &desired, &mut runner).await?;
            return Ok(Resumed::Finished(id));
        }
        if !forward {
            self.undo(lock, record, &mut runner, None::<StepFailed>).await?;
            return Ok(Resumed::Undone(id));
        }
        let mut record = record.clone();
        let rest = self.plan(&id, &record.plan.intent).await?;
        for touched in &rest.touched {
            // What was recorded first is how it was before the deploy.
            if !record.plan.touched.iter().any(|known| known.service == touched.service) {
                record.plan.touched.push(touched.clone());
            }
        }
        lock.put_record(self.engine, &record).await?;
        self.carry_out(lock, &record, &desired, runner, &rest.steps).await?;
        Ok(Resumed::Completed(id))
    }

    async fn carry_out(
        &self,
        lock: &Lock,
        record: &Record,
        desired: &Desired,
        mut runner: Runner<'_>,
        steps: &[Step],
    ) -> Result<(), Failure> {
        let document = record.plan.document();
        if let Err(source) = runner.write(Event::Planned { way: Way::Do, plan: document }) {
            let _ = lock.release(self.engine).await;
            return Err(Failure::Journal { deploy: record.plan.id.to_string(), source });
        }
        match runner.run(Way::Do, steps).await {
            Ok(()) => {}
            Err(failed) if matches!(failed.source, StepError::Interrupted) => {
                return Err(interrupted(record, &mut runner, failed.number));
            }
            Err(failed) => {
                // The error at the end shows the logs as well; here the first line is enough.
                let failure = failed.to_string();
                self.local.say(&format!("{}\nrolling back", failure.lines().next().unwrap_or_default()));
                let (failed, note) = self.undo(lock, record, &mut runner, failed).await?;
                let failed = Box::new(failed);
                return Err(if goes_back(&record.plan.intent) {
                    Failure::RolledBack { failed, note }
                } else {
                    Failure::Failed { failed }
                });
            }
        }
        // One file in the lock decides whether this deploy is finished or undone from now on.
        if let Err(error) = self.patiently(async || lock.commit(self.engine).await).await {
            let failed = StepFailed { number: steps.len(), what: "commit".to_owned(), source: error.into() };
            return Err(Failure::Stuck { failed: None, undo: failed.to_string() });
        }
        self.finish(lock, record, desired, &mut runner).await
    }

    /// What follows the commit: the tag in the file, the parked containers beyond the number to keep, the lock.
    async fn finish(
        &self,
        lock: &Lock,
        record: &Record,
        desired: &Desired,
        runner: &mut Runner<'_>,
    ) -> Result<(), Failure> {
        let _ = runner.write(Event::Committed);
        if !record.images.is_empty()
            && let Err(why) = self.local.rewrite(&record.images)
        {
            self.local.say(&format!("warning: {why}"));
        }
        // The new version is proven and serves; what cannot be cleared away now is cleared by the next deploy.
        match self.patiently(async || observe(self.engine, desired).await).await {
            Ok(observed) => {
                let steps = retire(desired, &observed, &record.plan.id);
                if let Err(failed) = runner.run(Way::Finish, &steps).await {
                    if matches!(failed.source, StepError::Interrupted) {
                        return Err(interrupted(record, runner, failed.number));
                    }
                    self.local.say(&format!("warning: {failed}"));
                }
            }
            Err(error) => {
                self.local.say(&format!("warning: parked containers are not cleared away: {error}"));
            }
        }
        self.release(lock, record).await?;
        let _ = runner.write(Event::Finished);
        Ok(())
    }

    /// Undoes a deploy; what failed before, and what is not undone.
    async fn undo<F: Into<Option<StepFailed>>>(
        &self,
        lock: &Lock,
        record: &Record,
        runner: &mut Runner<'_>,
        failed: F,
    ) -> Result<(F, Vec<String>), Failure> {
        let way_back = async {
            let observed = self.patiently(async || observe(self.engine, self.desired).await).await;
            let observed = observed.map_err(|error| error.to_string())?;
            let mut plan = unwind(&observed, &record.plan, &self.desired.policy)
                .map_err(|refusal| refusal.to_string())?;
            // A create whose answer was lost may leave what this command never saw; everything is derived again.
            plan.steps.retain(|step| !matches!(step.action, Action::Load { .. }));
            Ok::<_, String>(plan)
        };
        let undone = match way_back.await {
            Ok(plan) => {
                let _ = runner.write(Event::Planned { way: Way::Undo, plan: plan.document() });
                runner.run(Way::Undo, &plan.steps).await.map(|()| plan.notes)
            }
            Err(undo) => {
                let _ = runner.write(Event::Stuck { error: undo.clone() });
                return Err(Failure::Stuck { failed: failed.into().map(Box::new), undo });
            }
        };
        match undone {
            Ok(note) => {
                let _ = runner.write(Event::RolledBack);
                self.release(lock, record).await?;
                Ok((failed, note))
            }
            Err(undo) if matches!(undo.source, StepError::Interrupted) => {
                Err(interrupted(record, runner, undo.number))
            }
            Err(undo) => {
                let _ = runner.write(Event::Stuck { error: undo.to_string() });
                Err(Failure::Stuck { failed: failed.into().map(Box::new), undo: undo.to_string() })
            }
        }
    }

    async fn release(&self, lock: &Lock, record: &Record) -> Result<(), Failure> {
        let released = self.patiently(async || lock.release(self.engine).await).await;
        released.map_err(|error| Failure::Unreleased { deploy: record.plan.id.clone(), source: error })
    }

    /// Asks again while an engine is being restarted: what has begun must come to an end.
    async fn patiently<T>(
        &self,
        call: impl AsyncFn() -> crate::engine::Result<T>,
    ) -> crate::engine::Result<T> {
        let mut tries = 0;
        loop {
            match call().await {
                Err(EngineError::Lost { .. } | EngineError::Unreachable { .. }) if tries < PATIENCE => {
                    tries += 1;
                    tokio::time::sleep(PAUSE).await;
                }
                other => return other,
            }
        }
    }

    fn taking<'a>(&'a self, id: &'a DeployId, what: &'a str, image: &'a EngineImage) -> Taking<'a> {
        let deployment = &self.desired.deployment;
        Taking { deployment, deploy: id, what, owner: self.local.owner(), now: self.local.now(), image }
    }

    fn runner<'a>(&'a self, record: &Record, desired: &'a Desired) -> Result<Runner<'a>, Failure> {
        let header = Header {
            tarsup_journal: VERSION,
            deploy: record.plan.id.clone(),
            deployment: record.plan.deployment.clone(),
            what: record.what.clone(),
            by: self.local.owner().who.clone(),
            at: self.local.now().format(&Rfc3339).unwrap_or_default(),
        };
        let opened = self.local.journal(&header);
        let journal =
            opened.map_err(|source| Failure::Journal { deploy: record.plan.id.to_string(), source })?;
        Ok(Runner {
            engine: self.engine,
            local: self.local,
            desired,
            deploy: record.plan.id.clone(),
            journal,
            stop: self.stop.clone(),
        })
    }

    /// What the deployment file must name after the commit, where it names something else.
    fn images(&self, intent: &Intent, observed: &Observed) -> BTreeMap<String, Reference> {
        let all: BTreeMap<String, Reference> = match intent {
            Intent::Upgrade { images } => images.clone(),
            Intent::Rollback { targets, .. } => targets
                .iter()
                .filter_map(|(service, id)| {
                    let image = &super::state::by_id(observed, id)?.image;
                    Some((service.clone(), image.parse().ok()?))
                })
                .collect(),
            Intent::Up | Intent::Restart { .. } | Intent::Down { .. } => BTreeMap::new(),
        };
        let differs = |name: &String, image: &Reference| {
            self.desired.service(name).is_some_and(|service| service.image != *image)
        };
        all.into_iter().filter(|(name, image)| differs(name, image)).collect()
    }

    /// Runs `work` while the lock's lease is renewed.
    async fn leased<T>(&self, lock: &Lock, work: impl Future<Output = T>) -> T {
        let renewals = async {
            loop {
                tokio::time::sleep(RENEWAL).await;
                // A renewal that is missed is no reason to stop halfway.
                let _ = lock.renew(self.engine, self.local.now()).await;
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

fn interrupted(record: &Record, runner: &mut Runner<'_>, step: usize) -> Failure {
    let _ = runner.write(Event::Interrupted);
    Failure::Interrupted { deploy: record.plan.id.clone(), step }
}

/// True where a failure leads back to something else than what failed.
fn goes_back(intent: &Intent) -> bool {
    !matches!(intent, Intent::Restart { .. } | Intent::Down { .. })
}

fn named(holder: &Holder) -> String {
    format!("{} (pid {})", holder.owner.who, holder.owner.pid)
}

/// Any image that is there: the lock's container needs one, and it never starts.
fn any_image(observed: &Observed) -> Option<&EngineImage> {
    observed.images.values().flatten().find(|image| !image.id.is_empty())
}

/// The plan that was shown is the plan that will be carried out; what was loaded meanwhile aside.
fn fits(shown: &Plan, plan: &Plan) -> Result<(), Refusal> {
    let comparable = |plan: &Plan| -> Vec<(Option<String>, String)> {
        let steps = plan.steps.iter().filter(|step| !matches!(step.action, Action::Load { .. }));
        steps
            .map(|step| {
                let mut action = step.action.clone();
                if let Action::Create { image_id, .. } = &mut action {
                    *image_id = None;
                }
                (step.service.clone(), super::render::line(&action))
            })
            .collect()
    };
    let (shown, now) = (comparable(shown), comparable(plan));
    let Some(at) = (0..shown.len().max(now.len())).find(|&at| shown.get(at) != now.get(at)) else {
        return Ok(());
    };
    let words = |step: Option<&(Option<String>, String)>| {
        step.map_or_else(|| "nothing more".to_owned(), |(_, line)| line.clone())
    };
    let why = format!("it was `{}`, and is now `{}`", words(shown.get(at)), words(now.get(at)));
    Err(Refusal::NoLongerFits { why })
}
