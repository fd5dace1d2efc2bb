//! The web console of a master, where the image carries one: its configuration, and how it is started.

use std::fs;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use nix::unistd::Pid;

use super::account;
use super::columns::{self, KnownColumns};
use super::environment::Account;
use super::paths::{self, Paths};
use super::render;
use super::services;

/// Its name in the start log and of its own log.
pub const NAME: &str = "web";

/// A web console that can be started.
#[derive(Clone, Debug)]
pub struct Web {
    node: PathBuf,
    /// What its models have, once they were asked.
    known: Arc<Mutex<Option<KnownColumns>>>,
    /// The columns that its next start leaves as they are, as `SCHEMA.TABLE.COLUMN`.
    left: Arc<Mutex<Vec<String>>>,
}

/// The web console of the image; `Err` says in words what is missing.
pub fn find(paths: &Paths) -> Result<Web, String> {
    let start = paths.web().join("bin/www");
    if !start.is_file() {
        return Err("the image has no web console".to_owned());
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders)
        .map(|folder| folder.join("node"))
        .find(|node| node.is_file())
        .map(|node| Web { node, known: Arc::default(), left: Arc::default() })
        .ok_or_else(|| "the image has a web console but no `node` to run it".to_owned())
}

impl Web {
    /// Fills in addresses and the services' account, and turns the log-in on, as upstream's installer does.
    pub fn render(paths: &Paths, address: &str, database: &Account) -> io::Result<()> {
        let config = paths.web().join("config");
        if !config.is_dir() {
            return Ok(());
        }
        for entry in fs::read_dir(config)? {
            let path = entry?.path();
            if path.is_file() {
                render_file(&path, &replacements(paths, address, database))?;
            }
        }
        Ok(())
    }

    /// Which columns its models have: asked once, as they do not change; again where they did not tell.
    pub fn known_columns(&self, paths: &Paths) -> Result<KnownColumns, String> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &*known {
            return Ok(known.clone());
        }
        let told = columns::ask(&self.node, &paths.web(), columns::LIMIT)?;
        *known = Some(told.clone());
        Ok(told)
    }

    /// Asks in a thread, so that the answer is there when it is needed.
    pub fn ask_ahead(&self, paths: &Paths) {
        let (web, paths) = (self.clone(), paths.clone());
        thread::spawn(move || web.known_columns(&paths));
    }

    /// Says which columns its starts leave as they are from now on.
    pub fn leave(&self, columns: Vec<String>) {
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) = columns;
    }

    /// Starts it. What it leaks ends it before it takes the memory of the services: it is started again then.
    pub fn start(&self, paths: &Paths) -> io::Result<Pid> {
        let mut command = Command::new(&self.node);
        command.args(heap_limit(&std::env::var("NODE_OPTIONS").unwrap_or_default()));
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner).join(",");
        if !left.is_empty() {
            let script = paths.run().join("leave.js");
            render::write(&script, columns::LEAVE_SCRIPT)?;
            command.arg("-r").arg(script).env(columns::LEAVE, left);
        }
        command.arg(paths.web().join("bin/www")).current_dir(paths.web()).env("NODE_ENV", "production");
        services::launch(command, paths, NAME)
    }
}

/// Node.js's option for the size of its heap, in MiB: some 145 MB are in use after a start. One of an operator's own counts.
fn heap_limit(node_options: &str) -> Option<&'static str> {
    // V8 takes an underscore as well.
    let is_set = node_options.replace('_', "-").contains("--max-old-space-size");
    (!is_set).then_some("--max-old-space-size=1024")
}

/// How long the web console may take to answer.
const ANSWER: Duration = Duration::from_secs(2);
/// No page that is asked for here is that large, in bytes.
const LARGEST: u64 = 1 << 20;

