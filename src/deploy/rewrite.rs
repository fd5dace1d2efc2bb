//! Rewrites the tag of an image where it is written, and nothing else in the file; and takes it back.
//!
//! Text in, text out: the line is found by the place that the loader kept, the reference in it by its own text. What is
//! around it, quotes, comments, line ends, other lines, stays as it is byte for byte. Files are replaced by a temporary
//! one and a rename, with mode and owner kept; a symbolic link stays a link.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::desired::{Desired, ImageOrigin, Service};
use crate::diagnose::{Diagnose, Exit, Place};
use crate::limits;
use crate::oci::{Digest, Reference};

/// One file that was rewritten: enough to take it back, and no secret in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edit {
    /// The file, as an absolute path.
    pub file: PathBuf,
    /// The line, counted from 1.
    pub line: u64,
    /// Where in the file's bytes the text begins.
    pub offset: usize,
    /// What stood there.
    pub before: String,
    /// What stands there now.
    pub after: String,
    /// The digest of the whole file before the edit: it was taken back already.
    pub digest_before: Digest,
    /// The digest of the whole file after the edit: somebody else's change since is not undone.
    pub digest_after: Digest,
}

/// Why a tag cannot be rewritten. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RewriteError {
    /// The tag is not written in a way that can be changed by itself.
    #[error("the image of `{service}` cannot be rewritten: {why}")]
    Elsewhere {
        /// The service.
        service: String,
        /// Why.
        why: String,
        /// The line.
        place: Place,
    },
    /// Other services take their image from the same line.
    #[error("the image of `{service}` is also that of `{other}`, which keeps its version")]
    Shared {
        /// The service that would change.
        service: String,
        /// The service that would not.
        other: String,
        /// The line.
        place: Place,
    },
    /// The new image is of another repository, and a variable holds the tag alone.
    #[error(
        "`{wanted}` is not of the repository of `{service}`, {present}, and a variable holds the tag alone"
    )]
    OtherRepository {
        /// The service.
        service: String,
        /// The new reference.
        wanted: String,
        /// The declared one.
        present: String,
        /// The line.
        place: Place,
    },
    /// The file is not as it was when it was read, or when it was rewritten.
    #[error("the line no longer holds `{expected}`")]
    Changed {
        /// What should stand there.
        expected: String,
        /// The line.
        place: Place,
    },
    /// The file cannot be read or replaced.
    #[error("cannot rewrite {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's words.
        source: io::Error,
    },
}

impl Diagnose for RewriteError {
    fn exit(&self) -> Exit {
        match self {
            Self::Elsewhere { .. } | Self::OtherRepository { .. } => Exit::Usage,
            Self::Shared { .. } | Self::Changed { .. } => Exit::Refused,
            Self::Io { .. } => Exit::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Elsewhere { .. } => {
                "write the whole reference at `image:`, or exactly the tag in a variable of .env".to_owned()
            }
            Self::Shared { other, .. } => format!("write the image of `{other}` on a line of its own"),
            Self::OtherRepository { .. } => "change `image:` by hand, then run `tarsup upgrade`".to_owned(),
            Self::Changed { .. } => "look at the file and set the tag by hand".to_owned(),
            Self::Io { source, .. } => format!("make the file writable, then set the tag by hand: {source}"),
        })
    }

    fn place(&self) -> Option<Place> {
        match self {
            Self::Elsewhere { place, .. }
            | Self::Shared { place, .. }
            | Self::OtherRepository { place, .. }
            | Self::Changed { place, .. } => Some(place.clone()),
            Self::Io { path, .. } => Some(Place::file(path)),
        }
    }
}

/// The result of a rewrite.
pub type Result<T> = std::result::Result<T, RewriteError>;

/// One replacement: in which line, what by what.
struct Replacement {
    /// What stands before it.
    key: &'static str,
    before: String,
    after: String,
}

/// The new image of each service that gets one, by the service's name.
pub type NewImages = BTreeMap<String, Reference>;

/// The same image for several services.
pub fn same_image(services: &[&str], image: &Reference) -> NewImages {
    services.iter().map(|service| ((*service).to_owned(), image.clone())).collect()
}

/// What [`set_images`] would do, without doing it: a preflight, so that a commit does not fail at its last step.
pub fn check(desired: &Desired, images: &NewImages) -> Result<()> {
    edits(desired, images).map(drop)
}

/// Writes the tag of `image` where the images of `services` are written. All files or none.
pub fn set_image(desired: &Desired, services: &[&str], image: &Reference) -> Result<Vec<Edit>> {
    set_images(desired, &same_image(services, image))
}

/// Writes the tags of `images` where the images of those services are written. All files or none.
pub fn set_images(desired: &Desired, images: &NewImages) -> Result<Vec<Edit>> {
    let (edits, texts) = edits(desired, images)?;
    let mut written: Vec<(&PathBuf, &Vec<u8>)> = Vec::new();
    for (path, (old, new)) in &texts {
        if let Err(source) = replace(path, new) {
            for (path, old) in written {
                let _ = replace(path, old); // as far as it goes; the first failure is the one to report
            }
            return Err(RewriteError::Io { path: path.clone(), source });
        }
        written.push((path, old));
    }
    Ok(edits)
}

