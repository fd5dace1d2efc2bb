//! Containers with random settings, made through the API alone, are adopted and replaced: what an inspect shows of the successor is
//! what it showed before, field by field, but for a table of what may differ.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::{Map, Value, json};
use tarsup::engine::{CreateBody, Engine as _};

use crate::e2e::deployment::Ran;
use crate::inspected::{differing, inspect};
use crate::tiny;

/// How many containers a run makes; `TARSUP_RECREATE=300` for the whole (tests/long.sh).
const MOST: usize = 8;
const NETWORKS: [(&str, &str); 2] = [("tarsup-recreate-a", "172.30.90"), ("tarsup-recreate-b", "172.30.91")];
const VOLUME: &str = "tarsup-recreate";
const LINKED: &str = "tarsup-recreate-db";

/// A small generator: the same seed gives the same containers.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.next().is_multiple_of(n)
    }

    fn of<T: Clone>(&mut self, items: &[T]) -> T {
        let at = usize::try_from(self.next()).unwrap() % items.len();
        items[at].clone()
    }
}

/// A setting that a container may have: where it goes in the body, and its values.
fn settings() -> Vec<(&'static str, Vec<Value>)> {
    vec![
        ("/Domainname", vec![json!("example.org")]),
        ("/User", vec![json!("1000:1000"), json!("0")]),
        ("/Env", vec![json!(["A=1", "B=with space", "C=$x \"q\"", "EMPTY="]), json!(["PASSWORD=s3cret#1"])]),
        ("/Labels", vec![json!({"team": "core", "a.b/c": "x: y"})]),
        ("/WorkingDir", vec![json!("/data")]),
        ("/StopSignal", vec![json!("SIGINT"), json!("SIGTERM")]),
        ("/StopTimeout", vec![json!(3)]),
        ("/Tty", vec![json!(true)]),
        ("/OpenStdin", vec![json!(true)]),
        (
            "/Healthcheck",
            vec![
                json!({"Test": ["NONE"]}),
                json!({"Test": ["CMD", "/actor", "say", "", "", "0"], "Interval": 2_000_000_000_u64, "Timeout": 1_000_000_000, "Retries": 7}),
            ],
        ),
        ("/ExposedPorts", vec![json!({"7000/tcp": {}, "7001/udp": {}})]),
        ("/HostConfig/CapAdd", vec![json!(["NET_ADMIN"]), json!(["CAP_SYS_TIME"])]),
        ("/HostConfig/CapDrop", vec![json!(["MKNOD"])]),
        ("/HostConfig/Dns", vec![json!(["192.0.2.53"])]),
        ("/HostConfig/DnsOptions", vec![json!(["ndots:2"])]),
        ("/HostConfig/DnsSearch", vec![json!(["example.org"])]),
        ("/HostConfig/ExtraHosts", vec![json!(["registry:192.0.2.7", "six:2001:db8::1"])]),
        ("/HostConfig/GroupAdd", vec![json!(["44"])]),
        ("/HostConfig/IpcMode", vec![json!("host"), json!("none"), json!("shareable")]),
        ("/HostConfig/UTSMode", vec![json!("host")]),
        ("/HostConfig/PidMode", vec![json!("host")]),
        ("/HostConfig/OomScoreAdj", vec![json!(200)]),
        ("/HostConfig/Privileged", vec![json!(true)]),
        ("/HostConfig/PublishAllPorts", vec![json!(true)]),
        ("/HostConfig/ReadonlyRootfs", vec![json!(true)]),
        ("/HostConfig/SecurityOpt", vec![json!(["no-new-privileges"])]),
        ("/HostConfig/ShmSize", vec![json!(33_554_432)]),
        ("/HostConfig/Ulimits", vec![json!([{"Name": "nofile", "Soft": 1000, "Hard": 2000}])]),
        (
            "/HostConfig/LogConfig",
            vec![
                json!({"Type": "json-file", "Config": {"max-size": "1m", "max-file": "2"}}),
                json!({"Type": "local", "Config": {}}),
            ],
        ),
        ("/HostConfig/Init", vec![json!(true)]),
        ("/HostConfig/CpuShares", vec![json!(512)]),
        ("/HostConfig/CpusetCpus", vec![json!("0")]),
        ("/HostConfig/Memory", vec![json!(134_217_728)]),
        ("/HostConfig/PidsLimit", vec![json!(200)]),
        (
            "/HostConfig/Devices",
            vec![json!([
                {"PathOnHost": "/dev/zero", "PathInContainer": "/dev/nought", "CgroupPermissions": "rw"}
            ])],
        ),
        ("/HostConfig/DeviceCgroupRules", vec![json!(["c 1:3 r"])]),
        ("/HostConfig/MaskedPaths", vec![json!([])]),
        ("/HostConfig/Tmpfs", vec![json!({"/scratch": "size=1048576"}), json!({"/scratch": ""})]),
        (
            "/HostConfig/RestartPolicy",
            vec![
                json!({"Name": "always"}),
                json!({"Name": "on-failure", "MaximumRetryCount": 3}),
                json!({"Name": "unless-stopped"}),
            ],
        ),
        ("/HostConfig/Annotations", vec![json!({"org.example": "kept"})]),
    ]
}

