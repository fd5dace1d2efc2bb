//! A client: calls an object all the time, where registries say that it is served, and counts what is lost.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use tarsup::tars::registry;
use tarsup::tars::wire::{self, CallError, Request};

use crate::Failure;
use crate::config::endpoint;

/// How long an answer may take, and a connection.
const PATIENCE: Duration = Duration::from_millis(1500);
const USAGE: &str = "usage: calls OBJECT LOCATOR --every MS --refresh S [--anew]; it ends with SIGTERM";
/// How many failures are told one by one.
const TOLD: usize = 8;

/// Where it is served, as far as the client knows.
type Known = Arc<Mutex<Vec<SocketAddr>>>;

/// What one client does.
struct Client {
    object: String,
    /// A connection for each call, as some clients have it.
    connects_anew: bool,
    known: Known,
    open: BTreeMap<SocketAddr, TcpStream>,
    calls: u32,
}

/// `calls OBJECT LOCATOR --every MS --refresh S [--anew]`: one line of JSON on stdout when it is told to stop.
pub fn run(arguments: &[String]) -> Result<(), Failure> {
    let [object, locator, options @ ..] = arguments else { return Err(USAGE.into()) };
    let after = |name: &str| options.iter().position(|word| word == name).and_then(|at| options.get(at + 1));
    let every = Duration::from_millis(after("--every").ok_or(USAGE)?.parse()?);
    let refresh = Duration::from_secs(after("--refresh").ok_or(USAGE)?.parse()?);
    let registries: Vec<(String, u16)> =
        locator.split("tcp ").filter_map(|part| endpoint(part).ok()).collect();
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let known = Known::default();
    let (own, asked) = (Arc::clone(&known), object.clone());
    // As real clients do it, beside their calls.
    thread::spawn(move || {
        loop {
            let found = ask(&registries, &asked);
            let is_known = !found.is_empty();
            if is_known {
                *locked(&own) = found;
            }
            thread::sleep(if is_known { refresh } else { Duration::from_millis(200) });
        }
    });
    let connects_anew = options.iter().any(|word| word == "--anew");
    let mut client = Client { object: object.clone(), connects_anew, known, open: BTreeMap::new(), calls: 0 };
    while !stop.load(Ordering::SeqCst) && locked(&client.known).is_empty() {
        thread::sleep(Duration::from_millis(20));
    }
    let begun = Instant::now();
    let (mut due, mut failures) = (begun, Vec::new());
    while !stop.load(Ordering::SeqCst) {
        if let Err(why) = client.call() {
            let at = begun.elapsed().as_millis();
            failures.push(format!("at {at} ms: {why}").replace(['"', '\\'], "'"));
        }
        due = (due + every).max(Instant::now());
        while Instant::now() < due && !stop.load(Ordering::SeqCst) {
            thread::sleep(due.saturating_duration_since(Instant::now()).min(Duration::from_millis(20)));
        }
    }
    let failed = failures.len();
    failures.truncate(TOLD);
    let told: Vec<String> = failures.iter().map(|failure| format!("\"{failure}\"")).collect();
    println!("{{\"calls\":{},\"failed\":{failed},\"failures\":[{}]}}", client.calls, told.join(","));
    Ok(())
}

/// What the first registry says that answers; nothing where none does: then the old list stays, as with real clients.
fn ask(registries: &[(String, u16)], object: &str) -> Vec<SocketAddr> {
    let of = |host: &str, port: u16| (host, port).to_socket_addrs().ok()?.next();
    let answers = registries
        .iter()
        .filter_map(|(host, port)| registry::endpoints(of(host, *port)?, object, PATIENCE).ok());
    let mut found = answers.map(|endpoints| {
        let active = endpoints.active.iter().filter_map(|endpoint| of(&endpoint.host, endpoint.port));
        active.collect::<Vec<_>>()
    });
    found.next().unwrap_or_default()
}

fn locked(known: &Known) -> MutexGuard<'_, Vec<SocketAddr>> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Client {
    /// The next one in turn.
    fn call(&mut self) -> Result<(), String> {
        self.calls += 1;
        let known = locked(&self.known).clone();
        self.open.retain(|address, _| known.contains(address));
        let at = known[self.calls as usize % known.len()];
        let done = if self.connects_anew {
            connect(at).and_then(|mut stream| self.call_over(&mut stream))
        } else {
            self.call_again(at)
        };
        done.map_err(|error| format!("{at}: {error}"))
    }

    /// Over the connection of before, where the other end has not closed it.
    fn call_again(&mut self, at: SocketAddr) -> Result<(), CallError> {
        let mut stream = match self.open.remove(&at).filter(is_open) {
            Some(stream) => stream,
            None => connect(at)?,
        };
        self.call_over(&mut stream)?;
        self.open.insert(at, stream);
        Ok(())
    }

    fn call_over(&self, stream: &mut TcpStream) -> Result<(), CallError> {
        let id = i32::try_from(self.calls % 1_000_000).unwrap_or_default();
        let (servant, function) = (self.object.clone(), "hello".to_owned());
        let request = Request { id, servant, function, arguments: Vec::new() };
        stream.write_all(&request.frame(PATIENCE))?;
        let body = wire::read_frame(stream, wire::LARGEST_FRAME)?;
        wire::results(&body, id).map(drop)
    }
}

fn connect(at: SocketAddr) -> Result<TcpStream, CallError> {
    let stream = TcpStream::connect_timeout(&at, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A client that waits for its answers on many connections notices at once that one was closed.
fn is_open(stream: &TcpStream) -> bool {
    let mut byte = [0];
    let looked = stream.set_nonblocking(true).and_then(|()| stream.peek(&mut byte));
    let _ = stream.set_nonblocking(false);
    matches!(looked, Err(error) if error.kind() == ErrorKind::WouldBlock)
}
