//! A path in an image: the one form of whatever recipes, packages, bases and lists write, proven to fit.

use std::borrow::Borrow;
use std::fmt;
use std::io;
use std::iter;
use std::ops::Deref;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What a Linux file system takes of one name, in bytes.
const LONGEST_PART: usize = 255;
/// What the kernel takes of a path, without the zero at its end.
const LONGEST: usize = 4095;
/// In a layer such a name takes a file away from the layers below (image-spec, layer.md, "Whiteouts").
const WHITEOUT: &str = ".wh.";
/// Such a file takes away whatever the layers below have in its folder.
const OPAQUE: &str = ".wh..wh..opq";
/// What aufs kept for itself begins so.
const OF_AUFS: &str = ".wh..wh.";

/// Why no image can hold a file of a name: words that follow the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// A part of it is `..`: where that leads, links decide.
    #[error("has `..` in its name")]
    Climbs,
    /// So many bytes in all.
    #[error("has a name of {0} bytes; no path has more than {LONGEST}")]
    Long(usize),
    /// So many bytes in one part.
    #[error("has a part of {0} bytes in its name; no file system takes more than {LONGEST_PART}")]
    LongPart(usize),
    /// The kernel would see a shorter name.
    #[error("has a nul byte in its name")]
    Nul,
    /// It would not be there, and something else would go.
    #[error("has a name that deletes files in an image (`.wh.`)")]
    Deletes,
}

/// A path from the root of an image, in the one form that it has: parts with one `/` between them, none of them empty, `.` or
/// `..`, none the name of a whiteout, none longer than a file system takes. The root is the empty one.
///
/// It is made by [`ImagePathBuf::parse`] alone, or of another one. What was no UTF-8 is U+FFFD in it, as in the lists, which are
/// JSON: two such names may be one path, and none of them is ever written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImagePath<'p>(&'p str);

/// An [`ImagePath`] that owns its text.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImagePathBuf(String);

impl<'p> ImagePath<'p> {
    /// The root of an image.
    pub const ROOT: Self = Self("");

    /// A path of ours, proven when it is compiled; one leading `/` is left out.
    ///
    /// # Panics
    /// Where it is not in the form of a path: meant for constants, where that ends the compilation.
    pub const fn known(path: &'static str) -> ImagePath<'static> {
        let path = match path.as_bytes() {
            [b'/', ..] => path.split_at(1).1,
            _ => path,
        };
        assert!(is_path(path.as_bytes()), "no path");
        ImagePath(path)
    }

    /// The text, without a leading `/`.
    pub const fn as_str(self) -> &'p str {
        self.0
    }

    /// True for the root.
    pub const fn is_root(self) -> bool {
        self.0.is_empty()
    }

    /// The folder that it lies in.
    #[must_use]
    pub fn folder(self) -> Self {
        Self(self.0.rsplit_once('/').map_or("", |(folder, _)| folder))
    }

    /// The last part.
    #[must_use]
    pub fn name(self) -> Self {
        Self(self.0.rsplit('/').next().unwrap_or(self.0))
    }

    /// The folders above it, the nearest first, without the root.
    pub fn ancestors(self) -> impl Iterator<Item = Self> {
        let is_one = |path: &Self| !path.is_root();
        iter::successors(Some(self.folder()).filter(is_one), move |path| Some(path.folder()).filter(is_one))
    }

    /// What follows a folder, where it lies below it.
    pub fn below(self, folder: ImagePath<'_>) -> Option<Self> {
        let rest = match folder.0 {
            "" => self.0,
            folder => self.0.strip_prefix(folder)?.strip_prefix('/')?,
        };
        (!rest.is_empty()).then_some(Self(rest))
    }

    /// A path below this one.
    ///
    /// # Errors
    /// Both together are too long.
    pub fn join(self, rest: ImagePath<'_>) -> Result<ImagePathBuf, Unfit> {
        let joint = if self.is_root() || rest.is_root() { "" } else { "/" };
        let joined = [self.0, joint, rest.0].concat();
        match measured(&joined) {
            length if length > LONGEST => Err(Unfit::Long(length)),
            _ => Ok(ImagePathBuf(joined)),
        }
    }

