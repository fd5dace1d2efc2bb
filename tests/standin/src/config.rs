//! A reader of its own for TARS configuration: the stand-ins must not share a mistake with tarsup's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::Failure;

/// Every `key=value` of a configuration file by its full path, such as `/tars/application/server/localip`.
pub struct Config {
    values: BTreeMap<String, String>,
    adapters: Vec<String>,
    /// The file it was read from.
    pub path: PathBuf,
}

/// A database account, from a `<db>` section.
#[derive(Clone)]
pub struct Account {
    pub host: String,
    pub port: u16,
    pub user: String,
    pub password: String,
    pub schema: String,
}

/// What an adapter listens on and answers for.
pub struct Adapter {
    pub host: String,
    pub port: u16,
    pub servant: String,
    /// UDP, not TCP.
    pub is_udp: bool,
    /// Who may connect; nobody named: everybody.
    pub allow_ip: Vec<String>,
}

impl Config {
    /// Reads a file; an error where it is missing or its sections do not close.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut config = Self { values: BTreeMap::new(), adapters: Vec::new(), path: path.to_owned() };
        let mut open: Vec<String> = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some(name) = line.strip_prefix("</").and_then(|rest| rest.strip_suffix('>')) {
                if open.pop().as_deref() != Some(name) {
                    return Err(format!("{}: </{name}> closes nothing", path.display()).into());
                }
            } else if let Some(name) = line.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')) {
                open.push(name.to_owned());
                if name.ends_with("Adapter") {
                    config.adapters.push(format!("/{}", open.join("/")));
                }
            } else {
                let (key, value) = line.split_once('=').unwrap_or((line, ""));
                config.values.insert(format!("/{}/{}", open.join("/"), key.trim()), value.trim().to_owned());
            }
        }
        if open.is_empty() {
            Ok(config)
        } else {
            Err(format!("{}: <{}> is not closed", path.display(), open.join("><")).into())
        }
    }

    /// The value at a full path.
    pub fn get(&self, path: &str) -> Option<&str> {
        self.values.get(path).map(String::as_str)
    }

    /// The value of a key of `/tars/application/server`.
    pub fn server(&self, key: &str) -> Option<&str> {
        self.get(&format!("/tars/application/server/{key}"))
    }

    /// The adapters, in the file's order.
    pub fn adapters(&self) -> Result<Vec<Adapter>, Failure> {
        self.adapters
            .iter()
            .map(|section| {
                let value = |key: &str| {
                    self.get(&format!("{section}/{key}")).ok_or_else(|| format!("{section}: no {key}"))
                };
                let text = value("endpoint")?;
                let (host, port) = endpoint(text)?;
                let allow_ip = self.get(&format!("{section}/allow")).unwrap_or_default().split(',');
                let allow_ip = allow_ip.filter(|one| !one.is_empty()).map(str::to_owned).collect();
                let is_udp = text.trim_start().starts_with("udp");
                Ok(Adapter { host, port, servant: value("servant")?.to_owned(), is_udp, allow_ip })
            })
            .collect()
    }

    /// The account of `<db>`, where the service has one.
    pub fn account(&self) -> Option<Account> {
        let value = |key: &str| self.get(&format!("/tars/db/{key}")).map(str::to_owned);
        Some(Account {
            host: value("dbhost")?,
            port: value("dbport")?.parse().ok()?,
            user: value("dbuser")?,
            password: value("dbpass")?,
            schema: value("dbname")?,
        })
    }

    /// The addresses of the registries: every `-h H -p P` of the locator, the port replaced by `port`.
    pub fn registries(&self, port: u16) -> Vec<(String, u16)> {
        let locator = self.get("/tars/application/client/locator").unwrap_or_default();
        let endpoints = locator.split_once('@').map_or("", |(_, endpoints)| endpoints);
        endpoints
            .split("tcp ")
            .filter_map(|part| endpoint(part.trim_end_matches(':')).ok())
            .map(|(host, _)| (host, port))
            .collect()
    }
}

/// Host and port of an endpoint such as `tcp -h 172.25.0.3 -p 17890 -t 60000`.
pub fn endpoint(text: &str) -> Result<(String, u16), Failure> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let after =
        |flag: &str| words.iter().position(|word| *word == flag).and_then(|at| words.get(at + 1)).copied();
    let port = after("-p").and_then(|port| port.trim_end_matches(':').parse().ok());
    match (after("-h"), port) {
        (Some(host), Some(port)) => Ok((host.to_owned(), port)),
        _ => Err(format!("`{text}` is no endpoint").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locator_with_two_registries_gives_both() {
        let folder = std::env::temp_dir().join(format!("standin-config-{}", std::process::id()));
        std::fs::write(
            &folder,
            "<tars>\n<application>\n<client>\nlocator=tars.tarsregistry.QueryObj@tcp -h a -p 17890:tcp -h b -p 17890\n</client>\n</application>\n</tars>\n",
        )
        .unwrap();
        let registries = Config::read(&folder).unwrap().registries(17891);
        std::fs::remove_file(&folder).unwrap();
        assert_eq!(registries, [("a".to_owned(), 17891), ("b".to_owned(), 17891)]);
    }
}
