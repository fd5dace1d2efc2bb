//! The machine that tarsup runs on, in the parts that can fail one by one: clock, reporter,
//! state folder, deployment file, images.
//!
//! Wired in `cli`. What the way back needs of it is nothing: each of these may fail while a deploy is undone.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use async_trait::async_trait;
use time::OffsetDateTime;

use super::DeployId;
use super::journal::{Journal, JournalHeader, Line};
use super::owner::Owner;
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
    /// Keeps a container's logs; where.
    fn save_log(&self, name: &str, text: &str) -> io::Result<PathBuf>;
    /// Begins a file of a deploy beside its journal, `<deploy>.<what>.jsonl.gz`; one that is there is left alone.
    fn keep(&self, deploy: &DeployId, what: &str) -> io::Result<Box<dyn KeptFile>>;
}

/// A file in which something is kept that may be needed again: compressed, and not there before it is whole.
pub trait KeptFile: Send {
    /// Adds to it.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Puts it in place; it survives a crash once this returns. Where.
    fn finish(self: Box<Self>) -> io::Result<PathBuf>;
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
