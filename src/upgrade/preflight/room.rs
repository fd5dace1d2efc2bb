//! Room on disks: where the engine keeps images, and beside the journals. That of a backup is asked with the backup itself.

use std::collections::{BTreeMap, BTreeSet};

use crate::deploy::Observed;
use crate::engine::EngineImage;
use crate::oci::Digest;
use crate::upgrade::Refusal;
use crate::upgrade::backup::size;
use crate::upgrade::finding::{About, Findings};
use crate::upgrade::step::{Action, Plan};

/// Without it no journal is written to its end.
const LEAST: u64 = 1 << 20;
/// What a migration saves may take as much.
const ENOUGH: u64 = 64 << 20;
/// How many times its compressed size an image may take unpacked, with what an engine puts aside while it loads.
const UNPACKED: u64 = 4;

/// Judges what a plan brings to the engine, and what it writes here.
pub(in crate::upgrade) fn judge(plan: &Plan, observed: &Observed, findings: &mut Findings) {
    let room = observed.facts.room;
    let needs = to_load(plan, observed);
    match room.engine {
        _ if needs == 0 => {}
        Some(has) if has < needs => findings.refuse(Refusal::NoRoom {
            place: format!("the engine ({})", observed.engine.data_root),
            what: "the images to load".to_owned(),
            has: size(has),
            needs: size(needs),
        }),
        Some(has) if has < needs.saturating_mul(UNPACKED) => findings.note(
            About::Room,
            format!(
                "the engine has room for {}; the images to load are {} compressed, and take several times that unpacked",
                size(has),
                size(needs)
            ),
        ),
        None if observed.engine_images().next().is_some() => findings.note(
            About::Room,
            format!("whether the engine has room for {} of images to load is not known", size(needs)),
        ),
        _ => {}
    }
    match room.state {
        Some(has) if has < LEAST && !plan.is_empty() => findings.refuse(Refusal::NoRoom {
            place: "the folder `.tarsup` beside the deployment file".to_owned(),
            what: "the journal".to_owned(),
            has: size(has),
            needs: size(LEAST),
        }),
        Some(has) if has < ENOUGH && changes_the_database(plan) => findings.note(
            About::Room,
            format!(
                "`.tarsup` has room for {}, and what the migration changes is saved there first",
                size(has)
            ),
        ),
        _ => {}
    }
}

fn changes_the_database(plan: &Plan) -> bool {
    plan.steps.iter().any(|step| matches!(step.action, Action::Task { .. }))
}

/// The bytes of the layers that the engine lacks, as they are stored.
fn to_load(plan: &Plan, observed: &Observed) -> u64 {
    let has: BTreeSet<Digest> = observed.engine_images().flat_map(|image| image.diff_ids.clone()).collect();
    let mut layers: BTreeMap<Digest, u64> = BTreeMap::new();
    for step in &plan.steps {
        let Action::Load { image, .. } = &step.action else { continue };
        let Some(image) = observed.image(&image.to_string()) else { continue };
        layers.extend(sizes(image).filter(|(layer, _)| !has.contains(layer)));
    }
    layers.values().sum()
}

/// Each layer with its size; where the sizes are not known, a share of the whole.
fn sizes(image: &EngineImage) -> impl Iterator<Item = (Digest, u64)> {
    let share = image.size / u64::try_from(image.diff_ids.len().max(1)).unwrap_or(1);
    let known = image.layer_sizes.clone();
    image
        .diff_ids
        .iter()
        .copied()
        .enumerate()
        .map(move |(at, layer)| (layer, known.get(at).copied().unwrap_or(share)))
        .collect::<Vec<_>>()
        .into_iter()
}
