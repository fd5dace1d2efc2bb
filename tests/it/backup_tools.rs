//! Which tools of a container's image save and restore a database, by their names: the script that runs there, with programs that
//! tell what they are asked. MySQL's own images have `mysql` and `mysqldump`, MariaDB's newer ones only the other two.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// What each program prints: its name, the account that it reads, its arguments, and what it is sent.
const PROGRAM: &str = "#!/bin/sh
name=${0##*/}
account=$(cat \"${1#--defaults-extra-file=}\")
shift
case $* in '-e SELECT 1') exit 0 ;; esac
echo \"$name|$(echo $account)|$*|$(if [ $name != mysqldump ] && [ $1 = --batch ] && [ $# = 1 ]; then cat; fi)\"
";

/// A container's `/usr/bin` with these tools and no other.
fn with_tools(tools: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    symlink("/bin/cat", folder.path().join("cat")).unwrap();
    for tool in tools {
        let path = folder.path().join(tool);
        fs::write(&path, PROGRAM).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    folder
}

fn ran(tools: &[&str], words: &[&str], sent: &str) -> Output {
    let folder = with_tools(tools);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/upgrade/backup/inside.sh");
    let mut child = Command::new("/bin/sh")
        .arg(script)
        .args(words)
        .env_clear()
        .env("PATH", folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(format!("[client]\nuser=\"root\"\nhost=\"db\"\n#end\n{sent}").as_bytes()).unwrap();
    drop(input);
    child.wait_with_output().unwrap()
}

fn said(tools: &[&str], words: &[&str], sent: &str) -> String {
    let output = ran(tools, words, sent);
    assert!(output.status.success(), "{tools:?} {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

const ACCOUNT: &str = "[client] user=\"root\" host=\"db\"";

#[test]
fn tools_of_mysql_are_taken_where_those_of_mariadb_are_not_there() {
    let of_mysql = ["mysql", "mysqldump"];
    let asked = said(&of_mysql, &["ask", "SELECT 2"], "");
    assert_eq!(asked, format!("mysql|{ACCOUNT}|--batch --skip-column-names -e SELECT 2|\n"));
    let dumped = said(&of_mysql, &["dump", "--databases", "db_tars"], "");
    assert_eq!(dumped, format!("mysqldump|{ACCOUNT}|--databases db_tars|\n"));
    let restored = said(&of_mysql, &["restore"], "INSERT 1;\n");
    assert_eq!(restored, format!("mysql|{ACCOUNT}|--batch|INSERT 1;\n"));

    let of_both = ["mysql", "mysqldump", "mariadb", "mariadb-dump"];
    assert!(said(&of_both, &["ask", "SELECT 2"], "").starts_with("mariadb|"));
    assert!(said(&of_both, &["dump", "x"], "").starts_with("mariadb-dump|"));
}

#[test]
fn tool_that_is_missing_is_named_before_anything_is_asked() {
    for (tools, words, missing) in [
        (&["mysqldump"][..], &["ask", "SELECT 2"][..], "there is no mariadb in it, nor mysql\n"),
        (&["mysql"], &["ask", "SELECT 2"], "there is no mariadb-dump in it, nor mysqldump\n"),
        (&["mariadb"], &["dump", "x"], "there is no mariadb-dump in it, nor mysqldump\n"),
    ] {
        let output = ran(tools, words, "");
        assert_eq!(
            (output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()),
            (Some(127), missing)
        );
        assert!(output.stdout.is_empty());
    }
    assert!(said(&["mysql"], &["restore"], "").starts_with("mysql|"), "a restore needs no dump tool");
}
