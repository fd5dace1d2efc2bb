//! Who listens where: on a host network another container may answer at our own address.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nix::unistd::Pid;

use super::socket_diag;

/// `TCP_LISTEN` in the state column of `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// A listening TCP socket of this network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Where it listens; an unspecified address means everywhere.
    pub at: SocketAddr,
    /// The socket, as the links in `/proc/PID/fd` name it.
    pub inode: u64,
}

/// Every listening TCP socket of this network namespace, whoever's it is: from the kernel itself, else from `/proc`.
pub fn listeners() -> io::Result<Vec<Listener>> {
    match socket_diag::listeners() {
        Ok(told) => Ok(told.into_iter().map(|(at, inode)| Listener { at, inode }).collect()),
        Err(_) => listeners_of_proc(),
    }
}

fn listeners_of_proc() -> io::Result<Vec<Listener>> {
    let mut found = parse(&fs::read_to_string("/proc/self/net/tcp")?);
    // A kernel without IPv6 has no such file.
    found.extend(parse(&fs::read_to_string("/proc/self/net/tcp6").unwrap_or_default()));
    Ok(found)
}

/// Every UDP socket of this network namespace.
pub fn udp() -> io::Result<Vec<Listener>> {
    let of =
        |table: &str| table.lines().skip(1).filter_map(|line| parse_line(line, None)).collect::<Vec<_>>();
    let mut found = of(&fs::read_to_string("/proc/self/net/udp")?);
    found.extend(of(&fs::read_to_string("/proc/self/net/udp6").unwrap_or_default()));
    Ok(found)
}

/// The socket that a connection to `to` reaches: the one bound to that very address, else one that is bound to all.
pub fn reached_by(to: SocketAddr, listeners: &[Listener]) -> Option<Listener> {
    let on_port = || listeners.iter().copied().filter(move |listener| listener.at.port() == to.port());
    let is = |address: IpAddr| move |listener: &Listener| listener.at.ip().to_canonical() == address;
    on_port()
        .find(is(to.ip().to_canonical()))
        .or_else(|| on_port().find(is(IpAddr::V4(Ipv4Addr::UNSPECIFIED))))
        .or_else(|| on_port().find(is(IpAddr::V6(Ipv6Addr::UNSPECIFIED))))
}

/// A socket, and the process and file descriptor that hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Held {
    /// The socket.
    pub inode: u64,
    /// Who holds it.
    pub pid: Pid,
    fd: u32,
}

impl Held {
    /// True while that descriptor is that socket.
    fn holds(self) -> bool {
        let link = fs::read_link(format!("/proc/{}/fd/{}", self.pid, self.fd));
        link.is_ok_and(|link| socket_inode(&link.to_string_lossy()) == Some(self.inode))
    }

    /// Reads what [`fmt::Display`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let inode = words.next()?.parse().ok()?;
        let pid = Pid::from_raw(words.next()?.parse().ok()?);
        Some(Self { inode, pid, fd: words.next()?.parse().ok()? })
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.inode, self.pid, self.fd)
    }
}

/// Which of the wanted sockets are still where they were seen earlier: a process has hundreds of descriptors, each a
/// question.
pub fn still_held(before: &[Held], wanted: &BTreeSet<u64>) -> BTreeMap<u64, Held> {
    let before = before.iter().filter(|held| wanted.contains(&held.inode) && held.holds());
    before.map(|held| (held.inode, *held)).collect()
}

/// Adds which of these processes hold which of the wanted sockets. What cannot be read is held by nobody.
pub fn find_holders(pids: &[Pid], wanted: &BTreeSet<u64>, found: &mut BTreeMap<u64, Held>) {
    for pid in pids {
        // A node may run hundreds of services with thousands of connections: no further than needed.
        if found.len() == wanted.len() {
            break;
        }
        let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for entry in entries.flatten() {
            let Ok(link) = fs::read_link(entry.path()) else { continue };
            let Some(fd) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            if let Some(inode) = socket_inode(&link.to_string_lossy())
                && wanted.contains(&inode)
            {
                found.insert(inode, Held { inode, pid: *pid, fd });
            }
        }
    }
}

