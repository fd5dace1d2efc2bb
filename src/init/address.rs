//! The container's own address: the name by which TARS knows this node, a key in its database.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

use super::environment::Naming;
use super::failure::{Code, Failure};

/// The interface that upstream's node image goes by, whatever `INET` says. Source: the entry of that image.
const NODES: &str = "eth0";

/// An interface with one of its IPv4 addresses.
#[derive(Clone, Debug)]
struct Interface {
    name: String,
    address: Ipv4Addr,
    /// A bridge's or a network card's; a tunnel has no broadcast address.
    broadcasts: bool,
}

/// The address (or the host name of `DOMAIN`) that this node bears.
pub fn own(naming: &Naming) -> Result<String, Failure> {
    match naming {
        Naming::Domain(domain) => Ok(domain.clone()),
        Naming::Interfaces(wanted) => choose(wanted, &interfaces()).map(|address| address.to_string()),
    }
}

/// Where a servant of this node is reached.
pub fn socket(host: &str, port: u16) -> std::io::Result<SocketAddr> {
    (host, port)
        .to_socket_addrs()?
        .next()
        .ok_or_else(|| std::io::Error::other(format!("{host} resolves to no address")))
}

/// What is suspicious about a `DOMAIN`: it does not resolve, or to an address that is not this container's.
pub fn doubt(domain: &str) -> Option<String> {
    let Ok(resolved) = socket(domain, 0) else {
        return Some(format!(
            "{domain} does not resolve (yet); the services will not be able to listen on it"
        ));
    };
    let own = interfaces();
    match resolved.ip() {
        IpAddr::V4(address)
            if !address.is_loopback() && !own.iter().any(|interface| interface.address == address) =>
        {
            Some(format!(
                "{domain} resolves to {address}, which is none of this container's addresses ({})",
                list(&own)
            ))
        }
        _ => None,
    }
}

/// Every address of this container, of whatever family.
pub fn all() -> BTreeSet<IpAddr> {
    let Ok(all) = getifaddrs() else { return BTreeSet::new() };
    all.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
    })
    .collect()
}

/// What upstream's node image would have borne here without `DOMAIN`; `None` where it would have found nothing, or more
/// than it can handle.
pub fn of_upstreams_node() -> Option<String> {
    only(&matching(NODES, &interfaces())).map(|interface| interface.address.to_string())
}

fn interfaces() -> Vec<Interface> {
    let Ok(all) = getifaddrs() else { return Vec::new() };
    all.filter_map(|interface| {
        let address = interface.address?.as_sockaddr_in()?.ip();
        let broadcasts = interface.flags.contains(InterfaceFlags::IFF_BROADCAST);
        Some(Interface { name: interface.interface_name, address, broadcasts })
    })
    .collect()
}

/// As upstream's image chooses: the names of `INET` in their order, each for the one interface whose name holds it and that
/// has a broadcast address. Where several hold it, upstream's start breaks, and the one that is called so is meant; one
/// without a broadcast address upstream does not see, so it comes last. Source: upstream's `docker-init.sh`.
fn choose(wanted: &[String], seen: &[Interface]) -> Result<Ipv4Addr, Failure> {
    let called = |name: &String, broadcasts: bool| {
        seen.iter()
            .find(|one| one.name == *name && one.broadcasts == broadcasts && !one.address.is_loopback())
    };
    let of_upstream = |name: &String| {
        let matching = matching(name, seen).into_iter().filter(|one| one.broadcasts).collect::<Vec<_>>();
        only(&matching).or_else(|| called(name, true))
    };
    wanted
        .iter()
        .find_map(of_upstream)
        .or_else(|| wanted.iter().find_map(|name| called(name, false)))
        .map(|interface| interface.address)
        .ok_or_else(|| {
            Failure::new(
                Code::Environment,
                format!(
                    "INET names {}, and that is no one interface with an IPv4 address that is not loopback. Seen: {}.",
                    wanted.join(" "),
                    list(seen)
                ),
                "Set INET to the interface whose address the node should bear, or DOMAIN to a host name.",
            )
        })
}

/// The interfaces whose name holds `part`, as `grep` finds them.
fn matching<'a>(part: &str, seen: &'a [Interface]) -> Vec<&'a Interface> {
    seen.iter().filter(|one| one.name.contains(part) && !one.address.is_loopback()).collect()
}

fn only<'a>(of: &[&'a Interface]) -> Option<&'a Interface> {
    match of {
        [one] => Some(one),
        _ => None,
    }
}

fn list(seen: &[Interface]) -> String {
    if seen.is_empty() {
        return "no interface with an IPv4 address".to_owned();
    }
    seen.iter().map(|one| format!("{} {}", one.name, one.address)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(name: &str, address: [u8; 4]) -> Interface {
        Interface {
            name: name.to_owned(),
            address: address.into(),
            broadcasts: !matches!(name, "lo" | "tun0"),
        }
    }

    fn seen() -> Vec<Interface> {
        vec![
            interface("lo", [127, 0, 0, 1]),
            interface("tun0", [10, 8, 0, 2]),
            interface("eth0", [172, 25, 0, 3]),
            interface("eth1", [10, 0, 0, 7]),
        ]
    }

    fn chosen(names: &[&str], seen: &[Interface]) -> Result<String, Failure> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        choose(&names, seen).map(|address| address.to_string())
    }

    #[test]
    fn first_interface_named_that_is_not_loopback_wins() {
        assert_eq!(chosen(&["eth0"], &seen()).unwrap(), "172.25.0.3");
        assert_eq!(chosen(&["lo", "eth1", "eth0"], &seen()).unwrap(), "10.0.0.7");
        let failure = chosen(&["eth9", "lo"], &seen()).unwrap_err();
        assert_eq!(failure.code, Code::Environment);
        assert!(failure.message.contains("eth1 10.0.0.7"), "{}", failure.message);
    }

    #[test]
    fn interface_is_the_one_that_upstreams_image_would_have_chosen() {
        // It looks for a part of the name, and sees none without a broadcast address.
        assert_eq!(chosen(&["h1"], &seen()).unwrap(), "10.0.0.7");
        assert_eq!(chosen(&["tun0", "eth1"], &seen()).unwrap(), "10.0.0.7");
        // Where upstream's finds nothing or breaks, the one that is called so.
        assert_eq!(chosen(&["tun0"], &seen()).unwrap(), "10.8.0.2");
        let mut more = seen();
        more.push(interface("veth0", [10, 1, 0, 1]));
        assert_eq!(chosen(&["eth0"], &more).unwrap(), "172.25.0.3");
        assert!(chosen(&["eth"], &more).is_err(), "three may be meant");
    }

    #[test]
    fn domain_is_the_address_itself() {
        assert_eq!(own(&Naming::Domain("fw.tars".to_owned())).unwrap(), "fw.tars");
    }
}
