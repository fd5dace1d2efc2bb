//! Saved first: what a migration is about to change is put out, line by line, and kept by somebody else before any of it is
//! changed.
//!
//! Where tarsup runs the migration (`TARSUP_SAVE=stdin`), the lines go to stdout, and its word that they are kept comes on
//! stdin: nothing is mounted on the engine's side. A person names a file (`migrate --save FILE`).

use std::fs::File;
use std::io::{self, BufRead as _, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use mysql::Value;
use serde_json::{Map, json};
use sha2::{Digest as _, Sha256};

use super::database::{DatabaseError, Server, Session};
use super::sql::{name, quote};
use super::touched::Touched;

/// Says where the lines go.
pub const VARIABLE: &str = "TARSUP_SAVE";
/// The schema of ours: small, and rewritten in many places, so that it is saved whole.
const OURS: &str = "tarsup";

/// Where the lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keeper {
    /// To stdout; whoever reads them says on stdin that they are kept.
    Reader,
    /// Into a file.
    File(PathBuf),
}

impl Keeper {
    /// What the environment says; `None` where nobody keeps anything.
    pub fn of_environment() -> Option<Self> {
        (std::env::var_os(VARIABLE)? == "stdin").then_some(Self::Reader)
    }
}

/// Puts out what is touched, and returns once it is kept.
pub fn save(server: &Server, touched: &Touched, keeper: &Keeper) -> Result<(), DatabaseError> {
    let out: Box<dyn Write + Send> = match keeper {
        Keeper::Reader => Box::new(io::stdout()),
        Keeper::File(path) => Box::new(create(path).map_err(|error| not_kept(path, &error))?),
    };
    let lines = Lines::new(out);
    let mut session = server.connect(None)?;
    // Every character as it is: the usual session has three bytes for one.
    session.run("setting the character set", "SET NAMES utf8mb4")?;
    for ((schema, table), columns) in &touched.tables {
        definition(&mut session, schema, table, &lines)?;
        if !columns.is_empty() {
            values(&mut session, schema, table, columns, &lines)?;
        }
    }
    for (schema, table, condition) in &touched.rows {
        rows(&mut session, schema, table, "*", &format!("WHERE {condition}"), &lines)?;
    }
    if !touched.templates.is_empty() {
        let names: Vec<String> = touched.templates.keys().map(|name| quote(name)).collect();
        let these = format!("WHERE template_name IN ({})", names.join(", "));
        rows(&mut session, "db_tars", "t_profile_template", "*", &these, &lines)?;
    }
    let is_anything = !touched.tables.is_empty() || !touched.templates.is_empty();
    for table in session.tables(OURS)?.iter().filter(|table| is_anything && !is_copy(table)) {
        rows(&mut session, OURS, table, "*", "", &lines)?;
    }
    let (count, digest) = lines.end().map_err(|error| lost(&error))?;
    match keeper {
        Keeper::Reader => await_word(count, &digest),
        Keeper::File(path) => {
            File::open(path).and_then(|file| file.sync_all()).map_err(|error| not_kept(path, &error))
        }
    }
}

/// A copy of columns that a web console would drop: as large as they are, and no migration changes it.
fn is_copy(table: &str) -> bool {
    table.starts_with("t_kept_") && table != "t_kept_column"
}

/// A file of its own, for nobody else's eyes: a template may hold a password.
fn create(path: &Path) -> io::Result<BufWriter<File>> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    Ok(BufWriter::new(file))
}

/// Says that all lines are out, and waits for the word that they are kept.
fn await_word(count: u64, digest: &str) -> Result<(), DatabaseError> {
    let mut out = io::stdout();
    writeln!(out, "{}", json!({"saved": {"lines": count, "sha256": digest}}))
        .and_then(|()| out.flush())
        .map_err(|error| lost(&error))?;
    let mut said = String::new();
    io::stdin().lock().read_line(&mut said).map_err(|error| lost(&error))?;
    if said.trim() == format!("saved {digest}") {
        return Ok(());
    }
    let said = if said.is_empty() { "nothing".to_owned() } else { format!("`{}`", said.trim()) };
    Err(DatabaseError::NotSaved(format!("what would be changed is not kept: whoever reads it said {said}")))
}

