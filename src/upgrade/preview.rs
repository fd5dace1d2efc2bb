//! What a migration would change in the database: asked of the new image before anything is done, in a container beside
//! the deployment. It sends nothing but questions, and is no step of a plan.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::cluster_probe::{asker, close, make};
use super::names::preview_name;
use super::offer::Offer;
use super::record::lines_of;
use super::state::by_id;
use super::step::{Action, After, Plan, Purpose, Step, Task, Touched, TwinOf};
use super::{DeployId, Intent, Refusal};
use crate::deploy::observed::Availability;
use crate::deploy::{Desired, Observed, guard};
use crate::diagnose::first_few;
use crate::engine::Engine;
use crate::oci::Reference;
use crate::tars::Role;
use crate::tars::catalogue::INIT_PATH;

/// What is run in it.
const QUESTION: [&str; 3] = [INIT_PATH, "migrate", "--dry-run"];
const FINISH: [&str; 4] = [INIT_PATH, "migrate", "--finish", "--dry-run"];
/// How long the answer may take.
const TIMEOUT: Duration = Duration::from_mins(1);
/// `tars-init`: the image or the database is not what it must be.
const UNFIT: i64 = 78;
/// How many lines of it a plan shows.
const SHOWN: usize = 40;

/// What a migration would do.
#[derive(Debug, Default)]
pub(super) struct Preview {
    /// For the plan, a line each.
    pub notes: Vec<String>,
    /// What of it programs of before would fail at.
    pub binds: Option<String>,
    /// Why nothing is known of it.
    pub unknown: Option<String>,
    /// The document; nothing where none was given.
    pub document: Option<Value>,
}

/// Asks for the migration among `steps`; nothing where there is none, or its image is not in the engine yet. `loaded` are the
/// ids of those that were loaded since the plan was made, `open` the image of a container beside the deployment that is there
/// already: it is asked where that is the migration's.
pub(super) async fn preview(
    engine: &dyn Engine,
    desired: &Desired,
    deploy: &DeployId,
    steps: &[Step],
    loaded: &BTreeMap<Reference, String>,
    open: Option<&str>,
) -> Result<Preview, Refusal> {
    let migration = steps.iter().find_map(|step| match &step.action {
        Action::Create {
            image, image_id, purpose: purpose @ (Purpose::Migrate | Purpose::Finish), ..
        } => {
            let id =
                image_id.as_ref().filter(|_| !is_to_be_loaded(steps, image)).or_else(|| loaded.get(image))?;
            let question = if *purpose == Purpose::Finish { &FINISH[..] } else { &QUESTION };
            Some((desired.service(step.service.as_deref()?)?, image, id, question))
        }
        _ => None,
    });
    let Some((service, image, id, question)) = migration else { return Ok(Preview::default()) };
    let name = preview_name(&desired.deployment, deploy);
    let is_its = |made_of: &str| made_of == image.to_string() || made_of == id;
    let is_there = open.is_some_and(is_its) && asker(desired).is_some_and(|one| one.name == service.name);
    let asked = async {
        if !is_there {
            close(engine, &desired.deployment, &name).await.map_err(|error| error.to_string())?;
            make(engine, desired, service, id, &name).await.map_err(|error| error.to_string())?;
        }
        engine.exec(&name, question, TIMEOUT).await.map_err(|error| error.to_string())
    }
    .await;
    let closed = close(engine, &desired.deployment, &name).await;
    let mut preview = Preview::default();
    if let Err(error) = closed {
        preview.notes.push(format!("{name} is not removed: {error}"));
    }
    let unknown =
        |why: &str| format!("what the migration to {image} changes is not known before it runs: {why}");
    let output = match asked {
        Ok(output) => output,
        Err(why) => {
            preview.notes.push(unknown(&why));
            preview.unknown = Some(why);
            return Ok(preview);
        }
    };
    let said = output.stderr.lines().next().unwrap_or("it said nothing").trim_start_matches("tars-init: ");
    let document = output.stdout.lines().last().and_then(|line| serde_json::from_str::<Value>(line).ok());
    match document.filter(|document| output.exit_code == 0 && document.is_object()) {
        Some(document) => {
            refuse(&document, image)?;
            preview.binds = binds(&document);
            let lines = lines_of(&document);
            let more = lines.len().saturating_sub(SHOWN);
            preview.notes.extend(lines.into_iter().take(SHOWN).map(|line| format!("the migration: {line}")));
            if more > 0 {
                preview.notes.push(format!("the migration: {more} more, all of which are in --json"));
            }
            preview.document = Some(document);
        }
        None if output.exit_code == UNFIT => {
            return Err(Refusal::Migration {
                image: image.to_string(),
                why: said.to_owned(),
                needed: Vec::new(),
            });
        }
        None => {
            preview.notes.push(unknown(said));
            preview.unknown = Some(said.to_owned());
        }
    }
    Ok(preview)
}

