//! The machine that a command runs on: its clock, its identity, `.tarsup/`, and the person's ear.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use time::OffsetDateTime;

use super::super::Ui;
use crate::deploy::{Desired, rewrite};
use crate::oci::Reference;
use crate::upgrade::journal::{FileJournal, Header, Journal, private_folder};
use crate::upgrade::owner::Owner;
use crate::upgrade::run::Local;

/// Where a deployment's journals and logs lie, beside its file.
pub const STATE: &str = ".tarsup";

/// This process, for a deployment.
pub struct Operator<'a> {
    ui: &'a Ui,
    desired: &'a Desired,
    owner: Owner,
    state: PathBuf,
}

impl<'a> Operator<'a> {
    /// For the deployment of these files.
    pub fn new(ui: &'a Ui, desired: &'a Desired) -> Self {
        Self { ui, desired, owner: Owner::current(), state: desired.directory.join(STATE) }
    }
}

impl Local for Operator<'_> {
    fn now(&self) -> OffsetDateTime {
        OffsetDateTime::now_utc()
    }

    fn owner(&self) -> &Owner {
        &self.owner
    }

    fn say(&self, text: &str) {
        self.ui.note(text);
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

    fn journal(&self, header: &Header) -> io::Result<Box<dyn Journal>> {
        Ok(Box::new(FileJournal::open(&self.state, header)?))
    }

    fn rewrite(&self, images: &BTreeMap<String, Reference>) -> Result<(), String> {
        let images = changed(self.desired, images);
        let written = rewrite::set_images(self.desired, &images);
        written.map(drop).map_err(|error| {
            let wanted: Vec<String> =
                images.iter().map(|(service, image)| format!("{service}: {image}")).collect();
            format!("{error}; the file is as it was, and what runs now is {}", wanted.join(", "))
        })
    }
}

/// The images that the files do not name already.
pub fn changed(desired: &Desired, images: &BTreeMap<String, Reference>) -> BTreeMap<String, Reference> {
    let differs = |name: &String, image: &Reference| {
        desired.service(name).is_some_and(|service| service.image != *image)
    };
    images
        .iter()
        .filter(|(name, image)| differs(name, image))
        .map(|(name, image)| (name.clone(), image.clone()))
        .collect()
}
