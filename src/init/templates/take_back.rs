//! Values that versions of ours brought into templates, taken back before a master comes that has no tars-init: its own start
//! takes nothing back. What somebody has edited since stays, and so does what was added.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::base::ShippedTemplates;
use super::merge::{KeyPath, Marks, Values};
use super::{KeyReport, SECRET, held, update};
use crate::init::database::{DatabaseError, Session};
use crate::init::history;
use crate::init::paths::{self, Paths};
use crate::init::start_log::StartLog;
use crate::tars::conf;

/// What was taken back, or would be.
#[derive(Debug, Default, Serialize)]
pub struct TakenBack {
    /// Keys: `own` is the value that they had, `shipped` the one of before that they have again.
    pub back: Vec<KeyReport>,
    /// Keys that somebody has edited since, or whose former value is a secret that no record tells.
    pub stays: Vec<KeyReport>,
}

/// What the history tells of a key: its value before the first change, and after the last one.
struct Changed {
    first: String,
    last: String,
}

/// Takes back what the history of this database (`tarsup.t_version`) tells. The caller holds the lock.
pub fn take_back(
    session: &mut Session,
    paths: &Paths,
    version: Option<&str>,
    log: &StartLog,
) -> Result<TakenBack, DatabaseError> {
    let mut taken = TakenBack::default();
    let changed = history_of_keys(&recorded(session)?);
    if changed.is_empty() {
        return Ok(taken);
    }
    let (held, marks) = (held(session)?, Marks::new(paths));
    let mut base = ShippedTemplates::read(session, version.unwrap_or_default())?;
    for (name, keys) in changed {
        let Some(stored) = held.get(&name) else { continue };
        let Ok(now) = conf::pairs(&stored.profile) else { continue };
        let judged = judge(&name, &marks.of(now), &keys);
        let mut shipped = base.of(&name);
        let values: Values =
            judged.back.iter().map(|(path, value)| (path.clone(), unmarked(value, paths))).collect();
        if !update(session, &name, stored, &values)? {
            log.say(format!("the template {name} was edited just now, and stays as it is"));
            continue;
        }
        if !judged.back.is_empty() {
            // A newer version that comes once more finds them untouched.
            shipped.extend(judged.back.clone());
            base.record(session, &name, &shipped, log)?;
        }
        taken.back.extend(judged.told);
        taken.stays.extend(judged.stays);
    }
    Ok(taken)
}

/// The documents of what was changed, oldest first.
fn recorded(session: &mut Session) -> Result<Vec<Value>, DatabaseError> {
    if !history::has(session, "t_version")? {
        return Ok(Vec::new());
    }
    let query = "SELECT changed FROM tarsup.t_version WHERE changed <> '' ORDER BY id";
    let rows: Vec<(String,)> = session.rows("reading what was changed", query, ())?;
    Ok(rows.into_iter().filter_map(|(text,)| serde_json::from_str(&text).ok()).collect())
}

/// Template → key → what became of it, where that is another value in the end.
fn history_of_keys(documents: &[Value]) -> BTreeMap<String, BTreeMap<String, Changed>> {
    let mut templates: BTreeMap<String, BTreeMap<String, Changed>> = BTreeMap::new();
    let text = |value: &Value, key: &str| value[key].as_str().map(str::to_owned);
    let changes = documents.iter().filter_map(|document| document["templates"]["changed"].as_array());
    for change in changes.flatten() {
        let (Some(template), Some(key)) = (text(change, "template"), text(change, "key")) else { continue };
        let (Some(own), Some(shipped)) = (text(change, "own"), text(change, "shipped")) else { continue };
        let keys = templates.entry(template).or_default();
        keys.entry(key).or_insert_with(|| Changed { first: own, last: String::new() }).last = shipped;
    }
    for keys in templates.values_mut() {
        keys.retain(|_, changed| changed.first != changed.last || changed.first == SECRET);
    }
    templates.retain(|_, keys| !keys.is_empty());
    templates
}

/// What is done about one template, by its values in marks.
#[derive(Default)]
struct Judged {
    back: BTreeMap<KeyPath, String>,
    told: Vec<KeyReport>,
    stays: Vec<KeyReport>,
}

fn judge(name: &str, now: &Values, keys: &BTreeMap<String, Changed>) -> Judged {
    let mut judged = Judged::default();
    for (path, value) in now {
        let Some((key, changed)) = keys.get_key_value(&path.join("/")) else { continue };
        let report = |own: &str| KeyReport {
            template: name.to_owned(),
            key: key.clone(),
            own: own.to_owned(),
            shipped: changed.first.clone(),
            services: Vec::new(),
        };
        if changed.first == SECRET || changed.last == SECRET {
            judged.stays.push(report(SECRET));
        } else if *value == changed.last {
            judged.back.insert(path.clone(), changed.first.clone());
            judged.told.push(report(value));
        } else if *value != changed.first {
            judged.stays.push(report(value));
        }
    }
    judged
}

/// As it stands in a template: the other way round than [`Marks`].
fn unmarked(value: &str, paths: &Paths) -> String {
    value
        .replace("TARS_PATH", &paths::text(&paths.tars()))
        .replace("UPLOAD_PATH", &paths::text(&paths.upload()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn change(key: &str, own: &str, shipped: &str) -> Value {
        json!({"templates": {"changed": [{"template": "t", "key": key, "own": own, "shipped": shipped}]}})
    }

    #[test]
    fn value_of_before_the_first_change_comes_back_where_it_is_still_that_of_the_last() {
        let documents = [
            json!({"begun": true}),
            change("a/there", "1", "2"),
            change("a/there", "2", "3"),
            change("a/edited", "1", "2"),
            change("a/and-back", "1", "2"),
            change("a/and-back", "2", "1"),
            change("a/gone", "1", "2"),
            change("a/already", "1", "2"),
            change("a/password", SECRET, SECRET),
        ];
        let keys = history_of_keys(&documents);
        let now = [
            ("there", "3"),
            ("edited", "7"),
            ("and-back", "1"),
            ("already", "1"),
            ("password", "x"),
            ("other", "2"),
        ];
        let now = now.map(|(key, value)| (vec!["a".to_owned(), key.to_owned()], value.to_owned()));
        let judged = judge("t", &Values::from(now), &keys["t"]);
        let words = |all: &[KeyReport]| -> Vec<String> {
            all.iter().map(|key| format!("{} {} {}", key.key, key.own, key.shipped)).collect()
        };
        assert_eq!(words(&judged.told), ["a/there 3 1"]);
        assert_eq!(judged.back.len(), 1);
        assert_eq!(words(&judged.stays), ["a/edited 7 1", "a/password *** ***"]);
    }
}
