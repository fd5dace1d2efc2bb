//! TARS on the wire: frames, the encoding of structs, and one call with its answer. The library that TarsCpp generates does the same.
//!
//! TCP frames: a 4-byte big-endian length (itself included), then a TARS struct. Heads are one byte, `tag << 4 | type`, and a
//! second one for tags from 15 on.

use std::borrow::Cow;
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

/// Bytes of the largest frame that is read: what a registry says of a node has 2 KB for each server there.
pub const LARGEST_FRAME: usize = 4 * 1024 * 1024;
/// A struct nested deeper than this is an attack, not an answer.
const DEEPEST: usize = 16;
/// Values of one frame: each is some bytes of memory, and may be one byte on the wire.
const MOST_VALUES: usize = 200_000;

/// The return code of a servant that is alive.
pub const RET_ALIVE: i64 = 0;
/// The return code of a server that answers, but not for this object.
pub const RET_NO_SERVANT: i64 = -4;

/// Why a call has no good answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
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

impl From<io::Error> for CallError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::NothingListens,
            // A socket's time-out shows as either, depending on the system.
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Self::TimedOut,
            _ => Self::Io(error),
        }
    }
}

/// A request, as a client sends it and a server reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// `iRequestId`.
    pub id: i32,
    /// `sServantName`.
    pub servant: String,
    /// `sFuncName`.
    pub function: String,
    /// `sBuffer`: the encoded arguments.
    pub arguments: Vec<u8>,
}

impl Request {
    /// Its frame; `timeout` goes into the packet as milliseconds.
    pub fn frame(&self, timeout: Duration) -> Vec<u8> {
        let mut body = Struct::default();
        body.int(1, 1); // iVersion
        body.int(2, 0); // cPacketType
        body.int(3, 0); // iMessageType
        body.int(4, i64::from(self.id));
        body.text(5, &self.servant);
        body.text(6, &self.function);
        body.bytes(7, &self.arguments);
        body.int(8, i64::try_from(timeout.as_millis()).unwrap_or(i64::from(i32::MAX)));
        body.empty_map(9); // context
        body.empty_map(10); // status
        framed(&body.0)
    }

    /// Reads the body of a frame.
    pub fn parse(body: &[u8]) -> Result<Self, CallError> {
        let fields = Fields::parse(body)?;
        let id = i32::try_from(fields.int(4).unwrap_or(0)).map_err(|_| CallError::Malformed("request id"))?;
        match (fields.text(5), fields.text(6)) {
            (Some(servant), Some(function)) => Ok(Self {
                id,
                servant: servant.into_owned(),
                function: function.into_owned(),
                arguments: fields.bytes(7).unwrap_or_default().to_vec(),
            }),
            _ => Err(CallError::Malformed("no servant or function name")),
        }
    }
}

/// The frame that answers request `id` with return code `ret` and these encoded results.
pub fn response(id: i32, ret: i8, results: &[u8]) -> Vec<u8> {
    let mut body = Struct::default();
    body.int(1, 1); // iVersion
    body.int(2, 0); // cPacketType
    body.int(3, i64::from(id));
    body.int(4, 0); // iMessageType
    body.int(5, i64::from(ret));
    body.bytes(6, results);
    body.empty_map(7); // status
    framed(&body.0)
}

/// The encoded results in the body of a response frame to request `id`.
pub fn results(body: &[u8], id: i32) -> Result<Vec<u8>, CallError> {
    let fields = Fields::parse(body)?;
    if fields.int(3) != Some(i64::from(id)) {
        return Err(CallError::Malformed("it answers another request"));
    }
    match fields.int(5) {
        Some(RET_ALIVE) => Ok(fields.bytes(6).unwrap_or_default().to_vec()),
        Some(ret) => Err(CallError::Refused { ret }),
        None => Err(CallError::Malformed("no return code")),
    }
}

/// Reads one frame of at most `largest` bytes, without its length.
pub fn read_frame(reader: &mut impl Read, largest: usize) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    reader.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if !(4..=largest).contains(&length) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "frame length out of bounds"));
    }
    let mut body = vec![0; length - 4];
    reader.read_exact(&mut body)?;
    Ok(body)
}

/// The id of a request; each has a connection of its own.
const ID: i32 = 1;

/// A request that was sent, and not answered yet.
#[derive(Debug)]
pub struct Sent(TcpStream);

