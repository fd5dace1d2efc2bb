//! Who asks: what docker's `config.json` says of a registry, or the credential helper that it names.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::error::{RegistryError, Result};
use crate::limits;

/// A helper may have to ask somebody else; no person is asked.
const PATIENCE: Duration = Duration::from_secs(30);
/// More than this is no configuration, and no answer of a helper.
const LARGEST: u64 = 1 << 20;
/// What docker's configuration calls Docker Hub.
pub(super) const HUB: &str = "https://index.docker.io/v1/";

/// What a registry, or whoever gives its tokens, is shown.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credential {
    /// A user and a password.
    Password {
        /// The user.
        user: String,
        /// The password.
        password: String,
    },
    /// A token from which tokens are had.
    Identity(String),
}

/// Never shows a secret.
impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Password { .. } => "Password",
            Self::Identity(_) => "Identity",
        })
    }
}

impl Credential {
    fn of(user: String, password: String) -> Self {
        if user == "<token>" { Self::Identity(password) } else { Self::Password { user, password } }
    }

    /// The user's name, where there is one.
    pub fn user(&self) -> Option<&str> {
        match self {
            Self::Password { user, .. } => Some(user),
            Self::Identity(_) => None,
        }
    }

    /// What must not be repeated, in each form in which it is shown.
    pub fn secrets(&self) -> Vec<String> {
        match self {
            Self::Password { user, password } => {
                vec![STANDARD.encode(format!("{user}:{password}")), password.clone()]
            }
            Self::Identity(token) => vec![token.clone()],
        }
    }

    /// The value of an `Authorization` header.
    pub fn basic(&self) -> Option<String> {
        match self {
            Self::Password { user, password } => {
                Some(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
            }
            Self::Identity(_) => None,
        }
    }
}

/// Docker's `config.json`, of which all else is left alone.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConfigFile {
    #[serde(default)]
    auths: BTreeMap<String, Option<Entry>>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
    #[serde(default)]
    creds_store: Option<String>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
}

/// What a helper prints.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// What docker's configuration calls a registry.
pub(super) fn server(registry: &str) -> &str {
    if registry == "docker.io" { HUB } else { registry }
}

/// What is known of a registry; `None` where nobody has logged in.
pub(super) async fn find(registry: &str) -> Result<Option<Credential>> {
    let Some(path) = config_path() else { return Ok(None) };
    let wrong = |why: String| RegistryError::Configuration { what: path.display().to_string(), why };
    let text = match limits::read(&path, &limits::TEXT) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(|error| wrong(error.to_string()))?,
    };
    // Where it is wrong is said, what stands there is not.
    let config: ConfigFile = serde_json::from_slice(&text)
        .map_err(|error| wrong(format!("no JSON as docker writes it, line {}", error.line())))?;
    let server = server(registry);
    let helper = config.cred_helpers.get(server).or_else(|| config.cred_helpers.get(registry));
    if let Some(name) = helper {
        return ask(name, server).await;
    }
    if let Some(name) = config.creds_store.as_ref().filter(|name| !name.is_empty())
        && let Some(found) = ask(name, server).await?
    {
        return Ok(Some(found));
    }
    let wanted = host(server);
    let entry = config
        .auths
        .get(server)
        .or_else(|| config.auths.iter().find(|(key, _)| host(key) == wanted).map(|(_, entry)| entry));
    let Some(Some(entry)) = entry else { return Ok(None) };
    stored(entry).ok_or_else(|| wrong(format!("the entry of {wanted} is no user and password")))
}

/// What an entry holds; the outer `None` where it cannot be read, the inner where it is empty.
#[expect(clippy::option_option, reason = "unreadable and empty are two things")]
fn stored(entry: &Entry) -> Option<Option<Credential>> {
    if !entry.identitytoken.is_empty() {
        return Some(Some(Credential::Identity(entry.identitytoken.clone())));
    }
    if !entry.auth.is_empty() {
        let text = String::from_utf8(STANDARD.decode(entry.auth.trim()).ok()?).ok()?;
        let (user, password) = text.split_once(':')?;
        return Some(Some(Credential::of(user.to_owned(), password.trim_end_matches('\0').to_owned())));
    }
    let known = !entry.username.is_empty();
    Some(known.then(|| Credential::of(entry.username.clone(), entry.password.clone())))
}

/// `https://host/v1/` → `host`.
fn host(key: &str) -> &str {
    let bare = key.split_once("://").map_or(key, |(_, rest)| rest);
    bare.split('/').next().unwrap_or(bare)
}

fn config_path() -> Option<PathBuf> {
    let set = std::env::var_os("DOCKER_CONFIG").filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = set.or_else(|| std::env::home_dir().map(|home| home.join(".docker")));
    folder.map(|folder| folder.join("config.json"))
}

/// Asks `docker-credential-NAME`. What it prints is never shown.
async fn ask(name: &str, server: &str) -> Result<Option<Credential>> {
    let program = format!("docker-credential-{name}");
    let failed = |why: String| RegistryError::Configuration { what: program.clone(), why };
    if name.contains('/') {
        return Err(failed("a helper is named without its path".to_owned()));
    }
    let mut command = tokio::process::Command::new(&program);
    command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
    let talk = async {
        if let Some(mut input) = child.stdin.take() {
            // A helper that does not read is seen by what it says.
            let _ = input.write_all(server.as_bytes()).await;
        }
        let mut output = Vec::new();
        if let Some(from) = child.stdout.take() {
            from.take(LARGEST).read_to_end(&mut output).await?;
        }
        Ok::<_, std::io::Error>((child.wait().await?, output))
    };
    let (status, output) = tokio::time::timeout(PATIENCE, talk)
        .await
        .map_err(|_| failed(format!("it did not end within {} s", PATIENCE.as_secs())))?
        .map_err(|error| failed(error.to_string()))?;
    if !status.success() {
        // The words of docker's own helpers for: nobody has logged in.
        let text = String::from_utf8_lossy(&output);
        let none = text.contains("credentials not found") || text.contains("no credentials server URL");
        return if none { Ok(None) } else { Err(failed(format!("it ended with {status}"))) };
    }
    let answer: Answer = serde_json::from_slice(&output)
        .map_err(|_| failed("it did not print what a credential helper prints".to_owned()))?;
    Ok(Some(Credential::of(answer.username, answer.secret)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_holds_a_password_a_token_or_nothing() {
        let entry = |text: &str| stored(&serde_json::from_str(text).unwrap());
        let password = |user: &str, password: &str| {
            Some(Some(Credential::Password { user: user.to_owned(), password: password.to_owned() }))
        };
        assert_eq!(entry(r#"{"auth":"YTpiOmM="}"#), password("a", "b:c"));
        assert_eq!(entry(r#"{"username":"a","password":"b"}"#), password("a", "b"));
        assert_eq!(entry(r#"{"identitytoken":"t"}"#), Some(Some(Credential::Identity("t".to_owned()))));
        assert_eq!(entry("{}"), Some(None));
        assert_eq!(entry(r#"{"auth":"%"}"#), None);
        assert_eq!(entry(r#"{"auth":"YQ=="}"#), None);
        let shown = format!("{:?}", entry(r#"{"auth":"YTpodW50ZXIy"}"#));
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn key_of_an_entry_is_a_host_whatever_stands_around_it() {
        for (key, wanted) in [
            ("https://index.docker.io/v1/", "index.docker.io"),
            ("http://a:5000", "a:5000"),
            ("a:5000/v2/", "a:5000"),
            ("a", "a"),
        ] {
            assert_eq!(host(key), wanted);
        }
    }
}
