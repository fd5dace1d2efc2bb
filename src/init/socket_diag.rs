//! The kernel's own answer to "who listens?" (`sock_diag(7)`): it walks the listeners alone, where `/proc/net/tcp` walks the
//! table of all connections of the host, which costs milliseconds on a machine with a large one.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

/// `SOCK_DIAG_BY_FAMILY` of `linux/sock_diag.h`.
const BY_FAMILY: u16 = 20;
/// `TCP_LISTEN`, as a set of states.
const LISTENING: u32 = 1 << 10;
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

/// Every listening TCP socket of this network namespace; an error where the kernel does not answer this way (no
/// `inet_diag`, a seccomp profile without netlink).
pub fn listeners() -> io::Result<Vec<Listening>> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Netlink, SockType::Datagram, flags, SockProtocol::NetlinkSockDiag)?;
    // The kernel answers at once; what only pretends to be one must not hang a health check.
    nix::sys::socket::setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(1))?;
    let mut found = Vec::new();
    let mut buffer = vec![0; DATAGRAM];
    for (sequence, family) in [(1, libc::AF_INET), (2, libc::AF_INET6)] {
        let request = request(family, sequence);
        sendto(socket.as_raw_fd(), &request, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        loop {
            let length = match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Err(Errno::EINTR) => continue,
                length => length?,
            };
            if read(&buffer[..length], sequence, &mut found)? {
                break;
            }
        }
    }
    Ok(found)
}

/// One question for all listeners of a family.
fn request(family: i32, sequence: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + REQUEST);
    let length = u32::try_from(HEADER + REQUEST).unwrap_or_default();
    bytes.extend(length.to_ne_bytes());
    bytes.extend(BY_FAMILY.to_ne_bytes());
    let flags = u16::try_from(libc::NLM_F_REQUEST | libc::NLM_F_DUMP).unwrap_or_default();
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    let byte = |number: i32| u8::try_from(number).unwrap_or_default();
    bytes.extend([byte(family), byte(libc::IPPROTO_TCP), 0, 0]);
    bytes.extend(LISTENING.to_ne_bytes());
    bytes.resize(HEADER + REQUEST, 0);
    bytes
}

/// Takes the listeners out of one datagram; true where it was the last.
fn read(mut datagram: &[u8], sequence: u32, found: &mut Vec<Listening>) -> io::Result<bool> {
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
            return Err(io::Error::other("what listens changed while the kernel told it"));
        }
        match i32::from(kind) {
            libc::NLMSG_DONE | libc::NLMSG_ERROR => {
                return match number(body, 0).map(u32::cast_signed) {
                    None | Some(0) => Ok(true),
                    Some(error) => Err(io::Error::from_raw_os_error(error.wrapping_neg())),
                };
            }
            kind if kind == i32::from(BY_FAMILY) => found.push(listener(body).ok_or_else(cut)?),
            _ => {}
        }
    }
    Ok(false)
}

/// `struct inet_diag_msg`: family, state, timer, retrans; ports and addresses in network order; ... and last the inode.
fn listener(body: &[u8]) -> Option<Listening> {
    let body = body.get(..MESSAGE)?;
    let port = u16::from_be_bytes(body[4..6].try_into().ok()?);
    let address = if i32::from(body[0]) == libc::AF_INET {
        IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(&body[8..12]).ok()?))
    } else {
        IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(&body[8..24]).ok()?))
    };
    Some((SocketAddr::new(address, port), u64::from(number(body, 68)?)))
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
        assert_eq!(read(&refused, 7, &mut found).unwrap_err().raw_os_error(), Some(libc::ENOENT));
        assert!(read(&datagram(libc::NLMSG_DONE, &0_i32.to_ne_bytes()), 7, &mut found).unwrap());
        assert!(
            !read(&datagram(libc::NLMSG_DONE, &0_i32.to_ne_bytes()), 8, &mut found).unwrap(),
            "of another"
        );
        for cut in [&refused[..10], &datagram(i32::from(BY_FAMILY), &[2; MESSAGE - 1])] {
            assert!(read(cut, 7, &mut found).is_err());
        }
        assert!(found.is_empty());
    }
}
