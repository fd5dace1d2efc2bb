//! The kernel's own answer to "who listens?" (`sock_diag(7)`): it walks the listeners alone, where `/proc/net/tcp` walks the
//! table of all connections of the host, which costs milliseconds on a machine with a large one. And what it has counted of each
//! connection, which `/proc` does not tell at all.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto, socket,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

/// `SOCK_DIAG_BY_FAMILY` of `linux/sock_diag.h`.
const BY_FAMILY: u16 = 20;
/// `TCP_LISTEN`, as a set of states.
const LISTENING: u32 = 1 << 10;
/// Every state in which somebody has come: `TCP_ESTABLISHED`, `TCP_FIN_WAIT1` and `2`, `TCP_CLOSE_WAIT`, `TCP_LAST_ACK` and
/// `TCP_CLOSING`.
const CONNECTED: u32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;
/// `SKNLGRP_INET_TCP_DESTROY` and `SKNLGRP_INET6_TCP_DESTROY`, as a set of groups.
const ENDED: u32 = 1 << 0 | 1 << 2;
/// `INET_DIAG_INFO`: the attribute with a `struct tcp_info`, and its bit in a request.
const INFO: u16 = 2;
const WITH_INFO: u8 = 1 << (INFO - 1);
/// `tcpi_last_data_recv` of that struct, in milliseconds.
const LAST_DATA: usize = 52;
/// `tcpi_bytes_received`
const RECEIVED: usize = 128;
/// `struct nlmsghdr`
const HEADER: usize = 16;
/// `struct inet_diag_req_v2`
const REQUEST: usize = 56;
/// `struct inet_diag_msg`
const MESSAGE: usize = 72;
/// More than the kernel ever puts into one datagram of a dump for a reader of this size.
const DATAGRAM: usize = 16 * 1024;

/// Where a socket listens, and its inode.
type Listening = (SocketAddr, u64);

/// A TCP connection of this network namespace, as it is or as it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// This end.
    pub local: SocketAddr,
    /// The other end.
    pub peer: SocketAddr,
    /// How many bytes have come; that the other end has closed counts as one.
    pub bytes: u64,
    /// How long ago the last of them came.
    pub ago: Duration,
}

/// Connections as they end, from now on: one that lives for less than a millisecond is seen in no list.
#[derive(Debug)]
pub struct Ended(OwnedFd);

/// Every listening TCP socket of this network namespace; an error where the kernel does not answer this way (no
/// `inet_diag`, a seccomp profile without netlink).
pub fn listeners() -> io::Result<Vec<Listening>> {
    dump(LISTENING, 0, listener)
}

/// Every TCP connection of this network namespace; an error as above.
pub fn connections() -> io::Result<Vec<Connection>> {
    dump(CONNECTED, WITH_INFO, connection)
}

impl Ended {
    /// Begins to listen; an error where the kernel does not tell (before 4.3).
    pub fn listen(wait: TimeVal) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket =
            socket(AddressFamily::Netlink, SockType::Datagram, flags, SockProtocol::NetlinkSockDiag)?;
        nix::sys::socket::setsockopt(&socket, sockopt::ReceiveTimeout, &wait)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, ENDED))?;
        Ok(Self(socket))
    }

    /// Those that end next; none where none does within the wait. Where there are too many to be told, some are not.
    pub fn next(&self) -> io::Result<Vec<Connection>> {
        let mut buffer = vec![0; DATAGRAM];
        let mut found = Vec::new();
        match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(length) => drop(read(&buffer[..length], 0, connection, &mut found)?),
            Err(Errno::EINTR | Errno::EAGAIN | Errno::ENOBUFS) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(found)
    }
}

/// Asks for the sockets in these states, of both families, and has each answer read.
fn dump<T>(states: u32, extensions: u8, of: fn(&[u8]) -> Option<T>) -> io::Result<Vec<T>> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Netlink, SockType::Datagram, flags, SockProtocol::NetlinkSockDiag)?;
    // The kernel answers at once; what only pretends to be one must not hang a health check.
    nix::sys::socket::setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(1))?;
    let mut found = Vec::new();
    let mut buffer = vec![0; DATAGRAM];
    for (sequence, family) in [(1, libc::AF_INET), (2, libc::AF_INET6)] {
        let request = request(family, sequence, states, extensions);
        sendto(socket.as_raw_fd(), &request, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        loop {
            let length = match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Err(Errno::EINTR) => continue,
                length => length?,
            };
            if read(&buffer[..length], sequence, of, &mut found)? {
                break;
            }
        }
    }
    Ok(found)
}

/// One question for all sockets of a family in these states.
fn request(family: i32, sequence: u32, states: u32, extensions: u8) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + REQUEST);
    let length = u32::try_from(HEADER + REQUEST).unwrap_or_default();
    bytes.extend(length.to_ne_bytes());
    bytes.extend(BY_FAMILY.to_ne_bytes());
    let flags = u16::try_from(libc::NLM_F_REQUEST | libc::NLM_F_DUMP).unwrap_or_default();
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    let byte = |number: i32| u8::try_from(number).unwrap_or_default();
    bytes.extend([byte(family), byte(libc::IPPROTO_TCP), extensions, 0]);
    bytes.extend(states.to_ne_bytes());
    bytes.resize(HEADER + REQUEST, 0);
    bytes
}

