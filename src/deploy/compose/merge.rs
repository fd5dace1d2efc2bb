//! Merging by compose's rules: mappings by key, lists by appending, single values by the later.
//!
//! Source: compose specification, "Merge"; compose-go, override/merge.go.

use super::error::{ComposeError, Result};
use crate::yaml::{Directive, Entry, Node, Text, Value};

/// Keys of a service whose later value replaces the earlier whole.
const REPLACED: [&str; 3] = ["command", "entrypoint", "extends"];
/// Keys of a service that may be a list of `NAME=value` or a mapping, and merge as mappings.
const MAPPINGS: [&str; 5] = ["environment", "labels", "sysctls", "storage_opt", "annotations"];
/// Keys of a service that may be a list of names or a mapping, and merge as mappings.
const NAMED: [&str; 2] = ["depends_on", "networks"];
/// Keys of a service that may be one text or a list, and merge as lists.
const LISTS: [&str; 5] = ["dns", "dns_search", "dns_opt", "env_file", "tmpfs"];

/// Merges two whole files.
pub(super) fn merge_top(base: Node, over: Node) -> Result<Node> {
    merge_with(base, over, &|key, base, over| match key {
        "services" => merge_with(base, over, &|_, base, over| merge_service(base, over)),
        "networks" | "volumes" => merge_with(base, over, &|_, base, over| merge_with(base, over, &resource)),
        _ => generic(base, over),
    })
}

/// Merges two declarations of one service.
pub(super) fn merge_service(base: Node, over: Node) -> Result<Node> {
    merge_with(base, over, &|key, base, over| {
        if REPLACED.contains(&key) {
            Ok(over)
        } else if MAPPINGS.contains(&key) {
            generic(assigned(base)?, assigned(over)?)
        } else if NAMED.contains(&key) {
            generic(named(base)?, named(over)?)
        } else if LISTS.contains(&key) {
            generic(listed(base), listed(over))
        } else {
            match key {
                "extra_hosts" => generic(hosts(base)?, hosts(over)?),
                "healthcheck" => merge_with(base, over, &|key, base, over| {
                    if key == "test" { Ok(over) } else { generic(base, over) }
                }),
                "logging" if driver_differs(&base, &over) => Ok(over),
                "ulimits" => merge_with(base, over, &|_, _, over| Ok(over)),
                _ => generic(base, over),
            }
        }
    })
}

fn resource(key: &str, base: Node, over: Node) -> Result<Node> {
    match key {
        "labels" | "driver_opts" => generic(assigned(base)?, assigned(over)?),
        // Address pools are a whole: half of one and half of another is none.
        "ipam" => merge_with(base, over, &|_, _, over| Ok(over)),
        _ => generic(base, over),
    }
}

fn generic(base: Node, over: Node) -> Result<Node> {
    merge_with(base, over, &|_, base, over| generic(base, over))
}

/// Merges mappings by key with `each`, lists by appending; anything else is replaced.
fn merge_with(base: Node, over: Node, each: &dyn Fn(&str, Node, Node) -> Result<Node>) -> Result<Node> {
    if over.directive != Directive::Merge || base.directive == Directive::Reset {
        return Ok(over);
    }
    match (base.value, over.value) {
        (Value::Map(mut entries), Value::Map(more)) => {
            for entry in more {
                match entries.iter_mut().find(|known| known.key == entry.key) {
                    Some(known) => {
                        let old = std::mem::replace(&mut known.value, Node::null(known.at.clone()));
                        known.value = each(&entry.key, old, entry.value)?;
                        known.at = entry.at;
                    }
                    None => entries.push(entry),
                }
            }
            Ok(Node { value: Value::Map(entries), ..Node::null(base.at) })
        }
        (Value::List(mut items), Value::List(more)) => {
            items.extend(more);
            Ok(Node { value: Value::List(items), ..Node::null(over.at) })
        }
        // A key without a value leaves what was said before.
        (value @ (Value::Map(_) | Value::List(_)), Value::Null) => Ok(Node { value, ..Node::null(base.at) }),
        (Value::Null, value) => Ok(Node { value, ..Node::null(over.at) }),
        (before, after) => {
            let is_collection = |value: &Value| matches!(value, Value::Map(_) | Value::List(_));
            let over = Node { value: after, ..Node::null(over.at) };
            if is_collection(&before) == is_collection(&over.value) && !is_collection(&before) {
                Ok(over)
            } else {
                let place = base.at.place();
                let what = format!("{} cannot be merged with what stands in {place}", over.kind());
                Err(ComposeError::invalid_but(
                    &over.at,
                    what,
                    "write both in the same form, or put `!override` before this one",
                ))
            }
        }
    }
}

