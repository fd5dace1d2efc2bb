//! What only shows across services: names, addresses and ports taken twice, circles, roles.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::error::{ComposeError, Result};
use super::resource::Resources;
use crate::deploy::desired::Service;
use crate::diagnose::Place;
use crate::tars::Role;
use crate::yaml::Node;

fn invalid(place: &Place, what: String, hint: &str) -> ComposeError {
    ComposeError::Invalid { what, hint: Some(hint.to_owned()), place: place.clone() }
}

/// Checks the services against each other and against their networks.
pub(super) fn across(
    services: &[Service],
    resources: &Resources,
    tree: &Node,
    notes: &mut Vec<String>,
) -> Result<()> {
    names(services)?;
    roles(services)?;
    ports(services)?;
    addresses(services, resources, notes)?;
    depends(services)?;
    shared_memory(services, notes);
    unused(services, resources, tree, notes);
    Ok(())
}

fn names(services: &[Service]) -> Result<()> {
    let mut seen: BTreeMap<&str, &Service> = BTreeMap::new();
    for service in services {
        if let Some(first) = seen.insert(&service.container, service) {
            let place = service.written.keys.get("container_name").unwrap_or(&service.place);
            let what = format!(
                "`{}` and `{}` have one container name: {}",
                first.name, service.name, service.container
            );
            return Err(invalid(place, what, "give each its own `container_name`"));
        }
    }
    Ok(())
}

fn roles(services: &[Service]) -> Result<()> {
    let mut masters = services.iter().filter(|service| service.role == Some(Role::Master));
    if let (Some(first), Some(second)) = (masters.next(), masters.next()) {
        let what = format!("two masters: `{}` and `{}`", first.name, second.name);
        return Err(invalid(&second.place, what, "make one of them `x-tars: {role: slave}`"));
    }
    Ok(())
}

/// The host's ports, as `address:port/protocol`. A port on every address collides with that port on one.
fn ports(services: &[Service]) -> Result<()> {
    let mut taken: Vec<(String, String, &Service)> = Vec::new();
    for service in services {
        let mut own = Vec::new();
        for port in &service.declaration.ports {
            if !port.host_port.is_empty() && !port.host_port.contains('-') {
                let ip = port.host_ip.clone().unwrap_or_default();
                own.push((ip, format!("{}/{}", port.host_port, port.protocol()), service));
            }
        }
        let everywhere = |ip: &str| matches!(ip, "" | "0.0.0.0" | "::");
        for (ip, port, _) in &own {
            let clash = taken.iter().find(|(other_ip, other, _)| {
                other == port && (other_ip == ip || everywhere(ip) || everywhere(other_ip))
            });
            if let Some((_, _, other)) = clash {
                let place = service.written.keys.get("ports").unwrap_or(&service.place);
                let what = format!("`{}` and `{}` both publish port {port}", other.name, service.name);
                return Err(invalid(place, what, "publish one of them on another port of the host"));
            }
        }
        taken.extend(own);
    }
    Ok(())
}

fn addresses(services: &[Service], resources: &Resources, notes: &mut Vec<String>) -> Result<()> {
    let mut seen: BTreeMap<(&str, IpAddr), &Service> = BTreeMap::new();
    for service in services {
        let place = service.written.keys.get("networks").unwrap_or(&service.place);
        for endpoint in &service.declaration.endpoints {
            let name = endpoint.network.as_str();
            for (version, written) in [(4, &endpoint.ipv4), (6, &endpoint.ipv6)] {
                let Some(written) = written else { continue };
                let wrong = || {
                    let what = format!("`{written}` is no IPv{version} address");
                    invalid(place, what, "write it without a prefix length, such as 172.25.0.3")
                };
                let address: IpAddr = written.parse().map_err(|_| wrong())?;
                if address.is_ipv4() != (version == 4) {
                    return Err(wrong());
                }
                if let Some(first) = seen.insert((name, address), service) {
                    let what = format!("`{}` and `{}` have one address: {address}", first.name, service.name);
                    return Err(invalid(place, what, "give each its own address"));
                }
                fits(service, name, address, place, resources, notes)?;
            }
        }
    }
    Ok(())
}

