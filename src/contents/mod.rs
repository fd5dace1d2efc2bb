//! What an image says of its own files: a list in a small layer, read instead of the layers themselves.
//!
//! Why it is a layer, and what that costs: docs/0004-contents-list.md.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufReader, Read as _};

use serde::{Deserialize, Serialize, Serializer};

use crate::elf::Elf;
use crate::limits;
use crate::oci::{Digest, HashingWriter, Image, sizes};
use crate::paths::{self, ImagePath, ImagePathBuf, LayerName, Packed, Paths, image, put_number, take_number};
use crate::tarball::{Capabilities, EntryKind, TarReader, magic};

pub mod debian;
pub mod meeting;
pub mod npm;
pub mod summary;

use meeting::{Meeting, Outcome};
use npm::Module;

/// The folder that the list lies in: a file for each part, named as its layer, with `.json`.
pub const FOLDER: &str = "/usr/share/tarsup/contents";
/// The last layer of every image of ours: the parts of what changes often.
pub const LAYER: &str = "contents";
/// The layer above base and web console: their parts are large, and change seldom.
pub const LAYER_BELOW: &str = "contents-below";
/// The version of the format; a list of another one counts as none.
const VERSION: u32 = 1;

/// What stands at a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A file, a device or a pipe.
    #[default]
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Link,
}

impl Kind {
    /// What an entry of an archive is, where it is unpacked.
    pub const fn of(entry: EntryKind) -> Self {
        match entry {
            EntryKind::Directory => Self::Folder,
            EntryKind::Symlink => Self::Link,
            _ => Self::File,
        }
    }
}

/// What is visible at a path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Entry {
    /// What it is.
    #[serde(skip_serializing_if = "is_default")]
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky; 0 for a link, and for a file of the base.
    #[serde(skip_serializing_if = "is_default")]
    pub mode: u32,
    /// Owner.
    #[serde(skip_serializing_if = "is_default")]
    pub uid: u64,
    /// Group.
    #[serde(skip_serializing_if = "is_default")]
    pub gid: u64,
    /// Bytes of a file; 0 for one of the base.
    #[serde(skip_serializing_if = "is_default")]
    pub size: u64,
    /// The digest of a file's bytes; none for one of the base.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// What a file lets its program do that its starter may not; none is told of a base.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
    /// Where a link points, as written.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub target: String,
    /// Which of the part's layers it lies in.
    #[serde(skip_serializing_if = "is_default")]
    pub layer: usize,
}

impl Entry {
    /// True for the same thing, whichever layer it lies in.
    pub fn is_same(&self, other: &Self) -> bool {
        let here = |entry: &Self| Self { layer: 0, ..entry.clone() };
        here(self) == here(other)
    }

    /// What lets a program do more than who starts it, in words: `setuid cap_net_raw=ep`.
    pub fn privileges(&self) -> Option<String> {
        (self.kind == Kind::File).then(|| privileges(self.mode, self.capabilities)).flatten()
    }
}

/// What lets a program of these permission bits and capabilities do more than who starts it, in words.
pub fn privileges(mode: u32, capabilities: Option<Capabilities>) -> Option<String> {
    let bits = [(0o4000, "setuid"), (0o2000, "setgid")];
    let words = bits.into_iter().filter(|(bit, _)| mode & bit != 0).map(|(_, word)| word.to_owned());
    let words: Vec<String> = words.chain(capabilities.map(|some| some.to_string())).collect();
    (!words.is_empty()).then(|| words.join(" "))
}

impl Packed for Entry {
    fn pack(&self, out: &mut Vec<u8>) {
        let kind = match self.kind {
            Kind::File if self.capabilities.is_some() => 4,
            Kind::File if self.digest.is_some() => 3,
            Kind::File => 0,
            Kind::Folder => 1,
            Kind::Link => 2,
        };
        let numbers = [kind, self.mode.into(), self.uid, self.gid, self.size, self.layer as u64];
        for number in numbers {
            put_number(out, number);
        }
        if let Some(capabilities) = self.capabilities {
            put_number(out, self.digest.is_some().into());
            capabilities.to_numbers().into_iter().for_each(|number| put_number(out, number));
        }
        out.extend(self.digest.iter().flat_map(Digest::as_bytes));
        out.extend_from_slice(self.target.as_bytes());
    }

