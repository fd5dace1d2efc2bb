//! What every expected error says beyond its text: the exit code, the place in a file, and what to do about it.

use std::borrow::Cow;
use std::error::Error;
use std::ffi::OsStr;
use std::fmt::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
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
            Some(line) => write!(f, "{}:{line}", shown(&self.file)),
            None => write!(f, "{}", shown(&self.file)),
        }
    }
}

/// The name of a file, or what stands in one, as a message may quote it: what a terminal would obey instead of showing
/// is escaped, and so are bytes that are no UTF-8.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a>(&'a [u8]);

/// A path or text as a message may quote it.
pub fn shown<T: AsRef<OsStr> + ?Sized>(text: &T) -> Shown<'_> {
    Shown(text.as_ref().as_bytes())
}

/// Bytes as a message may quote them.
pub fn shown_bytes(bytes: &[u8]) -> Shown<'_> {
    Shown(bytes)
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                if is_obeyed(c) { write!(f, "{}", c.escape_default())? } else { f.write_char(c)? }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// A whole text of several lines, which may quote what it has not made up itself: all but line ends and tabs is escaped
/// that a terminal would obey.
pub fn harmless(text: &str) -> Cow<'_, str> {
    let obeyed = |c: char| is_obeyed(c) && !matches!(c, '\n' | '\t');
    if !text.contains(obeyed) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if obeyed(c) { escaped.extend(c.escape_default()) } else { escaped.push(c) }
    }
    Cow::Owned(escaped)
}

/// True for a character that moves the cursor, ends the line, or turns the direction of writing.
pub fn is_obeyed(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
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

    /// False where the line of its place may be shown to nobody: such files hold passwords, under any name.
    fn quotes_its_line(&self) -> bool {
        true
    }

    /// The errors that this one says together, each with a hint and a place of its own; none where it is one.
    fn parts(&self) -> Vec<&dyn Diagnose> {
        Vec::new()
    }
}

/// The first few of a list, and how many more there are.
pub fn first_few(all: &[impl AsRef<str>]) -> String {
    const SHOWN: usize = 8;
    let more = all.len().saturating_sub(SHOWN);
    let first: Vec<&str> = all[..all.len() - more].iter().map(AsRef::as_ref).collect();
    let first = first.join(", ");
    if more == 0 { first } else { format!("{first} and {more} more") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_shown_escaped() {
        let text = |bytes: &[u8]| shown_bytes(bytes).to_string();
        assert_eq!(text("a/中文 ü'\"\\".as_bytes()), "a/中文 ü'\"\\");
        assert_eq!(text(b"a\x1b[31m\n\r\x07\x7f"), "a\\u{1b}[31m\\n\\r\\u{7}\\u{7f}");
        assert_eq!(text(b"\xff\xfe ok \xc3"), "\\xff\\xfe ok \\xc3");
        assert_eq!(text("\u{202e}gpj.exe \u{9b}".as_bytes()), "\\u{202e}gpj.exe \\u{9b}");
        assert_eq!(Place::line("x\ny", 3).to_string(), "x\\ny:3");
    }
}
