//! The database server: reaching it with patience, and the probe whose three answers are absent, exists and unknown.
//!
//! A database that cannot be asked is never read as empty: every failure here is an error, never a "no". A statement may
//! take its time; what ends the waiting is a server that is silent, asked on another connection (`statement_watch.rs`).

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use mysql::prelude::{FromRow, Queryable};
use mysql::{Conn, OptsBuilder, Params, Row};

use super::environment::Account;
use super::failure::{Code, Failure};
use super::server_words::{self, Meaning};
use super::signals::Stop;
use super::start_log::StartLog;
use super::statement_watch::{self, StatementWatch, WaitPurpose, WatchedServer};
use super::tls::Tls;

/// The schema of a deployment's framework: without it a slave has nothing to join.
pub const DB_TARS: &str = "db_tars";
/// Held while schemas, templates and rows are written, so that two starts exclude each other.
pub const INSTALL_LOCK: &str = "tarsup.install";
/// How often a server that refuses the account is asked again: some lock an account that knocks too often.
const DENIED_PAUSE: Duration = Duration::from_secs(2);
/// No server that lives is silent for longer.
const SILENCE: Duration = Duration::from_secs(30);

/// How long a statement waits for what another connection holds, in seconds. Whoever wants the same table meanwhile, the whole
/// framework, waits behind it; a server's own limit is a day.
const LOCK_WAIT: u64 = 10;

/// Of one that is not to be asked how large a packet it takes: what servers take at least.
const LARGEST_ANSWER: usize = 1024 * 1024;

/// Why the database did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// Nothing that the server said: it cannot be reached or asked just now. Waiting may help.
    #[error("{0}")]
    Unreachable(String),
    /// The server does not let the account in. Waiting may help: one that initialises itself grants its accounts last.
    #[error("{0}")]
    Denied(String),
    /// The server refused a statement.
    #[error("{act}: {}", server_words::reason(source))]
    Refused {
        /// What was being done.
        act: String,
        /// What the server said.
        source: mysql::Error,
    },
    /// Another start holds the lock.
    #[error("another start holds the lock `{}` on the database", INSTALL_LOCK)]
    Locked,
    /// A statement of an earlier start goes on in the server: it is waited for, never repeated.
    #[error("the server is still at work on a statement of an earlier start, which is waited for ({0})")]
    AtWork(String),
    /// Another connection holds what a statement needs, such as a table in an open transaction.
    #[error("{0}")]
    Busy(String),
    /// What would be changed is kept by nobody: nothing was changed.
    #[error("{0}")]
    NotSaved(String),
    /// The image's own files, or what the database holds, do not fit.
    #[error("{0}")]
    Unfit(String),
}

impl DatabaseError {
    /// The server's error number, if it said something.
    pub fn number(&self) -> Option<u16> {
        match self {
            Self::Refused { source, .. } => server_words::number(source),
            _ => None,
        }
    }

    /// True where waiting may help: nothing that the server has decided for good.
    pub const fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Unreachable(_) | Self::Denied(_) | Self::Locked | Self::AtWork(_) | Self::Busy(_)
        )
    }

    /// True where the account lacks a right.
    pub fn is_no_right(&self) -> bool {
        // A `GRANT` of what one has not is refused in the words of a log-in.
        self.number().is_some_and(|number| matches!(Meaning::of(number), Meaning::NoRight | Meaning::Denied))
    }

    fn hint(&self) -> &'static str {
        match self {
            Self::NotSaved(_) => "Nothing was changed.",
            Self::Busy(_) => BUSY_HINT,
            Self::Refused { .. } if self.is_no_right() => {
                "Grant MYSQL_USER this right, or name an account that has it, and start again: nothing was dropped, and what was \
                 begun is finished then."
            }
            Self::Refused { .. } => {
                "Mend what the server objects to and start again: nothing was dropped, and what was begun is finished then."
            }
            _ => "Nothing was dropped; start again once this is mended.",
        }
    }
}

