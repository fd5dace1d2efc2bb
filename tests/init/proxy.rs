//! Between tars-init and the database: counts the statements, and does something to one of them.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// What happens to a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection breaks before the server has it.
    Cut,
    /// The connection breaks once the server has done it: its answer is lost.
    AnswerLost,
    /// As `Cut`, and the next connections break at once: the server is away.
    Away,
    /// As `Cut`, and the next connections are told that there are too many.
    Refusing,
    /// It takes its time.
    Slow,
    /// It never comes to the server, and the connection stays: whoever waits for it is killed.
    Held,
}

pub const FAULTS: [Fault; 6] =
    [Fault::Cut, Fault::AnswerLost, Fault::Away, Fault::Refusing, Fault::Slow, Fault::Held];

/// How many connections are turned away.
const TURNED_AWAY: u32 = 3;
const SLOW: Duration = Duration::from_millis(300);

/// Which statement it is about.
#[derive(Clone, Copy, Debug)]
enum Which {
    /// The first so many with this word.
    With(&'static str, u32),
    /// The nth of all, counted from 0.
    Nth(u32),
    None,
}

#[derive(Default)]
struct Counters {
    statements: AtomicU32,
    hits: AtomicU32,
    turned_away: AtomicU32,
}

pub struct Proxy {
    pub port: u16,
    counters: Arc<Counters>,
}

impl Proxy {
    /// Cuts the connection when the client sends `word`, the first `times` times.
    pub fn cutting(to: u16, word: &'static str, times: u32) -> Self {
        Self::begin(to, Which::With(word, times), Fault::Cut)
    }

    /// The first statement with this word comes to nobody, and is answered by nobody.
    pub fn holding(to: u16, word: &'static str) -> Self {
        Self::begin(to, Which::With(word, 1), Fault::Held)
    }

    /// Does this to the nth statement, counted from 0.
    pub fn at(to: u16, nth: u32, fault: Fault) -> Self {
        Self::begin(to, Which::Nth(nth), fault)
    }

    /// Only counts.
    pub fn counting(to: u16) -> Self {
        Self::begin(to, Which::None, Fault::Slow)
    }

    fn begin(to: u16, which: Which, fault: Fault) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let counters = Arc::<Counters>::default();
        let shared = Arc::clone(&counters);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if shared.hits.load(Ordering::SeqCst) > 0 && turn_away(&client, fault, &shared) {
                    continue;
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else { continue };
                let connection = Connection { client, server, is_mute: Arc::default() };
                let counters = Arc::clone(&shared);
                thread::spawn(move || connection.forward(which, fault, &counters));
            }
        });
        Self { port, counters }
    }

    /// How often it was done.
    pub fn cuts(&self) -> u32 {
        self.counters.hits.load(Ordering::SeqCst)
    }

    /// How many statements came by.
    pub fn statements(&self) -> u32 {
        self.counters.statements.load(Ordering::SeqCst)
    }

    pub fn await_cut(&self) {
        let begun = Instant::now();
        while self.cuts() == 0 {
            assert!(begun.elapsed() < Duration::from_secs(30), "the statement never came");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn turn_away(client: &TcpStream, fault: Fault, counters: &Counters) -> bool {
    if !matches!(fault, Fault::Away | Fault::Refusing)
        || counters.turned_away.fetch_add(1, Ordering::SeqCst) >= TURNED_AWAY
    {
        return false;
    }
    if fault == Fault::Refusing {
        let said = b"\xff\x10\x04Too many connections";
        let length = u8::try_from(said.len()).unwrap();
        let mut client = client;
        let _ = client.write_all(&[&[length, 0, 0, 0], &said[..]].concat());
    }
    let _ = client.shutdown(Shutdown::Both);
    true
}

struct Connection {
    client: TcpStream,
    server: TcpStream,
    /// Nothing of what the server says is passed on any more.
    is_mute: Arc<AtomicBool>,
}

impl Connection {
    fn forward(mut self, which: Which, fault: Fault, counters: &Counters) {
        let back = self.pass_answers_on();
        while let Some(packet) = read_packet(&mut self.client) {
            if is_statement(&packet) {
                let number = counters.statements.fetch_add(1, Ordering::SeqCst);
                let is_meant = match which {
                    Which::With(word, times) => {
                        packet.windows(word.len()).any(|window| window == word.as_bytes())
                            && counters.hits.load(Ordering::SeqCst) < times
                    }
                    Which::Nth(nth) => number == nth,
                    Which::None => false,
                };
                if is_meant {
                    counters.hits.fetch_add(1, Ordering::SeqCst);
                    match fault {
                        Fault::Cut | Fault::Away | Fault::Refusing => break,
                        Fault::Slow => thread::sleep(SLOW),
                        Fault::Held => {
                            // Until the client is gone, and nothing is passed on meanwhile.
                            let _ = self.client.read(&mut [0]);
                            break;
                        }
                        Fault::AnswerLost => {
                            self.is_mute.store(true, Ordering::SeqCst);
                            let _ = self.server.write_all(&packet);
                            let _ = back.join();
                            break;
                        }
                    }
                }
            }
            if self.server.write_all(&packet).is_err() {
                break;
            }
        }
        let _ = self.client.shutdown(Shutdown::Both);
        let _ = self.server.shutdown(Shutdown::Both);
    }

    fn pass_answers_on(&self) -> thread::JoinHandle<()> {
        let (mut server, mut client) = (self.server.try_clone().unwrap(), self.client.try_clone().unwrap());
        let is_mute = Arc::clone(&self.is_mute);
        thread::spawn(move || {
            let mut buffer = vec![0; 65536];
            while let Ok(length @ 1..) = server.read(&mut buffer) {
                if is_mute.load(Ordering::SeqCst) || client.write_all(&buffer[..length]).is_err() {
                    return;
                }
            }
            let _ = client.shutdown(Shutdown::Both);
        })
    }
}

/// One packet of the client's, with its header: three bytes of length, one of order.
fn read_packet(from: &mut TcpStream) -> Option<Vec<u8>> {
    let mut packet = vec![0; 4];
    from.read_exact(&mut packet).ok()?;
    let length = usize::from(packet[0]) | usize::from(packet[1]) << 8 | usize::from(packet[2]) << 16;
    packet.resize(4 + length, 0);
    from.read_exact(&mut packet[4..]).ok()?;
    Some(packet)
}

/// A query, a statement that is prepared or one that is carried out. What belongs to the log-in has another order.
fn is_statement(packet: &[u8]) -> bool {
    packet[3] == 0 && matches!(packet.get(4), Some(0x03 | 0x16 | 0x17))
}
