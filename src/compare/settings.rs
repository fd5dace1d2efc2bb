//! What differs between two files with settings, key by key: of TARS, JSON, and of lines with `key=value` in sections.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::config::ValueChange;
use super::told;
use crate::tars::conf::{self, ConfEntry, Domain};

/// The names of all keys of a file together, in bytes: those of deep blocks come again in each key.
const LONGEST: usize = 8 << 20;

/// Key, such as `/tars/application/server/app` → value.
#[derive(Default)]
struct Settings {
    values: BTreeMap<String, String>,
    length: usize,
}

/// The settings that differ, in order of their keys.
///
/// # Errors
/// A text that is no such file: why, without anything of its content.
pub(super) fn compare(path: &str, old: &str, new: &str) -> Result<Vec<ValueChange>, String> {
    let (old, new) = (read(path, old)?, read(path, new)?);
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    Ok(keys
        .into_iter()
        .filter(|key| old.get(*key) != new.get(*key))
        .map(|key| tell(key, old.get(key), new.get(key)))
        .collect())
}

/// Masks what is taken for a secret: by the key, by a block around it, and within the value.
fn tell(key: &str, from: Option<&String>, to: Option<&String>) -> ValueChange {
    let (above, name) = key.rsplit_once('/').unwrap_or(("", key));
    let is_inside = above.split('/').any(told::is_of_secret);
    // What stands in a list is a key without a value: `requirepass x` on a line of its own.
    let (word, rest) = name.split_once(char::is_whitespace).unwrap_or((name, ""));
    let is_bare = [from, to].into_iter().flatten().all(String::is_empty);
    let hides_name =
        is_bare && (is_inside || (!rest.is_empty() && told::is_of_secret(word)) || told::holds_secret(name));
    let key = if hides_name { format!("{above}/***") } else { key.to_owned() };
    let value = |value: &String| match () {
        () if is_inside && !value.is_empty() => told::MASKED.to_owned(),
        () => told::value(name, value),
    };
    ValueChange { key: told::text(&key), from: from.map(value), to: to.map(value) }
}

fn read(path: &str, text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut settings = Settings::default();
    let end = path.rsplit_once('.').map_or("", |(_, end)| end);
    if text.trim().is_empty() {
        // A file that was not there, or says nothing.
    } else if end == "json" {
        let value: Value =
            serde_json::from_str(text).map_err(|error| format!("line {} is no JSON", error.line()))?;
        settings.json("", &value)?;
    } else if matches!(end, "yaml" | "yml" | "toml") {
        return Err("it is no configuration of TARS".to_owned());
    } else if text.lines().any(|line| line.trim_start().starts_with('<')) {
        // The parser's words quote the line.
        let root = conf::parse(text)
            .map_err(|error| format!("line {} is not as a configuration of TARS has it", error.line))?;
        settings.blocks("", &root)?;
    } else {
        settings.lines(text)?;
    }
    Ok(settings.values)
}

impl Settings {
    fn put(&mut self, above: &str, name: &str, value: String) -> Result<(), String> {
        self.length += above.len() + name.len() + 1;
        if self.length > LONGEST {
            return Err("its keys are too long together".to_owned());
        }
        self.values.insert(format!("{above}/{name}"), value);
        Ok(())
    }

    /// Blocks of one name are kept apart: the second is `name[2]`.
    fn blocks(&mut self, above: &str, domain: &Domain) -> Result<(), String> {
        let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
        for entry in &domain.entries {
            match entry {
                ConfEntry::Pair { key, value } => self.put(above, key, value.clone())?,
                ConfEntry::Domain(inner) => {
                    let count = seen.entry(&inner.name).or_default();
                    *count += 1;
                    let path = numbered(above, &inner.name, *count);
                    self.length += path.len();
                    self.blocks(&path, inner)?;
                }
            }
        }
        Ok(())
    }

