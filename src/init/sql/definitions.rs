//! Columns, keys, table options and values: what may stand inside of a statement.

use super::cursor::{Cursor, Reason};
use super::table::{Column, Key, KeyKind, Type};
use crate::tars::sql::{self as lexer, Token};

const TYPES: [&str; 36] = [
    "BIGINT",
    "BINARY",
    "BIT",
    "BLOB",
    "BOOL",
    "BOOLEAN",
    "CHAR",
    "DATE",
    "DATETIME",
    "DEC",
    "DECIMAL",
    "DOUBLE",
    "ENUM",
    "FLOAT",
    "INT",
    "INTEGER",
    "JSON",
    "LONGBLOB",
    "LONGTEXT",
    "MEDIUMBLOB",
    "MEDIUMINT",
    "MEDIUMTEXT",
    "NUMERIC",
    "REAL",
    "SET",
    "SMALLINT",
    "TEXT",
    "TIME",
    "TIMESTAMP",
    "TINYBLOB",
    "TINYINT",
    "TINYTEXT",
    "VARBINARY",
    "VARCHAR",
    "YEAR",
    "NVARCHAR",
];

/// Engines that keep their rows here; others read files or other servers.
const ENGINES: [&str; 4] = ["InnoDB", "MyISAM", "Aria", "MEMORY"];

/// Table options with a plain value.
const OPTIONS: [&str; 12] = [
    "AUTO_INCREMENT",
    "AVG_ROW_LENGTH",
    "CHECKSUM",
    "COMMENT",
    "DELAY_KEY_WRITE",
    "KEY_BLOCK_SIZE",
    "MAX_ROWS",
    "MIN_ROWS",
    "PACK_KEYS",
    "ROW_FORMAT",
    "STATS_PERSISTENT",
    "STATS_AUTO_RECALC",
];

/// What was defined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Defined {
    Column(Column),
    Key(Key),
}

/// A column or a key. Foreign keys, checks and computed columns are not among upstream's, and are refused.
pub fn definition(cursor: &mut Cursor<'_>) -> Result<Defined, Reason> {
    let from = cursor.at;
    if cursor.takes("PRIMARY") {
        cursor.expect("KEY")?;
        return key(cursor, from, KeyKind::Primary);
    }
    for (word, kind) in [("UNIQUE", KeyKind::Unique), ("FULLTEXT", KeyKind::FullText)] {
        if cursor.takes(word) {
            let _ = cursor.takes("KEY") || cursor.takes("INDEX");
            return key(cursor, from, kind);
        }
    }
    if cursor.takes("KEY") || cursor.takes("INDEX") {
        return key(cursor, from, KeyKind::Plain);
    }
    let name = cursor.expect_name()?;
    let at = cursor.at;
    let kind = column_type(cursor)?;
    let mut column = Column { name, kind, type_text: cursor.text_since(at), ..Column::default() };
    let at = cursor.at;
    while attribute(cursor, &mut column)? {}
    column.attributes = cursor.text_since(at);
    Ok(Defined::Column(column))
}

/// A type as `information_schema` writes it, such as `int(11) unsigned`; `None` for one that no file has.
pub fn installed_type(text: &str) -> Option<Type> {
    let sentences = lexer::read(text).ok()?;
    let mut cursor = Cursor { tokens: &sentences.first()?.tokens, at: 0 };
    let mut column = Column { kind: column_type(&mut cursor).ok()?, ..Column::default() };
    while attribute(&mut cursor, &mut column).ok()? {}
    cursor.expect_end().ok()?;
    Some(column.kind)
}

/// A column as `CREATE TABLE` has it, name included; `None` where that is not understood.
pub fn column(text: &str) -> Option<Column> {
    let sentences = lexer::read(text).ok()?;
    let mut cursor = Cursor { tokens: &sentences.first()?.tokens, at: 0 };
    let Defined::Column(column) = definition(&mut cursor).ok()? else { return None };
    cursor.expect_end().ok()?;
    Some(column)
}

