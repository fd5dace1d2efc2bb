//! Signals as events: SIGTERM and SIGINT stop the container, SIGCHLD says that a process ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGCHLD, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::tars::Service;

use super::failure::{Code, Failure};
use super::silence::Answer;
use super::start_log::StartLog;

/// What PID 1 waits for: signals, and what its helper threads have found.
#[derive(Clone, Debug)]
pub enum Event {
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGCHLD.
    ChildEnded,
    /// All servants of a service have answered.
    Answers(Service),
    /// A registry has answered: tarsnode can start.
    RegistryAnswers,
    /// What nodes install from is there: the web console can be started.
    DownloadsMade,
    /// What the web console would drop is kept: it can start.
    ColumnsKept,
    /// Who lives was asked whether it answers.
    Asked(Answer),
}

/// Whether the container was told to stop.
#[derive(Clone, Debug)]
pub struct Stop {
    told: Arc<AtomicBool>,
    may_exit: Arc<AtomicBool>,
    code: Code,
}

impl Stop {
    /// True once SIGTERM or SIGINT has come.
    pub fn is_requested(&self) -> bool {
        self.told.load(Ordering::SeqCst)
    }

    /// Runs something that may hang (a connection, a name look-up) and that may be cut off at any point: a signal
    /// ends the process at once meanwhile. Within another such piece of work that goes on afterwards.
    pub fn may_exit_during<T>(&self, work: impl FnOnce() -> T) -> T {
        let could_before = self.may_exit.swap(true, Ordering::SeqCst);
        if self.is_requested() {
            std::process::exit(self.code as i32);
        }
        let done = work();
        self.may_exit.store(could_before, Ordering::SeqCst);
        done
    }

    /// Sleeps; a signal ends the process at once meanwhile.
    pub fn sleep(&self, length: Duration) {
        self.may_exit_during(|| {
            let until = Instant::now() + length;
            while !self.is_requested() && Instant::now() < until {
                thread::sleep(Duration::from_millis(20).min(until.saturating_duration_since(Instant::now())));
            }
        });
    }
}

#[cfg(test)]
impl Stop {
    /// One that a test tells by setting the flag.
    pub fn of_a_test() -> (Self, Arc<AtomicBool>) {
        let told: Arc<AtomicBool> = Arc::default();
        (Self { told: told.clone(), may_exit: Arc::default(), code: Code::Internal }, told)
    }
}

/// Takes the signals from now on and turns them into events. `code` ends a process that is told to stop before it is
/// through: a container was stopped as told, a migration is not done.
pub fn listen(log: &StartLog, events: Sender<Event>, code: Code) -> Result<Stop, Failure> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGCHLD])
        .map_err(|error| Failure::new(Code::Internal, format!("cannot take signals: {error}."), ""))?;
    let stop = Stop { told: Arc::default(), may_exit: Arc::default(), code };
    let (log, shared) = (log.clone(), stop.clone());
    thread::spawn(move || {
        for signal in &mut signals {
            if signal == SIGCHLD {
                let _ = events.send(Event::ChildEnded);
                continue;
            }
            shared.told.store(true, Ordering::SeqCst);
            if shared.may_exit.load(Ordering::SeqCst) {
                log.say(match code {
                    Code::Interrupted => {
                        "told to stop before it was done; a statement that the server is at goes on there, and the next run \
                         waits for it"
                    }
                    _ => "told to stop before anything was started",
                });
                std::process::exit(code as i32);
            }
            let _ = events.send(Event::Stop);
        }
    });
    Ok(stop)
}
