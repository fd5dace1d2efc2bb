//! A real master of upstream's 2.4.17 with `REBUILD=true` left in its environment: adopted, moved to ours of 3.0.17 and back, and
//! never started again, as its start drops the database; every table is compared at each station.

use std::process::Command;

use super::adopt::{NODE_OBJECT, Operator, VERSIONS, changed, console_stays, inspected};
use super::lines::Lines;
use super::stage::{PREFIX, UPSTREAM_FORMER, WITH_WEB, WRONG, stage, stage_with};
use super::tables::Tables;
use crate::e2e::deployment::wait_for;
use crate::e2e::stage::succeed;
use crate::turns::is_for_another_time;

const NET: &str = "tarsup-rebuild";
const SUBNET: &str = "172.30.65";
const FRAMEWORK: &str = "tarsup-rebuild-framework";

struct Station<'a> {
    lines: &'a Lines,
    /// The container with the forbidden value, and when nobody had touched it yet.
    original: String,
    since: String,
}

impl Station<'_> {
    fn tables(&self) -> Tables {
        Tables::read(&|sql| self.lines.query(sql))
    }

    /// A value that 3.0.17 ships otherwise than 2.4.17.
    fn timeout(&self) -> String {
        self.lines.query(
            "SELECT REGEXP_SUBSTR(REPLACE(profile, ' ', ''), 'activating-timeout=[0-9]0000') FROM \
             db_tars.t_profile_template WHERE template_name = 'tars.default'",
        )
    }

    /// Nothing of the database is lost, and the original has not run again.
    #[track_caller]
    fn holds(&self, what: &str, before: &Tables, may: &[&str]) {
        let differs = changed(before, &self.tables(), may);
        assert!(differs.is_empty(), "{what}:\n{}", differs.join("\n"));
        let of_it = format!("container={}", self.original);
        let mut events = Command::new("docker");
        events.args(["events", "--since", &self.since, "--until", &now(), "--filter", "event=start"]);
        let started = succeed(events.args(["--filter", &of_it, "--format", "{{.Action}} {{.Actor.ID}}"]));
        assert_eq!(String::from_utf8_lossy(&started.stdout), "", "{what}: it was started");
    }
}

/// The time, as the engine takes it.
fn now() -> String {
    let output = succeed(Command::new("date").arg("+%s"));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// What a newer version of the framework's, or its console, leaves: keys that were added, and what a node registers with.
const MAY: [&str; 4] =
    ["db_tars.t_profile_template.profile", NODE_OBJECT, VERSIONS[0], "db_tars.t_server_conf.run_type"];

fn environment(name: &str) -> String {
    inspected(name)["Config"]["Env"].to_string()
}

#[test]
fn real_master_with_a_forbidden_rebuild_is_adopted_and_replaced_and_comes_back_as_its_twin_alone() {
    if is_for_another_time() {
        return;
    }
    let test = "real_master_with_a_forbidden_rebuild";
    let Some(images) = stage(test) else { return };
    for version in [UPSTREAM_FORMER, WITH_WEB, WRONG] {
        stage_with(version, test);
    }
    let lines = Lines::begin_on(NET, SUBNET, "mysql");
    lines.framework_with("framework", 3, "false", "true", &format!("{PREFIX}/{UPSTREAM_FORMER}:1"));
    wait_for("upstream's first boot", || lines.answers());
    // Before it has brought its tables to its shape, a row of a test's own may keep it from that.
    console_stays(&lines, &format!("http://{SUBNET}.3:3000"));
    lines.query(
        "INSERT INTO db_tars.t_config_files (server_name, filename, config) VALUES ('E2e.Server', 'lines.conf', 'keep')",
    );
    let operator = Operator { stage: images, lines: &lines };
    let original = inspected(FRAMEWORK)["Id"].as_str().unwrap().to_owned();
    std::thread::sleep(std::time::Duration::from_secs(2));
    let station = Station { lines: &lines, original, since: now() };

    let file = operator.file();
    let words = ["adopt", "--json", &format!("{NET}-mysql"), FRAMEWORK, "-o", file.to_str().unwrap()];
    let told = operator.tarsup(&words).exits(0);
    assert!(told.out.contains("`REBUILD` is \\\"true\\\" in it, and left out of the file"), "{}", told.out);
    assert!(!std::fs::read_to_string(&file).unwrap().contains("REBUILD"));
    operator.has_nothing_to_do();
    let plan = operator.on_file(&["plan"]).exits(0);
    assert!(
        plan.out.contains("runs with `REBUILD` \"true\": whoever starts this container again"),
        "{}",
        plan.out
    );
    let before = station.tables();
    let ours = format!("{PREFIX}/framework:{WITH_WEB}");
    let refused = operator.on_file(&["restart", FRAMEWORK, "--image", &ours, "--yes"]).exits(3);
    assert!(refused.err.contains("REBUILD"), "{}", refused.err);

    // A successor that does not come up: the way back is the twin.
    let written = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{written}\nx-tars: {{gate_timeout: 90s, dwell: 1s}}\n")).unwrap();
    let wrong = format!("{FRAMEWORK}={PREFIX}/framework:{WRONG}");
    let failed = operator.on_file(&["upgrade", "--image", &wrong, "--yes"]);
    let failed = failed.exits(4);
    assert!(
        failed.err.contains("not even to go back: a twin of it with `REBUILD=false` is"),
        "{}",
        failed.err
    );
    assert!(environment(FRAMEWORK).contains("REBUILD=false"), "{}", environment(FRAMEWORK));
    wait_for("upstream's start as the twin's", || lines.answers());
    assert_eq!(station.timeout(), "activating-timeout=10000", "{}", failed.err);
    station.holds("after an upgrade that failed", &before, &MAY);
    operator.has_nothing_to_do();

    let written = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, written.replace("gate_timeout: 90s", "gate_timeout: 4m")).unwrap();
    let image = format!("{FRAMEWORK}={ours}");
    operator.on_file(&["upgrade", "--image", &image, "--yes"]).exits(0);
    assert!(lines.is_well("framework") && lines.answers());
    assert_eq!(station.timeout(), "activating-timeout=60000");
    station.holds("ours", &before, &MAY);
    operator.has_nothing_to_do();

    let back = operator.on_file(&["rollback", "--yes"]).exits(0);
    let told = "so the image that leaves takes back tars.default tars/application/server/activating-timeout: 60000 → 10000";
    assert!(back.err.contains(told), "{}", back.err);
    assert!(lines.answers());
    assert!(environment(FRAMEWORK).contains("REBUILD=false"), "{}", environment(FRAMEWORK));
    station.holds("back to upstream", &before, &MAY);
    assert_eq!(
        station.timeout(),
        "activating-timeout=10000",
        "upstream's start takes nothing back, so ours did"
    );
    assert_eq!(
        lines.query("SELECT config FROM db_tars.t_config_files WHERE filename = 'lines.conf'"),
        "keep"
    );
    let listed = succeed(Command::new("docker").args(["ps", "-aq", "--no-trunc"]));
    let is_left = String::from_utf8_lossy(&listed.stdout).contains(&station.original);
    assert!(!is_left || inspected(&station.original)["State"]["Running"] == false);
    operator.has_nothing_to_do();
}
