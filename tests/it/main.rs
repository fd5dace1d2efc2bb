//! Tests that need no engine and no database.

mod house;
