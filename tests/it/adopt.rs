//! Adoption: from what an engine shows of containers that `docker run` and compose made, to a file on which nothing is to be
//! done. The inspects are those of a real engine.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tarsup::adopt::{Adoption, Found, adopt};
use tarsup::deploy::compose::{LoadOptions, load};
use tarsup::deploy::observe;
use tarsup::deploy::observed::Availability;
use tarsup::deploy::{Desired, Observed};
use tarsup::engine::{Container, EngineImage, EngineInfo, Environment, ImageStore, Network, RestartPolicy};
use tarsup::tars::Role;
use tarsup::upgrade::{Intent, Plan, Refusal, plan, render};

/// What an engine holds.
struct Engine {
    containers: Vec<Value>,
    images: Vec<EngineImage>,
    networks: BTreeMap<String, Network>,
}

impl Engine {
    /// The documented run lines on Docker 20.10, one container on the host's network, and one with everything set.
    fn documented() -> Self {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/adopt/docker-run-20.10.json");
        let all: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
        let images = all["images"].as_array().unwrap().iter().map(image).collect();
        let network = Network {
            id: "93b2b161e878".to_owned(),
            name: "tars".to_owned(),
            driver: "bridge".to_owned(),
            subnets: vec!["172.25.0.0/16".to_owned()],
            ranges: Vec::new(),
            gateways: Vec::new(),
            labels: BTreeMap::new(),
            addresses: BTreeMap::new(),
        };
        let networks = BTreeMap::from([("tars".to_owned(), network)]);
        Self { containers: all["containers"].as_array().unwrap().clone(), images, networks }
    }

    /// The names of all that run there, by id.
    fn names() -> BTreeMap<String, String> {
        let all = Self::documented().containers;
        all.iter().map(container).map(|container| (container.id, container.name)).collect()
    }

    /// With namespaces of the framework's container, as an engine shows them.
    fn on_the_framework(mut self, name: &str, keys: &[&str]) -> Self {
        let all = Self::documented().containers;
        let leader = all.iter().find(|raw| raw["Name"] == "/tars-framework").unwrap();
        let raw = self.containers.iter_mut().find(|raw| raw["Name"] == format!("/{name}")).unwrap();
        for key in keys {
            raw["HostConfig"][key] = json!(format!("container:{}", text(&leader["Id"])));
        }
        if keys.contains(&"NetworkMode") {
            raw["NetworkSettings"]["Networks"] = json!({});
            raw["HostConfig"]["PortBindings"] = json!({});
            raw["HostConfig"]["DnsSearch"] = json!(["without.effect"]);
            raw["Config"]["Hostname"] = leader["Config"]["Hostname"].clone();
            raw["Config"]["Domainname"] = json!("of.the.leader");
        }
        self
    }

    /// Those of these names.
    fn only(mut self, names: &[&str]) -> Self {
        self.containers.retain(|raw| names.contains(&raw["Name"].as_str().unwrap().trim_start_matches('/')));
        self
    }

    fn edit(mut self, pointer: &str, value: &Value) -> Self {
        for raw in &mut self.containers {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            raw.pointer_mut(parent).unwrap()[key] = value.clone();
        }
        self
    }

    fn image_of(&self, container: &Container) -> Option<EngineImage> {
        self.images.iter().find(|image| image.id == container.image_id).cloned()
    }

    fn adopt(&self) -> Adoption {
        let found: Vec<Found> = self
            .containers
            .iter()
            .map(|raw| {
                let container = container(raw);
                let image = self.image_of(&container);
                Found { image, container, processes: Vec::new(), leaders: Self::names() }
            })
            .collect();
        adopt(&found, &self.networks).unwrap()
    }

