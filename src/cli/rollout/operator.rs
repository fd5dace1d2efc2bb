//! The machine that a command runs on: its clock, its identity, `.tarsup/`, the deployment file, the person's ear.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use time::OffsetDateTime;

use super::super::Ui;
use super::stored::{StoredImages, send};
use crate::deploy::twin::Twin;
use crate::deploy::{Desired, rewrite};
use crate::engine::{Engine, EngineInfo};
use crate::oci::Reference;
use crate::upgrade::DeployId;
use crate::upgrade::backup::shelf::{Header, Shelf, room};
use crate::upgrade::journal::{self, FileJournal, Journal, JournalHeader, Line, private_folder};
use crate::upgrade::kept::KeptOnDisk;
use crate::upgrade::machine::{
    BackupFile, Clock, DeploymentFile, ImageLoader, KeptFile, KeptTwins, Machine, Reporter, StateFolder,
};
use crate::upgrade::owner::Owner;
use crate::upgrade::parked;
use crate::upgrade::seen::{Seen, seen};

/// Where a deployment's journals and logs lie, beside its file.
pub const STATE: &str = ".tarsup";

/// This process, for a deployment.
pub struct Operator<'a> {
    ui: &'a Ui,
    desired: &'a Desired,
    owner: Owner,
    state: PathBuf,
    engine: Arc<dyn Engine>,
    stored: &'a StoredImages,
}

impl<'a> Operator<'a> {
    /// For the deployment of these files, on this engine.
    pub fn new(ui: &'a Ui, desired: &'a Desired, engine: Arc<dyn Engine>, stored: &'a StoredImages) -> Self {
        let state = desired.directory.join(STATE);
        Self { ui, desired, owner: Owner::current(), state, engine, stored }
    }

    fn shelf(&self) -> Shelf {
        Shelf::of(self.desired, &self.state)
    }

    /// What a deploy was for those who called; nothing where its journal cannot be read, or nobody can have noticed anything.
    pub fn seen(&self, deploy: &DeployId) -> Option<Seen> {
        let (header, lines) = journal::find(&self.state, &self.desired.deployment, Some(deploy)).ok()??;
        Some(seen(&header, &lines)).filter(|seen| !seen.is_quiet())
    }

    /// It, part by part.
    pub fn machine(&self) -> Machine<'_> {
        Machine { owner: &self.owner, clock: self, reporter: self, folder: self, file: self, images: self }
    }
}

impl Clock for Operator<'_> {
    fn now(&self) -> OffsetDateTime {
        OffsetDateTime::now_utc()
    }
}

impl Reporter for Operator<'_> {
    fn say(&self, text: &str) {
        self.ui.note(text);
    }

    fn step(&self, subject: &str, text: &str) {
        self.ui.line(subject, text);
    }
}

impl StateFolder for Operator<'_> {
    fn journal(&self, header: &JournalHeader) -> io::Result<Box<dyn Journal>> {
        Ok(Box::new(FileJournal::open(&self.state, header)?))
    }

    fn read_journal(
        &self,
        deployment: &str,
        deploy: Option<&DeployId>,
    ) -> io::Result<Option<(JournalHeader, Vec<Line>)>> {
        journal::find(&self.state, deployment, deploy)
    }

    fn silences(&self, deployment: &str) -> BTreeMap<String, Duration> {
        journal::silences(&self.state, deployment)
    }

    fn save_log(&self, name: &str, text: &str) -> io::Result<PathBuf> {
        let folder = self.state.join("logs");
        private_folder(&folder)?;
        let path = folder.join(format!("{name}.log"));
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options.open(&path)?.write_all(text.as_bytes())?;
        Ok(path)
    }

    fn backup(&self, header: &Header) -> io::Result<Box<dyn BackupFile>> {
        self.shelf().begin(header)
    }

    fn backup_place(&self) -> String {
        self.shelf().folder().display().to_string()
    }

    fn backup_room(&self) -> io::Result<u64> {
        self.shelf().room()
    }

    fn retire_backups(&self, deployment: &str) -> io::Result<Vec<String>> {
        self.shelf().retire(deployment)
    }

    fn keep(&self, deploy: &DeployId, what: &str) -> io::Result<Box<dyn KeptFile>> {
        Ok(Box::new(KeptOnDisk::begin(&self.state, deploy, what)?))
    }

    fn keep_twin(&self, name: &str, twin: &Twin) -> io::Result<()> {
        parked::keep(&self.state, name, twin)
    }

    fn twins(&self, deployment: &str) -> io::Result<KeptTwins> {
        parked::read(&self.state, deployment)
    }

    fn room(&self) -> io::Result<u64> {
        // A look makes no folder.
        room(&self.state).or_else(|_| room(&self.desired.directory))
    }

    fn forget_twin(&self, name: &str) -> io::Result<()> {
        parked::forget(&self.state, name)
    }
}

impl DeploymentFile for Operator<'_> {
    fn set_images(&self, images: &BTreeMap<String, Reference>) -> Result<(), String> {
        // What names an image already, after a resume for one, is left alone.
        let images = self.desired.images_to_rewrite(images);
        rewrite::set_images(self.desired, &images).map(drop).map_err(|error| {
            let wanted: Vec<String> =
                images.iter().map(|(service, image)| format!("{service}: {image}")).collect();
            format!(
                "{error}; the file is as it was, and what runs now is {}; the same command again brings the file in line",
                wanted.join(", ")
            )
        })
    }
}

#[async_trait]
impl ImageLoader for Operator<'_> {
    async fn load(&self, image: &Reference) -> Result<String, String> {
        let Some(stored) = self.stored.image(image) else {
            return Err("the local store has it no more".to_owned());
        };
        send(self.engine.clone(), image, stored, self.ui).await.map_err(|failure| failure.to_string())?;
        match self.engine.inspect_image(&image.to_string()).await {
            Ok(Some(loaded)) => Ok(loaded.id),
            Ok(None) => Err("the engine took it and does not have it".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn room(&self, engine: &EngineInfo) -> Option<u64> {
        room(Path::new(&engine.data_root)).ok().filter(|_| engine.is_near)
    }

    fn store_room(&self) -> Option<(String, u64)> {
        let store = crate::store::local().ok()?;
        let folder = store.root();
        Some((folder.display().to_string(), room(folder).ok()?))
    }
}
