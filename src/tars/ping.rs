//! tars_ping: the call that every TARS server answers for each of its objects.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::wire::{CallError, Sent};

/// What it is called.
pub const FUNCTION: &str = "tars_ping";

/// A ping that was sent.
#[derive(Debug)]
pub struct Asked(Sent);

/// Pings `servant` at `address`; `timeout` bounds connect, send and answer together.
pub fn ping(address: SocketAddr, servant: &str, timeout: Duration) -> Result<(), CallError> {
    let deadline = Instant::now() + timeout;
    ask(address, servant, timeout, timeout)?.answer(deadline)
}

/// Sends a ping, waiting at most `connect` for the connection. `timeout` is what the packet says.
pub fn ask(
    address: SocketAddr,
    servant: &str,
    connect: Duration,
    timeout: Duration,
) -> Result<Asked, CallError> {
    Sent::send(address, (servant, FUNCTION), Vec::new(), connect, timeout).map(Asked)
}

impl Asked {
    /// Waits for the answer until `deadline`.
    pub fn answer(self, deadline: Instant) -> Result<(), CallError> {
        self.0.results(deadline).map(drop)
    }
}
