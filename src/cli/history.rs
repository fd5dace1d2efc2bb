//! `tarsup history`: what was deployed when, by whom, and how it went; read from the journals alone.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use super::options::DeploymentOptions;
use super::table::aligned;
use super::{Failure, Outcome, Ui};
use crate::deploy::compose::{LoadOptions, directory};
use crate::diagnose::{Diagnose, Exit};
use crate::store::StoreError;
use crate::upgrade::DeployId;
use crate::upgrade::journal::{self, DeployState, Summary, Way};
use crate::upgrade::seen::{Done, Seen, seen};

/// List the deploys, the latest first
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct HistoryArgs {
    #[command(subcommand)]
    what: Option<HistoryCommand>,

    /// How many; 0 for all
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
    limit: usize,

    #[command(flatten)]
    deployment: DeploymentOptions,
}

/// What of it.
#[derive(Debug, Subcommand)]
enum HistoryCommand {
    /// Show one deploy: who got no answer for how long, what was drained, each step with its time
    Show(ShowArgs),
}

/// Which deploy.
#[derive(Debug, Args)]
struct ShowArgs {
    /// The deploy (default: the newest)
    #[arg(value_name = "DEPLOY")]
    deploy: Option<DeployId>,

    #[command(flatten)]
    deployment: DeploymentOptions,
}

/// There is no such deploy.
#[derive(Debug, thiserror::Error)]
enum HistoryError {
    #[error("{state}: the journal of {deploy} is not there")]
    Unknown { state: String, deploy: DeployId },
    #[error("{state}: there is no journal yet")]
    None { state: String },
}

impl Diagnose for HistoryError {
    fn exit(&self) -> Exit {
        Exit::Usage
    }

    fn hint(&self) -> Option<String> {
        Some("`tarsup history` lists those whose journal is on this machine".to_owned())
    }
}

fn state_of(options: &DeploymentOptions) -> Result<PathBuf, Failure> {
    let options = LoadOptions::from_process(options.files.clone(), options.project.clone());
    Ok(directory(&options)?.join(".tarsup"))
}

/// Shows one.
fn show(args: &ShowArgs, ui: &Ui) -> Outcome {
    let state = state_of(&args.deployment)?;
    let path = path_of(&state, args.deploy.as_ref())?;
    let read = |source| StoreError::Io { act: "read", path: path.clone(), source };
    let (header, lines) = journal::read(&path).map_err(read)?;
    let seen = seen(&header, &lines);
    let summary = journal::summarise(header, &lines);
    let mut text = format!("{}\n{}", history_line(&summary), seen.text());
    let _ = writeln!(text, "  {:.1} s in all\n", seen.seconds);
    let steps: Vec<Vec<String>> = seen.steps.iter().map(step_cells).collect();
    ui.result(&(text + &aligned(&steps).join("\n")));
    ui.json(&document(&summary, &seen));
    Ok(Exit::Done)
}

fn document(summary: &Summary, seen: &Seen) -> serde_json::Value {
    let mut document = json!(summary);
    for (key, value) in [
        ("seconds", json!(seen.seconds)),
        ("containers", json!(seen.containers)),
        ("drained", json!(seen.services)),
        ("steps", json!(seen.steps)),
    ] {
        document[key] = value;
    }
    document
}

fn step_cells(done: &Done) -> Vec<String> {
    let mark = match done.way {
        Way::Do => "",
        Way::Undo => "undo ",
        Way::Finish => "clear away ",
    };
    let seconds = done.seconds.map_or_else(|| "not ended".to_owned(), |seconds| format!("{seconds:.1} s"));
    let time = done.at.get(11..19).unwrap_or(&done.at).to_owned();
    let container = done.container.clone().unwrap_or_default();
    let error = done.error.as_deref().and_then(|error| error.lines().next()).unwrap_or_default().to_owned();
    vec![time, format!("{seconds:>8}"), format!("{mark}{}", done.kind), container, error]
}

/// The journal of a deploy, or the newest one.
fn path_of(state: &Path, deploy: Option<&DeployId>) -> Result<PathBuf, Failure> {
    let read = |source| StoreError::Io { act: "read", path: state.join("deploys"), source };
    let shown = || state.display().to_string();
    let Some(deploy) = deploy else {
        let newest = journal::newest(state).map_err(read)?;
        return newest.ok_or_else(|| HistoryError::None { state: shown() }.into());
    };
    let path = state.join("deploys").join(format!("{deploy}.jsonl"));
    if path.is_file() {
        return Ok(path);
    }
    Err(HistoryError::Unknown { state: shown(), deploy: deploy.clone() }.into())
}

/// Lists deploys. It reads the journals alone: no engine, and no deployment file that can be understood, is needed.
pub fn history(args: &HistoryArgs, ui: &Ui) -> Outcome {
    if let Some(HistoryCommand::Show(args)) = &args.what {
        return show(args, ui);
    }
    let state = state_of(&args.deployment)?;
    let read = |source| StoreError::Io { act: "read", path: state.join("deploys"), source };
    let mut deploys: Vec<Summary> = Vec::new();
    for deploy in journal::history(&state).map_err(read)? {
        match deploy {
            Ok(summary) => deploys.push(summary),
            Err((path, error)) => {
                ui.warn(&format!("{}: not a journal that can be read: {error}", path.display()));
            }
        }
    }
    deploys.reverse();
    if args.limit > 0 {
        deploys.truncate(args.limit);
    }
    let lines: Vec<String> = deploys.iter().map(history_line).collect();
    ui.result(&if lines.is_empty() { "no deploys yet".to_owned() } else { lines.join("\n") });
    ui.json(&json!({ "deploys": deploys }));
    Ok(Exit::Done)
}

fn history_line(deploy: &Summary) -> String {
    let state = match deploy.state {
        DeployState::Open => "not finished",
        DeployState::Interrupted => "interrupted",
        DeployState::Committed => "committed",
        DeployState::RolledBack => "rolled back",
        DeployState::Stuck => "stuck",
    };
    let header = &deploy.header;
    let mut line = format!("{}  {state:<12}  {}  by {}", header.deploy, header.what, header.by);
    if !deploy.services.is_empty() {
        let _ = write!(line, "  ({})", deploy.services.join(", "));
    }
    if let Some(error) = &deploy.error {
        let _ = write!(line, "\n    {}", error.lines().next().unwrap_or_default());
    }
    if let Some(path) = &deploy.backup {
        let _ = write!(line, "\n    the database as it was: {path}");
    }
    for file in &deploy.saved {
        let _ = write!(line, "\n    what its migration changed, as it was: .tarsup/deploys/{file}");
    }
    line
}
