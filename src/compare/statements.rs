//! What differs between two SQL scripts: tables by their columns, other statements as they stand, but for values.

use std::collections::{BTreeMap, BTreeSet};

use super::config::ValueChange;
use super::details::{Names, TableChange, TableState};
use super::told;
use crate::tars::sql::{self, Sentence, Token};

/// What stands in the place of a value.
const VALUE: &str = "…";
/// Words that begin the definition of a key.
const OF_KEYS: [&str; 9] =
    ["CHECK", "CONSTRAINT", "FOREIGN", "FULLTEXT", "INDEX", "KEY", "PRIMARY", "SPATIAL", "UNIQUE"];

/// Column or key → how it is defined.
type Table = BTreeMap<String, String>;

/// What a script says.
#[derive(Default)]
struct Script {
    tables: BTreeMap<String, Table>,
    /// Statement → how it is shown, and how often it stands there.
    others: BTreeMap<String, (String, usize)>,
}

/// The tables that differ, and the other statements that came and went.
///
/// # Errors
/// A text that is no SQL: the line, and why, without anything of its content.
pub(super) fn compare(old: &str, new: &str) -> Result<(Vec<TableChange>, Names), String> {
    let (old, new) = (read(old)?, read(new)?);
    let names: BTreeSet<&String> = old.tables.keys().chain(new.tables.keys()).collect();
    let mut tables = Vec::new();
    for name in names {
        let (columns, change) = match (old.tables.get(name), new.tables.get(name)) {
            (Some(old), Some(new)) if old == new => continue,
            (Some(old), Some(new)) => (columns(old, new), TableState::Changed),
            (None, _) => (Vec::new(), TableState::Created),
            (_, None) => (Vec::new(), TableState::Gone),
        };
        tables.push(TableChange { table: told::text(name), change, columns });
    }
    Ok((tables, Names { added: more(&new, &old), removed: more(&old, &new) }))
}

fn columns(old: &Table, new: &Table) -> Vec<ValueChange> {
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let told = |table: &Table, name: &String| table.get(name).map(|definition| told::text(definition));
    names
        .into_iter()
        .filter(|name| old.get(*name) != new.get(*name))
        .map(|name| ValueChange { key: told::text(name), from: told(old, name), to: told(new, name) })
        .collect()
}

/// The statements that one script has and the other has not, or not as often, as they are shown.
fn more(of: &Script, than: &Script) -> Vec<String> {
    let mut shown: BTreeMap<&String, usize> = BTreeMap::new();
    for (statement, (text, count)) in &of.others {
        let there = than.others.get(statement).map_or(0, |(_, count)| *count);
        *shown.entry(text).or_default() += count.saturating_sub(there);
    }
    let told = |(text, count): (&String, usize)| match count {
        1 => told::text(text),
        count => format!("{} ({count} of them)", told::text(text)),
    };
    shown.into_iter().filter(|(_, count)| *count > 0).map(told).collect()
}

fn read(text: &str) -> Result<Script, String> {
    let sentences = sql::read(text)
        .map_err(|refusal| format!("line {} is no plain SQL: {}", refusal.line, refusal.why))?;
    let mut script = Script::default();
    for Sentence { tokens, text, .. } in &sentences {
        if let Some((name, table)) = table(tokens) {
            script.tables.insert(name, table);
        } else {
            let entry = script.others.entry(text.clone()).or_insert_with(|| (shown(tokens), 0));
            entry.1 += 1;
        }
    }
    Ok(script)
}

/// The table that `CREATE TABLE` makes.
fn table(tokens: &[Token]) -> Option<(String, Table)> {
    let mut rest = after(tokens, "CREATE")?;
    rest = after(rest, "TEMPORARY").unwrap_or(rest);
    rest = after(rest, "TABLE")?;
    if let Some(then) = after(rest, "IF") {
        rest = after(after(then, "NOT")?, "EXISTS")?;
    }
    let open = rest.iter().position(|token| *token == Token::Sign('('))?;
    let name = joined(&rest[..open], true);
    let mut table = Table::new();
    let (mut depth, mut from) = (0_usize, open + 1);
    for (at, token) in rest.iter().enumerate().skip(open) {
        match token {
            Token::Sign('(') => depth += 1,
            Token::Sign(')') => depth -= 1,
            Token::Sign(',') if depth == 1 => {
                define(&rest[from..at], &mut table);
                from = at + 1;
            }
            _ => {}
        }
        if depth == 0 {
            define(&rest[from..at], &mut table);
            let options = joined(&rest[at + 1..], true);
            if !options.is_empty() {
                table.insert("(options)".to_owned(), options);
            }
            return Some((name, table));
        }
    }
    None
}

/// A column, or a key.
fn define(tokens: &[Token], table: &mut Table) {
    let Some((first, rest)) = tokens.split_first() else { return };
    let is_key = matches!(first, Token::Word(word) if OF_KEYS.iter().any(|of| word.eq_ignore_ascii_case(of)));
    let (name, rest) = if is_key {
        let name = tokens.iter().find_map(|token| match token {
            Token::Name(name) => Some(name.as_str()),
            _ => None,
        });
        let is_primary = matches!(first, Token::Word(word) if word.eq_ignore_ascii_case("PRIMARY"));
        let name =
            if is_primary { "PRIMARY KEY".to_owned() } else { format!("key {}", name.unwrap_or_default()) };
        (name, tokens)
    } else {
        (joined(std::slice::from_ref(first), true), rest)
    };
    // What a column with a password begins with may be one.
    let shows_values = !told::is_of_secret(&name);
    table.insert(name, joined(rest, shows_values));
}

