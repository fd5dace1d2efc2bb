//! One backup: what there is to save is asked, dumped into a file that is not there before it is whole, and the oldest
//! beyond the number to keep are removed.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;

use super::inside::{Inside, Sink};
use super::shelf::{Header, Saved};
use super::{BackupError, Place, schemas};
use crate::deploy::Desired;
use crate::engine::Engine;
use crate::upgrade::DeployId;
use crate::upgrade::machine::Machine;

/// How a dump ends that is whole, whichever tool made it.
pub(super) const END: &[u8] = b"-- Dump completed";
/// No last line of a dump is longer.
const TAIL: usize = 256;
/// How often a dump is tried that somebody disturbs by changing a table.
const TRIES: usize = 3;
/// Before another try.
const PAUSE: Duration = Duration::from_secs(2);

/// What a database holds that is to be saved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The server's version.
    pub server: String,
    /// The schemas with tables, by name.
    pub schemas: Vec<Saved>,
    /// About how many bytes of data.
    pub bytes: u64,
    /// Tables that are not transactional, as `schema.table`.
    pub unsafe_tables: u64,
}

impl Told {
    /// How many tables there are.
    pub fn tables(&self) -> u64 {
        self.schemas.iter().map(|schema| schema.tables).sum()
    }

    /// In words.
    pub fn words(&self) -> String {
        let names: Vec<&str> = self.schemas.iter().map(|schema| schema.name.as_str()).collect();
        format!("{} ({} tables, about {})", names.join(", "), self.tables(), size(self.bytes))
    }
}

/// A size as a person reads it.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{} kB", bytes.div_ceil(1000)),
        1_000_000..1_000_000_000 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{}.{} GB", bytes / 1_000_000_000, bytes / 100_000_000 % 10),
    }
}

/// Asks what there is to save.
pub(super) async fn told(inside: &Inside<'_>, wanted: &[&str]) -> Result<Told, BackupError> {
    let list = wanted.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ");
    let sql = format!(
        "SELECT 'server', VERSION(), 0, 0, 0; SELECT 'schema', s.schema_name, COUNT(t.table_name), \
         COALESCE(SUM(t.data_length), 0), COALESCE(SUM(t.engine <> 'InnoDB'), 0) FROM information_schema.schemata s \
         LEFT JOIN information_schema.tables t ON t.table_schema = s.schema_name AND t.table_type = 'BASE TABLE' \
         WHERE s.schema_name IN ({list}) GROUP BY s.schema_name ORDER BY s.schema_name"
    );
    let mut answer = Vec::new();
    let sink: Sink<'_> = Box::new(|bytes| {
        answer.extend_from_slice(bytes);
        Ok(())
    });
    inside.run(&["ask", &sql], sink, None).await?;
    read(&String::from_utf8_lossy(&answer))
}

/// Reads the answer: a line for the server, and one for each schema.
fn read(answer: &str) -> Result<Told, BackupError> {
    let mut told = Told::default();
    for line in answer.lines() {
        let strange = || BackupError::Answer(line.chars().take(80).collect());
        let fields: Vec<&str> = line.split('\t').collect();
        let number = |text: &str| text.parse::<u64>().map_err(|_| strange());
        match fields[..] {
            ["server", version, ..] => version.clone_into(&mut told.server),
            ["schema", name, tables, bytes, unsafe_tables] => {
                let tables = number(tables)?;
                told.bytes += number(bytes)?;
                told.unsafe_tables += number(unsafe_tables)?;
                if tables > 0 {
                    told.schemas.push(Saved { name: name.to_owned(), tables });
                }
            }
            _ => return Err(strange()),
        }
    }
    if told.server.is_empty() { Err(BackupError::Answer(String::new())) } else { Ok(told) }
}

/// The options of a dump that is consistent and can be read by any later server.
fn options(told: &Told) -> Vec<&str> {
    let consistent = if told.unsafe_tables == 0 { "--single-transaction" } else { "--lock-all-tables" };
    let mut options = vec![
        consistent,
        "--quick",
        "--add-drop-table",
        "--routines",
        "--triggers",
        "--events",
        "--hex-blob",
        "--comments",
        "--no-tablespaces",
        "--default-character-set=utf8mb4",
        // Of one family of tools alone.
        "--loose-set-gtid-purged=OFF",
        "--loose-column-statistics=0",
        "--databases",
    ];
    options.extend(told.schemas.iter().map(|schema| schema.name.as_str()));
    options
}

/// What a backup would save, by the policy.
pub async fn look(
    engine: &dyn Engine,
    desired: &Desired,
    id: &DeployId,
    place: &Place,
    stop: watch::Receiver<bool>,
) -> Result<Told, BackupError> {
    let inside = Inside::open(engine, desired, id, place, stop).await?;
    let told = told(&inside, &schemas(desired)).await;
    // What stays of it is removed by the next run.
    let _ = inside.close().await;
    told
}

