//! Which engine is meant: flags, environment and docker's contexts, in the order that docker's own client reads them.

use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{EngineError, Result};
use crate::diagnose::shown;
use crate::limits;
use crate::oci::Digest;

/// Where an engine is when nobody says otherwise.
const DEFAULT: &str = "unix:///var/run/docker.sock";

/// What a command line says of the engine: `-H` and `--context`.
#[derive(Clone, Debug, Default)]
pub struct ConnectOptions {
    /// `-H`: an address such as `unix:///var/run/docker.sock` or `tcp://10.0.0.2:2376`.
    pub host: Option<String>,
    /// `--context`: the name of a docker context.
    pub context: Option<String>,
}

/// The address of an engine, and how to speak to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    /// A socket's path.
    Unix(String),
    /// `host:port` in clear text.
    Tcp(String),
    /// `host:port`, and the folder with `ca.pem`, `cert.pem` and `key.pem`.
    Tls(String, PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{path}"),
            Self::Tcp(host) | Self::Tls(host, _) => write!(f, "tcp://{host}"),
        }
    }
}

/// What docker's client reads of its surroundings. An empty variable counts as unset.
pub(super) struct Surroundings<'a> {
    /// An environment variable.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
}

impl Surroundings<'_> {
    fn get(&self, name: &str) -> Option<String> {
        (self.variable)(name).filter(|value| !value.is_empty())
    }

    /// `$DOCKER_CONFIG`, else `~/.docker`.
    fn folder(&self) -> PathBuf {
        let home = || PathBuf::from(self.get("HOME").unwrap_or_else(|| "/".to_owned())).join(".docker");
        self.get("DOCKER_CONFIG").map_or_else(home, PathBuf::from)
    }

    /// `currentContext` of `config.json`.
    fn current_context(&self) -> Result<Option<String>> {
        let path = self.folder().join("config.json");
        let Ok(text) = limits::read(&path, &limits::TEXT) else { return Ok(None) };
        let config: Value = serde_json::from_slice(&text).map_err(|error| {
            configuration(
                format!("{} is no JSON: {error}", path.display()),
                "mend it, or name the engine with -H or DOCKER_HOST",
            )
        })?;
        Ok(config["currentContext"].as_str().filter(|name| !name.is_empty()).map(ToOwned::to_owned))
    }
}

/// The engine that flags, environment and contexts lead to.
///
/// # Errors
/// [`EngineError::Configuration`] where they contradict each other, or lead to what cannot be spoken to.
pub(super) fn resolve(options: &ConnectOptions, around: &Surroundings<'_>) -> Result<Address> {
    match (&options.host, &options.context) {
        (Some(_), Some(_)) => Err(configuration(
            "both an engine's address and a context are given".to_owned(),
            "give -H or --context, not both",
        )),
        (Some(host), None) => parse(host, tls_folder(around)),
        (None, Some(context)) => from_context(context, around),
        (None, None) => {
            if let Some(host) = around.get("DOCKER_HOST") {
                return parse(&host, tls_folder(around));
            }
            match around
                .get("DOCKER_CONTEXT")
                .map_or_else(|| around.current_context(), |name| Ok(Some(name)))?
            {
                Some(context) => from_context(&context, around),
                None => parse(DEFAULT, None),
            }
        }
    }
}

/// The folder of the client's certificate, where `DOCKER_TLS_VERIFY` asks for one.
fn tls_folder(around: &Surroundings<'_>) -> Option<PathBuf> {
    around.get("DOCKER_TLS_VERIFY")?;
    Some(around.get("DOCKER_CERT_PATH").map_or_else(|| around.folder(), PathBuf::from))
}