    fn unpack(mut bytes: &[u8]) -> Self {
        let bytes = &mut bytes;
        let number = take_number(bytes);
        let kind = match number {
            1 => Kind::Folder,
            2 => Kind::Link,
            _ => Kind::File,
        };
        let mut entry = Self {
            kind,
            mode: u32::try_from(take_number(bytes)).unwrap_or_default(),
            uid: take_number(bytes),
            gid: take_number(bytes),
            size: take_number(bytes),
            layer: usize::try_from(take_number(bytes)).unwrap_or_default(),
            ..Self::default()
        };
        let mut has_digest = number == 3;
        if number == 4 {
            has_digest = take_number(bytes) != 0;
            let numbers = [(); 3].map(|()| take_number(bytes));
            entry.capabilities = Some(Capabilities::from_numbers(numbers));
        }
        entry.digest = has_digest.then(|| Digest::take(bytes));
        entry.target = String::from_utf8_lossy(bytes).into_owned();
        entry
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// What is visible of one layer's name: of a service, of the base, of the web console, ...
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    version: u32,
    /// The layers that its entries lie in, by diff id, the lowest first.
    pub layers: Vec<Digest>,
    /// Bytes in these layers that nobody sees: a later one has something else there, or nothing.
    #[serde(default, skip_serializing_if = "is_default")]
    pub covered: u64,
    /// Path without leading slash → what is there.
    pub entries: Paths<Entry>,
    /// What programs find there; none where nobody has looked, or where there is nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offers: Option<Offers>,
}

/// What programs are loaded with, and what they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Offers {
    /// Path → library: of a base, those in the folders that a loader searches, and elsewhere those that are called `lib*`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub libraries: BTreeMap<ImagePathBuf, Elf>,
    /// Path → whatever else of a layer of ours is made of machine code. None of a base: its packages tell.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub programs: BTreeMap<ImagePathBuf, Program>,
    /// Further folders that a loader searches, as `ld.so.conf` names them, without leading slash.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub folders: Vec<String>,
    /// Debian package → version, as dpkg has it installed.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub packages: BTreeMap<String, String>,
    /// Folder of an npm package → what its `package.json` says. None of a base.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub modules: BTreeMap<ImagePathBuf, Module>,
}

/// What is told of a program.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Program {
    /// The build id of GNU's linkers, in hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_id: Option<String>,
    /// The libraries that it is linked with (`DT_NEEDED`), in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub needed: Vec<String>,
    /// The texts in it that are three numbers, such as `3.0.17`: among them its release, and that of its RPC library.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<String>,
}

impl Offers {
    /// True where there is nothing.
    pub fn is_empty(&self) -> bool {
        self.libraries.is_empty()
            && self.programs.is_empty()
            && self.folders.is_empty()
            && self.packages.is_empty()
            && self.modules.is_empty()
    }
}

impl Part {
    /// A part of these layers.
    pub fn new(layers: Vec<Digest>, entries: Paths<Entry>) -> Self {
        Self { version: VERSION, layers, covered: 0, entries, offers: None }
    }

    /// Bytes of the files that are visible.
    pub fn size(&self) -> u64 {
        self.entries.values().map(|entry| entry.size).sum()
    }
}

/// Writes the file of a part: the same part, the same bytes. Entries come in order, and are not kept.
///
/// # Errors
/// The writer's.
pub fn write_part<E: Serialize>(
    out: &mut dyn io::Write,
    layers: &[Digest],
    covered: u64,
    entries: impl Iterator<Item = (impl Serialize, E)>,
    offers: Option<&Offers>,
) -> io::Result<()> {
    let entries = Streamed(Cell::new(Some(entries)));
    serde_json::to_writer(&mut *out, &Written { version: VERSION, layers, covered, entries, offers })?;
    out.write_all(b"\n")
}

/// [`Part`], as it is written.
#[derive(Serialize)]
struct Written<'a, S: Serialize> {
    version: u32,
    layers: &'a [Digest],
    #[serde(skip_serializing_if = "is_default")]
    covered: u64,
    entries: S,
    #[serde(skip_serializing_if = "Option::is_none")]
    offers: Option<&'a Offers>,
}

/// A map that is written once, and never there as a whole.
struct Streamed<I>(Cell<Option<I>>);

impl<K: Serialize, V: Serialize, I: Iterator<Item = (K, V)>> Serialize for Streamed<I> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.take().into_iter().flatten())
    }
}

/// The list of an image: its parts by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// Name of a layer → what is visible of it.
    pub parts: BTreeMap<String, Part>,
    /// The parts that lie in [`LAYER_BELOW`], and are valid as they lie there.
    pub below: BTreeSet<String>,
}

