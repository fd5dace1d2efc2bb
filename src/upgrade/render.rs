//! A plan as a person reads it.

use std::fmt::Write as _;

use super::names::{Part, part_of};
use super::offer::Offer;
use super::step::{Action, Plan, Purpose, Step, Task, TwinOf};
use crate::oci::Reference;

/// The plan as text: what happens to each service and why, with its steps, numbered.
pub fn plan(plan: &Plan) -> String {
    titled(plan, plan.intent.word())
}

/// What will be done, on the engine and in the file.
pub fn offer(offer: &Offer) -> String {
    let mut text = if offer.plan.is_empty() && !offer.edits.is_empty() {
        format!("{}: nothing to do on the engine\n", offer.plan.deployment)
    } else {
        plan(&offer.plan)
    };
    for (service, image) in &offer.edits {
        let _ = writeln!(text, "file: `{service}` gets {image}");
    }
    text
}

/// The same under another word than the command's, such as `undo upgrade`.
pub fn titled(plan: &Plan, title: &str) -> String {
    let mut text = String::new();
    if plan.is_empty() {
        let _ = writeln!(text, "{}: nothing to do", plan.deployment);
    } else {
        let steps = plan.steps.len();
        let many = if steps == 1 { "" } else { "s" };
        let _ = writeln!(text, "{title} {}: {steps} step{many}, deploy {}", plan.deployment, plan.id);
    }
    steps(&mut text, &plan.steps);
    for note in &plan.notes {
        let _ = writeln!(text, "note: {note}");
    }
    for question in &plan.questions {
        let _ = writeln!(text, "question: {question}");
    }
    text
}

/// Steps in groups: a headline where the service changes, with the reason for what is done to it.
fn steps(text: &mut String, steps: &[Step]) {
    let mut number = 0;
    for group in steps.chunk_by(|a, b| subject(a) == subject(b)) {
        let _ = writeln!(text, "{}{}", subject(&group[0]), reason(group));
        for step in group {
            number += 1;
            let _ = writeln!(text, "{number:>4}  {}", line(&step.action));
        }
    }
}

/// What a headline begins with.
fn subject(step: &Step) -> String {
    let migrates = step.action.container().is_some_and(|name| matches!(part_of(name), Part::Migrate(_)));
    match (&step.service, &step.action) {
        _ if is_keep(step) => "columns: ".to_owned(),
        _ if migrates => "migration: ".to_owned(),
        (Some(service), _) => format!("{service}: "),
        (None, Action::Network { name }) => format!("network {name}: "),
        (None, Action::Volume { name }) => format!("volume {name}: "),
        (None, Action::Load { image, .. }) => format!("image {image}: "),
        (None, Action::Backup { .. }) => "backup: ".to_owned(),
        (None, _) => String::new(),
    }
}

/// True for the steps of the run that keeps columns.
fn is_keep(step: &Step) -> bool {
    step.action.container().and_then(|name| name.rsplit('.').nth(1)) == Some("keep")
}

/// The reason for a group: why something is created, else why it is started, stopped, or what comes first.
fn reason(group: &[Step]) -> &str {
    let of = |kind: &str| group.iter().find(|step| step.action.kind() == kind);
    let step = ["create", "start", "stop"].into_iter().find_map(of).unwrap_or(&group[0]);
    &step.cause
}

/// One step in words: imperative, with the names that the engine knows.
pub fn line(action: &Action) -> String {
    match action {
        Action::Load { image, .. } => format!("load {image} from the local store"),
        Action::Network { name } => format!("create the network {name}"),
        Action::Volume { name } => format!("create the volume {name}"),
        Action::Create { name, image, image_id, twin: Some(TwinOf::Kept(was)), .. } => {
            format!("create {name} from {}, as {was} was", identified(image, image_id.as_deref()))
        }
        Action::Create { name, image, image_id, twin: Some(TwinOf::Container(_)), .. } => {
            format!(
                "create {name} from {}, a twin of what is replaced",
                identified(image, image_id.as_deref())
            )
        }
        Action::Create { name, image, image_id, purpose, .. } => {
            let what = match purpose {
                Purpose::Serve => "",
                Purpose::Migrate => " to migrate",
                Purpose::Finish => " to finish the migration",
                Purpose::Keep => " to keep columns",
            };
            format!("create {name} from {}{what}", identified(image, image_id.as_deref()))
        }
        Action::Tag { image_id, image } => format!("name {} {image} again", short(image_id)),
        Action::Release { image } => format!("let go of {image}"),
        Action::Connect { container, network, .. } => format!("connect {container} to {network}"),
        Action::SetRestart { container, from, to } => {
            let name = |name: &str| if name.is_empty() { "no".to_owned() } else { name.to_owned() };
            format!("restart policy of {container}: {} → {}", name(&from.name), name(&to.name))
        }
        Action::Stop { container, grace } => format!("stop {container} within {} s", grace.as_secs()),
        Action::Rename { container, to } => format!("rename {container} → {to}"),
        Action::Start { container } => format!("start {container}"),
        Action::Gate { container, timeout, dwell, .. } => {
            format!("gate: {container} healthy within {} s, and for {} s", timeout.as_secs(), dwell.as_secs())
        }
        Action::Drain { containers, client_refresh, drain_timeout, is_strict } => format!(
            "drain what serves in {} and elsewhere too: {} s for clients{}",
            containers.join(", "),
            client_refresh.as_secs(),
            if *is_strict {
                format!(", and nobody may call after {} s", drain_timeout.as_secs())
            } else {
                String::new()
            }
        ),
        Action::DrainAhead { containers, .. } => {
            format!("drain {} ahead: clients ask anew meanwhile", containers.join(", "))
        }
        Action::Undrain { containers } => format!("give back what was drained in {}", containers.join(", ")),
        Action::Look { container, timeout, .. } => {
            format!("see that {container} is well, within {} s", timeout.as_secs())
        }
        Action::Task { container, task: Task::Migrate { from, to, .. } } => {
            format!("run {container}: schema from {from} to {to}")
        }
        Action::Task { container, task: Task::Keep { to, .. } } => {
            format!("run {container}: keep what the web console of {to} may drop")
        }
        Action::KeepColumns { container, to } => {
            format!("in {container}: keep what the web console of {to} may drop")
        }
        Action::Task { container, task: Task::Finish { .. } } => {
            format!("run {container}: the rows of old protocols go")
        }
        Action::Backup { container: Some(container), .. } => {
            format!("save the database of {container} to this machine")
        }
        Action::Backup { image, .. } => {
            let image = image.as_ref().map(Reference::to_string).unwrap_or_default();
            format!("save the database to this machine, by the tool of {image}")
        }
        Action::TakeBack { container: Some(container), .. } => {
            format!("in {container}: put back what the migration changed in templates")
        }
        Action::TakeBack { image, .. } => {
            let image = image.as_ref().map(Reference::to_string).unwrap_or_default();
            format!("put back what the migration changed in templates, by {image}")
        }
        Action::Settle { container, within } => {
            format!("wait up to {} s for what may stop {container}", within.as_secs())
        }
        Action::Claim { name } => format!("hold the name {name}"),
        Action::SaveLogs { container } => format!("save the logs of {container}"),
        Action::Remove { container } => format!("remove {container}"),
    }
}

fn identified(image: &Reference, id: Option<&str>) -> String {
    id.map_or_else(|| image.to_string(), |id| format!("{image} ({})", short(id)))
}

fn short(id: &str) -> &str {
    let hex = id.strip_prefix("sha256:").unwrap_or(id);
    hex.get(..12).unwrap_or(hex)
}
