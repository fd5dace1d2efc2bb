//! Tests of tars-init with real processes and a real MariaDB.
#![allow(missing_docs, reason = "tests are named by what they hold")]
#![allow(clippy::unwrap_used, reason = "a test ends where something unexpected happens")]

mod cluster;
mod container;
mod database;
mod fixture;
mod guard;
mod health;
mod lifecycle;
mod proxy;
mod server;
mod upstream;
