//! One service of a compose file as one container: its create body, its further networks, its role.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use super::body::{config, host_config};
use super::endpoint::networks;
use super::environment::{Environment, environment};
use super::error::{ComposeError, Result};
use super::merge::named;
use super::mounts::ServiceMounts;
use super::namespaces;
use super::ports::Ports;
use super::resource::{Resources, pairs};
use super::value::{Handling, Keys, REMOVE, boolean, check_keys, duration, entries, list, text};
use super::{check_own_keys, value};
use crate::deploy::container::Declaration;
use crate::deploy::desired::{ImageOrigin, Service, Setting, Written};
use crate::deploy::interpolate::Variables;
use crate::deploy::observed::{LABEL_DEPLOYMENT, LABEL_ROLE, LABEL_SERVICE};
use crate::diagnose::Place;
use crate::engine::{Environment as ContainerEnvironment, RestartPolicy, Variable};
use crate::oci::Reference;
use crate::oci::reference::is_tag;
use crate::tars::Role;
use crate::tars::rebuild::{REBUILD, UNQUOTED};
use crate::yaml::{At, Entry, Node, Origin, Value};

/// What a service is read with.
pub(super) struct Context<'c> {
    pub deployment: &'c str,
    pub variables: &'c Variables,
    pub resources: &'c Resources,
    /// Each service's container.
    pub containers: &'c BTreeMap<String, String>,
}

const NO_CONFIGS: &str = "bind-mount the file under `volumes` instead";
/// What stands in the place of `secrets`.
pub(super) const NO_SECRETS: &str = "bind-mount the file read-only under `volumes` instead (`./pw.txt:/run/secrets/pw:ro`), and name it \
                                     in MYSQL_ROOT_PASSWORD_FILE or TARS_ADMIN_PASSWORD_FILE";
const NO_DEPLOY: &str =
    "write limits as `mem_limit`, `cpus`, `pids_limit`, and one service for each container";
const NO_BUILD: &str = "build the image with `tarsup build` and name it under `image`";
const NO_NAMESPACES: &str = "give the service its own namespace: the engine shares none of these";

const KEYS: &Keys = {
    use Handling::{Done, Not};
    &[
        ("annotations", Not("use `labels`")),
        ("attach", Not(REMOVE)),
        ("blkio_config", Not(REMOVE)),
        ("build", Not(NO_BUILD)),
        ("cap_add", Done),
        ("cap_drop", Done),
        ("cgroup", Done),
        ("cgroup_parent", Done),
        ("command", Done),
        ("configs", Not(NO_CONFIGS)),
        ("container_name", Done),
        ("cpu_count", Not("use `cpus`")),
        ("cpu_percent", Not("use `cpus`")),
        ("cpu_period", Done),
        ("cpu_quota", Done),
        ("cpu_rt_period", Not(REMOVE)),
        ("cpu_rt_runtime", Not(REMOVE)),
        ("cpu_shares", Done),
        ("cpus", Done),
        ("cpuset", Done),
        ("credential_spec", Not(REMOVE)),
        ("depends_on", Done),
        ("deploy", Not(NO_DEPLOY)),
        ("develop", Not(REMOVE)),
        ("device_cgroup_rules", Done),
        ("devices", Done),
        ("dns", Done),
        ("dns_opt", Done),
        ("dns_search", Done),
        ("domainname", Done),
        ("entrypoint", Done),
        ("env_file", Done),
        ("environment", Done),
        ("expose", Done),
        ("extends", Done),
        ("external_links", Not("put both on one network")),
        ("extra_hosts", Done),
        ("gpus", Not(REMOVE)),
        ("group_add", Done),
        ("healthcheck", Done),
        ("hostname", Done),
        ("image", Done),
        ("init", Done),
        ("ipc", Done),
        ("isolation", Not(REMOVE)),
        ("label_file", Not("write them under `labels`")),
        ("labels", Done),
        ("links", Not("put both on one network: they find each other by service name")),
        ("logging", Done),
        ("mac_address", Done),
        ("mem_limit", Done),
        ("mem_reservation", Done),
        ("mem_swappiness", Done),
        ("memswap_limit", Done),
        ("models", Not(REMOVE)),
        ("network_mode", Done),
        ("networks", Done),
        ("oom_kill_disable", Done),
        ("oom_score_adj", Done),
        ("pid", Done),
        ("pids_limit", Done),
        ("platform", Done),
        ("ports", Done),
        ("post_start", Not(REMOVE)),
        ("pre_stop", Not(REMOVE)),
        ("privileged", Done),
        ("profiles", Done),
        ("provider", Not(REMOVE)),
        ("pull_policy", Done),
        ("pull_refresh_after", Not(REMOVE)),
        ("read_only", Done),
        ("restart", Done),
        ("runtime", Done),
        ("scale", Not("write one service for each container: each needs its own address")),
        ("secrets", Not(NO_SECRETS)),
        ("security_opt", Done),
        ("shm_size", Done),
        ("stdin_open", Done),
        ("stop_grace_period", Done),
        ("stop_signal", Done),
        ("storage_opt", Done),
        ("sysctls", Done),
        ("tmpfs", Done),
        ("tty", Done),
        ("ulimits", Done),
        ("use_api_socket", Not(REMOVE)),
        ("user", Done),
        ("userns_mode", Done),
        ("uts", Done),
        ("volumes", Done),
        ("volumes_from", Not("name the volumes themselves under `volumes`")),
        ("working_dir", Done),
        ("x-tars", Done),
    ]
};

