//! The grammar of `.env` and `env_file`, as compose reads it: quotes, `export`, comments, interpolation, each with its line.
//!
//! Source: compose-go, dotenv/parser.go.

use std::collections::HashMap;

use super::interpolate::{InterpolationError, interpolate};
use crate::limits;
use crate::secretive::Secretive;
use crate::yaml::Origin;

/// One assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The variable.
    pub name: String,
    /// Its value; `None` where the line names it only and the surroundings have no value for it.
    pub value: Option<Secretive>,
    /// The line it begins on, counted from 1.
    pub line: u64,
}

/// A line that cannot be understood. It never shows the line itself: such files hold passwords.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct DotEnvError {
    /// What is wrong.
    pub what: String,
    /// The line, counted from 1.
    pub line: u64,
}

/// Parses a file. `lookup` is asked before the assignments above for interpolated variables, as compose does.
pub fn parse(text: &str, lookup: &dyn Fn(&str) -> Option<Secretive>) -> Result<Vec<Assignment>, DotEnvError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n");
    let mut reader =
        DotenvReader { rest: &text, line: 1, lookup, done: Vec::new(), latest: HashMap::new(), bytes: 0 };
    while reader.skip_to_statement() {
        reader.statement()?;
    }
    Ok(reader.done)
}

struct DotenvReader<'t> {
    rest: &'t str,
    line: u64,
    lookup: &'t dyn Fn(&str) -> Option<Secretive>,
    done: Vec<Assignment>,
    /// Where the latest assignment of a name is.
    latest: HashMap<String, usize>,
    /// Bytes of all values.
    bytes: u64,
}

/// White space within a line.
fn is_blank(c: char) -> bool {
    c != '\n' && c.is_whitespace()
}

impl DotenvReader<'_> {
    /// Skips empty lines and comments; false at the end.
    fn skip_to_statement(&mut self) -> bool {
        loop {
            self.rest = self.rest.trim_start_matches(is_blank);
            if let Some(rest) = self.rest.strip_prefix('\n') {
                self.rest = rest;
                self.line += 1;
            } else if self.rest.starts_with('#') {
                self.rest = self.rest.find('\n').map_or("", |end| &self.rest[end..]);
            } else {
                return !self.rest.is_empty();
            }
        }
    }

    fn statement(&mut self) -> Result<(), DotEnvError> {
        let line = self.line;
        let fault = |what: String| DotEnvError { what, line };
        if let Some(rest) = self.rest.strip_prefix("export")
            && rest.starts_with(is_blank)
        {
            self.rest = rest.trim_start_matches(is_blank);
        }
        let end = self.rest.find(['=', ':', '\n']).unwrap_or(self.rest.len());
        let name = self.rest[..end].trim_end();
        let in_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '[' | ']');
        if name.is_empty() || !name.chars().all(in_name) {
            return Err(fault("a line that is no `NAME=value`".to_owned()));
        }
        let name = name.to_owned();
        let value = if self.rest[end..].starts_with(['=', ':']) {
            self.rest = self.rest[end + 1..].trim_start_matches(is_blank);
            Some(self.value().map_err(|what| fault(what.replace("{name}", &name)))?)
        } else {
            self.rest = &self.rest[end..];
            (self.lookup)(&name)
        };
        self.bytes += value.as_ref().map_or(0, |value| value.len() as u64);
        limits::EXPANDED.allow(self.bytes).map_err(|beyond| fault(format!("{beyond}; {}", beyond.hint())))?;
        if value.as_ref().is_some_and(|value| value.expose().contains('\0')) {
            return Err(fault(format!("the value of `{name}` holds a nul byte, which no environment takes")));
        }
        let value = value.map(|value| value.named(&name));
        self.latest.insert(name.clone(), self.done.len());
        self.done.push(Assignment { name, value, line });
        Ok(())
    }

    fn value(&mut self) -> Result<Secretive, String> {
        let Some(quote @ ('"' | '\'')) = self.rest.chars().next() else {
            let end = self.rest.find('\n').unwrap_or(self.rest.len());
            let raw = &self.rest[..end];
            self.rest = &self.rest[end..];
            let raw = match raw.find(" #") {
                Some(comment) => &raw[..comment],
                None => raw,
            };
            return self.expand(raw.trim_end());
        };
        let mut raw = String::new();
        let mut escaped = false;
        for (at, c) in self.rest.char_indices().skip(1) {
            if escaped {
                if c != quote {
                    raw.push('\\');
                }
                raw.push(c);
                escaped = false;
            } else if c == '\\' {
                escaped = true;
            } else if c == quote {
                self.line += self.rest[..at].matches('\n').count() as u64;
                self.rest = &self.rest[at + 1..];
                self.end_of_line()?;
                return if quote == '"' { self.expand(&unescape(&raw)) } else { Ok(raw.into()) };
            } else {
                raw.push(c);
            }
        }
        Err(format!("the value of `{{name}}` has no closing {quote}"))
    }

    /// After a closing quote only a comment may follow.
    fn end_of_line(&mut self) -> Result<(), String> {
        let rest = self.rest.trim_start_matches(is_blank);
        if rest.is_empty() || rest.starts_with(['\n', '#']) {
            self.rest = rest;
            Ok(())
        } else {
            Err("text after the closing quote of `{name}`".to_owned())
        }
    }

    fn expand(&self, raw: &str) -> Result<Secretive, String> {
        let lookup = |name: &str| {
            let earlier = || {
                let found = self.latest.get(name).and_then(|at| self.done.get(*at));
                found.and_then(|assignment| assignment.value.clone())
            };
            ((self.lookup)(name).or_else(earlier), Origin::Unset)
        };
        match interpolate(raw, &lookup) {
            Ok(done) => Ok(done.text),
            // The text itself may be a password.
            Err(InterpolationError::Malformed) => {
                Err("the value of `{name}` has a `$` that begins no variable (write `$$` or single quotes)"
                    .to_owned())
            }
            // So may the message be, into which variables go as well.
            Err(InterpolationError::Required { variable, .. }) => {
                Err(format!("`{{name}}` needs the variable `{variable}`, which is not set"))
            }
            Err(InterpolationError::Beyond(beyond)) => Err(format!("{beyond}; {}", beyond.hint())),
        }
    }
}