/// Reads an address. With a folder of certificates, TCP means TLS.
fn parse(host: &str, tls: Option<PathBuf>) -> Result<Address> {
    let (scheme, rest) = host.split_once("://").unwrap_or(("", host));
    if rest.contains('@') && !matches!(scheme, "unix" | "ssh") {
        // Neither the user nor what may be its password is shown.
        return Err(configuration(
            "the address of the engine names a user, and tarsup speaks to engines over unix:// and tcp:// only".to_owned(),
            "write unix:///path/to/docker.sock or tcp://host:port; forward a remote socket with ssh -nNT -L \
             /tmp/docker.sock:/var/run/docker.sock USER@HOST and use -H unix:///tmp/docker.sock",
        ));
    }
    let Some((scheme, rest)) = host.split_once("://") else {
        return Err(configuration(
            format!("`{host}` is not the address of an engine"),
            "write unix:///path/to/docker.sock or tcp://host:port",
        ));
    };
    let rest = if scheme == "unix" { rest } else { rest.trim_end_matches('/') };
    if rest.is_empty() {
        return Err(configuration(format!("`{host}` names no engine"), "write what follows `://`"));
    }
    let with_port = |port: u16| {
        let has_port = rest.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        if has_port { rest.to_owned() } else { format!("{rest}:{port}") }
    };
    let is_host = |rest: &str| rest.parse::<hyper::http::uri::Authority>().is_ok();
    if matches!(scheme, "tcp" | "http" | "https") && !is_host(&with_port(2375)) {
        return Err(configuration(
            format!("`{}` is not the address of an engine", shown(host)),
            "write tcp://host:port, with a port between 1 and 65535",
        ));
    }
    match (scheme, tls) {
        ("unix", _) => Ok(Address::Unix(rest.to_owned())),
        ("tcp" | "https", Some(folder)) => Ok(Address::Tls(with_port(2376), folder)),
        ("tcp" | "http", None) => Ok(Address::Tcp(with_port(2375))),
        ("https", None) => Err(configuration(
            format!("{host} speaks TLS, and no certificates are named for it"),
            "set DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH, or use a docker context that holds them",
        )),
        ("http", Some(_)) => Err(configuration(
            format!("DOCKER_TLS_VERIFY is set, and {host} does not speak TLS"),
            "write tcp:// or https://, or unset DOCKER_TLS_VERIFY",
        )),
        ("ssh", _) => Err(configuration(
            "engines over SSH are not supported yet".to_owned(),
            "forward its socket (ssh -nNT -L /tmp/docker.sock:/var/run/docker.sock HOST) and use -H unix:///tmp/docker.sock",
        )),
        _ => Err(configuration(
            format!("{host}: `{scheme}` is no way to an engine"),
            "write unix:///path/to/docker.sock or tcp://host:port",
        )),
    }
}

/// Reads a context as docker stores it: a folder named by the sha256 of its name, below `contexts`.
fn from_context(name: &str, around: &Surroundings<'_>) -> Result<Address> {
    if name == "default" {
        return parse(DEFAULT, None);
    }
    let id = Digest::of(name).hex();
    let contexts = around.folder().join("contexts");
    let path = contexts.join("meta").join(&id).join("meta.json");
    let text = limits::read(&path, &limits::TEXT).map_err(|error| {
        configuration(
            format!("there is no docker context `{name}` ({}: {error})", path.display()),
            "see `docker context ls`, or name the engine with -H",
        )
    })?;
    let malformed = || {
        configuration(
            format!("the docker context `{name}` names no engine ({})", path.display()),
            "see `docker context inspect`, or name the engine with -H",
        )
    };
    let meta: Value = serde_json::from_slice(&text).map_err(|_| malformed())?;
    let endpoint = meta.pointer("/Endpoints/docker").ok_or_else(malformed)?;
    let host = endpoint["Host"].as_str().filter(|host| !host.is_empty()).ok_or_else(malformed)?;
    if endpoint["SkipTLSVerify"].as_bool() == Some(true) {
        return Err(configuration(
            format!("the docker context `{name}` switches the check of the engine's certificate off"),
            "give the context the engine's CA (docker context update --docker ca=FILE,...)",
        ));
    }
    let tls = contexts.join("tls").join(&id).join("docker");
    parse(host, has_certificates(&tls).then_some(tls))
}

fn has_certificates(folder: &Path) -> bool {
    folder.join("ca.pem").exists()
}

