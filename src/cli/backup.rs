//! `tarsup backup` and `tarsup restore`: a backup of the database by hand, the list of those that there are, and the way back.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::framework::{ask, running_master};
use super::image::bytes;
use super::options::{ConfirmOptions, DeploymentOptions};
use super::rollout::{Operator, STATE, StoredImages, connect, desired, new_id, run, told_to_stop};
use super::{Outcome, Ui};
use crate::deploy::Desired;
use crate::deploy::desired::BackupWay;
use crate::deploy::observe::observe;
use crate::diagnose::Exit;
use crate::engine::Engine;
use crate::store::StoreError;
use crate::upgrade::Deploy;
use crate::upgrade::backup::restore::{Opened, Target, nothing_runs, refuse_living};
use crate::upgrade::backup::shelf::{Kept, Shelf};
use crate::upgrade::backup::{BackupError, Place, look, make};

/// Save the database to this machine, or list what was saved
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// `list`: the backups that there are, the latest first (default: make one now)
    #[arg(value_enum)]
    what: Option<What>,

    #[command(flatten)]
    deployment: DeploymentOptions,

    /// Show what would be saved, and save nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    List,
}

/// Put a backup of the database back, while nothing of the framework runs
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The backup: a file, or its name in `tarsup backup list`
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Replace what is in this schema, which holds tables; repeatable. --yes does not say that
    #[arg(long, value_name = "SCHEMA")]
    over: Vec<String>,

    #[command(flatten)]
    confirm: ConfirmOptions,
}

/// Where a command has its backup made, and the command in words, as lock, journal and history have it.
pub fn way(no_backup: bool, words: String) -> (String, BackupWay) {
    if no_backup { (format!("{words} --no-backup"), BackupWay::None) } else { (words, BackupWay::default()) }
}

fn shelf(desired: &Desired) -> Shelf {
    Shelf::of(desired, &desired.directory.join(STATE))
}

/// Where the tools are: where the container has none, in the image that is named.
async fn place(engine: &dyn Engine, desired: &mut Desired) -> Result<Place, super::Failure> {
    let place = Place::of(desired)?;
    if let (Place::Container(_), Some(image)) = (&place, &desired.policy.backup.image) {
        let stop = told_to_stop();
        if let Err(BackupError::NoTool { .. }) = look(engine, desired, &new_id(), &place, stop).await {
            let image = image.clone();
            desired.policy.backup.way = BackupWay::Image;
            return Ok(Place::Image(image));
        }
    }
    Ok(place)
}

/// Makes one, or lists them.
pub fn backup(args: &BackupArgs, ui: &Ui) -> Outcome {
    let mut desired = desired(&args.deployment, ui)?;
    if args.what == Some(What::List) {
        return list(&desired, ui);
    }
    run(ui, async {
        let engine: Arc<dyn Engine> = Arc::new(connect(&args.deployment).await?);
        let place = place(engine.as_ref(), &mut desired).await?;
        let id = new_id();
        if args.dry_run {
            let told = look(engine.as_ref(), &desired, &id, &place, told_to_stop()).await?;
            let folder = shelf(&desired).folder().to_owned();
            ui.result(&format!("would save {} of {} in {}", told.words(), told.server, folder.display()));
            ui.json(&json!({"deployment": desired.deployment, "schemas": told.schemas, "bytes": told.bytes}));
            return Ok(Exit::Done);
        }
        let stored = StoredImages::default();
        let operator = Operator::new(ui, &desired, engine.clone(), &stored);
        let (machine, stop) = (operator.machine(), told_to_stop());
        let made = make(engine.as_ref(), machine, &desired, &id, "backup", &place, stop).await?;
        match made {
            Some(made) => {
                ui.result(made["path"].as_str().unwrap_or_default());
                ui.json(&json!({"deployment": desired.deployment, "backup": made}));
            }
            None => ui.json(&json!({"deployment": desired.deployment, "backup": null})),
        }
        Ok(Exit::Done)
    })
}

fn list(desired: &Desired, ui: &Ui) -> Outcome {
    let shelf = shelf(desired);
    let read = |source| StoreError::Io { act: "read", path: shelf.folder().to_owned(), source };
    let (mut kept, unreadable) = shelf.list(&desired.deployment).map_err(read)?;
    for (path, error) in unreadable {
        ui.warn(&format!("{}: not a backup that can be read: {error}", path.display()));
    }
    kept.reverse();
    let lines: Vec<String> = kept.iter().map(line).collect();
    ui.result(&if lines.is_empty() { "no backups yet".to_owned() } else { lines.join("\n") });
    ui.json(&json!({"deployment": desired.deployment, "folder": shelf.folder(), "backups": kept}));
    Ok(Exit::Done)
}

fn line(kept: &Kept) -> String {
    let header = &kept.header;
    let names: Vec<&str> = header.schemas.iter().map(|schema| schema.name.as_str()).collect();
    let name = kept.path.file_name().unwrap_or_default().to_string_lossy();
    format!(
        "{name}  {:>9}  {}  before `{}` by {}",
        bytes(kept.bytes),
        names.join(", "),
        header.what,
        header.by
    )
    .replace("before `backup` by", "by")
}

/// Move the rows of a node whose address changed: in the master, after a backup
#[derive(Debug, Args)]
pub struct ReaddressArgs {
    /// The address or name that the node had
    #[arg(value_name = "OLD")]
    old: String,

    /// The one that it has now
    #[arg(value_name = "NEW")]
    new: String,

    #[command(flatten)]
    confirm: ConfirmOptions,

    /// Change the database without a backup: there is another one
    #[arg(long)]
    no_backup: bool,
}

