//! The client's side of an upgrade: pings a servant without a pause and tells how long it had no answer.

use std::fs;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use tarsup::tars::ping;

use crate::Failure;

/// `gap ADDRESS:PORT SERVANT [--seconds N] [--until FILE] [--pause MS]`: one line of JSON on stdout.
///
/// It ends after N seconds or as soon as FILE is there, whatever comes first.
pub fn run(arguments: &[String]) -> Result<(), Failure> {
    let [address, servant, options @ ..] = arguments else {
        return Err("usage: gap ADDRESS:PORT SERVANT [--seconds N] [--until FILE] [--pause MS]".into());
    };
    let address = address.to_socket_addrs()?.next().ok_or("no such address")?;
    let (mut length, mut until, mut pause) = (Duration::from_mins(10), None, Duration::from_millis(20));
    for option in options.chunks(2) {
        match option {
            [name, value] if name == "--seconds" => length = Duration::from_secs_f64(value.parse()?),
            [name, value] if name == "--until" => until = Some(value.clone()),
            [name, value] if name == "--pause" => pause = Duration::from_millis(value.parse()?),
            _ => return Err(format!("`{}`: unknown or without a value", option[0]).into()),
        }
    }
    println!("{}", watch(address, servant, length, until.as_deref(), pause));
    Ok(())
}

/// Pings until the time is up; the report as one JSON object, times in milliseconds.
fn watch(
    address: SocketAddr,
    servant: &str,
    length: Duration,
    until: Option<&str>,
    pause: Duration,
) -> String {
    const PATIENCE: Duration = Duration::from_millis(250);
    let began = Instant::now();
    let (mut answers, mut failures, mut gaps) = (0u64, 0u64, Vec::new());
    let (mut last_answer, mut failed_since) = (began, false);
    while began.elapsed() < length && !until.is_some_and(|file| fs::exists(file).unwrap_or(false)) {
        if ping::ping(address, servant, PATIENCE).is_ok() {
            let now = Instant::now();
            if failed_since {
                gaps.push(now.duration_since(last_answer).as_millis());
            }
            (last_answer, failed_since) = (now, false);
            answers += 1;
        } else {
            failed_since = true;
            failures += 1;
        }
        std::thread::sleep(pause);
    }
    let still_down = if failed_since { last_answer.elapsed().as_millis() } else { 0 };
    let longest = gaps.iter().copied().max().unwrap_or(0).max(still_down);
    let gaps = gaps.iter().map(u128::to_string).collect::<Vec<_>>().join(",");
    format!(
        "{{\"servant\":\"{servant}\",\"answers\":{answers},\"failures\":{failures},\"gaps_ms\":[{gaps}],\"longest_ms\":{longest},\"down_ms\":{still_down}}}"
    )
}
