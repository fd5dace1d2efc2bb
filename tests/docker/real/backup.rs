//! A backup of the real framework's database: made before an upgrade and by hand, cut off in every way, put back row for row.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::stage::{PATCHED, RELEASE, stage};
use crate::e2e::deployment::{Deployment, PASSWORD, wait_for};
use crate::e2e::stage::succeed;
use crate::turns::is_for_another_time;

/// The schemas that are saved of a framework without its web console.
const SCHEMAS: [&str; 2] = ["db_tars", "tarsup"];

/// Every schema that is saved and is there, row by row in the order of keys, with its definitions, by another run of the tool.
fn content(deployment: &Deployment) -> String {
    let there = deployment.query("SHOW DATABASES");
    let there: Vec<&str> =
        SCHEMAS.into_iter().filter(|name| there.lines().any(|line| line == *name)).collect();
    let output = succeed(
        Command::new("docker")
            .args(["exec", "-e", &format!("MYSQL_PWD={PASSWORD}"), &deployment.container("database")])
            .args([
                "mariadb-dump",
                "-uroot",
                "-h127.0.0.1",
                "--order-by-primary",
                "--skip-dump-date",
                "--hex-blob",
            ])
            .args(["--skip-extended-insert", "--routines", "--events", "--databases"])
            .args(there),
    );
    let text = String::from_utf8(output.stdout).unwrap();
    // The next number of a table is a matter of the server's memory.
    let lines = text.lines().map(|line| line.split(" AUTO_INCREMENT=").next().unwrap_or(line));
    lines.collect::<Vec<_>>().join("\n")
}

fn tables(content: &str) -> usize {
    content.matches("\nCREATE TABLE ").count()
}

/// The names in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn listed(deployment: &Deployment) -> Vec<Value> {
    let list = deployment.tarsup(&["backup", "list", "--json"]).exits(0).json();
    list["backups"].as_array().unwrap().clone()
}

/// Rows that are easily spoiled on the way, and what is no table.
fn spice(deployment: &Deployment) {
    deployment.query(
        "INSERT INTO db_tars.t_config_files (server_name, filename, config) VALUES \
         ('E2e.Odd', 'odd', CONCAT('it''s a \\\\ \"quote\"\\n-- no comment\\n\\t;DELIMITER $$ ', CHAR(0), CHAR(26), 'ü €')); \
         CREATE TABLE db_tars.odd (a BLOB, b BIT(5), c DOUBLE, d TIMESTAMP(6) NULL, e VARCHAR(9) CHARACTER SET utf8mb4, f INT GENERATED ALWAYS AS (LENGTH(a)) VIRTUAL); \
         INSERT INTO db_tars.odd (a, b, c, d, e) VALUES (0x00FF0A0D271A5C22, b'10101', 1e-7, '2026-01-02 03:04:05.678901', '🦀'), (NULL, NULL, NULL, NULL, NULL); \
         CREATE TRIGGER db_tars.odd_trigger BEFORE INSERT ON db_tars.odd FOR EACH ROW SET NEW.c = IFNULL(NEW.c, 2); \
         CREATE VIEW db_tars.odd_view AS SELECT server_name FROM db_tars.t_config_files; \
         CREATE PROCEDURE db_tars.odd_procedure() SELECT 1; \
         CREATE EVENT db_tars.odd_event ON SCHEDULE EVERY 1 YEAR DO DELETE FROM db_tars.odd",
    );
}

fn over() -> Vec<String> {
    SCHEMAS.iter().flat_map(|name| ["--over".to_owned(), (*name).to_owned()]).collect()
}

fn restore(deployment: &Deployment, file: &str, more: &[String]) -> crate::e2e::deployment::Ran {
    let mut words = vec!["restore", file, "--yes"];
    words.extend(more.iter().map(String::as_str));
    deployment.tarsup(&words)
}

