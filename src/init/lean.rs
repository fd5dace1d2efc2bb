//! Memory of a process that lives for months: what its start needed once is given back to the system.
//!
//! glibc's allocator keeps a heap for each thread that ever ran beside another, and large blocks in them. It takes other
//! settings from the environment alone, before the first allocation: hence one more `exec`, which costs a millisecond.

use std::os::unix::process::CommandExt;
use std::process::Command;

const TUNABLES: &str = "GLIBC_TUNABLES";
/// One heap for all threads; what is 64 KiB or larger goes back as soon as it is free.
const LEAN: &str =
    "glibc.malloc.arena_max=1:glibc.malloc.mmap_threshold=65536:glibc.malloc.trim_threshold=65536";

/// Goes on as the same process with these settings; as it is, where that is not possible, or an operator has set others.
pub fn begin_again() {
    if std::env::var_os(TUNABLES).is_some() {
        return;
    }
    if let Ok(program) = std::env::current_exe() {
        // It returns only where it failed.
        let _ = Command::new(program).args(std::env::args_os().skip(1)).env(TUNABLES, LEAN).exec();
    }
}

/// Takes the settings out of what a program is started with: they are for this one.
pub fn keep_from(command: &mut Command) {
    if std::env::var_os(TUNABLES).is_some_and(|value| value == LEAN) {
        command.env_remove(TUNABLES);
    }
}
