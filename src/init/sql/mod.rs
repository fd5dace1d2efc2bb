//! The image's SQL by allow list: each statement is sent, confined, left out, or the whole file is refused with its line.
//!
//! A file is judged before anything of it is sent. What is not known to add, or to keep what is there, is refused: a deny
//! list would have to know every way in which a statement of SQL can lose data.

mod cursor;
mod definitions;
mod grammar;
mod table;

use crate::tars::sql as lexer;
pub use crate::tars::sql::SqlRefusal;
pub use definitions::{column, installed_type};
pub use table::{Column, Comparison, Key, KeyKind, Type};

/// A statement that was judged, and what is done with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The line of the file that it begins on, counted from 1.
    pub line: usize,
    /// What it does.
    pub kind: StatementKind,
}

/// The kinds of statements that are not refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatementKind {
    /// Sent; may fail: servers drop settings, and the tables after it must still be made.
    Setting(String),
    /// Sent: `CREATE TABLE` of this name.
    CreateTable {
        /// The table, without quotes.
        table: String,
        /// Its columns.
        columns: Vec<Column>,
        /// Its keys, but for those that stand behind a column's type.
        keys: Vec<Key>,
        /// The statement.
        text: String,
    },
    /// Sent: `ALTER TABLE` that adds columns or named keys.
    Add {
        /// The table, without quotes.
        table: String,
        /// The columns that it adds.
        columns: Vec<String>,
        /// The statement.
        text: String,
    },
    /// Sent: `INSERT` of values that stand in the file.
    Insert(String),
    /// Sent where the file's transactions are its own: `BEGIN`, `COMMIT`.
    Transaction(String),
    /// Confined: `REPLACE`, which is sent as an insert that keeps what exists.
    Replace(Rows),
    /// Confined: `DELETE` that names application, server and adapter, and gets this node's condition.
    Delete(String),
    /// Left out: what would drop or lock, and what only makes an import faster.
    LeftOut,
}

/// The rows that a `REPLACE` writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rows {
    /// The table, without quotes.
    pub table: String,
    /// The columns, without quotes.
    pub columns: Vec<String>,
    /// A value for each column, as it stands in the file.
    pub values: Vec<Vec<String>>,
}

impl Rows {
    /// The insert that leaves a row alone which is there, but for what `follows` (assignments, or nothing).
    pub fn kept(&self, follows: Option<&str>) -> String {
        let columns: Vec<String> = self.columns.iter().map(|column| name(column)).collect();
        let rows: Vec<String> = self.values.iter().map(|row| format!("({})", row.join(","))).collect();
        // A column that becomes what it is: no row changes, nor does a time stamp that follows changes.
        let same = format!("{0} = {0}", columns[0]);
        format!(
            "INSERT INTO {} ({}) VALUES {} ON DUPLICATE KEY UPDATE {}",
            name(&self.table),
            columns.join(","),
            rows.join(","),
            follows.unwrap_or(&same)
        )
    }
}

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilePurpose {
    /// It fills a schema that is empty.
    Schema,
    /// It registers a node, at every start, in one transaction of ours.
    Registration,
}

/// Judges all statements of a file; one that is refused refuses the file.
pub fn judge(dump: &str, purpose: FilePurpose) -> Result<Vec<Statement>, SqlRefusal> {
    lexer::read(dump)?
        .into_iter()
        .map(|sentence| match grammar::kind(&sentence, purpose) {
            Ok(kind) => Ok(Statement { line: sentence.line, kind }),
            Err(why) => Err(SqlRefusal::new(sentence.line, &sentence.text, &why)),
        })
        .collect()
}

/// A text between single quotes, as a literal.
pub fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// True for one default, as the servers' dialects write it: `'0'`, `0`; `CURRENT_TIMESTAMP`, `current_timestamp()`.
pub fn same_default(one: Option<&str>, other: Option<&str>) -> bool {
    one.map(plain_default) == other.map(plain_default)
}

fn plain_default(default: &str) -> String {
    let inner = default.strip_prefix('\'').and_then(|text| text.strip_suffix('\'')).unwrap_or(default);
    let lower = inner.to_ascii_lowercase();
    if lower.starts_with("current_timestamp") { "current_timestamp".to_owned() } else { inner.to_owned() }
}

/// A name between backticks.
pub fn name(text: &str) -> String {
    format!("`{}`", text.replace('`', "``"))
}

#[cfg(test)]
mod tests;
