//! What changed goes on top: the layers of a predecessor stay as they are, and changed files lie above them.
//!
//! Why, and when not: docs/0001-layer-order.md.

use std::fmt;

use serde::Deserialize;

use super::LayerInput;
use super::base::BasePaths;
use super::listing;
use super::tree::{Tree, TreeNode};
use crate::contents::summary::{Summaries, Summary};
use crate::contents::{Contents, Entry, Kind, Part};
use crate::limits::Beyond;
use crate::oci::image::BASE;
use crate::paths::{self, ImagePath, Paths};

/// How much an image may carry that nobody sees, before its layers are put into canonical order again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Covered bytes, in percent of all that lies above the base, uncompressed.
    pub share: u64,
    /// Layers on top.
    pub layers: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { share: 20, layers: 24 }
    }
}

/// Why the order is canonical again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// It was asked for.
    Asked,
    /// The predecessor is in an engine, which tells no more than its order.
    InEngine,
    /// Layers of the predecessor are not gzipped, and nobody near has them so.
    Raw,
    /// The predecessor was not made of layers of ours.
    Foreign,
    /// It stands on another base.
    Base,
    /// So many layers would lie on top.
    Layers(usize),
    /// So many percent would be covered.
    Share(u64),
    /// What the base has there would have to show again, and a deleted file hides it.
    Hidden(String),
    /// Both lists together are larger than may be in memory.
    Beyond(Beyond),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asked => f.write_str("as --relayer asks for"),
            Self::InEngine => f.write_str("an engine does not tell what is in its layers"),
            Self::Raw => f.write_str(
                "the predecessor's layers are not compressed, and neither the store nor the cache knows what they were compressed to",
            ),
            Self::Foreign => f.write_str("the predecessor's layers are not such as tarsup makes"),
            Self::Base => f.write_str("the predecessor stands on another base"),
            Self::Layers(layers) => write!(f, "{layers} layers would lie on top"),
            Self::Share(share) => write!(f, "{share} % of what lies above the base would be covered"),
            Self::Beyond(beyond) => write!(f, "both lists together have {beyond}"),
            Self::Hidden(path) => write!(f, "/{path} of the base would stay hidden"),
        }
    }
}

/// What becomes of one part.
pub(super) struct Change {
    /// Its name.
    pub name: String,
    /// What goes on top; `None` where nothing changed.
    pub layer: Option<LayerInput>,
    /// What is visible afterwards. The diff id of the layer on top is to be added to its layers.
    pub part: Part,
}

/// What has to go on top of the predecessor, so that these layers show and nothing else.
pub(super) fn changes(
    before: &Contents,
    layers: &[LayerInput],
    base: &BasePaths,
    limits: Limits,
) -> Result<Vec<Change>, Why> {
    let shown = Visible { layers, others: Vec::new(), base };
    let mut changes = compared(before, &shown)?;
    let is_new = |name: &str| layers.iter().any(|layer| layer.name == name);
    for (name, old) in &before.parts {
        if name != BASE && !is_new(name) {
            let what = "what is there no more".to_owned();
            let gone = LayerInput { name: name.clone(), what, tree: Tree::default() };
            changes.push(change(old, &gone, &shown)?);
        }
    }
    within(limits, &changes)?;
    Ok(changes)
}

/// The same where only some parts are at hand; the others stay as they are.
pub(super) fn replaced(
    before: &Contents,
    layers: &[LayerInput],
    base: &BasePaths,
) -> Result<Vec<Change>, Why> {
    let stays = |name: &str| name != BASE && !layers.iter().any(|layer| layer.name == name);
    let others = before.parts.iter().filter(|(name, _)| stays(name));
    let shown = Visible { layers, others: others.clone().map(|(_, part)| part).collect(), base };
    let mut changes = compared(before, &shown)?;
    changes.extend(others.map(|(name, part)| Change { name: name.clone(), layer: None, part: part.clone() }));
    Ok(changes)
}

/// What the image's history tells of the parts after the changes.
pub(super) fn summaries(changes: &[Change]) -> Summaries {
    let visible = changes.iter().filter(|change| !change.part.entries.is_empty());
    visible.map(|change| (change.name.clone(), Summary::of(&change.name, &change.part))).collect()
}

/// What shows where all of these lie: new layers, over the parts that stay, over the base. Asked path by path, as there may
/// be many.
struct Visible<'a> {
    layers: &'a [LayerInput],
    others: Vec<&'a Part>,
    base: &'a BasePaths,
}

impl Visible<'_> {
    /// The entry at a path, of a new layer or of a part that stays.
    fn get(&self, path: &str) -> Option<Entry> {
        let new = |layer: &LayerInput| {
            let node = layer.tree.get(path)?;
            Some(listing::entry(path, node, &self.base.folders))
        };
        let old = || self.others.iter().rev().find_map(|part| part.entries.get(path));
        self.layers.iter().rev().find_map(new).or_else(old)
    }
}

