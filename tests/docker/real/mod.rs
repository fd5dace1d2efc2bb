//! The real framework, built from upstream's source: what claims to cover it runs on it. Its packages lie beside the
//! project; without them these tests are skipped, and say so.

mod abi;
mod adopt;
mod adopt_rebuild;
mod backup;
mod beside;
mod columns;
mod costs;
mod crashes;
mod deployed;
mod downloads;
mod drain;
mod dwell;
mod hello;
mod kills;
mod limits;
mod lines;
mod machine;
mod preflight;
mod publish;
mod roll;
mod rows;
mod secrets;
mod silence;
mod stage;
mod tables;
mod web;
