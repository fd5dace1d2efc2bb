//! Shell patterns in the `packages` of a recipe: `*` and `?` within a path's parts.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// The paths below `folder` that match, sorted. A pattern without `*` and `?` is a path, and matches where it exists.
pub fn expand(folder: &Path, pattern: &str) -> Vec<PathBuf> {
    let start = if pattern.starts_with('/') { PathBuf::from("/") } else { folder.to_owned() };
    let mut found = vec![start];
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        found = found.iter().flat_map(|folder| step(folder, part)).collect();
    }
    found.sort();
    found
}

fn step(folder: &Path, part: &str) -> Vec<PathBuf> {
    if !part.contains(['*', '?']) {
        let path = folder.join(part);
        return if path.exists() { vec![path] } else { Vec::new() };
    }
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    // As in a shell: a leading dot is not matched by a pattern, and a name may be any bytes.
    entries
        .flatten()
        .map(|entry| entry.file_name())
        .filter(|name| !name.as_bytes().starts_with(b".") && matches(part.as_bytes(), name.as_bytes()))
        .map(|name| folder.join(name))
        .collect()
}

/// Linear in both: goes back to the last `*` only.
pub(super) fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    n = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pattern_matches_as_in_a_shell() {
        for (pattern, name, expected) in [
            ("*.tgz", "tarsstat.tgz", true),
            ("*.tgz", "tarsstat.tgz.old", false),
            ("tars*stat*", "tarsquerystat.tgz", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*a*b", "xaxxab", true),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }
}
