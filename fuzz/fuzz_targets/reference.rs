//! Any text as a name of an image: what is one is written as it is read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tarsup::oci::Reference;
use tarsup::transport::ImageName;

fuzz_target!(|text: &str| {
    let _ = text.parse::<ImageName>();
    if let Ok(reference) = text.parse::<Reference>() {
        assert_eq!(reference.to_string().parse::<Reference>().expect("a reference"), reference);
    }
});