/// The name of the container of the service that `entry` declares.
pub(super) fn container(deployment: &str, entry: &Entry) -> Result<String> {
    let written = entry.value.get("container_name").filter(|value| !value.is_null());
    let written = written.map(|value| text(value, "container_name")).transpose()?;
    Ok(written.unwrap_or_else(|| format!("{deployment}-{}-1", entry.key)))
}

/// The service that `entry` declares.
pub(super) fn service(context: &Context, entry: &Entry) -> Result<Service> {
    let (name, node) = (entry.key.as_str(), &entry.value);
    let in_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() || !name.chars().all(in_name) {
        return Err(ComposeError::invalid(&entry.at, format!("`{name}` cannot be a service's name")));
    }
    check_keys(node, &format!("the service `{name}`"), KEYS)?;
    let field = |key: &str| node.get(key).filter(|value| !value.is_null());
    let words_of = |key: &str| field(key).map(|value| text(value, key)).transpose();
    refuse_what_is_not_ours(&field)?;
    let container = container(context.deployment, entry)?;
    if !(container.starts_with(|c: char| c.is_ascii_alphanumeric()) && container.chars().all(in_name)) {
        let at = field("container_name").map_or(&entry.at, |value| &value.at);
        return Err(ComposeError::invalid(at, format!("`{container}` cannot be a container's name")));
    }
    let role = role(node)?;
    let (image, image_origin) = image(entry)?;
    let environment = environment(node, context.variables)?;
    let mut written = Written::default();
    for key in entries(node, "a service")? {
        written.keys.insert(key.key.clone(), key.value.at.place());
    }
    written.platform = words_of("platform")?;
    written.image = words_of("image")?;
    written.tag_alone = tag_alone(field("image"));
    written.adopted = adopted(node)?;
    written.hold = hold(node)?;
    let mounts = ServiceMounts::read(node, context.resources, context.variables)?;
    for (target, place) in &mounts.places {
        written.keys.insert(format!("volumes {target}"), place.clone());
    }
    if let Some(Some(setting)) = environment.get("SLAVE") {
        written.keys.insert("environment SLAVE".to_owned(), setting.place.clone());
    }
    let restart = restart(field("restart"))?;
    let stop_grace =
        field("stop_grace_period").map(|value| duration(value, "stop_grace_period")).transpose()?;

    let mut body = config(node)?;
    body.insert("Image".to_owned(), image.to_string().into());
    if let Some(grace) = stop_grace {
        body.insert("StopTimeout".to_owned(), grace.as_secs().into());
    }
    body.insert("Labels".to_owned(), labels(context, entry, role)?);

    let mut host = host_config(node)?;
    let shared = namespaces::shared(context.containers, name, node)?;
    host.extend(shared.modes);
    host.insert(
        "RestartPolicy".to_owned(),
        json!({"Name": restart.name, "MaximumRetryCount": restart.maximum_retry_count}),
    );
    for (key, list) in
        [("Binds", mounts.binds.into_iter().map(Json::from).collect()), ("Mounts", mounts.bodies)]
    {
        if !list.is_empty() {
            host.insert(key.to_owned(), Json::Array(list));
        }
    }
    if !mounts.tmpfs.is_empty() {
        host.insert("Tmpfs".to_owned(), mounts.tmpfs.into());
    }
    let ports = Ports::read(node)?;
    if !ports.is_empty() {
        host.insert("PortBindings".to_owned(), ports.bindings());
    }
    if !ports.exposed.is_empty() {
        body.insert("ExposedPorts".to_owned(), ports.exposed.into());
    }
    let connect = networks(context.resources, name, &container, node, &entry.at, &mut body, &mut host)?;
    body.insert("HostConfig".to_owned(), host.into());
    let mut depends_on = depends_on(node)?;
    // As compose has it: whose namespaces it shares is started before it.
    depends_on
        .extend(shared.services.into_iter().filter(|other| !depends_on.contains(other)).collect::<Vec<_>>());

    let mut declaration = Declaration::of(body, connect);
    declaration.environment = declared(&environment);
    Ok(Service {
        name: name.to_owned(),
        place: entry.at.place(),
        container,
        role,
        image,
        image_origin,
        declaration,
        restart,
        stop_grace: stop_grace.unwrap_or(std::time::Duration::from_secs(10)),
        depends_on,
        rebuild: environment.get(REBUILD).cloned().flatten(),
        blanks: blanks(&environment),
        written,
    })
}

