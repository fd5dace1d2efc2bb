//! Containers that somebody else made → the deployment file that says what they are. Pure: nothing is asked, nothing written.
//!
//! The file adopts each container by its id (`x-tars: {adopted: ID}`), so that a plan on it is empty, and what runs is not
//! touched before the first roll.

mod role;
mod write;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::deploy::asked::{Asked, shared};
use crate::deploy::carried::is_carried;
use crate::deploy::observed::{LABEL_COMPOSE_PROJECT, LABEL_DEPLOYMENT};
use crate::deploy::{dotenv, guard};
use crate::engine::{Container, EngineImage, Network, Status};
use crate::oci::Reference;
use crate::secretive::{Secretive, is_secret};
use crate::tars::Role;
use crate::tars::rebuild::{REBUILD, is_allowed};

/// The label by which compose knows which service of a project a container is.
const COMPOSE_SERVICE: &str = "com.docker.compose.service";

/// A container that is to be adopted, and what was asked beside it.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its inspect.
    pub container: Container,
    /// The image that it was made from, by id; `None` where the engine has lost it.
    pub image: Option<EngineImage>,
    /// The command lines of its processes; none where it does not run.
    pub processes: Vec<String>,
    /// The names of the containers whose namespaces it shares, by id; none of those that are gone.
    pub leaders: BTreeMap<String, String>,
}

/// What is to be written, and what a person should know of it.
#[derive(Debug)]
pub struct Adoption {
    /// The deployment's name.
    pub deployment: String,
    /// The deployment file.
    pub file: String,
    /// Files with secrets beside it.
    pub env_files: Vec<EnvFile>,
    /// Each container.
    pub services: Vec<Adopted>,
    /// What concerns several of them, a sentence each.
    pub notes: Vec<String>,
}

/// A file with variables.
#[derive(Debug, PartialEq, Eq)]
pub struct EnvFile {
    /// Its name, beside the deployment file.
    pub name: String,
    /// Its text: secrets.
    pub text: Secretive,
}

/// One container as a service.
#[derive(Debug)]
pub struct Adopted {
    /// The service's name.
    pub service: String,
    /// The container's name and id.
    pub container: String,
    /// Its id.
    pub id: String,
    /// The image, as the file names it.
    pub image: String,
    /// The guessed role.
    pub role: Option<Role>,
    /// What the guess rests on.
    pub why: String,
    /// Its restart policy, as it was.
    pub restart: String,
    /// What no file can say, by the API's keys.
    pub unsaid: Vec<String>,
    /// Those of them that its successor goes without.
    pub lost: Vec<String>,
    /// The variables that went into the file with secrets.
    pub secrets: Vec<String>,
    /// What a person should know, a sentence each.
    pub remarks: Vec<String>,
}

/// Why a container cannot be adopted.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// It is a container of ours.
    #[error("the container `{container}` belongs to the deployment `{deployment}` already")]
    Ours {
        /// The container.
        container: String,
        /// Its deployment.
        deployment: String,
    },
}

impl crate::diagnose::Diagnose for AdoptError {
    fn exit(&self) -> crate::diagnose::Exit {
        crate::diagnose::Exit::Usage
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Ours { .. } => "it has a deployment file: name the other containers alone".to_owned(),
        })
    }
}

/// The deployment file of these containers. `networks` are those that they are on, by name.
pub fn adopt(found: &[Found], networks: &BTreeMap<String, Network>) -> Result<Adoption, AdoptError> {
    for one in found {
        if let Some(deployment) = one.container.labels.get(LABEL_DEPLOYMENT) {
            let container = one.container.name.clone();
            return Err(AdoptError::Ours { container, deployment: deployment.clone() });
        }
    }
    let names = service_names(found);
    let mut services = Vec::new();
    let mut env_files = Vec::new();
    let mut written = write::File::default();
    for (one, name) in found.iter().zip(names.clone()) {
        let config = one.image.as_ref().map_or(&Value::Null, |image| &image.raw["Config"]);
        let mut asked = Asked::of_container(&one.container, &name, config);
        let (role, why) = role::guess(&one.container, &one.processes);
        let mut remarks = remarks(one);
        remarks.extend(say_whose(&mut asked, one, found, &names));
        let (image, remark) = image_name(one, &name);
        remarks.extend(remark);
        remarks.extend(role::doubt(role, &one.processes));
        if let Some(value) = take_rebuild(&mut asked) {
            remarks.push(format!(
                "`REBUILD` is {} in it, and left out of the file: whoever starts this container again has its \
                 database dropped",
                guard::switch(&value)
            ));
        }
        let (secrets, env_file) = take_secrets(&mut asked, &name);
        let adopted = Adopted {
            service: name,
            container: one.container.name.clone(),
            id: one.container.id.clone(),
            image,
            role,
            why,
            restart: restart(one),
            unsaid: asked.beyond.keys().cloned().collect(),
            lost: asked.beyond.keys().filter(|key| !is_carried(&one.container, key)).cloned().collect(),
            secrets,
            remarks,
        };
        written.service(&adopted, &asked, env_file.as_ref());
        env_files.extend(env_file);
        services.push(adopted);
    }
    let deployment = deployment_name(found);
    let notes = notes(found, networks, &services);
    Ok(Adoption { file: written.finish(&deployment), deployment, env_files, services, notes })
}

