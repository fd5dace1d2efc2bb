//! The account with which the database's own tools are used: that of the framework, as an option file for them.

use std::io::Read as _;

use super::BackupError;
use crate::deploy::Desired;
use crate::engine::Engine;
use crate::secretive::Secretive;
use crate::upgrade::cluster_probe::asker;

/// No password and no certificate is longer.
const LARGEST: u64 = 64 * 1024;

/// The account, and where the database is.
pub(super) struct Account {
    user: String,
    password: Secretive,
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
            let of_file = || desired.database.as_ref().and_then(|account| account.0.value(name));
            let value = service.declaration.environment.value(name).or_else(of_file);
            value.filter(|value| !value.is_empty())
        };
        let plain = |name: &str| named(name).map(|value| value.expose().to_owned());
        let read = async |path: &str| -> Result<Vec<u8>, BackupError> {
            let archive = engine.get_archive(&service.container, path).await?;
            let lacks = || none(&format!("{path} is not there in `{}`", service.container));
            let archive = archive.ok_or_else(lacks)?;
            only_file(&archive).ok_or_else(|| {
                none(&format!("{path} of `{}` is no file that can be read", service.container))
            })
        };
        let password = match (named("MYSQL_ROOT_PASSWORD"), named("MYSQL_ROOT_PASSWORD_FILE")) {
            (Some(password), _) => password.clone(),
            (None, Some(path)) => {
                let path = path.expose();
                let text =
                    String::from_utf8(read(path).await?).map_err(|_| none(&format!("{path} is no text")))?;
                // Editors and `echo` end a line.
                let text = text.strip_suffix('\n').unwrap_or(&text);
                Secretive::new("MYSQL_ROOT_PASSWORD_FILE", text.strip_suffix('\r').unwrap_or(text))
            }
            (None, None) => return Err(none("MYSQL_ROOT_PASSWORD is not declared, nor is its file")),
        };
        let ca = plain("MYSQL_SSL_CA");
        Ok(Self {
            user: plain("MYSQL_USER").unwrap_or_else(|| "root".to_owned()),
            password,
            host: plain("MYSQL_HOST"),
            port: plain("MYSQL_PORT"),
            has_tls: ca.is_some() || named("MYSQL_SSL").is_some_and(|word| *word == "required"),
            ca,
        })
    }

    /// The password, so that it can be kept out of what is said.
    pub(super) fn password(&self) -> &Secretive {
        &self.password
    }

    /// The option file for tools beside the server.
    pub(super) fn beside_the_server(&self) -> Secretive {
        format!("[client]\nuser={}\npassword={}\n", quoted(&self.user), quoted(self.password.expose())).into()
    }

    /// The option file for tools elsewhere; an error where nobody says where the server is.
    pub(super) fn elsewhere(&self) -> Result<Secretive, BackupError> {
        let Some(host) = &self.host else {
            return Err(BackupError::Account { why: "MYSQL_HOST is not declared".to_owned() });
        };
        let mut text = format!("{}host={}\n", self.beside_the_server().expose(), quoted(host));
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
        Ok(text.into())
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
        Account { user, password: password.into(), host, port: None, has_tls: false, ca: None }
    }

    #[test]
    fn option_file_keeps_a_password_as_it_is() {
        let text = account("a\\b\"c'd #e;f\n").beside_the_server();
        assert_eq!(text.expose(), "[client]\nuser=\"root\"\npassword=\"a\\\\b\\\"c'd #e;f\\n\"\n");
        assert!(!text.expose().contains("host"), "beside the server nobody needs one");
    }

    #[test]
    fn tools_elsewhere_are_told_how_to_reach_the_server() {
        let mut account = account("x");
        assert!(
            account
                .elsewhere()
                .unwrap()
                .expose()
                .contains("host=\"10.0.0.2\"\nloose-ssl-verify-server-cert=0\n")
        );
        account.has_tls = true;
        assert!(account.elsewhere().unwrap().expose().contains("loose-ssl-mode=REQUIRED\n"));
        account.ca = Some("/run/ca.pem".to_owned());
        let text = account.elsewhere().unwrap();
        let text = text.expose();
        assert!(text.contains("VERIFY_IDENTITY") && text.contains("ssl-ca=\"/run/ca.pem\"\n"), "{text}");
        account.host = None;
        assert!(account.elsewhere().is_err());
    }
}
