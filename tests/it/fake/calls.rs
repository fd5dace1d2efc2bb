//! The fake engine's calls: each is one effect on what it holds.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tarsup::engine::{
    Attached, ByteStream, Change, ChangeKind, Container, ContainerSummary, CreateBody, Engine, EngineError,
    EngineImage, EngineInfo, Environment, ExecOutput, Executing, Greeting, HistoryItem, ImageStore,
    ImageSummary, Network, RestartPolicy, Result, Status,
};
use tarsup::oci::Digest;

use super::FakeEngine;
use super::attach::attach;
use super::behaviour::Behaviour;
use super::disk::Volume;
use super::world::{Held, World, answered, not_found};
use super::{template, tools};

/// The version, the API's version, and the store of an engine.
fn versions(containerd: bool) -> (&'static str, &'static str, ImageStore) {
    if containerd {
        ("26.1.5", "1.45", ImageStore::Containerd)
    } else {
        ("20.10.24", "1.41", ImageStore::Classic)
    }
}

/// An image's answer, with what tells of the store.
fn told(image: &EngineImage, containerd: bool) -> Value {
    let mut raw = image.raw.clone();
    let digests: Vec<String> = if containerd { vec![format!("image@{}", image.id)] } else { Vec::new() };
    raw["RepoDigests"] = json!(digests);
    raw["GraphDriver"] = json!({"Name": if containerd { "overlayfs" } else { "overlay2" }});
    raw
}

#[async_trait]
impl Engine for FakeEngine {
    fn greeting(&self) -> Greeting {
        let (version, ..) = versions(super::up_to_date(&self.world, &self.late).containerd);
        Greeting { version: Some(version.to_owned()), is_near: true }
    }

    async fn info(&self) -> Result<EngineInfo> {
        self.call("info".to_owned(), |world, _| {
            let (version, api_version, image_store) = versions(world.containerd);
            Ok(EngineInfo {
                id: "FAKE".to_owned(),
                version: version.to_owned(),
                api_version: api_version.to_owned(),
                architecture: "amd64".to_owned(),
                image_store,
                data_root: "/var/lib/docker".to_owned(),
                is_near: true,
            })
        })
        .await
    }

    async fn list_containers(&self, labels: &[String]) -> Result<Vec<ContainerSummary>> {
        let labels = labels.to_vec();
        self.call("list containers".to_owned(), move |world, _| {
            let shown = world.containers.values().map(|held| summary(world.shown(held, world.now())));
            Ok(shown.filter(|container| fits(&container.labels, &labels)).collect())
        })
        .await
    }

    async fn inspect_container(&self, container: &str) -> Result<Option<Container>> {
        let container = container.to_owned();
        self.call(format!("inspect {container}"), move |world, call| {
            let Ok(id) = world.find(call, &container) else { return Ok(None) };
            Ok(world.containers.get(&id).map(|held| world.shown(held, world.now())))
        })
        .await
    }

    async fn create_container(&self, name: &str, body: &CreateBody) -> Result<String> {
        let (name, body) = (name.to_owned(), body.clone());
        self.call(format!("create {name}"), move |world, call| world.create(call, &name, &body)).await
    }

    async fn start_container(&self, container: &str) -> Result<()> {
        let container = container.to_owned();
        self.call(format!("start {container}"), move |world, call| world.start(call, &container, world.now()))
            .await
    }

    async fn stop_container(&self, container: &str, grace: Duration) -> Result<()> {
        let container = container.to_owned();
        let until = self
            .call(format!("stop {container}"), move |world, call| world.stop(call, &container, grace))
            .await?;
        // The caller waits; that it stops does not hang on the caller.
        if let Some(until) = until {
            tokio::time::sleep_until(until).await;
        }
        Ok(())
    }

    async fn rename_container(&self, container: &str, name: &str) -> Result<()> {
        let (container, name) = (container.to_owned(), name.to_owned());
        self.call(format!("rename {container} {name}"), move |world, call| {
            world.rename(call, &container, &name)
        })
        .await
    }