impl From<DatabaseError> for Failure {
    fn from(error: DatabaseError) -> Self {
        let code = match error {
            DatabaseError::NotSaved(_) | DatabaseError::Busy(_) => Code::Interrupted,
            _ if error.may_pass() => Code::Database,
            _ => Code::Configuration,
        };
        let hint = error.hint();
        Self::new(code, format!("the database: {error}."), hint)
    }
}

const BUSY_HINT: &str =
    "End that connection or its transaction and start again: what was begun is finished then.";

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
    answers: Answers,
    log: Option<StartLog>,
    /// See [`Server::asking_only`].
    only_asks: bool,
    /// Milliseconds that the server was seen at work on a statement of ours: no time of waiting for it.
    at_work: Arc<AtomicU64>,
    /// Whether an account that is refused is let in over TLS: tried once, as some servers count what they refuse.
    only_over_tls: Arc<OnceLock<bool>>,
}

/// How long an answer may take.
#[derive(Clone, Copy, Debug)]
enum Answers {
    /// As long as the server gives signs of life, silent for at most so long.
    Watched(Duration),
    /// At most so long, whatever the server is doing.
    Within(Duration),
}

impl Server {
    /// The administrator's account; a statement may take as long as the server is seen at work.
    pub fn of(account: &Account) -> Self {
        Self {
            account: account.clone(),
            answers: Answers::Watched(SILENCE),
            log: None,
            only_asks: false,
            at_work: Arc::default(),
            only_over_tls: Arc::default(),
        }
    }

    /// The same for a start or a migration: says what takes long, and takes a server for lost that is silent for
    /// `patience` (or half a minute, where that is shorter).
    pub fn for_work(mut self, patience: Duration, log: &StartLog) -> Self {
        self.answers = Answers::Watched(patience.clamp(Duration::from_secs(1), SILENCE));
        self.log = Some(log.clone());
        self
    }

    /// The same with a limit for each answer, whatever the server is doing: for health checks.
    pub fn answering_within(mut self, limit: Duration) -> Self {
        self.answers = Answers::Within(limit);
        self
    }

    /// The same for who only wants to know what would be done: no statement of its sessions is sent but questions.
    pub fn asking_only(mut self) -> Self {
        self.only_asks = true;
        self
    }

    /// True where what its sessions [`Session::run`] is not sent, so that nothing of it is to be found afterwards.
    pub fn only_asks(&self) -> bool {
        self.only_asks
    }

    /// `HOST:PORT`
    pub fn place(&self) -> String {
        format!("{}:{}", self.account.host, self.account.port)
    }

    /// A session, in `schema` if one is named.
    pub fn connect(&self, schema: Option<&str>) -> Result<Session, DatabaseError> {
        let options = self.options(schema);
        let connection = match self.answers {
            Answers::Within(_) => Conn::new(options),
            // Only the answers to statements may take their time; a greeting that does not come is silence.
            Answers::Watched(silence) => statement_watch::greeting(self, silence, || Conn::new(options))
                .map_err(DatabaseError::Unreachable)?,
        };
        let connection = connection.map_err(|error| self.refusal(&error))?;
        Ok(Session { server: self.clone(), connection: Some(connection) })
    }

    fn refusal(&self, error: &mysql::Error) -> DatabaseError {
        let Account { user, tls, .. } = &self.account;
        match server_words::number(error).map(Meaning::of) {
            // MariaDB refuses an account without TLS in the same words as one with a wrong password.
            Some(Meaning::Denied) if *tls == Tls::Off && self.is_let_in_over_tls() => {
                DatabaseError::Denied(server_words::only_over_tls(user))
            }
            Some(Meaning::Denied | Meaning::NoRight | Meaning::WantsTls) => {
                DatabaseError::Denied(server_words::of_connection(error, user))
            }
            _ => DatabaseError::Unreachable(server_words::of_connection(error, user)),
        }
    }

