//! Any text as a compose file: translated, rendered, guarded.
#![no_main]

use std::cell::RefCell;
use std::fs;

use libfuzzer_sys::fuzz_target;
use tarsup::deploy::compose::{LoadOptions, load};
use tarsup::deploy::guard;
use tarsup::diagnose::Diagnose as _;
use tempfile::TempDir;

thread_local!(static FOLDER: RefCell<TempDir> = RefCell::new(tempfile::tempdir().expect("a folder")));

fuzz_target!(|text: &str| {
    FOLDER.with_borrow(|folder| {
        fs::write(folder.path().join("compose.yaml"), text).expect("written");
        let options = LoadOptions { directory: folder.path().to_owned(), ..LoadOptions::default() };
        match load(&options) {
            Ok(desired) => {
                for service in &desired.services {
                    let _ = service.declaration.render();
                    let _ = service.spec();
                }
                let _ = guard::check(&desired);
            }
            Err(error) => assert!(error.hint().is_some(), "{error}"),
        }
    });
});
