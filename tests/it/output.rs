//! A result that reaches nobody is no success, whichever command has it; a person who has seen enough is no failure.

use std::process::{Command, Output, Stdio};

use crate::packages::Workshop;

/// What becomes of standard output.
const CLOSED: &str = ">&-";
const FULL: &str = ">/dev/full";
const ENOUGH: &str = "| head -c 0";

/// Runs `tarsup ARGUMENTS` with its standard output led there. The code is tarsup's own, not that of who reads.
fn run(workshop: &Workshop, arguments: &str, to: &str) -> Output {
    let program = env!("CARGO_BIN_EXE_tarsup");
    let mut command = Command::new("bash");
    command
        .args(["-c", &format!("set -o pipefail; exec 3>&1; {{ '{program}' {arguments} 3>&-; }} {to}")])
        .current_dir(workshop.folder.path())
        .env("TARSUP_STORE", workshop.path("store"))
        .env("TARSUP_CACHE", workshop.path("cache"))
        .env("DOCKER_HOST", "unix:///nowhere.sock");
    command.output().unwrap()
}

/// The same into a pipe that has lost its reader before anything is said: nothing depends on who is sooner.
fn unread(workshop: &Workshop, arguments: &str) -> Output {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = workshop.command(&arguments.split(' ').collect::<Vec<_>>());
    command.env("DOCKER_HOST", "unix:///nowhere.sock").stdout(writer).stderr(Stdio::piped());
    command.spawn().unwrap().wait_with_output().unwrap()
}

fn workshop() -> Workshop {
    let workshop = Workshop::new();
    workshop.json(&["build", "framework.yaml"]);
    workshop.json(&["build", "framework.yaml", "--version", "2"]);
    workshop.write("compose.yaml", "services: {a: {image: x}}\n");
    workshop
}

/// Every command that has a result without an engine.
const COMMANDS: [&str; 10] = [
    "build framework.yaml",
    "build framework.yaml --plan",
    "config",
    "copy tars/framework:2 oci:out:1",
    "copy tars/framework:2 oci:out:1 --dry-run",
    "diff tars/framework:2 tars/framework:3.0.17",
    "history",
    "images",
    "inspect tars/framework:2",
    "store verify",
];

#[test]
fn document_that_reaches_nobody_is_exit_1_and_says_so() {
    let workshop = workshop();
    for command in COMMANDS {
        for to in [CLOSED, FULL] {
            let output = run(&workshop, &format!("{command} --json"), to);
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{command} {to}: {said}");
            assert!(
                said.contains("the result cannot be written to standard output: "),
                "{command} {to}: {said}"
            );
        }
        let output = run(&workshop, &format!("{command} --json"), ">/dev/null");
        assert_eq!(output.status.code(), Some(0), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    }
    // Nobody reads any more, from the beginning: what is written first finds that out.
    for command in COMMANDS {
        let output = unread(&workshop, &format!("{command} --json"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{command}: {said}");
        assert!(
            said.contains("the result cannot be written to standard output: Broken pipe"),
            "{command}: {said}"
        );
    }
    // A failure has a code of its own, wherever its document goes.
    assert_eq!(unread(&workshop, "inspect tars/none:1 --json").status.code(), Some(2));
    for to in [CLOSED, FULL] {
        let output = run(&workshop, "inspect tars/none:1 --json", to);
        assert_eq!(output.status.code(), Some(2), "{to}");
    }
}

#[test]
fn text_that_a_person_has_seen_enough_of_is_no_failure_and_one_that_is_lost_is() {
    let workshop = workshop();
    for command in COMMANDS {
        for (to, code) in [(CLOSED, 1), (FULL, 1), (ENOUGH, 0)] {
            let output = run(&workshop, command, to);
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(code), "{command} {to}: {said}");
        }
    }
    for command in ["--help", "--version", "build --help"] {
        for (to, code) in [(CLOSED, 1), (FULL, 1), (">/dev/null", 0)] {
            assert_eq!(run(&workshop, command, to).status.code(), Some(code), "{command} {to}");
        }
    }
}