/// The escapes of double quotes; `\$` becomes `$$`, which interpolation takes for a dollar.
fn unescape(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    let mut chars = raw.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some('a') => out.push('\u{7}'),
            Some('b') => out.push('\u{8}'),
            Some('f') => out.push('\u{c}'),
            Some('v') => out.push('\u{b}'),
            Some('$') => out.push_str("$$"),
            Some('\\') | None => out.push('\\'),
            Some('"') => out.push('"'),
            Some(other) => {
                out.push('\\');
                out.push(other);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Vec<(String, Option<String>, u64)> {
        let shell = |name: &str| (name == "SHELL_VAR").then(|| "from-shell".into());
        let done = parse(text, &shell).unwrap();
        let exposed = |value: Option<Secretive>| value.map(|value| value.expose().to_owned());
        done.into_iter().map(|one| (one.name, exposed(one.value), one.line)).collect()
    }

    #[test]
    fn values_are_what_compose_reads() {
        for (line, expected) in [
            ("A=1", "1"),
            ("A = 1 ", "1"),
            ("export A=1", "1"),
            ("A: 1", "1"),
            ("A=a b # comment", "a b"),
            ("A=a#b", "a#b"),
            ("A=", ""),
            ("A='a # $X'", "a # $X"),
            ("A=\"a # b\" # comment", "a # b"),
            ("A=\"x\\ny\"", "x\ny"),
            ("A=\"say \\\"hi\\\"\"", "say \"hi\""),
            ("A='it\\'s'", "it's"),
            ("A=${SHELL_VAR}/x", "from-shell/x"),
            ("A=${NONE:-d}", "d"),
            ("A='${SHELL_VAR}'", "${SHELL_VAR}"),
            ("A=\"\\$x\"", "$x"),
            ("A=p$$w", "p$w"),
            ("A=\"two\nlines\"", "two\nlines"),
            ("A=' true '", " true "),
        ] {
            assert_eq!(values(line), [("A".to_owned(), Some(expected.to_owned()), 1)], "{line}");
        }
    }

    #[test]
    fn lines_are_counted_through_comments_and_quotes() {
        let seen = values("# c\n\nA=\"x\ny\"\r\nB=2\n  # c\n\texport C=$A\nSHELL_VAR\nNOT_SET\n");
        let lines: Vec<(&str, u64)> = seen.iter().map(|(name, _, line)| (name.as_str(), *line)).collect();
        assert_eq!(lines, [("A", 3), ("B", 5), ("C", 7), ("SHELL_VAR", 8), ("NOT_SET", 9)]);
        assert_eq!(seen[2].1.as_deref(), Some("x\ny"));
        assert_eq!((seen[3].1.as_deref(), seen[4].1.as_deref()), (Some("from-shell"), None));
    }

    #[test]
    fn bad_lines_are_named_and_never_shown() {
        for (text, line) in
            [("A=1\nB C=2\n", 2), ("A=\"x\n\n", 1), ("A='x'y\n", 1), ("=x", 1), ("A=pass$ word", 1)]
        {
            let error = parse(text, &|_| None).unwrap_err();
            assert_eq!(error.line, line, "{text}");
            assert!(!error.what.contains("pass"), "{}", error.what);
        }
    }
}
