//! Debian's `docker-registry`, on a port of its own, until the test ends.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::certificates::Certificates;

/// The password of `user`.
pub const PASSWORD: &str = "hunter2-secret";
/// The same as a line of an htpasswd file: bcrypt, four rounds.
const HTPASSWD: &str = "user:$2b$04$hycUrSND4Gvx1E20cH.X2OK2yznG7bgF9Xck/nXgTwsAhiXeuqx6S\n";

/// What the registry has beside images.
pub enum With<'a> {
    Nothing,
    Password,
    Tls(&'a Certificates),
}

/// A registry that runs.
pub struct Registry {
    /// Host and port.
    pub host: String,
    process: Child,
    folder: TempDir,
}

impl Registry {
    pub fn start(with: &With<'_>) -> Self {
        let folder = TempDir::new().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        // Free a moment ago; the kernel hands out another one to the next.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let host = format!("127.0.0.1:{port}");
        let mut config = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp:\n  addr: {host}\n",
            path("data")
        );
        match with {
            With::Nothing => {}
            With::Password => {
                fs::write(path("htpasswd"), HTPASSWD).unwrap();
                let file = path("htpasswd");
                config += "auth: {htpasswd: {realm: a registry, path: ";
                config += &(file + "}}\n");
            }
            With::Tls(certificates) => {
                let (certificate, key) = (certificates.path("server.pem"), certificates.path("key.pem"));
                config += &["  tls: {certificate: ", &certificate, ", key: ", &key, "}\n"].concat();
            }
        }
        fs::write(path("config.yml"), config).unwrap();
        let log = File::create(path("log")).unwrap();
        let mut command = Command::new("docker-registry");
        command.args(["serve", &path("config.yml")]).stdin(Stdio::null());
        let process = command
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("docker-registry is installed");
        let mut registry = Self { host, process, folder };
        let began = Instant::now();
        while TcpStream::connect(&registry.host).is_err() {
            let ended = registry.process.try_wait().unwrap();
            let log = || fs::read_to_string(registry.folder.path().join("log")).unwrap_or_default();
            assert!(ended.is_none() && began.elapsed() < Duration::from_secs(30), "{ended:?}: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
        registry
    }

    /// `docker://HOST:PORT/NAME`.
    pub fn name(&self, name: &str) -> String {
        format!("docker://{}/{name}", self.host)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
