//! tars_ping on the wire: the request, the answer, and a client with a time-out.
//!
//! TCP frames: a 4-byte big-endian length (itself included), then a TARS struct. Heads are one byte, `tag << 4 | type`.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const INT8: u8 = 0;
const INT16: u8 = 1;
const INT32: u8 = 2;
const INT64: u8 = 3;
const FLOAT: u8 = 4;
const DOUBLE: u8 = 5;
const STRING1: u8 = 6;
const STRING4: u8 = 7;
const MAP: u8 = 8;
const LIST: u8 = 9;
const STRUCT_BEGIN: u8 = 10;
const STRUCT_END: u8 = 11;
const ZERO: u8 = 12;
const SIMPLE_LIST: u8 = 13;

/// A larger frame than this is no tars_ping.
const LARGEST_FRAME: usize = 64 * 1024;
/// A struct nested deeper than this is an attack, not an answer.
const DEEPEST: usize = 16;

/// The return code of a servant that is alive.
pub const RET_ALIVE: i64 = 0;
/// The return code of a server that answers, but not for this object.
pub const RET_NO_SERVANT: i64 = -4;

/// Why a ping has no good answer.
#[derive(Debug, thiserror::Error)]
pub enum PingError {
    /// The connection is refused: nothing listens there.
    #[error("nothing listens")]
    NothingListens,
    /// It may accept connections, but does not answer in time: a service that is stuck, or still starting.
    #[error("no answer in time")]
    TimedOut,
    /// Any other trouble of the network, such as a connection that is closed.
    #[error("{0}")]
    Io(io::Error),
    /// Something answered that is not a TARS response.
    #[error("the answer is no TARS response: {0}")]
    Malformed(&'static str),
    /// The server answers, but says no.
    #[error("answered with return code {ret}{}", if *ret == RET_NO_SERVANT { " (no such servant)" } else { "" })]
    Refused {
        /// `iRet`.
        ret: i64,
    },
}

impl From<io::Error> for PingError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::NothingListens,
            // A socket's time-out shows as either, depending on the system.
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Self::TimedOut,
            _ => Self::Io(error),
        }
    }
}

/// What a server reads of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestPacket {
    /// `iRequestId`.
    pub id: i32,
    /// `sServantName`.
    pub servant: String,
    /// `sFuncName`.
    pub function: String,
}

/// The frame of a tars_ping to `servant`; `timeout` goes into the packet as milliseconds.
pub fn request(servant: &str, id: i32, timeout: Duration) -> Vec<u8> {
    let mut body = Vec::with_capacity(64);
    put_int(&mut body, 1, 1); // iVersion
    put_int(&mut body, 2, 0); // cPacketType
    put_int(&mut body, 3, 0); // iMessageType
    put_int(&mut body, 4, i64::from(id));
    put_string(&mut body, 5, servant);
    put_string(&mut body, 6, "tars_ping");
    put_empty_bytes(&mut body, 7);
    put_int(&mut body, 8, i64::try_from(timeout.as_millis()).unwrap_or(i64::from(i32::MAX)));
    put_empty_map(&mut body, 9);
    put_empty_map(&mut body, 10);
    framed(body)
}

/// The frame that answers request `id` with return code `ret`.
pub fn response(id: i32, ret: i8) -> Vec<u8> {
    let mut body = Vec::with_capacity(16);
    put_int(&mut body, 1, 1); // iVersion
    put_int(&mut body, 2, 0); // cPacketType
    put_int(&mut body, 3, i64::from(id));
    put_int(&mut body, 4, 0); // iMessageType
    put_int(&mut body, 5, i64::from(ret));
    put_empty_bytes(&mut body, 6);
    put_empty_map(&mut body, 7);
    framed(body)
}

/// Reads one frame, without its length.
pub fn read_frame(reader: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    reader.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if !(4..=LARGEST_FRAME).contains(&length) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "frame length out of bounds"));
    }
    let mut body = vec![0; length - 4];
    reader.read_exact(&mut body)?;
    Ok(body)
}

/// What the body of a request frame asks.
pub fn parse_request(body: &[u8]) -> Result<RequestPacket, PingError> {
    let mut fields = Fields { bytes: body };
    let (mut id, mut servant, mut function) = (0, None, None);
    while let Some((tag, value)) = fields.next(0)? {
        match (tag, value) {
            (4, TarsValue::Int(value)) => {
                id = i32::try_from(value).map_err(|_| PingError::Malformed("request id"))?;
            }
            (5, TarsValue::Text(text)) => servant = Some(text),
            (6, TarsValue::Text(text)) => function = Some(text),
            _ => {}
        }
    }
    match (servant, function) {
        (Some(servant), Some(function)) => Ok(RequestPacket { id, servant, function }),
        _ => Err(PingError::Malformed("no servant or function name")),
    }
}

