//! Interpolation by compose's rules: `$VAR`, `${VAR}`, `${VAR:-default}` and its kin, nested, with `$$` for a dollar.
//!
//! Source: compose specification, "Interpolation"; compose-go, template.go.

use std::collections::{BTreeMap, HashSet};

use crate::diagnose::Place;
use crate::limits::{self, Beyond};
use crate::secretive::Secretive;
use crate::yaml::{Directive, Entry, Node, Origin, Text, Use, Value};

/// `${A:-${B:-...}}` deeper than this is an attack.
const DEEPEST: usize = 32;

/// The variables that a compose file sees: the shell's win over the `.env` file's.
#[derive(Clone, Debug, Default)]
pub struct Variables {
    /// The environment of the command.
    pub shell: BTreeMap<String, Secretive>,
    /// The `.env` file: value and place of each.
    pub dotenv: BTreeMap<String, (Secretive, Place)>,
}

impl Variables {
    /// The value of a variable, and where it comes from.
    pub fn lookup(&self, name: &str) -> (Option<&Secretive>, Origin) {
        if let Some(value) = self.shell.get(name) {
            (Some(value), Origin::Shell)
        } else if let Some((value, place)) = self.dotenv.get(name) {
            (Some(value), Origin::DotEnv(place.clone()))
        } else {
            (None, Origin::Unset)
        }
    }
}

/// Why a text cannot be interpolated.
#[derive(Clone, Debug, thiserror::Error)]
pub enum InterpolationError {
    /// A `$` that begins neither a variable nor `$$`. What follows it may be a password, and is not shown.
    #[error("a `$` that begins no variable")]
    Malformed,
    /// Variables that make more of a text than anything needs.
    #[error(transparent)]
    Beyond(#[from] Beyond),
    /// `${VAR:?message}` or `${VAR?message}` without a value.
    #[error("the variable `{variable}` is required but not set{}", if message.is_empty() { String::new() } else { format!(": {message}") })]
    Required {
        /// The variable.
        variable: String,
        /// The file's own message.
        message: String,
    },
}

/// A text with its variables replaced.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Interpolated {
    /// The text, named by the variables that went into it.
    pub text: Secretive,
    /// The variables that were asked for, in order.
    pub uses: Vec<Use>,
    /// Those that have no value and no default: compose takes an empty text and warns.
    pub blank: Vec<String>,
    /// Names and values that went into it.
    pub values: Vec<(String, Secretive)>,
    seen: HashSet<String>,
}

/// Replaces the variables in `text`.
pub fn interpolate(
    text: &str,
    lookup: &dyn Fn(&str) -> (Option<Secretive>, Origin),
) -> Result<Interpolated, InterpolationError> {
    let mut result = Interpolated::default();
    let made = Secretive::from(substitute(text, lookup, &mut result, 0)?);
    let names: Vec<&str> = result.values.iter().map(|(name, _)| name.as_str()).collect();
    result.text = if names.is_empty() { made } else { made.named(&names.join(", ")) };
    Ok(result)
}

