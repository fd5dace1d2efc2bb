//! Builds upon an image of somebody else: as predecessor, as what is patched, as base.

use std::fs;
use std::path::Path;

use crate::attack::seed;
use crate::tarballs::{Member, gzip, tar};

/// `IMAGE` is the image.
pub const COMMANDS: [&[&str]; 3] = [
    &["build", "plain.yaml", "--after", "IMAGE", "-o", "oci:back:1"],
    &["build", "--patch", "tarsstat=tarsstat.tgz", "--version", "2", "IMAGE", "-o", "oci:back:1"],
    &["build", "upon.yaml", "-o", "oci:back:1"],
];

/// Those that the input at this place of a class meets: of `every` so many inputs one meets one of them, which differs from run to
/// run; with `TARSUP_EVERY` each meets all.
pub fn drawn(place: usize, every: usize) -> impl Iterator<Item = &'static [&'static str]> {
    let all = std::env::var_os("TARSUP_EVERY").is_some();
    let chosen = (place + seed()) % (every * COMMANDS.len());
    COMMANDS
        .into_iter()
        .enumerate()
        .filter(move |(index, _)| all || *index == chosen)
        .map(|(_, command)| command)
}

/// Writes what the commands read beside the image.
pub fn write(folder: &Path, image: &str) {
    let recipe = |base: &str| {
        format!(
            "name: x/plain\nversion: 1\nrole: plain\nbase: {base}\nfiles: {{file: /opt/file}}\nentrypoint: [/opt/file]\n"
        )
    };
    fs::write(folder.join("plain.yaml"), recipe("scratch")).unwrap();
    fs::write(folder.join("upon.yaml"), recipe(image)).unwrap();
    fs::write(folder.join("file"), "#!/bin/sh\n").unwrap();
    let program = Member::file("tarsstat/tarsstat", b"#!/bin/sh\n").moded(0o755);
    fs::write(folder.join("tarsstat.tgz"), gzip(&tar(&[program]))).unwrap();
}
