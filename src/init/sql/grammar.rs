//! Which statements are known, each by its whole grammar: what is left over at the end is a reason to refuse.

use std::collections::BTreeMap;

use super::cursor::{Cursor, Reason};
use super::definitions::{self, Defined};
use super::{FilePurpose, Rows, StatementKind};
use crate::tars::sql::{Sentence, Token};

/// The kind of a statement.
pub fn kind(sentence: &Sentence, purpose: FilePurpose) -> Result<StatementKind, Reason> {
    let mut cursor = Cursor { tokens: &sentence.tokens, at: 0 };
    let first = cursor.take_word().unwrap_or_default().to_ascii_uppercase();
    let kind = match first.as_str() {
        // Nothing of these is read any further: whatever they say, it does not reach a server.
        "DROP" | "TRUNCATE" | "UNLOCK" => return Ok(StatementKind::LeftOut),
        "LOCK" if cursor.takes("TABLES") || cursor.takes("TABLE") => return Ok(StatementKind::LeftOut),
        "SET" => setting(&mut cursor).map(|()| StatementKind::Setting(sentence.text.clone())),
        "CREATE" => create(&mut cursor, sentence),
        "ALTER" => alter(&mut cursor, sentence),
        "INSERT" => insert(&mut cursor).map(|()| StatementKind::Insert(sentence.text.clone())),
        "REPLACE" => replace(&mut cursor),
        "DELETE" => delete(&mut cursor).map(StatementKind::Delete),
        "BEGIN" => {
            cursor.takes("WORK");
            Ok(StatementKind::Transaction("BEGIN".to_owned()))
        }
        "START" if cursor.takes("TRANSACTION") => Ok(StatementKind::Transaction("BEGIN".to_owned())),
        "COMMIT" => {
            cursor.takes("WORK");
            Ok(StatementKind::Transaction("COMMIT".to_owned()))
        }
        _ => Err("it is no statement that only adds".to_owned()),
    }?;
    cursor.expect_end()?;
    fitting(kind, purpose)
}

fn fitting(kind: StatementKind, purpose: FilePurpose) -> Result<StatementKind, Reason> {
    match (&kind, purpose) {
        (StatementKind::Delete(_), FilePurpose::Schema) => {
            Err("the file of a schema has no node that a DELETE could be confined to".to_owned())
        }
        // They would commit half of the node's rows.
        (StatementKind::CreateTable { .. } | StatementKind::Add { .. }, FilePurpose::Registration) => {
            Err("a node is registered by rows, in one transaction; tables belong in the schema's file"
                .to_owned())
        }
        (StatementKind::Transaction(_), FilePurpose::Registration) => Ok(StatementKind::LeftOut),
        _ => Ok(kind),
    }
}

/// What a client's dump sets, and puts back at its end. `SET` alone can do anything (a password, a log that is written
/// into any file, `SET STATEMENT ... FOR` any statement), so each name is known, and no value is computed.
fn setting(cursor: &mut Cursor<'_>) -> Result<(), Reason> {
    if cursor.takes("NAMES") {
        return charset(cursor);
    }
    loop {
        assignment(cursor)?;
        if !cursor.takes_sign(',') {
            return Ok(());
        }
    }
}

fn assignment(cursor: &mut Cursor<'_>) -> Result<(), Reason> {
    if let Some(Token::Variable(variable)) = cursor.peek() {
        cursor.next();
        if variable.starts_with("@@") {
            return Err(format!("it sets `{variable}`, which the files have no need of"));
        }
        cursor.expect_sign('=')?;
        return match cursor.next() {
            Some(Token::Variable(value)) if value.strip_prefix("@@").is_some_and(is_session_variable) => {
                Ok(())
            }
            _ => Err(format!("it keeps something else than a setting in `{variable}`")),
        };
    }
    if cursor.takes("GLOBAL") {
        return former_setting(cursor);
    }
    let _ = cursor.takes("SESSION");
    let variable = cursor.expect_name()?.to_ascii_lowercase();
    if !is_session_variable(&variable) {
        return Err(format!("it sets `{variable}`, which the files have no need of"));
    }
    cursor.expect_sign('=')?;
    if matches!(cursor.peek(), Some(Token::Variable(value)) if !value.starts_with("@@")) {
        cursor.next();
        return Ok(());
    }
    match variable.as_str() {
        "character_set_results" if cursor.takes("NULL") => Ok(()),
        "character_set_client"
        | "character_set_connection"
        | "character_set_results"
        | "collation_connection" => charset(cursor),
        "sql_mode" => match cursor.next() {
            Some(Token::Text(modes)) if is_harmless(modes) => Ok(()),
            _ => Err("it sets a mode in which the file would read differently".to_owned()),
        },
        "time_zone" if cursor.takes_text() => Ok(()),
        _ if cursor.takes_number() || cursor.takes("ON") || cursor.takes("OFF") => Ok(()),
        _ => Err(format!("`{variable}` gets a value that is not plain{}", cursor.instead())),
    }
}

