//! The database image's entrypoint, run as it is but for its folders: what it sets up, and what it never empties.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mysql::prelude::Queryable;
use mysql::{Conn, OptsBuilder};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::server::free_port;

const SCRIPT: &str = include_str!("../../images/database/entrypoint.sh");
const PASSWORD: &str = "pa'ss\\word";

/// A container of the image: its volume, its folders, and programs that note what they are asked.
struct Image {
    folder: TempDir,
    port: u16,
    running: Option<Child>,
}

impl Image {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // The server's own user must come through.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let image = Self { folder, port: free_port(), running: None };
        fs::create_dir(image.data()).unwrap();
        fs::create_dir(image.path("tmp")).unwrap();
        fs::set_permissions(image.path("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
        let script = SCRIPT
            .replace("data=/var/lib/mysql", &format!("data={}", image.data().display()))
            .replace("run=/run/mysqld", &format!("run={}", image.path("run").display()));
        fs::write(image.path("entrypoint.sh"), script).unwrap();
        fs::create_dir(image.path("bin")).unwrap();
        for program in ["sync", "rm", "mv", "mariadbd", "mariadb-install-db"] {
            let noting = format!(
                "#!/bin/sh\nPATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n\
                 echo \"{program} $*\" >>{}\nexec {program} \"$@\"\n",
                image.path("asked").display()
            );
            fs::write(image.path("bin").join(program), noting).unwrap();
            fs::set_permissions(image.path("bin").join(program), fs::Permissions::from_mode(0o755)).unwrap();
        }
        image
    }

    fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    fn data(&self) -> PathBuf {
        self.path("data")
    }

    fn mark(&self) -> PathBuf {
        self.data().join(".tarsup-setting-up")
    }

    fn start(&mut self) {
        let log = fs::File::create(self.path("log")).unwrap();
        let path = format!(
            "{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            self.path("bin").display()
        );
        let child = Command::new("sh")
            .arg(self.path("entrypoint.sh"))
            .args(["--bind-address=127.0.0.1", "--innodb-buffer-pool-size=16M"])
            .arg(format!("--port={}", self.port))
            .env_clear()
            .env("PATH", path)
            .env("MYSQL_ROOT_PASSWORD", PASSWORD)
            // A server that starts clears away what others have in their temporary folder.
            .env("TMPDIR", self.path("tmp"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .process_group(0)
            .spawn()
            .unwrap();
        self.running = Some(child);
    }

    /// Kills every process of it, as `docker kill` does.
    fn kill(&mut self) {
        let Some(mut child) = self.running.take() else { return };
        let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
        let _ = child.wait();
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    fn asked(&self) -> Vec<String> {
        fs::read_to_string(self.path("asked")).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    fn session(&self) -> Result<Conn, mysql::Error> {
        let options = OptsBuilder::new()
            .ip_or_hostname(Some("127.0.0.1"))
            .tcp_port(self.port)
            .user(Some("root"))
            .pass(Some(PASSWORD))
            .prefer_socket(false);
        Conn::new(options)
    }

    fn await_session(&mut self) -> Conn {
        let begun = Instant::now();
        loop {
            match self.session() {
                Ok(session) => return session,
                Err(error) => {
                    let ended = self.running.as_mut().unwrap().try_wait().unwrap();
                    assert!(ended.is_none(), "{ended:?}: {}", self.log());
                    assert!(begun.elapsed() < Duration::from_mins(1), "{error}: {}", self.log());
                    std::thread::sleep(Duration::from_millis(30));
                }
            }
        }
    }

    /// To its end, where it is to end by itself.
    fn run_to_end(&mut self) -> Option<i32> {
        self.start();
        let begun = Instant::now();
        loop {
            if let Some(ended) = self.running.as_mut().unwrap().try_wait().unwrap() {
                return ended.code();
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "does not end: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A server that has served: a schema with a row in it.
    fn with_a_row() -> Self {
        let mut image = Self::new();
        image.start();
        let mut session = image.await_session();
        for statement in
            ["CREATE DATABASE db_tars", "CREATE TABLE db_tars.t (x int)", "INSERT INTO db_tars.t VALUES (42)"]
        {
            session.query_drop(statement).unwrap();
        }
        session.query_drop("SHUTDOWN").unwrap();
        image.running.take().unwrap().wait().unwrap();
        image
    }

    fn row(&mut self) -> Option<u32> {
        self.await_session().query_first("SELECT x FROM db_tars.t").unwrap()
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The names and sizes of all that lies below a folder.
fn listing(folder: &Path) -> Vec<(PathBuf, u64)> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let (path, about) = entry.map(|entry| (entry.path(), entry.metadata().unwrap())).unwrap();
        if about.is_dir() {
            entries.extend(listing(&path));
        }
        entries.push((path, if about.is_dir() { 0 } else { about.len() }));
    }
    entries.sort();
    entries
}

#[test]
fn empty_directory_is_set_up_and_settled_on_disk_before_it_serves() {
    let mut image = Image::new();
    image.start();
    let accounts: Vec<(String, String)> =
        image.await_session().query("SELECT user, host FROM mysql.global_priv ORDER BY 1, 2").unwrap();
    let accounts: Vec<_> = accounts.iter().map(|(user, host)| (user.as_str(), host.as_str())).collect();
    assert_eq!(
        accounts,
        [("mariadb.sys", "localhost"), ("root", "%"), ("root", "localhost"), ("tarsup_health", "localhost")]
    );
    assert!(!image.mark().exists());
    let asked = image.asked();
    let mark = image.mark().display().to_string();
    let removed =
        asked.iter().rposition(|line| line.starts_with("rm") && line.ends_with(&mark)).expect("a mark");
    let after: Vec<_> = asked[removed + 1..].iter().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(after, ["sync", "mariadbd"], "{asked:#?}");
    assert!(!asked.concat().contains("pa'ss"), "{asked:#?}");
}

#[test]
fn setup_that_is_killed_anywhere_is_done_by_the_next_start() {
    let mut image = Image::new();
    // Each step that is noted is a place to die at, and so is any moment between.
    for millis in [30, 150, 400, 900, 1500, 2200, 3000] {
        image.start();
        std::thread::sleep(Duration::from_millis(millis));
        image.kill();
    }
    image.start();
    assert_eq!(image.await_session().query_first::<u32, _>("SELECT 1").unwrap(), Some(1));
    image.kill();
    assert!(!image.mark().exists(), "{}", image.log());
}

#[test]
fn setup_that_is_killed_while_it_is_moved_up_is_taken_into_use() {
    let mut image = Image::with_a_row();
    // As if it had been killed before the last step: the schema of the server is not yet in its place.
    fs::create_dir_all(image.mark().join("data")).unwrap();
    fs::write(image.mark().join("complete"), "").unwrap();
    for entry in ["mysql", "ibdata1"] {
        fs::rename(image.data().join(entry), image.mark().join("data").join(entry)).unwrap();
    }
    image.start();
    assert_eq!(image.row(), Some(42));
    assert!(!image.mark().exists());
}

#[test]
fn mark_that_a_disk_brought_back_empties_nothing() {
    let mut image = Image::with_a_row();
    fs::create_dir_all(image.mark().join("data")).unwrap();
    image.start();
    assert_eq!(image.row(), Some(42), "{}", image.log());
    assert!(!image.mark().exists());
}

#[test]
fn mark_of_an_earlier_image_beside_tables_empties_nothing() {
    let mut image = Image::with_a_row();
    fs::write(image.mark(), "").unwrap();
    image.start();
    assert_eq!(image.row(), Some(42), "{}", image.log());
    assert!(image.log().contains("they are kept"), "{}", image.log());
}

#[test]
fn mark_of_an_earlier_image_without_tables_is_a_question_for_a_person() {
    let mut image = Image::new();
    image.start();
    drop(image.await_session());
    image.kill();
    fs::write(image.mark(), "").unwrap();
    let before = listing(&image.data());
    assert_eq!(image.run_to_end(), Some(1));
    assert!(image.log().contains("empty it by hand"), "{}", image.log());
    assert_eq!(listing(&image.data()), before);
}

#[test]
fn directory_of_somebody_else_is_left_as_it_is() {
    let mut image = Image::new();
    for (below, with_mark) in [("photos/cat.jpg", false), ("shop/orders.ibd", false), ("ibdata1", true)] {
        let path = image.data().join(below);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "x").unwrap();
        if with_mark {
            fs::create_dir_all(image.mark().join("data")).unwrap();
        }
        let before = listing(&image.data());
        assert_eq!(image.run_to_end(), Some(1), "{below}");
        assert!(image.log().contains("holds no MariaDB"), "{}", image.log());
        assert_eq!(listing(&image.data()), before);
    }
}
