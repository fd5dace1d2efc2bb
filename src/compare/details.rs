//! What is told of one file that differs: by what it is.

use std::collections::BTreeSet;

use serde::Serialize;

use super::config::ValueChange;
use super::kind::FileKind;
use super::layers::File;
use crate::contents::{self, Kind, Offers, Program};
use crate::elf::{Elf, Offered};
use crate::paths::ImagePathBuf;

/// What differs in a file, besides its size. What does not differ, or is not known, is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct Details {
    /// What stood there before, where that was something else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub was: Option<FileKind>,
    /// Permission bits, in octal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Change>,
    /// Setuid and setgid bits and capabilities that are other ones now: `setuid cap_net_raw=ep`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub privileges: Option<Change>,
    /// Owner and group, as `0:0`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<Change>,
    /// Where a link points.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Change>,
    /// The build id of a program or library.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_id: Option<Change>,
    /// The libraries that it is linked with (`DT_NEEDED`).
    #[serde(skip_serializing_if = "Names::is_empty")]
    pub needed: Names,
    /// Versions of symbols that a library defines.
    #[serde(skip_serializing_if = "Names::is_empty")]
    pub exports: Names,
    /// The name under which a library is asked for (`DT_SONAME`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub soname: Option<Change>,
    /// Names that a library defines for others, as the linker knows them.
    #[serde(skip_serializing_if = "Names::is_empty")]
    pub symbols: Names,
    /// The library whose place this one takes, under another name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
    /// True where a library defines something no more: what is linked with that does not start.
    #[serde(skip_serializing_if = "is_false")]
    pub abi_break: bool,
    /// Settings, by the names of their blocks and their own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<ValueChange>,
    /// Tables that a script makes, and what differs in them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<TableChange>,
    /// Other statements, values left out.
    #[serde(skip_serializing_if = "Names::is_empty")]
    pub statements: Names,
    /// What there is to say besides, such as why the content was not looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// One value before and now; `None` where there was, or is, none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Before.
    pub from: Option<String>,
    /// Now.
    pub to: Option<String>,
}

/// Names that came and went.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Names {
    /// What is there now, and was not.
    pub added: Vec<String>,
    /// What was there, and is no more.
    pub removed: Vec<String>,
}

/// A table of a script.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TableChange {
    /// Its name.
    pub table: String,
    /// `created`, `gone` or `changed`.
    pub change: TableState,
    /// Columns and keys that differ, by name, as they are defined.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<ValueChange>,
}

/// What became of a table of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TableState {
    /// The script makes it now.
    Created,
    /// The script makes it no more.
    Gone,
    /// The script makes it in another way.
    Changed,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

impl Names {
    /// True where nothing came or went.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }

    fn between<'n>(
        old: impl IntoIterator<Item = &'n String>,
        new: impl IntoIterator<Item = &'n String>,
    ) -> Self {
        let (old, new): (BTreeSet<&String>, BTreeSet<&String>) =
            (old.into_iter().collect(), new.into_iter().collect());
        let told = |name: &&String| super::told::text(name);
        Self {
            added: new.difference(&old).map(told).collect(),
            removed: old.difference(&new).map(told).collect(),
        }
    }
}

impl Change {
    fn of(from: Option<String>, to: Option<String>) -> Option<Self> {
        (from != to).then_some(Self { from, to })
    }
}

impl Details {
    /// `None` where there is nothing to tell.
    pub(super) fn boxed(self) -> Option<Box<Self>> {
        (self != Self::default()).then(|| Box::new(self))
    }

    /// What the entries themselves say, where both are there.
    pub(super) fn of_entries(old: Option<&File>, new: Option<&File>) -> Self {
        let told = |file: Option<&File>| {
            let file = file.filter(|file| file.kind == Kind::File)?;
            contents::privileges(file.mode, file.capabilities)
        };
        let privileges = Change::of(told(old), told(new));
        let (Some(old), Some(new)) = (old, new) else { return Self { privileges, ..Self::default() } };
        let mode = |file: &File| Some(format!("{:04o}", file.mode));
        let owner = |file: &File| Some(format!("{}:{}", file.uid, file.gid));
        Self {
            // A link has no mode of its own, and what became something else is told by its kind.
            mode: Change::of(mode(old), mode(new)).filter(|_| old.kind == new.kind),
            owner: Change::of(owner(old), owner(new)),
            privileges,
            ..Self::default()
        }
    }

    /// Where a link points, as far as the lists know.
    pub(super) fn link(&mut self, [old, new]: [Option<String>; 2]) {
        let told = |target: Option<String>| target.map(|target| super::told::text(&target));
        self.target = Change::of(told(old), told(new));
    }

