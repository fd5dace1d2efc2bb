//! `tarsup store verify` and `path`: whether what lies in the store is what it should be, and where it lies.

use clap::{Args, Subcommand};
use serde_json::json;

use super::image::bytes;
use super::{Outcome, Ui};
use crate::diagnose::{Exit, first_few, shown};
use crate::store::{self, Damaged};

/// Look after the local store and the cache of layers
#[derive(Debug, Args)]
pub struct StoreArgs {
    #[command(subcommand)]
    act: Act,
}

#[derive(Debug, Subcommand)]
enum Act {
    /// Read every blob of the store and the cache; exit 6 where one is not what its name says, or is not there
    Verify,
    /// Where the store is
    Path,
}

/// Does it.
pub fn store(args: &StoreArgs, ui: &Ui) -> Outcome {
    let (store, cache) = (store::local()?, store::cache_folder()?);
    match args.act {
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
