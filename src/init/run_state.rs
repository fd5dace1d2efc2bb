//! What is remembered of this start of the container: who is PID 1, which processes have answered, what an
//! administrator stopped. `health` runs anew each time, and a database that is away cannot be asked again.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use nix::unistd::Pid;

use crate::tars::Service;

use super::paths::Paths;
use super::processes::{self, Identity};
use super::render;
use super::sockets::Held;

/// Files below `/run/tars-init`, each written whole by whoever knows better. What an earlier start left counts for
/// nothing: every line names the process that it is about.
#[derive(Clone, Debug)]
pub struct RunState {
    folder: PathBuf,
}

impl RunState {
    /// What is remembered of this start of this container.
    pub fn of(paths: &Paths) -> Self {
        Self { folder: paths.run() }
    }

    /// Forgets what an earlier start left, and notes that this process is the container's PID 1.
    pub fn begin(&self) -> std::io::Result<()> {
        let own = Identity::of(Pid::this()).map(|own| own.to_string()).unwrap_or_default();
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let _ = fs::remove_file(entry.path());
        }
        render::write(&self.folder.join("init"), &own)
    }

    /// The container's PID 1, while it lives. Where nothing could be noted, process 1 if it is a tars-init.
    pub fn init(&self) -> Option<Pid> {
        let noted = fs::read_to_string(self.folder.join("init")).ok().and_then(|text| Identity::parse(&text));
        match noted {
            Some(noted) => noted.lives().then_some(noted.pid),
            None => processes::is_tars_init(Pid::from_raw(1)).then_some(Pid::from_raw(1)),
        }
    }

    /// Notes that a service has answered as this process.
    pub fn note_answer(&self, service: Service, process: Identity) {
        if self.answered(service) != Some(process) {
            // Without it only the words of a later complaint are less exact.
            let _ = render::write(&self.folder.join(service.name()), &process.to_string());
        }
    }

    /// The process as which a service answered last.
    pub fn answered(&self, service: Service) -> Option<Identity> {
        Identity::parse(&fs::read_to_string(self.folder.join(service.name())).ok()?)
    }

    /// Which sockets were seen where: no more than where to look first.
    pub fn held(&self) -> Vec<Held> {
        let text = fs::read_to_string(self.folder.join("sockets")).unwrap_or_default();
        text.lines().filter_map(Held::parse).collect()
    }

    /// Notes where they are, if they are not where they were.
    pub fn note_held(&self, held: &BTreeSet<Held>) {
        if self.held().into_iter().collect::<BTreeSet<_>>() != *held {
            let lines: Vec<String> = held.iter().map(ToString::to_string).collect();
            // Without it only the next look takes longer.
            let _ = render::write(&self.folder.join("sockets"), &lines.join("\n"));
        }
    }

    /// Notes that the database has just said which services are to run.
    pub fn note_asked(&self) {
        // Without it only the next check asks again.
        let _ = render::write(&self.folder.join("asked"), "");
    }

    /// True where it did so less than `limit` ago.
    pub fn has_asked_within(&self, limit: Duration) -> bool {
        let modified = fs::metadata(self.folder.join("asked")).and_then(|about| about.modified());
        // A time to come is that of another clock.
        modified.is_ok_and(|at| at.elapsed().is_ok_and(|ago| ago < limit))
    }

    /// Notes what this start changed in a database that was installed: a document, or nothing.
    pub fn note_changes(&self, document: &str) {
        if !document.is_empty() {
            // Only what a rollback tells is less exact without it.
            let _ = render::write(&self.folder.join("changes"), document);
        }
    }

    /// What this start changed in the database.
    pub fn changes(&self) -> Option<serde_json::Value> {
        serde_json::from_str(&fs::read_to_string(self.folder.join("changes")).ok()?).ok()
    }

    /// Notes which services the database said that an administrator does not want here.
    pub fn note_unwanted(&self, services: &BTreeSet<Service>) {
        if self.unwanted() != *services {
            let names: Vec<_> = services.iter().map(|service| service.name()).collect();
            let _ = render::write(&self.folder.join("unwanted"), &names.join(" "));
        }
    }

    /// What the database said last.
    pub fn unwanted(&self) -> BTreeSet<Service> {
        let text = fs::read_to_string(self.folder.join("unwanted")).unwrap_or_default();
        text.split_whitespace().filter_map(|name| name.parse().ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_earlier_process_noted_counts_for_nothing() {
        let root = tempfile::tempdir().unwrap();
        let run_state = RunState::of(&Paths::below(root.path()));
        run_state.begin().unwrap();
        assert_eq!(run_state.init(), Some(Pid::this()));
        fs::write(root.path().join("run/tars-init/init"), format!("{} 1", Pid::this())).unwrap();
        assert_eq!(run_state.init(), None, "the same process id, started at another time");
    }

    #[test]
    fn answers_and_stops_are_remembered_until_the_next_start() {
        let root = tempfile::tempdir().unwrap();
        let run_state = RunState::of(&Paths::below(root.path()));
        let own = Identity::of(Pid::this()).unwrap();
        assert_eq!(run_state.answered(Service::Stat), None);
        run_state.note_answer(Service::Stat, own);
        assert_eq!(run_state.answered(Service::Stat), Some(own));
        run_state.note_unwanted(&BTreeSet::from([Service::Stat, Service::Log]));
        assert_eq!(run_state.unwanted().len(), 2);
        run_state.begin().unwrap();
        assert_eq!(run_state.unwanted().len(), 0);
    }
}
