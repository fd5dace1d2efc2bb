//! TLS to the database: what `MYSQL_SSL` and `MYSQL_SSL_CA` ask for.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::PathBuf;

use mysql::SslOpts;

use super::failure::Failure;

/// How the connection to the server is protected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Tls {
    /// Not at all.
    #[default]
    Off,
    /// Encrypted; whose certificate it is remains unknown.
    Encrypted,
    /// Encrypted, and the certificate is signed by this CA for the host that was asked.
    Verified(PathBuf),
}

impl fmt::Display for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("without TLS"),
            Self::Encrypted => f.write_str("over TLS, whoever's certificate it is"),
            Self::Verified(path) => write!(f, "over TLS, by the CA in {}", path.display()),
        }
    }
}

impl Tls {
    /// Reads both variables; a CA that cannot be read is refused, as is one beside a switch that says no.
    pub fn read(get: &dyn Fn(&str) -> Option<OsString>) -> Result<Self, Failure> {
        let mode = get("MYSQL_SSL").unwrap_or_default().to_string_lossy().into_owned();
        let path = get("MYSQL_SSL_CA").filter(|path| !path.is_empty());
        match (mode.as_str(), path) {
            ("disabled", Some(_)) => Err(Failure::environment(
                "MYSQL_SSL is `disabled`, and MYSQL_SSL_CA names a CA: one of them is right.".to_owned(),
            )),
            ("" | "required", Some(path)) => {
                let path = PathBuf::from(path);
                let refused = |why: &str| {
                    Failure::environment(format!(
                        "MYSQL_SSL_CA is {:?}, which {why}.",
                        path.display().to_string()
                    ))
                };
                let text = fs::read(&path).map_err(|error| refused(&format!("cannot be read: {error}")))?;
                if !String::from_utf8_lossy(&text).contains("-----BEGIN CERTIFICATE-----") {
                    return Err(refused("holds no certificate in PEM"));
                }
                Ok(Self::Verified(path))
            }
            ("required", None) => Ok(Self::Encrypted),
            ("" | "disabled", None) => Ok(Self::Off),
            (other, _) => Err(Failure::environment(format!(
                "MYSQL_SSL is {other:?}; `required` or `disabled` may stand in it."
            ))),
        }
    }

    /// What the client is told.
    pub fn options(&self) -> Option<SslOpts> {
        match self {
            Self::Off => None,
            Self::Encrypted => Some(SslOpts::default().with_danger_accept_invalid_certs(true)),
            Self::Verified(path) => Some(SslOpts::default().with_root_cert_path(Some(path.clone()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ca_means_verified_and_contradictions_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (ca, key) = (folder.path().join("ca.pem"), folder.path().join("key.pem"));
        fs::write(&ca, "-----BEGIN CERTIFICATE-----\n").unwrap();
        fs::write(&key, "-----BEGIN PRIVATE KEY-----\n").unwrap();
        let read = |mode: &str, path: &std::path::Path| {
            Tls::read(&|name| match name {
                "MYSQL_SSL" => Some(mode.into()),
                _ => Some(path.into()),
            })
        };
        let none = std::path::Path::new("");
        assert_eq!(read("", none).unwrap(), Tls::Off);
        assert_eq!(read("disabled", none).unwrap(), Tls::Off);
        assert_eq!(read("required", none).unwrap(), Tls::Encrypted);
        assert_eq!(read("", &ca).unwrap(), Tls::Verified(ca.clone()));
        assert_eq!(read("required", &ca).unwrap(), Tls::Verified(ca.clone()));
        for (mode, path, named) in [
            ("disabled", ca.as_path(), "MYSQL_SSL_CA names"),
            ("REQUIRED", none, "REQUIRED"),
            ("", key.as_path(), "key.pem"),
            ("", folder.path(), "cannot be read"),
        ] {
            let failure = read(mode, path).unwrap_err();
            assert!(failure.message.contains(named), "{failure}");
        }
    }
}
