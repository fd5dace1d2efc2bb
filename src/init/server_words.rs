//! What a database server, and the way to it, say when they do not do what was asked: in sentences, never in the words of
//! a protocol's decoder. Who is named as refused is named by the server: user, host as it saw it, never a password.

use std::io;

use mysql::{DriverError, Error};

/// A statement has waited for what another connection holds, as long as it may.
pub const LOCK_WAIT_TIMEOUT: u16 = 1205;

/// What the numbers of a server's errors mean to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The account is not let in.
    Denied,
    /// The account may not do this.
    NoRight,
    /// The server wants TLS.
    WantsTls,
    /// It goes by: shutting down, connection killed, too many connections, a lock, a deadlock.
    Passes,
    /// No room on the server's disk.
    Full,
    /// A replica, or a server that was set to take no change.
    ReadOnly,
    /// Anything else.
    Other,
}

impl Meaning {
    /// Of an error number of MySQL's or MariaDB's.
    pub fn of(number: u16) -> Self {
        match number {
            // Also: an account that is locked, expired, or proven by a plugin that is not loaded.
            1045 | 1129 | 1130 | 1524 | 1698 | 1820 | 1862 | 3118 | 3955 | 4151 => Self::Denied,
            1044 | 1142 | 1143 | 1211 | 1227 | 1370 | 1410 => Self::NoRight,
            3159 => Self::WantsTls,
            1040 | 1053 | 1152..=1161 | 1184 | 1203 | LOCK_WAIT_TIMEOUT | 1213 | 1927 => Self::Passes,
            1021 | 1114 => Self::Full,
            1290 | 1836 => Self::ReadOnly,
            _ => Self::Other,
        }
    }
}

/// The server's own number, where it said something.
pub fn number(error: &Error) -> Option<u16> {
    match error {
        Error::MySqlError(said) => Some(said.code),
        _ => None,
    }
}

/// Why there is no connection.
pub fn of_connection(error: &Error, user: &str) -> String {
    match (error, number(error).map(Meaning::of)) {
        (Error::MySqlError(said), Some(Meaning::Denied)) => {
            let message = without_end(&said.message);
            format!("the server refuses the account {user}: {message}. User, password and the host must fit")
        }
        (_, Some(Meaning::WantsTls)) => only_over_tls(user),
        (Error::DriverError(DriverError::TlsNotSupported), _) => {
            "the server offers no TLS, and MYSQL_SSL or MYSQL_SSL_CA asks for it".to_owned()
        }
        _ => reason(error),
    }
}

/// Of an account that is refused without TLS.
pub fn only_over_tls(user: &str) -> String {
    format!(
        "the server lets the account {user} in over TLS alone: name its CA's certificate in MYSQL_SSL_CA, or set \
         MYSQL_SSL=required"
    )
}

/// Why a statement was not carried out.
pub fn reason(error: &Error) -> String {
    match error {
        Error::MySqlError(said) => {
            let message = without_end(&said.message);
            match Meaning::of(said.code) {
                Meaning::NoRight | Meaning::Denied => format!("the account may not do this: {message}"),
                Meaning::Full => format!("the database server has no room left on its disk: {message}"),
                Meaning::ReadOnly => format!("the server takes no change, as a replica does: {message}"),
                _ => format!("the server says: {message} (error {})", said.code),
            }
        }
        Error::IoError(error) => of_way(error),
        Error::CodecError(error) => {
            match std::error::Error::source(error).and_then(|inner| inner.downcast_ref::<io::Error>()) {
                Some(error) => of_way(error),
                None => strange(&error.to_string()),
            }
        }
        Error::TlsError(error) => format!("TLS with the server fails: {error}"),
        Error::DriverError(error) => of_driver(error),
        Error::UrlError(error) => error.to_string(),
        Error::FromValueError(_) | Error::FromRowError(_) => {
            strange("a value of another kind than was asked for")
        }
    }
}

fn of_driver(error: &DriverError) -> String {
    match error {
        DriverError::CouldNotConnect(Some((_, text, _))) => text.clone(),
        DriverError::ConnectTimeout | DriverError::Timeout => "no answer in time".to_owned(),
        DriverError::UnknownAuthPlugin(name) => format!(
            "the server wants the account to be proven by `{name}`, which tars-init does not speak: mysql_native_password and \
             caching_sha2_password it does"
        ),
        DriverError::OldMysqlPasswordDisabled => {
            "the account has a password of before MySQL 4.1: set it anew with old_passwords=0".to_owned()
        }
        DriverError::CleartextPluginDisabled => {
            "the server wants the password in clear text, which tars-init does not send".to_owned()
        }
        DriverError::UnexpectedPacket
        | DriverError::PacketOutOfSync
        | DriverError::PacketTooLarge
        | DriverError::UnsupportedProtocol(_)
        | DriverError::Protocol41NotSet
        | DriverError::CouldNotParseVersion => strange(&error.to_string()),
        other => other.to_string(),
    }
}

/// Of a connection that breaks.
fn of_way(error: &io::Error) -> String {
    if let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        return format!(
            "TLS with the server fails: {error}. Its certificate must be signed by the CA of MYSQL_SSL_CA, and be made for the \
             name or address in MYSQL_HOST"
        );
    }
    match error.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted => "the connection was closed by its other end".to_owned(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "no answer in time".to_owned(),
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => strange(&error.to_string()),
        _ => error.to_string(),
    }
}

fn strange(what: &str) -> String {
    format!("what answers there does not speak as a MySQL server does ({})", without_end(what).to_lowercase())
}

fn without_end(message: &str) -> &str {
    message.trim_end().trim_end_matches('.')
}

#[cfg(test)]
mod tests {
    use mysql::MySqlError;

    use super::*;

    fn said(code: u16, message: &str) -> Error {
        Error::MySqlError(MySqlError { state: "HY000".to_owned(), message: message.to_owned(), code })
    }

    #[test]
    fn refused_account_is_named_as_the_server_saw_it() {
        let error = said(1045, "Access denied for user 'root'@'172.25.0.3' (using password: YES)");
        assert_eq!(
            of_connection(&error, "root"),
            "the server refuses the account root: Access denied for user 'root'@'172.25.0.3' (using password: YES). User, \
             password and the host must fit"
        );
    }

    #[test]
    fn tls_that_is_wanted_by_one_side_alone_is_said() {
        let wants = said(3159, "Connections using insecure transport are prohibited.");
        let text = of_connection(&wants, "root");
        assert!(text.contains("over TLS alone") && text.contains("MYSQL_SSL_CA"), "{text}");
        let none = Error::DriverError(DriverError::TlsNotSupported);
        assert!(of_connection(&none, "root").contains("offers no TLS"));
    }

    #[test]
    fn words_of_the_decoder_become_ours() {
        let broken = io::Error::from(io::ErrorKind::UnexpectedEof);
        for (error, expected) in [
            (Error::CodecError(broken.into()), "the connection was closed by its other end"),
            (Error::IoError(io::ErrorKind::WouldBlock.into()), "no answer in time"),
            (Error::DriverError(DriverError::PacketOutOfSync), "does not speak as a MySQL server does"),
            (said(1142, "INSERT command denied"), "the account may not do this: INSERT command denied"),
            (said(1021, "Disk full."), "no room left on its disk: Disk full"),
            (said(1290, "--read-only"), "takes no change"),
            (said(1064, "syntax"), "the server says: syntax (error 1064)"),
        ] {
            let text = reason(&error);
            assert!(text.contains(expected), "{text}");
            assert!(!text.contains('{') && !text.contains("Error"), "{text}");
        }
    }
}