/// A random body, for the n-th container.
fn body(dice: &mut Dice, n: usize, image: &str) -> Map<String, Value> {
    let mut body = json!({"Image": image, "Cmd": ["sleep"], "HostConfig": {}});
    for (place, values) in settings() {
        if dice.one_in(4) {
            let (parent, key) = place.rsplit_once('/').unwrap();
            body.pointer_mut(parent).unwrap()[key] = dice.of(&values);
        }
    }
    let host = n + 10;
    let network = dice.of(&["", "bridge", "none", "host", "a", "a", "a+b"]);
    let on = |at: usize| json!({"IPAMConfig": {"IPv4Address": format!("{}.{host}", NETWORKS[at].1)}, "Aliases": [format!("alias{n}")]});
    match network {
        "a" | "a+b" => {
            body["HostConfig"]["NetworkMode"] = json!(NETWORKS[0].0);
            body["NetworkingConfig"] = json!({"EndpointsConfig": {NETWORKS[0].0: on(0)}});
        }
        "" => {}
        mode => body["HostConfig"]["NetworkMode"] = json!(mode),
    }
    if network == "host" {
        body["HostConfig"].as_object_mut().unwrap().remove("UTSMode");
    }
    if matches!(network, "a" | "a+b" | "bridge" | "") {
        if dice.one_in(2) {
            // What is published is exposed: every client sees to it, and the engine publishes nothing else.
            body["ExposedPorts"]["7000/tcp"] = json!({});
            let port = 20_000 + n;
            body["HostConfig"]["PortBindings"] =
                json!({"7000/tcp": [{"HostIp": "127.0.0.1", "HostPort": port.to_string()}]});
        }
        if dice.one_in(3) {
            body["MacAddress"] = json!(format!("02:00:5e:00:53:{host:02x}"));
        }
        if dice.one_in(3) && body["HostConfig"]["UTSMode"].is_null() {
            body["Hostname"] = json!(format!("name{n}"));
        }
        if dice.one_in(4) {
            body["HostConfig"]["Links"] = json!([format!("{LINKED}:db")]);
        }
    } else {
        body.as_object_mut().unwrap().remove("Domainname");
        body["HostConfig"].as_object_mut().unwrap().remove("PublishAllPorts");
        if network == "none" || network == "host" {
            for key in ["Dns", "DnsOptions", "DnsSearch"] {
                body["HostConfig"].as_object_mut().unwrap().remove(key);
            }
        }
    }
    if !body["HostConfig"]["UTSMode"].is_null() {
        body.as_object_mut().unwrap().remove("Domainname");
    }
    let mounts: [fn(&mut Value); 6] = [
        |body| push(body, "Binds", json!(format!("{VOLUME}:/named"))),
        |body| push(body, "Binds", json!("/etc/hostname:/etc/of-host:ro")),
        |body| body["Volumes"] = json!({"/anonymous": {}}),
        |body| push(body, "Mounts", json!({"Type": "volume", "Target": "/unnamed"})),
        |body| {
            push(
                body,
                "Mounts",
                json!({"Type": "tmpfs", "Target": "/memory", "TmpfsOptions": {"SizeBytes": 65_536}}),
            );
        },
        |body| {
            push(
                body,
                "Mounts",
                json!({"Type": "volume", "Source": VOLUME, "Target": "/again", "ReadOnly": true, "VolumeOptions": {"NoCopy": true}}),
            );
        },
    ];
    for mount in mounts {
        if dice.one_in(3) {
            mount(&mut body);
        }
    }
    let Value::Object(body) = body else { unreachable!("it was made as one") };
    body
}

fn push(body: &mut Value, key: &str, value: Value) {
    let list = &mut body["HostConfig"][key];
    if list.is_null() {
        *list = json!([]);
    }
    list.as_array_mut().unwrap().push(value);
}

fn tarsup(folder: &std::path::Path, words: &[&str]) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_tarsup")).args(words).current_dir(folder).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ran { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
}

