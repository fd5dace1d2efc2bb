//! Blocks of addresses, as networks declare them and as an engine tells them.

use std::net::IpAddr;

use ipnet::IpNet;

/// `172.25.0.0/16`; bits behind the prefix may be set. Address and prefix are read by the standard library: ipnet's own
/// reader takes `010.0.0.0/8` as well, which means something else to other programs.
pub fn parse(text: &str) -> Option<IpNet> {
    let (address, prefix) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    IpNet::new(address, prefix.parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_hold_their_addresses_and_no_others() {
        for (subnet, address, inside) in [
            ("172.25.0.0/16", "172.25.255.3", true),
            ("172.25.0.0/16", "172.26.0.3", false),
            ("172.25.9.9/16", "172.25.0.0", true),
            ("10.0.0.4/32", "10.0.0.4", true),
            ("10.0.0.4/32", "10.0.0.5", false),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("0.0.0.0/0", "::1", false),
            ("fd00::/8", "fd12::1", true),
            ("fd00::/8", "fe80::1", false),
            ("::ffff:10.0.0.0/104", "10.0.0.1", false),
        ] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(parse(subnet).unwrap().contains(&address), inside, "{subnet} {address}");
        }
    }

    #[test]
    fn what_is_no_subnet_is_refused() {
        for wrong in [
            "10.0.0.0",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/256",
            "10.0.0.0/-1",
            "10.0.0.0/8/8",
            "10.0.0.0/ 8",
            "10.0.0/8",
            "010.0.0.0/8",
            "10.0.0.0/255.0.0.0",
            "fd00::/129",
            "fe80::1%eth0/64",
            "",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn prefix_may_be_written_in_more_than_one_way() {
        for right in ["10.0.0.0/08", "10.0.0.0/+8"] {
            assert_eq!(parse(right), parse("10.0.0.0/8"), "{right}");
        }
    }
}
