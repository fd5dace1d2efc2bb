//! Tests that need no engine and no database.

mod fake_engine;
mod house;