/// Puts compose's word for each namespace of another container in its place: the service where that is adopted too, else the
/// container. What is to be said of those that are gone.
fn say_whose(asked: &mut Asked, one: &Found, found: &[Found], names: &[String]) -> Vec<String> {
    let mut remarks = Vec::new();
    for (key, what) in [("NetworkMode", "network"), ("IpcMode", "shared memory"), ("PidMode", "processes")] {
        let Some(other) = shared(&one.container.raw, key) else { continue };
        let is_it = |found: &Found| found.container.id == other || found.container.name == other;
        let adopted = found.iter().zip(names).find(|(found, _)| is_it(found));
        let name = one.leaders.get(other);
        if adopted.is_none() {
            remarks.push(match name {
                Some(name) => format!(
                    "it has its {what} from `{name}`, which is not adopted with it: once somebody makes that one anew, \
                     `tarsup up` makes this one anew, too"
                ),
                None => format!(
                    "it has its {what} from a container that is gone: it cannot be started again as it is"
                ),
            });
        }
        let word = match adopted {
            Some((_, service)) => format!("service:{service}"),
            None => format!("container:{}", name.map_or(other, String::as_str)),
        };
        asked.beyond.remove(key);
        asked.said.insert(key.to_owned(), word.into());
    }
    remarks
}

/// compose's name of the service, else the container's: what it is called on its networks already.
fn service_names(found: &[Found]) -> Vec<String> {
    let of_compose = |one: &Found| one.container.labels.get(COMPOSE_SERVICE).cloned();
    let wanted: Vec<String> =
        found.iter().map(|one| of_compose(one).unwrap_or_else(|| one.container.name.clone())).collect();
    let is_twice = |name: &String| wanted.iter().filter(|other| *other == name).count() > 1;
    let chosen = found.iter().zip(&wanted);
    chosen.map(|(one, name)| if is_twice(name) { one.container.name.clone() } else { name.clone() }).collect()
}

/// compose's project where all are of one, else the network that they share, else `tars`.
fn deployment_name(found: &[Found]) -> String {
    let one_of = |names: BTreeSet<String>| (names.len() == 1).then(|| names.into_iter().next()).flatten();
    let project = |one: &Found| one.container.labels.get(LABEL_COMPOSE_PROJECT).cloned().unwrap_or_default();
    let network = |one: &Found| {
        let mode = one.container.raw.pointer("/HostConfig/NetworkMode").and_then(Value::as_str);
        let is_own =
            |mode: &&str| !matches!(*mode, "default" | "bridge" | "host" | "none") && !mode.contains(':');
        mode.filter(is_own).unwrap_or_default().to_owned()
    };
    let has_own = |one: &&Found| shared(&one.container.raw, "NetworkMode").is_none();
    let fits = |name: &String| {
        name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_'))
    };
    one_of(found.iter().map(project).collect())
        .filter(fits)
        .or_else(|| one_of(found.iter().filter(has_own).map(network).collect()).filter(fits))
        .unwrap_or_else(|| "tars".to_owned())
}

/// The name under which the engine has the container's image, and what is to be said of it.
fn image_name(one: &Found, service: &str) -> (String, Option<String>) {
    let named = &one.container.image;
    let tags = one.image.as_ref().map(|image| image.tags.as_slice()).unwrap_or_default();
    let reference = named.parse::<Reference>().ok();
    let is_same = |tag: &&String| tag.parse::<Reference>().ok() == reference && reference.is_some();
    if tags.iter().any(|tag| is_same(&tag)) {
        return (named.clone(), None);
    }
    if let Some(tag) = tags.first() {
        let remark = format!("its image was called {named} when it was made, and is {tag} by now");
        return (tag.clone(), Some(remark));
    }
    let id = one.container.image_id.as_str();
    let digits = id.strip_prefix("sha256:").unwrap_or(id);
    let name = format!("tarsup.adopted/{}:{}", service.to_lowercase(), digits.get(..12).unwrap_or(digits));
    let remark = format!(
        "its image ({named}) has no name any more: run `docker tag {id} {name}`, or a prune may take it"
    );
    (name, Some(remark))
}

fn restart(one: &Found) -> String {
    let policy = &one.container.restart;
    match policy.name.as_str() {
        "" => "no".to_owned(),
        "on-failure" if policy.maximum_retry_count > 0 => {
            format!("on-failure:{}", policy.maximum_retry_count)
        }
        name => name.to_owned(),
    }
}

