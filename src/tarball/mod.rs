//! Tar files as the world writes them: told by magic, read with every extension that changes a file, written by hand.
//!
//! The `tar` crate splits PAX records at line ends, knows no sparse file of PAX and hides global headers, so it reads
//! ordinary packages wrongly without saying so. It stays as the tests' second opinion, and where tarsup reads back what
//! engines save.

pub mod aside;
pub mod capabilities;
pub mod entry;
pub mod header;
pub mod magic;
mod pax;
pub mod reader;
mod sparse;

pub use capabilities::Capabilities;
pub use entry::{Entry, EntryKind};
pub use reader::{ReadError, TarReader};

/// The size of a header, and what contents are padded to.
pub(crate) const BLOCK: usize = 512;

/// How many bytes of padding follow a content of this size.
pub(crate) fn padding(size: u64) -> u64 {
    (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64
}
