//! Any bytes as a tar: every entry, and the beginning of each content.
#![no_main]

use std::io::Read as _;

use libfuzzer_sys::fuzz_target;
use tarsup::tarball::TarReader;

fuzz_target!(|bytes: &[u8]| {
    let mut tar = TarReader::new(bytes);
    for _ in 0..1000 {
        let Ok(Some(entry)) = tar.next_entry() else { return };
        let _ = entry.capabilities();
        let mut head = Vec::new();
        let _ = tar.content(&entry).take(4096).read_to_end(&mut head);
    }
});
