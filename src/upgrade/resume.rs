//! Taking up a deploy that was cut off: finished if it was committed, else undone, or carried out to its end.
//!
//! What has to be known of it is asked in this order: the record in the lock, the journal beside the file, the outline on
//! the containers that it made. Where none can be read, nothing is guessed.

use std::collections::BTreeSet;

use super::cluster_probe::{self, ClusterProbe};
use super::drive::{Deploy, TURN, announce, any_image};
use super::finding::Findings;
use super::journal::{Event, Way, in_flight, recorded};
use super::lock::{self, Holder, Lock, LockContents, Standing, holder};
use super::names::{lock_name, preview_name};
use super::offer;
use super::plan::plan;
use super::record::{DeployRecord, Found};
use super::retire::retire;
use super::step::{Action, Plan};
use super::unfinished::{disagreements, outline};
use super::unwind::{InFlight, settle, unwind};
use super::{DeployFailure, DeployId, Refusal, facts, loss, take_back};
use crate::deploy::desired::BackupWay;
use crate::deploy::observe::look_into;
use crate::deploy::{Desired, Observed};

/// How a deploy that was cut off is taken up again.
#[derive(Clone, Debug, Default)]
pub struct ResumeOptions {
    /// Carry out the rest instead of undoing what was done.
    pub forward: bool,
    /// The operator says that nobody works on it any more.
    pub take_over: bool,
    /// With `forward`: services whose data may be looked for elsewhere, beside those that the deploy was told of.
    pub accept_data_move: Vec<String>,
    /// The same for services whose shared memory may go.
    pub accept_state_loss: Vec<String>,
    /// With `forward`: the operator's word that there is a backup of the database, where the deploy has made none yet.
    pub no_backup: bool,
}

impl ResumeOptions {
    /// Puts these words on the record, beside those that the deploy was told: whoever takes it up after this one need not
    /// say them again.
    fn add_to(&self, record: &mut DeployRecord) {
        record.accept_data_move.extend(self.accept_data_move.clone());
        record.accept_state_loss.extend(self.accept_state_loss.clone());
        if self.no_backup && record.backup.way != BackupWay::None {
            record.backup.way = BackupWay::None;
            record.what += " --no-backup";
        }
    }
}

/// What a resume did.
#[derive(Debug)]
pub enum Resumed {
    /// No deploy was cut off. Where engine and file disagree all the same, a sentence each.
    Nothing(Vec<String>),
    /// One was, before it did anything.
    Untouched(String),
    /// It was committed; the rest is done.
    Finished(DeployId),
    /// It is undone.
    Undone(DeployId),
    /// It went on and is committed.
    Completed(DeployId),
}

/// A deploy that was cut off, as it was found.
struct CutOff {
    id: DeployId,
    what: String,
    /// `None`: it had done nothing.
    record: Option<DeployRecord>,
    committed: bool,
    in_flight: InFlight,
    /// Whose lock is to be taken over; `None` where it is gone.
    holder: Option<Holder>,
}

