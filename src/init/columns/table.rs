//! A table as the server describes it, as far as a column of it is kept or put back.

use super::super::database::{DatabaseError, Session};
use super::super::sql;

/// A table that is there.
#[derive(Clone, Debug, Default)]
pub struct InstalledTable {
    pub schema: String,
    pub name: String,
    /// In their order.
    pub columns: Vec<InstalledColumn>,
    /// What tells its rows apart, the primary key first: each by its columns.
    pub row_keys: Vec<Vec<String>>,
}

/// A column that is there.
#[derive(Clone, Debug, Default)]
pub struct InstalledColumn {
    pub name: String,
    /// `varchar(128)`
    pub type_text: String,
    /// Character set and collation of a text.
    text: Option<(String, String)>,
}

/// A column as it is to be made again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ColumnDefinition {
    /// What stands behind its name.
    pub text: String,
    /// The keys that name it, each as a part of `CREATE TABLE`.
    pub keys: Vec<String>,
}

impl InstalledTable {
    /// `SCHEMA.TABLE`
    pub fn place(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    /// The same between backticks.
    pub fn quoted(&self) -> String {
        format!("{}.{}", sql::name(&self.schema), sql::name(&self.name))
    }

    /// Where a column stands.
    pub fn position(&self, column: &str) -> Option<usize> {
        self.columns.iter().position(|own| own.name == column)
    }

    /// The first key whose columns all stay.
    pub fn row_key(&self, stays: impl Fn(&str) -> bool) -> Option<&[String]> {
        self.row_keys.iter().find(|key| key.iter().all(|column| stays(column))).map(Vec::as_slice)
    }

    /// That a row here and a row of a copy are the same one. A text is compared as such: the web console may have changed
    /// its character set.
    pub fn same_row(&self, key: &[String], here: &str, there: &str) -> String {
        let same = key.iter().map(|column| {
            let name = sql::name(column);
            let is_text = self.columns.iter().any(|own| own.name == *column && own.text.is_some());
            let side = |of: &str| {
                if is_text {
                    format!("CONVERT({of}.{name} USING utf8mb4) COLLATE utf8mb4_bin")
                } else {
                    format!("{of}.{name}")
                }
            };
            format!("{} = {}", side(here), side(there))
        });
        same.collect::<Vec<_>>().join(" AND ")
    }

    /// How a column is defined, in the server's own words.
    pub fn definition(&self, session: &mut Session, column: &str) -> Result<ColumnDefinition, DatabaseError> {
        let act = format!("asking for the definition of {}", self.place());
        let rows: Vec<(String, String)> =
            session.rows(&act, &format!("SHOW CREATE TABLE {}", self.quoted()), ())?;
        let create = rows.first().map(|(_, create)| create.as_str()).unwrap_or_default();
        let own = self.columns.iter().find(|own| own.name == column);
        let (Some(own), Some(text)) = (own, line_of(create, column)) else {
            return Err(DatabaseError::Unfit(format!("{act}: it has no column {column} any more")));
        };
        let name = sql::name(column);
        let is_key = |line: &&str| {
            let mut words = line.split_whitespace();
            let first = words.next();
            matches!((first, words.next()), (Some("KEY"), _) | (Some("UNIQUE" | "FULLTEXT"), Some("KEY")))
                && line.contains(&name)
        };
        let keys = create.lines().map(plain).filter(is_key).map(str::to_owned).collect();
        Ok(ColumnDefinition { text: own.with_charset(text), keys })
    }
}

impl InstalledColumn {
    /// The table's own character set may be another one when it is made again.
    fn with_charset(&self, definition: &str) -> String {
        let rest = definition.strip_prefix(&self.type_text);
        match (rest, &self.text) {
            (Some(rest), Some((charset, collation)))
                if !["CHARACTER SET", "COLLATE"].iter().any(|word| rest.trim_start().starts_with(word)) =>
            {
                format!("{} CHARACTER SET {charset} COLLATE {collation}{rest}", self.type_text)
            }
            _ => definition.to_owned(),
        }
    }
}

fn plain(line: &str) -> &str {
    line.trim().trim_end_matches(',')
}

/// What stands behind a column's name.
fn line_of<'a>(create: &'a str, column: &str) -> Option<&'a str> {
    let begin = format!("{} ", sql::name(column));
    create.lines().find_map(|line| plain(line).strip_prefix(begin.as_str()))
}