/// Takes the sockets out of one datagram; true where it was the last.
fn read<T>(
    mut datagram: &[u8],
    sequence: u32,
    of: fn(&[u8]) -> Option<T>,
    found: &mut Vec<T>,
) -> io::Result<bool> {
    while !datagram.is_empty() {
        let cut = || io::Error::other("an answer of sock_diag is cut off");
        let length = number(datagram, 0).ok_or_else(cut)? as usize;
        let message = datagram.get(..length).filter(|message| message.len() >= HEADER).ok_or_else(cut)?;
        let body = &message[HEADER..];
        let (kind, flags) = (number16(message, 4).ok_or_else(cut)?, number16(message, 6).ok_or_else(cut)?);
        // Each message begins at a multiple of four.
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        if number(message, 8) != Some(sequence) {
            continue;
        }
        if i32::from(flags) & libc::NLM_F_DUMP_INTR != 0 {
            return Err(io::Error::other("sockets changed while the kernel told them"));
        }
        match i32::from(kind) {
            libc::NLMSG_DONE | libc::NLMSG_ERROR => {
                return match number(body, 0).map(u32::cast_signed) {
                    None | Some(0) => Ok(true),
                    Some(error) => Err(io::Error::from_raw_os_error(error.wrapping_neg())),
                };
            }
            kind if kind == i32::from(BY_FAMILY) => {
                // Its own part is always whole; of a socket that only waits for its peer's end the kernel tells no more.
                body.get(..MESSAGE).ok_or_else(cut)?;
                found.extend(of(body));
            }
            _ => {}
        }
    }
    Ok(false)
}

/// `struct inet_diag_msg`: family, state, timer, retrans; ports and addresses in network order; ... and last the inode.
fn listener(body: &[u8]) -> Option<Listening> {
    Some((end(body, 4, 8)?, u64::from(number(body.get(..MESSAGE)?, 68)?)))
}

/// The same with the attributes that follow it.
fn connection(body: &[u8]) -> Option<Connection> {
    let (local, peer) = (end(body, 4, 8)?, end(body, 6, 24)?);
    let mut attributes = body.get(MESSAGE..)?;
    while attributes.len() >= 4 {
        let length = usize::from(number16(attributes, 0)?);
        let value = attributes.get(4..length)?;
        if number16(attributes, 2)? == INFO {
            let bytes = u64::from_ne_bytes(value.get(RECEIVED..RECEIVED + 8)?.try_into().ok()?);
            let ago = Duration::from_millis(u64::from(number(value, LAST_DATA)?));
            return Some(Connection { local, peer, bytes, ago });
        }
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    None
}

/// One end of a connection: its port and its address.
fn end(body: &[u8], port: usize, address: usize) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(body.get(port..port + 2)?.try_into().ok()?);
    let bytes = body.get(address..address + 16)?;
    let address = if i32::from(*body.first()?) == libc::AF_INET {
        IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(&bytes[..4]).ok()?))
    } else {
        IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?))
    };
    Some(SocketAddr::new(address, port))
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn number16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_that_is_cut_off_or_a_refusal_is_an_error() {
        let datagram = |kind: i32, body: &[u8]| {
            let mut bytes = u32::try_from(HEADER + body.len()).unwrap().to_ne_bytes().to_vec();
            bytes.extend(u16::try_from(kind).unwrap().to_ne_bytes());
            bytes.extend([0; 2]);
            bytes.extend(7_u32.to_ne_bytes());
            bytes.extend([0; 4]);
            bytes.extend(body);
            bytes
        };
        let mut found = Vec::new();
        let refused = datagram(libc::NLMSG_ERROR, &(-libc::ENOENT).to_ne_bytes());
        assert_eq!(read(&refused, 7, listener, &mut found).unwrap_err().raw_os_error(), Some(libc::ENOENT));
        assert!(read(&datagram(libc::NLMSG_DONE, &0_i32.to_ne_bytes()), 7, listener, &mut found).unwrap());
        assert!(
            !read(&datagram(libc::NLMSG_DONE, &0_i32.to_ne_bytes()), 8, listener, &mut found).unwrap(),
            "of another"
        );
        for cut in [&refused[..10], &datagram(i32::from(BY_FAMILY), &[2; MESSAGE - 1])] {
            assert!(read(cut, 7, listener, &mut found).is_err());
        }
        assert!(found.is_empty());
        // One that is left in FIN-WAIT-2 has no attributes: it is no connection, and hides no other.
        let waiting =
            [datagram(i32::from(BY_FAMILY), &[2; MESSAGE]), datagram(libc::NLMSG_DONE, &[0; 4])].concat();
        let mut connections = Vec::new();
        assert!(read(&waiting, 7, connection, &mut connections).unwrap());
        assert!(connections.is_empty());
    }
}
