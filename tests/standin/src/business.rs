//! A business service: what the framework is for. It listens where its configuration says, answers every call, and stops when told.

use std::net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use tarsup::tars::wire::{self, Request};

use crate::Failure;
use crate::config::{Adapter, Config};

/// How long a real one needs until it listens, and until it has stopped.
const START: Duration = Duration::from_millis(100);
const STOP: Duration = Duration::from_millis(100);

/// Plays one until it is told to stop.
pub fn play(config: &str) -> Result<(), Failure> {
    let config = Config::read(Path::new(config))?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    thread::sleep(START);
    for adapter in config.adapters()? {
        let places: Vec<_> = (adapter.host.as_str(), adapter.port).to_socket_addrs()?.collect();
        if adapter.is_udp {
            let socket = UdpSocket::bind(&places[..])?;
            thread::spawn(move || while socket.recv(&mut [0; 64]).is_ok() {});
            continue;
        }
        let listener = TcpListener::bind(&places[..])?;
        let Adapter { servant, allow_ip, .. } = adapter;
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // As the real ones do it: closed at once.
                let peer = stream.peer_addr().map(|peer| peer.ip().to_string()).unwrap_or_default();
                if !allow_ip.is_empty() && !allow_ip.contains(&peer) {
                    continue;
                }
                let servant = servant.clone();
                thread::spawn(move || converse(stream, &servant));
            }
        });
    }
    println!("[Done]");
    while !stop.load(Ordering::SeqCst) {
        thread::sleep(Duration::from_millis(20));
    }
    thread::sleep(STOP);
    Ok(())
}

/// Answers whatever is called.
fn converse(mut stream: TcpStream, servant: &str) {
    use std::io::Write as _;
    while let Ok(body) = wire::read_frame(&mut stream, wire::LARGEST_FRAME) {
        let Ok(request) = Request::parse(&body) else { return };
        let ret = if request.servant == servant { 0 } else { -4 };
        if stream.write_all(&wire::response(request.id, ret, &[])).is_err() {
            return;
        }
    }
}
