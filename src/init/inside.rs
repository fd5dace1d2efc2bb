//! What a person inside the container asks: how is it (`status`, `health --verbose`), and what was it told (`env`).

use std::fmt::Write as _;
use std::io::Write as _;

use crate::tars::Role;
use crate::tars::catalogue::WEB_PORT;

use super::address;
use super::environment::{Endpoint, Environment};
use super::failure::{Code, Failure};
use super::health::{self, Asking, Database, Look};
use super::paths::Paths;
use super::processes;
use super::registries;

/// Every variable that counts: its name, what it is where it is not set, and whether it is shown as `***`.
const VARIABLES: &[Variable] = &[
    Variable::new("MYSQL_HOST", ""),
    Variable::new("MYSQL_PORT", "3306"),
    Variable::new("MYSQL_USER", "root"),
    Variable::secret("MYSQL_ROOT_PASSWORD"),
    Variable::new("MYSQL_ROOT_PASSWORD_FILE", ""),
    Variable::new("MYSQL_SSL", ""),
    Variable::new("MYSQL_SSL_CA", ""),
    Variable::secret("TARS_ADMIN_PASSWORD"),
    Variable::new("TARS_ADMIN_PASSWORD_FILE", ""),
    Variable::new("REBUILD", "false"),
    Variable::new("SLAVE", "false"),
    Variable::new("INET", "eth0"),
    Variable::new("DOMAIN", ""),
    Variable::new("TARS_DOMAIN", ""),
    Variable::new("TARS_REGISTRY_ADDRESS", ""),
    Variable::new("WEB_HOST", ""),
    Variable::new("TARSUP_VERSION", ""),
    Variable::new("TARSUP_IMAGE", ""),
    Variable::new("TARSUP_WAY_BACK", ""),
    Variable::new("TARSUP_DATABASE_TIMEOUT", "120"),
    Variable::new("TARSUP_STOP_TIMEOUT", "8"),
    Variable::new("TARSUP_ANSWER_TIMEOUT", "30"),
    Variable::new("NODE_OPTIONS", ""),
    Variable::new("TZ", ""),
    Variable::new("LD_LIBRARY_PATH", ""),
    Variable::new("PATH", ""),
];

struct Variable {
    name: &'static str,
    default: &'static str,
    is_secret: bool,
}

impl Variable {
    const fn new(name: &'static str, default: &'static str) -> Self {
        Self { name, default, is_secret: false }
    }

    const fn secret(name: &'static str) -> Self {
        Self { name, default: "", is_secret: true }
    }

    /// One line, as a shell reads it; nothing for what is neither set nor has a default.
    fn line(&self, value: Option<&str>) -> Option<String> {
        let name = self.name;
        match value {
            Some("") if self.is_secret => Some(format!("{name}=")),
            Some(_) if self.is_secret => Some(format!("{name}=***")),
            Some(value) => Some(format!("{name}={}", quoted(value))),
            None if self.default.is_empty() => None,
            None => Some(format!("{name}={}  # default", self.default)),
        }
    }
}

/// What a blank or a line end would hide is between quotes.
fn quoted(value: &str) -> String {
    let is_plain = value.chars().all(|sign| sign.is_ascii_graphic() && sign != '\'' && sign != '"');
    if is_plain { value.to_owned() } else { format!("{value:?}") }
}

/// `tars-init env`: the variables that count, without secrets, and what they come to; exit code 64 where they are refused.
pub fn env(paths: &Paths) -> Result<(), Failure> {
    let mut text = String::new();
    for variable in VARIABLES {
        let value = std::env::var_os(variable.name).map(|value| value.to_string_lossy().into_owned());
        if let Some(line) = variable.line(value.as_deref()) {
            let _ = writeln!(text, "{line}");
        }
    }
    let environment = Environment::read(health::image_role(paths));
    if let Ok(environment) = &environment {
        let address = address::own(&environment.naming).unwrap_or_else(|failure| failure.message);
        let _ = writeln!(text, "# {} at {address}", environment.role);
        if let Some(database) = &environment.database {
            let _ = writeln!(text, "# database {database:?}, {}", database.tls);
        }
    }
    print(&text)?;
    environment.map(|_| ())
}

/// `tars-init status`: who and where this is, and every part of it; the exit code is that of `health`.
pub fn status(paths: &Paths) -> Result<(), Failure> {
    let (environment, host, look) = look(paths)?;
    let version = environment.version.as_deref().unwrap_or("of unknown version");
    let mut text = format!("TARS {version}, {} at {host}\n", environment.role);
    if environment.role == Role::Node {
        let known = registries::known(&environment.locator, paths);
        let _ = writeln!(text, "registries  {}", Endpoint::list(&known));
    }
    text.push_str(&parts(&look, paths, &environment));
    print(&text)?;
    verdict(&look)
}

