//! What nobody needs any more: parked and failed containers, and versions of images, beyond the number to keep.
//!
//! Never a volume; never what runs, what the file or `tarsup.lock` names, or what any container on the engine was made from. What is not
//! of tarsup's making only where that is asked for.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::plan::Planner;
use super::retire::{retire, retire_adopted};
use super::secure::released;
use super::step::{Action, Step};
use crate::deploy::Desired;
use crate::deploy::observed::Shelf;
use crate::engine::ImageSummary;
use crate::oci::Reference;
use crate::tars::catalogue::IMAGE_ROLE_LABEL;

/// The removals. `keep` takes the place of the policy's numbers; with `foreign` the last way back to what somebody else made goes too.
pub(super) fn plan(planner: &mut Planner<'_>, keep: Option<usize>, foreign: bool) {
    let mut desired = planner.desired.clone();
    if let Some(keep) = keep {
        desired.policy.keep_parked = keep;
        desired.policy.keep_images = keep;
    }
    let Some(shelf) = &planner.observed.shelf else { return };
    let mut steps = retire(&desired, planner.observed, planner.id);
    if foreign {
        let adopted = retire_adopted(&desired, planner.observed);
        let services: BTreeSet<String> =
            adopted.iter().filter_map(|step| step.service.as_ref().map(|name| format!("`{name}`"))).collect();
        if !services.is_empty() {
            let services = Vec::from_iter(services).join(", ");
            planner.plan.notes.push(format!(
                "{services}: the last container of upstream's goes; nothing leads back to it afterwards"
            ));
        }
        steps.extend(adopted);
    }
    let going: BTreeSet<&str> = steps
        .iter()
        .filter_map(|step| match &step.action {
            Action::Remove { container } => Some(container.as_str()),
            _ => None,
        })
        .collect();
    let needed: BTreeSet<String> = shelf
        .containers
        .iter()
        .filter(|(name, _)| !going.contains(name.as_str()))
        .map(|(_, id)| id.clone())
        .collect();
    let containers = going.len();
    let held = released(&desired, &needed, &shelf.images, foreign);
    let old = versions(&desired, shelf, &needed, &held);
    let images = held.len() + old.len();
    if shelf.pinned.is_none() {
        let text = "tarsup.lock cannot be read: no version of an image is removed";
        planner.plan.notes.push(text.to_owned());
    }
    steps.extend(held);
    steps.extend(old);
    if containers + images > 0 {
        planner.plan.notes.push(format!(
            "{containers} containers and {images} names of images go; no rollback leads to them afterwards"
        ));
    }
    planner.plan.steps.extend(steps);
}

/// The versions of the deployment's images that go: beyond the newest, and needed by nobody.
fn versions(desired: &Desired, shelf: &Shelf, needed: &BTreeSet<String>, released: &[Step]) -> Vec<Step> {
    let Some(pinned) = &shelf.pinned else { return Vec::new() };
    let let_go: BTreeSet<String> = released.iter().filter_map(|step| step.action.change().0).collect();
    let repositories: BTreeSet<String> =
        desired.services.iter().map(|service| service.image.familiar_name()).collect();
    let declared: BTreeSet<String> =
        desired.services.iter().map(|service| service.image.to_string()).collect();
    let mut of: BTreeMap<String, Vec<(Reference, &ImageSummary)>> = BTreeMap::new();
    for image in shelf.images.iter().filter(|image| image.labels.contains_key(IMAGE_ROLE_LABEL)) {
        for name in image.tags.iter().filter_map(|tag| tag.parse::<Reference>().ok()) {
            if repositories.contains(&name.familiar_name()) {
                of.entry(name.familiar_name()).or_default().push((name, image));
            }
        }
    }
    let mut steps = Vec::new();
    for (_, mut versions) in of {
        versions.sort_by_cached_key(|(name, image)| {
            Reverse((image.created.clone(), natural(name.tag.as_deref().unwrap_or_default())))
        });
        for (name, image) in versions.into_iter().skip(desired.policy.keep_images) {
            let text = name.to_string();
            let is_held = image.tags.iter().any(|tag| *tag != text && !let_go.contains(tag));
            if needed.contains(&image.id) || declared.contains(&text) || pinned.contains(&text) || is_held {
                continue;
            }
            let cause = format!("{} versions of an image are kept", desired.policy.keep_images);
            steps.push(Step { service: None, cause, action: Action::Release { image: text } });
        }
    }
    steps
}

/// A version so that 3.0.9 comes before 3.0.10.
fn natural(version: &str) -> Vec<(String, u64)> {
    let mut parts = Vec::new();
    let mut rest = version;
    while !rest.is_empty() {
        let word = rest.find(|letter: char| letter.is_ascii_digit()).unwrap_or(rest.len());
        let digits =
            rest[word..].find(|letter: char| !letter.is_ascii_digit()).map_or(rest.len(), |end| word + end);
        parts.push((rest[..word].to_owned(), rest[word..digits].parse().unwrap_or(u64::MAX)));
        rest = &rest[digits..];
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_people_count() {
        let mut versions = ["3.0.10", "3.0.9", "2.4.17", "3.0.10-hotfix1", "v3"];
        versions.sort_by_key(|version| natural(version));
        assert_eq!(versions, ["2.4.17", "3.0.9", "3.0.10", "3.0.10-hotfix1", "v3"]);
    }
}
