//! The database server: reaching it with patience, and the probe whose three answers are absent, exists and unknown.
//!
//! A database that cannot be asked is never read as empty: every failure here is an error, never a "no".

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use mysql::prelude::{FromRow, Queryable};
use mysql::{Conn, OptsBuilder, Params};

use super::environment::Account;
use super::failure::{Code, Failure};
use super::signals::Stop;
use super::story::Story;

/// The schema of a deployment's framework: without it a slave has nothing to join.
pub const DB_TARS: &str = "db_tars";
/// Held while schemas, templates and rows are written, so that two starts exclude each other.
const LOCK: &str = "tarsup.install";

/// Why the database did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// Nothing that the server said: it cannot be reached or asked just now. Waiting may help.
    #[error("{0}")]
    Unreachable(String),
    /// The server refused a statement.
    #[error("{act}: {}", reason(source))]
    Refused {
        /// What was being done.
        act: String,
        /// What the server said.
        source: mysql::Error,
    },
    /// Another start holds the lock.
    #[error("another start holds the lock `{LOCK}` on the database")]
    Locked,
    /// The image's own files, or what the database holds, do not fit.
    #[error("{0}")]
    Unfit(String),
}

impl DatabaseError {
    /// The server's error number, if it said something.
    pub fn number(&self) -> Option<u16> {
        match self {
            Self::Refused { source: mysql::Error::MySqlError(error), .. } => Some(error.code),
            _ => None,
        }
    }

    fn may_pass(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Locked)
    }
}

impl From<DatabaseError> for Failure {
    fn from(error: DatabaseError) -> Self {
        let code = if error.may_pass() { Code::Database } else { Code::Configuration };
        let hint = match error {
            DatabaseError::Refused { .. } => {
                "Mend what the server objects to (the rights of MYSQL_USER, most often) and start again: nothing was \
                 dropped, and what was begun is finished then."
            }
            _ => "Nothing was dropped; start again once this is mended.",
        };
        Self::new(code, format!("the database: {error}."), hint)
    }
}

/// Whether a schema is there. The third answer, unknown, is [`DatabaseError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// The server says that there is no schema of this name.
    Absent,
    /// It is there, with so many tables.
    Exists {
        /// How many tables (and views) it holds.
        tables: u64,
    },
}

/// A server and an account there.
#[derive(Clone, Debug)]
pub struct Server {
    account: Account,
    answer_within: Duration,
}

impl Server {
    /// The administrator's account; statements may take 30 s.
    pub fn of(account: &Account) -> Self {
        Self { account: account.clone(), answer_within: Duration::from_secs(30) }
    }

    /// The same with a shorter patience for each answer: for health checks.
    pub fn answering_within(mut self, limit: Duration) -> Self {
        self.answer_within = limit;
        self
    }

    /// `HOST:PORT`
    pub fn place(&self) -> String {
        format!("{}:{}", self.account.host, self.account.port)
    }

    /// A session, in `schema` if one is named.
    pub fn connect(&self, schema: Option<&str>) -> Result<Session, DatabaseError> {
        let options = OptsBuilder::new()
            .ip_or_hostname(Some(self.account.host.clone()))
            .tcp_port(self.account.port)
            .user(Some(self.account.user.clone()))
            .pass(Some(self.account.password.clone()))
            .db_name(schema)
            .prefer_socket(false)
            .tcp_connect_timeout(Some(self.answer_within.min(Duration::from_secs(3))))
            .read_timeout(Some(self.answer_within))
            .write_timeout(Some(self.answer_within))
            .init(vec!["SET NAMES utf8"]);
        // Denied is waited for as well: a server that initialises itself grants its accounts last.
        let connection = Conn::new(options).map_err(|error| DatabaseError::Unreachable(reason(&error)))?;
        Ok(Session { connection })
    }
}

/// An open connection.
pub struct Session {
    connection: Conn,
}

impl Session {
    /// Sends a statement whose answer does not matter; `act` says what it is for.
    pub fn run(&mut self, act: &str, statement: &str) -> Result<(), DatabaseError> {
        self.connection.query_drop(statement).map_err(|error| classified(act, error))
    }

    /// Sends a statement with values apart.
    pub fn run_with(
        &mut self,
        act: &str,
        statement: &str,
        values: impl Into<Params>,
    ) -> Result<(), DatabaseError> {
        self.connection.exec_drop(statement, values).map_err(|error| classified(act, error))
    }

    /// The rows that a query answers.
    pub fn rows<T: FromRow>(
        &mut self,
        act: &str,
        query: &str,
        values: impl Into<Params>,
    ) -> Result<Vec<T>, DatabaseError> {
        self.connection.exec(query, values).map_err(|error| classified(act, error))
    }

