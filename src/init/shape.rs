//! Installed tables against the `CREATE TABLE`s that the image ships: what a fresh installation would have and this one
//! lacks is added. Nothing is taken away, and nothing that an administrator changed is changed back.
//!
//! `tars_upgrade.conf` alone does not get there: upstream's 3.0.17 names two of the three columns that 2.4.17 lacks.

use std::collections::{BTreeMap, BTreeSet};

use super::columns::{Lacking, TakesBack};
use super::database::{DatabaseError, Session};
use super::sql::{self, Column, Comparison, Key, KeyKind, Statement, StatementKind, Type};
use super::touched::Touched;

/// Done meanwhile by somebody else: a column, a key of that name.
const ALREADY_DONE: [u16; 2] = [1060, 1061];
/// A key that rows contradict; a key that is too long for the table's row format or character set.
const KEY_DOES_NOT_FIT: [u16; 4] = [1062, 1071, 1170, 1709];
/// Columns that no file of upstream's makes in every database: the registry writes one, and its
/// `tars_upgrade.conf` gives the column to `t_server_conf` by mistake.
const WRITTEN_WITHOUT_A_FILE: [(&str, &str, &str); 1] =
    [("db_tars", "t_base_image", "`sha` VARCHAR(255) DEFAULT ''")];

/// What was found of a schema, and done about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShapeReport {
    /// What was added.
    pub added: Vec<String>,
    /// What differs from a fresh installation and stays, each with the reason.
    pub kept: Vec<String>,
    /// What of it binds programs of before, which know nothing of it.
    pub binds: Vec<String>,
    /// What was changed of what was there.
    pub touched: Touched,
}

/// An installed table.
#[derive(Clone, Debug, Default)]
struct Installed {
    /// By name in lower case.
    columns: BTreeMap<String, InstalledColumn>,
    keys: Vec<InstalledKey>,
}

#[derive(Clone, Debug, Default)]
struct InstalledColumn {
    /// `None` where it is one that no file has.
    kind: Option<Type>,
    shown: String,
    nullable: bool,
    default: Option<String>,
    /// `CHARACTER SET x COLLATE y`; empty where it has none.
    charset: String,
}

#[derive(Clone, Debug, Default)]
struct InstalledKey {
    name: String,
    unique: bool,
    /// In lower case.
    columns: Vec<String>,
}

/// A table that the image ships.
#[derive(Clone, Copy, Debug)]
struct Shipped<'a> {
    columns: &'a [Column],
    keys: &'a [Key],
}

/// What one table lacks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Lack {
    /// Parts of one `ALTER TABLE`.
    parts: Vec<Part>,
    /// Keys, each with the words for it: they may meet rows that contradict them.
    keys: Vec<(Key, String)>,
    /// What stays.
    kept: Vec<String>,
}

/// A part of an `ALTER TABLE`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    /// The column as it is shipped.
    column: Column,
    lacking: Lacking,
    text: String,
    /// What it is, in words.
    words: String,
}

