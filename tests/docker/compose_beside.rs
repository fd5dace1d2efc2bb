//! Containers that compose made, adopted and replaced, and somebody who goes on typing `up -d` and `down` in the old project: a
//! predecessor is never started beside its successor, and neither what is parked nor a volume is removed.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::e2e::deployment::Ran;
use crate::e2e::stage::succeed;
use crate::inspected::inspect;
use crate::run_lines::compose;
use crate::tiny;

const PROJECT: &str = "composebeside";
const WEB: &str = "composebeside-web";

struct Project {
    folder: tempfile::TempDir,
}

impl Project {
    /// The old file, in a folder of its own.
    fn write(image: &str) -> Self {
        Self::remove();
        let folder = tempfile::tempdir().unwrap();
        let project = Self { folder };
        std::fs::create_dir(project.old()).unwrap();
        // One service has a name of a person's choice, the other that of compose's.
        let file = format!(
            "version: '3'\nservices:\n  web:\n    image: {image}\n    command: [sleep]\n    container_name: {WEB}\n    restart: always\n    \
             volumes: [\"data:/data\"]\n  worker:\n    image: {image}\n    command: [sleep]\n    volumes: [\"/scratch\"]\n  side:\n    image: {image}\n    \
             command: [sleep]\n    network_mode: \"service:web\"\nvolumes:\n  data:\n"
        );
        std::fs::write(project.old().join("docker-compose.yml"), file).unwrap();
        project
    }

    fn old(&self) -> std::path::PathBuf {
        self.folder.path().join("old")
    }

    fn compose(&self, words: &[&str]) -> Output {
        let mut command = compose().expect("there is a compose");
        command.args(["-p", PROJECT]).args(words).current_dir(self.old()).output().unwrap()
    }

