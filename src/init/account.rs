//! The account that the services use: `tarsAdmin` at `%`, `localhost` and the master's address.

use std::time::Duration;

use super::database::{DatabaseError, Server, Session};
use super::environment::{Account, USUAL_PASSWORD};
use super::sql::quote;
use super::start_log::StartLog;
use super::tls::Tls;

/// The services' user; upstream's name for it.
pub const USER: &str = "tarsAdmin";
/// Number of the error that says: the account is there already, or may not be made.
const CANNOT_MAKE: u16 = 1396;

/// What upstream grants to it.
const RIGHTS: &str = "SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, RELOAD, PROCESS, REFERENCES, INDEX, ALTER, \
     CREATE TEMPORARY TABLES, LOCK TABLES, EXECUTE, REPLICATION SLAVE, REPLICATION CLIENT, CREATE VIEW, SHOW VIEW, \
     CREATE USER";
/// What it needs at least, where an administrator may not grant all of that: everything in these schemas.
const SCHEMAS: [&str; 7] =
    ["db_tars", "tars_stat", "tars_property", "db_tars_web", "db_user_system", "db_cache_web", "db_base"];

/// Which words a server wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    /// MySQL up to 5.7.5 and MariaDB before 10.1.3: no `IF NOT EXISTS`, and passwords of before 4.1 where the server is
    /// set so.
    Old,
    /// MariaDB: its usual way to prove a password is the one that the services know.
    MariaDb,
    /// MySQL 5.7.6 and later: the way that the services know must be named, as the server may have another for its usual.
    MySql,
}

impl Dialect {
    fn of(version: &str) -> Self {
        // MariaDB behind an old protocol calls itself 5.5.5-10.11.6-MariaDB.
        let plain = if version.contains("MariaDB") { version.trim_start_matches("5.5.5-") } else { version };
        let mut numbers = plain.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
        let number: (u32, u32, u32) =
            (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        match (version.contains("MariaDB"), number) {
            (true, number) if number >= (10, 1, 3) => Self::MariaDb,
            (false, number) if number >= (5, 7, 6) => Self::MySql,
            _ => Self::Old,
        }
    }

    /// What is set before, where a server may be set to hash passwords as before 4.1.
    fn settings(self) -> &'static [&'static str] {
        match self {
            Self::Old => &["SET SESSION old_passwords = 0"],
            Self::MariaDb | Self::MySql => &[],
        }
    }

    /// Makes the account where it is missing; the first way that the server takes counts. None of them changes one that is
    /// there: `GRANT ... IDENTIFIED BY` would.
    fn creations(self, who: &str, password: &str) -> Vec<String> {
        let by = quote(password);
        let plain = format!("CREATE USER IF NOT EXISTS {who} IDENTIFIED BY {by}");
        match self {
            Self::Old => vec![format!("CREATE USER {who} IDENTIFIED BY {by}")],
            Self::MariaDb => vec![plain],
            Self::MySql => {
                let native = "IDENTIFIED WITH mysql_native_password BY";
                vec![format!("CREATE USER IF NOT EXISTS {who} {native} {by}"), plain]
            }
        }
    }
}

fn grant(who: &str) -> String {
    format!("GRANT {RIGHTS} ON *.* TO {who} WITH GRANT OPTION")
}

/// Makes the account where it is missing, and proves that it can log in from here. One that is there is never
/// altered. The hosts at which it was missing.
pub fn ensure(
    admin: &Account,
    session: &mut Session,
    address: Option<&str>,
    log: &StartLog,
) -> Result<Vec<String>, DatabaseError> {
    let dialect = Dialect::of(&session.version()?);
    // With another password than the one at hand nothing is made beside it, least of all one with the usual password.
    match is_there(session, "%") {
        Ok(true) => prove(admin)?,
        Ok(false) => {}
        Err(error) if error.may_pass() => return Err(error),
        Err(_) => match prove(admin) {
            // It cannot be seen, and it works: a grant might add to what somebody gave it.
            Ok(()) => return Ok(Vec::new()),
            Err(error) if error.may_pass() => return Err(error),
            Err(_) => {}
        },
    }
    let mut made = Vec::new();
    for host in ["%", "localhost"].into_iter().chain(address) {
        // One that has rights stays as an administrator has it; upstream grants everything anew at every start.
        match has_rights(session, host) {
            Ok(true) => continue,
            Err(error) if error.may_pass() => return Err(error),
            // An account that may not look into `mysql` does not see it.
            Ok(false) | Err(_) => {}
        }
        let who = format!("{}@{}", quote(USER), quote(host));
        match make(session, dialect, &who, &admin.services_password) {
            Ok(()) => made.push(host.to_owned()),
            Err(error) if error.may_pass() => return Err(error),
            // An administrator whose account may not grant has perhaps made the account himself.
            Err(error) => log.say(format!("the account {USER} at {host} is left as it is: {error}")),
        }
    }
    // One that would only be made cannot log in yet.
    if made.is_empty() || !session.only_asks() {
        prove(admin)?;
    }
    Ok(made)
}

