//! One entry of a tar, with everything that its extension headers say of it.

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

    /// What lets a program do more than who starts it, and would be lost with normal modes: in words, with the bit or
    /// attribute.
    pub fn privilege(&self) -> Option<&'static str> {
        let file = matches!(self.kind, EntryKind::File | EntryKind::HardLink);
        if file && self.mode & 0o4000 != 0 {
            return Some("is setuid");
        }
        if file && self.mode & 0o2000 != 0 {
            return Some("is setgid");
        }
        let capability = |(name, _): &(String, Vec<u8>)| name == "security.capability";
        self.attributes.iter().any(capability).then_some("has file capabilities (security.capability)")
    }
}