impl Deploy<'_> {
    /// What [`Self::resume`] would do, without doing it; `None` where nothing is left to do.
    pub async fn preview(&self, options: &ResumeOptions) -> Result<Option<Plan>, DeployFailure> {
        let observed = self.observe(self.desired).await?;
        let Some(cut_off) = self.cut_off(&observed, options.take_over, false).await? else { return Ok(None) };
        let Some(mut record) = cut_off.record else { return Ok(None) };
        options.add_to(&mut record);
        let desired = self.desired_of(&record);
        if cut_off.committed {
            let observed = self.observe(&desired).await?;
            let steps = retire(&desired, &observed, &record.plan.id);
            return Ok(Some(Plan { steps, notes: Vec::new(), ..record.plan }));
        }
        let way_back = unwind(&observed, &record, self.desired, &BTreeSet::new());
        if options.forward {
            let mut observed = self.observe_for(&desired, &record.plan.intent).await?;
            let lost = way_back.lost_services();
            let images = cluster_probe::images(&desired, &observed, &record.plan.intent);
            let mut probe =
                ClusterProbe::new(images).named(preview_name(&desired.deployment, &record.plan.id));
            observed.facts = facts::ask_again(&mut probe, self, &desired, &observed).await;
            probe.close(self.engine, &desired.deployment).await?;
            return Ok(Some(self.rest_of(&record, &desired, observed, &lost).await?));
        }
        let mut steps = settle(&observed, &record, &cut_off.in_flight);
        steps.extend(way_back.plan.steps);
        let mut notes = way_back.plan.notes;
        notes.extend(way_back.lost.iter().map(|lost| {
            format!("`{}` cannot go back: the container `{}` is gone", lost.service, lost.container)
        }));
        steps.extend(take_back::step(&observed, &record));
        Ok(Some(Plan { steps, notes, ..record.plan }))
    }

    /// Goes on with a deploy that was cut off: finishes it if it was committed, else undoes it, or with `forward`
    /// carries out the rest.
    pub async fn resume(&self, options: &ResumeOptions) -> Result<Resumed, DeployFailure> {
        let observed = self.observe(self.desired).await?;
        let Some(cut_off) = self.cut_off(&observed, options.take_over, true).await? else {
            self.remove_left_probe().await;
            return Ok(Resumed::Nothing(disagreements(self.desired, &observed)));
        };
        let taking = self.taking(&cut_off.id, &cut_off.what, &observed);
        let taken = match &cut_off.holder {
            Some(holder) => Lock::take_over(self.engine, holder, &taking).await?.map(|(lock, _)| lock),
            None => Lock::take(self.engine, &taking).await?,
        };
        let Some(lock) = taken else {
            self.is_free().await?;
            let why = "somebody else took it up and gave it free again".to_owned();
            return Err(Refusal::NoLongerFits { why }.into());
        };
        self.remove_probes().await;
        let Some(mut record) = cut_off.record.clone() else {
            self.give_free(&lock, &cut_off.id).await?;
            return Ok(Resumed::Untouched(cut_off.id.to_string()));
        };
        options.add_to(&mut record);
        // Whoever takes it up after this one finds it in the lock, wherever it was found now.
        lock.put_record(self.engine, &record).await?;
        self.leased(&lock, Box::pin(self.go_on(&lock, record, &cut_off, &observed, options.forward))).await
    }

    async fn go_on(
        &self,
        lock: &Lock,
        record: DeployRecord,
        cut_off: &CutOff,
        observed: &Observed,
        forward: bool,
    ) -> Result<Resumed, DeployFailure> {
        let id = cut_off.id.clone();
        let desired = self.desired_of(&record);
        let goes_forward = forward && !cut_off.committed;
        let journal = if goes_forward { self.journal(&record)? } else { self.journal_if_possible(&record) };
        let mut runner = self.runner(lock, record, &desired, observed, journal);
        // Whoever was cut off may have drained, whether or not the record tells.
        runner.drains.may_be_left = cluster_probe::has_account(self.desired);
        let by = self.machine.owner.who.clone();
        let _ = runner.write(Event::Resumed { by, forward });
        if cut_off.committed {
            self.finish(lock, &mut runner).await?;
            return Ok(Resumed::Finished(id));
        }
        // What it came to before it was cut off is not asked: where nothing was changed, nothing is to be put back.
        runner.may_have_migrated = true;
        if !forward {
            self.undo(lock, &mut runner, &cut_off.in_flight, BTreeSet::new()).await?;
            return Ok(Resumed::Undone(id));
        }
        if cut_off.in_flight != InFlight::Nothing {
            tokio::time::sleep(TURN).await;
        }
        let mut steps = settle(observed, &runner.record, &cut_off.in_flight);
        // On the way back nobody may take the name of what was being made; on the way on it is what is made now.
        steps.retain(|step| !matches!(step.action, Action::Claim { .. }));
        // What was under way is only brought to its end here; whether it failed is seen by the next look.
        let _ = runner.run(Way::Do, &steps, 1, steps.len()).await;
        let mut now = self.observe_for(&desired, &runner.record.plan.intent).await?;
        now.facts = facts::ask_again(&mut runner.cluster_probe, self, &desired, &now).await;
        let lost = unwind(&now, &runner.record, self.desired, &BTreeSet::new()).lost_services();
        let loads_from = now.clone();
        runner.kept.clone_from(&now.kept);
        let rest = self.rest_of(&runner.record, &desired, now, &lost).await?;
        let loads = offer::loads(&rest, &loads_from);
        self.secure(&rest).await?;
        for touched in &rest.touched {
            // What was recorded first is how it was before the deploy.
            if !runner.record.plan.touched.iter().any(|known| known.service == touched.service) {
                runner.record.plan.touched.push(touched.clone());
            }
        }
        announce(&mut runner, rest.document())?;
        lock.put_record(self.engine, &runner.record).await?;
        self.carry_out(lock, runner, None, &loads, &rest.steps).await?;
        Ok(Resumed::Completed(id))
    }

    /// What it led to, made as it was told.
    fn desired_of(&self, record: &DeployRecord) -> Desired {
        let mut desired = record.plan.intent.apply(self.desired);
        desired.policy.backup.way = record.backup.way;
        desired
    }

    /// The deploy that was cut off. `take_over`: a lease that has run out counts as an end. `writes`: the lock's hand may
    /// be made again to read what lies in it.
    async fn cut_off(
        &self,
        observed: &Observed,
        take_over: bool,
        writes: bool,
    ) -> Result<Option<CutOff>, DeployFailure> {
        let Some(mut holder) = holder(self.engine, &self.desired.deployment).await? else {
            return Ok(self.left(observed).map(|left| CutOff {
                in_flight: self.in_flight(&left.id, None),
                id: left.id,
                what: left.record.what.clone(),
                record: Some(left.record),
                committed: left.committed,
                holder: None,
            }));
        };
        let deployment = &self.desired.deployment;
        let image = any_image(observed).filter(|_| writes);
        if let Some(image) = image.as_ref().filter(|_| holder.lease.is_none()) {
            holder.lease = lock::heard_of(self.engine, deployment, &holder, image).await?;
        }
        match holder.standing(self.machine.owner, self.machine.clock.now()) {
            Standing::Held => return Err(self.taken(&holder)),
            Standing::RunOut if !take_over => {
                return Err(DeployFailure::LeaseRunOut {
                    deployment: deployment.clone(),
                    deploy: holder.deploy.clone(),
                    who: holder.named(),
                });
            }
            Standing::RunOut | Standing::Dead => {}
        }
        let id: DeployId = holder.deploy.parse().map_err(|_| DeployFailure::Record {
            deploy: holder.deploy.clone(),
            why: if holder.is_foreign() {
                format!(
                    "the volume `{}` is not tarsup's; rename the deployment, or move it",
                    lock_name(deployment)
                )
            } else {
                "the lock names no deploy".to_owned()
            },
        })?;
        let contents = lock::contents(self.engine, deployment, &holder, image.as_ref()).await?;
        let in_flight = self.in_flight(&id, Some(&holder));
        let (committed, what) = (contents.committed, holder.what.clone());
        let record = self.record(&id, contents, observed)?;
        Ok(Some(CutOff { id, what, record, committed, in_flight, holder: Some(holder) }))
    }

    /// The record of a deploy, wherever it can be read; `None` where it is proven that there is none.
    fn record(
        &self,
        id: &DeployId,
        contents: LockContents,
        observed: &Observed,
    ) -> Result<Option<DeployRecord>, DeployFailure> {
        let refuse = |why: String| DeployFailure::Record { deploy: id.to_string(), why };
        let newer =
            |version| refuse(format!("a newer tarsup wrote it (format {version}); go on with that one"));
        let trouble = match contents.record {
            Found::There(record) => return Ok(Some(record)),
            Found::Newer(version) => return Err(newer(version)),
            Found::Unreadable(why) => Some(why),
            Found::Absent => None,
        };
        let journal = self.machine.folder.read_journal(&self.desired.deployment, Some(id)).ok().flatten();
        if let Some(written) = journal.as_ref().and_then(|(_, lines)| recorded(lines)) {
            return Ok(Some(written.clone()));
        }
        let labelled = outline(self.desired, observed, id);
        match labelled.map(|label| DeployRecord::from_outline(label, id, &self.desired.deployment)) {
            Some(Found::There(record)) => Ok(Some(record)),
            Some(Found::Newer(version)) => Err(newer(version)),
            Some(Found::Unreadable(why)) => Err(refuse(why)),
            Some(Found::Absent) | None => match trouble {
                Some(why) => Err(refuse(why)),
                // It is written before anything is done.
                None => Ok(None),
            },
        }
    }

    /// What may still be under way. The journal tells, where it is that of the process that was cut off.
    fn in_flight(&self, id: &DeployId, holder: Option<&Holder>) -> InFlight {
        if holder.is_some_and(|holder| !self.machine.owner.is_on_the_machine_of(&holder.owner)) {
            return InFlight::Unknown;
        }
        let journal = self.machine.folder.read_journal(&self.desired.deployment, Some(id));
        match journal {
            Ok(Some((_, lines))) => in_flight(&lines),
            Ok(None) | Err(_) => InFlight::Unknown,
        }
    }

    /// What is left to do of a deploy. The files may have been edited since it was begun, and containers hold what they did
    /// not: it is judged anew.
    async fn rest_of(
        &self,
        record: &DeployRecord,
        desired: &Desired,
        mut observed: Observed,
        lost: &[String],
    ) -> Result<Plan, DeployFailure> {
        let mut rest = plan(&record.plan.id, desired, &observed, &record.plan.intent, lost)?;
        let mut findings = Findings::default();
        let accepted = &record.accept_data_move;
        offer::judge_moves(&mut rest, desired, &observed, accepted, &mut findings);
        let names = loss::to_look_into(&rest, desired, &observed);
        look_into(self.engine, desired, &mut observed, &names).await;
        loss::judge(&mut rest, desired, &observed, &record.accept_state_loss, &mut findings);
        findings.judged()?;
        Ok(rest)
    }
}
