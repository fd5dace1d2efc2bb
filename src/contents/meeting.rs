//! What becomes of two things that want one path: the one table of what may replace what.

use super::Kind;

/// Whose two things meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meeting {
    /// Two of one archive or of two layers that an engine unpacks in their order: it takes all (image-spec, layer.md, "Applying
    /// Changesets").
    Unpacked,
    /// The base has one, and one of ours is to lie there: what would take more away than itself, or turns a folder of the base into
    /// something else, is refused.
    OnBase,
    /// Both are ours, of one input or of two layers, whose order decides nothing.
    AmongOurs,
}

/// What becomes of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Both are one folder, with what is in both; the later one says its mode and owner.
    Merges,
    /// The new one is there, and the old one is not.
    Replaces,
    /// The same, and what was in the old folder goes with it.
    Empties,
    /// The new one lies where the old link leads.
    Follows,
    /// Nothing changes, where both are the same to the byte; otherwise it is refused.
    MustBeSame,
    /// It is not done.
    Refused,
}

/// What becomes of something new where something old stands.
///
/// | old → new | unpacked | on the base | among ours |
/// |---|---|---|---|
/// | folder → folder | merges | merges | merges |
/// | folder → file, device or link | empties | refused | refused |
/// | file or device → folder | replaces | refused | refused |
/// | file or device → file or device | replaces | replaces | must be the same |
/// | file or device → link | replaces | replaces | refused |
/// | link → folder | replaces | follows | refused |
/// | link → file or device | replaces | replaces | refused |
/// | link → link | replaces | replaces | must be the same |
///
/// On the base every link on the way has been followed: a link there that leads to a folder stands for the folder.
pub const fn outcome(meeting: Meeting, old: Kind, new: Kind) -> Outcome {
    use Kind::{File, Folder, Link};
    match (meeting, old, new) {
        (_, Folder, Folder) => Outcome::Merges,
        (Meeting::Unpacked, Folder, File | Link) => Outcome::Empties,
        (Meeting::Unpacked, File | Link, _) | (Meeting::OnBase, File | Link, File | Link) => {
            Outcome::Replaces
        }
        (Meeting::OnBase, Link, Folder) => Outcome::Follows,
        (Meeting::AmongOurs, File, File) | (Meeting::AmongOurs, Link, Link) => Outcome::MustBeSame,
        (Meeting::OnBase | Meeting::AmongOurs, _, _) => Outcome::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tarball::EntryKind;

    #[test]
    fn table_is_what_the_page_says() {
        use Kind::{File, Folder, Link};
        use Outcome::{Empties, Follows, Merges, MustBeSame, Refused, Replaces};
        for (old, new, unpacked, on_base, among_ours) in [
            (Folder, Folder, Merges, Merges, Merges),
            (Folder, File, Empties, Refused, Refused),
            (Folder, Link, Empties, Refused, Refused),
            (File, Folder, Replaces, Refused, Refused),
            (File, File, Replaces, Replaces, MustBeSame),
            (File, Link, Replaces, Replaces, Refused),
            (Link, Folder, Replaces, Follows, Refused),
            (Link, File, Replaces, Replaces, Refused),
            (Link, Link, Replaces, Replaces, MustBeSame),
        ] {
            let found = [Meeting::Unpacked, Meeting::OnBase, Meeting::AmongOurs]
                .map(|meeting| outcome(meeting, old, new));
            assert_eq!(found, [unpacked, on_base, among_ours], "{old:?} → {new:?}");
        }
    }

    #[test]
    fn whatever_an_archive_has_is_of_a_kind() {
        for (entry, kind) in [
            (EntryKind::Directory, Kind::Folder),
            (EntryKind::Symlink, Kind::Link),
            (EntryKind::File, Kind::File),
            (EntryKind::HardLink, Kind::File),
            (EntryKind::CharacterDevice, Kind::File),
            (EntryKind::BlockDevice, Kind::File),
            (EntryKind::Fifo, Kind::File),
            (EntryKind::Other(b'Z'), Kind::File),
        ] {
            assert_eq!(Kind::of(entry), kind, "{entry:?}");
        }
    }
}