    /// What the lists know of a program or library. `there`: whether the file was there, and whether it is.
    pub(super) fn code(&mut self, path: &ImagePathBuf, there: [bool; 2], offers: [Option<&Offers>; 2]) {
        let [old, new] = offers.map(|offers| offers.and_then(|offers| offers.libraries.get(path)));
        let other = |here: usize, there: usize| counterpart(path, offers[here], offers[there]);
        match (old, new) {
            (None, None) => {
                let [old, new] = offers.map(|offers| offers.and_then(|offers| offers.programs.get(path)));
                let told = |program: &Program| (program.build_id.clone(), program.needed.clone());
                self.linked(old.map(told), new.map(told));
            }
            // Under another name it is there still.
            (Some(_), None) if !there[1] && other(0, 1).is_some() => {}
            (None, Some(new)) if !there[0] => {
                let old = other(1, 0);
                self.replaces = old.map(|(path, _)| format!("/{}", super::told::text(path)));
                self.library(old.map(|(_, elf)| elf), Some(new));
            }
            (old, new) => self.library(old, new),
        }
    }

    /// What a program or library says of itself, and a library offers.
    pub(super) fn inside(&mut self, elves: [Option<&Elf>; 2], offered: [Option<&Offered>; 2]) {
        if elves.iter().any(Option::is_some)
            && self.build_id.is_none()
            && self.needed.is_empty()
            && self.exports.is_empty()
        {
            let breaks = self.abi_break;
            self.library(elves[0], elves[1]);
            // A program that is one no more is no library that is gone.
            self.abi_break = breaks || !self.exports.removed.is_empty();
        }
        if let [Some(old), Some(new)] = offered {
            let soname = |offered: &Offered| offered.soname.as_deref().map(super::told::text);
            self.soname = Change::of(soname(old), soname(new));
            self.symbols = Names::between(&old.symbols, &new.symbols);
            self.abi_break |=
                !self.symbols.removed.is_empty() || (self.soname.is_some() && old.soname.is_some());
        }
    }

    fn linked(
        &mut self,
        old: Option<(Option<String>, Vec<String>)>,
        new: Option<(Option<String>, Vec<String>)>,
    ) {
        let both = old.is_some() && new.is_some();
        let [(old_id, old), (new_id, new)] = [old, new].map(Option::unwrap_or_default);
        self.build_id = Change::of(old_id, new_id);
        if both {
            self.needed = Names::between(&old, &new);
        }
    }

    fn library(&mut self, old: Option<&Elf>, new: Option<&Elf>) {
        let told = |elf: &Elf| (elf.build_id.clone(), elf.needed.clone());
        self.linked(old.map(told), new.map(told));
        let exports = |elf: Option<&Elf>| elf.map(|elf| elf.exports.clone()).unwrap_or_default();
        self.exports = Names::between(&exports(old), &exports(new));
        self.abi_break = !self.exports.removed.is_empty() || new.is_none();
    }
}

/// The library that has the place of one that is new, or had that of one that is gone, under another name: in the same folder, up
/// to the number of its ABI (`libx.so.6`) called the same. `here` has the library, `there` lacks it.
pub(super) fn counterpart<'o>(
    path: &ImagePathBuf,
    here: Option<&Offers>,
    there: Option<&'o Offers>,
) -> Option<(&'o ImagePathBuf, &'o Elf)> {
    let stem = stem(path)?;
    let is_gone = |other: &ImagePathBuf| here.is_none_or(|here| !here.libraries.contains_key(other));
    let mut others = there?.libraries.iter();
    others.find(|(other, _)| self::stem(other) == Some(stem) && is_gone(other))
}

/// `usr/lib/libx.so.6` of `usr/lib/libx.so.6.0.30`.
fn stem(path: &str) -> Option<&str> {
    let at = path.find(".so.")? + ".so.".len();
    let end = path[at..].find('.').map_or(path.len(), |end| at + end);
    Some(&path[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn library_with_another_number_behind_its_abi_is_its_counterpart() {
        let offers = |names: &[&str]| {
            let libraries = names.iter().map(|name| (ImagePathBuf::parse(name).unwrap(), Elf::default()));
            Offers { libraries: libraries.collect(), ..Offers::default() }
        };
        let (old, new) =
            (offers(&["l/liba.so.6.0.30", "l/libb.so.1"]), offers(&["l/liba.so.6.0.32", "l/libb.so.2"]));
        let found = |path: &str| {
            let path = ImagePathBuf::parse(path).unwrap();
            counterpart(&path, Some(&new), Some(&old)).map(|(path, _)| path.as_str())
        };
        assert_eq!(found("l/liba.so.6.0.32"), Some("l/liba.so.6.0.30"));
        assert_eq!(found("l/libb.so.2"), None, "another ABI");
        assert_eq!(found("l/libb.so"), None);
    }
}
