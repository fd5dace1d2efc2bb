//! `tarsup prune`: what nobody needs any more goes.

use clap::Args;

use super::options::{AcceptOptions, ConfirmOptions};
use super::rollout::{Ask, ChangeOptions, change_deployment};
use super::{Outcome, Ui};

/// Remove parked and failed containers, and versions of images, beyond the number to keep
///
/// Never what runs, what the file or tarsup.lock names, what any container of the engine was made from, or, without --upstream, the last
/// container and image of upstream's. Volumes are never touched.
#[derive(Debug, Args)]
pub struct PruneArgs {
    /// How many parked containers of a service and versions of an image stay; default: keep_parked and keep_images of the file
    #[arg(long, value_name = "N")]
    keep: Option<usize>,

    /// The adopted containers of upstream's that are parked, and their images, too: no rollback leads back to upstream afterwards
    #[arg(long)]
    upstream: bool,

    #[command(flatten)]
    confirm: ConfirmOptions,
}

/// Removes it.
pub fn prune(args: &PruneArgs, ui: &Ui) -> Outcome {
    let change = ChangeOptions::without_clients(&args.confirm);
    change_deployment(
        &change,
        &Ask::Prune { keep: args.keep, foreign: args.upstream },
        &AcceptOptions::default(),
        false,
        ui,
    )
}
