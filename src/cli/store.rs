//! `tarsup store gc`, `verify` and `path`: what nobody needs goes, whether what lies there is what it should be, and where it lies.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;

use super::image::bytes;
use super::{Outcome, Ui};
use crate::diagnose::{Exit, first_few, shown};
use crate::store::gc::{Asked, Collected, Removed, Why};
use crate::store::{self, Damaged, Layout};
use crate::yaml;

/// Look after the local store and the cache of layers
#[derive(Debug, Args)]
pub struct StoreArgs {
    #[command(subcommand)]
    act: Act,
}

#[derive(Debug, Subcommand)]
enum Act {
    /// Remove what nobody needs any more: from the store each blob that no image needs, from the cache what was not used for long
    ///
    /// No image that has a name goes, and builds that run are waited for.
    Gc(GcArgs),
    /// Read every blob of the store and the cache; exit 6 where one is not what its name says, or is not there
    Verify,
    /// Where the store is
    Path,
}

#[derive(Debug, Args)]
struct GcArgs {
    /// What of the cache was used within so long stays: 12h, 30d, 4w; with 0 all of it goes
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = time)]
    older_than: Duration,

    /// Show what would go; remove nothing
    #[arg(long)]
    dry_run: bool,
}

fn time(text: &str) -> Result<Duration, String> {
    yaml::duration::parse(text).ok_or_else(|| "it is no time: write it as 12h, 30d or 4w".to_owned())
}

/// Does it.
pub fn store(args: &StoreArgs, ui: &Ui) -> Outcome {
    let (store, cache) = (store::local()?, store::cache_folder()?);
    match &args.act {
        Act::Gc(args) => return gc(&store, &cache, args, ui),
        Act::Verify => {}
        Act::Path => {
            ui.json(&json!({ "store": store.root(), "cache": cache }));
            ui.result(&store.root().display().to_string());
            return Ok(Exit::Done);
        }
    }
    let found = store::verify(&store, &cache)?;
    let damaged = |damaged: &Damaged| json!({ "file": damaged.path.to_string_lossy(), "why": damaged.why, "images": damaged.images });
    ui.json(&json!({
        "store": store.root(), "cache": cache, "blobs": found.blobs, "bytes": found.bytes,
        "damaged": found.damaged.iter().map(damaged).collect::<Vec<_>>(),
    }));
    for Damaged { path, why, images } in &found.damaged {
        let of = if images.is_empty() { String::new() } else { format!(" (of {})", first_few(images)) };
        ui.result(&format!("{}{of}: {}", shown(path), shown(why)));
    }
    if found.damaged.is_empty() {
        ui.result(&format!("{} blobs, {}: all are what their names say", found.blobs, bytes(found.bytes)));
        return Ok(Exit::Done);
    }
    ui.note("the next `tarsup build` of the image makes it again; what was copied is to be copied again");
    Ok(Exit::Finding)
}

fn gc(store: &Layout, cache: &Path, args: &GcArgs, ui: &Ui) -> Outcome {
    let waits = |folder: &Path| ui.note(&format!("{} is in use: what runs is waited for", shown(&folder)));
    let asked = Asked { older_than: args.older_than, dry_run: args.dry_run, waits: &waits };
    let Collected { removed, documents, freed } = store::gc::gc(store, cache, &asked)?;
    ui.json(&json!({
        "store": store.root(), "cache": cache, "dry_run": args.dry_run,
        "removed": removed, "documents": documents, "bytes": freed,
    }));
    let mut text = String::new();
    for Removed { file, bytes: size, why } in &removed {
        let why = match why {
            Why::Unreferenced => "no image needs it",
            Why::Unused => "not used for long",
            Why::Abandoned => "left by a run that was killed",
        };
        let _ = writeln!(text, "{}  {}, {why}", shown(file), bytes(*size));
    }
    let (go, free) = if args.dry_run { ("would go", "would be free") } else { ("went", "are free") };
    ui.result(&match removed.len() {
        0 if documents == 0 => "nothing is there that nobody needs".to_owned(),
        files => {
            format!("{text}{files} files and {documents} notes of the cache {go}: {} {free}", bytes(freed))
        }
    });
    Ok(Exit::Done)
}