fn key(cursor: &mut Cursor<'_>, from: usize, kind: KeyKind) -> Result<Defined, Reason> {
    let mut name = None;
    method(cursor)?;
    if cursor.peek() != Some(&Token::Sign('(')) {
        name = Some(cursor.expect_name()?);
    }
    method(cursor)?;
    let mut columns = Vec::new();
    cursor.list(|cursor| {
        let name = cursor.expect_name()?;
        let length = match cursor.peek() {
            Some(Token::Sign('(')) => arguments(cursor)?.pop(),
            _ => None,
        };
        let _ = cursor.takes("ASC") || cursor.takes("DESC");
        columns.push((name, length));
        Ok(())
    })?;
    method(cursor)?;
    if cursor.takes("COMMENT") && !cursor.takes_text() {
        return Err("COMMENT without a text".to_owned());
    }
    Ok(Defined::Key(Key { kind, name, columns, text: cursor.text_since(from) }))
}

fn method(cursor: &mut Cursor<'_>) -> Result<(), Reason> {
    if cursor.takes("USING") && !cursor.takes("BTREE") && !cursor.takes("HASH") {
        return Err(format!("USING goes on{}", cursor.instead()));
    }
    Ok(())
}

/// Numbers between parentheses.
fn arguments(cursor: &mut Cursor<'_>) -> Result<Vec<String>, Reason> {
    let mut found = Vec::new();
    cursor.list(|cursor| {
        let instead = cursor.instead();
        match cursor.next() {
            Some(Token::Number(number)) => found.push(number.clone()),
            _ => return Err(format!("a number was expected{instead}")),
        }
        Ok(())
    })?;
    Ok(found)
}

fn column_type(cursor: &mut Cursor<'_>) -> Result<Type, Reason> {
    let instead = cursor.instead();
    let Some(name) = cursor.take_word() else {
        return Err(format!("a column's type was expected{instead}"));
    };
    if !TYPES.iter().any(|known| known.eq_ignore_ascii_case(name)) {
        return Err(format!("`{name}` is no type of a column that is known here"));
    }
    if name.eq_ignore_ascii_case("DOUBLE") {
        let _ = cursor.takes("PRECISION");
    }
    let mut kind = Type { word: name.to_ascii_lowercase(), ..Type::default() };
    if cursor.peek() != Some(&Token::Sign('(')) {
        return Ok(kind);
    }
    cursor.list(|cursor| {
        let instead = cursor.instead();
        match cursor.next() {
            Some(Token::Number(text) | Token::Text(text)) => kind.arguments.push(text.clone()),
            _ => return Err(format!("a length was expected{instead}")),
        }
        Ok(())
    })?;
    Ok(kind)
}

/// One attribute of a column; false where there is none more.
fn attribute(cursor: &mut Cursor<'_>, column: &mut Column) -> Result<bool, Reason> {
    const PLAIN: [&str; 4] = ["NULL", "SIGNED", "ZEROFILL", "BINARY"];
    if PLAIN.iter().any(|word| cursor.takes(word)) {
        return Ok(true);
    }
    if cursor.takes("UNSIGNED") {
        column.kind.unsigned = true;
        return Ok(true);
    }
    if cursor.takes("KEY") || cursor.takes("AUTO_INCREMENT") {
        column.is_key = true;
        return Ok(true);
    }
    if cursor.takes("NOT") {
        cursor.expect("NULL")?;
    } else if cursor.takes("DEFAULT") {
        column.default = Some(value(cursor)?).filter(|value| !value.eq_ignore_ascii_case("NULL"));
    } else if cursor.takes("ON") {
        cursor.expect("UPDATE")?;
        if now(cursor)?.is_none() {
            return Err(format!("ON UPDATE goes on{}", cursor.instead()));
        }
    } else if cursor.takes("COMMENT") {
        if !cursor.takes_text() {
            return Err("COMMENT without a text".to_owned());
        }
    } else if cursor.takes("CHARACTER") {
        cursor.expect("SET")?;
        cursor.expect_name()?;
    } else if cursor.takes("CHARSET") || cursor.takes("COLLATE") {
        cursor.expect_name()?;
    } else if cursor.takes("PRIMARY") {
        cursor.expect("KEY")?;
        column.is_key = true;
    } else if cursor.takes("UNIQUE") {
        let _ = cursor.takes("KEY");
        column.is_key = true;
    } else {
        return Ok(false);
    }
    Ok(true)
}