    fn tarsup(&self, words: &[&str]) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tarsup"));
        let output =
            command.args(words).current_dir(self.folder.path()).stdin(Stdio::null()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ran { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
    }

    fn remove() {
        for filter in [format!("name=^/{PROJECT}"), format!("label=com.docker.compose.project={PROJECT}")] {
            for id in listed(&["ps", "-aq", "--filter", &filter]) {
                let _ = Command::new("docker").args(["rm", "-f", "-v", &id]).output();
            }
        }
        let _ = Command::new("docker").args(["volume", "rm", &format!("{PROJECT}_data")]).output();
        let _ = Command::new("docker").args(["network", "rm", &format!("{PROJECT}_default")]).output();
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        Self::remove();
    }
}

fn listed(words: &[&str]) -> Vec<String> {
    let output = succeed(Command::new("docker").args(words));
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// Everything of the project on the engine, whoever made it: container → whether it runs.
fn everything() -> Vec<(String, bool)> {
    let name = format!("name={PROJECT}");
    let all = listed(&["ps", "-a", "--no-trunc", "--filter", &name, "--format", "{{.ID}} {{.Names}}"]);
    let mut containers: Vec<(String, bool)> = all
        .into_iter()
        .map(|line| {
            let (id, name) = line.split_once(' ').unwrap();
            (format!("{name} {id}"), inspect(id)["State"]["Running"] == true)
        })
        .collect();
    containers.sort();
    containers
}

/// The volumes that containers of the project mount, those without a name of a person's choice among them.
fn volumes() -> Vec<String> {
    let ids = listed(&["ps", "-aq", "--filter", &format!("name={PROJECT}")]);
    let mounts = ids.iter().map(|id| inspect(id)["Mounts"].clone()).collect::<Vec<_>>();
    let names = mounts.iter().flat_map(|mounts| mounts.as_array().unwrap().iter());
    names.filter_map(|mount| mount["Name"].as_str().map(str::to_owned)).collect()
}

fn labels(container: &Value) -> String {
    container["Config"]["Labels"].to_string()
}

fn marked(container: &str) -> bool {
    let output =
        Command::new("docker").args(["exec", container, "/actor", "cat", "/data/marker"]).output().unwrap();
    output.stdout == b"kept"
}

/// `up -d` and `down` of the old project change nothing of ours, however they end.
#[track_caller]
fn compose_touches_nothing(project: &Project, station: &str) {
    let (before, mounted) = (everything(), volumes());
    assert!(mounted.len() > 2, "{mounted:?}");
    for words in
        [&["up", "-d"][..], &["down"], &["up", "-d"], &["down", "--volumes"], &["down", "--remove-orphans"]]
    {
        let ran = project.compose(words);
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        let mut now = everything();
        // What it made beside ours by itself is its own, and does not run: the name is taken.
        now.retain(|(name, runs)| before.iter().any(|(known, _)| known == name) || *runs);
        assert_eq!(now, before, "{station}: compose {words:?}: {said}");
        let there = listed(&["volume", "ls", "-q"]);
        assert!(mounted.iter().all(|volume| there.contains(volume)), "{station}: compose {words:?}: {said}");
        assert!(marked(WEB), "{station}: compose {words:?}");
    }
}

#[tokio::test]
async fn predecessor_that_compose_made_is_neither_started_beside_its_successor_nor_removed_by_compose() {
    if compose().is_none() {
        assert!(std::env::var_os("CI").is_none(), "docker-compose is missing");
        eprintln!("SKIPPED predecessor_that_compose_made: there is no compose");
        return;
    }
    let engine = tiny::engine().await;
    let old = tiny::actor_image(&engine, "tarsup-compose").await.to_string();
    let new = tiny::other_actor_image(&engine, "tarsup-compose", "2").await.to_string();
    let project = Project::write(&old);
    let up = project.compose(&["up", "-d"]);
    assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
    let [worker, side] = ["worker", "side"].map(|service| {
        let name = format!("name={PROJECT}.{service}");
        listed(&["ps", "--filter", &name, "--format", "{{.Names}}"]).remove(0)
    });
    let marker = project.folder.path().join("marker");
    std::fs::write(&marker, "kept").unwrap();
    succeed(Command::new("docker").arg("cp").arg(Path::new(&marker)).arg(format!("{WEB}:/data/marker")));
    let originals = [WEB, &worker, &side].map(|name| inspect(name)["Id"].as_str().unwrap().to_owned());

    let told = project.tarsup(&["adopt", &side, WEB, &worker, "-o", "compose.yaml"]).exits(0);
    assert!((told.out + &told.err).contains("would still remove its containers"));
    let text = std::fs::read_to_string(project.folder.path().join("compose.yaml")).unwrap();
    std::fs::write(project.folder.path().join("compose.yaml"), format!("{text}\nx-tars: {{dwell: 1s}}\n"))
        .unwrap();
    assert_eq!(project.tarsup(&["plan", "--json"]).exits(0).json()["steps"], json!([]));
    let is_joined = || {
        let web = inspect(WEB)["Id"].as_str().unwrap().to_owned();
        inspect(&side)["HostConfig"]["NetworkMode"] == format!("container:{web}")
            && inspect(&side)["State"]["Running"] == true
    };
    assert!(text.contains("network_mode: service:web") && is_joined(), "{text}");
    // `side` follows what it has its network from.
    let images = ["web", "worker"].map(|service| format!("{service}={new}"));
    let rolled = project.tarsup(&["upgrade", "--yes", "--image", &images[0], "--image", &images[1]]).exits(0);
    assert!(is_joined());
    assert!(rolled.err.contains("`docker compose up` there would make another one"), "{}", rolled.err);

    let parked =
        listed(&["ps", "-a", "--filter", &format!("name={PROJECT}.*[.]old[.]"), "--format", "{{.Names}}"]);
    assert_eq!(parked.len(), 3, "{parked:?}");
    for name in &parked {
        let twin = inspect(name);
        assert!(!labels(&twin).contains("com.docker.compose."), "{}", labels(&twin));
        assert_eq!(twin["State"]["Running"], false);
    }
    let all = listed(&["ps", "-aq", "--no-trunc"]);
    assert!(originals.iter().all(|id| !all.contains(id)), "the originals are gone");
    compose_touches_nothing(&project, "ours");

    project.tarsup(&["rollback", "--yes"]).exits(0);
    assert_eq!(inspect(WEB)["Config"]["Image"], *old);
    // The one was the twin of a container that is gone, as is the one that it leaned on.
    assert!(is_joined());
    assert_eq!(inspect(WEB)["HostConfig"]["RestartPolicy"]["Name"], "always");
    compose_touches_nothing(&project, "the twin");
    assert_eq!(project.tarsup(&["plan", "--json"]).exits(0).json()["steps"], json!([]));
}
