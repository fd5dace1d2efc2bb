//! Three ways, key by key: what the version before shipped, what this one ships, what the database holds.
//!
//! A key that nobody has touched follows the image; one that an administrator edited stays; where both changed, it stays
//! and is named. Nothing is ever taken out.

use std::collections::BTreeMap;

use super::upstream;
use crate::init::paths::{self, Paths};
use crate::init::render;

/// The names of a key's blocks, and its own.
pub type KeyPath = Vec<String>;
/// Every key of a template, with its value in marks.
pub type Values = BTreeMap<KeyPath, String>;

/// Recorded in the place of a shipped value: somebody took the key out and said that it is not needed, whatever is shipped. No
/// value of a configuration begins like this.
const NOT_NEEDED: &str = "\0not needed";

/// What a start writes in the place of marks, where it is the same in every container: values are compared with the marks.
#[derive(Clone, Debug)]
pub struct Marks {
    tars: String,
    upload: String,
}

impl Marks {
    /// Of this container.
    pub fn new(paths: &Paths) -> Self {
        Self { tars: paths::text(&paths.tars()), upload: paths::text(&paths.upload()) }
    }

    /// All values, rendered or not, in marks.
    pub fn of(&self, values: Values) -> Values {
        let marked =
            |value: String| value.replace(&self.tars, "TARS_PATH").replace(&self.upload, "UPLOAD_PATH");
        values.into_iter().map(|(path, value)| (path, marked(value))).collect()
    }
}

/// What is to be done with one template.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merge {
    /// Keys that the database lacks.
    pub added: Vec<KeyPath>,
    /// Keys that follow the image.
    pub changed: Vec<KeyDifference>,
    /// Keys that an administrator edited and this version changes: kept.
    pub conflicts: Vec<KeyDifference>,
    /// Keys that would follow the image, and wait for a person: business services inherit them.
    pub waiting: Vec<KeyDifference>,
    /// Keys that somebody took out, and that this version ships as the one before did: what runs does without them.
    pub taken_out: Vec<KeyPath>,
    /// Keys that somebody took out, and that this version ships with another value.
    pub needed: Vec<KeyPath>,
    /// What is to be recorded as shipped.
    pub base: Values,
}

/// A key whose value in the database is not the one that this version ships.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyDifference {
    /// The key.
    pub path: KeyPath,
    /// Its value in the database.
    pub own: String,
    /// Its value in the image.
    pub shipped: String,
}

/// Merges the template `name`. `base` is what was recorded as shipped before: nothing for a key that was never recorded.
/// Where it is `inherited` by business services, only missing keys are added.
pub fn merge(name: &str, database: &Values, shipped: &Values, base: &Values, inherited: bool) -> Merge {
    let mut merge = Merge { base: shipped.clone(), ..Merge::default() };
    for (path, value) in shipped {
        let before = base.get(path);
        let Some(own) = database.get(path) else {
            match before {
                None => merge.added.push(path.clone()),
                // It was there, so somebody took it out.
                Some(before) if before == value => merge.taken_out.push(path.clone()),
                Some(before) if before == NOT_NEEDED => {
                    merge.base.insert(path.clone(), before.clone());
                    merge.taken_out.push(path.clone());
                }
                Some(before) => {
                    // As long as nobody said that it is not needed, what was taken out is what it is compared with.
                    merge.base.insert(path.clone(), before.clone());
                    merge.needed.push(path.clone());
                }
            }
            continue;
        };
        if own == value || is_filled_in(path) {
            continue;
        }
        let difference = || KeyDifference { path: path.clone(), own: own.clone(), shipped: value.clone() };
        let is_untouched = match before {
            Some(before) => own == before,
            None => upstream::shipped(name, path, own),
        };
        if is_untouched && inherited {
            // As long as nobody took it, the former value is what the database is compared with.
            match before {
                Some(before) => merge.base.insert(path.clone(), before.clone()),
                None => merge.base.remove(path),
            };
            merge.waiting.push(difference());
        } else if is_untouched {
            merge.changed.push(difference());
        } else if before.is_some_and(|before| before != value) {
            merge.conflicts.push(difference());
        }
    }
    merge
}

impl Merge {
    /// Everything is taken as `shipped`, what was taken out among it.
    pub fn take(&mut self, shipped: Values) {
        self.added.append(&mut self.needed);
        self.added.append(&mut self.taken_out);
        self.base = shipped;
    }

    /// Everything stays as it is: its values count as somebody's own from now on, and what was taken out is not needed.
    pub fn keep(&mut self, shipped: Values) {
        self.base = shipped;
        self.waiting.clear();
        self.changed.clear();
        self.taken_out.append(&mut self.needed);
        let not_needed = self.taken_out.iter().map(|path| (path.clone(), NOT_NEEDED.to_owned()));
        self.base.extend(not_needed);
    }

    /// The keys that are put into the database, of all that the image has.
    pub fn to_put(&self, rendered: &Values) -> Values {
        let changed = self.changed.iter().map(|difference| &difference.path);
        let paths = self.added.iter().chain(changed);
        paths.filter_map(|path| Some((path.clone(), rendered.get(path)?.clone()))).collect()
    }
}