/// Saves the database, and has the master's tars-init move the rows.
pub fn readdress(args: &ReaddressArgs, ui: &Ui) -> Outcome {
    let mut desired = desired(&args.confirm.deployment, ui)?;
    run(ui, async {
        let docker = connect(&args.confirm.deployment).await?;
        let master = running_master(&docker, &desired).await?;
        let counted = ask(&docker, &master, &["readdress", &args.old, &args.new, "--dry-run"]).await?;
        ui.note(&moved(&counted, "would move"));
        if args.confirm.dry_run {
            ui.json(&counted);
            return Ok(Exit::Done);
        }
        let engine: Arc<dyn Engine> = Arc::new(docker.clone());
        let place = if args.no_backup { None } else { Some(place(engine.as_ref(), &mut desired).await?) };
        ui.confirm(&format!("Move the rows of {} to {}?", args.old, args.new), args.confirm.yes)?;
        let stored = StoredImages::default();
        let operator = Operator::new(ui, &desired, engine.clone(), &stored);
        let (id, stop, machine) = (new_id(), told_to_stop(), operator.machine());
        let deploy = Deploy {
            engine: engine.as_ref(),
            machine,
            desired: &desired,
            stored: stored.shown(),
            stop: stop.clone(),
        };
        let word = if args.no_backup { " --no-backup" } else { "" };
        let what = format!("readdress {} {}{word}", args.old, args.new);
        let plan = json!({"kind": "readdress", "old": args.old, "new": args.new});
        let act = async {
            if let Some(place) = &place {
                make(engine.as_ref(), machine, &desired, &id, &what, place, stop).await?;
            }
            ask(&docker, &master, &["readdress", &args.old, &args.new]).await
        };
        let done = deploy.by_hand(&id, &what, plan, act).await??;
        ui.result(&moved(&done, "moved"));
        ui.note(&format!("restart the container of {}", args.new));
        ui.json(&done);
        Ok(Exit::Done)
    })
}

/// What was moved, or would be, a line each.
fn moved(document: &Value, verb: &str) -> String {
    let tables = document["tables"].as_array().into_iter().flatten();
    let line = |table: &Value| {
        let replaced = match table["replaced"].as_u64() {
            None | Some(0) => String::new(),
            Some(rows) => format!(", in the place of {rows}"),
        };
        format!("{verb} {} rows of {}{replaced}", table["moved"], table["table"].as_str().unwrap_or_default())
    };
    let lines: Vec<String> = tables.map(line).collect();
    if lines.is_empty() { format!("{verb} no row") } else { lines.join("\n") }
}

/// Puts one back.
pub fn restore(args: &RestoreArgs, ui: &Ui) -> Outcome {
    let mut desired = desired(&args.confirm.deployment, ui)?;
    let named = shelf(&desired).folder().join(&args.file);
    let path = if args.file.exists() { args.file.clone() } else { named };
    let opened = Opened::open(&path)?;
    opened.has(&args.over)?;
    let header = &opened.header;
    ui.note(&format!(
        "{}: a backup of `{}`, made {} by {}, whole and as it was written",
        path.display(),
        header.deployment,
        header.at,
        header.by
    ));
    if header.deployment != desired.deployment {
        ui.warn(&format!("it is of another deployment than `{}`", desired.deployment));
    }
    run(ui, async {
        let engine: Arc<dyn Engine> = Arc::new(connect(&args.confirm.deployment).await?);
        nothing_runs(&desired, &observe(engine.as_ref(), &desired).await?)?;
        let place = place(engine.as_ref(), &mut desired).await?;
        let (id, stop) = (new_id(), told_to_stop());
        let target =
            Target { engine: engine.as_ref(), desired: &desired, id: &id, place: &place, stop: stop.clone() };
        let living = target.living(header).await?;
        for schema in &header.schemas {
            let has =
                living.iter().find(|living| living.name == schema.name).map_or(0, |living| living.tables);
            let place =
                if has == 0 { "empty".to_owned() } else { format!("{has} tables, which are replaced") };
            ui.note(&format!("  {}: {} tables; in its place: {place}", schema.name, schema.tables));
        }
        let mut over = args.over.clone();
        if args.confirm.dry_run {
            refuse_living(&living, &over)?;
            ui.result(&format!("{}: nothing was done (--dry-run)", path.display()));
            ui.json(&json!({"deployment": desired.deployment, "file": path, "living": living}));
            return Ok(Exit::Done);
        }
        for schema in living.iter().filter(|schema| !args.over.contains(&schema.name)) {
            let question = format!("What is in {} now would be lost. Type its name to go on:", schema.name);
            if ui.typed(&question).is_some_and(|typed| typed == schema.name) {
                over.push(schema.name.clone());
            }
        }
        refuse_living(&living, &over)?;
        ui.confirm(&format!("Restore {}?", path.display()), args.confirm.yes)?;
        let stored = StoredImages::default();
        let operator = Operator::new(ui, &desired, engine.clone(), &stored);
        let deploy = Deploy {
            engine: engine.as_ref(),
            machine: operator.machine(),
            desired: &desired,
            stored: stored.shown(),
            stop,
        };
        let what = format!("restore {}", path.file_name().unwrap_or_default().to_string_lossy());
        let more = deploy.restore(&id, &what, &opened, &place, &over).await?;
        for name in more {
            ui.note(&format!("{name} keeps tables that are not in the backup: they are as they were"));
        }
        let seconds = ui.elapsed().as_secs_f32();
        ui.result(&format!(
            "restored {} in {seconds:.1} s; start the deployment with `tarsup up`",
            path.display()
        ));
        ui.json(&json!({"deployment": desired.deployment, "restored": path, "schemas": header.schemas}));
        Ok(Exit::Done)
    })
}
