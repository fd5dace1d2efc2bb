//! The grammar of TARS configuration: `<domain>` blocks, `key=value`, `#` comments; reading, and editing in place.
//!
//! As TarsCpp's own reader has it: the first `=` that no backslash precedes ends the key, `\\ \r \n \t \=` are escapes,
//! a line without `=` is a key with an empty value, and of two equal keys in one block the later one wins. Blocks of
//! the same name are kept apart, in order.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// A block, or (with an empty name) the whole file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Domain {
    /// Its name, as between `<` and `>`.
    pub name: String,
    /// What it holds, in the file's order.
    pub entries: Vec<ConfEntry>,
}

/// One thing in a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfEntry {
    /// `key=value`, unescaped.
    Pair {
        /// The key.
        key: String,
        /// The value; empty where the line has no `=`.
        value: String,
    },
    /// A block within the block.
    Domain(Domain),
}

/// Why a text is no TARS configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct ConfError {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: String,
}

impl Domain {
    /// The blocks in it, in order.
    pub fn domains(&self) -> impl Iterator<Item = &Domain> {
        self.entries.iter().filter_map(|entry| match entry {
            ConfEntry::Domain(domain) => Some(domain),
            ConfEntry::Pair { .. } => None,
        })
    }

    /// The first block at `path`, such as `["tars", "application", "server"]`.
    pub fn at(&self, path: &[&str]) -> Option<&Domain> {
        path.iter().try_fold(self, |domain, name| domain.domains().find(|inner| inner.name == *name))
    }

    /// The value of `key` in this block; of several the last.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.entries.iter().rev().find_map(|entry| match entry {
            ConfEntry::Pair { key: name, value } if name == key => Some(value.as_str()),
            _ => None,
        })
    }
}

/// Blocks within blocks; upstream's lie five deep. Whatever walks through them goes as deep.
const DEEPEST: usize = 200;

/// Reads a whole configuration; the answer is a block without a name.
pub fn parse(text: &str) -> Result<Domain, ConfError> {
    let mut open = vec![Domain::default()];
    for (at, line) in text.lines().enumerate() {
        let wrong = |what: String| ConfError { line: at + 1, what };
        match read_line(line).map_err(wrong)? {
            ConfLine::Nothing => {}
            ConfLine::Open(_) if open.len() > DEEPEST => {
                return Err(wrong(format!("blocks lie more than {DEEPEST} deep")));
            }
            ConfLine::Open(name) => open.push(Domain { name: name.to_owned(), entries: Vec::new() }),
            ConfLine::Close(name) => {
                let domain = open.pop().unwrap_or_default();
                match open.last_mut() {
                    Some(outer) if domain.name == name => outer.entries.push(ConfEntry::Domain(domain)),
                    _ => return Err(wrong(format!("</{name}> closes no block that is open"))),
                }
            }
            ConfLine::Pair(key, value) => {
                let entry =
                    ConfEntry::Pair { key: unescape(key), value: unescape(value.unwrap_or_default()) };
                if let Some(domain) = open.last_mut() {
                    domain.entries.push(entry);
                }
            }
        }
    }
    match (open.pop(), open.is_empty()) {
        (Some(root), true) => Ok(root),
        (last, _) => Err(ConfError {
            line: text.lines().count(),
            what: format!("<{}> is never closed", last.unwrap_or_default().name),
        }),
    }
}

