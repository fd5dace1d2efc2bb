//! Stand-ins for the TARS services: one program that plays the service by whose name it is started.
//!
//! Started as `tarsregistry`, `tarsnode`, ... it plays that service. Started as `standin` it packs packages of the true
//! layouts (`pack`) or pings a servant without a pause and tells the longest gap in its answers (`gap`).

mod config;
mod database;
mod fault;
mod gap;
mod node;
mod pack;
mod registry;
mod serve;
mod wire;

use std::path::Path;
use std::process::ExitCode;

use tarsup::tars::Service;

/// What went wrong, in words for a person.
type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let mut arguments = std::env::args();
    let name = arguments.next().unwrap_or_default();
    let name =
        Path::new(&name).file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let arguments: Vec<String> = arguments.collect();
    // The `gap` client is offered under every name, so that it can run from inside any image.
    let outcome = match (arguments.first().map(String::as_str), name.parse::<Service>()) {
        (Some("gap"), _) => gap::run(&arguments[1..]),
        (_, Ok(service)) => return serve::play(service, &arguments),
        (Some("pack"), Err(_)) => pack::run(&arguments[1..]),
        _ => Err(format!(
            "usage: standin pack ... | standin gap ... (started as `{name}`, which is no TARS service)"
        )
        .into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("standin: {failure}");
            ExitCode::FAILURE
        }
    }
}
