//! The account that the services use: `tarsAdmin` at `%`, `localhost` and the master's address.

use super::database::{DatabaseError, Server, Session};
use super::environment::Account;
use super::sql::quote;
use super::start_log::StartLog;

/// The services' user; upstream's name for it.
pub const USER: &str = "tarsAdmin";
/// Its password; upstream's, known to everybody: the database must not be reachable from outside.
pub const PASSWORD: &str = "Tars@2019";

/// What upstream grants to it.
const RIGHTS: &str = "SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, RELOAD, PROCESS, REFERENCES, INDEX, ALTER, \
     CREATE TEMPORARY TABLES, LOCK TABLES, EXECUTE, REPLICATION SLAVE, REPLICATION CLIENT, CREATE VIEW, SHOW VIEW, \
     CREATE USER";

/// Which words a server wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    /// MySQL up to 5.6: `GRANT` makes the account. So does MariaDB before 10.1.3.
    GrantOnly,
    /// MySQL 5.7 and MariaDB.
    CreateUser,
    /// MySQL 8 and later: the services' client wants the old way to prove a password.
    NativePassword,
}

impl Dialect {
    fn of(version: &str) -> Self {
        // MariaDB behind an old protocol calls itself 5.5.5-10.11.6-MariaDB.
        let plain = if version.contains("MariaDB") { version.trim_start_matches("5.5.5-") } else { version };
        let mut numbers = plain.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
        let number: (u32, u32, u32) =
            (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        match (version.contains("MariaDB"), number) {
            (true, number) if number >= (10, 1, 3) => Self::CreateUser,
            (false, number) if number >= (8, 0, 0) => Self::NativePassword,
            (false, number) if number >= (5, 7, 6) => Self::CreateUser,
            _ => Self::GrantOnly,
        }
    }

    /// Makes the account where it is missing; the first way that the server takes counts.
    fn creations(self, who: &str) -> Vec<String> {
        let by = quote(PASSWORD);
        let plain = format!("CREATE USER IF NOT EXISTS {who} IDENTIFIED BY {by}");
        match self {
            Self::GrantOnly => Vec::new(),
            Self::CreateUser => vec![plain],
            Self::NativePassword => {
                let native = "IDENTIFIED WITH mysql_native_password BY";
                vec![format!("CREATE USER IF NOT EXISTS {who} {native} {by}"), plain]
            }
        }
    }

    fn grant(self, who: &str) -> String {
        let by = if self == Self::GrantOnly {
            format!(" IDENTIFIED BY {}", quote(PASSWORD))
        } else {
            String::new()
        };
        format!("GRANT {RIGHTS} ON *.* TO {who}{by} WITH GRANT OPTION")
    }
}

/// Makes the account where it is missing, and proves that it can log in from here. The hosts at which it was missing.
pub fn ensure(
    admin: &Account,
    session: &mut Session,
    address: Option<&str>,
    log: &StartLog,
) -> Result<Vec<String>, DatabaseError> {
    let dialect = Dialect::of(&session.version()?);
    let mut made = Vec::new();
    for host in ["%", "localhost"].into_iter().chain(address) {
        // One that has rights stays as an administrator has it; upstream grants everything anew at every start.
        match is_made(session, host) {
            Ok(true) => continue,
            Err(error) if error.may_pass() => return Err(error),
            // An account that may not look into `mysql` does not see it.
            Ok(false) | Err(_) => {}
        }
        let who = format!("{}@{}", quote(USER), quote(host));
        match make(session, dialect, &who) {
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
    let services = Account { user: USER.to_owned(), password: PASSWORD.to_owned(), ..admin.clone() };
    match Server::of(&services).connect(None) {
        Ok(_) => Ok(()),
        Err(DatabaseError::Unreachable(reason)) if reason.starts_with("ERROR 1045") => {
            Err(DatabaseError::Unfit(format!(
                "the account {USER} of the services cannot log in ({reason}); all of TARS's configuration expects its \
                 usual password"
            )))
        }
        Err(error) => Err(error),
    }
}

/// True where the account is there and may do something: one that was made and not yet granted anything is not.
fn is_made(session: &mut Session, host: &str) -> Result<bool, DatabaseError> {
    let query = "SELECT COUNT(*) FROM mysql.user u WHERE u.user = ? AND u.host = ? AND (u.select_priv = 'Y' OR EXISTS \
                 (SELECT 1 FROM mysql.db d WHERE d.user = u.user AND d.host = u.host))";
    Ok(session.number("looking for the account of the services", query, (USER, host))? > 0)
}

fn make(session: &mut Session, dialect: Dialect, who: &str) -> Result<(), DatabaseError> {
    let act = "making the account of the services";
    let mut made = Ok(());
    for creation in dialect.creations(who) {
        made = session.run(act, &creation);
        if made.is_ok() {
            break;
        }
    }
    made?;
    session.run(act, &dialect.grant(who))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dialect_follows_the_server() {
        for (version, dialect) in [
            ("5.6.51", Dialect::GrantOnly),
            ("5.7.44-log", Dialect::CreateUser),
            ("8.0.36", Dialect::NativePassword),
            ("8.4.0", Dialect::NativePassword),
            ("9.1.0", Dialect::NativePassword),
            ("10.11.6-MariaDB-0+deb12u1", Dialect::CreateUser),
            ("5.5.5-10.6.12-MariaDB", Dialect::CreateUser),
            ("5.5.68-MariaDB", Dialect::GrantOnly),
            ("11.4.2-MariaDB", Dialect::CreateUser),
        ] {
            assert_eq!(Dialect::of(version), dialect, "{version}");
        }
    }

    #[test]
    fn words_fit_the_dialect() {
        let who = "'tarsAdmin'@'%'";
        assert!(Dialect::GrantOnly.creations(who).is_empty());
        assert!(Dialect::GrantOnly.grant(who).contains("IDENTIFIED BY 'Tars@2019' WITH GRANT OPTION"));
        assert!(!Dialect::CreateUser.grant(who).contains("IDENTIFIED"));
        let creations = Dialect::NativePassword.creations(who);
        assert!(creations[0].contains("mysql_native_password") && !creations[1].contains("native"));
    }
}