/// Logs in as the services will.
pub fn prove(admin: &Account) -> Result<(), DatabaseError> {
    match services(admin).connect(None) {
        Ok(_) => Ok(()),
        Err(DatabaseError::Denied(reason)) => {
            let given = if admin.services_password == USUAL_PASSWORD {
                "the usual password: give the one that it has in TARS_ADMIN_PASSWORD"
            } else {
                "TARS_ADMIN_PASSWORD: give the one that it has, or change the account in the database"
            };
            Err(DatabaseError::Unfit(format!(
                "the account {USER} of the services cannot log in with {given}; a start never alters an account \
                 ({reason})"
            )))
        }
        Err(error) => Err(error),
    }
}

/// What an administrator should know of the account and the server, said once a start: the services work with neither
/// TLS nor another way to prove a password than the oldest, whatever tars-init itself can do.
pub fn doubts(admin: &Account, session: &mut Session) -> Result<Vec<String>, DatabaseError> {
    let mut doubts = Vec::new();
    if admin.services_password == USUAL_PASSWORD {
        doubts.push(format!(
            "the services' account {USER} has the password that everybody knows: keep the database's port inside the \
             deployment's network, or install with TARS_ADMIN_PASSWORD"
        ));
    }
    let without_tls =
        services(&Account { tls: Tls::Off, ..admin.clone() }).answering_within(Duration::from_secs(3));
    if admin.tls != Tls::Off && matches!(without_tls.connect(None), Err(DatabaseError::Denied(_))) {
        doubts.push(format!(
            "the server lets the services' account {USER} in over TLS alone, and TARS's services speak none: they will not \
             reach it"
        ));
    }
    let query = "SELECT DISTINCT plugin FROM mysql.user WHERE user = ? AND plugin NOT IN ('', 'mysql_native_password')";
    let others: Vec<String> = match session.rows("asking how the account is proven", query, (USER,)) {
        Err(error) if error.may_pass() => return Err(error),
        // Who may not read this cannot be told.
        others => others.unwrap_or_default(),
    };
    if !others.is_empty() {
        doubts.push(format!(
            "the account {USER} is proven by {}, and TARS's services know mysql_native_password alone: MySQL 8.4 has it with \
             --mysql-native-password=ON, MySQL 9 no longer",
            others.join(" and ")
        ));
    }
    Ok(doubts)
}

/// The server, as the services' account.
fn services(admin: &Account) -> Server {
    let password = admin.services_password.clone();
    Server::of(&Account { user: USER.to_owned(), password, ..admin.clone() })
}

fn is_there(session: &mut Session, host: &str) -> Result<bool, DatabaseError> {
    let query = "SELECT COUNT(*) FROM mysql.user WHERE user = ? AND host = ?";
    Ok(session.number("looking for the account of the services", query, (USER, host))? > 0)
}

/// True where the account is there and may do something: one that was made and not yet granted anything is not.
fn has_rights(session: &mut Session, host: &str) -> Result<bool, DatabaseError> {
    let query = "SELECT COUNT(*) FROM mysql.user u WHERE u.user = ? AND u.host = ? AND (u.select_priv = 'Y' OR EXISTS \
                 (SELECT 1 FROM mysql.db d WHERE d.user = u.user AND d.host = u.host))";
    Ok(session.number("looking for the account of the services", query, (USER, host))? > 0)
}

fn make(session: &mut Session, dialect: Dialect, who: &str, password: &str) -> Result<(), DatabaseError> {
    let act = "making the account of the services";
    for setting in dialect.settings() {
        match session.run(act, setting) {
            Err(error) if error.may_pass() => return Err(error),
            // A server that knows no such setting knows no such passwords.
            Ok(()) | Err(_) => {}
        }
    }
    let made = first_that_is_taken(&dialect.creations(who, password), |way| session.run(act, way));
    match made.map_err(|error| without(error, password)) {
        // Where it is there already, only the rights are missing; where it is not, the grant says so.
        Err(error) if dialect == Dialect::Old && error.number() == Some(CANNOT_MAKE) => {}
        made => made?,
    }
    match session.run(act, &grant(who)) {
        // A hosted server's administrator has not all of these rights, and cannot give them.
        Err(error) if error.is_no_right() => {
            let granted = SCHEMAS.iter().try_for_each(|schema| session.run(act, &grant_in(schema, who)));
            granted.map_err(|of_schemas| if of_schemas.may_pass() { of_schemas } else { error })
        }
        granted => granted,
    }
}