/// What the starts of the masters and slaves that a rollback brings back put back by themselves, for its plan: the versions that
/// rows name, and, asked of the master's own image, what it takes back in templates and columns, and what stays because somebody
/// has edited it since. Nothing where one has no tars-init: its start takes nothing back ([`super::keep`]).
pub(super) async fn way_back(engine: &dyn Engine, offer: &Offer, observed: &Observed) -> Vec<String> {
    let (plan, desired) = (&offer.plan, &offer.desired);
    let mut notes = Vec::new();
    if !matches!(plan.intent, Intent::Rollback { .. }) {
        return notes;
    }
    for touched in &plan.touched {
        let Some(role @ (Role::Master | Role::Slave)) = touched.role else { continue };
        let Some((image, id, config)) = coming_back(touched, plan, observed) else { continue };
        if !guard::has_our_start(&config) {
            continue;
        }
        let name = &touched.service;
        notes.push(format!(
            "`{name}`: its rows name the version of {image} again, but for services whose program somebody published over \
             its image's"
        ));
        let is_there = observed.images.get(&id).is_none_or(|found| matches!(found, Availability::Engine(_)));
        let service = desired.service(name).filter(|_| role == Role::Master && is_there);
        let Some(service) = service else { continue };
        let container = preview_name(&desired.deployment, &plan.id);
        let asked = async {
            make(engine, desired, service, &id, &container).await.map_err(|error| error.to_string())?;
            engine.exec(&container, &QUESTION, TIMEOUT).await.map_err(|error| error.to_string())
        }
        .await;
        if let Err(error) = close(engine, &desired.deployment, &container).await {
            notes.push(format!("{container} is not removed: {error}"));
        }
        let document = asked.and_then(|output| {
            let document =
                output.stdout.lines().last().and_then(|line| serde_json::from_str::<Value>(line).ok());
            let said = output.stderr.lines().next().unwrap_or("it said nothing");
            document
                .filter(|document| output.exit_code == 0 && document.is_object())
                .ok_or_else(|| said.trim_start_matches("tars-init: ").to_owned())
        });
        match document {
            Ok(document) => {
                // Who reads it later is told by the start: its own services are not among them.
                let mut lines = lines_of(&document);
                lines.retain(|line| !line.starts_with("reaches "));
                let more = lines.len().saturating_sub(SHOWN);
                let shown = lines.into_iter().take(SHOWN);
                notes.extend(shown.map(|line| format!("the start of {image} as `{name}`: {line}")));
                if more > 0 {
                    notes.push(format!("the start of {image} as `{name}`: {more} more"));
                }
            }
            Err(why) => notes.push(format!(
                "what the start of {image} as `{name}` takes back is not known before it does: {why}"
            )),
        }
    }
    notes
}

/// The image of what comes back for a service, its id, and the engine's `Config` as far as its start is concerned.
fn coming_back(touched: &Touched, plan: &Plan, observed: &Observed) -> Option<(String, String, Value)> {
    match &touched.after {
        After::Parked { id, .. } => {
            let parked = by_id(observed, id)?;
            Some((parked.image.clone(), parked.image_id.clone(), parked.raw["Config"].clone()))
        }
        After::Made => plan.steps.iter().find_map(|step| match &step.action {
            Action::Create { twin: Some(TwinOf::Kept(name)), .. }
                if step.service.as_ref() == Some(&touched.service) =>
            {
                let twin = observed.kept.get(name)?;
                Some((twin.image.clone(), twin.image_id.clone(), twin.config()))
            }
            _ => None,
        }),
        After::Same => None,
    }
}

/// What programs of before would fail at, as they know nothing of it.
fn binds(document: &Value) -> Option<String> {
    let binds = document.pointer("/schema/binds").and_then(Value::as_array)?;
    let binds: Vec<&str> = binds.iter().filter_map(Value::as_str).collect();
    (!binds.is_empty()).then(|| first_few(&binds))
}

impl Preview {
    /// The question that is asked where there may be no way back. Before `migrate --finish` nothing older is one.
    pub fn question(&self, steps: &[Step]) -> Option<String> {
        let (from, _) = migration_of(steps)?;
        let why = self.binds.as_ref().or(self.unknown.as_ref())?;
        Some(format!(
            "there may be no way back: it is not proven that {from} can run on what the migration leaves ({why}). Go on all the \
             same?"
        ))
    }

    /// Where nobody can be asked any more, what is known to be no way back is refused.
    pub fn or_refused(self, steps: &[Step]) -> Result<Self, Refusal> {
        match (&self.binds, migration_of(steps)) {
            (Some(why), Some((_, image))) => {
                Err(Refusal::NoWayBack { image: image.to_owned(), why: why.clone() })
            }
            _ => Ok(self),
        }
    }
}

/// The images before and after the migration among these steps.
fn migration_of(steps: &[Step]) -> Option<(&str, &str)> {
    steps.iter().find_map(|step| match &step.action {
        Action::Task { task: Task::Migrate { from, to, .. }, .. } => Some((from.as_str(), to.as_str())),
        _ => None,
    })
}

fn is_to_be_loaded(steps: &[Step], image: &Reference) -> bool {
    steps.iter().any(|step| matches!(&step.action, Action::Load { image: loads, .. } if loads == image))
}

/// What the new version's programs need and nothing gives them stops an upgrade before it begins.
fn refuse(document: &Value, image: &Reference) -> Result<(), Refusal> {
    let list = |at: &str| -> Vec<String> {
        let items = document.pointer(at).and_then(Value::as_array).into_iter().flatten();
        items.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let (needed, unreadable) = (list("/templates/needed"), list("/templates/unreadable"));
    let why = match (needed.as_slice(), unreadable.as_slice()) {
        ([], []) => return Ok(()),
        ([], _) => {
            format!("the templates {} of the database are no TARS configuration", unreadable.join(", "))
        }
        _ => format!("the database lacks {}, which this version may need", needed.join(", ")),
    };
    Err(Refusal::Migration { image: image.to_string(), why, needed })
}
