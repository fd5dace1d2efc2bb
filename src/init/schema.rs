//! The schemas: an empty server is installed from the image's SQL, an installed one is completed, none is emptied.
//!
//! What was begun is recorded in a schema of ours, `tarsup`, so that an installation that was cut off is known as such
//! and is finished by the next start instead of counting as installed.

use std::collections::BTreeSet;

use super::database::{DB_TARS, DatabaseError, Presence, Server, Session};
use super::lock;
use super::paths::Paths;
use super::scripts::{SchemaScript, SchemaScripts};
use super::sql::{Kind, Statement};
use super::story::Story;

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
/// Access denied: to a schema, to a user, to a command, to an operation.
const DENIED: [u16; 4] = [1044, 1045, 1142, 1227];

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// `db_tars` was made or finished by this run.
    pub installed_tars: bool,
}

/// Brings all schemas to what the image's SQL says, adding only. The caller holds the lock.
pub fn bring_forward(
    server: &Server,
    session: &mut Session,
    scripts: &SchemaScripts,
    paths: &Paths,
    version: Option<&str>,
    story: &Story,
) -> Result<Report, DatabaseError> {
    let mut record = Record::read(session)?;
    let mut report = Report::default();
    for SchemaScript { schema, statements } in &scripts.schemas {
        let begun = record.is_open(schema);
        match (session.presence(schema)?, statements) {
            (Presence::Exists { tables }, statements) if tables > 0 && !begun => {
                complete(server, session, schema, statements.as_deref().unwrap_or_default(), story)?;
            }
            // The services make its tables themselves; without any it is as it should be.
            (Presence::Exists { .. }, None) if !begun => {}
            (presence, statements) => {
                let statements = statements.as_deref().unwrap_or_default();
                let import = Import { server, schema, statements, resumed: begun };
                record.begin(session, schema, version, story)?;
                if *schema == DB_TARS && !begun {
                    record.begin(session, LOG_ROWS, version, story)?;
                }
                story.say(import.announcement(presence));
                if *schema == DB_TARS && presence == Presence::Absent && paths.has_deployments() {
                    story.say(
                        "warning: this container's volume holds services that a TARS deployed, and this server knows no \
                         TARS. If that is not meant, stop here: the database's own volume may not be mounted",
                    );
                }
                import.run(session, presence, story)?;
                record.finish(session, schema)?;
                report.installed_tars |= *schema == DB_TARS;
            }
        }
    }
    Ok(report)
}

/// True where tarslog's rows of a new database are still to be written.
pub fn wants_log_rows(session: &mut Session) -> Result<bool, DatabaseError> {
    Ok(Record::read(session)?.is_open(LOG_ROWS))
}

/// Notes that tarslog's rows are written.
pub fn log_rows_written(session: &mut Session) -> Result<(), DatabaseError> {
    Record::read(session)?.finish(session, LOG_ROWS)
}

/// True where the installation of `db_tars` was begun and not finished (by a master that is at it, or was cut off).
pub fn is_half_installed(session: &mut Session) -> Result<bool, DatabaseError> {
    Ok(Record::read(session)?.is_open(DB_TARS))
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
    fn run(&self, session: &mut Session, presence: Presence, story: &Story) -> Result<(), DatabaseError> {
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
                Err(error) if error.number().is_some() && matches!(statement.kind, Kind::Setting(_)) => {
                    story.say(format!("the server does not know a setting, which does no harm: {error}"));
                }
                Err(error) if self.resumed && error.number().is_some_and(|it| ALREADY_DONE.contains(&it)) => {
                }
                Err(error) => return Err(error),
            }
        }
        let missing = missing_tables(self.statements, &session.tables(self.schema)?);
        if missing.is_empty() {
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
            Kind::Setting(text)
            | Kind::CreateTable { text, .. }
            | Kind::Add { text, .. }
            | Kind::Insert(text)
            | Kind::Transaction(text) => Some(text.clone()),
            Kind::Replace(rows) => Some(rows.kept(None)),
            Kind::Delete(_) | Kind::LeftOut => None,
        }
    }
}