/// The return code that the body of a response frame to request `id` carries.
pub fn parse_response(body: &[u8], id: i32) -> Result<i64, PingError> {
    let mut fields = Fields { bytes: body };
    let (mut seen_id, mut ret) = (None, None);
    while let Some((tag, value)) = fields.next(0)? {
        match (tag, value) {
            (3, TarsValue::Int(value)) => seen_id = Some(value),
            (5, TarsValue::Int(value)) => ret = Some(value),
            _ => {}
        }
    }
    if seen_id != Some(i64::from(id)) {
        return Err(PingError::Malformed("it answers another request"));
    }
    ret.ok_or(PingError::Malformed("no return code"))
}

/// The id of a request; each has a connection of its own.
const ID: i32 = 1;

/// Pings `servant` at `address`; `timeout` bounds connect, send and answer together.
pub fn ping(address: SocketAddr, servant: &str, timeout: Duration) -> Result<(), PingError> {
    let deadline = Instant::now() + timeout;
    ask(address, servant, timeout, timeout)?.answer(deadline)
}

/// A ping that was sent.
#[derive(Debug)]
pub struct Asked(TcpStream);

/// Sends a ping, waiting at most `connect` for the connection; many can be under way without a thread for each. `timeout` is
/// what the packet says.
pub fn ask(
    address: SocketAddr,
    servant: &str,
    connect: Duration,
    timeout: Duration,
) -> Result<Asked, PingError> {
    let mut stream = TcpStream::connect_timeout(&address, connect)?;
    // A connection that has just been made takes that much without waiting.
    stream.write_all(&request(servant, ID, timeout))?;
    Ok(Asked(stream))
}

impl Asked {
    /// Waits for the answer until `deadline`.
    pub fn answer(mut self, deadline: Instant) -> Result<(), PingError> {
        // One that has come in time is read, however late that is.
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        self.0.set_read_timeout(Some(left))?;
        match parse_response(&read_frame(&mut self.0)?, ID)? {
            RET_ALIVE => Ok(()),
            ret => Err(PingError::Refused { ret }),
        }
    }
}

fn framed(body: Vec<u8>) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    let mut frame = length.to_be_bytes().to_vec();
    frame.extend(body);
    frame
}

fn put_head(out: &mut Vec<u8>, tag: u8, kind: u8) {
    out.push(tag << 4 | kind);
}

/// Integers take the smallest type that holds them, as every TARS encoder does.
fn put_int(out: &mut Vec<u8>, tag: u8, value: i64) {
    if value == 0 {
        put_head(out, tag, ZERO);
    } else if let Ok(value) = i8::try_from(value) {
        put_head(out, tag, INT8);
        out.extend(value.to_be_bytes());
    } else if let Ok(value) = i16::try_from(value) {
        put_head(out, tag, INT16);
        out.extend(value.to_be_bytes());
    } else if let Ok(value) = i32::try_from(value) {
        put_head(out, tag, INT32);
        out.extend(value.to_be_bytes());
    } else {
        put_head(out, tag, INT64);
        out.extend(value.to_be_bytes());
    }
}

fn put_string(out: &mut Vec<u8>, tag: u8, text: &str) {
    if let Ok(length) = u8::try_from(text.len()) {
        put_head(out, tag, STRING1);
        out.push(length);
    } else {
        put_head(out, tag, STRING4);
        out.extend(u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
    }
    out.extend(text.as_bytes());
}

fn put_empty_bytes(out: &mut Vec<u8>, tag: u8) {
    put_head(out, tag, SIMPLE_LIST);
    put_head(out, 0, INT8);
    put_int(out, 0, 0);
}

fn put_empty_map(out: &mut Vec<u8>, tag: u8) {
    put_head(out, tag, MAP);
    put_int(out, 0, 0);
}

enum TarsValue {
    Int(i64),
    Text(String),
    Other,
}

/// The fields of one struct; what tars_ping does not need is skipped, whatever its type.
struct Fields<'a> {
    bytes: &'a [u8],
}

