//! The whole path as a user walks it: packages → images → engine → deployment → upgrade, with a real MariaDB.

mod deployment;
mod guard;
mod stage;
mod upgrade;