impl Contents {
    /// The list of an image; `None` where it has none, where it is of another version, or where somebody has put layers
    /// on top of it, of which it knows nothing. Only the layers with the list are opened.
    ///
    /// # Errors
    /// A list that cannot be read, or is none.
    pub fn of(image: &Image) -> io::Result<Option<Self>> {
        let names = image.layer_names();
        if names.last().is_none_or(|last| last != LAYER) {
            return Ok(None);
        }
        let (mut contents, mut unknown) = (Self::default(), BTreeSet::new());
        for (name, layer) in names.iter().zip(&image.layers) {
            if !matches!(name.as_str(), LAYER | LAYER_BELOW) {
                continue;
            }
            if limits::LIST.allow(layer.descriptor.size).is_err() {
                return Ok(None);
            }
            contents.take(layer.source.open()?, name == LAYER_BELOW, &mut unknown)?;
        }
        Ok(Some(contents).filter(|_| unknown.is_empty()).and_then(|all| all.fitting(&image.diff_ids())))
    }

    /// The list as it lies in an image of these layers, out of a tar with its folder; in which layer a part lies, nobody tells.
    ///
    /// # Errors
    /// A list that cannot be read, or is none.
    pub fn of_folder(tar: &mut dyn io::Read, diff_ids: &[Digest]) -> io::Result<Option<Self>> {
        let (mut contents, mut unknown) = (Self::default(), BTreeSet::new());
        contents.take(tar, false, &mut unknown)?;
        Ok(Some(contents).filter(|_| unknown.is_empty()).and_then(|all| all.fitting(diff_ids)))
    }

    /// What a list says of layers that are not there, or of more bytes than there can be, it does not say of this image.
    fn fitting(self, diff_ids: &[Digest]) -> Option<Self> {
        let sizes =
            |part: &Part| sizes::sum(part.entries.values().map(|entry| entry.size).chain([part.covered]));
        sizes::sum(self.parts.values().map(|part| sizes(part).unwrap_or(u64::MAX)))?;
        let fits = |part: &Part| {
            part.layers.iter().all(|layer| diff_ids.contains(layer))
                && part.entries.values().all(|entry| entry.layer < part.layers.len())
        };
        self.parts.values().all(fits).then_some(self)
    }

    /// Reads the parts of one layer; a later one covers an earlier one, also one of a version that is not known.
    fn take(
        &mut self,
        layer: impl io::Read,
        lies_below: bool,
        unknown: &mut BTreeSet<String>,
    ) -> io::Result<()> {
        let stream = BufReader::with_capacity(256 * 1024, layer.take(limits::LIST.value()));
        let mut tar = TarReader::new(magic::open(stream).map_err(io::Error::other)?);
        while let Some(entry) = tar.next_entry().map_err(io::Error::other)? {
            let Some(name) = part_name(&entry.name).filter(|_| entry.kind == EntryKind::File) else {
                continue;
            };
            let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
            limits::LISTED.allow(entry.size)?;
            let unreadable = |error| invalid(format!("the list of {name} cannot be read: {error}"));
            let Some(part) = read_part(tar.content(&entry), entry.size, unreadable)? else {
                unknown.insert(name);
                continue;
            };
            unknown.remove(&name);
            if lies_below {
                self.below.insert(name.clone())
            } else {
                self.below.remove(&name)
            };
            self.parts.insert(name, part);
        }
        // To its end, so that the bytes are proven.
        io::copy(&mut tar.into_inner(), &mut io::sink())?;
        Ok(())
    }
}

/// So much of a list is read at once; a larger one lies in a temporary file without a name until it is understood.
const AT_ONCE: u64 = 4 << 20;

/// The part that a file is; `None` for a version that is not known.
fn read_part(
    mut file: impl io::Read,
    size: u64,
    unreadable: impl Fn(serde_json::Error) -> io::Error,
) -> io::Result<Option<Part>> {
    let known = |head: Version| head.version == VERSION;
    if size <= AT_ONCE {
        let mut bytes = Vec::new();
        file.take(size).read_to_end(&mut bytes)?;
        // Most are of this version, and read once.
        return match serde_json::from_slice::<Part>(&bytes) {
            Ok(part) => Ok((part.version == VERSION).then_some(part)),
            Err(error) => {
                let is_known = serde_json::from_slice(&bytes).map(known).map_err(&unreadable)?;
                if is_known { Err(unreadable(error)) } else { Ok(None) }
            }
        };
    }
    let unkept =
        |error| io::Error::other(format!("{} takes no more: {error}", std::env::temp_dir().display()));
    let mut kept = tempfile::tempfile().map_err(unkept)?;
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        io::Write::write_all(&mut kept, &buffer[..read]).map_err(unkept)?;
    }
    let again = |mut kept| {
        io::Seek::rewind(&mut kept)?;
        Ok::<_, io::Error>(BufReader::with_capacity(256 * 1024, kept))
    };
    if !serde_json::from_reader(again(&kept)?).map(known).map_err(&unreadable)? {
        return Ok(None);
    }
    serde_json::from_reader(again(&kept)?).map(Some).map_err(unreadable)
}

