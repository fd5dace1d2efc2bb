//! Tests that need no engine and no database.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod adopt;
mod archives;
mod backup_tools;
mod bad_input;
mod bases;
#[path = "../beside/mod.rs"]
mod beside;
mod build;
mod bundle;
mod compose;
#[allow(dead_code, reason = "what the engine in memory can do, whether or not a test asks for it today")]
mod fake;
#[macro_use]
#[path = "../contract/mod.rs"]
mod contract;
mod differ;
mod doors;
mod early;
mod ends;
mod engine_http;
mod engine_tls;
mod fake_contract;
mod fake_engine;
mod formats;
mod full;
mod gate;
mod gc;
mod guard;
mod house;
mod listless;
mod mixture;
mod output;
mod packages;
mod patch;
mod plan;
mod poison;
mod privileges;
mod programs;
mod registry;
mod reproduced;
mod rewrite;
mod rollout;
mod sbom;
mod store;
mod versions;
mod yaml;
