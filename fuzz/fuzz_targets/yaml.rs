//! Any text as YAML.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use tarsup::yaml::{self, SourceFile};

fuzz_target!(|text: &str| {
    let source = Arc::new(SourceFile { path: "x.yaml".into(), base: ".".into() });
    let _ = yaml::parse(text, &source);
});