/// `socket:[4711]`
fn socket_inode(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

fn parse(table: &str) -> Vec<Listener> {
    table.lines().skip(1).filter_map(|line| parse_line(line, Some(LISTEN))).collect()
}

/// `sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode ...`
fn parse_line(line: &str, state: Option<&str>) -> Option<Listener> {
    let mut fields = line.split_whitespace().skip(1);
    let local = fields.next()?;
    let found = fields.nth(1)?;
    if state.is_some_and(|state| state != found) {
        return None;
    }
    let inode = fields.nth(5)?.parse().ok()?;
    let (address, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    Some(Listener { at: SocketAddr::new(parse_address(address)?, port), inode })
}

/// Words of 32 bits, each printed as a number of this machine's byte order.
fn parse_address(text: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(text.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut bytes = [0; 16];
            for (part, chunk) in bytes.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(part * 8)?);
            }
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn listener_of_this_process_is_found_with_its_holder() {
        for host in ["127.0.0.1", "0.0.0.0", "::1", "::"] {
            let Ok(socket) = TcpListener::bind((host, 0)) else { continue };
            let at = socket.local_addr().unwrap();
            let found = reached_by(at, &listeners().unwrap()).unwrap();
            assert_eq!(found.at, at);
            let wanted = BTreeSet::from([found.inode]);
            let holders = |pid: Pid| {
                let mut held = BTreeMap::new();
                find_holders(&[pid], &wanted, &mut held);
                held
            };
            let held = holders(Pid::this())[&found.inode];
            assert_eq!((held.inode, held.pid), (found.inode, Pid::this()));
            assert_eq!(Held::parse(&held.to_string()), Some(held));
            assert_eq!(holders(Pid::from_raw(1)).len(), 0);
            // What was seen before counts only while it is so.
            let another = Held { fd: 0, ..held };
            let still = still_held(&[held, another], &wanted);
            assert_eq!(still, BTreeMap::from([(held.inode, held)]));
            drop(socket);
            assert!(still_held(&[held], &wanted).is_empty());
        }
    }

    #[test]
    fn kernel_tells_the_same_listeners_as_proc() {
        let hosts = ["127.0.0.1", "0.0.0.0", "::1", "::"];
        let held: Vec<_> = hosts.iter().filter_map(|host| TcpListener::bind((*host, 0)).ok()).collect();
        // Its other end has the address of a listener.
        let _connected = std::net::TcpStream::connect(held[0].local_addr().unwrap()).unwrap();
        let own: Vec<_> = held.iter().map(|socket| socket.local_addr().unwrap()).collect();
        // Others listen and end meanwhile.
        let told: BTreeSet<_> =
            socket_diag::listeners().unwrap().into_iter().filter(|(at, _)| own.contains(at)).collect();
        let read: BTreeSet<_> = listeners_of_proc().unwrap().iter().map(|it| (it.at, it.inode)).collect();
        assert_eq!(told.len(), held.len(), "{told:?}");
        assert!(told.is_subset(&read), "{told:?} {read:?}");
    }

    #[test]
    fn socket_of_the_very_address_comes_before_one_that_listens_everywhere() {
        let listener = |at: &str, inode| Listener { at: at.parse().unwrap(), inode };
        let all = [listener("0.0.0.0:80", 1), listener("127.0.0.2:80", 2), listener("[::]:81", 3)];
        let reached = |to: &str| reached_by(to.parse().unwrap(), &all).map(|found| found.inode);
        assert_eq!(reached("127.0.0.2:80"), Some(2));
        assert_eq!(reached("127.0.0.3:80"), Some(1));
        assert_eq!(reached("127.0.0.3:81"), Some(3));
        assert_eq!(reached("127.0.0.3:82"), None);
    }

    #[test]
    fn connections_are_no_listeners() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             \x20  0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0  0 5001 1 0 100 0 0 10 0\n\
             \x20  1: 0100007F:1F90 0100007F:D431 01 00000000:00000000 00:00000000 00000000  0  0 5002 1 0 100 0 0 10 0\n";
        let found = parse(table);
        assert_eq!(found.iter().map(|found| found.inode).collect::<Vec<_>>(), [5001]);
    }
}
