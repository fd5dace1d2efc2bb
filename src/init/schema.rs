//! The schemas: an empty server is installed from the image's SQL, an installed one is completed, none is emptied.
//!
//! What was begun is recorded in a schema of ours, `tarsup`, so that an installation that was cut off is known as such
//! and is finished by the next start instead of counting as installed.

use std::collections::BTreeSet;

use super::columns::TakesBack;
use super::database::{DB_TARS, DatabaseError, Presence, Server, Session};
use super::history::{self, RecordTable};
use super::lock;
use super::paths::Paths;
use super::schema_report::Report;
use super::scripts::{SchemaScript, SchemaScripts};
use super::shape;
use super::sql::{Statement, StatementKind};
use super::start_log::StartLog;

/// Two tables that only TARS's own schema has together.
const TARS_TABLES: [&str; 2] = ["t_server_conf", "t_node_info"];
/// The record's name for tarslog's rows, which belong to a new database and to it alone.
const LOG_ROWS: &str = "tars_servers_logs";

const TABLE_EXISTS: u16 = 1050;
const DUPLICATE_KEY: u16 = 1062;
const SCHEMA_EXISTS: u16 = 1007;
/// What a statement meets that was done before the installation was cut off: a table, a column, a key of that name, the
/// primary key, a row.
const ALREADY_DONE: [u16; 5] = [TABLE_EXISTS, 1060, 1061, 1068, DUPLICATE_KEY];

/// Brings all schemas to what the image's SQL says, adding only. The caller holds the lock.
pub fn migrate(
    server: &Server,
    session: &mut Session,
    scripts: &SchemaScripts,
    paths: &Paths,
    version: Option<&str>,
    console: &TakesBack<'_>,
    log: &StartLog,
) -> Result<Report, DatabaseError> {
    let mut record = InstallRecord::read(session)?;
    let mut report = Report::default();
    for SchemaScript { schema, statements } in &scripts.schemas {
        let begun = record.is_open(schema);
        match (session.presence(schema)?, statements) {
            (Presence::Exists { tables }, statements) if tables > 0 && !begun => {
                let statements = statements.as_deref().unwrap_or_default();
                complete(server, session, schema, statements, &mut report, console, log)?;
                // An installer that was cut off before its first row leaves a database as new as an empty one.
                report.installed_tars |= *schema == DB_TARS && has_no_services(session)?;
            }
            // The services make its tables themselves; without any it is as it should be.
            (Presence::Exists { .. }, None) if !begun => {}
            (presence, statements) => {
                let statements = statements.as_deref().unwrap_or_default();
                let import = Import { server, schema, statements, resumed: begun };
                // In one statement with the schema: a cut between the two would lose tarslog's rows for good.
                let with_it: &[&str] = if *schema == DB_TARS && !begun { &[LOG_ROWS] } else { &[] };
                record.begin(session, schema, with_it, version, log)?;
                log.say(import.announcement(presence));
                if *schema == DB_TARS && presence == Presence::Absent && paths.has_deployments() {
                    log.say(
                        "warning: this container's volume holds services that a TARS deployed, and this server knows no \
                         TARS. If that is not meant, stop here: the database's own volume may not be mounted",
                    );
                }
                import.run(session, presence, log)?;
                if presence == Presence::Absent {
                    report.added.push(format!("{schema}: the schema"));
                }
                report.note_tables(schema, statements.iter());
                if *schema == DB_TARS {
                    // What no file makes belongs to a new one as well.
                    let mut own = lock::connect_to_work(server, schema)?;
                    let shaped =
                        shape::complete(session, &mut own, schema, statements, &report.made, console)?;
                    report.added.extend(shaped.added);
                    report.binds.extend(shaped.binds);
                }
                record.finish(session, schema)?;
                report.installed_tars |= *schema == DB_TARS;
            }
        }
    }
    Ok(report)
}

fn has_no_services(session: &mut Session) -> Result<bool, DatabaseError> {
    let query = "SELECT COUNT(*) FROM db_tars.t_server_conf WHERE application = 'tars'";
    Ok(session.number("asking for the framework's services", query, ())? == 0)
}

/// True where tarslog's rows of a new database are still to be written.
pub fn wants_log_rows(session: &mut Session) -> Result<bool, DatabaseError> {
    Ok(InstallRecord::read(session)?.is_open(LOG_ROWS))
}

/// Notes that tarslog's rows are written.
pub fn log_rows_written(session: &mut Session) -> Result<(), DatabaseError> {
    InstallRecord::read(session)?.finish(session, LOG_ROWS)
}

/// True where the installation of `db_tars` was begun and not finished (by a master that is at it, or was cut off).
pub fn is_half_installed(session: &mut Session) -> Result<bool, DatabaseError> {
    Ok(InstallRecord::read(session)?.is_open(DB_TARS))
}

struct Import<'a> {
    server: &'a Server,
    schema: &'a str,
    statements: &'a [Statement],
    resumed: bool,
}

