//! Adoption on the real framework: upstream's start by the documented run lines, taken over as it runs, moved to ours, and back, by
//! the commands of `docs/adopt.md`, word for word; at each station every table is compared.

use std::collections::VecDeque;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::hello;
use super::lines::Lines;
use super::publish::publish;
use super::stage::{
    FORMER, PREFIX, RELEASE, UPSTREAM_FORMER, UPSTREAM_FRAMEWORK, UPSTREAM_NODE, WITH_WEB, stage, stage_with,
};
use super::tables::Tables;
use crate::beside;
use crate::e2e::deployment::{Ran, wait_for};
use crate::e2e::stage::{Stage, succeed};
use crate::turns::is_for_another_time;

/// From which of upstream's images over which of ours, and back.
struct Way {
    net: &'static str,
    subnet: &'static str,
    upstream: &'static str,
    ours: &'static [&'static str],
}

/// With every change: the page's.
const PAGE: Way = Way { net: "tars", subnet: "172.30.63", upstream: UPSTREAM_FRAMEWORK, ours: &[WITH_WEB] };
/// By `tests/long.sh`.
const LONG: Way =
    Way { net: "tarsup-adopted", subnet: "172.30.64", upstream: UPSTREAM_FORMER, ours: &[FORMER, WITH_WEB] };
/// The version of the framework's own services is that of the image.
pub const VERSIONS: [&str; 1] = ["db_tars.t_server_conf.patch_version"];
/// What a tarsnode registers with, or not.
pub const NODE_OBJECT: &str = "db_tars.t_node_info.node_obj";
/// A time before any deploy: what was adopted served then.
const BEFORE_ALL: &str = "20000101T000000Z-0000";

/// What tarsup is asked in the folder of the lines.
pub struct Operator<'a> {
    pub stage: &'static Stage,
    pub lines: &'a Lines,
}