fn lost(error: &io::Error) -> DatabaseError {
    DatabaseError::NotSaved(format!("what would be changed cannot be put out: {error}"))
}

fn not_kept(path: &Path, error: &io::Error) -> DatabaseError {
    DatabaseError::NotSaved(format!("what would be changed cannot be kept in {}: {error}", path.display()))
}

/// Lines of JSON, counted and digested.
#[derive(Clone)]
struct Lines(Arc<Mutex<Written>>);

struct Written {
    out: Box<dyn Write + Send>,
    digest: Sha256,
    count: u64,
}

impl Lines {
    fn new(out: Box<dyn Write + Send>) -> Self {
        Self(Arc::new(Mutex::new(Written { out, digest: Sha256::new(), count: 0 })))
    }

    fn put(&self, saved: &serde_json::Value) -> io::Result<()> {
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let line = format!("{}\n", json!({"save": saved}));
        written.digest.update(line.as_bytes());
        written.count += 1;
        written.out.write_all(line.as_bytes())
    }

    fn end(&self) -> io::Result<(u64, String)> {
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        written.out.flush()?;
        let digest = std::mem::take(&mut written.digest).finalize();
        Ok((written.count, hexadecimal(&digest)))
    }
}

/// `SHOW CREATE TABLE`.
fn definition(session: &mut Session, schema: &str, table: &str, lines: &Lines) -> Result<(), DatabaseError> {
    let (lines, at) = (lines.clone(), format!("{schema}.{table}"));
    let query = format!("SHOW CREATE TABLE {}.{}", name(schema), name(table));
    session
        .each_row(&format!("saving the definition of {at}"), query, move |row| {
            let text = row.as_ref(1).map(shown).unwrap_or_default();
            lines.put(&json!({"table": at, "definition": text}))
        })?
        .map_err(|error| lost(&error))
}

/// The values of columns, each with its row's key.
fn values(
    session: &mut Session,
    schema: &str,
    table: &str,
    columns: &std::collections::BTreeSet<String>,
    lines: &Lines,
) -> Result<(), DatabaseError> {
    let query = "SELECT column_name FROM information_schema.statistics WHERE table_schema = ? AND table_name = ? AND \
                 index_name = 'PRIMARY' ORDER BY seq_in_index";
    let key: Vec<String> =
        session.rows(&format!("asking for the key of {schema}.{table}"), query, (schema, table))?;
    // Without a key only the whole row tells which one it is.
    let wanted: Vec<String> = key.iter().chain(columns).map(|column| name(column)).collect();
    let wanted = if key.is_empty() { "*".to_owned() } else { wanted.join(", ") };
    rows(session, schema, table, &wanted, "", lines)
}

fn rows(
    session: &mut Session,
    schema: &str,
    table: &str,
    columns: &str,
    these: &str,
    lines: &Lines,
) -> Result<(), DatabaseError> {
    let (lines, at) = (lines.clone(), format!("{schema}.{table}"));
    let query = format!("SELECT {columns} FROM {}.{} {these}", name(schema), name(table));
    session
        .each_row(&format!("saving rows of {at}"), query, move |row| {
            let mut values = Map::new();
            for (column, value) in row.columns_ref().iter().zip(0..row.len()) {
                let value = row.as_ref(value).map_or(serde_json::Value::Null, shown);
                values.insert(column.name_str().into_owned(), value);
            }
            lines.put(&json!({"table": at, "row": values}))
        })?
        .map_err(|error| lost(&error))
}

/// A value as text; what is no text, as the digits that SQL takes for it.
fn shown(value: &Value) -> serde_json::Value {
    match value {
        Value::NULL => serde_json::Value::Null,
        Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => text.into(),
            Err(_) => {
                json!({"hex": hexadecimal(bytes)})
            }
        },
        other => other.as_sql(false).trim_matches('\'').into(),
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    let digits =
        |byte: &u8| [byte >> 4, byte & 15].map(|digit| char::from_digit(digit.into(), 16).unwrap_or('0'));
    bytes.iter().flat_map(digits).collect()
}
