//! A MariaDB server of a test's own: data in a temporary folder, on loopback, stopped by its process id.

use std::ffi::OsStr;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use mysql::prelude::{FromRow, Queryable};
use mysql::{Conn, OptsBuilder};
use tempfile::TempDir;

pub const PASSWORD: &str = "pw-of-the-administrator";

pub struct Server {
    child: Child,
    folder: TempDir,
    pub port: u16,
}

impl Server {
    /// An empty server that answers.
    pub fn start() -> Self {
        Self::start_with::<&str>(&[])
    }

    /// The same with more options.
    pub fn start_with<T: AsRef<OsStr>>(options: &[T]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let copied =
            Command::new("cp").arg("-r").arg(template()).arg(folder.path().join("data")).status().unwrap();
        assert!(copied.success());
        let port = free_port();
        let child = launch(folder.path(), port, options);
        let server = Self { child, folder, port };
        server.await_answer();
        server
    }

    pub fn session(&self) -> Conn {
        connect(self.port, "root", PASSWORD).expect("the server answers")
    }

    /// Whether this account is let in.
    pub fn login(&self, user: &str, password: &str) -> bool {
        connect(self.port, user, password).is_ok()
    }

    pub fn run(&self, statements: &[&str]) {
        let mut session = self.session();
        for statement in statements {
            session.query_drop(*statement).unwrap_or_else(|error| panic!("{statement}: {error}"));
        }
    }

    pub fn rows<T: FromRow>(&self, query: &str) -> Vec<T> {
        self.session().query(query).unwrap_or_else(|error| panic!("{query}: {error}"))
    }

    pub fn number(&self, query: &str) -> u64 {
        self.rows::<u64>(query)[0]
    }

    /// Every table of every schema with a checksum of its content: what "nothing changed" means.
    pub fn everything(&self) -> Vec<(String, Option<i64>)> {
        let tables: Vec<String> = self.rows(
            "SELECT CONCAT('`', table_schema, '`.`', table_name, '`') FROM information_schema.tables \
             WHERE table_schema NOT IN ('mysql', 'information_schema', 'performance_schema', 'sys') ORDER BY 1",
        );
        tables
            .iter()
            .flat_map(|table| self.rows::<(String, Option<i64>)>(&format!("CHECKSUM TABLE {table} EXTENDED")))
            .collect()
    }

    /// Of every table how many rows it has, every column with its type, and our accounts: what must be the same in the
    /// end, whatever happened on the way there.
    pub fn shape(&self) -> Vec<String> {
        let tables = self.everything().into_iter().map(|(table, _)| table);
        let mut shape: Vec<String> = tables
            .map(|table| {
                let named = table.replace('.', "`.`");
                format!("{table}: {} rows", self.number(&format!("SELECT COUNT(*) FROM `{named}`")))
            })
            .collect();
        shape.extend(self.rows::<String>(
            "SELECT CONCAT_WS(' ', table_schema, table_name, column_name, column_type, column_default) FROM \
             information_schema.columns WHERE table_schema NOT IN ('mysql', 'information_schema', 'performance_schema', \
             'sys') ORDER BY table_schema, table_name, ordinal_position",
        ));
        shape.extend(self.rows::<String>(
            "SELECT CONCAT_WS('@', user, host) FROM mysql.user WHERE user = 'tarsAdmin' AND host NOT LIKE '127.%' ORDER BY 1",
        ));
        shape
    }

    /// Forgets everything, as if it were new.
    pub fn clear(&self) {
        let schemas: Vec<String> = self.rows(
            "SELECT schema_name FROM information_schema.schemata WHERE schema_name NOT IN ('mysql', 'information_schema', \
             'performance_schema', 'sys')",
        );
        let users: Vec<(String, String)> =
            self.rows("SELECT user, host FROM mysql.user WHERE user = 'tarsAdmin'");
        for schema in schemas {
            self.run(&[&format!("DROP DATABASE `{schema}`")]);
        }
        for (user, host) in users {
            self.run(&[&format!("DROP USER '{user}'@'{host}'")]);
        }
    }