/// What the container is given: a variable without a value is taken away.
fn declared(environment: &Environment) -> ContainerEnvironment {
    let variable = |(name, setting): (&String, &Option<Setting>)| Variable {
        name: name.clone(),
        value: setting.as_ref().map(|setting| setting.value.clone()),
    };
    ContainerEnvironment(environment.iter().map(variable).collect())
}

/// The variables of [`UNQUOTED`] whose value holds white space.
fn blanks(environment: &Environment) -> Vec<(String, Place)> {
    UNQUOTED
        .iter()
        .filter_map(|name| Some((*name, environment.get(*name)?.as_ref()?)))
        .filter(|(_, setting)| setting.value.has_white_space())
        .map(|(name, setting)| (name.to_owned(), setting.place.clone()))
        .collect()
}

/// The file's labels, and those that say whose container it is.
fn labels(context: &Context, entry: &Entry, role: Option<Role>) -> Result<Json> {
    let node = entry.value.get("labels").filter(|labels| !labels.is_null());
    let mut labels = node.map_or(Ok(Map::new()), |labels| pairs(labels, "labels"))?;
    let reserved =
        |label: &&String| label.starts_with("io.tarsup.") || label.starts_with("com.docker.compose.");
    if let Some(label) = labels.keys().find(reserved) {
        let at = node.map_or(&entry.at, |labels| &labels.at);
        let what = format!("the label `{label}` is not for a file to set");
        return Err(ComposeError::invalid_but(at, what, REMOVE));
    }
    labels.insert(LABEL_DEPLOYMENT.to_owned(), context.deployment.into());
    labels.insert(LABEL_SERVICE.to_owned(), entry.key.clone().into());
    labels.extend(role.map(|role| (LABEL_ROLE.to_owned(), role.name().into())));
    Ok(labels.into())
}

