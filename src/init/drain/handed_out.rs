//! What registries hand out to clients: each of those that live is asked for itself, as each has a cache of its own.

use std::thread;
use std::time::Duration;

use serde::Serialize;

use crate::tars::Instance;
use crate::tars::registry::{self, Endpoint as HandedOut};

use crate::init::address;
use crate::init::database::{DB_TARS, DatabaseError, Session};
use crate::init::environment::Endpoint;

/// For one answer.
const ANSWER: Duration = Duration::from_secs(2);
/// A registry that has said nothing for so long is gone, as clients see it too.
const REGISTRY_GONE: u32 = 150;

/// Something that a registry has not taken notice of yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Late {
    /// Such as `Demo.HelloServer`.
    pub server: String,
    /// The node.
    pub node: String,
    /// The registry, or that it does not answer.
    pub registry: String,
}

/// The registries that are alive by the database's clock.
pub fn registries(session: &mut Session) -> Result<Vec<Endpoint>, DatabaseError> {
    let query = format!(
        "SELECT endpoint FROM {DB_TARS}.t_registry_info WHERE servant = '{}' AND present_state = 'active' \
         AND last_heartbeat > NOW() - INTERVAL {REGISTRY_GONE} SECOND ORDER BY endpoint",
        registry::QUERY
    );
    let endpoints: Vec<String> = session.rows("asking for the registries", &query, ())?;
    Ok(endpoints.iter().filter_map(|text| Endpoint::parse(text)).collect())
}

/// Which of these a registry hands out although it must not, or (with `wanted`) does not although it must. One that does not
/// answer tells clients nothing, either.
pub fn late(registries: &[Endpoint], instances: &[&Instance], wanted: bool) -> Vec<Late> {
    let questions: Vec<(Instance, Endpoint)> = registries
        .iter()
        .flat_map(|registry| instances.iter().map(move |one| ((*one).clone(), registry.clone())))
        .collect();
    let asked: Vec<_> = questions
        .into_iter()
        .map(|(one, registry)| thread::spawn(move || (hands_out(&registry, &one), one, registry)))
        .collect();
    asked
        .into_iter()
        .filter_map(|asked| asked.join().ok())
        .filter(|(hands_out, ..)| hands_out.is_some_and(|hands_out| hands_out != wanted))
        .map(|(_, one, registry)| Late { server: one.server, node: one.node, registry: registry.to_string() })
        .collect()
}

/// Whether clients are sent to it; nothing where the registry does not answer, or the server has no object to ask for.
fn hands_out(registry: &Endpoint, one: &Instance) -> Option<bool> {
    let at = address::socket(&registry.host, registry.port).ok()?;
    let mut known = None;
    for adapter in &one.adapters {
        let Some(listens) = adapter.listens() else { continue };
        let Ok(endpoints) = registry::endpoints(at, &adapter.servant, ANSWER) else { continue };
        let is_it = |endpoint: &HandedOut| endpoint.host == listens.host && endpoint.port == listens.port;
        known = Some(known.unwrap_or(false) || endpoints.active.iter().any(is_it));
    }
    known
}
