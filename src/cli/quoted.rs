//! A line of a file as a message may show it: names and structure, and `***` for every value that is not known to be harmless.
//!
//! Which key holds a password, nobody can tell from its name (`DB_KEY`, a DSN in a label, an argument of a command). So it is
//! the other way round: what is shown is on a list.

use crate::tars::rebuild::{REBUILD, is_switch};

/// Keys of compose files and recipes whose values are what is wrong, and no secret.
const HARMLESS: [&str; 63] = [
    "base",
    "batch",
    "client_refresh",
    "condition",
    "container_name",
    "cpus",
    "depends_on",
    "dns",
    "drain",
    "drain_timeout",
    "driver",
    "dwell",
    "expose",
    "extends",
    "external",
    "file",
    "gateway",
    "gate_timeout",
    "hard",
    "hold",
    "hostname",
    "image",
    "init",
    "internal",
    "interval",
    "ip_range",
    "ipc",
    "ipv4_address",
    "ipv6_address",
    "keep",
    "keep_images",
    "keep_parked",
    "mac_address",
    "mem_limit",
    "mem_reservation",
    "memswap_limit",
    "mode",
    "name",
    "network_mode",
    "networks",
    "nofile",
    "pid",
    "pids_limit",
    "ports",
    "privileged",
    "protocol",
    "published",
    "read_only",
    "restart",
    "retries",
    "role",
    "service",
    "services_timeout",
    "shm_size",
    "soft",
    "start_interval",
    "start_period",
    "stop_grace_period",
    "stop_signal",
    "subnet",
    "target",
    "timeout",
    "version",
];
/// Longer lines are not shown.
const LONGEST: usize = 200;
const MASKED: &str = "***";

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    /// A compose file or a recipe.
    Yaml,
    /// `.env` and its kin.
    Assignments,
}

/// The line as it may be shown; `None` where there is nothing to see.
pub fn line(line: &str, syntax: Syntax) -> Option<String> {
    let text = line.trim();
    if text.is_empty() || text.len() > LONGEST || text.chars().any(char::is_control) {
        return None;
    }
    match syntax {
        Syntax::Assignments => {
            let (name, value) = text.split_once('=')?;
            is_name(name).then(|| format!("{name}={}", shown(name, value)))
        }
        Syntax::Yaml => {
            // A comment may hold anything.
            let text = if text.starts_with('#') { "" } else { text.split(" #").next().unwrap_or_default() };
            let masked = Line { rest: text, out: String::new() }.masked();
            (!masked.is_empty()).then_some(masked)
        }
    }
}

fn is_name(text: &str) -> bool {
    let inner = text.trim_matches(['"', '\'']);
    !inner.is_empty()
        && inner.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '<'))
}

/// True for `${NAME}` and `$NAME`: it says where the value is, not what it is.
fn is_reference(text: &str) -> bool {
    let name = text.trim_matches(['"', '\'']).strip_prefix('$').unwrap_or_default();
    let name = name.strip_prefix('{').and_then(|name| name.strip_suffix('}')).unwrap_or(name);
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn shown<'t>(key: &str, value: &'t str) -> &'t str {
    let key = key.trim_matches(['"', '\'']);
    let harmless = HARMLESS.contains(&key) || (key == REBUILD && is_switch(value));
    if value.is_empty() || harmless || is_reference(value) { value } else { MASKED }
}

/// What is left of a line of YAML, and what of it may be shown.
struct Line<'t> {
    rest: &'t str,
    out: String,
}

