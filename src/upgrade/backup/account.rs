//! The account with which the database's own tools are used: that of the framework, as an option file for them.

use std::io::Read as _;

use super::BackupError;
use crate::deploy::Desired;
use crate::engine::Engine;
use crate::upgrade::cluster_probe::asker;

/// No password and no certificate is longer.
const LARGEST: u64 = 64 * 1024;

/// The account, and where the database is.
pub(super) struct Account {
    user: String,
    password: String,
    host: Option<String>,
    port: Option<String>,
    /// `MYSQL_SSL` asks for TLS, or a CA's certificate is named.
    has_tls: bool,
    /// Where the CA's certificate lies, in the framework's containers as in one that is made beside them.
    ca: Option<String>,
}

impl Account {
    /// The framework's, from its declaration; what it has in files is read in its container.
    pub(super) async fn find(engine: &dyn Engine, desired: &Desired) -> Result<Self, BackupError> {
        let none = |why: &str| BackupError::Account { why: why.to_owned() };
        let service = asker(desired).ok_or_else(|| none("the deployment has no account at the database"))?;
        let named = |name: &str| {
            let entries = desired.database.iter().flat_map(|account| &account.0);
            let of_file = entries.filter_map(|entry| entry.split_once('='));
            let declared = service.declaration.environment.value(name).map(str::to_owned);
            let value = declared.or_else(|| {
                of_file.filter(|(key, _)| *key == name).map(|(_, value)| value.to_owned()).next_back()
            });
            value.filter(|value| !value.is_empty())
        };
        let read = async |path: &str| -> Result<Vec<u8>, BackupError> {
            let archive = engine.get_archive(&service.container, path).await?;
            let lacks = || none(&format!("{path} is not there in `{}`", service.container));
            let archive = archive.ok_or_else(lacks)?;
            only_file(&archive).ok_or_else(|| {
                none(&format!("{path} of `{}` is no file that can be read", service.container))
            })
        };
        let password = match (named("MYSQL_ROOT_PASSWORD"), named("MYSQL_ROOT_PASSWORD_FILE")) {
            (Some(password), _) => password,
            (None, Some(path)) => {
                let text =
                    String::from_utf8(read(&path).await?).map_err(|_| none(&format!("{path} is no text")))?;
                // Editors and `echo` end a line.
                let text = text.strip_suffix('\n').unwrap_or(&text);
                text.strip_suffix('\r').unwrap_or(text).to_owned()
            }
            (None, None) => return Err(none("MYSQL_ROOT_PASSWORD is not declared, nor is its file")),
        };
        let ca = named("MYSQL_SSL_CA");
        Ok(Self {
            user: named("MYSQL_USER").unwrap_or_else(|| "root".to_owned()),
            password,
            host: named("MYSQL_HOST"),
            port: named("MYSQL_PORT"),
            has_tls: ca.is_some() || named("MYSQL_SSL").as_deref() == Some("required"),
            ca,
        })
    }

    /// The password, so that it can be kept out of what is said.
    pub(super) fn password(&self) -> &str {
        &self.password
    }

    /// The option file for tools beside the server.
    pub(super) fn beside_the_server(&self) -> String {
        format!("[client]\nuser={}\npassword={}\n", quoted(&self.user), quoted(&self.password))
    }

    /// The option file for tools elsewhere; an error where nobody says where the server is.
    pub(super) fn elsewhere(&self) -> Result<String, BackupError> {
        let Some(host) = &self.host else {
            return Err(BackupError::Account { why: "MYSQL_HOST is not declared".to_owned() });
        };
        let mut text = format!("{}host={}\n", self.beside_the_server(), quoted(host));
        if let Some(port) = &self.port {
            text.extend(["port=", &quoted(port), "\n"]);
        }
        // Each family of tools knows some of these; the others are told to let them be.
        text += match (&self.ca, self.has_tls) {
            (Some(_), _) => "loose-ssl-mode=VERIFY_IDENTITY\nloose-ssl-verify-server-cert=1\n",
            (None, true) => "loose-ssl-mode=REQUIRED\nloose-ssl=1\nloose-ssl-verify-server-cert=0\n",
            (None, false) => "loose-ssl-verify-server-cert=0\n",
        };
        if let Some(path) = &self.ca {
            text.extend(["ssl-ca=", &quoted(path), "\n"]);
        }
        Ok(text)
    }
}

/// A value of an option file: in quotes, in which nothing but these has a meaning.
fn quoted(value: &str) -> String {
    let mut text = String::from("\"");
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            other => text.push(other),
        }
    }
    text + "\""
}

/// The content of the one regular file of an archive.
fn only_file(archive: &[u8]) -> Option<Vec<u8>> {
    let mut archive = tar::Archive::new(archive);
    let entry = archive.entries().ok()?.next()?.ok()?;
    if !entry.header().entry_type().is_file() || entry.size() > LARGEST {
        return None;
    }
    let mut bytes = Vec::new();
    entry.take(LARGEST).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(password: &str) -> Account {
        let (user, host) = ("root".to_owned(), Some("10.0.0.2".to_owned()));
        Account { user, password: password.to_owned(), host, port: None, has_tls: false, ca: None }
    }

    #[test]
    fn option_file_keeps_a_password_as_it_is() {
        let text = account("a\\b\"c'd #e;f\n").beside_the_server();
        assert_eq!(text, "[client]\nuser=\"root\"\npassword=\"a\\\\b\\\"c'd #e;f\\n\"\n");
        assert!(!text.contains("host"), "beside the server nobody needs one");
    }

    #[test]
    fn tools_elsewhere_are_told_how_to_reach_the_server() {
        let mut account = account("x");
        assert!(account.elsewhere().unwrap().contains("host=\"10.0.0.2\"\nloose-ssl-verify-server-cert=0\n"));
        account.has_tls = true;
        assert!(account.elsewhere().unwrap().contains("loose-ssl-mode=REQUIRED\n"));
        account.ca = Some("/run/ca.pem".to_owned());
        let text = account.elsewhere().unwrap();
        assert!(text.contains("VERIFY_IDENTITY") && text.contains("ssl-ca=\"/run/ca.pem\"\n"), "{text}");
        account.host = None;
        assert!(account.elsewhere().is_err());
    }
}