impl Sent {
    /// Sends a request, waiting at most `connect` for the connection; many can be under way without a thread for each.
    /// `timeout` is what the packet says.
    pub fn send(
        address: SocketAddr,
        (servant, function): (&str, &str),
        arguments: Vec<u8>,
        connect: Duration,
        timeout: Duration,
    ) -> Result<Self, CallError> {
        let mut stream = TcpStream::connect_timeout(&address, connect)?;
        let request =
            Request { id: ID, servant: servant.to_owned(), function: function.to_owned(), arguments };
        // A connection that has just been made takes that much without waiting.
        stream.write_all(&request.frame(timeout))?;
        Ok(Self(stream))
    }

    /// Waits for the results until `deadline`: for all of the answer, however slowly it drips.
    pub fn results(self, deadline: Instant) -> Result<Vec<u8>, CallError> {
        let body = read_frame(&mut Until { stream: self.0, deadline }, LARGEST_FRAME)?;
        results(&body, ID)
    }
}

/// Calls `function` of `servant`; `timeout` bounds connect, send and the whole answer together.
pub fn call(
    address: SocketAddr,
    named: (&str, &str),
    arguments: Vec<u8>,
    timeout: Duration,
) -> Result<Vec<u8>, CallError> {
    let deadline = Instant::now() + timeout;
    Sent::send(address, named, arguments, timeout, timeout)?.results(deadline)
}

/// A connection that is read until a moment, not for so long at each read.
struct Until {
    stream: TcpStream,
    deadline: Instant,
}

impl Read for Until {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // One that has come in time is read, however late that is.
        let left = self.deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        self.stream.set_read_timeout(Some(left))?;
        self.stream.read(buffer)
    }
}

fn framed(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    let mut frame = length.to_be_bytes().to_vec();
    frame.extend(body);
    frame
}

/// A struct that is encoded: its fields, written in the order of their tags.
#[derive(Debug, Default)]
pub struct Struct(Vec<u8>);

impl Struct {
    /// The encoded fields.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn head(&mut self, tag: u8, kind: u8) {
        if tag < 15 {
            self.0.push(tag << 4 | kind);
        } else {
            self.0.extend([15 << 4 | kind, tag]);
        }
    }

    /// Integers take the smallest type that holds them, as every TARS encoder does.
    pub fn int(&mut self, tag: u8, value: i64) {
        if value == 0 {
            self.head(tag, ZERO);
        } else if let Ok(value) = i8::try_from(value) {
            self.head(tag, INT8);
            self.0.extend(value.to_be_bytes());
        } else if let Ok(value) = i16::try_from(value) {
            self.head(tag, INT16);
            self.0.extend(value.to_be_bytes());
        } else if let Ok(value) = i32::try_from(value) {
            self.head(tag, INT32);
            self.0.extend(value.to_be_bytes());
        } else {
            self.head(tag, INT64);
            self.0.extend(value.to_be_bytes());
        }
    }

    /// A string.
    pub fn text(&mut self, tag: u8, text: &str) {
        if let Ok(length) = u8::try_from(text.len()) {
            self.head(tag, STRING1);
            self.0.push(length);
        } else {
            self.head(tag, STRING4);
            self.0.extend(u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
        }
        self.0.extend(text.as_bytes());
    }

    /// A vector of bytes.
    pub fn bytes(&mut self, tag: u8, bytes: &[u8]) {
        self.head(tag, SIMPLE_LIST);
        self.head(0, INT8);
        self.length(bytes.len());
        self.0.extend(bytes);
    }

    /// A map without entries.
    pub fn empty_map(&mut self, tag: u8) {
        self.head(tag, MAP);
        self.length(0);
    }

    /// A list of structs.
    pub fn structs(&mut self, tag: u8, items: Vec<Self>) {
        self.head(tag, LIST);
        self.length(items.len());
        for item in items {
            self.structure(0, item);
        }
    }

    /// A map from strings to structs.
    pub fn named_structs(&mut self, tag: u8, items: Vec<(String, Self)>) {
        self.head(tag, MAP);
        self.length(items.len());
        for (name, item) in items {
            self.text(0, &name);
            self.structure(1, item);
        }
    }

    fn structure(&mut self, tag: u8, item: Self) {
        self.head(tag, STRUCT_BEGIN);
        self.0.extend(item.0);
        self.head(0, STRUCT_END);
    }

    fn length(&mut self, length: usize) {
        self.int(0, i64::try_from(length).unwrap_or(i64::MAX));
    }
}