#[tokio::test]
async fn containers_with_random_settings_are_replaced_and_keep_each_of_them() {
    let engine = tiny::engine().await;
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let seed = number("TARSUP_SEED").unwrap_or(clock);
    let most = number("TARSUP_RECREATE").map_or(MOST, |most| usize::try_from(most).unwrap());
    eprintln!("{most} containers with random settings (TARSUP_RECREATE={most} TARSUP_SEED={seed})");
    let mut dice = Dice(seed);
    for (network, subnet) in NETWORKS {
        let body = json!({"Name": network, "IPAM": {"Config": [{"Subnet": format!("{subnet}.0/24")}]}});
        let _ = engine.create_network(&body).await;
    }
    engine.create_volume(&json!({"Name": VOLUME})).await.unwrap();
    let old = tiny::actor_image(&engine, "tarsup-recreate").await.to_string();
    let new = tiny::other_actor_image(&engine, "tarsup-recreate", "2").await.to_string();
    tiny::remove_container(LINKED).await;
    let linked = json!({"Image": old, "Cmd": ["sleep"], "HostConfig": {"NetworkMode": NETWORKS[0].0}});
    engine.create_container(LINKED, &CreateBody(linked.as_object().unwrap().clone())).await.unwrap();
    engine.start_container(LINKED).await.unwrap();

    let mut looked_at = BTreeSet::new();
    let mut made = 0;
    let mut faults = Vec::new();
    for n in 0..most {
        let name = format!("tarsup-recreate-{}", n % 200);
        tiny::remove_containers_of(&name).await;
        let body = body(&mut dice, n % 200, &old);
        // What the engine itself refuses is no container: two settings may exclude each other.
        let Ok(id) = engine.create_container(&name, &CreateBody(body.clone())).await else { continue };
        if body["HostConfig"]["NetworkMode"] == NETWORKS[0].0 && dice.one_in(2) {
            let second = json!({"IPAMConfig": {"IPv4Address": format!("{}.{}", NETWORKS[1].1, n % 200 + 10)}, "Aliases": ["second"]});
            engine.connect_network(NETWORKS[1].0, &id, &second).await.unwrap();
        }
        if engine.start_container(&id).await.is_err() {
            tiny::remove_containers_of(&name).await;
            continue;
        }
        made += 1;
        looked_at.extend(
            settings().iter().map(|(place, _)| *place).filter(|place| {
                !Value::Object(body.clone()).pointer(place).unwrap_or(&Value::Null).is_null()
            }),
        );
        if let Err(fault) = replaced(&name, &new) {
            // In one line: the settings that were asked for.
            let fault = format!("TARSUP_SEED={seed}, container {n}: {fault}\n    {}", Value::Object(body));
            eprintln!("{fault}");
            faults.push(fault);
        }
        tiny::remove_containers_of(&name).await;
    }
    tiny::remove_containers_of(LINKED).await;
    eprintln!("{made} made, {} of {} settings seen", looked_at.len(), settings().len());
    assert!(faults.is_empty(), "{} of {made} containers:\n{}", faults.len(), faults.join("\n"));
    assert!(made * 3 >= most, "{made} of {most} could be made");
}

/// Adopts a container, moves it to another image, and says what of it is not as it was.
fn replaced(name: &str, image: &str) -> Result<(), String> {
    let before = inspect(name);
    let folder = tempfile::tempdir().unwrap();
    let in_folder = |words: &[&str]| {
        let ran = tarsup(folder.path(), words);
        if ran.code == 0 {
            Ok(ran)
        } else {
            Err(format!("{words:?}: exit {}: {}{}", ran.code, ran.out, ran.err))
        }
    };
    in_folder(&["adopt", name, "-o", "compose.yaml"])?;
    let file = folder.path().join("compose.yaml");
    let text = fs::read_to_string(&file).unwrap();
    // A name of its own: others adopt beside it.
    let called = text.lines().find(|line| line.starts_with("name: ")).unwrap_or_default();
    let text = text.replacen(called, "name: tarsup-recreate", 1);
    fs::write(&file, format!("{text}\nx-tars: {{dwell: 1s}}\n")).unwrap();
    let plan = in_folder(&["plan", "--json"])?.json();
    if plan["steps"] != json!([]) {
        return Err(format!("a plan for what was adopted: {plan}"));
    }
    in_folder(&["upgrade", "--yes", "--image", &format!("{}={image}", only_service(&text))])?;
    let after = inspect(name);
    if before["Id"] == after["Id"] {
        return Err("the container was not replaced".to_owned());
    }
    let differing = differing(&before, &after);
    if differing.is_empty() { Ok(()) } else { Err(differing.join("; ")) }
}

/// The only service of a file.
fn only_service(text: &str) -> String {
    let at = text.lines().position(|line| line == "services:").unwrap();
    let line = text
        .lines()
        .skip(at + 1)
        .find(|line| line.starts_with("  ") && line.trim_end().ends_with(':'))
        .unwrap();
    line.trim().trim_end_matches(':').trim_matches('"').to_owned()
}