/// The two that servers of former times wanted for long keys; db_user_system.sql has them.
fn former_setting(cursor: &mut Cursor<'_>) -> Result<(), Reason> {
    let variable = cursor.expect_name()?.to_ascii_lowercase();
    if !matches!(variable.as_str(), "innodb_large_prefix" | "innodb_file_format") {
        return Err(format!("it sets `{variable}` for the whole server"));
    }
    cursor.expect_sign('=')?;
    match cursor.next() {
        Some(Token::Word(_) | Token::Number(_) | Token::Text(_)) => Ok(()),
        _ => Err(format!("`{variable}` gets a value that is not plain")),
    }
}

fn is_session_variable(name: &str) -> bool {
    const KNOWN: [&str; 11] = [
        "character_set_client",
        "character_set_connection",
        "character_set_results",
        "collation_connection",
        "foreign_key_checks",
        "note_verbosity",
        "sql_mode",
        "sql_notes",
        "time_zone",
        "unique_checks",
        "sql_quote_show_create",
    ];
    KNOWN.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// UTF-8 and nothing else: in GBK or SJIS a backslash may be half of a character, and a quote closes elsewhere.
fn charset(cursor: &mut Cursor<'_>) -> Result<(), Reason> {
    match cursor.next() {
        Some(Token::Word(name) | Token::Name(name)) if is_utf8(name) => Ok(()),
        Some(Token::Text(name)) if is_utf8(&name[1..name.len() - 1]) => Ok(()),
        _ => Err("the files are UTF-8, and it says another character set".to_owned()),
    }
}

fn is_utf8(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["utf8", "utf8mb3", "utf8mb4"]
        .iter()
        .any(|set| name.strip_prefix(set).is_some_and(|rest| rest.is_empty() || rest.starts_with('_')))
}

/// Modes that change what a server accepts, not how it reads.
fn is_harmless(literal: &str) -> bool {
    const HARMLESS: [&str; 12] = [
        "ALLOW_INVALID_DATES",
        "ERROR_FOR_DIVISION_BY_ZERO",
        "NO_AUTO_CREATE_USER",
        "NO_AUTO_VALUE_ON_ZERO",
        "NO_ENGINE_SUBSTITUTION",
        "NO_UNSIGNED_SUBTRACTION",
        "NO_ZERO_DATE",
        "NO_ZERO_IN_DATE",
        "ONLY_FULL_GROUP_BY",
        "STRICT_ALL_TABLES",
        "STRICT_TRANS_TABLES",
        "TIME_TRUNCATE_FRACTIONAL",
    ];
    let modes = &literal[1..literal.len() - 1];
    modes.is_empty()
        || modes.split(',').all(|mode| HARMLESS.iter().any(|known| known.eq_ignore_ascii_case(mode)))
}

fn create(cursor: &mut Cursor<'_>, sentence: &Sentence) -> Result<StatementKind, Reason> {
    if !cursor.takes("TABLE") {
        return Err(format!("of CREATE only CREATE TABLE is sent, and it goes on{}", cursor.instead()));
    }
    if cursor.takes("IF") {
        cursor.expect("NOT")?;
        cursor.expect("EXISTS")?;
    }
    let table = cursor.expect_table()?;
    let (mut columns, mut keys) = (Vec::new(), Vec::new());
    cursor.list(|cursor| {
        match definitions::definition(cursor)? {
            Defined::Column(column) => columns.push(column),
            Defined::Key(key) => keys.push(key),
        }
        Ok(())
    })?;
    definitions::table_options(cursor)?;
    Ok(StatementKind::CreateTable { table, columns, keys, text: sentence.text.clone() })
}

/// Upstream's `tars_upgrade.conf` adds columns and does nothing else. `MODIFY` and `CHANGE` would be needed by none of
/// its files, and may cut values that are there; `ALTER IGNORE` deletes rows for the sake of a key.
fn alter(cursor: &mut Cursor<'_>, sentence: &Sentence) -> Result<StatementKind, Reason> {
    if !cursor.takes("TABLE") {
        return Err(format!("of ALTER only ALTER TABLE is sent, and it goes on{}", cursor.instead()));
    }
    let table = cursor.expect_table()?;
    if cursor.takes("DISABLE") || cursor.takes("ENABLE") {
        cursor.expect("KEYS")?;
        return Ok(StatementKind::LeftOut);
    }
    let mut columns = Vec::new();
    loop {
        if !cursor.takes("ADD") {
            return Err(format!("of ALTER TABLE only ADD is sent, and it goes on{}", cursor.instead()));
        }
        let is_column = cursor.takes("COLUMN");
        match definitions::definition(cursor)? {
            Defined::Column(column) => columns.push(column.name),
            Defined::Key(key) if key.has_one_name() && !is_column => {}
            // Added twice, it would be there twice: no server says "duplicate" to a key that it names itself.
            Defined::Key(_) => return Err("it adds a key without a name".to_owned()),
        }
        if cursor.takes("AFTER") {
            cursor.expect_name()?;
        } else {
            let _ = cursor.takes("FIRST");
        }
        if !cursor.takes_sign(',') {
            return Ok(StatementKind::Add { table, columns, text: sentence.text.clone() });
        }
    }
}

fn insert(cursor: &mut Cursor<'_>) -> Result<(), Reason> {
    let _ = cursor.takes("IGNORE");
    cursor.expect("INTO")?;
    cursor.expect_table()?;
    if cursor.peek() == Some(&Token::Sign('(')) {
        cursor.names()?;
    }
    values(cursor).map(|_| ())
}

fn replace(cursor: &mut Cursor<'_>) -> Result<StatementKind, Reason> {
    cursor.expect("INTO")?;
    let table = cursor.expect_table()?;
    let columns = cursor.names()?;
    let values = values(cursor)?;
    if values.iter().any(|row| row.len() != columns.len()) {
        return Err("a row has another number of values than there are columns".to_owned());
    }
    Ok(StatementKind::Replace(Rows { table, columns, values }))
}

/// Rows that stand in the file: no sub-select, no function but the time of day, no `ON DUPLICATE KEY UPDATE`.
fn values(cursor: &mut Cursor<'_>) -> Result<Vec<Vec<String>>, Reason> {
    if !cursor.takes("VALUES") && !cursor.takes("VALUE") {
        return Err(format!("the values must stand in the file, and it goes on{}", cursor.instead()));
    }
    let mut rows = Vec::new();
    loop {
        let mut row = Vec::new();
        cursor.list(|cursor| {
            row.push(definitions::value(cursor)?);
            Ok(())
        })?;
        rows.push(row);
        if !cursor.takes_sign(',') {
            return Ok(rows);
        }
    }
}

/// Upstream's two: `delete from t_adapter_conf where application = '..' and server_name = '..' and adapter_name = '..'`.
fn delete(cursor: &mut Cursor<'_>) -> Result<String, Reason> {
    const NAMED: [&str; 3] = ["application", "server_name", "adapter_name"];
    cursor.expect("FROM")?;
    let table = cursor.expect_table()?;
    if table != "t_adapter_conf" {
        return Err(format!("rows of `{table}` are not the files' to delete"));
    }
    if !cursor.takes("WHERE") {
        return Err("a DELETE without a WHERE".to_owned());
    }
    let mut conditions = BTreeMap::new();
    loop {
        let column = cursor.expect_name()?.to_ascii_lowercase();
        cursor.expect_sign('=')?;
        let Some(Token::Text(value)) = cursor.next() else {
            return Err(format!("`{column}` is compared with something else than a text"));
        };
        if !NAMED.contains(&column.as_str()) || conditions.contains_key(&column) {
            return Err(format!(
                "the condition names `{column}`; a DELETE names {}, once each",
                NAMED.join(", ")
            ));
        }
        conditions.insert(column, value);
        if !cursor.takes("AND") {
            break;
        }
    }
    // Before the number of conditions: an OR is the reason, not what it leaves out.
    cursor.expect_end()?;
    if conditions.len() != NAMED.len() {
        return Err(format!("a DELETE names {}, each of them", NAMED.join(", ")));
    }
    // Written anew, so that a condition can follow whatever the statement stood in.
    let conditions: Vec<_> = conditions.iter().map(|(column, value)| format!("{column} = {value}")).collect();
    Ok(format!("DELETE FROM {table} WHERE {}", conditions.join(" AND ")))
}
