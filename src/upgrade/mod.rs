//! Rolling a deployment: plan, step, journal, gate and unwind are pure; `run` is the one loop that acts.
//!
//! One deploy: the engine's lock is taken ([`lock`]), the state observed, a plan made ([`plan`]), its record put into the
//! lock, its steps carried out one by one ([`run`]), each in the journal before and after ([`journal`]). Then the deploy
//! is committed, or unwound ([`unwind`]) from what the engine shows. [`drive`] is that sequence, [`intent`] what a
//! command asks for, [`names`] how containers and deploys are called.
//!
//! The state of a deploy that was cut off is never replayed from a log. It follows from three things that the engine
//! holds: the lock with its record, the labels of the containers, and their names and states. Every step therefore
//! leaves a state that tells which step it was.

mod adopted;
pub mod backup;
mod batches;
mod beside;
pub mod body;
mod callers;
pub mod cluster_probe;
mod data;
pub mod differ;
mod drain;
mod draining;
pub mod drive;
mod facts;
pub mod failure;
pub mod finding;
mod finish;
mod follow;
pub mod gate;
pub mod glance;
mod heard;
mod held;
mod inside;
pub mod intent;
pub mod journal;
mod keep;
pub mod kept;
mod leaning;
pub mod length;
mod locators;
pub mod lock;
mod loss;
pub mod machine;
pub mod mask;
mod migration;
pub mod names;
pub mod offer;
mod one_off;
mod order;
mod other_start;

mod outage;
pub mod overview;
pub mod owner;
pub mod parked;
pub mod plan;
pub mod preflight;
mod preview;
mod prune;
mod published;
pub mod record;
pub mod refusal;
mod remake;
pub mod render;
pub mod resume;
pub mod retire;
pub mod retry;
pub mod rollback;
pub mod run;
mod runnable;
mod secure;
pub mod seen;
mod serving;
pub mod state;
pub mod step;
mod survey;
pub mod swap;
mod take_back;
pub mod unfinished;
pub mod unwind;
mod watch;

pub use drive::Deploy;
pub use failure::DeployFailure;
pub use intent::Intent;
pub use names::DeployId;
pub use offer::{Offer, Request};
pub use refusal::Refusal;
pub use resume::{ResumeOptions, Resumed};
pub use step::{Action, Plan, Step, Touched};
