//! What a deploy leaves on the engine so that anybody can finish or undo it. No environment, no secret.
//!
//! The whole record lies in the lock's volume and in the journal beside the file. Its outline, which is all that the way
//! back needs, is a label of every container that the deploy makes: where lock and journal are gone, it still tells.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::step::{Plan, Task, Touched};
use super::{DeployId, Intent, keep};
use crate::deploy::desired::BackupWay;
use crate::diagnose::first_few;
use crate::oci::Reference;

/// The format that is written. Format 1, which had no effects, is read.
pub const VERSION: u32 = 2;
/// The largest outline that becomes a label: a deployment of hundreds of services has its record in lock and journal.
const OUTLINE_BYTES: usize = 16 * 1024;

/// The record of a deploy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployRecord {
    /// The format.
    pub version: u32,
    /// The command, in words.
    pub what: String,
    /// The plan.
    pub plan: Plan,
    /// Service → image that the deployment file names after the commit.
    pub images: BTreeMap<String, Reference>,
    /// The services whose data may be looked for elsewhere: whoever goes on with the deploy need not be told again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accept_data_move: Vec<String>,
    /// The backup.
    #[serde(default, skip_serializing_if = "Backup::is_usual")]
    pub backup: Backup,
    /// The services whose shared memory may go: the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accept_state_loss: Vec<String>,
    /// What has been done outside of containers, in order.
    #[serde(default)]
    pub effects: Vec<Effect>,
}

/// The backup that precedes what a deploy does to the database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// In which container it is made; in none, where the operator said so.
    #[serde(default)]
    pub way: BackupWay,
    /// What was made: file, folder, checksum, schemas.
    #[serde(default)]
    pub taken: Option<Value>,
}

impl Backup {
    /// That it is made where it usually is.
    pub fn by(way: BackupWay) -> Self {
        Self { way, taken: None }
    }

    fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

/// What a task did outside of containers, and what the way back does about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    /// The task.
    pub task: Task,
    /// What it said of itself, as a document; null where it said nothing.
    pub result: Value,
    /// How it is undone.
    pub inverse: Inverse,
}

/// How an effect is undone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "inverse", rename_all = "kebab-case")]
pub enum Inverse {
    /// It stays; a person is told why.
    Stays {
        /// Why, as a sentence without its full stop.
        why: String,
    },
}

impl Effect {
    /// What `task` did, with its result.
    pub fn of(task: &Task, result: Value) -> Self {
        let inverse = match task {
            Task::Migrate { .. } => Inverse::Stays {
                why: "the schema of the database is not rolled back; migrations only add".to_owned(),
            },
            Task::Keep { .. } => Inverse::Stays {
                why: "what was kept of columns stays in the schema `tarsup` until it is put back".to_owned(),
            },
            Task::Finish { .. } => Inverse::Stays {
                why: "the rows of old protocols are kept in `.tarsup/`, and not put back".to_owned(),
            },
        };
        Self { task: task.clone(), result, inverse }
    }

    /// What it did that a person should know, a line each.
    pub fn lines(&self) -> Vec<String> {
        match &self.task {
            Task::Keep { .. } => {
                let kept = keep::lines(&self.result).into_iter().map(|line| format!("keeps {line}"));
                kept.chain(keep::template_lines(&self.result)).collect()
            }
            Task::Migrate { .. } | Task::Finish { .. } => lines_of(&self.result),
        }
    }
}

/// The document of a migration, or of what one would do, as a person reads it: a line each.
pub fn lines_of(document: &Value) -> Vec<String> {
    let list = |at: &str| document.pointer(at).and_then(Value::as_array).cloned().unwrap_or_default();
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let mut lines = Vec::new();
    for (at, what) in [
        ("/accounts", "the account of the services is made at"),
        ("/schema/added", "adds to the schema"),
        ("/schema/kept", "keeps in the schema"),
        ("/columns", "puts back"),
        ("/finished", "takes out the row of an old protocol"),
        ("/templates/added", "adds the template"),
        ("/templates/mended", "mends the path of packages in the template"),
        ("/templates/keys", "adds the key"),
        ("/templates/taken_out", "leaves out, as somebody took it out:"),
        ("/templates/needed", "lacks, though this version may need it:"),
        ("/templates/unreadable", "leaves as it is, as it is no TARS configuration: the template"),
    ] {
        lines.extend(list(at).iter().filter_map(Value::as_str).map(|item| format!("{what} {item}")));
    }
    for (at, words) in [
        ("/templates/changed", "follows this version"),
        ("/templates/conflicts", "was edited and stays, though this version changes it"),
        ("/templates/waiting", "waits, as business services inherit it"),
    ] {
        for key in list(at) {
            lines.push(format!(
                "{} {}: {} → {}, {words}",
                text(&key, "template"),
                text(&key, "key"),
                text(&key, "own"),
                text(&key, "shipped")
            ));
        }
    }
    for (template, readers) in document["templates"]["readers"].as_object().into_iter().flatten() {
        let all: Vec<&str> = readers.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let shown = first_few(&all);
        lines.push(format!("reaches those that run with {template} at their next start: {shown}"));
    }
    lines
}

/// A document of ours as it was found: what cannot be read is not the same as what is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found<T> {
    /// There is none.
    Absent,
    /// There is one, and it cannot be read; why.
    Unreadable(String),
    /// A newer tarsup wrote it, in this format.
    Newer(u32),
    /// It was read.
    There(T),
}