    fn is_let_in_over_tls(&self) -> bool {
        matches!(self.answers, Answers::Watched(_))
            && *self.only_over_tls.get_or_init(|| {
                let mut asking = self.clone().answering_within(Duration::from_secs(3));
                asking.account.tls = Tls::Encrypted;
                Conn::new(asking.options(None)).is_ok()
            })
    }

    fn options(&self, schema: Option<&str>) -> OptsBuilder {
        let mut begin = vec!["SET NAMES utf8".to_owned()];
        // What a health check asks is short: the server is not asked how long it may be.
        let packet = matches!(self.answers, Answers::Within(_)).then_some(LARGEST_ANSWER);
        let (read, silence) = match self.answers {
            Answers::Watched(silence) => {
                begin.push(format!("SET SESSION lock_wait_timeout = {LOCK_WAIT}"));
                (None, silence)
            }
            Answers::Within(limit) => (Some(limit), limit),
        };
        OptsBuilder::new()
            .ip_or_hostname(Some(self.account.host.clone()))
            .tcp_port(self.account.port)
            .user(Some(self.account.user.clone()))
            .pass(Some(self.account.password.clone()))
            .db_name(schema)
            .ssl_opts(self.account.tls.options())
            .prefer_socket(false)
            .tcp_connect_timeout(Some(silence.min(Duration::from_secs(3))))
            // A connection that was given up ends by itself once its other end is gone.
            .tcp_keepalive_time_ms(Some(30_000))
            .max_allowed_packet(packet)
            .read_timeout(read)
            .write_timeout(Some(silence))
            .init(begin)
    }
}

impl WatchedServer for Server {
    fn doing(&self, connection: u32) -> Result<Option<String>, String> {
        let Answers::Watched(silence) = self.answers else { return Ok(None) };
        let asking = self.clone().answering_within((silence / 3).min(Duration::from_secs(3)));
        let mut connection_of_its_own = match Conn::new(asking.options(None)) {
            Ok(connection) => connection,
            // Too many connections, access denied: whoever says that lives.
            Err(mysql::Error::MySqlError(_)) => return Ok(None),
            Err(error) => return Err(server_words::reason(&error)),
        };
        let query = "SELECT COALESCE(state, '') FROM information_schema.processlist WHERE id = ?";
        match connection_of_its_own.exec_first::<String, _, _>(query, (connection,)) {
            // A proxy counts its connections in another way, so one that is not there says nothing.
            Ok(state) => Ok(state),
            Err(mysql::Error::MySqlError(_)) => Ok(None),
            Err(error) => Err(server_words::reason(&error)),
        }
    }

    fn was_at_work(&self, meanwhile: Duration) {
        let millis = u64::try_from(meanwhile.as_millis()).unwrap_or(u64::MAX);
        self.at_work.fetch_add(millis, Ordering::SeqCst);
    }

    fn say(&self, text: &str) {
        if let Some(log) = &self.log {
            log.say(text);
        }
    }
}

/// An open connection.
pub struct Session {
    server: Server,
    /// `None` once it was given up.
    connection: Option<Conn>,
}