impl<'t> Line<'t> {
    /// Word by word: what stands before a colon is a name, everything else is a value of the last name.
    fn masked(mut self) -> String {
        let mut key = "";
        while let Some(next) = self.rest.chars().next() {
            if matches!(next, '{' | '}' | '[' | ']' | ',' | ' ') || self.rest.starts_with("- ") {
                self.out.push(next);
                self.rest = &self.rest[next.len_utf8()..];
                // A name holds for its own value; a list goes on with it.
                if next == '{' {
                    key = "";
                }
                continue;
            }
            let word = self.word();
            if let Some(rest) = self.rest.strip_prefix(':')
                && (rest.is_empty() || rest.starts_with([' ', '[', '{', '"']))
                && is_name(word)
            {
                key = word;
                self.out.push_str(word);
                self.out.push(':');
                self.rest = rest;
            } else {
                // Up to the end of the scalar: it may have colons and blanks.
                let tail = self.scalar();
                let value = format!("{word}{tail}");
                self.out.push_str(shown(key, value.trim_end()));
            }
        }
        self.out
    }

    /// A quoted text, or what reaches to the next mark.
    fn word(&mut self) -> &'t str {
        let quote = self.rest.chars().next().filter(|c| matches!(c, '"' | '\''));
        let end = match quote {
            Some(quote) => self.rest[1..].find(quote).map_or(self.rest.len(), |end| end + 2),
            None => self.rest.find(['{', '}', '[', ']', ',', ' ', ':']).unwrap_or(self.rest.len()),
        };
        // `${...}` is one word, and so is what only looks like a mark.
        let end = if self.rest[..end].ends_with('$') {
            self.rest.find('}').map_or(self.rest.len(), |end| end + 1)
        } else {
            end.max(1)
        };
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    /// The rest of a scalar.
    fn scalar(&mut self) -> &'t str {
        let end = self.rest.find([',', '}', ']', '{', '[']).unwrap_or(self.rest.len());
        let (scalar, rest) = self.rest.split_at(end);
        self.rest = rest;
        scalar
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_yaml_show_names_and_what_is_harmless() {
        for (written, shown) in [
            ("  image: tars/framework:3.0.17", "image: tars/framework:3.0.17"),
            ("REBUILD: \"true\"", "REBUILD: \"true\""),
            ("REBUILD: hunter2", "REBUILD: ***"),
            ("MYSQL_ROOT_PASSWORD: hunter2", "MYSQL_ROOT_PASSWORD: ***"),
            ("DB_KEY: hunter2 and more", "DB_KEY: ***"),
            ("DSN: mysql://root:hunter2@h/db", "DSN: ***"),
            ("- A=hunter2", "- ***"),
            ("- \"3306:3306\"", "- ***"),
            ("ports: [\"80:80\", 90]", "ports: [\"80:80\", 90]"),
            ("ports: [\"${PW}\"]", "ports: [\"${PW}\"]"),
            (
                "environment: {A: hunter2, DOMAIN: x, REBUILD: \"yes\"}",
                "environment: {A: ***, DOMAIN: ***, REBUILD: \"yes\"}",
            ),
            ("x-tars: {role: \"${PW}\"}", "x-tars: {role: \"${PW}\"}"),
            ("K: ${PW}", "K: ${PW}"),
            ("K: a${PW}", "K: ***"),
            ("K: \"a$-hunter2\"", "K: ***"),
            ("command: [\"--key=hunter2\", {a: b}]", "command: [***, {a: ***}]"),
            ("hunter2", "***"),
            ("services:", "services:"),
            ("image: x # hunter2", "image: x"),
        ] {
            assert_eq!(line(written, Syntax::Yaml).as_deref(), Some(shown), "{written}");
        }
        for nothing in ["", "# hunter2", "a\u{1b}: b", &"x".repeat(300)] {
            assert_eq!(line(nothing, Syntax::Yaml), None, "{nothing}");
        }
    }

    #[test]
    fn assignments_show_their_names() {
        for (written, shown) in [
            ("A=hunter2", Some("A=***")),
            ("REBUILD=true", Some("REBUILD=true")),
            ("REBUILD=hunter2", Some("REBUILD=***")),
            ("hunter2 hunter2", None),
            ("hunter2!=x", None),
        ] {
            assert_eq!(line(written, Syntax::Assignments).as_deref(), shown, "{written}");
        }
    }
}
