//! What a migration brought into templates, put back where its deploy is undone: a master that comes back does so at its start, but
//! one that was never stopped does not start. What somebody has edited since stays.

use std::time::Duration;

use serde_json::Value;

use super::cluster_probe::{close, make};
use super::drive::{Deploy, ended, stuck};
use super::journal::Way;
use super::names::preview_name;
use super::record::{DeployRecord, lines_of};
use super::run::Runner;
use super::state::{by_id, is_up};
use super::step::{Action, Purpose, Step, Task};
use super::{DeployFailure, Intent, keep};
use crate::deploy::{Observed, guard};
use crate::engine::{Container, EngineError, ExecOutput};
use crate::tars::Role;
use crate::tars::catalogue::INIT_PATH;

/// What an image of ours brings into templates, it brings at each start and by this: the same comparison of three.
const BRING: [&str; 2] = [INIT_PATH, "migrate"];
const QUESTION: [&str; 3] = [INIT_PATH, "migrate", "--dry-run"];
/// For a master that has no tars-init: what versions of ours brought goes, as before a rollback to it.
const TAKE_BACK: [&str; 3] = [INIT_PATH, "templates", "take-back"];
/// How long one of them may take: they wait for each other.
const TIMEOUT: Duration = Duration::from_mins(2);

/// The step for it; nothing where the deploy migrates nothing. Who does it: the master that
/// was there before, else a slave, where it has a tars-init; else the image that migrated.
pub(super) fn step(observed: &Observed, record: &DeployRecord) -> Option<Step> {
    let plan = &record.plan;
    let migrates = |step: &&Step| matches!(step.action, Action::Task { task: Task::Migrate { .. }, .. });
    let of = plan.steps.iter().find(migrates).map(|step| step.service.clone());
    // An outline tells no steps.
    let may_have = plan.steps.is_empty() && matches!(plan.intent, Intent::Upgrade { .. } | Intent::Up);
    if of.is_none() && !may_have {
        return None;
    }
    let before = |role| {
        let touched = plan.touched.iter().filter(move |touched| touched.role == Some(role));
        let befores = touched.filter_map(|touched| touched.before.as_ref());
        let found = befores.filter_map(|before| by_id(observed, &before.id));
        found.filter(|container| is_up(container))
    };
    let has_init = |container: &&Container| guard::has_our_start(&container.raw["Config"]);
    let image_of_migration = || {
        plan.steps.iter().find_map(|step| match &step.action {
            Action::Create { image, purpose: Purpose::Migrate, .. } => Some(image.clone()),
            _ => None,
        })
    };
    let own = before(Role::Master).chain(before(Role::Slave)).find(has_init);
    let (container, image) = match own {
        Some(container) => (Some(container.name.clone()), None),
        None => (None, Some(image_of_migration().filter(|_| before(Role::Master).next().is_some())?)),
    };
    let cause = "the migration may have changed templates".to_owned();
    Some(Step { service: of.flatten(), cause, action: Action::TakeBack { container, image } })
}

impl Deploy<'_> {
    /// Carries that step out, last: nothing of what comes back waits for it.
    pub(super) async fn take_back(&self, runner: &mut Runner<'_>) -> Result<(), DeployFailure> {
        if !runner.may_have_migrated {
            return Ok(());
        }
        let observed = self.look(runner).await?;
        let Some(step) = step(&observed, &runner.record) else { return Ok(()) };
        match runner.run(Way::Undo, &[step], 1, 1).await {
            Ok(()) => Ok(()),
            Err(failed) => Err(ended(runner, failed.number, &failed.source)
                .unwrap_or_else(|| stuck(runner, failed.to_string()))),
        }
    }
}

impl Runner<'_> {
    /// Has it done; what fails is a warning, as the way back must not hang on a database.
    pub(super) async fn take_back(&mut self, step: &Step) {
        let Action::TakeBack { container, image } = &step.action else { return };
        let told = match (container, image) {
            (Some(container), _) => self.bring_back(container).await,
            (None, Some(image)) => self.take_back_beside(step, &image.to_string()).await,
            (None, None) => return,
        };
        match told {
            Ok(lines) => {
                for line in lines {
                    let line = self.mask.hide(&line);
                    self.machine.reporter.say(&format!("       templates: {line}"));
                    self.put_back.push(format!("templates: {line}"));
                }
            }
            Err(why) => {
                let why = self.mask.hide(&why);
                let next = if container.is_some() {
                    "the next start of the master puts it back, unless it is edited"
                } else {
                    "`tarsup templates` shows it"
                };
                let text = format!("what the migration changed in templates is not put back: {why}; {next}");
                self.machine.reporter.say(&format!("warning: {text}"));
                self.put_back.push(text);
            }
        }
    }

    /// In a container of the image that was there before, which runs. It is asked first: it waits for no database then, and
    /// mostly there is nothing to be done.
    async fn bring_back(&self, container: &str) -> Result<Vec<String>, String> {
        let asked = self.engine.exec(container, &QUESTION, TIMEOUT).await;
        if template_lines(&document(asked)?).is_empty() {
            return Ok(Vec::new());
        }
        let done = self.engine.exec(container, &BRING, TIMEOUT).await;
        Ok(template_lines(&document(done)?))
    }

    /// In a container beside the deployment, of the image that migrated.
    async fn take_back_beside(&self, step: &Step, image: &str) -> Result<Vec<String>, String> {
        let service = step.service.as_deref().and_then(|name| self.desired.service(name));
        let service = service.ok_or("its service is not declared any more")?;
        let name = preview_name(&self.desired.deployment, &self.deploy);
        let done = async {
            close(self.engine, &self.desired.deployment, &name).await?;
            make(self.engine, self.desired, service, image, &name).await?;
            self.engine.exec(&name, &TAKE_BACK, TIMEOUT).await
        }
        .await;
        if let Err(error) = close(self.engine, &self.desired.deployment, &name).await {
            self.machine.reporter.say(&format!("warning: {name} is not removed: {error}"));
        }
        Ok(keep::template_lines(&document(done)?))
    }
}

/// The document that a run ended with; else its words.
fn document(ran: Result<ExecOutput, EngineError>) -> Result<Value, String> {
    let output = ran.map_err(|error| error.to_string())?;
    let last = output.stdout.lines().last().and_then(|line| serde_json::from_str::<Value>(line).ok());
    let said = || output.stderr.lines().next().unwrap_or("it said nothing").trim_start_matches("tars-init: ");
    last.filter(|document| output.exit_code == 0 && document.is_object()).ok_or_else(|| said().to_owned())
}

/// What became of the keys that versions brought: those that follow the older one again, and those that were edited since.
fn template_lines(document: &Value) -> Vec<String> {
    let keys = |key: &str| document["templates"][key].clone();
    let only = serde_json::json!({"templates": {"changed": keys("changed"), "conflicts": keys("conflicts")}});
    lines_of(&only)
}
