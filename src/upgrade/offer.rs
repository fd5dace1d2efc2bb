//! The front half of a deploy as one pure function: what was asked for and what is there in, what will be done out.
//!
//! What is shown is an [`Offer`], and an offer is what is carried out: steps with the ids of their images, the questions to
//! be answered, the edits of the file. No clock, no prompt, no log, no input or output.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::finding::{Finding, Findings, tell};
use super::overview::Overview;
use super::plan;
use super::step::{Action, Plan, Purpose, Step};
use super::{DeployId, Intent, Refusal, data, loss, preflight, rollback};
use crate::deploy::desired::BackupWay;
use crate::deploy::observed::Availability;
use crate::deploy::pins::{Pins, require};
use crate::deploy::services::Services;
use crate::deploy::{Desired, Observed};
use crate::oci::Reference;
use crate::tars::Instance;

/// What a command asks for.
#[derive(Clone, Debug)]
pub struct Request {
    /// The name of the deploy.
    pub id: DeployId,
    /// The command, in words: for lock, journal and history.
    pub what: String,
    /// What is asked for.
    pub intent: Intent,
    /// With `--locked`: the pins that every image must have.
    pub pins: Option<Pins>,
    /// With `--accept-data-move`: the services whose data may be looked for elsewhere from now on.
    pub accept_data_move: Vec<String>,
    /// In which container a backup is made; in none with `--no-backup`.
    pub backup: BackupWay,
    /// With `--accept-state-loss`: the services whose shared memory may go.
    pub accept_state_loss: Vec<String>,
}

/// What will be done.
#[derive(Clone, Debug)]
pub struct Offer {
    /// What was asked for.
    pub request: Request,
    /// The plan.
    pub plan: Plan,
    /// The declaration that it leads to.
    pub desired: Desired,
    /// Service → image that the deployment file names after the commit, where it names another one now.
    pub edits: BTreeMap<String, Reference>,
    /// What served where when it was shown: it is made again by the same, as batches follow from it.
    pub served: Services,
    /// The same of nodes that tell it themselves, where no database can be asked.
    pub heard: BTreeMap<String, Result<Vec<Instance>, String>>,
    /// What the migration would do, as far as the new image was asked and answered.
    pub migration: Option<Value>,
    /// What is kept of columns that a web console may drop, as far as the image that leaves was asked and answered.
    pub columns: Option<Value>,
    /// It at a glance.
    pub overview: Overview,
    /// What was found before the first step, and refuses nothing: each is a note or a question of the plan, too.
    pub findings: Vec<Finding>,
}

impl Offer {
    /// True where neither the engine nor the file would be changed.
    pub fn is_empty(&self) -> bool {
        self.plan.is_empty() && self.edits.is_empty()
    }

    /// The plan's document, with the findings, the migration's document and that of the columns in it.
    pub fn document(&self) -> Value {
        let mut document = self.plan.document();
        document["findings"] = json!(self.findings);
        document["overview"] = json!(self.overview);
        for (key, more) in [("migration", &self.migration), ("columns", &self.columns)] {
            if let (Value::Object(map), Some(more)) = (&mut document, more) {
                map.insert(key.to_owned(), more.clone());
            }
        }
        document
    }

    /// The steps that bring images to the engine, and the others.
    pub fn parts(&self) -> (&[Step], &[Step]) {
        let loads =
            self.plan.steps.iter().take_while(|step| matches!(step.action, Action::Load { .. })).count();
        self.plan.steps.split_at(loads)
    }
}

/// What will be done for `request`, or all that stands in its way. `declared` is what the files say; `observed` was read for
/// what the intent leads to.
pub fn offer(declared: &Desired, observed: &Observed, request: &Request) -> Result<Offer, Refusal> {
    let (offer, findings) = draft(declared, observed, request);
    concluded(offer, findings)
}

/// The offer, where nothing stands in its way.
pub(super) fn concluded(offer: Option<Offer>, findings: Findings) -> Result<Offer, Refusal> {
    let told = findings.judged()?;
    let why = "nothing can be planned".to_owned();
    let mut offer = offer.ok_or(Refusal::NoLongerFits { why })?;
    tell(&mut offer.plan, &told);
    offer.findings = told;
    Ok(offer)
}

