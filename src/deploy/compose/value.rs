//! Reading single values: text, numbers, sizes, durations, lists, commands, each with compose's leniency.

use std::time::Duration;

use super::error::{ComposeError, Result};
use crate::yaml::{self, Entry, Node, Value};

/// What tarsup does with a key that compose knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Handling {
    /// It is carried out.
    Done,
    /// It is not; what to do instead.
    Not(&'static str),
}

/// What to do instead of a key that has no effect here.
pub(super) const REMOVE: &str = "remove it";

/// The keys of one mapping of the compose format.
pub(super) type Keys = [(&'static str, Handling)];

/// A scalar's text; `what` names the key for people.
pub(super) fn text(node: &Node, what: &str) -> Result<String> {
    let text = node.rendered().map(|text| text.expose().to_owned());
    text.ok_or_else(|| ComposeError::invalid(&node.at, format!("`{what}` takes a text, not {}", node.kind())))
}

/// `true` or `false`, also as the words that compose takes for them.
pub(super) fn boolean(node: &Node, what: &str) -> Result<bool> {
    let word = match &node.value {
        Value::Bool(value) => return Ok(*value),
        Value::Text(text) => text.text.expose().to_lowercase(),
        _ => String::new(),
    };
    match word.as_str() {
        "true" | "y" | "yes" | "on" | "1" => Ok(true),
        "false" | "n" | "no" | "off" | "0" => Ok(false),
        _ => Err(ComposeError::invalid(&node.at, format!("`{what}` takes true or false"))),
    }
}

/// A whole number.
pub(super) fn integer(node: &Node, what: &str) -> Result<i64> {
    let value = match &node.value {
        Value::Int(value) => i64::try_from(*value).ok(),
        Value::Text(text) => text.text.expose().trim().parse().ok(),
        _ => None,
    };
    value.ok_or_else(|| ComposeError::invalid(&node.at, format!("`{what}` takes a whole number")))
}

/// A number with a fraction, such as `cpus: 0.5`, in billionths.
pub(super) fn billionths(node: &Node, what: &str) -> Result<i64> {
    let wrong = || ComposeError::invalid(&node.at, format!("`{what}` takes a number such as 1.5"));
    let value: f64 = text(node, what)?.trim().parse().map_err(|_| wrong())?;
    let billionths = (value * 1e9).round();
    if !(0.0..9e15).contains(&billionths) {
        return Err(wrong());
    }
    #[expect(clippy::cast_possible_truncation, reason = "bounded above")]
    Ok(billionths as i64)
}

/// A size in bytes: a number, or a number with `b`, `k`, `m`, `g` (binary, as docker takes them).
pub(super) fn bytes(node: &Node, what: &str) -> Result<i64> {
    let wrong = || ComposeError::invalid(&node.at, format!("`{what}` takes a size such as 512m or 1.5g"));
    let written = text(node, what)?.trim().to_lowercase();
    let digits = written.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor: f64 = match written[digits.len()..].trim() {
        "" | "b" => 1.0,
        "k" | "kb" | "kib" => 1024.0,
        "m" | "mb" | "mib" => 1024.0 * 1024.0,
        "g" | "gb" | "gib" => 1024.0 * 1024.0 * 1024.0,
        "t" | "tb" | "tib" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return Err(wrong()),
    };
    if digits.trim() == "-1" && factor.to_bits() == 1.0f64.to_bits() {
        return Ok(-1);
    }
    let number: f64 = digits.trim().parse().map_err(|_| wrong())?;
    let size = number * factor;
    if !(0.0..9e15).contains(&size) {
        return Err(wrong());
    }
    #[expect(clippy::cast_possible_truncation, reason = "bounded above")]
    Ok(size as i64)
}

/// Beyond it nobody waits: about 95 years, well within the 64 bits of nanoseconds that the API has.
const LONGEST: Duration = Duration::from_mins(50_000_000);

/// A duration as compose writes it: `1m30s`, `10s`, `500ms`, `1d`.
pub(super) fn duration(node: &Node, what: &str) -> Result<Duration> {
    let wrong = || {
        ComposeError::invalid_but(
            &node.at,
            format!("`{what}` takes a duration"),
            "write it with its unit, such as 90s, 1m30s or 500ms",
        )
    };
    let written = text(node, what)?;
    yaml::duration::parse(written.trim()).filter(|read| *read <= LONGEST).ok_or_else(wrong)
}

/// The items of a list.
pub(super) fn list<'n>(node: &'n Node, what: &str) -> Result<&'n [Node]> {
    match &node.value {
        Value::List(items) => Ok(items),
        Value::Null => Ok(&[]),
        _ => Err(ComposeError::invalid(&node.at, format!("`{what}` takes a list, not {}", node.kind()))),
    }
}

/// The entries of a mapping.
pub(super) fn entries<'n>(node: &'n Node, what: &str) -> Result<&'n [Entry]> {
    match &node.value {
        Value::Map(entries) => Ok(entries),
        Value::Null => Ok(&[]),
        _ => Err(ComposeError::invalid(&node.at, format!("`{what}` takes a mapping, not {}", node.kind()))),
    }
}