fn remarks(one: &Found) -> Vec<String> {
    let mut remarks = Vec::new();
    let host = &one.container.raw["HostConfig"];
    if one.container.status != Status::Running {
        remarks.push("it does not run".to_owned());
    }
    if restart(one) == "no" {
        remarks.push("its restart policy is `no`: nothing brings it back after a reboot".to_owned());
    }
    let ports = host["PortBindings"].as_object().map(|ports| ports.keys().cloned().collect::<Vec<_>>());
    if host["NetworkMode"] == "host"
        && let Some(ports) = ports.filter(|ports| !ports.is_empty())
    {
        let ports = ports.join(", ");
        remarks.push(format!(
            "it is on the host's network, where Docker publishes nothing: {ports} had no effect"
        ));
    }
    if host["AutoRemove"] == true {
        remarks.push("it was made with `--rm`: it is gone once it stops, and a roll refuses it".to_owned());
    }
    let env = |name: &str| one.container.env.filled(name).is_some();
    let endpoints = one.container.raw.pointer("/NetworkSettings/Networks").and_then(Value::as_object);
    let is_fixed = endpoints.is_some_and(|networks| {
        networks
            .values()
            .any(|endpoint| endpoint["IPAMConfig"]["IPv4Address"].as_str().is_some_and(|it| !it.is_empty()))
    });
    if role::guess(&one.container, &one.processes).0.is_some_and(|role| role != Role::Database)
        && host["NetworkMode"] != "host"
        && shared(&one.container.raw, "NetworkMode").is_none()
        && !is_fixed
        && !env("DOMAIN")
    {
        remarks.push(
            "it has neither a fixed address nor `DOMAIN`: with another address it is another node in the database"
                .to_owned(),
        );
    }
    remarks
}

/// Takes a forbidden `REBUILD` out; its value.
fn take_rebuild(asked: &mut Asked) -> Option<Secretive> {
    let env = asked.said.get_mut("Env")?.as_object_mut()?;
    let value = Secretive::new(REBUILD, env.get(REBUILD)?.as_str()?);
    if is_allowed(Some(value.expose())) {
        return None;
    }
    env.remove(REBUILD);
    Some(value)
}

/// Moves secrets into a file of their own: their names, and the file.
fn take_secrets(asked: &mut Asked, service: &str) -> (Vec<String>, Option<EnvFile>) {
    let mut text = String::new();
    let mut names = Vec::new();
    let mut unwritten = Vec::new();
    if let Some(env) = asked.said.get_mut("Env").and_then(Value::as_object_mut) {
        env.retain(|name, value| {
            let Some(value) = value.as_str().filter(|value| is_secret(name, value)) else { return true };
            match assignment(name, value) {
                Some(line) => {
                    text += &line;
                    names.push(name.clone());
                }
                None => unwritten.push(name.clone()),
            }
            false
        });
    }
    for name in unwritten {
        asked.beyond.insert(format!("Env {name}"), Value::Null);
    }
    let name = format!("{service}.env");
    let file = (!names.is_empty()).then(|| EnvFile { text: Secretive::new(&name, text), name });
    (names, file)
}

/// A line that is read as exactly this value again; `None` where the grammar has none.
fn assignment(name: &str, value: &str) -> Option<String> {
    let double = value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('$', "\\$")
        .replace('\n', "\\n")
        .replace('\r', "\\r");
    let forms = [value.to_owned(), format!("'{}'", value.replace('\'', "\\'")), format!("\"{double}\"")];
    let lines = forms.into_iter().map(|form| format!("{name}={form}\n"));
    lines.into_iter().find(|line| {
        dotenv::parse(line, &|_| None).is_ok_and(|read| {
            matches!(read.as_slice(), [one] if one.name == name && one.value.as_ref().is_some_and(|read| *read == *value))
        })
    })
}

fn notes(found: &[Found], networks: &BTreeMap<String, Network>, services: &[Adopted]) -> Vec<String> {
    let mut notes = Vec::new();
    let projects: BTreeSet<&String> =
        found.iter().filter_map(|one| one.container.labels.get(LABEL_COMPOSE_PROJECT)).collect();
    for project in projects {
        let of_project: Vec<&str> = networks
            .values()
            .filter(|network| network.labels.get(LABEL_COMPOSE_PROJECT) == Some(project))
            .map(|network| network.name.as_str())
            .collect();
        let network = match of_project.as_slice() {
            [] => String::new(),
            names => format!(" and its network {}", names.join(", ")),
        };
        notes.push(format!(
            "compose made the project `{project}`: use tarsup alone from now on; `docker compose down` would still remove \
             its containers{network}"
        ));
    }
    let masters: Vec<&str> = services
        .iter()
        .filter(|service| service.role == Some(Role::Master))
        .map(|service| service.service.as_str())
        .collect();
    if masters.len() > 1 {
        notes.push(format!("several seem to be masters ({}): one file has one", masters.join(", ")));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_written_as_they_are_read() {
        for value in [
            "simple",
            "r00t$ p",
            "it's",
            "a\\",
            "\\'x\\",
            "a # b",
            " x ",
            "two\nlines",
            "\"q\" 'p'",
            "$$",
            "ä€",
            "${A}",
        ] {
            let line = assignment("A", value).unwrap_or_else(|| panic!("{value:?}"));
            let read = dotenv::parse(&line, &|_| None).unwrap();
            assert_eq!(read[0].value.as_ref().map(Secretive::expose), Some(value));
        }
    }
}
