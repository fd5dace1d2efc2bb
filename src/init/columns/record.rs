//! `tarsup.t_kept_column`: which columns were kept, how they are defined, and in which table of ours their values are.

use super::super::database::{DatabaseError, Session};
use super::super::history::{self, RecordTable};

const TABLE: &str = "t_kept_column";

/// What is known of a kept column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It was there when its values were kept.
    Kept,
    /// It was seen to be gone since.
    Gone,
    /// It is there again, with its values.
    PutBack,
}

impl State {
    const ALL: [Self; 3] = [Self::Kept, Self::Gone, Self::PutBack];

    const fn word(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Gone => "gone",
            Self::PutBack => "put back",
        }
    }
}

/// A kept column.
#[derive(Clone, Debug)]
pub struct KeptColumn {
    pub schema: String,
    pub table: String,
    pub column: String,
    /// What stands behind its name in `CREATE TABLE`.
    pub definition: String,
    /// The keys that name it, as parts of `CREATE TABLE`.
    pub keys: Vec<String>,
    /// What tells the rows of its table apart.
    pub row_key: Vec<String>,
    /// The columns that stood before and behind it.
    pub before: Vec<String>,
    pub behind: Vec<String>,
    /// The table of ours with its values.
    pub copy: String,
    pub state: State,
}

impl KeptColumn {
    /// `SCHEMA.TABLE.COLUMN`
    pub fn place(&self) -> String {
        format!("{}.{}.{}", self.schema, self.table, self.column)
    }
}

/// Schema, table, column, definition, what else is known, copy, state.
type Row = (String, String, String, String, String, String, String);

/// All that is kept.
pub fn read(session: &mut Session) -> Result<Vec<KeptColumn>, DatabaseError> {
    if !history::has(session, TABLE)? {
        return Ok(Vec::new());
    }
    let query = "SELECT schema_name, table_name, column_name, definition, details, copy_table, state \
                 FROM tarsup.t_kept_column ORDER BY schema_name, table_name, column_name";
    let rows: Vec<Row> = session.rows("reading tarsup.t_kept_column", query, ())?;
    let kept = rows.into_iter().filter_map(|(schema, table, column, definition, details, copy, state)| {
        // What cannot be read was written by a newer version, which will read it.
        let (keys, row_key, before, behind) = serde_json::from_str(&details).ok()?;
        let state = State::ALL.into_iter().find(|known| known.word() == state)?;
        Some(KeptColumn { schema, table, column, definition, keys, row_key, before, behind, copy, state })
    });
    Ok(kept.collect())
}

/// Makes the table; false where the account may not.
pub fn make(session: &mut Session) -> Result<bool, DatabaseError> {
    let definition = "(schema_name VARCHAR(64) NOT NULL, table_name VARCHAR(64) NOT NULL, column_name VARCHAR(64) NOT NULL, \
                      definition MEDIUMTEXT NOT NULL, details MEDIUMTEXT NOT NULL, copy_table VARCHAR(64) NOT NULL, \
                      state VARCHAR(16) NOT NULL, version VARCHAR(64) NOT NULL, kept_at DATETIME NOT NULL, \
                      PRIMARY KEY (schema_name, table_name, column_name)) ENGINE=InnoDB DEFAULT CHARSET=utf8 \
                      COMMENT='columns that were kept before a web console dropped them'";
    Ok(history::make(session, TABLE, definition, "columns", None)? == RecordTable::Made)
}

/// Writes it down, in the transaction in which its values were copied.
pub fn write(session: &mut Session, kept: &KeptColumn, version: &str) -> Result<(), DatabaseError> {
    let details = serde_json::to_string(&(&kept.keys, &kept.row_key, &kept.before, &kept.behind));
    session.run_with(
        &format!("recording {}", kept.place()),
        "REPLACE INTO tarsup.t_kept_column (schema_name, table_name, column_name, definition, details, copy_table, state, \
         version, kept_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, NOW())",
        (
            &kept.schema,
            &kept.table,
            &kept.column,
            &kept.definition,
            details.unwrap_or_default(),
            &kept.copy,
            kept.state.word(),
            version,
        ),
    )
}

/// Notes what was seen, or done.
pub fn note(session: &mut Session, kept: &KeptColumn, state: State) -> Result<(), DatabaseError> {
    session.run_with(
        &format!("recording {}", kept.place()),
        "UPDATE tarsup.t_kept_column SET state = ? WHERE schema_name = ? AND table_name = ? AND column_name = ?",
        (state.word(), &kept.schema, &kept.table, &kept.column),
    )
}
