//! Rows of paths, each of which says only how it differs from the one before it.

use std::sync::Arc;

use super::{ImagePath, ImagePathBuf, Share, put_number, take_number};

/// A row of more bytes than this is cut in two. All rows are given so many: what is given back is taken again as it is, where
/// rows of many sizes would leave gaps that fit nothing.
const BYTES: usize = 4096;
/// What a row takes besides its bytes, about.
const BESIDE: usize = 96;

/// Some paths in order: of each, how many bytes it shares with the one before, how many others follow, these, and the length
/// of its value and the value.
#[derive(Debug)]
struct Row {
    bytes: Vec<u8>,
    count: usize,
    share: Share,
}

impl Row {
    fn new(count: usize, parts: &[&[u8]]) -> Self {
        let mut bytes = Vec::new();
        bytes.reserve_exact(parts.iter().map(|part| part.len()).sum::<usize>().next_multiple_of(BYTES));
        for part in parts {
            bytes.extend_from_slice(part);
        }
        let share = Share::of((bytes.capacity() + BESIDE) as u64);
        Self { bytes, count, share }
    }

    /// Puts these bytes in the place of others.
    fn replace(&mut self, from: usize, to: usize, parts: &[&[u8]]) {
        let length = parts.iter().map(|part| part.len()).sum::<usize>();
        let (before, rest) = (self.bytes.len(), self.bytes.len() - to);
        let after = from + length + rest;
        if after > self.bytes.capacity() {
            self.bytes.reserve_exact(after.next_multiple_of(BYTES) - before);
            self.share.change((self.bytes.capacity() + BESIDE) as u64);
        }
        if after > before {
            self.bytes.resize(after, 0);
        }
        self.bytes.copy_within(to..before, from + length);
        self.bytes.truncate(after);
        let mut at = from;
        for part in parts {
            self.bytes[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
    }

    /// The path that it begins with.
    fn first(&self) -> &[u8] {
        Item::at(&self.bytes, 0).map_or(&[], |item| &self.bytes[item.rest..item.rest_end])
    }

    /// Its later half, cut off.
    fn cut(&mut self) -> Self {
        let mut path = Vec::new();
        let mut at = 0;
        let mut middle = 0;
        while let Some(item) =
            Item::at(&self.bytes, at).filter(|item| item.end <= self.bytes.len() / 2 || middle == 0)
        {
            path.truncate(item.shared);
            path.extend_from_slice(&self.bytes[item.rest..item.rest_end]);
            at = item.end;
            middle += 1;
        }
        let mut head = Vec::new();
        let mut rest = at;
        if let Some(item) = Item::at(&self.bytes, at) {
            path.truncate(item.shared);
            path.extend_from_slice(&self.bytes[item.rest..item.rest_end]);
            head_of(&mut head, 0, &path);
            rest = item.rest_end;
        }
        let later = Self::new(self.count - middle, &[&head, &self.bytes[rest..]]);
        *self = Self::new(middle, &[&self.bytes[..at]]);
        later
    }
}

impl Clone for Row {
    fn clone(&self) -> Self {
        Self::new(self.count, &[&self.bytes])
    }
}

/// Where the parts of one path lie in its row.
#[derive(Clone, Copy)]
struct Item {
    start: usize,
    shared: usize,
    rest: usize,
    rest_end: usize,
    value: usize,
    end: usize,
}

impl Item {
    fn at(bytes: &[u8], start: usize) -> Option<Self> {
        if start >= bytes.len() {
            return None;
        }
        let mut at = start;
        let shared = length(bytes, &mut at);
        let rest_length = length(bytes, &mut at);
        let (rest, rest_end) = (at, at + rest_length);
        at = rest_end;
        let value_length = length(bytes, &mut at);
        Some(Self { start, shared, rest, rest_end, value: at, end: at + value_length })
    }
}

fn length(bytes: &[u8], at: &mut usize) -> usize {
    let first = bytes[*at];
    // Most are short.
    if first < 0x80 {
        *at += 1;
        return usize::from(first);
    }
    let mut rest = &bytes[*at..];
    let before = rest.len();
    let number = take_number(&mut rest);
    *at += before - rest.len();
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn head_of(out: &mut Vec<u8>, shared: usize, rest: &[u8]) {
    put_number(out, shared as u64);
    put_number(out, rest.len() as u64);
    out.extend_from_slice(rest);
}

/// How many bytes both begin with.
fn alike(one: &[u8], other: &[u8]) -> usize {
    const STEP: usize = 16;
    let most = one.len().min(other.len());
    let mut at = 0;
    while at + STEP <= most && one[at..at + STEP] == other[at..at + STEP] {
        at += STEP;
    }
    while at < most && one[at] == other[at] {
        at += 1;
    }
    at
}

/// Where a path stands in a row, or would.
enum Place {
    There(Item),
    /// Before the item at this place, of which so many bytes are alike; it shares so many with the one before.
    Before {
        at: usize,
        shared: usize,
        alike: usize,
    },
}

impl Row {
    /// What a path shares with the one before it is compared once: most paths are passed over by their first number.
    fn find(&self, path: &[u8]) -> Place {
        let (mut at, mut known) = (0, 0);
        while let Some(item) = Item::at(&self.bytes, at) {
            if item.shared < known {
                return Place::Before { at, shared: known, alike: item.shared };
            }
            if item.shared == known {
                let (rest, wanted) = (&self.bytes[item.rest..item.rest_end], &path[known..]);
                let same = alike(rest, wanted);
                match (rest.get(same), wanted.get(same)) {
                    (None, None) => return Place::There(item),
                    (Some(one), Some(other)) if one > other => {
                        return Place::Before { at, shared: known, alike: known + same };
                    }
                    (Some(_), None) => return Place::Before { at, shared: known, alike: known + same },
                    _ => known += same,
                }
            }
            at = item.end;
        }
        Place::Before { at, shared: known, alike: 0 }
    }

    fn insert(&mut self, path: &[u8], value: &[u8]) -> bool {
        let mut head = Vec::with_capacity(path.len() + 8);
        match self.find(path) {
            Place::There(item) => {
                put_number(&mut head, value.len() as u64);
                self.replace(item.rest_end, item.end, &[&head, value]);
                false
            }
            Place::Before { at, shared, alike } => {
                head_of(&mut head, shared, &path[shared..]);
                put_number(&mut head, value.len() as u64);
                let mut to = at;
                let mut next = Vec::new();
                if let Some(item) = Item::at(&self.bytes, at).filter(|item| alike > item.shared) {
                    let rest = item.rest + alike - item.shared;
                    head_of(&mut next, alike, &self.bytes[rest..item.rest_end]);
                    to = item.rest_end;
                }
                self.replace(at, to, &[&head, value, &next]);
                self.count += 1;
                true
            }
        }
    }

    /// Puts an entry after its last one.
    fn push(&mut self, entry: &[u8]) {
        let end = self.bytes.len();
        self.replace(end, end, &[entry]);
        self.count += 1;
    }

    fn remove(&mut self, item: Item) {
        let mut to = item.end;
        let mut next = Vec::new();
        if let Some(after) = Item::at(&self.bytes, item.end).filter(|after| after.shared > item.shared) {
            let more = &self.bytes[item.rest..item.rest + after.shared - item.shared];
            let rest = [more, &self.bytes[after.rest..after.rest_end]].concat();
            head_of(&mut next, item.shared, &rest);
            to = after.rest_end;
        }
        self.replace(item.start, to, &[&next]);
        self.count -= 1;
    }
}

/// How much a table holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Paths.
    pub count: u64,
    /// Bytes of paths.
    pub bytes: u64,
}

impl<'r> IntoIterator for &'r Rows {
    type Item = (ImagePathBuf, &'r [u8]);
    type IntoIter = Iter<'r>;

    fn into_iter(self) -> Iter<'r> {
        self.iter()
    }
}

/// Paths and some bytes of each, in byte order. A copy shares all rows.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    list: Vec<Arc<Row>>,
    size: Size,
    /// The last path of all: what comes after it is put there without looking for its place.
    last: Vec<u8>,
}

impl PartialEq for Rows {
    fn eq(&self, other: &Self) -> bool {
        // What was made in the same order lies in the same rows.
        let same = |one: &Arc<Row>, other: &Arc<Row>| Arc::ptr_eq(one, other) || one.bytes == other.bytes;
        let is_alike = self.list.len() == other.list.len()
            && self.list.iter().zip(&other.list).all(|(one, other)| same(one, other));
        is_alike || (self.size == other.size && self.iter().eq(other.iter()))
    }
}

impl Eq for Rows {}

impl Rows {
    /// How much is in it.
    pub fn size(&self) -> Size {
        self.size
    }

