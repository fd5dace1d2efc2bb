//! The machine that tarsup runs on, in the parts that can fail one by one: clock, reporter,
//! state folder, deployment file, images.
//!
//! Wired in `cli`. What the way back needs of it is nothing: each of these may fail while a deploy is undone.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use time::OffsetDateTime;

use super::DeployId;
use super::backup::shelf::Header;
use super::journal::{Journal, JournalHeader, Line};
use super::owner::Owner;
use crate::deploy::twin::Twin;
use crate::engine::EngineInfo;
use crate::oci::Reference;

/// The time.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> OffsetDateTime;
}

/// Where a person reads how it goes.
pub trait Reporter: Send + Sync {
    /// Says what happens.
    fn say(&self, text: &str);

    /// A step begins, or goes on: `subject` is the service that it is about. A terminal has one line for each of them.
    fn step(&self, subject: &str, text: &str) {
        let _ = subject;
        self.say(text);
    }
}

/// `.tarsup/` beside the deployment file: journals and saved logs.
pub trait StateFolder: Send + Sync {
    /// Opens a deploy's journal, or begins it.
    fn journal(&self, header: &JournalHeader) -> io::Result<Box<dyn Journal>>;
    /// The journal of that deploy, or the deployment's newest one; `None` where there is none.
    fn read_journal(
        &self,
        deployment: &str,
        deploy: Option<&DeployId>,
    ) -> io::Result<Option<(JournalHeader, Vec<Line>)>>;
    /// How long each service of the deployment gave no answer when it was stopped last, as far as journals are here.
    fn silences(&self, deployment: &str) -> BTreeMap<String, Duration>;
    /// Keeps a container's logs; where.
    fn save_log(&self, name: &str, text: &str) -> io::Result<PathBuf>;
    /// Begins a backup of the database.
    fn backup(&self, header: &Header) -> io::Result<Box<dyn BackupFile>>;
    /// Where backups lie.
    fn backup_place(&self) -> String;
    /// How many bytes there is room for there.
    fn backup_room(&self) -> io::Result<u64>;
    /// Removes the oldest backups of a deployment beyond the number to keep; their names.
    fn retire_backups(&self, deployment: &str) -> io::Result<Vec<String>>;
    /// Begins a file of a deploy beside its journal, `<deploy>.<what>.jsonl.gz`; one that is there is left alone.
    fn keep(&self, deploy: &DeployId, what: &str) -> io::Result<Box<dyn KeptFile>>;
    /// Keeps what a container is, under the name by which it will be parked; it survives a crash once this returns.
    fn keep_twin(&self, name: &str, twin: &Twin) -> io::Result<()>;
    /// What is kept of the deployment's containers, by that name.
    fn twins(&self, deployment: &str) -> io::Result<KeptTwins>;
    /// How many bytes there is room for beside the journals.
    fn room(&self) -> io::Result<u64>;
    /// Keeps it no longer.
    fn forget_twin(&self, name: &str) -> io::Result<()>;
}

/// What containers were, and what could not be read of that, in words.
pub type KeptTwins = (BTreeMap<String, Twin>, Vec<String>);

/// A file in which something is kept that may be needed again: compressed, and not there before it is whole.
pub trait KeptFile: Send {
    /// Adds to it.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Puts it in place; it survives a crash once this returns. Where.
    fn finish(self: Box<Self>) -> io::Result<PathBuf>;
}

/// A backup that is being written: dropped before it is finished, nothing of it stays.
pub trait BackupFile: Send {
    /// Adds to it.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Puts it in place with its checksum; both survive a crash once this returns.
    fn finish(self: Box<Self>) -> io::Result<Shelved>;
}

/// A backup that is in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shelved {
    /// Where.
    pub path: PathBuf,
    /// Its size, compressed.
    pub bytes: u64,
    /// The checksum of the file, in hex.
    pub sha256: String,
}

/// The deployment file, and the `.env` beside it.
pub trait DeploymentFile: Send + Sync {
    /// Makes it name these images: service → image. What could not be written, in words; it is then as it was.
    fn set_images(&self, images: &BTreeMap<String, Reference>) -> Result<(), String>;
}

/// Brings images to the engine.
#[async_trait]
pub trait ImageLoader: Send + Sync {
    /// Loads an image of the local store into the engine; its id there. An error in words.
    async fn load(&self, image: &Reference) -> Result<String, String>;
    /// How many bytes the engine has room for; nothing where its disk is not this machine's.
    fn room(&self, engine: &EngineInfo) -> Option<u64>;
    /// The local store's folder and how many bytes there is room for; nothing where there is none.
    fn store_room(&self) -> Option<(String, u64)>;
}

/// All of it.
#[derive(Clone, Copy)]
pub struct Machine<'a> {
    /// This process.
    pub owner: &'a Owner,
    /// The time.
    pub clock: &'a dyn Clock,
    /// Where a person reads how it goes.
    pub reporter: &'a dyn Reporter,
    /// `.tarsup/`.
    pub folder: &'a dyn StateFolder,
    /// The deployment file.
    pub file: &'a dyn DeploymentFile,
    /// Where images come from.
    pub images: &'a dyn ImageLoader,
}