/// Each layer against what the predecessor has of its name.
fn compared(before: &Contents, shown: &Visible<'_>) -> Result<Vec<Change>, Why> {
    let nothing = Part::default();
    let old = |layer: &LayerInput| before.parts.get(&layer.name).unwrap_or(&nothing);
    shown.layers.iter().map(|layer| change(old(layer), layer, shown)).collect()
}

/// Which limit is passed.
pub(super) fn beyond(limits: Limits, changes: &[Change]) -> Option<Why> {
    within(limits, changes).err()
}

fn within(limits: Limits, changes: &[Change]) -> Result<(), Why> {
    let on_top =
        |change: &Change| (change.part.layers.len() + usize::from(change.layer.is_some())).saturating_sub(1);
    let layers: usize = changes.iter().map(on_top).sum();
    if layers > limits.layers {
        return Err(Why::Layers(layers));
    }
    let covered: u64 = changes.iter().map(|change| change.part.covered).sum();
    let all = covered + changes.iter().map(|change| change.part.size()).sum::<u64>();
    let share = (covered * 100).div_ceil(all.max(1));
    if share > limits.share { Err(Why::Share(share)) } else { Ok(()) }
}

fn change(old: &Part, new: &LayerInput, shown: &Visible<'_>) -> Result<Change, Why> {
    let LayerInput { name, what, tree } = new;
    let mut part = Part::new(old.layers.clone(), Paths::default());
    part.covered = old.covered;
    part.offers = listing::offers(tree);
    let (mut changed, mut gone) = (Paths::<()>::default(), Paths::<()>::default());
    for (path, mut entry) in listing::entries(tree, &shown.base.folders) {
        match old.entries.get(&path) {
            Some(before) if before.is_same(&entry) => entry.layer = before.layer,
            before => {
                entry.layer = old.layers.len();
                part.covered += before.map_or(0, |before| before.size);
                changed.insert(path.path(), &());
            }
        }
        part.entries.insert(path.path(), &entry);
        paths::within().map_err(Why::Beyond)?;
    }
    for (path, entry) in old.entries.iter().filter(|(path, _)| !part.entries.has(path)) {
        part.covered += entry.size;
        let path = path.path();
        if is_to_be_deleted(path, shown)? && !path.ancestors().any(|above| gone.has(&above)) {
            gone.insert(path, &());
        }
    }
    if changed.is_empty() && gone.is_empty() {
        return Ok(Change { name: name.clone(), layer: None, part });
    }
    let what = if old.layers.is_empty() { what.clone() } else { format!("what changed of {what}") };
    let tree = on_top(&changed, &gone, tree, shown);
    Ok(Change { name: name.clone(), layer: Some(LayerInput { name: name.clone(), what, tree }), part })
}

/// True for what a part no longer has, and nothing else shows in its place.
fn is_to_be_deleted(path: ImagePath<'_>, shown: &Visible<'_>) -> Result<bool, Why> {
    let base = shown.base;
    let is_folder = |above: ImagePath<'_>| shown.get(&above).is_none_or(|entry| entry.kind == Kind::Folder);
    if shown.get(&path).is_some() || !path.ancestors().all(is_folder) {
        return Ok(false);
    }
    match base.kind(&path) {
        None => Ok(true),
        Some(Kind::Folder) => Ok(false),
        Some(Kind::File | Kind::Link) => Err(Why::Hidden(path.to_string())),
    }
}