impl Session {
    /// Does something with the connection. It waits in a thread of its own, so that a server that has gone silent can be
    /// given up while the connection still waits for an answer.
    fn ask<T: Send + 'static>(
        &mut self,
        act: &str,
        kind: WaitPurpose,
        question: impl FnOnce(&mut Conn) -> Result<T, mysql::Error> + Send + 'static,
    ) -> Result<T, DatabaseError> {
        let mut connection = self
            .connection
            .take()
            .ok_or_else(|| DatabaseError::Unreachable(format!("{act}: the connection was given up")))?;
        let (connection, answer) = match self.server.answers {
            Answers::Within(_) => {
                let answer = question(&mut connection);
                (connection, answer)
            }
            Answers::Watched(silence) => {
                let watch =
                    StatementWatch::begin(&self.server, connection.connection_id(), act, kind, silence);
                let done = watch.until_done(move || {
                    let answer = question(&mut connection);
                    (connection, answer)
                });
                done.map_err(|why| DatabaseError::Unreachable(format!("{act}: {why}")))?
            }
        };
        self.connection = Some(connection);
        answer.map_err(|error| classified(act, error))
    }

    /// True where nothing but questions is sent.
    pub fn only_asks(&self) -> bool {
        self.server.only_asks
    }

    /// Sends a statement whose answer does not matter; `act` says what it is for.
    pub fn run(&mut self, act: &str, statement: &str) -> Result<(), DatabaseError> {
        if self.server.only_asks {
            return Ok(());
        }
        let statement = statement.to_owned();
        let done = self.ask(act, WaitPurpose::Work, move |connection| connection.query_drop(statement));
        done.map_err(|error| self.with_holder(error))
    }

    /// Sends a statement with values apart.
    pub fn run_with(
        &mut self,
        act: &str,
        statement: &str,
        values: impl Into<Params>,
    ) -> Result<(), DatabaseError> {
        if self.server.only_asks {
            return Ok(());
        }
        let (statement, values) = (statement.to_owned(), values.into());
        let done =
            self.ask(act, WaitPurpose::Work, move |connection| connection.exec_drop(statement, values));
        done.map_err(|error| self.with_holder(error))
    }

    /// Names who holds what a statement waited for in vain.
    fn with_holder(&mut self, error: DatabaseError) -> DatabaseError {
        let DatabaseError::Busy(act) = error else { return error };
        let holder =
            self.oldest_transaction().unwrap_or_else(|_| "this account may not see whose".to_owned());
        DatabaseError::Busy(format!("{act}: another connection holds what it needs: {holder}"))
    }

    /// A table is held by whoever has used it in a transaction that is still open.
    fn oldest_transaction(&mut self) -> Result<String, DatabaseError> {
        let query = "SELECT p.id, p.user, p.host, COALESCE(p.db, ''), TIMESTAMPDIFF(SECOND, t.trx_started, NOW()), p.command, \
                     COALESCE(p.info, '') FROM information_schema.innodb_trx t JOIN information_schema.processlist p \
                     ON p.id = t.trx_mysql_thread_id WHERE p.id <> CONNECTION_ID() ORDER BY t.trx_started LIMIT 1";
        let rows: Vec<(u64, String, String, String, i64, String, String)> =
            self.rows("asking who holds it", query, ())?;
        Ok(rows.first().map_or_else(
            || "no open transaction is to be seen, so LOCK TABLES or a backup may be it".to_owned(),
            |(id, user, host, schema, seconds, command, statement)| {
                // The first words: values are nobody's business here.
                let words: Vec<_> = statement.split_whitespace().take(3).collect();
                let doing = if words.is_empty() { command.clone() } else { format!("`{}`", words.join(" ")) };
                format!(
                    "the oldest open transaction is that of connection {id} ({user} at {host}, in `{schema}`), {seconds} s old, \
                     at {doing}"
                )
            },
        ))
    }

    /// The rows that a query answers.
    pub fn rows<T: FromRow + Send + 'static>(
        &mut self,
        act: &str,
        query: &str,
        values: impl Into<Params>,
    ) -> Result<Vec<T>, DatabaseError> {
        let (query, values) = (query.to_owned(), values.into());
        // One packet for three, for who asks every two seconds.
        let at_once = matches!((self.server.answers, &values), (Answers::Within(_), Params::Empty));
        self.ask(act, WaitPurpose::Question, move |connection| {
            if at_once { connection.query(query) } else { connection.exec(query, values) }
        })
    }

    /// Hands each row that a query answers on as it comes, so that a large table is never held whole; an error of `sink` ends
    /// that, and is the inner one.
    pub fn each_row(
        &mut self,
        act: &str,
        query: String,
        mut sink: impl FnMut(Row) -> io::Result<()> + Send + 'static,
    ) -> Result<io::Result<()>, DatabaseError> {
        self.ask(act, WaitPurpose::Work, move |connection| {
            for row in connection.query_iter(query)? {
                if let Err(error) = sink(row?) {
                    return Ok(Err(error));
                }
            }
            Ok(Ok(()))
        })
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

    /// Takes away the modes in which a server would read quotes and backslashes in another way than `sql` did.
    pub fn read_strings_as_judged(&mut self) -> Result<(), DatabaseError> {
        let act = "setting how strings are read";
        let rows: Vec<String> = self.rows(act, "SELECT @@SESSION.sql_mode", ())?;
        let modes = rows.first().map(String::as_str).unwrap_or_default();
        // A mode such as ANSI or ORACLE is several, and brings its others back.
        let other =
            ["NO_BACKSLASH_ESCAPES", "ANSI_QUOTES", "ANSI", "DB2", "MAXDB", "MSSQL", "ORACLE", "POSTGRESQL"];
        if !modes.split(',').any(|mode| other.contains(&mode)) {
            return Ok(());
        }
        let kept: Vec<_> = modes.split(',').filter(|mode| !other.contains(mode)).collect();
        self.run_with(act, "SET SESSION sql_mode = ?", (kept.join(","),))
    }
}

