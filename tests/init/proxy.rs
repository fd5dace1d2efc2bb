//! A connection between tars-init and the database that breaks when a certain word passes.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

pub struct Proxy {
    pub port: u16,
    cuts: Arc<AtomicU32>,
}

impl Proxy {
    /// Cuts the connection when the client sends `word`, the first `times` times.
    pub fn cutting(to: u16, word: &'static str, times: u32) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let cuts = Arc::new(AtomicU32::new(0));
        let shared = Arc::clone(&cuts);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else { continue };
                let (mut back, mut out) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                thread::spawn(move || std::io::copy(&mut back, &mut out));
                let cuts = Arc::clone(&shared);
                thread::spawn(move || forward(client, server, word, times, &cuts));
            }
        });
        Self { port, cuts }
    }

    pub fn cuts(&self) -> u32 {
        self.cuts.load(Ordering::SeqCst)
    }
}

fn forward(mut client: TcpStream, mut server: TcpStream, word: &str, times: u32, cuts: &AtomicU32) {
    let mut buffer = vec![0; 65536];
    while let Ok(length @ 1..) = client.read(&mut buffer) {
        let sent = &buffer[..length];
        let has_word = sent.windows(word.len()).any(|window| window == word.as_bytes());
        if has_word && cuts.load(Ordering::SeqCst) < times {
            cuts.fetch_add(1, Ordering::SeqCst);
            break;
        }
        if server.write_all(sent).is_err() {
            break;
        }
    }
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
}
