//! PAX extended headers (POSIX.1-2017, pax): records whose length counts itself, so that a value may hold any byte.

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PaxRecord {
    /// The keyword, such as `path`.
    pub key: String,
    /// The value, any bytes.
    pub value: Vec<u8>,
}

/// All records of a header, in order; `None` where it is damaged.
pub(super) fn parse(mut bytes: &[u8]) -> Option<Vec<PaxRecord>> {
    let mut records = Vec::new();
    // Some writers pad with zeros instead of giving the exact size.
    while bytes.first().is_some_and(|byte| *byte != 0) {
        let digits = bytes.iter().position(|byte| *byte == b' ')?;
        let length = usize::try_from(super::sparse::decimal(&bytes[..digits])?).ok()?;
        let record = bytes.get(digits + 1..length)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|byte| *byte == b'=')?;
        let key = std::str::from_utf8(&record[..equals]).ok().filter(|key| !key.is_empty())?.to_owned();
        records.push(PaxRecord { key, value: record[equals + 1..].to_vec() });
        bytes = &bytes[length..];
    }
    Some(records)
}

/// One record, as it is written.
pub(super) fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length.to_string().len() + rest != length {
        length = length.to_string().len() + rest;
    }
    let mut record = format!("{length} {key}=").into_bytes();
    record.extend_from_slice(value);
    record.push(b'\n');
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_counts_its_own_length() {
        for size in [1, 85, 90, 91, 92, 93, 989, 990, 991] {
            let written = record("path", &vec![b'x'; size]);
            let length: usize = String::from_utf8_lossy(&written).split(' ').next().unwrap().parse().unwrap();
            assert_eq!(length, written.len());
        }
    }

    #[test]
    fn records_read_back_whatever_bytes_they_hold() {
        let values: [&[u8]; 4] = [b"", b"plain", b"a\nb=c\n\n", &[0, 0xff, b'\n', 1]];
        let bytes: Vec<u8> = values.iter().flat_map(|value| record("key", value)).collect();
        let read = parse(&bytes).unwrap();
        assert!(read.iter().map(|record| record.value.as_slice()).eq(values), "{read:?}");
    }

    #[test]
    fn damaged_records_are_not_read() {
        for bytes in [
            &b"5 a=b"[..],
            b"99 path=x\n",
            b"x path=y\n",
            b"9 path x\n",
            b"0 \n",
            b"2 \n",
            b" ",
            b"5 =x\n",
            b"+8 a=bc\n",
        ] {
            assert_eq!(parse(bytes), None, "{}", String::from_utf8_lossy(bytes));
        }
    }
}
