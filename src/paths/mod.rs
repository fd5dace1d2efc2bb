//! Paths in images, and tables of them, in order and close together: what is known of some hundred thousand files takes a few bytes more than their names.
//!
//! All tables of the program have one account, and one limit ([`crate::limits::NAMES`]): whatever comes, they take so much
//! memory and no more.

use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits::{self, Beyond};

pub mod image;
mod rows;

pub use image::{ImagePath, ImagePathBuf, LayerName, Lost, Unfit};
pub use rows::{Iter, Rows, Size};

/// Bytes that all tables take now.
static HELD: AtomicU64 = AtomicU64::new(0);

/// An error where the tables of the program take more than they may.
///
/// # Errors
/// [`crate::limits::NAMES`].
pub fn within() -> Result<(), Beyond> {
    limits::NAMES.allow(HELD.load(Ordering::Relaxed))
}

/// What something beside the tables takes of their account, for as long as it lives.
#[derive(Debug)]
pub struct Share(u64);

impl Share {
    /// So many bytes.
    pub fn of(bytes: u64) -> Self {
        HELD.fetch_add(bytes, Ordering::Relaxed);
        Self(bytes)
    }

    fn change(&mut self, bytes: u64) {
        HELD.fetch_add(bytes, Ordering::Relaxed);
        HELD.fetch_sub(self.0, Ordering::Relaxed);
        self.0 = bytes;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        HELD.fetch_sub(self.0, Ordering::Relaxed);
    }
}

/// Writes a number in as few bytes as it needs, seven bits in each.
pub fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

/// Reads what [`put_number`] wrote; what is cut off counts as far as it goes.
pub fn take_number(bytes: &mut &[u8]) -> u64 {
    let (mut number, mut shift) = (0, 0);
    while let Some((byte, rest)) = bytes.split_first() {
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 || shift > 63 {
            break;
        }
    }
    number
}

/// What is kept of a path, in few bytes.
pub trait Packed: Sized {
    /// Writes it.
    fn pack(&self, out: &mut Vec<u8>);
    /// Reads what [`Packed::pack`] wrote.
    fn unpack(bytes: &[u8]) -> Self;
}

impl Packed for () {
    fn pack(&self, _: &mut Vec<u8>) {}

    fn unpack(_: &[u8]) -> Self {}
}

impl Packed for String {
    fn pack(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }

    fn unpack(bytes: &[u8]) -> Self {
        Self::from_utf8_lossy(bytes).into_owned()
    }
}

/// Path → what is there: a map of few bytes, whose values are made when they are asked for.
#[derive(Clone, Debug)]
pub struct Paths<V> {
    rows: Rows,
    values: PhantomData<V>,
}

impl<V> Default for Paths<V> {
    fn default() -> Self {
        Self { rows: Rows::default(), values: PhantomData }
    }
}

impl<V: Packed> Paths<V> {
    /// What is at a path.
    pub fn get(&self, path: &str) -> Option<V> {
        self.rows.get(path).map(V::unpack)
    }

    /// True where there is something at a path.
    pub fn has(&self, path: &str) -> bool {
        self.rows.get(path).is_some()
    }

    /// Puts it there. Of the root nothing is kept.
    pub fn insert(&mut self, path: ImagePath<'_>, value: &V) {
        let mut bytes = Vec::new();
        value.pack(&mut bytes);
        self.rows.insert(path, &bytes);
    }

    /// Takes it out; what was there.
    pub fn remove(&mut self, path: &str) -> Option<V> {
        let value = self.get(path)?;
        self.rows.remove(path);
        Some(value)
    }

    /// All of it, in byte order of the paths.
    pub fn iter(&self) -> impl Iterator<Item = (ImagePathBuf, V)> {
        self.rows.iter().map(|(path, value)| (path, V::unpack(value)))
    }

    /// The paths alone.
    pub fn keys(&self) -> impl Iterator<Item = ImagePathBuf> {
        self.rows.iter().map(|(path, _)| path)
    }

    /// The values alone.
    pub fn values(&self) -> impl Iterator<Item = V> {
        self.rows.iter().map(|(_, value)| V::unpack(value))
    }

    /// The paths below a folder; the empty one is the root, below which is all.
    pub fn below(&self, folder: &str) -> Vec<ImagePathBuf> {
        let inside = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let paths = self.rows.from(&inside).map(|(path, _)| path);
        paths.take_while(|path| path.starts_with(&inside)).collect()
    }

    /// True where something lies below this folder.
    pub fn has_below(&self, folder: &str) -> bool {
        self.rows.has_below(folder)
    }

    /// True where there is nothing.
    pub fn is_empty(&self) -> bool {
        self.rows.size().count == 0
    }

    /// Adds all of another one.
    pub fn extend(&mut self, other: &Self) {
        for (path, value) in &other.rows {
            self.rows.insert(path.path(), value);
        }
    }
}

/// By what is kept: equal values are packed alike.
impl<V: Packed> PartialEq for Paths<V> {
    fn eq(&self, other: &Self) -> bool {
        self.rows == other.rows
    }
}

impl<V: Packed> Eq for Paths<V> {}

impl<V: Packed> FromIterator<(ImagePathBuf, V)> for Paths<V> {
    fn from_iter<I: IntoIterator<Item = (ImagePathBuf, V)>>(entries: I) -> Self {
        let mut paths = Self::default();
        for (path, value) in entries {
            paths.insert(path.path(), &value);
        }
        paths
    }
}

impl<V: Packed + Serialize> Serialize for Paths<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de, V: Packed + Deserialize<'de>> Deserialize<'de> for Paths<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reading<V>(PhantomData<V>);
        impl<'de, V: Packed + Deserialize<'de>> Visitor<'de> for Reading<V> {
            type Value = Paths<V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("paths, and what is there")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Paths<V>, A::Error> {
                let mut paths = Paths::default();
                while let Some((path, value)) = map.next_entry::<ImagePathBuf, V>()? {
                    paths.insert(path.path(), &value);
                    within().map_err(serde::de::Error::custom)?;
                }
                Ok(paths)
            }
        }
        deserializer.deserialize_map(Reading(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_out_of_few_bytes() {
        for number in [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            put_number(&mut bytes, number);
            let mut rest = bytes.as_slice();
            assert_eq!((take_number(&mut rest), rest.len()), (number, 0));
        }
        assert_eq!(take_number(&mut &[0xff; 30][..]) | 1, u64::MAX | 1);
    }
}