#[test]
fn real_backup_is_restored_row_for_row_and_never_over_what_nobody_named() {
    if is_for_another_time() {
        return;
    }
    let Some(stage) = stage("real_backup_is_restored_row_for_row") else { return };
    let deployment = Deployment::of(stage, RELEASE, "real-backup", 81, &["database", "framework"]);
    deployment.tarsup(&["up", "--yes"]).exits(0);
    spice(&deployment);
    // While it runs: what is saved is one moment's.
    let made = deployment.tarsup(&["backup", "--json"]).exits(0).json();
    let file = made["backup"]["file"].as_str().unwrap().to_owned();
    let folder = deployment.path(".tarsup/backups");
    assert_eq!(names(&folder), [file.clone(), format!("{file}.sha256")]);
    for name in names(&folder) {
        assert_eq!(fs::metadata(folder.join(&name)).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
    }
    succeed(Command::new("sha256sum").args(["-c", &format!("{file}.sha256")]).current_dir(&folder));
    let refused = restore(&deployment, &file, &over()).exits(3);
    assert!(
        refused.err.contains("`real-backup-framework` of the deployment run on the database"),
        "{}",
        refused.err
    );

    // Nothing writes any more: this one is what there is now.
    deployment.tarsup(&["down", "--yes"]).exits(0);
    let before = content(&deployment);
    assert!(tables(&before) > 20, "{} tables", tables(&before));
    let made = deployment.tarsup(&["backup"]).exits(0);
    let file = Path::new(made.out.trim()).file_name().unwrap().to_string_lossy().into_owned();
    assert_eq!(listed(&deployment).len(), 2);
    assert_eq!(listed(&deployment)[0]["sha256"].as_str().unwrap().len(), 64);

    let refused = restore(&deployment, &file, &[]).exits(3);
    assert!(refused.err.contains("db_tars, tarsup would be replaced"), "{}", refused.err);
    let all_but_one = &over()[2..];
    let refused = restore(&deployment, &file, all_but_one).exits(3);
    assert!(refused.err.contains("db_tars would be replaced"), "{}", refused.err);
    assert_eq!(content(&deployment), before, "a refusal sends nothing");

    // Over what is there.
    deployment.query(
        "DROP TABLE db_tars.t_server_conf; DELETE FROM db_tars.t_profile_template; UPDATE db_tars.odd SET c = 7; \
         DROP PROCEDURE db_tars.odd_procedure; CREATE TABLE db_tars.later (a INT)",
    );
    let restored = restore(&deployment, &file, &over()).exits(0);
    assert!(restored.err.contains("db_tars keeps tables that are not in the backup"), "{}", restored.err);
    deployment.query("DROP TABLE db_tars.later");
    assert!(content(&deployment) == before, "over living schemas: rows differ");

    // Into a server without them.
    deployment.query(&SCHEMAS.map(|name| format!("DROP DATABASE {name};")).concat());
    restore(&deployment, &file, &[]).exits(0);
    assert!(content(&deployment) == before, "into an empty server: rows differ");

    // A file that is damaged sends nothing.
    let path = folder.join(&file);
    let whole = fs::read(&path).unwrap();
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::write(&path, damaged).unwrap();
    deployment.query("DELETE FROM db_tars.odd");
    let refused = restore(&deployment, &file, &over()).exits(2);
    assert!(refused.err.contains("not those of its checksum"), "{}", refused.err);
    assert_eq!(deployment.query("SELECT COUNT(*) FROM db_tars.odd").trim(), "0");
    fs::write(&path, whole).unwrap();
    restore(&deployment, path.to_str().unwrap(), &over()).exits(0);

    // What comes up on it is what ran before.
    deployment.tarsup(&["up", "--yes"]).exits(0);
    wait_for("the master to be well", || deployment.answers("framework"));
    let history = deployment.tarsup(&["history"]).exits(0).out;
    assert!(history.contains(&format!("committed     restore {file}")), "{history}");

    // An upgrade makes one first, and the plan says so.
    let plan = deployment.tarsup(&["plan", "--to", PATCHED]).exits(0).out;
    assert!(plan.contains("save the database of real-backup-database to this machine"), "{plan}");
    let upgraded = deployment.tarsup(&["upgrade", "--to", PATCHED, "--yes"]).exits(0);
    assert!(upgraded.err.contains("the backup is "), "{}", upgraded.err);
    assert_eq!(listed(&deployment).len(), 3);
    assert_eq!(listed(&deployment)[0]["what"], format!("upgrade --to {PATCHED}"));
    let history = deployment.tarsup(&["history"]).exits(0).out;
    assert!(history.contains("the database as it was: "), "{history}");

    // So does a node's new address, which its master moves.
    let (old, new) = (deployment.address(3), deployment.address(9));
    let rows = |node: &str| {
        let query = format!("SELECT COUNT(*) FROM db_tars.t_server_conf WHERE node_name = '{node}'");
        deployment.query(&query).trim().parse::<u64>().unwrap()
    };
    let all = rows(&old);
    deployment.tarsup(&["readdress", &old, &new, "--dry-run"]).exits(0);
    assert!(all > 0 && rows(&old) == all);
    let moved = deployment.tarsup(&["readdress", &old, &new, "--yes"]).exits(0);
    assert!(moved.out.contains(&format!("moved {all} rows of t_server_conf")), "{}", moved.out);
    assert_eq!((rows(&old), rows(&new), listed(&deployment).len()), (0, all, 4));
    deployment.tarsup(&["readdress", &new, &old, "--yes", "--no-backup"]).exits(0);
    assert_eq!((rows(&old), rows(&new), listed(&deployment).len()), (all, 0, 4));
    let history = deployment.tarsup(&["history"]).exits(0).out;
    assert!(history.contains(&format!("committed     readdress {new} {old} --no-backup")), "{history}");
    deployment.holds_no_secret();
}

/// A folder on a disk of its own, as large as this.
struct TinyDisk(PathBuf);

impl TinyDisk {
    fn mount(path: PathBuf, size: &str) -> Self {
        fs::create_dir_all(&path).unwrap();
        succeed(
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(&path),
        );
        Self(path)
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// True while a dump runs in the database's container; its arguments hold no password.
fn is_dumping(deployment: &Deployment) -> bool {
    let output =
        succeed(Command::new("docker").args(["top", &deployment.container("database"), "-eo", "pid,args"]));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!text.contains(PASSWORD), "{text}");
    text.contains("mariadb-dump --defaults-extra-file")
}

/// Kills it, from inside.
fn kill_dump(deployment: &Deployment) {
    let find = "for f in /proc/[0-9]*/cmdline; do case $(tr '\\0' ' ' <$f) in mariadb-dump\\ *) p=${f#/proc/}; kill -9 ${p%/cmdline} ;; esac; done";
    succeed(Command::new("docker").args(["exec", &deployment.container("database"), "sh", "-c", find]));
}

#[test]
fn real_backup_that_is_cut_off_leaves_nothing_and_stops_nothing() {
    if is_for_another_time() {
        return;
    }
    let Some(stage) = stage("real_backup_that_is_cut_off") else { return };
    let deployment = Deployment::of(stage, RELEASE, "real-cut", 82, &["database", "framework"]);
    deployment.tarsup(&["up", "--yes"]).exits(0);
    let running = deployment.id("framework");
    let folder = deployment.path(".tarsup/backups");
    let stays = |what: &str| {
        assert_eq!(names(&folder), Vec::<String>::new(), "{what}: half a file");
        assert_eq!(deployment.id("framework"), running, "{what}");
        assert_eq!(deployment.inspect("framework")["State"]["Running"], true, "{what}");
        assert_eq!(
            deployment.tarsup(&["status", "--json"]).exits(0).json()["interrupted"],
            Value::Null,
            "{what}"
        );
    };

    // A wrong password.
    deployment.query(
        "ALTER USER root@localhost IDENTIFIED BY 'another'; ALTER USER root@'%' IDENTIFIED BY 'another'",
    );
    let refused = deployment.tarsup(&["upgrade", "--to", PATCHED, "--yes"]).exits(3);
    assert!(refused.err.contains("Access denied for user 'root'"), "{}", refused.err);
    assert!(refused.err.contains("the password that the deployment declares"), "{}", refused.err);
    let refused = deployment.tarsup(&["backup"]).exits(1);
    assert!(refused.err.contains("Access denied for user 'root'"), "{}", refused.err);
    stays("a wrong password");
    succeed(
        Command::new("docker")
            .args(["exec", "-e", "MYSQL_PWD=another", &deployment.container("database"), "mariadb", "-uroot", "-h127.0.0.1", "-e"])
            .arg(format!("ALTER USER root@'%' IDENTIFIED BY '{PASSWORD}'; ALTER USER root@localhost IDENTIFIED BY '{PASSWORD}'")),
    );

    // 150 MB that do not compress.
    deployment.query(
        "CREATE TABLE db_tars.large (a INT PRIMARY KEY, b LONGBLOB); \
         INSERT INTO db_tars.large SELECT seq, RANDOM_BYTES(1024) FROM db_tars.seq_1_to_1000; \
         INSERT INTO db_tars.large SELECT x.a + 1000 * s.seq, CONCAT(x.b, RANDOM_BYTES(1000)) FROM db_tars.large x, db_tars.seq_1_to_75 s; \
         ANALYZE TABLE db_tars.large",
    );

    // A full disk: seen before, and met in the middle.
    let disk = TinyDisk::mount(deployment.path("tiny"), "4m");
    let compose = deployment.read("compose.yaml");
    deployment.edit("compose.yaml", "dwell: 1s}", "dwell: 1s, backup: {to: tiny}}");
    let refused = deployment.tarsup(&["upgrade", "--to", PATCHED, "--yes"]).exits(3);
    assert!(refused.err.contains("has room for 4 MB, and it may take "), "{}", refused.err);
    let failed = deployment.tarsup(&["backup"]).exits(1);
    assert!(failed.err.contains("No space left on device"), "{}", failed.err);
    assert_eq!(names(&disk.0), Vec::<String>::new(), "half a file");
    drop(disk);
    deployment.write("compose.yaml", &compose);
    stays("a full disk");

    // The dump dies in the middle.
    let mut upgrade = deployment.spawn(&["upgrade", "--to", PATCHED, "--yes"]);
    let in_the_middle = |what: &str| wait_for(what, || is_dumping(&deployment) && !names(&folder).is_empty());
    in_the_middle("the dump to run");
    kill_dump(&deployment);
    let code = upgrade.wait().unwrap().code();
    let said = deployment.read("spawned.log");
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("the backup failed: the database's tool in `real-cut-database` ended with 137"),
        "{said}"
    );
    stays("a dump that dies");

    // tarsup is killed in the middle: nobody goes on dumping, and the next one clears what is left.
    let mut upgrade = deployment.spawn(&["upgrade", "--to", PATCHED, "--yes"]);
    in_the_middle("the dump to run again");
    upgrade.kill().unwrap();
    upgrade.wait().unwrap();
    wait_for("the dump to end with its tarsup", || !is_dumping(&deployment));
    assert_eq!(names(&folder).len(), 1);
    deployment.tarsup(&["resume", "--yes"]).exits(0);
    assert_eq!(deployment.id("framework"), running);
    let upgraded = deployment.tarsup(&["upgrade", "--to", PATCHED, "--yes"]).exits(0);
    assert!(upgraded.err.contains("the backup is "), "{}", upgraded.err);
    assert_eq!(names(&folder).len(), 2, "{:?}", names(&folder));
    assert_eq!(deployment.version("framework"), PATCHED);
    deployment.holds_no_secret();
}

#[test]
fn real_database_elsewhere_is_saved_from_the_image_that_is_named_or_by_the_operators_word() {
    if is_for_another_time() {
        return;
    }
    let Some(stage) = stage("real_database_elsewhere") else { return };
    let deployment = Deployment::of(stage, RELEASE, "real-else", 83, &["database", "framework"]);
    // To tarsup it is some service.
    deployment.edit("compose.yaml", "    x-tars: {role: database}\n", "");
    deployment.tarsup(&["up", "--yes"]).exits(0);
    let running = deployment.id("framework");
    let refused = deployment.tarsup(&["upgrade", "--to", PATCHED, "--yes"]).exits(3);
    assert!(
        refused.err.contains("no image with them is named") && refused.err.contains("--no-backup"),
        "{}",
        refused.err
    );
    deployment.edit("compose.yaml", "dwell: 1s}", "dwell: 1s, backup: {image: \"none:1\"}}");
    let refused = deployment.tarsup(&["upgrade", "--to", PATCHED, "--yes"]).exits(3);
    assert!(refused.err.contains("is not on the engine"), "{}", refused.err);
    assert_eq!(deployment.id("framework"), running);
    let image = deployment.inspect("database")["Config"]["Image"].as_str().unwrap().to_owned();
    deployment.edit("compose.yaml", "none:1", &image);
    let before = deployment.containers().len();

    let made = deployment.tarsup(&["backup", "--json"]).exits(0).json();
    assert!(made["backup"]["bytes"].as_u64().unwrap() > 1000);
    let upgraded = deployment.tarsup(&["upgrade", "--to", PATCHED, "--yes"]).exits(0);
    assert!(upgraded.err.contains("the backup is "), "{}", upgraded.err);
    assert_eq!(deployment.containers().len(), before + 1, "but for the parked one nothing stays");
    assert_eq!(listed(&deployment).len(), 2);

    // Put back from there, too.
    deployment.tarsup(&["down", "--yes"]).exits(0);
    if deployment.inspect("database")["State"]["Running"] != true {
        succeed(Command::new("docker").args(["start", &deployment.container("database")]));
        wait_for("the database", || {
            let mut ping = Command::new("docker");
            ping.args(["exec", &deployment.container("database"), "database-health"]);
            ping.output().unwrap().status.success()
        });
    }
    let newest = listed(&deployment)[0]["path"].as_str().unwrap().to_owned();
    let before = content(&deployment);
    deployment.query("DROP DATABASE db_tars");
    restore(&deployment, &newest, &over()).exits(0);
    assert_eq!(tables(&content(&deployment)), tables(&before));
    deployment.tarsup(&["up", "--yes"]).exits(0);

    // The operator's word, in the history.
    deployment.edit("compose.yaml", &format!(", backup: {{image: \"{image}\"}}"), "");
    deployment.tarsup(&["upgrade", "--to", RELEASE, "--yes", "--no-backup"]).exits(0);
    let history = deployment.tarsup(&["history"]).exits(0).out;
    assert!(history.contains(&format!("upgrade --to {RELEASE} --no-backup")), "{history}");
    assert_eq!(listed(&deployment).len(), 2);
    deployment.holds_no_secret();
}
