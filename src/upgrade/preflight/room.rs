//! Room on disks: where the engine keeps images, beside the journals, and in the local store. That of a backup is asked with the
//! backup itself.

use std::collections::{BTreeMap, BTreeSet};

use crate::deploy::Observed;
use crate::engine::{EngineImage, LayerSize};
use crate::oci::Digest;
use crate::upgrade::Refusal;
use crate::upgrade::backup::size;
use crate::upgrade::finding::{About, Findings};
use crate::upgrade::step::{Action, Plan};

/// Without it no journal is written to its end.
const LEAST: u64 = 1 << 20;
/// What a migration saves may take as much, and so may the next image in the store.
const ENOUGH: u64 = 64 << 20;
/// How many times its stored size a layer may take unpacked, where nobody can tell.
const UNPACKED: u64 = 3;
/// Of what is needed: blocks are larger than the ends of files, and a classic engine writes folders of its own.
const SPARE: u64 = 10;

/// What the engine is brought.
#[derive(Clone, Copy, Debug, Default)]
struct Needs {
    /// As it is sent, and put aside while it is unpacked.
    stored: u64,
    /// Unpacked, of the layers whose size is known.
    known: u64,
    /// Unpacked, of the others: a guess.
    guessed: u64,
}

impl Needs {
    /// What is needed for certain.
    fn least(self) -> u64 {
        self.stored.saturating_add(self.known)
    }

    /// What may be needed.
    fn most(self) -> u64 {
        let all = self.least().saturating_add(self.guessed);
        all.saturating_add(all / SPARE)
    }
}

/// Judges what a plan brings to the engine, and what it writes here.
pub(in crate::upgrade) fn judge(plan: &Plan, observed: &Observed, findings: &mut Findings) {
    engine(to_load(plan, observed), observed, findings);
    let room = &observed.facts.room;
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
    // A roll only reads it: this one goes on, and the next image would not come.
    if let Some((folder, has)) = room.store.as_ref().filter(|(_, has)| *has < ENOUGH && !plan.is_empty()) {
        findings.note(
            About::Room,
            format!(
                "the local store {folder} has room for {}: the next image that is built or copied into it may not fit",
                size(*has)
            ),
        );
    }
}

fn engine(needs: Needs, observed: &Observed, findings: &mut Findings) {
    if needs.stored == 0 {
        return;
    }
    match observed.facts.room.engine {
        Some(has) if has < needs.least() => findings.refuse(Refusal::NoRoom {
            place: format!("the engine ({})", observed.engine.data_root),
            what: if needs.known > 0 { "the images to load, with what they are unpacked," } else { "the images to load" }
                .to_owned(),
            has: size(has),
            needs: size(needs.least()),
        }),
        Some(has) if has < needs.most() => findings.note(
            About::Room,
            format!(
                "the engine has room for {}; the images to load are {} compressed, and with what they are unpacked may take {}",
                size(has),
                size(needs.stored),
                size(needs.most())
            ),
        ),
        // Whoever asks in a container there knows it; before the first one nobody does.
        None => findings.note(
            About::Room,
            format!(
                "whether the engine has room for {} of images to load is not known: {} cannot be looked at from \
                 this machine, and no container there has told",
                size(needs.most()),
                observed.engine.data_root
            ),
        ),
        _ => {}
    }
}

fn changes_the_database(plan: &Plan) -> bool {
    plan.steps.iter().any(|step| matches!(step.action, Action::Task { .. }))
}

/// The layers that the engine lacks.
fn to_load(plan: &Plan, observed: &Observed) -> Needs {
    let has: BTreeSet<Digest> = observed.engine_images().flat_map(|image| image.diff_ids.clone()).collect();
    let mut layers: BTreeMap<Digest, LayerSize> = BTreeMap::new();
    for step in &plan.steps {
        let Action::Load { image, .. } = &step.action else { continue };
        let Some(image) = observed.image(&image.to_string()) else { continue };
        layers.extend(sizes(image).filter(|(layer, _)| !has.contains(layer)));
    }
    let mut needs = Needs::default();
    for layer in layers.into_values() {
        needs.stored = needs.stored.saturating_add(layer.stored);
        match layer.unpacked {
            Some(known) => needs.known = needs.known.saturating_add(known),
            None => needs.guessed = needs.guessed.saturating_add(layer.stored.saturating_mul(UNPACKED)),
        }
    }
    needs
}

/// Each layer with its size; where the sizes are not known, a share of the whole.
fn sizes(image: &EngineImage) -> impl Iterator<Item = (Digest, LayerSize)> {
    let share = image.size / u64::try_from(image.diff_ids.len().max(1)).unwrap_or(1);
    let share = LayerSize { stored: share, unpacked: None };
    let known = &image.layer_sizes;
    image
        .diff_ids
        .iter()
        .enumerate()
        .map(move |(at, layer)| (*layer, known.get(at).copied().unwrap_or(share)))
}
