//! What is no regular file, wherever a file is expected: a pipe is never waited for, a device never read to its end.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

/// Each kind that is no file of anybody's, and how it is made.
pub const KINDS: [&str; 5] =
    ["a pipe", "a folder", "a link to /dev/zero", "a link to itself", "a file of 64 GiB"];

/// Makes it.
pub fn make(kind: &str, at: &Path) {
    match kind {
        "a pipe" => assert!(Command::new("mkfifo").arg(at).status().unwrap().success()),
        "a folder" => fs::create_dir(at).unwrap(),
        "a link to /dev/zero" => symlink("/dev/zero", at).unwrap(),
        "a link to itself" => symlink(at.file_name().unwrap(), at).unwrap(),
        // A device that answers as /dev/null does; only root makes one, and for others it is a pipe once more.
        "a device" => {
            let mut node = Command::new("mknod");
            node.arg(at).args(["c", "1", "3"]).stderr(std::process::Stdio::piped());
            if !node.status().unwrap().success() {
                make("a pipe", at);
            }
        }
        "a file of 64 GiB" => fs::File::create(at).unwrap().set_len(64 << 30).unwrap(),
        other => panic!("no kind {other}"),
    }
}