    fn row_of(&self, path: &[u8]) -> usize {
        self.list.partition_point(|row| row.first() <= path).saturating_sub(1)
    }

    /// What is kept of a path.
    pub fn get(&self, path: &str) -> Option<&[u8]> {
        let row = self.list.get(self.row_of(path.as_bytes()))?;
        match row.find(path.as_bytes()) {
            Place::There(item) => Some(&row.bytes[item.value..item.end]),
            Place::Before { .. } => None,
        }
    }

    /// Puts a path in its place, with what is to be kept of it. Of the root nothing is kept.
    pub fn insert(&mut self, path: ImagePath<'_>, value: &[u8]) {
        if path.is_root() {
            return;
        }
        if self.list.is_empty() || self.last.as_slice() < path.as_bytes() {
            self.append(&path, value);
            return;
        }
        let at = self.row_of(path.as_bytes());
        let row = Arc::make_mut(&mut self.list[at]);
        let is_new = row.insert(path.as_bytes(), value);
        if row.bytes.len() > BYTES && row.count > 1 {
            let later = row.cut();
            self.list.insert(at + 1, Arc::new(later));
        }
        self.count(&path, is_new);
    }

    /// Puts a path after all others. What comes in order fills its rows.
    fn append(&mut self, path: &str, value: &[u8]) {
        let shared = alike(&self.last, path.as_bytes());
        self.last.truncate(shared);
        self.last.extend_from_slice(&path.as_bytes()[shared..]);
        let entry = |shared: usize| {
            let mut bytes = Vec::with_capacity(path.len() + value.len() + 8);
            head_of(&mut bytes, shared, &path.as_bytes()[shared..]);
            put_number(&mut bytes, value.len() as u64);
            bytes.extend_from_slice(value);
            bytes
        };
        let next = entry(shared);
        match self.list.last_mut().filter(|row| row.bytes.len() + next.len() <= BYTES) {
            Some(row) => Arc::make_mut(row).push(&next),
            None => self.list.push(Arc::new(Row::new(1, &[&entry(0)]))),
        }
        self.count(path, true);
    }