fn after<'t>(tokens: &'t [Token], word: &str) -> Option<&'t [Token]> {
    match tokens.split_first() {
        Some((Token::Word(first), rest)) if first.eq_ignore_ascii_case(word) => Some(rest),
        _ => None,
    }
}

/// A statement without its values; of one that shapes tables they are none of a row, and are shown unless it speaks of a secret.
fn shown(tokens: &[Token]) -> String {
    let shapes = after(tokens, "ALTER").or_else(|| after(tokens, "DROP")).is_some_and(|rest| {
        ["TABLE", "INDEX", "DATABASE", "SCHEMA", "VIEW"].iter().any(|word| after(rest, word).is_some())
    });
    let speaks = tokens.iter().any(|token| match token {
        Token::Word(word) | Token::Name(word) => {
            told::is_of_secret(word) && !OF_KEYS.iter().any(|of| word.eq_ignore_ascii_case(of))
        }
        _ => false,
    });
    if shapes && !speaks {
        return joined(tokens, true);
    }
    let begins_values = |token: &Token| matches!(token, Token::Word(word) if ["VALUES", "VALUE", "SET"].iter().any(|of| word.eq_ignore_ascii_case(of)));
    match tokens.iter().skip(1).position(begins_values) {
        Some(at) => format!("{} {VALUE}", joined(&tokens[..at + 2], false)),
        None => joined(tokens, false),
    }
}

/// Tokens as one line.
fn joined(tokens: &[Token], shows_values: bool) -> String {
    let mut text = String::new();
    let mut is_tight = true;
    for token in tokens {
        let word = match token {
            Token::Word(word) | Token::Name(word) | Token::Variable(word) => word.as_str(),
            Token::Text(value) | Token::Number(value) if shows_values => value.as_str(),
            Token::Text(_) | Token::Number(_) => VALUE,
            Token::Sign(sign) => {
                let is_after_word = matches!(sign, '(' | ')' | ',' | '.' | ';');
                if !is_tight && !is_after_word {
                    text.push(' ');
                }
                text.push(*sign);
                is_tight = matches!(sign, '(' | '.');
                continue;
            }
        };
        if !is_tight {
            text.push(' ');
        }
        text.push_str(word);
        is_tight = false;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_told_by_column_and_other_statements_without_their_values() {
        let old = "CREATE TABLE `t` (\n `a` int(11) NOT NULL DEFAULT '0', -- x\n `b` text,\n PRIMARY KEY (`a`), KEY `k` (`b`)\n) ENGINE=InnoDB;\n\
            CREATE TABLE gone (a int);\nINSERT INTO t (a, b) VALUES (1, 'x'), (2, 'y');\n";
        let new = "CREATE TABLE IF NOT EXISTS `t` (`a` bigint NOT NULL DEFAULT '0', `c` decimal(3, 2), PRIMARY KEY (`a`, `c`), KEY `k` (`b`)) ENGINE=InnoDB;\n\
            create table `db`.`n` (a int);\nINSERT INTO t (a, b) VALUES (3, 'hunter2');\nINSERT INTO t (a, b) VALUES (4, 'hunter2');\n\
            ALTER TABLE t ADD KEY `i` (b), ADD `run` VARCHAR(128) DEFAULT '';\nALTER TABLE t ADD `password` TEXT DEFAULT 'hunter2';\n\
            CREATE USER 'u' IDENTIFIED BY 'hunter2';\nSET PASSWORD = 'hunter2';\nUPDATE t SET a = 'hunter2';\n";
        let (tables, statements) = compare(old, new).unwrap();
        let names: Vec<_> = tables.iter().map(|table| (table.table.as_str(), table.change)).collect();
        assert_eq!(
            names,
            [("db.n", TableState::Created), ("gone", TableState::Gone), ("t", TableState::Changed)]
        );
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
        let columns: Vec<String> = tables[2]
            .columns
            .iter()
            .map(|column| format!("{}: {} -> {}", column.key, shown(&column.from), shown(&column.to)))
            .collect();
        assert_eq!(
            columns,
            [
                "PRIMARY KEY: PRIMARY KEY(a) -> PRIMARY KEY(a, c)",
                "a: int(11) NOT NULL DEFAULT '0' -> bigint NOT NULL DEFAULT '0'",
                "b: text -> -",
                "c: - -> decimal(3, 2)",
            ]
        );
        assert_eq!(
            statements.added,
            [
                "ALTER TABLE t ADD KEY i(b), ADD run VARCHAR(128) DEFAULT ''",
                "ALTER TABLE t ADD password TEXT DEFAULT …",
                "CREATE USER … IDENTIFIED BY …",
                "INSERT INTO t(a, b) VALUES … (2 of them)",
                "SET PASSWORD = …",
                "UPDATE t SET …",
            ]
        );
        assert_eq!(statements.removed, ["INSERT INTO t(a, b) VALUES …"]);
        let (tables, statements) = compare(old, &old.replace('\n', "\n\n/* x */")).unwrap();
        assert!(
            tables.is_empty() && statements.is_empty(),
            "comments and white space: {tables:?} {statements:?}"
        );
    }

    #[test]
    fn text_that_is_no_sql_is_told_by_its_line_alone() {
        let words = compare("", "SELECT 1;\nINSERT 'hunter2;\n").unwrap_err();
        assert_eq!(words, "line 2 is no plain SQL: a quote that is never closed");
        assert!(compare("", &"(".repeat(100_000)).is_ok());
    }
}
