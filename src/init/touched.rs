//! What a migration is about to change of what is there: found by asking only, and saved before anything is changed.

use std::collections::{BTreeMap, BTreeSet};

/// Tables, columns, rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Schema and table → the columns whose values may become others: none where the definition alone changes.
    pub tables: BTreeMap<(String, String), BTreeSet<String>>,
    /// Rows that go: schema, table, and the condition that tells them.
    pub rows: Vec<(String, String, String)>,
    /// The templates whose text changes, with the text that is there.
    pub templates: BTreeMap<String, String>,
}

impl Touched {
    /// Notes that the definition of a table changes.
    pub fn table(&mut self, schema: &str, table: &str) -> &mut BTreeSet<String> {
        self.tables.entry((schema.to_owned(), table.to_owned())).or_default()
    }
}