    /// As `observe` reads it.
    fn observe(&self, desired: &Desired) -> Observed {
        let mut containers: Vec<Container> = self.containers.iter().map(container).collect();
        for container in &mut containers {
            observe::adopt(desired, &container.id, &mut container.labels);
        }
        let mut images = BTreeMap::new();
        for service in &desired.services {
            let reference = service.image.to_string();
            let named = |image: &&EngineImage| {
                image
                    .tags
                    .iter()
                    .any(|tag| tag.parse().is_ok_and(|tag: tarsup::oci::Reference| tag == service.image))
            };
            let found = self.images.iter().find(named).cloned();
            images.insert(reference, found.map_or(Availability::Absent, Availability::Engine));
        }
        for container in &containers {
            let image = self.image_of(container).map_or(Availability::Absent, Availability::Engine);
            images.insert(container.image_id.clone(), image);
        }
        let networks =
            self.networks.iter().map(|(name, network)| (name.clone(), Some(network.clone()))).collect();
        let volumes = desired.volumes.iter().map(|it| (it.name.clone(), Some(BTreeMap::new()))).collect();
        let engine = EngineInfo {
            id: "engine".to_owned(),
            version: "20.10.24".to_owned(),
            api_version: "1.41".to_owned(),
            architecture: "amd64".to_owned(),
            image_store: ImageStore::Classic,
            data_root: "/var/lib/docker".to_owned(),
            is_near: true,
        };
        Observed {
            engine,
            containers,
            images,
            networks,
            volumes,
            kept: BTreeMap::new(),
            askers: Vec::new(),
            shelf: None,
            contents: BTreeMap::new(),
            leaders: Self::names().into_iter().map(|(id, name)| (name, id)).collect(),
            facts: tarsup::deploy::facts::Facts::default(),
        }
    }

    /// What is planned on the file that was written of it.
    fn planned(&self, change: impl FnOnce(String) -> String) -> (Adoption, Result<Plan, Box<Refusal>>) {
        let adoption = self.adopt();
        let desired = read_again(&adoption, change);
        let id = "20260101T000000Z-0000".parse().unwrap();
        let planned = plan::plan(&id, &desired, &self.observe(&desired), &Intent::Up, &[]);
        (adoption, planned.map_err(Box::new))
    }
}

fn read_again(adoption: &Adoption, change: impl FnOnce(String) -> String) -> Desired {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("compose.yaml"), change(adoption.file.clone())).unwrap();
    for file in &adoption.env_files {
        fs::write(folder.path().join(&file.name), file.text.expose()).unwrap();
    }
    let options = LoadOptions { directory: folder.path().to_owned(), ..LoadOptions::default() };
    load(&options).unwrap_or_else(|error| panic!("{error} at {:?}\n{}", error, adoption.file))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(text).collect()
}

fn pairs(value: &Value) -> BTreeMap<String, String> {
    value.as_object().into_iter().flatten().map(|(name, value)| (name.clone(), text(value))).collect()
}

fn container(raw: &Value) -> Container {
    let networks = raw["NetworkSettings"]["Networks"].as_object().unwrap();
    let policy = &raw["HostConfig"]["RestartPolicy"];
    Container {
        id: text(&raw["Id"]),
        name: text(&raw["Name"]).trim_start_matches('/').to_owned(),
        labels: pairs(&raw["Config"]["Labels"]),
        image: text(&raw["Config"]["Image"]),
        image_id: text(&raw["Image"]),
        status: serde_json::from_value(raw["State"]["Status"].clone()).unwrap(),
        health: None,
        exit_code: 0,
        error: String::new(),
        restart_count: 0,
        started_at: text(&raw["State"]["StartedAt"]),
        restart: RestartPolicy { name: text(&policy["Name"]), maximum_retry_count: 0 },
        env: Environment::of(texts(&raw["Config"]["Env"])),
        addresses: networks.iter().map(|(name, it)| (name.clone(), text(&it["IPAddress"]))).collect(),
        raw: raw.clone(),
    }
}

fn image(raw: &Value) -> EngineImage {
    EngineImage {
        id: text(&raw["Id"]),
        tags: texts(&raw["RepoTags"]),
        diff_ids: Vec::new(),
        env: Environment::of(texts(&raw["Config"]["Env"])),
        labels: pairs(&raw["Config"]["Labels"]),
        size: 0,
        layer_sizes: Vec::new(),
        created: String::new(),
        architecture: text(&raw["Architecture"]),
        raw: raw.clone(),
    }
}

fn is_empty(planned: &Result<Plan, Box<Refusal>>) -> &Plan {
    let plan = planned.as_ref().unwrap_or_else(|refusal| panic!("{refusal}"));
    assert!(plan.steps.is_empty() && plan.questions.is_empty(), "{}", render::plan(plan));
    plan
}