/// What may stand behind the columns of a new table.
pub fn table_options(cursor: &mut Cursor<'_>) -> Result<(), Reason> {
    while cursor.peek().is_some() {
        let _ = cursor.takes("DEFAULT");
        if cursor.takes("CHARACTER") {
            cursor.expect("SET")?;
            let _ = cursor.takes_sign('=');
            cursor.expect_name()?;
        } else if cursor.takes("CHARSET") || cursor.takes("COLLATE") {
            let _ = cursor.takes_sign('=');
            cursor.expect_name()?;
        } else if cursor.takes("ENGINE") {
            let _ = cursor.takes_sign('=');
            let engine = cursor.expect_name()?;
            if !ENGINES.iter().any(|known| known.eq_ignore_ascii_case(&engine)) {
                return Err(format!("the engine `{engine}` is not one that keeps its rows in the database"));
            }
        } else if OPTIONS.iter().any(|option| cursor.takes(option)) {
            let _ = cursor.takes_sign('=');
            match cursor.next() {
                Some(Token::Word(_) | Token::Number(_) | Token::Text(_)) => {}
                _ => return Err("a table's option without a plain value".to_owned()),
            }
        } else {
            return Err(format!("the table goes on{}", cursor.instead()));
        }
        let _ = cursor.takes_sign(',');
    }
    Ok(())
}

/// A value that stands in the file, or the time of day; nothing that is computed or read from elsewhere. As it stands.
pub fn value(cursor: &mut Cursor<'_>) -> Result<String, Reason> {
    if let Some(now) = now(cursor)? {
        return Ok(now);
    }
    let sign = if cursor.takes_sign('-') { "-" } else { "" };
    let instead = cursor.instead();
    match cursor.next() {
        Some(Token::Number(number)) => Ok(format!("{sign}{number}")),
        Some(Token::Text(text)) if sign.is_empty() => Ok(text.clone()),
        Some(Token::Word(word)) if sign.is_empty() => match word.to_ascii_uppercase().as_str() {
            "NULL" | "DEFAULT" | "TRUE" | "FALSE" => Ok(word.clone()),
            // Bits, bytes, and texts that say their character set.
            "B" | "X" | "N" | "_BINARY" | "_UTF8" | "_UTF8MB4" => match cursor.next() {
                Some(Token::Text(text)) => Ok(format!("{word}{text}")),
                _ => Err(format!("`{word}` without a text")),
            },
            _ => Err(format!("`{word}` is no plain value")),
        },
        _ => Err(format!("a plain value was expected{instead}")),
    }
}

/// `NOW()`, `CURRENT_TIMESTAMP`, both with or without a number of digits; `None` where it is something else.
fn now(cursor: &mut Cursor<'_>) -> Result<Option<String>, Reason> {
    let begun = cursor.at;
    let is_function = cursor.takes("NOW") || cursor.takes("LOCALTIMESTAMP");
    if !is_function && !cursor.takes("CURRENT_TIMESTAMP") {
        return Ok(None);
    }
    if cursor.takes_sign('(') {
        let digits = match cursor.peek() {
            Some(Token::Number(digits)) => {
                cursor.next();
                digits.clone()
            }
            _ => String::new(),
        };
        cursor.expect_sign(')')?;
        return Ok(Some(format!("CURRENT_TIMESTAMP({digits})")));
    }
    if is_function {
        cursor.at = begun;
        return Ok(None);
    }
    Ok(Some("CURRENT_TIMESTAMP".to_owned()))
}
