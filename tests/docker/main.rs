//! Tests against a real Docker engine, named by `DOCKER_HOST`: `sh tests/all.sh` brings one.

#![expect(clippy::unwrap_used, reason = "a test says what failed by failing")]

#[path = "../beside/mod.rs"]
mod beside;
#[path = "../certificates/mod.rs"]
mod certificates;
#[macro_use]
#[path = "../contract/mod.rs"]
mod contract;
mod bases;
mod compose_beside;
mod daemon_copy;
mod e2e;
mod engine_contract;
mod engine_lost;
mod far;
mod inspected;
mod looked_at;
mod real;
mod recreate;
mod run_lines;
mod shapes;
mod tiny;
mod turns;
