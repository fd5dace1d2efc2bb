//! Puts kept columns back: the column where it is gone, then its values where the row still is.

use super::super::database::{DB_TARS, DatabaseError, Server, Session};
use super::super::lock;
use super::super::sql;
use super::super::start_log::StartLog;
use super::super::touched::Touched;
use super::known::KnownColumns;
use super::record::{self, KeptColumn, State};
use super::table::{self, InstalledTable};

const DUPLICATE_COLUMN: u16 = 1060;

/// The web console of an image, for the question whether a column may come back.
pub enum Console {
    /// The image has none: nothing drops a column.
    None,
    /// What it knows.
    Of(KnownColumns),
    /// It does not tell: what is gone stays so, and kept.
    Unknown(String),
}

/// The kept columns that were gone when a start or a migration began, by schema, table and column.
pub type Gone = Vec<(String, String, String)>;

/// Notes which kept columns are gone, before anything makes them again.
pub fn note_gone(session: &mut Session) -> Result<Gone, DatabaseError> {
    let mut gone = Gone::new();
    for kept in record::read(session)? {
        let Some(table) = find(session, &kept)? else { continue };
        if table.position(&kept.column).is_none() {
            if kept.state != State::Gone {
                record::note(session, &kept, State::Gone)?;
            }
            gone.push(identity(&kept));
        }
    }
    Ok(gone)
}

fn identity(kept: &KeptColumn) -> (String, String, String) {
    (kept.schema.clone(), kept.table.clone(), kept.column.clone())
}

fn find(session: &mut Session, kept: &KeptColumn) -> Result<Option<InstalledTable>, DatabaseError> {
    Ok(table::read(session, &kept.schema)?.into_iter().find(|table| table.name == kept.table))
}

/// Which rows get their value back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rows {
    /// The column has just been made: nobody has written to it.
    All,
    /// It was made again by somebody, some time ago: those that nobody has written to.
    Untouched,
}

/// Puts back what may come back, and what something has made again meanwhile; what was done, in words, and noted as
/// touched.
pub fn put_back(
    server: &Server,
    session: &mut Session,
    gone: &Gone,
    console: impl FnOnce() -> Console,
    touched: &mut Touched,
    log: &StartLog,
) -> Result<Vec<String>, DatabaseError> {
    let (mut console, mut asked) = (Some(console), None);
    let mut done = Vec::new();
    for kept in record::read(session)? {
        let Some(table) = find(session, &kept)? else { continue };
        let was_gone = gone.contains(&identity(&kept));
        let rows = match table.position(&kept.column) {
            Some(_) if was_gone => Rows::All,
            Some(_) if kept.state == State::Gone => Rows::Untouched,
            Some(at) if kept.state == State::Kept && was_made_again(&table, at, &kept) => Rows::Untouched,
            Some(_) => continue,
            None => {
                if let Some(ask) = console.take() {
                    asked = Some(ask());
                }
                match &asked {
                    Some(Console::None) => {}
                    Some(Console::Of(known))
                        if known.of(&kept.schema, &kept.table).is_none_or(|of| of.has(&kept.column)) => {}
                    Some(Console::Unknown(why)) => {
                        log.say(format!(
                            "{} stays away, with its values kept: the web console does not tell whether it knows it ({why})",
                            kept.place()
                        ));
                        continue;
                    }
                    _ => continue,
                }
                Rows::All
            }
        };
        let values = touched.table(&kept.schema, &kept.table);
        if table.position(&kept.column).is_some() {
            values.insert(kept.column.clone());
        }
        match put_back_one(server, &table, &kept, rows) {
            Ok(values) => {
                let words = format!("{}: the column and {values} values that were kept", kept.place());
                if values > 0 || !was_gone || table.position(&kept.column).is_none() {
                    log.say(format!("put back {words}"));
                }
                done.push(words);
            }
            Err(error) if error.number().is_some() => {
                log.say(format!(
                    "warning: {} is kept in tarsup, and cannot be put back: {error}",
                    kept.place()
                ));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// A column that is made again stands at the end of its table: behind what once stood behind it.
fn was_made_again(table: &InstalledTable, at: usize, kept: &KeptColumn) -> bool {
    table.columns[..at].iter().any(|column| kept.behind.contains(&column.name))
}

fn put_back_one(
    server: &Server,
    table: &InstalledTable,
    kept: &KeptColumn,
    rows: Rows,
) -> Result<u64, DatabaseError> {
    let act = format!("putting back {}", kept.place());
    let column = sql::name(&kept.column);
    let mut own = lock::connect_to_work(server, DB_TARS)?;
    own.run(&act, "SET SESSION sql_mode = ''")?;
    if table.position(&kept.column).is_none() {
        // Behind the nearest of those that stood before it.
        let before = kept.before.iter().rev().find(|name| table.position(name).is_some());
        let place = before.map_or_else(|| " FIRST".to_owned(), |name| format!(" AFTER {}", sql::name(name)));
        // One that counts by itself must be a key from the first.
        let counts = kept.definition.contains("AUTO_INCREMENT");
        let mut parts = vec![format!("ADD COLUMN {column} {}{place}", kept.definition)];
        parts.extend(kept.keys.iter().filter(|_| counts).map(|key| format!("ADD {key}")));
        let alter = format!("ALTER TABLE {} {}", table.quoted(), parts.join(", "));
        match own.run(&act, &alter) {
            Err(error) if error.number() == Some(DUPLICATE_COLUMN) => {}
            added => added?,
        }
        for key in &kept.keys {
            // One of that name, or of other columns meanwhile, is no loss of values.
            match own.run(&act, &format!("ALTER TABLE {} ADD {key}", table.quoted())) {
                Err(error) if error.number().is_none() => return Err(error),
                _ => {}
            }
        }
    }
    let same = table.same_row(&kept.row_key, "here", "kept");
    let untouched = match rows {
        Rows::All => String::new(),
        Rows::Untouched => format!(" AND here.{column} <=> DEFAULT(here.{column})"),
    };
    own.run(&act, "START TRANSACTION")?;
    own.run(
        &act,
        &format!(
            "UPDATE {} here JOIN tarsup.{} kept ON {same} SET here.{column} = kept.{column} \
             WHERE NOT (BINARY here.{column} <=> BINARY kept.{column}){untouched}",
            table.quoted(),
            kept.copy
        ),
    )?;
    let changed: Vec<i64> = own.rows(&act, "SELECT ROW_COUNT()", ())?;
    record::note(&mut own, kept, State::PutBack)?;
    own.run(&act, "COMMIT")?;
    Ok(changed.first().and_then(|count| u64::try_from(*count).ok()).unwrap_or_default())
}
