//! Health: tars_ping to the servants of the role's services, all at once. An open port is not health.

use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::Duration;

use serde::Serialize;

use crate::tars::{Role, Service, ping};

use super::address;
use super::database::Server;
use super::environment::{Environment, ImageRole};
use super::failure::{Code, Failure};
use super::paths::Paths;
use super::rows;

/// For one ping; the health check of the image may take five seconds in all.
const PING: Duration = Duration::from_secs(2);
/// For one answer of the database.
const QUERY: Duration = Duration::from_millis(1500);

/// One servant's answer.
#[derive(Clone, Debug, Serialize)]
pub struct Servant {
    /// Such as `tars.tarsregistry.QueryObj`.
    pub name: String,
    /// Its TCP port.
    pub port: u16,
    /// It answered, and it is alive.
    pub ok: bool,
    /// Why it is not, in a few words; else empty.
    pub detail: String,
    /// The service that it belongs to.
    #[serde(skip)]
    pub service: Service,
}

/// True when every servant of the service answers within `limit`.
pub fn answers(service: Service, host: &str, limit: Duration) -> bool {
    service.servants().iter().all(|servant| {
        address::socket(host, servant.port)
            .is_ok_and(|address| ping::ping(address, &service.servant_name(*servant), limit).is_ok())
    })
}

/// Pings the servants of all these services at once.
pub fn ping_all(services: &[Service], host: &str) -> Vec<Servant> {
    let pings: Vec<_> = services
        .iter()
        .flat_map(|service| service.servants().iter().map(move |servant| (*service, *servant)))
        .map(|(service, servant)| {
            let host = host.to_owned();
            thread::spawn(move || {
                let name = service.servant_name(servant);
                let answer = address::socket(&host, servant.port)
                    .map_err(|error| error.to_string())
                    .and_then(|address| ping::ping(address, &name, PING).map_err(|error| error.to_string()));
                Servant {
                    name,
                    port: servant.port,
                    ok: answer.is_ok(),
                    detail: answer.err().unwrap_or_default(),
                    service,
                }
            })
        })
        .collect();
    pings.into_iter().filter_map(|ping| ping.join().ok()).collect()
}

/// Which of the entrypoints this container was started with; health checks are not told.
pub fn image_role(paths: &Paths) -> ImageRole {
    match fs::read_to_string(paths.started_mark()).as_deref().map(str::trim) {
        Ok("node") => ImageRole::Node,
        Ok("framework") => ImageRole::Framework,
        _ if paths.program(Service::Registry).is_file() => ImageRole::Framework,
        _ => ImageRole::Node,
    }
}

/// The servants that must answer and do not; asks the database only when there are some, whether they were stopped.
pub fn sick<'a>(environment: &Environment, host: &str, servants: &'a [Servant]) -> Vec<&'a Servant> {
    let silent: Vec<&Servant> = servants.iter().filter(|servant| !servant.ok).collect();
    if silent.is_empty() {
        return silent;
    }
    let excused = excused(environment, host);
    silent.into_iter().filter(|servant| !excused.contains(&servant.service)).collect()
}

fn excused(environment: &Environment, host: &str) -> BTreeSet<Service> {
    let Some(account) = &environment.database else { return BTreeSet::new() };
    let ask = || {
        let mut session = Server::of(account).answering_within(QUERY).connect(None)?;
        rows::unwanted(&mut session, environment.role.services(), host)
    };
    let mut unwanted = ask().unwrap_or_default();
    for service in indispensable(environment.role) {
        unwanted.remove(service);
    }
    unwanted
}

/// What runs whatever the database says: without a master's registry nobody could ever be started again.
pub const fn indispensable(role: Role) -> &'static [Service] {
    match role {
        Role::Master => &[Service::Registry, Service::Node],
        Role::Slave | Role::Node | Role::Database => &[Service::Node],
    }
}

/// `tars-init health`: exit code 0 or 1, and one line that says why.
pub fn run(paths: &Paths) -> Result<(), Failure> {
    let unhealthy = |message: String| Failure::new(Code::Unhealthy, message, "");
    let environment = Environment::read(image_role(paths)).map_err(|failure| unhealthy(failure.message))?;
    let host = address::own(&environment.naming).map_err(|failure| unhealthy(failure.message))?;
    let servants = ping_all(environment.role.services(), &host);
    let sick = sick(&environment, &host, &servants);
    if sick.is_empty() {
        return Ok(());
    }
    let list: Vec<_> = sick.iter().map(|servant| format!("{} ({})", servant.name, servant.detail)).collect();
    Err(unhealthy(format!(
        "{} of {} servants do not answer: {}",
        sick.len(),
        servants.len(),
        list.join(", ")
    )))
}
