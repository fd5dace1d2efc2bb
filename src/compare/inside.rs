//! What a diff looks into: settings, templates, SQL and libraries, out of the layers that hold one that differs.
//!
//! A list says that such a file differs; what of it, its bytes alone say. No other layer is read for that, and none beyond a size.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;

use super::details::Details;
use super::kind::FileKind;
use super::layers::{self, File};
use super::{FileChange, settings, statements};
use crate::contents::Kind;
use crate::elf::{self, Elf, Offered, ReadAt};
use crate::limits;
use crate::oci::Layer;
use crate::oci::image::BASE;
use crate::paths::{ImagePathBuf, LayerName};

/// A larger text is not looked into, in bytes.
const LARGEST: u64 = 1 << 20;
/// And no larger library.
const LARGEST_CODE: u64 = 256 << 20;

/// A file to be looked into.
pub(super) struct Wanted {
    /// Its place among the changes of the part.
    pub index: usize,
    path: ImagePathBuf,
    kind: FileKind,
    /// The layers that it lay and lies in, where it did and does.
    layers: [Option<usize>; 2],
}

impl Wanted {
    /// `is_known`: a list tells of the machine code in it.
    /// `None` for what no diff understands, for what is gone, and for what has the same bytes.
    pub fn of(
        part: &str,
        path: &ImagePathBuf,
        kind: FileKind,
        [old, new]: [Option<&File>; 2],
        (index, is_known): (usize, bool),
    ) -> Option<Self> {
        let is_understood = match kind {
            FileKind::Configuration | FileKind::Template | FileKind::Sql => true,
            FileKind::Library => old.is_some(),
            FileKind::Program => !is_known && old.is_some(),
            _ => false,
        };
        // Settings of a system, and the modules of a console, are none of TARS.
        let is_ours = part != BASE && part != super::kind::WEB;
        let new = new?;
        if !is_understood || !is_ours || old.is_some_and(|old| old.print == new.print) {
            return None;
        }
        let layer = |file: &File| (file.kind == Kind::File).then_some(file.layer);
        let layers = [old.and_then(layer), Some(layer(new)?)];
        Some(Self { index, path: path.clone(), kind, layers })
    }
}

/// What a file is within.
enum Content {
    Text(String),
    Code(Option<Elf>, Option<Offered>),
}

/// The content of each file on one side, or why there is none.
type Found = BTreeMap<ImagePathBuf, Result<Content, String>>;

/// Tells what differs in the files that are wanted. `layers`: those of the part in each image, the lowest first.
pub(super) fn look(wanted: Vec<Wanted>, layers: [&[&Layer]; 2], changes: &mut [FileChange]) {
    let [mut old, mut new] = [0, 1].map(|side| read(&wanted, side, layers[side]));
    for Wanted { index, path, kind, layers } in wanted {
        let absent = || Err("it is not in the layer that the list names".to_owned());
        let now = new.remove(&path).unwrap_or_else(absent);
        let before = layers[0].map(|_| old.remove(&path).unwrap_or_else(absent)).transpose();
        let mut details = changes[index].details.take().unwrap_or_default();
        match before.and_then(|before| Ok((before, now?))) {
            Ok((Some(Content::Code(was, old)), Content::Code(is, new))) => {
                details.inside([was.as_ref(), is.as_ref()], [old.as_ref(), new.as_ref()]);
            }
            Ok((before, Content::Text(now))) => {
                let before = before.and_then(|before| match before {
                    Content::Text(text) => Some(text),
                    Content::Code(..) => None,
                });
                compare(kind, &path, before.as_deref(), &now, &mut details);
            }
            Ok(_) => {}
            Err(why) => details.note = Some(format!("not looked into: {why}")),
        }
        changes[index].details = details.boxed();
    }
}

fn compare(kind: FileKind, path: &str, before: Option<&str>, now: &str, details: &mut Details) {
    let told = match kind {
        FileKind::Sql => statements::compare(before.unwrap_or_default(), now).map(|(tables, statements)| {
            (details.tables, details.statements) = (tables, statements);
        }),
        _ => settings::compare(path, before.unwrap_or_default(), now).map(|keys| details.keys = keys),
    };
    let nothing = details.tables.is_empty() && details.statements.is_empty() && details.keys.is_empty();
    match told {
        Err(why) => details.note = Some(format!("not compared within: {why}")),
        Ok(()) if nothing && before.is_some() => {
            details.note = Some("comments, white space or order alone differ".to_owned());
        }
        Ok(()) => {}
    }
}

/// Reads what is wanted of one side, layer by layer.
fn read(wanted: &[Wanted], side: usize, layers: &[&Layer]) -> Found {
    let mut by_layer: BTreeMap<usize, Vec<&Wanted>> = BTreeMap::new();
    for one in wanted {
        if let Some(layer) = one.layers[side] {
            by_layer.entry(layer).or_default().push(one);
        }
    }
    let mut found = Found::new();
    // Of all files of one side together.
    let mut room = limits::TEXT.value();
    for (index, files) in by_layer {
        let read = match layers.get(index) {
            Some(layer) => read_layer(layer, &files, &mut room, &mut found),
            None => Err("its layer is not there".to_owned()),
        };
        if let Err(why) = read {
            for file in files {
                found.entry(file.path.clone()).or_insert_with(|| Err(why.clone()));
            }
        }
    }
    found
}

fn read_layer(layer: &Layer, files: &[&Wanted], room: &mut u64, found: &mut Found) -> Result<(), String> {
    if limits::LOOKED.allow(layer.descriptor.size).is_err() {
        return Err(format!(
            "its layer has {} bytes, {} are the most ({} raises that)",
            layer.descriptor.size,
            limits::LOOKED.value(),
            limits::LOOKED.variable
        ));
    }
    read_entries(layer, files, room, found).map_err(|error| format!("its layer cannot be read: {error}"))
}

/// Machine code out of a layer, in a file without a name.
struct Spooled(std::fs::File);

impl ReadAt for Spooled {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }
}

fn read_entries(layer: &Layer, files: &[&Wanted], room: &mut u64, found: &mut Found) -> io::Result<()> {
    let mut tar = layers::open(layer)?;
    let mut entries = 0;
    while let Some(entry) = tar.next_entry().map_err(io::Error::other)? {
        entries += 1;
        limits::ENTRIES.allow(entries)?;
        let Some(path) = LayerName::read(&entry.name)?.in_layer() else { continue };
        // In order, as the changes are.
        let Ok(at) = files.binary_search_by(|file| file.path.cmp(&path)) else { continue };
        if Kind::of(entry.kind) != Kind::File {
            continue;
        }
        let is_code = matches!(files[at].kind, FileKind::Library | FileKind::Program);
        let most = if is_code { LARGEST_CODE } else { LARGEST.min(*room) };
        let content = if entry.size > most {
            Err(format!("it has {} bytes, {most} are the most", entry.size))
        } else if is_code {
            let mut file = Spooled(tempfile::tempfile()?);
            let size = io::copy(&mut tar.content(&entry), &mut file.0)?;
            let offered = match files[at].kind {
                FileKind::Library => elf::offered(&file, size)?,
                _ => None,
            };
            Ok(Content::Code(elf::read(&file, size)?, offered))
        } else {
            *room -= entry.size;
            let mut bytes = Vec::new();
            tar.content(&entry).read_to_end(&mut bytes)?;
            let text = String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'));
            text.map(Content::Text).ok_or_else(|| "it is no text".to_owned())
        };
        found.insert(path, content);
    }
    // To its end, so that the bytes are proven.
    io::copy(&mut tar.into_inner(), &mut io::sink())?;
    Ok(())
}
