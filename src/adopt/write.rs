//! The deployment file's text: each value so that compose, and tarsup, read exactly what was asked for.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::{Adopted, EnvFile};
use crate::deploy::asked::Asked;
use crate::deploy::asked::says_nothing;

/// The API's keys that a compose key takes as they are: a text, a number, a flag, a list of texts.
const PLAIN: [(&str, &str); 36] = [
    ("Hostname", "hostname"),
    ("Domainname", "domainname"),
    ("User", "user"),
    ("WorkingDir", "working_dir"),
    ("StopSignal", "stop_signal"),
    ("MacAddress", "mac_address"),
    ("Tty", "tty"),
    ("OpenStdin", "stdin_open"),
    ("CapAdd", "cap_add"),
    ("CapDrop", "cap_drop"),
    ("CgroupnsMode", "cgroup"),
    ("CgroupParent", "cgroup_parent"),
    ("CpuPeriod", "cpu_period"),
    ("CpuQuota", "cpu_quota"),
    ("CpuShares", "cpu_shares"),
    ("CpusetCpus", "cpuset"),
    ("DeviceCgroupRules", "device_cgroup_rules"),
    ("Dns", "dns"),
    ("DnsOptions", "dns_opt"),
    ("DnsSearch", "dns_search"),
    ("ExtraHosts", "extra_hosts"),
    ("GroupAdd", "group_add"),
    ("Init", "init"),
    ("IpcMode", "ipc"),
    ("Memory", "mem_limit"),
    ("MemoryReservation", "mem_reservation"),
    ("MemorySwappiness", "mem_swappiness"),
    ("MemorySwap", "memswap_limit"),
    ("OomKillDisable", "oom_kill_disable"),
    ("OomScoreAdj", "oom_score_adj"),
    ("PidMode", "pid"),
    ("PidsLimit", "pids_limit"),
    ("Privileged", "privileged"),
    ("ReadonlyRootfs", "read_only"),
    ("Runtime", "runtime"),
    ("SecurityOpt", "security_opt"),
];

/// More of them.
const MORE: [(&str, &str); 8] = [
    ("ShmSize", "shm_size"),
    ("StorageOpt", "storage_opt"),
    ("Sysctls", "sysctls"),
    ("UsernsMode", "userns_mode"),
    ("UTSMode", "uts"),
    ("Labels", "labels"),
    ("Entrypoint", "entrypoint"),
    ("Cmd", "command"),
];

/// A file that is being written.
#[derive(Default)]
pub struct File {
    text: String,
    networks: BTreeSet<String>,
    volumes: BTreeSet<String>,
}

impl File {
    fn line(&mut self, depth: usize, text: &str) {
        let _ = writeln!(self.text, "{}{text}", "  ".repeat(depth));
    }

    /// One service.
    pub fn service(&mut self, adopted: &Adopted, asked: &Asked, env_file: Option<&EnvFile>) {
        self.line(1, &format!("{}:", scalar(&adopted.service)));
        let id = &adopted.id;
        let why = comment(&adopted.why);
        if let Some(role) = adopted.role {
            self.line(2, &format!("# The role is a guess: {why}."));
            self.line(2, &format!("x-tars: {{role: {}, adopted: {id}}}", role.name()));
        } else {
            self.line(2, &format!("# No role: {why}."));
            self.line(2, &format!("x-tars: {{adopted: {id}}}"));
        }
        for key in &adopted.unsaid {
            let becomes =
                if adopted.lost.contains(key) { "is lost with the first roll" } else { "is handed on" };
            self.line(2, &format!("# Cannot be said here, and {becomes}: {}", comment(key)));
        }
        self.line(2, &format!("image: {}", scalar(&adopted.image)));
        self.line(2, &format!("container_name: {}", scalar(&adopted.container)));
        self.line(2, &format!("restart: {}", scalar(&adopted.restart)));
        let said = |key: &str| asked.said.get(key);
        for (api, key) in PLAIN.iter().chain(&MORE) {
            if let Some(value) = said(api) {
                self.line(2, &format!("{key}: {}", flow(value)));
            }
        }
        if let Some(seconds) = said("StopTimeout").and_then(Value::as_i64) {
            self.line(2, &format!("stop_grace_period: {seconds}s"));
        }
        if let Some(billionths) = said("NanoCpus").and_then(Value::as_i64) {
            self.line(
                2,
                &format!("cpus: \"{}.{:09}\"", billionths / 1_000_000_000, billionths % 1_000_000_000),
            );
        }
        self.environment(said("Env"), env_file);
        if let Some(check) = said("Healthcheck").and_then(Value::as_object) {
            self.line(2, &format!("healthcheck: {}", flow(&healthcheck(check))));
        }
        self.resources(asked);
        self.networks(asked);
        self.ports(said("PortBindings").and_then(Value::as_object));
        if let Some(ports) = said("ExposedPorts").and_then(Value::as_object) {
            let ports: Vec<Value> = ports.keys().map(|port| port.clone().into()).collect();
            self.line(2, &format!("expose: {}", flow(&ports.into())));
        }
        self.mounts(said("Mounts").and_then(Value::as_object));
    }

