//! The backup as a step of a plan: where it stands in it, what is asked before it is shown, and how it is carried out.

use super::{BackupError, Place, look, make, size};
use crate::deploy::desired::BackupWay;
use crate::deploy::observed::LABEL_DEPLOY;
use crate::deploy::{Desired, Observed};
use crate::engine::Container;
use crate::upgrade::drive::Deploy;
use crate::upgrade::finding::Findings;
use crate::upgrade::offer::{Offer, Request, draft};
use crate::upgrade::plan::Planner;
use crate::upgrade::run::{Runner, StepError, StepFailed};
use crate::upgrade::state::{is_up, ours};
use crate::upgrade::step::{Action, Plan, Step, Task};
use crate::upgrade::{DeployId, Refusal};

/// What is beside the estimate: the file's own ends, a server that counts in pages.
const MARGIN: u64 = 16 << 20;

/// Puts the backup before what changes the database as a whole, where the plan does so.
pub(in crate::upgrade) fn insert(planner: &mut Planner<'_>) -> Result<(), Refusal> {
    let changes = planner.plan.steps.iter().find_map(|step| match &step.action {
        Action::Task { container, task } => word(task).map(|word| (container.clone(), word)),
        _ => None,
    });
    let Some((container, word)) = changes else { return Ok(()) };
    if planner.desired.policy.backup.way == BackupWay::None {
        planner.plan.notes.push(format!("no backup precedes the {word}: --no-backup"));
        return Ok(());
    }
    let (container_of_it, image) = match Place::of(planner.desired)? {
        Place::Container(name) => (Some(name), None),
        Place::Image(image) => (None, Some(image)),
    };
    let of_it = |step: &Step| step.action.container() == Some(&container);
    let at = planner.plan.steps.iter().position(of_it).unwrap_or_default();
    let action = Action::Backup { container: container_of_it, image };
    let cause = format!("a backup precedes the {word}");
    planner.plan.steps.insert(at, Step { service: None, cause, action });
    Ok(())
}

/// What changes the database as a whole, in a word.
fn word(task: &Task) -> Option<&'static str> {
    match task {
        Task::Migrate { .. } => Some("migration"),
        Task::Finish { .. } => Some("end of the migration"),
        // It only copies.
        Task::Keep { .. } => None,
    }
}

/// The place that a plan names.
fn place(action: &Action) -> Option<Place> {
    match action {
        Action::Backup { container: Some(name), .. } => Some(Place::Container(name.clone())),
        Action::Backup { image: Some(image), .. } => Some(Place::Image(image.clone())),
        _ => None,
    }
}

/// Asks what the backup among the steps would save, and whether there is room for it; for the plan, a line each.
/// `Err(None)`: it cannot be made there, and may be in a container of the image that the policy names.
async fn ask(
    deploy: &Deploy<'_>,
    desired: &Desired,
    observed: &Observed,
    plan: &Plan,
) -> Result<Vec<String>, Option<Refusal>> {
    let Some(place) = plan.steps.iter().find_map(|step| place(&step.action)) else { return Ok(Vec::new()) };
    if let Place::Container(name) = &place
        && !observed.container(name).is_some_and(is_up)
    {
        return Ok(vec!["what the backup saves is not known before the database runs".to_owned()]);
    }
    if let Place::Image(image) = &place {
        let found = deploy.engine.inspect_image(&image.to_string()).await;
        if matches!(found, Ok(None)) {
            let why = format!("the image {image} for it is not on the engine");
            return Err(Some(Refusal::NoBackup { why }));
        }
    }
    let refused = |error: &BackupError| Some(Refusal::NoBackup { why: error.to_string() });
    let told = match look(deploy.engine, desired, &plan.id, &place, deploy.stop.clone()).await {
        Ok(told) => told,
        Err(BackupError::NoTool { .. })
            if matches!(place, Place::Container(_)) && desired.policy.backup.image.is_some() =>
        {
            return Err(None);
        }
        Err(error) => return Err(refused(&error)),
    };
    if told.schemas.is_empty() {
        return Ok(vec!["the database holds no table: there is nothing to back up".to_owned()]);
    }
    let folder = deploy.machine.folder.backup_place();
    let unwritable =
        |error: std::io::Error| Refusal::NoBackup { why: format!("{folder} cannot be written: {error}") };
    let room = deploy.machine.folder.backup_room().map_err(|error| Some(unwritable(error)))?;
    // It is compressed; how much, nobody knows before.
    let needed = told.bytes.saturating_add(MARGIN);
    if room < needed {
        let why = format!("{folder} has room for {}, and it may take {}", size(room), size(needed));
        return Err(Some(Refusal::NoBackup { why }));
    }
    let mut notes = vec![format!("the backup saves {} of {} in {folder}", told.words(), told.server)];
    if told.unsafe_tables > 0 {
        notes.push(format!(
            "{} tables are not InnoDB: nothing is written to the database while it is saved",
            told.unsafe_tables
        ));
    }
    Ok(notes)
}

impl Runner<'_> {
    /// Makes the backup and puts it on the record.
    pub(in crate::upgrade) async fn backup(&mut self, action: &Action) -> Result<(), StepError> {
        let Some(place) = place(action) else { return Ok(()) };
        let (what, id, stop) = (self.record.what.clone(), self.deploy.clone(), self.stop.clone());
        let made = make(self.engine, self.machine, self.desired, &id, &what, &place, stop).await;
        self.record.backup.taken = match made {
            Ok(taken) => taken,
            Err(BackupError::Interrupted) => return Err(StepError::Interrupted),
            Err(error) => return Err(StepError::Backup(Box::new(error))),
        };
        self.note_record().await
    }
}

impl Deploy<'_> {
    /// The draft for a request, with what its backup would save; where the database's container has no tool for it, another
    /// container is made for that.
    pub(in crate::upgrade) async fn draft_with_backup(
        &self,
        observed: &Observed,
        request: &Request,
    ) -> (Option<Offer>, Findings) {
        let (mut made, mut findings) = draft(self.desired, observed, request);
        let mut asked = self.ask_of_backup(made.as_ref(), observed).await;
        if let Err(None) = asked {
            let request = Request { backup: BackupWay::Image, ..request.clone() };
            (made, findings) = draft(self.desired, observed, &request);
            asked = self.ask_of_backup(made.as_ref(), observed).await;
        }
        let unknown = || Refusal::NoBackup { why: "nothing has the database's tools".to_owned() };
        let notes = findings.check(asked.map_err(|refusal| refusal.unwrap_or_else(unknown)));
        if let Some(made) = &mut made {
            made.plan.notes.extend(notes.unwrap_or_default());
        }
        (made, findings)
    }

    async fn ask_of_backup(
        &self,
        made: Option<&Offer>,
        observed: &Observed,
    ) -> Result<Vec<String>, Option<Refusal>> {
        match made {
            Some(made) => ask(self, &made.desired, observed, &made.plan).await,
            None => Ok(Vec::new()),
        }
    }

    /// True where a backup failed and was the first thing that the deploy did, as the `nth` step: there is nothing to undo.
    pub(in crate::upgrade) async fn only_the_backup_failed(
        &self,
        failed: &StepFailed,
        nth: usize,
        deploy: &DeployId,
    ) -> bool {
        if nth != 1 || !matches!(failed.source, StepError::Backup(_)) {
            return false;
        }
        let is_its = |container: &Container| {
            container.labels.get(LABEL_DEPLOY).is_some_and(|label| label == deploy.as_str())
        };
        self.observe(self.desired)
            .await
            .is_ok_and(|observed| !ours(&observed, &self.desired.deployment).any(is_its))
    }
}