/// Keys that are carried out for some of their values only.
fn refuse_what_is_not_ours<'n>(field: &dyn Fn(&str) -> Option<&'n Node>) -> Result<()> {
    let not = |key: &str, node: &Node, instead: &str| ComposeError::NotCarriedOut {
        key: key.to_owned(),
        within: "a service".to_owned(),
        instead: instead.to_owned(),
        place: node.at.place(),
    };
    if let Some(profiles) = field("profiles")
        && !list(profiles, "profiles")?.is_empty()
    {
        return Err(not(
            "profiles",
            profiles,
            "move the service into a file of its own, and name it with -f",
        ));
    }
    if let Some(policy) = field("pull_policy") {
        let written = text(policy, "pull_policy")?;
        if !matches!(written.as_str(), "never" | "missing" | "if_not_present") {
            let key = format!("pull_policy: {written}");
            return Err(not(
                &key,
                policy,
                "bring the image into the engine with `tarsup copy`, and write `never`",
            ));
        }
    }
    if let Some(platform) = field("platform") {
        let written = text(platform, "platform")?;
        if !written.starts_with("linux/") {
            let what = format!("the platform `{written}` is not one that TARS runs on");
            return Err(ComposeError::invalid_but(&platform.at, what, "write linux/amd64 or linux/arm64"));
        }
    }
    for key in ["uts", "userns_mode"] {
        if let Some(mode) = field(key) {
            let written = text(mode, key)?;
            if namespaces::is_of_another(&written) {
                return Err(not(&format!("{key}: {written}"), mode, NO_NAMESPACES));
            }
        }
    }
    Ok(())
}

const OWN: &Keys = &[("role", Handling::Done), ("adopted", Handling::Done), ("hold", Handling::Done)];

/// `adopted` of `x-tars`: a whole id, as a name or a part of one may become another container's.
fn adopted(service: &Node) -> Result<Option<String>> {
    let own = service.get("x-tars").filter(|node| !node.is_null());
    let Some(node) = own.and_then(|own| own.get("adopted")).filter(|node| !node.is_null()) else {
        return Ok(None);
    };
    let id = text(node, "adopted")?;
    if id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(Some(id))
    } else {
        let hint = "write the 64 digits that `docker inspect --format '{{.Id}}' NAME` shows";
        Err(ComposeError::invalid_but(&node.at, format!("`{id}` is no container's id"), hint))
    }
}

/// `hold` of `x-tars`.
fn hold(service: &Node) -> Result<bool> {
    let own = service.get("x-tars").filter(|node| !node.is_null());
    own.and_then(|own| own.get("hold")).map_or(Ok(false), |node| value::boolean(node, "hold"))
}

/// `role` of `x-tars`.
fn role(service: &Node) -> Result<Option<Role>> {
    let Some(node) = service.get("x-tars").filter(|node| !node.is_null()) else { return Ok(None) };
    check_own_keys(node, "`x-tars` of a service", OWN)?;
    let Some(role) = node.get("role") else { return Ok(None) };
    let written = text(role, "role")?;
    let roles = [Role::Database, Role::Master, Role::Slave, Role::Node];
    roles.into_iter().find(|role| role.name() == written).map(Some).ok_or_else(|| {
        let meant = value::nearest(&written, roles.iter().map(|role| role.name()));
        let hint = match meant {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => "write database, master, slave or node".to_owned(),
        };
        ComposeError::invalid_but(&role.at, format!("`{written}` is no role"), hint)
    })
}

/// The image, and where its tag is written.
fn image(service: &Entry) -> Result<(Reference, ImageOrigin)> {
    let Some(node) = service.value.get("image").filter(|node| !node.is_null()) else {
        let what = format!("the service `{}` names no image", service.key);
        return Err(ComposeError::invalid_but(&service.at, what, "name one under `image`"));
    };
    let written = text(node, "image")?;
    let reference: Reference =
        written.parse().map_err(|error: crate::oci::reference::InvalidReference| {
            ComposeError::invalid_but(&node.at, error.to_string(), "write it as docker does: repository:tag")
        })?;
    let place = node.at.place();
    let elsewhere = |why: &str| ImageOrigin::Elsewhere { place: place.clone(), why: why.to_owned() };
    let Value::Text(text) = &node.value else {
        return Ok((reference, elsewhere("the image is written as a number")));
    };
    let Some(raw) = &text.raw else { return Ok((reference, ImageOrigin::File(place))) };
    let origin = match text.uses.as_slice() {
        [] => ImageOrigin::File(place),
        [one] => match &one.origin {
            Origin::Shell => elsewhere(&format!("`{}` comes from the shell", one.variable)),
            Origin::Unset => elsewhere(&format!("`{}` is not set, its default counts", one.variable)),
            Origin::DotEnv(line) if is_whole(raw, &one.variable, text.text.expose()) => {
                ImageOrigin::DotEnv { variable: one.variable.clone(), place: line.clone() }
            }
            Origin::DotEnv(_) => elsewhere(&format!("`{}` is only a part of the tag", one.variable)),
        },
        _ => elsewhere("it is built from several variables"),
    };
    Ok((reference, origin))
}