impl<T> Found<T> {
    /// The document, where it was read.
    pub fn there(self) -> Option<T> {
        match self {
            Self::There(found) => Some(found),
            Self::Absent | Self::Unreadable(_) | Self::Newer(_) => None,
        }
    }
}

impl DeployRecord {
    /// Reads a record as it lies in a lock.
    pub fn read(bytes: Option<&[u8]>) -> Found<Self> {
        let Some(bytes) = bytes else { return Found::Absent };
        versioned(bytes, VERSION)
    }

    /// The outline for a label; `None` where it is too long for one.
    pub fn outline(&self) -> Option<String> {
        let outline = Outline {
            version: self.version,
            what: self.what.clone(),
            intent: self.plan.intent.clone(),
            touched: self.plan.touched.clone(),
            images: self.images.clone(),
            backup: self.backup.way,
        };
        serde_json::to_string(&outline).ok().filter(|text| text.len() <= OUTLINE_BYTES)
    }

    /// The record of `deploy` as far as an outline tells it: without its steps.
    pub fn from_outline(label: &str, deploy: &DeployId, deployment: &str) -> Found<Self> {
        match versioned::<Outline>(label.as_bytes(), VERSION) {
            Found::There(outline) => Found::There(Self {
                version: outline.version,
                what: outline.what,
                plan: Plan {
                    id: deploy.clone(),
                    deployment: deployment.to_owned(),
                    intent: outline.intent,
                    steps: Vec::new(),
                    notes: Vec::new(),
                    questions: Vec::new(),
                    touched: outline.touched,
                },
                images: outline.images,
                accept_data_move: Vec::new(),
                backup: Backup::by(outline.backup),
                accept_state_loss: Vec::new(),
                effects: Vec::new(),
            }),
            Found::Absent => Found::Absent,
            Found::Unreadable(why) => Found::Unreadable(why),
            Found::Newer(version) => Found::Newer(version),
        }
    }

    /// What stays after a way back, in words.
    pub fn stays(&self) -> Vec<String> {
        let mut stays: Vec<String> = Vec::new();
        for effect in &self.effects {
            let Inverse::Stays { why } = &effect.inverse;
            if !stays.contains(why) {
                stays.push(why.clone());
            }
        }
        stays
    }
}

/// What the way back needs.
#[derive(Debug, Serialize, Deserialize)]
struct Outline {
    version: u32,
    what: String,
    intent: Intent,
    touched: Vec<Touched>,
    images: BTreeMap<String, Reference>,
    #[serde(default)]
    backup: BackupWay,
}

/// Reads JSON that says its format in `version`, before anything else of it is believed.
fn versioned<T: serde::de::DeserializeOwned>(bytes: &[u8], newest: u32) -> Found<T> {
    let value: Value = match serde_json::from_slice(bytes) {
        Ok(value) => value,
        Err(error) => return Found::Unreadable(error.to_string()),
    };
    match value.get("version").and_then(Value::as_u64).and_then(|version| u32::try_from(version).ok()) {
        Some(version) if version > newest => Found::Newer(version),
        Some(_) => serde_json::from_value(value)
            .map_or_else(|error| Found::Unreadable(error.to_string()), Found::There),
        None => Found::Unreadable("it names no version".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_that_is_not_there_is_told_from_one_that_cannot_be_read_and_from_a_newer_one() {
        assert_eq!(DeployRecord::read(None), Found::Absent);
        assert!(matches!(DeployRecord::read(Some(b"{\"version\":1,\"what\"")), Found::Unreadable(_)));
        assert!(matches!(DeployRecord::read(Some(b"")), Found::Unreadable(_)));
        assert!(matches!(DeployRecord::read(Some(b"{\"version\":2}")), Found::Unreadable(_)));
        assert_eq!(DeployRecord::read(Some(b"{\"version\":3,\"plans\":[]}")), Found::Newer(3));
    }

    #[test]
    fn record_of_format_1_is_read_as_it_was_written() {
        let text = concat!(
            "{\"version\":1,\"what\":\"upgrade --to 2\",\"plan\":{\"id\":\"20260102T030405Z-00ff\",\"deployment\":\"tars\",",
            "\"intent\":{\"intent\":\"upgrade\",\"images\":{\"slave\":\"tars/framework:2\"}},\"steps\":[],\"notes\":[],",
            "\"touched\":[{\"service\":\"slave\",\"container\":\"tars-slave\",\"role\":\"slave\",\"before\":{\"id\":\"f00\",",
            "\"name\":\"tars-slave\",\"running\":true,\"restart\":{\"name\":\"always\",\"maximum_retry_count\":0}},",
            "\"after\":{\"after\":\"made\"},\"grace\":{\"secs\":10,\"nanos\":0}}]},\"images\":{\"slave\":\"tars/framework:2\"}}",
        );
        let record = DeployRecord::read(Some(text.as_bytes())).there().unwrap();
        assert_eq!(record.plan.touched[0].before.as_ref().unwrap().id, "f00");
        assert!(record.effects.is_empty());
        let outline = record.outline().unwrap();
        let again = DeployRecord::from_outline(&outline, &record.plan.id, "tars").there().unwrap();
        assert_eq!(again.plan.touched, record.plan.touched);
        assert_eq!(again.images, record.images);
    }
}