    fn environment(&mut self, env: Option<&Value>, env_file: Option<&EnvFile>) {
        if let Some(file) = env_file {
            self.line(2, &format!("env_file: {}", scalar(&file.name)));
        }
        let env = env.and_then(Value::as_object).filter(|env| !env.is_empty());
        if let Some(env) = env {
            self.line(2, "environment:");
            for (name, value) in env {
                let value = value.as_str().map(|value| format!(" {}", scalar(value))).unwrap_or_default();
                self.line(3, &format!("{}:{value}", key(name)));
            }
        }
    }

    fn resources(&mut self, asked: &Asked) {
        let said = |key: &str| asked.said.get(key);
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        if let Some(devices) = said("Devices") {
            let devices = list(devices).into_iter().map(|device| {
                let part = |key: &str| text(&device[key]);
                Value::from(format!(
                    "{}:{}:{}",
                    part("PathOnHost"),
                    part("PathInContainer"),
                    part("CgroupPermissions")
                ))
            });
            self.line(2, &format!("devices: {}", flow(&devices.collect())));
        }
        if let Some(ulimits) = said("Ulimits") {
            self.line(2, "ulimits:");
            for limit in list(ulimits) {
                let name = text(&limit["Name"]);
                self.line(
                    3,
                    &format!("{}: {{soft: {}, hard: {}}}", key(&name), limit["Soft"], limit["Hard"]),
                );
            }
        }
        if let Some(log) = said("LogConfig") {
            let mut logging = Map::from_iter([("driver".to_owned(), log["Type"].clone())]);
            if !says_nothing(&log["Config"]) {
                logging.insert("options".to_owned(), log["Config"].clone());
            }
            self.line(2, &format!("logging: {}", flow(&logging.into())));
        }
    }

    fn networks(&mut self, asked: &Asked) {
        let Some(first) = asked.said.get("NetworkMode").and_then(Value::as_str) else { return };
        let Some(endpoints) = asked.said.get("Networks").and_then(Value::as_object) else {
            return self.line(2, &format!("network_mode: {}", scalar(first)));
        };
        self.line(2, "networks:");
        for (name, settings) in endpoints {
            let mut written = Map::new();
            for (api, key) in [
                ("IPv4Address", "ipv4_address"),
                ("IPv6Address", "ipv6_address"),
                ("LinkLocalIPs", "link_local_ips"),
                ("Aliases", "aliases"),
                ("DriverOpts", "driver_opts"),
            ] {
                written.extend(settings.get(api).map(|value| (key.to_owned(), value.clone())));
            }
            if name == first && endpoints.len() > 1 {
                written.insert("priority".to_owned(), 1000.into());
            }
            self.line(3, &format!("{}: {}", key(name), flow(&written.into())));
            self.networks.insert(name.clone());
        }
    }

    fn ports(&mut self, bindings: Option<&Map<String, Value>>) {
        let Some(bindings) = bindings else { return };
        self.line(2, "ports:");
        for (target, hosts) in bindings {
            for host in hosts.as_array().into_iter().flatten() {
                let text = |key: &str| host[key].as_str().unwrap_or_default();
                let written = match (text("HostIp"), text("HostPort")) {
                    ("", "") => target.clone(),
                    ("", port) => format!("{port}:{target}"),
                    (address, port) if address.contains(':') => format!("[{address}]:{port}:{target}"),
                    (address, port) => format!("{address}:{port}:{target}"),
                };
                self.line(3, &format!("- {}", scalar(written.strip_suffix("/tcp").unwrap_or(&written))));
            }
        }
    }

    fn mounts(&mut self, mounts: Option<&Map<String, Value>>) {
        let is_memory = |mount: &Value| {
            mount["Type"] == "tmpfs" && mount.get("SizeBytes").or(mount.get("Mode")).is_none()
        };
        let (memory, others): (Vec<_>, Vec<_>) =
            mounts.into_iter().flatten().partition(|(_, mount)| is_memory(mount));
        if !memory.is_empty() {
            self.line(2, "tmpfs:");
            for (target, mount) in memory {
                let options =
                    mount["Options"].as_str().map(|options| format!(":{options}")).unwrap_or_default();
                self.line(3, &format!("- {}", scalar(&format!("{target}{options}"))));
            }
        }
        if others.is_empty() {
            return;
        }
        self.line(2, "volumes:");
        for (target, mount) in others {
            let source = mount["Source"].as_str().unwrap_or_default();
            if mount["Type"] == "volume" {
                self.volumes.insert(source.to_owned());
            }
            self.line(
                3,
                &format!("- {}", short(target, source, mount).unwrap_or_else(|| flow(&long(target, mount)))),
            );
        }
    }

