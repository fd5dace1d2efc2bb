//! The keys of a service that go into the create body as they are, or nearly so.

use serde_json::{Map, Value as Json, json};

use super::error::{ComposeError, Result};
use super::merge::hosts;
use super::resource::pairs;
use super::value::{
    Handling, Keys, billionths, boolean, bytes, check_keys, duration, entries, integer, list, text, texts,
    words,
};
use crate::yaml::{Entry, Node, Value};

/// What a key takes whose value goes into the API as it is.
#[derive(Clone, Copy)]
pub(super) enum Takes {
    Text,
    Flag,
    Number,
    Bytes,
    Texts,
    Words,
    Billionths,
    Pairs,
}

/// Puts the keys of `table` that `node` has into `body`.
pub(super) fn put(body: &mut Map<String, Json>, node: &Node, table: &[(&str, &str, Takes)]) -> Result<()> {
    for (key, api, takes) in table {
        let Some(value) = node.get(key).filter(|value| !value.is_null()) else { continue };
        let json: Json = match takes {
            Takes::Text => text(value, key)?.into(),
            Takes::Flag => boolean(value, key)?.into(),
            Takes::Number => integer(value, key)?.into(),
            Takes::Bytes => bytes(value, key)?.into(),
            Takes::Texts => {
                let mut seen: Vec<String> = Vec::new();
                for one in texts(value, key)? {
                    if !seen.contains(&one) {
                        seen.push(one);
                    }
                }
                seen.into()
            }
            Takes::Words => words(value, key)?.into(),
            Takes::Billionths => billionths(value, key)?.into(),
            Takes::Pairs => pairs(value, key)?.into(),
        };
        body.insert((*api).to_owned(), json);
    }
    Ok(())
}

/// What the API has at the top of the body.
pub(super) fn config(node: &Node) -> Result<Map<String, Json>> {
    let mut body = Map::new();
    put(
        &mut body,
        node,
        &[
            ("hostname", "Hostname", Takes::Text),
            ("domainname", "Domainname", Takes::Text),
            ("user", "User", Takes::Text),
            ("working_dir", "WorkingDir", Takes::Text),
            ("entrypoint", "Entrypoint", Takes::Words),
            ("command", "Cmd", Takes::Words),
            ("stop_signal", "StopSignal", Takes::Text),
            ("mac_address", "MacAddress", Takes::Text),
            ("tty", "Tty", Takes::Flag),
            ("stdin_open", "OpenStdin", Takes::Flag),
        ],
    )?;
    if let Some(check) = node.get("healthcheck").filter(|check| !check.is_null()) {
        body.insert("Healthcheck".to_owned(), healthcheck(check)?);
    }
    Ok(body)
}

fn healthcheck(node: &Node) -> Result<Json> {
    const CHECK: &Keys = &[
        ("test", Handling::Done),
        ("interval", Handling::Done),
        ("timeout", Handling::Done),
        ("retries", Handling::Done),
        ("start_period", Handling::Done),
        ("start_interval", Handling::Done),
        ("disable", Handling::Done),
    ];
    check_keys(node, "`healthcheck`", CHECK)?;
    if let Some(disable) = node.get("disable")
        && boolean(disable, "disable")?
    {
        return Ok(json!({"Test": ["NONE"]}));
    }
    let mut check = Map::new();
    for entry in entries(node, "healthcheck")? {
        let (key, value) = (entry.key.as_str(), &entry.value);
        let api = match key {
            "test" => {
                let test = match &value.value {
                    Value::List(_) => texts(value, "test")?,
                    _ => vec!["CMD-SHELL".to_owned(), text(value, "test")?],
                };
                let fits = match test.first().map(String::as_str) {
                    Some("NONE") => test.len() == 1,
                    Some("CMD" | "CMD-SHELL") => test.len() > 1,
                    _ => false,
                };
                if !fits {
                    let what = "`test` is a text, or a list that begins with NONE, CMD or CMD-SHELL";
                    return Err(ComposeError::invalid(&value.at, what));
                }
                check.insert("Test".to_owned(), test.into());
                continue;
            }
            "retries" => {
                check.insert("Retries".to_owned(), integer(value, key)?.into());
                continue;
            }
            "interval" => "Interval",
            "timeout" => "Timeout",
            "start_period" => "StartPeriod",
            "start_interval" => "StartInterval",
            _ => continue,
        };
        let nanoseconds = u64::try_from(duration(value, key)?.as_nanos()).unwrap_or(u64::MAX);
        check.insert(api.to_owned(), nanoseconds.into());
    }
    Ok(check.into())
}