const RUN_LINES: [&str; 3] = ["tars-mysql", "tars-framework", "tars-node"];

#[test]
fn plan_on_the_documented_run_lines_is_empty_and_roles_are_guessed() {
    let (adoption, planned) = Engine::documented().only(&RUN_LINES).planned(|file| file);
    let plan = is_empty(&planned);
    assert!(
        plan.notes.iter().all(|note| note.contains("no account") || !note.contains("cannot say")),
        "{:?}",
        plan.notes
    );
    let roles: Vec<_> =
        adoption.services.iter().map(|service| (service.service.as_str(), service.role)).collect();
    assert_eq!(
        roles,
        [
            ("tars-mysql", Some(Role::Database)),
            ("tars-framework", Some(Role::Master)),
            ("tars-node", Some(Role::Node)),
        ]
    );
    assert_eq!(adoption.deployment, "tars");
    for service in &adoption.services {
        assert_eq!((service.restart.as_str(), service.unsaid.len()), ("no", 0), "{service:?}");
        assert!(service.remarks.iter().any(|remark| remark.contains("after a reboot")), "{service:?}");
    }
}

#[test]
fn file_of_the_documented_run_lines_says_what_was_asked_for_and_no_secret() {
    let adoption = Engine::documented().only(&RUN_LINES).adopt();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/adopt/documented.yaml");
    if std::env::var_os("TARSUP_BLESS").is_some() {
        fs::write(&path, &adoption.file).unwrap();
    }
    assert_eq!(adoption.file, fs::read_to_string(&path).unwrap_or_default());
    assert!(!adoption.file.contains("r00t"));
    let secrets: Vec<_> =
        adoption.env_files.iter().map(|file| (file.name.as_str(), file.text.expose())).collect();
    assert_eq!(
        secrets,
        [
            ("tars-mysql.env", "MYSQL_ROOT_PASSWORD='r00t$p'\n"),
            ("tars-framework.env", "MYSQL_ROOT_PASSWORD=r00t\n")
        ]
    );
}

#[test]
fn plan_on_the_host_network_is_empty_and_published_ports_are_said_to_have_had_no_effect() {
    let (adoption, planned) = Engine::documented().only(&["vibrant_mcclintock"]).planned(|file| file);
    is_empty(&planned);
    let remarks = adoption.services[0].remarks.join("\n");
    assert!(remarks.contains("3306/tcp had no effect"), "{remarks}");
    assert!(
        adoption.file.contains("network_mode: host") && !adoption.file.contains("ports:"),
        "{}",
        adoption.file
    );
    assert!(adoption.file.contains("restart: always"), "{}", adoption.file);
    assert!(
        adoption.file.contains(": {external: true}"),
        "the anonymous volume by its name: {}",
        adoption.file
    );
}

#[test]
fn plan_on_a_container_with_everything_set_is_empty() {
    let (adoption, planned) = Engine::documented().only(&["odd"]).planned(|file| file);
    is_empty(&planned);
    for line in [
        "role: slave",
        "cpus: \"1.500000000\"",
        "mem_limit: 536870912",
        "cap_add: [NET_ADMIN]",
        "nofile: {soft: 1000, hard: 2000}",
        "logging: {driver: local, options: {max-size: \"1m\"}}",
        "shm_size: 134217728",
        "stop_grace_period: 30s",
        "- \"/t:size=1m\"",
    ] {
        assert!(adoption.file.contains(line), "{line}\n{}", adoption.file);
    }
}

#[test]
fn what_the_file_is_changed_in_is_a_difference() {
    for (from, to, cause) in [
        ("172.25.0.3", "172.25.0.9", "environment differs: MYSQL_HOST; Networks differs"),
        ("- /srv/tars/f:/data/tars", "- /srv/tars/g:/data/tars", "Mounts differs"),
        ("\"3001:3001\"", "\"3002:3001\"", "PortBindings differs"),
        ("INET: eth0", "INET: eth1", "environment differs: INET"),
        ("    cgroup: host\n", "    cgroup: host\n    mem_limit: 1g\n", "Memory differs"),
    ] {
        let engine = Engine::documented().only(&["tars-framework"]);
        let desired = read_again(&engine.adopt(), |file| {
            assert!(file.contains(from), "{from}: {file}");
            file.replace(from, to)
        });
        let observed = engine.observe(&desired);
        let (service, container) = (&desired.services[0], &observed.containers[0]);
        let found = tarsup::upgrade::differ::difference(service, container, &observed).unwrap();
        let cause = cause.split("; ").last().unwrap();
        assert!(found.contains(cause), "{to}: {found}");
    }
}

