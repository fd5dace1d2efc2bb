//! What is known of an image beyond its bytes: notes at its entry in the layout's index.
//!
//! They are annotations of the descriptor in `index.json`, so that no digest of the image depends on them, and any tool
//! that copies the layout keeps them.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Layout, StoreError};
use crate::oci::image::ANNOTATION_REF_NAME;

impl Layout {
    /// Adds annotations to the entry of that name. Where there is no such entry, nothing is done.
    pub fn annotate(&self, name: &str, notes: &BTreeMap<String, String>) -> Result<(), StoreError> {
        self.edit_index(|manifests| {
            let entry =
                manifests.iter_mut().filter_map(|value| value.get_mut("annotations")?.as_object_mut());
            for annotations in entry {
                if annotations.get(ANNOTATION_REF_NAME).and_then(Value::as_str) == Some(name) {
                    annotations.extend(notes.iter().map(|(key, note)| (key.clone(), note.clone().into())));
                }
            }
        })
    }
}
