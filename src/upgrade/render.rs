//! A plan as a person reads it.

use std::fmt::Write as _;

use super::step::{Action, Plan, Purpose, Step};
use crate::oci::Reference;

/// The plan as text: what happens to each service and why, then the steps, numbered.
pub fn plan(plan: &Plan) -> String {
    let mut text = String::new();
    if plan.is_empty() {
        let _ = writeln!(text, "{}: nothing to do", plan.deployment);
    } else {
        let steps = plan.steps.len();
        let many = if steps == 1 { "" } else { "s" };
        let _ = writeln!(
            text,
            "{} {}: {steps} step{many}, deploy {}",
            plan.intent.word(),
            plan.deployment,
            plan.id
        );
    }
    steps(&mut text, &plan.steps);
    for note in &plan.notes {
        let _ = writeln!(text, "note: {note}");
    }
    text
}

/// Steps in groups: a headline where the service or the reason changes.
fn steps(text: &mut String, steps: &[Step]) {
    let mut service: Option<&Option<String>> = None;
    for (number, step) in steps.iter().enumerate() {
        if service != Some(&step.service) {
            let _ = writeln!(text, "{}", headline(step));
            service = Some(&step.service);
        }
        let _ = writeln!(text, "{:>4}  {}", number + 1, line(&step.action));
    }
}

fn headline(step: &Step) -> String {
    match &step.service {
        Some(service) => format!("{service}: {}", step.cause),
        None => step.cause.clone(),
    }
}

/// One step in words: imperative, with the names that the engine knows.
pub fn line(action: &Action) -> String {
    match action {
        Action::Load { image } => format!("load {image} from the local store"),
        Action::Network { name } => format!("create the network {name}"),
        Action::Volume { name } => format!("create the volume {name}"),
        Action::Create { name, image, image_id, purpose, .. } => {
            let what = if *purpose == Purpose::Migrate { " to migrate" } else { "" };
            format!("create {name} from {}{what}", identified(image, image_id.as_deref()))
        }
        Action::Connect { container, network } => format!("connect {container} to {network}"),
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
        Action::Migrate { container, from, to } => format!("run {container}: schema from {from} to {to}"),
        Action::SaveLogs { container } => format!("save the logs of {container}"),
        Action::Remove { container } => format!("remove {container}"),
    }
}

fn identified(image: &Reference, id: Option<&str>) -> String {
    let short = id.and_then(|id| id.strip_prefix("sha256:").unwrap_or(id).get(..12));
    short.map_or_else(|| image.to_string(), |short| format!("{image} ({short})"))
}
