//! Takes servers out of what registries hand out, waits until clients know, and gives them back: by `tars-init drain`, in the
//! container that asks the database. What cannot be drained is said, and the deploy goes on: it is a gap. Who calls for longer than
//! clients take to ask anew is asked by `callers`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use super::callers::{Listening, Noted};
use super::inside::{Inside, probe};
use super::journal::Event;
use super::run::{Runner, StepError, stopped};
use super::watch::known_by;

/// How long registries may take to hand out what was changed; they reload about every 13 s.
const REGISTRIES: Duration = Duration::from_mins(1);
/// Between two looks at them.
const LOOK: Duration = Duration::from_secs(1);
/// Between two looks while clients ask anew.
const SELDOM: Duration = Duration::from_secs(10);

/// How clients are given time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Patience {
    /// Until every client has asked again: waited for in full.
    pub client_refresh: Duration,
    /// As long as somebody still calls, at the most; counted from the same moment.
    pub drain_timeout: Duration,
    /// Nothing is stopped that is still called then.
    pub is_strict: bool,
}

/// What this run has drained, or may have.
#[derive(Debug, Default)]
pub struct Drains {
    /// The names by which the database knows the containers.
    nodes: BTreeMap<String, String>,
    /// Something of this deployment may be drained.
    pub may_be_left: bool,
}

impl Drains {
    /// None yet by this run; an earlier one may have left some.
    pub fn of(may_be_left: bool) -> Self {
        Self { may_be_left, ..Self::default() }
    }
}

/// A server on a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(super) struct Place {
    pub server: String,
    pub node: String,
}

/// Something that cannot be drained, or not yet.
#[derive(Clone, Debug, Deserialize)]
struct Trouble {
    server: String,
    node: String,
    #[serde(default)]
    why: String,
    #[serde(default)]
    held: bool,
    #[serde(default)]
    registry: String,
}

/// What `tars-init drain` says.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Report {
    drained: Vec<Place>,
    gaps: Vec<Trouble>,
    late: Vec<Trouble>,
    again: Vec<Place>,
    ended: Vec<Place>,
    listens: Vec<Listening>,
    unable: String,
}

