//! What a migration would change in the database: asked of the new image before anything is done, in a container beside
//! the deployment. It sends nothing but questions, and is no step of a plan.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::DeployId;
use super::Refusal;
use super::cluster_probe::{close, make};
use super::names::preview_name;
use super::record::lines_of;
use super::step::{Action, Purpose, Step};
use crate::deploy::Desired;
use crate::engine::Engine;
use crate::oci::Reference;
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
    /// The document; nothing where none was given.
    pub document: Option<Value>,
}

/// Asks for the migration among `steps`; nothing where there is none, or its image is not in the engine yet. `loaded` are the
/// ids of those that were loaded since the plan was made.
pub(super) async fn preview(
    engine: &dyn Engine,
    desired: &Desired,
    deploy: &DeployId,
    steps: &[Step],
    loaded: &BTreeMap<Reference, String>,
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
    let asked = async {
        make(engine, desired, service, id, &name).await.map_err(|error| error.to_string())?;
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
            return Ok(preview);
        }
    };
    let said = output.stderr.lines().next().unwrap_or("it said nothing").trim_start_matches("tars-init: ");
    let document = output.stdout.lines().last().and_then(|line| serde_json::from_str::<Value>(line).ok());
    match document.filter(|document| output.exit_code == 0 && document.is_object()) {
        Some(document) => {
            refuse(&document, image)?;
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
        None => preview.notes.push(unknown(said)),
    }
    Ok(preview)
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