/// Does `work` again and again while the database cannot be reached, at most for `patience` without the time that the
/// server was at work; then exit code 69. What the server says to it otherwise is final.
pub fn retry_until_ready<T>(
    log: &StartLog,
    stop: &Stop,
    patience: Duration,
    server: &Server,
    mut work: impl FnMut() -> Result<T, DatabaseError>,
) -> Result<T, Failure> {
    let (begun, place) = (Instant::now(), server.place());
    let mut said = None;
    loop {
        let error = match stop.may_exit_during(&mut work) {
            Ok(done) => return Ok(done),
            Err(error) if error.may_pass() => error,
            Err(error) => return Err(error.into()),
        };
        let at_work = Duration::from_millis(server.at_work.load(Ordering::SeqCst));
        let waited = begun.elapsed().saturating_sub(at_work);
        if waited >= patience {
            if matches!(error, DatabaseError::Busy(_)) {
                let why = format!("the database at {place} was busy for {} s: {error}.", patience.as_secs());
                return Err(Failure::new(Code::Interrupted, why, BUSY_HINT));
            }
            return Err(Failure::new(
                Code::Database,
                format!("the database at {place} was not ready within {} s: {error}.", patience.as_secs()),
                "A database that cannot be asked is never taken for an empty one. Check MYSQL_HOST, MYSQL_PORT, the account \
                 and the network; TARSUP_DATABASE_TIMEOUT sets how long to wait (seconds).",
            ));
        }
        if said.is_none_or(|at: Instant| at.elapsed() >= Duration::from_secs(10)) {
            log.say(format!(
                "waiting for the database at {place} ({} of {} s): {error}",
                waited.as_secs(),
                patience.as_secs()
            ));
            said = Some(Instant::now());
        }
        let is_denied = matches!(error, DatabaseError::Denied(_));
        let pause = if is_denied { DENIED_PAUSE } else { Duration::from_millis(250) };
        stop.sleep(pause.min(patience.saturating_sub(waited)));
    }
}

fn classified(act: &str, error: mysql::Error) -> DatabaseError {
    if server_words::number(&error) == Some(server_words::LOCK_WAIT_TIMEOUT) {
        return DatabaseError::Busy(act.to_owned());
    }
    match server_words::number(&error).map(Meaning::of) {
        Some(Meaning::Passes) | None => {
            DatabaseError::Unreachable(format!("{act}: {}", server_words::reason(&error)))
        }
        Some(_) => DatabaseError::Refused { act: act.to_owned(), source: error },
    }
}
