//! The texts that a diff looks into: settings, templates and SQL, out of the layers that hold one that differs.
//!
//! A list says that such a file differs; what of it, its bytes alone say. No other layer is read for that, and none beyond a size.

use std::collections::BTreeMap;
use std::io::{self, Read as _};

use super::details::Details;
use super::kind::FileKind;
use super::layers::{self, File};
use super::{FileChange, settings, statements};
use crate::contents::Kind;
use crate::limits;
use crate::oci::Layer;
use crate::oci::image::BASE;
use crate::paths::{ImagePathBuf, LayerName};

/// A larger text is not looked into, in bytes.
const LARGEST: u64 = 1 << 20;

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
    /// `None` for what is no text that a diff understands, for what is gone, and for what has the same bytes.
    pub fn of(
        part: &str,
        path: &ImagePathBuf,
        kind: FileKind,
        [old, new]: [Option<&File>; 2],
        index: usize,
    ) -> Option<Self> {
        let is_text = matches!(kind, FileKind::Configuration | FileKind::Template | FileKind::Sql);
        // Settings of a system, and the modules of a console, are none of TARS.
        let is_ours = part != BASE && part != super::kind::WEB;
        let new = new?;
        if !is_text || !is_ours || old.is_some_and(|old| old.print == new.print) {
            return None;
        }
        let layer = |file: &File| (file.kind == Kind::File).then_some(file.layer);
        let layers = [old.and_then(layer), Some(layer(new)?)];
        Some(Self { index, path: path.clone(), kind, layers })
    }
}

/// The text of each file on one side, or why there is none.
type Texts = BTreeMap<ImagePathBuf, Result<String, String>>;

/// Tells what differs in the files that are wanted. `layers`: those of the part in each image, the lowest first.
pub(super) fn look(wanted: Vec<Wanted>, layers: [&[&Layer]; 2], changes: &mut [FileChange]) {
    let [mut old, mut new] = [0, 1].map(|side| read(&wanted, side, layers[side]));
    for Wanted { index, path, kind, layers } in wanted {
        let absent = || Err("it is not in the layer that the list names".to_owned());
        let now = new.remove(&path).unwrap_or_else(absent);
        let before = layers[0].map(|_| old.remove(&path).unwrap_or_else(absent)).transpose();
        let mut details = changes[index].details.take().unwrap_or_default();
        match before.and_then(|before| Ok((before, now?))) {
            Ok((before, now)) => compare(kind, &path, before.as_deref(), &now, &mut details),
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
fn read(wanted: &[Wanted], side: usize, layers: &[&Layer]) -> Texts {
    let mut by_layer: BTreeMap<usize, Vec<&ImagePathBuf>> = BTreeMap::new();
    for one in wanted {
        if let Some(layer) = one.layers[side] {
            by_layer.entry(layer).or_default().push(&one.path);
        }
    }
    let mut texts = Texts::new();
    // Of all files of one side together.
    let mut room = limits::TEXT.value();
    for (index, paths) in by_layer {
        let read = match layers.get(index) {
            Some(layer) => read_layer(layer, &paths, &mut room, &mut texts),
            None => Err("its layer is not there".to_owned()),
        };
        if let Err(why) = read {
            for path in paths {
                texts.entry(path.clone()).or_insert_with(|| Err(why.clone()));
            }
        }
    }
    texts
}

fn read_layer(
    layer: &Layer,
    paths: &[&ImagePathBuf],
    room: &mut u64,
    texts: &mut Texts,
) -> Result<(), String> {
    if limits::LOOKED.allow(layer.descriptor.size).is_err() {
        return Err(format!(
            "its layer has {} bytes, {} are the most ({} raises that)",
            layer.descriptor.size,
            limits::LOOKED.value(),
            limits::LOOKED.variable
        ));
    }
    read_entries(layer, paths, room, texts).map_err(|error| format!("its layer cannot be read: {error}"))
}

fn read_entries(layer: &Layer, paths: &[&ImagePathBuf], room: &mut u64, texts: &mut Texts) -> io::Result<()> {
    let mut tar = layers::open(layer)?;
    let mut entries = 0;
    while let Some(entry) = tar.next_entry().map_err(io::Error::other)? {
        entries += 1;
        limits::ENTRIES.allow(entries)?;
        let Some(path) = LayerName::read(&entry.name)?.in_layer() else { continue };
        // In order, as the changes are.
        if paths.binary_search(&&path).is_err() || Kind::of(entry.kind) != Kind::File {
            continue;
        }
        let most = LARGEST.min(*room);
        let text = if entry.size > most {
            Err(format!("it has {} bytes, {most} are the most", entry.size))
        } else {
            *room -= entry.size;
            let mut bytes = Vec::new();
            tar.content(&entry).take(most).read_to_end(&mut bytes)?;
            String::from_utf8(bytes).map_err(|_| "it is no text".to_owned())
        };
        texts.insert(
            path,
            text.and_then(
                |text| if text.contains('\0') { Err("it is no text".to_owned()) } else { Ok(text) },
            ),
        );
    }
    // To its end, so that the bytes are proven.
    io::copy(&mut tar.into_inner(), &mut io::sink())?;
    Ok(())
}