/// An installed schema gets the tables that this version adds; only TARS's own, where it is certain whose it is.
fn complete(
    server: &Server,
    session: &mut Session,
    schema: &str,
    statements: &[Statement],
    story: &Story,
) -> Result<(), DatabaseError> {
    let tables = session.tables(schema)?;
    let missing = missing_tables(statements, &tables);
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    if schema != DB_TARS || !TARS_TABLES.iter().all(|table| tables.contains(*table)) {
        story.say(format!("{schema} has tables, but not {names}: left as it is"));
        return Ok(());
    }
    story.say(format!("{schema} lacks {names}: adding"));
    let mut own = lock::connect_to_work(server, schema)?;
    for (name, statement) in missing {
        match own.run(&format!("adding the table {name}"), statement) {
            Err(error) if error.number() == Some(TABLE_EXISTS) => {}
            made => made?,
        }
    }
    Ok(())
}

/// The tables of the statements that are not present: name and statement.
fn missing_tables<'a>(statements: &'a [Statement], present: &BTreeSet<String>) -> Vec<(&'a str, &'a str)> {
    // A server may keep table names in lower case.
    let present: BTreeSet<String> = present.iter().map(|name| name.to_lowercase()).collect();
    statements
        .iter()
        .filter_map(|statement| match &statement.kind {
            Kind::CreateTable { table, text } if !present.contains(&table.to_lowercase()) => {
                Some((table.as_str(), text.as_str()))
            }
            _ => None,
        })
        .collect()
}

/// `tarsup.t_install`: what was begun and what was finished.
struct Record {
    place: Place,
    open: BTreeSet<String>,
}

/// Where the record is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    NotYetMade,
    Made,
    /// The account may not make a schema: an administrator made TARS's beforehand. Then there is no record.
    Denied,
}

impl Record {
    fn read(session: &mut Session) -> Result<Self, DatabaseError> {
        if !session.tables("tarsup")?.contains("t_install") {
            return Ok(Self { place: Place::NotYetMade, open: BTreeSet::new() });
        }
        let query = "SELECT name FROM tarsup.t_install WHERE finished_at IS NULL";
        let open: Vec<String> = session.rows("reading tarsup.t_install", query, ())?;
        Ok(Self { place: Place::Made, open: open.into_iter().collect() })
    }

    fn is_open(&self, name: &str) -> bool {
        self.open.contains(name)
    }

    fn make(&mut self, session: &mut Session, story: &Story) -> Result<(), DatabaseError> {
        let act = "making tarsup.t_install";
        let made = session.run(act, "CREATE DATABASE IF NOT EXISTS tarsup").and_then(|()| {
            session.run(
                act,
                "CREATE TABLE IF NOT EXISTS tarsup.t_install (name VARCHAR(64) NOT NULL PRIMARY KEY, \
                 version VARCHAR(64) NOT NULL, begun_at DATETIME NOT NULL, finished_at DATETIME NULL) ENGINE=InnoDB \
                 COMMENT='what tarsup began to install here, and what it finished'",
            )
        });
        match made {
            Err(error) if error.number().is_some_and(|number| DENIED.contains(&number)) => {
                story.say(format!("no record of the installation is kept: {error}"));
                self.place = Place::Denied;
                Ok(())
            }
            made => {
                self.place = Place::Made;
                made
            }
        }
    }

    fn begin(
        &mut self,
        session: &mut Session,
        name: &str,
        version: Option<&str>,
        story: &Story,
    ) -> Result<(), DatabaseError> {
        if self.place == Place::NotYetMade {
            self.make(session, story)?;
        }
        if self.place == Place::Made && self.open.insert(name.to_owned()) {
            session.run_with(
                &format!("recording that {name} is begun"),
                "INSERT INTO tarsup.t_install (name, version, begun_at, finished_at) VALUES (?, ?, NOW(), NULL) \
                 ON DUPLICATE KEY UPDATE version = VALUES(version), begun_at = NOW(), finished_at = NULL",
                (name, version.unwrap_or("")),
            )?;
        }
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
    use super::super::sql::{self, Purpose};
    use super::*;

    fn statements(dump: &str) -> Vec<Statement> {
        sql::judge(dump, Purpose::Schema).unwrap()
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