impl Operator<'_> {
    pub fn file(&self) -> PathBuf {
        self.lines.folder.path().join("compose.yaml")
    }

    pub fn tarsup(&self, words: &[&str]) -> Ran {
        let mut command = self.stage.tarsup();
        let output = command.args(words).stdin(Stdio::null()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ran { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// `tarsup WORDS -f compose.yaml`.
    pub fn on_file(&self, words: &[&str]) -> Ran {
        let file = self.file();
        let words: Vec<&str> = words.iter().copied().chain(["-f", file.to_str().unwrap()]).collect();
        self.tarsup(&words)
    }

    #[track_caller]
    pub fn has_nothing_to_do(&self) {
        let plan = self.on_file(&["plan", "--json"]).exits(0).json();
        assert_eq!((&plan["steps"], &plan["questions"]), (&json!([]), &json!([])), "{plan}");
    }
}

/// What the engine says of a container, less what time changes.
pub fn inspected(name: &str) -> Value {
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

/// The rows that differ and may not: not what moves, and not what `may` names.
pub fn changed(before: &Tables, now: &Tables, may: &[&str]) -> Vec<String> {
    // Each master brings the packages of its own programs, and each console lists the applications that it finds.
    let is_new = |row: &String| {
        row.starts_with("db_tars.t_server_patchs + tars.") && row.contains("| system install |")
            || row.starts_with("db_tars_web.t_application + ")
    };
    let mut differs = before.difference(now, may);
    differs.retain(|row| !is_new(row));
    differs
}

/// Waits for upstream's console. It answers while it brings each table of its models to its shape, and may end with them: pm2 starts
/// it again.
pub fn console_stays(lines: &Lines, url: &str) {
    const HAS_ITS_TABLES: &str = "cd /usr/local/app/web && \
        [ $(cat log/*info.log* | grep -oE 'database [a-z_.]+ sync succ' | sort -u | wc -l) = $(ls app/dao/db/*_models/*.js | wc -l) ]";
    let ask = ["curl", "-sfo", "/dev/null", url];
    wait_for("upstream's console to stay", || {
        let answers = || lines.inside("framework", &ask).is_some();
        answers() && lines.inside("framework", &["sh", "-c", HAS_ITS_TABLES]).is_some() && {
            std::thread::sleep(Duration::from_secs(3));
            answers()
        }
    });
}

/// One walk along a way.
struct Walk {
    way: Way,
    lines: Lines,
    images: &'static Stage,
    /// What is left of the page's commands, where it is walked by the page.
    page: Option<VecDeque<String>>,
}

/// The commands in the page's blocks, in order, each without its comment.
fn page() -> VecDeque<String> {
    let text = include_str!("../../../docs/adopt.md");
    let blocks = text.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let lines = blocks.flat_map(|block| block.lines().map(str::to_owned).collect::<Vec<_>>());
    lines.map(|line| line.split(" #").next().unwrap().trim().to_owned()).collect()
}

impl Walk {
    fn operator(&self) -> Operator<'_> {
        Operator { stage: self.images, lines: &self.lines }
    }

    /// The next command of the page, which must begin so, typed at a terminal in the file's folder, each question answered with
    /// `y`; beside the page the words themselves, with `--yes`.
    #[track_caller]
    fn command(&mut self, begins: &str, words: &[&str]) -> Ran {
        let Some(page) = &mut self.page else { return self.operator().on_file(words).exits(0) };
        let command = page.pop_front().unwrap_or_else(|| panic!("the page ends before `{begins}`"));
        assert!(command.starts_with(begins), "the page has `{command}`, not `{begins}`");
        let program = Path::new(env!("CARGO_BIN_EXE_tarsup"));
        let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
        let mut terminal = Command::new("script");
        terminal
            .args(["-qec", &command, "/dev/null"])
            .current_dir(self.lines.folder.path())
            .env("PATH", path);
        for (name, value) in self.images.tarsup().get_envs() {
            terminal.env(name, value.unwrap());
        }
        let mut child = terminal.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        // It stays open until the command has ended: a terminal has no end.
        let mut typed = child.stdin.take().unwrap();
        typed.write_all("y\n".repeat(9).as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        drop(typed);
        let shown = String::from_utf8_lossy(&output.stdout).replace('\r', "");
        let ran = Ran { code: output.status.code().unwrap_or(-1), out: shown.clone(), err: shown };
        assert!(!ran.out.contains("lines-secret"), "{command}: {}", ran.out);
        ran.exits(0)
    }

    fn name(&self, service: &str) -> String {
        format!("{}-{service}", self.way.net)
    }

    fn tables(&self) -> Tables {
        Tables::read(&|sql| self.lines.query(sql))
    }

    /// The version of the service that was published.
    fn published(&self) -> String {
        self.lines.query("SELECT patch_version FROM db_tars.t_server_conf WHERE application = 'Demo'")
    }

    fn calls(&self) -> bool {
        let at = |host: u8| format!("{}.{host}", self.way.subnet);
        hello::call_at([&at(3), &at(3)], Some(&at(5))).code == 0
    }

    /// The documented lines, a service published through upstream's console, and rows that an administrator wrote.
    fn begin(way: Way, images: &'static Stage, page: Option<VecDeque<String>>) -> Self {
        let lines = Lines::begin_on(way.net, way.subnet, "mysql");
        let walk = Self { way, lines, images, page };
        let (lines, subnet) = (&walk.lines, walk.way.subnet);
        lines.framework("framework", 3, "false", &format!("{PREFIX}/{}:1", walk.way.upstream));
        wait_for("upstream's first boot", || lines.answers());
        let web = format!("WEB_HOST=http://{subnet}.3:3000");
        lines.run("node", 5, "/data/tars", &["INET=eth0", &web], &format!("{PREFIX}/{UPSTREAM_NODE}:1"));
        wait_for("upstream's node", || {
            let active = "SELECT COUNT(*) FROM db_tars.t_node_info WHERE present_state = 'active'";
            lines.try_query(active).is_some_and(|nodes| nodes == "2")
        });
        for statement in hello::statements(&[format!("{subnet}.5")]) {
            lines.query(&statement);
        }
        lines.query(
            "INSERT INTO db_tars.t_config_files (server_name, filename, config) VALUES ('E2e.Server', 'lines.conf', 'keep')",
        );
        let program =
            beside::folder("real/hello/HelloServer", "adoption").expect("it lies beside the framework");
        let url = format!("http://{subnet}.3:3000");
        console_stays(lines, &url);
        let said = publish(&walk.name("framework"), &url, &program);
        assert!(said.starts_with("200 ") && said.contains("task no:"), "{said}");
        wait_for("the published service", || walk.calls());
        walk
    }

    /// Nothing of what runs is changed by an adoption, an empty plan, and a look at it.
    fn adopt(&mut self) -> [Value; 3] {
        let names = ["mysql", "framework", "node"].map(|service| self.name(service));
        let before = names.each_ref().map(|name| inspected(name));
        let [database, framework, node] = names.each_ref().map(String::as_str);
        let file = self.operator().file();
        let told = self.operator().tarsup(&["adopt", database, framework, node, "--json"]).exits(0).json();
        let services = told["services"].as_array().unwrap();
        let roles: Vec<&str> = services.iter().map(|service| service["role"].as_str().unwrap()).collect();
        assert_eq!(roles, ["database", "master", "node"], "{told}");
        assert!(services.iter().all(|service| service["unsaid"] == json!([])), "{told}");
        if self.page.is_some() {
            let listed = self.command("docker ps", &[]);
            assert!(names.iter().all(|name| listed.out.contains(name.as_str())), "{}", listed.out);
            self.command("tarsup adopt", &[]);
            assert!(self.command("tarsup plan", &[]).out.contains("nothing to do"));
        } else {
            let words = ["adopt", database, framework, node, "-o", file.to_str().unwrap()];
            self.operator().tarsup(&words).exits(0);
        }
        let operator = self.operator();
        let written = std::fs::read_to_string(&file).unwrap();
        assert!(!written.contains("lines-secret"), "{written}");
        let secrets = self.lines.folder.path().join(format!("{}.env", names[1]));
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(secrets).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        operator.tarsup(&["adopt", &names[0], "-o", file.to_str().unwrap()]).exits(3);
        operator.has_nothing_to_do();
        operator.on_file(&["up", "--yes"]).exits(0);
        operator.on_file(&["status"]).exits(0);
        self.is_used("framework");
        for (name, before) in names.iter().zip(&before) {
            let (now, before) = (inspected(name), before.as_object().unwrap());
            let changed: Vec<_> = before.iter().filter(|(key, value)| now[*key] != **value).collect();
            assert!(changed.is_empty(), "{name}: {changed:?}");
        }
        before
    }

    /// `tarsup images` names the container as a user of upstream's image.
    #[track_caller]
    fn is_used(&self, service: &str) {
        let listed = self.operator().on_file(&["images", "--json"]).exits(0).json();
        let name = format!("{PREFIX}/{}:1", self.way.upstream);
        let one = listed["images"].as_array().unwrap().iter().find(|one| one["image"] == name.as_str());
        let used = one.unwrap_or_else(|| panic!("{name} is not in {listed}"))["used"].to_string();
        assert!(used.contains(&format!("container {}", self.name(service))), "{used}");
    }

    /// Upstream's start would take a database that does not answer for none, and install over it.
    fn is_not_started_without_the_database(&self, ours: &str) {
        let (database, framework) = (self.name("mysql"), self.name("framework"));
        let before = inspected(&framework)["State"]["StartedAt"].clone();
        succeed(Command::new("docker").args(["pause", &database]));
        let ran = self.operator().on_file(&["restart", &framework, "--image", ours, "--yes"]);
        succeed(Command::new("docker").args(["unpause", &database]));
        let ran = ran.exits(5);
        assert!(
            ran.err.contains("is not started, because its image's own start installs anew"),
            "{}",
            ran.err
        );
        let state = inspected(&framework)["State"].clone();
        assert_eq!((&state["StartedAt"], &state["Running"]), (&before, &json!(false)));
        self.operator().on_file(&["resume", "--yes"]).exits(0);
        assert!(self.lines.answers());
    }

    /// What a reboot leaves: containers that nothing starts. `up` does, once the database answers.
    fn is_started_by_up(&self, before: &[Value; 3]) {
        let (database, framework, node) = (self.name("mysql"), self.name("framework"), self.name("node"));
        succeed(Command::new("docker").args(["stop", "-t", "5", &framework, &node]));
        let at = inspected(&framework)["State"]["StartedAt"].clone();
        succeed(Command::new("docker").args(["pause", &database]));
        let ran = self.operator().on_file(&["up", "--yes"]);
        succeed(Command::new("docker").args(["unpause", &database]));
        assert_ne!(ran.code, 0, "{}", ran.err);
        assert!(
            ran.err.contains("is not started, because its image's own start installs anew"),
            "{}",
            ran.err
        );
        assert_eq!(inspected(&framework)["State"]["StartedAt"], at);

        let ran = self.operator().on_file(&["up", "--yes"]).exits(0);

        assert!(ran.err.contains("asking the database"), "{}", ran.err);
        for (name, before) in [(&framework, &before[1]), (&node, &before[2])] {
            let now = inspected(name);
            assert_eq!((&now["Id"], &now["State"]["Running"]), (&before["Id"], &json!(true)), "{name}");
            assert_eq!(now["HostConfig"]["RestartPolicy"], before["HostConfig"]["RestartPolicy"], "{name}");
        }
        assert!(self.lines.answers());
        wait_for("the published service, after a reboot", || self.calls());
        self.operator().has_nothing_to_do();
    }

    /// A service of the framework's own, published over the one that upstream's start has put there.
    fn names_what_was_published_over_the_image(&self, ours: &str, test: &str) {
        let framework = self.name("framework");
        let to_ours = format!("{framework}={ours}");
        let plan = || self.operator().on_file(&["plan", "--image", &to_ours]).exits(0).out;
        let shown = plan();
        assert!(!shown.contains("published over its image"), "{shown}");
        let folder = tempfile::tempdir().unwrap();
        let package = beside::folder("real/v3.0.17-patched/tarsstat.tgz", test).unwrap();
        succeed(Command::new("tar").arg("-xzf").arg(package).arg("-C").arg(folder.path()));
        let program = folder.path().join("tarsstat/tarsstat");
        let there = format!("{framework}:/usr/local/app/tars/tarsstat/bin/tarsstat");
        succeed(Command::new("docker").arg("cp").arg(program).arg(there));
        let shown = plan();
        let told = format!(
            "`{framework}` runs tarsstat, published over its image's own: those of {ours} take their place"
        );
        assert!(shown.contains(&told), "{shown}");
        self.operator().on_file(&["upgrade", "--image", &to_ours]).exits(3);
    }

    /// Every table is as it was, but for what this step is known to change.
    #[track_caller]
    fn same(&self, station: &str, before: &Tables, may: &[&str]) -> Tables {
        let now = self.tables();
        let differs = changed(before, &now, may);
        assert!(differs.is_empty(), "{station}:\n{}", differs.join("\n"));
        now
    }
}

fn walk(way: Way, page: Option<VecDeque<String>>) {
    let test = "real_run_lines_of_upstream_are_adopted";
    let Some(images) = stage(test) else { return };
    for version in [way.upstream, UPSTREAM_NODE].into_iter().chain(way.ours.iter().copied()) {
        stage_with(version, test);
    }
    // The page names them as `tarsup build` does.
    let first = way.ours[0];
    let prefix = if page.is_some() { "tars" } else { PREFIX };
    let version = if page.is_some() { RELEASE } else { first };
    let (ours, our_node) = (format!("{prefix}/framework:{version}"), format!("{prefix}/node:{version}"));
    if page.is_some() {
        for (image, name) in [("framework", &ours), ("node", &our_node)] {
            succeed(Command::new("docker").args(["tag", &format!("{PREFIX}/{image}:{first}"), name]));
        }
    }
    let mut walk = Walk::begin(way, images, page);
    let before = walk.adopt();
    let (framework, node) = (walk.name("framework"), walk.name("node"));
    let (mut tables, published) = (walk.tables(), walk.published());
    assert!(!published.is_empty());

    // Nobody inside could say whether it came back well.
    walk.operator().on_file(&["restart", &framework, "--yes"]).exits(3);
    if walk.page.is_none() {
        walk.operator().on_file(&["restart", &framework, "--image", &ours, "--yes"]).exits(0);
        assert_eq!(inspected(&framework)["Id"], before[1]["Id"]);
        tables = walk.same("a restart of upstream's container", &tables, &[]);
        walk.is_not_started_without_the_database(&ours);
        tables = walk.same("a database that was away", &tables, &[]);
    } else {
        walk.is_started_by_up(&before);
        // Upstream's start writes its rows anew, without the default that its console has taken away.
        tables = walk.same("stopped, and started by up", &tables, &["db_tars.t_server_conf.run_type"]);
        walk.names_what_was_published_over_the_image(&ours, test);
    }

    let to_ours = [format!("{framework}={ours}"), format!("{node}={our_node}")];
    let words = ["upgrade", "--image", &to_ours[0], "--image", &to_ours[1], "--yes"];
    let ran = walk.command("tarsup upgrade", &words);

    for told in ["leaves the start of", "does not start with any other `REBUILD`", "`/get_tarsnode`"] {
        assert!(ran.err.contains(told), "{told}: {}", ran.err);
    }
    if walk.page.is_some() {
        walk.command("tarsup status", &[]);
    }
    assert!(walk.lines.is_well("framework") && walk.lines.is_well("node") && walk.lines.answers());
    assert!(walk.calls(), "what served on upstream's node was waited for: {}", ran.err);
    tables = walk.same("to ours", &tables, &VERSIONS);
    assert_eq!(walk.published(), published);
    let file = std::fs::read_to_string(walk.operator().file()).unwrap();
    assert!(
        file.contains(&format!("image: {ours}")) && file.contains(&format!("image: {our_node}")),
        "{file}"
    );
    walk.operator().has_nothing_to_do();
    walk.is_used("framework.old.");
    is_the_same(&walk, &before[1], &inspected(&framework));

    for version in &walk.way.ours[1..] {
        let (at_first, operator) = (walk.tables(), walk.operator());
        operator.on_file(&["upgrade", "--to", version, "--yes"]).exits(0);
        assert!(walk.lines.answers());
        wait_for("the published service, upgraded", || walk.calls());
        // A tarsnode of 3.0.17 registers without the object that it never listens on.
        let may = ["db_tars.t_profile_template.profile", NODE_OBJECT, VERSIONS[0]];
        walk.same("another version", &at_first, &may);
        operator.on_file(&["rollback", "--yes"]).exits(0);
        wait_for("the published service, rolled back", || walk.calls());
        // Values of templates are taken back, what was added stays; and the older tarsnode does not register anew.
        tables = walk.same("rolled back", &at_first, &may);
    }

    walk.lines.query(&format!(
        "UPDATE db_tars.t_server_conf SET flow_state = 'inactive' WHERE server_name = 'tarsconfig' AND node_name = '{}.3'",
        walk.way.subnet
    ));
    let ran = walk.command("tarsup rollback", &["rollback", "--to", BEFORE_ALL, "--yes"]);

    let said = format!("`{framework}`: tars.tarsconfig (drained) is started and gets traffic again");
    for told in [said.as_str(), "is asked right before", "asking the database"] {
        assert!(ran.err.contains(told), "{told}: {}", ran.err);
    }
    assert!(walk.lines.answers());
    for (name, before) in [(&framework, &before[1]), (&node, &before[2])] {
        assert_eq!(inspected(name)["Id"], before["Id"], "{name}");
        assert_eq!(inspected(name)["HostConfig"]["RestartPolicy"], before["HostConfig"]["RestartPolicy"]);
    }
    // Upstream's tarsnode starts it some ten seconds after its own start.
    assert!(walk.calls(), "what served on the node was waited for: {}", ran.err);
    // Its rows are written anew, and its console has taken the default of this column away.
    let mut may = vec![VERSIONS[0], "db_tars.t_server_conf.run_type"];
    if walk.way.ours.len() > 1 {
        may.push(NODE_OBJECT);
    }
    walk.same("back to upstream", &tables, &may);
    assert_eq!(walk.published(), published);
    walk.operator().has_nothing_to_do();
    assert!(walk.page.is_none_or(|page| page.is_empty()), "commands that nobody typed");
}

/// What a successor keeps: mounts, address, restart policy, network.
#[track_caller]
fn is_the_same(walk: &Walk, before: &Value, now: &Value) {
    let mounts = |one: &Value| -> Vec<Value> {
        let all = one["Mounts"].as_array().unwrap().iter();
        all.map(|mount| json!([mount["Type"], mount["Source"], mount["Destination"], mount["RW"]])).collect()
    };
    assert_eq!(mounts(now), mounts(before));
    for key in ["RestartPolicy", "NetworkMode"] {
        assert_eq!(now["HostConfig"][key], before["HostConfig"][key], "{key}");
    }
    let address = |one: &Value| one["NetworkSettings"]["Networks"][walk.way.net]["IPAddress"].clone();
    assert_eq!(address(now), address(before));
}

#[test]
fn real_run_lines_of_upstream_are_adopted_and_moved_to_our_image_and_back_by_the_page() {
    if is_for_another_time() {
        return;
    }
    walk(PAGE, Some(page()));
    // Over two releases of three years apart: some minutes.
    if std::env::var_os("TARSUP_EVERY").is_some() {
        walk(LONG, None);
    }
}
