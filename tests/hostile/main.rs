//! What somebody else may have written, at its worst: each input ends with a sentence, within bounds, and tells no secret.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::too_many_lines,
    clippy::format_collect,
    clippy::format_push_string,
    reason = "lists of inputs, small ones"
)]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "any byte serves as noise")]

mod archives;
mod attack;
mod builds;
mod deployments;
mod elves;
mod engine;
mod images;
mod kinds;
mod memory;
#[allow(dead_code, reason = "a workshop of the other tests")]
#[path = "../it/packages.rs"]
mod packages;
#[allow(dead_code, reason = "a workshop of the other tests")]
#[path = "../it/programs.rs"]
mod programs;
mod recipes;
mod registry;
#[allow(dead_code, reason = "a registry of the other tests")]
#[path = "../it/registry/stub.rs"]
mod stub;
mod tarballs;