    /// The whole file.
    pub fn finish(mut self, deployment: &str) -> String {
        let services = std::mem::take(&mut self.text);
        for line in [
            "# Written by `tarsup adopt` from containers that run: what they were asked for, less what their images and the",
            "# engine do by themselves. `adopted` names each by its id; `tarsup plan` shows that nothing is to be done.",
        ] {
            self.line(0, line);
        }
        self.line(0, &format!("name: {}", scalar(deployment)));
        self.line(0, "services:");
        self.text += &services;
        for (kind, names) in [("networks", self.networks.clone()), ("volumes", self.volumes.clone())] {
            if !names.is_empty() {
                self.line(0, &format!("{kind}:"));
            }
            for name in names {
                self.line(1, &format!("{}: {{external: true}}", key(&name)));
            }
        }
        self.text
    }
}

/// `source:target[:options]`; `None` where that cannot say it.
fn short(target: &str, source: &str, mount: &Value) -> Option<String> {
    let known = ["Type", "Source", "ReadOnly", "Propagation", "Selinux", "NoCopy"];
    let is_plain = mount.as_object()?.keys().all(|key| known.contains(&key.as_str()));
    if !is_plain || source.contains(':') || target.contains(':') || mount["Type"] == "tmpfs" {
        return None;
    }
    let mut options = Vec::new();
    if mount["ReadOnly"] == true {
        options.push("ro");
    }
    options.extend(mount["Selinux"].as_str());
    options.extend(mount["Propagation"].as_str());
    if mount["NoCopy"] == true {
        options.push("nocopy");
    }
    let options = if options.is_empty() { String::new() } else { format!(":{}", options.join(",")) };
    Some(scalar(&format!("{source}:{target}{options}")))
}

/// The same as a mapping.
fn long(target: &str, mount: &Value) -> Value {
    let mut written =
        Map::from_iter([("type".to_owned(), mount["Type"].clone()), ("target".to_owned(), target.into())]);
    let mut put = |key: &str, value: &Value| {
        if !value.is_null() {
            written.insert(key.to_owned(), value.clone());
        }
    };
    put("source", &mount["Source"]);
    put("read_only", &mount["ReadOnly"]);
    let part = |pairs: &[(&str, &str)]| -> Value {
        let there = pairs.iter().filter_map(|(api, key)| Some(((*key).to_owned(), mount.get(*api)?.clone())));
        let part: Map<String, Value> = there.collect();
        if part.is_empty() { Value::Null } else { part.into() }
    };
    match mount["Type"].as_str() {
        Some("bind") => put(
            "bind",
            &part(&[
                ("Propagation", "propagation"),
                ("CreateHostPath", "create_host_path"),
                ("Selinux", "selinux"),
                ("Recursive", "recursive"),
            ]),
        ),
        Some("volume") => put("volume", &part(&[("NoCopy", "nocopy"), ("Subpath", "subpath")])),
        _ => put("tmpfs", &part(&[("SizeBytes", "size"), ("Mode", "mode")])),
    }
    written.into()
}

fn healthcheck(check: &Map<String, Value>) -> Value {
    let mut written = Map::new();
    for (api, key) in [
        ("Interval", "interval"),
        ("Timeout", "timeout"),
        ("StartPeriod", "start_period"),
        ("StartInterval", "start_interval"),
    ] {
        if let Some(nanoseconds) = check.get(api).and_then(Value::as_u64) {
            written.insert(key.to_owned(), format!("{nanoseconds}ns").into());
        }
    }
    for (api, key) in [("Test", "test"), ("Retries", "retries")] {
        written.extend(check.get(api).map(|value| (key.to_owned(), value.clone())));
    }
    written.into()
}

/// A value in one line: JSON is YAML, but for the dollars that compose would take for variables.
fn flow(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(&text.replace('$', "$$"), false),
        Value::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::Object(entries) => {
            let entries = entries.iter().map(|(name, value)| format!("{}: {}", key(name), flow(value)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

/// A text on a line of its own, in quotes unless nobody could read it as anything else.
fn scalar(text: &str) -> String {
    quoted(&text.replace('$', "$$"), true)
}

/// The same for a key, which is not interpolated.
fn key(text: &str) -> String {
    quoted(text, false)
}

fn quoted(text: &str, may_have_colons: bool) -> String {
    const WORDS: [&str; 11] = ["true", "false", "yes", "no", "on", "off", "null", "y", "n", "inf", "nan"];
    let is_plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.chars().all(|c| {
            c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-') || c == ':' && may_have_colons
        })
        && !text.ends_with(':')
        && !WORDS.contains(&text.to_lowercase().as_str());
    if is_plain { text.to_owned() } else { Value::from(text).to_string() }
}

/// What stands in a comment stays in it.
fn comment(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