/// A value that was read. Texts are the bytes of the frame: old databases hold GBK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Any integer.
    Int(i64),
    /// A string.
    Text(&'a [u8]),
    /// A vector of bytes.
    Bytes(&'a [u8]),
    /// A list.
    List(Vec<Value<'a>>),
    /// A map, in the order of the frame.
    Map(Vec<(Value<'a>, Value<'a>)>),
    /// A struct.
    Struct(Fields<'a>),
    /// A number with a fraction: nothing that is read here has one.
    Float,
}

/// The fields of a struct by their tags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields<'a>(Vec<(u8, Value<'a>)>);

impl<'a> Fields<'a> {
    /// Reads what [`Struct`] wrote.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, CallError> {
        let mut reader = Reader { bytes, values: 0 };
        let mut fields = Vec::new();
        while !reader.bytes.is_empty() {
            let (tag, kind) = reader.head()?;
            fields.push((tag, reader.value(kind, 0)?));
        }
        Ok(Self(fields))
    }

    /// The field with this tag.
    pub fn get(&self, tag: u8) -> Option<&Value<'a>> {
        self.0.iter().find(|(found, _)| *found == tag).map(|(_, value)| value)
    }

    /// An integer.
    pub fn int(&self, tag: u8) -> Option<i64> {
        if let Some(Value::Int(value)) = self.get(tag) { Some(*value) } else { None }
    }

    /// A string; what is not UTF-8 is replaced.
    pub fn text(&self, tag: u8) -> Option<Cow<'a, str>> {
        if let Some(Value::Text(text)) = self.get(tag) { Some(String::from_utf8_lossy(text)) } else { None }
    }

    /// A vector of bytes.
    pub fn bytes(&self, tag: u8) -> Option<&'a [u8]> {
        if let Some(Value::Bytes(bytes)) = self.get(tag) { Some(bytes) } else { None }
    }

    /// The structs of a list; none where there is no such list.
    pub fn structs(&self, tag: u8) -> impl Iterator<Item = &Self> {
        let items = if let Some(Value::List(items)) = self.get(tag) { items.as_slice() } else { &[] };
        items.iter().filter_map(|item| if let Value::Struct(fields) = item { Some(fields) } else { None })
    }

    /// The structs of a map; none where there is no such map.
    pub fn map_structs(&self, tag: u8) -> impl Iterator<Item = &Self> {
        let items = if let Some(Value::Map(items)) = self.get(tag) { items.as_slice() } else { &[] };
        items
            .iter()
            .filter_map(|(_, item)| if let Value::Struct(fields) = item { Some(fields) } else { None })
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    values: usize,
}

impl<'a> Reader<'a> {
    fn head(&mut self) -> Result<(u8, u8), CallError> {
        let byte = self.take(1)?[0];
        let tag = byte >> 4;
        let tag = if tag == 15 { self.take(1)?[0] } else { tag };
        Ok((tag, byte & 15))
    }