    /// The name of the file that takes this one away from the layers below. It may be longer than a file system takes: engines
    /// read it, and write none.
    pub fn whiteout(self) -> ImagePathBuf {
        let folder = self.folder();
        let joint = if folder.is_root() { "" } else { "/" };
        ImagePathBuf([folder.0, joint, WHITEOUT, self.name().0].concat())
    }

    /// The same, with a text of its own.
    pub fn to_buf(self) -> ImagePathBuf {
        ImagePathBuf(self.0.to_owned())
    }
}

impl ImagePathBuf {
    /// What a name means, as every engine reads it: slashes that lead, follow or double, and parts that are `.`, are left out.
    /// Whether a name may begin with a slash, its reader says.
    ///
    /// # Errors
    /// No image can hold a file of this name.
    pub fn parse(written: impl AsRef<[u8]>) -> Result<Self, Unfit> {
        let text = String::from_utf8_lossy(written.as_ref());
        // Most are written as they are meant.
        if is_path(text.as_bytes()) {
            return Ok(Self(text.into_owned()));
        }
        let mut path = Self(String::with_capacity(text.len()));
        for part in text.split('/').filter(|part| !matches!(*part, "" | ".")) {
            fits(part)?;
            path.append(part);
        }
        match measured(&path.0) {
            length if length > LONGEST => Err(Unfit::Long(length)),
            _ => Ok(path),
        }
    }

    /// The text, without a leading `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path itself.
    pub fn path(&self) -> ImagePath<'_> {
        ImagePath(&self.0)
    }

    /// Goes down by one part. `.` and nothing stay, and `..` goes up, as far as the root.
    ///
    /// # Errors
    /// No image can hold a file of this name.
    pub(super) fn go(&mut self, part: &str) -> Result<(), Unfit> {
        match part {
            "" | "." => {}
            ".." => self.0.truncate(self.path().folder().0.len()),
            _ => {
                fits(part)?;
                self.append(part);
                let length = measured(&self.0);
                if length > LONGEST {
                    return Err(Unfit::Long(length));
                }
            }
        }
        Ok(())
    }

    fn append(&mut self, part: &str) {
        if !self.0.is_empty() {
            self.0.push('/');
        }
        self.0.push_str(part);
    }

    /// A path that was in a table: it was proven when it was put there.
    pub(super) fn of_row(path: &[u8]) -> Self {
        // Two paths of a row may differ in the middle of a character; each is whole.
        Self(String::from_utf8_lossy(path).into_owned())
    }
}

/// True for what is in the form of a path already, and short enough at that: what [`ImagePathBuf::parse`] leaves as it is.
const fn is_path(text: &[u8]) -> bool {
    if text.is_empty() || text.len() > LONGEST {
        return text.is_empty();
    }
    let (mut start, mut at) = (0, 0);
    loop {
        if at == text.len() || text[at] == b'/' {
            let (_, rest) = text.split_at(start);
            let (part, _) = rest.split_at(at - start);
            let is_other = matches!(part, b"" | b"." | b".." | [b'.', b'w', b'h', b'.', ..]);
            if is_other || part.len() > LONGEST_PART {
                return false;
            }
            if at == text.len() {
                return true;
            }
            start = at + 1;
        } else if text[at] == 0 {
            return false;
        }
        at += 1;
    }
}

/// Why this is no part of a path.
fn fits(part: &str) -> Result<(), Unfit> {
    if part == ".." {
        return Err(Unfit::Climbs);
    }
    if part.contains('\0') {
        return Err(Unfit::Nul);
    }
    if part.len() > LONGEST_PART {
        let length = measured(part);
        if length > LONGEST_PART {
            return Err(Unfit::LongPart(length));
        }
    }
    if part.starts_with(WHITEOUT) { Err(Unfit::Deletes) } else { Ok(()) }
}

/// Bytes of a text. U+FFFD counts as the one byte that it stands for, so that a name fits again that was read back from a list.
fn measured(text: &str) -> usize {
    if text.len() <= LONGEST_PART {
        return text.len();
    }
    text.len() - 2 * text.matches(char::REPLACEMENT_CHARACTER).count()
}

