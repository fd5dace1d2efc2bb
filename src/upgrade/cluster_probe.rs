//! The one container beside a deployment in which the database is asked, for the whole of a run: the host needs no MySQL
//! client, and a container whose database is away cannot prove itself.
//!
//! It is no step of a plan: it serves nothing, and a run that was cut off is resumed whether or not it is there. It is made
//! at the first question, and removed before the lock is given free.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::IpNet;
use serde_json::{Value, json};

use crate::deploy::container::Endpoint;
use crate::deploy::desired::Service;
use crate::deploy::observed::{LABEL_CLUSTER, LABEL_DEPLOYMENT, LABEL_ROLE};
use crate::deploy::{Desired, Observed};
use crate::deploy::{guard, subnet};
use crate::engine::{
    Container, ContainerSummary, CreateBody, Engine, EngineError, EngineImage, Environment, Status,
};
use crate::tars::catalogue::INIT_PATH;
use crate::tars::{PROTOCOL, Role};

use super::Intent;
use super::body;
use super::gate::Cluster;
use super::intent::is_framework;
use super::names::cluster_name;

/// What is run in it.
const QUESTION: [&str; 3] = [INIT_PATH, "cluster", "--json"];
/// How long one answer may take.
const TIMEOUT: Duration = Duration::from_secs(15);
/// How long another command may take: it may wait for a lock.
const TELL_TIMEOUT: Duration = Duration::from_secs(40);
/// How long it may take to stop: it does nothing.
const GRACE: Duration = Duration::from_secs(2);

/// How many addresses are tried.
const TRIES: usize = 8;

/// The container, and whether it is known to answer.
#[derive(Debug, Default)]
pub struct ClusterProbe {
    is_open: bool,
    /// Images that may have a tars-init, by name or id, in the order in which they are tried.
    images: Vec<String>,
    /// Variables of another account than the declared one.
    account: Environment,
    /// Its container's name, where it is not the usual one.
    name: Option<String>,
    /// The image that it was made of, while it is open.
    made_of: Option<String>,
}

/// A container that has no tars-init, to be asked from outside.
#[derive(Clone, Copy, Debug)]
pub struct Outside<'a> {
    /// Its address, or the name that leads to it.
    pub address: &'a str,
    /// Its role.
    pub role: Role,
}

/// True where a deployment has an account at its database: a master's or slave's, or one that the file names.
pub fn has_account(desired: &Desired) -> bool {
    asker(desired).is_some()
}

/// Whose image, environment and networks it gets.
pub(super) fn asker(desired: &Desired) -> Option<&Service> {
    let of = |role| desired.services.iter().find(move |service| service.role == Some(role));
    of(Role::Master)
        .or_else(|| of(Role::Slave))
        .or_else(|| desired.database.as_ref().and_then(|_| of(Role::Node)))
}

impl ClusterProbe {
    /// Nothing is made until something is asked. `images` are tried in turn ([`images`]).
    pub fn new(images: Vec<String>) -> Self {
        Self { images, ..Self::default() }
    }

    /// The same under another name, for who does not hold the lock.
    pub(super) fn named(self, name: String) -> Self {
        Self { name: Some(name), ..self }
    }

    /// The same with another account. The name of its container is the same one: one of both is open at a time.
    pub(super) fn with_account(&self, account: Environment) -> Self {
        Self { account, ..Self::new(self.images.clone()) }
    }

    /// True where it is known to answer.
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// The image that it was made of, by name or id, where it is known to answer.
    pub(super) fn made_of(&self) -> Option<&str> {
        self.made_of.as_deref().filter(|_| self.is_open)
    }

    /// What the database knows, and how a container answers from outside; an error in words where nobody can be asked.
    pub async fn ask(
        &mut self,
        engine: &dyn Engine,
        desired: &Desired,
        outside: Option<Outside<'_>>,
    ) -> Result<Cluster, String> {
        let Some(service) = asker(desired) else {
            return Err("the deployment has no account at the database".to_owned());
        };
        let name = self.name(&desired.deployment);
        if !self.is_open {
            self.open(engine, desired, service, &name).await?;
        }
        let asked = match outside {
            Some(outside) => {
                let words = ["--ask", outside.address, "--role", outside.role.name()];
                question(engine, &name, &words).await
            }
            None => question(engine, &name, &[]).await,
        };
        // It may have died, or a prune have taken it: the next question makes it again.
        self.is_open = asked.is_ok();
        asked
    }