pub(super) fn configuration(what: String, hint: &str) -> EngineError {
    EngineError::Configuration { what, hint: hint.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use super::*;

    fn with(variables: &[(&str, &str)], options: &ConnectOptions) -> Result<Address> {
        let variables: BTreeMap<_, _> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        resolve(options, &Surroundings { variable: &|name| variables.get(name).cloned() })
    }

    fn host(address: &str) -> ConnectOptions {
        ConnectOptions { host: Some(address.to_owned()), context: None }
    }

    #[test]
    fn address_comes_from_flag_then_environment_then_default() {
        let from_environment = [("DOCKER_HOST", "tcp://10.0.0.2")];
        let flag = with(&from_environment, &host("unix:///run/x.sock")).unwrap();
        assert_eq!(flag, Address::Unix("/run/x.sock".to_owned()));
        let environment = with(&from_environment, &ConnectOptions::default()).unwrap();
        assert_eq!(environment, Address::Tcp("10.0.0.2:2375".to_owned()));
        let nothing = with(&[("DOCKER_HOST", ""), ("HOME", "/nowhere")], &ConnectOptions::default()).unwrap();
        assert_eq!(nothing.to_string(), DEFAULT);
    }

    #[test]
    fn tls_takes_certificates_from_where_the_environment_says() {
        let tls = [("DOCKER_TLS_VERIFY", "1"), ("DOCKER_CERT_PATH", "/certs")];
        assert_eq!(
            with(&tls, &host("tcp://engine:2376")).unwrap(),
            Address::Tls("engine:2376".to_owned(), PathBuf::from("/certs"))
        );
        let home = [("DOCKER_TLS_VERIFY", "1"), ("HOME", "/home/x")];
        assert_eq!(
            with(&home, &host("tcp://[::1]")).unwrap(),
            Address::Tls("[::1]:2376".to_owned(), PathBuf::from("/home/x/.docker"))
        );
    }

    #[test]
    fn account_in_an_address_is_refused_and_not_shown() {
        for address in [
            "tcp://root:hunter2@10.0.0.2:2375",
            "root:hunter2@10.0.0.2:2375",
            "http://hunter2@h",
            "x://hunter2@h",
        ] {
            let error = with(&[("DOCKER_HOST", address)], &ConnectOptions::default()).unwrap_err();
            let EngineError::Configuration { what, hint } = &error else { panic!("{address}: {error}") };
            assert!(what.contains("names a user"), "{address}: {what}");
            assert!(!format!("{error} {hint} {error:?}").contains("hunter2"), "{address}: {error:?}");
        }
    }

    #[test]
    fn address_that_cannot_be_spoken_to_says_what_to_do() {
        for (address, word) in [
            ("ssh://root@engine", "SSH"),
            ("engine:2375", "not the address"),
            ("fd://", "names no engine"),
            ("npipe:////./pipe", "npipe"),
            ("https://engine", "TLS"),
        ] {
            match with(&[], &host(address)).unwrap_err() {
                EngineError::Configuration { what, hint } => {
                    assert!(what.contains(word), "{address}: {what}");
                    assert!(!hint.is_empty());
                }
                other => panic!("{address}: {other}"),
            }
        }
    }

    #[test]
    fn context_is_read_as_docker_stores_it() {
        let folder = tempfile::tempdir().unwrap();
        let id = Digest::of("lab").hex();
        let meta = folder.path().join("contexts/meta").join(&id);
        let tls = folder.path().join("contexts/tls").join(&id).join("docker");
        fs::create_dir_all(&meta).unwrap();
        fs::create_dir_all(&tls).unwrap();
        fs::write(
            meta.join("meta.json"),
            r#"{"Name":"lab","Metadata":{},"Endpoints":{"docker":{"Host":"tcp://lab:2376","SkipTLSVerify":false}}}"#,
        )
        .unwrap();
        fs::write(folder.path().join("config.json"), r#"{"currentContext":"lab"}"#).unwrap();
        let config = folder.path().to_str().unwrap();

        let current = with(&[("DOCKER_CONFIG", config)], &ConnectOptions::default()).unwrap();
        assert_eq!(current, Address::Tcp("lab:2376".to_owned()));
        fs::write(tls.join("ca.pem"), "").unwrap();
        let named = ConnectOptions { host: None, context: Some("lab".to_owned()) };
        assert_eq!(
            with(&[("DOCKER_CONFIG", config)], &named).unwrap(),
            Address::Tls("lab:2376".to_owned(), tls)
        );
        let default = [("DOCKER_CONFIG", config), ("DOCKER_CONTEXT", "default")];
        assert_eq!(with(&default, &ConnectOptions::default()).unwrap().to_string(), DEFAULT);
        let absent = ConnectOptions { host: None, context: Some("other".to_owned()) };
        assert!(with(&[("DOCKER_CONFIG", config)], &absent).unwrap_err().to_string().contains("`other`"));
    }
}