/// Takes rewrites back; twice is as good as once. A file that somebody changed since is left alone and reported.
pub fn undo(edits: &[Edit]) -> Result<()> {
    let mut files: BTreeMap<&PathBuf, Vec<&Edit>> = BTreeMap::new();
    for edit in edits {
        files.entry(&edit.file).or_default().push(edit);
    }
    let mut texts: Vec<(&PathBuf, Vec<u8>)> = Vec::new();
    for (file, edits) in files {
        let mut text = read(file)?;
        let digest = Digest::of(&text);
        if edits.first().is_some_and(|first| first.digest_before == digest) {
            continue;
        }
        let untouched = edits.last().is_some_and(|last| last.digest_after == digest);
        for edit in edits.iter().rev() {
            let end = edit.offset + edit.after.len();
            if !untouched || text.get(edit.offset..end) != Some(edit.after.as_bytes()) {
                let place = Place::line(file, edit.line);
                return Err(RewriteError::Changed { expected: edit.after.clone(), place });
            }
            text.splice(edit.offset..end, edit.before.bytes());
        }
        texts.push((file, text));
    }
    for (path, text) in texts {
        replace(path, &text).map_err(|source| RewriteError::Io { path: path.clone(), source })?;
    }
    Ok(())
}

/// Each file's text before and after.
type Texts = BTreeMap<PathBuf, (Vec<u8>, Vec<u8>)>;

fn edits(desired: &Desired, images: &NewImages) -> Result<(Vec<Edit>, Texts)> {
    let mut places: BTreeMap<Place, Replacement> = BTreeMap::new();
    for (service, image) in desired.services.iter().filter_map(|one| Some((one, images.get(&one.name)?))) {
        let (place, replacement) = replacement(service, image)?;
        let sharing = desired.services.iter().find(|other| {
            origin_place(other) == Some(&place)
                && images
                    .get(&other.name)
                    .is_none_or(|theirs| (&theirs.tag, theirs.digest) != (&image.tag, image.digest))
        });
        if let Some(other) = sharing {
            let (service, other) = (service.name.clone(), other.name.clone());
            return Err(RewriteError::Shared { service, other, place });
        }
        places.insert(place, replacement);
    }
    let mut texts = Texts::new();
    let mut edits: Vec<Edit> = Vec::new();
    // From the last line up, so that the offsets of the lines above hold.
    for (place, Replacement { key, before, after }) in places.into_iter().rev() {
        if before == after {
            continue;
        }
        let text = match texts.entry(place.file.clone()) {
            Entry::Occupied(entry) => &mut entry.into_mut().1,
            Entry::Vacant(entry) => {
                let text = read(&place.file)?;
                &mut entry.insert((text.clone(), text)).1
            }
        };
        let line = place.line.unwrap_or(1);
        let changed = || RewriteError::Changed { expected: before.clone(), place: place.clone() };
        let offset = find(text, line, key, &before).ok_or_else(changed)?;
        let digest_before = Digest::of(&*text);
        text.splice(offset..offset + before.len(), after.bytes());
        let digest_after = Digest::of(&*text);
        // The undo may run in another folder.
        let file = std::path::absolute(&place.file).unwrap_or(place.file);
        edits.push(Edit { file, line, offset, before, after, digest_before, digest_after });
    }
    Ok((edits, texts))
}

fn origin_place(service: &Service) -> Option<&Place> {
    match &service.image_origin {
        ImageOrigin::File(place) | ImageOrigin::DotEnv { place, .. } => Some(place),
        ImageOrigin::Elsewhere { .. } => None,
    }
}

/// What to replace for one service: the whole reference, or the tag alone where a variable holds just that.
fn replacement(service: &Service, image: &Reference) -> Result<(Place, Replacement)> {
    let (place, in_variable) = match &service.image_origin {
        ImageOrigin::File(place) => (place, false),
        ImageOrigin::DotEnv { place, .. } => (place, true),
        ImageOrigin::Elsewhere { place, why } => {
            let (service, why) = (service.name.clone(), why.clone());
            return Err(RewriteError::Elsewhere { service, why, place: place.clone() });
        }
    };
    let is_other = !service.image.same_repository(image);
    if is_other && in_variable && service.written.tag_alone {
        return Err(RewriteError::OtherRepository {
            service: service.name.clone(),
            wanted: image.to_string(),
            present: service.image.to_string(),
            place: place.clone(),
        });
    }
    let written = service.written.image.clone().unwrap_or_else(|| service.image.to_string());
    let tag = image.tag.clone().unwrap_or_else(|| "latest".to_owned());
    let suffix = image.digest.map(|digest| format!("@{digest}")).unwrap_or_default();
    let (name, old_tag) = split(&written);
    if in_variable && service.written.tag_alone {
        let before = old_tag.unwrap_or_default().to_owned();
        return Ok((place.clone(), Replacement { key: "=", before, after: format!("{tag}{suffix}") }));
    }
    let key = if in_variable { "=" } else { "image:" };
    if is_other {
        return Ok((place.clone(), Replacement { key, before: written, after: image.to_string() }));
    }
    Ok((place.clone(), Replacement { key, after: format!("{name}:{tag}{suffix}"), before: written }))
}

