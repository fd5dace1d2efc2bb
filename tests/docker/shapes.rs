//! What a container may be asked for, a case each: it is adopted as it runs, a plan on that is empty, and once another image has
//! taken its place an inspect shows what it showed before. What cannot come back is refused by name.

use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tarsup::engine::{CreateBody, DockerEngine, Engine as _};

use crate::e2e::deployment::Ran;
use crate::e2e::stage::succeed;
use crate::inspected::{differing, inspect};
use crate::tiny;
use crate::turns::is_for_another_time;

/// Containers, networks and images of one case, removed with it.
struct Case {
    engine: DockerEngine,
    /// What each name begins with.
    prefix: &'static str,
    /// The image that runs, and the one that takes its place.
    images: [String; 2],
    folder: tempfile::TempDir,
    networks: Vec<String>,
}

/// Nobody asks for an address there: the engine gives any that is free just then, and makes another one of it.
const ON_THE_BRIDGE: [&str; 4] = [
    "/NetworkSettings/IPAddress",
    "/NetworkSettings/MacAddress",
    "/NetworkSettings/Networks/bridge/IPAddress",
    "/NetworkSettings/Networks/bridge/MacAddress",
];

fn docker(words: &[&str]) -> String {
    let output = succeed(Command::new("docker").args(words));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// True where a container sees the address that another one has: it is on that one's network as it is now, not as it was.
fn is_on_the_network_of(name: &str, leader: &str) -> bool {
    let networks = inspect(leader)["NetworkSettings"]["Networks"].clone();
    let address = networks.as_object().unwrap().values().find_map(|it| it["IPAddress"].as_str()).unwrap();
    let seen = docker(&["exec", name, "/actor", "cat", "/proc/net/fib_trie"]);
    assert!(!address.is_empty(), "{leader} runs");
    seen.lines().any(|line| line.trim().trim_start_matches(['|', '-', ' ']) == address)
}

impl Case {
    async fn new(prefix: &'static str) -> Self {
        let engine = tiny::engine().await;
        let old = tiny::actor_image(&engine, "tarsup-shapes").await.to_string();
        let new = tiny::other_actor_image(&engine, "tarsup-shapes", "2").await.to_string();
        let folder = tempfile::tempdir().unwrap();
        let case = Self { engine, prefix, images: [old, new], folder, networks: Vec::new() };
        case.remove();
        case
    }

    fn remove(&self) {
        let filter = format!("name=^/{}-", self.prefix);
        for id in docker(&["ps", "-aq", "--filter", &filter]).split_whitespace() {
            let _ = Command::new("docker").args(["rm", "-f", "-v", id]).output();
        }
        // A run that was cut off holds its deployment.
        let lock = format!("{}.lock", self.prefix);
        let _ = Command::new("docker").args(["rm", "-f", &lock]).output();
        let _ = Command::new("docker").args(["volume", "rm", &lock]).output();
        for network in &self.networks {
            let _ = Command::new("docker").args(["network", "rm", network]).output();
        }
    }

    /// Both images with these changes, each one its own.
    fn change_images(&mut self, changes: [&[&str]; 2]) {
        for (at, changes) in changes.into_iter().enumerate() {
            let id = docker(&["create", &self.images[at]]);
            let name = format!("{}-image:{at}", self.prefix);
            let mut commit = Command::new("docker");
            commit.arg("commit");
            for change in changes {
                commit.args(["--change", change]);
            }
            succeed(commit.args([&id, &name]));
            docker(&["rm", &id]);
            self.images[at] = name;
        }
    }

    fn network(&mut self, name: &str, words: &[&str]) -> String {
        let name = format!("{}-{name}", self.prefix);
        let _ = Command::new("docker").args(["network", "rm", &name]).output();
        let mut words: Vec<&str> = ["network", "create"].iter().chain(words).copied().collect();
        words.push(&name);
        docker(&words);
        self.networks.push(name.clone());
        name
    }

    fn name(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    /// `docker run -d --name=NAME WORDS IMAGE sleep`; the name.
    fn run(&self, name: &str, words: &[&str]) -> String {
        let name = self.name(name);
        let named = format!("--name={name}");
        let mut all = vec!["run", "-d", &named];
        all.extend(words);
        all.extend([self.images[0].as_str(), "sleep"]);
        docker(&all);
        name
    }

    fn tarsup(&self, words: &[&str]) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tarsup"));
        let output =
            command.args(words).current_dir(self.folder.path()).stdin(Stdio::null()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ran { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// Adopts them into one file, on which nothing is to be done; what `--json` says.
    #[track_caller]
    fn adopt(&self, names: &[&str]) -> Value {
        let before: Vec<Value> = names.iter().map(|name| inspect(name)).collect();
        let mut words = vec!["adopt", "--json", "-o", "compose.yaml"];
        words.extend(names);
        let told = self.tarsup(&words).exits(0).json();
        let file = self.folder.path().join("compose.yaml");
        let text = std::fs::read_to_string(&file).unwrap();
        // Cases run beside each other, and none is in another one's way.
        let first = text.lines().find(|line| line.starts_with("name: ")).unwrap();
        let text = text.replacen(first, &format!("name: {}", self.prefix), 1);
        std::fs::write(&file, format!("{text}\nx-tars: {{dwell: 1s}}\n")).unwrap();
        let plan = self.tarsup(&["plan", "--json"]).exits(0).json();
        assert_eq!((&plan["steps"], &plan["questions"]), (&json!([]), &json!([])), "{plan:#}\n{text}");
        for (name, before) in names.iter().zip(before) {
            for key in ["Pid", "StartedAt"] {
                assert_eq!(inspect(name)["State"][key], before["State"][key], "{name} was touched");
            }
        }
        told
    }

    /// The other image for these services.
    fn upgrade(&self, names: &[&str]) -> Ran {
        let images: Vec<String> = names.iter().map(|name| format!("{name}={}", self.images[1])).collect();
        let mut words = vec!["upgrade", "--yes"];
        words.extend(images.iter().flat_map(|image| ["--image", image]));
        self.tarsup(&words)
    }

    /// Adopted, replaced by the other image, and as they were but for pointers that begin with one of `may`.
    #[track_caller]
    fn are_kept(&self, names: &[&str], may: &[&str]) {
        self.adopt(names);
        let before: Vec<Value> = names.iter().map(|name| inspect(name)).collect();
        self.upgrade(names).exits(0);
        for (name, before) in names.iter().zip(before) {
            let after = inspect(name);
            assert_ne!(before["Id"], after["Id"], "{name}");
            let mut differing = differing(&before, &after);
            differing.retain(|line| !may.iter().chain(&ON_THE_BRIDGE).any(|may| line.starts_with(may)));
            assert!(differing.is_empty(), "{name}: {differing:#?}");
        }
        let plan = self.tarsup(&["plan", "--json"]).exits(0).json();
        assert_eq!(plan["steps"], json!([]), "{plan:#}");
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        self.remove();
    }
}

#[tokio::test]
async fn shape_of_several_networks_keeps_each_fixed_address_of_both_kinds_and_each_alias() {
    let mut case = Case::new("shapes-nets").await;
    let first = case.network("a", &["--subnet=172.30.92.0/24"]);
    let second = case.network("b", &["--subnet=172.30.93.0/24", "--ipv6", "--subnet=fd00:30:93::/64"]);
    let one = case.run("one", &[&format!("--network={first}"), "--ip=172.30.92.7", "--network-alias=first"]);
    docker(&[
        "network",
        "connect",
        "--ip=172.30.93.7",
        "--ip6=fd00:30:93::7",
        "--alias=second",
        &second,
        &one,
    ]);
    let six = case.run("six", &[&format!("--network={second}"), "--ip6=fd00:30:93::9"]);

    let shown = inspect(&one);
    assert_eq!(shown["NetworkSettings"]["Networks"][&second]["GlobalIPv6Address"], "fd00:30:93::7");
    case.are_kept(&[&one, &six], &[]);
    let shown = inspect(&one);
    assert_eq!(shown["NetworkSettings"]["Networks"][&first]["IPAddress"], "172.30.92.7");
    assert_eq!(shown["NetworkSettings"]["Networks"][&second]["IPAddress"], "172.30.93.7");
    assert_eq!(shown["NetworkSettings"]["Networks"][&second]["GlobalIPv6Address"], "fd00:30:93::7");
}

#[tokio::test]
async fn shape_of_a_hardware_address_keeps_that_of_each_network() {
    let mut case = Case::new("shapes-mac").await;
    let first = case.network("a", &["--subnet=172.30.94.0/24"]);
    let second = case.network("b", &["--subnet=172.30.95.0/24"]);
    let one = case.name("one");
    // As clients of every age ask for it.
    let endpoints = json!({&first: {"MacAddress": "02:00:5e:00:53:01"}});
    let body = json!({
        "Image": case.images[0], "Cmd": ["sleep"], "MacAddress": "02:00:5e:00:53:01", "HostConfig": {"NetworkMode": first},
        "NetworkingConfig": {"EndpointsConfig": endpoints}
    });
    case.engine.create_container(&one, &CreateBody(body.as_object().unwrap().clone())).await.unwrap();
    case.engine.start_container(&one).await.unwrap();
    // Engines before API 1.44 take none of a further network, and make one of its address; later ones at the create alone.
    let settings = json!({"MacAddress": "02:00:5e:00:53:02", "IPAMConfig": {"IPv4Address": "172.30.95.7"}});
    case.engine.connect_network(&second, &one, &settings).await.unwrap();
    let two = case.name("two");
    let takes_both = {
        let endpoints = json!({
            &first: {"MacAddress": "02:00:5e:00:53:04"},
            &second: {"MacAddress": "02:00:5e:00:53:05"}
        });
        let body = json!({
            "Image": case.images[0], "Cmd": ["sleep"], "HostConfig": {"NetworkMode": first},
            "NetworkingConfig": {"EndpointsConfig": endpoints}
        });
        case.engine.create_container(&two, &CreateBody(body.as_object().unwrap().clone())).await.is_ok()
    };
    if takes_both {
        case.engine.start_container(&two).await.unwrap();
    }
    let bridge = case.name("bridge");
    let body = json!({"Image": case.images[0], "Cmd": ["sleep"], "MacAddress": "02:00:5e:00:53:03"});
    case.engine.create_container(&bridge, &CreateBody(body.as_object().unwrap().clone())).await.unwrap();
    case.engine.start_container(&bridge).await.unwrap();

    let mac = |name: &str, network: &str| {
        inspect(name)["NetworkSettings"]["Networks"][network]["MacAddress"].clone()
    };
    let before = [mac(&one, &first), mac(&one, &second), mac(&bridge, "bridge")];
    assert_eq!((&before[0], &before[2]), (&json!("02:00:5e:00:53:01"), &json!("02:00:5e:00:53:03")));
    let both = |name: &str| [mac(name, &first), mac(name, &second)];
    let of_two = takes_both.then(|| both(&two));
    assert!(
        of_two.as_ref().is_none_or(|of_two| *of_two == ["02:00:5e:00:53:04", "02:00:5e:00:53:05"]),
        "{of_two:?}"
    );
    let all: Vec<&str> =
        [&one, &bridge, &two].into_iter().take(if takes_both { 3 } else { 2 }).map(String::as_str).collect();
    case.are_kept(&all, &[]);
    assert_eq!([mac(&one, &first), mac(&one, &second), mac(&bridge, "bridge")], before);
    assert_eq!(takes_both.then(|| both(&two)), of_two);
}

#[tokio::test]
async fn shape_of_the_hosts_network_and_devices_is_kept() {
    let case = Case::new("shapes-host").await;
    let host =
        case.run("host", &["--network=host", "-p", "8099:80", "--pid=host", "--ipc=host", "--uts=host"]);
    let devices = [
        "--device=/dev/zero:/dev/nought:rw",
        "--device=/dev/full",
        "--device-cgroup-rule=c 1:3 r",
        "--network=none",
    ];
    let device = case.run("device", &devices);
    // Docker publishes nothing on the host's network, and the file says so.
    case.are_kept(&[&host, &device], &["/HostConfig/PortBindings", "/Config/ExposedPorts"]);
    let devices = inspect(&device)["HostConfig"]["Devices"].to_string();
    assert!(devices.contains("/dev/nought") && devices.contains("/dev/full"), "{devices}");
}

#[tokio::test]
async fn shape_of_rm_is_named_and_refused_by_everything_that_would_stop_it() {
    let case = Case::new("shapes-rm").await;
    let one = case.run("one", &["--rm", "-v", "/data"]);
    let id = inspect(&one)["Id"].clone();
    let told = case.adopt(&[&one]);
    let remarks = told["services"][0]["remarks"].to_string();
    assert!(remarks.contains("made with `--rm`"), "{remarks}");
    for words in [&["restart", "--yes"][..], &["restart", &one, "--yes"], &["down", "--yes"]] {
        let refused = case.tarsup(words).exits(3);
        assert!(
            refused.err.contains(&format!("service `{one}`: the engine removes its container")),
            "{}",
            refused.err
        );
    }
    let refused = case.upgrade(&[&one]).exits(3);
    assert!(
        refused.err.contains(&format!("service `{one}`: the engine removes its container")),
        "{}",
        refused.err
    );
    assert_eq!((&inspect(&one)["Id"], &inspect(&one)["State"]["Running"]), (&id, &json!(true)));
}

#[tokio::test]
async fn shape_of_volumes_without_a_name_keeps_what_is_in_them() {
    let mut case = Case::new("shapes-volumes").await;
    case.change_images([&["VOLUME [\"/kept\"]"], &["VOLUME [\"/kept\"]"]]);
    let one = case.run("one", &["-v", "/own"]);
    let two = case.run("two", &["--volumes-from", &one]);
    let mounted = case.run("mounted", &["--mount", "type=volume,target=/mounted"]);
    let file = case.folder.path().join("marker");
    std::fs::write(&file, "kept").unwrap();
    let put = |name: &str, path: &str| docker(&["cp", file.to_str().unwrap(), &format!("{name}:{path}")]);
    let has = |name: &str, path: &str| {
        let output = Command::new("docker").args(["exec", name, "/actor", "cat", path]).output().unwrap();
        output.status.success() && output.stdout == b"kept"
    };
    for (name, path) in [(&one, "/kept/marker"), (&one, "/own/marker"), (&mounted, "/mounted/marker")] {
        put(name, path);
    }
    assert!(has(&two, "/own/marker"));

    // Whose volumes they are is told by the mounts themselves.
    case.are_kept(&[&one, &two, &mounted], &["/HostConfig/VolumesFrom", "/Config/Volumes"]);

    let all_there = || {
        let places = [
            (&one, "/kept/marker"),
            (&one, "/own/marker"),
            (&two, "/kept/marker"),
            (&two, "/own/marker"),
            (&mounted, "/mounted/marker"),
        ];
        places.into_iter().all(|(name, path)| has(name, path))
    };
    assert!(all_there());
    // Not even when somebody removes the parked ones with their volumes.
    let filter = format!("name=^/{}-.*[.]old[.]", case.prefix);
    let parked = docker(&["ps", "-aq", "--filter", &filter]);
    assert_eq!(parked.split_whitespace().count(), 3, "{parked}");
    for id in parked.split_whitespace() {
        docker(&["rm", "-v", id]);
    }
    assert!(all_there());
}

#[tokio::test]
async fn shape_of_a_health_check_keeps_what_was_overridden_and_takes_the_rest_from_the_image() {
    let mut case = Case::new("shapes-health").await;
    let check = |seconds: u8| {
        format!(
            "HEALTHCHECK --interval=1s --timeout={seconds}s --retries=3 CMD [\"/actor\", \"say\", \"\", \"\", \"0\"]"
        )
    };
    case.change_images([&[check(5).as_str()], &[check(6).as_str()]]);
    let none = case.run("none", &["--no-healthcheck"]);
    let times = case.run("times", &["--health-interval=2s", "--health-retries=9"]);
    let plain = case.run("plain", &[]);
    let own = case.name("own");
    let body = json!({"Image": case.images[0], "Cmd": ["sleep"], "Healthcheck": {"Test": ["CMD", "/actor", "exit", "0"], "Timeout": 7_000_000_000_u64}});
    case.engine.create_container(&own, &CreateBody(body.as_object().unwrap().clone())).await.unwrap();
    case.engine.start_container(&own).await.unwrap();

    case.are_kept(&[&none, &times, &plain, &own], &["/Config/Healthcheck/Timeout"]);

    let seconds = |name: &str| {
        inspect(name)["Config"]["Healthcheck"]["Timeout"].as_u64().unwrap_or_default() / 1_000_000_000
    };
    assert_eq!(
        [&times, &plain, &own].map(|name| seconds(name)),
        [6, 6, 7],
        "the image's own is the new one's"
    );
    assert_eq!(inspect(&none)["Config"]["Healthcheck"]["Test"], json!(["NONE"]));
}

#[tokio::test]
async fn shape_of_a_shared_namespace_follows_what_it_leans_on_and_a_stranger_is_asked_about() {
    if is_for_another_time() {
        return;
    }
    let case = Case::new("shapes-share").await;
    let base = case.run("base", &["--ipc=shareable"]);
    let of = format!("container:{base}");
    let network = case.run("net", &[&format!("--network={of}")]);
    let memory = case.run("ipc", &[&format!("--ipc={of}")]);
    let processes = case.run("pid", &[&format!("--pid={of}")]);
    let link = case.run("link", &["--link", &format!("{base}:base")]);
    let stranger = case.run("stranger", &[&format!("--network={of}")]);
    assert!(is_on_the_network_of(&network, &base));

    // None stands behind what it leans on in the file.
    let told = case.adopt(&[&network, &memory, &processes, &link, &base]);
    let unsaid = told["services"].as_array().unwrap().iter().map(|service| service["unsaid"].to_string());
    assert_eq!(unsaid.filter(|unsaid| unsaid != "[]").collect::<Vec<_>>(), ["[\"Links\"]"], "{told:#}");
    let all = [&base, &network, &memory, &processes, &link];
    let ids = || all.map(|name| inspect(name)["Id"].as_str().unwrap().to_owned());
    let first = ids();
    let image = format!("{base}={}", case.images[1]);
    for words in [&["upgrade", "--image", &image][..], &["restart", &base], &["down"]] {
        let refused = case.tarsup(words).exits(3);
        // Who is of the deployment goes along; who is a stranger is cut off, and nobody here makes it again.
        assert!(
            refused.err.contains(&format!("`{stranger}` (its network) leans on `{base}`")),
            "{}",
            refused.err
        );
        for name in &all[1..] {
            assert!(!refused.err.contains(&format!("`{name}` (")), "{words:?}: {}", refused.err);
        }
    }
    assert_eq!(ids(), first);

    let before = all.map(|name| inspect(name));
    case.upgrade(&[&base]).exits(0);
    let second = ids();
    let leads_to = |base: &str| {
        let of = format!("container:{base}");
        assert_eq!(inspect(&network)["HostConfig"]["NetworkMode"], of);
        assert!(is_on_the_network_of(&network, &case.name("base")));
        assert_eq!(inspect(&memory)["HostConfig"]["IpcMode"], of);
        assert_eq!(inspect(&processes)["HostConfig"]["PidMode"], of);
        let links = json!([format!("/{}:/{link}/base", case.name("base"))]);
        assert_eq!(inspect(&link)["HostConfig"]["Links"], links);
        for name in &all {
            assert_eq!(inspect(name)["State"]["Running"], true, "{name}");
        }
    };
    leads_to(&second[0]);
    let leans =
        ["/HostConfig/NetworkMode", "/HostConfig/IpcMode", "/HostConfig/PidMode", "/HostConfig/Links"];
    for (name, before) in all.iter().zip(&before).skip(1) {
        let after = inspect(name);
        assert_ne!(before["Id"], after["Id"], "{name}");
        let mut others = differing(before, &after);
        // On another one's network it has that one's name, too.
        let of_its_leader = |line: &str| *name == &network && line.starts_with("/hostname");
        others.retain(|line| {
            !of_its_leader(line) && !ON_THE_BRIDGE.iter().chain(&leans).any(|may| line.starts_with(may))
        });
        assert!(others.is_empty(), "{name}: {others:#?}");
    }
    let plan = case.tarsup(&["plan", "--json"]).exits(0).json();
    assert_eq!(plan["steps"], json!([]), "{plan:#}");

    // A restart takes them along as they are: each begins after what it leans on.
    case.tarsup(&["restart", &base, "--yes"]).exits(0);
    assert_eq!(ids(), second);
    let began = |name: &str| inspect(name)["State"]["StartedAt"].as_str().unwrap().to_owned();
    for name in &all[1..] {
        assert!(began(name) > began(&base), "{name}");
    }
    leads_to(&second[0]);

    // Down and up again, in an order in which the engine starts them; and back to what was adopted.
    case.tarsup(&["down", "--yes"]).exits(0);
    case.tarsup(&["up", "--yes"]).exits(0);
    leads_to(&second[0]);
    case.tarsup(&["rollback", "--yes"]).exits(0);
    assert_eq!(ids(), first);
    leads_to(&first[0]);
}

#[tokio::test]
async fn shape_of_a_shared_namespace_comes_back_with_what_it_leans_on_where_a_roll_fails() {
    if is_for_another_time() {
        return;
    }
    let case = Case::new("shapes-shareback").await;
    let base = case.run("base", &["--ipc=shareable"]);
    let of = format!("container:{base}");
    let memory = case.run("ipc", &[&format!("--ipc={of}")]);
    let processes = case.run("pid", &[&format!("--pid={of}")]);
    let network = case.run("net", &[&format!("--network={of}")]);
    case.adopt(&[&memory, &processes, &network, &base]);
    let all = [&base, &memory, &processes, &network];
    let ids = all.map(|name| inspect(name)["Id"].clone());
    // Its successor never becomes healthy: what leans on it was not replaced yet, and is cut off already.
    let file = case.folder.path().join("compose.yaml");
    let text =
        std::fs::read_to_string(&file).unwrap().replace("{dwell: 1s}", "{dwell: 1s, gate_timeout: 10s}");
    let at = text.find(&format!("  {base}:")).unwrap();
    let sick = "    healthcheck: {test: [CMD, /actor, exit, '1'], interval: 1s, retries: 1}\n    image:";
    let sick = text[at..].replacen("    image:", sick, 1);
    std::fs::write(&file, format!("{}{sick}", &text[..at])).unwrap();
    case.tarsup(&["upgrade", "--yes", "--image", &format!("{base}={}", case.images[1])]).exits(4);
    assert_eq!(all.map(|name| inspect(name)["Id"].clone()), ids);
    for name in all {
        assert_eq!(inspect(name)["State"]["Running"], true, "{name}");
    }
    let began = |name: &str| inspect(name)["State"]["StartedAt"].as_str().unwrap().to_owned();
    assert!([&memory, &processes, &network].iter().all(|name| began(name) > began(&base)));
    assert!(is_on_the_network_of(&network, &base));
}

#[tokio::test]
async fn shape_of_a_declared_namespace_is_made_in_order_and_joined_again_by_whatever_touches_its_leader() {
    if is_for_another_time() {
        return;
    }
    let mut case = Case::new("shapes-declared").await;
    let on = case.network("a", &["--subnet=172.30.96.0/24"]);
    let [base, net, ipc, pid, vpn, side] =
        ["base", "net", "ipc", "pid", "vpn", "side"].map(|name| case.name(name));
    case.run("vpn", &[]);
    let file = format!(
        "name: {}
x-tars: {{dwell: 1s}}
services:
  net: {{image: '{image}', command: [sleep], container_name: {net}, network_mode: 'service:base'}}
  pid: {{image: '{image}', command: [sleep], container_name: {pid}, pid: 'container:{base}'}}
  ipc: {{image: '{image}', command: [sleep], container_name: {ipc}, ipc: 'service:base'}}
  side: {{image: '{image}', command: [sleep], container_name: {side}, network_mode: 'container:{vpn}'}}
  base:
    {{image: '{image}', command: [sleep], container_name: {base}, ipc: shareable, networks: {{n: {{ipv4_address: 172.30.96.7}}}}}}
networks: {{n: {{external: true, name: {on}}}}}
",
        case.prefix,
        image = case.images[0],
    );
    std::fs::write(case.folder.path().join("compose.yaml"), &file).unwrap();
    case.tarsup(&["up", "--yes"]).exits(0);
    let are_joined = |station: &str| {
        let plan = case.tarsup(&["plan", "--json"]).exits(0).json();
        assert_eq!(plan["steps"], json!([]), "{station}: {plan:#}");
        let of = |name: &str| json!(format!("container:{}", inspect(name)["Id"].as_str().unwrap()));
        let host = |name: &str| inspect(name)["HostConfig"].clone();
        assert_eq!(host(&ipc)["IpcMode"], of(&base), "{station}");
        assert_eq!(host(&pid)["PidMode"], of(&base), "{station}");
        assert!(is_on_the_network_of(&net, &base), "{station}");
        assert!(is_on_the_network_of(&side, &vpn), "{station}");
        assert_eq!(inspect(&base)["NetworkSettings"]["Networks"][&on]["IPAddress"], "172.30.96.7");
        assert_eq!(inspect(&pid)["State"]["Running"], true, "{station}");
    };
    are_joined("up");
    // All of them at once, in one plan.
    let image = |service: &str| format!("{service}={}", case.images[1]);
    let images = ["net", "pid", "ipc", "base"].map(image);
    let mut words = vec!["upgrade", "--yes"];
    words.extend(images.iter().flat_map(|image| ["--image", image]));
    case.tarsup(&words).exits(0);
    are_joined("upgrade");
    case.tarsup(&["rollback", "--yes"]).exits(0);
    are_joined("rollback");
    case.tarsup(&["restart", "base", "--yes"]).exits(0);
    are_joined("restart");
    // What is parked goes, and what they were is made once more.
    case.tarsup(&["upgrade", "--yes", "--image", &image("base")]).exits(0);
    are_joined("upgrade of base alone");
    let filter = format!("name=^/{}-.*[.]old[.]", case.prefix);
    for parked in docker(&["ps", "-aq", "--filter", &filter]).split_whitespace() {
        docker(&["rm", parked]);
    }
    case.tarsup(&["rollback", "--yes"]).exits(0);
    are_joined("rollback to what is made once more");
    // Whoever touches the others by hand: the next `up` joins them again.
    docker(&["restart", "-t0", &base]);
    assert!(!is_on_the_network_of(&net, &base), "this is what is mended");
    case.tarsup(&["up", "--yes"]).exits(0);
    are_joined("a restart by hand");
    docker(&["rm", "-f", &base]);
    case.tarsup(&["up", "--yes"]).exits(0);
    are_joined("a removal by hand");
    docker(&["rm", "-f", &vpn]);
    let refused = case.tarsup(&["restart", "side", "--yes"]).exits(3);
    assert!(refused.err.contains("has its network from one that does not come back"), "{}", refused.err);
    case.run("vpn", &[]);
    case.tarsup(&["up", "--yes"]).exits(0);
    are_joined("somebody else's made anew");
    case.tarsup(&["down", "--yes"]).exits(0);
    case.tarsup(&["up", "--yes"]).exits(0);
    are_joined("down and up");
}
