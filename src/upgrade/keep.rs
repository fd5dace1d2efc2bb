//! Before the master becomes a container without tars-init again, such as one of upstream's: its web console brings tables to
//! the shape of its own models, and nobody can ask or hold it back. So the image that leaves copies first what that may drop.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use super::DeployId;
use super::cluster_probe::{close, make};
use super::names::{keep_name, preview_name};
use super::one_off::OneOff;
use super::plan::Planner;
use super::run::Runner;
use super::state::{is_fresh, is_up};
use super::step::{Action, Purpose, Step, Task};
use crate::deploy::desired::Service;
use crate::deploy::{Desired, guard};
use crate::engine::{Container, Engine};
use crate::tars::Role;
use crate::tars::catalogue::INIT_PATH;

/// What is run before the plan is shown.
const QUESTION: [&str; 4] = [INIT_PATH, "keep-columns", "--all", "--dry-run"];
/// How long the answer may take: every table is counted.
const TIMEOUT: Duration = Duration::from_mins(2);
/// `tars-init`: not understood, as by an older one.
const USAGE: i64 = 64;
/// `tars-init`: something cannot be kept; the document names it.
const NOT_WHOLE: i64 = 78;
/// How many tables a plan shows.
const SHOWN: usize = 30;

/// What comes back.
pub(super) struct Leads<'a> {
    /// Its image.
    pub image: &'a str,
    /// The engine's `Config` of it.
    pub config: &'a Value,
    /// True where it runs already.
    pub is_up: bool,
}

/// One run of the image that leaves, right before its container is stopped; nothing where the one that comes back has a
/// tars-init, or runs already.
pub(super) fn steps(
    planner: &mut Planner<'_>,
    service: &Service,
    to: &Leads<'_>,
    old: Option<&Container>,
) -> Vec<Step> {
    if service.role != Some(Role::Master) || guard::has_our_start(to.config) || to.is_up {
        return Vec::new();
    }
    let Some(old) = old.filter(|old| guard::has_our_start(&old.raw["Config"])) else {
        planner.note(&service.name, "leaves no tars-init behind: what the web console drops is not kept");
        return Vec::new();
    };
    let name = keep_name(&planner.desired.deployment, planner.id);
    let found = planner.observed.container(&name);
    let cause = format!("{} has no tars-init: its web console may drop what it does not know", to.image);
    let is_done = found.is_some_and(|found| !is_up(found) && !is_fresh(found) && found.exit_code == 0);
    if is_done {
        return Vec::new();
    }
    let task = Task::Keep { from: old.image.clone(), to: to.image.to_owned() };
    let one_off = OneOff {
        service,
        name,
        cause,
        image: old.image.parse().unwrap_or_else(|_| service.image.clone()),
        image_id: Some(old.image_id.clone()),
        from: None,
        purpose: Purpose::Keep,
    };
    one_off.steps(found, Some(task))
}

/// What the same is on a way back: in the container that was made, while it runs. One that has ended has no way to do it, and
/// the way back waits for none.
pub(super) fn before_the_way_back(role: Option<Role>, made: &Container, old: &Container) -> Option<Action> {
    let has_init = |container: &Container| guard::has_our_start(&container.raw["Config"]);
    let may_drop = role == Some(Role::Master) && has_init(made) && !has_init(old) && !is_up(old);
    (may_drop && is_up(made))
        .then(|| Action::KeepColumns { container: made.name.clone(), to: old.image.clone() })
}

impl Runner<'_> {
    /// Has a container that runs keep it; what is not kept is a warning.
    pub(super) async fn keep_columns(&mut self, container: &str) {
        let why = match self.engine.exec(container, &QUESTION[..3], TIMEOUT).await {
            Ok(output) if output.exit_code == 0 => return,
            Ok(output) => {
                let document =
                    output.stdout.lines().last().and_then(|line| serde_json::from_str::<Value>(line).ok());
                let document = document.unwrap_or_default();
                let left = not_kept(&document).collect::<Vec<_>>().join(", ");
                if left.is_empty() { first_line(&output.stderr).to_owned() } else { left }
            }
            Err(error) => error.to_string(),
        };
        let why = self.mask.hide(&why);
        self.machine.reporter.say(&format!("warning: what the web console may drop is not kept: {why}"));
    }
}

fn first_line(said: &str) -> &str {
    said.lines().next().unwrap_or("it said nothing").trim_start_matches("tars-init: ")
}

/// What the run among `steps` would keep.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// For the plan, a line each.
    pub notes: Vec<String>,
    /// What a person must say yes to.
    pub questions: Vec<String>,
    /// The document; nothing where none was given.
    pub document: Option<Value>,
}

