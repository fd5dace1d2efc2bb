//! Takes servers out of what registries hand out, waits until clients know, and gives them back: by `tars-init drain`, in the
//! container that asks the database. What cannot be drained is said, and the deploy goes on: it is a gap. Who calls for longer than
//! clients take to ask anew is asked by `callers`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::callers::{Listening, Noted};
use super::inside::{Inside, probe};
use super::journal::Event;
use super::run::{Runner, StepError, stopped};
use super::watch::known_by;

/// How long registries may take to hand out what was changed; they reload about every 13 s.
pub(super) const REGISTRIES: Duration = Duration::from_mins(1);
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
    /// Nothing is stopped that cannot be drained, though the plan said that it can.
    pub refuses_gaps: bool,
}

/// What this run has drained, or may have.
#[derive(Debug, Default)]
pub struct Drains {
    /// The names by which the database knows the containers.
    nodes: BTreeMap<String, String>,
    /// Something of this deployment may be drained.
    pub may_be_left: bool,
    /// What was drained before its turn: since when registries hand it out no more.
    ahead: BTreeMap<Place, Instant>,
    /// A registry took no notice in time: what is drained before its turn would only be waited for twice.
    is_late: bool,
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

impl Trouble {
    fn place(&self) -> Place {
        Place { server: self.server.clone(), node: self.node.clone() }
    }
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
    alone: Vec<Place>,
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
                return self.gap(patience, format!("nothing is drained: {why}"));
            }
        };
        // A registry stays handed out whatever is done, and the framework's own come back with their container.
        let (own, business): (Vec<&Trouble>, Vec<_>) =
            begun.gaps.iter().partition(|gap| gap.server.starts_with("tars."));
        let words = |gap: &Trouble| format!("not drained: {} on {}: {}", gap.server, gap.node, gap.why);
        for gap in own {
            self.say(&words(gap));
        }
        for gap in business {
            self.gap(patience, words(gap))?;
        }
        if begun.drained.is_empty() {
            return Ok(());
        }
        self.say(&format!("drained: {}", listed(&begun.drained)));
        let _ = self.write(Event::Drained { places: pairs(&begun.drained) });
        let (drained, late) = self.until_handed_out_no_more(&nodes, begun.drained).await?;
        if let Some(late) = late {
            self.gap(patience, late)?;
        }
        if drained.is_empty() {
            return Ok(());
        }
        let now = Instant::now();
        // The last one counts: whoever is drained by now alone has had no time yet.
        let since = drained.iter().map(|place| self.drains.ahead.get(place).copied().unwrap_or(now)).max();
        self.let_clients_ask(containers, &nodes, patience, since.unwrap_or(now)).await
    }

    /// Drains what is to be stopped next, while `besides` are swapped. What does not come to pass here is done when it is its turn.
    pub(super) async fn drain_ahead(
        &mut self,
        containers: &[String],
        besides: &[String],
    ) -> Result<(), StepError> {
        let (nodes, stopped) = (self.nodes_of(containers).await, self.nodes_of(besides).await);
        // What is stopped meanwhile must be known by its name.
        if self.drains.is_late || nodes.is_empty() || stopped.len() < besides.len() {
            return Ok(());
        }
        self.drains.may_be_left = true;
        let begun = match self.order("begin", json!({"nodes": nodes, "besides": stopped})).await {
            Ok(report) if report.unable.is_empty() => report,
            Ok(Report { unable: why, .. }) | Err(why) => {
                self.say(&format!("nothing is drained ahead: {why}"));
                return Ok(());
            }
        };
        if begun.drained.is_empty() {
            return Ok(());
        }
        self.say(&format!("drained ahead: {}", listed(&begun.drained)));
        let _ = self.write(Event::Drained { places: pairs(&begun.drained) });
        let (drained, late) = self.until_handed_out_no_more(&nodes, begun.drained).await?;
        if let Some(late) = late {
            self.say(&late);
        }
        let now = Instant::now();
        self.drains.ahead.extend(drained.into_iter().map(|place| (place, now)));
        Ok(())
    }

    /// Says that something goes silent that was to be drained; an error where nothing may.
    fn gap(&self, patience: Patience, what: String) -> Result<(), StepError> {
        if patience.refuses_gaps {
            return Err(StepError::Gap { what });
        }
        self.say(&what);
        Ok(())
    }

    /// Waits until registries hand out none of these; what one goes on handing out is given back. Those that are drained then, and in
    /// words what is not.
    async fn until_handed_out_no_more(
        &mut self,
        nodes: &[String],
        mut drained: Vec<Place>,
    ) -> Result<(Vec<Place>, Option<String>), StepError> {
        let late = self.await_registries("look", nodes, &[]).await?;
        let Some(first) = late.first() else { return Ok((drained, None)) };
        self.drains.is_late = true;
        let registry = &first.registry;
        let places = distinct(late.iter().map(Trouble::place));
        let words = format!(
            "not drained: {}: {registry} hands it out after {} s: an old registry, or its clock or time zone is off",
            listed(&places),
            REGISTRIES.as_secs()
        );
        self.give_back(&places).await;
        drained.retain(|place| !places.contains(place));
        Ok((drained, Some(words)))
    }

    /// Gives the flow of these servers back, as far as that can be.
    async fn give_back(&mut self, places: &[Place]) {
        // A server may be drained on two nodes of a batch, for clients of two sets: the other one stays drained.
        for node in distinct(places.iter().map(|place| place.node.clone())) {
            let servers = places.iter().filter(|place| place.node == node);
            let servers: Vec<String> = servers.map(|place| place.server.clone()).collect();
            match self.tell("end", &[node], &servers).await {
                Ok(report) => {
                    self.drains.ahead.retain(|place, _| !report.ended.contains(place));
                    let _ = self.write(Event::GivenBack { places: pairs(&report.ended) });
                }
                Err(why) => self.say(&format!("warning: its flow is not given back yet: {why}")),
            }
        }
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
        since: Instant,
    ) -> Result<(), StepError> {
        // Whoever still calls then is given the rest of `drain_timeout` also where the drain is older.
        let passed = since.elapsed().min(patience.client_refresh);
        let mut begun = Instant::now().checked_sub(passed).unwrap_or_else(Instant::now);
        let refresh = patience.client_refresh.as_secs();
        if passed.as_secs() == 0 {
            self.say(&format!("clients ask anew within {refresh} s"));
        } else {
            self.say(&format!(
                "clients ask anew within {refresh} s, of which {} s are over",
                passed.as_secs()
            ));
        }
        // What somebody else gave back, and is drained once more.
        let mut again: BTreeSet<Place> = BTreeSet::new();
        let mut noted = Noted::default();
        let mut listens = Vec::new();
        loop {
            let left = patience.client_refresh.saturating_sub(begun.elapsed());
            if !left.is_zero() {
                self.rest(left.min(SELDOM)).await?;
            }
            if let Ok(report) = self.tell("look", nodes, &[]).await {
                let (twice, once): (Vec<Place>, Vec<Place>) =
                    report.again.into_iter().partition(|place| again.contains(place));
                listens = report.listens;
                for (places, words) in [
                    (&report.alone, "what served in its place serves no more, and its flow is given back"),
                    (&twice, "somebody else gave it back twice"),
                ] {
                    if !places.is_empty() {
                        self.give_back(places).await;
                        listens.retain(|one| !places.contains(&one.place));
                        self.gap(patience, format!("not drained: {}: {words}", listed(places)))?;
                    }
                }
                let is_given_back = |place: &Place| report.alone.contains(place) || twice.contains(place);
                if report.drained.iter().all(is_given_back) && !report.drained.is_empty() {
                    return Ok(());
                }
                let once: Vec<Place> = once.into_iter().filter(|place| !is_given_back(place)).collect();
                if !once.is_empty() {
                    self.say(&format!("somebody else gave {} back: drained again", listed(&once)));
                    again.extend(once);
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
            Ok(report) => {
                self.drains.ahead.retain(|place, _| !report.ended.contains(place));
                report.ended
            }
            Err(why) => {
                self.say(&format!("warning: what was drained is not given back yet: {why}"));
                return Ok(());
            }
        };
        if ended.is_empty() {
            return Ok(());
        }
        let servers = distinct(ended.iter().map(|place| place.server.clone()));
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
                Ok(report) => {
                    // Its clients have come back meanwhile: it is drained from now on.
                    self.drains.ahead.retain(|place, _| !report.again.contains(place));
                    report.late
                }
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
        self.order(act, json!({"nodes": nodes, "servers": servers})).await
    }

    async fn order(&mut self, act: &str, mut order: Value) -> Result<Report, String> {
        order["deployment"] = json!(self.desired.deployment);
        order["host"] = json!(self.host);
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

/// Each once, in order.
fn distinct<T: Ord>(all: impl Iterator<Item = T>) -> Vec<T> {
    all.collect::<BTreeSet<T>>().into_iter().collect()
}

fn listed(places: &[Place]) -> String {
    let mut by_server: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for Place { server, node } in places {
        by_server.entry(server).or_default().push(node);
    }
    let each = by_server.into_iter().map(|(server, nodes)| format!("{server} on {}", nodes.join(" and ")));
    each.collect::<Vec<_>>().join(", ")
}
