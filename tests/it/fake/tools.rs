//! The database's own tools inside containers of the fake engine: what they are asked, what they print, how they end.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use tarsup::engine::{Attached, EngineError, Executing, Printed, Result};

use super::attach::{Input, Writer};
use super::locked;
use super::world::World;

/// What MariaDB's tool says then.
const DISTURBED: &str = "mariadb-dump: Error 1412: Table definition has changed, please retry transaction when dumping table `t` at row: 0\n";

/// How long it takes until all that is sent has been read.
const READS: Duration = Duration::from_millis(10);

/// The tools of a container, and the database that they reach.
#[derive(Clone, Debug)]
pub struct Tools {
    /// False where there is none.
    pub are_there: bool,
    /// What they say of the schemas: a line each.
    pub answer: String,
    /// What a dump prints.
    pub dump: String,
    /// What a command other than `ask` says on its standard error, and how it ends.
    pub end: (String, i64),
    /// The same of `ask`.
    pub asked: (String, i64),
    /// Where the connection to the engine breaks in the middle of a dump.
    pub breaks: bool,
    /// Where a dump never ends.
    pub hangs: bool,
    /// How many more dumps find that somebody changes a table meanwhile.
    pub disturbed: Arc<AtomicUsize>,
}

impl Default for Tools {
    fn default() -> Self {
        Self {
            are_there: true,
            answer: "server\t10.11.6-MariaDB\t0\t0\t0\nschema\tdb_tars\t2\t4096\t0\nschema\ttarsup\t1\t1024\t0\n".to_owned(),
            dump: "CREATE TABLE t (a int);\nINSERT INTO t VALUES (1);\n-- Dump completed on 2026-01-02  3:04:05\n".to_owned(),
            end: (String::new(), 0),
            asked: (String::new(), 0),
            breaks: false,
            hangs: false,
            disturbed: Arc::default(),
        }
    }
}

/// A command that runs, or has run.
#[derive(Clone, Debug)]
pub(super) struct Exec {
    /// Its words after the script: what is asked.
    pub words: Vec<String>,
    input: Arc<Mutex<Input>>,
    code: i64,
}

impl Exec {
    /// All that it was sent.
    pub fn heard(&self) -> String {
        String::from_utf8_lossy(&locked(&self.input).bytes).into_owned()
    }
}

/// Begins a command with the tools of a container.
pub(super) fn begin(world: &mut World, call: &str, tools: &Tools, words: Vec<String>) -> Executing {
    let mode = words.first().map_or("", String::as_str);
    let (said, code) = match mode {
        _ if !tools.are_there => ("there is no mariadb in it, nor mysql\n".to_owned(), 127),
        "ask" => tools.asked.clone(),
        "dump" if is_disturbed(tools) => (DISTURBED.to_owned(), 2),
        _ => tools.end.clone(),
    };
    let printed = match mode {
        _ if !tools.are_there => String::new(),
        "ask" if code == 0 => {
            // Of schemas only those that it is asked about.
            let asked = |line: &&str| match line.split('\t').collect::<Vec<_>>()[..] {
                ["schema", name, ..] => words.iter().any(|word| word.contains(&format!("'{name}'"))),
                _ => true,
            };
            tools.answer.lines().filter(asked).fold(String::new(), |text, line| text + line + "\n")
        }
        "dump" => tools.dump.clone(),
        _ => String::new(),
    };
    let (half, rest) = printed.split_at(printed.len() / 2);
    let mut pieces: Vec<Result<Printed>> = vec![Ok(Printed::Stdout(half.to_owned().into()))];
    if mode == "dump" && tools.breaks {
        let why = "connection reset by peer".to_owned();
        pieces.push(Err(EngineError::Lost { call: call.to_owned(), why }));
    } else {
        pieces.push(Ok(Printed::Stdout(rest.to_owned().into())));
        pieces.push(Ok(Printed::Stderr(said.into())));
    }
    let input: Arc<Mutex<Input>> = Arc::default();
    let (heard, restores) = (input.clone(), mode == "restore");
    // Whoever reads on has read all before it ends, and one that needs no end ends once it has the account.
    let hangs = tools.hangs && mode == "dump";
    let ended = stream::once(async move {
        let is_done = |input: &Input| {
            input.is_closed || !restores && String::from_utf8_lossy(&input.bytes).contains("#end\n")
        };
        while code == 0 && !is_done(&locked(&heard)) {
            tokio::time::sleep(READS).await;
        }
        if hangs {
            std::future::pending::<()>().await;
        }
        Vec::new()
    });
    let output = ended.flat_map(stream::iter).chain(stream::iter(pieces));
    let id = world.next_id();
    world.execs.push((id.clone(), Exec { words, input: input.clone(), code }));
    Executing { id, streams: Attached { output: Box::pin(output), input: Box::pin(Writer(input)) } }
}

fn is_disturbed(tools: &Tools) -> bool {
    tools.disturbed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
}

/// How it ended.
pub(super) fn code(world: &World, id: &str) -> Option<i64> {
    world.execs.iter().find(|(known, _)| known == id).map(|(_, exec)| exec.code)
}