/// True where `raw` ends in one interpolation of `variable` that gives exactly the tag, or is nothing else.
fn is_whole(raw: &str, variable: &str, result: &str) -> bool {
    let Some(dollar) = raw.find('$') else { return false };
    let (prefix, interpolation) = raw.split_at(dollar);
    let inner = interpolation.strip_prefix("${").and_then(|inner| inner.strip_suffix('}'));
    let alone = match inner {
        Some(inner) => inner
            .strip_prefix(variable)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '-', '?'])),
        None => interpolation.strip_prefix('$') == Some(variable),
    };
    let nothing_after = !interpolation[1..].contains('$') || inner.is_some_and(|inner| !inner.contains('}'));
    let value = result.strip_prefix(prefix).unwrap_or_default();
    alone
        && nothing_after
        && !inner.is_some_and(|inner| inner[variable.len()..].starts_with(":+"))
        && (prefix.is_empty() || (prefix.ends_with(':') && is_tag(value)))
}

/// True where a text stands before the interpolation: the variable is the tag, not the whole reference.
fn tag_alone(image: Option<&Node>) -> bool {
    match image.map(|image| &image.value) {
        Some(Value::Text(text)) => text.raw.as_ref().is_some_and(|raw| !raw.starts_with('$')),
        _ => false,
    }
}

fn restart(node: Option<&Node>) -> Result<RestartPolicy> {
    let Some(node) = node else { return Ok(RestartPolicy::no()) };
    let wrong = || {
        ComposeError::invalid_but(
            &node.at,
            "`restart` is one of no, always, unless-stopped, on-failure[:times]",
            "put \"no\" in quotes",
        )
    };
    let Value::Text(_) = node.value else { return Err(wrong()) };
    let written = text(node, "restart")?;
    match written.split_once(':') {
        Some(("on-failure", times)) => {
            let maximum_retry_count = times.parse().map_err(|_| wrong())?;
            Ok(RestartPolicy { name: "on-failure".to_owned(), maximum_retry_count })
        }
        None if matches!(written.as_str(), "no" | "always" | "unless-stopped" | "on-failure") => {
            Ok(RestartPolicy { name: written, maximum_retry_count: 0 })
        }
        _ => Err(wrong()),
    }
}

fn depends_on(service: &Node) -> Result<Vec<String>> {
    const DEPENDENCY: &Keys =
        &[("condition", Handling::Done), ("required", Handling::Done), ("restart", Handling::Done)];
    let Some(node) = service.get("depends_on") else { return Ok(Vec::new()) };
    let node = named(node.clone())?;
    for entry in entries(&node, "depends_on")? {
        check_keys(&entry.value, "`depends_on`", DEPENDENCY)?;
        let not = |key: &str, at: &At, instead: &str| ComposeError::NotCarriedOut {
            key: key.to_owned(),
            within: "`depends_on`".to_owned(),
            instead: instead.to_owned(),
            place: at.place(),
        };
        if let Some(condition) = entry.value.get("condition") {
            match text(condition, "condition")?.as_str() {
                // The rollout proves health of each before the next anyway.
                "service_started" | "service_healthy" => {}
                other => {
                    return Err(not(&format!("condition: {other}"), &condition.at, "use service_healthy"));
                }
            }
        }
        for (key, carried) in [("required", true), ("restart", false)] {
            if let Some(value) = entry.value.get(key)
                && boolean(value, key)? != carried
            {
                return Err(not(&format!("{key}: {}", !carried), &value.at, REMOVE));
            }
        }
    }
    Ok(entries(&node, "depends_on")?.iter().map(|entry| entry.key.clone()).collect())
}