#[test]
fn what_no_file_can_say_is_listed_and_plans_nothing() {
    for (pointer, value, key) in [
        ("/HostConfig/Links", json!(["/db:/tars-framework/db"]), "Links"),
        ("/HostConfig/PublishAllPorts", json!(true), "PublishAllPorts"),
        ("/HostConfig/BlkioWeight", json!(300), "BlkioWeight"),
        ("/HostConfig/Future", json!({"a": 1}), "Future"),
        ("/Config/Future", json!("x"), "Future"),
        ("/HostConfig/MaskedPaths", json!([]), "MaskedPaths"),
    ] {
        let engine = Engine::documented().only(&["tars-framework"]).edit(pointer, &value);
        let (adoption, planned) = engine.planned(|file| file);
        let plan = is_empty(&planned);
        assert_eq!(adoption.services[0].unsaid, [key], "{pointer}");
        assert!(adoption.file.contains(&format!("Cannot be said here, and is handed on: {key}")));
        assert!(
            plan.notes.iter().any(|note| note.ends_with(&format!("goes on with it: {key}"))),
            "{:?}",
            plan.notes
        );
    }
}

#[test]
fn settings_of_every_kind_are_read_again_as_they_were() {
    for (pointer, value) in [
        ("/Config/Hostname", json!("a.b")),
        ("/Config/Domainname", json!("example.org")),
        ("/Config/User", json!("1000:1000")),
        ("/Config/WorkingDir", json!("/w$x")),
        ("/Config/StopSignal", json!("SIGQUIT")),
        ("/Config/Tty", json!(true)),
        ("/Config/OpenStdin", json!(true)),
        ("/Config/Labels", json!({"a.b": "1", "c": "$x: {y}", "true": "no"})),
        ("/Config/Cmd", json!(["-c", "echo $HOME \"x\"", "true", "", "1"])),
        ("/Config/Healthcheck", json!({"Test": ["NONE"]})),
        ("/Config/Healthcheck", json!({"Test": ["CMD", "a", "b"], "Interval": 1_500_000_000, "Retries": 4})),
        ("/Config/ExposedPorts", json!({"7/udp": {}, "3000/tcp": {}, "3001/tcp": {}, "17890/tcp": {}})),
        ("/HostConfig/Dns", json!(["1.1.1.1"])),
        ("/HostConfig/ExtraHosts", json!(["a:::1", "b:1.2.3.4"])),
        ("/HostConfig/Init", json!(true)),
        ("/HostConfig/IpcMode", json!("host")),
        ("/HostConfig/PidMode", json!("host")),
        ("/HostConfig/PidsLimit", json!(100)),
        ("/HostConfig/ReadonlyRootfs", json!(true)),
        ("/HostConfig/Sysctls", json!({"net.core.somaxconn": "1024"})),
        (
            "/HostConfig/Devices",
            json!([{"PathOnHost": "/dev/a", "PathInContainer": "/dev/b", "CgroupPermissions": "r"}]),
        ),
        ("/HostConfig/SecurityOpt", json!(["seccomp=unconfined"])),
        ("/HostConfig/OomScoreAdj", json!(-5)),
        ("/HostConfig/Binds", json!(["/a:/b:ro,z", "vol:/c:nocopy", "/s:/d:rshared"])),
        (
            "/HostConfig/Mounts",
            json!([
                {"Type": "bind", "Source": "/x:y", "Target": "/m", "ReadOnly": true},
                {"Type": "volume", "Source": "v", "Target": "/n", "VolumeOptions": {"NoCopy": true}},
                {"Type": "tmpfs", "Target": "/o", "TmpfsOptions": {"SizeBytes": 1024, "Mode": 448}},
            ]),
        ),
        (
            "/HostConfig/PortBindings",
            json!({"53/udp": [{"HostIp": "::1", "HostPort": "53"}, {"HostIp": "10.0.0.1", "HostPort": ""}]}),
        ),
        ("/HostConfig/NetworkMode", json!("default")),
        ("/HostConfig/NetworkMode", json!("none")),
    ] {
        let mut engine = Engine::documented().only(&["tars-framework"]).edit(pointer, &value);
        if pointer.ends_with("NetworkMode") {
            engine = engine.edit("/NetworkSettings/Networks", &json!({}));
        }
        let desired = read_again(&engine.adopt(), |file| file);
        let observed = engine.observe(&desired);
        let found =
            tarsup::upgrade::differ::difference(&desired.services[0], &observed.containers[0], &observed);
        assert_eq!(found, None, "{pointer} {value}\n{}", engine.adopt().file);
        assert_eq!(engine.adopt().services[0].unsaid, Vec::<String>::new(), "{pointer}");
    }
}