    fn count(&mut self, path: &str, is_new: bool) {
        self.size.count += u64::from(is_new);
        self.size.bytes += if is_new { path.len() as u64 } else { 0 };
    }

    /// Takes a path out; false where it was not there.
    pub fn remove(&mut self, path: &str) -> bool {
        let at = self.row_of(path.as_bytes());
        let Some(row) = self.list.get_mut(at) else { return false };
        let Place::There(item) = row.find(path.as_bytes()) else { return false };
        let row = Arc::make_mut(row);
        row.remove(item);
        if row.count == 0 {
            self.list.remove(at);
        }
        if self.last == path.as_bytes() {
            self.last = self.find_last();
        }
        self.size.count -= 1;
        self.size.bytes -= path.len() as u64;
        true
    }

    /// The last path of all; an empty one where there is none.
    fn find_last(&self) -> Vec<u8> {
        let last = self.list.len().saturating_sub(1);
        let mut iter = Iter { rows: &self.list[last..], at: 0, path: Vec::new() };
        while iter.next().is_some() {}
        iter.path
    }

    /// All of it, in byte order of the paths.
    pub fn iter(&self) -> Iter<'_> {
        Iter { rows: &self.list, at: 0, path: Vec::new() }
    }

    /// From this path on.
    pub fn from(&self, path: &str) -> Iter<'_> {
        let row = self.row_of(path.as_bytes());
        let mut iter = Iter { rows: self.list.get(row..).unwrap_or_default(), at: 0, path: Vec::new() };
        while let Some((next, at)) = iter.peek() {
            if next.as_slice() >= path.as_bytes() {
                break;
            }
            (iter.path, iter.at) = (next, at);
        }
        iter
    }

    /// True where something lies below this folder; everything lies below the root.
    pub fn has_below(&self, folder: &str) -> bool {
        if folder.is_empty() {
            return self.size.count > 0;
        }
        let prefix = format!("{folder}/");
        let prefix = prefix.as_bytes();
        let at = self.row_of(prefix);
        let Some(row) = self.list.get(at) else { return false };
        match row.find(prefix) {
            Place::There(_) => true,
            Place::Before { at: next, alike, .. } if next < row.bytes.len() => alike >= prefix.len(),
            // What comes after all of its row is the first of the next one.
            Place::Before { .. } => self.list.get(at + 1).is_some_and(|row| row.first().starts_with(prefix)),
        }
    }

    /// The same, taken out of it: what was taken takes no room any more.
    pub fn into_entries(self) -> impl Iterator<Item = (ImagePathBuf, Vec<u8>)> {
        let owned = |(path, value): (ImagePathBuf, &[u8])| (path, value.to_vec());
        self.list.into_iter().flat_map(move |row| {
            let rows = [row];
            let entries: Vec<(ImagePathBuf, Vec<u8>)> =
                Iter { rows: &rows, at: 0, path: Vec::new() }.map(owned).collect();
            entries
        })
    }
}

