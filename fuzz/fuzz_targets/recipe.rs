//! Any text as a recipe.
#![no_main]

use std::cell::RefCell;
use std::fs;

use libfuzzer_sys::fuzz_target;
use tarsup::build::recipe::{Overrides, Recipe};
use tarsup::diagnose::Diagnose as _;
use tempfile::TempDir;

thread_local!(static FOLDER: RefCell<TempDir> = RefCell::new(tempfile::tempdir().expect("a folder")));

fuzz_target!(|text: &str| {
    FOLDER.with_borrow(|folder| {
        let path = folder.path().join("recipe.yaml");
        fs::write(&path, text).expect("written");
        if let Err(error) = Recipe::read(&path, &Overrides::default()) {
            assert!(error.hint().is_some(), "{error}");
        }
    });
});