    fn json(&mut self, above: &str, value: &Value) -> Result<(), String> {
        let children: Vec<(String, &Value)> = match value {
            Value::Object(inner) if !inner.is_empty() => {
                inner.iter().map(|(name, value)| (name.clone(), value)).collect()
            }
            Value::Array(inner) if !inner.is_empty() => {
                inner.iter().enumerate().map(|(at, value)| (at.to_string(), value)).collect()
            }
            Value::String(text) => return self.leaf(above, text.clone()),
            other => return self.leaf(above, other.to_string()),
        };
        for (name, value) in children {
            let path = format!("{above}/{name}");
            self.length += path.len();
            if self.length > LONGEST {
                return Err("its keys are too long together".to_owned());
            }
            self.json(&path, value)?;
        }
        Ok(())
    }

    fn leaf(&mut self, path: &str, value: String) -> Result<(), String> {
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        self.put(above, name, value)
    }

    fn lines(&mut self, text: &str) -> Result<(), String> {
        let mut section = String::new();
        let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                let count = seen.entry(name).or_default();
                *count += 1;
                section = numbered("", name, *count);
                continue;
            }
            let (key, value) = line
                .split_once('=')
                .or_else(|| line.split_once(char::is_whitespace))
                .map_or((line, ""), |(key, value)| (key.trim_end(), value.trim_start()));
            self.put(&section, key, value.to_owned())?;
        }
        Ok(())
    }
}

fn numbered(above: &str, name: &str, count: usize) -> String {
    if count == 1 { format!("{above}/{name}") } else { format!("{above}/{name}[{count}]") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(path: &str, old: &str, new: &str) -> Vec<String> {
        let shown = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        let changes = compare(path, old, new).unwrap();
        changes
            .into_iter()
            .map(|change| format!("{} {} {}", change.key, shown(change.from), shown(change.to)))
            .collect()
    }

    #[test]
    fn settings_of_tars_are_told_by_the_blocks_around_them() {
        let old = "<tars>\n<db>\ndbhost=a\ndbpass=hunter2\nlist x\n</db>\n<u>\nf=1\n</u>\n<u>\nf=2\n</u>\n</tars>\n";
        let new = "# more\n<tars>\n<db>\ndbhost = b\ndbpass=hunter3\n</db>\n<u>\nf=1\n</u>\n<u>\nf=3\n</u>\n</tars>\nk=v\n";
        assert_eq!(
            told("x.conf", old, new),
            [
                "/k - v",
                "/tars/db/dbhost a b",
                "/tars/db/dbpass *** ***",
                "/tars/db/list x  -",
                "/tars/u[2]/f 2 3"
            ]
        );
        assert_eq!(told("x", old, &old.replace('\n', "\n#\n")), [""; 0], "comments alone");
    }

    #[test]
    fn secret_that_stands_as_a_key_in_a_block_or_in_a_value_is_masked() {
        let new = "<a>\n<password>\nhunter2\nx=hunter2\n</password>\nrequirepass hunter2\nconn=u;pwd=hunter2\n</a>\n";
        assert_eq!(
            told("x.conf", "", new),
            ["/a/conn - ***", "/a/password/*** - ", "/a/password/x - ***", "/a/*** - "]
        );
        assert_eq!(
            told("x.json", "{}", r#"{"a": [{"token": "hunter2"}, 1]}"#),
            ["/ {} -", "/a/0/token - ***", "/a/1 - 1"]
        );
        assert_eq!(
            told("x.ini", "[m]\na = 1\n", "[m]\na = 2\nrequirepass hunter2\n"),
            ["/m/a 1 2", "/m/requirepass - ***"]
        );
    }

    #[test]
    fn text_that_is_no_configuration_is_told_by_its_line_alone() {
        assert_eq!(
            compare("x.conf", "", "<a>\n<hunter2\n</a>\n").unwrap_err(),
            "line 2 is not as a configuration of TARS has it"
        );
        let deep = format!("{}k=v\n{}", "<a>\n".repeat(100_000), "</a>\n".repeat(100_000));
        assert!(compare("x.conf", "", &deep).unwrap_err().contains("configuration of TARS"));
        let name = "n".repeat(100_000);
        let wide =
            format!("<{name}>\n{}</{name}>\n", (0..1000).map(|n| n.to_string() + "=\n").collect::<String>());
        assert_eq!(compare("x.conf", "", &wide).unwrap_err(), "its keys are too long together");
        assert!(compare("x.json", "", &"[".repeat(500_000)).unwrap_err().ends_with("is no JSON"));
    }
}