#[test]
fn environment_of_every_kind_is_read_again_as_it_was() {
    let env = json!([
        "A=$x ${y} $$",
        "B=a: b # c",
        "C=two\nlines",
        "D=",
        "E=true",
        "F=1.0",
        "KEY='\\",
        "G=ä",
        "PATH=/other"
    ]);
    let engine = Engine::documented().only(&["tars-node"]).edit("/Config/Env", &env);
    let desired = read_again(&engine.adopt(), |file| file);
    let observed = engine.observe(&desired);
    let found = tarsup::upgrade::differ::difference(&desired.services[0], &observed.containers[0], &observed);
    assert_eq!(found, None, "{}", engine.adopt().file);
}

#[test]
fn several_networks_keep_their_order_and_what_compose_made_keeps_its_names() {
    let networks = json!({
        "tars": {"IPAMConfig": {"IPv4Address": "172.25.0.3"}, "Aliases": ["framework", "tars-framework", "43868c91dca5"]},
        "alpha": {"IPAMConfig": null, "Aliases": ["extra", "43868c91dca5"], "DriverOpts": {"a": "b"}},
    });
    let labels = json!({"com.docker.compose.project": "shop", "com.docker.compose.service": "framework"});
    let mut engine = Engine::documented()
        .only(&["tars-framework"])
        .edit("/NetworkSettings/Networks", &networks)
        .edit("/Config/Labels", &labels);
    let mut network = engine.networks["tars"].clone();
    network.labels.insert("com.docker.compose.project".to_owned(), "shop".to_owned());
    engine.networks.insert("tars".to_owned(), network.clone());
    engine.networks.insert("alpha".to_owned(), Network { name: "alpha".to_owned(), ..network });
    let (adoption, planned) = engine.planned(|file| file);
    is_empty(&planned);
    assert_eq!((adoption.deployment.as_str(), adoption.services[0].service.as_str()), ("shop", "framework"));
    assert!(adoption.notes[0].contains("network alpha, tars"), "{:?}", adoption.notes);
    assert!(!adoption.file.contains("com.docker.compose"), "{}", adoption.file);
    let desired = read_again(&adoption, |file| file);
    assert_eq!(desired.services[0].declaration.network.as_ref().unwrap().name(), "tars");
}

#[test]
fn forbidden_rebuild_is_left_out_and_told() {
    let mut engine = Engine::documented().only(&["tars-framework"]);
    let env = engine.containers[0]["Config"]["Env"].as_array_mut().unwrap();
    env.iter_mut().filter(|entry| *entry == "REBUILD=false").for_each(|entry| *entry = json!("REBUILD=true"));
    let (adoption, planned) = engine.planned(|file| file);
    let plan = is_empty(&planned);
    assert!(!adoption.file.contains("REBUILD"), "{}", adoption.file);
    assert!(adoption.services[0].remarks.iter().any(|remark| remark.contains("`REBUILD` is \"true\"")));
    assert!(plan.notes.iter().any(|note| note.contains("runs with `REBUILD` \"true\"")), "{:?}", plan.notes);
}

