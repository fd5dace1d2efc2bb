//! What the stand-ins say to each other beyond tars_ping: a call whose argument is in the function's name, and an
//! answer of plain bytes.

use std::io::{self, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// The frame that calls `function` of `servant`, as a TARS client would without arguments.
fn call_frame(servant: &str, function: &str) -> Vec<u8> {
    let mut body = vec![0x10, 1, 0x2c, 0x3c, 0x40, 1];
    for (tag, text) in [(5u8, servant), (6, function)] {
        body.push(tag << 4 | 7); // string with a 4-byte length
        body.extend(u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
        body.extend(text.as_bytes());
    }
    body.extend([0x7d, 0x00, 0x0c, 0x8c, 0x98, 0x0c, 0xa8, 0x0c]);
    framed(&body)
}

/// A frame around `body`.
pub fn framed(body: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(body.len() + 4).unwrap_or(u32::MAX).to_be_bytes().to_vec();
    frame.extend(body);
    frame
}

/// Calls `function` of `servant` at `host:port`; the answer's bytes as text.
pub fn call(host: &str, port: u16, servant: &str, function: &str) -> io::Result<String> {
    const PATIENCE: Duration = Duration::from_secs(2);
    let address = (host, port).to_socket_addrs()?.next().ok_or(io::ErrorKind::NotFound)?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&call_frame(servant, function))?;
    let body = tarsup::tars::wire::read_frame(&mut stream, tarsup::tars::wire::LARGEST_FRAME)?;
    String::from_utf8(body).map_err(|_| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn call_is_understood_as_a_tars_request() {
        let frame = call_frame("tars.tarsregistry.RegistryObj", "standin_servers 172.25.0.3");
        let request = tarsup::tars::wire::Request::parse(&frame[4..]).unwrap();
        assert_eq!(request.servant, "tars.tarsregistry.RegistryObj");
        assert_eq!(request.function, "standin_servers 172.25.0.3");
    }
}