    /// The same with what is asked before an upgrade alone, as far as its tars-init knows it.
    pub(super) async fn ask_facts(
        &mut self,
        engine: &dyn Engine,
        desired: &Desired,
    ) -> Result<Cluster, String> {
        let plain = self.ask(engine, desired, None).await?;
        Ok(question(engine, &self.name(&desired.deployment), &["--facts"]).await.unwrap_or(plain))
    }

    /// What another command of its tars-init prints; an error in words where it cannot be run, or fails.
    pub async fn tell(
        &mut self,
        engine: &dyn Engine,
        desired: &Desired,
        words: &[&str],
    ) -> Result<String, String> {
        let service = asker(desired).ok_or("the deployment has no account at the database")?;
        let name = self.name(&desired.deployment);
        if !self.is_open {
            self.open(engine, desired, service, &name).await?;
        }
        let command = [&[INIT_PATH], words].concat();
        let ran = engine.exec(&name, &command, TELL_TIMEOUT).await;
        let output = ran.map_err(|error| {
            self.is_open = false;
            error.to_string()
        })?;
        if output.exit_code == 0 {
            return Ok(output.stdout);
        }
        let said = output.stderr.lines().next().unwrap_or("nothing").trim_start_matches("tars-init: ");
        Err(format!("it exited with {} and said: {said}", output.exit_code))
    }

    /// Makes it of the image that speaks the newest protocol.
    async fn open(
        &mut self,
        engine: &dyn Engine,
        desired: &Desired,
        service: &Service,
        name: &str,
    ) -> Result<(), String> {
        let mut why = String::new();
        self.close(engine, &desired.deployment).await.map_err(|error| error.to_string())?;
        for image in self.images.clone() {
            let made =
                match make_with(engine, desired, service, &image, name, &self.account, &body::SERVE).await {
                    Ok(()) => question(engine, name, &[]).await,
                    Err(error) => Err(error.to_string()),
                };
            match made {
                Ok(cluster) if cluster.protocol >= PROTOCOL => {
                    self.is_open = true;
                    self.made_of = Some(image);
                    return Ok(());
                }
                Ok(_) => why = format!("the tars-init of {image} is too old"),
                // The first reason is that of the image that ought to answer.
                Err(error) if why.is_empty() => why = format!("{image}: {error}"),
                Err(_) => {}
            }
        }
        let _ = self.close(engine, &desired.deployment).await;
        Err(if why.is_empty() { "no image with a tars-init is at hand".to_owned() } else { why })
    }

    /// Removes it.
    pub async fn close(&mut self, engine: &dyn Engine, deployment: &str) -> Result<(), EngineError> {
        self.is_open = false;
        close(engine, deployment, &self.name(deployment)).await
    }

    fn name(&self, deployment: &str) -> String {
        self.name.clone().unwrap_or_else(|| cluster_name(deployment))
    }
}

/// Creates and starts a container in which the database can be asked, under an address that nobody wants.
pub(super) async fn make(
    engine: &dyn Engine,
    desired: &Desired,
    service: &Service,
    image: &str,
    name: &str,
) -> Result<(), EngineError> {
    make_with(engine, desired, service, image, name, &Environment::default(), &body::SERVE).await
}