#[test]
fn image_without_its_name_is_named_by_what_the_engine_has() {
    let mut engine = Engine::documented().only(&["tars-framework"]);
    let at = engine.images.iter().position(|image| image.id == text(&engine.containers[0]["Image"])).unwrap();
    engine.images[at].tags = vec!["tarscloud/framework:old".to_owned()];
    let (adoption, planned) = engine.planned(|file| file);
    is_empty(&planned);
    assert_eq!(adoption.services[0].image, "tarscloud/framework:old");

    engine.images[at].tags.clear();
    let (adoption, planned) = engine.planned(|file| file);
    let remarks = adoption.services[0].remarks.join("\n");
    assert!(remarks.contains("run `docker tag sha256:"), "{remarks}");
    assert!(matches!(*planned.unwrap_err(), Refusal::NoImages { .. }));
}

#[test]
fn database_with_its_password_in_a_file_is_known_and_the_path_is_no_secret() {
    let env = json!(["MYSQL_ROOT_PASSWORD_FILE=/run/secrets/root"]);
    let (adoption, planned) =
        Engine::documented().only(&["tars-mysql"]).edit("/Config/Env", &env).planned(|file| file);
    is_empty(&planned);
    assert_eq!(adoption.services[0].role, Some(Role::Database), "{:?}", adoption.services[0]);
    assert!(
        adoption.env_files.is_empty() && adoption.file.contains("/run/secrets/root"),
        "{}",
        adoption.file
    );
}

#[test]
fn container_of_a_deployment_is_refused() {
    let engine = Engine::documented()
        .only(&["tars-node"])
        .edit("/Config/Labels", &json!({"io.tarsup.deployment": "t"}));
    let container = container(&engine.containers[0]);
    let found = Found { image: None, container, processes: Vec::new(), leaders: BTreeMap::new() };
    let error = adopt(&[found], &BTreeMap::new()).unwrap_err();
    assert_eq!(error.to_string(), "the container `tars-node` belongs to the deployment `t` already");
}

#[test]
fn adopted_takes_a_whole_id_and_nothing_else() {
    for id in ["43868c91dca5", "tars-framework", "\"\""] {
        let compose = format!("services:\n  s:\n    image: t/f:1\n    x-tars: {{adopted: {id}}}\n");
        let project = crate::compose::Project::new(&[("compose.yaml", compose.as_str())]);
        let (text, place, hint) = project.error();
        assert!(text.ends_with("is no container's id") && place == "compose.yaml:4", "{text} {place}");
        assert!(hint.contains("64 digits"), "{hint}");
    }
}

const NAMESPACES: [&str; 3] = ["NetworkMode", "IpcMode", "PidMode"];

#[test]
fn namespaces_of_a_container_that_is_adopted_too_are_its_services() {
    let engine = Engine::documented().only(&RUN_LINES).on_the_framework("tars-node", &NAMESPACES);
    let (adoption, planned) = engine.planned(|file| {
        // Two parts of the framework on one network are refused: it is not what this is about.
        file.replacen("role: node, ", "", 1)
    });
    let plan = is_empty(&planned);
    assert!(plan.notes.iter().all(|note| !note.contains("cannot say")), "{:?}", plan.notes);
    let node = adoption.services.iter().find(|service| service.service == "tars-node").unwrap();
    assert!(node.unsaid.is_empty(), "{node:?}");
    for line in [
        "network_mode: service:tars-framework",
        "ipc: \"service:tars-framework\"",
        "pid: \"service:tars-framework\"",
    ] {
        assert!(adoption.file.contains(line), "{line}\n{}", adoption.file);
    }
    assert!(!adoption.file.contains("of.the.leader") && !adoption.file.contains("without.effect"));
    assert_eq!(adoption.deployment, "tars", "the network that the others share names it");
}

#[test]
fn namespaces_of_a_container_that_is_not_adopted_are_that_containers() {
    for (at, key) in ["network_mode", "ipc", "pid"].into_iter().enumerate() {
        let engine =
            Engine::documented().only(&["tars-node"]).on_the_framework("tars-node", &NAMESPACES[at..=at]);
        let (adoption, planned) = engine.planned(|file| file);
        is_empty(&planned);
        let line = adoption.file.lines().find(|line| line.contains(key)).unwrap_or_default();
        assert_eq!(line.replace('"', "").trim(), format!("{key}: container:tars-framework"));
        let remarks = adoption.services[0].remarks.join("\n");
        assert!(remarks.contains("from `tars-framework`, which is not adopted with it"), "{remarks}");
    }
}

