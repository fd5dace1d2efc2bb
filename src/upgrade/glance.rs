//! When lists are enough to plan from: the journals here tell that nothing is unfinished.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, PoisonError};

use super::DeployId;
use super::journal::{DeployState, Event, JournalHeader, Line, summarise};
use super::names::{Part, part_of};

/// Reads the journal of that deploy, or the newest one.
type Read<'a> = &'a (dyn Fn(Option<&DeployId>) -> io::Result<Option<(JournalHeader, Vec<Line>)>> + Sync);

/// Which deploys came to their end, by the journals that are at hand.
pub struct Ends<'a> {
    read: Read<'a>,
    /// False where the newest deploy that is known here was cut off: it may have touched what any other one made.
    newest: bool,
    known: Mutex<BTreeMap<String, bool>>,
}

impl<'a> Ends<'a> {
    /// Asks the newest journal.
    pub fn new(read: Read<'a>) -> Self {
        let newest = matches!(read(None), Ok(Some((header, lines))) if has_ended(&header, &lines));
        Self { read, newest, known: Mutex::default() }
    }

    /// Whether this deploy came to its end: its commit and all that follows it, the final restart policies among it.
    pub fn has_ended(&self, deploy: &str) -> bool {
        let Some(id) = deploy.parse::<DeployId>().ok().filter(|_| self.newest) else { return false };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        *known.entry(deploy.to_owned()).or_insert_with(|| {
            let Ok(Some((header, lines))) = (self.read)(Some(&id)) else { return false };
            let finished = lines.iter().any(|line| line.event == Event::Finished);
            finished && summarise(header, &lines).state == DeployState::Committed
        })
    }
}

/// True where a deploy has nothing left to do: it was finished, or undone to its end.
pub fn has_ended(header: &JournalHeader, lines: &[Line]) -> bool {
    let ended = lines.iter().any(|line| matches!(line.event, Event::Finished | Event::RolledBack));
    let state = summarise(header.clone(), lines).state;
    ended && !matches!(state, DeployState::Stuck | DeployState::Interrupted | DeployState::Open)
}

/// True where the name is that of a container that is kept to come back, or to be looked at.
pub fn is_parked(name: &str) -> bool {
    matches!(part_of(name), Part::Old(_) | Part::Failed(_))
}
