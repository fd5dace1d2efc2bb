//! Any bytes as a manifest, an index, a config, a record of a deploy.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tarsup::oci::{Config, Manifest, Platform, manifest};
use tarsup::upgrade::record::DeployRecord;

fuzz_target!(|bytes: &[u8]| {
    let _ = Manifest::parse(bytes);
    let _ = manifest::for_platform(bytes, &Platform::linux("amd64"));
    let _ = serde_json::from_slice::<Config>(bytes);
    let _ = DeployRecord::read(Some(bytes));
});
