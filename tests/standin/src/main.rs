//! Stand-ins for the TARS services: one program that plays the service by whose name it is started.
//!
//! Started as `tarsregistry`, `tarsnode`, ... it plays that service, and with a configuration under any other name a business service.
//! Started as `standin` it packs packages of the true layouts (`pack`), pings a servant without a pause and tells the longest gap in
//! its answers (`gap`), or calls an object where registries say that it is served, and tells what was lost (`calls`).

mod beside;
mod business;
mod calls;
mod config;
mod database;
mod deployed;
mod directory;
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
        (Some("calls"), Err(_)) => calls::run(&arguments[1..]),
        (Some(config), Err(_)) if config.starts_with("--config=") => business::play(&config["--config=".len()..]),
        (Some("pack"), Err(_)) => pack::run(&arguments[1..]),
        _ => Err(format!(
            "usage: standin pack ... | standin gap ... | standin calls ... (started as `{name}`, which is no TARS service)"
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