/// Brings the tables of `schema` that are there to what the statements say, but for what the web console takes back. `own`
/// is a session in that schema in which statements may be sent; `made` are the tables that have just been made, as
/// `SCHEMA.TABLE`, with their columns.
pub fn complete(
    session: &mut Session,
    own: &mut Session,
    schema: &str,
    statements: &[Statement],
    made: &BTreeMap<String, BTreeSet<String>>,
    console: &TakesBack<'_>,
) -> Result<ShapeReport, DatabaseError> {
    let installed = read(session, schema)?;
    let mut outcome = ShapeReport::default();
    for statement in statements {
        let StatementKind::CreateTable { table, columns, keys, .. } = &statement.kind else { continue };
        let Some(found) = installed.get(&table.to_lowercase()) else { continue };
        let mut lack = found.lacks(&Shipped { columns, keys });
        lack.without(schema, table, console);
        let at = format!("{schema}.{table}");
        outcome.kept.extend(lack.kept.iter().map(|what| format!("{at}: {what}")));
        let alter = format!("ALTER TABLE {}", sql::name(table));
        if !lack.parts.is_empty() || !lack.keys.is_empty() {
            let widened = lack.parts.iter().filter(|part| part.lacking == Lacking::Type);
            outcome.touched.table(schema, table).extend(widened.map(|part| part.column.name.clone()));
        }
        if !lack.parts.is_empty() {
            let parts: Vec<&str> = lack.parts.iter().map(|part| part.text.as_str()).collect();
            let words = lack.parts.iter().map(|part| format!("{at}: {}", part.words));
            if is_news(own.run(&format!("completing {at}"), &format!("{alter} {}", parts.join(", "))))? {
                outcome.added.extend(words);
                let bind = lack.parts.iter().filter(|part| part.binds());
                outcome.binds.extend(bind.map(|part| {
                    format!("{at}: the column {} is NOT NULL and has no default", part.column.name)
                }));
            }
        }
        for (key, words) in &lack.keys {
            match is_news(own.run(&format!("adding a key to {at}"), &format!("{alter} ADD {}", key.text))) {
                Ok(true) => {
                    outcome.added.push(format!("{at}: {words}"));
                    if key.kind == KeyKind::Unique {
                        outcome.binds.push(format!("{at}: {words} is unique"));
                    }
                }
                Ok(false) => {}
                Err(error) if error.number().is_some_and(|number| KEY_DOES_NOT_FIT.contains(&number)) => {
                    outcome.kept.push(format!("{at}: {words} is not added: {error}"));
                }
                Err(error) => return Err(error),
            }
        }
    }
    for (of, table, column) in WRITTEN_WITHOUT_A_FILE {
        let name = column.split('`').nth(1).unwrap_or_default();
        let is_lacked = match (made.get(&format!("{of}.{table}")), installed.get(table)) {
            _ if of != schema => false,
            (Some(columns), _) => !columns.contains(name),
            (None, Some(found)) => !found.columns.contains_key(name),
            (None, None) => false,
        };
        if is_lacked && !(console.is_left_out() && console.drops(of, table, name)) {
            let statement = format!("ALTER TABLE {} ADD COLUMN {column}", sql::name(table));
            if installed.contains_key(table) {
                outcome.touched.table(schema, table);
            }
            if is_news(own.run(&format!("adding {schema}.{table}.{name}"), &statement))? {
                outcome.added.push(format!("{schema}.{table}: the column {name}"));
            }
        }
    }
    Ok(outcome)
}

/// True where a statement added something; false where somebody else had done it meanwhile.
fn is_news(done: Result<(), DatabaseError>) -> Result<bool, DatabaseError> {
    match done {
        Err(error) if error.number().is_some_and(|number| ALREADY_DONE.contains(&number)) => Ok(false),
        done => done.map(|()| true),
    }
}

impl Part {
    /// True for a new column that a program which does not know it cannot write a row without.
    fn binds(&self) -> bool {
        let attributes = self.column.attributes.to_ascii_uppercase();
        self.lacking == Lacking::Column
            && self.column.default.is_none()
            && attributes.contains("NOT NULL")
            && !attributes.contains("AUTO_INCREMENT")
    }
}

impl Lack {
    /// Leaves out what the web console takes back at once, or says that it will.
    fn without(&mut self, schema: &str, table: &str, console: &TakesBack<'_>) {
        let mut never_there = Vec::new();
        self.parts.retain_mut(|part| {
            if !console.takes(schema, table, &part.column, part.lacking) {
                return true;
            }
            if !console.is_left_out() {
                part.words.push_str(", until the web console starts");
                return true;
            }
            if part.lacking == Lacking::Column {
                never_there.push(part.column.name.to_lowercase());
            }
            false
        });
        self.keys.retain(|(key, _)| {
            !key.columns.iter().any(|(name, _)| never_there.contains(&name.to_lowercase()))
        });
    }
}

