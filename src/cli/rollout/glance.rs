//! An offer at a glance: a table with a row for each container, and below it who is sent elsewhere and who gets no answer.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::super::image::bytes;
use super::super::table::aligned;
use crate::diagnose::first_few;
use crate::upgrade::length::Length;
use crate::upgrade::names::{Part, part_of};
use crate::upgrade::overview::{Overview, Row, Silence};
use crate::upgrade::step::{Action, Purpose};
use crate::upgrade::{Offer, Plan, render};

/// The offer as a person reads it first; with `steps` all of them, too.
pub fn glance(offer: &Offer, steps: bool) -> String {
    let Offer { plan, overview, edits, .. } = offer;
    if steps || plan.is_empty() || overview.containers.is_empty() {
        // What touches no container is nothing but its steps.
        let table = if overview.containers.is_empty() { String::new() } else { rows(overview) + "\n" };
        return table + &render::offer(offer);
    }
    let many = plan.steps.len();
    let mut text = format!(
        "{} {}: {}, deploy {}\n{}",
        plan.intent.word(),
        plan.deployment,
        counted(overview.containers.len(), "container"),
        plan.id,
        rows(overview)
    );
    for line in also(plan) {
        let _ = writeln!(text, "also: {line}");
    }
    text += &services(overview);
    text += &time(overview);
    for note in &plan.notes {
        let _ = writeln!(text, "note: {note}");
    }
    for question in &plan.questions {
        let _ = writeln!(text, "question: {question}");
    }
    for (service, image) in edits {
        let _ = writeln!(text, "file: `{service}` gets {image}");
    }
    let _ = writeln!(text, "the {} one by one: --steps", counted(many, "step"));
    text
}

fn counted(many: usize, what: &str) -> String {
    format!("{many} {what}{}", if many == 1 { "" } else { "s" })
}

fn rows(overview: &Overview) -> String {
    let headings = ["CONTAINER", "CHANGE", "IMAGE", "SILENT MEANWHILE", "TO LOAD", "WHY"];
    let mut cells = vec![headings.map(str::to_owned).to_vec()];
    cells.extend(overview.containers.iter().map(|row| {
        let load = row.load.map_or_else(|| "-".to_owned(), bytes);
        vec![row.container.clone(), row.change.to_owned(), image(row), silence(row), load, row.cause.clone()]
    }));
    aligned(&cells).into_iter().fold(String::new(), |text, line| text + "  " + &line + "\n")
}

/// `tars/framework:3.0.17 → 3.0.18`
fn image(row: &Row) -> String {
    match (&row.from, &row.to) {
        (Some(from), Some(to)) if from == to => to.clone(),
        (Some(from), Some(to)) => {
            let tag =
                |image: &str| image.rsplit_once(':').map(|(name, tag)| (name.to_owned(), tag.to_owned()));
            match (tag(from), tag(to)) {
                (Some((one, _)), Some((other, tag))) if one == other => format!("{from} → {tag}"),
                _ => format!("{from} → {to}"),
            }
        }
        (None, Some(one)) | (Some(one), None) => one.clone(),
        (None, None) => "-".to_owned(),
    }
}

fn silence(row: &Row) -> String {
    let who = match row.silence {
        Silence::No => return "-".to_owned(),
        Silence::Down => return "stays down".to_owned(),
        Silence::Covered => return "nothing".to_owned(),
        Silence::Own => "itself".to_owned(),
        Silence::Unknown => "not known".to_owned(),
        Silence::Registry(0) => "its registry".to_owned(),
        Silence::Registry(many) => format!("its registry and {}", counted(many, "service")),
        Silence::Services(many) => counted(many, "service"),
    };
    match row.last_silence {
        #[expect(clippy::cast_precision_loss, reason = "one digit is shown")]
        Some(last) => format!("{who} ({:.1} s the last time)", last as f64 / 1000.0),
        None => who,
    }
}

/// What is done beside the containers of the table.
fn also(plan: &Plan) -> Vec<String> {
    let is_shown = |action: &Action| match action {
        Action::Network { .. }
        | Action::Volume { .. }
        | Action::Backup { .. }
        | Action::Task { .. }
        | Action::KeepColumns { .. }
        | Action::Tag { .. }
        | Action::Release { .. }
        | Action::Create { purpose: Purpose::Serve, twin: Some(_), .. } => true,
        Action::Remove { container } => !matches!(part_of(container), Part::Migrate(_)),
        _ => false,
    };
    plan.steps.iter().filter(|step| is_shown(&step.action)).map(|step| render::line(&step.action)).collect()
}

/// Who is sent elsewhere, who gets no answer, and what stops with its container and is called by nobody.
fn services(overview: &Overview) -> String {
    let mut text = String::new();
    for (word, services, why) in [
        ("drained", &overview.drained, "clients are sent to what serves elsewhere"),
        ("silent", &overview.silent, "served nowhere else"),
        (
            "not drained",
            &overview.not_drained,
            "served elsewhere too, but clients go on calling until they ask anew",
        ),
        (
            "not drained",
            &overview.gaps,
            "no account at the database is named; whether others serve it is not known",
        ),
        ("stopped along", &overview.along, "called by nobody"),
    ] {
        if !services.is_empty() {
            let _ = writeln!(text, "{word}: {} ({why})", listed(services));
        }
    }
    text
}

/// `time: 1 min 10 s to 11 min ...`; nothing where nothing is waited for.
fn time(overview: &Overview) -> String {
    let Length { shortest, longest } = overview.time;
    if longest.is_zero() {
        return String::new();
    }
    let (shortest, longest) = (in_words(shortest), in_words(longest));
    format!(
        "time: {shortest} to {longest}, and what loads, backup and migration take (waits and time-outs)\n"
    )
}

/// `45 s`, `2 min`, `1 h 5 min`: not more than is of interest.
fn in_words(length: Duration) -> String {
    let seconds = length.as_secs();
    let (minutes, rest) = (seconds / 60, seconds % 60);
    match (minutes, rest) {
        (0, seconds) => format!("{seconds} s"),
        (1..10, 1..) => format!("{minutes} min {rest} s"),
        (1..60, _) => format!("{minutes} min"),
        _ => format!("{} h {} min", minutes / 60, minutes % 60),
    }
}

/// The business services first.
fn listed(services: &BTreeMap<String, Vec<String>>) -> String {
    let (framework, business): (Vec<_>, Vec<_>) =
        services.iter().partition(|(server, _)| server.starts_with("tars."));
    let each = business.into_iter().chain(framework);
    let each: Vec<String> =
        each.map(|(server, nodes)| format!("{server} on {}", nodes.join(" and "))).collect();
    first_few(&each)
}