    /// A number that a query answers; a query without an answer is an error.
    pub fn number(
        &mut self,
        act: &str,
        query: &str,
        values: impl Into<Params>,
    ) -> Result<u64, DatabaseError> {
        let rows: Vec<u64> = self.rows(act, query, values)?;
        rows.first().copied().ok_or_else(|| DatabaseError::Unreachable(format!("{act}: no answer")))
    }

    /// Whether a schema is there, and with how many tables.
    pub fn presence(&mut self, schema: &str) -> Result<Presence, DatabaseError> {
        let act = format!("asking for the schema {schema}");
        let schemas = "SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = ?";
        if self.number(&act, schemas, (schema,))? == 0 {
            return Ok(Presence::Absent);
        }
        let tables = "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = ?";
        Ok(Presence::Exists { tables: self.number(&act, tables, (schema,))? })
    }

    /// The names of a schema's tables.
    pub fn tables(&mut self, schema: &str) -> Result<BTreeSet<String>, DatabaseError> {
        let query = "SELECT table_name FROM information_schema.tables WHERE table_schema = ?";
        let names: Vec<String> = self.rows(&format!("listing the tables of {schema}"), query, (schema,))?;
        Ok(names.into_iter().collect())
    }

    /// What the server calls itself, such as `10.11.6-MariaDB`.
    pub fn version(&mut self) -> Result<String, DatabaseError> {
        let rows: Vec<String> = self.rows("asking for the version", "SELECT VERSION()", ())?;
        rows.into_iter().next().ok_or_else(|| DatabaseError::Unreachable("the version: no answer".to_owned()))
    }

    /// Takes the lock for as long as this session lives; an error if another start holds it for ten seconds.
    pub fn lock(&mut self) -> Result<(), DatabaseError> {
        // Where our end vanishes without a word, the server lets go after five minutes rather than eight hours.
        self.run("taking the lock", "SET SESSION wait_timeout = 300")?;
        let rows: Vec<Option<u64>> = self.rows("taking the lock", "SELECT GET_LOCK(?, 10)", (LOCK,))?;
        match rows.first() {
            Some(Some(1)) => Ok(()),
            _ => Err(DatabaseError::Locked),
        }
    }
}

/// Does `work` again and again while the database cannot be reached, at most for `patience`; then exit code 69.
/// What the server says to it otherwise is final.
pub fn patiently<T>(
    story: &Story,
    stop: &Stop,
    patience: Duration,
    place: &str,
    mut work: impl FnMut() -> Result<T, DatabaseError>,
) -> Result<T, Failure> {
    let begun = Instant::now();
    let mut said = None;
    loop {
        let error = match stop.may_exit_during(&mut work) {
            Ok(done) => return Ok(done),
            Err(error) if error.may_pass() => error,
            Err(error) => return Err(error.into()),
        };
        let waited = begun.elapsed();
        if waited >= patience {
            return Err(Failure::new(
                Code::Database,
                format!("the database at {place} did not answer within {} s: {error}.", patience.as_secs()),
                "A database that cannot be asked is never taken for an empty one. Check MYSQL_HOST, MYSQL_PORT, the account \
                 and the network; TARSUP_DATABASE_TIMEOUT sets how long to wait (seconds).",
            ));
        }
        if said.is_none_or(|at: Instant| at.elapsed() >= Duration::from_secs(10)) {
            story.say(format!(
                "waiting for the database at {place} ({} of {} s): {error}",
                waited.as_secs(),
                patience.as_secs()
            ));
            said = Some(Instant::now());
        }
        stop.nap(Duration::from_millis(250).min(patience.saturating_sub(waited)));
    }
}

fn classified(act: &str, error: mysql::Error) -> DatabaseError {
    match &error {
        mysql::Error::MySqlError(said) if !is_going_away(said.code) => {
            DatabaseError::Refused { act: act.to_owned(), source: error }
        }
        _ => DatabaseError::Unreachable(format!("{act}: {}", reason(&error))),
    }
}

/// Shutting down, connection killed, network trouble inside the server.
fn is_going_away(number: u16) -> bool {
    matches!(number, 1040 | 1053 | 1152..=1161 | 1184 | 1927)
}

fn reason(error: &mysql::Error) -> String {
    match error {
        mysql::Error::IoError(error) => error.to_string(),
        mysql::Error::MySqlError(error) => error.to_string(),
        mysql::Error::DriverError(mysql::DriverError::CouldNotConnect(Some((_, text, _)))) => text.clone(),
        mysql::Error::DriverError(error) => error.to_string(),
        other => other.to_string(),
    }
}
