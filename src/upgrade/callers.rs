//! Who still calls what is drained, once every client has had the time to ask anew: by `tars-init traffic`, in the containers
//! themselves. They are waited for as long as the policy allows, then named; `--strict-drain` stops there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Deserialize;

use super::draining::{Patience, Place};
use super::inside;
use super::run::{Runner, StepError};
use crate::diagnose::first_few;
use crate::engine::Engine;

/// It watches for a second.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Where something that is drained listens.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Listening {
    #[serde(flatten)]
    pub(super) place: Place,
    port: u16,
    is_udp: bool,
}

/// What has been said already.
#[derive(Debug, Default)]
pub(super) struct Noted {
    /// What cannot be known.
    unknown: BTreeSet<String>,
    /// That somebody is waited for.
    waits: bool,
}

/// The addresses that have a connection to one of these ports of a container, whether they say something or not.
pub(super) async fn connected(
    engine: &dyn Engine,
    container: &str,
    ports: &[&str],
) -> Result<BTreeSet<String>, String> {
    let words = [&["traffic", "--connected"], ports].concat();
    let Traffic { callers } = inside::ask(engine, container, &words, TIMEOUT).await?;
    Ok(callers.into_iter().map(|caller| caller.peer).collect())
}

/// What `tars-init traffic` prints.
#[derive(Debug, Deserialize)]
struct Traffic {
    callers: Vec<Caller>,
}

#[derive(Debug, Deserialize)]
struct Caller {
    port: u16,
    peer: String,
}

impl Runner<'_> {
    /// True where nobody calls any more, as far as anybody can tell, or nobody is waited for any longer.
    pub(super) async fn are_gone(
        &mut self,
        containers: &[String],
        listens: &[Listening],
        patience: Patience,
        since: Duration,
        noted: &mut Noted,
    ) -> Result<bool, StepError> {
        let callers = self.callers(containers, listens, noted).await;
        if callers.is_empty() {
            return Ok(true);
        }
        let callers = first_few(&callers);
        let timeout = patience.drain_timeout;
        if since < timeout {
            if !std::mem::replace(&mut noted.waits, true) {
                let left = timeout.saturating_sub(since).as_secs();
                self.say(&format!("still called, and waited for up to {left} s more: {callers}"));
            }
            return Ok(false);
        }
        let after = since.as_secs();
        if patience.is_strict {
            return Err(StepError::StillCalled { callers, after });
        }
        self.say(&format!("still called after {after} s, and stopped all the same: {callers}"));
        Ok(true)
    }

    /// Who calls, in words.
    async fn callers(
        &mut self,
        containers: &[String],
        listens: &[Listening],
        noted: &mut Noted,
    ) -> Vec<String> {
        let mut all = Vec::new();
        for container in containers {
            let nodes = self.nodes_of(std::slice::from_ref(container)).await;
            let here: Vec<&Listening> =
                listens.iter().filter(|one| nodes.contains(&one.place.node)).collect();
            let (udp, tcp): (Vec<&Listening>, Vec<_>) = here.into_iter().partition(|one| one.is_udp);
            for one in udp {
                let Place { server, node } = &one.place;
                self.say_once(noted, format!("nobody counts who calls {server} on {node} over UDP"));
            }
            if tcp.is_empty() {
                continue;
            }
            match self.traffic(container, &tcp).await {
                Ok(callers) => all.extend(callers.into_iter().map(|((server, node), peers)| {
                    let peers: Vec<String> = peers.into_iter().collect();
                    format!("{server} on {node} by {}", peers.join(" and "))
                })),
                Err(why) => self.say_once(noted, format!("who still calls {container} is not known: {why}")),
            }
        }
        all
    }

    fn say_once(&self, noted: &mut Noted, text: String) {
        if !noted.unknown.contains(&text) {
            self.say(&text);
            noted.unknown.insert(text);
        }
    }

    /// Who calls the servers of one container: server and node → addresses.
    async fn traffic(
        &self,
        container: &str,
        listens: &[&Listening],
    ) -> Result<BTreeMap<(String, String), BTreeSet<String>>, String> {
        let ports: BTreeSet<String> = listens.iter().map(|one| one.port.to_string()).collect();
        let mut words = vec!["traffic"];
        words.extend(ports.iter().map(String::as_str));
        let Traffic { callers } = inside::ask(self.engine, container, &words, TIMEOUT).await?;
        let mut found: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
        for caller in callers {
            for Listening { place, .. } in listens.iter().filter(|one| one.port == caller.port) {
                let key = (place.server.clone(), place.node.clone());
                found.entry(key).or_default().insert(caller.peer.clone());
            }
        }
        Ok(found)
    }
}