fn substitute(
    text: &str,
    lookup: &dyn Fn(&str) -> (Option<Secretive>, Origin),
    notes: &mut Interpolated,
    depth: usize,
) -> Result<String, InterpolationError> {
    let malformed = || InterpolationError::Malformed;
    if depth > DEEPEST {
        return Err(malformed());
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        let here = &rest[dollar..];
        let after = &here[1..];
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(braced) = after.strip_prefix('{') {
            let end = closing_brace(braced).ok_or_else(malformed)?;
            let inner = &braced[..end];
            let name = &inner[..name_length(inner)];
            if name.is_empty() {
                return Err(malformed());
            }
            let operator = &inner[name.len()..];
            out.push_str(&expand(name, operator, lookup, notes, depth)?.ok_or_else(malformed)?);
            limits::EXPANDED.allow(out.len() as u64)?;
            rest = &braced[end + 1..];
        } else {
            let length = name_length(after);
            if length == 0 {
                return Err(malformed());
            }
            out.push_str(&expand(&after[..length], "", lookup, notes, depth)?.unwrap_or_default());
            limits::EXPANDED.allow(out.len() as u64)?;
            rest = &after[length..];
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// One variable with its operator; `None` where the operator is none of compose's.
fn expand(
    name: &str,
    operator: &str,
    lookup: &dyn Fn(&str) -> (Option<Secretive>, Origin),
    notes: &mut Interpolated,
    depth: usize,
) -> Result<Option<String>, InterpolationError> {
    let (value, origin) = lookup(name);
    // Once each: a text may name a long one a million times.
    if notes.seen.insert(name.to_owned()) {
        notes.uses.push(Use { variable: name.to_owned(), origin });
        notes.values.extend(value.clone().map(|value| (name.to_owned(), value)));
    }
    let filled = value.clone().filter(|value| !value.is_empty());
    let operators = [":-", ":?", ":+", "-", "?", "+"];
    let Some((kind, word)) =
        operators.iter().find_map(|kind| operator.strip_prefix(kind).map(|word| (*kind, word)))
    else {
        if !operator.is_empty() {
            return Ok(None);
        }
        if value.is_none() && !notes.blank.iter().any(|blank| blank == name) {
            notes.blank.push(name.to_owned());
        }
        return Ok(Some(value.map_or_else(String::new, |value| value.expose().to_owned())));
    };
    let present = if kind.starts_with(':') { filled } else { value };
    match (kind.trim_start_matches(':'), present) {
        ("-" | "?", Some(value)) => Ok(Some(value.expose().to_owned())),
        ("+", None) => Ok(Some(String::new())),
        ("?", None) => Err(InterpolationError::Required {
            variable: name.to_owned(),
            // Not what it would be filled in with: that may be a password.
            message: if word.contains('$') { String::new() } else { word.to_owned() },
        }),
        _ => substitute(word, lookup, notes, depth + 1).map(Some),
    }
}

/// The offset of the brace that closes the one before `text`.
fn closing_brace(text: &str) -> Option<usize> {
    let mut open = 1usize;
    let bytes = text.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'{' if at > 0 && bytes[at - 1] == b'$' => open += 1,
            b'}' => {
                open -= 1;
                if open == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

/// The length of the variable's name that `text` begins with: `[_A-Za-z][_A-Za-z0-9]*`.
fn name_length(text: &str) -> usize {
    if !text.starts_with(|c: char| c == '_' || c.is_ascii_alphabetic()) {
        return 0;
    }
    text.find(|c: char| c != '_' && !c.is_ascii_alphanumeric()).unwrap_or(text.len())
}

/// What the interpolation of a deployment's files gathers.
#[derive(Debug, Default)]
pub struct Gathered {
    /// Variables without a value, and where.
    pub blank: Vec<(String, Place)>,
    /// Names and values of those that have one: no message may quote a value.
    pub values: BTreeMap<String, Secretive>,
    /// Bytes of text that interpolation made.
    bytes: u64,
}

/// Interpolates every text of a tree; keys stay as they are.
pub fn interpolate_tree(
    node: &mut Node,
    variables: &Variables,
    gathered: &mut Gathered,
) -> Result<(), (InterpolationError, Place)> {
    match &mut node.value {
        Value::Text(text) if text.text.expose().contains('$') => {
            let lookup = |name: &str| {
                let (value, origin) = variables.lookup(name);
                (value.cloned(), origin)
            };
            let done = interpolate(text.text.expose(), &lookup).map_err(|error| (error, node.at.place()))?;
            gathered.bytes += done.text.len() as u64;
            limits::EXPANDED.allow(gathered.bytes).map_err(|beyond| (beyond.into(), node.at.place()))?;
            gathered.blank.extend(done.blank.into_iter().map(|name| (name, node.at.place())));
            gathered.values.extend(done.values);
            let raw = Some(text.text.expose().to_owned());
            *text = Text { text: done.text, raw, uses: done.uses };
            Ok(())
        }
        Value::List(items) => {
            items.iter_mut().try_for_each(|item| interpolate_tree(item, variables, gathered))
        }
        Value::Map(entries) => entries
            .iter_mut()
            .filter(|Entry { value, .. }| value.directive != Directive::Reset)
            .try_for_each(|entry| interpolate_tree(&mut entry.value, variables, gathered)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(text: &str) -> Result<String, InterpolationError> {
        let lookup = |name: &str| match name {
            "SET" => (Some("value".into()), Origin::Shell),
            "EMPTY" => (Some("".into()), Origin::Shell),
            _ => (None, Origin::Unset),
        };
        interpolate(text, &lookup).map(|done| done.text.expose().to_owned())
    }

    #[test]
    fn every_form_means_what_compose_says() {
        for (text, expected) in [
            ("plain", "plain"),
            ("$SET", "value"),
            ("${SET}", "value"),
            ("a$SET-b", "avalue-b"),
            ("$UNSET.", "."),
            ("${UNSET:-d}", "d"),
            ("${EMPTY:-d}", "d"),
            ("${EMPTY-d}", ""),
            ("${UNSET-d}", "d"),
            ("${SET:+other}", "other"),
            ("${EMPTY:+other}", ""),
            ("${EMPTY+other}", "other"),
            ("${UNSET+other}", ""),
            ("${SET:?no}", "value"),
            ("${EMPTY?no}", ""),
            ("${UNSET:-${SET}}", "value"),
            ("${UNSET:-${EMPTY:-x}y}", "xy"),
            ("${UNSET:-a:b-c?d}", "a:b-c?d"),
            ("$$SET", "$SET"),
            ("$${SET}", "${SET}"),
            ("${UNSET:-}", ""),
        ] {
            assert_eq!(with(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn a_required_variable_without_value_is_an_error_with_its_message() {
        let error = with("${UNSET:?set it in .env}").unwrap_err();
        assert_eq!(error.to_string(), "the variable `UNSET` is required but not set: set it in .env");
        assert!(with("${EMPTY:?x}").is_err());
    }

    #[test]
    fn what_is_no_interpolation_is_an_error() {
        for text in ["$", "a$ b", "${", "${}", "${SET", "${SET!x}", "$1", "${-x}", "${ SET}"] {
            assert!(matches!(with(text), Err(InterpolationError::Malformed)), "{text}");
        }
        let deep = "${A:-".repeat(500) + &"}".repeat(500);
        assert!(with(&deep).is_err());
    }
}
