//! Adoption on the real framework: upstream's start by the documented run lines, taken over as it runs, and moved to ours.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::lines::Lines;
use super::stage::{PREFIX, RELEASE, UPSTREAM_FRAMEWORK, stage, stage_with};
use crate::e2e::deployment::{Ran, wait_for};
use crate::e2e::stage::Stage;

const NET: &str = "tarsup-adopt";
const SUBNET: &str = "172.30.63";

/// What tarsup is asked in the folder of the lines.
struct Operator<'a> {
    stage: &'static Stage,
    lines: &'a Lines,
}

impl Operator<'_> {
    fn file(&self) -> PathBuf {
        self.lines.folder.path().join("compose.yaml")
    }

    fn tarsup(&self, words: &[&str]) -> Ran {
        let mut command = self.stage.tarsup();
        let output = command.args(words).stdin(Stdio::null()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ran { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// `tarsup WORDS -f compose.yaml`.
    fn on_file(&self, words: &[&str]) -> Ran {
        let file = self.file();
        let words: Vec<&str> = words.iter().copied().chain(["-f", file.to_str().unwrap()]).collect();
        self.tarsup(&words)
    }

    #[track_caller]
    fn has_nothing_to_do(&self) {
        let plan = self.on_file(&["plan", "--json"]).exits(0).json();
        assert_eq!((&plan["steps"], &plan["questions"]), (&json!([]), &json!([])), "{plan}");
    }
}

/// What the engine says of a container, less what time changes.
fn inspected(name: &str) -> Value {
    let output = Command::new("docker").args(["container", "inspect", name]).output().unwrap();
    let mut all: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut one = all[0].take();
    // Health checks come and go, and the engine shows mounts in no order.
    one["State"]["Health"] = Value::Null;
    one["ExecIDs"] = Value::Null;
    if let Some(mounts) = one["Mounts"].as_array_mut() {
        mounts.sort_by_key(|mount| mount["Destination"].to_string());
    }
    one
}

#[test]
fn real_run_lines_of_upstream_are_adopted_as_they_run_and_moved_to_our_image() {
    let test = "real_run_lines_of_upstream_are_adopted";
    let Some(images) = stage(test) else { return };
    stage_with(UPSTREAM_FRAMEWORK, test);
    let (upstream, ours) =
        (format!("{PREFIX}/{UPSTREAM_FRAMEWORK}:1"), format!("{PREFIX}/framework:{RELEASE}"));
    let lines = Lines::begin_on(NET, SUBNET);
    lines.framework("framework", 3, "false", &upstream);
    wait_for("upstream's first boot", || lines.answers());
    let web = format!("TARS_REGISTRY_ADDRESS=tcp -h {SUBNET}.3 -p 17890");
    lines.run("node", 5, "/data/tars", &["INET=eth0", &web], &format!("{PREFIX}/node:{RELEASE}"));
    wait_for("the node", || lines.is_well("node"));
    lines.query(
        "INSERT INTO db_tars.t_config_files (server_name, filename, config) VALUES ('E2e.Server', 'lines.conf', 'keep')",
    );
    let names = ["database", "framework", "node"].map(|service| format!("{NET}-{service}"));
    let before = names.each_ref().map(|name| inspected(name));
    let operator = Operator { stage: images, lines: &lines };
    let file = operator.file();

    let ran = operator
        .tarsup(&["adopt", &names[0], &names[1], &names[2], "-o", file.to_str().unwrap(), "--json"])
        .exits(0);

    let told = ran.json();
    let roles: Vec<&str> = told["services"]
        .as_array()
        .unwrap()
        .iter()
        .map(|service| service["role"].as_str().unwrap())
        .collect();
    assert_eq!(roles, ["database", "master", "node"], "{told}");
    assert!(
        told["services"].as_array().unwrap().iter().all(|service| service["unsaid"] == json!([])),
        "{told}"
    );
    let written = std::fs::read_to_string(&file).unwrap();
    assert!(!written.contains("lines-secret") && !ran.out.contains("lines-secret"), "{written}");
    let secrets = lines.folder.path().join(format!("{NET}-framework.env"));
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(secrets).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    operator.tarsup(&["adopt", &names[0], "-o", file.to_str().unwrap()]).exits(3);
    operator.has_nothing_to_do();
    operator.on_file(&["up", "--yes"]).exits(0);
    operator.on_file(&["status"]).exits(0);
    for (name, before) in names.iter().zip(&before) {
        let (now, before) = (inspected(name), before.as_object().unwrap());
        let changed: Vec<_> = before.iter().filter(|(key, value)| now[*key] != **value).collect();
        assert!(changed.is_empty(), "{name}: {changed:?}");
    }
    let service = names[1].as_str();
    operator.on_file(&["restart", service, "--yes"]).exits(3);
    let rows = lines.rows();

    operator.on_file(&["upgrade", "--image", &format!("{service}={ours}"), "--yes"]).exits(0);

    assert!(lines.is_well("framework") && lines.answers());
    assert_eq!(lines.rows(), rows);
    assert!(std::fs::read_to_string(&file).unwrap().contains(&format!("image: {ours}")));
    operator.has_nothing_to_do();
    let moved = inspected(service);
    let mounts = |one: &Value| -> Vec<Value> {
        let all = one["Mounts"].as_array().unwrap().iter();
        all.map(|mount| json!([mount["Type"], mount["Source"], mount["Destination"], mount["RW"]])).collect()
    };
    assert_eq!(mounts(&moved), mounts(&before[1]));
    for key in ["RestartPolicy", "NetworkMode"] {
        assert_eq!(moved["HostConfig"][key], before[1]["HostConfig"][key], "{key}");
    }
    let address = |one: &Value| one["NetworkSettings"]["Networks"][NET]["IPAddress"].clone();
    assert_eq!(address(&moved), address(&before[1]));
    assert_eq!(inspected(&names[2])["State"]["StartedAt"], before[2]["State"]["StartedAt"]);
}