impl Installed {
    fn lacks(&self, shipped: &Shipped<'_>) -> Lack {
        let mut lack = Lack::default();
        for column in shipped.columns {
            match self.columns.get(&column.name.to_lowercase()) {
                Some(found) => found.compare(column, &mut lack),
                None if column.is_key => lack.kept.push(format!(
                    "it lacks the column {}, which is a key of its own: it is not added",
                    column.name
                )),
                None => lack.parts.push(Part {
                    column: column.clone(),
                    lacking: Lacking::Column,
                    text: format!("ADD COLUMN {}", column.text()),
                    words: format!("the column {}", column.name),
                }),
            }
        }
        for key in shipped.keys {
            self.compare_key(key, &mut lack);
        }
        lack
    }

    fn compare_key(&self, key: &Key, lack: &mut Lack) {
        let wanted: Vec<String> = key.columns.iter().map(|(name, _)| name.to_lowercase()).collect();
        let is_there = self.keys.iter().any(|found| match key.kind {
            KeyKind::Unique | KeyKind::Primary => found.unique && found.columns == wanted,
            // A longer key with these columns in front serves as well.
            KeyKind::Plain => found.columns.starts_with(&wanted),
            KeyKind::FullText => found.columns == wanted,
        });
        if is_there {
            return;
        }
        let words = format!("the key {} ({})", key.name.as_deref().unwrap_or_default(), wanted.join(", "));
        let has_its_name = |found: &InstalledKey| {
            key.name.as_ref().is_some_and(|name| found.name.eq_ignore_ascii_case(name))
        };
        if key.kind == KeyKind::Primary {
            lack.kept.push(format!("its primary key is not ({})", wanted.join(", ")));
        } else if let Some(other) = self.keys.iter().find(|found| has_its_name(found)) {
            lack.kept.push(format!("{words} is there with the columns ({})", other.columns.join(", ")));
        } else {
            lack.keys.push((key.clone(), words));
        }
    }
}

impl InstalledColumn {
    fn compare(&self, column: &Column, lack: &mut Lack) {
        let name = &column.name;
        let differs =
            |shipped: &str| format!("the column {name} is {}, and this version ships {shipped}", self.shown);
        let comparison = self.kind.as_ref().map(|own| own.compared_with(&column.kind));
        match comparison {
            Some(Comparison::WideEnough) => {}
            Some(Comparison::Narrower) => {
                let words = format!("the column {name} from {} to {}", self.shown, column.kind);
                let text = format!("MODIFY COLUMN {}", self.widened(column));
                lack.parts.push(Part { column: column.clone(), lacking: Lacking::Type, text, words });
                return;
            }
            Some(Comparison::Different) | None => {
                lack.kept.push(differs(&column.kind.to_string()));
                return;
            }
        }
        let Some(shipped) = &column.default else { return };
        match &self.default {
            // The time of day is part of a column's definition, and changing that would touch the column's rows.
            None if shipped.starts_with("CURRENT_TIMESTAMP") => {
                lack.kept.push(differs(&format!("DEFAULT {shipped}")));
            }
            None => lack.parts.push(Part {
                column: column.clone(),
                lacking: Lacking::Default,
                text: format!("ALTER COLUMN {} SET DEFAULT {shipped}", sql::name(name)),
                words: format!("the default {shipped} of the column {name}"),
            }),
            Some(own) if !sql::same_default(Some(own), Some(shipped)) => lack
                .kept
                .push(format!("the default of the column {name} is {own}, and this version ships {shipped}")),
            Some(_) => {}
        }
    }