/// What is found in an image without a list, by the names of its layers. Every layer is read.
///
/// # Errors
/// A layer that cannot be read.
pub fn folded(image: &Image) -> io::Result<Contents> {
    let mut contents = Contents::default();
    for (name, layer) in image.layer_names().into_iter().zip(&image.layers) {
        let part =
            contents.parts.entry(name.clone()).or_insert_with(|| Part::new(Vec::new(), Paths::default()));
        part.layers.push(layer.diff_id);
        let index = part.layers.len() - 1;
        let stream = BufReader::with_capacity(256 * 1024, layer.source.open()?);
        let mut tar = TarReader::new(magic::open(stream).map_err(io::Error::other)?);
        let mut links: BTreeMap<ImagePathBuf, String> = BTreeMap::new();
        let (mut gone, mut emptied, mut opened) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(read) = tar.next_entry().map_err(io::Error::other)? {
            let within = |path| image::within_links(|path| links.get(path).cloned(), path);
            let path = match LayerName::read(&read.name)? {
                LayerName::Here(path) if path.path().is_root() => continue,
                LayerName::Here(path) => within(path),
                LayerName::Opaque(folder) => {
                    opened.extend(contents.open_up(folder.path(), true, (&name, index)));
                    contents.hide(folder.path(), false, (&name, index));
                    emptied.push(folder);
                    continue;
                }
                LayerName::Gone(path) => {
                    let path = within(path);
                    opened.extend(contents.open_up(path.path(), false, (&name, index)));
                    gone.push(path);
                    continue;
                }
                LayerName::Nothing => continue,
            };
            opened.extend(contents.open_up(path.path(), false, (&name, index)));
            let kind = Kind::of(read.kind);
            let mut entry = Entry { kind, uid: read.uid, gid: read.gid, layer: index, ..Entry::default() };
            match kind {
                Kind::Folder => entry.mode = read.mode,
                Kind::Link => {
                    entry.target = String::from_utf8_lossy(&read.target).into_owned();
                    links.insert(path.clone(), entry.target.clone());
                }
                Kind::File => {
                    let mut out = HashingWriter::new(io::sink());
                    io::copy(&mut tar.content(&read), &mut out)?;
                    let (_, digest, size) = out.finish();
                    (entry.mode, entry.size, entry.digest) = (read.mode, size, Some(digest));
                    // Of a foreign image, whose attributes may be anything.
                    entry.capabilities = read.capabilities().unwrap_or_default();
                }
            }
            opened.retain(|folder| *folder != path);
            contents.make_room(path.path(), kind);
            if let Some(part) = contents.parts.get_mut(&name) {
                part.entries.insert(path.path(), &entry);
                paths::within()?;
            }
        }
        // What the layer takes away by name, or with all that is around it, was gone before it had something there.
        for folder in opened {
            let is_within = |taken: &ImagePathBuf| folder.path().ancestors().any(|around| *around == **taken);
            if (gone.contains(&folder) || gone.iter().chain(&emptied).any(is_within))
                && let Some(part) = contents.parts.get_mut(&name)
            {
                part.take(&folder);
            }
        }
        for path in gone {
            // What the layer has itself lies over what was there.
            let own = contents.parts.get(&name).and_then(|part| part.entries.get(&path));
            if own.is_none_or(|own| own.layer != index || own.kind != Kind::Folder) {
                contents.hide(path.path(), true, (&name, index));
            }
        }
    }
    Ok(contents)
}

impl Contents {
    /// Takes out what an engine takes away where it unpacks something of this kind.
    fn make_room(&mut self, path: ImagePath<'_>, new: Kind) {
        for part in self.parts.values_mut() {
            let entry = part.entries.get(path.as_str());
            // A folder that no entry names is one all the same.
            let implied = || part.entries.has_below(path.as_str()).then_some(Kind::Folder);
            let Some(old) = entry.map(|entry| entry.kind).or_else(implied) else { continue };
            match meeting::outcome(Meeting::Unpacked, old, new) {
                Outcome::Merges => {}
                Outcome::Empties => part.cover(path, true, |_| false),
                _ => part.take(path.as_str()),
            }
        }
    }