#[test]
fn namespace_of_a_container_that_is_gone_is_told() {
    let gone = json!(format!("container:{}", "0".repeat(64)));
    let engine = Engine::documented().only(&["tars-node"]).edit("/HostConfig/PidMode", &gone);
    let (adoption, planned) = engine.planned(|file| file);
    is_empty(&planned);
    let remarks = adoption.services[0].remarks.join("\n");
    assert!(remarks.contains("it has its processes from a container that is gone"), "{remarks}");
}

#[test]
fn another_namespace_in_the_file_is_a_difference_and_none_is_one_too() {
    for (from, to, cause) in [
        ("service:tars-framework", "service:tars-mysql", "NetworkMode differs"),
        ("service:tars-framework", "container:odd", "NetworkMode differs"),
        ("network_mode: service:tars-framework", "networks: {tars: {}}", "NetworkMode, Networks differ"),
    ] {
        let engine = Engine::documented().only(&RUN_LINES).on_the_framework("tars-node", &NAMESPACES[..1]);
        let desired = read_again(&engine.adopt(), |file| {
            assert!(file.contains(from), "{from}: {file}");
            file.replace(from, to)
        });
        let observed = engine.observe(&desired);
        let service = desired.service("tars-node").unwrap();
        let container = observed.container("tars-node").unwrap();
        let found = tarsup::upgrade::differ::difference(service, container, &observed);
        assert_eq!(found.as_deref(), Some(cause), "{to}");
    }
}

#[test]
fn role_is_guessed_by_processes_where_the_environment_says_nothing_and_doubted_where_both_differ() {
    let engine = Engine::documented().only(&["tars-node"]);
    let node = container(&engine.containers[0]);
    let adopted = |env: &[&str], processes: &[&str]| {
        let container = Container { env: Environment::of(env), ..node.clone() };
        let processes = processes.iter().map(|&line| line.to_owned()).collect();
        let found = Found { image: None, container, processes, leaders: BTreeMap::new() };
        let service = adopt(&[found], &BTreeMap::new()).unwrap().services.remove(0);
        (service.role, service.why, service.remarks.join("\n"))
    };
    for (line, role) in [
        ("/usr/local/app/tars/tarsAdminRegistry/bin/tarsAdminRegistry --config=x", Some(Role::Master)),
        ("/usr/local/app/tars/tarsregistry/bin/tarsregistry --config=x", Some(Role::Slave)),
        ("/usr/local/app/tars/tarsnode/bin/tarsnode --config=x", Some(Role::Node)),
        ("mysqld --datadir=/var/lib/mysql", Some(Role::Database)),
        ("vim /usr/local/app/tars/tarsnode/bin/tarsnode", None),
    ] {
        let (guessed, why, _) = adopted(&["PATH=/bin"], &["/bin/sh /start.sh", line]);
        assert_eq!(guessed, role, "{line}");
        assert_eq!(role.is_some(), why.starts_with("it runs "), "{why}");
    }
    // The environment is what a person wrote; what runs speaks against it.
    let (role, _, remarks) = adopted(&["WEB_HOST=x"], &["mysqld"]);
    assert_eq!(role, Some(Role::Node));
    assert!(remarks.contains("it looks like node, and it runs mysqld, as a database does"), "{remarks}");
    let (_, _, remarks) = adopted(&["WEB_HOST=x"], &["/x/tarsnode"]);
    assert!(!remarks.contains("it looks like"), "{remarks}");
}

#[test]
fn forbidden_rebuild_is_told_and_shown_only_where_it_is_a_switch() {
    for (value, shown) in
        [("true", "`REBUILD` is \"true\" in it"), ("hunter2", "`REBUILD` is ***(REBUILD) in it")]
    {
        let mut engine = Engine::documented().only(&["tars-framework"]);
        let env = engine.containers[0]["Config"]["Env"].as_array_mut().unwrap();
        env.retain(|entry| !entry.as_str().unwrap().starts_with("REBUILD"));
        env.push(json!(format!("REBUILD={value}")));
        let adoption = engine.adopt();
        let remarks = adoption.services[0].remarks.join("\n");
        assert!(remarks.contains(shown), "{remarks}");
        assert!(
            !format!("{adoption:?}").contains("hunter2") && !adoption.file.contains("hunter2"),
            "{adoption:?}"
        );
    }
}