    /// The shipped definition, with what the rows that are there may need: their character set, and their nothing.
    fn widened(&self, column: &Column) -> String {
        let says_charset = ["CHARACTER SET", "CHARSET", "COLLATE"]
            .iter()
            .any(|word| column.attributes.to_ascii_uppercase().contains(word));
        let charset = if column.kind.is_text() && !says_charset { self.charset.as_str() } else { "" };
        let attributes = if self.nullable {
            column.attributes.replacen("NOT NULL", "", 1)
        } else {
            column.attributes.clone()
        };
        let words = [sql::name(&column.name), column.type_text.clone(), charset.to_owned(), attributes];
        words
            .iter()
            .flat_map(|words| words.split(' '))
            .filter(|word| !word.is_empty())
            .collect::<Vec<_>>()
            .join(" ")
    }
}

/// Table, column, type, whether it may be NULL, default, character set.
type ColumnRow = (String, String, String, bool, Option<String>, String);

/// The tables of a schema, by name in lower case.
fn read(session: &mut Session, schema: &str) -> Result<BTreeMap<String, Installed>, DatabaseError> {
    let mut tables: BTreeMap<String, Installed> = BTreeMap::new();
    let query = "SELECT table_name, column_name, column_type, is_nullable = 'YES', column_default, \
                 COALESCE(CONCAT('CHARACTER SET ', character_set_name, ' COLLATE ', collation_name), '') \
                 FROM information_schema.columns WHERE table_schema = ?";
    let rows: Vec<ColumnRow> =
        session.rows(&format!("asking for the columns of {schema}"), query, (schema,))?;
    for (table, name, shown, nullable, default, charset) in rows {
        let column = InstalledColumn {
            kind: sql::installed_type(&shown),
            shown,
            nullable,
            // MariaDB writes NULL as a word where no default was given.
            default: default.filter(|default| default != "NULL"),
            charset,
        };
        let table = tables.entry(table.to_lowercase()).or_default();
        table.columns.insert(name.to_lowercase(), column);
    }
    let query = "SELECT table_name, index_name, non_unique = 0, COALESCE(column_name, '') \
                 FROM information_schema.statistics WHERE table_schema = ? \
                 ORDER BY table_name, index_name, seq_in_index";
    let rows: Vec<(String, String, bool, String)> =
        session.rows(&format!("asking for the keys of {schema}"), query, (schema,))?;
    for (table, name, unique, column) in rows {
        let keys = &mut tables.entry(table.to_lowercase()).or_default().keys;
        match keys.last_mut().filter(|key| key.name == name) {
            Some(key) => key.columns.push(column.to_lowercase()),
            None => keys.push(InstalledKey { name, unique, columns: vec![column.to_lowercase()] }),
        }
    }
    Ok(tables)
}

#[cfg(test)]
mod tests {
    use super::super::sql::FilePurpose;
    use super::*;

    fn column(shown: &str, nullable: bool, default: Option<&str>) -> InstalledColumn {
        InstalledColumn {
            kind: sql::installed_type(shown),
            shown: shown.to_owned(),
            nullable,
            default: default.map(str::to_owned),
            charset: "CHARACTER SET utf8mb4 COLLATE utf8mb4_bin".to_owned(),
        }
    }

    fn lack(
        installed: &[(&str, InstalledColumn)],
        keys: &[(&str, bool, &[&str])],
        definitions: &str,
    ) -> Lack {
        let columns = installed.iter().map(|(name, column)| ((*name).to_owned(), column.clone())).collect();
        let keys = keys
            .iter()
            .map(|(name, unique, columns)| InstalledKey {
                name: (*name).to_owned(),
                unique: *unique,
                columns: columns.iter().map(|column| (*column).to_owned()).collect(),
            })
            .collect();
        let installed = Installed { columns, keys };
        let shipped = sql::judge(&format!("CREATE TABLE t ({definitions})"), FilePurpose::Schema).unwrap();
        let StatementKind::CreateTable { columns, keys, .. } = &shipped[0].kind else {
            panic!("{shipped:?}")
        };
        installed.lacks(&Shipped { columns, keys })
    }