/// Makes a backup named after `id`; what it is, as a document, or nothing where the database holds no table.
pub async fn make(
    engine: &dyn Engine,
    machine: Machine<'_>,
    desired: &Desired,
    id: &DeployId,
    what: &str,
    place: &Place,
    stop: watch::Receiver<bool>,
) -> Result<Option<Value>, BackupError> {
    let inside = Inside::open(engine, desired, id, place, stop).await?;
    let mut made = within(&inside, machine, desired, id, what).await;
    for _ in 1..TRIES {
        if !matches!(&made, Err(error) if error.is_of_a_changed_table()) {
            break;
        }
        // A web console that starts does that: it takes a second, and leaves the other tables as they are.
        machine.reporter.say("       somebody changed a table meanwhile; saving the database once more");
        tokio::time::sleep(PAUSE).await;
        made = within(&inside, machine, desired, id, what).await;
    }
    if let Err(error) = inside.close().await {
        machine.reporter.say(&format!("warning: {} is not removed: {error}", inside.container));
    }
    made
}

async fn within(
    inside: &Inside<'_>,
    machine: Machine<'_>,
    desired: &Desired,
    id: &DeployId,
    what: &str,
) -> Result<Option<Value>, BackupError> {
    let told = told(inside, &schemas(desired)).await?;
    if told.schemas.is_empty() {
        machine.reporter.say("       the database holds no table: there is nothing to back up");
        return Ok(None);
    }
    let unwritten = |source| BackupError::Write { place: machine.folder.backup_place(), source };
    let header = Header::new(desired, machine, id, what, &told);
    let mut file = machine.folder.backup(&header).map_err(unwritten)?;
    let mut tail: VecDeque<u8> = VecDeque::new();
    let sink: Sink<'_> = Box::new(|bytes| {
        file.write(bytes).map_err(unwritten)?;
        tail.extend(&bytes[bytes.len().saturating_sub(TAIL)..]);
        let before = tail.len().saturating_sub(TAIL);
        tail.drain(..before);
        Ok(())
    });
    let mut words = vec!["dump"];
    words.extend(options(&told));
    inside.run(&words, sink, None).await?;
    if !is_whole(tail.make_contiguous()) {
        return Err(BackupError::CutOff);
    }
    let shelved = file.finish().map_err(unwritten)?;
    machine.reporter.say(&format!(
        "       the backup is {}: {}, {} compressed",
        shelved.path.display(),
        told.words(),
        size(shelved.bytes)
    ));
    match machine.folder.retire_backups(&desired.deployment) {
        Ok(gone) if gone.is_empty() => {}
        Ok(gone) => machine.reporter.say(&format!("       no longer kept: {}", gone.join(", "))),
        Err(error) => machine.reporter.say(&format!("warning: older backups are not removed: {error}")),
    }
    let name = shelved.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Some(json!({
        "file": name, "path": shelved.path, "bytes": shelved.bytes, "sha256": shelved.sha256,
        "server": told.server, "schemas": told.schemas,
    })))
}

/// True where the last line that is not empty is the tool's own end.
pub(super) fn is_whole(tail: &[u8]) -> bool {
    let text = tail.trim_ascii_end();
    let last = text.iter().rposition(|byte| *byte == b'\n').map_or(text, |at| &text[at + 1..]);
    last.starts_with(END)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_is_read_line_by_line_and_what_has_no_table_is_left_out() {
        let told = read(
            "server\t10.11.6-MariaDB-log\t0\t0\t0\nschema\tdb_tars\t28\t491520\t0\nschema\tdb_tars_web\t0\t0\t0\n\
             schema\ttarsup\t3\t49152\t1\n",
        )
        .unwrap();
        assert_eq!(told.words(), "db_tars, tarsup (31 tables, about 541 kB)");
        assert_eq!((told.unsafe_tables, options(&told)[0]), (1, "--lock-all-tables"));
        assert_eq!(options(&told).last(), Some(&"tarsup"));
        for strange in ["", "schema\tdb_tars\tmany\t0\t0\n", "ERROR 1045\n"] {
            assert!(read(strange).is_err(), "{strange:?}");
        }
    }

    #[test]
    fn dump_is_whole_with_its_own_last_line_only() {
        assert!(is_whole(b"/*!40101 SET x */;\n\n-- Dump completed on 2026-01-02  3:04:05\n"));
        assert!(is_whole(b"-- Dump completed\n\n"));
        assert!(!is_whole(b"-- Dump completed\nINSERT INTO t VALUES (1);\n"));
        assert!(!is_whole(b"INSERT INTO t VALUES ('-- Dump completed');\n"));
        assert!(!is_whole(b""));
    }

    #[test]
    fn sizes_are_rounded_for_people() {
        assert_eq!([size(1), size(1_500_000), size(2_340_000_000)], ["1 kB", "1 MB", "2.3 GB"]);
    }
}
