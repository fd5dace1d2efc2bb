//! Versions as upstream compiles them into its programs, and writes them into the trees that it installs.
//!
//! A program says which release it is of in plain texts: `tarsnode` and `tarsAdminRegistry` have the framework's version
//! (TarsFramework, `FRAMEWORK_VERSION`), every program that of the RPC library (TarsCpp, `TARS_VERSION`). Other libraries have
//! texts of the same form.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::package;
use super::recipe::Recipe;
use crate::limits;
use crate::paths::ImagePath;

/// Three numbers, as in `3.0.17`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version([u16; 3]);

/// The most digits of one number.
const DIGITS: usize = 4;
/// The longest text that is a version, with the nul bytes at both ends.
const LONGEST: usize = 3 * DIGITS + 2 + 2;
/// The most versions of one program. What has more of them than that tells nothing.
const MOST: usize = 32;

impl Version {
    /// What a text begins with: `3.0.17-1` is of 3.0.17.
    pub fn leading(text: &str) -> Option<Self> {
        let (mut rest, mut numbers) = (text.as_bytes(), [0; 3]);
        for (at, number) in numbers.iter_mut().enumerate() {
            if at > 0 {
                rest = rest.strip_prefix(b".")?;
            }
            (*number, rest) = number_of(rest)?;
        }
        Some(Self(numbers))
    }

    /// True for two of which one may be the framework's, and the other that of its RPC library.
    pub fn is_akin(self, other: Self) -> bool {
        self.0[..2] == other.0[..2]
    }

    /// True for two of the same first number.
    pub fn is_of_major(self, other: Self) -> bool {
        self.0[0] == other.0[0]
    }

    /// True for releases of the framework whose tarsnode has their version compiled in: since 3.0.
    pub fn is_in_node(self) -> bool {
        self.0[0] >= 3
    }
}

/// The number that a text begins with, and what follows it.
fn number_of(text: &[u8]) -> Option<(u16, &[u8])> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let is_written_so = (1..=DIGITS).contains(&digits) && (digits == 1 || text[0] != b'0');
    let number = || std::str::from_utf8(&text[..digits]).ok()?.parse().ok();
    if is_written_so { Some((number()?, &text[digits..])) } else { None }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.0;
        write!(f, "{major}.{minor}.{patch}")
    }
}

impl FromStr for Version {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::leading(text).filter(|version| version.to_string() == text).ok_or(())
    }
}

/// Finds the versions in a program whose bytes come piece by piece.
#[derive(Debug, Default)]
pub struct Search {
    found: BTreeSet<Version>,
    /// The end of what was looked at: a text may lie across two pieces.
    end: Vec<u8>,
}

impl Search {
    /// Looks at the next piece.
    pub fn feed(&mut self, piece: &[u8]) {
        if self.found.len() > MOST {
            return;
        }
        self.end.extend_from_slice(&piece[..piece.len().min(LONGEST)]);
        let seam = std::mem::take(&mut self.end);
        look(&seam, &mut self.found);
        look(piece, &mut self.found);
        let end = if piece.len() < LONGEST { &seam } else { piece };
        self.end.extend_from_slice(&end[end.len().saturating_sub(LONGEST - 1)..]);
    }

    /// What was found, sorted; nothing where it is too much.
    pub fn finish(self) -> Box<[Version]> {
        if self.found.len() > MOST { Box::default() } else { self.found.into_iter().collect() }
    }

    /// What is in bytes that are at hand.
    pub fn of(bytes: &[u8]) -> Box<[Version]> {
        let mut search = Self::default();
        search.feed(bytes);
        search.finish()
    }
}

