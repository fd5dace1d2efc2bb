//! Copies what a web console is about to drop into tables of ours, a table for each column: the row's key and the value.

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::super::database::{DB_TARS, DatabaseError, Server, Session};
use super::super::history::{self, RecordTable};
use super::super::lock::{self, InstallLock};
use super::super::sql;
use super::record::{self, KeptColumn, State};
use super::table::{self, InstalledTable};

/// What a start of the web console would drop, and what was done about it.
#[derive(Debug, Default, Serialize)]
pub struct Outcome {
    /// Kept, each with the number of its values.
    pub kept: Vec<Kept>,
    /// What could not be kept, each with the reason.
    pub not_kept: Vec<String>,
}

/// A column whose values are kept now.
#[derive(Debug, Serialize)]
pub struct Kept {
    /// `SCHEMA.TABLE.COLUMN`
    pub column: String,
    /// Its rows, those without a value included.
    pub rows: u64,
}

/// Keeps each column of these schemas that does not stay. In each table at least the columns of one key that tells its rows
/// apart must. A server that is only asked: what would be kept.
pub fn keep<'s>(
    server: &Server,
    schemas: impl Iterator<Item = &'s str>,
    stays: &dyn Fn(&InstalledTable, &str) -> bool,
    version: Option<&str>,
) -> Result<Outcome, DatabaseError> {
    let mut session = server.connect(None)?;
    let mut going: Vec<(InstalledTable, Vec<String>)> = Vec::new();
    for schema in schemas {
        for table in table::read(&mut session, schema)? {
            let columns: Vec<String> = table
                .columns
                .iter()
                .map(|column| column.name.clone())
                .filter(|name| !stays(&table, name))
                .collect();
            if !columns.is_empty() {
                going.push((table, columns));
            }
        }
    }
    let mut outcome = Outcome::default();
    if going.is_empty() {
        return Ok(outcome);
    }
    let lock = (!server.only_asks()).then(|| InstallLock::take(server)).transpose()?;
    let mut own = lock::connect_to_work(server, DB_TARS)?;
    // A value that a stricter server would not take today is a value all the same.
    own.run("setting how values are taken", "SET SESSION sql_mode = ''")?;
    let has_record = server.only_asks() || record::make(&mut own)?;
    for (table, columns) in going {
        let key = table.row_key(|column| stays(&table, column)).map(<[String]>::to_vec);
        for column in columns {
            let place = format!("{}.{column}", table.place());
            let kept = match &key {
                None => Err("its table has no key that tells rows apart and stays".to_owned()),
                Some(_) if !has_record => Err("MYSQL_USER may not make the schema `tarsup`".to_owned()),
                Some(key) => match column_of(&mut own, &table, &column, key, version) {
                    Ok(rows) => Ok(rows),
                    Err(error) if error.number().is_some() => Err(error.to_string()),
                    Err(error) => return Err(error),
                },
            };
            match kept {
                Ok(rows) => outcome.kept.push(Kept { column: place, rows }),
                Err(why) => outcome.not_kept.push(format!("{place}: {why}")),
            }
        }
    }
    drop(lock);
    Ok(outcome)
}

/// Copies one column, or counts what would be copied.
fn column_of(
    own: &mut Session,
    table: &InstalledTable,
    column: &str,
    row_key: &[String],
    version: Option<&str>,
) -> Result<u64, DatabaseError> {
    let act = format!("keeping {}.{column}", table.place());
    let count = |own: &mut Session, of: &str| own.number(&act, &format!("SELECT COUNT(*) FROM {of}"), ());
    if own.only_asks() {
        return count(own, &table.quoted());
    }
    let definition = table.definition(own, column)?;
    let mut columns = Vec::new();
    for key in row_key {
        let of_key = table.definition(own, key)?.text.replace(" AUTO_INCREMENT", "");
        columns.push(format!("{} {of_key}", sql::name(key)));
    }
    // There can be one such column, and the copy has its own.
    columns.push(format!("{} {}", sql::name(column), definition.text.replace(" AUTO_INCREMENT", "")));
    let columns = columns.join(", ");
    let copy = name_of_copy(&table.place(), &columns);
    let body = format!(
        "(kept_row BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, {columns}) ENGINE=InnoDB COMMENT={}",
        sql::quote(&format!("values of {}.{column}", table.place()))
    );
    if history::make(own, &copy, &body, "columns", None)? != RecordTable::Made {
        return Err(DatabaseError::Unfit("MYSQL_USER may not make tables in the schema `tarsup`".to_owned()));
    }
    let position = table.position(column).unwrap_or_default();
    let names =
        |columns: &[table::InstalledColumn]| columns.iter().map(|column| column.name.clone()).collect();
    let kept = KeptColumn {
        schema: table.schema.clone(),
        table: table.name.clone(),
        column: column.to_owned(),
        definition: definition.text,
        keys: definition.keys,
        row_key: row_key.to_vec(),
        before: names(&table.columns[..position]),
        behind: names(&table.columns[(position + 1).min(table.columns.len())..]),
        copy: copy.clone(),
        state: State::Kept,
    };
    let list: Vec<String> = row_key.iter().map(String::as_str).chain([column]).map(sql::name).collect();
    let list = list.join(", ");
    // All of it or nothing: what an earlier start kept counts until then.
    own.run(&act, "START TRANSACTION")?;
    own.run(&act, &format!("DELETE FROM tarsup.{copy}"))?;
    own.run(&act, &format!("INSERT INTO tarsup.{copy} ({list}) SELECT {list} FROM {}", table.quoted()))?;
    record::write(own, &kept, version.unwrap_or_default())?;
    own.run(&act, "COMMIT")?;
    count(own, &format!("tarsup.{copy}"))
}

/// Another definition, or another key, is another table: what is in the former one stays until it is not needed.
fn name_of_copy(place: &str, columns: &str) -> String {
    let whole = Sha256::digest(format!("{place}\n{columns}"));
    let first = whole[..8].iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    format!("t_kept_{first:016x}")
}