impl Import<'_> {
    fn announcement(&self, presence: Presence) -> String {
        let schema = self.schema;
        match (presence, self.resumed) {
            (Presence::Absent, _) => format!("{schema} is not there: creating it"),
            (Presence::Exists { tables: 0 }, _) => format!("{schema} is there and empty: installing into it"),
            (Presence::Exists { tables }, _) => {
                format!(
                    "{schema} was left half-installed ({tables} tables): an earlier start was cut off; finishing it"
                )
            }
        }
    }

    /// Makes the schema's tables. What is sent only adds, so even a wrong belief that it is empty destroys nothing.
    fn run(&self, session: &mut Session, presence: Presence, log: &StartLog) -> Result<(), DatabaseError> {
        if presence == Presence::Absent {
            let made = session.run(
                &format!("creating the schema {}", self.schema),
                &format!("CREATE DATABASE `{}`", self.schema),
            );
            match made {
                Err(error) if error.number() == Some(SCHEMA_EXISTS) => {
                    return Err(DatabaseError::Unfit(format!(
                        "{} is there, but the account of MYSQL_USER cannot see it; nothing was installed into it",
                        self.schema
                    )));
                }
                made => made?,
            }
        }
        // A session of its own: a dump leaves settings behind.
        let mut own = lock::connect_to_work(self.server, self.schema)?;
        for statement in self.statements {
            let Some(text) = statement.text_to_send() else { continue };
            match own.run(&self.act(statement), &text) {
                Ok(()) => {}
                Err(error)
                    if error.number().is_some() && matches!(statement.kind, StatementKind::Setting(_)) =>
                {
                    log.say(format!("the server does not know a setting, which does no harm: {error}"));
                }
                Err(error) if self.resumed && error.number().is_some_and(|it| ALREADY_DONE.contains(&it)) => {
                }
                Err(error) => return Err(error),
            }
        }
        let missing = missing_tables(self.statements, &session.tables(self.schema)?);
        if missing.is_empty() || self.server.only_asks() {
            return Ok(());
        }
        let names: Vec<_> = missing.iter().map(|(name, _)| *name).collect();
        Err(DatabaseError::Unfit(format!("after the import {} lacks {}", self.schema, names.join(", "))))
    }

    fn act(&self, statement: &Statement) -> String {
        format!("importing into {}, statement at line {}", self.schema, statement.line)
    }
}

impl Statement {
    /// What of it fills a schema; `None` for what is left out.
    fn text_to_send(&self) -> Option<String> {
        match &self.kind {
            StatementKind::Setting(text)
            | StatementKind::CreateTable { text, .. }
            | StatementKind::Add { text, .. }
            | StatementKind::Insert(text)
            | StatementKind::Transaction(text) => Some(text.clone()),
            StatementKind::Replace(rows) => Some(rows.kept(None)),
            StatementKind::Delete(_) | StatementKind::LeftOut => None,
        }
    }
}

/// An installed schema gets what a fresh one of this version has: tables, columns, keys.
fn complete(
    server: &Server,
    session: &mut Session,
    schema: &str,
    statements: &[Statement],
    report: &mut Report,
    console: &TakesBack<'_>,
    log: &StartLog,
) -> Result<(), DatabaseError> {
    let tables = session.tables(schema)?;
    let missing = missing_tables(statements, &tables);
    if !is_ours(schema, statements, &tables) {
        if !missing.is_empty() {
            let names = missing.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
            log.say(format!("{schema} has tables, but none of {names}: left as it is"));
        }
        return Ok(());
    }
    let mut own = lock::connect_to_work(server, schema)?;
    let names: BTreeSet<&str> = missing.iter().map(|(name, _)| *name).collect();
    report.note_tables(
        schema,
        statements.iter().filter(
            |one| matches!(&one.kind, StatementKind::CreateTable { table, .. } if names.contains(table.as_str())),
        ),
    );
    for (name, statement) in missing {
        log.say(format!("{schema} lacks the table {name}: adding"));
        match own.run(&format!("adding the table {name}"), statement) {
            Err(error) if error.number() == Some(TABLE_EXISTS) => {}
            made => made?,
        }
        report.added.push(format!("{schema}.{name}: the table"));
    }
    let outcome = shape::complete(session, &mut own, schema, statements, &report.made, console)?;
    for added in &outcome.added {
        log.say(format!("added, as a fresh installation has it: {added}"));
    }
    report.added.extend(outcome.added);
    report.binds.extend(outcome.binds);
    report.touched.tables.extend(outcome.touched.tables);
    report.kept.extend(outcome.kept);
    Ok(())
}

/// Before anything is made: a `db_tars` that holds something else is not ours to fill, and TARS cannot live beside it.
pub fn refuse_foreign(session: &mut Session, scripts: &SchemaScripts) -> Result<(), DatabaseError> {
    let script = scripts.schemas.iter().find(|script| script.schema == DB_TARS);
    let statements = script.and_then(|script| script.statements.as_deref()).unwrap_or_default();
    let tables = session.tables(DB_TARS)?;
    if tables.is_empty() || is_half_installed(session)? || is_ours(DB_TARS, statements, &tables) {
        return Ok(());
    }
    let some: Vec<&str> = tables.iter().map(String::as_str).take(3).collect();
    Err(DatabaseError::Unfit(format!(
        "{DB_TARS} is there and is not TARS's: it holds {} tables ({}{}), which are not those that TARS has",
        tables.len(),
        some.join(", "),
        if tables.len() > some.len() { ", ..." } else { "" }
    )))
}

