//! Which columns the web console knows: its own models, loaded by its own sequelize, without a connection.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde::Deserialize;

use super::super::sql;
use crate::init::secret;

const SCRIPT: &str = include_str!("known.js");
/// What stands before the answer: the models may print something, too.
const MARK: &str = "tarsup-columns ";
/// It takes 0.4 s; a machine that is busy takes longer.
pub const LIMIT: Duration = Duration::from_secs(30);
/// More than any answer, in bytes.
const MOST: u64 = 8 << 20;

/// The tables that a web console brings to the shape of its models at its start, and the columns that these have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownColumns(BTreeMap<String, BTreeMap<String, KnownTable>>);

/// One of them: each column with the definition that it gets, or nothing where that is left alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct KnownTable(BTreeMap<String, Option<String>>);

impl KnownTable {
    /// True where the column stays.
    pub fn has(&self, column: &str) -> bool {
        self.0.contains_key(column)
    }

    /// What the column becomes; nothing where it stays as it is, or its definition is none that is understood.
    pub fn makes(&self, column: &str) -> Option<sql::Column> {
        let definition = self.0.get(column)?.as_ref()?;
        sql::column(&format!("{} {definition}", sql::name(column)))
    }
}

impl KnownColumns {
    /// The schemas that it has tables in.
    pub fn schemas(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The columns of a table; `None` for a table that it leaves alone. A server may keep table names in lower case.
    pub fn of(&self, schema: &str, table: &str) -> Option<&KnownTable> {
        let tables = self.0.get(schema)?;
        tables.get(table).or_else(|| {
            tables.iter().find(|(name, _)| name.eq_ignore_ascii_case(table)).map(|(_, columns)| columns)
        })
    }
}

/// Asks them; `Err` says in words why they do not tell. A web console without sequelize changes no table.
pub fn ask(node: &Path, web: &Path, limit: Duration) -> Result<KnownColumns, String> {
    if !web.join("node_modules/sequelize").is_dir() {
        return Ok(KnownColumns::default());
    }
    let mut command = Command::new(node);
    command.args(["-e", SCRIPT, "--"]).arg(web).current_dir(web);
    command.env("NODE_ENV", "production");
    secret::keep_from(&mut command);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("{} cannot be run: {error}", node.display()))?;
    let (said, complaint) = (child.stdout.take(), child.stderr.take());
    let complaint = thread::spawn(move || complaint.map(read).unwrap_or_default());
    let (sender, answer) = mpsc::channel();
    thread::spawn(move || sender.send(said.map(read).unwrap_or_default()));
    let Ok(answer) = answer.recv_timeout(limit) else {
        let _ = child.kill();
        let _ = child.wait();
        return Err(format!("no answer within {} s", limit.as_secs()));
    };
    // PID 1 may have reaped it already. What it printed says whether it came to its end.
    let _ = child.wait();
    let line = answer.lines().rev().find_map(|line| line.strip_prefix(MARK));
    let Some(known) = line.and_then(|line| serde_json::from_str(line).ok()).map(KnownColumns) else {
        let complaint = complaint.join().unwrap_or_default();
        let error = complaint.lines().find(|line| line.contains("Error"));
        return Err(error.unwrap_or("it ended without an answer").trim().chars().take(200).collect());
    };
    if known.0.values().all(BTreeMap::is_empty) {
        return Err("it has sequelize, and no models in folders of the name SCHEMA_models".to_owned());
    }
    Ok(known)
}

fn read(from: impl Read) -> String {
    let mut bytes = Vec::new();
    let _ = from.take(MOST).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::time::Instant;

    use super::*;

    /// A web console with sequelize, and a `node` that does as told.
    fn asked(script: &str, limit: Duration) -> Result<KnownColumns, String> {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("node_modules/sequelize")).unwrap();
        let node = folder.path().join("node");
        fs::write(&node, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&node, fs::Permissions::from_mode(0o755)).unwrap();
        ask(&node, folder.path(), limit)
    }

    #[test]
    fn answer_stands_behind_its_mark_among_whatever_is_printed() {
        let known = asked(
            "echo words; echo 'tarsup-columns {\"d\": {\"t\": {\"a\": null, \"b\": \"VARCHAR(16) DEFAULT 0\"}}}'; echo more",
            Duration::from_secs(20),
        )
        .unwrap();
        assert_eq!(known.schemas().collect::<Vec<_>>(), ["d"]);
        let table = known.of("d", "T").unwrap();
        assert!(table.has("a") && table.has("b") && !table.has("c"));
        assert_eq!((table.makes("a"), table.makes("c")), (None, None));
        let made = table.makes("b").unwrap();
        assert_eq!((made.kind.arguments, made.default.as_deref()), (vec!["16".to_owned()], Some("0")));
        assert_eq!((known.of("d", "u"), known.of("e", "t")), (None, None));
    }

    #[test]
    fn what_does_not_tell_is_unknown_and_never_nothing() {
        for (script, words) in [
            ("echo 'Error: Cannot find module' >&2; exit 1", "Cannot find module"),
            ("exit 0", "without an answer"),
            ("echo 'tarsup-columns {\"d\"'", "without an answer"),
            ("echo 'tarsup-columns {\"d\": {}}'", "no models"),
        ] {
            let why = asked(script, Duration::from_secs(20)).expect_err(script);
            assert!(why.contains(words), "{script}: {why}");
        }
        let begun = Instant::now();
        let why = asked("exec sleep 60", Duration::from_millis(200)).unwrap_err();
        assert!(why.contains("no answer within"), "{why}");
        assert!(begun.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn web_console_without_sequelize_changes_no_table() {
        let folder = tempfile::tempdir().unwrap();
        let known = ask(Path::new("/nowhere/node"), folder.path(), LIMIT);
        assert_eq!(known, Ok(KnownColumns::default()));
    }
}
