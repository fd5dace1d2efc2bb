//! What `docker logs` tells of a start: plain lines with the time since the start, without secrets.

use std::io::Write;
use std::time::Instant;

/// Writes the lines. Cheap to clone: every thread may have one.
#[derive(Clone, Debug)]
pub struct StartLog {
    begun: Instant,
    quiet: bool,
}

impl StartLog {
    /// A log that begins now.
    pub fn begin() -> Self {
        Self { begun: Instant::now(), quiet: false }
    }

    /// A log that nobody reads: of what is only thought through.
    pub fn quiet() -> Self {
        Self { begun: Instant::now(), quiet: true }
    }

    /// One line on stdout. A closed stdout must not end PID 1, so errors are left alone.
    pub fn say(&self, text: impl AsRef<str>) {
        if self.quiet {
            return;
        }
        let since = self.begun.elapsed();
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "[{:>4}.{:03}s] {}", since.as_secs(), since.subsec_millis(), text.as_ref());
        let _ = out.flush();
    }
}
