//! Fixed addresses: inside the network, nobody else's, and outside of what the engine hands out by itself.

use std::net::Ipv4Addr;

use ipnet::IpNet;

use crate::deploy::desired::Service;
use crate::deploy::{Desired, Observed, subnet};
use crate::engine::{Container, Network};
use crate::tars::Role;
use crate::upgrade::finding::{About, Findings};
use crate::upgrade::state::{by_id, is_up, of_service, serving};
use crate::upgrade::{Intent, Refusal, differ};

/// How the engine is kept from handing out the fixed addresses of a network.
const RANGE: &str = "a network with an `ip_range` beside its fixed addresses hands out none of them";

/// Judges each fixed address of what may be made.
pub(super) fn check(desired: &Desired, observed: &Observed, intent: &Intent, findings: &mut Findings) {
    for service in desired.services.iter().filter(|service| intent.makes(service)) {
        for (name, address) in fixed_addresses(service) {
            let Some(Some(network)) = observed.networks.get(&name) else { continue };
            findings.check(one(desired, observed, service, network, &address));
        }
    }
    handed_out(desired, observed, intent, findings);
}

fn one(
    desired: &Desired,
    observed: &Observed,
    service: &Service,
    network: &Network,
    address: &str,
) -> Result<(), Refusal> {
    let place = || Box::new(service.place.clone());
    let inside = network.subnets.iter().any(|subnet| contains(subnet, address));
    if !network.subnets.is_empty() && !inside {
        return Err(Refusal::AddressOutside {
            service: service.name.clone(),
            address: address.to_owned(),
            network: network.name.clone(),
            subnets: network.subnets.join(", "),
            place: place(),
        });
    }
    let taken = |by: String| Refusal::AddressTaken {
        service: service.name.clone(),
        address: address.to_owned(),
        network: network.name.clone(),
        by,
        place: place(),
    };
    if network.gateways.iter().any(|gateway| gateway == address) {
        return Err(taken("the network's gateway".to_owned()));
    }
    let holder = network.addresses.iter().find(|(_, taken)| taken.split('/').next() == Some(address));
    // One of the wanted name that is somebody else's is refused for that.
    let named = |id: &str| by_id(observed, id).is_some_and(|found| found.name == service.container);
    let own =
        |id: &str| named(id) || of_service(observed, &desired.deployment, &service.name).any(|c| c.id == id);
    match holder.filter(|(id, _)| !own(id)) {
        Some((id, _)) => {
            let by = by_id(observed, id).map_or_else(|| id.chars().take(12).collect(), |c| c.name.clone());
            Err(taken(format!("the container {by}")))
        }
        None => match twice(desired, service, &network.name, address) {
            Some(other) => Err(taken(format!("the service `{}`, which declares it too", other.name))),
            None => Ok(()),
        },
    }
}

/// The service before this one that declares the same address: the second would not start.
fn twice<'a>(desired: &'a Desired, service: &Service, network: &str, address: &str) -> Option<&'a Service> {
    let mut before = desired.services.iter().take_while(|other| other.name != service.name);
    before.find(|other| fixed_addresses(other).iter().any(|(on, has)| on == network && has == address))
}

/// The engine may give the address of a container that is stopped just now to whoever asks for none of his own.
fn handed_out(desired: &Desired, observed: &Observed, intent: &Intent, findings: &mut Findings) {
    for network in observed.networks.values().flatten() {
        let at_risk = |service: &&Service| {
            let on_it = |(name, address): &(String, String)| {
                *name == network.name && pool(network).iter().any(|range| holds(range, address))
            };
            is_stopped(desired, observed, intent, service) && fixed_addresses(service).iter().any(on_it)
        };
        let names: Vec<String> =
            desired.services.iter().filter(at_risk).map(|service| format!("`{}`", service.name)).collect();
        if names.is_empty() {
            continue;
        }
        let (pool, many) = (pool(network).join(", "), if names.len() == 1 { "that" } else { "those" });
        findings.note(
            About::Addresses,
            format!(
                "the network {} hands out addresses of {pool}, {many} of {} among them: while one is stopped, another container \
                 may be given its address. {RANGE}",
                network.name,
                names.join(", ")
            ),
        );
    }
}

/// What is left alone keeps its address.
fn is_stopped(desired: &Desired, observed: &Observed, intent: &Intent, service: &Service) -> bool {
    let is_database = service.role == Some(Role::Database);
    match intent {
        Intent::Up | Intent::Upgrade { .. } => {
            let container = serving(observed, &desired.deployment, service);
            let differs =
                |it: &Container| differ::difference(service, it, observed).is_some() && !is_database;
            intent.makes(service) && container.is_none_or(|it| !is_up(it) || differs(it))
        }
        Intent::Restart { services, .. } if services.is_empty() => !is_database,
        Intent::Restart { services, .. } => services.contains(&service.name),
        Intent::Rollback { targets, .. } => targets.contains_key(&service.name),
        Intent::Down { .. } | Intent::Prune { .. } | Intent::Finish => false,
    }
}

/// True where an IPv4 range holds the address.
fn holds(range: &str, address: &str) -> bool {
    let (range, address) = (subnet::parse(range), address.parse::<Ipv4Addr>());
    matches!((range, address), (Some(IpNet::V4(range)), Ok(address)) if range.contains(&address))
}

/// What the engine hands out: the range that is named, else the whole subnet.
fn pool(network: &Network) -> &[String] {
    if network.ranges.is_empty() { &network.subnets } else { &network.ranges }
}

/// Network → declared address, of the first network and of those that are connected later.
fn fixed_addresses(service: &Service) -> Vec<(String, String)> {
    let endpoints = service.declaration.endpoints.iter();
    endpoints.filter_map(|endpoint| Some((endpoint.network.clone(), endpoint.ipv4.clone()?))).collect()
}

/// True where an IPv4 subnet such as `172.25.0.0/16` contains the address; what is not IPv4 is not judged.
fn contains(subnet: &str, address: &str) -> bool {
    match (subnet::parse(subnet), address.parse::<Ipv4Addr>()) {
        (Some(IpNet::V4(subnet)), Ok(address)) => subnet.contains(&address),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contains_follows_the_prefix() {
        assert!(contains("172.25.0.0/16", "172.25.9.1"));
        assert!(!contains("172.25.0.0/16", "172.26.0.1"));
        assert!(!contains("10.0.0.0/30", "10.0.0.4"));
        assert!(contains("0.0.0.0/0", "10.0.0.4"));
        for unjudged in ["10.0.0.0/33", "fd00::/8", "10.0.0.0", ""] {
            assert!(contains(unjudged, "192.168.0.1"), "{unjudged}");
        }
        assert!(contains("10.0.0.0/8", "fd00::1"));
    }
}