/// Whether a schema that holds tables is TARS's (it may be one that upstream's installer imported by half): the two tables
/// that nothing else has together, or nothing but tables of its own.
fn is_ours(schema: &str, statements: &[Statement], tables: &BTreeSet<String>) -> bool {
    if schema == DB_TARS && TARS_TABLES.iter().all(|table| tables.contains(*table)) {
        return true;
    }
    let created = statements
        .iter()
        .filter(|statement| matches!(statement.kind, StatementKind::CreateTable { .. }))
        .count();
    let known = created - missing_tables(statements, tables).len();
    // Of the web's schemas one table is proof enough: nothing else has tables of these names in schemas of these.
    known > 0 && (schema != DB_TARS || known == tables.len())
}

/// The tables of the statements that are not present: name and statement.
fn missing_tables<'a>(statements: &'a [Statement], present: &BTreeSet<String>) -> Vec<(&'a str, &'a str)> {
    // A server may keep table names in lower case.
    let present: BTreeSet<String> = present.iter().map(|name| name.to_lowercase()).collect();
    statements
        .iter()
        .filter_map(|statement| match &statement.kind {
            StatementKind::CreateTable { table, text, .. } if !present.contains(&table.to_lowercase()) => {
                Some((table.as_str(), text.as_str()))
            }
            _ => None,
        })
        .collect()
}

/// `tarsup.t_install`: what was begun and what was finished.
struct InstallRecord {
    place: RecordTable,
    open: BTreeSet<String>,
}

impl InstallRecord {
    fn read(session: &mut Session) -> Result<Self, DatabaseError> {
        if !history::has(session, "t_install")? {
            return Ok(Self { place: RecordTable::NotYetMade, open: BTreeSet::new() });
        }
        let query = "SELECT name FROM tarsup.t_install WHERE finished_at IS NULL";
        let open: Vec<String> = session.rows("reading tarsup.t_install", query, ())?;
        Ok(Self { place: RecordTable::Made, open: open.into_iter().collect() })
    }

    fn is_open(&self, name: &str) -> bool {
        self.open.contains(name)
    }

    fn make(&mut self, session: &mut Session, log: &StartLog) -> Result<(), DatabaseError> {
        let definition = "(name VARCHAR(64) NOT NULL PRIMARY KEY, version VARCHAR(64) NOT NULL, begun_at DATETIME NOT NULL, \
                          finished_at DATETIME NULL) ENGINE=InnoDB \
                          COMMENT='what tarsup began to install here, and what it finished'";
        self.place = history::make(session, "t_install", definition, "the installation", Some(log))?;
        Ok(())
    }

    fn begin(
        &mut self,
        session: &mut Session,
        name: &str,
        with_it: &[&str],
        version: Option<&str>,
        log: &StartLog,
    ) -> Result<(), DatabaseError> {
        if self.place == RecordTable::NotYetMade {
            self.make(session, log)?;
        }
        if self.place != RecordTable::Made || self.open.contains(name) {
            return Ok(());
        }
        let names: Vec<&str> = std::iter::once(name).chain(with_it.iter().copied()).collect();
        let rows = vec!["(?, ?, NOW(), NULL)"; names.len()].join(", ");
        let values: Vec<&str> = names.iter().flat_map(|name| [*name, version.unwrap_or("")]).collect();
        session.run_with(
            &format!("recording that {name} is begun"),
            &format!(
                "INSERT INTO tarsup.t_install (name, version, begun_at, finished_at) VALUES {rows} \
                 ON DUPLICATE KEY UPDATE version = VALUES(version), begun_at = NOW(), finished_at = NULL"
            ),
            values,
        )?;
        self.open.extend(names.into_iter().map(str::to_owned));
        Ok(())
    }

    fn finish(&mut self, session: &mut Session, name: &str) -> Result<(), DatabaseError> {
        if !self.open.remove(name) {
            return Ok(());
        }
        session.run_with(
            &format!("recording that {name} is finished"),
            "UPDATE tarsup.t_install SET finished_at = NOW() WHERE name = ?",
            (name,),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::sql::{self, FilePurpose};
    use super::*;

    fn statements(dump: &str) -> Vec<Statement> {
        sql::judge(dump, FilePurpose::Schema).unwrap()
    }

    #[test]
    fn drops_are_never_sent() {
        for statement in
            statements("DROP TABLE IF EXISTS `t`; /*!40000 DROP TABLE t */; TRUNCATE t; LOCK TABLES t WRITE")
        {
            assert_eq!(statement.text_to_send(), None);
        }
    }

    #[test]
    fn tables_are_missed_whatever_their_case() {
        let statements = statements("CREATE TABLE `T_a` (x int); CREATE TABLE t_b (x int);");
        let missing = missing_tables(&statements, &BTreeSet::from(["t_A".to_owned()]));
        assert_eq!(missing.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["t_b"]);
    }
}