/// `tars-init health --verbose`: the line of `health`, and which part fails.
pub fn verbose_health(paths: &Paths) -> Result<(), Failure> {
    let (environment, _, look) = look(paths)?;
    print(&format!("{}\n{}", look.in_words(), parts(&look, paths, &environment)))?;
    verdict(&look)
}

fn look(paths: &Paths) -> Result<(Environment, String, Look), Failure> {
    let environment = Environment::read(health::image_role(paths))?;
    let host = address::own(&environment.naming)?;
    let look = health::look(paths, &environment, &host, Asking::Always);
    Ok((environment, host, look))
}

/// A line for each servant, the web console and the database.
fn parts(look: &Look, paths: &Paths, environment: &Environment) -> String {
    let mut text = String::new();
    let mut line = |name: &str, port: u16, pids: &str, state: &str| {
        let _ = writeln!(text, "{name:<42} {port:>5}  {pids:>7}  {state}");
    };
    for servant in &look.servants {
        let pids: Vec<_> = processes::running(&paths.program(servant.service))
            .into_iter()
            .map(|pid| pid.to_string())
            .collect();
        let pids = if pids.is_empty() { "-".to_owned() } else { pids.join(",") };
        let state = match (servant.ok, look.unwanted.contains(&servant.service)) {
            (true, false) => "answers".to_owned(),
            (true, true) => "answers, though an administrator stopped it".to_owned(),
            (false, true) => "stopped by an administrator".to_owned(),
            (false, false) => servant.detail.clone(),
        };
        line(&servant.name, servant.port, &pids, &state);
    }
    if let Some(web) = &look.web {
        line("web", WEB_PORT, "-", web.as_ref().err().map_or("answers", String::as_str));
    }
    if let Some(account) = &environment.database {
        let state = match &look.database {
            Database::Exists(_) => "holds TARS",
            Database::Absent => "holds no TARS",
            Database::Unknown(why) => why,
            Database::NotAsked => "not asked",
        };
        let _ = writeln!(text, "database {account:?}: {state}");
    }
    text
}

fn verdict(look: &Look) -> Result<(), Failure> {
    // What fails is said already.
    if look.complaints.is_empty() { Ok(()) } else { Err(Failure::new(Code::Unhealthy, "", "")) }
}

fn print(text: &str) -> Result<(), Failure> {
    write!(std::io::stdout(), "{text}")
        .map_err(|error| Failure::new(Code::Internal, format!("cannot write: {error}."), ""))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    use super::super::environment::ImageRole;
    use super::*;

    #[test]
    fn secrets_are_masked_defaults_are_said_and_blanks_show() {
        let password = Variable::secret("MYSQL_ROOT_PASSWORD");
        assert_eq!(password.line(Some("hidden")).unwrap(), "MYSQL_ROOT_PASSWORD=***");
        assert_eq!(password.line(Some("")).unwrap(), "MYSQL_ROOT_PASSWORD=");
        let port = Variable::new("MYSQL_PORT", "3306");
        assert_eq!(port.line(None).unwrap(), "MYSQL_PORT=3306  # default");
        assert_eq!(port.line(Some("3307")).unwrap(), "MYSQL_PORT=3307");
        assert_eq!(Variable::new("SLAVE", "false").line(Some("true ")).unwrap(), "SLAVE=\"true \"");
        assert_eq!(Variable::new("DOMAIN", "").line(None), None);
        assert!(VARIABLES.iter().all(|variable| variable.name.ends_with("PASSWORD") == variable.is_secret));
        let file = VARIABLES.iter().find(|variable| variable.name == "MYSQL_ROOT_PASSWORD_FILE").unwrap();
        let line = file.line(Some("/run/secrets/root")).unwrap();
        assert_eq!(line, "MYSQL_ROOT_PASSWORD_FILE=/run/secrets/root");
    }

    #[test]
    fn every_variable_that_a_start_reads_is_shown() {
        let asked = RefCell::new(BTreeSet::new());
        for (image, slave) in [(ImageRole::Framework, "false"), (ImageRole::Node, "")] {
            // Nothing ends the reading early.
            let parsed = Environment::parse(image, &|name| {
                asked.borrow_mut().insert(name.to_owned());
                match name {
                    "SLAVE" => Some(slave.into()),
                    "MYSQL_HOST" | "MYSQL_ROOT_PASSWORD" => Some("x".into()),
                    "WEB_HOST" => Some("http://x:3000".into()),
                    _ => None,
                }
            });
            assert!(parsed.is_ok(), "{parsed:?}");
        }
        let asked = asked.into_inner();
        assert!(asked.contains("TARS_ADMIN_PASSWORD_FILE") && asked.contains("MYSQL_SSL_CA"), "{asked:?}");
        for name in asked {
            assert!(VARIABLES.iter().any(|variable| variable.name == name), "{name}");
        }
    }
}
