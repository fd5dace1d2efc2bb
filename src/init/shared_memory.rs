//! `tars-init shared-memory`: what ends with the last process of this container, as lines for `tarsup`, which says what of it
//! matters. An image need not have a shell for that.

use std::fs;
use std::io::Write;

use super::failure::Failure;
use super::processes;

/// Prints `segment ID SIZE CREATOR LAST`, `process PID NAME`, `attached PID ID`, `file NAME` of `/dev/shm`, and `end`.
pub fn run() -> Result<(), Failure> {
    let mut lines = Vec::new();
    let table = fs::read_to_string("/proc/sysvipc/shm").map_err(|error| {
        Failure::new(super::failure::Code::Internal, format!("cannot read /proc/sysvipc/shm: {error}."), "")
    })?;
    for line in table.lines().skip(1) {
        if let [_, id, _, size, creator, last, ..] = line.split_whitespace().collect::<Vec<_>>()[..] {
            lines.push(format!("segment {id} {size} {creator} {last}"));
        }
    }
    for pid in processes::all() {
        lines.push(format!("process {pid} {}", processes::command_name(pid)));
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
        // `7f.. rw-s 00000000 00:01 98304 /SYSV0000162e (deleted)`: the inode is the segment's id.
        for id in
            maps.lines().filter(|line| line.contains(" /SYSV")).filter_map(|it| it.split_whitespace().nth(4))
        {
            lines.push(format!("attached {pid} {id}"));
        }
    }
    for entry in fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_file()) {
            lines.push(format!("file {}", entry.file_name().to_string_lossy()));
        }
    }
    lines.push("end".to_owned());
    // Nobody reads where the pipe is closed.
    let _ = writeln!(std::io::stdout().lock(), "{}", lines.join("\n"));
    Ok(())
}
