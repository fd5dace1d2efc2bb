//! One entry of a tar, with everything that its extension headers say of it.

use super::capabilities::{ATTRIBUTE, Capabilities};
use super::sparse::Segment;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A folder.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A second name of a file before it.
    HardLink,
    /// A character device.
    CharacterDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// Any other type flag.
    Other(u8),
}

/// An entry, its extension headers applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name as written, any bytes.
    pub name: Vec<u8>,
    /// Where a link points, as written.
    pub target: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// When it was changed, in seconds since 1970; negative before.
    pub modified: i64,
    /// How many bytes the file has, holes included.
    pub size: u64,
    /// Extended attributes, by name.
    pub attributes: Vec<(String, Vec<u8>)>,
    /// Where the bytes belong that are in the tar; `None` for a file without holes.
    pub(super) segments: Option<Vec<Segment>>,
}

impl Entry {
    /// True for a file with holes, which may be larger than its tar.
    pub fn is_sparse(&self) -> bool {
        self.segments.is_some()
    }

    /// The file capabilities that it has, in whatever records they are written.
    ///
    /// # Errors
    /// Why they cannot be kept.
    pub fn capabilities(&self) -> Result<Option<Capabilities>, &'static str> {
        let mut found = None;
        for (_, value) in self.attributes.iter().filter(|(name, _)| name == ATTRIBUTE) {
            let capabilities = Capabilities::from_attribute(value)?;
            if found.is_some_and(|before| before != capabilities) {
                return Err("twice, and not the same");
            }
            found = Some(capabilities);
        }
        Ok(found)
    }
}
