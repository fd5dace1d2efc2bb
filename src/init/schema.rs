//! The schemas: an empty server is installed from the image's SQL, an installed one is completed, none is emptied.
//!
//! What was begun is recorded in a schema of ours, `tarsup`, so that an installation that was cut off is known as such
//! and is finished by the next start instead of counting as installed.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::database::{DB_TARS, DatabaseError, Presence, Server, Session};
use super::paths::Paths;
use super::sql::{self, Kind, Statement};
use super::story::Story;

/// A schema, and the file of the image that makes its tables (two have none: the services make theirs).
const SCHEMAS: [(&str, Option<&str>); 7] = [
    (DB_TARS, Some("db_tars.sql")),
    ("tars_stat", None),
    ("tars_property", None),
    ("db_tars_web", Some("db_tars_web.sql")),
    ("db_user_system", Some("db_user_system.sql")),
    ("db_cache_web", Some("db_cache_web.sql")),
    ("db_base", Some("db_base.sql")),
];

/// Two tables that only TARS's own schema has together.
const TARS_TABLES: [&str; 2] = ["t_server_conf", "t_node_info"];
/// The record's name for tarslog's rows, which belong to a new database and to it alone.
const LOG_ROWS: &str = "tars_servers_logs";

const TABLE_EXISTS: u16 = 1050;
const DUPLICATE_KEY: u16 = 1062;
const SCHEMA_EXISTS: u16 = 1007;
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
    paths: &Paths,
    version: Option<&str>,
    story: &Story,
) -> Result<Report, DatabaseError> {
    let mut record = Record::read(session)?;
    let mut report = Report::default();
    for (schema, file) in SCHEMAS {
        let dump = match file.map(|file| read_dump(paths, file)) {
            None => None,
            Some(Ok(dump)) => Some(dump),
            Some(Err(_)) if schema != DB_TARS => continue,
            Some(Err(error)) => return Err(error),
        };
        let statements = dump.as_deref().map(sql::split).unwrap_or_default();
        let begun = record.is_open(schema);
        match session.presence(schema)? {
            Presence::Exists { tables } if tables > 0 && !begun => {
                complete(server, session, schema, &statements, story)?;
            }
            // The services make its tables themselves; without any it is as it should be.
            Presence::Exists { .. } if file.is_none() && !begun => {}
            presence => {
                let import = Import { server, schema, statements: &statements, resumed: begun };
                record.begin(session, schema, version, story)?;
                if schema == DB_TARS && !begun {
                    record.begin(session, LOG_ROWS, version, story)?;
                }
                story.say(import.announcement(presence));
                if schema == DB_TARS && presence == Presence::Absent && paths.has_deployments() {
                    story.say(
                        "warning: this container's volume holds services that a TARS deployed, and this server knows no \
                         TARS. If that is not meant, stop here: the database's own volume may not be mounted",
                    );
                }
                import.run(session, presence, story)?;
                record.finish(session, schema)?;
                report.installed_tars |= schema == DB_TARS;
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

/// The text of one of the image's SQL files.
pub fn read_dump(paths: &Paths, file: &str) -> Result<String, DatabaseError> {
    let path = paths.deploy("sql").join(file);
    fs::read_to_string(&path).map_err(|error| unfit_file(&path, &error))
}

fn unfit_file(path: &Path, error: &std::io::Error) -> DatabaseError {
    DatabaseError::Unfit(format!("the image's {} cannot be read: {error}", path.display()))
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

    /// Makes the schema's tables. No `DROP` is ever sent, so even a wrong belief that it is empty destroys nothing.
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
        let mut own = self.server.connect(Some(self.schema))?;
        for statement in self.statements {
            match (&statement.kind, own.run(&self.act(statement), &statement.text_to_send())) {
                (Kind::Drop, _) | (_, Ok(())) => {}
                (Kind::Set, Err(error)) if error.number().is_some() => {
                    story.say(format!("the server does not know a setting, which does no harm: {error}"));
                }
                (_, Err(error))
                    if self.resumed && matches!(error.number(), Some(TABLE_EXISTS | DUPLICATE_KEY)) => {}
                (_, Err(error)) => return Err(error),
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
    /// `DO 0` instead of anything that drops.
    fn text_to_send(&self) -> String {
        if self.kind == Kind::Drop { "DO 0".to_owned() } else { self.text.clone() }
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
    let mut own = server.connect(Some(schema))?;
    for (name, statement) in missing {
        match own.run(&format!("adding the table {name}"), &statement.text) {
            Err(error) if error.number() == Some(TABLE_EXISTS) => {}
            made => made?,
        }
    }
    Ok(())
}

fn missing_tables<'a>(
    statements: &'a [Statement],
    present: &BTreeSet<String>,
) -> Vec<(&'a str, &'a Statement)> {
    // A server may keep table names in lower case.
    let present: BTreeSet<String> = present.iter().map(|name| name.to_lowercase()).collect();
    statements
        .iter()
        .filter_map(|statement| match &statement.kind {
            Kind::CreateTable(name) if !present.contains(&name.to_lowercase()) => {
                Some((name.as_str(), statement))
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
    use super::*;

    #[test]
    fn drops_are_never_sent() {
        for statement in sql::split("DROP TABLE IF EXISTS `t`; /*!40000 DROP TABLE t */; TRUNCATE t;") {
            assert_eq!(statement.text_to_send(), "DO 0", "{}", statement.text);
        }
    }

    #[test]
    fn tables_are_missed_whatever_their_case() {
        let statements = sql::split("CREATE TABLE `T_a` (x int); CREATE TABLE t_b (x int);");
        let missing = missing_tables(&statements, &BTreeSet::from(["t_A".to_owned()]));
        assert_eq!(missing.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["t_b"]);
    }
}
