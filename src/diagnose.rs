//! What every expected error says beyond its text: the exit code, the place in a file, and what to do about it.

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};

/// The documented exit codes of `tarsup`; docs/exit-codes.md explains each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Exit {
    /// Done, or nothing to do.
    Done = 0,
    /// Failed; what was running still runs.
    Failed = 1,
    /// Wrong usage, or an input that cannot be read or is not what it should be.
    Usage = 2,
    /// Refused: a guard or gate, `--locked`, a plan that no longer fits, no `--yes` without a terminal.
    Refused = 3,
    /// The upgrade (or the first `up`) failed and was rolled back.
    RolledBack = 4,
    /// Interrupted or stuck: `tarsup resume` goes on from here.
    Interrupted = 5,
    /// A difference or finding: `verify`, `lock --check`, `doctor`.
    Finding = 6,
    /// Another run holds the deployment.
    Held = 7,
}

/// A place in a file: the path, and the line (counted from 1) where one is known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// The line, counted from 1.
    pub line: Option<u64>,
}

impl Place {
    /// A whole file.
    pub fn file(path: impl AsRef<Path>) -> Self {
        Self { file: path.as_ref().to_owned(), line: None }
    }

    /// One line of a file, counted from 1.
    pub fn line(path: impl AsRef<Path>, line: u64) -> Self {
        Self { file: path.as_ref().to_owned(), line: Some(line) }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}", self.file.display()),
            None => write!(f, "{}", self.file.display()),
        }
    }
}

/// An error that a user is expected to meet. Each module's error enum implements it; `cli` renders it.
pub trait Diagnose: Error + Send + Sync + 'static {
    /// The exit code that this error ends the command with.
    fn exit(&self) -> Exit;

    /// What to do about it: one sentence, imperative.
    fn hint(&self) -> Option<String> {
        None
    }

    /// Where it stands, when it stands in a file.
    fn place(&self) -> Option<Place> {
        None
    }
}