/// Goes on to the next way where a server refuses one; one that is away just now has refused nothing.
fn first_that_is_taken(
    ways: &[String],
    mut send: impl FnMut(&str) -> Result<(), DatabaseError>,
) -> Result<(), DatabaseError> {
    let mut outcome = Ok(());
    for way in ways {
        outcome = send(way);
        let is_refused = outcome.as_ref().is_err_and(|error| !error.may_pass());
        if !is_refused {
            break;
        }
    }
    outcome
}

/// The error without the password: a server that does not understand a statement repeats a part of it.
fn without(error: DatabaseError, password: &str) -> DatabaseError {
    match error {
        DatabaseError::Refused { act, source: mysql::Error::MySqlError(mut said) } => {
            said.message = said.message.replace(password, "***");
            DatabaseError::Refused { act, source: mysql::Error::MySqlError(said) }
        }
        other => other,
    }
}

fn grant_in(schema: &str, who: &str) -> String {
    format!("GRANT ALL PRIVILEGES ON `{schema}`.* TO {who}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dialect_follows_the_server() {
        for (version, dialect) in [
            ("5.6.51", Dialect::Old),
            ("5.7.44-log", Dialect::MySql),
            ("8.0.36", Dialect::MySql),
            ("8.4.0", Dialect::MySql),
            ("9.1.0", Dialect::MySql),
            ("10.11.6-MariaDB-0+deb12u1", Dialect::MariaDb),
            ("5.5.5-10.6.12-MariaDB", Dialect::MariaDb),
            ("5.5.68-MariaDB", Dialect::Old),
            ("11.4.2-MariaDB", Dialect::MariaDb),
            ("5.7.5-m15", Dialect::Old),
            ("10.1.2-MariaDB", Dialect::Old),
            ("10.1.48-MariaDB", Dialect::MariaDb),
            ("8.0.mysql_aurora.3.04.0", Dialect::MySql),
        ] {
            assert_eq!(Dialect::of(version), dialect, "{version}");
        }
    }

    #[test]
    fn words_fit_the_dialect() {
        let who = "'tarsAdmin'@'%'";
        for (dialect, creations) in [
            (Dialect::Old, vec!["CREATE USER 'tarsAdmin'@'%' IDENTIFIED BY 'it''s'"]),
            (Dialect::MariaDb, vec!["CREATE USER IF NOT EXISTS 'tarsAdmin'@'%' IDENTIFIED BY 'it''s'"]),
            (
                Dialect::MySql,
                vec![
                    "CREATE USER IF NOT EXISTS 'tarsAdmin'@'%' IDENTIFIED WITH mysql_native_password BY 'it''s'",
                    "CREATE USER IF NOT EXISTS 'tarsAdmin'@'%' IDENTIFIED BY 'it''s'",
                ],
            ),
        ] {
            assert_eq!(dialect.creations(who, "it's"), creations);
        }
        assert_eq!(Dialect::Old.settings(), ["SET SESSION old_passwords = 0"]);
        assert!(Dialect::MySql.settings().is_empty(), "MySQL 8 knows no old_passwords");
    }

    #[test]
    fn second_way_to_make_the_account_is_for_a_server_that_refuses_the_first() {
        let ways = ["first".to_owned(), "second".to_owned()];
        let sent = |answer: fn() -> DatabaseError| {
            let mut sent = 0;
            let outcome = first_that_is_taken(&ways, |way| {
                sent += 1;
                if way == "first" { Err(answer()) } else { Ok(()) }
            });
            (sent, outcome.is_ok())
        };
        assert_eq!(sent(|| DatabaseError::Unfit("no such plugin".to_owned())), (2, true));
        // The account would be proven in a way that the services do not know.
        assert_eq!(sent(|| DatabaseError::Unreachable("cut".to_owned())), (1, false));
    }

    #[test]
    fn server_that_repeats_a_statement_repeats_no_password() {
        let message = "You have an error in your SQL syntax near 'IDENTIFIED BY 'Own-2026''".to_owned();
        let source =
            mysql::Error::MySqlError(mysql::MySqlError { state: "42000".to_owned(), message, code: 1064 });
        let text =
            without(DatabaseError::Refused { act: "making".to_owned(), source }, "Own-2026").to_string();
        assert!(text.contains("near 'IDENTIFIED BY '***''") && !text.contains("Own-2026"), "{text}");
    }

    #[test]
    fn no_word_alters_an_account_that_is_there() {
        let who = "'tarsAdmin'@'%'";
        assert!(!grant(who).contains("IDENTIFIED"));
        assert_eq!(grant_in("db_tars", who), "GRANT ALL PRIVILEGES ON `db_tars`.* TO 'tarsAdmin'@'%'");
        for dialect in [Dialect::Old, Dialect::MariaDb, Dialect::MySql] {
            assert!(dialect.creations(who, "x").iter().all(|text| text.starts_with("CREATE USER ")));
        }
    }
}
