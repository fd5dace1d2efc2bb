//! The whole path as a user walks it: packages → images → engine → deployment → upgrade, with a real MariaDB.

mod back;
pub mod beside;
pub mod deployment;
mod drain;
mod engines;
mod faults;
mod guard;
mod losses;
mod odd;
mod secrets;
mod servers;
pub mod stage;
mod three;
mod upgrade;
