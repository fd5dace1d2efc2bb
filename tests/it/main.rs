//! Tests that need no engine and no database.

mod compose;
#[macro_use]
#[path = "../contract/mod.rs"]
mod contract;
mod fake_contract;
mod fake_engine;
mod guard;
mod house;
mod rewrite;
mod rollout;