/// A fixed address needs a subnet of the network that holds it, and that nothing else may take it.
fn fits(
    service: &Service,
    name: &str,
    address: IpAddr,
    place: &Place,
    resources: &Resources,
    notes: &mut Vec<String>,
) -> Result<()> {
    let Some(network) = resources.networks().values().find(|network| network.resource.name == name) else {
        return Ok(());
    };
    if network.resource.external {
        return Ok(()); // the engine knows its subnet, the file does not
    }
    let key = &network.resource.key;
    if network.subnets.is_empty() {
        let what = format!(
            "`{}` has the fixed address {address} on `{key}`, which declares no subnet",
            service.name
        );
        return Err(invalid(place, what, "declare `ipam: {config: [{subnet: ...}]}` of the network"));
    }
    if !network.subnets.iter().any(|subnet| subnet.contains(&address)) {
        let what = format!("the address {address} of `{}` is outside the subnet of `{key}`", service.name);
        return Err(invalid(place, what, &format!("choose one inside it; see {}", network.at.place())));
    }
    if network.reserved.contains(&address) {
        let what =
            format!("the address {address} of `{}` is the gateway or reserved on `{key}`", service.name);
        return Err(invalid(place, what, &format!("choose another; see {}", network.at.place())));
    }
    if network.ranges.iter().any(|range| range.contains(&address)) {
        notes.push(format!(
            "{place}: the address {address} of `{}` lies in the `ip_range` of `{key}`: another container may be \
             given it while this one is down",
            service.name
        ));
    }
    Ok(())
}

fn depends(services: &[Service]) -> Result<()> {
    fn visit<'s>(
        service: &'s Service,
        services: &'s [Service],
        path: &mut Vec<&'s str>,
        done: &mut Vec<&'s str>,
    ) -> Result<()> {
        if done.contains(&service.name.as_str()) {
            return Ok(());
        }
        let place = service.written.keys.get("depends_on").unwrap_or(&service.place);
        if path.contains(&service.name.as_str()) {
            let what = format!("`depends_on` goes in a circle: {} -> {}", path.join(" -> "), service.name);
            return Err(invalid(place, what, "remove one of them"));
        }
        path.push(&service.name);
        for name in &service.depends_on {
            let Some(next) = services.iter().find(|service| service.name == *name) else {
                let what = format!("`{}` depends on `{name}`, which is not declared", service.name);
                return Err(invalid(place, what, "declare it, or remove it from `depends_on`"));
            };
            visit(next, services, path, done)?;
        }
        path.pop();
        done.push(&service.name);
        Ok(())
    }
    let mut done = Vec::new();
    services.iter().try_for_each(|service| visit(service, services, &mut Vec::new(), &mut done))
}

/// Most engines make memory private where nothing is said, and start nobody then who wants it.
fn shared_memory(services: &[Service], notes: &mut Vec<String>) {
    for service in services {
        let of = service.declaration.shares().find(|(key, _)| *key == "IpcMode");
        let on = of.and_then(|(_, name)| services.iter().find(|other| other.container == name));
        let mode = |on: &Service| {
            on.declaration.host.get("IpcMode").and_then(|mode| mode.as_str().map(str::to_owned))
        };
        if let Some(on) = on.filter(|on| mode(on).is_none_or(|mode| mode.is_empty() || mode == "private")) {
            let place = service.written.keys.get("ipc").unwrap_or(&service.place);
            notes.push(format!(
                "{place}: `{}` has its shared memory from `{}`, but `{}` does not share its memory with anybody unless it \
                 says `ipc: shareable`, or the engine does so by default",
                service.name, on.name, on.name
            ));
        }
    }
}

/// Declared and used by nobody: compose makes them not, and neither does tarsup; said, because it is often a slip.
fn unused(services: &[Service], resources: &Resources, tree: &Node, notes: &mut Vec<String>) {
    let (networks, volumes) = resources.used(services);
    for (key, used) in [("networks", networks), ("volumes", volumes)] {
        let declared =
            tree.get(key).and_then(|node| super::value::entries(node, key).ok()).unwrap_or_default();
        for entry in declared.iter().filter(|entry| !used.iter().any(|resource| resource.key == entry.key)) {
            notes.push(format!("{}: no service uses `{}` of `{key}`", entry.at.place(), entry.key));
        }
    }
}