/// Why a link cannot point there: what is written may climb, begin with a slash, and name what deletes nothing there.
///
/// # Errors
/// The kernel takes no such target.
pub fn target_fits(written: &[u8]) -> Result<(), Unfit> {
    if written.len() > LONGEST {
        return Err(Unfit::Long(written.len()));
    }
    if written.contains(&0) { Err(Unfit::Nul) } else { Ok(()) }
}

/// What an entry of a layer is by its name (image-spec, layer.md, "Whiteouts").
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayerName {
    /// What stands at this path; at the root, nothing new.
    Here(ImagePathBuf),
    /// What the layers below have at this path and below it is gone.
    Gone(ImagePathBuf),
    /// What the layers below have in this folder is gone; the folder stays.
    Opaque(ImagePathBuf),
    /// Something that an engine of the past kept for itself.
    Nothing,
}

impl LayerName {
    /// Reads the name of an entry. A leading slash is that of the image, for every engine.
    ///
    /// # Errors
    /// No image can hold a file of this name, and none can be deleted by it.
    pub fn parse(written: &[u8]) -> Result<Self, Unfit> {
        let text = String::from_utf8_lossy(written);
        let mut rest = &*text;
        while let Some(shorter) = rest.strip_suffix('/').or_else(|| rest.strip_suffix("/.")) {
            rest = shorter;
        }
        let (folder, name) = rest.rsplit_once('/').unwrap_or(("", rest));
        let Some(gone) = name.strip_prefix(WHITEOUT) else {
            return ImagePathBuf::parse(&*text).map(Self::Here);
        };
        let mut path = ImagePathBuf::parse(folder)?;
        match name {
            OPAQUE => return Ok(Self::Opaque(path)),
            _ if name.starts_with(OF_AUFS) => return Ok(Self::Nothing),
            // An engine would delete the folder, or what is above it.
            _ if matches!(gone, "" | "." | "..") => return Err(Unfit::Deletes),
            _ => path.go(gone)?,
        }
        Ok(Self::Gone(path))
    }

    /// The same for whoever reads a layer and says no more of it.
    ///
    /// # Errors
    /// The name, and what is wrong with it.
    pub fn read(written: &[u8]) -> io::Result<Self> {
        Self::parse(written).map_err(|why| {
            let name: String = String::from_utf8_lossy(written).escape_debug().take(200).collect();
            io::Error::new(io::ErrorKind::InvalidData, format!("entry `{name}` {why}"))
        })
    }

    /// The path of the entry itself in its layer; `None` for what means nothing.
    pub fn in_layer(self) -> Option<ImagePathBuf> {
        match self {
            Self::Here(path) => Some(path),
            Self::Gone(path) => Some(path.path().whiteout()),
            Self::Opaque(mut folder) => {
                folder.append(OPAQUE);
                Some(folder)
            }
            Self::Nothing => None,
        }
    }
}

/// Why nobody knows where a path leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// Links that lead in a circle.
    #[error("has links on its way that lead in a circle")]
    Circle,
    /// A link that leads to what no image can hold.
    #[error(transparent)]
    Unfit(#[from] Unfit),
}

/// Where a name in a folder leads, every link followed, as within the image's root; `link` says where a path points that is a
/// link. The folder has been followed already.
///
/// # Errors
/// See [`Lost`].
pub fn follow(
    link: impl Fn(&str) -> Option<String>,
    folder: ImagePath<'_>,
    name: &str,
) -> Result<ImagePathBuf, Lost> {
    /// As many as the kernel follows.
    const MOST_LINKS: usize = 40;
    let mut followed = 0;
    let mut rest: Vec<String> = vec![name.to_owned()];
    let mut reached = folder.to_buf();
    while let Some(part) = rest.pop() {
        let end = reached.len();
        reached.go(&part)?;
        if reached.len() <= end {
            continue;
        }
        let Some(target) = link(&reached) else { continue };
        followed += 1;
        if followed > MOST_LINKS {
            return Err(Lost::Circle);
        }
        reached.0.truncate(if target.starts_with('/') { 0 } else { end });
        rest.extend(target.split('/').rev().map(str::to_owned));
    }
    Ok(reached)
}