/// Paths in order, and what is kept of each.
pub struct Iter<'r> {
    rows: &'r [Arc<Row>],
    at: usize,
    path: Vec<u8>,
}

impl Iter<'_> {
    /// The next path of this row, and where the one after it lies; `None` at the end of the row, and of all.
    fn peek(&self) -> Option<(Vec<u8>, usize)> {
        let row = self.rows.first()?;
        let item = Item::at(&row.bytes, self.at)?;
        let mut path = self.path[..item.shared].to_vec();
        path.extend_from_slice(&row.bytes[item.rest..item.rest_end]);
        Some((path, item.end))
    }
}

impl<'r> Iterator for Iter<'r> {
    type Item = (ImagePathBuf, &'r [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let row = self.rows.first()?;
            let Some(item) = Item::at(&row.bytes, self.at) else {
                self.rows = &self.rows[1..];
                self.at = 0;
                continue;
            };
            self.path.truncate(item.shared);
            self.path.extend_from_slice(&row.bytes[item.rest..item.rest_end]);
            self.at = item.end;
            return Some((ImagePathBuf::of_row(&self.path), &row.bytes[item.value..item.end]));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn table_holds_what_a_map_holds_whatever_comes_in_whatever_order() {
        let mut state = 7_u64;
        let mut random = move |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(state >> 33).unwrap() % below
        };
        let words =
            ["a", "ab", "ä", "ö", "ü", "b", "a-", "a/b", "lib", "x".repeat(200).as_str()].map(str::to_owned);
        let (mut rows, mut map) = (Rows::default(), BTreeMap::new());
        for round in 0..40_000 {
            let length = 1 + random(4);
            let path: Vec<&str> = (0..length).map(|_| words[random(10)].as_str()).collect();
            let path = path.join("/");
            if random(3) == 0 {
                assert_eq!(rows.remove(&path), map.remove(&path).is_some(), "{round}: {path}");
            } else {
                let value = "v".repeat(random(300));
                rows.insert(ImagePathBuf::parse(&path).unwrap().path(), value.as_bytes());
                map.insert(path.clone(), value);
            }
            assert_eq!(
                rows.get(&path).map(<[u8]>::to_vec),
                map.get(&path).map(|value| value.clone().into_bytes())
            );
            if round % 1000 == 0 {
                let all: Vec<(String, Vec<u8>)> =
                    rows.iter().map(|(path, value)| (path.into(), value.to_vec())).collect();
                let expected = map.iter().map(|(path, value)| (path.clone(), value.clone().into_bytes()));
                assert!(all.iter().cloned().eq(expected), "{round}");
                let from = rows.from(&path).map(|(path, _)| String::from(path));
                assert!(from.eq(map.range(path.clone()..).map(|(path, _)| path.clone())), "{round}: {path}");
                let bytes: usize = map.keys().map(String::len).sum();
                assert_eq!((rows.size().count, rows.size().bytes), (map.len() as u64, bytes as u64));
                assert!(rows.clone().into_entries().map(|(path, value)| (path.into(), value)).eq(all));
                for folder in ["a", "ab", "ä/ö", "x", "lib", path.as_str()] {
                    let below = format!("{folder}/");
                    let expected = map.keys().any(|path| path.starts_with(&below));
                    assert_eq!(rows.has_below(folder), expected, "{round}: {folder}");
                }
            }
        }
        assert!(map.len() > 2000, "{}", map.len());
    }

    #[test]
    fn rows_are_full_where_paths_come_in_order() {
        let mut rows = Rows::default();
        for number in 0..10_000 {
            let path = ImagePathBuf::parse(format!("folder/of/many/file-{number:05}")).unwrap();
            rows.insert(path.path(), &[7; 40]);
        }
        let bytes: usize = rows.list.iter().map(|row| row.bytes.capacity() + BESIDE).sum();
        assert!(bytes < 10_000 * 50, "{bytes}");
    }
}