/// Table, column, type, character set, collation.
type ColumnRow = (String, String, String, Option<String>, Option<String>);

/// The tables of a schema; views are none.
pub fn read(session: &mut Session, schema: &str) -> Result<Vec<InstalledTable>, DatabaseError> {
    let query = "SELECT c.table_name, c.column_name, c.column_type, c.character_set_name, c.collation_name \
                 FROM information_schema.columns c JOIN information_schema.tables t \
                 ON t.table_schema = c.table_schema AND t.table_name = c.table_name \
                 WHERE c.table_schema = ? AND t.table_type = 'BASE TABLE' ORDER BY c.table_name, c.ordinal_position";
    let act = format!("asking for the columns of {schema}");
    let rows: Vec<ColumnRow> = session.rows(&act, query, (schema,))?;
    let mut tables: Vec<InstalledTable> = Vec::new();
    for (table, name, type_text, charset, collation) in rows {
        let column = InstalledColumn { name, type_text, text: charset.zip(collation) };
        match tables.last_mut().filter(|last| last.name == table) {
            Some(last) => last.columns.push(column),
            None => tables.push(InstalledTable {
                schema: schema.to_owned(),
                name: table,
                columns: vec![column],
                row_keys: Vec::new(),
            }),
        }
    }
    let query = "SELECT table_name, index_name, COALESCE(column_name, ''), COALESCE(nullable, '') = 'YES' \
                 FROM information_schema.statistics WHERE table_schema = ? AND non_unique = 0 \
                 ORDER BY table_name, index_name <> 'PRIMARY', index_name, seq_in_index";
    let rows: Vec<(String, String, String, bool)> =
        session.rows(&format!("asking for the keys of {schema}"), query, (schema,))?;
    for table in &mut tables {
        let mut keys: Vec<(&str, Vec<String>, bool)> = Vec::new();
        for (_, index, column, nullable) in rows.iter().filter(|(of, ..)| *of == table.name) {
            match keys.last_mut().filter(|(name, ..)| name == index) {
                Some((_, columns, may_be_null)) => {
                    columns.push(column.clone());
                    *may_be_null |= nullable;
                }
                None => keys.push((index, vec![column.clone()], *nullable)),
            }
        }
        // Where nothing may stand, two rows may have it.
        table.row_keys = keys
            .into_iter()
            .filter(|(.., may_be_null)| !may_be_null)
            .map(|(_, columns, _)| columns)
            .collect();
    }
    Ok(tables)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREATE: &str = "CREATE TABLE `t` (\n  `id` int(11) NOT NULL AUTO_INCREMENT,\n  `a` varchar(10) NOT NULL DEFAULT 'x,',\n  \
                          `ab` text COLLATE utf8mb3_bin DEFAULT NULL COMMENT 'one, `a` two',\n  PRIMARY KEY (`id`),\n  KEY `k` (`a`,`id`),\n  UNIQUE KEY `u` (`ab`(5))\n) ENGINE=InnoDB";

    fn column(type_text: &str) -> InstalledColumn {
        InstalledColumn {
            name: "a".to_owned(),
            type_text: type_text.to_owned(),
            text: Some(("utf8mb3".to_owned(), "utf8mb3_general_ci".to_owned())),
        }
    }

    #[test]
    fn definition_is_the_servers_own_with_the_character_set_named() {
        let text = line_of(CREATE, "a").unwrap();
        assert_eq!(text, "varchar(10) NOT NULL DEFAULT 'x,'");
        assert_eq!(
            column("varchar(10)").with_charset(text),
            "varchar(10) CHARACTER SET utf8mb3 COLLATE utf8mb3_general_ci NOT NULL DEFAULT 'x,'"
        );
        let text = line_of(CREATE, "ab").unwrap();
        assert_eq!(column("text").with_charset(text), text, "it names one itself");
        assert_eq!(line_of(CREATE, "b"), None);
    }

    #[test]
    fn rows_are_told_apart_by_the_first_key_that_stays() {
        let key = |columns: &[&str]| columns.iter().map(|column| (*column).to_owned()).collect::<Vec<_>>();
        let table = InstalledTable {
            row_keys: vec![key(&["id", "gone"]), key(&["a", "b"])],
            ..InstalledTable::default()
        };
        assert_eq!(table.row_key(|column| column != "gone"), Some(key(&["a", "b"]).as_slice()));
        assert_eq!(table.row_key(|column| column == "id"), None);
    }
}