/// Asks the web console that listens at this address for its first page; why that is not well, in a few words.
pub fn ask(listens_at: SocketAddr) -> Result<(), String> {
    let at = match listens_at.ip() {
        IpAddr::V4(address) if address.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(address) if address.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        address => address,
    };
    let url = format!("http://{}/", SocketAddr::new(at, listens_at.port()));
    let status = request(&url, ANSWER).send_lazy().map_err(|error| in_words(&error))?.status_code;
    // It may send us to its log-in, or want one: that is an answer, too.
    if status < 500 { Ok(()) } else { Err(format!("it answers with {status}")) }
}

/// What a page says; why it cannot be had, in a few words.
pub fn get(url: &str, within: Duration) -> Result<String, String> {
    let answer = request(url, within).send_lazy().map_err(|error| in_words(&error))?;
    if answer.status_code != 200 {
        return Err(format!("it answers with {}", answer.status_code));
    }
    let mut page = String::new();
    answer.take(LARGEST).read_to_string(&mut page).map_err(|error| error.to_string())?;
    Ok(page)
}

fn request(url: &str, within: Duration) -> minreq::Request {
    minreq::get(url)
        .with_timeout(within.as_secs().max(1))
        .with_header("User-Agent", "tars-init")
        .with_follow_redirects(false)
}

fn in_words(error: &minreq::Error) -> String {
    match error {
        minreq::Error::IoError(error) => match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "no answer in time".to_owned(),
            io::ErrorKind::ConnectionRefused => "nothing listens".to_owned(),
            _ => error.to_string(),
        },
        other => other.to_string(),
    }
}

fn replacements(paths: &Paths, address: &str, database: &Account) -> Vec<(&'static str, String)> {
    vec![
        ("localip.tars.com", address.to_owned()),
        ("registry.tars.com", address.to_owned()),
        ("db.tars.com", database.host.clone()),
        ("3306", database.port.to_string()),
        ("user: 'tars'", format!("user: '{}'", account::USER)),
        ("password: 'tars2015'", format!("password: '{}'", database.services_password)),
        ("enableAuth: false", "enableAuth: true".to_owned()),
        ("enableLogin: false", "enableLogin: true".to_owned()),
        ("TARS_PATH", paths::text(&paths.tars())),
    ]
}

/// A pristine copy is kept beside the file: the next start may have another address.
fn render_file(path: &Path, replacements: &[(&str, String)]) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if name.starts_with('.') {
        return Ok(());
    }
    let pristine = path.with_file_name(format!(".{name}.template"));
    let text = match fs::read_to_string(&pristine) {
        Ok(text) => text,
        Err(_) => match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(()),
            Err(error) => return Err(error),
        },
    };
    let filled = replacements.iter().fold(text.clone(), |text, (mark, value)| text.replace(mark, value));
    if filled == text {
        return Ok(());
    }
    render::write(&pristine, &text)?;
    render::write(path, &filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heap_is_limited_unless_an_operator_says_otherwise() {
        assert_eq!(heap_limit("--trace-warnings"), Some("--max-old-space-size=1024"));
        assert_eq!(heap_limit("--trace-warnings --max_old_space_size=300"), None);
    }

    #[test]
    fn rendering_twice_with_another_address_gives_the_second() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        let config = paths.web().join("config/webConf.js");
        render::write(
            &config,
            "host: 'db.tars.com', port: '3306', user: 'tars', password: 'tars2015', enableAuth: false, ip localip.tars.com",
        )
        .unwrap();
        let account = Account {
            host: "db".to_owned(),
            port: 3307,
            user: "root".to_owned(),
            password: "secret".to_owned(),
            services_password: "Own@2026".to_owned(),
            ..Account::default()
        };
        Web::render(&paths, "172.25.0.3", &account).unwrap();
        Web::render(&paths, "172.25.0.9", &account).unwrap();
        assert_eq!(
            fs::read_to_string(&config).unwrap(),
            "host: 'db', port: '3307', user: 'tarsAdmin', password: 'Own@2026', enableAuth: true, ip 172.25.0.9"
        );
    }
}