/// Asks for it in a container beside the deployment; it sends nothing but questions.
pub(super) async fn ask(engine: &dyn Engine, desired: &Desired, deploy: &DeployId, steps: &[Step]) -> Told {
    let mut told = Told::default();
    let to = steps.iter().find_map(|step| match &step.action {
        Action::Task { task: Task::Keep { to, .. }, .. } => Some(to),
        _ => None,
    });
    let leaving = steps.iter().find_map(|step| match &step.action {
        Action::Create { image_id: Some(id), purpose: Purpose::Keep, .. } => {
            Some((desired.service(step.service.as_deref()?)?, id))
        }
        _ => None,
    });
    let (Some(to), Some((service, id))) = (to, leaving) else { return told };
    let name = preview_name(&desired.deployment, deploy);
    let asked = async {
        make(engine, desired, service, id, &name).await.map_err(|error| error.to_string())?;
        engine.exec(&name, &QUESTION, TIMEOUT).await.map_err(|error| error.to_string())
    }
    .await;
    if let Err(error) = close(engine, &desired.deployment, &name).await {
        told.notes.push(format!("{name} is not removed: {error}"));
    }
    let unknown =
        |why: &str| format!("what the web console of {to} may drop is not known before it is kept: {why}");
    let output = match asked {
        Ok(output) => output,
        Err(why) => {
            told.notes.push(unknown(&why));
            return told;
        }
    };
    let said = first_line(&output.stderr);
    let document = output.stdout.lines().last().and_then(|line| serde_json::from_str::<Value>(line).ok());
    match document.filter(|document| document.is_object() && [0, NOT_WHOLE].contains(&output.exit_code)) {
        Some(document) => {
            told.notes.extend(lines(&document).into_iter().map(|line| {
                format!("the web console of {to} may drop, and is kept in `tarsup` before: {line}")
            }));
            told.notes.extend(
                template_lines(&document)
                    .into_iter()
                    .map(|line| format!("the start of {to} takes nothing back, so the image that leaves {line}")),
            );
            told.questions.extend(not_kept(&document).map(|what| {
                format!("{NOT_KEPT} {what}: the web console of {to} may drop it with its values. Go on all the same?")
            }));
            told.document = Some(document);
        }
        None if output.exit_code == USAGE => told.questions.push(format!(
            "{NOTHING_KEPT} the web console of {to} may drop: the image that leaves has an older tars-init ({said}). Go on all the same?"
        )),
        None => told.notes.push(unknown(said)),
    }
    told
}

/// How the questions begin.
const NOT_KEPT: &str = "Not kept is";
const NOTHING_KEPT: &str = "Nothing is kept of what";

/// True where a person has said yes to what a run that ended with `code` did not keep.
pub(super) fn is_accepted(code: i64, document: &Value, questions: &[String]) -> bool {
    let has = |begins: &str| questions.iter().any(|question| question.starts_with(begins));
    match code {
        USAGE => has(NOTHING_KEPT),
        NOT_WHOLE => {
            let mut not_kept = not_kept(document).peekable();
            not_kept.peek().is_some() && not_kept.all(|what| has(&format!("{NOT_KEPT} {what}:")))
        }
        _ => false,
    }
}

/// The columns that are not kept, without the reason.
fn not_kept(document: &Value) -> impl Iterator<Item = &str> {
    let items = document["not_kept"].as_array().into_iter().flatten().filter_map(Value::as_str);
    items.map(|item| item.split(':').next().unwrap_or(item))
}

/// What becomes of template values that versions of ours brought, a line for each key.
pub(super) fn template_lines(document: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for (at, word, why) in
        [("back", "takes back", ""), ("stays", "leaves", ", as somebody has edited it since")]
    {
        for key in document["templates"][at].as_array().into_iter().flatten() {
            let text = |name: &str| key[name].as_str().unwrap_or_default();
            lines.push(format!(
                "{word} {} {}: {} → {}{why}",
                text("template"),
                text("key"),
                text("own"),
                text("shipped")
            ));
        }
    }
    lines
}

/// What the document keeps, a line for each table that has rows.
pub(super) fn lines(document: &Value) -> Vec<String> {
    let mut tables: BTreeMap<&str, (u64, BTreeSet<&str>)> = BTreeMap::new();
    for kept in document["kept"].as_array().into_iter().flatten() {
        let place = kept["column"].as_str().unwrap_or_default();
        let Some((table, column)) = place.rsplit_once('.') else { continue };
        let (rows, columns) = tables.entry(table).or_default();
        *rows = (*rows).max(kept["rows"].as_u64().unwrap_or_default());
        columns.insert(column);
    }
    let empty = tables.values().filter(|(rows, _)| *rows == 0).count();
    tables.retain(|_, (rows, _)| *rows > 0);
    let more = tables.len().saturating_sub(SHOWN);
    let mut lines: Vec<String> = tables
        .iter()
        .take(SHOWN)
        .map(|(table, (rows, columns))| {
            let columns: Vec<&str> = columns.iter().copied().collect();
            format!("{table} ({rows} rows): {}", columns.join(", "))
        })
        .collect();
    if more > 0 {
        lines.push(format!("{more} more tables, all of which are in --json"));
    }
    if empty > 0 {
        lines.push(format!("the columns of {empty} tables without rows"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_a_person_was_asked_about_may_be_lost() {
        let document = json!({"kept": [], "not_kept": ["d.t.a: it has no key", "d.t.b: it has no key"]});
        let asked = |what: &str| format!("{NOT_KEPT} {what}: it may drop it. Go on?");
        let questions = [asked("d.t.a"), asked("d.t.b")];
        assert!(is_accepted(NOT_WHOLE, &document, &questions));
        assert!(!is_accepted(NOT_WHOLE, &document, &questions[..1]));
        assert!(!is_accepted(NOT_WHOLE, &Value::Null, &questions), "it does not say what");
        assert!(!is_accepted(USAGE, &Value::Null, &questions));
        assert!(!is_accepted(69, &document, &questions));
    }

    #[test]
    fn what_is_kept_is_shown_by_table_and_those_without_rows_are_counted() {
        let kept = |column: &str, rows: u64| json!({"column": column, "rows": rows});
        let document =
            json!({"kept": [kept("d.t.b", 3), kept("d.t.a", 3), kept("d.u.a", 0), kept("d.v.a", 0)]});
        assert_eq!(lines(&document), ["d.t (3 rows): a, b", "the columns of 2 tables without rows"]);
    }
}
