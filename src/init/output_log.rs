//! What the programs print: a file each in the volume, cut off before it fills the disk. The web console logs every
//! statement that it sends.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::paths::Paths;
use super::secret;

/// How large one may get before it is put aside, in bytes.
pub const LIMIT: u64 = 10 << 20;
/// How many older ones are kept beside it.
const KEPT: usize = 3;
/// Owner and group: what a program prints is not for everybody.
const MODE: u32 = 0o640;
/// How many of the last lines are shown when a program dies, and how much of each.
const LAST_LINES: usize = 5;
const LINE: usize = 300;
/// What is read for them, in bytes.
const TAIL: u64 = 16 << 10;

/// Begins a program's file anew. It is written at its end, wherever that is by then, so that it can be cut off.
pub fn begin(paths: &Paths, name: &str) -> io::Result<File> {
    let file = OpenOptions::new().append(true).create(true).mode(MODE).open(paths.output_log(name))?;
    file.set_len(0)?;
    Ok(file)
}

/// Puts aside what has become larger than `limit`: a copy, and the file itself goes on from nothing, because the program
/// holds it open. What is printed between the two is lost.
pub fn rotate(paths: &Paths, limit: u64) -> io::Result<()> {
    let Some(folder) = paths.output_log("any").parent().map(Path::to_owned) else { return Ok(()) };
    for entry in fs::read_dir(folder)?.filter_map(Result::ok) {
        let path = entry.path();
        let is_log = path.extension().is_some_and(|extension| extension == "log");
        if is_log && entry.metadata().is_ok_and(|metadata| metadata.len() > limit) {
            for n in (1..KEPT).rev() {
                let _ = fs::rename(aside(&path, n), aside(&path, n + 1));
            }
            let mut copy = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(MODE)
                .open(aside(&path, 1))?;
            io::copy(&mut File::open(&path)?, &mut copy)?;
            OpenOptions::new().write(true).open(&path)?.set_len(0)?;
        }
    }
    Ok(())
}

fn aside(path: &Path, n: usize) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{name}.{n}"))
}

/// The last lines that a program printed, without these secrets, each cut to what a person reads.
pub fn tail(paths: &Paths, name: &str, secrets: &[&str]) -> Vec<String> {
    last_lines(&paths.output_log(name), secrets)
}

/// The same of any file.
pub fn last_lines(file: &Path, secrets: &[&str]) -> Vec<String> {
    let read = || -> io::Result<Vec<u8>> {
        if !fs::metadata(file)?.is_file() {
            return Ok(Vec::new());
        }
        let mut file = File::open(file)?;
        let from = file.metadata()?.len().saturating_sub(TAIL);
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.take(TAIL).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let text = String::from_utf8_lossy(&read().unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(LAST_LINES)..]
        .iter()
        .map(|line| cut(&secret::masked(line, secrets)))
        .collect()
}

fn cut(line: &str) -> String {
    match line.char_indices().nth(LINE) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn log_is_cut_off_under_the_program_that_writes_it_and_a_few_are_kept() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        let log = paths.output_log("web");
        fs::create_dir_all(log.parent().unwrap()).unwrap();
        let mut file = begin(&paths, "web").unwrap();
        for round in 0..6 {
            writeln!(file, "{round} {}", "x".repeat(200)).unwrap();
            rotate(&paths, 100).unwrap();
            assert_eq!(fs::metadata(&log).unwrap().len(), 0);
        }
        let first = |n: usize| fs::read_to_string(aside(&log, n)).unwrap().chars().next();
        assert_eq!((1..=3).map(first).collect::<Vec<_>>(), [Some('5'), Some('4'), Some('3')]);
        assert!(!aside(&log, 4).exists());
        writeln!(file, "short").unwrap();
        rotate(&paths, 100).unwrap();
        assert_eq!(fs::read_to_string(&log).unwrap(), "short\n", "no hole before it");
        for path in [log, aside(&paths.output_log("web"), 1)] {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o640);
        }
    }

    #[test]
    fn last_words_are_few_and_short() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        fs::create_dir_all(paths.output_log("web").parent().unwrap()).unwrap();
        let mut file = begin(&paths, "web").unwrap();
        for n in 0..20 {
            writeln!(file, "{n} {}\n", "ä".repeat(3000)).unwrap();
        }
        writeln!(file, "the end").unwrap();
        let lines = tail(&paths, "web", &[]);
        assert_eq!(lines.last().map(String::as_str), Some("the end"));
        assert!(
            lines.len() <= LAST_LINES && lines.iter().all(|line| line.chars().count() <= LINE + 1),
            "{lines:?}"
        );
        assert_eq!(tail(&paths, "nothing", &[]), Vec::<String>::new());
    }
}