/// The same, with more variables and another command that waits.
pub(super) async fn make_with(
    engine: &dyn Engine,
    desired: &Desired,
    service: &Service,
    image: &str,
    name: &str,
    account: &Environment,
    command: &[&str],
) -> Result<(), EngineError> {
    let found = image_of(engine, image).await?;
    let own = desired.database.as_ref().filter(|_| service.role == Some(Role::Node));
    let own = own.into_iter().flat_map(|own| &own.0.0);
    let variables = Environment(own.chain(&account.0).cloned().collect());
    let making = body::ProbeSettings {
        image,
        command,
        image_volumes: &body::image_volumes(&found.raw),
        labels: &[
            (LABEL_CLUSTER, desired.deployment.as_str()),
            (LABEL_DEPLOYMENT, desired.deployment.as_str()),
        ],
        variables: &variables,
    };
    let mut body = body::cluster_probe(service, &making);
    check(name, &body)?;
    let mut taken = BTreeSet::new();
    let mut tries = 0;
    loop {
        tries += 1;
        let mut addresses = BTreeMap::new();
        for Endpoint { network, .. } in &service.declaration.endpoints {
            addresses.insert(network.clone(), free_address(engine, desired, network, &taken).await?);
        }
        set_addresses(&mut body, &addresses);
        let started = async {
            engine.create_container(name, &body).await?;
            for Endpoint { network, .. } in service.declaration.joins_later() {
                let endpoint = endpoint(addresses.get(network).copied().flatten());
                engine.connect_network(network, name, &endpoint).await?;
            }
            engine.start_container(name).await
        };
        match started.await {
            // A neighbour that tarsup does not know has it: the next one, then.
            Err(error) if tries < TRIES && error.to_string().contains("Address already in use") => {
                taken.extend(addresses.into_values().flatten());
                close(engine, &desired.deployment, name).await?;
            }
            Err(error) => {
                let _ = close(engine, &desired.deployment, name).await;
                return Err(error);
            }
            Ok(()) => return Ok(()),
        }
    }
}

/// The image that a container which only asks is made of.
pub(super) async fn image_of(engine: &dyn Engine, image: &str) -> Result<EngineImage, EngineError> {
    engine.inspect_image(image).await?.ok_or_else(|| EngineError::NotFound {
        call: format!("inspect {image}"),
        message: "the image is not there".to_owned(),
    })
}

/// The guard, over the body of such a container.
pub(super) fn check(name: &str, body: &CreateBody) -> Result<(), EngineError> {
    guard::check_body(name, body).map_err(|error| EngineError::Answered {
        call: format!("create {name}"),
        status: 400,
        message: error.to_string(),
    })
}

/// Stops and removes what [`make`] made.
pub(super) async fn close(engine: &dyn Engine, deployment: &str, name: &str) -> Result<(), EngineError> {
    let Some(found) = engine.inspect_container(name).await? else { return Ok(()) };
    if found.labels.get(LABEL_CLUSTER).is_none_or(|label| label != deployment) {
        return Err(EngineError::Conflict {
            call: format!("inspect {name}"),
            message: "it is no container of ours".to_owned(),
        });
    }
    if super::state::is_up(&found) {
        engine.stop_container(name, GRACE).await?;
    }
    engine.remove_container(name).await
}

/// What runs left of it: every container with the deployment's label, whatever it is called by now.
pub async fn left(engine: &dyn Engine, deployment: &str) -> Result<Vec<ContainerSummary>, EngineError> {
    engine.list_containers(&[format!("{LABEL_CLUSTER}={deployment}")]).await
}

/// Removes what [`left`] found.
pub async fn remove_left(engine: &dyn Engine, left: &[ContainerSummary]) -> Result<(), EngineError> {
    for one in left {
        let is_up = matches!(one.status, Status::Running | Status::Paused | Status::Restarting);
        if is_up {
            engine.stop_container(&one.id, GRACE).await?;
        }
        match engine.remove_container(&one.id).await {
            // Its run was about to end, and has removed it.
            Err(EngineError::NotFound { .. }) => {}
            removed => removed?,
        }
    }
    Ok(())
}

/// An address at the end of a network in which services have fixed ones. The engine would give the lowest that is free
/// just now: that of a service which is about to be started.
async fn free_address(
    engine: &dyn Engine,
    desired: &Desired,
    network: &str,
    taken: &BTreeSet<Ipv4Addr>,
) -> Result<Option<Ipv4Addr>, EngineError> {
    let declarations = desired.services.iter().map(|service| &service.declaration);
    let fixed: BTreeSet<Ipv4Addr> = declarations
        .filter_map(|declaration| declaration.endpoint(network)?.ipv4.as_ref()?.parse().ok())
        .collect();
    if fixed.is_empty() {
        return Ok(None);
    }
    let Some(found) = engine.inspect_network(network).await? else { return Ok(None) };
    let used: BTreeSet<Ipv4Addr> =
        found.addresses.values().filter_map(|address| address.split('/').next()?.parse().ok()).collect();
    let is_free = |address: &Ipv4Addr| [&fixed, &used, taken].iter().all(|set| !set.contains(address));
    Ok(found.subnets.iter().find_map(|subnet| last_addresses(subnet)?.find(is_free)))
}