impl Runner<'_> {
    /// Drains what serves in these containers and elsewhere too; the step never fails but where it is told to stop.
    pub(super) async fn drain(&mut self, containers: &[String], patience: Patience) -> Result<(), StepError> {
        let nodes = self.nodes_of(containers).await;
        self.drains.may_be_left = true;
        let begun = match self.begin(&nodes).await? {
            Ok(report) if report.unable.is_empty() => report,
            Ok(Report { unable: why, .. }) | Err(why) => {
                self.say(&format!("nothing is drained: {why}"));
                return Ok(());
            }
        };
        for gap in &begun.gaps {
            self.say(&format!("not drained: {} on {}: {}", gap.server, gap.node, gap.why));
        }
        if begun.drained.is_empty() {
            return Ok(());
        }
        self.say(&format!("drained: {}", listed(&begun.drained)));
        let _ = self.write(Event::Drained { places: pairs(&begun.drained) });
        let late = self.await_registries("look", &nodes, &[]).await?;
        if !late.is_empty() {
            let servers: BTreeSet<String> = late.iter().map(|one| one.server.clone()).collect();
            let servers: Vec<String> = servers.into_iter().collect();
            let registry = &late[0].registry;
            self.say(&format!(
                "not drained: {}: {registry} hands it out after {} s: an old registry, or its clock or time zone is off",
                servers.join(", "),
                REGISTRIES.as_secs()
            ));
            match self.tell("end", &nodes, &servers).await {
                Ok(report) => drop(self.write(Event::GivenBack { places: pairs(&report.ended) })),
                Err(why) => self.say(&format!("warning: its flow is not given back yet: {why}")),
            }
            if begun.drained.iter().all(|place| servers.contains(&place.server)) {
                return Ok(());
            }
        }
        self.let_clients_ask(containers, &nodes, patience).await
    }

    /// Begins; with `--wait` again and again, as long as another host holds the only other instance of something.
    async fn begin(&mut self, nodes: &[String]) -> Result<Result<Report, String>, StepError> {
        let until = Instant::now() + self.desired.policy.wait;
        let mut has_said = false;
        loop {
            let begun = self.tell("begin", nodes, &[]).await;
            let is_held = begun.as_ref().is_ok_and(|report| report.gaps.iter().any(|gap| gap.held));
            if !is_held || Instant::now() >= until {
                return Ok(begun);
            }
            if !has_said {
                self.say("waiting for what another host has drained");
                has_said = true;
            }
            self.rest(LOOK).await?;
        }
    }

    /// No answer on a socket tells whether a client has asked again: it is waited for in full, and after it for who still calls.
    async fn let_clients_ask(
        &mut self,
        containers: &[String],
        nodes: &[String],
        patience: Patience,
    ) -> Result<(), StepError> {
        self.say(&format!("clients ask anew within {} s", patience.client_refresh.as_secs()));
        let mut begun = Instant::now();
        let mut ended_once = false;
        let mut noted = Noted::default();
        let mut listens = Vec::new();
        loop {
            let left = patience.client_refresh.saturating_sub(begun.elapsed());
            if !left.is_zero() {
                self.rest(left.min(SELDOM)).await?;
            }
            if let Ok(report) = self.tell("look", nodes, &[]).await {
                listens = report.listens;
                if !report.again.is_empty() {
                    let again = listed(&report.again);
                    if ended_once {
                        self.say(&format!("not drained: {again}: somebody else gave it back twice"));
                        return Ok(());
                    }
                    self.say(&format!("somebody else gave {again} back: drained again"));
                    ended_once = true;
                    begun = Instant::now();
                }
            }
            if begun.elapsed() >= patience.client_refresh {
                if self.are_gone(containers, &listens, patience, begun.elapsed(), &mut noted).await? {
                    return Ok(());
                }
                self.rest(LOOK).await?;
            }
        }
    }

    /// Gives back what was drained of these containers, and waits until registries hand it out again.
    pub(super) async fn undrain(&mut self, containers: &[String]) -> Result<(), StepError> {
        if !self.drains.may_be_left {
            return Ok(());
        }
        let nodes = self.nodes_of(containers).await;
        let ended = match self.tell("end", &nodes, &[]).await {
            Ok(report) => report.ended,
            Err(why) => {
                self.say(&format!("warning: what was drained is not given back yet: {why}"));
                return Ok(());
            }
        };
        if ended.is_empty() {
            return Ok(());
        }
        let servers: BTreeSet<String> = ended.iter().map(|place| place.server.clone()).collect();
        let servers: Vec<String> = servers.into_iter().collect();
        let late = self.await_registries("back", &nodes, &servers).await?;
        self.say(&format!("given back: {}", listed(&ended)));
        let _ = self.write(Event::GivenBack { places: pairs(&ended) });
        if let Some(late) = late.first() {
            self.say(&format!(
                "warning: {} does not hand out {} on {} yet, after {} s",
                late.registry,
                late.server,
                late.node,
                REGISTRIES.as_secs()
            ));
        }
        Ok(())
    }

    /// Gives back whatever this deployment has drained, when its work is over, however it went.
    pub(super) async fn end_drains(&mut self) {
        if !self.drains.may_be_left {
            return;
        }
        match self.tell("end", &[], &[]).await {
            Ok(Report { ended, .. }) if !ended.is_empty() => {
                self.say(&format!("given back: {}", listed(&ended)));
                let _ = self.write(Event::GivenBack { places: pairs(&ended) });
            }
            Ok(_) => {}
            Err(why) => self.say(&format!("warning: what was drained may not be given back: {why}")),
        }
        self.drains.may_be_left = false;
    }

    /// Until all registries hand out what is wanted; what they do not in time.
    async fn await_registries(
        &mut self,
        act: &str,
        nodes: &[String],
        servers: &[String],
    ) -> Result<Vec<Trouble>, StepError> {
        let begun = Instant::now();
        loop {
            let late = match self.tell(act, nodes, servers).await {
                Ok(report) => report.late,
                // Nobody knows: no more is waited for than for who is late.
                Err(_) => Vec::new(),
            };
            if late.is_empty() || begun.elapsed() >= REGISTRIES {
                return Ok(late);
            }
            self.rest(LOOK).await?;
        }
    }

    async fn rest(&mut self, length: Duration) -> Result<(), StepError> {
        tokio::select! {
            () = tokio::time::sleep(length) => Ok(()),
            () = stopped(&mut self.stop) => Err(StepError::Interrupted),
        }
    }

    async fn tell(&mut self, act: &str, nodes: &[String], servers: &[String]) -> Result<Report, String> {
        let order = json!({
            "deployment": self.desired.deployment, "host": self.host, "nodes": nodes, "servers": servers,
        });
        if !self.cluster_probe.is_open() {
            self.own_the_lock().await.map_err(|error| error.to_string())?;
        }
        let text =
            self.cluster_probe.tell(self.engine, self.desired, &["drain", act, &order.to_string()]).await?;
        serde_json::from_str(&text).map_err(|error| format!("its answer is not understood: {error}"))
    }

    /// The names by which the database knows these containers, as far as anybody can tell.
    pub(super) async fn nodes_of(&mut self, containers: &[String]) -> Vec<String> {
        let mut nodes = Vec::new();
        for container in containers {
            if !self.drains.nodes.contains_key(container) {
                let name = match probe(self.engine, container).await {
                    Inside::Said(probe) if !probe.address.is_empty() => Some(probe.address),
                    _ => self
                        .engine
                        .inspect_container(container)
                        .await
                        .ok()
                        .flatten()
                        .and_then(|found| known_by(&found)),
                };
                if let Some(name) = name {
                    self.drains.nodes.insert(container.clone(), name);
                }
            }
            nodes.extend(self.drains.nodes.get(container).cloned());
        }
        nodes
    }

    pub(super) fn say(&self, text: &str) {
        self.machine.reporter.say(&format!("       {text}"));
    }
}

fn pairs(places: &[Place]) -> Vec<(String, String)> {
    places.iter().map(|place| (place.server.clone(), place.node.clone())).collect()
}

fn listed(places: &[Place]) -> String {
    let mut by_server: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for Place { server, node } in places {
        by_server.entry(server).or_default().push(node);
    }
    let each = by_server.into_iter().map(|(server, nodes)| format!("{server} on {}", nodes.join(" and ")));
    each.collect::<Vec<_>>().join(", ")
}
