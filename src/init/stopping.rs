//! The end: SIGTERM to the web console, then to tarsnode, then to all others, each awaited.
//!
//! tarsnode restarts what stops while it lives, and the web console asks services that are gone. What is left has the rest
//! of the time: tarsstat and tarsproperty write what they have gathered.

use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::tars::Service;

use super::paths::Paths;
use super::processes;
use super::signals::Event;
use super::start_log::StartLog;

/// SIGTERM is sent again so often: tarsnode ignores it until its own handlers are in.
const REMIND: Duration = Duration::from_secs(1);
/// How often it is looked who is left, without a signal.
const LOOK: Duration = Duration::from_millis(20);
/// What was killed is gone by then, or the kernel holds it.
const GONE: Duration = Duration::from_secs(1);
/// The web console and tarsnode have this part of the time each.
const SHARE: u32 = 4;

/// Stops everything below this process within `grace`; SIGKILL for what is left then.
pub fn stop_all(log: &StartLog, paths: &Paths, grace: Duration, web: &[Pid], events: &Receiver<Event>) {
    let begun = Instant::now();
    let count = processes::descendants(Pid::this()).len();
    log.say(format!("told to stop: {count} processes, the web console and tarsnode first"));
    let tarsnode = || own(paths, Service::Node);
    let living_web = || web.iter().copied().filter(|pid| processes::is_running(*pid)).collect();
    let all = || processes::descendants(Pid::this());
    end(log, begun + grace / SHARE, &living_web, events);
    end(log, Instant::now() + grace / SHARE, &tarsnode, events);
    end(log, begun + grace, &all, events);
    log.say(format!("stopped after {:.1} s", begun.elapsed().as_secs_f32()));
}

/// SIGTERM to these until they are gone, SIGKILL when their time is over.
fn end(log: &StartLog, until: Instant, which: &dyn Fn() -> Vec<Pid>, events: &Receiver<Event>) {
    let mut reminded: Option<Instant> = None;
    loop {
        while processes::next_dead().is_some() {}
        let left = which();
        if left.is_empty() {
            return;
        }
        if Instant::now() >= until {
            let names: Vec<_> =
                left.iter().map(|pid| format!("{} ({pid})", processes::command_name(*pid))).collect();
            log.say(format!("still there, killed: {}", names.join(", ")));
            signal_all(&left, Signal::SIGKILL);
            await_gone(&left);
            while processes::next_dead().is_some() {}
            return;
        }
        if reminded.is_none_or(|at| at.elapsed() >= REMIND) {
            signal_all(&left, Signal::SIGTERM);
            reminded = Some(Instant::now());
        }
        let _ = events.recv_timeout(LOOK);
    }
}

/// The processes of this container that run it.
pub fn own(paths: &Paths, service: Service) -> Vec<Pid> {
    let below = processes::descendants(Pid::this());
    let mut running = processes::running(&paths.program(service));
    running.retain(|pid| below.contains(pid));
    running
}

/// Sends it to all of them; who is gone by now does not matter.
pub fn signal_all(pids: &[Pid], signal: Signal) {
    for pid in pids {
        let _ = kill(*pid, signal);
    }
}

/// Waits until those that were killed are gone, a second at most.
pub fn await_gone(pids: &[Pid]) {
    let begun = Instant::now();
    while pids.iter().any(|pid| processes::is_running(*pid)) && begun.elapsed() < GONE {
        thread::sleep(Duration::from_millis(2));
    }
}
