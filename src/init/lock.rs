//! Two locks on the database server: one says that a start prepares the database, the other that a statement is at work.
//!
//! The second outlives its client: a server goes on with an `ALTER` whose client was killed, and keeps that session, its
//! lock with it, to the statement's end. So the next start can know of such work, and wait for it instead of repeating it.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use super::database::{DatabaseError, INSTALL_LOCK, Server, Session};

/// Held by each session that changes a schema or rows.
const WORK: &str = "tarsup.work";
/// Where our end vanishes without a word, the server lets go of a silent session after so many seconds, not eight hours.
const LET_GO_AFTER: u32 = 300;
/// How often the lock's session says something meanwhile, however long a statement of another session takes.
const SAY_EVERY: Duration = Duration::from_mins(1);

/// The first of the two, for as long as this value lives.
pub struct InstallLock {
    /// Gone with this value, which ends the thread that keeps the session alive, and the session with it.
    _keeper: Sender<()>,
}

impl InstallLock {
    /// Takes it; an error that may pass if another start holds it for ten seconds.
    pub fn take(server: &Server) -> Result<Self, DatabaseError> {
        let mut session = server.connect(None)?;
        session.run("taking the lock", &format!("SET SESSION wait_timeout = {LET_GO_AFTER}"))?;
        if !get(&mut session, INSTALL_LOCK, 10)? {
            return Err(DatabaseError::Locked);
        }
        let (keeper, ended) = mpsc::channel::<()>();
        thread::spawn(move || {
            while ended.recv_timeout(SAY_EVERY) == Err(RecvTimeoutError::Timeout) {
                if session.run("keeping the lock", "DO 0").is_err() {
                    return;
                }
            }
        });
        Ok(Self { _keeper: keeper })
    }
}

/// A session in which statements of the image's files are sent: strings read as they were judged, and the second lock for
/// as long as it lives. While an earlier start's statement runs it is an error that may pass: it is asked for again and
/// again, as long as the database is waited for at all.
pub fn connect_to_work(server: &Server, schema: &str) -> Result<Session, DatabaseError> {
    if server.only_asks() {
        // Nothing will be sent, and the schema need not be there yet.
        return server.connect(None);
    }
    let mut session = server.connect(Some(schema))?;
    if !get(&mut session, WORK, 1)? {
        let holder = holder(&mut session).unwrap_or_else(|_| "which one cannot be seen".to_owned());
        return Err(DatabaseError::AtWork(holder));
    }
    session.read_strings_as_judged()?;
    Ok(session)
}

fn get(session: &mut Session, name: &'static str, seconds: u32) -> Result<bool, DatabaseError> {
    let rows: Vec<Option<u64>> = session.rows("taking the lock", "SELECT GET_LOCK(?, ?)", (name, seconds))?;
    Ok(rows.first() == Some(&Some(1)))
}

/// What is at work, as far as this account may see it.
fn holder(session: &mut Session) -> Result<String, DatabaseError> {
    let query = "SELECT id, time, COALESCE(state, ''), COALESCE(info, '') FROM information_schema.processlist \
                 WHERE id = IS_USED_LOCK(?)";
    let rows: Vec<(u64, i64, String, String)> = session.rows("asking what is at work", query, (WORK,))?;
    Ok(rows.first().map_or_else(
        || "it has just ended, or this account may not see it".to_owned(),
        |(id, seconds, state, statement)| {
            // The first words: an insert's values are nobody's business here.
            let words: Vec<_> = statement.split_whitespace().take(3).collect();
            format!("connection {id}, `{}`, for {seconds} s, {state}", words.join(" "))
        },
    ))
}