    pub fn pid(&self) -> nix::unistd::Pid {
        nix::unistd::Pid::from_raw(self.child.id().cast_signed())
    }

    /// The statements that run just now and begin like this: of each the state.
    pub fn running(&self, words: &str) -> Vec<String> {
        let query = "SELECT COALESCE(state, '') FROM information_schema.processlist WHERE info LIKE ?";
        self.session().exec(query, (format!("{words}%"),)).unwrap()
    }

    /// How often a statement of this kind was begun, such as `Com_alter_table`.
    pub fn counter(&self, name: &str) -> u64 {
        let rows: Vec<(String, u64)> = self.rows(&format!("SHOW GLOBAL STATUS LIKE '{name}'"));
        rows[0].1
    }

    fn await_answer(&self) {
        let begun = Instant::now();
        while let Err(error) = connect(self.port, "root", PASSWORD) {
            if begun.elapsed() > Duration::from_secs(30) {
                let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                panic!("MariaDB does not answer: {error}\n{log}");
            }
            std::thread::sleep(Duration::from_millis(30));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that nothing listens on just now.
pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

fn connect(port: u16, user: &str, password: &str) -> Result<Conn, mysql::Error> {
    let options = OptsBuilder::new()
        .ip_or_hostname(Some("127.0.0.1"))
        .tcp_port(port)
        .user(Some(user))
        .pass(Some(password))
        .prefer_socket(false);
    Conn::new(options)
}

fn launch(folder: &Path, port: u16, options: &[impl AsRef<OsStr>]) -> Child {
    let log = std::fs::File::create(folder.join("log")).unwrap();
    Command::new(program("mariadbd"))
        .args([
            "--no-defaults",
            "--bind-address=127.0.0.1",
            "--skip-name-resolve",
            "--innodb-log-file-size=8M",
        ])
        .args([
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-buffer-pool-size=16M",
            "--skip-log-bin",
            "--user=root",
        ])
        .arg(format!("--datadir={}", folder.join("data").display()))
        .arg(format!("--socket={}", folder.join("socket").display()))
        .arg(format!("--pid-file={}", folder.join("pid").display()))
        .arg(format!("--port={port}"))
        .args(options)
        // A server that starts clears away what others have in their temporary folder.
        .env("TMPDIR", folder)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// A data folder that was made once, with an administrator who may come from loopback.
fn template() -> &'static Path {
    static TEMPLATE: OnceLock<TempDir> = OnceLock::new();
    TEMPLATE
        .get_or_init(|| {
            let folder = tempfile::tempdir().unwrap();
            let scratch = tempfile::tempdir().unwrap();
            let output = Command::new(program("mariadb-install-db"))
                .args([
                    "--no-defaults",
                    "--auth-root-authentication-method=normal",
                    "--skip-test-db",
                    "--user=root",
                ])
                .arg(format!("--datadir={}", folder.path().display()))
                .env("TMPDIR", scratch.path())
                .output()
                .unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let grants = format!(
                "FLUSH PRIVILEGES;\nCREATE OR REPLACE USER root@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';\n\
                 GRANT ALL ON *.* TO root@'127.0.0.1' WITH GRANT OPTION;\n"
            );
            let script = folder.path().join("grants.sql");
            std::fs::write(&script, grants).unwrap();
            let output = Command::new(program("mariadbd"))
                .args(["--no-defaults", "--bootstrap", "--user=root", "--innodb-log-file-size=8M"])
                .arg(format!("--datadir={}", folder.path().display()))
                .env("TMPDIR", scratch.path())
                .stdin(std::fs::File::open(&script).unwrap())
                .output()
                .unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            folder
        })
        .path()
}

/// Found in the usual places; these tests are nothing without it.
fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/local/sbin".into()])
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
        .unwrap_or_else(|| {
            panic!("these tests need MariaDB's `{name}` (Debian: apt-get install mariadb-server)")
        })
}