    fn value(&mut self, kind: u8, depth: usize) -> Result<Value<'a>, CallError> {
        self.values += 1;
        if depth > DEEPEST || self.values > MOST_VALUES {
            return Err(CallError::Malformed("nested too deep, or too many values"));
        }
        Ok(match kind {
            ZERO => Value::Int(0),
            INT8 => Value::Int(self.big_endian(1)?),
            INT16 => Value::Int(self.big_endian(2)?),
            INT32 => Value::Int(self.big_endian(4)?),
            INT64 => Value::Int(self.big_endian(8)?),
            FLOAT => self.take(4).map(|_| Value::Float)?,
            DOUBLE => self.take(8).map(|_| Value::Float)?,
            STRING1 => {
                let length = usize::from(self.take(1)?[0]);
                Value::Text(self.take(length)?)
            }
            STRING4 => {
                let length = usize::try_from(self.big_endian(4)?);
                Value::Text(self.take(length.map_err(|_| CallError::Malformed("string length"))?)?)
            }
            MAP => {
                let mut items = Vec::new();
                for _ in 0..self.length(depth)? {
                    items.push((self.item(depth)?, self.item(depth)?));
                }
                Value::Map(items)
            }
            LIST => {
                let mut items = Vec::new();
                for _ in 0..self.length(depth)? {
                    items.push(self.item(depth)?);
                }
                Value::List(items)
            }
            SIMPLE_LIST => {
                self.head()?;
                let length = self.length(depth)?;
                Value::Bytes(self.take(length)?)
            }
            STRUCT_BEGIN => {
                let mut fields = Vec::new();
                loop {
                    let (tag, kind) = self.head()?;
                    if kind == STRUCT_END {
                        break Value::Struct(Fields(fields));
                    }
                    fields.push((tag, self.value(kind, depth + 1)?));
                }
            }
            _ => return Err(CallError::Malformed("unknown type")),
        })
    }

    fn item(&mut self, depth: usize) -> Result<Value<'a>, CallError> {
        let (_, kind) = self.head()?;
        self.value(kind, depth + 1)
    }

    fn length(&mut self, depth: usize) -> Result<usize, CallError> {
        match self.item(depth)? {
            Value::Int(length) => {
                usize::try_from(length).map_err(|_| CallError::Malformed("negative length"))
            }
            _ => Err(CallError::Malformed("a length that is no number")),
        }
    }

    fn big_endian(&mut self, width: usize) -> Result<i64, CallError> {
        let bytes = self.take(width)?;
        let negative = bytes[0] & 0x80 != 0;
        Ok(bytes.iter().fold(if negative { -1 } else { 0 }, |sum, byte| sum << 8 | i64::from(*byte)))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], CallError> {
        let (taken, rest) = self.bytes.split_at_checked(length).ok_or(CallError::Malformed("cut off"))?;
        self.bytes = rest;
        Ok(taken)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    // Seen on the real services, byte for byte.
    const PING: &str = "0000003b10012c3c4001561a746172732e7461727372656769737472792e51756572794f626a6609746172735f70696e677d000c8103e8980ca80c";
    const ALIVE: &str = "0000001010012c30014c5c6d000c780c";
    const NO_SERVANT: &str = "0000001110012c30014c50fc6d000c780c";

    pub fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    fn ping() -> Request {
        Request {
            id: 1,
            servant: "tars.tarsregistry.QueryObj".to_owned(),
            function: "tars_ping".to_owned(),
            arguments: Vec::new(),
        }
    }

    #[test]
    fn request_is_the_frame_of_a_real_client() {
        assert_eq!(ping().frame(Duration::from_secs(1)), bytes(PING));
        assert_eq!(Request::parse(&bytes(PING)[4..]).unwrap(), ping());
    }

    #[test]
    fn response_is_the_frame_of_a_real_service() {
        assert_eq!(response(1, 0, &[]), bytes(ALIVE));
        assert_eq!(response(1, -4, &[]), bytes(NO_SERVANT));
        assert_eq!(results(&bytes(ALIVE)[4..], 1).unwrap(), Vec::<u8>::new());
        let refused = results(&bytes(NO_SERVANT)[4..], 1);
        assert!(matches!(refused, Err(CallError::Refused { ret: RET_NO_SERVANT })));
    }

    #[test]
    fn response_to_another_request_is_no_answer() {
        assert!(matches!(results(&bytes(ALIVE)[4..], 2), Err(CallError::Malformed(_))));
    }

    #[test]
    fn cut_frames_are_errors_at_every_length() {
        let whole = bytes(PING);
        for length in 4..whole.len() {
            let _ = Request::parse(&whole[4..length]); // no panic
        }
        assert!(Request::parse(&whole[4..20]).is_err());
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut inner = Struct::default();
        inner.text(0, "a");
        inner.int(20, -70_000);
        let mut named = Struct::default();
        named.int(0, 1 << 40);
        let mut whole = Struct::default();
        whole.structs(3, vec![inner]);
        whole.named_structs(4, vec![("key".to_owned(), named)]);
        whole.text(200, &"long".repeat(100));
        let bytes = whole.into_bytes();
        let fields = Fields::parse(&bytes).unwrap();
        let inner = fields.structs(3).next().unwrap();
        assert_eq!((inner.text(0).unwrap().as_ref(), inner.int(20)), ("a", Some(-70_000)));
        assert_eq!(fields.map_structs(4).next().unwrap().int(0), Some(1 << 40));
        assert_eq!(fields.text(200).unwrap().len(), 400);
        assert_eq!(fields.structs(4).count() + fields.map_structs(3).count(), 0, "of another type");
    }

    #[test]
    fn lengths_that_lie_are_errors() {
        // A list of 2^31 - 1 items, each of no more than a head; a list in a list in a list.
        let mut zeros = vec![LIST, INT32, 0x7f, 0xff, 0xff, 0xff];
        zeros.extend(vec![ZERO; 1_000_000]);
        assert!(Fields::parse(&zeros).is_err());
        assert!(Fields::parse(&[LIST, INT8, 1].repeat(100)).is_err());
        assert!(Fields::parse(&[LIST, INT8, 0xff]).is_err(), "negative");
        assert!(Fields::parse(&[STRUCT_END]).is_err(), "without a beginning");
    }

    #[test]
    fn an_answer_that_drips_has_an_end() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            for byte in bytes(ALIVE) {
                std::thread::sleep(Duration::from_millis(50));
                if stream.write_all(&[byte]).is_err() {
                    return;
                }
            }
        });
        let answer = call(address, ("a", "tars_ping"), Vec::new(), Duration::from_millis(200));
        assert!(matches!(answer, Err(CallError::TimedOut)), "{answer:?}");
    }
}
