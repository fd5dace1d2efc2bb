//! Tests of tars-init with real processes and a real MariaDB.
#![allow(missing_docs, reason = "tests are named by what they hold")]
#![allow(clippy::unwrap_used, reason = "a test ends where something unexpected happens")]

mod account;
#[path = "../beside/mod.rs"]
mod beside;
#[path = "../certificates/mod.rs"]
mod certificates;
mod cluster;
mod columns;
mod container;
mod crashes;
mod database;
mod database_image;
mod drain;
mod faults;
mod fixture;
mod guard;
mod health;
mod identity;
mod lifecycle;
mod migration;
mod proxy;
mod registries;
mod secrets;
mod server;
mod silence;
mod statements;
mod stopping;
mod templates;
mod tls;
mod upstream;
mod versions;
mod volume;
mod words;