    fn parts(lack: &Lack) -> Vec<&str> {
        lack.parts.iter().map(|part| part.text.as_str()).collect()
    }

    #[test]
    fn missing_columns_are_added_as_shipped() {
        let lack = lack(
            &[("a", column("int(11)", false, None))],
            &[("PRIMARY", true, &["a"])],
            "`a` int NOT NULL, `B` varchar(32) NOT NULL DEFAULT '-1' COMMENT 'x''y', c int DEFAULT -1, PRIMARY KEY (a)",
        );
        assert_eq!(
            parts(&lack),
            [
                "ADD COLUMN `B` varchar ( 32 ) NOT NULL DEFAULT '-1' COMMENT 'x''y'",
                "ADD COLUMN `c` int DEFAULT -1"
            ]
        );
        assert_eq!((lack.keys, lack.kept), (vec![], vec![]));
    }

    #[test]
    fn narrow_columns_are_widened_and_keep_their_character_set_and_their_nothing() {
        let lack = lack(
            &[
                ("a", column("varchar(20)", true, None)),
                ("b", column("varchar(200)", true, None)),
                ("c", column("smallint(6)", false, Some("0"))),
            ],
            &[],
            "a varchar(64) NOT NULL DEFAULT '', b varchar(100), c int(11) NOT NULL DEFAULT '0'",
        );
        assert_eq!(
            parts(&lack),
            [
                "MODIFY COLUMN `a` varchar ( 64 ) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin DEFAULT ''",
                "MODIFY COLUMN `c` int ( 11 ) NOT NULL DEFAULT '0'"
            ]
        );
    }

    #[test]
    fn what_an_administrator_changed_stays_and_is_named() {
        let lack = lack(
            &[
                ("a", column("datetime", true, None)),
                ("b", column("int(11)", false, Some("7"))),
                ("c", column("int(11)", false, Some("'0'"))),
                ("d", column("geometry", true, None)),
                ("t", column("timestamp", false, Some("current_timestamp()"))),
            ],
            &[("k", false, &["b"])],
            "a varchar(10), b int DEFAULT '0', c int DEFAULT 0, d int, t timestamp DEFAULT CURRENT_TIMESTAMP, \
             KEY k (c), id int AUTO_INCREMENT PRIMARY KEY",
        );
        assert_eq!((parts(&lack).len(), lack.keys.len()), (0, 0), "{lack:?}");
        let kept = lack.kept.join("\n");
        for words in [
            "the column a is datetime",
            "the default of the column b is 7",
            "column d is geometry",
            "the key k (c) is there with the columns (b)",
            "lacks the column id",
        ] {
            assert!(kept.contains(words), "{words} is not in\n{kept}");
        }
        assert_eq!(lack.kept.len(), 5, "{kept}");
    }

    #[test]
    fn keys_are_told_by_their_columns() {
        let columns: Vec<_> = ["a", "b"].iter().map(|name| (*name, column("int(11)", false, None))).collect();
        let there: &[(&str, bool, &[&str])] = &[("x", false, &["a", "b"])];
        assert_eq!(lack(&columns, there, "a int, b int, KEY other (a)").keys, []);
        let unique = lack(&columns, there, "a int, b int, UNIQUE KEY u (a, b), KEY i (b(10))");
        let keys: Vec<_> = unique.keys.iter().map(|(key, _)| key.text.as_str()).collect();
        assert_eq!(keys, ["UNIQUE KEY u ( a , b )", "KEY i ( b ( 10 ) )"]);
    }

    #[test]
    fn a_default_that_is_missing_is_set() {
        let lack = lack(&[("a", column("int(11)", false, None))], &[], "a int NOT NULL DEFAULT '5'");
        assert_eq!(parts(&lack), ["ALTER COLUMN `a` SET DEFAULT '5'"]);
    }
}
