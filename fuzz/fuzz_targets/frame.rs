//! Any bytes as a frame of TARS's protocol.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tarsup::tars::wire::{Fields, read_frame};

fuzz_target!(|bytes: &[u8]| {
    let _ = read_frame(&mut &bytes[..], 1 << 16);
    let _ = Fields::parse(bytes);
});