/// A written reference as its name, and what follows the colon of its tag.
fn split(written: &str) -> (&str, Option<&str>) {
    let name_and_tag = written.split_once('@').map_or(written, |(name, _)| name);
    match name_and_tag.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(&written[name.len() + 1..])),
        _ => (name_and_tag, None),
    }
}

/// The offset of `wanted` as the value of `key` in a line: not as a part of a longer word.
fn find(text: &[u8], line: u64, key: &str, wanted: &str) -> Option<usize> {
    if wanted.is_empty() {
        return None;
    }
    let skipped = usize::try_from(line.checked_sub(1)?).ok()?;
    let mut start = 0;
    for _ in 0..skipped {
        start += text.get(start..)?.iter().position(|byte| *byte == b'\n')? + 1;
    }
    let rest = text.get(start..)?;
    let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
    let line = &rest[..end];
    let wanted = wanted.as_bytes();
    let in_word =
        |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'/' | b'-' | b'@');
    // A comment is no value.
    let comment = line.windows(2).position(|pair| pair == b" #").unwrap_or(line.len());
    let last = comment.checked_sub(wanted.len())?;
    let mut found = (0..=last).filter(|at| {
        line[*at..].starts_with(wanted)
            && !at.checked_sub(1).is_some_and(|before| in_word(&line[before]))
            && !line.get(at + wanted.len()).is_some_and(|after| in_word(after) || *after == b':')
    });
    // With several on the line it is the one after the key; with several keys nobody can tell.
    let mut keys = (0..line.len()).filter(|at| line[*at..].starts_with(key.as_bytes()));
    let at = match (found.next()?, found.next(), keys.next(), keys.next()) {
        (only, None, _, _) => only,
        (first, Some(_), Some(key), None) => std::iter::once(first)
            .chain((first + 1..=last).filter(|at| line[*at..].starts_with(wanted)))
            .find(|at| *at > key)?,
        _ => return None,
    };
    Some(start + at)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    limits::read(path, &limits::TEXT).map_err(|source| RewriteError::Io { path: path.to_owned(), source })
}

/// Replaces a file's content in one step, keeping mode and owner.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let path = fs::canonicalize(path)?;
    let metadata = fs::metadata(&path)?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut file = tempfile::Builder::new().prefix(".tarsup-").tempfile_in(folder)?;
    file.write_all(text)?;
    file.as_file().set_permissions(fs::Permissions::from_mode(metadata.mode() & 0o7777))?;
    let made = file.as_file().metadata()?;
    if (made.uid(), made.gid()) != (metadata.uid(), metadata.gid()) {
        std::os::unix::fs::fchown(file.as_file(), Some(metadata.uid()), Some(metadata.gid()))?;
        // A change of owner may take mode bits away.
        file.as_file().set_permissions(fs::Permissions::from_mode(metadata.mode() & 0o7777))?;
    }
    file.as_file().sync_all()?;
    file.persist(&path).map_err(|error| error.error)?;
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_found_as_whole_words_in_their_line() {
        let text = b"a: tars/framework:1\nmysql: {image: mysql} # mysql\n  image: \"tars/framework:1\" # was :0\r\nx/tars/framework:12\n";
        assert_eq!(find(text, 1, "image:", "tars/framework:1"), Some(3));
        assert_eq!(find(text, 2, "image:", "mysql"), Some(35));
        assert_eq!(find(text, 3, "image:", "tars/framework:1"), Some(60));
        assert_eq!(find(text, 4, "image:", "tars/framework:1"), None);
        assert_eq!(find(text, 5, "image:", "tars"), None);
        assert_eq!(find(text, 99, "image:", "tars"), None);
        assert_eq!(find(text, 0, "image:", "tars"), None);
    }

    #[test]
    fn written_references_are_split_at_the_colon_of_the_tag() {
        for (written, expected) in [
            ("tars/framework:3.0.17", ("tars/framework", Some("3.0.17"))),
            ("tars/framework", ("tars/framework", None)),
            ("localhost:5000/a", ("localhost:5000/a", None)),
            ("localhost:5000/a:1", ("localhost:5000/a", Some("1"))),
            ("a:1@sha256:00", ("a", Some("1@sha256:00"))),
            ("a@sha256:00", ("a", None)),
        ] {
            assert_eq!(split(written), expected, "{written}");
        }
    }
}
