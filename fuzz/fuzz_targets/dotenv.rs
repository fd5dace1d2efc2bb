//! Any text as `.env`, and what it makes of a text with variables.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tarsup::deploy::dotenv;
use tarsup::deploy::interpolate::interpolate;
use tarsup::yaml::Origin;

fuzz_target!(|text: &str| {
    let Ok(all) = dotenv::parse(text, &|_| None) else { return };
    let lookup = |name: &str| {
        let found = all.iter().rev().find(|one| one.name == name).and_then(|one| one.value.clone());
        (found, Origin::Unset)
    };
    let _ = interpolate(text, &lookup);
});
