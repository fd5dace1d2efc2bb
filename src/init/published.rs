//! `tars-init published --json`: what was published over the image's own programs in this container, and is gone with it.

use serde::Serialize;

use crate::tars::Service;

use super::address;
use super::database::{DatabaseError, Server};
use super::environment::{Account, Environment};
use super::failure::Failure;
use super::health;
use super::paths::Paths;
use super::{probe, programs};

/// The format of the document.
const DOCUMENT: u32 = 1;
/// Nobody waits longer for a version, which only makes the answer more exact.
const QUERY: std::time::Duration = std::time::Duration::from_secs(2);

/// The document.
#[derive(Debug, Serialize)]
struct PublishedReport {
    version: u32,
    services: Vec<Published>,
}

/// A service whose program is not the image's.
#[derive(Debug, Serialize)]
struct Published {
    service: &'static str,
    /// `patch_version` of its row on this node: what the web console counts its publications by.
    version: Option<String>,
}

/// Prints the document.
pub fn run(paths: &Paths) -> Result<(), Failure> {
    let environment = Environment::read(health::image_role(paths))?;
    let services = programs::replaced(paths, environment.role.services());
    let version = |service: Service| {
        let account = environment.database.as_ref()?;
        let address = address::own(&environment.naming).ok()?;
        version(account, &address, service).ok().flatten()
    };
    let services =
        services.into_iter().map(|service| Published { service: service.name(), version: version(service) });
    probe::print(&PublishedReport { version: DOCUMENT, services: services.collect() }, true)
}

fn version(account: &Account, node: &str, service: Service) -> Result<Option<String>, DatabaseError> {
    let mut session = Server::of(account).answering_within(QUERY).connect(None)?;
    let query = "SELECT patch_version FROM db_tars.t_server_conf WHERE application = 'tars' AND server_name = ? AND \
                 node_name = ?";
    let rows: Vec<String> = session.rows("asking for a version", query, (service.name(), node))?;
    Ok(rows.into_iter().next())
}
