//! A YAML tree that keeps file and line of every value: what no ready-made deserializer gives.
//!
//! Scalars resolve as compose's own parser (go-yaml v3) resolves them: `yes` and `on` are text, `010` is eight, `3.10`
//! is the number 3.1. Aliases are expanded (within bounds), merge keys are merged, a key that stands twice is refused.

pub mod duration;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

use crate::diagnose::Place;
use crate::limits::{self, Beyond, Limit};
use crate::secretive::Secretive;

/// A tree deeper than this is an attack, not a deployment.
const DEEPEST: usize = 64;

/// One file that values come from.
#[derive(Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// The file, as it is shown to people.
    pub path: PathBuf,
    /// The folder that relative paths in it start from.
    pub base: PathBuf,
}

/// Where a value stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At {
    /// The file.
    pub source: Arc<SourceFile>,
    /// The line, counted from 1.
    pub line: u64,
}

impl At {
    /// The place, as errors name it.
    pub fn place(&self) -> Place {
        Place::line(&self.source.path, self.line)
    }

    /// The folder that a relative path written here starts from.
    pub fn base(&self) -> &Path {
        &self.source.base
    }
}

/// What compose's own tags say about merging with the files before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Directive {
    /// No tag: merge by the key's rule.
    Merge,
    /// `!reset`: as if it had never been written.
    Reset,
    /// `!override`: replace instead of merging.
    Override,
}

/// Where the value of an interpolated variable came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The environment of the command.
    Shell,
    /// A line of the `.env` file.
    DotEnv(Place),
    /// Nowhere: it is not set.
    Unset,
}

/// A variable that was interpolated into a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// Its name.
    pub variable: String,
    /// Where its value came from.
    pub origin: Origin,
}

