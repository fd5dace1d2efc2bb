//! The container's own address: the name by which TARS knows this node, a key in its database.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};

use nix::ifaddrs::getifaddrs;

use super::environment::Naming;
use super::failure::{Code, Failure};

/// An interface's name and one of its IPv4 addresses.
type Interface = (String, Ipv4Addr);

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
            if !address.is_loopback() && !own.iter().any(|(_, interface)| *interface == address) =>
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

fn interfaces() -> Vec<Interface> {
    let Ok(all) = getifaddrs() else { return Vec::new() };
    all.filter_map(|interface| {
        let address = interface.address?;
        Some((interface.interface_name, address.as_sockaddr_in()?.ip()))
    })
    .collect()
}

fn choose(wanted: &[String], seen: &[Interface]) -> Result<Ipv4Addr, Failure> {
    wanted
        .iter()
        .flat_map(|name| seen.iter().filter(move |(interface, _)| interface == name))
        .map(|(_, address)| *address)
        .find(|address| !address.is_loopback())
        .ok_or_else(|| {
            Failure::new(
                Code::Environment,
                format!(
                    "INET names {}, and none of these interfaces has an IPv4 address that is not loopback. Seen: {}.",
                    wanted.join(" "),
                    list(seen)
                ),
                "Set INET to the interface whose address the node should bear, or DOMAIN to a host name.",
            )
        })
}

fn list(seen: &[Interface]) -> String {
    if seen.is_empty() {
        return "no interface with an IPv4 address".to_owned();
    }
    seen.iter().map(|(name, address)| format!("{name} {address}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen() -> Vec<Interface> {
        vec![
            ("lo".to_owned(), Ipv4Addr::LOCALHOST),
            ("eth0".to_owned(), Ipv4Addr::new(172, 25, 0, 3)),
            ("eth1".to_owned(), Ipv4Addr::new(10, 0, 0, 7)),
        ]
    }

    #[test]
    fn first_interface_named_that_is_not_loopback_wins() {
        let choose = |names: &[&str]| {
            choose(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(), &seen())
        };
        assert_eq!(choose(&["eth0"]).unwrap(), Ipv4Addr::new(172, 25, 0, 3));
        assert_eq!(choose(&["lo", "eth1", "eth0"]).unwrap(), Ipv4Addr::new(10, 0, 0, 7));
        let failure = choose(&["eth9", "lo"]).unwrap_err();
        assert_eq!(failure.code, Code::Environment);
        assert!(failure.message.contains("eth1 10.0.0.7"), "{}", failure.message);
    }

    #[test]
    fn domain_is_the_address_itself() {
        assert_eq!(own(&Naming::Domain("fw.tars".to_owned())).unwrap(), "fw.tars");
    }
}