/// A list of `NAME=value` as a mapping; a name alone has no value.
pub(super) fn assigned(node: Node) -> Result<Node> {
    let Value::List(items) = node.value else { return Ok(node) };
    let mut entries: Vec<Entry> = Vec::new();
    for item in items {
        let Some(written) = item.rendered() else {
            let what = format!("a list of `NAME=value` takes texts, not {}", item.kind());
            return Err(ComposeError::invalid(&item.at, what));
        };
        let at = item.at.clone();
        let (key, value) = match written.assignment() {
            None => (written.expose().to_owned(), Node::null(at.clone())),
            Some((key, value)) => {
                let text = match item.value {
                    // What was interpolated stays known: the guard names the variable.
                    Value::Text(text) => Text { text: value, ..text },
                    _ => Text { text: value, ..Text::default() },
                };
                (key.to_owned(), Node { value: Value::Text(text), ..Node::null(at.clone()) })
            }
        };
        entries.retain(|entry| entry.key != key);
        entries.push(Entry { key, at, value });
    }
    Ok(Node { value: Value::Map(entries), ..node })
}

/// A list of names as a mapping without values.
pub(super) fn named(node: Node) -> Result<Node> {
    let Value::List(items) = node.value else { return Ok(node) };
    let mut entries: Vec<Entry> = Vec::new();
    for item in items {
        let Some(key) = item.rendered().map(|key| key.expose().to_owned()) else {
            return Err(ComposeError::invalid(
                &item.at,
                format!("a list of names takes texts, not {}", item.kind()),
            ));
        };
        if !entries.iter().any(|entry| entry.key == key) {
            entries.push(Entry { key, at: item.at.clone(), value: Node::null(item.at) });
        }
    }
    Ok(Node { value: Value::Map(entries), ..node })
}

/// One text as a list of one.
fn listed(node: Node) -> Node {
    match node.value {
        Value::List(_) | Value::Null => node,
        value => {
            let item = Node { value, ..Node::null(node.at.clone()) };
            Node { value: Value::List(vec![item]), ..node }
        }
    }
}

/// `extra_hosts` as a list of `host=address`.
pub(super) fn hosts(node: Node) -> Result<Node> {
    let Value::Map(entries) = node.value else { return Ok(node) };
    let mut items = Vec::new();
    for entry in entries {
        let addresses = match entry.value.value {
            Value::List(addresses) => addresses,
            _ => vec![entry.value],
        };
        for address in addresses {
            let Some(text) = address.rendered() else {
                let what = format!("`extra_hosts` takes addresses, not {}", address.kind());
                return Err(ComposeError::invalid(&address.at, what));
            };
            items.push(Node::text(format!("{}={}", entry.key, text.expose()), address.at));
        }
    }
    Ok(Node { value: Value::List(items), ..node })
}

fn driver_differs(base: &Node, over: &Node) -> bool {
    let driver = |node: &Node| node.get("driver").and_then(Node::rendered);
    match (driver(base), driver(over)) {
        (_, None) => false,
        (base, over) => base != over,
    }
}