    /// Puts a folder wherever a layer below has a link or a file on the way to a path, and at it (`itself`): an engine unpacks each
    /// layer by itself, and lays it over the others. Where that was.
    fn open_up(
        &mut self,
        path: ImagePath<'_>,
        itself: bool,
        (of, layer): (&str, usize),
    ) -> Vec<ImagePathBuf> {
        let mut opened = Vec::new();
        let folders = path.ancestors().chain(itself.then_some(path)).filter(|folder| !folder.is_root());
        for folder in folders.map(ImagePath::to_buf).collect::<Vec<_>>() {
            let mut is_in_the_way = false;
            for (name, part) in &mut self.parts {
                let found = part.entries.get(&folder);
                if found
                    .is_some_and(|entry| entry.kind != Kind::Folder && (name != of || entry.layer != layer))
                {
                    part.take(&folder);
                    is_in_the_way = true;
                }
            }
            if is_in_the_way && let Some(part) = self.parts.get_mut(of) {
                let entry = Entry { kind: Kind::Folder, mode: 0o755, layer, ..Entry::default() };
                part.entries.insert(folder.path(), &entry);
                opened.push(folder);
            }
        }
        opened
    }

    /// Takes out what lies below a path, and what lies at it, but what is of this layer of a part: what takes away is heard of the
    /// layers below alone, wherever it stands in its own.
    fn hide(&mut self, path: ImagePath<'_>, itself: bool, (of, layer): (&str, usize)) {
        for (name, part) in &mut self.parts {
            let is_own = |entry: &Entry| name == of && entry.layer == layer;
            part.cover(path, itself, is_own);
        }
    }
}

impl Part {
    fn cover(&mut self, path: ImagePath<'_>, itself: bool, stays: impl Fn(&Entry) -> bool) {
        let mut gone = self.entries.below(path.as_str());
        gone.extend(itself.then(|| path.to_buf()));
        for path in gone {
            if self.entries.get(&path).is_some_and(|entry| !stays(&entry)) {
                self.take(&path);
            }
        }
    }

    fn take(&mut self, path: &str) {
        self.covered += self.entries.remove(path).map_or(0, |entry| entry.size);
    }
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

/// The name of the part that a file of a layer is; the base's links may have led its folder elsewhere.
fn part_name(path: &[u8]) -> Option<String> {
    let path = ImagePathBuf::parse(path).ok()?;
    let (folder, file) = path.rsplit_once('/')?;
    let inner = FOLDER.strip_prefix("/usr/share").unwrap_or(FOLDER);
    let is_inner = folder.ends_with(inner) || folder == &inner[1..];
    file.strip_suffix(".json").filter(|_| is_inner && !file.starts_with(".wh.")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_is_the_same_bytes_and_comes_back() {
        let file = Entry { mode: 0o755, size: 3, digest: Some(Digest::of("abc")), ..Entry::default() };
        let link = Entry { kind: Kind::Link, target: "x".to_owned(), layer: 1, ..Entry::default() };
        let folder = Entry { kind: Kind::Folder, mode: 0o2775, gid: 50, ..Entry::default() };
        let entries = [("b", file), ("a", link), ("c", folder)];
        let part = Part::new(
            vec![Digest::of("1"), Digest::of("2")],
            entries.into_iter().map(|(path, entry)| (ImagePathBuf::parse(path).unwrap(), entry)).collect(),
        );
        let mut bytes = Vec::new();
        write_part(&mut bytes, &part.layers, part.covered, part.entries.iter(), None).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.starts_with(r#"{"version":1,"layers":["sha256:"#), "{text}");
        assert!(
            text.contains(r#""a":{"kind":"link","target":"x","layer":1},"b":{"mode":493,"size":3,"digest":"#)
        );
        assert!(text.contains(r#""c":{"kind":"folder","mode":1533,"gid":50}"#), "{text}");
        assert_eq!(serde_json::from_str::<Part>(&text).unwrap(), part);
    }

    #[test]
    fn part_is_told_by_its_folder_wherever_links_led_it() {
        for (path, name) in [
            ("usr/share/tarsup/contents/tarsstat.json", Some("tarsstat")),
            ("./opt/data/tarsup/contents/base.json", Some("base")),
            ("usr/share/tarsup/contents/x.txt", None),
            ("usr/share/tarsup/base.json", None),
            ("tarsup/contents/base.json", Some("base")),
            ("usr/share/not-tarsup/contents/base.json", None),
            ("usr/share/tarsup/contents/../base.json", None),
            ("contents/base.json", None),
        ] {
            assert_eq!(part_name(path.as_bytes()).as_deref(), name, "{path}");
        }
    }
}