/// Where a whole path leads, as a program names it; `link` as for [`follow`]. None where nobody knows.
pub fn led(link: impl Fn(&str) -> Option<String>, path: &str) -> Option<ImagePathBuf> {
    let root = ImagePathBuf::default();
    path.split('/').try_fold(root, |folder, name| follow(&link, folder.path(), name)).ok()
}

/// Where an entry of a layer lands that comes after links on its way, in the tar that has both: every engine follows them there.
/// What leads in a circle stays as it is. `link` as for [`follow`], of this tar alone.
pub fn within_links(link: impl Fn(&str) -> Option<String>, path: ImagePathBuf) -> ImagePathBuf {
    let Some((folder, name)) = path.rsplit_once('/') else { return path };
    if !path.path().ancestors().any(|above| link(&above).is_some()) {
        return path;
    }
    let led = led(link, folder).and_then(|folder| ImagePathBuf::parse(format!("{folder}/{name}")).ok());
    led.unwrap_or(path)
}

impl Deref for ImagePath<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        self.0
    }
}

impl Deref for ImagePathBuf {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for ImagePathBuf {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for ImagePathBuf {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ImagePath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl fmt::Display for ImagePathBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<ImagePathBuf> for String {
    fn from(path: ImagePathBuf) -> Self {
        path.0
    }
}

impl Serialize for ImagePathBuf {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ImagePathBuf {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = String::deserialize(deserializer)?;
        if is_path(written.as_bytes()) {
            return Ok(Self(written));
        }
        let unfit = |why| serde::de::Error::custom(format!("`{}` {why}", written.escape_debug()));
        Self::parse(&written).map_err(unfit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(written: &str) -> Result<String, Unfit> {
        ImagePathBuf::parse(written).map(String::from)
    }

    #[test]
    fn every_spelling_of_a_path_is_one_path() {
        for written in [
            "usr/lib/x",
            "/usr/lib/x",
            "./usr/lib/x",
            "//usr//lib64/../x",
            "usr/./lib//x/",
            "/./usr/lib/./x/.",
        ] {
            let expected =
                if written.contains("..") { Err(Unfit::Climbs) } else { Ok("usr/lib/x".to_owned()) };
            assert_eq!(parsed(written), expected, "{written}");
        }
        for root in ["", "/", ".", "./", "//./"] {
            assert_eq!(parsed(root).as_deref(), Ok(""), "{root}");
        }
    }

    #[test]
    fn names_fit_up_to_the_byte() {
        let part = |length| "x".repeat(length);
        let path = |length: usize| "a/".repeat(length / 2) + &part(length % 2);
        for fits in [part(255), format!("a/{}", part(255)), path(4095), "a.wh.b".to_owned(), ".w".to_owned()]
        {
            assert_eq!(parsed(&fits), Ok(fits));
        }
        // What is left out counts for nothing.
        assert_eq!(parsed(&format!("{}x", "./".repeat(5000))).as_deref(), Ok("x"));
        for (wrong, why) in [
            (part(256), Unfit::LongPart(256)),
            (format!("a/{}/b", part(256)), Unfit::LongPart(256)),
            (path(4095) + "/a", Unfit::Long(4097)),
            ("a\0b".to_owned(), Unfit::Nul),
            ("a/.wh.b".to_owned(), Unfit::Deletes),
            (".wh..wh..opq/b".to_owned(), Unfit::Deletes),
            ("a/../b".to_owned(), Unfit::Climbs),
            ("..".to_owned(), Unfit::Climbs),
        ] {
            assert_eq!(parsed(&wrong), Err(why));
        }
        let half = ImagePathBuf::parse(path(2049)).unwrap();
        assert_eq!(half.path().join(half.path()), Err(Unfit::Long(4099)));
    }

    #[test]
    fn what_is_a_path_already_is_left_as_it_is_and_nothing_else() {
        let part = |length| "x".repeat(length);
        for text in [
            "",
            "a",
            "a/b",
            "..a/.w/...",
            &part(255),
            &format!("{}/a", part(255)),
            &"a/".repeat(2047).replace("//", "/"),
        ] {
            let is_same = ImagePathBuf::parse(text).is_ok_and(|path| path.as_str() == text);
            assert_eq!(is_path(text.as_bytes()), is_same, "{text}");
        }
        for text in [
            "/",
            "/a",
            "a/",
            "a//b",
            "./a",
            "a/.",
            "a/./b",
            "..",
            "a/..",
            "../a",
            ".wh.a",
            "a/.wh.b/c",
            "a\0",
            &part(256),
        ] {
            assert!(!is_path(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn name_that_is_no_utf_8_comes_back_from_a_list_as_it_was() {
        let written = [0xff; 255];
        let path = ImagePathBuf::parse(written).unwrap();
        let text = serde_json::to_string(&path).unwrap();
        assert_eq!(serde_json::from_str::<ImagePathBuf>(&text).unwrap(), path);
        assert_eq!(ImagePathBuf::parse([0xff; 256]), Err(Unfit::LongPart(256)));
        assert!(serde_json::from_str::<ImagePathBuf>(r#""a/../b""#).is_err());
    }

    #[test]
    fn parts_of_a_path_are_paths() {
        const PATH: ImagePath<'static> = ImagePath::known("/usr/local/app");
        assert_eq!(
            (PATH.as_str(), PATH.name().as_str(), PATH.folder().as_str()),
            ("usr/local/app", "app", "usr/local")
        );
        assert!(PATH.ancestors().map(ImagePath::as_str).eq(["usr/local", "usr"]));
        assert_eq!(PATH.below(ImagePath::known("usr")), Some(ImagePath::known("local/app")));
        assert_eq!(PATH.below(ImagePath::ROOT), Some(PATH));
        for stranger in ["usr/loc", "usr/local/app", "usr/local/app/x", "local"] {
            assert_eq!(PATH.below(ImagePath::known(stranger)), None, "{stranger}");
        }
        assert_eq!(PATH.whiteout().as_str(), "usr/local/.wh.app");
        assert_eq!(ImagePath::known("a").whiteout().as_str(), ".wh.a");
        assert_eq!(ImagePath::ROOT.join(PATH).unwrap().path(), PATH);
    }

    #[test]
    fn entry_of_a_layer_is_there_or_takes_something_away() {
        let path = |text: &str| ImagePathBuf::parse(text).unwrap();
        for (written, expected) in [
            ("usr/x", Ok(LayerName::Here(path("usr/x")))),
            ("/./", Ok(LayerName::Here(path("")))),
            ("./usr/.wh.x", Ok(LayerName::Gone(path("usr/x")))),
            (".wh.x", Ok(LayerName::Gone(path("x")))),
            ("usr/.wh.x/./", Ok(LayerName::Gone(path("usr/x")))),
            ("/usr//.wh..wh..opq", Ok(LayerName::Opaque(path("usr")))),
            (".wh..wh..opq", Ok(LayerName::Opaque(path("")))),
            (".wh..wh.plnk", Ok(LayerName::Nothing)),
            ("usr/.wh.", Err(Unfit::Deletes)),
            ("usr/.wh..", Err(Unfit::Deletes)),
            ("usr/.wh...", Err(Unfit::Deletes)),
            ("usr/.wh.x/y", Err(Unfit::Deletes)),
            ("usr/.wh.x/.wh.y", Err(Unfit::Deletes)),
            ("../.wh.x", Err(Unfit::Climbs)),
            ("usr/.wh.a\0", Err(Unfit::Nul)),
        ] {
            assert_eq!(LayerName::parse(written.as_bytes()), expected, "{written}");
        }
        for (written, path) in [
            ("./usr//x/", Some("usr/x")),
            ("usr/./.wh.x", Some("usr/.wh.x")),
            ("/usr/.wh..wh..opq/", Some("usr/.wh..wh..opq")),
            (".wh..wh..opq", Some(".wh..wh..opq")),
            (".wh..wh.plnk", None),
        ] {
            let found = LayerName::read(written.as_bytes()).unwrap().in_layer();
            assert_eq!(found.as_deref(), path, "{written}");
        }
        let message = LayerName::read(b"usr/\x1b/../x").unwrap_err().to_string();
        assert_eq!(message, "entry `usr/\\u{1b}/../x` has `..` in its name");
    }
}
