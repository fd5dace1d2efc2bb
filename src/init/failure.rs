//! How tars-init ends: the documented exit codes, and a failure's text with what to do about it.

use std::fmt;

/// The exit codes of `tars-init`; docs/exit-codes.md explains each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// Stopped as told, or done, or healthy.
    Done = 0,
    /// `health` and `probe`: not healthy.
    Unhealthy = 1,
    /// The environment or the arguments are not understood.
    Environment = 64,
    /// The database did not answer in time.
    Database = 69,
    /// Something that should not happen: a defect, or the operating system refused a basic service.
    Internal = 70,
    /// `migrate`: told to stop before it was done; or another connection holds a table.
    Interrupted = 75,
    /// Refused by the guard: this start would have destroyed data.
    Guard = 77,
    /// The image or the volume is not what it should be.
    Configuration = 78,
}

/// Why tars-init ends other than as told.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub code: Code,
    /// What happened, in one sentence or a few.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

impl Failure {
    /// A failure with its exit code, text and hint.
    pub fn new(code: Code, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: hint.into() }
    }

    /// The environment is not understood; the message names the variable.
    pub fn environment(message: impl Into<String>) -> Self {
        Self::new(Code::Environment, message, "Correct the container's environment and start it again.")
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)?;
        if !self.hint.is_empty() {
            write!(f, "\n  {}", self.hint)?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}
