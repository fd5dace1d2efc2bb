//! Any text as a configuration in TARS's grammar.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tarsup::tars::conf;

fuzz_target!(|text: &str| {
    let _ = conf::parse(text);
});
