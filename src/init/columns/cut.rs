//! Values that a narrower type of the web console's models would cut off, or that a strict server would not let it narrow,
//! so that it dies: found before it starts, which then leaves these columns as they are.

use super::super::database::{DatabaseError, Server};
use super::super::sql;
use super::known::KnownColumns;
use super::table;

/// A column that holds more than the web console's models would leave of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TooLong {
    /// `SCHEMA.TABLE.COLUMN`
    pub column: String,
    /// What it is, what it would be, and how many of its values do not fit, for the start log.
    pub words: String,
}

/// Looks for them.
pub fn find(server: &Server, known: &KnownColumns) -> Result<Vec<TooLong>, DatabaseError> {
    let mut session = server.connect(None)?;
    let mut found = Vec::new();
    for schema in known.schemas() {
        for table in table::read(&mut session, schema)? {
            let Some(models) = known.of(schema, &table.name) else { continue };
            for column in &table.columns {
                let (Some(made), Some(own)) =
                    (models.makes(&column.name), sql::installed_type(&column.type_text))
                else {
                    continue;
                };
                let Some(misfit) = made.kind.misfit(&own, &column.name) else { continue };
                let place = format!("{}.{}", table.place(), column.name);
                let query = format!("SELECT COUNT(*) FROM {} WHERE {misfit}", table.quoted());
                let rows = session.number(&format!("looking for long values of {place}"), &query, ())?;
                if rows > 0 {
                    let words = format!("{place} ({} to {}, {rows} rows)", column.type_text, made.kind);
                    found.push(TooLong { column: place, words });
                }
            }
        }
    }
    Ok(found)
}