/// Sets keys in every block for which `wanted` (asked with the block's path) has values; the rest stays as it is,
/// comments included. A key that the block lacks is added at its end.
pub fn set(
    text: &str,
    wanted: impl Fn(&[&str]) -> Option<Vec<(&'static str, String)>>,
) -> Result<String, ConfError> {
    parse(text)?;
    let mut out = String::with_capacity(text.len() + 64);
    let mut path: Vec<&str> = Vec::new();
    let mut left: Vec<Vec<(&'static str, String)>> = Vec::new();
    for line in text.lines() {
        match read_line(line).unwrap_or(ConfLine::Nothing) {
            ConfLine::Open(name) => {
                path.push(name);
                left.push(wanted(&path).unwrap_or_default());
            }
            ConfLine::Close(_) => {
                path.pop();
                for (key, value) in left.pop().unwrap_or_default() {
                    let _ = writeln!(out, "{}    {key}={}", indent(line), escape(&value));
                }
            }
            ConfLine::Pair(key, _) => {
                let pending =
                    left.last_mut().map(|left| (left.iter().position(|(name, _)| *name == key), left));
                if let Some((Some(at), left)) = pending {
                    let (key, value) = left.remove(at);
                    let _ = writeln!(out, "{}{key}={}", indent(line), escape(&value));
                    continue;
                }
                // The later of two equal keys wins, so a second one would undo the first.
                if wanted(&path).is_some_and(|keys| keys.iter().any(|(name, _)| *name == key)) {
                    continue;
                }
            }
            ConfLine::Nothing => {}
        }
        out.push_str(line);
        out.push('\n');
    }
    Ok(out)
}

/// Every pair, by the names of its blocks and its own; of several the last.
pub fn pairs(text: &str) -> Result<BTreeMap<Vec<String>, String>, ConfError> {
    fn walk(domain: &Domain, path: &mut Vec<String>, found: &mut BTreeMap<Vec<String>, String>) {
        for entry in &domain.entries {
            match entry {
                ConfEntry::Pair { key, value } => {
                    let whole = path.iter().chain([key]).cloned().collect();
                    found.insert(whole, value.clone());
                }
                ConfEntry::Domain(inner) => {
                    path.push(inner.name.clone());
                    walk(inner, path, found);
                    path.pop();
                }
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(&parse(text)?, &mut Vec::new(), &mut found);
    Ok(found)
}

/// Gives keys (by the names of their blocks and their own) these values; the rest stays as it is, comments included. A key
/// that its block lacks is added at the block's end, a block that is lacking at the end of the one around it.
pub fn put(text: &str, values: &BTreeMap<Vec<String>, String>) -> Result<String, ConfError> {
    let mut left: BTreeMap<&[String], &str> =
        values.iter().map(|(path, value)| (path.as_slice(), value.as_str())).collect();
    let blocks = blocks(&parse(text)?);
    let mut out = String::with_capacity(text.len() + 64);
    let mut path: Vec<String> = Vec::new();
    for line in text.lines() {
        match read_line(line).unwrap_or(ConfLine::Nothing) {
            ConfLine::Open(name) => path.push(name.to_owned()),
            ConfLine::Close(_) => {
                add(&mut out, &mut left, &path, &blocks, indent(line));
                path.pop();
            }
            ConfLine::Pair(key, _) => {
                let whole: Vec<String> = path.iter().cloned().chain([unescape(key)]).collect();
                if let Some(value) = values.get(&whole) {
                    // The later of two equal keys wins, so a second one would undo the first.
                    if left.remove(whole.as_slice()).is_some() {
                        let _ = writeln!(out, "{}{}", indent(line), pair(key, value));
                    }
                    continue;
                }
            }
            ConfLine::Nothing => {}
        }
        out.push_str(line);
        out.push('\n');
    }
    add(&mut out, &mut left, &[], &blocks, "");
    Ok(out)
}

/// The paths of all blocks.
fn blocks(root: &Domain) -> BTreeSet<Vec<String>> {
    fn walk(domain: &Domain, path: &mut Vec<String>, found: &mut BTreeSet<Vec<String>>) {
        for inner in domain.domains() {
            path.push(inner.name.clone());
            found.insert(path.clone());
            walk(inner, path, found);
            path.pop();
        }
    }
    let mut found = BTreeSet::new();
    walk(root, &mut Vec::new(), &mut found);
    found
}

/// At the end of the block `path`: what it lacks, with the blocks that are lacking around it.
fn add(
    out: &mut String,
    left: &mut BTreeMap<&[String], &str>,
    path: &[String],
    blocks: &BTreeSet<Vec<String>>,
    indent: &str,
) {
    let belongs = |whole: &[String]| {
        let inner = &whole[..whole.len() - 1];
        let is_below = inner.len() >= path.len() && inner[..path.len()] == *path;
        is_below && (inner.len() == path.len() || !blocks.contains(&inner[..=path.len()]))
    };
    let due: Vec<(&[String], &str)> =
        left.iter().filter(|(whole, _)| belongs(whole)).map(|(whole, value)| (*whole, *value)).collect();
    // Sorted by path, so what shares a block stands together.
    let mut open: &[String] = &[];
    let deeper = |depth: usize| format!("{indent}{}", "    ".repeat(depth + usize::from(!path.is_empty())));
    for (whole, value) in due {
        left.remove(whole);
        let (key, inner) =
            whole.split_last().map_or(("", whole), |(key, inner)| (key.as_str(), &inner[path.len()..]));
        let shared = open.iter().zip(inner).take_while(|(one, other)| one == other).count();
        for depth in (shared..open.len()).rev() {
            let _ = writeln!(out, "{}</{}>", deeper(depth), open[depth]);
        }
        for (depth, name) in inner.iter().enumerate().skip(shared) {
            let _ = writeln!(out, "{}<{name}>", deeper(depth));
        }
        let _ = writeln!(out, "{}{}", deeper(inner.len()), pair(&escape(key), value));
        open = inner;
    }
    for depth in (0..open.len()).rev() {
        let _ = writeln!(out, "{}</{}>", deeper(depth), open[depth]);
    }
}

/// A line; one without a value needs no `=`, and an endpoint in a list of them would read oddly with it.
fn pair(key: &str, value: &str) -> String {
    if value.is_empty() { key.to_owned() } else { format!("{key}={}", escape(value)) }
}

enum ConfLine<'a> {
    Nothing,
    Open(&'a str),
    Close(&'a str),
    Pair(&'a str, Option<&'a str>),
}

fn read_line(line: &str) -> Result<ConfLine<'_>, String> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(ConfLine::Nothing);
    }
    if let Some(rest) = line.strip_prefix('<') {
        let (name, _) = rest.split_once('>').ok_or_else(|| format!("`{line}` has no `>`"))?;
        return Ok(match name.strip_prefix('/') {
            Some(name) => ConfLine::Close(name),
            None => ConfLine::Open(name),
        });
    }
    let mut before = None;
    for (at, byte) in line.bytes().enumerate() {
        if byte == b'=' && before != Some(b'\\') {
            return Ok(ConfLine::Pair(line[..at].trim_end(), Some(line[at + 1..].trim_start())));
        }
        before = Some(byte);
    }
    Ok(ConfLine::Pair(line, None))
}

fn indent(line: &str) -> &str {
    &line[..line.len() - line.trim_start().len()]
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('r') => out.push('\r'),
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some(other) => out.push(other),
                None => out.push('\\'),
            },
            other => out.push(other),
        }
    }
    out
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\r' => out.push_str("\\r"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '=' => out.push_str("\\="),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "\
<tars>
  # a comment = not a pair
  sql = CREATE TABLE t (a int) ENGINE\\=InnoDB
  <db>
    dbhost=db.tars.com
    allow
    dbport = 3306
  </db>
</tars>
";

    #[test]
    fn pairs_are_read_with_their_escapes_and_without_comments() {
        let root = parse(SAMPLE).unwrap();
        let tars = root.at(&["tars"]).unwrap();
        assert_eq!(tars.get("sql"), Some("CREATE TABLE t (a int) ENGINE=InnoDB"));
        let db = root.at(&["tars", "db"]).unwrap();
        assert_eq!(
            (db.get("dbhost"), db.get("allow"), db.get("dbport")),
            (Some("db.tars.com"), Some(""), Some("3306"))
        );
        assert_eq!(root.at(&["tars", "nothing"]), None);
        assert_eq!(tars.entries.len(), 2, "the comment is no entry");
    }

    #[test]
    fn blocks_of_one_name_are_both_kept_in_order() {
        let root = parse("<u>\n<a>\nf=1\n</a>\n<b>\nf=2\n</b>\n<a>\nf=3\n</a>\n</u>\n").unwrap();
        let fields: Vec<_> = root
            .at(&["u"])
            .unwrap()
            .domains()
            .map(|domain| (domain.name.as_str(), domain.get("f")))
            .collect();
        assert_eq!(fields, [("a", Some("1")), ("b", Some("2")), ("a", Some("3"))]);
    }

    #[test]
    fn later_of_two_equal_keys_wins() {
        assert_eq!(parse("k=1\nk=2\n").unwrap().get("k"), Some("2"));
    }

    #[test]
    fn unclosed_and_unopened_blocks_are_named_with_their_line() {
        assert_eq!(parse("<a>\nk=1\n").unwrap_err().to_string(), "line 2: <a> is never closed");
        assert_eq!(
            parse("<a>\n</b>\n").unwrap_err().to_string(),
            "line 2: </b> closes no block that is open"
        );
        assert_eq!(parse("</b>\n").unwrap_err().line, 1);
        assert_eq!(parse("<a\n").unwrap_err().to_string(), "line 1: `<a` has no `>`");
    }

    #[test]
    fn blocks_within_blocks_have_an_end() {
        let nested = |depth: usize| format!("{}{}", "<a>\n".repeat(depth), "</a>\n".repeat(depth));
        assert!(parse(&nested(200)).is_ok());
        assert_eq!(parse(&nested(201)).unwrap_err().to_string(), "line 201: blocks lie more than 200 deep");
        assert!(parse(&nested(200_000)).is_err(), "and no stack either");
    }

    #[test]
    fn set_changes_the_wanted_keys_and_leaves_the_rest_as_it_was() {
        let wanted = |path: &[&str]| {
            (path == ["tars", "db"])
                .then(|| vec![("dbhost", "my\\sql".to_owned()), ("dbuser", "a=b".to_owned())])
        };
        let text = set(SAMPLE, wanted).unwrap();
        let expected = SAMPLE
            .replace("    dbhost=db.tars.com\n", "    dbhost=my\\\\sql\n")
            .replace("  </db>", "      dbuser=a\\=b\n  </db>");
        assert_eq!(text, expected);
        let db = parse(&text).unwrap();
        let db = db.at(&["tars", "db"]).unwrap();
        assert_eq!((db.get("dbhost"), db.get("dbuser")), (Some("my\\sql"), Some("a=b")));
    }

    #[test]
    fn set_leaves_no_second_value_that_would_win() {
        let text = set("<a>\nk=1\nk=2\n</a>\n", |_| Some(vec![("k", "3".to_owned())])).unwrap();
        assert_eq!(text, "<a>\nk=3\n</a>\n");
    }

    fn path(text: &str) -> Vec<String> {
        text.split('/').map(str::to_owned).collect()
    }

    #[test]
    fn pairs_are_found_by_their_blocks() {
        let pairs = pairs(SAMPLE).unwrap();
        assert_eq!(pairs.len(), 4);
        assert_eq!(pairs[&path("tars/db/dbport")], "3306");
        assert_eq!(pairs[&path("tars/db/allow")], "");
    }

    #[test]
    fn put_changes_adds_and_nests_and_what_was_put_is_read_again() {
        let values = BTreeMap::from([
            (path("tars/db/dbport"), "3307".to_owned()),
            (path("tars/db/new"), "a=b".to_owned()),
            (path("tars/elk/nodes/1.2.3.4:9200"), String::new()),
            (path("tars/elk/protocol"), "http".to_owned()),
            (path("other/k"), "v".to_owned()),
        ]);
        let text = put(SAMPLE, &values).unwrap();
        let expected = SAMPLE
            .replace("    dbport = 3306\n", "    dbport=3307\n")
            .replace("  </db>\n", "      new=a\\=b\n  </db>\n")
            .replace(
                "</tars>\n",
                "    <elk>\n        <nodes>\n            1.2.3.4:9200\n        </nodes>\n        protocol=http\n    \
                 </elk>\n</tars>\n<other>\n    k=v\n</other>\n",
            );
        assert_eq!(text, expected);
        let read = pairs(&text).unwrap();
        assert!(values.iter().all(|(path, value)| read.get(path) == Some(value)), "{read:?}");
        assert_eq!(put(&text, &values).unwrap(), text, "a second time nothing changes");
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_put_is_read_again(
            values in proptest::collection::btree_map(
                proptest::collection::vec("[ab]{1,2}", 1..4), "[a=\\\\ \t\u{e4}]{0,4}", 0..6,
            ),
        ) {
            let values: BTreeMap<Vec<String>, String> =
                values.into_iter().map(|(path, value)| (path, value.trim().to_owned())).collect();
            let read = pairs(&put("<a>\n<b>\nk=1\n</b>\n</a>\n", &values).unwrap()).unwrap();
            for (path, value) in &values {
                proptest::prop_assert_eq!(read.get(path), Some(value));
            }
        }
    }
}