impl Fields<'_> {
    fn next(&mut self, depth: usize) -> Result<Option<(u8, TarsValue)>, PingError> {
        if self.bytes.is_empty() {
            return Ok(None);
        }
        let (tag, kind) = self.head()?;
        Ok(Some((tag, self.value(kind, depth)?)))
    }

    fn head(&mut self) -> Result<(u8, u8), PingError> {
        let byte = self.take(1)?[0];
        let tag = byte >> 4;
        let tag = if tag == 15 { self.take(1)?[0] } else { tag };
        Ok((tag, byte & 15))
    }

    fn value(&mut self, kind: u8, depth: usize) -> Result<TarsValue, PingError> {
        if depth > DEEPEST {
            return Err(PingError::Malformed("nested too deep"));
        }
        Ok(match kind {
            ZERO => TarsValue::Int(0),
            INT8 => TarsValue::Int(self.big_endian(1)?),
            INT16 => TarsValue::Int(self.big_endian(2)?),
            INT32 => TarsValue::Int(self.big_endian(4)?),
            INT64 => TarsValue::Int(self.big_endian(8)?),
            FLOAT => self.skip(4)?,
            DOUBLE => self.skip(8)?,
            STRING1 => {
                let length = usize::from(self.take(1)?[0]);
                self.text(length)?
            }
            STRING4 => {
                let length = self.big_endian(4)?;
                self.text(usize::try_from(length).map_err(|_| PingError::Malformed("string length"))?)?
            }
            MAP => self.items(2, depth)?,
            LIST => self.items(1, depth)?,
            SIMPLE_LIST => {
                self.head()?;
                let length = self.length(depth)?;
                self.skip(length)?
            }
            STRUCT_BEGIN => loop {
                let (_, kind) = self.head()?;
                if kind == STRUCT_END {
                    break TarsValue::Other;
                }
                self.value(kind, depth + 1)?;
            },
            STRUCT_END => TarsValue::Other,
            _ => return Err(PingError::Malformed("unknown type")),
        })
    }

    fn items(&mut self, values_each: usize, depth: usize) -> Result<TarsValue, PingError> {
        for _ in 0..self.length(depth)?.saturating_mul(values_each) {
            let (_, kind) = self.head()?;
            self.value(kind, depth + 1)?;
        }
        Ok(TarsValue::Other)
    }

    fn length(&mut self, depth: usize) -> Result<usize, PingError> {
        let (_, kind) = self.head()?;
        match self.value(kind, depth + 1)? {
            TarsValue::Int(length) => {
                usize::try_from(length).map_err(|_| PingError::Malformed("negative length"))
            }
            _ => Err(PingError::Malformed("a length that is no number")),
        }
    }

    fn text(&mut self, length: usize) -> Result<TarsValue, PingError> {
        Ok(TarsValue::Text(String::from_utf8_lossy(self.take(length)?).into_owned()))
    }

    fn skip(&mut self, length: usize) -> Result<TarsValue, PingError> {
        self.take(length)?;
        Ok(TarsValue::Other)
    }

    fn big_endian(&mut self, width: usize) -> Result<i64, PingError> {
        let bytes = self.take(width)?;
        let negative = bytes[0] & 0x80 != 0;
        Ok(bytes.iter().fold(if negative { -1 } else { 0 }, |sum, byte| sum << 8 | i64::from(*byte)))
    }

    fn take(&mut self, length: usize) -> Result<&[u8], PingError> {
        let (taken, rest) = self.bytes.split_at_checked(length).ok_or(PingError::Malformed("cut off"))?;
        self.bytes = rest;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Seen on the real services, byte for byte.
    const PING: &str = "0000003b10012c3c4001561a746172732e7461727372656769737472792e51756572794f626a6609746172735f70696e677d000c8103e8980ca80c";
    const ALIVE: &str = "0000001010012c30014c5c6d000c780c";
    const NO_SERVANT: &str = "0000001110012c30014c50fc6d000c780c";

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn request_is_the_frame_of_a_real_client() {
        assert_eq!(request("tars.tarsregistry.QueryObj", 1, Duration::from_secs(1)), bytes(PING));
    }

    #[test]
    fn response_is_the_frame_of_a_real_service() {
        assert_eq!(response(1, 0), bytes(ALIVE));
        assert_eq!(response(1, -4), bytes(NO_SERVANT));
    }

    #[test]
    fn frames_of_real_services_are_understood() {
        assert_eq!(parse_response(&bytes(ALIVE)[4..], 1).unwrap(), RET_ALIVE);
        assert_eq!(parse_response(&bytes(NO_SERVANT)[4..], 1).unwrap(), RET_NO_SERVANT);
        let request = parse_request(&bytes(PING)[4..]).unwrap();
        assert_eq!(
            (request.id, request.servant.as_str(), request.function.as_str()),
            (1, "tars.tarsregistry.QueryObj", "tars_ping")
        );
    }

    #[test]
    fn response_to_another_request_is_no_answer() {
        assert!(matches!(parse_response(&bytes(ALIVE)[4..], 2), Err(PingError::Malformed(_))));
    }

    #[test]
    fn cut_frames_are_errors_at_every_length() {
        let whole = bytes(PING);
        for length in 4..whole.len() {
            let _ = parse_request(&whole[4..length]); // no panic
        }
        assert!(parse_request(&whole[4..20]).is_err());
    }
}
