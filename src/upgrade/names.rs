//! How deploys and the containers of a swap are called: `20260102T030405Z-00ff`, `<name>.old.<deploy>`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::macros::format_description;

use crate::oci::Reference;

/// The name of a deploy: `YYYYMMDDThhmmssZ-xxxx`. Sorts by time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeployId(String);

/// A text that is no deploy's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the name of a deploy, such as 20260102T030405Z-00ff")]
pub struct InvalidDeployId(pub String);

impl DeployId {
    /// The name of a deploy that begins at `at`; `random` tells it from another one in the same second.
    pub fn new(at: OffsetDateTime, random: u16) -> Self {
        let at = at.to_offset(time::UtcOffset::UTC);
        let format = format_description!("[year][month][day]T[hour][minute][second]Z");
        let stamp = at.format(format).unwrap_or_else(|_| "00000000T000000Z".to_owned());
        Self(format!("{stamp}-{random:04x}"))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DeployId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for DeployId {
    type Err = InvalidDeployId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = text.len() == 21
            && text.bytes().enumerate().all(|(at, byte)| match at {
                8 => byte == b'T',
                15 => byte == b'Z',
                16 => byte == b'-',
                17.. => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
                _ => byte.is_ascii_digit(),
            });
        if fits { Ok(Self(text.to_owned())) } else { Err(InvalidDeployId(text.to_owned())) }
    }
}

impl TryFrom<String> for DeployId {
    type Error = InvalidDeployId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<DeployId> for String {
    fn from(id: DeployId) -> Self {
        id.0
    }
}

/// What the repositories of held images begin with, whatever the deployment.
pub const HELD: &str = "tarsup-kept";

/// What a container's name says about its part in a swap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// No suffix of ours: it serves under its own name.
    Serving,
    /// `.new.<deploy>`: made by that deploy, not yet in place.
    New(DeployId),
    /// `.old.<deploy>`: parked by that deploy.
    Old(DeployId),
    /// `.failed.<deploy>`: made by that deploy, and parked because it failed.
    Failed(DeployId),
    /// `.twin.<deploy>`: made by that deploy as what it is about to park, where that must not come back itself.
    Twin(DeployId),
    /// `.migrate.<deploy>`, `.keep.<deploy>`: the migration run of that deploy, or the one that keeps columns.
    Migrate(DeployId),
}

/// The part that a container of this name has.
pub fn part_of(name: &str) -> Part {
    let mut words = name.rsplitn(3, '.');
    let (deploy, kind) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    match (deploy.parse(), kind) {
        (Ok(deploy), "new") => Part::New(deploy),
        (Ok(deploy), "old") => Part::Old(deploy),
        (Ok(deploy), "failed") => Part::Failed(deploy),
        (Ok(deploy), "twin") => Part::Twin(deploy),
        (Ok(deploy), "migrate" | "keep") => Part::Migrate(deploy),
        _ => Part::Serving,
    }
}

/// The name of a container until it is swapped in.
pub fn new_name(container: &str, deploy: &DeployId) -> String {
    format!("{container}.new.{deploy}")
}

/// The name of a parked predecessor.
pub fn old_name(container: &str, deploy: &DeployId) -> String {
    format!("{container}.old.{deploy}")
}

/// The name of a predecessor's twin until the predecessor is gone.
pub fn twin_name(container: &str, deploy: &DeployId) -> String {
    format!("{container}.twin.{deploy}")
}

/// The name of a container that failed.
pub fn failed_name(container: &str, deploy: &DeployId) -> String {
    format!("{container}.failed.{deploy}")
}

/// The name of a deploy's migration run.
pub fn migrate_name(deployment: &str, deploy: &DeployId) -> String {
    format!("{deployment}.migrate.{deploy}")
}

/// The name of a deploy's run that keeps what a web console may drop.
pub fn keep_name(deployment: &str, deploy: &DeployId) -> String {
    format!("{deployment}.keep.{deploy}")
}

/// The repository and the tag by which an image is held that this deploy may have to go back to: `image` is how its container
/// names it.
pub fn held_name(deployment: &str, image: &str, image_id: &str, deploy: &DeployId) -> (String, String) {
    let path = image.parse::<Reference>().ok().filter(|_| !image.starts_with("sha256:"));
    let path = path.map_or_else(|| "unnamed".to_owned(), |image| image.familiar_path());
    let id = image_id.strip_prefix("sha256:").unwrap_or(image_id);
    (format!("{}{path}", held_prefix(deployment)), format!("{deploy}-{}", id.get(..8).unwrap_or(id)))
}

/// How the repositories of the images begin that are held for a deployment.
pub fn held_prefix(deployment: &str) -> String {
    format!("{HELD}/{deployment}/")
}

/// The deploy in the tag of a held image.
pub fn held_by(tag: &str) -> Option<DeployId> {
    tag.rsplit_once('-')?.0.parse().ok()
}

/// The name of the container in which the database is asked.
pub fn cluster_name(deployment: &str) -> String {
    format!("{deployment}.cluster")
}

/// The name of the container in which a new image is asked what it would change in the database.
pub fn preview_name(deployment: &str, deploy: &DeployId) -> String {
    format!("{deployment}.preview.{deploy}")
}

/// The name of the container in which a backup is made, where it is made in one of its own.
pub fn backup_name(deployment: &str, deploy: &DeployId) -> String {
    format!("{deployment}.backup.{deploy}")
}

/// The name that whoever works on a deployment holds: of a volume, and of the container that writes into it.
pub fn lock_name(deployment: &str) -> String {
    format!("{deployment}.lock")
}

/// The name that whoever takes over the lock with this nonce holds meanwhile.
pub fn claim_name(deployment: &str, nonce: &str) -> String {
    format!("{deployment}.lock.claim.{nonce}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deploy_id_is_the_time_in_utc_and_sorts_by_it() {
        let at = OffsetDateTime::from_unix_timestamp(1_767_323_045).unwrap();
        let id = DeployId::new(at.to_offset(time::UtcOffset::from_hms(5, 30, 0).unwrap()), 255);
        assert_eq!(id.as_str(), "20260102T030405Z-00ff");
        assert_eq!(id.as_str().parse(), Ok(id.clone()));
        assert!(DeployId::new(at + time::Duration::seconds(1), 0) > id);
        for text in ["", "20260102T030405Z-00fg", "20260102T030405-00ff", "latest"] {
            assert!(text.parse::<DeployId>().is_err(), "{text}");
        }
    }

    #[test]
    fn part_of_a_name_is_told_by_its_suffix_alone() {
        let id: DeployId = "20260102T030405Z-00ff".parse().unwrap();
        assert_eq!(part_of("my.app"), Part::Serving);
        assert_eq!(part_of("a.old.b"), Part::Serving);
        assert_eq!(part_of(&new_name("my.app", &id)), Part::New(id.clone()));
        assert_eq!(part_of(&old_name("my.app", &id)), Part::Old(id.clone()));
        assert_eq!(part_of(&failed_name("a", &id)), Part::Failed(id.clone()));
        assert_eq!(part_of(&twin_name("a", &id)), Part::Twin(id.clone()));
        assert_eq!(part_of(&migrate_name("a", &id)), Part::Migrate(id));
    }
}