/// One text or a list of texts.
pub(super) fn texts(node: &Node, what: &str) -> Result<Vec<String>> {
    match &node.value {
        Value::List(items) => items.iter().map(|item| text(item, what)).collect(),
        Value::Null => Ok(Vec::new()),
        _ => Ok(vec![text(node, what)?]),
    }
}

/// `command` and `entrypoint`: a list as it is, a text split as a shell would.
pub(super) fn words(node: &Node, what: &str) -> Result<Vec<String>> {
    match &node.value {
        Value::List(items) => items.iter().map(|item| text(item, what)).collect(),
        Value::Null => Ok(Vec::new()),
        _ => split(&text(node, what)?).ok_or_else(|| {
            ComposeError::invalid(&node.at, format!("`{what}` has a quote that is not closed"))
        }),
    }
}

/// Splits a command line: blanks separate, quotes and backslashes protect. `None`: a quote is open.
///
/// Not by the crate `shlex`: it takes a word that begins with `#` for a comment, and what follows would be lost; for compose
/// it is a word like any other.
fn split(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\n' | '\r' => words.extend(word.take()),
            '\\' => word.get_or_insert_default().push(chars.next()?),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '\'' => break,
                        c => word.push(c),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '"' => break,
                        '\\' => match chars.next()? {
                            c @ ('"' | '\\' | '$' | '`') => word.push(c),
                            c => {
                                word.push('\\');
                                word.push(c);
                            }
                        },
                        c => word.push(c),
                    }
                }
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Some(words)
}

/// Refuses what is not in `keys`, and what is there but not carried out. `x-` keys pass.
pub(super) fn check_keys(node: &Node, within: &str, keys: &Keys) -> Result<()> {
    for entry in entries(node, within)? {
        match keys.iter().find(|(key, _)| *key == entry.key) {
            Some((_, Handling::Done)) => {}
            Some((key, Handling::Not(instead))) => {
                return Err(ComposeError::NotCarriedOut {
                    key: (*key).to_owned(),
                    within: within.to_owned(),
                    instead: (*instead).to_owned(),
                    place: entry.at.place(),
                });
            }
            None if entry.key.starts_with("x-") => {}
            None => {
                return Err(ComposeError::UnknownKey {
                    key: entry.key.clone(),
                    within: within.to_owned(),
                    meant: nearest(&entry.key, keys.iter().map(|(key, _)| *key)),
                    place: entry.at.place(),
                });
            }
        }
    }
    Ok(())
}

/// The known word that `word` is probably a slip of.
pub(super) fn nearest<'w>(word: &str, known: impl Iterator<Item = &'w str>) -> Option<String> {
    let plain = |text: &str| text.to_lowercase().replace('-', "_");
    known
        .map(|known| (strsim::levenshtein(&plain(word), &plain(known)), known))
        .filter(|(distance, known)| *distance <= 1 + known.len() / 4 && *distance < known.len())
        .min()
        .map(|(_, known)| known.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::{At, SourceFile};
    use std::sync::Arc;

    fn node(text: &str) -> Node {
        let source = Arc::new(SourceFile { path: "compose.yaml".into(), base: ".".into() });
        Node::text(text, At { source, line: 1 })
    }

    #[test]
    fn durations_have_units() {
        for (written, milliseconds) in
            [("10s", 10_000), ("1m30s", 90_000), ("500ms", 500), ("1.5s", 1500), ("1d", 86_400_000), ("0", 0)]
        {
            assert_eq!(duration(&node(written), "dwell").unwrap().as_millis(), milliseconds, "{written}");
        }
        for written in ["10", "", "s", "1x", "-1s", "1s2", "3000000001s"] {
            assert!(duration(&node(written), "dwell").is_err(), "{written}");
        }
    }

    #[test]
    fn sizes_are_binary() {
        for (written, size) in
            [("64m", 67_108_864), ("1.5k", 1536), ("7", 7), ("2GB", 2_147_483_648), ("-1", -1)]
        {
            assert_eq!(bytes(&node(written), "mem_limit").unwrap(), size, "{written}");
        }
        for written in ["m", "1x", "-5m", ""] {
            assert!(bytes(&node(written), "mem_limit").is_err(), "{written}");
        }
    }

    #[test]
    fn commands_are_split_as_a_shell_splits_them() {
        assert_eq!(
            words(&node(r#"run 'a b' "c \"d\" \x" e\ f ''"#), "command").unwrap(),
            ["run", "a b", "c \"d\" \\x", "e f", ""]
        );
        assert_eq!(words(&node("echo #1 x"), "command").unwrap(), ["echo", "#1", "x"]);
        assert!(words(&node("it's"), "command").is_err());
    }

    #[test]
    fn slips_are_guessed_and_strangers_are_not() {
        let known = ["environment", "entrypoint", "image"];
        assert_eq!(nearest("enviroment", known.into_iter()).as_deref(), Some("environment"));
        assert_eq!(nearest("Image", known.into_iter()).as_deref(), Some("image"));
        assert_eq!(nearest("zebra", known.into_iter()), None);
    }
}