/// What the API has under `HostConfig`, but for restart, mounts, ports and networks.
pub(super) fn host_config(node: &Node) -> Result<Map<String, Json>> {
    let mut host = Map::new();
    put(
        &mut host,
        node,
        &[
            ("cap_add", "CapAdd", Takes::Texts),
            ("cap_drop", "CapDrop", Takes::Texts),
            ("cgroup", "CgroupnsMode", Takes::Text),
            ("cgroup_parent", "CgroupParent", Takes::Text),
            ("cpu_period", "CpuPeriod", Takes::Number),
            ("cpu_quota", "CpuQuota", Takes::Number),
            ("cpu_shares", "CpuShares", Takes::Number),
            ("cpus", "NanoCpus", Takes::Billionths),
            ("cpuset", "CpusetCpus", Takes::Text),
            ("device_cgroup_rules", "DeviceCgroupRules", Takes::Texts),
            ("dns", "Dns", Takes::Texts),
            ("dns_opt", "DnsOptions", Takes::Texts),
            ("dns_search", "DnsSearch", Takes::Texts),
            ("group_add", "GroupAdd", Takes::Texts),
            ("init", "Init", Takes::Flag),
            ("ipc", "IpcMode", Takes::Text),
            ("mem_limit", "Memory", Takes::Bytes),
            ("mem_reservation", "MemoryReservation", Takes::Bytes),
            ("mem_swappiness", "MemorySwappiness", Takes::Number),
            ("memswap_limit", "MemorySwap", Takes::Bytes),
            ("oom_kill_disable", "OomKillDisable", Takes::Flag),
            ("oom_score_adj", "OomScoreAdj", Takes::Number),
            ("pid", "PidMode", Takes::Text),
            ("pids_limit", "PidsLimit", Takes::Number),
            ("privileged", "Privileged", Takes::Flag),
            ("read_only", "ReadonlyRootfs", Takes::Flag),
            ("runtime", "Runtime", Takes::Text),
            ("security_opt", "SecurityOpt", Takes::Texts),
            ("shm_size", "ShmSize", Takes::Bytes),
            ("storage_opt", "StorageOpt", Takes::Pairs),
            ("sysctls", "Sysctls", Takes::Pairs),
            ("userns_mode", "UsernsMode", Takes::Text),
            ("uts", "UTSMode", Takes::Text),
        ],
    )?;
    if let Some(node) = node.get("extra_hosts") {
        let node = hosts(node.clone())?;
        let hosts = list(&node, "extra_hosts")?.iter().map(extra_host).collect::<Result<Vec<_>>>()?;
        host.insert("ExtraHosts".to_owned(), hosts.into());
    }
    if let Some(node) = node.get("devices") {
        let devices = list(node, "devices")?.iter().map(device).collect::<Result<Vec<_>>>()?;
        host.insert("Devices".to_owned(), devices.into());
    }
    if let Some(node) = node.get("ulimits") {
        let ulimits = entries(node, "ulimits")?.iter().map(ulimit).collect::<Result<Vec<_>>>()?;
        host.insert("Ulimits".to_owned(), ulimits.into());
    }
    if let Some(node) = node.get("logging").filter(|node| !node.is_null()) {
        check_keys(node, "`logging`", &[("driver", Handling::Done), ("options", Handling::Done)])?;
        let driver = node.get("driver").map_or(Ok(String::new()), |driver| text(driver, "driver"))?;
        let options = node.get("options").map_or(Ok(Map::new()), |options| pairs(options, "options"))?;
        host.insert("LogConfig".to_owned(), json!({"Type": driver, "Config": options}));
    }
    Ok(host)
}

/// `host=address` or `host:address`, as `host:address`.
fn extra_host(item: &Node) -> Result<Json> {
    let written = text(item, "extra_hosts")?;
    let (host, address) = written
        .split_once('=')
        .or_else(|| written.split_once(':'))
        .filter(|(host, address)| !host.is_empty() && !address.is_empty())
        .ok_or_else(|| ComposeError::invalid(&item.at, format!("`{written}` is no `host:address`")))?;
    let address = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    Ok(format!("{}:{}", host.trim(), address.trim()).into())
}

fn device(item: &Node) -> Result<Json> {
    const DEVICE: &Keys =
        &[("source", Handling::Done), ("target", Handling::Done), ("permissions", Handling::Done)];
    let (source, target, permissions) = if let Value::Map(_) = item.value {
        check_keys(item, "a device", DEVICE)?;
        let part = |key| item.get(key).map_or(Ok(String::new()), |node| text(node, key));
        (part("source")?, part("target")?, part("permissions")?)
    } else {
        let written = text(item, "devices")?;
        let mut parts = written.splitn(3, ':').map(str::to_owned);
        let mut part = || parts.next().unwrap_or_default();
        (part(), part(), part())
    };
    if !source.starts_with('/') {
        let what = format!("the device `{source}` is no path on the host");
        return Err(ComposeError::invalid(&item.at, what));
    }
    let target = if target.is_empty() { source.clone() } else { target };
    let permissions = if permissions.is_empty() { "rwm".to_owned() } else { permissions };
    Ok(json!({"PathOnHost": source, "PathInContainer": target, "CgroupPermissions": permissions}))
}

fn ulimit(entry: &Entry) -> Result<Json> {
    let (name, node) = (entry.key.as_str(), &entry.value);
    let (soft, hard) = if let Value::Map(_) = node.value {
        check_keys(node, "a ulimit", &[("soft", Handling::Done), ("hard", Handling::Done)])?;
        let part = |key| match node.get(key) {
            Some(value) => integer(value, key),
            None => Err(ComposeError::invalid(&entry.at, format!("the ulimit `{name}` has no `{key}`"))),
        };
        (part("soft")?, part("hard")?)
    } else {
        let both = integer(node, name)?;
        (both, both)
    };
    Ok(json!({"Name": name, "Soft": soft, "Hard": hard}))
}
