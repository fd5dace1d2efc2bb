//! Marked passwords through the whole life of a deployment: in no output, file, label or list of processes.
//!
//! Passwords in files and TLS: `real/secrets.rs`. What is refused before an engine is asked, and an engine's and a
//! registry's nonsense: `tests/hostile`.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::deployment::{Deployment, PASSWORD, Ran, wait_for};
use super::stage::{NEW, OLD, succeed};
use crate::turns::is_for_another_time;

/// In the place of passwords, each by another way: every one begins alike.
const MARK: &str = "MARKED-2026-";
const OF_SHELL: (&str, &str) = ("FROM_SHELL", "MARKED-2026-shell");
/// What a person writes, and whoever may read the folder may read.
const OWN: [&str; 3] = [".env", "secrets.env", "compose.yaml"];

/// Runs a command with a mark in the shell's environment, however it ends: nothing of it shows.
#[track_caller]
fn run(deployment: &Deployment, words: &[&str]) -> Ran {
    let ran = deployment.tarsup_with(words, &[OF_SHELL]);
    for (of, text) in [("stdout", &ran.out), ("stderr", &ran.err)] {
        assert!(!text.contains(MARK), "{words:?} shows a mark on {of}: {text}");
    }
    ran
}

/// Files below a folder that hold a mark or the password, each with its mode.
fn marked(folder: &Path) -> Vec<(PathBuf, u32)> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(next) = folders.pop() {
        for path in fs::read_dir(next).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
            if text.contains(MARK) || text.contains(PASSWORD) {
                found.push((path.clone(), fs::metadata(&path).unwrap().permissions().mode() & 0o777));
            }
        }
    }
    found
}

/// No file but the person's own and those for the owner alone, which are what a container is made from once more; no label.
#[track_caller]
fn shows_nowhere(deployment: &Deployment) {
    for (path, mode) in marked(&deployment.path("")) {
        let is_own = OWN.iter().any(|own| path == deployment.path(own));
        let is_kept = path.parent().is_some_and(|folder| folder.ends_with(".tarsup/parked"));
        assert!(is_own || is_kept && mode == 0o600, "{} ({mode:o}) holds a mark", path.display());
    }
    for container in deployment.containers() {
        let format = "{{json .Config.Labels}} {{json .Args}} {{json .Path}}";
        let output = succeed(Command::new("docker").args(["inspect", "--format", format, &container]));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(!text.contains(MARK) && !text.contains(PASSWORD), "{container}: {text}");
    }
}

