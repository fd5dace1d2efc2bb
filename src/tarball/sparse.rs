//! Files with holes: GNU tar's old format and its three in PAX headers (GNU tar manual, appendix "Sparse Formats").

use super::pax::PaxRecord;

/// So many bytes of the tar belong at this offset of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// From the file's first byte.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

/// What PAX records say of a sparse file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// Nothing: an ordinary file.
    No,
    /// Versions 0.0 and 0.1: all of it is in the records.
    Map {
        /// Where the bytes belong.
        segments: Vec<Segment>,
        /// The file's size.
        size: u64,
    },
    /// Version 1.0: the map is at the beginning of the content.
    InContent {
        /// The file's size.
        size: u64,
    },
}

/// Reads the records of one entry.
pub(super) fn told(records: &[PaxRecord]) -> Result<Told, String> {
    let find = |key: &str| records.iter().rev().find(|record| record.key == key);
    let number =
        |key: &str| find(key).map(|record| decimal(&record.value).ok_or_else(|| bad(key))).transpose();
    if find("SCHILY.realsize").is_some() {
        return Err("is a sparse file of star's own format".to_owned());
    }
    if !records.iter().any(|record| record.key.starts_with("GNU.sparse.")) {
        return Ok(Told::No);
    }
    let (major, minor) = (number("GNU.sparse.major")?, number("GNU.sparse.minor")?);
    let size = match number("GNU.sparse.realsize")? {
        Some(size) => Some(size),
        None => number("GNU.sparse.size")?,
    };
    let size = size.ok_or_else(|| bad("GNU.sparse.size"))?;
    match (major, minor) {
        (Some(1), Some(0)) => Ok(Told::InContent { size }),
        (None | Some(0), _) => {
            let segments = match find("GNU.sparse.map") {
                Some(map) => pairs(map.value.split(|byte| *byte == b',')),
                None => repeated(records),
            };
            let segments = segments.ok_or_else(|| bad("GNU.sparse.map"))?;
            match number("GNU.sparse.numblocks")? {
                Some(count) if count != segments.len() as u64 => Err(bad("GNU.sparse.numblocks")),
                _ => Ok(Told::Map { segments, size }),
            }
        }
        _ => Err("is a sparse file of a version that is not known".to_owned()),
    }
}

fn bad(key: &str) -> String {
    format!("is a sparse file whose `{key}` cannot be read")
}

/// Version 0.0: `GNU.sparse.offset` and `GNU.sparse.numbytes`, again and again, in order.
fn repeated(records: &[PaxRecord]) -> Option<Vec<Segment>> {
    let wanted =
        |record: &&PaxRecord| matches!(record.key.as_str(), "GNU.sparse.offset" | "GNU.sparse.numbytes");
    let found: Vec<&PaxRecord> = records.iter().filter(wanted).collect();
    let ordered = found
        .chunks(2)
        .all(|pair| pair.len() == 2 && pair[0].key == "GNU.sparse.offset" && pair[1].key != pair[0].key);
    if !ordered {
        return None;
    }
    pairs(found.iter().map(|record| record.value.as_slice()))
}

/// Offset and length, in turn. One empty text is an empty map.
fn pairs<'a>(numbers: impl Iterator<Item = &'a [u8]>) -> Option<Vec<Segment>> {
    let texts: Vec<&[u8]> = numbers.collect();
    if texts == [&b""[..]] {
        return Some(Vec::new());
    }
    let numbers: Vec<u64> = texts.into_iter().map(decimal).collect::<Option<_>>()?;
    let segment = |pair: &[u64]| Some(Segment { offset: *pair.first()?, length: *pair.get(1)? });
    numbers.chunks(2).map(segment).collect()
}

/// Decimal digits and nothing else.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    digits.then(|| std::str::from_utf8(text).ok()?.parse().ok()).flatten()
}

/// True for segments in order that do not overlap, lie within the file and are exactly what is stored.
pub(super) fn fits(segments: &[Segment], size: u64, stored: u64) -> bool {
    let mut end = 0;
    let mut sum: u64 = 0;
    for segment in segments {
        let (Some(next), Some(total)) =
            (segment.offset.checked_add(segment.length), sum.checked_add(segment.length))
        else {
            return false;
        };
        if segment.offset < end {
            return false;
        }
        (end, sum) = (next, total);
    }
    end <= size && sum == stored
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(of: &[(&str, &str)]) -> Vec<PaxRecord> {
        of.iter()
            .map(|(key, value)| PaxRecord { key: (*key).to_owned(), value: value.as_bytes().to_vec() })
            .collect()
    }

    #[test]
    fn three_versions_are_told_apart_and_a_fourth_is_refused() {
        let map = vec![Segment { offset: 0, length: 5 }, Segment { offset: 9, length: 1 }];
        let zero = [
            ("GNU.sparse.size", "10"),
            ("GNU.sparse.numblocks", "2"),
            ("GNU.sparse.offset", "0"),
            ("GNU.sparse.numbytes", "5"),
            ("GNU.sparse.offset", "9"),
            ("GNU.sparse.numbytes", "1"),
        ];
        assert_eq!(told(&records(&zero)), Ok(Told::Map { segments: map.clone(), size: 10 }));
        let one = [("GNU.sparse.size", "10"), ("GNU.sparse.map", "0,5,9,1")];
        assert_eq!(told(&records(&one)), Ok(Told::Map { segments: map, size: 10 }));
        let new = [("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.realsize", "10")];
        assert_eq!(told(&records(&new)), Ok(Told::InContent { size: 10 }));
        assert_eq!(told(&records(&[("path", "x")])), Ok(Told::No));
        for wrong in [
            &[("GNU.sparse.major", "2"), ("GNU.sparse.minor", "0"), ("GNU.sparse.realsize", "1")][..],
            &[("GNU.sparse.map", "0,5")],
            &[("GNU.sparse.size", "10"), ("GNU.sparse.map", "0,5,9")],
            &[("GNU.sparse.size", "x"), ("GNU.sparse.map", "0,5")],
            &[("GNU.sparse.size", "10"), ("GNU.sparse.numbytes", "5"), ("GNU.sparse.offset", "0")],
            &[("GNU.sparse.size", "10"), ("GNU.sparse.numblocks", "2"), ("GNU.sparse.map", "0,5")],
            &[("SCHILY.realsize", "10")],
        ] {
            assert!(told(&records(wrong)).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn segments_must_be_in_order_within_the_file_and_all_that_is_stored() {
        let map = |pairs: &[(u64, u64)]| {
            pairs
                .iter()
                .map(|(offset, length)| Segment { offset: *offset, length: *length })
                .collect::<Vec<_>>()
        };
        assert!(fits(&map(&[(0, 5), (9, 1), (10, 0)]), 10, 6));
        for (wrong, size, stored) in [
            (&[(0, 5), (4, 1)][..], 10, 6),
            (&[(0, 11)], 10, 11),
            (&[(0, 5)], 10, 6),
            (&[(u64::MAX, 2)], u64::MAX, 2),
            (&[(11, 0)], 10, 0),
        ] {
            assert!(!fits(&map(wrong), size, stored), "{wrong:?}");
        }
    }
}