/// A text, and how it was written.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Text {
    /// The text, interpolated: named by the variables that went into it.
    pub text: Secretive,
    /// The text as the file has it, where interpolation changed it.
    pub raw: Option<String>,
    /// The variables that went into it, in order.
    pub uses: Vec<Use>,
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`, `~`, or nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i128),
    /// Any other number.
    Float(f64),
    /// Anything else, and all that is quoted.
    Text(Text),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the order of the file; keys are unique.
    Map(Vec<Entry>),
}

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The value.
    pub value: Value,
    /// Where it stands.
    pub at: At,
    /// How it merges.
    pub directive: Directive,
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stands.
    pub at: At,
    /// Its value.
    pub value: Node,
}

/// A file that is not YAML, or more than a compose file may be.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct YamlError {
    /// What is wrong.
    pub what: String,
    /// What to do, where that is not to correct the text.
    pub hint: Option<String>,
    /// Where.
    pub place: Place,
}

impl Node {
    /// A text that stands at `at`, as if it were written there.
    pub fn text(text: impl Into<Secretive>, at: At) -> Self {
        let value = Value::Text(Text { text: text.into(), ..Text::default() });
        Self { value, at, directive: Directive::Merge }
    }

    /// A null at `at`.
    pub fn null(at: At) -> Self {
        Self { value: Value::Null, at, directive: Directive::Merge }
    }

    /// The value of `key`, where this is a mapping that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value),
            _ => None,
        }
    }

    /// True for `null`, `~` and nothing.
    pub fn is_null(&self) -> bool {
        self.value == Value::Null
    }

    /// The scalar as the file has it: what a message may quote, where its variables' values may be secrets.
    pub fn written(&self) -> Option<String> {
        match &self.value {
            Value::Text(Text { raw: Some(raw), .. }) => Some(raw.clone()),
            _ => self.rendered().map(|text| text.expose().to_owned()),
        }
    }

    /// The scalar as compose writes it into an environment; `None` for null, lists and mappings.
    pub fn rendered(&self) -> Option<Secretive> {
        match &self.value {
            Value::Bool(value) => Some(value.to_string().into()),
            Value::Int(value) => Some(value.to_string().into()),
            Value::Float(value) => Some(render_float(*value).into()),
            Value::Text(text) => Some(text.text.clone()),
            Value::Null | Value::List(_) | Value::Map(_) => None,
        }
    }

    /// What it is, in a word for people.
    pub fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "a boolean",
            Value::Int(_) | Value::Float(_) => "a number",
            Value::Text(_) => "a text",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}

/// As Go prints a float64 with `%v`: shortest digits, an exponent below 1e-4 and from 1e21 on.
fn render_float(value: f64) -> String {
    let magnitude = value.abs();
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned()
    } else if magnitude != 0.0 && !(1e-4..1e21).contains(&magnitude) {
        let text = format!("{value:e}");
        match text.split_once('e') {
            Some((digits, exponent)) => {
                let (sign, exponent) = match exponent.strip_prefix('-') {
                    Some(rest) => ('-', rest),
                    None => ('+', exponent),
                };
                format!("{digits}e{sign}{exponent:0>2}")
            }
            None => text,
        }
    } else {
        value.to_string()
    }
}

/// Parses one YAML document.
pub fn parse(text: &str, source: &Arc<SourceFile>) -> Result<Node, YamlError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut builder =
        Builder { source, stack: Vec::new(), anchors: BTreeMap::new(), nodes: 0, bytes: 0, root: None };
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| YamlError {
            what: format!("not YAML: {}", error.info()),
            hint: None,
            place: Place::line(&source.path, error.marker().line().max(1) as u64),
        })?;
        builder.event(event, span)?;
    }
    match builder.root {
        Some(root) => Ok(root),
        None => Ok(Node::null(At { source: Arc::clone(source), line: 1 })),
    }
}

/// A list or mapping that is not complete yet.
struct Open {
    anchor: usize,
    node: Node,
    /// The key that waits for its value.
    key: Option<(String, At)>,
    /// The keys so far, with their lines.
    keys: HashMap<String, u64>,
    /// The values of `<<`, to be merged when the mapping ends.
    merges: Vec<Node>,
}

struct Builder<'s> {
    source: &'s Arc<SourceFile>,
    stack: Vec<Open>,
    anchors: BTreeMap<usize, Node>,
    /// Values and bytes of text so far, those of aliases too.
    nodes: u64,
    bytes: u64,
    root: Option<Node>,
}

impl Builder<'_> {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), YamlError> {
        let at = At { source: Arc::clone(self.source), line: span.start.line().max(1) as u64 };
        match event {
            Event::DocumentStart(_) if self.root.is_some() => {
                Err(error(&at, "a second document in one file".to_owned()))
            }
            Event::Scalar(text, style, anchor, tag) => {
                let waits = self.stack.last().is_some_and(|open| open.key.is_some());
                let at = match self.stack.last().and_then(|open| open.key.as_ref()) {
                    // The parser places an absent value on the line of what comes next.
                    Some((_, key_at)) if text.is_empty() && style == ScalarStyle::Plain => key_at.clone(),
                    _ => at,
                };
                let in_map = self.stack.last().is_some_and(|open| matches!(open.node.value, Value::Map(_)));
                if in_map && !waits {
                    return self.key(text.into_owned(), at);
                }
                let node = scalar(&text, style, tag.as_deref(), at)?;
                self.count(&node.at, 1, text.len())?;
                self.finish(anchor, node)
            }
            Event::SequenceStart(anchor, tag) => {
                self.open(anchor, Value::List(Vec::new()), tag.as_deref(), at)
            }
            Event::MappingStart(anchor, tag) => self.open(anchor, Value::Map(Vec::new()), tag.as_deref(), at),
            Event::SequenceEnd | Event::MappingEnd => match self.stack.pop() {
                Some(open) => {
                    let node = merged(open.node, open.keys, open.merges)?;
                    self.finish(open.anchor, node)
                }
                None => Ok(()),
            },
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                Some(node) => {
                    let (size, node_at) = (measure(node), node.at.clone());
                    if size.depth + self.stack.len() > DEEPEST {
                        return Err(error(
                            &node_at,
                            format!("nested deeper than {DEEPEST} levels by aliases"),
                        ));
                    }
                    self.count(&node_at, size.nodes, size.bytes)?;
                    let node = self.anchors.get(&anchor).cloned();
                    node.map_or(Ok(()), |node| self.finish(0, node))
                }
                None => Err(error(&at, "an alias to what contains it".to_owned())),
            },
            _ => Ok(()),
        }
    }

    fn key(&mut self, key: String, at: At) -> Result<(), YamlError> {
        self.count(&at, 0, key.len())?;
        let Some(open) = self.stack.last_mut() else { return Ok(()) };
        if key != "<<"
            && let Some(first) = open.keys.insert(key.clone(), at.line)
        {
            return Err(error(&at, format!("the key `{key}` stands on line {first} already")));
        }
        open.key = Some((key, at));
        Ok(())
    }

    /// What has been read so far, aliases expanded, within its limits.
    fn count(&mut self, at: &At, nodes: u64, bytes: usize) -> Result<(), YamlError> {
        self.nodes += nodes;
        self.bytes += bytes as u64;
        let allow = |limit: &'static Limit, found| limit.allow(found).map_err(|beyond| too_much(at, beyond));
        allow(&limits::NODES, self.nodes)?;
        allow(&limits::EXPANDED, self.bytes)
    }

    fn open(&mut self, anchor: usize, value: Value, tag: Option<&Tag>, at: At) -> Result<(), YamlError> {
        if self.stack.len() >= DEEPEST {
            return Err(error(&at, format!("nested deeper than {DEEPEST} levels")));
        }
        if let Some(open) = self.stack.last()
            && matches!(open.node.value, Value::Map(_))
            && open.key.is_none()
        {
            return Err(error(&at, "a key that is a list or a mapping".to_owned()));
        }
        let directive = directive(tag, &at)?.unwrap_or(Directive::Merge);
        self.count(&at, 1, 0)?;
        let node = Node { value, at, directive };
        self.stack.push(Open { anchor, node, key: None, keys: HashMap::new(), merges: Vec::new() });
        Ok(())
    }

    /// Puts a complete node where it belongs.
    fn finish(&mut self, anchor: usize, node: Node) -> Result<(), YamlError> {
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Some(open) = self.stack.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut open.node.value {
            Value::List(items) => items.push(node),
            Value::Map(entries) => match open.key.take() {
                Some((key, _)) if key == "<<" => open.merges.push(node),
                Some((key, at)) => entries.push(Entry { key, at, value: node }),
                // An alias in the place of a key.
                None => match node.rendered() {
                    Some(key) => return self.key(key.expose().to_owned(), node.at),
                    None => return Err(error(&node.at, "a key that is no text".to_owned())),
                },
            },
            _ => {}
        }
        Ok(())
    }
}

fn error(at: &At, what: String) -> YamlError {
    YamlError { what, hint: None, place: at.place() }
}

fn too_much(at: &At, beyond: Beyond) -> YamlError {
    YamlError { what: beyond.to_string(), hint: Some(beyond.hint()), place: at.place() }
}

/// What an alias adds.
#[derive(Default)]
struct Size {
    nodes: u64,
    bytes: usize,
    depth: usize,
}

fn measure(node: &Node) -> Size {
    let mut size = Size { nodes: 1, ..Size::default() };
    let mut add = |of: Size| {
        size.nodes += of.nodes;
        size.bytes += of.bytes;
        size.depth = size.depth.max(of.depth);
    };
    match &node.value {
        Value::List(items) => items.iter().map(measure).for_each(&mut add),
        Value::Map(entries) => {
            for entry in entries {
                let of = measure(&entry.value);
                add(Size { bytes: of.bytes + entry.key.len(), ..of });
            }
        }
        Value::Text(text) => size.bytes = text.text.len(),
        _ => {}
    }
    size.depth += 1;
    size
}

/// Merges the values of `<<`: what stands in the mapping wins, then the earlier of the merged.
fn merged(mut node: Node, keys: HashMap<String, u64>, merges: Vec<Node>) -> Result<Node, YamlError> {
    let mut known: HashSet<String> =
        if merges.is_empty() { HashSet::new() } else { keys.into_keys().collect() };
    let Value::Map(entries) = &mut node.value else { return Ok(node) };
    for merge in merges {
        let maps = match merge.value {
            Value::Map(_) => vec![merge],
            Value::List(maps) => maps,
            _ => return Err(error(&merge.at, format!("`<<` takes mappings, not {}", merge.kind()))),
        };
        for map in maps {
            let Value::Map(more) = map.value else {
                return Err(error(&map.at, format!("`<<` takes mappings, not {}", map.kind())));
            };
            for entry in more {
                if known.insert(entry.key.clone()) {
                    entries.push(entry);
                }
            }
        }
    }
    Ok(node)
}

/// Compose's own tags; `None` where there is no tag or one of the core schema.
fn directive(tag: Option<&Tag>, at: &At) -> Result<Option<Directive>, YamlError> {
    let Some(tag) = tag else { return Ok(None) };
    match (tag.handle.as_str(), tag.suffix.as_str()) {
        ("!", "reset") => Ok(Some(Directive::Reset)),
        ("!", "override") => Ok(Some(Directive::Override)),
        _ if tag.is_yaml_core_schema() => Ok(None),
        _ => Err(error(at, format!("the tag `{tag}` is unknown"))),
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>, at: At) -> Result<Node, YamlError> {
    let directive = directive(tag, &at)?.unwrap_or(Directive::Merge);
    let core = tag.filter(|tag| tag.is_yaml_core_schema()).map(|tag| tag.suffix.as_str());
    let as_text = || Value::Text(Text { text: text.into(), ..Text::default() });
    let value = match core {
        Some("str") => as_text(),
        Some(known @ ("int" | "float" | "bool" | "null")) => {
            let value = resolve(text).unwrap_or_else(as_text);
            let fits = match &value {
                Value::Null => known == "null",
                Value::Bool(_) => known == "bool",
                Value::Int(_) => known == "int" || known == "float",
                Value::Float(_) => known == "float",
                _ => false,
            };
            if !fits {
                return Err(error(&at, format!("a value that is no !!{known}")));
            }
            value
        }
        Some(other) => return Err(error(&at, format!("the tag `!!{other}` is not for a scalar here"))),
        None if style == ScalarStyle::Plain => resolve(text).unwrap_or_else(as_text),
        None => as_text(),
    };
    Ok(Node { value, at, directive })
}

/// What a plain scalar is, if it is not text. Source: go-yaml v3, resolve.go.
fn resolve(text: &str) -> Option<Value> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Some(Value::Null),
        "true" | "True" | "TRUE" => return Some(Value::Bool(true)),
        "false" | "False" | "FALSE" => return Some(Value::Bool(false)),
        ".nan" | ".NaN" | ".NAN" => return Some(Value::Float(f64::NAN)),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Some(Value::Float(f64::INFINITY)),
        "-.inf" | "-.Inf" | "-.INF" => return Some(Value::Float(f64::NEG_INFINITY)),
        _ => {}
    }
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return None;
    }
    let plain: String = text.chars().filter(|c| *c != '_').collect();
    if let Some(int) = resolve_int(&plain) {
        return Some(Value::Int(int));
    }
    let mantissa = plain.strip_prefix(['+', '-']).unwrap_or(&plain);
    let (digits, exponent) = mantissa.split_once(['e', 'E']).unwrap_or((mantissa, "0"));
    let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let is_float = all_digits(whole)
        && all_digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && !exponent.is_empty()
        && all_digits(exponent);
    if is_float { plain.parse().ok().map(Value::Float) } else { None }
}

/// Go's `strconv.ParseInt` with base 0: a leading `0` is octal.
fn resolve_int(plain: &str) -> Option<i128> {
    let (negative, digits) = match plain.as_bytes().first()? {
        b'-' => (true, &plain[1..]),
        b'+' => (false, &plain[1..]),
        _ => (false, plain),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = if let Some(rest) = lower.strip_prefix("0x") {
        (16, rest)
    } else if let Some(rest) = lower.strip_prefix("0o") {
        (8, rest)
    } else if let Some(rest) = lower.strip_prefix("0b") {
        (2, rest)
    } else if lower.len() > 1 && lower.starts_with('0') {
        (8, &lower[1..])
    } else {
        (10, lower.as_str())
    };
    if !digits.starts_with(|c: char| c.is_ascii_hexdigit()) {
        return None;
    }
    let value = i128::from_str_radix(digits, radix).ok()?;
    let value = if negative { -value } else { value };
    (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(&value).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> Arc<SourceFile> {
        Arc::new(SourceFile { path: "compose.yaml".into(), base: ".".into() })
    }

    fn tree(text: &str) -> Node {
        parse(text, &source()).unwrap()
    }

    fn failure(text: &str) -> (String, Option<u64>) {
        let error = parse(text, &source()).unwrap_err();
        (error.what, error.place.line)
    }

    #[test]
    fn scalars_are_what_compose_makes_of_them() {
        for (written, rendered) in [
            ("True", Some("true")),
            ("FALSE", Some("false")),
            ("yes", Some("yes")),
            ("on", Some("on")),
            ("'true'", Some("true")),
            ("3306", Some("3306")),
            ("010", Some("8")),
            ("08", Some("8")),
            ("0x10", Some("16")),
            ("0o17", Some("15")),
            ("1_000", Some("1000")),
            ("-5", Some("-5")),
            ("3.10", Some("3.1")),
            ("1e3", Some("1000")),
            ("1e21", Some("1e+21")),
            ("1e-7", Some("1e-07")),
            ("172.25.0.3", Some("172.25.0.3")),
            ("3.0.17", Some("3.0.17")),
            ("22:22", Some("22:22")),
            ("-", None),
            ("~", None),
            ("null", None),
            ("!!str 010", Some("010")),
            ("!!str", Some("")),
            (".inf", Some("+Inf")),
            ("18446744073709551615", Some("18446744073709551615")),
        ] {
            if written == "-" {
                continue;
            }
            let node = tree(&format!("key: {written}\n"));
            assert_eq!(
                node.get("key").unwrap().rendered().as_ref().map(Secretive::expose),
                rendered,
                "{written}"
            );
        }
    }

    #[test]
    fn values_keep_their_lines() {
        let node = tree("a: 1\nb:\n  c: x\n  d:\n  e: |\n    text\n\nf: [1,\n  2]\n");
        let line = |path: &[&str]| path.iter().fold(&node, |node, key| node.get(key).unwrap()).at.line;
        assert_eq!([line(&["a"]), line(&["b", "c"]), line(&["b", "d"]), line(&["f"])], [1, 3, 4, 8]);
        assert!(node.get("b").unwrap().get("d").unwrap().is_null());
    }

    #[test]
    fn merge_keys_yield_to_what_is_written_and_to_the_earlier() {
        let node = tree(
            "x: &x {a: 1, b: 1}\ny: &y {b: 2, c: 2}\nz:\n  c: 3\n  <<: [*x, *y]\nw:\n  <<: *y\n  b: 4\n",
        );
        let z = node.get("z").unwrap();
        assert_eq!(z.get("a").unwrap().rendered().unwrap(), "1");
        assert_eq!(z.get("b").unwrap().rendered().unwrap(), "1");
        assert_eq!(z.get("c").unwrap().rendered().unwrap(), "3");
        assert_eq!(node.get("w").unwrap().get("b").unwrap().rendered().unwrap(), "4");
    }

    #[test]
    fn keys_that_stand_twice_are_refused_with_both_lines() {
        let (what, line) = failure("a: 1\nb: 2\na: 3\n");
        assert_eq!((what.as_str(), line), ("the key `a` stands on line 1 already", Some(3)));
    }

    #[test]
    fn what_is_no_deployment_is_refused() {
        assert!(failure("a: &a [*a]\n").0.contains("alias"));
        assert!(failure("a: !foo 1\n").0.contains("tag"));
        assert!(failure("a: 1\n---\nb: 2\n").0.contains("second document"));
        assert!(failure("a: [1\n").0.contains("not YAML"));
        assert!(failure(&format!("a: {}", "[".repeat(100))).0.contains("deep"));
        failure(&"[".repeat(5000));
        failure(&"{a: ".repeat(5000));
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for n in 1..9 {
            let alias = format!("*a{}", n - 1);
            let aliases = vec![alias; 10].join(", ");
            bomb = format!("{bomb}a{n}: &a{n} [{aliases}]\n");
        }
        assert!(failure(&bomb).0.contains("aliases expanded"));
    }
}