/// Addresses and accounts, which a start fills in.
fn is_filled_in(path: &[String]) -> bool {
    let Some((key, blocks)) = path.split_last() else { return false };
    let blocks: Vec<&str> = blocks.iter().map(String::as_str).collect();
    render::is_database(&blocks) && matches!(key.as_str(), "dbhost" | "dbuser" | "dbpass" | "dbport")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(pairs: &[(&str, &str)]) -> Values {
        let path = |text: &str| text.split('/').map(str::to_owned).collect();
        pairs.iter().map(|(key, value)| (path(key), (*value).to_owned())).collect()
    }

    fn keys(differences: &[KeyDifference]) -> Vec<String> {
        differences.iter().map(|difference| difference.path.join("/")).collect()
    }

    #[test]
    fn untouched_keys_follow_edited_ones_stay_and_both_is_a_conflict() {
        let base = values(&[
            ("a/follows", "1"),
            ("a/edited", "1"),
            ("a/both", "1"),
            ("a/taken-out", "1"),
            ("a/gone", "1"),
        ]);
        let shipped = values(&[
            ("a/follows", "2"),
            ("a/edited", "1"),
            ("a/both", "2"),
            ("a/taken-out", "1"),
            ("a/new", ""),
        ]);
        let database = values(&[
            ("a/follows", "1"),
            ("a/edited", "7"),
            ("a/both", "7"),
            ("a/gone", "1"),
            ("own/key", "x"),
        ]);
        let merge = merge("t", &database, &shipped, &base, false);
        assert_eq!(merge.added, [vec!["a".to_owned(), "new".to_owned()]]);
        assert_eq!(keys(&merge.changed), ["a/follows"]);
        assert_eq!(keys(&merge.conflicts), ["a/both"]);
        assert_eq!(merge.taken_out, [vec!["a".to_owned(), "taken-out".to_owned()]]);
        assert_eq!((merge.waiting, merge.needed, merge.base), (vec![], vec![], shipped));
    }

    #[test]
    fn a_key_that_was_taken_out_and_is_shipped_anew_is_asked_for_until_somebody_answers() {
        let (base, shipped) = (values(&[("k", "1")]), values(&[("k", "2")]));
        let first = merge("t", &Values::new(), &shipped, &base, false);
        assert_eq!((first.needed.len(), first.added.len(), &first.base), (1, 0, &base));
        let mut kept = merge("t", &Values::new(), &base, &base, false);
        kept.keep(base);
        let next = merge("t", &Values::new(), &shipped, &kept.base, false);
        assert_eq!((next.needed.len(), next.taken_out.len(), next.base), (0, 1, kept.base));
        // Until it is there again.
        let back = merge(
            "t",
            &shipped,
            &shipped,
            &next.taken_out.iter().map(|path| (path.clone(), NOT_NEEDED.to_owned())).collect(),
            false,
        );
        assert_eq!((back.conflicts, back.base), (vec![], shipped));
    }

    #[test]
    fn inherited_templates_get_missing_keys_alone_until_somebody_takes_the_rest() {
        let (base, shipped) = (values(&[("k", "1")]), values(&[("k", "2"), ("new", "1")]));
        let database = values(&[("k", "1")]);
        let first = merge("t", &database, &shipped, &base, true);
        assert_eq!((first.added.len(), keys(&first.waiting)), (1, vec!["k".to_owned()]));
        assert_eq!(first.to_put(&shipped), values(&[("new", "1")]));
        let again = merge("t", &values(&[("k", "1"), ("new", "1")]), &shipped, &first.base, true);
        assert_eq!(
            (again.added.len(), keys(&again.waiting)),
            (0, vec!["k".to_owned()]),
            "it goes on waiting"
        );
        let alone = merge("t", &values(&[("k", "1"), ("new", "1")]), &shipped, &first.base, false);
        assert_eq!(keys(&alone.changed), ["k"]);
    }

    #[test]
    fn back_to_the_version_before_undoes_what_nobody_edited_since() {
        let (old, new) = (values(&[("a", "1"), ("b", "1")]), values(&[("a", "2"), ("b", "2")]));
        let database = values(&[("a", "2"), ("b", "7")]);
        let back = merge("t", &database, &old, &new, false);
        assert_eq!(
            (keys(&back.changed), keys(&back.conflicts)),
            (vec!["a".to_owned()], vec!["b".to_owned()])
        );
    }

    #[test]
    fn without_a_record_the_values_of_upstreams_releases_are_known() {
        let key = "tars/application/server/activating-timeout";
        let shipped = values(&[(key, "60000")]);
        let none = Values::new();
        assert_eq!(
            keys(&merge("tars.default", &values(&[(key, "10000")]), &shipped, &none, false).changed),
            [key]
        );
        let edited = merge("tars.default", &values(&[(key, "12345")]), &shipped, &none, false);
        assert_eq!(
            (edited.changed, edited.conflicts),
            (vec![], vec![]),
            "an edit, and nothing tells that upstream's changed"
        );
    }

    #[test]
    fn accounts_and_addresses_are_nobodys_edit() {
        let (database, shipped) =
            (values(&[("tars/db/dbpass", "own")]), values(&[("tars/db/dbpass", "tars2015")]));
        let merge = merge("tars.framework-db", &database, &shipped, &shipped, false);
        assert_eq!((merge.changed, merge.conflicts, merge.waiting), (vec![], vec![], vec![]));
    }
}