/// The hosts of an IPv4 subnet from its end, without the gateway that an engine puts there or at its beginning.
fn last_addresses(subnet: &str) -> Option<impl Iterator<Item = Ipv4Addr> + use<>> {
    let IpNet::V4(subnet) = subnet::parse(subnet)? else { return None };
    // Room for the network's own address, a gateway at either end, the broadcast and somebody to ask; no network of a
    // deployment is the whole Internet.
    if !(1..=29).contains(&subnet.prefix_len()) {
        return None;
    }
    let (first, last) = (u32::from(subnet.network()), u32::from(subnet.broadcast()));
    Some((first + 2..last - 1).rev().map(Ipv4Addr::from))
}

fn endpoint(address: Option<Ipv4Addr>) -> Value {
    address.map_or_else(|| json!({}), |address| json!({"IPAMConfig": {"IPv4Address": address.to_string()}}))
}

fn set_addresses(body: &mut CreateBody, addresses: &BTreeMap<String, Option<Ipv4Addr>>) {
    let config = body.0.get_mut("NetworkingConfig").and_then(|config| config.get_mut("EndpointsConfig"));
    for (network, value) in config.and_then(Value::as_object_mut).into_iter().flatten() {
        *value = endpoint(addresses.get(network).copied().flatten());
    }
}

/// The images in which the database can be asked: the one that a command names for it, the declared ones, and those on the
/// other side of the plan, which may speak a newer protocol. What is known to have no tars-init is none of them.
pub(super) fn images(desired: &Desired, observed: &Observed, intent: &Intent) -> Vec<String> {
    let declared = desired.services.iter().filter(|service| is_framework(service));
    let named = intent.ask_with().map(ToString::to_string);
    let asker = asker(desired).map(|service| service.image.to_string());
    let declared = declared.map(|service| service.image.to_string());
    let all = named.into_iter().chain(asker).chain(declared).chain(framework_images(observed));
    // Last, what the deployment does not name at all: before its first roll nothing of ours is in it.
    let all = all.chain(observed.askers.iter().cloned());
    let mut images: Vec<String> = Vec::new();
    for image in all {
        let lacks_init =
            observed.image(&image).is_some_and(|image| !guard::has_our_start(&image.raw["Config"]));
        if !lacks_init && !images.contains(&image) {
            images.push(image);
        }
    }
    images
}

/// The images that containers of the framework were made from, by id.
fn framework_images(observed: &Observed) -> Vec<String> {
    let roles = ["master", "slave", "node"];
    let of_role = |role: &str| {
        let has_role =
            move |container: &&Container| container.labels.get(LABEL_ROLE).is_some_and(|label| label == role);
        observed
            .containers
            .iter()
            .filter(has_role)
            .map(|container| container.image_id.clone())
            .collect::<Vec<_>>()
    };
    let mut images: Vec<String> = Vec::new();
    for image in roles.into_iter().flat_map(of_role) {
        if !images.contains(&image) {
            images.push(image);
        }
    }
    images
}

async fn question(engine: &dyn Engine, name: &str, more: &[&str]) -> Result<Cluster, String> {
    let words = [&QUESTION, more].concat();
    let output = engine.exec(name, &words, TIMEOUT).await.map_err(|error| error.to_string())?;
    serde_json::from_str(output.stdout.trim()).map_err(|_| {
        let said = output.stderr.lines().chain(output.stdout.lines()).next().unwrap_or("nothing");
        format!("`tars-init cluster` exited with {} and said: {said}", output.exit_code)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_is_one_of_the_last_of_the_network_and_no_broadcast_or_gateway() {
        let last =
            |subnet: &str| last_addresses(subnet).and_then(|mut all| all.next()).map(|one| one.to_string());
        assert_eq!(last("172.25.0.0/16").as_deref(), Some("172.25.255.253"));
        assert_eq!(last("10.0.0.8/29").as_deref(), Some("10.0.0.13"));
        assert_eq!(last("10.0.0.8/30"), None, "no room");
        assert_eq!(last("fd00::/64"), None);
        for wrong in ["0.0.0.0/0", "10.0.0.0/33", "10.0.0.0"] {
            assert_eq!(last(wrong), None, "{wrong}");
        }
        assert_eq!(last("240.0.0.0/4").as_deref(), Some("255.255.255.253"), "the last block there is");
    }
}