/// Command lines of all processes of this machine that hold a mark; docker's own are the test's.
fn shown_by_processes(until: &AtomicBool, found: &Mutex<BTreeSet<String>>, looked: &Mutex<BTreeSet<String>>) {
    while !until.load(Ordering::Relaxed) {
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Ok(line) = fs::read(entry.path().join("cmdline")) else { continue };
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            let program = line.split(' ').next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
            if program == "tarsup" || program == "tars-init" {
                looked.lock().unwrap().insert(program.to_owned());
            }
            if line.contains(MARK) {
                found.lock().unwrap().insert(line);
            }
        }
        // A pause between two looks, not a wait for something.
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

fn declare(deployment: &Deployment) {
    deployment.write("secrets.env", &format!("OF_FILE={MARK}file\n"));
    deployment.write(".env", &format!("{}OF_DOTENV={MARK}dotenv\n", deployment.read(".env")));
    deployment.edit(
        "compose.yaml",
        "      SLAVE: \"false\"\n",
        &format!(
            "      SLAVE: \"false\"\n      DSN: \"mysql://root:${{OF_DOTENV}}@h/db\"\n      KEY: \"${{FROM_SHELL}}\"\n      \
             WRITTEN: {MARK}written\n    env_file: [secrets.env]\n"
        ),
    );
}

fn life(deployment: &Deployment) {
    let all = |commands: &[&[&str]]| {
        for words in commands {
            run(deployment, words).exits(0);
            shows_nowhere(deployment);
        }
    };
    let looks: &[&[&str]] = &[
        &["config"],
        &["plan"],
        &["status"],
        &["status", "--json"],
        &["services"],
        &["images"],
        &["history"],
        &["history", "show"],
    ];
    all(&[&["config"], &["config", "--json"], &["plan", "--json"], &["up", "--yes"]]);
    wait_for("the master to be well", || deployment.answers("framework"));
    all(looks);

    // Another engine than there is, named with a password.
    let host = format!("tcp://user:{MARK}host@127.0.0.1:9");
    let lost = deployment.tarsup_with(&["status"], &[OF_SHELL, ("DOCKER_HOST", &host)]);
    assert!(lost.code != 0 && !(lost.out + &lost.err).contains(MARK), "a lost engine");

    // A successor that prints all that it knows, on both ways, and dies: it is told of, without the values.
    let sound = deployment.read("compose.yaml");
    deployment.write("dying", "#!/bin/sh\necho all: $(env | grep -e MARKED)\nexit 3\n");
    fs::set_permissions(deployment.path("dying"), fs::Permissions::from_mode(0o755)).unwrap();
    deployment.edit(
        "compose.yaml",
        "[\"framework:/data/tars\"]",
        "[\"framework:/data/tars\", \"./dying:/usr/local/app/tars/tarsconfig/bin/tarsconfig:ro\"]",
    );
    deployment.edit("compose.yaml", "gate_timeout: 90s", "gate_timeout: 15s");
    for words in [&["upgrade", "--to", NEW, "--yes"][..], &["upgrade", "--to", NEW, "--yes", "--json"]] {
        let failed = run(deployment, words).exits(4);
        let told = failed.out + &failed.err;
        for name in ["OF_FILE", "KEY", "WRITTEN"] {
            assert!(told.contains(&format!("{name}=***")), "{name} is not quoted: {told}");
        }
        shows_nowhere(deployment);
        all(looks);
    }
    // And one that is killed in the middle, looked at, and gone on with.
    let mut child = deployment
        .command(&["upgrade", "--to", NEW, "--yes"])
        .env(OF_SHELL.0, OF_SHELL.1)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let parked = format!("{}.old.", deployment.container("framework"));
    wait_for("the master to be parked", || {
        deployment.containers().iter().any(|name| name.starts_with(&parked))
    });
    child.kill().unwrap();
    child.wait().unwrap();
    shows_nowhere(deployment);
    run(deployment, &["status"]);
    let resumed = run(deployment, &["resume", "--yes"]);
    assert!(matches!(resumed.code, 0 | 4), "{}: {}", resumed.code, resumed.err);
    shows_nowhere(deployment);

    deployment.write("compose.yaml", &sound);
    run(deployment, &["up", "--yes"]).exits(0);
    wait_for("the master to be well", || deployment.answers("framework"));
    assert_eq!(deployment.version("framework"), OLD);
    all(&[
        &["upgrade", "--to", NEW, "--yes"],
        &["rollback", "--yes"],
        &["restart", "--yes"],
        &["prune", "--yes"],
    ]);

    let made = run(deployment, &["backup", "--json"]).exits(0).json();
    let file = made["backup"]["file"].as_str().unwrap().to_owned();
    // Refused while services run, and carried out once they do not.
    run(deployment, &["restore", &file, "--yes"]).exits(3);
    run(deployment, &["down", "--yes"]).exits(0);
    let mut restore = vec!["restore", &file, "--yes"];
    for schema in ["db_base", "db_cache_web", "db_tars", "db_tars_web", "db_user_system", "tarsup"] {
        restore.extend(["--over", schema]);
    }
    all(&[&restore, &["up", "--yes"]]);
    all(looks);
    adopted(deployment);
    all(&[&["down", "--yes"]]);
}

/// Containers that somebody made by hand with marks in their environment, adopted: the marks go into files for the owner alone.
fn adopted(deployment: &Deployment) {
    let image = deployment.inspect("framework")["Image"].as_str().unwrap().to_owned();
    let by_hand = "e2e-marked-by-hand";
    let values = [
        format!("DB_PASSWORD={MARK}named"),
        format!("STORE=mysql://root:{MARK}url@h/db"),
        format!("DRIVER=root:{MARK}driver@tcp(h:3306)/db"),
        format!("QUOTED_TOKEN={MARK}'\"$x\\"),
    ];
    let variables = tempfile::NamedTempFile::new().unwrap();
    fs::write(&variables, values.join("\n")).unwrap();
    let create = ["create", "--name", by_hand, "--env-file"];
    succeed(Command::new("docker").args(create).arg(variables.path()).arg(&image));
    let folder = deployment.path("adopted");
    fs::create_dir(&folder).unwrap();
    let file = folder.join("compose.yaml");
    let adopt = |words: &[&str]| {
        let output = deployment.program().args(["adopt", by_hand]).args(words).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !text.contains(MARK), "adopt {words:?}: {text}");
        text.into_owned()
    };
    assert!(adopt(&[]).contains("x-tars"));
    adopt(&["--json", "-o", file.to_str().unwrap()]);
    let found = marked(&folder);
    assert_eq!(found, [(folder.join(format!("{by_hand}.env")), 0o600)]);
    let kept = fs::read_to_string(&found[0].0).unwrap();
    assert_eq!(kept.matches(MARK).count(), values.len(), "each of them, and once: {}", kept.lines().count());
    for words in [&["config"][..], &["plan"], &["plan", "--json"]] {
        let output = deployment.program().args(words).arg("-f").arg(&file).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !text.contains(MARK), "{words:?}: {text}");
    }
    succeed(Command::new("docker").args(["rm", by_hand]));
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn marked_passwords_through_a_whole_life_show_nowhere() {
    if is_for_another_time() {
        return;
    }
    let deployment = Deployment::new("e2e-marked", 99, &["database", "framework"]);
    declare(&deployment);
    let (done, found, looked) = (AtomicBool::new(false), Mutex::default(), Mutex::default());
    std::thread::scope(|scope| {
        scope.spawn(|| shown_by_processes(&done, &found, &looked));
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| life(&deployment)));
        done.store(true, Ordering::Relaxed);
        ended.unwrap_or_else(|cause| std::panic::resume_unwind(cause));
    });
    let (found, looked) = (found.into_inner().unwrap(), looked.into_inner().unwrap());
    assert!(looked.len() == 2, "processes that were seen: {looked:?}");
    assert!(found.is_empty(), "{found:?}");
}