/// Every text between two nul bytes that is three numbers and nothing else.
fn look(bytes: &[u8], found: &mut BTreeSet<Version>) {
    for dot in memchr::memchr_iter(b'.', bytes) {
        let digits = bytes[..dot].iter().rev().take(DIGITS).take_while(|byte| byte.is_ascii_digit()).count();
        let start = dot - digits;
        if digits == 0 || start == 0 || bytes[start - 1] != 0 {
            continue;
        }
        let text = bytes[start..].iter().take(LONGEST).position(|byte| *byte == 0);
        let text = text.and_then(|end| std::str::from_utf8(&bytes[start..start + end]).ok());
        if let Some(version) = text.and_then(|text| text.parse().ok()) {
            found.insert(version);
            if found.len() > MOST {
                return;
            }
        }
    }
}

/// What upstream's `make install` calls the file that names its version.
pub(super) const FILE: &str = "FRAMEWORK_VERSION.txt";

/// Where that file may lie: at the top of an install tree or of the tree whose `framework` is the deploy folder, and beside
/// packages, in the folder where they were made.
pub fn files_beside(packages: &[PathBuf], deploy: Option<&Path>) -> BTreeSet<PathBuf> {
    let beside = |package: &PathBuf| match package::install_tree(package) {
        Some(servers) => Some(servers.parent()?.parent()?.join(FILE)),
        None => Some(package.parent()?.join(FILE)),
    };
    let deploy = deploy.and_then(Path::parent).map(|tree| tree.join(FILE));
    packages.iter().filter_map(beside).chain(deploy).collect()
}

/// The same of a recipe.
pub fn files_of(recipe: &Recipe) -> BTreeSet<PathBuf> {
    files_beside(&recipe.packages, recipe.deploy.as_deref())
}

/// Where that file lies in a packed install tree, whose services lie in this folder.
pub(super) fn place_in_tree(servers: ImagePath<'_>) -> Option<String> {
    let above = servers.as_str().strip_suffix("framework/servers")?;
    Some(format!("{above}{FILE}"))
}

/// What such a file says that is at hand.
///
/// # Errors
/// One that names no version.
pub fn of_text(bytes: &[u8]) -> io::Result<Version> {
    let unfit = || io::Error::new(io::ErrorKind::InvalidData, "it names no version such as 3.0.17");
    std::str::from_utf8(bytes).ok().and_then(|text| text.trim().parse().ok()).ok_or_else(unfit)
}

/// What such a file says; `None` where there is none.
///
/// # Errors
/// One that cannot be read, or that names no version.
pub fn read(file: &Path) -> io::Result<Option<Version>> {
    let text = match limits::read_text(file, &limits::TEXT) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text?,
    };
    of_text(text.as_bytes()).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn version_is_what_a_text_begins_with_and_nothing_else_is_one() {
        for text in ["3.0.17", "3.0.17-1", "3.0.17-patched", "3.0.17.1", "3.0.17rc1"] {
            assert_eq!(Version::leading(text), Some(version("3.0.17")), "{text}");
        }
        for text in
            ["", "1", "1-stat", "3.0", "v3.0.17", "latest", "3.0.", "3..17", "03.0.17", "20261127.1.1"]
        {
            assert_eq!(Version::leading(text), None, "{text}");
        }
        assert_eq!("3.0.17-1".parse::<Version>(), Err(()));
    }

    #[test]
    fn search_finds_whole_texts_wherever_pieces_end() {
        let bytes = b"\x7fELF 1.1.1\0.. 2.2.2\x003.0.17\x003.0.19\0\x004.4.4.4\x005.5.5 \x00127.0.0.1\x00006.6.6\x001234.5678.9012\x0012345.1.1\x007.7.7";
        let expected = ["3.0.17", "3.0.19", "1234.5678.9012"].map(version);
        assert_eq!(*Search::of(bytes), expected);
        for piece in 1..bytes.len() {
            let mut search = Search::default();
            bytes.chunks(piece).for_each(|piece| search.feed(piece));
            assert_eq!(*search.finish(), expected, "pieces of {piece}");
        }
    }

    #[test]
    fn program_with_versions_without_end_tells_none_of_them() {
        let many: Vec<String> = (0..9999).map(|n| format!("\x001.1.{n}\0")).collect();
        assert!(Search::of(many.concat().as_bytes()).is_empty());
    }
}