/// The same as far as it goes, with all that is found; no offer where not even a part of it can be planned.
pub(super) fn draft(declared: &Desired, observed: &Observed, request: &Request) -> (Option<Offer>, Findings) {
    let mut intent = request.intent.clone();
    if let Intent::Rollback { to, targets } = &mut intent {
        match rollback::targets(declared, observed, to.as_ref()) {
            Ok(found) => *targets = found,
            Err(refusal) => {
                let mut findings = preflight::check(declared, observed, &request.intent);
                findings.refuse(refusal);
                return (None, findings);
            }
        }
    }
    let mut desired = intent.apply(declared);
    desired.policy.backup.way = request.backup;
    let (mut plan, mut findings) = plan::draft(&request.id, &desired, observed, &intent, &[]);
    if let Some(pins) = &request.pins {
        let makes = desired.services.iter().filter(|service| intent.makes(service));
        let pinned = require(pins, makes.map(|service| &service.image), observed);
        findings.check(pinned.map_err(Box::new));
    }
    judge_moves(&mut plan, &desired, observed, &request.accept_data_move, &mut findings);
    loss::judge(&mut plan, &desired, observed, &request.accept_state_loss, &mut findings);
    let loads = loads(&plan, observed);
    plan.steps.splice(0..0, loads);
    preflight::room::judge(&plan, observed, &mut findings);
    preflight::way_back::judge(&plan, observed, &mut findings);
    let edits = edits(declared, observed, &intent);
    let (request, migration, columns) = (request.clone(), None, None);
    // It is looked at where it is shown: not for each draft.
    let overview = Overview::default();
    let served = match &observed.facts.cluster {
        Some(Ok(facts)) => facts.services.clone(),
        Some(Err(_)) | None => Services::default(),
    };
    let offer = Offer {
        request,
        plan,
        desired,
        edits,
        served,
        heard: observed.facts.heard.clone(),
        migration,
        columns,
        overview,
        findings: Vec::new(),
    };
    (Some(offer), findings)
}

/// Every move of a service's data is a line of the plan; one that nobody accepted is refused for what has a role.
pub(super) fn judge_moves(
    plan: &mut Plan,
    desired: &Desired,
    observed: &Observed,
    accepted: &[String],
    findings: &mut Findings,
) {
    for moved in data::moves(plan, desired, observed) {
        match moved.refusal(accepted) {
            Some(refusal) => findings.refuse(refusal),
            None => plan.notes.push(moved.to_string()),
        }
    }
}

/// One step for each image that a container is created from and that only the local store has.
pub(super) fn loads(plan: &Plan, observed: &Observed) -> Vec<Step> {
    let mut loads: Vec<Step> = Vec::new();
    for step in &plan.steps {
        let Action::Create { image, purpose, .. } = &step.action else { continue };
        // What leaves is there: a container runs it.
        if *purpose == Purpose::Keep {
            continue;
        }
        let Some(Availability::Store(stored)) = observed.images.get(&image.to_string()) else { continue };
        let image_id = Some(stored.id.clone()).filter(|id| !id.is_empty());
        let action = Action::Load { image: image.clone(), image_id };
        if !loads.iter().any(|known| known.action == action) {
            let cause = "the engine lacks it, the local store has it".to_owned();
            loads.push(Step { service: None, cause, action });
        }
    }
    loads
}

/// What the deployment file must name after the commit, where it names something else.
fn edits(declared: &Desired, observed: &Observed, intent: &Intent) -> BTreeMap<String, Reference> {
    let all: BTreeMap<String, Reference> = match intent {
        Intent::Upgrade { images } => images.clone(),
        Intent::Rollback { targets, .. } => targets
            .iter()
            .filter_map(|(service, id)| {
                Some((service.clone(), rollback::image_of(observed, id)?.parse().ok()?))
            })
            .collect(),
        Intent::Up | Intent::Restart { .. } | Intent::Down { .. } | Intent::Prune { .. } | Intent::Finish => {
            BTreeMap::new()
        }
    };
    declared.images_to_rewrite(&all)
}

/// Holds a new offer for the same request to the one that was shown.
pub fn holds(shown: &Offer, now: &Offer) -> Result<(), Refusal> {
    for (before, after) in shown.plan.steps.iter().zip(&now.plan.steps) {
        if let (
            Action::Create { name, image, image_id: Some(before), .. },
            Action::Create { name: same, image_id: Some(after), .. },
        ) = (&before.action, &after.action)
            && name == same
            && before != after
        {
            let (image, shown, now) = (image.to_string(), before.clone(), after.clone());
            return Err(Refusal::ImageMoved { image, shown, now });
        }
    }
    let (before, after) = (&shown.plan.steps, &now.plan.steps);
    let Some(at) = (0..before.len().max(after.len())).find(|&at| before.get(at) != after.get(at)) else {
        return Ok(());
    };
    let words = |step: Option<&Step>| {
        step.map_or_else(|| "nothing more".to_owned(), |step| super::render::line(&step.action))
    };
    let (before, after) = (words(before.get(at)), words(after.get(at)));
    let why = if before == after {
        format!("`{before}` would be done for another reason, or from another declaration")
    } else {
        format!("it was `{before}`, and is now `{after}`")
    };
    Err(Refusal::NoLongerFits { why })
}