/// The changed nodes, the files that delete, and the folders above both as they are.
fn on_top(changed: &Paths<()>, gone: &Paths<()>, tree: &Tree, shown: &Visible<'_>) -> Tree {
    let mut top = Tree::default();
    let folders_above = |top: &mut Tree, path: ImagePath<'_>| {
        for above in path.ancestors() {
            let mode = shown.get(&above).map_or(0o755, |entry| entry.mode);
            let _ = top.insert(above, TreeNode::Directory { mode });
        }
    };
    // Nothing lies at a path twice: both sets are of one tree each, and no path is a whiteout's.
    for path in changed.keys() {
        folders_above(&mut top, path.path());
        let node = tree.get(&path).unwrap_or(TreeNode::Directory { mode: 0o755 });
        let _ = top.insert(path.path(), node);
    }
    for path in gone.keys() {
        folders_above(&mut top, path.path());
        let _ = top.delete(path.path());
    }
    top
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::build::tree::Content;
    use crate::oci::Digest;
    use crate::paths::ImagePathBuf;

    fn tree(files: &[(&str, &str)]) -> Tree {
        let mut tree = Tree::default();
        for (path, text) in files {
            let node = match text.strip_prefix("-> ") {
                Some(target) => TreeNode::Link { target: (*target).into() },
                None => TreeNode::File { mode: 0o644, content: Content::bytes(text.as_bytes()) },
            };
            tree.insert(ImagePathBuf::parse(path).unwrap().path(), node).unwrap();
        }
        tree
    }

    fn input(name: &str, files: &[(&str, &str)]) -> LayerInput {
        LayerInput { name: name.to_owned(), what: name.to_owned(), tree: tree(files) }
    }

    fn before(layers: &[LayerInput]) -> Contents {
        let part = |layer: &LayerInput| {
            let part = listing::part(&layer.tree, &BasePaths::default().folders, Digest::of(&layer.name));
            (layer.name.clone(), part)
        };
        Contents { parts: layers.iter().map(part).collect(), ..Contents::default() }
    }

    const WIDE: Limits = Limits { share: 100, layers: 100 };

    /// Name → paths on top.
    fn on_top_of(old: &[LayerInput], new: &[LayerInput], base: &BasePaths) -> BTreeMap<String, Vec<String>> {
        let changes = changes(&before(old), new, base, WIDE).unwrap();
        let paths = |tree: &Tree| tree.iter().map(|(path, _)| path.into()).collect();
        changes.into_iter().filter_map(|change| Some((change.name, paths(&change.layer?.tree)))).collect()
    }

    fn map(entries: &[(&str, &[&str])]) -> BTreeMap<String, Vec<String>> {
        let owned = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
        entries.iter().map(|(name, paths)| ((*name).to_owned(), owned(paths))).collect()
    }

    #[test]
    fn only_changed_and_added_files_go_on_top_and_what_is_gone_is_deleted_once() {
        let old = [
            input("a", &[("x/1", "1"), ("x/2", "2"), ("x/d/3", "3"), ("x/d/4", "4")]),
            input("b", &[("x/b", "b")]),
        ];
        let new = [input("a", &[("x/1", "1"), ("x/2", "two"), ("x/5", "5")]), input("b", &[("x/b", "b")])];
        let none = BasePaths::default();
        assert_eq!(on_top_of(&old, &new, &none), map(&[("a", &["x", "x/.wh.d", "x/2", "x/5"])]));
        assert_eq!(on_top_of(&old, &old, &none), map(&[]));
        // A part that is new, and one that is gone.
        assert_eq!(
            on_top_of(&old[1..], &old, &none),
            map(&[("a", &["x", "x/1", "x/2", "x/d", "x/d/3", "x/d/4"])])
        );
        assert_eq!(on_top_of(&old, &old[..1], &none), map(&[("b", &["x", "x/.wh.b"])]));
    }

    #[test]
    fn what_shows_by_another_part_or_by_the_base_is_not_deleted() {
        let old = [input("a", &[("x/1", "1"), ("x/k/2", "2")]), input("b", &[("x/b", "b")])];
        let moved = [input("a", &[("y", "y")]), input("b", &[("x/b", "b"), ("x/1", "1")])];
        let mut base = BasePaths::default();
        let expected = map(&[("a", &["x", "x/.wh.k", "y"]), ("b", &["x", "x/1"])]);
        assert_eq!(on_top_of(&old, &moved, &base), expected);
        // A folder of the base stays, and only our file in it goes.
        base.folders
            .insert(ImagePath::known("x/k"), &crate::build::layer::Folder { mode: 0o755, uid: 0, gid: 0 });
        let expected = map(&[("a", &["x", "x/k", "x/k/.wh.2", "y"]), ("b", &["x", "x/1"])]);
        assert_eq!(on_top_of(&old, &moved, &base), expected);
        // A file of the base would have to show again.
        base.files.insert(ImagePath::known("x/k/2"), &());
        let why = changes(&before(&old), &moved, &base, WIDE).err();
        assert_eq!(why, Some(Why::Hidden("x/k/2".to_owned())));
        // A folder that becomes a file or a link takes what was in it along.
        let link = [input("a", &[("x/1", "1"), ("x/k", "-> 1")]), input("b", &[("x/b", "b")])];
        assert_eq!(on_top_of(&old, &link, &BasePaths::default()), map(&[("a", &["x", "x/k"])]));
    }

    #[test]
    fn covered_bytes_and_layers_add_up_to_a_limit() {
        let of = |text: &str| [input("a", &[("a", text)]), input("b", &[("b", &"b".repeat(90))])];
        let none = BasePaths::default();
        let mut contents = before(&of("0123456789"));
        for (round, text) in ["1234567890", "2345678901", "3456789012"].iter().enumerate() {
            let limits = Limits { share: 20, layers: 24 };
            let changes = changes(&contents, &of(text), &none, limits);
            if round == 2 {
                assert_eq!(changes.err(), Some(Why::Share(24)), "30 of 130 bytes");
                break;
            }
            for mut change in changes.unwrap() {
                if let Some(layer) = &change.layer {
                    assert_eq!(layer.name, "a");
                    change.part.layers.push(Digest::of(text));
                }
                contents.parts.insert(change.name.clone(), change.part);
            }
            assert_eq!(contents.parts["a"].covered, 10 * (round as u64 + 1));
            assert_eq!(contents.parts["a"].entries.get("a").unwrap().layer, round + 1);
        }
        let narrow = Limits { share: 100, layers: 2 };
        assert_eq!(changes(&contents, &of("x"), &none, narrow).err(), Some(Why::Layers(3)));
    }
}
