//! Tests that need no engine and no database.

#[macro_use]
#[path = "../contract/mod.rs"]
mod contract;
mod fake_contract;
mod fake_engine;
mod house;
