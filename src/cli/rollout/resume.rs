//! `tarsup resume`: a deploy that was interrupted, undone, finished, or carried out to its end.

use std::sync::Arc;

use clap::Args;
use serde_json::json;

use super::super::{Outcome, Ui};
use super::{ChangeOptions, Operator, StoredImages, connect, run, told_to_stop};
use crate::deploy::Desired;
use crate::diagnose::Exit;
use crate::engine::Engine;
use crate::upgrade::{Deploy, ResumeOptions, Resumed, render};

/// Go on with a deploy that was interrupted: undo it, or finish it if it was committed
#[derive(Debug, Args)]
pub struct ResumeArgs {
    /// Carry out the rest of it instead of undoing it
    #[arg(long)]
    forward: bool,

    /// Take it over from another host: nobody works on it there any more
    #[arg(long)]
    take_over: bool,

    /// With --forward: let this service look for its data elsewhere from now on; what is where it lies now stays behind
    #[arg(long, value_name = "SERVICE", requires = "forward")]
    accept_data_move: Vec<String>,

    /// With --forward: migrate without a backup, where none is made yet: there is another one
    #[arg(long, requires = "forward")]
    no_backup: bool,

    #[command(flatten)]
    change: ChangeOptions,
}

/// Goes on with an interrupted deploy.
pub fn resume(args: &ResumeArgs, ui: &Ui) -> Outcome {
    let desired = args.change.desired(ui)?;
    run(ui, async {
        let engine: Arc<dyn Engine> = Arc::new(connect(&args.change.confirm.deployment).await?);
        let stored = StoredImages::find(&desired, true)?;
        let operator = Operator::new(ui, &desired, engine.clone(), &stored);
        let (machine, stop) = (operator.machine(), told_to_stop());
        let deploy =
            Deploy { engine: engine.as_ref(), machine, desired: &desired, stored: stored.shown(), stop };
        let options = ResumeOptions {
            forward: args.forward,
            take_over: args.take_over,
            accept_data_move: args.accept_data_move.clone(),
            accept_state_loss: args.change.accept_state_loss.clone(),
            no_backup: args.no_backup,
        };
        let preview = deploy.preview(&options).await?;
        let shown = preview.as_ref().map(|plan| {
            let way = if args.forward { "rest of" } else { "undo" };
            render::titled(plan, &format!("{way} {}", plan.intent.word()))
        });
        if args.change.confirm.dry_run {
            return match &preview {
                Some(plan) => {
                    ui.result(shown.unwrap_or_default().trim_end());
                    ui.json(&plan.document());
                    Ok(Exit::Done)
                }
                None => Ok(nothing_to_resume(&desired, &[], ui)),
            };
        }
        if let Some(plan) = &preview {
            ui.note(shown.unwrap_or_default().trim_end());
            let way = if args.forward { "Go on with" } else { "Undo or finish" };
            ui.confirm(&format!("{way} the deploy {}?", plan.id), args.change.confirm.yes)?;
        }
        let done = deploy.resume(&options).await?;
        let (deploy, outcome) = match &done {
            Resumed::Nothing(disagreements) => return Ok(nothing_to_resume(&desired, disagreements, ui)),
            Resumed::Untouched(id) => {
                (id.clone(), "it had changed no container; the deployment is free again")
            }
            Resumed::Finished(id) => (id.to_string(), "it was committed, and is finished now"),
            Resumed::Undone(id) => (id.to_string(), "it is rolled back; the schema of the database is not"),
            Resumed::Completed(id) => (id.to_string(), "it is completed"),
        };
        ui.result(&format!("deploy {deploy}: {outcome}"));
        ui.json(&json!({"id": deploy, "outcome": word(&done)}));
        Ok(Exit::Done)
    })
}

fn word(done: &Resumed) -> &'static str {
    match done {
        Resumed::Nothing(_) => "nothing",
        Resumed::Untouched(_) => "untouched",
        Resumed::Finished(_) => "finished",
        Resumed::Undone(_) => "rolled-back",
        Resumed::Completed(_) => "completed",
    }
}

/// Where engine and file disagree all the same, that is a finding, and not nothing.
fn nothing_to_resume(desired: &Desired, disagreements: &[String], ui: &Ui) -> Exit {
    if disagreements.is_empty() {
        ui.result(&format!("{}: nothing to resume", desired.deployment));
    } else {
        let list = disagreements.join("\n  ");
        ui.result(&format!(
            "{}: no deploy was interrupted, but the engine is not as the file says:\n  {list}\n  hint: `tarsup up` makes \
             the engine match the file; `tarsup upgrade --to VERSION` brings the file in line with what runs",
            desired.deployment
        ));
    }
    ui.json(&json!({"id": null, "outcome": "nothing", "disagreements": disagreements}));
    if disagreements.is_empty() { Exit::Done } else { Exit::Finding }
}