    async fn update_restart(&self, container: &str, policy: &RestartPolicy) -> Result<()> {
        let (container, policy) = (container.to_owned(), policy.clone());
        self.call(format!("update {container} restart={}", policy.name), move |world, call| {
            world.get(call, &container)?.restart = policy;
            Ok(())
        })
        .await
    }

    async fn remove_container(&self, container: &str) -> Result<()> {
        let container = container.to_owned();
        self.call(format!("remove {container}"), move |world, call| world.remove(call, &container)).await
    }

    async fn wait_container(&self, container: &str) -> Result<i64> {
        let name = format!("wait {container}");
        loop {
            let container = container.to_owned();
            let ended = self
                .call(name.clone(), move |world, call| {
                    let held = world.get(call, &container)?;
                    Ok((held.status != Status::Running).then_some(held.exit_code))
                })
                .await?;
            match ended {
                Some(code) => return Ok(code),
                None => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    async fn attach_container(&self, container: &str) -> Result<Attached> {
        let (name, world, late) = (container.to_owned(), self.world.clone(), self.late.clone());
        self.call(format!("attach {container}"), move |state, call| {
            let held = state.get(call, &name)?;
            let is_up = held.status == Status::Running;
            Ok(attach(held, is_up, &world, &late))
        })
        .await
    }

    async fn processes(&self, container: &str) -> Result<Vec<String>> {
        let found = self.inspect_container(container).await?;
        let start = found.map(|found| found.raw["Config"]["Entrypoint"].clone()).unwrap_or_default();
        let words = start.as_array().into_iter().flatten().filter_map(Value::as_str);
        Ok(vec![words.collect::<Vec<_>>().join(" ")])
    }

    async fn changes(&self, container: &str) -> Result<Vec<Change>> {
        let container = container.to_owned();
        self.call(format!("changes {container}"), move |world, call| {
            let held = world.get(call, &container)?;
            let added = |path: &String| Change { path: path.clone(), kind: ChangeKind::Added };
            Ok(held.files.keys().map(added).collect())
        })
        .await
    }

    async fn logs(&self, container: &str, tail: u32) -> Result<String> {
        let container = container.to_owned();
        self.call(format!("logs {container}"), move |world, call| {
            let held = world.get(call, &container)?;
            let host = held.body.0.get("HostConfig");
            if host.and_then(|host| host.pointer("/LogConfig/Type")).is_some_and(|driver| driver == "none") {
                return Err(answered(call, 501, "configured logging driver does not support reading"));
            }
            let skipped = held.log.len().saturating_sub(tail as usize);
            Ok(held.log[skipped..].iter().fold(String::new(), |text, line| text + line + "\n"))
        })
        .await
    }

    async fn exec(&self, container: &str, command: &[&str], _timeout: Duration) -> Result<ExecOutput> {
        let container = container.to_owned();
        let command: Vec<String> = command.iter().map(|&word| word.to_owned()).collect();
        self.call(format!("exec {container} {}", command.join(" ")), move |world, call| {
            let id = world.find(call, &container)?;
            let held = world.containers[&id].clone();
            if held.status != Status::Running {
                return Err(EngineError::Conflict {
                    call: call.to_owned(),
                    message: format!("Container {id} is not running"),
                });
            }
            Ok(match command.iter().map(String::as_str).collect::<Vec<_>>()[..] {
                ["/usr/local/bin/tars-init" | "tars-init", ..] if !world.behaviour(&held).has_init => ExecOutput {
                    exit_code: 126,
                    stdout: "OCI runtime exec failed: exec: \"/usr/local/bin/tars-init\": stat /usr/local/bin/tars-init: \
                             no such file or directory: unknown"
                        .to_owned(),
                    stderr: String::new(),
                },
                ["/usr/local/bin/tars-init" | "tars-init", "probe", "--json"] => {
                    let is_healthy = world.is_healthy(&held, world.now());
                    probed(&held.node().unwrap_or_default(), is_healthy, &world.behaviour(&held))
                }
                ["/bin/sh", "-c", script] if script.contains("/framework/servers") => {
                    compared(&world.behaviour(&held).published)
                }
                ["/usr/local/bin/tars-init", "shared-memory"] | ["/bin/sh", "-c", _] => {
                    looked(world.behaviour(&held).shared)
                }
                ["/usr/local/bin/tars-init" | "tars-init", "published", "--json"] => {
                    published(&world.behaviour(&held).published)
                }
                ["/usr/local/bin/tars-init" | "tars-init", "migrate", ref how @ ..]
                    if world.behaviour(&held).ships.is_some() =>
                {
                    let behaviour = world.behaviour(&held);
                    let (exit_code, text) = template::migrate(world, &behaviour, *how == ["--dry-run"]);
                    let (stdout, stderr) =
                        if exit_code == 0 { (text, String::new()) } else { (String::new(), text) };
                    ExecOutput { exit_code, stdout, stderr }
                }
                ["/usr/local/bin/tars-init" | "tars-init", "templates", "take-back"] => {
                    let stdout = world.template.take_back().to_string();
                    ExecOutput { exit_code: 0, stdout, stderr: String::new() }
                }
                ["/usr/local/bin/tars-init" | "tars-init", "migrate", .., "--dry-run"] => {
                    let (exit_code, text) = world.behaviour(&held).dry_run;
                    let (stdout, stderr) =
                        if exit_code == 0 { (text, String::new()) } else { (String::new(), text) };
                    ExecOutput { exit_code, stdout, stderr }
                }
                ["/usr/local/bin/tars-init" | "tars-init", "keep-columns", "--all", ..] => {
                    let (exit_code, stdout) = world.behaviour(&held).kept;
                    ExecOutput { exit_code, stdout, stderr: String::new() }
                }
                ["date", "+%s %z"] => {
                    let (ahead, zone) = world.clock(&held.name);
                    ExecOutput { exit_code: 0, stdout: format!("{} {zone}\n", NOW + ahead), stderr: String::new() }
                }
                ["/usr/local/bin/tars-init" | "tars-init", "cluster", "--json", ref question @ ..] => {
                    cluster(world, world.behaviour(&held).protocol, question)
                }
                ["/usr/local/bin/tars-init" | "tars-init", "drain", act, order] => drain(world, act, order),
                ["/usr/local/bin/tars-init", "runnable", order] => runnable(&world.behaviour(&held), order),
                ["/usr/local/bin/tars-init", "traffic", ref ports @ ..] => {
                    traffic(world, &held.name, world.behaviour(&held).protocol, ports)
                }
                _ => ExecOutput { exit_code: 127, stdout: String::new(), stderr: "not found\n".to_owned() },
            })
        })
        .await
    }

    async fn exec_attached(&self, container: &str, command: &[&str]) -> Result<Executing> {
        let container = container.to_owned();
        let words: Vec<String> = command.iter().skip(4).map(|&word| word.to_owned()).collect();
        assert_eq!(command.get(..2), Some(&["sh", "-c"][..]), "nothing else is imitated");
        let mode = words.first().cloned().unwrap_or_default();
        self.call(format!("exec {container} tools {mode}"), move |world, call| {
            let id = world.find(call, &container)?;
            let held = world.containers[&id].clone();
            if held.status != Status::Running {
                let message = format!("Container {id} is not running");
                return Err(EngineError::Conflict { call: call.to_owned(), message });
            }
            let tools = world.behaviour(&held).tools;
            Ok(tools::begin(world, call, &tools, words))
        })
        .await
    }

    async fn exec_code(&self, exec: &str) -> Result<Option<i64>> {
        let exec = exec.to_owned();
        self.call("inspect exec".to_owned(), move |world, _| Ok(tools::code(world, &exec))).await
    }

    async fn put_archive(&self, container: &str, path: &str, tar: Vec<u8>) -> Result<()> {
        let (container, path) = (container.to_owned(), path.to_owned());
        self.call(format!("put {container} {path}"), move |world, call| {
            for (name, bytes) in entries(call, &tar)? {
                world.write(call, &container, &format!("{}/{name}", path.trim_end_matches('/')), bytes)?;
            }
            world.find(call, &container).map(drop)
        })
        .await
    }

    async fn get_archive(&self, container: &str, path: &str) -> Result<Option<Vec<u8>>> {
        let (container, path) = (container.to_owned(), path.to_owned());
        self.call(format!("get {container} {path}"), move |world, call| {
            let files = world.files(call, &container)?;
            let path = path.trim_end_matches('/');
            let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
            let inside = |name: &str| name == path || name.starts_with(&format!("{path}/"));
            let found: Vec<_> = files.iter().filter(|(name, _)| inside(name)).collect();
            if found.is_empty() {
                return Ok(None);
            }
            let mut tar = tar::Builder::new(Vec::new());
            for (name, bytes) in found {
                let mut header = tar::Header::new_gnu();
                header.set_size(bytes.len() as u64);
                header.set_mode(0o644);
                let relative = name.strip_prefix(parent).unwrap_or(name).trim_start_matches('/');
                tar.append_data(&mut header, relative, bytes.as_slice())
                    .map_err(|error| broken(call, &error))?;
            }
            tar.into_inner().map(Some).map_err(|error| broken(call, &error))
        })
        .await
    }

    async fn connect_network(&self, network: &str, container: &str, endpoint: &Value) -> Result<()> {
        let (network, container, endpoint) = (network.to_owned(), container.to_owned(), endpoint.clone());
        self.call(format!("connect {network} {container}"), move |world, call| {
            world.connect(call, &network, &container, &endpoint)
        })
        .await
    }

    async fn list_images(&self) -> Result<Vec<ImageSummary>> {
        self.call("list images".to_owned(), |world, _| {
            let listed = world.images.values().cloned().map(|image| ImageSummary {
                id: image.id,
                tags: image.tags,
                labels: image.labels,
                size: image.size,
                created: image.created,
            });
            Ok(listed.collect())
        })
        .await
    }

    async fn list_images_of(&self, repository: &str) -> Result<Vec<ImageSummary>> {
        let prefix = format!("{repository}:");
        let mut listed = self.list_images().await?;
        listed.retain(|one| one.tags.iter().any(|tag| tag.starts_with(&prefix)));
        Ok(listed)
    }

    async fn inspect_image(&self, image: &str) -> Result<Option<EngineImage>> {
        let image = image.to_owned();
        self.call(format!("inspect image {image}"), move |world, _| {
            let found = world.image_id(&image).and_then(|id| world.images.get(&id).cloned());
            Ok(found.map(|image| EngineImage { raw: told(&image, world.containerd), ..image }))
        })
        .await
    }

    async fn image_history(&self, image: &str) -> Result<Vec<HistoryItem>> {
        let image = image.to_owned();
        self.call(format!("history {image}"), move |world, call| match world.image_id(&image) {
            Some(_) => Ok(Vec::new()),
            None => Err(not_found(call, "no such image")),
        })
        .await
    }

    async fn load_image(&self, mut tar: ByteStream) -> Result<Vec<String>> {
        let mut bytes = Vec::new();
        while let Some(piece) = tar.next().await {
            bytes.extend_from_slice(&piece.map_err(|error| broken("load", &error))?);
        }
        *super::locked(&self.received) += bytes.len() as u64;
        self.call("load".to_owned(), move |world, call| load(world, call, &bytes)).await
    }

    /// Not imitated: nothing that this engine is for reads images from it.
    async fn save_image(&self, image: &str) -> Result<ByteStream> {
        self.call(format!("save {image}"), |_, call| {
            Err(not_found(call, "the engine in memory keeps no layers"))
        })
        .await
    }

    async fn remove_image(&self, image: &str) -> Result<()> {
        let image = image.to_owned();
        self.call(format!("remove image {image}"), move |world, call| world.remove_image(call, &image)).await
    }

    async fn tag_image(&self, image: &str, repository: &str, tag: &str) -> Result<()> {
        let (image, reference) = (image.to_owned(), format!("{repository}:{tag}"));
        self.call(format!("tag {image} {reference}"), move |world, call| {
            let found = world.image_id(&image).and_then(|id| world.images.get(&id).cloned());
            let found = found.ok_or_else(|| not_found(call, format!("No such image: {image}")))?;
            world.tag(&reference, found);
            Ok(())
        })
        .await
    }

    async fn inspect_network(&self, network: &str) -> Result<Option<Network>> {
        let network = network.to_owned();
        self.call(format!("inspect network {network}"), move |world, _| {
            let Some(mut found) = world.network(&network).cloned() else { return Ok(None) };
            let length =
                found.subnets.first().and_then(|subnet| subnet.split('/').nth(1)).unwrap_or("16").to_owned();
            for held in world.containers.values() {
                if let Some(address) = held.addresses.get(&found.name) {
                    found.addresses.insert(held.id.clone(), format!("{address}/{length}"));
                }
            }
            Ok(Some(found))
        })
        .await
    }

    async fn create_network(&self, body: &Value) -> Result<String> {
        let body = body.clone();
        let name = body["Name"].as_str().unwrap_or_default().to_owned();
        self.call(format!("create network {name}"), move |world, call| {
            if world.network(&name).is_some() {
                let message = format!("network with name {name} already exists");
                return Err(EngineError::Conflict { call: call.to_owned(), message });
            }
            let id = world.next_id();
            let of = |key: &str| -> Vec<String> {
                let configs = body.pointer("/IPAM/Config").and_then(Value::as_array).into_iter().flatten();
                configs.filter_map(|config| config[key].as_str()).map(str::to_owned).collect()
            };
            let network = Network {
                id: id.clone(),
                name: name.clone(),
                driver: body["Driver"].as_str().unwrap_or("bridge").to_owned(),
                subnets: of("Subnet"),
                ranges: of("IPRange"),
                gateways: of("Gateway"),
                labels: labels(&body["Labels"]),
                addresses: BTreeMap::new(),
            };
            world.networks.insert(id.clone(), network);
            Ok(id)
        })
        .await
    }

    async fn inspect_volume(&self, volume: &str) -> Result<Option<BTreeMap<String, String>>> {
        let volume = volume.to_owned();
        self.call(format!("inspect volume {volume}"), move |world, _| {
            Ok(world.volumes.get(&volume).map(|volume| volume.labels.clone()))
        })
        .await
    }

    async fn list_volumes(&self, labels: &[String]) -> Result<Vec<(String, BTreeMap<String, String>)>> {
        let labels = labels.to_vec();
        self.call("list volumes".to_owned(), move |world, _| {
            let volumes = world.volumes.iter().filter(|(_, volume)| fits(&volume.labels, &labels));
            Ok(volumes.map(|(name, volume)| (name.clone(), volume.labels.clone())).collect())
        })
        .await
    }

    async fn create_volume(&self, body: &Value) -> Result<BTreeMap<String, String>> {
        let labels = labels(&body["Labels"]);
        let name = body["Name"].as_str().unwrap_or_default().to_owned();
        self.call(format!("create volume {name}"), move |world, _| {
            let made = || Volume { labels, ..Volume::default() };
            Ok(world.volumes.entry(name).or_insert_with(made).labels.clone())
        })
        .await
    }

    async fn remove_volume(&self, volume: &str) -> Result<()> {
        let volume = volume.to_owned();
        self.call(format!("remove volume {volume}"), move |world, call| world.remove_volume(call, &volume))
            .await
    }
}

/// The time of every clock that nobody has set otherwise: that of the tests' machine.
const NOW: i64 = 1_767_323_045;

/// What a list shows of a container.
fn summary(container: Container) -> ContainerSummary {
    ContainerSummary {
        id: container.id,
        name: container.name,
        labels: container.labels,
        image: container.image,
        image_id: container.image_id,
        status: container.status,
        health: container.health,
        addresses: container.addresses,
        mounts: container.raw["Mounts"].clone(),
    }
}

/// Whether labels have all of `wanted`, each a key or `key=value`.
fn fits(labels: &BTreeMap<String, String>, wanted: &[String]) -> bool {
    wanted.iter().all(|label| match label.split_once('=') {
        Some((key, value)) => labels.get(key).is_some_and(|found| found == value),
        None => labels.contains_key(label),
    })
}

/// What `tars-init probe --json` prints.
fn probed(node: &str, healthy: bool, behaviour: &Behaviour) -> ExecOutput {
    let problems: &[&str] = if healthy { &[] } else { &["tars.tarsregistry.QueryObj does not answer"] };
    let document = json!({
        "protocol": 2, "healthy": healthy, "role": "slave", "address": node, "version": "3.0.17", "servants": [],
        "web": null, "registry": null, "database": "exists", "problems": problems,
        "changes": behaviour.changes,
        "deployed": behaviour.deployed.as_ref().map(|all| {
            all.iter().map(|(server, serves)| json!({"server": server, "serves": serves})).collect::<Vec<_>>()
        }),
    });
    ExecOutput { exit_code: i64::from(!healthy), stdout: format!("{document}\n"), stderr: String::new() }
}

/// What a look at shared memory prints.
fn looked(shared: Option<String>) -> ExecOutput {
    let exit_code = if shared.is_some() { 0 } else { 126 };
    let stdout = shared.map(|lines| format!("{lines}\nend\n")).unwrap_or_default();
    ExecOutput { exit_code, stdout, stderr: String::new() }
}

/// What `tars-init published --json` prints.
fn published(services: &[(String, String)]) -> ExecOutput {
    let services: Vec<Value> =
        services.iter().map(|(service, version)| json!({"service": service, "version": version})).collect();
    let stdout = format!("{}\n", json!({"version": 1, "services": services}));
    ExecOutput { exit_code: 0, stdout, stderr: String::new() }
}

/// What a shell tells of the programs that are not those of upstream's tree.
fn compared(services: &[(String, String)]) -> ExecOutput {
    let names = services.iter().map(|(service, _)| service.as_str()).chain(["end\n"]);
    ExecOutput { exit_code: 0, stdout: names.collect::<Vec<_>>().join("\n"), stderr: String::new() }
}

/// What `tars-init drain` prints: every node has a server that serves elsewhere too, and registries notice at once.
fn drain(world: &mut World, act: &str, order: &str) -> ExecOutput {
    let order: Value = serde_json::from_str(order).unwrap();
    let named: Vec<String> = serde_json::from_value(order["nodes"].clone()).unwrap();
    let place = |node: &String| json!({"server": "Demo.Hello", "node": node});
    let document = match act {
        "begin" => {
            world.drained.extend(named.iter().cloned());
            json!({"drained": named.iter().map(place).collect::<Vec<_>>()})
        }
        "end" => {
            let ended: Vec<String> = world
                .drained
                .iter()
                .filter(|node| named.is_empty() || named.contains(node))
                .cloned()
                .collect();
            world.drained.retain(|node| !ended.contains(node));
            json!({"ended": ended.iter().map(place).collect::<Vec<_>>()})
        }
        "look" => {
            let listens = |node: &String, port: u16, is_udp: bool| json!({"server": "Demo.Hello", "node": node, "port": port, "is_udp": is_udp});
            let mine = world.drained.iter().filter(|node| named.contains(node));
            let listens: Vec<Value> =
                mine.flat_map(|node| [listens(node, 9001, false), listens(node, 9002, true)]).collect();
            let drained: Vec<&String> = world.drained.iter().filter(|node| named.contains(node)).collect();
            let mut document = json!({"listens": listens, "drained": drained.iter().map(|node| place(node)).collect::<Vec<_>>()});
            // What somebody else does to it meanwhile.
            for key in ["late", "again", "alone"] {
                let told = world.facts.get(key).and_then(Value::as_array).into_iter().flatten();
                let of_these = told.filter(|one| drained.iter().any(|node| one["node"] == **node));
                document[key] = of_these.cloned().collect();
            }
            document
        }
        _ => json!({}),
    };
    ExecOutput { exit_code: 0, stdout: document.to_string(), stderr: String::new() }
}

/// What `tars-init runnable` prints of the servers that it is asked for.
fn runnable(behaviour: &Behaviour, order: &str) -> ExecOutput {
    let order: Value = serde_json::from_str(order).unwrap();
    let asked = |server: &str| order["servers"].as_array().unwrap().iter().any(|one| one["server"] == server);
    let found = behaviour.cannot_run.iter().filter(|(server, _)| asked(server));
    let findings: Vec<Value> = found.map(|(server, why)| json!({"server": server, "why": why})).collect();
    let exit_code = behaviour.runnable_exit;
    let stdout =
        if exit_code == 0 { json!({"protocol": 2, "findings": findings}).to_string() } else { String::new() };
    ExecOutput { exit_code, stdout, stderr: String::new() }
}

/// What `tars-init traffic` prints; an older one does not know the question.
fn traffic(world: &World, container: &str, protocol: u32, ports: &[&str]) -> ExecOutput {
    if protocol < 2 {
        let stderr = "tars-init: `traffic 9001` is not understood.\n".to_owned();
        return ExecOutput { exit_code: 64, stdout: String::new(), stderr };
    }
    if ports.first() == Some(&"--connected") {
        assert_eq!(ports[1..], ["17890", "17891"]);
        let peers = world.linked.get(container).into_iter().flatten();
        let callers: Vec<Value> =
            peers.map(|peer| json!({"port": 17891, "peer": peer, "connections": 1})).collect();
        let stdout = json!({"protocol": 2, "callers": callers}).to_string();
        return ExecOutput { exit_code: 0, stdout, stderr: String::new() };
    }
    assert_eq!(ports, ["9001"], "nobody counts who calls over UDP");
    let calling = world.callers.get(container).filter(|(_, until)| *until > world.now());
    let callers: Vec<Value> =
        calling.map(|(peer, _)| json!({"port": 9001, "peer": peer, "connections": 1})).into_iter().collect();
    let stdout = json!({"protocol": 2, "callers": callers}).to_string();
    ExecOutput { exit_code: 0, stdout, stderr: String::new() }
}

/// What answers of a container's servers from outside, and who does not although it runs.
fn seen(world: &World, held: &Held) -> (Vec<Value>, Vec<&'static str>) {
    let behaviour = world.behaviour(held);
    let outside = behaviour.outside.iter().map(|(server, after)| {
        let serves = held.is_up() && held.started.is_some_and(|started| world.now() >= started + *after);
        json!({"server": server, "serves": serves, "detail": if serves { "" } else { "port 9001: nothing listens" }})
    });
    let is_asked = |server: &str| behaviour.outside.iter().any(|(asked, _)| *asked == server);
    let untold = behaviour.deployed.iter().flatten().filter(|(server, serves)| *serves && !is_asked(server));
    (outside.collect(), untold.map(|(server, _)| *server).collect())
}

/// What `tars-init cluster --json` prints; a heartbeat moves with every question.
fn cluster(world: &mut World, protocol: u32, question: &[&str]) -> ExecOutput {
    if protocol < 2 {
        let stderr = "tars-init: `cluster --json` is not understood.\n".to_owned();
        return ExecOutput { exit_code: 64, stdout: String::new(), stderr };
    }
    world.heartbeats += 1;
    let time = |seconds: u64| format!("2026-01-02 03:{:02}:{:02}", seconds / 60 % 60, seconds % 60);
    let rows = world.nodes.iter().filter(|_| !world.database_is_away);
    let nodes: Vec<Value> = rows
        .map(|(node, registered)| {
            // A tarsnode that reaches no registry has no heartbeat either.
            let runs = |held: &&Held| held.status == Status::Running && held.node().as_ref() == Some(node);
            let held = world.containers.values().find(runs);
            let beats = held.is_none_or(|held| world.behaviour(held).registers);
            let beat = if beats { world.heartbeats } else { *registered };
            json!({"node": node, "last_reg_time": time(*registered), "last_heartbeat": time(beat)})
        })
        .collect();
    let asked = match question {
        ["--ask", address, "--role", role] => {
            let is_there = |held: &&Held| held.addresses.values().any(|own| own == address);
            let held = world.containers.values().find(is_there);
            let healthy = held.is_some_and(|held| world.is_healthy(held, world.now()));
            let problems =
                if healthy { json!([]) } else { json!(["tars.tarsnode.ServerObj (nothing listens)"]) };
            let (deployed, untold) = held.map(|held| seen(world, held)).unwrap_or_default();
            json!({
                "address": address, "role": role, "healthy": healthy, "servants": [], "problems": problems,
                "deployed": deployed, "untold": untold,
            })
        }
        _ => Value::Null,
    };
    let (database, detail) = if world.database_is_away {
        ("unknown", "172.25.0.2:3306: Connection refused (os error 111)")
    } else if world.database_is_empty {
        ("absent", "")
    } else {
        ("exists", "")
    };
    let stopped = (database == "exists").then_some(&world.stopped);
    let mut document = json!({
        "protocol": protocol, "database": database, "detail": detail, "now": time(0), "nodes": nodes, "asked": asked,
        "stopped": stopped,
    });
    if question == ["--facts"] {
        let (ahead, zone) = world.clock("database");
        let zone: i64 = zone.parse().expect("hours and minutes");
        let clock = json!({"own": NOW, "database": NOW + ahead, "zone": zone / 100 * 3600 + zone % 100 * 60});
        document["facts"] = json!({"room": world.room});
        if database == "exists" {
            let facts = document["facts"].as_object_mut().expect("it is one");
            facts.insert("clock".to_owned(), clock);
            facts.extend(world.facts.clone());
        }
    }
    ExecOutput {
        exit_code: i64::from(world.database_is_away),
        stdout: format!("{document}\n"),
        stderr: String::new(),
    }
}

fn labels(value: &Value) -> BTreeMap<String, String> {
    let pairs = value.as_object().into_iter().flatten();
    pairs.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

fn broken(call: &str, error: &std::io::Error) -> EngineError {
    EngineError::Answered { call: call.to_owned(), status: 400, message: error.to_string() }
}

/// The regular files of a tar.
fn entries(call: &str, tar: &[u8]) -> Result<Vec<(String, Vec<u8>)>> {
    let mut archive = tar::Archive::new(tar);
    let mut files = Vec::new();
    for entry in archive.entries().map_err(|error| broken(call, &error))? {
        let mut entry = entry.map_err(|error| broken(call, &error))?;
        if entry.header().entry_type().is_file() {
            let name = entry.path().map_err(|error| broken(call, &error))?.to_string_lossy().into_owned();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).map_err(|error| broken(call, &error))?;
            files.push((name, bytes));
        }
    }
    Ok(files)
}

/// Takes the images of a docker-archive in; what the engine says of it.
fn load(world: &mut World, call: &str, bytes: &[u8]) -> Result<Vec<String>> {
    let files: BTreeMap<String, Vec<u8>> = entries(call, bytes)?.into_iter().collect();
    let file = |name: &str| files.get(name).map(Vec::as_slice).unwrap_or_default();
    let json = |bytes: &[u8]| -> Value { serde_json::from_slice(bytes).unwrap_or_default() };
    let manifest = json(file("manifest.json"));
    let mut messages = Vec::new();
    for one in manifest.as_array().into_iter().flatten() {
        let config = file(one["Config"].as_str().unwrap_or_default());
        let parsed = json(config);
        for tag in one["RepoTags"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            // containerd's store makes a manifest of its own for an archive, and names the image by its digest.
            let id = if world.containerd {
                Digest::of(format!("manifest of {}", Digest::of(config)))
            } else {
                Digest::of(config)
            };
            world.tag(tag, loaded(&id.to_string(), &parsed));
            messages.push(format!("Loaded image: {tag}"));
        }
    }
    Ok(messages)
}

/// The image of a docker-archive's config.
fn loaded(id: &str, parsed: &Value) -> EngineImage {
    let strings = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    EngineImage {
        tags: Vec::new(),
        diff_ids: strings(&parsed["rootfs"]["diff_ids"])
            .iter()
            .filter_map(|text| text.parse().ok())
            .collect(),
        env: Environment::of(strings(&parsed["config"]["Env"])),
        labels: labels(&parsed["config"]["Labels"]),
        size: 0,
        layer_sizes: Vec::new(),
        created: parsed["created"].as_str().unwrap_or_default().to_owned(),
        architecture: parsed["architecture"].as_str().unwrap_or_default().to_owned(),
        raw: json!({"Id": id, "Config": parsed["config"]}),
        id: id.to_owned(),
    }
}
